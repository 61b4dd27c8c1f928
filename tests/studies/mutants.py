"""Do the tests see a mistake? Each of some sixty is put into a copy of the package for the tests
that look there.

Run: `uv run python -m tests.studies.mutants` goes on where it was stopped; `--only NAME` does one,
`--table` none. A row stands as long as the mutant, the file that it changes and the files of its
tests do. The tests are those of the default run, and where these see nothing the thorough ones. What
survives is a gap: add a test that is sharp and quick.
"""

import argparse
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import batched
from pathlib import Path

from . import ROOT
from .mutations import MUTANTS, Mutant
from .pages import table, write_section
from .provenance import meaning
from .rows import Row, held, keep, lacking, latest

ROWS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs" / "measurements" / "benchmarks.md"
NAMES = {mutant.name: mutant for mutant in MUTANTS}
LIMIT_S = 900
BATCH = 16  # mutants whose tests are first run together as the code is


def code(name: str, root: Path = ROOT) -> str:
    """A hash of a mutant, the file that it changes without comments and layout, and the files of
    its tests.
    """
    mutant = NAMES[name]
    paths = (mutant.file, *sorted({test.partition("::")[0] for test in mutant.tests}))
    said = [
        repr(dataclasses.astuple(mutant)),
        *(meaning((root / path).read_text(encoding="utf-8")) for path in paths),
    ]
    return hashlib.sha256("\n".join(said).encode("utf-8")).hexdigest()[:12]


def misplaced(root: Path = ROOT) -> dict[str, int]:
    """How often `old` occurs in the file of each mutant for which that is not once."""
    found = {m.name: (root / m.file).read_text(encoding="utf-8").count(m.old) for m in MUTANTS}
    return {name: times for name, times in found.items() if times != 1}


class Copy:
    """A copy of the working tree, with the shared files beside it, in which tests run."""

    def __init__(self, folder: Path):
        self.root = folder / "project"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.root / name)
        if (ROOT.parent / "shared").is_dir():
            (folder / "shared").symlink_to((ROOT.parent / "shared").resolve())
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        self._environment = os.environ | cache | {"PYTHONPATH": str(self.root)}
        self._refuse_another_package()

    def _refuse_another_package(self) -> None:
        where = "import importlib.util as u; print(u.find_spec('bayes_dasl').origin)"
        found = subprocess.run([sys.executable, "-c", where], cwd=self.root, env=self._environment,
                               check=True, capture_output=True, text=True).stdout  # fmt: skip
        if not Path(found.strip()).is_relative_to(self.root):
            raise SystemExit(f"the copy's tests would import {found.strip()}")

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """The copy with one mistake in it."""
        path = self.root / mutant.file
        text = path.read_text(encoding="utf-8")
        self._write(path, text.replace(mutant.old, mutant.new))
        try:
            yield
        finally:
            self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        # Python tells sources apart by their second and size alone.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()

    def test(
        self, tests: Sequence[str], *, stop: bool = True, which: str = "--quick"
    ) -> tuple[int, list[str], str]:
        """Pytest's exit code, the tests that failed, and all that it said; code −1 where it took
        too long.
        """
        options = [
            "-q",
            which,
            "-n0",
            "-p",
            "no:cacheprovider",
            "--tb=short",
            "-rfE",
            *(["-x"] if stop else []),
        ]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=self.root, env=self._environment, capture_output=True, text=True, timeout=LIMIT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return -1, [], ""
        said = done.stdout + done.stderr
        return done.returncode, re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE), said


def unsound(copy: Copy, mutants: Sequence[Mutant]) -> set[str]:
    """The mutants whose tests do not pass as the code is; all tests run in one go, which fills
    JAX's cache too.

    Raises: SystemExit if pytest cannot run them at all.
    """
    returned, failed, said = copy.test(
        list(dict.fromkeys(t for m in mutants for t in m.tests)), stop=False
    )
    if returned not in (0, 1):
        raise SystemExit(f"the tests cannot be run:\n{said[-4000:]}")
    return {
        m.name for m in mutants if any(_covers(test, node) for test in m.tests for node in failed)
    }


def _covers(test: str, node: str) -> bool:
    return node == test or node.startswith((f"{test}::", f"{test}["))


def run(copy: Copy, mutant: Mutant) -> Row:
    """Put one mistake into the copy and see whether its tests fail."""
    began = time.perf_counter()
    with copy.mutated(mutant):
        returned, failed, said = copy.test(mutant.tests)
        seen = "killed"
        if returned not in (1, -1):
            returned, failed, said = copy.test(mutant.tests, which="--thorough")
            seen = "killed by thorough tests"
    # What cannot be collected is no mistake that anyone would commit.
    verdict = {0: "survived", 1: seen, -1: "took too long"}.get(returned, "broken")
    if verdict == "broken":
        print(said[-2000:], flush=True)
    by = failed[0] if returned == 1 and failed else ""
    return {
        "name": mutant.name,
        "file": mutant.file,
        "verdict": verdict,
        "by": by,
        "seconds": round(time.perf_counter() - began, 1),
    }


def shown() -> str:
    """What became of each mutant, in the order in which they are written down."""
    rows = {row["name"]: row for row in latest(held(ROWS), ("name",))}
    lines: list[list[object]] = [["mistake", "file", "verdict", "by", "s"]]
    for mutant in MUTANTS:
        row = rows.get(mutant.name, {"verdict": "not run", "by": "", "seconds": "–"})
        old = "code" in row and row["code"] != code(mutant.name)
        verdict = f"{row['verdict']}, of older code" if old else row["verdict"]
        place = mutant.file.removeprefix("bayes_dasl/")
        by = row["by"].removeprefix("tests/").replace("|", "\\|")
        lines.append([mutant.name, f"`{place}`", verdict, f"`{by}`" if by else "", row["seconds"]])
    found = Counter(line[2] for line in lines[1:])
    counted = ", ".join(f"{number} {verdict}" for verdict, number in found.most_common())
    return f"{len(MUTANTS)} mistakes: {counted}.\n\n{table(lines)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        action="append",
        choices=list(NAMES),
        help="one mutant, run again; may be repeated",
    )
    parser.add_argument(
        "--table", action="store_true", help="write the table of what is held, and run nothing"
    )
    asked = parser.parse_args()
    for name, times in misplaced().items():
        print(
            f"{name}: `old` occurs {times} times in {NAMES[name].file}: mend the mutant", flush=True
        )
    if not asked.table:
        undone = (
            name for (name,) in lacking(held(ROWS), ("name",), [(name,) for name in NAMES], code)
        )
        left = [NAMES[name] for name in asked.only or undone if name not in misplaced()]
        with tempfile.TemporaryDirectory() as folder:
            _all(Path(folder), left)
    text = shown()
    write_section(PAGE, "mutants", text)
    print(text)
    if misplaced():
        raise SystemExit(1)


def _all(folder: Path, mutants: Sequence[Mutant]) -> None:
    copy = Copy(folder)
    for some in batched(mutants, BATCH):
        failing = unsound(copy, some)
        for mutant in some:
            if mutant.name in failing:
                print(f"{mutant.name}: its tests fail without it", flush=True)
            else:
                print(keep(ROWS, run(copy, mutant), code(mutant.name, copy.root)), flush=True)


if __name__ == "__main__":
    main()
