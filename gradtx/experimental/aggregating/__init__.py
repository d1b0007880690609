"""Aggregating gradients per example: averages, accumulation, and statistics of gradient noise."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the public names, each imported when it is used
    from gradtx.experimental.aggregating.averages import (
        AccumulateAvgUpdatesState as AccumulateAvgUpdatesState,
    )
    from gradtx.experimental.aggregating.averages import (
        accumulate_avg_updates as accumulate_avg_updates,
    )
    from gradtx.experimental.aggregating.averages import (
        average_incrementally_updates as average_incrementally_updates,
    )
    from gradtx.experimental.aggregating.averages import (
        average_per_element_updates as average_per_element_updates,
    )
    from gradtx.experimental.aggregating.noise_statistics import (
        PerElementMeanAndSumSqDiffGradsState as PerElementMeanAndSumSqDiffGradsState,
    )
    from gradtx.experimental.aggregating.noise_statistics import (
        PerElementMeanAndVarianceEMAState as PerElementMeanAndVarianceEMAState,
    )
    from gradtx.experimental.aggregating.noise_statistics import (
        add_mean_variance_to_opt as add_mean_variance_to_opt,
    )
    from gradtx.experimental.aggregating.noise_statistics import (
        get_per_element_mean_and_sum_sq_diff_grads as get_per_element_mean_and_sum_sq_diff_grads,
    )
    from gradtx.experimental.aggregating.noise_statistics import (
        get_unbiased_mean_and_variance_ema as get_unbiased_mean_and_variance_ema,
    )
    from gradtx.experimental.aggregating.noise_statistics import (
        track_per_element_mean_and_variance_with_ema as track_per_element_mean_and_variance_with_ema,
    )
    from gradtx.experimental.aggregating.per_element import Aggregator as Aggregator
    from gradtx.experimental.aggregating.per_element import AggregatorUpdateFn as AggregatorUpdateFn
    from gradtx.experimental.aggregating.per_element import (
        get_batch_size_from_per_elt_updates as get_batch_size_from_per_elt_updates,
    )
    from gradtx.experimental.aggregating.process import process as process
else:
    __getattr__, __dir__, __all__ = attach(__name__)
