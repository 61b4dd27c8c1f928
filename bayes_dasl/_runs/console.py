"""A Rich console that tolerates a closed terminal."""

from typing import Any

from rich.console import Console


class LastingConsole(Console):
    """A console that stops printing, and raises no error, when its terminal or pipe is closed."""

    def __exit__(self, *error: Any) -> None:
        # Rich writes all output when this context ends, also that of a progress bar.
        try:
            super().__exit__(*error)
        except OSError:
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """Stop printing; the method of Rich would end the process."""
        self.quiet = True
