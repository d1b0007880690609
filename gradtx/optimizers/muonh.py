r"""MuonH: orthogonalized momentum as a step of fixed angle for hidden matrices, on spheres.

θ ← R nrm(θ − η R nrm(O)),   O the orthogonal factor of Muon's momentum,   R = ‖θ0‖
"""

from typing import Unpack

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.optimizers.adamh import SphereRoleFlags, SphereStep, by_sphere
from gradtx.optimizers.muon import MuonFlags, scale_by_muon
from gradtx.transforms.flags import select_flags
from gradtx.transforms.orthogonal import Coefficients
from gradtx.transforms.radius import RadiusForm


class MuonHFlags(MuonFlags, SphereRoleFlags, total=False):
    """The flags of `muonh`."""


@definition
def muonh(
    learning_rate: Hyperparam,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    radius: RadiusForm = "initial",
    **flags: Unpack[MuonHFlags],
) -> GradientTransformation:
    r"""MuonH: Muon on spheres (Hyperball) for hidden matrices, AdamW for the rest.

    For every hidden matrix θ of shape (n, m), with Muon's direction O: θ ← R nrm(θ − η R nrm(O)), R
    = ‖θ0‖, nrm(x) = x / ‖x‖. Its norm stays, and it turns by η radians per step, in place of weight
    decay and of a factor for the shape. AdamW updates embeddings, norms, biases, convolutions and
    vectors; `head` and `router` say whether heads and routers get AdamW or AdamH. Paths, shapes and
    classes of modules decide (`by_role`); `coverage(tx, params)` shows the table.

    When: transformers with normalised layers; η transfers between widths. When not: matrices that
    begin at zero, which have no sphere; fine-tuning, where norms matter.

    Args:
      learning_rate: η, radians per step; 0.018 falling to 0 over the whole run, or 0.03 with
        `fast_slow_decay_schedule`; no warmup is needed.
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: the number of polynomials; None: that of the preset.
      beta: β in [0, 1), decay of the momentum; 0.95.
      eps: ε ≥ 0, keeps matrices near zero small; also Adam's.
      mu_dtype: dtype of first moments; None: the parameter's, float32 at least.
      nesterov: the average one step ahead, for hidden matrices.
      radius: R: "initial", "current" or a number > 0, as in `hyperball`.
      adaptive: without effect here, since the sphere takes the direction alone.
      preconditioning: how the momentum is scaled before the polynomials, as in `muon`.
      bias_correction: False for plain averages in the momentum.
      head: "adam", or "adamh" for a head on a sphere; its logits then cannot grow.
      router: "adamh", or "adam" for the routers of mixtures of experts.
      adam_b1: β1 of the rest, in [0, 1).
      adam_b2: β2 of the rest, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: 3/13 of the angle.
      compute_dtype: dtype of the products; None: float32 at least.
      routes: rules `[(pattern, "muonh" or "adam"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`:
        `[("qkv", "in out/3")]` gives queries, keys and values a factor and a norm each.
      shard: mesh axes to spread hidden matrices over, as in `matrixwise`.
      **flags: `cautious` and `axis_names` for all; `decay_form`, `peak_learning_rate` and
        `huber_delta` for AdamW, as `descend` explains them; `spectrum`, `normalize_before` and
        `normalize_after` of hidden matrices, as in `muon`.

    Raises:
      HyperparamError: a number out of its range, an unknown preset, or an unknown choice for heads
        or routers.
      StructureError: a matrix of norm 0 at `init`.
      SelectionError: `routes` or `dimensions` that fit no parameter.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter of hidden matrices (m) and 4 per matrix (R), 8 of the rest.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"embed": jnp.ones((3, 2)), "layer": {"kernel": jnp.eye(2)}}
    >>> tx = gradtx.muonh(0.1, ns_coeffs="deepseek")
    >>> turn = jnp.array([[0.0, 9.0], [-1.0, 0.0]])
    >>> grads = {"embed": jnp.ones((3, 2)), "layer": {"kernel": turn}}
    >>> updates, _ = tx.update(grads, tx.init(params), params)
    >>> kernel = params["layer"]["kernel"] + updates["layer"]["kernel"]
    >>> round(float(jnp.sum(kernel**2)), 4)  # as long as before
    2.0
    >>> round(float(jnp.arctan2(-kernel[0, 1], kernel[0, 0])), 3)  # turned by arctan 0.1
    0.1

    See also: `adamh`, `hyperball`, `muon`.

    Wen et al. 2026, arXiv 2606.16899, Algorithm 1; KellerJordan/modded-nanogpt, track 3, record
    324, for η and β.
    """
    direction = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        **select_flags(MuonFlags, flags),
    )
    return by_sphere("muonh", direction, SphereStep(learning_rate, radius, eps, mu_dtype), flags)
