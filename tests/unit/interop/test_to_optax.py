"""`to_optax`: a true transformation of Optax, with the states and the numbers of the definition."""

import builtins
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import gradtx
from gradtx.interop.to_optax import OptaxInit, OptaxUpdate
from gradtx.interop.to_optax import to_optax as typed_to_optax
from tests.support.bits import assert_same
from tests.support.peer import optax

to_optax: Any = typed_to_optax  # Optax's types know nothing of gradtx's states
PARAMS = {"w": jnp.arange(1.0, 4.0), "b": jnp.ones(())}
GRADS = {"w": jnp.array([0.5, -2.0, 1.0]), "b": jnp.ones(())}


def definition() -> gradtx.GradientTransformation:
    return gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-2))


def first_step(tx: Any, **extra: Any) -> Any:
    return tx.update(GRADS, tx.init(PARAMS), PARAMS, **extra)


def test_the_type_is_that_of_optax() -> None:
    tx = to_optax(definition())
    assert isinstance(tx, optax.GradientTransformation)
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    assert optax.with_extra_args_support(tx) is tx
    init, update = tx
    assert init is tx.init and update is tx.update


def test_numbers_and_state_are_those_of_the_definition() -> None:
    assert_same(first_step(to_optax(definition())), first_step(definition()))
    state = to_optax(definition()).init(PARAMS)
    assert isinstance(state, gradtx.State) and int(state.count) == 0


def test_extra_arguments_reach_the_members() -> None:
    """In a chain of Optax's a line search gets them only by `to_optax`."""

    def loss(params: Any) -> jax.Array:
        return jnp.sum(params["w"] ** 2) + params["b"] ** 2

    value, grad = jax.value_and_grad(loss)(PARAMS)
    member = gradtx.scale_by_backtracking_linesearch(10)
    chained = optax.chain(optax.sgd(1.0), to_optax(member))
    extra = {"value": value, "grad": grad, "value_fn": loss}
    updates, _ = chained.update(grad, chained.init(PARAMS), PARAMS, **extra)
    assert loss(optax.apply_updates(PARAMS, updates)) < 0.5 * value
    plain = optax.chain(optax.sgd(1.0), member)
    with pytest.raises(gradtx.MissingExtraError):
        plain.update(grad, plain.init(PARAMS), PARAMS, **extra)


def test_a_plain_pair_receives_the_extra_arguments_that_it_takes() -> None:
    pair = optax.GradientTransformation(lambda params: (), lambda u, s, params=None: (u, s))
    updates, _ = first_step(to_optax(pair), value=1.0)
    assert_same(updates, GRADS)


def test_it_compares_hashes_and_pickles_by_value() -> None:
    tx = to_optax(definition())
    assert tx == to_optax(definition()) and hash(tx) == hash(to_optax(definition()))
    assert tx != to_optax(gradtx.adamw(1e-2))
    assert tx.init != tx.update and isinstance(tx.init, OptaxInit)
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert str(tx.update) == f"OptaxUpdate({definition()!r})"


def test_arrays_in_the_definition_have_a_hash_and_compare_by_value() -> None:
    one, other = (to_optax(gradtx.sgd(jnp.asarray(rate))) for rate in (0.1, 0.2))
    assert hash(one) == hash(other) and one != other
    assert one == to_optax(gradtx.sgd(jnp.asarray(0.1)))


def test_a_tree_of_two_functions() -> None:
    tx = to_optax(definition())
    leaves, treedef = jax.tree.flatten(tx)
    assert [type(leaf) for leaf in leaves] == [OptaxInit, OptaxUpdate]
    assert jax.tree.unflatten(treedef, leaves) == tx


def test_equal_definitions_share_one_compilation() -> None:
    traces = []

    def step(tx: Any, params: Any) -> Any:
        traces.append(tx)
        return tx.update(params, tx.init(params), params)[0]

    compiled = jax.jit(step, static_argnums=0)
    for rate in (0.1, 0.1, 0.2):
        compiled(to_optax(gradtx.sgd(rate)), PARAMS)
    assert len(traces) == 2


def test_jit_scan_and_vmap() -> None:
    tx = to_optax(definition())

    def step(state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, PARAMS)
        return state, updates

    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), GRADS)
    state, _ = jax.lax.scan(jax.jit(step), tx.init(PARAMS), many)
    assert int(state.count) == 3
    states = jax.vmap(tx.init)(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), PARAMS))
    assert states.count.shape == (2,)


def test_a_converted_transformation_is_converted_once() -> None:
    tx = to_optax(definition())
    assert to_optax(tx) == tx and to_optax(tx).update.definition == definition()


def test_multi_steps_becomes_its_transformation() -> None:
    tx = to_optax(optax.MultiSteps(optax.sgd(0.1), 2))
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    assert not any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(first_step(tx)[0]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "to_optax: tx is 3, which has no init and update: pass a gradient transformation"),
        (
            gradtx.adam,
            "to_optax: tx: adam is a function that makes transformations: call it, adam(...)",
        ),
        (
            definition().init(PARAMS),
            "to_optax: tx is a State: pass the transformation that it belongs to",
        ),
    ],
    ids=["number", "builder", "state"],
)
def test_a_value_without_init_and_update(value: Any, text: str) -> None:
    with pytest.raises(gradtx.GradtxError) as caught:
        to_optax(value)
    assert str(caught.value) == text


def test_without_optax(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "optax":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(gradtx.MissingExtraError) as caught:
        to_optax(definition())
    assert str(caught.value) == "to_optax needs optax: install it with pip install optax"


def test_nnx_takes_a_definition_with_an_array() -> None:
    """The definition itself holds an array, which flax refuses in a static attribute."""
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    before = model.kernel[...]
    optimizer = nnx.Optimizer(model, to_optax(gradtx.sgd(jnp.asarray(0.5))), wrt=nnx.Param)

    @nnx.jit
    def step(model: nnx.Linear, optimizer: nnx.Optimizer) -> None:
        optimizer.update(model, nnx.grad(lambda model: jnp.sum(model.kernel[...]))(model))

    step(model, optimizer)
    assert jnp.allclose(model.kernel[...], before - 0.5)


def test_a_traced_rate_in_a_train_state() -> None:
    def final(rate: jax.Array) -> Any:
        params, grads = {"w": jnp.zeros(())}, {"w": jnp.ones(())}
        state = TrainState.create(apply_fn=jnp.sum, params=params, tx=to_optax(gradtx.sgd(rate)))
        for _ in range(2):
            state = state.apply_gradients(grads=grads)
        return state.params["w"]

    rates = jnp.array([0.1, 0.2])
    assert jnp.allclose(jax.jit(jax.vmap(final))(rates), -2 * rates)
