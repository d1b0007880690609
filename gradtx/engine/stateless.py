"""Updates without a state, of definitions that keep nothing: any empty state will do."""

from collections.abc import Mapping
from typing import Any

import jax

from gradtx.definition.errors import StateError
from gradtx.definition.types import Params, Updates
from gradtx.engine.clock import Clock, clock_at
from gradtx.engine.program import update_program


def needs_no_state(tx: Any, state: Any) -> bool:
    """Whether neither the state nor the definition holds anything: None, (), `EmptyState()`."""
    return not jax.tree.leaves(state) and not any(bound.rule.keeps for bound in tx.rules)


def update_stateless(
    tx: Any, updates: Updates, params: Params | None, extra: Mapping[str, Any]
) -> Any:
    """Run an update without a count; an error where a rule or a schedule reads the count."""
    try:
        # No count is better than a constant one: noise would be the same at every step.
        return _run(tx, updates, params, extra, Clock(None, None, {}))
    except Exception:
        _run(tx, updates, params, extra, clock_at(0))  # raises an error that has another reason
    raise StateError(
        f"{tx.name} keeps no slots, and reads the number of the step from the state: pass the "
        f"state that tx.init(params) returned"
    )


def _run(
    tx: Any, updates: Updates, params: Params | None, extra: Mapping[str, Any], clock: Clock
) -> Any:
    return update_program(tx.runs, updates, {}, params, clock, extra, None).leaves.tree
