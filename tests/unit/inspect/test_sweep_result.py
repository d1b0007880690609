"""`SweepResult`: the best point, tables, selections, JSON; and the bar of a running sweep."""

import importlib.util
import io
import json
import math
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError

RATES, MOMENTA = [0.1, 0.2, 0.3, 0.4], [0.5, 0.9]
SCORES = np.array([[3.0, 2.0], [1.0, np.nan], [np.inf, 5.0], [-np.inf, 4.0]])
"""A result for each point: the smallest finite one is at (0.2, 0.5), the largest at (0.3, 0.9)."""


def look_up(tx: Any, table: Any, key: Any = None) -> Any:
    """An entry of a table, by the hyperparameters."""
    values = gradtx.hyperparams(tx)
    row = jnp.argmin(jnp.abs(jnp.array(RATES) - values["learning_rate"]))
    column = jnp.argmin(jnp.abs(jnp.array(MOMENTA) - values["momentum"]))
    return table[row, column]


def scores(table: Any = SCORES, train: Any = look_up, **options: Any) -> Any:
    options = {"learning_rate": RATES, "momentum": MOMENTA, **options}
    return gradtx.sweep(train, gradtx.sgd(0.1, momentum=0.0), np.asarray(table), **options)


def with_seeds(tx: Any, key: Any, table: Any) -> Any:
    """The table with the first number of the seed added: 0, 1, ..."""
    return look_up(tx, table) + key[1].astype(jnp.float32)


SEEDED: dict[str, Any] = {"train": with_seeds, "keys": jnp.array([[0, 0], [0, 4]], jnp.uint32)}


def test_the_best_is_the_smallest_that_is_finite() -> None:
    result = scores()
    np.testing.assert_array_equal(result.scores, np.where(np.isfinite(SCORES), SCORES, np.nan))
    assert result.best == {"learning_rate": 0.2, "momentum": 0.5} and result.best_score == 1.0
    assert result.best_tx == gradtx.sgd(0.2, momentum=0.5)
    assert result.ranking[:5] == [2, 1, 0, 7, 5]
    largest = scores(mode="max")
    assert largest.best == {"learning_rate": 0.3, "momentum": 0.9} and largest.best_score == 5.0
    assert largest.ranking[:5] == [5, 7, 0, 1, 2]


def test_the_mean_over_the_seeds_decides_and_one_nan_is_enough() -> None:
    result = scores(**SEEDED)
    assert result.dims == ("learning_rate", "momentum", "seeds") and result.values.shape == (
        4,
        2,
        2,
    )
    assert result.best_score == 3.0  # 1 and 5
    # The first of two seeds wins alone; with the second, which is nan, the point is last.
    losses = np.stack([SCORES, np.where(SCORES == 1, np.nan, SCORES)], axis=-1)
    result = scores(
        losses, lambda tx, key, table: look_up(tx, table)[key[1]], keys=SEEDED["keys"] // 4
    )
    assert result.best == {"learning_rate": 0.1, "momentum": 0.9} and result.best_score == 2.0


def test_of_one_value_per_step_the_last_counts() -> None:
    steps = np.stack([np.zeros_like(SCORES), SCORES], axis=-1)
    result = scores(steps)
    assert result.values.shape == (4, 2, 2) and result.best_score == 1.0
    np.testing.assert_array_equal(result.finals, SCORES)


def test_no_finite_result() -> None:
    result = scores(np.full((4, 2), np.nan))
    text = (
        "sweep: no point has a finite result: 8 of 8 trainings ended in nan or infinity; try "
        "smaller learning rates, or put clip_by_global_norm in front"
    )
    for read in ("best", "best_tx", "best_score"):
        with pytest.raises(GradtxError, match=re.escape(text)):
            getattr(result, read)
    assert repr(result) == "SweepResult(8 trainings; no finite result)"
    assert str(result).count("nan") == 8
    assert all(value is None for row in result.to_dict()["values"][""] for value in row)


def named(tx: Any, table: Any) -> dict[str, Any]:
    value = look_up(tx, table)
    return {"accuracy": -value, "loss": jnp.stack([value, value]), "params": {"w": jnp.eye(2)}}


def test_the_metric_is_the_loss_or_named() -> None:
    result = scores(train=named)
    assert result.metric == "loss" and result.best_score == 1.0
    other = result.rank_by("accuracy", mode="max")
    assert other.best == result.best and other.best_score == -1.0 and other.values is result.values
    assert result.rank_by("accuracy").best_score == -5.0
    assert scores(train=named, metric="accuracy", mode="max").best_score == -1.0
    assert result.rank_by("loss").metric == "loss"
    for metric, text in {
        "acc": "train returned no 'acc' for metric=; it returned 'accuracy', 'loss', 'params/w'",
        "params/w": "sweep: the metric 'params/w' is f32[2,2] for each training",
    }.items():
        with pytest.raises(GradtxError, match=re.escape(text)):
            result.rank_by(metric)
    with pytest.raises(
        HyperparamError, match="mode = 'top' is unknown; choose one of 'min', 'max'"
    ):
        result.rank_by("loss", mode="top")


