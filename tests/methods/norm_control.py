"""Methods that set the norm of a matrix, the least size of its update, or where it decays."""

import gradtx
from tests.methods.muon import AMPLIFIED, OWN, last_two, on_matrices
from tests.methods.row import Method, rate
from tests.oracles import core
from tests.oracles import muon as muon_oracle
from tests.oracles import norm_control as own
from tests.oracles.compose import after, decay_by_form, descend, each, scale

RATIO = 0.3825


def record_stack() -> gradtx.GradientTransformation:
    """The order of the record, from its parts."""
    return gradtx.chain(
        gradtx.scale_by_muon(),
        gradtx.radial_brake(),
        gradtx.update_floor(RATIO, per="output"),
        gradtx.scale_by_learning_rate(0.1),
        gradtx.decay_after(gradtx.retract("first_order"), 0.1, 0.025, "strict_cautious"),
    )


def tenth(last: gradtx.GradientTransformation) -> gradtx.GradientTransformation:
    """Steps of a tenth of each matrix: a difference of parameters rounds smaller ones away."""
    return gradtx.chain(gradtx.relative_update(), gradtx.scale(-0.1), last)


a_tenth = after(each(own.relative), each(scale, factor=-0.1))

METHODS: dict[str, Method] = {
    "hyperball/current": Method(
        gradtx.hyperball(gradtx.scale_by_adam(), 0.05, "current"),
        after(each(core.adam), each(own.on_current_sphere, eta=0.05)),
        breaks=OWN,
    ),
    "hyperball/number": Method(
        gradtx.hyperball(gradtx.identity(), 0.05, 1.5),
        each(own.on_fixed_sphere, eta=0.05, radius=1.5),
        breaks=OWN,
    ),
    "adamh": Method(
        gradtx.adamh(0.1, dimensions=last_two),
        each(own.sphere_or_adam(core.adam, 0.1, b2=0.95)),
        breaks=OWN,
    ),
    "muonh": Method(
        gradtx.muonh(0.1, dimensions=last_two),
        each(own.sphere_or_adam(muon_oracle.muon, 0.1)),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "radial_brake": Method(gradtx.radial_brake(), each(own.brake), breaks=OWN),
    "radial_brake/inward": Method(
        gradtx.radial_brake(0.9, 0.2), each(own.brake, outward=0.9, inward=0.2), breaks=OWN
    ),
    "update_floor": Method(
        gradtx.update_floor(2.0), each(own.floor_of_matrix, ratio=2.0), breaks=OWN
    ),
    "update_floor/output": Method(
        gradtx.update_floor(2.0, per="output"), each(own.floor_of_outputs, ratio=2.0), breaks=OWN
    ),
    "relative_update": Method(
        gradtx.descend(gradtx.relative_update(), 0.1, 0.2),
        descend(each(own.relative), 0.1, 0.2),
        breaks=OWN,
    ),
    "retract": Method(
        tenth(gradtx.retract()),
        after(a_tenth, each(own.retract_initial)),
        breaks=OWN,
    ),
    "retract/current": Method(
        tenth(gradtx.retract("current", 0.5, 1.0)),
        after(
            each(own.relative),
            each(scale, factor=-0.1),
            each(own.retract_current, outward=0.5, inward=1.0),
        ),
        breaks=OWN,
    ),
    "retract/number": Method(
        tenth(gradtx.retract(1.5)),
        after(a_tenth, each(own.retract_fixed, radius=1.5)),
        breaks=OWN,
    ),
    "decay_after": Method(
        gradtx.chain(gradtx.scale(-0.1), gradtx.decay_after(gradtx.identity(), rate, 0.5)),
        after(
            each(scale, factor=-0.1),
            each(own.decay_after(core.identity, rate, 0.5, "cautious")),
        ),
    ),
    "decay_after/record": Method(
        on_matrices(record_stack()),
        each(muon_oracle.where_matrix(own.record, core.identity, eta=0.1)),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "adamw/huber": Method(
        gradtx.adamw(rate, weight_decay=0.5, decay_form="huber", huber_delta=0.6),
        each(own.huber(core.adam, rate, 0.5, 0.6)),
    ),
    "adamw/strictly cautious": Method(
        gradtx.adamw(rate, weight_decay=0.5, decay_form="strict_cautious"),
        descend(
            after(
                each(core.adam),
                each(decay_by_form, weight_decay=0.5, form="strict_cautious", eta=0.1, peak=0.1),
            ),
            rate,
        ),
    ),
}
