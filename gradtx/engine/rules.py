"""The protocol of a rule: what a program and the readers of a state ask of every kind of rule.

Four kinds of rule obey it. A `LeafRule` works on one array, or on the matrices in it; a
`TreeRule` works on a whole tree; a `WrapRule` runs another transformation. What differs between
them is a method of the kind, never a question that a caller asks.
"""

import dis
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gradtx.definition.types import Slots

if TYPE_CHECKING:
    from gradtx.engine.program import BoundRule, Flow, Step
    from gradtx.engine.selector import Leaves

Function = Callable[..., Any]


class Child(NamedTuple):
    """A transformation inside a rule, with its part of a state."""

    member: Any
    slots: Any
    count: Any
    """The updates that the member has made: what its clock says."""


class Rule(Protocol):
    """What every kind of rule can do. `bound` says where its slots are and which leaves it has."""

    @property
    def name(self) -> str:
        """The name of its builder, for messages and profiles."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether it has slots in a state."""
        ...

    @property
    def keeps_at_root(self) -> bool:
        """Whether its slots are a dict by member, which needs no name of its own around it."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What `update` must receive beside gradients and state: "params", and extra arguments."""
        ...

    @property
    def replica_axes(self) -> frozenset[str]:
        """The mapped axes whose devices are replicas, each with parameters of its own."""
        ...

    @property
    def reads_tree(self) -> bool:
        """Whether it looks at the whole tree before it changes any array."""
        ...

    @property
    def reads_step(self) -> bool:
        """Whether its update depends on the number of the step, beside what its slots say."""
        ...

    @property
    def ignores_input(self) -> bool:
        """Whether its update is the same whatever it receives."""
        ...

    @property
    def changes_structure(self) -> bool:
        """Whether the gradients it receives may have other shapes than the parameters."""
        ...

    @property
    def own_clock(self) -> bool:
        """Whether the clock of its member is the state's, where it is the whole definition."""
        ...

    @property
    def has_evaluation(self) -> bool:
        """Whether there are parameters to evaluate that are not those it trains."""
        ...

    def joins(self, before: "Rule") -> bool:
        """Whether it runs in the same kernels as the rule before it."""
        ...

    def init(self, bound: "BoundRule", leaves: "Leaves", clock: Any) -> Any:
        """Make its slots; None where it keeps none."""
        ...

    def update(self, run: "Sequence[BoundRule]", flow: "Flow", step: "Step") -> "Flow":
        """Run it, and the rules that joined it, on what flows through the program."""
        ...

    def children(self, slots: Slots, count: Any) -> list[Child]:
        """The transformations inside it, each with its part of the slots."""
        ...

    def evaluate(self, bound: "BoundRule", slots: Slots, leaves: "Leaves", count: Any) -> Any:
        """The tree of parameters to evaluate; only where `has_evaluation` holds."""
        ...

    def report(self, slots: Slots) -> dict[str, Any]:
        """The scalars of its slots that `metrics` shows, by name."""
        ...

    def overrides(self, slots: Slots) -> dict[str, Any]:
        """The hyperparameters of its member that the state holds, by name."""
        ...

    def slot_names(self) -> tuple[str, ...]:
        """The names of its slots, those of members included."""
        ...

    def with_last(self, last: "BoundRule") -> "Rule | None":
        """The rule with a further one in its member's last kernels; None: it must run behind."""
        ...

    def with_storage(self, storage: Any, member: Function) -> "Rule":
        """The rule with its slots in a storage; `member` does the same to a member."""
        ...

    @property
    def offload(self) -> Any:
        """Which of its slots `init` puts into host memory; None: all slots are on the device."""
        ...

    def with_offload(self, offload: Any, member: Function) -> "Rule":
        """The rule with slots that may be in host memory; `member` does the same to a member."""
        ...

    def with_multipliers(self, multipliers: Any, member: Function) -> "Rule":
        """The rule with multiplied hyperparameters; `member` does the same to a member."""
        ...

    def with_stack(self, stack: Any, member: Function) -> "Rule":
        """The rule on the layers of a stack, one by one; `member` does the same to a member."""
        ...


@functools.lru_cache(maxsize=4096)
def keyword_names(function: Function, required: bool = False) -> frozenset[str]:
    """The keyword-only parameters of a rule's function: what it asks for by name."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(
        one.name
        for one in parameters
        if one.kind is one.KEYWORD_ONLY and not (required and one.default is not one.empty)
    )


@functools.lru_cache(maxsize=4096)
def reads_argument(function: Function, position: int) -> bool:
    """Whether a function reads one of its positional arguments; True where nobody can tell."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_argcount <= position:
        return True
    name = code.co_varnames[position]
    # One instruction may read two variables from Python 3.13 on.
    return any(
        one.argval == name or (isinstance(one.argval, tuple) and name in one.argval)
        for one in dis.get_instructions(code)
    )


def select_kwargs(function: Function, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a function asks for by name."""
    names = keyword_names(function)
    return {name: value for name, value in values.items() if name in names}


def all_replica_axes(tx: Any) -> frozenset[str]:
    """The mapped axes of replicas of all rules of a transformation."""
    return frozenset[str]().union(*(bound.rule.replica_axes for bound in tx.rules))
