"""Mistakes in a call of `gradtx.sweep`, each answered with its cause and its cure."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError, StructureError


def square(tx: Any, w: Any = 1.0) -> jax.Array:
    """The loss w²/2 after one step from w, whose gradient is w."""
    updates, _ = tx.update(jnp.asarray(w), tx.init(jnp.asarray(w)), jnp.asarray(w))
    return (w + updates) ** 2 / 2


def decide(tx: Any, key: Any = None, x: Any = None) -> Any:
    """Python decides on one hyperparameter, and on an array."""
    if x is not None and x > 0:
        return 0.0
    values = gradtx.hyperparams(tx)
    return square(tx) if values["b1"] > 0.5 else float(values["learning_rate"])


def run(train: Any = square, tx: Any = None, *args: Any, **values: Any) -> Any:
    tx = gradtx.adamw(1e-3) if tx is None else tx
    return lambda: gradtx.sweep(train, tx, *args, **values)


SCHEDULED = gradtx.sgd(gradtx.cosine_decay_schedule(0.1, 100))
TWO = gradtx.chain(gradtx.adam(0.1), gradtx.sgd(0.1))
CASES: dict[str, tuple[Any, type[Exception], str]] = {
    "an unknown name": (
        run(lr=[0.1]),
        HyperparamError,
        "sweep: adamw has no hyperparameter or option 'lr'; did you mean 'learning_rate'? Its "
        "hyperparameters are learning_rate, b1, b2, eps, eps_root, weight_decay",
    ),
    "a name of sweep's own": (
        run(seed=[0, 1]),
        HyperparamError,
        "adamw has no hyperparameter or option 'seed'; did you mean 'seeds'?",
    ),
    "a name unlike any": (
        run(xyz=[1]),
        HyperparamError,
        "no hyperparameter or option 'xyz'; its hyperparameters are learning_rate, b1,",
    ),
    "two of a name": (
        run(tx=TWO, learning_rate=[0.1]),
        HyperparamError,
        "'learning_rate' is ambiguous: it may be adam.learning_rate or sgd.learning_rate",
    ),
    "two options of a name": (
        run(tx=TWO, nesterov=[True]),
        HyperparamError,
        "sweep: 'nesterov' is ambiguous: it may be adam.nesterov or sgd.nesterov",
    ),
    "nothing varies": (
        run(),
        HyperparamError,
        "sweep: no hyperparameter varies; name one with its values, learning_rate=[1e-3, 1e-2]",
    ),
    "an empty list": (
        run(learning_rate=[]),
        HyperparamError,
        "sweep: learning_rate is an empty list; give at least one value",
    ),
    "one number": (
        run(learning_rate=0.1),
        HyperparamError,
        "sweep: learning_rate = 0.1 is not a list; write a list of values, learning_rate=[...]; "
        "one value for all trainings belongs to the definition, gradtx.replace(tx, ",
    ),
    "a matrix": (
        run(learning_rate=np.ones((2, 2))),
        HyperparamError,
        "sweep: learning_rate = f64[2,2] is an array of shape (2, 2); write a list of values",
    ),
    "lengths that differ": (
        run(grid=False, learning_rate=[0.1, 0.2], b1=[0.9]),
        HyperparamError,
        "with grid=False the lists are columns of one table, and their lengths differ: "
        "learning_rate has 2, b1 has 1 values; make them equal, or sweep the product with ",
    ),
    "points and lists": (
        run(points=[{"b1": 0.9}], b2=[0.9]),
        HyperparamError,
        "sweep: both points= and lists by name, b2: put every value into points",
    ),
    "points that differ": (
        run(points=[{"b1": 0.9}, {"b1": 0.9, "b2": 0.9}]),
        HyperparamError,
        "sweep: points[0] has no 'b2', points[1] has one; name the same hyperparameters in every",
    ),
    "one point": (
        run(points=["b1"]),
        HyperparamError,
        "sweep: points is not a list of dicts; write points=[{'learning_rate': 1e-3}, ...]",
    ),
    "no points": (run(points=[]), HyperparamError, "sweep: points is empty; give one dict"),
    "out of range": (
        run(b1=[0.9, 1.5]),
        HyperparamError,
        "adamw: b1 = 1.5 is outside its range [0, 1)",
    ),
    "numbers for a schedule": (
        run(tx=SCHEDULED, learning_rate=[0.1]),
        HyperparamError,
        "sweep: learning_rate follows cosine_decay_schedule(init_value=0.1, decay_steps=100), and "
        "numbers would replace the schedule by constants; name one of its numbers, "
        "'learning_rate.init_value', 'learning_rate.decay_steps',",
    ),
    "seeds and keys": (
        run(seeds=2, keys=jax.random.split(jax.random.key(0)), b1=[0.9]),
        HyperparamError,
        "sweep: both seeds and keys; give one of them",
    ),
    "no seeds": (
        run(seeds=0, b1=[0.9]),
        HyperparamError,
        "sweep: seeds = 0 is not a number of seeds; write seeds=3 for the keys of 0, 1 and 2",
    ),
    "one key": (
        run(keys=jax.random.key(0), b1=[0.9]),
        HyperparamError,
        "is not a list of keys; write keys=jax.random.split(key, 3)",
    ),
    "a chunk of nothing": (
        run(chunk=0, b1=[0.9]),
        HyperparamError,
        "sweep: chunk = 0 is not a number of trainings; give a whole number of 1 or more, or None",
    ),
    "a mode": (
        run(mode="maximum", b1=[0.9]),
        HyperparamError,
        "sweep: mode = 'maximum' is unknown; choose one of 'min', 'max'",
    ),
    "the wrong order": (
        run(gradtx.adam(0.1), square, b1=[0.9]),
        GradtxError,
        "sweep: train = adam(learning_rate=0.1) is not a function; the order is sweep(train, ",
    ),
    "too many arguments": (
        run(square, None, 1.0, 2.0, b1=[0.9]),
        GradtxError,
        "sweep: train(tx, w) cannot be called as train(tx, args[0], args[1]), the call without "
        "seeds: too many positional arguments; change its parameters, or the arguments after tx",
    ),
    "no key": (
        run(lambda tx: 0.0, seeds=2, b1=[0.9]),
        GradtxError,
        "train(tx) cannot be called as train(tx, key), the call with seeds, which gives train a "
        "random key",
    ),
    "no result": (
        run(lambda tx: None, b1=[0.9]),
        GradtxError,
        "sweep: train returned None, without an array; return the final loss, or a tree of arrays",
    ),
    "a text": (
        run(lambda tx: {"loss": 1.0, "name": "run"}, b1=[0.9]),
        GradtxError,
        "sweep: train returned a str at 'name'; return numbers and arrays",
    ),
    "a metric that is not there": (
        run(lambda tx: {"loss": 1.0, "accuracy": 1.0}, metric="acuracy", b1=[0.9]),
        GradtxError,
        "sweep: train returned no 'acuracy' for metric=; did you mean 'accuracy'? It returned "
        "'accuracy', 'loss'",
    ),
    "a metric that is a matrix": (
        run(lambda tx: {"w": jnp.ones((2, 2))}, metric="w", b1=[0.9]),
        GradtxError,
        "sweep: the metric 'w' is f32[2,2] for each training; return one real number, or one for",
    ),
    "other arrays for an option": (
        run(lambda tx: jnp.ones(2 if tx.arguments["nesterov"] else 3), nesterov=[True, False]),
        StructureError,
        "sweep: train returns other arrays where an option changes; return the same shapes and",
    ),
    "a decision": (
        run(decide, b1=[0.9, 0.5], learning_rate=[0.1]),
        GradtxError,
        "test_sweep_mistakes.py) needs the value of b1, or of a number computed from it, in "
        "Python, where all trainings are traced as one program; write jnp.where or jax.lax.cond "
        "in place of if, jax.lax.while_loop in place of while, and no float()",
    ),
    "a float": (
        run(decide, b1=[0.5], learning_rate=[0.1, 0.2]),
        GradtxError,
        "needs the value of learning_rate, or of a number computed from it, in Python",
    ),
    "a decision on data": (
        run(decide, None, jnp.array(1.0), b1=[0.9, 0.5], seeds=2),
        GradtxError,
        "needs the value of an array, or of a number computed from it, in",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_mistakes_are_answered(name: str) -> None:
    call, kind, text = CASES[name]
    with pytest.raises(kind, match=re.escape(text)):
        call()


def test_a_decision_is_found_by_its_line() -> None:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = next(number for number, text in enumerate(lines, 1) if 'if values["b1"]' in text)
    with pytest.raises(GradtxError, match=rf"train \(line {line} of test_sweep_mistakes.py\)"):
        gradtx.sweep(decide, gradtx.adam(0.1), b1=[0.9, 0.5])


def test_an_error_of_the_caller_passes() -> None:
    def train(tx: Any) -> Any:
        raise LookupError("no data")

    with pytest.raises(LookupError, match="no data"):
        gradtx.sweep(train, gradtx.sgd(0.1), learning_rate=[0.1])
