r"""Backtracking line search: shrink the step size until the loss decreases enough.

α ← min(α_max, ρ α_last);   while φ(α) > φ(0) + c1 α φ'(0):  α ← τ α          (Armijo's condition)
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.types import Fraction, NonNegative, Positive
from gradtx.linesearch.line import (
    EXTRA,
    Line,
    SearchSlots,
    cast_like,
    check_count,
    cond,
    error_above,
    known_or_inf,
    make_line,
    until_done,
)
from gradtx.tree.casts import zeros
from gradtx.tree.maps import make_leaves
from gradtx.tree.vectors import scalar_dtype


class BacktrackingLinesearchInfo(NamedTuple):
    """The end of the last search: the number of trial steps, and by how much the last of them
    missed the decrease.
    """

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array


class Constants(NamedTuple):
    """The constants of a search, in the dtype of its scalars."""

    slope_rtol: jax.Array
    decrease_factor: jax.Array
    atol: jax.Array
    rtol: jax.Array


class Search(NamedTuple):
    """The progress of a search."""

    trial: jax.Array
    """The next step size to try; at the end the step size to take."""
    value: jax.Array
    """The loss at the last trial step."""
    grads: list[jax.Array]
    """The gradient at the end of the search; an empty list where it is not stored."""
    info: BacktrackingLinesearchInfo
    done: jax.Array


def _init(params, *, store_grad: bool) -> SearchSlots:
    one = jnp.ones((), scalar_dtype(params))
    # Two arrays of inf, not one twice, which could not be donated.
    info = BacktrackingLinesearchInfo(jnp.zeros((), jnp.int32), jnp.full_like(one, jnp.inf))
    grad = make_leaves(zeros, params) if store_grad else None
    return SearchSlots(one, jnp.full_like(one, jnp.inf), grad, info)


def _search_round(
    line: Line, constants: Constants, max_steps: int, store_grad: bool, search: Search
) -> Search:
    """One evaluation of the loss; of the gradient only where the search ends."""
    start, (function, arrays) = line.start, line.at(search.trial)
    value, pull_back = jax.vjp(function, arrays) if store_grad else (function(arrays), None)
    tolerance = constants.rtol * jnp.abs(start.value)
    limit = start.value + tolerance + constants.slope_rtol * search.trial * start.slope
    error = error_above(value - limit)
    number = search.info.num_linesearch_steps + 1
    done = (error <= constants.atol) | (number > max_steps)
    grads = search.grads
    if pull_back is not None:
        grads = cond(done, lambda: pull_back(jnp.ones((), line.dtype))[0], lambda: search.grads)
    trial = jnp.where(done, search.trial, constants.decrease_factor * search.trial)
    return Search(trial, value, grads, BacktrackingLinesearchInfo(number, error), done)


def _start(line: Line, last: jax.Array, limit, increase_factor, store_grad: bool) -> Search:
    """The search before its first round."""
    numbers = (last, limit, increase_factor)
    last, limit, increase_factor = (jnp.asarray(number, line.dtype) for number in numbers)
    # The last step size is 0 where no step was possible; the next search starts at the limit.
    guess = jnp.where(last > 0, jnp.minimum(limit, increase_factor * last), limit)
    unknown = jnp.full((), jnp.inf, line.dtype)
    info = BacktrackingLinesearchInfo(jnp.zeros((), jnp.int32), unknown)
    grads = line.grads if store_grad else []
    return Search(guess.astype(line.dtype), line.start.value, grads, info, jnp.zeros((), bool))


def _backtracking(
    updates,
    slots: SearchSlots,
    params,
    step,
    *,
    extra: Mapping[str, Any],
    max_backtracking_steps: int,
    slope_rtol,
    decrease_factor,
    increase_factor,
    max_learning_rate,
    atol,
    rtol,
    store_grad: bool,
    verbose: bool,
):
    line = make_line(params, updates, extra)
    numbers = (slope_rtol, decrease_factor, atol, rtol)
    constants = Constants(*(jnp.asarray(number, line.dtype) for number in numbers))
    start = _start(line, slots.learning_rate, max_learning_rate, increase_factor, store_grad)
    search = until_done(
        functools.partial(_search_round, line, constants, max_backtracking_steps, store_grad), start
    )
    # No loss at any trial step: no step.
    failed = jnp.isinf(search.info.decrease_error)
    no_step = start._replace(trial=jnp.zeros_like(start.trial), info=search.info, done=search.done)
    search = jax.tree.map(functools.partial(jnp.where, failed), no_step, search)
    if verbose:
        _report(line, search)
    new = search.trial, known_or_inf(search.value), search.info
    learning_rate, value, info = cast_like(new, (slots.learning_rate, slots.value, slots.info))
    grad = line.store(search.grads, slots.grad) if store_grad else None
    return line.scaled(search.trial), SearchSlots(learning_rate, value, grad, info)


def _report(line: Line, search: Search) -> None:
    """Print one line for each search."""
    jax.debug.print(
        "scale_by_backtracking_linesearch: loss {before} to {after}, slope {slope}, "
        "step size {step} after {number} evaluations; decrease missed by {decrease}",
        before=line.start.value,
        after=search.value,
        slope=line.start.slope,
        step=search.trial,
        number=search.info.num_linesearch_steps,
        decrease=search.info.decrease_error,
    )


@definition
def scale_by_backtracking_linesearch(
    max_backtracking_steps: int,
    slope_rtol: Fraction = 1e-4,
    decrease_factor: Fraction = 0.8,
    increase_factor: Positive = 1.5,
    max_learning_rate: Positive = 1.0,
    atol: NonNegative = 0.0,
    rtol: NonNegative = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
) -> GradientTransformation:
    r"""Backtracking line search with Armijo's condition: θ ← θ + α u.

    With φ(α) the loss at θ + α u, the search takes the first of α, τ α, τ² α, … for which φ(α) ≤
    φ(0) + c1 α φ'(0), up to tolerances a + r |φ(0)|. It starts at ρ times its last step size, α_max
    at most. u must descend: put the line search last in its chain, behind `scale(-1.0)` or an
    optimizer.

    Every round costs one evaluation of the loss. Where no step size meets the condition, the search
    takes the last one that it tried, or 0 if the loss there is nan. From a loss of nan or −inf
    it takes no step.

    When: values cost much less than gradients, and the loss is deterministic. When not: behind
    `scale_by_lbfgs`, which needs the curvature condition of `scale_by_zoom_linesearch`.

    Args:
      max_backtracking_steps: how often α shrinks at most; 15 to 30.
      slope_rtol: c1 in [0, 1]; 1e-4.
      decrease_factor: τ in (0, 1); 0.5 to 0.8.
      increase_factor: ρ ≥ 1; with 1 α never grows, with inf each search starts at α_max.
      max_learning_rate: α_max > 0.
      atol: a ≥ 0, for losses known up to rounding.
      rtol: r ≥ 0, the same relative to φ(0).
      store_grad: compute and store the gradient at the new parameters, for
        `value_and_grad_from_state`.
      verbose: print one line for each search.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value`, `grad` and `value_fn`: the loss, its
        gradient (of complex parameters the conjugate of what `jax.grad` returns), and the loss as a
        function of the parameters. Other arguments of the loss, such as a batch, are passed to
        `update` by name: `update(..., value_fn=loss, batch=batch)`.

    State: 0 bytes per parameter, 4 with store_grad; and scalars: learning_rate, value, and info, a
    report of the last search.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda w: 10 * w**2
    >>> w = jnp.array(1.0)
    >>> search = gradtx.scale_by_backtracking_linesearch(20, decrease_factor=0.5)
    >>> tx = gradtx.chain(gradtx.sgd(1.0), search)
    >>> value, grad = jax.value_and_grad(loss)(w)
    >>> updates, state = tx.update(grad, tx.init(w), w, value=value, grad=grad, value_fn=loss)
    >>> slots = state.slots["scale_by_backtracking_linesearch"]
    >>> # 1/2, 1/4 and 1/8 are too far: the loss falls up to 1/10
    >>> slots.learning_rate.item(), slots.value.item()
    (0.0625, 0.625)

    See also: `scale_by_zoom_linesearch`.

    Nocedal and Wright, Numerical Optimization, 2nd edition 2006, Algorithm 3.1.
    """
    maker = "scale_by_backtracking_linesearch"
    check_count(maker, "max_backtracking_steps", max_backtracking_steps, least=0)
    return treewise(_init, _backtracking, extra=EXTRA, needs_params=True)
