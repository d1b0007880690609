"""Arguments that a builder refuses at its call: every argument of every builder."""

import inspect
import math
import re
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.definition.definition import registry
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.types import DTypeLike
from tests.support.calls import BUILDERS, CALLS, call, numbers

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
NO_NUMBERS: dict[str, Any] = {
    "a tuple": (0.5, 0.5),
    "a list": [0.5],
    "a dict": {"b1": 0.5},
    "parameters": PARAMS,
    "an array": jnp.full(3, 0.5),
    "an array of NumPy's": np.full((1, 2), 0.5),
    "a bool": True,
    "a bool of NumPy's": np.bool_(True),
    "an array of bools": jnp.array(True),
    "a complex number": 0.5j,
    "a complex array": jnp.array(0.5j),
    "a text": "0.5",
    "nan": math.nan,
}
ARRAYS = {type(NO_NUMBERS[name]): NO_NUMBERS[name] for name in ("an array", "an array of NumPy's")}
WRONG_DTYPES = ["int8", "int32", "uint8", "bool", "float8_e4m3fn", "complex64", int, bool, jnp.int8]
MISSPELT = {"bf16": "bfloat16", "flot32": "float32", "fp16": "float16", "bfloat": "bfloat16"}


def options_like(name: str, kind: Callable[[Any], bool]) -> list[str]:
    """The options of a builder with such an annotation."""
    hints = registry[name]._option_hints
    return [one for one, hint in hints.items() if kind(_without_none(hint))]


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return parts[0] if len(parts) == 1 and type(None) in typing.get_args(hint) else hint


def is_dtype(hint: Any) -> bool:
    parts = typing.get_args(hint)
    return all(part in parts for part in typing.get_args(DTypeLike))


def is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Literal


def test_the_table_has_every_builder() -> None:
    assert set(BUILDERS) - set(CALLS) == set()


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_a_number_is_one_real_number(value: Any) -> None:
    places = 0
    for name in BUILDERS:
        for argument, interval in numbers(registry[name]).items():
            if interval.any_shape and value is ARRAYS.get(type(value)):
                continue  # a bound of `project` may be an array
            with pytest.raises(GradtxError, match=rf"^{name}: {argument}\b") as caught:
                call(name, **{argument: value})
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
            places += 1
    assert places > 400


def test_numbers_are_held_to_their_ranges() -> None:
    finite = 0
    for name in BUILDERS:
        for argument, interval in numbers(registry[name]).items():
            for bad in (interval.low - 1, math.inf, -math.inf):
                if bad not in interval:
                    with pytest.raises(HyperparamError, match=rf"^{name}: {argument} = .* range"):
                        call(name, **{argument: bad})
            finite += math.inf not in interval
            if argument.endswith("learning_rate") and not argument.startswith("max_"):
                assert math.inf not in interval
    assert finite > 300


def test_batches_are_made_by_replace_and_by_stacking() -> None:
    """A constructor within `vmap` sees one number."""
    rates, grads = jnp.array([0.1, 0.2]), jnp.array(10.0)

    def step(tx: Any) -> Any:
        return tx.update(grads, tx.init(grads), grads)[0]

    made = jax.vmap(lambda rate: step(gradtx.sgd(rate)))(rates)
    batch = gradtx.replace(gradtx.sgd(0.1), learning_rate=rates)
    stacked = jax.tree.map(lambda *each: jnp.stack(each), gradtx.sgd(0.1), gradtx.sgd(0.2))
    assert made.tolist() == jax.vmap(step)(batch).tolist() == jax.vmap(step)(stacked).tolist()
    assert gradtx.from_config(gradtx.to_config(batch)) == batch
    assert gradtx.hyperparams(stacked)["learning_rate"].shape == (2,)


def test_keys_of_both_forms_are_one_value() -> None:
    for key in (jax.random.key(0), jax.random.PRNGKey(0), 0):
        assert gradtx.add_noise(0.1, 0.5, key)


