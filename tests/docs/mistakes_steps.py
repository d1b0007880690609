"""Mistakes in a loop, and with its files: the act, the class of the error, and its text."""

# ruff: noqa: PLW0108  (a lambda puts off what is a mistake already when it is read)
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportFunctionMemberAccess=false, reportIndexIssue=false

import jax
import jax.numpy as jnp
from flax import nnx

import gradtx
from tests.support.mistakes import (
    ADAM,
    STEP,
    Cases,
    X,
    load_beside,
    load_text,
    loss,
    params,
    run,
    run_on,
    run_twice,
    save_earlier,
    saved_run,
    taken,
    update,
)

STEPS: Cases = {
    "the optimizer first": (
        lambda: gradtx.make_step(ADAM, loss),
        gradtx.GradtxError,
        "make_step: loss_fn is adam(learning_rate=0.001), which is not a function; the "
        "arguments are swapped: call make_step(loss_fn, tx)",
    ),
    "an optimizer that is not called in a step": (
        lambda: gradtx.make_step(loss, gradtx.adam),
        gradtx.GradtxError,
        "transformation: adam is a function that makes transformations: call it, adam(...)",
    ),
    "a loss of every example": (
        lambda: run(lambda p, x: (x @ p["w"])[:, 0]),
        gradtx.GradtxError,
        "make_step: the loss has shape (4,), and must be a scalar: take its mean over the batch",
    ),
    "a loss and more": (
        lambda: run(lambda p, x: (loss(p, x), x)),
        gradtx.GradtxError,
        "make_step: has_aux is False, and loss_fn returned 2 values: return the loss alone, "
        "or give has_aux=True for (loss, auxiliary output)",
    ),
    "has_aux without more": (
        lambda: run(loss, has_aux=True),
        gradtx.GradtxError,
        "make_step: has_aux is True, and loss_fn returned 1 value: return (loss, auxiliary output)",
    ),
    "a loss that is not returned": (
        lambda: run(lambda p, x: None),
        gradtx.GradtxError,
        "make_step: the loss is None, and must be one number: let loss_fn(params, *batch) "
        "return a scalar, and make_step takes its gradient",
    ),
    "a dict of losses": (
        lambda: run(lambda p, x: {"loss": loss(p, x)}),
        gradtx.GradtxError,
        "make_step: the loss is a dict with 'loss', and must be one number: let "
        "loss_fn(params, *batch) return a scalar, and make_step takes its gradient",
    ),
    "an integer loss": (
        lambda: run(lambda p, x: jnp.sum(x).astype(int)),
        gradtx.GradtxError,
        "make_step: the loss is i32[], and only a real number has a gradient: return floats, "
        "a count has no gradient",
    ),
    "a complex loss": (
        lambda: run(lambda p, x: loss(p, x) + 0j),
        gradtx.GradtxError,
        "make_step: the loss is c64[], and only a real number has a gradient: return its real part",
    ),
    "the gradient as the loss": (
        lambda: run(jax.grad(loss)),
        gradtx.GradtxError,
        "make_step: the loss is a dict with 'b', 'w', and must be one number: let "
        "loss_fn(params, *batch) return a scalar, and make_step takes its gradient",
    ),
    "a loss as a float": (
        lambda: run(lambda p, x: float(loss(p, x))),
        jax.errors.ConcretizationTypeError,
        "make_step: loss_fn is traced, and its arrays have no numbers yet: return the loss as"
        " an array, without float() or .item(), and choose with jnp.where or jax.lax.cond in "
        "the place of if",
    ),
    "an if in the loss": (
        lambda: run(lambda p, x: loss(p, x) if p["b"][0] > 0 else 0.0),
        jax.errors.TracerBoolConversionError,
        "make_step: loss_fn is traced, and its arrays have no numbers yet: return the loss as"
        " an array, without float() or .item(), and choose with jnp.where or jax.lax.cond in "
        "the place of if",
    ),
    "the state before the parameters": (
        lambda: STEP(ADAM.init(params()), params(), X),
        gradtx.GradtxError,
        "make_step: the step received a State in the place of the parameters: call "
        "step(params, state, *batch), and take its results in the same order, params, state, "
        "value = step(...)",
    ),
    "the batch before the parameters": (
        lambda: STEP(X, params(), ADAM.init(params())),
        gradtx.GradtxError,
        "make_step: the step received a State in the place of a batch: call step(params, "
        "state, *batch), with the state behind the parameters",
    ),
    "results in another order": (
        lambda: STEP(ADAM.init(params()), jnp.ones(()), X),
        gradtx.GradtxError,
        "make_step: the step received a State in the place of the parameters: call "
        "step(params, state, *batch), and take its results in the same order, params, state, "
        "value = step(...)",
    ),
    "no state in a step": (
        lambda: STEP(params(), X),
        gradtx.GradtxError,
        "make_step: the step calls loss_fn(params, *batch) with a batch of 0, and loss(p, x) "
        "does not take them (missing a required argument: 'x'): call step(params, state, "
        "*batch) with all that loss_fn takes behind params",
    ),
    "no batch": (
        lambda: STEP(params(), ADAM.init(params())),
        gradtx.GradtxError,
        "make_step: the step calls loss_fn(params, *batch) with a batch of 0, and loss(p, x) "
        "does not take them (missing a required argument: 'x'): call step(params, state, "
        "*batch) with all that loss_fn takes behind params",
    ),
    "a batch by name": (
        lambda: STEP(params(), ADAM.init(params()), x=X),
        gradtx.GradtxError,
        "make_step: the step received x by name, and takes its batch by position: call "
        "step(params, state, x)",
    ),
    "a text in the batch": (
        lambda: STEP(params(), ADAM.init(params()), {"x": X, "name": "train"}),
        gradtx.GradtxError,
        "make_step: the leaf at '0/name' of the batch is 'train', and a compiled step takes "
        "arrays and numbers: leave it out, or close over it",
    ),
    "a cell that is run twice": (
        lambda: run_twice(),
        gradtx.StateError,
        "make_step: the array at 'b' of the parameters is deleted: an earlier step received "
        "it, and wrote its results into that memory; go on with the parameters and the state "
        "that it returned, keep a copy with jax.tree.map(jnp.copy, params), or build the step"
        " with donate=False",
    ),
    "integer parameters": (
        lambda: run_on({"w": jnp.arange(3)}, lambda p: jnp.sum(p["w"] * 1.0)),
        gradtx.StructureError,
        "make_step: no parameter is an array of floats, 'w' is i32[3], so that nothing would "
        "be trained: cast with jnp.asarray(..., jnp.float32)",
    ),
    "a set among the parameters": (
        lambda: run_on({"w": jnp.ones(3), "names": {1, 2}}, lambda p: jnp.sum(p["w"])),
        gradtx.StructureError,
        "the leaf at 'names' of the parameters is a set, neither an array nor a constant that"
        " can be hashed: take it out of the parameters",
    ),
    "a mean that nnx changes": (
        lambda: run_on(nnx.BatchNorm(2, rngs=nnx.Rngs(0)), lambda p: jnp.sum(p(X))),
        gradtx.StructureError,
        "make_step: the module has a BatchStat at 'mean', which a call changes in place, and "
        "the step would lose the change: write graphdef, params, rest = nnx.split(model, "
        "nnx.Param, ...), pass params and rest, call nnx.merge(graphdef, params, rest, "
        "copy=True) in loss_fn, and return nnx.state(model, nnx.Not(nnx.Param)) as its "
        "auxiliary output, has_aux=True",
    ),
    "microbatches that do not divide": (
        lambda: run(loss, microbatches=3),
        gradtx.GradtxError,
        "make_step: microbatches = 3 does not divide the first axis of the batch at '0', (4, "
        "3): take a divisor of 4",
    ),
    "microbatches of nothing": (
        lambda: gradtx.make_step(loss, ADAM, microbatches=0),
        gradtx.GradtxError,
        "make_step: microbatches = 0 is not a number of parts; give a whole number from 1 on",
    ),
    "load a folder that is missing": (
        lambda: gradtx.load("runs/a", params()),
        FileNotFoundError,
        "load: there is no file or folder 'runs/a': the folder 'runs' does not exist; a first"
        " run starts without load, if gradtx.latest_step(...) is None",
    ),
    "load a name that is misspelt": (
        lambda: load_beside("run.npz", "rum.npz"),
        FileNotFoundError,
        "load: there is no file or folder 'rum.npz': the folder '.' has 'run.npz'; a first "
        "run starts without load, if gradtx.latest_step(...) is None",
    ),
    "load an empty folder": (
        lambda: load_beside("run.txt", "."),
        FileNotFoundError,
        "load: the folder '.' has no checkpoint: save(path, tree, step=...) writes them, as "
        "step_1000.npz",
    ),
    "load a step that is gone": (
        lambda: saved_run(step=5),
        FileNotFoundError,
        "load: 'run' has no step 5; its steps are 30, 40",
    ),
    "load a file of another library": (
        lambda: load_text("state.pkl"),
        gradtx.StateError,
        "'state.pkl' is not a complete checkpoint of gradtx.save: it is not a complete zip archive;"
        " load an earlier one",
    ),
    "a learning rate finder with arguments in another order": (
        lambda: gradtx.find_learning_rate(loss, ADAM, params(), jnp.ones((100, 4, 3))),
        gradtx.GradtxError,
        "find_learning_rate: tx is a tree of arrays, which has no init and update: pass a gradient "
        "transformation; the arguments are, in order, loss_fn, params, tx, batches",
    ),
    "gradients of a batch for differential privacy": (
        lambda: update(gradtx.dpsgd(1.0, 1.0, 1.0), {"b": jnp.ones(()), "w": jnp.ones(())}),
        gradtx.StructureError,
        "differentially_private_aggregate needs gradients per example, with one batch axis in "
        "front of every array (jax.vmap(jax.grad(loss), in_axes=(None, 0))): 'b' is f32[]",
    ),
    "load into other parameters": (
        lambda: load_beside("run.npz", "run.npz"),
        gradtx.StateError,
        "the checkpoint does not fit: there is no 'b'. Make `like` with the definition and "
        "the parameters that were saved, or restore what still fits with missing='init'",
    ),
    "save the other way round": (
        lambda: gradtx.save(params(), "run.npz"),
        gradtx.StructureError,
        "save: the tree is the path 'run.npz': the arguments are swapped, write save(path, tree)",
    ),
    "save into a folder that is missing": (
        lambda: gradtx.save("missing/run.npz", params()),
        FileNotFoundError,
        "save could not write 'missing/run.npz': No such file or directory; nothing is "
        "written: save where the folder 'missing' exists, is writable and has room",
    ),
    "save into a folder without a step": (
        lambda: gradtx.save(".", params()),
        IsADirectoryError,
        "save could not write '.': Is a directory; nothing is written: give step= to save "
        "into this folder, or the name of a file in it",
    ),
    "save an earlier step": (
        lambda: save_earlier(),
        gradtx.StateError,
        "save: 'run' has step 100, which is later than step 1: load it and go on, delete what"
        " is later, or save into another folder",
    ),
    "save what a step took": (
        lambda: gradtx.save("run.npz", taken()[0]),
        gradtx.StructureError,
        "the array at 'b' cannot be read: Array has been deleted with shape=float32[2]; save "
        "an array before it is donated, and one that is spread over hosts with Orbax",
    ),
    "a config without its call": (
        lambda: gradtx.from_config({"name": "adam", "lr": 1e-3}),
        gradtx.ConfigError,
        "config = {'name': 'adam', 'lr': 0.001} is not one call: write {name: arguments}, as "
        "to_config returns it",
    ),
}
