"""Losses of binary and of several classes, label smoothing, sparsemax and Fenchel-Young losses."""

import jax
import numpy as np
import optax.losses as peer

from gradtx import losses
from tests.functions.row import Case, Function

_RANDOM = np.random.default_rng(1)
_z = _RANDOM.normal(size=(3, 5)) * 3
_labels = np.array([0, 4, 2])
_one_hot = np.eye(5)[_labels]
_soft = _RANDOM.dirichlet(np.ones(5), size=3)
_binary = np.array([1, 0, 1, 1, 0])
_signs = np.where(_RANDOM.random((3, 5)) < 0.5, 1.0, -1.0)
_extreme = np.array([1e4, -1e4, 1e4, -1e4, 30.0, -30.0, 0.5])
_truth = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
_mask = np.array([[True, False, True, True, True]] + 2 * [[True, True, True, False, True]])


def _hinge(s, y):
    return np.maximum(0, 1 - y * s)


def _perceptron(s, y):
    return np.maximum(0, -y * s)


def _multiclass_hinge(s, y):
    margins = s + 1 - np.eye(s.shape[-1])[y]
    return margins.max(-1) - np.take_along_axis(s, np.asarray(y)[..., None], -1)[..., 0]


def _multiclass_perceptron(s, y):
    return s.max(-1) - np.take_along_axis(s, np.asarray(y)[..., None], -1)[..., 0]


def _cross_entropy(z, y):
    # log(1 + e^z) without overflow
    return y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)


def _focal(z, y, alpha=None, gamma=2.0):
    with np.errstate(over="ignore"):
        p = 1 / (1 + np.exp(-z))
    p_t = y * p + (1 - y) * (1 - p)
    weight = 1 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
    return weight * (1 - p_t) ** gamma * _cross_entropy(z, y)


def _poly(z, y, epsilon=2.0, axis=-1, where=True):
    z = np.where(where, z, -np.inf)
    top = z.max(axis, keepdims=True)
    log_p = z - top - np.log(np.sum(np.exp(z - top), axis, keepdims=True))
    terms = y * (np.where(y == 0, 0, -log_p)) + np.expand_dims(epsilon, -1) * y * (
        1 - np.exp(log_p)
    )
    return np.sum(np.where(where, terms, 0), axis)


def _smooth(y, alpha, axis=-1, where=True):
    classes = np.sum(np.broadcast_to(where, y.shape), axis, keepdims=True)
    return (1 - alpha) * y + alpha / classes


def _sparsemax_loss(z, y):
    """The maximum over p of p m − Ω(p) of two classes, on a grid of its corner cases."""
    m = np.where(y != 0, z, -z)
    return np.where(m >= 1, 0, np.where(m <= -1, -m, (1 - m) ** 2 / 4))


def _sparsemax(s):
    """By bisection: the threshold at which the positive parts sum to 1."""
    low, high = s.max() - 1, s.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(s - middle, 0).sum() > 1 else (low, middle)
    support = s > high
    return np.where(support, s - (s[support].sum() - 1) / support.sum(), 0)


def _multiclass_sparsemax(s, y):
    rows = [(one - one[k], _sparsemax(one)) for one, k in zip(s, y, strict=True)]
    return np.array([p @ gap - (p @ p) / 2 + 0.5 for gap, p in rows])


def _log_sum_exp_loss(s, y):
    top = s.max(-1)
    return top + np.log(np.exp(s - top[..., None]).sum(-1)) - (s * y).sum(-1)


def _extreme_rows(scale: float) -> np.ndarray:
    return scale * np.array([[1.0, -1.0, 0.5], [0.0, 0.0, 1.0]])


_UNEVEN = np.array(
    [[9.0, 0, 0, 0, 0, 0, 0], [0, -0.1, -0.52, -0.58, -0.9, -0.95, -0.98]]
)  # the projection of the second needs three thresholds, that of the first one
_INDEXED = {
    "batch": Case((_z, _labels)),
    "extreme": Case((_extreme_rows(1e4), np.array([1, 2]))),
}

