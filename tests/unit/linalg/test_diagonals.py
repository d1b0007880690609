"""Diagonals of batches of matrices: shapes that do not fit are named."""

import jax.numpy as jnp
import pytest

import gradtx
from gradtx.linalg import set_diags

CASES = {
    "expected `a` to be a 3D tensor (N, D, D), and its shape is (2, 2)": ((2, 2), (2, 2)),
    "expected `new_diags` to be a 2D array (N, D), and its shape is (2,)": ((3, 2, 2), (2,)),
    "shape mismatch: expected `a.shape` to be (N, D, D), and it is (3, 2, 4)": ((3, 2, 4), (3, 2)),
    "shape mismatch: expected `new_diags.shape` to be (3, 2), as `a` has shape (3, 2, 2), and it "
    "is (3, 4)": ((3, 2, 2), (3, 4)),
}


@pytest.mark.parametrize("text", sorted(CASES))
def test_shapes_that_do_not_fit_are_named(text: str) -> None:
    a, diagonals = CASES[text]
    with pytest.raises(gradtx.StructureError) as info:
        set_diags(jnp.ones(a), jnp.ones(diagonals))
    assert str(info.value).lower() == f"set_diags: {text.lower()}"
