r"""Fromage: steps in proportion to the parameters, on a sphere that does not grow.

θ ← (θ − η (‖θ‖ / ‖g‖) g) / √(1 + η²)        norms per array
"""

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam, NonNegative
from gradtx.transforms.trust import scale_by_trust_ratio
from gradtx.tree.arithmetic import sqrt


def _fromage(grad, slots: None, param, step, *, learning_rate):
    root = sqrt(1 + learning_rate**2)
    shrinkage = learning_rate**2 / (1 + root)  # root - 1, which would lose digits at a small η
    return -(learning_rate * grad + shrinkage * param) / root, slots


@definition
def fromage(learning_rate: Hyperparam, min_norm: NonNegative = 1e-6) -> GradientTransformation:
    r"""Fromage: layer-wise steps in proportion to the norm of each array.

    For every array, with its own norms: θ ← (θ − η (‖θ‖ / ‖g‖) g) / √(1 + η²). The size of the
    gradient does not matter. The root undoes the growth of ‖θ‖ that steps across θ cause.

    When: networks without tuned learning rates, GANs; η = 0.01 is a start for all. When not: arrays
    that start at zero, which grow slowly from there.

    Args:
      learning_rate: η, a fraction of the parameter per step; 0.01.
      min_norm: floor of both norms, ≥ 0.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.array([3.0, 4.0]), gradtx.fromage(0.5)
    >>> u, _ = tx.update(jnp.array([-8e9, 6e9]), tx.init(w), w)  # a step across w
    >>> round(jnp.linalg.norm(w + u).item(), 5)
    5.0

    See also: `lars`, `scale_by_trust_ratio`.

    Bernstein, Vahdat, Yue and Liu 2020, arXiv 2002.03432, Algorithm 1.
    """
    return chain(scale_by_trust_ratio(min_norm), leafwise(None, _fromage, needs_params=True))
