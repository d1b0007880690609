"""Places in momentum kernels for tests/mutations to break."""

from tests.mutations.row import ORACLES, Mutation

KERNELS = [
    Mutation(
        "exponentials: the hand-over one step early",
        "transforms/kernel_moments.py",
        "jnp.where(seen <= self.start + 1, before, after)",
        "jnp.where(seen <= self.start, before, after)",
        ORACLES.format("scale_by_momentum"),
    ),
    Mutation(
        "exponentials: bias as if they started at zero",
        "transforms/kernel_moments.py",
        "flag * _power_mass(decay, own, first, step - first)",
        "flag * one_minus_power(own, step)",
        ORACLES.format("scale_by_momentum"),
    ),
    Mutation(
        "taps: the ring is read in the other direction",
        "transforms/kernel_moments.py",
        "jnp.mod(newest - places, self.length)",
        "jnp.mod(places - newest, self.length)",
        ORACLES.format("momentum"),
    ),
    Mutation(
        "k_maxwell: weights of equal size",
        "transforms/momentum_kernels.py",
        "*(slope * k for k in range(1, count))",
        "*(slope * count / 2 for _ in range(1, count))",
        "tests/unit/transforms/test_momentum_kernels.py",
    ),
    Mutation(
        "max_entropy: the alternating sum is free",
        "transforms/max_entropy_taps.py",
        "[second - first, moments.age",
        "[0.0, moments.age",
        "tests/unit/transforms/test_max_entropy_taps.py",
    ),
    Mutation(
        "soap: the buffers stay in the old bases",
        "transforms/eigenbases.py",
        "    return jax.tree.map(lambda mu: rotate(bases, rotate_back(state.bases, mu)), state.mu)",
        "    if isinstance(state.mu, tuple):\n        return state.mu\n"
        "    return rotate(bases, rotate_back(state.bases, state.mu))",
        ORACLES.format("scale_by_soap/momentum"),
    ),
]
