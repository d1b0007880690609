r"""The linear assignment problem: pairs of rows and columns whose costs have the least sum.

    minimise Σ_i C[i, σ(i)] over one-to-one σ

Rows are assigned one after another. Each new row is joined by the shortest path that alternates
between free and assigned pairs, found by Dijkstra's method on reduced costs C[i, j] − u_i − v_j,
which stay ≥ 0. The dual u_i of an assigned row is C[i, σ(i)] − v_σ(i), so that v alone is stored. A
step of the search is a few operations on one row of C; there are at most n of them for each of n
rows, so O(n² m) in all for an n × m matrix with n ≤ m.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from gradtx.definition.errors import StructureError
from gradtx.tree.casts import as_array, compute_dtype


class Matching(NamedTuple):
    """An assignment of some rows, and the dual of every column."""

    column_of: jax.Array
    """(n,) the column of each row, or -1."""
    row_of: jax.Array
    """(m,) the row of each column, or -1."""
    duals: jax.Array
    """(m,) v ≤ 0 in C[i, j] − u_i − v_j ≥ 0; 0 for a free column."""


class Search(NamedTuple):
    """Dijkstra's search from one row."""

    distance: jax.Array
    """(m,) the length of the shortest path to each column so far."""
    parent: jax.Array
    """(m,) the row before each column on that path."""
    is_done: jax.Array
    """(m,) the columns whose distance is final."""
    row: jax.Array
    """The row that the search has reached last."""
    column: jax.Array
    """The column that it has reached last."""
    offset: jax.Array
    """The length of the path to that row, minus u of the row."""


def _start(cost: jax.Array) -> Matching:
    """Assign each row its cheapest column, where no row after it wants the same one."""
    rows, columns = cost.shape
    cheapest = jnp.argmin(cost, axis=1).astype(jnp.int32)
    numbers = jnp.arange(rows, dtype=jnp.int32)
    row_of = jnp.full(columns, -1, jnp.int32).at[cheapest].max(numbers)
    column_of = jnp.where(row_of[cheapest] == numbers, cheapest, -1)
    return Matching(column_of, row_of, jnp.zeros_like(cost[0]))


def _search(cost: jax.Array, matching: Matching, row: jax.Array) -> Search:
    """Find the nearest free column from a row."""
    # `like`: within shard_map they then vary over devices as the costs do.
    like = cost[0]
    start = Search(
        jnp.full_like(like, jnp.inf),
        jnp.full_like(like, -1, jnp.int32),
        jnp.zeros_like(like, bool),
        row,
        jnp.full_like(like[0], -1, jnp.int32),
        jnp.zeros_like(like[0]),  # u of a free row shifts all of its paths alike
    )

    rank = jnp.where(matching.row_of < 0, 2, 1).astype(jnp.int8)

    def step(search: Search) -> Search:
        reach = cost[search.row] - matching.duals + search.offset
        is_nearer = ~search.is_done & (reach < search.distance)
        distance = jnp.where(is_nearer, reach, search.distance)
        parent = jnp.where(is_nearer, search.row, search.parent)
        open_distance = jnp.where(search.is_done, jnp.inf, distance)
        is_next = open_distance == jnp.min(open_distance)
        # Of columns at one distance a free one ends the search.
        column = jnp.argmax(jnp.where(is_next, rank, 0)).astype(jnp.int32)
        following = matching.row_of[column]
        dual = cost[following, column] - matching.duals[column]
        is_done = search.is_done.at[column].set(True)
        return Search(distance, parent, is_done, following, column, distance[column] - dual)

    return jax.lax.while_loop(lambda search: search.row >= 0, step, start)


def _is_partial(matching: Matching) -> jax.Array:
    return jnp.any(matching.column_of < 0)


