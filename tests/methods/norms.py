"""Methods that factor their second moments, normalise their updates, or take their signs."""

from typing import Any

import jax

import gradtx
from tests.methods.row import Method, rate
from tests.oracles import core, norms
from tests.oracles.compose import after, cautious, decay_by_form, decay_weights, descend, each
from tests.support.peer import optax


def power(count: Any, exponent: Any) -> Any:
    """Adafactor's decay in the precision at hand; Optax's own is computed in float32 always."""
    return 1 - (count + 1.0) ** -exponent


def optax_adafactor(learning_rate: Any, momentum: float, weight_decay: float) -> Any:
    """`optax.adafactor` from its parts, to give it the decay above; test_norms.py holds that they
    are its parts.
    """
    return optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=2, decay_rate_fn=power),
        optax.clip_by_block_rms(0.7),
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        optax.scale_by_param_block_rms(),
        optax.ema(momentum, debias=False),
        optax.add_decayed_weights(weight_decay),
        optax.scale(-1),
    )


def matrices(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)


def by_rank(params: Any) -> Any:
    return ["scalar" if leaf.ndim == 0 else "array" for leaf in params]


def optax_sm3(b1: float, b2: float, eps: float) -> Any:
    """Optax's SM3 fails on scalars, for which the method is Adagrad, or RMSProp if b2 < 1, with an
    average behind it.
    """
    root = optax.scale_by_rss(0.0, eps) if b2 == 1 else optax.scale_by_rms(b2, eps)
    scalar = optax.chain(root, optax.ema(b1, debias=False))
    return optax.partition({"array": optax.scale_by_sm3(b1, b2, eps), "scalar": scalar}, by_rank)


