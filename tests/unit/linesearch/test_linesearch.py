"""Step sizes on real objectives: beside float64 references and Optax, evaluations counted, failures
named.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracles import linesearch as ref
from tests.support.objectives import BACK, PROBLEMS, ZOOM, descend
from tests.support.peer import optax


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def descend_reference(loss: Any, w: np.ndarray, steps: int, scaled: bool, m: int) -> Any:
    """The same by the book; gradients by complex steps."""
    function = functools.partial(loss, xp=np)
    direction = functools.partial(ref.lbfgs_direction, m=m, scaled=scaled)
    method = ref.searched(direction, -1.0, functools.partial(ref.zoom, steps=20, keep=False))
    memory, sizes, numbers = {}, [], []
    for t in range(1, steps + 1):
        grad = np.array([np.imag(function(w + 1e-30j * unit)) / 1e-30 for unit in np.eye(w.size)])

        def value_fn(arrays: Any) -> Any:
            return function(arrays[0])

        w = (
            w
            + method(
                [grad], [w], memory, t, value=float(function(w)), grad=[grad], value_fn=value_fn
            )[0]
        )
        sizes.append(memory["step"])
        numbers.append(len(memory["tried"]))
    return w, sizes, numbers


@pytest.mark.parametrize(
    "options", [{}, {"memory_size": 3, "scale_init_precond": False}], ids=["defaults", "unscaled"]
)
@pytest.mark.parametrize("name", PROBLEMS)
def test_lbfgs_step_by_step(name: str, options: dict[str, Any], x64: None) -> None:
    """Step sizes of the book's algorithms and of Optax, from as many evaluations."""
    loss, start, steps = PROBLEMS[name]
    w, losses, sizes, numbers, calls, _ = descend(
        gradtx.lbfgs(**options), loss, jnp.asarray(start), steps, ZOOM
    )
    expected = descend_reference(
        loss, start, steps, options.get("scale_init_precond", True), options.get("memory_size", 10)
    )
    np.testing.assert_allclose(sizes, expected[1], rtol=1e-7)
    np.testing.assert_allclose(w, expected[0], rtol=1e-6, atol=1e-9)
    assert numbers == expected[2] and calls == sum(numbers)
    theirs = descend(optax.lbfgs(**options), loss, jnp.asarray(start), steps)
    np.testing.assert_allclose(sizes, theirs[2], rtol=1e-9)
    np.testing.assert_allclose(losses, theirs[1], rtol=1e-9, atol=1e-12)
    assert calls <= theirs[4]


def wavy(c: Any, w: Any, xp: Any = jnp) -> Any:
    """Curves with several minima, or none, or one far away."""
    return c[0] * xp.cos(3 * w) + c[1] * w + 0.3 * (c[2] * w) ** 2 + (c[3] * w) ** 4 + c[4]


def at_first(curve: Any, arrays: list[Any]) -> Any:
    return curve(arrays[0])


