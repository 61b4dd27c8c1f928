"""Measure again all that the evidence pages state, as for a release.

    uv run python -m tests.studies.release            # goes on where it was stopped
    uv run python -m tests.studies.release --list     # which commands have ended
    uv run python -m tests.studies.release --only climate

The commands are those of the evidence pages, in their order. What a command prints is kept in `runs/release/VERSION`.
A command that has ended without an error is not run again. The studies also go on where they were stopped.
"""

import argparse
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import bayes_dasl as bd

from . import ROOT

PAGES = ROOT / "docs" / "evidence"
LOGS = ROOT / "runs" / "release" / bd.__version__


def commands() -> list[str]:
    """The commands that the evidence pages print, each once."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.md")))
    found = re.findall(r"^uv run (.*?) *(?:#.*)?$", text, re.M)
    return list(dict.fromkeys(found))


def log_of(command: str) -> Path:
    """The file that holds what an ended command printed."""
    return LOGS / (re.sub(r"[^\w.=-]+", "_", command) + ".log")


def measure(command: str) -> int:
    """Run a command; its file has its name only if it ended well."""
    path = log_of(command)
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.with_suffix(".begun")
    with begun.open("w", encoding="utf-8") as log:
        program = shlex.split(command.replace("python ", f"{shlex.quote(sys.executable)} ", 1))
        if program[0] == "bayes-dasl":
            program[0] = str(Path(sys.executable).with_name("bayes-dasl"))
        status = subprocess.run(program, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
    if status == 0:
        begun.rename(path)
    return status


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="print the commands and what ended")
    parser.add_argument("--only", default="", metavar="TEXT", help="commands with this text")
    options = parser.parse_args()
    chosen = [command for command in commands() if options.only in command]
    failed = []
    for command in chosen:
        done = log_of(command).exists()
        if options.list or done:
            print(f"{'done' if done else 'open'}  {command}")
            continue
        began = time.perf_counter()
        print(f"runs  {command}", flush=True)
        if measure(command):
            failed.append(command)
            print(f"failed: see {log_of(command).with_suffix('.begun').relative_to(ROOT)}")
        else:
            print(f"done in {(time.perf_counter() - began) / 60:.1f} min", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
