"""Float64 references of tail averages, anchor gradients, GPA, ScheduleFree+ and guards with a
window; nothing of gradtx is imported.

Each keeps every sequence of its equations, so that none is recovered from others.
"""

import functools
from typing import Any

import numpy as np


def at(value: Any, count: Any) -> Any:
    return value(count) if callable(value) else value


def _base(base, grads, point, memory, t):
    return base(grads, point, memory.setdefault("base", {}), t)


def tail(base, tau, start=0, every=1, blend=1.0):
    """KellerJordan/modded-nanogpt 325: e <- e + (theta - e)/tau from update `start` on."""
    return functools.partial(_tail, base, tau, start, every, blend)


def _average(e, new, tau, start, every, t):
    if t <= start:
        return new
    if (t - start) % every:
        return e
    for _ in range(every):  # one change counts for all steps since the last
        e = e + (new - e) / tau
    return e


def _tail(base, tau, start, every, blend, grads, params, memory, t):
    updates = _base(base, grads, params, memory, t)
    old = memory.setdefault("e", [w.copy() for w in params])
    new = [w + u for w, u in zip(params, updates, strict=True)]
    memory["e"] = [_average(e, w, tau, start, every, t) for e, w in zip(old, new, strict=True)]
    blends = blend if isinstance(blend, list) else [blend] * len(new)
    each = zip(new, memory["e"], blends, strict=True)
    memory["eval"] = [w if b is None else w + b * (e - w) for w, e, b in each]
    return updates


def anchor(base, tau, start, gain, every=1, blend=1.0):
    """KellerJordan/modded-nanogpt 377, w and e both kept: gradients at w + g_t (w - e), steps of
    the unchanged optimizer at w; gain(t - 1) belongs to the gradient of step t.
    """
    return functools.partial(_anchor, base, tau, start, gain, every, blend)


def _anchor(base, tau, start, gain, every, blend, grads, ahead, memory, t):
    w = memory.setdefault("w", [y.copy() for y in ahead])
    old = memory.setdefault("e", [y.copy() for y in ahead])
    for y, one, e in zip(ahead, w, old, strict=True):
        np.testing.assert_allclose(y, one + at(gain, t - 1) * (one - e), rtol=1e-3, atol=1e-3)
    w = [one + u for one, u in zip(w, _base(base, grads, w, memory, t), strict=True)]
    e = [_average(e, one, tau, start, every, t) for e, one in zip(old, w, strict=True)]
    memory["w"], memory["e"] = w, e
    memory["eval"] = [one + blend * (mean - one) for one, mean in zip(w, e, strict=True)]
    g = at(gain, t)
    return [one + g * (one - mean) - y for one, mean, y in zip(w, e, ahead, strict=True)]


def gpa(base, mu_x, mu_y: Any = 0.7, shrink: Any = 0.0):
    """Defazio et al. 2025, x, y and z all kept; shrink(t - 1) is the decay of z at step t."""
    return functools.partial(_gpa, base, mu_x, mu_y, shrink)


def _gpa(base, mu_x, mu_y, shrink, grads, y, memory, t):
    z = memory.setdefault("z", [w.copy() for w in y])
    x = memory.setdefault("x", [w.copy() for w in y])
    updates, less = _base(base, grads, y, memory, t), 1 - at(shrink, t - 1)
    z = [less * one + u for one, u in zip(z, updates, strict=True)]
    share, place = at(mu_x, t - 1), at(mu_y, t - 1)
    x = [share * one + (1 - share) * other for one, other in zip(x, z, strict=True)]
    memory["z"], memory["x"] = z, x
    return [place * one + (1 - place) * two - w for one, two, w in zip(x, z, y, strict=True)]


def free_plus(
    base,
    eta: Any = 1.0,
    beta=0.9,
    beta_end=0.965,
    anneal=np.inf,
    decay=0.0,
    norm_decay=0.9,
    warm=0,
    r=0.0,
    p=2.0,
):
    """Defazio 2026, x, y and z all kept."""
    return functools.partial(
        _free_plus, base, eta, beta, beta_end, anneal, decay, norm_decay, warm, r, p
    )


