"""What gradtx raises: each message says what, where, with which values, and what to do."""


class GradtxError(ValueError):
    """Any mistake that gradtx recognises; a `ValueError`, so existing handlers keep working."""


class HyperparamError(GradtxError):
    """A hyperparameter is out of its range, unknown, or named ambiguously."""


class StructureError(GradtxError):
    """Two trees that must match differ in structure, shape, or in what their paths say."""


class MissingParamsError(GradtxError):
    """A member needs the parameters and `update` was called without them."""


class MissingExtraError(GradtxError):
    """A member needs the loss, or another extra argument, and `update` was called without it."""


class SelectionError(GradtxError):
    """A mask or a partition rule selects nothing, or leaves something unclaimed."""


class StateError(GradtxError):
    """A state does not belong to the definition that it was given to."""


class ConfigError(GradtxError):
    """A definition cannot be written as JSON, or a JSON does not describe one."""
