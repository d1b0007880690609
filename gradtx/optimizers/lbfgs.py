r"""L-BFGS: Newton's method with an inverse Hessian from the last m steps.

s_i = θ_{i+1} − θ_i,   y_i = g_{i+1} − g_i,   ρ_i = 1 / ⟨s_i, y_i⟩
q = g;   newest to oldest:  α_i = ρ_i ⟨s_i, q⟩;   q ← q − α_i y_i
q ← γ q,   γ = ⟨s, y⟩ / ⟨y, y⟩ of the newest
oldest to newest:  q ← q + s_i (α_i − ρ_i ⟨y_i, q⟩)
θ ← θ − η q,   η by a line search
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import scale_by_learning_rate
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.types import Hyperparam, Params, Precise, Updates
from gradtx.linesearch.line import check_count
from gradtx.linesearch.zoom import scale_by_zoom_linesearch
from gradtx.transforms.scaling import identity, scale
from gradtx.tree.arithmetic import dot, finite, sqrt, sum_promoted
from gradtx.tree.casts import float_copy, zeros, zeros_stacked
from gradtx.tree.kernels import map_arrays
from gradtx.tree.maps import make_leaves, map_leaves
from gradtx.tree.placement import run_auto_if
from gradtx.tree.vectors import multiply_back, scalar_dtype, scaled_inner, size_of, vector

ZOOM = scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")


class Memory(NamedTuple):
    """Parameters and gradients of the last step, and their changes over the last m steps.

    The changes are in a ring: the newest pair replaces the oldest.
    """

    params: Precise
    updates: Updates
    diff_params_memory: Updates
    diff_updates_memory: Updates
    weights_memory: jax.Array
    """1 / ⟨s, y⟩ of every pair; 0 where it is undefined, and where there is no pair yet."""
    position: jax.Array
    """The place of the next pair in the ring, counted from 1; 0 before the first step."""


def _init(params, *, memory_size: int) -> Memory:
    stack = functools.partial(zeros_stacked, count=memory_size)
    return Memory(
        make_leaves(zeros, params),
        make_leaves(zeros, params),
        make_leaves(stack, params),
        make_leaves(stack, params),
        jnp.zeros((memory_size,), scalar_dtype(params)),
        jnp.zeros((), jnp.int32),
    )


def _lbfgs(updates, slots: Memory, params, step, *, memory_size: int, scale_init_precond: bool):
    slots, newest, scale = _remember(updates, slots, params, memory_size)
    # The loops run in the compute dtype: bfloat16 would round 2 m times.
    gradient = make_leaves(float_copy, updates)
    # The loops are linear: with a gradient of size 1 no inner product with a stored pair overflows.
    size = size_of(vector(gradient, gradient).arrays)
    gradient = map_leaves(_divide, gradient, size=size)  # 1 / size may be a denormal number, so 0
    direction = _two_loops(gradient, slots, newest, scale if scale_init_precond else None)
    direction = map_leaves(_scale, direction, factor=size)
    return map_leaves(_last, updates, direction), slots


def _remember(
    updates: Updates, slots: Memory, params: Params, memory_size: int
) -> tuple[Memory, jax.Array, jax.Array]:
    """Store the newest pair.

    Returns the memory, the index of the newest pair, and γ, the scale of the inverse Hessian before
    all pairs.
    """
    started, newest = slots.position > 0, (slots.position - 1) % memory_size
    s = map_leaves(_change, updates, params, slots.params, like=2, started=started)
    y = map_leaves(_change, updates, updates, slots.updates, like=2, started=started)
    s_list, y_list, gradient = (vector(updates, tree).arrays for tree in (s, y, updates))
    # Squares of gradients may overflow where gradients do not: γ = ⟨s, y/k⟩ / ⟨y/k, y/k⟩ / k.
    sizes = [size_of(arrays) for arrays in (s_list, y_list)]
    product, square = (
        scaled_inner(s_list, y_list, sizes),
        scaled_inner(y_list, y_list, sizes[1:] * 2),
    )
    curvature = multiply_back(product, sizes)
    # A pair with ⟨s, y⟩ = 0 has no ρ; with a weight of 0 the two loops skip it.
    defined = curvature != 0
    weight = jnp.where(defined, 1 / jnp.where(defined, curvature, 1.0), 0.0)
    memory = Memory(
        map_leaves(_last, updates, slots.params, params, like=1),
        map_leaves(_last, updates, slots.updates, updates, like=1),
        map_leaves(_store, updates, slots.diff_params_memory, s, like=1, index=newest),
        map_leaves(_store, updates, slots.diff_updates_memory, y, like=1, index=newest),
        slots.weights_memory.at[newest].set(weight.astype(slots.weights_memory.dtype)),
        slots.position % memory_size + 1,
    )
    # No pair yet: a first step of length 1 at most.
    size = size_of(gradient)
    length = size * sqrt(scaled_inner(gradient, gradient, (size, size)))
    first = 1 / jnp.maximum(length, 1.0)
    ratio = product / jnp.where(defined, square, 1.0)
    later = jnp.where(defined, ratio * (sizes[0] / sizes[1]), 1.0)
    return memory, newest, jnp.where(started, later, first)


# Jitted, because outside of jit the two loops would be compiled again at every step.
@jax.jit
def _two_loops(
    direction: Updates, memory: Memory, newest: jax.Array, scale: jax.Array | None
) -> Updates:
    """The inverse Hessian times a gradient."""
    weights, s, y = memory.weights_memory, memory.diff_params_memory, memory.diff_updates_memory
    size = weights.shape[0]

    def from_newest(age, carry):
        q, alphas = carry
        index = (newest - age) % size
        # An inner product that overflows skips its pair.
        alpha = finite(weights[index] * _inner_at(s, q, index).astype(weights.dtype))
        return map_leaves(_subtract, q, y, index=index, factor=alpha), alphas.at[index].set(alpha)

    def from_oldest(age, q):
        index = (newest + 1 + age) % size
        beta = finite(weights[index] * _inner_at(y, q, index).astype(weights.dtype))
        return map_leaves(_subtract, q, s, index=index, factor=beta - alphas[index])

    direction, alphas = jax.lax.fori_loop(
        0, size, from_newest, (direction, jnp.zeros_like(weights))
    )
    if scale is not None:
        direction = map_leaves(_scale, direction, factor=scale)
    return jax.lax.fori_loop(0, size, from_oldest, direction)


def _inner_at(memory: Updates, tree: Updates, index: jax.Array) -> jax.Array:
    """The inner product of a tree with one of the stacked trees."""
    arrays = vector(tree, tree).arrays
    if not arrays:
        return sum_promoted([])
    return sum_promoted(
        map_arrays(_dot_at, vector(tree, memory).arrays, arrays, [index] * len(arrays))
    )


# Functions of one array, for `map_leaves` and `map_arrays`: at module level, so that steps share
# their kernels.
def _dot_at(memory, array, index):
    return run_auto_if(_dot_of_row, 0, array, memory, index)


def _dot_of_row(array, memory, index):
    return dot(memory[index], array)


def _change(update, new, old, *, started):
    # A difference that overflows tells nothing of the curvature, and would stay for m steps.
    return jnp.where(started, finite(new - old), 0.0)


def _divide(array, *, size):
    return array / size


def _last(*arrays):
    return arrays[-1]


def _store(update, memory, new, *, index):
    return run_auto_if(_put, memory, new, memory, index)


def _put(new, memory, index):
    return memory.at[index].set(new)


def _subtract(direction, memory, *, index, factor):
    return run_auto_if(_minus_row, direction, direction, memory, index, factor)


def _minus_row(direction, memory, index, factor):
    return direction - factor * memory[index]


def _scale(direction, *, factor):
    return factor * direction


@definition
def scale_by_lbfgs(
    memory_size: int = 10, scale_init_precond: bool = True
) -> GradientTransformation:
    r"""L-BFGS direction: the gradient times an inverse Hessian from the last m steps.

    s is the change of the parameters over a step and y that of the gradients, all arrays together
    as one vector. Two loops over the pairs apply the inverse Hessian of BFGS, which starts from γ
    times the identity.

    When: before a line search with a curvature condition, which keeps ⟨s, y⟩ positive. When not:
    gradients of batches, whose differences are noise.

    Args:
      memory_size: m ≥ 1, how many steps the memory holds; 5 to 20.
      scale_init_precond: γ = ⟨s, y⟩ / ⟨y, y⟩ of the newest pair, and at the first step min(1, 1 /
        ‖g‖); False: 1.

    Raises:
      HyperparamError: a memory of less than one step.
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
    >>> jnp.allclose(direction, w).item()  # two steps span the plane: Newton's direction, to 0
    True

    See also: `lbfgs`.

    Nocedal and Wright, Numerical Optimization, 2nd edition 2006, Algorithm 7.4, and equation 7.20
    for γ."""
    check_count("scale_by_lbfgs", "memory_size", memory_size, least=1)
    return treewise(_init, _lbfgs, needs_params=True)


@definition
def lbfgs(
    learning_rate: Hyperparam | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: TransformationLike | None = ZOOM,
) -> GradientTransformation:
    r"""L-BFGS, a quasi-Newton method, with a line search.

    It estimates the Hessian from the last m gradients.

    θ ← θ − α η H g: g is the gradient of all arrays as one vector, H the inverse Hessian of
    `scale_by_lbfgs`, α the step size of the line search, mostly 1.

    When: a deterministic, smooth loss: logistic regression, physics-informed networks, fits of
    curves; tens of steps then replace thousands of steps of first-order methods. When not: each
    step has another batch, so that the loss changes from step to step.

    `update` takes the loss too: `value`, its gradient `grad`, and `value_fn`, the loss as a
    function of the parameters. `make_step` passes them; `value_and_grad_from_state` saves the
    evaluation that the line search has already done. For complex parameters `jax.grad` returns the
    conjugate of the steepest ascent: pass its conjugate, as gradients and as `grad`.

    Args:
      learning_rate: η, before the line search; None: 1.
      memory_size: m ≥ 1, how many steps the memory holds; 5 to 20.
      scale_init_precond: start each time from γ times the identity, as `scale_by_lbfgs` explains.
      linesearch: the transformation that chooses α, last in the chain; None: α is 1.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError, MissingExtraError: `update` is called without parameters, or without the
        loss.

    State: 92 bytes per parameter at m = 10: 8 m + 8, and 4 for the gradient of the line
    search.

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
    search = identity() if linesearch is None else linesearch
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), down, search)
