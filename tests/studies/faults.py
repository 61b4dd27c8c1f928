"""Is anything lost or changed? Fits by every engine, and a study, are killed, stopped and torn, and
gone on with.

Run: `uv run python -m tests.studies.faults` goes on where it was stopped; `--only TEXT` does those
rows anew that have it in the name of their fault or engine, `--table` none. Each fault befalls a
process of its own. What the run ends with after it is compared to an uninterrupted run: how many
draws are lacking, and how many numbers differ to the bit.
"""

import argparse
import functools
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import bayes_dasl as bd
from bayes_dasl.errors import BayesDaslError

from . import ROOT
from .pages import table, write_section
from .provenance import fingerprint
from .rows import Row, Task, age, held, keep, lacking, latest
from .stricken import (
    Outcome,
    Place,
    Wrong,
    another_prior,
    foreign,
    killed,
    killed_without_a_terminal,
    read_only,
    torn,
    two_processes,
)
from .victims import FITS, STUDY, Fault, line, study

ROWS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs" / "measurements" / "robustness.md"
NAMES = ("fault", "engine", "when")

NAMED = {"SIGINT": "Ctrl-C", "twice": "Ctrl-C twice", "full": "disk full"}
# What a process returns that a signal ends at once, and what the command line makes of it.
CODES = {
    "SIGKILL": {-9},
    "SIGTERM": {-15},
    "SIGHUP": {-1},
    "SIGINT": {0, 130},
    "twice": {130},
    "full": {1},
}
OF_A_STUDY = CODES | {"SIGTERM": {143}, "SIGHUP": {129}, "SIGINT": {130}}
WHEN = {"start": 0.0, "a third": 0.34, "half": 0.5, "four fifths": 0.8}
HAVE_DRAWS = ("NUTS", "NUTS, ODE", "ManyChain", STUDY)  # before they end, so that Ctrl-C keeps them
TEARS: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda written: written[: len(written) // 2],
    "a flipped bit": lambda written: _flipped(written, 2 * len(written) // 3),
    "emptied": lambda written: b"",
}

type Work = Callable[[Place], Outcome]


def _flipped(written: bytes, at: int) -> bytes:
    return written[:at] + bytes([written[at] ^ 4]) + written[at + 1 :]


def _tasks() -> Iterator[tuple[Task, Work]]:
    """What is done, by the names of its row."""
    for engine in ("NUTS", STUDY):
        yield _computing("SIGKILL", engine, "start")
    for engine in ("SWAG", STUDY):
        yield _computing("SIGTERM", engine, "four fifths")
    for engine in ("DeepEnsemble", STUDY):
        yield _computing("SIGHUP", engine, "four fifths")
    for engine in ("NUTS", "ManyChain", "SVI", STUDY):
        yield _computing("twice", engine, "four fifths")
    yield ("SIGHUP, terminal closed", STUDY, "computing, at four fifths"), _without_a_terminal
    yield _writing_a_step("SIGINT", "NUTS")
    for engine in ("NUTS, ODE", "SMC", "Laplace", STUDY):
        yield _writing_a_step("full", engine)
    work = functools.partial(
        killed, engine="Joint", fault=Fault(room=2000), codes={1}, says="File too large"
    )
    yield ("files may not grow", "Joint", "writing a step"), work
    for strikes, name in (*(("SIGKILL", n) for n in ("posterior.nc", "forecast.nc", "report.html")),
                          ("full", "posterior.nc"), ("SIGINT", "posterior.nc")):  # fmt: skip
        yield _writing(strikes, name)
    for what, tear in TEARS.items():
        yield from _torn(what, tear)
    for engine in ("NUTS", STUDY):
        yield (
            ("foreign files", engine, "before the start"),
            functools.partial(foreign, engine=engine),
        )
        yield ("read-only folder", engine, "going on"), functools.partial(read_only, engine=engine)
        for what, kill in (("two processes", False), ("two processes, one killed", True)):
            yield (
                (what, engine, "at half"),
                functools.partial(two_processes, engine=engine, kill=kill),
            )
    for when, ended in (("after the end", True), ("before the end", False)):
        yield ("another prior", STUDY, when), functools.partial(another_prior, ended=ended)
    for engine in (*FITS, STUDY):
        yield _computing("SIGKILL", engine, "a third")
        yield _writing_a_step("SIGKILL", engine)
        yield _computing("SIGINT", engine, "four fifths")


def _codes(strikes: str, engine: str) -> set[int]:
    return (OF_A_STUDY if engine == STUDY else CODES)[strikes]


def _computing(strikes: str, engine: str, when: str) -> tuple[Task, Work]:
    def work(place: Place) -> Outcome:
        fault, asks = Fault(strikes, place.number(engine, WHEN[when])), strikes == "SIGINT"
        kept = engine in HAVE_DRAWS and (
            asks or (engine == STUDY and strikes in ("SIGTERM", "SIGHUP"))
        )
        return killed(place, engine, fault, _codes(strikes, engine), keeps_draws=kept)

    return (NAMED.get(strikes, strikes), engine, f"computing, at {when}"), work


def _without_a_terminal(place: Place) -> Outcome:
    fault = Fault("SIGHUP", place.number(STUDY, WHEN["four fifths"]))
    # Python cannot write out what it still holds for the terminal, and says so by this code.
    return killed_without_a_terminal(place, fault, OF_A_STUDY["SIGHUP"] | {120})


def _writing_a_step(strikes: str, engine: str) -> tuple[Task, Work]:
    def work(place: Place) -> Outcome:
        fault = Fault(strikes, file=f"{place.number(engine, WHEN['half']):06d}.step")
        return killed(
            place,
            engine,
            fault,
            _codes(strikes, engine),
            "No space left" if strikes == "full" else "",
        )

    return (NAMED.get(strikes, strikes), engine, "writing a step"), work


def _writing(strikes: str, name: str) -> tuple[Task, Work]:
    says = "No space left" if strikes == "full" else ""
    work = functools.partial(
        killed,
        engine=STUDY,
        fault=Fault(strikes, file=name),
        codes=_codes(strikes, STUDY),
        says=says,
    )
    return (NAMED.get(strikes, strikes), STUDY, f"writing {name}"), work


def _torn(what: str, tear: Callable[[bytes], bytes]) -> Iterator[tuple[Task, Work]]:
    """Files of runs that have ended."""
    when = "after the end"
    for engine in ("NUTS", "SVI"):
        yield (
            (f"a step, {what}", engine, when),
            lambda place, engine=engine: torn(
                place, engine, f"{place.number(engine, WHEN['half']):06d}.step", tear
            ),
        )
    no_run = ("is torn", "is not one of ours", "belongs to another run")
    yield (
        (f"run.json, {what}", "NUTS", when),
        functools.partial(torn, engine="NUTS", name="run.json", how=tear, refused=no_run),
    )
    for name, refused in (
        ("posterior.nc", ("is torn",)),
        ("level/posterior.nc", ("is torn",)),
        ("forecast.nc", ()),
    ):
        yield (
            (f"{name}, {what}", STUDY, when),
            functools.partial(torn, engine=STUDY, name=name, how=tear, refused=refused),
        )


TASKS = dict(_tasks())


@functools.cache
def code(fault: str, engine: str, when: str) -> str:
    """The code that the run is of."""
    return fingerprint(
        bd.fit, *((bd.Study, study().engine, line()) if engine == STUDY else FITS[engine])
    )


def run(place: Place, task: Task) -> Row:
    """Do one row; what goes wrong stands in the place of its outcome."""
    began = time.perf_counter()
    try:
        found = TASKS[task](place)._asdict()
    except (Wrong, BayesDaslError) as error:
        said = re.sub(r"/[\w./-]*/", "", str(error))  # no path of this machine
        found = {"outcome": f"WRONG: {said}", "lost": None, "changed": None}
    return (
        dict(zip(NAMES, task, strict=True))
        | found
        | {"seconds": round(time.perf_counter() - began, 1)}
    )


def shown() -> str:
    """What became of each fault."""
    rows = {tuple(row[name] for name in NAMES): row for row in latest(held(ROWS), NAMES)}
    done = [rows[task] for task in TASKS if task in rows]
    counted = ", ".join(
        f"{number} {outcome}"
        for outcome, number in Counter(r["outcome"] for r in done).most_common()
    )
    lost, changed = (sum(row[name] or 0 for row in done) for name in ("lost", "changed"))
    said = (
        f"{len(done)} of {len(TASKS)} faults: {counted}. Draws lost: {lost}; numbers changed: "
        f"{changed}. "
    )
    columns = (*NAMES, "outcome", "lost", "changed")
    return f"{said}{age(done, NAMES, code)}\n\n{table([columns, *([row[c] for c in columns] for row in done)])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", default="", help="rows whose fault or engine has this in its name, done anew"
    )
    parser.add_argument(
        "--table", action="store_true", help="write the table of what is held, and run nothing"
    )
    asked = parser.parse_args()
    sound = [row for row in held(ROWS) if row["lost"] is not None]  # what went wrong is done again
    left = [] if asked.table else list(lacking(sound, NAMES, TASKS, code))
    if asked.only:
        left = [task for task in TASKS if asked.only in task[0] or asked.only in task[1]]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what was torn
        place = Place(Path(folder))
        for task in left:
            print(keep(ROWS, run(place, task), code(*task)), flush=True)
    text = shown()
    write_section(PAGE, "faults", text)
    print(text)


if __name__ == "__main__":
    main()
