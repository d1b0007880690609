"""The two kinds of rule, as records: what a transformation does to one array, or to a tree."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gradtx.definition.definition import Static
from gradtx.definition.errors import GradtxError
from gradtx.engine.matrix_layout import Layout, Matrices
from gradtx.engine.storage import Storage

Function = Callable[..., Any]


@dataclass(frozen=True)
class Rule:
    """The static part of a leaf rule: its functions and options. Equal rules share kernels."""

    update: Function
    init: Function | None = None
    measure: Function | None = None
    conclude: Function | None = None
    init_tree_slots: Function | None = None
    evaluate: Function | None = None
    options: Static = Static({})  # noqa: RUF009  (immutable)
    extra: tuple[str, ...] = ()
    needs_params: bool = False
    real_only: bool = False
    ignores_input: bool = False
    returns_params: bool = False
    """Whether its update is the new parameter itself, in the parameter's dtype; its gradient is
    rounded as the caller would see it.
    """
    storage: Storage | None = None
    matrices: Matrices | None = None
    """How arrays are matrices, for a rule on these."""
    layout: Layout | None = None
    """How the array of one kernel is one; a rule on arrays has none."""

    @functools.cached_property
    def kept(self) -> type[Any] | None:
        """The NamedTuple that stands in a state for one array: the slots, unless a storage keeps
        them in another form.
        """
        return (
            self.slots
            if self.storage is None or self.slots is None
            else self.storage.stored_type(self.slots)
        )

    @functools.cached_property
    def slots(self) -> type[Any] | None:
        """The NamedTuple that `init` returns, by its annotation; None when nothing is kept per
        array.
        """
        return None if self.init is None else returned_type(self.init)

    @functools.cached_property
    def shared(self) -> type[Any] | None:
        """The NamedTuple of scalars that `init_shared` returns; None when nothing is kept for the
        whole tree.
        """
        return None if self.init_tree_slots is None else returned_type(self.init_tree_slots)

    @property
    def keeps(self) -> bool:
        return self.init is not None or self.init_tree_slots is not None

    @property
    def reads_tree(self) -> bool:
        """Whether it looks at the whole tree before it runs on each array."""
        return self.conclude is not None

    @functools.cached_property
    def is_random(self) -> bool:
        """Whether it needs to know which leaf it is given."""
        return not keyword_names(self.update).isdisjoint({"key", "noise"}) or (
            self.storage is not None and self.storage.is_random
        )

    @functools.cached_property
    def wants_input_grad(self) -> bool:
        """Whether it asks for the gradient as the caller gave it."""
        return any(
            "input_grad" in keyword_names(function)
            for function in (self.update, self.measure)
            if function is not None
        )

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        functions = (
            self.update,
            self.init,
            self.measure,
            self.conclude,
            self.init_tree_slots,
            self.evaluate,
        )
        flags = self.needs_params, self.real_only, self.ignores_input, self.returns_params
        return hash((functions, self.options, self.extra, flags, self.storage, self.layout))

    def laid_out(self, layout: Layout | None) -> "Rule":
        """The rule as the kernel of one array has it."""
        return self if self.matrices is None else laid_out(self, layout)

    @property
    def is_spread(self) -> bool:
        """Whether its matrices are spread over devices, so that arrays alike are worked on
        together.
        """
        return self.matrices is not None and self.matrices.shard is not None


@functools.lru_cache(maxsize=4096)
def laid_out(rule: Rule, layout: Layout | None) -> Rule:
    """A rule on matrices for one way in which an array is matrices."""
    return dataclasses.replace(rule, matrices=None, layout=layout)


@dataclass(frozen=True)
class LeafRule:
    """A rule on one array, and the hyperparameters it runs with."""

    name: str
    rule: Rule
    hyperparams: Mapping[str, Any]

    @property
    def keeps(self) -> bool:
        return self.rule.keeps

    @property
    def extra(self) -> tuple[str, ...]:
        return self.rule.extra

    @property
    def needs_params(self) -> bool:
        return self.rule.needs_params

    @property
    def keeps_at_root(self) -> bool:
        return False


class Child(NamedTuple):
    """A transformation that a rule wraps, as it stands in a state: its own slots, and what its
    clock says.
    """

    member: Any
    slots: Any
    count: Any


@dataclass(frozen=True)
class TreeRule:
    """A rule on whole trees, its hyperparameters, and the members it wraps."""

    name: str
    init: Function | None
    update: Function
    hyperparams: Mapping[str, Any]
    options: Mapping[str, Any]
    needs_params: bool = False
    extra: tuple[str, ...] = ()
    changes_structure: bool = False
    children: Function | None = None
    evaluate: Function | None = None
    report: Function | None = None
    own_clock: bool = False
    storage: Storage | None = None

    @property
    def keeps(self) -> bool:
        return self.init is not None

    def members(self, slots: Any, count: Any) -> "list[Child]":
        """The transformations that it wraps, each with its slots and its count as they stand in a
        state.
        """
        return (
            []
            if self.children is None
            else list(self.children(slots, count, **select_kwargs(self.children, self.options)))
        )

    @property
    def keeps_at_root(self) -> bool:
        """Whether its slots are a dict of members, which stand where a wrapper's own name would."""
        return self.init is not None and issubclass(returned_type(self.init), dict)


@functools.lru_cache(maxsize=1024)
def returned_type(init: Function) -> type[Any]:
    """The type a rule's `init` is annotated to return."""
    found = typing.get_type_hints(init).get("return")
    found = typing.get_origin(found) or found
    if not isinstance(found, type):
        raise GradtxError(
            f"{init.__module__}.{init.__qualname__} must be annotated with the NamedTuple it returns: def init(param) -> Slots"
        )
    return found


@functools.lru_cache(maxsize=1024)
def keyword_names(function: Function, required: bool = False) -> frozenset[str]:
    """The keyword-only parameters of a rule's function: what it wants to be told by name."""
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    return frozenset(
        parameter.name
        for parameter in parameters
        if not required or parameter.default is parameter.empty
    )


def select_kwargs(function: Function, given: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `given` that a function asks for by name."""
    names = keyword_names(function)
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values()):
        return dict(given)
    return {name: value for name, value in given.items() if name in names}


def check_names(
    name: str,
    functions: Iterable[Function | None],
    given: Mapping[str, Any],
    open_ended: Function | None,
    told: frozenset[str],
) -> None:
    """Raise when a rule asks for a name it is not given, or is given one that it never uses.

    `open_ended` is a function that is told more than `given`, so nothing is missing from it; all
    are told `told`."""
    known = [function for function in functions if function is not None]
    unused = sorted(set(given) - frozenset[str]().union(*map(keyword_names, known)))
    if unused:
        raise GradtxError(
            f"{name}: {', '.join(unused)} is given, but no function of the rule has a keyword-only argument of that name"
        )
    required = frozenset[str]().union(
        *(
            keyword_names(function, required=True)
            for function in known
            if function is not open_ended
        )
    )
    missing = sorted(required - set(given) - told)
    if missing:
        raise GradtxError(
            f"{name}: its rule asks for {', '.join(missing)}, which is in neither hyperparams nor options"
        )
