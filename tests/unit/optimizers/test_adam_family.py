"""Corner cases of Adam's relatives."""

import warnings
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.compose.descend import DecayForm
from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.optimizers.radam import effective_length
from tests.oracles import adam_family as ref
from tests.support.peer import optax
from tests.support.trees import gradient, start

BLOCKWISE = {
    "novograd": gradtx.novograd(0.1, weight_decay=0.1),
    "stable_adamw": gradtx.stable_adamw(0.1, weight_decay=0.1),
    "adam_mini": gradtx.adam_mini(0.1, weight_decay=0.1),
}


def run(tx: Any, grads: list[Any], params: Any) -> list[Any]:
    """Collect the updates of all steps at constant parameters."""
    state, history = tx.init(params), []
    for grad in grads:
        updates, state = tx.update(grad, state, params)
        history.append(updates)
    return history


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("name", BLOCKWISE)
def test_a_nonfinite_entry_affects_no_other_entry(name: str, bad: float) -> None:
    """Not at the first step alone: the second moment of the block never contains the entry."""
    params = jnp.asarray(start()[0], jnp.float32)
    grads = [jnp.asarray(gradient(step)[0], jnp.float32) for step in range(1, 4)]
    spoilt, plain = (
        run(BLOCKWISE[name], [g.at[1, 2].set(value) for g in grads], params) for value in (bad, 0.0)
    )
    others = jnp.ones(params.shape, bool).at[1, 2].set(False)
    for ours, theirs in zip(spoilt, plain, strict=True):
        np.testing.assert_allclose(ours[others], theirs[others], rtol=1e-6)
        assert jnp.isnan(ours[1, 2]) or not np.isnan(bad)


@pytest.mark.parametrize(
    "mask",
    [r"kernel$", {"kernel": True, "bias": False, "none": False}, lambda path, leaf: leaf.ndim > 1],
)
def test_stable_adamw_scales_decay_and_step_alike_under_a_mask(
    mask: Any,
) -> None:
    arrays = {"kernel": start()[0], "bias": start()[1]}
    params = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()} | {
        "none": None
    }
    tx, memories = (
        gradtx.stable_adamw(1.0, weight_decay=0.5, mask=mask),
        {name: {} for name in arrays},
    )
    state = tx.init(params)
    for step in range(1, 6):
        input_grad = dict(zip(arrays, (10.0**step * g for g in gradient(step)), strict=False))
        updates, state = tx.update(
            {name: jnp.asarray(g, jnp.float32) for name, g in input_grad.items()} | {"none": None},
            state,
            params,
        )
        for name, decay in (("kernel", 0.5), ("bias", 0.0)):
            expected = -ref.stable_adamw(
                input_grad[name], arrays[name], memories[name], step, weight_decay=decay
            )
            np.testing.assert_allclose(updates[name], expected, rtol=1e-4, atol=1e-6)
    assert state.slots["scale_by_stable_adamw"]["rests"].mu["kernel"] is None


@pytest.mark.parametrize(
    ("output_axis", "shape"),
    [(-1, (4,)), (0, (2,)), (-2, (3,)), ((-2, -1), (3, 4)), ((), ()), ((0, 1, 2), (2, 3, 4))],
)
def test_adam_mini_has_one_second_moment_per_index_of_its_output_axes(
    output_axis: Any, shape: tuple[int, ...]
) -> None:
    params, g = jnp.zeros((2, 3, 4)), np.random.default_rng(0).normal(size=(2, 3, 4))
    updates, state = (tx := gradtx.scale_by_adam_mini(output_axis=output_axis)).update(
        jnp.asarray(g, jnp.float32), tx.init(params)
    )
    assert state.slots["scale_by_adam_mini"].nu.shape == shape
    outputs = {
        axis % 3 for axis in ([output_axis] if isinstance(output_axis, int) else output_axis)
    }
    mean = np.mean(g**2, axis=tuple({0, 1, 2} - outputs), keepdims=True)
    np.testing.assert_allclose(updates, g / np.sqrt(mean), rtol=1e-5)
    assert gradtx.from_config(gradtx.to_config(tx)) == tx


def test_adam_mini_takes_a_vector_as_one_block_and_refuses_a_missing_axis() -> None:
    assert gradtx.scale_by_adam_mini().init(jnp.zeros(7)).slots["scale_by_adam_mini"].nu.shape == ()
    with pytest.raises(StructureError) as caught:
        gradtx.adam_mini(0.1, output_axis=2).init({"w": jnp.zeros((3, 4))})
    message = str(caught.value)
    assert "an array of shape (3, 4) has no axis output_axis = 2: give such arrays" in message
    assert "partition(...)" in message


def test_adam_mini_stores_its_momentum_and_four_bytes_per_output() -> None:
    slots = jax.eval_shape(
        gradtx.adam_mini(0.1).init, jax.ShapeDtypeStruct((1024, 512), jnp.float32)
    ).slots
    assert (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(slots))
        == 4 * 1024 * 512 + 4 * 512
    )


