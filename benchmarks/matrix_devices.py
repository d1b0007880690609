"""Matrix optimizers on 8 devices and on one: the largest difference of their numbers.

Eight CPU devices, 16 matrices of 4 blocks of width 64, cut by rows; five steps, refreshes at every
second one. The difference is the largest one of any entry, in units of the largest entry of its
array. In float64 it is rounding only. In float32 it is rounding, too: products are summed in
another order, the polynomials of Muon multiply small singular values by up to 430, and their
rounding with them, and SOAP, as Adam, divides what is nearly zero by its size. SOAP has the factor
of the shorter side: that of the longer one has less rank than rows at the first gradients, its
other eigenvectors are any that rounding leaves, and no two machines agree on them."""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from benchmarks.harness import Row, arguments, finish
from benchmarks.matrices import drawn, hidden

DEVICES, STEPS, BAR = 8, 5, 1e-5
METHODS: dict[str, Callable[..., Any]] = {
    "muon": lambda **options: gradtx.muon(0.02, **options),
    "normuon": lambda **options: gradtx.normuon(0.02, **options),
    "soap": lambda **options: gradtx.soap(3e-3, refresh_every=2, one_sided=True, **options),
    "shampoo": lambda **options: gradtx.shampoo(3e-3, refresh_every=2, **options),
}


def bent(number: int, leaf: jax.Array) -> jax.Array:
    """A gradient that differs from step to step in more than its size."""
    return 1e-3 * jnp.sin(number * leaf)


def trained(tx: Any, params: Any, grads: Any) -> tuple[Any, Any]:
    """The parameters and the updates after some steps."""

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any, Any]:
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state, updates

    state, updates = tx.init(params), None
    for grad in (
        grads
    ):  # one program at a time: two that wait for all devices of a CPU can wait for each other
        params, state, updates = jax.block_until_ready(step(params, state, grad))
    return params, updates


def deviation(ours: Any, one: Any) -> float:
    pairs = zip(
        map(np.asarray, jax.tree.leaves(ours)), map(np.asarray, jax.tree.leaves(one)), strict=True
    )
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def rows_of(dtype: str) -> Iterator[Row]:
    params, first = (
        jax.tree.map(lambda leaf: leaf.astype(dtype), drawn(hidden(64, 4), deviation))
        for deviation in (0.02, 1.0)
    )
    grads = [jax.tree.map(functools.partial(bent, number), first) for number in range(1, STEPS + 1)]
    cut = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x"))
    sharded, pushed = jax.block_until_ready(jax.device_put((params, grads), cut))
    for name, build in METHODS.items():
        many = trained(build(shard=gradtx.sharding.owners(sharded, "x")), sharded, pushed)
        one = trained(build(), params, grads)
        for what, ours, alone in zip(("parameters", "updates"), many, one, strict=True):
            yield Row(
                f"{name}, {dtype}: {what}", {"gradtx": deviation(ours, alone)}, bar=BAR, unit=""
            )


def main() -> int:
    options = arguments(__doc__)
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.config.update("jax_enable_x64", True)
    return finish("matrix_devices", [*rows_of("float64"), *rows_of("float32")], options, exact=True)


if __name__ == "__main__":
    sys.exit(main())
