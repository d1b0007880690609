"""L-BFGS and line searches as members: trees, masks, dtypes, complex numbers, scan and vmap, reuse
of what the state holds, messages.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
from gradtx.definition.errors import HyperparamError, MissingExtraError, StateError
from tests.support.objectives import BACK, ZOOM, descend, ellipse, rosenbrock
from tests.support.peer import optax

TREE = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0), "n": jnp.array(7), "none": None}


def tree_loss(tree: Any) -> Any:
    return jnp.sum((tree["a"] - tree["b"]) ** 2) + 5 * (tree["b"] - 1.0) ** 2 + 0 * tree["n"]


def tree_grad(tree: Any) -> Any:
    grad = jax.grad(tree_loss, allow_int=True)(tree)
    return {**grad, "n": jnp.zeros((), jnp.int32)}


def train(tx: Any, tree: Any, steps: int) -> Any:
    state = tx.init(tree)
    for _ in range(steps):
        grad = tree_grad(tree)
        updates, state = tx.update(
            grad, state, tree, value=tree_loss(tree), grad=grad, value_fn=tree_loss
        )
        tree = gradtx.apply_updates(tree, updates)
    return tree, state


def test_integers_and_none_stand_still() -> None:
    tree, state = train(gradtx.lbfgs(), TREE, 8)
    np.testing.assert_allclose(tree["a"], [1.0, 1.0], atol=1e-3)
    assert tree["n"] == 7 and tree["none"] is None
    assert state.slots["scale_by_lbfgs"].diff_params_memory["n"] is None
    assert float(state.slots[ZOOM].value) == float(tree_loss(tree))


def test_under_a_mask_the_loss_is_that_of_the_whole_tree() -> None:
    """The others stand as they are, and b = 3 is where a goes."""
    _, state = train(
        gradtx.masked(gradtx.lbfgs(), "a"), {"a": TREE["a"], "b": TREE["b"], "n": TREE["n"]}, 1
    )
    assert state.slots["scale_by_lbfgs"].params["b"] is None and state.slots[ZOOM].grad["b"] is None
    tx = gradtx.partition(
        {"search": gradtx.lbfgs(), "none": gradtx.set_to_zero()},
        {"a": "search", "b": "none", "n": "none"},
    )
    moved, _ = train(tx, {"a": TREE["a"], "b": TREE["b"], "n": TREE["n"]}, 5)
    np.testing.assert_allclose(moved["a"], [3.0, 3.0], rtol=1e-5)
    assert moved["b"] == 3.0


def test_a_missing_gradient_leaves_its_array_and_its_memory_alone() -> None:
    tree = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}

    def loss(tree: Any) -> Any:
        return jnp.sum(tree["a"] ** 2) + tree["b"]

    tx, grad = gradtx.lbfgs(), {"a": 2 * tree["a"], "b": None}
    updates, state = tx.update(
        grad, tx.init(tree), tree, value=loss(tree), grad=grad, value_fn=loss
    )
    assert (
        updates["b"] is None
        and state.slots["scale_by_lbfgs"].params["b"] == 0
        and float(state.slots[ZOOM].value) < 8
    )


def test_bfloat16_is_searched_where_it_will_be() -> None:
    """Memory and scalars in float32; the loss kept is that of the rounded parameters."""
    w = jnp.array([1.0, -2.0, 0.3], jnp.bfloat16)

    def loss(w: Any) -> Any:
        return jnp.sum(
            (w.astype(jnp.float32) - jnp.array([0.1, 0.2, 0.3])) ** 2
            * jnp.array([1.0, 10.0, 100.0])
        )

    w, values, _, _, _, state = descend(gradtx.lbfgs(), loss, w, 12, ZOOM)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.slots)} == {
        jnp.dtype(jnp.float32),
        jnp.dtype(jnp.int32),
    }
    assert (
        w.dtype == jnp.bfloat16
        and float(state.slots[ZOOM].value) == float(loss(w))
        and values[-1] < 1e-3 * values[0]
    )


def test_complex_parameters_are_pairs_of_real_ones() -> None:
    with jax.enable_x64(True):
        check_complex()


def check_complex() -> None:
    """The caller conjugates JAX's gradient, and finds it in the state as JAX gives it; step sizes
    are those of the real problem.
    """
    matrix = jnp.array([[2.0, 0.3 + 0.1j], [0.3 - 0.1j, 20.0]])

    def loss(z: Any) -> Any:
        return jnp.vdot(z, matrix @ z).real + jnp.sum(z * (1 + 2j)).real + jnp.sum(jnp.abs(z) ** 4)

    def pair(w: Any) -> Any:
        return loss(w[:2] + 1j * w[2:])

    z, w = jnp.array([0.3 + 0.1j, -0.5 + 1j]), jnp.array([0.3, -0.5, 0.1, 1.0])
    _, _, sizes, _, _, _ = descend(gradtx.lbfgs(), pair, w, 10, ZOOM)
    for tx in (gradtx.lbfgs(), optax.lbfgs()):
        point, state, found, update = (
            z,
            tx.init(z),
            [],
            jax.jit(tx.update, static_argnames="value_fn"),
        )
        for _ in range(10):
            value, grad = jax.value_and_grad(loss)(point)
            updates, state = update(
                grad.conj(), state, point, value=value, grad=grad.conj(), value_fn=loss
            )
            point = point + updates
            kept = state.slots[ZOOM] if isinstance(state, gradtx.State) else state[-1]
            found.append(float(kept.learning_rate))
            np.testing.assert_allclose(kept.grad, jax.grad(loss)(point), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found, sizes, rtol=1e-8)
    back = gradtx.scale_by_backtracking_linesearch(20, store_grad=True)
    grad = jax.grad(loss)(z)
    updates, state = back.update(
        -grad.conj(), back.init(z), z, value=loss(z), grad=grad.conj(), value_fn=loss
    )
    np.testing.assert_allclose(state.slots[BACK].grad, jax.grad(loss)(z + updates), rtol=1e-12)


def test_scan_and_vmap_train() -> None:
    """Many starts at once, all steps in one program: each as it goes alone, and all to the
    minimum.
    """
    tx = gradtx.lbfgs()

    def fit(w: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            w, state = carry
            value, grad = jax.value_and_grad(rosenbrock)(w)
            updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=rosenbrock)
            return (w + updates, state), value

        return jax.lax.scan(step, (w, tx.init(w)), None, length=40)[0][0]

    starts = jnp.array([[-1.0, 1.0], [2.0, -1.0], [0.0, 0.0]])
    np.testing.assert_allclose(jax.jit(jax.vmap(fit))(starts), jnp.ones((3, 2)), atol=2e-3)


def test_what_is_stored_is_reused() -> None:
    """The loss and its gradient are computed at the first step, then taken from the state: half the
    evaluations.
    """
    calls: list[int] = []

    def loss(w: Any, scale: Any = 1.0) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return scale * ellipse(w)

    for search in (
        gradtx.scale_by_zoom_linesearch(20),
        gradtx.scale_by_backtracking_linesearch(20, store_grad=True),
    ):
        tx, value_and_grad = (
            gradtx.lbfgs(linesearch=search),
            jax.jit(gradtx.value_and_grad_from_state(loss)),
        )
        w = jnp.zeros(5)
        state = tx.init(w)
        for _ in range(4):
            calls.clear()
            value, grad = value_and_grad(w, state=state, scale=1.0)
            jax.effects_barrier()
            assert len(calls) == (1 if state.count == 0 else 0)
            np.testing.assert_allclose(value, ellipse(w), rtol=1e-6)
            np.testing.assert_allclose(grad, jax.grad(ellipse)(w), rtol=1e-5, atol=1e-5)
            updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=ellipse)
            w = gradtx.apply_updates(w, updates)


def test_what_is_not_stored_is_computed_or_refused() -> None:
    tree = {"a": jnp.ones(2), "b": jnp.ones(1)}

    def loss(tree: Any) -> Any:
        return jnp.sum(tree["a"] ** 2) + jnp.sum(tree["b"] ** 4)

    call = gradtx.value_and_grad_from_state(loss)
    part = gradtx.masked(gradtx.lbfgs(), "a")
    grad = jax.grad(loss)(tree)
    _, state = part.update(grad, part.init(tree), tree, value=loss(tree), grad=grad, value_fn=loss)
    assert call(tree, state=state)[1]["b"] == 4.0
    children = gradtx.chain(optax.lbfgs())
    assert (
        call(tree, state=children.init(tree))[0] == 3.0
        and call(tree, state=optax.lbfgs().init(tree))[0] == 3.0
    )
    for tx in (
        gradtx.adam(0.1),
        gradtx.chain(gradtx.scale(-1.0), gradtx.scale_by_backtracking_linesearch(5)),
    ):
        with pytest.raises(
            StateError,
            match=r"the state holds no value and gradient: put "
            r"scale_by_zoom_linesearch\(\.\.\.\), or ",
        ):
            call(tree, state=tx.init(tree))
    two = gradtx.chain(gradtx.lbfgs(), gradtx.scale_by_zoom_linesearch(5))
    with pytest.raises(
        StateError,
        match=r"in 2 places: 'lbfgs/scale_by_zoom_linesearch', 'scale_by_zoom_linesearch'",
    ):
        call(tree, state=two.init(tree))


def test_a_stored_gradient_comes_back_in_the_dtype_of_its_parameter() -> None:
    w = jnp.array([1.0, -2.0], jnp.bfloat16)

    def loss(w: Any) -> Any:
        return jnp.sum(w**2)

    tx, value_and_grad = gradtx.lbfgs(), gradtx.value_and_grad_from_state(loss)
    value, grad = value_and_grad(w, state=tx.init(w))
    updates, state = tx.update(grad, tx.init(w), w, value=value, grad=grad, value_fn=loss)
    again = value_and_grad(gradtx.apply_updates(w, updates), state=state)
    assert again[1].dtype == jnp.bfloat16 and again[0].dtype == value.dtype


def test_pairs_that_say_nothing_of_the_curvature() -> None:
    """Nothing moved, or a first step of no gradient: γ is 1. Optax's is 0 where another gradient
    came meanwhile, and stays there.
    """
    w, first, second = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), jnp.array([1.0, 4.0])
    directions = {}
    for lib in (gradtx, optax):
        tx = lib.scale_by_lbfgs(3)
        state, directions[lib] = tx.init(w), []
        for grad in (first, first, second):
            direction, state = tx.update(grad, state, w)
            directions[lib].append([round(one, 6) for one in direction.tolist()])
    assert directions[gradtx] == [[0.6, 0.8], [3.0, 4.0], [1.0, 4.0]]
    assert directions[optax] == [[0.6, 0.8], [3.0, 4.0], [0.0, 0.0]]
    tx = gradtx.scale_by_lbfgs()
    assert tx.update(0 * w, tx.init(w), w)[0].tolist() == [0, 0]


def test_a_gradient_of_nan_stays_in_its_entry() -> None:
    """The other entries keep their memory; nothing is found along such a direction, so they stand
    still.
    """
    w, grad = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, jnp.nan, 2.0])
    tx = gradtx.scale_by_lbfgs()
    _, state = tx.update(w, tx.init(w), w)
    direction, state = tx.update(grad, state, w - 0.1)
    assert (
        jnp.isfinite(direction).tolist() == [True, False, True]
        and jnp.isfinite(state.slots["scale_by_lbfgs"].weights_memory).all()
    )
    whole = gradtx.lbfgs()
    updates, _ = whole.update(
        grad, whole.init(w), w, value=1.0, grad=grad, value_fn=lambda w: jnp.sum(w**2)
    )
    assert updates[0] == 0 and jnp.isnan(updates[1]) and updates[2] == 0


def test_memory_is_sharded_as_the_parameters_are() -> None:
    mesh = jax.make_mesh((4,), ("x",))
    w = jax.device_put(jnp.ones((3, 8)), NamedSharding(mesh, PartitionSpec(None, "x")))
    kept = gradtx.scale_by_lbfgs(5).init({"w": w}).slots["scale_by_lbfgs"]
    assert kept.diff_params_memory["w"].shape == (5, 3, 8)
    assert kept.diff_params_memory["w"].sharding.spec == PartitionSpec(None, None, "x")


def test_make_step_passes_the_loss() -> None:
    step, tx = gradtx.make_step(rosenbrock, gradtx.lbfgs()), gradtx.lbfgs()
    w, value = jnp.array([-1.0, 1.0]), jnp.inf
    state = tx.init(w)
    for _ in range(35):
        w, state, value = step(w, state)
    assert float(value) < 1e-8


def test_without_a_line_search() -> None:
    """A fixed rate, which then is all there is to it."""
    w = jnp.zeros(5)
    tx = gradtx.lbfgs(0.5, linesearch=None)
    assert tx.needs == {"params"} and gradtx.lbfgs().needs == {
        "params",
        "value",
        "grad",
        "value_fn",
    }
    updates, _ = tx.update(jnp.array([2.0, 0.0, 0.0, 0.0, 0.0]), tx.init(w), w)
    assert updates.tolist() == [-0.5, 0, 0, 0, 0]


def test_a_definition_with_a_search_is_data() -> None:
    assert repr(gradtx.lbfgs()) == "lbfgs()" and gradtx.lbfgs() == gradtx.lbfgs()
    tx = gradtx.replace(gradtx.lbfgs(), curv_rtol=0.1)
    assert gradtx.hyperparams(tx)["curv_rtol"] == 0.1 and "curv_rtol=0.1" in repr(tx)
    assert gradtx.from_config(gradtx.to_config(tx)) == tx


def test_searches_print_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    w, grad = jnp.array(1.0), jnp.array(20.0)
    for tx in (
        gradtx.scale_by_zoom_linesearch(9, verbose=True),
        gradtx.scale_by_backtracking_linesearch(20, verbose=True),
    ):
        tx.update(-grad, tx.init(w), w, value=10.0, grad=grad, value_fn=lambda w: 10 * w**2)
    jax.effects_barrier()
    zoom, back = capfd.readouterr().out.splitlines()
    assert zoom.startswith(
        "scale_by_zoom_linesearch: loss 10.0 to 0.0, slope -400.0, step size 0.05"
    )
    assert "after 4 evaluations; decrease missed by 0.0, curvature by 0.0" in zoom
    assert (
        back.startswith("scale_by_backtracking_linesearch: loss 10.0 to 5.15505")
        and "after 12 evaluations" in back
    )


def test_mistakes_are_named() -> None:
    wrong: list[Any] = [2.5, "two"]
    for make, text in (
        (
            lambda: gradtx.scale_by_zoom_linesearch(-1),
            r"scale_by_zoom_linesearch: max_linesearch_steps = -1 must be a whole number >= 0",
        ),
        (
            lambda: gradtx.scale_by_backtracking_linesearch(wrong[0]),
            "max_backtracking_steps = 2.5 must be a whole number",
        ),
        (
            lambda: gradtx.scale_by_lbfgs(0),
            "scale_by_lbfgs: memory_size = 0 must be a whole number >= 1",
        ),
        (
            lambda: gradtx.scale_by_zoom_linesearch(5, initial_guess_strategy=wrong[1]),
            "= 'two' is unknown; choose one of 'keep', 'one'",
        ),
        (
            lambda: gradtx.scale_by_zoom_linesearch(5, max_learning_rate=0.0),
            r"max_learning_rate = 0.0 is outside its range \(0, inf\]",
        ),
    ):
        with pytest.raises(HyperparamError, match=text):
            make()
    tx, w = gradtx.lbfgs(), jnp.ones(2)
    with pytest.raises(
        MissingExtraError, match="scale_by_zoom_linesearch needs value, grad, value_fn: call update"
    ):
        tx.update(w, tx.init(w), w)
