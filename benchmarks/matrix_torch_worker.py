"""Torch's side of `matrices`, in its own process: each line on stdin starts a step.

It writes the seconds of the step to stdout. Run as a file, by any Python that has torch (and
pytorch_optimizer, for all but Muon): `matrix_torch_worker.py METHOD 768x2304 ...`. It imports
neither jax nor gradtx. Refreshes are due every 10 steps; Muon has torch's own 5 iterations, in
bfloat16."""

import importlib.metadata
import sys
import time

EVERY = 10


def muon(matrices):
    import torch  # pyright: ignore[reportMissingImports]

    return torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.0), "torch"


def soap(matrices):
    import pytorch_optimizer  # pyright: ignore[reportMissingImports]

    return pytorch_optimizer.SOAP(
        matrices, lr=1e-3, weight_decay=0.0, precondition_frequency=EVERY
    ), "pytorch_optimizer"


def shampoo(matrices):
    import pytorch_optimizer  # pyright: ignore[reportMissingImports]

    optimizer = pytorch_optimizer.ScalableShampoo(
        matrices,
        lr=1e-3,
        start_preconditioning_step=1,
        preconditioning_compute_steps=EVERY,
        block_size=4096,
    )
    return optimizer, "pytorch_optimizer"


METHODS = {"muon": muon, "soap": soap, "shampoo": shampoo}


def main() -> int:
    method, *shapes = sys.argv[1:]
    try:
        import torch  # pyright: ignore[reportMissingImports]

        torch.manual_seed(0)
        matrices = [
            torch.nn.Parameter(0.02 * torch.randn([int(size) for size in shape.split("x")]))
            for shape in shapes
        ]
        for matrix in matrices:
            matrix.grad = 1e-3 * torch.randn_like(matrix)
        optimizer, package = METHODS[method](matrices)
    except ImportError:
        print("absent", flush=True)
        return 0
    print(package, importlib.metadata.version(package).partition("+")[0], flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        optimizer.step()
        print(time.perf_counter() - start, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
