"""`coordinate_check`, `transfer_table` and `scale_init` on small networks."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

WIDTHS = (32, 64, 128)
TOKENS = jnp.arange(4)
TARGETS = jnp.sin(2.0 * TOKENS[:, None] + jnp.arange(4.0)[None])


def init(width: int, key: jax.Array) -> dict[str, Any]:
    """An embedding, a hidden layer and a head that starts as muP says."""
    one, two, three = jax.random.split(key, 3)
    return {
        "embed": jax.random.normal(one, (16, width)),
        "body": {"kernel": jax.random.normal(two, (width, width)) / width**0.5},
        "head": jax.random.normal(three, (width, 4)) / width,
    }


def activations(params: Any, tokens: jax.Array) -> dict[str, jax.Array]:
    embed = params["embed"][tokens]
    body = jax.nn.relu(embed) @ params["body"]["kernel"]
    return {"embed": embed, "body": body, "logits": jax.nn.relu(body) @ params["head"]}


def loss(params: Any, tokens: jax.Array) -> jax.Array:
    return jnp.mean((activations(params, tokens)["logits"] - TARGETS) ** 2)


def check(tx: Any) -> gradtx.CoordinateCheck:
    return gradtx.coordinate_check(init, WIDTHS, tx, loss, TOKENS, activations, steps=5, seeds=8)


ADAM = gradtx.adam(3e-3)
MUON = gradtx.muon(3e-3, scaling="match_rms_adamw", adam_learning_rate=3e-3)
BASE = jax.eval_shape(lambda: init(32, jax.random.key(0)))


SGD = gradtx.sgd(0.02, momentum=0.5)


def test_sgd_passes_with_its_table_alone() -> None:
    assert check(gradtx.transfer(SGD, BASE, "sgd")).passes
    slopes = {row.name: row.slope for row in check(SGD).failures}
    # By hand: the gradient of an embedding falls as 1 / m, and so does its change.
    assert slopes["embed"] == pytest.approx(-1.0, abs=0.2)


@pytest.mark.parametrize(("tx", "rule"), [(ADAM, "mup"), (MUON, "spectral")], ids=["adam", "muon"])
def test_it_passes_with_transfer_and_fails_without(tx: Any, rule: Any, tmp_path: Any) -> None:
    plain, moved = check(tx), check(gradtx.transfer(tx, BASE, rule))
    assert moved.passes, moved
    assert not plain.passes
    slopes = {(row.kind, row.name): row.slope for row in plain.failures}
    # By hand: the rate of a head and of Adam's hidden matrix is m times too large, that of Muon √m.
    assert slopes["parameter change", "head"] == pytest.approx(1.0, abs=0.15)
    hidden = slopes["parameter change", "body/kernel"]
    assert hidden == pytest.approx(1.0 if rule == "mup" else 0.5, abs=0.2)
    assert "logits" in [row.name for row in plain.failures]
    path = pathlib.Path(tmp_path, "check.png")
    panels = plain.plot(path).axes
    assert path.exists() and len(panels) == 3
    assert [str(line.get_label()) for line in panels[1].lines] == [
        row.name if row.passes else f"{row.name}: {row.verdict}"
        for row in plain.rows
        if row.kind == "change"
    ]


def test_the_text_and_the_numbers() -> None:
    """Sizes that are known: parameters and activations move by the rate at every step."""

    def ones(width: int, key: jax.Array) -> dict[str, jax.Array]:
        return {"bias": jnp.ones(width), "idle": jnp.ones(width)}

    def total(params: Any, batch: Any) -> jax.Array:
        return jnp.sum(params["bias"])

    def outputs(params: Any, batch: Any) -> dict[str, jax.Array]:
        return {"sum": total(params, batch), "idle": params["idle"]}

    result = gradtx.coordinate_check(
        ones, (8, 2), gradtx.sgd(0.25), total, None, outputs, steps=2, seeds=1
    )
    assert result.widths == (2, 8)
    assert str(result).splitlines() == [
        "          2    8  slope",
        "activations: mean |x|",
        "  idle    1    1  +0.00  flat",
        "  sum     1    4  +1.00  grows, fails",
        "change of activations: mean |x − x₀|",
        "  idle    0    0         no change",
        "  sum     1    4  +1.00  grows, fails",
        "change of parameters",
        "  bias  0.5  0.5  +0.00  flat",
        "  idle    0    0         no change",
        "fails: 2 of 6 rows, widths 2 to 8, tolerance 0.1",
    ]
    np.testing.assert_allclose(result.rows[-2].values, [[0.25, 0.25], [0.5, 0.5]])


def test_a_matrix_is_measured_by_its_spectral_norm() -> None:
    """√(inputs / outputs) times the largest singular value of the change, known here."""

    def start(width: int, key: jax.Array) -> dict[str, jax.Array]:
        return {"kernel": jnp.zeros((width, 2 * width))}

    def first(params: Any, batch: Any) -> jax.Array:
        return -3.0 * params["kernel"][0, 0] - 2.0 * params["kernel"][1, 1]

    result = gradtx.coordinate_check(start, (4, 8), gradtx.sgd(1.0), first, None, steps=1, seeds=1)
    np.testing.assert_allclose(result.rows[0].values, [[3 / 2**0.5] * 2], rtol=1e-5)


def test_scale_init_forgets_how_the_initializer_depends_on_the_width() -> None:
    base, wide = init(32, jax.random.key(0)), init(128, jax.random.key(1))
    wide = jax.tree.map(lambda leaf: 7 * leaf, wide) | {"bias": jnp.zeros(128)}
    tx = gradtx.transfer(ADAM, base | {"bias": jnp.zeros(32)})
    scaled = gradtx.scale_init(tx, wide, base | {"bias": jnp.zeros(32)})

    def size(leaf: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.mean(leaf**2))

    for name, factor in (("embed", 1), ("head", 1 / 4)):
        np.testing.assert_allclose(size(scaled[name]), factor * size(base[name]), rtol=1e-5)
    kernels = (size(tree["body"]["kernel"]) for tree in (scaled, base))
    np.testing.assert_allclose(next(kernels), next(kernels) / 2, rtol=1e-5)
    assert jnp.array_equal(scaled["bias"], wide["bias"])


def test_the_table_says_what_the_model_must_multiply() -> None:
    params = {"embed": jnp.ones((9, 32)), "blocks": [{"kernel": jnp.ones((32, 32))}] * 4}
    tx = gradtx.transfer(ADAM, base=8, width=32, depth_ratio=4, alpha=0.5)
    assert str(gradtx.transfer_table(tx, params)).splitlines() == [
        "path                 rate   decay  eps    init  forward  role",
        "blocks/*/kernel × 4  0.125  4      0.125  0.5   1        a hidden matrix, in JAX's order",
        "embed                1      1      0.25   1     1        an embedding, by its name",
        "the model itself: logits × 0.25, as the embedding is the head; residual branches × 0.5; "
        "q · k / d_head if heads grow",
    ]


def test_mistakes() -> None:
    def text(function: Any, *args: Any, **options: Any) -> str:
        with pytest.raises(gradtx.GradtxError) as error:
            function(*args, **options)
        return str(error.value)

    measure = gradtx.coordinate_check
    assert text(measure, init, (32,), ADAM, loss, TOKENS) == (
        "coordinate_check: widths = (32,) give no slope: give at least two widths above 0"
    )
    assert text(measure, init, WIDTHS, ADAM, loss, TOKENS, steps=0) == (
        "coordinate_check: steps = 0 measures nothing: give a whole number above 0"
    )
    assert text(measure, init, WIDTHS, ADAM, loss, TOKENS, tolerance=0.0) == (
        "coordinate_check: tolerance = 0.0 is not above 0: no slope is exactly 0"
    )

    def deeper(width: int, key: jax.Array) -> dict[str, jax.Array]:
        return {f"bias_{n}": jnp.ones(width) for n in range(width // 2)}

    def total(params: Any, batch: Any) -> jax.Array:
        return jnp.sum(params["bias_0"])

    assert text(measure, deeper, (2, 4), ADAM, total, None, steps=1, seeds=1) == (
        "coordinate_check: 'bias_1' is not at both of the widths 2 and 4: let every width have the "
        "same modules and as many layers"
    )
    params = init(64, jax.random.key(0))
    assert text(gradtx.transfer_table, ADAM, params) == (
        "transfer_table: there is no transfer in adam: wrap it, transfer(adam(...), base)"
    )
    tx = gradtx.transfer(ADAM, 32, width=64)
    assert text(gradtx.scale_init, tx, params, {"embed": params["embed"]}) == (
        "scale_init: base has nothing at 'body/kernel': give fresh parameters of the same model, "
        "as narrow as it was when it was tuned"
    )
