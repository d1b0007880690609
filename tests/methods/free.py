"""Methods that need no learning rate: they measure distances, or are told the loss."""

import functools
from typing import Any

import numpy as np

import gradtx
from tests.methods.row import Method, rate, real
from tests.oracles import core
from tests.oracles import free as ref
from tests.oracles.compose import after, decay_weights, descend, each, scale
from tests.support.peer import optax

contrib: Any = optax.contrib


def loss(step: int, params: Any, grads: Any) -> dict[str, Any]:
    """A loss between 1 and 3, so that a lower bound of 1.5 is crossed both ways."""
    return {"value": 2.0 + np.sin(step)}


def slow(count: Any) -> Any:
    """A schedule that leaves time for the estimate to grow."""
    return 1.0 / (1.0 + 0.1 * real(count))


def penalized(method: Any, **hyperparams: Any) -> Any:
    """A reference behind an L2 penalty of 0.1."""
    return after(each(decay_weights, weight_decay=0.1), functools.partial(method, **hyperparams))


# The first distances are large, 0.01 to 0.1: a way of 1e-6 from parameters of size 1 is the
# rounding of float32. The estimates
# grow within the steps compared.
PRODIGY: dict[str, Any] = {
    "beta3": 0.7,
    "eps": 1e-2,
    "estim_lr0": 0.02,
    "estim_lr_coef": 4.0,
    "weight_decay": 0.1,
    "safeguard_warmup": True,
}
DADAPT: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-3, "estim_lr0": 0.02, "weight_decay": 0.1}
# Steps that reach the longest and steps that do not.
MOMO: dict[str, Any] = {"learning_rate": 0.1, "lower_bound": -1.0, "weight_decay": 0.1}
MOMO_ADAM: dict[str, Any] = {
    "learning_rate": 0.2,
    "b1": 0.8,
    "b2": 0.95,
    "lower_bound": -0.5,
    "weight_decay": 0.1,
}
ADAPTS: dict[str, Any] = {
    "learning_rate": 0.1,
    "lower_bound": 1.5,
    "weight_decay": 0.1,
    "adapt_lower_bound": True,
}
MECHANIC: dict[str, Any] = {"weight_decay": 0.5, "eps": 1e-3, "s_init": 1.0, "num_betas": 3}

