"""`leafwise`: a transformation from a rule on one array."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradtx.compose.arguments import sort_arguments
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.definition import Static
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Hyperparam
from gradtx.engine.leaf_rule import LeafRule
from gradtx.engine.program import BoundRule
from gradtx.engine.slot_form import returned_type

Function = Callable[..., Any]
SUPPLIED = ("input_grad", "noise")
"""What the engine hands to every rule on arrays that asks for it."""


def leafwise(
    init: Function | None,
    update: Function,
    *,
    measure: Function | None = None,
    conclude: Function | None = None,
    init_tree_slots: Function | None = None,
    evaluate: Function | None = None,
    extra: Sequence[str] = (),
    needs_params: bool = False,
    real_only: bool = False,
    ignores_input: bool = False,
    **arguments: Any,
) -> GradientTransformation:
    r"""A transformation from a rule on one array, lifted to trees.

    The rule is two pure functions at module level,

    - `init(param, *, ...) -> Slots`: what one array keeps, a NamedTuple; the return annotation says
      which; a field is None where this array does without it. None for a rule that keeps nothing.
    - `update(grad, slots, param, step, *, ...) -> (update, slots)`: one step on one array.

    A method that needs to know something of all arrays together has up to three more,

    - `measure(grad, slots, param, step, *, ...) -> NamedTuple`: a few scalars of one array;
    - `conclude(found, shared, step, *, ...) -> (told, shared)`: what follows for the whole tree.
      `found` holds for every field of the measures a tuple with one scalar per array; the dict
      `told` is what `measure` and `update` of no array could know, and `update` is told it by name;
    - `init_shared(*, ...) -> Shared`: scalars kept for the whole tree, a NamedTuple; `measure` is
      told them by name.

    A method that is to be evaluated at other parameters than it trains says which: `evaluate(param,
    slots, *, ...) -> param`, told its shared scalars by name; see `eval_params`.

    What they want to be told they name as keyword-only arguments, out of `hyperparams` and
    `options`. Arithmetic runs in float32 at least; slots come back in the dtypes that `init` gave
    them; `step` is 1, 2, 3, ... as a float. None and integer leaves are never shown to the rule. A
    hyperparameter called `key` arrives as a random key of this leaf at this step. Every rule may
    ask for `raw`, the gradient of this leaf before any member of the chain, and for `noise`, cheap
    random bits of this leaf at this step (`gradtx.tree.rounding.Noise`).

    Args:
      init: makes the slots of one array, or None.
      update: one step on one array.
      hyperparams: numbers, arrays or schedules; leaves of the definition, resolved at this step.
      options: static values (bool, str, dtype) that choose the program.
      measure: scalars of one array, taken before the rule runs on any.
      conclude: what the scalars of all arrays come to.
      init_shared: makes the scalars that are kept for the whole tree.
      evaluate: what one array is evaluated at.
      extra: what the caller must pass to `update` besides, such as "value"; `conclude` is told it
        by name.
      needs_params: whether the rule reads `param`; otherwise it is None.
      real_only: whether complex arrays are refused.
      absorbs: whether the update does not depend on what the rule is given (`set_to_zero`): rules
        before it then keep and do nothing for its leaves.
      name: what a chain calls this member; the name of the decorated builder if there is one.

    Raises:
      GradtxError: a function asks for a name that is neither in `hyperparams` nor in `options`, or
        one of these is asked for by none.

    >>> import jax.numpy as jnp, gradtx
    >>> def halve(grad, slots, param, step, *, factor):
    ...     return factor * grad, slots
    >>> tx = gradtx.leafwise(None, halve, hyperparams={"factor": 0.5}, name="halve")
    >>> updates, state = tx.update({"w": jnp.array([2.0])}, tx.init({"w": jnp.array([0.0])}))
    >>> updates["w"].tolist(), state.slots
    ([1.0], {})
    """
    functions = {"init": init, "update": update, "measure": measure, "conclude": conclude}
    functions |= {"init_tree_slots": init_tree_slots, "evaluate": evaluate}
    if measure is not None and conclude is None:
        raise GradtxError(
            f"leafwise: {measure.__name__} measures and no `conclude` uses it: pass conclude=..., "
            "which says what the scalars of all arrays come to"
        )
    tree_kind = None if init_tree_slots is None else returned_type(init_tree_slots)
    tree_slots = () if tree_kind is None else tree_kind._fields
    found = sort_arguments("leafwise", functions, arguments, (*SUPPLIED, *tree_slots, *extra))
    rule = LeafRule(
        found.name,
        update,
        init,
        measure,
        conclude,
        init_tree_slots,
        evaluate,
        Static({**found.options, **found.members}),
        tuple(extra),
        needs_params,
        real_only,
        ignores_input,
    )
    return _leafwise(rule, found.hyperparams)


@functools.partial(definition, name="leafwise")
def _leafwise(rule: LeafRule, hyperparams: Mapping[str, Hyperparam]) -> BoundRule:
    """The definition that `leafwise` makes: its hyperparameters are data."""
    return BoundRule((), rule, hyperparams)
