r"""Sophia: momentum over a seldom refreshed estimate of the curvature, every coordinate's step
bounded.

m ← β1 m + (1 − β1) g,   m̂ = m / (1 − β1^t)
h ← β2 h + (1 − β2) ĥ           at steps 1, k + 1, 2k + 1, ..., ĥ an estimate of the diagonal of the Hessian
u = clip(m̂ / max(γ h, ε), −ρ, ρ)
θ ← θ − η (u + λ θ)

Two things differ from the paper unless asked otherwise, as in Optax: m̂ in the place of m, and h as
of before this step's estimate."""

import functools
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import run_if
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, DTypeLike, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.hutchinson import hutchinson_estimator_diag_hessian
from gradtx.transforms.moments import average, debias
from gradtx.tree.casts import is_inexact, real_zeros, zeros
from gradtx.tree.maps import make_leaves, map_leaves


class Curvature(NamedTuple):
    """Averages of gradients (mu) and of estimates of the Hessian's diagonal (nu), and the slots of
    the estimator.
    """

    mu: Any
    nu: Any
    hessian_diagonal_fn: Any


def _init(
    params: Any, *, hessian_diagonal_fn: GradientTransformation, mu_dtype: DTypeLike | None
) -> Curvature:
    return Curvature(
        make_leaves(functools.partial(zeros, dtype=mu_dtype), params),
        make_leaves(real_zeros, params),
        hessian_diagonal_fn.init_slots(params),
    )


def _update(
    updates: Any,
    slots: Curvature,
    params: Any,
    step: Any,
    *,
    b1: Any,
    b2: Any,
    eps: Any,
    gamma: Any,
    clip_threshold: Any,
    update_interval: int,
    hessian_diagonal_fn: GradientTransformation,
    bias_correction: bool,
    delay_hessian: bool,
    print_win_rate_every_n_steps: int | None,
    extra: Any,
) -> Any:
    def estimate() -> Any:
        found, kept = hessian_diagonal_fn.update_slots(
            updates, slots.hessian_diagonal_fn, params, step, extra
        )
        return map_leaves(_first, found, slots.nu, like=1), kept

    def rest() -> Any:
        return map_leaves(jnp.zeros_like, slots.nu), slots.hessian_diagonal_fn

    due = (step - 1) % update_interval == 0
    found, kept = run_if(due, estimate, rest)
    told = {
        "b1": b1,
        "b2": b2,
        "eps": eps,
        "gamma": gamma,
        "clip_threshold": clip_threshold,
        "step": step,
        "due": due,
    }
    told |= {"bias_correction": bias_correction, "delay_hessian": delay_hessian}
    updates, mu, nu = map_leaves(
        _direction, updates, slots.mu, slots.nu, found, like=(0, 1, 2), **told
    )
    if print_win_rate_every_n_steps is not None:
        _print_win_rate(updates, clip_threshold, step % max(print_win_rate_every_n_steps, 1) == 0)
    return updates, Curvature(mu, nu, kept)


def _first(found: jax.Array, nu: jax.Array) -> jax.Array:
    return found


def _direction(
    grad: jax.Array,
    mu: jax.Array,
    nu: jax.Array,
    found: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    step: jax.Array,
    due: jax.Array,
    bias_correction: jax.Array,
    delay_hessian: jax.Array,
    **told: jax.Array,
) -> Any:
    """One array: its direction and its new averages."""
    mu = average(mu, grad, b1)
    new = jnp.where(due, average(nu, found, b2), nu)
    mean = jnp.where(bias_correction, debias(mu, b1, step), mu)
    return _clipped(mean, jnp.where(delay_hessian, nu, new), **told), mu, new


def _clipped(
    mean: jax.Array, nu: jax.Array, *, gamma: jax.Array, eps: jax.Array, clip_threshold: jax.Array
) -> jax.Array:
    """The mean over the curvature, 0 / 0 being 0."""
    divisor = jnp.maximum(gamma * nu, eps)
    ratio = jnp.where(mean == 0, 0.0, mean / jnp.where(mean == 0, 1.0, divisor))
    return jnp.clip(ratio, -clip_threshold, clip_threshold)


def _print_win_rate(updates: Any, clip_threshold: Any, due: Any) -> None:
    """The part of all entries that no bound held back."""
    arrays = [leaf for leaf in jax.tree.leaves(updates) if is_inexact(leaf)]
    size = max(sum(array.size for array in arrays), 1)
    rate = (
        sum(
            (jnp.sum(jnp.abs(array) < clip_threshold) for array in arrays),
            start=jnp.zeros((), jnp.int32),
        )
        / size
    )
    jax.lax.cond(
        due,
        lambda: jax.debug.print("sophia: {:.1%} of the entries are within the bound", rate),
        lambda: None,
    )


