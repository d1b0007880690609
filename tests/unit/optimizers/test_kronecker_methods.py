"""SOAP, Shampoo and their kin: turns, batches of matrices, few directions, zero gradients, bytes,
messages.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError

library: Any = gradtx  # whose arguments are wrong on purpose
GENERATOR = np.random.default_rng(0)
RULES: dict[str, Any] = {
    "soap": gradtx.scale_by_soap,
    "kl_soap": gradtx.scale_by_kl_soap,
    "kl_shampoo": gradtx.scale_by_kl_shampoo,
    "shampoo": gradtx.scale_by_shampoo,
}
every_rule = pytest.mark.parametrize("name", RULES)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(GENERATOR.normal(size=shape), jnp.float32)


def follow(tx: Any, grads: list[Any]) -> tuple[list[Any], list[Any]]:
    """Updates and slots after each of some gradients."""
    state, update, updates, slots = (
        tx.init(jax.tree.map(jnp.zeros_like, grads[0])),
        jax.jit(tx.update),
        [],
        [],
    )
    for grad in grads:
        found, state = update(grad, state)
        updates.append(found)
        slots.append(next(iter(state.slots.values())))
    return updates, slots


@every_rule
def test_matrices_take_turns(name: str) -> None:
    """After the first gradient every matrix is refreshed once in four steps, and no step refreshes
    all, nor half of them.
    """
    shapes = {"a": (3, 3), "b": (2, 3, 3), "c": (3, 3), "bias": (3,)}
    _, slots = follow(
        RULES[name](refresh_every=4),
        [{key: normal(*shape) for key, shape in shapes.items()} for _ in range(9)],
    )
    kept = [slot.left_root if name == "shampoo" else slot.left_basis for slot in slots]
    matrices = [
        np.concatenate([np.reshape(kept[t][key], (-1, 9)) for key in ("a", "b", "c")])
        for t in range(len(kept))
    ]
    turned = np.array([np.any(new != old, axis=1) for old, new in itertools.pairwise(matrices)])
    assert turned.sum(axis=0).tolist() == [2] * 4 and turned.sum(axis=1).tolist() == [1] * 8
    assert (turned[:4] == turned[4:]).all()


@every_rule
def test_nan_stays_in_its_matrix(name: str) -> None:
    """Neither the others of its batch nor other arrays see it, then or later."""
    grads: list[Any] = [
        {"w": normal(3, 2, 3), "other": normal(2, 3), "v": normal(3)} for _ in range(4)
    ]
    bad = [*grads[:2], {**grads[2], "w": grads[2]["w"].at[1, 0, 1].set(jnp.nan)}, grads[3]]
    (clean, _), (found, _) = (follow(RULES[name](refresh_every=2), some) for some in (grads, bad))
    assert np.isnan(found[3]["w"][1]).all()
    for ours, theirs in zip(found, clean, strict=True):
        np.testing.assert_array_equal(ours["w"][::2], theirs["w"][::2])
        np.testing.assert_array_equal(ours["other"], theirs["other"])
        np.testing.assert_array_equal(ours["v"], theirs["v"])


FEW = {
    "soap": lambda **how: gradtx.scale_by_soap(eps=1e-4, **how),
    "kl_soap": lambda **how: gradtx.scale_by_kl_soap(eps=1e-4, **how),
    "kl_shampoo": lambda **how: gradtx.scale_by_kl_shampoo(b2=0.1, **how),
    "shampoo": gradtx.scale_by_shampoo,
    "newton": lambda **how: gradtx.scale_by_shampoo(method="newton", **how),
}
"""SOAP's epsilon above the rounding of gradients, which it would else raise to the size of a step
where there is nothing else; KL-Shampoo forgets quickly, so that its floor is all that is left of
the eigenvalues of directions without gradients."""


@pytest.mark.parametrize("name", FEW)
def test_gradients_of_one_direction(name: str) -> None:
    """Factors of rank 1, in a batch beside one of zeros: finite, of Adam's size, along that
    direction, zero for zero.
    """
    left, right = normal(5, 1), normal(1, 6)
    grads = [
        jnp.stack([scale * left @ right, jnp.zeros((5, 6))])
        for scale in (1.0, 1e-3, 2.0, 0.5, *[1.0] * 10)
    ]
    updates, _ = follow(FEW[name](refresh_every=2), grads)
    for update in updates:
        assert np.isfinite(update).all() and not np.any(update[1])
        assert np.abs(update).max() < 10
    cosine = (
        jnp.sum(updates[-1][0] * grads[-1][0])
        / jnp.linalg.norm(updates[-1][0])
        / jnp.linalg.norm(grads[-1][0])
    )
    assert cosine > 0.99


@every_rule
def test_a_matrix_begins_with_its_first_gradient_that_is_not_zero(name: str) -> None:
    """However late that is: its factors, bases or roots are then those of this gradient, as at a
    first step.
    """
    grads = [jnp.zeros((3, 3)), jnp.zeros((3, 3)), normal(3, 3)]
    tx = RULES[name](refresh_every=100, b1=0.0, **({"b2": 1.0} if name == "shampoo" else {}))
    (updates, late), (at_once, soon) = follow(tx, grads), follow(tx, grads[2:])
    assert not np.any(updates[0]) and not np.any(updates[1])
    for new, old in zip(late[-1], soon[-1], strict=True):
        if new is not None and new.ndim > 1 and new is not late[-1].nu:
            np.testing.assert_allclose(new, old, atol=1e-6)
    assert np.any(updates[2]) == np.any(at_once[0]) == (name in ("shampoo", "kl_shampoo"))


def test_soap_sees_inputs_and_outputs_by_their_words() -> None:
    grads = [normal(2, 3, 4) for _ in range(4)]
    one, other = (
        gradtx.scale_by_soap(refresh_every=2, one_sided=True, dimensions=[(".*", words)])
        for words in ("in in out", "out in in")
    )
    plain, _ = follow(
        gradtx.scale_by_soap(refresh_every=2, one_sided=True), [g.reshape(6, 4) for g in grads]
    )
    for tx, axes in ((one, (0, 1, 2)), (other, (2, 0, 1))):
        found, _ = follow(tx, [g.transpose(axes) for g in grads])
        for ours, theirs in zip(found, plain, strict=True):
            np.testing.assert_allclose(ours, theirs.reshape(2, 3, 4).transpose(axes), atol=1e-5)


def test_soap_muon_keeps_the_size_of_the_step() -> None:
    """Singular values within what five quintics leave, and the Frobenius norm of SOAP."""
    grads = [normal(6, 4) for _ in range(4)]
    (muon, _), (plain, _) = (
        follow(gradtx.scale_by_soap(orthogonal=orthogonal), grads) for orthogonal in (True, False)
    )
    np.testing.assert_allclose(jnp.linalg.norm(muon[-1]), jnp.linalg.norm(plain[-1]), rtol=1e-5)
    sigma, before = (np.linalg.svd(updates[-1], compute_uv=False) for updates in (muon, plain))
    assert sigma.max() / sigma.min() < 1.4 < before.max() / before.min()


@pytest.mark.parametrize("graft", ["adam", "rmsprop", "sgd", "sign"])
def test_a_graft_gives_its_length_to_matrices_and_its_direction_to_vectors(graft: Any) -> None:
    g = {"w": 3 * normal(4, 3), "v": 3 * normal(5)}
    (update,), _ = follow(gradtx.scale_by_shampoo(graft=graft, graft_b2=0.75, max_dim=2), [g])
    for key, leaf in g.items():
        expected = {
            "adam": jnp.sign(leaf),
            "rmsprop": 2 * jnp.sign(leaf),
            "sgd": leaf,
            "sign": jnp.sign(leaf),
        }[graft]
        np.testing.assert_allclose(
            jnp.linalg.norm(update[key]), jnp.linalg.norm(expected), rtol=1e-5
        )
        if key == "v":
            np.testing.assert_allclose(update[key], expected, rtol=1e-5)


BYTES = {
    "soap": lambda n, m: 8 * n * m + 8 * (n * n + m * m),
    "kl_soap": lambda n, m: 8 * n * m + 8 * (n * n + m * m) + 4 * (n + m),
    "kl_shampoo": lambda n, m: 4 * n * m + 8 * (n * n + m * m) + 4 * (n + m),
    "shampoo": lambda n, m: 8 * n * m + 8 * (n * n + m * m),
}


def size(tx: Any, *shape: int) -> int:
    return sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(jax.eval_shape(tx.init, jnp.zeros(shape)).slots)
    )


@every_rule
def test_bytes_of_a_matrix(name: str) -> None:
    assert size(RULES[name](), 64, 96) == BYTES[name](64, 96)
    assert size(RULES[name](), 3, 64, 96) == 3 * BYTES[name](64, 96)
    assert size(RULES[name](one_sided=True), 64, 96) < BYTES[name](64, 96) - 8 * 96 * 96 + 1


def test_bytes_of_blocks() -> None:
    """Two by three of 32 x 24."""
    assert size(gradtx.scale_by_shampoo(max_dim=32), 64, 72) == pytest.approx(
        8 * 64 * 72 * (1 + 32 / 24 + 24 / 32)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gradtx.soap(max_dim=0), "max_dim = 0 is not a length of an axis"),
        (lambda: gradtx.kl_soap(refresh_every=0), "refresh_every = 0 is not a number of steps"),
        (lambda: library.kl_shampoo(max_dim=2.5), "max_dim = 2.5 must be a whole number"),
        (
            lambda: library.shampoo(0.1, graft="lion"),
            "graft = 'lion' is unknown; choose one of 'adam', 'rmsprop', 'sgd', 'sign', 'none'",
        ),
        (
            lambda: library.shampoo(0.1, method="qr"),
            "method = 'qr' is unknown; choose one of 'eigh', 'newton'",
        ),
        (lambda: library.shampoo(0.1, exponent=0.0), "exponent = 0.0 is not above 0"),
        (
            lambda: library.shampoo(0.1, exponent=0.3, method="newton"),
            "exponent = 0.3 is not 1/p with a whole p",
        ),
    ],
)
def test_messages(make: Any, message: str) -> None:
    with pytest.raises(HyperparamError, match=message):
        make()
