"""Entries of states by name: find them, replace them, and map those shaped like parameters."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.tree_util import DictKey, GetAttrKey

from gradtx.tree.errors import StructureError

KeyPath = tuple[Any, ...]
Filtering = Callable[[KeyPath, Any], bool]


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """A key of a path in a tree: the field of a NamedTuple, with the name of its class.

    `get_all_with_path` puts it into paths where JAX has a `GetAttrKey`, so that a filter can tell
    two classes apart that have a field of one name.

    Args:
      tuple_name: the name of the class.
      name: the name of the field.

    >>> import gradtx, jax.numpy as jnp
    >>> from gradtx.tree.states import get_all_with_path
    >>> path, value = get_all_with_path(gradtx.adam(0.1).init(jnp.zeros(2)), "nu")[0]
    >>> path[-1]
    NamedTupleKey(tuple_name='Moments', name='nu')
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


def _is_named_tuple(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _children(node: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """The nodes directly below one with their keys, None included, and the structure above them."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda one: one is not node)
    if treedef == LEAF:
        return [], treedef
    owner = type(node).__name__
    named = _is_named_tuple(node)
    return [
        (NamedTupleKey(owner, path[0].name) if named else path[0], child) for path, child in pairs
    ], treedef


LEAF = jax.tree.structure(0)


def _is_named(entry: Any, key: Any) -> bool:
    if isinstance(entry, DictKey):
        return type(entry.key) is type(key) and entry.key == key
    return isinstance(entry, GetAttrKey | NamedTupleKey) and entry.name == key


def _is_entry(entry: Any, child: Any, key: Any) -> bool:
    """Whether a child is an entry of a name: the slot `trace`, not the member `trace` around it."""
    holds_it = isinstance(entry, DictKey) and _is_named_tuple(child) and key in child._fields
    return _is_named(entry, key) and not holds_it


def _own_matches(node: Any, path: KeyPath, key: Any) -> list[tuple[KeyPath, Any]]:
    """What a node itself has of a name: its fields, or the node where its class has the name."""
    own = [(path, node)] if _is_named_tuple(node) and type(node).__name__ == key else []
    children = _children(node)[0]
    pairs = [(entry, child) for entry, child in children if _is_entry(entry, child, key)]
    return own + [((*path, entry), child) for entry, child in pairs]


def _search(node: Any, path: KeyPath, key: Any) -> Iterator[tuple[KeyPath, Any]]:
    """All matches in a tree; those of outer nodes come before those inside of them."""
    parents = list(_parents(node, path, key))
    for _, _, matches in parents:
        yield from matches
    for parent, where, _ in parents:
        for entry, child in _children(parent)[0]:
            yield from _search(child, (*where, entry), key)


def _parents(node: Any, path: KeyPath, key: Any) -> Iterator[tuple[Any, KeyPath, list[Any]]]:
    """The outermost nodes that have a match of their own."""
    matches = _own_matches(node, path, key)
    if matches:
        yield node, path, matches
        return
    for entry, child in _children(node)[0]:
        yield from _parents(child, (*path, entry), key)


def get_all_with_path(
    tree: Any, key: Any, filtering: Filtering | None = None
) -> list[tuple[KeyPath, Any]]:
    """Find all entries of a state that have a name, with their paths.

    A name is a key of a dict, a field of a NamedTuple or of a registered dataclass, or the name of
    the class of a NamedTuple. Outer entries come before those inside of them. A NamedTuple in a
    dict is not an entry of a name that one of its fields has.

    Args:
      tree: a state of gradtx or of another library, or any pytree.
      key: the name.
      filtering: `filtering(path, value)` says whether an entry counts.

    Returns: pairs of path and value; `jax.tree_util.keystr` prints a path.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> from gradtx.tree.states import get_all_with_path
    >>> tx = gradtx.chain(gradtx.adam(0.1), gradtx.ema(0.9))
    >>> for path, value in get_all_with_path(tx.init(jnp.zeros(2)), "ema"):
    ...     print(jax.tree_util.keystr(path))
    State.slots['ema']Average.ema

    See also: `get`, `set`; `gradtx.flatten_state` has all paths as text.
    """
    entries: dict[KeyPath, Any] = {}
    for path, value in _search(tree, (), key):
        if path not in entries and (filtering is None or filtering(path, value)):
            entries[path] = value
    return list(entries.items())


def get(tree: Any, key: Any, default: Any = None, filtering: Filtering | None = None) -> Any:
    """Read the one entry of a state that has a name.

    Args:
      tree: a state of gradtx or of another library, or any pytree.
      key: the name: a key of a dict, a field of a NamedTuple or of a registered dataclass, or the
        name of the class of a NamedTuple.
      default: the result where there is none.
      filtering: `filtering(path, value)` says whether an entry counts.

    Returns: the entry.

    Raises:
      KeyError: several entries have the name; the error lists their paths.

    >>> import gradtx, jax.numpy as jnp
    >>> from gradtx.tree.states import get
    >>> state = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)).init({"w": jnp.zeros(2)})
    >>> get(state, "count").item(), get(state, "mu")["w"].tolist(), get(state, "trace")
    (0, [0.0, 0.0], None)

    See also: `get_all_with_path`, `set`.
    """
    entries = get_all_with_path(tree, key, filtering)
    if len(entries) > 1:
        paths = ", ".join(jax.tree_util.keystr(path) or "the tree itself" for path, _ in entries)
        raise KeyError(
            f"get: {len(entries)} entries are named {key!r}: {paths}; choose one by "
            "filtering(path, value)"
        )
    return entries[0][1] if entries else default


def set(tree: Any, filtering: Filtering | None = None, /, **kwargs: Any) -> Any:
    """Replace all entries of a state that have a name.

    Entries inside of a replaced one are not looked at.

    Args:
      tree: a state of gradtx or of another library, or any pytree.
      filtering: `filtering(path, value)` says whether an entry is replaced.
      **kwargs: new values by the names of entries.

    Returns: the tree with new entries; what does not change is not copied.

    Raises:
      KeyError: no entry has one of the names, or none that the filter accepts.

    >>> import gradtx, jax.numpy as jnp
    >>> from gradtx.tree.states import get, set
    >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(0.1)
    >>> state = set(tx.init(jnp.zeros(2)), learning_rate=jnp.array(0.5))
    >>> tx.update(jnp.ones(2), state)[0].tolist()
    [-0.5, -0.5]

    See also: `get`, `get_all_with_path`; `gradtx.replace` for definitions.
    """
    for key in kwargs:
        if not get_all_with_path(tree, key, filtering):
            rest = " that the filter accepts" if filtering is not None else ""
            raise KeyError(f"set: no entry is named {key!r}{rest}; the tree has {_names(tree)}")
    return _replace(tree, (), filtering, kwargs)


def _replace(node: Any, path: KeyPath, filtering: Filtering | None, new: dict[str, Any]) -> Any:
    for key, value in new.items():
        is_class = _is_named_tuple(node) and type(node).__name__ == key
        if (is_class or (path and _is_entry(path[-1], node, key))) and (
            filtering is None or filtering(path, node)
        ):
            return value
    children, treedef = _children(node)
    changed = [_replace(child, (*path, entry), filtering, new) for entry, child in children]
    is_same = all(one is child for one, (_, child) in zip(changed, children, strict=True))
    return node if is_same else jax.tree.unflatten(treedef, changed)


def _names(tree: Any) -> str:
    """The names of all entries of a tree, for an error."""
    names: dict[str, None] = {}
    nodes = [tree]
    while nodes:
        for entry, child in _children(nodes.pop(0))[0]:
            nodes.append(child)
            if isinstance(entry, DictKey | GetAttrKey | NamedTupleKey):
                names[repr(entry.key if isinstance(entry, DictKey) else entry.name)] = None
    return ", ".join(names) or "none"


@jax.tree_util.register_pytree_node_class
class _Placeholder:
    """A node without leaves in the place of the parameters: `init` copies it to slots like them."""

    def tree_flatten(self) -> tuple[tuple[()], None]:
        return (), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: Any) -> "_Placeholder":
        return cls()


def map_params(
    initable: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: Any,
    transform_non_params: Callable[..., Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """Map a function over all entries of a state that are shaped like the parameters.

    Where a mask left out a parameter, the state has None (`MaskedNode` in Optax): it does not
    change, unless `is_leaf` accepts it.

    When: shardings, weight norms or resets of moments, beside the parameters' own. When not: you
    want shardings alone; `jax.jit` of `init` takes them as `out_shardings`.

    Args:
      initable: the definition, or its `init`; it is called without arrays.
      f: a function of one array and one leaf of each tree of `rest`.
      state: a state of that definition.
      *rest: trees with the structure of the parameters, or with more below their leaves.
      transform_non_params: a function of all other arrays; None: they do not change.
      is_leaf: where it is True, `f` receives the node itself.

    Returns: a state of the same structure, with the results of both functions.

    Raises:
      StructureError: the state is another definition's, or a tree of `rest` is not like the
        parameters.
      TypeError: `initable` is neither a function nor has `init`.

    >>> import gradtx, jax.numpy as jnp
    >>> from gradtx.tree.states import map_params
    >>> tx = gradtx.adam(0.1)
    >>> names = map_params(tx, lambda slot, name: name, tx.init({"w": jnp.ones(2)}), {"w": "rows"})
    >>> names.slots["scale_by_adam"].mu, names.count.item()
    ({'w': 'rows'}, 0)
    """
    init = getattr(initable, "init", initable)
    if not callable(init):
        raise TypeError(
            f"map_params: {type(initable).__name__} has no init; give a transformation, or its init"
        )
    marks, form = _form(init)
    nodes = _matched(form, state, "state", "another definition's: take the one that made it")
    results = [
        _map_place(f, node, rest, is_leaf)
        if isinstance(mark, _Place)
        else node
        if transform_non_params is None
        else transform_non_params(node)
        for mark, node in zip(marks, nodes, strict=True)
    ]
    return jax.tree.unflatten(form, results)


class _Place:
    """A leaf that marks the place of a tree like the parameters."""


def _form(init: Callable[[Any], Any]) -> tuple[list[Any], Any]:
    """What `init` makes, with marks in the places of trees like the parameters."""
    placeholder: Any = _Placeholder()
    try:
        made = init(placeholder)
    except (TypeError, ValueError, KeyError, AttributeError):
        # Masks of Optax look for a node of Optax's own.
        placeholder = _optax_placeholder()
        if placeholder is None:
            raise
        made = init(placeholder)
    kind = type(placeholder)
    nodes, form = jax.tree.flatten(made, is_leaf=lambda node: isinstance(node, kind))
    return [_Place() if isinstance(node, kind) else node for node in nodes], form


def _optax_placeholder() -> Any:
    """The node that Optax passes to `init`, where a program uses Optax beside gradtx."""
    optax = sys.modules.get("optax")
    received: list[Any] = []
    if optax is not None:
        optax.tree_map_params(lambda params: received.append(params) or (), _same, ())
    return received[0] if received else None


def _same(leaf: Any) -> Any:
    return leaf


def _map_place(
    f: Callable[..., Any], node: Any, rest: Any, is_leaf: Callable[[Any], bool] | None
) -> Any:
    """Map over one tree like the parameters; nodes without leaves are masked."""

    def stops(one: Any) -> bool:
        return _is_empty(one) or (is_leaf is not None and is_leaf(one))

    leaves, treedef = jax.tree.flatten(node, is_leaf=stops)
    columns = [
        _matched(treedef, tree, f"rest[{place}]", "not like the parameters")
        for place, tree in enumerate(rest)
    ]
    results = [
        row[0] if _is_empty(row[0]) and not (is_leaf and is_leaf(row[0])) else f(*row)
        for row in zip(leaves, *columns, strict=True)
    ]
    return jax.tree.unflatten(treedef, results)


def _is_empty(node: Any) -> bool:
    return jax.tree.structure(node).num_leaves == 0


def _matched(treedef: Any, tree: Any, name: str, reason: str) -> list[Any]:
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError, KeyError) as error:
        line = str(error).splitlines()[0]
        raise StructureError(f"map_params: {name} is {reason} ({line})") from None
