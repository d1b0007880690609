"""`state.hyperparams`: the numbers that a state holds, written with the types that they have.

The state itself stores a plain dict, which other libraries serialize; this dict writes through to
it. A Python float in the place of an array would compile every jitted function of the state again.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import DictKey

from gradtx.definition.errors import HyperparamError
from gradtx.definition.spelling import is_number_text, suggest
from gradtx.tree.casts import is_inexact


class HeldHyperparams(dict[str, Any]):
    """The hyperparameters in a state; a value that a user writes acts at the next update."""

    def __init__(self, stored: dict[str, Any]):
        super().__init__(stored)
        self._stored: dict[str, Any] = stored

    def __setitem__(self, name: str, value: Any) -> None:
        value = typed_like(self._stored, name, value)
        self._stored[name] = value
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        del self._stored[name]

    def update(self, other: Any = (), /, **named: Any) -> None:
        """Write several."""
        new: Mapping[str, Any] = dict(other, **named)
        for name, value in new.items():
            self[name] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Write one where there is none."""
        if name not in self:
            self[name] = default
        return self[name]

    def __ior__(self, other: Any) -> "HeldHyperparams":  # pyright: ignore
        self.update(other)
        return self

    def pop(self, name: str, *default: Any) -> Any:
        """Remove one, of the caller's own for example."""
        self._stored.pop(name, None)
        return super().pop(name, *default)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def _unflatten(names: tuple[str, ...], values: Iterable[Any]) -> Any:
    """A plain dict, as it is in a state."""
    return dict(zip(names, values, strict=True))


def _flatten(held: HeldHyperparams) -> tuple[Iterable[tuple[Any, Any]], tuple[str, ...]]:
    names = tuple(sorted(held))
    return [(DictKey(name), held[name]) for name in names], names


jax.tree_util.register_pytree_with_keys(HeldHyperparams, _flatten, _unflatten)


def all_typed_like(stored: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """All entries in the place of those of a state."""
    return {name: typed_like(stored, name, value) for name, value in values.items()}


def typed_like(stored: Mapping[str, Any], name: str, value: Any) -> Any:
    """A value for an entry, in the type of the old one; a new entry is the caller's own."""
    if name not in stored:
        if hint := suggest(name, stored):
            raise HyperparamError(
                f"state.hyperparams has no {name!r}{hint} It has {', '.join(stored)}; an entry of "
                f"your own takes another name"
            )
        return value
    old = stored[name]
    check_held(name, value)
    if not is_inexact(old) or isinstance(old, float | complex):
        return value
    array = jnp.asarray(value, old.dtype)
    if isinstance(old, jax.Array) and not isinstance(old, Tracer) and old.committed:
        is_concrete = array.shape == old.shape and not isinstance(array, Tracer)
        return jax.device_put(array, old.sharding) if is_concrete else array
    return array


def check_held(name: str, value: Any) -> None:
    """Raise where a value in a state is not a number or an array."""
    if isinstance(value, jax.Array | np.ndarray | np.number | int | float | complex) and not (
        isinstance(value, bool)
    ):
        return
    cure = "write a number"
    if is_number_text(value):
        cure = f"write float({value!r})"
    elif callable(value):
        cure = f"a schedule belongs into the definition, gradtx.replace(tx, {name}=schedule)"
    raise HyperparamError(
        f"state.hyperparams[{name!r}] = {value!r} is neither a number nor an array: {cure}"
    )
