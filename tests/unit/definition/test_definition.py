"""A definition is data: printing, equality, hashing, trees, JSON, names."""

import copy
import functools
import math
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError
from tests.methods import METHODS, muon, row, wrappers
from tests.methods.row import rate
from tests.support.public import public_names

PARAMS = {"w": jnp.arange(3.0), "b": jnp.ones(())}


def batch(size: int, value: float = 1.0) -> gradtx.GradientTransformation:
    """As many definitions in one, as `vmap` takes them."""
    return gradtx.replace(gradtx.sgd(0.1), learning_rate=jnp.full(size, value))


NAMESPACE = {**vars(row), **vars(wrappers), **vars(muon), **public_names()}


def test_repr_reads_like_the_call() -> None:
    tx = gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.adamw(1e-3, weight_decay=0.1, mask=r"kernel$"),
        last=gradtx.sgd(rate),
    )
    assert repr(tx) == (
        "chain(\n"
        "    clip_by_global_norm(max_norm=1.0),\n"
        "    adamw(learning_rate=0.001, weight_decay=0.1, mask='kernel$'),\n"
        "    last=sgd(learning_rate=function_schedule(function=rate)),\n"
        ")"
    )
    assert repr(batch(3)) == "sgd(learning_rate=f32[3])"
    assert (
        repr(gradtx.sgd(np.float32(0.5), accumulator_dtype=jnp.bfloat16))
        == "sgd(learning_rate=0.5, accumulator_dtype=bfloat16)"
    )
    assert repr(jax.eval_shape(lambda tx: tx, gradtx.sgd(0.1))).startswith(
        "sgd(learning_rate=ShapeDtypeStruct"
    )


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, method in METHODS.items()
        if not any(one in repr(method.tx) for one in ("function", "tunable", "leafwise"))
    ],
)
def test_repr_evaluates_to_an_equal_definition(name: str) -> None:
    assert eval(repr(METHODS[name].tx), NAMESPACE) == METHODS[name].tx


def test_equality_and_hash_are_by_value() -> None:
    assert gradtx.adamw(1e-3) == gradtx.adamw(1e-3) != gradtx.adamw(1e-3, nesterov=True)
    assert gradtx.adamw(1e-3) != gradtx.adam(1e-3) and gradtx.adamw(1e-3) != "adamw"
    assert hash(gradtx.adamw(1e-3)) == hash(gradtx.adamw(1e-3))
    assert len({gradtx.adam(1e-3), gradtx.adam(1e-3), gradtx.adam(2e-3)}) == 2
    mask = {"w": True, "b": np.array(False)}
    assert gradtx.masked(gradtx.sgd(0.1), mask) == gradtx.masked(gradtx.sgd(0.1), dict(mask))
    assert hash(gradtx.masked(gradtx.sgd(0.1), mask)) == hash(
        gradtx.masked(gradtx.sgd(0.1), dict(mask))
    )
    assert batch(2) == batch(2) != batch(2, 0.0)
    assert hash(batch(2)) == hash(batch(2, 0.0)), "the numbers of a batch are not read for a hash"
    assert len({batch(2): 1, batch(2, 0.0): 2}) == 2


def test_a_number_in_an_array_is_a_constant() -> None:
    """A dict, jit's static arguments and flax's modules hold it like a number of Python's."""
    tx = gradtx.sgd(jnp.array(0.5, jnp.float32))
    assert type(jax.tree.leaves(tx)[0]) is np.float32 and repr(tx) == "sgd(learning_rate=0.5)"
    assert {tx: 1}[gradtx.sgd(0.5)] == 1
    assert {tx: 1}.get(gradtx.sgd(jnp.array(0.25))) is None
    arrays = jax.jit(lambda tx: gradtx.replace(tx, learning_rate=jnp.array(0.5)))(tx)
    assert arrays == tx and hash(arrays) == hash(tx)
    first = jax.jit(lambda tx, grad: tx.update(grad, tx.init(grad))[0], static_argnums=0)
    assert first(tx, jnp.ones(1)).tolist() == first(arrays, jnp.ones(1)).tolist() == [-0.5]


