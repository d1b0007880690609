"""Inverse roots, eigenbases, Kronecker factors and blocks of matrices against float64 NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import linalg

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test draws the same numbers, whichever tests ran before it in the process."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


inverse_root = jax.jit(
    linalg.inverse_root,
    static_argnames=("p", "method", "relative", "steps", "max_steps", "tolerance"),
)
refresh = jax.jit(linalg.refresh_eigenbasis)


def semidefinite(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix of these eigenvalues, and its eigenvectors."""
    q = np.linalg.qr(RNG.normal(size=(len(values), len(values))))[0]
    return (q * values) @ q.T, q


# roots and bases


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_inverse_roots(p: int) -> None:
    values = np.geomspace(1e-3, 20, 6)
    a, q = semidefinite(values)
    with jax.enable_x64(True):
        for method in ("eigh", "newton"):
            expected = (q * values ** (-1 / p)) @ q.T
            for steps in (None, 40) if method == "newton" else (None,):
                found = inverse_root(a, p, method=method, ridge=0.0, steps=steps)
                np.testing.assert_allclose(
                    found, expected, rtol=0, atol=1e-12 * np.abs(expected).max()
                )
            ridged = (q * (values + 0.5) ** (-1 / p)) @ q.T
            np.testing.assert_allclose(
                inverse_root(a, p, method=method, ridge=0.5, relative=False),
                ridged,
                rtol=0,
                atol=1e-12,
            )
            ridged = (q * (values + 0.01 * 20) ** (-1 / p)) @ q.T
            tolerance = 1e-12 if method == "eigh" else 1e-3
            np.testing.assert_allclose(
                inverse_root(a, p, method=method, ridge=0.01), ridged, rtol=0, atol=tolerance
            )
            small = inverse_root(jnp.asarray(a, jnp.float32), p, method=method)
            assert small.dtype == np.float32
            np.testing.assert_allclose(small, expected, rtol=0, atol=2e-2 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_roots_of_a_batch_with_singular_and_broken_members(method: str) -> None:
    """Rank-deficient statistics: finite, and of no effect where they are not told; float32 over 60
    orders of magnitude.
    """
    half = RNG.normal(size=(5, 2)).astype(np.float32)
    deficient = half @ half.T
    given = np.stack(
        [
            np.eye(5),
            np.full((5, 5), np.nan),
            np.zeros((5, 5)),
            1e30 * np.eye(5),
            1e-30 * deficient,
            deficient,
        ]
    ).astype(np.float32)
    found = np.asarray(inverse_root(given.reshape(2, 3, 5, 5), 4, method=method)).reshape(6, 5, 5)
    assert (
        np.isnan(found[1]).any()
        and not found[2].any()
        and np.isfinite(np.delete(found, 1, 0)).all()
    )
    np.testing.assert_allclose(found[0], np.eye(5), atol=1e-5)
    np.testing.assert_allclose(found[3], 10**-7.5 * np.eye(5), rtol=1e-5)
    for one in (0, 3, 4, 5):
        alone = np.asarray(inverse_root(given[one], 4, method=method))
        np.testing.assert_allclose(found[one], alone, rtol=1e-3, atol=1e-3 * np.abs(alone).max())
    # what lies in the range meets the range alone: ‖L^(−1/4) X‖ is that of Λ^(1/4)
    expected = np.sqrt((np.linalg.svd(half, compute_uv=False)).sum())
    assert np.linalg.norm(found[5] @ half) == pytest.approx(expected, rel=1e-2)


def test_without_a_ridge_the_null_space_is_left_out() -> None:
    values = np.array([4.0, 1.0, 0.0, 0.0])
    a, q = semidefinite(values)
    with jax.enable_x64(True):
        found = inverse_root(a, 2, ridge=0.0)
        np.testing.assert_allclose(found, (q * [0.5, 1, 0, 0]) @ q.T, atol=1e-13)
        np.testing.assert_allclose(
            inverse_root(np.zeros((2, 2)), 2, ridge=0.25, relative=False), 2 * np.eye(2), atol=1e-13
        )


def test_negative_eigenvalues_count_as_zero_and_a_ridge_may_outweigh_all() -> None:
    found = inverse_root(jnp.diag(jnp.array([1.0, -0.5])), 2, ridge=0.25, relative=False)
    np.testing.assert_allclose(found, np.diag([1.25**-0.5, 2]), rtol=1e-6)
    for method in ("eigh", "newton"):
        np.testing.assert_allclose(
            inverse_root(1e-30 * jnp.eye(2), 2, method=method, ridge=4.0, relative=False),
            np.eye(2) / 2,
            rtol=1e-5,
        )


def test_newton_stops_where_rounding_lets_it_get_no_further() -> None:
    """A condition number that float32 cannot hold: no nan, no blow-up, in a loop of fixed length
    neither.
    """
    a = jnp.asarray(semidefinite(np.geomspace(1e-9, 1, 12))[0], jnp.float32)
    for steps in (None, 60):
        found = inverse_root(a, 2, method="newton", ridge=1e-6, steps=steps)
        expected = inverse_root(a, 2)
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.1 * np.abs(expected).max())


