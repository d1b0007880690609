r"""Momentum kernels: the weights c_k of past gradients in a direction, D_t = Σ_k c_k g_{t−k}.

An average of decay b has c_k = (1 − b) b^k and the mean age b / (1 − b). A sum of averages reaches
further back at the same weight of the newest gradient. A finite kernel has any weights.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Array, Decay, Fraction, Hyperparam, NonNegative, Positive
from gradtx.transforms.kernel_moments import Exponentials, Taps
from gradtx.transforms.max_entropy_taps import Moments, solve
from gradtx.transforms.momentum_kernel import momentum_kernel

MOST = 12
"""The most averages of a kernel; each has random bits of its own in a storage, which has 16."""


def _progress(count: Array, start: Any, transition_steps: Any) -> Array:
    """The share f of a transition that is over: 0 at its start, 1 at its end."""
    # In the default float, as schedules are: a quotient of int32 would be rounded to float32.
    number, first, steps = (
        jnp.asarray(value, jnp.result_type(float)) for value in (count, start, transition_steps)
    )
    return jnp.clip((number - first) / steps, 0.0, 1.0)


def _known(*values: Any) -> bool:
    """Whether values are numbers, which a check at the call can compare."""
    return all(isinstance(value, numbers.Real | np.generic) for value in values)


def _check_sum(decays: Sequence[Any], weights: Sequence[Any], start: Any) -> None:
    if len(decays) != len(weights) or not 0 < len(decays) <= MOST:
        raise HyperparamError(
            f"exponentials: {len(decays)} decays and {len(weights)} weights: give one weight for "
            f"each decay, 1 to {MOST} of both"
        )
    if _known(*weights) and not math.isclose(
        total := math.fsum(map(float, weights)), 1.0, rel_tol=1e-6
    ):
        raise HyperparamError(
            f"exponentials: weights = {tuple(weights)} add up to {total:g}, and must add up to 1: "
            f"divide each by the sum, and the learning rate keeps its meaning"
        )


@momentum_kernel(check=_check_sum)
def exponentials(
    count: Array,
    decays: Sequence[Decay],
    weights: Sequence[Hyperparam],
    start: NonNegative | None = None,
) -> Exponentials:
    r"""A momentum kernel of several exponential averages (EMA): D = Σ_k w_k m_k.

    m_k ← b_k m_k + (1 − b_k) g, all in the shape of the parameter. `exponentials((b,), (1.0,))` is
    the plain average of decay b.

    When: for a kernel of your own; each weight may be a schedule. When not: for published kernels;
    take `bi_maxwell` or `k_maxwell`.

    Args:
      decays: b_k in [0, 1), one to twelve; 0.75 to 0.985.
      weights: w_k, which add up to 1; numbers or schedules. The sum of schedules is not checked.
      start: the number of updates, ≥ 0, before the kernel acts. Until then the optimizer's own
        average acts, and all m_k start as copies of it. None: the kernel acts from the first step,
        and each m_k starts at zero.

    Raises:
      HyperparamError: weights that do not add up to 1, or a number out of its range.

    State: 4 bytes per parameter and average, in the place of 4.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_momentum(gradtx.exponentials((0.5, 0.75), (0.4, 0.6)), debias=False)
    >>> state, weights = tx.init(jnp.zeros(())), []
    >>> for g in (1.0, 0.0, 0.0):  # the response to one gradient is the kernel
    ...     c, state = tx.update(jnp.array(g), state)
    ...     weights.append(round(c.item(), 4))
    >>> weights  # 0.4 (1 − 0.5) 0.5^k + 0.6 (1 − 0.75) 0.75^k
    [0.35, 0.2125, 0.1344]

    See also: `scale_by_momentum`.
    """
    return Exponentials(tuple(decays), tuple(weights), (1.0,) * len(decays), start)


@momentum_kernel
def bi_maxwell(
    count: Array,
    fast: Decay = 0.85,
    slow: Decay = 0.98,
    fast_weight: Fraction = 0.4385,
    start: NonNegative = 1000,
) -> Exponentials:
    r"""Bi-Maxwell momentum: a fast and a slow average (EMA) of gradients in fixed shares.

    D = w m_f + (1 − w) m_s with m ← b m + (1 − b) g, all in the shape of the parameter. Defaults:
    mean age 30.0, weight of the newest gradient 0.0770.

    When: for hidden matrices by Muon or SOAP, after the first third of a run; less memory than
    `k_maxwell`. When not: at large batches, where the gain fades.

    Args:
      fast: b of m_f in [0, 1); 0.85.
      slow: b of m_s in [0, 1); 0.98.
      fast_weight: w in [0, 1]; 0.4385.
      start: the number of updates, ≥ 0, before the kernel acts. Until then the optimizer's own
        average acts, and both averages start as copies of it.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter, in the place of 4.

    >>> import gradtx, jax.numpy as jnp
    >>> kernel = gradtx.bi_maxwell().at(1000)
    >>> round(sum(w * b / (1 - b) for w, b in zip(kernel.weights, kernel.decays)), 1)  # mean age
    30.0

    See also: `k_maxwell`, `muon`.

    Hu, Xiang, Gong and Yu 2026, arXiv 2608.22994; modded-nanogpt pull requests 339 and 340.
    """
    share: Any = fast_weight
    return Exponentials((fast, slow), (share, 1 - share), (1.0, 1.0), start)


def log_spaced_ages(averages: int, shortest: Any, longest: Any) -> list[Any]:
    """Space mean ages evenly in their logarithm: τ_k = τ_1 (τ_K/τ_1)^((k−1)/(K−1))."""
    ratio = longest / shortest
    return [shortest * ratio ** (k / (averages - 1)) for k in range(averages)]


def maxwell_weights(ages: Sequence[Any], mean_age: Any) -> list[Any]:
    """Compute w_k = a k for k < K, and the last weight, so that sum and mean age are as asked."""
    count = len(ages)
    total = count * (count - 1) / 2
    moment = sum(k * age for k, age in enumerate(ages[:-1], start=1))
    slope = (ages[-1] - mean_age) / (total * ages[-1] - moment)
    return [*(slope * k for k in range(1, count)), 1 - slope * total]


def _check_ages(
    averages: int,
    shortest_age: Any,
    longest_age: Any,
    init_mean_age: Any,
    end_mean_age: Any,
    start: Any,
    transition_steps: Any,
) -> None:
    if not 2 <= averages <= MOST:
        raise HyperparamError(
            f"k_maxwell: averages = {averages} is not a number of averages: give 2 to {MOST}"
        )
    if not _known(shortest_age, longest_age):
        return
    if not shortest_age < longest_age:
        raise HyperparamError(
            f"k_maxwell: shortest_age = {shortest_age} is not below longest_age = {longest_age}: "
            f"the ages of the averages lie between them"
        )
    for name, age in (("init_mean_age", init_mean_age), ("end_mean_age", end_mean_age)):
        if _known(age) and not shortest_age <= age <= longest_age:
            raise HyperparamError(
                f"k_maxwell: {name} = {age} is outside [{shortest_age}, {longest_age}], the ages "
                f"of the averages: give a mean age between them"
            )


@momentum_kernel(check=_check_ages)
def k_maxwell(
    count: Array,
    averages: int = 8,
    shortest_age: Positive = 3.0,
    longest_age: Positive = 64.0,
    init_mean_age: NonNegative = 58.0,
    end_mean_age: NonNegative = 26.0,
    start: NonNegative = 1000,
    transition_steps: Positive = 2250,
) -> Exponentials:
    r"""K-Maxwell momentum: K averages (EMA) of log-spaced ages, from an old to a young mix.

    D = Σ_k w_k m_k with m_k ← b_k m_k + (1 − b_k) g, all in the shape of the parameter. Mean ages
    τ_k = b_k/(1 − b_k) are spaced evenly in their logarithm. w_k = a k for k < K; the last weight
    and a follow from Σ w_k = 1 and Σ w_k τ_k = A, which moves from A_0 to A_1.

    When: Muon at any batch, without averages of parameters. When not: with tail averages, where a
    fixed mix is better (set `end_mean_age=init_mean_age`); where K buffers do not fit.

    Args:
      averages: K, 2 to 12; 6 or 8.
      shortest_age: τ_1 > 0, in steps; 3.
      longest_age: τ_K > τ_1, in steps; 56 to 64.
      init_mean_age: A_0 in [τ_1, τ_K] at the start; 35 to 58. Near τ_1 the last weight is negative.
      end_mean_age: A_1 in [τ_1, τ_K] at the end; 22 to 35.
      start: the number of updates, ≥ 0, before the kernel acts. Until then the optimizer's own
        average acts, and all averages start as copies of it.
      transition_steps: the number of steps, > 0, from A_0 to A_1; to the end of the run.

    Raises:
      HyperparamError: a mean age outside [τ_1, τ_K], or a number out of its range.

    State: 4 K bytes per parameter, 32 by default, in the place of 4.

    >>> import gradtx, jax.numpy as jnp
    >>> kernel = gradtx.k_maxwell(averages=6, init_mean_age=50.0, end_mean_age=22.0)
    >>> [round(float(w), 4) for w in kernel.at(1000).weights]
    [0.021, 0.042, 0.063, 0.084, 0.105, 0.6849]

    See also: `bi_maxwell`, `max_entropy`, `muon`.

    modded-nanogpt pull requests 357 (Muon, the defaults) and 359.
    """
    ages = log_spaced_ages(averages, shortest_age, longest_age)
    first: Any = init_mean_age
    last: Any = end_mean_age
    share = _progress(count, start, transition_steps)
    # The weights are linear in the mean age: a mix of both ends is the mix of their mean ages.
    weights = maxwell_weights(ages, (1 - share) * first + share * last)
    decays = tuple(age / (1 + age) for age in ages)
    return Exponentials(decays, tuple(weights), (1.0,) * averages, start)


@momentum_kernel
def ademamix_kernel(
    count: Array, b1: Decay = 0.9, b3: Decay = 0.9999, alpha: NonNegative = 5.0
) -> Exponentials:
    r"""AdEMAMix's momentum: a fast average and α times a slow one, D = m̂_1 + α m_2.

    m ← b m + (1 − b) g, all in the shape of the parameter; m_2 has no bias correction, and starts
    at zero. The weights add up to 1 + α. `adam(eta, momentum=ademamix_kernel())` is `ademamix`.

    When: a slow average in an optimizer that is not Adam. When not: with Adam; take `ademamix`.

    Args:
      b1: decay of m_1 in [0, 1); 0.9.
      b3: decay of m_2 in [0, 1); 0.999 to 0.9999, often a `half_life_schedule`.
      alpha: α ≥ 0; 4 to 10, often a `linear_schedule` from 0.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter, in the place of 4.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.zeros(1), jnp.ones(1)
    >>> kernel = gradtx.ademamix_kernel(b3=0.5, alpha=4.0)
    >>> tx = gradtx.adam(0.1, momentum=kernel)
    >>> round(tx.update(g, tx.init(w))[0].item(), 4)  # 1 and 4 (1 − 0.5), times 0.1
    -0.3

    See also: `ademamix`, `exponentials`.

    Pagliardini, Ablin and Grangier 2024, arXiv 2409.03137, Algorithm 1.
    """
    return Exponentials((b1, b3), (1.0, alpha), (1.0, 0.0), None)


Pair = tuple[float, float]


def _solve(taps: int, age: float, log_age: float, newest: Pair) -> np.ndarray:
    first, second = newest
    return solve(taps, Moments(age, log_age, (first, second))).coefficients


def _check_entropy(
    taps: int,
    init_mean_age: float,
    end_mean_age: float,
    init_log_age: float,
    end_log_age: float,
    init_newest: Pair,
    end_newest: Pair,
    start: Any,
    transition_steps: Any,
    nesterov: bool,
) -> None:
    if taps < 3:
        raise HyperparamError(
            f"max_entropy: taps = {taps} is not a number of gradients beyond the newest two: give "
            f"3 or more"
        )
    _solve(taps, init_mean_age, init_log_age, init_newest)
    _solve(taps, end_mean_age, end_log_age, end_newest)


@momentum_kernel(check=_check_entropy)
def max_entropy(
    count: Array,
    taps: int = 256,
    init_mean_age: float = 90.0,
    end_mean_age: float = 24.05,
    init_log_age: float = 3.7153849427,
    end_log_age: float = 2.3786333904,
    init_newest: Pair = (0.07235, 0.02235),
    end_newest: Pair = (0.137, 0.087),
    start: NonNegative = 750,
    transition_steps: Positive = 2375,
    *,
    nesterov: bool = False,
) -> Taps:
    r"""Maximum-entropy momentum (MaxEntSlop): weights of the last n gradients, as even as allowed.

    D = Σ_{k<n} c_k g_{t−k}, all in the shape of the parameter. c_0 and c_1 are arguments; the
    others have the largest entropy under Σ c_k = 1, Σ (−1)^k c_k = 0, Σ k c_k = L and
    Σ log(1 + k) c_k = Q. So D ignores a gradient that changes its sign at every step. The kernel
    moves linearly from an early one to a late one. Both are computed once, in float64.

    When: small models, or states that are spread over many devices. When not: anywhere else; the
    state has n gradients, and `k_maxwell` reaches nearly as far with 8.

    Args:
      taps: n, 3 or more; 256.
      init_mean_age: L of the early kernel, in steps; 90. These six numbers are static.
      end_mean_age: L of the late kernel; 24.05.
      init_log_age: Q of the early kernel, below log(1 + L); 3.715.
      end_log_age: Q of the late kernel; 2.379.
      init_newest: (c_0, c_1) of the early kernel; their sum is below 1.
      end_newest: (c_0, c_1) of the late kernel.
      start: the number of updates, ≥ 0, before the kernel acts. Until then the optimizer's own
        average acts; gradients are recorded from the first step on.
      transition_steps: the number of steps, > 0, from the early to the late kernel.
      nesterov: True: an optimizer's look-ahead goes on after the start.

    Raises:
      HyperparamError: conditions that no kernel meets, or a number out of its range.

    State: 4 (n + 1) bytes per parameter, 1028 by default, in the place of 4; the ring of n
      gradients takes half with `mu_dtype=bfloat16`, and `stored` leaves it as it is.

    >>> import gradtx, jax.numpy as jnp
    >>> kernel = gradtx.max_entropy()
    >>> c = kernel.at(750).coefficients
    >>> round(float(c.sum()), 6), round(float(c @ jnp.arange(256.0)), 3), round(float(c[2]), 6)
    (1.0, 90.0, 0.020213)

    See also: `k_maxwell`, `muon`.

    modded-nanogpt pull requests 368 and 369.
    """
    early = _solve(taps, init_mean_age, init_log_age, init_newest)
    late = _solve(taps, end_mean_age, end_log_age, end_newest)
    share = _progress(count, start, transition_steps)
    return Taps(
        (1 - share) * jnp.asarray(early, share.dtype) + share * jnp.asarray(late, share.dtype),
        start,
        float(nesterov),
    )
