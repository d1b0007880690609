"""Look for new failures: random cases in all surroundings, until the time is over.

Every failure is printed once, shrunk, with its case. The exit status is the number of failures.
"""

import argparse
import sys
import time
import traceback

from hypothesis import Phase

import tests.conftest  # noqa: F401  (flags of XLA come before jax)
from tests.fuzz.running import ALL, fuzzed


def attempt(name: str, examples: int, seed: int) -> str | None:
    """The failure of one of the surroundings as text, with the note that names the case."""
    try:
        fuzzed(name, examples, seed, (Phase.generate, Phase.shrink))()
    except Exception as error:
        return f"{name}, seed {seed}: " + "".join(traceback.format_exception(error, limit=-3))
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to look; 60")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round")
    parser.add_argument("--examples", type=int, default=10, help="cases per surroundings and round")
    options = parser.parse_args()
    end, seed, found, rounds = time.monotonic() + 60 * options.minutes, options.seed, 0, 0
    while time.monotonic() < end:
        for name in ALL:
            failure = attempt(name, options.examples, seed)
            if failure is not None:
                found += 1
                print(failure, flush=True)
            if time.monotonic() >= end:
                break
        seed, rounds = seed + 1, rounds + 1
    print(f"{rounds} rounds of {len(ALL)} surroundings, {found} failures")
    return found


if __name__ == "__main__":
    sys.exit(main())
