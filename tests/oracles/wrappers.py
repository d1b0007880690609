"""Float64 references of the wrappers and of what goes with them, from the papers; nothing of gradtx
is imported.
"""

import functools

import numpy as np


def at(rate, count):
    return rate(count) if callable(rate) else rate


def schedule_free(base, eta, b1=0.9, power=2.0):
    """Defazio et al. 2024, Algorithm 1, x and z both kept; eta(t) weighs step t."""
    return functools.partial(_schedule_free, base, eta, b1, power)


def _schedule_free(base, eta, b1, power, grads, params, memory, t):
    z = memory.setdefault("z", [w.copy() for w in params])
    x = memory.setdefault("x", [w.copy() for w in params])
    z = [
        one + u
        for one, u in zip(z, base(grads, params, memory.setdefault("base", {}), t), strict=True)
    ]
    memory.setdefault("etas", []).append(at(eta, t))
    weight = max(memory["etas"]) ** power
    memory["sum"] = memory.get("sum", 0.0) + weight
    c = weight / memory["sum"] if memory["sum"] else 0.0
    x = [(1 - c) * one + c * other for one, other in zip(x, z, strict=True)]
    memory["z"], memory["x"] = z, x
    return [b1 * one + (1 - b1) * other - y for one, other, y in zip(x, z, params, strict=True)]


def lookahead(fast, k, alpha, reset=False):
    """Zhang et al. 2019, Algorithm 1."""
    return functools.partial(_lookahead, fast, k, alpha, reset)


def _lookahead(fast, k, alpha, reset, grads, params, memory, t):
    slow = memory.setdefault("slow", [w.copy() for w in params])
    children = memory.setdefault("fast", {})
    ahead = [
        w + u
        for w, u in zip(
            params, fast(grads, params, children, (t - 1) % k + 1 if reset else t), strict=True
        )
    ]
    if t % k == 0:
        memory["slow"] = ahead = [s + alpha * (f - s) for s, f in zip(slow, ahead, strict=True)]
        if reset:
            children.clear()
    return [f - w for f, w in zip(ahead, params, strict=True)]


def params_ema(g, w, memory, t, decay, warmup):
    """The updates pass; the average is kept beside them."""
    b = min(decay, (1 + t) / (10 + t)) if warmup else decay
    memory["a"] = b * memory.get("a", w) + (1 - b) * (w + g)
    return g


def plateau(grads, params, memory, t, value, factor, patience, rtol, atol, cooldown, size, least):
    """Means of `size` values; after `patience` that are no better the factor falls, and `cooldown`
    do not count.
    """
    memory.setdefault("scale", 1.0)
    memory.setdefault("values", []).append(value)
    if len(memory["values"]) == size:
        mean, best = np.mean(memory.pop("values")), memory.get("best")
        better = best is None or mean < best - rtol * abs(best) - atol
        if better:
            memory["best"] = mean
        if memory.get("rest", 0):
            memory["rest"], memory["bad"] = memory["rest"] - 1, 0
        else:
            memory["bad"] = 0 if better else memory.get("bad", 0) + 1
            if memory["bad"] >= patience:
                memory["scale"], memory["bad"], memory["rest"] = (
                    max(memory["scale"] * factor, least),
                    0,
                    cooldown,
                )
    return [memory["scale"] * g for g in grads]


def sometimes(method, when, else_factor):
    """A method at some steps, by the count; at the others, which do not count for it, the gradient
    times a factor.
    """
    return functools.partial(_sometimes, method, when, else_factor)


def _sometimes(method, when, else_factor, grads, params, memory, t):
    if not when(t - 1):
        return [else_factor * g for g in grads]
    memory["steps"] = memory.get("steps", 0) + 1
    return method(grads, params, memory.setdefault("inner", {}), memory["steps"])


def sam(down, up, k, reset=True):
    """Foret et al. 2021, Algorithm 1, one gradient a step: k - 1 steps up, one down from where they
    began.
    """
    return functools.partial(_sam, down, up, k, reset)


