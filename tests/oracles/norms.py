"""Float64 references of methods that factor, normalise and take signs, written from the papers;
nothing of gradtx is imported.
"""

import itertools
from typing import Any

import numpy as np

# transforms


def sign(g, w, memory, t):
    return np.sign(g)


def trust_ratio(g, w, memory, t, min_norm=0.0, coefficient=1.0, eps=0.0):
    """You et al. 2017 and 2020."""
    ours, theirs = max(np.sqrt(np.sum(w**2)), min_norm), max(np.sqrt(np.sum(g**2)), min_norm)
    return g if 0 in (ours, theirs) else coefficient * ours / (theirs + eps) * g


def times_norm(g, w, memory, t, least):
    return max(np.sqrt(np.sum(w**2)), least) * g


def times_rms(g, w, memory, t, least):
    return max(np.sqrt(np.mean(w**2)), least) * g


def centralize(g, w, memory, t, axis=None):
    """Yong et al. 2020."""
    if g.ndim < 2:
        return g
    return g - np.mean(g, axis=tuple(range(1, g.ndim)) if axis is None else axis, keepdims=True)


def normalize(grads, params, memory, t, scale=1.0, eps=0.0):
    norm = np.sqrt(sum(float(np.sum(g**2)) for g in grads))
    return [scale * g / (norm + eps) for g in grads]


def adaptive_clip(g, w, memory, t, clipping, eps=1e-3, axes=None):
    """Brock et al. 2021, equation 3; matrices are (inputs, outputs)."""
    axes = {0: (), 1: (0,), 2: (0,), 3: (0,)}[g.ndim] if axes is None else axes
    bound = clipping * np.maximum(np.sqrt(np.sum(w**2, axis=axes, keepdims=True)), eps)
    norm = np.sqrt(np.sum(g**2, axis=axes, keepdims=True))
    return np.where(norm > bound, bound * g / norm, g)


# methods


def signum(g, w, memory, t, beta):
    """Bernstein et al. 2018, Algorithm 2."""
    memory["m"] = beta * memory.get("m", np.zeros_like(g)) + (1 - beta) * g
    return np.sign(memory["m"])


def adadelta(g, w, memory, t, rho=0.9, eps=1e-6):
    """Zeiler 2012, Algorithm 1, its minus left to the step down."""
    e = memory["e"] = rho * memory.get("e", np.zeros_like(g)) + (1 - rho) * g**2
    x = memory.get("x", np.zeros_like(g))
    u = np.sqrt(x + eps) / np.sqrt(e + eps) * g
    memory["x"] = rho * x + (1 - rho) * u**2
    return u


def rprop(g, w, memory, t, start, shrink=0.5, grow=1.2, least=1e-6, most=50.0):
    """Igel and Huesken 2000, iRprop-: entry by entry, its minus left to the step down."""
    size, before = memory.get("size", np.full(g.shape, start)), memory.get("g", np.zeros(g.shape))
    size, g, u = np.array(size), np.array(g), np.zeros(g.shape)
    for i in np.ndindex(g.shape):
        if g[i] * before[i] > 0:
            size[i] = min(size[i] * grow, most)
        elif g[i] * before[i] < 0:
            size[i] = max(size[i] * shrink, least)
            g[i] = 0.0
        u[i] = size[i] * np.sign(g[i])
    memory["size"], memory["g"] = size, g
    return u


def sm3(g, w, memory, t, b1=0.9, b2=1.0, eps=1e-8):
    """Anil et al. 2019, SM3-II, cover by cover: one for every index of every axis; with b2 < 1
    averages in place of sums.
    """
    shape = g.shape or (1,)
    covers = memory.setdefault(
        "mu", {(axis, i): 0.0 for axis, size in enumerate(shape) for i in range(size)}
    )
    square, fresh = np.zeros(shape), dict.fromkeys(covers, 0.0)
    for index in itertools.product(*map(range, shape)):
        least = min(covers[axis, i] for axis, i in enumerate(index))
        square[index] = b2 * least + (1.0 if b2 == 1 else 1 - b2) * g.reshape(shape)[index] ** 2
        for axis, i in enumerate(index):
            fresh[axis, i] = max(fresh[axis, i], square[index])
    covers.update(fresh)
    memory["m"] = b1 * memory.get("m", np.zeros_like(g)) + (1 - b1) * g / np.sqrt(
        square.reshape(g.shape) + eps
    )
    return memory["m"]


