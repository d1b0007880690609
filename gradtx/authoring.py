"""Parts for authors of rules, wrappers and codecs: gradtx's own optimizers are built with them.

The builders are in `gradtx` itself: `definition`, `leafwise`, `matrixwise`, `treewise`,
`wrapwise`, `descend`, `chain`. This module has ten groups of parts.

- Slots: `zeros` and `real_zeros`, in float32 at least; `real_zeros_along`, for rows or columns;
  `full`, a constant; `float_copy`, a copy of the parameter. `Moments`, `Momentum` and
  `SecondMoment` are slots of many methods; `init_moments` and `init_momentum` make them.
- Marks of slots, for a storage: `Squares` are averages of squares. `Precise` are numbers whose
  small differences matter.
- Averages: `average` is an exponential moving average (EMA). `debias`, `corrected_mean` and
  `corrected_rate` correct its start at zero. `divide_by_root` divides by √r + ε.
- Arithmetic of one array: `abs_sq`, `norm`, `root_mean_square`, `dot`; `finite` replaces inf and
  NaN by 0.
- Tree statistics, in `conclude`: `sum_scalars` adds one scalar per array. `where_finite` keeps the
  old scalar where the new one is not finite.
- Trees, in tree rules and wrappers: `map_leaves` and `make_leaves` apply a function to every array.
  `choose` selects one of two trees. `is_inexact`, `as_array`, `compute_dtype` and `real_dtype`
  describe one leaf; `canonicalize_dtype` is the dtype that JAX will hold.
- Wrappers: `Member` is the transformation inside. `Child` is that transformation with its part of
  a state, for `children` of `treewise`. `keep_if` zeroes updates; `run_if` runs one of two
  functions. `next_count` counts, and saturates where an int32 would wrap.
- Matrices and random bits: `where_due` computes the matrices whose refresh is due. `Noise` is the
  type of a rule's argument `noise`.
- Arguments of builders: `Interval` and `Numeric` declare a range; `Limit` is a bound that may be
  infinite, `ArrayHyperparam` an array of any shape. `Check` tests an option at the call; `Default`
  is the default of a shared flag. `StepFlags`, `DecayFlags` and `MatrixFlags` are shared flags;
  `select_flags` selects those of one kind. `DTypeLike`, `TransformationLike` and `Where` annotate a
  dtype, a transformation, and a choice of leaves.
- Codecs: `Codec` stores a slot in fewer bits; `register_codec` registers it by name. The classes of
  errors are at the root: `gradtx.StateError`.

>>> from gradtx.authoring import average, debias
>>> first = average(0.0, 4.0, 0.9)  # 0.4: the average started at zero
>>> round(float(debias(first, 0.9, 1)), 4)
4.0
"""

from gradtx.compose.choosing import keep_if as keep_if
from gradtx.compose.choosing import run_if as run_if
from gradtx.compose.descend import DecayFlags as DecayFlags
from gradtx.compose.descend import StepFlags as StepFlags
from gradtx.compose.matrixwise import where_due as where_due
from gradtx.compose.transformation import TransformationLike as TransformationLike
from gradtx.compose.wrapwise import Member as Member
from gradtx.definition.types import ArrayHyperparam as ArrayHyperparam
from gradtx.definition.types import Check as Check
from gradtx.definition.types import Default as Default
from gradtx.definition.types import DTypeLike as DTypeLike
from gradtx.definition.types import Interval as Interval
from gradtx.definition.types import Limit as Limit
from gradtx.definition.types import Numeric as Numeric
from gradtx.definition.types import Precise as Precise
from gradtx.definition.types import Squares as Squares
from gradtx.engine.clock import next_count as next_count
from gradtx.engine.rules import Child as Child
from gradtx.engine.selector import Where as Where
from gradtx.storage.codec import Codec as Codec
from gradtx.storage.codec import register_codec as register_codec
from gradtx.transforms.flags import MatrixFlags as MatrixFlags
from gradtx.transforms.flags import select_flags as select_flags
from gradtx.transforms.moments import Moments as Moments
from gradtx.transforms.moments import Momentum as Momentum
from gradtx.transforms.moments import SecondMoment as SecondMoment
from gradtx.transforms.moments import average as average
from gradtx.transforms.moments import corrected_mean as corrected_mean
from gradtx.transforms.moments import corrected_rate as corrected_rate
from gradtx.transforms.moments import debias as debias
from gradtx.transforms.moments import divide_by_root as divide_by_root
from gradtx.transforms.moments import init_moments as init_moments
from gradtx.transforms.moments import init_momentum as init_momentum
from gradtx.tree.arithmetic import abs_sq as abs_sq
from gradtx.tree.arithmetic import dot as dot
from gradtx.tree.arithmetic import finite as finite
from gradtx.tree.arithmetic import norm as norm
from gradtx.tree.arithmetic import root_mean_square as root_mean_square
from gradtx.tree.arithmetic import sum_scalars as sum_scalars
from gradtx.tree.arithmetic import where_finite as where_finite
from gradtx.tree.casts import as_array as as_array
from gradtx.tree.casts import compute_dtype as compute_dtype
from gradtx.tree.casts import float_copy as float_copy
from gradtx.tree.casts import full as full
from gradtx.tree.casts import is_inexact as is_inexact
from gradtx.tree.casts import real_dtype as real_dtype
from gradtx.tree.casts import real_zeros as real_zeros
from gradtx.tree.casts import real_zeros_along as real_zeros_along
from gradtx.tree.casts import zeros as zeros
from gradtx.tree.dtypes import canonicalize_dtype as canonicalize_dtype
from gradtx.tree.maps import choose as choose
from gradtx.tree.maps import make_leaves as make_leaves
from gradtx.tree.maps import map_leaves as map_leaves
from gradtx.tree.rounding import Noise as Noise
