"""The many fits of a study file: its tasks done over workers, and what its rows say."""

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
    """The rows of the tasks of a study file, which are done unless they are there.

    Args:
        module: that of a file which defines `tasks(quick)`, a list of dicts, and `row(**task)`, as
            for `run_many`.
        folder: where the rows are kept, in `rows.jsonl`.
        quick: whether only the tasks of its quick form are asked for.
        only: arguments of the tasks that are asked for, such as "model=hybrid": one of the values
            that are said of an argument, and so for each argument; "engine=" those that say nothing
            of it.
        only_held: whether no task is done.
        scheduler: as for `run_many`.
        workers: as for `run_many`.
        say: as for `run_many`.

    Raises:
        ReadError: if the file defines no such functions, or no rows are there where none are to be
            made.
        ModelError: if no task is as asked; as `run_many`.
    """
    tasks, row = _function(module, "tasks"), _function(module, "row")
    if tasks is None or row is None:
        raise ReadError(
            f"{module.__file__} has no many fits: it defines no functions tasks(quick), a list of "
            "dicts, and "
            "row(**task), a dict"
        )
    asked, code = _chosen([*tasks(quick=quick)], only), _code_of(module)
    if not only_held:
        return run_many(
            row,
            asked,
            folder / "rows.jsonl",
            scheduler=scheduler,
            workers=workers,
            code=code,
            say=say,
        )
    found = held_rows(asked, folder / "rows.jsonl", code)
    if found.empty:
        raise ReadError(
            f"{folder / 'rows.jsonl'} holds no row of these tasks by this code: leave --table out"
        )
    if len(found) < len(asked):
        say(f"{len(asked) - len(found)} of {len(asked)} tasks have no row by this code yet")
    return found


def _chosen(tasks: list[Mapping[str, Any]], only: Iterable[str]) -> list[Mapping[str, Any]]:
    """The tasks that are as asked."""
    wanted: dict[str, list[str]] = {}
    for each in (only := [*only]):
        name, equals, value = each.partition("=")
        if not equals:
            raise ModelError(
                f"'{each}' is no argument of a task with its value, such as model=hybrid"
            )
        wanted.setdefault(name, []).append(value)
    for name, values in wanted.items():
        there = dict.fromkeys(str(task[name]) for task in tasks if name in task)
        if not there:
            names = ", ".join(dict.fromkeys(name for task in tasks for name in task))
            raise ModelError(f"no task has an argument '{name}': there are {names}")
        for value in filter(None, values):
            if not any(_same(value, other) for other in there):
                raise ModelError(f"no task has {name}={value}: it is {', '.join(there)}")

    def is_wanted(task: Mapping[str, Any]) -> bool:
        said = {name: str(task.get(name, "")) for name in wanted}
        return all(
            any(_same(value, said[name]) for value in values) for name, values in wanted.items()
        )

    if not (found := [*filter(is_wanted, tasks)]):
        raise ModelError(f"no task is as all of these ask: {', '.join(only)}")
    return found


def _same(one: str, other: str) -> bool:
    """Whether two texts are the same, or the same number."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def summarised(
    module: ModuleType, rows: pd.DataFrame, folder: Path
) -> dict[str, pd.DataFrame | Path]:
    """What a study file makes of its rows, written into the folder: tables as CSV, figures as PNG.

    Args:
        module: that of the file, which may define `summary(rows)`, a dict of tables and figures by
            name.
        rows: those of its tasks.
        folder: where they are written.

    Returns:
        The tables, and the paths of the figures.

    Raises:
        WriteError: if the folder cannot be written.
        ReadError: where `summary` returns something else, or two titles whose files would have one
            name.
    """
    summary = _function(module, "summary")
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
    """A hash of the version of the package, of the file but for its summary, which may change
    without a fit, and of the files beside it that these import."""
    path = Path(str(module.__file__))
    text, summary = path.read_text(encoding="utf-8"), _function(module, "summary")
    told = text if summary is None else text.replace(inspect.getsource(summary), "")
    beside = "".join(other.read_text(encoding="utf-8") for other in _imported(path))
    return hashlib.sha256((version("bayes_dasl") + told + beside).encode()).hexdigest()[:12]


def _imported(path: Path) -> list[Path]:
    """The files of its folder that a file imports, and that these import."""
    found, left = {path}, [path]
    while left:
        for part in ast.walk(ast.parse(left.pop().read_text(encoding="utf-8"))):
            modules = [part.module or ""] if isinstance(part, ast.ImportFrom) else []
            names = (
                [name.name for name in part.names]
                if isinstance(part, (ast.Import, ast.ImportFrom))
                else []
            )
            for name in (*modules, *names):
                other = path.parent / f"{name.rpartition('.')[2]}.py"
                if other.is_file() and other not in found:
                    found.add(other)
                    left.append(other)
    return sorted(found - {path})


def _function(module: ModuleType, name: str) -> Callable[..., Any] | None:
    found = getattr(module, name, None)
    return found if callable(found) else None
