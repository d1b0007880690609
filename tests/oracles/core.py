"""Float64 references of the building blocks and the textbook methods, written from the papers;
nothing of gradtx is imported.
"""

import numpy as np

# transforms


def identity(g, w, memory, t):
    return g


def zero(g, w, memory, t):
    return np.zeros_like(g)


def trace(g, w, memory, t, decay, nesterov=False):
    memory["t"] = g + decay * memory.get("t", 0.0)
    return g + decay * memory["t"] if nesterov else memory["t"]


def ema(g, w, memory, t, decay, debias=True):
    memory["m"] = decay * memory.get("m", 0.0) + (1 - decay) * g
    return memory["m"] / (1 - decay**t) if debias else memory["m"]


def clip(g, w, memory, t, c):
    return np.minimum(np.maximum(g, -c), c)


def clip_by_block_rms(g, w, memory, t, c):
    rms = np.sqrt(np.mean(g**2)) if g.size else 0.0
    return g if rms <= c else g * (c / rms)


def clip_by_global_norm(grads, params, memory, t, c):
    norm = np.sqrt(sum(float(np.sum(g**2)) for g in grads))
    return grads if norm <= c else [g * (c / norm) for g in grads]


# preconditioners


def rss(g, w, memory, t, start=0.1, eps=1e-7, eps_in_sqrt=True):
    """Duchi et al. 2011."""
    memory["r"] = memory.get("r", np.full_like(g, start)) + g**2
    return g / np.sqrt(memory["r"] + eps) if eps_in_sqrt else g / (np.sqrt(memory["r"]) + eps)


def rms(g, w, memory, t, decay=0.9, eps=1e-8, start=0.0, eps_in_sqrt=True, bias_correction=False):
    """Tieleman and Hinton 2012."""
    r = memory["r"] = decay * memory.get("r", np.full_like(g, start)) + (1 - decay) * g**2
    if bias_correction:
        r = r / (1 - decay**t)
    return g / np.sqrt(r + eps) if eps_in_sqrt else g / (np.sqrt(r) + eps)


def stddev(
    g, w, memory, t, decay=0.9, eps=1e-8, start=0.0, eps_in_sqrt=True, bias_correction=False
):
    """Graves 2013."""
    r = memory["r"] = decay * memory.get("r", np.full_like(g, start)) + (1 - decay) * g**2
    m = memory["m"] = decay * memory.get("m", np.zeros_like(g)) + (1 - decay) * g
    if bias_correction:
        r, m = r / (1 - decay**t), m / (1 - decay**t)
    return g / np.sqrt(r - m**2 + eps) if eps_in_sqrt else g / (np.sqrt(r - m**2) + eps)


def adam(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, nesterov=False):
    """Kingma and Ba 2015, Algorithm 1; with Nesterov Dozat 2016, with a constant decay."""
    m = memory["m"] = b1 * memory.get("m", np.zeros_like(g)) + (1 - b1) * g
    v = memory["v"] = b2 * memory.get("v", np.zeros_like(g)) + (1 - b2) * g * g
    m_hat = m / (1 - b1**t)
    if nesterov:
        m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def lion(g, w, memory, t, b1=0.9, b2=0.99, soften=np.sign):
    """Chen et al. 2023, Algorithm 2."""
    m = memory.get("m", np.zeros_like(g))
    memory["m"] = b2 * m + (1 - b2) * g
    return soften(b1 * m + (1 - b1) * g)
