"""Changes to projections, assignments, second derivatives and perturbations."""

from tests.mutations.row import Mutation

FUNCTIONS = "tests/oracles/test_functions.py -k {}"
SETS = "tests/unit/projections/test_projections.py"
PROJECT = "tests/unit/transforms/test_project.py"
ASSIGNMENT = "tests/unit/assignment/test_assignment.py"
PERTURBATIONS = "tests/unit/perturbations/test_perturbations.py"

SETS_AND_PAIRS = [
    Mutation(
        "simplex: Newton's method stops too early",
        "projections/simplex.py",
        "jnp.any(count < before)",
        "jnp.any(count < before / 2)",
        SETS,
    ),
    Mutation(
        "simplex: a batch stops with its first vector",
        "projections/simplex.py",
        "jnp.any(count < before)",
        "jnp.all(count < before)",
        SETS,
    ),
    Mutation(
        "simplex: the derivative keeps the mean",
        "projections/simplex.py",
        "(scale_tangent - moved)",
        "(scale_tangent - 0 * moved)",
        FUNCTIONS.format("projection_simplex"),
    ),
    Mutation(
        "l1 sphere: 0 has no sign",
        "projections/l1.py",
        "jnp.where(array < 0, -magnitude, magnitude)",
        "jnp.sign(array) * magnitude",
        SETS,
    ),
    Mutation(
        "l2 ball: the derivative at 0 divides by 0",
        "projections/l2.py",
        "divide(radius, jnp.where(inside, 1, norm))",
        "divide(radius, norm)",
        SETS,
    ),
    Mutation(
        "half-space: its interior moves, too",
        "projections/affine.py",
        "jnp.maximum(inner(normals, arrays, axes) - offset, 0)",
        "inner(normals, arrays, axes) - offset",
        FUNCTIONS.format("projection_halfspace"),
    ),
    Mutation(
        "project: the point in place of the step",
        "transforms/project.py",
        "point.astype(target.dtype) - param.astype(target.dtype)",
        "point.astype(target.dtype) - 0 * param.astype(target.dtype)",
        PROJECT,
    ),
    Mutation(
        "project: a nan spreads",
        "transforms/project.py",
        "jnp.where(jnp.isfinite(one), one, jnp.zeros_like(one))",
        "one + jnp.zeros_like(one)",
        PROJECT,
    ),
    Mutation(
        "assignment: duals stay",
        "assignment.py",
        "matching.duals + change",
        "matching.duals + 0 * change",
        ASSIGNMENT,
    ),
    Mutation(
        "assignment: free columns of the start are taken twice",
        "assignment.py",
        "row_of[cheapest] == numbers",
        "row_of[cheapest] >= numbers",
        ASSIGNMENT,
    ),
    Mutation(
        "hessian_diag: a row in place of the diagonal",
        "second_order.py",
        "product(unit)[place]",
        "product(unit)[0]",
        FUNCTIONS.format("hessian_diag"),
    ),
    Mutation(
        "perturbations: the score has the other sign",
        "perturbations.py",
        "scores - jax.lax.stop_gradient(scores)",
        "jax.lax.stop_gradient(scores) - scores",
        PERTURBATIONS,
    ),
    Mutation(
        "perturbations: no derivative by sigma's density",
        "perturbations.py",
        " - jnp.log(scale.astype(dtype))",
        " - 0 * jnp.log(scale.astype(dtype))",
        PERTURBATIONS,
    ),
]
