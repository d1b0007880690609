r"""AdamH: Adam's direction as a step of fixed angle for hidden matrices, on spheres.

θ ← R nrm(θ − η R nrm(u)),   u = m̂ / (√r̂ + ε),   R = ‖θ0‖,   nrm(x) = x / ‖x‖
"""

import dataclasses
from typing import Annotated, Literal, NamedTuple, Unpack

import numpy as np

from gradtx.compose.cautious import cautious_mask
from gradtx.compose.chain import chain
from gradtx.compose.select import partition
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Default, DTypeLike, Hyperparam, NonNegative, Params
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import PerLeaf, leaves_of
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.adamw import adamw
from gradtx.transforms.flags import HiddenFlags, RestFlags, RoleFlags, adam_arguments, select_flags
from gradtx.transforms.radius import RadiusForm
from gradtx.tree.names import HEAD, ROUTER
from gradtx.wrappers.by_role import by_role
from gradtx.wrappers.hyperball import SphereFlags, hyperball

Rest = Literal["adam", "adamh"]
ADAM_SHARE = 3 / 13
"""AdamW's rate over the angle of a sphere, as fitted by marin for AdamH and MuonH alike."""


class SphereRoleFlags(RestFlags, HiddenFlags, total=False):
    """The flags of an optimizer of matrices on spheres."""

    head: Annotated[Rest, Default("adam")]
    router: Annotated[Rest, Default("adamh")]


class SphereStep(NamedTuple):
    """The numbers that the groups share."""

    learning_rate: Hyperparam
    radius: RadiusForm
    eps: NonNegative
    mu_dtype: DTypeLike | None


@dataclasses.dataclass(frozen=True)
class SphereRoles:
    """A function of the parameters that labels those that have a sphere beside hidden matrices."""

    names: frozenset[str]

    def __call__(self, params: Params) -> PerLeaf:
        leaves = leaves_of(params)
        pairs = zip(leaf_roles(leaves), leaves.values, strict=True)
        return PerLeaf(
            None
            if role is None
            else "adamh"
            if role.name in self.names and len(np.shape(value)) > 1
            else "adam"
            for role, value in pairs
        )


def by_sphere(
    group: str, direction: GradientTransformation, step: SphereStep, flags: SphereRoleFlags
) -> GradientTransformation:
    """`direction` on spheres for hidden matrices; AdamH or AdamW for the rest, by their roles."""
    places = (("head", HEAD), ("router", ROUTER))
    names = frozenset(role for flag, role in places if flags.get(flag) == "adamh")
    adam = adam_arguments(ADAM_SHARE * step.learning_rate, flags)  # pyright: ignore[reportOperatorIssue]
    other = scale_by_adam(adam["b1"], adam["b2"], step.eps, mu_dtype=step.mu_dtype)
    rest = {
        "adamh": _on_sphere(other, step, flags, SphereFlags(axis_names=flags.get("axis_names"))),
        "adam": adamw(eps=step.eps, mu_dtype=step.mu_dtype, **adam),
    }
    hidden = _on_sphere(direction, step, flags, select_flags(SphereFlags, flags))
    groups = {group: hidden, "adam": partition(rest, SphereRoles(names))}
    return by_role(groups, **select_flags(RoleFlags, flags))


def _on_sphere(
    direction: GradientTransformation, step: SphereStep, flags: SphereRoleFlags, axes: SphereFlags
) -> GradientTransformation:
    masked = chain(direction, cautious_mask()) if flags.get("cautious") else direction
    return hyperball(masked, step.learning_rate, step.radius, **axes)


@definition
def adamh(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    radius: RadiusForm = "initial",
    **flags: Unpack[SphereRoleFlags],
) -> GradientTransformation:
    r"""AdamH: Adam on spheres (Hyperball) for hidden matrices, AdamW for the rest.

    For every hidden matrix θ of shape (n, m), with Adam's direction u: θ ← R nrm(θ − η R nrm(u)),
    R = ‖θ0‖, nrm(x) = x / ‖x‖. Its norm stays, and it turns by η radians per step, in place of
    weight decay. AdamW updates embeddings, norms, biases, convolutions and vectors; `head` and
    `router` say which of both heads and routers get. Paths, shapes and classes of modules decide
    (`by_role`); `coverage(tx, params)` shows the table.

    When: transformers with normalised layers; η transfers between widths. When not: matrices that
    begin at zero, which have no sphere; fine-tuning, where norms matter.

    Args:
      learning_rate: η, radians per step; 0.006 to 0.02, with a warmup over 5 to 10 % of the run.
      b1: β1 in [0, 1), decay of m for hidden matrices; 0.9.
      b2: β2 in [0, 1), decay of r for hidden matrices; 0.95 for large batches, to 0.999.
      eps: ε ≥ 0, outside the root, of all groups.
      mu_dtype: dtype of first moments; None: the parameter's, float32 at least.
      radius: R: "initial", "current" or a number > 0, as in `hyperball`.
      head: "adam", or "adamh" for a head on a sphere; its logits then cannot grow.
      router: "adamh", or "adam" for the routers of mixtures of experts.
      adam_b1: β1 of the rest, in [0, 1).
      adam_b2: β2 of the rest, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: 3/13 of the angle.
      routes: rules `[(pattern, "adamh" or "adam"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`; a norm
        for each matrix.
      shard: mesh axes to spread hidden matrices over, as in `hyperball`.
      **flags: `cautious` and `axis_names` for all; `decay_form`, `peak_learning_rate` and
        `huber_delta` for AdamW, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range, an unknown choice for heads or routers.
      StructureError: a matrix of norm 0 at `init`.
      SelectionError: `routes` or `dimensions` that fit no parameter.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and r), and 4 per matrix (R).

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"embed": jnp.ones((3, 2)), "layer": {"kernel": jnp.eye(2)}}
    >>> tx = gradtx.adamh(0.1)
    >>> print(gradtx.coverage(tx, params))
    embed         adam   an embedding, by its name
    layer/kernel  adamh  a hidden matrix (in out), in JAX's order
    >>> grads = {"embed": jnp.ones((3, 2)), "layer": {"kernel": 1 - jnp.eye(2)}}
    >>> updates, _ = tx.update(grads, tx.init(params), params)
    >>> kernel = params["layer"]["kernel"] + updates["layer"]["kernel"]
    >>> round(float(jnp.sum(kernel**2)), 4)  # as long as before
    2.0
    >>> round(float(jnp.arctan2(-kernel[0, 1], kernel[0, 0])), 4)  # turned by arctan 0.1
    0.0997

    See also: `muonh`, `hyperball`, `adamw`.

    Wen et al. 2026, arXiv 2606.16899, Algorithm 1; η of AdamW: the fits of marin's recipes.
    """
    step = SphereStep(learning_rate, radius, eps, mu_dtype)
    return by_sphere("adamh", scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype), step, flags)
