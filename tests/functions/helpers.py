"""Helpers for writers of transformations: safe norms, counters, roots and eigenvalues."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.transforms

from gradtx.linalg.newton_root import matrix_inverse_pth_root
from gradtx.linalg.nnls import nnls
from gradtx.linalg.power_iteration import power_iteration
from gradtx.transforms.adaptive_clipping import unitwise_clip, unitwise_norm
from gradtx.transforms.multi_normal import multi_normal
from gradtx.tree import numerics
from tests.functions.row import Case, Function

_v = np.array([3.0, -4.0, 0.5])
_m = np.linspace(-2.0, 3.0, 12).reshape(3, 4)
_zeros = np.concatenate([_m, np.zeros((1, 4))])
_c = _m + 1j * np.cos(_m)
_k = np.linspace(-1.0, 2.0, 72).reshape(3, 3, 2, 4)
_half = np.sin(np.arange(16.0)).reshape(4, 4)
_psd = _half @ _half.T + 0.5 * np.eye(4)


def _norm(x, min_norm, ord=None, axis=None, keepdims=False):
    return np.maximum(np.linalg.norm(x, ord, axis, keepdims), min_norm)


def _norm_by_slices(x, min_norm):
    return np.maximum(np.sqrt(np.sum(np.abs(x) ** 2, axis=1)), min_norm)


def _unit_axes(x):
    if sum(size > 1 for size in x.shape) < 2:
        return tuple(range(x.ndim))
    return {2: 0, 3: 0, 4: (0, 1, 2), 5: (0, 1, 2, 3)}[x.ndim]


def _unit_norm(x, axis=None):
    axes = _unit_axes(x) if axis is None else axis
    return np.broadcast_to(np.sqrt(np.sum(np.abs(x) ** 2, axis=axes, keepdims=True)), x.shape)


def _unit_clip(g_norm, max_norm, grad, div_eps=1e-6):
    return np.where(g_norm < max_norm, grad, grad * max_norm / np.maximum(g_norm, div_eps))


def _inverse_root(matrix, p, ridge_epsilon=1e-6, **_):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * (values + ridge_epsilon * values[-1]) ** (-1 / p) @ vectors.T


def _dominant(matrix):
    values, vectors = np.linalg.eigh(matrix)
    place = np.argmax(np.abs(values))
    vector = vectors[:, place]
    return values[place], vector * np.sign(vector[0])


def _power_steps(matrix, v0, num_iters):
    image, value = matrix @ v0, 0.0
    for _ in range(num_iters):
        vector = image / np.linalg.norm(image)
        image = matrix @ vector
        value = vector @ image
    return value, image / np.linalg.norm(image)


def _signed(pair: Any) -> Any:
    value, vector = pair
    return value, vector * jnp.sign(vector[0])


def _nnls(matrix, target, iters, L=None):
    gram, image = matrix.T @ matrix, matrix.T @ target
    bound = np.linalg.norm(gram) if L is None else L
    x = y = np.zeros_like(image)
    t = 0.0
    for _ in range(iters):
        new = np.maximum(y - (gram @ y - image) / bound, 0)
        t, before = (1 + np.sqrt(1 + 4 * t * t)) / 2, t
        x, y = new, new + (before - 1) / t * (new - x)
    return x


def _log_prob(loc, log_scale, x):
    z = (x - loc) / np.exp(log_scale)
    return np.sum(-0.5 * z * z - log_scale - 0.5 * np.log(2 * np.pi), axis=-1)


_theirs: Any = optax.scale_gradient  # its annotation hides that a tree is returned
EXACT = {"error_tolerance": 1e-14, "num_iters": 1000}
SYMMETRIC = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, -1.0]])

FUNCTIONS = {
    "safe_norm": Function(
        call=numerics.safe_norm,
        reference=_norm,
        peer=optax.safe_norm,
        cases={
            "vector": Case((_v, np.float64(1e-3))),
            "below": Case((_v, np.float64(10.0))),
            "matrix": Case((_m, np.float64(1e-3))),
            "columns": Case((_m, np.float64(1e-3)), {"axis": 0, "keepdims": True}),
            "1": Case((_m, np.float64(1e-3)), {"ord": 1, "axis": 1}),
            "3": Case((_m, np.float64(1e-3)), {"ord": 3, "axis": -1}),
            "nuclear": Case((_half[:3], np.float64(1e-3)), {"ord": "nuc"}),
            "both axes": Case((_m, np.float64(1e-3)), {"axis": (0, 1), "keepdims": True}),
        },
        static=("ord", "axis", "keepdims"),
        differentiable=(0, 1),
        single=3e-5,  # singular values of float32
    ),
    "safe_norm of parts": Function(
        call=lambda x, least: numerics.safe_norm(x, least, axis=1),
        reference=_norm_by_slices,
        peer=lambda x, least: optax.safe_norm(x, least, axis=1),
        cases={"a zero row": Case((_zeros, np.float64(0.1)))},
        differentiable=(0, 1),
    ),
    "safe_norm with bounds": Function(
        call=lambda x, least: numerics.safe_norm(x, least, axis=1),
        reference=_norm_by_slices,
        peer=None,
        reason="Optax broadcasts bounds to the rank of x, which these tests forbid",
        cases={"rows": Case((_m, np.array([9.0, 0.1, 4.0])))},
        differentiable=(0, 1),
    ),
    "safe_norm of complex": Function(
        call=numerics.safe_norm,
        reference=_norm,
        peer=optax.safe_norm,
        cases={"vector": Case((_c[0], 0.1))},
        differentiable=(),
    ),
    "safe_root_mean_squares": Function(
        call=numerics.safe_root_mean_squares,
        reference=lambda x, least: np.maximum(np.sqrt(np.mean(np.abs(x) ** 2)), least),
        peer=optax.safe_root_mean_squares,
        cases={
            "above": Case((_m, np.float64(0.1))),
            "below": Case((_m, np.float64(9.0))),
            "zero": Case((0 * _v, np.float64(0.1))),
        },
        differentiable=(0, 1),
    ),
    "safe_root_mean_squares of complex": Function(
        call=numerics.safe_root_mean_squares,
        reference=lambda x, least: np.maximum(np.sqrt(np.mean(np.abs(x) ** 2)), least),
        peer=optax.safe_root_mean_squares,
        cases={"above": Case((_c, 0.1))},
        differentiable=(),
    ),
    "safe_increment": Function(
        call=numerics.safe_increment,
        reference=lambda count: np.where(count == 2**31 - 1, count, count + (count < 2**31 - 1)),
        peer=optax.safe_increment,
        cases={"counts": Case((np.array([0, 7, 2**31 - 1], np.int32),))},
        differentiable=(),
    ),
    "safe_int32_increment": Function(
        call=numerics.safe_int32_increment,
        reference=lambda count: np.where(count == 2**31 - 1, count, count + (count < 2**31 - 1)),
        peer=optax.safe_int32_increment,
        cases={"counts": Case((np.array([0, 7, 2**31 - 1], np.int32),))},
        differentiable=(),
    ),
    "scale_gradient": Function(
        call=jax.grad(lambda x: numerics.scale_gradient({"x": x**3}, -0.5)["x"].sum()),
        reference=lambda x: -1.5 * x**2,
        peer=jax.grad(lambda x: jnp.sum(_theirs({"x": x**3}, -0.5)["x"])),
        cases={"matrix": Case((_m,))},
        differentiable=(),  # twice scaled, as every derivative is
    ),
    "unitwise_norm": Function(
        call=unitwise_norm,
        reference=_unit_norm,
        peer=optax.transforms.unitwise_norm,
        cases={
            "vector": Case((_v,)),
            "row": Case((_v[None],)),
            "matrix": Case((_m,)),
            "heads": Case((_k[0],)),
            "kernel": Case((_k,)),
            "volume": Case((_k[None],)),
            "axis": Case((_m,), {"axis": 1}),
        },
        static=("axis",),
    ),
    "unitwise_norm of complex": Function(
        call=unitwise_norm,
        reference=_unit_norm,
        peer=optax.transforms.unitwise_norm,
        cases={"matrix": Case((_c,))},
        differentiable=(),
    ),
    "unitwise_clip": Function(
        call=unitwise_clip,
        reference=_unit_clip,
        peer=optax.transforms.unitwise_clip,
        cases={
            "some": Case((_unit_norm(_m), np.full((3, 4), 3.3), _m)),
            "equal": Case((np.ones(3), np.ones(3), _v, 4.0)),
            "small": Case((np.full(3, 1e-9), np.full(3, 1e-12), 1e-9 * _v)),
        },
        differentiable=(2,),
    ),
    "power_iteration": Function(
        call=lambda a: _signed(power_iteration(a, **EXACT)),
        reference=_dominant,
        peer=lambda a: _signed(optax.power_iteration(a, **EXACT)),
        cases={"positive": Case((SYMMETRIC,)), "negative": Case((-SYMMETRIC,))},
        differentiable=(),
        single=1e-4,  # the residual of float32 stays at some rounding units
    ),
    "power_iteration of few steps": Function(
        call=lambda a, v0, n: power_iteration(a, v0=v0, num_iters=n, error_tolerance=0.0),
        reference=_power_steps,
        peer=lambda a, v0, n: optax.power_iteration(a, v0=v0, num_iters=n, error_tolerance=0.0),
        cases={str(n): Case((SYMMETRIC, _v, n)) for n in (0, 1, 5)},
        differentiable=(),
    ),
    "matrix_inverse_pth_root": Function(
        call=lambda a, p: matrix_inverse_pth_root(a, p, **EXACT)[0],
        reference=_inverse_root,
        peer=lambda a, p: optax.matrix_inverse_pth_root(a, p, **EXACT)[0],
        cases={str(p): Case((_psd, p)) for p in (1, 2, 4)},
        differentiable=(),
        single=1e-4,  # the condition number is 20
    ),
    "matrix_inverse_pth_root of other p": Function(
        call=lambda a, p: matrix_inverse_pth_root(a, p, **EXACT)[0],
        reference=_inverse_root,
        peer=None,
        reason="the roots of Optax 0.2.8 for p = 3 and 6 are off by 0.09 and 0.03",
        cases={str(p): Case((_psd, p)) for p in (3, 5, 6, 7)},
        differentiable=(),
        single=1e-4,  # the condition number is 20
    ),
    "nnls": Function(
        call=nnls,
        reference=_nnls,
        peer=optax.nnls,
        cases={
            **{str(n): Case((_m, _v), {"iters": n}) for n in (0, 1, 2, 3, 20)},
            "matrix": Case((_m, np.stack([_v, -_v], 1)), {"iters": 20}),
            "bound": Case((_m, _v), {"iters": 20, "L": 50.0}),
        },
        static=("iters",),
        differentiable=(),
    ),
    "nnls by its data": Function(
        call=lambda a, b: nnls(a, b, 20),
        reference=lambda a, b: _nnls(a, b, 20),
        peer=lambda a, b: optax.nnls(a, b, 20),
        cases={"matrix": Case((np.abs(_half)[:, :3], 1 + _half[0]))},
        differentiable=(0, 1),
    ),
    "multi_normal.log_prob": Function(
        call=lambda loc, log_scale, x: multi_normal(loc, log_scale).log_prob(x),
        reference=_log_prob,
        peer=lambda loc, log_scale, x: optax.multi_normal(loc, log_scale).log_prob(x),
        cases={"point": Case((_v, np.array([0.3, -1.0, 0.0]), _v + 0.5))},
        differentiable=(0, 1, 2),
    ),
}
