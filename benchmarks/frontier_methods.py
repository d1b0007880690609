"""The bases of `frontier`: hyperparameters with their grids, schedules, AdamW, Muon and SOAP.

`frontier_parts` has the methods that build on Muon, and the table of all methods."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

import gradtx

Numbers = Mapping[str, Any]
"""The hyperparameters of a trial by name: numbers, or their tracers."""


class Grid(NamedTuple):
    """The values that a search may choose, in order, and the one that it begins at."""

    values: tuple[float, ...]
    start: float


class Method(NamedTuple):
    """One row: how to build the optimizer, and what is tuned."""

    title: str
    build: Callable[[Numbers, Any], Any]
    """From hyperparameters and the number of steps to an optimizer."""
    grids: Mapping[str, Grid]
    """By hyperparameter, in the order of the search."""
    parent: str = ""
    """The method whose first trials count as its own: it begins at the best of them."""


def decades(low: float, high: float, start: float) -> Grid:
    """Four values in each decade, rounded to two digits."""
    values, value = [], low
    while value < high * 1.01:
        values.append(float(f"{value:.2g}"))
        value *= 10**0.25
    nearest = min(values, key=lambda one: abs(one / start - 1))
    return Grid(tuple(values), nearest)


ADAM_RATE = decades(1e-4, 1e-1, 3.2e-3)
MUON_RATE = decades(1e-3, 1.0, 3.2e-2)
WARMUP, COOLDOWN = Grid((0.0, 0.05, 0.1, 0.2), 0.05), Grid((0.4, 0.6, 0.8, 1.0), 1.0)
"""Fractions of all steps; after both the rate is 0."""
MOMENTUM = Grid((0.8, 0.9, 0.95, 0.975), 0.95)
B1, B2 = Grid((0.8, 0.85, 0.9, 0.95), 0.9), Grid((0.9, 0.95, 0.98, 0.99, 0.999), 0.98)
DECAY = Grid((0.0, 0.01, 0.03, 0.1, 0.3, 1.0), 0.1)
PHASES = {"warmup": WARMUP, "cooldown": COOLDOWN}
ADAM = {
    "rate": ADAM_RATE,
    "adam_rate": ADAM_RATE,
    "decay": DECAY,
    "b2": B2,
    **PHASES,
    "b1": B1,
}
MUON = {
    "rate": MUON_RATE,
    "adam_rate": ADAM_RATE,
    "decay": DECAY,
    "momentum": MOMENTUM,
    **PHASES,
    "b2": B2,
}
STARTS = {name: grid.start for name, grid in {**ADAM, **MUON}.items()}


def schedule(hp: Numbers, steps: Any, peak: Any) -> Any:
    """A warmup, a constant rate, and a line to zero at the end; both by fractions of all steps.

    Averages of parameters may end at a fraction `end` of the peak, since they too reduce noise.
    """
    cooldown = jax.numpy.minimum(hp["cooldown"], 1 - hp["warmup"])
    return gradtx.phases(
        gradtx.warmup(hp["warmup"] * steps, peak),
        gradtx.constant((1 - hp["warmup"] - cooldown) * steps),
        gradtx.cooldown(cooldown * steps, hp.get("end", 0.0) * peak),
    )


def rates(hp: Numbers, steps: Any) -> tuple[Any, Any]:
    """The schedules of hidden matrices and of all other parameters."""
    return schedule(hp, steps, hp["rate"]), schedule(hp, steps, hp["adam_rate"])


def by_role(
    hp: Numbers, steps: Any, hidden: Callable[[Any], Any], *, nesterov: bool = False
) -> Any:
    """A rule for hidden matrices from its schedule, and AdamW without decay for the rest.

    Muon's variants have Nesterov's momentum there, as both libraries' Muon has.
    """
    rate, adam_rate = rates(hp, steps)
    rest = gradtx.adamw(adam_rate, b1=hp["b1"], b2=hp["b2"], weight_decay=0.0, nesterov=nesterov)
    return gradtx.by_role({"hidden": hidden(rate), "adam": rest})


def adamw(hp: Numbers, steps: Any) -> Any:
    """`gradtx.adamw`, which equals `optax.adamw`, with a second rate outside hidden matrices."""
    return by_role(
        hp,
        steps,
        lambda rate: gradtx.adamw(rate, b1=hp["b1"], b2=hp["b2"], weight_decay=hp["decay"]),
    )


def optax_muon(hp: Numbers, steps: Any) -> Any:
    """Optax's Muon, told which parameters are hidden matrices, as gradtx finds them by itself."""
    rate, adam_rate = rates(hp, steps)
    return optax.contrib.muon(
        rate,
        beta=hp["momentum"],
        weight_decay=hp["decay"],
        adam_b1=hp["b1"],
        adam_b2=hp["b2"],
        adam_learning_rate=adam_rate,
        muon_weight_dimension_numbers=hidden_dimensions,
    )


def hidden_dimensions(params: Any) -> Any:
    """Optax's (in, out) for kernels of hidden layers; None for the rest."""

    def dimensions(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path)
        return optax.contrib.MuonDimensionNumbers() if is_hidden(name) else None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def is_hidden(name: str) -> bool:
    return name.endswith("['kernel']") and "head" not in name


def muon(hp: Numbers, steps: Any, **options: Any) -> Any:
    """`gradtx.muon`, or with options a variant of it."""
    rate, adam_rate = rates(hp, steps)
    return gradtx.muon(rate, **{**muon_arguments(hp, adam_rate), **options})


def muon_arguments(hp: Numbers, adam_rate: Any) -> dict[str, Any]:
    return {
        "beta": hp["momentum"],
        "weight_decay": hp["decay"],
        "adam_b1": hp["b1"],
        "adam_b2": hp["b2"],
        "adam_learning_rate": adam_rate,
    }


def soap(hp: Numbers, steps: Any, **options: Any) -> Any:
    return by_role(
        hp,
        steps,
        lambda rate: gradtx.soap(
            rate, b1=hp["b1"], b2=hp["b2"], weight_decay=hp["decay"], **options
        ),
    )


BASES: dict[str, Method] = {
    "adamw": Method("AdamW", adamw, ADAM),
    "optax_muon": Method("optax.contrib.muon", optax_muon, MUON),
    "muon": Method("Muon", muon, MUON),
    "soap": Method("SOAP", soap, {**ADAM, "b1": B1._replace(start=0.95)}),
}
