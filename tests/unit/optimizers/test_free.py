"""Methods that need no learning rate, in corners: zero and broken gradients, overflow, wrong
arguments, what the whole tree shares.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError, MissingExtraError
from tests.support.peer import optax
from tests.support.trees import gradient, start

PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array([[0.5]])}
GRADS = {"a": jnp.array([0.3, -0.1, 0.2]), "b": jnp.array([[1.0]])}

SHARING: dict[str, gradtx.GradientTransformation] = {
    "prodigy": gradtx.prodigy(),
    "dadapt_adamw": gradtx.dadapt_adamw(),
    "dog": gradtx.dog(),
    "dowg": gradtx.dowg(),
    "momo": gradtx.momo(adapt_lower_bound=True),
    "momo_adam": gradtx.momo_adam(adapt_lower_bound=True),
    "mechanize": gradtx.mechanize(gradtx.sgd(1.0)),
}
"""Methods that keep scalars of the whole tree."""


def steps(
    tx: Any, gradients: list[Any], params: Any = PARAMS, value: float = 2.0
) -> tuple[Any, Any]:
    """The last updates, and the state."""
    state, updates = tx.init(params), None
    told = {"value": value} if "value" in tx.needs else {}
    for grads in gradients:
        updates, state = tx.update(grads, state, params, **told)
        params = gradtx.apply_updates(params, updates)
    return updates, state


def scalars(state: Any) -> list[jax.Array]:
    """What a state keeps for the whole tree: all that is not shaped like a parameter."""
    shapes = {leaf.shape for leaf in jax.tree.leaves(PARAMS)}
    return [leaf for leaf in jax.tree.leaves(state.slots) if leaf.shape not in shapes]


def scaled(factor: float) -> Any:
    return jax.tree.map(lambda g: factor * g, GRADS)


@pytest.mark.parametrize("name", SHARING)
def test_nan_does_not_stay_in_what_the_tree_shares(name: str) -> None:
    """Nor does it stop the others: after a broken entry, they go on."""
    broken = {**GRADS, "a": GRADS["a"].at[1].set(jnp.nan)}
    updates, state = steps(SHARING[name], [GRADS, broken, GRADS])
    assert scalars(state) and all(jnp.all(jnp.isfinite(one)) for one in scalars(state))
    others = [updates["a"][0], updates["a"][2], updates["b"][0, 0]]
    assert all(jnp.isfinite(one) and one != 0 for one in others)


@pytest.mark.parametrize("name", SHARING)
def test_a_sum_that_overflows_is_forgotten(name: str) -> None:
    updates, state = steps(SHARING[name], [GRADS, scaled(1e25)])
    assert all(jnp.all(jnp.isfinite(one)) for one in scalars(state)), state
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", [name for name in SHARING if not name.startswith("mo")])
def test_a_zero_gradient_at_first_only_waits(name: str) -> None:
    """Optax's Prodigy and D-Adaptation give nan from then on: 0/0."""
    zero, once = steps(SHARING[name], [scaled(0.0), GRADS]), steps(SHARING[name], [GRADS])
    for late, soon in zip(jax.tree.leaves(zero[0]), jax.tree.leaves(once[0]), strict=True):
        assert bool(jnp.all(jnp.isfinite(late))) and bool(jnp.all(jnp.sign(late) == jnp.sign(soon)))


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adamw"])
def test_optax_breaks_at_a_zero_gradient(name: str) -> None:
    """If this fails, Optax was mended, and a row of docs/from_optax.md with it."""
    tx = getattr(optax.contrib, name)()
    state = tx.init(PARAMS)
    for grads in (scaled(0.0), GRADS):
        updates, state = tx.update(grads, state, PARAMS)
    assert bool(jnp.all(jnp.isnan(updates["a"])))


@pytest.mark.parametrize("name", SHARING)
def test_one_array_or_several_make_no_difference(name: str) -> None:
    joined = [jnp.concatenate([tree["a"], tree["b"].ravel()]) for tree in (PARAMS, GRADS)]
    apart, _ = steps(SHARING[name], [GRADS, scaled(0.5), scaled(2.0)])
    together, _ = steps(SHARING[name], [joined[1], 0.5 * joined[1], 2.0 * joined[1]], joined[0])
    np.testing.assert_allclose(
        jnp.concatenate([apart["a"], apart["b"].ravel()]), together, rtol=1e-4
    )


def test_layerwise_dog_beside_optax() -> None:
    """Optax's keeps one number per array in an array of one entry, so its scalars grow an axis, and
    ranks must be promoted.
    """
    arguments = (0.1, 1e-2, jnp.float64, 0.5)
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        params = [jnp.asarray(w) for w in start() if w.ndim]
        ours, theirs = (
            gradtx.scale_by_distance_over_gradients(*arguments),
            optax.scale_by_distance_over_gradients(*arguments),
        )
        mine, other = ours.init(params), theirs.init(params)
        for step in range(1, 10):
            grads = [jnp.asarray(g) for g in gradient(step) if g.ndim]
            updates, mine = ours.update(grads, mine, params)
            expected, other = theirs.update(grads, other, params)
            for u, v in zip(updates, expected, strict=True):
                np.testing.assert_allclose(u, v, rtol=1e-12)
            params = [w - u for w, u in zip(params, updates, strict=True)]


