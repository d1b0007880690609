"""The roles of the parameters of small modules as the frameworks themselves make them.

`test_roles_of_models.py` has the tables of large models; here flax, equinox and haiku say the
names and shapes of today.
"""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gradtx
from gradtx.definition.errors import RoleWarning

TOKENS = jnp.zeros((2, 5), int)
X = jnp.zeros((2, 5, 32))
KEY = jax.random.key(0)


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4)(y, y)
        return x + nn.Dense(32)(nn.gelu(nn.Dense(128)(nn.LayerNorm()(x)))), None


class LinenModel(nn.Module):
    is_scanned: bool = False

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = nn.Embed(65, 32)(tokens)
        if self.is_scanned:
            scanned = nn.scan(
                LinenBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            x, _ = scanned()(x, None)
        else:
            for _ in range(2):
                x, _ = LinenBlock()(x)
        return nn.Dense(65)(nn.LayerNorm()(x))


class LinenGeneral(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.DenseGeneral((3, 4, 8), name="fused")(x)


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.mix = nnx.MultiHeadAttention(4, 32, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(32, rngs=rngs)
        self.up, self.down = nnx.Linear(32, 128, rngs=rngs), nnx.Linear(128, 32, rngs=rngs)
        self.split = nnx.LinearGeneral(32, (4, 8), rngs=rngs)


class EquinoxBlock(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __init__(self, key: jax.Array) -> None:
        self.attention = eqx.nn.MultiheadAttention(4, 32, use_query_bias=True, key=key)
        self.norm = eqx.nn.LayerNorm(32)
        self.mlp = eqx.nn.MLP(32, 32, 128, 1, key=key)


def linen(module: nn.Module, *inputs: Any) -> Any:
    return jax.eval_shape(module.init, KEY, *inputs)["params"]


def haiku_model(tokens: Any) -> Any:
    import haiku as hk

    x = hk.Embed(65, 32)(tokens)
    start = hk.initializers.VarianceScaling()
    x = x + hk.MultiHeadAttention(4, 8, w_init=start, name="attention")(x, x, x)
    x = x + hk.nets.MLP([128, 32], name="mlp")(hk.LayerNorm(-1, True, True)(x))
    return hk.Linear(65)(x)


def haiku_params() -> Any:
    import haiku as hk

    return jax.eval_shape(hk.transform(haiku_model).init, KEY, TOKENS)


def equinox_stack() -> Any:
    return eqx.filter(eqx.filter_vmap(EquinoxBlock)(jax.random.split(KEY, 3)), eqx.is_inexact_array)


MODULES: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "linen": (
        lambda: linen(LinenModel(), TOKENS),
        {
            "MultiHeadDotProductAttention_0/query/kernel": "in out out",
            "MultiHeadDotProductAttention_0/key/kernel": "in out out",
            "MultiHeadDotProductAttention_0/value/kernel": "in out out",
            "MultiHeadDotProductAttention_0/out/kernel": "in in out",
            "LinenBlock_1/Dense_0/kernel": "in out",
            "LinenBlock_1/Dense_1/kernel": "in out",
            "LinenBlock_0/Dense_0/kernel": "in out",
            "LinenBlock_0/Dense_1/kernel": "in out",
        },
    ),
    "linen, scanned": (
        lambda: linen(LinenModel(is_scanned=True), TOKENS),
        {
            "query/kernel": "batch in out out",
            "key/kernel": "batch in out out",
            "value/kernel": "batch in out out",
            "out/kernel": "batch in in out",
            "ScanLinenBlock_0/Dense_0/kernel": "batch in out",
            "ScanLinenBlock_0/Dense_1/kernel": "batch in out",
        },
    ),
    "linen attention alone": (
        lambda: linen(nn.MultiHeadDotProductAttention(num_heads=4), X, X),
        {
            **dict.fromkeys(["query/kernel", "key/kernel", "value/kernel"], "in out out"),
            "out/kernel": "in in out",
        },
    ),
    "linen without biases": (
        lambda: linen(nn.MultiHeadDotProductAttention(num_heads=4, use_bias=False), X, X),
        {
            **dict.fromkeys(["query/kernel", "key/kernel", "value/kernel"], "in out out"),
            "out/kernel": "in in out",
        },
    ),
    "linen DenseGeneral": (
        lambda: linen(LinenGeneral(), X),
        {"fused/kernel": "in out out out"},
    ),
    "nnx": (
        lambda: nnx.state(nnx.eval_shape(lambda: NnxBlock(nnx.Rngs(0))), nnx.Param),
        {
            **dict.fromkeys(["query/kernel", "key/kernel", "value/kernel"], "in out out"),
            "out/kernel": "in in out",
            "up/kernel": "in out",
            "down/kernel": "in out",
            "split/kernel": "in out out",
        },
    ),
    "equinox": (
        lambda: eqx.filter(EquinoxBlock(KEY), eqx.is_inexact_array),
        {
            **dict.fromkeys(["query_proj", "key_proj", "value_proj", "output_proj"], "out in"),
            "layers/0/weight": "out in",
            "layers/1/weight": "out in",
        },
    ),
    "equinox, stacked": (
        equinox_stack,
        {
            **dict.fromkeys(
                ["query_proj", "key_proj", "value_proj", "output_proj"], "batch out in"
            ),
            "layers/0/weight": "batch out in",
            "layers/1/weight": "batch out in",
        },
    ),
    "haiku": (
        haiku_params,
        {
            **dict.fromkeys(["query/w", "key/w", "value/w", "attention/linear/w"], "in out"),
            "~/linear_0/w": "in out",
            "~/linear_1/w": "in out",
        },
    ),
}


HAS_HAIKU = importlib.util.find_spec("haiku") is not None  # it lags behind JAX's versions
TESTED = [name for name in MODULES if name != "haiku" or HAS_HAIKU]


@pytest.mark.parametrize("name", TESTED)
def test_muon_gets_the_matrices_of_real_modules_without_a_guess(name: str) -> None:
    make, expected = MODULES[name]
    params = make()
    table = gradtx.coverage(gradtx.muon(0.1), params)
    seen = set[str]()
    for path, training in table.items():
        kind = next((one for one in expected if one in path and not path.endswith("bias")), None)
        if training != "muon":
            assert kind is None, (path, table.reasons[path])
            continue
        assert kind is not None, (path, table.reasons[path])
        assert table.reasons[path].startswith(f"a hidden matrix ({expected[kind]}),"), path
        seen.add(kind)
    assert seen == {*expected}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RoleWarning)
        jax.eval_shape(gradtx.muon(0.1).init, params)


def test_what_nothing_decides_is_named_and_goes_to_adam() -> None:
    shape = jax.ShapeDtypeStruct
    kernels = {
        "merge": {"kernel": shape((4, 8, 32), "float32"), "bias": shape((32,), "float32")},
        "cube": {
            "kernel": shape((8, 8, 16), "float32"),
            "bias": shape((8, 16), "float32"),
            "scale": shape((16,), "float32"),
        },
        "wide": {"kernel": shape((32, 3, 4, 8), "float32")},
    }
    with pytest.warns(RoleWarning, match="'merge/kernel' of shape") as caught:
        jax.eval_shape(gradtx.muon(0.1).init, kernels)
    assert "'wide/kernel' of shape (32, 3, 4, 8) goes to 'adam'" in str(caught[0].message)
    assert {*gradtx.coverage(gradtx.muon(0.1), kernels).values()} == {"adam"}
