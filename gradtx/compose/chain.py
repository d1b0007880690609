"""`chain`: a sequence of transformations."""

from gradtx.compose.binding import Branch, member_names
from gradtx.compose.transformation import TransformationLike, as_transformation, definition
from gradtx.definition.errors import GradtxError


@definition
def chain(*members: TransformationLike, **named: TransformationLike) -> list[Branch]:
    """Chain transformations: each one receives the updates of the one before.

    A positional member has the name of its builder (`scale_by_adam`, then `scale_by_adam_2`). A
    keyword member has its keyword as name. The state stores the slots of a member under its name.
    Any object with `init` and `update` may be a member, an Optax transformation too. Neighbouring
    leaf rules run as one kernel per leaf, also where they come from different authors.

    Args:
      *members: transformations, in the order in which they act.
      **named: more transformations, after those, under names of your choice.

    Raises:
      GradtxError: a member is not a transformation, or a keyword repeats the name of a member.

    State: that of its members, 0 bytes of its own.

    >>> import gradtx, jax.numpy as jnp
    >>> clip, scale = gradtx.clip_by_global_norm(1.0), gradtx.scale(-0.1)
    >>> tx = gradtx.chain(clip, gradtx.trace(0.9), rate=scale)
    >>> tx
    chain(clip_by_global_norm(max_norm=1.0), trace(decay=0.9), rate=scale(step_size=-0.1))
    >>> sorted(tx.init({"w": jnp.zeros(2)}).slots)
    ['trace']
    """
    positional = [as_transformation(member) for member in members]
    names = member_names(positional)
    for name in named:
        if name in names:
            raise GradtxError(
                f"chain: the keyword {name!r} is already the name of a positional member; choose "
                f"another"
            )
    return [
        Branch(name, member)
        for name, member in zip(
            [*names, *named], [*positional, *map(as_transformation, named.values())], strict=True
        )
    ]
