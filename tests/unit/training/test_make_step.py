"""make_step by parts: the step of the whole batch, weights, auxiliary output, keys, and what is
refused.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.definition.errors import GradtxError

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.zeros(3), "absent": None}
X = jnp.asarray(np.random.default_rng(0).normal(size=(12, 2)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).normal(size=(12, 3)), jnp.float32)
RATE = gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 3, 20)
TX = gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.adamw(RATE, weight_decay=0.1))


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"][None]) - y) ** 2)


def train(steps: int = 20, **options: Any) -> tuple[Any, list[float]]:
    step, state = gradtx.make_step(loss, TX, donate=False, **options), TX.init(PARAMS)
    params, values = PARAMS, []
    for _ in range(steps):
        params, state, value = step(params, state, X, Y)
        values.append(float(value))
    return params, values


@pytest.mark.parametrize("parts", [1, 2, 4, 12])
def test_parts_make_the_step_of_the_whole_batch(parts: int) -> None:
    """20 updates; the sums are in another order."""
    (ours, values), (whole, expected) = train(microbatches=parts), train()
    for name in ("w", "b"):
        np.testing.assert_allclose(ours[name], whole[name], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(values, expected, rtol=2e-6)


def masked_loss(params: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
    """A mean over what the mask shows, as over the tokens of a batch."""
    return jnp.sum(mask * (params["w"] - x) ** 2) / jnp.maximum(jnp.sum(mask), 1.0)


def test_parts_are_weighed() -> None:
    x, mask = (
        jnp.arange(8.0),
        jnp.array([1.0, 1, 1, 0, 1, 0, 1, 0]),
    )  # examples 1, 3, 5, 7 make the second part, with one that counts
    params = {"w": jnp.asarray(2.0)}
    tx = gradtx.sgd(0.5)
    expected, _, whole = gradtx.make_step(masked_loss, tx, donate=False)(
        params, tx.init(params), x, mask
    )
    weighed = gradtx.make_step(
        masked_loss, tx, donate=False, microbatches=2, weigh=lambda x, mask: jnp.sum(mask)
    )
    ours, _, value = weighed(params, tx.init(params), x, mask)
    assert float(ours["w"]) == pytest.approx(float(expected["w"]), rel=1e-6) and float(
        value
    ) == pytest.approx(float(whole), rel=1e-6)
    unweighed, _, _ = gradtx.make_step(masked_loss, tx, donate=False, microbatches=2)(
        params, tx.init(params), x, mask
    )
    assert abs(float(unweighed["w"]) - float(expected["w"])) > 0.1


def test_a_batch_of_no_weight_moves_nothing() -> None:
    params, tx = {"w": jnp.asarray(2.0)}, gradtx.sgd(0.5)
    step = gradtx.make_step(
        masked_loss, tx, donate=False, microbatches=2, weigh=lambda x, mask: jnp.sum(mask)
    )
    new, _, value = step(params, tx.init(params), jnp.arange(4.0), jnp.zeros(4))
    assert float(new["w"]) == 2.0 and float(value) == 0.0


def test_what_parts_are_made_of() -> None:
    """Examples in turn; scalars as they are; a key of its own for each part; auxiliary output part
    by part.
    """

    def seen(w: jax.Array, x: jax.Array, factor: Any, key: jax.Array) -> Any:
        return w * jnp.mean(x), {"x": x, "factor": factor, "key": jax.random.key_data(key)}

    step = gradtx.make_step(seen, gradtx.sgd(1.0), has_aux=True, donate=False, microbatches=2)
    key = jax.random.key(3)
    w, _, value, aux = step(
        jnp.asarray(1.0), gradtx.sgd(1.0).init(jnp.asarray(1.0)), jnp.arange(6.0), 7.0, key
    )
    assert aux["x"].tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]] and aux["factor"].tolist() == [
        7.0,
        7.0,
    ]
    assert aux["key"].tolist() == jax.random.key_data(jax.random.split(key, 2)).tolist()
    assert float(value) == 2.5 and float(w) == -1.5


def test_gradients_of_bfloat16_are_summed_in_float32() -> None:
    x = jnp.concatenate([jnp.full(1, 256.0), jnp.ones(7)]).astype(
        jnp.bfloat16
    )  # in bfloat16, 256 + 1 is 256
    params = {"w": jnp.asarray(0.0, jnp.bfloat16)}
    tx = gradtx.trace(0.0)
    step = gradtx.make_step(
        lambda params, x: jnp.mean(params["w"] * x), tx, donate=False, microbatches=8
    )
    _, state, _ = step(params, tx.init(params), x)
    assert float(state.slots["trace"].trace["w"]) == 263 / 8


def test_a_line_search_by_parts_sees_the_whole_loss() -> None:
    tx = gradtx.lbfgs()
    values: dict[int, float] = {}
    for parts in (1, 3):
        params, state = PARAMS, tx.init(PARAMS)
        step = gradtx.make_step(loss, tx, donate=False, microbatches=parts)
        value = None
        for _ in range(4):
            params, state, value = step(params, state, X, Y)
        values[parts] = float(jnp.asarray(value))
    assert values[3] == pytest.approx(values[1], rel=1e-4) and values[3] < 0.9 * float(
        loss(PARAMS, X, Y)
    )


def test_a_batch_that_is_spread_over_devices_stays_where_it_is() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
    spread = NamedSharding(mesh, PartitionSpec("x"))
    x, y = (jax.device_put(jnp.concatenate([a] * 4)[:16], spread) for a in (X, Y))
    params = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec()))
    state = TX.init(params)
    step: Any = gradtx.make_step(loss, TX, donate=False, microbatches=4)
    text = step.lower(params, state, x, y).compile().as_text()
    assert "all-to-all" not in text and "all-gather" not in text and "all-reduce" in text
    ours, _, value = step(params, state, x, y)
    alone, _, expected = gradtx.make_step(loss, TX, donate=False)(
        PARAMS, TX.init(PARAMS), *map(np.asarray, (x, y))
    )
    np.testing.assert_allclose(ours["w"], alone["w"], rtol=1e-5)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_what_is_refused() -> None:
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(
            GradtxError,
            match=r"make_step: microbatches = .* is not a number of parts; give a whole number "
            r"from 1 on",
        ):
            gradtx.make_step(loss, TX, microbatches=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        GradtxError,
        match=r"microbatches = 5 does not divide the first axis of the batch at '0', \(12, 2\)",
    ):
        gradtx.make_step(loss, TX, microbatches=5)(PARAMS, TX.init(PARAMS), X, Y)
    for parts in (1, 2):
        with pytest.raises(
            GradtxError,
            match=r"make_step: the loss has shape \(\d+,\), and must be a scalar: take its mean",
        ):
            gradtx.make_step(lambda params, x: x[:, 0], TX, microbatches=parts)(
                PARAMS, TX.init(PARAMS), X
            )
    plateau = gradtx.reduce_on_plateau()
    with pytest.raises(
        GradtxError,
        match=r"reduce_on_plateau needs value= as a scalar, and it has shape \(3,\): pass the "
        r"mean loss",
    ):
        plateau.update(PARAMS, plateau.init(PARAMS), value=jnp.ones(3))


def test_a_part_without_weight_adds_nothing_be_it_nan() -> None:
    """Examples 0 and 2 make the first part, which has no token, and whose mean is 0/0."""

    def mean(params: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.sum(mask * (params["w"] - x) ** 2) / jnp.sum(mask)

    params, tx, mask = {"w": jnp.asarray(2.0)}, gradtx.lbfgs(), jnp.array([0.0, 1, 0, 1])
    batch = jnp.arange(4.0), mask
    expected, _, whole = gradtx.make_step(mean, tx, donate=False)(params, tx.init(params), *batch)
    step = gradtx.make_step(
        mean, tx, donate=False, microbatches=2, weigh=lambda x, mask: jnp.sum(mask)
    )
    ours, _, value = step(params, tx.init(params), *batch)
    assert float(value) == float(whole) and float(ours["w"]) == pytest.approx(
        float(expected["w"]), rel=1e-6
    )
    negative = gradtx.make_step(mean, tx, donate=False, microbatches=2, weigh=lambda x, mask: -1.0)
    assert float(negative(params, tx.init(params), *batch)[0]["w"]) == 2.0, "not uphill"


def test_a_batch_may_hold_none_and_may_be_a_key_alone() -> None:
    def sampled(w: jax.Array, batch: Any) -> jax.Array:
        return w * (jnp.mean(batch["x"]) if batch["mask"] is None else 0.0)

    step = gradtx.make_step(sampled, gradtx.sgd(1.0), donate=False, microbatches=2)
    w = jnp.asarray(1.0)
    assert float(step(w, gradtx.sgd(1.0).init(w), {"x": jnp.arange(4.0), "mask": None})[0]) == -0.5
    drawn = gradtx.make_step(
        lambda w, key: w * jax.random.normal(key), gradtx.sgd(1.0), donate=False, microbatches=2
    )
    key = jax.random.key(0)
    expected = 1 - sum(map(jax.random.normal, jax.random.split(key, 2))) / 2
    assert float(drawn(w, gradtx.sgd(1.0).init(w), key)[0]) == pytest.approx(
        float(expected), rel=1e-6
    )


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (
            lambda p, x: (p["b"].sum(), x),
            {},
            r"has_aux is False, and loss_fn returned 2 values: return the loss alone, or "
            r"give has_aux",
        ),
        (
            lambda p, x: p["b"].sum(),
            {"has_aux": True},
            r"has_aux is True, and loss_fn returned 1 value: return \(loss, auxiliary output\)",
        ),
        (
            lambda p, x: p["b"].sum(),
            {"microbatches": 2, "weigh": lambda x: x},
            r"the weight of a part has shape \(6, 2\), .* its number",
        ),
        (
            lambda p: p["b"].sum(),
            {"microbatches": 3},
            r"microbatches = 3, and no array of the batch has a first axis to split",
        ),
    ],
)
def test_what_is_refused_when_it_is_traced(loss: Any, options: Any, message: str) -> None:
    batch = () if options.get("microbatches") == 3 else (X,)
    with pytest.raises(GradtxError, match=r"^make_step: " + message):
        gradtx.make_step(loss, TX, **options)(PARAMS, TX.init(PARAMS), *batch)


REST = {"n": jnp.array([1, 2]), "key": jax.random.key(0), "is_on": True, "absent": None}
"""What is no float among the parameters."""


def distance(params: Any, x: jax.Array) -> jax.Array:
    return jnp.sum((params["w"][None] - x) ** 2)


@pytest.mark.parametrize("microbatches", [1, 2])
@pytest.mark.parametrize(
    "tx", [gradtx.adam(0.1), gradtx.lbfgs(), gradtx.dynamic_loss_scale(gradtx.sgd(0.1))], ids=str
)
def test_integers_and_keys_among_the_parameters(tx: Any, microbatches: int) -> None:
    """They stay as they are, and the training is that of the floats alone."""
    step = gradtx.make_step(distance, tx, donate=False, microbatches=microbatches)
    alone, x = {"w": jnp.ones(2)}, jnp.zeros((2, 2))
    both = {**alone, **REST}
    state, other = tx.init(alone), tx.init(both)
    for _ in range(3):
        alone, state, value = step(alone, state, x)
        both, other, same = step(both, other, x)
        assert value == same
    assert (alone["w"] == both["w"]).all()
    assert both["n"].tolist() == [1, 2] and both["is_on"] and both["absent"] is None
    assert (jax.random.key_data(both["key"]) == jax.random.key_data(REST["key"])).all()


def test_integers_with_a_transformation_of_another_library() -> None:
    """Optax keeps slots for them, and gets zeros."""
    params, tx = {"w": jnp.ones(2), "n": jnp.array([1, 2])}, optax.adam(0.1)
    step = gradtx.make_step(distance, tx, donate=False)
    new, *_ = step(params, tx.init(params), jnp.zeros((1, 2)))
    assert new["n"].tolist() == [1, 2] and (new["w"] < 1).all()
