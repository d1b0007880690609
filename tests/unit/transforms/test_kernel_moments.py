"""The buffers of a kernel: the hand-over, the ring, storage, skipped steps, meshes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.tree.jaxprs import inner_jaxpr
from tests.support.momentum_kernels import KERNELS, run, small_taps


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_the_hand_over(name: str) -> None:
    """Until the switch the optimizer's own average; bias-corrected, a constant stays a constant."""
    kernel, grads = KERNELS[name], jnp.sin(jnp.arange(1.0, 13.0) ** 2)
    last = 4 if name == "max_entropy" else 5  # a sum of averages acts one step after the switch
    choices: list[dict[str, Any]] = [{}, {"debias": False}]
    for options in choices:
        plain = run(gradtx.ema(0.8, **options), grads)
        ours = run(gradtx.scale_by_momentum(kernel, 0.8, **options), grads)
        np.testing.assert_allclose(ours[:last], plain[:last], rtol=1e-6)
        assert np.abs(ours[last:] - plain[last:]).min() > 1e-4
    level = run(gradtx.scale_by_momentum(kernel, 0.8), jnp.full(12, 3.0))
    np.testing.assert_allclose(level, 3.0, rtol=1e-6)


def test_buffers_start_as_copies() -> None:
    tx = gradtx.scale_by_momentum(gradtx.bi_maxwell(start=2), 0.8)
    state, m = tx.init(jnp.zeros(3)), np.zeros(3)
    fast = slow = m
    for count in range(5):
        grad = np.array([1.0, -2.0, 0.5]) * (count + 1)
        _, state = tx.update(jnp.asarray(grad, jnp.float32), state)
        slots = state.slots["scale_by_momentum"]
        if count <= 2:  # the switch step included
            m = 0.8 * m + 0.2 * grad
            fast = slow = m
        else:
            fast, slow = 0.85 * fast + 0.15 * grad, 0.98 * slow + 0.02 * grad
        np.testing.assert_allclose(slots.mu, fast, rtol=1e-6)
        np.testing.assert_allclose(slots.mu_2, slow, rtol=1e-6)


def equations(jaxpr: Any) -> Any:
    for one in jaxpr.eqns:
        yield one
        if (inner := inner_jaxpr(one)) is not None:
            yield from equations(inner)


def test_the_ring_is_written_in_place() -> None:
    """One row is written, and one pass reads all: no equation moves the ring."""
    tx, w = gradtx.scale_by_momentum(small_taps()), jnp.ones((16, 32))
    jaxpr = jax.make_jaxpr(tx.update)(w, tx.init(w)).jaxpr
    on_ring = [
        one.primitive.name
        for one in equations(jaxpr)
        if any(getattr(out.aval, "shape", ()) == (7, 16, 32) for out in one.outvars)
        and one.primitive.name not in ("jit", "pjit")
    ]
    assert sorted(on_ring) == ["dynamic_update_slice", "mul"]


RINGS = {
    "float32": gradtx.scale_by_momentum(small_taps()),
    "guard": gradtx.guard(gradtx.scale_by_momentum(small_taps())),
}
"""tests/accelerators/test_momentum.py has rings of 16 bits, which XLA:CPU copies."""


@pytest.mark.parametrize("name", sorted(RINGS))
def test_a_compiled_step_copies_no_ring(name: str) -> None:
    """The state is donated; the temporary arrays are smaller than three gradients."""
    tx, w = RINGS[name], jnp.ones((64, 64))
    update = jax.jit(tx.update, donate_argnums=1)
    compiled: Any = update.lower(w, tx.init(w), w).compile()
    lines = compiled.as_text().splitlines()
    assert any("[7,64,64]" in line for line in lines)
    assert not [line for line in lines if " copy(" in line and "[7,64,64]" in line]
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * w.nbytes


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_ring_of_sixteen_bits_rounds_each_gradient_once(name: str) -> None:
    grads = jnp.sin(jnp.arange(60.0).reshape(10, 6))
    exact = run(RINGS["float32"], grads)
    ours = run(gradtx.scale_by_momentum(small_taps(), accumulator_dtype=name), grads)
    error = {"bfloat16": 2.0**-8, "float16": 2.0**-10}[name]
    assert 0 < np.abs(ours - exact).max() < error


