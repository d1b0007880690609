"""Float64 references of SOAP, Shampoo and their kin by divergence, written from the papers; nothing
of gradtx is imported.

A reference is `rule(g, memory, t, turn, ...) -> update` on one matrix with more than one row and
column: `turn` says whether its bases or roots are refreshed at this step. Momenta are kept in the
space of the parameters, inverses and roots as whole matrices."""

import functools

import numpy as np

from tests.oracles.core import adam


def phases(shapes, every):
    """Matrices by falling cost n³ + m³, each to the turn with the least cost so far."""
    cost = [shape[0] ** 3 + shape[1] ** 3 for shape in shapes]
    found, load = [0] * len(shapes), np.zeros(every)
    for index in sorted(range(len(shapes)), key=lambda index: (-cost[index], index)):
        found[index] = int(np.argmin(load))
        load[found[index]] += cost[index]
    return found


def by_matrix(rule, plain, every, **hyperparams):
    """A rule on every matrix of a list of arrays, `plain(g, w, memory, t)` where a side is 1."""
    return functools.partial(_by_matrix, rule, plain, every, hyperparams)


def _by_matrix(rule, plain, every, hyperparams, grads, params, memory, t):
    matrices = [list(g.reshape(-1, *(g.shape[-2:] if g.ndim > 1 else (1, g.size)))) for g in grads]
    turns = iter(phases([matrix.shape for several in matrices for matrix in several], every))
    updates = []
    for leaf, (several, g) in enumerate(zip(matrices, grads, strict=True)):
        found = []
        for place, matrix in enumerate(several):
            mine, turn = memory.setdefault((leaf, place), {}), (t + next(turns)) % every == 0
            found.append(
                plain(matrix, None, mine, t)
                if 1 in matrix.shape
                else rule(matrix, mine, t, turn, **hyperparams)
            )
        updates.append(np.array(found).reshape(g.shape))
    return updates


def power(values, vectors, exponent):
    return vectors @ np.diag(values**exponent) @ vectors.T


def eigenvectors(a):
    """The largest eigenvalue first."""
    return np.linalg.eigh(a)[1][:, ::-1]


def refreshed(a, q):
    """Vyas et al. 2024, Algorithm 4, columns in order before: the order, and the new basis."""
    order = np.argsort(-np.diag(q.T @ a @ q))
    return order, np.linalg.qr(a @ q[:, order])[0]


def chosen(shape, longest, one_sided):
    """Whether rows, and columns, have a factor."""
    n, m = shape
    return n <= longest and not (one_sided and m < n), m <= longest and not (one_sided and n <= m)


# SOAP


def soap(
    g,
    memory,
    t,
    turn,
    b1=0.95,
    b2=0.95,
    beta=None,
    eps=1e-8,
    longest=10_000,
    one_sided=False,
    orthogonal=False,
    coupled=False,
):
    """Vyas et al. 2024, Algorithm 3; the first gradient makes bases and no step, as in the authors'
    code. Coupled: Lin et al. 2025.
    """
    beta = b2 if beta is None else beta
    sides = chosen(g.shape, longest, one_sided)
    if not any(sides):
        return orthogonal_factor(adam(g, None, memory, t, b1, b2, eps), orthogonal)
    covariances = fit if coupled else moments
    if t == 1:
        covariances(g, memory, beta, sides)
        for side in (0, 1):
            memory["q", side] = (
                eigenvectors(memory["a", side]) if sides[side] else np.eye(g.shape[side])
            )
            if coupled and sides[side]:
                memory["l", side] = np.diag(
                    memory["q", side].T @ memory["a", side] @ memory["q", side]
                )
        return np.zeros_like(g)
    left, right = memory["q", 0], memory["q", 1]
    memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * g
    memory["v"] = b2 * memory.get("v", 0) + (1 - b2) * (left.T @ g @ right) ** 2
    m, v = memory["m"] / (1 - b1 ** (t - 1)), memory["v"] / (1 - b2 ** (t - 1))
    u = left @ ((left.T @ m @ right) / (np.sqrt(v) + eps)) @ right.T
    covariances(g, memory, beta, sides)
    for side in (0, 1):
        if turn and sides[side]:
            order, memory["q", side] = refreshed(memory["a", side], memory["q", side])
            memory["v"] = np.take(memory["v"], order, axis=side)
            if coupled:
                memory["l", side] = memory["l", side][order]
    return orthogonal_factor(u, orthogonal)


def moments(g, memory, beta, sides):
    """Averages of G Gᵀ and Gᵀ G from zero."""
    for side, found in enumerate((g @ g.T, g.T @ g)):
        if sides[side]:
            memory["a", side] = beta * memory.get(("a", side), 0) + (1 - beta) * found


