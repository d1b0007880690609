"""The plots of a sweep: what they draw, on which scale."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError
from gradtx.inspect.sweep_plots import is_log

RATES, MOMENTA = [0.001, 0.01, 0.1, 1.0], [0.0, 0.5, 0.9]


def bowl(tx: Any, key: Any = None) -> Any:
    """Smallest at (0.01, 0.5); nan at a rate of 1; a key adds its last number."""
    values = gradtx.hyperparams(tx)
    rate, momentum = values["learning_rate"], values["momentum"]
    value = 1 + jnp.abs(jnp.log10(rate) + 2) + (momentum - 0.5) ** 2
    value = jnp.where(rate < 0.5, value, jnp.nan)
    return value if key is None else value + key[1].astype(jnp.float32)


def sweep(**options: Any) -> Any:
    options = {"learning_rate": RATES, "momentum": MOMENTA, **options}
    return gradtx.sweep(bowl, gradtx.sgd(0.1, momentum=0.0), **options)


KEYS = jnp.array([[0, 0], [0, 3]], jnp.uint32)


def test_a_curve_with_the_range_of_the_seeds(tmp_path: Path) -> None:
    result = sweep(momentum=[0.5], keys=KEYS)
    figure = result.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    mean, star, faults = axes.lines
    np.testing.assert_array_equal(mean.get_xdata(), RATES)
    np.testing.assert_allclose(mean.get_ydata(), [3.5, 2.5, 3.5, np.nan], rtol=1e-6)
    np.testing.assert_allclose(star.get_xydata(), [[0.01, 2.5]], rtol=1e-6)
    assert faults.get_xdata().tolist() == [1.0]
    (band,) = axes.collections
    assert band.get_paths()[0].get_extents().intervaly.tolist() == pytest.approx([1.0, 5.0])
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == (
        "log",
        "learning_rate",
        "result",
    )
    title = "4 × 2 trainings   ★ best: learning_rate = 0.01   × nan or infinity: 1"
    assert axes.get_title(loc="left") == title


def test_a_heat_map() -> None:
    result = sweep()
    axes, bar = result.plot().axes
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array().filled(np.nan), result.scores.T)
    assert axes.lines[0].get_xydata().tolist() == [[1, 1]] and len(axes.texts) == 3
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.001", "0.01", "0.1", "1"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "0.5", "0.9"]
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == (
        "learning_rate",
        "momentum",
        "result",
    )
    assert axes.get_title(loc="left").startswith(
        "12 trainings   ★ best: learning_rate = 0.01, momentum = 0.5"
    )


def test_axes_that_are_not_shown_are_at_their_best() -> None:
    result = sweep(nesterov=[False, True])
    assert (
        result.plot().axes[0].get_title(loc="left").startswith("24 trainings, best over nesterov")
    )
    (axes,) = result.plot(axes=["momentum"]).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1.25, 1.0, 1.16], rtol=1e-6)
    (axes,) = result.rank_by("", mode="max").plot(axes=["momentum"]).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [2.25, 2.0, 2.16], rtol=1e-6)
    swapped, _ = result.plot(axes=["momentum", "learning_rate"]).axes
    assert swapped.get_xlabel() == "momentum" and swapped.images[0].get_array().shape == (4, 3)


def test_texts_and_flags_are_places() -> None:
    (axes,) = sweep(learning_rate=[0.1], momentum=[0.5], nesterov=[False, True]).plot().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["False", "True"]
    assert axes.get_xscale() == "linear" and axes.lines[0].get_xdata().tolist() == [0, 1]


def test_points_of_a_list() -> None:
    points = [{"learning_rate": rate, "momentum": rate} for rate in (0.9, 0.02, 0.3)]
    result = gradtx.sweep(bowl, gradtx.sgd(0.1, momentum=0.0), points=points)
    axes, _ = result.plot().axes
    assert axes.collections[0].get_offsets().tolist() == [[0.02, 0.02], [0.3, 0.3]]
    faults, star = axes.lines
    assert faults.get_xydata().tolist() == [[0.9, 0.9]] and star.get_xydata().tolist() == [
        [0.02, 0.02]
    ]
    (axes,) = result.plot(axes=["learning_rate"]).axes
    assert axes.lines[0].get_xdata().tolist() == [0.02, 0.3, 0.9]
    assert "learning_rate = 0.02" in axes.get_title(loc="left")


def test_a_zero_before_a_geometric_sequence() -> None:
    result = gradtx.sweep(
        lambda tx: gradtx.hyperparams(tx)["weight_decay"],
        gradtx.adamw(0.1),
        weight_decay=[0, 0.01, 1],
    )
    (axes,) = result.plot().axes
    assert axes.get_xscale() == "symlog" and -0.01 < axes.get_xlim()[0] < 0


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1, 2, 3, 4], False),
        ([1, 2, 4, 8], True),
        ([0.5, 0.9], False),
        ([0.01, 0.1], True),
        ([0, 1, 10], False),
        ([-1, 1, 10], False),
        ([1, 1, np.nan], False),
        ([3, 1, 100, np.nan], True),
    ],
)
def test_where_a_scale_is_logarithmic(numbers: list[float], expected: bool) -> None:
    assert is_log(np.array(numbers)) is expected


def test_wrong_axes() -> None:
    result = sweep()
    text = "plot: the sweep has no axis 'momentun'; did you mean 'momentum'? Its axes are"
    with pytest.raises(HyperparamError, match=re.escape(text)):
        result.plot(axes=["momentun"])
    for names in ([], ["momentum", "momentum"], ["learning_rate", "momentum", "momentum"]):
        with pytest.raises(HyperparamError, match=re.escape(f"plot: axes = {names} is not one or")):
            result.plot(axes=names)
    assert result.plot(axes="momentum").axes[0].get_xlabel() == "momentum"


def test_without_a_finite_score_there_is_no_star() -> None:
    result = sweep(learning_rate=[1.0, 2.0, 4.0])
    for axes in (None, ["momentum"]):
        title = result.plot(axes=axes).axes[0].get_title(loc="left")
        assert "★" not in title and "× nan or infinity" in title
