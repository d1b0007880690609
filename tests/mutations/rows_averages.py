"""More places for tests/mutations to break: averages of the parameters, their read-out, and
hyperparameters in wrappers.
"""

from tests.mutations.row import ORACLES, Mutation

AVERAGES = [
    Mutation(
        "params_average: a horizon of all",
        "wrappers/params_average.py",
        "1 / jnp.minimum(jnp.maximum(n, 1).astype(step.dtype), horizon)",
        "1 / jnp.maximum(n, 1).astype(step.dtype)",
        "tests/unit/training/test_eval_params.py -k reference",
    ),
    Mutation(
        "params_average: an update late",
        "wrappers/params_average.py",
        "begun = step >= start",
        "begun = step > start",
        "tests/unit/training/test_eval_params.py -k reference",
    ),
    Mutation(
        "params_average: every step counts",
        "wrappers/params_average.py",
        "due = begun & (jnp.where(begun, step - start, 0.0) % every == 0)",
        "due = begun",
        "tests/unit/training/test_eval_params.py -k reference",
    ),
    Mutation(
        "ema_nesterov: m of the base's own way",
        "wrappers/ema_nesterov.py",
        "decay + (1 - decay) * tree_slots.b",
        "decay",
        ORACLES.format("nesterov"),
    ),
    Mutation(
        "ema_nesterov: beta of the step before",
        "wrappers/ema_nesterov.py",
        "shift_schedule(beta, 1)",
        "shift_schedule(beta, 0)",
        ORACLES.format("nesterov"),
    ),
    Mutation(
        "ema_nesterov: read out ahead",
        "wrappers/ema_nesterov.py",
        "param - b * slots.m",
        "param",
        "tests/unit/training/test_eval_params.py -k reference",
    ),
    Mutation(
        "eval_params: members see the result of earlier ones",
        "compose/transformation.py",
        "bound.rule.evaluate(bound, own, leaves, count)",
        "bound.rule.evaluate(bound, own, leaves_of(result), count)",
        "tests/unit/training/test_eval_params.py -k last_one",
    ),
    Mutation(
        "sam: read out at the top",
        "wrappers/sam.py",
        "jnp.where(is_down, param, cache)",
        "param",
        "tests/unit/training/test_eval_params.py -k ascent",
    ),
    Mutation(
        "hyperparams: the first place of a transformation",
        "training/hyperparams.py",
        "if where not in self.taken and where[",
        "if where[",
        "tests/unit/training/test_clocks.py",
    ),
]
