"""Solvers, reinforcement learning, federated learning, evolution, checkpoints."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tests.downstream.frameworks import X, mean_square, plain_steps
from tests.downstream.row import B2, Row, clipped_adam, load

STEPS = 20
START = jnp.array([-1.2, 1.0])


def rosenbrock(x: Any, *_: Any) -> Any:
    return (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2


def jaxopt_solver(tx: Any, optax: Any) -> list[Any]:
    jaxopt = load("jaxopt")

    solver = jaxopt.OptaxSolver(rosenbrock, opt=tx, maxiter=STEPS)
    params, state, losses = START, solver.init_state(START), []
    for _ in range(STEPS):
        params, state = solver.update(params, state)
        losses.append(state.value)
    return losses


def optimistix_minimiser(tx: Any, optax: Any) -> list[Any]:
    optimistix = load("optimistix")

    solver = optimistix.OptaxMinimiser(tx, rtol=1e-12, atol=1e-12)
    losses = []
    for steps in range(1, STEPS, 4):
        solution = optimistix.minimise(rosenbrock, solver, START, max_steps=steps, throw=False)
        losses.append(rosenbrock(solution.value))
    return losses


def fedjax_client(tx: Any, optax: Any) -> list[Any]:
    fedjax = load("fedjax")

    optimizer = fedjax.optimizers.create_optimizer_from_optax(tx)
    params, state, losses = START, optimizer.init(START), []
    for _ in range(STEPS):
        value, grads = jax.value_and_grad(rosenbrock)(params)
        state, params = optimizer.apply(grads, state, params)
        losses.append(value)
    return losses


def brax_gradients(tx: Any, optax: Any) -> list[Any]:
    step = load("brax.training.gradients").gradient_update_fn(rosenbrock, tx, pmap_axis_name=None)
    params, state, losses = START, tx.init(START), []
    for _ in range(STEPS):
        value, params, state = step(params, optimizer_state=state)
        losses.append(value)
    return losses


def rlax_learner(tx: Any, optax: Any) -> list[Any]:
    rlax = load("rlax")

    def loss(params: Any) -> Any:
        value = jnp.tanh(X @ params["w"])
        error = jax.vmap(rlax.td_learning)(
            value[:-1], jnp.sin(jnp.arange(15.0)), jnp.full(15, 0.9), value[1:]
        )
        return jnp.mean(rlax.l2_loss(error))

    return plain_steps(tx, optax, loss, {"w": jnp.full(4, 0.1)})


def evosax_strategy(tx: Any, optax: Any) -> list[Any]:
    strategy = load("evosax.algorithms").Open_ES(population_size=16, solution=START, optimizer=tx)
    parameters = strategy.default_params
    state, losses = strategy.init(jax.random.key(0), START, parameters), []
    for key in jax.random.split(jax.random.key(1), STEPS):
        population, state = strategy.ask(key, state, parameters)
        fitness = jax.vmap(rosenbrock)(population)
        state, _ = strategy.tell(key, population, fitness, state, parameters)
        losses.append(jnp.mean(fitness))
    return losses


def orbax_restore(tx: Any, optax: Any) -> list[Any]:
    """Half of the steps, a checkpoint on disk, and the other half from it."""
    ocp = load("orbax.checkpoint")

    def steps(params: Any, state: Any) -> tuple[Any, Any, list[Any]]:
        losses = []
        for _ in range(STEPS // 2):
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            losses.append(value)
        return params, state, losses

    def loss(params: Any) -> Any:
        return mean_square(jnp.tanh(X @ params["w"]))

    params = {"w": jnp.full((4, 1), 0.1)}
    params, state, first = steps(params, tx.init(params))
    with tempfile.TemporaryDirectory() as folder, ocp.StandardCheckpointer() as checkpointer:
        path = Path(folder) / "state"
        checkpointer.save(path, {"params": params, "state": state})
        checkpointer.wait_until_finished()
        empty = jax.eval_shape(lambda: {"params": params, "state": tx.init(params)})
        restored = checkpointer.restore(path, empty)
    *_, second = steps(restored["params"], restored["state"])
    return first + second


def fast_adam(optax: Any) -> Any:
    """A learning rate for the dual potentials of `ott_semidiscrete`, which are of size 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.2, b2=B2))


def ott_semidiscrete(tx: Any, optax: Any) -> list[Any]:
    geometries = load("ott.geometry.semidiscrete_pointcloud")
    problems = load("ott.problems.linear.semidiscrete_linear_problem")
    semidiscrete = load("ott.solvers.linear.semidiscrete")

    points = jnp.array([[-1.0, 0.0], [1.0, 0.0], [1.1, 0.1], [1.2, -0.1], [0.9, 0.1]])
    geometry = geometries.SemidiscretePointCloud(jax.random.normal, points, epsilon=0.1)
    problem = problems.SemidiscreteLinearProblem(geometry)
    solver = semidiscrete.SemidiscreteSolver(
        num_iterations=STEPS, batch_size=1024, optimizer=tx, error_eval_every=5
    )
    return list(solver(jax.random.key(1), problem).losses)


def private_chain(optax: Any) -> Any:
    """Noise of jax-privacy, a transformation of Optax's, as a member of the chain."""
    jax_privacy = load("jax_privacy")

    noise = jax_privacy.noise_addition.gaussian_privatizer(stddev=1e-2, prng_key=jax.random.key(0))
    return optax.chain(noise, optax.sgd(0.005, momentum=0.9))


def private_training(tx: Any, optax: Any) -> list[Any]:
    return plain_steps(tx, optax, rosenbrock, START)


def tunix_trainer(tx: Any, optax: Any) -> list[Any]:
    from flax import nnx

    peft = load("tunix.sft.peft_trainer")
    trainer = peft.PeftTrainer(
        nnx.Linear(4, 1, rngs=nnx.Rngs(0)),
        tx,
        peft.TrainingConfig(eval_every_n_steps=100, max_steps=STEPS),
    )
    losses = []
    trainer.with_loss_fn(lambda model, x: mean_square(jnp.tanh(model(x))))
    trainer.with_gen_model_input_fn(lambda batch: {"x": batch["x"]})
    for number in range(1, STEPS + 1):
        trainer.train([{"x": X}] * number)  # it skips the batches that it has trained on
        losses.append(mean_square(jnp.tanh(trainer.model(X))))
    return losses


ROWS = [
    Row("ott-jax", "SemidiscreteSolver", ott_semidiscrete, fast_adam),
    Row("jax-privacy", "gaussian_privatizer in a chain", private_training, private_chain),
    Row("google-tunix", "PeftTrainer", tunix_trainer),
    Row("jaxopt", "OptaxSolver", jaxopt_solver),
    Row("optimistix", "OptaxMinimiser", optimistix_minimiser),
    Row("fedjax", "create_optimizer_from_optax", fedjax_client),
    Row("brax", "gradient_update_fn", brax_gradients, clipped_adam),
    Row("rlax", "temporal differences", rlax_learner),
    Row("evosax", "Open_ES", evosax_strategy),
    Row("orbax-checkpoint", "StandardCheckpointer", orbax_restore),
]
