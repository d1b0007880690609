"""The record that `describe` returns: members, parameters and learning rates of an optimizer."""

from typing import Any, NamedTuple

from gradtx._lazy import upper


class MemberLine(NamedTuple):
    """One transformation of an optimizer."""

    depth: int
    """0 for the optimizer itself, 1 for its members, ..."""
    label: str
    """Its group of parameters, or the name that the user chose; empty without one."""
    call: str
    """Its call, without the transformations inside it."""
    arrays: int
    """The number of arrays that it acts on."""
    parameters: int
    """The number of their entries."""
    bytes: int
    """The bytes of its state, those of its members included."""


class LeafLine(NamedTuple):
    """Similar parameters that train alike."""

    path: str
    """`blocks/*/mlp/kernel`"""
    array: str
    """Shape and dtype of each, `f32[768,3072]`."""
    arrays: int
    """The number of arrays."""
    training: str
    """What trains them, in words: "adamw, decayed", "frozen", "head: sgd"."""
    is_decayed: bool
    is_frozen: bool
    bytes: int
    """The bytes of state that belong to them."""


class ValueLine(NamedTuple):
    """A hyperparameter that moves, or a learning rate."""

    name: str
    value: Any
    """Its value for the next update."""
    schedule: str
    """The schedule that it follows; empty without one."""


class Description(NamedTuple):
    """The members, parameters and learning rates of an optimizer; `print` it for the tables."""

    members: tuple[MemberLine, ...]
    """As a tree, outermost first."""
    leaves: tuple[LeafLine, ...]
    """Every parameter is in one line."""
    values: tuple[ValueLine, ...]
    count: Any
    """The number of updates so far."""
    bytes: int
    """Of the whole state, step count included."""

    @property
    def arrays(self) -> int:
        """The number of arrays of parameters."""
        return sum(line.arrays for line in self.leaves)

    @property
    def shared_bytes(self) -> int:
        """The bytes of state that belong to no single parameter, the step count for example."""
        return self.bytes - sum(line.bytes for line in self.leaves)

    def __repr__(self) -> str:
        return upper("gradtx.inspect.describe_text").description_text(self)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return upper("gradtx.inspect.describe_html").description_html(self)
