"""Transfer of hyperparameters: optimizers with multipliers for each array."""

import gradtx
from tests.methods.muon import AMPLIFIED, OWN, last_two
from tests.methods.row import Method, rate
from tests.oracles import transfer as own
from tests.oracles.compose import each

METHODS: dict[str, Method] = {
    "transfer": Method(
        gradtx.transfer(gradtx.adamw(rate, eps=0.01, weight_decay=0.1), base=2, width=8),
        each(own.adamw, rate=rate, eps=0.01, decay=0.1, growth=4.0),
    ),
    "transfer/sgd": Method(
        gradtx.transfer(
            gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.sgd(rate, momentum=0.5)),
            base=2,
            width=8,
            rule="sgd",
        ),
        each(own.sgd, rate=rate, decay=0.1, growth=4.0, momentum=0.5),
    ),
    "transfer/spectral": Method(
        gradtx.transfer(
            gradtx.muon(rate, scaling="match_rms_adamw", weight_decay=0.1, dimensions=last_two),
            base=2,
            width=8,
            rule="spectral",
            decay_exponent=1.0,
        ),
        each(own.match_rms_muon, rate=rate, decay=0.1, growth=4.0, exponent=1.0),
        float32=AMPLIFIED,
        breaks=OWN,
    ),
    "transfer/hyperball": Method(
        gradtx.transfer(
            gradtx.hyperball(gradtx.trace(0.5), 0.1), base=2, width=8, rule="hyperball"
        ),
        each(own.trace_h, rate=0.1),
        breaks=OWN,
    ),
}
