"""Optax's classes of states, as constructors, annotations, and in `isinstance`."""

import pickle

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest

import gradtx
from gradtx.interop import state_classes
from gradtx.interop.state_classes import CLASSES

OTHERS = {
    "EmptyState",
    "GaLoreDimensionNumbers",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "LookaheadParams",
    "MaskedNode",
    "MuonDimensionNumbers",
    "ZoomLinesearchInfo",
}
"""NamedTuples of Optax's that are not states of one member."""


def theirs() -> dict[str, type]:
    both = {**vars(optax), **vars(optax.contrib)}
    return {
        name: one
        for name, one in both.items()
        if isinstance(one, type) and hasattr(one, "_fields") and not name.startswith("_")
    }


def test_every_class_of_optax_is_there():
    assert {*theirs()} - OTHERS == {*CLASSES} - {"DifferentiallyPrivateAggregateState"} | (
        {*theirs()} & {"DifferentiallyPrivateAggregateState"}
    )


@pytest.mark.parametrize("name", sorted({*theirs()} & {*CLASSES}))
def test_the_fields_are_those_of_optax(name):
    assert getattr(state_classes, name)._fields == theirs()[name]._fields  # pyright: ignore


def test_a_state_of_ones_own():
    state = gradtx.ScaleByAdamState(jnp.zeros(()), 2.0, nu=3.0)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, state)
    assert type(doubled) is gradtx.ScaleByAdamState
    assert doubled.nu == 6.0
    assert pickle.loads(pickle.dumps(state)) == state


PARAMS = {"w": jnp.ones(2)}


@pytest.mark.parametrize(
    ("tx", "name"),
    [
        (gradtx.adamw(0.1), "ScaleByAdamState"),
        (gradtx.sgd(0.1, momentum=0.9), "TraceState"),
        (gradtx.chain(gradtx.clip(1.0), gradtx.lion(0.1)), "ScaleByLionState"),
        (gradtx.inject_hyperparams(gradtx.adam)(0.1), "InjectHyperparamsState"),
        (gradtx.MultiSteps(gradtx.adam(0.1), 2), "MultiStepsState"),
        (gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 3)), "ScaleByScheduleState"),
        (gradtx.contrib.prodigy(), "ProdigyState"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_state_is_an_instance_of_its_members_class(tx, name):
    state, kind = tx.init(PARAMS), getattr(state_classes, name)
    assert isinstance(state, kind)
    assert isinstance(state[0], kind)
    others = [other for other in CLASSES if other not in (name, "ScaleByScheduleState")]
    wrong = [other for other in others if isinstance(state, getattr(state_classes, other))]
    assert wrong in (
        [],
        ["ScaleByAdamState"],
        ["InjectHyperparamsState", "InjectStatefulHyperparamsState"],
        ["InjectStatefulHyperparamsState", "ScaleByAdamState"],
    )
    fields = [field for field in kind._fields if field not in ("skip_state", "hyperparams_states")]
    assert all(hasattr(state, field) for field in fields)


def test_a_search_by_class_finds_the_count():
    kind = gradtx.ScaleByScheduleState
    state = gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 3)).init(PARAMS)
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    assert [int(leaf.count) for leaf in leaves] == [0]


def test_two_members_of_one_class_are_no_instance():
    tx = gradtx.chain(gradtx.sgd(0.1, momentum=0.9), gradtx.trace(0.8))
    assert not isinstance(tx.init(PARAMS), gradtx.TraceState)


def test_none_is_a_masked_node():
    assert isinstance(None, gradtx.MaskedNode)
    assert isinstance(gradtx.MaskedNode(), gradtx.MaskedNode)
    assert not isinstance(jnp.ones(1), gradtx.MaskedNode)
    assert jax.tree.leaves(gradtx.MaskedNode()) == []


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"state_classes has no 'AdamState'"):
        _ = state_classes.AdamState
