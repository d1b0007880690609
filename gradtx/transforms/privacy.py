"""Differential privacy: per-example clipping, and noise on the sum."""

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import StructureError
from gradtx.definition.show import show_array
from gradtx.definition.types import Hyperparam, Limit, NonNegative
from gradtx.transforms.clipping import shrink
from gradtx.transforms.noise import choose_key
from gradtx.transforms.per_example import example_squares
from gradtx.tree.arithmetic import sqrt, sum_promoted
from gradtx.tree.casts import as_array, compute_dtype, is_inexact
from gradtx.tree.kernels import map_arrays
from gradtx.tree.keys import as_key, leaf_key, path_hash
from gradtx.tree.maps import map_leaves
from gradtx.tree.paths import flatten, leaf_paths


def _aggregate(updates, slots: None, params, step, *, l2_norm_clip, noise_multiplier, key):
    leaves, treedef = flatten(updates)
    paths = leaf_paths(treedef, updates)
    pairs = zip(paths, leaves, strict=True)
    arrays = {path: as_array(leaf) for path, leaf in pairs if is_inexact(leaf)}
    if not arrays:
        return updates, slots
    batch = _batch_size(arrays)
    norms = sqrt(sum_promoted(map_arrays(example_squares, list(arrays.values()))))
    limit, deviation = (
        jnp.asarray(number, norms.dtype) for number in (l2_norm_clip, noise_multiplier)
    )
    mean = map_leaves(
        _noisy_mean,
        updates,
        jax.tree.unflatten(treedef, [path_hash(path) for path in paths]),
        key=as_key(key),
        step=step,
        factors=shrink(norms, limit) / batch,
        deviation=limit * deviation / batch,
    )
    return mean, slots


def _batch_size(arrays: dict[str, jax.Array]) -> int:
    """The size of the one batch axis in front of every array."""
    first, array = next(iter(arrays.items()))
    for path, other in arrays.items():
        if other.ndim == 0 or other.shape[0] != array.shape[0] or not other.shape[0]:
            also = "" if other is array else f"{first!r} is {show_array(array)}, and "
            raise StructureError(
                "differentially_private_aggregate needs gradients per example, with one batch axis "
                "in front of every array (jax.vmap(jax.grad(loss), in_axes=(None, 0))): "
                f"{also}{path!r} is {show_array(other)}"
            )
    return array.shape[0]


def _noisy_mean(grads, leaf, *, factors, deviation, key, step):
    """The mean of the clipped gradients of one array, with its own noise."""
    # The highest precision: a product in bfloat16 could pass the clipping norm.
    precision = jax.lax.Precision.HIGHEST
    mean = jnp.tensordot(factors.astype(grads.dtype), grads, axes=1, precision=precision)
    # One dtype for all gradients: a run in bfloat16 or x64 draws the same noise.
    drawn = jnp.complex64 if jnp.iscomplexobj(grads) else jnp.float32
    noise = jax.random.normal(leaf_key(key, step, leaf), mean.shape, drawn)
    dtype = compute_dtype(mean.dtype)
    return mean.astype(dtype) + deviation.astype(dtype) * noise.astype(dtype)


@definition
def differentially_private_aggregate(
    l2_norm_clip: Limit,
    noise_multiplier: NonNegative,
    key: Hyperparam | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    r"""Differentially private aggregation: per-example clipping, Gaussian noise, and the mean.

    u = (Σ_b g_b min(1, c / ‖g_b‖) + σ c n) / B, n normal of variance 1. Every gradient has a batch
    axis of size B in front of its parameter's shape; ‖g_b‖ runs over all arrays of example b. u has
    the parameter's shape. When the norm of an example is not finite, its finite entries count as 0,
    and inf and nan do not change.

    When: training on data about persons, with an accountant for σ, B and the number of steps. When
    not: privacy does not matter; gradients per example cost B times the memory.

    Args:
      l2_norm_clip: c ≥ 0, the most that one example may add to the sum.
      noise_multiplier: σ ≥ 0, standard deviation of the noise over c; 0.5 to 4; 0: clipping alone.
      key: a random key, or a number to make one from; a leaf of the definition, so a new one does
        not recompile. **Keep it secret:** anyone who knows it can subtract the noise.
      seed: Optax's name for a `key` that is a number; neither: 0, which is not secret.

    Raises:
      HyperparamError: a negative number; both a key and a seed.
      StructureError: arrays that have no batch axis in common.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.zeros(2)
    >>> tx = gradtx.differentially_private_aggregate(l2_norm_clip=1.0, noise_multiplier=0.0)
    >>> per_example = jnp.array([[3.0, 4.0], [0.0, 0.5]])  # norms 5 and 0.5
    >>> u, _ = tx.update(per_example, tx.init(w), w)
    >>> [round(x, 5) for x in u.tolist()]  # ([0.6, 0.8] + [0, 0.5]) / 2
    [0.3, 0.65]

    See also: `dpsgd`, `per_example_global_norm_clip`.

    Abadi et al. 2016, arXiv 1607.00133, Algorithm 1.
    """
    key = choose_key("differentially_private_aggregate", key, seed)
    return treewise(None, _aggregate, key=key, changes_structure=True)
