"""Projections beyond their rows: kinks, large vectors, dtypes, and empty sets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import projections
from gradtx.projections.simplex import _newton, find_threshold
from gradtx.projections.vectors import total
from tests.oracles import sets

X = jnp.array([0.5, -1.0, 0.5, 0.0])
NORMAL = jnp.array([1.0, -2.0, 0.0, 0.5])
CALLS = {
    "box": (-0.5, 0.5),
    "halfspace": (NORMAL, 0.0),
    "hypercube": (0.5,),
    "hyperplane": (NORMAL, 0.0),
    "l1_ball": (1.0,),
    "l1_sphere": (1.0,),
    "l2_ball": (1.0,),
    "l2_sphere": (1.0,),
    "linf_ball": (0.5,),
    "non_negative": (),
    "simplex": (1.0,),
    "vector": (NORMAL,),
}
RADIUS = [name for name in CALLS if name.endswith(("ball", "sphere", "cube", "simplex"))]
each = pytest.mark.parametrize("name", CALLS)


def call(name, x, *args, **kwargs):
    return getattr(projections, f"projection_{name}")(x, *(args or CALLS[name]), **kwargs)


@each
@pytest.mark.parametrize("point", [jnp.zeros(4), X, jnp.ones(4) / 4, jnp.array([1.0, 0, 0, 0])])
def test_derivatives_are_finite_at_zero_and_at_kinks(name, point):
    args = tuple(map(jnp.asarray, CALLS[name]))

    def value(point, *args):
        return jnp.vdot(jnp.arange(1.0, 5.0), call(name, point, *args))

    positions = tuple(range(1 + len(args)))
    assert all(np.isfinite(one).all() for one in jax.grad(value, positions)(point, *args))
    assert np.isfinite(jax.hessian(value)(point, *args)).all()


@each
def test_derivatives_are_finite_where_the_set_is_a_point(name):
    args = tuple(0 * jnp.asarray(one) for one in CALLS[name])
    grads = jax.grad(lambda x: jnp.sum(call(name, x, *args)))(X)
    assert np.isfinite(grads).all() and np.isfinite(call(name, X, *args)).all()


@each
def test_a_projection_is_idempotent_and_nearest(name):
    """No other point of the set is nearer: ⟨x − y, z − y⟩ ≤ 0 for each z of a convex set."""
    near = call(name, X)
    np.testing.assert_allclose(call(name, near), near, atol=1e-6)
    others = call(name, jax.random.normal(jax.random.key(0), (100, 4)), axis=-1)
    distances = jnp.linalg.norm(others - X[None], axis=-1)
    assert jnp.linalg.norm(near - X) <= jnp.min(distances) + 1e-6


@each
def test_axes_are_batches(name):
    x = jax.random.normal(jax.random.key(1), (2, 4, 3))
    normal = [one[:, None] if jnp.ndim(one) else one for one in CALLS[name]]
    over_axis = call(name, x, *normal, axis=1)
    rows = jax.vmap(jax.vmap(functools.partial(call, name), 0, 0), 2, 2)(x)
    np.testing.assert_allclose(over_axis, rows, atol=2e-6)
    flat = [jnp.broadcast_to(one, (4, 3)) if jnp.ndim(one) else one for one in normal]
    both = [call(name, one, *flat) for one in x]
    np.testing.assert_allclose(call(name, x, *flat, axis=(1, -1)), jnp.stack(both), atol=2e-6)


@each
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_rounded_once(name, dtype):
    x = jax.random.normal(jax.random.key(2), (300,)).astype(dtype)
    args = [jnp.resize(one, (300,)) if jnp.ndim(one) else one for one in CALLS[name]]
    point = call(name, x, *args)
    assert point.dtype == dtype
    np.testing.assert_array_equal(point, call(name, x.astype(jnp.float32), *args).astype(dtype))


@each
def test_trees_hold_numbers_none_and_nothing(name):
    args = [2.0 if jnp.ndim(one) else one for one in CALLS[name]]
    point = call(name, {"w": X, "b": 0.25, "none": None}, *args)
    assert point["none"] is None and point["b"].shape == () and point["w"].shape == (4,)
    assert call(name, {}, *args) == {}
    assert call(name, jnp.zeros((0,)), *args).shape == (0,)
    assert call(name, jnp.zeros((3, 0)), *args, axis=-1).shape == (3, 0)


@each
def test_strict_promotion_and_integers(name):
    with jax.numpy_dtype_promotion("strict"):
        assert call(name, jnp.array([1, -2, 3, 0])).dtype in (jnp.float32, jnp.int32)
        assert call(name, {"w": X.astype(jnp.bfloat16), "b": X})["w"].dtype == jnp.bfloat16
    integers = projections.projection_box(jnp.array([1, 2, 3]), 0, 2)
    assert integers.dtype == jnp.int32 and integers.tolist() == [1, 2, 2]


def test_zero_is_projected_onto_the_spheres():
    for name in ("l1_sphere", "l2_sphere"):
        point = call(name, jnp.zeros(4), 3.0)
        assert len(set(point.tolist())) == 1
        assert jnp.linalg.norm(point, 1 if name == "l1_sphere" else 2) == 3.0


def test_the_span_of_nothing_is_zero():
    assert projections.projection_vector(X, jnp.zeros(4)).tolist() == [0.0] * 4
    assert projections.projection_hyperplane(X, jnp.zeros(4), 0.0).tolist() == X.tolist()
    assert projections.projection_halfspace(X, jnp.zeros(4), 1.0).tolist() == X.tolist()


@pytest.mark.parametrize("name", ["l1_ball", "l1_sphere", "l2_ball", "l2_sphere", "vector"])
def test_complex_vectors(name):
    x, a = np.array([1 + 2j, -3.0, 0.0]), np.array([1j, 1.0, 2.0])
    args = (a,) if name == "vector" else (1.5,)
    with jax.enable_x64(True):
        found = call(name, jnp.asarray(x), *map(jnp.asarray, args))
    np.testing.assert_allclose(found, getattr(sets, name)(x, *args), rtol=1e-12)


VECTORS = {
    "normal": lambda n: np.random.default_rng(0).normal(size=n),
    "equal": np.ones,
    "geometric": lambda n: -(1.0 - 0.97 ** np.arange(n)),
    "harmonic": lambda n: -1.0 / np.arange(n, 0.0, -1.0),
    "spread": lambda n: -np.logspace(-12, 3, n),
    "one": lambda n: np.eye(1, n).ravel() * 1e6,
    "offset": lambda n: np.random.default_rng(1).normal(size=n) + 1e5,
}


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_simplex_of_large_vectors_is_exact(kind, scale):
    x = VECTORS[kind](20_000)
    right = sets.simplex(x, scale)
    with jax.enable_x64(True):
        found = projections.projection_simplex(jnp.asarray(x), scale)
        # A common offset of 1e5 leaves 11 digits of a double; sums of 20,000 entries cost two.
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-10 * scale)
    single = np.asarray(projections.projection_simplex(jnp.asarray(x, jnp.float32), scale))
    assert abs(single.astype(np.float64).sum() / scale - 1) < 1e-5


@pytest.mark.parametrize("kind", VECTORS)
def test_newtons_method_needs_few_iterations(kind):
    """The bound of the module: f n falls fourfold, so 20,000 entries take some 30 at most."""
    x = jnp.asarray(VECTORS[kind](20_000), jnp.float32)
    arrays, scale = [x - x.max()], jnp.asarray(1.0)
    start = jnp.maximum((total(arrays, None) - scale) / x.size, -scale)
    state, count = (start, jnp.asarray(x.size + 1.0), jnp.asarray(True)), 0
    while state[2]:
        state, count = _newton(arrays, scale, None, state), count + 1
    assert count <= 30
    assert state[0] == find_threshold(arrays, scale, None)


def test_a_nan_stays_in_its_vector():
    rows = jnp.array([[1.0, jnp.nan, 2.0], [1.0, 0.0, 2.0]])
    for name in ("simplex", "l1_ball", "l2_ball", "l2_sphere"):
        assert np.isnan(call(name, rows, 1.0, axis=-1)).any(axis=1).tolist() == [True, False]
    point = projections.projection_simplex(jnp.array([-jnp.inf, 0.5, 0.0]))
    assert point.tolist() == [0.0, 0.75, 0.25]


@pytest.mark.parametrize("name", RADIUS)
def test_a_radius_below_zero(name):
    with pytest.raises(
        gradtx.HyperparamError,
        match=rf"^projection_{name}: scale = -1.0 is below 0, so that the set is empty: give a "
        r"radius of 0 or more$",
    ):
        call(name, X, -1.0)
    if name not in ("hypercube", "linf_ball"):
        assert np.isnan(jax.jit(functools.partial(call, name))(X, -1.0)).all()


def test_an_empty_box():
    text = (
        r"^projection_box: lower = 1.0 is above upper = -1.0 at 'w', so that the box is empty: "
        r"exchange them$"
    )
    with pytest.raises(gradtx.HyperparamError, match=text):
        projections.projection_box({"w": X}, 1.0, -1.0)
    with pytest.raises(gradtx.HyperparamError, match="above upper"):
        projections.projection_box(X, jnp.zeros(4), jnp.array([1.0, 1.0, -1.0, 1.0]))


PLANES = [("hyperplane", 1.0, "not"), ("halfspace", -1.0, "below")]


@pytest.mark.parametrize(("name", "b", "why"), PLANES)
def test_an_empty_plane(name, b, why):
    text = (
        rf"^projection_{name}: a is 0 and b is {why} 0, so that no point fulfils the condition: "
        r"give a vector that is not 0$"
    )
    with pytest.raises(gradtx.HyperparamError, match=text):
        call(name, X, jnp.zeros(4), b)
    assert np.isnan(jax.jit(functools.partial(call, name))(X, jnp.zeros(4), b)).all()


REAL = ("box", "halfspace", "hypercube", "linf_ball", "non_negative", "simplex")


@pytest.mark.parametrize("name", REAL)
def test_complex_arrays_have_no_order(name):
    text = (
        rf"^projection_{name}: the array at 'w' is complex64, and complex numbers have no order: "
    )
    with pytest.raises(gradtx.StructureError, match=text):
        call(name, {"n": None, "w": X + 1j}, *([1.0] * len(CALLS[name])))


MISFITS = {
    r"^projection_simplex: axis=1 is not an axis of the array at 'w', whose shape is \(4,\)$": (
        lambda: projections.projection_simplex({"w": X}, axis=1)
    ),
    r"^projection_l2_ball: scale has shape \(4,\), and the whole tree is one vector: give one "
    r"number, or say with axis= which axes are a vector$": (
        lambda: projections.projection_l2_ball(X, jnp.ones(4))
    ),
    r"^projection_l2_ball: scale has shape \(4,\) at 'w', where \(2,\) is due: give one number, or "
    r"an array that broadcasts to it$": (
        lambda: projections.projection_l2_ball({"w": jnp.ones((2, 4))}, jnp.ones(4), axis=-1)
    ),
    r"^projection_vector: the tree and a differ in structure: 'w' is only in the tree, 'v' is only "
    r"in a$": lambda: projections.projection_vector({"w": X}, {"v": X}),
    r"^projection_box: lower has shape \(3,\), where \(4,\) is due": (
        lambda: projections.projection_box(X, jnp.zeros(3), 1.0)
    ),
}


@pytest.mark.parametrize("text", MISFITS)
def test_arguments_that_do_not_fit(text):
    with pytest.raises(gradtx.StructureError, match=text):
        MISFITS[text]()


def test_real_and_complex_arrays_in_one_tree():
    tree, a = {"r": np.array([3.0, -1.0]), "c": np.array([1 + 2j, 0.0])}, {"r": np.ones(2), "c": 2j}
    flat = np.concatenate([tree["c"], tree["r"]])
    normal = np.array([2j, 2j, 1.0, 1.0])
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        ball = projections.projection_l2_ball(jax.tree.map(jnp.asarray, tree))
        plane = projections.projection_hyperplane(jax.tree.map(jnp.asarray, tree), a, 1.0)
    assert ball["r"].dtype == jnp.float64
    np.testing.assert_allclose(np.concatenate([ball["c"], ball["r"]]), sets.l2_ball(flat))
    right = sets.hyperplane(flat, normal, 1.0)
    np.testing.assert_allclose(np.concatenate([plane["c"], plane["r"]]), right, rtol=1e-12)


@pytest.mark.parametrize("name", ["simplex", "l1_ball", "l1_sphere", "l2_sphere"])
def test_rows_are_cut_over_devices(name):
    """Within shard_map the loop carries values that vary over devices."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    rows = functools.partial(call, name, axis=-1)
    cut = jax.jit(jax.shard_map(rows, mesh=mesh, in_specs=spec, out_specs=spec))
    x = jax.random.normal(jax.random.key(3), (4, 6))
    np.testing.assert_allclose(cut(x), rows(x), atol=1e-6)
    grads = [jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x) for f in (cut, rows)]
    np.testing.assert_allclose(*grads, atol=1e-6)


def test_a_vector_of_a_batch_waits_for_no_other():
    """Equal entries need two Newton steps; the others need more."""
    slow = -(jnp.linspace(0.0, 1.0, 200) ** 0.3)
    batch = projections.projection_simplex(jnp.stack([jnp.zeros(200), slow]), axis=-1)
    alone = projections.projection_simplex(slow)
    np.testing.assert_allclose(batch[1], alone, rtol=1e-5, atol=1e-7)  # a few roundings
    np.testing.assert_allclose(batch.sum(-1), 1.0, rtol=1e-5)
