"""The many fits that a study file defines: its tasks, their rows, and tables and figures."""

import ast
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from .._runs.files import write_text
from ..errors import ModelError, ReadError, WriteError
from .many import held_rows, run_many


def rows_of(
    module: ModuleType,
    folder: Path,
    *,
    quick: bool = False,
    only: Iterable[str] = (),
    only_held: bool = False,
    scheduler: Any = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Do the tasks of a study file that have no row yet, and return the rows of all its tasks.

    Args:
        module: the module of the study file. It defines `tasks(quick)`, which returns a list of
            dicts, and `row(**task)`, as for `run_many`.
        folder: the folder of the file `rows.jsonl`, where rows are saved.
        quick: passed on to `tasks`, which then returns fewer or faster tasks.
        only: conditions on the arguments of tasks, such as "model=hybrid". Several values of one
            argument are alternatives. "engine=" selects tasks without that argument.
        only_held: whether to return only saved rows, without doing any task.
        scheduler: as for `run_many`.
        workers: as for `run_many`.
        say: as for `run_many`.

    Returns:
        One line per task; with `only_held`, one line per task with a saved row.

    Raises:
        ReadError: if the file does not define these functions, or with `only_held` if there is no
            row.
        ModelError: if no task meets the conditions, or as `run_many`.
    """
    tasks = _function_of(module, "tasks")
    row = _function_of(module, "row")
    if tasks is None or row is None:
        raise ReadError(
            f"{module.__file__} has no many fits: it defines no functions tasks(quick), a list of "
            "dicts, and row(**task), a dict"
        )
    asked = _tasks_asked([*tasks(quick=quick)], only)
    code = _code_of(module)
    path = folder / "rows.jsonl"
    if not only_held:
        over = {"scheduler": scheduler, "workers": workers}
        return run_many(row, asked, path, code=code, say=say, **over)
    found = held_rows(asked, path, code)
    if found.empty:
        raise ReadError(f"{path} holds no row of these tasks by this code: leave --table out")
    if len(found) < len(asked):
        say(f"{len(asked) - len(found)} of {len(asked)} tasks have no row by this code yet")
    return found


def _tasks_asked(tasks: list[Mapping[str, Any]], only: Iterable[str]) -> list[Mapping[str, Any]]:
    """Return the tasks that meet all conditions.

    Args:
        tasks: the arguments of each task.
        only: conditions such as "model=hybrid".

    Raises:
        ModelError: if a condition is malformed or names an unknown argument or value, or if no task
            meets all of them.
    """
    # 1. Collect the accepted values of each argument.
    wanted: dict[str, list[str]] = {}
    for condition in (only := [*only]):
        name, equals, value = condition.partition("=")
        if not equals:
            raise ModelError(
                f"'{condition}' is no argument of a task with its value, such as model=hybrid"
            )
        wanted.setdefault(name, []).append(value)
    # 2. Refuse names and values that no task has.
    for name, values in wanted.items():
        there = dict.fromkeys(str(task[name]) for task in tasks if name in task)
        if not there:
            names = ", ".join(dict.fromkeys(name for task in tasks for name in task))
            raise ModelError(f"no task has an argument '{name}': there are {names}")
        for value in filter(None, values):
            if not any(_same_value(value, other) for other in there):
                raise ModelError(f"no task has {name}={value}: it is {', '.join(there)}")

    # 3. Filter by one argument after the other.
    found = tasks
    for name, values in wanted.items():
        found = [
            task
            for task in found
            if any(_same_value(value, str(task.get(name, ""))) for value in values)
        ]
    if not found:
        raise ModelError(f"no task is as all of these ask: {', '.join(only)}")
    return found


def _same_value(one: str, other: str) -> bool:
    """Whether two texts are equal, or are equal as numbers."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def summarised(
    module: ModuleType, rows: pd.DataFrame, folder: Path
) -> dict[str, pd.DataFrame | Path]:
    """Write the tables and figures that a study file makes from its rows, as CSV and PNG files.

    Args:
        module: the module of the study file. It may define `summary(rows)`, which returns a dict of
            tables and figures by title.
        rows: the rows of its tasks.
        folder: the folder for the files.

    Returns:
        The tables, and the paths of the figures, by title.

    Raises:
        WriteError: if the folder cannot be written.
        ReadError: if `summary` returns something else, or two titles give the same file name.
    """
    summary = _function_of(module, "summary")
    made: Any = {} if summary is None else summary(rows)
    if not isinstance(made, Mapping):
        raise ReadError(
            f"summary of {module.__file__} returns a dict of tables and figures, not "
            f"{type(made).__name__}"
        )
    found: dict[str, pd.DataFrame | Path] = {}
    stems: dict[str, str] = {}
    for title, what in made.items():
        what = what.to_frame() if isinstance(what, pd.Series) else what
        if not isinstance(what, pd.DataFrame) and not hasattr(what, "savefig"):
            raise ReadError(
                f"'{title}' of the summary is a table or a figure, not {type(what).__name__}"
            )
        stem = re.sub(r"\W+", "-", title.lower()).strip("-")
        if (other := stems.setdefault(stem, title)) != title:
            raise ReadError(
                f"'{other}' and '{title}' of the summary would both be written as {stem}: rename "
                "one"
            )
        if isinstance(what, pd.DataFrame):
            write_text(
                folder / f"{stem}.csv", what.to_csv(index=not isinstance(what.index, pd.RangeIndex))
            )
            found[title] = what
            continue
        path = folder / f"{stem}.png"
        try:
            what.savefig(path, dpi=150, bbox_inches="tight")
        except OSError as error:
            raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
        found[title] = path
    return found


def _code_of(module: ModuleType) -> str:
    """Return a hash of the package's version, the study file, and the files that it imports.

    The function `summary` is left out of the hash, since it may change without new fits. Imported
    files count only if they lie in the same folder.
    """
    path = Path(str(module.__file__))
    text = path.read_text(encoding="utf-8")
    summary = _function_of(module, "summary")
    if summary is not None:
        text = text.replace(inspect.getsource(summary), "")
    beside = "".join(other.read_text(encoding="utf-8") for other in _imported_files(path))
    return hashlib.sha256((version("bayes_dasl") + text + beside).encode()).hexdigest()[:12]


def _imported_files(path: Path) -> list[Path]:
    """Return the files of the same folder that a file imports, directly or indirectly."""
    found, left = {path}, [path]
    while left:
        for part in ast.walk(ast.parse(left.pop().read_text(encoding="utf-8"))):
            if not isinstance(part, (ast.Import, ast.ImportFrom)):
                continue
            # `from a import b` may import the file a.py, or b.py of a package.
            names = [name.name for name in part.names]
            if isinstance(part, ast.ImportFrom) and part.module:
                names.append(part.module)
            for name in names:
                other = path.parent / f"{name.rpartition('.')[2]}.py"
                if other.is_file() and other not in found:
                    found.add(other)
                    left.append(other)
    return sorted(found - {path})


def _function_of(module: ModuleType, name: str) -> Callable[..., Any] | None:
    """Return the function of a module with the given name, or None if there is none."""
    found = getattr(module, name, None)
    return found if callable(found) else None
