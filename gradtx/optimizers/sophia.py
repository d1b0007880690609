r"""Sophia: momentum over a seldom refreshed estimate of the curvature, with bounded steps.

    m ← β1 m + (1 − β1) g,   m̂ = m / (1 − β1^t)
    h ← β2 h + (1 − β2) ĥ    at steps 1, k + 1, 2k + 1, ...; ĥ estimates the Hessian's diagonal
    u = clip(m̂ / max(γ h, ε), −ρ, ρ)
    θ ← θ − η (u + λ θ)

By default two things differ from the paper, as in Optax: m̂ replaces m, and h is from before the
estimate of this step.
"""

import functools
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import run_if
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, Limit, NonNegative, PyTree
from gradtx.engine.selector import Where
from gradtx.transforms.hutchinson import hutchinson_estimator_diag_hessian
from gradtx.transforms.moments import average, debias
from gradtx.tree.arithmetic import count_true
from gradtx.tree.casts import is_inexact, real_zeros, zeros
from gradtx.tree.maps import make_leaves, map_leaves

ESTIMATOR = hutchinson_estimator_diag_hessian()
"""The default estimator of the Hessian's diagonal."""


class Curvature(NamedTuple):
    """Averages of gradients and of Hessian diagonals, and the slots of the estimator."""

    mu: PyTree
    nu: PyTree
    hessian_diagonal_fn: Any


def _init(
    params, *, hessian_diagonal_fn: GradientTransformation, mu_dtype: DTypeLike | None
) -> Curvature:
    mu = make_leaves(functools.partial(zeros, dtype=mu_dtype), params)
    return Curvature(mu, make_leaves(real_zeros, params), hessian_diagonal_fn.init_slots(params))


def _sophia(
    updates,
    slots: Curvature,
    params,
    step,
    *,
    b1,
    b2,
    eps,
    gamma,
    clip_threshold,
    update_interval: int,
    hessian_diagonal_fn: GradientTransformation,
    bias_correction: bool,
    delay_hessian: bool,
    print_win_rate_every_n_steps: int | None,
    extra,
):
    def refresh():
        estimate, own = hessian_diagonal_fn.update_slots(
            updates, slots.hessian_diagonal_fn, params, step, extra
        )
        return map_leaves(average, slots.nu, estimate, decay=b2), own

    # An estimate costs about two gradients: the branch that is not due does not run.
    due = (step - 1) % update_interval == 0
    nu, own = run_if(due, refresh, lambda: (slots.nu, slots.hessian_diagonal_fn))
    updates, mu = map_leaves(
        _direction,
        updates,
        slots.mu,
        slots.nu if delay_hessian else nu,
        like=(0, 1),
        b1=b1,
        eps=eps,
        gamma=gamma,
        clip_threshold=clip_threshold,
        step=step,
        bias_correction=bias_correction,
    )
    if print_win_rate_every_n_steps is not None:
        _print_win_rate(updates, clip_threshold, step % max(print_win_rate_every_n_steps, 1) == 0)
    return updates, Curvature(mu, nu, own)


def _direction(grad, mu, nu, *, b1, eps, gamma, clip_threshold, step, bias_correction):
    """Compute the direction and the new average of one array."""
    mu = average(mu, grad, b1)
    mean = jnp.where(bias_correction, debias(mu, b1, step), mu)
    # With ε = 0, 0 / 0 is 0. The inner `where` keeps it out of the derivative, too.
    divisor = jnp.where(mean == 0, 1.0, jnp.maximum(gamma * nu, eps))
    ratio = jnp.where(mean == 0, 0.0, mean / divisor)
    return jnp.clip(ratio, -clip_threshold, clip_threshold), mu


def _print_win_rate(updates, clip_threshold, due):
    """Print the share of entries inside the bound, where a step is due to print."""
    arrays = [leaf for leaf in jax.tree.leaves(updates) if is_inexact(leaf)]
    size = max(sum(float(array.size) for array in arrays), 1.0)
    inside = [count_true(jnp.abs(array) < clip_threshold) for array in arrays]
    # In float32: the sum of many arrays may exceed an int32.
    rate = sum((one.astype(jnp.float32) for one in inside), start=jnp.zeros(())) / size
    text = "sophia: {:.1%} of the entries are within the bound"
    jax.lax.cond(due, lambda: jax.debug.print(text, rate), lambda: None)


