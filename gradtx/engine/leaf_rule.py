"""Rules on one array: the record of their functions, and what they do in a program."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gradtx.definition.static import Static
from gradtx.definition.types import Slots
from gradtx.engine.checks import call_rule
from gradtx.engine.clock import Clock
from gradtx.engine.layer_calls import call_on_layers
from gradtx.engine.layers import LayerAxes, Stack, layers_of
from gradtx.engine.leaf_evaluate import evaluate_leaves
from gradtx.engine.leaf_init import init_leaves
from gradtx.engine.leaf_update import update_leaves
from gradtx.engine.matrix_layout import Layout, Matrices
from gradtx.engine.matrix_rules import call_on_matrices
from gradtx.engine.multipliers import Factors, Multipliers
from gradtx.engine.rules import (
    Child,
    Function,
    Rule,
    keyword_names,
    reads_argument,
    select_kwargs,
)
from gradtx.engine.selector import Leaves
from gradtx.engine.slot_form import SlotForm, slot_form, tree_kind
from gradtx.engine.slot_memory import Offload
from gradtx.engine.slots import tree_slots_of
from gradtx.engine.storage import Storage

if TYPE_CHECKING:
    from gradtx.engine.program import BoundRule

Bound = Callable[..., tuple[Any, Any]]


@dataclass(frozen=True)
class LeafRule:
    """A rule on one array: its functions and options. Equal rules share kernels."""

    name: str
    update_array: Function
    init_array: Function | None = None
    measure: Function | None = None
    conclude: Function | None = None
    init_tree_slots: Function | None = None
    evaluate_array: Function | None = None
    options: Static = Static({})  # noqa: RUF009  (immutable)
    extra: tuple[str, ...] = ()
    needs_params: bool = False
    real_only: bool = False
    ignores_input: bool = False
    returns_params: bool = False
    """Whether its update is the new parameter itself, in the parameter's dtype."""
    storage: Storage | None = None
    offload: Offload | None = None
    multipliers: Multipliers | None = None
    """Which numbers multiply its hyperparameters, leaf by leaf."""
    factors: Factors = ()
    """The same for the kernel of one leaf."""
    stacks: tuple[Stack, ...] = ()
    """The stacks of layers, outermost first, whose layers the rule sees one by one."""
    layers: LayerAxes | None = None
    """How the array of one kernel is layers."""

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        # A rule is looked up for every leaf, and its options take long to hash.
        fields = (getattr(self, field.name) for field in dataclasses.fields(self))
        return hash(tuple(fields))

    @functools.cached_property
    def form(self) -> SlotForm | None:
        """The slots of one array as the rule knows them; None: it keeps none."""
        return None if self.init_array is None else slot_form(self.init_array, self.options)

    @functools.cached_property
    def stored_form(self) -> SlotForm | None:
        """The slots of one array as a state holds them: a storage may pack two into one."""
        if self.form is None or self.storage is None:
            return self.form
        return SlotForm(self.storage.stored_type(self.form.kind))

    @functools.cached_property
    def tree_kind(self) -> type[Any] | None:
        """The NamedTuple of scalars that it keeps for the whole tree."""
        return (
            None if self.init_tree_slots is None else tree_kind(self.init_tree_slots, self.options)
        )

    @functools.cached_property
    def static_kwargs(self) -> dict[str, Any]:
        """The options that `update_array` asks for."""
        return select_kwargs(self.update_array, self.options.values)

    @functools.cached_property
    def is_random(self) -> bool:
        """Whether its kernel must know which leaf it works on."""
        draws = self.asks_for("key") or self.asks_for("noise")
        return draws or (self.storage is not None and self.storage.is_random)

    @functools.cached_property
    def reads_input_grad(self) -> bool:
        """Whether it asks for the gradient as the caller passed it."""
        functions = (self.update_array, self.measure)
        return any("input_grad" in keyword_names(one) for one in functions if one is not None)

    def asks_for(self, name: str) -> bool:
        """Whether `update_array` has a keyword-only parameter of that name."""
        return name in keyword_names(self.update_array)

    def bind(self, kwargs: Mapping[str, Any], offsets: Any) -> Bound:
        """`update_array` as a function of gradient, slots, parameter and step, checked."""
        if self.layers is not None:
            return functools.partial(call_on_layers, self, kwargs)
        function = functools.partial(self.update_array, **kwargs, **self.static_kwargs)
        return functools.partial(call_rule, self, function)

    def layouts(self, bound: "BoundRule", leaves: Leaves, active: Sequence[bool]) -> Sequence[Any]:
        """For every leaf how it is matrices, or layers; nothing where a rule sees whole arrays."""
        return layers_of(self.stacks, leaves) if self.stacks else ()

    def offsets(self, layouts: Sequence[Any], clock: Clock) -> Sequence[Any]:
        """For every leaf the steps at which its matrices are refreshed, or another value."""
        return ()

    def at(self, layout: Any) -> "LeafRule":
        """The rule as the kernel of one leaf has it."""
        return self if layout is None else in_layers(self, layout)

    @property
    def is_sharded(self) -> bool:
        """Whether its matrices are spread over devices, so that leaves are worked on together."""
        return False

    may_spread: ClassVar[bool] = False
    """Whether its matrices go to owners where it is known how leaves are cut."""

    # The protocol of rules.

    @property
    def keeps(self) -> bool:
        return self.init_array is not None or self.init_tree_slots is not None

    @property
    def keeps_at_root(self) -> bool:
        return False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset((*self.extra, *(["params"] if self.needs_params else [])))

    @property
    def replica_axes(self) -> frozenset[str]:
        return frozenset()

    @property
    def reads_tree(self) -> bool:
        return self.conclude is not None

    @property
    def reads_step(self) -> bool:
        places = ((self.update_array, 3), (self.measure, 3), (self.conclude, 2))
        reads = (reads_argument(one, place) for one, place in places if one is not None)
        return self.is_random or any(reads)

    @property
    def has_evaluation(self) -> bool:
        return self.evaluate_array is not None

    @property
    def changes_structure(self) -> bool:
        return False

    @property
    def own_clock(self) -> bool:
        return False

    def joins(self, before: Rule) -> bool:
        ours = getattr(before, "is_sharded", None) is False
        return ours and not self.is_sharded and not self.reads_tree

    init = init_leaves
    update = update_leaves
    evaluate = evaluate_leaves

    def children(self, slots: Slots, count: Any) -> list[Child]:
        return []

    def report(self, slots: Slots) -> dict[str, Any]:
        return tree_slots_of(self.tree_kind, slots)

    def overrides(self, slots: Slots) -> dict[str, Any]:
        return {}

    def slot_names(self) -> tuple[str, ...]:
        return () if self.form is None else self.form.kind._fields

    def with_last(self, last: "BoundRule") -> "Rule | None":
        return None

    def with_storage(self, storage: Storage, member: Function) -> "LeafRule":
        return self if self.form is None else dataclasses.replace(self, storage=storage)

    def with_offload(self, offload: Offload, member: Function) -> "LeafRule":
        return dataclasses.replace(self, offload=offload)

    def with_multipliers(self, multipliers: Multipliers, member: Function) -> "LeafRule":
        return dataclasses.replace(self, multipliers=multipliers)

    def with_stack(self, stack: Stack, member: Function) -> "LeafRule":
        return dataclasses.replace(self, stacks=(stack, *self.stacks))


