r"""`stored`: the same optimizer, its state in 16, 8 or 4 bits.

s_t = encode( s'_t ),   (u_t, s'_t) = rule( g_t, decode(s_{t-1}), θ_{t-1} )

One kernel per array runs all of this.
"""

import functools
from collections.abc import Mapping
from typing import Any

from gradtx.compose.binding import MapRules
from gradtx.compose.transformation import TransformationLike, as_transformation, definition
from gradtx.definition.errors import GradtxError
from gradtx.engine.rules import Rule
from gradtx.engine.selector import Selector, Where
from gradtx.storage import blockwise, dynamic, sixteen  # noqa: F401  (they register their codecs)
from gradtx.storage.codec import CodecName, codec_named
from gradtx.storage.policy import Policy
from gradtx.training.apply import Rounding


@definition
def stored(
    inner: TransformationLike,
    default: CodecName | None = None,
    *,
    rounding: Rounding = "stochastic",
    min_size: int = 4096,
    where: Where | None = None,
    block: int = 32,
    fused: bool | None = None,
    **slots: CodecName,
) -> Any:
    r"""Store the optimizer state in 16, 8 or 4 bits (bf16, int8, int4).

    The rules need no change. For every array one kernel decodes s to float32, runs the rule, and
    encodes its new slots. The codecs, with n the bytes per entry and the largest error:

    ==========  ======  ============================================================================
    codec       n       error
    ==========  ======  ============================================================================
    packed16    2       as bf16; two slots share one array of 32-bit words, the fastest on a CPU
    bf16        2       2⁻⁷ of the entry, stochastic; half of that to the nearest
    f16         2       2⁻¹⁰ of the entry, 2⁻²⁴ near 0; of the root, for squares
    bf16+8      3       2⁻¹⁶ of the entry: bfloat16, and its error in 8 bits
    int8        1.0625  2/127 of the largest of 32 entries, a quarter of it near 0; for squares
                        1/255 of the root
    int4        0.5625  2/7 of the largest of 32 entries; for first moments, with squares in int8
    dynamic8    1.0156  a tenth of the entry, down to 1e-6 of the largest of 256 (Dettmers); on no
                        device the fastest
    ==========  ======  ============================================================================

    Stochastic rounding is unbiased, so that averages with small steps keep moving. With β₂ = 0.999
    and rounding to the nearest, a second moment in bfloat16 never falls again. The random bits are
    a hash of step, leaf and position: the same run gives the same numbers, on any number of
    devices. With 16-bit codecs the update of a step uses the encoded moments; with other codecs it
    uses the moments before they are encoded.

    When: memory or its bandwidth is the limit; packed16 is safe everywhere, and faster than
    float32. int8 is for GPU and TPU, where it is one kernel; on a CPU it is slower than float32.
    When not: fewer than a few million parameters, which gain nothing; int4 with Lion, whose only
    slot is the moment whose sign it takes.

    Args:
      inner: the transformation; the slots of wrapped members are stored too, and the sum of
        `accumulate`.
      default: the codec of all slots, or None: only of the slots in `**slots`. Slots whose small
        differences matter (copies and averages of parameters, step sizes) stay float32 unless they
        are named, `ema="bf16"`.
      rounding: "stochastic" or "nearest".
      min_size: arrays with fewer entries are not encoded; 4096.
      where: which parameters, as for `masked`; None: all, but with 8 and 4 bits embeddings and
        heads stay float32 (by their paths: "embed", "wte", "lm_head").
      block: entries per scale of int8 and int4, a power of two; 32 to 128. Static.
      fused: whether codes of blocks are computed tile by tile, within one Pallas kernel (TPU, GPU)
        or a loop (CPU). None: if the arrays are on one device, or within `shard_map`; XLA cannot
        divide such a kernel among devices, so that elsewhere it runs in two passes.
      **slots: codecs by name of slot, `mu="int4", nu="int8"`; "float32" for none.

    Raises:
      GradtxError: an unknown codec; a slot that no member has; int4 for a slot that is a tree; a
        member of another library.

    State: per slot of a parameter n bytes instead of 4.

    >>> import gradtx, io, jax.numpy as jnp
    >>> params = {"dense": jnp.zeros((256, 256))}
    >>> for codec in ("float32", "packed16", "int8"):
    ...     tx = gradtx.stored(gradtx.adamw(1e-3), codec)
    ...     table = gradtx.summary(tx, params, file=io.StringIO())
    ...     print(codec, round(table.bytes_per_parameter, 2))
    float32 8.0
    packed16 4.0
    int8 2.13

    See also: `master_weights`, `compare_storage`, `apply_updates`.

    int8 and the map of first moments: Gonzalez Ortiz et al. 2026, FlashOptim, arXiv:2602.23349.
    dynamic8: Dettmers et al. 2021, arXiv:2110.02861, section 1.2.
    """
    _check(default, slots, block)
    inner = as_transformation(inner)
    names = inner.slot_names
    if unknown := sorted(set(slots) - set(names)):
        raise GradtxError(
            f"stored: no member has a slot {', '.join(map(repr, unknown))}; the slots are "
            f"{', '.join(map(repr, names)) or 'none'}"
        )
    selector, by_slot = None, tuple(sorted(slots.items()))
    if where is not None:
        selector = Selector(where, True, "stored")
    is_random = rounding == "stochastic"
    policy = Policy(default, by_slot, is_random, block, fused, min_size, selector)
    return MapRules(inner, functools.partial(_store, policy))


def _check(default: str | None, slots: Mapping[str, str], block: int) -> None:
    for name, codec in {"default": default, **slots}.items():
        if codec is not None and codec != "float32":
            codec_named(codec, f"stored: {name}")
    if default is None and not slots:
        raise GradtxError(
            'stored: no codec is given; pass stored(tx, "packed16") for all slots, or '
            'stored(tx, mu="bf16") for one'
        )
    if block < 2 or block & (block - 1):
        raise GradtxError(f"stored: block = {block!r} is not a power of two; use 32, 64 or 128")


def _store(policy: Policy, rule: Rule) -> Rule:
    """Put a storage on a rule and on its members."""
    return rule.with_storage(policy, functools.partial(_stored_member, policy=policy))


@definition
def _stored_member(inner: TransformationLike, policy: Policy) -> MapRules:
    """A member of a wrapper with the storage of the wrapper."""
    return MapRules(as_transformation(inner), functools.partial(_store, policy))
