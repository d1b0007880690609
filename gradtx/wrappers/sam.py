"""Sharpness-aware minimization (SAM): the gradient at the worst point nearby.

With k gradients per step, θ' from θ by k − 1 steps up, and both updates written as descents:

    θ' ← θ' − a(∇L(θ'))          a: of the adversarial optimizer, k − 1 times, first at θ' = θ
    θ ← θ + u(∇L(θ'))            u: of the optimizer
"""

import operator
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import run_if
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import PRECISE, NonNegative
from gradtx.engine.rules import Child
from gradtx.transforms.clipping import Square
from gradtx.tree.arithmetic import abs_sq, sqrt, sum_scalars
from gradtx.tree.casts import float_copy
from gradtx.tree.maps import choose, make_leaves, map_leaves
from gradtx.wrappers.lookahead import check_period


class SAM(NamedTuple):
    """The slots of both optimizers, and the parameters at the start of the ascent, if stored."""

    cache: Annotated[Any, PRECISE]
    optimizer: Any
    adv_optimizer: Any


def _init(
    params, *, optimizer: GradientTransformation, adv_optimizer: GradientTransformation
) -> SAM:
    cache = make_leaves(float_copy, params)
    return SAM(cache, optimizer.init_slots(params), adv_optimizer.init_slots(params))


def _sam(
    updates,
    slots: SAM,
    params,
    step,
    *,
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
    extra,
):
    """One step of the ascent, or the step down from its start; `step` counts both."""
    descents, place = (step - 1) // sync_period, (step - 1) % sync_period
    cache = choose(place == 0, map_leaves(_second, slots.cache, params), slots.cache)

    def ascend():
        count = place + 1 if reset_state else step - descents
        move, new = adv_optimizer.update_slots(updates, slots.adv_optimizer, params, count, extra)
        # `adv_optimizer` is written as a descent, so its moves change their sign.
        return map_leaves(operator.neg, move), slots.optimizer, new

    def descend():
        count = descents + 1
        move, new = optimizer.update_slots(updates, slots.optimizer, cache, count, extra)
        other = adv_optimizer.init_slots(params) if reset_state else slots.adv_optimizer
        return map_leaves(_from_cache, move, cache, params), new, other

    updates, new, other = run_if(place == sync_period - 1, descend, ascend)
    return updates, SAM(cache, new, other)


def _second(cache, param):
    return param


def _from_cache(move, cache, param):
    return cache - param + move


def _children(
    slots: SAM,
    count,
    *,
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
) -> list[Child]:
    descents = count // sync_period
    ascents = count % sync_period if reset_state else count - descents
    return [
        Child(optimizer, slots.optimizer, descents),
        Child(adv_optimizer, slots.adv_optimizer, ascents),
    ]


