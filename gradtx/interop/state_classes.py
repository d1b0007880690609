"""Optax's classes of states: `ScaleByAdamState`, `TraceState`, `MultiStepsState`, ...

They are NamedTuples with Optax's fields, for transformations of your own that store one, and for
annotations. A `State` of gradtx is an instance of one of them if it stores the member behind that
class, once: `isinstance(state, gradtx.ScaleByAdamState)` is true for `adamw`. Its fields are then
attributes of the state.
"""

import collections
from typing import Any, NamedTuple

from gradtx.definition.optax_states import ANY, CLASSES
from gradtx.definition.state import Entry, State, members_named


class StateClass(type):
    """The metaclass by which a `State` of gradtx is an instance, too."""

    member = ""

    def __instancecheck__(cls, instance: object) -> bool:
        if type.__instancecheck__(cls, instance):
            return True
        state = instance.state if isinstance(instance, Entry) else instance
        if not isinstance(state, State) or not cls.member:
            return False
        return cls.member == ANY or len(list(members_named(state, cls.member))) == 1


class _NoneIsMasked(type):
    """The metaclass by which None, a masked leaf here, is an instance of `MaskedNode`."""

    def __instancecheck__(cls, instance: object) -> bool:
        return instance is None or type.__instancecheck__(cls, instance)


class _Masked(NamedTuple):
    """A leaf that is left out."""


class MaskedNode(_Masked, metaclass=_NoneIsMasked):
    """A leaf that a mask leaves out: a node without leaves, as None is in gradtx's states.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.masked(gradtx.trace(0.9), {"a": True, "b": False})
    >>> slots = tx.init({"a": jnp.ones(1), "b": jnp.ones(1)}).trace
    >>> isinstance(slots["a"], gradtx.MaskedNode), isinstance(slots["b"], gradtx.MaskedNode)
    (False, True)
    """

    __slots__ = ()


def __getattr__(name: str) -> Any:
    """Make a class when it is asked for; the module keeps it, so that its states can be pickled."""
    if name not in CLASSES:
        raise AttributeError(f"{__name__} has no {name!r}")
    member, fields = CLASSES[name]
    base = collections.namedtuple(name, fields, module=__name__)
    text = f"Optax's `{name}`, for states of your own and for `isinstance`."
    namespace = {"__slots__": (), "member": member, "__doc__": text, "__module__": __name__}
    globals()[name] = StateClass(name, (base,), namespace)
    return globals()[name]
