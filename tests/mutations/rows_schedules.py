"""Changes to phases, restarts and the arithmetic of schedules, each of which a test must notice."""

from tests.mutations.row import Mutation

EQUATIONS = "tests/unit/schedules/test_schedules.py -k float64"
PHASES = "tests/unit/schedules/test_phases.py"
RESTARTS = "tests/unit/schedules/test_restarts.py"
ARITHMETIC = "tests/unit/definition/test_schedule.py"

SCHEDULES = [
    Mutation(
        "phases: each starts at the first value",
        "schedules/phases.py",
        "_follow(one.call(), count, begin, value)",
        "_follow(one.call(), count, begin, fill(count, 0.0))",
        PHASES,
    ),
    Mutation(
        "phases: an exponential that is a line",
        "schedules/parts.py",
        'if shape == "exponential" else blend)',
        'if shape == "none" else blend)',
        EQUATIONS,
    ),
    Mutation(
        "phases: sqrt and 1-sqrt change places",
        "schedules/parts.py",
        '"sqrt": _sqrt',
        '"sqrt": _one_minus_sqrt',
        EQUATIONS,
    ),
    Mutation(
        "restarts: cycles are not stretched",
        "schedules/restarts.py",
        "jnp.minimum(elapsed / scale",
        "jnp.minimum(elapsed",
        RESTARTS,
    ),
    Mutation(
        "restarts: a decay too many",
        "schedules/restarts.py",
        "power(real(decay), real(cycle))",
        "power(real(decay), real(cycle) + 1)",
        RESTARTS,
    ),
    Mutation(
        "restarts: a cycle that begins beyond the last count",
        "schedules/restarts.py",
        "& (begin < limit)",
        "",
        f"{RESTARTS} -k wrap",
    ),
    Mutation(
        "arithmetic: no parentheses on the right",
        "definition/schedule.py",
        'arguments["right"], rank + 1)',
        'arguments["right"], rank)',
        ARITHMETIC,
    ),
    Mutation(
        "arithmetic: the shorter schedule ends the sum",
        "definition/schedule.py",
        "return max(lengths)",
        "return min(lengths)",
        f"{ARITHMETIC} -k length",
    ),
]
