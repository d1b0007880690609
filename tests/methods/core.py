"""The building blocks and the textbook methods."""

import numpy as np

import gradtx
from tests.methods.row import Method, double, everywhere, rate
from tests.oracles import core as ref
from tests.oracles.compose import (
    after,
    cautious,
    decay_by_form,
    decay_weights,
    descend,
    each,
    scale,
)
from tests.support.peer import optax

METHODS: dict[str, Method] = {
    # transforms
    "identity": Method(gradtx.identity(), each(ref.identity), optax.identity()),
    "set_to_zero": Method(gradtx.set_to_zero(), each(ref.zero), optax.set_to_zero()),
    "scale": Method(gradtx.scale(-0.3), each(scale, factor=-0.3), optax.scale(-0.3)),
    "scale_by_schedule": Method(
        gradtx.scale_by_schedule(rate), each(scale, factor=rate), optax.scale_by_schedule(rate)
    ),
    "scale_by_learning_rate": Method(
        gradtx.scale_by_learning_rate(rate),
        each(scale, factor=lambda count: -rate(count)),
        optax.scale_by_learning_rate(rate),
    ),
    "scale_by_learning_rate/ascend": Method(
        gradtx.scale_by_learning_rate(0.2, flip_sign=False),
        each(scale, factor=0.2),
        optax.scale_by_learning_rate(0.2, flip_sign=False),
    ),
    "add_decayed_weights": Method(
        gradtx.add_decayed_weights(0.05),
        each(decay_weights, weight_decay=0.05),
        optax.add_decayed_weights(0.05),
    ),
    "trace": Method(gradtx.trace(0.9), each(ref.trace, decay=0.9), optax.trace(0.9)),
    "trace/nesterov": Method(
        gradtx.trace(0.8, nesterov=True),
        each(ref.trace, decay=0.8, nesterov=True),
        optax.trace(0.8, nesterov=True),
    ),
    "ema": Method(gradtx.ema(0.99), each(ref.ema, decay=0.99), optax.ema(0.99)),
    "ema/raw": Method(
        gradtx.ema(0.9, debias=False),
        each(ref.ema, decay=0.9, debias=False),
        optax.ema(0.9, debias=False),
    ),
    "clip": Method(gradtx.clip(0.5), each(ref.clip, c=0.5), optax.clip(0.5)),
    "clip_by_block_rms": Method(
        gradtx.clip_by_block_rms(0.9),
        each(ref.clip_by_block_rms, c=0.9),
        optax.clip_by_block_rms(0.9),
    ),
    "clip_by_global_norm": Method(
        gradtx.clip_by_global_norm(1.0),
        lambda *a: ref.clip_by_global_norm(*a, c=1.0),
        optax.clip_by_global_norm(1.0),
    ),
    "scale_by_rss": Method(gradtx.scale_by_rss(), each(ref.rss), optax.scale_by_rss()),
    "scale_by_rms": Method(
        gradtx.scale_by_rms(0.95, initial_scale=0.5),
        each(ref.rms, decay=0.95, start=0.5),
        optax.scale_by_rms(0.95, initial_scale=0.5),
    ),
    "scale_by_rms/corrected": Method(
        gradtx.scale_by_rms(eps_in_sqrt=False, bias_correction=True),
        each(ref.rms, eps_in_sqrt=False, bias_correction=True),
        optax.scale_by_rms(eps_in_sqrt=False, bias_correction=True),
    ),
    "scale_by_stddev": Method(
        gradtx.scale_by_stddev(eps=1e-3),
        each(ref.stddev, eps=1e-3),
        optax.scale_by_stddev(eps=1e-3),
    ),
    "scale_by_stddev/corrected": Method(
        gradtx.scale_by_stddev(eps=0.1, bias_correction=True),
        each(ref.stddev, eps=0.1, bias_correction=True),
        optax.scale_by_stddev(eps=0.1, bias_correction=True),
    ),
    "scale_by_adam": Method(gradtx.scale_by_adam(), each(ref.adam), optax.scale_by_adam()),
    "scale_by_lion": Method(gradtx.scale_by_lion(), each(ref.lion), optax.scale_by_lion()),
    "scale_by_lion/smooth": Method(
        gradtx.scale_by_lion(mode="smooth", smooth_beta=2.0),
        each(ref.lion, soften=lambda c: np.tanh(2 * c)),
        optax.scale_by_lion(mode="smooth", smooth_beta=2.0),
    ),
    "scale_by_lion/refined": Method(
        gradtx.scale_by_lion(mode="refined"),
        each(ref.lion, soften=lambda c: np.clip(c, -1, 1)),
        optax.scale_by_lion(mode="refined"),
    ),
    # optimizers
    "sgd": Method(gradtx.sgd(0.1), descend(each(ref.identity), 0.1), optax.sgd(0.1)),
    "sgd/momentum": Method(
        gradtx.sgd(rate, momentum=0.9),
        descend(each(ref.trace, decay=0.9), rate),
        optax.sgd(rate, momentum=0.9),
    ),
    "sgd/nesterov": Method(
        gradtx.sgd(0.1, momentum=0.8, nesterov=True),
        descend(each(ref.trace, decay=0.8, nesterov=True), 0.1),
        optax.sgd(0.1, momentum=0.8, nesterov=True),
    ),
    "adagrad": Method(gradtx.adagrad(0.1), descend(each(ref.rss), 0.1), optax.adagrad(0.1)),
    "adagrad/textbook": Method(
        gradtx.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-6, eps_in_sqrt=False),
        descend(each(ref.rss, start=0.0, eps=1e-6, eps_in_sqrt=False), 0.1),
    ),
    "rmsprop": Method(
        gradtx.rmsprop(0.1),
        descend(each(ref.rms), 0.1),
        optax.rmsprop(0.1),
        breaks=("paths",),  # `centered` is another rule, scale_by_stddev, with a slot more
    ),
    "rmsprop/textbook": Method(
        gradtx.rmsprop(0.1, decay=0.95, eps=1e-6, eps_in_sqrt=False),
        descend(each(ref.rms, decay=0.95, eps=1e-6, eps_in_sqrt=False), 0.1),
        optax.rmsprop(0.1, decay=0.95, eps=1e-6, eps_in_sqrt=False),
    ),
    "rmsprop/centered": Method(
        gradtx.rmsprop(rate, eps=1e-2, centered=True, momentum=0.9),
        after(descend(each(ref.stddev, eps=1e-2), rate), each(ref.trace, decay=0.9)),
        optax.rmsprop(rate, eps=1e-2, centered=True, momentum=0.9),
    ),
    "rmsprop/nesterov": Method(
        gradtx.rmsprop(rate, momentum=0.9, nesterov=True),
        after(descend(each(ref.rms), rate), each(ref.trace, decay=0.9, nesterov=True)),
        optax.rmsprop(rate, momentum=0.9, nesterov=True),
    ),
    "adam": Method(gradtx.adam(rate), descend(each(ref.adam), rate), optax.adam(rate)),
    "adam/nesterov": Method(
        gradtx.adam(0.1, 0.8, nesterov=True),
        descend(each(ref.adam, b1=0.8, nesterov=True), 0.1),
        optax.adam(0.1, 0.8, nesterov=True),
    ),
    "adam/eps_root": Method(
        gradtx.adam(0.1, b1=0.0, eps_root=1e-3),
        descend(each(ref.adam, b1=0.0, eps_root=1e-3), 0.1),
        optax.adam(0.1, b1=0.0, eps_root=1e-3),
    ),
    "adamw": Method(
        gradtx.adamw(rate, weight_decay=0.05),
        descend(each(ref.adam), rate, 0.05),
        optax.adamw(rate, weight_decay=0.05),
    ),
    "lion": Method(
        gradtx.lion(0.05, weight_decay=0.1),
        descend(each(ref.lion), 0.05, 0.1),
        optax.lion(0.05, weight_decay=0.1),
    ),
    # flags of the Adam family
    "adam/l2": Method(
        gradtx.adam(0.1, weight_decay=0.1, decay_form="l2"),
        after(each(decay_weights, weight_decay=0.1), descend(each(ref.adam), 0.1)),
    ),
    "adamw/independent": Method(
        gradtx.adamw(rate, weight_decay=0.005, decay_form="independent", peak_learning_rate=0.1),
        descend(
            after(
                each(ref.adam),
                each(decay_by_form, weight_decay=0.005, form="independent", eta=rate, peak=0.1),
            ),
            rate,
        ),
    ),
    "adamw/corrected": Method(
        gradtx.adamw(rate, weight_decay=0.1, decay_form="corrected", peak_learning_rate=0.1),
        descend(
            after(
                each(ref.adam),
                each(decay_by_form, weight_decay=0.1, form="corrected", eta=rate, peak=0.1),
            ),
            rate,
        ),
    ),
    "lion/cautious": Method(
        gradtx.lion(0.05, weight_decay=0.1, decay_form="cautious", cautious=True),
        descend(
            after(
                cautious(each(ref.lion)),
                each(decay_by_form, weight_decay=0.1, form="cautious", eta=0.05, peak=0.05),
            ),
            0.05,
        ),
    ),
    "cautious_mask": Method(
        gradtx.chain(gradtx.scale_by_adam(), gradtx.cautious_mask(), gradtx.scale(-0.1)),
        descend(cautious(each(ref.adam)), 0.1),
    ),
    # combinators and wrappers
    "descend": Method(
        gradtx.descend(gradtx.scale_by_rms(), 0.1, 0.2), descend(each(ref.rms), 0.1, 0.2)
    ),
    "chain": Method(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(rate), last=gradtx.ema(0.5)),
        after(
            lambda *a: ref.clip_by_global_norm(*a, c=1.0),
            descend(each(ref.adam), rate, 1e-4),
            each(ref.ema, decay=0.5),
        ),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate), optax.ema(0.5)),
    ),
    "tunable": Method(
        gradtx.tunable(gradtx.adam(0.1), "learning_rate", "b2"), descend(each(ref.adam), 0.1)
    ),
    "inject_hyperparams": Method(
        gradtx.inject_hyperparams(gradtx.sgd)(rate, momentum=0.9),
        descend(each(ref.trace, decay=0.9), rate),
        optax.inject_hyperparams(optax.sgd)(rate, momentum=0.9),
    ),
    "stateless": Method(gradtx.stateless(double), each(scale, factor=2.0)),
    "masked": Method(gradtx.masked(gradtx.sgd(0.5), everywhere), descend(each(ref.identity), 0.5)),
    "freeze": Method(gradtx.freeze(everywhere), each(ref.zero)),
    "partition": Method(
        gradtx.partition({"all": gradtx.adam(0.1)}, [(r".*", "all")]), descend(each(ref.adam), 0.1)
    ),
}
