"""Lookahead on pairs, and sharpness-aware steps, in their corners and beside Optax."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.definition.errors import (
    HyperparamError,
    MissingExtraError,
    StructureError,
)
from tests.methods.row import rate
from tests.methods.wrappers import climb, climb_optax
from tests.oracles.wrappers import slopes
from tests.support.close import close
from tests.support.peer import optax
from tests.support.trees import gradient, start

contrib = optax.contrib
ONE, NAN = jnp.array(1.0), jnp.array(jnp.nan)


# Lookahead, averages


@pytest.mark.parametrize("reset", [False, True])
def test_lookahead_on_pairs_is_that_of_optax(reset: bool) -> None:
    with jax.enable_x64(True):
        ends = []
        for lib in (gradtx, optax):
            tx = lib.chain(
                lib.lookahead(lib.sgd(rate, momentum=0.9), 3, 0.6, reset_state=reset),
                lib.scale(0.9),
            )
            params = lib.LookaheadParams.init_synced(list(map(jnp.asarray, start())))
            state = tx.init(params)
            for step in range(1, 9):
                updates, state = jax.jit(tx.update)(
                    list(map(jnp.asarray, gradient(step))), state, params
                )
                params = lib.apply_updates(params, updates)
            ends.append(tuple(params))
        close(*ends)


def test_lookahead_on_pairs_keeps_no_slow_parameters_and_is_first() -> None:
    params = gradtx.LookaheadParams.init_synced({"w": jnp.ones(2)})
    tx = gradtx.lookahead(gradtx.sgd(0.1), 2, 0.5)
    assert jax.tree.leaves(tx.init(params).slots) == []
    late, masked = gradtx.chain(gradtx.clip(1.0), tx), gradtx.masked(tx, "fast")
    for wrong in (late, masked):
        with pytest.raises(
            StructureError, match="'w' is only in the gradients, 'fast/w' is only in the parameters"
        ):
            wrong.update(params.fast, wrong.init(params), params)
    with pytest.raises(
        StructureError, match="the gradients and the parameters differ in structure"
    ):
        tx.update({"v": jnp.ones(2)}, tx.init(params), params)


def test_pairs_may_be_donated() -> None:
    pair = gradtx.LookaheadParams.init_synced(jnp.array(1.0))
    double = jax.jit(lambda pair: jax.tree.map(lambda leaf: 2 * leaf, pair), donate_argnums=0)
    assert double(pair) == (2.0, 2.0)


def test_lookahead_on_plain_parameters_and_on_pairs_agree() -> None:
    plain, tx = jnp.array(8.0), gradtx.lookahead(gradtx.sgd(1.0), 2, 0.25)
    pair = gradtx.LookaheadParams.init_synced(plain)
    states = [tx.init(plain), tx.init(pair)]
    for _ in range(3):
        one, states[0] = tx.update(ONE, states[0], plain)
        two, states[1] = tx.update(ONE, states[1], pair)
        plain, pair = gradtx.apply_updates(plain, one), gradtx.apply_updates(pair, two)
    assert (plain, states[0].slots["lookahead"].slow) == pair == (6.5, 7.5)


# Sharpness


def test_both_forms_of_sam_take_the_same_steps() -> None:
    with jax.enable_x64(True):
        w = [jnp.array([1.0, -2.0]), jnp.array(0.5)]
        up = gradtx.chain(gradtx.normalize(), gradtx.sgd(0.1))
        at_once = gradtx.sam(gradtx.adam(0.1), up, 3, opaque_mode=True)
        one_by_one = gradtx.sam(gradtx.adam(0.1), up, 3)
        state, other, v = at_once.init(w), one_by_one.init(w), w
        for _ in range(3):
            updates, state = at_once.update(
                slopes(w, 0), state, w, grad_fn=lambda w, i: slopes(w, 0)
            )
            w = gradtx.apply_updates(w, updates)
            for _ in range(3):
                updates, other = one_by_one.update(slopes(v, 0), other, v)
                v = gradtx.apply_updates(v, updates)
            close(v, w)


def test_the_step_down_is_averaged_over_the_batch_as_in_optax() -> None:
    w, grads = jnp.array([1.0, -2.0]), jnp.array([[0.3, -0.1], [0.5, 0.2]])

    def first(sam: Any, lib: Any, grad: Any) -> Any:
        tx = sam(lib.adam(0.1), lib.sgd(0.5), opaque_mode=True, batch_axis_name="batch")
        return tx.update(grad, tx.init(w), w, grad_fn=lambda w, i: jnp.cos(w) * grad)[0]

    ours, theirs = (
        jax.vmap(functools.partial(first, sam, lib), axis_name="batch")(grads)
        for sam, lib in ((gradtx.sam, gradtx), (contrib.sam, optax))
    )
    close(ours, theirs, 1e-5)
    assert ours[0].tolist() == ours[1].tolist()


def test_what_sam_must_be_told() -> None:
    tx = gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.1), opaque_mode=True)
    assert tx.needs == {"params", "grad_fn"}
    with pytest.raises(
        MissingExtraError,
        match=r"sam needs grad_fn: call update\(grads, state, params, grad_fn=\.\.\.\)",
    ):
        tx.update(ONE, tx.init(ONE), ONE)
    with pytest.raises(
        HyperparamError,
        match=r"batch_axis_name = 'b' has no effect without opaque_mode=True: average the",
    ):
        gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.1), batch_axis_name="b")


def test_opaque_sam_keeps_its_ascent_if_asked() -> None:
    ours, theirs = (
        sam(lib.sgd(0.1), up, 3, reset_state=False, opaque_mode=True)
        for sam, lib, up in ((gradtx.sam, gradtx, climb), (contrib.sam, optax, climb_optax))
    )
    w = [jnp.array([1.0, -2.0])]
    state, other = ours.init(w), theirs.init(w)
    for _ in range(3):
        updates, state = ours.update(w, state, w, grad_fn=slopes)
        expected, other = theirs.update(w, other, w, grad_fn=slopes)
        close(updates, expected, 1e-5)
    assert (
        gradtx.sam(gradtx.sgd(0.1), climb, 3, opaque_mode=True).init(w).slots["sam"].adv_optimizer
        is None
    )
