"""Averages of the end of a run, gradients beside an average, and guards that look back over a
window; the parameters to evaluate are compared in tests/unit/wrappers/test_tails.py.
"""

import functools
from typing import Any

import numpy as np

import gradtx
from tests.methods.row import Method, rate, real
from tests.oracles import core as ref
from tests.oracles import tails as own
from tests.oracles.compose import descend, each


def ramp(count: Any) -> Any:
    """A gain that is 0 for a while, and then rises to 0.45."""
    rising = (real(count) - 4) * 0.15
    return 0.45 * np.clip(rising, 0.0, 1.0) if isinstance(count, int) else 0.45 * rising.clip(0, 1)


def sliding(count: Any) -> Any:
    return 0.5 + 0.4 / (1.0 + real(count))


def warm(count: Any) -> Any:
    """A warmup from 0 that ends at 1."""
    share = 0.25 * real(count)
    return min(share, 1.0) if isinstance(count, int) else share.clip(max=1.0)


def losses(step: int, params: Any, grads: Any) -> dict[str, Any]:
    """Losses whose Polyak steps are short, some of them 0."""
    return {"value": float(np.float32(2.0 + 2.5 * np.sin(step)))}


def uneven(step: int, params: Any, grads: Any) -> dict[str, Any]:
    """Losses that fall far at step 8, and spike at step 18."""
    spikes = {8: -6.0, 18: 9.0}
    return {"value": float(np.float32(4.0 + 0.1 * np.cos(5 * step) + spikes.get(step, 0.0)))}


sgd, adamw = descend(each(ref.trace, decay=0.5), 0.1), descend(each(ref.adam), rate, 0.1)

METHODS: dict[str, Method] = {
    "tail_ema": Method(
        gradtx.chain(gradtx.sgd(0.1, momentum=0.5), gradtx.tail_ema(4.0, start=3, every=2)),
        own.tail(sgd, 4.0, 3, 2),
    ),
    "params_bema": Method(
        gradtx.chain(gradtx.sgd(0.1, momentum=0.5), gradtx.params_bema(0.3, 0.6, 5.0)),
        own.bema(sgd, 0.3, 0.6, 5.0),
    ),
    "anchor_gradient": Method(
        gradtx.anchor_gradient(gradtx.sgd(0.1, momentum=0.5), horizon=5.0, every=2),
        own.anchor(sgd, 5.0, 0, 0.45, 2),
        float32=1e-4,  # y - e is a difference of parameters, and has their rounding
    ),
    "anchor_gradient/ramp": Method(
        gradtx.anchor_gradient(
            gradtx.adamw(rate, weight_decay=0.1), 3.0, start=2, gain=ramp, blend=0.5
        ),
        own.anchor(adamw, 3.0, 2, ramp, 1, 0.5),
        float32=1e-4,  # y - e is a difference of parameters, and has their rounding
    ),
    "gpa": Method(
        gradtx.gpa(gradtx.sgd(0.1, momentum=0.5), inner_steps=4),
        own.gpa(sgd, 0.9**0.25),
        float32=1e-3,  # y - z is a difference of parameters, and has their rounding
    ),
    "gpa/decay": Method(
        gradtx.gpa(gradtx.adam(rate), mu_x=0.8, mu_y=sliding, weight_decay=0.1, learning_rate=rate),
        own.gpa(descend(each(ref.adam), rate), 0.8, sliding, lambda count: 0.1 * rate(count)),
        float32=1e-4,  # y - z is a difference of parameters, and has their rounding
    ),
    "schedule_free_plus": Method(
        gradtx.schedule_free_plus(gradtx.scale_by_sign(), beta=0.8, norm_decay=0.7),
        own.free_plus(
            each(lambda g, w, memory, t: np.sign(g)), beta=0.8, anneal=1e4, norm_decay=0.7
        ),
        extra=losses,
        float32=1e-4,  # y - z is a difference of parameters, and has their rounding
    ),
    "schedule_free_plus_adamw": Method(
        gradtx.schedule_free_plus_adamw(
            warm,
            eps=1e-3,
            weight_decay=0.3,
            beta=0.7,
            beta_end=0.9,
            anneal_steps=12.0,
            average_warmup=3.0,
            weight_power=2.0,
            weight_lr_power=1.5,
        ),
        own.free_plus(
            each(ref.adam, b1=0.9, b2=0.95, eps=1e-3),
            warm,
            0.7,
            0.9,
            12.0,
            0.3,
            warm=3,
            r=2.0,
            p=1.5,
        ),
        extra=losses,
        # y - z is a difference of parameters, and has their rounding; some steps are short
        float64=1e-11,
        float32=1e-3,
    ),
    "clip_by_zscore": Method(
        gradtx.clip_by_zscore(zscore=0.5, window=6, warmup_steps=3),
        functools.partial(own.clip_by_zscore, z=0.5, window=6, warmup=3),
        copies="the window, six numbers, is written before its statistics are read",
    ),
    "guard/window": Method(
        gradtx.guard(gradtx.adam(rate), window=6, zscore=1.2, warmup_steps=3, max_norm=8.0),
        own.guard(descend(each(ref.adam), rate), 6, 1.2, 3, max_norm=8.0),
        breaks=("contained",),  # a gradient with nan makes no update at all
    ),
    "guard/watch": Method(
        gradtx.guard(
            gradtx.sgd(rate, momentum=0.5),
            watch=("grad_norm", "value"),
            window=8,
            zscore=3.0,
            warmup_steps=5,
            two_sided=True,
        ),
        own.guard(
            descend(each(ref.trace, decay=0.5), rate), 8, 3.0, 5, ("grad_norm", "value"), True
        ),
        breaks=("contained",),  # the same
        extra=uneven,
    ),
}
