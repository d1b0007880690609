r"""The parts of Muon that other optimizers use: its momentum, the options of its orthogonal factor,
and the factor for the shape of a matrix.

    m ← β m + (1 − β) g
    M = β m̂ + (1 − β) ĝ        (Nesterov; m̂ and ĝ corrected for the start at zero)
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp

from gradtx.compose.binding import Branch
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Check, DTypeLike
from gradtx.linalg.orthogonalize import check_method, orthogonalize
from gradtx.linalg.polar_express import Triple
from gradtx.linalg.presets import Preset, numbers_of
from gradtx.linalg.spectrum import Form, Numbers
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import average, corrected_mean, plain_mean
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import zeros

Scaling = Literal["none", "original", "match_rms_adamw", "spectral"] | float
"""The factor of an orthogonal direction, by name; a number c is c √max(fan_in, fan_out)."""
Vectors = Literal["outputs", "inputs", "inputs outputs", "outputs inputs"]
"""Which vectors of a matrix are divided by their norms, in order."""
Coefficients = Annotated[Preset | Triple | Sequence[Triple], Check(check_method)]
"""The polynomials of an orthogonal factor: a preset, one triple, or a triple for every step."""


class Momentum(NamedTuple):
    """An average of gradients."""

    mu: jax.Array


class Polar(TypedDict):
    """Options of `orthogonalize`, and the spectrum that takes its place."""

    method: Coefficients
    steps: int | None
    compute_dtype: DTypeLike | None
    normalize: str
    spectrum: NotRequired[Form]


class PolarArguments(TypedDict):
    """The arguments of a rule that computes an orthogonal factor, or another spectrum."""

    polar: Polar
    spectrum_numbers: Numbers | None


def init_momentum(param: jax.Array, *, mu_dtype: DTypeLike | None) -> Momentum:
    return Momentum(zeros(param, mu_dtype))


def average_gradient(
    grad: jax.Array,
    slots: Momentum,
    param: jax.Array,
    step: jax.Array,
    *,
    beta: jax.Array,
    nesterov: bool,
    bias_correction: bool = True,
) -> tuple[jax.Array, Momentum]:
    """An average of gradients; with Nesterov the average one step ahead."""
    mu = average(slots.mu, grad, beta)
    if bias_correction:
        return corrected_mean(mu, grad, beta, step, nesterov), Momentum(mu)
    return plain_mean(mu, grad, beta, nesterov), Momentum(mu)


def average_gradients(momentum: MomentumKernel | None, **options: Any) -> GradientTransformation:
    """Build the average of gradients of an optimizer, with a kernel in its place where one is."""
    return momentwise(init_momentum, average_gradient, momentum, **options)


def polar_options(ns_coeffs: Coefficients, ns_steps: int | None, flags: Mapping[str, Any]) -> Polar:
    """Translate the arguments of an optimizer into those of `orthogonalize`."""
    return Polar(
        # Numbers in place of arrays: options choose the program, so they must be hashable.
        method=ns_coeffs if isinstance(ns_coeffs, str) else numbers_of(ns_coeffs),
        steps=ns_steps,
        compute_dtype=flags["compute_dtype"],
        normalize=flags.get("preconditioning", "frobenius"),
    )


def polar_arguments(
    where: str, ns_coeffs: Coefficients, ns_steps: int | None, flags: Mapping[str, Any]
) -> PolarArguments:
    """`polar_options`, and the numbers of the spectrum beside them, which are data."""
    polar, spectrum = polar_options(ns_coeffs, ns_steps, flags), flags.get("spectrum")
    if spectrum is None or spectrum.is_polar:
        return PolarArguments(polar=polar, spectrum_numbers=None)
    spectrum.check_polynomials(where, ns_coeffs, ns_steps)
    if polar["normalize"] != "frobenius":
        raise HyperparamError(
            f"{where}: preconditioning = {polar['normalize']!r} is for the polar factor, and "
            f"{spectrum!r} has its own norm: set its normalize"
        )
    polar["spectrum"] = spectrum.form
    return PolarArguments(polar=polar, spectrum_numbers=spectrum.numbers)


def polar_factor(
    x: jax.Array, eps: jax.Array, polar: Polar, spectrum_numbers: jax.Array | None
) -> jax.Array:
    """The orthogonal factor of a matrix, or the spectrum that takes its place."""
    method, steps, dtype = polar["method"], polar["steps"], polar["compute_dtype"]
    if "spectrum" not in polar:
        normalize = polar["normalize"]
        return orthogonalize(x, method, steps, compute_dtype=dtype, eps=eps, normalize=normalize)
    options = {"method": method, "steps": steps, "compute_dtype": dtype}
    return polar["spectrum"].apply(x, spectrum_numbers, eps=eps, **options)


def unit_vectors(x: jax.Array, vectors: Vectors) -> jax.Array:
    """Divide the vectors of outputs or inputs by their norms."""
    for one in vectors.split():
        axis = -2 if one == "outputs" else -1
        # 1e-8: a vector of zeros stays 0.
        x = x / (sqrt(jnp.sum(abs_sq(x), axis=axis, keepdims=True)) + 1e-8)
    return x


def shape_factor(scaling: Scaling, shape: tuple[int, ...]) -> float:
    """The factor s of an orthogonal direction, from the number of inputs and outputs."""
    # An empty axis counts as 1: the direction is empty, and s must not divide by zero.
    fan_in, fan_out = max(shape[-2], 1), max(shape[-1], 1)
    if not isinstance(scaling, str) or scaling == "match_rms_adamw":
        # 0.2 is about the root mean square of an update of AdamW.
        return (0.2 if isinstance(scaling, str) else scaling) * max(fan_in, fan_out) ** 0.5
    ratio = fan_out / fan_in
    squares = {"none": 1.0, "original": max(1.0, ratio), "spectral": ratio}
    return squares[scaling] ** 0.5


def check_scaling(where: str, scaling: Scaling) -> None:
    """Raise when a scaling is neither a known name nor a positive number."""
    known = ("none", "original", "match_rms_adamw", "spectral")
    is_number = isinstance(scaling, int | float) and not isinstance(scaling, bool) and scaling > 0
    if not is_number and scaling not in known:
        raise HyperparamError(
            f"{where}: scaling = {scaling!r} is unknown; choose one of "
            f"{', '.join(map(repr, known))}, or give a number above 0"
        )


def merge_slots(*members: GradientTransformation) -> list[Branch]:
    """Run members one after another, with their slots under the name of the builder.

    At most one of them keeps slots, so that names cannot collide.
    """
    return [Branch(None, member) for member in members]
