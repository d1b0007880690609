"""The paths of a state: an argument of a builder may add or remove slots, but it moves none.

The law `paths` covers every bool of a builder. Here are the arguments that are None by default, and
the flags that all optimizers share.
"""

from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import MomentumKernel
from gradtx.compose.descend import DecayForm
from gradtx.definition.types import DTypeLike
from gradtx.testing import LAWS
from gradtx.testing.state_paths import assert_same_paths
from tests.methods import FIRST, METHODS

KERNELS = "kernel$"
OPTIONS: dict[str, Any] = {
    "layers": 100,
    "pattern": r"layers/(\d+)",
    "accumulator_dtype": jnp.bfloat16,
    "adam_learning_rate": 0.1,
    "axis_name": "data",
    "axis_names": "data",
    "beta3": 0.9,
    "cautious": True,
    "compress": "int8",
    "compute_dtype": jnp.bfloat16,
    "consistent_rms": 0.2,
    "decay_rate_fn": lambda count, decay: decay,
    "difference_weight": 0.5,
    "exponent": 3,
    "fused": False,
    "huber_delta": 0.5,
    "gather_dtype": jnp.bfloat16,
    "init_estim_sq_dist": 1.0,
    "key": 3,
    "mask": KERNELS,
    "momentum": 0.9,
    "momentum_decay": 0.004,
    "mu_dtype": jnp.bfloat16,
    "mu_x": 0.9,
    "normalize_after": "outputs",
    "normalize_before": "inputs",
    "ns_steps": 3,
    "optimism": 0.5,
    "peak_learning_rate": 0.1,
    "print_win_rate_every_n_steps": 5,
    "roles": [(KERNELS, "fixed")],
    "seed": 3,
    "shampoo_beta": 0.5,
    "should_skip_update_fn": lambda grads, state, params: (jnp.asarray(False), ()),
    "spectrum": gradtx.soft_polar(0.2),
    "state_dtype": jnp.bfloat16,
    "total_steps": 1000,
    "update_probability": 0.5,
    "warmup_steps": 10,
    "weight_decay": 0.1,
    "weight_decay_mask": KERNELS,
    "weight_decay_rate": 0.1,
    "where": KERNELS,
    "watch": ("grad_norm", "value"),
    "window": 8,
    "zscore": 4.0,
}
"""A value for every argument that is None by default."""

KERNEL = gradtx.bi_maxwell(start=3)
"""A value for `momentum=`, where it is a kernel and not a number."""

OTHER_SHAPES = {
    "axis": "the axes of the mean, on arrays that have them",
    "base_optimizer": "another optimizer, whose slots are its own",
    "batch_axis_name": "needs a mapped axis",
    "decay_form": "has a test of its own, with the arguments that it needs",
    "dimensions": "other matrices, and so slots of other shapes",
    "fragments": "an outer optimizer for each fragment, and so slots for each",
    "groups": "what is measured, and so kept",
    "last": "a transformation, whose slots are its own",
    "replicas": "needs parameters with a first axis of replicas",
    "routes": "moves a parameter into another group, and its slots with it",
    "shard": "needs a mesh; tests/unit/sharding",
    "weight_dimension_numbers": "other matrices, and so slots of other shapes",
}
"""The arguments that are None by default and for which the law has no meaning, each with why."""

OTHER_RULES = {
    ("nadam", "momentum_decay"): "scale_by_nadam, with a slot more: the product of the momenta",
    ("nadamw", "momentum_decay"): "as for nadam",
    ("scale_by_stable_adamw", "mask"): "one rule for leaves that decay, and one for the rest: the "
    "clipping divides the decay, too, so that no masked decay outside of the rule is the same",
    ("stable_adamw", "mask"): "as for scale_by_stable_adamw",
}
"""Where an argument chooses another rule, whose slots are at its own name since 0.2, and why."""


def variants(tx: gradtx.GradientTransformation) -> dict[str, Any]:
    """Every argument that is None in a definition and by default, with another value."""
    parameters = tx.factory.signature.parameters.items()
    names = [name for name, one in parameters if one.default is None]
    dynamic = tx.factory.dynamic
    return {
        name: KERNEL
        if name == "momentum" and MomentumKernel in dynamic.get(name, ())
        else OPTIONS[name]
        for name in names
        if tx.arguments[name] is None
        and name not in OTHER_SHAPES
        and (tx.factory.__name__, name) not in OTHER_RULES
    }


@pytest.mark.parametrize("name", FIRST)
def test_an_option_moves_no_slot(name: str) -> None:
    tx = METHODS[name].tx
    for option, value in variants(tx).items():
        assert_same_paths(tx, {option: value})


WITH_FORMS = [name for name in FIRST if "decay_form" in METHODS[name].tx.arguments]


@pytest.mark.parametrize("name", WITH_FORMS)
def test_no_form_of_weight_decay_moves_a_slot(name: str) -> None:
    tx = METHODS[name].tx
    forms = [{"decay_form": form, "peak_learning_rate": 0.1} for form in get_args(DecayForm)]
    masks = [] if (name, "mask") in OTHER_RULES else [{"mask": KERNELS}]
    for flags in (*forms, *masks):
        known = {"weight_decay": 0.1, **flags}
        assert_same_paths(tx, {key: one for key, one in known.items() if key in tx.arguments})


def test_most_optimizers_have_forms_of_weight_decay() -> None:
    assert len(WITH_FORMS) > 40


class Kept(NamedTuple):
    mu: jax.Array


def _init(param: Any, *, mu_dtype: DTypeLike | None) -> Kept:
    return Kept(jnp.zeros_like(param, mu_dtype))


def _average(grad: Any, slots: Kept, param: Any, step: Any) -> tuple[Any, Kept]:
    return grad, slots


@gradtx.definition
def scale_by_moving(
    mu_dtype: DTypeLike | None = None, sign: bool = False, cautious: bool | None = None
) -> gradtx.GradientTransformation:
    """A builder that breaks the law: with a sign its rule is in a chain with a name."""
    rule = gradtx.leafwise(_init, _average)
    if cautious:
        return gradtx.chain(rule, gradtx.cautious_mask())
    return gradtx.chain(signed=gradtx.chain(rule, gradtx.scale_by_sign())) if sign else rule


def test_the_law_notices_a_flag_that_moves_a_slot() -> None:
    with pytest.raises(AssertionError) as error:
        LAWS["paths"](scale_by_moving())
    text = str(error.value)
    assert text.startswith("scale_by_moving: slot 'slots/scale_by_moving/mu/")
    assert "is at 'slots/signed/" in text and "with {'sign': True}" in text
    assert "combine the rules by gradtx.chain or gradtx.descend" in text


@pytest.mark.parametrize(("name", "option"), OTHER_RULES)
def test_another_rule_breaks_the_law(name: str, option: str) -> None:
    """Once one of them obeys, its line in the table goes."""
    with pytest.raises(AssertionError, match=f"^{name}: slot "):
        assert_same_paths(METHODS[name].tx, {option: OPTIONS[option]})


def test_a_dtype_and_a_chain_of_the_builders_own_move_none() -> None:
    assert_same_paths(scale_by_moving(), {"mu_dtype": jnp.bfloat16})
