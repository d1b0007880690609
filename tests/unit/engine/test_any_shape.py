"""One trace for leaves of many shapes: the numbers are those of a leaf that is alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

SHAPES = {"a": (3, 4), "b": (5, 6), "c": (2, 9), "square": (4, 4), "large": (6, 6)}
"""Two groups of shapes: within each the same axes are equal."""
PARAMS = {
    name: jnp.linspace(-1.0, 1.0, shape[0] * shape[1]).reshape(shape)
    for name, shape in SHAPES.items()
}


class Mean(NamedTuple):
    mu: jax.Array


TRACED: list[Any] = []


def _init(param):
    return Mean(jnp.zeros_like(param))


def _corrected(grad, slots: Mean, param, step, *, decay):
    """A mean with its bias correction, in entries that are not negative alone."""
    TRACED.append(grad.shape)
    mu = decay * slots.mu + (1 - decay) * grad
    return jnp.where(grad < 0, decay**step, mu / (1 - decay**step)), Mean(mu)


def _filled(grad, slots: Mean, param, step):
    """An array of the shape of the leaf."""
    return jnp.ones(grad.shape) - jnp.where(grad < 0, jnp.zeros(grad.shape), grad), slots


def _sized(grad, slots: Mean, param, step):
    """A rule that uses its size as a number."""
    return grad / jnp.sqrt(grad.size) + jnp.full(grad.shape, grad.shape[0]), slots


def _of_squares(grad, slots: Mean, param, step):
    """A rule that compares axes."""
    rows, columns = grad.shape
    return (2.0 if rows == columns else 3.0) * grad, slots


def _centered(grad, slots: Mean, param, step):
    """A rule on whole arrays."""
    return grad - jnp.mean(grad), slots


RULES: dict[str, gradtx.GradientTransformation] = {
    "corrected": gradtx.leafwise(_init, _corrected, decay=0.9),
    "filled": gradtx.leafwise(_init, _filled),
    "sized": gradtx.leafwise(_init, _sized),
    "squares": gradtx.leafwise(_init, _of_squares),
    "centered": gradtx.leafwise(_init, _centered),
    "adamw": gradtx.adamw(0.1),
    "rmsprop": gradtx.rmsprop(0.1),
    "adan": gradtx.adan(0.1),
}


def updates_of(tx: gradtx.GradientTransformation, params: Any, jit: bool) -> list[Any]:
    """Three updates, each from the state of the one before."""
    update, state, each = jax.jit(tx.update) if jit else tx.update, tx.init(params), []
    for _ in range(3):
        updates, state = update(params, state, params)
        each.append(updates)
    return each


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_many_shapes_and_each_alone(name: str, jit: bool) -> None:
    together = updates_of(RULES[name], PARAMS, jit)
    for leaf, array in PARAMS.items():
        for many, one in zip(together, updates_of(RULES[name], {leaf: array}, jit), strict=True):
            np.testing.assert_allclose(many[leaf], one[leaf], rtol=1e-6, atol=1e-7)


def test_a_rule_on_entries_is_traced_once_per_group() -> None:
    """Symbolic sizes for each of two groups, and no shape by itself."""
    TRACED.clear()
    tx = gradtx.leafwise(_init, _corrected, decay=0.8, extra=())
    jax.jit(tx.update)(PARAMS, tx.init(PARAMS))
    assert len(TRACED) <= 2
