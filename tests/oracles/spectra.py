"""Float64 references of spectra and of other methods in the place of Muon's factor."""

import numpy as np

from tests.oracles.muon import POLAR, by_matrix, factor, matrices, momentum, polar

SERIES = {
    0.25: (
        *(0.270227, 0.140987, 0.083943, 0.092455, 0.05426, 0.068571, 0.034603),
        *(0.0522, 0.020673, 0.040928, 0.009061, 0.0, 0.132487),
    )
}
"""Coefficients of the power, by a linear program of one's own: tests/unit/linalg/test_spectra.py
solves it again.
"""


def schatten(x):
    """The 4-norm of singular values."""
    return np.sum(np.linalg.svd(x, compute_uv=False) ** 4) ** 0.25


def soft_polar(x, alpha, eps=1e-8):
    u = x / (schatten(x) + eps)
    o = _polar_of(u)
    blend = (1 - alpha) * o + alpha * u * schatten(o) / schatten(u)
    return blend * schatten(o) / schatten(blend)


def _polar_of(u):
    """The five published polynomials on a matrix that is scaled already."""
    left, sigma, right = np.linalg.svd(u, full_matrices=False)
    for a, b, c in POLAR:
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return (left * sigma) @ right


def contraction(x, tau, eps=1e-8):
    left, sigma, right = np.linalg.svd(x, full_matrices=False)
    sigma = sigma / (schatten(x) + eps)
    return (left * (sigma / np.sqrt(sigma**2 + tau**-2))) @ right


def tilt(x, p, eps=1e-8):
    u, d = x / (schatten(x) + eps), p / 2
    e = u @ u.T - np.eye(len(u))
    return (np.eye(len(u)) + d * e + d * (d - 1) / 2 * e @ e) @ _polar_of(u)


def power(x, p, blend, eps=1e-8):
    left, sigma, right = np.linalg.svd(x, full_matrices=False)
    one = sigma / (schatten(x) + eps)
    total = SERIES[p][0] * one
    for c in SERIES[p][1:]:
        one = 2 * one - 1.5 * one**3 + 0.5 * one**5
        total = total + c * one
    return (left * (blend * total + (1 - blend) * one)) @ right


def muon_by(g, w, memory, t, spectrum, beta=0.95, nesterov=True, debias=True, scaling="none"):
    """Muon with another function of singular values."""
    moved = momentum(g, memory, t, beta, nesterov, debias)
    return factor(scaling, g.shape) * by_matrix(spectrum, moved)


def normuon_by(g, w, memory, t, spectrum, b2=0.9):
    o = by_matrix(spectrum, momentum(g, memory, t, 0.95, True, True))
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * np.mean(o**2, axis=-2)
    even = o / (np.sqrt(v) + 1e-10)[..., None, :]
    return by_matrix(lambda x, y: y * np.linalg.norm(x) / np.linalg.norm(y), o, even)


def adamuon_by(g, w, memory, t, spectrum, beta=0.95, eps=1e-8):
    o = by_matrix(spectrum, np.sign(momentum(g, memory, t, beta, False, True)))
    v = memory["v"] = beta * memory.get("v", 0.0) + (1 - beta) * o**2
    return by_matrix(lambda d: 0.2 * d.size**0.5 * d / np.linalg.norm(d), o / (np.sqrt(v) + eps))


def scion_by(g, w, memory, t, spectrum, radius=1.0):
    moved = momentum(g, memory, t, 0.9, False, False)
    return radius * factor("spectral", g.shape) * by_matrix(spectrum, moved)


def unit_outputs(x):
    return x / (np.linalg.norm(x, axis=-2, keepdims=True) + 1e-8)


def unit_inputs(x):
    return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-8)


def muon_plus(g, w, memory, t):
    """Muon+: outputs, then inputs of the factor at length 1; before it the inputs of the
    momentum.
    """
    moved = momentum(g, memory, t, 0.95, True, True)
    return unit_inputs(unit_outputs(by_matrix(polar, unit_inputs(moved))))


def whiten(x, passes):
    """MUD: Gram and Schmidt's lower triangle on the shorter axis."""
    if x.shape[0] > x.shape[1]:
        return whiten(x.T, passes).T
    q = x / np.linalg.norm(x, axis=1, keepdims=True)
    for _ in range(passes):
        q = np.linalg.solve(np.tril(q @ q.T), q)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    return q


def mud(g, w, memory, t, passes=1, beta=0.95, scaling="none"):
    moved = momentum(g, memory, t, beta, True, True)
    return factor(scaling, g.shape) * by_matrix(lambda x: whiten(x, passes), moved)


def muown(g, w, memory, t, eta, decay=0.0, beta=0.95, b1=0.9, b2=0.95, eps=1e-8):
    """Weight normalization by outputs: the factor on directions, Adam on lengths."""

    def one(g, w, own):
        gain = own.setdefault("gain", np.linalg.norm(w, axis=0))
        v = own.setdefault("v", w.copy())
        r = np.linalg.norm(v, axis=0)
        u = w / gain
        d_gain = np.sum(g * u, axis=0)
        m = own["m"] = beta * own.get("m", 0.0) + (1 - beta) * gain / r * (g - u * d_gain)
        v = own["v"] = v - eta(t - 1) * 0.2 * max(w.shape) ** 0.5 * polar(m)
        first = own["mu"] = b1 * own.get("mu", 0.0) + (1 - b1) * d_gain
        second = own["nu"] = b2 * own.get("nu", 0.0) + (1 - b2) * d_gain**2
        adam = first / (1 - b1**t) / (np.sqrt(second / (1 - b2**t)) + eps)
        gain = own["gain"] = (1 - eta(t - 1) * decay) * gain - eta(t - 1) * adam
        return gain * v / np.linalg.norm(v, axis=0) - w

    owns = memory.setdefault("own", [{} for _ in matrices(g)])
    moved = [one(*args) for args in zip(matrices(g), matrices(w), owns, strict=True)]
    return np.stack(moved).reshape(g.shape)


def by_input_moments(grads, params, memory, t, input_moments):
    """Newton-Muon's preconditioner on a list of arrays, with moments by path."""

    def solve(g, c):
        c = np.asarray(c, np.float64)
        gamma = 0.3 * np.trace(c, axis1=-2, axis2=-1)[..., None, None] / c.shape[-1] + 1e-8
        return np.linalg.solve(c + gamma * np.eye(c.shape[-1]), g)

    return [solve(g, input_moments[str(i)]) if g.ndim > 1 else g for i, g in enumerate(grads)]
