r"""Piecewise schedules, constant or interpolated, and the one-cycle policies.

constant       η = η_0 Π_{b_i ≤ count} c_i
interpolate    from η_{i−1} at b_{i−1} to η_i = c_i η_{i−1} at b_i;  b_0 = 0
one cycle      interpolate with three or four such points
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import schedule
from gradtx.definition.types import Array, Fraction, Hyperparam, NonNegative, Positive
from gradtx.schedules.parts import (
    are_numbers,
    check_counts,
    check_exponential,
    check_shape,
    fill,
    has_begun,
    real,
    route,
)


def _last_boundary(boundaries_and_scales: Mapping[int, Any] | None, **_: Any) -> int:
    return max(boundaries_and_scales or [0])


def _check_constant(init_value, boundaries_and_scales) -> None:
    check_counts("piecewise_constant_schedule: the boundaries", boundaries_and_scales or ())


@schedule(check=_check_constant, length=_last_boundary)
def piecewise_constant_schedule(
    count: Array,
    init_value: Hyperparam,
    boundaries_and_scales: Mapping[int, NonNegative] | None = None,
) -> Array:
    """Step decay: a factor at each boundary, η = η_0 Π c_i over the b_i ≤ count.

    When: the classical recipe of convolutional networks, a tenth at a third and two thirds of the
    run, or any rule in the form of a table. When not: no such table is known; a cosine needs no
    tuning of boundaries.

    Args:
      init_value: η_0, the value before the first boundary.
      boundaries_and_scales: {b_i: c_i}, counts in any order, and factors ≥ 0, each in addition to
        those of smaller counts; the counts are static, the factors are data. None: constant.

    Raises:
      HyperparamError: a negative boundary; a negative factor.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> gradtx.piecewise_constant_schedule(1.0, {2: 0.5, 4: 0.5})(jnp.arange(6)).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]

    See also: `piecewise_interpolate_schedule`, `join_schedules`.

    He, Zhang, Ren and Sun 2016, arXiv 1512.03385, section 3.4.
    """
    value = fill(count, init_value)
    for boundary, factor in (boundaries_and_scales or {}).items():
        value = jnp.where(has_begun(count, boundary), value * real(factor), value)
    return value


def _check_interpolate(interpolate_type: str, init_value, boundaries_and_scales) -> None:
    check_shape("piecewise_interpolate_schedule: interpolate_type", interpolate_type)
    table = boundaries_and_scales or {}
    check_counts("piecewise_interpolate_schedule: the boundaries", table)
    check_exponential(
        "piecewise_interpolate_schedule", interpolate_type, init_value, *table.values()
    )


@schedule(check=_check_interpolate, length=_last_boundary)
def piecewise_interpolate_schedule(
    count: Array,
    interpolate_type: str,
    init_value: Hyperparam,
    boundaries_and_scales: Mapping[int, NonNegative] | None = None,
) -> Array:
    """Interpolate between points: at boundary b_i the value is η_i = c_i η_{i−1}.

    With p the share of [b_{i−1}, b_i] that is done: η = (1 − p) η_{i−1} + p η_i ("linear"), with
    ½ (1 − cos πp) in place of p ("cosine"), √p ("1-sqrt") or 1 − √(1 − p) ("sqrt"); "exponential"
    is η = η_{i−1}^(1 − p) η_i^p. After the last boundary it is constant.

    When: any cycle of ups and downs. When not: jumps; take `piecewise_constant_schedule`.

    Args:
      interpolate_type: "linear", "cosine", "1-sqrt", "sqrt" or "exponential".
      init_value: η_0, the value at count 0.
      boundaries_and_scales: {b_i: c_i}, counts in any order, and factors ≥ 0, each in addition to
        those of smaller counts; the counts are static, the factors are data. None: constant.

    Raises:
      HyperparamError: an unknown type; a negative boundary or factor; an exponential to 0.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> cycle = gradtx.piecewise_interpolate_schedule("linear", 1.0, {2: 3.0, 5: 0.0})
    >>> cycle(jnp.arange(7)).tolist()
    [1.0, 2.0, 3.0, 2.0, 1.0, 0.0, 0.0]

    See also: `cosine_onecycle_schedule`, `linear_onecycle_schedule`.
    """
    values, table = [real(init_value)], boundaries_and_scales or {}
    boundaries = sorted(table)
    for boundary in boundaries:
        values.append(values[-1] * real(table[boundary]))
    return route(count, boundaries, values, interpolate_type)


def _floor_share(share: Hyperparam, steps: Hyperparam) -> Array:
    """⌊share · steps⌋."""
    product = real(share) * real(steps)
    # Rounding may put a product just below a whole number; a tolerance of 4 ε undoes that.
    return jnp.floor(product * (1 + 4 * jnp.finfo(product.dtype).eps))


def _check_cosine_onecycle(
    transition_steps, peak_value, pct_start, div_factor, final_div_factor
) -> None:
    if (
        are_numbers(transition_steps, pct_start)
        and int(pct_start * transition_steps) >= transition_steps
    ):
        raise HyperparamError(
            f"cosine_onecycle_schedule: with pct_start = {pct_start} all {transition_steps} steps "
            "go up and none is left to come down; give pct_start < 1"
        )


@schedule(check=_check_cosine_onecycle, length=lambda transition_steps, **_: transition_steps)
def cosine_onecycle_schedule(
    count: Array,
    transition_steps: Positive,
    peak_value: Hyperparam,
    pct_start: Fraction = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Array:
    """One-cycle policy with cosines: one up to the peak, and one down to nearly 0.

    It is η_max/d at 0, η_max at ⌊aK⌋, and η_max/(d f) from K on.

    When: short runs with a large peak from a learning-rate test. When not: transformers on large
    data, where a warmup of a few thousand updates is enough; take `warmup_cosine_decay_schedule`.

    Args:
      transition_steps: K > 0, updates in the cycle.
      peak_value: η_max.
      pct_start: a in [0, 1), the share of the cycle that goes up; 0.3.
      div_factor: d > 0: the first value is η_max/d.
      final_div_factor: f > 0: the last value is η_max/(d f).

    Raises:
      HyperparamError: K, d or f not positive; a outside its range.

    State: 0 bytes.

    >>> import gradtx
    >>> cycle = gradtx.cosine_onecycle_schedule(100, peak_value=1.0)
    >>> [round(float(cycle(count)), 6) for count in (0, 15, 30, 65, 100)]
    [0.04, 0.52, 1.0, 0.500002, 4e-06]

    See also: `linear_onecycle_schedule`.

    Smith and Topin 2018, arXiv 1708.07120 (there with straight lines).
    """
    first = real(peak_value) / real(div_factor)
    stops = (_floor_share(pct_start, transition_steps), transition_steps)
    return route(count, stops, (first, peak_value, first / real(final_div_factor)), "cosine")


def _check_linear_onecycle(
    transition_steps, peak_value, pct_start, pct_final, div_factor, final_div_factor
) -> None:
    if are_numbers(pct_start, pct_final) and pct_start >= pct_final:
        raise HyperparamError(
            f"linear_onecycle_schedule: pct_start = {pct_start} is not below "
            f"pct_final = {pct_final}; put the peak before the last phase"
        )


@schedule(check=_check_linear_onecycle, length=lambda transition_steps, **_: transition_steps)
def linear_onecycle_schedule(
    count: Array,
    transition_steps: Positive,
    peak_value: Hyperparam,
    pct_start: Fraction = 0.3,
    pct_final: Fraction = 0.85,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Array:
    """One-cycle policy with lines: one up, one down by the same amount, a last one to nearly 0.

    It is η_max/d at 0, η_max at ⌊aK⌋, η_max/d at ⌊bK⌋, and η_max/(d f) from K on.

    When: the one-cycle policy of the paper. When not: fewer phases are enough; take
    `cosine_onecycle_schedule`.

    Args:
      transition_steps: K > 0, updates in the cycle.
      peak_value: η_max.
      pct_start: a in [0, 1], the share of the cycle at whose end the peak is; 0.3.
      pct_final: b in (a, 1], the share after which the last line begins; 0.85.
      div_factor: d > 0: the first value is η_max/d.
      final_div_factor: f > 0: the last value is η_max/(d f).

    Raises:
      HyperparamError: K, d or f not positive; a or b outside [0, 1]; a ≥ b.

    State: 0 bytes.

    >>> import gradtx
    >>> cycle = gradtx.linear_onecycle_schedule(100, peak_value=1.0)
    >>> [round(float(cycle(count)), 6) for count in (0, 15, 30, 85, 100)]
    [0.04, 0.52, 1.0, 0.04, 4e-06]

    See also: `cosine_onecycle_schedule`.

    Smith and Topin 2018, arXiv 1708.07120.
    """
    first = real(peak_value) / real(div_factor)
    peak, final = (_floor_share(share, transition_steps) for share in (pct_start, pct_final))
    values = (first, peak_value, first, first / real(final_div_factor))
    return route(count, (peak, final, transition_steps), values)
