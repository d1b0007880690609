"""Float64 references of what holds a training together: one update of several gradients, and steps
that are left out.
"""

import functools
from typing import Any

import numpy as np


def accumulate(method, every):
    """A method at the mean of every k gradients, k may be a function of the updates made; zeros in
    between.
    """
    return functools.partial(_accumulate, method, every)


def _accumulate(method, every, grads, params, memory: dict[str, Any], t, weight=1.0):
    gathered = memory.setdefault("gathered", [])
    gathered.append((weight, grads))
    updates: int = memory.setdefault("updates", 0)
    k: Any = every(updates) if callable(every) else every
    if len(gathered) < k:
        return [np.zeros_like(g) for g in grads]
    memory["updates"] = updates + 1
    total = sum(w for w, _ in memory.pop("gathered"))
    mean = [
        sum(w * g for (w, _), g in zip(gathered, column, strict=True)) / total
        for column in zip(*(g for _, g in gathered), strict=True)
    ]
    return method(mean, params, memory.setdefault("inner", {}), updates + 1)


def norm(grads):
    return np.sqrt(sum(float(np.sum(np.abs(g) ** 2)) for g in grads))


def bound(mean, variance, z):
    """The largest norm that is no spike: z standard deviations, of a hundredth of the mean at
    least, above the mean.
    """
    return mean + z * max(np.sqrt(variance), mean / 100)


def guard(method, max_norm=np.inf, z=None, decay=0.97, warmup=25):
    """A method that does not see the gradients that are no numbers, too large, or a spike; its
    clock counts those it sees.
    """
    return functools.partial(_guard, method, max_norm, z, decay, warmup)


def _guard(method, max_norm, z, decay, warmup, grads, params, memory, t):
    if not acceptable(
        norm(grads),
        max_norm,
        z,
        decay,
        warmup,
        memory.setdefault("norms", {"known": 0, "mean": 0.0, "variance": 0.0}),
    ):
        return [np.zeros_like(g) for g in grads]
    memory["seen"] = memory.get("seen", 0) + 1
    return method(grads, params, memory.setdefault("inner", {}), memory["seen"])


def acceptable(size, max_norm, z, decay, warmup, memory):
    """Whether a norm is none to skip; those known are remembered as a mean and a variance, a spike
    as the largest that is none.
    """
    if not np.isfinite(size) or size > max_norm:
        return False
    if z is None:
        return True
    limit = bound(memory["mean"], memory["variance"], z)
    spike = memory["known"] >= warmup and size > limit
    memory["known"] += 1
    rate = max(1 / memory["known"], 1 - decay)
    change = (limit if spike else size) - memory["mean"]
    memory["mean"] += rate * change
    memory["variance"] = (1 - rate) * (memory["variance"] + rate * change**2)
    return not spike
