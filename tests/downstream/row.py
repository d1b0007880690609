"""What a row says: a training in another library, with the transformation and its namespace."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

Training = Callable[[Any, Any], list[Any]]
"""`train(tx, optax)` returns the losses; `optax` is the namespace that a script has under this
name: Optax, or gradtx by a changed import.
"""

# In float32 Optax computes 1 - 0.999^t with an error of 1e-5 at t = 2; 1 - 0.95^t is exact enough.
B2 = 0.95


def load(module: str, name: str | None = None) -> Any:
    """A module, or a name of it, untyped: the environment of the type checker lacks them."""
    loaded = importlib.import_module(module)
    if name is None:
        return loaded
    return getattr(loaded, name, None) or importlib.import_module(f"{module}.{name}")


def clipped_adamw(optax: Any) -> Any:
    """The optimizer of most rows: a schedule, clipping, Adam and weight decay."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.05, 5, decay_steps=30)
    adam = optax.adamw(schedule, b2=B2, weight_decay=1e-3)
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def clipped_adam(optax: Any) -> Any:
    """The same without weight decay, for libraries that call `update` without the parameters."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05, b2=B2))


@dataclasses.dataclass(frozen=True)
class Row:
    """One use of a library; `feature` names it, and `package` is the distribution to install."""

    package: str
    feature: str
    train: Training
    make: Callable[[Any], Any] = clipped_adamw
    checks_type: bool = False
    """Whether the library refuses anything but Optax's class."""
    steps: int = 20

    @property
    def name(self) -> str:
        return f"{self.package}: {self.feature}"