def madgrad(g, w, memory, t, learning_rate: Any, momentum=0.9, eps=1e-6, decay=0.0):
    """Defazio and Jelassi 2021, Algorithm 1, with eps beside the learning rate as in their code;
    the step downwards.
    """
    rate: Any = learning_rate(t - 1) if callable(learning_rate) else learning_rate
    eta = rate + eps
    g = g + decay * w
    x0 = memory.setdefault("x0", w.copy())
    memory["s"] = memory.get("s", 0.0) + eta * np.sqrt(t) * g
    memory["v"] = memory.get("v", 0.0) + eta * np.sqrt(t) * g**2
    z = x0 - memory["s"] / (np.cbrt(memory["v"]) + eps)
    return (momentum * w + (1 - momentum) * z) - w


def fromage(g, w, memory, t, eta: Any, min_norm=1e-6):
    """Bernstein et al. 2020, Algorithm 1; the step downwards."""
    rate: Any = eta(t - 1) if callable(eta) else eta
    ours, theirs = max(np.sqrt(np.sum(w**2)), min_norm), max(np.sqrt(np.sum(g**2)), min_norm)
    return (w - rate * ours / theirs * g) / np.sqrt(1 + rate**2) - w


# factored second moments


def outer(square, memory, name, decay, least):
    """Shazeer and Stern 2018, Algorithm 2, of a matrix or of a stack of matrices along the first
    axis; whole for less.
    """
    lengths = sorted(square.shape)
    if square.ndim < 2 or lengths[-2] < least:
        memory[name] = decay * memory.get(name, np.zeros_like(square)) + (1 - decay) * square
        return memory[name]
    if square.ndim == 3:  # of (2, 3, 2) the last two axes are the longest, of equal ones the last
        return np.stack(
            [
                outer(square[i], memory.setdefault((name, i), {}), name, decay, least)
                for i in range(len(square))
            ]
        )
    rows, columns = memory.get(name, (np.zeros(square.shape[0]), np.zeros(square.shape[1])))
    rows = decay * rows + (1 - decay) * square.mean(axis=1)
    columns = decay * columns + (1 - decay) * square.mean(axis=0)
    memory[name] = rows, columns
    return np.outer(rows, columns) / rows.mean()


def factored_rms(g, w, memory, t, exponent=0.8, offset=0, least=128, eps=1e-30):
    return g / np.sqrt(outer(g**2 + eps, memory, "v", 1 - max(t - offset, 1) ** -exponent, least))


def adafactor(
    g,
    w,
    memory,
    t,
    eta,
    exponent=0.8,
    threshold=1.0,
    momentum=None,
    decay=0.0,
    least=128,
    relative=True,
):
    """Shazeer and Stern 2018, Algorithm 4, with momentum and decay behind the step size; the step
    downwards.
    """
    u = factored_rms(g, w, memory, t, exponent, least=least)
    u = u / max(1.0, np.sqrt(np.mean(u**2)) / threshold)
    u = (
        (eta(t - 1) if callable(eta) else eta)
        * u
        * (max(1e-3, np.sqrt(np.mean(w**2))) if relative else 1.0)
    )
    if momentum is not None:
        u = memory["m"] = momentum * memory.get("m", np.zeros_like(g)) + (1 - momentum) * u
    return -u - decay * w


def came(
    g,
    w,
    memory,
    t,
    b1=0.9,
    b2=0.999,
    b3=0.9999,
    eps=1e-30,
    eps_distance=1e-16,
    threshold=1.0,
    least=1,
):
    """Luo et al. 2023, Algorithm 2."""
    u = g / np.sqrt(outer(g**2 + eps, memory, "v", b2, least))
    u = u / max(1.0, np.sqrt(np.mean(u**2)) / threshold)
    m = memory["m"] = b1 * memory.get("m", np.zeros_like(g)) + (1 - b1) * u
    if g.ndim < 2 or sorted(g.shape)[-2] < least:
        return m
    return m / np.sqrt(outer((u - m) ** 2 + eps_distance, memory, "distance", b3, least))
