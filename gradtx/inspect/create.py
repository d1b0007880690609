"""Optimizers by name, for configuration files: `create` and `list_optimizers`."""

import fnmatch
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import gradtx
from gradtx._lazy import exports
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import ConfigError
from gradtx.definition.spelling import SPELLINGS, plain_name, suggest

ALIASES = ("lr", "betas", "beta1", "beta2", "epsilon", "wd")
"""The spellings of other libraries that mean one thing in every optimizer."""


@functools.cache
def _optimizers() -> dict[str, str]:
    """The public optimizers, each in a module of its name, by their names without separators."""
    homes = exports("gradtx").items()
    names = [name for name, (home, _) in homes if home == f"gradtx.optimizers.{name}"]
    return {plain_name(name): name for name in sorted(names)}


def list_optimizers(pattern: str = "*") -> list[str]:
    """List the names of the optimizers that match a pattern, sorted.

    Args:
      pattern: a shell pattern, as for file names: `*` any text, `?` one character, `[ab]` one of
        these. Case does not matter.

    Returns:
      The names, for `create` or as attributes of `gradtx`.

    >>> list_optimizers("adamw*"), list_optimizers("*lion*")
    (['adamw'], ['lion'])

    See also: `create`.
    """
    return [name for name in _optimizers().values() if fnmatch.fnmatchcase(name, pattern.lower())]


def create(name: str, **arguments: Any) -> GradientTransformation:
    """Create an optimizer by its name, as configuration files spell it.

    `create("adamw", learning_rate=1e-3)` is `gradtx.adamw(learning_rate=1e-3)`. Case, `_`, `-` and
    spaces do not matter in the name: "AdamW" and "adam_w" are `adamw`. PyTorch's spellings of
    arguments are accepted where the optimizer has the argument that they mean: `lr`
    (`learning_rate`), `betas` (`b1` and `b2`), `beta1`, `beta2`, `epsilon` (`eps`) and `wd`
    (`weight_decay`).

    `weight_decay` is decoupled wherever an optimizer has it, also in `adam`; PyTorch's `Adam` adds
    an L2 penalty to the gradient, which is `decay_form="l2"` here. In an optimizer without it, as
    `sgd`, either may be meant, so a `weight_decay` other than 0 is an error.

    When: the optimizer's name comes from a file or a command line. When not: in code, where an
    editor completes `gradtx.adamw`; for a whole chain or a schedule in a file, take `to_config` and
    `from_config`.

    Args:
      name: the optimizer; `list_optimizers()` lists all.
      **arguments: those of the optimizer, as JSON, TOML or YAML hold them.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an unknown name, with the nearest one; an argument under two spellings; a
        `weight_decay` without one meaning.
      TypeError: an argument that the optimizer does not have.
      HyperparamError: a number out of its range.

    >>> import gradtx, json
    >>> config = json.loads('{"optimizer": {"name": "AdamW", "lr": 1e-3, "betas": [0.9, 0.95]}}')
    >>> gradtx.create(**config["optimizer"])
    adamw(learning_rate=0.001, b2=0.95)

    See also: `list_optimizers`, `from_config`.
    """
    known = _optimizers()
    own = known.get(plain_name(name)) if isinstance(name, str) else None
    if own is None:
        hint = suggest(name, list(known.values())) if isinstance(name, str) else ""
        raise ConfigError(
            f"create: {name!r} is not an optimizer{hint or ':'} gradtx.list_optimizers() lists all"
        )
    builder = getattr(gradtx, own)
    parameters = list(builder.factory.signature.parameters)
    return builder(**_renamed(own, arguments, parameters))


def _renamed(name: str, arguments: Mapping[str, Any], parameters: Sequence[str]) -> dict[str, Any]:
    """The arguments under the names that the optimizer has."""
    result: dict[str, Any] = {}
    for spelling, value in arguments.items():
        for own, one in _values(name, spelling, value, parameters).items():
            if own in result or (own != spelling and own in arguments):
                raise ConfigError(f"create: {spelling!r} and {own!r} are one argument: pass one")
            result[own] = one
    if "weight_decay" in result and "weight_decay" not in parameters:
        _check_decay(name, result.pop("weight_decay"))
    return result


def _values(name: str, spelling: str, value: Any, parameters: Sequence[str]) -> dict[str, Any]:
    """An argument by its own names; one of an unknown spelling as it is."""
    names = SPELLINGS.get(spelling, ()) if spelling in ALIASES else ()
    is_known = all(one in parameters or one == "weight_decay" for one in names)
    if spelling in parameters or not names or not is_known:
        return {spelling: value}
    if len(names) == 1:
        return {names[0]: value}
    is_sequence = isinstance(value, list | tuple)
    if not is_sequence or len(value) != len(names):
        raise ConfigError(
            f"create: {spelling} = {value!r} of {name} must be {len(names)} numbers: "
            f"[{', '.join(names)}]"
        )
    return dict(zip(names, value, strict=True))


def _check_decay(name: str, value: Any) -> None:
    if value is not None and value != 0:
        raise ConfigError(
            f"create: {name} has no weight_decay, so {value!r} may mean two things: for an L2 "
            f"penalty write gradtx.chain(gradtx.add_decayed_weights({value!r}), "
            f"gradtx.{name}(...)); for decoupled decay choose an optimizer that has it, 'adamw' "
            "for example"
        )
