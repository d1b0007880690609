"""`restarts`: cycles against the schedules that they are, and what mistakes are told."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError

COSINE = gradtx.cosine_decay_schedule(1.0, 10)
LAST = 2**31 - 1


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_against_sgdr(factor: int) -> None:
    """Warm restarts are `sgdr_schedule` with cycles of L, f L, f² L steps and peaks of d^i."""
    kwargs = {"init_value": 0.0, "warmup_steps": 0}
    known = gradtx.sgdr_schedule(
        [
            {**kwargs, "peak_value": 0.5**cycle, "decay_steps": 10 * factor**cycle}
            for cycle in range(3)
        ]
    )
    mine, counts = gradtx.restarts(COSINE, times=3, factor=factor, decay=0.5), jnp.arange(140)
    np.testing.assert_allclose(mine(counts), known(counts), rtol=1e-6, atol=1e-7)
    assert mine.length == known.length


def test_without_an_end_the_last_count_is_exact() -> None:
    endless = gradtx.restarts(gradtx.linear_schedule(1.0, 0.0, 1000))
    assert float(endless(LAST)) == float(gradtx.linear_schedule(1.0, 0.0, 1000)(LAST % 1000))
    assert float(endless(-5)) == 1.0


def test_the_last_value_remains() -> None:
    """Also of a schedule that has no end of its own."""
    decay = gradtx.exponential_decay(8.0, 1, 0.5)
    assert gradtx.restarts(decay, times=2, steps=2)(jnp.arange(6)).tolist() == [8, 4, 8, 4, 2, 2]
    stretched = gradtx.restarts(decay, times=2, factor=2, steps=1)(jnp.arange(6))
    np.testing.assert_allclose(stretched, [8, 8, 8 * 0.5**0.5, 4, 4, 4], rtol=1e-6)


def test_growing_cycles_do_not_wrap() -> None:
    growing = gradtx.restarts(gradtx.linear_schedule(1.0, 0.0, 1000), times=9999, factor=2)
    counts = np.array([0, 999, 1000, 10**6, LAST])
    cycle = np.floor(np.log2(counts / 1000 + 1))
    inside = (counts - 1000 * (2**cycle - 1)) / (1000 * 2**cycle)
    np.testing.assert_allclose(growing(jnp.asarray(counts, int)), 1 - inside, rtol=1e-6, atol=1e-6)


def test_numbers_are_data() -> None:
    def at_15(steps: jax.Array, decay: jax.Array) -> jax.Array:
        return gradtx.restarts(gradtx.linear_schedule(1.0, 0.0, steps), 2, decay=decay)(15)

    got = jax.vmap(at_15)(jnp.array([10, 20]), jnp.array([0.5, 0.5]))
    assert got.tolist() == [0.25, 0.25]


WRONG = {
    "gradtx.restarts(0.1)": "restarts: 0.1 has no length; give the steps of the first cycle, "
    "restarts(..., steps=...)",
    "gradtx.restarts(gradtx.exponential_decay(1.0, 1, 0.5))": "has no length; give the steps",
    "gradtx.restarts(COSINE, 0)": "restarts: times = 0 is below 1, the number of cycles",
    "gradtx.restarts(COSINE, factor=2)": "restarts: with factor = 2 each cycle has another "
    "length, and times is None; give the number of cycles, for example times=10",
    "gradtx.restarts(COSINE, 2, factor=0)": "restarts: factor = 0 is outside its range (0, inf)",
    "gradtx.restarts(COSINE, 2, decay=-1)": "restarts: decay = -1 is outside its range",
    "gradtx.restarts(COSINE, steps=0)": "restarts: steps = 0 is outside its range (0, inf]",
}


@pytest.mark.parametrize("text", WRONG)
def test_mistakes(text: str) -> None:
    with pytest.raises(HyperparamError, match=re.escape(WRONG[text])):
        eval(text)
