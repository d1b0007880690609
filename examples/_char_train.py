"""The training of examples/char_lm.py: it may be killed at any moment, and goes on from its last
checkpoint.
"""

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
    """Everything that a training depends on but its text."""

    steps: int
    seed: int
    folder: Path
    """Where checkpoints and logs go."""
    save_every: int = 40
    check_every: int = 20
    batch: int = 16
    microbatches: int = 2
    context: int = 64
    width: int = 96
    depth: int = 4
    checked: int = 64
    """Windows of the validation part that are looked at on the way; four times as many at the end."""

    @property
    def phases(self) -> tuple[int, int, int]:
        """Steps of warmup, at the peak, and of decay."""
        warmup, decay = self.steps // 10, self.steps * 3 // 10
        return warmup, self.steps - warmup - decay, decay

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.npz"

    def log(self, first: int) -> Path:
        """Where a process writes that began after so many steps."""
        return self.folder / f"from-step-{first}.jsonl"


def optimizer(plan: Plan) -> gradtx.GradientTransformation:
    """AdamW as language models are trained: clipped, warmed up, decayed at the end, averaged, and
    guarded against bad batches.
    """
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
    """All that a run is made of: from this and the step's number follows everything else."""
    params = model.init(
        np.random.default_rng(plan.seed),
        model.Shape(len(text.alphabet), plan.width, HEADS, plan.depth),
    )
    return {"params": params, "state": tx.init(params), "step": 0}


def train(plan: Plan, text: texts.Text) -> Iterator[dict[str, Any]]:
    """Train from the last checkpoint, or from the start where there is none; tells every step, and
    writes it to a log.
    """
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
            rate = float(
                gradtx.metrics(tx, run["state"])["learning_rate"]
            )  # before the step, which takes its arguments' place
            batch = jnp.asarray(
                texts.windows(text.train, plan.context + 1, plan.batch, (plan.seed, number))
            )
            params, state, value = step(run["params"], run["state"], batch)
            run = {"params": params, "state": state, "step": number + 1}
            row = (
                {"step": run["step"], "loss": float(value)}
                | measured(tx, state)
                | {"learning_rate": rate}
            )
            if run["step"] % plan.check_every == 0 or run["step"] == plan.steps:
                row |= {name: float(found) for name, found in check(params, state, valid).items()}
            print(json.dumps(row | {"seconds": time.perf_counter() - began}), file=log, flush=True)
            if run["step"] % plan.save_every == 0 or run["step"] == plan.steps:
                gradtx.save(plan.checkpoint, run)
            yield row


def measured(tx: gradtx.GradientTransformation, state: Any) -> dict[str, float]:
    """What the state knows of the step that was made; one transfer from the device."""
    return {name: float(value) for name, value in jax.device_get(gradtx.metrics(tx, state)).items()}


def _check(
    tx: gradtx.GradientTransformation, params: Any, state: Any, windows: jax.Array
) -> dict[str, jax.Array]:
    """The loss on text that is not trained on, of the parameters as they are and of their average."""
    return {
        "valid": loss(params, windows),
        "valid_ema": loss(gradtx.eval_params(tx, state, params), windows),
    }


def judge(plan: Plan, text: texts.Text) -> tuple[Any, dict[str, float]]:
    """The averaged parameters of the last checkpoint, and both validation losses on more text."""
    tx = optimizer(plan)
    run = gradtx.load(plan.checkpoint, start(plan, tx, text))
    windows = jnp.asarray(texts.held_out(text.valid, plan.context + 1, 4 * plan.checked))
    found = jax.jit(functools.partial(_check, tx))(run["params"], run["state"], windows)
    return gradtx.eval_params(tx, run["state"], run["params"]), {
        name: float(value) for name, value in found.items()
    }


def saved_step(plan: Plan, text: texts.Text) -> int:
    """The steps that the last checkpoint has behind it."""
    return gradtx.load(plan.checkpoint, start(plan, optimizer(plan), text))["step"]


def read_log(file: Path) -> list[dict[str, Any]]:
    """The steps in a log; a line that its process was killed in is left out."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def first_step(file: Path) -> int:
    """The step that a log begins after."""
    return int(file.stem.removeprefix("from-step-"))
