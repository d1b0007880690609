"""A loss scale for float16: what it saves, what it skips, how it moves; by hand and within
make_step.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError, StateError

ONE, INF = jnp.asarray(1.0), jnp.asarray(jnp.inf)


def follow(tx: Any, gradients: Any) -> list[tuple[float, float, int]]:
    """After every step: the update, the scale, and the count."""
    state, seen = tx.init(ONE), []
    for grad in gradients:
        updates, state = tx.update(jnp.asarray(grad), state)
        seen.append((float(updates), float(gradtx.loss_scale(tx, state)), int(state.count)))
    return seen


def test_the_scale_halves_and_doubles() -> None:
    tx = gradtx.dynamic_loss_scale(
        gradtx.sgd(1.0), 8.0, growth_interval=2, min_scale=2.0, max_scale=8.0
    )
    seen = follow(tx, [8.0, jnp.inf, jnp.nan, jnp.inf, 2.0, 2.0, 4.0, 4.0, 8.0, 8.0])
    assert seen == [
        (-1.0, 8.0, 1),
        (0.0, 4.0, 1),
        (0.0, 2.0, 1),
        (0.0, 2.0, 1),  # not below the least
        (-1.0, 2.0, 2),
        (-1.0, 4.0, 3),  # two good steps in a row
        (-1.0, 4.0, 4),
        (-1.0, 8.0, 5),
        (-1.0, 8.0, 6),
        (-1.0, 8.0, 7),  # not above the most
    ]


def test_a_skipped_step_is_as_if_it_never_was() -> None:
    tx = gradtx.dynamic_loss_scale(gradtx.adamw(gradtx.linear_schedule(1.0, 0.0, 9)), 4.0)
    params = {"w": jnp.array([1.0, -0.0])}
    state = tx.init(params)
    _, state = tx.update({"w": jnp.array([4.0, 8.0])}, state, params)
    updates, after = tx.update({"w": jnp.array([1.0, jnp.nan])}, state, params)
    kept = gradtx.apply_updates(params, updates)["w"]
    assert np.asarray(kept).tobytes() == np.asarray(params["w"]).tobytes(), "the sign of −0, too"
    assert after.count == state.count == 1
    moments = zip(
        *(jax.tree.leaves(one.slots["scale_by_adam"]) for one in (state, after)), strict=True
    )
    assert all(np.asarray(old).tobytes() == np.asarray(new).tobytes() for old, new in moments)
    assert int(after.slots["dynamic_loss_scale"].skipped) == 1


def tiny(params: Any, x: jax.Array) -> jax.Array:
    """A loss in float16 whose gradient, 2e-8, float16 cannot hold."""
    return jnp.sum(params["w"] * x) * jnp.float16(2e-4) * jnp.float16(1e-4)


def test_small_gradients_of_float16_are_saved() -> None:
    params, x = {"w": jnp.ones(2, jnp.float16)}, jnp.ones(2, jnp.float16)
    assert not np.any(jax.grad(tiny)(params, x)["w"]), "without a scale they vanish"
    tx = gradtx.dynamic_loss_scale(gradtx.trace(0.0), 2.0**10)

    def scaled(params: Any) -> jax.Array:
        return (
            jnp.sum(params["w"] * x)
            * jnp.float16(2e-4)
            * (gradtx.loss_scale(tx, state) * jnp.float16(1e-4)).astype(jnp.float16)
        )

    state = tx.init(params)
    _, state = tx.update(jax.grad(scaled)(params), state, params)
    assert float(state.slots["trace"].trace["w"][0]) == pytest.approx(2e-8, rel=1e-2)


def test_make_step_scales_the_loss_and_tells_it_unscaled() -> None:
    def loss(params: Any, x: jax.Array) -> Any:
        return jnp.mean((params["w"] - x) ** 2)

    seen: list[Any] = []

    def look(updates: Any, slots: Any, params: Any, step: Any, *, extra: Any) -> Any:
        seen.append((updates["w"].dtype, extra["grad"]["w"].dtype))
        return updates, slots

    for parts in (1, 2):
        plain = gradtx.chain(gradtx.sgd(0.25), gradtx.reduce_on_plateau())
        scaled = gradtx.dynamic_loss_scale(
            gradtx.chain(gradtx.treewise(None, look), plain), 2.0**12, growth_interval=1
        )
        x = jnp.arange(4.0)
        out = []
        for tx in (plain, scaled):
            params = {"w": jnp.full(1, 7.0)}
            step, state, value = (
                gradtx.make_step(loss, tx, microbatches=parts),
                tx.init(params),
                None,
            )
            for _ in range(3):
                params, state, value = step(params, state, x)
            out.append((float(params["w"][0]), value))
        assert out[0] == out[1], "powers of two change no digit"
        assert float(gradtx.loss_scale(scaled, state)) == 2.0**15
    assert seen[0] == (jnp.float32, jnp.float32)


def test_an_overflow_within_make_step_is_skipped_and_training_goes_on() -> None:
    def loss(params: Any, x: jax.Array) -> Any:
        return jnp.mean(
            (params["w"].astype(jnp.float16) - x) ** 2
        )  # times 2^15 it is beyond float16 in the backward pass

    tx = gradtx.dynamic_loss_scale(gradtx.with_metrics(gradtx.sgd(0.25)), 2.0**15)
    params, state = {"w": jnp.full(1, 7.0)}, None
    state = tx.init(params)
    step = gradtx.make_step(loss, tx)
    scales = []
    for _ in range(6):
        params, state, _ = step(params, state, jnp.ones(4, jnp.float16))
        scales.append(float(gradtx.metrics(tx, state)["loss_scale"]))
    assert (
        scales[0] == 2.0**14 and bool(jnp.isfinite(params["w"][0])) and float(params["w"][0]) < 7.0
    )
    assert int(gradtx.metrics(tx, state)["overflow_steps"]) == 6 - int(state.count) > 0


def test_a_guard_inside() -> None:
    tx = gradtx.dynamic_loss_scale(gradtx.guard(gradtx.sgd(1.0), max_norm=10.0), 8.0)
    _, state = tx.update(jnp.asarray(16.0), tx.init(ONE))
    updates, state = tx.update(INF, state)
    assert float(updates) == 0.0 and state.count == 1 and float(gradtx.loss_scale(tx, state)) == 4.0
    updates, after = tx.update(jnp.asarray(80.0), state)
    assert float(updates) == 0.0 and int(gradtx.metrics(tx, after)["too_large_steps"]) == 1, (
        "20 without the scale"
    )


SCALED = gradtx.dynamic_loss_scale(gradtx.sgd(1.0), 8.0)
PAIR = {"a": jnp.ones(2), "b": jnp.ones(3)}


def optax_chain() -> Any:
    import optax

    return optax.chain(cast("Any", SCALED))


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: gradtx.guard(SCALED), "guard"),
        (lambda: gradtx.with_metrics(gradtx.guard(gradtx.accumulate(SCALED, 2))), "accumulate"),
        (lambda: gradtx.apply_if_finite(SCALED, 3), "apply_if_finite"),
        (lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), SCALED), "clip_by_global_norm"),
        (lambda: gradtx.masked(SCALED, "a"), "the leaves outside of dynamic_loss_scale"),
        (
            lambda: gradtx.partition({"one": SCALED, "two": SCALED}, [("a", "one"), (".*", "two")]),
            "the leaves outside of one",
        ),
        (optax_chain, "chain"),
    ],
)
def test_a_scale_that_is_not_the_outermost_is_refused(make: Any, other: str) -> None:
    """An overflow would be left out before the scale hears of it, for ever; others would be given
    gradients that are 2^15 as large.
    """
    tx = make()
    state = tx.init(PAIR)
    message = (
        rf"^dynamic_loss_scale is not the outermost: {other} would receive gradients with "
        r"the scale in them; put the scale around"
    )
    with pytest.raises(GradtxError, match=message):
        gradtx.loss_scale(tx, state)
    with pytest.raises(GradtxError, match=message):
        gradtx.make_step(lambda params: jnp.sum(params["a"]), tx)(PAIR, state)


def test_what_stands_behind_a_scale_or_only_watches_is_no_obstacle() -> None:
    for tx in (
        gradtx.chain(SCALED, gradtx.params_ema(0.9)),
        gradtx.with_metrics(SCALED),
        gradtx.tunable(SCALED, "learning_rate"),
        gradtx.lookahead(SCALED, 5, 0.5),
    ):
        assert float(gradtx.loss_scale(tx, tx.init(PAIR))) == 8.0


def test_gradients_that_are_python_numbers() -> None:
    params = {"a": 1.0, "n": 3}
    updates, _ = SCALED.update({"a": 4.0, "n": 2}, SCALED.init(params), params)
    assert float(updates["a"]) == -0.5 and updates["n"] == 2


def test_a_definition_without_a_scale() -> None:
    import optax

    assert gradtx.loss_scale(gradtx.sgd(0.1), gradtx.sgd(0.1).init(ONE)) == 1.0
    assert gradtx.loss_scale(optax.sgd(0.1), optax.sgd(0.1).init(ONE)) == 1.0
    for state, message in (
        (
            None,
            r"^the state of dynamic_loss_scale is None, not a gradtx.State: pass "
            r"the state that tx.update returned$",
        ),
        (
            gradtx.sgd(0.1).init(ONE),
            r"^the state has nothing for dynamic_loss_scale; it holds nothing: it is "
            r"another definition's$",
        ),
    ):
        with pytest.raises(StateError, match=message.replace("of dynamic_loss_scale", "of sgd")):
            gradtx.loss_scale(SCALED, state)


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(
        HyperparamError,
        match=r"dynamic_loss_scale: min_scale = 4.0 is above max_scale = 2.0; swap the two numbers",
    ):
        gradtx.dynamic_loss_scale(gradtx.sgd(0.1), min_scale=4.0, max_scale=2.0)
    with pytest.raises(
        HyperparamError, match=r"growth_factor = 0.5 is outside its range \[1, inf\]"
    ):
        gradtx.dynamic_loss_scale(gradtx.sgd(0.1), growth_factor=0.5)
    for wrong in (0.0, 1.0):
        with pytest.raises(
            HyperparamError, match=r"backoff_factor = .* is outside its range \(0, 1\)"
        ):
            gradtx.dynamic_loss_scale(gradtx.sgd(0.1), backoff_factor=wrong)
