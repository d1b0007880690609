"""Gradient centralization: subtract means from updates."""

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.tree.arithmetic import finite, mean

Axes = int | tuple[int, ...]


def _centralize(grad, slots: None, param, step, *, axis: Axes | None):
    if grad.ndim < 2:
        return grad, slots
    axes = tuple(range(1, grad.ndim)) if axis is None else axis
    return grad - mean(finite(grad), axes), slots


@definition
def centralize(axis: Axes | None = None) -> GradientTransformation:
    """Gradient centralization: subtract from each matrix's update its mean over some axes.

    u ← g − mean(g); vectors and scalars do not change. The paper takes the mean over the inputs of
    every output. JAX layers mostly store (inputs, outputs), for which that is `axis=0`; the
    default, every axis but the first, is that of (outputs, inputs). inf and nan count as 0 in the
    mean.

    When: convolutional networks with batch norm, at no cost in memory. When not: embeddings, whose
    rows are not the inputs of one unit.

    Args:
      axis: the axes of the mean, in arrays of two axes and more; None: all but the first.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.centralize(), jnp.array([[1.0, 3.0], [5.0, 9.0]])
    >>> tx.update(g, tx.init(g))[0].tolist()
    [[-1.0, 1.0], [-2.0, 2.0]]

    Yong, Huang, Hua and Zhang 2020, arXiv 2004.01461, equation 1.
    """
    return leafwise(None, _centralize)
