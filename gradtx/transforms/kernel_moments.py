r"""First moments by a momentum kernel: what a rule keeps in the place of one average.

A sum of exponentials keeps one average for each:

    m_k ← b_k m_k + (1 − b_k) g,    D = Σ_k w_k m_k / (1 − b_k^t)

Before its start step each of them is the optimizer's own average, so that they start as copies of
it. A finite kernel keeps the last n gradients in a ring:

    D = Σ_k c_k g_{t−k} / Σ_{k<t} c_k

The divisors correct the bias, in optimizers that do so.
"""

import copyreg
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_type_hints

import jax
import jax.numpy as jnp

from gradtx.tree.arithmetic import one_minus_power
from gradtx.tree.casts import zeros_along

Real = Any
"""A real number: a scalar array in a kernel, a float elsewhere."""


def _power_mass(decay: Real, other: Real, first: Real, then: Real) -> Real:
    """1 − β^first b^then: the weight that an average has of all gradients so far."""
    mass = one_minus_power(decay, first)
    return mass + (1 - mass) * one_minus_power(other, then)


class Exponentials(NamedTuple):
    """A sum of exponential averages at one count."""

    decays: tuple[Real, ...]
    weights: tuple[Real, ...]
    corrections: tuple[Real, ...]
    """For each average 1 where an optimizer corrects its bias, else 0."""
    start: Real | None
    """The number of updates before the kernel acts; None: it acts from the first step."""

    def init_more(self, make: Callable[[], jax.Array], param: jax.Array) -> list[jax.Array]:
        """Make the buffers beside the first one."""
        return [make() for _ in self.decays[1:]]

    def advance(
        self, buffers: Sequence[jax.Array], grad: jax.Array, decay: Real, seen: Real
    ) -> tuple[jax.Array, ...]:
        """Average the gradient that makes `seen` gradients into every buffer."""
        rates = [self._early(seen, decay, own) for own in self.decays]
        return tuple(
            rate * one + (1 - rate) * grad for rate, one in zip(rates, buffers, strict=True)
        )

    def mean(
        self, buffers: Sequence[jax.Array], seen: Real, decay: Real, step: Real | None
    ) -> jax.Array:
        """Return D after `seen` gradients; corrected for `step` gradients, or not for None."""
        masses = [1.0 if step is None else self._mass(n, decay, step) for n in self._numbers]
        alone = 1.0 if step is None else 1 / one_minus_power(decay, step)
        factors = [
            self._early(seen, alone if n == 0 else 0.0, self.weights[n] / masses[n])
            for n in self._numbers
        ]
        terms = [factor * one for factor, one in zip(factors, buffers, strict=True)]
        return functools.reduce(jnp.add, terms)

    def look_ahead(self, ahead: jax.Array, mean: jax.Array, seen: Real) -> jax.Array:
        """Choose between the mean one step ahead (Nesterov) and the mean: always the first."""
        return ahead

    def _early(self, seen: Real, before: Real, after: Real) -> Real:
        """Choose a number by whether the buffers are still copies of one average."""
        return after if self.start is None else jnp.where(seen <= self.start + 1, before, after)

    @property
    def _numbers(self) -> range:
        return range(len(self.decays))

    def _mass(self, number: int, decay: Real, step: Real) -> Real:
        """The weight that one average has of `step` gradients; 1 where its bias stays."""
        own, flag = self.decays[number], self.corrections[number]
        if self.start is None:
            return 1 - flag + flag * one_minus_power(own, step)
        first = jnp.minimum(step, self.start + 1)
        return 1 - flag + flag * _power_mass(decay, own, first, step - first)


BITS: dict[Any, Any] = {
    jnp.dtype("bfloat16"): jnp.dtype("uint16"),
    jnp.dtype("float16"): jnp.dtype("int16"),
}
"""The integers in which a ring holds gradients of 16 bits.

A rule receives floats in float32: all of a ring would be converted, and written, at every step. For
TPU and GPU a ring of 16 bits is written in place; XLA:CPU copies it.
"""
FLOATS: dict[Any, Any] = {bits: floats for floats, bits in BITS.items()}


def _to_ring(row: jax.Array, dtype: Any) -> jax.Array:
    if dtype not in FLOATS:
        return row.astype(dtype)
    return jax.lax.bitcast_convert_type(row.astype(FLOATS[dtype]), dtype)


def _from_ring(ring: jax.Array) -> jax.Array:
    if ring.dtype not in FLOATS:
        return ring
    return jax.lax.bitcast_convert_type(ring, FLOATS[ring.dtype])


