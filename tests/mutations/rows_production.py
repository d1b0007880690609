"""The places of accumulate, guard, offloaded and sharded that tests/mutations breaks."""

from tests.mutations.row import ORACLES, Mutation

GUARD, ACCUMULATE = "wrappers/guard.py", "wrappers/accumulate.py"
STATISTICS = "tests/unit/wrappers/test_guard.py -k statistics"

MUTATIONS = [
    Mutation(
        "offloaded: the first rule of a run alone is asked",
        "engine/leaf_update.py",
        "any(one.rule.offload for one in ours)",
        "ours[0].rule.offload",
        "tests/unit/sharding/test_offloaded.py -k behind",
    ),
    Mutation(
        "offloaded: slots of owners stay on the device",
        "engine/leaf_update.py",
        "put_back(slots, before) if rule.offload else slots",
        "slots",
        "tests/unit/sharding/test_offloaded.py -k owners",
    ),
    Mutation(
        "sharded: slots leave the host",
        "sharding/slot_cuts.py",
        "where.with_memory_kind(PINNED_HOST) if is_on_host(value) else where",
        "where",
        "tests/unit/sharding/test_offloaded.py -k zero_cuts",
    ),
    Mutation(
        "accumulate: a mean of k + 1",
        ACCUMULATE,
        "1 / jnp.where(usable, new.weight, 1.0)",
        "1 / (1 + jnp.where(usable, new.weight, 1.0))",
        ORACLES.format("accumulate"),
    ),
    Mutation(
        "accumulate: the first is added to what was left",
        ACCUMULATE,
        "jnp.where(first, part, total + part)",
        "total + part",
        ORACLES.format("accumulate"),
    ),
    Mutation(
        "accumulate: nothing times nan",
        "microbatching/accumulators.py",
        "jnp.where(weight > 0, weight * array, jnp.zeros_like(array))",
        "weight * array",
        "tests/unit/wrappers/test_accumulate_weights.py -k nothing",
    ),
    Mutation(
        "accumulate: schedules at micro-steps",
        ACCUMULATE,
        "inner._replace(slots=slots, gate=None)",
        "inner._replace(slots=slots, gate=None, count=step - 1)",
        "tests/unit/wrappers/test_accumulate.py -k in_a_chain",
    ),
    Mutation(
        "accumulate: updates of 0 in between",
        ACCUMULATE,
        "jnp.where(due, stored, -jnp.zeros_like(stored))",
        "jnp.where(due, stored, jnp.zeros_like(stored))",
        "tests/unit/wrappers/test_accumulate.py -k inf_acts",
    ),
    Mutation(
        "accumulate: a narrow sum narrows the update",
        ACCUMULATE,
        "    in_place = _can_hold(total, updates)",
        "    in_place = True",
        "tests/unit/wrappers/test_accumulate.py -k dtype",
    ),
    Mutation(
        "accumulate: the branches the other way round",
        "compose/choosing.py",
        "rocm=last, default=first)",
        "rocm=last, default=last)",
        "tests/unit/wrappers/test_guard_compiled.py -k copies_nothing",
    ),
    Mutation(
        "accumulate: weights of zero make an update",
        ACCUMULATE,
        "due = complete & usable",
        "due = complete",
        "tests/unit/wrappers/test_accumulate_weights.py -k sum_to_zero",
    ),
    Mutation(
        "guard: a spike enters as it is",
        GUARD,
        "jnp.where(verdict.spike, _limit(own, zscore), norm) - own.mean",
        "norm - own.mean",
        "tests/unit/wrappers/test_guard.py -k spike_enters",
    ),
    Mutation(
        "guard: what is not finite enters",
        GUARD,
        "enters = jnp.isfinite(norm) & ~verdict.too_large",
        "enters = ~verdict.too_large",
        STATISTICS,
    ),
    Mutation(
        "guard: what is too large enters",
        GUARD,
        "jnp.isfinite(norm) & ~verdict.too_large",
        "jnp.isfinite(norm)",
        STATISTICS,
    ),
    Mutation(
        "guard: no room where norms are equal",
        GUARD,
        "0.01 * own.mean",
        "0.0",
        "tests/unit/wrappers/test_guard.py -k hundredth",
    ),
    Mutation(
        "guard: spikes before norms are known",
        GUARD,
        "known & (norm > _limit",
        "(norm > _limit",
        "tests/unit/wrappers/test_guard.py -k before_norms",
    ),
    Mutation(
        "guard: the count goes on",
        GUARD,
        "applied=next_count(own.applied, gate)",
        "applied=next_count(own.applied)",
        ORACLES.format("guard"),
    ),
    Mutation(
        "guard: the updates of a bad step pass",
        GUARD,
        "return keep_if(gate, updates), inner",
        "return updates, inner",
        ORACLES.format("guard"),
    ),
    Mutation(
        "guard: slots go on",
        GUARD,
        "inner.update(updates, params, gate=gate)",
        "inner.update(updates, params)",
        ORACLES.format("guard"),
    ),
]
