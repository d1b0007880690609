"""The kernels: published numbers, impulse responses, and the texts of errors."""

from typing import Any

import jax
import numpy as np
import pytest

import gradtx
from gradtx.transforms.max_entropy_taps import Moments, solve
from gradtx.transforms.momentum_kernels import log_spaced_ages, maxwell_weights
from tests.support.momentum_kernels import response, small_taps

EARLY = Moments(90.0, 3.7153849427, (0.07235, 0.02235))
LATE = Moments(24.05, 2.3786333904, (0.137, 0.087))


def mean_age(weights: Any) -> float:
    return float(np.arange(len(weights)) @ weights)


PUBLISHED = [
    (8, 64.0, 58.0, 0.0050939745, 0.8573687127),
    (8, 64.0, 26.0, 0.0322618388, 0.0966685141),
    (6, 64.0, 50.0, 0.0210039915, 0.6849401274),
    (6, 64.0, 22.0, 0.0630119745, 0.0548203821),
    (6, 56.0, 35.0, 0.0367261945, 0.4491070821),
]


@pytest.mark.parametrize(("averages", "longest", "age", "slope", "last"), PUBLISHED)
def test_the_published_weights(
    averages: int, longest: float, age: float, slope: float, last: float
) -> None:
    ages = log_spaced_ages(averages, 3.0, longest)
    weights = maxwell_weights(ages, age)
    assert round(weights[0], 10) == slope and round(weights[-1], 10) == last
    assert np.sum(weights) == pytest.approx(1.0, abs=1e-14)
    assert np.dot(weights, ages) == pytest.approx(age, abs=1e-12)


def test_the_published_decays() -> None:
    decays = [age / (1 + age) for age in log_spaced_ages(8, 3.0, 64.0)]
    published = [0.75, 0.8228524399, 0.8779303386, 0.9175985472]
    published += [0.9451809411, 0.9638939208, 0.9763786969, 0.9846153846]
    assert [round(one, 10) for one in decays] == published
    with jax.enable_x64(True):
        kernel = gradtx.k_maxwell().at(0)
    np.testing.assert_allclose(kernel.decays, published, rtol=1e-9)


def test_bi_maxwell_has_its_mean_age_and_newest_weight() -> None:
    c = response(gradtx.bi_maxwell(start=0), 2500, before=1)
    assert c.sum() == pytest.approx(1.0, abs=1e-12) and c[0] == pytest.approx(0.0770, abs=5e-5)
    assert mean_age(c) == pytest.approx(30.0, abs=0.005)
    ahead = response(gradtx.bi_maxwell(start=0), 2500, before=1, nesterov=True)
    assert ahead[0] == pytest.approx(0.1232, abs=5e-5)
    assert mean_age(ahead) == pytest.approx(0.95 * mean_age(c), rel=1e-12)
    np.testing.assert_allclose(ahead, 0.95 * c + 0.05 * (np.arange(2500) == 0), atol=1e-15)


@pytest.mark.parametrize("age", [26.0, 58.0])
def test_k_maxwell_has_its_mean_age(age: float) -> None:
    c = response(gradtx.k_maxwell(init_mean_age=age, end_mean_age=age, start=0), 4000, before=1)
    assert c.sum() == pytest.approx(1.0, abs=1e-12) and mean_age(c) == pytest.approx(age, abs=1e-9)


def test_k_maxwell_grows_younger() -> None:
    kernel = gradtx.k_maxwell(start=10, transition_steps=100)
    with jax.enable_x64(True):
        ends = [kernel.at(count).weights for count in (0, 10, 60, 110, 999)]
    middle = np.mean([ends[0], ends[-1]], axis=0)
    np.testing.assert_allclose([ends[1], ends[2], ends[3]], [ends[0], middle, ends[-1]], rtol=1e-12)


def test_max_entropy_answers_with_its_weights() -> None:
    kernel = gradtx.max_entropy(
        end_mean_age=90.0, end_log_age=EARLY.log_age, end_newest=EARLY.newest, start=0
    )
    c = response(kernel, 300)
    np.testing.assert_allclose(c[:256], solve(256, EARLY).coefficients, rtol=1e-13)
    assert not c[256:].any()  # the ring was written over
    # It refuses an optimizer's look-ahead, unless asked.
    refused = response(kernel, 3, nesterov=True)
    np.testing.assert_array_equal(refused, c[:3])


