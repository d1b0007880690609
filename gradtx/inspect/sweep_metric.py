"""The metric of a sweep: the result of each training that ranks the points."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.show import show, show_array
from gradtx.definition.spelling import suggest
from gradtx.tree.paths import path_text

Mode = Literal["min", "max"]
DEFAULT = "loss"
"""The metric where `train` returns several results and the caller names none."""


def check_mode(mode: str) -> None:
    if mode not in get_args(Mode):
        raise HyperparamError(f"sweep: mode = {show(mode)} is unknown; choose one of 'min', 'max'")


def find_metric(results: Any, metric: str | int | None) -> str | None:
    """The path of the metric among the results of one training, which may be shapes.

    None: the caller names none, and several could be meant.

    Raises:
      GradtxError: no result has this path, or it is not one number per training or per step.
    """
    leaves = {
        path_text(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(results)[0]
    }
    if metric is None:
        path = next(iter(leaves)) if len(leaves) == 1 else DEFAULT
        return path if path in leaves and is_metric(leaves[path]) else None
    path = str(metric)
    if path not in leaves:
        raise GradtxError(
            f"sweep: train returned no {path!r} for metric={suggest(path, leaves) or ';'} "
            f"{'It' if suggest(path, leaves) else 'it'} returned {_paths(leaves)}"
        )
    if not is_metric(leaves[path]):
        raise GradtxError(
            f"sweep: the metric {path!r} is {show_array(leaves[path])} for each training; return "
            "one real number, or one for each step"
        )
    return path


def is_metric(leaf: Any) -> bool:
    """Whether a result of one training is one real number, or one for each step."""
    is_real = not jnp.issubdtype(leaf.dtype, jnp.complexfloating)
    return is_real and len(leaf.shape) <= 1 and 0 not in leaf.shape


def no_metric(results: Any) -> GradtxError:
    """The error where a result must be ranked, and the caller names none."""
    leaves = {
        path_text(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(results)[0]
    }
    return GradtxError(
        f"sweep: no metric ranks the points: train returned {_paths(leaves)}; name one number per "
        "training or step, sweep(..., metric='loss') or result.rank_by('loss')"
    )


def _paths(leaves: Mapping[str, Any]) -> str:
    """The results by path, shortened where they are many, as parameters are."""
    shown = [f"{path!r}" if path else "one array" for path in leaves]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def final_values(results: Any, metric: str, shape: Sequence[int]) -> np.ndarray:
    """The metric at the end of each training, float64 of shape `shape`."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(results)[0]:
        if path_text(path) == metric:
            array = np.asarray(leaf, np.float64)
            return array if array.ndim == len(shape) else array[..., -1]
    raise no_metric(results)


def one_training(results: Any, shape: Sequence[int]) -> Any:
    """The shapes of the results of one training."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[len(shape) :], leaf.dtype), results
    )
