"""Mistakes in a definition: the act, the class of the error, and its text."""

# ruff: noqa: PLW0108  (a lambda puts off what is a mistake already when it is read)
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportFunctionMemberAccess=false, reportIndexIssue=false

import re

import jax
import jax.numpy as jnp

import gradtx
from tests.support.mistakes import ADAM, RATE, Cases, jitted, params, update

DEFINITIONS: Cases = {
    "a class of torch": (
        lambda: gradtx.Adam(1e-3),
        AttributeError,
        "gradtx has no 'Adam'; did you mean 'adam'?",
    ),
    "parameters beside lr": (
        lambda: gradtx.adamw(params(), lr=1e-3),
        TypeError,
        "adamw has no hyperparameter or option 'lr'; did you mean 'learning_rate'? Its "
        "arguments are learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, "
        "nesterov, momentum, axis_names, decay_form, peak_learning_rate, huber_delta, cautious",
    ),
    "lr": (
        lambda: gradtx.adamw(lr=1e-3),
        TypeError,
        "adamw has no hyperparameter or option 'lr'; did you mean 'learning_rate'? Its "
        "arguments are learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, "
        "nesterov, momentum, axis_names, decay_form, peak_learning_rate, huber_delta, cautious",
    ),
    "betas": (
        lambda: gradtx.adam(1e-3, betas=(0.9, 0.99)),
        TypeError,
        "adam has no hyperparameter or option 'betas'; did you mean 'b1' and 'b2'? Its "
        "arguments are learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov, momentum, "
        "axis_names, decay_form, peak_learning_rate, huber_delta, cautious, weight_decay, mask",
    ),
    "every_k_schedule of MultiSteps": (
        lambda: gradtx.accumulate(ADAM, every_k_schedule=4),
        TypeError,
        "accumulate has no hyperparameter or option 'every_k_schedule'; did you mean 'every'? Its "
        "arguments are inner, every, use_grad_mean, should_skip_update_fn, accumulator_dtype",
    ),
    "k micro-batches": (
        lambda: gradtx.accumulate(ADAM, k=4),
        TypeError,
        "accumulate has no hyperparameter or option 'k'; did you mean 'every'? Its "
        "arguments are inner, every, use_grad_mean, should_skip_update_fn, accumulator_dtype",
    ),
    "a short name of a format": (
        lambda: gradtx.master_weights(ADAM, "fp32"),
        gradtx.HyperparamError,
        "master_weights: format = 'fp32' is unknown; did you mean 'float32'? Choose one of "
        "'float32', 'low16', 'bf16+8'",
    ),
    "a short name near a format": (
        lambda: gradtx.master_weights(ADAM, "bf16"),
        gradtx.HyperparamError,
        "master_weights: format = 'bf16' is unknown; did you mean 'bf16+8'? Choose one of "
        "'float32', 'low16', 'bf16+8'",
    ),
    "betas in the place of b1": (
        lambda: gradtx.adamw(0.1, (0.9, 0.99)),
        gradtx.HyperparamError,
        "adamw: b1 = (0.9, 0.99) is a tuple: write b1=0.9, b2=0.99",
    ),
    "momentum as a list": (
        lambda: gradtx.sgd(0.1, momentum=[0.9]),
        gradtx.HyperparamError,
        "sgd: momentum = [0.9] is a list, and must be one number: write 0.9",
    ),
    "a rate from YAML": (
        lambda: gradtx.adam("1e-3"),
        gradtx.HyperparamError,
        "adam: learning_rate = '1e-3' is neither a number, an array nor a schedule: write "
        "float('1e-3'); YAML reads 1e-3 as a text, and 1.0e-3 as a number",
    ),
    "an epsilon from YAML": (
        lambda: gradtx.adam(1e-3, eps="1e-8"),
        gradtx.HyperparamError,
        "adam: eps = '1e-8' is neither a number, an array nor a schedule: write "
        "float('1e-8'); YAML reads 1e-3 as a text, and 1.0e-3 as a number",
    ),
    "weight_decay=None": (
        lambda: gradtx.adamw(1e-3, weight_decay=None),
        gradtx.HyperparamError,
        "adamw: weight_decay = None is neither a number, an array nor a schedule; to leave it"
        " out write 0.0, or drop the argument",
    ),
    "moments in int8": (
        lambda: gradtx.adam(1e-3, mu_dtype="int8"),
        gradtx.HyperparamError,
        "adam: mu_dtype = 'int8' is not a float of at least 16 bits; choose one of 'bfloat16', "
        "'float16', 'float32', 'float64', or for a smaller state write gradtx.stored(tx, "
        "'int8')",
    ),
    "moments as bools": (
        lambda: gradtx.adam(1e-3, mu_dtype="bool"),
        gradtx.HyperparamError,
        "adam: mu_dtype = 'bool' is not a float of at least 16 bits; choose one of 'bfloat16', "
        "'float16', 'float32', 'float64', or for a smaller state write gradtx.stored(tx, "
        "'int8')",
    ),
    "a misspelt dtype": (
        lambda: gradtx.adam(1e-3, mu_dtype="bf16"),
        gradtx.HyperparamError,
        "adam: mu_dtype = 'bf16' is not a dtype; did you mean 'bfloat16'?",
    ),
    "two rates in an array": (
        lambda: gradtx.adam(jnp.array([1e-3, 1e-2])),
        gradtx.HyperparamError,
        "adam: learning_rate = f32[2] is an array of shape (2,), and must be one number; for "
        "a batch of definitions take gradtx.replace and gradtx.vmap_axes",
    ),
    "an infinite rate": (
        lambda: gradtx.sgd(float("inf")),
        gradtx.HyperparamError,
        "sgd: learning_rate = inf is outside its range (-inf, inf); give a finite number",
    ),
    "an average that never moves": (
        lambda: gradtx.adam(1e-3, b1=1.0),
        gradtx.HyperparamError,
        "adam: b1 = 1.0 is outside its range [0, 1); at 1 an average would never move: give a"
        " number below 1",
    ),
    "a decay in the place of nesterov": (
        lambda: gradtx.sgd(0.1, 0.9, 1e-4),
        gradtx.HyperparamError,
        "sgd: nesterov = 0.0001 must be True or False; its arguments are, in order, "
        "learning_rate, momentum, nesterov, accumulator_dtype",
    ),
    "the parameters first": (
        lambda: gradtx.adam(params(), 1e-3),
        gradtx.HyperparamError,
        "adam: learning_rate is a tree of arrays, as parameters are, and must be one number: "
        "a definition takes no parameters, tx.init(params) does",
    ),
    "a list of members": (
        lambda: gradtx.chain([gradtx.clip(1.0), gradtx.adam(1e-3)]),
        gradtx.GradtxError,
        "chain: members is a list, and must be one transformation: write chain(*members)",
    ),
    "a member that is not called": (
        lambda: gradtx.chain(gradtx.clip_by_global_norm, gradtx.adam(1e-3)),
        gradtx.GradtxError,
        "chain: members: clip_by_global_norm is a function that makes transformations: call "
        "it, clip_by_global_norm(...)",
    ),
    "a number as a member": (
        lambda: gradtx.chain(1.0, gradtx.adam(1e-3)),
        gradtx.GradtxError,
        "chain: members is 1.0, which has no init and update: pass a gradient transformation",
    ),
    "a schedule that is not called": (
        lambda: gradtx.adam(gradtx.cosine_decay_schedule),
        gradtx.HyperparamError,
        "adam: learning_rate: cosine_decay_schedule is a function that makes schedules: call "
        "it, cosine_decay_schedule(...)",
    ),
    "an optimizer that is not called": (
        lambda: gradtx.guard(gradtx.adam),
        gradtx.GradtxError,
        "guard: inner: adam is a function that makes transformations: call it, adam(...)",
    ),
    "accumulate the other way round": (
        lambda: gradtx.accumulate(4, gradtx.adam(1e-3)),
        gradtx.GradtxError,
        "accumulate: inner is 4, which has no init and update: pass a gradient transformation",
    ),
    "half a micro-step": (
        lambda: gradtx.accumulate(gradtx.adam(1e-3), 2.5),
        gradtx.HyperparamError,
        "accumulate: every = 2.5 is not a number of micro-steps; give a whole number",
    ),
    "a codec that does not exist": (
        lambda: gradtx.stored(gradtx.adam(1e-3), "int9"),
        gradtx.GradtxError,
        "stored: default = 'int9' is not a codec; the codecs are 'int8', 'int4', 'dynamic8', "
        "'bf16', 'f16', 'packed16', 'bf16+8', and 'float32' for none",
    ),
    "stored the other way round": (
        lambda: gradtx.stored("int8", gradtx.adam(1e-3)),
        gradtx.GradtxError,
        "stored: inner is 'int8', which has no init and update: pass a gradient transformation",
    ),
    "groups without names": (
        lambda: gradtx.partition([gradtx.adam(1e-3)], [(".*", "a")]),
        gradtx.SelectionError,
        "partition: transforms must name each group: write {'decayed': adamw(...), 'frozen': "
        "set_to_zero()}",
    ),
    "a rule that forgets leaves": (
        lambda: gradtx.partition({"a": ADAM}, [("w", "a")]).init(params()),
        gradtx.SelectionError,
        "partition: no rule claims 'b'; rules are tried in order and the first match wins, so"
        " end with ('.*', group)",
    ),
    "a group that does not exist": (
        lambda: gradtx.partition({"a": ADAM}, [("w", "a"), (".*", "b")]).init(params()),
        gradtx.SelectionError,
        "partition: 'b' is labelled 'b', which is not one of the groups 'a'",
    ),
    "a number as labels": (
        lambda: gradtx.partition({"a": ADAM}, 3).init(params()),
        gradtx.SelectionError,
        "partition: 'b' is labelled 3, which is not one of the groups 'a'",
    ),
    "a frozen part that does not exist": (
        lambda: gradtx.chain(ADAM, gradtx.freeze("encoder")).init(params()),
        gradtx.SelectionError,
        "freeze: 'encoder' matches none of the 2 leaves; the paths are 'b', 'w'",
    ),
    "a folder with a number, frozen without it": (
        lambda: gradtx.freeze("^encoder/").init({"encoder_0": params(), "head": params()}),
        gradtx.SelectionError,
        "freeze: '^encoder/' matches none of the 4 leaves; nearest: 'encoder_0/b', 'encoder_0/w'",
    ),
    "QK-clip without attention": (
        lambda: gradtx.muon_clip(1e-3).init(params()),
        gradtx.SelectionError,
        "qk_clip: '(query|key|q_proj|k_proj|wq|wk)(/kernel)?$' matches none of the 2 leaves; name "
        "the query and key kernels in where=, or use muon, which has no QK-clip",
    ),
    "norms of groups that do not exist": (
        lambda: gradtx.with_metrics(ADAM, [("bais", "biases"), (".*", "rest")]).init(params()),
        gradtx.SelectionError,
        "with_metrics: rule 1, ('bais', 'biases'), matches none of the 2 leaves; nearest: 'b'",
    ),
    "several patterns in a list": (
        lambda: gradtx.freeze(["w", "c"]).init(params()),
        gradtx.SelectionError,
        "freeze: the tree ['w', 'c'] does not fit the parameters: they have nothing at '0'; give "
        "one regular expression, 'w|c'",
    ),
    "a compiled pattern": (
        lambda: gradtx.freeze(re.compile("w")).init(params()),
        gradtx.SelectionError,
        "freeze: the answer at 'b' is re.compile('w'), which is not a bool; give the text of the "
        "compiled pattern, 'w'",
    ),
    "rules of compiled patterns": (
        lambda: gradtx.partition({"a": ADAM}, [(re.compile("w"), "a")]).init(params()),
        gradtx.SelectionError,
        "partition: the tree [(re.compile('w'), 'a')] does not fit the parameters: they have "
        "nothing at '0/0'; give the texts of compiled patterns, 'w'",
    ),
    "rules as a dict": (
        lambda: gradtx.partition({"a": ADAM}, {"w$": "a"}).init(params()),
        gradtx.SelectionError,
        "partition: the tree {'w$': 'a'} does not fit the parameters: they have nothing at 'w$'; "
        "give an answer for every leaf, or for a branch above it; patterns are a list of pairs, "
        "[('w$', 'a')]",
    ),
    "a mask that lacks a leaf": (
        lambda: gradtx.masked(ADAM, {"w": True}).init(params()),
        gradtx.SelectionError,
        "masked(adam): the tree {'w': True} does not fit the parameters: it says nothing of "
        "'b'; give an answer for every leaf, or for a branch above it",
    ),
    "a mask with another leaf": (
        lambda: gradtx.masked(ADAM, {"w": True, "b": True, "c": False}).init(params()),
        gradtx.SelectionError,
        "masked(adam): the tree {'w': True, 'b': True, 'c': False} does not fit the "
        "parameters: they have nothing at 'c'; give an answer for every leaf, or for a branch"
        " above it",
    ),
    "a mask of None": (
        lambda: gradtx.masked(ADAM, None),
        gradtx.HyperparamError,
        "masked: mask is None, and must be given",
    ),
    "a schedule without steps": (
        lambda: gradtx.cosine_decay_schedule(1.0, 0),
        gradtx.HyperparamError,
        "cosine_decay_schedule: decay_steps = 0 is outside its range (0, inf]",
    ),
    "a warmup that is longer than all": (
        lambda: gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 1000, 100),
        gradtx.HyperparamError,
        "warmup_cosine_decay_schedule: warmup_steps = 1000 leave nothing of decay_steps = "
        "100, which counts the warmup too; give decay_steps > warmup_steps",
    ),
    "a schedule of a text": (
        lambda: gradtx.cosine_decay_schedule("1e-3", 100),
        gradtx.HyperparamError,
        "cosine_decay_schedule: init_value = '1e-3' is neither a number, an array nor a "
        "schedule: write float('1e-3'); YAML reads 1e-3 as a text, and 1.0e-3 as a number",
    ),
    "a schedule that returns nothing": (
        lambda: update(gradtx.sgd(lambda count: None)),
        gradtx.HyperparamError,
        "the schedule <lambda> returned None, and must return a number",
    ),
    "an if in a schedule": (
        lambda: jitted(gradtx.sgd(lambda count: 0.1 if count < 10 else 0.01)),
        jax.errors.TracerBoolConversionError,
        "a schedule receives the count as a traced array: compute with jax.numpy, and choose "
        "with jnp.where(count < 100, 0.1, 0.01) in the place of if",
    ),
    "replace by lr": (
        lambda: gradtx.replace(ADAM, lr=1e-2),
        gradtx.HyperparamError,
        "adam has no hyperparameter 'lr'; did you mean 'learning_rate'? It has learning_rate,"
        " b1, b2, eps, eps_root",
    ),
    "tunable by lr": (
        lambda: gradtx.tunable(ADAM, "lr"),
        gradtx.HyperparamError,
        "adam has no hyperparameter 'lr'; did you mean 'learning_rate'? It has learning_rate,"
        " b1, b2, eps, eps_root",
    ),
    "read an attribute": (
        lambda: ADAM.learning_rate,
        AttributeError,
        "adam(...) has no attribute 'learning_rate'; read "
        'gradtx.hyperparams(tx)["learning_rate"]',
    ),
    "write an attribute": (
        lambda: setattr(ADAM, "learning_rate", 1e-2),
        AttributeError,
        "adam(...) is immutable; use gradtx.replace(definition, learning_rate=...)",
    ),
    "StepLR": (
        lambda: gradtx.StepLR(ADAM, 10),
        AttributeError,
        "gradtx has no 'StepLR'; did you mean 'exponential_decay'?",
    ),
    "CosineAnnealingLR": (
        lambda: gradtx.CosineAnnealingLR(ADAM, T_max=100),
        AttributeError,
        "gradtx has no 'CosineAnnealingLR'; did you mean 'cosine_decay_schedule'?",
    ),
    "GradScaler": (
        lambda: gradtx.GradScaler(),
        AttributeError,
        "gradtx has no 'GradScaler'; did you mean 'dynamic_loss_scale'?",
    ),
    "clip_grad_norm_": (
        lambda: gradtx.clip_grad_norm_(params(), 1.0),
        AttributeError,
        "gradtx has no 'clip_grad_norm_'; did you mean 'clip_by_global_norm'?",
    ),
    "torch.optim": (
        lambda: gradtx.optim,
        AttributeError,
        "gradtx has no 'optim'; did you mean 'adamw' and 'sgd'?",
    ),
    "step": (
        lambda: ADAM.step(),
        AttributeError,
        "adam(...) has no attribute 'step': call updates, state = tx.update(grads, state, "
        "params), or build a step with gradtx.make_step(loss_fn, tx)",
    ),
    "zero_grad": (
        lambda: ADAM.zero_grad(),
        AttributeError,
        "adam(...) has no attribute 'zero_grad': gradients are values that jax.grad returns, "
        "and nothing adds them up",
    ),
    "param_groups": (
        lambda: ADAM.param_groups[0]["lr"],
        AttributeError,
        "adam(...) has no attribute 'param_groups': give each group its transformation with "
        "gradtx.partition({name: tx}, rules)",
    ),
    "state_dict": (
        lambda: ADAM.state_dict(),
        AttributeError,
        "adam(...) has no attribute 'state_dict': save the state that update returned, "
        "gradtx.save(path, state)",
    ),
    "lr of an optimizer": (
        lambda: ADAM.lr,
        AttributeError,
        "adam(...) has no attribute 'lr': read gradtx.hyperparams(tx)[\"learning_rate\"]",
    ),
    "a scheduler's step": (
        lambda: RATE.step(),
        AttributeError,
        "linear_schedule(...) has no attribute 'step': a schedule has no state, the count of "
        "the optimizer's state drives it",
    ),
    "get_last_lr": (
        lambda: RATE.get_last_lr(),
        AttributeError,
        "linear_schedule(...) has no attribute 'get_last_lr': call schedule(state.count), or "
        "read gradtx.hyperparams(tx, state)",
    ),
}
