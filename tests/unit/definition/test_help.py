"""What a user sees without the documentation: `help`, `dir`, completion and suggestions."""

# The mistakes below are errors for a type checker, too.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import copy
import importlib.metadata
import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx.definition.definition import registry
from gradtx.definition.errors import GradtxError, HyperparamError

ADAMW = gradtx.chain(gradtx.clip(1.0), gradtx.adamw(gradtx.linear_schedule(1.0, 0.0, 10)))
BUILDERS = sorted(
    name
    for name in gradtx.__all__
    if inspect.isfunction(getattr(gradtx, name)) and hasattr(getattr(gradtx, name), "factory")
)


def shown(name: str) -> inspect.Signature:
    return inspect.signature(getattr(gradtx, name))


def test_help_shows_short_names_and_every_flag() -> None:
    text = pydoc.plain(pydoc.render_doc(gradtx.adamw))
    # Python 3.13 writes each argument on a line of its own.
    head = " ".join(text[: text.index("Adam with decoupled")].split())
    assert "learning_rate: Hyperparam, b1: Decay = 0.9," in head
    assert "mu_dtype: DTypeLike | None = None" in head and "mask: Where | None = None" in head
    assert "cautious: bool | None = None" in head and "**flags" not in head
    assert "-> GradientTransformation" in head
    assert len(head) < 12 * 80  # half a screen


@pytest.mark.parametrize("name", BUILDERS)
def test_every_argument_is_explained(name: str) -> None:
    """Those of `**flags`, too, by name at least."""
    text = inspect.getdoc(getattr(gradtx, name)) or ""
    names = set(shown(name).parameters) - {"args", "kwargs"}
    assert not [one for one in names if not re.search(rf"\b{one}\b", text)]


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_has_a_short_signature(name: str) -> None:
    text = str(shown(name))
    long = r"typing|Annotated|Interval|jaxlib|numpy\.number|Default|gradtx\."
    assert not re.search(long, text)
    assert "**flags" not in text
    factory = getattr(gradtx, name).factory
    parameters = shown(name).parameters
    assert list(parameters) == list(factory.signature.parameters)
    assert all(
        parameter.default is factory.signature.parameters[key].default
        for key, parameter in parameters.items()
    )


def test_the_signature_behaves_like_any_other() -> None:
    signature = shown("adam")
    assert copy.deepcopy(signature) == signature == pickle.loads(pickle.dumps(signature))
    assert signature.bind(0.1, nesterov=True).arguments == {"learning_rate": 0.1, "nesterov": True}
    changed = signature.replace(return_annotation=int)
    assert changed.parameters == signature.parameters and changed.return_annotation is int
    assert "b1: Decay" in str(signature) and hash(signature) == hash(shown("adam"))


def test_type_hints_are_the_types_themselves() -> None:
    hints = typing.get_type_hints(gradtx.adam, include_extras=True)
    assert hints["b1"] == gradtx.Decay and hints["return"] is gradtx.GradientTransformation


