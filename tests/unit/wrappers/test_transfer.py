"""`transfer`: the table of factors by hand, equivalences, and the texts of errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

BASE, WIDTH, DEPTH = 8, 32, 3.0
M = WIDTH / BASE


def model(width: int, layers: int = 2) -> dict[str, Any]:
    """The shapes of a transformer: embedding, blocks, last norm, head."""
    block = {
        "norm": jnp.ones(width),
        "up": {"kernel": jnp.ones((width, 4 * width)), "bias": jnp.ones(4 * width)},
        "down": {"kernel": jnp.ones((4 * width, width))},
    }
    return {
        "embed": jnp.ones((10, width)),
        "blocks": [block] * layers,
        "norm": jnp.ones(width),
        "lm_head": {"kernel": jnp.ones((width, 10)), "bias": jnp.ones(10)},
    }


PATHS = {
    "embedding": "embed",
    "matrix": "blocks/1/down/kernel",
    "gain": "blocks/1/norm",
    "bias": "blocks/0/up/bias",
    "last norm": "norm",
    "head": "lm_head/kernel",
    "bias of the head": "lm_head/bias",
}


def expected(alpha: float) -> dict[str, tuple[float, ...]]:
    """Rate, decay, ε, deviation at the start: m = 4, m_L = 3, by the table of the papers."""
    slow, small = DEPTH ** (alpha - 1), DEPTH**-alpha
    return {
        "embedding": (1, 1, 1 / 4, 1),
        "matrix": (slow / 4, 4, small / 4, 1 / 2),
        "gain": (slow, 1, small / 4, 1),
        "bias": (slow, 1, small / 4, 1),
        "last norm": (1, 1, 1 / 4, 1),
        "head": (1 / 4, 4, 1, 1 / 4),
        "bias of the head": (1, 1, 1, 1),
    }


def bases() -> dict[str, dict[str, Any]]:
    """The base as a width, as parameters, as their shapes, and with one block in place of two."""
    return {
        "width": {"base": BASE, "width": WIDTH},
        "parameters": {"base": model(BASE)},
        "shapes": {"base": jax.eval_shape(lambda: model(BASE))},
        "one block": {"base": model(BASE, layers=1)},
    }


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("base", sorted(bases()))
def test_the_table_of_mup(base: str, alpha: float) -> None:
    tx = gradtx.transfer(
        gradtx.adamw(0.1), **bases()[base], rule="mup", depth_ratio=DEPTH, alpha=alpha
    )
    table = gradtx.transfer_table(tx, model(WIDTH))
    for role, factors in expected(alpha).items():
        row = table[PATHS[role]]
        values = [row[name] for name in ("rate", "decay", "eps", "init")]
        np.testing.assert_allclose(values, factors, rtol=1e-12, err_msg=role)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_table_of_sgd(alpha: float) -> None:
    """A gradient is ε's factor times as large, so the rate is Adam's over it; η λ is Adam's."""
    for options in bases().values():
        tx = gradtx.transfer(gradtx.sgd(0.1), **options, rule="sgd", depth_ratio=DEPTH, alpha=alpha)
        table = gradtx.transfer_table(tx, model(WIDTH))
        for role, (rate, decay, eps, start) in expected(alpha).items():
            row = table[PATHS[role]]
            values = [row[name] for name in ("rate", "decay", "eps", "init")]
            wanted = (rate / eps, decay * eps, 1, start)
            np.testing.assert_allclose(values, wanted, rtol=1e-12, err_msg=role)


