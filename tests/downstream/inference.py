"""Libraries of probability: each fits a model or an approximation by gradient steps."""

from typing import Any

import jax
import jax.numpy as jnp

from tests.downstream.frameworks import plain_steps
from tests.downstream.row import Row, clipped_adam, load

STEPS = 20
DATA = 1.5 + 0.5 * jax.random.normal(jax.random.key(2), (32,))
INPUTS = jnp.linspace(-2.0, 2.0, 24)
TARGETS = jnp.sin(3 * INPUTS)


def numpyro_svi(tx: Any, optax: Any) -> list[Any]:
    numpyro, infer = load("numpyro"), load("numpyro.infer")
    dist = numpyro.distributions

    def model(data: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with numpyro.plate("data", len(data)):
            numpyro.sample("x", dist.Normal(mean, scale), obs=data)

    svi = infer.SVI(model, infer.autoguide.AutoNormal(model), tx, infer.Trace_ELBO())
    return list(svi.run(jax.random.key(0), STEPS, DATA, progress_bar=False).losses)


def logdensity(position: Any) -> Any:
    spread = jnp.exp(position["log_scale"])
    return -jnp.sum((DATA - position["mean"]) ** 2) / (2 * spread**2) - 32 * position["log_scale"]


def blackjax_vi(tx: Any, optax: Any) -> list[Any]:
    blackjax = load("blackjax")

    vi = blackjax.meanfield_vi(logdensity, tx, num_samples=8)
    state = vi.init({"mean": jnp.zeros(()), "log_scale": jnp.zeros(())})
    step, losses = jax.jit(vi.step), []
    for key in jax.random.split(jax.random.key(0), STEPS):
        state, info = step(key, state)
        losses.append(info.elbo)
    return losses


def distrax_fit(tx: Any, optax: Any) -> list[Any]:
    distrax = load("distrax")

    def loss(params: Any) -> Any:
        base = distrax.Normal(params["mean"], jnp.exp(params["log_scale"]))
        flow = distrax.Transformed(base, distrax.Lambda(jnp.sinh))
        return -jnp.mean(flow.log_prob(DATA))

    return plain_steps(tx, optax, loss, {"mean": jnp.zeros(()), "log_scale": jnp.zeros(())})


def gpjax_fit(tx: Any, optax: Any) -> list[Any]:
    gpjax = load("gpjax")

    data = gpjax.Dataset(X=INPUTS[:, None], y=TARGETS[:, None])
    prior = gpjax.gps.Prior(mean_function=gpjax.mean_functions.Zero(), kernel=gpjax.kernels.RBF())
    posterior = prior * gpjax.likelihoods.Gaussian()
    _, losses = gpjax.fit(
        model=posterior,
        objective=lambda model, data: -gpjax.objectives.conjugate_mll(model, data),
        train_data=data,
        optim=tx,
        num_iters=STEPS,
        verbose=False,
        key=jax.random.key(0),
    )
    return list(losses)


def flowjax_fit(tx: Any, optax: Any) -> list[Any]:
    distributions, flows = load("flowjax", "distributions"), load("flowjax", "flows")
    fit_to_data = load("flowjax.train", "fit_to_data")

    flow = flows.coupling_flow(
        jax.random.key(0), base_dist=distributions.Normal(jnp.zeros(2)), flow_layers=2
    )
    points = jax.random.normal(jax.random.key(1), (64, 2)) ** 2
    _, losses = fit_to_data(
        jax.random.key(2),
        flow,
        points,
        optimizer=tx,
        max_epochs=STEPS // 4,
        batch_size=16,
        show_progress=False,
    )
    return losses["train"]


def dynamax_fit(tx: Any, optax: Any) -> list[Any]:
    model = load("dynamax.linear_gaussian_ssm").LinearGaussianSSM(state_dim=2, emission_dim=1)
    params, properties = model.initialize(jax.random.key(0))
    _, losses = model.fit_sgd(
        params, properties, TARGETS[:, None], optimizer=tx, num_epochs=STEPS // 2
    )
    return list(losses)


def tinygp_fit(tx: Any, optax: Any) -> list[Any]:
    tinygp = load("tinygp")

    def loss(params: Any) -> Any:
        kernel = jnp.exp(params["log_amplitude"]) * tinygp.kernels.ExpSquared(
            jnp.exp(params["log_scale"])
        )
        process = tinygp.GaussianProcess(kernel, INPUTS, diag=0.1)
        return -process.log_probability(TARGETS)

    params = {"log_amplitude": jnp.zeros(()), "log_scale": jnp.zeros(())}
    return plain_steps(tx, optax, loss, params)


def netket_vmc(tx: Any, optax: Any) -> list[Any]:
    nk = load("netket")

    space = nk.hilbert.Spin(0.5, 6)
    energy = nk.operator.Ising(space, nk.graph.Chain(6), h=1.0)
    machine = nk.models.RBM(alpha=1, param_dtype=float)
    state = nk.vqs.FullSumState(space, machine, seed=0)
    driver = nk.driver.VMC(energy, tx, variational_state=state)
    log = nk.logging.RuntimeLog()
    driver.run(STEPS, out=log, show_progress=False)
    return list(log.data["Energy"]["Mean"].real)


ROWS = [
    Row("numpyro", "SVI", numpyro_svi, checks_type=True),
    Row("blackjax", "meanfield_vi", blackjax_vi),
    Row("distrax", "maximum likelihood", distrax_fit),
    Row("gpjax", "fit", gpjax_fit, checks_type=True),
    Row("flowjax", "fit_to_data", flowjax_fit),
    Row("dynamax", "fit_sgd", dynamax_fit, clipped_adam),
    Row("tinygp", "hyperparameters of a kernel", tinygp_fit),
    Row("netket", "VMC", netket_vmc),
]
