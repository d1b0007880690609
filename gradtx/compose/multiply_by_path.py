r"""`multiply_by_path`: a factor for the updates of each parameter, by its path.

u ← f(path) u
"""

import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradtx.compose.multipliers import GROUP_FUNCTION, Along, Multiple, Multiplier
from gradtx.compose.transformation import definition
from gradtx.definition.errors import HyperparamError, SelectionError, StructureError
from gradtx.definition.leaves import known_number
from gradtx.definition.schedule import Schedule, function_schedule
from gradtx.definition.show import show, show_array
from gradtx.engine.factor_rule import Factor, factor_rule
from gradtx.engine.program import BoundRule
from gradtx.engine.selector import Leaves, matches_by_text, nearest

OWNER = "multiply_by_path"


@definition
def multiply_by_path(
    factors: Mapping[str, Multiple | Multiplier], otherwise: Multiple = 1.0
) -> BoundRule:
    r"""Layer-wise learning rates: multiply updates by a factor for each path: u ← f(path) u.

    For layer-wise decay, LoRA+ ratios, and muP multipliers. It keeps no state. Patterns are tried
    in order, and the first one that matches a path wins; for a product, chain two.

    Where it is in a chain decides what it scales. Behind an optimizer, `chain(adamw(...),
    multiply_by_path(...))`, it scales the whole step, weight decay included, as a learning rate per
    parameter does in timm and torch. Behind the rule alone, `descend(chain(scale_by_adam(),
    multiply_by_path(...)), rate, weight_decay)`, it scales the direction, and every parameter
    decays by the same rate. In front of Adam it has no effect, because Adam divides by the size of
    the gradient.

    When: one optimizer with several learning rates. When not: groups need other methods or
    schedules; take `partition`. Layer-wise decay by the names of layers: take `layerwise_decay`.

    Args:
      factors: pattern -> factor. A pattern is a regular expression, searched for in paths like
        `blocks/3/kernel`. A factor is a finite number ≥ 0; an array that broadcasts against the
        parameter's shape; a `Schedule`; `along(values)` for stacked layers; or a function of the
        groups of the match, as texts, that returns one of these. `layer_decay` is such a function
        as data. `to_config` refuses other functions, because JSON cannot hold them.
      otherwise: the factor of the other parameters; 1.

    Raises:
      HyperparamError: a factor that is negative or not finite; a function that returns none.
      SelectionError: a pattern that matches no leaf, or only leaves that earlier ones claim.
      StructureError: an array that does not fit its parameter.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"blocks": [jnp.ones(1)] * 2, "lora_b": jnp.ones(1), "head": jnp.ones(1)}
    >>> factors = {r"blocks/(\d+)": lambda i: 0.5 ** (2 - int(i)), r"lora_b$": 16.0}
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.multiply_by_path(factors))
    >>> print(gradtx.coverage(tx, params))
    blocks/0  sgd × 0.25
    blocks/1  sgd × 0.5
    head      sgd
    lora_b    sgd × 16

    See also: `layer_decay`, `along`, `layerwise_decay`, `partition`.

    Howard and Ruder 2018, arXiv 1801.06146, section 3.2; Hayou et al. 2024, arXiv 2402.12354,
    section 4."""
    if not isinstance(factors, Mapping) or not factors:
        raise SelectionError(
            f"{OWNER}: factors = {show(factors)} names no pattern: write {{r'lora_b$': 16.0}}"
        )
    known = _Ordered({one: _known_factor(one, factor) for one, factor in factors.items()})
    values = {"factors": known, "other": otherwise}
    rule, hyperparams = factor_rule(OWNER, _by_path, values)
    return BoundRule((), rule, hyperparams)


def _known_factor(pattern: str, factor: Any) -> Any:
    """A factor; a function of a pattern without groups is a schedule, as it is elsewhere."""
    matches_by_text(pattern, ())  # raises where it is no regular expression
    if not isinstance(factor, Multiplier) or factor.factory is not GROUP_FUNCTION:
        return factor
    groups, function = re.compile(pattern).groups, factor.arguments["function"]
    if not groups:
        return function_schedule(function)
    try:
        inspect.signature(function).bind(*range(groups))
    except TypeError as error:
        raise HyperparamError(
            f"{OWNER}: the function of {pattern!r} does not take the {groups} groups of the "
            f"pattern ({error}): write one argument per group (...)"
        ) from None
    return factor


