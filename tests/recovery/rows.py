"""What a long run has found so far: rows of JSON, one for each fit."""

import json
from pathlib import Path


def held(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def keep(path: Path, row: dict) -> None:
    """Add a row, and show it."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)
