"""A definition is data: the factory that was called, and the arguments it was called with.

An optimizer and a schedule are both a `Definition`: an immutable pytree whose leaves are the
numbers of the call. `repr`, equality, hashing, JSON and `replace` all follow from that one record.
What the call stands for is worked out by calling the factory's body again, so a leaf may be a
tracer, a batch of values, or a number, and nothing is kept twice.
"""

import functools
import importlib
import inspect
import numbers
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import DictKey, GetAttrKey

from gradtx.definition.errors import HyperparamError
from gradtx.definition.show import is_dtype, show
from gradtx.definition.types import Default, Interval

_BUILDING: ContextVar["Definition | None"] = ContextVar("building", default=None)


def building() -> "Definition | None":
    """The definition whose builder is running; its arguments reach the rule by name."""
    return _BUILDING.get()


registry: dict[str, "Factory"] = {}
"""Every factory by its `Factory.name`; filled by the decorators, read by `from_config`."""


class Factory:
    """A function that makes definitions: its signature says which arguments are data."""

    def __init__(
        self,
        body: Callable[..., Any],
        result: type["Definition"],
        skip: int = 0,
        check: Callable[..., None] | None = None,
        name: str | None = None,
    ):
        self.body: Callable[..., Any] = body
        self.result: type[Definition] = result
        self.check: Callable[..., None] | None = check
        self.module: str = body.__module__
        self.__name__: str = name or body.__name__
        self.name: str = (
            self.__name__
            if body.__module__.startswith("gradtx.")
            else f"{body.__module__}:{body.__qualname__}"
        )
        self._skip = skip
        registry[self.name] = self

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        full = inspect.signature(self.body)
        parameters = [
            one
            for one in list(full.parameters.values())[self._skip :]
            if one.name not in self.flags
        ]
        known = {parameter.name for parameter in parameters}
        flags = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default_of(hint))
            for name, hint in self._flag_hints.items()
            if name not in known
        ]
        return full.replace(parameters=parameters + flags, return_annotation=self.result)

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        return typing.get_type_hints(self.body, include_extras=True)

    @functools.cached_property
    def flags(self) -> dict[str, Any]:
        """The argument written `**flags: Unpack[SomeTypedDict]`, if there is one: its name, and the
        TypedDict.
        """
        found = {
            name: typing.get_args(hint)
            for name, hint in self._hints.items()
            if typing.get_origin(hint) is typing.Unpack
        }
        return {name: kinds[0] for name, kinds in found.items()}

    @functools.cached_property
    def _flag_hints(self) -> dict[str, Any]:
        """Every argument that such a TypedDict stands for; all are keywords, None when they are not
        given.
        """
        return {
            name: hint
            for kind in self.flags.values()
            for name, hint in typing.get_type_hints(kind, include_extras=True).items()
        }

    @functools.cached_property
    def dynamic(self) -> dict[str, Any]:
        """The arguments that are data, by name, each with what its annotation says of it."""
        hints = {**self._flag_hints, **self._hints}
        marks = {name: _marks(hints.get(name)) for name in self.signature.parameters}
        return {name: found for name, found in marks.items() if set(found) - {type(None)}}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{self.__name__}: {error}; its arguments are {', '.join(self.signature.parameters)}"
            ) from None
        bound.apply_defaults()
        for name, marks in self.dynamic.items():
            bound.arguments[name] = map_items(
                bound.arguments[name], functools.partial(self.coerce, name, marks)
            )
        made = self.result.of(self, bound.arguments)
        made.verify()
        return made

    def coerce(self, name: str, marks: Sequence[Any], value: Any) -> Any:
        """One argument as data: numbers are checked, members and functions are wrapped."""
        if value is None and type(None) in marks:
            return value
        kinds = tuple(
            mark for mark in marks if isinstance(mark, type) and issubclass(mark, Definition)
        )
        if kinds:
            return (
                value
                if isinstance(value, kinds)
                else kinds[0].coerce(value, f"{self.__name__}: {name}")
            )
        if isinstance(value, Mapping | list | tuple) and not hasattr(value, "_fields"):
            return value
        if callable(value) and not isinstance(value, jax.Array):
            return value if isinstance(value, Definition) else Definition.wrap_function(value)
        if not isinstance(value, numbers.Number | np.ndarray | np.generic | jax.Array):
            raise HyperparamError(
                f"{self.__name__}: {name} = {value!r} is neither a number, an array nor a schedule"
            )
        for mark in marks:
            if isinstance(mark, Interval):
                mark.check(value, f"{self.__name__}: {name}")
        return value

    def arguments(self, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`given` by name, as the `(args, kwargs)` of a call."""
        bound = inspect.BoundArguments(self.signature, dict(given))  # pyright: ignore[reportArgumentType]
        return bound.args, bound.kwargs

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_factory, (self.module, self.body.__qualname__)


def _default_of(hint: Any) -> Any:
    """The default of a shared flag, as its annotation says it; None without one."""
    return next((mark.value for mark in _metadata(hint) if isinstance(mark, Default)), None)


def _metadata(hint: Any) -> Iterable[Any]:
    """Everything that an annotation carries beside types, at any depth."""
    for part in (*getattr(hint, "__metadata__", ()), *typing.get_args(hint)):
        yield part
        if isinstance(part, type) or typing.get_origin(part) is not None:
            yield from _metadata(part)


def _find_factory(module: str, qualname: str) -> Factory:
    found = functools.reduce(getattr, qualname.split("."), importlib.import_module(module))
    return found.factory  # pyright: ignore[reportAttributeAccessIssue]


def _marks(annotation: Any) -> list[Any]:
    """The `Interval`s and `Definition` classes that an annotation mentions, and NoneType beside
    these.
    """
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation] if issubclass(annotation, Definition | None) else []
    parts = typing.get_args(annotation)
    found = [part for part in parts if isinstance(part, Interval)]
    return found + [
        mark for part in parts if not isinstance(part, Interval) for mark in _marks(part)
    ]


def map_items(value: Any, function: Callable[[Any], Any]) -> Any:
    """A function of an argument, or of every item of one that holds several."""
    if isinstance(value, Mapping):
        return {key: function(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(
        value, "_fields"
    ):  # a named tuple is one thing: Optax's pair is one
        return tuple(function(item) for item in value)
    return function(value)


class Static:
    """Arguments that choose the program: compared by value, arrays and containers included."""

    __slots__ = ("_hash", "_key", "values")

    def __init__(self, values: Mapping[str, Any]):
        self.values: dict[str, Any] = dict(values)
        self._key = tuple((name, _freeze(value)) for name, value in self.values.items())
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._hash == other._hash and self._key == other._key

    def __repr__(self) -> str:
        return show(self.values)


def _freeze(value: Any) -> Any:
    """A hashable stand-in that is equal exactly when the value is."""
    if isinstance(value, Mapping):
        return type(value), tuple((key, _freeze(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(_freeze(item) for item in value)
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        return array.shape, array.dtype, array.tobytes()
    if is_dtype(value):
        return np.dtype(value)
    try:
        hash(value)
    except TypeError:
        leaves, treedef = jax.tree.flatten(value)
        return treedef, tuple(id(leaf) if leaf is value else _freeze(leaf) for leaf in leaves)
    return type(value), value


class Definition:
    """A call as data; `GradientTransformation` and `Schedule` are its two kinds."""

    __slots__ = ("__weakref__", "arguments", "cache", "factory")

    factory: Factory
    arguments: dict[str, Any]
    cache: dict[Any, Any]

    wrap_function: Callable[[Callable[..., Any]], "Definition"]

    @classmethod
    def of(cls, factory: Factory, arguments: Mapping[str, Any]) -> Self:
        """The record itself, unchecked: what unflattening and `replace` build."""
        self = object.__new__(cls)
        object.__setattr__(self, "factory", factory)
        object.__setattr__(self, "arguments", dict(arguments))
        object.__setattr__(self, "cache", {})
        return self

    @classmethod
    def coerce(cls, value: Any, where: str) -> "Definition":
        raise HyperparamError(f"{where} = {value!r} is not a {cls.__name__}")

    def item_names(self, items: Sequence[Any]) -> Sequence[Any]:
        """The names of the items of a tuple argument: their positions, unless a subclass knows
        better.
        """
        return range(len(items))

    def verify(self) -> None:
        """Raise at the call, not at the first update, when the arguments make no sense together."""

    def call(self, *before: Any) -> Any:
        """Run the factory's body on the arguments."""
        args, kwargs = self.factory.arguments(self.arguments)
        token = _BUILDING.set(self)
        try:
            return self.factory.body(*before, *args, **kwargs)
        finally:
            _BUILDING.reset(token)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"{self.factory.__name__}(...) is immutable; use gradtx.replace(definition, {name}=...)"
        )

    def __repr__(self) -> str:
        return show_call(self)

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Definition):
            return self is other
        mine, mine_def = jax.tree.flatten(self)
        others, others_def = jax.tree.flatten(other)
        return mine_def == others_def and all(map(_same_leaf, mine, others))

    def __hash__(self) -> int:
        leaves, treedef = jax.tree.flatten(self)
        if not all(isinstance(leaf, numbers.Number | np.generic) for leaf in leaves):
            raise TypeError(
                f"{self!r} holds arrays, so it cannot be hashed; give it Python numbers, or pass it to jit as an argument"
            )
        return hash((treedef, tuple(leaves)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.factory, self.arguments)


def show_call(definition: Definition) -> str:
    """The call that made a definition, arguments at their defaults left out."""
    parts: list[str] = []
    for name, parameter in definition.factory.signature.parameters.items():
        value = definition.arguments[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            parts += [show(item) for item in value]
        elif parameter.kind is parameter.VAR_KEYWORD:
            parts += [f"{key}={show(item)}" for key, item in value.items()]
        elif not _is_default(value, parameter.default):
            parts.append(f"{name}={show(value)}")
    return f"{definition.factory.__name__}({', '.join(parts)})"


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(value, jax.Array | np.ndarray) or isinstance(default, jax.Array | np.ndarray):
        return value is default
    return type(value) is type(default) and value == default


def _same_leaf(mine: Any, other: Any) -> bool:
    if mine is other:
        return True
    if isinstance(mine, Tracer) or isinstance(other, Tracer):
        return False
    left, right = _plain(mine), _plain(other)
    return left.shape == right.shape and bool(np.array_equal(left, right))


def _plain(leaf: Any) -> np.ndarray:
    """A leaf as NumPy's; a random key as the numbers that it holds."""
    key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if key else leaf)


Layout = tuple[str, str, tuple[Any, ...]]


def _children(definition: Definition) -> tuple[list[tuple[Any, Any]], tuple[Layout, ...]]:
    """The data of a definition with its keys, and how to put it back: argument, container, items."""
    children: list[tuple[Any, Any]] = []
    layout: list[Layout] = []
    for name in definition.factory.dynamic:
        value = definition.arguments[name]
        if isinstance(value, Mapping):
            layout.append((name, "dict", tuple(value)))
            children += [(DictKey(_key(name, key)), item) for key, item in value.items()]
        elif isinstance(value, tuple):
            layout.append((name, "tuple", tuple(range(len(value)))))
            children += [
                (DictKey(_key(name, key)), item)
                for key, item in zip(definition.item_names(value), value, strict=True)
            ]
        else:
            layout.append((name, "value", (name,)))
            children.append((GetAttrKey(name), value))
    return children, tuple(layout)


def _key(name: str, key: Any) -> str:
    """What an item is called in paths: by its own name if it has one, else by its place in the
    argument.
    """
    return key if isinstance(key, str) else f"{name}[{key}]"


def _static(definition: Definition) -> Static:
    cache = definition.cache
    if "static" not in cache:
        dynamic = definition.factory.dynamic
        cache["static"] = Static(
            {name: value for name, value in definition.arguments.items() if name not in dynamic}
        )
    return cache["static"]


def _flatten_with_keys(definition: Definition) -> tuple[list[tuple[Any, Any]], Any]:
    children, layout = _children(definition)
    return children, (definition.factory, _static(definition), layout)


def _flatten(definition: Definition) -> tuple[list[Any], Any]:
    children, aux = _flatten_with_keys(definition)
    return [value for _, value in children], aux


def _unflatten(kind: type[Definition], aux: Any, values: Iterable[Any]) -> Definition:
    factory, static, layout = aux
    remaining, data = iter(values), {}
    for name, container, items in layout:
        got = {item: next(remaining) for item in items}
        data[name] = (
            got
            if container == "dict"
            else tuple(got.values())
            if container == "tuple"
            else got[name]
        )
    made = kind.of(
        factory,
        {
            name: data[name] if name in data else static.values[name]
            for name in factory.signature.parameters
        },
    )
    made.cache["static"] = static
    return made


def register(kind: type[Definition]) -> None:
    """Make a kind of definition a pytree."""
    unflatten = functools.partial(_unflatten, kind)
    jax.tree_util.register_pytree_with_keys(kind, _flatten_with_keys, unflatten, _flatten)  # pyright: ignore[reportArgumentType]