@jax.tree_util.register_pytree_with_keys_class
class _Ordered(dict[str, Any]):
    """A dict as a tree in its own order, since the first match wins."""

    def tree_flatten_with_keys(self) -> tuple[list[Any], tuple[str, ...]]:
        """The values with their patterns, and the patterns."""
        return [(jax.tree_util.DictKey(key), one) for key, one in self.items()], tuple(self)

    @classmethod
    def tree_unflatten(cls, keys: tuple[str, ...], values: Sequence[Any]) -> "_Ordered":
        """Put other values behind the patterns."""
        return cls(zip(keys, values, strict=True))


def _by_path(values: Mapping[str, Any], leaves: Leaves, active: Sequence[bool]) -> list[Factor]:
    """The factor of every leaf, by the first pattern that matches its path."""
    factors, winners = values["factors"], _winners(tuple(values["factors"]), leaves.paths)
    found: list[Factor] = []
    for path, value, winner, is_active in zip(
        leaves.paths, leaves.values, winners, active, strict=True
    ):
        if winner is None or not is_active:
            found.append(_checked(values["other"], "otherwise", path, value))
            continue
        pattern, groups = winner
        factor = _factor(factors[pattern], pattern, groups, path)
        found.append(_checked(factor, pattern, path, value))
    return found


@functools.lru_cache(maxsize=256)
def _winners(
    patterns: tuple[str, ...], paths: tuple[str, ...]
) -> tuple[tuple[str, tuple[str, ...]] | None, ...]:
    """For every path the first pattern that matches it, with the groups of the match."""
    matches = {one: matches_by_text(one, paths) for one in patterns}
    firsts = [next((one for one in patterns if matches[one][n]), None) for n in range(len(paths))]
    for pattern in patterns if paths else ():
        if not any(matches[pattern]):
            raise SelectionError(
                f"{OWNER}: {pattern!r} matches none of the {len(paths)} leaves; "
                f"{nearest(pattern, paths)}"
            )
        if pattern not in firsts:
            raise SelectionError(
                f"{OWNER}: {pattern!r} claims nothing: earlier patterns claim every leaf that it "
                f"matches; the first match wins, so move it up"
            )
    pairs = zip(firsts, paths, strict=True)
    return tuple(None if one is None else (one, _groups(one, path)) for one, path in pairs)


def _groups(pattern: str, path: str) -> tuple[str, ...]:
    match = re.search(pattern, path)
    return () if match is None else match.groups(default="")


def _factor(factor: Any, pattern: str, groups: tuple[str, ...], path: str) -> Any:
    """The factor of one path; functions receive the groups of the match."""
    if not isinstance(factor, Multiplier):
        return factor
    try:
        return factor(*groups)
    except Exception as error:
        error.add_note(f"raised in the factor of {pattern!r}, at {path!r}")
        raise


def _checked(factor: Any, pattern: str, path: str, value: Any) -> Factor:
    """A factor that fits its leaf; an error where it is none."""
    where = f"{OWNER}: the factor of {path!r}, by {pattern!r}, is {show(factor)}"
    if isinstance(factor, Along):
        return _along(factor, where, value)
    if isinstance(factor, Factor):
        return factor
    if isinstance(factor, Schedule):
        return Factor(factor)
    is_number = isinstance(factor, int | float | np.ndarray | np.generic | jax.Array)
    if not is_number or isinstance(factor, bool):
        raise HyperparamError(
            f"{where}, which is not a number: return a number, an array, a schedule or along(...)"
        )
    check_range(factor, where)
    if not _fits(np.shape(factor), tuple(np.shape(value))):
        raise StructureError(f"{where}, which does not broadcast to {show_array(value)}")
    return Factor(factor)


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether an array of a shape broadcasts against another and leaves it as it is."""
    pairs = zip(reversed(shape), reversed(whole), strict=False)
    return len(shape) <= len(whole) and all(one in (1, size) for one, size in pairs)


def _along(factor: Along, where: str, value: Any) -> Factor:
    """Factors along an axis that the leaf has."""
    check_range(factor.values, where)
    shape, (length, *rest) = tuple(np.shape(value)), (*np.shape(factor.values), 0)
    is_axis = -len(shape) <= factor.axis < len(shape)
    if not is_axis or rest != [0] or shape[factor.axis] != length:
        raise StructureError(
            f"{where}, which does not fit {show_array(value)}: give one factor for each layer, and "
            f"the axis that counts layers"
        )
    return Factor(factor.values, factor.axis % len(shape))


def check_range(factor: Any, where: str) -> None:
    """Raise where a known factor is negative or not finite."""
    if isinstance(factor, Tracer):
        return
    array = np.asarray(known_number(factor))
    if not (np.isfinite(array) & (array >= 0)).all():
        raise HyperparamError(f"{where}: give finite numbers ≥ 0")
