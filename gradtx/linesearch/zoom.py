r"""A line search for the strong Wolfe conditions, by bracketing and interpolation.

φ(α) ≤ φ(0) + c1 α φ'(0)     or     φ'(α) ≤ (2 c1 − 1) φ'(0)  and  φ(α) ≤ φ(0) + ε |φ(0)|       (decrease)
|φ'(α)| ≤ c2 |φ'(0)|                                                                            (curvature)

The book's two algorithms are one loop here, so that the loss is compiled once: each round evaluates
one step size, and updates `low`, the best end of the interval, and `high`, the other end, which is
nan until there is one."""

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Fraction, NonNegative, Positive
from gradtx.linesearch.interpolation import between
from gradtx.linesearch.line import (
    Line,
    Point,
    Searched,
    as_before,
    check_count,
    error_above,
    line,
    until_done,
)
from gradtx.tree.casts import zeros
from gradtx.tree.maps import make_leaves
from gradtx.tree.vectors import scalar_dtype

Guess = Literal["keep", "one"]


class ZoomLinesearchInfo(NamedTuple):
    """How the last search ended: step sizes tried, and by how much the last of them missed each
    condition.
    """

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array


class Rules(NamedTuple):
    """The constants of a search, in the dtype of its scalars."""

    tol: jax.Array
    increase_factor: jax.Array
    slope_rtol: jax.Array
    curv_rtol: jax.Array
    approx_dec_rtol: jax.Array
    stepsize_precision: jax.Array
    max_learning_rate: jax.Array


class Search(NamedTuple):
    """Where a search stands."""

    trial: jax.Array
    """The step size to try next."""
    low: Point
    """The best end of the interval; while there is no other end, the last point tried."""
    high: Point
    """The other end, nan until there is one."""
    third: Point
    """The end that was given up last: a third value for the interpolation."""
    taken: Point
    """What is taken when the search ends now."""
    grads: list[jax.Array]
    """The gradient there."""
    decreasing: jax.Array
    """Whether `taken` decreases the loss enough."""
    info: ZoomLinesearchInfo
    done: jax.Array


def _init(params: Any) -> Searched:
    dtype = scalar_dtype(params)
    one, unknown = jnp.ones((), dtype), jnp.full((), jnp.inf, dtype)
    info = ZoomLinesearchInfo(jnp.zeros((), jnp.int32), unknown, jnp.copy(unknown))
    return Searched(one, jnp.copy(unknown), make_leaves(zeros, params), info)


def _errors(
    point: Point, start: Point, rules: Rules, approximate: bool
) -> tuple[jax.Array, jax.Array]:
    """By how much a point misses the decrease, and the curvature."""
    decrease = error_above(point.value - start.value - rules.slope_rtol * point.step * start.slope)
    if approximate:
        level = point.slope - (2 * rules.slope_rtol - 1) * start.slope
        small = point.value - start.value - rules.approx_dec_rtol * jnp.abs(start.value)
        decrease = jnp.minimum(decrease, error_above(level, small))
    return decrease, error_above(jnp.abs(point.slope) - rules.curv_rtol * jnp.abs(start.slope))


def _narrowed(search: Search, point: Point, decrease: jax.Array) -> tuple[Point, Point, Point]:
    """The interval after a point was tried: its low end, its high end, and the end given up."""
    bracketed = ~jnp.isnan(search.high.step)
    tried_before = search.info.num_linesearch_steps > 0
    worse = (decrease > 0) | ((point.value >= search.low.value) & (bracketed | tried_before))
    onward = jnp.where(bracketed, jnp.sign(search.high.step - search.low.step), 1.0)
    passed = point.slope * onward >= 0
    low = _choose(worse, search.low, point)
    high = _choose(worse, point, _choose(passed, search.low, search.high))
    return low, high, _choose(worse | passed, search.high, search.low)


