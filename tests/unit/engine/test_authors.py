"""What the author of a rule reads when it raises, or returns what it should not.

Every mistake is made as a user would make it, eagerly and under `jit`.
"""

import linecache
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.definition.errors import GradtxError
from tests.support.authors import (
    LIFTERS,
    MODES,
    PARAMS,
    Decorator,
    Moment,
    failure,
    frames,
    init_moment,
    init_moments,
    notes,
    step,
)

# Exceptions of a rule.


def _attribute(grad, slots, param, step):
    return grad, slots.nu


def _missing_key(grad, slots, param, step):
    return grad, {}["momentum"]


def _assertion(grad, slots, param, step):
    raise AssertionError("never here")


RAISING = {_attribute: AttributeError, _missing_key: KeyError, _assertion: AssertionError}


@MODES
@pytest.mark.parametrize("lifter", LIFTERS)
@pytest.mark.parametrize("rule", RAISING)
def test_an_exception_carries_the_rule_and_the_leaf(
    rule: Any, lifter: str, mode: Decorator
) -> None:
    tx = gradtx.chain(gradtx.scale(2.0), mine=LIFTERS[lifter](init_moment, rule))
    error = failure(lambda: step(tx, mode))
    name = rule.__name__.strip("_")
    assert type(error) is RAISING[rule]
    assert notes(error) == [
        "raised at 'dense/kernel', a gradient f32[3,2], in the rules of scale, mine",
        f"raised in the rule {rule.__name__} of {name}",
    ]


@MODES
@pytest.mark.parametrize("rule", RAISING)
def test_an_exception_of_a_rule_on_trees_carries_the_rule(rule: Any, mode: Decorator) -> None:
    error = failure(lambda: step(gradtx.treewise(init_moments, rule), mode))
    assert type(error) is RAISING[rule]
    assert notes(error) == [f"raised in the rule {rule.__name__} of {rule.__name__.strip('_')}"]


def _wrap_attribute(updates, own, params, step, *, inner):
    return updates.nothing, inner, own


@MODES
def test_an_exception_of_a_wrapper_carries_its_rule(mode: Decorator) -> None:
    error = failure(lambda: step(gradtx.wrapwise(gradtx.scale(1.0), None, _wrap_attribute), mode))
    assert isinstance(error, AttributeError)
    assert notes(error) == ["raised in the rule _wrap_attribute of wrap_attribute"]


@MODES
def test_inside_wrappers_only_the_rule_that_raised_is_named(mode: Decorator) -> None:
    inside = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.leafwise(init_moment, _attribute))
    error = failure(lambda: step(gradtx.guard(gradtx.accumulate(inside, 1)), mode, PARAMS))
    assert notes(error) == [
        "raised at 'dense/bias', a gradient f32[2], in the rules of clip_by_global_norm, attribute",
        "raised in the rule _attribute of attribute",
    ]


@MODES
def test_a_traceback_shows_the_rule_and_not_the_engine(mode: Decorator) -> None:
    tx = gradtx.chain(gradtx.scale(2.0), gradtx.leafwise(init_moment, _attribute))
    error = failure(lambda: step(tx, mode))
    assert frames(error) == ["update"]
    *_, last = traceback.extract_tb(error.__traceback__)
    assert last.name == "_attribute"
    assert linecache.getline(__file__, last.lineno or 0).strip() == "return grad, slots.nu"


# What a rule returns.


def _only_update(grad, slots, param, step):
    return grad


def _nothing(grad, slots, param, step):
    return None


def _three(grad, slots, param, step):
    return grad, slots, step


def _slots_alone(grad, slots, param, step):
    return slots


ALONE = {
    _only_update: "an array alone",
    _nothing: "None alone",
    _three: "3 values",
    _slots_alone: "a Moment alone",
}


@MODES
@pytest.mark.parametrize("lifter", LIFTERS)
@pytest.mark.parametrize("rule", ALONE)
def test_a_rule_returns_a_pair(rule: Any, lifter: str, mode: Decorator) -> None:
    error = failure(lambda: step(LIFTERS[lifter](init_moment, rule), mode))
    name = rule.__name__
    assert isinstance(error, GradtxError)
    assert str(error) == (
        f"{name.strip('_')}: {name} returned {ALONE[rule]}: return a pair, (update, slots)"
    )
    assert notes(error)[0].startswith("raised at 'dense/kernel', a gradient f32[3,2]")


@MODES
@pytest.mark.parametrize("rule", ALONE)
def test_a_rule_on_trees_returns_a_pair(rule: Any, mode: Decorator) -> None:
    error = failure(lambda: step(gradtx.treewise(init_moments, rule), mode))
    name = rule.__name__
    shown = ALONE[rule].replace("an array", "a dict with 'dense'")
    assert str(error) == (
        f"{name.strip('_')}: {name} returned {shown}: return a pair, (updates, slots)"
    )


def _dict_of_slots(grad, slots, param, step):
    return grad, {"mu": grad}


