"""Products with a Hessian and diagonals, beside the dense Hessian of a quartic loss."""

import functools
import warnings

import numpy as np
import optax

from gradtx import second_order
from tests.functions.row import Case, Function

_rng = np.random.default_rng(14)
_params = {"a": _rng.normal(size=(2, 3)), "b": _rng.normal(size=2)}
_inputs, _targets = _rng.normal(size=(5, 3)), _rng.normal(size=(5, 2))
_v = _rng.normal(size=8)


def _loss(params, inputs, targets):
    """Σ r⁴ with r = W x + b − y."""
    return ((inputs @ params["a"].T + params["b"][None] - targets) ** 4).sum()


def _design():
    """The derivative of each residual by each parameter: (10, 8)."""
    rows = [
        np.concatenate([np.outer(np.eye(2)[output], x).ravel(), np.eye(2)[output]])
        for x in _inputs
        for output in range(2)
    ]
    return np.stack(rows)


def _hessian():
    """Σ 12 r² ∇r ∇rᵀ, since r is linear."""
    residuals = (_inputs @ _params["a"].T + _params["b"] - _targets).ravel()
    design = _design()
    return design.T @ (12 * residuals[:, None] ** 2 * design)


def _gradient():
    residuals = (_inputs @ _params["a"].T + _params["b"] - _targets).ravel()
    return _design().T @ (4 * residuals**3)


def _tree(vector):
    return {"a": vector[:6].reshape(2, 3), "b": vector[6:]}


def _quiet(function):
    """Optax's function without its warning that it will be removed."""

    @functools.wraps(function)
    def call(*args):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return function(_loss, *args)

    return call


def _on_loss(function):
    return functools.partial(function, _loss)


_point = (_params, _inputs, _targets)
FUNCTIONS = {
    "hvp": Function(
        call=_on_loss(second_order.hvp),
        reference=lambda v, *args: _tree(_hessian() @ v),
        peer=_quiet(optax.second_order.hvp),
        cases={"vector": Case((_v, *_point))},
        differentiable=(0, 1),
    ),
    "hessian_diag": Function(
        call=_on_loss(second_order.hessian_diag),
        reference=lambda *args, **kwargs: np.diag(_hessian()),
        peer=lambda *args, **kwargs: _quiet(optax.second_order.hessian_diag)(*args),
        cases={
            "at once": Case(_point),
            "chunks": Case(_point, {"chunk_size": 3}),
            "one by one": Case(_point, {"chunk_size": 1}),
        },
        static=("chunk_size",),
    ),
    "fisher_diag": Function(
        call=_on_loss(second_order.fisher_diag),
        reference=lambda *args: _gradient() ** 2,
        peer=_quiet(optax.second_order.fisher_diag),
        cases={"batch": Case(_point)},
    ),
}
