r"""Weight decay after a step, on the parameters that it leads to.

v = the step that `inner` makes of u
θ ← (θ + v) (1 − η λ φ)         φ = 1, or [u θ < 0] of before the step
"""

from typing import Any, Literal

import jax

from gradtx.compose.descend import shrinks
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.types import Hyperparam, NonNegative
from gradtx.tree.maps import map_leaves

AfterForm = Literal["decoupled", "cautious", "strict_cautious"]


def _decay_after(
    updates: Any,
    own: None,
    params: Any,
    step: Any,
    *,
    inner: Member,
    learning_rate: jax.Array,
    weight_decay: jax.Array,
    decay_form: AfterForm,
) -> Any:
    moved, inner = inner.update(updates, params)
    shrink = {
        "decoupled": _shrink,
        "cautious": _shrink_cautiously,
        "strict_cautious": _shrink_strictly,
    }[decay_form]
    decayed = map_leaves(shrink, moved, updates, params, rate=learning_rate * weight_decay)
    return decayed, inner, own


def _shrink(moved: jax.Array, update: jax.Array, param: jax.Array, *, rate: jax.Array) -> jax.Array:
    return moved - rate * (param + moved)


def _shrink_cautiously(
    moved: jax.Array, update: jax.Array, param: jax.Array, *, rate: jax.Array
) -> jax.Array:
    # The step is −η u: u as in `descend` has the other sign.
    return moved - rate * shrinks("cautious", -update, param) * (param + moved)


def _shrink_strictly(
    moved: jax.Array, update: jax.Array, param: jax.Array, *, rate: jax.Array
) -> jax.Array:
    return moved - rate * shrinks("strict_cautious", -update, param) * (param + moved)


@definition
def decay_after(
    inner: TransformationLike,
    learning_rate: Hyperparam,
    weight_decay: NonNegative,
    decay_form: AfterForm = "cautious",
) -> GradientTransformation:
    r"""Weight decay after a step: θ ← (θ + v)(1 − η λ φ), v the step that `inner` makes of u.

    The mask φ compares u, the step in front of `inner`, with the θ of before: it is 1 where the
    step shrinks the entry, u θ < 0. All arrays have one shape.

    When: last in a chain, behind the learning rate, where `inner` sets a norm (`retract`): a decay
    in front of it would be undone. When not: nothing sets a norm; take `decay_form` of the
    optimizer, as `descend` explains it.

    Args:
      inner: makes the last step of u, such as `retract("first_order")`; `identity()` for none.
      learning_rate: η, the one of the step, schedule or number.
      weight_decay: λ ≥ 0 per unit of learning rate; 0.025.
      decay_form: φ. "decoupled": 1. "cautious": [u θ ≤ 0]. "strict_cautious": [u θ < 0].

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: that of `inner`.

    >>> import gradtx, jax.numpy as jnp
    >>> w, u = jnp.array([2.0, 2.0]), jnp.array([-1.0, 1.0])
    >>> tx = gradtx.decay_after(gradtx.identity(), 0.5, 0.5)
    >>> (w + tx.update(u, tx.init(w), w)[0]).tolist()  # the first entry shrinks already
    [0.75, 3.0]

    See also: `retract`, `descend`.

    KellerJordan/modded-nanogpt, track 3, record 46.
    """
    return wrapwise(inner, None, _decay_after, needs_params=True)
