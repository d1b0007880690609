"""Float64 references of methods that project, precondition and orthogonalize matrices, from the
papers; nothing of gradtx is imported.

A matrix is (inputs, outputs); of an array of more axes, those before the last two count matrices.
"""

import zlib

import jax
import numpy as np

from tests.oracles import core, muon

# PSGD Kron, arXiv 2402.04553


def _lower_bound(a):
    """One step of power iteration, from the longest column of a symmetric matrix."""
    v = a @ a[:, np.argmax(np.sum(a**2, axis=0))]
    return np.linalg.norm(a @ v) / np.linalg.norm(v)


def _fit(q, a, b, rate):
    """One factor, of the first axis of A and B; a diagonal is kept as a matrix."""
    if q is None:
        return None
    first, second, is_diagonal = a @ a.T, b @ b.T, "diagonal" in q
    if is_diagonal:
        first, second = np.diag(np.diag(first)), np.diag(np.diag(second))
        norm = np.max(np.abs(first + second))
    else:
        norm = _lower_bound(first + second)
    return {**q, "q": q["q"] - rate * np.triu(first - second) / norm @ q["q"]}


def _start(n, m, max_size):
    """The factor of an axis of length n beside one of length m; a vector has none along its axis of
    length 1.
    """
    return (
        None
        if n == 1
        else {"q": np.eye(n), **({"diagonal": True} if n > max_size or m == 1 else {})}
    )


def psgd_kron(
    grads,
    params,
    memory,
    t,
    b1=0.9,
    probability=1.0,
    rate=0.1,
    max_size=8192,
    max_rms=1.1,
    balance_every=100,
    spread=32,
    key=0,
):
    """All arrays, since the start of their counters depends on how costly each matrix is; their
    paths are their numbers.
    """
    sizes = [(g.reshape(-1, *(g.shape if g.ndim > 1 else (1, g.size))[-2:])).shape for g in grads]
    costs = [
        (-(n**3) - m**3, leaf, place)
        for leaf, (count, n, m) in enumerate(sizes)
        for place in range(count)
    ]
    turns = {(leaf, place): turn for turn, (_, leaf, place) in enumerate(sorted(costs))}
    updates = []
    for leaf, (g, size) in enumerate(zip(grads, sizes, strict=True)):
        path = zlib.crc32(str(leaf).encode())
        drawn = jax.random.fold_in(jax.random.fold_in(jax.random.key(key), t), np.uint32(path))
        matrices = []
        for place, matrix in enumerate(g.reshape(size)):
            noise = np.asarray(
                jax.random.normal(jax.random.fold_in(drawn, place), matrix.shape, np.float32),
                np.float64,
            )
            kept = memory.setdefault((leaf, place), {})
            turn = turns[leaf, place] / spread
            matrices.append(
                _whitened(
                    matrix,
                    kept,
                    t,
                    noise,
                    turn,
                    b1,
                    probability,
                    rate,
                    max_size,
                    max_rms,
                    balance_every,
                )
            )
        updates.append(np.stack(matrices).reshape(g.shape))
    return updates


def _whitened(g, kept, t, noise, turn, b1, probability, rate, max_size, max_rms, balance_every):
    n, m = g.shape
    if t == 1:
        left, right = (
            _start(n, m, max_size),
            {"q": np.eye(1), "diagonal": True} if n == m == 1 else _start(m, n, max_size),
        )
        kept.update(m=np.zeros_like(g), sum=turn, left=left, right=right, fits=0)
    kept["m"] = b1 * kept["m"] + (1 - b1) * g
    mean = kept["m"] / (1 - b1**t)
    before, kept["sum"] = kept["sum"], kept["sum"] + probability
    if np.floor(kept["sum"]) > np.floor(before):
        kept["fits"] += 1
        left, right = (
            np.eye(size) if q is None else q["q"]
            for q, size in ((kept["left"], n), (kept["right"], m))
        )
        a = left @ (mean + 2.0**-11.5 * np.mean(np.abs(mean)) * noise) @ right.T
        b = np.linalg.inv(left).T @ noise @ np.linalg.inv(right)
        kept["left"], kept["right"] = (
            _fit(kept["left"], a, b, rate),
            _fit(kept["right"], a.T, b.T, rate),
        )
        if kept["fits"] % balance_every == 0 and kept["left"] is not None:
            sizes = [np.max(np.abs(kept[side]["q"])) for side in ("left", "right")]
            for side, size in zip(("left", "right"), sizes, strict=True):
                kept[side]["q"] = kept[side]["q"] * np.sqrt(sizes[0] * sizes[1]) / size
    left, right = (
        np.eye(size) if q is None else q["q"] for q, size in ((kept["left"], n), (kept["right"], m))
    )
    u = left.T @ left @ mean @ right.T @ right
    return u / max(1, np.sqrt(np.mean(u**2)) / max_rms)


