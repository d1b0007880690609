"""What bad input to `gradtx.linalg` is told, its corners, and its page of the API."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import linalg
from gradtx.definition.errors import HyperparamError, StructureError
from tests.support.places import ROOT

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test draws the same numbers, whichever tests ran before it in the process."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


orthogonalize = jax.jit(
    linalg.orthogonalize, static_argnames=("method", "steps", "form", "compute_dtype", "normalize")
)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: linalg.orthogonalize(jnp.ones(3)),
            StructureError,
            r"shape \(3,\), which is not a matrix",
        ),
        (lambda: linalg.orthogonalize(jnp.ones((3, 3), int)), StructureError, "dtype int32"),
        (
            lambda: linalg.orthogonalize(jnp.ones((3, 3)), "newton"),
            HyperparamError,
            "'newton' is unknown.*'polar_express'.*'jordan'.*'qr'",
        ),
        (
            lambda: linalg.orthogonalize(jnp.ones((3, 3)), form="fast"),
            HyperparamError,
            "form = 'fast' is unknown.*'auto'",
        ),
        (
            lambda: linalg.orthogonalize(jnp.ones((3, 3)), steps=0),
            HyperparamError,
            "steps = 0 is below 1",
        ),
        (lambda: linalg.orthogonalize(jnp.ones((3, 3)), "svd", 3), HyperparamError, "takes none"),
        (
            lambda: linalg.orthogonalize(jnp.ones((3, 3)), [(1.0, 2.0)]),  # pyright: ignore[reportArgumentType]
            HyperparamError,
            "not a sequence of triples",
        ),
        (
            lambda: linalg.orthogonalize(jnp.ones((3, 3)), steps=2.5),  # pyright: ignore[reportArgumentType]
            HyperparamError,
            r"steps = 2\.5 is below 1, or not whole",
        ),
        (
            lambda: linalg.orthogonalize(jnp.ones((3, 3)), margin=0.5),
            HyperparamError,
            r"margin = 0\.5 is below 1",
        ),
        (
            lambda: linalg.orthogonalize(jnp.ones((3, 3)), compute_dtype=jnp.int32),
            HyperparamError,
            "int32 is not a float of at least 16 bits",
        ),
        (
            lambda: linalg.orthogonalize(jnp.ones((3, 3)), "cans", compute_dtype=jnp.bfloat16),
            HyperparamError,
            "not stable in bfloat16",
        ),
        (
            lambda: linalg.worst_error("svd"),
            HyperparamError,
            "'svd' has no coefficients.*'deepseek'",
        ),
        (lambda: linalg.worst_error(interval=(0.0, 1.0)), HyperparamError, "interval"),
        (lambda: linalg.polar_express_coefficients(0), HyperparamError, "steps = 0"),
        (
            lambda: linalg.polar_express_coefficients(lower=1.0),
            HyperparamError,
            r"lower = 1.0 is outside \(0, 1\)",
        ),
        (lambda: linalg.polar_express_coefficients(cushion=1.0), HyperparamError, "cushion = 1.0"),
        (
            lambda: linalg.polar_express_coefficients(safety=-0.1),
            HyperparamError,
            "safety = -0.1 is negative",
        ),
        (
            lambda: linalg.inverse_root(jnp.ones((3, 4)), 2),
            StructureError,
            r"\(3, 4\), which is not square",
        ),
        (
            lambda: linalg.inverse_root(jnp.eye(3), 2.5, method="newton"),
            HyperparamError,
            "p = 2.5.*whole",
        ),
        (lambda: linalg.inverse_root(jnp.eye(3), 0), HyperparamError, "p = 0"),
        (
            lambda: linalg.inverse_root(jnp.eye(3), 2, method="qr"),
            HyperparamError,
            "'qr' is unknown.*'newton'",
        ),
        (
            lambda: linalg.refresh_eigenbasis(jnp.eye(3), jnp.eye(4)),
            StructureError,
            r"\(3, 3\), its basis \(4, 4\)",
        ),
        (lambda: linalg.factor_sides((3,)), StructureError, "not that of a matrix"),
        (lambda: linalg.factor_sides((3, 3), 0), HyperparamError, "max_dim = 0"),
        (
            lambda: linalg.update_factors(linalg.Factors(jnp.eye(2), None), jnp.ones((3, 4)), 0.9),
            StructureError,
            "left factor has shape",
        ),
        (
            lambda: linalg.apply_triangular(linalg.Factors(jnp.eye(2), None), jnp.ones((3, 4))),
            StructureError,
            r"needs \(3, 3\), or \(3,\)",
        ),
        (
            lambda: linalg.fit_triangular(linalg.Factors(None, None), jnp.eye(2), jnp.eye(3)),
            StructureError,
            r"noise has shape \(3, 3\)",
        ),
        (
            lambda: linalg.apply_triangular(linalg.Factors(None, None), 1j * jnp.eye(2)),
            StructureError,
            "give real numbers",
        ),
        (lambda: linalg.split_blocks(jnp.ones(3), 2), StructureError, "not that of a matrix"),
        (lambda: linalg.split_blocks(jnp.ones((3, 3)), 0), HyperparamError, "max_dim = 0"),
        (
            lambda: linalg.join_blocks(jnp.ones((2, 1, 2, 3)), (5, 3)),
            StructureError,
            "not those of a matrix",
        ),
        (
            lambda: linalg.join_blocks(jnp.ones((3, 2, 1, 2, 3)), (2, 4, 3)),
            StructureError,
            "not those of a matrix",
        ),
        (
            lambda: linalg.join_blocks(jnp.ones((2, 1, 2, 3)), (2, 4, 3)),
            StructureError,
            "not those of a matrix",
        ),
    ],
)
def test_bad_input_is_told(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_empty_matrices() -> None:
    assert (
        linalg.orthogonalize(jnp.zeros((0, 3))).shape
        == linalg.orthogonalize(jnp.zeros((0, 3)), "svd").shape
        == (0, 3)
    )
    assert (
        linalg.inverse_root(jnp.zeros((2, 0, 0)), 2).shape
        == linalg.eigenbasis(jnp.zeros((2, 0, 0))).shape
        == (2, 0, 0)
    )


def test_every_name_of_linalg_is_in_the_api_and_has_an_example() -> None:
    names = re.findall(
        r"import \w+ as (\w+)$", Path(linalg.__file__).read_text(encoding="utf-8"), re.MULTILINE
    )
    section = (ROOT / "docs" / "api" / "linalg.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r":: (\w+)$", section, re.MULTILINE)) == sorted(names)
    assert all(name == "Factors" or ">>> " in getattr(linalg, name).__doc__ for name in names)


def test_spellings_of_optax() -> None:
    x = jnp.asarray(np.random.default_rng(4).normal(size=(3, 5)), jnp.float32)
    for theirs, ours in (
        ("standard", "jordan"),
        ("dion", "you"),
        ((3.4445, -4.7750, 2.0315), "jordan"),
    ):
        np.testing.assert_array_equal(orthogonalize(x, theirs), orthogonalize(x, ours))
    with pytest.raises(
        HyperparamError, match="normalize = 'nuclear' is unknown; choose one of 'frobenius'"
    ):
        orthogonalize(x, normalize="nuclear")


def test_triples_may_be_arrays() -> None:
    x = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
    for triples in (
        np.array([3.4445, -4.775, 2.0315], np.float32),
        [np.array([3.4445, -4.775, 2.0315])] * 5,
    ):
        np.testing.assert_allclose(
            linalg.orthogonalize(x, triples),  # pyright: ignore[reportArgumentType]
            linalg.orthogonalize(x, "jordan"),
            atol=1e-5,
        )
