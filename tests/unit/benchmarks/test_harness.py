"""The timing of benchmarks: every side is made first once, and is timed as often as the others."""

from collections.abc import Callable, Iterator

import pytest

from benchmarks.harness import balanced, interleave


def test_a_time_is_the_mean_over_both_orders() -> None:
    """Of two equal sides the one that is made first takes 3 s, and the other 1 s."""
    made: list[str] = []

    def maker(name: str) -> Callable[[], Callable[[], float]]:
        def make() -> Callable[[], float]:
            made.append(name)
            seconds = 3.0 if len(made) % 2 else 1.0
            return lambda: seconds

        return make

    times = balanced({name: maker(name) for name in ("gradtx", "optax")}, runs=4)
    assert made == ["gradtx", "optax", "optax", "gradtx"]
    assert times == {"gradtx": [2.0] * 4, "optax": [2.0] * 4}


@pytest.mark.parametrize("warmup", [0, 1])
def test_every_round_reverses_the_order(warmup: int) -> None:
    calls: list[str] = []

    def side(name: str) -> Callable[[], float]:
        ticks: Iterator[float] = iter(range(10))

        def run() -> float:
            calls.append(name)
            return next(ticks)

        return run

    times = interleave({"a": side("a"), "b": side("b")}, runs=2, warmup=warmup)
    assert calls[2 * warmup :] == ["a", "b", "b", "a"]
    assert times == {name: [float(warmup), warmup + 1.0] for name in ("a", "b")}
