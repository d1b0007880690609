"""`outer` over several devices: equal numbers in all forms, and nothing sent by inner steps."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from tests.support.collectives import collectives
from tests.support.conditionals import split_conditionals
from tests.support.replica_groups import collectives_across, replica_groups

P = PartitionSpec
OUTER = gradtx.sgd(0.7, momentum=0.5, nesterov=True)
SHAPES = {"a": (8, 16), "b": (16,), "s": ()}
STEPS = 7


class Inputs(NamedTuple):
    params: Any
    grads: list[Any]
    """Of each step, the replicas along a first axis."""


def inputs(replicas: int) -> Inputs:
    generator = np.random.default_rng(0)

    def normal(*axes: int) -> Any:
        each = SHAPES.items()
        return {name: np.float32(generator.normal(size=(*axes, *shape))) for name, shape in each}

    return Inputs(normal(), [normal(replicas) for _ in range(STEPS)])


def train(tx: Any, params: Any, grads: Any) -> tuple[Any, Any]:
    """The parameters after all steps, and those to evaluate; the steps are along a first axis."""

    def body(carry: Any, grad: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(grad, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(body, (params, tx.init(params)), grads)
    return params, gradtx.eval_params(tx, state, params)


def first(tree: Any) -> Any:
    return jax.tree.map(lambda one: one[0], tree)


def lead(tree: Any) -> Any:
    return jax.tree.map(lambda one: one[None], tree)


def stacked_steps(grads: Any) -> Any:
    return jax.tree.map(lambda *steps: np.stack(steps), *grads)


def as_first_axis(inner: Any, replicas: int, **options: Any) -> Any:
    given = inputs(replicas)
    params = jax.tree.map(lambda one: jnp.stack([one] * replicas), given.params)
    tx = gradtx.outer(inner, OUTER, every=3, replicas=replicas, **options)
    return jax.jit(functools.partial(train, tx))(params, stacked_steps(given.grads))


def in_vmap(inner: Any, replicas: int, **options: Any) -> Any:
    given = inputs(replicas)
    tx = gradtx.outer(inner, OUTER, every=3, axis_name="replica", **options)
    run = jax.vmap(functools.partial(train, tx), in_axes=(None, 1), axis_name="replica")
    params, shown = jax.jit(run)(given.params, stacked_steps(given.grads))
    return params, first(shown)


def in_shard_map(inner: Any, replicas: int, check_vma: bool = True, **options: Any) -> Any:
    tx = gradtx.outer(inner, OUTER, every=3, axis_name="replica", **options)
    return over_mesh(tx, replicas, check_vma)


def over_mesh(tx: Any, replicas: int, check_vma: bool = True) -> Any:
    given = inputs(replicas)
    mesh = jax.make_mesh(
        (replicas,), ("replica",), (AxisType.Auto,), devices=jax.devices()[:replicas]
    )

    def run(params: Any, grads: Any) -> Any:
        grads = jax.tree.map(lambda one: one[:, 0], grads)
        return lead(train(tx, first(params), grads))

    specs = P("replica"), P(None, "replica")
    mapped = jax.shard_map(
        run, mesh=mesh, in_specs=specs, out_specs=P("replica"), check_vma=check_vma
    )
    params = jax.tree.map(lambda one: np.stack([one] * replicas), given.params)
    params, shown = jax.block_until_ready(jax.jit(mapped)(params, stacked_steps(given.grads)))
    return params, first(shown)


OPTIONS = {
    "DiLoCo": (gradtx.adam(0.1), {}),
    "MuLoCo": (gradtx.muon(0.1), {}),
    "a guard inside": (gradtx.guard(gradtx.adam(0.1), zscore=4.0), {}),
    "in 8 bits": (gradtx.adam(0.1), {"compress": "int8", "error_feedback": True}),
    "streaming": (gradtx.muon(0.1), {"fragments": ["a", "b|s"], "delay": 1, "merge": 0.3}),
}


@pytest.mark.parametrize("case", sorted(OPTIONS))
@pytest.mark.filterwarnings("error")
def test_all_forms_have_the_same_numbers(case: str) -> None:
    """Whole parameters on each device, as no sum over devices but the mean of the outer gradients
    would leave them."""
    inner, options = OPTIONS[case]
    expected = as_first_axis(inner, 4, **options)
    for run in (in_vmap, in_shard_map, functools.partial(in_shard_map, check_vma=False)):
        ours = run(inner, 4, **options)
        for one, like in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, like, atol=1e-6)  # parameters of about 1, 7 steps


SKIPPING = {
    "guard": gradtx.guard,
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "dynamic_loss_scale": gradtx.dynamic_loss_scale,
}


@pytest.mark.parametrize("name", sorted(SKIPPING))
def test_a_replica_that_skips_alone_is_refused(name: str) -> None:
    """The others would wait for its part of an exchange for ever."""
    tx = gradtx.outer(gradtx.adam(0.1), OUTER, every=3, axis_name="replica")
    text = (
        r"outer: the wrapper around it skips steps of single replicas over the mesh axis "
        r"'replica', and these would not meet any more: put it inside, outer\(guard\("
    )
    with pytest.raises(gradtx.StructureError, match=text):
        over_mesh(SKIPPING[name](tx), 4)
    over_mesh(gradtx.accumulate(tx, 2), 4)  # counts alike on all replicas


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("is_set", [False, True])
def test_replicas_on_a_mesh_have_the_numbers_of_one_device(kind: Any, is_set: bool) -> None:
    """The first axis and one of a parameter are cut; the slots lie as they are."""
    tx = gradtx.outer(gradtx.adam(0.1), OUTER, every=2, replicas=2)
    params = {"w": jnp.linspace(0.5, 1.0, 64).reshape(2, 8, 4), "b": jnp.ones((2, 8))}
    grads = {"w": jnp.linspace(-1.0, 2.0, 64).reshape(2, 8, 4), "b": jnp.ones((2, 8))}
    mesh = jax.make_mesh((2, 4), ("replica", "data"), axis_types=(kind,) * 2)
    specs = {"w": P("replica", "data"), "b": P("replica")}
    cut = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}

    def two_steps(params: Any, grads: Any) -> Any:
        state, update = tx.init(params), jax.jit(tx.update)
        for _ in range(2):
            updates, state = jax.block_until_ready(update(grads, state, params))
            params = gradtx.apply_updates(params, updates)
        return params, gradtx.eval_params(tx, state, params)

    expected = two_steps(params, grads)
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        ours = two_steps(jax.device_put(params, cut), jax.device_put(grads, cut))
    for one, like in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(like), atol=1e-6)


def test_parts_of_a_replica() -> None:
    """Within `over_axes` other axes cut the arrays, and the mean is still that over replicas."""
    given, inner = inputs(2), gradtx.muon(0.1)
    tx = gradtx.outer(inner, OUTER, every=3, axis_name="replica")
    tx = gradtx.over_axes(tx, {"a": P("data"), "b": P(), "s": P()})
    specs = {"a": P("replica", "data"), "b": P("replica"), "s": P("replica")}
    steps = {"a": P(None, "replica", "data"), "b": P(None, "replica"), "s": P(None, "replica")}

    def run(params: Any, grads: Any) -> Any:
        params, state = first(params), tx.init(first(params))
        for step in range(STEPS):
            grad = jax.tree.map(lambda one, step=step: one[step, 0], grads)
            updates, state = tx.update(grad, state, params)
            params = gradtx.apply_updates(params, updates)
        return lead(params)

    mapped = jax.shard_map(run, mesh=mesh_of_groups(), in_specs=(specs, steps), out_specs=specs)
    params = jax.tree.map(lambda one: np.stack([one] * 2), given.params)
    ours = jax.block_until_ready(jax.jit(mapped)(params, stacked_steps(given.grads)))
    expected, _ = as_first_axis(inner, 2)
    for one, like in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, like, atol=1e-5)  # Newton-Schulz multiplies rounding


MODEL = {"w1": jnp.full((64, 64), 0.1), "b": jnp.zeros(64), "w2": jnp.full((64, 32), 0.1)}
ENTRIES = sum(leaf.size for leaf in MODEL.values())


def loss(params: Any, x: Any, y: Any) -> jax.Array:
    hidden = jnp.tanh(x @ params["w1"] + params["b"][None])
    return jnp.mean((hidden @ params["w2"] - y) ** 2)


def mesh_of_groups() -> Any:
    """Two groups of four devices."""
    return jax.make_mesh((2, 4), ("replica", "data"), (AxisType.Auto,) * 2)


def placed(mesh: Any) -> Any:
    """The parameters of two replicas, and a batch for each, cut over its group."""
    cut = NamedSharding(mesh, P("replica"))
    batch = NamedSharding(mesh, P("replica", "data"))
    params = jax.tree.map(lambda one: jax.device_put(jnp.stack([one] * 2), cut), MODEL)
    x, y = (jax.device_put(jnp.ones((2, 16, size)), batch) for size in (64, 32))
    return params, x, y


def automatic_step(**options: Any) -> str:
    """One step under jit, the replicas being the first axis: the compiled text."""
    mesh, tx = mesh_of_groups(), gradtx.outer(INNER, OUTER, every=30, replicas=2, **options)

    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        grads = jax.grad(lambda params: jax.vmap(loss)(params, x, y).sum())(params)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    with jax.set_mesh(mesh):
        params, x, y = placed(mesh)
        state = jax.jit(tx.init)(params)
        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, x, y).compile()
    return str(compiled.as_text())


def manual_step(**options: Any) -> str:
    """One step inside shard_map."""
    mesh, tx = mesh_of_groups(), gradtx.outer(INNER, OUTER, 30, axis_name="replica", **options)
    spec, batch = P("replica"), P("replica", "data")
    map_over = functools.partial(jax.shard_map, mesh=mesh, out_specs=spec)

    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        params, state = first((params, state))
        grads = jax.grad(loss)(jax.lax.pcast(params, "data", to="varying"), x[0], y[0])
        updates, state = tx.update(jax.lax.pmean(grads, "data"), state, params)
        return lead((gradtx.apply_updates(params, updates), state))

    params, x, y = placed(mesh)
    state = jax.jit(map_over(lambda one: lead(tx.init(first(one))), in_specs=spec))(params)
    mapped = map_over(step, in_specs=(spec, spec, batch, batch))
    compiled = jax.jit(mapped, donate_argnums=(0, 1)).lower(params, state, x, y).compile()
    return str(compiled.as_text())


INNER = gradtx.muon(1e-2)
FORMS = {"automatic": automatic_step, "manual": manual_step}


def over_replicas(text: str) -> str:
    """The collectives between the two groups of four devices."""
    return collectives_across(text, boundary=4)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("{{0,4},{1,5},{2,6},{3,7}}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("[4,2]<=[2,4]T(1,0), dimensions", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("[2,4]<=[8], dimensions", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=2,'b'=1,'c'=4] {'c'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_groups_are_read_in_each_spelling(groups: str, expected: list[list[int]]) -> None:
    line = f"  %x = f32[2] all-reduce(%y), replica_groups={groups}, to_apply=%add"
    assert replica_groups(line) == expected
    assert bool(over_replicas(line)) == (expected[0] == [0, 4])


@pytest.mark.parametrize("form", sorted(FORMS))
def test_inner_steps_send_nothing_between_replicas(form: str) -> None:
    """Only the gradients are summed, within each group; a synchronisation is one sum an array."""
    always, branches = split_conditionals(FORMS[form]())
    assert over_replicas(always) == ""
    assert collectives(always).operands == {"all-reduce": len(MODEL)}
    assert over_replicas(branches).count("\n") < len(MODEL)
    found = collectives(branches)
    assert found.operands == {"all-reduce": len(MODEL)}
    assert found.bytes == {"all-reduce": 4 * ENTRIES}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_fragments_are_sent_alone(form: str) -> None:
    """A conditional for each fragment, with the sums of its own arrays."""
    always, branches = split_conditionals(FORMS[form](fragments=["w1", "b|w2"], delay=1, merge=0.5))
    assert over_replicas(always) == ""
    sizes = [collectives(line).bytes for line in over_replicas(branches).splitlines()]
    assert {"all-reduce": 4 * 64 * 64} in sizes
    assert sum(one["all-reduce"] for one in sizes) == 4 * ENTRIES


@pytest.mark.parametrize("form", sorted(FORMS))
def test_codes_cross_as_8_bits(form: str) -> None:
    """Both replicas' codes, a byte an entry, and 2 bytes for each 32 of a row or column."""
    always, branches = split_conditionals(FORMS[form](compress="int8"))
    assert over_replicas(always) == ""
    found = collectives(branches)
    assert found.operands == {"all-gather": 2 * len(MODEL)}
    assert found.bytes == {"all-gather": 2 * (ENTRIES + 2 * ENTRIES // 32)}
