r"""MUD: momentum decorrelation. The rows of the momentum are whitened by a triangular solve, in the
place of Muon's orthogonal factor.

m ← β m + (1 − β) g,   M = β m̂ + (1 − β) ĝ         (Nesterov; the shorter axis of M is that of rows)
Q ← rows of M over their norms
T = lower triangle of Q Qᵀ,   Q ← T⁻¹ Q,   Q ← rows over their norms       (p times)
θ ← θ − η (s Q + λ θ)                               s = 0.2 √max(fan_in, fan_out)
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from gradtx.compose.binding import Branch
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.linalg.newton_schulz import adjoint, gram, is_wide
from gradtx.optimizers.adamw import adamw
from gradtx.transforms.flags import (
    AdamFlags,
    MatrixFlags,
    RoleFlags,
    adam_arguments,
    select_flags,
)
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.transforms.orthogonal import (
    Scaling,
    average_gradients,
    check_scaling,
    merge_slots,
    shape_factor,
)
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.wrappers.by_role import by_role


def _unit_rows(x: jax.Array) -> jax.Array:
    """The rows over their norms; a row of zeros stays."""
    norms = sqrt(jnp.sum(abs_sq(x), axis=-1, keepdims=True))
    return x / jnp.where(norms == 0, 1, norms)


def _whiten(x: jax.Array, passes: int) -> jax.Array:
    if not is_wide(x):
        return adjoint(_whiten(adjoint(x), passes))
    # Divided by the largest entry first, so that no square of an entry over- or underflows.
    peak = jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True, initial=0)
    q = _unit_rows(x / jnp.where(peak == 0, 1, peak))
    for _ in range(passes):
        # The diagonal of Q Qᵀ is 1; stated so, a row of zeros has a solution too.
        q = _unit_rows(solve_triangular(gram(q), q, lower=True, unit_diagonal=True))
    return q


def _mud(grad, slots: None, param, step, *, passes: int, scaling: Scaling):
    if not grad.size:
        return grad, slots
    return shape_factor(scaling, grad.shape) * _whiten(grad, passes), slots


@definition
def scale_by_mud(
    passes: int = 1,
    beta: Decay = 0.95,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    scaling: Scaling = "none",
    momentum: MomentumKernel | None = None,
    **flags: Unpack[MatrixFlags],
) -> list[Branch]:
    r"""MUD's direction: the momentum whitened by a triangular solve.

    Q ← rows of M over their norms; then p times T = lower triangle of Q Qᵀ, Q ← T⁻¹ Q, rows over
    their norms. M is (n, m) with n ≤ m; a tall matrix is transposed before and after. A row of
    zeros stays zero.

    Args:
      passes: p ≥ 1; 1 is cheap, 3 nearly orthogonal for well-conditioned M. Static.
      beta: β in [0, 1), decay of the momentum.
      mu_dtype: dtype of the momentum; None: the parameter's, float32 at least.
      nesterov: False for the average of this step.
      scaling: s, as in `muon`.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number out of its range, an unknown scaling.
      StructureError: an array of fewer than two axes.

    State: 4 bytes per parameter (m).

    >>> import gradtx, jax.numpy as jnp
    >>> g = jnp.array([[1.0, 0.0], [3.0, 4.0]])
    >>> tx = gradtx.scale_by_mud()
    >>> tx.update(g, tx.init(g))[0].round(3).tolist()  # the second row without the first
    [[1.0, 0.0], [0.0, 1.0]]

    See also: `mud`, `scale_by_muon`.

    Southworth and Thomas 2026, arXiv 2603.17970.
    """
    if isinstance(passes, bool) or not isinstance(passes, int) or passes < 1:
        raise HyperparamError(f"scale_by_mud: passes = {passes!r} is below 1, or not whole")
    check_scaling("scale_by_mud", scaling)
    return merge_slots(average_gradients(momentum), matrixwise(None, _mud, **flags))


@definition
def mud(
    learning_rate: Hyperparam,
    passes: int = 1,
    beta: Decay = 0.95,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    scaling: Scaling = "match_rms_adamw",
    momentum: MomentumKernel | None = None,
    **flags: Unpack[AdamFlags],
) -> GradientTransformation:
    r"""MUD: triangular whitening of the momentum for hidden matrices, AdamW for the rest.

    One Gram matrix and one triangular solve take the place of Muon's polynomials. For every hidden
    matrix (n, m) with n ≤ m: Q has the rows of M over their norms, and T is the lower triangle of
    Q Qᵀ; then Q ← T⁻¹ Q, its rows over their norms again, and θ ← θ − η (s Q + λ θ). AdamW updates
    embeddings, heads, norms, biases and vectors, as `by_role` tells them apart.

    When: Muon's products are too costly. When not: momenta of large condition number: one pass
    leaves singular values between 0.01 and 2.3 at a condition of 1,000, and the order of rows
    matters; on accelerators a triangular solve may be slower than products.

    Args:
      learning_rate: η, AdamW's with "match_rms_adamw"; 1e-4 to 3e-3.
      passes: p ≥ 1; 1 or 2. Static.
      beta: β in [0, 1), decay of the momentum; 0.95.
      weight_decay: λ ≥ 0 of hidden matrices; 0 to 0.1.
      mask: which of them decay; None: all.
      mu_dtype: dtype of both first moments; None: the parameter's, float32 at least.
      nesterov: the average one step ahead.
      scaling: s, as in `muon`.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η.
      routes: rules `[(pattern, "mud" or "adam"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m for hidden matrices, such as `k_maxwell()`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them, for both.

    Raises:
      HyperparamError: a number out of its range, an unknown scaling.
      SelectionError: `routes` or `dimensions` that fit no parameter; a route that sends a vector or
        an embedding here.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter of hidden matrices (m), 8 of the rest.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([[1.0, 0.0], [3.0, 4.0]])
    >>> tx = gradtx.mud(0.1, scaling="none")
    >>> print(tx.update(w, tx.init(w), w)[0].round(3))
    [[-0.1 -0. ]
     [-0.  -0.1]]

    See also: `muon`, `dion`.

    Southworth and Thomas 2026, arXiv 2603.17970.
    """
    matrix = select_flags(MatrixFlags, flags)
    direction = scale_by_mud(
        passes,
        beta,
        mu_dtype,
        nesterov=nesterov,
        scaling=scaling,
        momentum=momentum,
        **matrix,
    )
    step = select_flags(StepFlags, flags)
    hidden = descend(direction, learning_rate, weight_decay, mask, **step)
    rest = adamw(mu_dtype=mu_dtype, **adam_arguments(learning_rate, flags))
    return by_role({"mud": hidden, "adam": rest}, **select_flags(RoleFlags, flags))
