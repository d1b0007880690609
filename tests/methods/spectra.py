"""Spectra in the place of Muon's polar factor, and methods in the place of its iteration."""

import functools
from typing import Any

import numpy as np

import gradtx
from tests.methods.muon import AMPLIFIED, OWN, direction, last_two, matrices, on_matrices, routed
from tests.methods.row import Method, rate
from tests.oracles import spectra as own
from tests.oracles.compose import each
from tests.oracles.core import adam, identity
from tests.oracles.muon import where_matrix


def soft(count: Any) -> Any:
    """From contra to soft, by a schedule."""
    return 0.2 - 0.3 * rate(count)


def softened(g: Any, w: Any, memory: Any, t: int) -> Any:
    spectrum = functools.partial(own.soft_polar, alpha=soft(t - 1))
    return own.muon_by(g, w, memory, t, spectrum)


def moments(step: int, params: Any, grads: Any) -> dict[str, Any]:
    """A second moment of three inputs for every matrix, another at every step."""
    inputs = np.random.default_rng(step).normal(size=(7, 3)) * [1.0, 0.3, 3.0]
    one = (inputs.T @ inputs).astype(np.float32)  # float32 holds it exactly
    return {"input_moments": {"0": one, "3": np.stack([one, 2 * one])}}


def muown(g: Any, w: Any, memory: Any, t: int) -> Any:
    """Muown on matrices, Adam on the rest."""
    if g.ndim > 1:
        return own.muown(g, w, memory, t, eta=rate, decay=0.1)
    return -rate(t - 1) * adam(g, w, memory, t)


METHODS: dict[str, Method] = {
    "scale_by_muon/soft": Method(
        on_matrices(gradtx.scale_by_muon(spectrum=gradtx.soft_polar(soft))),
        direction(softened),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "scale_by_muon/plus": Method(
        on_matrices(
            gradtx.scale_by_muon(normalize_before="inputs", normalize_after="outputs inputs")
        ),
        direction(own.muon_plus),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "scale_by_normuon/contraction": Method(
        on_matrices(gradtx.scale_by_normuon(b2=0.9, spectrum=gradtx.spectral_contraction(10.0))),
        direction(own.normuon_by, spectrum=functools.partial(own.contraction, tau=10.0)),
        breaks=OWN,
    ),
    "scale_by_adamuon/power": Method(
        on_matrices(gradtx.scale_by_adamuon(spectrum=gradtx.spectral_power(0.25, 0.8))),
        direction(own.adamuon_by, spectrum=functools.partial(own.power, p=0.25, blend=0.8)),
        breaks=OWN,
    ),
    "scale_by_scion/tilt": Method(
        on_matrices(gradtx.scale_by_scion(radius=3.0, spectrum=gradtx.spectral_tilt(-0.25))),
        direction(own.scion_by, radius=3.0, spectrum=functools.partial(own.tilt, p=-0.25)),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "scale_by_mud": Method(
        on_matrices(gradtx.scale_by_mud(2)),
        each(where_matrix(own.mud, identity, passes=2)),
        breaks=OWN,
    ),
    "muown": Method(
        gradtx.muown(rate, weight_decay=0.1, dimensions=last_two),
        each(muown),
        # The update is the difference of two parameters, about a thousandth of them at the end.
        float32=2e-4,
        breaks=OWN,
    ),
    "scale_by_input_moments": Method(
        gradtx.scale_by_input_moments(matrices, damping=0.3),
        own.by_input_moments,
        extra=moments,
        breaks=OWN,
        copies="a triangular solve takes a matrix in another order of its axes",
    ),
    "mud": Method(
        gradtx.mud(rate, weight_decay=0.1, dimensions=last_two),
        routed(own.mud, rate, decay=0.1, nesterov=False, scaling="match_rms_adamw"),
        breaks=OWN,
    ),
}
