"""Torch's fused AdamW on leaves of given sizes, in its own process: a line on stdin is a step.

It writes the seconds of the step to stdout. Run by benchmarks.step as a file, by any Python that
has torch; it imports neither jax nor gradtx.
"""

import sys
import time


def main() -> int:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("absent", flush=True)
        return 0
    leaves = [torch.ones(int(size), requires_grad=True) for size in sys.argv[1:]]
    for leaf in leaves:
        leaf.grad = torch.full_like(leaf, 0.5)
    optimizer = torch.optim.AdamW(leaves, lr=1e-3, weight_decay=1e-4, fused=True)
    print(torch.__version__, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        optimizer.step()
        print(time.perf_counter() - start, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
