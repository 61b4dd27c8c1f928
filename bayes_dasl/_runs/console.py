"""A Rich console that tolerates a closed terminal."""

from types import TracebackType

from rich.console import Console


class LastingConsole(Console):
    """A console that stops printing, and raises no error, when its terminal or pipe is closed."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Rich writes all output when this context ends, also that of a progress bar.
        try:
            super().__exit__(kind, error, trace)
        except OSError:
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """Stop printing; the method of Rich would end the process."""
        self.quiet = True
