"""Schedules as what a definition holds: arguments, batches, gradients, learning rates, and what
mistakes are told.
"""

import functools
import json
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import Schedule
from tests.support.public import public_names
from tests.support.schedule_cases import (
    BEHIND_OPERATORS,
    CASES,
    COUNTS,
    EACH,
    Case,
    cases,
    cosine,
    cycle,
    each,
    exponential,
    line,
    ours,
    poly,
    stable,
)


@cases
def test_data(item: Case) -> None:
    """It reads like its call, and comes back from repr, JSON, pickle and a flattening as the same
    schedule.
    """
    schedule = ours(item)
    assert item.name in BEHIND_OPERATORS or repr(schedule).startswith(f"{item.name}(")
    for copy in (
        eval(repr(schedule), public_names()),
        gradtx.from_config(json.loads(json.dumps(gradtx.to_config(schedule)))),
        pickle.loads(pickle.dumps(schedule)),
        jax.tree.map(lambda leaf: leaf, schedule),
        ours(item),
    ):
        assert (
            copy == schedule
            and hash(copy) == hash(schedule)
            and (repr(copy) == repr(schedule) or item.name == "sgdr_schedule")
        )  # JAX sorts its dicts
        assert float(copy(7)) == float(schedule(7))
    other = jax.tree.map(lambda leaf: leaf + 1, schedule)
    assert other != schedule


@each
def test_jit_takes_the_schedule_as_an_argument(item: Case) -> None:
    """And compiles once for other values of the parameters; closed over, they are constants."""
    schedule, traces, counts = ours(item), [], jnp.asarray(COUNTS)

    @jax.jit
    def evaluate(schedule: Schedule, count: Any) -> Any:
        traces.append(1)
        return schedule(count)

    np.testing.assert_allclose(evaluate(schedule, counts), schedule(counts), rtol=1e-6)
    evaluate(jax.tree.map(lambda leaf: leaf * 2, schedule), counts)
    assert len(traces) == 1
    np.testing.assert_allclose(jax.jit(lambda: schedule(counts))(), schedule(counts), rtol=1e-6)


@each
def test_vmap_over_every_parameter(item: Case) -> None:
    """Three schedules in one program, from a batch of every leaf."""
    members = [
        jax.tree.map(lambda leaf, scale=scale: leaf * scale, ours(item)) for scale in (1, 2, 3)
    ]
    batch = jax.tree.map(
        lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *members
    )
    got = jax.vmap(lambda schedule: schedule(jnp.arange(40)))(batch)
    for row, member in zip(got, members, strict=True):
        np.testing.assert_allclose(row, member(jnp.arange(40)), rtol=1e-6)


def is_value(path: Any) -> bool:
    return any(
        str(getattr(key, "name", getattr(key, "key", ""))).endswith("value") for key in path[-1:]
    )


@jax.jit
@jax.grad
def slopes(schedule: Schedule, counts: jax.Array) -> jax.Array:
    return schedule(counts).sum()


STEEP = [
    poly(power=0.5),
    cosine(exponent=0.5),
    stable(shape="1-sqrt"),
    exponential(decay_rate=3.0),
    *(item for item in CASES if item.name in ("phases", "restarts")),
]
COMPOSED = {
    "sgdr_schedule",
    "warmup_exponential_decay_schedule",
}  # joins of others: their parts are tested, and so is join