def curves(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients, and factors that make directions too short or too long."""
    generator = np.random.default_rng(count)
    return generator.normal(size=(count, 5)), 10 ** generator.uniform(-1.5, 1.5, count)


def searches(
    lib: Any, make: Any, coefficients: np.ndarray, slopes: np.ndarray, curve: Any = wavy
) -> Any:
    """Step sizes and evaluations of a search on each of many curves, all at once."""
    tx = make(lib)

    def one(c: Any, factor: Any) -> Any:
        w = jnp.zeros(())
        value, slope = jax.value_and_grad(curve, argnums=1)(c, w)
        told = {"value": value, "grad": slope, "value_fn": functools.partial(curve, c)}
        _, state = tx.update(-factor * slope, tx.init(w), w, **told)
        found = next(iter(state.slots.values())) if isinstance(state, gradtx.State) else state
        return found.learning_rate, found.info

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(coefficients, slopes))


ZOOMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}),
    "exact": ({"curv_rtol": 0.01, "approx_dec_rtol": None}, {"c2": 0.01, "eps": -np.inf}),
    "bounded": (
        {"max_learning_rate": 3.0, "increase_factor": 1.5, "slope_rtol": 0.3},
        {"most": 3.0, "grow": 1.5, "c1": 0.3},
    ),
    "loose": (
        {"approx_dec_rtol": 0.1, "initial_guess_strategy": "one"},
        {"eps": 0.1, "keep": False},
    ),
    "coarse": ({"curv_rtol": 0.01, "stepsize_precision": 0.3}, {"c2": 0.01, "precision": 0.3}),
}


@pytest.mark.parametrize("name", ZOOMS)
def test_zoom_on_many_curves(name: str, x64: None) -> None:
    """The search on every curve ends where the book's ends, and where Optax's ends, after as many
    evaluations; under vmap.
    """
    ours_options, options = ZOOMS[name]
    coefficients, factors = curves(150)

    def make(lib: Any) -> Any:
        return lib.scale_by_zoom_linesearch(12, **ours_options)

    sizes, info = searches(gradtx, make, coefficients, factors)
    theirs, info_theirs = searches(optax, make, coefficients, factors)
    np.testing.assert_allclose(sizes, theirs, rtol=1e-7)
    np.testing.assert_array_equal(info.num_linesearch_steps, info_theirs.num_linesearch_steps)
    np.testing.assert_allclose(
        info.decrease_error, info_theirs.decrease_error, rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(
        info.curvature_error, info_theirs.curvature_error, rtol=1e-5, atol=1e-5
    )
    for c, factor, size, number in zip(
        coefficients, factors, sizes, info.num_linesearch_steps, strict=True
    ):
        curve = functools.partial(wavy, c, xp=np)
        value, slope = ref.along(functools.partial(at_first, curve), [0.0], [1.0], 0.0)
        phi = functools.partial(
            ref.along, functools.partial(at_first, curve), [0.0], [-factor * slope]
        )
        found, tried = ref.zoom(phi, value, -factor * slope**2, {}, steps=12, **options)
        assert len(tried) == number
        np.testing.assert_allclose(size, found, rtol=1e-7)


def test_the_conditions_hold_where_a_search_succeeds(x64: None) -> None:
    """By their definition, independent of how the step size was found."""
    c, factor = curves(100)[0], np.ones(100)
    sizes, info = searches(
        gradtx, lambda lib: lib.scale_by_zoom_linesearch(30, curv_rtol=0.1), c, factor
    )
    met = (info.decrease_error == 0) & (info.curvature_error == 0)
    assert met.sum() > 90
    for one, alpha in zip(c[met], sizes[met], strict=True):
        value, slope = (float(x) for x in jax.value_and_grad(wavy, argnums=1)(one, 0.0))
        there, slope_there = (
            float(x) for x in jax.value_and_grad(wavy, argnums=1)(one, -alpha * slope)
        )
        assert abs(slope_there) <= 0.1 * abs(slope) * (1 + 1e-9)
        assert there <= value - 1e-4 * alpha * slope**2 + 1e-6 * abs(value)


def test_backtracking_on_many_curves(x64: None) -> None:
    coefficients, factors = curves(150)

    def make(lib: Any) -> Any:
        return lib.scale_by_backtracking_linesearch(
            10, slope_rtol=0.3, decrease_factor=0.5, increase_factor=3.0, store_grad=True
        )

    sizes, info = searches(gradtx, make, coefficients, factors)
    theirs, info_theirs = searches(optax, make, coefficients, factors)
    np.testing.assert_allclose(sizes, theirs, rtol=1e-12)
    np.testing.assert_allclose(
        info.decrease_error, info_theirs.decrease_error, rtol=1e-9, atol=1e-12
    )
    assert (
        info.num_linesearch_steps == info_theirs.num_linesearch_steps
    ).all() and info.num_linesearch_steps.max() > 8


def parabola(c: Any, w: Any) -> Any:
    return 10 ** (2 * c[0]) * (w - c[1]) ** 2 - 5 * c[2]


def test_on_parabolas_the_cubic_keeps_its_digits(x64: None) -> None:
    """Through points of a parabola the cubic's third coefficient is rounding; its minimum is the
    parabola's all the same.
    """
    coefficients, factors = curves(300)

    def make(lib: Any) -> Any:
        return lib.scale_by_zoom_linesearch(20, curv_rtol=0.01)

    (_, ours), (_, theirs) = (
        searches(lib, make, coefficients, factors, parabola) for lib in (gradtx, optax)
    )
    assert (ours.num_linesearch_steps <= theirs.num_linesearch_steps).all()
    assert ours.num_linesearch_steps.sum() < theirs.num_linesearch_steps.sum()
    assert (ours.curvature_error[ours.decrease_error == 0] < 1e-6).all()


def wall(w: Any) -> Any:
    """No number beyond 2e-3 below where it starts, at 1."""
    return jnp.where(w < 0.998, jnp.nan, 10 * w**2)


@pytest.mark.parametrize("name", [ZOOM, BACK])
def test_after_no_step_a_search_starts_again(name: str) -> None:
    """Where the loss is no number at every step size there is no step, and the next search does not
    start at 0 as Optax's does.
    """
    w = jnp.array(1.0)
    for lib in (optax, gradtx):
        tx = lib.chain(lib.scale(-1.0), getattr(lib, name)(5))
        state, value, grad = tx.init(w), wall(w), jnp.array(20.0)
        for loss, moves in ((wall, False), (lambda w: 10 * w**2, lib is gradtx)):
            updates, state = jax.jit(tx.update, static_argnames="value_fn")(
                grad, state, w, value=value, grad=grad, value_fn=loss
            )
            assert (float(updates) != 0) == moves
    assert float(state.slots[name].value) == pytest.approx(float(10 * (w + updates) ** 2), rel=1e-6)


def test_where_nothing_was_found_the_loss_kept_is_the_loss_there() -> None:
    w, grad = jnp.array(1.0), jnp.array(20.0)
    tx = gradtx.chain(
        gradtx.scale(-1.0), gradtx.scale_by_backtracking_linesearch(3, store_grad=True)
    )
    updates, state = tx.update(grad, tx.init(w), w, value=10.0, grad=grad, value_fn=wall)
    found = state.slots[BACK]
    assert (float(updates), float(found.learning_rate), float(found.value), float(found.grad)) == (
        0,
        0,
        10,
        20,
    )
    assert jnp.isinf(found.info.decrease_error)


def test_a_relative_tolerance_is_relative_to_the_size_of_the_loss() -> None:
    """10 w² − 25 at 1 is −15: a tenth of that is 1.5, not −1.5."""
    w, grad = jnp.array(1.0), jnp.array(20.0)
    for lib, number in ((gradtx, 1), (optax, 6)):
        tx = lib.scale_by_backtracking_linesearch(5, rtol=0.1, decrease_factor=0.999)
        _, state = tx.update(
            -0.102 * grad, tx.init(w), w, value=-15.0, grad=grad, value_fn=lambda w: 10 * w**2 - 25
        )
        found = state.slots[BACK] if lib is gradtx else state
        assert int(found.info.num_linesearch_steps) == number


@pytest.mark.parametrize("jitted", [False, True])
def test_no_more_evaluations_than_needed(jitted: bool) -> None:
    """Backtracking takes the gradient only where it ends; where the first step size serves, a
    search is one evaluation.
    """
    calls = {"loss": 0, "gradient": 0}

    @jax.custom_vjp
    def loss(w: Any) -> Any:
        return 10 * w**2

    def forward(w: Any) -> Any:
        jax.debug.callback(functools.partial(count, "loss"))
        return loss(w), w

    def backward(w: Any, cotangent: Any) -> Any:
        jax.debug.callback(functools.partial(count, "gradient"))
        return (20 * w * cotangent,)

    def count(what: str) -> None:
        calls[what] += 1

    loss.defvjp(forward, backward)
    tx = gradtx.chain(
        gradtx.scale(-1.0), gradtx.scale_by_backtracking_linesearch(20, store_grad=True)
    )
    update = jax.jit(tx.update, static_argnames="value_fn") if jitted else tx.update
    w, grad = jnp.array(1.0), jnp.array(20.0)
    _, state = update(grad, tx.init(w), w, value=10.0, grad=grad, value_fn=loss)
    jax.effects_barrier()
    assert (
        calls == {"loss": 12, "gradient": 1}
        and int(state.slots[BACK].info.num_linesearch_steps) == 12
    )


def test_value_and_grad_from_state_beside_an_integer() -> None:
    """`jax.value_and_grad` refuses the tree; the descent is that of the float alone."""

    def loss(params: Any) -> jax.Array:
        return jnp.sum((params["w"] - 3.0) ** 2)

    params, tx = {"w": jnp.zeros(2), "n": jnp.array([1, 2])}, gradtx.lbfgs()
    state, value_and_grad = tx.init(params), gradtx.value_and_grad_from_state(loss)
    for _ in range(3):
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        params = gradtx.apply_updates(params, updates)
    assert jnp.allclose(params["w"], 3.0) and params["n"].tolist() == [1, 2]


def residual(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """A loss of a batch."""
    return jnp.sum((x @ params["w"] + params["b"] - y) ** 2)


@pytest.mark.parametrize("where", [None, "w"])
@pytest.mark.parametrize("search", [BACK, ZOOM])
def test_the_loss_receives_its_other_arguments_by_name(search: str, where: str | None) -> None:
    """As if they were bound to it beforehand; under a mask too, and in any order."""
    member = getattr(gradtx, search)(20)
    tx = gradtx.chain(gradtx.sgd(1.0), member if where is None else gradtx.masked(member, where))
    params = {"w": jnp.ones(2), "b": jnp.ones(())}
    batch = {"x": jnp.arange(6.0).reshape(3, 2), "y": jnp.arange(3.0)}
    value, grad = jax.value_and_grad(residual)(params, **batch)
    known = {"value": value, "grad": grad, "unknown": 3.0}
    args = grad, tx.init(params), params
    updates, _ = tx.update(*args, value_fn=residual, **known, **batch)
    bound, _ = tx.update(*args, value_fn=functools.partial(residual, **batch), **known)
    assert jax.tree.map(jnp.array_equal, updates, bound) == {"w": True, "b": True}
    assert not jnp.array_equal(updates["w"], -grad["w"])  # the search has found another step


def test_a_python_number_as_the_last_step_size() -> None:
    """A caller may write it into the state; the search starts there."""
    tx, w = gradtx.scale_by_zoom_linesearch(1), jnp.array(2.0)
    state = tx.init(w)
    slots = state.slots[ZOOM]._replace(learning_rate=0.25)
    _, state = tx.update(
        -2 * w, state._replace(slots={ZOOM: slots}), w, value=w**2, grad=2 * w, value_fn=jnp.square
    )
    assert state.slots[ZOOM].learning_rate == 0.25
