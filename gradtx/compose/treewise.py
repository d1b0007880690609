"""`treewise`: a transformation from a rule on whole trees."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradtx.compose.arguments import sort_arguments
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.types import ArrayHyperparam
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
    replica_axes: Sequence[str] = (),
    **arguments: Any,
) -> GradientTransformation:
    """Make a transformation from a rule on whole trees: for what one array cannot know.

    The rule has the form of a rule on arrays, on trees:

    - `init(params, *, ...) -> slots`: a NamedTuple, or a dict of named slots; annotate which.
    - `update(updates, slots, params, step, *, ...) -> (updates, slots)`: one step on a tree.

    Keyword-only parameters come from `arguments` and from the arguments of the builder, as for
    `leafwise`; a transformation among them is a member. Run it with `member.init_slots` and
    `member.update_slots`, which take this rule's `step`. `extra` is a dict of what the caller
    passed to `update` besides (`value`, `grad`, `value_fn`, ...). A rule that asks for `gate`, a
    bool or None, keeps its slots where that is False, by handing it on to `update_slots`; the
    engine does it for other rules. Under a mask the trees hold None at other leaves.

    When: a method whose update of one array needs others, such as L-BFGS. When not: a scalar of
    the tree that is then used per array; `leafwise(..., measure=..., conclude=...)` has one kernel
    per leaf.

    Args:
      init: makes the slots of a tree, or None.
      update: one step on a tree.
      children: `children(slots, count, *, ...)`: where its members are in its slots.
      evaluate: `evaluate(params, slots, count, *, ...)`: the parameters to evaluate.
      report: `report(slots, *, ...)`: a dict of scalars that `metrics` shows.
      extra: what the caller must pass to `update` besides, such as "value".
      needs_params: whether a call without parameters is an error.
      changes_structure: whether the gradients may have other shapes than the parameters, as
        gradients per example have, or another structure; the updates are then like the parameters.
      own_clock: whether its one member has a count of its own, because not every call is an update
        of it. The hyperparameters of the rule are then read at that count; where the rule is the
        whole definition, it is the state's.
      replica_axes: mapped axes whose devices are replicas, each with parameters of its own: inside
        `shard_map` and `pmap` these axes cut no array.
      **arguments: hyperparameters, options and members, by the names that the functions ask for.

    Raises:
      GradtxError: a function asks for a name that nobody gives, or the reverse.

    >>> import jax, jax.numpy as jnp, gradtx
    >>> def scale_by_value(updates, slots, params, step, *, extra):
    ...     return jax.tree.map(lambda u: extra["value"] * u, updates), slots
    >>> tx = gradtx.treewise(None, scale_by_value)
    >>> params = {"w": jnp.array([2.0])}
    >>> tx.update(params, tx.init(params), value=3.0)[0]["w"].tolist()
    [6.0]

    See also: `leafwise`, `wrapwise`.
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
        "own_replica_axes": tuple(replica_axes),
    }
    return _treewise(settings, found.hyperparams, found.options, found.members)


@functools.partial(definition, name="treewise")
def _treewise(
    settings: Mapping[str, Any],
    hyperparams: Mapping[str, ArrayHyperparam],
    options: Mapping[str, Any],
    members: Mapping[str, TransformationLike],
) -> BoundRule:
    """The definition that `treewise` makes: hyperparameters and members are data."""
    return BoundRule((), TreeRule(options=options, members=members, **settings), hyperparams)
