"""Restore a tree from the entries of a checkpoint, and list the rest."""

import difflib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx.definition.errors import GradtxError, StateError
from gradtx.interop.checkpoint_leaves import plain_shape
from gradtx.interop.matching import Names, StateMatch, match_paths, states_of

Missing = Literal["error", "init"]
LOGGER = logging.getLogger("gradtx")
CLOCK = "applied"
"""The slot in which wrappers count the updates of their members."""


def match_entries(
    like: Any,
    expected: Mapping[str, Any],
    entries: Mapping[str, Any],
    missing: Missing = "error",
    rename: Names | None = None,
    quiet: bool = False,
) -> StateMatch:
    """Match the leaves of `like` with entries that have a shape; log those that do not fit.

    Raises:
      GradtxError: `missing` is not one of its two words.
      StateError: `missing` is "error", and entries are missing or unexpected.
    """
    if missing not in ("error", "init"):
        raise GradtxError(f"missing = {missing!r} must be 'error' or 'init'")
    pairs = match_paths(like, expected, entries, rename or {})
    if missing == "error":
        _check_names(expected, entries, pairs)
    match = _match_shapes(expected, entries, pairs, missing)
    if (match.initialized or match.dropped) and not quiet:
        # A restart from zeros changes a training: the log shows it unless the user silences it.
        LOGGER.warning("a checkpoint fits in part: %s", match)
    return match


def _match_shapes(
    expected: Mapping[str, Any], entries: Mapping[str, Any], pairs: Names, missing: Missing
) -> StateMatch:
    restored, initialized = dict[str, str](), dict[str, str]()
    for path, leaf in expected.items():
        if path not in pairs:
            initialized[path] = "the checkpoint has no entry for it"
        elif missing == "init" and (reason := _other_shape(leaf, entries[pairs[path]])):
            initialized[path] = reason
        else:
            restored[path] = pairs[path]
    used = set(restored.values())
    return StateMatch(restored, initialized, tuple(name for name in entries if name not in used))


def _other_shape(leaf: Any, entry: Any) -> str:
    """How the shape of an entry differs from that of its leaf; "" where it does not."""
    shape, wanted = tuple(getattr(entry, "shape", ())), plain_shape(leaf)
    return f"its shape is {wanted}, and {shape} in the checkpoint" if shape != wanted else ""


def fill_tree(like: Any, leaves: Mapping[str, Any], expected: Mapping[str, Any]) -> Any:
    """The tree `like` with restored leaves by path; every other leaf remains as it is there.

    Raises:
      StateError: such a leaf is a struct of a shape and a dtype, which has no numbers.
    """
    clocks = _clocks(like, leaves, expected)
    values = [
        leaves[path] if path in leaves else clocks.get(path, leaf)
        for path, leaf in expected.items()
    ]
    for path, value in zip(expected, values, strict=True):
        if isinstance(value, jax.ShapeDtypeStruct):
            raise StateError(
                f"the checkpoint has no entry for {path!r}, and `like` has no numbers there: make "
                f"`like` with tx.init(params), whose arrays missing='init' takes"
            )
    return jax.tree.unflatten(jax.tree.structure(like), values)


def _clocks(
    like: Any, leaves: Mapping[str, Any], expected: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The clocks of wrappers that the checkpoint lacks: every update so far was their member's.

    A clock at 0 would begin bias correction and schedules again, with moments that are old.
    """
    counts = [(prefix, leaves.get(f"{prefix}count")) for prefix, _ in states_of(like)]
    return {
        path: jnp.array(count, leaf.dtype)  # a copy: one array twice could not be donated
        for prefix, count in counts
        for path, leaf in expected.items()
        if count is not None and path not in leaves and _is_clock(path, prefix, leaf)
    }


def _is_clock(path: str, prefix: str, leaf: Any) -> bool:
    in_slots = path.startswith(f"{prefix}slots/") and path.endswith(f"/{CLOCK}")
    return (
        in_slots and getattr(leaf, "shape", None) == () and jnp.issubdtype(leaf.dtype, jnp.integer)
    )


def _check_names(expected: Mapping[str, Any], entries: Mapping[str, Any], pairs: Names) -> None:
    """Raise where entries are missing or unexpected."""
    used = set(pairs.values())
    missing = [path for path in expected if path not in pairs]
    unexpected = [name for name in entries if name not in used]
    if not missing and not unexpected:
        return
    parts = [f"there is no {_first(missing)}"] if missing else []
    parts += [f"{_first(unexpected)} is unexpected"] if unexpected else []
    near = _nearest(missing[0], unexpected) if missing else None
    advice = (
        f"; if {near!r} is meant for it, pass rename={{{near!r}: {missing[0]!r}}}" if near else ""
    )
    raise StateError(
        f"the checkpoint does not fit: {', and '.join(parts)}. Make `like` with the definition and "
        f"the parameters that were saved, or restore what still fits with missing='init'{advice}"
    )


def _nearest(name: str, others: Sequence[str]) -> str | None:
    """The entry that a new name replaced, probably; None where no name is similar.

    Folders and leaves that two names share say nothing about the part that differs.
    """
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.0)
    if not near:
        return None
    ours, theirs = name.split("/"), near[0].split("/")
    for _ in range(2):  # the leading names, then the trailing ones
        while ours and theirs and ours[0] == theirs[0]:
            ours, theirs = ours[1:], theirs[1:]
        ours, theirs = ours[::-1], theirs[::-1]
    ratio = difflib.SequenceMatcher(None, "/".join(ours), "/".join(theirs)).ratio()
    return near[0] if ratio >= 0.5 or not ours or not theirs else None


def _first(names: Sequence[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"
