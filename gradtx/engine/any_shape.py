"""One trace for leaves of many shapes: rules that treat every entry alike are traced once.

To trace a rule costs more than to write its program down for one more shape. So where a run of
rules has leaves of several shapes, it is traced for symbolic ones, `(a, b)`, and the program is
specialized to each. A rule that looks at the size of its array gets a symbolic size; where it needs
a number, or works on whole arrays, it is traced for every shape as usual.
"""

import functools
import string
from typing import TYPE_CHECKING, Any

import jax
from jax import export
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from gradtx.engine.kernel import LeafArgs, Shared, run_rules
from gradtx.tree.jaxprs import is_elementwise, specialize

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import LeafRule


def run_any_shape(
    rules: "tuple[LeafRule, ...]", shared: Shared, args: LeafArgs
) -> tuple[jax.Array, tuple[Any, ...]]:
    """`run_rules`, from a program that leaves of other shapes share where there is one."""
    leaves, treedef = jax.tree.flatten((shared, args))
    shape = args.grad.shape
    avals = tuple((leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)) for leaf in leaves)
    found = (
        None if _is_special(shape) else _trace(rules, treedef, _pattern(shape), _like(shape, avals))
    )
    if found is None:
        return run_rules(rules, shared, args)
    closed, out = found
    program = specialize(closed, _symbols(_pattern(shape)), shape)
    return jax.tree.unflatten(out, jaxpr_as_fun(program)(*leaves))


def _is_special(shape: tuple[int, ...]) -> bool:
    """Whether a shape must be traced for itself: sizes of 0 and 1 decide, and so do meshes."""
    return not shape or min(shape) < 2 or not jax.sharding.get_abstract_mesh().empty


def _pattern(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Which axes of a shape are equal, so that a rule may compare them."""
    return tuple(shape.index(size) for size in shape)


def _like(shape: tuple[int, ...], avals: Any) -> tuple[Any, ...] | None:
    """The arguments with None for the leaf's shape."""
    return tuple((None if one == shape else one, *rest) for one, *rest in avals)


@functools.lru_cache(maxsize=64)
def _symbols(pattern: tuple[int, ...]) -> tuple[Any, ...]:
    """Symbolic sizes for the axes of a leaf, equal ones for equal axes."""
    return export.symbolic_shape(", ".join(string.ascii_lowercase[axis] for axis in pattern))


@functools.lru_cache(maxsize=1024)
def _trace(
    rules: "tuple[LeafRule, ...]", treedef: Any, pattern: tuple[int, ...], avals: Any
) -> tuple[ClosedJaxpr, Any] | None:
    """The program of some rules for a symbolic shape; None where it depends on the shape."""
    shape = _symbols(pattern)
    leaves = [
        jax.ShapeDtypeStruct(shape if one is None else one, dtype, weak_type=weak)
        for one, dtype, weak in avals
    ]
    shared, args = jax.tree.unflatten(treedef, leaves)
    try:
        with jax.disable_jit():  # calls are inlined, so that only equations are left to specialize
            run = functools.partial(run_rules, rules)
            closed, out = jax.make_jaxpr(run, return_shape=True)(shared, args)
    except Exception:  # the rule looks at its shape, or is wrong: the usual trace will tell
        return None
    if not is_elementwise(closed.jaxpr, shape, calls=frozenset()):
        return None
    return closed, jax.tree.structure(out)
