"""Profiles name the rule, and the program knows the line of the rule that each equation is from."""

import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx

ONE_SHAPE = {"a": jnp.ones((4, 3)), "b": jnp.ones((4, 3))}
SHAPES = {"dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}, "head": jnp.ones((5, 2))}
TREES = {"one shape": ONE_SHAPE, "several shapes": SHAPES}


class Moment(NamedTuple):
    mu: Any


def _init(param) -> Moment:
    return Moment(jnp.zeros_like(param))


def _tangent(grad, slots: Moment, param, step):
    mu = jnp.tan(slots.mu + grad)  # no other rule computes a tangent
    return mu, Moment(mu)


@gradtx.definition
def scale_by_tangent() -> gradtx.GradientTransformation:
    """A rule whose equations are easy to find in a program."""
    return gradtx.leafwise(_init, _tangent)


def _measure(grad, slots, param, step):
    return Moment(jnp.sum(jnp.tan(grad)))


def _conclude(measures, tree_slots, step):
    return {"total": jnp.cosh(sum(measures.mu))}, None


def _normalized(grad, slots, param, step, *, total):
    return grad / total, slots


@gradtx.definition
def scale_by_total() -> gradtx.GradientTransformation:
    """A rule that measures the whole tree."""
    return gradtx.leafwise(None, _normalized, measure=_measure, conclude=_conclude)


def _matrix_tangent(grad, slots, param, step):
    return jnp.tan(grad), slots


@gradtx.definition
def scale_by_matrix() -> gradtx.GradientTransformation:
    """A rule on matrices."""
    return gradtx.matrixwise(None, _matrix_tangent, vectors="rows")


PLAIN = scale_by_tangent()
AROUND = {
    "plain": PLAIN,
    "chain": gradtx.chain(gradtx.clip_by_global_norm(1.0), PLAIN, gradtx.scale(-0.1)),
    "guard": gradtx.guard(PLAIN),
    "accumulate": gradtx.accumulate(PLAIN, 2),
    "stored": gradtx.stored(PLAIN, "packed16", min_size=1),
    "stored in guard": gradtx.guard(gradtx.stored(PLAIN, "packed16", min_size=1)),
}


def lowered(tx: gradtx.GradientTransformation, params: Any) -> str:
    """The program of one step, with the location of every equation."""
    state = jax.eval_shape(tx.init, params)
    return jax.jit(tx.update).lower(params, state, params).as_text(debug_info=True)


def line_of(function: Any, text: str) -> int:
    """The number of the line of a function that holds a text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if text in line)


def locations(program: str, operation: str) -> list[str]:
    """Every location of an operation in a program, with the locations that it refers to."""
    table = dict(re.findall(r"^(#loc\d*) = (.*)$", program, flags=re.MULTILINE))
    names = re.findall(rf"{operation}.*(loc\(.*\))", program)
    return [_resolved(name, table) for name in names]


def _resolved(text: str, table: dict[str, str]) -> str:
    """A location with every reference replaced by what the table has for it."""
    while found := re.search(r"#loc\d*", text):
        text = text[: found.start()] + table[found.group()] + text[found.end() :]
    return text


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("around", AROUND)
def test_an_equation_has_the_scope_and_the_line_of_its_rule(around: str, tree: str) -> None:
    found = locations(lowered(AROUND[around], TREES[tree]), r"(?:chlo|stablehlo).tan\b")
    assert found
    file, line = Path(__file__).name, line_of(_tangent, "jnp.tan")
    for location in found:
        assert "scale_by_tangent" in location, location
        assert re.search(rf'{file}":{line}\b', location), location


@pytest.mark.parametrize("tree", TREES)
def test_measures_and_conclusions_have_their_scope(tree: str) -> None:
    program = lowered(scale_by_total(), TREES[tree])
    for operation, function in (("tan", _measure), ("cosh", _conclude)):
        found = locations(program, f"(?:chlo|stablehlo).{operation}\\b")
        line = line_of(function, f"jnp.{operation}")
        assert found
        for location in found:
            assert "scale_by_total" in location, location
            assert re.search(rf'{Path(__file__).name}":{line}\b', location), location


@pytest.mark.parametrize("tree", TREES)
def test_a_rule_on_matrices_has_its_scope(tree: str) -> None:
    found = locations(lowered(scale_by_matrix(), TREES[tree]), r"(?:chlo|stablehlo).tan\b")
    line = line_of(_matrix_tangent, "jnp.tan")
    assert found
    for location in found:
        assert "scale_by_matrix" in location, location
        assert re.search(rf'{Path(__file__).name}":{line}\b', location), location


def test_every_optimizer_in_a_chain_has_a_scope_of_its_own() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    program = lowered(tx, SHAPES)
    for name in ("clip_by_global_norm", "scale_by_adam", "add_decayed_weights"):
        assert re.search(rf'["/]{name}/', program), name
