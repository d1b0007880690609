"""Float64 references of outer optimizers, from the equations; nothing of gradtx is imported.

R replicas are a list of lists of arrays, one process after another.
"""

import functools
from typing import Any

import numpy as np


def at(rate, count) -> Any:
    return rate(count) if callable(rate) else rate


def outer(inner, outer_step, every, **options):
    """One replica, as a method: `outer_step(delta, memory, count)` is what P moves by."""
    return functools.partial(_one_replica, inner, outer_step, every, options)


def _one_replica(inner, outer_step, every, options, grads, params, memory, t):
    return replicas(inner, outer_step, every, **options)([grads], [params], memory, t)[0]


def replicas(inner, outer_step, every, **options):
    """R replicas: lists of their gradients and parameters in, a list of their updates out."""
    return functools.partial(_replicas, inner, outer_step, every, options)


def _replicas(inner, outer_step, every, options: dict[str, Any], grads, params, memory, t):
    """Every replica takes its inner step; then each array that is due is synchronised."""
    synced = memory.setdefault("P", [w.copy() for w in params[0]])
    ahead = []
    for r, (g, w) in enumerate(zip(grads, params, strict=True)):
        u = inner(g, w, memory.setdefault(("inner", r), {}), t)
        ahead.append([one + other for one, other in zip(w, u, strict=True)])
    fragments = options.get("fragments", [range(len(synced))])
    merge, delay = options.get("merge", 0.0), options.get("delay", 0)
    for p, members in enumerate(fragments):
        offset = p * round(every / len(fragments)) % every
        for i in members:
            if t % every == offset:
                _synchronise(outer_step, options, synced, ahead, i, memory)
            if t > delay and (t - delay) % every == offset:
                for one in ahead:
                    one[i] = merge * one[i] + (1 - merge) * synced[i]
    return [
        [one - w for one, w in zip(new, old, strict=True)]
        for new, old in zip(ahead, params, strict=True)
    ]


def _synchronise(outer_step, options: dict[str, Any], synced, ahead, i, memory):
    deltas = [synced[i] - one[i] for one in ahead]
    code = options.get("code")
    if code is not None:
        errors = memory.setdefault(("error", i), [np.zeros_like(one) for one in deltas])
        if options.get("feedback"):
            deltas = [one + e for one, e in zip(deltas, errors, strict=True)]
        sent = [code(one) for one in deltas]
        memory["error", i] = [one - other for one, other in zip(deltas, sent, strict=True)]
        deltas = sent
    own = memory.setdefault(("outer", i), {"count": 0})
    own["count"] += 1
    synced[i] = synced[i] + outer_step(sum(deltas) / len(deltas), own, own["count"])


def nesterov(rate, momentum):
    """DiLoCo: m <- b m + delta; P <- P - gamma (b m + delta)."""
    return functools.partial(_nesterov, rate, momentum)


def _nesterov(rate, momentum, delta, memory, count):
    memory["m"] = momentum * memory.get("m", 0.0) + delta
    return -at(rate, count - 1) * (momentum * memory["m"] + delta)


def torch_nesterov(rate, momentum):
    """Snoo: torch's SGD, whose first buffer is delta itself."""
    return functools.partial(_torch_nesterov, rate, momentum)


def _torch_nesterov(rate, momentum, delta, memory, count):
    memory["b"] = delta if "b" not in memory else momentum * memory["b"] + delta
    return -rate * (delta + momentum * memory["b"])


def muloco(rate, momentum):
    """MuLoCo for one replica: m <- mu m + gamma delta; P <- P - mu m - gamma delta."""
    return functools.partial(_muloco, rate, momentum)


def _muloco(rate, momentum, delta, memory, count):
    gamma = at(rate, count - 1)
    memory["m"] = momentum * memory.get("m", 0.0) + gamma * delta
    return -momentum * memory["m"] - gamma * delta


def int8(x, block=32):
    """Codes of 8 bits: z = 2 |x| / s / (1 + |x| / s) in 127 levels, s of 32 entries in bfloat16.

    Entries of a group lie along the last axis but one, or the last if the block divides that alone,
    else along the longer of the two.
    """
    x = np.asarray(x, np.float32)
    if x.ndim == 0:
        return int8(x[None], block)[0]
    axes = [axis for axis in (x.ndim - 2, x.ndim - 1) if axis >= 0]
    whole = [axis for axis in axes if x.shape[axis] % block == 0]
    axis = whole[0] if whole else max(axes, key=lambda one: x.shape[one])
    lines = np.moveaxis(x, axis, -1)
    groups = -(-lines.shape[-1] // block)
    padded = np.zeros((*lines.shape[:-1], groups * block), np.float32)
    padded[..., : lines.shape[-1]] = lines
    padded = padded.reshape(*lines.shape[:-1], groups, block)
    scale = _bfloat16_above(np.abs(padded).max(-1, keepdims=True))
    ratio = np.abs(padded) / np.where(scale > 0, scale, 1)
    codes = np.floor(np.sign(padded) * 254 * ratio / (1 + ratio) + np.float32(0.5)) / 127
    decoded = scale * codes / (2 - np.abs(codes))
    joined = decoded.reshape(*lines.shape[:-1], -1)[..., : lines.shape[-1]]
    return np.moveaxis(joined, -1, axis).astype(np.float64)


def _bfloat16_above(x):
    """The next number of bfloat16 that is not below a float32."""
    words = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((words + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
