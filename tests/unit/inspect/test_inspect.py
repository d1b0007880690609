"""`gradtx.summary`: the table, and that its bytes are those of the real state."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx.definition.errors import GradtxError


def network(depth: int = 3) -> dict[str, object]:
    layers = [{"bias": jnp.zeros(4), "kernel": jnp.zeros((4, 4))} for _ in range(depth)]
    return {"embed": jnp.zeros((7, 4)), "layers": layers}


def nbytes(tree: object) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def table(tx: object, params: object) -> str:
    file = io.StringIO()
    made = gradtx.summary(tx, params, file=file)
    assert file.getvalue() == f"{made}\n"
    return str(made)


def test_text_of_a_small_table() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3, mu_dtype=jnp.bfloat16))
    expected = """\
member               slot   path             array          bytes  per param
adamw/scale_by_adam  mu     embed            bf16[7,4]         56       0.64
adamw/scale_by_adam  mu     layers/*/bias    bf16[4] × 3       24       0.27
adamw/scale_by_adam  mu     layers/*/kernel  bf16[4,4] × 3     96       1.09
adamw/scale_by_adam  nu     embed            f32[7,4]         112       1.27
adamw/scale_by_adam  nu     layers/*/bias    f32[4] × 3        48       0.55
adamw/scale_by_adam  nu     layers/*/kernel  f32[4,4] × 3     192       2.18
                     count                   i32[]              4       0.05
total                                                         532       6.05"""
    assert table(tx, network()) == expected


TRANSFORMATIONS = {
    "adam": gradtx.adam(1e-3),
    "sgd": gradtx.sgd(0.1),
    "momentum": gradtx.sgd(0.1, momentum=0.9),
    "masked": gradtx.masked(gradtx.adam(0.1), r"kernel$"),
    "partition": gradtx.partition(
        {"plain": gradtx.sgd(0.1, 0.9), "rest": gradtx.adam(0.1)},
        [("bias$", "plain"), (".*", "rest")],
    ),
    "tunable": gradtx.tunable(gradtx.adam(0.1), "learning_rate"),
    "optax": optax.adamw(0.1),
    "optax stateless": optax.sgd(0.1),
    "optax in a chain": gradtx.chain(
        gradtx.clip_by_global_norm(1.0), gradtx.GradientTransformation(*optax.adam(0.1))
    ),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_bytes_are_those_of_the_real_state(name: str) -> None:
    tx, params = TRANSFORMATIONS[name], network()
    made, state = gradtx.summary(tx, params, file=io.StringIO()), tx.init(params)
    assert made.bytes == sum(row.bytes for row in made.rows) == nbytes(state)
    assert sum(row.arrays for row in made.rows) == len(jax.tree.leaves(state))
    assert made.parameters == 88
    assert made.bytes_per_parameter == made.bytes / 88


def test_shapes_alone_give_the_same_table_and_allocate_nothing() -> None:
    tx = gradtx.adamw(1e-3)
    assert table(tx, jax.eval_shape(network)) == table(tx, network())
    huge = {"w": jax.ShapeDtypeStruct((1_000_000, 1_000_000), jnp.float32)}
    made = gradtx.summary(tx, huge, file=io.StringIO())
    assert made.bytes == 8 * 10**12 + 4
    assert (
        repr(made)
        == "Summary(8,000,000,000,004 bytes, 1,000,000,000,000 parameters, 8.00 bytes per "
        "parameter)"
    )


def test_masked_leaves_have_no_row() -> None:
    made = gradtx.summary(
        gradtx.masked(gradtx.adam(0.1), r"kernel$"), network(), file=io.StringIO()
    )
    assert [row.path for row in made.rows] == ["layers/*/kernel", "layers/*/kernel", ""]


def test_stateless_optimizers_say_so() -> None:
    assert (
        table(gradtx.sgd(0.1), network())
        == "stateless: it keeps only its step count, 4 bytes for 88 parameters"
    )
    assert (
        table(optax.sgd(0.1), network())
        == "stateless: it keeps nothing at all, 0 bytes for 88 parameters"
    )


def test_stars_stand_only_where_paths_differ() -> None:
    params = {
        "conv2d": {"layers_1": jnp.zeros(2), "layers_2": jnp.zeros(2), "layers_3": jnp.zeros(5)}
    }
    made = gradtx.summary(gradtx.sgd(0.1, momentum=0.9), params, file=io.StringIO())
    assert [(row.path, row.array, row.arrays) for row in made.rows[:2]] == [
        ("conv2d/layers_*", "f32[2]", 2),
        ("conv2d/layers_3", "f32[5]", 1),
    ]


def test_a_single_array_and_no_arrays() -> None:
    made = gradtx.summary(gradtx.adam(0.1), jnp.zeros(3), file=io.StringIO())
    assert [row[:4] for row in made.rows[:2]] == [
        ("scale_by_adam", "mu", "", "f32[3]"),
        ("scale_by_adam", "nu", "", "f32[3]"),
    ]
    assert gradtx.summary(gradtx.adam(0.1), {}, file=io.StringIO()).bytes_per_parameter == 0.0


def test_a_parameter_called_like_a_slot() -> None:
    made = gradtx.summary(
        gradtx.adam(0.1), {"mu": jnp.zeros(3), "nu": {"mu": jnp.zeros(2)}}, file=io.StringIO()
    )
    assert [row[:3] for row in made.rows[:2]] == [
        ("scale_by_adam", "mu", "mu"),
        ("scale_by_adam", "mu", "nu/mu"),
    ]


def test_something_else_is_refused() -> None:
    with pytest.raises(GradtxError, match=r"summary: tx is 0\.1, which has no init and update"):
        gradtx.summary(0.1, network())


def test_prints_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    made = gradtx.summary(gradtx.adam(0.1), network())
    assert capsys.readouterr().out == f"{made}\n"


def test_modules_with_functions_beside_their_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    module = eqx.nn.MLP(2, 3, 8, 2, key=jax.random.key(0))
    arrays = eqx.filter(module, eqx.is_array)
    for tx in (gradtx.adamw(1e-3), gradtx.stored(gradtx.lion(1e-3), "int8"), gradtx.muon(1e-3)):
        assert gradtx.summary(tx, module).rows == gradtx.summary(tx, arrays).rows
        own, plain = tx.describe(module), tx.describe(arrays)
        assert (own.bytes, own.members) == (plain.bytes, plain.members)
        covered = gradtx.coverage(tx, module)
        assert covered["activation"].startswith("not trained")
        assert {**covered, **gradtx.coverage(tx, arrays)} == covered
    assert "layers/0/weight" in capsys.readouterr().out
