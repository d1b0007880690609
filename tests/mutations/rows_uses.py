"""Mutations of uses that scripts written for Optax rely on: losses of batches, tables, counts."""

from tests.mutations.row import Mutation

USES = [
    Mutation(
        "a line search drops the other arguments of the loss",
        "linesearch/line.py",
        "functools.partial(function, **accepted(function, others))",
        "functools.partial(function)",
        "tests/unit/linesearch/test_linesearch.py -k other_arguments",
    ),
    Mutation(
        "the boundaries of a piecewise schedule stay in the order of the dict",
        "schedules/piecewise.py",
        "boundaries = sorted(table)",
        "boundaries = list(table)",
        "tests/unit/schedules/test_as_data.py -k any_order",
    ),
    Mutation(
        "a count above int32 stays an integer",
        "definition/call_checks.py",
        "return float(value) if any(one.low >= 0 for one in intervals) else value",
        "return value",
        "tests/unit/schedules/test_as_data.py -k above_the_integers",
    ),
    Mutation(
        "the sum of clipped integers per example is an integer",
        "transforms/per_example.py",
        "return total.astype(array.dtype) if is_inexact(array) else total",
        "return total.astype(array.dtype)",
        "tests/unit/transforms/test_norms.py -k integer_gradients",
    ),
    Mutation(
        "only nan counts as an entry that is not finite",
        "wrappers/multi_steps.py",
        "jnp.sum(~jnp.isfinite(array), dtype=jnp.int32)",
        "jnp.sum(jnp.isnan(array), dtype=jnp.int32)",
        "tests/unit/wrappers/test_multi_steps.py -k is_accumulate",
    ),
]
