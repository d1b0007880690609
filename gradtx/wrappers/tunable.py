"""`tunable`: hyperparameters in the state, where a loop may change them."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.held import check_held
from gradtx.definition.schedule import Schedule
from gradtx.definition.types import Array, Params, Updates
from gradtx.training.hyperparams import (
    clocks_in_state,
    count_at,
    find,
    hyperparams_named,
    leaves_by_address,
    replace,
    short_names,
)
from gradtx.tree.maps import choose


def _init(
    params: Params, *, inner: GradientTransformation, names: tuple[str, ...]
) -> dict[str, Any]:
    values = hyperparams_named(inner, names, 0)
    return {name: _as_state(value) for name, value in values.items()}


def _tune(
    updates: Updates,
    own: Mapping[str, Any],
    params: Params,
    step: Any,
    *,
    inner: Member,
    names: tuple[str, ...],
    gate: Any,
) -> tuple[Any, Member, dict[str, Any]]:
    """Run the member with the values of the state; schedules go on."""
    for name, one in own.items():
        _check_entry(inner, names, name, one)
    held = {name: _as_state(one) if name in names else one for name, one in own.items()}
    if missing := sorted(set(names) - set(held)):
        raise HyperparamError(
            f"state.hyperparams lacks {', '.join(missing)}, and holds "
            f"{', '.join(sorted(held)) or 'nothing'}: write it back, or call tx.init(params) again"
        )
    scheduled = _scheduled(inner, names)
    values = {**held, **{name: _as_state(value) for name, value in scheduled.items()}}
    tuned = inner._replace(tx=replace(inner.tx, **{name: values[name] for name in names}))
    updates, after = tuned.update(updates, params)
    return updates, after._replace(tx=inner.tx), choose(gate, values, held)


def _check_entry(inner: Member, names: Sequence[str], name: str, value: Any) -> None:
    """Raise where an entry of the state is not a number, or would not act as it seems to."""
    known = leaves_by_address(inner.tx, Schedule)
    if name not in names:
        if name in short_names(known):
            raise HyperparamError(
                f"state.hyperparams has {name!r}, which the state does not hold for {inner.tx.name}"
                f": write tunable(tx, {', '.join(map(repr, (*names, name)))})"
            )
        return
    check_held(name, value)
    expected = hyperparams_named(inner.tx, [name], None)[name]
    if not isinstance(expected, Schedule) and jnp.shape(value) != jnp.shape(expected):
        raise HyperparamError(
            f"state.hyperparams[{name!r}] has shape {jnp.shape(value)}, and the definition "
            f"{jnp.shape(expected)}: write one number; for a batch of them map a batch of states "
            f"with jax.vmap"
        )


def _scheduled(inner: Member, names: Sequence[str]) -> dict[str, Any]:
    """The values of those hyperparameters that are schedules, each at its own member's count."""
    values = hyperparams_named(inner.tx, names, None)
    schedules = {name: one for name, one in values.items() if isinstance(one, Schedule)}
    clocks = clocks_in_state(inner.tx, inner.slots, inner.count) if schedules else []
    return {
        name: one(count_at(find(inner.tx, name), clocks, inner.count))
        for name, one in schedules.items()
    }


def _evaluate(
    params: Params, own: Mapping[str, Any], *, inner: Member, names: tuple[str, ...]
) -> Any:
    values = hyperparams_named(inner.tx, names, None)
    numbers = {name: own[name] for name, one in values.items() if not isinstance(one, Schedule)}
    return inner._replace(tx=replace(inner.tx, **numbers)).evaluate(params)


def _overrides(own: Mapping[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: own[name] for name in names}


def _as_state(value: Any) -> Array:
    """A value that may live in a state: a strongly typed array, float32 (float64 in x64 mode)
    unless typed before.
    """
    if (
        isinstance(value, jax.Array | np.ndarray)
        and not jnp.issubdtype(value.dtype, jnp.inexact)
        and value.dtype != bool
    ):
        return jnp.asarray(value)  # a random key, or integers that were given as an array
    array = jnp.asarray(value)
    return jnp.array(
        array, dtype=jnp.result_type(float) if array.weak_type else array.dtype, copy=True
    )


@definition
def tunable(inner: GradientTransformation, *names: str) -> GradientTransformation:
    """`inner` with chosen hyperparameters kept in the state.

    When: a framework freezes the definition, or numbers are to be saved with the state. When not:
    you may pass the definition to `jit` as an argument; take `replace`.

    `state.hyperparams["learning_rate"]` is then read at every update and may be changed between
    updates, inside jit as well. Its dtype is float32 (an array keeps its own), whatever the dtype
    of the parameters; a Python number that you write there gets this dtype, so that nothing
    compiles again. A hyperparameter that is a schedule goes on following it; the state shows its
    value at the last update.

    Args:
      inner: the transformation.
      *names: names as `hyperparams` gives them; none at all: every hyperparameter.

    Raises:
      HyperparamError: a name that is unknown or ambiguous; a misspelt name, or a value that is not
        a number, written into `state.hyperparams`.

    State: 4 bytes per name, and that of `inner`.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([1.0])
    >>> tx = tunable(gradtx.sgd(0.1), "learning_rate")
    >>> state = tx.init(w)
    >>> state.hyperparams["learning_rate"] = 0.5
    >>> tx.update(w, state)[0].tolist()
    [-0.5]
    """
    chosen = names or tuple(short_names(leaves_by_address(inner, Schedule)))
    return tune(inner, chosen)


def tune(
    inner: TransformationLike, names: tuple[str, ...], *, leads: bool | None = None
) -> GradientTransformation:
    """The rule of `tunable`; `leads` as for `wrapwise`."""
    member = as_transformation(inner)
    for name in names:
        find(member, name)
    return wrapwise(
        member,
        _init,
        _tune,
        evaluate=_evaluate,
        overrides=_overrides,
        slot="hyperparams",
        slot_fields=names,
        leads=leads,
        names=names,
    )
