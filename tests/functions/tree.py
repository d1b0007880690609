"""Functions of trees."""

from typing import Any

import jax
import numpy as np
import optax

import gradtx
from gradtx.tree import algebra, constants, dtypes, moments, reductions
from tests.functions.row import Case, Function

_x = np.linspace(-2.0, 3.0, 12).reshape(3, 4)
_y = np.cos(np.arange(12.0)).reshape(3, 4)
_c = _x + 1j * _y
X = {"a": _x, "b": (_x[0], None), "n": np.float64(0.7)}
Y = {"a": _y, "b": (_y[1], None), "n": np.float64(-1.3)}
Z = {"a": _c, "b": (_c[2], None)}
W = {"a": np.conj(_c) * (1 - 2j), "b": (_c[0], None)}
MIXED = {"i": np.arange(5), "f": _x}
PAIRS = {"real": Case((X, Y)), "complex": Case((Z, W))}
ONE = {"real": Case((X,)), "complex": Case((Z,))}


def _mapped(function: Any) -> Any:
    return lambda *trees, **kwargs: jax.tree.map(
        lambda *leaves: np.asarray(function(*leaves, **kwargs)), *trees
    )


def _vector(tree: Any) -> np.ndarray:
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def _global_norm(tree):
    return np.sqrt(np.sum(np.abs(_vector(tree)) ** 2))


def _norm(tree, ord=None, squared=False):
    sizes = np.abs(_vector(tree))
    value = {1: np.sum, "inf": lambda s: np.max(s, initial=0.0)}.get(
        ord, lambda s: np.sqrt(np.sum(s**2))
    )(sizes)
    return np.asarray(value**2 if squared else value, np.float64)


def _add_scale(x, scalar, y):
    return jax.tree.map(lambda one, other: one + scalar * other, x, y)


def _clip(tree, min_value=None, max_value=None):
    low, high = (-np.inf if min_value is None else min_value), max_value
    return _mapped(lambda x: np.minimum(np.maximum(x, low), np.inf if high is None else high))(tree)


def _average(order, is_size):
    def reference(updates, moments, decay):
        def leaf(grad, moment):
            base = np.abs(grad) if is_size and np.iscomplexobj(grad) else grad
            return decay * moment + (1 - decay) * base**order

        return jax.tree.map(leaf, updates, moments)

    return reference


def _infinity(updates, moments, decay, eps):
    return jax.tree.map(lambda g, m: np.maximum(np.abs(g) + eps, decay * m), updates, moments)


def _where(condition, x, y):
    return jax.tree.map(lambda one, other: np.where(condition, one, other), x, y)


def _moment_row(name: str, order: int, is_size: bool, cases: dict[str, Case]) -> Function:
    ours, theirs = getattr(moments, name), getattr(optax, name)
    return Function(
        call=lambda g, m, decay: ours(g, m, decay, order),
        reference=_average(order, is_size),
        peer=lambda g, m, decay: theirs(g, m, decay, order),
        cases=cases,
        differentiable=(0, 1) if "complex" not in "".join(cases) else (),
    )


REAL_MOMENTS = {"real": Case((X, Y, 0.9)), "slow": Case((X, Y, 0.999))}
SIZES = {"a": np.abs(_c), "b": (np.abs(_c[1]), None)}

