"""`split_real_and_imaginary`: complex arrays as two real ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.engine.rules import Child
from gradtx.tree.casts import as_array, is_inexact, real_dtype
from gradtx.tree.paths import flatten


class RealAndImaginary(NamedTuple):
    """The two parts of a complex array."""

    real: Any
    imaginary: Any


def _is_complex(leaf: Any) -> bool:
    return is_inexact(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating)


def _split_leaf(leaf: Any) -> Any:
    if not _is_complex(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        part = jax.ShapeDtypeStruct(leaf.shape, real_dtype(leaf.dtype))
        return RealAndImaginary(part, part)
    array = as_array(leaf)
    return RealAndImaginary(jnp.real(array), jnp.imag(array))


def _split(tree: Any) -> Any:
    leaves, treedef = flatten(tree)
    return jax.tree.unflatten(treedef, [_split_leaf(leaf) for leaf in leaves])


def _init(params: Any, *, inner: GradientTransformation) -> dict[str, Any]:
    return inner.init_slots(_split(params))


def _update(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: GradientTransformation,
    extra: Any,
    gate: Any,
) -> Any:
    treedef = flatten(updates)[1]
    told = {
        name: _split(value) if flatten(value)[1] == treedef else value
        for name, value in extra.items()
    }
    parts, slots = inner.update_slots(
        _split(updates), slots, None if params is None else _split(params), step, told, gate
    )
    return _merge(updates, parts), slots


def _merge(tree: Any, parts: Any) -> Any:
    """The parts of a tree's arrays as arrays like those."""
    leaves, treedef = flatten(tree)
    columns = treedef.flatten_up_to(parts)
    merged = [
        jax.lax.complex(*part) if _is_complex(leaf) else part
        for leaf, part in zip(leaves, columns, strict=True)
    ]
    return jax.tree.unflatten(treedef, merged)


def _inside(slots: Any, count: Any, *, inner: GradientTransformation) -> list[Child]:
    return [Child(inner, slots, count)]


def _evaluate(params: Any, slots: Any, count: Any, *, inner: GradientTransformation) -> Any:
    return _merge(params, inner.evaluate_slots(slots, _split(params), count))


@definition
def split_real_and_imaginary(inner: GradientTransformation) -> GradientTransformation:
    """`inner` on the real and the imaginary part of every complex array, each as an array of its
    own.

    When: a rule that is not defined for complex numbers, or is to scale the two parts apart: Adam
    divides both parts of an entry by the root of one average of |g|², this by one each. When not:
    the result must not depend on the choice of the real axis.

    The parts have the paths `.../real` and `.../imaginary`; that is what masks inside `inner` see.

    Args:
      inner: the transformation.

    State: that of `inner`.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"w": jnp.array([0j])}
    >>> tx = gradtx.split_real_and_imaginary(gradtx.clip(1.0))  # a clip alone refuses complex numbers
    >>> tx.update({"w": jnp.array([3 - 0.5j])}, tx.init(params))[0]["w"].tolist()
    [(1-0.5j)]
    """
    evaluate = _evaluate if inner.has_evaluation else None
    return treewise(
        _init, _update, inner=inner, children=_inside, evaluate=evaluate, own_clock=inner.own_clock
    )
