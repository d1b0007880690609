"""Kernels whose slots are in host memory: fetched before a call, and returned after it.

Some leaves form a bundle. XLA overlaps the copies of one leaf with the arithmetic of another within
a bundle, and runs one bundle after another: few leaves have their slots on the device at a time.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.core import Tracer

from gradtx.tree.host_memory import (
    fetch,
    hidden_one,
    host_bytes,
    is_on_host,
    put_back,
    run_once,
)
from gradtx.tree.kernels import kernel

if TYPE_CHECKING:
    from gradtx.engine.kernel import LeafArgs

LARGEST_SHARE = 1 / 5
"""The part of all slots in host memory that a bundle of two leaves or more may fetch."""
LEAVES = 2
"""A bundle has this many of the largest leaves: one is copied while the other is computed."""
BUNDLES = 32
"""The number of bundles to aim at where leaves are many: each costs time to compile."""
SMALLEST = 1 << 20
"""Bytes: fewer in a bundle would not use the bandwidth between host and device."""


class KernelCalls(NamedTuple):
    """The calls of one kernel for like leaves."""

    function: Any
    shared: Any
    indices: Sequence[int]
    members: Sequence[Any]
    """The rules of the kernel, at this step."""
    program: tuple[int, ...]
    """Their numbers in the run."""


class Job(NamedTuple):
    """One call of a kernel, for one leaf."""

    run: Callable[["LeafArgs"], Any]
    """The kernel as a function of the arrays of its leaf, all of them on the device."""
    args: "LeafArgs"
    returns_params: bool
    has_matrices: bool

    @property
    def carry(self) -> tuple[Any, Any]:
        """The arrays that the results replace: the gradient or the parameter, and the slots."""
        return self.args.param if self.returns_params else self.args.grad, self.args.slots

    def call(self, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        """Run the kernel on fetched slots: the update, and the new slots."""
        array, slots = carry
        name = "param" if self.returns_params else "grad"
        return self.run(self.args._replace(slots=slots, **{name: array}))


def run_calls(
    calls: Sequence[KernelCalls],
    args: "Mapping[int, LeafArgs]",
    step: Any,
    run: Callable[..., Any],
) -> list[tuple[KernelCalls, Sequence[Any]]]:
    """The results of kernels whose slots are in host memory.

    `run(function, shared, indices, args, members)` calls a kernel for some leaves. Outside of jit
    each kernel is a program of its own, which fetches and returns its slots.
    """
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((step, args))):
        return [
            (one, run(_fetching(one.function), one.shared, one.indices, args, one.members))
            for one in calls
        ]
    jobs = [_job(one, index, args[index], run) for one in calls for index in one.indices]
    results = iter(_run_jobs(jobs, step))
    return [(one, [next(results) for _ in one.indices]) for one in calls]


def _job(calls: KernelCalls, index: int, args: "LeafArgs", run: Callable[..., Any]) -> Job:
    last = calls.members[-1].rule
    return Job(
        functools.partial(_run_one, run, calls, index),
        args,
        last.returns_params and args.param is not None,
        any(one.layouts for one in calls.members),
    )


def _run_one(
    run: Callable[..., Any], calls: KernelCalls, index: int, args: "LeafArgs"
) -> tuple[Any, Any]:
    # Jitted, so that like leaves share a trace.
    function = kernel(calls.function)
    return run(function, calls.shared, [index], {index: args}, calls.members)[0]


@functools.lru_cache(maxsize=4096)
def _fetching(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(run_fetched, function)


def run_fetched(function: Callable[..., Any], shared: Any, args: "LeafArgs") -> tuple[Any, Any]:
    """Run a kernel that fetches its slots and returns the new ones."""
    update, new = function(shared, args._replace(slots=fetch(args.slots)))
    return update, put_back(new, args.slots)


def _run_jobs(jobs: Sequence[Job], step: Any) -> list[tuple[Any, Any]]:
    """Run kernels in order, the slots of few leaves on the device at a time."""
    bundles = _bundles(jobs)
    if len(bundles) == 1 or _is_manual(jobs):
        return [_run_job(job, job.carry, None)[1] for job in jobs]
    run = functools.partial(_run_each, jobs)
    ordered = functools.partial(_run_bundles, bundles)
    carries = [job.carry for job in jobs]
    # XLA for GPU fails where a loop carries arrays of the host; it fetches few at a time by itself.
    return jax.lax.platform_dependent(step, carries, tpu=ordered, default=run)


def _run_bundles(
    bundles: Sequence[Sequence[Job]], step: Any, carries: Sequence[tuple[Any, Any]]
) -> list[tuple[Any, Any]]:
    """Run the kernels of one bundle after those of another."""
    after, rest, results = hidden_one(step), iter(carries), list[tuple[Any, Any]]()
    for bundle in bundles:
        run = functools.partial(_run_bundle, bundle, after)
        after, new = run_once(run, after, [next(rest) for _ in bundle])
        results += new
    return results


def _run_bundle(
    bundle: Sequence[Job], after: Any, carries: Sequence[tuple[Any, Any]]
) -> list[tuple[Any, Any]]:
    """Run the kernels of a bundle, whose copies XLA overlaps."""
    each = zip(bundle, carries, strict=True)
    return [_run_job(job, carry, after)[1] for job, carry in each]


def _run_each(
    jobs: Sequence[Job], step: Any, carries: Sequence[tuple[Any, Any]]
) -> list[tuple[Any, Any]]:
    """Run kernels without loops, those of matrices one after another."""
    # A GPU reads the slots of other rules in host memory, within the fusion that needs them. The
    # barrier divides the temporaries of 24 matrices by 2.4.
    results: list[tuple[Any, Any]] = []
    last: Any = None
    for job, (array, slots) in zip(jobs, carries, strict=True):
        first = array
        if job.has_matrices and last is not None:
            first, last = jax.lax.optimization_barrier((array, last))
        result = _run_job(job, (first, slots), None)[1]
        last = result[0] if job.has_matrices else last
        results.append(result)
    return results


def _is_manual(jobs: Sequence[Job]) -> bool:
    """Whether this is within `shard_map`, where results may vary over more axes than gradients.

    They could not take the place of the gradients in a carry.
    """
    arrays = (leaf for job in jobs for leaf in jax.tree.leaves(job.args))
    return any(getattr(jax.typeof(one), "vma", None) for one in arrays)


def _run_job(job: Job, carry: tuple[Any, Any], after: Any) -> tuple[Any, tuple[Any, Any]]:
    """Fetch the slots of a leaf, run its kernel, and return the new slots."""
    array, slots = carry
    on_device = array, fetch(slots)
    if after is None:
        update, new = job.call(on_device)
    else:
        # XLA for TPU writes the results of a fusion beside its inputs, those of a loop over them.
        after, (update, new) = run_once(job.call, after, on_device)
    return after, (update, put_back(new, slots))


def _bundles(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in bundles: in each as many as may be on the device at once."""
    sizes = [host_bytes(job.args.slots) for job in jobs]
    limit, bundles, filled = _limit(sizes), list[list[Job]]([[]]), 0
    for job, size in zip(jobs, sizes, strict=True):
        if bundles[-1] and filled + size > limit:
            bundles.append([])
            filled = 0
        bundles[-1].append(job)
        filled += size
    return bundles


def _limit(sizes: Sequence[int]) -> float:
    """The bytes that a bundle may fetch."""
    total, largest = sum(sizes), max(sizes, default=0)
    wanted = max(LEAVES * largest, total / BUNDLES)
    return max(min(wanted, LARGEST_SHARE * total), SMALLEST)


def fetch_args(args: "Mapping[int, LeafArgs]") -> "dict[int, LeafArgs]":
    """The arrays of some leaves, their slots on the device."""
    return {index: one._replace(slots=fetch(one.slots)) for index, one in args.items()}


def any_on_host(args: "Iterable[LeafArgs]") -> bool:
    """Whether any slot of some leaves is in host memory."""
    return any(is_on_host(leaf) for one in args for leaf in jax.tree.leaves(one.slots))
