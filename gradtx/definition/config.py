"""Definitions as JSON: `{"adamw": {"learning_rate": 0.001, ...}}` is the call, written down."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec

from gradtx._lazy import exports
from gradtx.definition.definition import Definition, Factory, registry
from gradtx.definition.errors import ConfigError, GradtxError

LONGEST = 100
"""The number of characters of a value in an error."""


def to_config(tx: Definition) -> dict[str, Any]:
    """A definition or a schedule as plain JSON data, every argument written out.

    Raises:
      ConfigError: an argument is a Python function, a random key or something else that JSON cannot
        hold, or `tx` is not a definition.

    >>> import gradtx, json
    >>> json.dumps(to_config(gradtx.sgd(0.1, momentum=0.9)))
    '{"sgd": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": false, "accumulator_dtype": null}}'
    >>> from_config(to_config(gradtx.sgd(0.1))) == gradtx.sgd(0.1)
    True
    """
    if not isinstance(tx, Definition):
        raise ConfigError(
            f"to_config: {_shown(tx)} is not a definition: pass a gradient transformation or a "
            "schedule of gradtx"
        )
    return _call(tx, "", "to_config: this")


def _call(tx: Definition, outer: str, what: str) -> dict[str, Any]:
    """One call; `outer` begins the places of its arguments, `what` is the place of the call."""
    _check_functions(tx.factory.name, tx.arguments, what)
    where = f"{outer}{tx.factory.__name__}"
    arguments = tx.arguments.items()
    return {tx.factory.name: {name: _encode(one, f"{where}: {name}") for name, one in arguments}}


def from_config(config: Mapping[str, Any]) -> Any:
    """The definition or schedule that `to_config` wrote down.

    Args:
      config: as `to_config` gives it, or as `json.loads` reads it. A factory of your own is named
        `module:function`, and its module is imported.

    Raises:
      ConfigError: no call, a name that no factory has, or arguments that it does not take; the
        error names the place.
      HyperparamError: a number out of its range.
    """
    return _made(config, "config")


def _made(config: Any, where: str) -> Any:
    """The definition of one call; `where` is its place in the config."""
    if not isinstance(config, Mapping) or len(config) != 1:
        raise ConfigError(
            f"{where} = {_shown(config)} is not one call: write {{name: arguments}}, as to_config "
            "returns it"
        )
    ((name, arguments),) = config.items()
    factory, place = _factory(name, where), f"{where}: {name}"
    _check_arguments(factory, name, arguments, where)
    decoded = {key: _decode(value, f"{place}: {key}") for key, value in arguments.items()}
    try:
        args, kwargs = factory.arguments(decoded)
        return factory.make(factory.bind(*args, **kwargs))
    except GradtxError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].split(". ")[0]
        raise ConfigError(
            f"{where}: {name} cannot be called with its arguments, {_shown(arguments)}: {reason}"
        ) from error


def _check_arguments(factory: Factory, name: str, arguments: Any, where: str) -> None:
    """Raise unless the arguments are a mapping of all that the factory needs, and no others."""
    parameters = factory.signature.parameters
    if not isinstance(arguments, Mapping):
        raise ConfigError(
            f"{where}: the arguments of {name} are {_shown(arguments)}: write each by its name, "
            f"{{{next(iter(parameters), 'name')!r}: ...}}"
        )
    if unknown := [str(key) for key in arguments if key not in parameters]:
        raise ConfigError(
            f"{where}: {name} has no argument {', '.join(unknown)}; it has {', '.join(parameters)}"
        )
    needed = (
        one
        for one in parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    )
    if lacking := [one.name for one in needed if one.name not in arguments]:
        raise ConfigError(f"{where}: {name} lacks the argument {', '.join(lacking)}: write it down")


def _factory(name: Any, where: str) -> Factory:
    if name not in registry and isinstance(name, str):
        # A builder registers itself when its module is imported, those of operators with schedules.
        home, _ = exports("gradtx").get(name, ("gradtx.definition.schedule", None))
        importlib.import_module(home)
    if name not in registry and isinstance(name, str) and ":" in name:
        module = name.split(":", maxsplit=1)[0]
        try:
            importlib.import_module(module)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{where}: the module of {name!r} cannot be imported ({error}): install it, or "
                "write the name as module:function"
            ) from None
    if name not in registry:
        raise ConfigError(
            f"{where}: {name!r} is not a known factory; import the module that defines it first, "
            "under the name module:function"
        )
    return registry[name]


def _encode(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Definition):
        return {"call": _call(value, f"{where}: ", where)}
    if isinstance(value, Mapping):
        pairs = value.items()
        return {
            "dict": [[_encode(key, where), _encode(one, f"{where}.{key}")] for key, one in pairs]
        }
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        items = [_encode(one, f"{where}[{number}]") for number, one in enumerate(value)]
        return {"list": items} if isinstance(value, list) else items
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _encode_array(value, where)
    return _encode_object(value, where)


def _encode_object(value: Any, where: str) -> dict[str, Any]:
    """A record, a PartitionSpec or a dtype."""
    if _is_record(value):
        return _encode_record(value, where)
    if isinstance(value, PartitionSpec):
        return {"spec": [_encode(one, where) for one in value]}
    try:
        return {"dtype": jnp.dtype(value).name}
    except TypeError:
        raise ConfigError(
            f"{where} = {_shown(value)} cannot be written as JSON; use a regular expression, a "
            "number or a schedule"
        ) from None


def _is_record(value: Any) -> bool:
    """Whether a value is a dataclass of gradtx, such as the owners of matrices."""
    return type(value).__module__.startswith("gradtx.") and dataclasses.is_dataclass(value)


def _encode_record(value: Any, where: str) -> dict[str, Any]:
    """A dataclass of gradtx, by the module and name of its class."""
    kind = type(value)
    fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    encoded = {name: _encode(one, f"{where}.{name}") for name, one in fields.items()}
    return {"record": f"{kind.__module__}:{kind.__name__}", "fields": encoded}


def _record_class(name: str) -> type[Any]:
    """The dataclass of gradtx of that name; no other class is looked for."""
    module, _, kind = name.partition(":")
    if not module.startswith("gradtx."):
        raise ValueError(name)
    try:
        record = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError):
        raise ValueError(name) from None
    if not isinstance(record, type) or not dataclasses.is_dataclass(record):
        raise ValueError(name)
    return record


def _check_functions(name: str, arguments: Mapping[str, Any], where: str) -> None:
    """Raise where a call holds Python functions, which have no name to be found by."""
    if name == "function_schedule":
        raise ConfigError(
            f"{where} is the Python function {arguments['function']!r}; write it as a "
            "@gradtx.schedule to save it"
        )
    if name == "group_function":
        raise ConfigError(
            f"{where} is the Python function {arguments['function']!r}; write layer_decay(...), or "
            "a number for each pattern, to save it"
        )
    if name == "GradientTransformation":
        raise ConfigError(
            f"{where} is another library's pair of functions, {arguments['init']!r} and "
            f"{arguments['update']!r}; write it as a @gradtx.definition to save it"
        )


def _encode_array(array: Any, where: str) -> dict[str, Any]:
    if isinstance(array, Tracer):
        raise ConfigError(f"{where} is traced: call to_config outside of jit, grad, vmap and scan")
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        raise ConfigError(
            f"{where} is a random key, which JSON cannot hold: pass its seed, an int, in its place"
        )
    values = np.asarray(array)
    is_complex = jnp.issubdtype(values.dtype, np.complexfloating)
    if is_complex or not (values.dtype == bool or jnp.issubdtype(values.dtype, np.number)):
        raise ConfigError(
            f"{where} is an array of {values.dtype}, which JSON cannot hold: use real numbers"
        )
    return {"array": values.tolist(), "dtype": values.dtype.name}


def _decode(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return tuple(_decode(one, f"{where}[{number}]") for number, one in enumerate(value))
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"call"}:
        return _made(value["call"], where)
    try:
        return _decode_mapping(value, where)
    except GradtxError:
        raise
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ConfigError(
            f"{where} = {_shown(value)} is not a value that to_config writes: a mapping is "
            '{"call": ...}, {"dict": pairs}, {"list": items}, {"array": numbers, "dtype": name}, '
            '{"dtype": name}, {"spec": names} or {"record": class, "fields": {...}}'
        ) from None


def _decode_mapping(value: Mapping[str, Any], where: str) -> Any:
    match dict(value):
        case {"list": list(items), **rest} if not rest:
            return list(_decode(items, where))
        case {"dict": list(pairs), **rest} if not rest:
            return {_decode(key, where): _decode(one, f"{where}.{key}") for key, one in pairs}
        case {"array": array, "dtype": str(name), **rest} if not rest:
            return jnp.asarray(array, name)
        case {"dtype": str(name), **rest} if not rest:
            return jnp.dtype(name)
        case {"spec": list(names), **rest} if not rest:
            return PartitionSpec(*(_decode(one, where) for one in names))
        case {"record": str(name), "fields": dict(fields), **rest} if not rest:
            named = {field: _decode(one, f"{where}.{field}") for field, one in fields.items()}
            return _record_class(name)(**named)
    raise ValueError


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} (cut short)"
