"""Float64 references of transfer: the tables of muP and of the spectral condition, by hand.

The trees of the tests name no roles: an array of two axes and more is a hidden matrix, one of one
axis a vector, and a scalar does not grow.
"""

from typing import Any

from tests.oracles.core import adam
from tests.oracles.muon import hyperball, muon


def eta(rate: Any, t: int) -> Any:
    return rate(t - 1) if callable(rate) else rate


def adamw(g, w, memory, t, rate, eps, decay, growth):
    """Yang et al. 2022, Table 8, and Dey et al. 2025, Table 1; without numbers in paths no array is
    in a block, so that depth changes nothing.
    """
    entries = eps / growth if g.ndim else eps
    u = adam(g, w, memory, t, eps=entries)
    if g.ndim > 1:
        return -eta(rate, t) / growth * (u + decay * growth * w)
    return -eta(rate, t) * (u + decay * w)


def match_rms_muon(g, w, memory, t, rate, decay, growth, exponent):
    """Muon whose factor 0.2 √max grows as √growth, which the spectral condition takes away."""
    if g.ndim < 2:
        return -eta(rate, t) * adam(
            g, w, memory, t, eps=1e-8 / growth if g.ndim else 1e-8, nesterov=True
        )
    u = muon(g, w, memory, t, scaling="match_rms_adamw") / growth**0.5
    return -eta(rate, t) * (u + decay / growth**exponent * w)


def trace_h(g, w, memory, t, rate):
    """A step of constant angle has no factor of width."""
    memory["sum"] = g + 0.5 * memory.get("sum", 0.0)
    return hyperball(memory["sum"], w, memory, t, rate)


def sgd(g, w, memory, t, rate, decay, growth, momentum):
    """A gradient of a hidden matrix shrinks with the width as its update must; that of a vector
    shrinks, and its update must not.
    """
    factor = growth if g.ndim == 1 else 1.0
    memory["sum"] = g + decay / factor * w + momentum * memory.get("sum", 0.0)
    return -eta(rate, t) * factor * memory["sum"]
