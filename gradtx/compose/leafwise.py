"""The two ways to write a method: a rule on one array, and a rule on a whole tree."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradtx.compose.transformation import TransformationLike, definition
from gradtx.definition.definition import Static
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Hyperparam
from gradtx.engine.rules import LeafRule, Rule, TreeRule, check_names


@definition
def leafwise(
    init: Callable[..., Any] | None,
    update: Callable[..., Any],
    *,
    hyperparams: Mapping[str, Hyperparam] | None = None,
    options: Mapping[str, Any] | None = None,
    measure: Callable[..., Any] | None = None,
    conclude: Callable[..., Any] | None = None,
    init_tree_slots: Callable[..., Any] | None = None,
    evaluate: Callable[..., Any] | None = None,
    extra: Sequence[str] = (),
    needs_params: bool = False,
    real_only: bool = False,
    ignores_input: bool = False,
    name: str | None = None,
) -> LeafRule:
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
    values, chosen, called = dict(hyperparams or {}), dict(options or {}), name or "leafwise"
    if measure is not None and conclude is None:
        raise GradtxError(
            f"{called}: measure without conclude: say what the scalars of all arrays come to"
        )
    rule = Rule(
        update,
        init,
        measure,
        conclude,
        init_tree_slots,
        evaluate,
        Static(chosen),
        tuple(extra),
        needs_params,
        real_only,
        ignores_input,
    )
    kept = dict.fromkeys(rule.shared._fields if rule.shared else ())
    functions = init, update, measure, conclude, init_tree_slots, evaluate
    check_names(
        called,
        functions,
        {**values, **chosen},
        update if conclude else None,
        told=frozenset({"input_grad", "noise", *kept, *extra}),
    )
    return LeafRule(called, rule, values)


@definition
def treewise(
    init: Callable[..., Any] | None,
    update: Callable[..., Any],
    *,
    hyperparams: Mapping[str, Hyperparam] | None = None,
    options: Mapping[str, Any] | None = None,
    members: Mapping[str, TransformationLike] | None = None,
    extra: Sequence[str] = (),
    needs_params: bool = False,
    changes_structure: bool = False,
    children: Callable[..., Any] | None = None,
    evaluate: Callable[..., Any] | None = None,
    report: Callable[..., Any] | None = None,
    own_clock: bool = False,
    name: str | None = None,
) -> TreeRule:
    """A transformation from a rule on whole trees: for what one array cannot know.

    The rule has the form of a leaf rule, on trees:

    - `init(params, *, ...) -> Slots`: a NamedTuple, or a dict of named slots; the annotation says
      which.
    - `update(updates, slots, params, step, *, ...) -> (updates, slots)`.

    Keyword-only arguments are filled from `hyperparams`, `options` and `members` (other
    transformations; run them with `member.init_slots` and `member.update_slots`, which take this
    rule's `step`), and `extra`: a dict of what the caller passed to `update` besides (`value`,
    `grad`, `value_fn`, ...). A rule that asks for `acts`, a bool or None, sees to it that its slots
    stay as they are where that is False, by handing it on to `update_slots`; for others it is seen
    to. Under a mask the trees hold None where the mask does not apply. A scalar taken over the tree
    and then used per array is better written as `leafwise(..., measure=..., conclude=...)`, which
    keeps one kernel per leaf.

    Args:
      init: makes the slots of a tree, or None.
      update: one step on a tree.
      hyperparams: numbers, arrays or schedules; leaves of the definition, resolved at this step.
      options: static values that choose the program.
      members: transformations that this one wraps, by the name the rule knows them by.
      extra: what the caller must pass to `update` besides, such as "value"; the rule may ask for it
        by name, too.
      needs_params: whether a call without parameters is an error.
      reshapes: whether the gradients may have other shapes than the parameters, as gradients per
        example have, or another structure, as where each parameter is a pair; the updates are then
        like the parameters.
      inside: where its members stand in its slots.
      evaluate: the parameters to evaluate at.
      report: what `metrics` shows of it.
      own_clock: whether not every call is an update of its one member, so that the member has a
        count of its own (`inside` says which). The hyperparameters of the rule are then read at
        that count; and where the rule is the whole definition, it is the state's.
      name: what a chain calls this member; the name of the decorated builder if there is one.

    Raises:
      GradtxError: a function asks for a name that is given nowhere, or something given is asked for
        by none.

    >>> import jax, jax.numpy as jnp, gradtx
    >>> def reverse(updates, slots, params, step, *, extra):
    ...     return jax.tree.map(lambda u: extra["value"] * u, updates), slots
    >>> tx = gradtx.treewise(None, reverse, name="scale_by_value")
    >>> params = {"w": jnp.array([2.0])}
    >>> tx.update(params, tx.init(params), value=3.0)[0]["w"].tolist()
    [6.0]
    """
    given = {**(options or {}), **(members or {})}
    functions = init, update, children, evaluate, report
    check_names(
        name or "treewise",
        functions,
        {**(hyperparams or {}), **given},
        None,
        told=frozenset({"extra", "gate", *extra}),
    )
    values, asked = dict(hyperparams or {}), tuple(extra)
    return TreeRule(
        name or "treewise",
        init,
        update,
        values,
        given,
        needs_params,
        asked,
        changes_structure,
        children,
        evaluate,
        report,
        own_clock,
    )
