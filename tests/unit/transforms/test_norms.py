"""Corner cases of the methods that factor, normalise and take signs, and what Optax gives there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
from gradtx.definition.errors import HyperparamError, StateError, StructureError
from gradtx.transforms.factoring import Factored, factored_axes, init_factored
from tests.support.following import updates_of
from tests.support.peer import optax
from tests.support.trees import deviation, follow

GENERATOR = np.random.default_rng(0)
WEIGHT, GRAD = (jnp.asarray(GENERATOR.normal(size=(3, 4)), jnp.float32) for _ in range(2))


# adafactor


def test_adafactor_beside_optax_whose_decay_is_computed_in_float32() -> None:
    """The whole of it; its parts are compared to 1e-12 in test_oracles.py, with a decay in
    float64.
    """
    arguments = {
        "learning_rate": 0.1,
        "min_dim_size_to_factor": 2,
        "momentum": 0.9,
        "weight_decay_rate": 0.01,
        "dtype_momentum": "float64",
    }
    with jax.enable_x64(True):
        ours, theirs = (
            follow(library.adafactor(**arguments), jnp.float64) for library in (gradtx, optax)
        )
        assert deviation(ours, theirs) < 1e-6
        ours, theirs = (
            follow(library.adafactor(None, 2, clipping_threshold=None), jnp.float64)
            for library in (gradtx, optax)
        )
        assert deviation(ours, theirs) < 1e-6


@pytest.mark.parametrize(
    "shape",
    [
        (3, 4),
        (4, 3),
        (3, 3),
        (2, 3, 2),
        (3, 2, 3),
        (2, 2, 2),
        (5, 4, 3),
        (4, 3, 5, 2),
        (4, 4, 4, 2),
        (1, 4),
        (4,),
        (),
    ],
)
def test_the_axes_that_are_factored_are_those_of_optax(shape: tuple[int, ...]) -> None:
    theirs = optax.scale_by_factored_rms(min_dim_size_to_factor=2).init(jnp.ones(shape))
    ours = (
        gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
        .init(jnp.ones(shape))
        .slots["scale_by_factored_rms"]
    )
    if factored_axes(shape, 2) is None:
        assert (ours.nu_row, ours.nu_col, ours.nu.shape) == (None, None, theirs.v.shape)
    else:
        assert (ours.nu_row.shape, ours.nu_col.shape, ours.nu) == (
            theirs.v_row.shape,
            theirs.v_col.shape,
            None,
        )


def test_a_decay_of_ones_own_is_told_the_count_and_the_exponent_as_by_optax() -> None:
    def decay(count: Any, exponent: Any) -> Any:
        return exponent * (count + 1) / (count + 2)

    grads = [GRAD, 2 * GRAD, -GRAD]
    ours, theirs = (
        updates_of(
            library.scale_by_factored_rms(min_dim_size_to_factor=2, decay_rate_fn=decay),
            grads,
            WEIGHT,
        )
        for library in (gradtx, optax)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.scale_by_factored_rms(min_dim_size_to_factor=2),
        gradtx.scale_by_came(),
        gradtx.scale_by_sm3(),
    ],
    ids=str,
)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_one_bad_entry_does_not_reach_its_row_and_column_at_later_steps(
    tx: Any, bad: float
) -> None:
    last = updates_of(tx, [GRAD, GRAD.at[1, 2].set(bad), GRAD, GRAD], WEIGHT)[-1]
    assert bool(jnp.isfinite(last.at[1, 2].set(0.0)).all())


def test_a_state_that_was_factored_otherwise_is_refused() -> None:
    state = gradtx.adafactor(0.1, min_dim_size_to_factor=2).init(WEIGHT)
    with pytest.raises(
        StateError,
        match=r"slot 'nu_row' of member scale_by_factored_rms at '' is f32\[3\], for a "
        r"gradient f32\[3,4\]",
    ):
        gradtx.adafactor(0.1).update(GRAD, state, WEIGHT)


def test_a_rule_may_not_drop_a_slot_that_it_keeps() -> None:
    with pytest.raises(
        ValueError, match="drop returned None as slot 'nu', and `init` made it an array: return it"
    ):
        tx = gradtx.leafwise(keep, drop)
        tx.update(GRAD, tx.init(WEIGHT))


def keep(param: Any) -> Factored:
    return init_factored(param, None)


def drop(grad: Any, slots: Any, param: Any, step: Any) -> Any:
    return grad, slots._replace(nu=None)


@pytest.mark.parametrize(
    "tx", [gradtx.scale_by_factored_rms(min_dim_size_to_factor=4), gradtx.scale_by_came()], ids=str
)
def test_rows_and_columns_are_sharded_as_the_parameter_is_along_them(tx: Any) -> None:
    mesh = jax.make_mesh((2, 2), ("x", "y"))
    w = jax.device_put(jnp.ones((4, 8)), NamedSharding(mesh, PartitionSpec("x", "y")))
    state = tx.init(w)
    (slots,) = state.slots.values()
    assert (slots.nu_row.sharding.spec, slots.nu_col.sharding.spec) == (
        PartitionSpec("x"),
        PartitionSpec("y"),
    )
    with jax.set_mesh(mesh):
        _, new = tx.update(w, state, w)
    assert jax.tree.map(lambda kept: kept.sharding.spec, new.slots) == jax.tree.map(
        lambda kept: kept.sharding.spec, state.slots
    )


# signs


def test_rprop_in_optax_is_a_step_late() -> None:
    """Its first update is zero, and each further one is the step that this gradient's forerunner
    asked for.
    """
    grads = [jnp.array([sign]) for sign in (1.0, 1.0, 1.0, -1.0, -1.0, -1.0)]
    ours, theirs = (
        np.ravel(updates_of(library.scale_by_rprop(0.1), grads, grads[0]))
        for library in (gradtx, optax)
    )
    np.testing.assert_allclose(ours, [0.1, 0.12, 0.144, 0.0, -0.072, -0.0864], rtol=1e-6)
    np.testing.assert_allclose(theirs, [0.0, 0.1, 0.12, 0.0, 0.0, -0.072], rtol=1e-6)


def test_rprop_in_optax_moves_where_the_gradient_is_zero() -> None:
    grads = [jnp.array([1.0]), jnp.array([0.0])]
    ours, theirs = (
        updates_of(library.scale_by_rprop(0.1), grads, grads[0])[-1].item()
        for library in (gradtx, optax)
    )
    assert ours == 0.0 and theirs == pytest.approx(0.1)


def test_tiger_is_lion_with_one_average() -> None:
    ours, lion = gradtx.tiger(0.1, b1=0.9), gradtx.lion(0.1, b1=0.9, b2=0.9, weight_decay=0.01)
    assert deviation(follow(ours, jnp.float32), follow(lion, jnp.float32)) == 0.0


# other methods


def test_adadelta_without_a_learning_rate_descends() -> None:
    """Optax leaves the minus out with it."""
    ours, theirs = (
        updates_of(library.adadelta(), [GRAD], WEIGHT)[0] for library in (gradtx, optax)
    )
    np.testing.assert_allclose(ours, -theirs, rtol=1e-6)
    assert bool(jnp.all(ours * GRAD < 0))


def test_madgrad_beside_optax_whose_weights_are_computed_in_float32() -> None:
    for arguments in ((0.1, 0.9, 0.1), (0.1, 0.0, 0.0, 0.05)):
        with jax.enable_x64(True):
            ours, theirs = (
                follow(gradtx.madgrad(*arguments), jnp.float64),
                follow(optax.contrib.madgrad(*arguments), jnp.float64),
            )
        assert deviation(ours, theirs) < 1e-6


def test_sm3_of_a_scalar_is_adagrad_and_in_optax_an_error() -> None:
    w, grads = jnp.zeros(()), [jnp.asarray(3.0), jnp.asarray(4.0)]
    np.testing.assert_allclose(
        updates_of(gradtx.scale_by_sm3(b1=0.0), grads, w), [1.0, 0.8], rtol=1e-6
    )
    with pytest.raises(IndexError):
        updates_of(optax.scale_by_sm3(b1=0.0), grads, w)


def test_sm3_keeps_one_number_per_row_and_per_column() -> None:
    slots = gradtx.sm3(0.1).init(jnp.zeros((3, 4, 5))).slots["scale_by_sm3"]
    assert slots.nu.shape == (12,)


@pytest.mark.parametrize("mask", [True, None])
def test_lars_takes_true_and_none_for_all(mask: Any) -> None:
    ours, all_in = (
        gradtx.lars(0.1, 0.1, mask, trust_ratio_mask=mask),
        gradtx.lars(0.1, 0.1, r".*", trust_ratio_mask=r".*"),
    )
    assert deviation(follow(ours, jnp.float32), follow(all_in, jnp.float32)) == 0.0


def test_came_of_a_vector_steps_by_its_momentum() -> None:
    (update,) = updates_of(gradtx.scale_by_came(b1=0.5), [jnp.array([3.0, -3.0])], jnp.zeros(2))
    np.testing.assert_allclose(update, [0.5, -0.5], rtol=1e-6)


@pytest.mark.parametrize("tx", [gradtx.lamb, gradtx.tiger, gradtx.came])
def test_the_flags_of_descend_are_taken(tx: Any) -> None:
    with pytest.raises(HyperparamError, match="decay_form = 'sideways' is unknown"):
        tx(0.1, decay_form="sideways", weight_decay=0.1)
    assert gradtx.hyperparams(tx(0.1, weight_decay=0.25))["weight_decay"] == 0.25


# transforms


@pytest.mark.parametrize("name", ["normalize", "normalize_by_update_norm"])
def test_normalizing_a_zero_gradient_gives_zero(name: str) -> None:
    """Optax's `normalize` gives nan."""
    tx = gradtx.normalize() if name == "normalize" else gradtx.normalize_by_update_norm(eps=0.0)
    assert updates_of(tx, [jnp.zeros(2)], jnp.zeros(2))[0].tolist() == [0.0, 0.0]


