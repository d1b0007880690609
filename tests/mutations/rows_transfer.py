"""Places of `transfer` for tests/mutations to break: factors of muP, and a coordinate check."""

from tests.mutations.row import ORACLES, Mutation

TABLE = "tests/unit/wrappers/test_transfer.py -k table_of_mup"

TRANSFER = [
    Mutation(
        "transfer: the rate of a hidden matrix by its outputs",
        "transforms/width_factors.py",
        "WidthFactors(rate / inputs, decay, eps / outputs, eps, init)",
        "WidthFactors(rate / outputs, decay, eps / outputs, eps, init)",
        TABLE,
    ),
    Mutation(
        "transfer: ε of a block without depth",
        "transforms/width_factors.py",
        "rate, eps = depth ** (alpha - 1), depth**-alpha",
        "rate, eps = depth ** (alpha - 1), 1.0",
        TABLE,
    ),
    Mutation(
        "transfer: SGD with the rates of Adam",
        "transforms/width_factors.py",
        "rate=adam.rate / adam.eps",
        "rate=adam.rate",
        "tests/unit/wrappers/test_transfer.py -k repeated_units",
    ),
    Mutation(
        "transfer: the first update alone says how updates grow",
        "wrappers/transfer_checks.py",
        "inner.update(grads, state, params)",
        "inner.update(grads, inner.init(params), params)",
        "tests/unit/wrappers/test_transfer_mistakes.py -k warmup",
    ),
    Mutation(
        "transfer: the scale of Muon counts twice",
        "transforms/width_factors.py",
        "(growth.outputs / growth.inputs) ** 0.5 / _own_growth(growth, scaling)",
        "(growth.outputs / growth.inputs) ** 0.5",
        ORACLES.format("transfer"),
    ),
    Mutation(
        "coordinate_check: the change of a matrix by its outputs alone",
        "inspect/coordinate_check.py",
        "(inputs / outputs) ** 0.5",
        "outputs**-0.5",
        "tests/unit/inspect/test_coordinate_check.py -k spectral_norm",
    ),
]
