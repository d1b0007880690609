r"""Adam-mini: Adam with one second moment for every block of an array, at half the memory.

m ← β1 m + (1 − β1) g                            m̂ = m / (1 − β1^t)
r_b ← β2 r_b + (1 − β2) mean of g² in block b    r̂_b = r_b / (1 − β2^t)
u = m̂ / (√r̂_b + ε)                               with the r̂ of the entry's block
θ ← θ − η (u + λ θ)

A block is what feeds one output: all entries of an array that share their place along the output
axis."""

from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import StructureError
from gradtx.definition.types import Decay, DTypeLike, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.moments import Moments, average, debias
from gradtx.tree.arithmetic import abs_sq, finite
from gradtx.tree.casts import real_zeros_along, zeros

Axes = int | Sequence[int]


def output_axes(shape: Sequence[int], output_axis: Axes) -> list[int]:
    """The axes that a second moment has an entry for; none for vectors and numbers, which are one
    block.
    """
    rank, select_kwargs = (
        len(shape),
        [output_axis] if isinstance(output_axis, int) else list(output_axis),
    )
    if rank < 2:
        return []
    outside = [axis for axis in select_kwargs if not -rank <= axis < rank]
    if outside:
        raise StructureError(
            f"adam_mini: output_axis = {outside[0]} is no axis of an array of shape {tuple(shape)}: "
            "give such arrays an adam_mini of their own with partition(...)"
        )
    return sorted({axis % rank for axis in select_kwargs})


def _init(param: jax.Array, *, mu_dtype: DTypeLike | None, output_axis: Axes) -> Moments:
    return Moments(
        mu=zeros(param, mu_dtype), nu=real_zeros_along(param, output_axes(param.shape, output_axis))
    )


def _update(
    grad: jax.Array,
    slots: Moments,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    output_axis: Axes,
) -> Any:
    kept = output_axes(grad.shape, output_axis)
    block = [axis for axis in range(grad.ndim) if axis not in kept]
    square = jnp.sum(abs_sq(finite(grad)), block)  # an entry that is inf or nan spoils itself alone
    mu, nu = (
        average(slots.mu, grad, b1),
        average(slots.nu, square * square.size / max(grad.size, 1), b2),
    )
    return debias(mu, b1, step) / (
        jnp.sqrt(jnp.expand_dims(debias(nu, b2, step), block)) + eps
    ), Moments(mu, nu)


@definition
def scale_by_adam_mini(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    output_axis: Axes = -1,
) -> GradientTransformation:
    """Adam-mini's direction: u = m̂ / (√r̂_b + ε), with one r for every block.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, beside the root.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      output_axis: the axis, or axes, that r has an entry for; all others are averaged over. An
        array of one axis is one block.

    Raises:
      HyperparamError: a number out of its range.
      StructureError: an array of two axes or more without that axis.

    State: 4 bytes per parameter, and 4 for every block.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_adam_mini()
    >>> u, state = tx.update(jnp.array([[3.0, 0.0], [0.0, 5.0]]), tx.init(jnp.zeros((2, 2))))
    >>> u.round(3).tolist()  # each column divided by its own root mean square
    [[1.4140000343322754, 0.0], [0.0, 1.4140000343322754]]

    Zhang et al. 2024, arXiv 2406.16793, Algorithm 1.
    """
    return leafwise(
        _init, _update, b1=b1, b2=b2, eps=eps, mu_dtype=mu_dtype, output_axis=output_axis
    )


@definition
def adam_mini(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    output_axis: Axes = -1,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""AdamW with one step size for every block of weights that the Hessian ties together.

    For every array g, m and θ of one shape, and r with one entry per block: m ← β1 m + (1 − β1) g,
    r_b ← β2 r_b + (1 − β2) mean(g² in b), θ ← θ − η (m̂ / (√r̂_b + ε) + λ θ).

    When: transformers, at AdamW's hyperparameters and half of its memory. When not: entries of one
    block differ in scale by far; take `adamw`, or `lion` for the same memory.

    Which axes make a block depends on the layer. The paper's are, for kernels as Flax shapes them,

        dense (inputs, outputs)                        output_axis=-1         one block per output
        embedding (tokens, width)                      output_axis=0          one per token
        queries and keys (width, heads, head_size)     output_axis=-2         one per head
        values (width, heads, head_size)               output_axis=(-2, -1)   one per output

    and `partition` gives each kind its own. Vectors and numbers, such as biases and scales, are one
    block. An entry that is inf or nan is left out of its block's mean, so that the others go on.

    Args:
      learning_rate: η ≥ 0, parameter units per step; as for AdamW, 1e-4 to 3e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.95 to 0.999.
      eps: ε ≥ 0, beside the root; 1e-8.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0.1 for language
        models.
      mask: which leaves decay (see `masked`); None: all.
      output_axis: the axis, or axes, that r has an entry for; all others are averaged over. An
        array of one axis is one block.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.
      StructureError: an array of two axes or more without that axis.

    State: 4 bytes per parameter (m), and 4 for every block (r).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> kernel = jnp.zeros((512, 256))
    >>> found = jax.tree.map(jnp.shape, gradtx.adam_mini(1e-3).init(kernel).slots)
    >>> found["scale_by_adam_mini"].mu, found["scale_by_adam_mini"].nu
    ((512, 256), (256,))

    See also: `adamw`, `scale_by_adam_mini`.

    Zhang et al. 2024, arXiv 2406.16793, Algorithm 1.
    """
    return descend(
        scale_by_adam_mini(b1, b2, eps, mu_dtype, output_axis=output_axis),
        learning_rate,
        weight_decay,
        mask,
        **flags,
    )
