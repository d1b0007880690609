r"""DoWG: DoG with squared gradients weighted by the squared distance at their time.

    D ← max(D, ‖θ − θ0‖²)
    V ← V + D ‖g‖²
    θ ← θ − η D / (√V + ε) g

Norms run over all arrays.
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.distances import (
    descend_with_penalty,
    init_start,
    measure_distance,
    rate_of,
    scale_by_rate,
)
from gradtx.tree.arithmetic import sqrt, sum_scalars, where_finite


class WeightedTravel(NamedTuple):
    """The largest squared distance from the first parameters, and the sum of squared gradients that
    it weights.
    """

    estim_sq_dist: jax.Array
    weighted_sq_norm_grads: jax.Array


def _init_travel(*, init_estim_sq_dist) -> WeightedTravel:
    return WeightedTravel(jnp.asarray(init_estim_sq_dist), jnp.zeros(()))


def _conclude(measures, tree_slots: WeightedTravel, step, *, eps):
    old, total = tree_slots
    far = jnp.maximum(old, where_finite(sum_scalars(measures.way), old))
    # A norm that overflows makes a step of zero, and is not added: the sum would stay infinite.
    square = total + far * sum_scalars(measures.grad)
    rate = rate_of(far, sqrt(square) + eps)
    return {"rate": rate}, WeightedTravel(far, where_finite(square, total))


@definition
def dowg(
    learning_rate: Hyperparam = 1.0,
    init_estim_sq_dist: NonNegative | None = None,
    eps: NonNegative = 1e-4,
    weight_decay: NonNegative | None = None,
    mask: Where | None = None,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""DoWG (Distance over Weighted Gradients): SGD without a learning rate to tune.

    Its learning rate is the distance travelled over the root of a sum of squared gradients, in
    which late gradients count more.

    For arrays of any shapes, with norms over all of them: D ← max(D, ‖θ − θ0‖²), V ← V + D ‖g‖², θ
    ← θ − η D/(√V + ε) g.

    When: as `dog`; DoWG is faster, since early gradients soon weigh little. When not: arrays differ
    much in scale; take `prodigy`. Its larger steps may diverge on networks where those of `dog` do
    not.

    Entries that are not finite do not count in the norms; a norm that overflows makes a step of
    zero.

    Args:
      learning_rate: η, a factor without unit; 1, or a schedule.
      init_estim_sq_dist: D before the first step, ≥ 0, in parameter units squared; None: ε.
      eps: ε ≥ 0, added to the root, in units of √V; 1e-4.
      weight_decay: λ ≥ 0, an L2 penalty: g ← g + λ θ before all this; None for no such term.
      mask: which leaves decay (see `masked`); None: all.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (θ0), and two scalars.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.dowg()
    >>> w = jnp.array([3.0, -1.0])
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(30):  # half the squared distance to 0, which is unknown
    ...     updates, state = step(w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> distance = state.slots["scale_by_dowg"]["estim_sq_dist"]
    >>> bool(jnp.linalg.norm(w) < 0.1), bool(1.0 < distance < 40.0)
    (True, True)

    See also: `dog`.

    Khaled, Mishchenko and Jin 2023, arXiv 2305.16284, Algorithm 1.
    """
    rule = leafwise(
        init_start,
        scale_by_rate,
        measure=measure_distance,
        conclude=_conclude,
        init_tree_slots=_init_travel,
        needs_params=True,
        init_estim_sq_dist=eps if init_estim_sq_dist is None else init_estim_sq_dist,
    )
    return apply_axis_flags(
        descend_with_penalty(chain(scale_by_dowg=rule), learning_rate, weight_decay, mask), flags
    )
