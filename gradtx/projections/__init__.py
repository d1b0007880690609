"""Projections: the nearest point of a set, for arrays, trees and batches of vectors."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the public names, each imported when it is used
    from gradtx.projections.affine import projection_halfspace as projection_halfspace
    from gradtx.projections.affine import projection_hyperplane as projection_hyperplane
    from gradtx.projections.affine import projection_vector as projection_vector
    from gradtx.projections.box import projection_box as projection_box
    from gradtx.projections.box import projection_hypercube as projection_hypercube
    from gradtx.projections.box import projection_linf_ball as projection_linf_ball
    from gradtx.projections.box import projection_non_negative as projection_non_negative
    from gradtx.projections.l1 import projection_l1_ball as projection_l1_ball
    from gradtx.projections.l1 import projection_l1_sphere as projection_l1_sphere
    from gradtx.projections.l2 import projection_l2_ball as projection_l2_ball
    from gradtx.projections.l2 import projection_l2_sphere as projection_l2_sphere
    from gradtx.projections.simplex import projection_simplex as projection_simplex
else:
    __getattr__, __dir__, __all__ = attach(__name__)
