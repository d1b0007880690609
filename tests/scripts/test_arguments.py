"""Arguments that scripts pass: labels of any kind, negative rates, scalars, names and defaults."""

import enum
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError, StructureError
from tests.scripts.twice import PARAMS, assert_equal_numbers, train
from tests.support.peer import optax

contrib = importlib.import_module("optax.contrib")


class Group(enum.Enum):
    SLOW = 1
    FAST = 2


def labels_of_bools(optax: Any) -> Any:
    parts = {True: optax.sgd(0.1), False: optax.adam(0.1)}
    return train(optax.multi_transform(parts, {"w": True, "b": False}))


def labels_of_integers(optax: Any) -> Any:
    return train(
        optax.partition({0: optax.sgd(0.1), 1: optax.adam(0.1)}, lambda params: {"w": 0, "b": 1})
    )


def labels_of_an_enum(optax: Any) -> Any:
    parts = {Group.SLOW: optax.sgd(0.01), Group.FAST: optax.sgd(0.1)}
    return train(optax.multi_transform(parts, {"w": Group.SLOW, "b": Group.FAST}))


def two_players(optax: Any) -> Any:
    """One descends, the other ascends with the same optimizer and a negative rate."""
    down, up = optax.sgd(0.1), optax.sgd(-0.1)
    x, y = jnp.array(1.0), jnp.array(-0.5)
    states = down.init(x), up.init(y)
    for _ in range(4):
        dx, dy = jax.grad(lambda x, y: x * y + x**2 - y**2, argnums=(0, 1))(x, y)
        change, first = down.update(dx, states[0], x)
        other, second = up.update(dy, states[1], y)
        x, y = optax.apply_updates(x, change), optax.apply_updates(y, other)
        states = first, second
    return x, y


def growth(optax: Any) -> Any:
    return train(optax.chain(optax.add_decayed_weights(-1e-2), optax.scale(-0.1)))


def scalar_updates(optax: Any) -> Any:
    half = jnp.array(0.5, jnp.bfloat16)
    vectors = {"w": jnp.ones((2, 2)), "b": jnp.ones(3, jnp.bfloat16), "s": jnp.array(1.0)}
    whole = jax.jit(optax.apply_updates)(vectors, {"w": 0.25, "b": half, "s": 2.0})
    return optax.apply_updates(vectors, {"w": jnp.array(-0.5), "b": 1, "s": 0.0}), whole


def rates_of_none(optax: Any) -> Any:
    """Where Optax takes None: the method has a scale of its own."""
    return (
        train(optax.adafactor(None)),
        train(optax.scale_by_learning_rate()),
        train(optax.lbfgs(None, linesearch=None)),
    )


def calls_by_keyword(optax: Any) -> Any:
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=0.1, warmup_steps=2, decay_steps=9, end_value=0.01, exponent=1.0
    )
    decayed = optax.add_decayed_weights(weight_decay=0.01, mask=None)
    tx = optax.chain(
        optax.clip_by_global_norm(max_norm=1.0),
        optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-6, eps_root=0.0, mu_dtype=None),
        optax.masked(inner=decayed, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
        optax.scale_by_schedule(step_size_fn=lambda count: -schedule(count)),
    )
    state = tx.init(params=PARAMS)
    updates, state = tx.update(updates=PARAMS, state=state, params=PARAMS)
    return optax.apply_updates(params=PARAMS, updates=updates)


