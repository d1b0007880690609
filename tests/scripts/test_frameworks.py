"""Scripts that run under JAX's transformations and in frameworks, unchanged."""

import functools
import pickle
from collections.abc import Callable
from typing import Any

import equinox
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding, PartitionSpec

from tests.scripts.twice import PARAMS, assert_equal_numbers, train

X = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)
DEVICES = 4


class Network(nn.Module):
    """A layer whose kernel names its axes, in a box."""

    boxed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.lecun_normal()
        init = nn.with_partitioning(init, ("model", None)) if self.boxed else init
        return nn.Dense(4, kernel_init=init)(x)


def optimizer(optax: Any) -> Any:
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))


def state_of(optax: Any, boxed: bool = False) -> TrainState:
    model = Network(boxed)
    params = model.init(jax.random.key(0), X)["params"]
    return TrainState.create(apply_fn=model.apply, params=params, tx=optimizer(optax))


def step(state: TrainState, x: jax.Array = X) -> TrainState:
    def loss(params: Any) -> jax.Array:
        return jnp.mean(jnp.square(state.apply_fn({"params": params}, x) - 1.0))

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def linen_in_jit(optax: Any) -> Any:
    state = state_of(optax)
    for _ in range(4):
        state = jax.jit(step)(state)
    return state.params, state.step


def linen_in_scan(optax: Any) -> Any:
    batches = jnp.stack([X, 2 * X, X - 1])
    return jax.lax.scan(lambda state, x: (step(state, x), None), state_of(optax), batches)[0].params


def linen_in_vmap(optax: Any) -> Any:
    """Three models side by side: their states have an axis more."""
    state = state_of(optax)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, 3 * leaf]), state.params)
    states = state.replace(params=params, opt_state=jax.vmap(state.tx.init)(params))
    axes = jax.tree.map(lambda leaf: 0, states).replace(step=None)
    return jax.vmap(step, in_axes=(axes,), out_axes=axes.replace(step=None))(states).params


def replicas_in_pmap(optax: Any) -> Any:
    tx = optimizer(optax)

    @functools.partial(jax.pmap, axis_name="batch")
    def train_step(params: Any, state: Any, x: jax.Array) -> Any:
        grads = jax.grad(lambda params: jnp.mean(jnp.square(x @ params["w"])))(params)
        updates, state = tx.update(jax.lax.pmean(grads, "batch"), state, params)
        return optax.apply_updates(params, updates), state

    params = {"w": jnp.arange(6.0).reshape(3, 2)}
    both = jax.tree.map(lambda leaf: jnp.stack([leaf] * DEVICES), (params, tx.init(params)))
    for _ in range(3):
        both = train_step(*both, X.reshape(DEVICES, 2, 3))
    return both[0]


def donated_buffers(optax: Any) -> Any:
    tx = optimizer(optax)
    update = jax.jit(lambda params, state: tx.update(params, state, params), donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = tx.init(params)
    for _ in range(3):
        used = state
        params, state = update(params, state)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(used))
    return params


def shardings_of_shapes(optax: Any) -> Any:
    """Shapes first, then shardings, then arrays where they belong."""
    tx, mesh = optimizer(optax), jax.make_mesh((DEVICES,), ("model",))
    params = {"w": jnp.arange(16.0).reshape(8, 2), "b": jnp.ones(3)}

    def sharding(leaf: Any) -> NamedSharding:
        is_cut = leaf.ndim > 0 and leaf.shape[0] % DEVICES == 0
        return NamedSharding(mesh, PartitionSpec("model") if is_cut else PartitionSpec())

    where = jax.tree.map(sharding, jax.eval_shape(tx.init, params))
    params = jax.device_put(params, jax.tree.map(sharding, params))
    state = jax.jit(tx.init, out_shardings=where)(params)
    update = jax.jit(tx.update, out_shardings=(jax.tree.map(sharding, params), where))
    updates, state = update(params, state, params)
    assert all(jax.tree.leaves(jax.tree.map(lambda leaf, one: leaf.sharding == one, state, where)))
    return updates


