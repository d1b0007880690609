"""What holds a training together: one update of several micro-batches, and steps that are left
out.
"""

from typing import Any

import gradtx
from tests.methods.row import Method, rate, real
from tests.oracles import core as ref
from tests.oracles import production as own
from tests.oracles.compose import descend, each
from tests.support.peer import optax


def growing(count: Any) -> Any:
    """Micro-steps to an update: 1, 2, 3, 4, ..."""
    return 1 + count


def slowly(count: Any) -> Any:
    """A rate that is high enough to be seen after few updates, and changes with every one."""
    return 0.2 / (1.0 + real(count))


def tokens(step: int, params: Any, grads: Any) -> dict[str, Any]:
    """Micro-batches of 3, 0, 5, 2, 3, 0, ... tokens."""
    return {"weight": (2.0, 3.0, 0.0, 5.0)[step % 4]}


def clipped(learning_rate: Any) -> Any:
    return gradtx.chain(
        gradtx.clip_by_global_norm(2.0), gradtx.adamw(learning_rate, weight_decay=0.1)
    )


def clipped_optax(learning_rate: Any) -> Any:
    return optax.chain(optax.clip_by_global_norm(2.0), optax.adamw(learning_rate, weight_decay=0.1))


def clipped_reference(grads: Any, params: Any, memory: Any, t: int) -> Any:
    """Both see the mean once."""
    within = ref.clip_by_global_norm(grads, params, {}, t, 2.0)
    return descend(each(ref.adam), slowly, 0.1)(within, params, memory, t)


METHODS: dict[str, Method] = {
    "accumulate": Method(
        gradtx.accumulate(gradtx.adam(slowly), 2),
        own.accumulate(descend(each(ref.adam), slowly), 2),
        optax.MultiSteps(optax.adam(slowly), 2).gradient_transformation(),
        copies="a branch keeps its outcome, and what passes through it is copied",
    ),
    "accumulate/every step": Method(
        gradtx.accumulate(clipped(slowly), 1),
        clipped_reference,
        clipped_optax(slowly),
        float32=3e-5,  # at the third step the momentum of the scalar all but cancels
    ),
    "accumulate/ever more": Method(
        gradtx.accumulate(clipped(slowly), growing),
        own.accumulate(clipped_reference, growing),
        optax.MultiSteps(clipped_optax(slowly), growing).gradient_transformation(),
        optax64=1e-7,  # its sum is kept in float32
    ),
    "accumulate/tokens": Method(
        gradtx.accumulate(clipped(slowly), 3),
        own.accumulate(clipped_reference, 3),
        extra=tokens,
    ),
    "guard": Method(
        gradtx.guard(gradtx.adam(rate), max_norm=6.0),
        own.guard(descend(each(ref.adam), rate), 6.0),
        breaks=("contained",),  # a gradient with nan makes no update at all
    ),
    "guard/spikes": Method(
        gradtx.guard(clipped(slowly), zscore=1.5, decay=0.9, warmup_steps=4),
        own.guard(clipped_reference, z=1.5, decay=0.9, warmup=4),
        float32=3e-5,  # at the third step the momentum of the scalar all but cancels
        breaks=("contained",),  # the same
    ),
    "guard/all": Method(
        gradtx.guard(
            gradtx.sgd(slowly, momentum=0.9), max_norm=6.0, zscore=1.0, decay=0.9, warmup_steps=5
        ),
        own.guard(descend(each(ref.trace, decay=0.9), slowly), 6.0, z=1.0, decay=0.9, warmup=5),
        breaks=("contained",),  # the same
    ),
    "offloaded": Method(gradtx.offloaded(gradtx.adam(rate), r"nu/"), descend(each(ref.adam), rate)),
    "sharded": Method(
        gradtx.sharded(gradtx.adam(rate), "x", mesh={"x": 1}), descend(each(ref.adam), rate)
    ),
    "guard/of means": Method(
        gradtx.accumulate(gradtx.guard(clipped(slowly), max_norm=3.5), 2),
        own.accumulate(own.guard(clipped_reference, 3.5), 2),
    ),
    "guard/of micro-batches": Method(
        gradtx.guard(gradtx.accumulate(clipped(slowly), 3), max_norm=5.0),
        own.guard(own.accumulate(clipped_reference, 3), 5.0),
    ),
}
