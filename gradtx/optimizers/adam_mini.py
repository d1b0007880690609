r"""Adam-mini: Adam with one second moment for every block of an array, at half the memory.

    m ← β1 m + (1 − β1) g                            m̂ = m / (1 − β1^t)
    r_b ← β2 r_b + (1 − β2) mean of g² in block b    r̂_b = r_b / (1 − β2^t)
    u = m̂ / (√r̂_b + ε)                               with the r̂ of the entry's block
    θ ← θ − η (u + λ θ)

A block holds the weights of one output: all entries of an array with one index along the output
axis.
"""

from collections.abc import Sequence
from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import StructureError
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Moments, average, debias
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, entries, finite, sqrt
from gradtx.tree.casts import real_zeros_along, zeros

Axes = int | Sequence[int]


def _output_axes(shape: Sequence[int], output_axis: Axes) -> list[int]:
    """List the axes along which a second moment has entries; none for vectors and numbers."""
    rank = len(shape)
    axes = [output_axis] if isinstance(output_axis, int) else list(output_axis)
    if rank < 2:  # a bias or a scale is one block
        return []
    for axis in axes:
        if not -rank <= axis < rank:
            raise StructureError(
                f"adam_mini: an array of shape {tuple(shape)} has no axis output_axis = {axis}: "
                "give such arrays an adam_mini of their own with partition(...)"
            )
    return sorted({axis % rank for axis in axes})


def _init(param, *, mu_dtype: DTypeLike | None, output_axis: Axes) -> Moments:
    axes = _output_axes(param.shape, output_axis)
    return Moments(mu=zeros(param, mu_dtype), nu=real_zeros_along(param, axes))


def _adam_mini(grad, slots: Moments, param, step, *, b1, b2, eps, output_axis: Axes):
    outputs = _output_axes(grad.shape, output_axis)
    block = [axis for axis in range(grad.ndim) if axis not in outputs]
    total = jnp.sum(abs_sq(finite(grad)), block)  # an entry that is inf or nan spoils itself alone
    square = total * entries(total.shape) / entries(grad.shape)  # the mean of each block
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, square, b2)
    root = sqrt(jnp.expand_dims(debias(nu, b2, step), block))
    return debias(mu, b1, step) / (root + eps), Moments(mu, nu)


@definition
def scale_by_adam_mini(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    output_axis: Axes = -1,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """Adam-mini's direction: u = m̂ / (√r̂_b + ε), with one r̂_b per block.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, outside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      output_axis: the axis, or axes, along which r has entries; r averages over all others. An
        array with one axis is one block.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.
      StructureError: an array with two or more axes lacks that axis.

    State: 4 bytes per parameter, and 4 for every block.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_adam_mini()
    >>> u, state = tx.update(jnp.array([[3.0, 0.0], [0.0, 5.0]]), tx.init(jnp.zeros((2, 2))))
    >>> u.round(3).tolist()  # each column divided by its own root mean square
    [[1.4140000343322754, 0.0], [0.0, 1.4140000343322754]]

    Zhang et al. 2024, arXiv 2406.16793, Algorithm 1.
    """
    return momentwise(_init, _adam_mini, momentum)


@definition
def adam_mini(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    output_axis: Axes = -1,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Adam-mini: AdamW with one second moment per block of weights.

    A block is a group of weights that the Hessian couples.

    For every array g, m and θ of one shape, and r with one entry per block: m ← β1 m + (1 − β1) g,
    r_b ← β2 r_b + (1 − β2) mean(g² in b), θ ← θ − η (m̂ / (√r̂_b + ε) + λ θ).

    When: for transformers, with AdamW's hyperparameters and half of its memory. When not: where
    entries of one block have very different scales; take `adamw`, or `lion` for the same memory.

    The layer determines the axes of a block. For kernels shaped as in Flax, the paper has

        dense (inputs, outputs)                        output_axis=-1         one block per output
        embedding (tokens, width)                      output_axis=0          one per token
        queries and keys (width, heads, head_size)     output_axis=-2         one per head
        values (width, heads, head_size)               output_axis=(-2, -1)   one per output

    and `partition` gives each kind of layer its own axes. A vector or a number (a bias, a scale) is
    one block. The mean of a block skips entries that are inf or nan, so the other entries still
    train.

    Args:
      learning_rate: η, parameter units per step; as for AdamW, 1e-4 to 3e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.95 to 0.999.
      eps: ε ≥ 0, outside the root; 1e-8.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0.1 for language
        models.
      mask: the leaves that decay (see `masked`); None: all.
      output_axis: the axis, or axes, along which r has entries; r averages over all others. An
        array with one axis is one block.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.
      StructureError: an array with two or more axes lacks that axis.

    State: 4 bytes per parameter (m), and 4 for every block (r).

    >>> import gradtx, jax.numpy as jnp
    >>> kernel = jnp.zeros((512, 256))
    >>> slots = gradtx.adam_mini(1e-3).init(kernel).slots["scale_by_adam_mini"]
    >>> slots.mu.shape, slots.nu.shape
    ((512, 256), (256,))

    See also: `adamw`, `scale_by_adam_mini`.

    Zhang et al. 2024, arXiv 2406.16793, Algorithm 1.
    """
    return descend(
        scale_by_adam_mini(b1, b2, eps, mu_dtype, output_axis=output_axis, momentum=momentum),
        learning_rate,
        weight_decay,
        mask,
        **flags,
    )
