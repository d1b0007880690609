"""`over_axes`: norms and means of whole arrays inside `shard_map` and `pmap`."""

from typing import Any, TypedDict

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.engine.axes_rule import AxesRule
from gradtx.engine.axis_names import AxisNames
from gradtx.engine.program import BoundRule


class AxisFlags(TypedDict, total=False):
    """The mesh axes that cut the arrays, inside `shard_map` and `pmap`; see `over_axes`."""

    axis_names: AxisNames | None


@definition
def over_axes(inner: TransformationLike, axis_names: AxisNames) -> BoundRule:
    r"""Global norms and means inside `shard_map` and `pmap`: over the mesh axes that cut arrays.

    Inside `shard_map` a device sees its part of each array, and a norm of that part is another
    number than the norm of the array. `over_axes` runs `inner` as on the whole arrays: it traces
    the update for the whole shapes and runs it on the parts, with sums over devices (`psum`) where
    a sum runs along an axis that is cut. That holds for every transformation inside. An operation
    that has no such form (an eigenbasis, a sort) gathers its arrays on each device.

    When: the training step is one `shard_map` or `pmap`, and parameters are cut. When not: under
    `jax.jit` with shardings, where arrays are whole and this changes nothing; matrix methods, which
    gather there: call them outside of `shard_map`.

    Args:
      inner: the transformation.
      axis_names: the mesh axes that cut the arrays. A name, or several: where types tell
        (`check_vma=True`), over those axes along which an array differs; else each array but
        numbers is cut. Rules `[(pattern, names or PartitionSpec), ...]`, or a dict of them, or a
        tree of PartitionSpecs like the parameters: as in `in_specs`. A method that treats the axes
        of an array differently (Adafactor, Muon) needs PartitionSpecs. (): no array is cut, each
        device has parameters of its own, or all of them.

    Raises:
      GradtxError: an axis that is not one of this `shard_map` or `pmap`; a method that needs
        PartitionSpecs and has names alone; an extra argument that is a function.
      StructureError: a spec that does not fit its array; a gradient that differs over other axes
        than its parameter.
      StateError: a state that is cut in another way.

    State: that of `inner`.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> from jax.sharding import PartitionSpec as P
    >>> auto = jax.sharding.AxisType.Auto
    >>> mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(auto,))
    >>> tx = gradtx.over_axes(gradtx.clip_by_global_norm(1.0), "data")
    >>> def step(grads):
    ...     return tx.update(grads, tx.init(grads))[0]
    >>> g = jnp.ones(4 * jax.device_count())
    >>> cut = jax.shard_map(step, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    >>> bool(jnp.allclose(cut(g), g / gradtx.global_norm(g)))
    True
    """
    member = as_transformation(inner)
    return BoundRule(
        (),
        AxesRule(
            name="over_axes",
            update_tree=_run_inner,
            own_clock=member.own_clock,
            members={"inner": member},
            slot="over_axes",
            axis_names=axis_names,
        ),
        {},
    )


def _run_inner(updates: Any, own: None, params: Any, step: Any, *, inner: Any) -> Any:
    """What the rule does where arrays are whole."""
    updates, inner = inner.update(updates, params)
    return updates, inner, own


def apply_axis_flags(tx: TransformationLike, flags: AxisFlags) -> GradientTransformation:
    """The transformation, within `over_axes` where the flags of its builder name axes."""
    names = flags.get("axis_names")
    return as_transformation(tx) if names is None else over_axes(tx, names)
