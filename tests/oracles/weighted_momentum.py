"""Float64 references of momentum kernels, written from the equations: averages that start as copies
of one, and weights of the gradients themselves. Nothing of gradtx is imported.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import root

from tests.oracles import muon as matrices


class Averages(NamedTuple):
    """D = sum of w_k m_k, each m_k divided by its own mass."""

    parts: list[tuple[float, Any, float, float]]

    def mean(self, masses=None):
        return sum(w * m for w, m, _, _ in self.parts)

    def corrected(self):
        return sum(w * m / mass for w, m, mass, _ in self.parts)

    def ahead(self):
        """Divided by the masses that the averages will have one step later."""
        return sum(w * m / later for w, m, _, later in self.parts)


def averages(g, memory, t, decays, weights, mu, start=None):
    """The single average until the switch; at the switch it is advanced once more and gives the
    update, and all buffers start as copies of it. The mass of an average is that of ones.
    """
    now: Any = weights(t - 1) if callable(weights) else weights
    if start is not None and t <= start + 1:
        m, mass = memory.get("single", (np.zeros_like(g), 0.0))
        m, mass = memory["single"] = mu * m + (1 - mu) * g, mu * mass + (1 - mu)
        if t == start + 1:
            memory["buffers"] = [(m, mass)] * len(decays)
        return Averages([(1.0, m, mass, mu * mass + 1 - mu)])
    old = memory.get("buffers", [(np.zeros_like(g), 0.0)] * len(decays))
    memory["buffers"] = [
        (b * m + (1 - b) * g, b * mass + (1 - b)) for b, (m, mass) in zip(decays, old, strict=True)
    ]
    return Averages(
        [
            (w, m, mass, b * mass + 1 - b)
            for w, b, (m, mass) in zip(now, decays, memory["buffers"], strict=True)
        ]
    )


def k_maxwell(number, ages, first, last, start, length):
    """The decays of log-spaced ages, and weights by their own linear system: w_k in proportion to k
    but for the last, sum 1, mean age A.
    """
    tau = np.exp(np.linspace(np.log(ages[0]), np.log(ages[1]), number))

    def weights_of(age):
        ramp = np.arange(1.0, number)
        rows = np.array([[ramp.sum(), 1.0], [ramp @ tau[:-1], tau[-1]]])
        a, w = np.linalg.solve(rows, [1.0, age])
        return np.append(a * ramp, w)

    def weights(count):
        f = min(max((count - start) / length, 0.0), 1.0)
        return (1 - f) * weights_of(first) + f * weights_of(last)

    return tau / (1 + tau), weights


def max_entropy(number, age, log_age, newest):
    """The exponential family whose moments are as asked, found by a root finder."""
    k = np.arange(2, number)
    mass = 1 - sum(newest)
    features = np.stack([(-1.0) ** k, k / number, np.log1p(k)])
    wanted = np.array([newest[1] - newest[0], (age - newest[1]) / number, 0.0])
    wanted[2] = log_age - newest[1] * np.log(2)

    def tail(theta):
        weights = np.exp(theta @ features)
        return mass * weights / weights.sum()

    found = root(lambda theta: features @ tail(theta) - wanted, np.zeros(3), tol=1e-15)
    return np.append(newest, tail(found.x))


class Taps(NamedTuple):
    """The early and the late weights of the last gradients, and when they act."""

    early: Any
    late: Any
    start: int
    length: int

    def at(self, count):
        f = min(max((count - self.start) / self.length, 0.0), 1.0)
        return (1 - f) * self.early + f * self.late


def newest_first(g, memory, t, taps, upto):
    """The weighted sum of the gradients before `upto`, the newest first, and the weights' sum."""
    weights = taps.at(t - 1)
    recent = memory["gradients"][:upto][::-1][: len(weights)]
    pairs = list(zip(weights, recent, strict=False))
    return sum(w * x for w, x in pairs), sum(w for w, _ in pairs)


def taps_mean(g, memory, t, taps, mu, debias=True, nesterov=False):
    """The plain average before the start, the weighted gradients from there, without look-ahead."""
    memory.setdefault("gradients", []).append(g)
    m = memory["single"] = mu * memory.get("single", np.zeros_like(g)) + (1 - mu) * g
    if t <= taps.start:
        if nesterov and debias:
            return mu * m / (1 - mu ** (t + 1)) + (1 - mu) * g / (1 - mu**t)
        return m / (1 - mu**t) if debias else m
    total, mass = newest_first(g, memory, t, taps, t)
    return total / mass if debias else total


def averages_mean(g, memory, t, mu, nesterov=False, debias=True, **kernel):
    """D, or mu D + (1 - mu) g with Nesterov; corrected for the start at zero where asked."""
    found = averages(g, memory, t, mu=mu, **kernel)
    if not debias:
        return mu * found.mean() + (1 - mu) * g if nesterov else found.mean()
    return mu * found.ahead() + (1 - mu) * g / (1 - mu**t) if nesterov else found.corrected()


def adam(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-8, **kernel):
    mean = averages_mean(g, memory, t, b1, **kernel)
    v = memory["v"] = b2 * memory.get("v", np.zeros_like(g)) + (1 - b2) * g * g
    return mean / (np.sqrt(v / (1 - b2**t)) + eps)


def lion(g, w, memory, t, taps, b1=0.9, b2=0.99):
    """Lion with the weighted gradients of the steps before in the place of its memory."""
    history = memory.setdefault("gradients", [])
    old = memory.get("m", np.zeros_like(g))
    if t - 1 > taps.start:
        old = newest_first(g, memory, t, taps, t - 1)[0]
    memory["m"] = b2 * memory.get("m", np.zeros_like(g)) + (1 - b2) * g
    history.append(g)
    return np.sign(b1 * old + (1 - b1) * g)


def momentum(g, w, memory, t, mu=0.95, **kernel):
    return averages_mean(g, memory, t, mu, **kernel)


def weighted(g, w, memory, t, mu=0.95, **kernel):
    return taps_mean(g, memory, t, mu=mu, **kernel)


def muon(g, w, memory, t, mu=0.95, scaling="none", **kernel):
    moved = averages_mean(g, memory, t, mu, nesterov=True, **kernel)
    direction = matrices.by_matrix(matrices.polar, moved)
    return matrices.factor(scaling, g.shape) * direction
