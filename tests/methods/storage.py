"""State in fewer bits: the reference rounds as the codec does. Arrays are small, so `min_size` is
0.
"""

import gradtx
from tests.methods.row import Method, rate
from tests.oracles import core as ref
from tests.oracles import storage as own
from tests.oracles.compose import descend, each


def along(rank: int) -> int:
    """Blocks of 2 in arrays of (3, 4), (4,) and (2, 3, 2): the last axis, whose length is even
    where that of the last but one is odd.
    """
    return rank - 1


METHODS: dict[str, Method] = {
    "stored": Method(
        gradtx.stored(gradtx.adam(rate), "packed16", rounding="nearest", min_size=0),
        descend(each(own.half_adam), rate),
        # what is a rounding error off may be rounded to the next bfloat16, which is 2⁻⁸ away
        float32=2e-2,
    ),
    "stored/int8": Method(
        gradtx.stored(
            gradtx.sgd(rate, momentum=0.9), trace="int8", rounding="nearest", min_size=0, block=2
        ),
        descend(each(own.coded_trace, decay=0.9, axis=along, block=2), rate),
        float64=2e-2,  # the same, with codes of 8 bits, which are worked out in float32
        float32=2e-2,
        breaks=("dtypes",),  # scales are bfloat16 beside codes, whatever the parameters are
    ),
    "master_weights": Method(
        gradtx.master_weights(gradtx.adam(rate)),
        descend(each(ref.adam), rate),
        breaks=(
            "dtypes",
        ),  # updates of parameters in bfloat16 are float32, so that they arrive where they are to
    ),
}