@definition
def scale_by_sophia(
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    gamma: NonNegative = 0.01,
    clip_threshold: Limit = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: TransformationLike = ESTIMATOR,
    mu_dtype: DTypeLike | None = None,
    *,
    bias_correction: bool = True,
    delay_hessian: bool = True,
    print_win_rate_every_n_steps: int | None = None,
) -> GradientTransformation:
    """Sophia's direction: u = clip(m̂ / max(γ h, ε), −ρ, ρ).

    h is an average of Hessian diagonals, estimated at every k-th step.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of h, per estimate.
      eps: ε ≥ 0, the least curvature; where h is not positive, the step is ρ.
      gamma: γ ≥ 0.
      clip_threshold: ρ ≥ 0, the largest entry of u.
      update_interval: k ≥ 1, the number of steps from one estimate to the next.
      hessian_diagonal_fn: a transformation that returns the estimate as its updates. It receives
        the arguments of `update`, and runs at every k-th step only.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      bias_correction: False uses m in place of m̂, as in the paper.
      delay_hessian: divide by h from before the estimate of this step, as Optax does. False: divide
        by the new h, as in the paper.
      print_win_rate_every_n_steps: print at every n-th step the share of entries within the bound;
        None: never.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: `update` is called without `obj_fn=`.

    State: 8 bytes per parameter (m and h).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_sophia(b2=0.0, gamma=1.0, delay_hessian=False)
    >>> loss, w = lambda w: 2 * w[0] ** 2 - w[1] ** 2, jnp.array([1.0, 1.0])
    >>> u, _ = tx.update(jnp.array([2.0, -2.0]), tx.init(w), w, obj_fn=loss)
    >>> [round(x, 5) for x in u.tolist()]  # curvature 4: Newton's step; curvature −2: the bound
    [0.5, -1.0]

    Liu et al. 2023, arXiv 2305.14342, Algorithm 3.
    """
    if update_interval < 1:
        raise HyperparamError(
            f"sophia: update_interval = {update_interval!r} must be a whole number of steps, "
            "1 or more"
        )
    return treewise(_init, _sophia, needs_params=True)


@definition
def sophia(
    learning_rate: Hyperparam,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    weight_decay_mask: Where | None = None,
    gamma: NonNegative = 0.01,
    clip_threshold: Limit = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: TransformationLike = ESTIMATOR,
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
    *,
    bias_correction: bool = True,
    delay_hessian: bool = True,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Sophia: clipped second-order steps from a diagonal Hessian estimate.

    A coordinate takes Newton's step where its curvature is large, and a step of bounded size
    elsewhere.

    For every array, all of one shape: m ← β1 m + (1 − β1) g; at every k-th step h ← β2 h + (1 − β2)
    ĥ, ĥ = z ⊙ H z with random signs z; θ ← θ − η (clip(m̂ / max(γ h, ε), −ρ, ρ) + λ θ).

    Call `update(grads, state, params, obj_fn=loss)`, where `loss` maps the parameters to the loss
    on this batch. Every k-th step costs about two more gradients of it, the other steps none.

    When: for language models, whose coordinates have very different curvatures. When not: where the
    loss has no second derivative; take `adamw`, or `lion`, which is Sophia with every step at its
    bound.

    Args:
      learning_rate: η, parameter units per step; a little smaller than Lion's.
      b1: β1 in [0, 1), decay of m; 0.965.
      b2: β2 in [0, 1), decay of h, per estimate; 0.99.
      eps: ε ≥ 0, the least curvature; 1e-8 to 1e-12.
      weight_decay: λ ≥ 0; 1e-4 (here) to 0.2 (language models).
      weight_decay_mask: the leaves that decay (see `masked`); None: all.
      gamma: γ ≥ 0; choose it so that a tenth to a half of all entries are within the bound; 0.01 to
        0.05.
      clip_threshold: ρ ≥ 0, the largest entry of u.
      update_interval: k ≥ 1, the number of steps from one estimate to the next; 10.
      hessian_diagonal_fn: a transformation that returns ĥ as its updates; it receives the arguments
        of `update`.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      verbose: print the share of entries within the bound.
      print_win_rate_every_n_steps: with `verbose`, print at every n-th step; 0: at every step.
      bias_correction: False uses m in place of m̂, as in the paper.
      delay_hessian: divide by h from before the estimate of this step, as Optax does. False: divide
        by the new h, as in the paper.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: `update` is called without `obj_fn=`.
      StructureError: a leaf is complex.

    State: 8 bytes per parameter (m and h).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda w: 50 * w[0] ** 2 + 0.5 * w[1] ** 2
    >>> tx = gradtx.sophia(0.1, b2=0.0, gamma=2.0, weight_decay=0.0, delay_hessian=False)
    >>> w = jnp.array([1.0, 1.0])
    >>> updates, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, obj_fn=loss)
    >>> [round(u, 5) for u in updates.tolist()]  # curvatures 100 and 1, one step: g / 2h
    [-0.05, -0.05]

    See also: `hutchinson_estimator_diag_hessian`, `lion`.

    Liu et al. 2023, arXiv 2305.14342, Algorithm 3, with Algorithm 1 for ĥ.
    """
    rule = scale_by_sophia(
        b1,
        b2,
        eps,
        gamma,
        clip_threshold,
        update_interval,
        hessian_diagonal_fn,
        mu_dtype,
        bias_correction=bias_correction,
        delay_hessian=delay_hessian,
        print_win_rate_every_n_steps=print_win_rate_every_n_steps if verbose else None,
    )
    return descend(rule, learning_rate, weight_decay, weight_decay_mask, **flags)
