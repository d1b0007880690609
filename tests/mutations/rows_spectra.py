"""Changes to spectra, and to methods in the place of Muon's factor, each of which a test must
notice.
"""

from tests.mutations.row import Mutation

UNIT = "tests/unit/linalg/test_spectra.py"
ORACLES = (
    "tests/oracles/test_oracles.py tests/oracles/test_parity.py "
    "-k mud or muown or soft or plus or input_moments"
)

SPECTRA = [
    Mutation(
        "spectra: a cap adds the distance",
        "linalg/spectral_clips.py",
        "scaled.x - distance) / 2",
        "scaled.x + distance) / 2",
        UNIT,
    ),
    Mutation(
        "spectra: a contraction without the block in its Gram matrix",
        "linalg/spectral_clips.py",
        "(scaled.gram + floor * block)",
        "scaled.gram",
        UNIT,
    ),
    Mutation(
        "spectra: a sum without its first iterate",
        "linalg/iterate_sums.py",
        "total = coefficients[0] * x",
        "total = 0 * coefficients[0] * x",
        UNIT,
    ),
    Mutation(
        "spectra: a soft factor without its length",
        "linalg/spectra.py",
        "blend * _ratio(four, _schatten(blend.astype(scaled.x.dtype)))",
        "blend",
        ORACLES,
    ),
    Mutation(
        "mud: the whole Gram matrix's diagonal",
        "optimizers/mud.py",
        "lower=True",
        "lower=False",
        ORACLES,
    ),
    Mutation(
        "muown: directions at the length of the parameter",
        "optimizers/muown.py",
        "(gain / radius)[..., None, :] * (grad",
        "(grad",
        ORACLES,
    ),
    Mutation(
        "input moments: without damping",
        "transforms/input_moments.py",
        "* mean + 1e-8",
        "* 0 * mean + 1e-8",
        ORACLES,
    ),
]
