"""The surroundings of a case, and the law that each of them must keep."""

import contextlib
import json
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from gradtx.testing.laws import advance
from gradtx.tree.casts import is_inexact
from tests.fuzz.cases import Case

STEPS = 2


def follow(case: Case, update: Any = None, state: Any = None, params: Any = None) -> Any:
    """Run some steps: the updates of each, and the last state."""
    run = update or jax.jit(advance)
    params = case.params if params is None else params
    state, updates = case.tx.init(params) if state is None else state, []
    for step in range(STEPS):
        update_tree, state = run(case.tx, case.grads(step), state, params)
        updates.append(update_tree)
    return updates, state


def same(left: Any, right: Any) -> None:
    """Assert that two trees have equal bits."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(numbers(one), numbers(other))


def numbers(array: Any) -> np.ndarray:
    """An array that NumPy can compare; the bits of a random key."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array, np.float64) if is_inexact(array) else np.asarray(array)


def alike(left: Any, right: Any) -> None:
    """Assert that two trees have equal numbers, up to rounding in programs that XLA fuses apart."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        first, second = numbers(one), numbers(other)
        if not is_inexact(one):
            np.testing.assert_array_equal(first, second)
            continue
        size = np.max(np.abs(second), initial=0.0, where=np.isfinite(second))
        # Some hundred roundings: a root or a quotient multiplies those of its sums.
        atol = size * 256 * float(jnp.finfo(one.dtype).eps)
        np.testing.assert_allclose(first, second, rtol=0, atol=atol)


def finite(case: Case, updates: Any) -> None:
    """Assert that updates are finite, and like the gradients in structure, shape and dtype."""
    for step, one in enumerate(updates):
        like = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), case.grads(step))
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), one) == like
        assert all(np.isfinite(numbers(leaf)).all() for leaf in jax.tree.leaves(one))


def check_finite(case: Case) -> None:
    """Finite gradients give finite updates, like the gradients."""
    finite(case, follow(case)[0])


def check_eager(case: Case) -> None:
    """An eager step gives finite updates, and the state that a compiled step gives in form."""
    updates, state = follow(case, advance)
    finite(case, updates)
    forms = [jax.tree.map(jax.typeof, one) for one in (state, follow(case)[1])]
    assert forms[0] == forms[1]


def check_scan(case: Case) -> None:
    """`scan` carries the state."""

    def body(state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = advance(case.tx, grads, state, case.params)
        return state, updates

    grads = jax.tree.map(lambda *rows: jnp.stack(rows), *map(case.grads, range(STEPS)))
    state, updates = jax.jit(lambda state: jax.lax.scan(body, state, grads))(
        case.tx.init(case.params)
    )
    rows = [jax.tree.map(lambda rows, n=n: rows[n], updates) for n in range(STEPS)]
    finite(case, rows)
    assert jax.tree.structure(state) == jax.tree.structure(case.tx.init(case.params))
    alike(rows, follow(case)[0])


def check_vmap(case: Case) -> None:
    """Two equal trainings in a batch have the updates of one alone."""
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (case.params, case.grads(0)))
    state = jax.vmap(case.tx.init)(twice[0])
    updates, _ = jax.jit(jax.vmap(advance, in_axes=(None, 0, 0, 0)))(
        case.tx, twice[1], state, twice[0]
    )
    alone, _ = jax.jit(advance)(case.tx, case.grads(0), case.tx.init(case.params), case.params)
    for number in range(2):
        one = jax.tree.map(lambda rows, n=number: rows[n], updates)
        finite(case, [one])
        alike(one, alone)


def check_strict(case: Case) -> None:
    """Strict promotion of dtypes changes no bit."""
    expected = follow(case)
    with jax.numpy_dtype_promotion("strict"):
        same(follow(case), expected)


def check_mesh(case: Case) -> None:
    """Parameters on a mesh with explicit axes are trained as they are on one device."""
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Explicit,))
    params = jax.tree.map(
        lambda leaf: jax.device_put(leaf, NamedSharding(mesh, _spec(leaf))), case.params
    )
    with jax.set_mesh(mesh):
        state = case.tx.init(params)
        grads = jax.tree.map(
            lambda grad, leaf: jax.device_put(grad, leaf.sharding), case.grads(0), params
        )
        updates, _ = jax.jit(advance)(case.tx, grads, state, params)
    finite(case, [updates])
    alone, _ = jax.jit(advance)(case.tx, case.grads(0), case.tx.init(case.params), case.params)
    alike(updates, alone)


def _spec(leaf: jax.Array) -> PartitionSpec:
    cut = leaf.ndim > 0 and leaf.shape[0] > 0 and leaf.shape[0] % 2 == 0
    return PartitionSpec("x") if cut else PartitionSpec()


def check_numpy(case: Case) -> None:
    """A state of NumPy arrays goes on as one of jax's."""
    _, state = follow(case)
    plain = jax.tree.map(_to_numpy, state)
    same(follow(case, state=plain), follow(case, state=state))


def _to_numpy(leaf: jax.Array) -> Any:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key else np.asarray(leaf)


def check_saved(case: Case) -> None:
    """A state that was saved and loaded is the same in every bit."""
    _, state = follow(case)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.npz")
        gradtx.save(path, state)
        same(gradtx.load(path, like=case.tx.init(case.params)), state)


def check_json(case: Case) -> None:
    """The JSON form gives an equal definition, or is refused with the reason."""
    try:
        text = json.dumps(gradtx.to_config(case.tx))
    except gradtx.GradtxError:
        return
    assert gradtx.from_config(json.loads(text)) == case.tx


def check_pickle(case: Case) -> None:
    """A pickled definition is equal, and so are its updates."""
    with contextlib.suppress(pickle.PicklingError, AttributeError):
        text = pickle.dumps(case.tx)
        same(follow(case._replace(tx=pickle.loads(text))), follow(case))


def check_late(case: Case) -> None:
    """Counters at their maximum stay there, and updates stay finite."""
    largest = jnp.iinfo(jnp.int32).max
    _, state = follow(case)  # moments of a first state would not be those of a late one
    late = jax.tree.map(
        lambda leaf: jnp.full_like(leaf, largest) if leaf.dtype == jnp.int32 else leaf, state
    )
    updates, state = follow(case, state=late)
    finite(case, updates)
    counts = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.int32]
    assert all((np.asarray(leaf) >= 0).all() for leaf in counts)


def check_harm(case: Case) -> None:
    """NaN and infinity in one step raise no error, and a state keeps its form."""
    state, grads = case.tx.init(case.params), case.grads(0)
    bad = jax.tree.map(
        lambda leaf: jnp.full_like(leaf, jnp.nan) if is_inexact(leaf) else leaf, grads
    )
    _, new = jax.jit(advance)(case.tx, bad, state, case.params)
    assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)


SURROUNDINGS: dict[str, Callable[[Case], None]] = {
    name.removeprefix("check_"): function
    for name, function in globals().items()
    if name.startswith("check_")
}
"""All of them, by name."""
