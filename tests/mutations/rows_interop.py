"""The places of `to_optax` that tests/mutations breaks."""

from tests.mutations.row import Mutation

TO_OPTAX = "tests/unit/interop/test_to_optax.py -k {}"

INTEROP = [
    Mutation(
        "to_optax: extra arguments are dropped",
        "interop/to_optax.py",
        "self.definition.update(updates, state, params, **extra)",
        "self.definition.update(updates, state, params)",
        TO_OPTAX.format("extra_arguments_reach"),
    ),
    Mutation(
        "to_optax: the parameters are dropped",
        "interop/to_optax.py",
        "self.definition.update(updates, state, params, **extra)",
        "self.definition.update(updates, state, **extra)",
        TO_OPTAX.format("numbers_and_state"),
    ),
    Mutation(
        "to_optax: the hash is that of the values",
        "interop/to_optax.py",
        "jax.tree.structure(self.definition)))",
        "self.definition))",
        TO_OPTAX.format("arrays_in_the_definition"),
    ),
    Mutation(
        "to_optax: a converted transformation is converted again",
        "interop/to_optax.py",
        "        return update.definition\n",
        "        pass\n",
        TO_OPTAX.format("converted_once"),
    ),
]
