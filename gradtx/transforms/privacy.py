"""Gradients that tell little of any one example: clipped example by example, and noise on their
sum.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.show import show_array
from gradtx.definition.types import Hyperparam, NonNegative
from gradtx.transforms.clipping import shrink
from gradtx.tree.arithmetic import abs_sq, sum_scalars
from gradtx.tree.casts import as_array, compute_dtype, is_inexact
from gradtx.tree.kernels import map_arrays
from gradtx.tree.keys import as_key, leaf_key, path_hash
from gradtx.tree.maps import map_leaves
from gradtx.tree.paths import flatten, leaf_paths


def _aggregate(
    updates: Any,
    slots: None,
    params: Any,
    step: Any,
    *,
    l2_norm_clip: Any,
    noise_multiplier: Any,
    key: Any,
) -> Any:
    leaves, treedef = flatten(updates)
    arrays = {
        path: as_array(leaf)
        for path, leaf in zip(leaf_paths(treedef), leaves, strict=True)
        if is_inexact(leaf)
    }
    if not arrays:
        return updates, slots
    batch = _batch_size(arrays)
    factors = shrink(
        jnp.sqrt(sum_scalars(map_arrays(_squares, list(arrays.values())))),
        jnp.asarray(l2_norm_clip),
    )
    hashes = jax.tree.unflatten(treedef, [path_hash(path) for path in leaf_paths(treedef)])
    told = {
        "factors": factors / batch,
        "deviation": jnp.asarray(l2_norm_clip) * noise_multiplier / batch,
    }
    return map_leaves(_noisy_sum, updates, hashes, key=as_key(key), step=step, **told), slots


def _batch_size(arrays: dict[str, jax.Array]) -> int:
    """The size of the one axis that stands in front of every array."""
    first, array = next(iter(arrays.items()))
    for path, other in arrays.items():
        if other.ndim == 0 or other.shape[0] != array.shape[0] or not other.shape[0]:
            raise StructureError(
                "differentially_private_aggregate needs gradients per example, with one batch axis in front of every array "
                f"(jax.vmap(jax.grad(loss), in_axes=(None, 0))): {first!r} is {show_array(array)}, and {path!r} is {show_array(other)}"
            )
    return array.shape[0]


def _squares(array: jax.Array) -> jax.Array:
    """The squared norm of every example."""
    return jnp.sum(
        abs_sq(array.astype(compute_dtype(array.dtype))), axis=tuple(range(1, array.ndim))
    )


def _noisy_sum(
    grads: jax.Array,
    leaf: jax.Array,
    *,
    factors: jax.Array,
    deviation: jax.Array,
    key: jax.Array,
    step: jax.Array,
) -> Any:
    mean = jnp.tensordot(
        factors.astype(grads.dtype), grads, axes=1, precision=jax.lax.Precision.HIGHEST
    )
    kind = (
        jnp.complex64 if jnp.iscomplexobj(grads) else jnp.float32
    )  # drawn alike in every precision
    return mean + deviation * jax.random.normal(leaf_key(key, step, leaf), mean.shape, kind)


@definition
def differentially_private_aggregate(
    l2_norm_clip: NonNegative,
    noise_multiplier: NonNegative,
    key: Hyperparam | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    r"""From gradients per example to one that tells little of any: u = (Σ_b g_b min(1, c / ‖g_b‖) +
    σ c n) / B, n normal of variance 1.

    Every gradient has a batch axis of size B in front of its parameter's shape; ‖g_b‖ is taken over
    all arrays of example b. u has the parameter's shape. When the norm of an example is not finite,
    its finite entries count for nothing, and the others stay where they are.

    When: training on data about persons, with an accountant for σ, B and the number of steps. When
    not: privacy is no matter; gradients per example cost B times the memory.

    Args:
      l2_norm_clip: c ≥ 0, the most that one example may add to the sum.
      noise_multiplier: σ ≥ 0, standard deviation of the noise over c; 0.5 to 4; 0: only clipped.
      key: a random key, or a number to make one from; a leaf of the definition, so a new one does
        not compile again. **A secret:** who knows it can take the noise away.
      seed: Optax's name for a `key` that is a number; neither: 0, which is no secret.

    Raises:
      HyperparamError: a negative number; both a key and a seed.
      StructureError: arrays that have no batch axis in common.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, w = gradtx.differentially_private_aggregate(l2_norm_clip=1.0, noise_multiplier=0.0), jnp.zeros(2)
    >>> per_example = jnp.array([[3.0, 4.0], [0.0, 0.5]])  # norms 5 and 0.5
    >>> u, _ = tx.update(per_example, tx.init(w), w)
    >>> [round(x, 5) for x in u.tolist()]  # ([0.6, 0.8] + [0, 0.5]) / 2
    [0.3, 0.65]

    See also: `dpsgd`, `per_example_global_norm_clip`.

    Abadi et al. 2016, arXiv 1607.00133, Algorithm 1.
    """
    if key is not None and seed is not None:
        raise HyperparamError(
            f"differentially_private_aggregate: key = {key!r} and seed = {seed!r} say the same; give one of them"
        )
    source = next((given for given in (key, seed) if given is not None), 0)
    return treewise(
        None,
        _aggregate,
        l2_norm_clip=l2_norm_clip,
        noise_multiplier=noise_multiplier,
        key=source,
        changes_structure=True,
    )
