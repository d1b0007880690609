"""AdamH and MuonH: which parameter gets which rule, and their rates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import HyperparamError

SHAPES = {
    "embed": {"embedding": (7, 4)},
    "block": {"attn": {"kernel": (4, 6)}, "moe": {"router": {"kernel": (4, 3)}}, "bias": (6,)},
    "lm_head": {"kernel": (4, 7)},
}
MAKERS: dict[str, Any] = {"adamh": gradtx.adamh, "muonh": gradtx.muonh}
NAMES = pytest.mark.parametrize("name", sorted(MAKERS))


def tree(seed: int = 0) -> Any:
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(generator.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda one: isinstance(one, tuple),
    )


@NAMES
def test_roles_decide_who_is_on_a_sphere(name: str) -> None:
    params, grads = tree(), tree(1)
    for head in ("adam", "adamh"):
        for router in ("adam", "adamh"):
            tx = MAKERS[name](0.1, head=head, router=router)
            new = gradtx.apply_updates(params, tx.update(grads, tx.init(params), params)[0])
            same = jax.tree.map(
                lambda a, b: bool(abs(jnp.linalg.norm(a) / jnp.linalg.norm(b) - 1) < 1e-6),
                params,
                new,
            )
            assert same == {
                "embed": {"embedding": False},
                "block": {
                    "attn": {"kernel": True},
                    "moe": {"router": {"kernel": router == "adamh"}},
                    "bias": False,
                },
                "lm_head": {"kernel": head == "adamh"},
            }


@NAMES
def test_adamw_of_the_rest_has_its_share_of_the_rate(name: str) -> None:
    """3/13 of the angle, a schedule's too, unless another rate is named."""
    params, grads = tree(), tree(1)
    for rate, other, expected in (
        (0.13, None, 0.03),
        (lambda count: 0.26 / (2 + count), None, 0.03),
        (0.13, 0.5, 0.5),
    ):
        tx = MAKERS[name](rate, adam_learning_rate=other)
        updates, _ = tx.update(grads, tx.init(params), params)
        step = updates["embed"]["embedding"]
        np.testing.assert_allclose(np.abs(step), expected, rtol=1e-4)


@NAMES
def test_weight_decay_is_of_the_rest_alone(name: str) -> None:
    params, zeros = tree(), jax.tree.map(jnp.zeros_like, tree())
    tx = MAKERS[name](0.1, adam_weight_decay=1.0, adam_learning_rate=0.25)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(
        updates["embed"]["embedding"], -0.25 * params["embed"]["embedding"], rtol=1e-6
    )
    np.testing.assert_allclose(updates["block"]["attn"]["kernel"], 0, atol=1e-6)


@NAMES
def test_a_route_sends_a_matrix_to_adamw(name: str) -> None:
    params = tree()
    tx = MAKERS[name](0.1, routes=[("attn", "adam")])
    paths = list(gradtx.flatten_state(tx.init(params).slots))
    assert not any("radius" in path and "attn" in path for path in paths)


@NAMES
def test_the_size_of_the_gradient_does_not_matter(name: str) -> None:
    params, grads = tree(), tree(1)
    tx = MAKERS[name](0.1, cautious=True)
    one, ten = (
        tx.update(jax.tree.map(lambda g, s=s: s * g, grads), tx.init(params), params)[0]
        for s in (1.0, 1024.0)
    )
    np.testing.assert_allclose(
        one["block"]["attn"]["kernel"], ten["block"]["attn"]["kernel"], rtol=1e-4, atol=1e-6
    )


def test_an_unknown_choice_for_heads_is_named() -> None:
    with pytest.raises(HyperparamError, match="adamh: head = 'sgd' is unknown"):
        gradtx.adamh(0.1, head="sgd")  # pyright: ignore[reportArgumentType]
