"""Float64 references of Adam's relatives, written from the papers; nothing of gradtx is
imported.
"""

import numpy as np

from tests.oracles.core import adam


def ema(memory, name, x, decay):
    """memory[name] <- decay * memory[name] + (1 - decay) * x, from zero."""
    memory[name] = decay * memory.get(name, 0.0) + (1 - decay) * x
    return memory[name]


def ahead(m, g, b1, t, nesterov):
    """Adam's corrected mean, or Dozat's 2016 look ahead with a constant decay."""
    return (
        b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t) if nesterov else m / (1 - b1**t)
    )


def adamax(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma and Ba 2015, Algorithm 2, with eps joined to every |g|."""
    m = ema(memory, "m", g, b1)
    u = memory["u"] = np.maximum(b2 * memory.get("u", 0.0), np.abs(g) + eps)
    return m / (1 - b1**t) / u


def belief(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False):
    """Zhuang et al. 2020, Algorithm 2: the spread of g around its mean in place of g^2, eps joining
    it at every step.
    """
    m = ema(memory, "m", g, b1)
    s = memory["s"] = b2 * memory.get("s", 0.0) + (1 - b2) * (g - m) ** 2 + eps_root
    return ahead(m, g, b1, t, nesterov) / (np.sqrt(s / (1 - b2**t)) + eps)


def amsgrad(
    g,
    w,
    memory,
    t,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    correct_mu=True,
    correct_nu=True,
    max_first=False,
):
    """Reddi et al. 2018, Algorithm 2, with Adam's corrections: of v before its maximum is taken, or
    of that maximum.
    """
    m, v = ema(memory, "m", g, b1), ema(memory, "v", g * g, b2)
    fix = 1 - b2**t if correct_nu else 1.0
    memory["top"] = np.maximum(memory.get("top", 0.0), v if max_first else v / fix)
    top = memory["top"] / fix if max_first else memory["top"]
    return (m / (1 - b1**t) if correct_mu else m) / (np.sqrt(top + eps_root) + eps)


def nadam(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, psi=0.004):
    """Dozat 2016 with the decay of the look-ahead rising to b1, and m averaged with b1 itself, as
    torch has it.
    """
    m, v = ema(memory, "m", g, b1), ema(memory, "v", g * g, b2)
    now, after = (b1 * (1 - 0.5 * 0.96 ** (i * psi)) for i in (t, t + 1))
    memory["pi"] = memory.get("pi", 1.0) * now
    m_hat = (1 - now) * g / (1 - memory["pi"]) + after * m / (1 - memory["pi"] * after)
    return m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def radam(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, threshold=5.0, nesterov=False):
    """Liu et al. 2020, Algorithm 2."""
    m, v = ema(memory, "m", g, b1), ema(memory, "v", g * g, b2)
    m_hat, longest = ahead(m, g, b1, t, nesterov), 2 / (1 - b2) - 1
    rho = longest - 2 * t * b2**t / (1 - b2**t)
    if rho < threshold:
        return m_hat
    r = np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
    return r * m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def yogi(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-3, eps_root=0.0, start=1e-6):
    """Zaheer et al. 2018, Algorithm 2, with Adam's corrections; both averages start at `start`."""
    m = memory["m"] = b1 * memory.get("m", np.full_like(g, start)) + (1 - b1) * g
    v = memory.get("v", np.full_like(g, start))
    v = memory["v"] = v - (1 - b2) * np.sign(v - g * g) * g * g
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def novograd(g, w, memory, t, b1=0.9, b2=0.25, eps=1e-8, eps_root=0.0, weight_decay=0.0):
    """Ginsburg et al. 2019, Algorithm 1: one v for the array."""
    square = np.sum(g * g)
    v = memory["v"] = b2 * memory["v"] + (1 - b2) * square if t > 1 else square
    memory["m"] = b1 * memory.get("m", 0.0) + g / (np.sqrt(v + eps_root) + eps) + weight_decay * w
    return memory["m"]


def adan(g, w, memory, t, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=0.0, c=None):
    """Xie et al. 2022, Algorithm 1, each beta as 1 - beta; Optax weighs differences by c = 1 -
    b2.
    """
    c = b2 if c is None else c
    d = g - memory.get("g", g)
    memory["g"] = g
    m, v, n = (
        ema(memory, "m", g, b1),
        ema(memory, "v", d, b2),
        ema(memory, "n", (g + c * d) ** 2, b3),
    )
    return (m / (1 - b1**t) + c * v / (1 - b2**t)) / (np.sqrt(n / (1 - b3**t) + eps_root) + eps)


def optimistic(g, w, memory, t, alpha=1.0, beta=1.0):
    """Daskalakis et al. 2018: (alpha + beta) g_t - beta g_{t-1}."""
    before = memory.get("g", g)
    memory["g"] = g
    return (alpha + beta) * g - beta * before


def laprop(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    """Ziyin et al. 2020, Algorithm 1, the learning rate outside."""
    v = ema(memory, "v", g * g, b2)
    return ema(memory, "m", g / (np.sqrt(v / (1 - b2**t) + eps_root) + eps), b1) / (1 - b1**t)


def stable_adamw(g, w, memory, t, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.0):
    """Wortsman et al. 2023, Algorithm 2: corrected betas, and the array's learning rate divided by
    max(1, RMS).
    """
    c1, c2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (b1, b2))
    v, u = (ema(memory, name, x, c) for name, x, c in (("v", g, c1), ("u", g * g, c2)))
    rms = np.sqrt(np.mean(g * g / np.maximum(u, eps**2)))
    return (v / (np.sqrt(u) + eps) + weight_decay * w) / max(1.0, rms)


def grams(g, w, memory, t, **hyperparameters):
    """Cao et al. 2024, Algorithm 1: Adam says how far, the gradient which way."""
    return np.sign(g) * np.abs(adam(g, w, memory, t, **hyperparameters))


def adam_mini(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-8, block=None):
    """Zhang et al. 2024, Algorithm 1: Adam, with one v for a block; `block` says over which axes
    blocks extend, by rank.
    """
    axes = (
        block(g.ndim) if block else tuple(range(g.ndim - 1)) if g.ndim > 1 else tuple(range(g.ndim))
    )
    m, v = ema(memory, "m", g, b1), ema(memory, "v", np.mean(g * g, axis=axes, keepdims=True), b2)
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