METHODS: dict[str, Method] = {
    # transforms
    "scale_by_sign": Method(gradtx.scale_by_sign(), each(norms.sign), optax.scale_by_sign()),
    "scale_by_trust_ratio": Method(
        gradtx.scale_by_trust_ratio(0.3, 0.5, 0.1),
        each(norms.trust_ratio, min_norm=0.3, coefficient=0.5, eps=0.1),
        optax.scale_by_trust_ratio(0.3, 0.5, 0.1),
    ),
    "scale_by_param_block_norm": Method(
        gradtx.scale_by_param_block_norm(2.0),
        each(norms.times_norm, least=2.0),
        optax.scale_by_param_block_norm(2.0),
    ),
    "scale_by_param_block_rms": Method(
        gradtx.scale_by_param_block_rms(0.7),
        each(norms.times_rms, least=0.7),
        optax.scale_by_param_block_rms(0.7),
    ),
    "centralize": Method(gradtx.centralize(), each(norms.centralize), optax.centralize()),
    "centralize/inputs first": Method(gradtx.centralize(axis=0), each(norms.centralize, axis=0)),
    "normalize": Method(gradtx.normalize(), norms.normalize, optax.contrib.normalize()),
    "normalize_by_update_norm": Method(
        gradtx.normalize_by_update_norm(2.0, eps=0.5),
        lambda *a: norms.normalize(*a, scale=2.0, eps=0.5),
        optax.normalize_by_update_norm(2.0, eps=0.5),
    ),
    "adaptive_grad_clip": Method(
        gradtx.adaptive_grad_clip(0.3),
        each(norms.adaptive_clip, clipping=0.3),
        optax.adaptive_grad_clip(0.3),
    ),
    # signs
    "sign_sgd": Method(
        gradtx.sign_sgd(rate), descend(each(norms.sign), rate), optax.sign_sgd(rate)
    ),
    "signum": Method(
        gradtx.signum(0.1, beta=0.8),
        descend(each(norms.signum, beta=0.8), 0.1),
        optax.signum(0.1, beta=0.8),
    ),
    "scale_by_tiger": Method(gradtx.scale_by_tiger(), each(norms.signum, beta=0.965)),
    "tiger": Method(
        gradtx.tiger(rate, b1=0.9, weight_decay=0.1),
        descend(each(norms.signum, beta=0.9), rate, 0.1),
    ),
    "scale_by_rprop": Method(
        gradtx.scale_by_rprop(0.1, 0.4, 1.5, 0.02, 0.25),
        each(norms.rprop, start=0.1, shrink=0.4, grow=1.5, least=0.02, most=0.25),
    ),  # Optax's is a step late: test_norms.py
    "rprop": Method(gradtx.rprop(0.01), descend(each(norms.rprop, start=0.01), 1.0)),
    # adaptive
    "scale_by_adadelta": Method(
        gradtx.scale_by_adadelta(0.95, 1e-3),
        each(norms.adadelta, rho=0.95, eps=1e-3),
        optax.scale_by_adadelta(0.95, 1e-3),
    ),
    "adadelta": Method(
        gradtx.adadelta(rate, weight_decay=0.1, weight_decay_mask=matrices),
        after(
            lambda g, w, m, t: [
                x + 0.1 * y if x.ndim > 1 else x for x, y in zip(g, w, strict=True)
            ],
            descend(each(norms.adadelta), rate),
        ),
        optax.adadelta(rate, weight_decay=0.1, weight_decay_mask=matrices),
    ),
    "scale_by_sm3": Method(
        gradtx.scale_by_sm3(0.8, 0.95, 1e-3),
        each(norms.sm3, b1=0.8, b2=0.95, eps=1e-3),
        optax_sm3(0.8, 0.95, 1e-3),
    ),
    "sm3": Method(
        gradtx.sm3(0.1),
        descend(each(norms.sm3), 0.1),
        optax.chain(optax_sm3(0.9, 1.0, 1e-8), optax.scale(-0.1)),
    ),
    "scale_by_madgrad": Method(
        gradtx.scale_by_madgrad(0.1, 0.0, 0.05),
        each(norms.madgrad, learning_rate=0.1, momentum=0.0, eps=0.05),
        # the step is a difference of points, and that of the array of small gradients is small
        float32=2e-5,
    ),  # Optax takes the root of t in float32: test_norms.py
    "madgrad": Method(
        gradtx.madgrad(rate, weight_decay=0.1),
        each(norms.madgrad, learning_rate=rate, decay=0.1),
        optax.contrib.madgrad(rate, weight_decay=0.1),
        optax64=1e-6,  # its root of t is computed in float32
    ),
    # steps in proportion to the parameters
    "fromage": Method(gradtx.fromage(rate), each(norms.fromage, eta=rate), optax.fromage(rate)),
    "lars": Method(
        gradtx.lars(rate, 0.1, matrices, 0.02, 0.1, matrices, 0.8, nesterov=True),
        after(
            lambda g, w, m, t: [
                x + 0.1 * y if x.ndim > 1 else x for x, y in zip(g, w, strict=True)
            ],
            lambda g, w, m, t: [
                norms.trust_ratio(x, y, m, t, 0.0, 0.02, 0.1) if x.ndim > 1 else x
                for x, y in zip(g, w, strict=True)
            ],
            descend(each(core.identity), rate),
            each(core.trace, decay=0.8, nesterov=True),
        ),
        optax.lars(rate, 0.1, matrices, 0.02, 0.1, matrices, 0.8, nesterov=True),
        float32=5e-5,  # the momentum of the scalar passes close to zero
    ),
    "lamb": Method(
        gradtx.lamb(rate, weight_decay=0.1),
        descend(
            after(
                each(core.adam, eps=1e-6),
                each(decay_weights, weight_decay=0.1),
                each(norms.trust_ratio),
            ),
            rate,
        ),
        optax.lamb(rate, weight_decay=0.1),
    ),
    "lamb/cautious": Method(
        gradtx.lamb(0.1, weight_decay=0.1, decay_form="cautious", cautious=True),
        descend(
            after(
                cautious(each(core.adam, eps=1e-6)),
                each(decay_by_form, weight_decay=0.1, form="cautious", eta=0.1, peak=0.1),
                each(norms.trust_ratio),
            ),
            0.1,
        ),
    ),
    # factored
    "scale_by_factored_rms": Method(
        gradtx.scale_by_factored_rms(decay_rate=0.6, min_dim_size_to_factor=3, epsilon=1e-3),
        each(norms.factored_rms, exponent=0.6, least=3, eps=1e-3),
        optax.scale_by_factored_rms(
            decay_rate=0.6, min_dim_size_to_factor=3, epsilon=1e-3, decay_rate_fn=power
        ),
    ),
    "scale_by_factored_rms/offset": Method(
        gradtx.scale_by_factored_rms(step_offset=5, min_dim_size_to_factor=2),
        each(norms.factored_rms, offset=5, least=2),
    ),
    "adafactor": Method(
        gradtx.adafactor(0.1),
        each(norms.adafactor, eta=0.1),
        optax.adafactor(0.1),
        optax64=1e-6,  # its decay is computed in float32
    ),
    "adafactor/factored": Method(
        gradtx.adafactor(
            rate,
            2,
            clipping_threshold=0.7,
            momentum=0.9,
            dtype_momentum=None,
            weight_decay_rate=0.01,
        ),
        each(norms.adafactor, eta=rate, least=2, threshold=0.7, momentum=0.9, decay=0.01),
        optax_adafactor(rate, 0.9, 0.01),
    ),
    "scale_by_came": Method(
        gradtx.scale_by_came(0.8, 0.95, 0.99, 1e-4, 1e-3, 0.7, 3),
        each(
            norms.came,
            b1=0.8,
            b2=0.95,
            b3=0.99,
            eps=1e-4,
            eps_distance=1e-3,
            threshold=0.7,
            least=3,
        ),
    ),
    "came": Method(
        gradtx.came(rate, weight_decay=0.1),
        descend(each(norms.came), rate, 0.1),
        # 1 - 0.9999 is off by 1.7e-4 in float32, half of which shows; a scalar's momentum passes
        # close to zero
        float32=5e-4,
    ),
}
