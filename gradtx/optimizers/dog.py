r"""DoG: the learning rate is the distance travelled over the root of the sum of squared gradients.

    r ← max(r, ‖θ − θ0‖)
    G ← G + ‖g‖²
    θ ← θ − η r / √(G + ε) g

Norms run over all arrays. `scale_by_distance_over_gradients` does the same for every array on its
own (layer-wise DoG)."""

from typing import Literal, NamedTuple, Unpack, get_args

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import DTypeLike, Hyperparam, NonNegative, Precise
from gradtx.engine.selector import Where
from gradtx.transforms.distances import (
    descend_with_penalty,
    finite_square,
    init_start,
    measure_distance,
    rate_of,
    scale_by_rate,
)
from gradtx.tree.arithmetic import abs_sq, sqrt, sum_scalars, where_finite
from gradtx.tree.casts import float_copy, widest

FirstStep = Literal["distance", "learning_rate", "heuristic"]


class Travel(NamedTuple):
    """The largest distance from the first parameters, and the sum of squared gradients."""

    max_dist: jax.Array
    sum_sq_norm_grads: jax.Array


def _init_travel() -> Travel:
    return Travel(jnp.zeros(()), jnp.zeros(()))


def _conclude(measures, tree_slots: Travel, step, *, eps, first_value, first_step: FirstStep):
    start = {
        "distance": first_value,
        "learning_rate": 0.0,
        "heuristic": first_value * (1 + sqrt(sum_scalars(measures.start))),
    }[first_step]
    old, total = tree_slots
    way = sqrt(sum_scalars(measures.way))
    far = jnp.maximum(jnp.where(step == 1, start, old), where_finite(way, old))
    # A norm that overflows makes a step of zero, and is not added: the sum would stay infinite.
    square = total + sum_scalars(measures.grad)
    rate = rate_of(far, sqrt(square + eps))
    if first_step == "learning_rate":
        rate = jnp.where(step == 1, first_value, rate)
    return {"rate": rate}, Travel(far, where_finite(square, total))


@definition
def dog(
    learning_rate: Hyperparam = 1.0,
    init_step: tuple[FirstStep, float] = ("heuristic", 1e-6),
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative | None = None,
    mask: Where | None = None,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""DoG (Distance over Gradients): SGD without a learning rate to tune.

    Its learning rate is the distance travelled over the root of the sum of squared gradients.

    For arrays of any shapes, with norms over all of them: r ← max(r, ‖θ − θ0‖), G ← G + ‖g‖²,
    θ ← θ − η r / √(G + ε) g.

    When: SGD suits the problem and its learning rate is unknown; the paper averages the iterates
    for evaluation. When not: arrays differ much in scale; take
    `scale_by_distance_over_gradients`, or `prodigy`.

    Entries that are not finite do not count in the norms; a norm that overflows makes a step of
    zero.

    Args:
      learning_rate: η, a factor without unit; 1, or a schedule.
      init_step: the first step: ("distance", r) for r before it, in parameter units; ("heuristic",
        c) for r = c (1 + ‖θ0‖); ("learning_rate", a) for a first step of a g, after which r is its
        length. Static. 1e-6 to 1e-4 of the expected distance.
      eps: ε ≥ 0, under the root; 1e-8.
      weight_decay: λ ≥ 0, an L2 penalty: g ← g + λ θ before all this; None for no such term.
      mask: which leaves decay (see `masked`); None: all.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range, or an `init_step` of another form.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (θ0), and two scalars.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.dog()
    >>> w = jnp.array([3.0, -1.0])
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(200):  # half the squared distance to 0, which is unknown
    ...     updates, state = step(w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool(jnp.linalg.norm(w) < 0.1), bool(1.0 < state.slots["scale_by_dog"]["max_dist"] < 6.4)
    (True, True)

    See also: `dowg`, `scale_by_distance_over_gradients`.

    Ivgi, Hinder and Carmon 2023, arXiv 2302.12022, equation DoG.
    """
    form, value = _check_first_step(init_step)
    rule = leafwise(
        init_start,
        scale_by_rate,
        measure=measure_distance,
        conclude=_conclude,
        init_tree_slots=_init_travel,
        needs_params=True,
        first_value=value,
        first_step=form,
    )
    return apply_axis_flags(
        descend_with_penalty(chain(scale_by_dog=rule), learning_rate, weight_decay, mask), flags
    )


def _check_first_step(init_step: tuple[FirstStep, float]) -> tuple[FirstStep, float]:
    forms = get_args(FirstStep)
    if not isinstance(init_step, tuple | list) or len(init_step) != 2 or init_step[0] not in forms:
        known = ", ".join(map(repr, forms))
        raise HyperparamError(
            f"dog: init_step = {init_step!r} is not a pair of a form and a number; "
            f"the forms are {known}"
        )
    return init_step[0], init_step[1]


class LayerTravel(NamedTuple):
    """Of one array: its largest distance, the sum of its squared gradients, its first value."""

    max_dist: jax.Array
    grad_sum_of_squares: jax.Array
    init_params: Precise


def _init(param, *, reps_rel, param_dtype: DTypeLike) -> LayerTravel:
    start = float_copy(param)
    # A copy narrower than the parameter would show its own rounding as a distance.
    start = start.astype(widest(param_dtype, start.dtype))
    far = jnp.asarray(reps_rel, start.real.dtype) * (1 + sqrt(jnp.sum(abs_sq(start))))
    return LayerTravel(far, jnp.zeros_like(far), start)


def _layerwise_dog(grad, slots: LayerTravel, param, step, *, eps, global_scale):
    old, total, start = slots
    way = sqrt(finite_square(param - start))
    far = jnp.maximum(old, where_finite(way, old))
    square = total + finite_square(grad)
    rate = global_scale * rate_of(far, sqrt(square + eps))
    # A sum that overflows makes a step of zero, and is not stored: it would stay infinite.
    return rate * grad, LayerTravel(far, where_finite(square, total), start)


@definition
def scale_by_distance_over_gradients(
    reps_rel: NonNegative = 1e-6,
    eps: NonNegative = 1e-8,
    param_dtype: DTypeLike = jnp.float32,
    global_scale: Hyperparam = 1.0,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    """Layer-wise DoG (L-DoG): Distance over Gradients, array by array.

    u = c r / √(G + ε) g, with r = max ‖θ − θ0‖ and G = Σ ‖g‖² of each array on its own.

    Args:
      reps_rel: ρ ≥ 0: r begins as ρ (1 + ‖θ0‖); 1e-8 to 1e-4.
      eps: ε ≥ 0, under the root.
      param_dtype: dtype of θ0, unless that of the parameter, or float32, is wider: a copy narrower
        than the parameter would show its own rounding as a distance.
      global_scale: c, a factor of all updates.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (θ0), and two scalars for each array.

    >>> import gradtx, jax.numpy as jnp
    >>> w = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.0])}
    >>> tx = gradtx.scale_by_distance_over_gradients(reps_rel=0.5)
    >>> g = {"a": jnp.array([0.0, 9.0]), "b": jnp.array([0.1])}
    >>> u, _ = tx.update(g, tx.init(w), w)
    >>> [round(x.item(), 4) for x in (u["a"][1], u["b"][0])]  # r is 0.5 (1 + 5), and 0.5
    [3.0, 0.5]

    Ivgi, Hinder and Carmon 2023, arXiv 2302.12022, layer-wise DoG (L-DoG).
    """
    return apply_axis_flags(leafwise(_init, _layerwise_dog, needs_params=True), flags)
