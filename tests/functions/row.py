"""One public function: its reference in float64, its peer, and the arguments to try."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """Arguments of one call; floats are float64 arrays of NumPy, which the tests cast."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Function:
    """A public function of gradtx and what its tests need.

    `reference` computes in NumPy, from the equation, and imports nothing of gradtx. `peer` is
    Optax's function, or None where Optax has none or a difference is intended (then `reason` says
    which). `static` names keyword arguments that jit must not trace. `differentiable` lists the
    positions whose gradients are compared with finite differences; empty for none.
    """

    call: Callable[..., Any]
    reference: Callable[..., Any]
    peer: Callable[..., Any] | None
    cases: Mapping[str, Case]
    static: tuple[str, ...] = ()
    differentiable: tuple[int, ...] = (0,)
    single: float = 1e-5  # relative to the largest entry: some 80 roundings of float32
    reason: str = ""
