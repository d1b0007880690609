"""Every optimizer, transform, wrapper and schedule of Optax has its name in gradtx, or a reason why
not.
"""

import importlib
import types
import warnings
from typing import Any

import pytest

import gradtx

MODULES = ("optax", "optax.contrib", "optax.transforms", "optax.schedules")
ELSEWHERE = (
    "losses",
    "tree_utils",
    "perturbations",
    "projections",
    "second_order",
    "assignment",
    "microbatching",
    "experimental",
)
ELSEWHERE += ("numerics", "linear_algebra", "utils")
"""Modules of Optax that are no gradient transformations."""

WITHOUT = {
    "ShouldSkipUpdateFunction": "a type of Optax's for a function that MultiSteps takes",
    "inject_stateful_hyperparams": "what follows other values than the count is a transformation",
    "WrappedSchedule": "the same",
    "StatefulSchedule": "the same",
    "TransformInitFn": "a type of Optax's for its closures",
    "TransformUpdateFn": "a type of Optax's for its closures",
    "TransformUpdateExtraArgsFn": "a type of Optax's for its closures",
    "ConditionFn": "a type of Optax's for its closures",
    "unitwise_norm": "a part of Optax's adaptive_grad_clip",
    "unitwise_clip": "a part of Optax's adaptive_grad_clip",
}


def names() -> dict[str, Any]:
    """What Optax's modules give that makes, or belongs to, gradient transformations and
    schedules.
    """
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in map(importlib.import_module, MODULES):
            for name in dir(module):
                value = getattr(module, name)
                home = getattr(value, "__module__", "") or ""
                is_own = home.startswith("optax") and not any(part in home for part in ELSEWHERE)
                if is_own and not name.startswith("_") and not isinstance(value, types.ModuleType):
                    found[name] = value
    return found


def is_state(value: Any) -> bool:
    """The state of one of Optax's, which in gradtx is slots by name."""
    return (
        isinstance(value, type)
        and issubclass(value, tuple)
        and value.__name__ not in ("GradientTransformation",)
    )


NAMES = names()


def test_the_inventory_is_not_empty() -> None:
    assert (
        len([name for name, value in NAMES.items() if callable(value) and not is_state(value)])
        > 130
    )


@pytest.mark.parametrize(
    "name", sorted(name for name, value in NAMES.items() if callable(value) and not is_state(value))
)
def test_a_name_of_optax_is_a_name_of_gradtx(name: str) -> None:
    assert hasattr(gradtx, name) != (name in WITHOUT), (
        f"optax has {name}: build it, or say in WITHOUT why not"
    )


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_what_is_left_out_is_still_a_name_of_optax(name: str) -> None:
    assert name in NAMES