def _choose(condition: jax.Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(functools.partial(jnp.where, condition), yes, no)


def _round(along: Line, rules: Rules, options: tuple[int, bool], search: Search) -> Search:
    """One evaluation: of the loss and its gradient at the trial."""
    max_steps, approximate = options
    function, arrays = along.at(search.trial)
    value, grads = jax.value_and_grad(function)(arrays)
    point = Point(search.trial, value, along.slope(grads))
    decrease, curvature = _errors(point, along.start, rules, approximate)
    number = search.info.num_linesearch_steps + 1
    accepted = jnp.maximum(decrease, curvature) <= rules.tol
    search = _take(along, rules, search, point, grads, decrease, accepted)
    low, high, third = _narrowed(search, point, decrease)
    bracketed = ~jnp.isnan(high.step)
    small = (
        jnp.abs(search.high.step - search.low.step) <= rules.stepsize_precision
    ) & search.decreasing
    at_limit = ~bracketed & (search.trial >= rules.max_learning_rate)
    further = jnp.minimum(rules.increase_factor * search.trial, rules.max_learning_rate)
    return search._replace(
        trial=jnp.where(bracketed, between(low, high, third), further),
        low=low,
        high=high,
        third=third,
        info=ZoomLinesearchInfo(number, decrease, curvature),
        done=accepted | small | at_limit | (number >= max_steps),
    )


def _take(
    along: Line,
    rules: Rules,
    search: Search,
    point: Point,
    grads: Any,
    decrease: jax.Array,
    accepted: jax.Array,
) -> Search:
    """What to take if the search ended now.

    An accepted point; else the last that decreases enough, and from the bracket on the lowest of
    these; else the last one if its loss is a number; else no step.
    """
    best = jnp.where(search.decreasing, search.taken.value, along.start.value)
    better = accepted | (
        (decrease <= rules.tol) & (jnp.isnan(search.high.step) | (point.value < best))
    )
    decreasing = search.decreasing | better
    taken, kept = _choose(better | ~decreasing, (point, grads), (search.taken, search.grads))
    taken, kept = _choose(
        ~decreasing & jnp.isinf(decrease), (along.start, along.grads), (taken, kept)
    )
    return search._replace(taken=taken, grads=kept, decreasing=decreasing)


def _search(
    updates: Any,
    slots: Searched,
    params: Any,
    step: Any,
    *,
    value: Any,
    grad: Any,
    value_fn: Any,
    max_linesearch_steps: int,
    max_learning_rate: Any,
    tol: Any,
    increase_factor: Any,
    slope_rtol: Any,
    curv_rtol: Any,
    approx_dec_rtol: Any,
    stepsize_precision: Any,
    initial_guess_strategy: Guess,
    approximate: bool,
    verbose: bool,
) -> tuple[Any, Searched]:
    along = line(params, updates, value, grad, value_fn)
    numbers = (
        tol,
        increase_factor,
        slope_rtol,
        curv_rtol,
        approx_dec_rtol,
        stepsize_precision,
        max_learning_rate,
    )
    rules = Rules(*(jnp.asarray(number, along.dtype) for number in numbers))
    kept = initial_guess_strategy == "keep"
    guess = jnp.where(
        kept & (slots.learning_rate > 0), slots.learning_rate.astype(along.dtype), 1.0
    )
    unknown = Point(*[jnp.full((), jnp.nan, along.dtype)] * 3)
    start = Search(
        jnp.minimum(guess, rules.max_learning_rate),
        *(along.start, unknown, unknown, along.start, along.grads),
        decreasing=jnp.zeros((), bool),
        info=ZoomLinesearchInfo(
            jnp.zeros((), jnp.int32), *[jnp.full((), jnp.inf, along.dtype)] * 2
        ),
        done=jnp.zeros((), bool),
    )
    turn = functools.partial(_round, along, rules, (max_linesearch_steps, approximate))
    found = until_done(turn, start)
    if verbose:
        _report(along, found)
    learning_rate, value, info = as_before(slots, found.taken.step, found.taken.value, found.info)
    return along.scaled(found.taken.step), Searched(
        learning_rate, value, along.stored(found.grads, slots.grad), info
    )


def _report(along: Line, found: Search) -> None:
    """One line for each search."""
    jax.debug.print(
        "scale_by_zoom_linesearch: loss {before} to {after}, slope {slope}, step size {step} after {number} evaluations; "
        "decrease missed by {decrease}, curvature by {curvature}",
        before=along.start.value,
        after=found.taken.value,
        slope=along.start.slope,
        step=found.taken.step,
        number=found.info.num_linesearch_steps,
        decrease=found.info.decrease_error,
        curvature=found.info.curvature_error,
    )


@definition
def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    max_learning_rate: Positive | None = None,
    tol: NonNegative = 0.0,
    increase_factor: Positive = 2.0,
    slope_rtol: Fraction = 1e-4,
    curv_rtol: NonNegative = 0.9,
    approx_dec_rtol: NonNegative | None = 1e-6,
    stepsize_precision: NonNegative = 1e-5,
    initial_guess_strategy: Guess = "keep",
    verbose: bool = False,
) -> GradientTransformation:
    r"""Scale the updates u by a step size α that meets the strong Wolfe conditions: θ ← θ + α u.

    With φ(α) the loss at θ + α u: φ(α) ≤ φ(0) + c1 α φ'(0), or at small steps, where rounding hides
    that, φ'(α) ≤ (2 c1 − 1) φ'(0) and φ(α) ≤ φ(0) + ε |φ(0)|; and |φ'(α)| ≤ c2 |φ'(0)|. Step sizes
    grow by a factor until an interval holds such a point, and then the interval shrinks, at the
    minimum of a cubic or of a parabola. u must
    descend: it stands last in its chain, behind `scale(-1.0)` or an optimizer.

    Every round costs one evaluation of the loss and its gradient, both of which are kept for the
    next step (`value_and_grad_from_state`). Where no step size serves, the last that decreases the
    loss enough is taken, from the first interval on the lowest such; failing these, the last one
    tried, or 0 if the loss there is no number.

    When: the loss is deterministic and smooth, before all behind `scale_by_lbfgs`. When not: the
    loss is taken of another batch at each step; or gradients are dear beside values, then take
    `scale_by_backtracking_linesearch`.

    Args:
      max_linesearch_steps: how many step sizes are tried at most (one at least); 15 to 30.
      max_learning_rate: the largest step size, > 0; None: any.
      tol: by how much either condition may be missed, ≥ 0.
      increase_factor: from one step size to the next while there is no interval, > 1; 2.
      slope_rtol: c1 in [0, 1]; 1e-4, below c2.
      curv_rtol: c2 ≥ 0; 0.9 behind quasi-Newton methods, 0.1 behind conjugate gradients; inf for no
        such condition.
      approx_dec_rtol: ε ≥ 0; None for the first form of the decrease alone.
      stepsize_precision: the width below which an interval that has a decreasing step size is not
        searched on.
      initial_guess_strategy: "keep" tries the last step size first (at first 1), "one" always 1.
      verbose: print one line for each search.

    Raises:
      HyperparamError: a number out of its range; a strategy of another name.
      MissingExtraError: `update` is called without `value`, `grad` and `value_fn`: the loss, its
        gradient (of complex parameters the conjugate of what `jax.grad` gives), and the loss as a
        function of the parameters.

    State: 4 bytes per parameter (the gradient), and scalars: learning_rate, value, and info, how
    the last search ended.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda w: jnp.sum(w**4)
    >>> w = jnp.array([2.0, -1.0])
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(20))
    >>> value, grad = jax.value_and_grad(loss)(w)
    >>> updates, state = tx.update(grad, tx.init(w), w, value=value, grad=grad, value_fn=loss)
    >>> found = state.slots["scale_by_zoom_linesearch"]
    >>> round(float(found.learning_rate), 3), int(found.info.num_linesearch_steps), bool(found.value == loss(w + updates))
    (0.084, 5, True)

    See also: `lbfgs`, `scale_by_backtracking_linesearch`.

    Nocedal and Wright, Numerical Optimization, 2nd edition 2006, Algorithms 3.5 and 3.6; the
    approximate decrease: Hager and Zhang 2005, SIAM Journal on Optimization 16, equation 4.1 and
    section 4."""
    check_count("scale_by_zoom_linesearch", "max_linesearch_steps", max_linesearch_steps, least=0)
    if initial_guess_strategy not in get_args(Guess):
        choices = ", ".join(map(repr, get_args(Guess)))
        raise HyperparamError(
            f"scale_by_zoom_linesearch: initial_guess_strategy = {initial_guess_strategy!r}; choose one of {choices}"
        )
    return treewise(
        _init,
        _search,
        max_learning_rate=jnp.inf if max_learning_rate is None else max_learning_rate,
        tol=tol,
        increase_factor=increase_factor,
        slope_rtol=slope_rtol,
        curv_rtol=curv_rtol,
        approx_dec_rtol=0.0 if approx_dec_rtol is None else approx_dec_rtol,
        stepsize_precision=stepsize_precision,
        max_linesearch_steps=max_linesearch_steps,
        initial_guess_strategy=initial_guess_strategy,
        approximate=approx_dec_rtol is not None,
        verbose=verbose,
        extra=("value", "grad", "value_fn"),
        needs_params=True,
    )
