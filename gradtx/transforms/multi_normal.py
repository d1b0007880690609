"""The normal distribution with a diagonal covariance."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike
from gradtx.tree.keys import as_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MultiNormal:
    """A multivariate normal distribution with independent entries: x = μ + e^s z, z ~ N(0, 1).

    It is a pytree of its parameters.

    Args:
      loc: μ, the mean.
      log_scale: s, the logarithm of the standard deviation.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.transforms.multi_normal import MultiNormal
    >>> normal = MultiNormal(jnp.zeros(2), jnp.zeros(2))
    >>> round(normal.log_prob(jnp.zeros(2)).item(), 4)  # −log 2π
    -1.8379
    """

    loc: jax.Array
    log_scale: jax.Array

    @property
    def params(self) -> list[jax.Array]:
        """The mean, and the logarithm of the standard deviation."""
        return [self.loc, self.log_scale]

    def sample(self, shape: Sequence[int], key: jax.Array) -> jax.Array:
        """Draw samples: an array of shape (*shape, *event), with the event's shape behind.

        Args:
          shape: the number of samples along each axis.
          key: a random key, old style or new.

        Returns: the samples, which are differentiable with respect to both parameters.
        """
        full = (*shape, *self._event())
        dtype = jnp.result_type(self.loc, self.log_scale)
        noise = jax.random.normal(as_key(key), full, dtype)
        loc, scale = (jnp.broadcast_to(one, full) for one in (self.loc, jnp.exp(self.log_scale)))
        return loc + scale * noise

    def log_prob(self, x: ArrayLike) -> jax.Array:
        """The logarithm of the density: −Σ_i (z_i² + log 2π) / 2 + s_i, z = (x − μ) e^−s.

        Args:
          x: points, of shape (*batch, *event).

        Returns: one number for each point, of shape (*batch).
        """
        event, point = self._event(), jnp.asarray(x)
        full = jnp.broadcast_shapes(point.shape, event)
        point, loc, log = (jnp.broadcast_to(one, full) for one in (point, *self.params))
        z = (point - loc) * jnp.exp(-log)
        each = -0.5 * (z * z + math.log(2 * math.pi)) - log
        return jnp.sum(each, axis=tuple(range(-len(event), 0)))

    def _event(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(jnp.shape(self.loc), jnp.shape(self.log_scale))


def multi_normal(loc: ArrayLike, log_scale: ArrayLike) -> MultiNormal:
    """A multivariate normal distribution with a diagonal covariance, as a pytree.

    x_i = μ_i + exp(s_i) z_i, with z_i standard normal.

    When: search distributions of evolution strategies and variational inference. When not: a full
    covariance; use a library of distributions.

    Args:
      loc: μ, the mean, of any shape.
      log_scale: s, the logarithm of the standard deviation, of a shape that broadcasts with it.

    Returns: a distribution with `sample(shape, key)`, `log_prob(x)` and `params`.

    Raises:
      StructureError: shapes that do not broadcast.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.transforms.multi_normal import multi_normal
    >>> normal = multi_normal(jnp.array([1.0, -1.0]), jnp.log(jnp.array([0.5, 2.0])))
    >>> samples = normal.sample((20_000,), jax.random.key(0))
    >>> jnp.std(samples, axis=0).round(1).tolist()
    [0.5, 2.0]
    """
    mean, log = jnp.asarray(loc), jnp.asarray(log_scale)
    try:
        jnp.broadcast_shapes(mean.shape, log.shape)
    except ValueError:
        raise StructureError(
            f"multi_normal: Incompatible shapes for broadcasting: loc has shape {mean.shape}, "
            f"log_scale {log.shape}"
        ) from None
    return MultiNormal(mean, log)
