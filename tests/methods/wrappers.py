"""Wrappers, and the methods that are made of them or need what only the caller knows."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from tests.methods.row import Method, rate, real
from tests.oracles import core as ref
from tests.oracles import wrappers as own
from tests.oracles.compose import after, decay_weights, descend, each, scale
from tests.support.peer import optax

contrib = optax.contrib


def warmup(count: Any) -> Any:
    """What `warmup_steps=4` makes of a learning rate of 0.3."""
    return 0.3 * np.minimum(0.25 * count, 1.0)


def traced_warmup(count: Any) -> Any:
    return 0.3 * jnp.minimum(0.25 * real(count), 1.0)


def losses(step: int, params: Any, grads: Any) -> dict[str, Any]:
    """Values that fall at first, and then go up and down."""
    return {"value": float(np.float32(4 / step + 0.1 * np.sin(3 * step)))}


def even(count: Any, **extra: Any) -> Any:
    return count % 2 == 0


def with_slopes(step: int, params: Any, grads: Any) -> dict[str, Any]:
    return {"grad_fn": jax.tree_util.Partial(own.slopes)}


def separable(params: Any) -> Any:
    """A loss whose Hessian is diagonal: the estimate is exact, whatever the signs."""
    return sum(jnp.sum(w**4 / 12 - w**2 / 4) for w in jax.tree.leaves(params))


def with_loss(step: int, params: Any, grads: Any) -> dict[str, Any]:
    return {"obj_fn": jax.tree_util.Partial(separable)}


def times_raw(
    update: jax.Array, slots: None, param: None, step: jax.Array, *, input_grad: jax.Array
) -> Any:
    return update * input_grad, slots


FACTORS = (1.0, 2.0, -0.5)


def examples(updates: Any, params: Any) -> Any:
    """Three examples from one gradient."""
    return jax.tree.map(
        lambda u: (
            jnp.stack([f * u for f in FACTORS]) if jnp.issubdtype(u.dtype, jnp.inexact) else u
        ),
        updates,
    )


def slowing(count: Any) -> Any:
    return -0.1 / (1.0 + real(count))


climb = gradtx.chain(gradtx.trace(0.5), gradtx.scale(slowing))
climb_optax = optax.chain(optax.trace(0.5), optax.scale_by_schedule(slowing))
climb_reference = after(each(ref.trace, decay=0.5), each(scale, factor=slowing))
private = contrib.differentially_private_aggregate(4.0, 0.0, jax.random.key(0))

METHODS: dict[str, Method] = {
    "schedule_free": Method(
        gradtx.schedule_free(
            gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.sgd(0.2, momentum=0.5)),
            rate,
            0.8,
            1.5,
        ),
        own.schedule_free(
            after(each(decay_weights, weight_decay=0.1), descend(each(ref.trace, decay=0.5), 0.2)),
            rate,
            0.8,
            1.5,
        ),
        contrib.schedule_free(
            optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.2, momentum=0.5)),
            rate,
            0.8,
            1.5,
        ),
    ),
    "schedule_free_sgd": Method(
        gradtx.schedule_free_sgd(0.3, warmup_steps=4, weight_decay=0.1),
        own.schedule_free(descend(each(ref.identity), warmup, 0.1), warmup),
        # a warmup of Optax's own is rounded to float32
        contrib.schedule_free(
            optax.chain(optax.add_decayed_weights(0.1), optax.sgd(traced_warmup)), traced_warmup
        ),
    ),
    "schedule_free_adamw": Method(
        gradtx.schedule_free_adamw(0.1, b1=0.95, b2=0.99, eps=1e-4, weight_decay=0.1),
        own.schedule_free(
            descend(
                each(ref.rms, decay=0.99, eps=1e-4, eps_in_sqrt=False, bias_correction=True),
                0.1,
                0.1,
            ),
            0.1,
            0.95,
        ),
        contrib.schedule_free_adamw(0.1, b1=0.95, b2=0.99, eps=1e-4, weight_decay=0.1),
        float32=1e-3,  # y - z is a difference of parameters, and has their rounding
    ),
    "lookahead": Method(
        gradtx.lookahead(gradtx.sgd(rate, momentum=0.9), 4, 0.6),
        own.lookahead(descend(each(ref.trace, decay=0.9), rate), 4, 0.6),
        # the same; a step back of 1.2e-4 between parameters of 1, which are rounded to 1e-7: 7e-4
        # here
        float32=2e-3,
    ),
    "lookahead/reset": Method(
        gradtx.lookahead(gradtx.adam(rate), 3, 0.5, reset_state=True),
        own.lookahead(descend(each(ref.adam), rate), 3, 0.5, reset=True),
        float32=1e-3,  # the step back is a difference of parameters, and has their rounding
    ),
    "params_ema": Method(
        gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.6, warmup=True)),
        after(descend(each(ref.identity), 0.1), each(own.params_ema, decay=0.6, warmup=True)),
    ),
    "reduce_on_plateau": Method(
        gradtx.reduce_on_plateau(
            0.5, patience=2, rtol=0.05, atol=0.02, cooldown=1, accumulation_size=2, min_scale=0.2
        ),
        functools.partial(
            own.plateau, factor=0.5, patience=2, rtol=0.05, atol=0.02, cooldown=1, size=2, least=0.2
        ),
        contrib.reduce_on_plateau(
            0.5, patience=2, rtol=0.05, atol=0.02, cooldown=1, accumulation_size=2, min_scale=0.2
        ),
        extra=losses,
    ),
    "apply_if_finite": Method(
        gradtx.apply_if_finite(gradtx.adam(0.1), 2),
        descend(each(ref.adam), 0.1),
        optax.apply_if_finite(optax.adam(0.1), 2),
        breaks=("contained",),  # a gradient with nan makes no update at all
    ),
    "over_axes": Method(
        gradtx.over_axes(gradtx.adam(0.1), "data"),
        descend(each(ref.adam), 0.1),
        optax.adam(0.1),
    ),
    "conditionally_transform": Method(
        gradtx.conditionally_transform(gradtx.sgd(rate, momentum=0.9), even),
        own.sometimes(descend(each(ref.trace, decay=0.9), rate), even, 1.0),
        optax.conditionally_transform(optax.sgd(rate, momentum=0.9), even),
        copies="a branch keeps its outcome, and what passes through it is copied",
    ),
    "conditionally_mask": Method(
        gradtx.conditionally_mask(gradtx.adam(rate), even),
        own.sometimes(descend(each(ref.adam), rate), even, 0.0),
        optax.conditionally_mask(optax.adam(rate), even),
    ),
    "sam": Method(
        gradtx.sam(gradtx.adamw(rate, weight_decay=0.1), climb, 3),
        own.sam(descend(each(ref.adam), rate, 0.1), climb_reference, 3),
        contrib.sam(optax.adamw(rate, weight_decay=0.1), climb_optax, 3),
        float32=1e-3,  # the step back is a difference of parameters, and has their rounding
        copies="on several devices a slot that is reset is tied to its parameter, to be cut as it",
    ),
    "sam/kept": Method(
        gradtx.sam(gradtx.sgd(rate, momentum=0.9), climb, 3, reset_state=False),
        own.sam(descend(each(ref.trace, decay=0.9), rate), climb_reference, 3, reset=False),
        contrib.sam(optax.sgd(rate, momentum=0.9), climb_optax, 3, reset_state=False),
        float32=1e-3,  # the step back is a difference of parameters, and has their rounding
    ),
    "sam/opaque": Method(
        gradtx.sam(gradtx.adamw(rate, weight_decay=0.1), climb, 3, opaque_mode=True),
        own.sam_at_once(descend(each(ref.adam), rate, 0.1), climb_reference, 3),
        contrib.sam(optax.adamw(rate, weight_decay=0.1), climb_optax, 3, opaque_mode=True),
        extra=with_slopes,
    ),
    "scale_by_asam": Method(gradtx.scale_by_asam(0.1), functools.partial(own.asam, eps=0.1)),
    "hutchinson_estimator_diag_hessian": Method(
        gradtx.chain(
            gradtx.hutchinson_estimator_diag_hessian(),
            gradtx.leafwise(None, times_raw),
            gradtx.scale(-0.02),
        ),
        own.times_curvature,
        extra=with_loss,
    ),
    "scale_by_sophia": Method(
        gradtx.scale_by_sophia(
            eps=0.1,
            gamma=20.0,
            clip_threshold=0.8,
            update_interval=3,
            bias_correction=False,
            delay_hessian=False,
        ),
        functools.partial(
            own.sophia, eps=0.1, gamma=20.0, rho=0.8, k=3, corrected=False, late=False
        ),
        extra=with_loss,
        copies="a branch keeps its outcome, and what passes through it is copied",
    ),
    "sophia": Method(
        gradtx.sophia(
            rate,
            b1=0.9,
            b2=0.8,
            eps=0.05,
            weight_decay=0.1,
            gamma=2.0,
            clip_threshold=0.9,
            update_interval=4,
        ),
        lambda *a, **told: descend(
            functools.partial(
                own.sophia, b1=0.9, b2=0.8, eps=0.05, gamma=2.0, rho=0.9, k=4, **told
            ),
            rate,
            0.1,
        )(*a),
        contrib.sophia(
            rate,
            b1=0.9,
            b2=0.8,
            eps=0.05,
            weight_decay=0.1,
            gamma=2.0,
            clip_threshold=0.9,
            update_interval=4,
        ),
        extra=with_loss,
        copies="a branch keeps its outcome, and what passes through it is copied",
    ),
    # their gradients are per example, which those of the laws are not; so each gradient is made
    # into three
    "differentially_private_aggregate": Method(
        gradtx.chain(gradtx.stateless(examples), gradtx.differentially_private_aggregate(4.0, 0.0)),
        functools.partial(own.private_mean, c=4.0, factors=FACTORS),
        optax.chain(optax.stateless(examples), private),
    ),
    "dpsgd": Method(
        gradtx.chain(
            gradtx.stateless(examples), gradtx.dpsgd(rate, 4.0, 0.0, momentum=0.9, nesterov=True)
        ),
        after(
            functools.partial(own.private_mean, c=4.0, factors=FACTORS),
            descend(each(ref.trace, decay=0.9, nesterov=True), rate),
        ),
        optax.chain(
            optax.stateless(examples), private, optax.sgd(rate, momentum=0.9, nesterov=True)
        ),  # its dpsgd warns of itself
    ),
}
