"""What wrong input is told: what, where, with which values, what to do."""

import re
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.definition.errors import (
    ConfigError,
    GradtxError,
    HyperparamError,
    MissingParamsError,
    SelectionError,
    StateError,
    StructureError,
)

PARAMS = {
    "dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)},
    "head": {"kernel": jnp.ones((3, 2))},
}
ADAMW = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))


def update(tx: Any, grads: Any = PARAMS, params: Any = PARAMS, state: Any = None) -> Any:
    return tx.update(grads, tx.init(PARAMS) if state is None else state, params)


def without(path: str) -> dict[str, Any]:
    return {name: leaf for name, leaf in PARAMS.items() if name != path}


def schedule_of(*boundaries: int) -> Any:
    return gradtx.join_schedules([0.1] * (len(boundaries) + 1), list(boundaries))


CASES = {
    "gradients lack a leaf": (
        lambda: update(ADAMW, without("head")),
        StructureError,
        "the gradients and the parameters differ in structure: 'head/kernel' is only in "
        "the parameters",
    ),
    "gradients have one more leaf": (
        lambda: update(ADAMW, {**PARAMS, "extra": jnp.ones(1)}),
        StructureError,
        "the gradients and the parameters differ in structure: 'extra' is only in the gradients",
    ),
    "gradient of another shape": (
        lambda: update(
            ADAMW, {**PARAMS, "dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(3)}}
        ),
        StructureError,
        "gradient at 'dense/kernel' has shape (3, 4), its parameter (4, 3): pass the parameters",
    ),
    "no parameters": (
        lambda: update(ADAMW, params=None),
        MissingParamsError,
        "adamw/add_decayed_weights needs the parameters: call update(grads, state, params)",
    ),
    "mask matches nothing": (
        lambda: gradtx.adamw(1e-3, mask="kernl$").init(PARAMS),
        SelectionError,
        "masked(add_decayed_weights): 'kernl$' matches none of the 3 leaves; nearest: "
        "'head/kernel', 'dense/kernel'",
    ),
    "mask of another structure": (
        lambda: gradtx.masked(gradtx.scale(1.0), {"dense": True, "tail": False}).init(PARAMS),
        SelectionError,
        "masked(scale): the tree {'dense': True, 'tail': False} does not fit the "
        "parameters: they have nothing at 'tail'",
    ),
    "mask is no bool": (
        lambda: gradtx.masked(gradtx.sgd(0.1), cast(Any, 3)).init(PARAMS),
        SelectionError,
        "masked(sgd): the answer at 'dense/bias' is 3, which is not a bool; give a regex, "
        "a predicate or bools",
    ),
    "mask is no regular expression": (
        lambda: gradtx.masked(gradtx.scale(1.0), "(bias").init(PARAMS),
        SelectionError,
        "'(bias' is not a regular expression: missing ), unterminated subpattern",
    ),
    "rule matches nothing": (
        lambda: gradtx.partition(
            {"a": gradtx.sgd(0.1), "b": gradtx.adam(0.1)}, [("biass", "a"), (".*", "b")]
        ).init(PARAMS),
        SelectionError,
        "partition: rule 1, ('biass', 'a'), matches none of the 3 leaves; nearest: 'dense/bias'",
    ),
    "rule comes too late": (
        lambda: gradtx.partition(
            {"a": gradtx.sgd(0.1), "b": gradtx.adam(0.1)}, [(".*", "b"), ("bias", "a"), (".*", "b")]
        ).init(PARAMS),
        SelectionError,
        "partition: rule 2, ('bias', 'a'), claims nothing: earlier rules claim every "
        "leaf that it matches",
    ),
    "leaf that no rule claims": (
        lambda: gradtx.partition({"a": gradtx.sgd(0.1)}, [("kernel$", "a")]).init(PARAMS),
        SelectionError,
        "partition: no rule claims 'dense/bias'; rules are tried in order and the first "
        "match wins, so end with ('.*', group)",
    ),
    "label of no group": (
        lambda: gradtx.partition({"a": gradtx.sgd(0.1)}, {"dense": "a", "head": "c"}).init(PARAMS),
        SelectionError,
        "partition: 'head/kernel' is labelled 'c', which is not one of the groups 'a'",
    ),
    "unknown name in replace": (
        lambda: gradtx.replace(ADAMW, lr=0.1),
        HyperparamError,
        "chain has no hyperparameter 'lr'; did you mean 'learning_rate'? It has max_norm, "
        "learning_rate, b1, b2, eps, eps_root, weight_decay",
    ),
    "ambiguous name in replace": (
        lambda: gradtx.replace(gradtx.chain(gradtx.trace(0.9), gradtx.ema(0.9)), decay=0.1),
        HyperparamError,
        "'decay' is ambiguous: it may be trace.decay or ema.decay; chain has the "
        "hyperparameters trace.decay, ema.decay",
    ),
    "unknown name in tunable": (
        lambda: gradtx.tunable(gradtx.sgd(0.1), "rate"),
        HyperparamError,
        "sgd has no hyperparameter 'rate'; it has learning_rate",
    ),
    "state of another definition": (
        lambda: update(ADAMW, state=gradtx.sgd(0.1, momentum=0.9).init(PARAMS)),
        StateError,
        "the state holds slots for 'trace', which is not a member of this definition; its "
        "members with slots are 'adamw/scale_by_adam'",
    ),
    "state that lacks a member": (
        lambda: update(ADAMW, state=gradtx.sgd(0.1).init(PARAMS)),
        StateError,
        "the state has nothing for member 'adamw/scale_by_adam'; it holds nothing",
    ),
    "state of another rule under the same name": (
        lambda: update(
            gradtx.chain(first=gradtx.adam(0.1)),
            state=gradtx.chain(first=gradtx.rmsprop(0.1)).init(PARAMS),
        ),
        StateError,
        "the state holds slots for 'first/scale_by_rms', which is not a member of this definition",
    ),
    "state for other parameters": (
        lambda: update(gradtx.sgd(0.1, momentum=0.9), {"w": jnp.ones(2)}, {"w": jnp.ones(2)}),
        StateError,
        "slot 'trace' of member trace was made for other parameters: 'w' is only in the "
        "gradients, 'dense/bias' is only in the state",
    ),
    "state for other shapes": (
        lambda: gradtx.sgd(0.1, momentum=0.9).update(
            jnp.ones(3), gradtx.sgd(0.1, momentum=0.9).init(jnp.ones((2, 3)))
        ),
        StateError,
        "slot 'trace' of member trace at '' is f32[2,3], for a gradient f32[3]: this "
        "state was made for other parameters",
    ),
    "state made with another mask": (
        lambda: update(
            gradtx.adam(0.1), state=gradtx.masked(gradtx.adam(0.1), "bias").init(PARAMS)
        ),
        StateError,
        "member scale_by_adam acts on 'dense/kernel', for which its state holds nothing: "
        "this state was made with another mask",
    ),
    "state that is none": (
        lambda: update(gradtx.adam(0.1), state=(1, 2)),
        StateError,
        "the state of adam is a tuple, not a gradtx.State: make it with tx.init(params)",
    ),
    "two leaves with one path": (
        lambda: gradtx.sgd(0.1).init({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}),
        StructureError,
        "two leaves have the same path 'a/b'; rename a key, so that every leaf has a path of its "
        "own",
    ),
    "b1 out of range": (
        lambda: gradtx.adam(0.1, b1=1.5),
        HyperparamError,
        "adam: b1 = 1.5 is outside its range [0, 1)",
    ),
    "out of range in replace": (
        lambda: gradtx.replace(ADAMW, b2=1.0),
        HyperparamError,
        "adamw: b2 = 1.0 is outside its range [0, 1)",
    ),
    "hyperparameter of another kind": (
        lambda: gradtx.sgd("0.1"),  # pyright: ignore[reportArgumentType]
        HyperparamError,
        "sgd: learning_rate = '0.1' is neither a number, an array nor a schedule",
    ),
    "no learning rate": (
        lambda: gradtx.sgd(None),  # pyright: ignore[reportArgumentType]
        HyperparamError,
        "sgd: learning_rate = None is neither a number, an array nor a schedule",
    ),
    "an optimizer as learning rate": (
        lambda: gradtx.sgd(gradtx.adam(0.1)),  # pyright: ignore[reportArgumentType]
        HyperparamError,
        "sgd: learning_rate = adam(learning_rate=0.1) is neither a number, an array nor a schedule",
    ),
    "a schedule as member": (
        lambda: gradtx.chain(gradtx.constant_schedule(0.1)),  # pyright: ignore[reportArgumentType]
        GradtxError,
        "chain: members is constant_schedule(value=0.1), which has no init and update: "
        "pass a gradient transformation",
    ),
    "boundaries do not increase": (
        lambda: schedule_of(10, 5),
        HyperparamError,
        "join_schedules: the boundaries are [10, 5], which do not increase",
    ),
    "member is no transformation": (
        lambda: gradtx.chain(gradtx.sgd(0.1), 0.5),  # pyright: ignore[reportArgumentType]
        GradtxError,
        "chain: members is 0.5, which has no init and update: pass a gradient transformation",
    ),
    "keyword repeats a member": (
        lambda: gradtx.chain(gradtx.adam(0.1), adam=gradtx.sgd(0.1)),
        GradtxError,
        "chain: the keyword 'adam' is already the name of a positional member; choose another",
    ),
    "complex for a rule on reals": (
        lambda: gradtx.clip(1.0).update(
            {"z": jnp.ones(2, jnp.complex64)},
            gradtx.clip(1.0).init({"z": jnp.ones(2, jnp.complex64)}),
        ),
        StructureError,
        "clip is not defined for complex numbers, and 'z' is c64[2]: leave that leaf out "
        "with masked(...)",
    ),
    "updates of another structure": (
        lambda: gradtx.apply_updates(PARAMS, without("head")),
        StructureError,
        "the parameters and the updates differ in structure: 'head/kernel' is only in "
        "the parameters",
    ),
    "updates in other containers": (
        lambda: gradtx.apply_updates((jnp.ones(1),), [jnp.ones(1)]),
        StructureError,
        "the parameters and the updates differ in structure: the paths are the same, the "
        "containers are not",
    ),
    "update of another shape": (
        lambda: gradtx.apply_updates({"w": jnp.ones(2)}, {"w": jnp.ones(3)}),
        StructureError,
        "update at 'w' has shape (3,), its parameter (2,)",
    ),
    "a function in a config": (
        lambda: gradtx.to_config(gradtx.sgd(abs)),
        ConfigError,
        "sgd: learning_rate is the Python function <built-in function abs>; write it as "
        "a @gradtx.schedule to save it",
    ),
    "an unknown config": (
        lambda: gradtx.from_config({"adamx": {}}),
        ConfigError,
        "'adamx' is not a known factory; import the module that defines it first, under the "
        "name module:function",
    ),
    "an unknown argument in a config": (
        lambda: gradtx.from_config({"scale": {"factor": 1.0}}),
        ConfigError,
        "scale has no argument factor; it has step_size",
    ),
    "unknown mode": (
        lambda: gradtx.scale_by_lion(mode="soft"),  # pyright: ignore[reportArgumentType]
        GradtxError,
        "scale_by_lion: mode = 'soft' is unknown; choose one of 'hard', 'smooth', 'refined'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_message(case: str) -> None:
    call, kind, text = CASES[case]
    with pytest.raises(kind, match=re.escape(text)):
        call()


@pytest.mark.parametrize("case", CASES)
def test_message_is_one_sentence(case: str) -> None:
    with pytest.raises(GradtxError) as caught:
        CASES[case][0]()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 300


class Kept(NamedTuple):
    kept: jax.Array


def unannotated(param):
    return Kept(param)


def needs_decay(grad: Any, slots: Any, param: Any, step: Any, *, decay: Any) -> Any:
    return grad * decay, slots


def test_a_rule_that_asks_for_what_it_is_not_given() -> None:
    with pytest.raises(
        GradtxError,
        match=r"needs_decay asks for decay, which it is not given: pass decay=\.\.\. beside the "
        "functions of the rule",
    ):
        gradtx.leafwise(None, needs_decay)
    with pytest.raises(
        GradtxError,
        match="needs_decay: rate is given, but no function of the rule has a keyword-only "
        "argument of "
        "that name",
    ):
        gradtx.leafwise(None, needs_decay, decay=0.1, rate=0.1)
    state = gradtx.leafwise(unannotated, needs_decay, decay=0.1).init(PARAMS)
    assert isinstance(state.slots["needs_decay"], Kept)


def wants_extra(grad: Any, slots: Any, param: Any, step: Any, *, extra: Any) -> Any:
    return grad, slots


def test_a_leaf_rule_has_no_extra() -> None:
    with pytest.raises(GradtxError, match="wants_extra asks for extra, which it is not given"):
        gradtx.leafwise(None, wants_extra)


def test_an_error_leaves_the_state_as_it_was() -> None:
    state = ADAMW.init(PARAMS)
    before = jax.tree.map(jnp.copy, state)
    with pytest.raises(StructureError):
        ADAMW.update(without("head"), state, PARAMS)
    assert all(
        bool(jnp.array_equal(old, new))
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True)
    )
    assert int(ADAMW.update(PARAMS, state, PARAMS)[1].count) == 1


def fails(grad: Any, slots: Any, param: Any, step: Any) -> Any:
    return jnp.dot(grad, jnp.ones(7)), slots


def test_an_error_of_the_rule_itself_says_where() -> None:
    with pytest.raises(TypeError) as caught:
        update(gradtx.leafwise(None, fails))
    assert (
        "raised at 'dense/bias', a gradient f32[3], in the rules of fails" in caught.value.__notes__
    )


def test_arguments_that_do_not_fit_say_which_there_are() -> None:
    with pytest.raises(
        TypeError,
        match=r"sgd: missing a required argument: 'learning_rate'; its arguments are "
        r"learning_rate, momentum,",
    ):
        gradtx.sgd()  # pyright: ignore[reportCallIssue]
    with pytest.raises(
        TypeError,
        match=r"sgd has no hyperparameter or option 'lr'; did you mean 'learning_rate'\? Its "
        r"arguments are learning_rate, momentum,",
    ):
        gradtx.sgd(0.1, lr=0.1)  # pyright: ignore[reportCallIssue]
