"""Roles at work: the axes that methods see, guesses that are named, and what overrides them."""

import warnings
from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import RoleWarning
from gradtx.definition.errors import SelectionError
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import leaves_of

BY_ROLE = {
    "muon": lambda **flags: gradtx.muon(0.1, **flags),
    "muon_clip": lambda **flags: gradtx.muon_clip(0.1, where="query", **flags),
    "normuon": lambda **flags: gradtx.normuon(0.1, **flags),
    "adamh": lambda **flags: gradtx.adamh(0.1, **flags),
    "muonh": lambda **flags: gradtx.muonh(0.1, **flags),
    "adamuon": lambda **flags: gradtx.adamuon(0.1, **flags),
    "dion": lambda **flags: gradtx.dion(0.1, 0.5, **flags),
    "scion": lambda **flags: gradtx.scion(0.1, **flags),
}
ON_ALL = {
    "scale_by_muon": lambda **flags: gradtx.masked(
        gradtx.scale_by_muon(**flags), "kernel|weight|w1"
    ),
    "soap": lambda **flags: gradtx.soap(0.1, **flags),
    "shampoo": lambda **flags: gradtx.shampoo(0.1, **flags),
    "kl_soap": lambda **flags: gradtx.kl_soap(0.1, **flags),
    "kl_shampoo": lambda **flags: gradtx.kl_shampoo(0.1, **flags),
    "psgd_kron": lambda **flags: gradtx.psgd_kron(0.1, **flags),
    "galore": lambda **flags: gradtx.galore(0.1, rank=2, **flags),
    "hyperball": lambda **flags: gradtx.hyperball(gradtx.scale_by_adam(), 0.1, **flags),
}
AXES = [
    ("query/kernel", "in out out"),
    ("out/kernel", "in in out"),
    ("linear/weight", "out in"),
    ("layers/w1", "batch in out"),
    ("experts/wi", "batch in out"),
]