def test_without_a_metric_the_values_are_there() -> None:
    result = scores(train=lambda tx, table: (look_up(tx, table), jnp.eye(2)))
    assert result[0].shape == (4, 2) and result.metric is None
    assert repr(result) == str(result) == "SweepResult(8 trainings; no metric)"
    assert result._repr_html_() == "<p>SweepResult(8 trainings; no metric)</p>"
    text = (
        "no metric ranks the points: train returned '0', '1'; name one number per training or step"
    )
    for act in (lambda: result.best, result.table, result.plot):
        with pytest.raises(GradtxError, match=text):
            act()
    assert result.rank_by("0").best_score == 1.0


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    scores().table(3)
    table = """\
learning_rate  momentum  result
          0.2       0.5       1
          0.1       0.9       2
          0.1       0.5       3
... and 5 points more
"""
    assert capsys.readouterr().out == table
    file = io.StringIO()
    scores(**SEEDED).table(1, file=file)
    assert file.getvalue().splitlines()[:2] == [
        "learning_rate  momentum  result  std",
        "          0.2       0.5       3  2.8",  # of 1 and 5: √8
    ]
    everything = str(scores())
    assert len(everything.splitlines()) == 9 and everything.splitlines()[-1].endswith("nan")


def test_short_forms() -> None:
    result = scores(**SEEDED)
    text = "SweepResult(8 × 2 trainings; best result 3 at learning_rate=0.2, momentum=0.5)"
    assert repr(result) == text
    html = result._repr_html_()
    assert html.startswith(f"<p>{text}</p><table><thead><tr><th>learning_rate</th>")
    assert html.count("<tr>") == 9 and "<td>0.2</td><td>0.5</td><td>3</td><td>2.8</td>" in html
    assert repr(scores(learning_rate=[0.1], momentum=[0.5])).startswith("SweepResult(1 training; ")
    schedules = [gradtx.linear_schedule(1.0, 0.0, 10), gradtx.constant_schedule(0.1)]
    other = gradtx.sweep(lambda tx: 1.0, gradtx.sgd(0.1), learning_rate=schedules)
    assert "linear_schedule(init_value=1.0" in str(other) and "&lt;" not in other._repr_html_()
    assert other.axes["learning_rate"].dtype == object


def test_json() -> None:
    result = scores(np.array(SCORES), train=named)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["axes"] == {"learning_rate": RATES, "momentum": MOMENTA}
    assert plain["dims"] == ["learning_rate", "momentum"] and plain["metric"] == "loss"
    assert plain["values"]["accuracy"][0] == [-3, -2] and plain["values"]["accuracy"][1][1] is None
    assert gradtx.from_config(plain["definition"]) == gradtx.sgd(0.1, momentum=0.0)
    flags = gradtx.sweep(
        lambda tx: 1.0,
        gradtx.adamw(0.1, mask=lambda params: params),
        nesterov=[True, False],
        mask=[None, r"kernel$"],
        learning_rate=[gradtx.constant_schedule(0.5)],
        seeds=None,
    ).to_dict()
    assert flags["axes"]["nesterov"] == [True, False] and flags["axes"]["mask"] == [None, "kernel$"]
    assert isinstance(flags["definition"], str)  # a function has no config
    json.dumps(flags, allow_nan=False)


def test_selections() -> None:
    result = scores(train=named)
    assert result.select(momentum=0.9)["accuracy"][0] == -2
    assert result.select(learning_rate=0.3, momentum=0.9)["loss"].tolist() == [5, 5]
    assert result.select(learning_rate=np.float32(0.3))["loss"].shape == (2, 2)
    seeded = scores(**SEEDED)
    assert seeded.select(seeds=1, learning_rate=0.2).tolist()[0] == 5
    with pytest.raises(
        HyperparamError, match=r"no axis 'lr'; did you mean 'learning_rate'\? Its axes are"
    ):
        result.select(lr=0.1)
    text = "learning_rate has no value 0.15; its values are 0.1, 0.2, 0.3, 0.4"
    with pytest.raises(HyperparamError, match=re.escape(text)):
        result.select(learning_rate=0.15)
    listed = gradtx.sweep(
        look_up,
        gradtx.sgd(0.1, momentum=0.0),
        SCORES,
        points=[{"learning_rate": 0.1, "momentum": 0.9}, {"learning_rate": 0.2, "momentum": 0.5}],
    )
    assert listed.select(point=1) == 1 and listed.best == {"learning_rate": 0.2, "momentum": 0.5}


class Pair(NamedTuple):
    loss: Any
    count: Any


def test_parts_by_name() -> None:
    result = scores(train=lambda tx, table: Pair(look_up(tx, table), 2))
    assert result.metric == "loss" and result["count"].tolist() == [[2, 2]] * 4
    with pytest.raises(KeyError, match=r"train returned no 'lss'; it returned 'loss', 'count'"):
        result["lss"]
    with pytest.raises(KeyError, match="it returned one array, see values"):
        scores()["loss"]


@pytest.mark.parametrize("is_rich", [True, False])
def test_the_progress_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_rich: bool
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: find(name) if is_rich or name != "rich" else None,
    )
    monkeypatch.setenv("COLUMNS", "120")
    scores(**SEEDED, chunk=4, progress=True)
    text = capsys.readouterr().err
    if is_rich:
        assert "8 × 2 trainings" in text and "16/16" in text
    else:
        rows = [f"8 × 2 trainings: {done} of 16 done" for done in (0, 8, 16)]
        assert text == "".join(f"\r{row}" for row in rows) + "\n"
    scores(**SEEDED, chunk=4)  # here standard error is not a terminal
    assert capsys.readouterr().err == ""


def test_scores_are_those_of_the_values() -> None:
    result = scores(**SEEDED)
    assert math.isnan(result.scores[1, 1]) and result.scores[0, 0] == result.values[0, 0].mean()
