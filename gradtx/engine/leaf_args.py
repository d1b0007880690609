"""The arrays that the kernel of each leaf reads."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gradtx.definition.errors import MissingParamsError
from gradtx.engine.kernel import LeafArgs
from gradtx.engine.leaf_init import check_real
from gradtx.tree.casts import as_array
from gradtx.tree.keys import path_hash

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import LeafRule
    from gradtx.engine.program import Flow, Step


class ActiveRule(NamedTuple):
    """One rule of a run at this step: the leaves it acts on, their slots, and its values."""

    name: str
    rule: "LeafRule"
    active: Sequence[bool]
    columns: Sequence[Any]
    """The slots of every leaf."""
    tree_slots: Any
    hyperparams: Mapping[str, Any]
    layouts: Sequence[Any]
    """How every leaf is matrices; empty for a rule on arrays."""
    offsets: Sequence[Any]


class Reads(NamedTuple):
    """What the rules that act on a leaf read beside the gradient."""

    params: bool
    is_random: bool
    input_grad: bool
    matrices: bool

    @classmethod
    def of(cls, members: Sequence[ActiveRule], step: "Step") -> "Reads":
        """Look at the rules; an error where the parameters are missing."""
        rules = [member.rule for member in members]
        needing = [member.name for member in members if member.rule.needs_params]
        if needing and step.params is None:
            raise missing_params(needing[0])
        return cls(
            bool(needing),
            any(rule.is_random for rule in rules),
            any(rule.reads_input_grad for rule in rules),
            any(member.layouts for member in members),
        )


def leaf_args(
    members: Sequence[ActiveRule], programs: Sequence[tuple[int, ...]], flow: "Flow", step: "Step"
) -> dict[int, LeafArgs]:
    """The arrays that the kernel of every leaf reads, by the leaf's number."""
    leaves, args = flow.leaves, dict[int, LeafArgs]()
    reads = {one: Reads.of([members[n] for n in one], step) for one in set(programs) if one}
    params = step.params.values if step.params is not None else leaves.values
    real_only = [n for n, member in enumerate(members) if member.rule.real_only]
    for index, program in enumerate(programs):
        if not program:
            continue
        grad, read, path = as_array(leaves.values[index]), reads[program], leaves.paths[index]
        for n in real_only:
            if n in program:
                check_real(members[n].rule, members[n].name, grad, path)
        args[index] = LeafArgs(
            grad,
            tuple([members[n].columns[index] for n in program]),
            as_array(params[index]) if read.params else None,
            path_hash(path) if read.is_random else None,
            as_array(flow.input_grads[index]) if read.input_grad else None,
            _offsets(members, program, index) if read.matrices else (),
        )
    return args


def _offsets(
    members: Sequence[ActiveRule], program: tuple[int, ...], index: int
) -> tuple[Any, ...]:
    return tuple(members[n].offsets[index] if members[n].offsets else None for n in program)


def missing_params(name: str) -> MissingParamsError:
    """The error of an update without the parameters that a member reads."""
    return MissingParamsError(
        f"{name} needs the parameters: call update(grads, state, params) with the parameters that "
        f"the gradients belong to"
    )
