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
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.definition.errors import HyperparamError
from gradtx.definition.show import is_dtype, show
from gradtx.definition.signature import with_type_names
from gradtx.definition.spelling import suggest
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
    def _shown_signature(self) -> inspect.Signature:
        hints = {**self._flag_hints, **self._hints}
        return with_type_names(self.signature, hints, self.module)

    def shown_signature(self) -> inspect.Signature:
        """Return the signature that `help` shows."""
        return self._shown_signature

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
        self._check_keywords(kwargs)
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            names = ", ".join(self.signature.parameters)
            raise TypeError(f"{self.__name__}: {error}; its arguments are {names}") from None
        bound.apply_defaults()
        for name, marks in self.dynamic.items():
            bound.arguments[name] = map_items(
                bound.arguments[name], functools.partial(self.coerce, name, marks)
            )
        made = self.result.of(self, bound.arguments)
        made.verify()
        return made

    def _check_keywords(self, keywords: Iterable[str]) -> None:
        """Raise where a keyword is unknown, with the name that was probably meant."""
        parameters = self.signature.parameters
        if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return
        for name in keywords:
            if name not in parameters:
                hint = suggest(name, parameters)
                raise TypeError(
                    f"{self.__name__} has no hyperparameter or option {name!r}"
                    f"{hint + ' Its' if hint else '; its'} arguments are {', '.join(parameters)}"
                )

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
            if (mistake := uncalled_builder(value)) is not None:
                raise HyperparamError(f"{self.__name__}: {name}: {mistake}")
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

    public_names: ClassVar[tuple[str, ...]] = ()
    """The attributes for users, which `dir` shows."""
    plural: ClassVar[str] = "definitions"

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

    if not typing.TYPE_CHECKING:  # a type checker would accept every attribute

        def __getattr__(self, name: str) -> Any:
            # A property whose own code fails ends here, too: its error is raised again.
            unknown = not name.startswith("_") and not hasattr(type(self), name)
            if unknown and (way := self.way_to_read(name)) is not None:
                call = f"{self.factory.__name__}(...)"
                raise AttributeError(f"{call} has no attribute {name!r}; read {way}")
            return object.__getattribute__(self, name)

    def way_to_read(self, name: str) -> str | None:
        """Tell how to read an argument, which is no attribute; None where there is none."""
        return f'its arguments["{name}"]' if name in self.arguments else None

    def __dir__(self) -> Iterable[str]:
        return self.public_names

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


def uncalled_builder(value: Any) -> str | None:
    """Explain that a builder was passed in place of its result; None for any other value."""
    factory = getattr(value, "factory", None)
    if not isinstance(factory, Factory) or isinstance(value, Definition):
        return None
    name = factory.__name__
    return f"{name} is a function that makes {factory.result.plural}: call it, {name}(...)"


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
