"""Perturbed functions: closed forms, Optax with the same key, and programs around them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import perturbations
from gradtx.perturbations import Gumbel, Normal, make_perturbed_fun

KEY = jax.random.key(14)
X = jnp.log(jnp.array([0.5, 0.3, 0.2]))
WEIGHTS = jnp.array([1.0, -2.0, 3.0])
SAMPLES = 40_000


def choose(scores):
    return jax.nn.one_hot(jnp.argmax(scores), 3)


def value(perturbed, x, key=KEY):
    return jnp.vdot(WEIGHTS, jnp.broadcast_to(perturbed(key, x), (3,)))


@pytest.mark.parametrize("sigma", [0.5, 1.0])
@pytest.mark.parametrize("use_baseline", [True, False])
def test_a_perturbed_argmax_is_softmax(sigma, use_baseline):
    """Value, gradient and Hessian; the tolerances are 4 standard errors, computed here."""
    perturbed = make_perturbed_fun(choose, SAMPLES, sigma, use_baseline=use_baseline)

    def closed(x):
        return jnp.vdot(WEIGHTS, jax.nn.softmax(x / sigma))

    # |f| ≤ 3 (6 with the baseline), the score has variance 1/σ², its square some 10/σ⁴.
    error = 4 * 6 / SAMPLES**0.5
    assert abs(value(perturbed, X) - closed(X)) < error
    gradient = jax.grad(functools.partial(value, perturbed))(X)
    np.testing.assert_allclose(gradient, jax.grad(closed)(X), atol=error / sigma)
    hessian = jax.hessian(functools.partial(value, perturbed))(X)
    np.testing.assert_allclose(hessian, jax.hessian(closed)(X), atol=3.2 * error / sigma**2)


def test_a_step_under_normal_noise_is_its_distribution_function():
    """E 1[x + σ Z > 0] = Φ(x/σ), with derivatives by x and by σ."""
    x, sigma = jnp.array(0.3), jnp.array(0.5)

    def estimate(x, sigma):
        step = make_perturbed_fun(lambda x: x > 0, SAMPLES, sigma, Normal())
        return step(KEY, x)

    def closed(x, sigma):
        return jax.scipy.stats.norm.cdf(x / sigma)

    # A step is 0 or 1, and the scores have variances 1/σ² and 2/σ².
    error = 4 / SAMPLES**0.5
    assert abs(estimate(x, sigma) - closed(x, sigma)) < error
    for position in (0, 1):
        found, right = (jax.grad(one, position)(x, sigma) for one in (estimate, closed))
        assert abs(found - right) < error * 2**0.5 / sigma


@pytest.mark.parametrize("noise", ["Gumbel", "Normal"])
@pytest.mark.parametrize("use_baseline", [True, False])
def test_optax_draws_the_same_samples(noise, use_baseline):
    ours, theirs = (
        library.make_perturbed_fun(
            choose, 50, 0.4, getattr(library, noise)(), use_baseline=use_baseline
        )
        for library in (perturbations, optax.perturbations)
    )
    x = X[:3]
    for derive in (lambda one: one, jax.grad, jax.hessian):
        ours_at, theirs_at = (derive(functools.partial(value, one))(x) for one in (ours, theirs))
        # Sums of 50 samples with weights of about 10, each rounded to float32.
        np.testing.assert_allclose(ours_at, theirs_at, atol=1e-5)


def test_the_baseline_lowers_the_variance():
    def spread(use_baseline):
        f = make_perturbed_fun(lambda x: 10 + jnp.sum(x), 50, 0.5, Normal(), use_baseline)
        keys = jax.random.split(KEY, 40)
        return jnp.std(jax.vmap(jax.grad(f, 1), (0, None))(keys, X), axis=0).max()

    assert spread(True) < 0.3 * spread(False)


def test_trees_programs_and_batches():
    def fun(tree):
        return {
            "sum": tree["a"].sum() + tree["b"].astype(jnp.float32).sum(),
            "top": jnp.argmax(tree["a"]),
        }

    tree = {"a": X, "b": jnp.ones((2, 2), jnp.bfloat16)}
    perturbed = make_perturbed_fun(fun, 20, 0.1)
    eager, program = perturbed(KEY, tree), jax.jit(perturbed)(KEY, tree)
    assert eager["top"].dtype == jnp.float32  # a mean of integers
    # XLA may keep more digits of sums in bfloat16, which has 8 bits.
    np.testing.assert_allclose(eager["sum"], program["sum"], rtol=2**-7)
    grads = jax.grad(lambda tree: perturbed(KEY, tree)["sum"])(tree)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, tree)
    assert grads["b"].dtype == jnp.bfloat16
    keys = jax.random.split(KEY, 4)
    batch = jax.vmap(perturbed, (0, None))(keys, tree)["sum"]
    np.testing.assert_allclose(batch[1], perturbed(keys[1], tree)["sum"], rtol=2**-7)
    with jax.numpy_dtype_promotion("strict"):
        jax.grad(lambda tree: perturbed(KEY, tree)["sum"])(tree)


def test_derivatives_reach_what_the_function_closes_over():
    def mean(weight):
        return make_perturbed_fun(lambda x: weight * jnp.sum(x), 30)(KEY, X)

    assert jax.grad(mean)(2.0) == pytest.approx(float(mean(1.0)), rel=1e-5)


def test_a_function_may_have_no_derivative():
    def halvings(x):
        return jax.lax.while_loop(lambda n: n[0] > 0.1, lambda n: (n[0] / 2, n[1] + 1), (x, 0))[1]

    gradient = jax.grad(make_perturbed_fun(halvings, 2000, 0.3, Normal()), 1)(KEY, jnp.array(1.0))
    # The number of halvings is near log2(x / 0.1): its slope at 1 is about 1 / log 2.
    assert 0.5 < gradient < 2.5


@pytest.mark.parametrize("noise", [Gumbel(), Normal()])
def test_densities_are_those_of_the_samples(noise):
    z = jnp.linspace(-8.0, 40.0, 48_001)
    density = jnp.exp(noise.log_prob(z))
    assert jnp.sum(density) * 1e-3 == pytest.approx(1.0, abs=1e-4)
    samples = noise.sample(KEY, (SAMPLES,))
    assert samples.dtype == jnp.float32 and noise.sample(KEY).shape == ()
    for level in (-1.0, 0.0, 1.0):
        mass = jnp.sum(jnp.where(z < level, density, 0)) * 1e-3
        # Four standard errors of a share, and one step of the grid.
        assert abs(jnp.mean(samples < level) - mass) < 4 * 0.5 / SAMPLES**0.5 + 1e-3
    assert repr(noise) in ("Gumbel()", "Normal()")


REFUSALS = {
    r"^make_perturbed_fun: num_samples = 0 is below 1: draw one sample at least$": (
        lambda: make_perturbed_fun(choose, 0)
    ),
    r"^make_perturbed_fun: sigma = 0.0 is not above 0, and f has no noise to smooth it: give a "
    r"scale > 0$": lambda: make_perturbed_fun(choose, 10, 0.0),
    r"^make_perturbed_fun: the array at 'n' is int32, and noise is added to real floats alone: "
    r"cast it, or close over it$": lambda: make_perturbed_fun(choose)(KEY, {"n": jnp.arange(3)}),
}


@pytest.mark.parametrize("text", REFUSALS)
def test_arguments_that_are_refused(text):
    with pytest.raises((gradtx.HyperparamError, gradtx.StructureError), match=text):
        REFUSALS[text]()
