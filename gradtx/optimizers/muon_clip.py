r"""MuonClip: Muon, and query and key weights scaled down where an attention logit grew too large.

θ ← θ − η (s O + λ θ)                            (Muon)
γ_h = min(1, τ / S_h),   W_h ← γ_h^p W_h          (queries and keys of head h; p = 1/2 for each)
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import StepFlags
from gradtx.compose.select import masked
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import ArrayLike, Decay, DTypeLike, NonNegative, Positive
from gradtx.engine.program import leaves_of
from gradtx.engine.selector import Where
from gradtx.optimizers.muon import Coefficients, Scaling, muon
from gradtx.tree.casts import compute_dtype, is_inexact


def _update(
    updates: Any,
    slots: None,
    params: Any,
    step: Any,
    *,
    threshold: jax.Array,
    exponent: float,
    head_axis: int,
    max_logits: Any,
) -> Any:
    leaves = leaves_of(updates)
    attach = leaves.treedef.flatten_up_to(params)
    given = {"threshold": threshold, "exponent": exponent, "head_axis": head_axis}
    scaled = [
        _scaled(path, update, param, _of_leaf(path, max_logits), **given)
        if is_inexact(update)
        else update
        for path, update, param in zip(leaves.paths, leaves.values, attach, strict=True)
    ]
    return leaves._replace(values=scaled).tree, slots


def _of_leaf(path: str, max_logits: Any) -> Any:
    """The maxima that belong to a leaf: those of the longest path that it lies below, or those of
    all.
    """
    if not isinstance(max_logits, Mapping):
        return max_logits
    above = [key for key in max_logits if f"{path}/".startswith(f"{key}/")]
    if not above:
        raise StructureError(
            f"qk_clip: max_logits says nothing of {path!r}; its paths are {', '.join(map(repr, max_logits))}"
        )
    return max_logits[max(above, key=len)]


def _scaled(
    path: str,
    update: jax.Array,
    param: jax.Array,
    max_logits: ArrayLike,
    *,
    threshold: jax.Array,
    exponent: float,
    head_axis: int,
) -> jax.Array:
    """The update after which each head is γ^p of what it would have been."""
    logits = jnp.asarray(max_logits)
    if update.ndim < -head_axis or logits.ndim < 1 or update.shape[head_axis] % logits.shape[-1]:
        raise StructureError(
            f"qk_clip: {path!r} has shape {update.shape}, whose axis {head_axis} is not made of the {logits.shape[-1:]} heads of "
            "max_logits: give one number for each head, and head_axis as it is in the kernels"
        )
    given, dtype = update.dtype, compute_dtype(update.dtype)
    gamma = (
        jnp.minimum(1.0, threshold / jnp.maximum(logits, jnp.finfo(jnp.float32).tiny)).astype(dtype)
        ** exponent
    )
    each = jnp.repeat(gamma, update.shape[head_axis] // logits.shape[-1], axis=-1)
    each = each.reshape(
        *each.shape[:-1],
        *[1] * (update.ndim + head_axis + 1 - each.ndim),
        each.shape[-1],
        *[1] * (-head_axis - 1),
    )
    update, param = update.astype(dtype), param.astype(dtype)
    return (update + (each - 1) * (param + update)).astype(given)


@definition
def qk_clip(
    where: Where, threshold: Positive = 100.0, *, exponent: float = 0.5, head_axis: int = -2
) -> GradientTransformation:
    r"""Scale query and key weights down, head by head, once logits grow too large: W_h ← γ_h^p (W_h
    + u_h), γ_h = min(1, τ / S_h).

    S_h is the largest logit of head h over the batch, handed to `update` as `max_logits=`: an array
    (heads,) for all leaves, or {path: array}, each for the leaves below that path; (layers, heads)
    for leaves whose first axis is layers.

    When: at the end of a chain, in training of transformers whose logits explode, as with Muon.
    When not: queries and keys are normalised.

    Args:
      where: the query and key kernels, as for `masked`.
      threshold: τ > 0; 100.
      exponent: p; 1/2 where queries and keys are both scaled, 1 for what is scaled alone, as the
        rotary part of queries. Static.
      head_axis: the axis that heads lie along, counted from the end: −2 for (inputs, heads, size),
        −1 for (inputs, heads · size).

    Raises:
      HyperparamError: a threshold that is not above 0, a head_axis that does not count from the
        end.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: `update` is called without `max_logits=`.
      StructureError: an axis that is not made of so many heads; a leaf of which `max_logits` says
        nothing.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = {"query": jnp.ones((1, 2, 1)), "out": jnp.ones((1, 2, 1))}
    >>> tx = gradtx.qk_clip("query")
    >>> updates, _ = tx.update({"query": 0 * w["query"], "out": 0 * w["out"]}, tx.init(w), w, max_logits=jnp.array([50.0, 400.0]))
    >>> (w["query"] + updates["query"]).ravel().tolist(), updates["out"].ravel().tolist()
    ([1.0, 0.5], [0.0, 0.0])

    See also: `muon_clip`.

    Kimi Team 2025, arXiv 2507.20534, section 2.1, Algorithm 1.
    """
    if isinstance(head_axis, bool) or not isinstance(head_axis, int) or head_axis >= 0:
        raise HyperparamError(
            f"qk_clip: head_axis = {head_axis!r} does not count from the end; give -1, -2 or the like"
        )
    rule = treewise(
        None,
        _update,
        threshold=threshold,
        exponent=exponent,
        head_axis=head_axis,
        extra=("max_logits",),
        needs_params=True,
    )
    return masked(rule, where)


@definition
def muon_clip(
    learning_rate: NonNegative,
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
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: NonNegative | None = None,
    compute_dtype: DTypeLike | None = None,
    routes: Sequence[tuple[Any, str]] | None = None,
    dimensions: Any = None,
    shard: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Muon for transformers whose attention logits explode: behind each step queries and keys of
    such heads are scaled down.

    θ ← θ − η (s O + λ θ) as `muon`, then W_h ← √γ_h W_h for queries and keys of head h, γ_h =
    min(1, τ / S_h), S_h its largest logit, which the model returns and `update` takes as
    `max_logits=` (see `qk_clip`).

    When: large transformers under Muon without normalised queries and keys. When not: logits stay
    small; it then is `muon`.

    Args:
      learning_rate: η ≥ 0, as AdamW's with "match_rms_adamw"; 1e-4 to 1e-3.
      threshold: τ > 0; 100.
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: their number; None: that of the preset.
      beta: β in [0, 1), decay of the momentum.
      weight_decay: λ ≥ 0 of hidden matrices; 0.1.
      mask: which of them decay; None: all.
      mu_dtype: dtype of both first moments; None: the parameter's, float32 at least.
      where: the query and key kernels, as for `masked`.
      head_axis: the axis that heads lie along, counted from the end, as in `qk_clip`.
      scaling: s, as in `muon`.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η.
      compute_dtype: of the products; None: float32 at least.
      routes: rules `[(pattern, "muon" or "adam"), ...]` that go before the roles.
      dimensions: which axes of an array are inputs, outputs and batches: kernels of shape (inputs,
        heads, size) need `[("query|key", "in out out")]`, or "in batch out" for a matrix per head.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range, an unknown preset or scaling.
      SelectionError: `where`, `routes` or `dimensions` that fit no parameter.
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: `update` is called without `max_logits=`.
      StructureError: kernels whose axis is not made of so many heads.

    State: 4 bytes per parameter of hidden matrices (m), 8 of the rest.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"query": {"kernel": jnp.eye(2)}, "key": {"kernel": jnp.eye(2)}}
    >>> tx = gradtx.muon_clip(0.0, head_axis=-1)  # no step: the clip alone; two heads of size 1
    >>> updates, _ = tx.update(params, tx.init(params), params, max_logits=jnp.array([90.0, 400.0]))
    >>> new = gradtx.apply_updates(params, updates)
    >>> jnp.diag(new["query"]["kernel"] @ new["key"]["kernel"]).tolist()  # the second head's logits are a quarter
    [1.0, 0.25]

    See also: `muon`, `qk_clip`.

    Kimi Team 2025, arXiv 2507.20534, section 2.1, Algorithm 1.
    """
    told: dict[str, Any] = {
        "adam_b1": adam_b1,
        "adam_b2": adam_b2,
        "adam_weight_decay": adam_weight_decay,
        "scaling": scaling,
    }
    told |= {"adam_learning_rate": adam_learning_rate, "compute_dtype": compute_dtype}
    told |= {"routes": routes, "dimensions": dimensions, "shard": shard}
    step = muon(
        learning_rate,
        ns_coeffs,
        ns_steps,
        beta,
        weight_decay=weight_decay,
        weight_decay_mask=mask,
        mu_dtype=mu_dtype,
        **told,
        **flags,
    )
    return chain(step, qk_clip(where, threshold, head_axis=head_axis))
