"""Processes that fail as the name of their FOLDER says: `PORT INDEX COUNT FOLDER`."""

import sys
import time
from pathlib import Path


def main(port: str, index: str, count: str, folder: str) -> None:
    """Process 1 fails, or finds its port taken at the first try; process 0 waits for it."""
    print(f"process {index} of {count}", flush=True)
    how = Path(folder).name
    tries = Path(folder, f"tries{index}")
    tries.write_text(tries.read_text() + f"{port}\n" if tries.exists() else f"{port}\n")
    if index == "1" and how == "fails":
        sys.exit("no such device")
    if index == "1" and how == "taken":
        sys.exit("bind: Address already in use")
    time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
