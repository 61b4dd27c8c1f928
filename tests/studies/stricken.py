"""A run meets a fault and is gone on with: what it then ends with, beside an uninterrupted run, bit
by bit.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import BayesDaslError, ReadError

from . import ROOT
from .victims import FITS, KEY, STUDY, Fault, in_small_steps, seen, study

LIMIT_S = 300
RESUMED, REFUSED, ASIDE = "resumed", "refused clearly", "moved aside"
_NOBODY = 65534  # whom the system lets write nowhere, where this script may write everywhere
_TIMED = {
    "created",
    "sampling_time_s",
    "wall_time_s",
    "start_time_s",
    "warmup_time_s",
    "draws_time_s",
}

type Trees = dict[str, xr.DataTree]


class Outcome(NamedTuple):
    """What became of a run: how many draws it lacks in the end, and how many numbers differ."""

    outcome: str
    lost: int
    changed: int


class Wrong(Exception):
    """What a row says in the place of its outcome."""


def require(condition: object, otherwise: str) -> None:
    if not condition:
        raise Wrong(otherwise)


class Place:
    """Folders, processes, and the uninterrupted runs that all others are compared with."""

    def __init__(self, folder: Path):
        self.folder = folder
        in_small_steps()
        self._whole: dict[str, tuple[Path, Trees]] = {}
        # JAX does not write its programs whole or not at all: processes that are killed have a
        # cache of their own.
        self._environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"), "BAYES_DASL_CACHE": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }  # fmt: skip
        # Programs here must be those of the processes.
        jax.config.update("jax_disable_most_optimizations", True)
        bd.configure(cache=folder / "own cache")

    def new(self) -> Path:
        """A folder for a run, and beside it what its process leaves word of."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / "run"

    def whole(self, engine: str) -> tuple[Path, Trees]:
        """The folder of an uninterrupted run, which nobody changes, and what it ended with."""
        if engine not in self._whole:
            folder = self.new()
            self._whole[engine] = folder, self.ended(engine, folder)
        return self._whole[engine]

    def number(self, engine: str, share: float) -> int:
        """That of a step of a fit, so far along."""
        # A study deletes the steps of a fit at its end; they are those of NUTS.
        total = len(steps("NUTS", self.whole("NUTS" if engine == STUDY else engine)[0]))
        return 1 + round(share * (total - 1))

    def ended(self, engine: str, folder: Path) -> Trees:
        """What the same call ends with in this process,
        which goes on with what is in the folder.
        """
        if engine == STUDY:
            study().run(folder, key=KEY, progress=False)
            found = results(folder)
        else:
            model, settings = FITS[engine]
            post = bd.fit(model, seen(), settings, checkpoint=folder, key=KEY, progress=False)
            # By way of a file, as that of another process.
            found = {"posterior": bd.load(bd.save(post, folder.parent / "returned.nc"))}
        left = [path.name for path in folder.rglob(".*")]
        require(not left, f"leaves {left}")
        return found

    def start(
        self, engine: str, folder: Path, fault: Fault | None = None, **how: Any
    ) -> subprocess.Popen:
        """A process that runs an engine in a folder, and may meet a fault."""
        told = {"engine": engine, "folder": str(folder), "word": str(folder.parent)}
        told |= {"fault": dataclasses.asdict(fault)} if fault else {}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | how
        program = [sys.executable, "-m", "tests.studies.victims", json.dumps(told)]
        return subprocess.Popen(program, cwd=ROOT, env=self._environment, **options)

    def process(
        self, engine: str, folder: Path, fault: Fault | None = None, **how: Any
    ) -> tuple[int, str]:
        """What such a process returned, and what it said."""
        process = self.start(engine, folder, fault, **how)
        try:
            said = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Wrong("did not end") from None
        return process.returncode, " ".join(" ".join(text or "" for text in said).split())


# ---- comparing


def results(folder: Path) -> Trees:
    """Posteriors and forecasts of a run folder, by file; nothing that was put aside."""
    paths = [
        path
        for path in sorted(folder.rglob("*.nc"))
        if ".old-" not in str(path.relative_to(folder))
    ]
    return {str(path.relative_to(folder)): bd.load(path) for path in paths}


