"""What a rule keeps of one array: a NamedTuple, a dict or a dataclass, as the engine handles it."""

import collections
import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import GradtxError
from gradtx.definition.static import Static
from gradtx.definition.types import Slots
from gradtx.engine.checks import describe_value
from gradtx.engine.rules import Function, keyword_names, select_kwargs

Outer = type[Any] | None


class SlotForm(NamedTuple):
    """The slots of a rule: the NamedTuple that the engine uses, and the type that the rule uses."""

    kind: type[Any]
    outer: Outer = None
    """`dict` or a dataclass; None: the rule uses the NamedTuple itself."""

    def to_rule(self, slots: Slots) -> Any:
        """The slots in the type that the rule uses."""
        return slots if self.outer is None or slots is None else self.outer(**slots._asdict())

    def from_rule(self, slots: Slots, rule: str) -> Any:
        """The slots that a rule returned, as a NamedTuple; an error says what it returned."""
        named = self._named(slots)
        if named is None:
            raise GradtxError(
                f"{rule} returned {describe_value(slots)} as its slots, and its `init` makes "
                f"{self.shown}: return (update, {self.shown})"
            )
        return named

    def from_init(self, slots: Slots, init: Function) -> Any:
        """The slots that `init` returned, as a NamedTuple; an error says what it returned."""
        named = self._named(slots)
        if named is None:
            raise GradtxError(
                f"{init.__name__} returned {describe_value(slots)} as slots, and elsewhere it "
                f"returns {self.shown}: return {self.shown}, or mend its return annotation"
            )
        return named

    def _named(self, slots: Slots) -> Any:
        """Slots as a NamedTuple; None where they are of another form."""
        if self.outer is None or not isinstance(slots, self.outer):
            return slots if type(slots) is self.kind else None
        fields = _fields(slots)
        return self.kind(**fields) if set(fields) == set(self.kind._fields) else None

    def store(self, trees: Any) -> Any:
        """One tree per field, as a state holds them."""
        return (
            self.kind(*trees)
            if self.outer is None
            else dict(zip(self.kind._fields, trees, strict=True))
        )

    @property
    def shown(self) -> str:
        """The slots as they read in a message."""
        name = self.kind.__name__ if self.outer is None else self.outer.__name__
        return f"{name}({', '.join(self.kind._fields)})"


def _fields(slots: Slots) -> dict[str, Any]:
    if isinstance(slots, Mapping):
        return dict(slots)
    return {field.name: getattr(slots, field.name) for field in dataclasses.fields(slots)}


@functools.lru_cache(maxsize=4096)
def slot_form(init: Function, options: Static, shape: tuple[int, ...] = (4, 4)) -> SlotForm:
    """The form of the slots that `init` makes: by its annotation, else by a trial on shapes."""
    annotated = returned_type(init)
    form = None if annotated is None else _form_of(annotated, None)
    return form or _form_of_trial(init, options, shape)


@functools.lru_cache(maxsize=4096)
def returned_type(init: Function) -> type[Any] | None:
    """The type that a function is annotated to return."""
    try:
        hint = typing.get_type_hints(init).get("return")
    except (NameError, TypeError):
        return None
    hint = typing.get_origin(hint) or hint
    return hint if isinstance(hint, type) and hint is not type(None) else None


def _form_of(kind: type[Any], names: tuple[str, ...] | None) -> SlotForm | None:
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return SlotForm(kind)
    if dataclasses.is_dataclass(kind):
        return SlotForm(_named_tuple(tuple(one.name for one in dataclasses.fields(kind))), kind)
    return SlotForm(_named_tuple(names), dict) if issubclass(kind, dict) and names else None


@functools.lru_cache(maxsize=1024)
def _named_tuple(names: tuple[str, ...]) -> type[Any]:
    return collections.namedtuple("Slots", names)


def _form_of_trial(init: Function, options: Static, shape: tuple[int, ...]) -> SlotForm:
    """Run `init` on shapes alone, and look at what it returns."""
    static = select_kwargs(init, options.values)
    missing = keyword_names(init, required=True) - set(static)
    numbers = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in missing}
    found: list[Any] = []

    def trial(param: Any, **more: Any) -> None:
        found.append(init(param, **static, **more))

    jax.eval_shape(trial, jax.ShapeDtypeStruct(shape, jnp.float32), **numbers)
    names = tuple(found[0]) if isinstance(found[0], dict) else None
    form = _form_of(type(found[0]), names)
    if form is None:
        raise GradtxError(
            f"{init.__name__} returned {describe_value(found[0])} as slots: return a NamedTuple, "
            f"a dict or "
            f"a dataclass of arrays"
        )
    return form


@functools.lru_cache(maxsize=1024)
def tree_kind(init: Function, options: Static) -> type[Any]:
    """The NamedTuple that `init_tree_slots` makes: by its annotation, else by a trial."""
    kind = returned_type(init)
    if kind is None:
        static = select_kwargs(init, options.values)
        missing = keyword_names(init, required=True) - set(static)
        numbers = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in missing}
        kind = type(jax.eval_shape(functools.partial(init, **static), **numbers))
    if not issubclass(kind, tuple) or not hasattr(kind, "_fields"):
        raise GradtxError(
            f"{init.__name__} makes a {kind.__name__}: return a NamedTuple of scalars, the tree "
            f"slots"
        )
    return kind
