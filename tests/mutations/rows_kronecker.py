"""The places of SOAP, Shampoo and their kin that tests/mutations breaks."""

from tests.mutations.row import ORACLES, Mutation

BASES, METHODS = "transforms/eigenbases.py", "tests/unit/optimizers/test_kronecker_methods.py"

KRONECKER = [
    Mutation(
        "soap: momentum left behind by its bases",
        BASES,
        "return Held(bases, rotated(bases, restored(old.bases, old.mu)), nu, values)",
        "return Held(bases, old.mu, nu, values)",
        ORACLES.format("soap"),
    ),
    Mutation(
        "soap: squares not in the order of the columns",
        BASES,
        "nu = nu[rows, :]",
        "pass",
        ORACLES.format("soap"),
    ),
    Mutation(
        "soap: bias correction counts the first gradient",
        "optimizers/soap.py",
        "jnp.maximum(step - 1, 1)",
        "step",
        ORACLES.format("soap"),
    ),
    Mutation(
        "soap: all at once",
        BASES,
        "(step.astype(jnp.int32) + phase)",
        "(step.astype(jnp.int32) + 0 * phase)",
        METHODS,
    ),
    Mutation(
        "soap: bases by the first step, not by the first gradient",
        "optimizers/soap.py",
        "waits = unused(old, phase.ndim)",
        "waits = jnp.broadcast_to(step <= 1, phase.shape)",
        METHODS,
    ),
    Mutation(
        "kl: each factor by its own inverse",
        "optimizers/kl_shampoo.py",
        "rows, columns = _scaled(None, by_right, right), _scaled(left, by_left, None)",
        "rows, columns = _scaled(left, by_right, None), _scaled(None, by_left, right)",
        ORACLES.format("kl_"),
    ),
    Mutation(
        "kl: eigenvalues only at a refresh",
        "optimizers/kl_shampoo.py",
        "average(seen.left, jnp.sum(shares[0], axis=-1) / m, decay)",
        "seen.left",
        ORACLES.format("kl_"),
    ),
    Mutation(
        "kl: no floor",
        "optimizers/kl_shampoo.py",
        "jnp.maximum(found, floor *",
        "jnp.maximum(found, 0 * floor *",
        f"{METHODS} -k direction",
    ),
    Mutation(
        "shampoo: length of the gradient",
        "optimizers/shampoo.py",
        "of_size(direction, grafted)",
        "of_size(direction, grad)",
        ORACLES.format("shampoo"),
    ),
    Mutation(
        "shampoo: factors not corrected for their start",
        "optimizers/shampoo.py",
        "factor = unbias.astype(factor.real.dtype) * factor",
        "factor = 1.0 * factor",
        ORACLES.format("shampoo"),
    ),
    Mutation(
        "shampoo: a fourth root for one side",
        "optimizers/shampoo.py",
        "0.5 if None in old",
        "0.25 if None in old",
        ORACLES.format("shampoo"),
    ),
]
