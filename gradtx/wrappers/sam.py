"""Sharpness-aware minimisation: the gradient is taken at the worst point nearby."""

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
from gradtx.tree.arithmetic import abs_sq, sum_scalars
from gradtx.tree.casts import float_copy
from gradtx.tree.maps import choose, make_leaves, map_leaves
from gradtx.wrappers.lookahead import check_period


class SAM(NamedTuple):
    """The slots of both optimizers, and the parameters that the ascent began at; None where it is
    not kept.
    """

    cache: Annotated[Any, PRECISE]
    optimizer: Any
    adv_optimizer: Any


def _init(
    params: Any, *, optimizer: GradientTransformation, adv_optimizer: GradientTransformation
) -> SAM:
    return SAM(
        make_leaves(float_copy, params),
        optimizer.init_slots(params),
        adv_optimizer.init_slots(params),
    )


def _update(
    updates: Any,
    slots: SAM,
    params: Any,
    step: Any,
    *,
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
    extra: Any,
) -> Any:
    """One step up, or from the top one step down and back: `step` counts both."""
    done, place = (step - 1) // sync_period, (step - 1) % sync_period
    cache = choose(place == 0, map_leaves(_as_kept, slots.cache, params), slots.cache)

    def ascend() -> Any:
        up = place + 1 if reset_state else step - done
        move, kept = adv_optimizer.update_slots(updates, slots.adv_optimizer, params, up, extra)
        return map_leaves(_minus, move), slots.optimizer, kept

    def descend() -> Any:
        move, kept = optimizer.update_slots(updates, slots.optimizer, cache, done + 1, extra)
        fresh = adv_optimizer.init_slots(params) if reset_state else slots.adv_optimizer
        return map_leaves(_from_cache, move, cache, params), kept, fresh

    updates, kept, fresh = run_if(place == sync_period - 1, descend, ascend)
    return updates, SAM(cache, kept, fresh)


def _as_kept(cache: jax.Array, param: jax.Array) -> jax.Array:
    return param


def _minus(move: jax.Array) -> jax.Array:
    return -move


def _from_cache(move: jax.Array, cache: jax.Array, param: jax.Array) -> jax.Array:
    return cache - param + move


def _inside(
    slots: SAM,
    count: Any,
    *,
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
) -> list[Child]:
    done = count // sync_period
    up = count % sync_period if reset_state else count - done
    return [
        Child(optimizer, slots.optimizer, done),
        Child(adv_optimizer, slots.adv_optimizer, up),
    ]


