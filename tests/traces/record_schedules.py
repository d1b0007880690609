"""Record learning rates of other libraries' schedulers: python tests/traces/record_schedules.py

Needs torch 2.13, transformers 5.24, timm 1.0.31, Keras 3.15 on its JAX backend, and NumPy; the
tests need the recorded schedules.npz alone. A name is the call as docs/schedules.md shows it. The
optimizer is `torch.optim.SGD(params, lr=0.1, momentum=0.9)`; the values are those of steps 0 to 99.
"""

# pyright: reportMissingImports=false
import functools
import math
import os
import pathlib
import warnings

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
import torch
import transformers
from timm.scheduler import create_scheduler_v2

STEPS = 100
LOSSES = [max(1.0 - 0.05 * step, 0.5) for step in range(STEPS)]
"""What the schedulers that read a metric see: a loss that stops falling at step 10."""

TORCH = [
    "LambdaLR(lambda epoch: 0.95**epoch)",
    "MultiplicativeLR(lambda epoch: 0.95)",
    "StepLR(step_size=30, gamma=0.1)",
    "MultiStepLR(milestones=[30, 80], gamma=0.1)",
    "ConstantLR(factor=0.5, total_iters=4)",
    "LinearLR(start_factor=0.5, total_iters=4)",
    "ExponentialLR(gamma=0.9)",
    "PolynomialLR(total_iters=50, power=2.0)",
    "CosineAnnealingLR(T_max=100, eta_min=0.001)",
    "CosineAnnealingWarmRestarts(T_0=10, T_mult=2, eta_min=0.001)",
    "CyclicLR(base_lr=0.01, max_lr=0.1, step_size_up=20)",
    'CyclicLR(base_lr=0.01, max_lr=0.1, step_size_up=20, mode="triangular2")',
    'CyclicLR(base_lr=0.01, max_lr=0.1, step_size_up=20, mode="exp_range", gamma=0.99)',
    "OneCycleLR(max_lr=0.1, total_steps=100)",
    'OneCycleLR(max_lr=0.1, total_steps=100, anneal_strategy="linear", three_phase=True)',
    "SequentialLR([ConstantLR(factor=0.1, total_iters=20), ExponentialLR(0.9)], milestones=[20])",
    "ChainedScheduler([ConstantLR(factor=0.1), ExponentialLR(gamma=0.9)])",
    "ReduceLROnPlateau(factor=0.5, patience=5)",
    "SWALR(swa_lr=0.05, anneal_epochs=10)",
]
TRANSFORMERS = {
    '"constant"': {},
    '"constant_with_warmup"': {},
    '"linear"': {},
    '"cosine"': {},
    '"cosine_with_restarts", num_cycles=2': {"num_cycles": 2},
    '"cosine_with_min_lr", min_lr=0.01': {"min_lr": 0.01},
    '"cosine_warmup_with_min_lr", min_lr=0.01, warmup_lr_rate=0.1': {
        "min_lr": 0.01,
        "warmup_lr_rate": 0.1,
    },
    '"polynomial", power=2.0, lr_end=0.001': {"power": 2.0, "lr_end": 0.001},
    '"inverse_sqrt"': {},
    '"warmup_stable_decay", num_decay_steps=30': {"num_decay_steps": 30},
    '"reduce_lr_on_plateau", factor=0.5, patience=5': {"factor": 0.5, "patience": 5},
}
"""`get_scheduler` with 20 warmup steps of 100, and arguments for `scheduler_specific_kwargs`."""
TIMM = [
    'sched="cosine", num_epochs=100, min_lr=0.001',
    'sched="cosine", num_epochs=80, warmup_epochs=20, warmup_lr=0.001, warmup_prefix=True',
    'sched="cosine", num_epochs=100, warmup_epochs=20, warmup_lr=0.001',
    'sched="cosine", num_epochs=10, cycle_limit=3, cycle_mul=2.0, cycle_decay=0.5',
    'sched="tanh", num_epochs=100, min_lr=0.001',
    'sched="step", num_epochs=100, decay_epochs=30, decay_rate=0.1',
    'sched="multistep", num_epochs=100, decay_milestones=[30, 60], decay_rate=0.1',
    'sched="poly", num_epochs=100, decay_rate=0.5',
    'sched="plateau", num_epochs=100, patience_epochs=5, decay_rate=0.5, plateau_mode="min"',
    'sched="wsd", num_epochs=100, warmup_epochs=20, warmup_lr=0.001, decay_epochs=30',
]
KERAS = [
    "ExponentialDecay(0.1, decay_steps=20, decay_rate=0.5)",
    "ExponentialDecay(0.1, decay_steps=20, decay_rate=0.5, staircase=True)",
    "PiecewiseConstantDecay([30, 60], [0.1, 0.05, 0.01])",
    "PolynomialDecay(0.1, decay_steps=50, end_learning_rate=0.001, power=2.0)",
    "InverseTimeDecay(0.1, decay_steps=20, decay_rate=0.5)",
    "CosineDecay(0.1, decay_steps=50, alpha=0.1)",
    "CosineDecay(0.0, decay_steps=50, warmup_target=0.1, warmup_steps=20)",
    "CosineDecayRestarts(0.1, first_decay_steps=10, t_mul=2.0, m_mul=0.5)",
    "CosineDecayRestarts(0.1, first_decay_steps=10, t_mul=2.0, m_mul=0.5, alpha=0.1)",
]


