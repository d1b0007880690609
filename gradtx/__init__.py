"""gradtx: gradient transformations for JAX, as data."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

__version__: str

if TYPE_CHECKING:  # the public names; each is imported when it is first used
    from gradtx import assignment as assignment
    from gradtx import authoring as authoring
    from gradtx import contrib as contrib
    from gradtx import experimental as experimental
    from gradtx import linalg as linalg
    from gradtx import losses as losses
    from gradtx import microbatching as microbatching
    from gradtx import perturbations as perturbations
    from gradtx import projections as projections
    from gradtx import recipes as recipes
    from gradtx import schedules as schedules
    from gradtx import second_order as second_order
    from gradtx import sharding as sharding
    from gradtx import transforms as transforms
    from gradtx import tree as tree
    from gradtx import tree_utils as tree_utils
    from gradtx.compose.cautious import cautious_mask as cautious_mask
    from gradtx.compose.chain import chain as chain
    from gradtx.compose.descend import add_decayed_weights as add_decayed_weights
    from gradtx.compose.descend import descend as descend
    from gradtx.compose.descend import scale_by_learning_rate as scale_by_learning_rate
    from gradtx.compose.layerwise_decay import layerwise_decay as layerwise_decay
    from gradtx.compose.leafwise import leafwise as leafwise
    from gradtx.compose.matrixwise import matrixwise as matrixwise
    from gradtx.compose.multipliers import along as along
    from gradtx.compose.multipliers import layer_decay as layer_decay
    from gradtx.compose.multiply_by_path import multiply_by_path as multiply_by_path
    from gradtx.compose.over_axes import over_axes as over_axes
    from gradtx.compose.select import masked as masked
    from gradtx.compose.select import partition as partition
    from gradtx.compose.stacked import stacked as stacked
    from gradtx.compose.transformation import GradientTransformation as GradientTransformation
    from gradtx.compose.transformation import (
        GradientTransformationExtraArgs as GradientTransformationExtraArgs,
    )
    from gradtx.compose.transformation import definition as definition
    from gradtx.compose.treewise import treewise as treewise
    from gradtx.compose.wrapwise import wrapwise as wrapwise
    from gradtx.definition.annotations import ArrayTree as ArrayTree
    from gradtx.definition.annotations import MaskOrFn as MaskOrFn
    from gradtx.definition.annotations import OptState as OptState
    from gradtx.definition.annotations import ScalarOrSchedule as ScalarOrSchedule
    from gradtx.definition.annotations import ShouldSkipUpdateFunction as ShouldSkipUpdateFunction
    from gradtx.definition.annotations import TransformInitFn as TransformInitFn
    from gradtx.definition.annotations import (
        TransformUpdateExtraArgsFn as TransformUpdateExtraArgsFn,
    )
    from gradtx.definition.annotations import TransformUpdateFn as TransformUpdateFn
    from gradtx.definition.config import from_config as from_config
    from gradtx.definition.config import to_config as to_config
    from gradtx.definition.errors import AxesError as AxesError
    from gradtx.definition.errors import ConfigError as ConfigError
    from gradtx.definition.errors import DtypeError as DtypeError
    from gradtx.definition.errors import GradtxError as GradtxError
    from gradtx.definition.errors import HyperparamError as HyperparamError
    from gradtx.definition.errors import MissingExtraError as MissingExtraError
    from gradtx.definition.errors import MissingParamsError as MissingParamsError
    from gradtx.definition.errors import RoleWarning as RoleWarning
    from gradtx.definition.errors import SelectionError as SelectionError
    from gradtx.definition.errors import StateError as StateError
    from gradtx.definition.errors import StructureError as StructureError
    from gradtx.definition.schedule import Schedule as Schedule
    from gradtx.definition.schedule import schedule as schedule
    from gradtx.definition.types import Decay as Decay
    from gradtx.definition.types import Fraction as Fraction
    from gradtx.definition.types import Hyperparam as Hyperparam
    from gradtx.definition.types import NonNegative as NonNegative
    from gradtx.definition.types import Params as Params
    from gradtx.definition.types import Positive as Positive
    from gradtx.definition.types import State as State
    from gradtx.definition.types import Updates as Updates
    from gradtx.inspect.coordinate_check import coordinate_check as coordinate_check
    from gradtx.inspect.coordinate_result import CoordinateCheck as CoordinateCheck
    from gradtx.inspect.coverage import coverage as coverage
    from gradtx.inspect.create import create as create
    from gradtx.inspect.create import list_optimizers as list_optimizers
    from gradtx.inspect.describe import describe as describe
    from gradtx.inspect.find_learning_rate import LearningRateCurve as LearningRateCurve
    from gradtx.inspect.find_learning_rate import find_learning_rate as find_learning_rate
    from gradtx.inspect.metrics import metrics as metrics
    from gradtx.inspect.plan import plan as plan
    from gradtx.inspect.plot_schedules import plot_schedules as plot_schedules
    from gradtx.inspect.summary import summary as summary
    from gradtx.inspect.sweep import sweep as sweep
    from gradtx.inspect.sweep_result import SweepResult as SweepResult
    from gradtx.inspect.transfer_table import scale_init as scale_init
    from gradtx.inspect.transfer_table import transfer_table as transfer_table
    from gradtx.interop.checkpoints import flatten_state as flatten_state
    from gradtx.interop.checkpoints import load as load
    from gradtx.interop.checkpoints import match_state as match_state
    from gradtx.interop.checkpoints import restore_state as restore_state
    from gradtx.interop.checkpoints import save as save
    from gradtx.interop.from_optax import from_optax_state as from_optax_state
    from gradtx.interop.from_torch import from_torch_state as from_torch_state
    from gradtx.interop.matching import StateMatch as StateMatch
    from gradtx.interop.orbax import Checkpointer as Checkpointer
    from gradtx.interop.runs import latest_step as latest_step
    from gradtx.interop.safetensors import load_safetensors as load_safetensors
    from gradtx.interop.safetensors import save_safetensors as save_safetensors
    from gradtx.interop.state_classes import AdaptiveGradClipState as AdaptiveGradClipState
    from gradtx.interop.state_classes import AddDecayedWeightsState as AddDecayedWeightsState
    from gradtx.interop.state_classes import AddNoiseState as AddNoiseState
    from gradtx.interop.state_classes import ApplyEvery as ApplyEvery
    from gradtx.interop.state_classes import ApplyIfFiniteState as ApplyIfFiniteState
    from gradtx.interop.state_classes import ClipByGlobalNormState as ClipByGlobalNormState
    from gradtx.interop.state_classes import ClipState as ClipState
    from gradtx.interop.state_classes import ConditionallyMaskState as ConditionallyMaskState
    from gradtx.interop.state_classes import (
        ConditionallyTransformState as ConditionallyTransformState,
    )
    from gradtx.interop.state_classes import (
        DifferentiallyPrivateAggregateState as DifferentiallyPrivateAggregateState,
    )
    from gradtx.interop.state_classes import EmaState as EmaState
    from gradtx.interop.state_classes import FactoredState as FactoredState
    from gradtx.interop.state_classes import InjectHyperparamsState as InjectHyperparamsState
    from gradtx.interop.state_classes import (
        InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
    )
    from gradtx.interop.state_classes import LookaheadState as LookaheadState
    from gradtx.interop.state_classes import MaskedNode as MaskedNode
    from gradtx.interop.state_classes import MaskedState as MaskedState
    from gradtx.interop.state_classes import MonitorState as MonitorState
    from gradtx.interop.state_classes import MultiStepsState as MultiStepsState
    from gradtx.interop.state_classes import MultiTransformState as MultiTransformState
    from gradtx.interop.state_classes import NonNegativeParamsState as NonNegativeParamsState
    from gradtx.interop.state_classes import PartitionState as PartitionState
    from gradtx.interop.state_classes import ScaleByAdaDeltaState as ScaleByAdaDeltaState
    from gradtx.interop.state_classes import ScaleByAdamState as ScaleByAdamState
    from gradtx.interop.state_classes import ScaleByAdanState as ScaleByAdanState
    from gradtx.interop.state_classes import ScaleByAmsgradState as ScaleByAmsgradState
    from gradtx.interop.state_classes import (
        ScaleByBacktrackingLinesearchState as ScaleByBacktrackingLinesearchState,
    )
    from gradtx.interop.state_classes import ScaleByBeliefState as ScaleByBeliefState
    from gradtx.interop.state_classes import ScaleByLBFGSState as ScaleByLBFGSState
    from gradtx.interop.state_classes import ScaleByLionState as ScaleByLionState
    from gradtx.interop.state_classes import ScaleByNovogradState as ScaleByNovogradState
    from gradtx.interop.state_classes import ScaleByRmsState as ScaleByRmsState
    from gradtx.interop.state_classes import ScaleByRpropState as ScaleByRpropState
    from gradtx.interop.state_classes import ScaleByRssState as ScaleByRssState
    from gradtx.interop.state_classes import ScaleByRStdDevState as ScaleByRStdDevState
    from gradtx.interop.state_classes import ScaleByScheduleState as ScaleByScheduleState
    from gradtx.interop.state_classes import ScaleBySM3State as ScaleBySM3State
    from gradtx.interop.state_classes import ScaleByTrustRatioState as ScaleByTrustRatioState
    from gradtx.interop.state_classes import (
        ScaleByZoomLinesearchState as ScaleByZoomLinesearchState,
    )
    from gradtx.interop.state_classes import ScaleState as ScaleState
    from gradtx.interop.state_classes import SnapshotState as SnapshotState
    from gradtx.interop.state_classes import TraceState as TraceState
    from gradtx.interop.state_classes import ZeroNansState as ZeroNansState
    from gradtx.interop.to_optax import to_optax as to_optax
    from gradtx.linalg.iterate_sums import spectral_power as spectral_power
    from gradtx.linalg.iterate_sums import spectral_series as spectral_series
    from gradtx.linalg.newton_root import matrix_inverse_pth_root as matrix_inverse_pth_root
    from gradtx.linalg.nnls import nnls as nnls
    from gradtx.linalg.power_iteration import power_iteration as power_iteration
    from gradtx.linalg.spectra import polar as polar
    from gradtx.linalg.spectra import soft_polar as soft_polar
    from gradtx.linalg.spectra import spectral_tilt as spectral_tilt
    from gradtx.linalg.spectral_clips import spectral_cap as spectral_cap
    from gradtx.linalg.spectral_clips import spectral_clip as spectral_clip
    from gradtx.linalg.spectral_clips import spectral_contraction as spectral_contraction
    from gradtx.linalg.spectrum import Spectrum as Spectrum
    from gradtx.linesearch.backtracking import (
        scale_by_backtracking_linesearch as scale_by_backtracking_linesearch,
    )
    from gradtx.linesearch.reuse import value_and_grad_from_state as value_and_grad_from_state
    from gradtx.linesearch.zoom import ZoomLinesearchInfo as ZoomLinesearchInfo
    from gradtx.linesearch.zoom import scale_by_zoom_linesearch as scale_by_zoom_linesearch
    from gradtx.losses.chunked import chunked_softmax_cross_entropy as chunked_softmax_cross_entropy
    from gradtx.losses.cosine import cosine_distance as cosine_distance
    from gradtx.losses.cosine import cosine_similarity as cosine_similarity
    from gradtx.losses.cross_entropy import safe_softmax_cross_entropy as safe_softmax_cross_entropy
    from gradtx.losses.cross_entropy import softmax_cross_entropy as softmax_cross_entropy
    from gradtx.losses.cross_entropy import (
        softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
    )
    from gradtx.losses.ctc import ctc_loss as ctc_loss
    from gradtx.losses.ctc import ctc_loss_with_forward_probs as ctc_loss_with_forward_probs
    from gradtx.losses.divergences import convex_kl_divergence as convex_kl_divergence
    from gradtx.losses.divergences import generalized_kl_divergence as generalized_kl_divergence
    from gradtx.losses.divergences import kl_divergence as kl_divergence
    from gradtx.losses.hinge import hinge_loss as hinge_loss
    from gradtx.losses.regression import huber_loss as huber_loss
    from gradtx.losses.regression import l2_loss as l2_loss
    from gradtx.losses.regression import log_cosh as log_cosh
    from gradtx.losses.regression import squared_error as squared_error
    from gradtx.losses.self_supervised import ntxent as ntxent
    from gradtx.losses.sigmoid import sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy
    from gradtx.losses.sigmoid import sigmoid_focal_loss as sigmoid_focal_loss
    from gradtx.losses.smoothing import smooth_labels as smooth_labels
    from gradtx.microbatching.microbatch import microbatch as microbatch
    from gradtx.optimizers.acprop import acprop as acprop
    from gradtx.optimizers.acprop import scale_by_acprop as scale_by_acprop
    from gradtx.optimizers.adabelief import adabelief as adabelief
    from gradtx.optimizers.adabelief import scale_by_belief as scale_by_belief
    from gradtx.optimizers.adadelta import adadelta as adadelta
    from gradtx.optimizers.adadelta import scale_by_adadelta as scale_by_adadelta
    from gradtx.optimizers.adafactor import adafactor as adafactor
    from gradtx.optimizers.adafactor import scale_by_factored_rms as scale_by_factored_rms
    from gradtx.optimizers.adagrad import adagrad as adagrad
    from gradtx.optimizers.adagrad import scale_by_rss as scale_by_rss
    from gradtx.optimizers.adam import adam as adam
    from gradtx.optimizers.adam import scale_by_adam as scale_by_adam
    from gradtx.optimizers.adam_mini import adam_mini as adam_mini
    from gradtx.optimizers.adam_mini import scale_by_adam_mini as scale_by_adam_mini
    from gradtx.optimizers.adamax import adamax as adamax
    from gradtx.optimizers.adamax import scale_by_adamax as scale_by_adamax
    from gradtx.optimizers.adamaxw import adamaxw as adamaxw
    from gradtx.optimizers.adamh import adamh as adamh
    from gradtx.optimizers.adamuon import adamuon as adamuon
    from gradtx.optimizers.adamuon import scale_by_adamuon as scale_by_adamuon
    from gradtx.optimizers.adamw import adamw as adamw
    from gradtx.optimizers.adan import adan as adan
    from gradtx.optimizers.adan import scale_by_adan as scale_by_adan
    from gradtx.optimizers.ademamix import ademamix as ademamix
    from gradtx.optimizers.ademamix import scale_by_ademamix as scale_by_ademamix
    from gradtx.optimizers.adopt import adopt as adopt
    from gradtx.optimizers.adopt import scale_by_adopt as scale_by_adopt
    from gradtx.optimizers.amsgrad import amsgrad as amsgrad
    from gradtx.optimizers.amsgrad import scale_by_amsgrad as scale_by_amsgrad
    from gradtx.optimizers.came import came as came
    from gradtx.optimizers.came import scale_by_came as scale_by_came
    from gradtx.optimizers.cocob import cocob as cocob
    from gradtx.optimizers.cocob import scale_by_cocob as scale_by_cocob
    from gradtx.optimizers.dadapt_adamw import dadapt_adamw as dadapt_adamw
    from gradtx.optimizers.dion import dion as dion
    from gradtx.optimizers.dion import scale_by_dion as scale_by_dion
    from gradtx.optimizers.dog import dog as dog
    from gradtx.optimizers.dog import (
        scale_by_distance_over_gradients as scale_by_distance_over_gradients,
    )
    from gradtx.optimizers.dowg import dowg as dowg
    from gradtx.optimizers.dpsgd import dpsgd as dpsgd
    from gradtx.optimizers.fromage import fromage as fromage
    from gradtx.optimizers.galore import galore as galore
    from gradtx.optimizers.galore import scale_by_galore as scale_by_galore
    from gradtx.optimizers.grams import grams as grams
    from gradtx.optimizers.grams import scale_by_grams as scale_by_grams
    from gradtx.optimizers.kl_shampoo import kl_shampoo as kl_shampoo
    from gradtx.optimizers.kl_shampoo import scale_by_kl_shampoo as scale_by_kl_shampoo
    from gradtx.optimizers.kl_soap import kl_soap as kl_soap
    from gradtx.optimizers.kl_soap import scale_by_kl_soap as scale_by_kl_soap
    from gradtx.optimizers.lamb import lamb as lamb
    from gradtx.optimizers.laprop import laprop as laprop
    from gradtx.optimizers.laprop import scale_by_laprop as scale_by_laprop
    from gradtx.optimizers.lars import lars as lars
    from gradtx.optimizers.lbfgs import lbfgs as lbfgs
    from gradtx.optimizers.lbfgs import scale_by_lbfgs as scale_by_lbfgs
    from gradtx.optimizers.lion import lion as lion
    from gradtx.optimizers.lion import scale_by_lion as scale_by_lion
    from gradtx.optimizers.madgrad import madgrad as madgrad
    from gradtx.optimizers.madgrad import scale_by_madgrad as scale_by_madgrad
    from gradtx.optimizers.mars import mars as mars
    from gradtx.optimizers.mars import mars_correction as mars_correction
    from gradtx.optimizers.mars import scale_by_mars as scale_by_mars
    from gradtx.optimizers.momo import momo as momo
    from gradtx.optimizers.momo_adam import momo_adam as momo_adam
    from gradtx.optimizers.mud import mud as mud
    from gradtx.optimizers.mud import scale_by_mud as scale_by_mud
    from gradtx.optimizers.muon import muon as muon
    from gradtx.optimizers.muon import scale_by_muon as scale_by_muon
    from gradtx.optimizers.muon_clip import muon_clip as muon_clip
    from gradtx.optimizers.muon_clip import qk_clip as qk_clip
    from gradtx.optimizers.muonh import muonh as muonh
    from gradtx.optimizers.muown import muown as muown
    from gradtx.optimizers.nadam import nadam as nadam
    from gradtx.optimizers.nadam import scale_by_nadam as scale_by_nadam
    from gradtx.optimizers.nadamw import nadamw as nadamw
    from gradtx.optimizers.noisy_sgd import noisy_sgd as noisy_sgd
    from gradtx.optimizers.normuon import normuon as normuon
    from gradtx.optimizers.normuon import scale_by_normuon as scale_by_normuon
    from gradtx.optimizers.novograd import novograd as novograd
    from gradtx.optimizers.novograd import scale_by_novograd as scale_by_novograd
    from gradtx.optimizers.optimistic_adam import optimistic_adam as optimistic_adam
    from gradtx.optimizers.optimistic_adam_v2 import optimistic_adam_v2 as optimistic_adam_v2
    from gradtx.optimizers.optimistic_gradient_descent import (
        optimistic_gradient_descent as optimistic_gradient_descent,
    )
    from gradtx.optimizers.optimistic_gradient_descent import (
        scale_by_optimistic_gradient as scale_by_optimistic_gradient,
    )
    from gradtx.optimizers.polyak_sgd import polyak_sgd as polyak_sgd
    from gradtx.optimizers.polyak_sgd import scale_by_polyak as scale_by_polyak
    from gradtx.optimizers.prodigy import prodigy as prodigy
    from gradtx.optimizers.psgd_kron import psgd_kron as psgd_kron
    from gradtx.optimizers.psgd_kron import scale_by_psgd_kron as scale_by_psgd_kron
    from gradtx.optimizers.radam import radam as radam
    from gradtx.optimizers.radam import scale_by_radam as scale_by_radam
    from gradtx.optimizers.rmsprop import rmsprop as rmsprop
    from gradtx.optimizers.rmsprop import scale_by_rms as scale_by_rms
    from gradtx.optimizers.rmsprop import scale_by_stddev as scale_by_stddev
    from gradtx.optimizers.rprop import rprop as rprop
    from gradtx.optimizers.rprop import scale_by_rprop as scale_by_rprop
    from gradtx.optimizers.schedule_free_adamw import schedule_free_adamw as schedule_free_adamw
    from gradtx.optimizers.schedule_free_plus_adamw import (
        schedule_free_plus_adamw as schedule_free_plus_adamw,
    )
    from gradtx.optimizers.schedule_free_sgd import schedule_free_sgd as schedule_free_sgd
    from gradtx.optimizers.scion import scale_by_scion as scale_by_scion
    from gradtx.optimizers.scion import scion as scion
    from gradtx.optimizers.sgd import sgd as sgd
    from gradtx.optimizers.shampoo import scale_by_shampoo as scale_by_shampoo
    from gradtx.optimizers.shampoo import shampoo as shampoo
    from gradtx.optimizers.sign_sgd import sign_sgd as sign_sgd
    from gradtx.optimizers.signum import signum as signum
    from gradtx.optimizers.simplified_ademamix import (
        scale_by_simplified_ademamix as scale_by_simplified_ademamix,
    )
    from gradtx.optimizers.simplified_ademamix import simplified_ademamix as simplified_ademamix
    from gradtx.optimizers.sm3 import scale_by_sm3 as scale_by_sm3
    from gradtx.optimizers.sm3 import sm3 as sm3
    from gradtx.optimizers.soap import scale_by_soap as scale_by_soap
    from gradtx.optimizers.soap import soap as soap
    from gradtx.optimizers.sophia import scale_by_sophia as scale_by_sophia
    from gradtx.optimizers.sophia import sophia as sophia
    from gradtx.optimizers.stable_adamw import scale_by_stable_adamw as scale_by_stable_adamw
    from gradtx.optimizers.stable_adamw import stable_adamw as stable_adamw
    from gradtx.optimizers.tiger import scale_by_tiger as scale_by_tiger
    from gradtx.optimizers.tiger import tiger as tiger
    from gradtx.optimizers.yogi import scale_by_yogi as scale_by_yogi
    from gradtx.optimizers.yogi import yogi as yogi
    from gradtx.schedules.cosine import cosine_decay_schedule as cosine_decay_schedule
    from gradtx.schedules.decay import exponential_decay as exponential_decay
    from gradtx.schedules.decay import power_law_schedule as power_law_schedule
    from gradtx.schedules.fast_slow import (
        fast_slow_decay_schedule as fast_slow_decay_schedule,
    )
    from gradtx.schedules.half_life import half_life_schedule as half_life_schedule
    from gradtx.schedules.join import join_schedules as join_schedules
    from gradtx.schedules.join import shift_schedule as shift_schedule
    from gradtx.schedules.join import with_warmup as with_warmup
    from gradtx.schedules.phases import constant as constant
    from gradtx.schedules.phases import cooldown as cooldown
    from gradtx.schedules.phases import phases as phases
    from gradtx.schedules.phases import warmup as warmup
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
    from gradtx.schedules.restarts import restarts as restarts
    from gradtx.schedules.stateful import StatefulSchedule as StatefulSchedule
    from gradtx.schedules.stateful import WrappedSchedule as WrappedSchedule
    from gradtx.schedules.warmup import inverse_sqrt_schedule as inverse_sqrt_schedule
    from gradtx.schedules.warmup import sgdr_schedule as sgdr_schedule
    from gradtx.schedules.warmup import warmup_constant_schedule as warmup_constant_schedule
    from gradtx.schedules.warmup import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
    from gradtx.schedules.warmup import (
        warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
    )
    from gradtx.schedules.warmup import warmup_stable_decay_schedule as warmup_stable_decay_schedule
    from gradtx.sharding.check_hosts import check_hosts as check_hosts
    from gradtx.sharding.offloaded import offloaded as offloaded
    from gradtx.sharding.state_shardings import state_shardings as state_shardings
    from gradtx.sharding.zero import sharded as sharded
    from gradtx.storage.compare import compare_storage as compare_storage
    from gradtx.storage.master_weights import master_weights as master_weights
    from gradtx.storage.stored import stored as stored
    from gradtx.training.apply import apply_updates as apply_updates
    from gradtx.training.apply import update_params as update_params
    from gradtx.training.eval_params import eval_params as eval_params
    from gradtx.training.hyperparams import hyperparams as hyperparams
    from gradtx.training.hyperparams import replace as replace
    from gradtx.training.hyperparams import vmap_axes as vmap_axes
    from gradtx.training.make_step import make_step as make_step
    from gradtx.training.reports import loss_scale as loss_scale
    from gradtx.training.targets import incremental_update as incremental_update
    from gradtx.training.targets import periodic_update as periodic_update
    from gradtx.transforms.adaptive_clipping import adaptive_grad_clip as adaptive_grad_clip
    from gradtx.transforms.centering import centralize as centralize
    from gradtx.transforms.clip_by_zscore import clip_by_zscore as clip_by_zscore
    from gradtx.transforms.clipping import clip as clip
    from gradtx.transforms.clipping import clip_by_block_rms as clip_by_block_rms
    from gradtx.transforms.clipping import clip_by_global_norm as clip_by_global_norm
    from gradtx.transforms.constraints import keep_params_nonnegative as keep_params_nonnegative
    from gradtx.transforms.constraints import zero_nans as zero_nans
    from gradtx.transforms.every import apply_every as apply_every
    from gradtx.transforms.freezing import freeze as freeze
    from gradtx.transforms.freezing import selective_transform as selective_transform
    from gradtx.transforms.hutchinson import (
        hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian,
    )
    from gradtx.transforms.input_moments import scale_by_input_moments as scale_by_input_moments
    from gradtx.transforms.momentum import ema as ema
    from gradtx.transforms.momentum import scale_by_momentum as scale_by_momentum
    from gradtx.transforms.momentum import trace as trace
    from gradtx.transforms.momentum_kernel import MomentumKernel as MomentumKernel
    from gradtx.transforms.momentum_kernels import ademamix_kernel as ademamix_kernel
    from gradtx.transforms.momentum_kernels import bi_maxwell as bi_maxwell
    from gradtx.transforms.momentum_kernels import exponentials as exponentials
    from gradtx.transforms.momentum_kernels import k_maxwell as k_maxwell
    from gradtx.transforms.momentum_kernels import max_entropy as max_entropy
    from gradtx.transforms.monitoring import measure_with_ema as measure_with_ema
    from gradtx.transforms.monitoring import monitor as monitor
    from gradtx.transforms.monitoring import snapshot as snapshot
    from gradtx.transforms.multi_normal import multi_normal as multi_normal
    from gradtx.transforms.noise import add_noise as add_noise
    from gradtx.transforms.normalizing import normalize as normalize
    from gradtx.transforms.normalizing import normalize_by_update_norm as normalize_by_update_norm
    from gradtx.transforms.per_example import (
        per_example_global_norm_clip as per_example_global_norm_clip,
    )
    from gradtx.transforms.per_example import (
        per_example_layer_norm_clip as per_example_layer_norm_clip,
    )
    from gradtx.transforms.plateau import reduce_on_plateau as reduce_on_plateau
    from gradtx.transforms.privacy import (
        differentially_private_aggregate as differentially_private_aggregate,
    )
    from gradtx.transforms.project import project as project
    from gradtx.transforms.radial import radial_brake as radial_brake
    from gradtx.transforms.radial import retract as retract
    from gradtx.transforms.scaling import identity as identity
    from gradtx.transforms.scaling import scale as scale
    from gradtx.transforms.scaling import scale_by_schedule as scale_by_schedule
    from gradtx.transforms.scaling import set_to_zero as set_to_zero
    from gradtx.transforms.scaling import stateless as stateless
    from gradtx.transforms.scaling import stateless_with_tree_map as stateless_with_tree_map
    from gradtx.transforms.signs import scale_by_sign as scale_by_sign
    from gradtx.transforms.spellings import EmptyState as EmptyState
    from gradtx.transforms.spellings import init_empty_state as init_empty_state
    from gradtx.transforms.spellings import multi_transform as multi_transform
    from gradtx.transforms.spellings import named_chain as named_chain
    from gradtx.transforms.spellings import with_extra_args_support as with_extra_args_support
    from gradtx.transforms.trust import scale_by_param_block_norm as scale_by_param_block_norm
    from gradtx.transforms.trust import scale_by_param_block_rms as scale_by_param_block_rms
    from gradtx.transforms.trust import scale_by_trust_ratio as scale_by_trust_ratio
    from gradtx.transforms.update_floor import relative_update as relative_update
    from gradtx.transforms.update_floor import update_floor as update_floor
    from gradtx.transforms.zclip import zclip as zclip
    from gradtx.tree.arithmetic import global_norm as global_norm
    from gradtx.tree.moments import bias_correction as bias_correction
    from gradtx.tree.moments import update_infinity_moment as update_infinity_moment
    from gradtx.tree.moments import update_moment as update_moment
    from gradtx.tree.moments import update_moment_per_elem_norm as update_moment_per_elem_norm
    from gradtx.tree.numerics import safe_increment as safe_increment
    from gradtx.tree.numerics import safe_int32_increment as safe_int32_increment
    from gradtx.tree.numerics import safe_norm as safe_norm
    from gradtx.tree.numerics import safe_root_mean_squares as safe_root_mean_squares
    from gradtx.tree.numerics import scale_gradient as scale_gradient
    from gradtx.tree_utils import tree_map_params as tree_map_params
    from gradtx.wrappers.accumulate import accumulate as accumulate
    from gradtx.wrappers.anchor_gradient import anchor_gradient as anchor_gradient
    from gradtx.wrappers.by_role import by_role as by_role
    from gradtx.wrappers.conditional import apply_if_finite as apply_if_finite
    from gradtx.wrappers.conditional import conditionally_mask as conditionally_mask
    from gradtx.wrappers.conditional import conditionally_transform as conditionally_transform
    from gradtx.wrappers.decay_after import decay_after as decay_after
    from gradtx.wrappers.dynamic_loss_scale import dynamic_loss_scale as dynamic_loss_scale
    from gradtx.wrappers.ema_nesterov import ema_nesterov as ema_nesterov
    from gradtx.wrappers.flatten import flatten as flatten
    from gradtx.wrappers.gpa import gpa as gpa
    from gradtx.wrappers.guard import guard as guard
    from gradtx.wrappers.hyperball import hyperball as hyperball
    from gradtx.wrappers.inject_hyperparams import inject_hyperparams as inject_hyperparams
    from gradtx.wrappers.inject_hyperparams import (
        inject_stateful_hyperparams as inject_stateful_hyperparams,
    )
    from gradtx.wrappers.lookahead import LookaheadParams as LookaheadParams
    from gradtx.wrappers.lookahead import lookahead as lookahead
    from gradtx.wrappers.mechanize import mechanize as mechanize
    from gradtx.wrappers.multi_steps import MultiSteps as MultiSteps
    from gradtx.wrappers.multi_steps import skip_large_updates as skip_large_updates
    from gradtx.wrappers.multi_steps import skip_not_finite as skip_not_finite
    from gradtx.wrappers.outer import outer as outer
    from gradtx.wrappers.params_average import params_average as params_average
    from gradtx.wrappers.params_bema import params_bema as params_bema
    from gradtx.wrappers.params_ema import params_ema as params_ema
    from gradtx.wrappers.sam import sam as sam
    from gradtx.wrappers.sam import scale_by_asam as scale_by_asam
    from gradtx.wrappers.schedule_free import schedule_free as schedule_free
    from gradtx.wrappers.schedule_free import schedule_free_eval_params as schedule_free_eval_params
    from gradtx.wrappers.schedule_free_plus import schedule_free_plus as schedule_free_plus
    from gradtx.wrappers.split_real_and_imaginary import (
        split_real_and_imaginary as split_real_and_imaginary,
    )
    from gradtx.wrappers.tail_ema import tail_ema as tail_ema
    from gradtx.wrappers.transfer import transfer as transfer
    from gradtx.wrappers.tunable import tunable as tunable
    from gradtx.wrappers.with_metrics import with_metrics as with_metrics
else:  # a type checker would take every name for one that exists
    _load, _dir, __all__ = attach(__name__, hidden="gradtx.interop.state_classes")

    def __dir__():
        return [*_dir(), "__version__"]

    def __getattr__(name):
        if name == "__version__":
            from importlib.metadata import version

            return version("gradtx")
        return _load(name)
