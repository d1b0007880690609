r"""DoG: the learning rate is the distance travelled over the root of the sum of squared gradients.

    r ← max(r, ‖θ − θ0‖)
    G ← G + ‖g‖²
    θ ← θ − η r / √(G + ε) g

Norms run over all arrays. `scale_by_distance_over_gradients` is the same for every array by itself
(layer-wise DoG)."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from gradtx.compose.descend import descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import DTypeLike, Hyperparam, NonNegative, Precise
from gradtx.engine.selector import Where
from gradtx.tree.arithmetic import abs_sq, finite, sum_scalars, where_finite
from gradtx.tree.casts import float_copy

FirstStep = Literal["distance", "learning_rate", "heuristic"]


class Start(NamedTuple):
    """The first parameters."""

    init_params: Precise


class Travelled(NamedTuple):
    """The largest distance from the first parameters, and the sum of squared gradients."""

    max_dist: jax.Array
    sum_sq_norm_grads: jax.Array


class Squares(NamedTuple):
    """Squared norms of one array: of its gradient, of its way from the first parameters, and of
    these.
    """

    grad: jax.Array
    way: jax.Array
    start: jax.Array


def init_start(param: jax.Array) -> Start:
    return Start(float_copy(param))


def finite_square(array: jax.Array) -> jax.Array:
    """The squared norm of the finite entries: one bad entry keeps to itself."""
    return jnp.sum(abs_sq(finite(array)))


def measure_way(grad: jax.Array, slots: Start, param: jax.Array, step: jax.Array) -> Squares:
    return Squares(
        finite_square(grad),
        finite_square(param - slots.init_params),
        finite_square(slots.init_params),
    )


def ratio(numerator: jax.Array, divisor: jax.Array) -> jax.Array:
    """A rate, 0 where it would divide by zero: there is no gradient then."""
    return jnp.where(divisor > 0, numerator / jnp.where(divisor > 0, divisor, 1.0), 0.0)


def _init_shared() -> Travelled:
    return Travelled(jnp.zeros(()), jnp.zeros(()))


def _conclude(
    found: Any,
    shared: Travelled,
    step: jax.Array,
    *,
    eps: jax.Array,
    first_value: jax.Array,
    first_step: FirstStep,
) -> tuple[dict[str, Any], Travelled]:
    start = {
        "distance": 1.0,
        "learning_rate": 0.0,
        "heuristic": 1 + jnp.sqrt(sum_scalars(found.start)),
    }[first_step] * first_value
    far = jnp.maximum(
        jnp.where(step == 1, start, shared.max_dist),
        where_finite(jnp.sqrt(sum_scalars(found.way)), shared.max_dist),
    )
    square = sum_scalars(found.grad)
    # A norm that overflows makes a step of zero, and is not added: the sum would stay infinite.
    rate = ratio(far, jnp.sqrt(shared.sum_sq_norm_grads + square + eps))
    if first_step == "learning_rate":
        rate = jnp.where(step == 1, first_value, rate)
    return {"rate": rate}, Travelled(
        far, where_finite(shared.sum_sq_norm_grads + square, shared.sum_sq_norm_grads)
    )


def scale_by_rate(
    grad: jax.Array, slots: Start, param: jax.Array, step: jax.Array, *, rate: jax.Array
) -> Any:
    return rate * grad, slots


@definition
def dog(
    learning_rate: NonNegative = 1.0,
    init_step: tuple[FirstStep, float] = ("heuristic", 1e-6),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative | None = None,
    mask: Where | None = None,
) -> GradientTransformation:
    r"""SGD whose learning rate is how far it came, over the root of the sum of squared gradients.

    For arrays of any shapes, with norms over all of them: r ← max(r, ‖θ − θ0‖), G ← G + ‖g‖²,
    θ ← θ − η r / √(G + ε) g.

    When: SGD suits the problem and its learning rate is unknown; the paper averages the iterates
    for evaluation. When not: arrays differ in scale by far; take
    `scale_by_distance_over_gradients`, or `prodigy`.

    Entries that are not finite do not count in the norms; a norm that overflows makes a step of
    zero.

    Args:
      learning_rate: η ≥ 0, a factor without unit; 1, or a schedule.
      init_step: the first step: ("distance", r) for r before it, in parameter units; ("heuristic",
        c) for r = c (1 + ‖θ0‖); ("learning_rate", a) for a first step of a g, after which r is its
        length. Static. 1e-6 to 1e-4 of what is expected.
      eps: ε ≥ 0, under the root; 1e-8.
      weight_decay: λ ≥ 0, an L2 penalty: g ← g + λ θ before all this; None for no such term.
      mask: which leaves decay (see `masked`); None: all.

    Raises:
      HyperparamError: a number out of its range, or an `init_step` of another form.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (θ0), and two scalars.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.dog()
    >>> w = jnp.array([3.0, -1.0])
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(200):  # half the squared distance to 0; nobody says how far that is
    ...     updates, state = step(w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool(jnp.linalg.norm(w) < 0.1), bool(1.0 < state.slots["scale_by_dog"]["max_dist"] < 6.4)
    (True, True)

    See also: `dowg`, `scale_by_distance_over_gradients`.

    Ivgi, Hinder and Carmon 2023, arXiv 2302.12022, equation DoG.
    """
    form, value = checked_first_step(init_step)
    rule = leafwise(
        init_start,
        scale_by_rate,
        eps=eps,
        first_value=value,
        first_step=form,
        measure=measure_way,
        conclude=_conclude,
        init_tree_slots=_init_shared,
        needs_params=True,
    )
    return descend_with_penalty(rule, learning_rate, weight_decay, mask)


def checked_first_step(init_step: Any) -> tuple[FirstStep, float]:
    forms = get_args(FirstStep)
    if not isinstance(init_step, tuple | list) or len(init_step) != 2 or init_step[0] not in forms:
        known = ", ".join(map(repr, forms))
        raise HyperparamError(
            f"dog: init_step = {init_step!r} is no pair of a form and a number; the forms are {known}"
        )
    return init_step[0], init_step[1]


def descend_with_penalty(
    rule: GradientTransformation,
    learning_rate: NonNegative,
    weight_decay: NonNegative | None,
    mask: Where | None,
) -> GradientTransformation:
    """θ ← θ − η u, with weight decay, if any, as an L2 penalty that the rule sees."""
    return (
        descend(rule, learning_rate)
        if weight_decay is None
        else descend(rule, learning_rate, weight_decay, mask, decay_form="l2")
    )


class LayerTravelled(NamedTuple):
    """What one array keeps for itself: its largest distance, the sum of its squared gradients, its
    first value.
    """

    max_dist: jax.Array
    grad_sum_of_squares: jax.Array
    init_params: Precise


def _init_layer(param: jax.Array, *, reps_rel: jax.Array, param_dtype: DTypeLike) -> LayerTravelled:
    start = float_copy(param)
    start = start.astype(jnp.promote_types(param_dtype, start.dtype))
    far = jnp.asarray(reps_rel, start.real.dtype) * (1 + jnp.sqrt(jnp.sum(abs_sq(start))))
    return LayerTravelled(far, jnp.zeros_like(far), start)


def _update_layer(
    grad: jax.Array,
    slots: LayerTravelled,
    param: jax.Array,
    step: jax.Array,
    *,
    eps: jax.Array,
    global_scale: jax.Array,
) -> Any:
    way = jnp.sqrt(finite_square(param - slots.init_params))
    far = jnp.maximum(slots.max_dist, where_finite(way, slots.max_dist))
    squares = slots.grad_sum_of_squares + finite_square(grad)
    rate = global_scale * ratio(far, jnp.sqrt(squares + eps))
    return rate * grad, LayerTravelled(
        far, where_finite(squares, slots.grad_sum_of_squares), slots.init_params
    )


@definition
def scale_by_distance_over_gradients(
    reps_rel: NonNegative = 1e-6,
    eps: NonNegative = 1e-8,
    param_dtype: DTypeLike = jnp.float32,
    global_scale: Hyperparam = 1.0,
) -> GradientTransformation:
    """Layer-wise DoG: u = c r / √(G + ε) g, with r = max ‖θ − θ0‖ and G = Σ ‖g‖² of each array by
    itself.

    Args:
      reps_rel: ρ ≥ 0: r begins as ρ (1 + ‖θ0‖); 1e-8 to 1e-4.
      eps: ε ≥ 0, under the root.
      param_dtype: dtype of θ0, unless that of the parameter, or float32, is wider: a copy narrower
        than the parameter would show its own rounding as a distance.
      global_scale: c, a factor of all updates.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (θ0), and two scalars for each array.

    >>> import gradtx, jax.numpy as jnp
    >>> w = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.0])}
    >>> tx = gradtx.scale_by_distance_over_gradients(reps_rel=0.5)
    >>> u, _ = tx.update({"a": jnp.array([0.0, 9.0]), "b": jnp.array([0.1])}, tx.init(w), w)  # r is 0.5 (1 + 5), and 0.5
    >>> [round(x.item(), 4) for x in (u["a"][1], u["b"][0])]
    [3.0, 0.5]

    Ivgi, Hinder and Carmon 2023, arXiv 2302.12022, layer-wise DoG (L-DoG).
    """
    return leafwise(
        _init_layer,
        _update_layer,
        reps_rel=reps_rel,
        eps=eps,
        global_scale=global_scale,
        param_dtype=param_dtype,
        needs_params=True,
    )
