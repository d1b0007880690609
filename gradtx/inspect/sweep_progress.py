"""The progress bar of a sweep, on standard error: rich's where it is installed, else a line."""

import importlib.util
import sys
from types import TracebackType
from typing import Any, Self


class Progress:
    """A progress bar over trainings; a context.

    Args:
      text: the text before the bar, `64 × 3 trainings`.
      total: the number of trainings.
      shown: whether there is a bar; None: where standard error is a terminal.
    """

    def __init__(self, text: str, total: int, shown: bool | None):
        self.text: str = text
        self.total: int = total
        self.done: int = 0
        self.shown: bool = sys.stderr.isatty() if shown is None else shown
        self.bar: Any = None

    def __enter__(self) -> Self:
        if self.shown and importlib.util.find_spec("rich") is not None:
            self.bar = _rich_bar()
            self.bar.add_task(self.text, total=self.total)
            self.bar.start()
        else:
            self._write()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        elif self.shown:
            sys.stderr.write("\n")

    def advance(self, count: int) -> None:
        """Count trainings that are done."""
        self.done += count
        if self.bar is not None:
            self.bar.advance(self.bar.task_ids[0], count)
        else:
            self._write()

    def _write(self) -> None:
        if self.shown:
            sys.stderr.write(f"\r{self.text}: {self.done} of {self.total} done")
            sys.stderr.flush()


def _rich_bar() -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        console=Console(stderr=True),
    )