def test_stored_encodes_the_buffers_and_not_the_ring() -> None:
    w = jnp.ones((64, 64))
    tx = gradtx.stored(gradtx.adam(0.1, momentum=gradtx.k_maxwell(3)), "int8", min_size=0)
    slots = gradtx.flatten_state(tx.init(w).slots)
    codes = [name for name, array in slots.items() if array.dtype == jnp.int8]
    assert [name.rsplit("/", 1)[-1] for name in codes if "mu" in name] == [
        "mu_codes",
        "mu_2_codes",
        "mu_3_codes",
    ]
    ring = gradtx.stored(gradtx.adam(0.1, momentum=small_taps()), "int8", min_size=0).init(w)
    assert ring.mu_ring.dtype == jnp.float32
    half = gradtx.adam(0.1, momentum=small_taps(), mu_dtype=jnp.bfloat16).init(w)
    assert half.mu_ring.dtype == jnp.uint16 and half.mu_ring.shape == (7, 64, 64)


def test_stored_stays_near_the_exact_step() -> None:
    grads = jnp.sin(jnp.arange(8 * 64 * 64.0).reshape(8, 64, 64))
    exact = gradtx.scale_by_momentum(gradtx.k_maxwell(3, start=3, transition_steps=4), 0.8)
    plain = run(exact, grads)
    codecs: list[tuple[Any, float]] = [("bf16", 0.02), ("int8", 0.05)]
    for codec, error in codecs:
        stored = run(gradtx.stored(exact, codec, min_size=0), grads)
        assert 0 < np.abs(stored - plain).max() < error * np.abs(plain).max()


@pytest.mark.parametrize("name", ["k_maxwell", "max_entropy"])
def test_a_skipped_step_does_not_advance(name: str) -> None:
    tx = gradtx.guard(gradtx.adam(0.1, momentum=KERNELS[name]))
    w, good, bad = jnp.zeros(3), jnp.array([1.0, -2.0, 3.0]), jnp.full(3, jnp.nan)
    state = skipping = tx.init(w)
    update = jax.jit(tx.update)
    for count in range(7):
        u, state = update(good * (count + 1), state, w)
        _, skipping = update(bad, skipping, w)
        v, skipping = update(good * (count + 1), skipping, w)
        np.testing.assert_array_equal(u, v)
    np.testing.assert_array_equal(
        skipping.slots["scale_by_adam"].mu, state.slots["scale_by_adam"].mu
    )


@pytest.mark.parametrize("name", ["k_maxwell", "max_entropy"])
def test_accumulate_counts_whole_steps(name: str) -> None:
    inner = gradtx.scale_by_momentum(KERNELS[name], 0.8)
    grads = jnp.sin(jnp.arange(30.0).reshape(10, 3))
    accumulated = run(gradtx.accumulate(inner, 2), jnp.repeat(grads, 2, axis=0))[1::2]
    np.testing.assert_allclose(accumulated, run(inner, grads), rtol=1e-6, atol=1e-7)


def test_buffers_are_cut_as_their_parameter() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    cut = jax.NamedSharding(mesh, jax.P("x"))
    grads = jnp.sin(jnp.arange(160.0).reshape(5, 16, 2))
    for kernel in (small_taps(), gradtx.bi_maxwell(start=2)):
        tx = gradtx.scale_by_momentum(kernel, 0.8)
        state, whole = tx.init(jax.device_put(grads[0], cut)), run(tx, grads)
        update = jax.jit(tx.update)
        for grad, expected in zip(grads, whole, strict=True):
            u, state = jax.block_until_ready(update(jax.device_put(grad, cut), state))
            np.testing.assert_allclose(u, expected, rtol=1e-6, atol=1e-7)
        slots = state.slots["scale_by_momentum"]
        assert slots.mu.sharding.is_equivalent_to(cut, 2)
        if hasattr(slots, "mu_ring"):
            ring = jax.NamedSharding(mesh, jax.P(None, "x"))
            assert slots.mu_ring.sharding.is_equivalent_to(ring, 3)
        else:
            assert slots.mu_2.sharding.is_equivalent_to(cut, 2)
