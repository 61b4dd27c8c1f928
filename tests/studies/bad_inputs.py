"""What happens to bad input? Each of some 250 cases is tried, and what it is answered is
classified.

Run: `uv run python -m tests.studies.bad_inputs` tries the cases whose rows are older than the code
and writes the table of `docs/measurements/robustness.md`; `--only NAME` tries one, `--table` none. A case is a
function (see `tests/studies/bad`). An answer is

- a *clear error*: one of ours, or a ValueError or TypeError that the package raises itself, before
  any work;
- *told*: a finding of a verdict or check that is not good, or a warning;
- *done right*: what looks like a fault is none, or is acted upon;
- a *traceback from inside*: any other exception, of JAX or NumPyro say, which does not speak of
  what the user wrote;
- an *error of NumPyro*, clear or unclear: raised where the user makes a distribution, so that
  nothing of the package
  has been called yet;
- a *silent wrong answer*.
"""

import argparse
import re
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import bayes_dasl as bd
from bayes_dasl._findings import Diagnosis
from bayes_dasl.errors import BayesDaslError

from . import ROOT
from .bad import calls, data, models, strangers
from .pages import table, write_section
from .provenance import fingerprint
from .rows import Row, held, keep, lacking, latest

ROWS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs" / "measurements" / "robustness.md"
PACKAGE = ROOT / "bayes_dasl"
GROUPS = {
    "data": data.CASES,
    "models": models.CASES,
    "calls": calls.CASES,
    "strangers": strangers.CASES,
}
CASES: dict[str, Callable[[], Any]] = {
    name: case for cases in GROUPS.values() for name, case in cases.items()
}
GROUP_OF = {name: group for group, cases in GROUPS.items() for name in cases}

CLEAR, TOLD, RIGHT = "clear error", "told", "done right"
INSIDE, SILENT = "traceback from inside", "silent wrong answer"
THEIRS, THEIRS_UNCLEAR = "clear error of NumPyro", "unclear error of NumPyro"
FINE = (CLEAR, TOLD, RIGHT)
_LONGEST = 160
_OF_A_MACHINE = re.compile(r"(?<!\w)/[\w.+-]+/[\w.+/-]*|0x[0-9a-f]+")  # paths and addresses


class Answer(NamedTuple):
    outcome: str
    said: str


def answer(case: Callable[[], Any]) -> Answer:
    """What a case is answered, in a class of answers and in words."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found = case()
        except BayesDaslError as error:
            return Answer(CLEAR, f"{type(error).__name__}: {error}")
        except (ValueError, TypeError) as error:
            return Answer(
                CLEAR if _is_ours(error) else _from_inside(error),
                f"{type(error).__name__}: {error}",
            )
        except Exception as error:  # whatever comes up from inside
            return Answer(_from_inside(error), f"{type(error).__name__}: {error}")
    if isinstance(found, Diagnosis) and found.level != "good":
        return Answer(TOLD, str(next(f for f in found.findings if f.level == found.level)))
    if found is True:
        return Answer(RIGHT, "")
    ours = [
        str(w.message)
        for w in warned
        if Path(w.filename).is_relative_to(PACKAGE) or w.category is UserWarning
    ]
    return Answer(TOLD, ours[0]) if ours else Answer(SILENT, "")


def _is_ours(error: Exception) -> bool:
    """Raised by a line of the package, or by Python for arguments that a class or function of ours
    does not take.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    raised = Path(last.filename).is_relative_to(PACKAGE) and (last.line or "").startswith("raise")
    called = re.match(
        r"(\w+)(\.__init__)?\(\) (got an unexpected|missing \d+ required)", str(error)
    )
    return raised or (called is not None and hasattr(bd, called[1]))


def _from_inside(error: Exception) -> str:
    """Whose error it is that no line of the package raised; NumPyro's is clear if it names the
    parameter.
    """
    passed = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    ours = any(path.is_relative_to(PACKAGE) for path in passed)
    if ours or not any("numpyro" in path.parts for path in passed):
        return INSIDE
    return THEIRS if re.search(r"invalid \w+ parameter", str(error)) else THEIRS_UNCLEAR


@cache
def _of_the_package() -> str:
    public = [getattr(bd, verb) for verb in dir(bd) if not verb.startswith("_")]
    return f"{fingerprint(*public)}"


def code(name: str) -> str:
    """A hash of the package; a case is judged anew when any of it changes."""
    return _of_the_package()


def shown() -> str:
    """How many cases of each group were answered how, and the words of those that are no clear
    error.
    """
    rows = [row for row in latest(held(ROWS), ("name",)) if row["name"] in CASES]
    counts = {
        group: Counter(row["outcome"] for row in rows if row["group"] == group) for group in GROUPS
    }
    outcomes = (*FINE, THEIRS, THEIRS_UNCLEAR, INSIDE, SILENT)
    lines = [["input", *outcomes, "in all"]]
    lines += [
        [group, *(found[o] for o in outcomes), sum(found.values())]
        for group, found in counts.items()
    ]
    whole = sum(counts.values(), Counter())
    lines += [["all", *(f"**{whole[o]}**" for o in outcomes), f"**{sum(whole.values())}**"]]
    old = sum(row.get("code") != code(row["name"]) for row in rows)
    age = (
        f"{old} of {len(rows)} rows are older than the code."
        if old
        else "All rows are of the code as it stands."
    )
    each = [["case", "group", "answer", "in words"]]
    others = [row for row in rows if row["outcome"] != CLEAR]
    each += [[row["name"], row["group"], row["outcome"], _plain(row["said"])] for row in others]
    return (
        f"{table(lines)}\n\n{age} Those that are answered otherwise than by a clear "
        f"error:\n\n{table(each)}"
    )


def _plain(said: str) -> str:
    short = " ".join(said.split())
    short = short if len(short) <= _LONGEST else f"{short[:_LONGEST]}…"
    return f"`{short.replace('|', '/').replace('`', '')}`" if short else ""


def tried(name: str) -> Row:
    outcome, said = answer(CASES[name])
    words = " ".join(_OF_A_MACHINE.sub("…", said).split())
    return {
        "name": name,
        "group": GROUP_OF[name],
        "outcome": outcome,
        "said": words[: 2 * _LONGEST],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        action="append",
        choices=list(CASES),
        help="one case, tried again; may be repeated",
    )
    parser.add_argument(
        "--table", action="store_true", help="write the table of what is held, and try nothing"
    )
    asked = parser.parse_args()
    undone = (name for (name,) in lacking(held(ROWS), ("name",), [(name,) for name in CASES], code))
    for name in () if asked.table else asked.only or undone:
        row = keep(ROWS, tried(name), code(name))
        print(f"{row['outcome']:22} {name}: {row['said'][:_LONGEST]}", flush=True)
    write_section(PAGE, "bad inputs", shown())


if __name__ == "__main__":
    main()
