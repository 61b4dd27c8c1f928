"""The many fits of a study file: its tasks, its rows, and its tables and figures."""

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
    """Return the rows of the tasks of a study file, and do the tasks that have none.

    Args:
        module: the module of a file that defines `tasks(quick)`, a list of dicts, and
            `row(**task)`, as for `run_many`.
        folder: the folder of the rows, with the file `rows.jsonl`.
        quick: whether to do only the tasks of the quick form.
        only: conditions on the arguments of tasks, such as "model=hybrid". Several values of one
            argument are alternatives. "engine=" chooses tasks without that argument.
        only_held: whether to do no task.
        scheduler: as for `run_many`.
        workers: as for `run_many`.
        say: as for `run_many`.

    Returns:
        One line per task.

    Raises:
        ReadError: if the file lacks these functions, or has no rows and none are to be made.
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

    Raises:
        ModelError: if a condition is malformed or names an unknown argument or value, or no task
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
    """Whether two texts are equal, or equal numbers."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def summarised(
    module: ModuleType, rows: pd.DataFrame, folder: Path
) -> dict[str, pd.DataFrame | Path]:
    """Write the tables and figures that a study file makes of its rows, as CSV and PNG.

    Args:
        module: the module of the file, which may define `summary(rows)`, a dict of tables and
            figures by title.
        rows: the rows of its tasks.
        folder: the folder to write to.

    Returns:
        The tables, and the paths of the figures.

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
    """Return a hash of the package's version, a file without its summary, and its imports.

    The summary may change without a new fit.
    """
    path = Path(str(module.__file__))
    text = path.read_text(encoding="utf-8")
    summary = _function_of(module, "summary")
    if summary is not None:
        text = text.replace(inspect.getsource(summary), "")
    beside = "".join(other.read_text(encoding="utf-8") for other in _imported_files(path))
    return hashlib.sha256((version("bayes_dasl") + text + beside).encode()).hexdigest()[:12]


def _imported_files(path: Path) -> list[Path]:
    """Return the files of the same folder that a file imports, also indirectly."""
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
    """Return a function of a module, or None if it has none of that name."""
    found = getattr(module, name, None)
    return found if callable(found) else None
