"""Measurements of gradtx against its peers: `python -m benchmarks.<name>`, see README.md.

The settings below precede the import of jax. Benchmarks run on the CPU, and libtpu compiles without
a search for a TPU. LAPACK, which decomposes matrices for XLA on the CPU, has one thread: several
threads wait for one another in loops, and on two busy cores a decomposition of milliseconds
sometimes took seconds.
"""

import os

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

os.environ.update(ENVIRONMENT)
