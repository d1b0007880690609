"""Chunks of a sweep: their results, their one program, the memory that chooses them, devices."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.definition.errors import GradtxError
from gradtx.inspect import sweep_run
from gradtx.inspect.sweep_progress import Progress

RATES = np.geomspace(0.01, 1.0, 13)
ONE = jax.devices()[:1]
FOUR = jax.devices()[:4]
traced: list[int] = []


def train(tx: Any, key: jax.Array, curvatures: jax.Array) -> dict[str, jax.Array]:
    """A quadratic from a random start."""
    traced.append(1)

    def step(carry: Any, _: None) -> Any:
        w, state = carry
        updates, state = tx.update(curvatures * w, state, w)
        w = gradtx.apply_updates(w, updates)
        return (w, state), w[0] ** 2

    w = jax.random.normal(key, (4,))
    (w, _), losses = jax.lax.scan(step, (w, tx.init(w)), None, 20)
    return {"loss": losses, "w": w}


CURVATURES = jnp.arange(1.0, 5.0)


def run(**options: Any) -> Any:
    options = {"devices": ONE, "seeds": 2, "learning_rate": RATES, **options}
    return gradtx.sweep(train, gradtx.sgd(0.1, momentum=0.9), CURVATURES, **options)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of trainings in each chunk, in the order of the chunks."""
    counts: list[int] = []
    advance = Progress.advance

    def record(self: Progress, count: int) -> None:
        counts.append(count)
        advance(self, count)

    monkeypatch.setattr(Progress, "advance", record)
    return counts


def assert_same(one: Any, other: Any) -> None:
    """The results of one sweep are those of the other.

    Both are float32, and XLA contracts products and sums differently for another size of a batch:
    1.5e-5 at most after 20 steps. With this suite's settings of XLA every bit is the same.
    """
    assert one.values.keys() == other.values.keys()
    for name in one.values:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6, strict=True)


@pytest.mark.parametrize(("chunk", "counts"), [(26, [26]), (10, [10, 10, 6]), (99, [26])])
def test_chunks_return_the_same_results(sizes: list[int], chunk: int, counts: list[int]) -> None:
    whole = run()
    sizes.clear()
    assert_same(run(chunk=chunk), whole)
    assert sizes == counts


def test_chunks_share_one_program() -> None:
    jax.clear_caches()
    traced.clear()
    run(chunk=4)
    assert len(traced) == 1


def needed_bytes(size: int) -> int:
    """A training needs a thousand bytes."""
    return 1000 * size


@pytest.mark.parametrize(
    ("free", "counts"), [(10**6, [26]), (16_250, [13, 13]), (13_000, [9, 9, 8])]
)
def test_memory_chooses_the_chunks(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch, free: int, counts: list[int]
) -> None:
    """Of the free memory 0.8 are for a chunk; the chunks are of one size."""
    whole = run()
    sizes.clear()
    monkeypatch.setattr(sweep_run, "free_memory", lambda device: free)
    monkeypatch.setattr(
        sweep_run, "_needed", lambda program: needed_bytes(program.in_avals[0][0][0].size)
    )
    assert_same(run(), whole)
    assert sizes == counts


def test_the_estimate_is_that_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each training sorts 1 MB; XLA may hold up to eight times that."""
    programs: list[Any] = []
    needed = sweep_run._needed

    def record(program: Any) -> int | None:
        programs.append(needed(program))
        return programs[-1]

    def wide(tx: Any) -> jax.Array:
        w = gradtx.hyperparams(tx)["learning_rate"] * jnp.arange(2.0**18)
        return jnp.sort(jnp.sin(w))[-1]

    monkeypatch.setattr(sweep_run, "_needed", record)
    gradtx.sweep(wide, gradtx.sgd(0.1), devices=ONE, learning_rate=[0.1, 0.2, 0.3, 0.4])
    assert 4 * 2**20 <= programs[0] <= 4 * 2**23
    assert sweep_run.free_memory(jax.devices()[0])  # the memory of this machine is known


def exhaust(monkeypatch: pytest.MonkeyPatch, most: int, text: str) -> None:
    compile = sweep_run._compile

    def limited(group: Any, job: Any, devices: Any, inputs: Any, results: Any) -> Any:
        program = compile(group, job, devices, inputs, results)
        return program if len(inputs[0][0]) <= most else Failing(text)

    monkeypatch.setattr(sweep_run, "_compile", limited)


class Failing:
    """A program that fails when it runs."""

    def __init__(self, text: str):
        self.text = text

    def memory_analysis(self) -> None:
        return None

    def __call__(self, *inputs: Any) -> Any:
        raise jax.errors.JaxRuntimeError(self.text)


EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123 bytes."


@pytest.mark.parametrize("chunk", [None, 20])
def test_where_memory_ends_chunks_are_halved(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch, chunk: int | None
) -> None:
    whole = run()
    sizes.clear()
    exhaust(monkeypatch, 7, EXHAUSTED)
    assert_same(run(chunk=chunk), whole)
    assert sizes == ([6, 6, 6, 6, 2] if chunk is None else [5, 5, 5, 5, 5, 1])


def test_one_training_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    exhaust(monkeypatch, 0, EXHAUSTED)
    text = "sweep: one training alone does not fit into memory; use a smaller batch or model"
    with pytest.raises(GradtxError, match=re.escape(text)) as caught:
        run()
    assert EXHAUSTED in str(caught.value.__cause__)


def test_other_errors_of_a_program_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    exhaust(monkeypatch, 0, "INTERNAL: a broken device")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: a broken device"):
        run()


@pytest.mark.parametrize(("chunk", "counts"), [(None, [26]), (10, [12, 12, 2])])
def test_devices_share_the_trainings(
    sizes: list[int], chunk: int | None, counts: list[int]
) -> None:
    one = run()
    sizes.clear()
    assert_same(run(devices=FOUR, chunk=chunk), one)
    assert sizes == counts
    assert_same(run(devices=None), one)


def test_devices_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk is an eighth on each of eight devices, and nothing is sent between them."""
    texts: list[str] = []
    compile = sweep_run._compile

    def record(*inputs: Any) -> Any:
        program = compile(*inputs)
        texts.append(program.as_text())
        assert inputs[3][0][0].sharding.num_devices == 8
        return program

    monkeypatch.setattr(sweep_run, "_compile", record)
    run(devices=None, learning_rate=RATES[:8])
    (text,) = texts
    assert "num_partitions=8" in text
    assert not re.search(r"all-(gather|reduce|to-all)|collective-permute", text)


def test_few_trainings_leave_devices_free() -> None:
    result = run(learning_rate=[0.1], seeds=3, devices=FOUR)
    assert_same(result, run(learning_rate=[0.1], seeds=3))


def test_arguments_of_the_caller_on_several_devices_stay_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = Mesh(np.array(FOUR), ("x",))
    spread = jax.device_put(CURVATURES, NamedSharding(mesh, PartitionSpec("x")))
    shardings: list[Any] = []
    compile = sweep_run._compile

    def record(*inputs: Any) -> Any:
        shardings.append(inputs[3][2][0].sharding)
        return compile(*inputs)

    monkeypatch.setattr(sweep_run, "_compile", record)
    options: dict[str, Any] = {"learning_rate": RATES, "seeds": 2}
    result = gradtx.sweep(train, gradtx.sgd(0.1, momentum=0.9), spread, **options)
    assert shardings == [spread.sharding]
    assert_same(result, run())
