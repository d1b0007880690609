"""The places of the engine that tests/mutations breaks: gate, clock, walk, programs, checks."""

from tests.mutations.row import Mutation

GATE = "tests/unit/engine/test_gate.py -k {}"
JAXPRS = "tests/unit/engine/test_jaxprs.py"
ANY_SHAPE = "tests/unit/engine/test_any_shape.py"
AUTHORS = "tests/unit/engine/test_authors.py"

ENGINE = [
    Mutation(
        "groups of one rule share the numbers of the first",
        "engine/leaf_update.py",
        "known = numbers.setdefault(program, {})",
        "known = numbers.setdefault((), {})",
        "tests/laws/test_groups_of_one_rule.py",
    ),
    Mutation(
        "gate: closed, and slots move",
        "engine/gate.py",
        "return chosen, chosen",
        "return new, chosen",
        GATE.format("left_out"),
    ),
    Mutation(
        "gate: the update reads new slots",
        "engine/gate.py",
        "return chosen, chosen",
        "return chosen, new",
        GATE.format("choice"),
    ),
    Mutation(
        "gate: closed, and tree slots move",
        "engine/kernel.py",
        "return stats, choose(gate, new, tree_slots)",
        "return stats, new",
        GATE.format("table"),
    ),
    Mutation(
        "gate: the outer gate is ignored",
        "engine/wrap_rule.py",
        "return gate & self.gate",
        "return gate",
        "tests/unit/wrappers/test_guard.py tests/unit/wrappers/test_accumulate.py",
    ),
    Mutation(
        "gate: closed, and own slots of a wrapper move",
        "engine/wrap_rule.py",
        'new if "gate" in kwargs else choose(step.gate, new, own)',
        "new",
        "tests/unit/wrappers/test_guard.py tests/unit/wrappers/test_averages.py",
    ),
    Mutation(
        "settle_slots: the update sees unsettled slots",
        "tree/jaxprs.py",
        "known[variable] = value",
        "pass",
        JAXPRS,
    ),
    Mutation(
        "settle_slots: an input that is a slot is settled",
        "tree/jaxprs.py",
        "if once and value is not None and variable in computed:",
        "if once and value is not None:",
        JAXPRS,
    ),
    Mutation(
        "settle_slots: an array that is two slots is settled",
        "tree/jaxprs.py",
        "outs[first:].count(variable) == 1",
        "outs[first:].count(variable) >= 1",
        JAXPRS,
    ),
    Mutation(
        "any_shape: a program keeps the old shape",
        "engine/any_shape.py",
        "reshaped(one, program.symbols, shape) for one in program.within",
        "one for one in program.within",
        ANY_SHAPE,
    ),
    Mutation(
        "any_shape: a size is a number",
        "engine/any_shape.py",
        'if any(one.primitive.name == "dim_as_value" for one in closed.jaxpr.eqns):',
        "if False:",
        ANY_SHAPE,
    ),
    Mutation(
        "any_shape: the numbers of the next step",
        "engine/any_shape.py",
        "((), leaves[: len(program.early)])",
        "((), [leaves[0] + 1, *leaves[1 : len(program.early)]])",
        ANY_SHAPE,
    ),
    Mutation(
        "any_shape: a square is any matrix",
        "engine/any_shape.py",
        "tuple(shape.index(size) for size in shape)",
        "tuple(range(len(shape)))",
        ANY_SHAPE,
    ),
    Mutation(
        "any_shape: sums are elementwise",
        "engine/any_shape.py",
        "if not is_elementwise(closed.jaxpr, symbols, calls=DERIVATIVES) or not all(",
        "if not all(",
        ANY_SHAPE,
    ),
    Mutation(
        "walk: children are skipped",
        "engine/walk.py",
        "for child in bound.rule.children(own, count):",
        "for child in ():",
        "tests/unit/training/test_clocks.py",
    ),
    Mutation(
        "walk: a mask around is forgotten",
        "engine/walk.py",
        "for node in (*self.parents, self):\n            leaves",
        "for node in (self,):\n            leaves",
        "tests/unit/engine/test_walk.py",
    ),
    Mutation(
        "checks: a pair is not checked",
        "engine/checks.py",
        "if not is_sequence(result) or len(result) != 2:",
        "if False:",
        AUTHORS,
    ),
    Mutation(
        "checks: a slot of another shape",
        "engine/checks.py",
        "if old is not None and jnp.shape(new) != old.shape:",
        "if False:",
        AUTHORS,
    ),
    Mutation(
        "binding: scaffolding is in the path",
        "compose/binding.py",
        'SCAFFOLDING = frozenset({"chain", "descend"})',
        "SCAFFOLDING = frozenset()",
        "tests/laws/test_paths.py",
    ),
    Mutation(
        "binding: a member with a name is scaffolding",
        "compose/binding.py",
        "inner is not None and not has_own_name and branch.selector",
        "inner is not None and branch.selector",
        "tests/laws/test_paths.py",
    ),
]
