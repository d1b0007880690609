"""The training of examples/char_lm.py, which resumes from its last checkpoint after a kill."""

import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import _char_model as model
import _char_text as texts
import jax
import jax.numpy as jnp
import numpy as np

import gradtx

MAX_NORM = 1.0
HEADS = 4


class Plan(NamedTuple):
    """The settings of a training, except its text."""

    steps: int
    seed: int
    folder: Path
    """The folder of checkpoints and logs."""
    save_every: int = 40
    check_every: int = 20
    batch: int = 16
    microbatches: int = 2
    context: int = 64
    width: int = 96
    depth: int = 4
    checked: int = 64
    """Validation windows during training; there are four times as many at the end."""

    @property
    def phases(self) -> tuple[int, int, int]:
        """The numbers of steps of warmup, of the constant phase, and of decay."""
        warmup, decay = self.steps // 10, self.steps * 3 // 10
        return warmup, self.steps - warmup - decay, decay

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.npz"

    def log(self, first: int) -> Path:
        """The log of the process that began after `first` steps."""
        return self.folder / f"from-step-{first}.jsonl"


def optimizer(plan: Plan) -> gradtx.GradientTransformation:
    """AdamW for a language model: clip, warmup, decay, EMA, and a guard against bad batches."""
    warmup, stable, decay = plan.phases
    rate = gradtx.warmup_stable_decay_schedule(0.0, 4e-3, warmup, stable, decay)
    adamw = gradtx.adamw(rate, b2=0.98, weight_decay=0.1, mask=r"kernel$")
    chain = gradtx.chain(
        gradtx.clip_by_global_norm(MAX_NORM), adamw, gradtx.params_ema(0.97, warmup=True)
    )
    return gradtx.guard(gradtx.with_metrics(chain), zscore=6.0)


def loss(params: Any, windows: jax.Array) -> jax.Array:
    return model.loss(HEADS, params, windows)


def start(plan: Plan, tx: gradtx.GradientTransformation, text: texts.Text) -> dict[str, Any]:
    """The checkpointed tree; batches and random keys follow from its step number."""
    params = model.init(
        np.random.default_rng(plan.seed),
        model.Shape(len(text.alphabet), plan.width, HEADS, plan.depth),
    )
    return {"params": params, "state": tx.init(params), "step": 0}


def train(plan: Plan, text: texts.Text) -> Iterator[dict[str, Any]]:
    """Train from the last checkpoint, or from the start; yield and log every step."""
    tx = optimizer(plan)
    step, check = (
        gradtx.make_step(loss, tx, microbatches=plan.microbatches),
        jax.jit(functools.partial(_check, tx)),
    )
    valid = jnp.asarray(texts.held_out(text.valid, plan.context + 1, plan.checked))
    run = start(plan, tx, text)
    if plan.checkpoint.exists():
        run = gradtx.load(plan.checkpoint, run)
    with plan.log(run["step"]).open("w", encoding="utf-8") as log:
        while run["step"] < plan.steps:
            began, number = time.perf_counter(), run["step"]
            # Read before the step, which donates the state.
            rate = float(gradtx.metrics(tx, run["state"])["learning_rate"])
            batch = jnp.asarray(
                texts.windows(text.train, plan.context + 1, plan.batch, (plan.seed, number))
            )
            params, state, train_loss = step(run["params"], run["state"], batch)
            run = {"params": params, "state": state, "step": number + 1}
            row = (
                {"step": run["step"], "loss": float(train_loss)}
                | measured(tx, state)
                | {"learning_rate": rate}
            )
            if run["step"] % plan.check_every == 0 or run["step"] == plan.steps:
                row |= {name: float(value) for name, value in check(params, state, valid).items()}
            print(json.dumps(row | {"seconds": time.perf_counter() - began}), file=log, flush=True)
            if run["step"] % plan.save_every == 0 or run["step"] == plan.steps:
                gradtx.save(plan.checkpoint, run)
            yield row


def measured(tx: gradtx.GradientTransformation, state: Any) -> dict[str, float]:
    """The metrics in the state, in one transfer from the device."""
    return {name: float(value) for name, value in jax.device_get(gradtx.metrics(tx, state)).items()}


def _check(
    tx: gradtx.GradientTransformation, params: Any, state: Any, windows: jax.Array
) -> dict[str, jax.Array]:
    """The validation losses of the parameters and of their average."""
    return {
        "valid": loss(params, windows),
        "valid_ema": loss(gradtx.eval_params(tx, state, params), windows),
    }


def judge(plan: Plan, text: texts.Text) -> tuple[Any, dict[str, float]]:
    """The averaged parameters of the last checkpoint, and both validation losses on more text."""
    tx = optimizer(plan)
    run = gradtx.load(plan.checkpoint, start(plan, tx, text))
    windows = jnp.asarray(texts.held_out(text.valid, plan.context + 1, 4 * plan.checked))
    losses = jax.jit(functools.partial(_check, tx))(run["params"], run["state"], windows)
    return gradtx.eval_params(tx, run["state"], run["params"]), {
        name: float(value) for name, value in losses.items()
    }


def saved_step(plan: Plan, text: texts.Text) -> int:
    """The step of the last checkpoint."""
    return gradtx.load(plan.checkpoint, start(plan, optimizer(plan), text))["step"]


def read_log(file: Path) -> list[dict[str, Any]]:
    """The steps in a log, without a line that the kill cut short."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def first_step(file: Path) -> int:
    """The step before the first one of a log."""
    return int(file.stem.removeprefix("from-step-"))
