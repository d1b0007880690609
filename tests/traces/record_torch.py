"""Record how torch's optimizers move float64 parameters: python tests/traces/record_torch.py

Needs torch 2.13, pytorch_optimizer 4.1 and NumPy; the tests need the recorded torch.npz alone. The
parameters and gradients are those of tests/support/trees.py.
"""

import pathlib

import numpy as np
import pytorch_optimizer as third  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]

torch.set_default_dtype(torch.float64)  # NAdam keeps a product in it

SHAPES = [(3, 4), (4,), (), (2, 3, 2)]
SCALES = (1, 0.01, 3, 0.3)
STEPS = 20

OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1),
    "sgd/momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "sgd/nesterov": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.1, eps=1e-10),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.01, alpha=0.99, eps=1e-8),
    "rmsprop/centered": lambda params: torch.optim.RMSprop(
        params, lr=0.01, alpha=0.9, eps=1e-2, centered=True, momentum=0.9
    ),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
    "adam/l2": lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=0.1),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1),
    "amsgrad": lambda params: torch.optim.Adam(params, lr=0.01, betas=(0.9, 0.9), amsgrad=True),
    "adamax": lambda params: torch.optim.Adamax(params, lr=0.01),
    "nadam": lambda params: torch.optim.NAdam(params, lr=0.01),
    "radam": lambda params: torch.optim.RAdam(params, lr=0.01, betas=(0.9, 0.99), eps=0.0),
    "adadelta": lambda params: torch.optim.Adadelta(params, lr=1.0),
    "rprop": lambda params: torch.optim.Rprop(params, lr=0.01),
    "adafactor": lambda params: torch.optim.Adafactor(params, lr=0.01),
    "grams": lambda params: third.Grams(params, lr=0.01, weight_decay=0.1, eps=1e-6),
    "stable_adamw": lambda params: third.StableAdamW(
        params, lr=0.01, kahan_sum=False, weight_decay=0.1
    ),
    "tiger": lambda params: third.Tiger(params, lr=0.01, weight_decay=0.1),
    "came": lambda params: third.CAME(params, lr=0.01, weight_decay=0.1),
    "mars": lambda params: third.MARS(params, lr=0.01, weight_decay=0.1),
    "lion": lambda params: third.Lion(params, lr=0.01, weight_decay=0.1),
    "adan": lambda params: third.Adan(params, lr=0.01),
    "ademamix": lambda params: third.AdEMAMix(params, lr=0.01),
    "yogi": lambda params: third.Yogi(params, lr=0.01),
    "adabelief": lambda params: third.AdaBelief(params, lr=0.01),
    "madgrad": lambda params: third.MADGRAD(params, lr=0.01),
    "fromage": lambda params: third.Fromage(params, lr=0.01),
    "prodigy": lambda params: third.Prodigy(params, lr=1.0, eps=0.0, bias_correction=True),
    "schedule_free_sgd": lambda params: third.ScheduleFreeSGD(params, lr=0.1),
    "muon": lambda params: torch.optim.Muon(params[:1], lr=0.1, weight_decay=0.1),
    "muon/match_rms": lambda params: torch.optim.Muon(
        params[:1], lr=0.1, adjust_lr_fn="match_rms_adamw"
    ),
}


def rounded(generator, shape, scale=1.0):
    return (scale * generator.normal(size=shape)).astype(np.float32).astype(np.float64)


def record(make):
    """The parameters after every step, by leaf."""
    generator = np.random.default_rng(0)
    params = [
        torch.tensor(rounded(generator, shape), dtype=torch.float64, requires_grad=True)
        for shape in SHAPES
    ]
    optimizer, history = make(params), [[] for _ in params]
    for step in range(1, STEPS + 1):
        generator = np.random.default_rng(1000 + step)
        for param, shape, scale in zip(params, SHAPES, SCALES, strict=True):
            param.grad = torch.tensor(rounded(generator, shape, scale), dtype=torch.float64)
        optimizer.step()
        for leaf, param in enumerate(params):
            history[leaf].append(param.detach().numpy().copy())
    return [np.stack(states) for states in history]


def main():
    traces = {
        f"{name}/{leaf}": states
        for name, make in OPTIMIZERS.items()
        for leaf, states in enumerate(record(make))
    }
    path = pathlib.Path(__file__).with_name("torch.npz")
    np.savez_compressed(path, allow_pickle=False, **traces)
    print(f"{len(traces)} traces, torch {torch.__version__}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
