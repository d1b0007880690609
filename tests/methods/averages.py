"""Methods that are evaluated at averages of the parameters; what they are evaluated at is compared
in tests/unit/training/test_eval_params.py.
"""

from typing import Any

import gradtx
from tests.methods.row import Method, rate, real
from tests.oracles import averages as own
from tests.oracles import core as ref
from tests.oracles.compose import after, descend, each


def turning(count: Any) -> Any:
    """A look ahead that is 0 at first, then shrinks."""
    return 0.8 / (1.0 + 0.2 * real(count)) * real(count >= 3)


METHODS: dict[str, Method] = {
    "params_average": Method(
        gradtx.chain(gradtx.sgd(0.1), gradtx.params_average(every=2)),
        after(descend(each(ref.identity), 0.1), own.swa(0, 2)),
    ),
    "params_average/cycles": Method(
        gradtx.chain(gradtx.sgd(rate), gradtx.params_average(start=5, every=3)),
        after(descend(each(ref.identity), rate), own.swa(5, 3)),
    ),
    "params_average/tail": Method(
        gradtx.chain(gradtx.sgd(rate), gradtx.params_average(start=4, horizon=5.5)),
        after(descend(each(ref.identity), rate), own.swa(4, 1, 5.5)),
    ),
    "ema_nesterov": Method(
        gradtx.ema_nesterov(gradtx.sgd(0.1, momentum=0.5), decay=0.7, beta=0.4),
        own.ema_nesterov(descend(each(ref.trace, decay=0.5), 0.1), 0.7, 0.4),
    ),
    "ema_nesterov/phases": Method(
        gradtx.ema_nesterov(gradtx.adamw(rate, weight_decay=0.1), decay=0.6, beta=turning),
        own.ema_nesterov(descend(each(ref.adam), rate, 0.1), 0.6, turning),
    ),
}
