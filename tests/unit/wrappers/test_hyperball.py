"""Hyperball: the angle of a step, the norm over a run, whose norm it is, and its errors."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from gradtx import HyperparamError, StructureError
from tests.support.collectives import collectives

P = PartitionSpec
ADAM = gradtx.scale_by_adam()


def normal(shape: tuple[int, ...], seed: int = 0, dtype: Any = jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def moved(tx: Any, params: Any, grads: Any) -> Any:
    return gradtx.apply_updates(params, tx.update(grads, tx.init(params), params)[0])


@pytest.mark.parametrize("radius", [2.5, "current", "initial"], ids=str)
def test_a_perpendicular_direction_turns_by_the_arctangent_of_the_rate(radius: Any) -> None:
    with jax.enable_x64(True):
        w, u = normal((6, 5), 0, jnp.float64), normal((6, 5), 1, jnp.float64)
        w = 2.5 * w / jnp.linalg.norm(w)
        u = u - jnp.sum(u * w) / jnp.sum(w * w) * w
        for rate in (0.003, 0.018, 0.5):
            new = moved(gradtx.hyperball(gradtx.identity(), rate, radius), w, u)
            sine = jnp.linalg.norm(new - jnp.sum(new * w) / jnp.sum(w * w) * w)
            np.testing.assert_allclose(np.arcsin(sine / 2.5), np.arctan(rate), rtol=1e-10)


def norms_of_a_run(radius: Any, dtype: Any, steps: int = 1000) -> np.ndarray:
    """The norms of two stacked matrices, relative to their first, after every step."""
    params, tx = normal((2, 16, 24), 0, dtype), gradtx.hyperball(ADAM, 0.02, radius)

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        updates, state = tx.update(jax.random.normal(key, params.shape, dtype), state, params)
        params = gradtx.apply_updates(params, updates)
        return (params, state), jnp.linalg.norm(params.astype(jnp.float32), axis=(1, 2))

    keys = jax.random.split(jax.random.key(0), steps)
    _, norms = jax.jit(functools.partial(jax.lax.scan, step))((params, tx.init(params)), keys)
    return np.asarray(norms) / np.linalg.norm(np.asarray(params, np.float64), axis=(1, 2)) - 1


# A float32 has 1e-7, a bfloat16 4e-3 of its entries; in a norm of 384 roundings most cancel.
@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2e-3)], ids=str)
def test_the_norm_stays_over_a_thousand_steps(dtype: Any, bound: float) -> None:
    assert np.abs(norms_of_a_run("initial", dtype)).max() <= bound


def test_the_current_norm_drifts_in_low_precision_and_the_first_one_does_not() -> None:
    runs = (norms_of_a_run(radius, jnp.bfloat16) for radius in ("current", "initial"))
    current, first = (np.abs(norms[-1]).max() for norms in runs)
    assert current > 5 * first


def test_each_head_and_each_expert_has_a_norm_of_its_own() -> None:
    params = {"experts": normal((3, 4, 5)), "qkv": {"kernel": normal((4, 12), 1)}}
    tx = gradtx.hyperball(gradtx.identity(), 0.3, dimensions=[("qkv", "in out/3")])
    new = moved(tx, params, jax.tree.map(lambda w: normal(w.shape, 7), params))
    assert tx.init(params).slots["hyperball"].radius["qkv"]["kernel"].shape == (3,)
    for name, cut in (("experts", (3, 4, 5)), ("qkv", (4, 3, 4))):
        before, after = (
            np.moveaxis(np.asarray(jax.tree.leaves(one[name])[0]).reshape(cut), 1, 0)
            if name == "qkv"
            else np.asarray(one[name])
            for one in (params, new)
        )
        np.testing.assert_allclose(
            np.linalg.norm(after, axis=(1, 2)), np.linalg.norm(before, axis=(1, 2)), rtol=1e-6
        )
        assert np.abs(after - before).max() > 0.1


CUT = {"stack": P(None, "data", "model"), "w": P("model", "data")}


def maker(name: str) -> Any:
    make = getattr(gradtx, name)
    return functools.partial(make, gradtx.identity(), 0.1) if name == "hyperball" else make


def on_mesh(kind: AxisType) -> tuple[Any, Any]:
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    shapes = {"stack": (2, 8, 8), "w": (8, 16)}
    arrays = {name: normal(shape) for name, shape in shapes.items()}
    return mesh, {
        name: jax.device_put(one, NamedSharding(mesh, CUT[name])) for name, one in arrays.items()
    }


@pytest.mark.parametrize("name", ["hyperball", "radial_brake", "retract", "update_floor"])
def test_cut_matrices_stay_where_they_are_and_only_sums_cross(name: str) -> None:
    """Each device adds the squares of its parts; the largest array that crosses has a number for
    each of two stacked matrices. Explicit axes: there, other matrix rules would move the matrices.
    """
    rule, (_, params) = maker(name)(), on_mesh(AxisType.Explicit)
    state = rule.init(params)
    step = jax.jit(rule.update)
    found = collectives(step.lower(params, state, params).compile().as_text() or "")
    assert set(found.bytes) == {"all-reduce"}
    assert found.bytes["all-reduce"] <= 4 * 3 * 4  # at most four sums of three numbers
    cut = jax.block_until_ready(step(params, state, params))[0]
    whole = {key: jnp.asarray(np.asarray(one)) for key, one in params.items()}
    expected = rule.update(whole, rule.init(whole), whole)[0]
    for key, one in cut.items():
        np.testing.assert_allclose(one, expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["hyperball", "radial_brake", "retract", "update_floor"])
def test_norms_are_of_whole_matrices_inside_shard_map(name: str) -> None:
    make, (mesh, params) = maker(name), on_mesh(AxisType.Auto)
    grads = {key: normal(one.shape, 5) for key, one in params.items()}

    def update(tx: Any, params: Any, grads: Any) -> Any:
        return tx.update(grads, tx.init(params), params)[0]

    part = functools.partial(update, make(axis_names=CUT))
    inside = jax.shard_map(part, mesh=mesh, in_specs=(CUT, CUT), out_specs=CUT)
    cut = jax.block_until_ready(jax.jit(inside)(params, grads))
    for key, one in update(make(), params, grads).items():
        np.testing.assert_allclose(cut[key], one, rtol=1e-5, atol=1e-6)


def test_a_matrix_of_norm_zero_is_an_error_that_names_it() -> None:
    params = {"a": jnp.ones((2, 2)), "blocks": {"kernel": normal((2, 3, 3)).at[1].set(0.0)}}
    for tx in (gradtx.hyperball(ADAM, 0.1), gradtx.retract()):
        with pytest.raises(
            StructureError,
            match="'blocks/kernel' holds a matrix of norm 0, and a sphere of radius 0 freezes it: "
            "start it away from 0, give radius=<a number>, or leave it to another rule",
        ):
            tx.init(params)


@pytest.mark.parametrize("radius", ["current", "initial"])
def test_a_zero_matrix_whose_values_are_unknown_stays_and_leaves_a_sphere_of_a_number(
    radius: Any,
) -> None:
    zero, grad = jnp.zeros((2, 2)), jnp.ones((2, 2))
    step = jax.jit(functools.partial(moved, gradtx.hyperball(gradtx.identity(), 0.1, radius)))
    assert not step(zero, grad).any()
    left = moved(gradtx.hyperball(gradtx.identity(), 0.1, 2.0), zero, grad)
    np.testing.assert_allclose(left, -grad, rtol=1e-6)


WRONG: dict[str, tuple[Any, str]] = {
    "a radius of 0": (
        lambda: gradtx.hyperball(ADAM, 0.1, 0.0),
        "hyperball: radius = 0.0 is outside its range (0, inf): give the norm of a matrix, or "
        "'initial' for the norm at init",
    ),
    "a form of another name": (
        lambda: gradtx.hyperball(ADAM, 0.1, "first_order"),  # pyright: ignore[reportArgumentType]
        "hyperball: radius = 'first_order' is unknown; choose one of 'initial', 'current', or give "
        "a number above 0",
    ),
    "a decay inside": (
        lambda: gradtx.hyperball(gradtx.chain(ADAM, gradtx.add_decayed_weights(0.1)), 0.1).rules,
        "has weight_decay of its own, and a sphere takes the direction alone: give a direction "
        "such as scale_by_adam(), without learning rate and weight decay",
    ),
    "a rate inside": (
        lambda: gradtx.hyperball(gradtx.sgd(0.1), 0.1).rules,
        "hyperball: inner = sgd(learning_rate=0.1) has learning_rate of its own",
    ),
    "muonh, a negative radius": (
        lambda: gradtx.muonh(0.1, radius=-1.0),
        "muonh: radius = -1.0 is outside its range (0, inf)",
    ),
    "retract, another radius beside a share": (
        lambda: gradtx.retract("initial", 0.5).rules,
        "retract: outward = 0.5 and inward = 0.0 are shares of a change from the current norm, and "
        "radius = 'initial': give radius='current'",
    ),
    "retract, a share above 1": (
        lambda: gradtx.retract("current", 1.5),
        "retract: outward = 1.5 is outside its range [0, 1]",
    ),
    "radial_brake, a factor below 0": (
        lambda: gradtx.radial_brake(-0.5),
        "radial_brake: outward = -0.5 is outside its range [0, 1]",
    ),
    "update_floor, a negative ratio": (
        lambda: gradtx.update_floor(-0.1),
        "update_floor: ratio = -0.1 is outside its range [0, inf)",
    ),
    "decay_after, a negative decay": (
        lambda: gradtx.decay_after(gradtx.retract(), 0.1, -0.1),
        "decay_after: weight_decay = -0.1 is outside its range [0, inf)",
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_bad_input_is_named(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(HyperparamError, match=re.escape(message)):
        make()


def test_a_decay_of_zero_inside_is_none() -> None:
    tx = gradtx.hyperball(gradtx.chain(ADAM, gradtx.add_decayed_weights(0.0)), 0.1)
    assert tx.init(jnp.ones((2, 2))) is not None


@pytest.mark.parametrize("last", ["decay_after", "hyperball", "retract"])
def test_a_rate_behind_a_step_to_a_norm_is_a_warning(last: str) -> None:
    members = {
        "decay_after": gradtx.decay_after(gradtx.retract(), 0.1, 0.1),
        "hyperball": gradtx.hyperball(ADAM, 0.1),
        "retract": gradtx.retract(),
    }
    rate = gradtx.scale_by_learning_rate(0.1)
    with pytest.warns(
        UserWarning,
        match=f"chain: {last} takes each matrix to a norm, and scale_by_learning_rate scales that "
        f"step: put {last} last",
    ):
        gradtx.chain(members[last], rate).rules  # noqa: B018  (the warning is the result)
    gradtx.chain(rate, members[last], gradtx.params_ema(0.9)).rules  # noqa: B018
