"""The laws of transformations, independent of their equations.

Each law is a function of a definition, and raises when the definition breaks it. `check_laws(tx)`
runs all; parametrize a test over `LAWS` to run each law as a test of its own.
"""

import functools
import json
import pickle
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.select import partition
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.config import from_config, to_config
from gradtx.definition.errors import ConfigError, MissingParamsError, StateError, StructureError
from gradtx.definition.types import Params, PyTree, Updates
from gradtx.interop.checkpoints import flatten_state
from gradtx.schedules.polynomial import constant_schedule
from gradtx.testing.hints import with_hint
from gradtx.testing.problems import extras, gradients, parameters
from gradtx.testing.state_paths import assert_same_paths, kept_paths
from gradtx.training.apply import apply_updates
from gradtx.training.hyperparams import hyperparams, hyperparams_named, replace
from gradtx.transforms.scaling import set_to_zero
from gradtx.tree.casts import is_inexact

TX = GradientTransformation
Law = Callable[[TX], None]


def advance(tx: TX, grads: Updates, state: Any, params: Params) -> tuple[Any, Any]:
    """Run `tx.update` with the extra arguments that it needs."""
    return tx.update(grads, state, params, **extras(tx, params, grads))


def run(tx: TX, params: Params, steps: int = 3, jit: bool = False) -> tuple[Any, Any, Any]:
    """Run some steps; the last updates, the state and the parameters."""
    update = functools.partial(advance, tx)
    update = jax.jit(update) if jit else update
    state, updates = tx.init(params), None
    for step in range(steps):
        updates, state = update(gradients(params, seed=step + 1), state, params)
        params = apply_updates(params, updates)
    return updates, state, params


def close(left: Any, right: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Assert equality up to the rounding of float32 sums in another order."""
    chex.assert_trees_all_close(left, right, rtol=rtol, atol=atol)


def law_pure(tx: TX) -> None:
    """Same inputs give same outputs; the inputs do not change."""
    params = parameters()
    grads, state = gradients(params), tx.init(params)
    before = jax.tree.map(np.array, (params, grads, state))
    first, second = advance(tx, grads, state, params), advance(tx, grads, state, params)
    chex.assert_trees_all_equal(first, second)
    chex.assert_trees_all_equal(before, jax.tree.map(np.array, (params, grads, state)))


def law_jit_equals_eager(tx: TX) -> None:
    """Compiled and eager steps give the same numbers."""
    close(run(tx, parameters()), run(tx, parameters(), jit=True))


def law_scan_carry(tx: TX) -> None:
    """The state keeps its structure, dtypes and weak types, so that `scan` can carry it."""
    params = parameters()
    state = tx.init(params)
    _, new = advance(tx, gradients(params), state, params)
    chex.assert_trees_all_equal_structs(state, new)
    same = jax.tree.map(
        lambda old, now: old.aval == now.aval and old.sharding == now.sharding, state, new
    )
    assert all(jax.tree.leaves(same)), f"the state changes its types: {state} became {new}"

    def body(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = advance(tx, gradients(params), state, params)
        return (apply_updates(params, updates), state), None

    (_, last), _ = jax.lax.scan(body, (params, state), None, length=3)
    assert last.count == run(tx, params)[1].count


def law_one_compilation(tx: TX) -> None:
    """A second step, a new number and an equal definition do not trace again."""
    traced = chex.assert_max_traces(advance, n=1)
    chex.clear_trace_counter()
    update, params = jax.jit(traced), parameters()
    _, state = update(tx, gradients(params), tx.init(params), params)
    update(tx, gradients(params), state, params)
    for name, value in numbers(tx).items():
        update(replace(tx, **{name: type(value)(value * 0.5)}), gradients(params), state, params)


def numbers(tx: TX) -> dict[str, float]:
    """The hyperparameters that are numbers, not schedules."""
    values = hyperparams_named(tx, list(hyperparams(tx)), None)
    return {name: value for name, value in values.items() if isinstance(value, float | int)}


def law_like_gradients(tx: TX) -> None:
    """Updates have the structure, shapes and dtypes of the gradients."""
    params = parameters()
    grads = gradients(params)
    updates, _ = advance(tx, grads, tx.init(params), params)
    chex.assert_trees_all_equal_structs(grads, updates)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, updates)


def law_leaves_alone(tx: TX) -> None:
    """Integers and None pass through; trees may be empty, or a single scalar."""
    params = parameters()
    grads = {**gradients(params), "step": jnp.asarray(7, jnp.int32)}
    updates, state = advance(tx, grads, tx.init(params), params)
    assert updates["step"] == 7 and updates["absent"] is None
    assert not any(path.endswith(("/step", "/absent")) for path in kept_paths(state))
    assert advance(tx, {}, tx.init({}), {})[0] == {}
    alone = jnp.asarray(2.0)
    assert advance(tx, alone, tx.init(alone), alone)[0].shape == ()


def law_leaf_order(tx: TX) -> None:
    """Other names, so another order of the leaves: the same numbers."""
    params, grads = parameters(), gradients(parameters())
    rename = functools.partial(
        _rename,
        dict(zip(sorted(params), reversed([f"k{i}" for i in range(len(params))]), strict=True)),
    )
    updates, _ = advance(tx, grads, tx.init(params), params)
    renamed, _ = advance(tx, rename(grads), tx.init(rename(params)), rename(params))
    close(rename(updates), renamed)


def _rename(names: dict[str, str], tree: dict[str, Any]) -> dict[str, Any]:
    return {names[name]: leaf for name, leaf in tree.items()}


def law_dtypes(tx: TX) -> None:
    """Low precision is computed in float32, and agrees with float32 up to one rounding."""
    # One rounding of the gradient's dtype, doubled.
    for dtype, rtol in ((jnp.bfloat16, 2**-7), (jnp.float16, 2**-9)):
        params = {"dense": parameters(dtype)["dense"]}
        grads, high = gradients(params), to_float32(params)
        updates, state = advance(tx, grads, tx.init(params), params)
        exact, _ = advance(tx, to_float32(grads), tx.init(high), high)
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, updates)
        close(to_float32(updates), exact, rtol=rtol, atol=1e-3)
        for path, leaf in flatten_state(state).items():
            assert leaf.dtype != dtype, f"slot {path!r} is {leaf.dtype}, float32 is the default"


def to_float32(tree: PyTree) -> Any:
    """The same numbers in float32; integers as they are."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf, np.float32)) if is_inexact(leaf) else leaf, tree
    )