def test_a_tracer_equals_itself_alone() -> None:
    def trace(rate: jax.Array) -> jax.Array:
        tx, other = gradtx.sgd(rate), gradtx.sgd(rate + 1)
        assert tx == gradtx.sgd(rate) != other and hash(tx) == hash(other)
        assert {tx: 1, other: 2}[other] == 2
        return rate

    jax.jit(trace)(jnp.array(0.5))


def test_it_is_immutable_and_copies() -> None:
    tx = gradtx.adam(1e-3)
    with pytest.raises(AttributeError, match="is immutable; use gradtx"):
        tx.learning_rate = 1.0  # pyright: ignore[reportAttributeAccessIssue]
    for other in (copy.copy(tx), copy.deepcopy(tx), pickle.loads(pickle.dumps(tx))):
        assert other == tx and other.factory is tx.factory


def test_its_leaves_are_its_numbers() -> None:
    tx = gradtx.chain(
        gradtx.clip_by_global_norm(2.0), gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 10), b1=0.5)
    )
    assert jax.tree.leaves(tx) == [2.0, 1.0, 0.0, 10, 0, 0.5, 0.999, 1e-8, 0.0]
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(tx)[0]
    ]
    assert paths[:3] == [
        "clip_by_global_norm/max_norm",
        "adam/learning_rate/init_value",
        "adam/learning_rate/end_value",
    ]
    doubled = jax.tree.map(lambda leaf: leaf * 2, tx)
    assert gradtx.hyperparams(doubled)["max_norm"] == 4.0


def test_members_are_named_by_their_factories_and_numbered() -> None:
    tx = gradtx.chain(
        gradtx.trace(0.1),
        gradtx.trace(0.2),
        gradtx.masked(gradtx.trace(0.3), "w"),
        mine=gradtx.adam(0.1),
    )
    assert list(tx.init(PARAMS).slots) == ["trace", "trace_2", "trace_3", "mine"]
    assert list(tx.init(PARAMS).slots["mine"]) == ["scale_by_adam"]
    assert tx.init(PARAMS).slots["trace_3"].trace == {"b": None, "w": pytest.approx(np.zeros(3))}


def test_the_state_is_named_data() -> None:
    state = gradtx.chain(gradtx.clip(1.0), gradtx.adamw(0.1)).init(
        {"dense": {"kernel": jnp.ones((2, 3))}}
    )
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]
    ]
    assert paths == [
        "count",
        "slots/adamw/scale_by_adam/mu/dense/kernel",
        "slots/adamw/scale_by_adam/nu/dense/kernel",
    ]


def test_pair_unpacks() -> None:
    init, update = gradtx.sgd(0.5)
    updates, _ = update(PARAMS, init(PARAMS))
    assert updates["w"].tolist() == [-0.0, -0.5, -1.0]


def plain_init(params: Any) -> str:
    return "mine"


def plain_update(updates: Any, state: Any, params: Any = None) -> Any:
    return jax.tree.map(lambda u: 3 * u, updates), state + "!"


def test_two_plain_functions_are_handed_through() -> None:
    tx = gradtx.GradientTransformation(plain_init, plain_update)
    assert tx.init(PARAMS) == "mine"
    updates, state = tx.update(PARAMS, "mine", PARAMS, value=1.0)
    assert state == "mine!" and updates["b"] == 3.0
    assert repr(tx) == "GradientTransformation(init=plain_init, update=plain_update)"
    assert (
        tx == gradtx.GradientTransformation(plain_init, plain_update)
        and pickle.loads(pickle.dumps(tx)) == tx
    )
    member = gradtx.chain(gradtx.scale(2.0), tx)
    updates, state = member.update(PARAMS, member.init(PARAMS))
    assert updates["b"] == 6.0 and state.slots == {"plain_init": "mine!"}