def _sam(down, up, k, reset, grads, params, memory, t):
    place = (t - 1) % k
    if place == 0:
        memory["start"] = [w.copy() for w in params]
        if reset:
            memory["up"], memory["ups"] = {}, 0
    if place < k - 1:
        memory["ups"] = memory.get("ups", 0) + 1
        return [-u for u in up(grads, params, memory.setdefault("up", {}), memory["ups"])]
    moves = down(grads, memory["start"], memory.setdefault("down", {}), (t - 1) // k + 1)
    return [start + u - w for start, u, w in zip(memory["start"], moves, params, strict=True)]


def sam_at_once(down, up, k, reset=True):
    """The same with a function for the gradients."""
    return functools.partial(_sam_at_once, down, up, k, reset)


def _sam_at_once(down, up, k, reset, grads, params, memory, t, grad_fn):
    if reset:
        memory["up"], memory["ups"] = {}, 0
    top = params
    for i in range(k - 1):
        memory["ups"] = memory.get("ups", 0) + 1
        moves = up(grads, top, memory.setdefault("up", {}), memory["ups"])
        top = [w - u for w, u in zip(top, moves, strict=True)]
        grads = [np.asarray(g, np.float64) for g in slopes(top, i)]
    return down(grads, params, memory.setdefault("down", {}), t)


def slopes(params, i):
    """The gradient of sum(w^4 / 4) plus i + 1 times that of sum(w^2 / 2); NumPy and JAX both take
    it.
    """
    return [w**3 + (i + 1) * w for w in params]


def asam(grads, params, memory, t, eps=0.01):
    """Kwon et al. 2021: T^2 g / ||T g||, T = |w| + eps."""
    norm = np.sqrt(
        sum(np.sum(((np.abs(w) + eps) * g) ** 2) for g, w in zip(grads, params, strict=True))
    )
    return [(np.abs(w) + eps) ** 2 * g / norm for g, w in zip(grads, params, strict=True)]


def normalize(grads, params, memory, t):
    norm = np.sqrt(sum(np.sum(g**2) for g in grads))
    return [g / norm for g in grads]


def curvature(w):
    """The second derivative of w^4 / 12 - w^2 / 4 entry by entry: positive and negative ones."""
    return w**2 - 0.5


def sophia(
    grads,
    params,
    memory,
    t,
    obj_fn,
    b1=0.965,
    b2=0.99,
    eps=1e-8,
    gamma=0.01,
    rho=1.0,
    k=10,
    corrected=True,
    late=True,
):
    """Liu et al. 2023, Algorithm 3; the mean corrected for its start, and the curvature of before
    this step, as options.
    """
    out = []
    for i, (g, w) in enumerate(zip(grads, params, strict=True)):
        kept = memory.setdefault(i, {"m": np.zeros_like(g), "h": np.zeros_like(g)})
        kept["m"] = b1 * kept["m"] + (1 - b1) * g
        before = kept["h"]
        if t % k == 1 % k:
            kept["h"] = b2 * kept["h"] + (1 - b2) * curvature(w)
        m = kept["m"] / (1 - b1**t) if corrected else kept["m"]
        out.append(np.clip(m / np.maximum(gamma * (before if late else kept["h"]), eps), -rho, rho))
    return out


def times_curvature(grads, params, memory, t, obj_fn):
    """A step down of gradient times curvature."""
    return [-0.02 * g * curvature(w) for g, w in zip(grads, params, strict=True)]


def private_mean(grads, params, memory, t, c, factors):
    """Abadi et al. 2016, Algorithm 1, without noise; example b's gradient is g times its factor."""
    clipped = []
    for factor in factors:
        norm = np.sqrt(sum(np.sum((factor * g) ** 2) for g in grads))
        clipped.append([factor * g * min(1.0, c / norm) for g in grads])
    return [sum(of_leaf) / len(factors) for of_leaf in zip(*clipped, strict=True)]
