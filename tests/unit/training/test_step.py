"""The step that `make_step` returns: modules, donated arrays, and what jit's own step has."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gradtx
from tests.support.bits import assert_same

X = jnp.ones((4, 3))
TX = gradtx.adamw(1e-2)


class Net(eqx.Module):
    """Arrays beside a function, a text, a Python float and a bool."""

    layer: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    activation: Callable[..., Any] | None
    kind: str | None

    def __init__(self, activation: Callable[..., Any] | None = None, kind: str | None = None):
        self.layer = eqx.nn.Linear(3, 2, key=jax.random.key(0))
        self.dropout = eqx.nn.Dropout(0.5, inference=True)
        self.activation, self.kind = activation, kind

    def __call__(self, x: jax.Array) -> jax.Array:
        out = self.dropout(self.layer(x))
        return out if self.activation is None else self.activation(out)


def loss(model: Any, x: jax.Array) -> jax.Array:
    return jnp.mean(jax.vmap(model)(x) ** 2)


def by_hand(model: Any, tx: Any, steps: int) -> Any:
    """Equinox's own loop, with the transformation in Optax's form."""
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        grads = eqx.filter_grad(loss)(model, X)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state

    for _ in range(steps):
        model, state = step(model, state)
    return model


NETS: dict[str, Callable[[], Any]] = {
    "functions and texts": lambda: Net(jnp.tanh, "a"),
    "numbers alone": Net,
    "eqx.nn.MLP": lambda: eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(1)),
}


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_module_of_equinox_trains_as_by_hand(name: str, filtered: bool) -> None:
    """The state may be made of the module, or of its arrays alone."""
    model = NETS[name]()
    expected = by_hand(model, TX, 3)
    state = TX.init(eqx.filter(model, eqx.is_inexact_array) if filtered else model)
    step = gradtx.make_step(loss, TX)
    new = jax.tree.map(lambda leaf: leaf.copy() if eqx.is_array(leaf) else leaf, model)
    values = []
    for _ in range(3):
        new, state, value = step(new, state, X)
        values.append(float(value))
    assert values == sorted(values, reverse=True) and values[0] > values[-1]
    for ours, theirs in zip(jax.tree.leaves(new), jax.tree.leaves(expected), strict=True):
        if eqx.is_array(theirs):
            # One program against two: sums in another order, 1 ulp of Adam's steps of 1e-2.
            assert jnp.allclose(ours, theirs, atol=1e-6, rtol=1e-6)
        else:
            assert ours is theirs or (type(ours) is type(theirs) and ours == theirs)
    (programs,) = step._programs.values()  # pyright: ignore
    assert programs.of_options._cache_size() == 1


@pytest.mark.parametrize("microbatches", [1, 2])
@pytest.mark.parametrize("tx", [gradtx.lbfgs(), gradtx.stored(TX, "packed16", min_size=0)], ids=str)
def test_a_module_in_line_searches_codecs_and_parts(tx: Any, microbatches: int) -> None:
    model, step = Net(jnp.tanh), gradtx.make_step(loss, tx, microbatches=microbatches)
    state = tx.init(model)
    model, state, first = step(model, state, X)
    _, _, second = step(model, state, X)
    assert second < first


def test_other_options_are_another_program() -> None:
    step = gradtx.make_step(loss, TX, donate=False)
    tanh, plain = Net(jnp.tanh), Net(None)
    values = {step(one, TX.init(one), X)[2].item() for one in (tanh, plain, tanh, plain)}
    assert len(values) == 2
    (programs,) = step._programs.values()  # pyright: ignore
    assert programs.of_options._cache_size() == 2


def test_a_dict_of_texts_and_arrays_is_a_module_too() -> None:
    params = {"w": jnp.ones(3), "name": "dense", "trained": True}
    step = gradtx.make_step(lambda p: jnp.sum(p["w"] ** 2) * len(p["name"]), TX)
    new, *_ = step(params, TX.init(params))
    assert new["name"] == "dense" and new["w"][0] < 1


def test_a_module_of_nnx_whose_variables_are_parameters_trains() -> None:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    step = gradtx.make_step(lambda m, x: jnp.mean(m(x) ** 2), TX)
    state = TX.init(model)
    new, state, first = step(model, state, X)
    _, _, second = step(new, state, X)
    assert isinstance(new, nnx.Linear) and second < first


@pytest.mark.parametrize(
    ("make", "kind", "path"),
    [
        (lambda: nnx.BatchNorm(3, rngs=nnx.Rngs(0)), "BatchStat", "mean"),
        (lambda: nnx.Dropout(0.5, rngs=nnx.Rngs(0)), "RngCount", "rngs/count"),
    ],
)
def test_a_variable_that_a_step_would_lose_is_refused(
    make: Callable[[], Any], kind: str, path: str
) -> None:
    """A running mean stays at 0, and each step drops the same units: wrong without a word."""
    model = {"layer": make(), "w": jnp.ones(3)}
    step = gradtx.make_step(lambda m, x: jnp.mean((m["layer"](x) * m["w"]) ** 2), TX)
    with pytest.raises(gradtx.StructureError, match=f"has a {kind} at 'layer/{path}', which"):
        step(model, TX.init(model), X)


def test_the_way_that_the_refusal_names_keeps_the_mean() -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
            self.norm = nnx.BatchNorm(2, momentum=0.5, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            with jax.numpy_rank_promotion("allow"):
                return self.norm(self.layer(x))

    graphdef, params, rest = nnx.split(Model(), nnx.Param, ...)

    def loss_fn(params: Any, rest: Any, x: jax.Array) -> Any:
        model = nnx.merge(graphdef, params, rest, copy=True)
        return jnp.mean((model(x) - 1) ** 2), nnx.state(model, nnx.Not(nnx.Param))

    step = gradtx.make_step(loss_fn, TX, has_aux=True)
    _, _, _, new = step(params, TX.init(params), rest, X)
    assert jnp.any(jax.tree.leaves(new)[0] != 0)


def test_the_methods_of_jit() -> None:
    step = gradtx.make_step(lambda w, x: jnp.sum(w * x), TX)
    w = jnp.ones(3)
    state = TX.init(w)
    shapes = jax.eval_shape(lambda: (w, state, w))
    assert "while" not in step.lower(*shapes).compile().as_text()
    assert_same(step.eval_shape(w, state, w)[2].shape, ())
    assert len(step.trace(w, state, w).jaxpr.eqns) > 0
    step(w, state, X[0])
    assert step._cache_size() == 1
    step.clear_cache()
    assert step._cache_size() == 0
    assert repr(step).startswith("<step of <function")


def test_the_methods_of_jit_take_a_module() -> None:
    model = Net(jnp.tanh, "a")
    step, state = gradtx.make_step(loss, TX), TX.init(Net(jnp.tanh, "a"))
    assert step.lower(model, state, X).compile().cost_analysis()
    assert step.eval_shape(model, state, X)[0].activation is jnp.tanh


def test_a_step_of_arrays_is_the_program_of_jit() -> None:
    """The calls of a step add no equation, and no argument, to what jit compiles."""
    step = gradtx.make_step(lambda w, x: jnp.sum(w * x), TX)
    w = jnp.ones(3)
    args = (w, TX.init(w), w)
    programs = step._programs_of(w, args[1])
    assert step.lower(*args).as_text() == programs.of_arrays.lower(*args).as_text()
    step(*args)
    assert programs.of_arrays._cache_size() == 1


def test_without_donation_nothing_is_given_up() -> None:
    step = gradtx.make_step(lambda w: jnp.sum(w**2), TX, donate=False)
    w = jnp.ones(3)
    state = TX.init(w)
    first, second = step(w, state), step(w, state)
    assert_same(first, second)


def test_the_state_alone_that_was_given_up_is_named() -> None:
    step = gradtx.make_step(lambda w: jnp.sum(w**2), TX)
    w = jnp.ones(3)
    state = TX.init(w)
    step(w, state)
    with pytest.raises(gradtx.StateError, match="the array at 'count' of the state is deleted"):
        step(jnp.ones(3), state)


def test_a_batch_that_was_given_up_is_named() -> None:
    step = gradtx.make_step(lambda w, x: jnp.sum(w * x), TX)
    w = jnp.ones(3)
    new, state, _ = step(w, TX.init(w), jnp.ones(3))
    with pytest.raises(gradtx.StateError, match="the array at '0' of the batch is deleted"):
        step(new, state, w)


def test_an_error_of_the_loss_is_its_own() -> None:
    def broken(w: jax.Array) -> jax.Array:
        raise KeyError("mine")

    step = gradtx.make_step(broken, TX)
    with pytest.raises(KeyError, match="mine"):
        step(jnp.ones(3), TX.init(jnp.ones(3)))


def test_an_error_of_the_loss_of_a_module_is_raised_once() -> None:
    calls = []

    def broken(model: Any) -> jax.Array:
        calls.append(model)
        raise TypeError("mine")

    step, model = gradtx.make_step(broken, TX), Net(jnp.tanh)
    state = TX.init(model)
    for number in (1, 2):
        with pytest.raises(TypeError, match="mine"):
            step(model, state)
        assert len(calls) == number


def test_a_step_within_other_programs() -> None:
    step = gradtx.make_step(lambda w, x: jnp.sum(w * x), TX, donate=False)
    w = jnp.ones(3)
    state = TX.init(w)
    inside = jax.jit(lambda w, s: step(w, s, w))(w, state)
    mapped = jax.vmap(step, in_axes=(None, None, 0))(w, state, jnp.ones((2, 3)))
    assert jnp.allclose(inside[0], mapped[0][1])