# GaLore, arXiv 2403.03507, Algorithm 2


def galore(
    grads, params, memory, t, rank, gap, scale=1.0, longer=True, batches=False, base=core.adam
):
    """`batches`: whether arrays of three axes are batches of matrices, or left to the base
    optimizer.
    """
    updates = []
    for leaf, g in enumerate(grads):
        if g.ndim < 2 or (g.ndim > 2 and not batches):
            updates.append(base(g, None, memory.setdefault(leaf, {}), t))
            continue
        found = []
        for place, matrix in enumerate(g.reshape(-1, *g.shape[-2:])):
            kept = memory.setdefault((leaf, place), {"base": {}})
            (n, m), turned = (
                matrix.shape,
                (matrix.shape[0] < matrix.shape[1]) == longer
                and matrix.shape[0] != matrix.shape[1],
            )
            x = matrix.T if turned else matrix
            if (t - 1) % gap == 0:
                new = np.linalg.svd(x)[0][:, : min(rank, n, m)]
                kept["p"] = new * np.where(
                    np.sum(new * kept.get("p", new), axis=0) < 0, -1, 1
                )  # a vector has two signs
            u = scale * kept["p"] @ base(kept["p"].T @ x, None, kept["base"], t)
            found.append(u.T if turned else u)
        updates.append(np.stack(found).reshape(g.shape))
    return updates


# Dion, arXiv 2504.05295, Algorithm 1


def _orthonormal(x):
    """Gram and Schmidt."""
    found = np.array(x)
    for i in range(x.shape[1]):
        for j in range(i):
            found[:, i] -= found[:, j] * (found[:, j] @ found[:, i])
        found[:, i] /= np.linalg.norm(found[:, i])
    return found


def dion(g, w, memory, t, rank_fraction=0.25, mu=0.95, seed=0, spectral=True):
    """The algorithm's M is that of y = M x, (outputs, inputs): the transpose. Its Q starts from
    normal numbers, drawn for all matrices.
    """
    if "m" not in memory:
        rank = max(1, int(np.ceil(rank_fraction * min(g.shape[-2:]))))
        shape = (*g.shape[:-2], g.shape[-2], rank)
        memory["m"], memory["q"] = (
            np.zeros_like(g),
            np.asarray(jax.random.normal(jax.random.key(seed), shape, np.float32), np.float64),
        )
    found = []
    for place in np.ndindex(g.shape[:-2]):
        m, q = (memory["m"][place] + g[place]).T, memory["q"][place]
        p = _orthonormal(m @ q)
        r = m.T @ p
        memory["m"][place] = (m - (1 - mu) * p @ r.T).T
        q = memory["q"][place] = r / np.sqrt(np.sum(r**2, axis=0))
        outputs, inputs = m.shape
        found.append((np.sqrt(outputs / inputs) if spectral else 1) * (p @ q.T).T)
    return np.stack(found).reshape(g.shape)


# Scion, arXiv 2502.07529


def _lmo(m, norm):
    if norm == "sign":
        return np.sign(m)
    if norm == "sign_per_input":
        return np.sign(m) / m.shape[-2]
    return np.sqrt(m.shape[-1] / m.shape[-2]) * muon.by_matrix(muon.polar, m)


def scion_lmo(g, w, memory, t, beta=0.9, radius=1.0, norm="spectral"):
    memory["m"] = beta * memory.get("m", np.zeros_like(g)) + (1 - beta) * g
    return radius * _lmo(memory["m"], norm)


def scion(grads, params, memory, t, eta, beta=0.9, radius=50.0, rest_radius=1.0, constrained=True):
    """theta <- (1 - eta) theta + eta lmo(m); arrays of two axes are hidden matrices."""
    updates = []
    for i, (g, w) in enumerate(zip(grads, params, strict=True)):
        norm, size = ("spectral", radius) if g.ndim == 2 else ("sign", rest_radius)
        point = -scion_lmo(g, w, memory.setdefault(i, {}), t, beta, size, norm)
        updates.append(eta * (point - w) if constrained else eta * point)
    return updates