def test_centralize_over_other_axes() -> None:
    g = jnp.arange(12.0).reshape(2, 3, 2) ** 2
    (update,) = updates_of(gradtx.centralize(axis=(0, 1)), [g], g)
    np.testing.assert_allclose(update, g - g.mean(axis=(0, 1), keepdims=True), rtol=1e-6)


SHAPES = [
    (),
    (5,),
    (1, 5),
    (5, 1),
    (4, 5),
    (1, 4, 5),
    (3, 4, 5),
    (3, 1, 5),
    (1, 3, 4, 5),
    (2, 3, 4, 5),
    (2, 3, 1, 5),
    (1, 2, 3, 4, 5),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("axis", [None, -1, (0, 1)])
def test_the_units_of_adaptive_grad_clip_are_those_of_optax(
    shape: tuple[int, ...], axis: Any
) -> None:
    if axis is not None and len(shape) < 2:
        axis = None
    w, g = (jnp.asarray(GENERATOR.normal(size=shape), jnp.float32) for _ in range(2))
    ours, theirs = (
        updates_of(library.adaptive_grad_clip(0.1, axis=axis), [g], w)[0]
        for library in (gradtx, optax)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_weights_at_zero_can_leave_it_under_adaptive_grad_clip() -> None:
    w = jnp.zeros((2, 2))
    ours, theirs = (
        updates_of(library.adaptive_grad_clip(0.5, eps=0.1), [jnp.ones((2, 2))], w)[0]
        for library in (gradtx, optax)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(ours, 0.05 / np.sqrt(2), rtol=1e-6)


def test_an_axis_that_an_array_does_not_have_is_told_with_its_path() -> None:
    tx, w = gradtx.adaptive_grad_clip(0.1, axis=1), {"bias": jnp.ones(3)}
    with pytest.raises(ValueError, match="axis 1 is out of bounds") as caught:
        tx.update(w, tx.init(w), w)
    assert "raised at 'bias', a gradient f32[3]" in "".join(caught.value.__notes__)


EXAMPLES = {
    "a": jnp.asarray(GENERATOR.normal(size=(3, 2)), jnp.float32),
    "b": jnp.asarray(GENERATOR.normal(size=(3, 2, 2)), jnp.float32),
}


@pytest.mark.parametrize("bound", [0.5, 2.2, 9.0])
def test_per_example_clipping_beside_optax(bound: float) -> None:
    ours, theirs = (
        library.per_example_global_norm_clip(EXAMPLES, bound) for library in (gradtx, optax)
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), ours, theirs)
    for uniform in (True, False):
        ours, theirs = (
            library.per_example_layer_norm_clip(EXAMPLES, bound, uniform)
            for library in (gradtx, optax)
        )
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), ours, theirs
        )