def _evaluate(
    params: Any, slots: SAM, count: Any, *, optimizer: GradientTransformation, sync_period: int
) -> Any:
    """What the step down has come to: θ, where the ascent began, while one is under way."""
    below = map_leaves(_where_it_began, params, slots.cache, is_down=count % sync_period == 0)
    return optimizer.evaluate_slots(slots.optimizer, below, count // sync_period)


def _where_it_began(param: jax.Array, cache: jax.Array, *, is_down: jax.Array) -> jax.Array:
    return jnp.where(is_down, param, cache)


def _inside_opaque(slots: SAM, count: Any, *, optimizer: GradientTransformation) -> list[Child]:
    return [Child(optimizer, slots.optimizer, count)]


def _init_opaque(
    params: Any,
    *,
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    reset_state: bool,
) -> SAM:
    return SAM(
        None,
        optimizer.init_slots(params),
        None if reset_state else adv_optimizer.init_slots(params),
    )


def _update_opaque(
    updates: Any,
    slots: SAM,
    params: Any,
    step: Any,
    *,
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
    batch_axis_name: str | None,
    grad_fn: Callable[..., Any],
    extra: Any,
) -> Any:
    """All steps up and the step down in one update."""
    kept, place = (
        (adv_optimizer.init_slots(params), 1)
        if reset_state
        else (slots.adv_optimizer, (step - 1) * (sync_period - 1) + 1)
    )
    above, grads = params, updates
    for number in range(sync_period - 1):
        move, kept = adv_optimizer.update_slots(
            grads, kept, above, jnp.asarray(place + number, jnp.int32), extra
        )
        above = map_leaves(_up, above, move)
        grads = grad_fn(above, number)
    if batch_axis_name is not None:
        grads = jax.lax.pmean(grads, batch_axis_name)
    updates, mine = optimizer.update_slots(grads, slots.optimizer, params, step, extra)
    return updates, SAM(None, mine, None if reset_state else kept)


def _up(param: jax.Array, move: jax.Array) -> jax.Array:
    return param - move


@definition
def sam(
    optimizer: TransformationLike,
    adv_optimizer: TransformationLike,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> GradientTransformation:
    r"""Descend by the gradient at the top of a short ascent: flat minima are preferred to sharp
    ones.

    For all arrays together, k = `sync_period`: from θ take k − 1 steps up, θ' ← θ' − a(∇L(θ')) with
    the updates a of `adv_optimizer`, which is written as if to descend; then one step down from θ
    by the gradient at the top, θ ← θ + u(∇L(θ')).

    SAM of the paper is `sam(sgd(eta), chain(normalize(), sgd(rho)))`: θ' = θ + ρ ∇L(θ)/‖∇L(θ)‖.
    With `scale_by_asam` in the place of `normalize` it is the adaptive form.

    Without `opaque_mode` every update is one of these steps: gradients are those of the parameters
    as they are, k − 1 of k updates lead up, and every k-th back and down. So training loops stay as
    they are, and k updates make one step; evaluate after a k-th, or at `eval_params(tx, state,
    params)`, which is θ at any time. The clock of `optimizer` counts its own steps. With
    `opaque_mode` one update does them all, and is given the gradient as a function: `update(grads,
    state, params, grad_fn=...)`, with `grad_fn(params, i)` for the i-th gradient after the first, i
    = 0, 1, ...

    When: generalisation counts more than time; a step costs k gradients. When not: language models
    in one epoch, where it brings little for twice the time.

    Args:
      optimizer: gives the step down.
      adv_optimizer: gives the steps up, with their signs turned.
      sync_period: k ≥ 1, gradients to a step; 2.
      reset_state: start `adv_optimizer` anew for every ascent.
      opaque_mode: whether one update does all k gradients.
      batch_axis_name: in opaque mode, a mapped axis over which the gradient of the step down is
        averaged; the ascent is then that of each device's part of the batch, as in the paper.

    Raises:
      HyperparamError: `sync_period` is no whole number from 1 on; `batch_axis_name` without
        `opaque_mode`.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: in opaque mode, `update` is called without `grad_fn=`.

    State: 4 bytes per parameter (θ where the ascent began), 0 in opaque mode, and that of the
    optimizers.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> slope = jax.grad(lambda w: 0.5 * w**2)
    >>> rho, eta, w = 0.1, 0.5, jnp.array(1.0)
    >>> tx = gradtx.sam(gradtx.sgd(eta), gradtx.chain(gradtx.normalize(), gradtx.sgd(rho)), opaque_mode=True)
    >>> updates, state = tx.update(slope(w), tx.init(w), w, grad_fn=lambda w, i: slope(w))
    >>> round(float(updates), 4)  # −η ∇L(1 + ρ)
    -0.55

    See also: `scale_by_asam`, `normalize`, `lookahead`.

    Foret et al. 2021, arXiv 2010.01412, Algorithm 1; Kwon et al. 2021, arXiv 2102.11600, for the
    adaptive form."""
    check_period("sam", sync_period)
    if batch_axis_name is not None and not opaque_mode:
        raise HyperparamError(
            f"sam: batch_axis_name = {batch_axis_name!r} has no meaning without opaque_mode=True: "
            "average the gradients before update, as for any optimizer"
        )
    if not opaque_mode:
        return treewise(
            _init,
            _update,
            sync_period=sync_period,
            reset_state=reset_state,
            optimizer=optimizer,
            adv_optimizer=adv_optimizer,
            needs_params=True,
            children=_inside,
            evaluate=_evaluate,
        )

    return treewise(
        _init_opaque,
        _update_opaque,
        sync_period=sync_period,
        reset_state=reset_state,
        optimizer=optimizer,
        adv_optimizer=adv_optimizer,
        batch_axis_name=batch_axis_name,
        extra=("grad_fn",),
        needs_params=True,
        children=_inside_opaque,
    )


def _measure(
    grad: jax.Array, slots: None, param: jax.Array, step: jax.Array, *, eps: jax.Array
) -> Square:
    return Square(jnp.sum(abs_sq((jnp.abs(param) + eps) * grad)))


def _conclude(found: Any, shared: None, step: jax.Array) -> Any:
    norm = jnp.sqrt(sum_scalars(found.square))
    usable = (norm > 0) & jnp.isfinite(norm)
    return {"factor": jnp.where(usable, 1 / jnp.where(usable, norm, 1.0), 0.0)}, None


def _adapt(
    grad: jax.Array,
    slots: None,
    param: jax.Array,
    step: jax.Array,
    *,
    eps: jax.Array,
    factor: jax.Array,
) -> Any:
    return (jnp.abs(param) + eps) ** 2 * grad * factor, slots


@definition
def scale_by_asam(eps: NonNegative = 0.01) -> GradientTransformation:
    r"""The ascent of adaptive SAM: u = T² g / ‖T g‖, T = |θ| + ε, ‖T g‖ over all arrays; 0 where
    that is 0.

    The size of an entry's move follows the entry's own size, so that scaling the weights of one
    layer up and those of the next down, which leaves the network as it is, leaves the ascent as it
    is too.

    When: as the ascent of `sam`, `adv_optimizer=chain(scale_by_asam(), sgd(rho))`. When not:
    parameters that start at 0 and ε = 0: they are never moved. When the norm is not finite, finite
    entries become 0, and the others stay where they are.

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
    return leafwise(None, _adapt, eps=eps, measure=_measure, conclude=_conclude, needs_params=True)
