"""Definitions as JSON: what cannot be written, what cannot be read, and any JSON at all."""

import copy
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import ConfigError, GradtxError
from tests.methods import METHODS

PAIR = gradtx.GradientTransformation(min, max)  # pyright: ignore[reportArgumentType]
FORMS = (
    'is not a value that to_config writes: a mapping is {"call": ...}, {"dict": pairs}, '
    '{"list": items}, {"array": numbers, "dtype": name}, {"dtype": name}, '
    '{"spec": names} or {"record": class, "fields": {...}}'
)
NO_CALL = "is not one call: write {name: arguments}, as to_config returns it"

NOT_WRITTEN: dict[str, tuple[Callable[[], Any], str]] = {
    "a random key": (
        lambda: gradtx.chain(gradtx.add_noise(0.1, 0.5, jax.random.key(3))),
        "chain: members[0]: add_noise: key is a random key, which JSON cannot hold: pass its seed, "
        "an int, in its place",
    ),
    "random keys": (
        lambda: jax.tree.map(lambda _: jax.random.split(jax.random.key(3)), gradtx.scale(1.0)),
        "scale: step_size is a random key, which JSON cannot hold: pass its seed, an int, in its "
        "place",
    ),
    "a function": (
        lambda: gradtx.chain(a=gradtx.sgd(abs)),
        "chain: named.a: sgd: learning_rate is the Python function <built-in function abs>; write "
        "it as a @gradtx.schedule to save it",
    ),
    "a predicate": (
        lambda: gradtx.masked(gradtx.sgd(0.1), min),
        "masked: mask = <built-in function min> cannot be written as JSON; use a regular "
        "expression, a number or a schedule",
    ),
    "a complex number": (
        lambda: jax.tree.map(lambda _: jnp.array(1j), gradtx.scale(1.0)),
        "scale: step_size is an array of complex64, which JSON cannot hold: use real numbers",
    ),
    "a pair of functions": (
        lambda: gradtx.chain(gradtx.sgd(0.1), PAIR),
        "chain: members[1] is another library's pair of functions, <built-in function min> and "
        "<built-in function max>; write it as a @gradtx.definition to save it",
    ),
    "a pair alone": (
        lambda: PAIR,
        "to_config: this is another library's pair of functions, <built-in function min> and "
        "<built-in function max>; write it as a @gradtx.definition to save it",
    ),
    "a number": (
        lambda: 3,
        "to_config: 3 is not a definition: pass a gradient transformation or a schedule of gradtx",
    ),
}


@pytest.mark.parametrize("name", NOT_WRITTEN)
def test_an_argument_that_json_cannot_hold_is_refused_by_name(name: str) -> None:
    make, text = NOT_WRITTEN[name]
    with pytest.raises(ConfigError) as caught:
        gradtx.to_config(make())
    assert str(caught.value) == text


def test_a_tuple_of_optax_is_no_definition() -> None:
    with pytest.raises(ConfigError, match=r"to_config: .* is not a definition: pass"):
        gradtx.to_config(optax.sgd(0.1))  # pyright: ignore[reportArgumentType]


def test_a_traced_argument_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        jax.jit(lambda rate: gradtx.to_config(gradtx.sgd(rate)))(0.1)
    text = "sgd: learning_rate is traced: call to_config outside of jit, grad, vmap and scan"
    assert str(caught.value) == text


