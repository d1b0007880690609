"""Moving averages of trees: moments of gradients, and the correction of their bias."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.tree.arithmetic import abs_sq, one_minus_power, sqrt
from gradtx.tree.pairs import as_factor, joint_dtype, kind, map_rows, products, wide_dtype

Power = Callable[[jax.Array, float], jax.Array]


def _power(array: jax.Array, order: float) -> jax.Array:
    return array**order


def _size_power(array: jax.Array, order: float) -> jax.Array:
    """gᵖ of a real array, |g|ᵖ of a complex one; even powers take no root."""
    if not jnp.iscomplexobj(array):
        return array**order
    return abs_sq(array) ** (order // 2) if order % 2 == 0 else sqrt(abs_sq(array)) ** order


@functools.lru_cache(maxsize=256)
def _averaging(power: Power, order: float) -> Callable[..., jax.Array]:
    return functools.partial(_average, power, order)


def _average(
    power: Power,
    order: float,
    grad: jax.Array,
    moment: jax.Array,
    decay: jax.Array,
    rest: jax.Array,
) -> jax.Array:
    raised = power(grad.astype(wide_dtype(grad.dtype)), order)
    own = grad if kind(raised.dtype) == kind(grad.dtype) else raised
    dtype = joint_dtype((own, moment), decay)
    wide = wide_dtype(dtype)
    with products(wide):
        new = as_factor(rest, wide) * raised.astype(wide)
        return (new + as_factor(decay, wide) * moment.astype(wide)).astype(dtype)


def _map_average(
    where: str, power: Power, updates: Any, moments: Any, decay: ArrayLike, order: float
) -> Any:
    trees = {"updates": updates, "moments": moments}
    # 1 − β of a Python number is exact to float64; of a float32 near 1 it loses four digits.
    return map_rows(where, _averaging(power, order), trees, (decay, 1 - decay), none="second")


def update_moment(updates: Any, moments: Any, decay: ArrayLike, order: float) -> Any:
    """Update an exponential moving average of a moment of gradients: m ← β m + (1 − β) gᵖ.

    Arithmetic is float32 at least; the result has the dtype that updates and moments promote to.
    Where an update is None, its moment does not change.

    When: a transformation of your own keeps averages of whole trees. When not: a rule on one array;
    write `decay * moment + (1 - decay) * grad` within `gradtx.leafwise`.

    Args:
      updates: g, a tree of gradients.
      moments: m, a tree of the same structure.
      decay: β in [0, 1]; typically 0.9 to 0.999.
      order: p, a Python number; 1 for means, 2 for squares.

    Returns: the new moments, a tree of the same structure.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.moments import update_moment
    >>> update_moment({"w": jnp.array([3.0])}, {"w": jnp.array([1.0])}, 0.5, 2)["w"].item()
    5.0

    See also: `bias_correction`, `update_moment_per_elem_norm` for complex gradients.

    Kingma and Ba 2015, arXiv 1412.6980, Algorithm 1.
    """
    return _map_average("update_moment", _power, updates, moments, decay, order)


def update_moment_per_elem_norm(updates: Any, moments: Any, decay: ArrayLike, order: float) -> Any:
    """Update a moving average of powers of sizes of complex gradients: m ← β m + (1 − β) |g|ᵖ.

    A complex gradient has a real moment. Of a real gradient the power is gᵖ, which keeps its sign
    where p is odd. Even powers take no root, so that their derivative at zero is finite.

    Args:
      updates: g, a tree of gradients.
      moments: m, a tree of the same structure.
      decay: β in [0, 1]; typically 0.9 to 0.999.
      order: p, a Python number; typically 2.

    Returns: the new moments, a tree of the same structure; where an update is None, its moment does
      not change.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.moments import update_moment_per_elem_norm
    >>> update_moment_per_elem_norm(jnp.array([3 + 4j]), jnp.array([1.0]), 0.5, 2).tolist()
    [13.0]
    """
    where = "update_moment_per_elem_norm"
    return _map_average(where, _size_power, updates, moments, decay, order)


def _larger(grad: jax.Array, moment: jax.Array, decay: jax.Array, eps: jax.Array) -> jax.Array:
    size = jnp.abs(grad.astype(wide_dtype(grad.dtype)))
    own = grad if kind(size.dtype) == kind(grad.dtype) else size
    dtype = joint_dtype((own, moment), decay)
    wide = wide_dtype(dtype)
    faded = as_factor(decay, wide) * moment.astype(wide)
    return jnp.maximum(size.astype(wide) + as_factor(eps, wide), faded).astype(dtype)


def update_infinity_moment(updates: Any, moments: Any, decay: ArrayLike, eps: ArrayLike) -> Any:
    """Update a decaying maximum of sizes of gradients: m ← max(|g| + ε, β m).

    It is AdaMax's second moment. It needs no bias correction.

    Args:
      updates: g, a tree of gradients.
      moments: m ≥ 0, a tree of the same structure.
      decay: β in [0, 1]; typically 0.999.
      eps: ε ≥ 0, which keeps m above zero; typically 1e-8.

    Returns: the new moments, a tree of the same structure; where an update is None, its moment does
      not change.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.moments import update_infinity_moment
    >>> update_infinity_moment(jnp.array([-3.0, 0.1]), jnp.array([1.0, 1.0]), 0.5, 0.0).tolist()
    [3.0, 0.5]

    Kingma and Ba 2015, arXiv 1412.6980, Algorithm 2.
    """
    trees = {"updates": updates, "moments": moments}
    return map_rows("update_infinity_moment", _larger, trees, (decay, eps), none="second")


def _divide(moment: jax.Array, divisor: jax.Array) -> jax.Array:
    dtype = joint_dtype((moment,), divisor)
    wide = wide_dtype(dtype)
    with products(wide):
        return (moment.astype(wide) / as_factor(divisor, wide)).astype(dtype)


def bias_correction(moment: Any, decay: ArrayLike, count: ArrayLike) -> Any:
    """Correct the bias of moving averages that started at zero: m / (1 − βᵗ).

    1 − βᵗ is computed as −expm1(t log β), which keeps all digits where β is near 1. At t = 0 it is
    0, and the result is not finite.

    Args:
      moment: m, a tree of averages.
      decay: β in [0, 1).
      count: t, the number of updates so far, 1 at the first.

    Returns: a tree of the same structure and dtypes; integers become floats.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.moments import bias_correction
    >>> bias_correction({"w": jnp.array([0.5])}, 0.5, 1)["w"].tolist()
    [1.0]

    Kingma and Ba 2015, arXiv 1412.6980, section 3.
    """
    return map_rows("bias_correction", _divide, {"tree": moment}, (_correction(decay, count),))


def _correction(decay: ArrayLike, count: ArrayLike) -> jax.Array:
    """1 − βᵗ, in the default dtype of floats."""
    dtype = jnp.result_type(float)
    if isinstance(decay, int | float) and decay > 0:
        # The logarithm of a Python number is exact to float64.
        return -jnp.expm1(jnp.asarray(count).astype(dtype) * jnp.asarray(math.log(decay), dtype))
    return one_minus_power(jnp.asarray(decay).astype(dtype), jnp.asarray(count))