@pytest.mark.parametrize(
    "item", [*(item for item in EACH if item.name not in COMPOSED), *STEEP], ids=str
)
def test_gradient(item: Case) -> None:
    """Finite for every real parameter over all counts; for the values it is that of finite
    differences.
    """
    with jax.enable_x64(True):
        schedule, counts = jax.tree.map(float, ours(item)), jnp.asarray(COUNTS)
        found = slopes(schedule, counts)
        assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(found))

        def moved(by: float) -> float:
            return float(
                jax.tree_util.tree_map_with_path(
                    lambda path, leaf: leaf + by * is_value(path), schedule
                )(counts).sum()
            )

        chosen = jax.tree_util.tree_map_with_path(
            lambda path, leaf: float(leaf) * is_value(path), found
        )
        assert sum(jax.tree.leaves(chosen)) == pytest.approx(
            (moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-6, abs=1e-7
        )


@jax.jit
def train(tx: gradtx.GradientTransformation, start: jax.Array) -> Any:
    """Twelve updates on a constant gradient of −1."""

    def step(carry: Any, _: Any) -> Any:
        updates, state = tx.update(-jnp.ones(()), carry[1], carry[0])
        return (gradtx.apply_updates(carry[0], updates), state), updates

    return jax.lax.scan(step, (start, tx.init(start)), length=12)


@each
def test_as_a_learning_rate(item: Case) -> None:
    """In jit and scan, sgd follows the schedule; its value is read at a count and at a state; JSON
    brings it back.
    """
    schedule, start = ours(item), jnp.zeros(())
    tx = gradtx.sgd(schedule)
    (end, state), updates = train(tx, start)
    np.testing.assert_allclose(updates, schedule(jnp.arange(12)), rtol=1e-6)
    assert end.dtype == start.dtype and int(state.count) == 12
    assert float(gradtx.hyperparams(tx, at=7)["learning_rate"]) == float(schedule(7))
    assert float(gradtx.hyperparams(tx, at=state)["learning_rate"]) == float(schedule(12))
    assert (
        gradtx.from_config(json.loads(json.dumps(gradtx.to_config(tx))))
        == tx
        == eval(repr(tx), public_names())
    )


def test_adamw_takes_its_first_steps_by_the_schedule() -> None:
    tx = gradtx.adamw(gradtx.warmup_cosine_decay_schedule(0.25, 1.0, 3, 12), weight_decay=0.0)
    _, updates = train(tx, jnp.zeros(()))
    np.testing.assert_allclose(updates[:4], [0.25, 0.5, 0.75, 1.0], rtol=1e-5)


def test_x64_keeps_the_dtype_of_the_parameters() -> None:
    with jax.enable_x64(True):
        tx, w = gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 10)), jnp.ones(3, jnp.float32)
        updates, _ = tx.update(w, tx.init(w), w)
        assert updates.dtype == jnp.float32


def test_strict_promotion() -> None:
    with jax.numpy_dtype_promotion("strict"):
        for item in [
            *EACH,
            line(transition_steps=12.5),
            exponential(transition_steps=2.5, staircase=True),
            *(item for item in CASES if item.name in ("phases", "restarts")),
        ]:
            assert np.isfinite(ours(item)(jnp.asarray(COUNTS))).all()


def test_replace_reaches_into_schedules() -> None:
    tx = gradtx.adamw(gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 5, 20))
    assert (
        float(
            gradtx.hyperparams(gradtx.replace(tx, **{"learning_rate.peak_value": 0.5}), at=5)[
                "learning_rate"
            ]
        )
        == 0.5
    )
    with pytest.raises(HyperparamError, match="leave nothing"):
        gradtx.replace(tx, warmup_steps=20)
    table = gradtx.sgd(gradtx.piecewise_constant_schedule(1.0, {3: 0.5}))
    assert gradtx.replace(table, **{"boundaries_and_scales[3]": 0.25}) == gradtx.sgd(
        gradtx.piecewise_constant_schedule(1.0, {3: 0.25})
    )


def test_plain_functions_are_schedules() -> None:
    joined = gradtx.join_schedules([lambda count: 0.5 * count, lambda count: 7.0], [4])
    assert joined(jnp.arange(6)).tolist() == [0.0, 0.5, 1.0, 1.5, 7.0, 7.0]
    warm = gradtx.with_warmup(lambda count: 4.0 - count, 2)
    assert warm(jnp.arange(5)).tolist() == [0.0, 2.0, 4.0, 3.0, 2.0]
    assert gradtx.shift_schedule(lambda count: count, 2)(jnp.arange(3)).tolist() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize("jitted", [False, True])
def test_boundaries_in_any_order(jitted: bool) -> None:
    """A dict with other keys first is the same table."""
    for maker in (gradtx.piecewise_constant_schedule, IN_LINES):
        ordered, other = (maker(8.0, table) for table in ({3: 0.5, 5: 2.0}, {5: 2.0, 3: 0.5}))
        each = [jax.jit(one) if jitted else one for one in (ordered, other)]
        assert each[0](jnp.arange(7)).tolist() == each[1](jnp.arange(7)).tolist()
    assert IN_LINES(8.0, {4: 2.0, 2: 0.5})(jnp.arange(6)).tolist() == [8, 6, 4, 6, 8, 8]


def test_a_number_of_steps_above_the_integers_of_jax() -> None:
    """10 thousand million updates, which no int32 holds; the numbers are those of a float."""
    decay = gradtx.cosine_decay_schedule(1000.0, decay_steps=10**10)
    assert abs(float(decay(10**9)) - 975.52826) < 1e-4
    assert float(jax.jit(decay)(10**9)) == float(gradtx.cosine_decay_schedule(1000.0, 1e10)(10**9))
    assert jax.jit(lambda schedule: schedule(0))(decay) == 1000.0


