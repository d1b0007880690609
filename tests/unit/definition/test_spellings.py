"""Names of other libraries lead to a name that exists here."""

import inspect

import pytest

import gradtx
from gradtx.definition.spelling import SPELLINGS
from tests.support.public import public_names

DTYPES = {"bfloat16", "float16", "float32", "float64"}
PUBLIC = public_names()
ARGUMENTS = {
    argument
    for value in PUBLIC.values()
    if callable(value) and not inspect.isclass(value)
    for argument in inspect.signature(value).parameters
}


@pytest.mark.parametrize("name", sorted(SPELLINGS))
def test_a_spelling_leads_to_a_name(name: str) -> None:
    assert {*SPELLINGS[name]} <= {*PUBLIC} | ARGUMENTS | DTYPES


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EMA", "'params_ema'"),
        ("wsd", "'phases' and 'warmup_stable_decay_schedule'"),
        ("train_step", "'make_step'"),
        ("layerwise", "'layerwise_decay' and 'multiply_by_path'"),
        ("save_checkpoint", "'save'"),
        ("adamw_8bit", "'stored' and 'adamw'"),
    ],
)
def test_a_name_that_users_guess(name: str, meant: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(gradtx, name)
    assert str(caught.value) == f"gradtx has no {name!r}; did you mean {meant}?"


def test_an_argument_of_muon_that_users_guess() -> None:
    with pytest.raises(TypeError, match=r"did you mean 'adam_learning_rate'\?"):
        gradtx.muon(0.02, adam_lr=3e-3)  # pyright: ignore[reportCallIssue]
