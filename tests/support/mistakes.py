"""Parameters, optimizers and acts for the tables of mistakes."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import gradtx

ADAM, ADAMW, SGD = gradtx.adam(1e-3), gradtx.adamw(1e-3), gradtx.sgd(0.1, momentum=0.9)
RATE = gradtx.linear_schedule(1.0, 0.0, 10)
TUNABLE = gradtx.tunable(ADAM, "learning_rate")
X = jnp.ones((4, 3))
Cases = dict[str, tuple[Callable[[], Any], type[Exception], str]]


def params() -> dict[str, Any]:
    return {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}


def other_shapes() -> dict[str, Any]:
    return {"w": jnp.ones((2, 3)), "b": jnp.zeros(2)}


def loss(p: Any, x: jax.Array) -> jax.Array:
    return jnp.mean((x @ p["w"] + p["b"][None]) ** 2)


STEP = gradtx.make_step(loss, ADAM)


def update(tx: gradtx.GradientTransformation, p: Any = None) -> Any:
    p = params() if p is None else p
    return tx.update(p, tx.init(p), p)


def jitted(tx: gradtx.GradientTransformation) -> Any:
    return jax.jit(tx.update)(params(), tx.init(params()), params())


def add_one(state: Any) -> None:
    state.count += 1


def hold(name: str, value: Any) -> Any:
    """Write a hyperparameter into a state, and make an update with it."""
    state = TUNABLE.init(params())
    state.hyperparams[name] = value
    return TUNABLE.update(params(), state, params())


def without(name: str) -> Any:
    state = TUNABLE.init(params())
    del state.hyperparams[name]
    return TUNABLE.update(params(), state, params())


def run(loss_fn: Callable[..., Any], **options: Any) -> Any:
    p = params()
    return gradtx.make_step(loss_fn, ADAM, **options)(p, ADAM.init(p), X)


def run_on(p: Any, loss_fn: Callable[..., Any]) -> Any:
    return gradtx.make_step(loss_fn, ADAM)(p, ADAM.init(p))


def taken() -> tuple[Any, Any]:
    """Parameters and a state that a step has received."""
    p = params()
    state = ADAM.init(p)
    STEP(p, state, X)
    return p, state


def taken_state() -> Any:
    return ADAM.update(params(), taken()[1], params())


def run_twice() -> Any:
    return STEP(*taken(), X)


def load_beside(name: str, asked: str) -> Any:
    gradtx.save(name, {"w": jnp.ones(2)})
    return gradtx.load(asked, params())


def load_text(name: str) -> Any:
    pathlib.Path(name).write_text("another format")
    return gradtx.load(name, params())


def saved_run(step: int) -> Any:
    for number in range(10, 50, 10):
        gradtx.save("run", params(), step=number, keep=2)
    return gradtx.load("run", params(), step=step)


def save_earlier() -> None:
    for number in (100, 1):
        gradtx.save("run", params(), step=number)
