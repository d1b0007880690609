"""`split_real_and_imaginary`: complex arrays as two real ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.types import PyTree
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


def _split(tree: PyTree) -> Any:
    leaves, treedef = flatten(tree)
    return jax.tree.unflatten(treedef, [_split_leaf(leaf) for leaf in leaves])


def _merge(tree: PyTree, parts: Any) -> Any:
    """Join parts into arrays like those of a tree."""
    leaves, treedef = flatten(tree)
    columns = treedef.flatten_up_to(parts)
    merged = [
        jax.lax.complex(*part) if _is_complex(leaf) else part
        for leaf, part in zip(leaves, columns, strict=True)
    ]
    return jax.tree.unflatten(treedef, merged)


def _split_real_and_imaginary(updates, own, params, step, *, inner: Member, extra):
    treedef = flatten(updates)[1]
    alike = {name for name, value in extra.items() if flatten(value)[1] == treedef}
    extra = {name: _split(value) if name in alike else value for name, value in extra.items()}
    params = None if params is None else _split(params)
    parts, inner = inner.update(_split(updates), params, extra=extra)
    return _merge(updates, parts), inner, own


def _evaluate(params, own, *, inner: Member):
    return _merge(params, inner.evaluate(_split(params)))


@definition
def split_real_and_imaginary(inner: GradientTransformation) -> GradientTransformation:
    """Split every complex array into its real and imaginary parts for `inner`.

    `inner` receives each part as an array of its own.

    When: a rule that is not defined for complex numbers, or that is to scale the two parts
    separately. Adam divides both parts of an entry by the root of one average of |g|²; with this
    wrapper each part has its own average. When not: the result must not depend on the choice of the
    real axis.

    The parts have the paths `.../real` and `.../imaginary`. Masks inside `inner` match these paths.

    Args:
      inner: the transformation.

    State: that of `inner`.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"w": jnp.array([0j])}
    >>> # A clip alone refuses complex numbers.
    >>> tx = gradtx.split_real_and_imaginary(gradtx.clip(1.0))
    >>> tx.update({"w": jnp.array([3 - 0.5j])}, tx.init(params))[0]["w"].tolist()
    [(1-0.5j)]
    """
    return wrapwise(
        inner, None, _split_real_and_imaginary, member_params=_split, evaluate=_evaluate
    )
