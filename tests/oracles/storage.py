"""References of codecs, in NumPy, from the equations; nothing of gradtx is imported. Codes are
worked out in float32, as they are kept.
"""

import numpy as np

F = np.float32


def bf16(x):
    """To the nearest number of 8 bits of mantissa, ties to even."""
    x = np.asarray(x, F)
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.where(np.isfinite(x), np.ldexp(np.round(mantissa * 256), exponent - 8), x).astype(
        np.float64
    )


def bf16_up(x):
    """To the next bfloat16 that is not smaller, x ≥ 0."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.ceil(mantissa * 256), exponent - 8)


def f16(x, square):
    root = np.sqrt(np.asarray(x, F)) if square else np.asarray(x, F)
    kept = np.clip(root, -65504, 65504).astype(np.float16).astype(np.float64)
    return kept**2 if square else kept


def corrected(x):
    """A bfloat16 and its error over half a unit in the last place, in 127ths."""
    value = bf16(x)
    half = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(value), 1e-37))) - 8)
    return np.where(
        value == 0, 0, value + np.round((np.asarray(x, F) - value) / half * 127) / 127 * half
    )


def groups(x, axis, block):
    """The entries of each group along a new last axis, zeros where the last lacks some."""
    x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % block)])
    return x.reshape(*x.shape[:-1], -1, block)


def joined(grouped, axis, length):
    whole = grouped.reshape(*grouped.shape[:-2], -1)[..., :length]
    return np.moveaxis(whole, -1, axis)


def blockwise(x, axis, block, square=False, levels=127):
    """Codes to the nearest, decoded again."""
    grouped = groups(x, axis, block)
    root = np.sqrt(grouped) if square else np.abs(grouped)
    scale = bf16_up(root.max(axis=-1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(scale > 0, root / scale, 0.0)
    if square:
        codes = np.floor(255 * ratio + 0.5)
        made = (scale * np.where(root > 0, np.maximum(codes, 1), 0) / 255) ** 2
    else:
        z = np.floor(levels * np.sign(grouped) * 2 * ratio / (1 + ratio) + 0.5) / levels
        made = scale * z / (2 - np.abs(z))
    return joined(made, axis, np.asarray(x).shape[axis])


def half_adam(g, w, memory, t, b1=0.9, b2=0.999, eps=1e-8):
    """Adam whose moments are bfloat16, and whose update sees them so; a scalar is left alone."""
    kept = bf16 if np.ndim(g) else np.asarray
    memory["m"] = kept(b1 * memory.get("m", 0.0) + (1 - b1) * g)
    memory["v"] = kept(b2 * memory.get("v", 0.0) + (1 - b2) * g**2)
    return memory["m"] / (1 - b1**t) / (np.sqrt(memory["v"] / (1 - b2**t)) + eps)


def coded_trace(g, w, memory, t, decay, axis, block):
    """Momentum in codes of 8 bits along an axis of every array, by its rank; the update sees it
    before it is encoded.
    """
    trace = g + decay * memory.get("t", 0.0)
    memory["t"] = blockwise(trace, axis(np.ndim(g)), block) if np.ndim(g) else trace
    return trace
