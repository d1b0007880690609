r"""Signum: the sign of momentum.

m ← β m + (1 − β) g
θ ← θ − η sign(m)
"""

from gradtx.compose.chain import chain
from gradtx.compose.descend import descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam
from gradtx.transforms.momentum import ema
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.transforms.signs import scale_by_sign


@definition
def signum(
    learning_rate: Hyperparam,
    beta: Decay = 0.9,
    accumulator_dtype: DTypeLike | None = None,
    *,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    r"""Signum: sign SGD with momentum.

    Every coordinate takes a step of the same size.

    For every array, all of one shape: m ← β m + (1 − β) g, θ ← θ − η sign(m).

    When: as `sign_sgd`, with less noise. When not: with weight decay; take `tiger`, which adds
    weight decay to Signum, or `lion`.

    Args:
      learning_rate: η, parameter units per step; 1e-5 to 1e-3.
      beta: β in [0, 1), decay of m; typically 0.9.
      accumulator_dtype: dtype of m; None: the parameter's, at least float32.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 4 bytes per parameter (m).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.signum(0.25, beta=0.5)
    >>> _, state = tx.update(jnp.array([4.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> tx.update(jnp.array([-1.0, -3.0]), state)[0].tolist()  # m is 0.5 and -0.5
    [-0.25, 0.25]

    See also: `sign_sgd`, `tiger`, `lion`.

    Bernstein, Wang, Azizzadenesheli and Anandkumar 2018, arXiv 1802.04434, Algorithm 2.
    """
    mean = ema(beta, debias=False, accumulator_dtype=accumulator_dtype, momentum=momentum)
    return descend(chain(mean, scale_by_sign()), learning_rate)
