"""Strict promotion, mixed dtypes, and the signatures of Optax."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.losses
import pytest

from benchmarks.losses import LOSSES, temporary_bytes
from gradtx import losses
from tests.functions import FUNCTIONS
from tests.support.functions import called

HERE = [name for name in FUNCTIONS if hasattr(losses, name.split("/")[0])]
WIDE = ("chunked_softmax_cross_entropy", "ctc_loss", "ctc_loss_with_forward_probs")
"""Losses of many terms, whose result is in float32, as Optax's of CTC is."""
PUBLIC = [name for name in dir(losses) if hasattr(optax.losses, name) and name[0] != "_"]


@pytest.mark.parametrize("name", HERE)
def test_strict_promotion_computes_the_same(name: str) -> None:
    """bfloat16 arrays beside integers, bools and float32 hyperparameters."""
    row = FUNCTIONS[name]
    case = next(iter(row.cases.values()))

    def result() -> Any:
        return jax.eval_shape(lambda: called(row.call, row, case, jnp.bfloat16))

    expected = result()
    with jax.numpy_dtype_promotion("strict"):
        assert result() == expected
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(expected)}
    assert dtypes == {
        jnp.dtype(jnp.float32 if name.split("/", maxsplit=1)[0] in WIDE else jnp.bfloat16)
    }


@pytest.mark.parametrize("name", [name for name in PUBLIC if callable(getattr(losses, name))])
def test_a_signature_is_that_of_optax(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(one, name)) for one in (losses, optax.losses))
    for mine, peer in zip(ours.parameters.values(), theirs.parameters.values(), strict=True):
        assert (mine.name, mine.kind) == (peer.name, peer.kind)
        assert mine.default == peer.default


def test_the_dtype_of_a_mixture_is_the_wider_one() -> None:
    low, high = jnp.ones(3, jnp.bfloat16), jnp.ones(3)
    for name in ("l2_loss", "squared_error", "huber_loss", "log_cosh", "cosine_distance"):
        assert getattr(losses, name)(low, high).dtype == jnp.float32
    for name in ("sigmoid_binary_cross_entropy", "sigmoid_focal_loss"):
        assert getattr(losses, name)(low, high).dtype == jnp.bfloat16
    np.testing.assert_array_equal(losses.hinge_loss(jnp.array([2]), jnp.array([True])), [0.0])


SLACK = 128
"""Bytes of scalars, which XLA:CPU aligns."""


@pytest.mark.parametrize("name", LOSSES)
def test_temporaries_are_not_more_than_those_of_optax(name: str) -> None:
    mine = temporary_bytes("gradtx", name)
    with jax.numpy_rank_promotion("allow"):
        theirs = temporary_bytes("optax", name)
    for program, count in mine.items():
        assert count <= theirs[program] + SLACK, f"{program}: {count}, Optax {theirs[program]}"
