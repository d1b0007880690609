"""`chain`: transformations one after another."""

from gradtx.compose.binding import Branch, member_names
from gradtx.compose.transformation import TransformationLike, as_transformation, definition
from gradtx.definition.errors import GradtxError


@definition
def chain(*members: TransformationLike, **named: TransformationLike) -> list[Branch]:
    """Transformations one after another: each takes the updates of the one before.

    Members given by position are named by their factory (`scale_by_adam`, then `scale_by_adam_2`),
    members given by keyword by their keyword; under these names their slots stand in the state.
    Anything with `init` and `update` may be a member, an Optax transformation too. Neighbouring
    leaf rules run as one kernel per leaf, whoever wrote them.

    Args:
      *members: transformations, in the order in which they act.
      **named: more transformations, after those, under names of your choice.

    Raises:
      GradtxError: a member is no transformation, or a keyword repeats the name of a member.

    State: that of its members, 0 bytes of its own.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.trace(0.9), rate=gradtx.scale(-0.1))
    >>> tx
    chain(clip_by_global_norm(max_norm=1.0), trace(decay=0.9), rate=scale(step_size=-0.1))
    >>> sorted(tx.init({"w": jnp.zeros(2)}).slots)
    ['trace']
    """
    given = [as_transformation(member) for member in members]
    names = member_names(given)
    for name in named:
        if name in names:
            raise GradtxError(
                f"chain: the keyword {name!r} is already the name of a member given by position; choose another"
            )
    return [
        Branch(name, member)
        for name, member in zip(
            [*names, *named], [*given, *map(as_transformation, named.values())], strict=True
        )
    ]