def _evaluate(params, slots: SAM, count, *, optimizer: GradientTransformation, sync_period: int):
    """The parameters θ of the last descent; during an ascent these are at its start."""
    start = map_leaves(_start, params, slots.cache, is_down=count % sync_period == 0)
    return optimizer.evaluate_slots(slots.optimizer, start, count // sync_period)


def _start(param, cache, *, is_down):
    return jnp.where(is_down, param, cache)


def _init_opaque(
    params,
    *,
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    reset_state: bool,
) -> SAM:
    # With `reset_state` every update makes the slots of the ascent anew.
    other = None if reset_state else adv_optimizer.init_slots(params)
    return SAM(None, optimizer.init_slots(params), other)


def _opaque_sam(
    updates,
    slots: SAM,
    params,
    step,
    *,
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
    batch_axis_name: str | None,
    grad_fn: Callable[..., Any],
    extra,
):
    """The whole ascent and the step down in one update."""
    # Saturated like the step: a product beyond an int32 would wrap. With a period of 1 there is no
    # ascent to count.
    ascents = max(sync_period - 1, 1)
    before = jnp.minimum(step - 1, jnp.iinfo(jnp.int32).max // ascents - 1)
    other, count = slots.adv_optimizer, before * ascents + 1
    if reset_state:
        other, count = adv_optimizer.init_slots(params), 1
    top, grads = params, updates
    for number in range(sync_period - 1):
        ascent = jnp.asarray(count + number, jnp.int32)
        move, other = adv_optimizer.update_slots(grads, other, top, ascent, extra)
        top = map_leaves(operator.sub, top, move)
        grads = grad_fn(top, number)
    if batch_axis_name is not None:
        # Only the last gradient is averaged: each device ascends on its own part of the batch.
        grads = jax.lax.pmean(grads, batch_axis_name)
    updates, new = optimizer.update_slots(grads, slots.optimizer, params, step, extra)
    return updates, SAM(None, new, None if reset_state else other)


def _opaque_children(slots: SAM, count, *, optimizer: GradientTransformation) -> list[Child]:
    return [Child(optimizer, slots.optimizer, count)]


@definition
def sam(
    optimizer: TransformationLike,
    adv_optimizer: TransformationLike,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> GradientTransformation:
    r"""Sharpness-aware minimization (SAM).

    It descends by the gradient at the top of a short ascent, and so prefers flat minima to sharp
    ones. For all arrays together, k = `sync_period`: from θ take k − 1 steps up, θ' ← θ' −
    a(∇L(θ')) with the updates a of `adv_optimizer`, which is written as a descent; then one step
    down from θ by the gradient at the top, θ ← θ + u(∇L(θ')).

    SAM of the paper is `sam(sgd(eta), chain(normalize(), sgd(rho)))`: θ' = θ + ρ ∇L(θ)/‖∇L(θ)‖.
    With `scale_by_asam` in place of `normalize` it is the adaptive form (ASAM).

    Without `opaque_mode` every update is one of these steps: k − 1 of k updates lead up, and every
    k-th leads back and down. Pass the gradients at the current parameters. A training loop needs no
    change, and k updates make one step. Evaluate after a k-th update, or at `eval_params(tx, state,
    params)`, which is θ at any time. The clock of `optimizer` counts its own steps.

    With `opaque_mode` one update runs all steps. It receives the gradient as a function:
    `update(grads, state, params, grad_fn=...)`, with `grad_fn(params, i)` for the i-th gradient
    after the first, i = 0, 1, ...

    When: generalization counts more than time; a step costs k gradients. When not: language models
    in one epoch, where it gains little for twice the time.

    Args:
      optimizer: gives the step down.
      adv_optimizer: gives the steps up, with opposite sign.
      sync_period: k ≥ 1, gradients per step; 2.
      reset_state: restart `adv_optimizer` for every ascent.
      opaque_mode: whether one update computes all k gradients.
      batch_axis_name: in opaque mode, a mapped axis over which the gradient of the step down is
        averaged; the ascent is then that of each device's part of the batch, as in the paper.

    Raises:
      HyperparamError: `sync_period` is not a whole number from 1 on; `batch_axis_name` without
        `opaque_mode`.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: in opaque mode, `update` is called without `grad_fn=`.

    State: 4 bytes per parameter (θ at the start of the ascent), 0 in opaque mode, and that of the
    optimizers.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> slope = jax.grad(lambda w: 0.5 * w**2)
    >>> rho, eta, w = 0.1, 0.5, jnp.array(1.0)
    >>> ascent = gradtx.chain(gradtx.normalize(), gradtx.sgd(rho))
    >>> tx = gradtx.sam(gradtx.sgd(eta), ascent, opaque_mode=True)
    >>> updates, state = tx.update(slope(w), tx.init(w), w, grad_fn=lambda w, i: slope(w))
    >>> round(float(updates), 4)  # −η ∇L(1 + ρ)
    -0.55

    See also: `scale_by_asam`, `normalize`, `lookahead`.

    Foret et al. 2021, arXiv 2010.01412, Algorithm 1; Kwon et al. 2021, arXiv 2102.11600, for the
    adaptive form."""
    check_period("sam", sync_period)
    if batch_axis_name is not None and not opaque_mode:
        raise HyperparamError(
            f"sam: batch_axis_name = {batch_axis_name!r} has no effect without opaque_mode=True: "
            "average the gradients before update, as for any optimizer"
        )
    if not opaque_mode:
        return treewise(_init, _sam, children=_children, evaluate=_evaluate, needs_params=True)
    return treewise(
        _init_opaque,
        _opaque_sam,
        children=_opaque_children,
        extra=("grad_fn",),
        needs_params=True,
    )


def _measure(grad, slots: None, param, step, *, eps) -> Square:
    return Square(jnp.sum(abs_sq((jnp.abs(param) + eps) * grad)))


def _conclude(measures, tree_slots: None, step) -> tuple[dict[str, jax.Array], None]:
    norm = sqrt(sum_scalars(measures.square))
    usable = (norm > 0) & jnp.isfinite(norm)
    # The inner `where` keeps the division finite where the outer one discards it.
    return {"factor": jnp.where(usable, 1 / jnp.where(usable, norm, 1.0), 0.0)}, None


def _asam(grad, slots: None, param, step, *, eps, factor):
    # The factor first: T² g of a large gradient may overflow.
    return (jnp.abs(param) + eps) ** 2 * (factor * grad), slots


@definition
def scale_by_asam(eps: NonNegative = 0.01) -> GradientTransformation:
    r"""The ascent direction of adaptive SAM (ASAM).

    u = T² g / ‖T g‖, T = |θ| + ε, ‖T g‖ over all arrays; 0 where that is 0. The move of an entry
    follows the size of that entry. If the weights of one layer grow by a factor and those of the
    next shrink by it, the network stays the same, and so does the ascent.

    When: as the ascent of `sam`, `adv_optimizer=chain(scale_by_asam(), sgd(rho))`. When not:
    parameters that start at 0 with ε = 0, which never move. Where the norm is not finite, finite
    entries become 0, and the others keep their values.

    Args:
      eps: ε ≥ 0, in units of the parameter; 0.01; 0 for u = θ² g / ‖ |θ| g ‖.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([1.0, 2.0])
    >>> tx = gradtx.scale_by_asam(eps=0.0)
    >>> u, _ = tx.update(jnp.array([3.0, 2.0]), tx.init(w), w)  # T g = [3, 4], of norm 5
    >>> [round(x, 5) for x in u.tolist()]
    [0.6, 1.6]

    See also: `sam`.

    Kwon et al. 2021, arXiv 2102.11600, equation 7 and Algorithm 1, elementwise.
    """
    return leafwise(None, _asam, measure=_measure, conclude=_conclude, needs_params=True)
