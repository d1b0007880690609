"""The checks of the arguments of `transfer`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import HyperparamError
from gradtx.engine.program import BoundRule
from gradtx.transforms.tree_growth import KINDS

RULES, HEADS = ("mup", "spectral", "hyperball"), ("rate", "forward")


def are_shapes(base: Any) -> bool:
    """Whether a base is shapes by path already."""
    return isinstance(base, Mapping) and all(
        isinstance(path, str) and isinstance(shape, list | tuple) and _are_sizes(shape)
        for path, shape in base.items()
    )


def _are_sizes(shape: Sequence[Any]) -> bool:
    return all(isinstance(size, int) and not isinstance(size, bool) for size in shape)


def check_base(base: Any, width: int | None) -> None:
    if not isinstance(base, int):
        if width is not None:
            raise HyperparamError(
                f"transfer: width = {width!r} and base are shapes, which say the width already: "
                f"leave width out, or give the width of the base model as base"
            )
        return
    if width is None:
        raise HyperparamError(
            f"transfer: base = {base!r} is the width of the base model, and that of this model is "
            f"not known: give width=..., or the parameters of the base model as base"
        )
    _check_size("base", base, "the width of the model that was tuned")
    _check_size("width", width, "the width of this model")


def _check_size(name: str, value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise HyperparamError(
            f"transfer: {name} = {value!r} is not {what}: give a whole number above 0"
        )


def check_numbers(depth_ratio: float, alpha: float, decay_exponent: float) -> None:
    """Raise where a number of `transfer` is out of its range."""
    if not 0 < depth_ratio < math.inf:
        raise HyperparamError(
            f"transfer: depth_ratio = {depth_ratio!r} is not above 0: give the number of layers "
            f"over that of the base model"
        )
    if not 0 <= alpha <= 1:
        raise HyperparamError(
            f"transfer: alpha = {alpha!r} is outside its range [0, 1]: 1 is CompleteP, 0.5 "
            f"depth-muP, 0 muP without depth"
        )
    if not math.isfinite(decay_exponent):
        raise HyperparamError(
            f"transfer: decay_exponent = {decay_exponent!r} is not finite: give 0, so that η λ is "
            f"constant, or up to 1"
        )


def check_names(rule: str, head: str, roles: Any) -> None:
    for name, value, known in (("rule", rule, RULES), ("head", head, HEADS)):
        if value not in known:
            raise HyperparamError(
                f"transfer: {name} = {value!r} is unknown; choose one of "
                f"{', '.join(map(repr, known))}"
            )
    for pair in roles or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2 or pair[1] not in KINDS:
            raise HyperparamError(
                f"transfer: roles has {pair!r}: give pairs (pattern, kind), a kind being one of "
                f"{', '.join(map(repr, KINDS))}"
            )


def options_of(bound: BoundRule) -> Mapping[str, Any]:
    """The static options of a rule on matrices."""
    rule: Any = bound.rule
    return rule.options.values


def check_rule(rule: str, inner: GradientTransformation, rules: Sequence[BoundRule]) -> None:
    """Raise where the rule does not fit the optimizer."""
    matrix = [bound for bound in rules if hasattr(bound.rule, "matrices")]
    if not any("learning_rate" in bound.hyperparams for bound in rules):
        raise HyperparamError(
            f"transfer: {inner.name} has no learning rate to multiply: give the whole optimizer, "
            f"with scale_by_learning_rate(...) or a builder as adamw(...)"
        )
    if rule == "mup":
        polar = [one for one in matrix if "scaling" in options_of(one)]
        if polar:
            raise HyperparamError(
                f"transfer: rule = 'mup' is for rules as Adam, and {polar[0].rule.name} "
                f"orthogonalizes matrices: pass rule='spectral'"
            )
    elif not matrix:
        fit = "muon(...)" if rule == "spectral" else "hyperball(...)"
        raise HyperparamError(
            f"transfer: rule = {rule!r} is for rules on matrices as {fit}, and {inner.name} has "
            f"none: pass rule='mup'"
        )
