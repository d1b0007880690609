r"""`transfer`: hyperparameters of a small model for a larger one, by muP and its relatives.

η_leaf = η f_η,   λ_leaf = λ f_λ,   ε_leaf = ε f_ε

The factors follow from the role of a parameter and from how its axes grow over the base model.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gradtx.compose.binding import MapRules
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.definition.types import Params
from gradtx.engine.multipliers import Factors, LeafFactors, multiply_rule
from gradtx.engine.program import BoundRule
from gradtx.engine.rules import Rule
from gradtx.engine.selector import Leaves, Where, leaves_of, select_all
from gradtx.transforms.orthogonal import Scaling
from gradtx.transforms.tree_growth import (
    Base,
    Purpose,
    Shape,
    TransferKind,
    purposes,
    tree_growth,
)
from gradtx.transforms.width_factors import (
    Growth,
    HeadForm,
    Settings,
    TransferRule,
    WidthFactors,
    width_factors,
)
from gradtx.wrappers.transfer_checks import (
    are_shapes,
    check_base,
    check_degree,
    check_names,
    check_numbers,
    check_rule,
    options_of,
)

RATES, DECAYS = ("learning_rate", "peak_learning_rate"), ("weight_decay",)
Roles = Sequence[tuple[Where, TransferKind]]


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The `Multipliers` of `transfer`. Rules that differ in their leaves alone share kernels."""

    base: Base = dataclasses.field(compare=False)
    settings: Settings = dataclasses.field(compare=False)
    roles: Roles | None = dataclasses.field(compare=False)
    matrix_rules: tuple[BoundRule, ...] = dataclasses.field(compare=False)
    """The rules on matrices inside, which say what they train."""
    owner: str = "transfer"

    def factors(self, bound: BoundRule, leaves: Leaves) -> list[Factors]:
        """For every leaf the multipliers of one rule's hyperparameters."""
        is_matrix = hasattr(bound.rule, "matrices")
        names, has_moments = tuple(bound.hyperparams), bound.rule.keeps or is_matrix
        return [
            () if one is None else _select(names, one, is_matrix, has_moments)
            for one in self.by_leaf(leaves)
        ]

    def by_leaf(self, leaves: Leaves) -> list[WidthFactors | None]:
        """The factors of every leaf; None for None leaves."""
        found = purposes(leaves, self.roles)
        scalings = self._scalings(leaves)
        return [
            None if one is None else width_factors(self.settings, one, *scaling)
            for one, scaling in zip(tree_growth(leaves, found, self.base), scalings, strict=True)
        ]

    def table(self, leaves: Leaves) -> tuple[list[LeafFactors | None], list[str]]:
        """The rows and the notes of `transfer_table`."""
        found = purposes(leaves, self.roles)
        growths = tree_growth(leaves, found, self.base)
        scalings = self._scalings(leaves)
        rows = [
            None if one is None or growth is None else self._row(one, growth, *scaling)
            for one, growth, scaling in zip(found, growths, scalings, strict=True)
        ]
        return rows, self._notes(found, growths)

    def _row(
        self, one: Purpose, growth: Growth, on_matrix: bool, scaling: Scaling | None
    ) -> LeafFactors:
        known = width_factors(self.settings, growth, on_matrix, scaling)
        is_norm = on_matrix and self.settings.rule == "spectral"
        shown = {"rate": known.rate, "decay": known.decay}
        shown |= {"eps": known.matrix_eps if is_norm else known.eps}
        return LeafFactors(one.text, {**shown, "init": known.init, "forward": known.forward})

    def _notes(
        self, found: Sequence[Purpose | None], growths: Sequence[Growth | None]
    ) -> list[str]:
        """What the model itself must multiply, in one line."""
        kinds = {one.kind for one in found if one is not None}
        tables = (
            g for g, one in zip(growths, found, strict=True) if one and one.kind == "embedding"
        )
        width = max((one.outputs for one in tables if one is not None), default=1.0)
        notes = []
        if "head" not in kinds and width != 1:
            notes.append(f"logits × {1 / width:.4g}, as the embedding is the head")
        if self.settings.depth != 1 and self.settings.alpha > 0:
            branch = self.settings.depth**-self.settings.alpha
            notes.append(f"residual branches × {branch:.4g}")
        notes.append("q · k / d_head if heads grow")
        return [f"the model itself: {'; '.join(notes)}"]

    def _scalings(self, leaves: Leaves) -> list[tuple[bool, Scaling | None]]:
        """For every leaf whether a rule on matrices trains it, and the factor of that rule."""
        found: list[tuple[bool, Scaling | None]] = [(False, None)] * len(leaves.values)
        for bound in self.matrix_rules:
            scaling = options_of(bound).get("scaling")
            for n, one in enumerate(select_all(bound.selectors, leaves)):
                if one:
                    found[n] = (True, scaling if scaling is not None else found[n][1])
        return found


