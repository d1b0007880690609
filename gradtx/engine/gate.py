"""The gate of a step: where it is closed, slots stay as they were, in the kernel that writes them.

To choose between new and old slots behind a rule would make XLA:CPU copy them: an update that
follows from a new slot, beside a chosen slot in the place of the old one, needs both at once. So a
slot is chosen inside the rule, and the update follows from the chosen one. Where the gate is closed
the update means nothing, and nobody uses it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.definition.types import Slots
from gradtx.tree.jaxprs import settle_slots


def gated_update(
    gate: jax.Array | None, update: Callable[..., Any], grad: Any, slots: Slots, *args: Any
) -> tuple[Any, Any]:
    """Run `update(grad, slots, *args)`, its new slots chosen by the gate; None: it is open."""
    if gate is None or slots is None:
        return update(grad, slots, *args)
    return settle_slots(update, functools.partial(_choose_slots, gate, slots), grad, slots, *args)


def _choose_slots(gate: jax.Array, old: Any, new: Any) -> tuple[Any, Any]:
    chosen = type(old)(
        *(
            None if slot is None else _choose(gate, slot, was)
            for slot, was in zip(new, old, strict=True)
        )
    )
    return chosen, chosen


def _choose(gate: jax.Array, slot: jax.Array, was: jax.Array) -> jax.Array:
    return jnp.where(gate, slot, was.astype(jnp.result_type(slot)))
