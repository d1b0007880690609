"""Break an equation by hand, one after another, and see a test fail: python -m tests.mutations

Each row changes one place of the source in a copy of the tree and runs tests there; a change that no test
notices is printed as SURVIVED, and the exit status is 1.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent


class Mutation(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: str


ORACLES = "tests/test_oracles.py -k {}"

MUTATIONS = [
    Mutation(
        "adam: b1 and b2 swapped",
        "optimizers/adam.py",
        "average(slots.mu, grad, b1)",
        "average(slots.mu, grad, b2)",
        ORACLES.format("adam"),
    ),
    Mutation("adam: no bias correction of nu", "optimizers/adam.py", "debias(nu, b2, step)", "nu", ORACLES.format("adam")),
    Mutation(
        "adam: bias correction one step late", "transforms/moments.py", "jnp.expm1(step *", "jnp.expm1((step + 1) *", ORACLES.format("adam")
    ),
    Mutation("adam: eps inside the root", "optimizers/adam.py", "+ eps_root) + eps)", "+ eps_root + eps))", ORACLES.format("adam")),
    Mutation(
        "adam: Nesterov's look-ahead at t",
        "transforms/moments.py",
        "debias(mu, b1, step + 1)",
        "debias(mu, b1, step)",
        ORACLES.format("adam"),
    ),
    Mutation(
        "adamw: decay before the preconditioner",
        "core/descend.py",
        "chain(rule, add_decayed_weights(weight_decay, mask), scale)",
        "chain(add_decayed_weights(weight_decay, mask), rule, scale)",
        ORACLES.format("adamw"),
    ),
    Mutation("descend: upwards", "core/descend.py", "(-learning_rate if flip_sign", "(learning_rate if flip_sign", ORACLES.format("sgd")),
    Mutation(
        "lion: momentum before the sign",
        "optimizers/lion.py",
        "blend = average(slots.mu, grad, b1)",
        "blend = average(average(slots.mu, grad, b2), grad, b1)",
        ORACLES.format("lion"),
    ),
    Mutation(
        "rmsprop: eps always inside the root",
        "transforms/moments.py",
        "else jnp.sqrt(square) + eps",
        "else jnp.sqrt(square + eps)",
        ORACLES.format("rmsprop"),
    ),
    Mutation(
        "centered rmsprop: mean not squared",
        "optimizers/rmsprop.py",
        "square - abs_sq(mean)",
        "square - jnp.abs(mean)",
        ORACLES.format("rmsprop"),
    ),
    Mutation(
        "adagrad: forgets",
        "optimizers/adagrad.py",
        "slots.sum_of_squares + abs_sq(grad)",
        "0.99 * slots.sum_of_squares + abs_sq(grad)",
        ORACLES.format("adagrad"),
    ),
    Mutation(
        "momentum: an average, not a sum",
        "transforms/momentum.py",
        "trace = grad + decay * slots.trace",
        "trace = (1 - decay) * grad + decay * slots.trace",
        ORACLES.format("sgd"),
    ),
    Mutation(
        "clip: nan spreads",
        "transforms/clipping.py",
        "limit / jnp.where(within, 1.0, size), 0.0)",
        "limit / jnp.where(within, 1.0, size), size)",
        "tests/test_laws.py -k clip_by_global_norm",
    ),
    Mutation(
        "clock: schedules one update late",
        "core/program.py",
        "return Clock(count, jnp.where(",
        "return Clock(count + 1, jnp.where(",
        ORACLES.format("schedule"),
    ),
    Mutation(
        "lifter: computes in the gradient's dtype",
        "tree/casts.py",
        "np.dtype(jnp.promote_types(dtype, jnp.float32))",
        "np.dtype(dtype)",
        "tests/test_lifter.py -k precision",
    ),
    Mutation(
        "clock: wraps", "core/program.py", "jnp.where(count < limit, count + 1, limit)", "count + 1", "tests/test_lifter.py -k saturates"
    ),
    Mutation(
        "kernels: bundles in another order",
        "tree/kernels.py",
        "return bundled + [",
        "return bundled[::-1] + [",
        "tests/test_lifter.py -k bundled",
    ),
    Mutation(
        "partition: the last match wins",
        "core/selector.py",
        "enumerate(matches) if hits[index]), None)",
        "reversed(list(enumerate(matches))) if hits[index]), None)",
        "tests/test_select.py",
    ),
    Mutation(
        "apply_updates: rounds the sum twice",
        "core/apply.py",
        "dtype = compute_dtype(param.dtype)",
        "dtype = param.dtype",
        "tests/test_lifter.py -k apply_updates",
    ),
]


def outcome(mutation: Mutation, folder: pathlib.Path) -> str:
    """The test that notices a change, made in a copy of the tree."""
    for name in ("gradtx", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / "gradtx" / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.what}: {mutation.old!r} stands {text.count(mutation.old)} times in {mutation.file}; mend the row")
    path.write_text(text.replace(mutation.old, mutation.new))
    command = [sys.executable, "-m", "pytest", "-x", "--no-header", "-rf", *mutation.tests.split(maxsplit=2)]
    out = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment(folder))
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", out.stdout, flags=re.MULTILINE)
    return failed.group(1) if failed and out.returncode == 1 else "SURVIVED"


def environment(folder: pathlib.Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}


def main() -> int:
    survived = 0
    for mutation in MUTATIONS:
        with tempfile.TemporaryDirectory() as folder:
            result = outcome(mutation, pathlib.Path(folder))
        survived += result == "SURVIVED"
        print(f"{mutation.what:45} {result}", flush=True)
    print(f"{len(MUTATIONS) - survived} of {len(MUTATIONS)} mutations are caught")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
