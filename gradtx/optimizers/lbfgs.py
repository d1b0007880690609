r"""L-BFGS: Newton's method with an inverse Hessian from the last m steps.

s_i = θ_{i+1} − θ_i,   y_i = g_{i+1} − g_i,   ρ_i = 1 / ⟨s_i, y_i⟩
q = g;   newest to oldest:  α_i = ρ_i ⟨s_i, q⟩;   q ← q − α_i y_i
q ← γ q,   γ = ⟨s, y⟩ / ⟨y, y⟩ of the newest
oldest to newest:  q ← q + s_i (α_i − ρ_i ⟨y_i, q⟩)
θ ← θ − η q,   η by a line search
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import scale_by_learning_rate
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.types import NonNegative, Precise
from gradtx.linesearch.line import check_count
from gradtx.linesearch.zoom import scale_by_zoom_linesearch
from gradtx.transforms.scaling import identity, scale
from gradtx.tree.arithmetic import dot, sum_promoted
from gradtx.tree.casts import float_copy, zeros, zeros_stacked
from gradtx.tree.kernels import map_arrays
from gradtx.tree.maps import make_leaves, map_leaves
from gradtx.tree.vectors import inner, scalar_dtype, vector

ZOOM = scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")


class Memory(NamedTuple):
    """The parameters and gradients of the last step, and the changes of both over the last m steps,
    in a ring.
    """

    params: Precise
    updates: Any
    diff_params_memory: Any
    diff_updates_memory: Any
    weights_memory: jax.Array
    """1 / ⟨s, y⟩ of every pair; 0 where that is not defined, or where there is no pair yet."""
    position: jax.Array
    """Where the newest pair will be stored, counted from 1; 0 before the first step."""


def _init(params: Any, *, memory_size: int) -> Memory:
    stacked = functools.partial(
        make_leaves, functools.partial(zeros_stacked, count=memory_size), params
    )
    weights = jnp.zeros((memory_size,), scalar_dtype(params))
    return Memory(
        make_leaves(zeros, params),
        make_leaves(zeros, params),
        stacked(),
        stacked(),
        weights,
        jnp.zeros((), jnp.int32),
    )


def _update(
    updates: Any,
    slots: Memory,
    params: Any,
    step: Any,
    *,
    memory_size: int,
    scale_init_precond: bool,
) -> tuple[Any, Memory]:
    slots, newest, scale = _remember(updates, slots, params, memory_size)
    direction = _two_loops(
        make_leaves(float_copy, updates), slots, newest, scale if scale_init_precond else None
    )
    return map_leaves(_second, updates, direction), slots


def _remember(
    updates: Any, slots: Memory, params: Any, memory_size: int
) -> tuple[Memory, jax.Array, jax.Array]:
    """The memory with the newest pair, where that stands, and the scale γ of the inverse Hessian
    before all pairs.
    """
    started, newest = slots.position > 0, (slots.position - 1) % memory_size
    s = map_leaves(_change, updates, params, slots.params, like=2, started=started)
    y = map_leaves(_change, updates, updates, slots.updates, like=2, started=started)
    curvature, square = (
        inner(vector(updates, left).arrays, vector(updates, y).arrays) for left in (s, y)
    )
    defined = curvature != 0
    weight = jnp.where(defined, 1 / jnp.where(defined, curvature, 1.0), 0.0)
    gradient = vector(updates, updates).arrays
    first = 1 / jnp.maximum(jnp.sqrt(inner(gradient, gradient)), 1.0)
    kept = Memory(
        map_leaves(_last, updates, slots.params, params, like=1),
        map_leaves(_last, updates, slots.updates, updates, like=1),
        map_leaves(_store, updates, slots.diff_params_memory, s, like=1, index=newest),
        map_leaves(_store, updates, slots.diff_updates_memory, y, like=1, index=newest),
        slots.weights_memory.at[newest].set(weight.astype(slots.weights_memory.dtype)),
        slots.position % memory_size + 1,
    )
    later = jnp.where(defined, curvature / jnp.where(defined, square, 1.0), 1.0)
    return kept, newest, jnp.where(started, later, first)


@jax.jit
def _two_loops(direction: Any, kept: Memory, newest: jax.Array, scale: jax.Array | None) -> Any:
    """The inverse Hessian times a gradient."""
    weights, s, y = kept.weights_memory, kept.diff_params_memory, kept.diff_updates_memory
    size = weights.shape[0]

    def from_newest(age: Any, carry: Any) -> Any:
        q, alphas = carry
        index = (newest - age) % size
        alpha = weights[index] * _inner_at(s, q, index).astype(weights.dtype)
        return map_leaves(_subtract, q, y, index=index, factor=alpha), alphas.at[index].set(alpha)

    def from_oldest(age: Any, q: Any) -> Any:
        index = (newest + 1 + age) % size
        beta = weights[index] * _inner_at(y, q, index).astype(weights.dtype)
        return map_leaves(_subtract, q, s, index=index, factor=beta - alphas[index])

    direction, alphas = jax.lax.fori_loop(
        0, size, from_newest, (direction, jnp.zeros_like(weights))
    )
    direction = direction if scale is None else map_leaves(_scale, direction, factor=scale)
    return jax.lax.fori_loop(0, size, from_oldest, direction)


def _inner_at(memory: Any, tree: Any, index: jax.Array) -> jax.Array:
    """The inner product with one of the stacked trees."""
    arrays = vector(tree, tree).arrays
    return sum_promoted(
        map_arrays(_dot_at, vector(tree, memory).arrays, arrays, [index] * len(arrays))
        if arrays
        else []
    )


def _dot_at(memory: jax.Array, array: jax.Array, index: jax.Array) -> jax.Array:
    return dot(memory[index], array)


def _change(update: jax.Array, new: jax.Array, old: jax.Array, *, started: jax.Array) -> jax.Array:
    return jnp.where(started, new - old, 0.0)


def _last(update: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    return new


def _second(update: jax.Array, direction: jax.Array) -> jax.Array:
    return direction


def _store(update: jax.Array, memory: jax.Array, new: jax.Array, *, index: jax.Array) -> jax.Array:
    return memory.at[index].set(new)


def _subtract(
    direction: jax.Array, memory: jax.Array, *, index: jax.Array, factor: jax.Array
) -> jax.Array:
    return direction - factor * memory[index]


def _scale(direction: jax.Array, *, factor: jax.Array) -> jax.Array:
    return factor * direction


@definition
def scale_by_lbfgs(
    memory_size: int = 10, scale_init_precond: bool = True
) -> GradientTransformation:
    r"""The direction of L-BFGS: the gradient times an inverse Hessian made of the last m steps.

    With s the change of the parameters over a step and y that of the gradients, all arrays together
    as one vector: the matrix that maps every y of the memory on its s as BFGS would, applied by two
    loops over the pairs, from γ times the identity.

    When: before a line search with a curvature condition, which keeps ⟨s, y⟩ positive. When not:
    gradients of batches, whose differences are noise.

    Args:
      memory_size: m ≥ 1, how many steps are remembered; 5 to 20.
      scale_init_precond: γ = ⟨s, y⟩ / ⟨y, y⟩ of the newest pair, and at the first step min(1, 1 /
        ‖g‖); False: 1.

    Raises:
      HyperparamError: a memory of no step.
      MissingParamsError: `update` is called without parameters.

    State: 8 + 8 m bytes per parameter (88 at m = 10), and m + 1 numbers.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_lbfgs()
    >>> hessian, w = jnp.array([1.0, 10.0]), jnp.array([1.0, 1.0])
    >>> state = tx.init(w)
    >>> for step in ([0.2, 0.0], [0.0, 0.3]):
    ...     _, state = tx.update(hessian * w, state, w)
    ...     w = w - jnp.array(step)
    >>> direction, _ = tx.update(hessian * w, state, w)
    >>> jnp.allclose(direction, w).item()  # two steps span the plane: Newton's direction, to the minimum at 0
    True

    See also: `lbfgs`.

    Nocedal and Wright, Numerical Optimization, 2nd edition 2006, Algorithm 7.4, and equation 7.20
    for γ."""
    check_count("scale_by_lbfgs", "memory_size", memory_size, least=1)
    return treewise(
        _init,
        _update,
        memory_size=memory_size,
        scale_init_precond=scale_init_precond,
        needs_params=True,
    )


@definition
def lbfgs(
    learning_rate: NonNegative | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: TransformationLike | None = ZOOM,
) -> GradientTransformation:
    r"""Newton's method with a Hessian learned from the last m gradients, and a line search for the
    length of each step.

    θ ← θ − α η H g: g is the gradient of all arrays as one vector, H the inverse Hessian of
    `scale_by_lbfgs`, α the step size of the line search, which mostly takes 1.

    When: a deterministic, smooth loss, such as logistic regression, physics-informed networks, fits
    of curves; tens of steps then do what first-order methods do in thousands. When not: the loss is
    taken of another batch at each step.

    `update` takes the loss too: `value`, its gradient `grad`, and `value_fn`, the loss as a
    function of the parameters; `make_step` passes them, and `value_and_grad_from_state` spares the
    evaluation that the line search has done already. For complex parameters `jax.grad` gives the
    conjugate of the steepest ascent: pass its conjugate, as gradients and as `grad`.

    Args:
      learning_rate: η ≥ 0, before the line search; None: 1.
      memory_size: m ≥ 1, how many steps are remembered; 5 to 20.
      scale_init_precond: start each time from γ times the identity, as `scale_by_lbfgs` explains.
      linesearch: what chooses α, last in the chain; None: none, so that α is 1.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError, MissingExtraError: `update` is called without parameters, or without the
        loss.

    State: 92 bytes per parameter at m = 10: 8 m + 8, and 4 for the gradient that the line search
    found.

    >>> import gradtx, jax.numpy as jnp
    >>> rosenbrock = lambda w: (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2
    >>> tx, w = gradtx.lbfgs(), jnp.array([-1.0, 1.0])
    >>> step, state = gradtx.make_step(rosenbrock, tx), tx.init(w)
    >>> for _ in range(40):
    ...     w, state, value = step(w, state)
    >>> w.round(3).tolist()
    [1.0, 1.0]

    See also: `scale_by_lbfgs`, `scale_by_zoom_linesearch`, `value_and_grad_from_state`.

    Liu and Nocedal 1989, Mathematical Programming 45; Nocedal and Wright, Numerical Optimization,
    2nd edition 2006, Algorithm 7.5."""
    down = scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate)
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        down,
        identity() if linesearch is None else linesearch,
    )
