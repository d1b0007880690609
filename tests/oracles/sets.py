"""Float64 references of projections, from the definitions of the sets; nothing of gradtx is
imported.

A reference takes and returns one vector. `whole` applies it to a tree, `along` to an axis.
"""

import functools

import numpy as np


def simplex(x, scale=1.0):
    """The threshold from a sort: the largest support whose smallest entry stays positive."""
    x = x - np.max(x)  # a common offset moves nothing, and would cost digits
    down = np.sort(x)[::-1]
    means = (np.cumsum(down) - scale) / np.arange(1, x.size + 1)
    above = np.nonzero(down > means)[0]
    return np.maximum(x - means[above[-1]], 0.0) if above.size else np.zeros_like(x)


def l1_sphere(x, scale=1.0):
    """Signs times the simplex of magnitudes; 0 has the sign 1."""
    size = np.abs(x)
    sign = np.where(size == 0, 1.0, x / np.where(size == 0, 1.0, size))
    return sign * simplex(size, scale)


def l1_ball(x, scale=1.0):
    return x if np.sum(np.abs(x)) <= scale else l1_sphere(x, scale)


def l2_sphere(x, scale=1.0):
    norm = np.sqrt(np.sum(np.abs(x) ** 2))
    return np.full_like(x, scale / np.sqrt(x.size)) if norm == 0 else x * scale / norm


def l2_ball(x, scale=1.0):
    return x if np.sum(np.abs(x) ** 2) <= scale**2 else l2_sphere(x, scale)


def vector(x, a):
    return np.vdot(a, x) / np.vdot(a, a).real * a


def hyperplane(x, a, b):
    return x - (np.vdot(a, x) - b) / np.vdot(a, a).real * a


def halfspace(x, a, b):
    return x if np.vdot(a, x) <= b else hyperplane(x, a, b)


def box(x, lower, upper):
    return np.minimum(np.maximum(x, lower), upper)


def hypercube(x, scale=1.0):
    return box(x, 0.0, scale)


def linf_ball(x, scale=1.0):
    return box(x, -np.asarray(scale), scale)


def non_negative(x):
    return np.maximum(x, 0.0)


def split(vector, arrays):
    """One vector in the shapes of some arrays."""
    parts = np.split(vector, np.cumsum([one.size for one in arrays])[:-1])
    return [part.reshape(one.shape) for part, one in zip(parts, arrays, strict=True)]


def project(grads, params, memory, t, rule, **arguments):
    """The update that takes all arrays, as one vector, to the nearest point of a set."""
    target = np.concatenate([(w + g).ravel() for w, g in zip(params, grads, strict=True)])
    points = split(rule(target, **arguments), params)
    return [point - w for point, w in zip(points, params, strict=True)]


def project_to(rule, **arguments):
    """`project` as a method of the oracles."""
    return functools.partial(project, rule=rule, **arguments)