class Taps(NamedTuple):
    """Weights of the last n gradients at one count, the newest first."""

    coefficients: jax.Array
    start: Real | None
    nesterov: Real
    """1 where an optimizer's look-ahead goes on after the start, else 0."""

    @property
    def length(self) -> int:
        return self.coefficients.shape[0]

    def init_more(self, make: Callable[[], jax.Array], param: jax.Array) -> list[jax.Array]:
        """Make the ring of gradients, along a new first axis."""
        shape, axes = (self.length, *param.shape), (None, *range(param.ndim))
        dtype = make().dtype
        return [zeros_along(param, shape, BITS.get(dtype, dtype), axes)]

    def advance(
        self, buffers: Sequence[jax.Array], grad: jax.Array, decay: Real, seen: Real
    ) -> tuple[jax.Array, ...]:
        """Average the gradient that makes `seen` gradients, and write it into the ring."""
        mu, ring = buffers
        place = jnp.mod(seen - 1, self.length).astype(jnp.int32)
        row = _to_ring(grad[None], ring.dtype)
        # One row in place: a shift of the ring would copy all of it at every step.
        ring = jax.lax.dynamic_update_slice_in_dim(ring, row, place, 0)
        return decay * mu + (1 - decay) * grad, ring

    def mean(
        self, buffers: Sequence[jax.Array], seen: Real, decay: Real, step: Real | None
    ) -> jax.Array:
        """Return D after `seen` gradients; corrected for `step` gradients, or not for None."""
        mu, ring = buffers
        places = jnp.arange(self.length)
        newest = jnp.mod(seen - 1, self.length).astype(jnp.int32)
        factors = self.coefficients[jnp.mod(newest - places, self.length)]
        if step is not None:
            mass = jnp.sum(jnp.where(places < step, self.coefficients, 0.0))
            factors = factors / mass
            mu = mu / one_minus_power(decay, step)
        # Not a dot product, which a TPU would compute in bfloat16.
        gradients = _from_ring(ring).astype(mu.dtype)
        total = jnp.sum(factors.reshape(-1, *(1,) * mu.ndim) * gradients, axis=0)
        return self._early(seen, mu, total)

    def look_ahead(self, ahead: jax.Array, mean: jax.Array, seen: Real) -> jax.Array:
        """Choose between the mean one step ahead (Nesterov) and the mean."""
        return self._early(seen, ahead, jnp.where(self.nesterov > 0, ahead, mean))

    def _early(self, seen: Real, before: Any, after: Any) -> Any:
        """Choose by whether the kernel has not started yet."""
        return after if self.start is None else jnp.where(seen <= self.start, before, after)


class KernelMoment(NamedTuple):
    """A first moment by a kernel, in the place of the array of an average."""

    kernel: Exponentials | Taps
    buffers: tuple[jax.Array, ...]
    seen: Real
    """The number of gradients in it."""
    decay: Real = 0.0
    """The decay of the optimizer's own average, which acts before the start."""

    def average(self, value: jax.Array, decay: Real) -> "KernelMoment":
        """Return the moment with one more gradient."""
        seen = self.seen + 1
        buffers = self.kernel.advance(self.buffers, value, decay, seen)
        return KernelMoment(self.kernel, buffers, seen, decay)

    def mean(self, step: Real | None = None) -> jax.Array:
        """Return the moment as an array; bias-corrected for `step` gradients, or not for None."""
        return self.kernel.mean(self.buffers, self.seen, self.decay, step)

    def where(self, condition: Real, other: "KernelMoment") -> "KernelMoment":
        """Return this moment where the condition holds, else the other one."""
        pairs = zip(self.buffers, other.buffers, strict=True)
        buffers = tuple(jnp.where(condition, *pair) for pair in pairs)
        return other._replace(buffers=buffers)


class _BufferSlots(type):
    """The metaclass of slots with buffers, by which pickle makes such a class again."""


@functools.lru_cache(maxsize=1024)
def buffer_slots(kind: type[Any], field: str, names: tuple[str, ...]) -> type[Any]:
    """The slots of a rule with the buffers of a kernel behind its own fields.

    The first buffer is in the field of the average itself; each other one has a name of its own.
    """
    hints = get_type_hints(kind, include_extras=True)
    fields = [(name, hints[name]) for name in kind._fields]  # pyright: ignore[reportAttributeAccessIssue]
    fields += [(name, jax.Array) for name in names]
    base = NamedTuple(kind.__name__, fields)  # pyright: ignore[reportCallIssue]
    space = {"__slots__": (), "__annotations__": dict(fields), "origin": (kind, field, names)}
    return _BufferSlots(kind.__name__, (base,), space)


def _reduce_class(kind: Any) -> Any:
    return buffer_slots, kind.origin


copyreg.pickle(_BufferSlots, _reduce_class)


def buffer_names(kernel: Exponentials | Taps, field: str) -> tuple[str, ...]:
    """The names of the buffers beside the first one: `mu_2`, `mu_3`, ...; `mu_ring`."""
    if isinstance(kernel, Taps):
        return (f"{field}_ring",)
    return tuple(f"{field}_{n}" for n in range(2, len(kernel.decays) + 1))