TABLE = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Amsel et al. 2025, Polar Express: five steps, cushion and safety 0.02, as printed in public code.
"""


def orthogonal_factor(u, wanted):
    """Each singular value through the quintics, then the Frobenius norm of before."""
    if not wanted:
        return u
    left, sigma, right = np.linalg.svd(u, full_matrices=False)
    size = np.sqrt(np.sum(sigma**2))
    x = sigma / (size + 1e-7)
    for a, b, c in TABLE:
        x = a * x + b * x**3 + c * x**5
    return size / np.sqrt(np.sum(x**2)) * (left * x) @ right if size else u


# by divergence


def fit(g, memory, beta, sides, floor=1e-6):
    """Lin et al. 2025, section 4: each factor averages G between inverses of the other; eigenvalues
    along the bases follow.
    """
    n, m = g.shape
    if ("l", 0) not in memory:
        square = np.mean(g**2)
        scale = np.sqrt(square) if all(sides) else square
        for side, size in enumerate(g.shape):
            memory["q", side], memory["l", side] = (
                np.eye(size),
                np.full(size, scale if sides[side] else 1.0),
            )
            memory["a", side] = scale * np.eye(size)
    inverses = []
    for side in (0, 1):
        values = memory["l", side]
        inverses.append(power(np.maximum(values, floor * values.max()), memory["q", side], -1.0))
    for side, found in enumerate((g @ inverses[1] @ g.T / m, g.T @ inverses[0] @ g / n)):
        if sides[side]:
            q = memory["q", side]
            memory["a", side] = beta * memory["a", side] + (1 - beta) * found
            memory["l", side] = beta * memory["l", side] + (1 - beta) * np.diag(q.T @ found @ q)


def kl_shampoo(g, memory, t, turn, b1=0.95, b2=0.95, floor=1e-6, longest=10_000, one_sided=False):
    """Lin et al. 2025, section 4: factors, eigenvalues, bases, then the step."""
    sides = chosen(g.shape, longest, one_sided)
    if not any(sides):
        return adam(g, None, memory, t, b1, b2)
    fit(g, memory, b2, sides, floor)
    for side in (0, 1):
        if sides[side] and t == 1:
            q = memory["q", side] = eigenvectors(memory["a", side])
            memory["l", side] = np.diag(q.T @ memory["a", side] @ q)
        elif sides[side] and turn:
            order, memory["q", side] = refreshed(memory["a", side], memory["q", side])
            memory["l", side] = memory["l", side][order]
    memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * g
    roots = [
        power(
            np.maximum(memory["l", side], floor * memory["l", side].max()), memory["q", side], -0.5
        )
        for side in (0, 1)
    ]
    return roots[0] @ memory["m"] @ roots[1] / (1 - b1**t)


# Shampoo


def grafted(g, w, memory, t, graft="adam", b1=0.9, graft_b2=0.999, graft_eps=1e-8):
    """The direction of a diagonal method from bias-corrected momentum."""
    m = memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * g
    v = memory["v"] = graft_b2 * memory.get("v", 0) + (1 - graft_b2) * g**2
    m = m / (1 - b1**t)
    if graft == "adam":
        return m / (np.sqrt(v / (1 - graft_b2**t)) + graft_eps)
    return {"rmsprop": m / (np.sqrt(v) + graft_eps), "sgd": m, "sign": np.sign(m), "none": m}[graft]


def cuts(size, longest):
    """Where even blocks of an axis begin, and end."""
    count = -(-size // longest)
    length = -(-size // count)
    return [(start, min(start + length, size)) for start in range(0, size, length)], length


def shampoo(
    g,
    memory,
    t,
    turn,
    b1=0.9,
    b2=0.99,
    eps=1e-6,
    exponent=None,
    longest=1024,
    one_sided=False,
    **graft,
):
    """Gupta et al. 2018, Algorithm 1, with averages, and with blocks and grafting by Anil et al.
    2020, sections 4 and 5.
    """
    u = grafted(g, None, memory, t, b1=b1, **graft)
    m = memory["m"] / (1 - b1**t)
    sides = chosen(g.shape, max(g.shape), one_sided)
    exponent = (0.25 if all(sides) else 0.5) if exponent is None else exponent
    d = np.zeros_like(g)
    (rows, height), (columns, width) = cuts(g.shape[0], longest), cuts(g.shape[1], longest)
    for top, bottom in rows:
        for first, last in columns:
            block = g[top:bottom, first:last]
            part = m[top:bottom, first:last]
            for side, (found, whole) in enumerate(
                ((block @ block.T, height), (block.T @ block, width))
            ):
                if not sides[side]:
                    continue
                a = memory["a", side, top, first] = (
                    b2 * memory.get(("a", side, top, first), 0) + (1 - b2 if b2 < 1 else 1) * found
                )
                if turn or t == 1:
                    a = a / (1 - b2**t if b2 < 1 else 1)
                    values, vectors = np.linalg.eigh(a + eps * np.trace(a) / whole * np.eye(len(a)))
                    memory["root", side, top, first] = power(values, vectors, -exponent)
                root = memory["root", side, top, first]
                part = root @ part if side == 0 else part @ root
            d[top:bottom, first:last] = part
    return d if graft.get("graft") == "none" else d * np.linalg.norm(u) / np.linalg.norm(d)
