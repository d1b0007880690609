r"""Stochastic gradient descent (SGD), with momentum and Nesterov's momentum.

t ← g + μ t
u = t            (momentum)        u = g + μ t      (Nesterov)
θ ← θ − η u
"""

from gradtx.compose.descend import descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import DTypeLike, Fraction, Hyperparam
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import identity


@definition
def sgd(
    learning_rate: Hyperparam,
    momentum: Fraction | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Stochastic gradient descent (SGD), with optional momentum and Nesterov momentum.

    For every array, g, t and θ of one shape: t ← g + μ t, then θ ← θ − η t, or θ ← θ − η (g + μ t)
    with Nesterov; without momentum θ ← θ − η g.

    When: a well-conditioned loss, convolutional networks with batch norm, or as the baseline of
    everything. When not: transformers and embeddings, whose gradients differ in scale by layer;
    take `adamw`.

    PyTorch's `weight_decay=wd` is an L2 penalty: `chain(add_decayed_weights(wd), sgd(eta))`. Its
    `dampening=d` is `sgd((1 - d) * eta, mu)`, except that PyTorch does not dampen the first
    gradient.

    The textbook's Δw ← μ Δw − η g keeps η inside the sum. It is the same while η is constant; under
    a schedule it is `chain(scale_by_learning_rate(eta), trace(mu))`.

    Args:
      learning_rate: η, parameter units per gradient unit; 1e-3 to 1. Too small is slow, too
        large diverges.
      momentum: μ in [0, 1]; None for none; typically 0.9, which makes steps up to 1/(1 − μ) = 10
        times longer.
      nesterov: look ahead by one more step of momentum.
      accumulator_dtype: dtype of t; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a learning rate that is not finite, or a momentum outside [0, 1].

    State: 0 bytes per parameter; 4 with momentum.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w = jnp.array(1.0)
    >>> tx = gradtx.sgd(0.25)
    >>> grad = jax.grad(lambda w: w**2)(w)  # 2
    >>> updates, state = tx.update(grad, tx.init(w))
    >>> gradtx.apply_updates(w, updates).item()  # halfway to the minimum
    0.5

    See also: `adam`, `trace`, `add_decayed_weights`.

    Robbins and Monro 1951, Annals of Mathematical Statistics 22; Sutskever et al. 2013, ICML,
    equations 1 to 4."""
    rule = identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)
    return descend(rule, learning_rate)
