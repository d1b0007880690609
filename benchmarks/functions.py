"""Functions that are not transformations beside Optax's: projections, assignments, second
derivatives.

Each function is jitted. A projection is timed forward and with its gradient, on one vector and on
a tree; ratios are those of neighbouring runs."""

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.harness import Row, arguments, compared, finish, interleave, seconds
from gradtx import assignment, projections, second_order

BAR = 1.0
SIZE = 300_000
CALLS = 8
"""Calls per timed run, so that a run is longer than the noise of the clock."""

_rng = np.random.default_rng(14)
_normal = jnp.asarray(_rng.normal(size=SIZE), jnp.float32)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "box": (-1.0, 1.0),
    "halfspace": (_normal, -0.5),
    "hypercube": (2.0,),
    "hyperplane": (_normal, 0.5),
    "l1_ball": (2.0,),
    "l1_sphere": (2.0,),
    "l2_ball": (2.0,),
    "l2_sphere": (2.0,),
    "linf_ball": (2.0,),
    "non_negative": (),
    "simplex": (2.0,),
    "vector": (_normal,),
}
Pair = tuple[str, Callable[..., Any], Callable[..., Any], tuple[Any, ...]]
"""The name of a row, gradtx's function, Optax's, and their arguments."""


def projection_pairs() -> Iterator[Pair]:
    """Every projection of one vector, forward and gradient."""
    x = jnp.asarray(3 * _rng.normal(size=SIZE), jnp.float32)
    weights = jnp.cos(jnp.arange(SIZE, dtype=jnp.float32))
    for kind, rest in ARGUMENTS.items():
        name = f"projection_{kind}"
        ours, theirs = getattr(projections, name), getattr(optax.projections, name)
        yield f"{name}: forward", ours, theirs, (x, *rest)
        sides = [weighted_gradient(function, weights) for function in (ours, theirs)]
        yield f"{name}: gradient", sides[0], sides[1], (x, *rest)


def weighted_gradient(function: Callable[..., Any], weights: jax.Array) -> Callable[..., Any]:
    """The value and the gradient of a weighted sum of the results."""

    def value(x: jax.Array, *rest: Any) -> jax.Array:
        return jnp.vdot(weights, function(x, *rest))

    return jax.value_and_grad(value)


def assignment_pairs() -> Iterator[Pair]:
    """Both names of the Hungarian algorithm, on costs without and with ties."""
    for rows, columns in ((20, 100), (100, 100)):
        costs = {
            "uniform": _rng.uniform(size=(rows, columns)),
            "integers": _rng.integers(0, 20, (rows, columns)),
        }
        for kind, cost in costs.items():
            for name in ("hungarian_algorithm", "base_hungarian_algorithm"):
                functions = (getattr(assignment, name), getattr(optax.assignment, name))
                row = f"{name}: {rows} x {columns}, {kind}"
                yield row, *functions, (jnp.asarray(cost, jnp.float32),)


def loss(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    hidden = jnp.tanh(inputs @ params["first"])
    return jnp.mean((hidden @ params["last"] - targets) ** 2)


def second_order_pairs() -> Iterator[Pair]:
    """A network of two layers: 1,040 parameters for the diagonal, 70,000 for products."""
    for width, names in ((40, ("hessian_diag", "fisher_diag")), (2_700, ("hvp", "fisher_diag"))):
        params = {
            "first": jnp.asarray(_rng.normal(size=(25, width)) / 5, jnp.float32),
            "last": jnp.asarray(_rng.normal(size=(width, 1)) / 5, jnp.float32),
        }
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        inputs = jnp.asarray(_rng.normal(size=(64, 25)), jnp.float32)
        data = (params, inputs, inputs[:, :1])
        for name in names:
            before = (jnp.ones(size),) if name == "hvp" else ()
            ours, theirs = (
                on_loss(getattr(library, name)) for library in (second_order, optax.second_order)
            )
            yield f"{name}: {size:,} parameters", ours, theirs, (*before, *data)


def on_loss(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: function(loss, *args)


def timed(function: Callable[..., Any], args: tuple[Any, ...]) -> Callable[[], float]:
    """Time some calls of a compiled function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = jax.jit(function).lower(*args).compile()
    return lambda: seconds(lambda: [compiled(*args) for _ in range(CALLS)])


def rows(runs: int) -> Iterator[Row]:
    for pairs in (projection_pairs(), assignment_pairs(), second_order_pairs()):
        for name, ours, theirs, args in pairs:
            sides = {"gradtx": timed(ours, args), "optax": timed(theirs, args)}
            yield compared(name, interleave(sides, runs), bar=BAR)


def main() -> int:
    options = arguments(__doc__)
    return finish("functions", list(rows(options.runs)), options)


if __name__ == "__main__":
    sys.exit(main())
