"""`treewise`: a transformation from a rule on whole trees."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradtx.compose.arguments import sort_arguments
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.types import Hyperparam
from gradtx.engine.program import BoundRule
from gradtx.engine.tree_rule import TreeRule

Function = Callable[..., Any]


def treewise(
    init: Function | None,
    update: Function,
    *,
    children: Function | None = None,
    evaluate: Function | None = None,
    report: Function | None = None,
    extra: Sequence[str] = (),
    needs_params: bool = False,
    changes_structure: bool = False,
    own_clock: bool = False,
    **arguments: Any,
) -> GradientTransformation:
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
    functions = {"init": init, "update": update, "children": children}
    functions |= {"evaluate": evaluate, "report": report}
    found = sort_arguments("treewise", functions, arguments, ("extra", "gate", *extra))
    settings = {
        "name": found.name,
        "update_tree": update,
        "init_tree": init,
        "find_children": children,
        "evaluate_tree": evaluate,
        "report_tree": report,
        "extra": tuple(extra),
        "needs_params": needs_params,
        "changes_structure": changes_structure,
        "own_clock": own_clock,
    }
    return _treewise(settings, found.hyperparams, found.options, found.members)


@functools.partial(definition, name="treewise")
def _treewise(
    settings: Mapping[str, Any],
    hyperparams: Mapping[str, Hyperparam],
    options: Mapping[str, Any],
    members: Mapping[str, TransformationLike],
) -> BoundRule:
    """The definition that `treewise` makes: hyperparameters and members are data."""
    return BoundRule((), TreeRule(options=options, members=members, **settings), hyperparams)
