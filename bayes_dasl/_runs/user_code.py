"""The line of the user's own code in which an error was raised."""

import linecache
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = (
    _PACKAGE,
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
)


def place_in_user_code(error: BaseException) -> str | None:
    """Return the file, the line and its text from which an error came.

    Args:
        error: the error, with its traceback.

    Returns:
        Such as `pond.py:12 (rain = u["rain"])`; None if no code of the user took part.
    """
    # The first cause is nearest to the mistake.
    for cause in reversed(list(_causes(error))):
        if isinstance(cause, SyntaxError) and _is_of_user(cause.filename or ""):
            return _place(str(cause.filename), cause.lineno or 1)
        frames = traceback.walk_tb(cause.__traceback__)
        own = [
            (f.f_code.co_filename, line) for f, line in frames if _is_of_user(f.f_code.co_filename)
        ]
        if own:
            return _place(*own[-1])
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that led to it, the latest first."""
    while error is not None:
        yield error
        hidden = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or hidden


def _is_of_user(file: str) -> bool:
    """Whether a file is a user's, and not of an installed package."""
    path = Path(file).resolve()
    return path.is_file() and not any(path.is_relative_to(folder) for folder in _INSTALLED)


def _place(file: str, line: int) -> str:
    """Return a file and a line with its text."""
    text = linecache.getline(file, line).strip()
    return f"{Path(file).name}:{line}" + (f" ({text})" if text else "")
