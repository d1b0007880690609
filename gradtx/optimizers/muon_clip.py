r"""MuonClip: Muon with QK-clip. Query and key weights shrink where an attention logit is too large.

θ ← θ − η (s O + λ θ)                            (Muon)
γ_h = min(1, τ / S_h),   W_h ← γ_h^p W_h          (queries and keys of head h; p = 1/2 for each)
"""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.binding import Branch
from gradtx.compose.chain import chain
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import (
    ArrayLike,
    Decay,
    DTypeLike,
    Hyperparam,
    NonNegative,
    Params,
    Positive,
    Updates,
)
from gradtx.engine.selector import Selector, Where, leaves_of
from gradtx.optimizers.muon import muon
from gradtx.transforms.flags import PolarAdamFlags
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.transforms.orthogonal import Coefficients, Scaling
from gradtx.tree.casts import compute_dtype, is_inexact, real_dtype

MaxLogits = ArrayLike | Mapping[str, ArrayLike]
"""The largest logit of every head: for all leaves, or by path."""
CURE = "name the query and key kernels in where=, or use muon, which has no QK-clip"


def _qk_clip(
    updates: Updates,
    slots: None,
    params: Params,
    step,
    *,
    threshold,
    exponent: float,
    head_axis: int,
    max_logits: MaxLogits,
):
    leaves = leaves_of(updates)
    clipped = []
    for path, update, param in zip(
        leaves.paths, leaves.values, leaves.treedef.flatten_up_to(params), strict=True
    ):
        if not is_inexact(update):
            clipped.append(update)
            continue
        logits = jnp.asarray(_logits_of(path, max_logits)).astype(real_dtype(update.dtype))
        _check_heads(path, update.shape, logits.shape, head_axis)
        # The smallest normal number: a logit of 0 or below never divides, and γ is then 1.
        logits = jnp.maximum(logits, float(jnp.finfo(jnp.float32).tiny))
        gamma = jnp.minimum(1.0, jnp.asarray(threshold, logits.dtype) / logits) ** exponent
        gamma = _along_heads(gamma, update.shape, head_axis)
        clipped.append(_scale_params(update, param, gamma))
    return leaves._replace(values=clipped).tree, slots


def _logits_of(path: str, max_logits: MaxLogits) -> ArrayLike:
    """The maxima for a leaf, by the longest path above it, or those of all leaves."""
    if not isinstance(max_logits, Mapping):
        return max_logits
    above = [key for key in max_logits if f"{path}/".startswith(f"{key}/")]
    if not above:
        raise StructureError(
            f"qk_clip: max_logits has no entry for {path!r}; its paths are "
            f"{', '.join(map(repr, max_logits))}"
        )
    return max_logits[max(above, key=len)]


def _check_heads(
    path: str, shape: tuple[int, ...], logits: tuple[int, ...], head_axis: int
) -> None:
    if len(shape) < -head_axis or not logits or shape[head_axis] % logits[-1]:
        raise StructureError(
            f"qk_clip: {path!r} has shape {shape}, and axis {head_axis} does not divide into the "
            f"{logits[-1:]} heads of max_logits: give one number for each head, and the head_axis "
            "of the kernels"
        )


