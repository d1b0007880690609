"""Which axes of a parameter are inputs, outputs and batches, by the layouts of the frameworks.

=====================================  ==============  ==================
parameter                              shape           axes
=====================================  ==============  ==================
Flax `kernel`, Haiku `w`               (D, F)          in out
Equinox, torch `weight`                (F, D)          out in
Flax attention `query`, `key`          (D, H, h)       in out out
Flax attention `out`                   (H, h, D)       in in out
a kernel whose bias is (H, h)          (D, H, h)       in out out
fused queries, keys, values            (D, 3, H, h)    in batch out out
Gemma `q_einsum`                       (H, D, h)       out in out
Gemma `kv_einsum`                      (2, H, D, h)    batch out in out
experts                                (E, D, F)       batch in out
Equinox, torch convolution             (F, C, k, k)    out in batch batch
=====================================  ==============  ==================
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gradtx.tree.frameworks import Container
from gradtx.tree.names import ATTENTIONS, FUSED, OUTPUTS, QUERIES, TORCH, WEIGHTS, has_part

Parts = tuple[str, ...]
Shape = tuple[int, ...]

IN_OUT, OUT_IN = "in out", "out in"
PAIR = ("gate_up_proj", "down_proj")
"""Fused experts of Hugging Face, which some models store as (in, out), others as (out, in)."""
BIASES = frozenset({"bias", "b"})
"""How the bias of a layer is called; a bias of several axes is not a matrix."""
WINDOW = 16
"""The longest side of a convolution's window."""


class Parameter(NamedTuple):
    """One parameter: its path, its shape without stacked axes, and its container."""

    parts: Parts
    shape: Shape
    container: Container

    @property
    def name(self) -> str:
        """Its own name, the last part of its path."""
        return self.parts[-1] if self.parts else ""

    @property
    def module(self) -> Parts:
        return self.parts[:-1]

    @property
    def names(self) -> Parts:
        """Its own name and that of its module, which may say what it is: `query/kernel`."""
        return self.parts[-2:][::-1]


class Axes(NamedTuple):
    """The axes of one parameter in words, and the reason."""

    words: str
    reason: str
    is_sure: bool = True


class Order(NamedTuple):
    """What a whole tree shows about the order of axes."""

    shapes: Mapping[Parts, Shape]
    layers: frozenset[Parts]
    """Modules of one matrix, whose bias can only be its own."""
    votes: Mapping[str, str]
    """By the name of a matrix, the order that most biases beside matrices of that name show."""
    is_torch: bool
    """Whether the tree is named like those of torch and Hugging Face."""


def tree_order(parameters: Sequence[Parameter]) -> Order:
    """The evidence of all parameters about the order of axes."""
    arrays = Counter(
        one.module for one in parameters if len(one.shape) > 1 and one.name not in BIASES
    )
    layers = frozenset(module for module, count in arrays.items() if count == 1)
    order = Order({one.parts: one.shape for one in parameters}, layers, {}, False)
    counts: dict[str, Counter[str]] = {}
    for one in parameters:
        if len(one.shape) == 2 and (words := _order_by_bias(one, order)) is not None:
            counts.setdefault(one.name, Counter())[words] += 1
    votes = {name: count.most_common(1)[0][0] for name, count in counts.items()}
    is_torch = any(
        has_part(TORCH, one.parts) or (one.name == "weight" and len(one.shape) == 1)
        for one in parameters
    )
    return order._replace(votes=votes, is_torch=is_torch)


def matrix_axes(one: Parameter, order: Order) -> Axes:
    """The two axes of a matrix: by its class, its bias, then its name."""
    if one.container.framework == "equinox" and one.container.layer:
        return Axes(OUT_IN, f"in the order of eqx.nn.{one.container.layer}")
    if (words := _order_by_bias(one, order)) is not None:
        return Axes(words, "by the size of its bias")
    if (words := order.votes.get(one.name)) is not None:
        return Axes(words, f"as others named {one.name!r} by their biases")
    is_square = one.shape[0] == one.shape[1]
    if _is_torch_weight(one):
        is_sure = order.is_torch or is_square or bool(one.container.framework)
        return Axes(OUT_IN, f"{one.name!r} in torch's order", is_sure)
    if one.name in PAIR:
        words = _order_by_pair(one, order.shapes)
        reason = "by the sizes of gate_up_proj and down_proj"
        return Axes(words or IN_OUT, reason, words is not None or is_square)
    return Axes(IN_OUT, "in JAX's order")


def _is_torch_weight(one: Parameter) -> bool:
    return WEIGHTS.fullmatch(one.name) is not None and one.container.framework != "flax"


