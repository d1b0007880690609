"""`optax.contrib` under gradtx: the names that Optax keeps there. All are at the root, too."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the names of `optax.contrib`
    from gradtx.definition.annotations import GaLoreDimensionNumbers as GaLoreDimensionNumbers
    from gradtx.definition.annotations import MuonDimensionNumbers as MuonDimensionNumbers
    from gradtx.interop.state_classes import COCOBState as COCOBState
    from gradtx.interop.state_classes import DAdaptAdamWState as DAdaptAdamWState
    from gradtx.interop.state_classes import (
        DifferentiallyPrivateAggregateState as DifferentiallyPrivateAggregateState,
    )
    from gradtx.interop.state_classes import DoGState as DoGState
    from gradtx.interop.state_classes import DoWGState as DoWGState
    from gradtx.interop.state_classes import GaLoreState as GaLoreState
    from gradtx.interop.state_classes import HutchinsonState as HutchinsonState
    from gradtx.interop.state_classes import MadgradState as MadgradState
    from gradtx.interop.state_classes import MechanicState as MechanicState
    from gradtx.interop.state_classes import MomoAdamState as MomoAdamState
    from gradtx.interop.state_classes import MomoState as MomoState
    from gradtx.interop.state_classes import MuonState as MuonState
    from gradtx.interop.state_classes import NormalizeState as NormalizeState
    from gradtx.interop.state_classes import ProdigyState as ProdigyState
    from gradtx.interop.state_classes import ReduceLROnPlateauState as ReduceLROnPlateauState
    from gradtx.interop.state_classes import SAMState as SAMState
    from gradtx.interop.state_classes import ScaleByAdemamixState as ScaleByAdemamixState
    from gradtx.interop.state_classes import (
        ScaleBySimplifiedAdEMAMixState as ScaleBySimplifiedAdEMAMixState,
    )
    from gradtx.interop.state_classes import ScheduleFreeState as ScheduleFreeState
    from gradtx.interop.state_classes import SophiaState as SophiaState
    from gradtx.interop.state_classes import (
        SplitRealAndImaginaryState as SplitRealAndImaginaryState,
    )
    from gradtx.optimizers.acprop import acprop as acprop
    from gradtx.optimizers.acprop import scale_by_acprop as scale_by_acprop
    from gradtx.optimizers.ademamix import ademamix as ademamix
    from gradtx.optimizers.ademamix import scale_by_ademamix as scale_by_ademamix
    from gradtx.optimizers.adopt import adopt as adopt
    from gradtx.optimizers.adopt import scale_by_adopt as scale_by_adopt
    from gradtx.optimizers.cocob import cocob as cocob
    from gradtx.optimizers.cocob import scale_by_cocob as scale_by_cocob
    from gradtx.optimizers.dadapt_adamw import dadapt_adamw as dadapt_adamw
    from gradtx.optimizers.dog import dog as dog
    from gradtx.optimizers.dowg import dowg as dowg
    from gradtx.optimizers.dpsgd import dpsgd as dpsgd
    from gradtx.optimizers.galore import galore as galore
    from gradtx.optimizers.galore import scale_by_galore as scale_by_galore
    from gradtx.optimizers.madgrad import madgrad as madgrad
    from gradtx.optimizers.madgrad import scale_by_madgrad as scale_by_madgrad
    from gradtx.optimizers.momo import momo as momo
    from gradtx.optimizers.momo_adam import momo_adam as momo_adam
    from gradtx.optimizers.muon import muon as muon
    from gradtx.optimizers.muon import scale_by_muon as scale_by_muon
    from gradtx.optimizers.prodigy import prodigy as prodigy
    from gradtx.optimizers.schedule_free_adamw import schedule_free_adamw as schedule_free_adamw
    from gradtx.optimizers.schedule_free_sgd import schedule_free_sgd as schedule_free_sgd
    from gradtx.optimizers.simplified_ademamix import (
        scale_by_simplified_ademamix as scale_by_simplified_ademamix,
    )
    from gradtx.optimizers.simplified_ademamix import simplified_ademamix as simplified_ademamix
    from gradtx.optimizers.sophia import sophia as sophia
    from gradtx.transforms.hutchinson import (
        hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian,
    )
    from gradtx.transforms.normalizing import normalize as normalize
    from gradtx.transforms.plateau import reduce_on_plateau as reduce_on_plateau
    from gradtx.transforms.privacy import (
        differentially_private_aggregate as differentially_private_aggregate,
    )
    from gradtx.wrappers.mechanize import mechanize as mechanize
    from gradtx.wrappers.sam import sam as sam
    from gradtx.wrappers.schedule_free import schedule_free as schedule_free
    from gradtx.wrappers.schedule_free import schedule_free_eval_params as schedule_free_eval_params
    from gradtx.wrappers.split_real_and_imaginary import (
        split_real_and_imaginary as split_real_and_imaginary,
    )
else:
    __getattr__, __dir__, __all__ = attach(__name__, hidden="gradtx.interop.state_classes")
