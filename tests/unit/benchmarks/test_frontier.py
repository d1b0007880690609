"""The arithmetic of `benchmarks/frontier.py`: its search, its log, its interpolated steps."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import gradtx
from benchmarks import frontier_report as report
from benchmarks.frontier_methods import STARTS, Grid, decades, is_hidden, rates
from benchmarks.frontier_model import init_classifier, init_transformer
from benchmarks.frontier_parts import METHODS
from benchmarks.frontier_search import Point, Search
from benchmarks.frontier_tasks import split_text
from benchmarks.frontier_trials import Log, Row, read_point, write_point

GRIDS = {"rate": decades(1e-3, 1.0, 1e-2), "decay": Grid((0.0, 0.1, 0.2, 0.3), 0.1)}
START = {name: grid.start for name, grid in GRIDS.items()}


def bowl(point: Point) -> float:
    """Lowest at a rate of 0.1 and a decay of 0.2."""
    return math.log10(point["rate"] / 0.1) ** 2 + (point["decay"] - 0.2) ** 2


def test_the_search_finds_a_minimum_with_exactly_as_many_trials() -> None:
    tried = list[Point]()

    def loss(point: Point) -> float:
        tried.append(point)
        return bowl(point)

    best = Search(GRIDS, START, loss, 14).run()
    assert best.point == {"rate": 0.1, "decay": 0.2}
    assert len({tuple(point.values()) for point in tried}) == len(tried) == 14
    again = list(tried)
    tried.clear()
    assert Search(GRIDS, START, loss, 14).run() == best
    assert tried == again  # a resumed search makes the same moves


def test_a_search_that_diverges_goes_down() -> None:
    best = Search(GRIDS, START, lambda p: p["rate"] if p["rate"] < 0.01 else math.inf, 20).run()
    assert best.point["rate"] == 0.001


def test_steps_to_a_loss_are_exact_on_a_line_of_the_logarithm() -> None:
    ladder = [(steps, 3.0 - 0.5 * math.log(steps)) for steps in (100, 140, 200)]
    for steps in (120.0, 170.0, 300.0):  # inside, and beyond the longest run
        need = report.steps_to(ladder, 3.0 - 0.5 * math.log(steps))
        np.testing.assert_allclose(need, steps, rtol=1e-12)
    assert report.steps_to(ladder, 0.9) == 100  # the shortest run is a limit
    assert math.isnan(report.steps_to(ladder[:1], 0.6))
    assert math.isnan(report.steps_to([(100, 1.0), (200, math.inf)], 0.6))


def test_a_t_interval() -> None:
    one = report.interval([1.0, 2.0, 3.0])
    np.testing.assert_allclose([one.mean, one.half], [2.0, 4.303 / math.sqrt(3)], rtol=1e-12)
    assert one.show(1) == "2.0 ± 2.5"
    assert report.interval([1.0]).show(1) == "1.0 ± ?"


def row(method: str, steps: int, seed: int, loss: float) -> Row:
    return Row("text", method, "final", steps, seed, "rate=0.1", loss, f"4 {loss}", 2.0)


def test_the_report_compares_seed_by_seed(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for seed, level in ((1, 2.0), (2, 2.5), (3, 3.0)):  # the seeds differ more than the methods
        log.append(row("adamw", 100, seed, level))
        log.append(row("muon", 100, seed, level - 0.1))
        log.append(row("muon", 50, seed, level + 0.1))
    assert log.find(row("muon", 50, 2, 0.0).key) == row("muon", 50, 2, 2.6)
    adamw, muon = report.results(log, "text")
    assert (adamw.method, muon.method, muon.steps) == ("adamw", "muon", 100)
    np.testing.assert_allclose(muon.added[:2], [-0.1, 0.0], atol=1e-12)
    need = muon.fractions["adamw"]
    np.testing.assert_allclose(need[:2], [math.sqrt(0.5), 0.0], atol=1e-12)
    assert adamw.fractions["adamw"].mean == 1.0
    assert not need.is_limit


def test_a_point_survives_the_log() -> None:
    assert read_point(write_point(STARTS)) == STARTS


def test_the_parts_of_a_text_are_disjoint_and_whole() -> None:
    whole = "".join(chr(500 + number) for number in range(4321))
    parts = split_text(whole)
    assert sorted("".join(parts)) == sorted(whole)
    shares = [len(part) / len(whole) for part in parts]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.01)


def test_rates_end_at_zero() -> None:
    for rate in rates(STARTS, 360):
        np.testing.assert_allclose(rate(360), 0.0, atol=1e-9)
        assert rate(18) > 0.99 * max(rate(count) for count in range(360))


@pytest.mark.parametrize("init", [init_classifier, init_transformer])
def test_both_libraries_train_the_same_matrices_by_muon(init: Callable[..., Any]) -> None:
    params = init(np.random.default_rng(0))
    groups = gradtx.coverage(METHODS["muon"].build(STARTS, 360), params)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    is_muon = {
        jax.tree_util.keystr(path, simple=True, separator="/"): is_hidden(
            jax.tree_util.keystr(path)
        )
        for path in paths
    }
    assert is_muon == {path: text.startswith("muon") for path, text in groups.items()}
    assert any(is_muon.values())
