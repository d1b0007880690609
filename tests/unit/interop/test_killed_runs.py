"""A run that is killed after any step goes on from its checkpoint as if it had not been."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.bits import assert_same


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return jnp.mean((hidden @ params["out"].astype(jnp.float32) - y) ** 2)


def start() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    hidden = {
        "kernel": jnp.asarray(rng.normal(size=(3, 5)), jnp.float32),
        "bias": jnp.zeros((1, 5)),
    }
    return {"hidden": hidden, "out": jnp.asarray(rng.normal(size=(5, 1)), jnp.bfloat16)}


def batch(step: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(100 + step)
    x = rng.normal(size=(16, 3))
    return jnp.asarray(x, jnp.float32), jnp.asarray(np.sin(x[:, :1]), jnp.float32)


RATE = gradtx.warmup_stable_decay_schedule(0.0, 0.1, 2, 4, 4)
RUNS = {
    "chain(clip, adamw)": gradtx.chain(
        gradtx.clip_by_global_norm(0.5), gradtx.adamw(RATE, mu_dtype=jnp.bfloat16)
    ),
    "averaged": gradtx.chain(
        gradtx.clip_by_global_norm(0.5), gradtx.adamw(RATE), gradtx.params_ema(0.9, warmup=True)
    ),
    "lookahead": gradtx.lookahead(gradtx.adamw(RATE), sync_period=3, slow_step_size=0.5),
    "noisy": gradtx.chain(gradtx.add_noise(0.1, 0.5, 3), gradtx.schedule_free_adamw(0.01)),
    "guarded, accumulated": gradtx.guard(
        gradtx.with_metrics(
            gradtx.accumulate(
                gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.adamw(RATE)), every=2
            )
        ),
        zscore=4.0,
    ),
    "finite": gradtx.apply_if_finite(gradtx.tunable(gradtx.adam(RATE)), 3),
}
STEPS, EVERY = 10, 3


def train(tx: Any, step: Any, file: Path) -> Iterator[tuple[int, float, Any]]:
    """A training as users write it: from the last checkpoint if there is one, saving every few
    steps.
    """
    params = start()
    run = {"params": params, "state": tx.init(params), "step": 0}
    if file.exists():
        run = gradtx.load(file, run)
    for number in range(run["step"], STEPS):
        params, state, value = step(run["params"], run["state"], *batch(number))
        run = {"params": params, "state": state, "step": number + 1}
        if run["step"] % EVERY == 0:
            gradtx.save(file, run)
        yield run["step"], float(value), jax.device_get((params, state))


@functools.cache
def whole_run(name: str) -> tuple[Any, list[tuple[int, float, Any]]]:
    step = gradtx.make_step(loss, RUNS[name])
    return step, list(train(RUNS[name], step, Path("there is no such file")))


@pytest.mark.parametrize("killed", range(STEPS))
@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_after_any_step_goes_on_as_if_it_had_not_been(
    name: str, killed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gradtx, "save", lambda *_: None)
        step, whole = whole_run(name)
    file = tmp_path / "run.npz"
    for number, _, _ in train(RUNS[name], step, file):
        if number >= killed:
            break
    (tmp_path / ".run.npz.00000000.tmp").write_bytes(b"PK\x03\x04 half of a checkpoint")
    again = list(train(RUNS[name], step, file))
    assert [number for number, _, _ in again] == list(
        range(max(killed, 1) // EVERY * EVERY + 1, STEPS + 1)
    )
    for (_, value, tree), (_, expected, other) in zip(again, whole[-len(again) :], strict=True):
        assert value == expected
        assert_same(tree, other)
