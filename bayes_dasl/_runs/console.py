"""What long work says on a terminal that may be closed before it ends."""

from types import TracebackType

from rich.console import Console


class LastingConsole(Console):
    """A console that falls silent, and stops no work, once its terminal is closed or nobody reads
    on.
    """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Rich writes here, whatever is printed and also for a bar.
        try:
            super().__exit__(kind, error, trace)
        except OSError:
            self.quiet = True

    def on_broken_pipe(self) -> None:
        self.quiet = True