def new_optimizer():
    param = torch.nn.Parameter(torch.zeros(()))
    param.grad = torch.zeros(())
    return torch.optim.SGD([param], lr=0.1, momentum=0.9)


def follow(optimizer, step):
    """The learning rate of every step; `step` makes the scheduler's."""
    rates = []
    for number in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if number < STEPS - 1:
            step(number)
    return np.array(rates, np.float64)


def torch_rates(call):
    optimizer = new_optimizer()
    kinds = {**vars(torch.optim.lr_scheduler), "SWALR": torch.optim.swa_utils.SWALR}
    names = {
        name: functools.partial(kind, optimizer) if name != "ChainedScheduler" else kind
        for name, kind in kinds.items()
        if isinstance(kind, type)
    }
    scheduler = eval(call, names)
    if call.startswith("ReduceLROnPlateau"):
        return follow(optimizer, lambda number: scheduler.step(LOSSES[number]))
    return follow(optimizer, lambda number: scheduler.step())


def transformers_rates(call, kwargs):
    optimizer, name = new_optimizer(), call.split('"')[1]
    scheduler = transformers.get_scheduler(name, optimizer, 20, STEPS, kwargs)
    if name == "reduce_lr_on_plateau":
        return follow(optimizer, lambda number: scheduler.step(LOSSES[number]))
    return follow(optimizer, lambda number: scheduler.step())


def timm_rates(call):
    optimizer = new_optimizer()
    create = functools.partial(create_scheduler_v2, optimizer)
    scheduler, _ = eval(f"create({call})", {"create": create})
    return follow(optimizer, lambda number: scheduler.step(number + 1, LOSSES[number]))


def keras_rates(call):
    schedule = eval(call, vars(keras.optimizers.schedules))
    return np.array([float(schedule(step)) for step in range(STEPS)])


def main():
    warnings.simplefilter("ignore")
    traces = {call: torch_rates(call) for call in TORCH}
    traces |= {
        f"get_scheduler({call})": transformers_rates(call, kwargs)
        for call, kwargs in TRANSFORMERS.items()
    }
    traces |= {f"create_scheduler_v2({call})": timm_rates(call) for call in TIMM}
    traces |= {call: keras_rates(call) for call in KERAS}
    assert all(math.isfinite(rate) for rates in traces.values() for rate in rates)
    path = pathlib.Path(__file__).with_name("schedules.npz")
    names = np.array(list(traces))
    np.savez_compressed(path, allow_pickle=False, names=names, rates=np.stack([*traces.values()]))
    print(f"{len(traces)} traces, torch {torch.__version__}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
