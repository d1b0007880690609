r"""ScheduleFree+ AdamW: Adam's direction, Polyak's step length, and an average of the iterates.

m ← β1 m + (1 − β1) g,   v ← β2 v + (1 − β2) g²,   m̂ = m/(1 − β1^t),   v̂ = v/(1 − β2^t)
z ← z − α² λ y − α m̂ / (√v̂ + ε)          α: Polyak's factor times η
x ← (1 − c) x + c z,   y ← β_t x + (1 − β_t) z,   with g and the loss F taken at the parameters y
"""

from typing import Unpack

from gradtx.compose.over_axes import AxisFlags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, Limit, NonNegative, Positive
from gradtx.optimizers.adam import scale_by_adam
from gradtx.schedules.join import with_warmup
from gradtx.transforms.iterates import Mixing
from gradtx.wrappers.schedule_free_plus import schedule_free_plus


@definition
def schedule_free_plus_adamw(
    learning_rate: Hyperparam = 1.0,
    warmup_steps: int | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    beta: Mixing = 0.9,
    beta_end: Mixing = 0.965,
    anneal_steps: Positive = 10_000.0,
    norm_decay: Decay = 0.9,
    average_warmup: Limit = 0.0,
    weight_power: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DTypeLike | None = None,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""ScheduleFree+ AdamW: AdamW without a learning rate, and without a schedule.

    For arrays of any shapes, with sums over all of them and the parameters y: m and v are averages
    of g and g², α = η max(0, F + β_t ⟨g, z − x⟩)/ê, z ← z − α² λ y − α m̂/(√v̂ + ε), x ← (1 − c) x +
    c z, y ← β_t x + (1 − β_t) z; ê, β_t and c as in `schedule_free_plus`.

    `update` needs the loss: `update(grads, state, params, value=loss)`. Evaluate at x:
    `eval_params(tx, state, params)` returns it.

    When: language models of any size, for runs of open length, where rates are not to be tuned.
    When not: the loss may be negative, or its lowest value is far above 0; or a tuned schedule is
    at hand.

    Args:
      learning_rate: η, a factor of Polyak's step; 1.
      warmup_steps: updates of a warmup from 0; None: no warmup; about 5 % of a run.
      b1: β1 in [0, 1), decay of m; 0.9.
      b2: β2 in [0, 1), decay of v; 0.95.
      eps: ε ≥ 0, added to the root.
      weight_decay: λ ≥ 0, at y, times α²; 20 to 50.
      beta: β in (0, 1]: the point of gradients between z (0) and x (1), at first; 0.9.
      beta_end: β_end in (0, 1], after T updates; 0.965.
      anneal_steps: T > 0, updates; the length of a usual run; infinity: β stays.
      norm_decay: β_p in [0, 1), of the average of norms; 0.9.
      average_warmup: C ≥ 0, updates during which x is z; 1 to 2 times `warmup_steps`.
      weight_power: r ≥ 0, the weights' power of t; 0 or 2.
      weight_lr_power: p ≥ 0, the weights' power of the largest η so far; 2.
      state_dtype: dtype of z; None: the parameter's, float32 at least.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value=`.
      MissingParamsError: `update` is called without parameters.

    State: 12 bytes per parameter (z, m and v); four numbers for the whole tree.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx, y = gradtx.schedule_free_plus_adamw(), jnp.array([3.0, -4.0])
    >>> step, state = gradtx.make_step(lambda w: jnp.sum(jnp.abs(w)), tx, donate=False), tx.init(y)
    >>> for _ in range(200): y, state, _ = step(y, state)
    >>> bool(jnp.all(jnp.abs(gradtx.eval_params(tx, state, y)) < 0.3))
    True

    See also: `schedule_free_plus`, `schedule_free_adamw`, `adamw`.

    Defazio 2026, arXiv 2605.19095. The defaults of `norm_decay` and `anneal_steps` are not
    from the paper.
    """
    eta = learning_rate if warmup_steps is None else with_warmup(learning_rate, warmup_steps)
    return schedule_free_plus(
        scale_by_adam(b1, b2, eps),
        eta,
        beta,
        beta_end,
        anneal_steps,
        weight_decay,
        norm_decay,
        average_warmup,
        weight_power,
        weight_lr_power,
        state_dtype,
        **flags,
    )