@functools.lru_cache(maxsize=16384)
def _select(
    names: tuple[str, ...], one: WidthFactors, is_matrix: bool, has_moments: bool
) -> Factors:
    """The multipliers of the hyperparameters of a rule, those of 1 left out."""
    eps = one.matrix_eps if is_matrix else one.eps
    known = {**dict.fromkeys(RATES, one.rate), **dict.fromkeys(DECAYS, one.decay)}
    if has_moments:  # other rules compare ε with a norm of the parameters
        known |= {"eps": eps, "eps_root": eps**2}
    return tuple((name, known[name]) for name in names if known.get(name, 1.0) != 1)


def base_shapes(params: Params) -> dict[str, Shape]:
    """The shape of every parameter by its path."""
    leaves = leaves_of(params)
    pairs = zip(leaves.paths, leaves.values, strict=True)
    return {path: np.shape(value) for path, value in pairs if value is not None}


def transfer(
    inner: TransformationLike,
    base: Params | int,
    rule: TransferRule = "mup",
    *,
    width: int | None = None,
    depth_ratio: float = 1.0,
    alpha: float = 1.0,
    decay_exponent: float = 0.0,
    head: HeadForm = "rate",
    roles: Roles | None = None,
) -> GradientTransformation:
    r"""muP: learning rates that were tuned on a narrow model, for a wider one (μP, µTransfer).

    Rate η, weight decay λ and ε of `inner` are multiplied, for every parameter by numbers of its
    own. With m, by which the model is wider than `base`, and m_L, by which it is deeper:

    ==================  ==============  ======  ==============  ============  ====================
    parameter           η               λ       ε               η of "sgd"    deviation at the
                                                                              start
    ==================  ==============  ======  ==============  ============  ====================
    embedding           1               1       1 / m           m             1
    hidden matrix       m_L^(α−1) / m   m       1 / (m m_L^α)   m_L^(2α−1)    1 / √m
    its bias, its norm  m_L^(α−1)       1       1 / (m m_L^α)   m m_L^(2α−1)  1
    last norm           1               1       1 / m           m             1
    head                1 / m           m       1               1 / m         1 / m
    ==================  ==============  ======  ==============  ============  ====================

    The table is that of "mup", for rules whose update of an entry does not depend on the size of
    gradients: the families of Adam and of Lion. "sgd" is for updates that are proportional to
    gradients, with or without momentum; η λ is that of "mup". "spectral" is for rules that
    orthogonalize, as `muon`: the rate of a matrix grows as √(outputs / inputs), whatever `scaling`
    it has, ε as m_L^−α, and the rest has the table. "hyperball" is for `hyperball`: its angle has
    no factor of width. `print(gradtx.transfer_table(tx, params))` shows every factor;
    `gradtx.scale_init` scales fresh parameters. The model itself must multiply: residual branches
    by m_L^−α; attention scores by 1 / d_head in place of 1 / √d_head if heads grow; the logits of
    tied embeddings by 1 / m.

    When: a large model that cannot be tuned; a family of sizes. Tune `base` at a width of 64 to
    256, with `inner`, then build the large model with `transfer`. `coordinate_check` finds a wrong
    model. When not: fine-tuning. Rules that look at a whole tree (`clip_by_global_norm`) may be
    inside or in front, but not with "sgd", whose steps they change by the width.

    Args:
      inner: the optimizer as it was tuned on `base`.
      base: the parameters of the base model, or their shapes: `jax.eval_shape(init, key)`. Axes
        that differ are those that grow. Or its width, a whole number above 0; roles then say which
        axes grow. A base with fewer blocks will do.
      rule: "mup", "sgd", "spectral" or "hyperball".
      width: the width of this model, where `base` is a width.
      depth_ratio: m_L, the number of layers over that of the base model.
      alpha: α in [0, 1], the exponent of depth: 1 (CompleteP), 0.5 (depth-muP), 0 (width alone).
        Parameters below a numbered part of a path (`blocks/3/...`), or stacked, are in layers.
      decay_exponent: p; η λ of a hidden matrix falls as m⁻ᵖ. 0: η λ is constant. 1: λ stays as it
        is with "mup", and falls as 1 / width with "spectral", which Qiu et al. find better.
      head: "rate", as in the table; or "forward": the head has a rate and a start without factors,
        and the model multiplies the logits by 1 / m. Both train alike.
      roles: `[(pattern, kind), ...]`, tried in order, in place of the roles that paths and shapes
        say: "embedding", "matrix", "vector", "head", or "fixed" for what does not grow.

    Returns:
      `inner` with other numbers: its state has the same paths.

    Raises:
      HyperparamError: a width or a ratio that is not above 0, α outside of [0, 1], an unknown rule
        or kind; a rule that does not fit `inner`: "mup" around `sgd`, "sgd" around `adamw`, ...
      StructureError: at `init` and `update`, shapes of `base` that do not match the parameters.
      SelectionError: at `init` and `update`, an expression of `roles` that matches nothing.

    State: that of `inner`.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> def shapes(width):
    ...     head, body = jnp.zeros((width, 10)), {"kernel": jnp.zeros((width, width))}
    ...     return {"embed": jnp.zeros((10, width)), "body": body, "head": head}
    >>> tx = gradtx.transfer(gradtx.adamw(1e-2), base=shapes(2))
    >>> params = shapes(8)
    >>> updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    >>> print(jax.tree.map(lambda u: round(float(u.mean()), 5), updates))
    {'body': {'kernel': -0.0025}, 'embed': -0.01, 'head': -0.0025}

    See also: `transfer_table`, `scale_init`, `coordinate_check`, `partition`.

    Yang et al. 2022, arXiv 2203.03466, Table 8; Dey et al. 2025, arXiv 2505.01618, Table 1,
    for depth and ε; Yang, Simon and Bernstein 2023, arXiv 2310.17813, Condition 1; Qiu et al. 2025,
    arXiv 2512.05620; Wen et al. 2026, arXiv 2606.16899.
    """
    shapes = base if isinstance(base, int) or are_shapes(base) else base_shapes(base)
    tx = _transfer(
        inner,
        shapes,
        rule,
        width=width,
        depth_ratio=float(depth_ratio),
        alpha=float(alpha),
        decay_exponent=float(decay_exponent),
        head=head,
        roles=roles,
    )
    check_degree(rule, as_transformation(inner), shapes)
    return tx


