"""Stacked layers: what the law of tests/laws/test_stacked.py cannot see, and the errors."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx

PATTERN = r"^layers/"


def layer(seed: int, scale: float = 1.0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    shapes = {"bias": (4,), "kernel": (6, 4)}
    return {k: jnp.asarray(scale * generator.normal(size=s), "f") for k, s in shapes.items()}


def tree(seed: int) -> dict[str, Any]:
    return {"layers": [layer(seed + n, 10.0**n) for n in range(4)], "out": layer(9)["kernel"]}


def stack(params: Any, axis: int = 0) -> Any:
    join = functools.partial(jnp.stack, axis=axis)
    return {**params, "layers": jax.tree.map(lambda *each: join(each), *params["layers"])}


def assert_equal(tx: Any, axis: int = 0, where: Any = PATTERN) -> None:
    """One jitted step on a stack is that on its layers, to the rounding of float32."""
    params, grads = tree(0), tree(50)
    apart, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    one = gradtx.stacked(tx, where, axis=axis)
    params, grads = stack(params, axis), stack(grads, axis)
    together, _ = jax.jit(one.update)(grads, one.init(params), params)
    for u, v in zip(jax.tree.leaves(stack(apart, axis)), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(v, u, rtol=1e-6, atol=1e-6 * float(abs(u).max()))


@pytest.mark.parametrize("name", ["adafactor", "adam_mini", "lamb", "novograd", "sm3"])
def test_axis_1_as_in_maxtext_in_float32(name: str) -> None:
    assert_equal(getattr(gradtx, name)(0.1), axis=1)


def test_predicates_masks_and_partitions_inside_see_one_layer() -> None:
    def is_vector(path: str, array: Any) -> bool:
        return array.ndim == 1

    assert_equal(gradtx.masked(gradtx.lamb(0.1), is_vector))
    groups = {"hidden": gradtx.muon(0.1), "rest": gradtx.lamb(0.1)}
    assert_equal(gradtx.partition(groups, [(is_vector, "rest"), (r"out", "rest"), (r"", "hidden")]))
    assert_equal(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lamb(0.1)))
    assert_equal(gradtx.guard(gradtx.lamb(0.1)))


def test_slots_stay_stacked_and_numbers_become_vectors() -> None:
    params = stack(tree(0))
    state = gradtx.stacked(gradtx.novograd(0.1), PATTERN).init(params)
    shapes = {path: one.shape for path, one in gradtx.flatten_state(state.slots).items()}
    by_end = {"/".join(path.split("/")[-3:]): shape for path, shape in shapes.items()}
    assert by_end["mu/layers/kernel"] == (4, 6, 4) and by_end["nu/layers/kernel"] == (4,)
    plain = gradtx.novograd(0.1).init(params)
    assert shapes.keys() == gradtx.flatten_state(plain.slots).keys()


def test_a_stack_of_stacks() -> None:
    one, two = stack(tree(0)), stack(tree(20))
    pair = jax.tree.map(lambda *each: jnp.stack(each), one["layers"], two["layers"])
    single = gradtx.stacked(gradtx.lamb(0.1), PATTERN)
    nested = gradtx.stacked(single, PATTERN)
    updates, _ = nested.update({"layers": pair}, nested.init({"layers": pair}), {"layers": pair})
    for place, inner in enumerate((one["layers"], two["layers"])):
        alone = {"layers": inner}
        expected, _ = single.update(alone, single.init(alone), alone)
        for u, v in zip(jax.tree.leaves(expected), jax.tree.leaves(updates), strict=True):
            np.testing.assert_allclose(v[place], u, rtol=1e-6)


def test_random_numbers_differ_between_layers() -> None:
    tx = gradtx.stacked(gradtx.add_noise(1.0, 0.0, 0), PATTERN)
    zeros = jax.tree.map(jnp.zeros_like, stack(tree(0)))
    kernel = tx.update(zeros, tx.init(zeros))[0]["layers"]["kernel"]
    assert len(np.unique(np.asarray(kernel).round(6))) > 0.9 * kernel.size


def test_the_number_of_operations_does_not_grow_with_that_of_layers() -> None:
    tx = gradtx.stacked(gradtx.lamb(0.1), PATTERN)

    def equations(count: int) -> int:
        params = {"layers": {"kernel": jnp.ones((count, 6, 4))}}
        return len(str(jax.make_jaxpr(tx.update)(params, tx.init(params), params)).splitlines())

    assert equations(3) == equations(48)


def test_scan_over_steps_save_and_load(tmp_path: Any) -> None:
    tx, params = gradtx.stacked(gradtx.lamb(0.1), PATTERN), stack(tree(0))

    def step(carry: Any, _: Any) -> Any:
        updates, state = tx.update(carry[0], carry[1], carry[0])
        return (gradtx.apply_updates(carry[0], updates), state), None

    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), None, length=2)
    gradtx.save(tmp_path / "state.npz", state)
    loaded = gradtx.load(tmp_path / "state.npz", tx.init(params))
    np.testing.assert_array_equal(jax.tree.leaves(loaded)[-1], jax.tree.leaves(state)[-1])


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_sharded_stack_keeps_its_cut_and_its_layers_need_no_communication(kind: Any) -> None:
    mesh = jax.make_mesh((4,), ("layers",), axis_types=(kind,))
    params = jax.device_put(stack(tree(0))["layers"], NamedSharding(mesh, PartitionSpec("layers")))
    params, tx = {"layers": params}, gradtx.stacked(gradtx.lamb(0.1), PATTERN)
    state = tx.init(params)
    for leaf in jax.tree.leaves(state.slots):
        assert leaf.sharding.spec[0] == "layers"
    text = jax.jit(tx.update).lower(params, state, params).compile().as_text()
    assert text is not None and not any(
        name in text for name in ("all-reduce", "all-gather", "all-to-all")
    )


@pytest.mark.parametrize("codec", ["bf16", "int8"])
def test_stored_slots(codec: Any) -> None:
    tx = gradtx.stored(gradtx.stacked(gradtx.lamb(0.1), PATTERN), codec, min_size=0)
    other = gradtx.stacked(gradtx.stored(gradtx.lamb(0.1), codec, min_size=0), PATTERN)
    plain, params = gradtx.stacked(gradtx.lamb(0.1), PATTERN), stack(tree(0))
    expected, _ = plain.update(params, plain.init(params), params)
    for one in (tx, other):
        updates, _ = one.update(params, one.init(params), params)
        for u, v in zip(jax.tree.leaves(expected), jax.tree.leaves(updates), strict=True):
            # The first moment in 8 or 16 bits is off by a hundredth of its largest entry.
            np.testing.assert_allclose(v, u, atol=0.02 * float(abs(u).max()))


@pytest.mark.parametrize(
    ("params", "axis", "error", "text"),
    [
        (
            {"layer": jnp.ones((2, 3))},
            0,
            gradtx.SelectionError,
            "stacked: '^layers/' matches none of the 1 leaves; nearest: 'layer'",
        ),
        (
            {"layers": {"scale": jnp.ones(())}},
            0,
            gradtx.StructureError,
            "stacked: 'layers/scale' is a scalar, and has no axis of layers: leave it out of the "
            "pattern",
        ),
        (
            {"layers": {"w": jnp.ones((2, 3))}},
            2,
            gradtx.StructureError,
            "stacked: axis = 2 is not an axis of 'layers/w', f32[2,3]: give one in [-2, 1]",
        ),
        (
            {"layers": {"v": jnp.ones((2, 3)), "w": jnp.ones((3, 3))}},
            0,
            gradtx.StructureError,
            "stacked: 'layers/v' has 2 layers along axis 0, and 'layers/w' has 3: match one stack "
            "of layers, and write stacked(stacked(tx, ...), ...) for two",
        ),
    ],
)
def test_errors(params: Any, axis: int, error: type[Exception], text: str) -> None:
    for inner in (gradtx.lamb(0.1), gradtx.muon(0.1)):
        with pytest.raises(error, match=re.escape(text)):
            gradtx.stacked(inner, PATTERN, axis=axis).init(params)


def test_another_librarys_rule_is_refused() -> None:
    pair = gradtx.GradientTransformation(lambda params: None, lambda u, s, p=None: (u, s))
    with pytest.raises(gradtx.GradtxError, match="is another library's, whose rules see whole"):
        gradtx.stacked(pair, PATTERN).init({"layers": {"w": jnp.ones((2, 3))}})
