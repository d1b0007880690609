"""`descend`: from a direction to a step down; the one home of the arguments that optimizers
share.
"""

import math
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.cautious import cautious_mask
from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, over_axes
from gradtx.compose.select import masked
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import Schedule
from gradtx.definition.types import Hyperparam, NonNegative, Positive
from gradtx.engine.selector import Where
from gradtx.tree.arithmetic import over_norm


def _decay(
    grad: jax.Array, slots: None, param: jax.Array, step: jax.Array, *, weight_decay: jax.Array
) -> Any:
    return grad + weight_decay * param, slots


@definition
def add_decayed_weights(
    weight_decay: Hyperparam = 0.0, mask: Where | None = None
) -> GradientTransformation:
    r"""Add a multiple of the parameters to the updates: u ← u + λ θ.

    After a preconditioner and before the learning rate this is decoupled weight decay (AdamW);
    before the preconditioner it is the gradient of an L2 penalty λ‖θ‖²/2. u and θ have one shape.

    Args:
      weight_decay: λ, per unit of learning rate when decoupled; 1e-4 to 0.1. Behind the learning
        rate, where updates point downhill, it is negative.
      mask: which leaves decay (see `masked`); biases and norms commonly do not. None: all.

    Raises:
      HyperparamError: a number that is not finite.
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([2.0])
    >>> tx = gradtx.add_decayed_weights(0.5)
    >>> tx.update(jnp.array([1.0]), tx.init(w), w)[0].tolist()
    [2.0]

    Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2, line 12.
    """
    decay = leafwise(None, _decay, weight_decay=weight_decay, needs_params=True)
    return decay if mask is None else masked(decay, mask)


def _descend(
    grad: jax.Array,
    slots: None,
    param: None,
    step: jax.Array,
    *,
    learning_rate: jax.Array,
    flip_sign: bool,
) -> Any:
    return (-learning_rate if flip_sign else learning_rate) * grad, slots


def _leave(grad: jax.Array, slots: None, param: None, step: jax.Array) -> Any:
    return grad, slots


