"""Record optimizer states of torch: python tests/traces/record_torch_states.py

Needs torch 2.13 and NumPy; the tests need the recorded torch_states.npz alone. Each optimizer makes
three steps on two linear layers; then its `state_dict`, the gradients of the next step and the
parameters after it.
"""

import pathlib

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

OPTIMIZERS = {
    "adam": lambda named: torch.optim.Adam(named, lr=0.01),
    "adamw": lambda named: torch.optim.AdamW(named, lr=0.01, weight_decay=0.1),
    "sgd": lambda named: torch.optim.SGD(named, lr=0.1, momentum=0.9),
}


def main() -> None:
    arrays = {}
    for name, make in OPTIMIZERS.items():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 5))
        optimizer = make(model.named_parameters())
        for step in range(4):
            x = torch.linspace(-1, 1, 12).reshape(4, 3) * (step + 1)
            optimizer.zero_grad()
            (model(x) ** 2).mean().backward()
            if step == 3:
                for path, param in model.named_parameters():
                    arrays[f"{name}|params|{path}"] = param.detach().numpy().copy()
                    arrays[f"{name}|grads|{path}"] = param.grad.numpy().copy()
                state = optimizer.state_dict()
                arrays[f"{name}|names"] = np.array(state["param_groups"][0]["param_names"])
                for index, fields in state["state"].items():
                    for field, value in fields.items():
                        arrays[f"{name}|state|{index}|{field}"] = np.array(value)
            optimizer.step()
        for path, param in model.named_parameters():
            arrays[f"{name}|after|{path}"] = param.detach().numpy().copy()
    np.savez_compressed(pathlib.Path(__file__).with_name("torch_states.npz"), **arrays)


main()
