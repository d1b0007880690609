"""Float64 references of ADOPT's and AdEMAMix's families, of MARS, and of the small transformations;
nothing of gradtx is imported.
"""

import numpy as np

from tests.oracles.core import adam


def resolve(value, t):
    """A hyperparameter at step t: schedules are functions of the updates made so far."""
    return value(t - 1) if callable(value) else value


def acprop(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16):
    """Zhuang et al. 2021: divisor and expected gradient are those of the step before; the divisor
    is corrected for its start.
    """
    m, s = memory.get("m", np.zeros_like(g)), memory.get("s", np.zeros_like(g))
    memory["m"], memory["s"] = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
    return g / ((np.sqrt(s / (1 - b2 ** (t - 1))) if t > 1 else 1.0) + eps)


def adopt(
    g, w, memory, t, b1=0.9, b2=0.9999, eps=1e-6, nesterov=False, bound=lambda count: count**0.25
):
    """Taniguchi et al. 2024."""
    if t == 1:
        memory["m"], memory["v"] = np.zeros_like(g), g**2
        return np.zeros_like(g)
    c = g / np.maximum(np.sqrt(memory["v"]), eps)
    c = np.minimum(np.maximum(c, -bound(t - 1)), bound(t - 1))
    memory["m"] = b1 * memory["m"] + (1 - b1) * c
    memory["v"] = b2 * memory["v"] + (1 - b2) * g**2
    return b1 * memory["m"] + (1 - b1) * c if nesterov else memory["m"]


def half_life(count, first, last, steps):
    """The half-life of an average whose decay goes from one rate to another, in a straight line."""
    done = min(count / steps, 1.0)
    return (1 - done) * np.log(0.5) / np.log(first) + done * np.log(0.5) / np.log(last)


def ademamix(g, w, memory, t, b1=0.9, b2=0.999, b3=0.9999, alpha=5.0, eps=1e-8, eps_root=0.0):
    """Pagliardini et al. 2024, Algorithm 1."""
    b3, alpha = resolve(b3, t), resolve(alpha, t)
    m1 = memory["m1"] = b1 * memory.get("m1", 0.0) + (1 - b1) * g
    m2 = memory["m2"] = b3 * memory.get("m2", 0.0) + (1 - b3) * g
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
    return (m1 / (1 - b1**t) + alpha * m2) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def simplified_ademamix(g, w, memory, t, b1=0.99, b2=0.95, alpha=0.0, eps=1e-8, eps_root=0.0):
    """Morwani et al. 2025."""
    m = memory["m"] = b1 * memory.get("m", 0.0) + g
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
    return (m + alpha * g) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def mars_correction(g, w, memory, t, b1=0.95, gamma=0.025, k=1.0, before=None):
    """Yuan et al. 2024, Algorithm 1, with the last gradient in place of a second one."""
    c = g + gamma * b1 / (1 - b1) * (g - memory.get("g", g if before is None else before))
    memory["g"] = g
    return c / max(1.0, np.sqrt(np.sum(c * c)) / k)


def mars(
    g, w, memory, t, b1=0.95, b2=0.99, gamma=0.025, eps=1e-8, k=1.0, vector_b1=0.9, vector_b2=0.95
):
    """Yuan et al. 2024, Algorithm 2: AdamW's rule on corrected gradients; arrays without rows and
    columns are left to AdamW.
    """
    if g.ndim < 2:
        return adam(g, w, memory, t, vector_b1, vector_b2, eps)
    return adam(
        mars_correction(g, w, memory.setdefault("c", {}), t, b1, gamma, k),
        w,
        memory,
        t,
        b1,
        b2,
        eps,
    )


def zclip(grads, params, memory, t, threshold=2.5, decay=0.97, warmup=25, k=1.0, eps=1e-6):
    """Kumar et al. 2025: all arrays together, by the norms of before."""
    n = bound = np.sqrt(sum(float(np.sum(g * g)) for g in grads))
    norms = memory.setdefault("norms", [])
    if len(norms) < warmup:
        norms.append(n)
        memory["mean"], memory["square"] = np.mean(norms), np.var(norms)
    else:
        sigma = np.sqrt(memory["square"])
        z = (n - memory["mean"]) / (sigma + eps)
        if z > threshold:
            bound = memory["mean"] + threshold * sigma / (z / threshold)
        memory["mean"] = decay * memory["mean"] + (1 - decay) * bound
        memory["square"] = decay * memory["square"] + (1 - decay) * (bound - memory["mean"]) ** 2
    bound = min(bound, k)
    return [g * (bound / n) if n > bound else g for g in grads]


def nonnegative(u, w, memory, t):
    return np.maximum(u, -w)


def every(g, w, memory, t, k):
    memory["sum"] = memory.get("sum", 0.0) + g
    return memory.pop("sum") if t % k == 0 else np.zeros_like(g)


def times_param(u, w, memory, t):
    return u * w


def unless(choice, rule):
    """A rule for the arrays that are not chosen; the others stand still."""
    return lambda g, w, memory, t: np.zeros_like(g) if choice(g) else rule(g, w, memory, t)


def as_one_vector(method):
    """A method on all arrays as one vector."""

    def whole(grads, params, memory, t):
        one, both = (np.concatenate([a.ravel() for a in arrays]) for arrays in (grads, params))
        (u,) = method([one], [both], memory, t)
        parts = np.split(u, np.cumsum([g.size for g in grads])[:-1])
        return [part.reshape(g.shape) for part, g in zip(parts, grads, strict=True)]

    return whole
