"""Building blocks, one verb each."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the names of `optax.transforms`
    from gradtx.compose.chain import chain as chain
    from gradtx.compose.descend import add_decayed_weights as add_decayed_weights
    from gradtx.compose.select import masked as masked
    from gradtx.compose.select import partition as partition
    from gradtx.definition.annotations import ConditionFn as ConditionFn
    from gradtx.definition.annotations import ShouldSkipUpdateFunction as ShouldSkipUpdateFunction
    from gradtx.interop.state_classes import AddNoiseState as AddNoiseState
    from gradtx.interop.state_classes import ApplyIfFiniteState as ApplyIfFiniteState
    from gradtx.interop.state_classes import ConditionallyMaskState as ConditionallyMaskState
    from gradtx.interop.state_classes import (
        ConditionallyTransformState as ConditionallyTransformState,
    )
    from gradtx.interop.state_classes import EmaState as EmaState
    from gradtx.interop.state_classes import MaskedNode as MaskedNode
    from gradtx.interop.state_classes import MaskedState as MaskedState
    from gradtx.interop.state_classes import MonitorState as MonitorState
    from gradtx.interop.state_classes import MultiStepsState as MultiStepsState
    from gradtx.interop.state_classes import NonNegativeParamsState as NonNegativeParamsState
    from gradtx.interop.state_classes import PartitionState as PartitionState
    from gradtx.interop.state_classes import SnapshotState as SnapshotState
    from gradtx.interop.state_classes import TraceState as TraceState
    from gradtx.interop.state_classes import ZeroNansState as ZeroNansState
    from gradtx.transforms.adaptive_clipping import adaptive_grad_clip as adaptive_grad_clip
    from gradtx.transforms.adaptive_clipping import unitwise_clip as unitwise_clip
    from gradtx.transforms.adaptive_clipping import unitwise_norm as unitwise_norm
    from gradtx.transforms.clipping import clip as clip
    from gradtx.transforms.clipping import clip_by_block_rms as clip_by_block_rms
    from gradtx.transforms.clipping import clip_by_global_norm as clip_by_global_norm
    from gradtx.transforms.constraints import keep_params_nonnegative as keep_params_nonnegative
    from gradtx.transforms.constraints import zero_nans as zero_nans
    from gradtx.transforms.freezing import freeze as freeze
    from gradtx.transforms.freezing import selective_transform as selective_transform
    from gradtx.transforms.momentum import ema as ema
    from gradtx.transforms.momentum import trace as trace
    from gradtx.transforms.monitoring import measure_with_ema as measure_with_ema
    from gradtx.transforms.monitoring import monitor as monitor
    from gradtx.transforms.monitoring import snapshot as snapshot
    from gradtx.transforms.noise import add_noise as add_noise
    from gradtx.transforms.per_example import (
        per_example_global_norm_clip as per_example_global_norm_clip,
    )
    from gradtx.transforms.per_example import (
        per_example_layer_norm_clip as per_example_layer_norm_clip,
    )
    from gradtx.transforms.spellings import named_chain as named_chain
    from gradtx.wrappers.conditional import apply_if_finite as apply_if_finite
    from gradtx.wrappers.conditional import conditionally_mask as conditionally_mask
    from gradtx.wrappers.conditional import conditionally_transform as conditionally_transform
    from gradtx.wrappers.flatten import flatten as flatten
    from gradtx.wrappers.multi_steps import MultiSteps as MultiSteps
    from gradtx.wrappers.multi_steps import skip_large_updates as skip_large_updates
    from gradtx.wrappers.multi_steps import skip_not_finite as skip_not_finite
else:
    __getattr__, __dir__, __all__ = attach(__name__, hidden="gradtx.interop.state_classes")
