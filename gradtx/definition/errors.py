"""The classes of gradtx's errors, which stand in the lowest room: functions of trees raise some."""

from gradtx.tree.errors import HIDDEN as HIDDEN
from gradtx.tree.errors import TRACED as TRACED
from gradtx.tree.errors import AxesError as AxesError
from gradtx.tree.errors import ConfigError as ConfigError
from gradtx.tree.errors import DtypeError as DtypeError
from gradtx.tree.errors import GradtxError as GradtxError
from gradtx.tree.errors import HyperparamError as HyperparamError
from gradtx.tree.errors import MissingExtraError as MissingExtraError
from gradtx.tree.errors import MissingParamsError as MissingParamsError
from gradtx.tree.errors import RoleWarning as RoleWarning
from gradtx.tree.errors import SelectionError as SelectionError
from gradtx.tree.errors import StateError as StateError
from gradtx.tree.errors import StructureError as StructureError
from gradtx.tree.errors import hide_frames as hide_frames
