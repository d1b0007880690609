"""A gradtx transformation as an Optax one, for libraries that test the type."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax

from gradtx.compose.transformation import GradientTransformation, TransformationLike
from gradtx.definition.errors import MissingExtraError
from gradtx.definition.types import Params, State, Updates

if TYPE_CHECKING:  # at run time only a call of `to_optax` imports Optax
    import optax


def to_optax(tx: TransformationLike) -> "optax.GradientTransformationExtraArgs":
    """Convert a transformation to a true `optax.GradientTransformationExtraArgs`.

    The pair (init, update) stays the same: `init(params)` returns a gradtx state, and
    `update(updates, state, params, **extra)` passes every extra argument on.

    When: a library tests `isinstance(tx, optax.GradientTransformation)`, as NumPyro, GPJax,
    FermiNet, DeepQMC and Praxis do, or an `optax.chain` must pass extra arguments (`value=`, ...)
    to a member. When not: a library that only calls `init` and `update` takes `tx` as it is. The
    other direction needs no function: `gradtx.chain` takes Optax's transformations as members.

    The result compares and hashes by the definition, and pickles. As a pytree it has two leaves,
    both functions, as in Optax. So its numbers are constants of a compiled program. Pass `tx`
    itself to `jit`, `vmap` or `grad` where they are data.

    Args:
      tx: a transformation of gradtx, or any object with `init` and `update`.

    Returns:
      An `optax.GradientTransformationExtraArgs`. `to_optax(tx).update.definition` is `tx`.

    Raises:
      MissingExtraError: Optax is not installed.
      GradtxError: `tx` has no `init` and `update`.

    >>> import gradtx, optax
    >>> from gradtx import to_optax
    >>> tx = to_optax(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3)))
    >>> isinstance(tx, optax.GradientTransformationExtraArgs)
    True
    >>> tx.update
    OptaxUpdate(chain(clip_by_global_norm(max_norm=1.0), adam(learning_rate=0.001)))
    >>> to_optax(gradtx.adam(1e-3)) == to_optax(gradtx.adam(1e-3)) != to_optax(gradtx.adam(1e-2))
    True

    Source: the interface of Optax, `optax.GradientTransformationExtraArgs`.
    """
    try:
        import optax
    except ImportError:
        raise MissingExtraError("to_optax needs optax: install it with pip install optax") from None
    definition = _definition_of(tx)
    return optax.GradientTransformationExtraArgs(OptaxInit(definition), OptaxUpdate(definition))


def _definition_of(tx: TransformationLike) -> GradientTransformation:
    """The definition itself, also of one that is converted already."""
    if isinstance(tx, GradientTransformation):
        return tx
    if isinstance(update := getattr(tx, "update", None), OptaxUpdate):
        return update.definition
    return GradientTransformation.coerce(tx, "to_optax: tx")


@dataclasses.dataclass(frozen=True, repr=False)
class _Method:
    """A function of a definition; a bound method would compare by identity, and a closure would
    not pickle.
    """

    definition: GradientTransformation

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.definition!r})"

    def __hash__(self) -> int:
        # Arrays and tracers have no hash; equality compares them.
        return hash((type(self), jax.tree.structure(self.definition)))


class OptaxInit(_Method):
    """`init` of a definition."""

    def __call__(self, params: Params) -> State:
        return self.definition.init(params)


class OptaxUpdate(_Method):
    """`update` of a definition, extra arguments included."""

    def __call__(
        self, updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, State]:
        return self.definition.update(updates, state, params, **extra)
