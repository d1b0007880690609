"""A rule with a mistake, run as a user would run it, and what the user then reads."""

import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {"dense": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}}
MATRIX = {"dense": {"kernel": jnp.ones((3, 2))}}

Decorator = Callable[[Any], Any]
MODES = pytest.mark.parametrize("mode", [lambda call: call, jax.jit], ids=["eager", "jit"])
LIFTERS = {"leafwise": gradtx.leafwise, "matrixwise": gradtx.matrixwise}


class Moment(NamedTuple):
    mu: Any


def init_moment(param):
    return Moment(jnp.zeros_like(param))


def init_moments(params):
    return Moment(jax.tree.map(jnp.zeros_like, params))


def step(tx: gradtx.GradientTransformation, mode: Decorator, params: Any = MATRIX) -> Any:
    return mode(tx.update)(params, tx.init(params), params)


def failure(call: Callable[[], Any]) -> Exception:
    """The exception that a call raises."""
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def notes(error: Exception) -> list[str]:
    """The notes of an exception without JAX's own."""
    found = getattr(error, "__notes__", [])
    return sorted(note for note in found if "JAX has removed its internal frames" not in note)


def frames(error: Exception) -> list[str]:
    """The functions of the traceback that are in gradtx."""
    stack = traceback.extract_tb(error.__traceback__)
    return [frame.name for frame in stack if "/gradtx/" in frame.filename]