NOT_READ: dict[str, tuple[Any, str]] = {
    "a list": ([1], f"config = [1] {NO_CALL}"),
    "None": (None, f"config = None {NO_CALL}"),
    "a text": ("adam", f"config = 'adam' {NO_CALL}"),
    "nothing": ({}, f"config = {{}} {NO_CALL}"),
    "two calls": ({"adam": {}, "sgd": {}}, f"config = {{'adam': {{}}, 'sgd': {{}}}} {NO_CALL}"),
    "arguments as a list": (
        {"sgd": [0.1]},
        "config: the arguments of sgd are [0.1]: write each by its name, {'learning_rate': ...}",
    ),
    "arguments as a number": (
        {"chain": {"members": [{"call": {"sgd": 0.1}}]}},
        "config: chain: members[0]: the arguments of sgd are 0.1: write each by its name, "
        "{'learning_rate': ...}",
    ),
    "an unknown name": (
        {"chain": {"members": [{"call": {"sgdd": {}}}]}},
        "config: chain: members[0]: 'sgdd' is not a known factory; import the module that defines "
        "it first, under the name module:function",
    ),
    "a name that is none": (
        {3: {}},
        "config: 3 is not a known factory; import the module that defines it first, under the name "
        "module:function",
    ),
    "an unknown module": (
        {"no_module_of_this_name:scale": {}},
        "config: the module of 'no_module_of_this_name:scale' cannot be imported (No module named "
        "'no_module_of_this_name'): install it, or write the name as module:function",
    ),
    "a module without a name": (
        {":scale": {}},
        "config: the module of ':scale' cannot be imported (Empty module name): install it, or "
        "write the name as module:function",
    ),
    "a module without the function": (
        {"json:scale": {}},
        "config: 'json:scale' is not a known factory; import the module that defines it first, "
        "under the name module:function",
    ),
    "an unknown argument": (
        {"scale": {"step_size": 1.0, "factor": 1.0}},
        "config: scale has no argument factor; it has step_size",
    ),
    "an argument too few": (
        {"scale": {}},
        "config: scale lacks the argument step_size: write it down",
    ),
    "a mapping of no form": (
        {"scale": {"step_size": {"value": 1}}},
        f"config: scale: step_size = {{'value': 1}} {FORMS}",
    ),
    "two forms in one": (
        {"scale": {"step_size": {"dtype": "float32", "list": []}}},
        f"config: scale: step_size = {{'dtype': 'float32', 'list': []}} {FORMS}",
    ),
    "an unknown dtype": (
        {"sgd": {"learning_rate": 0.1, "accumulator_dtype": {"dtype": "float33"}}},
        f"config: sgd: accumulator_dtype = {{'dtype': 'float33'}} {FORMS}",
    ),
    "an array of texts": (
        {"scale": {"step_size": {"array": "x", "dtype": "float32"}}},
        f"config: scale: step_size = {{'array': 'x', 'dtype': 'float32'}} {FORMS}",
    ),
    "pairs of one": (
        {"scale": {"step_size": {"dict": [1]}}},
        f"config: scale: step_size = {{'dict': [1]}} {FORMS}",
    ),
    "keys that no dict has": (
        {"scale": {"step_size": {"dict": [[{"list": []}, 1]]}}},
        f"config: scale: step_size = {{'dict': [[{{'list': []}}, 1]]}} {FORMS}",
    ),
    "a list of nothing": (
        {"scale": {"step_size": {"list": 3}}},
        f"config: scale: step_size = {{'list': 3}} {FORMS}",
    ),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_a_config_that_is_none_is_refused_by_place(name: str) -> None:
    config, text = NOT_READ[name]
    with pytest.raises(ConfigError) as caught:
        gradtx.from_config(config)
    assert str(caught.value) == text


def test_a_number_out_of_its_range_is_refused_as_at_the_call() -> None:
    with pytest.raises(gradtx.HyperparamError, match=r"sgd: momentum = -1 is outside its"):
        gradtx.from_config(
            {"chain": {"members": [{"call": {"sgd": {"learning_rate": 1, "momentum": -1}}}]}}
        )


def configs() -> dict[str, Any]:
    """The JSON of every row of the table, but for those that hold a Python function."""
    found = dict[str, Any]()
    for name, method in METHODS.items():
        try:
            found[name] = gradtx.to_config(method.tx)
        except ConfigError as error:
            assert "function" in str(error), (name, error)
    return found


CONFIGS = configs()


def test_most_rows_of_the_table_are_tried() -> None:
    assert len(CONFIGS) > len(METHODS) / 2 and len(CONFIGS) > 80


@pytest.mark.parametrize("name", CONFIGS)
def test_the_json_of_every_method_is_itself(name: str) -> None:
    again = gradtx.from_config(json.loads(json.dumps(CONFIGS[name])))
    assert gradtx.to_config(again) == CONFIGS[name]


@pytest.mark.parametrize("dtype", ["int4", "uint8", "float16", "bfloat16", "float8_e4m3fn"])
def test_arrays_of_every_dtype_are_written(dtype: str) -> None:
    tx = jax.tree.map(lambda _: np.ones((), jnp.dtype(dtype)), gradtx.scale(1.0))
    array = gradtx.from_config(json.loads(json.dumps(gradtx.to_config(tx)))).arguments["step_size"]
    assert array.dtype == dtype and array == 1


STRANGE = [None, True, -1, 0.5, 10**400, "", "x", "nan", [], [1], [[]], {}, {"a": 1}]
STRANGE += [{one: value} for one in ("call", "list", "dict", "dtype") for value in (None, [], {})]
STRANGE += [{"array": value, "dtype": "int8"} for value in ([], [300], [[1], []], {}, "x")]


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a config, and each of its keys."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from places(node[key])


def test_any_json_is_a_definition_or_one_sentence() -> None:
    """Valid configs with one place replaced, dropped or renamed."""
    generator = random.Random(0)
    configs = list(CONFIGS.values())
    configs.append(gradtx.to_config(gradtx.partition({"a": gradtx.adam(0.1)}, [(".*", "a")])))
    for _ in range(1500):
        config = copy.deepcopy(generator.choice(configs))
        holder, key = generator.choice(list(places(config)))
        if generator.random() < 0.8:
            holder[key] = copy.deepcopy(generator.choice(STRANGE))
        elif isinstance(holder, dict):
            holder[generator.choice(["x", "sgd", "call"])] = holder.pop(key)
        else:
            holder.pop(key)
        try:
            gradtx.from_config(config)
        except GradtxError as error:
            assert ". " not in str(error) and "\n" not in str(error), (config, error)


def test_a_new_process_knows_every_builder() -> None:
    """No module of a builder is imported before its name is read, operators included."""
    code = (
        "import gradtx; rate = {'call': {'phases': {'phases': [{'call': {'warmup': {'steps': 5, "
        "'peak_value': 1.0}}}]}}}; half = {'call': {'multiply_schedules': {'left': 0.5, 'right': "
        "rate}}}; print(gradtx.from_config({'sgd': {'learning_rate': half}}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rate = gradtx.phases(gradtx.warmup(5, 1.0))
    assert run.stdout.strip() == repr(gradtx.sgd(0.5 * rate))
