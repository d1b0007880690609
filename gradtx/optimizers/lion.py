r"""Lion: the sign of an average of gradients.

    c = β1 m + (1 − β1) g
    m ← β2 m + (1 − β2) g
    θ ← θ − η (sign(c) + λ θ)

`scale_by_lion` has two softer forms in place of the sign: tanh(k c), and c clipped to [−1, 1].
"""

from typing import Any, Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Decay, DTypeLike, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.moments import average
from gradtx.tree.casts import zeros

Mode = Literal["hard", "smooth", "refined"]


class Momentum(NamedTuple):
    """An average of gradients."""

    mu: jax.Array


def _init(param: jax.Array, *, mu_dtype: DTypeLike | None) -> Momentum:
    return Momentum(zeros(param, mu_dtype))


def _update(
    grad: jax.Array,
    slots: Momentum,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    smooth_beta: jax.Array,
    mode: Mode,
) -> Any:
    blend = average(slots.mu, grad, b1)
    directions = {
        "hard": jnp.sign,
        "smooth": lambda c: jnp.tanh(smooth_beta * c),
        "refined": lambda c: jnp.clip(c, -1, 1),
    }
    return directions[mode](blend), Momentum(average(slots.mu, grad, b2))


@definition
def scale_by_lion(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DTypeLike | None = None,
    *,
    mode: Mode = "hard",
    smooth_beta: NonNegative = 1.0,
) -> GradientTransformation:
    """Lion's direction: u = sign(β1 m + (1 − β1) g), then m ← β2 m + (1 − β2) g.

    Args:
      b1: β1 in [0, 1), weight of the past in the direction.
      b2: β2 in [0, 1), decay of m.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      mode: "hard" for the sign, "smooth" for tanh(k c), "refined" for c clipped to [−1, 1].
      smooth_beta: k ≥ 0, for "smooth" alone.

    Raises:
      GradtxError: a mode of another name.
      StructureError: a complex leaf with "refined", for which there is no order.

    State: 4 bytes per parameter; 2 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_lion()
    >>> tx.update(jnp.array([-1e-9, 0.0, 1e9]), tx.init(jnp.zeros(3)))[0].tolist()
    [-1.0, 0.0, 1.0]

    Chen et al. 2023, arXiv 2302.06675, Algorithm 2.
    """
    if mode not in ("hard", "smooth", "refined"):
        raise GradtxError(
            f"scale_by_lion: mode = {mode!r} is unknown; choose 'hard', 'smooth' or 'refined'"
        )
    return leafwise(
        _init,
        _update,
        b1=b1,
        b2=b2,
        smooth_beta=smooth_beta,
        mu_dtype=mu_dtype,
        mode=mode,
        real_only=mode == "refined",
    )


@definition
def lion(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 1e-3,
    mask: Where | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Steps of one size for every coordinate, in the direction of an averaged gradient's sign.

    For every array, all of one shape: θ ← θ − η (sign(β1 m + (1 − β1) g) + λ θ), m ← β2 m + (1 −
    β2) g.

    When: large batches and long runs, at half of Adam's memory; the paper takes η 3 to 10 times
    smaller than AdamW's, and λ as much larger. When not: small batches, where the sign is mostly
    noise.

    Args:
      learning_rate: η ≥ 0, parameter units per step: the sign moves every coordinate by η, decay
        adds η λ θ; 1e-5 to 3e-4.
      b1: β1 in [0, 1), weight of the past in the direction; typically 0.9.
      b2: β2 in [0, 1), decay of m; typically 0.99.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 1e-3 (here) to 1.
      mask: which leaves decay (see `masked`); None: all.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (m).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.zeros(2)
    >>> tx = gradtx.lion(0.25)
    >>> updates, _ = tx.update(jnp.array([1e-6, -1e6]), tx.init(w), w)  # the size of the gradient does not matter
    >>> updates.tolist()
    [-0.25, 0.25]

    See also: `adamw`, `scale_by_lion`.

    Chen et al. 2023, arXiv 2302.06675, Algorithm 2.
    """
    return descend(scale_by_lion(b1, b2, mu_dtype), learning_rate, weight_decay, mask, **flags)
