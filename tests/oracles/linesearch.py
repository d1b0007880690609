"""L-BFGS and line searches from Nocedal and Wright, Numerical Optimization, 2nd edition 2006, in
float64.
"""

import functools

import numpy as np


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def shaped(vector, like):
    ends = np.cumsum([array.size for array in like])
    return [
        part.reshape(array.shape)
        for part, array in zip(np.split(vector, ends[:-1]), like, strict=True)
    ]


def lbfgs_direction(grads, params, memory, t, m=10, scaled=True):
    """Algorithm 7.4, with the scale of equation 7.20."""
    g, w = flat(grads), flat(params)
    pairs = memory.setdefault("pairs", [])
    if t > 1:
        pairs.append((w - memory["w"], g - memory["g"]))
        del pairs[:-m]
    memory["w"], memory["g"] = w, g
    q, alphas = g, []
    for s, y in reversed(pairs):
        alphas.append((s @ q) / (s @ y))
        q = q - alphas[-1] * y
    if scaled:
        q = q * (
            pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ pairs[-1][1])
            if pairs
            else min(1, 1 / np.linalg.norm(g))
        )
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q = q + s * (alpha - (y @ q) / (s @ y))
    return shaped(q, grads)


def searched(direction, factor, search):
    """A direction, and a search for how far to go along `factor` times it."""
    return functools.partial(_searched, direction, factor, search)


def _searched(direction, factor, search, grads, params, memory, t, value, grad, value_fn):
    u = [factor * d for d in direction(grads, params, memory, t)]
    slope = flat(u) @ flat(grad)
    step, tried = search(functools.partial(along, value_fn, params, u), float(value), slope, memory)
    memory["tried"] = tried
    return [step * d for d in u]


def along(value_fn, params, u, step):
    """phi and its slope, by a complex step: exact to the rounding of float64 for a function of
    polynomials.
    """
    h = 1e-30
    value = value_fn([w + (step + 1j * h) * d for w, d in zip(params, u, strict=True)])
    return float(np.real(value)), float(np.imag(value) / h)


def given(grads, params, memory, t):
    return grads


def backtracking(
    phi, f0, slope, memory, steps, c1=1e-4, shrink=0.8, grow=1.5, most=1.0, atol=0.0, rtol=0.0
):
    """Algorithm 3.1; it starts higher than the last search ended."""
    step, tried = min(most, grow * memory.get("step", most)), []
    for _ in range(steps + 1):
        tried.append(step)
        if phi(step)[0] <= f0 + rtol * abs(f0) + c1 * step * slope + atol:
            break
        step *= shrink
    memory["step"] = tried[-1]
    return tried[-1], tried


def cubic(a, fa, ga, b, fb, c, fc):
    """Where the cubic with value and slope at a, and values at b and c, has its minimum."""
    matrix = np.array([[(b - a) ** 2, (b - a) ** 3], [(c - a) ** 2, (c - a) ** 3]])
    p, q = np.linalg.solve(matrix, [fb - fa - ga * (b - a), fc - fa - ga * (c - a)])
    roots = np.roots([3 * q, 2 * p, ga])
    real = roots[np.isreal(roots)].real
    return next((a + root for root in real if 6 * q * root + 2 * p > 0), np.nan)


def zoom(
    phi,
    f0,
    slope,
    memory,
    steps,
    c1=1e-4,
    c2=0.9,
    eps=1e-6,
    grow=2.0,
    most=np.inf,
    keep=True,
    precision=1e-5,
):
    """Algorithm 3.5, and from the bracket on Algorithm 3.6."""
    tried = []

    def decreases(a, f, g):
        """By Armijo, or up to rounding: Hager and Zhang 2005, equation 4.1."""
        rounded = g <= (2 * c1 - 1) * slope and f <= f0 + eps * abs(f0)
        return f <= f0 + c1 * a * slope or rounded

    def end(a):
        memory["step"] = a
        return a, tried

    def between(low, high, best):
        flat_enough = c2 * abs(slope)
        return end(narrow(phi, decreases, flat_enough, low, high, best, steps, tried, precision))

    before, a = (0.0, f0, slope), min(memory.get("step", 1.0) if keep else 1.0, most)
    while True:
        tried.append(a)
        f, g = phi(a)
        enough = decreases(a, f, g)
        if enough and abs(g) <= c2 * abs(slope):
            return end(a)
        best = (a, f) if enough else before[:2]  # should the search fail
        if not enough or (f >= before[1] and len(tried) > 1):
            return between(before, (a, f, g), best)
        if g >= 0:
            return between((a, f, g), before, best)
        if len(tried) == steps or a >= most:
            return end(a)
        before, a = (a, f, g), min(grow * a, most)


def narrow(phi, decreases, flat_enough, low, high, best, steps, tried, precision):
    """Algorithm 3.6: high is the end of the higher value, or behind a minimum. If it fails, the
    best that decreases enough, or the last.
    """
    third = None
    while len(tried) < steps:
        a, small = children(low, high, third), abs(high[0] - low[0]) <= precision
        tried.append(a)
        f, g = phi(a)
        enough = decreases(a, f, g)
        if enough and f < best[1]:
            best = a, f
        if enough and abs(g) <= flat_enough:
            return a
        if small and best[0]:
            break
        if not enough or f >= low[1]:
            third, high = high, (a, f, g)
            continue
        third, high = (high, low) if g * (high[0] - low[0]) >= 0 else (low, high)
        low = (a, f, g)
    return best[0] or tried[-1]


def children(low, high, third):
    """The minimum of the cubic a fifth from both ends at least, else that of the parabola a tenth,
    else the middle.
    """
    (a, fa, ga), (b, fb, _) = low, high
    left, right, width = min(a, b), max(a, b), abs(b - a)
    if (
        third is not None
        and left + 0.2 * width
        < (found := cubic(a, fa, ga, b, fb, third[0], third[1]))
        < right - 0.2 * width
    ):
        return found
    found = a - ga * (b - a) ** 2 / (2 * (fb - fa - ga * (b - a)))
    return found if left + 0.1 * width < found < right - 0.1 * width else (a + b) / 2
