"""What a trace costs, in exact counts, so that the next feature cannot pay with it unseen.

A count below its bound is good news: lower the bound. benchmarks/trace.py measures the seconds that
stand behind these counts.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import pytest

import gradtx
from benchmarks.trees import gpt2_small, many_small
from gradtx.tree.jaxprs import inner_jaxpr
from tests.support.cold import forget_traces

CALLS: list[None] = []


def counted(grad, slots, param, step, *, factor):
    CALLS.append(None)
    return factor * grad, slots


def step(tx: gradtx.GradientTransformation, params: Any, state: Any, grads: Any) -> Any:
    updates, state = tx.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state


def lower(tx: gradtx.GradientTransformation, tree: Any) -> Any:
    state = jax.eval_shape(tx.init, tree)
    return jax.jit(functools.partial(step, tx)).trace(tree, state, tree)


def equations(jaxpr: Any) -> int:
    """The equations of a program, those of its calls included, each call's once."""
    inner = {id(one): one for one in map(inner_jaxpr, jaxpr.eqns) if one is not None}
    return len(jaxpr.eqns) + sum(map(equations, inner.values()))


TREES: dict[str, Callable[[], Any]] = {"gpt2_small": gpt2_small, "500_leaves": many_small}


def inlined(jaxpr: Any) -> int:
    """The equations that XLA receives: those of its calls as often as they are called."""
    inner = map(inner_jaxpr, jaxpr.eqns)
    return sum(1 if one is None else inlined(one) for one in inner)


@pytest.mark.parametrize(
    ("tree", "calls", "lines", "all_equations"),
    [("gpt2_small", 38, 632, 2602), ("500_leaves", 26, 632, 8530)],
)
def test_a_step_of_adamw(tree: str, calls: int, lines: int, all_equations: int) -> None:
    """The outer calls of a traced step, the lines of its StableHLO, and what XLA makes of it.

    Optax's step has 2,673 and 9,009 equations; the numbers of one leaf are about 28.
    """
    forget_traces()  # a cold trace, whatever other tests have left in caches
    traced = lower(gradtx.adamw(1e-3), TREES[tree]())
    # A root with a derivative of its own is an equation within one of these, or is inlined.
    found = sum(one.primitive.name in ("jit", "pjit") for one in traced.jaxpr.jaxpr.eqns)
    assert found <= calls
    assert traced.lower().as_text().count("\n") <= lines
    assert inlined(traced.jaxpr.jaxpr) <= all_equations


def test_a_rule_is_traced_once_for_all_shapes_of_a_kind() -> None:
    """GPT-2 small has nine shapes: vectors, matrices, and one square matrix."""
    CALLS.clear()
    lower(gradtx.leafwise(None, counted, factor=0.5), gpt2_small())
    assert len(CALLS) == 3


@pytest.mark.parametrize(("devices", "each"), [(1, 2), (8, 16)])
def test_init_is_traced_once_per_shape(
    devices: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two arrays for each of nine shapes, and not for each of 148 leaves.

    Over several devices there is a choice for each array, which ties it to its leaf.
    """
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    jaxpr = jax.make_jaxpr(gradtx.adamw(1e-3).init)(gpt2_small()).jaxpr
    assert equations(jaxpr) <= each * 9
