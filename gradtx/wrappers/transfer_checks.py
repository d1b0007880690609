"""The checks of the arguments of `transfer`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import HyperparamError
from gradtx.engine.program import BoundRule
from gradtx.transforms.tree_growth import KINDS

RULES, HEADS = ("mup", "sgd", "spectral", "hyperball"), ("rate", "forward")

SIZES = (0.05, 0.5)
"""Gradients below usual thresholds of clipping, and so large that neither ε nor Adagrad's first
sum, 0.1, makes an update proportional.
"""
PROPORTIONAL = 0.9
"""The power of the gradient from which on an update counts as proportional to it."""


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
    if rule in ("mup", "sgd"):
        polar = [one for one in matrix if "scaling" in options_of(one)]
        if polar:
            raise HyperparamError(
                f"transfer: rule = {rule!r} is for rules on entries, and {polar[0].rule.name} "
                f"orthogonalizes matrices: pass rule='spectral'"
            )
    elif not matrix:
        fit = "muon(...)" if rule == "spectral" else "hyperball(...)"
        raise HyperparamError(
            f"transfer: rule = {rule!r} is for rules on matrices as {fit}, and {inner.name} has "
            f"none: pass rule='mup'"
        )


def check_degree(rule: str, inner: GradientTransformation, base: Any) -> None:
    """Raise where updates grow with gradients and the rule's table is for those that do not, or the
    other way round.
    """
    degree = degree_of(inner, base) if rule in ("mup", "sgd") else None
    if degree is None:
        return
    if rule == "mup" and degree > PROPORTIONAL:
        raise HyperparamError(
            f"transfer: rule = 'mup' is for updates of one size, as Adam's, and those of "
            f"{inner.name} are proportional to gradients: pass rule='sgd'"
        )
    if rule == "sgd" and degree < 1 - PROPORTIONAL:
        raise HyperparamError(
            f"transfer: rule = 'sgd' is for updates that are proportional to gradients, and those "
            f"of {inner.name} do not grow with them: pass rule='mup'"
        )


def degree_of(inner: GradientTransformation, base: Any) -> float | None:
    """The power of the gradient that updates grow with: 1 for SGD, 0 for Adam.

    None: unknown, because a hyperparameter is traced, or because the optimizer needs more than
    gradients and parameters.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(inner)):
        return None
    axes = {"w": 2} if isinstance(base, int) else {path: len(base[path]) for path in base}
    params = {path: np.full((2,) * count, 0.01, np.float32) for path, count in axes.items()}
    try:
        cpu = jax.local_devices(backend="cpu")[0]  # an accelerator would compile for seconds
        with jax.default_device(cpu), jax.ensure_compile_time_eval():
            sizes = [_second_update(inner, params, size) for size in SIZES]
    except Exception:  # an optimizer that cannot run here says why where it runs
        return None
    growth = math.log10(SIZES[1] / SIZES[0])
    return math.log10(sizes[1] / sizes[0]) / growth if all(sizes) else None


def _second_update(inner: GradientTransformation, params: Mapping[str, Any], size: float) -> float:
    """The largest entry of a second update, where one entry of a matrix has a gradient.

    The first may be zero: a warmup begins so.
    """
    grads = jax.tree.map(np.zeros_like, params)
    max(grads.values(), key=np.ndim).flat[0] = size
    _, state = inner.update(grads, inner.init(params), params)
    updates, _ = inner.update(grads, state, params)
    return max(float(abs(np.asarray(one)).max(initial=0.0)) for one in jax.tree.leaves(updates))
