"""Norm control: spheres, the radial brake, floors, decay after a step, Huber's decay."""

from tests.mutations.row import Mutation

REFERENCES = "tests/oracles/test_oracles.py -k {}"
DECAY = "tests/unit/compose/test_descend.py -k {}"

NORM_CONTROL = [
    Mutation(
        "hyperball: a radius that grows",
        "wrappers/hyperball.py",
        "return length * over_norm(moved",
        "return over_norm(moved",
        REFERENCES.format("hyperball"),
    ),
    Mutation(
        "hyperball: the first norm is forgotten",
        "transforms/radius.py",
        "return slots.radius[..., None, None]",
        "return matrix_norm(param)",
        "tests/unit/wrappers/test_hyperball.py -k thousand",
    ),
    Mutation(
        "hyperball: matrices go to owners",
        "wrappers/hyperball.py",
        'flags.get("shard") or False',
        'flags.get("shard")',
        "tests/unit/wrappers/test_hyperball.py -k cross",
    ),
    Mutation(
        "radial_brake: the other way",
        "transforms/radial.py",
        "share < 0, outward",
        "share > 0, outward",
        REFERENCES.format("radial_brake"),
    ),
    Mutation(
        "retract: growth without its share",
        "transforms/radial.py",
        "growth > 0, outward, inward",
        "growth > 0, inward, outward",
        REFERENCES.format("retract"),
    ),
    Mutation(
        "update_floor: outputs change the norm of the matrix",
        "transforms/update_floor.py",
        "return jnp.maximum(norms, least) * over_norm(lifted, matrix_norm(lifted)), slots",
        "return lifted, slots",
        REFERENCES.format("update_floor"),
    ),
    Mutation(
        "decay_after: the mask of the step in place of the direction",
        "wrappers/decay_after.py",
        'shrinks("cautious", -update',
        'shrinks("cautious", update',
        REFERENCES.format("decay_after"),
    ),
    Mutation(
        "huber: proximal beyond the bound",
        "compose/descend.py",
        "size > share * huber_delta",
        "size < 0 * huber_delta",
        DECAY.format("huber"),
    ),
    Mutation(
        "strict cautious decay: where the direction is 0 too",
        "compose/descend.py",
        'product > 0 if form == "strict_cautious"',
        'product >= 0 if form == "strict_cautious"',
        DECAY.format("strict"),
    ),
    Mutation(
        "fast-slow decay: the power from the other end",
        "schedules/fast_slow.py",
        "fast = raise_done(phase(count, knee_begin, slow_begin), power)",
        "fast = phase(count, knee_begin, slow_begin)",
        "tests/unit/schedules/test_schedules.py -k fast_slow",
    ),
    Mutation(
        "adamh: the angle is AdamW's rate too",
        "optimizers/adamh.py",
        "ADAM_SHARE * step.learning_rate",
        "1 * step.learning_rate",
        "tests/unit/optimizers/test_spheres.py -k share",
    ),
]
