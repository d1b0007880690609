"""Projections: whole trees as Optax has them, and batches of vectors."""

import jax
import numpy as np
import optax

from gradtx import projections
from tests.functions.row import Case, Function
from tests.oracles import sets

_rng = np.random.default_rng(14)
_x = _rng.normal(size=(3, 5)) * 2.0
_a = _rng.normal(size=(3, 5))
_tree = {"a": _x, "b": _x[0, :2] + 0.3}
_normal = {"a": _a, "b": _a[1, :2]}


def _leaves(value, like):
    """A value beside every array of a tree, flat."""
    if isinstance(like, dict):
        each = [value[name] if isinstance(value, dict) else value for name in like]
        pairs = zip(each, like.values(), strict=True)
        return np.concatenate([np.broadcast_to(one, leaf.shape).ravel() for one, leaf in pairs])
    return np.broadcast_to(value, like.shape).ravel()


def _rest(rule, args, like):
    """The arguments after the point: normals and bounds per entry, numbers as they are."""
    per_entry = {sets.vector: 1, sets.hyperplane: 1, sets.halfspace: 1, sets.box: 2}
    per_entry |= {sets.hypercube: 1, sets.linf_ball: 1}
    count = per_entry.get(rule, 0)
    return [_leaves(one, like) if n < count else one for n, one in enumerate(args)]


def _reference(rule, x, *args, axis=None):
    if axis is not None:
        return _along(rule, x, *args)
    flat = rule(_leaves(x, x), *_rest(rule, args, x))
    if not isinstance(x, dict):
        return flat.reshape(x.shape)
    return dict(zip(x, sets.split(flat, list(x.values())), strict=True))


def _along(rule, x, *args):
    """Rows one by one; an argument of the rank of x has rows, another one number for each."""
    each = []
    for number, row in enumerate(x):
        rest = [np.broadcast_to(one, _due(one, x))[number] for one in args]
        each.append(rule(row, *rest))
    return np.stack(each)


def _due(value, x):
    """The shape of an argument for all rows: a normal for each, or a number for each."""
    return x.shape if np.shape(value) in (x.shape, x.shape[1:]) else x.shape[:1]


def row(name, *args, extra=None, rows=None):
    """A function: an array, a tree, rows with one set for all, and rows with one set for each."""
    rule = getattr(sets, name)
    kwargs = {"axis": -1}
    tree_args = [_normal if one is _a else one for one in args]
    row_args = [_a[0] if one is _a else one for one in args]
    return Function(
        call=getattr(projections, f"projection_{name}"),
        reference=lambda x, *rest, **kw: _reference(rule, x, *rest, **kw),
        peer=_optax(f"projection_{name}"),
        cases={
            "array": Case((_x, *args)),
            "tree": Case((_tree, *tree_args)),
            "rows": Case((_x, *row_args), kwargs),
            **{key: Case((_x, *value), kwargs) for key, value in (rows or {}).items()},
            **{key: Case(value) for key, value in (extra or {}).items()},
        },
        static=("axis",),
    )


def _optax(name):
    """Optax's function: trees of bounds for a tree, and rows by vmap."""
    function = getattr(optax.projections, name)

    def call(x, *args, axis=None):
        if axis is not None:
            return jax.vmap(function, in_axes=(0, *(_row_axis(one, x) for one in args)))(x, *args)
        if isinstance(x, dict) and name in ("projection_box", "projection_hypercube"):
            # Optax's hypercube refuses trees, so that a box with a lower bound of 0 replaces it.
            bounds = args if len(args) == 2 else (0.0, *args)
            trees = [jax.tree.map(lambda _, one=one: one, x) for one in bounds]
            return optax.projections.projection_box(x, *trees)
        return function(x, *args)

    return call


def _row_axis(value, x):
    return 0 if np.ndim(value) and _due(value, x)[0] == len(value) else None


_radii = np.array([0.5, 1.0, 40.0])
FUNCTIONS = {
    f"projection_{name}": one
    for name, one in {
        "simplex": row(
            "simplex",
            1.5,
            rows={"radii": (_radii,)},
            extra={"offset": (_x + 100.0, 2.0), "one": (_x[0, :1], 3.0), "large": (_x, 90.0)},
        ),
        "l1_ball": row(
            "l1_ball", 1.5, rows={"radii": (_radii,)}, extra={"inside": (_x / 100, 1.0)}
        ),
        "l1_sphere": row("l1_sphere", 1.5, rows={"radii": (_radii,)}),
        "l2_ball": row(
            "l2_ball", 1.5, rows={"radii": (_radii,)}, extra={"inside": (_x / 100, 1.0)}
        ),
        "l2_sphere": row("l2_sphere", 1.5, rows={"radii": (_radii,)}),
        "linf_ball": row("linf_ball", 1.5, rows={"radii": (_radii,)}),
        "hypercube": row("hypercube", 1.5, rows={"edges": (_radii,)}),
        "box": row("box", -0.7, 1.1, rows={"bounds": (-_radii, _radii)}),
        "non_negative": row("non_negative"),
        "vector": row("vector", _a, rows={"each": (_a,)}),
        "hyperplane": row("hyperplane", _a, 0.5, rows={"each": (_a, _radii)}),
        "halfspace": row("halfspace", _a, -5.0, rows={"each": (_a, _radii - 1.0)}),
    }.items()
}
