"""CTC: the loss as the sum over all alignments one by one; the recursion in plain loops."""

import itertools

import numpy as np
import optax

from gradtx.losses.ctc import ctc_loss, ctc_loss_with_forward_probs
from tests.functions.row import Case, Function

_logits = 2.0 * np.sin(np.arange(45.0) ** 1.2).reshape(3, 5, 3)
_frames = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]])
_labels = np.array([[1, 2, 1], [2, 2, 0], [1, 0, 2]])
_pads = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1]])
_nan = np.where(_frames[..., None] == 1, np.nan, _logits)


def _log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _emits(path, blank):
    """The labels of an alignment: repeats merge, then blanks vanish."""
    return [one for one, _ in itertools.groupby(path) if one != blank]


def _all_alignments(logits, logit_paddings, labels, label_paddings, blank_id=0):
    losses = []
    rows = zip(logits, logit_paddings, labels, label_paddings, strict=True)
    for scores, frames, row, pads in rows:
        logs, wanted = _log_softmax(scores[frames == 0]), [*row[pads == 0]]
        paths = itertools.product(range(logs.shape[1]), repeat=len(logs))
        sums = [
            sum(log[one] for log, one in zip(logs, path, strict=True))
            for path in paths
            if _emits(path, blank_id) == wanted
        ]
        losses.append(-np.log(np.sum(np.exp(sums))))
    return np.array(losses)


def _recursion(logits, logit_paddings, labels, label_paddings, blank_id=0, log_epsilon=-1e5):
    logs, (batch, count) = _log_softmax(logits), labels.shape
    blank = np.full((batch, count + 1), log_epsilon)
    blank[:, 0] = 0.0
    label, blanks, emits = np.full((batch, count), log_epsilon), [], []
    for t in range(logits.shape[1]):
        old_blank, old_label = blank.copy(), label.copy()
        for b, n in itertools.product(range(batch), range(count + 1)):
            if logit_paddings[b, t]:
                continue
            ends = [old_blank[b, n]] + ([old_label[b, n - 1]] if n else [])
            blank[b, n] = np.logaddexp.reduce(ends) + logs[b, t, blank_id]
            if n == count:
                continue
            ways = [old_blank[b, n], old_label[b, n]]
            if n:
                is_repeat = labels[b, n] == labels[b, n - 1]
                ways.append(old_label[b, n - 1] + (log_epsilon if is_repeat else 0.0))
            label[b, n] = np.logaddexp.reduce(ways) + logs[b, t, labels[b, n]]
        blanks.append(blank.copy())
        emits.append(label.copy())
    blanks[-1][:, 1:] = np.logaddexp(blanks[-1][:, 1:], emits[-1])
    lengths = np.sum(label_paddings == 0, 1)
    loss = -np.take_along_axis(blanks[-1], lengths[:, None], 1)[:, 0]
    return loss, np.array(blanks), np.array(emits)


FUNCTIONS = {
    "ctc_loss": Function(
        call=ctc_loss,
        reference=_all_alignments,
        peer=optax.ctc_loss,
        cases={
            "repeats and paddings": Case((_logits, _frames, _labels, _pads)),
            "another blank": Case((_logits, _frames, 2 - _labels, _pads), {"blank_id": 2}),
            "no labels": Case((_logits, _frames, _labels, np.ones_like(_pads))),
        },
        static=("blank_id",),
    ),
    "ctc_loss_with_forward_probs": Function(
        call=ctc_loss_with_forward_probs,
        reference=_recursion,
        peer=optax.ctc_loss_with_forward_probs,
        cases={
            "repeats and paddings": Case((_logits, _frames, _labels, _pads)),
            "too few frames": Case((_logits[:, :2], _frames[:, :2], _labels, _pads)),
            "large logits": Case((5e3 * _logits, _frames, _labels, _pads)),
        },
        static=("blank_id",),
    ),
}
