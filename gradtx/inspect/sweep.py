"""`sweep`: many trainings over hyperparameters and seeds, as one program."""

import inspect
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.show import show
from gradtx.inspect.sweep_call import split_call
from gradtx.inspect.sweep_groups import group_definitions
from gradtx.inspect.sweep_metric import Mode, check_mode, find_metric, one_training
from gradtx.inspect.sweep_points import (
    Point,
    Points,
    check_names,
    definition_at,
    read_points,
    seed_axis,
)
from gradtx.inspect.sweep_progress import Progress
from gradtx.inspect.sweep_result import SweepResult, size_text
from gradtx.inspect.sweep_run import Device, Job, Results, run_group


def sweep(
    train: Callable[..., Any],
    tx: TransformationLike,
    *args: Any,
    points: Sequence[Point] | Mapping[str, Sequence[Any]] | None = None,
    grid: bool = True,
    seeds: int | Sequence[int] | None = None,
    keys: jax.Array | None = None,
    chunk: int | None = None,
    metric: str | None = None,
    mode: Mode = "min",
    devices: Sequence[Device] | None = None,
    progress: bool | None = None,
    **values: Sequence[Any] | np.ndarray | jax.Array,
) -> SweepResult:
    """Hyperparameter sweep: train a grid of learning rates, weight decays and seeds in one program.

    For every point p = (p_1, ..., p_k) of the grid and every seed s the result is r[p, s] =
    train(tx with p, key_s, *args). Each array of it has shape (n_1, ..., n_k, seeds, ...): one axis
    for each list, then that of the seeds, then those of one training. All trainings are one `vmap`
    in one jitted program, which compiles once for any number of them.

    When: small and medium networks, whose single training leaves the device idle: a learning rate
    with its weight decay, over several seeds. On a CPU it saves the compiling of every training,
    and no more: one jitted function that takes the definition is as fast. When not: a training that
    fills the device by itself; trainings that stop early, since all of them run to the last step;
    searches that choose the next point from results, which need a search library.

    Options that choose the program (`nesterov=[True, False]`, a schedule in a number's place) work
    as well. The points are then sorted by program, and each program compiles once.

    Args:
      train: a pure function, `train(tx, *args)` or with seeds `train(tx, key, *args)`. It trains
        from the start, best with `jax.lax.scan` over the steps, and returns the final loss, the
        losses of all steps, or a tree of arrays such as `{"loss": ..., "accuracy": ...}`.
      tx: the definition whose hyperparameters vary.
      *args: further arguments of `train`, equal for all trainings: data, first parameters. Numbers
        and texts among them are static.
      points: a list of points in place of a grid, `[{"learning_rate": 1e-3, "b1": 0.9}, ...]`; or
        lists by names with dots, `{"learning_rate.peak_value": [1e-3, 1e-2]}`.
      grid: whether the lists span a grid; False: they are columns, one point for each row.
      seeds: the number n of seeds 0, ..., n − 1, or a list of seeds; `key` is then
        `jax.random.key(seed)`. Usually 3 to 5.
      keys: random keys in place of `seeds`, `jax.random.split(key, n)`.
      chunk: the number of trainings that run at once; None: all, or as many as fit into memory.
        Where memory ends, sweep halves it. Another size changes results by rounding only.
      metric: the path of the result that ranks the points; None: the only one, or "loss". Of one
        value per step the last one counts.
      mode: "min" or "max": which metric is the best.
      devices: chunks are spread over these; None: all local devices.
      progress: whether a progress bar is on standard error; None: where that is a terminal.
      **values: a list of values for each hyperparameter or option, by the names of `hyperparams`.

    Returns:
      A `SweepResult`: `values` and `axes` as arrays, `best`, `best_tx`, `table()`, `plot()`.

    Raises:
      HyperparamError: an unknown name, an empty list, lists of different lengths with `grid=False`,
        a value out of its range, numbers in the place of a schedule.
      GradtxError: `train` has other arguments, returns no array, or makes a Python decision on the
        value of a hyperparameter; one training does not fit into memory.

    State: that of each training in its program; the results are in the memory of the host.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> def train(tx, key, steps):
    ...     def step(carry, _):
    ...         w, state = carry
    ...         updates, state = tx.update(w, state, w)  # the gradient of w²/2 is w
    ...         return (gradtx.apply_updates(w, updates), state), w**2 / 2
    ...     w = jax.random.normal(key)
    ...     return jax.lax.scan(step, (w, tx.init(w)), None, steps)[1]
    >>> rates, momenta = [0.1, 1.0, 3.0], [0.0, 0.9]
    >>> tx = gradtx.sgd(0.1, momentum=0.0)
    >>> result = gradtx.sweep(train, tx, 20, learning_rate=rates, momentum=momenta, seeds=3)
    >>> result.values.shape
    (3, 2, 3, 20)
    >>> result.best  # one step of gradient descent with rate 1 ends in the minimum
    {'learning_rate': 1.0, 'momentum': 0.0}
    >>> result.best_tx
    sgd(learning_rate=1.0, momentum=0.0)

    See also: `replace` and `vmap_axes` for a batch of definitions by hand, `find_learning_rate`.
    """
    _check_train(train)
    tx = as_transformation(tx)
    numbers, keys = seed_axis(seeds, keys)
    _check_call(train, chunk, mode, args, keys)
    plan = read_points(values, points, grid)
    check_names(tx, plan)
    groups = group_definitions([definition_at(tx, point) for point in plan], max(len(numbers), 1))
    results = Results(len(plan) * max(len(numbers), 1), lambda shapes: find_metric(shapes, metric))
    call, key_numbers, arrays = split_call(train, keys, args)
    job = Job(call, key_numbers, arrays, _devices(devices, arrays))
    try:
        with Progress(size_text(plan, numbers), results.total, progress) as bar:
            for group in groups:
                run_group(group, job, chunk, results, bar)
    except TRACER_ERRORS as error:
        raise _decision(train, tx, plan, keys, args, error) from error
    shape = (*plan.shape, *((len(numbers),) if numbers else ()))
    tree = results.tree(shape)
    path = find_metric(one_training(tree, shape), metric)
    return SweepResult(tx, plan, numbers, tree, path, mode)


