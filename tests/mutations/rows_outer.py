"""Places of outer optimizers for tests/mutations to break."""

from tests.mutations.row import ORACLES, Mutation

REPLICAS = "tests/unit/wrappers/test_outer.py -k {}"

OUTER = [
    Mutation(
        "outer: synchronised one step late",
        "wrappers/outer_round.py",
        "due = one.step % one.every == one.offset",
        "due = (one.step - 1) % one.every == one.offset",
        ORACLES.format("outer"),
    ),
    Mutation(
        "outer: the result arrives before it was sent",
        "wrappers/outer_round.py",
        "(sent % one.every == one.offset) & (sent > 0)",
        "sent % one.every == one.offset",
        REPLICAS.format("four_replicas"),
    ),
    Mutation(
        "outer: merged by the other share",
        "wrappers/outer_round.py",
        "merge * update + (1 - merge)",
        "(1 - merge) * update + merge",
        ORACLES.format("outer"),
    ),
    Mutation(
        "outer: a sum over replicas in place of the mean",
        "wrappers/outer_exchange.py",
        "functools.partial(jnp.mean, axis=0), deltas",
        "functools.partial(jnp.sum, axis=0), deltas",
        REPLICAS.format("four_replicas"),
    ),
    Mutation(
        "outer: errors of codes are forgotten",
        "wrappers/outer_exchange.py",
        "return delta - sent.astype(delta.dtype)",
        "return jnp.zeros_like(delta)",
        ORACLES.format("outer"),
    ),
    Mutation(
        "outer: float32 crosses in place of codes",
        "wrappers/outer_exchange.py",
        "codes = delta.shape, _gather(encoded, exchange.axis_names)",
        "codes = delta.shape, jax.tree.map(lambda c: lax.all_gather(c.astype(jnp.float32), "
        "exchange.axis_names).astype(c.dtype), encoded)",
        "tests/unit/wrappers/test_outer_devices.py -k codes_cross",
    ),
]
