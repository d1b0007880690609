"""Float64 references of methods that orthogonalize, written from the papers. A matrix is (inputs,
outputs).
"""

import numpy as np

JORDAN = [(3.4445, -4.7750, 2.0315)] * 5
POLAR = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]
"""Amsel et al. 2025, five steps with a safety of 0.02, as published."""


def matrices(x):
    """The matrices of an array, one by one."""
    return x.reshape(-1, *x.shape[-2:])


def by_matrix(function, *arrays):
    """A function of one matrix on each of an array's."""
    return np.stack([function(*one) for one in zip(*map(matrices, arrays), strict=True)]).reshape(
        arrays[0].shape
    )


def polar(x, coefficients=POLAR, eps=1e-8):
    """Jordan et al. 2024: a polynomial of the singular values, by products with the smaller Gram
    matrix.
    """
    y = x / (np.linalg.norm(x) + eps)
    tall = y.shape[0] > y.shape[1]
    y = y.T if tall else y
    for a, b, c in coefficients:
        gram = y @ y.T
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y.T if tall else y


def factor(scaling, shape):
    n, m = shape[-2:]
    return {
        "none": 1,
        "original": max(1, m / n) ** 0.5,
        "match_rms_adamw": 0.2 * max(n, m) ** 0.5,
        "spectral": (m / n) ** 0.5,
    }[scaling]


def momentum(g, memory, t, beta, nesterov, debias):
    m = memory["m"] = beta * memory.get("m", 0.0) + (1 - beta) * g
    if not debias:
        return beta * m + (1 - beta) * g if nesterov else m
    return (
        beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        if nesterov
        else m / (1 - beta**t)
    )


def muon(
    g,
    w,
    memory,
    t,
    beta=0.95,
    nesterov=True,
    debias=True,
    scaling="none",
    adaptive=False,
    coefficients=POLAR,
):
    moved = momentum(g, memory, t, beta, nesterov, debias)
    direction = by_matrix(lambda x: polar(x, coefficients), moved)
    if adaptive:
        direction = by_matrix(lambda o, x: o * np.sum(o * x), direction, moved)
    return factor(scaling, g.shape) * direction


def normuon(g, w, memory, t, beta=0.95, b2=0.9, scaling="none"):
    """Li et al. 2025: outputs over the root of their mean squares, at the length of O."""
    o = by_matrix(polar, momentum(g, memory, t, beta, True, True))
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * np.mean(o**2, axis=-2)
    even = o / (np.sqrt(v) + 1e-10)[..., None, :]
    return factor(scaling, g.shape) * by_matrix(
        lambda x, y: y * np.linalg.norm(x) / np.linalg.norm(y), o, even
    )


def adamuon(g, w, memory, t, beta=0.95, eps=1e-8):
    """Si, Zhang and Shen 2025."""
    o = by_matrix(polar, np.sign(momentum(g, memory, t, beta, False, True)))
    v = memory["v"] = beta * memory.get("v", 0.0) + (1 - beta) * o**2
    return by_matrix(lambda d: 0.2 * d.size**0.5 * d / np.linalg.norm(d), o / (np.sqrt(v) + eps))


def hyperball(u, w, memory, t, eta):
    """Wen et al. 2026, on every matrix; vectors are matrices of one row."""
    rows, start = (x if x.ndim > 1 else x.reshape(1, -1) for x in (u, w))
    radius = memory.setdefault("radius", [np.linalg.norm(one) for one in matrices(start)])

    def step(direction, matrix, r):
        moved = matrix - eta * r * direction / np.linalg.norm(direction)
        return r * moved / np.linalg.norm(moved) - matrix

    found = [step(*one) for one in zip(matrices(rows), matrices(start), radius, strict=True)]
    return np.stack(found).reshape(u.shape)


def clip_heads(u, w, memory, t, logits, threshold, exponent=0.5):
    """Kimi Team 2025: the last axis in equal parts, each of a head."""
    gamma = np.repeat(
        np.minimum(1.0, threshold / np.asarray(logits)) ** exponent, u.shape[-1] // len(logits)
    )
    return gamma * (w + u) - w


def where_matrix(rule, other, **told):
    """A rule on arrays of two axes and more, another on the rest."""

    def rule_or_other(g, w, memory, t):
        return rule(g, w, memory, t, **told) if g.ndim > 1 else other(g, w, memory, t)

    return rule_or_other
