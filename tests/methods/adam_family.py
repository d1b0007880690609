"""Adam's relatives."""

import warnings
from typing import Any

import gradtx
from tests.methods.row import Method, everywhere, rate
from tests.oracles import adam_family as ref
from tests.oracles.compose import after, decay_weights, descend, each, proximal
from tests.oracles.core import adam
from tests.support.peer import optax

COMMON: dict[str, Any] = {"b1": 0.8, "b2": 0.95, "eps": 0.01, "eps_root": 0.02}
"""Numbers that leave no term of an equation too small to be seen."""
PLAIN: dict[str, Any] = {"b1": 0.8, "b2": 0.95, "eps": 0.01}
MAX_FIRST: dict[str, Any] = {"bias_correction_mu": False, "max_after_bias_correction": False}
NADAM = each(adam, nesterov=True, **COMMON)


def columns(rank: int) -> tuple[int, ...]:
    """Blocks along the first axis, for arrays that have two."""
    return tuple(range(1, rank)) if rank > 1 else tuple(range(rank))


def deprecated(*args: Any, **kwargs: Any) -> Any:
    """Optax's `optimistic_adam`, which asks for the second version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return optax.optimistic_adam(*args, **kwargs)


METHODS: dict[str, Method] = {
    "scale_by_adamax": Method(
        gradtx.scale_by_adamax(**PLAIN), each(ref.adamax, **PLAIN), optax.scale_by_adamax(**PLAIN)
    ),
    "adamax": Method(gradtx.adamax(rate), descend(each(ref.adamax), rate), optax.adamax(rate)),
    "adamaxw": Method(
        gradtx.adamaxw(rate, weight_decay=0.1),
        descend(each(ref.adamax), rate, 0.1),
        optax.adamaxw(rate, weight_decay=0.1),
    ),
    "scale_by_belief": Method(
        gradtx.scale_by_belief(**COMMON, nesterov=True),
        each(ref.belief, **COMMON, nesterov=True),
        optax.scale_by_belief(**COMMON, nesterov=True),
    ),
    "adabelief": Method(
        gradtx.adabelief(rate), descend(each(ref.belief), rate), optax.adabelief(rate)
    ),
    "scale_by_amsgrad": Method(
        gradtx.scale_by_amsgrad(**COMMON, bias_correction_nu=False),
        each(ref.amsgrad, **COMMON, correct_nu=False),
        optax.scale_by_amsgrad(**COMMON, bias_correction_nu=False),
    ),
    "amsgrad": Method(
        gradtx.amsgrad(rate, b2=0.9),
        descend(each(ref.amsgrad, b2=0.9), rate),
        optax.amsgrad(rate, b2=0.9),
    ),
    "amsgrad/max first": Method(
        gradtx.amsgrad(0.1, **COMMON, **MAX_FIRST),
        descend(each(ref.amsgrad, **COMMON, correct_mu=False, max_first=True), 0.1),
    ),
    "scale_by_nadam": Method(
        gradtx.scale_by_nadam(**COMMON, momentum_decay=0.5), each(ref.nadam, **COMMON, psi=0.5)
    ),
    "nadam": Method(
        gradtx.nadam(rate, 0.8),
        descend(each(adam, b1=0.8, nesterov=True), rate),
        optax.nadam(rate, 0.8),
    ),
    "nadam/momentum_decay": Method(
        gradtx.nadam(0.1, momentum_decay=0.004), descend(each(ref.nadam), 0.1)
    ),
    "nadamw": Method(
        gradtx.nadamw(0.1, **COMMON, weight_decay=0.1),
        descend(NADAM, 0.1, 0.1),
        optax.nadamw(0.1, **COMMON, weight_decay=0.1),
    ),
    "scale_by_radam": Method(
        gradtx.scale_by_radam(**COMMON, threshold=7.0, nesterov=True),
        each(ref.radam, **COMMON, threshold=7.0, nesterov=True),
        optax.scale_by_radam(**COMMON, threshold=7.0, nesterov=True),
    ),
    "radam": Method(
        gradtx.radam(rate, b2=0.99),
        descend(each(ref.radam, b2=0.99), rate),
        optax.radam(rate, b2=0.99),
    ),
    "scale_by_yogi": Method(
        gradtx.scale_by_yogi(**COMMON, initial_accumulator_value=0.3),
        each(ref.yogi, **COMMON, start=0.3),
        optax.scale_by_yogi(**COMMON, initial_accumulator_value=0.3),
    ),
    "yogi": Method(gradtx.yogi(rate), descend(each(ref.yogi), rate), optax.yogi(rate)),
    "scale_by_novograd": Method(
        gradtx.scale_by_novograd(**COMMON, weight_decay=0.1),
        each(ref.novograd, **COMMON, weight_decay=0.1),
        optax.scale_by_novograd(**COMMON, weight_decay=0.1),
    ),
    "novograd": Method(
        gradtx.novograd(rate, weight_decay=0.1),
        descend(each(ref.novograd, eps=1e-6, weight_decay=0.1), rate),
        optax.novograd(rate, weight_decay=0.1),
    ),
    "novograd/decoupled": Method(
        gradtx.novograd(0.1, weight_decay=0.1, decay_form="decoupled"),
        descend(each(ref.novograd, eps=1e-6), 0.1, 0.1),
    ),
    "scale_by_adan": Method(
        gradtx.scale_by_adan(0.6, 0.9, 0.8, 0.01, 0.02),
        each(ref.adan, b1=0.6, b2=0.9, b3=0.8, eps=0.01, eps_root=0.02, c=0.1),
        optax.scale_by_adan(0.6, 0.9, 0.8, 0.01, 0.02),
    ),
    "adan": Method(
        gradtx.adan(rate, weight_decay=0.1),
        descend(each(ref.adan, eps_root=1e-8, c=0.08), rate, 0.1),
        optax.adan(rate, weight_decay=0.1),
    ),
    "adan/paper": Method(
        gradtx.adan(
            0.3, eps_root=0.0, weight_decay=0.5, difference_weight=0.92, decay_form="proximal"
        ),
        after(each(ref.adan), each(proximal, weight_decay=0.5, learning_rate=0.3)),
    ),
    "scale_by_optimistic_gradient": Method(
        gradtx.scale_by_optimistic_gradient(0.3, 0.4),
        each(ref.optimistic, alpha=0.3, beta=0.4),
        optax.scale_by_optimistic_gradient(0.3, 0.4),
    ),
    "optimistic_gradient_descent": Method(
        gradtx.optimistic_gradient_descent(rate, 0.3, 0.4),
        descend(each(ref.optimistic, alpha=0.3, beta=0.4), rate),
        optax.optimistic_gradient_descent(rate, 0.3, 0.4),
    ),
    "optimistic_adam": Method(
        gradtx.optimistic_adam(0.1, **COMMON),
        descend(after(NADAM, each(ref.optimistic)), 0.1),
        deprecated(0.1, **COMMON),
    ),
    "optimistic_adam/optimism": Method(
        gradtx.optimistic_adam(0.1, 0.04, **COMMON),
        descend(after(NADAM, each(ref.optimistic, alpha=0.1, beta=0.04)), 1.0),
        deprecated(0.1, 0.04, **COMMON),
    ),
    "optimistic_adam_v2": Method(
        gradtx.optimistic_adam_v2(rate, alpha=0.3, beta=0.4, **COMMON),
        descend(after(NADAM, each(ref.optimistic, alpha=0.3, beta=0.4)), rate),
        optax.optimistic_adam_v2(rate, alpha=0.3, beta=0.4, **COMMON),
    ),
    "scale_by_laprop": Method(gradtx.scale_by_laprop(**COMMON), each(ref.laprop, **COMMON)),
    "laprop": Method(
        gradtx.laprop(rate, weight_decay=0.1), descend(each(ref.laprop, eps=1e-15), rate, 0.1)
    ),
    "scale_by_stable_adamw": Method(
        gradtx.scale_by_stable_adamw(**PLAIN, weight_decay=0.1, mask=everywhere),
        each(ref.stable_adamw, **PLAIN, weight_decay=0.1),
    ),
    "stable_adamw": Method(
        gradtx.stable_adamw(rate, weight_decay=0.05),
        descend(each(ref.stable_adamw, weight_decay=0.05), rate),
    ),
    "stable_adamw/decoupled": Method(
        gradtx.stable_adamw(0.1, weight_decay=0.1, decay_form="decoupled"),
        descend(after(each(ref.stable_adamw), each(decay_weights, weight_decay=0.1)), 0.1),
    ),
    "scale_by_grams": Method(gradtx.scale_by_grams(**COMMON), each(ref.grams, **COMMON)),
    "grams": Method(gradtx.grams(rate, weight_decay=0.1), descend(each(ref.grams), rate, 0.1)),
    "scale_by_adam_mini": Method(
        gradtx.scale_by_adam_mini(**PLAIN, output_axis=0),
        each(ref.adam_mini, **PLAIN, block=columns),
    ),
    "adam_mini": Method(
        gradtx.adam_mini(rate, weight_decay=0.05), descend(each(ref.adam_mini), rate, 0.05)
    ),
}