def test_the_first_parameters_are_never_kept_narrower_than_they_are() -> None:
    tx = gradtx.scale_by_distance_over_gradients(param_dtype=jnp.bfloat16)
    w = jnp.array([1.001])
    assert tx.init(w).slots["scale_by_distance_over_gradients"].init_params.tolist() == w.tolist()
    half = gradtx.scale_by_distance_over_gradients().init(w.astype(jnp.bfloat16))
    assert half.slots["scale_by_distance_over_gradients"].init_params.dtype == jnp.float32


def test_polyak_variants_below_the_bound_of_the_loss() -> None:
    w, g = jnp.array([1.0]), jnp.array([2.0])
    up, still = (gradtx.polyak_sgd(f_min=5.0, variant=variant) for variant in ("sps", "sps+"))
    assert (
        up.update(g, up.init(w), value=1.0)[0].tolist() == [2.0]
        and still.update(g, still.init(w), value=1.0)[0].item() == 0.0
    )


@pytest.mark.parametrize("tx", [gradtx.polyak_sgd(), gradtx.momo(), gradtx.momo_adam()])
def test_a_loss_of_nan_makes_no_step(tx: gradtx.GradientTransformation) -> None:
    updates, state = tx.update(GRADS, tx.init(PARAMS), PARAMS, value=jnp.nan)
    assert all(not jnp.any(leaf) for leaf in jax.tree.leaves(updates))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state))


def test_scaling_of_polyak_sgd_divides_the_step_within_the_bound() -> None:
    """As in Optax: it scales the gradient that the rate is computed from."""
    w, g = jnp.array([1.0]), jnp.array([2.0])
    for scaling, value, step in ((1.0, 2.0, -1.0), (0.5, 2.0, -2.0), (0.5, 100.0, -3.0)):
        for library in (gradtx, optax):
            tx = library.polyak_sgd(3.0, scaling)
            assert tx.update(g, tx.init(w), w, value=value)[0].item() == step


def test_cocob_does_not_see_a_constant_learning_rate() -> None:
    pairs = [
        steps(gradtx.cocob(rate, eps=0.0), [GRADS, scaled(-2.0), GRADS])[0] for rate in (1.0, 0.125)
    ]
    assert all(map(np.array_equal, *map(jax.tree.leaves, pairs)))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(
        HyperparamError,
        match=r"init_step = 'far' is not a pair .* the forms are 'distance', 'learning_rate', "
        r"'heuristic'",
    ):
        gradtx.dog(init_step="far")  # pyright: ignore[reportArgumentType]
    with pytest.raises(HyperparamError, match=r"init_step = \('far', 0.1\) is not a pair"):
        gradtx.dog(init_step=("far", 0.1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        GradtxError, match=r"polyak_sgd: variant = 'sps-' is unknown; choose one of 'sps', 'sps\+'"
    ):
        gradtx.polyak_sgd(variant="sps-")  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        MissingExtraError,
        match=r"momo needs value: call update\(grads, state, params, value=\.\.\.\)",
    ):
        gradtx.momo().update(GRADS, gradtx.momo().init(PARAMS), PARAMS)
    with pytest.raises(
        HyperparamError, match=r"mechanize: num_betas = 0 must be a whole number of at least 1"
    ):
        gradtx.mechanize(gradtx.sgd(1.0), num_betas=0)


def test_mechanic_around_whatever_there_is() -> None:
    """An Optax optimizer, another Mechanic, one that must be told the loss; names in the state
    never collide.
    """
    inner = gradtx.mechanize(optax.sgd(0.1, momentum=0.9))
    state = gradtx.chain(gradtx.clip(1.0), gradtx.mechanize(inner)).init(PARAMS)
    assert (
        set(state.slots["mechanize"])
        == {"base_optimizer", "mechanic"}
        == set(state.slots["mechanize"]["base_optimizer"])
    )
    told = gradtx.mechanize(gradtx.momo())
    assert told.needs == {"params", "value"} and all(
        map(jnp.any, jax.tree.leaves(steps(told, [GRADS])[0]))
    )


def test_mechanic_sees_the_gradient_that_it_is_given() -> None:
    """Not the one before the members ahead of it."""
    chained = gradtx.chain(gradtx.clip(0.1), gradtx.mechanize(gradtx.sgd(1.0)))
    alone, _ = steps(
        gradtx.mechanize(gradtx.sgd(1.0)),
        [jax.tree.map(lambda g: jnp.clip(g, -0.1, 0.1), scaled(f)) for f in (1.0, 2.0)],
    )
    behind, _ = steps(chained, [GRADS, scaled(2.0)])
    assert all(map(np.array_equal, jax.tree.leaves(alone), jax.tree.leaves(behind)))


def test_a_checkpoint_does_not_depend_on_an_option() -> None:
    """Slots have the same paths, whichever rule an option chooses."""
    first, second = (
        gradtx.optimistic_adam(0.1, optimism).init(jnp.ones(2)) for optimism in (None, 0.2)
    )
    assert gradtx.flatten_state(first).keys() == gradtx.flatten_state(second).keys()
    assert "slots/scale_by_optimistic_gradient/previous" in gradtx.flatten_state(first)
    assert "slots/scale_by_dog/max_dist" in gradtx.flatten_state(gradtx.dog().init(jnp.ones(2)))