@definition
def scale_by_learning_rate(
    learning_rate: Hyperparam | None = None, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiply by minus the learning rate: u ← −η u, a step down.

    Args:
      learning_rate: η, a number, array or schedule; it is never rounded to the gradient's
        dtype. A negative one ascends, as it does in every optimizer. None: the updates stay as they
        are, their sign too.
      flip_sign: False for u ← +η u, to ascend.

    Raises:
      HyperparamError: a number that is not finite.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_learning_rate(0.1)
    >>> tx.update(jnp.array([10.0]), tx.init(jnp.zeros(1)))[0].tolist()
    [-1.0]
    """
    if learning_rate is None:
        return leafwise(None, _leave)
    return leafwise(None, _descend, learning_rate=learning_rate, flip_sign=flip_sign)


DecayForm = Literal[
    "decoupled",
    "l2",
    "independent",
    "corrected",
    "cautious",
    "strict_cautious",
    "proximal",
    "huber",
]


class StepFlags(AxisFlags, total=False):
    """How the step is taken: what every optimizer of the Adam family accepts besides, by keyword.
    None: as Optax does.
    """

    decay_form: DecayForm | None
    peak_learning_rate: NonNegative | None
    huber_delta: Positive | None
    cautious: bool | None


class DecayFlags(StepFlags, total=False):
    """The same, for optimizers that have no weight decay of their own."""

    weight_decay: NonNegative | None
    mask: Where | None


def shrinks(form: str, grad: jax.Array, param: jax.Array) -> jax.Array:
    """The mask of a cautious decay: 1 where θ − η u is nearer to 0 than θ, or not further."""
    product = (grad * param.conj()).real
    agrees = product > 0 if form == "strict_cautious" else product >= 0
    return agrees.astype(product.dtype)


def _huber(
    grad: jax.Array,
    slots: None,
    param: jax.Array,
    step: jax.Array,
    *,
    weight_decay: jax.Array,
    learning_rate: jax.Array,
    huber_delta: jax.Array,
) -> Any:
    moved, share = param - learning_rate * grad, 1 + learning_rate * weight_decay
    size = jnp.abs(moved)
    is_far = size > share * huber_delta
    # δ = ∞ must not meet a product with 0.
    pull = jnp.where(is_far, huber_delta, 0.0) * over_norm(moved, size)
    near = (grad + weight_decay * param) / share
    return jnp.where(is_far, grad + weight_decay * pull, near), slots


def _form(
    grad: jax.Array,
    slots: None,
    param: jax.Array,
    step: jax.Array,
    *,
    weight_decay: jax.Array,
    learning_rate: jax.Array,
    peak_learning_rate: jax.Array,
    decay_form: DecayForm,
) -> Any:
    if decay_form == "proximal":
        return (grad + weight_decay * param) / (1 + learning_rate * weight_decay), slots
    inverse = jnp.where(
        peak_learning_rate > 0, 1 / jnp.where(peak_learning_rate > 0, peak_learning_rate, 1.0), 0.0
    )
    factors = {
        "independent": inverse,
        "corrected": learning_rate * inverse,
    }
    if decay_form not in factors:
        return grad + weight_decay * shrinks(decay_form, grad, param) * param, slots
    return grad + weight_decay * factors[decay_form] * param, slots


def _decay_by_form(
    weight_decay: Any, mask: Where | None, learning_rate: Any, flags: StepFlags
) -> TransformationLike:
    """Weight decay behind a rule and before the learning rate, in one of its forms."""
    form = flags.get("decay_form") or "decoupled"
    if form in ("decoupled", "l2"):
        return add_decayed_weights(weight_decay, mask)
    decay = _decay_rule(form, weight_decay, learning_rate, flags)
    return decay if mask is None else masked(decay, mask)


def _decay_rule(
    form: DecayForm, weight_decay: Any, learning_rate: Any, flags: StepFlags
) -> TransformationLike:
    """The rule of a form of weight decay that is not a plain sum."""
    if form == "huber":
        delta = flags.get("huber_delta")
        return leafwise(
            None,
            _huber,
            weight_decay=weight_decay,
            learning_rate=learning_rate,
            huber_delta=math.inf if delta is None else delta,
            needs_params=True,
        )
    peak = flags.get("peak_learning_rate")
    if (
        peak is None
        and form in ("independent", "corrected")
        and isinstance(learning_rate, Schedule)
    ):
        raise HyperparamError(
            f"decay_form={form!r} divides by the largest learning rate, and {learning_rate!r} "
            f"does not say which that is: "
            "give it as peak_learning_rate=..."
        )
    return leafwise(
        None,
        _form,
        weight_decay=weight_decay,
        learning_rate=learning_rate,
        peak_learning_rate=learning_rate if peak is None else peak,
        decay_form=form,
        needs_params=True,
    )


@definition
def descend(
    rule: TransformationLike,
    learning_rate: Hyperparam,
    weight_decay: NonNegative | None = None,
    mask: Where | None = None,
    *,
    last: TransformationLike | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""A direction, weight decay, and the step down: θ ← θ − η (u + λ θ).

    Every optimizer whose step has this form is `descend` of its rule, and takes the same flags.

    Args:
      rule: gives the direction u.
      learning_rate: η.
      weight_decay: λ ≥ 0; None for no such term.
      mask: which leaves decay; None: all.
      last: what the direction passes through behind the decay, before the learning rate, such as
        LAMB's trust ratio; None: nothing.
      decay_form: how λ acts. "decoupled" (the default): θ ← θ − η λ θ (AdamW). "l2": g ← g + λ θ
        before the rule. "independent": θ ← θ − (η/η_max) λ θ, so that tuning η leaves the decay
        alone. "corrected": θ ← θ − η (η/η_max) λ θ, a decay λ η/η_max that follows the rate, which
        keeps the norms of normalised layers level while η falls. "cautious": as decoupled, only
        where u θ ≥ 0; "strict_cautious": only where u θ > 0. "proximal": θ ← (θ − η u) / (1 + η λ),
        which never overshoots zero however large η λ is. "huber": as proximal where |θ − η u| ≤
        (1 + η λ) δ; beyond that by the constant amount η λ δ towards zero, so that large weights
        may stay large.
      peak_learning_rate: η_max > 0, for "independent" and "corrected"; None: η itself, which must
        then be no schedule.
      huber_delta: δ > 0 of "huber", in parameter units; None: ∞, which is "proximal".
      cautious: pass u through `cautious_mask` before it decays and descends.
      axis_names: the mesh axes that cut the arrays inside `shard_map` and `pmap`; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range; a schedule without its peak; a form of another
        name, or one without weight decay; `huber_delta` beside another form.

    State: that of the rule.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([1.0, -1.0])
    >>> def step(form):
    ...     tx = gradtx.descend(gradtx.identity(), 0.5, weight_decay=1.0, decay_form=form)
    ...     return tx.update(jnp.array([1.0, 1.0]), tx.init(w), w)[0].tolist()
    >>> step("decoupled"), step("independent"), step("cautious")
    ([-1.0, -0.0], [-1.5, 0.5], [-1.0, -0.5])

    Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2, with the schedule multiplier alone on
    the decay for "independent"; Defazio 2025, arXiv 2506.02285, for "corrected"; Chen et al. 2025,
    arXiv 2510.12402, for "cautious"; Xie et al. 2022, arXiv 2208.06677, Algorithm 1, for
    "proximal"; arXiv 2511.14721 (AdamHD) for "huber"."""
    names = flags.pop("axis_names", None)
    if names is not None:  # around all of it: a chain made here would show in paths
        inner = descend(rule, learning_rate, weight_decay, mask, last=last, **flags)
        return over_axes(inner, names)
    form = flags.get("decay_form") or "decoupled"
    delta = flags.get("huber_delta")
    if delta is not None and form != "huber":
        raise HyperparamError(
            f"huber_delta = {delta!r} belongs to decay_form='huber', and the form is {form!r}"
        )
    direction = chain(rule, cautious_mask()) if flags.get("cautious") else rule
    scale = (
        [scale_by_learning_rate(learning_rate)]
        if last is None
        else [last, scale_by_learning_rate(learning_rate)]
    )
    if weight_decay is None:
        if flags.get("decay_form"):
            raise HyperparamError(
                f"decay_form={form!r} says how weight decay acts, and there is none: give "
                f"weight_decay=... too"
            )
        return chain(direction, *scale)
    decay = _decay_by_form(weight_decay, mask, learning_rate, flags)
    members = [decay, direction] if form == "l2" else [direction, decay]
    return chain(*members, *scale)
