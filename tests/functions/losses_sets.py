"""Losses of lists, regions, batches and triplets."""

import numpy as np
import optax.losses as peer

from gradtx import losses
from tests.functions.row import Case, Function

_RANDOM = np.random.default_rng(2)
_z = _RANDOM.normal(size=(3, 4)) * 2
_relevance = np.array([[3, 0, 1, 0], [0, 0, 0, 0], [1, 1, 2, 0]])
_items = np.array([[True, True, True, False], [True, True, False, False], [False] * 4])
_weights = _RANDOM.random((3, 4))
_logits = _RANDOM.normal(size=(2, 4, 5, 3)) * 2
_regions = np.eye(3)[_RANDOM.integers(0, 3, (2, 4, 5))]
_probabilities = _RANDOM.dirichlet(np.ones(3), size=(2, 4, 5))
_rows = _RANDOM.normal(size=(6, 3))
_a, _p, _n = _RANDOM.normal(size=(3, 4, 3))


def _softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _ranking(z, y, where=None, weights=1.0, reduce_fn=np.mean):
    mask = np.ones(z.shape, bool) if where is None else where
    sums = np.where(mask, np.exp(z), 0).sum(-1, keepdims=True)
    log_p = np.where(mask, z - np.log(np.where(sums == 0, 1, sums)), 0)
    loss = -np.sum(np.where(mask, y * weights * log_p, 0), -1)
    return loss if reduce_fn is None else np.mean(loss[mask.any(-1)])


def _dice_per_class(p, t, smooth=1.0, alpha=0.5, beta=0.5, axis=None):
    axis = tuple(range(1, p.ndim - 1)) if axis is None else axis
    both = np.sum(p * t, axis)
    false_positive, false_negative = np.sum(p, axis) - both, np.sum(t, axis) - both
    return 1 - (both + smooth) / (both + alpha * false_positive + beta * false_negative + smooth)


def _dice(
    z,
    t,
    class_weights=None,
    apply_softmax=True,
    reduction="mean",
    ignore_background=False,
    **kwargs,
):
    p = z if not apply_softmax else _softmax(z) if z.shape[-1] > 1 else _sigmoid(z)
    loss = _dice_per_class(p, t.reshape(p.shape), **kwargs)
    loss = loss if class_weights is None else loss * class_weights
    loss = loss[..., 1:] if ignore_background else loss
    return {"mean": loss.mean(-1), "sum": loss.sum(-1), "none": loss}[reduction]


def _binary_dice(z, t, smooth=1.0):
    return _dice_per_class(_sigmoid(z)[..., None], t[..., None], smooth)[..., 0]


def _generalized_dice(z, t, smooth=1.0, apply_softmax=True, ignore_background=False):
    weights = 1 / (t.sum(tuple(range(t.ndim - 1))) ** 2 + 1e-7)
    loss = _dice_per_class(_softmax(z) if apply_softmax else z, t, smooth)
    loss = loss * weights * t.shape[-1] / weights.sum()
    return (loss[..., 1:] if ignore_background else loss).mean()


def _ntxent(x, groups, temperature=0.07):
    unit = x / np.sqrt(np.sum(x * x, -1, keepdims=True))
    s = unit @ unit.T / temperature
    terms = []
    for i, j in np.ndindex(s.shape):
        if i != j and groups[i] == groups[j]:
            others = np.exp(s[i][groups != groups[i]]).sum()
            terms.append(np.log(np.exp(s[i, j]) + others) - s[i, j])
    return np.mean(terms)


def _triplet(a, p, n, axis=-1, norm_degree=2, margin=1.0, eps=1e-6):
    def distance(left, right):
        gap = np.abs(left - right)
        if norm_degree == np.inf:
            return gap.max(axis)
        return (np.sum(gap**norm_degree, axis) + eps) ** (1 / norm_degree)

    return np.maximum(0, distance(a, p) - distance(a, n) + margin)


_OPTIONS = ("apply_softmax", "reduction", "ignore_background", "axis")