@gradtx.definition
def doubled_sgd(
    learning_rate: gradtx.NonNegative, *, twice: bool = True
) -> gradtx.GradientTransformation:
    """A definition made outside gradtx."""
    return gradtx.chain(gradtx.scale(2.0 if twice else 1.0), gradtx.sgd(learning_rate))


def test_a_definition_of_your_own_is_a_citizen() -> None:
    tx = doubled_sgd(0.1)
    assert repr(tx) == "doubled_sgd(learning_rate=0.1)"
    assert gradtx.to_config(tx) == {
        "tests.unit.definition.test_definition:doubled_sgd": {"learning_rate": 0.1, "twice": True}
    }
    assert gradtx.from_config(gradtx.to_config(tx)) == tx == pickle.loads(pickle.dumps(tx))
    assert gradtx.replace(tx, learning_rate=0.2) == doubled_sgd(0.2)
    assert jax.tree.leaves(tx) == [0.1]
    with pytest.raises(GradtxError, match=r"doubled_sgd: learning_rate = inf is outside its range"):
        doubled_sgd(math.inf)


def test_a_builder_must_return_a_transformation() -> None:
    @gradtx.definition
    def wrong() -> Any:
        return 3

    with pytest.raises(
        GradtxError,
        match=r"wrong returned int: return leafwise\(...\), treewise\(...\) or chain\(...\)",
    ):
        wrong()


def test_static_in_jit_and_as_argument() -> None:
    tx = gradtx.adam(1e-2)
    static = jax.jit(lambda tx, g: tx.update(g, tx.init(g))[0], static_argnums=0)(tx, PARAMS)
    argument = jax.jit(lambda tx, g: tx.update(g, tx.init(g))[0])(tx, PARAMS)
    np.testing.assert_allclose(static["w"], argument["w"], rtol=1e-6)


def test_hypergradient() -> None:
    """d loss / d learning rate after two steps of SGD on w^2/2, by hand: w2 = w (1 - eta)^2,
    d(w2^2/2) = -2 w^2 (1 - eta)^3.
    """

    def trained(tx: gradtx.GradientTransformation) -> jax.Array:
        w = jnp.asarray(3.0)
        state = tx.init(w)
        for _ in range(2):
            updates, state = tx.update(w, state, w)
            w = gradtx.apply_updates(w, updates)
        return w**2 / 2

    gradient = jax.grad(trained)(gradtx.sgd(0.1))
    assert gradtx.hyperparams(gradient)["learning_rate"] == pytest.approx(-2 * 9 * 0.9**3, rel=1e-5)
    assert all(
        np.isfinite(leaf) for leaf in jax.tree.leaves(jax.grad(trained)(gradtx.adamw(0.1, b1=0.5)))
    )


def test_batch_of_definitions() -> None:
    """64 learning rates in one program, by batching the leaves of the definition."""
    rates = jnp.linspace(0.0, 1.0, 64)
    batch = gradtx.replace(gradtx.sgd(0.1), learning_rate=rates)
    out = jax.vmap(lambda tx: tx.update(PARAMS, tx.init(PARAMS))[0]["b"])(batch)
    np.testing.assert_allclose(out, -rates)
    axes = gradtx.vmap_axes(gradtx.adam(0.1), "learning_rate")
    out = jax.vmap(lambda tx: tx.update(PARAMS, tx.init(PARAMS))[0]["b"], in_axes=(axes,))(
        gradtx.replace(gradtx.adam(0.1), learning_rate=rates)
    )
    np.testing.assert_allclose(out, -rates, rtol=1e-6)


def test_functools_partial_is_a_schedule() -> None:
    tx = gradtx.sgd(functools.partial(max, 2.0))
    assert gradtx.hyperparams(tx, at=5) == {"learning_rate": 5}
