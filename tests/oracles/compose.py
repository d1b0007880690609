"""Float64 references, and how whole methods are built from them; nothing of gradtx is imported.

A reference is `rule(g, w, memory, t, **hyperparameters) -> update` on one array; `memory` is a dict
that it keeps between steps, empty before the first; t = 1, 2, 3, ... `each` and `after` build whole
methods, `method(grads, params, memory, t) -> updates` on lists of arrays.
"""

import functools
from typing import Any

import numpy as np


def each(rule, **hyperparams):
    """A rule on every array of a list, each with a memory of its own."""
    return functools.partial(_each, rule, hyperparams)


def _each(rule, hyperparams, grads, params, memory, t):
    return [
        rule(g, w, memory.setdefault(i, {}), t, **hyperparams)
        for i, (g, w) in enumerate(zip(grads, params, strict=True))
    ]


def after(*methods):
    """Methods one after another."""
    return functools.partial(_after, methods)


def _after(methods, grads, params, memory, t):
    for number, method in enumerate(methods):
        grads = method(grads, params, memory.setdefault(("method", number), {}), t)
    return grads


def scale(g, w, memory, t, factor):
    return (factor(t - 1) if callable(factor) else factor) * g


def decay_weights(g, w, memory, t, weight_decay):
    return g + weight_decay * w


def cautious(method):
    """Liang et al. 2024, Algorithm 1, around a method: coordinates that disagree with the gradient
    stand still.
    """
    return functools.partial(_cautious, method)


def _cautious(method, grads, params, memory, t):
    return [
        u * (u * g > 0) * (g.size / (np.sum(u * g > 0) + 1))
        for g, u in zip(grads, method(grads, params, memory, t), strict=True)
    ]


def decay_by_form(u, w, memory, t, weight_decay, form, eta, peak):
    """What joins the direction before the learning rate: independent and corrected decay multiply
    by eta / peak, once in all or twice.
    """
    eta = eta(t - 1) if callable(eta) else eta
    factor = {
        "independent": 1 / peak,
        "corrected": eta / peak,
        "cautious": u * w >= 0,
        "strict_cautious": u * w > 0,
    }[form]
    return u + weight_decay * factor * w


def proximal(u, w, memory, t, weight_decay, learning_rate):
    """The update that takes theta to (theta - eta u) / (1 + eta lambda)."""
    eta = learning_rate(t - 1) if callable(learning_rate) else learning_rate
    return (w - eta * u) / (1 + eta * weight_decay) - w


def descend(method, learning_rate, weight_decay=0.0):
    """theta <- theta - eta (u + lambda theta)."""
    return after(
        method,
        each(decay_weights, weight_decay=weight_decay),
        each(scale, factor=_minus(learning_rate)),
    )


def _minus(rate: Any) -> Any:
    return functools.partial(_minus_at, rate) if callable(rate) else -rate


def _minus_at(rate: Any, count: Any) -> Any:
    return -rate(count)
