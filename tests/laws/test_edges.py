"""Numbers at the edge, for every method: derivatives at 0, squares that overflow, denormal
gradients, and a loss that is not finite.
"""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.testing.problems import extras, gradients
from gradtx.tree.arithmetic import cbrt, divide, sqrt
from tests.methods import FIRST, METHODS

MAKERS = [name for name in FIRST if not (name[:9] == "scale_by_" and name[9:] in FIRST)]
"""One row for every rule: x stands for scale_by_x."""
SEARCHES = ("lbfgs", "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch")
"""JAX has no reverse derivative of their loops."""
SUMS_OF_SQUARES = ("nu", "nu_max", "sum_of_squares", "grad_sum_sq", "e_g", "row", "col", "square")


def parameters(dtype: Any = np.float32) -> dict[str, jax.Array]:
    """A matrix, a vector, and a matrix whose gradients are all 0."""
    kernel = np.random.default_rng(0).normal(size=(3, 4))
    arrays = {"bias": np.ones(4), "kernel": kernel, "zero": np.full((2, 2), 0.5)}
    return {name: jnp.asarray(array.astype(dtype)) for name, array in arrays.items()}


def with_zeros(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Gradients with a row, a column, an entry and an array of exact zeros."""
    grads = gradients(params)
    kernel = grads["kernel"].at[0].set(0).at[:, 1].set(0)
    return {
        "bias": grads["bias"].at[1].set(0),
        "kernel": kernel,
        "zero": jnp.zeros_like(params["zero"]),
    }


def update(tx: Any, grads: Any, state: Any, params: Any) -> Any:
    return tx.update(grads, state, params, **extras(tx, params, grads))


def loss_after_two_steps(tx: Any, params: Any, values: list[Any]) -> jax.Array:
    """The loss after a step with no gradient and one with zeros; `values` are hyperparameters."""
    leaves, treedef = jax.tree.flatten(tx)
    numbers = iter(values)
    tx = treedef.unflatten([next(numbers) if is_real(leaf) else leaf for leaf in leaves])
    state = tx.init(params)
    for grads in (jax.tree.map(jnp.zeros_like, params), with_zeros(params)):
        updates, state = update(tx, grads, state, params)
        params = gradtx.apply_updates(params, updates)
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)), start=jnp.zeros(()))


def is_real(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def reals(tx: Any) -> list[float]:
    """The numbers of a definition that have a derivative."""
    return [float(leaf) for leaf in jax.tree.leaves(tx) if is_real(leaf)]


def with_a_rate(name: str) -> Any:
    """The method of a row, its first learning rate a number where the row has a schedule."""
    tx = METHODS[name].tx
    try:
        return gradtx.replace(tx, learning_rate=0.1)
    except (gradtx.GradtxError, TypeError, ValueError):
        return tx


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in SEARCHES])
def test_hypergradients_are_finite_where_gradients_are_zero(name: str) -> None:
    tx = with_a_rate(name)
    if not reals(tx):
        return
    # Without jit all methods share the compiled operations; their derivatives are the same.
    with jax.disable_jit():
        found = jax.grad(functools.partial(loss_after_two_steps, tx, parameters()))(reals(tx))
    assert np.all(np.isfinite(found)), f"{name}: {dict(enumerate(found))} of {tx}"


SMOOTH = {
    "adam": gradtx.adam(0.1, eps=1e-3),
    "adamw": gradtx.adamw(0.1, eps=1e-3),
    "amsgrad": gradtx.amsgrad(0.1, eps=1e-3),
    "nadam": gradtx.nadam(0.1, eps=1e-3),
    "adabelief": gradtx.adabelief(0.1, eps=1e-3, eps_root=0.0),
    "rmsprop": gradtx.rmsprop(0.1, eps=1e-3),
    "adagrad": gradtx.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-3),
    "madgrad": gradtx.madgrad(0.1, eps=1e-3),
    "lamb": gradtx.lamb(0.1, eps=1e-3),
    "novograd": gradtx.novograd(0.1, eps=1e-3),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_hypergradients_equal_finite_differences(name: str) -> None:
    """In float64, along all hyperparameters at once, each in proportion to its size."""
    tx = SMOOTH[name]
    with jax.enable_x64(True):
        loss = functools.partial(loss_after_two_steps, tx, parameters(np.float64))
        values, width = reals(tx), 1e-6
        moved = [loss([v * (1 + sign * width) for v in values]) for sign in (1, -1)]
        slopes = jax.grad(loss)([jnp.asarray(v, jnp.float64) for v in values])
        found = sum(float(slope) * v for slope, v in zip(slopes, values, strict=True))
    # The square of the width, and rounding divided by it: both about 1e-10 of the loss.
    np.testing.assert_allclose(found, float(moved[0] - moved[1]) / (2 * width), rtol=1e-6)


def test_roots_are_those_of_jax_and_their_derivative_at_zero_is_zero() -> None:
    numbers = jnp.asarray([0.0, 1e-40, 2.0, jnp.inf, jnp.nan, -1.0])
    for mine, theirs in ((sqrt, jnp.sqrt), (cbrt, jnp.cbrt)):
        np.testing.assert_array_equal(mine(numbers), theirs(numbers))
        np.testing.assert_allclose(jax.grad(mine)(2.0), jax.grad(theirs)(2.0), rtol=1e-6)
        assert jax.grad(mine)(0.0) == 0 and jax.grad(jax.grad(mine))(0.0) == 0
    slopes = jax.grad(divide, (0, 1))(3e-30, 1e-30)  # 1/y² would be inf
    np.testing.assert_allclose(slopes, (1e30, -3e30), rtol=1e-6)


def test_a_symbolic_program_with_a_root_has_the_derivative_of_every_shape() -> None:
    params = {f"layer{n}": jnp.ones((n + 2, 3)) for n in range(3)}

    def loss(rate: Any) -> jax.Array:
        tx = gradtx.adam(rate)
        updates, _ = tx.update(params, tx.init(params), params)
        return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(updates)), start=jnp.zeros(()))

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(0.1), -27.0, rtol=1e-5)


def run(tx: Any, sizes: list[float], params: Any) -> tuple[list[Any], Any]:
    """Updates and the last state after gradients of some sizes, then two normal ones."""
    state, updates = tx.init(params), []
    sized = [jax.tree.map(functools.partial(jnp.full_like, fill_value=s), params) for s in sizes]
    for grads in (*sized, *(gradients(params, seed) for seed in range(2))):
        one, state = update(tx, grads, state, params)
        updates.append(one)
    return updates, state


def not_finite(tree: Any) -> list[str]:
    return [
        path
        for path, leaf in gradtx.flatten_state(tree).items()
        if is_real(leaf) and not bool(jnp.all(jnp.isfinite(leaf)))
    ]


BEYOND: dict[str, str] = {
    "by_role": "its rows scale by 2",
    "differentially_private_aggregate": "its row multiplies examples before it",
    "dpsgd": "its row multiplies examples before it",
    "optimistic_gradient_descent": "3 g is above the largest float",
    "scale_by_optimistic_gradient": "3 g is above the largest float",
    "radial_brake": "the radial part of n entries of 3e38 has entries of up to √n times as much",
    "scale_by_param_block_norm": "it multiplies by norms",
    "stateless": "its row doubles",
    "stateless_with_tree_map": "its row doubles",
    "scale_by_galore": "a projection of n entries of 3e38 is √n times as large",
    "galore": "a projection of n entries of 3e38 is √n times as large",
    "muown": "the gradient of a length is a sum over inputs",
}
"""Methods whose exact update at gradients of 3e38 is above the largest float, with the reason."""
LARGEST = [3e38, -3e38, 3e38]


UNKNOWN = ("/value", "/best_value", "_error")
"""Slots that are inf until a loss is known."""


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_at_both_ends_of_float32(name: str) -> None:
    """Denormal gradients, then some whose squares and sums overflow, then normal ones.

    Updates stay finite. An average of squares may be inf, and nothing is ever nan.
    """
    sizes = [1e-40, -1e-30, 1e20, -1e20, 1e30, *(LARGEST if name not in BEYOND else [])]
    # Without jit all methods share the compiled operations; loops take their time there.
    with contextlib.nullcontext() if name in SEARCHES else jax.disable_jit():
        updates, state = run(METHODS[name].tx, sizes, parameters())
    assert not not_finite(updates)
    arrays = gradtx.flatten_state(state.slots)
    for path in not_finite(state.slots):
        may_be_inf = path.endswith(UNKNOWN) or any(part in path for part in SUMS_OF_SQUARES)
        assert may_be_inf and not jnp.any(jnp.isnan(arrays[path])), path


@pytest.mark.parametrize("name", ["optimistic_gradient_descent", "scale_by_param_block_norm"])
def test_an_update_above_the_largest_float_leaves_no_trace(name: str) -> None:
    """The update is inf, as its exact value has to be; the ones that follow are finite."""
    updates, state = run(METHODS[name].tx, LARGEST, parameters())
    assert not_finite(updates[:3]) and not not_finite(updates[4:]) and not not_finite(state.slots)


@pytest.mark.parametrize("name", ["adam", "yogi", "soap", "shampoo", "kl_soap", "psgd_kron"])
def test_compiled_steps_at_both_ends_of_float32(name: str) -> None:
    updates, state = run(METHODS[name].tx, [1e-40, 1e20, -1e20, 1e20, 1e25], parameters())
    assert not not_finite(updates)
    assert all("nu" in path for path in not_finite(state.slots))


def test_a_guard_keeps_squares_that_overflow_out_of_the_state() -> None:
    for size in (1e20, 3e38):
        updates, state = run(gradtx.guard(gradtx.adam(0.1)), [size, -size, size], parameters())
        assert not not_finite(updates)
        assert not_finite(state.slots) in ([], ["guard/norm"])
        assert state.slots["guard"].skipped == 3 and state.count == 2


def test_yogi_recovers_from_two_gradients_whose_squares_overflow() -> None:
    updates, state = run(gradtx.yogi(0.1), [1e20, 1e20], {"w": jnp.ones(1)})
    assert not not_finite(updates) and not not_finite(state)


LOSSES = (float("nan"), float("inf"), float("-inf"))
WITH_A_LOSS = {
    "polyak_sgd": gradtx.polyak_sgd(0.5),
    "momo": gradtx.momo(0.5),
    "momo_adam": gradtx.momo_adam(0.5),
    "reduce_on_plateau": gradtx.chain(
        gradtx.sgd(0.5), gradtx.reduce_on_plateau(factor=0.5, patience=1, accumulation_size=2)
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", WITH_A_LOSS)
def test_a_loss_that_is_not_finite_does_not_count(name: str, loss: float) -> None:
    """It makes no step and enters no average; a plateau reads it as the largest float."""
    tx, w, g = WITH_A_LOSS[name], jnp.ones(2), jnp.asarray([1.0, -2.0])
    state = tx.init(w)
    _, state = tx.update(g, state, w, value=3.0)
    updates, after = tx.update(g, state, w, value=loss)
    assert not not_finite(updates)
    if name != "reduce_on_plateau":
        assert not jnp.any(updates)
    else:
        assert gradtx.metrics(tx, after)["scale"] == 1.0
    assert all(path.endswith("/best_value") for path in not_finite(after.slots))
    last, after = tx.update(g, after, w, value=2.0)
    assert not not_finite(last) and bool(jnp.any(last))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["backtracking", "zoom", "lbfgs"])
def test_a_search_from_a_loss_that_is_not_finite(name: str, loss: float) -> None:
    """Its step is finite; from nan and −inf it is 0. The next search starts afresh."""
    search = {
        "backtracking": gradtx.scale_by_backtracking_linesearch(20, store_grad=True),
        "zoom": gradtx.scale_by_zoom_linesearch(20),
    }
    tx = gradtx.chain(gradtx.sgd(1.0), search[name]) if name in search else gradtx.lbfgs()
    w = jnp.asarray([1.0, -2.0])
    bowl = lambda w: jnp.sum(w**2)  # noqa: E731
    extra = {"grad": 2 * w, "value_fn": bowl}
    updates, state = tx.update(2 * w, tx.init(w), w, value=loss, **extra)
    assert not not_finite(updates)
    assert loss == float("inf") or not jnp.any(updates)
    assert not any(jnp.any(jnp.isnan(leaf)) for leaf in jax.tree.leaves(state))
    updates, state = tx.update(2 * w, state, w, value=bowl(w), **extra)
    assert bowl(w + updates) < bowl(w)


def test_lbfgs_where_squares_of_gradients_overflow() -> None:
    """The gradient at 45 is e^45 = 3.5e19, and its square is above the largest float32."""

    def loss(w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.exp(w) - w)

    @jax.jit
    def step(w: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        value, grad = jax.value_and_grad(loss)(w)
        updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=loss)
        return w + updates, state

    tx, w = gradtx.lbfgs(), jnp.asarray([45.0, -5.0])
    state = tx.init(w)
    for _ in range(100):
        w, state = step(w, state)
        assert bool(jnp.all(jnp.isfinite(w)))
    np.testing.assert_allclose(w, 0.0, atol=1e-3)  # the loss is flat: rounding hides 1e-4
