"""Mistakes at a loss: each message names the fault, the place, the shapes and the cure."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

from gradtx import losses
from gradtx.definition.errors import DtypeError, GradtxError, HyperparamError, StructureError

X, I, C = jnp.zeros((2, 3)), jnp.zeros((2, 3), jnp.int32), jnp.zeros((2, 3), jnp.complex64)
MASK = jnp.ones((2, 2), bool)

MESSAGES: dict[str, tuple[type[GradtxError], Callable[[], Any], str]] = {
    "integers": (
        DtypeError,
        lambda: losses.l2_loss(I, X),
        "l2_loss: predictions has dtype int32, not floats; cast with .astype(jnp.float32)",
    ),
    "complex": (
        DtypeError,
        lambda: losses.kl_divergence(C, X),
        "kl_divergence: log_predictions has dtype complex64, not real floats; pass its real part",
    ),
    "complex scores": (
        DtypeError,
        lambda: losses.hinge_loss(C, X),
        "hinge_loss: predictor_outputs has dtype complex64, not real numbers; pass its real part",
    ),
    "logits": (
        DtypeError,
        lambda: losses.sigmoid_focal_loss(I, X),
        "sigmoid_focal_loss: logits has dtype int32, not real floats; cast with "
        ".astype(jnp.float32)",
    ),
    "float labels": (
        DtypeError,
        lambda: losses.multiclass_hinge_loss(X, jnp.zeros(2)),
        "multiclass_hinge_loss: labels has dtype float32, not class indices; cast with "
        ".astype(jnp.int32), or take jnp.argmax of probabilities",
    ),
    "indices for probabilities": (
        DtypeError,
        lambda: losses.poly_loss_cross_entropy(X, jnp.zeros(2, jnp.int32)),
        "poly_loss_cross_entropy: labels has dtype int32, not probabilities; for class indices "
        "pass jax.nn.one_hot(labels, number_of_classes)",
    ),
    "mask of numbers": (
        DtypeError,
        lambda: losses.cosine_distance(X, X, where=I),
        "cosine_distance: where has dtype int32, not bools; pass where != 0",
    ),
    "two shapes": (
        StructureError,
        lambda: losses.squared_error(X, X[0]),
        "squared_error: predictions has shape (2, 3) and targets has shape (3,), not one shape; "
        "broadcast one with jnp.broadcast_to if that is meant",
    ),
    "no common shape": (
        StructureError,
        lambda: losses.huber_loss(X, X[:, :2]),
        "huber_loss: predictions has shape (2, 3) and targets has shape (2, 2), which do not "
        "broadcast; the sizes of each axis, counted from the last, must be equal or 1",
    ),
    "axis of vectors": (
        StructureError,
        lambda: losses.cosine_similarity(X, X[:, :1]),
        "cosine_similarity: predictions has shape (2, 3) and targets has shape (2, 1), whose sizes "
        "along axis -1 differ; the loss sums along it, so they must be equal",
    ),
    "axis": (
        HyperparamError,
        lambda: losses.smooth_labels(X, 0.1, axis=2),
        "smooth_labels: axis 2 is not an axis of an array of shape (2, 3); pass one in [-2, 2)",
    ),
    "mask": (
        StructureError,
        lambda: losses.ranking_softmax_loss(X, X, where=MASK),
        "ranking_softmax_loss: where has shape (2, 2), which does not broadcast to (2, 3), the "
        "shape of the entries; one bool per entry, or a size of 1 along an axis",
    ),
    "labels": (
        StructureError,
        lambda: losses.multiclass_sparsemax_loss(X, jnp.zeros(3, jnp.int32)),
        "multiclass_sparsemax_loss: scores has shape (2, 3) and labels has shape (3,), which does "
        "not broadcast to (2,); pass one class index per vector along axis -1",
    ),
    "no classes": (
        StructureError,
        lambda: losses.multiclass_perceptron_loss(X[:, :0], I[:, 0]),
        "multiclass_perceptron_loss: scores has shape (2, 0), without classes along axis -1; pass "
        "at least one class",
    ),
    "rows": (
        StructureError,
        lambda: losses.ntxent(X, jnp.zeros(3, jnp.int32)),
        "ntxent: embeddings has shape (2, 3) and labels has shape (3,); pass (batch, features) and "
        "(batch,), one label per row along axis 0",
    ),
    "class weights": (
        StructureError,
        lambda: losses.dice_loss(X, X, class_weights=jnp.ones(2)),
        "dice_loss: class_weights has shape (2,), and the losses have shape (2, 3); pass one "
        "weight per class along axis -1, the background included",
    ),
    "reduction": (
        HyperparamError,
        lambda: losses.dice_loss(X, X, reduction="max"),
        "dice_loss: reduction is 'max', which is not one of mean, sum, none",
    ),
    "region": (
        StructureError,
        lambda: losses.binary_dice_loss(X, X[:1]),
        "binary_dice_loss: predictions has shape (2, 3, 1) and targets has shape (1, 3, 1), not "
        "one shape; broadcast one with jnp.broadcast_to if that is meant",
    ),
    "no axis of classes": (
        StructureError,
        lambda: losses.dice_loss(0.0, 0.0),
        "dice_loss: predictions has shape (), without an axis of classes; pass at least one axis",
    ),
    "logits for probabilities": (
        HyperparamError,
        lambda: losses.dice_loss(X - 2, X, apply_softmax=False),
        "dice_loss: predictions with values in [-2, -2] are not valid probability distributions "
        "along axis -1; pass logits with apply_softmax=True (apply_sigmoid=True), or "
        "probabilities that sum to 1",
    ),
    "scores": (
        StructureError,
        lambda: losses.make_fenchel_young_loss(jnp.max)(X, X[:, :1]),
        "fenchel_young_loss: scores has shape (2, 3) and targets has shape (2, 1), whose sizes "
        "along axis -1 differ; the loss sums along it, so they must be equal",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_mistake_is_one_sentence_with_its_cure(name: str) -> None:
    error, call, text = MESSAGES[name]
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


def test_a_wrong_dtype_is_the_type_error_that_optax_raises() -> None:
    with pytest.raises(TypeError):
        losses.huber_loss(I)


def test_the_old_name_warns() -> None:
    with pytest.warns(DeprecationWarning, match="use generalized_kl_divergence"):
        losses.convex_kl_divergence(X, X)
