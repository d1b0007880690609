"""Microbatching: a function of a large batch, computed part by part in the memory of one part."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the public names, each imported when it is used
    from gradtx.microbatching.accumulators import AccumulationType as AccumulationType
    from gradtx.microbatching.accumulators import Accumulator as Accumulator
    from gradtx.microbatching.batch import reshape_batch_axis as reshape_batch_axis
    from gradtx.microbatching.micro_grad import micro_grad as micro_grad
    from gradtx.microbatching.micro_vmap import micro_vmap as micro_vmap
    from gradtx.microbatching.microbatch import microbatch as microbatch
else:
    __getattr__, __dir__, __all__ = attach(__name__)
