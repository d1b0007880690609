"""Methods that orthogonalize momentum, alone on matrices and routed by role."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from tests.methods.row import Method, rate
from tests.oracles import core
from tests.oracles import muon as own
from tests.oracles.compose import after, cautious, decay_weights, descend, each
from tests.support.peer import optax

OWN = ("contained",)
"""A nan spreads over its own matrix, by what the method is; to no other:
tests/unit/engine/test_matrices.py.
"""


AMPLIFIED = 3e-5
"""In float32: the polynomials multiply small singular values by up to 430, and their rounding with
them.
"""


class Axes(NamedTuple):
    """Axes by number, as Optax's Muon has them."""

    reduction_axis: Any
    output_axis: Any


def matrices(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)


def last_two(params: Any) -> Any:
    """Every array of two axes and more: its last two, the others counting matrices."""
    return jax.tree.map(lambda leaf: Axes(-2, -1) if jnp.ndim(leaf) > 1 else None, params)


def two_axes(params: Any) -> Any:
    """Every array of two axes; the roles of others would be guesses."""
    return jax.tree.map(lambda leaf: Axes(-2, -1) if jnp.ndim(leaf) == 2 else None, params)


def optax_last_two(params: Any) -> Any:
    kind = optax.contrib.MuonDimensionNumbers
    return jax.tree.map(lambda leaf: kind(-2, -1) if jnp.ndim(leaf) > 1 else None, params)


def two_heads(params: Any) -> Any:
    """The arrays that have two heads along their last axis."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1 and leaf.shape[-1] % 2 == 0, params)


def logits(step: int, params: Any, grads: Any) -> dict[str, Any]:
    return {"max_logits": np.array([60.0 + 10 * step, 240.0 - 10 * step])}


def on_matrices(tx: gradtx.GradientTransformation) -> gradtx.GradientTransformation:
    return gradtx.masked(tx, matrices)


def direction(rule: Any, **told: Any) -> Any:
    return each(own.where_matrix(rule, core.identity, **told))


def routed(rule: Any, eta: Any, decay: float = 0.0, nesterov: bool = True, **told: Any) -> Any:
    """`rule` on matrices, which decay, and Adam on the rest."""
    both = own.where_matrix(rule, lambda *a: core.adam(*a, nesterov=nesterov), **told)
    return descend(
        after(each(both), each(own.where_matrix(decay_weights, core.identity, weight_decay=decay))),
        eta,
    )


def clipped(grads: Any, params: Any, memory: Any, t: int, max_logits: Any) -> Any:
    """Plain descent, then the clip of what has an even last axis."""
    scaled = lambda g, w: own.clip_heads(-0.1 * g, w, {}, t, max_logits, 100.0)  # noqa: E731
    return [
        scaled(g, w) if g.ndim > 1 and g.shape[-1] % 2 == 0 else -0.1 * g
        for g, w in zip(grads, params, strict=True)
    ]


def muon_clip(grads: Any, params: Any, memory: Any, t: int, max_logits: Any) -> Any:
    step = routed(own.muon, rate, decay=0.1, scaling="match_rms_adamw")(grads, params, memory, t)
    is_head = [w.ndim > 1 and w.shape[-1] % 2 == 0 for w in params]
    return [
        own.clip_heads(u, w, {}, t, max_logits, 100.0) if head else u
        for u, w, head in zip(step, params, is_head, strict=True)
    ]


METHODS: dict[str, Method] = {
    "scale_by_muon": Method(
        on_matrices(gradtx.scale_by_muon()), direction(own.muon), float32=AMPLIFIED, breaks=OWN
    ),
    "scale_by_muon/plain": Method(
        on_matrices(
            gradtx.scale_by_muon(
                own.JORDAN,
                beta=0.9,
                nesterov=False,
                bias_correction=False,
                adaptive=True,
                scaling="spectral",
            )
        ),
        direction(
            own.muon,
            beta=0.9,
            nesterov=False,
            debias=False,
            adaptive=True,
            scaling="spectral",
            coefficients=own.JORDAN,
        ),
        breaks=OWN,
    ),
    "muon": Method(
        gradtx.muon(rate, "jordan", weight_decay=0.1, muon_weight_dimension_numbers=last_two),
        routed(own.muon, rate, decay=0.1, scaling="original", coefficients=own.JORDAN),
        optax.contrib.muon(rate, weight_decay=0.1, muon_weight_dimension_numbers=optax_last_two),
        breaks=OWN,
    ),
    "muon/rms": Method(
        gradtx.muon(0.1, scaling="match_rms_adamw", dimensions=last_two, cautious=True),
        descend(
            cautious(
                each(
                    own.where_matrix(
                        own.muon, lambda *a: core.adam(*a, nesterov=True), scaling="match_rms_adamw"
                    )
                )
            ),
            0.1,
        ),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "by_role": Method(
        gradtx.by_role(
            {"muon": gradtx.scale_by_muon(), "rest": gradtx.scale(2.0)}, dimensions=last_two
        ),
        each(own.where_matrix(own.muon, lambda g, w, m, t: 2 * g)),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "scale_by_normuon": Method(
        on_matrices(gradtx.scale_by_normuon(b2=0.9)),
        direction(own.normuon),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "normuon": Method(
        gradtx.normuon(rate, b2=0.9, weight_decay=0.1, dimensions=last_two),
        routed(own.normuon, rate, decay=0.1, nesterov=False, scaling="original"),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "scale_by_adamuon": Method(
        on_matrices(gradtx.scale_by_adamuon()), direction(own.adamuon), breaks=OWN
    ),
    "adamuon": Method(
        gradtx.adamuon(rate, weight_decay=0.1, dimensions=last_two),
        routed(own.adamuon, rate, decay=0.1, nesterov=False),
        breaks=OWN,
    ),
    "qk_clip": Method(
        gradtx.chain(gradtx.scale(-0.1), gradtx.qk_clip(two_heads, head_axis=-1)),
        clipped,
        extra=logits,
    ),
    "muon_clip": Method(
        gradtx.muon_clip(rate, where=two_heads, head_axis=-1, dimensions=last_two),
        muon_clip,
        extra=logits,
        breaks=OWN,
    ),
    "hyperball": Method(
        gradtx.hyperball(gradtx.identity(), 0.1), each(own.hyperball, eta=0.1), breaks=OWN
    ),
    "hyperball/adam": Method(
        gradtx.hyperball(gradtx.scale_by_adam(), 0.1),
        after(each(core.adam), each(own.hyperball, eta=0.1)),
        breaks=OWN,
    ),
}