TRACER_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""The errors of JAX where Python needs the value of an array that is being traced."""


def _check_train(train: Any) -> None:
    if not callable(train) or isinstance(train, GradientTransformation):
        raise GradtxError(
            f"sweep: train = {show(train)} is not a function; the order is sweep(train, tx, ...)"
        )


def _check_call(
    train: Callable[..., Any], chunk: Any, mode: str, args: Sequence[Any], keys: Any
) -> None:
    check_mode(mode)
    if chunk is not None and not (type(chunk) is int and chunk > 0):
        raise HyperparamError(
            f"sweep: chunk = {show(chunk)} is not a number of trainings; give a whole number of 1 "
            "or more, or None"
        )
    try:
        signature = inspect.signature(train)
    except (TypeError, ValueError):
        return  # a function that has no signature for Python
    names = ["tx", *([] if keys is None else ["key"]), *(f"args[{n}]" for n in range(len(args)))]
    try:
        signature.bind(*names)
    except TypeError as error:
        call = "without seeds" if keys is None else "with seeds, which gives train a random key"
        raise GradtxError(
            f"sweep: train({', '.join(signature.parameters)}) cannot be called as "
            f"train({', '.join(names)}), the call {call}: {error}; change its parameters, or the "
            "arguments after tx"
        ) from None


def _devices(devices: Sequence[Device] | None, arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The devices for chunks; none where JAX or the caller's shardings place them."""
    if devices is not None:
        return tuple(devices)
    is_sharded = any(isinstance(one, jax.Array) and len(one.devices()) > 1 for one in arrays)
    if is_sharded or getattr(jax.config, "jax_default_device", None):
        return ()
    local = jax.local_devices()
    return tuple(local) if len(local) > 1 else ()


def _decision(
    train: Callable[..., Any],
    tx: GradientTransformation,
    plan: Points,
    keys: Any,
    args: Sequence[Any],
    error: Exception,
) -> GradtxError:
    """The error for `train` that needs the value of an array in Python, with the name at fault."""
    first = next(iter(plan))
    own = (*(() if keys is None else (keys[0],)), *args)
    names = [name for name, values in plan.axes.items() if len({*map(repr, values)}) > 1]
    constant = definition_at(tx, first)
    if _leaks(lambda _: train(constant, *own), 0.0):
        names = []  # without any hyperparameter among the traced values, too
    names = [
        name
        for name in names
        if isinstance(first[name], int | float)
        and _leaks(
            lambda one, name=name: train(definition_at(constant, {name: one}), *own), first[name]
        )
    ]
    cause = f"of {' and '.join(names)}" if names else "of an array"
    return GradtxError(
        f"sweep: train{_line(error)} needs the value {cause}, or of a number computed from it, "
        "in Python, where all trainings are traced as one program; write jnp.where or "
        "jax.lax.cond in place of if, jax.lax.while_loop in place of while, and no float()"
    )


def _leaks(function: Callable[[Any], Any], value: Any) -> bool:
    """Whether a function needs the value of its argument, or of any array, in Python."""
    try:
        jax.eval_shape(function, value)
    except TRACER_ERRORS:
        return True
    return False


def _line(error: Exception) -> str:
    """The place of the error in the caller's code, ` (line 12 of train.py)`."""
    libraries = [str(Path(jax.__file__).parent), str(Path(__file__).parents[1])]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(frame.filename.startswith(library + os.sep) for library in libraries)
    ]
    if not frames or not Path(frames[-1].filename).name:
        return ""
    return f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})"
