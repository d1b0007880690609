r"""A line search for the strong Wolfe conditions, by bracketing and interpolation.

φ(α) ≤ φ(0) + c1 α φ'(0)                                                       (decrease)
or     φ'(α) ≤ (2 c1 − 1) φ'(0)  and  φ(α) ≤ φ(0) + ε |φ(0)|
|φ'(α)| ≤ c2 |φ'(0)|                                                           (curvature)

The two algorithms of the book are one loop here, so that the loss is compiled once. Each round
evaluates one step size, and updates `low`, the best end of the interval, and `high`, the other end,
which is nan until there is one."""

import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.types import Fraction, Limit, NonNegative, Positive
from gradtx.linesearch.interpolation import interpolate
from gradtx.linesearch.line import (
    EXTRA,
    Line,
    Point,
    SearchSlots,
    cast_like,
    check_count,
    error_above,
    known_or_inf,
    make_line,
    until_done,
)
from gradtx.tree.casts import zeros
from gradtx.tree.maps import make_leaves
from gradtx.tree.vectors import scalar_dtype

T = TypeVar("T")
Guess = Literal["keep", "one"]


class ZoomLinesearchInfo(NamedTuple):
    """The end of the last search: the number of trial steps, and by how much the last of them
    missed each condition.
    """

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array


class Constants(NamedTuple):
    """The constants of a search, in the dtype of its scalars."""

    tol: jax.Array
    increase_factor: jax.Array
    slope_rtol: jax.Array
    curv_rtol: jax.Array
    approx_dec_rtol: jax.Array
    stepsize_precision: jax.Array
    max_learning_rate: jax.Array


class Search(NamedTuple):
    """The progress of a search."""

    trial: jax.Array
    """The next step size to try."""
    low: Point
    """The best end of the interval; while there is no other end, the last trial point."""
    high: Point
    """The other end, nan until there is one."""
    third: Point
    """The end that the interval lost last: a third value for the interpolation."""
    result: Point
    """The point to return if the search ends now."""
    grads: list[jax.Array]
    """The gradient at that point."""
    decreasing: jax.Array
    """Whether that point decreases the loss enough."""
    info: ZoomLinesearchInfo
    done: jax.Array


def _init(params) -> SearchSlots:
    one = jnp.ones((), scalar_dtype(params))
    # Three arrays of inf, not one three times, which could not be donated.
    unknown, *errors = (jnp.full_like(one, jnp.inf) for _ in range(3))
    info = ZoomLinesearchInfo(jnp.zeros((), jnp.int32), *errors)
    return SearchSlots(one, unknown, make_leaves(zeros, params), info)


def _errors(
    point: Point, start: Point, constants: Constants, approximate: bool
) -> tuple[jax.Array, jax.Array]:
    """By how much a point misses the decrease, and the curvature."""
    change = point.value - start.value
    decrease = error_above(change - constants.slope_rtol * point.step * start.slope)
    if approximate:
        # Near a minimum the rounding of φ hides the decrease; slopes still show it.
        level = point.slope - (2 * constants.slope_rtol - 1) * start.slope
        small = change - constants.approx_dec_rtol * jnp.abs(start.value)
        decrease = jnp.minimum(decrease, error_above(level, small))
    limit = constants.curv_rtol * jnp.abs(start.slope)
    return decrease, error_above(jnp.abs(point.slope) - limit)


def _next_interval(search: Search, point: Point, decrease: jax.Array) -> tuple[Point, Point, Point]:
    """The interval after a trial: its low end, its high end, and the end that it lost."""
    bracketed = ~jnp.isnan(search.high.step)
    is_first = search.info.num_linesearch_steps == 0
    rises = (point.value >= search.low.value) & (bracketed | ~is_first)
    worse = (decrease > 0) | rises
    # From `low` towards `high`; to the right while there is no `high`.
    onward = jnp.where(bracketed, jnp.sign(search.high.step - search.low.step), 1.0)
    passed = point.slope * onward >= 0
    low = _choose(worse, search.low, point)
    high = _choose(worse, point, _choose(passed, search.low, search.high))
    return low, high, _choose(worse | passed, search.high, search.low)


def _choose(condition: jax.Array, yes: T, no: T) -> T:
    return jax.tree.map(functools.partial(jnp.where, condition), yes, no)


