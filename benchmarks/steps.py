"""The measured step, `step(params, state, grads)`, with the same text for both libraries."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import optax

import gradtx

LIBRARIES: dict[str, ModuleType] = {"gradtx": gradtx, "optax": optax}

LEARNING_RATE, MAX_NORM = 1e-3, 1.0


def adamw(library: ModuleType) -> Any:
    return library.adamw(LEARNING_RATE)


def clipped_adamw(library: ModuleType) -> Any:
    return library.chain(library.clip_by_global_norm(MAX_NORM), library.adamw(LEARNING_RATE))


OPTIMIZERS: dict[str, Callable[[ModuleType], Any]] = {"adamw": adamw, "clip + adamw": clipped_adamw}


def update_and_apply(
    library: ModuleType, tx: Any, params: Any, state: Any, grads: Any
) -> tuple[Any, Any]:
    updates, state = tx.update(grads, state, params)
    return library.apply_updates(params, updates), state


def eager_step(library: ModuleType, tx: Any) -> Callable[..., tuple[Any, Any]]:
    return functools.partial(update_and_apply, library, tx)


def jitted_step(library: ModuleType, tx: Any) -> Any:
    """The step jitted, parameters and state donated."""
    return jax.jit(eager_step(library, tx), donate_argnums=(0, 1))