def boxes_of_linen(optax: Any) -> Any:
    """The boxes around parameters are around the moments too, so that specs are read from them."""
    state = state_of(optax, boxed=True)
    shapes = jax.eval_shape(lambda: state_of(optax, boxed=True))
    specs = jax.tree.leaves(
        nn.get_partition_spec(shapes).opt_state, is_leaf=lambda one: isinstance(one, PartitionSpec)
    )
    assert specs.count(PartitionSpec("model", None)) == 2  # mu and nu of the kernel
    return nn.meta.unbox(jax.jit(step)(state).params)


def bytes_of_flax(optax: Any) -> Any:
    state = jax.jit(step)(state_of(optax))
    again: Any = serialization.from_bytes(state_of(optax), serialization.to_bytes(state))
    assert jax.tree.all(jax.tree.map(np.array_equal, again.opt_state, state.opt_state))
    return jax.jit(step)(again).params


def pickled_states(optax: Any) -> Any:
    tx = optimizer(optax)
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    again = pickle.loads(pickle.dumps(state))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    return train(tx, state=again)


def modules_of_equinox(optax: Any) -> Any:
    model = equinox.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    tx = optimizer(optax)
    state = tx.init(equinox.filter(model, equinox.is_inexact_array))

    @equinox.filter_jit
    def train_step(model: Any, state: Any) -> Any:
        grads = equinox.filter_grad(lambda model: jnp.mean(jax.vmap(model)(X) ** 2))(model)
        params = equinox.filter(model, equinox.is_inexact_array)
        updates, state = tx.update(grads, state, params)
        return equinox.apply_updates(model, updates), state

    for _ in range(3):
        model, state = train_step(model, state)
    return equinox.filter(model, equinox.is_inexact_array)


def nnx_model() -> Any:
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.hidden, self.head = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.head(nnx.tanh(self.hidden(x)))

    return Model(nnx.Rngs(0))


def nnx_loss(model: Any) -> jax.Array:
    return jnp.mean(jnp.square(model(X) - 1.0))


def train_nnx(tx: Any) -> Any:
    model = nnx_model()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model: Any, optimizer: Any) -> None:
        optimizer.update(model, nnx.grad(nnx_loss)(model))

    for _ in range(4):
        train_step(model, optimizer)
    return model.hidden.kernel[...], model.head.bias[...]


def nnx_with_multi_steps(optax: Any) -> Any:
    return train_nnx(optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation())


def nnx_with_groups(optax: Any) -> Any:
    def labels(params: Any) -> Any:
        return jax.tree.map(lambda leaf: "matrix" if leaf.ndim > 1 else "vector", params)

    return train_nnx(
        optax.partition({"matrix": optax.adam(0.1), "vector": optax.set_to_zero()}, labels)
    )


def nnx_with_an_average(optax: Any) -> Any:
    return train_nnx(optax.chain(optax.sgd(0.1), optax.ema(0.9)))


def nnx_with_lbfgs(optax: Any) -> Any:
    model = nnx_model()
    graph, params = nnx.split(model, nnx.Param)
    optimizer = nnx.Optimizer(model, optax.lbfgs(), wrt=nnx.Param)

    def loss(params: Any) -> jax.Array:
        return nnx_loss(nnx.merge(graph, params))

    for _ in range(2):
        params = nnx.state(model, nnx.Param)
        value, grads = jax.value_and_grad(loss)(params)
        optimizer.update(model, grads, value=value, grad=grads, value_fn=loss)
    return nnx_loss(model)


SCRIPTS: list[Callable[[Any], Any]] = [
    linen_in_jit,
    linen_in_scan,
    linen_in_vmap,
    replicas_in_pmap,
    donated_buffers,
    shardings_of_shapes,
    boxes_of_linen,
    bytes_of_flax,
    pickled_states,
    modules_of_equinox,
    nnx_with_multi_steps,
    nnx_with_groups,
    nnx_with_an_average,
    nnx_with_lbfgs,
]


# In `pmap` nobody can see whether a device has a part of an array, so gradtx says what it assumes.
@pytest.mark.filterwarnings("ignore:chain. if the axes:UserWarning")
@pytest.mark.parametrize("script", SCRIPTS)
def test_script(script: Callable[[Any], Any]) -> None:
    assert_equal_numbers(script, rtol=1e-4 if script is nnx_with_lbfgs else 5e-5)
