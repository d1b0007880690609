"""`momentum=` of every member of the families."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.momentum_kernels import run


def test_ademamix_is_a_kernel_of_adam() -> None:
    w, grads = jnp.ones((2, 3)), jnp.sin(jnp.arange(60.0).reshape(10, 2, 3))
    b3 = gradtx.half_life_schedule(0.9, 0.999, 10)
    alpha = gradtx.linear_schedule(0.0, 5.0, 10)
    ours = run(gradtx.scale_by_adam(momentum=gradtx.ademamix_kernel(0.9, b3, alpha)), grads)
    theirs = run(gradtx.scale_by_ademamix(0.9, b3=b3, alpha=alpha), grads)
    np.testing.assert_allclose(ours, theirs, rtol=2e-6)
    assert w.shape == ours.shape[1:]


MEMBERS: dict[str, dict[str, Any]] = {
    **{name: {"b1": 0.9} for name in ("adam", "adamw", "nadam", "nadamw", "adamax", "adamaxw")},
    **{name: {"b1": 0.9} for name in ("adabelief", "amsgrad", "laprop", "lamb", "radam", "yogi")},
    **{name: {"b1": 0.9} for name in ("adan", "adopt", "grams", "stable_adamw", "adam_mini")},
    **{name: {"b1": 0.9} for name in ("optimistic_adam_v2", "mars", "came", "soap", "kl_soap")},
    "lion": {"b2": 0.9},
    "tiger": {"b1": 0.9},
    **{name: {"beta": 0.9} for name in ("signum", "muon", "normuon", "adamuon", "scion")},
}


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_one_exponential_is_the_average_of_every_member(name: str) -> None:
    """A kernel of the optimizer's own decay changes nothing, one of another decay does."""
    w = {"layer": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}
    grads = [jax.tree.map(lambda x, n=n: jnp.sin(3 * n + 5 * x), w) for n in range(4)]
    last, updates = [], w
    for kernel in (None, *(gradtx.exponentials((decay,), (1.0,)) for decay in (0.9, 0.3))):
        tx = getattr(gradtx, name)(0.1, momentum=kernel, **MEMBERS[name])
        state = tx.init(w)
        for grad in grads:
            updates, state = tx.update(grad, state, w)
        last.append(updates["layer"])
    np.testing.assert_allclose(last[1], last[0], rtol=1e-6, atol=1e-9)
    assert not np.allclose(last[2], last[0], rtol=1e-3)


@pytest.mark.parametrize("name", ["scale_by_kl_soap", "scale_by_soap"])
def test_a_direction_in_bases_is_linear_in_the_kernel(name: str) -> None:
    """Every buffer turns with the bases: a mix of two averages mixes their directions."""
    grads = jnp.sin(jnp.arange(72.0).reshape(12, 2, 3) ** 1.5)
    make = getattr(gradtx, name)
    kernel = gradtx.exponentials((0.5, 0.9), (0.25, 0.75))
    mix, fast, slow = (
        run(make(b1, refresh_every=2, momentum=momentum), grads)
        for b1, momentum in ((0.7, kernel), (0.5, None), (0.9, None))
    )
    np.testing.assert_allclose(mix, 0.25 * fast + 0.75 * slow, rtol=1e-4, atol=1e-5)
