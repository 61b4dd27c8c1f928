"""Does the verdict see faults, and leave sound fits alone?

Run: `uv run python -m tests.studies.verdicts`; what is done is kept, `--table` prints it.

Faults are planted (`planted.py`), and sound fits made whose truths come from their priors and whose data come from
their models (`families.py`). A fault is caught if a finding under one of its subjects is a warning or bad. A sound
fit is called unsound if any finding is.
"""

import hashlib
import inspect
import time
from functools import cache
from pathlib import Path

import bayes_dasl as bd

from . import ROOT
from .families import families
from .pages import table, write_section
from .planted import FAULTS, fitted
from .provenance import fingerprint
from .rows import Row, age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs" / "verdicts.md"
SEEDS = range(2)
TASK = ("kind", "case", "seed")


def tasks(seed: int) -> list[tuple[str, str, int]]:
    faults = [("fault", name, 0) for name in FAULTS] if seed == 0 else []
    return faults + [("sound", name, seed) for name in families()]


@cache
def _code() -> str:
    return fingerprint(bd.fit, bd.forecast, bd.diagnose, bd.check_solver)


def code_of(kind: str, case: str, seed: int) -> str:
    """That of the package, with the sources of the cases."""
    here = "".join(inspect.getsource(module) for module in map(inspect.getmodule, (families, fitted)) if module)
    return hashlib.sha256(f"{_code()}{here}".encode()).hexdigest()[:12]


def run(kind: str, case: str, seed: int) -> Row:
    began = time.perf_counter()
    if kind == "sound":
        family = families()[case]
        engine = family.engines[seed % len(family.engines)]
        judged, subjects = fitted(family.model, family.data(seed), engine), ("",)
        made = {"engine": type(engine).__name__}
    else:
        judged, subjects = FAULTS[case].make(), FAULTS[case].subjects
        made = {"engine": judged.post.attrs["engine"].partition("(")[0]}
    diagnosis = judged.diagnosis
    said = [f for f in diagnosis.findings if f.level != "good"]
    seen = [f for f in said if f.subject.startswith(subjects)]
    return {
        "kind": kind,
        "case": case,
        "seed": seed,
        **made,
        "sampling": diagnosis.sampling,
        "model": diagnosis.model,
        "seen": [str(f) for f in seen],
        "also": [f.subject for f in said if f not in seen],
        "seconds": round(time.perf_counter() - began, 1),
    }


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    faults, sound = ([row for row in rows if row["kind"] == kind] for kind in ("fault", "sound"))
    caught, unsound = ([row for row in of if row["seen"]] for of in (faults, sound))
    left = sum(len(tasks(seed)) for seed in SEEDS) - len(rows)
    missing = f" {left} cases are still to be run." if left else ""
    text = (
        f"**{len(caught)} of {len(faults)} faults are caught; of {len(sound)} sound fits {len(unsound)} are called "
        f"unsound.**{missing} {age(rows, TASK, code_of)}\n\n"
    )
    lines = [("fault", "engine", "caught by", "said", "also")]
    lines += [(row["case"], row["engine"], *_told(row), ", ".join(dict.fromkeys(row["also"]))) for row in faults]
    others = [("sound fit", "engine", "data set", "called unsound by", "said")]
    others += [(row["case"], row["engine"], row["seed"], *_told(row, "–")) for row in sound]
    text += f"{table(lines)}\n\n{table(others)}"
    write_section(PAGE, "verdicts", text)
    return text


def _told(row: Row, nothing: str = "**not caught**") -> tuple[str, str]:
    """The subject and the message of the first finding that was meant."""
    if not row["seen"]:
        return nothing, ""
    level, _, rest = row["seen"][0].partition("] ")
    subject, _, message = rest.partition(": ")
    return f"{subject} ({level[1:]})", message.partition("; remedy")[0].replace("|", "/")


if __name__ == "__main__":
    go_on(__doc__, RESULTS, SEEDS, TASK, tasks, run, code_of, tables)
