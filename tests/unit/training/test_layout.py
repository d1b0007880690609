"""A step on several devices: what it says to its trace, where its results go, and its errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.tree.known_shardings import known_sharding

MESH = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
CUT, WHOLE = NamedSharding(MESH, P("x")), NamedSharding(MESH, P())


def loss(params: Any, x: jax.Array) -> jax.Array:
    return jnp.mean((x @ params["w"] + jnp.sum(params["b"])) ** 2)


def start(place: Any) -> tuple[Any, jax.Array]:
    params = {"b": np.ones(8, np.float32), "w": np.ones((16, 8), np.float32)}
    return jax.device_put(params, place), jax.device_put(np.ones((8, 16), np.float32), WHOLE)


def test_a_trace_knows_how_parameters_are_cut_and_other_places_are_other_programs() -> None:
    said = []

    def look(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        said.append({name: known_sharding(one, name) for name, one in params.items()})
        return updates, state

    step = gradtx.make_step(loss, gradtx.GradientTransformation(lambda _: (), look), donate=False)
    for place in (CUT, WHOLE, CUT):
        params, x = start(place)
        new, _, _ = jax.block_until_ready(step(params, (), x))
        assert all(leaf.sharding == place for leaf in new.values())
    assert said == [{"b": place, "w": place} for place in (CUT, WHOLE)]
    assert step._cache_size() == 2


def test_results_go_where_shardings_say() -> None:
    params, x = start(WHOLE)
    tx = gradtx.adamw(1e-3)
    places = {"b": None, "w": CUT}, CUT
    state = tx.init(params)._replace(count=jax.device_put(jnp.zeros((), jnp.int32), WHOLE))
    places = places[0], state._replace(count=WHOLE, slots=CUT)
    step = gradtx.make_step(loss, tx, shardings=places, donate=False)
    new, state, _ = jax.block_until_ready(step(params, state, x))
    assert (new["b"].sharding, new["w"].sharding) == (WHOLE, CUT)
    assert all(leaf.sharding == CUT for leaf in jax.tree.leaves(state.slots))
    with jax.set_mesh(MESH):
        step = gradtx.make_step(loss, tx, shardings=(P("x"), None), donate=False)
        new, _, _ = jax.block_until_ready(step(params, state, x))
    assert new["w"].sharding == CUT


def tell(call: Any) -> str:
    with pytest.raises(gradtx.GradtxError) as caught:
        call()
    return str(caught.value)


def test_errors() -> None:
    params, x = start(WHOLE)
    tx = gradtx.sgd(0.1)
    assert tell(lambda: gradtx.make_step(loss, tx, shardings=CUT)) == (  # pyright: ignore
        f"make_step: shardings = {CUT!r} is not a pair: give (shardings of the parameters, "
        "shardings of the state), or None in the place of one"
    )
    assert tell(lambda: gradtx.make_step(loss, tx, jit=repr)) == (
        "make_step: jit = repr takes neither donate_argnums= nor donate=: give jax.jit, "
        "functools.partial(jax.jit, ...), nnx.jit or equinox.filter_jit"
    )
    for asked, difference in (
        ({"b": CUT, "v": CUT, "w": CUT}, "there is no 'v'"),
        ({"b": CUT}, "nothing is said of 'w'"),
    ):
        step = gradtx.make_step(loss, tx, shardings=(asked, None))
        assert tell(lambda step=step: step(params, tx.init(params), x)) == (
            f"make_step: the shardings of the parameters do not fit the parameters, {difference}: "
            "give a tree of the same structure, or one sharding for all of it"
        )
    step = gradtx.make_step(loss, tx, shardings=(P("x"), None))
    assert tell(lambda: step(params, tx.init(params), x)) == (
        "make_step: the shardings of the parameters hold P('x',): give a NamedSharding, or a "
        "PartitionSpec within jax.set_mesh(mesh)"
    )