def _join(cost: jax.Array, matching: Matching) -> Matching:
    """Assign one more row, along the shortest path to a free column."""
    is_free = matching.column_of < 0
    # Under vmap a matrix that is solved goes on with its batch: row -1 ends all loops at once.
    row = jnp.where(jnp.any(is_free), jnp.argmax(is_free), -1).astype(jnp.int32)
    search = _search(cost, matching, row)
    # Reduced costs stay ≥ 0, and become 0 along the path; the free column itself keeps v = 0.
    change = jnp.minimum(search.distance - search.distance[search.column], 0)
    duals = jnp.where(search.is_done, matching.duals + change, matching.duals)

    def flip(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        column, column_of, row_of = state
        before = search.parent[column]
        following = column_of[before]
        return following, column_of.at[before].set(column), row_of.at[column].set(before)

    state = (search.column, matching.column_of, matching.row_of)
    _, column_of, row_of = jax.lax.while_loop(lambda state: state[0] >= 0, flip, state)
    return Matching(column_of, row_of, duals)


@jax.jit
def _assign(cost: jax.Array) -> jax.Array:
    """The column of every row of a matrix with no more rows than columns."""
    cost = jax.lax.stop_gradient(cost.astype(compute_dtype(cost.dtype)))
    # A pair that is forbidden costs more than any assignment without one.
    limit = 2 * (cost.shape[0] + 1) * jnp.max(jnp.where(jnp.isfinite(cost), jnp.abs(cost), 1))
    cost = jnp.where(jnp.isnan(cost), limit, jnp.clip(cost, -limit, limit))
    join = functools.partial(_join, cost)
    return jax.lax.while_loop(_is_partial, join, _start(cost)).column_of


def _check(name: str, cost: jax.Array) -> None:
    """Raise unless costs are a real matrix without nan, as far as they are known."""
    if cost.ndim != 2:
        raise StructureError(
            f"{name}: cost_matrix has shape {cost.shape}, and must be a matrix: one row for each "
            f"worker, one column for each task; for a batch of matrices take jax.vmap"
        )
    if jnp.iscomplexobj(cost):
        raise StructureError(
            f"{name}: cost_matrix is {cost.dtype}, and complex numbers have no order: pass real "
            f"costs"
        )
    if isinstance(cost, Tracer) or not cost.is_fully_addressable:
        return
    is_bad = np.argwhere(~(np.asarray(cost, np.float64) > -np.inf))
    if is_bad.size:
        place = tuple(is_bad[0].tolist())
        raise StructureError(
            f"{name}: cost_matrix{list(place)} is {float(cost[place])}: pass finite costs, or inf "
            f"for a pair that is forbidden"
        )


def _solve(name: str, cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    cost = as_array(cost_matrix)
    _check(name, cost)
    rows, columns = cost.shape
    if rows <= columns:
        numbers = jnp.arange(rows, dtype=jnp.int32)
        return numbers, _assign(cost) if rows else numbers
    if not columns:
        return jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.int32)
    row_of = _assign(cost.T)
    order = jnp.argsort(row_of).astype(jnp.int32)
    return row_of[order], order


def hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Hungarian algorithm: the assignment of rows to columns with the least sum of costs.

    minimise Σ_k C[i_k, j_k] over min(n, m) pairs of an n × m matrix C; no row and no column is used
    twice. The method is that of shortest augmenting paths, in O(min(n, m)² max(n, m)).

    When: matching predictions to targets (DETR), tracks to detections, permutations. When not:
    gradients must reach the assignment; take Sinkhorn's iterations. For one large matrix on the
    host, `scipy.optimize.linear_sum_assignment` is faster.

    Args:
      cost_matrix: C, (n, m), real costs; integers are computed as floats. inf forbids a pair. For a
        batch, use `jax.vmap`.

    Returns:
      (i, j): rows and columns of the pairs, int32, each of length min(n, m), sorted by row. The sum
      of costs is `cost_matrix[i, j].sum()`. Where several assignments cost the least, one of them.

    Raises:
      StructureError: not a matrix; complex costs; a cost that is nan or -inf, where it is known
        before the program runs.

    >>> import jax.numpy as jnp
    >>> cost = jnp.array([[8, 4, 7], [5, 2, 3], [9, 6, 7], [9, 4, 8]])
    >>> i, j = hungarian_algorithm(cost)
    >>> i.tolist(), j.tolist(), cost[i, j].sum().item()
    ([0, 1, 3], [0, 2, 1], 15)

    Crouse 2016, On implementing 2D rectangular assignment algorithms, IEEE Transactions on
    Aerospace and Electronic Systems 52, section II; Jonker and Volgenant 1987, Computing 38.
    """
    return _solve("hungarian_algorithm", cost_matrix)


def base_hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Hungarian algorithm under Optax's second name: the same as `hungarian_algorithm`.

    Optax has two implementations under two names; gradtx has one. C is an n × m matrix, and the
    result has min(n, m) pairs.

    When: a script names it. When not: in new code; take `hungarian_algorithm`.

    Args:
      cost_matrix: C, (n, m), real costs.

    Returns:
      (i, j): rows and columns of the pairs, sorted by row.

    Raises:
      StructureError: as for `hungarian_algorithm`.

    >>> import jax.numpy as jnp
    >>> i, j = base_hungarian_algorithm(jnp.array([[1.0, 2.0], [0.0, 3.0]]))
    >>> i.tolist(), j.tolist()
    ([0, 1], [1, 0])

    Crouse 2016, On implementing 2D rectangular assignment algorithms, IEEE Transactions on
    Aerospace and Electronic Systems 52, section II.
    """
    return _solve("base_hungarian_algorithm", cost_matrix)
