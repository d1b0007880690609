"""Optax beside gradtx: members of each other's chains; and the training helper."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.peer import optax

PARAMS = {"w": jnp.arange(1.0, 4.0), "b": jnp.ones(())}


def run(tx: Any, steps: int = 4) -> Any:
    params, state, update = PARAMS, tx.init(PARAMS), jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(params, state, params)
        params = optax.apply_updates(params, updates)
    return params


CHAINS = {
    "optax in gradtx": lambda: gradtx.chain(optax.clip_by_global_norm(1.0), gradtx.adamw(0.1)),
    "gradtx in optax": lambda: optax.chain(gradtx.clip_by_global_norm(1.0), optax.adamw(0.1)),
    "adam of gradtx in optax": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), gradtx.adamw(0.1)
    ),
    "optax whole in gradtx": lambda: gradtx.chain(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
    ),
    "named": lambda: gradtx.chain(clip=optax.clip_by_global_norm(1.0), adam=gradtx.adamw(0.1)),
    "masked optax": lambda: gradtx.chain(
        optax.clip_by_global_norm(1.0), gradtx.masked(optax.adamw(0.1), ".*")
    ),
    "tunable optax": lambda: gradtx.tunable(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), optax.adamw(0.1)), "max_norm"
    ),
    "descend": lambda: gradtx.chain(
        optax.clip_by_global_norm(1.0), gradtx.descend(optax.scale_by_adam(), 0.1, 1e-4)
    ),
    "optax.named_chain": lambda: optax.named_chain(
        ("clip", gradtx.clip_by_global_norm(1.0)), ("adam", gradtx.adamw(0.1))
    ),
    "optax.apply_if_finite": lambda: optax.apply_if_finite(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1)), 3
    ),
    "optax.MultiSteps": lambda: optax.MultiSteps(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1)), 1
    ),
    "gradtx": lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_members_of_each_other(name: str) -> None:
    chex.assert_trees_all_close(
        run(CHAINS[name]()),
        run(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))),
        rtol=2e-5,
    )


def test_foreign_members_are_named_by_where_they_come_from() -> None:
    tx = gradtx.chain(optax.scale_by_adam(), gradtx.scale(-1.0), optax.scale_by_adam())
    assert list(tx.init(PARAMS).slots) == ["scale_by_adam", "scale_by_adam_2"]


def test_a_foreign_line_search_gets_its_extra_arguments() -> None:
    """Optax's L-BFGS as a member: value, grad and value_fn reach it; it finds the minimum of a
    quadratic.
    """
    step = gradtx.make_step(
        lambda p: jnp.sum((p["w"] - 3.0) ** 2) + p["b"] ** 2,
        gradtx.chain(optax.lbfgs()),
        donate=False,
    )
    params, state, value = PARAMS, gradtx.chain(optax.lbfgs()).init(PARAMS), None
    for _ in range(5):
        params, state, value = step(params, state)
    np.testing.assert_allclose(params["w"], 3.0, rtol=1e-3)
    assert value is not None and float(value) < 1e-6


def loss(params: Any, x: jax.Array, scale: float) -> Any:
    value = scale * jnp.sum((params["w"] - x) ** 2)
    return value, {"largest": jnp.max(jnp.abs(params["w"]))}


def test_make_step() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1))
    step = gradtx.make_step(loss, tx, has_aux=True)
    params, state = jax.tree.map(jnp.copy, PARAMS), tx.init(PARAMS)
    given = params["w"]
    params, state, value, aux = step(params, state, jnp.zeros(3), 2.0)
    assert given.is_deleted(), "donated"
    assert float(value) == 28.0 and float(aux["largest"]) == 3.0 and int(state.count) == 1
    direction = PARAMS["w"] / jnp.linalg.norm(PARAMS["w"])
    np.testing.assert_allclose(params["w"], PARAMS["w"] - 0.1 * direction, rtol=1e-6)


def test_make_step_without_donation_and_with_optax() -> None:
    step = gradtx.make_step(lambda w: w**2, optax.sgd(0.25), donate=False)
    w = jnp.asarray(2.0)
    new, _, value = step(w, optax.sgd(0.25).init(w))
    assert float(new) == 1.0 and float(value) == 4.0 and float(w) == 2.0


def test_make_step_tells_value_grad_and_value_fn() -> None:
    seen = {}

    def spy(updates: Any, slots: Any, params: Any, step: Any, *, extra: Any) -> Any:
        seen.update(extra)
        seen["again"] = extra["value_fn"](params)
        return updates, slots

    gradtx.make_step(lambda w, x: w * x, gradtx.treewise(None, spy), donate=False)(
        jnp.asarray(2.0), gradtx.State(jnp.zeros((), jnp.int32), {}), 3.0
    )
    assert sorted(seen) == ["again", "grad", "value", "value_fn"]


def test_shard_map_and_sharded_parameters() -> None:
    """The same numbers on one device in shard_map as outside it."""
    from jax.sharding import Mesh, PartitionSpec

    mesh = Mesh(np.array(jax.devices()[:1]), ("x",))
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
    spec = PartitionSpec()

    def train(params: Any) -> Any:
        def body(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), None, length=3)[0][0]

    chex.assert_trees_all_close(
        jax.shard_map(train, mesh=mesh, in_specs=spec, out_specs=spec)(PARAMS),
        jax.jit(train)(PARAMS),
        rtol=1e-6,
    )


def _without_params(updates, state, *, log=None, **extra):
    return updates, (log, extra)


def _bare(updates, state):
    return updates, state


def test_the_update_of_a_pair_receives_what_it_takes() -> None:
    w = jnp.ones(1)
    tx = gradtx.GradientTransformation(lambda params: (), _without_params)
    assert tx.update(w, (), w, log=3, value=1.0)[1] == (3, {"value": 1.0})
    bare = gradtx.chain(gradtx.GradientTransformation(lambda params: (), _bare), gradtx.scale(2.0))
    assert bare.update(w, bare.init(w), w)[0].tolist() == [2.0]


def test_a_transformation_is_a_pair() -> None:
    tx = gradtx.sgd(0.1)
    init, update = tx
    assert (tx[0], tx[1]) == (init, update)


class _Subclass(gradtx.GradientTransformationExtraArgs):
    """A transformation of a user's own class."""

    def __new__(cls, rate: float):
        return super().__new__(cls, lambda params: (), lambda u, s, p=None: (-rate * u, s))


def test_a_subclass_is_a_transformation() -> None:
    tx = _Subclass(0.5)
    assert type(tx) is _Subclass and isinstance(tx, gradtx.GradientTransformation)
    assert type(jax.tree.map(lambda leaf: leaf, tx)) is _Subclass
    chain = gradtx.chain(tx, gradtx.scale(2.0))
    assert chain.update(jnp.ones(1), chain.init(jnp.ones(1)))[0].tolist() == [-1.0]
