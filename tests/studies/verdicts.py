"""Does the verdict see faults, and leave sound fits alone?

Run: `uv run python -m tests.studies.verdicts`; what is done is kept, `--table` prints it.

Faults are planted (`planted.py` and the modules that it joins), and sound fits made whose truths
come from their priors and whose data come from their models (`families.py`). A fault is caught if a
finding under one of its subjects is a warning or bad, says what it should, and nothing else is
blamed for it. A sound fit is called unsound if any finding is a warning or bad.
"""

import hashlib
import inspect
import time
from functools import cache
from pathlib import Path

import bayes_dasl as bd

from . import (
    ROOT,
    families as sound,
    planted,
    planted_functions,
    planted_numbers,
    planted_observations,
    planting,
)
from .families import families
from .pages import table, write_section
from .planted import FAULTS
from .planting import FLAGGED, fitted
from .provenance import fingerprint
from .rows import Row, age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs" / "measurements" / "verdicts.md"
SEEDS = (0, 1, 9)  # 2 to 8 were looked at while thresholds were chosen
MODULES = (sound, planting, planted, planted_observations, planted_numbers, planted_functions)
TASK = ("kind", "case", "seed")


def tasks(seed: int) -> list[tuple[str, str, int]]:
    faults = [("fault", name, 0) for name in FAULTS] if seed == 0 else []
    return faults + [("sound", name, seed) for name in families()]


@cache
def _code() -> str:
    return fingerprint(
        bd.fit,
        bd.forecast,
        bd.diagnose,
        bd.updating.check_solver,
        bd.updating.check_functions,
        bd.simulate,
    )


def code_of(kind: str, case: str, seed: int) -> str:
    """That of the package, with the sources of the cases."""
    here = "".join(map(inspect.getsource, MODULES))
    return hashlib.sha256(f"{_code()}{here}".encode()).hexdigest()[:12]


def run(kind: str, case: str, seed: int) -> Row:
    began = time.perf_counter()
    if kind == "sound":
        family = families()[case]
        engine = family.engines[seed % len(family.engines)]
        judged = fitted(family.model, family.data(seed), engine)
        made = {"engine": type(engine).__name__}
    else:
        judged = FAULTS[case].make()
        made = {"engine": judged.post.attrs["engine"].partition("(")[0]}
    diagnosis = judged.diagnosis
    said = [f for f in diagnosis.findings if f.level != "good"]
    seen = [f for f in said if f.level in FLAGGED] if kind == "sound" else FAULTS[case].seen(said)
    misled = [] if kind == "sound" else FAULTS[case].misled(said)
    return {
        "kind": kind,
        "case": case,
        "seed": seed,
        **made,
        "sampling": diagnosis.sampling,
        "model": diagnosis.model,
        "seen": [str(f) for f in seen],
        "misled": [str(f) for f in misled],
        "also": [f.subject for f in said if f not in seen],
        "seconds": round(time.perf_counter() - began, 1),
    }


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    faults, sound_fits = (
        [row for row in rows if row["kind"] == kind] for kind in ("fault", "sound")
    )
    caught = [row for row in faults if row["seen"] and not row.get("misled")]
    unsound = [row for row in sound_fits if row["seen"]]
    left = sum(len(tasks(seed)) for seed in SEEDS) - len(rows)
    missing = f" {left} cases are still to be run." if left else ""
    text = (
        f"**{len(caught)} of {len(faults)} faults are caught; of {len(sound_fits)} sound fits "
        f"{len(unsound)} are "
        f"called unsound.**{missing} {age(rows, TASK, code_of)}\n\n"
    )
    lines = [("fault", "engine", "caught by", "said", "also")]
    lines += [
        (row["case"], row["engine"], *_told(row), ", ".join(dict.fromkeys(row["also"])))
        for row in faults
    ]
    others = [("sound fit", "engine", "data set", "called unsound by", "said")]
    others += [(row["case"], row["engine"], row["seed"], *_told(row, "–")) for row in sound_fits]
    text += f"{table(lines)}\n\n{table(others)}"
    write_section(PAGE, "verdicts", text)
    return text


def _told(row: Row, nothing: str = "**not caught**") -> tuple[str, str]:
    """The subject and the message of the first finding that was meant, or of one that blames
    something else.
    """
    if not (shown := row.get("misled") or row["seen"]):
        return nothing, ""
    level, _, rest = shown[0].partition("] ")
    subject, _, message = rest.partition(": ")
    subject = f"**{subject} blamed instead**" if row.get("misled") else subject
    return f"{subject} ({level[1:]})", message.partition("; remedy")[0].replace("|", "/")


if __name__ == "__main__":
    go_on(__doc__, RESULTS, SEEDS, TASK, tasks, run, code_of, tables)
