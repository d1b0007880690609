"""Arithmetic, paths, casts and kernels over pytrees; knows nothing of optimizers.

Functions of trees: `gradtx.tree.norm`, `gradtx.tree.get`, and those beside them.
"""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the names of `optax.tree`
    from gradtx.tree.algebra import add as add
    from gradtx.tree.algebra import add_scale as add_scale
    from gradtx.tree.algebra import clip as clip
    from gradtx.tree.algebra import conj as conj
    from gradtx.tree.algebra import div as div
    from gradtx.tree.algebra import mul as mul
    from gradtx.tree.algebra import real as real
    from gradtx.tree.algebra import scale as scale
    from gradtx.tree.algebra import sub as sub
    from gradtx.tree.algebra import where as where
    from gradtx.tree.constants import batch_shape as batch_shape
    from gradtx.tree.constants import full_like as full_like
    from gradtx.tree.constants import ones_like as ones_like
    from gradtx.tree.constants import zeros_like as zeros_like
    from gradtx.tree.dtypes import cast as cast
    from gradtx.tree.dtypes import cast_like as cast_like
    from gradtx.tree.dtypes import dtype as dtype
    from gradtx.tree.moments import bias_correction as bias_correction
    from gradtx.tree.moments import update_infinity_moment as update_infinity_moment
    from gradtx.tree.moments import update_moment as update_moment
    from gradtx.tree.moments import update_moment_per_elem_norm as update_moment_per_elem_norm
    from gradtx.tree.random import random_like as random_like
    from gradtx.tree.random import split_key_like as split_key_like
    from gradtx.tree.random import unwrap_random_key_data as unwrap_random_key_data
    from gradtx.tree.reductions import allclose as allclose
    from gradtx.tree.reductions import max as max
    from gradtx.tree.reductions import min as min
    from gradtx.tree.reductions import norm as norm
    from gradtx.tree.reductions import size as size
    from gradtx.tree.reductions import sum as sum
    from gradtx.tree.reductions import vdot as vdot
    from gradtx.tree.states import get as get
    from gradtx.tree.states import get_all_with_path as get_all_with_path
    from gradtx.tree.states import map_params as map_params
    from gradtx.tree.states import set as set
else:
    __getattr__, __dir__, __all__ = attach(__name__)
