r"""Polyak's step: as far as a linear model of the loss needs to reach its minimum.

θ ← θ − min((f − f_min) / (‖g‖² + ε), η_max) g        (‖g‖ over all arrays)
"""

from typing import Literal, Unpack

import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import scale_by_learning_rate
from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam, Limit, NonNegative
from gradtx.transforms.clipping import Square
from gradtx.tree.arithmetic import abs_sq, finite, sum_scalars

Variant = Literal["sps", "sps+"]


def _measure(grad, slots: None, param, step) -> Square:
    return Square(jnp.sum(abs_sq(finite(grad))))


def _conclude(
    measures, tree_slots: None, step, *, value, f_min, max_learning_rate, eps, variant: Variant
):
    gap, divisor = value - f_min, sum_scalars(measures.square) + eps
    gap = jnp.maximum(gap, 0.0) if variant == "sps+" else gap
    # Without a gradient there is no step; the inner `where` keeps 0/0 out of derivatives.
    ratio = gap / jnp.where(divisor > 0, divisor, 1.0)
    rate = jnp.where(divisor > 0, jnp.minimum(ratio, max_learning_rate), 0.0)
    # A loss that is not finite makes no step either.
    return {"rate": jnp.where(jnp.isfinite(gap), rate, 0.0)}, None


def _polyak(grad, slots: None, param, step, *, rate):
    return rate * grad, slots


@definition
def scale_by_polyak(
    f_min: Hyperparam = 0.0,
    max_learning_rate: Limit = 1.0,
    eps: NonNegative = 0.0,
    variant: Variant = "sps",
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    """Polyak's learning rate, from the value of the loss.

    u ← min((f − f_min) / (‖g‖² + ε), η_max) g, ‖g‖ over all arrays. `update` needs the loss:
    `update(grads, state, value=loss)`.

    Entries that are not finite do not count in ‖g‖; a zero gradient and a loss that is not finite
    make a step of zero.

    Args:
      f_min: the least value of the loss, or a lower bound of it; 0 where the data can be fitted.
      max_learning_rate: η_max ≥ 0.
      eps: ε ≥ 0, added to ‖g‖².
      variant: "sps" as above, which ascends where f < f_min; "sps+" for max(f − f_min, 0).
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      GradtxError: a variant of another name.
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value=`.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_polyak(max_learning_rate=10.0)
    >>> w = jnp.array([2.0])
    >>> u, _ = tx.update(2 * w, tx.init(w), value=w[0] ** 2)  # the loss is w², its gradient 2 w
    >>> u.tolist()
    [1.0]

    Loizou et al. 2020, arXiv 2002.10542, SPS with its bound; Garrigos, Gower and Schaipp 2023,
    arXiv 2307.14528, for SPS+."""
    return apply_axis_flags(
        leafwise(None, _polyak, measure=_measure, conclude=_conclude, extra=("value",)), flags
    )


@definition
def polyak_sgd(
    max_learning_rate: Limit = 1.0,
    scaling: NonNegative = 1.0,
    f_min: Hyperparam = 0.0,
    eps: NonNegative = 0.0,
    variant: Variant = "sps",
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""SGD with Polyak's step size, from the value of the loss.

    For arrays of any shapes, with ‖g‖ over all of them: θ ← θ − min((f − f_min) / (‖g‖² + ε),
    η_max) g, where g is the gradient times the factor s.

    `update` needs the loss: `update(grads, state, value=loss)`.

    When: the least value of the loss is known, as in networks that fit their data (0). When not: it
    is unknown; too low a guess makes steps too long, up to the bound; take `momo`, which can adapt
    it.

    Entries that are not finite do not count in ‖g‖; a zero gradient and a loss that is not finite
    make a step of zero.

    Args:
      max_learning_rate: η_max ≥ 0, parameter units per unit of gradient; 1.
      scaling: s ≥ 0, a factor of the gradient before everything else, as in Optax: where the bound
        holds the step grows with s, elsewhere it shrinks as 1/s. To scale the step itself, put
        `scale` behind it in a chain.
      f_min: the least value of the loss, or a lower bound of it; 0 where the data can be fitted.
      eps: ε ≥ 0, added to ‖g‖²; 0.
      variant: "sps" as above, which ascends where f < f_min; "sps+" for max(f − f_min, 0), with
        steps of 0 there.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      GradtxError: a variant of another name.
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value=`.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = gradtx.polyak_sgd(max_learning_rate=10.0)
    >>> norm = jnp.linalg.norm(w)
    >>> updates, _ = tx.update(w / norm, tx.init(w), value=norm)  # the loss is ‖w‖
    >>> [round(x, 5) for x in (w + updates).tolist()]  # one step to its minimum
    [0.0, 0.0]

    See also: `scale_by_polyak`, `momo`.

    Loizou et al. 2020, arXiv 2002.10542, SPS with its bound; Garrigos, Gower and Schaipp 2023,
    arXiv 2307.14528, for SPS+."""
    return apply_axis_flags(
        chain(
            scale_by_learning_rate(scaling), scale_by_polyak(f_min, max_learning_rate, eps, variant)
        ),
        flags,
    )
