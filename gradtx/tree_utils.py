"""The old spelling of `gradtx.tree`: each function NAME there is `tree_NAME` here."""

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
