"""Float64 references of the methods without a learning rate to tune, written from the papers;
nothing of gradtx is imported.

Each is a whole method, `method(grads, params, memory, t, **told) -> updates` on lists of arrays.
"""

import functools
from typing import Any

import numpy as np


def _dot(left, right):
    return sum(float(np.sum(x * y)) for x, y in zip(left, right, strict=True))


def _norm1(arrays):
    return sum(float(np.sum(np.abs(x))) for x in arrays)


def _at(rate: Any, t: int) -> Any:
    return rate(t - 1) if callable(rate) else rate


def prodigy(
    grads,
    params,
    memory,
    t,
    eta: Any = 1.0,
    b1=0.9,
    b2=0.999,
    b3=None,
    eps=1e-8,
    d0=1e-6,
    coef=1.0,
    weight_decay=0.0,
    safeguard=False,
):
    """Mishchenko and Defazio 2023, the algorithm for Adam, with bias correction."""
    b3 = np.sqrt(b2) if b3 is None else b3
    if t == 1:
        zeros = [np.zeros_like(g) for g in grads]
        memory.update(m=zeros, v=zeros, s=zeros, start=[w.copy() for w in params], d=d0, r=0.0)
    d = memory["d"]
    step = d * _at(eta, t) * np.sqrt(1 - b2**t) / (1 - b1**t)
    m = memory["m"] = [b1 * m + (1 - b1) * d * g for m, g in zip(memory["m"], grads, strict=True)]
    v = memory["v"] = [
        b2 * v + (1 - b2) * (d * g) ** 2 for v, g in zip(memory["v"], grads, strict=True)
    ]
    moved = [start - w for start, w in zip(memory["start"], params, strict=True)]
    r = memory["r"] = b3 * memory["r"] + d / d0 * step * _dot(grads, moved)
    weight = d / d0 * (d if safeguard else step)
    s = memory["s"] = [b3 * s + weight * g for s, g in zip(memory["s"], grads, strict=True)]
    new = memory["d"] = max(d, coef * r / _norm1(s))
    return [
        -step * (weight_decay * w + m / (np.sqrt(v) + new * eps))
        for m, v, w in zip(m, v, params, strict=True)
    ]


def dadapt_adamw(
    grads, params, memory, t, eta: Any = 1.0, b1=0.9, b2=0.999, eps=1e-8, d0=1e-6, weight_decay=0.0
):
    """Defazio and Mishchenko 2023, the algorithm for Adam, with bias correction."""
    b3 = np.sqrt(b2)
    if t == 1:
        zeros = [np.zeros_like(g) for g in grads]
        memory.update(m=zeros, v=zeros, s=zeros, d=d0, r=0.0)
    d = memory["d"]
    step = d * _at(eta, t) * np.sqrt(1 - b2**t) / (1 - b1**t)
    scaled = [s / (np.sqrt(v) + eps) for s, v in zip(memory["s"], memory["v"], strict=True)]
    m = memory["m"] = [
        b1 * m + (1 - b1) * step * g for m, g in zip(memory["m"], grads, strict=True)
    ]
    v = memory["v"] = [b2 * v + (1 - b2) * g**2 for v, g in zip(memory["v"], grads, strict=True)]
    r = memory["r"] = b3 * memory["r"] + (1 - b3) * step * _dot(grads, scaled)
    s = memory["s"] = [
        b3 * s + (1 - b3) * step * g for s, g in zip(memory["s"], grads, strict=True)
    ]
    memory["d"] = max(d, r / ((1 - b3) * _norm1(s)))
    return [
        -m / (np.sqrt(v) + eps) - step * weight_decay * w
        for m, v, w in zip(m, v, params, strict=True)
    ]


def _distance(params, start):
    return np.sqrt(sum(float(np.sum((w - w0) ** 2)) for w, w0 in zip(params, start, strict=True)))


def dog(grads, params, memory, t, eta: Any = 1.0, form="heuristic", first=1e-6, eps=1e-8):
    """Ivgi, Hinder and Carmon 2023, equation DoG."""
    norm = np.sqrt(_dot(grads, grads))
    if t == 1:
        far = {
            "distance": first,
            "learning_rate": 0.0,
            "heuristic": first * (1 + np.sqrt(_dot(params, params))),
        }[form]
        memory.update(start=[w.copy() for w in params], far=far, sum=0.0)
    memory["far"] = max(memory["far"], _distance(params, memory["start"]))
    memory["sum"] += norm**2
    rate: Any = (
        first
        if t == 1 and form == "learning_rate"
        else memory["far"] / np.sqrt(memory["sum"] + eps)
    )
    return [-_at(eta, t) * rate * g for g in grads]


def dowg(grads, params, memory, t, eta: Any = 1.0, first=None, eps=1e-4):
    """Khaled, Mishchenko and Jin 2023, Algorithm 1."""
    if t == 1:
        memory.update(
            start=[w.copy() for w in params], far=eps if first is None else first, sum=0.0
        )
    far = memory["far"] = max(memory["far"], _distance(params, memory["start"]) ** 2)
    memory["sum"] += far * _dot(grads, grads)
    rate = _at(eta, t) * far / (np.sqrt(memory["sum"]) + eps)
    return [-rate * g for g in grads]


def distance_over_gradients(grads, params, memory, t, reps_rel=1e-6, eps=1e-8, scale=1.0):
    """The same for every array by itself (layer-wise DoG)."""
    updates = []
    for i, (g, w) in enumerate(zip(grads, params, strict=True)):
        mine = memory.setdefault(i, {})
        if t == 1:
            mine.update(start=w.copy(), far=reps_rel * (1 + np.linalg.norm(w)), sum=0.0)
        mine["far"] = max(mine["far"], np.sqrt(np.sum((w - mine["start"]) ** 2)))
        mine["sum"] += np.sum(g**2)
        updates.append(scale * mine["far"] / np.sqrt(mine["sum"] + eps) * g)
    return updates


