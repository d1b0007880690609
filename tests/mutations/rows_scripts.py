"""Places that scripts written for Optax need, which tests/mutations breaks."""

from tests.mutations.row import Mutation

SCRIPTS = [
    Mutation(
        "a definition: an array is no constant",
        "definition/leaves.py",
        "return np.asarray(value)[()]",
        "return value",
        "tests/scripts/test_constants.py -k nnx",
    ),
    Mutation(
        "inject_hyperparams: a schedule counts updates, not calls",
        "wrappers/inject_hyperparams.py",
        "leads=False",
        "leads=None",
        "tests/scripts/test_hyperparams.py -k calls",
    ),
    Mutation(
        "a stateful schedule: the value of the next state",
        "wrappers/stateful_hyperparams.py",
        "value = value_of(name, schedule, own[name], extra)",
        "value = value_of(name, schedule, schedule.update(own[name], **extra), extra)",
        "tests/unit/wrappers/test_stateful_hyperparams.py -k optax",
    ),
    Mutation(
        "inject_hyperparams: a key of the user's own is refused",
        "engine/wrap_rule.py",
        "if name not in inner}",
        "if name in self.slot_fields}",
        "tests/unit/wrappers/test_inject_hyperparams.py -k carried",
    ),
    Mutation(
        "apply_updates: a scalar is refused",
        "training/apply.py",
        "not in ((), jnp.shape(param))",
        "not in (jnp.shape(param),)",
        "tests/scripts/test_arguments.py -k scalar",
    ),
]
