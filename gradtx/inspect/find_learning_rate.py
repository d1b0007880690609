"""`find_learning_rate`: the learning rate finder (range test), as one scan."""

import functools
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
)
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.leaves import known_number
from gradtx.definition.schedule import schedule
from gradtx.definition.show import show
from gradtx.definition.types import Array, Hyperparam, Params
from gradtx.inspect.batches import read_batches
from gradtx.inspect.figures import COLORS, finish, new_axes
from gradtx.training.hyperparams import find, replace
from gradtx.training.make_step import make_step
from gradtx.tree.casts import is_inexact, real_dtype


class LearningRateCurve(NamedTuple):
    """The losses at n learning rates; a pytree, so that it may leave `jit` and `vmap`."""

    learning_rates: Array
    """η_i, shape (n,): a geometric sequence."""
    losses: Array
    """ℓ_i, shape (n,): the loss on batch i, just before the step with η_i."""
    smoothed: Array
    """s_i, shape (n,): the average of ℓ_0, ..., ℓ_i, with more weight on later losses."""
    suggestion: Array
    """The rate of the steepest fall of the smoothed loss, a scalar; nan where it never fell."""

    def __repr__(self) -> str:
        number = known_number(self.suggestion)
        text = f"{number:.3g}" if isinstance(number, np.generic) else show(number)
        arrays = zip(self._fields[:3], self[:3], strict=True)
        fields = [f"suggestion={text}", *(f"{name}={show(one)}" for name, one in arrays)]
        return f"{type(self).__name__}({', '.join(fields)})"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Plot losses over learning rates and mark the suggestion; it needs matplotlib.

        Args:
          path: a file for the plot, `rates.png` for example; None: no file.

        Returns:
          The `matplotlib.figure.Figure`, which a notebook displays.

        Raises:
          GradtxError: the curve is a batch of curves, or matplotlib is not installed.
        """
        return _plot(self, path)


def find_learning_rate(
    loss_fn: Callable[..., Any],
    params: Params,
    tx: TransformationLike,
    batches: Any,
    *,
    min_rate: float = 1e-7,
    max_rate: float = 10.0,
    smoothing: float = 0.9,
    name: str = "learning_rate",
    has_aux: bool = False,
) -> LearningRateCurve:
    r"""Learning rate finder: find the rate at which the loss falls fastest.

    It trains once while the learning rate grows from tiny to too large. For batches i = 0, ..., n −
    1: η_i = η_min (η_max/η_min)^(i/(n − 1)); ℓ_i is the loss on batch i before the step with η_i,
    and s_i = (1 − β) Σ_{j ≤ i} β^(i−j) ℓ_j / (1 − β^(i+1)) its bias-corrected average, which
    reaches back r = ⌈1/(1 − β)⌉ batches. The suggestion is η_k for the k with the largest s_k −
    s_{k+r} > 0, the steepest slope over log η, where k ≥ r, and k + r ≤ m: up to the smallest s,
    s_m, of those before the first that is not finite. Later losses, inf and nan too, have no
    influence.

    The whole run is one `jax.lax.scan` of the steps of `make_step`. It works inside `jit`, and
    `vmap` over definitions or starts gives a batch of curves. `params` do not change.

    When: a new network, loss or optimizer, for the order of magnitude; use the suggestion, or up to
    ten times it with warmup. With the defaults and 100 batches it is 1/26 to 1/11 of the stable
    limit 2/L on quadratics of condition numbers 1 to 10⁴. When not: methods that need no learning
    rate, where it is a factor of 1; line searches; the last factor of 2, for which you must compare
    whole trainings. Losses of single examples need more batches: where the noise of a batch is
    larger than the fall, the steepest slope is random.

    Args:
      loss_fn: `loss_fn(params, *batch)` -> scalar, or `(scalar, aux)` with `has_aux`.
      params: the first parameters.
      tx: the transformation; every step replaces its learning rate, even a schedule.
      batches: arrays with a first axis of n ≥ 3r batches; about 100: images of shape (100, 32, 28,
        28) with labels of shape (100, 32), not (3200, 28, 28). A tuple holds the arguments of
        `loss_fn` after the parameters; any other tree is one argument.
      min_rate: η_min > 0, a Python number; too small to learn.
      max_rate: η_max > η_min, a Python number; so large that the loss grows.
      smoothing: β in [0, 1), a Python number; 0: none.
      name: the hyperparameter that grows, by its name in `hyperparams`.
      has_aux: whether `loss_fn` returns auxiliary output beside the loss.

    Raises:
      HyperparamError: rates or smoothing out of range, or no hyperparameter of that name.
      StructureError: too few batches, first axes that differ, batches that are not stacked, or
        not the arguments of `loss_fn`.
      GradtxError: the loss is not a real scalar.

    Warns: where a step seems to receive one example in the place of a batch.

    State: that of `tx` during the scan, none after it.

    >>> import gradtx, jax.numpy as jnp
    >>> # With curvature 1 gradient descent is stable below a rate of 2.
    >>> loss = lambda w, x: jnp.mean((x @ w) ** 2) / 2
    >>> x = jnp.tile(2 * jnp.eye(4), (100, 1, 1))
    >>> curve = gradtx.find_learning_rate(loss, jnp.ones(4), gradtx.sgd(1.0), (x,), max_rate=100.0)
    >>> round(float(curve.suggestion), 2)
    0.08
    >>> bool(curve.losses[-1] > curve.losses[0])  # the loss fell, and then diverged
    True

    See also: `replace`, which sets the suggestion in a definition, `hyperparams`.

    Smith 2015, arXiv 1506.01186, section 3.3, there with a rate that grows linearly.
    """
    tx = _transformation(tx)
    _check_rates(min_rate, max_rate, smoothing)
    _check_name(tx, name)
    batch, count = read_batches(loss_fn, params, batches, 3 * _reach(smoothing), has_aux)
    step = functools.partial(_step, loss_fn, tx, name, has_aux, smoothing)
    rates = min_rate * (max_rate / min_rate) ** (jnp.arange(count) / (count - 1))
    params = jax.tree.map(_strong, params)
    start = params, replace(tx, **{name: held(rates[0])}).init(params), jnp.zeros_like(rates)[0]
    _, (losses, smoothed) = jax.lax.scan(step, start, (rates, jnp.arange(count), batch))
    return LearningRateCurve(rates, losses, smoothed, _suggestion(rates, smoothed, smoothing))


def _transformation(tx: Any) -> GradientTransformation:
    if isinstance(tx, GradientTransformation):
        return tx
    try:
        return GradientTransformation.coerce(tx, "find_learning_rate: tx")
    except GradtxError as error:
        raise GradtxError(
            f"{error}; the arguments are, in order, loss_fn, params, tx, batches"
        ) from None


@schedule
def held(count: Array, value: Hyperparam) -> Any:
    """A constant schedule; it also replaces numbers that a transformation stores in its state."""
    return value


def _step(
    loss_fn: Any,
    tx: GradientTransformation,
    name: str,
    has_aux: bool,
    smoothing: float,
    carry: Any,
    row: Any,
) -> Any:
    (params, state, average), (rate, index, batch) = carry, row
    step = make_step(loss_fn, replace(tx, **{name: held(rate)}), has_aux=has_aux, donate=False)
    params, state, loss, *_ = step(params, state, *batch)
    loss = loss.astype(real_dtype(loss.dtype)).astype(average.dtype)
    average = smoothing * average + (1 - smoothing) * loss
    number = (index + 1).astype(average.dtype)
    return (params, state, average), (loss, average / (1 - smoothing**number))


def _suggestion(rates: Array, smoothed: Array, smoothing: float) -> Array:
    """The rate after which the average falls most within its reach, up to its smallest value."""
    index, reach = jnp.arange(len(rates)), _reach(smoothing)
    finite = jnp.cumprod(jnp.isfinite(smoothed)).astype(bool)
    best = jnp.argmin(jnp.where(finite, smoothed, jnp.inf))
    is_candidate = (index >= reach) & (index + reach <= best)
    fall = jnp.where(is_candidate, smoothed - jnp.roll(smoothed, -reach), -jnp.inf)
    steepest = jnp.argmax(fall)
    return jnp.where(fall[steepest] > 0, rates[steepest], jnp.nan)


def _reach(smoothing: float) -> int:
    """The number of losses in the average."""
    # 1e-9 against rounding: 1/(1 − 0.9) is a little above 10.
    return math.ceil(1 / (1 - smoothing) - 1e-9)


def _strong(leaf: Any) -> Any:
    """A parameter without a weak type, as after a step, so that `scan` can carry it."""
    return jnp.asarray(leaf, jnp.result_type(leaf)) if is_inexact(leaf) else leaf


def _check_rates(min_rate: float, max_rate: float, smoothing: float) -> None:
    if not 0 < min_rate < max_rate < math.inf:
        raise HyperparamError(
            f"find_learning_rate: min_rate = {min_rate!r} and max_rate = {max_rate!r} span no "
            "range; give 0 < min_rate < max_rate"
        )
    if not 0 <= smoothing < 1:
        raise HyperparamError(
            f"find_learning_rate: smoothing = {smoothing!r} is outside its range [0, 1)"
        )


def _check_name(tx: GradientTransformation, name: str) -> None:
    find(tx, name)
    try:
        find(replace(tx, **{name: held(1.0)}), name)
    except HyperparamError:
        raise HyperparamError(
            f"find_learning_rate: {name!r} is a parameter of a schedule; name the hyperparameter "
            "itself, which then follows no schedule"
        ) from None


def _plot(curve: LearningRateCurve, path: str | os.PathLike[str] | None) -> Any:
    if jnp.ndim(curve.suggestion):
        shape = jnp.shape(curve.suggestion)
        raise GradtxError(
            f"this is a batch of curves, of shape {shape}: take one, "
            "jax.tree.map(lambda leaf: leaf[0], curve), and plot it"
        )
    axes = new_axes("plot")
    rates, losses, smoothed = jax.device_get(curve[:3])
    suggestion = float(curve.suggestion)
    axes.plot(rates, losses, color=COLORS[0], lw=0.8, alpha=0.4, label="loss of each batch")
    axes.plot(rates, smoothed, color=COLORS[0], lw=2, label="smoothed")
    if math.isfinite(suggestion):
        axes.axvline(
            suggestion, color=COLORS[1], lw=1.5, ls="--", label=f"suggestion: {suggestion:.2g}"
        )
    axes.set(
        xscale="log",
        xlabel="learning rate",
        ylabel="loss before the step",
        title="Learning rate range test",
        ylim=_limits(losses, smoothed),
    )
    return finish(axes, path)


def _limits(losses: Any, smoothed: Any) -> tuple[float, float] | None:
    """Limits of the loss axis before the divergence.

    They lie a tenth of the fall below the smallest loss, and half of it above the largest smoothed
    loss before that.
    """
    finite = smoothed[jnp.isfinite(smoothed)]
    if not len(finite):
        return None
    low, high = (
        float(losses[: finite.argmin() + 1].min()),
        float(finite[: finite.argmin() + 1].max()),
    )
    fall = high - low or max(abs(low), 1.0)
    return low - fall / 10, high + fall / 2
