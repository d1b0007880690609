"""Orthogonal factors of matrices against float64 NumPy; bad input to all of `gradtx.linalg`, its
page of the API.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import ShapeDtypeStruct

from gradtx import linalg
from gradtx.linalg.newton_schulz import cuts
from gradtx.linalg.presets import PRESETS, coefficients_of

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test draws the same numbers, whichever tests ran before it in the process."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


SHAPES = [(4, 9), (9, 4), (5, 5), (1, 3)]
RAW = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787, -1.267995827195, 0.376804089485),
    (1.875001480833, -1.250001645358, 0.375000164527),
]
SAFE = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]


orthogonalize = jax.jit(
    linalg.orthogonalize, static_argnames=("method", "steps", "form", "compute_dtype", "normalize")
)


def reference(x: Any, triples: Any, margin: float = 1.0) -> np.ndarray:
    """U p(Σ / ‖X‖) Vᵀ, by singular values."""
    u, s, v = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
    s = s / (margin * np.linalg.norm(s))
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ v


def costs(compiled: Any) -> dict[str, float]:
    return compiled.cost_analysis()


def spectrum(values: Any, columns: int) -> np.ndarray:
    """A matrix of these singular values."""
    u, v = (np.linalg.qr(RNG.normal(size=(side, side)))[0] for side in (len(values), columns))
    return (u * values) @ v[: len(values)]


# coefficients


@pytest.mark.parametrize(
    ("arguments", "table"),
    [({"steps": 8}, RAW), ({"steps": 5, "cushion": 0.02, "safety": 0.02}, SAFE)],
)
def test_polar_express_gives_the_printed_tables(arguments: dict[str, Any], table: Any) -> None:
    found = linalg.polar_express_coefficients(**arguments)
    for triple, printed, digits in zip(
        found, table, [2e-14] * 5 + [1e-12, 2e-11]
    ):  # on a short interval float64 settles no more
        assert triple == pytest.approx(printed, rel=digits)
    assert linalg.polar_express_coefficients(20)[-1] == pytest.approx(
        (15 / 8, -10 / 8, 3 / 8), abs=1e-12
    )


def test_the_table_of_the_presets_is_computed() -> None:
    rows = re.findall(
        r'^ +"(\w+)" +(\d+) +([\d.]+)$', linalg.orthogonalize.__doc__ or "", re.MULTILINE
    )
    assert {name: int(steps) for name, steps, _ in rows} == PRESETS
    for name, steps, worst in rows:
        assert (
            f"{linalg.worst_error(name, int(steps)):.3f}"
            == worst
            == f"{linalg.worst_error(name):.3f}"
        ), name
    assert linalg.worst_error() <= 0.15
    known = {
        "jordan": 0.52946,
        "you": 0.52502,
        "polar_express": 0.14113,
        "cans": 0.11984,
        "deepseek": 0.00054,
    }
    assert {name: round(linalg.worst_error(name), 5) for name in PRESETS} == known
    assert linalg.worst_error(RAW[:5]) == pytest.approx(0.12356, abs=1e-5)
    assert linalg.worst_error(margin=1.02) == pytest.approx(0.15335, abs=1e-5)


def test_another_number_of_steps() -> None:
    classic = (15 / 8, -10 / 8, 3 / 8)
    assert coefficients_of("you", 7) == (*coefficients_of("you"), classic, classic)
    assert coefficients_of("cans", 2) == coefficients_of("cans")[:2]
    assert (
        coefficients_of("deepseek", 4)
        == (coefficients_of("jordan")[0],) * 2 + ((2.0, -1.5, 0.5),) * 2
    )
    assert coefficients_of("deepseek", 1) == ((2.0, -1.5, 0.5),)
    assert coefficients_of("jordan", 3) == coefficients_of("jordan")[:3]
    assert coefficients_of(RAW, 2) == tuple(RAW[:2])
    assert linalg.worst_error(steps=8) < 1e-4


# orthogonalize


@pytest.mark.parametrize("method", [*PRESETS, "custom"])
def test_each_preset_is_its_polynomial_of_the_singular_values(method: Any) -> None:
    """In both forms, tall and wide, well and badly conditioned."""
    method = [(1.5, -0.5, 0.0), *RAW[1:3], (1.2, -0.1, 0.0)] if method == "custom" else method
    given = [
        RNG.normal(size=(2, 4, 9)),
        spectrum(np.geomspace(1e-3, 1, 4), 9),
        spectrum(np.array([1.0, 0.5, 1e-9, 0]), 9).T,
    ]
    # "deepseek" multiplies the rounding of small singular values eight times by 3.44 and twice by
    # 2: 1e-16 becomes 8e-12.
    plain = 2e-11 if method == "deepseek" else 1e-12
    with jax.enable_x64(True):
        for x in given:
            expected = np.stack(
                [reference(one, coefficients_of(method)) for one in x.reshape(-1, *x.shape[-2:])]
            ).reshape(x.shape)
            for form in ("plain", "gram"):
                found = linalg.orthogonalize(x, method, form=form, eps=0.0)
                assert found.dtype == np.float64
                np.testing.assert_allclose(
                    found, expected, rtol=0, atol=plain if form == "plain" else 1e-10
                )


def test_svd_and_qr() -> None:
    with jax.enable_x64(True):
        for shape in SHAPES:
            x = RNG.normal(size=shape)
            u, _, v = np.linalg.svd(x, full_matrices=False)
            np.testing.assert_allclose(linalg.orthogonalize(x, "svd"), u @ v, atol=1e-13)
            np.testing.assert_allclose(
                linalg.orthogonalize(x, "polar_express", 12), u @ v, atol=1e-13
            )
            q = np.asarray(linalg.orthogonalize(x, "qr"))
            short, wide = (q, x) if shape[0] <= shape[1] else (q.T, x.T)
            np.testing.assert_allclose(short @ short.T, np.eye(min(shape)), atol=1e-13)
            triangle = wide @ short.T
            np.testing.assert_allclose(triangle, np.tril(triangle), atol=1e-13)
            assert (np.diagonal(triangle) > 0).all()
        deficient = spectrum(np.array([3.0, 1.0, 0.0]), 5)
        found = np.linalg.svd(linalg.orthogonalize(deficient, "svd"))[1]
        np.testing.assert_allclose(found, [1, 1, 0], atol=1e-13)


def test_complex_matrices_have_complex_factors() -> None:
    with jax.enable_x64(True):
        x = RNG.normal(size=(3, 5)) + 1j * RNG.normal(size=(3, 5))
        u, _, v = np.linalg.svd(x, full_matrices=False)
        for form in ("plain", "gram"):
            np.testing.assert_allclose(
                linalg.orthogonalize(x, steps=12, form=form), u @ v, atol=1e-12
            )
        assert (
            linalg.orthogonalize(jnp.asarray(x, jnp.complex64), compute_dtype=jnp.float32).dtype
            == np.complex64
        )


@pytest.mark.parametrize("method", ["polar_express", "svd", "qr"])
@pytest.mark.parametrize("shape", [(3, 8), (8, 3)])
def test_members_of_a_batch_know_nothing_of_each_other(method: str, shape: tuple[int, int]) -> None:
    x = RNG.normal(size=(2, 3, *shape)).astype(np.float32)
    x[0, 1, 0, 2], x[1, 0], x[1, 1] = np.nan, 0, x[1, 1] * 1e25
    found = np.asarray(orthogonalize(x, method))
    assert np.isnan(found[0, 1]).any() and not found[1, 0].any()
    for where in np.ndindex(2, 3):
        if where != (0, 1):
            np.testing.assert_allclose(found[where], orthogonalize(x[where], method), atol=1e-4)
    np.testing.assert_allclose(found[1, 1], orthogonalize(x[1, 1] * 1e-25, method), atol=1e-4)


def test_small_matrices_stay_small_and_eps_may_be_zero() -> None:
    x = RNG.normal(size=(2, 5)).astype(np.float32)
    assert np.abs(linalg.orthogonalize(x * 1e-14)).max() < 1e-3
    np.testing.assert_allclose(
        linalg.orthogonalize(x * 1e-30, eps=0.0), linalg.orthogonalize(x, eps=0.0), atol=1e-5
    )
    assert not np.asarray(linalg.orthogonalize(jnp.zeros((2, 5)), eps=0.0)).any()
    expected = reference(x, coefficients_of("polar_express"), margin=1.02)
    np.testing.assert_allclose(linalg.orthogonalize(x, margin=1.02), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sixteen_bits(dtype: Any) -> None:
    """Their norm is a float32, their default form is plain, and nothing overshoots where the
    spectrum is bad.
    """
    x = jnp.asarray(spectrum(np.geomspace(1e-3, 1, 48), 96), jnp.float32)
    found = orthogonalize(x, compute_dtype=dtype)
    assert found.dtype == jnp.float32
    assert np.linalg.svd(found)[1].max() < 1.3
    exact = orthogonalize(x.astype(dtype))
    assert exact.dtype == dtype
    np.testing.assert_allclose(
        exact.astype(jnp.float32), orthogonalize(x.astype(dtype).astype(jnp.float32)), atol=0.02
    )
    np.testing.assert_allclose(orthogonalize(1e6 * x, compute_dtype=dtype), found, atol=0.05)
    assert not jnp.isnan(orthogonalize(100 * jnp.ones((256, 256), dtype))).any()


def test_gradients_are_those_of_the_polar_factor() -> None:
    """d⟨C, O⟩ along a direction E, which differences give; at zero it is finite."""
    with jax.enable_x64(True):
        x, c, e = (RNG.normal(size=(3, 4)) for _ in range(3))
        for form in ("plain", "gram"):
            slope = jax.jit(
                jax.grad(
                    lambda x, form=form: (c * linalg.orthogonalize(x, steps=12, form=form)).sum()
                )
            )
            ahead, behind = (
                reference(x + step * e, coefficients_of("polar_express", 12))
                for step in (1e-5, -1e-5)
            )
            difference = (c * (ahead - behind)).sum() / 2e-5
            assert (np.asarray(slope(x)) * e).sum() == pytest.approx(difference, rel=1e-6)
        assert np.isfinite(slope(np.zeros((3, 4)))).all()


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (32, 96), (96, 32)])
def test_flops_are_those_of_the_formula_and_the_cheaper_form_is_taken(
    rows: int, columns: int
) -> None:
    """(20 α + 10) n³ and (8 α + 28) n³ for five steps, and what is not a product: n² a few
    times.
    """
    small, ratio = min(rows, columns), max(rows, columns) / min(rows, columns)
    flops = {}
    for form in ("plain", "gram", "auto"):
        lowered = jax.jit(linalg.orthogonalize, static_argnames="form").lower(
            ShapeDtypeStruct((rows, columns), jnp.float32), form=form
        )
        flops[form] = (
            lowered.as_text().count("dot_general"),
            costs(lowered.compile())["flops"] / small**3,
        )
    assert flops["plain"][1] == pytest.approx(20 * ratio + 10, rel=0.06)
    assert flops["gram"][1] == pytest.approx(8 * ratio + 28, rel=0.06)
    assert (flops["plain"][0], flops["gram"][0]) == (15, 18)
    assert flops["auto"] == flops["gram" if ratio > 1.5 else "plain"]


def test_segments_of_the_gram_form() -> None:
    assert [cuts(steps, 2, 3) for steps in (1, 2, 5, 10)] == [(1,), (2,), (2, 5), (2, 5, 8, 10)]
    assert (cuts(5, 2, 2), cuts(3, 1, 1)) == ((2, 4, 5), (1, 2, 3))
    for dtype, platform, products in (
        ("float32", "cpu", 18),
        ("float32", "tpu", 17),
        ("float32", "cuda", 17),
        ("bfloat16", "cpu", 17),
    ):
        traced = orthogonalize.trace(
            ShapeDtypeStruct((4, 9), jnp.float32), form="gram", compute_dtype=dtype
        )
        assert (
            traced.lower(lowering_platforms=(platform,)).as_text().count("dot_general") == products
        )


@pytest.mark.parametrize("normalize", ["frobenius", "schatten", "aol", "spectral"])
def test_what_brings_singular_values_into_the_interval(normalize: str) -> None:
    """By the definition of each norm, in float64; and all of them are bounds, but for the estimate
    of the last.
    """
    with jax.enable_x64(True):
        x = np.random.default_rng(3).normal(size=(2, 4, 7))
        gram = x @ x.swapaxes(-1, -2)
        sizes = {
            "frobenius": np.sqrt(np.sum(x**2, axis=(-2, -1), keepdims=True)),
            "schatten": np.sum(gram**2, axis=(-2, -1), keepdims=True) ** 0.25,
            "aol": np.sqrt(np.sum(np.abs(gram), axis=-1, keepdims=True)),
            "spectral": np.linalg.svd(x, compute_uv=False)[:, :1, None],
        }
        start = x / (sizes[normalize] + 1e-7)
        a, b, c = 3.4445, -4.7750, 2.0315
        square = start @ start.swapaxes(-1, -2)
        expected = a * start + (b * square + c * square @ square) @ start
        found = orthogonalize(x, (a, b, c), 1, normalize=normalize)
    np.testing.assert_allclose(
        found, expected, rtol=5e-2 if normalize == "spectral" else 1e-6
    )  # eps; an estimate after 16 steps
    assert np.linalg.svd(start, compute_uv=False).max() <= 1 + 1e-9


def test_a_matrix_with_infinity_has_no_factor_and_its_neighbours_have() -> None:
    """LAPACK's decomposition into singular values need not end where an entry is infinite."""
    x = (
        jnp.array(np.random.default_rng(0).normal(size=(2, 3, 2)), jnp.float32)
        .at[1, 0, 0]
        .set(jnp.inf)
    )
    first, second = linalg.orthogonalize(x, "svd")
    assert jnp.isnan(second).all()
    np.testing.assert_allclose(first.T @ first, np.eye(2), atol=1e-6)


def test_a_spectral_norm_is_never_taken_too_small() -> None:
    """Sums of rows that vanish, as those of gradients of two classes do, and values near the
    largest one hide it from a power iteration.
    """
    opposite = jnp.array([[3.0, 0.0, 1.0], [-3.0, 0.0, -1.0]])
    np.testing.assert_allclose(
        linalg.orthogonalize(opposite, "deepseek", normalize="spectral"),
        opposite / 20**0.5,
        atol=5e-3,
    )
    for seed in range(8):
        x = jax.random.normal(jax.random.key(seed), (4, 64, 96))
        same = linalg.orthogonalize(x, [(1.0, 0.0, 0.0)], normalize="spectral")  # X by its norm
        assert ((largest := np.linalg.norm(same, 2, axis=(-2, -1))) <= 1 + 1e-6).all() and (
            largest >= 64 ** (-1 / 128)
        ).all()