def _search_round(
    line: Line, constants: Constants, max_steps: int, approximate: bool, search: Search
) -> Search:
    """One evaluation of the loss and its gradient at the trial."""
    function, arrays = line.at(search.trial)
    value, grads = jax.value_and_grad(function)(arrays)
    point = Point(search.trial, value, line.slope(grads))
    decrease, curvature = _errors(point, line.start, constants, approximate)
    number = search.info.num_linesearch_steps + 1
    accepted = jnp.maximum(decrease, curvature) <= constants.tol
    search = _update_result(line, constants, search, point, grads, decrease, accepted)
    low, high, third = _next_interval(search, point, decrease)
    bracketed = ~jnp.isnan(high.step)
    # The width is that of the interval before this round: nan, and so False, without a bracket.
    width = jnp.abs(search.high.step - search.low.step)
    narrow = (width <= constants.stepsize_precision) & search.decreasing
    at_limit = ~bracketed & (search.trial >= constants.max_learning_rate)
    larger = jnp.minimum(constants.increase_factor * search.trial, constants.max_learning_rate)
    return search._replace(
        trial=jnp.where(bracketed, interpolate(low, high, third), larger),
        low=low,
        high=high,
        third=third,
        info=ZoomLinesearchInfo(number, decrease, curvature),
        done=accepted | narrow | at_limit | (number >= max_steps),
    )


def _update_result(
    line: Line,
    constants: Constants,
    search: Search,
    point: Point,
    grads: list[jax.Array],
    decrease: jax.Array,
    accepted: jax.Array,
) -> Search:
    """Choose the point to return if the search ends now.

    An accepted point; else the last that decreases enough, and from the bracket on the lowest of
    these; else the last one if its loss is a number; else the start, a step of zero.
    """
    best = jnp.where(search.decreasing, search.result.value, line.start.value)
    improves = jnp.isnan(search.high.step) | (point.value < best)
    better = accepted | ((decrease <= constants.tol) & improves)
    decreasing = search.decreasing | better
    pair = _choose(better | ~decreasing, (point, grads), (search.result, search.grads))
    no_loss = ~decreasing & jnp.isinf(decrease)
    result, grads = _choose(no_loss, (line.start, line.grads), pair)
    return search._replace(result=result, grads=grads, decreasing=decreasing)


def _start(line: Line, guess: jax.Array) -> Search:
    """The search before its first round."""
    unknown = Point(*[jnp.full((), jnp.nan, line.dtype)] * 3)
    return Search(
        trial=guess,
        low=line.start,
        high=unknown,
        third=unknown,
        result=line.start,
        grads=line.grads,
        decreasing=jnp.zeros((), bool),
        info=ZoomLinesearchInfo(jnp.zeros((), jnp.int32), *[jnp.full((), jnp.inf, line.dtype)] * 2),
        done=jnp.zeros((), bool),
    )


def _zoom(
    updates,
    slots: SearchSlots,
    params,
    step,
    *,
    extra: Mapping[str, Any],
    max_linesearch_steps: int,
    max_learning_rate,
    tol,
    increase_factor,
    slope_rtol,
    curv_rtol,
    approx_dec_rtol,
    stepsize_precision,
    initial_guess_strategy: Guess,
    approximate: bool,
    verbose: bool,
):
    line = make_line(params, updates, extra)
    numbers = (tol, increase_factor, slope_rtol, curv_rtol, approx_dec_rtol, stepsize_precision)
    constants = Constants(
        *(jnp.asarray(number, line.dtype) for number in (*numbers, max_learning_rate))
    )
    guess = jnp.ones((), line.dtype)
    if initial_guess_strategy == "keep":
        last = jnp.asarray(slots.learning_rate, line.dtype)
        guess = jnp.where(last > 0, last, guess)  # 0 after a search without a step
    start = _start(line, jnp.minimum(guess, constants.max_learning_rate))
    search = until_done(
        functools.partial(_search_round, line, constants, max_linesearch_steps, approximate), start
    )
    if verbose:
        _report(line, search)
    new = search.result.step, known_or_inf(search.result.value), search.info
    learning_rate, value, info = cast_like(new, (slots.learning_rate, slots.value, slots.info))
    grad = line.store(search.grads, slots.grad)
    return line.scaled(search.result.step), SearchSlots(learning_rate, value, grad, info)


def _report(line: Line, search: Search) -> None:
    """Print one line for each search."""
    jax.debug.print(
        "scale_by_zoom_linesearch: loss {before} to {after}, slope {slope}, step size {step} "
        "after {number} evaluations; decrease missed by {decrease}, curvature by {curvature}",
        before=line.start.value,
        after=search.result.value,
        slope=line.start.slope,
        step=search.result.step,
        number=search.info.num_linesearch_steps,
        decrease=search.info.decrease_error,
        curvature=search.info.curvature_error,
    )


