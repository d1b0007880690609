"""Optax's names for features that have another form here: named chains, extra arguments."""

from typing import NamedTuple

from gradtx.compose.chain import chain
from gradtx.compose.select import partition
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Params, State


def named_chain(*args: tuple[str, TransformationLike]) -> GradientTransformation:
    """Optax's form of `chain(first=..., second=...)`: pairs of a name and a transformation.

    Args:
      *args: (name, transformation), in the order in which they act.

    Raises:
      GradtxError: an argument is not such a pair, or two have one name.

    >>> import gradtx
    >>> gradtx.named_chain(("clip", gradtx.clip(1.0)), ("down", gradtx.scale(-0.1)))
    chain(clip=clip(max_delta=1.0), down=scale(step_size=-0.1))
    """
    members: dict[str, TransformationLike] = {}
    for number, pair in enumerate(args):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise GradtxError(
                f"named_chain: argument {number} is {pair!r}; "
                "give pairs of a name and a transformation: ('clip', clip(1.0))"
            )
        if pair[0] in members:
            raise GradtxError(
                f"named_chain: two members are named {pair[0]!r}; "
                "give every member a name of its own"
            )
        members[pair[0]] = pair[1]
    return chain(**members)


multi_transform = partition
"""Optax's older name for `partition`."""


class _StoresNothing(type):
    """The metaclass by which a `State` without slots is an instance of `EmptyState`."""

    def __instancecheck__(cls, instance: object) -> bool:
        is_empty = isinstance(instance, State) and not instance.slots
        return is_empty or type.__instancecheck__(cls, instance)


class _Empty(NamedTuple):
    """A state of nothing."""


class EmptyState(_Empty, metaclass=_StoresNothing):
    """The empty state of a plain `(init, update)` pair.

    A state of gradtx that stores nothing is an instance, too.

    >>> import gradtx
    >>> isinstance(gradtx.scale(0.1).init(1.0), gradtx.EmptyState)
    True
    """

    __slots__ = ()


def init_empty_state(params: Params) -> EmptyState:
    """An `init` for a plain pair without state; a rule of gradtx has `init=None` instead.

    >>> import gradtx, jax
    >>> def double(updates, state, params=None):
    ...     return jax.tree.map(lambda u: 2 * u, updates), state
    >>> tx = gradtx.GradientTransformation(gradtx.init_empty_state, double)
    >>> tx.update(3.0, tx.init(3.0))
    (6.0, EmptyState())
    """
    return EmptyState()


def with_extra_args_support(tx: TransformationLike) -> GradientTransformation:
    """Add support for extra arguments to a transformation.

    The result passes on to `tx` those that `tx` accepts, as every transformation of gradtx does.

    Args:
      tx: a transformation, of gradtx, of Optax, or a plain pair.

    Raises:
      GradtxError: it has no `init` and `update`.

    >>> import gradtx
    >>> tx = gradtx.with_extra_args_support(gradtx.sgd(0.5))
    >>> float(tx.update(4.0, tx.init(1.0), value=9.0)[0])
    -2.0
    """
    return as_transformation(tx)
