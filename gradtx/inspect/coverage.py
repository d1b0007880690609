"""`coverage`: the optimizer that trains each parameter, as a table of paths."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.types import Params
from gradtx.engine.selector import Leaves, labels
from gradtx.inspect.members import Members, member_tree
from gradtx.inspect.patterns import group_paths
from gradtx.inspect.trainers import Trainer, active_rules, trainers
from gradtx.tree.paths import flatten, leaf_paths


class Coverage(dict[str, str]):
    """Path -> training in words; prints as a table with one line for repeated blocks."""

    def __init__(
        self,
        trained: Mapping[str, str],
        groups: Mapping[str, str] | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(trained)
        self.groups: dict[str, str] = dict(groups or {})
        """Path -> the group of a partition alone."""
        self.reasons: dict[str, str] = dict(reasons or {})
        """Path -> why roles put it into its group."""

    def __str__(self) -> str:
        keys = [(text, self.reasons.get(path, "")) for path, text in self.items()]
        rows = [
            (_with_count(group.path, len(group.indices)), *keys[group.indices[0]])
            for group in group_paths(list(self), keys)
        ]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        return "\n".join(
            f"{path:<{widths[0]}}  {text:<{widths[1]}}  {reason}".rstrip()
            for path, text, reason in rows
        )


def _with_count(path: str, count: int) -> str:
    return path if count == 1 else f"{path} × {count:,}"


def coverage(tx: GradientTransformation | Sequence[Any], params: Params) -> Coverage:
    """Show which optimizer trains each parameter, and which ones decay or are frozen.

    A dict from path to words: "adamw, decayed", "frozen", "head: sgd" for the group "head" of a
    partition, "raw gradient" where no optimizer acts. `print` shows one line for repeated blocks.
    Where roles decide (`by_role`, `muon`), it also prints the role of every leaf, its axes as a
    matrix, and the reason.

    When: to check masks, parameter groups and frozen layers before a training. When not: you want
    the memory and the learning rates as well; take `describe`.

    Args:
      tx: a definition; an Optax transformation; or a list of rules `[(pattern, group), ...]`.
      params: the parameters, or their shapes.

    Returns:
      The dict, with `groups` (path -> group of a partition) and `reasons` (path -> reason of a
      role).

    Raises:
      SelectionError: as `masked` and `partition` do.

    >>> import gradtx, jax.numpy as jnp
    >>> block = {"bias": jnp.zeros(2), "kernel": jnp.zeros((2, 2))}
    >>> params = {"blocks": [block] * 12, "embed": jnp.zeros((9, 2))}
    >>> tx = gradtx.chain(gradtx.adamw(1e-3, mask=r"kernel$"), gradtx.freeze(r"^embed"))
    >>> print(gradtx.coverage(tx, params))
    blocks/*/bias × 12    adamw
    blocks/*/kernel × 12  adamw, decayed
    embed                 frozen
    >>> gradtx.coverage([(r"bias$", "plain"), (r".*", "rest")], {"bias": 0.0, "kernel": 0.0})
    {'bias': 'plain', 'kernel': 'rest'}

    See also: `describe`, `partition`, `masked`, `freeze`.
    """
    values, treedef = flatten(params)
    leaves = Leaves(treedef, leaf_paths(treedef, params), values)
    if not isinstance(tx, GradientTransformation) and not _is_pairs(tx):
        tx = GradientTransformation.coerce(tx, "coverage: tx")
    if not isinstance(tx, GradientTransformation):
        groups = tuple(dict.fromkeys(group for _, group in tx))
        pairs = zip(leaves.paths, labels(tx, leaves, groups, "coverage"), strict=True)
        groups = {path: group for path, group in pairs if group is not None}
        return Coverage(groups, groups)
    rules = active_rules(tx, Members(member_tree(tx)), leaves)
    return _table(dict(zip(leaves.paths, trainers(rules, leaves), strict=True)))


def _table(trained: Mapping[str, Trainer | None]) -> Coverage:
    known = {path: one for path, one in trained.items() if one is not None}
    return Coverage(
        {path: one.text for path, one in known.items()},
        {path: one.group for path, one in known.items() if one.group},
        {path: one.reason for path, one in known.items() if one.reason},
    )


def _is_pairs(rules: Any) -> bool:
    """Whether a value is a list of rules `(pattern, group)`."""
    is_list = isinstance(rules, list | tuple) and not hasattr(rules, "_fields")
    return is_list and all(isinstance(rule, list | tuple) and len(rule) == 2 for rule in rules)