def test_import_computes_no_signature() -> None:
    code = (
        "import gradtx; from gradtx.definition.definition import registry; "
        "print(sum('_shown_signature' in vars(one) for one in registry.values()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n" and len(registry) > 150


def test_optax_injects_hyperparams_into_a_builder() -> None:
    params = {"w": jnp.ones(2)}
    tx = optax.inject_hyperparams(gradtx.adam)(learning_rate=0.1)
    state: Any = tx.init(params)
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(0.1)
    updates: Any = tx.update(params, state, params)[0]
    expected, _ = gradtx.adam(0.1).update(params, gradtx.adam(0.1).init(params))
    assert jnp.allclose(updates["w"], expected["w"], rtol=1e-6)


def test_dir_of_the_package() -> None:
    names = dir(gradtx)
    assert {"adamw", "chain", "make_step", "linalg", "sharding", "__version__"} <= {*names}
    assert not {"compose", "engine", "optimizers", "TYPE_CHECKING", "TraceState"} & {*names}
    namespace: dict[str, Any] = {}
    exec("from gradtx import *", namespace)
    assert {*namespace} - {"__builtins__"} == {*names} - {"__version__"} == {*gradtx.__all__}
    assert all(namespace[name] is getattr(gradtx, name) for name in names if name in namespace)


def test_every_import_with_a_name_is_public() -> None:
    text = inspect.getsource(gradtx)
    imports = re.findall(r"from (\S+) import \(?\s*\w+ as (\w+)", text)
    hidden = "gradtx.interop.state_classes"
    assert sorted(name for module, name in imports if module != hidden) == gradtx.__all__


def test_version() -> None:
    assert gradtx.__version__ == importlib.metadata.version("gradtx")


def test_dir_of_definitions() -> None:
    assert dir(ADAMW) == ["describe", "init", "name", "needs", "update"]
    names = ["__call__", "arguments", "length", "name", "plot"]
    assert dir(gradtx.constant_schedule(0.1)) == names
    assert all(hasattr(ADAMW, name) for name in dir(ADAMW))


MISSPELT: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "class name": (
        lambda: gradtx.AdamW,
        AttributeError,
        "gradtx has no 'AdamW'; did you mean 'adamw'?",
    ),
    "two words": (
        lambda: gradtx.AdamMini,
        AttributeError,
        "gradtx has no 'AdamMini'; did you mean 'adam_mini'?",
    ),
    "unknown name": (lambda: gradtx.xyzzy, AttributeError, "gradtx has no 'xyzzy'"),
    "torch's lr": (
        lambda: gradtx.scale_by_learning_rate(lr=0.1),
        TypeError,
        "scale_by_learning_rate has no hyperparameter or option 'lr'; did you mean "
        "'learning_rate'? Its arguments are learning_rate, flip_sign",
    ),
    "torch's betas": (
        lambda: gradtx.scale_by_adam(betas=(0.9, 0.99)),
        TypeError,
        "scale_by_adam has no hyperparameter or option 'betas'; did you mean 'b1' and 'b2'? Its "
        "arguments are b1, b2, eps, eps_root, mu_dtype, nesterov, momentum",
    ),
    "a flag": (
        lambda: gradtx.scale_by_belief(nestrov=True),
        TypeError,
        "scale_by_belief has no hyperparameter or option 'nestrov'; did you mean 'nesterov'? Its "
        "arguments are b1, b2, eps, eps_root, nesterov, momentum",
    ),
    "unknown keyword": (
        lambda: gradtx.clip(1.0, qqq=1),
        TypeError,
        "clip has no hyperparameter or option 'qqq'; its arguments are max_delta",
    ),
    "torch's T_max": (
        lambda: gradtx.cosine_decay_schedule(1.0, T_max=10),
        TypeError,
        "cosine_decay_schedule has no hyperparameter or option 'T_max'; did you mean "
        "'decay_steps'? Its arguments are init_value, decay_steps, alpha, exponent",
    ),
    "list in a chain": (
        lambda: gradtx.chain([gradtx.clip(1.0), gradtx.sgd(0.1)]),
        GradtxError,
        "chain: members is a list, and must be one transformation: write chain(*members)",
    ),
    "builder in a chain": (
        lambda: gradtx.chain(gradtx.sgd(0.1), gradtx.adam),
        GradtxError,
        "chain: members: adam is a function that makes transformations: call it, adam(...)",
    ),
    "builder of schedules": (
        lambda: gradtx.sgd(gradtx.cosine_decay_schedule),
        HyperparamError,
        "sgd: learning_rate: cosine_decay_schedule is a function that makes schedules: call it, "
        "cosine_decay_schedule(...)",
    ),
    "swapped arguments": (
        lambda: gradtx.make_step(gradtx.sgd(0.1), lambda params: params),
        GradtxError,
        "make_step: loss_fn is sgd(learning_rate=0.1), which is not a function; the arguments are "
        "swapped: call make_step(loss_fn, tx)",
    ),
    "no loss function": (
        lambda: gradtx.make_step(0.5, gradtx.sgd(0.1)),
        GradtxError,
        "make_step: loss_fn is 0.5, which is not a function; pass loss_fn(params, *batch)",
    ),
    "hyperparameter as attribute": (
        lambda: gradtx.adam(0.1).learning_rate,
        AttributeError,
        "adam(...) has no attribute 'learning_rate'; read "
        'gradtx.hyperparams(tx)["learning_rate"]',
    ),
    "hyperparameter of a member": (
        lambda: ADAMW.learning_rate,
        AttributeError,
        "chain(...) has no attribute 'learning_rate'; read "
        'gradtx.hyperparams(tx)["learning_rate"]',
    ),
    "hyperparameter of two members": (
        lambda: gradtx.chain(gradtx.trace(0.9), gradtx.ema(0.9)).decay,
        AttributeError,
        "chain(...) has no attribute 'decay'; read gradtx.hyperparams(tx)",
    ),
    "option as attribute": (
        lambda: gradtx.adam(0.1).nesterov,
        AttributeError,
        "adam(...) has no attribute 'nesterov'; read its arguments[\"nesterov\"]",
    ),
    "argument of a schedule": (
        lambda: gradtx.constant_schedule(0.1).value,
        AttributeError,
        "constant_schedule(...) has no attribute 'value'; read its arguments[\"value\"]",
    ),
    "unknown attribute": (
        lambda: ADAMW.qqq,
        AttributeError,
        "'GradientTransformation' object has no attribute 'qqq'",
    ),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_suggestion(case: str) -> None:
    call, kind, text = MISSPELT[case]
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text


def test_hyperparams_reads_what_the_message_proposes() -> None:
    assert float(gradtx.hyperparams(ADAMW)["learning_rate"]) == 1.0


@gradtx.definition
def broken() -> gradtx.GradientTransformation:
    return gradtx.identity().qqq


def test_an_attribute_error_in_a_builder_is_not_hidden() -> None:
    with pytest.raises(AttributeError, match="object has no attribute 'qqq'"):
        broken()
