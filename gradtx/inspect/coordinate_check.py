"""`coordinate_check`: do activations and parameters change by the same amount at every width?"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.types import Params
from gradtx.engine.matrix_layout import layout_of
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import Leaves, leaves_of
from gradtx.inspect.coordinate_result import CoordinateCheck, Kind, coordinate_row
from gradtx.training.apply import apply_updates
from gradtx.tree.casts import is_inexact
from gradtx.tree.names import EMBEDDING, POSITION
from gradtx.tree.roles import Role

Optimizer = GradientTransformation | Callable[[int], GradientTransformation]
ITERATIONS = 20
"""Of the power method; the changes of a few steps have few large singular values."""
Sizes = dict[tuple[Kind, str], np.ndarray]


def coordinate_check(
    init: Callable[[int, jax.Array], Params],
    widths: Sequence[int],
    tx: Optimizer,
    loss: Callable[[Params, Any], Any],
    batch: Any,
    activations: Callable[[Params, Any], Any] | None = None,
    *,
    steps: int = 10,
    seeds: int = 3,
    tolerance: float = 0.1,
    key: jax.Array | None = None,
) -> CoordinateCheck:
    r"""Coordinate check of muP: sizes of activations and of changes over widths.

    A model is trained for a few steps at every width. In a parametrisation that transfers, every
    change is of the same size at every width: the slope of log size over log width is 0. The rows:

    - size: mean |x| of an activation after the last step. Only growth is a failure: logits that
      start near zero may shrink.
    - change: mean |x − x₀| of an activation since the start.
    - parameter change: √(inputs / outputs) ‖Δθ‖, with the spectral norm, for a hidden matrix, a
      head and a router; mean |Δθ| for all other parameters.

    When: after a model is made ready for `transfer`, before rates are tuned. Take a rate that is
    large enough to move the loss. When not: to find the best rate; take `sweep`.

    Args:
      init: `init(width, key)`: fresh parameters of a model, with `scale_init` where the
        initializer does not know of muP.
      widths: at least two; 64 to 512, each twice the one before, are typical.
      tx: the optimizer, which may be the same for all widths (`transfer` with shapes as base), or
        a function of the width.
      loss: `loss(params, batch)`: a scalar.
      batch: the batch of every step.
      activations: `activations(params, batch)`: the outputs of modules, a dict by name or any tree
        of arrays, such as the intermediates of Flax. None: the parameters alone.
      steps: 10.
      seeds: how many starts the sizes are a mean of; 3 to 5.
      tolerance: the largest slope that is flat; 0.05 to 0.1.
      key: the random key of the starts; None: that of 0.

    Returns:
      A `CoordinateCheck`: `passes`, `failures`, `rows`, `plot(path)`; it prints as a table.

    Raises:
      HyperparamError: fewer than two widths, a width, a number of steps or seeds below 1.
      GradtxError: a parameter or an activation that not all widths have.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> def init(width, key):
    ...     return {"embed": jax.random.normal(key, (2, width)), "head": jnp.zeros((width, 2))}
    >>> def activations(params, tokens):
    ...     embed = params["embed"][tokens]
    ...     return {"embed": embed, "head": embed @ params["head"]}
    >>> def loss(params, tokens):
    ...     return jnp.mean((activations(params, tokens)["head"] - jnp.eye(2) - 1) ** 2)
    >>> tokens, adam = jnp.arange(2), gradtx.adam(1e-3)
    >>> for tx in (adam, gradtx.transfer(adam, base=init(32, jax.random.key(0)))):
    ...     result = gradtx.coordinate_check(
    ...         init, (32, 128), tx, loss, tokens, activations, steps=4
    ...     )
    ...     print(result.passes, [row.name for row in result.failures if row.kind == "change"])
    False ['head']
    True []

    See also: `transfer`, `transfer_table`, `sweep`.

    Yang et al. 2022, arXiv 2203.03466, appendix D.1.
    """
    _check(widths, steps, seeds, tolerance)
    keys = jax.random.split(jax.random.key(0) if key is None else key, seeds)
    tables = [
        _measure(init, width, tx, loss, batch, activations, steps, keys) for width in sorted(widths)
    ]
    _check_names(tables, sorted(widths))
    rows = [
        coordinate_row(
            kind, name, np.stack([one[kind, name] for one in tables], 1), sorted(widths), tolerance
        )
        for kind, name in tables[0]
    ]
    return CoordinateCheck(sorted(widths), rows, tolerance)


def _measure(
    init: Callable[[int, jax.Array], Params],
    width: int,
    tx: Optimizer,
    loss: Callable[..., Any],
    batch: Any,
    activations: Callable[..., Any] | None,
    steps: int,
    keys: jax.Array,
) -> Sizes:
    """The sizes of one width after each step, as means over the seeds."""
    chosen = tx if isinstance(tx, GradientTransformation) else tx(width)
    starts = [init(width, key) for key in keys]
    params = jax.tree.map(lambda *each: jnp.stack(each), *starts)
    outputs = activations or _nothing
    train = functools.partial(_train, chosen, loss, outputs, steps)
    sizes = jax.jit(jax.vmap(train, (0, None)))(params, batch)
    return {key: np.asarray(value).mean(axis=0) for key, value in _ordered(sizes).items()}


def _nothing(params: Params, batch: Any) -> dict[str, Any]:
    return {}


def _ordered(sizes: Mapping[str, Mapping[str, Any]]) -> dict[tuple[Any, str], Any]:
    kinds: tuple[Kind, ...] = ("size", "change", "parameter change")
    return {(kind, name): value for kind in kinds for name, value in sizes[kind].items()}


def _train(
    tx: GradientTransformation,
    loss: Callable[..., Any],
    activations: Callable[..., Any],
    steps: int,
    params: Params,
    batch: Any,
) -> Any:
    """Train one start: the sizes after each step, by kind and name."""
    start, before = params, _named(activations(params, batch))
    roles = leaf_roles(leaves_of(params))

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        grads = jax.grad(loss)(params, batch)
        updates, state = tx.update(grads, state, params)
        params = apply_updates(params, updates)
        now = _named(activations(params, batch))
        return (params, state), {
            "size": {name: _mean_abs(one) for name, one in now.items()},
            "change": {name: _mean_abs(one - before[name]) for name, one in now.items()},
            "parameter change": _changes(leaves_of(params), leaves_of(start), roles),
        }

    return jax.lax.scan(step, (params, tx.init(params)), None, steps)[1]


def _named(tree: Any) -> dict[str, Any]:
    leaves = leaves_of(tree)
    pairs = zip(leaves.paths, leaves.values, strict=True)
    return {path: value for path, value in pairs if value is not None and is_inexact(value)}


def _mean_abs(array: Any) -> jax.Array:
    return jnp.mean(jnp.abs(array))


def _changes(now: Leaves, start: Leaves, roles: Sequence[Role | None]) -> dict[str, jax.Array]:
    each = zip(now.paths, now.values, start.values, roles, strict=True)
    return {
        path: _change(one - before, role)
        for path, one, before, role in each
        if role is not None and is_inexact(one)
    }


def _change(change: jax.Array, role: Role) -> jax.Array:
    """√(inputs / outputs) times the spectral norm of a matrix; else the mean of |change|."""
    if change.ndim < 2 or role.name in (EMBEDDING, POSITION):
        return _mean_abs(change)
    matrix = layout_of(change.shape, role.words).matrix(change)
    inputs, outputs = matrix.shape[-2:]
    return jnp.mean(_spectral_norm(matrix)) * (inputs / outputs) ** 0.5


def _spectral_norm(matrix: jax.Array) -> jax.Array:
    """The largest singular value of each matrix, from below, by power iteration."""
    # A start that no symmetry of the matrix is orthogonal to.
    start = jnp.cos(jnp.arange(1.0, matrix.shape[-1] + 1, dtype=matrix.dtype)) + 1.5
    vector = jnp.broadcast_to(start, (*matrix.shape[:-2], matrix.shape[-1]))
    power = functools.partial(_power, matrix)
    return jnp.linalg.norm(jax.lax.fori_loop(0, ITERATIONS, power, vector), axis=-1)


def _power(matrix: jax.Array, number: Any, vector: jax.Array) -> jax.Array:
    """One iteration: the length of the new vector is the estimate of the largest singular value."""
    norm = jnp.linalg.norm(vector, axis=-1, keepdims=True)
    image = jnp.einsum("...nm,...m->...n", matrix, vector / jnp.where(norm > 0, norm, 1))
    length = jnp.linalg.norm(image, axis=-1, keepdims=True)
    return jnp.einsum("...nm,...n->...m", matrix, image / jnp.where(length > 0, length, 1))


def _check(widths: Sequence[int], steps: int, seeds: int, tolerance: float) -> None:
    if len(set(widths)) < 2 or min(widths) < 1:
        raise HyperparamError(
            f"coordinate_check: widths = {tuple(widths)} give no slope: give at least two widths "
            f"above 0"
        )
    for name, value in (("steps", steps), ("seeds", seeds)):
        if operator.index(value) < 1:
            raise HyperparamError(
                f"coordinate_check: {name} = {value!r} measures nothing: give a whole number "
                f"above 0"
            )
    if not tolerance > 0:
        raise HyperparamError(
            f"coordinate_check: tolerance = {tolerance!r} is not above 0: no slope is exactly 0"
        )


def _check_names(tables: Sequence[Sizes], widths: Sequence[int]) -> None:
    for width, sizes in zip(widths, tables, strict=True):
        odd = next(iter(sizes.keys() ^ tables[0].keys()), None)
        if odd is not None:
            raise GradtxError(
                f"coordinate_check: {odd[1]!r} is not at both of the widths {widths[0]} and "
                f"{width}: let every width have the same modules and as many layers"
            )
