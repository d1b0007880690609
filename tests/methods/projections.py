"""Methods that precondition matrices, project them, or move them within a ball."""

from typing import Any

import gradtx
from tests.methods.muon import AMPLIFIED, last_two, on_matrices, two_axes
from tests.methods.row import Method, rate
from tests.oracles import core
from tests.oracles import projections as own
from tests.oracles.compose import descend, each
from tests.support.peer import optax

contrib = optax.contrib


def where_matrix(rule: Any) -> Any:
    """A rule on arrays of two axes and more; others are left as they are."""
    return lambda g, w, memory, t, **given: rule(g, w, memory, t, **given) if g.ndim > 1 else g


def hidden_and_rest(hidden: Any, rest: Any) -> Any:
    """Two rules by role: arrays of two axes, and all others."""
    return lambda g, w, memory, t: (hidden if g.ndim == 2 else rest)(g, w, memory, t)


SPREADS = ("contained",)
"""A matrix is worked on as a whole, so that a nan reaches all of its entries;
test_projection_methods.py holds that it reaches no other.
"""
DRAWS = ("contained", "leaf_order")
"""Noise is drawn by the path of an array, besides."""

NOISE = 1e-7
"""In x64: the noise is drawn in float32, whose last bit depends on how XLA compiles it: 1e-13 with
jax 0.10, 2e-8 with 0.12.
"""

METHODS: dict[str, Method] = {
    "scale_by_psgd_kron": Method(
        gradtx.scale_by_psgd_kron(), own.psgd_kron, float64=NOISE, breaks=DRAWS
    ),
    "scale_by_psgd_kron/now and then": Method(
        gradtx.scale_by_psgd_kron(
            0.8,
            update_probability=0.375,
            factor_rate=0.2,
            max_size=3,
            max_rms=0.5,
            balance_every=2,
            key=7,
        ),
        lambda *a: own.psgd_kron(
            *a, b1=0.8, probability=0.375, rate=0.2, max_size=3, max_rms=0.5, balance_every=2, key=7
        ),
        float64=NOISE,
        breaks=SPREADS,
    ),
    "psgd_kron": Method(
        gradtx.psgd_kron(rate, weight_decay=0.02),
        descend(own.psgd_kron, rate, 0.02),
        float64=NOISE,
        breaks=DRAWS,
    ),
    "scale_by_galore": Method(
        gradtx.scale_by_galore(2, 6, 0.25),
        lambda *a: own.galore(*a, rank=2, gap=6, scale=0.25),
        breaks=SPREADS,
    ),
    "scale_by_galore/shorter, in batches": Method(
        gradtx.scale_by_galore(
            1, 7, base_optimizer=gradtx.trace(0.9), side="shorter", dimensions=last_two
        ),
        lambda *a: own.galore(
            *a, rank=1, gap=7, longer=False, batches=True, base=lambda *b: core.trace(*b, decay=0.9)
        ),
        breaks=SPREADS,
    ),
    "scale_by_galore/without signs": Method(
        gradtx.scale_by_galore(2, 6, 0.25, gradtx.scale_by_rms()),
        lambda *a: own.galore(*a, rank=2, gap=6, scale=0.25, base=core.rms),
        contrib.scale_by_galore(
            2, 6, 0.25, optax.scale_by_rms()
        ),  # with Adam, what it does depends on the signs of singular vectors
        optax64=1e-5,  # its projector is float32
        breaks=SPREADS,
    ),
    "galore": Method(
        gradtx.galore(rate, 2, weight_decay=0.02),
        descend(lambda *a: own.galore(*a, rank=2, gap=200), rate, 0.02),
        contrib.galore(rate, 2, weight_decay=0.02),
        optax64=1e-5,  # its projector is float32
        breaks=SPREADS,
    ),
    "scale_by_dion": Method(
        on_matrices(gradtx.scale_by_dion(0.5, 0.8, seed=3)),
        each(where_matrix(own.dion), rank_fraction=0.5, mu=0.8, seed=3),
        breaks=SPREADS,
    ),
    "dion": Method(
        gradtx.dion(
            rate,
            0.6,
            weight_decay=0.02,
            scaling="none",
            adam_weight_decay=0.02,
            dimensions=two_axes,
        ),
        descend(
            each(
                hidden_and_rest(
                    lambda *a: own.dion(*a, rank_fraction=0.6, spectral=False), core.adam
                )
            ),
            rate,
            0.02,
        ),
        breaks=SPREADS,
    ),
    "scale_by_scion": Method(
        on_matrices(gradtx.scale_by_scion(0.8, 3.0)),
        each(where_matrix(own.scion_lmo), beta=0.8, radius=3.0),
        float32=AMPLIFIED,
        breaks=SPREADS,
    ),
    "scale_by_scion/sign": Method(
        gradtx.scale_by_scion(norm="sign"), each(own.scion_lmo, norm="sign")
    ),
    "scion": Method(
        gradtx.scion(0.1, rest_radius=2.0, dimensions=two_axes),
        lambda *a: own.scion(*a, eta=0.1, rest_radius=2.0),
        float32=AMPLIFIED,
        breaks=SPREADS,
    ),
    "scion/unconstrained": Method(
        gradtx.scion(0.1, radius=2.0, constrained=False, dimensions=two_axes),
        lambda *a: own.scion(*a, eta=0.1, radius=2.0, constrained=False),
        float32=AMPLIFIED,
        breaks=SPREADS,
    ),
}