def law_float64(tx: TX) -> None:
    """In x64 mode float64 is computed in float64."""
    with jax.enable_x64(True):
        starts = ({"dense": parameters(dtype)["dense"]} for dtype in (jnp.float64, jnp.float32))
        (_, state, high), (_, _, low) = (run(tx, params, steps=1, jit=True) for params in starts)
        assert high["dense"]["kernel"].dtype == jnp.float64
        assert low["dense"]["kernel"].dtype == jnp.float32
        assert all(
            leaf.dtype == jnp.float64
            for leaf in jax.tree.leaves(state.slots)
            if is_inexact(leaf) and leaf.ndim
        )
        close(
            jax.tree.map(np.float32, high),
            jax.tree.map(np.float32, low),
            rtol=1e-4,
            atol=1e-4,
        )


def law_complex(tx: TX) -> None:
    """Complex arrays stay complex and finite, or raise an error that names them."""
    params = {"z": parameters(jnp.complex64)["dense"]["kernel"]}
    try:
        updates, _ = advance(tx, gradients(params), tx.init(params), params)
    except StructureError as error:
        assert "'z'" in str(error) and "complex" in str(error)
        return
    assert updates["z"].dtype == jnp.complex64 and bool(jnp.all(jnp.isfinite(updates["z"])))


def law_zero_gradient(tx: TX) -> None:
    """A gradient of zero on the first step gives a finite update."""
    params = parameters()
    updates, _ = advance(tx, jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for path, leaf in flatten_state(updates).items():
        assert bool(jnp.all(jnp.isfinite(leaf))), f"the update of {path!r} is not finite"


def law_contained(tx: TX) -> None:
    """inf and nan do not spread to other entries."""
    params = parameters()
    finite, _ = advance(tx, gradients(params), tx.init(params), params)
    zeroed = finite["dense"]["kernel"][1, 2] == 0
    for bad in (jnp.nan, jnp.inf):
        grads = gradients(params)
        grads["dense"]["kernel"] = grads["dense"]["kernel"].at[1, 2].set(bad)
        updates, _ = advance(tx, grads, tx.init(params), params)
        flat = flatten_state(grads)
        for path, update in flatten_state(updates).items():
            assert bool(jnp.all(jnp.isfinite(update) | ~jnp.isfinite(flat[path]))), (
                f"{bad} in 'dense/kernel' spread to {path!r}"
            )
        there = updates["dense"]["kernel"][1, 2]
        assert bool(jnp.isnan(there)) or zeroed or not jnp.isnan(bad), (
            f"nan became the number {there}"
        )


def law_partition(tx: TX) -> None:
    """A group of a partition acts on its leaves as on a tree of them alone."""
    params = parameters()
    grads = gradients(params)
    split = partition({"here": tx, "zero": set_to_zero()}, [(r"^dense", "here"), (r".*", "zero")])
    updates, state = advance(split, grads, split.init(params), params)
    part = {"dense": params["dense"]}
    alone, _ = advance(tx, {"dense": grads["dense"]}, tx.init(part), part)
    close(updates["dense"], alone["dense"])
    masked = [path for path in kept_paths(state) if "layers" in path]
    assert not masked, f"the masked leaf keeps slots: {masked}"


def law_vmap_definition(tx: TX) -> None:
    """A batch of hyperparameters runs like one definition after another."""
    params, values = {"dense": parameters()["dense"]}, numbers(tx)
    pairs = {name: jnp.asarray([value * 0.5, value * 0.9]) for name, value in values.items()}
    if not pairs:
        return

    def train(values: dict[str, Any]) -> Any:
        return run(replace(tx, **values), params, steps=2)[2]["dense"]

    alone = [train({name: pair[index] for name, pair in pairs.items()}) for index in range(2)]
    close(jax.jit(jax.vmap(train))(pairs), jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


def law_saved(tx: TX) -> None:
    """A saved state and a saved definition continue with the same numbers."""
    params = parameters()
    _, state, _ = run(tx, params)
    loaded = jax.tree.map(jnp.asarray, pickle.loads(pickle.dumps(jax.tree.map(np.asarray, state))))
    chex.assert_trees_all_equal(
        advance(tx, gradients(params), state, params),
        advance(tx, gradients(params), loaded, params),
    )
    try:
        config = json.loads(json.dumps(to_config(tx)))
    except ConfigError:  # a Python function has no JSON form
        return
    assert (
        from_config(config) == tx
        and pickle.loads(pickle.dumps(tx)) == tx
        and hash(from_config(config)) == hash(tx)
    )


def law_shapes(tx: TX) -> None:
    """`init` needs shapes and dtypes only."""
    params = parameters()
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        tx.init(params), tx.init(shapes), jax.eval_shape(tx.init, params)
    )


def law_donated(tx: TX) -> None:
    """A donated step reuses every buffer of parameters and state."""
    params = {"a": jnp.ones((64, 128)), "b": jnp.ones((64, 128)), "c": jnp.ones(256)}
    step, state = (
        jax.jit(functools.partial(train_step, tx), donate_argnums=(0, 1), keep_unused=True),
        tx.init(params),
    )
    memory = step.lower(params, state, gradients(params)).compile().memory_analysis()
    assert memory is not None
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((params, state)))
    assert memory.alias_size_in_bytes == held, (
        f"{held - memory.alias_size_in_bytes} of {held} bytes are not reused"
    )
    grads = gradients(params)
    jax.block_until_ready(step(params, state, grads))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((params, state)))