def test_the_factors_reach_the_numbers_of_the_rule() -> None:
    """One step of AdamW by hand, ε as large as the gradient, so that its factor counts."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(float), model(WIDTH))
        tx = gradtx.transfer(
            gradtx.adamw(0.1, eps=1.0, weight_decay=0.5), model(BASE), depth_ratio=DEPTH, alpha=0.5
        )
        updates, _ = tx.update(params, tx.init(params), params)
    flat = gradtx.flatten_state(updates)
    for role, (rate, decay, eps, _) in expected(0.5).items():
        update = -0.1 * rate * (1 / (1 + eps) + 0.5 * decay)
        np.testing.assert_allclose(flat[PATHS[role]], update, rtol=1e-12, err_msg=role)


def test_decay_exponents() -> None:
    """η λ of a hidden matrix falls as m⁻ᵖ; embeddings and vectors keep λ."""
    for exponent, factor in ((0.0, 4.0), (0.5, 2.0), (1.0, 1.0)):
        tx = gradtx.transfer(gradtx.adamw(0.1), model(BASE), decay_exponent=exponent)
        table = gradtx.transfer_table(tx, model(WIDTH))
        decays = [table[PATHS[role]]["decay"] for role in ("matrix", "embedding", "gain")]
        np.testing.assert_allclose(decays, [factor, 1, 1])


@pytest.mark.parametrize("scaling", ["match_rms_adamw", "none", "original", "spectral"])
def test_the_spectral_condition_whatever_the_scaling(scaling: Any) -> None:
    """‖ΔW‖ over √(outputs / inputs) is that of the base model: here inputs alone grow."""
    tx = gradtx.muon(0.1, scaling=scaling, routes=[("w", "muon")])
    steps = []
    for inputs in (4, 16):
        params = {"w": jnp.eye(inputs, 8)}
        moved = gradtx.transfer(tx, {"w": jnp.eye(4, 8)}, "spectral")
        updates, _ = moved.update(params, moved.init(params), params)
        norm = jnp.linalg.norm(updates["w"], ord=2)
        steps.append(float(norm) * (inputs / 8) ** 0.5)
    np.testing.assert_allclose(steps[1], steps[0], rtol=0.05)  # polar factors are within 0.05


def test_the_rest_of_muon_has_the_table_of_mup() -> None:
    tx = gradtx.transfer(gradtx.muon(0.1), model(BASE), "spectral", depth_ratio=DEPTH, alpha=0.5)
    table = gradtx.transfer_table(tx, model(WIDTH))
    for role in ("embedding", "gain", "head", "last norm"):
        row = table[PATHS[role]]
        values = [row[name] for name in ("rate", "decay", "eps", "init")]
        np.testing.assert_allclose(values, expected(0.5)[role], err_msg=role)
    row = table[PATHS["matrix"]]
    slow, small = DEPTH**-0.5, DEPTH**-0.5
    np.testing.assert_allclose(list(row.values()), [slow, 1, small, 1 / 2, 1])
    falling = gradtx.transfer(gradtx.muon(0.1), model(BASE), "spectral", decay_exponent=1.0)
    decay = gradtx.transfer_table(falling, model(WIDTH))[PATHS["matrix"]]["decay"]
    np.testing.assert_allclose(decay, 1 / 4)


def test_hyperball_has_no_factor_of_width() -> None:
    tx = gradtx.by_role(
        {"ball": gradtx.hyperball(gradtx.trace(0.9), 0.1), "adam": gradtx.adam(0.1)}
    )
    for alpha, factor in ((1.0, 1.0), (0.5, DEPTH**-0.5)):
        moved = gradtx.transfer(tx, model(BASE), "hyperball", depth_ratio=DEPTH, alpha=alpha)
        table = gradtx.transfer_table(moved, model(WIDTH))
        assert table[PATHS["matrix"]]["rate"] == pytest.approx(factor)
        assert table[PATHS["head"]]["rate"] == 1 / M


def test_at_the_base_width_nothing_changes() -> None:
    plain = gradtx.adamw(0.1, eps=0.1, weight_decay=0.1)
    params, grads = model(BASE), jax.tree.map(lambda x: 0.3 * x, model(BASE))
    both = [
        tx.update(grads, tx.init(params), params)
        for tx in (plain, gradtx.transfer(plain, model(BASE)), gradtx.transfer(plain, 8, width=8))
    ]
    for updates, state in both[1:]:
        assert jax.tree.all(jax.tree.map(jnp.array_equal, updates, both[0][0]))
        assert [*gradtx.flatten_state(state)] == [*gradtx.flatten_state(both[0][1])]


def linear(params: Any, x: jax.Array, forward: float) -> jax.Array:
    return forward * (x @ params["embed"] @ params["body"] @ params["head"])


def mean_square(params: Any, x: jax.Array, forward: float) -> jax.Array:
    return jnp.mean((linear(params, x, forward) - 1) ** 2)


def follow(tx: Any, params: Any, forward: float, steps: int = 6) -> list[np.ndarray]:
    x, state, outputs = jnp.eye(3), tx.init(params), []
    for _ in range(steps):
        updates, state = tx.update(jax.grad(mean_square)(params, x, forward), state, params)
        params = gradtx.apply_updates(params, updates)
        outputs.append(np.asarray(linear(params, x, forward)))
    return outputs


def narrow(width: int = 4) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"embed": (3, width), "body": (width, width), "head": (width, 2)}
    normal = (
        jax.random.normal(key, shape) for key, shape in zip(keys, shapes.values(), strict=True)
    )
    return dict(zip(shapes, normal, strict=True))


def widen(params: Any, times: int) -> dict[str, jax.Array]:
    """The same function, with every hidden unit `times` times."""
    return {
        "embed": jnp.tile(params["embed"], (1, times)),
        "body": jnp.tile(params["body"], (times, times)) / times,
        "head": jnp.tile(params["head"], (times, 1)) / times,
    }


LINEAR = {
    "mup": gradtx.adamw(0.05, eps=0.1, weight_decay=0.3),
    "sgd": gradtx.chain(gradtx.add_decayed_weights(0.3), gradtx.sgd(0.01, momentum=0.5)),
}


@pytest.mark.parametrize("rule", sorted(LINEAR))
def test_a_linear_network_of_repeated_units_trains_as_the_narrow_one(rule: Any) -> None:
    """Repeated units stay equal, and muP moves them so that the function moves as the narrow one:
    rate, decay and ε, all large enough to count.
    """
    with jax.enable_x64(True):
        params, plain = narrow(), LINEAR[rule]
        reference = follow(plain, params, 1.0)
        for times in (2, 4):
            wide = follow(gradtx.transfer(plain, params, rule), widen(params, times), 1.0)
            np.testing.assert_allclose(wide, reference, rtol=1e-9)
            unscaled = follow(plain, widen(params, times), 1.0)
            assert np.abs(unscaled[-1] - reference[-1]).max() > 0.05


HEADS = {
    "mup": {"rate": 1, "decay": 1, "eps": 1 / 4, "init": 1, "forward": 1 / 4},
    "sgd": {"rate": 4, "decay": 1 / 4, "eps": 1, "init": 1, "forward": 1 / 4},
}


@pytest.mark.parametrize("rule", sorted(LINEAR))
def test_both_forms_of_the_head_train_alike(rule: Any) -> None:
    """W / m with η / m, λ m and ε is W with η, λ and ε / m, and logits times 1 / m."""
    with jax.enable_x64(True):
        base, wide = narrow(), widen(narrow(), 4)
        first = follow(gradtx.transfer(LINEAR[rule], base, rule), wide, 1.0)
        tx = gradtx.transfer(LINEAR[rule], base, rule, head="forward")
        second = follow(tx, wide | {"head": 4 * wide["head"]}, 1 / 4)
        np.testing.assert_allclose(second, first, rtol=1e-9)
    assert gradtx.transfer_table(tx, wide)["head"] == HEADS[rule]


def test_a_factor_of_eps_is_a_factor_of_the_gradient() -> None:
    """m/f over √v/f + ε is m over √v + ε f: ε f on g moves as ε on g / f, step by step."""
    with jax.enable_x64(True):
        params, grad = jnp.ones(8), jnp.linspace(-2.0, 3.0, 8)
        scaled = gradtx.chain(gradtx.scale(4.0), gradtx.adam(0.1, eps=0.1, eps_root=0.01))
        tx = gradtx.transfer(gradtx.adam(0.1, eps=0.1, eps_root=0.01), base=8, width=32)
        one, other = scaled.init(params), tx.init(params)
        for step in range(4):
            left, one = scaled.update(grad * (step - 1.5), one, params)
            right, other = tx.update(grad * (step - 1.5), other, params)
            np.testing.assert_allclose(left, right, rtol=1e-12)


def test_a_clip_inside_sees_the_whole_tree() -> None:
    params = model(WIDTH)
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(1.0))
    tx = gradtx.transfer(clipped, model(BASE), "sgd")
    updates, _ = tx.update(params, tx.init(params), params)
    plain, _ = clipped.update(params, clipped.init(params), params)
    ratios = jax.tree.map(lambda u, v: u.ravel()[0] / v.ravel()[0], updates, plain)
    assert {round(float(one), 6) for one in jax.tree.leaves(ratios)} == {4.0, 1.0, 0.25}


def test_wrappers_and_forms_of_decay() -> None:
    """Inside and outside of `accumulate`, a corrected decay, a schedule, storage, a batch."""
    params = model(WIDTH)
    rate = gradtx.schedules.linear_schedule(0.1, 0.0, 10)
    plain = gradtx.adamw(rate, weight_decay=0.1, decay_form="corrected", peak_learning_rate=0.1)
    inner = gradtx.accumulate(gradtx.transfer(plain, model(BASE)), 1)
    outer = gradtx.transfer(gradtx.accumulate(plain, 1), model(BASE))
    left, _ = inner.update(params, inner.init(params), params)
    right, _ = outer.update(params, outer.init(params), params)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, left, right))
    # corrected: λ η/η_max, whose quotient has no factor
    hidden = float(left["blocks"][0]["down"]["kernel"][0, 0])
    assert hidden == pytest.approx(-0.1 / 4 * (1 + 0.1 * 4), rel=1e-5)

    def step(rate: jax.Array) -> Any:
        tx = gradtx.stored(gradtx.transfer(gradtx.adamw(rate), model(BASE)), "packed16", min_size=0)
        return tx.update(params, tx.init(params), params)[0]["lm_head"]["kernel"][0, 0]

    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.jit(jax.vmap(step))(rates), -rates / 4 * 1.0004, rtol=1e-2)


def test_roles_by_the_caller() -> None:
    tx = gradtx.transfer(
        gradtx.adam(0.1), BASE, width=WIDTH, roles=[("down", "head"), ("up/kernel", "fixed")]
    )
    table = gradtx.transfer_table(tx, model(WIDTH))
    assert table["blocks/0/down/kernel"]["eps"] == 1
    assert table["blocks/0/up/kernel"]["rate"] == 1
    assert table.roles["blocks/0/up/kernel"] == "a hidden matrix, by roles"


def test_replace_keeps_the_factors() -> None:
    tx = gradtx.transfer(gradtx.adam(0.1), 8, width=16)
    replaced = gradtx.replace(tx, learning_rate=0.2)
    assert replaced == gradtx.transfer(gradtx.adam(0.2), 8, width=16)


def test_json_and_equality() -> None:
    tx = gradtx.transfer(gradtx.adamw(0.1), model(BASE), roles=[("norm", "vector")])
    assert gradtx.from_config(gradtx.to_config(tx)) == tx
    assert tx != gradtx.transfer(gradtx.adamw(0.1), model(16), roles=[("norm", "vector")])


def test_matrices_that_go_to_owners_have_factors_of_their_own() -> None:
    """ε of Muon differs between a block and what is outside of blocks; both go to owners."""
    mesh = jax.make_mesh((8,), ("data",))
    place = jax.NamedSharding(mesh, jax.P("data", None))
    grads = {
        "blocks": [{"kernel": jax.random.normal(jax.random.key(0), (8, 8))}] * 2,
        "outer": {"kernel": jax.random.normal(jax.random.key(1), (8, 8))},
    }
    updates = []
    for shard in (False, "data"):
        muon = gradtx.muon(0.1, eps=1.0, shard=shard)
        tx = gradtx.transfer(muon, 8, "spectral", width=8, depth_ratio=4.0)
        cut = jax.device_put(grads, place) if shard else grads
        with jax.set_mesh(mesh):
            updates.append(tx.update(cut, tx.init(cut), cut)[0])
    one, other = map(jax.device_get, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, other)
    plain = gradtx.muon(0.1, eps=1.0)
    expected, _ = plain.update(grads, plain.init(grads), grads)
    same = jax.tree.map(lambda a, b: bool(np.allclose(a, b, atol=1e-6)), one, expected)
    assert same == {"blocks": [{"kernel": False}] * 2, "outer": {"kernel": True}}
