"""The recipe of transformers equals its parts, written by hand, and checks its lengths."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

STEPS = 10


def parameters() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {
        "embed": (5, 4),
        "blocks": [{"up": {"kernel": (4, 8)}, "norm": (4,)}],
        "lm_head": {"kernel": (4, 5)},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda one: isinstance(one, tuple),
    )


def trained(tx: gradtx.GradientTransformation) -> dict[str, Any]:
    """The parameters after a whole run."""
    params, rng = parameters(), np.random.default_rng(1)
    state = tx.init(params)
    for _ in range(STEPS):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    return params


def by_hand(step: int, warm: int, cool: int) -> float:
    """The rate over its peak."""
    return min(step / warm if warm else 1.0, (STEPS - step) / cool, 1.0)


def test_equals_muon_with_two_rates_and_a_schedule_by_hand() -> None:
    def rate(peak: float) -> gradtx.Schedule:
        shares = [by_hand(step, 2, 6) for step in range(STEPS + 1)]
        return gradtx.join_schedules([peak * share for share in shares], list(range(1, STEPS + 1)))

    mine = gradtx.recipes.transformer(
        STEPS,
        0.1,
        adam_learning_rate=0.02,
        head_learning_rate=0.05,
        weight_decay=0.3,
        warmup_steps=2,
        cooldown_steps=6,
        beta=0.8,
        adam_b1=0.7,
        adam_b2=0.9,
    )

    def muon(adam_rate: float) -> gradtx.GradientTransformation:
        return gradtx.muon(
            rate(0.1),
            beta=0.8,
            weight_decay=0.3,
            adam_b1=0.7,
            adam_b2=0.9,
            adam_learning_rate=rate(adam_rate),
        )

    groups = {"head": muon(0.05), "rest": muon(0.02)}
    hand = gradtx.partition(groups, [("lm_head", "head"), ("", "rest")])
    one, other, start = trained(mine), trained(hand), parameters()
    for mine_leaf, other_leaf, start_leaf in zip(
        *map(jax.tree.leaves, (one, other, start)), strict=True
    ):
        # Both compute the same numbers; the schedules differ by rounding.
        np.testing.assert_allclose(mine_leaf, other_leaf, rtol=2e-6, atol=1e-7)
        assert np.abs(mine_leaf - start_leaf).max() > 0.01


def test_the_last_rates_are_zero_and_the_first_without_warmup_is_the_peak() -> None:
    tx = gradtx.recipes.transformer(100, 0.5, warmup_steps=0, cooldown_steps=20)
    groups = tx.arguments["transforms"]
    rate = groups["muon"].arguments["learning_rate"]
    np.testing.assert_allclose(rate(jnp.array([0, 80, 90, 100, 200])), [0.5, 0.5, 0.25, 0.0, 0.0])
    adam_rate = groups["adam"].arguments["learning_rate"]
    assert (rate.length, adam_rate.length) == (100, 100)


def test_prints_as_its_parts_and_survives_json() -> None:
    tx = gradtx.recipes.transformer(1000)
    text = str(tx)
    for part in ("by_role(", "scale_by_muon(", "adamw(", "weight_decay=0.1", "cooldown("):
        assert part in text
    assert gradtx.from_config(gradtx.to_config(tx)) == tx


def test_the_rate_of_the_head_follows_that_of_the_rest() -> None:
    groups = gradtx.recipes.transformer(100, adam_learning_rate=0.04).arguments["transforms"]
    rest, head = (groups[name].arguments["learning_rate"] for name in ("adam", "head"))
    np.testing.assert_allclose(head(jnp.arange(100)), 0.3 * rest(jnp.arange(100)), rtol=1e-6)


def test_the_number_of_steps_may_be_traced() -> None:
    def rates(steps: Any) -> jax.Array:
        tx = gradtx.recipes.transformer(steps, 0.5)
        return tx.arguments["transforms"]["muon"].arguments["learning_rate"](jnp.arange(60))

    np.testing.assert_allclose(jax.jit(rates)(60.0), rates(60), rtol=1e-6)


@pytest.mark.parametrize("steps", [-5, 0, 0.0])
def test_a_run_of_no_steps(steps: float) -> None:
    with pytest.raises(gradtx.HyperparamError) as error:
        gradtx.recipes.transformer(steps)
    assert str(error.value) == (
        f"recipes.transformer: total_steps = {steps!r} is a run of no steps; give the number of "
        "updates of the whole run"
    )


@pytest.mark.parametrize(
    ("horizons", "text"),
    [
        ({"warmup_steps": 101}, "warmup_steps = 101 is longer"),
        ({"cooldown_steps": 96}, "warmup_steps = 5 and cooldown_steps = 96 are together longer"),
        ({"warmup_steps": math.inf}, "warmup_steps = inf is longer"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_horizon_longer_than_the_run(horizons: dict[str, Any], text: str) -> None:
    with pytest.raises(gradtx.HyperparamError) as error:
        gradtx.recipes.transformer(100, **horizons)
    assert str(error.value) == f"recipes.transformer: {text} than the run of total_steps = 100"


def test_an_unknown_argument() -> None:
    with pytest.raises(TypeError, match="warmup"):
        gradtx.recipes.transformer(100, warmup=5)  # pyright: ignore[reportCallIssue]


def test_routes_and_dimensions_reach_the_parts() -> None:
    params = {"qkv": jnp.ones((4, 12)), "last": jnp.ones((4, 4))}
    tx = gradtx.recipes.transformer(
        100, routes=[("last", "adam")], dimensions=[("qkv", "in out/3")]
    )
    assert str(gradtx.coverage(tx, params)).split("\n") == [
        "last  adam: adamw                   sent by routes",
        "qkv   muon: scale_by_muon, decayed  a hidden matrix (in out/3), by dimensions",
    ]
