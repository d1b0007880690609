r"""Schedule-Free SGD: gradient descent with a running average of its iterates.

z ← z − η (g + λ y),   x ← (1 − c) x + c z,   y ← β x + (1 − β) z,   g taken at the parameters y
"""

from gradtx.compose.descend import add_decayed_weights, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import DTypeLike, Hyperparam, NonNegative
from gradtx.schedules.join import with_warmup
from gradtx.transforms.iterates import Mixing
from gradtx.transforms.scaling import identity
from gradtx.wrappers.schedule_free import schedule_free


@definition
def schedule_free_sgd(
    learning_rate: Hyperparam = 1.0,
    warmup_steps: int | None = None,
    b1: Mixing = 0.9,
    weight_decay: NonNegative | None = None,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Schedule-Free SGD: gradient descent without a learning rate schedule.

    An average of the iterates takes the place of momentum and of a decaying learning rate.

    For every array, all of one shape, with the parameters y: z ← z − η (g + λ y), x ← (1 − c) x + c
    z, y ← β x + (1 − β) z; c as in `schedule_free`. Evaluate at x:
    `schedule_free_eval_params(state, params)` returns it.

    When: convolutional networks and convex problems, for runs of open length. When not:
    transformers; take `schedule_free_adamw`.

    Args:
      learning_rate: η; larger than for SGD with momentum, 1 to 10.
      warmup_steps: updates of a warmup from 0; None: no warmup; about 5 % of a run.
      b1: β in (0, 1], in place of momentum; 0.9.
      weight_decay: λ ≥ 0, at y; None: no such term.
      weight_lr_power: p ≥ 0, the weights' power of the learning rate; 2.
      state_dtype: dtype of z; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (z).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> y = jnp.array(2.0)
    >>> tx = gradtx.schedule_free_sgd(0.5)
    >>> step, state = gradtx.make_step(lambda w: w**2, tx, donate=False), tx.init(y)
    >>> for _ in range(200): y, state, _ = step(y, state)
    >>> abs(float(gradtx.schedule_free_eval_params(state, y))) < 0.01
    True

    See also: `schedule_free`, `sgd`.

    Defazio et al. 2024, arXiv 2405.15682, equations 1 to 3.
    """
    eta = learning_rate if warmup_steps is None else with_warmup(learning_rate, warmup_steps)
    rule = identity() if weight_decay is None else add_decayed_weights(weight_decay)
    return schedule_free(descend(rule, eta), eta, b1, weight_lr_power, state_dtype)
