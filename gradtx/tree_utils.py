"""The old spelling of `gradtx.tree`: each function NAME there is `tree_NAME` here."""

import jax
import jax.numpy as jnp

from gradtx.definition.types import PyTree
from gradtx.tree import (
    algebra,
    constants,
    dtypes,
    moments,
    random,
    reductions,
    states,
)
from gradtx.tree.states import NamedTupleKey as NamedTupleKey

tree_add = algebra.add
tree_add_scale = algebra.add_scale
tree_allclose = reductions.allclose
tree_batch_shape = constants.batch_shape
tree_bias_correction = moments.bias_correction
tree_cast = dtypes.cast
tree_cast_like = dtypes.cast_like
tree_clip = algebra.clip
tree_conj = algebra.conj
tree_div = algebra.div
tree_dtype = dtypes.dtype
tree_full_like = constants.full_like
tree_get = states.get
tree_get_all_with_path = states.get_all_with_path
tree_map_params = states.map_params
tree_max = reductions.max
tree_min = reductions.min
tree_mul = algebra.mul
tree_norm = reductions.norm
tree_ones_like = constants.ones_like
tree_random_like = random.random_like
tree_real = algebra.real
tree_scale = algebra.scale
tree_set = states.set
tree_size = reductions.size
tree_split_key_like = random.split_key_like
tree_sub = algebra.sub
tree_sum = reductions.sum
tree_unwrap_random_key_data = random.unwrap_random_key_data
tree_update_infinity_moment = moments.update_infinity_moment
tree_update_moment = moments.update_moment
tree_update_moment_per_elem_norm = moments.update_moment_per_elem_norm
tree_vdot = reductions.vdot
tree_where = algebra.where
tree_zeros_like = constants.zeros_like
# The names of earlier versions of Optax.
tree_l2_norm = reductions.norm
tree_scalar_mul = algebra.scale
tree_add_scalar_mul = algebra.add_scale


def tree_l1_norm(tree: PyTree) -> jax.Array:
    """The L1 norm of all leaves: `tree_norm(tree, ord=1)`.

    >>> import jax.numpy as jnp
    >>> float(tree_l1_norm({"a": jnp.array([3.0, -4.0])}))
    7.0
    """
    return reductions.norm(tree, ord=1)


def tree_linf_norm(tree: PyTree) -> jax.Array:
    """The largest absolute entry of all leaves: `tree_norm(tree, ord=jnp.inf)`.

    >>> import jax.numpy as jnp
    >>> float(tree_linf_norm({"a": jnp.array([3.0, -4.0])}))
    4.0
    """
    return reductions.norm(tree, ord=jnp.inf)