def _along_heads(gamma: jax.Array, shape: tuple[int, ...], head_axis: int) -> jax.Array:
    """Broadcast one factor per head, (..., heads), along the axis of heads."""
    gamma = jnp.repeat(gamma, shape[head_axis] // gamma.shape[-1], axis=-1)
    # Axes in front of the heads come first: (layers, heads) fits leaves stacked by layer.
    between = [1] * (len(shape) + head_axis + 1 - gamma.ndim)
    after = [1] * (-head_axis - 1)
    return gamma.reshape(*gamma.shape[:-1], *between, gamma.shape[-1], *after)


def _scale_params(update: jax.Array, param: jax.Array, gamma: jax.Array) -> jax.Array:
    """The update u' with θ + u' = γ (θ + u)."""
    dtype = compute_dtype(update.dtype)
    moved = param.astype(dtype) + update.astype(dtype)
    return (update.astype(dtype) + (gamma - 1).astype(dtype) * moved).astype(update.dtype)


@definition
def qk_clip(
    where: Where, threshold: Positive = 100.0, *, exponent: float = 0.5, head_axis: int = -2
) -> list[Branch]:
    r"""QK-clip: scale query and key weights down where attention logits are too large.

    W_h ← γ_h^p (W_h + u_h), γ_h = min(1, τ / S_h). S_h is the largest logit of head h over the
    batch. `update` receives it as `max_logits=`: an array (heads,) for all leaves, or
    {path: array}, each for the leaves below that path. It is (layers, heads) for leaves whose first
    axis is layers.

    When: at the end of a chain, for transformers whose logits explode, as with Muon.
    When not: queries and keys are normalised.

    Args:
      where: the query and key kernels, as for `masked`.
      threshold: τ > 0; 100.
      exponent: p; 1/2 where queries and keys are both scaled, 1 for a part that is scaled alone, as
        the rotary part of queries. Static.
      head_axis: the axis of heads, counted from the end: −2 for (inputs, heads, size), −1 for
        (inputs, heads · size).

    Raises:
      HyperparamError: a threshold that is not above 0, a head_axis that does not count from the
        end.
      SelectionError: `where` fits no parameter.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: `update` is called without `max_logits=`.
      StructureError: an axis that does not divide into the heads; a leaf without an entry in
        `max_logits`.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = {"query": jnp.ones((1, 2, 1)), "out": jnp.ones((1, 2, 1))}
    >>> tx = gradtx.qk_clip("query")
    >>> g = {"query": 0 * w["query"], "out": 0 * w["out"]}
    >>> updates, _ = tx.update(g, tx.init(w), w, max_logits=jnp.array([50.0, 400.0]))
    >>> (w["query"] + updates["query"]).ravel().tolist(), updates["out"].ravel().tolist()
    ([1.0, 0.5], [0.0, 0.0])

    See also: `muon_clip`.

    Kimi Team 2025, arXiv 2507.20534, section 2.1, Algorithm 1.
    """
    if head_axis >= 0:
        raise HyperparamError(
            f"qk_clip: head_axis = {head_axis!r} does not count from the end; give -1 or -2"
        )
    rule = treewise(None, _qk_clip, extra=("max_logits",), needs_params=True)
    return [Branch(None, rule, Selector(where, True, "qk_clip", cure=CURE))]


@definition
def muon_clip(
    learning_rate: Hyperparam,
    threshold: Positive = 100.0,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    weight_decay: NonNegative = 0.1,
    mask: Where | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    where: Where = r"(query|key|q_proj|k_proj|wq|wk)(/kernel)?$",
    head_axis: int = -2,
    scaling: Scaling = "match_rms_adamw",
    momentum: MomentumKernel | None = None,
    **flags: Unpack[PolarAdamFlags],
) -> GradientTransformation:
    r"""MuonClip: Muon with QK-clip, for transformers whose attention logits explode.

    θ ← θ − η (s O + λ θ) as `muon`, then W_h ← √γ_h W_h for queries and keys of head h, with γ_h =
    min(1, τ / S_h). S_h is the largest logit of the head: the model returns it, and `update`
    receives it as `max_logits=` (see `qk_clip`).

    When: large transformers under Muon without normalised queries and keys. When not: logits stay
    small; it is then the same as `muon`.

    Args:
      learning_rate: η, as AdamW's with "match_rms_adamw"; 1e-4 to 1e-3.
      threshold: τ > 0; 100.
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: the number of polynomials; None: that of the preset.
      beta: β in [0, 1), decay of the momentum.
      weight_decay: λ ≥ 0 of hidden matrices; 0.1.
      mask: which of them decay; None: all.
      mu_dtype: dtype of both first moments; None: the parameter's, float32 at least.
      where: the query and key kernels, as for `masked`.
      head_axis: the axis of heads, counted from the end, as in `qk_clip`.
      scaling: s, as in `muon`.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η.
      compute_dtype: dtype of the products; None: float32 at least.
      spectrum: a function of singular values in the place of the polar factor, `soft_polar(0.2)`
        or `spectral_power(0.25)` for example; None: `polar()`.
      routes: rules `[(pattern, "muon" or "adam"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches: kernels of shape (inputs,
        heads, size) are one matrix, and with `[("query|key", "in batch out")]` one per head.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m for hidden matrices, such as `k_maxwell()`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range, an unknown preset or scaling.
      SelectionError: `where`, `routes` or `dimensions` that fit no parameter.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: `update` is called without `max_logits=`.
      StructureError: kernels whose axis does not divide into the heads.

    State: 4 bytes per parameter of hidden matrices (m), 8 of the rest.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"query": {"kernel": jnp.eye(2)}, "key": {"kernel": jnp.eye(2)}}
    >>> tx = gradtx.muon_clip(0.0, head_axis=-1)  # no step: the clip alone; two heads of size 1
    >>> updates, _ = tx.update(params, tx.init(params), params, max_logits=jnp.array([90.0, 400.0]))
    >>> new = gradtx.apply_updates(params, updates)
    >>> # The logits of the second head are a quarter of their former size.
    >>> jnp.diag(new["query"]["kernel"] @ new["key"]["kernel"]).tolist()
    [1.0, 0.25]

    See also: `muon`, `qk_clip`.

    Kimi Team 2025, arXiv 2507.20534, section 2.1, Algorithm 1.
    """
    step = muon(
        learning_rate,
        ns_coeffs,
        ns_steps,
        beta,
        weight_decay=weight_decay,
        weight_decay_mask=mask,
        mu_dtype=mu_dtype,
        scaling=scaling,
        momentum=momentum,
        **flags,
    )
    return chain(step, qk_clip(where, threshold, head_axis=head_axis))
