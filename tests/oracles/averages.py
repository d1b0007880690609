"""Float64 references of what is evaluated at averages of the parameters, from the papers; nothing
of gradtx is imported.
"""

import functools

from tests.oracles.compose import each


def at(value, count):
    return value(count) if callable(value) else value


def swa(start, every, horizon=None):
    """Izmailov et al. 2018, Algorithm 1, all that is averaged kept; with a horizon, each is weighed
    against those before it.
    """
    return each(_swa, start=start, every=every, horizon=horizon)


def _swa(g, w, memory, t, start, every, horizon):
    taken = memory.setdefault("taken", [])
    if t >= start and (t - start) % every == 0:
        taken.append(w + g)
    if not taken:
        memory["eval"] = w + g
    elif horizon is None:
        memory["eval"] = sum(taken) / len(taken)
    else:
        memory["eval"] = taken[0]
        for n, one in enumerate(taken[1:], start=2):
            share = 1 / min(n, horizon)
            memory["eval"] = (1 - share) * memory["eval"] + share * one
    return g


def ema_nesterov(base, decay, beta):
    """Yau et al. 2026, theta and m both kept: theta' = A(theta + b_t m), m = ema(theta' -
    theta).
    """
    return functools.partial(_ema_nesterov, base, decay, beta)


def _ema_nesterov(base, decay, beta, grads, ahead, memory, t):
    theta = memory.setdefault("theta", [w.copy() for w in ahead])
    m = memory.setdefault("m", [0 * w for w in ahead])
    new = [
        w + u
        for w, u in zip(ahead, base(grads, ahead, memory.setdefault("base", {}), t), strict=True)
    ]
    m = [decay * one + (1 - decay) * (to - of) for one, to, of in zip(m, new, theta, strict=True)]
    memory["theta"], memory["m"] = new, m
    return [w + at(beta, t) * one - y for w, one, y in zip(new, m, ahead, strict=True)]