IN_LINES = functools.partial(gradtx.piecewise_interpolate_schedule, "linear")
MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: gradtx.join_schedules([1.0, 2.0, 3.0], [5, 3]),
        r"join_schedules: the boundaries are \[5, 3\], which do not increase; write",
    ),
    (lambda: gradtx.join_schedules([1.0, 2.0, 3.0], [5, 5]), r"\[5, 5\], which do not increase"),
    (
        lambda: gradtx.join_schedules([1.0, 2.0], [-1]),
        r"boundaries = -1 is outside its range \[0, inf\)",
    ),
    (
        lambda: gradtx.join_schedules([1.0, 2.0, 3.0], [5]),
        "3 schedules need 2 boundaries between them, and there are 1; give one schedule",
    ),
    (lambda: gradtx.join_schedules([], []), "0 schedules need"),
    (
        lambda: gradtx.piecewise_constant_schedule(1.0, {-3: 0.5}),
        r"are \[-3\], but counts start at 0; give boundaries >= 0",
    ),
    (
        lambda: gradtx.piecewise_constant_schedule(1.0, {3: -0.5}),
        r"boundaries_and_scales = -0.5 is outside its range \[0, inf\)",
    ),
    (
        lambda: gradtx.piecewise_interpolate_schedule("linear", 1.0, {5: 0.5, -3: 0.1}),
        r"piecewise_interpolate_schedule: the boundaries are \[5, -3\], but counts start at 0",
    ),
    (
        lambda: gradtx.piecewise_interpolate_schedule("cubic", 1.0),
        "interpolate_type is 'cubic', which is unknown; choose one of 'linear', 'cosine', '1-sqrt'"
        ", 'sqrt', 'exponential'",
    ),
    (
        lambda: gradtx.warmup_stable_decay_schedule(0.0, 1.0, 1, 1, 1, shape="exp"),
        "warmup_stable_decay_schedule: shape is 'exp', which is unknown; choose one of "
        "'linear', 'cosine', '1-sqrt'",
    ),
    (
        lambda: gradtx.cosine_decay_schedule(1.0, 0),
        r"cosine_decay_schedule: decay_steps = 0 is outside its range \(0, inf\]",
    ),
    (
        lambda: gradtx.power_law_schedule(1.0, 0, -1.0),
        r"power_law_schedule: transition_steps = 0 is outside its range \(0, inf\]",
    ),
    (
        lambda: gradtx.polynomial_schedule(1.0, 0.0, -1, 5),
        r"polynomial_schedule: power = -1 is outside its range \[0, inf\)",
    ),
    (
        lambda: gradtx.exponential_decay(1.0, 5, -0.5),
        r"exponential_decay: decay_rate = -0.5 is outside its range \[0, inf\)",
    ),
    (
        lambda: gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 10),
        "warmup_steps = 10 leave nothing of decay_steps = 10, which counts the warmup "
        "too; give decay_steps > warmup_steps",
    ),
    (
        lambda: gradtx.sgdr_schedule([{**cycle, "decay_steps": 2}]),
        "warmup_steps = 3 leave nothing of decay_steps = 2",
    ),
    (
        lambda: gradtx.sgdr_schedule([]),
        "cosine_kwargs is empty; give the arguments of one warmup_cosine_decay_schedule per cycle",
    ),
    (
        lambda: gradtx.inverse_sqrt_schedule(0.0, 1.0, 0),
        "warmup_steps = 0 without a timescale would divide by zero at count 0; give timescale",
    ),
    (
        lambda: gradtx.with_warmup(1.0, -1),
        r"with_warmup: warmup_steps = -1 is outside its range \[0, inf\)",
    ),
    (
        lambda: gradtx.cosine_onecycle_schedule(0, 1.0),
        r"cosine_onecycle_schedule: transition_steps = 0 is outside its range \(0, inf\]",
    ),
    (
        lambda: gradtx.cosine_onecycle_schedule(7, 1.0, 1.0),
        "with pct_start = 1.0 all 7 steps go up and none is left to come down; give",
    ),
    (
        lambda: gradtx.cosine_onecycle_schedule(7, 1.0, 1.5),
        r"pct_start = 1.5 is outside its range \[0, 1\]",
    ),
    (
        lambda: gradtx.linear_onecycle_schedule(7, 1.0, 0.8, 0.3),
        "pct_start = 0.8 is not below pct_final = 0.3; put the peak before the",
    ),
    (
        lambda: gradtx.linear_schedule(lambda count: 1.0, 0.0, 5)(0),
        "is a parameter of another schedule, which must be a number; combine",
    ),
]


@pytest.mark.parametrize(
    ("mistake", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES]
)
def test_mistakes_say_what_to_do(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(HyperparamError, match=message):
        mistake()