@definition
def scale_by_sophia(
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    gamma: NonNegative = 0.01,
    clip_threshold: NonNegative = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: TransformationLike = hutchinson_estimator_diag_hessian(),  # noqa: B008  (immutable)
    mu_dtype: DTypeLike | None = None,
    *,
    bias_correction: bool = True,
    delay_hessian: bool = True,
    print_win_rate_every_n_steps: int | None = None,
) -> GradientTransformation:
    """Sophia's direction: u = clip(m̂ / max(γ h, ε), −ρ, ρ), h an average of Hessian diagonals
    taken at every k-th step.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of h, per estimate.
      eps: ε ≥ 0, the least curvature; where h is not positive, the step is ρ.
      gamma: γ ≥ 0.
      clip_threshold: ρ ≥ 0, the largest entry of u.
      update_interval: k ≥ 1, steps from one estimate to the next.
      hessian_diagonal_fn: gives the estimate in the place of updates; it is told what `update` is
        told, and runs at every k-th step only.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      bias_correction: False for m in the place of m̂, as in the paper.
      delay_hessian: divide by h as it was before this step's estimate, as Optax does; False: after
        it, as in the paper.
      print_win_rate_every_n_steps: print at every n-th step how many entries are within the bound;
        None: never.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: `update` is called without `obj_fn=`.

    State: 8 bytes per parameter (m and h).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, w = gradtx.scale_by_sophia(b2=0.0, gamma=1.0, delay_hessian=False), jnp.array([1.0, 1.0])
    >>> loss = lambda w: 2 * w[0] ** 2 - w[1] ** 2  # curvature 4, where the step is Newton's; −2, where it is the bound
    >>> u, _ = tx.update(jnp.array([2.0, -2.0]), tx.init(w), w, obj_fn=loss)
    >>> [round(x, 5) for x in u.tolist()]
    [0.5, -1.0]

    Liu et al. 2023, arXiv 2305.14342, Algorithm 3.
    """
    if (
        isinstance(update_interval, bool)
        or not isinstance(update_interval, int)
        or update_interval < 1
    ):
        raise HyperparamError(
            f"sophia: update_interval = {update_interval!r} is no number of steps; give a whole number from 1 on"
        )
    return treewise(
        _init,
        _update,
        b1=b1,
        b2=b2,
        eps=eps,
        gamma=gamma,
        clip_threshold=clip_threshold,
        update_interval=update_interval,
        mu_dtype=mu_dtype,
        bias_correction=bias_correction,
        delay_hessian=delay_hessian,
        print_win_rate_every_n_steps=print_win_rate_every_n_steps,
        hessian_diagonal_fn=hessian_diagonal_fn,
        needs_params=True,
    )


@definition
def sophia(
    learning_rate: NonNegative,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    weight_decay_mask: Where | None = None,
    gamma: NonNegative = 0.01,
    clip_threshold: NonNegative = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: TransformationLike = hutchinson_estimator_diag_hessian(),  # noqa: B008  (immutable)
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
    *,
    bias_correction: bool = True,
    delay_hessian: bool = True,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Newton's step for every coordinate where the curvature is known to be large, a step of
    bounded size elsewhere.

    For every array, all of one shape: m ← β1 m + (1 − β1) g; at every k-th step h ← β2 h + (1 − β2)
    ĥ, ĥ = z ⊙ H z with random signs z; θ ← θ − η (clip(m̂ / max(γ h, ε), −ρ, ρ) + λ θ).

    `update(grads, state, params, obj_fn=loss)` must be called with the loss on this batch as a
    function of the parameters: at every k-th step about two more gradients are taken of it, at the
    others none.

    When: language models, where curvature differs by far between coordinates. When not: the loss
    cannot be differentiated twice; take `adamw`, or `lion`, which is Sophia with every step at its
    bound.

    Args:
      learning_rate: η ≥ 0, parameter units per step; a little below that of Lion.
      b1: β1 in [0, 1), decay of m; 0.965.
      b2: β2 in [0, 1), decay of h, per estimate; 0.99.
      eps: ε ≥ 0, the least curvature; 1e-8 to 1e-12.
      weight_decay: λ ≥ 0; 1e-4 (here) to 0.2 (language models).
      weight_decay_mask: which leaves decay (see `masked`); None: all.
      gamma: γ ≥ 0; such that a tenth to a half of all entries are within the bound; 0.01 to 0.05.
      clip_threshold: ρ ≥ 0, the largest entry of u.
      update_interval: k ≥ 1, steps from one estimate to the next; 10.
      hessian_diagonal_fn: gives ĥ in the place of updates: a transformation, told what `update` is
        told.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      verbose: print how many entries are within the bound.
      print_win_rate_every_n_steps: with `verbose`, at every n-th step; 0: at all.
      bias_correction: False for m in the place of m̂, as in the paper.
      delay_hessian: divide by h as it was before this step's estimate, as Optax does; False: after
        it, as in the paper.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: `update` is called without `obj_fn=`.
      StructureError: a complex leaf.

    State: 8 bytes per parameter (m and h).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda w: 50 * w[0] ** 2 + 0.5 * w[1] ** 2
    >>> tx, w = gradtx.sophia(0.1, b2=0.0, gamma=2.0, weight_decay=0.0, delay_hessian=False), jnp.array([1.0, 1.0])
    >>> updates, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, obj_fn=loss)  # curvatures 100 and 1, and one step: g / 2h
    >>> [round(u, 5) for u in updates.tolist()]
    [-0.05, -0.05]

    See also: `hutchinson_estimator_diag_hessian`, `lion`.

    Liu et al. 2023, arXiv 2305.14342, Algorithm 3, with Algorithm 1 for ĥ.
    """
    printed = print_win_rate_every_n_steps if verbose else None
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
        print_win_rate_every_n_steps=printed,
    )
    return descend(rule, learning_rate, weight_decay, weight_decay_mask, **flags)
