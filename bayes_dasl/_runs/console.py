"""A console that survives when its terminal is closed."""

from types import TracebackType

from rich.console import Console


class LastingConsole(Console):
    """A console that falls silent, and stops no work, when its terminal or pipe is closed."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # All output of Rich is written here, also that of a progress bar.
        try:
            super().__exit__(kind, error, trace)
        except OSError:
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """Fall silent; Rich would end the process."""
        self.quiet = True
