"""MUD, Muown, Muon+ and Newton-Muon's preconditioner: what laws and references cannot see."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
import gradtx.sharding
from gradtx.definition.errors import GradtxError, HyperparamError, StructureError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test draws the same numbers, whichever tests ran before it in the process."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def first(tx: gradtx.GradientTransformation, params: Any) -> Any:
    return tx.update(params, tx.init(params), params)[0]


def test_passes_of_mud_come_near_to_orthogonal() -> None:
    """The range of singular values on a Gaussian matrix narrows with every pass."""
    w = normal(64, 160)
    spread = []
    for passes in (1, 2, 3):
        values = np.linalg.svd(first(gradtx.scale_by_mud(passes), w), compute_uv=False)
        spread.append(max(values.max() - 1, 1 - values.min()))
    assert spread[0] > spread[1] > spread[2]
    assert spread[0] < 0.45 and spread[2] < 0.05


def test_a_row_of_zeros_stays_zero_in_mud() -> None:
    w = normal(3, 5).at[1].set(0.0)
    update = first(gradtx.scale_by_mud(2), w)
    assert (update[1] == 0).all() and jnp.isfinite(update).all()


def test_muown_moves_directions_at_fixed_lengths_and_lengths_alone() -> None:
    w = {"layer": normal(4, 3)}
    along = gradtx.muown(0.1)
    # A gradient along each output has no part in its direction: Adam moves its length by η.
    new = gradtx.apply_updates(w, along.update(w, along.init(w), w)[0])["layer"]
    lengths = [np.linalg.norm(one, axis=0) for one in (w["layer"], new)]
    np.testing.assert_allclose(lengths[0] - lengths[1], 0.1, rtol=1e-4)


def test_normalizing_after_the_factor_makes_outputs_even() -> None:
    w = normal(4, 6)
    update = first(gradtx.scale_by_muon(normalize_after="outputs"), w)
    np.testing.assert_allclose(jnp.linalg.norm(update, axis=0), 1.0, rtol=1e-5)
    before = first(gradtx.scale_by_muon(normalize_before="inputs"), w * jnp.arange(1, 5.0)[:, None])
    same = first(gradtx.scale_by_muon(normalize_before="inputs"), w)
    np.testing.assert_allclose(before, same, atol=1e-5)  # the lengths of inputs do not matter


HEADS = [("heads", "batch in out")]
MAKERS = {
    "mud": lambda **shard: gradtx.mud(0.1, dimensions=HEADS, **shard),
    "muown": lambda **shard: gradtx.muown(0.1, dimensions=HEADS, **shard),
    "muon": lambda **shard: gradtx.muon(
        0.1, spectrum=gradtx.soft_polar(0.2), normalize_after="outputs", dimensions=HEADS, **shard
    ),
    "scion": lambda **shard: gradtx.scion(
        0.1, spectrum=gradtx.spectral_cap(0.3), dimensions=HEADS, **shard
    ),
}


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_spread_over_devices_the_numbers_are_those_of_one(name: str) -> None:
    params = {f"layer{i}": {"up": normal(16, 32), "heads": normal(2, 16, 8)} for i in range(2)}
    grads = jax.tree.map(lambda one: one[::-1], params)

    def steps(tx: gradtx.GradientTransformation, params: Any, grads: Any) -> Any:
        state, step = tx.init(params), jax.jit(tx.update)
        for _ in range(2):
            updates, state = jax.block_until_ready(step(grads, state, params))
            params = gradtx.apply_updates(params, updates)
        return jax.device_get(params)

    expected = steps(MAKERS[name](), params, grads)
    mesh = jax.make_mesh((len(jax.devices()),), ("x",))
    cut = {"up": PartitionSpec("x"), "heads": PartitionSpec(None, "x")}
    put = {layer: {k: NamedSharding(mesh, one) for k, one in cut.items()} for layer in params}
    sharded, pushed = jax.device_put(params, put), jax.device_put(grads, put)
    for shard in ("x", gradtx.sharding.owners(sharded, "x")):
        with jax.set_mesh(mesh):
            found = steps(MAKERS[name](shard=shard), sharded, pushed)
        chex.assert_trees_all_close(found, expected, rtol=0, atol=2e-5)  # sums in another order


def precondition(params: Any, moments: Any) -> Any:
    tx = gradtx.scale_by_input_moments("kernel|bias")
    return tx.update(params, tx.init(params), input_moments=moments)


def test_an_indefinite_moment_leaves_the_gradient_as_it_is() -> None:
    params = {"kernel": normal(3, 4)}
    updates, _ = precondition(params, {"kernel": -jnp.eye(3)})
    assert (updates["kernel"] == params["kernel"]).all()


WRONG: dict[str, tuple[Any, type[GradtxError], str]] = {
    "passes": (
        lambda: gradtx.scale_by_mud(0).rules,
        HyperparamError,
        "scale_by_mud: passes = 0 is below 1, or not whole",
    ),
    "path": (
        lambda: precondition({"kernel": jnp.ones((2, 3))}, {"other": jnp.eye(2)}),
        StructureError,
        "input_moments has no entry for 'kernel'; its paths are 'other': name the kernels",
    ),
    "shape": (
        lambda: precondition({"kernel": jnp.ones((2, 3))}, {"kernel": jnp.eye(3)}),
        StructureError,
        r"the moment of 'kernel' has shape \(3, 3\), and its gradient \(2, 3\): give \(..., n, n\)",
    ),
    "vector": (
        lambda: precondition({"bias": jnp.ones(3)}, {"bias": jnp.eye(3)}),
        StructureError,
        r"the moment of 'bias' has shape \(3, 3\), and its gradient \(3,\)",
    ),
    "vectors": (
        lambda: gradtx.scale_by_muon(normalize_after="rows"),  # pyright: ignore[reportArgumentType]
        HyperparamError,
        "normalize_after = 'rows'",
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_bad_input(name: str) -> None:
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()
