"""CTC at the edges: padding that holds nan, labels that do not fit, impossible classes, modes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx.definition.errors import GradtxError
from gradtx.losses.ctc import ctc_loss, ctc_loss_with_forward_probs
from tests.functions.ctc import _all_alignments

LABELS = jnp.array([[1, 2, 1], [2, 2, 0]])
PADS = jnp.array([[0, 0, 0], [0, 0, 1]])


def random_logits(frames: int = 6, dtype: Any = jnp.float32) -> jax.Array:
    return (2 * jax.random.normal(jax.random.key(3), (2, frames, 4))).astype(dtype)


def loss_of(logits: jax.Array, labels: Any = LABELS, pads: Any = PADS, frames: Any = None) -> Any:
    frames = jnp.zeros(logits.shape[:2]) if frames is None else frames
    return ctc_loss(logits, frames, labels, pads)


def total(logits: jax.Array, **kwargs: Any) -> jax.Array:
    return jnp.sum(jnp.sin(loss_of(logits, **kwargs)))


def test_padding_may_hold_anything() -> None:
    """nan in a padded frame, labels that do not exist in padded places."""
    logits = random_logits()
    frames = jnp.array([[0, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]])
    dirty = jnp.where(frames[..., None] == 1, jnp.nan, logits)
    labels = jnp.where(PADS == 1, -100, LABELS)
    call = functools.partial(total, frames=frames)
    np.testing.assert_array_equal(call(dirty, labels=labels), call(logits))
    found, right = jax.grad(call)(dirty, labels=labels), jax.grad(call)(logits)
    np.testing.assert_array_equal(found, right)
    assert not jnp.where(frames[..., None] == 1, found, 0).any()


def test_mask_dtypes_are_alike() -> None:
    logits, frames = random_logits(), jnp.zeros((2, 6)).at[0, 4:].set(1)
    right = loss_of(logits, frames=frames)
    for dtype in (bool, int, jnp.bfloat16):
        found = loss_of(logits, pads=PADS.astype(dtype), frames=frames.astype(dtype))
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("frames", [1, 3])
def test_labels_that_do_not_fit(frames: int) -> None:
    """About 1e5, and a finite gradient: a batch survives one example that is too short."""
    logits = random_logits(frames)
    loss, gradient = loss_of(logits), jax.grad(lambda z: loss_of(z).sum())(logits)
    fits = np.array([frames >= 3, frames >= 3])
    assert ((loss > 9e4) == ~fits).all() and jnp.isfinite(gradient).all()
    right = optax.ctc_loss(logits, jnp.zeros((2, frames)), LABELS, PADS)
    np.testing.assert_allclose(loss, right, 1e-6)


def test_gradient_is_that_of_optax_where_labels_do_not_fit() -> None:
    with jax.enable_x64(True):
        logits = random_logits(2, jnp.float64)
        for frames in (jnp.zeros((2, 2)), jnp.ones((2, 2))):
            found, right = (
                jax.grad(lambda z, f=f, t=frames: f(z, t, LABELS, PADS).sum())(logits)
                for f in (ctc_loss, optax.ctc_loss)
            )
            # 1e5 holds 11 digits behind the point, and the shares are exponentials of differences.
            np.testing.assert_allclose(found, right, 1e-8, 1e-9)


def test_no_labels_and_no_frames() -> None:
    logits, none = random_logits(), jnp.ones((2, 3))
    blank = -jnp.sum(jax.nn.log_softmax(logits)[..., 0], 1)
    np.testing.assert_allclose(loss_of(logits, pads=none), blank, 1e-6)
    np.testing.assert_allclose(loss_of(logits, LABELS[:, :0], PADS[:, :0]), blank, 1e-6)
    assert loss_of(logits, pads=none, frames=jnp.ones((2, 6))).tolist() == [0.0, 0.0]
    assert loss_of(logits[:0], LABELS[:0], PADS[:0]).shape == (0,)


def test_labels_out_of_range_give_nan() -> None:
    """Optax returns a negative loss there; other rows of the batch are not touched."""
    right = loss_of(random_logits())
    for label in (4, -1):
        found = loss_of(random_logits(), LABELS.at[0, 1].set(label))
        assert jnp.isnan(found[0]) and found[1] == right[1]


def test_impossible_classes() -> None:
    """A logit of −∞ for a label costs about 1e5, for another class nothing; nothing is nan."""
    logits = random_logits()
    needed, other = logits.at[0, :, 2].set(-jnp.inf), logits.at[0, :, 3].set(-jnp.inf)
    assert loss_of(needed)[0] > 9e4
    frames, args = np.zeros((2, 6)), (np.asarray(LABELS), np.asarray(PADS))
    right = _all_alignments(np.asarray(other, np.float64), frames, *args)
    np.testing.assert_allclose(loss_of(other), right, 1e-5)
    for one in (needed, other):
        assert jnp.isfinite(jax.grad(total)(one)).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_computes_in_float32(dtype: Any) -> None:
    logits = random_logits(dtype=dtype)
    found, right = loss_of(logits), loss_of(logits.astype(jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, right)
    assert jax.grad(total)(logits).dtype == dtype


def test_logits_of_1e4() -> None:
    logits = 1e4 * random_logits()
    right = optax.ctc_loss(logits, jnp.zeros((2, 6)), LABELS, PADS)
    np.testing.assert_allclose(loss_of(logits), right, 1e-6)
    assert jnp.isfinite(jax.grad(total)(logits)).all()


def test_long_sequences_keep_their_gradient() -> None:
    """Shares of each sum, not quotients of probabilities that are 1e-3000: rows sum to 0."""
    keys = jax.random.split(jax.random.key(5))
    logits = 3 * jax.random.normal(keys[0], (1, 800, 50))
    labels = jax.random.randint(keys[1], (1, 60), 1, 50)
    args = jnp.zeros((1, 800)), labels, jnp.zeros((1, 60))
    found = jax.grad(lambda z: ctc_loss(z, *args).sum())(logits)
    with jax.enable_x64(True):
        double = jax.grad(lambda z: ctc_loss(z, *args).sum())(logits.astype(jnp.float64))
    # 7,000 in float32 is exact to 5e-4, and entries of the gradient are at most 1.
    np.testing.assert_allclose(found, double, 0, 5e-3)
    np.testing.assert_allclose(jnp.sum(found, -1), 0, 0, 1e-5)


def test_forward_mode_vmap_scan_and_second_derivatives() -> None:
    with jax.enable_x64(True):
        logits = random_logits(4, jnp.float64)
        direction = jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)
        gradient = jax.grad(total)(logits)
        slope = jax.jvp(total, (logits,), (direction,))[1]
        np.testing.assert_allclose(slope, jnp.vdot(gradient, direction), 1e-12)
        curves = [
            jax.jvp(jax.grad(total), (logits,), (direction,))[1],
            jax.grad(lambda z: jnp.vdot(jax.grad(total)(z), direction))(logits),
            (
                jax.grad(total)(logits + 1e-6 * direction)
                - jax.grad(total)(logits - 1e-6 * direction)
            )
            / 2e-6,
        ]
        np.testing.assert_allclose(curves[0], curves[1], 1e-9, 1e-12)
        np.testing.assert_allclose(curves[0], curves[2], 1e-6, 1e-8)
        batch = jnp.stack([logits, 2 * logits])
        right = [loss_of(row) for row in batch]
        np.testing.assert_allclose(jax.vmap(loss_of)(batch), right, 1e-12)
        np.testing.assert_allclose(jax.lax.map(loss_of, batch), right, 1e-12)


def test_both_functions_have_one_loss_and_one_gradient() -> None:
    logits, args = random_logits(), (jnp.zeros((2, 6)), LABELS, PADS)
    found = jax.value_and_grad(lambda z: ctc_loss_with_forward_probs(z, *args)[0].sum())(logits)
    right = jax.value_and_grad(lambda z: ctc_loss(z, *args).sum())(logits)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-7), found, right)


def test_strict_promotion() -> None:
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.float32, jnp.bfloat16):
            gradient = jax.jit(jax.grad(total))(random_logits(dtype=dtype))
            assert gradient.dtype == dtype
            ctc_loss_with_forward_probs(
                random_logits(dtype=dtype), jnp.zeros((2, 6), bool), LABELS.astype(jnp.uint8), PADS
            )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"logits": jnp.ones((6, 4))},
            "logits have shape (6, 4) and logit_paddings (2, 6); give (sequences, frames, classes) "
            "and (sequences, frames)",
        ),
        (
            {"logit_paddings": jnp.zeros((2, 5))},
            "logits have shape (2, 6, 4) and logit_paddings (2, 5); give (sequences, frames, "
            "classes) and (sequences, frames)",
        ),
        (
            {"labels": LABELS[:1], "label_paddings": PADS[:1]},
            "labels have shape (1, 3) and label_paddings (1, 3); logits of shape (2, 6, 4) need "
            "(2, labels) for both",
        ),
        (
            {"label_paddings": PADS[:, :2]},
            "labels have shape (2, 3) and label_paddings (2, 2); logits of shape (2, 6, 4) need "
            "(2, labels) for both",
        ),
        (
            {"logits": jnp.ones((2, 0, 4)), "logit_paddings": jnp.ones((2, 0))},
            "logits of shape (2, 0, 4) have no frame; give at least one",
        ),
        (
            {"labels": LABELS * 1.0},
            "labels has dtype float32, not class indices; cast with .astype(jnp.int32), or take "
            "jnp.argmax of probabilities",
        ),
        (
            {"blank_id": 4},
            "blank_id=4 is not one of the 4 classes of logits of shape (2, 6, 4)",
        ),
    ],
)
def test_messages(change: dict[str, Any], text: str) -> None:
    arguments = {
        "logits": jnp.ones((2, 6, 4)),
        "logit_paddings": jnp.zeros((2, 6)),
        "labels": LABELS,
        "label_paddings": PADS,
        **change,
    }
    for call in (ctc_loss, ctc_loss_with_forward_probs):
        with pytest.raises(GradtxError) as error:
            call(**arguments)
        assert str(error.value) == f"{call.__name__}: {text}"
