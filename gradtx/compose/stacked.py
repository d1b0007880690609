"""`stacked`: rules that look at a whole array see each layer of a scanned stack by itself."""

import functools
import operator

from gradtx.compose.binding import MapRules
from gradtx.compose.transformation import TransformationLike, as_transformation, definition
from gradtx.definition.errors import GradtxError
from gradtx.engine.layers import Stack, in_stack
from gradtx.engine.rules import Rule
from gradtx.engine.selector import Selector, Where


@definition
def stacked(inner: TransformationLike, where: Where, axis: int = 0) -> MapRules:
    r"""x
    """
    return _in_stack(as_transformation(inner), Stack(Selector(where, True, "stacked"), axis))


def _in_stack(inner, stack):
    return MapRules(inner, functools.partial(_stack_rule, stack), functools.partial(in_stack, stack))


def _stack_rule(stack: Stack, rule: Rule) -> Rule:
    """A rule, and its members, on each layer of a stack."""
    return rule.with_stack(stack, functools.partial(_stacked_member, stack=stack))


@definition
def _stacked_member(inner: TransformationLike, stack: Stack) -> MapRules:
    """A member of a wrapper within the stack of the wrapper."""
    return _in_stack(as_transformation(inner), stack)
