"""Rules as programs: what an update sees of slots that are settled between its equations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from gradtx.tree.jaxprs import settle_slots


class Pair(NamedTuple):
    a: Any
    b: Any


GRAD, OLD = jnp.array([1.0, -2.0]), Pair(jnp.array([3.0, 5.0]), jnp.array([7.0, 9.0]))
VISIBLE = Pair(jnp.array([100.0, 200.0]), jnp.array([300.0, 400.0]))


def replaced(new: Pair) -> tuple[Pair, Pair]:
    """The slots to keep are the new ones, and those to see are others."""
    return new, VISIBLE


def computed(grad: jax.Array, slots: Pair) -> Any:
    a, b = slots.a + grad, slots.b * grad
    return a - b, Pair(a, b)


def last_gradient(grad: jax.Array, slots: Pair) -> Any:
    """The gradient itself is a slot, and an old slot becomes the other."""
    return grad + slots.a, Pair(grad, slots.a)


def one_array(grad: jax.Array, slots: Pair) -> Any:
    mean = slots.a + grad
    return 2 * mean, Pair(mean, mean)


UPDATES = {
    computed: VISIBLE.a - VISIBLE.b,
    last_gradient: GRAD + OLD.a,
    one_array: 2 * (OLD.a + GRAD),
}
"""The update of each rule: only a slot of one name that the rule computes has a settled value."""


@pytest.mark.parametrize("rule", UPDATES, ids=lambda rule: rule.__name__)
def test_an_update_sees_settled_slots(rule: Any) -> None:
    update, kept = settle_slots(rule, replaced, GRAD, OLD)
    assert update.tolist() == UPDATES[rule].tolist()
    expected = rule(GRAD, OLD)[1]
    assert [one.tolist() for one in kept] == [one.tolist() for one in expected]


def test_a_slot_that_is_settled_as_it_is() -> None:
    """None among the visible slots: the update sees the value that the rule computed."""
    update, _ = settle_slots(computed, lambda new: (new, Pair(None, VISIBLE.b)), GRAD, OLD)
    assert update.tolist() == (OLD.a + GRAD - VISIBLE.b).tolist()
