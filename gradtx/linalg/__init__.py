"""Linear algebra for optimizers of matrices: orthogonal factors, inverse roots, eigenbases,
Kronecker and triangular factors, blocks. Functions are batched and have no state.
"""

from gradtx.linalg.blocking import block_grid as block_grid
from gradtx.linalg.blocking import join_blocks as join_blocks
from gradtx.linalg.blocking import split_blocks as split_blocks
from gradtx.linalg.diagonals import set_diags as set_diags
from gradtx.linalg.diagonals import tile_second_to_last_dim as tile_second_to_last_dim
from gradtx.linalg.iterate_sums import spectral_coefficients as spectral_coefficients
from gradtx.linalg.kronecker import Factors as Factors
from gradtx.linalg.kronecker import factor_sides as factor_sides
from gradtx.linalg.kronecker import kronecker_factors as kronecker_factors
from gradtx.linalg.kronecker import multiply_sides as multiply_sides
from gradtx.linalg.kronecker import update_factors as update_factors
from gradtx.linalg.orthogonalize import orthogonalize as orthogonalize
from gradtx.linalg.polar_express import polar_express_coefficients as polar_express_coefficients
from gradtx.linalg.presets import worst_error as worst_error
from gradtx.linalg.roots import eigenbasis as eigenbasis
from gradtx.linalg.roots import inverse_root as inverse_root
from gradtx.linalg.roots import refresh_eigenbasis as refresh_eigenbasis
from gradtx.linalg.spectra import spectrum_error as spectrum_error
from gradtx.linalg.triangular import apply_triangular as apply_triangular
from gradtx.linalg.triangular import fit_triangular as fit_triangular
from gradtx.linalg.triangular import norm_lower_bound as norm_lower_bound
