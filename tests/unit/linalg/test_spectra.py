"""Spectra: beside the exact functions of singular values, what they cost, and what bad input is
told.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.linalg import iterate_sums, spectral_coefficients, spectrum_error

RNG = np.random.default_rng(0)
SIGMA = np.geomspace(1e-2, 1.0, 12)
NORM = float(np.sum(SIGMA**4) ** 0.25)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test draws the same numbers, whichever tests ran before it in the process."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def basis(rows: int, columns: int) -> Any:
    normal = RNG.normal(size=(rows, columns)) + 1j * RNG.normal(size=(rows, columns))
    return np.linalg.qr(normal)[0]


def with_values(values: Any, shape: tuple[int, int], bases: Any) -> Any:
    left, right = bases
    return (left * values) @ right.conj().T


SPECTRA = {
    "cap": (gradtx.spectral_cap(0.3), 5e-5),
    "cap/units": (gradtx.spectral_cap(2.0, normalize=None), 2e-4),
    "clip": (gradtx.spectral_clip(0.1, 0.4), 5e-5),
    "clip/units": (gradtx.spectral_clip(0.5, 2.0, normalize=None), 2e-4),
    "contraction": (gradtx.spectral_contraction(20.0), 1e-9),
    "contraction/units": (gradtx.spectral_contraction(0.7, normalize=None), 1e-9),
    "power": (gradtx.spectral_power(0.125), 2.3e-4),
    "power/blend": (gradtx.spectral_power(0.5, 0.3), 5.6e-4),
    "series": (gradtx.spectral_series((0.5, 0.2, 0.3)), 1e-9),
}
"""Each with the largest error of a singular value: that of the docs, times the unit."""


@pytest.mark.parametrize("shape", [(12, 17), (17, 12)])
@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_beside_the_exact_function_of_singular_values(name: str, shape: tuple[int, int]) -> None:
    spectrum, tolerance = SPECTRA[name]
    is_relative = dict(spectrum.form.options).get("normalize", "schatten") is not None
    bases = basis(shape[0], 12), basis(shape[1], 12)
    with jax.enable_x64(True):
        batch = jnp.stack([with_values(7 * SIGMA, shape, bases)] * 2)
        found = np.asarray(jax.jit(lambda x: spectrum(x, eps=0.0))(batch))
    exact = spectrum.exact(SIGMA / NORM if is_relative else 7 * SIGMA)
    for one in found:
        # The largest singular value of the difference: no norm of more entries.
        assert np.linalg.norm(one - with_values(exact, shape, bases), 2) < tolerance


def test_tilt_and_soft_polar_beside_the_exact_factor() -> None:
    bases = basis(12, 12), basis(15, 12)
    with jax.enable_x64(True):
        x = jnp.asarray(with_values(SIGMA, (12, 15), bases))
        tilted = np.asarray(gradtx.spectral_tilt(-0.25)(x, method="svd", eps=0.0))
        soft = np.asarray(gradtx.soft_polar(0.2)(x, method="svd", eps=0.0))
        contra = gradtx.soft_polar(-0.25, normalize="spectral")
        away = np.linalg.svd(contra(x, method="svd", eps=0.0), compute_uv=False)
    exact = with_values(gradtx.spectral_tilt(-0.25).exact(SIGMA / NORM), (12, 15), bases)
    np.testing.assert_allclose(tilted, exact, atol=1e-12)
    blend = 0.8 + 0.2 * SIGMA * 12**0.25 / NORM
    values = blend * 12**0.25 / np.sum(blend**4) ** 0.25
    np.testing.assert_allclose(soft, with_values(values, (12, 15), bases), atol=1e-12)
    # The largest singular value is known within 5 % only: 1 − c σ with c between 0.19 and 0.2.
    ratio = np.sort(away)[0] / np.sort(away)[-1]
    assert 0.8 / 0.998 - 1e-9 < ratio < 0.81 / 0.998
    assert np.linalg.norm(away) == pytest.approx(12**0.5)


@pytest.mark.parametrize("p", sorted(iterate_sums.POWERS))
def test_the_tables_are_what_the_generator_returns(p: float) -> None:
    coefficients, error = spectral_coefficients(lambda sigma: sigma**p)
    table = iterate_sums.POWERS[p]
    shipped = iterate_sums.series_error(table, lambda sigma: sigma**p)
    # Six decimals of thirteen coefficients: at most 13 · 5e-7 apart.
    assert error <= shipped < error + 6.5e-6
    sigma = np.geomspace(1e-3, 1, 500)
    basis = iterate_sums.iterates(sigma, 12)
    np.testing.assert_allclose(basis @ coefficients, basis @ table, atol=1e-5)
    assert min(coefficients) >= 0


PUBLISHED = {
    "cap": (gradtx.spectral_cap(0.3), 1.5e-5),
    "cap/0.1": (gradtx.spectral_cap(0.1), 2.1e-5),
    "cap/1": (gradtx.spectral_cap(1.0), 2.3e-5),
    "clip": (gradtx.spectral_clip(0.1, 0.5), 2.1e-5),
    "contraction/1000": (gradtx.spectral_contraction(1000.0), 1e-6),
    "power/0.1": (gradtx.spectral_power(0.1), 1.9e-4),
    "power/0.125": (gradtx.spectral_power(0.125), 2.3e-4),
    "power/0.25": (gradtx.spectral_power(0.25), 4.0e-4),
    "power/0.5": (gradtx.spectral_power(0.5), 5.6e-4),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_errors_hold_and_are_tight(name: str) -> None:
    spectrum, published = PUBLISHED[name]
    error = spectrum_error(spectrum)
    assert error <= published
    assert error > 0.5 * published or published <= 1e-6  # the rounding of float32


def count_products(jaxpr: Any) -> int:
    """The products of a program, and of every function that it calls, as often as it does."""
    total = 0
    for one in jaxpr.eqns:
        total += one.primitive.name == "dot_general"
        inner = (value for value in one.params.values() if hasattr(value, "eqns"))
        total += sum(map(count_products, inner))
    return total


def products(spectrum: Any, shape: tuple[int, int] = (4, 6)) -> int:
    return count_products(jax.make_jaxpr(spectrum)(jnp.ones(shape)))


PRODUCTS = {
    "cap": (gradtx.spectral_cap(0.3), 6 * 8 + 2),
    "clip": (gradtx.spectral_clip(0.1, 0.3), 9 * 8 + 3),
    "contraction": (gradtx.spectral_contraction(9.0), 3 * 8),
    "contra/spectral": (gradtx.soft_polar(-0.25, normalize="spectral"), 5 + 15),
    "polar": (gradtx.polar(), 15),
    "power": (gradtx.spectral_power(0.25), 3 * 12),
    "series": (gradtx.spectral_series((0.5, 0.2, 0.3)), 3 * 2),
    "soft": (gradtx.soft_polar(0.2), 15 + 2),
    "tilt": (gradtx.spectral_tilt(0.25), 15 + 2),
}
"""Products of each on a matrix of 4 rows and 6 columns, the first Gram matrix included."""


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_the_products_of_each_spectrum(name: str) -> None:
    spectrum, count = PRODUCTS[name]
    assert products(spectrum) == products(spectrum, (6, 4)) == count


@pytest.mark.parametrize("name", ["clip", "contraction", "power"])
def test_sixteen_bits_zeros_and_nan(name: str) -> None:
    spectrum, _ = SPECTRA[name]
    x = jnp.stack([jnp.zeros((3, 5)), jnp.full((3, 5), jnp.nan), jnp.eye(3, 5)])
    rounded = spectrum(x.astype(jnp.bfloat16), compute_dtype=jnp.bfloat16)
    assert rounded.dtype == jnp.bfloat16
    zeros, nans, eyes = np.asarray(rounded, np.float32)
    assert (zeros == 0).all()
    assert np.isnan(nans).all()
    exact = float(spectrum.exact(3**-0.25))
    np.testing.assert_allclose(eyes, exact * np.eye(3, 5), atol=0.02)  # bfloat16: 8 bits


def test_a_schedule_moves_the_number_and_one_program_serves_many() -> None:
    grad = {"w": jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)}

    def last(alpha: Any) -> Any:
        tx = gradtx.scale_by_muon(spectrum=gradtx.soft_polar(alpha))
        return tx.update(grad, tx.init(grad))[0]["w"]

    alphas = jnp.array([-0.2, 0.0, 0.3])
    many = jax.vmap(last)(alphas)
    for one, alpha in zip(many, alphas, strict=True):
        np.testing.assert_allclose(one, last(float(alpha)), atol=1e-5)
    tx = gradtx.muon(0.1, spectrum=gradtx.soft_polar(gradtx.linear_schedule(-0.2, 0.2, 4)))
    assert float(gradtx.hyperparams(tx, 3)["alpha"]) == pytest.approx(0.1)
    assert gradtx.from_config(gradtx.to_config(tx)) == tx
    assert gradtx.replace(tx, alpha=0.5).arguments["spectrum"] == gradtx.soft_polar(0.5)


def second_step(tx: Any, params: Any, logits: Any) -> jax.Array:
    """The second update: the first of AdaMuon is that of signs, whatever the spectrum."""
    step, state = jax.jit(tx.update), tx.init(params)
    _, state = step(params, state, params, **logits)
    other = jax.tree.map(lambda one: jnp.flip(one, axis=1), params)
    return step(other, state, params, **logits)[0]["layer"]["kernel"]


def test_every_optimizer_hands_the_spectrum_on() -> None:
    """The builders around the rules: the rules themselves have references."""
    params = {"layer": {"kernel": jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)}}
    makers = {
        gradtx.muon: {},
        gradtx.normuon: {},
        gradtx.adamuon: {},
        gradtx.muon_clip: {"where": "kernel", "head_axis": -1},
        gradtx.scion: {},
    }
    for make, options in makers.items():
        plain = make(0.1, **options)
        default = make(0.1, spectrum=gradtx.polar(), **options)
        other = make(0.1, spectrum=gradtx.spectral_power(0.5), **options)
        logits = {"max_logits": jnp.ones(2)} if make is gradtx.muon_clip else {}
        first, same, power = (second_step(tx, params, logits) for tx in (plain, default, other))
        assert (first == same).all(), make
        assert (jnp.abs(first - power) > 1e-3).any(), make


ANY: Any = gradtx
"""The same without types, for calls that they refuse."""
WRONG = {
    "builder": (lambda: ANY.muon(0.1, spectrum=gradtx.polar), "polar is a function.*call it"),
    "name": (lambda: ANY.muon(0.1, spectrum="soft"), "is not a spectrum: take polar"),
    "alpha": (lambda: gradtx.soft_polar(-1.0), r"alpha = -1.0 is outside its range \(-1, 1\]"),
    "norm": (
        lambda: ANY.soft_polar(0.2, normalize="l2"),
        "normalize = 'l2' is unknown; choose one of 'schatten'",
    ),
    "interval": (
        lambda: gradtx.spectral_clip(0.5, 0.1),
        "low = 0.5 is above high = 0.1; give low ≤ high",
    ),
    "low": (lambda: gradtx.spectral_clip(0.0, 0.1), r"low = 0.0 is outside its range \(0, inf\]"),
    "steps": (lambda: gradtx.spectral_cap(0.5, steps=0), "steps = 0 is below 1, or not whole"),
    "negative": (
        lambda: gradtx.spectral_power(-0.25),
        "p = -0.25 is not defined at 0.*take spectral_tilt",
    ),
    "table": (lambda: gradtx.spectral_power(0.3), "p = 0.3 has no table; choose one of 0.1"),
    "series": (lambda: gradtx.spectral_series((1.0,)), "not a sequence of at least two numbers"),
    "steps of its own": (
        lambda: gradtx.muon(0.1, ns_steps=3, spectrum=gradtx.spectral_cap(0.5)).rules,
        r"scale_by_muon: spectral_cap\(beta=0.5\) has polynomials of its own",
    ),
    "preconditioning": (
        lambda: gradtx.muon(0.1, preconditioning="aol", spectrum=gradtx.soft_polar()).rules,
        "preconditioning = 'aol' is for the polar factor.*set its normalize",
    ),
    "signs": (
        lambda: gradtx.scale_by_scion(norm="sign", spectrum=gradtx.soft_polar()).rules,
        "norm = 'sign' takes signs: leave it out",
    ),
    "zero": (
        lambda: spectral_coefficients(lambda sigma: sigma**-0.25),
        "a spectrum must be defined at 0.*np.maximum",
    ),
    "pole": (
        lambda: spectral_coefficients(lambda sigma: np.where(sigma > 0.5, np.nan, 1.0)),
        r"f\(0.50\d+\) is not finite",
    ),
    "lower": (lambda: spectral_coefficients(np.sqrt, 0.0), r"lower = 0.0 is outside \(0, 1\)"),
    "few steps": (lambda: spectral_coefficients(np.sqrt, steps=0), "steps = 0 is below 1"),
    "exact": (lambda: gradtx.soft_polar().exact(0.5), "depends on all of them"),
    "empty": (
        lambda: spectrum_error(gradtx.polar(), (0.5, 0.1)),
        r"interval = \(0.5, 0.1\) is not 0 < low",
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_bad_input(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(HyperparamError, match=message):
        call()


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(GradtxError, match="SciPy, which is not installed: pip install scipy"):
        spectral_coefficients(np.sqrt)
