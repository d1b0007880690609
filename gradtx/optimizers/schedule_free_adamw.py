r"""Schedule-Free AdamW: Adam's step sizes, with an average of the iterates in place of momentum.

r ← β2 r + (1 − β2) g²,  r̂ = r / (1 − β2^t)
z ← z − η (g / (√r̂ + ε) + λ y),   x ← (1 − c) x + c z,   y ← β1 x + (1 − β1) z
with g taken at the parameters y
"""

from typing import Unpack

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.over_axes import apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.optimizers.rmsprop import scale_by_rms
from gradtx.schedules.join import with_warmup
from gradtx.transforms.iterates import Mixing
from gradtx.wrappers.schedule_free import schedule_free


@definition
def schedule_free_adamw(
    learning_rate: Hyperparam = 0.0025,
    warmup_steps: int | None = None,
    b1: Mixing = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DTypeLike | None = None,
    mask: Where | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Schedule-Free AdamW: AdamW without a learning rate schedule.

    The learning rate does not decay, and the length of the run may be open.

    For every array, all of one shape, with the parameters y: r ← β2 r + (1 − β2) g², z ← z − η (g /
    (√r̂ + ε) + λ y), x ← (1 − c) x + c z, y ← β1 x + (1 − β1) z; r̂ = r/(1 − β2^t), c as in
    `schedule_free`. Evaluate at x: `schedule_free_eval_params(state, params)` returns it.

    When: as `adamw`, for runs of open length. When not: the length is known and the lowest loss
    counts; `adamw` with a tuned schedule does as well.

    Args:
      learning_rate: η; 1 to 10 times that of AdamW with a schedule.
      warmup_steps: updates of a warmup from 0; None: no warmup; about 5 % of a run.
      b1: β1 in (0, 1], in place of momentum; 0.9, longer runs 0.95 to 0.98.
      b2: β2 in [0, 1), decay of r; 0.95 to 0.999.
      eps: ε ≥ 0, added to the root.
      weight_decay: λ ≥ 0, at y.
      weight_lr_power: p ≥ 0, the weights' power of the learning rate; 2.
      state_dtype: dtype of z; None: the parameter's, float32 at least.
      mask: which leaves decay (see `masked`); None: all.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (z and r).

    >>> import gradtx, jax.numpy as jnp
    >>> y = jnp.array([1.0, 1.0])
    >>> tx = gradtx.schedule_free_adamw(0.25)
    >>> updates, state = tx.update(jnp.array([1e-3, -1e3]), tx.init(y), y)
    >>> # a first step of 0.25, whatever the gradient
    >>> [round(x, 4) for x in gradtx.schedule_free_eval_params(state, y + updates).tolist()]
    [0.75, 1.25]

    See also: `schedule_free`, `adamw`.

    Defazio et al. 2024, arXiv 2405.15682, Algorithm 1.
    """
    eta = learning_rate if warmup_steps is None else with_warmup(learning_rate, warmup_steps)
    rule = scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
    names = flags.pop("axis_names", None)
    tx = schedule_free(
        descend(rule, eta, weight_decay, mask, **flags), eta, b1, weight_lr_power, state_dtype
    )
    return apply_axis_flags(tx, {"axis_names": names})
