"""A value for every count: learning rates and other hyperparameters over time."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the names of `optax.schedules`
    from gradtx.definition.schedule import Schedule as Schedule
    from gradtx.interop.state_classes import InjectHyperparamsState as InjectHyperparamsState
    from gradtx.interop.state_classes import (
        InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
    )
    from gradtx.schedules.cosine import cosine_decay_schedule as cosine_decay_schedule
    from gradtx.schedules.decay import exponential_decay as exponential_decay
    from gradtx.schedules.join import join_schedules as join_schedules
    from gradtx.schedules.piecewise import cosine_onecycle_schedule as cosine_onecycle_schedule
    from gradtx.schedules.piecewise import linear_onecycle_schedule as linear_onecycle_schedule
    from gradtx.schedules.piecewise import (
        piecewise_constant_schedule as piecewise_constant_schedule,
    )
    from gradtx.schedules.piecewise import (
        piecewise_interpolate_schedule as piecewise_interpolate_schedule,
    )
    from gradtx.schedules.polynomial import constant_schedule as constant_schedule
    from gradtx.schedules.polynomial import linear_schedule as linear_schedule
    from gradtx.schedules.polynomial import polynomial_schedule as polynomial_schedule
    from gradtx.schedules.stateful import StatefulSchedule as StatefulSchedule
    from gradtx.schedules.stateful import WrappedSchedule as WrappedSchedule
    from gradtx.schedules.warmup import sgdr_schedule as sgdr_schedule
    from gradtx.schedules.warmup import warmup_constant_schedule as warmup_constant_schedule
    from gradtx.schedules.warmup import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
    from gradtx.schedules.warmup import (
        warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
    )
    from gradtx.wrappers.inject_hyperparams import inject_hyperparams as inject_hyperparams
    from gradtx.wrappers.inject_hyperparams import (
        inject_stateful_hyperparams as inject_stateful_hyperparams,
    )
else:
    __getattr__, __dir__, __all__ = attach(__name__, hidden="gradtx.interop.state_classes")
