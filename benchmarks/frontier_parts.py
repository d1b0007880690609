"""The methods of `frontier`: AdamW, Muon and SOAP, and each part on top of Muon.

A new method is one row of METHODS. Where gradtx lacks a name or an argument that a row uses, the
row is left out of the run, with a line that says so. Ages and horizons of the records, which belong
to thousands of steps, are scaled to the length of the run."""

from collections.abc import Callable
from typing import Any

import jax

import gradtx
from benchmarks.frontier_methods import (
    BASES,
    MUON,
    STARTS,
    Grid,
    Method,
    Numbers,
    by_role,
    decades,
    muon,
    muon_arguments,
    rates,
    schedule,
)

NAMES = ("rate", "adam_rate", "decay", "momentum")
"""The hyperparameters that a part on top of Muon tunes again."""
TAIL = 0.7
"""Averages of parameters begin at this fraction of the run."""
KERNEL_START = 0.3
"""Momentum kernels begin at this fraction of the run, as in the records."""


def part(title: str, build: Callable[[Numbers, Any], Any], **grids: Grid) -> Method:
    """A row on top of Muon, with the grids of its own numbers; those come first."""
    return Method(title, build, {**grids, **{name: MUON[name] for name in NAMES}}, "muon")


def without_decay(method: Method) -> Method:
    """A row whose method has no weight decay."""
    grids = {name: grid for name, grid in method.grids.items() if name != "decay"}
    return method._replace(grids=grids)


def with_options(**options: Any) -> Callable[[Numbers, Any], Any]:
    """`muon` with constant options."""
    return lambda hp, steps: muon(hp, steps, **options)


def corrected(hp: Numbers, steps: Any) -> Any:
    """Decay by η²/η_max. AdamW's part has no decay, so that one η_max serves both."""
    return muon(hp, steps, decay_form="corrected", peak_learning_rate=hp["rate"])


def normuon(hp: Numbers, steps: Any) -> Any:
    rate, adam_rate = rates(hp, steps)
    return gradtx.normuon(rate, **muon_arguments(hp, adam_rate))


def adamuon(hp: Numbers, steps: Any) -> Any:
    """AdaMuon's matrices have the size of AdamW's; 0.4 brings Muon's rates near."""
    _, adam_rate = rates(hp, steps)
    return gradtx.adamuon(
        schedule(hp, steps, 0.4 * hp["rate"]), **muon_arguments(hp, adam_rate), nesterov=True
    )


def muon_h(hp: Numbers, steps: Any) -> Any:
    """MuonH: Muon's direction on the sphere of the first norm; the rate is an angle."""
    direction = gradtx.scale_by_muon(beta=hp["momentum"])
    return by_role(hp, steps, lambda rate: gradtx.hyperball(direction, rate), nesterov=True)


def muon_h_fast_slow(hp: Numbers, steps: Any) -> Any:
    """MuonH whose rate falls fast at first; the knee is a fifth of the peak."""
    rate = gradtx.fast_slow_decay_schedule(
        hp["rate"], 0.2 * hp["rate"], 0.03 * steps, 0.03 * steps, 0.5 * steps, 0.44 * steps
    )
    direction = gradtx.scale_by_muon(beta=hp["momentum"])
    return by_role(hp, steps, lambda _: gradtx.hyperball(direction, rate), nesterov=True)


def behind_muon(rule: Callable[[Numbers], Any]) -> Callable[[Numbers, Any], Any]:
    """A rule between Muon's direction and the decay."""

    def build(hp: Numbers, steps: Any) -> Any:
        direction = gradtx.scale_by_muon(beta=hp["momentum"], scaling="original")
        both = gradtx.chain(direction, rule(hp))
        return by_role(
            hp, steps, lambda rate: gradtx.descend(both, rate, hp["decay"]), nesterov=True
        )

    return build


def bi_maxwell(hp: Numbers, steps: Any) -> Any:
    kernel = gradtx.bi_maxwell(slow=hp["slow"], start=KERNEL_START * steps)
    return muon(hp, steps, momentum=kernel)


def k_maxwell(hp: Numbers, steps: Any) -> Any:
    """The ages of the record, times a factor that is tuned, because the run is shorter."""
    age = hp["age"]
    kernel = gradtx.k_maxwell(
        averages=6,
        shortest_age=2.0,
        longest_age=64.0 * age,
        init_mean_age=50.0 * age,
        end_mean_age=26.0 * age,
        start=KERNEL_START * steps,
        transition_steps=(1 - KERNEL_START) * steps,
    )
    return muon(hp, steps, momentum=kernel)


def ademamix_kernel(hp: Numbers, steps: Any) -> Any:
    kernel = gradtx.ademamix_kernel(b1=hp["momentum"], b3=hp["slow"], alpha=hp["alpha"])
    return muon(hp, steps, momentum=kernel)


def soft_polar(hp: Numbers, steps: Any) -> Any:
    return muon(hp, steps, spectrum=gradtx.soft_polar(hp["soft"]))


def spectral_power(hp: Numbers, steps: Any) -> Any:
    return muon(hp, steps, spectrum=gradtx.spectral_power(0.125))


def mud(hp: Numbers, steps: Any) -> Any:
    rate, adam_rate = rates(hp, steps)
    return gradtx.mud(rate, scaling="original", **muon_arguments(hp, adam_rate))


def muown(hp: Numbers, steps: Any) -> Any:
    """Muown's matrices have the size of AdamW's, as AdaMuon's."""
    _, adam_rate = rates(hp, steps)
    return gradtx.muown(schedule(hp, steps, 0.4 * hp["rate"]), **muon_arguments(hp, adam_rate))


