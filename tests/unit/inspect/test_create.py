"""`create` and `list_optimizers`: names and arguments as configuration files spell them."""

import json
import tomllib
from typing import Any

import pytest

import gradtx
from gradtx.definition.errors import ConfigError, HyperparamError
from tests.support.places import ROOT


def test_the_list_is_that_of_the_files() -> None:
    files = [path.stem for path in sorted((ROOT / "gradtx" / "optimizers").glob("[a-z]*.py"))]
    assert gradtx.list_optimizers() == files
    assert gradtx.list_optimizers("ADAM*") == [name for name in files if name.startswith("adam")]
    assert gradtx.list_optimizers("[ls]ion") == ["lion"]
    assert gradtx.list_optimizers("nothing") == []


@pytest.mark.parametrize("name", gradtx.list_optimizers())
def test_every_optimizer_by_its_name_is_the_same_call(name: str) -> None:
    builder: Any = getattr(gradtx, name)
    has_rate = "learning_rate" in builder.factory.signature.parameters
    arguments: dict[str, Any] = {"learning_rate": 0.01} if has_rate else {}
    needed = builder.factory.signature.parameters.values()
    for one in needed:
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD:
            arguments.setdefault(one.name, {"key": 0}.get(one.name, 1.0))
    for spelling in (name, name.upper(), name.replace("_", "-"), name.title().replace("_", "")):
        assert gradtx.create(spelling, **arguments) == builder(**arguments)


def test_names_and_arguments_of_other_libraries() -> None:
    expected = gradtx.adamw(1e-3, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.1)
    for name in ("AdamW", "adam_w", "Adam-W", "adam w"):
        assert gradtx.create(name, lr=1e-3, betas=[0.8, 0.95], epsilon=1e-6, wd=0.1) == expected
    found = gradtx.create("AdamW", lr=1e-3, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1)
    assert found == expected
    assert gradtx.create("SGD", lr=0.1, momentum=0.9, weight_decay=0.0) == gradtx.sgd(0.1, 0.9)
    assert gradtx.create("SGD", lr=0.1, weight_decay=None) == gradtx.sgd(0.1)
    rate = gradtx.linear_schedule(0.1, 0.0, 10)
    assert gradtx.create("lion", lr=rate) == gradtx.lion(rate)


def test_from_files_of_settings() -> None:
    text = '[optimizer]\nname = "AdamW"\nlr = 1e-3\nbetas = [0.9, 0.95]\nmask = "kernel$"\n'
    tx = gradtx.create(**tomllib.loads(text)["optimizer"])
    assert tx == gradtx.adamw(1e-3, b2=0.95, mask="kernel$")
    again = json.loads(json.dumps({"name": "muon", "learning_rate": 0.02}))
    assert gradtx.create(**again) == gradtx.muon(0.02)


MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unknown": (
        {"name": "admw"},
        ConfigError,
        "create: 'admw' is not an optimizer; did you mean 'adamw'? gradtx.list_optimizers() lists "
        "all",
    ),
    "like none": (
        {"name": "zzz"},
        ConfigError,
        "create: 'zzz' is not an optimizer: gradtx.list_optimizers() lists all",
    ),
    "no text": (
        {"name": 3},
        ConfigError,
        "create: 3 is not an optimizer: gradtx.list_optimizers() lists all",
    ),
    "a part": (
        {"name": "scale_by_adam"},
        ConfigError,
        "create: 'scale_by_adam' is not an optimizer",
    ),
    "unknown argument": (
        {"name": "Adam", "learning_rat": 0.1},
        TypeError,
        "adam has no hyperparameter or option 'learning_rat'; did you mean 'learning_rate'?",
    ),
    "a spelling of one library": (
        {"name": "RMSprop", "lr": 0.1, "alpha": 0.9},
        TypeError,
        "rmsprop has no hyperparameter or option 'alpha'; did you mean 'decay'?",
    ),
    "betas of what has none": (
        {"name": "sgd", "lr": 0.1, "betas": [0.9, 0.99]},
        TypeError,
        "sgd has no hyperparameter or option 'betas'",
    ),
    "one beta": (
        {"name": "adam", "lr": 0.1, "betas": 0.9},
        ConfigError,
        "create: betas = 0.9 of adam must be 2 numbers: [b1, b2]",
    ),
    "twice": (
        {"name": "adam", "lr": 0.1, "learning_rate": 0.1},
        ConfigError,
        "create: 'lr' and 'learning_rate' are one argument: pass one",
    ),
    "twice in another order": (
        {"name": "adam", "lr": 0.1, "b1": 0.9, "betas": [0.9, 0.99]},
        ConfigError,
        "create: 'betas' and 'b1' are one argument: pass one",
    ),
    "a decay of two meanings": (
        {"name": "SGD", "lr": 0.1, "wd": 0.01},
        ConfigError,
        "create: sgd has no weight_decay, so 0.01 may mean two things: for an L2 penalty write "
        "gradtx.chain(gradtx.add_decayed_weights(0.01), gradtx.sgd(...)); for decoupled decay "
        "choose an optimizer that has it, 'adamw' for example",
    ),
    "a text for a number": (
        {"name": "adam", "lr": "1e-3"},
        HyperparamError,
        "adam: learning_rate = '1e-3' is neither a number, an array nor a schedule",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_answered(case: str) -> None:
    arguments, kind, text = MISTAKES[case]
    with pytest.raises(kind) as caught:
        gradtx.create(**arguments)
    assert str(caught.value).startswith(text)
