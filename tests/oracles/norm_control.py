"""Float64 references of norm control, written from the equations. A matrix is (inputs, outputs)."""

from typing import Any

import numpy as np

from tests.oracles import core
from tests.oracles.muon import by_matrix, polar, where_matrix


def whole(rule):
    """A rule on two matrices as one on arrays; a vector is a matrix of one row."""

    def on_array(u, w, memory, t, **told):
        rows, start = (x if x.ndim > 1 else x.reshape(1, -1) for x in (u, w))
        return by_matrix(lambda a, b: rule(a, b, **told), rows, start).reshape(u.shape)

    return on_array


def at(rate: Any, t: int) -> Any:
    return rate(t - 1) if callable(rate) else rate


def nrm(x):
    return x / np.linalg.norm(x)


@whole
def on_current_sphere(u, w, eta):
    length = np.linalg.norm(w)
    return length * nrm(w - eta * u * length / np.linalg.norm(u)) - w


@whole
def on_fixed_sphere(u, w, eta, radius):
    return radius * nrm(w - eta * radius * nrm(u)) - w


@whole
def brake(u, w, outward=0.5, inward=1.0):
    """Tangent and radial part, the second of which is damped."""
    c = np.sum(u * w) / np.sum(w * w)
    return (u - c * w) + (outward if c < 0 else inward) * c * w


@whole
def floor_of_matrix(u, w, ratio):
    least = ratio * np.linalg.norm(w)
    return u * (least / np.linalg.norm(u)) if np.linalg.norm(u) < least else u


@whole
def floor_of_outputs(u, w, ratio):
    lengths, weights = np.linalg.norm(u, axis=0), np.linalg.norm(w, axis=0)
    raised = u * np.maximum(1.0, ratio * weights / lengths)
    return nrm(raised) * max(np.linalg.norm(u), ratio * np.linalg.norm(w))


@whole
def relative(u, w):
    return nrm(u) * np.linalg.norm(w)


@whole
def retract_current(u, w, outward=0.0, inward=0.0):
    before, after = np.linalg.norm(w), np.linalg.norm(w + u)
    share = outward if after > before else inward
    return nrm(w + u) * (before + share * (after - before)) - w


@whole
def retract_first_order(u, w):
    return nrm(w + u) * (np.linalg.norm(w) + np.sum(u * w) / np.linalg.norm(w)) - w


@whole
def retract_fixed(u, w, radius):
    return nrm(w + u) * radius - w


def retract_initial(u, w, memory, t):
    rows, start = (x if x.ndim > 1 else x.reshape(1, -1) for x in (u, w))
    lengths = memory.setdefault("r", np.linalg.norm(start, axis=(-2, -1), keepdims=True))
    moved = start + rows
    new = lengths * moved / np.linalg.norm(moved, axis=(-2, -1), keepdims=True)
    return (new - start).reshape(u.shape)


def decay_after(rule, eta, decay, form):
    """Around a rule, whose input is minus eta times the direction U."""

    def on_array(u, w, memory, t):
        direction = -u
        moved = w + rule(u, w, memory, t)
        agrees = direction * w
        mask = {
            "decoupled": np.ones(w.shape),
            "cautious": 1.0 * (agrees >= 0),
            "strict_cautious": 1.0 * (agrees > 0),
        }[form]
        return moved * (1 - at(eta, t) * decay * mask) - w

    return on_array


def huber(rule, eta, decay, delta):
    """AdamHD's proximal step: theta - eta u, then the proximal map of eta lambda times Huber's
    loss.
    """

    def on_array(g, w, memory, t):
        moved = w - at(eta, t) * rule(g, w, memory, t)
        q = at(eta, t) * decay
        near = np.abs(moved) <= (1 + q) * delta
        return np.where(near, moved / (1 + q), moved - q * delta * np.sign(moved)) - w

    return on_array


def record(g, w, memory, t, eta, beta=0.95, ratio=0.3825, decay=0.025):
    """The whole stack of the record, in one piece: orthogonal factor, brake, floor, target radius,
    step, rescaling, cautious decay.
    """
    m = memory["m"] = beta * memory.get("m", 0.0) + (1 - beta) * g
    debiased = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
    rate = at(eta, t)

    def one(moment, weight):
        u = polar(moment)
        c = np.sum(u * weight) / np.linalg.norm(weight) ** 2
        u = (u - c * weight) + (0.5 if c < 0 else 1.0) * c * weight
        size = np.linalg.norm(u)
        factors = ratio * np.linalg.norm(weight, axis=0) / np.linalg.norm(u, axis=0)
        u = np.maximum(1.0, factors) * u
        u *= max(size, ratio * np.linalg.norm(weight)) / np.linalg.norm(u)
        target = np.linalg.norm(weight) - rate * np.sum(u * weight) / np.linalg.norm(weight)
        moved = weight - rate * u
        moved *= target / np.linalg.norm(moved)
        return moved * (1 - rate * decay * (u * weight > 0)) - weight

    return by_matrix(one, debiased, w)


def sphere_or_adam(rule, eta, share=3 / 13, **told):
    """A direction on spheres for arrays of two axes and more, AdamW without decay for the rest."""

    def on_sphere(g, w, memory, t):
        u = rule(g, w, memory, t, **told)
        lengths = memory.setdefault("r", np.linalg.norm(w, axis=(-2, -1), keepdims=True))
        size = np.linalg.norm(u, axis=(-2, -1), keepdims=True)
        moved = w - at(eta, t) * lengths * u / size
        return lengths * moved / np.linalg.norm(moved, axis=(-2, -1), keepdims=True) - w

    def adam(g, w, memory, t):
        return -share * at(eta, t) * core.adam(g, w, memory, t)

    return where_matrix(on_sphere, adam)
