r"""Differentially private stochastic gradient descent (DP-SGD).

ḡ = (Σ_b g_b min(1, c / ‖g_b‖) + σ c n) / B,   n normal of variance 1
θ ← θ − η ḡ,   or with momentum as in `sgd`
"""

from gradtx.compose.chain import chain
from gradtx.compose.descend import descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Fraction, Hyperparam, Limit, NonNegative
from gradtx.transforms.momentum import trace
from gradtx.transforms.privacy import differentially_private_aggregate
from gradtx.transforms.scaling import identity


@definition
def dpsgd(
    learning_rate: Hyperparam,
    l2_norm_clip: Limit,
    noise_multiplier: NonNegative,
    key: Hyperparam | None = None,
    momentum: Fraction | None = None,
    nesterov: bool = False,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    r"""Differentially private SGD (DP-SGD).

    It clips the gradient of every example and adds noise to their sum. A proof then bounds the
    influence of any one example on the result.

    g_b is the gradient of example b = 1 .. B, over all arrays: ḡ = (Σ_b g_b min(1, c / ‖g_b‖) + σ c
    n) / B, then θ ← θ − η ḡ.

    `update` takes one gradient per example, with a batch axis in front: `jax.vmap(jax.grad(loss),
    in_axes=(None, 0))(params, batch)`.

    When: training on data about persons, with an accountant for σ, B and the number of steps. When
    not: privacy does not matter; take `sgd`.

    Args:
      learning_rate: η, parameter units per gradient unit.
      l2_norm_clip: c ≥ 0, the most that one example may add to the sum; the median norm of the
        examples' gradients, or below.
      noise_multiplier: σ ≥ 0, standard deviation of the noise over c; 0.5 to 4.
      key: a random key, or a number to make one from; keep it secret.
      momentum: μ in [0, 1]; None for none.
      nesterov: look ahead by one more step of momentum.
      seed: Optax's name for a `key` that is a number; neither: 0, which is not secret.

    Raises:
      HyperparamError: a number out of its range; both a key and a seed.
      StructureError: arrays that have no batch axis in common.

    State: 0 bytes per parameter; 4 with momentum.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda w, x: 0.5 * (w - x) ** 2
    >>> w, x = jnp.array(0.0), jnp.array([-0.5, 100.0])  # the outlier moves w by 1 / 2 at most
    >>> tx = gradtx.dpsgd(1.0, l2_norm_clip=1.0, noise_multiplier=0.0)
    >>> updates, _ = tx.update(jax.vmap(jax.grad(loss), (None, 0))(w, x), tx.init(w), w)
    >>> round(updates.item(), 5)
    0.25

    See also: `differentially_private_aggregate`, `sgd`.

    Abadi et al. 2016, arXiv 1607.00133, Algorithm 1.
    """
    private = differentially_private_aggregate(l2_norm_clip, noise_multiplier, key, seed=seed)
    rule = identity() if momentum is None else trace(momentum, nesterov)
    return chain(private, sgd=descend(rule, learning_rate))
