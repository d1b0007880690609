"""The role and the axes of every leaf of real models, by name and shape."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import leaves_of
from gradtx.tree.names import DYNAMICS, EMBEDDING, HEAD, NORM, POSITION, ROUTER
from gradtx.tree.roles import CONVOLUTION, MATRIX, UNKNOWN, VECTOR
from tests.unit.tree.models import LANGUAGE
from tests.unit.tree.more_models import OTHERS

MODELS = {**LANGUAGE, **OTHERS}
ROLES = {
    **{"embedding": EMBEDDING, "position": POSITION, "head": HEAD, "router": ROUTER},
    **{"norm": NORM, "dynamics": DYNAMICS, "vector": VECTOR},
    **{"matrix": MATRIX, "convolution": CONVOLUTION, "unknown": UNKNOWN},
}


class Row(NamedTuple):
    """One line of a table: a leaf and what it is."""

    path: str
    shape: tuple[int, ...]
    role: str
    words: str | None


def rows_of(model: str) -> Iterator[Row]:
    for line in MODELS[model].strip().splitlines():
        path, *rest = line.split()
        sizes = [word for word in rest if word.isdigit() or word == "-"]
        shape = tuple(int(size) for size in sizes if size != "-")
        role, *words = rest[len(sizes) :]
        yield Row(path, shape, ROLES[role], " ".join(words) or None)


def tree_of(model: str) -> Any:
    """The tree of a table, of shapes alone: a slash opens a dict."""
    tree: dict[str, Any] = {}
    for row in rows_of(model):
        *modules, name = row.path.split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[name] = jax.ShapeDtypeStruct(row.shape, jnp.float32)
    return tree


@pytest.mark.parametrize("model", MODELS)
def test_every_leaf_has_its_role_and_axes(model: str) -> None:
    leaves = leaves_of(tree_of(model))
    each = zip(leaves.paths, leaf_roles(leaves), strict=True)
    found = {path: (role.name, role.words) for path, role in each if role is not None}
    assert found == {row.path: (row.role, row.words) for row in rows_of(model)}


@pytest.mark.parametrize("model", MODELS)
def test_muon_gets_the_hidden_matrices_alone(model: str) -> None:
    table = gradtx.coverage(gradtx.muon(0.1), tree_of(model))
    hidden = {row.path for row in rows_of(model) if row.role == MATRIX}
    assert {path for path, group in table.items() if group == "muon"} == hidden


@pytest.mark.parametrize("model", MODELS)
def test_axes_fit_every_shape(model: str) -> None:
    """`soap` makes matrices of all leaves, so that no words may contradict a shape."""
    rank = len(jax.tree.leaves(jax.eval_shape(gradtx.soap(0.1, max_dim=8).init, tree_of(model))))
    assert rank > len(list(rows_of(model)))
