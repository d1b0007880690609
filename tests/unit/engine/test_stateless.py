"""Updates without a state: of rules that keep nothing and read no count."""

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.definition.errors import MissingParamsError, StateError
from gradtx.engine.stateless import needs_no_state, update_stateless

PARAMS = {"w": jnp.array([3.0, -4.0]), "b": jnp.array(0.5)}

STATELESS = {
    "a chain": gradtx.chain(gradtx.clip(1.0), gradtx.scale(2.0)),
    "a norm of the tree": gradtx.clip_by_global_norm(1.0),
    "a norm of an array": gradtx.clip_by_block_rms(1.0),
    "the parameters": gradtx.add_decayed_weights(0.1),
    "a mask": gradtx.masked(gradtx.scale_by_trust_ratio(), "w"),
    "a tree": gradtx.stateless(lambda updates, params: jax.tree.map(jnp.negative, updates)),
}


@pytest.mark.parametrize("name", STATELESS)
def test_the_update_is_that_with_a_state(name: str) -> None:
    tx = STATELESS[name]
    assert all(needs_no_state(tx, state) for state in (None, (), {}, ((), None)))
    for wrap in (jax.jit, lambda function: function):
        mine = wrap(lambda updates: update_stateless(tx, updates, PARAMS, {}))(PARAMS)
        with_state = wrap(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)[0]
        assert jax.tree.all(jax.tree.map(jnp.array_equal, mine, with_state))


def test_what_keeps_slots_needs_its_state() -> None:
    assert not needs_no_state(gradtx.adam(0.1), None)
    assert not needs_no_state(gradtx.clip(1.0), jnp.array(0))


@pytest.mark.parametrize(
    "tx", [gradtx.add_noise(0.1, 0.5, 0), gradtx.sgd(gradtx.linear_schedule(1, 0, 5))]
)
def test_what_reads_the_count_says_so(tx: gradtx.GradientTransformation) -> None:
    """The same noise at every step would be wrong, and nobody would see it."""
    with pytest.raises(
        StateError,
        match=rf"^{tx.name} keeps no slots, and reads the number of the step from the state: pass "
        r"the state that tx.init\(params\) returned$",
    ):
        update_stateless(tx, PARAMS, PARAMS, {})


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(MissingParamsError, match=r"^add_decayed_weights needs the parameters"):
        update_stateless(gradtx.add_decayed_weights(0.1), PARAMS, None, {})
