"""Factors by path: what they multiply, what they print, and their errors."""

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

ONE = jnp.ones(2)
PARAMS = {"blocks": [{"w": ONE}] * 3, "head": ONE, "layers": jnp.ones((3, 2))}


def factors_of(tx: Any, params: Any = PARAMS) -> dict[str, Any]:
    """The updates of ones, by path."""
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(tx.update)(ones, tx.init(params), params)
    flat, _ = jax.tree_util.tree_flatten_with_path(updates)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): v.tolist() for p, v in flat}


def test_the_first_match_wins_and_a_chain_multiplies() -> None:
    tx = gradtx.multiply_by_path({r"blocks/0": 0.5, r"blocks/": 2.0}, otherwise=3.0)
    assert factors_of(tx)["blocks/0/w"] == [0.5] * 2
    assert factors_of(tx)["blocks/1/w"] == [2.0] * 2
    assert factors_of(tx)["head"] == [3.0] * 2
    twice = gradtx.chain(tx, gradtx.multiply_by_path({r"/0/": 4.0}))
    assert factors_of(twice)["blocks/0/w"] == [2.0] * 2


def test_a_function_receives_the_groups_and_layer_decay_is_the_same_as_data() -> None:
    plain = gradtx.multiply_by_path({r"blocks/(\d+)": lambda i: 0.75 ** (3 - int(i))})
    data = gradtx.multiply_by_path({r"blocks/(\d+)": gradtx.layer_decay(0.75, layers=3)})
    assert factors_of(plain) == factors_of(data)
    assert factors_of(data)["blocks/2/w"] == [0.75] * 2
    assert repr(data) == (
        "multiply_by_path(factors={'blocks/(\\\\d+)': layer_decay(decay=0.75, layers=3)})"
    )
    assert gradtx.from_config(json.loads(json.dumps(gradtx.to_config(data)))) == data
    assert gradtx.hyperparams(data)["decay"] == 0.75
    assert plain == gradtx.multiply_by_path(dict(plain.arguments["factors"]))


def test_a_function_may_return_a_schedule_and_other_factors() -> None:
    rate = gradtx.linear_schedule(1.0, 0.0, 2)
    tx = gradtx.multiply_by_path({r"blocks/(\d)": lambda i: rate if i == "0" else 0.5})
    updates, state = tx.update(PARAMS, tx.init(PARAMS))
    updates, state = tx.update(PARAMS, state)
    assert updates["blocks"][0]["w"].tolist() == [0.5] * 2 and int(state.count) == 2
    assert updates["blocks"][1]["w"].tolist() == [0.5] * 2


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_along_equals_one_factor_for_each_layer(axis: int) -> None:
    grads, factors = jnp.arange(9.0).reshape(3, 3), [0.25, 0.5, 2.0]
    tx = gradtx.multiply_by_path({r"^w$": gradtx.along(factors, axis=axis)})
    updates, _ = tx.update({"w": grads}, tx.init({"w": grads}))
    layers = [factor * grads.take(i, axis) for i, factor in enumerate(factors)]
    np.testing.assert_array_equal(updates["w"], jnp.stack(layers, axis))


def test_behind_the_optimizer_it_scales_the_decay_and_behind_the_rule_it_does_not() -> None:
    decays = gradtx.multiply_by_path({r"": 0.0})
    whole = gradtx.chain(gradtx.adamw(0.1, weight_decay=0.5), decays)
    rule = gradtx.descend(gradtx.chain(gradtx.scale_by_adam(), decays), 0.1, 0.5)
    updates, _ = whole.update({"w": ONE}, whole.init({"w": ONE}), {"w": ONE})
    assert updates["w"].tolist() == [0.0] * 2
    updates, _ = rule.update({"w": ONE}, rule.init({"w": ONE}), {"w": ONE})
    np.testing.assert_allclose(updates["w"], [-0.05] * 2, rtol=1e-6)  # float32


def test_like_leaves_of_different_factors_share_one_kernel_and_one_run() -> None:
    tx = gradtx.chain(
        gradtx.adamw(1e-3), gradtx.multiply_by_path({r"(\d)": gradtx.layer_decay(0.5, 9)})
    )
    params = [ONE] * 9
    assert len(tx.runs) == 1
    program = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    names = [one.primitive.name for one in program.eqns]
    # The numbers that all share, and nine leaves in bundles of three.
    assert names.count("jit") + names.count("pjit") == 4