def test_an_eigenbasis_is_found_and_refreshed() -> None:
    """By power iteration from a near basis; columns in order, signs kept, the order told."""
    values = np.array([5.0, 3.0, 2.0, 0.5])
    a, q = semidefinite(values)
    with jax.enable_x64(True):
        basis = np.asarray(linalg.eigenbasis(np.stack([a, 2 * a])))
        for one in basis:
            np.testing.assert_allclose(one.T @ a @ one, np.diag(values), atol=1e-13)
        near = np.linalg.qr(q[:, [2, 0, 3, 1]] + 0.05 * RNG.normal(size=(4, 4)))[0]
        new, order = refresh(a, near)
        assert order.tolist() == [1, 3, 0, 2]
        u, r = np.linalg.qr(a @ near[:, order])
        np.testing.assert_allclose(new, u * np.sign(np.diagonal(r)), atol=1e-13)
        for _ in range(80):
            new, order = refresh(a, new)
        assert order.tolist() == [0, 1, 2, 3]
        np.testing.assert_allclose(new.T @ a @ new, np.diag(values), atol=1e-12)
        again, _ = refresh(np.stack([a, np.zeros((4, 4)), a]), np.stack([new, near, near]))
        np.testing.assert_allclose(again[0], new, atol=1e-12)
        np.testing.assert_array_equal(again[1], near)
        np.testing.assert_allclose(again[2], refresh(a, near)[0], atol=1e-13)


def test_bases_of_what_is_rank_deficient_or_broken() -> None:
    half = RNG.normal(size=(4, 1)).astype(np.float32)
    given = np.stack([half @ half.T, np.full((4, 4), np.nan, np.float32)])
    new, _ = refresh(given, np.stack([np.eye(4, dtype=np.float32)] * 2))
    np.testing.assert_allclose(new[0].T @ new[0], np.eye(4), atol=1e-5)
    np.testing.assert_allclose(np.abs(half.T @ new[0])[0, 0], np.linalg.norm(half), rtol=1e-5)
    assert np.isnan(new[1]).any()
    assert (
        linalg.refresh_eigenbasis(jnp.eye(2), jnp.eye(2, dtype=jnp.bfloat16))[0].dtype
        == jnp.bfloat16
    )


# Kronecker factors


