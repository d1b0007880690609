"""accumulate as one program: scans, batches, hypergradients, devices, and what does not run."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from tests.support.accumulating import optimizer, ramp, step

# Wherever a step may run


SHARDED = {"w": jnp.arange(32.0).reshape(8, 4) / 10, "v": jnp.arange(8.0)}


def train(tx: Any, params: Any, steps: int = 5) -> Any:
    """Micro-steps in a scan whose gradients are the parameters."""

    def body(carry: Any, _: None) -> Any:
        params, state = carry
        return step(tx, params, state, params), None

    return jax.lax.scan(body, (params, tx.init(params)), None, length=steps)[0]


def test_a_scan_is_the_steps_one_by_one() -> None:
    tx = gradtx.accumulate(optimizer(), ramp)
    params, state = SHARDED, tx.init(SHARDED)
    for _ in range(5):
        params, state = step(tx, params, state, params)
    chex.assert_trees_all_close(
        jax.jit(functools.partial(train, tx))(SHARDED), (params, state), rtol=1e-6
    )


def test_many_learning_rates_and_many_k_in_one_program() -> None:
    rates, ks = jnp.array([0.1, 0.2, 0.3]), jnp.array([1, 2, 3])

    def trained(rate: Any, k: Any) -> Any:
        return train(gradtx.accumulate(gradtx.adam(rate), k), {"w": jnp.ones(3)})[0]["w"]

    together = jax.jit(jax.vmap(trained))(rates, ks)
    for row, rate, k in zip(together, (0.1, 0.2, 0.3), (1, 2, 3), strict=True):
        np.testing.assert_allclose(row, trained(rate, k), rtol=1e-6)


def test_a_hypergradient_goes_through() -> None:
    """Of the end of a run, by the learning rate."""

    def end(rate: Any) -> jax.Array:
        return jnp.sum(train(gradtx.accumulate(gradtx.sgd(rate), 2), jnp.ones(3), 4)[0])

    np.testing.assert_allclose(
        jax.jit(jax.grad(end))(0.1), -3 * 2 * (1 - 0.1), rtol=1e-6
    )  # each update takes the mean, which is w, times the rate


@pytest.mark.parametrize(
    "spec", [PartitionSpec(), PartitionSpec("x")], ids=["replicated", "sharded"]
)
@pytest.mark.parametrize("checked", [False, True])
def test_shard_map(checked: bool, spec: Any) -> None:
    mesh = Mesh(np.array(jax.devices()), ("x",))
    run = functools.partial(train, gradtx.accumulate(gradtx.adamw(0.1), 2))
    mapped = jax.shard_map(
        lambda params: run(params)[0], mesh=mesh, in_specs=spec, out_specs=spec, check_vma=checked
    )
    chex.assert_trees_all_close(jax.jit(mapped)(SHARDED), run(SHARDED)[0], rtol=1e-6)


def test_shardings_are_kept() -> None:
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x"))
    params, tx = jax.device_put(SHARDED, sharding), gradtx.accumulate(gradtx.adam(0.1), 2)
    state = tx.init(params)
    for update in (tx.update, jax.jit(tx.update)):
        updates, state = update(params, state, params)
        for leaf in jax.tree.leaves((updates, state.slots)):
            assert leaf.ndim == 0 or leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


def test_what_is_not_due_does_not_run() -> None:
    costly = gradtx.accumulate(gradtx.stateless(lambda u, p: jnp.sort(u)), 3)
    text = str(
        jax.jit(costly.update)
        .lower(jnp.ones(4096), costly.init(jnp.ones(4096)))
        .compile()
        .as_text()
    )
    assert (
        "sort(" in text and "sort(" not in text[text.index("\nENTRY") :] and "conditional(" in text
    )
