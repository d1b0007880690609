"""tail_ema, anchor_gradient, gpa: blends by path and role, and the points of gradients."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError, SelectionError
from tests.oracles import core as ref
from tests.oracles import tails
from tests.oracles.compose import descend, each

SIZES = (
    ("block_0/attention/kernel", (4, 4)),
    ("block_1/attention/kernel", (4, 4)),
    ("block_1/norm/scale", (4,)),
    ("embed/embedding", (9, 4)),
    ("head/kernel", (4, 9)),
)


def parameters(seed: int = 0) -> dict[str, Any]:
    generator, tree = np.random.default_rng(seed), {}
    for path, shape in SIZES:
        *above, name = path.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[name] = jnp.asarray(generator.normal(size=shape), jnp.float32)
    return tree


def train(tx: Any, steps: int = 6) -> tuple[Any, Any]:
    params = parameters()
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(1, steps + 1):
        updates, state = update(parameters(step), state, params)
        params = gradtx.apply_updates(params, updates)
    return state, params


WRAPPED: dict[str, Any] = {
    "anchor_gradient": lambda **told: gradtx.anchor_gradient(gradtx.sgd(0.1), 3.0, start=2, **told),
    "tail_ema": lambda **told: gradtx.chain(gradtx.sgd(0.1), gradtx.tail_ema(3.0, start=2, **told)),
}


BLENDS = {
    "paths": ({"^block_0/": 0.9, "kernel$": 0.65, "norm": 1.0}, "path"),
    "roles": ({"matrix": 0.65, "head": 0.6, "norm|vector": 1.0}, "role"),
}
SHARES = {"paths": (0.9, 0.65, 1.0, None, 0.65), "roles": (0.65, 0.65, 1.0, None, 0.6)}


@pytest.mark.parametrize("blend", sorted(BLENDS))
@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_each_array_has_the_blend_of_its_path_or_role(name: str, blend: str) -> None:
    shares, by = BLENDS[blend]
    tx, whole, none = (WRAPPED[name](blend=one, by=by) for one in (shares, 1.0, 0.0))
    state, params = train(tx)
    found = gradtx.eval_params(tx, state, params)
    weights = gradtx.eval_params(none, *train(none))
    average = gradtx.eval_params(whole, *train(whole))
    rows = zip(*map(jax.tree.leaves, (found, weights, average)), SHARES[blend], strict=True)
    for one, weight, mean, share in rows:
        if share is not None:
            np.testing.assert_allclose(one, weight + share * (mean - weight), rtol=2e-6, atol=1e-7)
    np.testing.assert_array_equal(found["embed"]["embedding"], params["embed"]["embedding"])
    assert state.slots[name].ema["embed"]["embedding"] is None  # no average, and no memory for it


@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_blends_are_data(name: str) -> None:
    tx = WRAPPED[name](blend={"^block": 0.5, "head": 0.25})
    assert gradtx.hyperparams(tx)["head"] == 0.25
    other = gradtx.replace(tx, head=1.0)
    state, params = train(tx)
    both = [
        jax.jit(gradtx.eval_params)(one, state, params)["head"]["kernel"] for one in (tx, other)
    ]
    average = state.slots[name].ema["head"]["kernel"]
    np.testing.assert_allclose(both[1], average, rtol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 1e-3
    batch = gradtx.replace(tx, head=jnp.array([0.25, 1.0]))
    found = jax.vmap(
        lambda one: gradtx.eval_params(one, state, params)["head"]["kernel"],
        in_axes=(gradtx.vmap_axes(batch, "head"),),
    )(batch)
    np.testing.assert_allclose(found, both, rtol=1e-6)


def test_one_change_of_k_steps_counts_for_k() -> None:
    """On parameters that stand still, an average that moves every fourth step ends at the same."""
    ends = []
    for every in (1, 4):
        tx = gradtx.tail_ema(7.0, start=1, every=every)
        state, w = tx.init(jnp.array(1.0)), jnp.array(1.0)
        for step in range(1, 14):
            _, state = tx.update(jnp.array(0.0), state, w if step == 1 else jnp.array(3.0))
        ends.append(float(state.slots["tail_ema"].ema))
    np.testing.assert_allclose(ends, 3.0 - 2.0 * (6 / 7) ** 12, rtol=1e-6)


def slope(params: np.ndarray) -> np.ndarray:
    """The gradient of Σ w⁴/4 − Σ sin w."""
    return params**3 - np.cos(params)


def loss(params: Any) -> Any:
    return jnp.sum(params**4) / 4 - jnp.sum(jnp.sin(params))


@pytest.mark.parametrize("name", ["anchor", "gpa"])
def test_gradients_of_a_loss_are_taken_at_the_point_of_the_equations(name: str) -> None:
    """The reference holds all sequences and takes its gradients where its equations say."""
    gain = gradtx.linear_schedule(0.0, 0.45, 6, transition_begin=4)
    base = gradtx.adamw(0.05, weight_decay=0.1)
    plain = descend(each(ref.adam), 0.05, 0.1)
    ramp = lambda count: 0.45 * np.clip((count - 4) / 6, 0, 1)  # noqa: E731
    tx, oracle, field, point = {
        "anchor": (
            gradtx.anchor_gradient(base, 4.0, start=3, gain=gain, blend=0.0),
            tails.anchor(plain, 4.0, 3, ramp),
            "w",
            lambda memory, t: [
                w + ramp(t - 1) * (w - e) for w, e in zip(memory["w"], memory["e"], strict=True)
            ],
        ),
        "gpa": (
            gradtx.gpa(base, mu_x=0.8),
            tails.gpa(plain, 0.8),
            "x",
            lambda memory, t: [
                0.7 * x + 0.3 * z for x, z in zip(memory["x"], memory["z"], strict=True)
            ],
        ),
    }[name]
    with jax.enable_x64(True):
        start = np.linspace(-2.0, 2.0, 5)
        y, memory, state = jnp.asarray(start), {}, tx.init(jnp.asarray(start))
        for t in range(1, 25):
            at = point(memory, t) if memory else [start]
            np.testing.assert_allclose(y, at[0], rtol=1e-11)
            oracle([slope(at[0])], at, memory, t)
            updates, state = jax.jit(tx.update)(jax.grad(loss)(y), state, y)
            y = y + updates
            np.testing.assert_allclose(
                gradtx.eval_params(tx, state, y), memory[field][0], rtol=1e-11
            )


def test_the_inner_method_sees_the_weights() -> None:
    """Its decay is at w, not at y."""
    tx = gradtx.anchor_gradient(
        gradtx.add_decayed_weights(-0.5),
        2.0,
        gain=1.0,
        blend=0.0,
    )
    y, state = jnp.array(8.0), tx.init(jnp.array(8.0))
    for expected in (4.0, 2.0, 1.0):
        updates, state = tx.update(jnp.array(0.0), state, y)
        y = y + updates
        assert float(gradtx.eval_params(tx, state, y)) == expected
    assert float(y) != 1.0


@pytest.mark.parametrize(
    ("steps", "mu"),
    [(1, 0.9), (4, 0.974), (8, 0.9869), (16, 0.9934), (32, 0.9967), (64, 0.9984), (128, 0.9992)],
)
def test_the_table_of_inner_steps(steps: int, mu: float) -> None:
    """One step of −1 from z = x = y = 0: x = −(1 − μ_x)."""
    tx = gradtx.gpa(gradtx.sgd(1.0), inner_steps=steps)
    updates, state = tx.update(jnp.array(1.0), tx.init(jnp.array(0.0)), jnp.array(0.0))
    assert abs(float(gradtx.eval_params(tx, state, updates)) + 1 - mu) < 6e-5


MISTAKES = {
    "horizon": (
        {"total_steps": 4},
        HyperparamError,
        "{name}: horizon = 3.0 is longer than the tail of the run, total_steps − start = 2 "
        "updates, so the average would not leave its start: give a horizon of at most a third of "
        "the tail",
    ),
    "blend": ({"blend": 1.5}, HyperparamError, "{name}: blend = 1.5 is outside its range [0, 1]"),
    "one blend": (
        {"blend": {"kernel": -0.5}},
        HyperparamError,
        "{name}: blend = -0.5 is outside its range [0, 1]",
    ),
    "none": (
        {"blend": {}},
        HyperparamError,
        "{name}: blend is empty, so no array has an average: give {{pattern: number}}",
    ),
    "key": (
        {"blend": {3: 0.5}},
        HyperparamError,
        "{name}: blend has the key 3, which is not a text: give regular expressions, "
        "{{'kernel$': 0.65, ...}}",
    ),
    "schedule": (
        {"blend": {"kernel": gradtx.constant_schedule(0.5)}},
        HyperparamError,
        "{name}: blend['kernel'] is a schedule, and must be a number: a schedule may be the blend "
        "of all arrays, blend=constant_schedule(value=0.5)",
    ),
    "path": (
        {"blend": {"kernell$": 0.5}},
        SelectionError,
        "{name}: blend: rule 1, ('kernell$', 0), matches none of the 5 leaves; nearest: "
        "'head/kernel'",
    ),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_mistakes(name: str, mistake: str) -> None:
    told, kind, text = MISTAKES[mistake]
    with pytest.raises(kind, match=f"^{re.escape(text.format(name=name))}"):
        WRAPPED[name](**told).init(parameters())


@pytest.mark.parametrize(
    "build", [gradtx.tail_ema, lambda t: gradtx.anchor_gradient(gradtx.sgd(0.1), t)]
)
def test_a_horizon_below_one(build: Any) -> None:
    with pytest.raises(HyperparamError, match=r"horizon = 0\.5 is outside its range \[1, inf\]"):
        build(0.5)