def wrong_dtypes(argument: str) -> list[Any]:
    """The slots of complex parameters may be complex; arithmetic follows the arrays."""
    may_be_complex = argument in ("mu_dtype", "accumulator_dtype", "state_dtype")
    return [one for one in WRONG_DTYPES if one != "complex64" or not may_be_complex]


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("name", ["sgd", "adam", "lion"])
def test_a_complex_dtype_of_slots(name: str, dtype: str) -> None:
    """The slots have it, the updates the gradient's dtype, and the numbers are those without."""
    option = "accumulator_dtype" if name == "sgd" else "mu_dtype"
    more = {"momentum": 0.9} if name == "sgd" else {}
    grads = jnp.array([1.0, -2.0] if dtype == "float32" else [1 + 2j, 3 - 1j])
    plain, other = (
        getattr(gradtx, name)(0.1, **more, **dtypes) for dtypes in ({}, {option: "complex64"})
    )
    updates, states = [], []
    for tx in (plain, other):
        _, state = tx.update(grads, tx.init(grads), grads)
        update, state = tx.update(grads, state, grads)
        updates.append(update)
        states.append(state)
    assert updates[1].dtype == dtype
    np.testing.assert_allclose(updates[1], updates[0], rtol=1e-6)
    assert "complex64" in {str(leaf.dtype) for leaf in jax.tree.leaves(states[1])}


def test_every_dtype_is_a_float_of_16_bits_or_more() -> None:
    places = 0
    for name in BUILDERS:
        for argument in options_like(name, is_dtype):
            for good in ("bfloat16", jnp.float16, np.dtype("float32"), "float64"):
                call(name, **{argument: good})
            for bad in wrong_dtypes(argument):
                text = (
                    rf"^{name}: {argument} = .* not a float of at least 16 bits; .*gradtx\.stored"
                )
                with pytest.raises(HyperparamError, match=text):
                    call(name, **{argument: bad})
            for misspelt, meant in MISSPELT.items():
                text = (
                    rf"^{name}: {argument} = '{misspelt}' is not a dtype; did you mean '{meant}'\?"
                )
                with pytest.raises(HyperparamError, match=text):
                    call(name, **{argument: misspelt})
            places += 1
    assert places > 50


def test_flags_are_bools() -> None:
    places = 0
    for name in BUILDERS:
        for argument in options_like(name, lambda hint: hint is bool):
            for bad in (1e-4, 1, "yes"):
                text = rf"^{name}: {argument} = {bad!r} must be True or False"
                with pytest.raises(HyperparamError, match=text):
                    call(name, **{argument: bad})
            places += 1
    assert places > 60


def test_choices_are_those_of_the_annotation() -> None:
    places = 0
    for name in BUILDERS:
        for argument in options_like(name, is_literal):
            text = rf"^{name}: {argument} = 'zzz' is unknown; choose one of '"
            with pytest.raises(HyperparamError, match=text):
                call(name, **{argument: "zzz"})
            places += 1
    assert places > 30


def test_an_option_that_must_be_given_is_not_none() -> None:
    places = [
        (name, argument)
        for name in BUILDERS
        for argument, hint in registry[name]._option_hints.items()
        if hint is not Any and not _has_none(hint)
        if registry[name].signature.parameters[argument].default is not None
        if argument not in registry[name]._variadic
    ]
    for name, argument in places:
        with pytest.raises(HyperparamError, match=f"^{name}: {argument} is None, and must be"):
            call(name, **{argument: None})
    assert len(places) > 100
    assert {("masked", "mask"), ("freeze", "mask"), ("selective_transform", "freeze_mask")} <= {
        *places
    }


def _has_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