def random_tree(seed: int = 0) -> Any:
    shapes = {
        "attn": {"query": {"kernel": (4, 2, 3)}, "out": {"kernel": (2, 3, 4)}},
        "experts": {"wi": (3, 4, 5)},
        "layers": {"b1": (2, 6), "w1": (2, 4, 6)},
        "linear": {"bias": (6,), "weight": (6, 4)},
        "norm": {"scale": (4,)},
    }
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(generator.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def two_steps(tx: gradtx.GradientTransformation, params: Any, *grads: Any) -> Any:
    state, updates = tx.init(params), None
    extra = {"max_logits": jnp.full(2, 200.0)} if "max_logits" in tx.needs else {}
    for grad in grads:
        updates, state = tx.update(grad, state, params, **extra)
    return updates


@pytest.mark.parametrize("method", BY_ROLE)
def test_roles_are_the_lines_that_would_say_the_same(method: str) -> None:
    params, grads = random_tree(0), [random_tree(1), random_tree(2)]
    by_role = BY_ROLE[method]()
    by_hand = BY_ROLE[method](dimensions=AXES)
    chex.assert_trees_all_equal(
        two_steps(by_role, params, *grads), two_steps(by_hand, params, *grads)
    )
    assert gradtx.coverage(by_role, params) == gradtx.coverage(by_hand, params)


@pytest.mark.parametrize("method", ON_ALL)
def test_methods_for_all_arrays_see_the_same_matrices(method: str) -> None:
    """Stacked biases are vectors, too, for methods that take vectors."""
    params, grads = random_tree(0), [random_tree(1), random_tree(2)]
    rows = [] if method in ("scale_by_muon", "galore") else [("layers/b1", "batch out")]
    by_role, by_hand = ON_ALL[method](), ON_ALL[method](dimensions=[*AXES, *rows])
    chex.assert_trees_all_equal(
        two_steps(by_role, params, *grads), two_steps(by_hand, params, *grads)
    )


@pytest.mark.parametrize("method", ["muon", "normuon", "adamuon", "scion"])
def test_a_linear_layer_of_equinox_is_a_transposed_kernel(method: str) -> None:
    """More outputs than inputs: a factor the wrong way round would be 1 in place of √2."""
    linear = eqx.nn.Linear(4, 8, key=jax.random.key(0))
    grads = eqx.tree_at(lambda one: one.weight, linear, jnp.cos(linear.weight * 9))
    kernel = {"kernel": linear.weight.T, "bias": linear.bias}
    kernel_grads = {"kernel": grads.weight.T, "bias": grads.bias}
    tx = BY_ROLE[method]()
    ours = two_steps(tx, eqx.filter(linear, eqx.is_array), grads)
    theirs = two_steps(tx, kernel, kernel_grads)
    # Products of the transposed matrix are summed in another order; an entry may nearly cancel.
    size = float(jnp.max(jnp.abs(theirs["kernel"])))
    np.testing.assert_allclose(ours.weight, theirs["kernel"].T, atol=1e-5 * size)
    np.testing.assert_array_equal(ours.bias, theirs["bias"])


def test_the_factor_of_equinox_is_that_of_its_outputs() -> None:
    linear = eqx.nn.Linear(4, 16, use_bias=False, key=jax.random.key(0))
    update = two_steps(gradtx.muon(1.0), linear, linear)
    sizes = np.linalg.svd(np.asarray(update.weight), compute_uv=False)
    # √(16 / 4), up to the 0.15 to which the polynomials are exact.
    np.testing.assert_allclose(sizes, 2.0, atol=2 * 0.15)


class Model(eqx.Module):
    """A module with layers of Equinox, one of which `vmap` has stacked."""

    embedding: eqx.nn.Embedding
    conv: eqx.nn.Conv1d
    norm: eqx.nn.LayerNorm
    cell: eqx.nn.GRUCell
    stack: eqx.nn.Linear
    own: jax.Array

    def __init__(self) -> None:
        key = jax.random.key(0)
        self.embedding = eqx.nn.Embedding(50, 8, key=key)
        self.conv = eqx.nn.Conv1d(4, 8, 3, key=key)
        self.norm = eqx.nn.LayerNorm((4, 8))
        self.cell = eqx.nn.GRUCell(4, 8, key=key)
        self.stack = eqx.filter_vmap(lambda key: eqx.nn.Linear(8, 16, False, key=key))(
            jax.random.split(key, 5)
        )
        self.own = jnp.zeros((4, 8))


def test_the_class_of_a_container_decides_in_equinox() -> None:
    params = eqx.filter(Model(), eqx.is_inexact_array)
    table = gradtx.coverage(gradtx.muon(0.1), params)
    assert table.reasons == {
        "embedding/weight": "an embedding, by its class",
        "conv/weight": "a convolution, by its class",
        "conv/bias": "a norm or bias, by its class",
        "norm/weight": "a norm or bias, by its class",
        "norm/bias": "a norm or bias, by its class",
        "cell/weight_ih": "a hidden matrix (out in), in the order of eqx.nn.GRUCell",
        "cell/weight_hh": "a hidden matrix (out in), in the order of eqx.nn.GRUCell",
        "cell/bias": "a norm or bias, by its name",
        "cell/bias_n": "a norm or bias, by its name",
        "stack/weight": "a hidden matrix (batch out in), stacked, in the order of eqx.nn.Linear",
        "own": "a hidden matrix (in out), in JAX's order",
    }


GUESSES = {"mix": jnp.ones((4, 5, 6)), "wide": {"weight": jnp.ones((4, 8))}}
WARNING = (
    "muon: neither names nor shapes decide the axes of some arrays, so these are guesses: 'mix' of "
    "shape (4, 5, 6) goes to 'adam', 'wide/weight' of shape (4, 8) goes to 'muon' as (out in); "
    "settle each, with dimensions=[('^mix$', 'batch in out')] or routes=[('^mix$', 'adam')]"
)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        lambda tx: gradtx.chain(gradtx.clip_by_global_norm(1.0), tx),
        lambda tx: gradtx.guard(gradtx.accumulate(tx, 2)),
        lambda tx: gradtx.stored(tx, "bf16"),
    ],
    ids=["alone", "in a chain", "in wrappers", "stored"],
)
def test_guesses_are_named_once_at_init(wrap: Any) -> None:
    tx = wrap(gradtx.muon(0.1))
    with pytest.warns(RoleWarning) as caught:
        state = tx.init(GUESSES)
    assert [str(one.message) for one in caught] == [WARNING]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", RoleWarning)
        jax.jit(tx.update)(GUESSES, state, GUESSES)
        gradtx.coverage(gradtx.muon(0.1), GUESSES)


@pytest.mark.parametrize(
    "settled",
    [
        {"dimensions": [("^mix$", "batch in out"), ("^wide/weight$", "in out")]},
        {"dimensions": [("^wide", "out in")], "routes": [("^mix$", "adam")]},
        {"routes": [("^mix$", "muon"), ("^wide", "muon")]},
        {"dimensions": {"mix": None, "wide": None}},
    ],
)
def test_a_line_settles_a_guess(settled: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RoleWarning)
        gradtx.muon(0.1, **settled).init(GUESSES)


@pytest.mark.parametrize(
    "params",
    [
        {"weight": jnp.ones((4, 4))},
        {"a": {"weight": jnp.ones((4, 8)), "bias": jnp.ones(4)}, "b": {"weight": jnp.ones((4, 8))}},
        {"q_proj": {"weight": jnp.ones((4, 8))}},
        {"norm": {"weight": jnp.ones(4)}, "mlp": {"weight": jnp.ones((4, 8))}},
        {"conv": {"weight": jnp.ones((8, 4, 3, 3))}, "tokens": jnp.ones((1, 1, 8))},
    ],
    ids=["square", "another bias", "torch's names", "torch's norms", "no matrix"],
)
def test_evidence_is_no_guess(params: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RoleWarning)
        gradtx.muon(0.1).init(params)


