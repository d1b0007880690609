"""`descend`: from a direction to a step down; the one home of the arguments that optimizers share."""

from typing import Any

import jax

from gradtx.core.chain import chain
from gradtx.core.leafwise import leafwise
from gradtx.core.select import masked
from gradtx.core.selector import Where
from gradtx.core.transformation import GradientTransformation, TransformationLike, definition
from gradtx.core.types import NonNegative


def _decay(grad: jax.Array, slots: None, param: jax.Array, step: jax.Array, *, weight_decay: jax.Array) -> Any:
    return grad + weight_decay * param, slots


@definition
def add_decayed_weights(weight_decay: NonNegative = 0.0, mask: Where | None = None) -> GradientTransformation:
    r"""Add a multiple of the parameters to the updates: u ← u + λ θ.

    After a preconditioner and before the learning rate this is decoupled weight decay (AdamW);
    before the preconditioner it is the gradient of an L2 penalty λ‖θ‖²/2. u and θ have one shape.

    Args:
      weight_decay: λ ≥ 0, per unit of learning rate when decoupled; 1e-4 to 0.1.
      mask: which leaves decay (see `masked`); biases and norms commonly do not. None: all.

    Raises:
      HyperparamError: a negative number.
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([2.0])
    >>> tx = gradtx.add_decayed_weights(0.5)
    >>> tx.update(jnp.array([1.0]), tx.init(w), w)[0].tolist()
    [2.0]

    Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2, line 12.
    """
    decay = leafwise(None, _decay, hyperparams={"weight_decay": weight_decay}, needs_params=True, name="add_decayed_weights")
    return decay if mask is None else masked(decay, mask)


def _descend(grad: jax.Array, slots: None, param: None, step: jax.Array, *, learning_rate: jax.Array, flip_sign: bool) -> Any:
    return (-learning_rate if flip_sign else learning_rate) * grad, slots


@definition
def scale_by_learning_rate(learning_rate: NonNegative, *, flip_sign: bool = True) -> GradientTransformation:
    """Multiply by minus the learning rate: u ← −η u, a step down.

    Args:
      learning_rate: η ≥ 0, a number, array or schedule; it is never rounded to the gradient's dtype.
      flip_sign: False for u ← +η u, to ascend.

    Raises:
      HyperparamError: a negative number.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_learning_rate(0.1)
    >>> tx.update(jnp.array([10.0]), tx.init(jnp.zeros(1)))[0].tolist()
    [-1.0]
    """
    return leafwise(
        None, _descend, hyperparams={"learning_rate": learning_rate}, options={"flip_sign": flip_sign}, name="scale_by_learning_rate"
    )


@definition
def descend(
    rule: TransformationLike,
    learning_rate: NonNegative,
    weight_decay: NonNegative | None = None,
    mask: Where | None = None,
) -> GradientTransformation:
    """A direction, weight decay, and the step down: θ ← θ − η (u + λ θ).

    Every optimizer whose step has this form is `descend` of its rule.

    Args:
      rule: gives the direction u.
      learning_rate: η ≥ 0.
      weight_decay: λ ≥ 0, decoupled from the rule; None for no such term.
      mask: which leaves decay; None: all.

    Raises:
      HyperparamError: a number out of its range.

    State: that of the rule.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([1.0])
    >>> tx = gradtx.descend(gradtx.identity(), 0.1, weight_decay=1.0)
    >>> round(tx.update(jnp.array([1.0]), tx.init(w), w)[0].item(), 6)
    -0.2
    """
    scale = scale_by_learning_rate(learning_rate)
    return chain(rule, scale) if weight_decay is None else chain(rule, add_decayed_weights(weight_decay, mask), scale)
