"""Places for tests/mutations to break: functions of trees, states by name, helpers of writers."""

from tests.mutations.row import Mutation

ROW = "tests/oracles/test_functions.py -k {}"
STATES = "tests/unit/tree/test_states.py"
FUNCTIONS = "tests/unit/tree/test_tree_functions.py"

TREES = [
    Mutation(
        "tree.vdot: x is not conjugated",
        "tree/reductions.py",
        "jnp.sum(left.conj() * right)",
        "jnp.sum(left * right)",
        ROW.format("vdot"),
    ),
    Mutation(
        "tree.sum: low precision summed as it is",
        "tree/reductions.py",
        "jnp.sum(array.astype(wide_dtype(array.dtype)))",
        "jnp.sum(array)",
        FUNCTIONS,
    ),
    Mutation(
        "tree.sum: the last of an odd number is lost",
        "tree/reductions.py",
        "level = pairs + level[len(level) - len(level) % 2 :]",
        "level = pairs",
        ROW.format("tree.sum"),
    ),
    Mutation(
        "update_moment: weights exchanged",
        "tree/moments.py",
        "(decay, 1 - decay)",
        "(1 - decay, decay)",
        ROW.format("update_moment"),
    ),
    Mutation(
        "update_moment_per_elem_norm: a root more",
        "tree/moments.py",
        "abs_sq(array) ** (order // 2)",
        "sqrt(abs_sq(array)) ** (order // 2)",
        ROW.format("update_moment_per_elem_norm"),
    ),
    Mutation(
        "bias_correction: one step late",
        "tree/moments.py",
        "jnp.asarray(count).astype(dtype)",
        "(1 + jnp.asarray(count).astype(dtype))",
        ROW.format("bias_correction"),
    ),
    Mutation(
        "scalars widen low precision",
        "tree/pairs.py",
        "if scalar is None or kind(scalar.dtype) <= kind(dtype):",
        "if scalar is None:",
        FUNCTIONS,
    ),
    Mutation(
        "states: entries inside of a found one are lost",
        "tree/states.py",
        "for parent, where, _ in parents:",
        "for parent, where, _ in parents[:0]:",
        STATES,
    ),
    Mutation(
        "map_params: masked places are mapped",
        "tree/states.py",
        "row[0] if _is_empty(row[0])",
        "row[0] if not row",
        STATES,
    ),
    Mutation(
        "safe_norm: the derivative at zero",
        "tree/numerics.py",
        "safe = jnp.where(is_zero, jnp.ones((), precise.dtype), precise)",
        "safe = precise",
        FUNCTIONS,
    ),
    Mutation(
        "nnls: weights one step ahead",
        "linalg/nnls.py",
        "_Point(start, start, jnp.zeros((), wide))",
        "_Point(start, start, jnp.ones((), wide))",
        ROW.format("nnls"),
    ),
    Mutation(
        "power_iteration: the residual is absolute",
        "linalg/power_iteration.py",
        "jnp.asarray(tolerance).astype(residual.dtype) * jnp.abs(value)",
        "jnp.asarray(tolerance).astype(residual.dtype)",
        "tests/unit/linalg/test_helpers.py",
    ),
    Mutation(
        "unitwise_clip: the least divisor",
        "transforms/adaptive_clipping.py",
        "jnp.maximum(size, jnp.asarray(div_eps).astype(size.dtype))",
        "size",
        ROW.format("unitwise_clip"),
    ),
]
