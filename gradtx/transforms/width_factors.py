r"""The factors of muP, CompleteP, the spectral condition and Hyperball, for one array.

With m_in and m_out, by which factors the inputs and the outputs of an array grow over the base
model, m_L the same for the number of layers, and the exponents α of depth and p of decay:

=========  ======================  =================  =====================  ===================
rule       rate                    rate × decay       ε of entries           deviation at init
=========  ======================  =================  =====================  ===================
muP        m_in⁻¹ m_L^(α−1)        m_in⁻ᵖ m_L^(α−1)   m_out⁻¹ m_L⁻ᵅ          m_in^(−½) or m_in⁻¹
muP, SGD   m_out/m_in m_L^(2α−1)   as muP             1                      as muP
spectral   √(m_out/m_in) ...       m_in⁻ᵖ m_L^(α−1)   m_L⁻ᵅ (of matrices)    see `_spectral_init`
hyperball  m_L^(α−1)               as the rate        m_out⁻¹ m_L⁻ᵅ          m_in^(−½)
=========  ======================  =================  =====================  ===================

m_L counts within blocks alone. An axis that does not grow has a factor of 1, so that embeddings,
vectors and heads follow from the same formulas.
"""

import math
from typing import Literal, NamedTuple

from gradtx.transforms.orthogonal import Scaling, shape_factor

TransferRule = Literal["mup", "sgd", "spectral", "hyperball"]
HeadForm = Literal["rate", "forward"]


class Settings(NamedTuple):
    """What holds for all arrays: the rule, the growth of depth, and the exponents."""

    rule: TransferRule = "mup"
    depth: float = 1.0
    """m_L."""
    alpha: float = 1.0
    decay_exponent: float = 0.0
    head: HeadForm = "rate"


class Growth(NamedTuple):
    """How an array grows over that of the base model."""

    inputs: float
    outputs: float
    in_block: bool
    """Whether its layer is one of several."""
    is_head: bool = False
    shapes: tuple[tuple[int, int], tuple[int, int]] | None = None
    """(inputs, outputs) here and in the base model; None: not known."""


class WidthFactors(NamedTuple):
    """By what each hyperparameter of an array is multiplied."""

    rate: float = 1.0
    decay: float = 1.0
    eps: float = 1.0
    """Of rules on entries."""
    matrix_eps: float = 1.0
    """Of rules on matrices, whose ε is compared with a norm."""
    init: float = 1.0
    """Of the standard deviation at the start."""
    forward: float = 1.0
    """Of the output of the layer, which the model must multiply by itself."""


def width_factors(
    settings: Settings, growth: Growth, on_matrix: bool, scaling: Scaling | None
) -> WidthFactors:
    """The factors of one array; `on_matrix`: a rule on matrices, with `scaling`, trains it."""
    depth, alpha = (settings.depth if growth.in_block else 1.0), settings.alpha
    rate, eps = depth ** (alpha - 1), depth**-alpha
    if settings.rule == "sgd":
        return _sgd(_mup(settings, growth, rate, eps))
    if settings.rule == "mup" or not on_matrix:
        return _mup(settings, growth, rate, eps)
    if settings.rule == "hyperball":
        # The angle of a step has no dimension, and the norm of a matrix is constant.
        return WidthFactors(rate, 1.0, eps / growth.outputs, eps, growth.inputs**-0.5)
    width = (growth.outputs / growth.inputs) ** 0.5 / _own_growth(growth, scaling)
    decay = growth.inputs**-settings.decay_exponent / width
    return WidthFactors(rate * width, decay, eps / growth.outputs, eps, _spectral_init(growth))


def _mup(settings: Settings, growth: Growth, rate: float, eps: float) -> WidthFactors:
    """Adam's update of an entry is of order 1, whatever the width; a sum over inputs grows."""
    inputs, outputs = growth.inputs, growth.outputs
    if growth.is_head and settings.head == "forward":
        # W / m is the matrix of the other form, whose gradient is m times as large.
        decay = inputs**-settings.decay_exponent
        return WidthFactors(rate, decay, eps / inputs, eps, 1.0, 1 / inputs)
    init = inputs**-0.5 if outputs != 1 else inputs**-1.0
    decay = inputs ** (1 - settings.decay_exponent)
    return WidthFactors(rate / inputs, decay, eps / outputs, eps, init)


def _sgd(adam: WidthFactors) -> WidthFactors:
    """An update of SGD shrinks as the gradient does, and ε of Adam shrinks so."""
    return adam._replace(
        rate=adam.rate / adam.eps, decay=adam.decay * adam.eps, eps=1.0, matrix_eps=1.0
    )


def _own_growth(growth: Growth, scaling: Scaling | None) -> float:
    """By what the factor of the shape, which the rule multiplies by itself, grows."""
    if scaling is None or scaling == "none":
        return 1.0
    if scaling == "spectral":
        return (growth.outputs / growth.inputs) ** 0.5
    if growth.shapes is not None:
        here, base = growth.shapes
        return shape_factor(scaling, here) / shape_factor(scaling, base)
    # Without shapes inputs and outputs grow alike, and so does the larger of them.
    return 1.0 if scaling == "original" else max(growth.inputs, growth.outputs) ** 0.5


def _spectral_init(growth: Growth) -> float:
    """The growth of min(1, √(outputs / inputs)) / √inputs, whose matrix has the norm asked for."""
    if growth.shapes is None:
        return growth.inputs**-0.5
    here, base = (
        min(1.0, math.sqrt(outputs / inputs)) / math.sqrt(inputs)
        for inputs, outputs in growth.shapes
    )
    return here / base
