"""Places of the losses for tests/mutations to break."""

from tests.mutations.row import Mutation

ROWS_OF = "tests/oracles/test_functions.py -k {}"
EDGES = "tests/unit/losses/test_edges.py -k {}"

LOSSES = [
    Mutation(
        "huber: the line without its offset",
        "losses/regression.py",
        "limit * (size - quadratic)",
        "limit * size",
        ROWS_OF.format("huber_loss"),
    ),
    Mutation(
        "focal: weight of the right class",
        "losses/sigmoid.py",
        "targets * jax.nn.sigmoid(-wide) + (1 - targets) * jax.nn.sigmoid(wide)",
        "targets * jax.nn.sigmoid(wide) + (1 - targets) * jax.nn.sigmoid(-wide)",
        ROWS_OF.format("sigmoid_focal_loss"),
    ),
    Mutation(
        "kl: a target of 0 takes a logarithm",
        "losses/divergences.py",
        "targets * jnp.where(is_zero, 0, gap)",
        "targets * gap",
        EDGES.format("kl_divergence"),
    ),
    Mutation(
        "ntxent: masked exponentials overflow",
        "losses/self_supervised.py",
        "jnp.exp(jnp.where(mask, similarities - top, -jnp.inf))",
        "jnp.where(mask, jnp.exp(similarities - top), 0)",
        EDGES.format("ntxent"),
    ),
]
