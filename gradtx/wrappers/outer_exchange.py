"""The exchange of outer gradients: their mean over replicas, in float32 or as 8-bit codes.

Replicas are devices of a mapped axis, or a first axis of the parameters. Codes cross the axis as
they are: each replica decodes all of them, and takes the mean in float32.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from gradtx.definition.errors import GradtxError, HyperparamError, StructureError
from gradtx.definition.types import PyTree
from gradtx.engine.axis_names import is_bound
from gradtx.engine.layouts import vary
from gradtx.engine.selector import leaves_of
from gradtx.storage import blockwise, dynamic, sixteen
from gradtx.storage.codec import Codec, codec_named, decode_array, encode_array
from gradtx.tree.manual_axes import is_checked

REGISTERED = (blockwise, dynamic, sixteen)
"""The modules whose import registers gradtx's codecs."""
BLOCK = 32
"""Entries per scale."""
AxisNames = str | Sequence[str] | None


class Exchange(NamedTuple):
    """How replicas exchange their outer gradients."""

    axis_names: tuple[str, ...]
    """The mapped axes whose devices are replicas."""
    replicas: int | None
    """The number of replicas along the first axis of every parameter, None for no such axis."""
    compress: str | None
    """The codec; None: float32."""

    @property
    def codec(self) -> Codec | None:
        if self.compress in (None, "float32"):
            return None
        return codec_named(self.compress, "outer: compress")


def make_exchange(axis_name: AxisNames, replicas: int | None, compress: str | None) -> Exchange:
    """The exchange of these arguments; an error where they do not fit."""
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())
    if names and replicas is not None:
        raise HyperparamError(
            f"outer: axis_name = {axis_name!r} and replicas = {replicas} are two forms of one "
            "thing: name the axis inside shard_map, pmap and vmap, or give replicas where they are "
            "the first axis of the parameters"
        )
    if replicas is not None and replicas < 1:
        raise HyperparamError(
            f"outer: replicas = {replicas!r} is not a number of replicas; give a whole number from "
            "1 on, the size of the first axis of every parameter"
        )
    exchange = Exchange(names, replicas, compress)
    _ = exchange.codec
    return exchange


def check_bound(axis_names: Sequence[str]) -> None:
    """Raise where the program does not run over an axis that is named."""
    for name in axis_names:
        if not is_bound(name):
            raise GradtxError(
                f"outer: axis_name = {name!r} is not an axis of this program: call update inside "
                f"shard_map, pmap or vmap with an axis of that name, or give replicas= where "
                "replicas are the first axis of the parameters"
            )


def mean_over_replicas(exchange: Exchange, deltas: PyTree, error: PyTree) -> tuple[Any, Any]:
    """The mean of the outer gradients, and the new errors of their codes, None without."""
    codec = exchange.codec
    if codec is None:
        return _mean(exchange, deltas), error
    _check_real(deltas, exchange)
    if error is not None:
        deltas = jax.tree.map(jnp.add, deltas, error)
    encoded = jax.tree.map(functools.partial(_encode, codec, exchange), deltas)
    run = functools.partial(_decoded_mean, codec, exchange)
    mean = jax.tree.map(run, deltas, encoded)
    if error is not None:
        run = functools.partial(_rest, codec, exchange)
        error = jax.tree.map(run, deltas, encoded)
    return mean, error


def _mean(exchange: Exchange, deltas: PyTree) -> Any:
    if exchange.replicas is not None:
        return jax.tree.map(functools.partial(jnp.mean, axis=0), deltas)
    return lax.pmean(deltas, exchange.axis_names) if exchange.axis_names else deltas


def _check_real(deltas: PyTree, exchange: Exchange) -> None:
    leaves = leaves_of(deltas)
    for path, value in zip(leaves.paths, leaves.values, strict=True):
        if value is not None and jnp.iscomplexobj(value):
            raise StructureError(
                f"outer: compress = {exchange.compress!r} encodes real numbers, and {path!r} is "
                "complex: put outer inside of split_real_and_imaginary, or leave compress out"
            )


def _encode(codec: Codec, exchange: Exchange, delta: jax.Array) -> Any:
    """The codes of one array, or of each replica's."""
    encode = functools.partial(_encode_one, codec)
    return encode(delta) if exchange.replicas is None else jax.vmap(encode)(delta)


def _encode_one(codec: Codec, delta: jax.Array) -> Any:
    # A number is a vector of one entry: blocks lie along an axis.
    return encode_array(codec, jnp.atleast_1d(delta), None, square=False, block=BLOCK)


def _decode_one(codec: Codec, shape: tuple[int, ...], encoded: Any) -> jax.Array:
    whole = decode_array(codec, encoded, shape or (1,), square=False, block=BLOCK)
    return whole.reshape(shape)


def _decoded_mean(codec: Codec, exchange: Exchange, delta: jax.Array, encoded: Any) -> jax.Array:
    """The mean of the arrays that all replicas encoded."""
    if exchange.replicas is None and not exchange.axis_names:
        return _decode_one(codec, delta.shape, encoded).astype(delta.dtype)
    if exchange.replicas is None:
        shape, codes = delta.shape, _gather(encoded, exchange.axis_names)
    else:
        shape, codes = delta.shape[1:], jax.tree.map(_bring_together, encoded)
    arrays = jax.vmap(functools.partial(_decode_one, codec, shape))(codes)
    return jnp.mean(arrays, axis=0).astype(delta.dtype)


def _gather(encoded: Any, names: tuple[str, ...]) -> Any:
    """The codes of all replicas along a new first axis, equal on all of them."""
    return jax.tree.map(functools.partial(_gather_words, names=names), encoded)


def _gather_words(codes: jax.Array, names: tuple[str, ...]) -> jax.Array:
    words = _as_words(codes)
    if is_checked():
        gathered = lax.all_gather(vary(words, names), names, to="invarying")
    else:
        gathered = lax.all_gather(words, names)
    return lax.bitcast_convert_type(gathered, codes.dtype)


def _as_words(codes: jax.Array) -> jax.Array:
    """Codes as integers of their size: XLA would send bfloat16 as float32 on some devices."""
    words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[codes.dtype.itemsize]
    return lax.bitcast_convert_type(codes, words)


def _bring_together(codes: jax.Array) -> jax.Array:
    """The codes with the first axis whole on every device: here they cross the mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:  # without a mesh XLA decides, and may send floats
        return codes
    words = _as_words(codes)
    if mesh.explicit_axes:
        cuts = jax.typeof(words).sharding.spec
        words = jax.sharding.reshard(words, PartitionSpec(None, *cuts[1:]))
    else:
        free = (PartitionSpec.UNCONSTRAINED,) * (words.ndim - 1)
        words = lax.with_sharding_constraint(words, PartitionSpec(None, *free))
    return lax.bitcast_convert_type(words, codes.dtype)


def _rest(codec: Codec, exchange: Exchange, delta: jax.Array, encoded: Any) -> jax.Array:
    """The part of an array that its codes do not hold."""
    own = delta.shape if exchange.replicas is None else delta.shape[1:]
    decode = functools.partial(_decode_one, codec, own)
    sent = decode(encoded) if exchange.replicas is None else jax.vmap(decode)(encoded)
    return delta - sent.astype(delta.dtype)