def contents(folder: Path) -> dict[str, str]:
    """A digest of each file."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def steps(engine: str, run: Path) -> dict[str, int]:
    """When each step was written that is kept."""
    folder = run / "checkpoint" if engine == STUDY else run
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.step")}


def compared(outcome: str, found: Trees, whole: Trees) -> Outcome:
    """Draws that are lacking in the end, and numbers and attributes that differ."""
    require(found.keys() == whole.keys(), f"ends with {sorted(found)}")
    lost = 0
    for name, expected in whole.items():
        group = "posterior" if "posterior" in expected.children else "predictions"
        lost += _draws(expected[group]) - _draws(found[name][group])
    return Outcome(
        outcome, lost, sum(differing(found[name], expected) for name, expected in whole.items())
    )


def _draws(group: Any) -> int:
    return group.sizes["chain"] * group.sizes["draw"]


def differing(found: xr.DataTree, expected: xr.DataTree) -> int:
    """Numbers and attributes that differ in any group, but for times."""
    count = len(set(found.groups) ^ set(expected.groups))
    for group in set(found.groups) & set(expected.groups):
        ours, theirs = (tree[group].to_dataset(inherit=False) for tree in (found, expected))
        count += len(set(ours.variables) ^ set(theirs.variables))
        count += sum(
            _unlike(ours[name], theirs[name])
            for name in set(ours.variables) & set(theirs.variables)
        )
    untimed = [
        {k: v for k, v in tree.attrs.items() if k not in _TIMED} for tree in (found, expected)
    ]
    names = untimed[0].keys() | untimed[1].keys()
    return count + sum(repr(untimed[0].get(name)) != repr(untimed[1].get(name)) for name in names)


def _unlike(found: xr.DataArray, expected: xr.DataArray) -> int:
    """How many numbers differ to the bit."""
    a, b = np.asarray(found), np.asarray(expected)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return max(b.size, 1)
    if a.dtype == object:
        return int((a != b).sum())
    bits = (
        [np.frombuffer(v.tobytes(), np.uint8).reshape(v.size, -1) for v in (a, b)]
        if a.size
        else [a, b]
    )
    return int((bits[0] != bits[1]).any(axis=-1).sum())


def check_draws_so_far(early: xr.DataTree, whole: xr.DataTree) -> None:
    """Draws that were kept of a run that was stopped are the first ones of the whole run, and it is
    said so.
    """
    require(early.attrs["interrupted"] == 1, "does not say that draws are lacking")
    kept = early["posterior"].sizes["draw"]
    require(kept < whole["posterior"].sizes["draw"], "was not stopped")
    for name, values in early["posterior"].data_vars.items():
        unlike = _unlike(values, whole["posterior"][name].isel(draw=slice(kept)))
        require(not unlike, f"{unlike} numbers of the draws so far differ")


# ---- faults


def killed(
    place: Place,
    engine: str,
    fault: Fault,
    codes: set[int],
    says: str = "",
    *,
    keeps_draws: bool = False,
    **how: Any,
) -> Outcome:
    """Let a process meet a fault, and go on: steps that were kept are used, not made again."""
    (_, whole), run = place.whole(engine), place.new()
    code, said = place.process(engine, run, fault, **how)
    quiet = (
        "Traceback" not in said or fault.strikes == "twice"
    )  # which Python may hear when it has nearly ended
    require(code in codes and quiet, f"ended with {code}: {said[-500:]}")
    require(says in said, f"says {said[-500:]}")
    if keeps_draws:
        kept, name = (run, "posterior.nc") if engine == STUDY else (run.parent, "returned.nc")
        check_draws_so_far(
            bd.load(kept / name), whole["posterior.nc" if engine == STUDY else "posterior"]
        )
    before = steps(engine, run)
    found = place.ended(engine, run)
    require(
        engine == STUDY or steps(engine, run).items() >= before.items(),
        "makes steps anew that it had",
    )
    return compared(RESUMED, found, whole)


def killed_without_a_terminal(place: Place, fault: Fault, codes: set[int]) -> Outcome:
    """The same for a study whose terminal was closed: whatever it prints is refused."""
    screen, terminal = pty.openpty()
    os.close(screen)
    try:
        return killed(
            place, STUDY, fault, codes, keeps_draws=True, stdout=terminal, stderr=terminal
        )
    finally:
        os.close(terminal)


def torn(
    place: Place,
    engine: str,
    name: str,
    how: Callable[[bytes], bytes],
    refused: tuple[str, ...] = (),
) -> Outcome:
    """Damage a file of a whole run, and go on; where it is refused, put the file back first."""
    (folder, whole), run = place.whole(engine), place.new()
    shutil.copytree(folder, run)
    path = run / name
    written = path.read_bytes()
    path.write_bytes(how(written))
    if refused:
        refuses(place, engine, run, *refused)
        path.write_bytes(written)
    return compared(REFUSED if refused else RESUMED, place.ended(engine, run), whole)


def refuses(place: Place, engine: str, run: Path, *says: str, **how: Any) -> None:
    """A clear error that says one of these, and nothing is touched; `how` is for a process of its
    own.
    """
    before = contents(run)
    if how:
        code, said = place.process(engine, run, **how)
        require(code == 1 and "Traceback" not in said, f"ended with {code}: {said[-500:]}")
    else:
        try:
            place.ended(engine, run)
        except BayesDaslError as error:
            said = str(error)
        else:
            raise Wrong("is not refused")
    require(any(text in said for text in says), f"says {said[-500:]}")
    require(contents(run) == before, "touches what it refuses")


def foreign(place: Place, engine: str) -> Outcome:
    """A folder that holds somebody's work and no run."""
    run = place.new()
    theirs = (run / "checkpoint" if engine == STUDY else run) / "thesis.tex"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    try:
        place.ended(engine, run)
    except ReadError as error:
        require("is not empty and holds no checkpoint" in str(error), str(error))
    else:
        raise Wrong("is not refused")
    require(
        list(theirs.parent.iterdir()) == [theirs] and theirs.read_text() == "mine",
        "touches what is not its own",
    )
    theirs.unlink()
    return compared(REFUSED, place.ended(engine, run), place.whole(engine)[1])


