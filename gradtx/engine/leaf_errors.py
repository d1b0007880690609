"""The errors of rules on arrays, with the leaf at which they were raised."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from gradtx.definition.errors import MissingParamsError, StateError
from gradtx.definition.show import show_array
from gradtx.definition.types import Slots
from gradtx.engine.kernel import LeafArgs
from gradtx.engine.leaf_init import init_leaf

if TYPE_CHECKING:
    from gradtx.engine.leaf_update import ActiveRule


def located(
    error: Exception, members: "Sequence[ActiveRule]", args: LeafArgs, path: str, index: int
) -> Exception:
    """What a kernel raised, with its leaf: slots of other shapes, or else the rule's own error."""
    if isinstance(error, TypeError | ValueError):
        for member, slots in zip(members, args.slots, strict=True):
            if slots is not None:
                _check_slots(member, slots, args.grad, path, index)
    names = ", ".join(member.name for member in members)
    error.add_note(
        f"raised at {path!r}, a gradient {show_array(args.grad)}, in the rules of {names}"
    )
    return error


def _check_slots(member: "ActiveRule", slots: Slots, grad: Any, path: str, index: int) -> None:
    """Raise where the slots of a leaf are not those that `init` would make for it."""
    layout = member.layouts[index] if member.layouts else None
    kwargs = {**member.hyperparams, **member.rule.options.values}
    make = functools.partial(
        init_leaf, member.rule, member.name, path=path, kwargs=kwargs, layout=layout
    )
    for name, kept, fits in zip(slots._fields, slots, jax.eval_shape(make, grad), strict=True):
        if getattr(kept, "shape", None) != getattr(fits, "shape", None):
            shown = None if kept is None else show_array(kept)
            raise StateError(
                f"slot {name!r} of member {member.name} at {path!r} is {shown}, for a gradient "
                f"{show_array(grad)}: this state was made for other parameters, call "
                f"tx.init(params) again"
            ) from None


def missing_params(name: str) -> MissingParamsError:
    """The error of an update without the parameters that a member reads."""
    return MissingParamsError(
        f"{name} needs the parameters: call update(grads, state, params) with the parameters that "
        f"the gradients belong to"
    )