@functools.partial(definition, name="transfer")
def _transfer(
    inner: TransformationLike,
    base: Mapping[str, Sequence[int]] | int,
    rule: TransferRule = "mup",
    *,
    width: int | None = None,
    depth_ratio: float = 1.0,
    alpha: float = 1.0,
    decay_exponent: float = 0.0,
    head: HeadForm = "rate",
    roles: Roles | None = None,
) -> MapRules:
    """The definition that `transfer` makes: the rules of `inner`, multiplied."""
    check_base(base, width)
    check_numbers(depth_ratio, alpha, decay_exponent)
    check_names(rule, head, roles)
    member = as_transformation(inner)
    rules = tuple(_rules_inside(member))
    check_rule(rule, member, rules)
    matrix_rules = tuple(one for one in rules if hasattr(one.rule, "matrices"))
    if isinstance(base, int):
        sizes = Base(None, (width or base) / base)
    else:
        sizes = Base(tuple((path, tuple(shape)) for path, shape in base.items()))
    settings = Settings(rule, depth_ratio, alpha, decay_exponent, head)
    multipliers = Transfer(sizes, settings, roles, matrix_rules)
    return MapRules(member, functools.partial(_multiply, multipliers))


def _multiply(multipliers: Transfer, rule: Rule) -> Rule:
    member = functools.partial(_transfer_member, multipliers=multipliers)
    return multiply_rule(rule, multipliers, member)


@definition
def _transfer_member(inner: TransformationLike, multipliers: Transfer) -> MapRules:
    """A member of a wrapper with the multipliers of the wrapper."""
    return MapRules(as_transformation(inner), functools.partial(_multiply, multipliers))


def _rules_inside(tx: GradientTransformation) -> Iterator[BoundRule]:
    """The rules of a definition, those of the members of wrappers with the leaves of these."""
    for bound in tx.rules:
        yield bound
        for member in getattr(bound.rule, "members", {}).values():
            for one in _rules_inside(member):
                yield one._replace(selectors=(*bound.selectors, *one.selectors))