def ema_nesterov(hp: Numbers, steps: Any) -> Any:
    return gradtx.ema_nesterov(muon(hp, steps), decay=hp["average"], beta=hp["ahead"])


def tail_ema(hp: Numbers, steps: Any) -> Any:
    tail = gradtx.tail_ema(hp["horizon"] * steps, TAIL * steps, blend=hp["blend"])
    return gradtx.chain(muon(hp, steps), tail)


def anchor_gradient(hp: Numbers, steps: Any) -> Any:
    """The gain grows over a tenth of the run, beginning with the average."""
    gain = gradtx.linear_schedule(0.0, hp["gain"], 0.1 * steps, TAIL * steps)
    return gradtx.anchor_gradient(
        muon(hp, steps), hp["horizon"] * steps, TAIL * steps, gain, blend=hp["blend"]
    )


def gpa(hp: Numbers, steps: Any) -> Any:
    return gradtx.gpa(muon(hp, steps), mu_x=hp["average"], mu_y=0.7)


def snoo(hp: Numbers, steps: Any) -> Any:
    """Snoo: an outer step of SGD with Nesterov's momentum at every tenth step."""
    step = gradtx.sgd(hp["outer_rate"], momentum=hp["outer_momentum"], nesterov=True)
    return gradtx.outer(muon(hp, steps), step, every=10)


def recipe(hp: Numbers, steps: Any) -> Any:
    cooldown = jax.numpy.minimum(hp["cooldown"], 1 - hp["warmup"])
    return gradtx.recipes.transformer(
        steps,
        hp["rate"],
        adam_learning_rate=hp["adam_rate"],
        head_learning_rate=hp["head"],
        weight_decay=hp["decay"],
        warmup_steps=hp["warmup"] * steps,
        cooldown_steps=cooldown * steps,
        beta=hp["momentum"],
        adam_b1=hp["b1"],
        adam_b2=hp["b2"],
    )


HORIZON, END = Grid((0.02, 0.05, 0.1), 0.05), Grid((0.0, 0.05, 0.1, 0.2), 0.1)
BLEND = Grid((0.5, 0.75, 1.0), 1.0)
HEAD = decades(1e-3, 0.1, 3.2e-3)
SLOW = Grid((0.9, 0.95, 0.98, 0.99), 0.98)

METHODS: dict[str, Method] = {
    **BASES,
    "cautious_decay": part("Muon, cautious decay", with_options(decay_form="cautious")),
    "corrected_decay": part("Muon, decay by η²", corrected),
    "cautious": part("Cautious Muon", with_options(cautious=True)),
    "normuon": part("NorMuon", normuon),
    "adamuon": part("AdaMuon", adamuon),
    "muon_h": without_decay(part("MuonH", muon_h)),
    "muon_h_fast_slow": without_decay(part("MuonH, fast-slow decay", muon_h_fast_slow)),
    "radial_brake": part("Muon, radial brake", behind_muon(lambda hp: gradtx.radial_brake())),
    "update_floor": part(
        "Muon, update floor",
        behind_muon(lambda hp: gradtx.update_floor(hp["floor"])),
        floor=Grid((0.2, 0.35, 0.7, 1.0), 0.35),
    ),
    "bi_maxwell": part("Muon, bi-Maxwell", bi_maxwell, slow=SLOW),
    "k_maxwell": part("Muon, K-Maxwell", k_maxwell, age=Grid((0.15, 0.25, 0.5, 1.0), 0.5)),
    "ademamix_kernel": part(
        "Muon, AdEMAMix's kernel", ademamix_kernel, slow=SLOW, alpha=Grid((0.5, 1.0, 2.0, 5.0), 1.0)
    ),
    "soft_polar": part("Muon, soft polar", soft_polar, soft=Grid((-0.25, 0.1, 0.2, 0.4), 0.2)),
    "spectral_power": part("Muon, σ^(1/8)", spectral_power),
    "muon_plus": part("Muon+", with_options(normalize_after="outputs")),
    "muon_eq": part("MuonEq", with_options(normalize_before="outputs")),
    "mud": part("MUD", mud),
    "muown": part("Muown", muown),
    "ema_nesterov": part(
        "Muon, EMA-Nesterov", ema_nesterov, average=SLOW, ahead=Grid((0.1, 0.3, 0.5), 0.3)
    ),
    "tail_ema": part("Muon, tail average", tail_ema, end=END, horizon=HORIZON, blend=BLEND),
    "anchor_gradient": part(
        "Muon, anchor gradient",
        anchor_gradient,
        end=END,
        horizon=HORIZON,
        gain=Grid((0.2, 0.45, 0.8), 0.45),
        blend=BLEND,
    ),
    "gpa": part("Muon, GPA", gpa, average=Grid((0.9, 0.95, 0.974, 0.9869), 0.95)),
    "snoo": part(
        "Muon, Snoo",
        snoo,
        outer_rate=Grid((0.5, 0.68, 0.85, 1.0), 0.68),
        outer_momentum=Grid((0.2, 0.37, 0.6), 0.37),
    ),
    "recipe": part("recipe: a rate for the head", recipe, head=HEAD),
}


def missing(method: Method) -> str | None:
    """The name or argument that gradtx lacks for a row; None where the row can run."""
    numbers = {**STARTS, **{name: grid.start for name, grid in method.grids.items()}}
    try:
        method.build(numbers, 100)
    except (AttributeError, TypeError) as error:
        return str(error)
    return None