def cocob(g, w, memory, t, alpha=100.0, eps=1e-8):
    """Orabona and Tommasi 2017, Algorithm 2: what the parameter becomes, less what it is."""
    if t == 1:
        memory.update(
            start=w.copy(),
            largest=np.full_like(w, eps),
            sum=np.zeros_like(w),
            reward=np.zeros_like(w),
            theta=np.zeros_like(w),
        )
    largest = memory["largest"] = np.maximum(memory["largest"], np.abs(g))
    memory["sum"] = memory["sum"] + np.abs(g)
    memory["reward"] = np.maximum(memory["reward"] - (w - memory["start"]) * g, 0)
    memory["theta"] = memory["theta"] - g
    there = memory["start"] + memory["theta"] / (
        largest * np.maximum(memory["sum"] + largest, alpha * largest)
    ) * (largest + memory["reward"])
    return there - w


def polyak(grads, params, memory, t, value, f_min=0.0, cap=1.0, eps=0.0, plus=False, factor=1.0):
    """Loizou et al. 2020, equation of SPS_max; Garrigos, Gower and Schaipp 2023 for SPS+."""
    gap = max(value - f_min, 0.0) if plus else value - f_min
    grads = [factor * g for g in grads]
    square = _dot(grads, grads)
    rate = min(gap / (square + eps), cap)
    return [rate * g for g in grads]


def momo(
    grads, params, memory, t, value, eta: Any = 1.0, b=0.9, bound=0.0, weight_decay=0.0, adapt=False
):
    """Schaipp et al. 2023, Algorithm 1, averages beginning at their first values; the bound adapts
    as its section on that says.
    """
    ones = [np.ones_like(g) for g in grads]
    keep = 0.0 if t == 1 else b
    return _momo(
        grads, params, memory, ones, keep, 1.0, value, _at(eta, t), bound, weight_decay, adapt
    )


def momo_adam(
    grads,
    params,
    memory,
    t,
    value,
    eta: Any = 0.01,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    bound=0.0,
    weight_decay=0.0,
    adapt=False,
):
    """Schaipp et al. 2023, Algorithm 2."""
    v = memory["v"] = [
        b2 * v + (1 - b2) * g**2
        for v, g in zip(memory.get("v", [0.0] * len(grads)), grads, strict=True)
    ]
    roots = [np.sqrt(v / (1 - b2**t)) + eps for v in v]
    return _momo(
        grads, params, memory, roots, b1, 1 - b1**t, value, _at(eta, t), bound, weight_decay, adapt
    )


def _momo(grads, params, memory, roots, b, rho, value, alpha, bound, weight_decay, adapt):
    d = memory["d"] = [
        b * d + (1 - b) * g for d, g in zip(memory.get("d", [0.0] * len(grads)), grads, strict=True)
    ]
    f = memory["f"] = b * memory.get("f", 0.0) + (1 - b) * value
    gamma = memory["gamma"] = b * memory.get("gamma", 0.0) + (1 - b) * _dot(grads, params)
    inner, square = (
        _dot(d, params),
        sum(float(np.sum(d**2 / root)) for d, root in zip(d, roots, strict=True)),
    )
    shrink = 1 + alpha * weight_decay
    least, model = memory.get("bound", bound), shrink * (f - gamma) + inner
    if adapt and model < shrink * rho * least:
        least = max(model / (2 * shrink * rho), bound)
    tau = min(alpha / rho, max(model - shrink * rho * least, 0) / square)
    if adapt:
        least = max((f + inner - gamma - tau * square / 2) / rho, bound)
    memory["bound"] = least
    return [
        -tau * d / root - alpha * weight_decay / shrink * w
        for d, root, w in zip(d, roots, params, strict=True)
    ]


def mechanic(method, weight_decay=0.01, eps=1e-8, s_init=1e-6, betas=6):
    """Cutkosky, Defazio and Mehta 2023, Algorithm 1, around a method, with its way recovered from
    the parameters.
    """
    return functools.partial(_mechanic, method, weight_decay, eps, s_init, betas)


def _mechanic(method, weight_decay, eps, s_init, betas, grads, params, memory, t):
    if t == 1:
        memory.update(
            start=[w.copy() for w in params],
            children={},
            m=np.zeros(betas),
            v=np.zeros(betas),
            r=np.zeros(betas),
            s=np.zeros(betas),
        )
    b = 1 - 10.0 ** -np.arange(1, betas + 1)
    scale = np.sum(memory["s"])
    down = [-u for u in method(grads, params, memory["children"], t)]
    grow = (
        weight_decay * scale * np.sqrt(_dot(grads, grads)) / (np.sqrt(_dot(params, params)) + eps)
    )
    pulled = [g + grow * w for g, w in zip(grads, params, strict=True)]
    before = [(start - w) / (scale + eps) for start, w in zip(memory["start"], params, strict=True)]
    delta = [x + u for x, u in zip(before, down, strict=True)]
    h = _dot(pulled, before)
    m = np.maximum(b * memory["m"], abs(h) + eps)
    v = b**2 * memory["v"] + h**2
    r = b * memory["r"] + np.clip(h, -memory["m"], memory["m"]) * memory["s"]
    wealth = s_init / betas * m + np.maximum(r, 0)
    memory.update(m=m, v=v, r=r, s=wealth / (np.sqrt(v) + eps))
    return [
        start - np.sum(memory["s"]) * x - w
        for start, x, w in zip(memory["start"], delta, params, strict=True)
    ]
