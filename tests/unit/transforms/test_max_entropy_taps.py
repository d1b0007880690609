"""The weights of largest entropy beside the published ones."""

import numpy as np
import pytest

from gradtx.transforms.max_entropy_taps import Moments, solve

EARLY = Moments(90.0, 3.7153849427, (0.07235, 0.02235))
LATE = Moments(24.05, 2.3786333904, (0.137, 0.087))

ENTROPY = {
    "early": (
        EARLY,
        (-0.0670809212, 0.0031938013, -0.6616775674),
        "0.0202129902 0.019169651 0.0145081596 0.0147527394 0.0087773056 0.0036145025 "
        "0.0026980341 0.0027355339",
        0.5186,
    ),
    "late": (
        LATE,
        (-0.0905555845, -0.0249786955, -0.3319186034),
        "0.0345570656 0.0367176467 0.0277462894 0.0305302706 0.0183848375 0.0040683537 "
        "0.0009300707 0.0000170469",
        0.1025,
    ),
}


@pytest.mark.parametrize("name", sorted(ENTROPY))
def test_the_published_weights_of_largest_entropy(name: str) -> None:
    moments, multipliers, published, old = ENTROPY[name]
    expected = [float(one) for one in published.split()]
    found = solve(256, moments)
    np.testing.assert_allclose(found.multipliers, multipliers, rtol=0, atol=6e-11)
    c = found.coefficients
    # Ten digits are published: the last of them may round either way.
    np.testing.assert_allclose(c[[2, 3, 4, 5, 10, 50, 100, 255]], expected, rtol=0, atol=6e-11)
    ages = np.arange(256)
    conditions = [c.sum(), ((-1.0) ** ages) @ c, ages @ c, np.log1p(ages) @ c]
    np.testing.assert_allclose(conditions, [1.0, 0.0, moments.age, moments.log_age], atol=1e-10)
    assert round(c[64:].sum(), 4) == old
