"""Softmax cross-entropies, and the form that is fused with an output layer."""

import numpy as np
import optax

from gradtx.losses.chunked import chunked_softmax_cross_entropy
from gradtx.losses.cross_entropy import (
    safe_softmax_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from tests.functions.row import Case, Function

_z = 3.0 * np.sin(1.0 + np.arange(24.0) ** 1.3).reshape(2, 3, 4)
_y = np.abs(np.cos(np.arange(24.0))).reshape(2, 3, 4)
_y /= _y.sum(-1, keepdims=True)
_mask = np.arange(24).reshape(2, 3, 4) % 5 != 2
_mask[1, 1] = False
_examples = np.array([[True, False, True], [False, True, True]])
_labels = np.array([[0, 3, 1], [2, 2, -1]])
_nan = np.where(_mask, _z, np.nan)
_impossible = np.where(np.arange(4) == 2, -np.inf, _z)
_possible = np.where(np.arange(4) == 2, 0.0, _y)


def _softmax_cross_entropy(logits, labels, axis=-1, where=None):
    """−Σ y log(e^z / Σ e^z), after a shift by the largest z, which cancels."""
    where = np.ones(logits.shape, bool) if where is None else where
    if where.ndim < logits.ndim:
        where = np.expand_dims(where, axis)
    where = np.broadcast_to(where, logits.shape)
    peak = np.max(logits, axis, keepdims=True, initial=-1e300, where=where)
    with np.errstate(invalid="ignore"):
        shifted = np.where(where, logits - peak, -np.inf)
    total = np.sum(np.exp(shifted), axis, keepdims=True)
    logs = shifted - np.log(np.where(total > 0, total, 1.0))
    counted = where & (labels != 0)
    return -np.sum(np.where(counted, labels * np.where(counted, logs, 0.0), 0.0), axis)


def _integer_labels(logits, labels, axis=-1, where=None):
    """log Σ e^z − z_label; the sum counts the classes of the mask."""
    place = axis % logits.ndim
    where = np.ones(logits.shape, bool) if where is None else where
    if where.ndim < logits.ndim:
        where = np.expand_dims(where, place)
    where = np.broadcast_to(where, logits.shape)
    peak = np.max(logits, place, keepdims=True, initial=-1e300, where=where)
    total = np.sum(np.exp(np.where(where, logits - peak, -np.inf)), place, keepdims=True)
    picked = np.take_along_axis(logits, np.expand_dims(labels, place), place)
    loss = np.log(np.where(total > 0, total, 1.0)) - (picked - peak)
    return np.squeeze(np.where(where.any(place, keepdims=True), loss, 0.0), place)


def _several_axes(logits, labels, axis, where=None):
    moved = np.moveaxis(logits, axis, (-2, -1))
    return _integer_labels(moved.reshape(*moved.shape[:-2], -1), labels)


def _chunked(hidden, embedding, labels, *, chunk=1024, axis=-1, where=None):
    logits = (np.nan_to_num(hidden) if where is not None else hidden) @ (
        embedding.T if axis == 0 else embedding
    )
    loss = _integer_labels(logits, labels % logits.shape[-1])
    return loss if where is None else np.where(where, loss, 0.0)


def _integer_reference(logits, labels, axis=-1, where=None):
    call = _several_axes if isinstance(axis, tuple) else _integer_labels
    return call(logits, labels, axis, where)


_hidden = np.cos(np.arange(30.0) ** 1.2).reshape(2, 3, 5)
_embedding = 2.0 * np.sin(2.0 + np.arange(55.0) ** 1.1).reshape(5, 11)
_tokens = np.array([[0, 10, 4], [7, -1, 5]])

FUNCTIONS = {
    "softmax_cross_entropy": Function(
        call=softmax_cross_entropy,
        reference=_softmax_cross_entropy,
        peer=optax.softmax_cross_entropy,
        cases={
            "last axis": Case((_z, _y)),
            "sums of labels other than 1": Case((_z, 2.0 * _y * _y)),
            "first axis": Case((_z, _y), {"axis": 0}),
            "two axes": Case((_z, _y), {"axis": (0, 2)}),
            "all axes": Case((_z, _y), {"axis": None}),
            "broadcast labels": Case((_z, _y[:1, :1])),
            "masked nan": Case((_nan, _y), {"where": _mask}),
            "examples": Case((_z, _y), {"where": _examples}),
            "large logits": Case((1e4 * _z, _y)),
        },
        static=("axis",),
        differentiable=(0, 1),
    ),
    "softmax_cross_entropy_with_integer_labels": Function(
        call=softmax_cross_entropy_with_integer_labels,
        reference=_integer_reference,
        peer=optax.softmax_cross_entropy_with_integer_labels,
        cases={
            "last axis": Case((_z, _labels)),
            "first axis": Case((_z, _labels[0, :, None] % 2 + np.zeros(4, int)), {"axis": 0}),
            "two axes": Case((_z, np.array([7, 0, 3])), {"axis": (0, 2)}),
            "two axes, other order": Case((_z, np.array([7, 0, 3])), {"axis": (2, 0)}),
            "masked nan": Case(
                (np.where(_examples[..., None], _z, np.nan), _labels), {"where": _examples}
            ),
            "masked classes": Case((_z, _labels), {"where": _mask}),
            "large logits": Case((1e4 * _z, _labels)),
        },
        static=("axis",),
    ),
    "safe_softmax_cross_entropy": Function(
        call=safe_softmax_cross_entropy,
        reference=_softmax_cross_entropy,
        peer=optax.safe_softmax_cross_entropy,
        cases={
            "finite": Case((_z, _y)),
            "impossible classes": Case((_impossible, _possible)),
            "large logits": Case((1e4 * _z, _y)),
        },
    ),
    "chunked_softmax_cross_entropy": Function(
        call=chunked_softmax_cross_entropy,
        reference=_chunked,
        peer=None,
        reason="Optax has no fused form",
        cases={
            "a rest": Case((_hidden, _embedding, _tokens), {"chunk": 4}),
            "one chunk": Case((_hidden, _embedding, _tokens)),
            "no rest": Case((_hidden, _embedding, _tokens), {"chunk": 1}),
            "tied": Case((_hidden, _embedding.T.copy(), _tokens), {"chunk": 3, "axis": 0}),
            "masked nan": Case(
                (np.where(_examples[..., None], _hidden, np.nan), _embedding, _tokens),
                {"chunk": 4, "where": _examples},
            ),
            "large logits": Case((1e4 * _hidden, _embedding, _tokens), {"chunk": 4}),
        },
        static=("chunk", "axis"),
        differentiable=(0, 1),
    ),
}
