r"""Perturbed functions: smooth approximations of functions that have no useful derivative.

    f_σ(x) = E f(x + σ Z),   ∇ f_σ(x) = E (f(x + σ Z) − f(x)) ∇_x log p_x(x + σ Z)

p_x is the density of Y = x + σ Z. Samples Y are constants; x enters by their density alone, so that
f needs no derivative, and the derivatives of the estimate are estimates of the derivatives.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.tree.casts import as_array, compute_dtype, is_inexact, widest
from gradtx.tree.paths import tree_paths

Tree = TypeVar("Tree")


class Noise(Protocol):
    """A distribution on the real line: how to sample it, and its log-density."""

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array: ...

    def log_prob(self, inputs: jax.Array) -> jax.Array: ...


class Gumbel:
    """Gumbel distribution: argmax(x + Z) then has the probabilities softmax(x).

    Density exp(−z − exp(−z)). Each entry is a sample of its own.

    When: perturbed choices and rankings. When not: large negative samples would matter; take
    `Normal`, which is symmetric.

    >>> import jax
    >>> mean = Gumbel().sample(jax.random.key(0), (100_000,)).mean()
    >>> abs(mean - 0.5772).item() < 0.01  # Euler's constant
    True

    Gumbel 1954, Statistical theory of extreme values; Berthet et al. 2020, arXiv 2002.08676,
    section 2.
    """

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Draw samples of a shape."""
        return jax.random.gumbel(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: jax.Array) -> jax.Array:
        """The log-density −z − exp(−z) of each entry."""
        return -inputs - jnp.exp(-inputs)

    def __repr__(self) -> str:
        return "Gumbel()"


