"""`leafwise`: a transformation from a rule on one array."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradtx.compose.arguments import sort_arguments
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import GradtxError
from gradtx.definition.static import Static
from gradtx.definition.types import ArrayHyperparam
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
    r"""Make a transformation from a rule on one array, for arrays in trees of any shape.

    The rule is two pure functions at module level:

    - `init(param, *, ...) -> slots`: what the rule keeps of one array, a NamedTuple, a dict or a
      dataclass; a field may be None. None in the place of `init`: the rule keeps nothing.
    - `update(grad, slots, param, step, *, ...) -> (update, slots)`: one step on one array.

    A method that must know something of all arrays together has up to three more:

    - `measure(grad, slots, param, step, *, ...) -> NamedTuple`: a few scalars of one array.
    - `conclude(measures, tree_slots, step, *, ...) -> (stats, tree_slots)`: the statistics of the
      whole tree. Each field of `measures` is a tuple with one scalar per array. `update` receives
      each entry of the dict `stats` by name.
    - `init_tree_slots(*, ...) -> NamedTuple`: scalars that are kept for the whole tree; `measure`
      receives them by name.

    A method whose trained parameters are not those to evaluate has `evaluate(param, slots, *, ...)
    -> param`; see `eval_params`.

    Each function names what it needs as keyword-only parameters. They come from `arguments` and
    from the arguments of the builder that calls `leafwise`. A parameter without annotation, or with
    an array's (`jax.Array`), is a hyperparameter: data, which may be a schedule. Any other
    annotation makes it a static option. Three names come from the engine: `input_grad`, the
    gradient before any member of the chain; `noise`, cheap random bits of this array at this step;
    and a hyperparameter called `key` arrives as the random key of this array at this step.

    Arithmetic runs in float32 at least. Slots return in the dtypes that `init` gave them; `step` is
    1, 2, 3, ... as a float. A rule never sees None and integer leaves.

    Args:
      init: makes the slots of one array, or None.
      update: one step on one array.
      measure: scalars of one array, before the rule runs on any.
      conclude: the statistics that follow from the scalars of all arrays.
      init_tree_slots: makes the scalars that are kept for the whole tree.
      evaluate: the array to evaluate in the place of a parameter.
      extra: what the caller must pass to `update` besides, such as "value"; `conclude` receives it
        by name.
      needs_params: whether the rule reads `param`; otherwise it is None.
      real_only: whether complex arrays are refused.
      ignores_input: whether the update is the same whatever the rule receives (`set_to_zero`):
        rules before it then do nothing for its leaves.
      **arguments: numbers, arrays and schedules, and static options, by the names that the
        functions ask for; only those that are not arguments of the builder.

    Raises:
      GradtxError: a function asks for a name that nobody gives, or the reverse; annotations of rule
        and builder disagree on whether an argument is data.

    >>> import jax.numpy as jnp, gradtx
    >>> def halve(grad, slots, param, step, *, factor):
    ...     return factor * grad, slots
    >>> tx = gradtx.leafwise(None, halve, factor=0.5)
    >>> updates, state = tx.update({"w": jnp.array([2.0])}, tx.init({"w": jnp.array([0.0])}))
    >>> updates["w"].tolist(), state.slots
    ([1.0], {})

    See also: `matrixwise`, `treewise`, `wrapwise`.
    """
    functions = {"init": init, "update": update, "measure": measure, "conclude": conclude}
    functions |= {"init_tree_slots": init_tree_slots, "evaluate": evaluate}
    if measure is not None and conclude is None:
        raise GradtxError(
            f"leafwise: {measure.__name__} measures and no `conclude` uses it: pass conclude=..., "
            "which says what the scalars of all arrays come to"
        )
    annotated = None if init_tree_slots is None else returned_type(init_tree_slots)
    tree_slots = getattr(annotated, "_fields", ())
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
def _leafwise(rule: LeafRule, hyperparams: Mapping[str, ArrayHyperparam]) -> BoundRule:
    """The definition that `leafwise` makes: its hyperparameters are data."""
    return BoundRule((), rule, hyperparams)
