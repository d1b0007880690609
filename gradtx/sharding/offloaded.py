"""`offloaded`: the same optimizer, its state in the memory of the host between steps."""

import functools
from collections.abc import Callable
from typing import Any

from gradtx.compose.binding import MapRules
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.engine.rules import Rule
from gradtx.engine.slot_memory import Offload, offload_rule
from gradtx.tree.host_memory import PINNED_HOST


@definition
def offloaded(
    inner: TransformationLike,
    where: str | Callable[[str, Any], bool] = r".*",
    *,
    memory: str = PINNED_HOST,
) -> Any:
    r"""Offload the optimizer state to host memory (CPU RAM) between steps.

    A slot s that `where` chooses lies in pinned memory of the host. For every array a step computes

    s_t = to_host( s'_t ),   (u_t, s'_t) = rule( g_t, to_device(s_{t-1}), θ_{t-1} )

    `init` puts the slots there, and a compiled step leaves them there; donated, they are updated in
    place. For a TPU the step runs bundles of leaves one after another. A bundle holds the slots of
    two leaves, never more than a fifth of all slots where each leaf is smaller; its copies overlap
    its arithmetic. The temporaries on the device are the slots of a bundle, and the work space of
    the rule for one leaf. A GPU reads slots of rules without matrices in host memory itself.

    When: the state does not fit, and a step computes for longer than its slots take to travel, 8
    bytes per parameter of AdamW in each direction. Combine it with `stored`, which sends fewer
    bytes. When not: gradients through the update; the loops have no reverse mode. Within
    `shard_map`, outside of `jit`, and for slots of rules on whole trees (`lbfgs`, the sum of
    `accumulate`), all arrays are fetched at once.

    Args:
      inner: the transformation; slots of wrapped members are offloaded, too. Outside of `stored`,
        `guard` and `accumulate`, or inside of them.
      where: which slots: a regular expression on paths, `mu/` for first moments, `nu/.*/kernel$`
        for second moments of kernels; or a predicate of path and array. Scalars stay on the device.
      memory: the memory of the host, "pinned_host"; a compiled step reaches no other.

    Raises:
      SelectionError: `where` matches no slot; at `init`.
      GradtxError: `inner` has an `offloaded` inside; `where` chooses scalars alone; the backend has
        no memory of that name. Without pinned memory a warning says so, and slots stay on the
        device.

    State: that of `inner`, at the same paths.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.offloaded(gradtx.adamw(1e-3), r"/nu/")
    >>> params = {"w": jnp.ones((4, 3))}
    >>> state = jax.jit(tx.update)(params, tx.init(params), params)[1]
    >>> state.mu["w"].sharding.memory_kind, state.nu["w"].sharding.memory_kind
    ('device', 'pinned_host')

    See also: `stored`, `state_shardings`, `sharding.owners`.
    """
    offload = Offload(where, memory)
    return MapRules(_checked(inner, offload), functools.partial(_offload, offload))


def _checked(inner: TransformationLike, offload: Offload) -> GradientTransformation:
    """The transformation, once every rule of it can be offloaded."""
    tx = as_transformation(inner)
    for bound in tx.rules:
        _offload(offload, bound.rule)
    return tx


def _offload(offload: Offload, rule: Rule) -> Rule:
    return offload_rule(rule, offload, _offloaded_member)


@definition
def _offloaded_member(inner: TransformationLike) -> MapRules:
    """A member of a wrapper, whose slots the outer `offloaded` places."""
    offload = Offload(None)
    return MapRules(_checked(inner, offload), functools.partial(_offload, offload))
