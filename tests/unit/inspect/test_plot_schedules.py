"""Plots of schedules: the curves, their labels and panels, and what mistakes are told."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError
from gradtx.inspect import plot_schedules as module

LINE = gradtx.linear_schedule(1.0, 0.0, 10)
COSINE = gradtx.cosine_decay_schedule(1.0, 20)


def labels(figure: Any) -> list[list[str]]:
    """The labels of each panel's legend."""
    return [axes.get_legend_handles_labels()[1] for axes in figure.axes]


def curve(figure: Any, line: int = 0, panel: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = figure.axes[panel].lines[line].get_data()
    return np.asarray(x), np.asarray(y)


def test_one_schedule(tmp_path: Path) -> None:
    figure = LINE.plot(path=tmp_path / "line.png")
    x, y = curve(figure)
    np.testing.assert_array_equal(x, np.arange(11))
    np.testing.assert_array_equal(y, LINE(jnp.arange(11)))
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "value")
    assert axes.get_title() == "linear_schedule" and labels(figure) == [[]]
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")  # by which a notebook shows it


def test_several_schedules_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    evaluate = module._evaluate
    monkeypatch.setattr(module, "_evaluate", lambda *args: calls.append(1) or evaluate(*args))
    figure = gradtx.plot_schedules({"line": LINE, "a half": 0.5, "own": lambda n: 0.1 * n}, COSINE)
    assert calls == [1]
    assert labels(figure) == [["line", "a half", "own", "cosine_decay_schedule"]]
    assert curve(figure)[0][-1] == 20  # the largest length
    np.testing.assert_array_equal(curve(figure, 1)[1], np.full(21, 0.5, np.float32))
    np.testing.assert_allclose(curve(figure, 2)[1], 0.1 * np.arange(21), rtol=1e-6)


def test_labels_tell_schedules_apart() -> None:
    figure = gradtx.plot_schedules(LINE, gradtx.linear_schedule(0.5, 0.0, 10), 0.5 * LINE)
    assert labels(figure)[0][0] == repr(LINE) != labels(figure)[0][1]
    assert labels(figure)[0][2] == repr(0.5 * LINE)


def test_a_transformation_by_short_names() -> None:
    """Every scheduled hyperparameter; each quantity has its own panel."""
    groups = {"head": gradtx.adamw(LINE, b1=COSINE), "body": gradtx.sgd(0.1 * LINE)}
    tx = gradtx.partition(groups, [(r"^head", "head"), (r".*", "body")])
    figure = gradtx.plot_schedules(tx, steps=5)
    assert [axes.get_ylabel() for axes in figure.axes] == ["learning rate", "b1"]
    assert labels(figure) == [["head.learning_rate", "body.learning_rate"], []]
    np.testing.assert_allclose(curve(figure, 1)[1], 0.1 * LINE(jnp.arange(6)), rtol=1e-6)
    np.testing.assert_allclose(curve(figure, 0, 1)[1], COSINE(jnp.arange(6)), rtol=1e-6)


def test_a_batch_of_schedules() -> None:
    batch = jax.tree.map(lambda *each: jnp.stack(each), LINE, gradtx.linear_schedule(2.0, 0.0, 20))
    figure = gradtx.plot_schedules(batch)
    assert len(figure.axes[0].lines) == 2 and curve(figure)[0][-1] == 20
    assert curve(figure, 1)[1][0] == 2.0


def test_a_long_run_is_drawn_at_some_counts() -> None:
    x, y = curve(gradtx.linear_schedule(1.0, 0.0, 1_000_000).plot())
    assert len(x) == module.POINTS and x[0] == 0 and x[-1] == 1_000_000 and y[-1] == 0.0


WRONG = {
    "gradtx.plot_schedules()": "plot_schedules: there is nothing to plot; give schedules, or "
    "{label: schedule}",
    "gradtx.plot_schedules('x')": "plot_schedules: an argument: 'x' is not a number, a schedule "
    "or a function of the count",
    "gradtx.plot_schedules({'a': None})": "plot_schedules: the schedule 'a': None is not a number",
    "gradtx.plot_schedules(gradtx.linear_schedule)": "linear_schedule is a function that makes "
    "schedules: call it",
    "gradtx.plot_schedules(gradtx.adamw(1e-3))": "plot_schedules: adamw has no schedule to plot; "
    "its hyperparameters are numbers",
    "gradtx.exponential_decay(1.0, 10, 0.5).plot()": "plot_schedules: exponential_decay has no "
    "length; give the last count, steps=...",
    "LINE.plot(0)": "plot_schedules: steps = 0 must be a whole number, 1 or more",
    "LINE.plot(2.5)": "plot_schedules: steps = 2.5 must be a whole number, 1 or more",
}


@pytest.mark.parametrize("text", WRONG)
def test_mistakes(text: str) -> None:
    with pytest.raises(GradtxError, match=re.escape(WRONG[text])):
        eval(text)
