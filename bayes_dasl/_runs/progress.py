"""A progress bar with the time left, on the terminal's error stream."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressBar:
    """`with ProgressBar(shown) as bar: bar.start("sampling", 1000); bar.advance(50)`.

    Args:
        shown: whether there is a bar; unless told, where the error stream is a terminal.
    """

    def __init__(self, shown: bool | None = None):
        shown = sys.stderr.isatty() if shown is None else shown
        self._progress = _progress() if shown else None
        self._task = None

    def __enter__(self) -> "ProgressBar":
        if self._progress:
            self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.__exit__(kind, error, trace)

    def start(self, what: str, total: int) -> None:
        """Begin a phase of the work.

        Args:
            what: its name, such as "sampling".
            total: how many units of work it has.
        """
        if not self._progress:
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total, note="")

    def advance(self, done: int, note: str = "") -> None:
        """So much more is done.

        Args:
            done: how many units of work more.
            note: what stands behind the time left.
        """
        if self._progress and self._task is not None:
            self._progress.update(self._task, advance=done, note=note)


def _progress() -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from .console import LastingConsole

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    return Progress(*columns, console=LastingConsole(stderr=True), transient=True)
