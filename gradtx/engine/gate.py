"""Rules whose step may be left out: each slot becomes the new one or stays the old, in the kernel
that writes it.

Choosing between new and old slots behind a rule would make XLA:CPU copy them: an update that is
worked out from a new slot, beside a chosen slot that takes the old one's place, needs both at once.
So a slot is chosen inside the rule, where it is made, and the update follows from what was chosen.
Where the step is left out the update means nothing, and is not used."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal


def gated_update(
    gate: jax.Array | None, update: Callable[..., Any], grad: Any, slots: Any, *args: Any
) -> tuple[Any, Any]:
    """`update(grad, slots, *args)`, its new slots chosen by `acts` from the moment they are made;
    None: they always are.
    """
    if gate is None or slots is None:
        return update(grad, slots, *args)
    closed, shape = jax.make_jaxpr(functools.partial(_in_order, update), return_shape=True)(
        grad, slots, *args
    )
    first, before = len(jax.tree.leaves(shape[0])), jax.tree.leaves(slots)
    old = _olds(closed, first, before)
    found = _evaluate(
        closed, jax.tree.leaves((grad, slots, *args)), functools.partial(_settle, gate, old)
    )
    for place, (variable, was) in enumerate(
        zip(closed.jaxpr.outvars[first:], before, strict=False), start=first
    ):
        if isinstance(variable, Literal) or variable not in old:
            found[place] = _choose(gate, found[place], was)
    return jax.tree.unflatten(jax.tree.structure(shape), found)


def _in_order(update: Callable[..., Any], grad: Any, slots: Any, *args: Any) -> tuple[Any, Any]:
    made, new = update(grad, slots, *args)
    return made, new


def _olds(closed: ClosedJaxpr, first: int, before: Sequence[Any]) -> dict[Any, Any]:
    """The old slot of each variable of a program that is made by an operation, and is one new slot:
    others are chosen at the end.
    """
    made = {variable for equation in closed.jaxpr.eqns for variable in equation.outvars}
    after = [
        variable for variable in closed.jaxpr.outvars[first:] if not isinstance(variable, Literal)
    ]
    pairs = zip(closed.jaxpr.outvars[first:], before, strict=False)
    return {
        new: was
        for new, was in pairs
        if not isinstance(new, Literal) and new in made and after.count(new) == 1
    }


def _settle(gate: jax.Array, old: dict[Any, Any], variable: Any, value: Any) -> Any:
    return _choose(gate, value, old[variable]) if variable in old else value


def _choose(gate: jax.Array, value: Any, was: Any) -> Any:
    """One of two arrays, in the dtype of the new one; where their shapes differ, the new one, which
    the lifter then refuses.
    """
    return (
        value
        if jnp.shape(value) != was.shape
        else jnp.where(gate, value, was.astype(jnp.result_type(value)))
    )


def _evaluate(
    closed: ClosedJaxpr, args: Sequence[Any], settle: Callable[[Any, Any], Any]
) -> list[Any]:
    known: dict[Any, Any] = dict(
        zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *args], strict=True)
    )
    evaluate(closed.jaxpr.eqns, known, settle=settle)
    return [read(known, atom) for atom in closed.jaxpr.outvars]


def read(known: Mapping[Any, Any], atom: Any) -> Any:
    """The value of a variable of a program, or of a number in it."""
    return atom.val if isinstance(atom, Literal) else known[atom]


def evaluate(
    equations: Sequence[Any],
    known: dict[Any, Any],
    rewritten: Mapping[str, Callable[..., Any]] | None = None,
    settle: Callable[[Any, Any], Any] | None = None,
) -> None:
    """Run a program operation by operation, adding what it makes to `known`.

    `rewritten` has functions to call in place of operations, by name; `settle(variable, value)` has
    the last word on every value."""
    for equation in equations:
        args, bind = [read(known, atom) for atom in equation.invars], equation.primitive.bind
        other = None if rewritten is None else rewritten.get(equation.primitive.name)
        made = (
            other(*args)
            if other
            else bind(*args, **equation.primitive.get_bind_params(equation.params))
        )
        values = made if equation.primitive.multiple_results else [made]
        for variable, value in zip(equation.outvars, values, strict=True):
            known[variable] = value if settle is None else settle(variable, value)
