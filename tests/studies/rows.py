"""What a long run has found so far: rows of JSON, one for each fit."""

import argparse
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path


def held(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def keep(path: Path, row: dict) -> None:
    """Add a row, and show it."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def go_on(
    about: str,
    path: Path,
    seeds: range,
    names: tuple[str, ...],
    tasks: Callable[[int], Iterable[tuple]],
    run: Callable[..., dict],
    table: Callable[[], str],
) -> None:
    """Do what is not done yet, seed by seed, and print the table.

    `tasks(seed)` are the arguments of `run`, and `names` what a row calls them. A row holds the load of the machine
    over five minutes, which tells whether its seconds are those of a fit alone.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=len(seeds), help="how many data sets")
    parser.add_argument("--table", action="store_true", help="print what is held, and run nothing")
    asked = parser.parse_args()
    done = {tuple(row.get(name) for name in names) for row in held(path)}
    for seed in () if asked.table else seeds[: asked.seeds]:
        for task in tasks(seed):
            if task not in done:
                row = run(*task)
                keep(path, row | {"load": round(os.getloadavg()[1], 2)})
    print(table())
