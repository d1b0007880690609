"""The slots of a cut state: which are like a parameter, and what fills them up."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.definition.types import Slots
from gradtx.sharding.cuts import Cut
from gradtx.sharding.placing import put, put_alike
from gradtx.tree.host_memory import PINNED_HOST, fetch, is_on_host, put_back
from gradtx.tree.paths import flatten, leaf_paths

Plan = Sequence[Cut | None]


def store_slots(slots: Slots, plan: Plan, old: Slots = None) -> Any:
    """Slots as a state holds them: those of a parameter's shape cut and filled up.

    The others lie as they did in the `old` state; None: at `init`, as the rule made them.
    """
    values, treedef = flatten(slots)
    before = [None] * len(values) if old is None else treedef.flatten_up_to(old)
    rows = zip(values, before, _cuts_of(slots, treedef, plan), strict=True)
    return jax.tree.unflatten(treedef, [_store(*row) for row in rows])


def _store(value: Any, old: Any, cut: Cut | None) -> Any:
    if value is None:
        return None
    if cut is not None and jnp.shape(value) == cut.shape:
        if cut.padding is not None:
            return put_back(put(_fill(fetch(value), cut), cut.sharding), value)
        where = cut.sharding
        return put(value, where.with_memory_kind(PINNED_HOST) if is_on_host(value) else where)
    if old is None or not jnp.ndim(value) or jnp.shape(old) != jnp.shape(value):
        return value
    return put_alike(value, old) if isinstance(value, Tracer) else value


def _fill(value: Any, cut: Cut) -> Any:
    if isinstance(value, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(cut.stored_shape, value.dtype)
    return jnp.pad(value, cut.padding or ())


def restore_slots(slots: Slots, plan: Plan) -> Any:
    """Slots as the rules see them: in the shapes of the parameters."""
    values, treedef = flatten(slots)
    rows = zip(values, _cuts_of(slots, treedef, plan), strict=True)
    return jax.tree.unflatten(treedef, [_restore(*row) for row in rows])


def _restore(value: Any, cut: Cut | None) -> Any:
    if value is None or cut is None or cut.padding is None or jnp.shape(value) != cut.stored_shape:
        return value
    whole = fetch(value)[tuple(slice(size) for size in cut.shape)]
    # Parts are as large as before, so that nothing moves; the last one is smaller.
    placed = put(whole, cut.sharding) if isinstance(whole, Tracer) else whole
    return put_back(placed, value)


def _cuts_of(slots: Slots, treedef: Any, plan: Plan) -> list[Cut | None]:
    """For every slot the cut of the parameter that its path ends with."""
    cuts = {cut.path: cut for cut in plan if cut is not None}
    owners = _owners(leaf_paths(treedef, slots), tuple(cuts))
    return [None if owner is None else cuts[owner] for owner in owners]


@functools.lru_cache(maxsize=64)
def _owners(paths: tuple[str, ...], params: tuple[str, ...]) -> list[str | None]:
    known = frozenset(params)
    return [next((one for one in _endings(path) if one in known), None) for path in paths]


def _endings(path: str) -> list[str]:
    """The paths that a path ends with, the longest first; the last one is that of a root."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))] + [""]
