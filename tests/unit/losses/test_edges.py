"""Where losses break: zero vectors, equal and extreme logits, empty labels, masks that hold nan."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax.losses
import pytest

from gradtx import losses

INF, NAN = jnp.inf, jnp.nan


class Edge(NamedTuple):
    """A call at an edge, and its value."""

    loss: Callable[..., jax.Array]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: Any


def edge(loss: Callable[..., jax.Array], *args: Any, value: Any, **kwargs: Any) -> Edge:
    return Edge(loss, tuple(map(jnp.asarray, args)), kwargs, value)


NONE = jnp.zeros(3, bool)
BAD = jnp.array([NAN, INF, NAN])
FIRST = jnp.array([True, False, False])
LOG_SUM_EXP = losses.make_fenchel_young_loss(jax.nn.logsumexp)
EDGES = {
    "squared_error/zeros": edge(losses.squared_error, jnp.zeros(2), jnp.zeros(2), value=[0, 0]),
    "squared_error/complex": edge(losses.squared_error, [3 + 4j, 0j], value=[25, 0]),
    "l2_loss/zeros": edge(losses.l2_loss, jnp.zeros(2), value=[0, 0]),
    "huber_loss/zeros": edge(losses.huber_loss, jnp.zeros(2), value=[0, 0]),
    "huber_loss/complex": edge(losses.huber_loss, [3 + 4j, 0j], value=[4.5, 0]),
    "huber_loss/no delta": edge(losses.huber_loss, [1.0, 0.0], delta=0.0, value=[0, 0]),
    "log_cosh/zeros": edge(losses.log_cosh, jnp.zeros(2), value=[0, 0]),
    "log_cosh/small": edge(losses.log_cosh, [1e-4, 1e-10], value=[5e-9, 5e-21]),
    "cosine_similarity/zeros": edge(losses.cosine_similarity, jnp.zeros(3), jnp.ones(3), value=0),
    "cosine_similarity/both": edge(losses.cosine_similarity, jnp.zeros(3), jnp.zeros(3), value=0),
    "cosine_similarity/floor": edge(
        losses.cosine_similarity, jnp.zeros(3), jnp.ones(3), epsilon=1e-8, value=0
    ),
    "cosine_distance/zeros": edge(losses.cosine_distance, jnp.zeros(3), jnp.ones(3), value=1),
    "cosine_distance/masked": edge(
        losses.cosine_distance, jnp.where(FIRST, 2.0, BAD), jnp.ones(3), where=FIRST, value=0
    ),
    "cosine_distance/all masked": edge(
        losses.cosine_distance, BAD, jnp.ones(3), where=NONE, value=1
    ),
    "kl_divergence/empty target": edge(losses.kl_divergence, jnp.zeros(3), jnp.zeros(3), value=0),
    "kl_divergence/both zero": edge(
        losses.kl_divergence, [-INF, 0.0], [0.0, 1.0], value=0
    ),
    "kl_divergence/all masked": edge(losses.kl_divergence, BAD, BAD, where=NONE, value=0),
    "kl_divergence/masked": edge(
        losses.kl_divergence, jnp.where(FIRST, 0.0, BAD), jnp.where(FIRST, 1.0, BAD), where=FIRST,
        value=0,
    ),
    "kl_divergence_with_log_targets/zero": edge(
        losses.kl_divergence_with_log_targets, [-1e4, 0.0], [-INF, 0.0], value=0
    ),
    "kl_divergence_with_log_targets/all masked": edge(
        losses.kl_divergence_with_log_targets, BAD, BAD, where=NONE, value=0
    ),
    "generalized_kl_divergence/empty target": edge(
        losses.generalized_kl_divergence, [-INF, 0.0], [0.0, 0.0], value=1
    ),
    "generalized_kl_divergence/masked": edge(
        losses.generalized_kl_divergence, jnp.where(FIRST, 0.0, BAD), jnp.zeros(3), where=FIRST,
        value=1,
    ),
    "hinge_loss/bend": edge(losses.hinge_loss, [1.0, 0.0], [1.0, 1.0], value=[0, 1]),
    "perceptron_loss/bend": edge(losses.perceptron_loss, [0.0, 1e4], [1.0, -1.0], value=[0, 1e4]),
    "multiclass_hinge_loss/equal": edge(losses.multiclass_hinge_loss, jnp.zeros(3), 1, value=1),
    "multiclass_hinge_loss/impossible": edge(
        losses.multiclass_hinge_loss, [5.0, -INF, 0.0], 0, value=0
    ),
    "multiclass_hinge_loss/outside": edge(
        losses.multiclass_hinge_loss, [[5.0, 1.0], [5.0, 1.0]], [2, -1], value=[6, 6]
    ),
    "multiclass_perceptron_loss/equal": edge(
        losses.multiclass_perceptron_loss, jnp.zeros(3), 1, value=0
    ),
    "multiclass_perceptron_loss/impossible": edge(
        losses.multiclass_perceptron_loss, [5.0, -INF, 0.0], 2, value=5
    ),
    "multiclass_perceptron_loss/outside": edge(
        losses.multiclass_perceptron_loss, [[5.0, 1.0], [5.0, 1.0]], [2, -1], value=[5, 5]
    ),
    "multiclass_sparsemax_loss/equal": edge(
        losses.multiclass_sparsemax_loss, jnp.zeros(2), 1, value=0.25
    ),
    "multiclass_sparsemax_loss/impossible": edge(
        losses.multiclass_sparsemax_loss, [5.0, -INF, 0.0], 0, value=0
    ),
    "multiclass_sparsemax_loss/outside": edge(
        losses.multiclass_sparsemax_loss, [[5.0, 1.0], [5.0, 1.0]], [7, -2], value=[4, 0]
    ),
    "sparsemax_loss/bend": edge(losses.sparsemax_loss, [1.0, -1, 0], [1, 1, 0], value=[0, 1, 0.25]),
    "sparsemax_loss/infinite": edge(losses.sparsemax_loss, [INF, -INF], [1, 0], value=[0, 0]),
    "sigmoid_binary_cross_entropy/saturated": edge(
        losses.sigmoid_binary_cross_entropy, [1e4, -1e4, 1e4], [1, 0, 0], value=[0, 0, 1e4]
    ),
    "sigmoid_binary_cross_entropy/infinite": edge(
        losses.sigmoid_binary_cross_entropy, [INF, -INF], [1, 0], value=[0, 0]
    ),
    "sigmoid_focal_loss/saturated": edge(
        losses.sigmoid_focal_loss, [1e4, -1e4, 1e4], [1, 0, 0], value=[0, 0, 1e4]
    ),
    "sigmoid_focal_loss/small gamma": edge(
        losses.sigmoid_focal_loss, [1e4, -1e4, 1e4], [1, 0, 0], gamma=0.5, value=[0, 0, 1e4]
    ),
    "sigmoid_focal_loss/infinite": edge(
        losses.sigmoid_focal_loss, [INF, -INF], [1, 0], gamma=0.5, value=[0, 0]
    ),
    "poly_loss_cross_entropy/empty label": edge(
        losses.poly_loss_cross_entropy, jnp.zeros(3), jnp.zeros(3), value=0
    ),
    "poly_loss_cross_entropy/impossible": edge(
        losses.poly_loss_cross_entropy, [0.0, -INF], [1.0, 0.0], value=0
    ),
    "poly_loss_cross_entropy/saturated": edge(
        losses.poly_loss_cross_entropy, [1e4, -1e4], [0.0, 1.0], value=20002
    ),
    "poly_loss_cross_entropy/masked": edge(
        losses.poly_loss_cross_entropy, jnp.where(FIRST, 1.0, BAD), jnp.where(FIRST, 1.0, BAD),
        where=FIRST, value=0,
    ),
    "poly_loss_cross_entropy/all masked": edge(
        losses.poly_loss_cross_entropy, BAD, BAD, where=NONE, value=0
    ),
    "ranking_softmax_loss/no relevance": edge(
        losses.ranking_softmax_loss, [[0.0, 1.0]], [[0, 0]], value=0
    ),
    "ranking_softmax_loss/impossible": edge(
        losses.ranking_softmax_loss, [[0.0, -INF]], [[1, 0]], value=0
    ),
    "ranking_softmax_loss/masked": edge(
        losses.ranking_softmax_loss, jnp.where(FIRST, 1.0, BAD), jnp.ones(3), where=FIRST, value=0
    ),
    "ranking_softmax_loss/all masked": edge(
        losses.ranking_softmax_loss, BAD[None], BAD[None], where=NONE[None], value=0
    ),
    "smooth_labels/all masked": edge(
        losses.smooth_labels, jnp.zeros(3), 0.5, where=NONE, value=[0.5, 0.5, 0.5]
    ),
    "dice_loss/empty": edge(
        losses.dice_loss, jnp.full((1, 2, 2), -1e4), jnp.zeros((1, 2, 2)), smooth=0.0, value=[1]
    ),
    "dice_loss/saturated": edge(
        losses.dice_loss, [[[1e4, -1e4]]], [[[1.0, 0.0]]], smooth=0.0, value=[0]
    ),
    "binary_dice_loss/empty": edge(
        losses.binary_dice_loss, jnp.full((1, 2), -1e4), jnp.zeros((1, 2)), smooth=0.0, value=[0]
    ),
    "multiclass_generalized_dice_loss/empty": edge(
        losses.multiclass_generalized_dice_loss, jnp.zeros((1, 2, 2)), jnp.zeros((1, 2, 2)),
        value=1 / 3,
    ),
    "ntxent/zeros": edge(losses.ntxent, jnp.zeros((4, 2)), [0, 0, 1, 1], value=np.log(3)),
    "ntxent/equal": edge(losses.ntxent, jnp.ones((4, 2)), [0, 0, 1, 1], value=np.log(3)),
    "ntxent/no pair": edge(losses.ntxent, jnp.ones((2, 2)), [0, 1], value=0),
    "ntxent/no negative": edge(losses.ntxent, jnp.ones((2, 2)), [0, 0], value=0),
    "ntxent/cold": edge(
        losses.ntxent, [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [0, 0, 1], temperature=1e-4,
        value=(1e4 + np.log(2)) / 2,
    ),
    "triplet_margin_loss/equal": edge(
        losses.triplet_margin_loss, jnp.zeros(2), jnp.zeros(2), jnp.zeros(2), eps=0.0, value=1
    ),
    "triplet_margin_loss/cubes": edge(
        losses.triplet_margin_loss, jnp.zeros(2), jnp.zeros(2), jnp.zeros(2), eps=0.0,
        norm_degree=jnp.array(3.0), value=1,
    ),
    "triplet_margin_loss/roots": edge(
        losses.triplet_margin_loss, jnp.zeros(2), jnp.array([0.0, 1.0]), jnp.ones(2), eps=0.0,
        norm_degree=0.5, value=0,
    ),
    "make_fenchel_young_loss/equal": edge(
        LOG_SUM_EXP, jnp.zeros(2), jnp.array([1.0, 0.0]), value=np.log(2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_values_at_the_edges_are_right_and_gradients_finite(name: str) -> None:
    """The gradient to every float argument: also to targets of 0, which a logarithm takes."""
    loss, args, kwargs, value = EDGES[name]
    floats = tuple(n for n, one in enumerate(args) if jnp.issubdtype(one.dtype, jnp.inexact))

    @jax.jit
    def both(*args: jax.Array) -> Any:
        def total(*args: jax.Array) -> tuple[jax.Array, jax.Array]:
            result = loss(*args, **kwargs)
            return jnp.sum(result), result

        return jax.grad(total, floats, has_aux=True)(*args)

    gradients, result = both(*args)
    np.testing.assert_allclose(result, np.asarray(value, float), rtol=2e-5, atol=1e-25)
    assert all(np.all(np.isfinite(one)) for one in gradients), gradients


def test_every_loss_has_an_edge() -> None:
    public = {name for name in dir(losses) if name[0] != "_"} & set(dir(optax.losses))
    here = {name.split("/")[0] for name in EDGES}
    elsewhere = {name for name in public if "cross_entropy" in name or "ctc" in name} - here
    assert public - here == elsewhere | {"convex_kl_divergence"}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "name",
    [name for name in EDGES if name.rpartition("/")[2] in ("saturated", "equal", "bend", "zeros")],
)
def test_low_precision_is_that_of_float32_rounded(name: str, dtype: Any) -> None:
    loss, args, kwargs, _ = EDGES[name]
    low = [one.astype(dtype) if jnp.issubdtype(one.dtype, jnp.floating) else one for one in args]
    high = [
        one.astype(jnp.float32) if jnp.issubdtype(one.dtype, jnp.floating) else one for one in low
    ]
    result = loss(*low, **kwargs)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, loss(*high, **kwargs).astype(dtype))


def test_a_derivative_of_the_second_order() -> None:
    """Losses with a derivative of their own: it is differentiated again."""
    curvature = jax.vmap(jax.grad(jax.grad(losses.log_cosh)))
    np.testing.assert_allclose(curvature(jnp.array([0.0, 1e4])), [1, 0], atol=1e-6)
    entropy = jax.grad(jax.grad(lambda z: losses.sigmoid_binary_cross_entropy(z, 1)))
    np.testing.assert_allclose(entropy(0.0), 0.25, rtol=1e-6)
    hessian = jax.hessian(lambda s: losses.multiclass_sparsemax_loss(s, jnp.array(0)))
    np.testing.assert_allclose(
        hessian(jnp.array([0.2, 0.1, -5.0])), [[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 0]], atol=1e-6
    )


def test_gradients_to_labels_and_hyperparameters() -> None:
    """A soft label and γ are data, too."""
    to_label = jax.grad(losses.sigmoid_binary_cross_entropy, 1)(2.0, 0.25)
    np.testing.assert_allclose(to_label, -2.0, rtol=1e-6)
    focal = lambda gamma: losses.sigmoid_focal_loss(1.0, 1, gamma=gamma)  # noqa: E731
    miss = 1 - jax.nn.sigmoid(1.0)
    np.testing.assert_allclose(
        jax.grad(focal)(2.0), miss**2 * np.log(miss) * jax.nn.softplus(-1.0), rtol=1e-5
    )


def test_a_count_of_classes_does_not_wrap_in_eight_bits() -> None:
    scores = jnp.zeros(300).at[259].set(9.0)
    assert losses.multiclass_perceptron_loss(scores, jnp.uint8(3)) == 9.0
    assert losses.multiclass_sparsemax_loss(scores, jnp.int8(-41)) == 0.0


def test_weights_of_a_loss_under_vmap_and_grad() -> None:
    rows = jax.random.normal(jax.random.key(0), (3, 4, 5))
    labels = jnp.array([[0, 1, 2, 3]] * 3)
    batched = losses.multiclass_sparsemax_loss(rows, labels)
    np.testing.assert_allclose(
        jax.vmap(losses.multiclass_sparsemax_loss)(rows, labels), batched, rtol=1e-6
    )


def test_the_reduction_of_a_ranking_loss_is_told_which_lists_have_items() -> None:
    z, where = jnp.zeros((2, 2)), jnp.array([[True, True], [False, False]])
    received: list[Any] = []

    def reduce_fn(loss: jax.Array, where: Any) -> jax.Array:
        received.append(where)
        return jnp.sum(loss)

    losses.ranking_softmax_loss(z, z, where=where, reduce_fn=reduce_fn)
    losses.ranking_softmax_loss(z, z, reduce_fn=reduce_fn)
    assert received[0].tolist() == [True, False] and received[1] is None


def test_further_arguments_reach_max_fun() -> None:
    def scaled(vector: jax.Array, scale: float, *, shift: float) -> jax.Array:
        return scale * jnp.max(vector) + shift

    loss = losses.make_fenchel_young_loss(scaled)
    scores, targets = jnp.array([[1.0, 3.0], [2.0, 0.0]]), jnp.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(loss(scores, targets, 2.0, shift=1.0), [4.0, 3.0])
    np.testing.assert_allclose(loss(scores=scores, targets=targets, scale=1.0, shift=0.0), [0, 0])


def test_probabilities_that_are_logits_are_noticed_outside_of_jit() -> None:
    t = jnp.eye(2)[None]
    call = jax.jit(lambda p: losses.dice_loss(p, t, apply_softmax=False))
    np.testing.assert_allclose(call(jnp.full((1, 2, 2), 0.5)), [1 - 1.5 / 2], rtol=1e-6)
    np.testing.assert_allclose(losses.dice_loss(t, t, apply_softmax=False), [0], atol=1e-6)
    one = losses.binary_dice_loss(jnp.array([[0.2, 0.4]]), jnp.ones((1, 2)), apply_sigmoid=False)
    np.testing.assert_allclose(one, [1 - (0.6 + 1) / (0.3 + 1 + 1)], rtol=1e-6)