def test_adam_mini_with_one_block_per_entry_is_adam() -> None:
    params, grads = (
        jnp.zeros((3, 4)),
        [jnp.asarray(gradient(step)[0], jnp.float32) for step in range(1, 4)],
    )
    ours, theirs = (
        run(tx, grads, params)
        for tx in (gradtx.scale_by_adam_mini(output_axis=(0, 1)), gradtx.scale_by_adam())
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_radam_divides_only_where_its_factor_is_defined() -> None:
    """Optax takes a root of a negative number at rho = 3.98, the fourth step."""
    w = jnp.ones(1)
    ours, theirs = (
        np.ravel(run(lib.scale_by_radam(threshold=3.0), [w] * 6, w)) for lib in (gradtx, optax)
    )
    assert np.isfinite(ours).all() and np.isnan(theirs[3])
    assert ours[:4].round(6).tolist() == [1.0, 1.0, 1.0, 1.0] and ours[4] < 0.1


@pytest.mark.parametrize("b2", [0.0, 0.5, 0.9, 0.99, 0.999, 0.99999])
def test_the_effective_length_is_accurate_in_float32(b2: float) -> None:
    steps = np.concatenate([np.arange(1, 200), [1e3, 1e4, 1e5, 1e6]])
    exact = np.float64(np.float32(b2))
    rate = -np.log1p(exact - 1) if b2 else np.inf
    with np.errstate(over="ignore"):
        expected = 2 / (1 - exact) - 1 - 2 * steps / np.expm1(steps * rate)
    short, decay = jnp.asarray(steps, jnp.float32), jnp.float32(b2)
    length = effective_length(decay, short, 2 / (1 - decay) - 1)
    np.testing.assert_allclose(length, expected, rtol=1e-5)


def test_the_first_steps_of_radam_are_more_accurate_than_those_of_optax() -> None:
    w = jnp.ones(1)
    ours, theirs = (np.ravel(run(lib.scale_by_radam(), [w] * 8, w)) for lib in (gradtx, optax))
    memory: dict[str, Any] = {}
    exact = np.array([ref.radam(np.ones(1), None, memory, step)[0] for step in range(1, 9)])
    mine, other = (np.max(np.abs(sizes / exact - 1)) for sizes in (ours, theirs))
    assert mine < 1e-5 and other > 1e-4


@pytest.mark.parametrize("maker", [gradtx.nadam, gradtx.nadamw])
def test_momentum_decay_needs_nesterov(maker: Any) -> None:
    with pytest.raises(
        HyperparamError,
        match=r"momentum_decay = 0\.004 schedules Nesterov momentum, and nesterov=False turns "
        r"it off: drop one of the two arguments",
    ):
        maker(0.1, nesterov=False, momentum_decay=0.004)


def test_optimistic_adam_names_its_second_version() -> None:
    for library in (gradtx, optax):
        with pytest.warns(DeprecationWarning, match="use `optimistic_adam_v2` instead"):
            library.optimistic_adam(0.1)


def test_optimistic_adam_does_not_move_at_a_rate_of_zero() -> None:
    """Optax goes on by the optimism alone."""
    w, grads = jnp.zeros(1), [jnp.ones(1), -jnp.ones(1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = run(optax.optimistic_adam(0.0, 0.5), grads, w)
    assert run(gradtx.optimistic_adam(0.0, 0.5), grads, w)[1] == 0.0 != theirs[1]


def test_adan_with_difference_weight_is_that_of_the_paper() -> None:
    """After one change d = 1 of the gradient, without averages: (g + c d) / |g + c d| is blind to
    c, the sum of squares is not.
    """
    w, grads = jnp.zeros(1), [jnp.ones(1), 2 * jnp.ones(1)]
    nu = [
        (tx := gradtx.scale_by_adan(b2=0.9, b3=0.0, difference_weight=weight)).update(
            grads[1], tx.update(grads[0], tx.init(w))[1]
        )[1]
        for weight in (None, 0.9)
    ]
    np.testing.assert_allclose(
        [state.slots["scale_by_adan"].nu[0] for state in nu], [2.1**2, 2.9**2], rtol=1e-6
    )


def test_the_proximal_form_never_overshoots_and_takes_a_schedule_without_its_peak() -> None:
    w, zero = jnp.array([3.0]), jnp.array([0.0])
    for rate in (2.0, lambda count: 2.0 + 0.0 * count):
        tx = gradtx.adan(rate, weight_decay=10.0, decay_form="proximal")
        np.testing.assert_allclose(w + run(tx, [zero], w)[0], w / 21, rtol=1e-5)
    masked = gradtx.adamw(
        2.0, weight_decay=10.0, decay_form="proximal", mask={"a": True, "b": False}
    )
    params = {"a": w, "b": w}
    assert run(masked, [{"a": zero, "b": zero}], params)[0]["b"] == 0.0


FAMILY = (
    *(
        "acprop",
        "adabelief",
        "adam",
        "adam_mini",
        "adamax",
        "adamaxw",
        "adamw",
        "adan",
        "ademamix",
        "adopt",
        "amsgrad",
        "came",
        "grams",
    ),
    *(
        "lamb",
        "laprop",
        "lion",
        "mars",
        "nadam",
        "nadamw",
        "novograd",
        "optimistic_adam",
        "optimistic_adam_v2",
        "radam",
    ),
    *("schedule_free_adamw", "simplified_ademamix", "sophia", "stable_adamw", "tiger", "yogi"),
)


@pytest.mark.parametrize("name", FAMILY)
def test_every_optimizer_passes_its_flags_to_descend(name: str) -> None:
    """What they do there is compared with references, once, in the rows of `adam`, `adamw`, `lion`
    and `adan`.
    """
    for decay_form in get_args(DecayForm):
        flags = {"decay_form": decay_form, "cautious": True, "peak_learning_rate": 0.5}
        one = getattr(gradtx, name)(0.1, weight_decay=0.25, **flags)
        while one.factory.__name__ != "descend":
            one = one.arguments.get("base_optimizer") or one.expansion
        assert {flag: one.arguments.get(flag) for flag in (*flags, "weight_decay")} == {
            **flags,
            "weight_decay": 0.25,
        }
