"""`stacked`: rules that look at a whole array see each layer of a scanned stack by itself."""

import functools

from gradtx.compose.binding import MapRules
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.engine.layers import Stack, in_stack
from gradtx.engine.rules import Rule
from gradtx.engine.selector import Selector, Where


@definition
def stacked(inner: TransformationLike, where: Where, axis: int = 0) -> MapRules:
    r"""Stacked layers of a scanned model (`scan` over layers): rules see one layer at a time.

    (u, s)ᵢ = rule(gᵢ, sᵢ, θᵢ) for every layer i of an array (..., n, ...), n layers along `axis`.
    Updates are those of a model that has one array per layer. A rule that looks at a whole array
    would take the stack for one layer: the trust ratios of LAMB and LARS, NovoGrad's norms,
    Adafactor's clip, AGC, the blocks of Adam-mini. Norms of the whole tree are the same either way.

    Slots stay stacked: one in the shape of a layer has the shape of the stack, and is cut over
    devices as it; a number per array becomes one per layer, in a vector. So a state saves and
    shards as that of any array, and the number of operations does not grow with that of layers.

    When: layers are stacked, by `scan`, `vmap` or `nn.scan`, and the rule looks at whole arrays.
    When not: elementwise rules (SGD, Adam, Lion), which do the same without; stacks of matrices for
    Muon alone, whose axes `dimensions` and roles know.

    Random numbers differ between layers, and from those of a model with one array per layer, as
    paths differ. The scales of `stored` with 8 and 4 bits, outside or inside, may span layers.

    Args:
      inner: the transformation; its masks and predicates see the shape of one layer.
      where: which arrays are stacks, as in `masked`: `r"^layers/"`. All have the same number of
        layers; write `stacked(stacked(tx, ...), ...)` for two stacks, or for stacks of stacks.
      axis: the axis that counts layers; 0, and 1 in MaxText. Static.

    Raises:
      SelectionError: at `init`, a pattern that matches no leaf.
      StructureError: at `init`, a scalar in the stack, an axis that an array does not have, or
        arrays with different numbers of layers.
      GradtxError: a member of another library.

    State: that of `inner`.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"layers": jnp.stack([jnp.ones(4), 7 * jnp.ones(4)])}
    >>> grads, whole = {"layers": jnp.ones((2, 4))}, gradtx.scale_by_trust_ratio()
    >>> for tx in (whole, gradtx.stacked(whole, r"^layers")):
    ...     updates, _ = tx.update(grads, tx.init(params), params)
    ...     print(updates["layers"][:, 0].tolist())
    [5.0, 5.0]
    [1.0, 7.0]

    See also: `multiply_by_path`, `along`, `masked`.
    """
    return _in_stack(as_transformation(inner), Stack(Selector(where, True, "stacked"), axis))


def _in_stack(inner: GradientTransformation, stack: Stack) -> MapRules:
    """The rules of a definition on each layer of a stack."""
    rules, selectors = functools.partial(_stack_rule, stack), functools.partial(in_stack, stack)
    return MapRules(inner, rules, selectors)


def _stack_rule(stack: Stack, rule: Rule) -> Rule:
    """A rule, and its members, on each layer of a stack."""
    return rule.with_stack(stack, functools.partial(_stacked_member, stack=stack))


@definition
def _stacked_member(inner: TransformationLike, stack: Stack) -> MapRules:
    """A member of a wrapper within the stack of the wrapper."""
    return _in_stack(as_transformation(inner), stack)
