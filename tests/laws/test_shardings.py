"""State follows parameters: over several devices each slot lies where its parameter's axes say.

Every transformation, on a mesh (4, 2), with automatic and with explicit axes. Many share one
program, since compiling costs most of the time.
"""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from gradtx.testing.problems import extras
from gradtx.tree.paths import path_text
from tests.methods import METHODS
from tests.support.meshes import CODECS
from tests.support.pairs import MAKERS

P = PartitionSpec
SHAPES = {"bias": (8,), "kernel": (8, 4), "scalar": (), "stack": (2, 8, 8), "wide": (4, 8)}
CUTS = {
    "bias": P("data"),
    "kernel": P("data", "model"),
    "scalar": P(),
    "stack": P(None, "data", "model"),
    "wide": P("model", "data"),
}
STORED = ("adamw", "soap")
"""Methods whose slots are stored in every codec."""
PLAIN = {name: METHODS[name].tx for name in MAKERS if name not in ("offloaded", "sharded")}
"""`sharded` cuts slots further than their parameters, and `offloaded` has them in another memory:
tests/unit/sharding.
"""
ENCODED = {
    f"{name}, {codec}": gradtx.stored(METHODS[name].tx, codec, min_size=0, block=2)
    for name in STORED
    for codec in CODECS
}
REASONS = {
    "covers of all axes lie in one vector": ("scale_by_sm3/nu",),
    "a number for each stored pair": (
        "scale_by_lbfgs/diff_params_memory/scalar",
        "scale_by_lbfgs/diff_updates_memory/scalar",
        "scale_by_lbfgs/weights_memory",
    ),
    "a window of numbers of the whole tree": ("clip_by_zscore/norms",),
    "a number for each β": ("mechanic/m", "mechanic/r", "mechanic/s", "mechanic/v"),
    "a number for each matrix of a stack whose own axis is whole": (
        "hyperball/radius/stack",
        "retract/radius/stack",
        "scale_by_adam_mini/nu/stack",
        "scale_by_psgd_kron/progress/stack",
    ),
    "its 201 entries divide by no devices": (
        "scale_by_adam/mu/float32",
        "scale_by_adam/nu/float32",
    ),
}
"""Why a slot of one axis or more is whole on every device, and the ends of its paths."""


def parameters(kind: AxisType, seed: int = 0) -> dict[str, Any]:
    """Normal random arrays, cut over a mesh (4, 2)."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    generator = np.random.default_rng(seed)
    arrays = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    return {
        name: jax.device_put(np.asarray(array, np.float32), NamedSharding(mesh, CUTS[name]))
        for name, array in arrays.items()
    }


def differences(tx: gradtx.GradientTransformation, params: Any, state: Any) -> dict[str, Any]:
    """The arrays of a state that do not lie where `state_shardings` says, by path."""
    expected = jax.tree.leaves(gradtx.state_shardings(tx, params))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        path_text(path): (leaf.sharding, sharding)
        for (path, leaf), sharding in zip(leaves, expected, strict=True)
        # XLA also cuts the scales of blocks, in whatever way is next to the codes.
        if "_scale/" not in path_text(path)
        and not leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    }


def init_each(makers: Any, params: Any) -> dict[str, Any]:
    return {name: tx.init(params) for name, tx in makers.items()}


def assert_placed(makers: Any, params: Any, states: Any) -> None:
    found = {name: differences(tx, params, states[name]) for name, tx in makers.items()}
    assert {name: paths for name, paths in found.items() if paths} == {}


@functools.cache
def jitted_states() -> dict[str, Any]:
    """The states of all transformations, from one program."""
    init = functools.partial(init_each, PLAIN)
    return jax.block_until_ready(jax.jit(init)(parameters(AxisType.Auto)))


def test_init_under_jit_cuts_every_slot_as_its_parameter() -> None:
    assert_placed(PLAIN, parameters(AxisType.Auto), jitted_states())


def test_eager_init_cuts_every_slot_as_its_parameter() -> None:
    params = parameters(AxisType.Auto)
    assert_placed(PLAIN, params, init_each(PLAIN, params))


def test_encoded_slots_are_cut_as_their_parameters() -> None:
    params = parameters(AxisType.Auto)
    assert_placed(ENCODED, params, jax.jit(functools.partial(init_each, ENCODED))(params))


def test_shardings_stay_from_step_to_step() -> None:
    """One step returns the shardings that it received, so that the next runs the same program."""
    params, grads = parameters(AxisType.Auto), parameters(AxisType.Auto, seed=1)

    def step(params: Any, grads: Any, states: Any) -> Any:
        return {
            name: tx.update(grads, states[name], params, **extras(tx, params, grads))[1]
            for name, tx in PLAIN.items()
        }

    states = jax.block_until_ready(jax.jit(step)(params, grads, jitted_states()))
    assert_placed(PLAIN, params, states)


def test_types_of_explicit_axes_say_the_same() -> None:
    params = parameters(AxisType.Explicit)
    mesh = params["bias"].sharding.mesh
    with jax.set_mesh(mesh):
        for name, tx in PLAIN.items():
            types = jax.tree.leaves(jax.eval_shape(tx.init, params))
            expected = jax.tree.leaves(gradtx.state_shardings(tx, params))
            specs = [P() if one.sharding is None else one.sharding.spec for one in types]
            pairs = zip(specs, expected, types, strict=True)
            assert all(
                NamedSharding(mesh, spec).is_equivalent_to(sharding, one.ndim)
                for spec, sharding, one in pairs
            ), name


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_slots_in_the_shape_of_a_parameter_are_cut_as_it(kind: AxisType) -> None:
    """And each slot that is whole on every device has its reason."""
    params, whole = parameters(kind), set[str]()
    for tx in PLAIN.values():
        shapes, shardings = jax.eval_shape(tx.init, params), gradtx.state_shardings(tx, params)
        for (path, shape), sharding in zip(
            jax.tree_util.tree_leaves_with_path(shapes), jax.tree.leaves(shardings), strict=True
        ):
            text = path_text(path)
            name = text.rpartition("/")[-1]
            # The factors of the stack are square, as its matrices are.
            if name != "stack" and shape.shape == SHAPES.get(name):
                assert sharding.is_equivalent_to(params[name].sharding, shape.ndim), text
            if not any(sharding.spec) and shape.size > 1:
                whole.add(text)
    ends = [end for ends in REASONS.values() for end in ends]
    known = {text for text in whole for end in ends if text.endswith(end) or f"{end}/" in text}
    assert whole - known == set()
    assert [end for end in ends if not any(end in text for text in whole)] == []


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", ["adamw", "guard", "lbfgs", "soap"])
def test_an_eager_init_and_three_steps_are_one_program(kind: AxisType, name: str) -> None:
    params = {key: parameters(kind)[key] for key in ("bias", "kernel")}
    tx = PLAIN[name]

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        more = extras(tx, params, params)
        return tx.update(params, state, params, **more)[1]

    state = tx.init(params)
    for _ in range(3):
        state = jax.block_until_ready(step(params, state))
    assert step._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]


def test_make_step_compiles_once_after_an_eager_init() -> None:
    params: Any = {"w": jnp.copy(parameters(AxisType.Auto)["kernel"])}

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(params["w"] ** 2) * x

    tx = gradtx.adamw(0.1)
    step: Any = gradtx.make_step(loss, tx)
    state = tx.init(params)
    for _ in range(3):
        params, state, *_ = jax.block_until_ready(step(params, state, jnp.float32(1.0)))
    jitted = cast("Any", step)
    assert jitted._cache_size() == 1
