"""Numbers of steps are whole: a fraction is refused, and one that a program computes is rounded."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.definition.types import Interval
from tests.support.bits import assert_same

SGD = gradtx.sgd(0.125)
CASES: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("accumulate", "every"): lambda count: gradtx.accumulate(SGD, count),
    ("apply_every", "k"): gradtx.apply_every,
    ("tail_ema", "start"): lambda count: gradtx.chain(SGD, gradtx.tail_ema(2.0, count)),
    ("tail_ema", "every"): lambda count: gradtx.chain(SGD, gradtx.tail_ema(2.0, 1, count)),
    ("anchor_gradient", "start"): lambda count: gradtx.anchor_gradient(SGD, 2.0, count),
    ("anchor_gradient", "every"): lambda count: gradtx.anchor_gradient(SGD, 2.0, 1, every=count),
    ("params_average", "start"): lambda count: gradtx.chain(SGD, gradtx.params_average(count)),
    ("params_average", "every"): lambda count: gradtx.chain(SGD, gradtx.params_average(1, count)),
}


COUNTED = {"accumulate": "micro-steps"}
"""What the number counts; otherwise updates."""


def counted() -> set[tuple[str, str]]:
    """Every hyperparameter that counts steps, by its method."""
    factories = {name: getattr(gradtx, name) for name in dir(gradtx)}
    return {
        (name, argument)
        for name, factory in factories.items()
        for argument, marks in getattr(getattr(factory, "factory", None), "dynamic", {}).items()
        if any(isinstance(mark, Interval) and mark.counts for mark in marks)
    }


def test_every_number_of_steps_is_here() -> None:
    assert counted() == CASES.keys()


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_fraction_is_refused(case: tuple[str, str]) -> None:
    name, argument = case
    said = f"{name}: {argument} = 2.5 is not a number of {COUNTED.get(name, 'updates')};"
    with pytest.raises(gradtx.HyperparamError, match=re.escape(said)):
        CASES[case](2.5)


def trained(case: tuple[str, str], count: float) -> Any:
    """Parameters of seven steps, and those to evaluate, where the program computes the count."""

    @jax.jit
    def run(count: jax.Array) -> Any:
        tx, params, seen = CASES[case](count), jnp.float32(8.0), []
        state = tx.init(params)
        for step in range(1, 8):
            updates, state = tx.update(jnp.float32(step), state, params)
            params = gradtx.apply_updates(params, updates)
            seen.append((params, gradtx.eval_params(tx, state, params)))
        return seen

    return run(jnp.float32(count))


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_share_of_a_run_means_the_nearest_step(case: tuple[str, str]) -> None:
    """0.7 of 360 in float32 is 252.00001: an event at every second step after it was never due."""
    expected = trained(case, 3.0)
    for beside in (2.99999, 3.00001):
        assert_same(trained(case, beside), expected)
