r"""Second derivatives of a loss of (params, inputs, targets): products and diagonals.

H = ∂²L / ∂θ²  (n × n, never stored),   H v = d/dε ∇L(θ + ε v) at ε = 0
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import Params

Loss = Callable[[Any, Any, Any], jax.Array]
"""`loss(params, inputs, targets)`, a real number."""

ENTRIES = 2**22
"""The number of entries of one chunk of basis vectors: 16 MiB in float32."""
FEWEST = 16
"""The least number of vectors of a chunk: fewer leave a processor idle."""


def hvp(loss: Loss, v: Any, params: Params, inputs: Any, targets: Any) -> Params:
    """Hessian-vector product: H v, for the Hessian of a loss by its parameters.

    H is the n × n matrix of second derivatives at (params, inputs, targets), and v has n entries.
    It costs some two gradients, and no memory for H: forward mode over reverse mode.

    When: curvature along a direction, conjugate gradients, power iteration. When not: the diagonal
    is wanted; take `hessian_diag`, or `hutchinson_estimator_diag_hessian` for an estimate.

    Args:
      loss: `loss(params, inputs, targets)`, a real number, twice differentiable.
      v: the direction: n entries in the order of `jax.flatten_util.ravel_pytree(params)`, or a tree
        like `params`.
      params: θ, a tree of n floats.
      inputs: handed to `loss`.
      targets: handed to `loss`.

    Returns:
      H v, a tree like `params`.

    Raises:
      StructureError: v has another number of entries than `params`.

    >>> import jax.numpy as jnp
    >>> def loss(params, inputs, targets):
    ...     return jnp.sum((inputs @ params - targets) ** 2) / 2
    >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])  # H = xᵀ x = [[1, 2], [2, 5]]
    >>> hvp(loss, jnp.array([1.0, 0.0]), jnp.zeros(2), x, jnp.ones(2)).tolist()
    [1.0, 2.0]

    See also: `hessian_diag`.

    Pearlmutter 1994, Fast Exact Multiplication by the Hessian, Neural Computation 6, section 2.
    """
    gradient = functools.partial(_gradient, loss, inputs, targets)
    return jax.jvp(gradient, (params,), (_direction(v, params),))[1]


def _gradient(loss: Loss, inputs: Any, targets: Any, params: Params) -> Params:
    return jax.grad(loss)(params, inputs, targets)


def _direction(v: Any, params: Params) -> Params:
    """A direction as a tree like the parameters, in their dtypes."""
    flat, unravel = ravel_pytree(params)
    vector = ravel_pytree(v)[0]
    if vector.shape != flat.shape:
        raise StructureError(
            f"hvp: v has {vector.size} entries and params {flat.size}: pass one entry of v for "
            f"each entry of params"
        )
    return unravel(vector.astype(flat.dtype))


def hessian_diag(
    loss: Loss, params: Params, inputs: Any, targets: Any, *, chunk_size: int | None = None
) -> jax.Array:
    """Diagonal of the Hessian, exact: ∂²L / ∂θ_i² for each of n parameters.

    It computes e_iᵀ H e_i for unit vectors e_i, in chunks of vectors that run at once. The gradient
    is linearized once for all of them. The work is that of n Hessian-vector products.

    When: few parameters, or to check an estimate. When not: thousands of parameters and more; take
    `hutchinson_estimator_diag_hessian`, or `fisher_diag`.

    Args:
      loss: `loss(params, inputs, targets)`, a real number, twice differentiable.
      params: θ, a tree of n floats.
      inputs: handed to `loss`.
      targets: handed to `loss`.
      chunk_size: the number of products that run at once, 1 to n; a chunk takes as many times the
        memory of one product. None: all, up to 4 million entries of basis vectors.

    Returns:
      (n,) the diagonal, in the order of `jax.flatten_util.ravel_pytree(params)`.

    Raises:
      HyperparamError: `chunk_size` is below 1.

    >>> import jax.numpy as jnp
    >>> def loss(params, inputs, targets):
    ...     return jnp.sum(inputs * params**3)
    >>> hessian_diag(loss, jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0]), None).tolist()
    [6.0, 60.0]

    See also: `hvp`, `fisher_diag`.

    Pearlmutter 1994, Fast Exact Multiplication by the Hessian, Neural Computation 6, section 2.
    """
    flat, unravel = ravel_pytree(params)

    def of_vector(vector: jax.Array) -> jax.Array:
        return loss(unravel(vector), inputs, targets)

    chunk = _chunk(flat.size, chunk_size)
    if not flat.size:
        return flat
    product = jax.linearize(jax.grad(of_vector), flat)[1]
    entry = functools.partial(_entry, product, flat)
    return jax.lax.map(entry, jnp.arange(flat.size), batch_size=chunk)


def _entry(product: Callable[[jax.Array], jax.Array], flat: jax.Array, place: jax.Array) -> Any:
    """One entry of the diagonal."""
    unit = (jnp.arange(flat.size) == place).astype(flat.dtype)
    return product(unit)[place]


def _chunk(size: int, chunk_size: int | None) -> int:
    """The number of products that run at once."""
    if chunk_size is None:
        return max(1, min(size, max(FEWEST, ENTRIES // max(size, 1))))
    if chunk_size < 1:
        raise HyperparamError(
            f"hessian_diag: chunk_size = {chunk_size} is below 1: give the number of products that "
            f"run at once"
        )
    return min(size, chunk_size)


def fisher_diag(
    negative_log_likelihood: Loss, params: Params, inputs: Any, targets: Any
) -> jax.Array:
    """Diagonal of the observed Fisher information: the squared gradient, (∂L / ∂θ_i)².

    L is the negative log-likelihood of all `inputs` and `targets` together. For n parameters the
    result has n entries.

    When: a cheap measure of how much each parameter matters, for one example at a time (`vmap` it
    and take the mean: the empirical Fisher). When not: a batch is one call; the square of a sum is
    not the sum of squares.

    Args:
      negative_log_likelihood: `loss(params, inputs, targets)`, a real number.
      params: θ, a tree of n floats.
      inputs: handed to the loss.
      targets: handed to the loss.

    Returns:
      (n,) squares, in the order of `jax.flatten_util.ravel_pytree(params)`.

    >>> import jax.numpy as jnp
    >>> def loss(params, inputs, targets):
    ...     return jnp.vdot(params, inputs) - targets
    >>> fisher_diag(loss, jnp.zeros(2), jnp.array([2.0, -3.0]), 1.0).tolist()
    [4.0, 9.0]

    See also: `hessian_diag`.

    Martens 2020, arXiv 1412.1193, section 5; the empirical Fisher: section 11.
    """
    grads = jax.grad(negative_log_likelihood)(params, inputs, targets)
    return jnp.square(ravel_pytree(grads)[0])
