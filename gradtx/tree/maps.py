"""Functions of arrays over whole trees, for rules on trees: leaf by leaf, in compute precision,
shapes alike sharing kernels.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.tree.casts import (
    ALIKE,
    as_array,
    cast_inexact,
    compute_dtype,
    is_inexact,
    mixed_promotion,
    real_dtype,
)
from gradtx.tree.kernels import call_rows, group, signature
from gradtx.tree.paths import flatten


def map_leaves(
    function: Callable[..., Any], *trees: Any, like: int | Sequence[int] = 0, **told: Any
) -> Any:
    """`function(*arrays, **told)` for every float or complex array of the first tree and what
    stands beside it in the others.

    Arithmetic runs in float32 at least; a result gets the dtype that the array of tree number
    `like` has. Leaves that are None or integers in the first tree stay as they are. Where
    `function` returns several arrays, `like` has one number for each, and as many trees are
    returned. `function` stands at module level; `told` are arrays or numbers.

    >>> import jax.numpy as jnp, operator
    >>> map_leaves(operator.add, {"w": jnp.ones(2), "n": 3}, {"w": jnp.ones(2), "n": 4})
    {'n': 3, 'w': Array([2., 2.], dtype=float32)}
    """
    numbers = (like,) if isinstance(like, int) else tuple(like)
    first, treedef = flatten(trees[0])
    columns = [first, *(treedef.flatten_up_to(tree) for tree in trees[1:])]
    rows = {
        index: tuple(
            column[index] if column[index] is None else as_array(column[index])
            for column in columns
        )
        for index, leaf in enumerate(first)
        if is_inexact(leaf)
    }
    results = [list(columns[number]) for number in numbers]
    order = list(rows)
    for places in group(
        tuple(None if one is None else signature(one) for one in rows[index]) for index in order
    ).values():
        chosen = [order[place] for place in places]
        for index, made in zip(
            chosen,
            call_rows(_on_row(function, numbers), told, [rows[index] for index in chosen]),
            strict=True,
        ):
            for column, one in zip(results, made, strict=True):
                column[index] = one
    made = [jax.tree.unflatten(treedef, column) for column in results]
    return made[0] if isinstance(like, int) else tuple(made)


@functools.lru_cache(maxsize=4096)
def _on_row(function: Callable[..., Any], like: tuple[int, ...]) -> Any:
    return functools.partial(_run, function, like)


def _run(
    function: Callable[..., Any], like: tuple[int, ...], told: Any, row: Sequence[Any]
) -> list[jax.Array]:
    dtype = compute_dtype(row[0].dtype)
    values = {name: cast_inexact(value, real_dtype(dtype)) for name, value in told.items()}
    arrays = [one if one is None else cast_inexact(one, dtype) for one in row]
    with ALIKE if dtype.kind != "c" else mixed_promotion():
        made = function(*arrays, **values)
    return [
        one.astype(row[number].dtype)
        for number, one in zip(like, made if isinstance(made, tuple) else (made,), strict=True)
    ]


def make_leaves(function: Callable[[Any], Any], params: Any) -> Any:
    """A tree of what `function` makes of every float or complex array, None for the rest: slots of
    a rule on trees.

    >>> from gradtx.tree.casts import zeros
    >>> import jax.numpy as jnp
    >>> make_leaves(zeros, {"w": jnp.ones(2, jnp.bfloat16), "n": 3})
    {'n': None, 'w': Array([0., 0.], dtype=float32)}
    """
    values, treedef = flatten(params)
    return jax.tree.unflatten(
        treedef, [function(_typed(value)) if is_inexact(value) else None for value in values]
    )


def _typed(leaf: Any) -> Any:
    """A leaf that has a dtype: an array for a Python number."""
    return leaf if hasattr(leaf, "dtype") else as_array(leaf)


def choose(condition: Any, new: Any, old: Any) -> Any:
    """`new` where a condition holds, or where there is none (None), else `old`; both are worked
    out.

    For what is cheap, or for a condition that nearly always holds: XLA fuses the choice into the
    kernels that make `new`. The trees hold arrays of any dtype, and None.
    """
    if condition is None:
        return new
    ours, treedef = flatten(old)
    rows = {
        index: (as_array(mine), as_array(theirs))
        for index, (mine, theirs) in enumerate(zip(treedef.flatten_up_to(new), ours, strict=True))
        if theirs is not None
    }
    order, chosen = list(rows), list(ours)
    for places in group(
        (signature(one), signature(other)) for one, other in rows.values()
    ).values():
        indices = [order[place] for place in places]
        for index, made in zip(
            indices, call_rows(_pick, condition, [rows[index] for index in indices]), strict=True
        ):
            chosen[index] = made
    return jax.tree.unflatten(treedef, chosen)


def _pick(condition: jax.Array, row: tuple[jax.Array, jax.Array]) -> jax.Array:
    return jnp.where(condition, row[0], row[1])
