"""Rules whose step may be left out: slots stay bit for bit, and a step that is taken is that of the
rule alone.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError
from gradtx.engine.gate import gated_update
from gradtx.engine.leaf_rule import LeafRule
from gradtx.testing import gradients, parameters
from gradtx.testing.problems import extras
from gradtx.tree.casts import is_inexact
from tests.methods import METHODS
from tests.support.bits import bits


class Two(NamedTuple):
    """What the rules below keep."""

    a: Any
    b: Any


def helped(grad: jax.Array, slots: Two) -> Any:
    """Both slots out of one jitted helper, and the update out of a slot."""
    a, b = jax.jit(lambda g, old: (old.a + g, old.b * 2))(grad, slots)
    return a + b, Two(a, b)


def constants(grad: jax.Array, slots: Two) -> Any:
    return grad, Two(np.full(2, 7, np.float32), jnp.ones(2))


def inputs(grad: jax.Array, slots: Two) -> Any:
    """The last gradient is kept, and an old slot becomes the other."""
    return grad - slots.a, Two(grad, slots.a)


def unchanged(grad: jax.Array, slots: Two) -> Any:
    return grad, slots


def twice(grad: jax.Array, slots: Two) -> Any:
    """One array is both slots."""
    mean = (slots.a + grad) / 2
    return mean, Two(mean, mean)


def looped(grad: jax.Array, slots: Two) -> Any:
    """Slots out of a loop and out of a branch."""
    a = jax.lax.fori_loop(0, 3, lambda _, x: x * 0.5 + grad, slots.a)
    return a, Two(a, jax.lax.cond(jnp.sum(grad) > 0, lambda: slots.b + 1, lambda: slots.b))


def narrowed(grad: jax.Array, slots: Two) -> Any:
    """A slot that is rounded before the update is made of it."""
    a = (slots.a + grad).astype(jnp.bfloat16)
    return a * jnp.bfloat16(2), Two(a, slots.b)


def broadcast(grad: jax.Array, slots: Two) -> Any:
    return grad, Two(jnp.zeros(()), slots.b)


RULES = [helped, constants, inputs, unchanged, twice, looped, narrowed]
GRAD, OLD = jnp.array([1.0, -2.0]), Two(jnp.array([3.0, -0.0]), jnp.array([0.25, 1e-40]))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_whose_step_may_be_left_out(rule: Any, jit: bool) -> None:
    step = functools.partial(gated_update, update=rule, grad=GRAD, slots=OLD)
    step = jax.jit(step) if jit else step
    update, new = step(jnp.asarray(True))
    expected, kept = rule(GRAD, OLD)
    assert bits((update, new)) == bits((jnp.asarray(expected), jax.tree.map(jnp.asarray, kept)))
    assert [slot.tolist() for slot in step(jnp.asarray(False))[1]] == [
        slot.tolist() for slot in OLD
    ]
    assert bits(gated_update(None, rule, GRAD, OLD)) == bits((expected, kept))


def test_a_rule_that_keeps_nothing_is_only_run() -> None:
    assert gated_update(jnp.asarray(False), lambda grad, slots: (2 * grad, slots), GRAD, None)[
        0
    ].tolist() == [2.0, -4.0]


def test_a_slot_of_another_shape_is_left_to_the_lifter_to_refuse() -> None:
    def init(param: jax.Array) -> Two:
        return Two(jnp.zeros_like(param), jnp.zeros_like(param))

    def update(grad: jax.Array, slots: Any, param: Any, step: Any) -> Any:
        return broadcast(grad, slots)

    tx = gradtx.guard(gradtx.leafwise(init, update))
    with pytest.raises(
        ValueError,
        match=r"returned slot 'a' in shape \(\), and `init` made it in shape \(2,\): a slot "
        r"keeps its "
        "shape",
    ):
        tx.update(GRAD, tx.init(GRAD))


def test_the_choice_is_made_before_the_update() -> None:
    """The update is made of chosen slots, so that no kernel needs a new and an old slot at once."""
    jaxpr = jax.make_jaxpr(lambda gate: gated_update(gate, helped, GRAD, OLD))(True).jaxpr
    update, *slots = jaxpr.outvars
    (equation,) = [one for one in jaxpr.eqns if update in one.outvars]
    assert set(equation.invars) == set(slots)


def leaf_rules(tx: Any) -> bool:
    return all(isinstance(item.rule, LeafRule) for item in tx.rules)


def seen(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if leaf_rules(method.tx)]
)
def test_every_rule_of_the_table(name: str) -> None:
    """Left out at the first step and at the third, slots are bit for bit the old; else the step is
    the rule's, to rounding.
    """
    tx, params = (
        METHODS[name].tx,
        {key: leaf for key, leaf in parameters().items() if key in ("dense", "scalar")},
    )
    slots = tx.init_slots(params)
    for number in (1, 2, 3):
        grads = gradients(params, seed=number)
        told, step = extras(tx, params, grads), jnp.asarray(1.0 * number)
        if number != 2:
            _, same = tx.update_slots(grads, slots, params, step, told, jnp.asarray(False))
            assert bits(same) == bits(slots)
        updates, new = tx.update_slots(grads, slots, params, step, told, jnp.asarray(True))
        expected, kept = tx.update_slots(grads, slots, params, step, told)
        for mine, theirs in zip(seen((updates, new)), seen((expected, kept)), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=1e-6)
        slots = new


def test_a_state_that_was_left_out_is_not_another_definition() -> None:
    tx = gradtx.guard(gradtx.adam(0.1))
    with pytest.raises(GradtxError, match="guard directly around another guard"):
        gradtx.guard(tx).init(GRAD)
