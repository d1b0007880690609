"""Checks of what a rule receives and returns, and the notes on an error that a rule raises."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp

from gradtx.definition.errors import GradtxError, MissingExtraError, StructureError
from gradtx.definition.show import show, show_type
from gradtx.definition.types import Slots
from gradtx.engine.rules import Function
from gradtx.tree.manual_axes import varying

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import LeafRule


def call_rule(
    rule: "LeafRule", function: Function, grad: Any, slots: Slots, param: Any, step: Any
) -> tuple[Any, Any]:
    """Call `function`, the update of a rule with its values bound: update and slots, checked.

    The rule receives its slots in the type that its `init` makes, and returns them so.
    """
    form = rule.form
    own_slots = slots if form is None else form.to_rule(slots)
    try:
        result = function(grad, own_slots, param, step)
    except Exception as error:
        explain(error, rule, rule.update_array, param)
        raise
    update, new = check_pair(rule, result)
    if jnp.shape(update) != grad.shape:
        raise GradtxError(
            f"{described(rule)} returned an update of shape {jnp.shape(update)} for a gradient of "
            f"shape {grad.shape}: an update keeps the gradient's shape"
        )
    if form is None:
        return jnp.asarray(update), check_nothing(rule, new)
    new = form.from_rule(new, described(rule))
    for field, one, old in zip(new._fields, new, slots, strict=True):
        _check_slot(rule, field, one, old)
    return jnp.asarray(update), new


def described(rule: "LeafRule") -> str:
    """A rule in a message: the builder's name and the function's."""
    return f"{rule.name}: {rule.update_array.__name__}"


def check_pair(rule: "LeafRule", result: Any) -> tuple[Any, Any]:
    """The pair (update, slots) that a rule returned."""
    if not is_sequence(result) or len(result) != 2:
        shown = describe_result(result)
        raise GradtxError(f"{described(rule)} returned {shown}: return a pair, (update, slots)")
    return result[0], result[1]


def is_sequence(value: Any) -> bool:
    """Whether a value is several values; a NamedTuple is one."""
    return isinstance(value, tuple | list) and not hasattr(value, "_fields")


def describe_result(result: Any) -> str:
    """The result of a rule in a message: how many values, or which value alone."""
    return f"{len(result)} values" if is_sequence(result) else f"{describe_value(result)} alone"


def describe_value(value: Any) -> str:
    """The kind of a value in a message."""
    if value is None:
        return "None"
    if isinstance(value, jax.Array):
        return "an array"
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(map(repr, value)) or 'no entries'}"
    return show_type(value)


def check_tree_slots(rule: str, new: Any, old: Any) -> None:
    """Raise when a rule on trees returns slots of another structure than those it received."""
    if old is None and new is not None:
        raise GradtxError(
            f"{rule} returned {describe_value(new)} as its slots, and the rule has no `init`: pass "
            f"a function that makes them, or return None"
        )
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise GradtxError(
            f"{rule} returned {describe_value(new)} as its slots, of another structure than the "
            f"slots that it received, {describe_value(old)}: return them as `init` makes them"
        )


def check_nothing(rule: "LeafRule", slots: Slots) -> None:
    """Raise when a rule without `init` returns slots."""
    if slots is not None:
        raise GradtxError(
            f"{described(rule)} returned slots, and the rule has no `init`: pass a function that "
            f"makes them before {rule.update_array.__name__}, or return (update, None)"
        )


def _check_slot(rule: "LeafRule", field: str, new: Any, old: Any) -> None:
    if (new is None) != (old is None):
        returned, made = ("None", "an array") if new is None else ("an array", "None")
        raise GradtxError(
            f"{described(rule)} returned {returned} as slot {field!r}, and `init` made it {made}: "
            f"return it as `init` makes it"
        )
    if old is not None and jnp.shape(new) != old.shape:
        raise GradtxError(
            f"{described(rule)} returned slot {field!r} in shape {jnp.shape(new)}, and `init` made "
            f"it in shape {old.shape}: a slot keeps its shape"
        )


class Named(Protocol):
    """The parts of a rule that the explanation of an error needs."""

    @property
    def name(self) -> str: ...
    @property
    def needs_params(self) -> bool: ...


RAISED = "raised in the rule "
"""How the note of an error begins that says which rule raised it."""


def explain(error: Exception, rule: Named, function: Function, param: Any) -> None:
    """Say which rule raised, and what commonly leads to such an error."""
    # gradtx's own messages say whose they are; and where a wrapper runs other rules, the innermost
    # one raised, and has its note already.
    if isinstance(error, GradtxError) or any(
        note.startswith(RAISED) for note in getattr(error, "__notes__", ())
    ):
        return
    error.add_note(f"{RAISED}{function.__name__} of {rule.name}")
    if isinstance(error, jax.errors.ConcretizationTypeError):
        error.add_note(
            "JAX traces a rule, so that no `if` can depend on an array: use jnp.where, or make the "
            "number a static option (annotate it `bool`, `int` or `str`)"
        )
    elif param is None and not rule.needs_params and "NoneType" in str(error):
        error.add_note(
            f"{function.__name__} received None as its parameter: if it reads the parameter, pass "
            f"needs_params=True beside it"
        )


def check_extra(name: str, needed: Sequence[str], extra: Mapping[str, Any]) -> None:
    """Raise when an extra argument is missing, or is not what its name says."""
    if not needed:
        return
    lacking = [one for one in needed if extra.get(one) is None]
    if lacking:
        call = ", ".join(f"{one}=..." for one in needed)
        raise MissingExtraError(
            f"{name} needs {', '.join(lacking)}: call update(grads, state, params, {call}); "
            f"make_step passes what it can"
        )
    for one in needed:
        if one == "value":
            _check_loss(name, extra[one])
        elif one.endswith("_fn") and not callable(extra[one]):
            raise StructureError(
                f"{name} needs {one}= as a function of the parameters, and it is "
                f"{show(extra[one])}: pass the function, not its value"
            )


def _check_loss(name: str, value: Any) -> None:
    if not _is_real(value):
        raise StructureError(
            f"{name} needs value= as a real number, and it is {show(value)}: pass the mean loss"
        )
    if jnp.shape(value) != ():
        raise StructureError(
            f"{name} needs value= as a scalar, and it has shape {jnp.shape(value)}: pass the mean "
            "loss"
        )


def _is_real(value: Any) -> bool:
    """Whether a value is a number or an array of numbers, of any shape."""
    try:
        dtype = jnp.result_type(jax.eval_shape(jnp.asarray, value))
    except (TypeError, ValueError):
        return False
    return not jnp.issubdtype(dtype, jnp.complexfloating)


def check_meeting(name: str, gate: Any, replica_axes: Sequence[str]) -> None:
    """Raise where replicas that meet at every k-th step could skip steps alone.

    Their counts would differ, and a device would wait for an exchange that the others do not make.
    """
    alone = [axis for axis in replica_axes if gate is not None and axis in varying(gate)]
    if alone:
        axes = ", ".join(map(repr, alone))
        raise StructureError(
            f"{name}: the wrapper around it skips steps of single replicas over the mesh axis "
            f"{axes}, and these would not meet any more: put it inside, "
            f"{name}(guard(inner_optimizer), ...)"
        )