def test_kronecker_factors_and_their_average() -> None:
    with jax.enable_x64(True):
        x, y = RNG.normal(size=(2, 3, 4, 6))
        factors = linalg.kronecker_factors(x)
        left, right = map(np.asarray, factors)
        np.testing.assert_allclose(left, np.einsum("bij,bkj->bik", x, x), atol=1e-13)
        np.testing.assert_allclose(right, np.einsum("bji,bjk->bik", x, x), atol=1e-13)
        new = list(map(np.asarray, linalg.update_factors(factors, y, 0.9)))
        np.testing.assert_allclose(new[0], 0.9 * left + 0.1 * y @ y.swapaxes(1, 2), atol=1e-13)
        np.testing.assert_allclose(new[1], 0.9 * right + 0.1 * y.swapaxes(1, 2) @ y, atol=1e-13)
        total, absent = linalg.update_factors(linalg.Factors(factors.left, None), y, 1, weight=1)
        np.testing.assert_allclose(np.asarray(total), left + y @ y.swapaxes(1, 2), atol=1e-13)
        assert absent is None
        left, right = RNG.normal(size=(3, 4, 4)), RNG.normal(size=(3, 6, 6))
        np.testing.assert_allclose(
            linalg.multiply_sides(left, y, right), left @ y @ right, atol=1e-12
        )
        np.testing.assert_array_equal(linalg.multiply_sides(None, y, None), y)
    sixteen = linalg.kronecker_factors(jnp.ones((2, 300), jnp.bfloat16), (True, False))
    assert (
        sixteen.left is not None and sixteen.left.dtype == jnp.float32 and sixteen.left[0, 0] == 300
    )
    kept = linalg.update_factors(
        linalg.Factors(jnp.ones((2, 2), jnp.bfloat16), None), jnp.ones((2, 3)), 0.5
    )
    assert kept.left is not None and kept.left.dtype == jnp.bfloat16 and kept.left[0, 0] == 2


def test_sides_that_get_a_factor() -> None:
    assert linalg.factor_sides((4, 4), 4) == (True, True)
    assert linalg.factor_sides((4, 5), 4) == (True, False)
    assert linalg.factor_sides((9, 5), 4) == (False, False)
    assert [
        linalg.factor_sides(shape, 8, one_sided=True)
        for shape in ((4, 4), (3, 4), (4, 3), (9, 4), (9, 9))
    ] == [
        (True, False),
        (True, False),
        (False, True),
        (False, True),
        (False, False),
    ]


# triangular factors


def test_the_bound_of_a_norm_is_below_it_and_near() -> None:
    a = np.stack(
        [semidefinite(values)[0] for values in ([9, 1, -2.0, 1], [1, 1, 1, 1.0], [5, 4.9, 4.8, 1])]
        + [np.zeros((4, 4))]
    )
    with jax.enable_x64(True):
        bounds, norms = np.asarray(linalg.norm_lower_bound(a)), np.linalg.norm(a, 2, axis=(-2, -1))
        assert (bounds <= norms * (1 + 1e-12)).all() and (bounds >= 0.9 * norms).all()
        column = a[0][:, np.argmax((a[0] ** 2).sum(0))]
        power = a[0] @ column / np.linalg.norm(a[0] @ column)
        assert bounds[0] == pytest.approx(np.linalg.norm(a[0] @ power), rel=1e-12)
        assert float(
            linalg.norm_lower_bound(1e30 * jnp.asarray(a[0], jnp.float32))
        ) == pytest.approx(1e30 * bounds[0], rel=1e-5)


def assert_fitted(kind: str, old: Any, new: Any, moments: Any) -> None:
    """One factor after its step: triangular, diagonal, or none."""
    if kind == "t":
        step = np.triu(moments[0] - moments[1]) / linalg.norm_lower_bound(sum(moments))
        np.testing.assert_allclose(new, old - 0.3 * step @ old, atol=1e-12)
    elif kind == "d":
        first, second = map(np.diagonal, moments)
        step = (first - second) / (first + second).max()
        np.testing.assert_allclose(new, np.diagonal(old) * (1 - 0.3 * step), atol=1e-12)
    else:
        assert new is None


