"""Extra arguments of `update` that are missing, None, or something else than their names say."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import MissingExtraError, StructureError

W = {"w": jnp.ones(3)}
EXTRA = {"value": 1.0, "grad": W, "value_fn": lambda params: jnp.sum(params["w"] ** 2)}
MOMO = gradtx.momo()

NEEDING: dict[str, tuple[gradtx.GradientTransformation, str, str]] = {
    "momo": (MOMO, "momo", "value=..."),
    "momo_adam": (gradtx.momo_adam(), "momo_adam", "value=..."),
    "polyak_sgd": (gradtx.polyak_sgd(), "scale_by_polyak", "value=..."),
    "plateau": (gradtx.reduce_on_plateau(), "reduce_on_plateau", "value=..."),
    "chain": (gradtx.chain(gradtx.clip(1.0), MOMO), "momo", "value=..."),
    "guard": (gradtx.guard(MOMO), "momo", "value=..."),
    "masked": (gradtx.masked(MOMO, "w"), "momo", "value=..."),
    "accumulate": (gradtx.accumulate(MOMO, 2), "accumulate(momo)", "value=..."),
    **{
        name: (tx, rule, "value=..., grad=..., value_fn=...")
        for name, tx, rule in [
            (
                "backtracking",
                gradtx.scale_by_backtracking_linesearch(5),
                "scale_by_backtracking_linesearch",
            ),
            ("zoom", gradtx.scale_by_zoom_linesearch(5), "scale_by_zoom_linesearch"),
            ("lbfgs", gradtx.lbfgs(), "scale_by_zoom_linesearch"),
        ]
    },
}


def update(tx: gradtx.GradientTransformation, **extra: Any) -> Any:
    return tx.update(W, tx.init(W), W, **{**EXTRA, **extra})


@pytest.mark.parametrize("name", NEEDING)
def test_none_is_a_missing_argument(name: str) -> None:
    """Each extra argument as None, and left out, in eager mode and in a trace."""
    tx, rule, call = NEEDING[name]
    for lacking in sorted(tx.needs - {"params"}):
        text = (
            f"{rule} needs {lacking}: call update(grads, state, params, {call}); make_step passes "
            "what it can"
        )
        with pytest.raises(MissingExtraError) as caught:
            update(tx, **{lacking: None})
        assert str(caught.value) == text
        rest = {key: one for key, one in EXTRA.items() if key != lacking}
        with pytest.raises(MissingExtraError) as caught:
            jax.jit(lambda: tx.update(W, tx.init(W), W, **rest))()  # noqa: B023
        assert str(caught.value) == text


@pytest.mark.parametrize("name", NEEDING)
@pytest.mark.parametrize(
    ("value", "shown"), [("x", "'x'"), ({}, "{}"), (1j, "1j"), (jnp.array(2j), "0+2j")]
)
def test_a_loss_that_is_no_real_number_is_refused(name: str, value: Any, shown: str) -> None:
    tx, rule, _ = NEEDING[name]
    with pytest.raises(StructureError) as caught:
        update(tx, value=value)
    text = f"{rule} needs value= as a real number, and it is {shown}: pass the mean loss"
    assert str(caught.value) == text


@pytest.mark.parametrize("name", NEEDING)
def test_a_vector_of_losses_is_refused(name: str) -> None:
    tx, rule, _ = NEEDING[name]
    with pytest.raises(StructureError) as caught:
        update(tx, value=jnp.ones(2))
    text = f"{rule} needs value= as a scalar, and it has shape (2,): pass the mean loss"
    assert str(caught.value) == text


@pytest.mark.parametrize("name", ["backtracking", "zoom", "lbfgs"])
def test_a_function_and_a_gradient_are_what_their_names_say(name: str) -> None:
    tx, rule, _ = NEEDING[name]
    with pytest.raises(StructureError) as caught:
        update(tx, value_fn=3.0)
    assert str(caught.value) == (
        f"{rule} needs value_fn= as a function of the parameters, and it is 3.0: pass the "
        "function, not its value"
    )
    with pytest.raises(StructureError) as caught:
        update(tx, grad={"v": jnp.ones(3)})
    assert str(caught.value) == (
        "the gradients and grad= differ in structure: 'w' is only in the gradients, 'v' is only in "
        "grad="
    )


@pytest.mark.parametrize("name", NEEDING)
@pytest.mark.parametrize("value", [1, True, jnp.array(1.0, jnp.bfloat16), jnp.array(1)])
def test_any_real_number_is_a_loss(name: str, value: Any) -> None:
    update(NEEDING[name][0], value=value)
