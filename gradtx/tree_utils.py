"""The old spelling of `gradtx.tree`: each function NAME there is `tree_NAME` here.

`tree_scalar_mul`, `tree_add_scalar_mul`, `tree_l1_norm`, `tree_l2_norm` and `tree_linf_norm` are
names of earlier versions of Optax.
"""

import jax
import jax.numpy as jnp

from gradtx.definition.types import PyTree
from gradtx.tree.algebra import add as tree_add
from gradtx.tree.algebra import add_scale as tree_add_scalar_mul
from gradtx.tree.algebra import add_scale as tree_add_scale
from gradtx.tree.algebra import clip as tree_clip
from gradtx.tree.algebra import conj as tree_conj
from gradtx.tree.algebra import div as tree_div
from gradtx.tree.algebra import mul as tree_mul
from gradtx.tree.algebra import real as tree_real
from gradtx.tree.algebra import scale as tree_scalar_mul
from gradtx.tree.algebra import scale as tree_scale
from gradtx.tree.algebra import sub as tree_sub
from gradtx.tree.algebra import where as tree_where
from gradtx.tree.constants import batch_shape as tree_batch_shape
from gradtx.tree.constants import full_like as tree_full_like
from gradtx.tree.constants import ones_like as tree_ones_like
from gradtx.tree.constants import zeros_like as tree_zeros_like
from gradtx.tree.dtypes import cast as tree_cast
from gradtx.tree.dtypes import cast_like as tree_cast_like
from gradtx.tree.dtypes import dtype as tree_dtype
from gradtx.tree.moments import bias_correction as tree_bias_correction
from gradtx.tree.moments import update_infinity_moment as tree_update_infinity_moment
from gradtx.tree.moments import update_moment as tree_update_moment
from gradtx.tree.moments import update_moment_per_elem_norm as tree_update_moment_per_elem_norm
from gradtx.tree.random import random_like as tree_random_like
from gradtx.tree.random import split_key_like as tree_split_key_like
from gradtx.tree.random import unwrap_random_key_data as tree_unwrap_random_key_data
from gradtx.tree.reductions import allclose as tree_allclose
from gradtx.tree.reductions import max as tree_max
from gradtx.tree.reductions import min as tree_min
from gradtx.tree.reductions import norm as tree_l2_norm
from gradtx.tree.reductions import norm as tree_norm
from gradtx.tree.reductions import size as tree_size
from gradtx.tree.reductions import sum as tree_sum
from gradtx.tree.reductions import vdot as tree_vdot
from gradtx.tree.states import NamedTupleKey
from gradtx.tree.states import get as tree_get
from gradtx.tree.states import get_all_with_path as tree_get_all_with_path
from gradtx.tree.states import map_params as tree_map_params
from gradtx.tree.states import set as tree_set

__all__ = [  # type checkers take a renamed import for a private one
    "NamedTupleKey",
    "tree_add",
    "tree_add_scalar_mul",
    "tree_add_scale",
    "tree_allclose",
    "tree_batch_shape",
    "tree_bias_correction",
    "tree_cast",
    "tree_cast_like",
    "tree_clip",
    "tree_conj",
    "tree_div",
    "tree_dtype",
    "tree_full_like",
    "tree_get",
    "tree_get_all_with_path",
    "tree_l1_norm",
    "tree_l2_norm",
    "tree_linf_norm",
    "tree_map_params",
    "tree_max",
    "tree_min",
    "tree_mul",
    "tree_norm",
    "tree_ones_like",
    "tree_random_like",
    "tree_real",
    "tree_scalar_mul",
    "tree_scale",
    "tree_set",
    "tree_size",
    "tree_split_key_like",
    "tree_sub",
    "tree_sum",
    "tree_unwrap_random_key_data",
    "tree_update_infinity_moment",
    "tree_update_moment",
    "tree_update_moment_per_elem_norm",
    "tree_vdot",
    "tree_where",
    "tree_zeros_like",
]


def tree_l1_norm(tree: PyTree) -> jax.Array:
    """The L1 norm of all leaves: `tree_norm(tree, ord=1)`.

    >>> import jax.numpy as jnp
    >>> float(tree_l1_norm({"a": jnp.array([3.0, -4.0])}))
    7.0
    """
    return tree_norm(tree, ord=1)


def tree_linf_norm(tree: PyTree) -> jax.Array:
    """The largest absolute entry of all leaves: `tree_norm(tree, ord=jnp.inf)`.

    >>> import jax.numpy as jnp
    >>> float(tree_linf_norm({"a": jnp.array([3.0, -4.0])}))
    4.0
    """
    return tree_norm(tree, ord=jnp.inf)
