"""Functions of trees: structures, None, dtypes, errors, and that nothing is missing."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree_utils
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
import gradtx.tree
import gradtx.tree_utils
from gradtx.tree import numerics

T: Any = gradtx.tree
HALF = jnp.ones(2, jnp.bfloat16)
W, B = jnp.array([1.0, 2.0]), jnp.array([[3.0]])
TREE = {"w": W, "b": B, "none": None}
HELPERS = (
    *("safe_increment", "safe_int32_increment", "safe_norm", "safe_root_mean_squares"),
    "scale_gradient",
)


def public(module: Any) -> list[str]:
    return [name for name in dir(module) if name[0] != "_" and callable(getattr(module, name))]


@pytest.mark.parametrize("name", public(optax.tree))
def test_every_function_has_the_arguments_of_optax(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(one, name)) for one in (T, optax.tree))
    known = [p for p in ours.parameters.values() if p.name != "axis_names"]  # beyond Optax
    assert [(p.name, p.kind) for p in known] == [
        (p.name, p.kind) for p in theirs.parameters.values()
    ]
    for one, other in zip(known, theirs.parameters.values(), strict=True):
        assert one.default is other.default or one.default == other.default
    assert getattr(gradtx.tree_utils, f"tree_{name}") is getattr(T, name)


@pytest.mark.parametrize("name", HELPERS)
def test_helpers_have_the_arguments_of_optax(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(one, name)) for one in (numerics, optax))
    assert [(p.name, p.default) for p in ours.parameters.values()] == [
        (p.name, p.default) for p in theirs.parameters.values()
    ]


def test_the_old_spelling_is_complete() -> None:
    names = [name for name in public(optax.tree_utils) if hasattr(optax.tree_utils, name)]
    assert [name for name in names if not hasattr(gradtx.tree_utils, name)] == []


PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "add": T.add,
    "sub": T.sub,
    "mul": T.mul,
    "div": T.div,
    "add_scale": lambda x, y: T.add_scale(x, 0.5, y),
    "vdot": T.vdot,
    "where": lambda x, y: T.where(True, x, y),
    "allclose": T.allclose,
    "cast_like": T.cast_like,
    "update_moment": lambda x, y: T.update_moment(x, y, 0.9, 1),
    "update_moment_per_elem_norm": lambda x, y: T.update_moment_per_elem_norm(x, y, 0.9, 2),
    "update_infinity_moment": lambda x, y: T.update_infinity_moment(x, y, 0.9, 0.0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_another_structure_is_an_error_that_names_the_path(name: str) -> None:
    with pytest.raises(gradtx.StructureError, match=rf"^{name}: .*'w/x' is only in \w+"):
        PAIRS[name]({"w": W, "b": B}, {"w": {"x": W}, "b": B})
    with pytest.raises(gradtx.StructureError, match=rf"^{name}: .*'b' is only in \w+"):
        PAIRS[name]({"w": W, "b": B}, {"w": W})
    with pytest.raises(gradtx.StructureError, match="the containers are not"):
        PAIRS[name]([W], (W,))


@pytest.mark.parametrize("name", sorted({*PAIRS} - {"cast_like"}))
def test_other_shapes_are_an_error_that_names_both(name: str) -> None:
    shapes = re.escape("(2,)") + ".*" + re.escape("(3,)")
    with pytest.raises(gradtx.StructureError, match=rf"^{name}: .*at 'a/w'.*{shapes}"):
        PAIRS[name]({"a": {"w": W}}, {"a": {"w": jnp.ones(3)}})
    with pytest.raises(gradtx.StructureError, match=rf"^{name}: [^']*{shapes}"):
        PAIRS[name](W, jnp.ones(3))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "where", "allclose", "vdot"])
def test_none_beside_an_array_is_an_error(name: str) -> None:
    with pytest.raises(gradtx.StructureError, match=rf"{name}: .*'n'"):
        PAIRS[name]({"n": None}, {"n": W})
    with pytest.raises(gradtx.StructureError, match=rf"{name}: .*'n'"):
        PAIRS[name]({"n": W}, {"n": None})


def test_none_stays_where_updates_may_be_masked() -> None:
    one, other = {"n": None, "w": W}, {"n": B, "w": W}
    assert T.add_scale(one, 2.0, other)["n"] is None
    for name in ("update_moment", "update_moment_per_elem_norm", "update_infinity_moment"):
        assert PAIRS[name](one, other)["n"] is B
    assert T.cast_like(other, one)["n"] is B
    everything = (T.scale(2.0, one), T.clip(one, 0, 1), T.conj(one), T.cast(one, "float16"))
    assert all(tree["n"] is None for tree in everything)


def test_scalars_do_not_widen_low_precision() -> None:
    half, strong = HALF, jnp.float32(0.5)
    results = [
        T.add_scale(half, strong, half),
        T.scale(strong, half),
        T.clip(half, strong, strong),
        T.update_moment(half, half, strong, 2),
        T.update_infinity_moment(half, half, strong, strong),
        T.bias_correction(half, strong, jnp.array(2)),
        numerics.safe_norm(half, strong),
        numerics.safe_root_mean_squares(half, strong),
        T.sum(half),
        T.vdot(half, half),
        T.max(half),
    ]
    assert {one.dtype.name for one in results} == {"bfloat16"}
    assert T.update_moment(half, W, 0.9, 1).dtype == jnp.float32
    assert T.scale(0.5, jnp.arange(3)).dtype == jnp.float32
    assert T.scale(1j, W).dtype == jnp.complex64
    assert numerics.safe_increment(jnp.int8(127)).dtype == jnp.int8


def test_averages_of_low_precision_are_computed_in_float32() -> None:
    # Within bfloat16, 0.1 and the sum are rounded: Optax has 1.00009763 here.
    assert T.update_moment(HALF, jnp.ones(2), 0.9, 1).tolist() == [1.0, 1.0]


def test_norms_and_sums_of_low_precision_do_not_overflow_or_stop() -> None:
    many = {"a": jnp.full((300, 300), 300.0, jnp.float16), "b": jnp.ones(3, jnp.float16)}
    for ord, right in ((None, 300.0 * 300.0), (1, 300.0**3 + 3), ("inf", 300.0)):
        value = T.norm(many, ord)
        assert value.dtype == jnp.float32 and abs(value - right) <= 1e-6 * right
    assert gradtx.global_norm(many).dtype == jnp.float32
    # 256 ones and one more are 256 in bfloat16; the sum rounds once.
    ones = [jnp.ones(256, jnp.bfloat16), *[jnp.ones((), jnp.bfloat16)] * 6]
    assert T.sum(ones).item() == 262.0 and T.vdot(ones, ones).item() == 262.0
    assert T.sum(ones, associative_reduction=True).item() == 262.0


def test_the_norm_has_a_derivative_at_zero() -> None:
    zeros = {"w": jnp.zeros(3), "c": jnp.zeros(2, jnp.complex64)}
    for ord in (None, 1, "inf"):
        grads = jax.grad(lambda tree, ord=ord: T.norm(tree, ord))(zeros)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_strict_promotion_and_x64() -> None:
    def run() -> list[Any]:
        tree, count = {"w": W, "b": jnp.ones(2, jnp.bfloat16)}, jnp.int32(3)
        decay, rate = jnp.float32(0.9), jnp.float32(0.1)
        moments = [
            T.update_moment(tree, tree, decay, 2),
            T.update_infinity_moment(tree, tree, 0.9, 1e-8),
            T.bias_correction(tree, 0.9, count),
            T.bias_correction(tree, decay, count),
        ]
        return [
            *moments,
            *(T.add_scale(tree, rate, tree), T.scale(rate, tree), T.clip(tree, rate, 1)),
            *(T.norm(tree), T.norm(tree, 1), T.norm(tree, "inf"), T.sum(tree), T.vdot(tree, tree)),
            *(T.max(tree), T.min(tree), T.where(jnp.int32(1), tree, tree), T.allclose(tree, tree)),
            *(numerics.safe_norm(W, rate), numerics.safe_root_mean_squares(HALF, rate)),
            jax.grad(lambda x: numerics.scale_gradient(x, rate).sum())(HALF),
            numerics.safe_increment(count),
        ]

    standard = jax.tree.map(np.asarray, run())
    with jax.numpy_dtype_promotion("strict"):
        strict = jax.tree.map(np.asarray, run())
    with jax.enable_x64(True):
        wide = jax.tree.map(np.asarray, run())
    for one, other in ((strict, standard), (wide, standard)):
        equal = jax.tree.map(lambda x, y: np.allclose(x.astype(float), y.astype(float)), one, other)
        assert all(jax.tree.leaves(equal))
    assert jax.tree.map(lambda x: x.dtype, strict) == jax.tree.map(lambda x: x.dtype, standard)


def test_vmap_scan_and_tracers() -> None:
    batch = {"w": jnp.arange(6.0).reshape(3, 2)}
    assert jax.vmap(T.norm)(batch).shape == (3,)
    scaled = jax.vmap(T.scale)(jnp.arange(3.0), batch)["w"]
    np.testing.assert_allclose(scaled, jnp.arange(3.0)[:, None] * batch["w"])

    def step(moment: Any, grad: Any) -> Any:
        return T.update_moment(grad, moment, 0.5, 1), T.vdot(grad, grad)

    last, dots = jax.lax.scan(step, {"w": jnp.zeros(2)}, batch)
    np.testing.assert_allclose(last["w"], [0.0 / 8 + 2.0 / 4 + 4.0 / 2, 1.0 / 8 + 3 / 4 + 5 / 2])
    np.testing.assert_allclose(dots, [1.0, 13.0, 41.0])


def test_arrays_on_a_mesh_stay_cut() -> None:
    values = {"w": jnp.arange(16.0).reshape(8, 2), "b": jnp.arange(4.0)}
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
        cut = jax.device_put(values, NamedSharding(mesh, PartitionSpec("data")))

        def run(tree: Any) -> Any:
            trees = T.add_scale(tree, 0.5, tree), T.update_moment(tree, tree, 0.9, 2)
            return trees, [T.norm(tree), T.vdot(tree, tree), T.sum(tree), T.max(tree)]

        with jax.set_mesh(mesh):
            made, numbers = jax.jit(run)(cut)
            text = jax.jit(T.vdot).lower(cut, cut).compile().as_text() or ""
        assert "all-gather" not in text
        for one in jax.tree.leaves(made):
            assert one.sharding.shard_shape(one.shape)[0] == one.shape[0] // 4
        for one, other in zip(numbers, run(values)[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_148_leaves_are_one_pass() -> None:
    """No program writes an array as large as a leaf, and there is one sum for each leaf."""
    tree = {f"layer{n}": jnp.ones((64, 65 + n % 7)) for n in range(148)}
    for function in (T.norm, gradtx.global_norm):
        memory: Any = jax.jit(function).lower(tree).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 148 * 64
    traced, theirs = (jax.make_jaxpr(f)(tree) for f in (T.norm, optax.tree.norm))
    assert len(traced.eqns) <= len(theirs.eqns)


def test_errors_of_options() -> None:
    with pytest.raises(
        gradtx.HyperparamError, match="ord = 3 is unknown; choose None, 1, 2 or inf"
    ):
        T.norm(TREE, 3)
    with pytest.raises(gradtx.HyperparamError, match=r"handler = 'x' is unknown.*'promote'"):
        T.dtype(TREE, "x")
    with pytest.raises(gradtx.StructureError, match="float32 at 'a' and bfloat16 at 'b'; cast it"):
        T.dtype({"a": W, "b": HALF})
    with pytest.raises(gradtx.StructureError, match="neither bfloat16 nor float16 can be promoted"):
        T.dtype((HALF, jnp.ones(2, jnp.float16)), "highest")
    for bad in (jnp.array(True), jnp.array(1j)):
        with pytest.raises(gradtx.HyperparamError, match=f"dtype {bad.dtype}; give an integer"):
            numerics.safe_increment(bad)
    with pytest.raises(gradtx.StructureError, match=r"'tree/z' is complex.*clip their real parts"):
        T.clip({"z": jnp.array([1j])}, 0.0)


@pytest.mark.parametrize("handler", ["promote", "highest", "lowest"])
def test_dtypes_as_optax(handler: str) -> None:
    for tree in ((W, HALF), (HALF, W), (jnp.arange(2), HALF), (W,), (), (jnp.arange(2), W)):
        assert T.dtype(tree, handler) == optax.tree.dtype(tree, handler)


def test_counters_saturate_as_optax() -> None:
    for name in ("int8", "uint8", "int32", "uint32", "float32", "bfloat16"):
        is_int = "int" in name
        top = jnp.iinfo(name).max if is_int else jnp.finfo(name).max
        for count in (jnp.asarray(3, name), jnp.asarray(top, name)):
            ours = numerics.safe_increment(count)
            theirs: Any = optax.safe_increment(count)
            assert ours.dtype == theirs.dtype and ours == theirs


def test_constants_of_shapes() -> None:
    shape = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    assert T.zeros_like(shape)["w"].shape == T.ones_like(shape)["w"].shape == (2, 3)
    assert T.size(shape) == 6 and T.dtype(shape) == jnp.float32
    assert T.batch_shape(shape, (4,))["w"].shape == (4, 2, 3)
    assert T.random_like(jax.random.key(0), shape)["w"].shape == (2, 3)


def test_gradients_are_scaled_and_values_are_not() -> None:
    x = jnp.array([0.1, -2.5, 3.0])
    value, grad = jax.jit(jax.vjp, static_argnums=0)(
        lambda x, s: numerics.scale_gradient({"x": x, "n": jnp.arange(2)}, s)["x"], x, 0.3
    )
    assert (value == x).all()
    grads = grad(jnp.ones(3))
    np.testing.assert_allclose(grads[0], [0.3] * 3, rtol=1e-7)
    assert grads[1] == 0.0
    # 0 stops a gradient of nan too; forward mode works, which Optax refuses.
    stopped = jax.grad(lambda x: numerics.scale_gradient(x, 0.0) * jnp.nan)(1.0)
    assert stopped == 0.0
    assert jax.jvp(lambda x: numerics.scale_gradient(x, -2.0), (1.0,), (1.0,))[1] == -2.0


def test_safe_norms_have_finite_gradients_everywhere() -> None:
    for ord in (None, 1, 2, jnp.inf, -jnp.inf, "fro", "nuc"):
        grad = jax.grad(numerics.safe_norm)(jnp.zeros((2, 3)), 0.0, ord)
        assert (grad == 0).all()
    rows = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    grad = jax.grad(lambda x: numerics.safe_norm(x, 1e-3, axis=1).sum())(rows)
    np.testing.assert_allclose(grad, [[0.0, 0.0], [0.6, 0.8]], rtol=1e-6)
    assert jax.grad(numerics.safe_norm)(W, 100.0).tolist() == [0.0, 0.0]
    assert jax.grad(numerics.safe_norm, 1)(W, 100.0) == 1.0
    assert numerics.safe_norm(jnp.zeros(3), -1.0) == 0.0
    assert numerics.safe_root_mean_squares(jnp.zeros(0), 0.5) == 0.5
