"""Another library's pair of functions: how they are called, and the name of the pair."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Params, Updates
from gradtx.engine.tree_rule import TreeRule

_PLACED, _EITHER = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


def call_pair(
    update: Callable[..., Any],
    updates: Updates,
    state: Any,
    params: Params | None,
    extra: Mapping[str, Any],
) -> tuple[Any, Any]:
    """The update of a plain pair, with the arguments that it takes."""
    kinds = [parameter.kind for parameter in _parameters(update).values()]
    places = sum(kind in (_PLACED, _EITHER) for kind in kinds)
    takes_params = places > 2 or inspect.Parameter.VAR_POSITIONAL in kinds
    args = (updates, state, params) if takes_params else (updates, state)
    return update(*args, **accepted(update, extra))


def accepted(function: Callable[..., Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The extra arguments that a plain update function takes."""
    parameters = _parameters(function)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(extra)
    return {name: value for name, value in extra.items() if name in parameters}


@functools.lru_cache(maxsize=256)
def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def pair_name(init: Callable[..., Any]) -> str:
    """The builder of a plain pair, by where its `init` is: `optax.scale_by_adam`."""
    return getattr(init, "__qualname__", "transformation").split(".")[0]


class PlainRule(TreeRule):
    """Another library's pair of functions, whose slots have no names."""

    def with_storage(self, storage: Any, member: Callable[..., Any]) -> "PlainRule":
        raise GradtxError(
            f"stored: {self.name} is another library's, whose slots have no names; use gradtx's "
            f"own, or put it outside of stored"
        )

    def with_multipliers(self, multipliers: Any, member: Callable[..., Any]) -> "PlainRule":
        raise GradtxError(
            f"{multipliers.owner}: {self.name} is another library's, whose hyperparameters have no "
            f"names; use gradtx's own, or put it outside of {multipliers.owner}"
        )

    def with_stack(self, stack: Any, member: Callable[..., Any]) -> "PlainRule":
        raise GradtxError(
            f"stacked: {self.name} is another library's, whose rules see whole arrays; use "
            f"gradtx's own, or put it outside of stacked"
        )
