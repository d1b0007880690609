"""guard with a window: spikes of the loss and of the norm, and the traps of rolling statistics."""

import functools
import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradtx
from gradtx.definition.errors import HyperparamError, MissingExtraError, StructureError
from tests.methods import METHODS
from tests.support.bits import bits
from tests.support.trees import follow_reference

ONE = jnp.array(1.0)
NOISE = 1 + 0.1 * np.sin(7.0 * np.arange(400))
"""Numbers without spikes: none is above 1.4 deviations from its mean."""


def make(**told: Any) -> Any:
    told = {"watch": ("grad_norm", "value"), "window": 16, "warmup_steps": 8, **told}
    return gradtx.guard(gradtx.adam(0.1), **told)


def run(tx: Any, norms: Any, values: Any, state: Any = None) -> tuple[Any, Any]:
    """For every step whether it was taken, and the last state."""

    def step(state: Any, row: Any) -> Any:
        before = state.slots["guard"].applied
        _, state = tx.update(row[0], state, ONE, value=row[1])
        return state, state.slots["guard"].applied > before

    rows = jnp.stack([jnp.asarray(one, jnp.float32) for one in (norms, values)], axis=1)
    state, acts = jax.jit(functools.partial(jax.lax.scan, step))(
        tx.init(ONE) if state is None else state, rows
    )
    return acts, state


def with_spike(at: int, number: float, length: int = 60) -> np.ndarray:
    numbers = NOISE[:length].copy()
    numbers[at] = number
    return numbers


@pytest.mark.parametrize("name", ["guard/watch", "guard/window"])
def test_the_references_skip_some_steps_and_take_most(name: str) -> None:
    """Otherwise the comparison with them would prove nothing."""
    memory: dict[str, Any] = {}
    oracle = METHODS[name].oracle
    follow_reference(
        lambda *a, **told: oracle(*a[:2], memory, a[3], **told), extra=METHODS[name].extra
    )
    assert 2 <= sum(memory["skips"]) <= 8


@pytest.mark.parametrize("series", ["norms", "values"])
def test_a_spike_of_either_is_skipped(series: str) -> None:
    spiked, plain = with_spike(30, 3.0), NOISE[:60]
    acts, state = run(make(), *((spiked, plain) if series == "norms" else (plain, spiked)))
    own = state.slots["guard"]
    assert np.flatnonzero(~acts).tolist() == [30] and own.spikes == own.skipped == 1
    alone = make(watch="value" if series == "norms" else "grad_norm")
    acts, _ = run(alone, *((spiked, plain) if series == "norms" else (plain, spiked)))
    assert acts.all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("series", ["norms", "values"])
def test_a_number_that_is_not_finite_makes_one_skip_and_enters_no_window(
    series: str, bad: float
) -> None:
    """Within the window it would make every comparison false, and all steps skips or none."""
    spiked, plain = with_spike(30, bad), NOISE[:60]
    spiked[40] = 5.0
    acts, state = run(make(), *((spiked, plain) if series == "norms" else (plain, spiked)))
    own = state.slots["guard"]
    assert np.flatnonzero(~acts).tolist() == [30, 40]
    assert own.not_finite == own.spikes == 1
    assert np.isfinite(own.norms).all() and np.isfinite(own.values).all()


def test_before_enough_numbers_are_known_nothing_is_a_spike() -> None:
    acts, _ = run(make(), with_spike(7, 50.0), NOISE[:60])
    assert acts.all()
    acts, _ = run(make(), with_spike(8, 50.0), NOISE[:60])
    assert np.flatnonzero(~acts).tolist() == [8]
    acts, _ = run(make(window=4, warmup_steps=100), with_spike(4, 50.0), NOISE[:60])
    assert np.flatnonzero(~acts).tolist() == [4]  # a whole window is enough


def test_a_constant_loss_does_not_lock() -> None:
    """Its deviation is 0, and rounding alone would be a spike; a step of a hundredth is one."""
    constant = 2.0 * np.ones(60)
    constant[40] += 1e-6
    constant[45] += 1e-4
    acts, _ = run(make(), NOISE[:60], constant)
    assert acts.all()
    constant[50] = 2.02
    acts, _ = run(make(), NOISE[:60], constant)
    assert np.flatnonzero(~acts).tolist() == [50]
    acts, _ = run(make(), np.zeros(60), np.zeros(60))
    assert acts.all()


def test_a_fall_is_a_spike_on_two_sides_alone() -> None:
    values = with_spike(30, -1.0)
    assert run(make(), NOISE[:60], values)[0].all()
    acts, _ = run(make(two_sided=True), NOISE[:60], values)
    assert np.flatnonzero(~acts).tolist() == [30]


def test_a_lasting_level_is_accepted_after_some_steps() -> None:
    """Skipped numbers enter the window, as in OLMo-core, levanter and MaxText."""
    norms = np.concatenate([NOISE[:200], 10 * NOISE[200:400]])
    acts, _ = run(make(window=128, warmup_steps=64), norms, NOISE)
    assert np.flatnonzero(~acts).tolist() == [200, 201, 202, 203, 204]


def test_numbers_whose_squares_overflow_do_no_harm() -> None:
    values = with_spike(30, 3e38)
    values[31] = -3e38
    acts, state = run(make(), NOISE[:60], values)
    assert np.flatnonzero(~acts).tolist() == [30]
    assert np.isfinite(state.slots["guard"].values).all()
    acts, _ = run(make(), NOISE[:60], np.full(60, 1e38))
    assert acts.all()
    acts, _ = run(make(), NOISE[:60], 1e30 * with_spike(30, 3.0))
    assert np.flatnonzero(~acts).tolist() == [30]