@pytest.mark.parametrize("kinds", ["tt", "td", "dn"])
def test_one_step_of_the_fit_is_that_of_the_whole_kronecker_product(kinds: str) -> None:
    """t: triangular, d: diagonal, n: none. A and B by a solve with the whole of Q_L ⊗ Q_R, in a
    batch of two.
    """
    made = {
        "t": lambda n: np.triu(RNG.normal(size=(2, n, n))) + 3 * np.eye(n),
        "d": lambda n: RNG.uniform(1, 2, size=(2, n)),
        "n": lambda _: None,
    }
    whole = {"t": lambda q, _: q, "d": lambda q, _: np.diag(q), "n": lambda _, n: np.eye(n)}
    given = [made[kind](n) for kind, n in zip(kinds, (3, 4))]
    x, v = RNG.normal(size=(2, 2, 3, 4))
    with jax.enable_x64(True):
        factors = linalg.Factors(*(None if q is None else jnp.asarray(q) for q in given))
        found, applied = (
            linalg.fit_triangular(factors, x, v, 0.3),
            linalg.apply_triangular(factors, x),
        )
        for at in range(2):
            left, right = (
                whole[kind](None if q is None else q[at], n)
                for kind, q, n in zip(kinds, given, (3, 4))
            )
            q = np.kron(left, right)
            np.testing.assert_allclose(
                applied[at].ravel(), q.T @ q @ x[at].ravel(), rtol=1e-11, atol=1e-11
            )
            a, b = (
                (q @ x[at].ravel()).reshape(3, 4),
                np.linalg.solve(q.T, v[at].ravel()).reshape(3, 4),
            )
            moments = (a @ a.T, b @ b.T), (a.T @ a, b.T @ b)
            for kind, old, new, both in zip(kinds, (left, right), found, moments):
                assert_fitted(kind, old, None if new is None else np.asarray(new)[at], both)


def test_a_fit_whitens() -> None:
    """Columns of covariance C: Qᵀ Q tends to C^(−1/2), so that preconditioned columns have
    covariance I.
    """
    root = np.linalg.cholesky(semidefinite([4.0, 1.0, 0.25])[0])

    def step(q: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        x, v = jax.random.normal(key, (2, 3, 256))
        fitted = linalg.fit_triangular(
            linalg.Factors(q, None), jnp.asarray(root, jnp.float32) @ x, v
        ).left
        assert fitted is not None
        return fitted, None

    q, _ = jax.lax.scan(step, jnp.eye(3), jax.random.split(jax.random.key(0), 200))
    white = np.asarray(linalg.apply_triangular(linalg.Factors(q, None), root))
    np.testing.assert_allclose(white @ white.T, np.eye(3), atol=0.15)
    np.testing.assert_array_equal(q, np.triu(q))
    none = linalg.fit_triangular(linalg.Factors(q, None), jnp.zeros((3, 2)), jnp.zeros((3, 2)))
    np.testing.assert_array_equal(np.asarray(none.left), q)


# blocks


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (1, 9), (2, 5, 3), (8, 4), (0, 3)])
@pytest.mark.parametrize("max_dim", [1, 2, 4, 9])
def test_blocks_hold_every_entry_once(shape: tuple[int, ...], max_dim: int) -> None:
    x = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    blocks = np.asarray(linalg.split_blocks(x, max_dim))
    assert max(blocks.shape[-2:]) <= max_dim
    np.testing.assert_array_equal(linalg.join_blocks(blocks, shape), x)
    np.testing.assert_array_equal(np.sort(blocks[blocks != 0]), x.ravel())
    (rows, columns), (height, width) = linalg.block_grid(shape, max_dim)
    assert blocks.shape == (*shape[:-2], rows, columns, height, width)
    piece = x[..., height : 2 * height, :width]
    if rows > 1:
        np.testing.assert_array_equal(
            blocks[..., 1, 0, : piece.shape[-2], : piece.shape[-1]], piece
        )


def test_what_fills_up_blocks_has_no_effect() -> None:
    """A matrix of odd sides, block by block, is each of its pieces for itself."""
    with jax.enable_x64(True):
        x = RNG.normal(size=(5, 3))
        blocks = linalg.split_blocks(x, 3)
        left, _ = linalg.kronecker_factors(blocks)
        done = linalg.multiply_sides(
            inverse_root(left, 2, ridge=1e-3), linalg.orthogonalize(blocks, eps=0.0), None
        )
        joined = np.asarray(linalg.join_blocks(done, x.shape))
        for piece in (slice(0, 3), slice(3, 5)):
            alone = inverse_root(x[piece] @ x[piece].T, 2, ridge=1e-3) @ linalg.orthogonalize(
                x[piece], eps=0.0
            )
            np.testing.assert_allclose(joined[piece], alone, atol=1e-9)
