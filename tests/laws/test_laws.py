"""Every law on every method of the table; and the laws themselves can fail."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.testing import LAWS, check_laws
from tests.methods import FIRST, METHODS
from tests.support.pairs import PAIRS

OF_EQUATIONS = ("jit_equals_eager", "leaves_alone", "dtypes", "zero_gradient", "contained")
"""The laws that other arguments of the same maker may break; the others, which are of structure,
are held by the first row of each maker."""


CASES = [
    (name, law)
    for name in METHODS
    for law in LAWS
    if law in OF_EQUATIONS or (name in FIRST and PAIRS[name] == name)
]


@pytest.mark.parametrize(("name", "law"), CASES)
def test_law(name: str, law: str) -> None:
    with pytest.raises(AssertionError) if law in METHODS[name].breaks else contextlib.nullcontext():
        LAWS[law](METHODS[name].tx)


def test_every_law_is_held_by_every_maker() -> None:
    """Each by its own row, or by that of the optimizer whose rule and state are the same."""
    assert all((PAIRS[name], law) in CASES for name in FIRST for law in LAWS)
    assert PAIRS["scale_by_adam"] == "adam" and PAIRS["scale_by_rms"] == "scale_by_rms"


class Kept(NamedTuple):
    kept: jax.Array


def init_narrow(param: jax.Array) -> Kept:
    return Kept(jnp.zeros_like(param))


def rule(grad: jax.Array, slots: Any, param: Any, step: jax.Array, *, broken: str) -> Any:
    """A rule that breaks one law."""
    if broken == "zero_gradient":
        return grad / jnp.abs(grad), slots
    if broken == "contained":
        return grad + jnp.sum(grad) * 0, slots
    if broken == "dtypes":
        return grad, slots
    assert broken == "leaves_alone"
    return grad.at[0].set(0.0), slots


@pytest.mark.parametrize("broken", ["zero_gradient", "contained", "dtypes", "leaves_alone"])
def test_laws_notice_a_broken_rule(broken: str) -> None:
    tx = gradtx.leafwise(init_narrow if broken == "dtypes" else None, rule, broken=broken)
    with pytest.raises((AssertionError, IndexError, ValueError)):
        LAWS[broken](tx)


@pytest.mark.parametrize("value", [lambda value: 2 * value, lambda value: 0.1])
def test_laws_notice_a_schedule_of_another_value(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice each number; and the first number where the law asks for another."""
    wrong = lambda number: gradtx.constant_schedule(value(number))  # noqa: E731
    monkeypatch.setattr("gradtx.testing.laws.constant_schedule", wrong)
    with pytest.raises(AssertionError):
        LAWS["scheduled"](gradtx.sgd(0.1))


def hide_nan(grad: jax.Array, slots: None, param: None, step: jax.Array) -> Any:
    return jnp.where(jnp.isnan(grad), 0.0, grad), slots


def test_laws_notice_a_nan_that_is_hidden() -> None:
    with pytest.raises(AssertionError, match=r"nan became the number 0\.0"):
        LAWS["contained"](gradtx.leafwise(None, hide_nan))


CALLS = []


def impure_init(params: Any) -> dict[str, Any]:
    return {"calls": jnp.asarray(0)}


def impure_update(updates: Any, slots: Any, params: Any, step: Any) -> Any:
    CALLS.append(1)
    return jax.tree.map(lambda u: u * len(CALLS), updates), {"calls": slots["calls"] + 1.0}


@pytest.mark.parametrize("broken", ["pure", "scan_carry", "jit_equals_eager"])
def test_laws_notice_an_impure_rule(broken: str) -> None:
    with pytest.raises((AssertionError, TypeError)):
        LAWS[broken](gradtx.treewise(impure_init, impure_update))


def test_check_laws_runs_them_all() -> None:
    check_laws(gradtx.scale(-0.1))
    with pytest.raises(AssertionError):
        check_laws(gradtx.stateless(functools.partial(jax.tree.map, lambda u, p: u * p + 1e9)))
