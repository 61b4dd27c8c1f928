"""Lists for the command line: the case studies, and the runs in a folder with their verdicts."""

import ast
import datetime
import json
from pathlib import Path
from typing import Any

from .._runs.folder import read_note
from ..errors import ReadError
from .files import is_ours, module_of_path, study_files

_FACTS = ("FIELD", "RUN_TIME", "DATA")
"""Constants of a study file that the list shows."""


def studies_and_data() -> list[dict[str, Any]]:
    """Return the case studies with field, run time, and whether their data are on this machine.

    Study files are read, not imported, since they may be slow to import or need further packages.

    Returns:
        A dict for each with `name`, `summary`, `field`, `run_time`, `data` and `file`. Data are
        "included", "downloaded", "not downloaded" or unknown (None).
    """
    found = []
    for name, path in study_files().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        facts = _constants(tree)
        summary = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
        found.append(
            {
                "name": name,
                "summary": summary,
                "field": facts.get("FIELD"),
                "run_time": facts.get("RUN_TIME"),
                "data": _place_of_data(path, facts.get("DATA")),
                "file": str(path),
            }
        )
    return found


def _constants(tree: ast.Module) -> dict[str, Any]:
    """Return the constants of a study file that are facts about it."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in _FACTS:
                found[name] = ast.literal_eval(node.value)
    return found


def _place_of_data(path: Path, files: Any) -> str | None:
    """Return whether the data of a case study are on this machine."""
    if files is None:
        return None
    if not files:
        return "included"
    # Only the package's own code is executed, as a list must not run a stranger's.
    if not is_ours(path):
        return None
    store: Any = module_of_path(path.with_name("_data.py"))
    return "downloaded" if all(store.is_here(name) for name in files) else "not downloaded"


def verdicts_of_runs(folder: Path) -> list[dict[str, Any]]:
    """Return the runs in a folder, the latest last.

    Args:
        folder: the folder that holds run folders.

    Returns:
        A dict for each with `folder`, `study`, `written` and `forecast`, the name of the first
        forecast, with its `sampling`, `model`, `verdict` and `crps`. These are None for a run that
        is not finished.
    """
    found = []
    for note in sorted(folder.glob("*/study.json"), key=lambda path: path.stat().st_mtime):
        try:
            held = read_note(note.parent)
        except ReadError:
            continue
        written = datetime.datetime.fromtimestamp(note.stat().st_mtime)
        row = {
            "folder": str(note.parent),
            "study": held["study"],
            "written": written.isoformat(sep=" ", timespec="minutes"),
        }
        found.append(row | _verdict(note.with_name("scores.json")))
    return found


def _verdict(path: Path) -> dict[str, Any]:
    """Return the verdict on the first forecast of a run, and its score."""
    names = ("sampling", "model", "verdict")
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        name, judged = next(iter(scores["diagnosis"].items()))
        crps = scores["scores"][name]["all"]["crps"]
        return {"forecast": name, **{n: judged[n] for n in names}, "crps": crps}
    except (OSError, ValueError, KeyError, StopIteration):
        return dict.fromkeys(("forecast", *names, "crps"))
