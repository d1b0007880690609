"""Mistakes with a state: the act, the class of the error, and its text."""

# ruff: noqa: PLW0108  (a lambda puts off what is a mistake already when it is read)
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportFunctionMemberAccess=false, reportIndexIssue=false

import flax.linen as nn
import jax.numpy as jnp

import gradtx
from tests.support.mistakes import (
    ADAM,
    ADAMW,
    RATE,
    SGD,
    TUNABLE,
    Cases,
    add_one,
    hold,
    other_shapes,
    params,
    taken_state,
    update,
    without,
)

STATES: Cases = {
    "the state first": (
        lambda: ADAM.update(ADAM.init(params()), params(), params()),
        gradtx.StateError,
        "the state of adam is a dict, not a gradtx.State: the arguments are swapped, call "
        "tx.update(grads, state, params)",
    ),
    "weight decay without parameters": (
        lambda: ADAMW.update(params(), ADAMW.init(params())),
        gradtx.MissingParamsError,
        "add_decayed_weights needs the parameters: call update(grads, state, params) with the"
        " parameters that the gradients belong to",
    ),
    "the state of another optimizer": (
        lambda: ADAM.update(params(), SGD.init(params()), params()),
        gradtx.StateError,
        "the state holds slots for 'trace', which is not a member of this definition; its "
        "members with slots are 'scale_by_adam': make it with tx.init(params)",
    ),
    "the state of other parameters": (
        lambda: ADAM.update(params(), ADAM.init({"w": jnp.ones((3, 2))}), params()),
        gradtx.StateError,
        "slot 'mu' of member scale_by_adam was made for other parameters: 'b' is only in the "
        "gradients; call tx.init(params) with the parameters as they are now",
    ),
    "the state of other shapes": (
        lambda: ADAM.update(params(), ADAM.init(other_shapes()), params()),
        gradtx.StateError,
        "slot 'mu' of member scale_by_adam at 'w' is f32[2,3], for a gradient f32[3,2]: this "
        "state was made for other parameters, call tx.init(params) again",
    ),
    "no state": (
        lambda: ADAM.update(params(), None, params()),
        gradtx.StateError,
        "the state of adam is None, not a gradtx.State: make it with tx.init(params)",
    ),
    "no gradients": (
        lambda: ADAM.update(None, ADAM.init(params()), params()),
        gradtx.StructureError,
        "the gradients of adam are None: pass a tree like the parameters; an empty tree is {}",
    ),
    "the pair as the state": (
        lambda: ADAM.update(params(), update(ADAM), params()),
        gradtx.StateError,
        "the state of adam is a tuple, not a gradtx.State: update returns a pair, write "
        "updates, state = tx.update(grads, state, params)",
    ),
    "the pair as the updates": (
        lambda: gradtx.apply_updates(params(), update(ADAM)),
        gradtx.StructureError,
        "apply_updates: the updates are the pair that tx.update returned: write updates, "
        "state = tx.update(grads, state, params)",
    ),
    "value and gradient": (
        lambda: ADAM.update((1.0, params()), ADAM.init(params()), params()),
        gradtx.StructureError,
        "the gradients and the parameters differ in structure: '0' is only in the gradients, "
        "'b' is only in the parameters; the gradients are a pair, write value, grads = "
        "jax.value_and_grad(loss)(params)",
    ),
    "a gradient that is missing": (
        lambda: ADAM.update({"w": jnp.ones((3, 2))}, ADAM.init(params()), params()),
        gradtx.StructureError,
        "the gradients and the parameters differ in structure: 'b' is only in the parameters:"
        " take the gradients of these parameters",
    ),
    "a gradient of another shape": (
        lambda: ADAM.update(other_shapes(), ADAM.init(params()), params()),
        gradtx.StructureError,
        "gradient at 'w' has shape (2, 3), its parameter (3, 2): pass the parameters that the"
        " gradients were taken with respect to",
    ),
    "updates of another shape": (
        lambda: gradtx.apply_updates(params(), other_shapes()),
        gradtx.StructureError,
        "update at 'w' has shape (2, 3), its parameter (3, 2): pass the updates of these "
        "parameters",
    ),
    "init of a state": (
        lambda: ADAM.init(ADAM.init(params())),
        gradtx.StructureError,
        "adam: init received a State in the place of the parameters: call tx.init(params)",
    ),
    "init of a module of flax": (
        lambda: ADAM.init(nn.Dense(2)),
        gradtx.StructureError,
        "adam: init found no array of floats in the parameters, the tree itself is of class "
        "Dense: pass a tree of arrays, for a module the parameters that its init returned",
    ),
    "init of texts": (
        lambda: ADAM.init({"w": "a text"}),
        gradtx.StructureError,
        "adam: init found no array of floats in the parameters, the leaf at 'w' is of class "
        "str: pass a tree of arrays, for a module the parameters that its init returned",
    ),
    "init of an object": (
        lambda: ADAM.init(object()),
        gradtx.StructureError,
        "adam: init found no array of floats in the parameters, the tree itself is of class "
        "object: pass a tree of arrays, for a module the parameters that its init returned",
    ),
    "count up by hand": (
        lambda: add_one(ADAM.init(params())),
        AttributeError,
        "a State is not changed in place: write state = state._replace(count=...), and put "
        "hyperparameters that a loop sets into tunable(...)",
    ),
    "write a slot": (
        lambda: setattr(ADAM.init(params()), "mu", 0),
        AttributeError,
        "a State is not changed in place: write state = state._replace(mu=...), and put "
        "hyperparameters that a loop sets into tunable(...)",
    ),
    "read a slot by its name alone": (
        lambda: ADAM.init(params())["mu"],
        gradtx.StateError,
        "the state has nothing at 'mu'; it holds 'scale_by_adam'; read state.mu, or "
        "state['scale_by_adam/mu']",
    ),
    "write a slot by its name alone": (
        lambda: ADAM.init(params()).__setitem__("mu", 0),
        TypeError,
        "a State is not changed in place: write state = state._replace(mu=...), and put "
        "hyperparameters that a loop sets into tunable(...)",
    ),
    "a misspelt slot": (
        lambda: ADAM.init(params()).exp_avg_squares,
        AttributeError,
        "this state has no slot 'exp_avg_squares'; it has count, mu, nu; hyperparameters are "
        "in gradtx.hyperparams(tx, state)",
    ),
    "the rate in the state": (
        lambda: ADAM.init(params()).learning_rate,
        AttributeError,
        "this state has no slot 'learning_rate'; it has count, mu, nu; hyperparameters are in"
        " gradtx.hyperparams(tx, state)",
    ),
    "hyperparams of a plain optimizer": (
        lambda: ADAM.init(params()).hyperparams,
        AttributeError,
        "this state holds no hyperparams: wrap the definition in tunable(...), or read "
        "gradtx.hyperparams(tx, state)",
    ),
    "hyperparams by lr": (
        lambda: hold("lr", 0.1),
        gradtx.HyperparamError,
        "state.hyperparams has no 'lr'; did you mean 'learning_rate'? It has learning_rate; "
        "an entry of your own takes another name",
    ),
    "hyperparams by a text": (
        lambda: hold("learning_rate", "0.1"),
        gradtx.HyperparamError,
        "state.hyperparams['learning_rate'] = '0.1' is neither a number nor an array: write "
        "float('0.1')",
    ),
    "hyperparams of None": (
        lambda: hold("learning_rate", None),
        gradtx.HyperparamError,
        "state.hyperparams['learning_rate'] = None is neither a number nor an array: write a "
        "number",
    ),
    "a schedule in hyperparams": (
        lambda: hold("learning_rate", RATE),
        gradtx.HyperparamError,
        "state.hyperparams['learning_rate'] = linear_schedule(init_value=1.0, end_value=0.0, "
        "transition_steps=10) is neither a number nor an array: a schedule belongs into the "
        "definition, gradtx.replace(tx, learning_rate=schedule)",
    ),
    "two numbers in hyperparams": (
        lambda: hold("learning_rate", jnp.ones(2)),
        gradtx.HyperparamError,
        "state.hyperparams['learning_rate'] has shape (2,), and the definition (): write one "
        "number; for a batch of them map a batch of states with jax.vmap",
    ),
    "a number that is not tunable": (
        lambda: hold("b1", 0.8),
        gradtx.HyperparamError,
        "state.hyperparams has 'b1', which the state does not hold for adam: write "
        "tunable(tx, 'learning_rate', 'b1')",
    ),
    "hyperparams by another dict": (
        lambda: TUNABLE.init(params())._replace(hyperparams={"lr": 0.1}),
        gradtx.HyperparamError,
        "state.hyperparams has no 'lr'; did you mean 'learning_rate'? It has learning_rate; "
        "an entry of your own takes another name",
    ),
    "an entry that is gone": (
        lambda: without("learning_rate"),
        gradtx.HyperparamError,
        "state.hyperparams lacks learning_rate, and holds nothing: write it back, or call "
        "tx.init(params) again",
    ),
    "L-BFGS without the loss": (
        lambda: update(gradtx.lbfgs()),
        gradtx.MissingExtraError,
        "scale_by_zoom_linesearch needs value, grad, value_fn: call update(grads, state, "
        "params, value=..., grad=..., value_fn=...); make_step passes what it can",
    ),
    "Polyak without the loss": (
        lambda: update(gradtx.polyak_sgd()),
        gradtx.MissingExtraError,
        "scale_by_polyak needs value: call update(grads, state, params, value=...); make_step"
        " passes what it can",
    ),
    "a state that a step took": (
        lambda: taken_state(),
        gradtx.StateError,
        "adam: the array at 'count' of the state is deleted: an earlier step received it, and"
        " wrote its results into that memory; go on with the parameters and the state that it"
        " returned, keep a copy with jax.tree.map(jnp.copy, params), or build the step with "
        "donate=False",
    ),
    "hyperparams of a state": (
        lambda: gradtx.hyperparams(ADAM.init(params())),
        gradtx.GradtxError,
        "hyperparams: tx is a State: pass the transformation that it belongs to",
    ),
}
