"""guard: what a bad step leaves as it was, whatever it is around; its statistics; and what XLA
makes of it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.engine.tree_rule import TreeRule
from gradtx.testing.problems import gradients
from tests.methods import FIRST, METHODS
from tests.support.bits import bits
from tests.support.guarding import FALLING, PARAMS, clipped, step
from tests.support.peer import optax

ONE = jnp.array(1.0)


def even(count: Any, **extra: Any) -> Any:
    return count % 2 == 0


def groups() -> Any:
    return gradtx.partition(
        {"fast": gradtx.adam(0.1), "slow": gradtx.accumulate(gradtx.lion(0.1), 2)},
        [("w", "fast"), (".*", "slow")],
    )


ORDERS = {
    "adamw": gradtx.adamw(FALLING),
    "clip, adamw": clipped(),
    "narrow slots": gradtx.adam(0.1, mu_dtype=jnp.bfloat16),
    "lion": gradtx.lion(0.1),
    "adafactor": gradtx.adafactor(0.1, min_dim_size_to_factor=2),
    "prodigy": gradtx.prodigy(),
    "accumulate": gradtx.accumulate(clipped(), 2),
    "average": gradtx.chain(gradtx.adamw(0.1), gradtx.params_ema(0.9, warmup=True)),
    "lookahead": gradtx.lookahead(gradtx.adam(FALLING), 2, 0.5),
    "lookahead, accumulate": gradtx.lookahead(
        gradtx.accumulate(gradtx.adam(0.1), 2), 3, 0.5, reset_state=True
    ),
    "schedule-free": gradtx.schedule_free_adamw(0.1, warmup_steps=3),
    "apply_if_finite": gradtx.apply_if_finite(gradtx.adam(FALLING), 1),
    "tunable": gradtx.tunable(clipped(), "max_norm"),
    "masked": gradtx.masked(gradtx.adam(0.1), "w|v"),
    "groups": groups(),
    "now and then": gradtx.conditionally_mask(gradtx.adam(0.1), even),
    "sam": gradtx.sam(gradtx.adam(0.1), gradtx.sgd(0.1), 2),
    "plateau": gradtx.chain(gradtx.adam(0.1), gradtx.reduce_on_plateau(0.5, patience=1)),
    "mechanize": gradtx.mechanize(gradtx.adam(0.1)),
    "vectors": gradtx.flatten(gradtx.adam(0.1)),
    "lbfgs": gradtx.lbfgs(memory_size=2),
    "optax": gradtx.chain(optax.adam(0.1), gradtx.scale(0.5)),
}
"""What a guard is put around."""


@functools.cache
def advance(name: str) -> Any:
    tx = gradtx.guard(ORDERS[name])
    return tx.init(PARAMS), jax.jit(functools.partial(step, tx))


def own(state: Any) -> tuple[Any, Any]:
    """All of a state but what the guard counts."""
    return state.count, {name: kept for name, kept in state.slots.items() if name != "guard"}


def spoiled(grads: Any, leaf: str, place: int, bad: float) -> Any:
    flat = np.array(grads[leaf]).reshape(-1)
    flat[place % flat.size] = bad
    return {**grads, leaf: jnp.asarray(flat.reshape(grads[leaf].shape))}


@pytest.mark.parametrize("name", ORDERS)
@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(
    at=st.integers(0, 4),
    leaf=st.sampled_from(sorted(PARAMS)),
    place=st.integers(0, 5),
    bad=st.sampled_from([np.nan, np.inf, -np.inf, 1e30]),
)
def test_a_bad_step_never_was(name: str, at: int, leaf: str, place: int, bad: float) -> None:
    """Parameters, slots and count are bit for bit those of before; and at the end, those of a run
    without it.
    """
    state, forward = advance(name)
    params, other, without = PARAMS, state, PARAMS
    for number in range(5):
        grads = gradients(PARAMS, seed=number)
        if number == at:
            after, skipped = forward(params, state, spoiled(grads, leaf, place, bad))
            assert bits((after, own(skipped))) == bits((params, own(state)))
            state = skipped
        params, state = forward(params, state, grads)
        without, other = forward(without, other, grads)
        assert bits((params, own(state))) == bits((without, own(other)))
    kept, never = state.slots["guard"], other.slots["guard"]
    assert (kept.skipped, kept.not_finite, kept.applied, kept.norm) == (
        1,
        1,
        5,
        never.norm,
    ) and never.skipped == 0


TREE_RULES = [
    name
    for name in FIRST
    if name != "guard" and any(isinstance(item.rule, TreeRule) for item in METHODS[name].tx.rules)
]


@pytest.mark.parametrize("name", TREE_RULES)
def test_a_bad_step_of_every_wrapper(name: str) -> None:
    """Those that are made of leaf rules alone are in tests/unit/engine/test_leaving_out.py."""
    tx = gradtx.guard(METHODS[name].tx)
    params, forward = (
        {"w": jnp.array([0.5, -0.0]), "s": jnp.array(1.5)},
        jax.jit(functools.partial(step, tx)),
    )
    grads = gradients(params)
    params, state = forward(params, tx.init(params), grads)
    after, skipped = forward(params, state, spoiled(grads, "w", 1, np.nan))
    assert (
        bits((after, own(skipped))) == bits((params, own(state)))
        and skipped.slots["guard"].skipped == 1
    )


def run(tx: Any, norms: Any) -> tuple[np.ndarray, Any]:
    """The updates of gradients that are scalars, in one scan, and the last state."""
    state, updates = jax.lax.scan(
        lambda state, g: tx.update(g, state)[::-1], tx.init(ONE), jnp.asarray(norms, jnp.float32)
    )
    return np.asarray(updates), state


# Inside of other wrappers


def test_inside_accumulate_a_bad_mean_is_left_out() -> None:
    """One nan spoils its window; the next window is as if that one had not been."""
    tx = gradtx.accumulate(gradtx.guard(gradtx.sgd(FALLING, momentum=0.9)), 2)
    spoilt, state = run(tx, [1.0, 3.0, 1.0, np.nan, 2.0, 2.0, 5.0, 1.0])
    clean, other = run(tx, [1.0, 3.0, 2.0, 2.0, 5.0, 1.0])
    np.testing.assert_array_equal(np.delete(spoilt, [2, 3]), clean)
    assert (
        bits(spoilt[2:4]) == bits(np.full(2, -0.0, np.float32)) and state.count == other.count == 3
    )
    assert bits(state.slots["trace"]) == bits(other.slots["trace"])


def test_around_accumulate_a_bad_micro_batch_is_left_out() -> None:
    tx = gradtx.guard(gradtx.accumulate(gradtx.sgd(1.0), 2), max_norm=10.0)
    updates, state = run(tx, [1.0, np.nan, 3.0, 99.0, 5.0, 7.0])
    assert updates.tolist() == [0.0, 0.0, -2.0, 0.0, 0.0, -6.0] and state.count == 2
    assert state.slots["guard"].applied == 4


def test_as_one_member_it_stills_that_member_alone() -> None:
    tx = gradtx.chain(gradtx.guard(gradtx.trace(0.5)), gradtx.trace(0.5))
    updates, state = run(tx, [1.0, np.nan, 1.0])
    assert (
        updates.tolist() == [1.0, 0.5, 1.75]
        and state.count == 3
        and state.slots["trace"]["guard"].applied == 2
    )


def test_under_a_mask_it_sees_what_is_chosen() -> None:
    tx = gradtx.masked(gradtx.guard(gradtx.scale(2.0)), "a")
    for grads, expected in (
        ({"a": ONE, "b": ONE * jnp.nan}, 2.0),
        ({"a": ONE * jnp.nan, "b": ONE}, 0.0),
    ):
        assert tx.update(grads, tx.init(grads), grads)[0]["a"] == expected


def test_slots_and_parameters_keep_numbers_too_small_to_add() -> None:
    """Slots are chosen, so a number below 1e-38 stays, too."""
    tx = gradtx.guard(gradtx.trace(0.5))
    state = tx.init(jnp.ones(2))
    tiny = jnp.array([1e-40, -0.0])
    state = state._replace(
        slots={**state.slots, "trace": state.slots["trace"]._replace(trace=tiny)}
    )
    for update in (tx.update, jax.jit(tx.update)):
        updates, new = update(jnp.array([jnp.inf, 1.0]), state)
        assert bits(new.slots["trace"]) == bits(tiny) and bits(updates) == bits(
            jnp.array([-0.0, -0.0])
        )


# Verdicts and statistics


def test_every_reason_has_its_counter() -> None:
    tx = gradtx.guard(gradtx.scale(1.0), max_norm=50.0, zscore=4.0, warmup_steps=3)
    updates, state = run(tx, [1.0, 1.1, 0.9, np.nan, 99.0, np.inf, -20.0, 1.0])
    assert (updates != 0).tolist() == [True, True, True, False, False, False, False, True]
    kept = state.slots["guard"]
    assert (
        kept.applied,
        kept.skipped,
        kept.not_finite,
        kept.too_large,
        kept.spikes,
        kept.norm,
    ) == (4, 4, 2, 1, 1, 1.0)
    assert state.count == 4
    bare = gradtx.guard(gradtx.sgd(0.1)).init(ONE).slots["guard"]
    assert bare.mean is None and bare.variance is None


def test_the_norm_is_that_of_all_arrays() -> None:
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array(4.0), "z": jnp.array([12.0j])}
    for limit, passes in ((12.9, False), (13.0, True)):
        tx = gradtx.guard(gradtx.scale(1.0), max_norm=limit)
        updates, state = tx.update(grads, tx.init(grads))
        assert (updates["b"] == 4.0) == passes and state.slots["guard"].norm == 13.0


def test_a_limit_may_be_a_schedule() -> None:
    """It is read at the steps that were not left out: a bad one does not move it."""
    tx = gradtx.guard(gradtx.scale(1.0), max_norm=lambda count: 10.0 - 4.0 * count)
    updates, _ = run(tx, [9.0, 9.0, 7.0, 5.0, 3.0, 1.0])
    assert updates.tolist() == [9.0, 0.0, 0.0, 5.0, 0.0, 1.0]


def test_limits_may_be_a_batch() -> None:
    def at(limit: Any, z: Any) -> Any:
        return run_pure(gradtx.guard(gradtx.scale(1.0), max_norm=limit, zscore=z, warmup_steps=2))

    found = jax.vmap(at)(jnp.array([2.0, 9.0, 9.0]), jnp.array([5.0, 5.0, 900.0]))
    assert found.tolist() == [[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 6.0, 1.0]]


def run_pure(tx: Any) -> Any:
    return jax.lax.scan(
        lambda state, g: tx.update(g, state)[::-1], tx.init(ONE), jnp.array([1.0, 1.0, 6.0, 1.0])
    )[1]


def test_no_step_is_a_spike_before_norms_are_known() -> None:
    """What is not finite, or above the limit, is not known."""
    tx = gradtx.guard(gradtx.scale(1.0), max_norm=900.0, zscore=4.0, warmup_steps=3)
    updates, _ = run(tx, [1.0, np.nan, 999.0, 100.0, 1.0, 1.0, 800.0])
    assert updates.tolist() == [1.0, 0.0, 0.0, 100.0, 1.0, 1.0, 0.0]


def test_what_is_left_out_for_good_never_enters_the_statistics() -> None:
    tx = gradtx.guard(gradtx.scale(1.0), max_norm=50.0, zscore=4.0, decay=0.9, warmup_steps=3)
    norms = [1.0, 1.2, 0.9, 1.1, 1.0]
    _, clean = run(tx, norms)
    _, spoilt = run(tx, [1.0, np.inf, 1.2, 0.9, np.nan, 51.0, 1.1, 1.0])
    ours, theirs = spoilt.slots["guard"], clean.slots["guard"]
    assert (ours.mean, ours.variance) == (theirs.mean, theirs.variance)
    assert float(theirs.mean) == pytest.approx(np.mean(norms), rel=1e-6)
    assert float(theirs.variance) == pytest.approx(np.var(norms), rel=1e-5)


def test_a_spike_enters_as_the_largest_norm_that_is_none() -> None:
    tx = gradtx.guard(gradtx.scale(1.0), zscore=5.0, decay=0.75, warmup_steps=4)
    huge, other = (run(tx, [2.0] * 8 + [norm])[1].slots["guard"] for norm in (1e6, 2.2))
    assert huge.spikes == other.spikes == 1 and (huge.mean, huge.variance) == (
        other.mean,
        other.variance,
    )
    assert float(huge.mean) == pytest.approx(2.0 + 0.25 * 0.1, rel=1e-6)


def test_equal_norms_have_room_of_a_hundredth_each() -> None:
    """Where norms do not vary, a standard deviation is a hundredth of their mean."""
    tx = gradtx.guard(gradtx.scale(1.0), zscore=5.0)
    for norm, passes in ((2.09, True), (2.11, False)):
        assert (run(tx, [2.0] * 30 + [norm])[0][-1] != 0) == passes


@pytest.mark.parametrize(
    ("z", "steady", "varying"), [(3.0, 57, 31), (4.0, 32, 17), (5.0, 21, 11), (6.0, 16, 8)]
)
def test_a_level_that_has_risen_for_good_is_accepted(z: float, steady: int, varying: int) -> None:
    """Ten times the norm, from a step on: so many steps are left out, and then none."""
    tx = gradtx.guard(gradtx.scale(1.0), zscore=z)
    noise = 1 + 0.1 * np.random.default_rng(0).normal(size=1000)
    for before, bound in ((np.ones(1000), steady), (noise, varying)):
        updates, state = run(tx, np.concatenate([before, np.full(100, 10.0)]))
        left_out = np.flatnonzero(updates[1000:] == 0)
        assert len(left_out) == bound and left_out[-1] == bound - 1
        assert state.slots["guard"].spikes - np.sum(updates[:1000] == 0) == bound


def test_the_clock_goes_on_where_it_was() -> None:
    tx = gradtx.guard(
        gradtx.chain(gradtx.ema(0.5, debias=True), gradtx.scale(lambda count: 1.0 + count))
    )
    updates, state = run(tx, [1.0, np.nan, np.nan, 1.0, 1.0])
    assert updates.tolist() == [1.0, 0.0, 0.0, 2.0, 3.0] and state.count == 3
    falling = gradtx.guard(gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10)))
    assert gradtx.hyperparams(falling, at=run(falling, [1.0, np.inf, 1.0])[1])[
        "learning_rate"
    ] == pytest.approx(0.8)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"finite": False},
            r"^guard: finite=False without max_norm and zscore tests nothing: set one of them$",
        ),
        ({"max_norm": -1.0}, r"guard: max_norm = -1\.0 is outside its range \[0, inf\]"),
        ({"zscore": 0.0}, r"guard: zscore = 0\.0 is outside its range \(0, inf\]"),
        ({"zscore": 4.0, "decay": 1.0}, r"guard: decay = 1\.0 is outside its range \[0, 1\)"),
        (
            {"zscore": 4.0, "warmup_steps": 0},
            r"guard: warmup_steps = 0 is outside its range \[1, inf\]",
        ),
    ],
)
def test_numbers_out_of_range(arguments: Any, text: str) -> None:
    with pytest.raises(HyperparamError, match=text):
        gradtx.guard(gradtx.sgd(0.1), **arguments)


def test_twice_around_is_refused_by_name() -> None:
    with pytest.raises(
        GradtxError, match=r"^guard directly around another guard: .* put the inner one in a chain$"
    ):
        gradtx.guard(gradtx.guard(gradtx.sgd(0.1)), max_norm=1.0).init(ONE)
    apart = gradtx.guard(
        gradtx.chain(gradtx.guard(gradtx.sgd(0.1)), gradtx.scale(1.0)), max_norm=1.0
    )
    assert run(apart, [0.5, np.nan])[1].slots["guard"].skipped == 1


def test_what_is_not_finite_may_pass() -> None:
    updates, state = run(
        gradtx.guard(gradtx.scale(1.0), finite=False, max_norm=5.0), [np.nan, np.inf, 1.0]
    )
    assert (
        np.isnan(updates[0])
        and updates[1:].tolist() == [0.0, 1.0]
        and state.slots["guard"].too_large == 1
    )


def test_norms_that_were_all_zero_make_no_spike() -> None:
    tx = gradtx.guard(gradtx.sgd(1.0), zscore=5.0, warmup_steps=3)
    state = tx.init(jnp.asarray(0.0))
    for norm in (0.0,) * 5 + (1.0, 1.0, 1.0):
        _, state = tx.update(jnp.asarray(norm), state)
    assert int(state.slots["guard"].spikes) == 0 and float(state.slots["guard"].mean) > 0


def test_a_limit_in_the_place_of_finite_is_told() -> None:
    with pytest.raises(
        HyperparamError,
        match=r"guard: finite = 1.0 must be True or False, whether to test for inf and nan; "
        r"a limit is max_norm=1.0",
    ):
        gradtx.guard(gradtx.sgd(1.0), 1.0)  # pyright: ignore[reportArgumentType]
