"""Wrappers that watch, or scale, what goes through them: the numbers are those of what is
inside.
"""

import gradtx
from tests.methods.row import Method, rate
from tests.oracles import core as ref
from tests.oracles.compose import after, descend, each, scale

clipped = after(lambda *a: ref.clip_by_global_norm(*a, c=1.0), descend(each(ref.adam), rate, 0.1))

METHODS: dict[str, Method] = {
    "with_metrics": Method(
        gradtx.with_metrics(
            gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(rate, weight_decay=0.1)),
            decay=0.9,
        ),
        clipped,
        copies="the norm of the updates needs all of them in memory",
    ),
    "dynamic_loss_scale": Method(
        gradtx.dynamic_loss_scale(gradtx.adamw(rate, weight_decay=0.1), initial_scale=4.0),
        after(each(scale, factor=0.25), descend(each(ref.adam), rate, 0.1)),
        breaks=("contained",),  # a gradient with nan makes no update at all
    ),
}
