"""Float64 references of factors by path, and of rules on stacked layers; nothing of gradtx is
imported.
"""

import functools

import numpy as np


def multiply(*factors):
    """One factor for each array: a number, a function of the count, or one per entry of axis 0."""
    return functools.partial(_multiply, factors)


def _multiply(factors, grads, params, memory, t):
    known = [factor(t - 1) if callable(factor) else np.asarray(factor) for factor in factors]
    return [factor * g for factor, g in zip(known, grads, strict=True)]


def by_layer(axes, rule, **hyperparams):
    """A rule on every array; on those at the places of `axes`, on each layer along that axis."""
    return functools.partial(_by_layer, axes, rule, hyperparams)


def _by_layer(axes, rule, hyperparams, grads, params, memory, t):
    updates = []
    for place, (g, w) in enumerate(zip(grads, params, strict=True)):
        if place not in axes:
            updates.append(rule(g, w, memory.setdefault(place, {}), t, **hyperparams))
            continue
        axis, layers = axes[place], []
        for i in range(g.shape[axis]):
            own = memory.setdefault((place, i), {})
            layers.append(rule(g.take(i, axis), w.take(i, axis), own, t, **hyperparams))
        updates.append(np.stack(layers, axis))
    return updates
