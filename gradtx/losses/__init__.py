"""Losses, one number per example or per entry; reduce them with a mean or a sum."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the public names, each imported when it is used
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
    from gradtx.losses.divergences import (
        kl_divergence_with_log_targets as kl_divergence_with_log_targets,
    )
    from gradtx.losses.fenchel_young import make_fenchel_young_loss as make_fenchel_young_loss
    from gradtx.losses.hinge import hinge_loss as hinge_loss
    from gradtx.losses.hinge import multiclass_hinge_loss as multiclass_hinge_loss
    from gradtx.losses.hinge import multiclass_perceptron_loss as multiclass_perceptron_loss
    from gradtx.losses.hinge import perceptron_loss as perceptron_loss
    from gradtx.losses.poly_loss import poly_loss_cross_entropy as poly_loss_cross_entropy
    from gradtx.losses.ranking import ranking_softmax_loss as ranking_softmax_loss
    from gradtx.losses.regression import huber_loss as huber_loss
    from gradtx.losses.regression import l2_loss as l2_loss
    from gradtx.losses.regression import log_cosh as log_cosh
    from gradtx.losses.regression import squared_error as squared_error
    from gradtx.losses.segmentation import binary_dice_loss as binary_dice_loss
    from gradtx.losses.segmentation import dice_loss as dice_loss
    from gradtx.losses.segmentation import (
        multiclass_generalized_dice_loss as multiclass_generalized_dice_loss,
    )
    from gradtx.losses.self_supervised import ntxent as ntxent
    from gradtx.losses.self_supervised import triplet_margin_loss as triplet_margin_loss
    from gradtx.losses.sigmoid import sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy
    from gradtx.losses.sigmoid import sigmoid_focal_loss as sigmoid_focal_loss
    from gradtx.losses.smoothing import smooth_labels as smooth_labels
    from gradtx.losses.sparsemax import multiclass_sparsemax_loss as multiclass_sparsemax_loss
    from gradtx.losses.sparsemax import sparsemax_loss as sparsemax_loss
else:
    __getattr__, __dir__, __all__ = attach(__name__)
