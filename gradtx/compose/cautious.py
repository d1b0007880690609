"""Cautious updates: only the coordinates move whose update agrees with the gradient of this
step.
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.tree.arithmetic import count_true, entries
from gradtx.tree.casts import real_dtype


def _update(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, input_grad: jax.Array
) -> Any:
    agrees = (grad * input_grad.conj()).real > 0
    count = count_true(agrees).astype(real_dtype(grad.dtype)) + 1
    return jnp.where(agrees, grad * (entries(grad.shape) / count), grad * 0), slots


@definition
def cautious_mask(**flags: Unpack[AxisFlags]) -> GradientTransformation:
    r"""Leave out the coordinates where the update points against the gradient: u ← u φ n / (Σφ +
    1), φ = [u g > 0].

    g is the gradient as `update` was given it, before any member of the chain; u, g and φ have one
    shape, n is their size, and the factor keeps the mean size of a step.

    When: behind a rule with momentum, before weight decay and the learning rate; every optimizer of
    the Adam family has it as `cautious=True`. When not: behind a rule without momentum, where u and
    g agree anyway.

    Args:
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.trace(0.9), gradtx.cautious_mask())
    >>> state = tx.init(jnp.zeros(3))
    >>> _, state = tx.update(jnp.array([1.0, 1.0, 1.0]), state)
    >>> u, _ = tx.update(jnp.array([1.0, 1.0, -0.5]), state)  # the last: momentum 0.4
    >>> [round(one, 2) for one in u.tolist()]
    [1.9, 1.9, 0.0]

    Liang et al. 2024, arXiv 2411.16085, Algorithm 1.
    """
    return apply_axis_flags(leafwise(None, _update), flags)
