"""Changes to PSGD Kron, GaLore, Dion and Scion, each of which a test must notice."""

from tests.mutations.row import Mutation

METHODS = "tests/unit/optimizers/test_projection_methods.py"
PSGD, GALORE, DION, SCION = (
    f"tests/oracles/test_oracles.py tests/oracles/test_parity.py -k {name}"
    for name in ("psgd", "galore", "dion", "scion")
)

PROJECTIONS = [
    Mutation(
        "psgd: noise is not added",
        "optimizers/psgd_kron.py",
        "DAMPING * jnp.mean",
        "0 * jnp.mean",
        PSGD,
    ),
    Mutation(
        "psgd: factors are never balanced",
        "optimizers/psgd_kron.py",
        "jnp.where(is_balanced, sqrt(",
        "jnp.where(is_balanced & False, sqrt(",
        f"{METHODS} -k balanced",
    ),
    Mutation(
        "psgd: all matrices in one step",
        "optimizers/psgd_kron.py",
        "refresh_offset / refresh_every",
        "0 * refresh_offset / refresh_every",
        METHODS,
    ),
    Mutation(
        "psgd: matrices share their noise",
        "engine/matrix_rules.py",
        "jnp.arange(math.prod(batch))",
        "jnp.zeros(math.prod(batch), int)",
        PSGD,
    ),
    Mutation(
        "galore: a projector at the last step",
        "optimizers/galore.py",
        "(step - 1) % update_proj_gap",
        "step % update_proj_gap",
        GALORE,
    ),
    Mutation(
        "galore: any sign",
        "optimizers/galore.py",
        "keepdims=True) < 0, -vectors",
        "keepdims=True) < 0, vectors",
        GALORE,
    ),
    Mutation(
        "galore: inf in a decomposition",
        "optimizers/galore.py",
        "& ~jnp.isnan(signed)",
        "",
        METHODS,
    ),
    Mutation(
        "dion: used part forgotten whole",
        "optimizers/dion.py",
        "(1 - mu) * (inputs",
        "(inputs",
        DION,
    ),
    Mutation(
        "dion: a column of zeros is kept",
        "optimizers/dion.py",
        "jnp.where(is_zero, slots.basis, unit)",
        "unit",
        METHODS,
    ),
    Mutation(
        "scion: heads as embeddings",
        "optimizers/scion.py",
        'head_radius, "sign_per_input"',
        'head_radius, "sign"',
        METHODS,
    ),
    Mutation(
        "scion: never constrained",
        "optimizers/scion.py",
        "1.0 if constrained else",
        "None if constrained else",
        SCION,
    ),
]