def test_per_example_clipping_keeps_dtypes_and_zeros() -> None:
    grads = {"w": jnp.zeros((3, 2), jnp.bfloat16)}
    total, clipped = jax.jit(gradtx.per_example_global_norm_clip)(grads, 1.0)
    assert (
        total["w"].dtype == jnp.bfloat16 and total["w"].tolist() == [0.0, 0.0] and int(clipped) == 0
    )


def test_integer_gradients_per_example_sum_to_a_float() -> None:
    """Gradients in whole numbers, whose clipped sum is none."""
    grads = {"w": jnp.array([[3, 4], [0, 1]])}
    for name in ("per_example_global_norm_clip", "per_example_layer_norm_clip"):
        total, _ = getattr(gradtx, name)(grads, 2.5)
        np.testing.assert_allclose(total["w"], [1.5, 3.0], rtol=1e-6)


def test_an_example_that_is_not_finite_counts_as_clipped_and_adds_nothing_elsewhere() -> None:
    grads = {"w": jnp.array([[jnp.nan, 5.0], [0.0, 1.0]])}
    total, clipped = gradtx.per_example_global_norm_clip(grads, 2.0)
    assert jnp.isnan(total["w"][0]) and total["w"][1] == 1.0 and int(clipped) == 1


@pytest.mark.parametrize("name", ["per_example_global_norm_clip", "per_example_layer_norm_clip"])
def test_gradients_without_a_common_batch_axis_are_refused(name: str) -> None:
    for second, shown in ((jnp.ones((2, 4)), r"f32\[2,4\]"), (jnp.ones(()), r"f32\[\]")):
        with pytest.raises(
            StructureError,
            match=rf"{name} needs gradients per example, .* the first array is f32\[3,2\], and "
            rf"'b' is {shown}",
        ):
            getattr(gradtx, name)({"a": jnp.ones((3, 2)), "b": second}, 1.0)