def _plain_array(grad, slots, param, step):
    return grad, jnp.ones(2)


def _tuple_of_slots(grad, slots, param, step):
    return grad, (grad,)


def _none_as_slots(grad, slots, param, step):
    return grad, None


WRONG_SLOTS = {
    _dict_of_slots: "a dict with 'mu'",
    _plain_array: "an array",
    _tuple_of_slots: "a tuple",
    _none_as_slots: "None",
}


@MODES
@pytest.mark.parametrize("lifter", LIFTERS)
@pytest.mark.parametrize("rule", WRONG_SLOTS)
def test_slots_come_back_in_their_type(rule: Any, lifter: str, mode: Decorator) -> None:
    error = failure(lambda: step(LIFTERS[lifter](init_moment, rule), mode))
    name = rule.__name__
    assert str(error) == (
        f"{name.strip('_')}: {name} returned {WRONG_SLOTS[rule]} as its slots, and its `init` "
        "makes Moment(mu): return (update, Moment(mu))"
    )


@MODES
@pytest.mark.parametrize("rule", WRONG_SLOTS)
def test_slots_of_a_tree_keep_their_structure(rule: Any, mode: Decorator) -> None:
    error = failure(lambda: step(gradtx.treewise(init_moments, rule), mode))
    name = rule.__name__
    assert str(error) == (
        f"{name.strip('_')}: {name} returned {WRONG_SLOTS[rule]} as its slots, of another "
        "structure than the slots that it received, a Moment: return them as `init` makes them"
    )


def _slots_from_nowhere(grad, slots, param, step):
    return grad, Moment(grad)


@pytest.mark.parametrize(
    ("lifter", "advice"),
    [
        (
            gradtx.leafwise,
            "slots, and the rule has no `init`: pass a function that makes them before "
            "_slots_from_nowhere, or return (update, None)",
        ),
        (
            gradtx.treewise,
            "a Moment as its slots, and the rule has no `init`: pass a function that makes them, "
            "or return None",
        ),
    ],
    ids=["leafwise", "treewise"],
)
def test_slots_without_init(lifter: Any, advice: str) -> None:
    error = failure(lambda: step(lifter(None, _slots_from_nowhere), jax.jit))
    assert str(error) == f"slots_from_nowhere: _slots_from_nowhere returned {advice}"


def _other_shape(grad, slots, param, step):
    return jnp.sum(grad), slots


def _other_slot_shape(grad, slots, param, step):
    return grad, Moment(jnp.sum(grad))


@MODES
def test_update_and_slots_keep_their_shapes(mode: Decorator) -> None:
    error = failure(lambda: step(gradtx.leafwise(init_moment, _other_shape), mode))
    assert str(error) == (
        "other_shape: _other_shape returned an update of shape () for a gradient of shape (3, 2): "
        "an update keeps the gradient's shape"
    )
    error = failure(lambda: step(gradtx.leafwise(init_moment, _other_slot_shape), mode))
    assert str(error) == (
        "other_slot_shape: _other_slot_shape returned slot 'mu' in shape (), and `init` made it in "
        "shape (3, 2): a slot keeps its shape"
    )


def _wrap_two(updates, own, params, step, *, inner):
    return inner.update(updates, params)


def _wrap_update(updates, own, params, step, *, inner):
    return updates


def _wrap_order(updates, own, params, step, *, inner):
    updates, inner = inner.update(updates, params)
    return updates, own, inner


def _wrap_own(updates, own, params, step, *, inner):
    return updates, inner, {"count": step}


WRONG_TRIPLES = {
    _wrap_two: "2 values",
    _wrap_update: "a dict with 'dense' alone",
    _wrap_order: "a Moment second",
}


@MODES
@pytest.mark.parametrize("rule", WRONG_TRIPLES)
def test_a_wrapper_returns_updates_member_and_own_slots(rule: Any, mode: Decorator) -> None:
    error = failure(lambda: step(gradtx.wrapwise(gradtx.scale(1.0), init_moments, rule), mode))
    assert str(error) == (
        f"{rule.__name__.strip('_')}: {rule.__name__} returned {WRONG_TRIPLES[rule]}: return "
        "(updates, inner, own), with the member that inner.update returned"
    )


@MODES
def test_own_slots_of_a_wrapper_keep_their_structure(mode: Decorator) -> None:
    error = failure(lambda: step(gradtx.wrapwise(gradtx.scale(1.0), init_moments, _wrap_own), mode))
    assert str(error) == (
        "wrap_own: _wrap_own returned a dict with 'count' as its slots, of another structure than "
        "the slots that it received, a Moment: return them as `init` makes them"
    )
    error = failure(lambda: step(gradtx.wrapwise(gradtx.scale(1.0), None, _wrap_own), mode))
    assert str(error) == (
        "wrap_own: _wrap_own returned a dict with 'count' as its slots, and the rule has no "
        "`init`: pass a function that makes them, or return None"
    )