SENTENCES: dict[str, tuple[Callable[[], Any], str]] = {
    "torch's betas in the place of b1": (
        lambda: gradtx.adam(0.1, (0.9, 0.99)),  # pyright: ignore[reportArgumentType]
        "adam: b1 = (0.9, 0.99) is a tuple: write b1=0.9, b2=0.99",
    ),
    "three betas": (
        lambda: gradtx.adan(0.1, [0.98, 0.92, 0.99]),  # pyright: ignore[reportArgumentType]
        "adan: b1 = [0.98, 0.92, 0.99] is a list: write b1=0.98, b2=0.92, b3=0.99",
    ),
    "torch's betas": (
        lambda: gradtx.adam(0.1, betas=(0.9, 0.99)),  # pyright: ignore[reportCallIssue]
        "adam has no hyperparameter or option 'betas'; did you mean 'b1' and 'b2'?",
    ),
    "parameters as learning rate": (
        lambda: gradtx.adam(PARAMS, 1e-3),  # pyright: ignore[reportArgumentType]
        "adam: learning_rate is a tree of arrays, as parameters are, and must be one number: a "
        "definition takes no parameters, tx.init(params) does",
    ),
    "a list": (
        lambda: gradtx.sgd(0.1, momentum=[0.9]),  # pyright: ignore[reportArgumentType]
        "sgd: momentum = [0.9] is a list, and must be one number",
    ),
    "an array": (
        lambda: gradtx.adam(jnp.ones(3)),
        "adam: learning_rate = f32[3] is an array of shape (3,), and must be one number; for a "
        "batch of definitions take gradtx.replace and gradtx.vmap_axes",
    ),
    "a bool": (
        lambda: gradtx.sgd(True),
        "sgd: learning_rate = True is a bool, and must be a real number",
    ),
    "a complex number": (
        lambda: gradtx.sgd(1j),  # pyright: ignore[reportArgumentType]
        "sgd: learning_rate = 1j is complex, and must be a real number",
    ),
    "an infinite rate": (
        lambda: gradtx.sgd(math.inf),
        "sgd: learning_rate = inf is outside its range (-inf, inf)",
    ),
    "a negative decay": (
        lambda: gradtx.adamw(0.1, weight_decay=-0.01),
        "adamw: weight_decay = -0.01 is outside its range [0, inf); to let parameters grow, put "
        "add_decayed_weights(0.01) behind adamw",
    ),
    "a decay of 1": (
        lambda: gradtx.ema(1.0),
        "ema: decay = 1.0 is outside its range [0, 1); at 1 an average would never move: give a "
        "number below 1",
    ),
    "a decay in the place of nesterov": (
        lambda: gradtx.sgd(0.1, 0.9, 1e-4),  # pyright: ignore[reportArgumentType]
        "sgd: nesterov = 0.0001 must be True or False; its arguments are, in order, learning_rate, "
        "momentum, nesterov, accumulator_dtype",
    ),
    "a dtype of 8 bits": (
        lambda: gradtx.adam(0.1, mu_dtype="int8"),
        "adam: mu_dtype = 'int8' is not a float of at least 16 bits; choose one of 'bfloat16', "
        "'float16', 'float32', 'float64', or for a smaller state write gradtx.stored(tx, 'int8')",
    ),
    "coefficients of no name": (
        lambda: gradtx.muon(0.1, ns_coeffs="jordn"),  # pyright: ignore[reportArgumentType]
        "muon: ns_coeffs = 'jordn' is unknown; choose one of 'polar_express', 'jordan', 'you', "
        "'cans', 'deepseek', 'svd', 'qr', or give triples (a, b, c); did you mean 'jordan'?",
    ),
    "coefficients that are no triples": (
        lambda: gradtx.scale_by_muon(ns_coeffs=(1.0, 2.0)),  # pyright: ignore[reportArgumentType]
        "scale_by_muon: ns_coeffs = (1.0, 2.0) is not a sequence of triples (a, b, c), nor one",
    ),
    "a scaling of no name": (
        lambda: gradtx.muon(0.1, scaling="spectrl"),  # pyright: ignore[reportArgumentType]
        "muon: scaling = 'spectrl' is unknown; choose one of 'none', 'original', "
        "'match_rms_adamw', 'spectral', or give a number",
    ),
    "a list of names": (
        lambda: gradtx.tunable(gradtx.sgd(0.1), ["learning_rate"]),  # pyright: ignore[reportArgumentType]
        "tunable: names = ['learning_rate'] must be a text",
    ),
    "a list of members": (
        lambda: gradtx.chain([gradtx.sgd(0.1)]),  # pyright: ignore[reportArgumentType]
        "chain: members is a list, and must be one transformation: write chain(*members)",
    ),
    "a list inside of a wrapper": (
        lambda: gradtx.guard([gradtx.sgd(0.1)]),  # pyright: ignore[reportArgumentType]
        "guard: inner is a list, and must be one transformation: write chain(*members)",
    ),
    "parameters as a member": (
        lambda: gradtx.guard(PARAMS),  # pyright: ignore[reportArgumentType]
        "guard: inner is a tree of arrays, which has no init and update: pass a gradient",
    ),
    "a state in the place of a definition": (
        lambda: gradtx.hyperparams(gradtx.sgd(0.1).init(PARAMS)),  # pyright: ignore[reportArgumentType]
        "hyperparams: tx is a State: pass the transformation that it belongs to",
    ),
    "a state in replace": (
        lambda: gradtx.replace(gradtx.sgd(0.1).init(PARAMS), learning_rate=1.0),  # pyright: ignore[reportArgumentType]
        "replace: tx is a State: pass the transformation that it belongs to",
    ),
    "a state in vmap_axes": (
        lambda: gradtx.vmap_axes(gradtx.sgd(0.1).init(PARAMS), "learning_rate"),  # pyright: ignore[reportArgumentType]
        "vmap_axes: tx is a State: pass the transformation that it belongs to",
    ),
    "a builder in hyperparams": (
        lambda: gradtx.hyperparams(gradtx.sgd),  # pyright: ignore[reportArgumentType]
        "hyperparams: tx: sgd is a function that makes transformations: call it, sgd(...)",
    ),
    "parameters in coverage": (
        lambda: gradtx.coverage(PARAMS, PARAMS),  # pyright: ignore[reportArgumentType]
        "coverage: tx is a tree of arrays, which has no init and update: pass a gradient",
    ),
    "no groups": (
        lambda: gradtx.partition({}, {"w": "a", "b": "a"}),
        "partition: transforms is empty, so no leaf has a group: give {name: transformation}",
    ),
    "two groups of one name": (
        lambda: gradtx.partition({1: gradtx.sgd(0.1), "1": gradtx.sgd(0.2)}, [(".*", 1)]),
        "partition: two groups have the name '1' in the state: give them other labels",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_the_sentence(case: str) -> None:
    make, text = SENTENCES[case]
    with pytest.raises((GradtxError, TypeError), match=re.escape(text)) as caught:
        make()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_module_that_can_be_called_is_a_tree_of_parameters() -> None:
    """A schedule may bind numbers and arrays by a partial function."""

    @jax.tree_util.register_pytree_node_class
    class Layer:
        def __init__(self, kernel: Any):
            self.kernel = kernel

        def __call__(self, x: Any) -> Any:
            return self.kernel @ x

        def tree_flatten(self) -> Any:
            return (self.kernel,), None

        @classmethod
        def tree_unflatten(cls, aux: Any, children: Any) -> Any:
            return cls(*children)

    with pytest.raises(HyperparamError, match="learning_rate is a tree of arrays"):
        gradtx.adam(Layer(jnp.ones((2, 2))))
    table = jax.tree_util.Partial(lambda table, count: table[count], jnp.array([0.5, 0.25]))
    tx = gradtx.sgd(table)
    assert tx.update(jnp.array(2.0), tx.init(jnp.array(0.0)))[0].item() == -1.0


def test_negative_weight_decay_behind_the_learning_rate_as_in_optax() -> None:
    ours, theirs = (
        lib.chain(lib.scale(-0.1), lib.add_decayed_weights(-1e-2)) for lib in (gradtx, optax)
    )
    update = ours.update(PARAMS, ours.init(PARAMS), PARAMS)[0]
    expected = theirs.update(PARAMS, theirs.init(PARAMS), PARAMS)[0]
    jax.tree.map(np.testing.assert_array_equal, update, expected)


def test_limits_may_be_infinite() -> None:
    for tx in (
        gradtx.clip_by_global_norm(math.inf),
        gradtx.clip(math.inf),
        gradtx.guard(gradtx.sgd(0.1), max_norm=math.inf),
        gradtx.polyak_sgd(max_learning_rate=math.inf),
        gradtx.adopt(0.1, clip_value_fn=math.inf),
    ):
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.array(1.0))
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", [name for name in BUILDERS if name in dir(gradtx)])
def test_what_the_signature_shows_can_be_called(name: str) -> None:
    """Frameworks read the signature, and pass every argument by the name that it shows."""
    builder, made = getattr(gradtx, name), CALLS[name]
    shown = inspect.signature(builder).parameters
    assert [*shown] == [*made.factory.signature.parameters]
    assert not any(one.kind is one.VAR_KEYWORD for one in shown.values()) or name == "stored"
    if any(one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in shown.values()):
        return
    assert builder(**{one: made.arguments[one] for one in shown}) == made
    if isinstance(made, gradtx.GradientTransformation):
        assert optax.inject_hyperparams(builder)(**{one: made.arguments[one] for one in shown})
