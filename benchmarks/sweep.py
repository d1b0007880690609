"""`gradtx.sweep` over 64 definitions and 3 seeds of a small network, against 192 single trainings.

The network (64, 32, 10) learns scikit-learn's digits with AdamW, 256 images in every one of 200
steps; 16 learning rates and 4 weight decays, three seeds each. Every side is the whole work from
empty caches: tracing, compiling, training. The single trainings are jitted anew each, as in 192
scripts; or anew for each definition, with the key as an argument; or once, with the definition and
the key as arguments. `--part 8` compiles an eighth of the definitions anew and multiplies by 8."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.harness import Row, arguments, compared, finish, interleave, seconds
from benchmarks.trace import forget
from benchmarks.vmap import HIDDEN, digits, loss

STEPS, SEEDS, BAR = 200, 3, 0.1
RATES = np.geomspace(1e-4, 1e-1, 16).tolist()
DECAYS = [0.0, 1e-3, 1e-2, 1e-1]


def train(tx: Any, key: jax.Array, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    """The last loss of a training from a random start."""
    first, second = jax.random.split(key)
    params = {
        "hidden": {"kernel": jax.random.normal(first, (64, HIDDEN)) / 8, "bias": jnp.zeros(HIDDEN)},
        "output": {
            "kernel": jax.random.normal(second, (HIDDEN, 10)) / HIDDEN**0.5,
            "bias": jnp.zeros(10),
        },
    }

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, pixels, labels)
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), value

    return jax.lax.scan(step, (params, tx.init(params)), None, STEPS)[1][-1]


def definitions(part: int = 1) -> list[gradtx.GradientTransformation]:
    """Every definition, or every `part`-th."""
    pairs = [(rate, decay) for rate in RATES for decay in DECAYS]
    return [gradtx.adamw(rate, weight_decay=decay) for rate, decay in pairs[::part]]


def run_sweep() -> np.ndarray:
    """All trainings in one program."""
    result = gradtx.sweep(
        *(train, gradtx.adamw(1e-3), *digits()),
        learning_rate=RATES,
        weight_decay=DECAYS,
        seeds=SEEDS,
        progress=False,
    )
    return result.values.reshape(-1, SEEDS)


def run_anew(part: int) -> np.ndarray:
    """A program for each training."""
    keys = [jax.random.key(seed) for seed in range(SEEDS)]
    rows = [
        [jax.jit(functools.partial(train, tx, key))(*digits()) for key in keys]
        for tx in definitions(part)
    ]
    return np.array(rows)


def run_each(part: int) -> np.ndarray:
    """A program for each definition, with the key as an argument."""
    keys = [jax.random.key(seed) for seed in range(SEEDS)]
    programs = [jax.jit(functools.partial(train, tx)) for tx in definitions(part)]
    return np.array([[program(key, *digits()) for key in keys] for program in programs])


def run_shared() -> np.ndarray:
    """One program, with the definition and the key as arguments."""
    keys, program = [jax.random.key(seed) for seed in range(SEEDS)], jax.jit(train)
    return np.array([[program(tx, key, *digits()) for key in keys] for tx in definitions()])


def cold(run: Callable[[], np.ndarray]) -> float:
    forget()
    return seconds(run)


def warm(run: Callable[[], np.ndarray]) -> float:
    return seconds(run)


def scaled(run: Callable[[int], np.ndarray], part: int) -> float:
    """The time of all trainings, from a part of them."""
    return part * cold(functools.partial(run, part))


def check_agreement() -> None:
    """Raise unless both sides train to the same losses; where steps are large, rounding grows."""
    calm = np.repeat(np.array(RATES) < 1e-3, len(DECAYS))
    np.testing.assert_allclose(run_sweep()[calm], run_shared()[calm], rtol=1e-2)


def against(
    name: str, time_sweep: Callable[..., float], peer: Callable[[], float], runs: int, **bar: float
) -> Row:
    sides = {"gradtx": functools.partial(time_sweep, run_sweep), "single": peer}
    return compared(name, interleave(sides, runs, warmup=0), "single", **bar)


def rows(runs: int, part: int) -> list[Row]:
    few = min(runs, 3)
    of = "" if part == 1 else f", {part} times a part of 1/{part}"
    return [
        against(
            f"against 192 programs: with compiling{of}",
            *(cold, functools.partial(scaled, run_anew, part), few),
            bar=BAR,
        ),
        against(
            f"against 64 programs: with compiling{of}",
            *(cold, functools.partial(scaled, run_each, part), few),
        ),
        against(
            "against one program: with compiling", cold, functools.partial(cold, run_shared), few
        ),
        against("against one program: without", warm, functools.partial(warm, run_shared), runs),
    ]


def main() -> int:
    options = arguments(__doc__, part=1)
    check_agreement()
    return finish("sweep", rows(options.runs, int(options.part)), options)


if __name__ == "__main__":
    sys.exit(main())