def test_words_and_routes_come_before_roles() -> None:
    params = random_tree()
    tx = gradtx.muon(
        0.1,
        dimensions=[("query", "in batch out"), ("b1", "in out")],
        routes=[("wi$", "adam"), ("^linear/weight", "muon")],
    )
    table = gradtx.coverage(tx, params)
    assert table["attn/query/kernel"] == "muon" and table["experts/wi"] == "adam"
    # Its name says that it is a bias, so words for its axes do not make it a matrix.
    assert table["layers/b1"] == "adam"
    assert table.reasons["attn/query/kernel"] == "a hidden matrix (in batch out), by dimensions"
    assert table.reasons["experts/wi"] == "sent by routes"
    with pytest.raises(SelectionError, match=r"claims 'layers/b1', by its name a norm or bias"):
        gradtx.muon(0.1, routes=[("^layers", "muon")]).init(params)


@pytest.mark.parametrize(
    "shapes",
    [
        {"conv_0": {"kernel": (3, 3, 4, 8)}, "conv_1": {"kernel": (3, 3, 8, 8)}},
        {"layers": {"conv1": {"kernel": (3, 3, 4, 8)}, "conv2": {"kernel": (3, 3, 8, 8)}}},
        {"blocks": {"0": {"w": (4, 4)}, "1": {"w": (4, 4)}}, "mix": (4, 4, 4)},
        {"layers": {"layer_0": {"query": (4, 4, 2)}, "layer_1": {"query": (4, 4, 2)}}},
        {"query": {"kernel": (8, 2, 4), "bias": (2, 4)}},
        {"stack": (4, 4, 4), "other": (4, 4)},
        {"block": {"q": (64, 4, 16), "k": (64, 4, 16), "v": (64, 4, 16), "out": (64, 64)}},
    ],
)
def test_equal_sizes_are_not_stacks(shapes: Any) -> None:
    params = jax.tree.map(jnp.ones, shapes, is_leaf=lambda node: isinstance(node, tuple))
    roles = leaf_roles(leaves_of(params))
    assert not any(role.reason.startswith("stacked") for role in roles if role is not None)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        # An ensemble: `vmap` over whole models.
        (
            {"fc1": {"w": (5, 8, 16), "b": (5, 16)}, "fc2": {"w": (5, 16, 2), "b": (5, 2)}},
            ["batch out", "batch in out", "batch out", "batch in out"],
        ),
        # Layers with a scalar each.
        (
            {"net": {"alpha": (4,), "kernel": (4, 8, 16), "bias": (4, 16)}},
            [None, "batch out", "batch in out"],
        ),
        (
            {"layers": {"experts": {"w": (4, 3, 8, 16), "b": (4, 3, 16)}, "scale": (4, 8)}},
            ["batch batch out", "batch batch in out", "batch out"],
        ),
        # Along the second axis, as in MaxText.
        (
            {"layers": {"down": (16, 4, 8), "scale": (8, 4), "up": (8, 4, 16)}},
            ["in batch out", "out batch", "in batch out"],
        ),
    ],
    ids=["ensemble", "scalars", "experts", "second axis"],
)
def test_stacks_of_all_kinds(shapes: Any, words: list[str | None]) -> None:
    params = jax.tree.map(jnp.ones, shapes, is_leaf=lambda node: isinstance(node, tuple))
    roles = leaf_roles(leaves_of(params))
    assert [None if role is None else role.words for role in roles] == words


def test_a_small_vocabulary_is_not_a_head() -> None:
    """Layers as wide as the vocabulary: two of them, or a head that has a name."""
    shapes = {"embed": (16, 4), "mlp": {"up": (4, 16), "down": (16, 4)}}
    named = {"embed": (16, 4), "up": (4, 16), "lm_head": (4, 16)}
    one, wide = {"embed": (16, 4), "last": (4, 16)}, {"embed": (16, 4), "first": (16, 4)}
    for tree, hidden in (
        (shapes, ["mlp/down", "mlp/up"]),
        (named, ["up"]),
        (one, []),
        (wide, ["first"]),
    ):
        params = jax.tree.map(jnp.ones, tree, is_leaf=lambda node: isinstance(node, tuple))
        table = gradtx.coverage(gradtx.muon(0.1), params)
        assert [path for path, group in table.items() if group == "muon"] == hidden


def test_the_network_behind_an_embedding_is_stored_like_other_matrices() -> None:
    """`stored` keeps tables in finer codes; a matrix under such a module is no table."""
    linear = {"time_embedding": {"linear_1": {"kernel": jnp.ones((64, 64))}}}
    table = {"embed": {"embedding": jnp.ones((64, 64))}}
    tx = gradtx.stored(gradtx.scale_by_adam(), "int8", min_size=0)
    (small, large) = (
        sum(leaf.nbytes for leaf in jax.tree.leaves(tx.init(params))) for params in (linear, table)
    )
    assert small < large / 2