def _order_by_bias(one: Parameter, order: Order) -> str | None:
    """The order that the bias beside a matrix shows; None: there is none, or both would fit."""
    first, last = one.shape
    if first == last:
        return None
    names = _bias_names(one.name, one.module in order.layers)
    sizes = {order.shapes.get((*one.module, name)) for name in names} - {None}
    fits: dict[Shape, str] = {(first,): OUT_IN, (last,): IN_OUT}
    return fits.get(next(iter(sizes)) or ()) if len(sizes) == 1 else None


def _order_by_pair(one: Parameter, shapes: Mapping[Parts, Shape]) -> str | None:
    """The order of two matrices of which the first has twice the outputs that the second takes."""
    up, down = (shapes.get((*one.module, name), ())[-2:] for name in PAIR)
    if len(up) != 2 or len(down) != 2:
        return None
    fits = {
        IN_OUT: up == (down[1], 2 * down[0]),
        OUT_IN: up == (2 * down[1], down[0]),
    }
    orders = [words for words, is_fit in fits.items() if is_fit]
    return orders[0] if len(orders) == 1 else None


def _bias_names(name: str, is_alone: bool) -> set[str]:
    """How the bias that belongs to a matrix may be called: `b1` to `w1`."""
    names = {f"{name}_bias", name.replace("weight", "bias"), name.replace("kernel", "bias")}
    if name[:1] in ("w", "W"):
        names.add(f"b{name[1:]}")
    # A bias beside several matrices may be that of another.
    return (names | BIASES if is_alone else names - BIASES) - {name}


def attention_axes(one: Parameter, attentions: frozenset[Parts]) -> str | None:
    """The axes of a kernel of attention heads; None: it is not known as one.

    `attentions` are the modules that hold queries and keys, whatever they are called.
    """
    for name in one.names:
        if name.endswith("einsum"):
            return _einsum_axes(name.removesuffix("einsum").rstrip("_"), len(one.shape))
        if FUSED.fullmatch(name):
            return _fused_axes(one.shape, 3 if "q" in name.lower() else 2)
        if QUERIES.fullmatch(name):
            return "in out out" if len(one.shape) == 3 else None
        is_inside = has_part(ATTENTIONS, one.module) or bool(
            {one.module, one.module[:-1]} & attentions
        )
        if OUTPUTS.fullmatch(name) and is_inside:
            return "in in out" if len(one.shape) == 3 else None
    return None


def _fused_axes(shape: Shape, count: int) -> str | None:
    """Queries, keys and values in one array, which one axis counts."""
    axis = next((axis for axis in (1, 0, 2) if shape[axis] == count), None)
    if axis is None:
        return "in out out" if len(shape) == 3 else None
    words = ["in", *["out"] * (len(shape) - 2)]
    return " ".join([*words[:axis], "batch", *words[axis:]])


def _einsum_axes(name: str, axes: int) -> str | None:
    """Gemma's kernels, which have the heads in front."""
    if OUTPUTS.fullmatch(name) and axes == 3:
        return "in in out"
    is_query = FUSED.fullmatch(name) or QUERIES.fullmatch(name)
    return {3: "out in out", 4: "batch out in out"}.get(axes) if is_query else None


def window_axes(one: Parameter) -> str | None:
    """The axes of a convolution, one matrix at every place of the window; None: the last two."""
    if _is_torch_weight(one) and len(one.shape) > 2:
        return " ".join(["out", "in", *["batch"] * (len(one.shape) - 2)])
    return None


def axes_by_bias(one: Parameter, order: Order) -> str | None:
    """The axes of a kernel whose bias has its last axes, as in `DenseGeneral` and `LinearGeneral`.

    A bias of one axis could also be that of a convolution. None: there is no such bias, or it may
    be that of experts, (experts, outputs).
    """
    names = sorted(BIASES) if one.module in order.layers else []
    sizes = [order.shapes.get((*one.module, name), ()) for name in names]
    count = max(map(len, sizes), default=0)
    if not 1 < count < len(one.shape) or one.shape[-count:] not in sizes:
        return None
    is_expert_like = len(one.shape) == 3 and one.shape[0] == one.shape[1]
    inputs = len(one.shape) - count
    return None if is_expert_like else " ".join([*["in"] * inputs, *["out"] * count])


def has_window(one: Parameter) -> bool:
    """Whether an array has the shape of a convolution of two or three axes.

    Flax and Haiku have the window in front, torch and Equinox behind the features.
    """
    if len(one.shape) < 4:
        return False
    is_jax = one.name in ("kernel", "w")
    sides = (one.shape[:-2],) if is_jax else (one.shape[:-2], one.shape[2:])
    return any(max(side) <= WINDOW for side in sides)
