"""Changes to rules on matrices, and to Muon and its kin, each of which a test must notice."""

from tests.mutations.row import Mutation

ORACLES = "tests/oracles/test_oracles.py tests/oracles/test_parity.py -k muon"
MATRICES = "tests/unit/engine/test_matrices.py"
ROLES = "tests/unit/tree"
LINALG = "tests/unit/linalg/test_linalg.py tests/unit/linalg/test_linalg_roots.py"

MATRIX_RULES = [
    Mutation(
        "muon: momentum of this step",
        "transforms/orthogonal.py",
        "step, nesterov), Momentum(mu)",
        "step, False), Momentum(mu)",
        ORACLES,
    ),
    Mutation(
        "muon: scale by inputs over outputs",
        "transforms/orthogonal.py",
        "max(1.0, ratio)",
        "max(1.0, 1 / ratio)",
        ORACLES,
    ),
    Mutation(
        "muon: spectral scale turned over",
        "transforms/orthogonal.py",
        '"spectral": ratio',
        '"spectral": 1 / ratio',
        ORACLES,
    ),
    Mutation(
        "muon: Adam decays as Muon",
        "optimizers/muon.py",
        "nesterov=nesterov, **adam)",
        'nesterov=nesterov, **{**adam, "weight_decay": weight_decay})',
        ORACLES,
    ),
    Mutation(
        "normuon: means over outputs",
        "optimizers/normuon.py",
        "abs_sq(factor), axis=-2)",
        "abs_sq(factor), axis=(-2, -1))[..., None]",
        ORACLES,
    ),
    Mutation(
        "normuon: without the length of the factor",
        "optimizers/normuon.py",
        "* even * ratio",
        "* even",
        ORACLES,
    ),
    Mutation(
        "adamuon: without signs",
        "optimizers/adamuon.py",
        "orthogonalize(jnp.sign(grad)",
        "orthogonalize((grad)",
        ORACLES,
    ),
    Mutation(
        "qk_clip: by the whole factor",
        "optimizers/muon_clip.py",
        "** exponent\n",
        "** 1\n",
        "tests/oracles/test_oracles.py -k clip",
    ),
    Mutation(
        "hyperball: a radius that grows",
        "wrappers/hyperball.py",
        "radius * _unit(param - ",
        "(param - ",
        "tests/oracles/test_oracles.py -k hyperball",
    ),
    Mutation(
        "matrices: inputs behind outputs",
        "engine/matrix_layout.py",
        '*axes["in"], *axes["out"])',
        '*axes["out"], *axes["in"])',
        MATRICES,
    ),
    Mutation(
        "matrices: parts of an axis interleaved",
        "engine/matrix_layout.py",
        "cut.append(parts)",
        "cut.insert(0, parts)",
        MATRICES,
    ),
    Mutation(
        "turns: all at the first step",
        "engine/matrix_layout.py",
        "load[turn] -= cost",
        "pass",
        MATRICES,
    ),
    Mutation(
        "where_due: never due",
        "compose/matrixwise.py",
        "lax.cond(due, functools.partial(_made",
        "lax.cond(due & False, functools.partial(_made",
        MATRICES,
    ),
    Mutation(
        "spread: shares in another order",
        "engine/sharded.py",
        "array[slice(*cut)], tree)",
        "array[slice(*cut)][::-1], tree)",
        "tests/unit/sharding/test_matrices.py",
    ),
    Mutation("roles: heads are hidden", "tree/names.py", 'r"(.*_)?head|', 'r"', ROLES),
    Mutation(
        "roles: Equinox in JAX's order",
        "tree/axes.py",
        'return Axes(OUT_IN, f"in the',
        'return Axes(IN_OUT, f"in the',
        ROLES,
    ),
    Mutation(
        "roles: stacked biases are matrices",
        "tree/stacks.py",
        "if axis is not None:",
        "if axis == 1:",
        ROLES,
    ),
    Mutation(
        "roles: guesses are not named",
        "engine/program.py",
        "    warn_of_doubts(",
        "    0 and warn_of_doubts(",
        ROLES,
    ),
    Mutation(
        "newton_schulz: l stays 1",
        "linalg/newton_schulz.py",
        "_lead(coefficients[:step]) * z",
        "z",
        LINALG,
    ),
    Mutation(
        "newton_schulz: R loses a factor",
        "linalg/newton_schulz.py",
        "r = a * half + z @ half",
        "r = half + z @ half",
        LINALG,
    ),
    Mutation(
        "newton_schulz: X without l",
        "linalg/newton_schulz.py",
        "_lead(coefficients[start:stop]) * x +",
        "x +",
        LINALG,
    ),
    Mutation(
        "orthogonalize: R divided once",
        "linalg/orthogonalize.py",
        "r * factor * factor.mT",
        "r * factor",
        LINALG,
    ),
    Mutation(
        "orthogonalize: no margin",
        "linalg/orthogonalize.py",
        "margin * _norm(r, normalize)",
        "_norm(r, normalize)",
        LINALG,
    ),
    Mutation(
        "decompositions: in another order",
        "linalg/decompositions.py",
        "*x.shape[-2:]))",
        "*x.shape[-2:])[::-1])",
        LINALG,
    ),
]