def train_step(tx: TX, params: Params, state: Any, grads: Updates) -> tuple[Any, Any]:
    """One step, with arguments in the order that donates without copies on a GPU."""
    updates, state = advance(tx, grads, state, params)
    return apply_updates(params, updates), state


def law_scheduled(tx: TX) -> None:
    """Every hyperparameter may be a schedule: alone, and each value goes where its number goes."""
    params, values = parameters(), numbers(tx)
    if not values:
        return
    everything = replace(tx, **{name: constant_schedule(value) for name, value in values.items()})
    close(run(everything, params)[0], run(tx, params)[0])
    for name, value in values.items():
        alone = replace(tx, **{name: constant_schedule(value)})
        jax.eval_shape(lambda tx=alone: run(tx, params))
        # Numbers are arguments of a compiled step: two programs serve all of these runs.
        other = type(value)(value * 0.9)
        close(
            run(replace(everything, **{name: constant_schedule(other)}), params, steps=2)[0],
            run(replace(tx, **{name: other}), params, steps=2)[0],
        )


def law_paths(tx: TX) -> None:
    """A flag moves no slot, so that a checkpoint loads whether it is set or not."""
    for name, value in tx.arguments.items():
        if isinstance(value, bool):
            assert_same_paths(tx, {name: not value})


def law_errors(tx: TX) -> None:
    """Wrong structure, wrong shape and missing parameters raise different errors with names."""
    params = parameters()
    grads, state = gradients(params), tx.init(params)
    lacking = {name: leaf for name, leaf in grads.items() if name != "scalar"}
    for wrong, kind, text in (
        (lacking, StructureError, "'scalar'"),
        ({**grads, "scalar": jnp.ones(5)}, StructureError, "(5,)"),
    ):
        error = caught(lambda wrong=wrong: advance(tx, wrong, state, params))
        assert isinstance(error, kind) and text in str(error), (
            f"{error!r} should be a {kind.__name__} with {text}"
        )
    error = caught(lambda: tx.update(grads, state, **extras(tx, params, grads)))
    assert error is None or (
        isinstance(error, MissingParamsError) and "update(grads, state, params)" in str(error)
    )
    error = caught(lambda: advance(tx, grads, {"count": 0}, params))
    # Where nothing is stored or counted, any state will do.
    assert isinstance(error, StateError) or (error is None and tx.is_stateless)


def caught(function: Callable[[], Any]) -> Exception | None:
    """The exception that a call raises, if any."""
    try:
        function()
    except Exception as error:
        return error
    return None


LAWS: dict[str, Law] = {
    name.removeprefix("law_"): with_hint(name.removeprefix("law_"), law)
    for name, law in list(globals().items())
    if name.startswith("law_")
}
"""Every law by its name."""


def check_laws(tx: GradientTransformation) -> None:
    """Run every law on a transformation; raise at the first broken one.

    >>> import gradtx
    >>> from gradtx.testing import check_laws
    >>> check_laws(gradtx.scale(-0.1))
    """
    for law in LAWS.values():
        law(tx)