def read_only(place: Place, engine: str) -> Outcome:
    """A folder in which part of the work lies, and where nothing can be written."""
    (folder, whole), run = place.whole(engine), place.new()
    shutil.copytree(folder, run)
    for path in [*sorted(run.glob("*.step"))[4:], *run.glob("forecast.nc")]:
        path.unlink()
    how = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    place.folder.chmod(0o755)
    for closed in (run.parent, run):
        closed.chmod(0o555)
    try:
        refuses(place, engine, run, f"cannot write {run}", **how)
    finally:
        for closed in (run.parent, run):
            closed.chmod(0o755)
    return compared(REFUSED, place.ended(engine, run), whole)


@contextlib.contextmanager
def _at_work(place: Place, engine: str, run: Path, step: int) -> Iterator[subprocess.Popen]:
    """A process that stands still at a step of its work."""
    process, end = place.start(engine, run, Fault("waits", step)), time.monotonic() + LIMIT_S
    try:
        while not (run.parent / "waits").exists():
            require(process.poll() is None and time.monotonic() < end, "did not begin")
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def two_processes(place: Place, engine: str, *, kill: bool) -> Outcome:
    """A second process in the folder of one that is at work, which then goes on, or is killed and
    leaves no lock.
    """
    (_, whole), run = place.whole(engine), place.new()
    with _at_work(place, engine, run, place.number(engine, 0.5)) as first:
        refuses(place, engine, run, "another process is at work in")
        if not kill:
            (run.parent / "go").touch()
            first.communicate(timeout=LIMIT_S)
            found = (
                results(run)
                if engine == STUDY
                else {"posterior": bd.load(run.parent / "returned.nc")}
            )
            return compared(REFUSED, found, whole)
    return compared(RESUMED, place.ended(engine, run), whole)


def another_prior(place: Place, *, ended: bool) -> Outcome:
    """A run folder of a study that had another prior: what is there is put aside, whole, and
    nothing of it is used.
    """
    run, older = place.new(), study(sd=1.0)
    if ended:
        older.run(run, key=KEY, progress=False)
    else:
        bd.fit(
            older.model,
            older.train,
            older.engine,
            checkpoint=run / "checkpoint",
            key=KEY,
            progress=False,
        )
    before = contents(run)
    found = place.ended(STUDY, run)
    aside = {
        "posterior.nc": "posterior.old-1.nc",
        "forecast.nc": "forecast.old-1.nc",
        "checkpoint": "checkpoint.old-1",
    }
    after = contents(run)
    moved = {
        name: name.replace(first, aside[first], 1)
        for name in before
        if (first := name.split("/")[0]) in aside
    }
    require(moved, "there was nothing")
    lacking = [name for name, to in moved.items() if after.get(to) != before[name]]
    require(not lacking, f"does not put aside {lacking}")
    return compared(ASIDE, found, place.whole(STUDY)[1])