def test_max_entropy_moves_from_early_to_late() -> None:
    with jax.enable_x64(True):
        found = [gradtx.max_entropy().at(count).coefficients for count in (0, 750, 1937.5, 3125)]
    early, late = (solve(256, one).coefficients for one in (EARLY, LATE))
    for one, expected in zip(found, (early, early, (early + late) / 2, late), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-12)


ERRORS: dict[str, tuple[Any, str]] = {
    "weights": (
        lambda: gradtx.exponentials((0.5, 0.9), (0.5, 0.6)),
        "exponentials: weights = (0.5, 0.6) add up to 1.1, and must add up to 1: divide each by "
        "the sum, and the learning rate keeps its meaning",
    ),
    "lengths": (
        lambda: gradtx.exponentials((0.5, 0.9), (1.0,)),
        "exponentials: 2 decays and 1 weights: give one weight for each decay, 1 to 12 of both",
    ),
    "decay": (
        lambda: gradtx.exponentials((0.5, 1.0), (0.5, 0.5)),
        "exponentials: decays = 1.0 is outside its range [0, 1); at 1 an average would never move: "
        "give a number below 1",
    ),
    "start": (
        lambda: gradtx.bi_maxwell(start=-1),
        "bi_maxwell: start = -1 is outside its range [0, inf)",
    ),
    "age": (
        lambda: gradtx.k_maxwell(end_mean_age=65.0),
        "k_maxwell: end_mean_age = 65.0 is outside [3.0, 64.0], the ages of the averages: give a "
        "mean age between them",
    ),
    "ages": (
        lambda: gradtx.k_maxwell(shortest_age=70.0),
        "k_maxwell: shortest_age = 70.0 is not below longest_age = 64.0: the ages of the averages "
        "lie between them",
    ),
    "averages": (
        lambda: gradtx.k_maxwell(1),
        "k_maxwell: averages = 1 is not a number of averages: give 2 to 12",
    ),
    "entropy": (
        lambda: gradtx.max_entropy(init_log_age=4.6),
        "max_entropy: no kernel of 256 gradients has the mean age 90, the mean log(1 + age) 4.6 "
        "and the newest weights (0.07235, 0.02235): the mean of log(1 + age) is at most log(1 + "
        "mean age), 4.511, and the two newest weights add up to less than 1",
    ),
    "newest": (
        lambda: gradtx.max_entropy(end_newest=(0.7, 0.4)),
        "max_entropy: no kernel of 256 gradients has the mean age 24.05, the mean log(1 + age) "
        "2.37863 and the newest weights (0.7, 0.4): the mean of log(1 + age) is at most log(1 + "
        "mean age), 3.221, and the two newest weights add up to less than 1",
    ),
    "taps": (
        lambda: gradtx.max_entropy(2),
        "max_entropy: taps = 2 is not a number of gradients beyond the newest two: give 3 or more",
    ),
    "a number": (
        lambda: gradtx.adam(1e-3, momentum=0.9),  # pyright: ignore[reportArgumentType]
        "adam: momentum = 0.9 is not a momentum kernel: take bi_maxwell(), k_maxwell(), "
        "max_entropy(), ademamix_kernel(...) or exponentials(decays, weights)",
    ),
    "not called": (
        lambda: gradtx.lion(1e-4, momentum=gradtx.bi_maxwell),  # pyright: ignore
        "lion: momentum: bi_maxwell is a function that makes momentum kernels: call it, "
        "bi_maxwell(...)",
    ),
    "misplaced": (
        lambda: gradtx.adam(gradtx.bi_maxwell()),  # pyright: ignore[reportArgumentType]
        "adam: learning_rate = bi_maxwell() is a momentum kernel: pass it as momentum=...",
    ),
    "nadam": (
        lambda: gradtx.nadam(1e-3, momentum_decay=0.004, momentum=gradtx.bi_maxwell()),
        "momentum_decay = 0.004 schedules the look-ahead of one average, and momentum = "
        "bi_maxwell() has another: drop one of the two arguments",
    ),
    "soap": (
        lambda: gradtx.scale_by_soap(momentum=small_taps()),
        "keeps a ring of gradients, which no refresh of the bases can rotate: take a sum of "
        "averages, k_maxwell() for instance",
    ),
}


@pytest.mark.parametrize("case", sorted(ERRORS))
def test_errors(case: str) -> None:
    call, text = ERRORS[case]
    with pytest.raises(gradtx.HyperparamError) as caught:
        call()
    assert str(caught.value).endswith(text) if case == "soap" else str(caught.value) == text
