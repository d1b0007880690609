"""Losses of regression, cosines, and divergences."""

import warnings

import numpy as np
import optax.losses as peer

from gradtx import losses
from tests.functions.row import Case, Function

_RANDOM = np.random.default_rng(0)
_x, _y = _RANDOM.normal(size=(2, 3, 4)) * 2
_wide = np.array([-1e4, -30.0, -1e-3, 0.3, 2.0, 1e4])
_mask = np.array([[True, False, True, True], [True] * 4, [False, True, False, False]])
_p, _q = _RANDOM.dirichlet(np.ones(4), size=(2, 3))
_hole = np.where(_mask, _x, np.nan)
_sparse = np.where(_p < 0.2, 0.0, _p)


def _squared_error(p, t=0.0):
    return (p - t) ** 2


def _l2_loss(p, t=0.0):
    return (p - t) ** 2 / 2


def _huber_loss(p, t=0.0, delta=1.0):
    e = np.abs(p - t)
    return np.where(e <= delta, e**2 / 2, delta * (e - delta / 2))


def _log_cosh(p, t=0.0):
    e = np.abs(p - t)
    return e + np.log1p(np.exp(-2 * e)) - np.log(2)


def _cosine_similarity(p, t, epsilon=0.0, axis=-1, where=True):
    p, t = (np.where(where, one, 0) for one in np.broadcast_arrays(p, t))
    squares = [np.maximum(np.sum(one**2, axis), epsilon) for one in (p, t)]
    return np.sum(p * t, axis) / np.sqrt(squares[0] * squares[1])


def _cosine_distance(p, t, **kwargs):
    return 1 - _cosine_similarity(p, t, **kwargs)


def _kl(log_q, t, axis=-1, where=True):
    terms = np.where(t > 0, t * (np.log(np.where(t > 0, t, 1)) - log_q), 0)
    return np.sum(np.where(where, terms, 0), axis)


def _kl_of_logs(log_q, log_t, axis=-1, where=True):
    return np.sum(np.where(where, np.exp(log_t) * (log_t - log_q), 0), axis)


def _generalized_kl(log_q, t, axis=-1, where=True):
    rest = np.sum(np.where(where, np.exp(log_q) - t, 0), axis)
    return _kl(log_q, t, axis, where) + rest


def _quiet(function):
    """A function without the warning that its name is old."""

    def call(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return function(*args, **kwargs)

    return call


_COSINES = {
    "batch": Case((_x, _y)),
    "one target": Case((_x, _y[0])),
    "floor": Case((_x * 1e-3, _y), {"epsilon": 0.1}),
    "masked": Case((_x, _y), {"where": _mask}),
    "axes": Case((_x, _y), {"axis": (0, 1)}),
    "all axes": Case((_x, _y), {"axis": None}),
}
_DIVERGENCES = {
    "batch": Case((np.log(_q), _p)),
    "one target": Case((np.log(_q), _p[0])),
    "not normalised": Case((_x, 3 * _p)),
    "masked": Case((np.log(_q), _p), {"where": _mask}),
    "first axis": Case((np.log(_q), _p), {"axis": 0}),
    "all axes": Case((np.log(_q), _p), {"axis": None}),
}
_ENTRIES = {"errors": Case((_x, _y)), "alone": Case((_x,)), "extreme": Case((_wide,))}
_POINTS = Case((_x, _y[0]))

FUNCTIONS = {
    "squared_error": Function(
        losses.squared_error, _squared_error, peer.squared_error, _ENTRIES, single=1e-6
    ),
    "l2_loss": Function(losses.l2_loss, _l2_loss, peer.l2_loss, _ENTRIES, single=1e-6),
    "huber_loss": Function(
        losses.huber_loss,
        _huber_loss,
        peer.huber_loss,
        _ENTRIES | {"delta": Case((_x, _y), {"delta": np.float64(0.4)}), "row": _POINTS},
        single=1e-6,
    ),
    "log_cosh": Function(
        losses.log_cosh, _log_cosh, peer.log_cosh, _ENTRIES | {"row": _POINTS}, single=1e-6
    ),
    "cosine_similarity": Function(
        losses.cosine_similarity,
        _cosine_similarity,
        peer.cosine_similarity,
        _COSINES,
        static=("axis",),
        differentiable=(0, 1),
    ),
    "cosine_distance": Function(
        losses.cosine_distance,
        _cosine_distance,
        peer.cosine_distance,
        _COSINES,
        static=("axis",),
        differentiable=(0, 1),
    ),
    "kl_divergence": Function(
        losses.kl_divergence,
        _kl,
        peer.kl_divergence,
        _DIVERGENCES | {"zeros": Case((np.log(_q), _sparse))},
        static=("axis",),
    ),
    "kl_divergence_with_log_targets": Function(
        losses.kl_divergence_with_log_targets,
        _kl_of_logs,
        peer.kl_divergence_with_log_targets,
        {name: Case((a.args[0], np.log(a.args[1])), a.kwargs) for name, a in _DIVERGENCES.items()},
        static=("axis",),
        differentiable=(0, 1),
    ),
    "generalized_kl_divergence": Function(
        losses.generalized_kl_divergence,
        _generalized_kl,
        peer.generalized_kl_divergence,
        _DIVERGENCES | {"zeros": Case((np.log(_q), _sparse))},
        static=("axis",),
    ),
    "convex_kl_divergence": Function(
        _quiet(losses.convex_kl_divergence),
        _generalized_kl,
        _quiet(peer.convex_kl_divergence),
        {"batch": Case((np.log(_q), _p))},
        static=("axis",),
    ),
}