def test_a_batch_of_decays_is_one_program() -> None:
    tx = gradtx.multiply_by_path({r"blocks/(\d+)": gradtx.layer_decay(0.5, layers=3)})

    def first(decay: Any) -> Any:
        one = gradtx.replace(tx, decay=decay)
        return one.update(PARAMS, one.init(PARAMS))[0]["blocks"][2]["w"]

    assert jax.vmap(first)(jnp.array([0.25, 0.5])).tolist() == [[0.25] * 2, [0.5] * 2]


def test_coverage_shows_factors() -> None:
    rate = gradtx.cosine_decay_schedule(1.0, 3)
    factors = {r"blocks/0": 0.5, r"layers": gradtx.along([1.0, 0.5, 0.25]), r"head": rate}
    tx = gradtx.chain(gradtx.adamw(1e-3, mask=r"w$"), gradtx.multiply_by_path(factors))
    assert gradtx.coverage(tx, PARAMS) == {
        "blocks/0/w": "adamw, decayed × 0.5",
        "blocks/1/w": "adamw, decayed",
        "blocks/2/w": "adamw, decayed",
        "head": "adamw × cosine_decay_schedule",
        "layers": "adamw × 0.25 to 1",
    }


@pytest.mark.parametrize(
    ("factors", "error", "text"),
    [
        ({}, gradtx.SelectionError, "factors = {} names no pattern: write {r'lora_b$': 16.0}"),
        (
            {r"lora_b$": 16.0},
            gradtx.SelectionError,
            "'lora_b$' matches none of the 5 leaves; the paths are 'blocks/0/w', 'blocks/1/w', "
            "'blocks/2/w', ...",
        ),
        (
            {r"blocks": 1.0, r"blocks/0": 0.5},
            gradtx.SelectionError,
            "'blocks/0' claims nothing: earlier patterns claim every leaf",
        ),
        ({r"head": -1.0}, gradtx.HyperparamError, "factors = -1.0 is outside its range [0, inf)"),
        ({r"head": np.inf}, gradtx.HyperparamError, "factors = inf is outside its range [0, inf)"),
        (
            {r"head": np.array([1.0, np.nan])},
            gradtx.HyperparamError,
            "by 'head', is f64[2]: give finite numbers ≥ 0",
        ),
        (
            {r"blocks/(\d)": lambda i: -float(i)},
            gradtx.HyperparamError,
            "the factor of 'blocks/1/w', by 'blocks/(\\\\d)', is -1.0: give finite numbers ≥ 0",
        ),
        (
            {r"blocks/(\d)": lambda i: i},
            gradtx.HyperparamError,
            "the factor of 'blocks/0/w', by 'blocks/(\\\\d)', is '0', which is not a number: "
            "return a number, an array, a schedule or along(...)",
        ),
        (
            {r"(b)locks/(.)": lambda i: 0.5},
            gradtx.HyperparamError,
            "the function of '(b)locks/(.)' does not take the 2 groups of the pattern",
        ),
        (
            {r"head": np.ones(3)},
            gradtx.StructureError,
            "by 'head', is f64[3], which does not broadcast to f32[2]",
        ),
        (
            {r"layers": gradtx.along([1.0, 2.0])},
            gradtx.StructureError,
            "which does not fit f32[3,2]: give one factor for each layer, and the axis",
        ),
        (
            {r"blocks/(\d)": gradtx.layer_decay(0.5, layers=2)},
            gradtx.SelectionError,
            "layer_decay: the match has '2' in its first group, and it must be the number of a "
            "layer, 0 to 1",
        ),
        (
            {r"blocks": gradtx.layer_decay(0.5, layers=2)},
            gradtx.SelectionError,
            "layer_decay: the match has no group",
        ),
        ({r"(": 1.0}, gradtx.SelectionError, "'(' is not a regular expression"),
    ],
)
def test_errors(factors: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        gradtx.multiply_by_path(factors).init(PARAMS)


def test_a_python_function_does_not_go_to_json() -> None:
    tx = gradtx.multiply_by_path({r"blocks/(\d)": lambda i: 0.5})
    text = "is the Python function .*; write layer_decay(...), or a number for each pattern"
    with pytest.raises(gradtx.ConfigError, match=text.replace("(...)", r"\(\.\.\.\)")):
        gradtx.to_config(tx)
