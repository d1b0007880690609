"""The places of microbatching and of aggregating that tests/mutations breaks."""

from tests.mutations.row import Mutation

ACCUMULATORS = "microbatching/accumulators.py"
BESIDE = "tests/unit/microbatching/test_beside_optax.py"
LAWS = "tests/unit/microbatching/test_laws.py -k {}"
AGGREGATING = "tests/unit/experimental/test_aggregating.py -k {}"

MICROBATCHING = [
    Mutation(
        "microbatch: a running mean of one more",
        ACCUMULATORS,
        "share = (1 / (index + 1)",
        "share = (1 / (index + 2)",
        BESIDE,
    ),
    Mutation(
        "microbatch: sums in the dtype of the results",
        ACCUMULATORS,
        "return compute_dtype(dtype) if is_inexact_dtype(dtype) else dtype",
        "return dtype",
        LAWS.format("low_precision"),
    ),
    Mutation(
        "microbatch: results in the order of the microbatches",
        ACCUMULATORS,
        "axis = min(1, len(like.shape))",
        "axis = 0",
        LAWS.format("plain"),
    ),
    Mutation(
        "aggregating: microbatches whose means differ have no share in the variance",
        "experimental/aggregating/noise_statistics.py",
        "(size * (number - 1) / number)",
        "(size * (number - 1) / (number + 1))",
        AGGREGATING.format("moments"),
    ),
    Mutation(
        "aggregating: the optimizer runs with every microbatch",
        "experimental/aggregating/process.py",
        "if ready is None:",
        "if True:",
        AGGREGATING.format("rests"),
    ),
    Mutation(
        "microbatch: one microbatch more than the limit",
        "microbatching/loop.py",
        "index < limit.astype(index.dtype)",
        "index <= limit.astype(index.dtype)",
        LAWS.format("one_program"),
    ),
]
