"""Definitions as JSON: `{"adamw": {"learning_rate": 0.001, ...}}` is the call, written down."""

import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.definition import Definition, Factory, registry
from gradtx.definition.errors import ConfigError


def to_config(tx: Definition) -> dict[str, Any]:
    """A definition or a schedule as plain JSON data, every argument written out.

    Raises:
      ConfigError: an argument is a Python function, which JSON cannot hold.

    >>> import gradtx, json
    >>> json.dumps(to_config(gradtx.sgd(0.1, momentum=0.9)))
    '{"sgd": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": false, "accumulator_dtype": null}}'
    >>> from_config(to_config(gradtx.sgd(0.1))) == gradtx.sgd(0.1)
    True
    """
    return {
        tx.factory.name: {
            name: _encode(value, f"{tx.factory.__name__}: {name}")
            for name, value in tx.arguments.items()
        }
    }


def from_config(config: Mapping[str, Any]) -> Any:
    """The definition or schedule that `to_config` wrote down.

    Args:
      config: as `to_config` gives it, or as `json.loads` reads it. A factory of your own is named
        `module:function`, and its module is imported.

    Raises:
      ConfigError: a name that no factory has, a mapping with more than one name, an argument that
        the factory does not have.
      TypeError: an argument without a default is missing.
    """
    if len(config) != 1:
        raise ConfigError(
            f"a config is one call, {{name: arguments}}; this has the names "
            f"{', '.join(config) or 'none'}"
        )
    ((name, arguments),) = config.items()
    factory = _factory(name)
    decoded = {key: _decode(value) for key, value in arguments.items()}
    unknown = [key for key in decoded if key not in factory.signature.parameters]
    if unknown:
        raise ConfigError(
            f"{name} has no argument {', '.join(unknown)}; it has "
            f"{', '.join(factory.signature.parameters)}"
        )
    args, kwargs = factory.arguments(decoded)
    return factory(*args, **kwargs)


def _factory(name: str) -> Factory:
    if name not in registry and ":" in name:
        importlib.import_module(name.split(":", maxsplit=1)[0])
    if name not in registry:
        raise ConfigError(
            f"{name!r} is no known factory; import the module that defines it first, under the "
            f"name module:function"
        )
    return registry[name]


def _encode(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Definition):
        if value.factory.name == "function_schedule":
            raise ConfigError(
                f"{where} is the Python function {value.arguments['function']!r}; write it as a "
                f"@gradtx.schedule to save it"
            )
        return {"call": to_config(value)}
    if isinstance(value, Mapping):
        return {
            "dict": [[_encode(key, where), _encode(item, where)] for key, item in value.items()]
        }
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        items = [_encode(item, where) for item in value]
        return {"list": items} if isinstance(value, list) else items
    if isinstance(value, np.ndarray | np.generic | jax.Array) and not jnp.issubdtype(
        value.dtype, jax.dtypes.extended
    ):
        return {"array": np.asarray(value).tolist(), "dtype": np.asarray(value).dtype.name}
    try:
        return {"dtype": jnp.dtype(value).name}
    except TypeError:
        raise ConfigError(
            f"{where} = {value!r} cannot be written as JSON; use a regular expression, a number "
            f"or a schedule"
        ) from None


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    if "call" in value:
        return from_config(value["call"])
    if "list" in value:
        return [_decode(item) for item in value["list"]]
    if "dict" in value:
        return {_decode(key): _decode(item) for key, item in value["dict"]}
    return (
        jnp.asarray(value["array"], value["dtype"])
        if "array" in value
        else jnp.dtype(value["dtype"])
    )
