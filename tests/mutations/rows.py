"""All rows, in the order in which the runner takes them."""

from tests.mutations.rows_authors import MUTATIONS as AUTHORS
from tests.mutations.rows_averages import AVERAGES
from tests.mutations.rows_cross_entropy import CROSS_ENTROPY
from tests.mutations.rows_engine import ENGINE
from tests.mutations.rows_groups import GROUPS
from tests.mutations.rows_interop import INTEROP
from tests.mutations.rows_kernels import KERNELS
from tests.mutations.rows_kronecker import KRONECKER
from tests.mutations.rows_losses import LOSSES
from tests.mutations.rows_matrices import MATRIX_RULES
from tests.mutations.rows_methods import MUTATIONS
from tests.mutations.rows_microbatching import MICROBATCHING
from tests.mutations.rows_norm_control import NORM_CONTROL
from tests.mutations.rows_outer import OUTER
from tests.mutations.rows_production import MUTATIONS as PRODUCTION
from tests.mutations.rows_projections import PROJECTIONS
from tests.mutations.rows_recipes import RECIPES
from tests.mutations.rows_relatives import RELATIVES
from tests.mutations.rows_schedules import SCHEDULES
from tests.mutations.rows_scripts import SCRIPTS
from tests.mutations.rows_sets import SETS_AND_PAIRS
from tests.mutations.rows_spectra import SPECTRA
from tests.mutations.rows_storage import STORAGE
from tests.mutations.rows_tails import TAILS_AND_WINDOWS
from tests.mutations.rows_transfer import TRANSFER
from tests.mutations.rows_trees import TREES
from tests.mutations.rows_uses import USES

ROWS = [
    *MUTATIONS,
    *RELATIVES,
    *AVERAGES,
    *TAILS_AND_WINDOWS,
    *PRODUCTION,
    *GROUPS,
    *OUTER,
    *ENGINE,
    *STORAGE,
    *MATRIX_RULES,
    *SPECTRA,
    *KRONECKER,
    *KERNELS,
    *PROJECTIONS,
    *SETS_AND_PAIRS,
    *AUTHORS,
    *TRANSFER,
    *TREES,
    *INTEROP,
    *SCHEDULES,
    *SCRIPTS,
    *MICROBATCHING,
    *LOSSES,
    *CROSS_ENTROPY,
    *RECIPES,
    *USES,
    *NORM_CONTROL,
]
