"""Definitions: a factory and the arguments of one call, as data.

An optimizer and a schedule are both a `Definition`: an immutable pytree whose leaves are the
numbers of the call. `repr`, equality, hashing, JSON and `replace` all follow from that one record.
A definition calls the factory's body again whenever it needs the result of the call. A leaf may
therefore be a tracer, a batch of values, or a number, and no value is stored twice.
"""

import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Self

import jax

from gradtx.definition.call_checks import (
    check_number,
    check_option,
    check_scalar,
    fit_number,
    holds_arrays,
    is_collection,
    takes_several,
)
from gradtx.definition.errors import HyperparamError
from gradtx.definition.leaves import hash_key, known_number, same_leaf
from gradtx.definition.show import show_call
from gradtx.definition.signature import with_type_names
from gradtx.definition.spelling import METHODS, suggest
from gradtx.definition.types import Default, Interval

_BUILDING: ContextVar["Definition | None"] = ContextVar("building", default=None)


def building() -> "Definition | None":
    """Return the definition whose builder runs now; rules receive its arguments by name."""
    return _BUILDING.get()


registry: dict[str, "Factory"] = {}
"""Every factory by its `Factory.name`: the decorators add to it, `from_config` reads it."""


class Factory:
    """A function that makes definitions; the annotations of its arguments mark the data."""

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
        """The name and the TypedDict of the argument `**flags: Unpack[SomeTypedDict]`, if any."""
        kinds = {
            name: typing.get_args(hint)
            for name, hint in self._hints.items()
            if typing.get_origin(hint) is typing.Unpack
        }
        return {name: kind for name, (kind, *_) in kinds.items()}

    @functools.cached_property
    def _flag_hints(self) -> dict[str, Any]:
        """The annotations of the flags: keyword arguments whose default is None or a `Default`."""
        return {
            name: hint
            for kind in self.flags.values()
            for name, hint in typing.get_type_hints(kind, include_extras=True).items()
        }

    @functools.cached_property
    def dynamic(self) -> dict[str, Any]:
        """The arguments that are data, by name: the ranges and the classes of each annotation."""
        hints = {**self._flag_hints, **self._hints}
        marks = {name: _marks(hints.get(name)) for name in self.signature.parameters}
        return {name: each for name, each in marks.items() if set(each) - {type(None)}}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self.bind(*args, **kwargs)
        if building() is None:  # a builder's own calls pass on what was checked
            self._check_scalars(arguments)
            arguments = self._with_known_numbers(arguments)
        return self.make(arguments)

    def _with_known_numbers(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Replace arrays that hold one known number by NumPy scalars, which are constants."""
        several = self.plural_arguments
        known = {
            name: (map_items if name in several else _apply)(arguments[name], known_number)
            for name in self.dynamic
        }
        return {**arguments, **known}

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The arguments of a call by name, defaults included."""
        self._check_keywords(kwargs)
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            names = ", ".join(self.signature.parameters)
            raise TypeError(f"{self.__name__}: {error}; its arguments are {names}") from None
        bound.apply_defaults()
        return bound.arguments

    def make(self, arguments: Mapping[str, Any]) -> Any:
        """Make a definition from named arguments; numbers may be batches, as in `replace`."""
        checked = dict(arguments)
        for name, marks in self.dynamic.items():
            coerce = functools.partial(self.coerce, name, marks)
            several = name in self.plural_arguments
            checked[name] = (map_items if several else _apply)(checked[name], coerce)
        for name, hint in self._option_hints.items():
            if checked[name] is not self.signature.parameters[name].default:
                for value in self._variadic_items(name, checked[name]):
                    check_option(f"{self.__name__}: {name}", hint, value, self.signature.parameters)
        definition = self.result.of(self, checked)
        definition.verify()
        return definition

    def _check_scalars(self, arguments: Mapping[str, Any]) -> None:
        """Raise where an array is in the place of one number."""
        for name, marks in self.dynamic.items():
            if not any(isinstance(mark, Interval) and mark.any_shape for mark in marks):
                for value in self._items_of(name, arguments[name]):
                    check_scalar(f"{self.__name__}: {name}", value)

    def _items_of(self, name: str, value: Any) -> Iterable[Any]:
        """The values of an argument: one, or those of a collection."""
        if name not in self.plural_arguments or not is_collection(value):
            return (value,)
        return value.values() if isinstance(value, Mapping) else value

    def _variadic_items(self, name: str, value: Any) -> Iterable[Any]:
        """The options of `*args` and `**kwargs`, one by one; of any other argument its value."""
        return self._items_of(name, value) if name in self._variadic else (value,)

    @functools.cached_property
    def _variadic(self) -> frozenset[str]:
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        parameters = self.signature.parameters.items()
        return frozenset(name for name, one in parameters if one.kind in kinds)

    @functools.cached_property
    def plural_arguments(self) -> frozenset[str]:
        """The arguments that may hold several values: `*args`, `**kwargs`, and sequences."""
        hints = {**self._flag_hints, **self._hints}
        return self._variadic | {name for name, hint in hints.items() if takes_several(hint)}

    @functools.cached_property
    def _option_hints(self) -> dict[str, Any]:
        """The annotations of the static arguments."""
        hints = {**self._flag_hints, **self._hints}
        names = [name for name in self.signature.parameters if name not in self.dynamic]
        return {name: hints[name] for name in names if name in hints}

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
        """Check the range of a number; wrap a member or a function."""
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
        if name in self.plural_arguments and is_collection(value):
            return value
        if isinstance(value, Definition) and callable(value):
            return value
        if isinstance(value, Definition) and value.misplaced:
            raise HyperparamError(f"{self.__name__}: {name} = {value!r} is {value.misplaced}")
        if callable(value) and not isinstance(value, jax.Array) and not holds_arrays(value):
            if (mistake := uncalled_builder(value)) is not None:
                raise HyperparamError(f"{self.__name__}: {name}: {mistake}")
            return Definition.wrap_function(value)
        intervals = [mark for mark in marks if isinstance(mark, Interval)]
        check_number(f"{self.__name__}: {name}", value, intervals, self.signature.parameters)
        return fit_number(value, intervals)

    def arguments(self, named: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn named arguments into the `(args, kwargs)` of a call."""
        bound = inspect.BoundArguments(
            self.signature,
            dict(named),  # pyright: ignore[reportArgumentType]
        )
        return bound.args, bound.kwargs

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_factory, (self.module, self.body.__qualname__)


def _default_of(hint: Any) -> Any:
    """Read the default of a shared flag from its annotation; None without one."""
    return next((mark.value for mark in _metadata(hint) if isinstance(mark, Default)), None)


def _metadata(hint: Any) -> Iterable[Any]:
    """Yield the metadata and the parts of an annotation, at any depth."""
    for part in (*getattr(hint, "__metadata__", ()), *typing.get_args(hint)):
        yield part
        if isinstance(part, type) or typing.get_origin(part) is not None:
            yield from _metadata(part)


def _find_factory(module: str, qualname: str) -> Factory:
    builder = functools.reduce(getattr, qualname.split("."), importlib.import_module(module))
    return builder.factory  # pyright: ignore[reportAttributeAccessIssue]


def _marks(annotation: Any) -> list[Any]:
    """List the `Interval`s and the `Definition` classes of an annotation, and NoneType."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation] if issubclass(annotation, Definition | None) else []
    parts = typing.get_args(annotation)
    intervals = [part for part in parts if isinstance(part, Interval)]
    return intervals + [
        mark for part in parts if not isinstance(part, Interval) for mark in _marks(part)
    ]


def map_items(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to an argument, or to every item of a mapping, list or tuple."""
    if isinstance(value, Mapping):
        return {key: function(item) for key, item in value.items()}
    if is_collection(value):
        return tuple(function(item) for item in value)
    return function(value)


def _apply(value: Any, function: Callable[[Any], Any]) -> Any:
    return function(value)


class Definition:
    """A call as data; `GradientTransformation` and `Schedule` are its two kinds."""

    __slots__ = ("__weakref__", "arguments", "cache", "factory")

    factory: Factory
    arguments: dict[str, Any]
    cache: dict[Any, Any]

    public_names: ClassVar[tuple[str, ...]] = ()
    """The attributes for users, which `dir` shows."""
    plural: ClassVar[str] = "definitions"
    misplaced: ClassVar[str] = ""
    """What an error says about one in the place of a number; "" where nothing is special."""

    wrap_function: Callable[[Callable[..., Any]], "Definition"]

    @classmethod
    def of(cls, factory: Factory, arguments: Mapping[str, Any]) -> Self:
        """Build a record without any check, for unflattening and `replace`."""
        self = object.__new__(cls)
        object.__setattr__(self, "factory", factory)
        object.__setattr__(self, "arguments", dict(arguments))
        object.__setattr__(self, "cache", {})
        return self

    @classmethod
    def coerce(cls, value: Any, where: str) -> "Definition":
        raise HyperparamError(f"{where} = {value!r} is not a {cls.__name__}")

    def item_names(self, items: Sequence[Any]) -> Sequence[Any]:
        """Name the items of a tuple argument; by default the names are the positions."""
        return range(len(items))

    def verify(self) -> None:
        """Raise at the call, not at the first update, if arguments contradict each other."""

    def call(self, *before: Any) -> Any:
        """Call the factory's body with the arguments."""
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
            call = f"{self.factory.__name__}(...)" if unknown else ""
            if unknown and (way := self.way_to_read(name)) is not None:
                raise AttributeError(f"{call} has no attribute {name!r}; read {way}")
            if unknown and (cure := METHODS.get(self.plural, {}).get(name)) is not None:
                raise AttributeError(f"{call} has no attribute {name!r}: {cure}")
            return object.__getattribute__(self, name)

    def way_to_read(self, name: str) -> str | None:
        """Tell how to read an argument, which has no attribute; None: it does not exist."""
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
        return mine_def == others_def and all(map(same_leaf, mine, others))

    def __hash__(self) -> int:
        leaves, treedef = jax.tree.flatten(self)
        return hash((treedef, tuple(map(hash_key, leaves))))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.factory, self.arguments)


def uncalled_builder(value: Any) -> str | None:
    """Explain that a builder was passed in place of its result; None for any other value."""
    factory = getattr(value, "factory", None)
    if not isinstance(factory, Factory) or isinstance(value, Definition):
        return None
    name = factory.__name__
    return f"{name} is a function that makes {factory.result.plural}: call it, {name}(...)"