class Normal:
    """Normal distribution of mean 0 and variance 1.

    Density exp(−z²/2) / √(2π). Each entry is a sample of its own.

    When: smoothing of functions of numbers (evolution strategies). When not: the closed form of a
    perturbed argmax is wanted; take `Gumbel`.

    >>> import jax
    >>> Normal().sample(jax.random.key(0), (100_000,)).std().round(2).item()
    1.0

    Berthet et al. 2020, arXiv 2002.08676, section 2.
    """

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Draw samples of a shape."""
        return jax.random.normal(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: jax.Array) -> jax.Array:
        """The log-density −z²/2 − log √(2π) of each entry."""
        return -jnp.square(inputs) / 2 - float(np.log(2 * np.pi)) / 2

    def __repr__(self) -> str:
        return "Normal()"


def make_perturbed_fun(
    fun: Callable[..., Any],
    num_samples: int = 1000,
    sigma: ArrayLike = 0.1,
    noise: Noise = Gumbel(),  # noqa: B008  # immutable
    use_baseline: bool = True,
) -> Callable[[jax.Array, Any], Any]:
    r"""Perturbed function: a differentiable, random approximation of any function.

    f_σ(x) = E f(x + σ Z), estimated by the mean of `num_samples` samples. Its derivatives of any
    order are unbiased estimates of those of f_σ, by the score function; f itself is only evaluated.
    x and Z have one shape. The standard error of a gradient is about |f| / (σ √samples).

    When: argmax, sorting, shortest paths and other discrete steps within a model; evolution
    strategies. When not: f has a good derivative; average `jax.grad(f)` instead, whose variance is
    far lower.

    Args:
      fun: f, from a tree of float arrays to a tree of arrays; jax must be able to trace it.
      num_samples: the number of samples, ≥ 1; 100 to 10,000.
      sigma: σ > 0, the scale of the noise, in units of x; 0.05 to 1. It may be traced, and has a
        derivative, too.
      noise: an object with `sample(key, sample_shape, dtype)` and `log_prob(inputs)`, `Gumbel()` or
        `Normal()`.
      use_baseline: subtract f(x) from f(x + σ Z) in derivatives, which lowers their variance and
        changes no mean; it costs one more evaluation of f.

    Returns:
      `perturbed(key, x)`: the mean of f over the samples that `key` draws; floats in the dtypes of
      f, integers and bools as floats.

    Raises:
      HyperparamError: `num_samples` is below 1, or `sigma` is not above 0.
      StructureError: an array of x holds no floats.

    >>> import jax, jax.numpy as jnp
    >>> def choose(scores):
    ...     return jax.nn.one_hot(jnp.argmax(scores), 3)
    >>> smooth = make_perturbed_fun(choose, num_samples=10_000, sigma=1.0)
    >>> x = jnp.log(jnp.array([0.7, 0.2, 0.1]))  # with Gumbel noise and σ = 1: softmax(x)
    >>> bool(jnp.allclose(smooth(jax.random.key(0), x), jax.nn.softmax(x), atol=0.02))
    True

    Berthet et al. 2020, arXiv 2002.08676, Proposition 3.1; Abernethy, Lee and Tewari 2016,
    Perturbation Techniques in Online Learning and Optimization; derivatives of any order: Foerster
    et al. 2018, arXiv 1802.05098, equation 9.
    """
    if num_samples < 1:
        raise HyperparamError(
            f"make_perturbed_fun: num_samples = {num_samples} is below 1: draw one sample at least"
        )
    if not isinstance(sigma, Tracer) and not np.all(np.asarray(sigma) > 0):
        raise HyperparamError(
            f"make_perturbed_fun: sigma = {sigma} is not above 0, and f has no noise to smooth it: "
            f"give a scale > 0"
        )
    return functools.partial(_perturbed, fun, num_samples, sigma, noise, use_baseline)


def _perturbed(
    fun: Callable[[Any], Any],
    num_samples: int,
    sigma: ArrayLike,
    noise: Noise,
    use_baseline: bool,
    key: jax.Array,
    x: Any,
) -> Any:
    """The mean of samples of f, with the score of each in its derivative."""
    arrays, treedef = jax.tree.flatten(x)
    arrays = [as_array(array) for array in arrays]
    _check_floats(arrays, x)

    def sample(key: jax.Array) -> tuple[Any, jax.Array]:
        points, score = _draw(noise, key, arrays, sigma)
        return fun(jax.tree.unflatten(treedef, points)), score

    values, scores = jax.vmap(sample)(jax.random.split(key, num_samples))
    # The score minus itself is 0, but its derivative is that of the density over the density; with
    # exp it is so for every order.
    weights = jnp.expm1(scores - jax.lax.stop_gradient(scores))
    if not use_baseline:
        return jax.tree.map(functools.partial(_mean, weights), values)
    baseline = fun(jax.lax.stop_gradient(x))
    return jax.tree.map(functools.partial(_mean, weights), values, baseline)


def _draw(
    noise: Noise, key: jax.Array, arrays: Sequence[jax.Array], sigma: ArrayLike
) -> tuple[list[jax.Array], jax.Array]:
    """One sample x + σ Z as a constant, and its log-density as a function of x and σ."""
    keys = jax.random.split(key, len(arrays))
    points, scores = [], []
    for array, one in zip(arrays, keys, strict=True):
        scale = jnp.asarray(sigma).astype(array.dtype)
        z = noise.sample(one, array.shape, array.dtype)
        point = jax.lax.stop_gradient(array + scale * z)
        dtype = compute_dtype(array.dtype)
        wide = (point.astype(dtype) - array.astype(dtype)) / scale.astype(dtype)
        density = noise.log_prob(wide) - jnp.log(scale.astype(dtype))
        points.append(point)
        scores.append(jnp.sum(density))
    dtype = widest(jnp.float32, *(score.dtype for score in scores))
    return points, functools.reduce(jnp.add, [score.astype(dtype) for score in scores])


def _mean(weights: jax.Array, values: jax.Array, baseline: ArrayLike = 0.0) -> jax.Array:
    """The mean over samples; its derivative by x comes from the weights, which are 0."""
    dtype = values.dtype if is_inexact(values) else weights.dtype
    wide = widest(compute_dtype(dtype), weights.dtype)
    samples = values.astype(wide)
    column = jnp.expand_dims(weights, tuple(range(1, values.ndim))).astype(wide)
    centred = samples - jnp.broadcast_to(baseline, samples.shape).astype(wide)
    return jnp.mean(samples + centred * column, axis=0).astype(dtype)


def _check_floats(arrays: Sequence[jax.Array], x: Any) -> None:
    for number, array in enumerate(arrays):
        if not is_inexact(array) or jnp.iscomplexobj(array):
            raise StructureError(
                f"make_perturbed_fun: the array at {tree_paths(x)[number]!r} is {array.dtype}, and "
                f"noise is added to real floats alone: cast it, or close over it"
            )
