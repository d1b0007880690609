r"""A line search for a sufficient decrease, by shrinking the step size.

α ← min(α_max, ρ α_last);   while φ(α) > φ(0) + c1 α φ'(0):  α ← τ α          (Armijo's condition)
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.types import Fraction, NonNegative, Positive
from gradtx.linesearch.line import (
    Line,
    Searched,
    as_before,
    check_count,
    either,
    error_above,
    line,
    until_done,
)
from gradtx.tree.casts import zeros
from gradtx.tree.maps import make_leaves
from gradtx.tree.vectors import scalar_dtype


class BacktrackingLinesearchInfo(NamedTuple):
    """How the last search ended: step sizes tried, and by how much the last of them missed the
    decrease.
    """

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array


class Rules(NamedTuple):
    """The constants of a search, in the dtype of its scalars."""

    slope_rtol: jax.Array
    decrease_factor: jax.Array
    atol: jax.Array
    rtol: jax.Array


class Search(NamedTuple):
    """Where a search stands."""

    trial: jax.Array
    """The step size to try next; the one to take, at the end."""
    value: jax.Array
    """The loss at the last step size tried."""
    grads: list[jax.Array]
    """Its gradient there, where the search ended; no list of arrays where it is not kept."""
    info: BacktrackingLinesearchInfo
    done: jax.Array


def _init(params: Any, *, store_grad: bool) -> Searched:
    dtype = scalar_dtype(params)
    one, unknown = jnp.ones((), dtype), jnp.full((), jnp.inf, dtype)
    grad = make_leaves(zeros, params) if store_grad else None
    return Searched(
        one, jnp.copy(unknown), grad, BacktrackingLinesearchInfo(jnp.zeros((), jnp.int32), unknown)
    )


def _round(along: Line, rules: Rules, options: tuple[int, bool], search: Search) -> Search:
    """One evaluation of the loss; of the gradient only where the search ends."""
    max_steps, store_grad = options
    start, (function, arrays) = along.start, along.at(search.trial)
    value, pull_back = jax.vjp(function, arrays) if store_grad else (function(arrays), None)
    allowed = (
        start.value
        + rules.rtol * jnp.abs(start.value)
        + rules.slope_rtol * search.trial * start.slope
    )
    error = error_above(value - allowed)
    number = search.info.num_linesearch_steps + 1
    done = (error <= rules.atol) | (number > max_steps)
    grads = search.grads
    if pull_back is not None:
        grads = either(done, lambda: pull_back(jnp.ones((), along.dtype))[0], lambda: search.grads)
    trial = jnp.where(done, search.trial, rules.decrease_factor * search.trial)
    return Search(trial, value, grads, BacktrackingLinesearchInfo(number, error), done)


def _search(
    updates: Any,
    slots: Searched,
    params: Any,
    step: Any,
    *,
    value: Any,
    grad: Any,
    value_fn: Any,
    max_backtracking_steps: int,
    slope_rtol: Any,
    decrease_factor: Any,
    increase_factor: Any,
    max_learning_rate: Any,
    atol: Any,
    rtol: Any,
    store_grad: bool,
    verbose: bool,
) -> tuple[Any, Searched]:
    along = line(params, updates, value, grad, value_fn)
    rules = Rules(
        *(jnp.asarray(number, along.dtype) for number in (slope_rtol, decrease_factor, atol, rtol))
    )
    last, limit = (
        jnp.asarray(number, along.dtype) for number in (slots.learning_rate, max_learning_rate)
    )
    guess = jnp.where(last > 0, jnp.minimum(limit, increase_factor * last), limit)
    info = BacktrackingLinesearchInfo(jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, along.dtype))
    start = Search(
        guess.astype(along.dtype),
        along.start.value,
        along.grads if store_grad else [],
        info,
        jnp.zeros((), bool),
    )
    turn = functools.partial(_round, along, rules, (max_backtracking_steps, store_grad))
    found = until_done(turn, start)
    stay = jnp.isinf(found.info.decrease_error)  # no loss anywhere: no step
    found = jax.tree.map(
        functools.partial(jnp.where, stay),
        start._replace(trial=jnp.zeros_like(guess), info=found.info, done=found.done),
        found,
    )
    if verbose:
        _report(along, found)
    learning_rate, value, info = as_before(slots, found.trial, found.value, found.info)
    grad = along.stored(found.grads, slots.grad) if store_grad else None
    return along.scaled(found.trial), Searched(learning_rate, value, grad, info)


def _report(along: Line, found: Search) -> None:
    """One line for each search."""
    jax.debug.print(
        "scale_by_backtracking_linesearch: loss {before} to {after}, slope {slope}, step size {step} after {number} evaluations; "
        "decrease missed by {decrease}",
        before=along.start.value,
        after=found.value,
        slope=along.start.slope,
        step=found.trial,
        number=found.info.num_linesearch_steps,
        decrease=found.info.decrease_error,
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
    r"""Scale the updates u by a step size α that decreases the loss enough: θ ← θ + α u.

    With φ(α) the loss at θ + α u, the first of α, τ α, τ² α, … for which φ(α) ≤ φ(0) + c1 α φ'(0),
    up to tolerances a + r |φ(0)|; α starts ρ times higher than the last one ended, α_max at most. u
    must descend: it stands last in its chain, behind `scale(-1.0)` or an optimizer.

    Every round costs one evaluation of the loss. Where no step size serves, the last one tried is
    taken, or 0 if the loss there is no number.

    When: values are cheap beside gradients, and the loss is deterministic. When not: behind
    `scale_by_lbfgs`, which needs the curvature condition of `scale_by_zoom_linesearch`.

    Args:
      max_backtracking_steps: how often α is shrunk at most; 15 to 30.
      slope_rtol: c1 in [0, 1]; 1e-4.
      decrease_factor: τ in (0, 1); 0.5 to 0.8.
      increase_factor: ρ ≥ 1; 1 never goes back up, inf starts each search at α_max.
      max_learning_rate: α_max > 0.
      atol: a ≥ 0, for losses known up to rounding.
      rtol: r ≥ 0, the same relative to φ(0).
      store_grad: whether the gradient at the new parameters is computed and kept, for
        `value_and_grad_from_state`.
      verbose: print one line for each search.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value`, `grad` and `value_fn`: the loss, its
        gradient (of complex parameters the conjugate of what `jax.grad` gives), and the loss as a
        function of the parameters.

    State: 0 bytes per parameter, 4 with store_grad; and scalars: learning_rate, value, and info,
    how the last search ended.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> loss = lambda w: 10 * w**2
    >>> w = jnp.array(1.0)
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(20, decrease_factor=0.5))
    >>> value, grad = jax.value_and_grad(loss)(w)
    >>> updates, state = tx.update(grad, tx.init(w), w, value=value, grad=grad, value_fn=loss)
    >>> found = state.slots["scale_by_backtracking_linesearch"]
    >>> found.learning_rate.item(), found.value.item()  # 1/2, 1/4 and 1/8 are too far: the loss falls up to 1/10
    (0.0625, 0.625)

    See also: `scale_by_zoom_linesearch`.

    Nocedal and Wright, Numerical Optimization, 2nd edition 2006, Algorithm 3.1.
    """
    check_count(
        "scale_by_backtracking_linesearch",
        "max_backtracking_steps",
        max_backtracking_steps,
        least=0,
    )
    return treewise(
        _init,
        _search,
        slope_rtol=slope_rtol,
        decrease_factor=decrease_factor,
        increase_factor=increase_factor,
        max_learning_rate=max_learning_rate,
        atol=atol,
        rtol=rtol,
        max_backtracking_steps=max_backtracking_steps,
        store_grad=store_grad,
        verbose=verbose,
        extra=("value", "grad", "value_fn"),
        needs_params=True,
    )
