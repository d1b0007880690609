"""`matrixwise`: a transformation from a rule on one matrix, or a batch of them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx.compose.arguments import sort_arguments
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.static import Static
from gradtx.definition.types import ArrayHyperparam
from gradtx.engine.leaf_rule import MatrixRule
from gradtx.engine.matrix_layout import Matrices
from gradtx.engine.program import BoundRule

Function = Callable[..., Any]
SUPPLIED = ("input_grad", "path", "refresh_offset")
"""What the engine hands to every rule on matrices that asks for it."""


def matrixwise(
    init: Function | None,
    update: Function,
    *,
    dimensions: Any = None,
    shard: Any = None,
    vectors: Literal["refuse", "rows"] = "refuse",
    needs_params: bool = False,
    real_only: bool = False,
    **arguments: Any,
) -> GradientTransformation:
    r"""Make a transformation from a rule on one matrix, or on a batch of them.

    As `leafwise`, but arrays arrive as matrices (..., n, m): n is the number of inputs (fan in), m
    that of outputs (fan out). Axes before them count matrices, and each matrix is worked on by
    itself.

    - `init(param, *, ...) -> slots`: a slot in the shape (..., n, m) is stored in the shape of the
      parameter; others, a factor (..., n, n) for instance, are stored as they are. It may ask for
      `path`, the path of the parameter as a text, for its errors.
    - `update(grad, slots, param, step, *, ...) -> (update, slots)`: one step on matrices.

    A rule may ask for `refresh_offset`, an int32 array of the shape (...,): the turn of each matrix
    in [0, refresh_every), spread over the tree by cost, so that no step pays for all
    (`gradtx.authoring.where_due`). A hyperparameter `key` arrives as one key for each matrix.

    Args:
      init: makes the slots of matrices, or None.
      update: one step on matrices.
      dimensions: which axes of an array are inputs and outputs: rules `[(pattern, words), ...]`;
        the first that matches a path wins. Words name every axis of the array `in`, `out` or
        `batch`; several axes of one role count as one; `out/3` cuts an axis into three matrices;
        `...` stands for batch axes. Without a rule the axes are those of the role of the array
        (`by_role`), of stacked layers, attention heads or a layer of Equinox; else the last two are
        in and out, those before them batch. Or, as in Optax, a tree like the parameters, or a
        function that returns one, of records with `reduction_axis` and `output_axis`.
      shard: which devices work on which matrices. None: where it is known how an array is cut over
        a mesh (a concrete array, explicit axes, `make_step`, `gradtx.sharded`), each device works
        on its share of the matrices, which go there whole, all to all; elsewhere XLA decides. Axes
        of the mesh, "x" or ("x", "y"), or `gradtx.sharding.owners(params, axes)`: always so, over
        these axes too. False: XLA decides everywhere.
      vectors: what happens to arrays of fewer than two axes: "refuse", an error by path, or "rows",
        matrices of one row, stacked biases too; words without `in` then name vectors.
      needs_params: whether the rule reads `param`; otherwise it is None.
      real_only: whether complex arrays are refused.
      **arguments: hyperparameters and options, by the names that the functions ask for.

    Raises:
      GradtxError: a function asks for a name that nobody gives; `shard` names no axes.
      HyperparamError: `refresh_every` is not a whole number from 1 on.
      StructureError: at `init` and `update`, an array that is not a matrix, or whose axes are not
        those of its words.

    >>> import jax.numpy as jnp, gradtx
    >>> def total(grad, slots, param, step):
    ...     return jnp.broadcast_to(grad.sum((-2, -1), keepdims=True), grad.shape), slots
    >>> tx = gradtx.matrixwise(None, total, dimensions=[("heads", "in batch out")])
    >>> params = {"heads": jnp.ones((2, 3, 2)), "kernel": jnp.ones((2, 3))}
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> updates["heads"].ravel()[0].item(), updates["kernel"].ravel()[0].item()
    (4.0, 6.0)

    See also: `leafwise`, `treewise`.
    """
    functions = {"init": init, "update": update}
    found = sort_arguments("matrixwise", functions, arguments, SUPPLIED)
    every = _checked_period(found.options.get("refresh_every"))
    matrices = Matrices(Static({"dimensions": dimensions}), vectors, every, _axes(shard))
    rule = MatrixRule(
        found.name,
        update,
        init,
        options=Static(found.options),
        needs_params=needs_params,
        real_only=real_only,
        matrices=matrices,
    )
    return _matrixwise(rule, found.hyperparams)


@functools.partial(definition, name="matrixwise")
def _matrixwise(rule: MatrixRule, hyperparams: Mapping[str, ArrayHyperparam]) -> BoundRule:
    """The definition that `matrixwise` makes: its hyperparameters are data."""
    return BoundRule((), rule, hyperparams)


def _checked_period(every: Any) -> int | None:
    """The number of steps between two refreshes of a matrix."""
    if every is None:
        return None
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise HyperparamError(
            f"refresh_every = {every!r} is not a number of steps; give a whole number from 1 on"
        )
    return every


def _axes(shard: Any) -> Any:
    """The names of mesh axes as a tuple; any other value unchanged."""
    if isinstance(shard, str):
        return (shard,)
    if shard is None or shard is False or hasattr(shard, "axes"):
        return shard
    if isinstance(shard, tuple | list) and shard and all(isinstance(axis, str) for axis in shard):
        return tuple(shard)
    raise GradtxError(
        f"shard = {shard!r} names no mesh axes; give a name, a tuple of names, or "
        f"gradtx.sharding.owners(params, name)"
    )


def where_due(due: jax.Array, function: Callable[..., Any], operands: Any, otherwise: Any) -> Any:
    """`function(*operands)` of one matrix where `due`, its part of `otherwise` where not; what is
    not due costs nothing.

    `due` has the shape of the batch, () for one matrix, and every array of `operands` and
    `otherwise` has it in front; `function` sees one."""
    one = functools.partial(_one, function)
    if due.ndim == 0:
        return one((due, operands, otherwise))
    if due.size == 0:
        return otherwise
    flat = jax.tree.map(
        lambda array: array.reshape(due.size, *array.shape[due.ndim :]), (due, operands, otherwise)
    )
    if due.size == 1:
        found = jax.tree.map(
            lambda array: array[None], one(jax.tree.map(lambda array: array[0], flat))
        )
    else:
        found = jax.lax.map(one, flat)
    return jax.tree.map(lambda array: array.reshape(*due.shape, *array.shape[1:]), found)


def _one(function: Callable[..., Any], given: Any) -> Any:
    due, operands, otherwise = given
    return jax.lax.cond(due, functools.partial(_made, function), _kept, operands, otherwise)


def _made(function: Callable[..., Any], operands: Any, otherwise: Any) -> Any:
    return jax.tree.map(
        lambda new, old: jnp.asarray(new).astype(old.dtype), function(*operands), otherwise
    )


def _kept(operands: Any, otherwise: Any) -> Any:
    return otherwise
