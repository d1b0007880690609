r"""Muon: momentum, orthogonalized. Every direction of a weight matrix moves by the same amount.

m ← β m + (1 − β) g
M = β m̂ + (1 − β) ĝ              (Nesterov; m̂ and ĝ corrected for the start at zero)
O = U Vᵀ of M = U Σ Vᵀ            (by Newton and Schulz's iteration, to within 0.15)
θ ← θ − η (s O + λ θ)             s = √max(1, fan_out / fan_in)
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.binding import Branch
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, DTypeLike, NonNegative
from gradtx.engine.selector import Where
from gradtx.linalg.orthogonalize import orthogonalize
from gradtx.linalg.presets import numbers_of
from gradtx.optimizers.adamw import adamw
from gradtx.transforms.moments import average, corrected_mean
from gradtx.tree.casts import zeros
from gradtx.wrappers.by_role import by_role

Scaling = Literal["none", "original", "match_rms_adamw", "spectral"] | float
"""The factor of an orthogonal direction, by name; a number c is c √max(fan_in, fan_out)."""
Coefficients = str | tuple[float, float, float] | Sequence[tuple[float, float, float]]


class Momentum(NamedTuple):
    """An average of gradients."""

    mu: jax.Array


def _init(param: jax.Array, *, mu_dtype: DTypeLike | None) -> Momentum:
    return Momentum(zeros(param, mu_dtype))


def _update(
    grad: jax.Array,
    slots: Momentum,
    param: None,
    step: jax.Array,
    *,
    beta: jax.Array,
    nesterov: bool,
    bias_correction: bool,
) -> Any:
    mu = average(slots.mu, grad, beta)
    if bias_correction:
        return corrected_mean(mu, grad, beta, step, nesterov), Momentum(mu)
    return (average(mu, grad, beta) if nesterov else mu), Momentum(mu)


@definition
def averaged(
    beta: Decay,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    bias_correction: bool = True,
) -> GradientTransformation:
    """The momentum of Muon and its kin: an average of gradients, that of a step ahead with
    Nesterov.
    """
    return leafwise(
        _init,
        _update,
        beta=beta,
        mu_dtype=mu_dtype,
        nesterov=nesterov,
        bias_correction=bias_correction,
    )


def _orthogonal(
    grad: jax.Array,
    slots: None,
    param: None,
    step: jax.Array,
    *,
    eps: jax.Array,
    adaptive: bool,
    scaling: Scaling,
    polar: Any,
) -> Any:
    factor = orthogonalize(grad, eps=eps, **polar)
    if adaptive:
        factor = factor * jnp.sum((factor.conj() * grad).real, axis=(-2, -1), keepdims=True)
    return factor_of(scaling, grad.shape) * factor, slots


def factor_of(scaling: Scaling, shape: tuple[int, ...]) -> float:
    """The factor s of an orthogonal direction, by the number of inputs and outputs."""
    fan_in, fan_out = max(shape[-2], 1), max(shape[-1], 1)
    if not isinstance(scaling, str) or scaling == "match_rms_adamw":
        return (0.2 if isinstance(scaling, str) else scaling) * max(fan_in, fan_out) ** 0.5
    return {"none": 1.0, "original": max(1.0, fan_out / fan_in), "spectral": fan_out / fan_in}[
        scaling
    ] ** 0.5


def polar_options(
    ns_coeffs: Coefficients, ns_steps: int | None, compute_dtype: DTypeLike | None, normalize: str
) -> dict[str, Any]:
    """How Muon and its kin orthogonalize, as `orthogonalize` takes it."""
    method = ns_coeffs if isinstance(ns_coeffs, str) else numbers_of(ns_coeffs)
    return {
        "method": method,
        "steps": ns_steps,
        "compute_dtype": compute_dtype,
        "normalize": normalize,
    }


def check_scaling(where: str, scaling: Scaling) -> None:
    known = ("none", "original", "match_rms_adamw", "spectral")
    is_number = isinstance(scaling, int | float) and not isinstance(scaling, bool) and scaling > 0
    if not is_number and scaling not in known:
        raise HyperparamError(
            f"{where}: scaling = {scaling!r} is unknown; choose one of {', '.join(map(repr, known))}, or give a number above 0"
        )


@definition
def scale_by_muon(
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    weight_dimension_numbers: Any = None,
    scaling: Scaling = "none",
    bias_correction: bool = True,
    compute_dtype: DTypeLike | None = None,
    dimensions: Any = None,
    shard: Any = None,
) -> GradientTransformation:
    r"""Muon's direction: the orthogonal factor of an average of gradients, u = s U Vᵀ of β m̂ + (1
    − β) ĝ = U Σ Vᵀ.

    Args:
      ns_coeffs: the polynomials of the iteration: a preset of `gradtx.linalg.orthogonalize`, one
        triple (a, b, c), repeated, or triples.
      ns_steps: their number; None: that of the preset, 5.
      beta: β in [0, 1), decay of m.
      eps: ε ≥ 0, keeps matrices near zero small.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      nesterov: False for m̂ in place of the average of a step ahead.
      adaptive: multiply by ⟨M, O⟩, so that the direction grows with the gradient.
      preconditioning: how M is brought into the interval of the polynomials, `normalize` of
        `orthogonalize`.
      weight_dimension_numbers: Optax's name for `dimensions`.
      scaling: s by inputs and outputs of the matrix; "none": 1; `muon` has the others.
      bias_correction: False for plain averages, as in the first implementation; the direction
        hardly changes.
      compute_dtype: of the products; None: the gradient's, float32 at least. bfloat16 costs less on
        accelerators.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range, an unknown preset.
      StructureError: an array of fewer than two axes.

    State: 4 bytes per parameter (m).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_muon("deepseek")
    >>> w = jnp.array([[3.0, 0.0], [0.0, -0.1]])  # directions of very different size move by the same amount
    >>> u, _ = tx.update(w, tx.init(w))
    >>> u.round(2).tolist()
    [[1.0, 0.0], [0.0, -1.0]]

    See also: `muon`.
    """
    check_scaling("scale_by_muon", scaling)
    told = dimensions if weight_dimension_numbers is None else weight_dimension_numbers
    polar = polar_options(ns_coeffs, ns_steps, compute_dtype, preconditioning)
    direction = matrixwise(
        None,
        _orthogonal,
        eps=eps,
        adaptive=adaptive,
        scaling=scaling,
        polar=polar,
        dimensions=told,
        shard=shard,
    )
    return in_turn(
        averaged(beta, mu_dtype, nesterov=nesterov, bias_correction=bias_correction), direction
    )


def in_turn(*members: GradientTransformation) -> Any:
    """Members one after another, of which one keeps slots: it keeps them where all of them do."""
    return [Branch(None, member) for member in members]


@definition
def muon(
    learning_rate: NonNegative,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Where | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: NonNegative | None = None,
    muon_weight_dimension_numbers: Any = None,
    consistent_rms: float | None = None,
    scaling: Scaling = "original",
    bias_correction: bool = True,
    compute_dtype: DTypeLike | None = None,
    routes: Sequence[tuple[Any, str]] | None = None,
    dimensions: Any = None,
    shard: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Momentum, orthogonalized: every direction of a hidden weight matrix moves by the same
    amount, and Adam moves the rest.

    For every hidden matrix θ, g, m of shape (n, m): m ← β m + (1 − β) g, O = U Vᵀ of β m̂ + (1 − β)
    ĝ = U Σ Vᵀ, θ ← θ − η (s O + λ θ). Embeddings, heads, norms, biases, routers and vectors get
    AdamW, by their paths (`by_role`); `coverage(tx, params)` shows the table.

    ==================  ===========================  =================================================
    scaling             s                            a step changes
    ==================  ===========================  =================================================
    "original"          √max(1, fan_out / fan_in)    entries by η / √fan_in or less
    "match_rms_adamw"   0.2 √max(fan_in, fan_out)    entries by 0.2 η, so that AdamW's η and λ serve
    "spectral"          √(fan_out / fan_in)          outputs by η: η carries over from width to width
    "none"              1                            the matrix by η in every direction
    ==================  ===========================  =================================================

    The default polynomials, "polar_express", bring singular values to within 0.15 of 1; those of
    Optax, "jordan", to within 0.53.

    When: the hidden matrices of transformers and of other networks; a step costs a few matrix
    products more than AdamW's, state is half.
    When not: fine-tuning what AdamW trained; parameters that are no matrices.

    Args:
      learning_rate: η ≥ 0; 0.02 with "original", 1e-3 with "match_rms_adamw".
      ns_coeffs: the polynomials: a preset of `gradtx.linalg.orthogonalize`, one triple (a, b, c),
        or a triple for every step.
      ns_steps: their number; None: that of the preset, 5.
      beta: β in [0, 1), decay of m; 0.95.
      eps: ε ≥ 0, keeps matrices near zero small; also Adam's.
      weight_decay: λ ≥ 0 of hidden matrices, a fraction per unit of learning rate; 0 to 0.1.
      weight_decay_mask: which of them decay; None: all.
      mu_dtype: dtype of both first moments; None: the parameter's, float32 at least.
      nesterov: the average of a step ahead, for Muon and Adam.
      adaptive: multiply O by ⟨M, O⟩, so that steps shrink with gradients.
      preconditioning: "frobenius", "schatten", "aol" or "spectral": how M is scaled before the
        polynomials.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_eps_root: ε under AdamW's root.
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η, which suits "match_rms_adamw"; else 3e-4 to
        3e-3.
      muon_weight_dimension_numbers: Optax's name for `dimensions`.
      consistent_rms: Optax's way to say "match_rms_adamw" with this number for 0.2; it goes before
        `scaling`.
      scaling: s, see above.
      bias_correction: False for plain averages in Muon's momentum.
      compute_dtype: of the products; None: float32 at least. bfloat16 costs less on accelerators.
      routes: rules `[(pattern, "muon" or "adam"), ...]` that go before the roles.
      dimensions: which axes of an array are inputs, outputs and batches: `[("conv.*kernel", "in in
        in out"), ("qkv", "in out/3")]`. Arrays of more than two axes are hidden matrices only if
        they are named here, or sent by a route, which takes the last two for inputs and outputs.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them, for
        both.

    Raises:
      HyperparamError: a number out of its range, an unknown preset or scaling.
      SelectionError: `routes` or `dimensions` that fit no parameter; a route that sends a vector or
        an embedding to Muon.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter of hidden matrices (m), 8 of the rest.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"embed": jnp.ones((4, 2)), "layer": {"kernel": jnp.diag(jnp.array([3.0, 0.1])), "bias": jnp.zeros(2)}}
    >>> tx = gradtx.muon(0.25, "deepseek")
    >>> print(gradtx.coverage(tx, params))
    embed         adam
    layer/bias    adam
    layer/kernel  muon
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> print(jnp.diag(updates["layer"]["kernel"]).round(2))
    [-0.25 -0.25]

    See also: `normuon`, `soap`, `gradtx.linalg.orthogonalize`.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon); Liu et al. 2025, arXiv 2502.16982,
    equation 4, for "match_rms_adamw"; Bernstein and Newhouse 2024, arXiv 2409.20325, for
    "spectral"."""
    told = dimensions if muon_weight_dimension_numbers is None else muon_weight_dimension_numbers
    how = {
        "adaptive": adaptive,
        "preconditioning": preconditioning,
        "bias_correction": bias_correction,
        "compute_dtype": compute_dtype,
    }
    form: Any = scaling if consistent_rms is None else float(consistent_rms)
    direction = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        scaling=form,
        dimensions=told,
        shard=shard,
        **how,
    )
    rest = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, adam_weight_decay, nesterov=nesterov, **flags,
    )  # fmt: skip
    hidden = descend(direction, learning_rate, weight_decay, weight_decay_mask, **flags)
    return by_role({"muon": hidden, "adam": rest}, routes, told)
