"""The optimizer of a transformer, from parts: Muon, AdamW for the rest, one schedule for both."""

import numbers
from typing import Any, NamedTuple

from gradtx.compose.descend import descend
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import Schedule
from gradtx.definition.types import Decay, Hyperparam, NonNegative, Positive
from gradtx.optimizers.adamw import adamw
from gradtx.optimizers.muon import scale_by_muon
from gradtx.schedules.phases import constant, cooldown, phases, warmup
from gradtx.transforms.flags import Dimensions, Routes, Shard
from gradtx.wrappers.by_role import by_role

NAME = "recipes.transformer"
WARM_SHARE = 20
"""By default the warmup is one step in so many."""
HEAD_SHARE = 0.3
"""By default the rate of the head over that of embeddings."""


class Lengths(NamedTuple):
    """The phases of a run, in steps."""

    warmup: Any
    constant: Any
    cooldown: Any


def transformer(
    total_steps: Positive,
    learning_rate: Hyperparam = 0.03,
    *,
    adam_learning_rate: Hyperparam = 0.02,
    head_learning_rate: Hyperparam | None = None,
    weight_decay: NonNegative = 0.1,
    warmup_steps: NonNegative | None = None,
    cooldown_steps: NonNegative | None = None,
    beta: Decay = 0.95,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.98,
    routes: Routes | None = None,
    dimensions: Dimensions | None = None,
    shard: Shard | None = None,
) -> GradientTransformation:
    r"""Build the optimizer of a transformer: Muon for hidden matrices, AdamW for the rest.

    For every hidden matrix θ: θ ← θ − η (s O + λ θ), where O is the orthogonal factor of Nesterov's
    momentum (`scale_by_muon`), and s = √max(1, fan_out / fan_in). Embeddings, norms and biases get
    AdamW with Nesterov's momentum and without decay; the head gets the same at a lower rate, which
    is what `muon` lacks. All rates rise over the warmup, stay, and fall to zero on a line over the
    cooldown.

    The result is the chain of its parts, not a name for it: print it, take it apart, change it.

    When: a transformer from its first parameters, over a number of steps that you know.
    When not: fine-tuning a model that AdamW trained; runs without an end.

    Args:
      total_steps: the number of steps of the whole run, > 0; then the rates are 0.
      learning_rate: η of hidden matrices at its highest; 0.01 to 0.1.
      adam_learning_rate: that of the rest; 3e-3 to 0.03. It is worth a search of its own.
      head_learning_rate: that of the head; 1e-3 to 0.02, by muP less for a wider model. In two
        small models a head that started at random numbers was best at a tenth of
        `adam_learning_rate`, and one that started at zero at the whole, the most that was tried.
        None: 0.3 of it, between the two.
      weight_decay: λ ≥ 0 of hidden matrices, a fraction per unit of learning rate; 0 to 0.3.
      warmup_steps: the steps over which the rates rise; None: one in 20.
      cooldown_steps: the last steps, over which they fall to zero; None: all after the warmup.
      beta: β in [0, 1), decay of Muon's momentum.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      routes: rules `[(pattern, group), ...]` that take precedence over the roles, as in `by_role`;
        the groups are "muon", "adam" and "head".
      dimensions: which axes of an array are inputs, outputs and batches: `[("qkv", "in out/3")]`.
      shard: mesh axes to spread matrices over, as in `matrixwise`.

    Returns:
      `by_role` of three groups, "muon", "adam" and "head".

    Raises:
      HyperparamError: a run of no steps, a warmup and a cooldown that are longer than the run, a
        number out of its range.

    State: 4 bytes per parameter of hidden matrices, 8 of the rest.

    >>> import gradtx
    >>> tx = gradtx.recipes.transformer(1000, 0.02)
    >>> rate = tx.arguments["transforms"]["muon"].arguments["learning_rate"]
    >>> print(rate)
    phases(warmup(steps=50, peak_value=0.02), cooldown(steps=950))
    >>> [round(float(rate(step)), 4) for step in (0, 50, 525, 1000)]
    [0.0, 0.02, 0.01, 0.0]

    See also: `gradtx.muon`, `gradtx.by_role`, `gradtx.coverage`.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon) for Muon with AdamW for the rest; Yang et
    al. 2022, arXiv 2203.03466, Table 8, for a rate of the head that falls with the width.
    `benchmarks/frontier.py` compares parts at equal tuning.
    """
    lengths = phase_lengths(total_steps, warmup_steps, cooldown_steps)
    direction = scale_by_muon(beta=beta, scaling="original", dimensions=dimensions, shard=shard)
    hidden = descend(direction, rate_over(lengths, learning_rate), weight_decay)
    peaks = head_and_rest(head_learning_rate, adam_learning_rate)
    head, rest = (
        adamw(rate_over(lengths, peak), adam_b1, adam_b2, weight_decay=0.0, nesterov=True)
        for peak in peaks
    )
    return by_role({"muon": hidden, "adam": rest, "head": head}, routes, dimensions)


def head_and_rest(head_learning_rate: Any, adam_learning_rate: Any) -> tuple[Any, Any]:
    """The rates of the head and of the rest."""
    if head_learning_rate is None:
        head_learning_rate = HEAD_SHARE * adam_learning_rate
    return head_learning_rate, adam_learning_rate


def phase_lengths(total_steps: Any, warmup_steps: Any, cooldown_steps: Any) -> Lengths:
    """Divide a run into a warmup, a constant rate and a cooldown."""
    if is_number(total_steps) and total_steps <= 0:
        raise HyperparamError(
            f"{NAME}: total_steps = {total_steps!r} is a run of no steps; give the number of "
            "updates of the whole run"
        )
    warm = total_steps // WARM_SHARE if warmup_steps is None else warmup_steps
    check_horizon(total_steps, warmup_steps=warm)
    cool = total_steps - warm if cooldown_steps is None else cooldown_steps
    check_horizon(total_steps, warmup_steps=warm, cooldown_steps=cool)
    return Lengths(warm, total_steps - warm - cool, cool)


def check_horizon(total_steps: Any, **horizons: Any) -> None:
    """Raise where numbers of steps are together longer than the run."""
    horizon = sum(horizons.values())
    if is_number(horizon) and is_number(total_steps) and horizon > total_steps:
        text = " and ".join(f"{name} = {value!r}" for name, value in horizons.items())
        verb = "is" if len(horizons) == 1 else "are together"
        raise HyperparamError(
            f"{NAME}: {text} {verb} longer than the run of total_steps = {total_steps!r}"
        )


def is_number(value: Any) -> bool:
    """Whether a value is known before the program runs."""
    return isinstance(value, numbers.Real)


def rate_over(lengths: Lengths, peak_value: Hyperparam) -> Schedule:
    """A rate over the run: up to its peak, constant, and down to zero."""
    is_constant_empty = is_number(lengths.constant) and lengths.constant == 0
    middle = () if is_constant_empty else (constant(lengths.constant),)
    return phases(warmup(lengths.warmup, peak_value), *middle, cooldown(lengths.cooldown))
