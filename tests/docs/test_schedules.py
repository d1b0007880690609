"""docs/schedules.md: our expression for each scheduler of other libraries, against its numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.definition import registry
from gradtx.definition.schedule import Schedule
from tests.support.places import ROOT, TRACES
from tests.support.public import public_names

PAGE = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
PAIR = re.compile(r"^((?:#.*\n)+)((?:[^#\n`].*\n)+)", re.MULTILINE)
ROWS = {
    " ".join(call.replace("#", "").split()): ours
    for call, ours in PAIR.findall(PAGE.split("## Their name")[1])
    if not call.startswith("##")
}
"""Our expression by their call, the comment above it."""
RECORDED = np.load(TRACES / "schedules.npz")
RATES = dict(zip(RECORDED["names"].tolist(), RECORDED["rates"], strict=True))
LOSSES = [max(1.0 - 0.05 * step, 0.5) for step in range(100)]
"""What tests/traces/record_schedules.py gives to the schedulers that read a metric."""


def test_every_recorded_scheduler_has_a_row() -> None:
    assert list(ROWS) == list(RATES)


@pytest.mark.parametrize("call", ROWS)
def test_row_gives_the_recorded_rates(call: str) -> None:
    with jax.enable_x64(True):
        ours = eval(ROWS[call], {**public_names(), "jnp": jnp})
        if isinstance(ours, gradtx.GradientTransformation):
            # The loss of a step moves that step's rate here, and the next one's there.
            got, right = followed(ours)[:-1], RATES[call][1:]
        else:
            got, right = jax.vmap(ours)(jnp.arange(100)), RATES[call]
        # Keras computes in float32, where 1e-7 is a millionth of the first rate.
        np.testing.assert_allclose(got, right, rtol=1e-6, atol=1e-7)


def followed(tx: gradtx.GradientTransformation) -> np.ndarray:
    """The learning rate of each step, while the loss falls and then stays."""
    state, update, w = tx.init(jnp.ones(())), jax.jit(tx.update), jnp.ones(())
    rates = []
    for loss in LOSSES:
        updates, state = update(w, state, w, value=jnp.asarray(loss))
        rates.append(-float(updates))
    return np.array(rates)


def test_every_schedule_is_on_the_page() -> None:
    public = {
        name
        for name, factory in registry.items()
        if factory.result is Schedule and factory.module.startswith("gradtx.schedules.")
    }
    called = {*re.findall(r"gradtx\.(\w+)\(", PAGE)}
    assert len(public) > 20 and public <= called