def _free_plus(
    base, eta, beta, beta_end, anneal, decay, norm_decay, warm, r, p, grads, y, memory, t, value
):
    x = memory.setdefault("x", [w.copy() for w in y])
    z = memory.setdefault("z", [w.copy() for w in y])
    way = min(t / anneal, 1.0)
    b = 1 - np.exp((1 - way) * np.log(1 - beta) + way * np.log(1 - beta_end))
    gain = b * sum(float(np.sum(g * (s - m))) for g, s, m in zip(grads, z, x, strict=True))
    size = np.sqrt(np.pi / 2) * sum(float(np.sum(np.abs(g))) for g in grads)
    memory["e"] = norm_decay * memory.get("e", 0.0) + (1 - norm_decay) * size
    rate = at(eta, t - 1)
    alpha = rate * max(0.0, value + gain) / (memory["e"] / (1 - norm_decay**t))
    directions = _base(base, grads, y, memory, t)
    z = [s - alpha**2 * decay * w - alpha * d for s, w, d in zip(z, y, directions, strict=True)]
    memory.setdefault("rates", []).append(rate)
    weight = t**r * max(memory["rates"]) ** p
    memory["sum"] = memory.get("sum", 0.0) + weight
    c = 1.0 if t <= warm else weight / memory["sum"] if memory["sum"] else 0.0
    x = [(1 - c) * m + c * s for m, s in zip(x, z, strict=True)]
    memory["z"], memory["x"] = z, x
    return [b * m + (1 - b) * s - w for m, s, w in zip(x, z, y, strict=True)]


def bema(base, power=0.2, ema_power=0.5, lag=10.0):
    """Block and Zhang 2025: an average with a correction of its lag."""
    return functools.partial(_bema, base, power, ema_power, lag)


def _bema(base, power, ema_power, lag, grads, params, memory, t):
    updates = _base(base, grads, params, memory, t)
    start = memory.setdefault("start", [w.copy() for w in params])
    mean = memory.setdefault("mean", [w.copy() for w in params])
    new = [w + u for w, u in zip(params, updates, strict=True)]
    share, back = (lag + t) ** -ema_power, (lag + t) ** -power
    memory["mean"] = [(1 - share) * m + share * w for m, w in zip(mean, new, strict=True)]
    each = zip(new, start, memory["mean"], strict=True)
    memory["eval"] = [back * (w - first) + m for w, first, m in each]
    return updates


def deviation_of(numbers):
    """The mean and the unbiased deviation, the latter a thousandth of the mean at least."""
    mean = np.mean(numbers)
    spread = np.std(numbers, ddof=1) if len(numbers) > 1 else 0.0
    return mean, max(spread, 1e-3 * abs(mean))


def guard(base, window, z, warmup, watch=("grad_norm",), two_sided=False, max_norm=np.inf):
    """A step is skipped where the norm or the loss is no number or far from the last ones."""
    return functools.partial(_guard, base, window, z, warmup, watch, two_sided, max_norm)


def _guard(
    base, window, z, warmup, watch, two_sided, max_norm, grads, params, memory, t, value=0.0
):
    norm = np.sqrt(sum(float(np.sum(g * g)) for g in grads))
    series = {"grad_norm": norm, "value": value}
    bad = not (np.isfinite(norm) and np.isfinite(value)) or norm > max_norm
    for name in watch:
        number, last = series[name], memory.setdefault(name, [])
        if len(last) >= min(warmup, window):
            mean, spread = deviation_of(last)
            distance = abs(number - mean) if two_sided else number - mean
            bad = bad or (spread > 0 and distance > z * spread)
        if np.isfinite(number) and not (name == "grad_norm" and number > max_norm):
            memory[name] = [*last, number][-window:]
    memory.setdefault("skips", []).append(bool(bad))
    if bad:
        return [0 * g for g in grads]
    memory["steps"] = memory.get("steps", 0) + 1
    return base(grads, params, memory.setdefault("inner", {}), memory["steps"])


def clip_by_zscore(grads, params, memory, t, z=3.0, window=128, warmup=64):
    """The norm is brought down to z deviations above the mean of the norms before."""
    norm, last = np.sqrt(sum(float(np.sum(g * g)) for g in grads)), memory.get("norms", [])
    memory["norms"] = [*last, norm][-window:]
    if len(last) < min(warmup, window):
        return grads
    mean, spread = deviation_of(last)
    return [g * min(1.0, (mean + z * spread) / norm) for g in grads]
