"""`momentwise`: a rule with a first moment, whose average a momentum kernel may replace."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation
from gradtx.engine.slot_form import returned_type
from gradtx.transforms.kernel_moments import KernelMoment, buffer_names, buffer_slots
from gradtx.transforms.momentum_kernel import VALUES, Form, MomentumKernel

Function = Callable[..., Any]


def momentwise(
    init: Function,
    update: Function,
    momentum: MomentumKernel | None,
    *,
    lifter: Callable[..., GradientTransformation] = leafwise,
    field: str = "mu",
    **arguments: Any,
) -> GradientTransformation:
    """Lift a rule, with the buffers of a kernel in the place of its first moment.

    The rule reads its moment by the functions of `moments.py` alone: `average`, `debias`,
    `corrected_mean`, `mean_of`, `plain_mean` and `where_moment`.

    Args:
      init: makes the slots of the rule; it must be annotated with their type.
      update: one step of the rule.
      momentum: the kernel; None: the rule as it is.
      lifter: `leafwise` or `matrixwise`.
      field: the slot of the first moment.
      **arguments: those of the lifter.
    """
    if momentum is None:
        return lifter(init, update, **arguments)
    form, values = momentum.form, VALUES(momentum)
    functions = _with_buffers(init, field, form), _with_moment(update, field, form)
    return lifter(*functions, momentum=values, **arguments)


@functools.lru_cache(maxsize=1024)
def _with_buffers(init: Function, field: str, form: Form) -> Function:
    """`init` with further buffers, one function for each kernel's form: rules share kernels."""
    kernel, kind = form.like, returned_type(init)
    slots_type = buffer_slots(kind, field, buffer_names(kernel, field))

    @functools.wraps(init)
    def init_buffers(param: jax.Array, **kwargs: Any) -> Any:
        def make() -> jax.Array:
            return getattr(init(param, **kwargs), field)

        return slots_type(*init(param, **kwargs), *kernel.init_more(make, param))

    init_buffers.__signature__ = inspect.signature(init)  # pyright: ignore[reportAttributeAccessIssue]
    init_buffers.__annotations__ = {**init.__annotations__, "return": slots_type}
    return init_buffers


@functools.lru_cache(maxsize=1024)
def _with_moment(update: Function, field: str, form: Form) -> Function:
    """`update` on a moment that is made of the buffers, one function for each kernel's form."""

    @functools.wraps(update)
    def update_buffers(
        grad: jax.Array,
        slots: Any,
        param: jax.Array | None,
        step: jax.Array,
        *,
        momentum: Any,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        kind, _, names = type(slots).origin
        own = {name: getattr(slots, name) for name in kind._fields}
        buffers = (own[field], *(getattr(slots, name) for name in names))
        own[field] = KernelMoment(form.record(momentum), buffers, step - 1)
        direction, new = update(grad, kind(**own), param, step, **kwargs)
        first, *more = getattr(new, field).buffers
        return direction, type(slots)(*new._replace(**{field: first}), *more)

    parameter = inspect.Parameter("momentum", inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(update)
    parameters = [*signature.parameters.values(), parameter]
    update_buffers.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=parameters
    )
    update_buffers.__annotations__ = dict(update.__annotations__)
    return update_buffers
