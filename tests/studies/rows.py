"""What a study has found so far: rows of JSON, one for each fit, and whether the code that made
them still stands.

A row names the fingerprint of its code. One that names another, or none because it is from before
rows had one, is older than the code: tables show it and say so, and a run of the study measures it
again.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .provenance import place

type Row = dict[str, Any]
type Task = tuple[Any, ...]
type Code = Callable[..., str]
"""The fingerprint of the code that would do a task now."""


def held(path: Path) -> list[Row]:
    """The rows of a file, without one that an interruption tore."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def keep(path: Path, row: Row, code: str | None) -> Row:
    """Add a row with where it comes from; no code where none of ours made it.

    It holds the load of the machine over five minutes, which tells whether its seconds are those of
    a fit alone.
    """
    row |= {"place": place(), "load": round(os.getloadavg()[1], 2)} | (
        {} if code is None else {"code": code}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return row


def of_here(path: Path) -> list[Row]:
    """The rows from this machine and these versions, for comparisons of speed."""
    here = place()
    return [row for row in held(path) if row.get("place") == here]


def to_show(path: Path, each: tuple[str, ...] = ()) -> list[Row]:
    """The rows from here, or where there are none those from where the last one was measured.

    Of each task by itself that the names in `each` tell apart.
    """
    here, groups = place(), {}
    for row in held(path):
        groups.setdefault(task_of(row, each), []).append(row)
    found = []
    for rows in groups.values():
        local = [row for row in rows if row.get("place") == here]
        found += local or [row for row in rows if row.get("place") == rows[-1].get("place")]
    return found


def task_of(row: Row, names: tuple[str, ...]) -> Task:
    return tuple(row.get(name) for name in names)


def latest(rows: Iterable[Row], names: tuple[str, ...]) -> list[Row]:
    """The last row of each task, in the order in which tasks were first done."""
    return list({task_of(row, names): row for row in rows}.values())


def lacking(
    rows: Iterable[Row], names: tuple[str, ...], tasks: Iterable[Task], code: Code
) -> Iterator[Task]:
    """Tasks that no row tells of, or only one that is older than the code."""
    made_by = {task_of(row, names): row.get("code") for row in rows}
    return (task for task in tasks if made_by.get(task) != code(*task))


def age(rows: list[Row], names: tuple[str, ...], code: Code) -> str:
    """A sentence that says how many rows are older than the code."""
    old = [row for row in rows if row.get("code") != code(*task_of(row, names))]
    if not old:
        return f"All {len(rows)} rows are of the code as it stands."
    unnamed = sum("code" not in row for row in old)
    from_before = (
        f"; {unnamed} are from before rows named the code that made them" if unnamed else ""
    )
    return f"{len(old)} of {len(rows)} rows are older than the code{from_before}."


def go_on(
    about: str,
    path: Path,
    seeds: Sequence[int],
    names: tuple[str, ...],
    tasks: Callable[[int], Iterable[Task]],
    run: Callable[..., Row],
    code: Code,
    table: Callable[[], str],
) -> None:
    """Do what is not done yet, seed by seed, and print the table.

    `tasks(seed)` are the arguments of `run` and `code`, and `names` what a row calls them.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=len(seeds), help="how many data sets")
    parser.add_argument("--table", action="store_true", help="print what is held, and run nothing")
    asked = parser.parse_args()
    for seed in () if asked.table else seeds[: asked.seeds]:
        for task in lacking(held(path), names, tasks(seed), code):
            print(keep(path, run(*task), code(*task)), flush=True)
    print(table())
