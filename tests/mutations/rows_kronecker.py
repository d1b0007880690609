"""The places of SOAP, Shampoo and their kin that tests/mutations breaks."""

from tests.mutations.row import ORACLES, Mutation

BASES, METHODS = "transforms/eigenbases.py", "tests/unit/optimizers/test_kronecker_methods.py"

KRONECKER = [
    Mutation(
        "soap: momentum without the rotation of its bases",
        BASES,
        "return jax.tree.map(lambda mu: rotate(bases, rotate_back(state.bases, mu)), state.mu)",
        "return state.mu",
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
        "(step.astype(jnp.int32) + refresh_offset)",
        "(step.astype(jnp.int32) + 0 * refresh_offset)",
        METHODS,
    ),
    Mutation(
        "soap: bases by the first step, not by the first gradient",
        "optimizers/soap.py",
        "no_bases = all_zero(old, refresh_offset.ndim)",
        "no_bases = jnp.broadcast_to(step <= 1, refresh_offset.shape)",
        METHODS,
    ),
    Mutation(
        "kl: each factor by its own inverse",
        "transforms/kl_factors.py",
        "scale_sides(None, by_right, right), scale_sides(left, by_left, None)",
        "scale_sides(left, by_right, None), scale_sides(None, by_left, right)",
        ORACLES.format("kl_"),
    ),
    Mutation(
        "kl: eigenvalues only at a refresh",
        "transforms/kl_factors.py",
        "average(values.left, jnp.sum(row_shares, axis=-1) / m, decay)",
        "values.left",
        ORACLES.format("kl_"),
    ),
    Mutation(
        "kl: no floor",
        "transforms/kl_factors.py",
        "jnp.maximum(values, floor *",
        "jnp.maximum(values, 0 * floor *",
        f"{METHODS} -k direction",
    ),
    Mutation(
        "shampoo: length of the gradient",
        "optimizers/shampoo.py",
        "match_size(direction, grafted)",
        "match_size(direction, grad)",
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
