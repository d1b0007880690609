"""Momentum kernels: alone, and as `momentum=` of one member of each family."""

from typing import Any

import gradtx
from tests.methods.kronecker import soap
from tests.methods.muon import AMPLIFIED, OWN, on_matrices
from tests.methods.row import Method, rate
from tests.oracles import core
from tests.oracles import weighted_momentum as own
from tests.oracles.compose import descend, each
from tests.oracles.muon import where_matrix
from tests.oracles.transforms import ademamix


def rising(count: Any) -> Any:
    """A weight by schedule, between 0 and 1."""
    return 0.5 - rate(count)


def falling(count: Any) -> Any:
    return 0.5 + rate(count)


def both(count: Any) -> Any:
    return rising(count), falling(count)


DECAYS, WEIGHTS = own.k_maxwell(4, (1.0, 6.0), 5.0, 3.0, start=3, length=8)
K_MAXWELL: dict[str, Any] = {"decays": DECAYS, "weights": WEIGHTS, "start": 3}
TAPS = own.Taps(
    own.max_entropy(7, 2.58, 1.09, (0.2, 0.15)),
    own.max_entropy(7, 1.98, 0.879, (0.3, 0.2)),
    start=3,
    length=6,
)


def k_maxwell() -> gradtx.MomentumKernel:
    return gradtx.k_maxwell(4, 1.0, 6.0, 5.0, 3.0, start=3, transition_steps=8)


def max_entropy() -> gradtx.MomentumKernel:
    return gradtx.max_entropy(
        7, 2.58, 1.98, 1.09, 0.879, (0.2, 0.15), (0.3, 0.2), start=3, transition_steps=6
    )


def mixed_soap(grads: Any, params: Any, memory: Any, t: int) -> Any:
    """SOAP divides by a root that its average does not enter: a mix of averages mixes steps."""
    fast, slow = (soap(b1=b1)(grads, params, memory.setdefault(b1, {}), t) for b1 in (0.5, 0.9))
    return [0.25 * one + 0.75 * other for one, other in zip(fast, slow, strict=True)]


METHODS: dict[str, Method] = {
    "scale_by_momentum": Method(
        gradtx.scale_by_momentum(gradtx.bi_maxwell(0.7, 0.9, 0.4, start=4), 0.8),
        each(own.momentum, mu=0.8, decays=(0.7, 0.9), weights=(0.4, 0.6), start=4),
    ),
    "scale_by_momentum/nesterov": Method(
        gradtx.scale_by_momentum(k_maxwell(), 0.8, nesterov=True),
        each(own.momentum, mu=0.8, nesterov=True, **K_MAXWELL),
    ),
    "scale_by_momentum/taps": Method(
        gradtx.scale_by_momentum(max_entropy(), 0.8, nesterov=True),
        each(own.weighted, mu=0.8, nesterov=True, taps=TAPS),
    ),
    "ema/momentum": Method(
        gradtx.ema(0.8, False, momentum=gradtx.exponentials((0.7, 0.9), (rising, falling))),
        each(own.momentum, mu=0.8, debias=False, decays=(0.7, 0.9), weights=both),
    ),
    "adam/momentum": Method(
        gradtx.adam(rate, b2=0.95, eps=0.01, momentum=gradtx.ademamix_kernel(0.9, rising, falling)),
        descend(each(ademamix, b2=0.95, eps=0.01, b3=rising, alpha=falling), rate),
    ),
    "adamw/momentum": Method(
        gradtx.adamw(rate, weight_decay=0.1, nesterov=True, momentum=k_maxwell()),
        descend(each(own.adam, nesterov=True, **K_MAXWELL), rate, 0.1),
    ),
    "lion/momentum": Method(
        gradtx.lion(rate, weight_decay=0.1, momentum=max_entropy()),
        descend(each(own.lion, taps=TAPS), rate, 0.1),
    ),
    "scale_by_muon/momentum": Method(
        on_matrices(gradtx.scale_by_muon(momentum=k_maxwell())),
        each(where_matrix(own.muon, core.identity, **K_MAXWELL)),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "scale_by_soap/momentum": Method(
        gradtx.scale_by_soap(
            refresh_every=3, momentum=gradtx.exponentials((0.5, 0.9), (0.25, 0.75))
        ),
        mixed_soap,
    ),
}
