"""The surroundings of other libraries: Optax as an oracle, and the optimizer of Flax's nnx."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import reject

import gradtx
from gradtx.engine.selector import leaves_of
from gradtx.testing.laws import advance
from gradtx.testing.problems import extras
from tests.fuzz.cases import Case, label
from tests.fuzz.surroundings import STEPS, alike
from tests.methods import METHODS
from tests.support.peer import optax


def _mask(params: Any) -> Any:
    """The leaves that the pattern of `masked` matches."""
    leaves = leaves_of(params)
    return leaves.treedef.unflatten([bool(re.search(r"a|b/0", path)) for path in leaves.paths])


PEERS: dict[str, Callable[[Any], Any]] = {
    "clipped": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "decayed": lambda tx: optax.chain(tx, optax.add_decayed_weights(1e-2)),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "accumulate": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "masked": lambda tx: optax.masked(tx, _mask),
    "partition": lambda tx: optax.partition({"first": tx, "rest": optax.sgd(0.1)}, label),
    "with_metrics": lambda tx: tx,
    "params_ema": lambda tx: tx,
}
"""The wrappers of cases in Optax; `with_metrics` and `params_ema` change no update."""


def check_optax(case: Case) -> None:
    """Updates in float64 are those of Optax, where it has the method and the wrappers."""
    peer, wide = METHODS[case.name].optax, METHODS[case.name].optax64
    if peer is None or not set(case.wrappers) <= set(PEERS):
        reject()
    for wrapper in case.wrappers:
        peer = PEERS[wrapper](peer)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), case.params)
        double = case._replace(params=params)
        state, ours = case.tx.init(params), []
        for step in range(STEPS):
            updates, state = advance(case.tx, double.grads(step), state, params)
            # The parameters move: L-BFGS has its own rule for pairs of which nothing moved.
            params = gradtx.apply_updates(params, updates)
            ours.append(updates)
        # Some hundred roundings more than in the table; MultiSteps divides by a count in float32.
        rtol = 1e-6 if "accumulate" in case.wrappers else 1e3 * wide
        _compare(ours, _follow_peer(peer, double), rtol)


def _follow_peer(peer: Any, case: Case) -> list[Any]:
    peer = optax.with_extra_args_support(peer)
    try:
        params, theirs = case.params, []
        state = peer.init(params)
        for step in range(STEPS):
            grads = case.grads(step)
            extra = extras(case.tx, params, grads)
            updates, state = peer.update(grads, state, params, **extra)
            params = optax.apply_updates(params, updates)
            theirs.append(updates)
    except Exception:
        reject()  # Optax refuses the tree
    return theirs


def _compare(ours: Any, theirs: Any, rtol: float) -> None:
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        right = np.asarray(other)
        if not np.isfinite(right).all():
            reject()  # gradtx stays finite where Optax does not
        size = max(np.max(np.abs(right), initial=0.0), 1e-300)
        np.testing.assert_allclose(one, right, rtol=0, atol=rtol * size)


class Holder(nnx.Module):
    """A module with the parameters of a case under their names."""

    def __init__(self, params: Any):
        self.a = nnx.Param(params["a"])
        self.b = nnx.List([nnx.Param(leaf) for leaf in params["b"]])
        if "c" in params:
            self.c = nnx.Dict({name: nnx.Param(leaf) for name, leaf in params["c"].items()})


def check_nnx(case: Case) -> None:
    """`nnx.Optimizer` under `nnx.jit` trains as a loop of `update` and `apply_updates`."""
    if case.tx.needs - {"params", "value"}:
        reject()  # functions of the parameters, and trees like them
    model = Holder(case.params)
    tx: Any = case.tx
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Holder, optimizer: nnx.Optimizer, grads: Any, extra: Any) -> None:
        optimizer.update(model, grads, **extra)

    @jax.jit
    def plain(params: Any, state: Any, grads: Any) -> Any:
        updates, state = advance(case.tx, grads, state, params)
        return gradtx.apply_updates(params, updates), state

    params = {name: leaf for name, leaf in case.params.items() if leaf is not None}
    state = case.tx.init(params)
    for number in range(STEPS):
        grads = {name: leaf for name, leaf in case.grads(number).items() if leaf is not None}
        extra = extras(case.tx, params, grads)
        step(model, optimizer, nnx.state(Holder(grads), nnx.Param), extra)
        params, state = plain(params, state, grads)
    trained = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    trained["b"] = [trained["b"][number] for number in range(len(params["b"]))]
    alike(trained, params)


LIBRARIES: dict[str, Callable[[Case], None]] = {"optax": check_optax, "nnx": check_nnx}
