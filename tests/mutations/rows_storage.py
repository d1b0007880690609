"""The places of codecs, of stochastic rounding, and of what carries them, that tests/mutations
breaks.
"""

from tests.mutations.row import Mutation

CODECS, STORED, MASTER = (
    "tests/unit/storage/test_codecs.py",
    "tests/unit/storage/test_stored.py",
    "tests/unit/storage/test_master_weights.py",
)
BLOCKS, ROUNDING = "storage/blockwise.py", "tree/rounding.py"

STORAGE = [
    Mutation(
        "storage: scales rounded down",
        BLOCKS,
        "+ np.uint32(0xFFFF)) & HIGH_HALF",
        ") & HIGH_HALF",
        f"{CODECS} -k reference",
    ),
    Mutation(
        "storage: small squares become 0",
        BLOCKS,
        "jnp.where(root > 0, jnp.maximum(codes, 1), codes)",
        "codes",
        f"{CODECS} -k lost",
    ),
    Mutation(
        "storage: a map without its factor 2",
        BLOCKS,
        "(2 * levels * ratio / (1 + ratio))",
        "(levels * ratio)",
        f"{CODECS} -k group",
    ),
    Mutation(
        "storage: half a code too low",
        BLOCKS,
        "np.float32(0.5) if random is None",
        "np.float32(0.0) if random is None",
        f"{CODECS} -k group",
    ),
    Mutation(
        "rounding: 15 random bits",
        ROUNDING,
        "word & np.uint32(0xFFFF)",
        "word & np.uint32(0x7FFF)",
        f"{CODECS} -k mean",
    ),
    Mutation(
        "rounding: the same bits at every step",
        ROUNDING,
        "jnp.asarray(step).astype(jnp.uint32) * GOLDEN",
        "0 * GOLDEN",
        f"{CODECS} -k random",
    ),
    Mutation(
        "rounding: nan carries over",
        ROUNDING,
        "jnp.where(jnp.isnan(x), jnp.zeros_like(up), up)",
        "up",
        f"{CODECS} -k nan_becomes",
    ),
    Mutation(
        "rounding: positions of a tile without its origin",
        ROUNDING,
        "along if offsets is None else along +",
        "along if True else along +",
        STORED,
    ),
    Mutation(
        "storage: squares as first moments",
        "storage/policy.py",
        "decode_array(codec, stored, shape, square=square",
        "decode_array(codec, stored, shape, square=False",
        STORED,
    ),
    Mutation(
        "storage: the update sees unrounded slots",
        "engine/storage.py",
        "None if one is None else straight_through",
        "None if True else straight_through",
        STORED,
    ),
    Mutation(
        "storage: slots are encoded again where the gate is closed",
        "engine/storage.py",
        "stored = jax.tree.map(lambda one, other: jnp.where(gate, one, other), stored, old)",
        "pass",
        STORED,
    ),
    Mutation(
        "tiles: a norm of a tile",
        "tree/jaxprs.py",
        "return equation.primitive.name in ELEMENTWISE or all(one == () for one in shapes)",
        "return True",
        STORED,
    ),
    Mutation(
        "master: low halves to even",
        "storage/master_weights.py",
        "word + np.uint32(0x8000)",
        "word",
        MASTER,
    ),
    Mutation(
        "master: stored in fewer bits",
        "storage/master_weights.py",
        "rest: Annotated[Any, PRECISE]",
        "rest: Any",
        MASTER,
    ),
    Mutation(
        "master: bits of a nan at 0",
        "storage/master_weights.py",
        "jnp.maximum(rest, 0)",
        "rest",
        MASTER,
    ),
]
