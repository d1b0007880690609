"""Changes to the recipes, each of which a test must notice."""

from tests.mutations.row import Mutation

TRANSFORMER = "tests/unit/recipes/test_transformer.py"

RECIPES = [
    Mutation(
        "recipe: the head has the rate of the rest",
        "recipes/transformer.py",
        "rate_over(lengths, peak)",
        "rate_over(lengths, adam_learning_rate)",
        f"{TRANSFORMER} -k equals",
    ),
    Mutation(
        "recipe: the constant phase is left out",
        "recipes/transformer.py",
        "phases(warmup(lengths.warmup, peak_value), *middle, cooldown",
        "phases(warmup(lengths.warmup, peak_value), cooldown",
        f"{TRANSFORMER} -k 'equals or last_rates'",
    ),
    Mutation(
        "recipe: the cooldown is compared alone",
        "recipes/transformer.py",
        "horizon = sum(horizons.values())",
        "horizon = max(horizons.values())",
        f"{TRANSFORMER} -k horizon",
    ),
]
