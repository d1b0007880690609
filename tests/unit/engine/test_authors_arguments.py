"""What the author of a rule reads when `init`, an argument, or a law is wrong."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.definition.errors import GradtxError
from gradtx.testing import LAWS
from gradtx.testing.hints import HINTS
from tests.support.authors import (
    LIFTERS,
    MATRIX,
    MODES,
    Decorator,
    Moment,
    failure,
    frames,
    init_moment,
    init_moments,
    notes,
    step,
)

# `init`.


def _init_array(param):
    return jnp.zeros_like(param)


def _init_tuple(param):
    return (jnp.zeros_like(param),)


def _init_none(param):
    return None


def _init_raising(param):
    return Moment(param.nothing)


def _same(grad, slots, param, step):
    return grad, slots


@pytest.mark.parametrize("lifter", LIFTERS)
@pytest.mark.parametrize(
    ("init", "shown"), [(_init_array, "an array"), (_init_tuple, "a tuple"), (_init_none, "None")]
)
def test_init_makes_named_slots(init: Any, shown: str, lifter: str) -> None:
    error = failure(lambda: LIFTERS[lifter](init, _same).init(MATRIX))
    assert str(error) == (
        f"{init.__name__} returned {shown} as slots: return a NamedTuple, a dict or a dataclass of "
        "arrays"
    )
    assert notes(error) == [f"raised in {init.__name__} of same, run on shapes alone"]
    assert frames(error) == ["init"]


def test_an_exception_of_init_carries_rule_and_leaf() -> None:
    error = failure(lambda: gradtx.leafwise(_init_raising, _same).init(MATRIX))
    assert notes(error) == ["raised in _init_raising of same, run on shapes alone"]
    error = failure(lambda: gradtx.leafwise(_annotated_raising, _same).init(MATRIX))
    assert notes(error) == [
        "raised at 'dense/kernel', a parameter f32[3,2], in _annotated_raising of same"
    ]
    error = failure(lambda: gradtx.treewise(_init_raising, _same).init(MATRIX))
    assert notes(error) == ["raised in the rule _init_raising of same"]


def _annotated_raising(param) -> Moment:
    return Moment(param.nothing)


def _annotated_wrongly(param) -> Moment:
    return {"mu": param}  # pyright: ignore[reportReturnType]  (the mistake of this test)


def test_init_returns_what_its_annotation_says() -> None:
    error = failure(lambda: gradtx.leafwise(_annotated_wrongly, _same).init(MATRIX))
    assert str(error) == (
        "_annotated_wrongly returned a dict with 'mu' as slots, and elsewhere it returns "
        "Moment(mu): return Moment(mu), or mend its return annotation"
    )


@dataclasses.dataclass
class Record:
    mu: Any


def _init_dict(param):
    return {"mu": jnp.zeros_like(param)}


def _init_record(param):
    return Record(jnp.zeros_like(param))


def _sum_dict(grad, slots, param, step):
    mu = slots["mu"] + grad
    return mu, {"mu": mu}


def _sum_record(grad, slots, param, step):
    mu = slots.mu + grad
    return mu, Record(mu)


@MODES
@pytest.mark.parametrize("lifter", LIFTERS)
@pytest.mark.parametrize(
    ("init", "rule"),
    [(_init_dict, _sum_dict), (_init_record, _sum_record)],
    ids=["dict", "dataclass"],
)
def test_slots_may_be_a_dict_or_a_dataclass(
    init: Any, rule: Any, lifter: str, mode: Decorator
) -> None:
    """`init` needs no annotation for this; a path has the names of the fields."""
    tx = LIFTERS[lifter](init, rule)
    _, state = step(tx, mode)
    updates, state = mode(tx.update)(MATRIX, state, MATRIX)
    assert updates["dense"]["kernel"].tolist() == [[2.0, 2.0]] * 3
    name = rule.__name__.strip("_")
    assert list(gradtx.flatten_state(state)) == ["count", f"slots/{name}/mu/dense/kernel"]


# Traced values, and the parameters.


def _traced_if(grad, slots, param, step):
    if jax.tree.leaves(grad)[0].sum() > 0:
        return grad, slots
    return grad, slots


def _wrap_if(updates, own, params, step, *, inner):
    if jax.tree.leaves(updates)[0].sum() > 0:
        return updates, inner, own
    return updates, inner, own


TRACED = {
    "leafwise": lambda: gradtx.leafwise(init_moment, _traced_if),
    "matrixwise": lambda: gradtx.matrixwise(init_moment, _traced_if),
    "treewise": lambda: gradtx.treewise(init_moments, _traced_if),
    "wrapwise": lambda: gradtx.wrapwise(gradtx.scale(1.0), None, _wrap_if),
}


@pytest.mark.parametrize("lifter", TRACED)
def test_an_if_on_an_array_is_explained(lifter: str) -> None:
    error = failure(lambda: step(TRACED[lifter](), jax.jit))
    assert isinstance(error, jax.errors.TracerBoolConversionError)
    assert (
        "JAX traces a rule, so that no `if` can depend on an array: use jnp.where, or make the "
        "number a static option (annotate it `bool`, `int` or `str`)"
    ) in notes(error)


def _pull(grad, slots, param, step):
    return grad + 0.1 * param, slots


@MODES
@pytest.mark.parametrize("lifter", LIFTERS)
def test_forgotten_needs_params(lifter: str, mode: Decorator) -> None:
    error = failure(lambda: step(LIFTERS[lifter](None, _pull), mode))
    assert isinstance(error, TypeError)
    assert (
        "_pull received None as its parameter: if it reads the parameter, pass needs_params=True "
        "beside it"
    ) in notes(error)


# The arguments of rule and builder.


def _decayed(grad, slots, param, step, *, decay):
    return decay * grad, slots


def _decayed_array(grad, slots, param, step, *, decay: jax.Array):
    return decay * grad, slots


def _decayed_option(grad, slots, param, step, *, decay: float):
    return decay * grad, slots


def _no_star(grad, slots, param, step, decay):
    return decay * grad, slots


def _too_few(grad, slots, param):
    return grad, slots


def undeclared(decay=0.9):
    return gradtx.leafwise(None, _decayed)


def undeclared_float(decay: float = 0.9):
    return gradtx.leafwise(None, _decayed_array)


def undeclared_computed(decay=0.9):
    return gradtx.leafwise(None, _decayed, decay=1 - decay)


def option(decay: gradtx.Decay = 0.9):
    return gradtx.leafwise(None, _decayed_option)


def no_star(decay: gradtx.Decay = 0.9):
    return gradtx.leafwise(None, _no_star)


def no_return(decay: gradtx.Decay = 0.9):
    gradtx.leafwise(None, _decayed)


def unknown_name():
    return gradtx.leafwise(None, _decayed)


def unused_name(decay: gradtx.Decay = 0.9):
    return gradtx.leafwise(None, _decayed, b2=0.5)


DECLARE = "does not declare it as data: annotate it, `decay: gradtx.Hyperparam = 0.9`"
BUILDERS = {
    undeclared: f"undeclared: its rule _decayed uses decay as a hyperparameter, and undeclared "
    f"{DECLARE}",
    undeclared_float: f"undeclared_float: its rule _decayed_array uses decay as a hyperparameter, "
    f"and undeclared_float {DECLARE}",
    undeclared_computed: f"undeclared_computed: its rule _decayed uses decay as a hyperparameter, "
    f"and undeclared_computed {DECLARE}",
    option: "option declares decay as data, and its rule _decayed_option takes it as an option: "
    "annotate it in the rule as an array, `decay: jax.Array`",
    no_star: "_no_star takes decay by position, and update receives only (grad, slots, param, "
    "step) by position: put a * before decay",
    no_return: "no_return returned NoneType: return leafwise(...), treewise(...) or chain(...)",
    unknown_name: "_decayed asks for decay, which it is not given: pass decay=... beside the "
    "functions of the rule",
    unused_name: "_decayed: b2 is given, but no function of the rule has a keyword-only argument "
    "of that name",
}


@pytest.mark.parametrize("build", BUILDERS)
def test_a_builder_fails_at_its_call(build: Any) -> None:
    error = failure(gradtx.definition(build))
    assert isinstance(error, GradtxError) and str(error) == BUILDERS[build]
    assert frames(error) == ["make"]


def test_a_schedule_for_an_option() -> None:
    schedule = gradtx.linear_schedule(1.0, 0.0, 3)
    error = failure(lambda: gradtx.leafwise(None, _decayed_option, decay=schedule))
    assert str(error) == (
        f"_decayed_option annotates decay as an option, and it is given {schedule!r}, which is "
        "data: annotate it as an array, `decay: jax.Array`"
    )
    error = failure(lambda: gradtx.leafwise(None, _decayed_array, decay="fast"))
    assert str(error) == (
        "_decayed_array annotates decay as an array, and it is given 'fast': give a number, an "
        "array or a schedule, or annotate decay as what it is"
    )


def _init_no_star(param, mu_dtype):
    return Moment(param)


def _wrap_no_star(updates, own, params, step, inner):
    return updates, inner, own


POSITIONS = {
    "(updates, slots, params, step)": lambda: gradtx.treewise(None, _no_star, decay=0.1),
    "(grad, slots, param, step)": lambda: gradtx.matrixwise(None, _no_star, decay=0.1),
}


@pytest.mark.parametrize("received", POSITIONS)
def test_a_forgotten_star(received: str) -> None:
    assert str(failure(POSITIONS[received])) == (
        f"_no_star takes decay by position, and update receives only {received} by position: put a "
        "* before decay"
    )


def test_a_forgotten_star_of_init_or_a_wrapper() -> None:
    assert str(failure(lambda: gradtx.leafwise(_init_no_star, _same))) == (
        "_init_no_star takes mu_dtype by position, and init receives only (param) by position: put "
        "a * before mu_dtype"
    )
    assert str(failure(lambda: gradtx.wrapwise(gradtx.scale(1.0), None, _wrap_no_star))) == (
        "_wrap_no_star takes inner by position, and update receives only (updates, slots, params, "
        "step) by position: put a * before inner"
    )


def test_a_rule_with_too_few_arguments() -> None:
    assert str(failure(lambda: gradtx.leafwise(None, _too_few))) == (
        "_too_few takes (grad, slots, param) by position, and update receives (grad, slots, param, "
        "step): name each of them"
    )


# Measures and conclusions.


class Norm(NamedTuple):
    square: Any


def _measure(grad, slots, param, step):
    return Norm(jnp.sum(grad**2))


def _measure_array(grad, slots, param, step):
    return jnp.sum(grad**2)


def _conclude(measures, tree_slots, step):
    return {"norm": jnp.sqrt(sum(measures.square))}, None


def _conclude_dict(measures, tree_slots, step):
    return {"norm": jnp.sqrt(sum(measures.square))}


def _normalize(grad, slots, param, step, *, norm):
    return grad / norm, slots


@MODES
def test_measures_are_a_named_tuple_and_conclusions_a_pair(mode: Decorator) -> None:
    tx = gradtx.leafwise(None, _normalize, measure=_measure_array, conclude=_conclude)
    error = failure(lambda: step(tx, mode))
    assert str(error) == (
        "normalize: _measure_array returned an array: return a NamedTuple of scalars"
    )
    tx = gradtx.leafwise(None, _normalize, measure=_measure, conclude=_conclude_dict)
    error = failure(lambda: step(tx, mode))
    assert str(error) == (
        "normalize: _conclude_dict returned a dict with 'norm' alone: return a pair, (statistics "
        "by name, tree slots or None)"
    )


# Laws.


def _spoil(grad, slots, param, step):
    return grad + 0 * jnp.sum(grad), slots


def _divide(grad, slots, param, step):
    return grad / jnp.abs(grad), slots


def _init_like(param) -> Moment:
    return Moment(jnp.zeros_like(param))


BROKEN = {
    "contained": (gradtx.leafwise(None, _spoil), "nan in 'dense/kernel' spread to 'dense/kernel'"),
    "zero_gradient": (gradtx.leafwise(None, _divide), "the update of 'dense/bias' is not finite"),
    "dtypes": (gradtx.leafwise(_init_like, _same), "slot 'slots/same/mu/dense/bias' is bfloat16"),
}


@pytest.mark.parametrize("law", BROKEN)
def test_a_law_that_fails_says_path_rule_and_a_hint(law: str) -> None:
    tx, text = BROKEN[law]
    error = failure(lambda: LAWS[law](tx))
    assert isinstance(error, AssertionError) and str(error).startswith(text)
    assert notes(error) == [f"{tx.name} breaks the law {law!r}. {HINTS[law]}"]


def test_every_law_has_a_hint() -> None:
    assert list(HINTS) == list(LAWS)
