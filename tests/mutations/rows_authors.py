"""The places of migrated checkpoints and of messages to authors that tests/mutations breaks."""

from tests.mutations.row import Mutation

OLD = "tests/unit/interop/test_old_checkpoints.py -k {}"
AUTHORS = "tests/unit/engine/test_authors.py -k {}"

MUTATIONS = [
    Mutation(
        "old checkpoints: the most segments go first",
        "interop/migrations.py",
        "range(len(places) + 1)",
        "range(len(places), -1, -1)",
        OLD.format("parameters_may_be_called"),
    ),
    Mutation(
        "old checkpoints: an entry that is left over is dropped",
        "interop/migrations.py",
        "or set(renames.values()) != set(expected)",
        "or not set(expected) <= set(renames.values())",
        OLD.format("exactly"),
    ),
    Mutation(
        "old checkpoints: dtypes stay at the old paths",
        "interop/matching.py",
        "dict(migrate(entries, expected))",
        "dict(entries)",
        OLD.format("random_key"),
    ),
    Mutation(
        "authors: each rule around adds its note",
        "engine/checks.py",
        "note.startswith(RAISED)",
        "False",
        AUTHORS.format("inside_wrappers"),
    ),
    Mutation(
        "authors: slots of a tree in another structure",
        "engine/checks.py",
        "if jax.tree.structure(new) != jax.tree.structure(old)",
        "if False",
        AUTHORS.format("slots_of_a_tree"),
    ),
    Mutation(
        "authors: a computed hyperparameter is not declared",
        "compose/arguments.py",
        "if name not in dynamic and is_data(builder.arguments.get(name))",
        "if name not in dynamic and builder.arguments.get(name) is found.hyperparams[name]",
        "tests/unit/engine/test_authors_arguments.py -k builder",
    ),
    Mutation(
        "many shapes: a broadcast number is computed without a size",
        "tree/jaxprs.py",
        "if is_sized and all(",
        "if all(",
        OLD.format("rmsprop_momentum"),
    ),
]
