"""More places for tests/mutations to break: tail averages, the anchor gradient, GPA, ScheduleFree+,
and guards with a window.
"""

from tests.mutations.row import ORACLES, Mutation

READ_OUT = "tests/unit/training/test_eval_params.py -k reference"
WINDOW = "tests/unit/wrappers/test_guard_window.py"
TAILS = "tests/unit/wrappers/test_tail_ema.py"
TAIL, ANCHOR, PLUS = (
    f"wrappers/{name}.py" for name in ("tail_ema", "anchor_gradient", "schedule_free_plus")
)

TAILS_AND_WINDOWS = [
    Mutation(
        "tail_ema: the first change at s itself",
        TAIL,
        "begun = number > start",
        "begun = number >= start",
        READ_OUT,
    ),
    Mutation(
        "clock: the whole number below",
        "engine/clock.py",
        "jnp.round(count)",
        "jnp.floor(count)",
        "tests/unit/wrappers/test_whole_counts.py",
    ),
    Mutation(
        "tail_ema: a change counts for one step",
        TAIL,
        "-jnp.expm1(every * ",
        "-jnp.expm1(",
        TAILS,
    ),
    Mutation(
        "blends: the average in the place of the parameter",
        "wrappers/blending.py",
        "param + share * (average - param)",
        "average + share * (param - average)",
        READ_OUT,
    ),
    Mutation(
        "anchor_gradient: the inner method sees y",
        ANCHOR,
        "inner.update(updates, _weights(params, own))",
        "inner.update(updates, params)",
        ORACLES.format("anchor"),
    ),
    Mutation(
        "anchor_gradient: y stays on the near side",
        ANCHOR,
        "next_gain * (1 - share) * ahead",
        "-next_gain * (1 - share) * ahead",
        ORACLES.format("anchor"),
    ),
    Mutation(
        "anchor_gradient: the gain of the step before",
        ANCHOR,
        "shift_schedule(gain, 1)",
        "shift_schedule(gain, 0)",
        ORACLES.format("anchor"),
    ),
    Mutation(
        "gpa: decay at y",
        "wrappers/gpa.py",
        "shrink * slots.z",
        "shrink * param",
        ORACLES.format("gpa"),
    ),
    Mutation(
        "iterates: y is mixed by the last place",
        "transforms/iterates.py",
        "rest / last_beta - 1",
        "rest / beta - 1",
        ORACLES.format("gpa"),
    ),
    Mutation(
        "schedule_free_plus: the gain at the last place",
        PLUS,
        "beta / old.beta * sum_scalars",
        "sum_scalars",
        ORACLES.format("free_plus"),
    ),
    Mutation(
        "schedule_free_plus: decay in proportion to the rate",
        PLUS,
        "rate**2 * weight_decay",
        "rate * weight_decay",
        ORACLES.format("free_plus"),
    ),
    Mutation(
        "schedule_free_plus: places along a line",
        PLUS,
        "1 - (1 - beta) ** (1 - share) * (1 - beta_end) ** share",
        "(1 - share) * beta + share * beta_end",
        ORACLES.format("free_plus"),
    ),
    Mutation(
        "schedule_free_plus: no warmup of the average",
        PLUS,
        "step <= average_warmup",
        "step <= 0 * average_warmup",
        ORACLES.format("free_plus"),
    ),
    Mutation(
        "guard: inf and nan enter the window",
        "wrappers/guard_window.py",
        "own.value_count, value, jnp.isfinite(value))",
        "own.value_count, value, value == value)",
        WINDOW,
    ),
    Mutation(
        "guard: slots go on behind a spike of the loss",
        "wrappers/guard.py",
        "inner.update(updates, params, gate=accepts)",
        "inner.update(updates, params)",
        WINDOW,
    ),
    Mutation(
        "guard: no least deviation",
        "transforms/rolling.py",
        "FLOOR = 1e-3",
        "FLOOR = 0.0",
        WINDOW,
    ),
    Mutation(
        "guard: statistics of squares that overflow",
        "transforms/rolling.py",
        "unit = jnp.where(unit > 0, unit, 1.0)",
        "unit = jnp.ones_like(unit)",
        WINDOW,
    ),
    Mutation(
        "clip_by_zscore: the window holds clipped norms",
        "transforms/clip_by_zscore.py",
        "record(*tree_slots, size, jnp.isfinite(size))",
        "record(*tree_slots, jnp.minimum(size, limit), jnp.isfinite(size))",
        ORACLES.format("zscore"),
    ),
]