def test_norms_above_the_limit_enter_no_window() -> None:
    acts, state = run(make(max_norm=2.0), with_spike(20, 1e6), NOISE[:60])
    own = state.slots["guard"]
    assert np.flatnonzero(~acts).tolist() == [20] and own.too_large == 1 and own.spikes == 0
    assert own.norms.max() <= 2.0


def test_a_skip_is_no_step_for_what_is_inside() -> None:
    """Neither for its count nor for its moments; the next step is as if there had been none."""
    acts, state = run(make(), with_spike(30, 3.0), NOISE[:60])
    clean = make()
    _, other = run(clean, np.delete(with_spike(30, 3.0), 30), np.delete(NOISE[:60], 30))
    assert acts.sum() == state.count == other.count == 59
    assert bits(state.slots["scale_by_adam"]) == bits(other.slots["scale_by_adam"])


def test_a_run_that_is_restarted_goes_on_as_it_was() -> None:
    """The window is in the state: after a restart the very next spike is skipped."""
    norms, values = with_spike(31, 3.0), with_spike(45, 4.0)
    acts, whole = run(make(), norms, values)
    first, state = run(make(), norms[:30], values[:30])
    restored = pickle.loads(pickle.dumps(jax.tree.map(np.asarray, state)))
    second, resumed = run(make(), norms[30:], values[30:], restored)
    assert np.concatenate([first, second]).tolist() == acts.tolist()
    assert np.flatnonzero(~acts).tolist() == [31, 45] and bits(resumed) == bits(whole)


def test_limits_are_data() -> None:
    acts = [run(make(zscore=z), with_spike(30, 1.5), NOISE[:60])[0].all() for z in (2.0, 8.0)]
    assert acts == [False, True]
    tx = gradtx.replace(make(zscore=2.0), zscore=jnp.array([2.0, 8.0]))
    batched = jax.vmap(
        lambda tx: run(tx, with_spike(30, 1.5), NOISE[:60])[1].count,
        in_axes=(gradtx.vmap_axes(tx, "zscore"),),
    )(tx)
    assert batched.tolist() == [59, 60]


def test_metrics_show_the_loss() -> None:
    tx = make()
    _, state = run(tx, NOISE[:10], NOISE[:10])
    shown = gradtx.metrics(tx, state)
    assert shown["guarded_value"] == np.float32(NOISE[9]) and shown["skipped_steps"] == 0
    assert "guarded_value" not in gradtx.metrics(
        make(watch=None), run(make(watch=None), NOISE[:2], NOISE[:2])[1]
    )


def test_on_devices_the_norm_is_that_of_whole_arrays_and_the_loss_must_be() -> None:
    P = PartitionSpec
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    tx, g = make(axis_names="data"), jnp.ones(16)
    state = tx.init(g)
    whole = jax.tree.map(lambda leaf: P("data") if leaf.shape == (16,) else P(), state)
    whole = whole._replace(
        slots={**whole.slots, "guard": jax.tree.map(lambda _: P(), state.slots["guard"])}
    )

    def step(grads: Any, state: Any, value: Any) -> Any:
        return tx.update(grads, state, grads, value=value.reshape(-1)[0])[1]

    def mapped(spec: Any) -> Any:
        specs = (P("data"), whole, spec)
        return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=whole))

    own = jax.block_until_ready(mapped(P())(g, state, jnp.array(2.0))).slots["guard"]
    assert own.norm == 4.0 and own.value == 2.0
    with pytest.raises(
        StructureError,
        match=r"over_axes: value= differs over \('data',\): pass its mean over devices, "
        r"jax\.lax\.pmean\(value, 'data'\)",
    ):
        mapped(P("data"))(g, state, jnp.arange(8.0))


MISTAKES = {
    "unknown": (
        {"watch": ("loss",)},
        "guard: watch = ('loss',) has 'loss', which is none of 'grad_norm' and 'value'; 'value' is "
        "the loss, which update receives as value=loss",
    ),
    "nothing": (
        {"watch": ()},
        "guard: watch = () is empty: name one or both of 'grad_norm' and 'value'; 'value' is the "
        "loss, which update receives as value=loss",
    ),
    "short": (
        {"window": 1},
        "guard: window = 1 is too short for a deviation, which needs two numbers: give a whole "
        "number from 2 on, such as 128",
    ),
    "zscore": ({"zscore": 0.0}, "guard: zscore = 0.0 is outside its range (0, inf]"),
    "negative": ({"zscore": -6.0}, "guard: zscore = -6.0 is outside its range (0, inf]"),
    "sides": (
        {"watch": None, "window": None, "two_sided": True},
        "guard: two_sided=True needs a window of earlier numbers: give window=128",
    ),
}


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_mistakes(name: str) -> None:
    told, text = MISTAKES[name]
    with pytest.raises(HyperparamError, match=f"^{re.escape(text)}$"):
        make(**told).init(ONE)


def test_a_loss_that_is_watched_must_be_given() -> None:
    tx = make(watch="value")
    with pytest.raises(
        MissingExtraError,
        match=r"^guard needs value: call update\(grads, state, params, value=\.\.\.\)",
    ):
        tx.update(ONE, tx.init(ONE), ONE)


def test_without_a_window_nothing_changes() -> None:
    """Slots and paths of a guard that watches nothing are those of before."""
    plain = gradtx.guard(gradtx.adam(0.1), zscore=4.0)
    fields = sorted(gradtx.flatten_state(plain.init(ONE).slots))
    assert [path for path in fields if path.startswith("guard/")] == [
        f"guard/{name}"
        for name in (
            "applied",
            "mean",
            "norm",
            "not_finite",
            "skipped",
            "spikes",
            "too_large",
            "variance",
        )
    ]