FUNCTIONS = {
    "global_norm": Function(
        call=gradtx.global_norm,
        reference=_global_norm,
        peer=optax.tree.norm,
        cases={"tree": Case(({"a": _x, "b": _x[0]},)), "complex": Case((Z,))},
        differentiable=(),
    ),
    "tree.add": Function(
        call=algebra.add,
        reference=_mapped(lambda *leaves: sum(leaves)),
        peer=optax.tree.add,
        cases={**PAIRS, "three": Case((X, Y, X))},
    ),
    "tree.add of integers": Function(
        call=algebra.add,
        reference=_mapped(lambda *leaves: sum(leaves)),
        peer=optax.tree.add,
        cases={"mixed": Case((MIXED, MIXED))},
        differentiable=(),
    ),
    "tree.sub": Function(
        call=algebra.sub,
        reference=_mapped(np.subtract),
        peer=optax.tree.sub,
        cases=PAIRS,
        differentiable=(),
    ),
    "tree.mul": Function(
        call=algebra.mul,
        reference=_mapped(np.multiply),
        peer=optax.tree.mul,
        cases=PAIRS,
        differentiable=(),
    ),
    "tree.div": Function(
        call=algebra.div,
        reference=_mapped(np.divide),
        peer=optax.tree.div,
        cases=PAIRS,
        differentiable=(),
    ),
    "tree.add_scale": Function(
        call=algebra.add_scale,
        reference=_add_scale,
        peer=optax.tree.add_scale,
        cases={
            "real": Case((X, -0.3, Y)),
            "array": Case((X, np.float64(0.7), Y)),
            "complex": Case((Z, 0.3, W)),
            "complex scalar": Case((X, 1 - 2j, Y)),
        },
        differentiable=(),
    ),
    "tree.scale": Function(
        call=algebra.scale,
        reference=lambda scalar, tree: _mapped(lambda x: scalar * x)(tree),
        peer=optax.tree.scale,
        cases={"real": Case((-0.3, X)), "complex": Case((2j, Z)), "integers": Case((0.5, MIXED))},
        differentiable=(),
    ),
    "tree.conj": Function(
        call=algebra.conj,
        reference=_mapped(np.conj),
        peer=optax.tree.conj,
        cases=ONE,
        differentiable=(),
    ),
    "tree.real": Function(
        call=algebra.real,
        reference=_mapped(np.real),
        peer=optax.tree.real,
        cases=ONE,
        differentiable=(),
    ),
    "tree.clip": Function(
        call=algebra.clip,
        reference=_clip,
        peer=optax.tree.clip,
        cases={
            "both": Case((X, -0.5, 0.9)),
            "low": Case((X,), {"min_value": 0.1}),
            "high": Case((X, None, 0.1)),
            "none": Case((X,)),
            "crossed": Case((X, 1.0, -1.0)),
            "integers": Case((MIXED, 0.5, 2.5)),
        },
        differentiable=(),
    ),
    "tree.where": Function(
        call=algebra.where,
        reference=_where,
        peer=optax.tree.where,
        cases={"yes": Case((True, X, Y)), "no": Case((np.asarray(False), X, Y))},
        differentiable=(1, 2),
    ),
    "tree.norm": Function(
        call=reductions.norm,
        reference=_norm,
        peer=optax.tree.norm,
        cases={
            "default": Case((X,)),
            "complex": Case((Z,)),
            "integers": Case((MIXED,)),
            "1": Case((X,), {"ord": 1}),
            "complex 1": Case((Z,), {"ord": 1, "squared": True}),
            "inf": Case((X,), {"ord": "inf"}),
            "complex inf": Case((Z,), {"ord": "inf", "squared": True}),
            "squared": Case((X,), {"ord": 2, "squared": True}),
            "empty": Case(({},)),
        },
        static=("ord", "squared"),
        differentiable=(),
    ),
    "tree.norm of floats": Function(
        call=reductions.norm,
        reference=_norm,
        peer=optax.tree.norm,
        cases={str(ord): Case((X,), {"ord": ord}) for ord in (2, 1, "inf")},
        static=("ord",),
    ),
    "tree.vdot": Function(
        call=reductions.vdot,
        reference=lambda x, y: np.vdot(_vector(x), _vector(y)),
        peer=optax.tree.vdot,
        cases={**PAIRS, "half": Case((X, {**Y, "a": _c})), "empty": Case(({}, {}))},
        differentiable=(),
    ),
    "tree.vdot of floats": Function(
        call=reductions.vdot,
        reference=lambda x, y: np.vdot(_vector(x), _vector(y)),
        peer=optax.tree.vdot,
        cases={"real": Case((X, Y))},
        differentiable=(0, 1),
    ),
    "tree.sum": Function(
        call=reductions.sum,
        reference=lambda tree, associative_reduction=False: np.sum(_vector(tree)),
        peer=optax.tree.sum,
        cases={
            **ONE,
            "mixed": Case((MIXED,)),
            "pairs": Case(({**X, "z": _y, "q": _x},), {"associative_reduction": True}),
        },
        static=("associative_reduction",),
        differentiable=(),
    ),
    "tree.max": Function(
        call=reductions.max,
        reference=lambda tree: np.max(_vector(tree), initial=-np.inf),
        peer=optax.tree.max,
        cases={"real": Case((X,)), "sizes": Case(({**X, "e": _x[:0]},))},
    ),
    "tree.max of none": Function(
        call=reductions.max,
        reference=lambda tree: np.asarray(-np.inf),
        peer=optax.tree.max,
        cases={"empty": Case(({},))},
        differentiable=(),
    ),
    "tree.min": Function(
        call=reductions.min,
        reference=lambda tree: np.min(_vector(tree), initial=np.inf),
        peer=optax.tree.min,
        cases={"real": Case((X,))},
    ),
    "tree.min of none": Function(
        call=reductions.min,
        reference=lambda tree: np.asarray(np.inf),
        peer=optax.tree.min,
        cases={"empty": Case(({},))},
        differentiable=(),
    ),
    "tree.size": Function(
        call=reductions.size,
        reference=lambda tree: _vector(tree).size,
        peer=optax.tree.size,
        cases={**ONE, "empty": Case(({},))},
        differentiable=(),
    ),
    "tree.allclose": Function(
        call=reductions.allclose,
        reference=lambda a, b, rtol=1e-5, atol=1e-8: np.allclose(
            _vector(a), _vector(b), rtol, atol
        ),
        peer=optax.tree.allclose,
        cases={
            "same": Case((X, X)),
            "other": Case((X, Y)),
            "near": Case((X, {**X, "a": _x + 1e-3}, 1e-5, 2e-3)),
            "far": Case((X, {**X, "a": _x + 1e-3}, 1e-5, 0.5e-3)),
            "empty": Case(({}, {})),
        },
        differentiable=(),
    ),
    "tree.zeros_like": Function(
        call=constants.zeros_like,
        reference=_mapped(np.zeros_like),
        peer=optax.tree.zeros_like,
        cases=ONE,
        differentiable=(),
    ),
    "tree.ones_like": Function(
        call=constants.ones_like,
        reference=_mapped(np.ones_like),
        peer=optax.tree.ones_like,
        cases=ONE,
        differentiable=(),
    ),
    "tree.full_like": Function(
        call=constants.full_like,
        reference=lambda tree, value: _mapped(lambda x: np.full_like(x, value))(tree),
        peer=optax.tree.full_like,
        cases={"real": Case((X, 2.5)), "mixed": Case((MIXED, 2.5))},
        differentiable=(),
    ),
    "tree.batch_shape": Function(
        call=constants.batch_shape,
        reference=lambda tree, shape=(): _mapped(
            lambda x: np.broadcast_to(x, (*shape, *np.shape(x)))
        )(tree),
        peer=optax.tree.batch_shape,
        cases={"axes": Case((X,), {"shape": (2, 3)}), "none": Case((X,))},
        static=("shape",),
    ),
    "tree.cast": Function(
        call=dtypes.cast,
        reference=lambda tree, dtype: _mapped(lambda x: np.asarray(x).astype(dtype))(tree),
        peer=optax.tree.cast,
        cases={"int32": Case((X,), {"dtype": "int32"})},
        static=("dtype",),
        differentiable=(),
    ),
    "tree.cast_like": Function(
        call=dtypes.cast_like,
        reference=lambda tree, other: jax.tree.map(lambda x, y: x.astype(y.dtype), tree, other),
        peer=optax.tree.cast_like,
        cases={"integers": Case(({"i": _x, "f": _y}, MIXED))},
        differentiable=(),
    ),
    "update_moment 1": _moment_row("update_moment", 1, False, REAL_MOMENTS),
    "update_moment 2": _moment_row("update_moment", 2, False, REAL_MOMENTS),
    "update_moment of complex": _moment_row(
        "update_moment", 2, False, {"complex": Case((Z, W, 0.9))}
    ),
    "update_moment_per_elem_norm": _moment_row(
        "update_moment_per_elem_norm", 2, True, REAL_MOMENTS
    ),
    "update_moment_per_elem_norm of complex": _moment_row(
        "update_moment_per_elem_norm", 2, True, {"complex": Case((Z, SIZES, 0.9))}
    ),
    "update_moment_per_elem_norm 3": _moment_row(
        "update_moment_per_elem_norm", 3, True, {"complex": Case((Z, SIZES, 0.9))}
    ),
    "update_infinity_moment": Function(
        call=moments.update_infinity_moment,
        reference=_infinity,
        peer=optax.update_infinity_moment,
        cases={
            "real": Case((X, jax.tree.map(np.abs, Y), 0.9, 1e-8)),
            "large ε": Case((X, jax.tree.map(np.abs, Y), 0.9, 0.5)),
        },
        differentiable=(0, 1),
    ),
    "update_infinity_moment of complex": Function(
        call=moments.update_infinity_moment,
        reference=_infinity,
        peer=optax.update_infinity_moment,
        cases={"complex": Case((Z, SIZES, 0.9, 1e-8))},
        differentiable=(),
    ),
    "bias_correction": Function(
        call=moments.bias_correction,
        reference=lambda moment, decay, count: _mapped(lambda m: m / (1 - decay**count))(moment),
        peer=optax.bias_correction,
        cases={
            "first": Case((X, 0.9, np.asarray(1))),
            "later": Case((X, 0.999, np.asarray(7))),
            "zero": Case((X, 0.0, np.asarray(2))),
            "array": Case((X, np.float64(0.99), np.asarray(3))),
        },
        single=3e-5,  # 0.999 in float32 is off by 1e-8, and 1 − 0.999 by 1e-5
    ),
}
