"""Run folders: valid names, the file `study.json`, and older files."""

import itertools
import json
from pathlib import Path
from typing import Any

from ..errors import ModelError, ReadError

# A name becomes a folder of a run. It must be valid on every system, and no name that a run writes.
_LONGEST_NAME = 100
_OF_A_RUN = {
    *("checkpoint", "posterior.nc", "forecast.nc", "forecast.csv", "scores.json", "report.html"),
    *("study.json", "origins", "origins.nc", "mixture", "mixture.nc"),
}
_PORTS = (f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))
_OF_WINDOWS = {"con", "prn", "aux", "nul", *_PORTS}
_ASIDE = ".old-"


def check_name(name: object, of: str) -> None:
    """Check that a name is valid for a folder on every system, and is no file name of a run.

    Args:
        name: the name.
        of: what has the name, for the message, such as "a study".

    Raises:
        ModelError: if the name is not valid.
    """
    if not isinstance(name, str):
        raise ModelError(f"the name of {of} is text, not {name!r}")
    folded = name.casefold()
    reason = None
    if not name.strip() or name != name.strip():
        reason = "must not be empty, or begin or end with a space"
    elif len(name.encode()) > _LONGEST_NAME:
        reason = f"has {len(name.encode())} bytes of at most {_LONGEST_NAME}"
    elif any(c in '/\\:*?"<>|' or not c.isprintable() for c in name):
        reason = 'must have no slash and none of : * ? " < > |, since a folder has this name'
    elif name.startswith(".") or name.endswith("."):
        reason = "must not begin or end with a dot"
    elif folded in _OF_A_RUN or folded.split(".")[0] in _OF_WINDOWS or _ASIDE in folded:
        reason = "is kept for what a run or the system writes"
    if reason is not None:
        raise ModelError(f"{of} cannot be named {name[:40]!r}: the name {reason}")


def read_note(folder: Path) -> dict[str, Any]:
    """Read the file `study.json` of a run folder.

    Args:
        folder: the run folder.

    Returns:
        Its content: a dict with the name of the study as `study`, the random seed as `key`, and for
        complete files `engine`, `data_sha256` and `source`.

    Raises:
        ReadError: if the file is missing, damaged, or was not written by this package.
    """
    note = folder / "study.json"
    if not note.is_file():
        raise ReadError(
            f"{folder} is no run folder: it has no {note.name}; make one with 'bayes-dasl run'"
        )
    try:
        held = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReadError(f"{note} is torn or not one of ours: {error}") from error
    if not isinstance(held, dict) or "study" not in held or not isinstance(held.get("key"), int):
        raise ReadError(f"{note} is not one of ours: it names no study and key")
    return held


def put_aside(path: Path) -> Path | None:
    """Rename a file or folder to a new name with `.old-1`, `.old-2` and so on.

    Args:
        path: the file or folder.

    Returns:
        The new path; None if nothing exists at `path`.
    """
    if not path.exists():
        return None
    names = (path.with_name(f"{path.stem}{_ASIDE}{i}{path.suffix}") for i in itertools.count(1))
    aside = next(free for free in names if not free.exists())
    path.rename(aside)
    return aside