SCRIPTS: list[Callable[[Any], Any]] = [
    labels_of_bools,
    labels_of_integers,
    labels_of_an_enum,
    two_players,
    growth,
    scalar_updates,
    rates_of_none,
    calls_by_keyword,
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script(script: Callable[[Any], Any]) -> None:
    assert_equal_numbers(script)


def _signature(builder: Any) -> Any:
    try:
        return inspect.signature(builder)
    except (TypeError, ValueError):
        return None


def _both() -> dict[str, tuple[Any, Any]]:
    """The builders that both libraries have, by name."""
    names = sorted({*dir(contrib), *dir(optax)})
    theirs = {name: getattr(contrib, name, None) or getattr(optax, name, None) for name in names}
    ours = {name: getattr(gradtx, name, None) for name in names if not name.startswith("_")}
    return {
        name: (theirs[name], one)
        for name, one in ours.items()
        if hasattr(one, "factory") and _signature(theirs[name]) is not None
    }


BOTH = _both()

OTHER_DEFAULTS = {
    ("adopt", "clip_value_fn"): "the same function of the count, as a schedule that prints",
    ("scale_by_adopt", "clip_value_fn"): "the same function of the count",
    ("lbfgs", "linesearch"): "the same line search, gradtx's own",
    ("sophia", "hessian_diagonal_fn"): "the same estimator, gradtx's own",
    ("scale_by_factored_rms", "decay_rate_fn"): "None is the same power",
    ("muon", "ns_coeffs"): "a row of docs/from_optax.md: better coefficients",
    ("scale_by_muon", "ns_coeffs"): "a row of docs/from_optax.md: better coefficients",
    ("muon", "ns_steps"): "None: as many as the coefficients have, 5",
    ("scale_by_muon", "ns_steps"): "None: as many as the coefficients have, 5",
    ("dpsgd", "seed"): "optional, beside key=",
}
"""Defaults that differ, with the reason."""

OTHER_NAMES = {
    ("masked", "mask_compatible_extra_args"): "a row of docs/from_optax.md: always masked",
    ("multi_transform", "mask_compatible_extra_args"): "the same row",
    ("partition", "mask_compatible_extra_args"): "the same row",
}
"""Arguments that do not exist here, with the reason."""

OTHER_ORDERS = {"dpsgd": "key, at the place of seed, takes an integer too"}


def _same_default(mine: Any, other: Any) -> bool:
    return mine is other or bool(mine == other)


@pytest.mark.parametrize("name", BOTH)
def test_arguments_have_optax_s_names_order_and_defaults(name: str) -> None:
    theirs, ours = (dict(_signature(one).parameters) for one in BOTH[name])
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    theirs = {key: one for key, one in theirs.items() if one.kind in plain}
    accepts_all = any(one.kind is one.VAR_KEYWORD for one in ours.values())
    missing = set(theirs) - set(ours) - {key for one, key in OTHER_NAMES if one == name}
    assert accepts_all or not missing
    for key in set(theirs) & set(ours):
        if (name, key) not in OTHER_DEFAULTS:
            assert _same_default(ours[key].default, theirs[key].default), key
    first = [key for key, one in theirs.items() if one.kind is plain[0] and key in ours]
    if name not in OTHER_ORDERS and not accepts_all:
        assert [key for key in ours if key in first][: len(first)] == first
        assert list(ours)[: len(first)] == first


def test_every_exception_is_one() -> None:
    for name, key in OTHER_NAMES:
        assert key not in _signature(BOTH[name][1]).parameters
    for name, key in OTHER_DEFAULTS:
        theirs, ours = (_signature(one).parameters[key].default for one in BOTH[name])
        assert not _same_default(ours, theirs)
    assert len(BOTH) > 100


OTHER_NUMBERS = {
    "muon": "other coefficients by default",
    "noisy_sgd": "other random numbers",
    "rprop": "a row of docs/from_optax.md: no step late",
}
NEED_MORE = {"dpsgd", "lbfgs", "sophia"}
RATED = [
    name
    for name, (theirs, _) in BOTH.items()
    if next(iter(_signature(theirs).parameters), None) == "learning_rate"
    and name not in {*OTHER_NUMBERS, *NEED_MORE}
]


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", RATED)
def test_a_negative_rate_ascends_as_in_optax(name: str) -> None:
    def script(lib: Any) -> Any:
        builder = BOTH[name][lib is gradtx]
        tx = builder(learning_rate=-0.01)
        needs_value = name in ("momo", "momo_adam", "polyak_sgd")
        return train(tx, steps=2, **({"value": jnp.array(1.0)} if needs_value else {}))

    assert_equal_numbers(script)


@pytest.mark.parametrize(
    "make",
    [
        lambda lib: lib.ema(1.0),
        lambda lib: lib.adam(0.1, b2=1.0),
        lambda lib: lib.adam(0.1, b1=1.0),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Callable[[Any], Any]) -> None:
    """In Optax the corrected average is 0/0."""
    assert np.isnan(train(make(optax), steps=1)["w"]).any()
    with pytest.raises(HyperparamError, match="at 1 an average would never move: give a number"):
        make(gradtx)


def test_a_chain_of_none_changes_nothing() -> None:
    """Optax's has no init; a list of members that a flag empties needs one."""
    tx = gradtx.chain(*[])
    updates, state = jax.jit(tx.update)(PARAMS, tx.init(PARAMS))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, updates, PARAMS)) and int(state.count) == 1


def test_other_shapes_of_updates_are_refused() -> None:
    with pytest.raises(
        StructureError,
        match=r"^update at 'w' has shape \(2,\), its parameter \(2, 2\): pass the updates of these "
        r"parameters$",
    ):
        gradtx.apply_updates({"w": jnp.ones((2, 2))}, {"w": jnp.ones(2)})