METHODS: dict[str, Method] = {
    "prodigy": Method(
        gradtx.prodigy(estim_lr0=0.01),
        functools.partial(ref.prodigy, d0=0.01),
        contrib.prodigy(estim_lr0=0.01),
    ),
    "prodigy/safeguard": Method(
        gradtx.prodigy(slow, (0.8, 0.95), **PRODIGY),
        functools.partial(
            ref.prodigy,
            eta=slow,
            b1=0.8,
            b2=0.95,
            b3=0.7,
            eps=1e-2,
            d0=0.02,
            coef=4.0,
            weight_decay=0.1,
            safeguard=True,
        ),
        contrib.prodigy(slow, (0.8, 0.95), **PRODIGY),
    ),
    "dadapt_adamw": Method(
        gradtx.dadapt_adamw(**DADAPT),
        functools.partial(ref.dadapt_adamw, b1=0.9, b2=0.99, eps=1e-3, d0=0.02, weight_decay=0.1),
        contrib.dadapt_adamw(**DADAPT),
    ),
    "dog": Method(
        gradtx.dog(rate, ("distance", 0.1), 1e-2, weight_decay=0.1),
        penalized(ref.dog, eta=rate, form="distance", first=0.1, eps=1e-2),
        contrib.dog(rate, ("distance", 0.1), 1e-2, weight_decay=0.1),
    ),
    "dog/heuristic": Method(
        gradtx.dog(init_step=("heuristic", 0.01)),
        functools.partial(ref.dog, first=0.01),
        contrib.dog(init_step=("heuristic", 0.01)),
    ),
    "dog/learning_rate": Method(
        gradtx.dog(init_step=("learning_rate", 0.1)),
        functools.partial(ref.dog, form="learning_rate", first=0.1),
        contrib.dog(init_step=("learning_rate", 0.1)),
    ),
    "dowg": Method(gradtx.dowg(), ref.dowg, contrib.dowg()),
    "dowg/first": Method(
        gradtx.dowg(0.7, 0.1, 1e-2, weight_decay=0.1),
        penalized(ref.dowg, eta=0.7, first=0.1, eps=1e-2),
        contrib.dowg(0.7, 0.1, 1e-2, weight_decay=0.1),
    ),
    # Beside Optax in tests/unit/optimizers/test_free.py: Optax's makes a scalar an array of one
    # entry.
    "scale_by_distance_over_gradients": Method(
        gradtx.scale_by_distance_over_gradients(0.1, 1e-2, global_scale=-0.5),
        functools.partial(ref.distance_over_gradients, reps_rel=0.1, eps=1e-2, scale=-0.5),
    ),
    "scale_by_polyak": Method(
        gradtx.scale_by_polyak(1.5, 0.02, 0.1),
        functools.partial(ref.polyak, f_min=1.5, cap=0.02, eps=0.1),
        optax.scale_by_polyak(1.5, 0.02, 0.1),
        extra=loss,
    ),
    "polyak_sgd": Method(
        gradtx.polyak_sgd(0.02, 0.5, 1.5, 0.1, "sps+"),
        functools.partial(ref.polyak, f_min=1.5, cap=0.02, eps=0.1, plus=True, factor=-0.5),
        optax.polyak_sgd(0.02, 0.5, 1.5, 0.1, "sps+"),
        extra=loss,
    ),
    "momo": Method(
        gradtx.momo(**MOMO),
        functools.partial(ref.momo, eta=0.1, bound=-1.0, weight_decay=0.1),
        contrib.momo(**MOMO),
        extra=loss,
    ),
    "momo/adapt": Method(
        gradtx.momo(**ADAPTS),
        functools.partial(ref.momo, eta=0.1, bound=1.5, weight_decay=0.1, adapt=True),
        contrib.momo(**ADAPTS),
        # the model less its lower bound, which follows the model: the step is a difference of near
        # equals
        float32=1e-4,
        extra=loss,
    ),
    "momo_adam": Method(
        gradtx.momo_adam(**MOMO_ADAM),
        functools.partial(ref.momo_adam, eta=0.2, b1=0.8, b2=0.95, bound=-0.5, weight_decay=0.1),
        contrib.momo_adam(**MOMO_ADAM),
        extra=loss,
    ),
    "momo_adam/adapt": Method(
        gradtx.momo_adam(**ADAPTS, b1=0.8, b2=0.95),
        functools.partial(
            ref.momo_adam, eta=0.1, b1=0.8, b2=0.95, bound=1.5, weight_decay=0.1, adapt=True
        ),
        contrib.momo_adam(**ADAPTS, b1=0.8, b2=0.95),
        float32=5e-5,  # as momo/adapt
        extra=loss,
    ),
    "scale_by_cocob": Method(
        gradtx.scale_by_cocob(10.0, 0.5),
        each(ref.cocob, alpha=10.0, eps=0.5),
        contrib.scale_by_cocob(10.0, 0.5),
        float32=5e-4,  # the way between two positions, which is short where a bet hardly changes
    ),
    "cocob": Method(
        gradtx.cocob(rate, weight_decay=0.1),
        after(each(decay_weights, weight_decay=0.1), each(scale, factor=rate), each(ref.cocob)),
        contrib.cocob(rate, weight_decay=0.1),
        float32=1e-3,  # as scale_by_cocob
    ),
    "mechanize": Method(
        gradtx.mechanize(gradtx.adamw(rate, weight_decay=0.1), **MECHANIC),
        ref.mechanic(
            descend(each(core.adam), rate, 0.1), weight_decay=0.5, eps=1e-3, s_init=1.0, betas=3
        ),
        contrib.mechanize(optax.adamw(rate, weight_decay=0.1), **MECHANIC),
        # gains are inner products that cancel, of ways that are differences of parameters
        float32=3e-4,
    ),
}