FUNCTIONS = {
    "hinge_loss": Function(
        losses.hinge_loss,
        _hinge,
        peer.hinge_loss,
        {
            "scores": Case((_z, _signs)),
            "row": Case((_z, _signs[0])),
            "extreme": Case((_extreme, _extreme / 1e4)),
        },
        single=1e-6,
    ),
    "perceptron_loss": Function(
        losses.perceptron_loss,
        _perceptron,
        peer.perceptron_loss,
        {"scores": Case((_z, _signs)), "integers": Case((_z, _signs.astype(int)))},
        single=1e-6,
    ),
    "multiclass_hinge_loss": Function(
        losses.multiclass_hinge_loss, _multiclass_hinge, peer.multiclass_hinge_loss, _INDEXED
    ),
    "multiclass_perceptron_loss": Function(
        losses.multiclass_perceptron_loss,
        _multiclass_perceptron,
        peer.multiclass_perceptron_loss,
        _INDEXED,
    ),
    "multiclass_sparsemax_loss": Function(
        losses.multiclass_sparsemax_loss,
        _multiclass_sparsemax,
        peer.multiclass_sparsemax_loss,
        _INDEXED | {"near": Case((_z / 9, _labels)), "uneven": Case((_UNEVEN, np.array([0, 2])))},
    ),
    "sparsemax_loss": Function(
        losses.sparsemax_loss,
        _sparsemax_loss,
        peer.sparsemax_loss,
        {"scores": Case((_z / 3, _binary)), "extreme": Case((_extreme, _truth))},
        single=1e-6,
    ),
    "sigmoid_binary_cross_entropy": Function(
        losses.sigmoid_binary_cross_entropy,
        _cross_entropy,
        peer.sigmoid_binary_cross_entropy,
        {
            "integers": Case((_z, _binary)),
            "soft": Case((_z, _soft)),
            "extreme": Case((_extreme, _truth)),
        },
        single=1e-6,
    ),
    "sigmoid_focal_loss": Function(
        losses.sigmoid_focal_loss,
        _focal,
        peer.sigmoid_focal_loss,
        {
            "integers": Case((_z, _binary)),
            "soft": Case((_z, _soft), {"alpha": 0.25}),
            "gamma": Case((_z, _binary), {"gamma": np.float64(0.5), "alpha": np.float64(0.3)}),
            "gammas": Case((_z, _soft), {"gamma": np.array([0.0, 1.0, 2.0, 3.0, 0.3])}),
            "extreme": Case((_extreme, _truth)),
        },
    ),
    "poly_loss_cross_entropy": Function(
        losses.poly_loss_cross_entropy,
        _poly,
        peer.poly_loss_cross_entropy,
        {
            "one-hot": Case((_z, _one_hot)),
            "soft": Case((_z, 0.7 * _soft), {"epsilon": -1.0}),
            "epsilons": Case((_z, _soft), {"epsilon": np.array([1.0, 2.0, 3.0])}),
            "masked": Case((_z, _soft), {"where": _mask}),
            "first axis": Case((_z, _soft), {"axis": 0, "epsilon": 0.5}),
            "all axes": Case((_z, _soft), {"axis": None}),
            "extreme": Case((_extreme_rows(1e4), np.eye(3)[[1, 2]])),
        },
        static=("axis",),
        differentiable=(0, 1),
    ),
    "smooth_labels": Function(
        losses.smooth_labels,
        _smooth,
        peer.smooth_labels,
        {
            "one-hot": Case((_one_hot, 0.1)),
            "alphas": Case((_one_hot, np.array([0.0, 0.1, 0.2, 0.3, 1.0]))),
            "axes": Case((_one_hot, 0.1), {"axis": (0, 1)}),
            "masked": Case((_one_hot, 0.1), {"where": _mask}),
        },
        static=("axis",),
        single=1e-6,
    ),
    "make_fenchel_young_loss": Function(
        losses.make_fenchel_young_loss(jax.nn.logsumexp),
        _log_sum_exp_loss,
        peer.make_fenchel_young_loss(jax.nn.logsumexp),  # pyright: ignore[reportArgumentType]
        {"batch": Case((_z, _soft)), "one": Case((_z[0], _soft[0])), "row": Case((_z, _soft[0]))},
        differentiable=(0, 1),
    ),
}
