"""Bad arguments of `transfer`, and the texts of their errors."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.unit.wrappers.test_transfer import BASE, WIDTH, model

MISTAKES = {
    "base 0": (
        {"base": 0, "width": 8},
        "transfer: base = 0 is not the width of the model that was tuned: give a whole number "
        "above 0",
    ),
    "width 0": (
        {"base": 8, "width": 0},
        "transfer: width = 0 is not the width of this model: give a whole number above 0",
    ),
    "no width": (
        {"base": 8},
        "transfer: base = 8 is the width of the base model, and that of this model is not known: "
        "give width=..., or the parameters of the base model as base",
    ),
    "two widths": (
        {"base": model(BASE), "width": 8},
        "transfer: width = 8 and base are shapes, which say the width already: leave width out, or "
        "give the width of the base model as base",
    ),
    "unknown rule": (
        {"base": 8, "width": 32, "rule": "mump"},
        "transfer: rule = 'mump' is unknown; choose one of 'mup', 'sgd', 'spectral', 'hyperball'",
    ),
    "unknown head": (
        {"base": 8, "width": 32, "head": "tied"},
        "transfer: head = 'tied' is unknown; choose one of 'rate', 'forward'",
    ),
    "alpha": (
        {"base": 8, "width": 32, "alpha": 1.5},
        "transfer: alpha = 1.5 is outside its range [0, 1]: 1 is CompleteP, 0.5 depth-muP, 0 muP "
        "without depth",
    ),
    "depth": (
        {"base": 8, "width": 32, "depth_ratio": 0.0},
        "transfer: depth_ratio = 0.0 is not above 0: give the number of layers over that of the "
        "base model",
    ),
    "exponent": (
        {"base": 8, "width": 32, "decay_exponent": float("inf")},
        "transfer: decay_exponent = inf is not finite: give 0, so that η λ is constant, or up to 1",
    ),
    "unknown kind": (
        {"base": 8, "width": 32, "roles": [("norm", "gain")]},
        "transfer: roles has ('norm', 'gain'): give pairs (pattern, kind), a kind being one of "
        "'embedding', 'matrix', 'vector', 'head', 'fixed'",
    ),
    "no matrices": (
        {"base": 8, "width": 32, "rule": "spectral"},
        "transfer: rule = 'spectral' is for rules on matrices as muon(...), and adamw has none: "
        "pass rule='mup'",
    ),
    "nothing matches": (
        {"base": 8, "width": 32, "roles": [("decoder", "matrix")]},
        "transfer: roles: rule 1, ('decoder', 'matrix'), matches none of the 12 leaves; the paths "
        "are 'blocks/0/down/kernel', 'blocks/0/norm', 'blocks/0/up/bias', ...",
    ),
    "another model": (
        {"base": {"embed": jnp.ones((10, 8))}},
        "transfer: base has no shape at 'blocks/0/down/kernel'; the nearest is 'embed': take the "
        "shapes of the same model, as narrow as it was when it was tuned",
    ),
    "other axes": (
        {"base": model(BASE) | {"embed": jnp.ones((10, 8, 2))}},
        "transfer: base has the shape (10, 8, 2) at 'embed', where the parameters have (10, 32): "
        "take the shapes of the same model, as narrow as it was when it was tuned",
    ),
    "more": (
        {"base": model(BASE) | {"wte": jnp.ones((10, 8))}},
        "transfer: base has a shape at 'wte', and the parameters have nothing there: take the "
        "shapes of the same model, as narrow as it was when it was tuned",
    ),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_mistakes(mistake: str) -> None:
    options, text = MISTAKES[mistake]
    with pytest.raises(gradtx.GradtxError) as error:
        gradtx.transfer(gradtx.adamw(0.1), **options).init(model(WIDTH))
    assert str(error.value) == text


UNFIT = {
    "muon": (
        gradtx.muon(0.1),
        "transfer: rule = 'mup' is for rules on entries, and scale_by_muon orthogonalizes "
        "matrices: pass rule='spectral'",
    ),
    "no rate": (
        gradtx.scale_by_adam(),
        "transfer: scale_by_adam has no learning rate to multiply: give the whole optimizer, with "
        "scale_by_learning_rate(...) or a builder as adamw(...)",
    ),
    "twice": (
        gradtx.transfer(gradtx.adam(0.1), 8, width=16),
        "transfer: the hyperparameters of scale_by_adam are multiplied by another transfer inside: "
        "use one of them",
    ),
}


@pytest.mark.parametrize("inner", sorted(UNFIT))
def test_optimizers_that_do_not_fit(inner: str) -> None:
    tx, text = UNFIT[inner]
    with pytest.raises(gradtx.GradtxError) as error:
        gradtx.transfer(tx, 8, width=32).init(model(WIDTH))
    assert str(error.value) == text


WARMED = gradtx.sgd(gradtx.linear_schedule(0.0, 0.1, 100), momentum=0.9)
TO_SGD = (
    "transfer: rule = 'mup' is for updates of one size, as Adam's, and those of {} are "
    "proportional to gradients: pass rule='sgd'"
)
TO_MUP = (
    "transfer: rule = 'sgd' is for updates that are proportional to gradients, and those of {} do "
    "not grow with them: pass rule='mup'"
)
DEGREES: dict[str, tuple[Any, Any, str]] = {
    "sgd": (gradtx.sgd(0.1), "mup", TO_SGD.format("sgd")),
    "warmup": (WARMED, "mup", TO_SGD.format("sgd")),
    "clip": (
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)),
        "mup",
        TO_SGD.format("chain"),
    ),
    "guard": (gradtx.guard(gradtx.sgd(0.1)), "mup", TO_SGD.format("sgd")),
    "decay": (
        gradtx.chain(gradtx.add_decayed_weights(1e-3), gradtx.sgd(0.1)),
        "mup",
        TO_SGD.format("chain"),
    ),
    "adamw": (gradtx.adamw(0.1), "sgd", TO_MUP.format("adamw")),
    "lion": (gradtx.lion(0.1), "sgd", TO_MUP.format("lion")),
}


@pytest.mark.parametrize("case", sorted(DEGREES))
@pytest.mark.parametrize("base", [{"base": 8, "width": 32}, {"base": model(BASE)}])
def test_updates_that_do_not_fit(case: str, base: Any) -> None:
    tx, rule, text = DEGREES[case]
    with pytest.raises(gradtx.HyperparamError) as error:
        gradtx.transfer(tx, rule=rule, **base)
    assert str(error.value) == text


@pytest.mark.parametrize("name", ["adagrad", "adafactor", "lars", "yogi", "rmsprop", "adadelta"])
def test_updates_that_fit_mup(name: str) -> None:
    gradtx.transfer(getattr(gradtx, name)(0.1), model(BASE))


def test_what_cannot_be_tried_is_not_refused() -> None:
    """A traced rate, and an optimizer that needs a loss."""
    params = model(WIDTH)

    @jax.jit
    def init(rate: jax.Array) -> Any:
        return gradtx.transfer(gradtx.sgd(rate), model(BASE)).init(params)

    init(jnp.float32(0.1))
    gradtx.transfer(gradtx.polyak_sgd(0.1), 8, width=32)


def test_a_pair_of_another_library() -> None:
    pair = gradtx.GradientTransformation(lambda params: (), lambda grads, state: (grads, state))
    tx = gradtx.chain(pair, gradtx.sgd(0.1))
    with pytest.raises(gradtx.GradtxError) as error:
        gradtx.transfer(tx, 8, "sgd", width=32).init(model(WIDTH))
    assert str(error.value).endswith(
        "is another library's, whose hyperparameters have no names; use gradtx's own, or put it "
        "outside of transfer"
    )
