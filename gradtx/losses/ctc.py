r"""Connectionist temporal classification (CTC): the loss of all alignments of labels to frames.

    With n labels emitted by frame t, log-probabilities of ending in a blank and in label n:
    φ_t[n] = log(e^φ[n] + e^ε[n−1]) + log p_t(blank)                     n = 0 … N
    ε_t[n] = log(e^φ[n] + e^ε[n] + e^(ε[n−1] + r_n)) + log p_t(y_n)      n = 0 … N − 1

φ, ε on the right are those of frame t − 1, and r_n = log 0 where y_n = y_{n−1}, else 0. Before the
first frame φ[0] = 0 and all else is log 0, for which `log_epsilon` stands.

The derivative of (φ, ε) is a linear recursion, whose weights are the shares of each sum. All
weights are computed at once, and the backward pass is that recursion in reverse.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.definition.errors import StructureError
from gradtx.losses.class_axes import index_array
from gradtx.losses.inputs import float_array
from gradtx.losses.log_sum_exp import accurate, find_peak, log_sum_exp
from gradtx.tree.casts import compute_dtype


class _Paths(NamedTuple):
    """Log-probabilities of the paths that end in a blank or in a label; or their tangents."""

    blank: jax.Array
    """φ: (..., B, N + 1)."""
    label: jax.Array
    """ε: (..., B, N)."""


class _Frames(NamedTuple):
    """Log-probabilities of every frame; or their tangents."""

    blank: jax.Array
    """(T, B, 1)."""
    label: jax.Array
    """(T, B, N)."""


class _Fixed(NamedTuple):
    """What has no derivative."""

    padded: jax.Array
    """(T, B, 1): the frames that change nothing."""
    repeat: jax.Array
    """r: (B, N), log 0 where a label equals the one before it."""
    log_zero: jax.Array


class _Weights(NamedTuple):
    """∂(φ, ε)_t / ∂(φ, ε)_{t−1}: the shares of the terms of each sum, for every frame."""

    stay_blank: jax.Array
    """(T, B, N + 1)."""
    end_label: jax.Array
    begin_label: jax.Array
    stay_label: jax.Array
    """(T, B, N)."""
    next_label: jax.Array
    """(T, B, N − 1)."""


def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> jax.Array:
    """CTC loss of each sequence: −log of the probability of all alignments of labels to frames.

    logits: (B, T, K), labels: (B, N); L: (B,), in float32 at least. An alignment names a class or
    the blank for each frame; repeats merge, then blanks vanish, and the labels remain.

    When: speech and handwriting, where labels come in order at unknown times. When not: the output
    is not longer than the labels, or labels depend on each other; train a decoder.

    Args:
      logits: scores of each frame, not normalised.
      logit_paddings: (B, T), 1 or True where a frame is padding; its logits may be nan.
      labels: integers in [0, K). Any other label makes the loss nan, unless it is padding.
      label_paddings: (B, N), 1 or True where a label is padding, at the end of a row.
      blank_id: the class of the blank.
      log_epsilon: the number in place of log 0. Labels that do not fit into their frames cost about
        −log_epsilon, and their gradient is finite.

    Returns:
      The loss of each sequence; 0 for no labels and no frames.

    Raises:
      StructureError: shapes do not match, there is no frame, or `blank_id` is not a class.
      DtypeError: labels are not integers, or logits are not real floats.

    >>> import jax.numpy as jnp
    >>> from gradtx.losses.ctc import ctc_loss
    >>> logits = jnp.zeros((1, 2, 3))  # two frames: label 1 as (1, 1), (1, blank) or (blank, 1)
    >>> loss = ctc_loss(logits, jnp.zeros((1, 2)), jnp.array([[1]]), jnp.zeros((1, 1)))
    >>> round(9 * float(jnp.exp(-loss[0])), 5)  # 3 of 9 alignments
    3.0

    See also: `ctc_loss_with_forward_probs`.

    Graves et al. 2006, Connectionist Temporal Classification, ICML, equations 6 to 8.
    """
    arguments = _check(
        "ctc_loss", logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon
    )
    return _ctc_loss(arguments, blank_id)


def ctc_loss_with_forward_probs(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """CTC loss with the forward log-probabilities of each frame.

    Arguments, errors and the loss are those of `ctc_loss`.

    When: alignments, or the probability of a prefix, are of interest. When not: the loss alone is;
    `ctc_loss` stores less.

    Returns:
      The loss, (B,). φ, (T, B, N + 1): the log-probability that frames 0 … t emit the first n
      labels and end in a blank; in the last frame, that they emit them at all. ε, (T, B, N): that
      they emit the labels 0 … n and end in label n.

    >>> import jax.numpy as jnp
    >>> from gradtx.losses.ctc import ctc_loss_with_forward_probs
    >>> none = jnp.zeros((1, 1))
    >>> loss, blank, label = ctc_loss_with_forward_probs(
    ...     jnp.zeros((1, 2, 2)), jnp.zeros((1, 2)), jnp.array([[1]]), none
    ... )
    >>> jnp.exp(label[:, 0, 0]).tolist()  # (1); then (1, 1) and (blank, 1)
    [0.5, 0.5]

    See also: `ctc_loss`.

    Graves et al. 2006, Connectionist Temporal Classification, ICML, equations 5 to 8.
    """
    name = "ctc_loss_with_forward_probs"
    arguments = _check(name, logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon)
    return _ctc_loss_with_forward_probs(arguments, blank_id)


class _Arguments(NamedTuple):
    """The arguments, checked."""

    logits: jax.Array
    padded: jax.Array
    """(B, T) bools."""
    labels: jax.Array
    ignored: jax.Array
    """(B, N) bools."""
    log_zero: jax.Array


def _check(
    name: str,
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    blank_id: int,
    log_epsilon: ArrayLike,
) -> _Arguments:
    scores, index = float_array(name, "logits", logits), index_array(name, labels)
    frame_pads, label_pads = jnp.asarray(logit_paddings), jnp.asarray(label_paddings)
    _check_shapes(name, scores.shape, frame_pads.shape, index.shape, label_pads.shape, blank_id)
    log_zero = jnp.asarray(log_epsilon, compute_dtype(scores.dtype))
    return _Arguments(scores, frame_pads.astype(bool), index, label_pads.astype(bool), log_zero)


# One program each, also where the caller does not jit: eager, a loss is some sixty operations.
@functools.partial(jax.jit, static_argnums=1)
def _ctc_loss(arguments: _Arguments, blank_id: int) -> jax.Array:
    frames, fixed = _prepare(arguments, blank_id)
    return _loss(_last_paths(frames, fixed), arguments.ignored)


@functools.partial(jax.jit, static_argnums=1)
def _ctc_loss_with_forward_probs(
    arguments: _Arguments, blank_id: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    frames, fixed = _prepare(arguments, blank_id)
    paths = _all_paths(frames, fixed)
    last = jax.tree.map(lambda array: array[-1], paths)
    blank = paths.blank.at[-1].set(_end_anywhere(last))
    return _loss(last, arguments.ignored), blank, paths.label


def _prepare(arguments: _Arguments, blank_id: int) -> tuple[_Frames, _Fixed]:
    """The log-probabilities, and all that has no derivative."""
    logits, padded, index, ignored, log_zero = arguments
    log_zero = jax.lax.stop_gradient(log_zero)
    frames = _log_probabilities(logits, padded, index, ignored, blank_id, log_zero)
    repeats = jnp.zeros_like(index, bool).at[:, 1:].set(index[:, 1:] == index[:, :-1])
    repeat = jnp.where(repeats, log_zero, 0)
    return frames, _Fixed(padded.T[..., None], repeat, log_zero)


def _log_probabilities(
    logits: jax.Array,
    padded: jax.Array,
    index: jax.Array,
    ignored: jax.Array,
    blank_id: int,
    log_zero: jax.Array,
) -> _Frames:
    """Those of the blank and of each label, frames first; no others are computed."""
    # A padded frame may hold nan, which no cotangent of 0 would cancel.
    logits = jnp.where(padded[..., None], 0, logits)
    peak = find_peak(logits, None, (2,))
    log_sum = log_sum_exp(logits, peak, None, (2,))
    is_class = (index >= 0) & (index < logits.shape[2])
    picked = jax.vmap(_columns)(logits, jnp.where(is_class, index, 0))
    blank, label = (
        accurate(array) - peak - log_sum for array in (logits[..., blank_id, None], picked)
    )
    wrong = jnp.where(ignored, 0, jnp.nan).astype(label.dtype)
    label = jnp.where(is_class[:, None], label, wrong[:, None])
    return _Frames(*(_replace_zero(array, log_zero).swapaxes(0, 1) for array in (blank, label)))


def _columns(logits: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take(logits, index, 1, mode="clip")


def _replace_zero(logs: jax.Array, log_zero: jax.Array) -> jax.Array:
    return jnp.where(logs == -jnp.inf, log_zero, logs)


def _loss(last: _Paths, ignored: jax.Array) -> jax.Array:
    lengths = jnp.sum(~ignored, -1)
    return -jnp.take_along_axis(_end_anywhere(last), lengths[:, None], 1)[:, 0]


def _end_anywhere(paths: _Paths) -> jax.Array:
    """Of paths that emit n labels, whether they end in a blank or in a label."""
    label = _shift(paths.label, -jnp.inf)
    peak, low = jnp.maximum(paths.blank, label), jnp.minimum(paths.blank, label)
    return peak + jnp.log1p(jnp.exp(low - peak))


def _start(frames: _Frames, fixed: _Fixed) -> _Paths:
    """Before the first frame nothing is emitted."""
    label = jnp.full_like(frames.label[0], fixed.log_zero)
    blank = jnp.full_like(label, fixed.log_zero)
    return _Paths(jnp.concatenate([jnp.zeros_like(frames.blank[0]), blank], -1), label)


def _advance(paths: _Paths, frames: _Frames, padded: jax.Array, repeat: jax.Array) -> _Paths:
    """One frame."""
    blank = _end_anywhere(paths) + frames.blank
    label = _log_add(*_ways_to_label(paths, repeat)) + frames.label
    return _Paths(jnp.where(padded, paths.blank, blank), jnp.where(padded, paths.label, label))


def _ways_to_label(paths: _Paths, repeat: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """From the blank before it, from itself, from the label before it, which the first lacks."""
    before = _shift(paths.label[..., :-1], -jnp.inf)
    return paths.blank[..., :-1], paths.label, before + repeat


def _shift(array: jax.Array, first: float) -> jax.Array:
    """The array one place further, behind `first`."""
    widths = [(0, 0, 0)] * (array.ndim - 1) + [(1, 0, 0)]
    return jax.lax.pad(array, jnp.asarray(first, array.dtype), widths)


def _log_add(first: jax.Array, second: jax.Array, third: jax.Array) -> jax.Array:
    peak = jnp.maximum(jnp.maximum(first, second), third)
    return peak + jnp.log(jnp.exp(first - peak) + jnp.exp(second - peak) + jnp.exp(third - peak))


@jax.custom_jvp
def _all_paths(frames: _Frames, fixed: _Fixed) -> _Paths:
    """(φ, ε) after every frame."""

    def step(paths: _Paths, frame: Any) -> tuple[_Paths, _Paths]:
        logs, padded = frame
        paths = _advance(paths, logs, padded, fixed.repeat)
        return paths, paths

    return jax.lax.scan(step, _start(frames, fixed), (frames, fixed.padded))[1]


@_all_paths.defjvp
def _all_paths_jvp(primals: Any, tangents: Any) -> tuple[_Paths, _Paths]:
    frames, fixed = primals
    paths = _all_paths(frames, fixed)
    return paths, _advance_tangents(paths, frames, fixed, tangents[0])[1]


@jax.custom_jvp
def _last_paths(frames: _Frames, fixed: _Fixed) -> _Paths:
    """(φ, ε) after the last frame; those before it are not stored."""

    def step(paths: _Paths, frame: Any) -> tuple[_Paths, None]:
        logs, padded = frame
        return _advance(paths, logs, padded, fixed.repeat), None

    return jax.lax.scan(step, _start(frames, fixed), (frames, fixed.padded))[0]


@_last_paths.defjvp
def _last_paths_jvp(primals: Any, tangents: Any) -> tuple[_Paths, _Paths]:
    frames, fixed = primals
    paths = _all_paths(frames, fixed)
    last = jax.tree.map(lambda array: array[-1], paths)
    return last, _advance_tangents(paths, frames, fixed, tangents[0])[0]


def _advance_tangents(
    paths: _Paths, frames: _Frames, fixed: _Fixed, tangents: _Frames
) -> tuple[_Paths, _Paths]:
    """The tangents of (φ, ε) after the last frame, and after every frame."""
    start = _start(frames, fixed)
    before = jax.tree.map(lambda first, all: jnp.concatenate([first[None], all[:-1]]), start, paths)
    weights = _weights(before, fixed._replace(repeat=fixed.repeat[None]))
    # Of one shape with φ: its sum over n in the backward pass then is one outside of the loop.
    blank = jnp.broadcast_to(tangents.blank, paths.blank.shape)
    xs = (weights, _Frames(blank, tangents.label))
    return jax.lax.scan(_advance_tangent, jax.tree.map(jnp.zeros_like, start), xs)


def _advance_tangent(paths: _Paths, frame: tuple[_Weights, _Frames]) -> tuple[_Paths, _Paths]:
    weights, tangents = frame
    ends = _shift(weights.end_label * paths.label, 0)
    label = weights.begin_label * paths.blank[..., :-1] + weights.stay_label * paths.label
    follows = _shift(weights.next_label * paths.label[..., :-1], 0)
    paths = _Paths(
        weights.stay_blank * paths.blank + ends + tangents.blank, label + follows + tangents.label
    )
    return paths, paths


def _weights(before: _Paths, fixed: _Fixed) -> _Weights:
    """The shares of the terms of each sum; a padded frame keeps every path where it is."""
    one, zero = jnp.ones((), before.blank.dtype), jnp.zeros((), before.blank.dtype)
    end = jax.nn.sigmoid(before.label - before.blank[..., 1:])
    stay = jax.nn.sigmoid(before.blank - _shift(before.label, -jnp.inf))
    ways = _ways_to_label(before, fixed.repeat)
    total = _log_add(*ways)
    begin, same, follow = (jnp.exp(way - total) for way in ways)
    arrays, values = (stay, end, begin, same, follow[..., 1:]), (one, zero, zero, one, zero)
    return _Weights(*(jnp.where(fixed.padded, v, a) for v, a in zip(values, arrays, strict=True)))


def _check_shapes(
    name: str,
    logits: tuple[int, ...],
    logit_paddings: tuple[int, ...],
    labels: tuple[int, ...],
    label_paddings: tuple[int, ...],
    blank_id: int,
) -> None:
    if len(logits) != 3 or logit_paddings != logits[:2]:
        raise StructureError(
            f"{name}: logits have shape {logits} and logit_paddings {logit_paddings}; give "
            "(sequences, frames, classes) and (sequences, frames)"
        )
    if len(labels) != 2 or labels[0] != logits[0] or label_paddings != labels:
        raise StructureError(
            f"{name}: labels have shape {labels} and label_paddings {label_paddings}; logits of "
            f"shape {logits} need ({logits[0]}, labels) for both"
        )
    if logits[1] == 0:
        raise StructureError(f"{name}: logits of shape {logits} have no frame; give at least one")
    if not 0 <= blank_id < logits[2]:
        raise StructureError(
            f"{name}: blank_id={blank_id} is not one of the {logits[2]} classes of logits of shape "
            f"{logits}"
        )
