"""Flax's nnx: `nnx.Optimizer` trains under `nnx.jit`, and readers take its states as they are.

`nnx.Optimizer` puts every array of a state in a variable of its own, `OptVariable` or `OptArray`;
`nnx.state(model, nnx.Param)` has each parameter in a `Param`.
"""

import io
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradtx
from tests.support.bits import assert_same


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(4, 8, rngs=rngs)
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.hidden(x)))


X = jax.random.normal(jax.random.key(1), (5, 4))


def loss(model: Model) -> jax.Array:
    return (model(X) ** 2).mean()


def params_of(model: Model) -> Any:
    return nnx.state(model, nnx.Param)


def arrays_of(tree: Any) -> Any:
    """The same containers without variables."""
    return jax.tree.map(
        lambda one: one.get_value(), tree, is_leaf=lambda one: isinstance(one, nnx.Variable)
    )


def train(tx: Any, steps: int = 3) -> tuple[Model, nnx.Optimizer]:
    """A model and its optimizer after steps under `nnx.jit`."""
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Model, optimizer: nnx.Optimizer) -> None:
        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def train_plainly(tx: Any, steps: int = 3) -> tuple[Any, Any]:
    """Parameters and state after the same steps under `jax.jit`, with no variable anywhere."""
    graph, params = nnx.split(Model(nnx.Rngs(0)))
    params = arrays_of(params)

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        grads = jax.grad(lambda params: loss(nnx.merge(graph, params)))(params)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


ADAM = gradtx.adam(0.1)


def by_shape(params: Any) -> Any:
    return jax.tree.map(lambda one: one.ndim > 1, params)


MASK = by_shape(params_of(Model(nnx.Rngs(0))))
LABELS = jax.tree.map(lambda one: "a" if one else "b", MASK)
GROUPS = {"a": ADAM, "b": gradtx.sgd(0.1, momentum=0.9)}

DEFINITIONS: dict[str, gradtx.GradientTransformation] = {
    "adamw": gradtx.adamw(0.1),
    "average": gradtx.chain(gradtx.clip_by_global_norm(1.0), ADAM, gradtx.params_ema(0.9)),
    "schedule": gradtx.with_metrics(gradtx.sgd(gradtx.linear_schedule(0.1, 0.0, 10))),
    "schedule_free": gradtx.schedule_free_adamw(0.1),
    "lookahead": gradtx.lookahead(ADAM, 2, 0.5),
    "tunable": gradtx.tunable(ADAM, "learning_rate"),
    "loss_scale": gradtx.dynamic_loss_scale(gradtx.guard(ADAM)),
    "accumulate": gradtx.accumulate(gradtx.guard(ADAM), every=2),
    "master": gradtx.master_weights(ADAM),
    "a mask in variables": gradtx.masked(ADAM, MASK),
    "a mask of arrays alone": gradtx.masked(ADAM, arrays_of(MASK)),
    "a mask by a function": gradtx.masked(ADAM, by_shape),
    "a mask of decay": gradtx.adamw(0.1, mask=MASK),
    "labels in variables": gradtx.partition(GROUPS, LABELS),
    "muon": gradtx.muon(0.02),
    "soap": gradtx.soap(0.01),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_readers_take_the_state_of_an_optimizer_as_it_is(name: str, tmp_path: Path) -> None:
    """Each reads the same in variables as it does after the same steps without any."""
    tx = DEFINITIONS[name]
    model, optimizer = train(tx)
    state, params = optimizer.opt_state, params_of(model)
    plain_params, plain_state = train_plainly(tx)
    assert_close(arrays_of(params), plain_params)

    evaluated = gradtx.eval_params(tx, state, params)
    assert jax.tree.structure(evaluated) == jax.tree.structure(params)
    right = gradtx.eval_params(tx, plain_state, plain_params)
    assert_close(arrays_of(evaluated), right)
    for reader in (gradtx.metrics, gradtx.hyperparams):
        found, right = reader(tx, state), reader(tx, plain_state)
        assert found.keys() == right.keys()
        assert not any(isinstance(one, nnx.Variable) for one in found.values())
        assert_close(found, right)
    assert_close(gradtx.loss_scale(tx, state), gradtx.loss_scale(tx, plain_state))

    flat = gradtx.flatten_state(state)
    assert flat.keys() == gradtx.flatten_state(plain_state).keys()
    assert_same(state, gradtx.restore_state(state, flat))
    gradtx.save(tmp_path / "run.npz", {"params": params, "state": state})
    assert_same((params, state), loaded(tmp_path / "run.npz", params, state))
    # A file is of arrays alone: it loads into a run without variables, too.
    abstract = jax.eval_shape(tx.init, plain_params)
    like = loaded(tmp_path / "run.npz", plain_params, abstract)
    assert_same(list(flat.values()), list(gradtx.flatten_state(like[1]).values()))


def loaded(file: Path, params: Any, state: Any) -> tuple[Any, Any]:
    run = gradtx.load(file, {"params": params, "state": state})
    return run["params"], run["state"]


def assert_close(one: Any, other: Any) -> None:
    """Two programs of XLA's, which may order a sum in two ways: some units in the last place."""
    left, right = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(left) == len(right)
    for mine, theirs in zip(left, right, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=1e-6)


def test_a_count_in_a_variable_is_a_moment() -> None:
    tx = gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10))
    _, optimizer = train(tx, steps=5)
    assert float(gradtx.hyperparams(tx, optimizer.opt_state.count)["learning_rate"]) == 0.5


