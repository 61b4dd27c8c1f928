"""Whether fits give what they gave before, bit for bit: how a refactor is shown to change no result.

Run: `uv run python -m tests.studies.golden`

Small fits (`golden_fits.py`) are run and compared with the rows of this machine and these versions, since bits
depend on both. `--record` adds such rows, and `--before main~1` compares with the package of another revision instead.
Where draws differ, means and standard deviations of parameters are compared in Monte-Carlo standard errors of both
together. The exit status is 0 if all is the same, 1 if something differs, and 2 if nothing is recorded to compare with.
"""

import argparse
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from . import ROOT
from .imports import archive
from .provenance import place
from .rows import Row, held, keep, latest
from .timing import printed

HERE = Path(__file__)
ROWS, FITS = HERE.with_suffix(".jsonl"), HERE.with_name("golden_fits.py")
COMPARED = ("draws", "predictions", "findings", "scores", "parts", "moments")
_MOST = 4.0  # Monte-Carlo standard errors


def run(names: Sequence[str], root: Path = ROOT) -> list[Row]:
    """A row for each fit by the package at `root`, all in one process; all fits where none is named.

    Nearly all of the time is compiling, so the usual cache is used: it knows a program by its text.
    """
    job = f"{FITS.read_text(encoding='utf-8')}\nimport json\nprint(json.dumps([*rows({list(names)!r} or FITS)]))"
    return json.loads(printed(job, root=root))


def differences(before: Row, now: Row) -> list[str]:
    """Which parts of two rows differ; a NaN is equal to a NaN."""
    return [part for part in COMPARED if json.dumps(before[part]) != json.dumps(now[part])]


def moments_apart(before: Row, now: Row) -> str:
    """How far apart the moments of parameters are, in words."""
    shared = [name for name in before["moments"] if name in now["moments"]]
    both = np.array([(before["moments"][name], now["moments"][name]) for name in shared]).reshape(
        -1, 2, 4
    )
    apart = np.abs(both[:, 0, ::2] - both[:, 1, ::2]) / np.hypot(both[:, 0, 1::2], both[:, 1, 1::2])
    apart = apart[np.isfinite(apart)]
    if not apart.size:
        return "no moments can be compared"
    agree = "agree" if apart.max() <= _MOST else "DISAGREE"
    return f"{apart.size} moments {agree}, at most {apart.max():.2f} Monte-Carlo errors apart"


def line(before: Row | None, now: Row) -> str:
    if before is None:
        return f"{now['fit']}: not recorded"
    found = differences(before, now)
    if not found:
        return f"{now['fit']}: same"
    moments = f"; {moments_apart(before, now)}" if "draws" in found else ""
    return f"{now['fit']}: differs: {', '.join(found)}{moments}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.studies.golden", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="FIT", help="these fits, not all")
    parser.add_argument("--record", action="store_true", help="add rows, compare nothing")
    parser.add_argument(
        "--before", metavar="REV", help="a git revision to compare with, in place of rows"
    )
    asked = parser.parse_args()
    recorded = [row for row in latest(held(ROWS), ("place", "fit")) if row["place"] == place()]
    if not (recorded or asked.record or asked.before):
        print(
            f"nothing is recorded of {place()}: run it with --record on a revision that is right, or with --before"
        )
        return 2
    found = run(asked.only)
    if asked.record:
        for row in found:
            keep(ROWS, row | {"date": datetime.now(UTC).date().isoformat()}, None)
        return 0
    if asked.before:
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(fileobj=io.BytesIO(archive(ROOT, ".", asked.before))) as tar:
                tar.extractall(folder, filter="data")
            recorded = run(asked.only, Path(folder))
    before = {row["fit"]: row for row in recorded}
    lines = [line(before.get(row["fit"]), row) for row in found]
    print("\n".join(lines))
    return int(any(not said.endswith(": same") for said in lines))


if __name__ == "__main__":
    sys.exit(main())
