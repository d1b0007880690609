"""`MomentumKernel`: which weights past gradients have in the direction, as data.

A kernel is a `Definition`: it prints as its call, compares by value, is written as JSON, and its
numbers are the leaves of a pytree. At a count it comes down to a record, `Exponentials` or `Taps`,
whose numbers are the hyperparameters of the rule that uses it.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Concatenate, NamedTuple, ParamSpec, overload

import jax
import jax.numpy as jnp

from gradtx.definition.definition import Definition, Factory, map_items, uncalled_builder
from gradtx.definition.errors import HyperparamError
from gradtx.definition.pytree import register
from gradtx.definition.schedule import Schedule, ScheduleFactory, value_at, wide_count
from gradtx.definition.signature import builder_of
from gradtx.definition.types import Array, ArrayLike

P = ParamSpec("P")


class Form(NamedTuple):
    """The structure of a kernel's record and the shapes of its numbers: static."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]

    def record(self, values: Any) -> Any:
        """Return the record with some values in the place of its numbers."""
        return jax.tree.unflatten(self.treedef, values)

    @property
    def like(self) -> Any:
        """The record with the shapes of its numbers in their place."""
        return self.record([jax.ShapeDtypeStruct(shape, jnp.float32) for shape in self.shapes])


class MomentumKernel(Definition):
    """A momentum kernel: the weight of each past gradient in an average, as data.

    D_t = Σ_k c_k(t) g_{t−k}. Optimizers accept one as `momentum=`, and `scale_by_momentum` applies
    one alone. The weights add up to 1, but for `ademamix_kernel`.

    >>> import gradtx
    >>> kernel = gradtx.bi_maxwell(start=500)
    >>> gradtx.adamw(1e-3, momentum=kernel)
    adamw(learning_rate=0.001, momentum=bi_maxwell(start=500))
    >>> gradtx.replace(gradtx.adamw(1e-3, momentum=kernel), start=800).arguments["momentum"]
    bi_maxwell(start=800)
    """

    __slots__ = ()
    public_names: ClassVar[tuple[str, ...]] = ("arguments", "at", "form")
    plural: ClassVar[str] = "momentum kernels"
    misplaced: ClassVar[str] = "a momentum kernel: pass it as momentum=..."

    @classmethod
    def coerce(cls, value: Any, where: str) -> "MomentumKernel":
        if (mistake := uncalled_builder(value)) is not None:
            raise HyperparamError(f"{where}: {mistake}")
        raise HyperparamError(
            f"{where} = {value!r} is not a momentum kernel: take bi_maxwell(), k_maxwell(), "
            f"max_entropy(), ademamix_kernel(...) or exponentials(decays, weights)"
        )

    def verify(self) -> None:
        if self.factory.check is not None:
            args, kwargs = self.factory.arguments(self.arguments)
            self.factory.check(*args, **kwargs)

    def at(self, count: ArrayLike) -> Any:
        """Return the record of the kernel at `count`, the number of updates so far."""
        evaluate = functools.partial(value_at, count=count)
        values = {
            name: map_items(value, evaluate) if name in self.factory.dynamic else value
            for name, value in self.arguments.items()
        }
        args, kwargs = self.factory.arguments(values)
        return self.factory.body(count, *args, **kwargs)

    @property
    def form(self) -> Form:
        """The structure of the record, which no number of the kernel changes."""
        if "form" not in self.cache:
            numbers = jax.tree.map(_number_like, self, is_leaf=_is_schedule)
            record = jax.eval_shape(numbers.at, jax.ShapeDtypeStruct((), jnp.int32))
            leaves, treedef = jax.tree.flatten(record)
            self.cache["form"] = Form(treedef, tuple(leaf.shape for leaf in leaves))
        return self.cache["form"]


register(MomentumKernel)


def _number_like(leaf: Any) -> float:
    """A number in the place of a leaf, which may be a batch or a schedule."""
    return 0.5


def _is_schedule(node: Any) -> bool:
    return isinstance(node, Schedule)


@overload
def momentum_kernel(
    function: Callable[Concatenate[Any, P], Any], /
) -> Callable[P, MomentumKernel]: ...
@overload
def momentum_kernel(
    *, check: Callable[..., None]
) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, MomentumKernel]]: ...
def momentum_kernel(function: Any = None, /, *, check: Any = None) -> Any:
    """Turn `function(count, *parameters) -> record` into a builder of kernels.

    The parameters annotated as hyperparameters are the data; the others are static. `check`
    receives the same parameters, and may raise if they contradict each other.
    """
    if function is None:
        return functools.partial(_make_builder, check)
    return _make_builder(check, function)


def _make_builder(
    check: Callable[..., None] | None, function: Callable[..., Any]
) -> Callable[..., MomentumKernel]:
    factory = Factory(function, MomentumKernel, skip=1, check=check)
    return builder_of(factory, function)


class KernelValues(Schedule):
    """The numbers of a kernel's record as a hyperparameter: a tuple of arrays at every count."""

    __slots__ = ()

    def __call__(self, count: ArrayLike) -> Any:
        return _evaluate(self.arguments["kernel"], wide_count(count, self.name))


register(KernelValues)


@jax.jit
def _evaluate(kernel: MomentumKernel, count: ArrayLike) -> tuple[Array, ...]:
    """Evaluate a kernel; kernels that differ only in their numbers share one program."""
    return tuple(map(jnp.asarray, jax.tree.leaves(kernel.at(count))))


def _kernel_values(count: Array, kernel: MomentumKernel) -> Any:
    return jax.tree.leaves(kernel.at(count))


VALUES = ScheduleFactory(_kernel_values, KernelValues, skip=1, name="kernel_values")
_kernel_values.factory = VALUES  # pyright: ignore[reportFunctionMemberAccess]
