"""Places of factors by path and of stacks for tests/mutations to break."""

from tests.mutations.row import Mutation

UNIT = "tests/unit/compose/test_{}.py"

GROUPS = [
    Mutation(
        "layer_decay: a layer is one nearer to the head",
        "compose/multipliers.py",
        "power=layers - int(number)",
        "power=layers - int(number) - 1",
        UNIT.format("multiply_by_path"),
    ),
    Mutation(
        "layerwise_decay: embeddings get the factor of the first layer",
        "compose/layerwise_decay.py",
        "count + 1\n",
        "count\n",
        UNIT.format("layerwise_decay"),
    ),
    Mutation(
        "stacked: layers of a slot lie in front",
        "engine/layer_calls.py",
        "outs = [axis if one else 0 for one in out]",
        "outs = [0 for one in out]",
        UNIT.format("stacked"),
    ),
]
