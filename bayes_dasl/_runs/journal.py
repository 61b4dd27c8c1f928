"""`Journal` saves the steps of a long run, so that it can be resumed; `ProgressBar` shows progress.

An engine is a sequence of steps, each a function of earlier results. A journal with a folder saves
the result of each step as a file. A second run of the same engine reads the existing files and
computes the remaining steps. So its draws are identical to the last bit.
"""

import builtins
import contextlib
import hashlib
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MismatchError, ReadError, WriteError
from .files import forget_unfinished, replacing
from .lock import LOCK

if TYPE_CHECKING:
    from rich.progress import Progress

type Arrays = dict[str, np.ndarray]
type Identity = Mapping[str, str | int]

_MAGIC = b"bayes_dasl step 1\n"
_NOTE = "run.json"
_STEP = re.compile(r"\d{6,}\.step")
# Names of files of a journal: a process may be killed before it writes `run.json`.
_OURS = re.compile(
    rf"{_STEP.pattern}|\.(run\.json|{_STEP.pattern})\.\w+\.partial|{re.escape(LOCK)}"
)


class Journal:
    """The steps of a long run, saved in a folder.

    `journal.step("warm-up 3", work)` returns the saved result of the step, or calls `work()` and
    saves its result. A damaged file raises a warning, and is deleted with the files of all later
    steps. The run then continues from the last undamaged step. Unfinished files of a killed process
    are deleted. The caller must have locked the folder (`alone_in`).

    Args:
        folder: the folder of the steps; None saves nothing.
        identity: facts that define the run, as numbers and text by name. A folder with other facts
            is refused.

    Raises:
        MismatchError: if the folder contains another run.
        ReadError: if it contains other files.
        WriteError: if it cannot be written.
    """

    def __init__(self, folder: str | os.PathLike | None = None, identity: Identity | None = None):
        self.folder = None if folder is None else Path(folder)
        self._identity = dict(identity or {})
        self._number = 0
        if self.folder is not None:
            self._claim(self.folder)

    def _claim(self, folder: Path) -> None:
        """Check that a folder is empty or belongs to this run, and write its `run.json`.

        Raises:
            MismatchError: if the folder contains another run.
            ReadError: if it contains other files.
            WriteError: if it cannot be written.
        """
        begun = (folder / _NOTE).is_file()
        if begun:
            held = read_identity(folder)
            other = [
                f"{k} {held.get(k)!r} instead of {v!r}"
                for k, v in self._identity.items()
                if held.get(k) != v
            ]
            if other:
                raise MismatchError(
                    f"the checkpoint {folder} belongs to another run ({'; '.join(other)}): choose "
                    "another folder, or delete this one"
                )
        elif folder.is_dir() and not all(_OURS.fullmatch(path.name) for path in folder.iterdir()):
            raise ReadError(
                f"{folder} is not empty and holds no checkpoint: it has no {_NOTE}; choose another "
                "folder"
            )
        forget_unfinished(folder)
        if not begun:
            with replacing(folder / _NOTE) as temporary:
                temporary.write_text(json.dumps(self._identity, indent=2) + "\n", encoding="utf-8")

    def step(self, name: str, work: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of the next step: saved ones if there are any, else computed ones.

        Args:
            name: name of the step, the same in each run.
            work: a function without arguments that returns NumPy arrays by name. It is called if
                the step is not saved.

        Returns:
            The arrays by name.

        Raises:
            MismatchError: if the saved step belongs to another run.
            WriteError: if the folder cannot be written.
        """
        self._number += 1
        if self.folder is None:
            return _in_rows(work())
        path = self.folder / f"{self._number:06d}.step"
        if path.is_file():
            try:
                return self._read(path, name)
            except ReadError as error:
                warnings.warn(f"{error}: going on from the step before it", stacklevel=2)
        # Later steps depend on this one, which is computed again, so delete them.
        self._forget_from(self._number)
        arrays = _in_rows(work())
        self._write(path, name, arrays)
        return arrays

    def _forget_from(self, number: int) -> None:
        """Delete the saved steps from a number on.

        Raises:
            WriteError: if a file cannot be deleted.
        """
        assert self.folder is not None
        try:
            for path in self.folder.glob("*.step"):
                if _STEP.fullmatch(path.name) and int(path.stem) >= number:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(f"cannot write {self.folder}: {error.strerror or error}") from error

    def _write(self, path: Path, name: str, arrays: Arrays) -> None:
        """Write a step: a line with the format, a digest of the rest, a header, and the arrays."""
        payload = io.BytesIO()
        np.savez(payload, allow_pickle=False, **arrays)
        header = json.dumps({"step": name, "identity": self._identity})
        content = header.encode() + b"\n" + payload.getvalue()
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(_MAGIC + _digest(content) + b"\n" + content)
        except WriteError as error:
            raise WriteError(
                f"{error}; the {self._number - 1} steps before it are kept: once that is mended "
                "the same call goes on"
            ) from error

    def _read(self, path: Path, name: str) -> Arrays:
        """Read a saved step.

        Args:
            path: the file.
            name: the expected name of the step.

        Returns:
            The arrays by name.

        Raises:
            ReadError: if the file is damaged or cannot be read.
            MismatchError: if it is a step of another run.
        """
        try:
            whole = path.read_bytes()
        except OSError as error:
            raise ReadError(
                f"the checkpoint {path} cannot be read ({error.strerror or error})"
            ) from error
        magic, _, rest = whole.partition(b"\n")
        digest, _, content = rest.partition(b"\n")
        if magic + b"\n" != _MAGIC or digest != _digest(content):
            raise ReadError(f"the checkpoint {path} is torn")
        head, _, payload = content.partition(b"\n")
        header = json.loads(head)
        if header["identity"] != self._identity or header["step"] != name:
            raise MismatchError(
                f"the checkpoint {path} is the step '{header['step']}' of another run, not "
                f"'{name}' of this one: delete it"
            )
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            return dict(arrays)


def _digest(content: bytes) -> bytes:
    """Return the SHA-256 of a step's content, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest().encode()


def _in_rows(arrays: Arrays) -> Arrays:
    """Return arrays in C order (row-major), as they are read from a file.

    The last bit of a sum may depend on the order.
    """
    return {name: np.asarray(values, order="C") for name, values in arrays.items()}


def read_identity(folder: str | os.PathLike) -> dict[str, str | int]:
    """Read the facts that define the run whose checkpoint is in a folder.

    Args:
        folder: the folder of the checkpoint.

    Returns:
        Numbers and text by name.

    Raises:
        ReadError: if there is no checkpoint, or its `run.json` is damaged.
    """
    note = Path(folder) / _NOTE
    if not note.is_file():
        raise ReadError(
            f"{folder} holds no checkpoint: it has no {_NOTE}; make one with bd.fit(…, "
            f"checkpoint={str(folder)!r})"
        )
    try:
        held = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReadError(f"{note} is torn or not one of ours: {error}") from error
    if not isinstance(held, dict):
        raise ReadError(f"{note} is not one of ours")
    return held


class ProgressBar:
    """A progress bar: `with ProgressBar() as bar: bar.start("sampling", 1000); bar.advance(50)`.

    Args:
        shown: whether to show progress; by default only in a terminal or a notebook. A notebook
            shows one line that is written again. If the error stream is a file, a line is printed
            for each tenth of a phase.
    """

    def __init__(self, shown: bool | None = None):
        terminal = sys.stderr.isatty()
        # IPython defines this name. The error stream of Jupyter is no terminal.
        self._notebook = hasattr(builtins, "get_ipython") and not terminal
        shown = (terminal or self._notebook) if shown is None else shown
        self._progress = _progress(terminal) if shown else None
        self._task = None
        self._said = 0

    def __enter__(self) -> "ProgressBar":
        if self._progress:
            self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._progress:
            self._progress.__exit__(*error)
            self._write("\n" * self._notebook)

    def start(self, what: str, total: int) -> None:
        """Begin a phase of the work, with a new bar.

        Args:
            what: name of the phase, such as "sampling".
            total: number of units of work in the phase.
        """
        if self._progress:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(what, total=total, note="")
            # Only a notebook shows the begin of a phase.
            self._said = -self._notebook
            self.advance(0)

    def advance(self, done: int, note: str = "") -> None:
        """Add finished work to the current phase.

        Args:
            done: number of units of work finished since the last call.
            note: text after the remaining time.
        """
        progress = self._progress
        if not progress or self._task is None:
            return
        progress.update(self._task, advance=done, note=note)
        task = progress.tasks[-1]
        # A line at each tenth of a phase; the bar of a notebook moves at each hundredth.
        reached = int(task.percentage / (1 if self._notebook else 10))
        if not progress.disable or reached <= self._said:
            return
        self._said = reached
        if self._notebook:
            line = progress.console.render_lines(progress.get_renderable())[0]
            self._write("\r" + "".join(part.text for part in line))
        else:
            behind = f", {note}" if note else ""
            self._write(f"{task.description}: {task.completed:g} of {task.total:g}{behind}\n")

    def _write(self, text: str) -> None:
        """Write text to the error stream, unless it is closed."""
        with contextlib.suppress(OSError):
            print(text, end="", file=sys.stderr, flush=True)


def _progress(terminal: bool) -> "Progress":
    """Return a bar of Rich with count, elapsed and remaining time, drawn only on a terminal."""
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
    # Without colour the missing part of a bar is blank.
    console = LastingConsole(stderr=True, no_color=not terminal)
    return Progress(*columns, console=console, transient=True, disable=not terminal)


def concatenated(traces: Sequence[Arrays]) -> Arrays:
    """Join traces, dicts of arrays `(chain, draw, …)` with the same names, along the draws."""
    return {name: np.concatenate([t[name] for t in traces], axis=1) for name in traces[0]}
