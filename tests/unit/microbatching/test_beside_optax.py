"""Microbatching beside Optax: the same arguments, defaults and results."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.microbatching
import pytest

import gradtx.microbatching

OURS: Any = gradtx.microbatching
THEIRS: Any = optax.microbatching
KINDS = ("MEAN", "SUM", "RUNNING_MEAN", "CONCAT")


def close(ours: Any, theirs: Any, rtol: float = 1e-12) -> None:
    """Assert equal structures, shapes and dtypes, and numbers that differ by rounding."""
    assert jax.tree.leaves(ours) and list(map(jnp.shape, jax.tree.leaves(ours))) == list(
        map(jnp.shape, jax.tree.leaves(theirs))
    )
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


def same(run: Callable[[Any], Any]) -> None:
    """Assert that a function of the module has one result for gradtx and for Optax in float64."""
    with jax.enable_x64(True):
        close(run(OURS), run(THEIRS))


def batch(dtype: Any = np.float64) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), dtype)


def plus_and_sum(x: jax.Array) -> Any:
    return {"rows": x + 1, "sum": jnp.sum(x), "square": x.T @ x}


@pytest.mark.parametrize(
    "name", ["micro_grad", "micro_vmap", "microbatch", "reshape_batch_axis", "Accumulator"]
)
def test_signatures(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(one, name)).parameters for one in (OURS, THEIRS))
    assert list(ours) == list(theirs)
    for parameter, other in zip(ours.values(), theirs.values(), strict=True):
        assert parameter.kind is other.kind
        if inspect.isfunction(other.default) and other.default.__name__ == "<lambda>":
            example = jnp.arange(2.0)
            same_default = parameter.default(example), other.default(example)
            assert same_default[0] is same_default[1]
        else:
            assert str(parameter.default) == str(other.default)


def test_the_kinds_of_accumulation_have_the_values_of_optax() -> None:
    kinds = [[(kind.name, kind.value) for kind in one.AccumulationType] for one in (OURS, THEIRS)]
    assert kinds[0] == kinds[1] and [name for name, _ in kinds[0]] == list(KINDS)


@pytest.mark.parametrize("limit", [None, 0, 1, 2, 3, "array"])
@pytest.mark.parametrize("size", [1, 2, 6, None])
@pytest.mark.parametrize("kind", KINDS)
def test_microbatch(kind: str, size: int | None, limit: Any) -> None:
    if size == 6 and limit not in (None, 0, 1):
        limit = 1

    def run(module: Any) -> Any:
        number = jnp.asarray(2 if size != 6 else 1) if limit == "array" else limit
        accumulator = module.AccumulationType[kind]
        function = module.microbatch(
            plus_and_sum, 0, size, accumulator, num_real_microbatches=number
        )
        return jax.jit(function)(batch())

    same(run)


@pytest.mark.parametrize("size", [1, 2, 6, None])
@pytest.mark.parametrize("kind", KINDS)
def test_micro_vmap(kind: str, size: int | None) -> None:
    same(
        lambda module: module.micro_vmap(
            lambda row, w: {"a": row * w, "b": jnp.sum(row)},
            in_axes=(0, None),
            microbatch_size=size,
            accumulator=module.AccumulationType[kind],
            num_real_microbatches=None if size in (6, None) else 2,
        )(batch(), 3.0)
    )


def product(a: Any, b: Any) -> jax.Array:
    return jnp.sum(a["x"] * b[0])


CALLS: dict[str, Callable[[Any], Any]] = {
    "argnames": lambda m: m.microbatch(lambda x, *, y: jnp.sum(x * y), 0, 2, argnames="y")(
        batch(), y=batch()
    ),
    "argnames in a list": lambda m: m.microbatch(
        lambda x, *, y, z: jnp.sum(x * y * z), [0], 2, argnames=["z", "y"]
    )(batch(), y=batch(), z=batch()),
    "only argnames": lambda m: m.microbatch(lambda x, y: jnp.sum(x * y), (), 2, argnames="y")(
        2.0, y=batch()
    ),
    "in_axes": lambda m: m.microbatch(product, (0, 1), 3, in_axes=(0, 1))(
        {"x": batch()[:, 0]}, batch()[:, 0][None]
    ),
    "in_axes of names": lambda m: m.microbatch(
        lambda b, a: product(a, b), 0, 3, argnames="a", in_axes=(1, 0)
    )(batch()[:, 0][None], a={"x": batch()[:, 0]}),
    "an axis of 1 for all": lambda m: m.microbatch(
        lambda x: jnp.sum(x, 1), 0, 2, m.AccumulationType.SUM, in_axes=1
    )(batch().T),
    "negative argnums": lambda m: m.microbatch(lambda w, x: jnp.sum(w * x), -1, 2)(2.0, batch()),
    "a prefix": lambda m: m.microbatch(
        plus_and_sum,
        0,
        2,
        {
            "rows": m.AccumulationType.CONCAT,
            "sum": m.AccumulationType.MEAN,
            "square": m.AccumulationType.SUM,
        },
    )(batch()),
    "integers": lambda m: m.microbatch(jnp.sum, 0, 2)(jnp.arange(6)),
    "bools": lambda m: m.microbatch(lambda x: x > 2, 0, 2)(jnp.arange(6)),
    "scalars": lambda m: m.microbatch(jnp.sum, 0, 2, m.AccumulationType.CONCAT)(batch()),
    "a Python number": lambda m: m.microbatch(lambda x: 2.0, 0, 2)(batch()),
    "None in the result": lambda m: m.microbatch(lambda x: (jnp.sum(x), None), 0, 2)(batch()),
    "keywords of vmap": lambda m: m.micro_vmap(lambda x, *, y: x * y, microbatch_size=2)(
        batch(), y=batch()
    ),
    "another vmap": lambda m: m.micro_vmap(
        lambda x: x * jax.lax.axis_index("b"),
        microbatch_size=2,
        vmap_fn=lambda fun, in_axes, out_axes: jax.vmap(fun, in_axes, out_axes, axis_name="b"),
    )(batch()),
    "bools of vmap": lambda m: m.micro_vmap(
        lambda x: x > 0, microbatch_size=2, accumulator=m.AccumulationType.SUM
    )(batch()),
    "reshape": lambda m: m.reshape_batch_axis({"a": batch(), "b": None}, 2),
    "reshape along 1": lambda m: m.reshape_batch_axis(batch().T, 2, 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    same(CALLS[name])


def accumulator(module: Any) -> Any:
    """Sums with a weight for each microbatch, with the sign changed at the end."""
    return module.Accumulator(
        init=lambda like: jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), like),
        update=lambda carry, value, index: jax.tree.map(
            lambda c, v: c + (index + 1) * v, carry, value
        ),
        finalize=lambda carry: jax.tree.map(jnp.negative, carry),
        aggregate=lambda values: jax.tree.map(lambda one: jnp.max(one, axis=0), values),
    )


@pytest.mark.parametrize("size", [2, None])
@pytest.mark.parametrize("limit", [None, 2])
def test_an_accumulator_of_the_user(size: int | None, limit: int | None) -> None:
    options = {"num_real_microbatches": limit}
    same(lambda m: m.microbatch(plus_and_sum, 0, size, accumulator(m), **options)(batch()))
    same(
        lambda m: m.micro_vmap(
            plus_and_sum, microbatch_size=size, accumulator=accumulator(m), **options
        )(batch())
    )


def loss(w: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return 0.5 * jnp.mean((x @ w - y) ** 2)


GRADIENTS: dict[str, dict[str, Any]] = {
    "default": {},
    "parts": {"microbatch_size": 2},
    "mean": {"microbatch_size": 2, "accumulator": "MEAN"},
    "running mean": {"microbatch_size": 3, "accumulator": "RUNNING_MEAN"},
    "concat": {"microbatch_size": 2, "accumulator": "CONCAT"},
    "argnums in a tuple": {"argnums": (0,), "microbatch_size": 2},
    "by the batch too": {"argnums": (0, 1), "microbatch_size": 2},
    "transform": {"transform_fn": lambda g: (g, g**2), "microbatch_size": 2},
    "metrics": {"metrics_fn": jnp.linalg.norm, "microbatch_size": 2},
    "limit": {"metrics_fn": jnp.linalg.norm, "microbatch_size": 2, "num_real_microbatches": 2},
    "no batch axis": {"keep_batch_dim": False, "microbatch_size": 2},
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_micro_grad(name: str) -> None:
    def run(module: Any) -> Any:
        options = dict(GRADIENTS[name])
        if "accumulator" in options:
            options["accumulator"] = module.AccumulationType[options["accumulator"]]
        function = module.micro_grad(loss, batch_argnums=(1, 2), **options)
        return jax.jit(function)(jnp.asarray([1.0, -2.0]), batch(), batch()[:, 0])

    same(run)


def test_micro_grad_with_auxiliary_output_and_trees() -> None:
    def with_aux(params: Any, rows: Any) -> Any:
        residual = rows["x"] @ params["w"] + params["b"] - rows["y"]
        return jnp.mean(residual**2), {"residual": residual}

    params = {"w": np.asarray([1.0, -2.0]), "b": np.asarray(0.5)}

    def run(module: Any) -> Any:
        kinds = module.AccumulationType
        function = module.micro_grad(
            with_aux,
            True,
            transform_fn=lambda g: (g, jax.tree.map(jnp.square, g)),
            accumulator=(kinds.MEAN, {"w": kinds.CONCAT, "b": kinds.SUM}),
            microbatch_size=3,
        )
        rows = {"x": batch(), "y": batch()[:, 0]}
        grads, aux = function(jax.tree.map(jnp.asarray, params), rows)
        assert aux._fields == ("values", "metrics", "aux") and aux.metrics is None
        return grads, aux

    same(run)
