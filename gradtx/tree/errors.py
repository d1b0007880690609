"""What gradtx raises: each message says what, where, with which values, and what to do."""

import functools
import types
from pathlib import Path

import jax

TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where Python asks for the number in a traced array."""


class GradtxError(ValueError):
    """Any mistake that gradtx recognises; a `ValueError`, so existing handlers keep working."""


class HyperparamError(GradtxError):
    """A hyperparameter is out of its range, unknown, or named ambiguously."""


class StructureError(GradtxError):
    """Two trees that must match differ in structure, shape, or in what their paths say."""


class DtypeError(GradtxError, TypeError):
    """An array has a dtype that a function does not take; a `TypeError` too."""


class MissingParamsError(GradtxError):
    """A member needs the parameters and `update` was called without them."""


class MissingExtraError(GradtxError):
    """A member needs the loss, or another extra argument, and `update` was called without it.

    Also: a function needs a package that is not installed.
    """


class SelectionError(GradtxError):
    """A mask or a partition rule selects nothing, or leaves something unclaimed."""


class StateError(GradtxError):
    """A state or a checkpoint is damaged, or belongs to another definition or other parameters."""


class ConfigError(GradtxError):
    """A definition cannot be written as JSON, or a JSON does not describe one."""


class AxesError(GradtxError):
    """A result inside `shard_map` depends on which axis of an array is cut, and that is unknown."""

    scope: str = ""
    """The rule that asks for it."""


class RoleWarning(UserWarning):
    """The role of a parameter, or the order of its axes, is a guess: name it to settle it."""


HIDDEN = ("definition", "engine", "compose", "tree")
"""The rooms whose frames say nothing to an author of a rule or of a training loop."""


def hide_frames(error: Exception) -> Exception:
    """The error without gradtx's own frames in its traceback, as JAX hides its own.

    JAX's switch shows them again: `JAX_TRACEBACK_FILTERING=off`.
    """
    if getattr(jax.config, "jax_traceback_filtering", None) == "off":
        return error
    frames: list[types.TracebackType] = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    last = None
    for one in reversed(frames):
        if not one.tb_frame.f_code.co_filename.startswith(_FOLDERS):
            last = types.TracebackType(last, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return error.with_traceback(last)


# A cached property of the engine has a frame of functools around it.
_FOLDERS = (*(str(Path(__file__).parent.parent / room) for room in HIDDEN), functools.__file__)