def test_readers_of_one_method_take_variables_too() -> None:
    model, optimizer = train(gradtx.schedule_free_adamw(0.1))
    state, params = optimizer.opt_state, params_of(model)
    found = gradtx.schedule_free_eval_params(state, params)
    assert_same(found, gradtx.eval_params(gradtx.schedule_free_adamw(0.1), state, params))
    steps = gradtx.MultiSteps(ADAM, 2)
    assert [bool(steps.has_updated(train(steps, n)[1].opt_state)) for n in (1, 2)] == [False, True]


@pytest.mark.parametrize("tx", [optax.adam(0.1), gradtx.chain(optax.adam(0.1))])
def test_parameters_of_optax_come_back(tx: Any) -> None:
    model, optimizer = train(tx)
    params = params_of(model)
    assert_same(params, gradtx.eval_params(tx, optimizer.opt_state, params))


def test_a_state_of_other_parameters_is_still_refused() -> None:
    tx = DEFINITIONS["average"]
    _, optimizer = train(tx)
    with pytest.raises(gradtx.StateError, match=r"'head/bias' is only in the state"):
        gradtx.eval_params(tx, optimizer.opt_state, {"hidden": jnp.ones(2)})


def test_a_summary_of_a_model_is_that_of_its_parameters() -> None:
    model = Model(nnx.Rngs(0))
    of_params = gradtx.summary(ADAM, params_of(model), file=io.StringIO())
    assert of_params == gradtx.summary(ADAM, model, file=io.StringIO())
    assert of_params.parameters == 4 * 8 + 8 + 8 * 2 + 2


def test_the_value_of_a_line_search_is_read_from_variables() -> None:
    """L-BFGS stores the loss at the new parameters and its gradient for the next step."""
    tx, model = cast(Any, gradtx.lbfgs()), Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    graph, rest = nnx.graphdef(model), nnx.state(model, nnx.Not(nnx.Param))

    def value_fn(params: Any) -> jax.Array:
        return loss(nnx.merge(graph, params, rest))

    for _ in range(2):
        params = params_of(model)
        read = gradtx.value_and_grad_from_state(value_fn)
        value, grad = read(params, state=optimizer.opt_state)
        right, right_grad = jax.value_and_grad(value_fn)(params)
        assert_close((value, grad), (right, right_grad))
        assert jax.tree.structure(grad) == jax.tree.structure(params)
        optimizer.update(model, grad, value=value, grad=arrays_of(grad), value_fn=value_fn)


def stored(tx: gradtx.GradientTransformation, codec: Any) -> gradtx.GradientTransformation:
    """Blocks of 2, so that every codec has several in each array."""
    return gradtx.stored(tx, codec, min_size=4, block=2)


BY_CODEC = ("bf16", "f16", "packed16", "bf16+8", "int8", "int4", "dynamic8")
ENCODED = {
    **{codec: stored(gradtx.adamw(0.1), codec) for codec in BY_CODEC},
    "one slot": gradtx.stored(ADAM, nu="int8", min_size=4, block=2),
    "a sum": stored(gradtx.accumulate(ADAM, every=2), "int8"),
    "a guard": gradtx.guard(stored(ADAM, "int8")),
    "master weights": gradtx.master_weights(stored(ADAM, "bf16+8")),
    "a mask": gradtx.masked(stored(ADAM, "dynamic8"), MASK),
}


@pytest.mark.parametrize("name", ENCODED)
def test_encoded_slots_train_under_nnx_jit_as_they_do_plainly(name: str, tmp_path: Path) -> None:
    """Each array of a state has a path of its own, so that nnx puts a variable around it."""
    tx = ENCODED[name]
    model, optimizer = train(tx)
    params, state = train_plainly(tx)
    flat, right = gradtx.flatten_state(optimizer.opt_state), gradtx.flatten_state(state)
    assert flat.keys() == right.keys()
    assert all(flat[path].dtype == right[path].dtype for path in right)
    assert_close(arrays_of(params_of(model)), params)
    evaluated = gradtx.eval_params(tx, optimizer.opt_state, params_of(model))
    assert jax.tree.structure(evaluated) == jax.tree.structure(params_of(model))
    gradtx.save(tmp_path / "run.npz", optimizer.opt_state)
    assert_same(optimizer.opt_state, gradtx.load(tmp_path / "run.npz", optimizer.opt_state))