@definition
def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    max_learning_rate: Positive | None = None,
    tol: NonNegative = 0.0,
    increase_factor: Positive = 2.0,
    slope_rtol: Fraction = 1e-4,
    curv_rtol: Limit = 0.9,
    approx_dec_rtol: NonNegative | None = 1e-6,
    stepsize_precision: NonNegative = 1e-5,
    initial_guess_strategy: Guess = "keep",
    verbose: bool = False,
) -> GradientTransformation:
    r"""Zoom line search for the strong Wolfe conditions: θ ← θ + α u.

    With φ(α) the loss at θ + α u: φ(α) ≤ φ(0) + c1 α φ'(0), or at small steps, where rounding hides
    that, φ'(α) ≤ (2 c1 − 1) φ'(0) and φ(α) ≤ φ(0) + ε |φ(0)|; and |φ'(α)| ≤ c2 |φ'(0)|. Step sizes
    grow by a factor until an interval holds such a point. Then the interval shrinks, at the minimum
    of a cubic or of a parabola. u must descend: put the line search last in its chain, behind
    `scale(-1.0)` or an optimizer.

    Every round costs one evaluation of the loss and its gradient; the state stores both for the
    next step (`value_and_grad_from_state`). Where no step size meets the conditions, the search
    takes the last one that decreases the loss enough, and from the first interval on the lowest of
    these. Without any it takes the last one that it tried, or 0 if the loss there is nan. From a
    loss of nan or −inf it takes no step.

    When: the loss is deterministic and smooth, above all behind `scale_by_lbfgs`. When not: each
    step has another batch; or gradients cost much more than values, then take
    `scale_by_backtracking_linesearch`.

    Args:
      max_linesearch_steps: how many step sizes the search tries at most (one at least); 15 to 30.
      max_learning_rate: the largest step size, > 0; None: any.
      tol: tolerance of either condition, ≥ 0.
      increase_factor: the factor from one step size to the next while there is no interval, > 1;
        2.
      slope_rtol: c1 in [0, 1]; 1e-4, below c2.
      curv_rtol: c2 ≥ 0; 0.9 behind quasi-Newton methods, 0.1 behind conjugate gradients; inf for no
        such condition.
      approx_dec_rtol: ε ≥ 0; None for the first form of the decrease alone.
      stepsize_precision: the width of the interval at which the search ends, if a step size
        decreases the loss enough.
      initial_guess_strategy: "keep" tries the last step size first (at first 1), "one" always 1.
      verbose: print one line for each search.

    Raises:
      HyperparamError: a number out of its range; a strategy of another name.
      MissingExtraError: `update` is called without `value`, `grad` and `value_fn`: the loss, its
        gradient (of complex parameters the conjugate of what `jax.grad` returns), and the loss as a
        function of the parameters. Other arguments of the loss, such as a batch, are passed to
        `update` by name: `update(..., value_fn=loss, batch=batch)`.

    State: 4 bytes per parameter (the gradient), and scalars: learning_rate, value, and info, a
    report of the last search.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda w: jnp.sum(w**4)
    >>> w = jnp.array([2.0, -1.0])
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(20))
    >>> value, grad = jax.value_and_grad(loss)(w)
    >>> updates, state = tx.update(grad, tx.init(w), w, value=value, grad=grad, value_fn=loss)
    >>> slots = state.slots["scale_by_zoom_linesearch"]
    >>> round(float(slots.learning_rate), 3), int(slots.info.num_linesearch_steps)
    (0.084, 5)
    >>> bool(slots.value == loss(w + updates))
    True

    See also: `lbfgs`, `scale_by_backtracking_linesearch`.

    Nocedal and Wright, Numerical Optimization, 2nd edition 2006, Algorithms 3.5 and 3.6; the
    approximate decrease: Hager and Zhang 2005, SIAM Journal on Optimization 16, equation 4.1 and
    section 4."""
    check_count("scale_by_zoom_linesearch", "max_linesearch_steps", max_linesearch_steps, least=0)
    return treewise(
        _init,
        _zoom,
        extra=EXTRA,
        needs_params=True,
        max_learning_rate=jnp.inf if max_learning_rate is None else max_learning_rate,
        approx_dec_rtol=0.0 if approx_dec_rtol is None else approx_dec_rtol,
        approximate=approx_dec_rtol is not None,
    )