@dataclass(frozen=True)
class MatrixRule(LeafRule):
    """A rule on the matrices in an array."""

    matrices: Matrices = Matrices()  # noqa: RUF009  (immutable)
    layout: Layout | None = None
    """How the array of one kernel is matrices."""

    def __hash__(self) -> int:
        return self._hash

    def bind(self, kwargs: Mapping[str, Any], offsets: Any) -> Bound:
        return functools.partial(call_on_matrices, self, kwargs, offsets)

    def layouts(self, bound: "BoundRule", leaves: Leaves, active: Sequence[bool]) -> Sequence[Any]:
        return self.matrices.layouts(leaves, active, bound.name, self.stacks)

    def offsets(self, layouts: Sequence[Any], clock: Clock) -> Sequence[np.ndarray | None]:
        return self.matrices.turns(layouts)

    def at(self, layout: Layout | None) -> "MatrixRule":
        return laid_out(self, layout)

    @property
    def is_sharded(self) -> bool:
        return self.matrices.shard not in (None, False)

    @property
    def may_spread(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.matrices.shard is not False


@functools.lru_cache(maxsize=4096)
def laid_out(rule: MatrixRule, layout: Layout | None) -> MatrixRule:
    """A rule on matrices for one way in which an array is matrices."""
    return dataclasses.replace(rule, matrices=Matrices(), stacks=(), layout=layout)


@functools.lru_cache(maxsize=4096)
def in_layers(rule: LeafRule, layers: LayerAxes) -> LeafRule:
    """A rule on arrays for one way in which an array is layers."""
    return dataclasses.replace(rule, stacks=(), layers=layers)
