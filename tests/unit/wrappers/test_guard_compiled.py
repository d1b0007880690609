"""guard as XLA sees it: no copies, one norm, nothing to the host; over devices."""

import functools
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import gradtx
from tests.support.guarding import PARAMS, clipped, step

# Where a step runs


def test_no_word_to_the_host() -> None:
    tx = gradtx.guard(clipped(), max_norm=9.0, zscore=4.0)
    text = str(jax.jit(tx.update).lower(PARAMS, tx.init(PARAMS), PARAMS).compile().as_text())
    assert not re.search(r"callback|infeed|outfeed| (?:conditional|while)\(", text), "nor a branch"


@pytest.mark.parametrize("checked", [False, True])
def test_shard_map_over_a_replicated_model(checked: bool) -> None:
    mesh, tx = (
        Mesh(np.array(jax.devices()), ("x",)),
        # Without types, nothing else says that arrays are whole.
        gradtx.guard(clipped(), zscore=4.0, warmup_steps=2, axis_names=None if checked else ()),
    )

    def train(params: Any, batch: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            params, state = carry
            grads = jax.grad(
                lambda params: (
                    jax.lax.pmean(jnp.mean(x), "x")
                    * sum(jnp.sum(w**2) for w in jax.tree.leaves(params))
                )
            )(params)
            return step(tx, params, state, grads), None

        return jax.lax.scan(body, (params, tx.init(params)), batch)[0]

    batch = jnp.ones((4, 8)).at[2, 5].set(jnp.nan)
    spec = PartitionSpec()
    mapped = jax.shard_map(
        train,
        mesh=mesh,
        in_specs=(spec, PartitionSpec(None, "x")),
        out_specs=spec,
        check_vma=checked,
    )
    params, state = jax.jit(mapped)(PARAMS, batch)
    assert state.slots["guard"].not_finite == 1 and state.count == 3
    expected, other = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        expected, other = step(tx, expected, other, jax.tree.map(lambda w: 2 * w, expected))
    chex.assert_trees_all_close(params, expected, rtol=1e-5)


# What XLA:CPU makes of a donated step


TREE = {f"w{number}": jax.ShapeDtypeStruct((256, 512), jnp.float32) for number in range(4)} | {
    "b": jax.ShapeDtypeStruct((512,), jnp.float32)
}
BYTES = sum(4 * leaf.size for leaf in TREE.values())


@functools.cache
def compiled(tx: Any) -> tuple[int, int, int]:
    """The bytes beside the arguments, copies of arrays as large as a parameter, and sums over whole
    arrays.
    """
    made = (
        jax.jit(functools.partial(step, tx), donate_argnums=(0, 1))
        .trace(TREE, jax.eval_shape(tx.init, TREE), TREE)
        .lower()
        .compile()
    )
    text, memory = str(made.as_text()), made.memory_analysis()
    assert memory is not None
    return (
        memory.temp_size_in_bytes,
        len(re.findall(r"= f32\[256,512\]\S* copy\(", text)),
        len(re.findall(r" reduce\(", text)),
    )


FLAT = gradtx.adamw(1e-3)
CLIPPED = gradtx.chain(gradtx.clip_by_global_norm(1.0), FLAT)


@pytest.mark.parametrize(
    "inner",
    [FLAT, CLIPPED, gradtx.sgd(0.1, momentum=0.9), gradtx.accumulate(CLIPPED, 4)],
    ids=["adamw", "clip, adamw", "sgd", "accumulate"],
)
def test_a_donated_step_copies_nothing(inner: Any) -> None:
    for tx in (
        gradtx.guard(inner),
        gradtx.guard(inner, max_norm=9.0, zscore=4.0),
        gradtx.guard(inner, watch=("grad_norm", "value"), window=128, zscore=6.0),
    ):
        temporary, copies, _ = compiled(tx)
        assert temporary <= 0.01 * BYTES and copies == 0


def test_a_donated_step_of_lion_copies_what_it_copies_without_a_guard() -> None:
    """XLA:CPU keeps the old momentum beside the new one, guarded or not."""
    guarded, bare = compiled(gradtx.guard(gradtx.lion(1e-3))), compiled(gradtx.lion(1e-3))
    assert guarded[0] <= bare[0] + 0.01 * BYTES and guarded[1] == bare[1]


def test_a_clip_inside_shares_the_norm() -> None:
    """One sum over every array, whoever asks."""
    assert (
        compiled(CLIPPED)[2]
        == compiled(gradtx.guard(FLAT))[2]
        == compiled(gradtx.guard(CLIPPED, zscore=4.0))[2]
        == len(TREE)
    )


def test_the_counts_can_fail() -> None:
    """A branch around the step keeps copies of the state."""

    def branching(
        updates: Any, slots: Any, params: Any, step: Any, *, inner: Any, extra: Any
    ) -> Any:
        good = jnp.isfinite(gradtx.global_norm(updates))
        return jax.lax.cond(
            good,
            lambda: inner.update_slots(updates, slots, params, step, extra),
            lambda: (updates, slots),
        )

    def init(params: Any, *, inner: Any) -> dict[str, Any]:
        return inner.init_slots(params)

    assert compiled(gradtx.treewise(init, branching, inner=FLAT))[0] > 0.01 * BYTES