FUNCTIONS = {
    "ranking_softmax_loss": Function(
        losses.ranking_softmax_loss,
        _ranking,
        peer.ranking_softmax_loss,
        {
            "batch": Case((_z, _relevance)),
            "lists": Case((_z, _relevance), {"reduce_fn": None, "weights": _weights}),
            "masked": Case((_z, _relevance), {"where": _items}),
            "masked lists": Case((_z, _relevance), {"where": _items, "reduce_fn": None}),
        },
        static=("reduce_fn",),
    ),
    "dice_loss": Function(
        losses.dice_loss,
        _dice,
        peer.dice_loss,
        {
            "images": Case((_logits, _regions)),
            "classes": Case(
                (_logits, _regions),
                {"class_weights": np.array([1.0, 2.0, 3.0]), "reduction": "none"},
            ),
            "tversky": Case(
                (_logits, _regions),
                {"alpha": 0.3, "beta": 0.7, "smooth": 0.1, "reduction": "sum"},
            ),
            "foreground": Case((_logits, _regions), {"ignore_background": True}),
            "axes": Case((_logits, _regions), {"axis": (0, 1), "reduction": "none"}),
            "binary": Case((_logits[..., :1], _regions[..., 0])),
        },
        static=_OPTIONS,
        differentiable=(0, 1),
    ),
    # Optax asks for the values of probabilities, which jit does not have.
    "dice_loss/probabilities": Function(
        losses.dice_loss,
        _dice,
        None,
        {"images": Case((_probabilities, _regions), {"apply_softmax": False})},
        static=_OPTIONS,
        differentiable=(1,),  # outside of jit, moved probabilities are an error
        reason="Optax cannot trace apply_softmax=False",
    ),
    "binary_dice_loss": Function(
        losses.binary_dice_loss,
        _binary_dice,
        peer.binary_dice_loss,
        {
            "images": Case((_logits[..., 0], _regions[..., 0])),
            "smooth": Case((_logits[..., 0], _regions[..., 0]), {"smooth": 0.01}),
        },
        differentiable=(0, 1),
    ),
    "multiclass_generalized_dice_loss": Function(
        losses.multiclass_generalized_dice_loss,
        _generalized_dice,
        peer.multiclass_generalized_dice_loss,
        {
            "images": Case((_logits, _regions)),
            "foreground": Case((_logits, _regions), {"ignore_background": True, "smooth": 0.1}),
        },
        static=("apply_softmax", "ignore_background"),
        differentiable=(0, 1),
    ),
    "ntxent": Function(
        losses.ntxent,
        _ntxent,
        peer.ntxent,
        {
            "pairs": Case((_rows, np.array([0, 0, 1, 1, 2, 2]))),
            "groups": Case((_rows, np.array([5, 5, 5, 1, 1, 0]), 0.5)),
            "one group": Case((_rows, np.zeros(6, int))),
        },
        single=2e-5,  # 1/T is 14: the rounding of a cosine is multiplied by it
    ),
    "triplet_margin_loss": Function(
        losses.triplet_margin_loss,
        _triplet,
        peer.triplet_margin_loss,
        {
            "batch": Case((_a, _p, _n)),
            "margin": Case((_a, _p, _n), {"margin": 3.0, "eps": 0.1}),
            "axis": Case((_a, _p, _n), {"axis": 0}),
            "degree": Case((_a, _p, _n), {"norm_degree": 4}),
        },
        static=("axis", "norm_degree"),
        differentiable=(0, 1, 2),
    ),
    "triplet_margin_loss/degrees": Function(
        losses.triplet_margin_loss,
        _triplet,
        None,
        {
            "city block": Case((_a, _p, _n), {"norm_degree": 1, "margin": 3.0}),
            "cubes": Case((_a, _p, _n), {"norm_degree": 3.0}),
            "largest": Case((_a, _p, _n), {"norm_degree": float("inf"), "margin": 2.0}),
        },
        static=("axis", "norm_degree"),
        differentiable=(0, 1, 2),
        reason="Optax sums powers of signed differences",
    ),
}
