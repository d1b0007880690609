"""Outer optimizers: a step from where several inner steps led."""

import gradtx
from tests.methods.row import Method, rate
from tests.oracles import core as ref
from tests.oracles import outer as own
from tests.oracles.compose import descend, each

momentum = gradtx.sgd(rate, momentum=0.9)
momentum_reference = descend(each(ref.trace, decay=0.9), rate)

METHODS: dict[str, Method] = {
    "outer": Method(
        gradtx.outer(momentum, gradtx.sgd(0.7, momentum=0.5, nesterov=True), every=3),
        own.outer(momentum_reference, own.nesterov(0.7, 0.5), 3),
        float32=1e-3,  # the step to P is a difference of parameters, and has their rounding
        copies="a branch keeps its outcome, and what passes through it is copied",
    ),
    "outer/streaming": Method(
        gradtx.outer(
            momentum,
            gradtx.sgd(rate, momentum=0.9, nesterov=True),
            every=5,
            fragments=2,
            delay=2,
            merge=0.5,
        ),
        own.outer(
            momentum_reference,
            own.nesterov(rate, 0.9),
            5,
            fragments=[(0, 2), (1, 3)],
            delay=2,
            merge=0.5,
        ),
        float32=1e-3,  # the same
    ),
    "outer/int8": Method(
        gradtx.outer(
            momentum,
            gradtx.sgd(0.7, momentum=0.5, nesterov=True),
            every=1,
            compress="int8",
            error_feedback=True,
        ),
        own.outer(momentum_reference, own.nesterov(0.7, 0.5), 1, code=own.int8, feedback=True),
        float64=1e-6,  # codes are decoded in float32
        float32=3e-2,  # a code may be rounded to its other neighbour, of 127
        breaks=("contained",),  # a block has one scale
    ),
}
