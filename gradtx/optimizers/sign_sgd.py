r"""Sign descent: every coordinate steps by the learning rate, against the sign of its gradient.

θ ← θ − η sign(g)
"""

from gradtx.compose.descend import descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam
from gradtx.transforms.signs import scale_by_sign


@definition
def sign_sgd(learning_rate: Hyperparam) -> GradientTransformation:
    r"""Sign SGD: a step against the sign of the gradient, θ ← θ − η sign(g).

    Every coordinate takes a step of the same size.

    When: for large batches, where workers exchange one bit per coordinate. When not: for small
    batches; the sign is then mostly noise; take `signum` or `lion`, which average first.

    Args:
      learning_rate: η, parameter units per step; 1e-5 to 1e-3.

    Raises:
      HyperparamError: the learning rate is negative.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.sign_sgd(0.25)
    >>> u, _ = tx.update(jnp.array([1e-6, -1e6]), tx.init(jnp.zeros(2)))
    >>> u.tolist()  # the size of the gradient does not matter
    [-0.25, 0.25]

    See also: `signum`, `scale_by_sign`.

    Bernstein, Wang, Azizzadenesheli and Anandkumar 2018, arXiv 1802.04434, Algorithm 1.
    """
    return descend(scale_by_sign(), learning_rate)
