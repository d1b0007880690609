"""Neural-network libraries: flax (nnx and linen), equinox, haiku, penzai, ninjax."""

from typing import Any

import jax
import jax.numpy as jnp

from tests.downstream.row import B2, Row, clipped_adamw, load

X = jax.random.normal(jax.random.key(1), (16, 4))
Y = jnp.tanh(X @ jnp.array([1.0, -2.0, 3.0, 0.5]))[:, None]
STEPS = 20


def mean_square(prediction: Any) -> Any:
    return jnp.mean((prediction - Y) ** 2)


def nnx_optimizer(tx: Any, optax: Any) -> list[Any]:
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.hidden = nnx.Linear(4, 8, rngs=rngs)
            self.head = nnx.Linear(8, 1, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.head(nnx.tanh(self.hidden(x)))

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Model, optimizer: nnx.Optimizer) -> Any:
        value, grads = nnx.value_and_grad(lambda model: mean_square(model(X)))(model)
        optimizer.update(model, grads)
        return value

    return [step(model, optimizer) for _ in range(STEPS)]


def linen_state(tx: Any) -> tuple[Any, Any]:
    """A `TrainState` of a small network, and its step, which returns (state, loss)."""
    from flax import linen as nn
    from flax.training.train_state import TrainState

    model = nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(1)])
    params = model.init(jax.random.key(0), X)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    def step(state: Any) -> tuple[Any, Any]:
        def loss(params: Any) -> Any:
            return mean_square(state.apply_fn({"params": params}, X))

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    return state, step


def linen_jit(tx: Any, optax: Any) -> list[Any]:
    state, step = linen_state(tx)
    compiled, losses = jax.jit(step), []
    for _ in range(STEPS):
        state, value = compiled(state)
        losses.append(value)
    return losses


def linen_scan(tx: Any, optax: Any) -> list[Any]:
    state, step = linen_state(tx)
    _, losses = jax.lax.scan(lambda state, _: step(state), state, length=STEPS)
    return list(losses)


def linen_checkpoint(tx: Any, optax: Any) -> list[Any]:
    """Half of the steps, a message of flax's serialization, and the other half from it."""
    from flax import serialization

    state, step = linen_state(tx)
    compiled, losses = jax.jit(step), []
    for number in range(STEPS):
        if number == STEPS // 2:
            state = serialization.from_bytes(linen_state(tx)[0], serialization.to_bytes(state))
        state, value = compiled(state)
        losses.append(value)
    return losses


def write_rate(tx: Any, optax: Any) -> list[Any]:
    """A loop that writes the injected learning rate, as schedulers outside of JAX do."""
    state, step = linen_state(tx)
    compiled, losses = jax.jit(step), []
    for number in range(STEPS):
        state.opt_state.hyperparams["learning_rate"] = jnp.asarray(0.05 / (1 + number))
        state, value = compiled(state)
        losses.append(value)
    return losses


def masked(optax: Any) -> Any:
    def kernels(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    decay = optax.masked(optax.add_decayed_weights(1e-2), kernels)
    return optax.chain(decay, optax.sgd(0.1, momentum=0.9))


def partition(optax: Any) -> Any:
    def labels(params: Any) -> Any:
        return jax.tree.map(lambda leaf: "matrix" if leaf.ndim > 1 else "vector", params)

    return optax.multi_transform(
        {"matrix": optax.adam(0.03, b2=B2), "vector": optax.sgd(0.1)}, labels
    )


def multi_steps(optax: Any) -> Any:
    return optax.MultiSteps(clipped_adamw(optax), every_k_schedule=3)


def inject(optax: Any) -> Any:
    return optax.inject_hyperparams(optax.adam)(learning_rate=0.05, b2=B2)


def equinox_module(tx: Any, optax: Any) -> list[Any]:
    import equinox as eqx

    model = eqx.nn.MLP(4, 1, 8, 1, jax.nn.tanh, key=jax.random.key(0))
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: Any, state: Any) -> tuple[Any, Any, Any]:
        def loss(model: Any) -> Any:
            return mean_square(jax.vmap(model)(X))

        value, grads = eqx.filter_value_and_grad(loss)(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, value

    losses = []
    for _ in range(STEPS):
        model, state, value = step(model, state)
        losses.append(value)
    return losses


def plain_steps(tx: Any, optax: Any, loss: Any, params: Any, steps: int = STEPS) -> list[Any]:
    """The usual loop: `update`, `apply_updates`."""

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any, Any]:
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        losses.append(value)
    return losses


def haiku_transform(tx: Any, optax: Any) -> list[Any]:
    hk = load("haiku")

    def forward(x: Any) -> Any:
        return hk.nets.MLP([8, 1], activation=jnp.tanh)(x)

    network = hk.without_apply_rng(hk.transform(forward))
    params = network.init(jax.random.key(0), X)
    return plain_steps(tx, optax, lambda params: mean_square(network.apply(params, X)), params)


def penzai_trainer(tx: Any, optax: Any) -> list[Any]:
    pz = load("penzai", "pz")
    simple_mlp = load("penzai.models", "simple_mlp")
    basic_training = load("penzai.toolshed", "basic_training")

    model = simple_mlp.MLP.from_config(
        name="mlp", init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 1]
    )
    inputs = pz.nx.wrap(X).tag("batch", "features").untag("batch").tag("batch")

    def loss(model: Any, state: Any, rng: Any, **_: Any) -> Any:
        value = mean_square(model(inputs).untag("batch", "features").unwrap())
        return value, state, {"loss": value}

    trainer = basic_training.StatefulTrainer.build(
        root_rng=jax.random.key(1), model=model, optimizer_def=tx, loss_fn=loss
    )
    return [trainer.step()["loss"] for _ in range(STEPS)]


def ninjax_module(tx: Any, optax: Any) -> list[Any]:
    nj = load("ninjax")

    class Line(nj.Module):
        def __call__(self, x: Any) -> Any:
            w = self.value("w", jnp.zeros, (4, 1))
            return jnp.tanh(x @ w + self.value("b", jnp.zeros, (1,)))

    line = Line(name="line")
    pure = nj.pure(lambda: mean_square(line(X)))
    state, _ = pure({}, create=True, modify=True, ignore=True)
    return plain_steps(tx, optax, lambda state: pure(state)[1], dict(state))


ROWS = [
    Row("flax", "nnx.Optimizer", nnx_optimizer),
    Row("flax", "linen TrainState, jit", linen_jit),
    Row("flax", "linen TrainState, scan", linen_scan),
    Row("flax", "TrainState, bytes and back", linen_checkpoint),
    Row("flax", "TrainState, masked", linen_jit, masked),
    Row("flax", "TrainState, multi_transform", linen_scan, partition),
    Row("flax", "TrainState, MultiSteps", linen_scan, multi_steps),
    Row("flax", "TrainState, inject_hyperparams", write_rate, inject),
    Row("equinox", "filter_jit", equinox_module),
    Row("dm-haiku", "transform", haiku_transform),
    Row("penzai", "StatefulTrainer", penzai_trainer),
    Row("ninjax", "pure", ninjax_module),
]
