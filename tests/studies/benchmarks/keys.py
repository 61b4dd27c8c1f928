"""Twenty keys on every problem of the suite: each fit mixes, or its diagnosis says that it did not.

Run: `uv run python -m tests.studies.benchmarks.keys --problems sir,pk --keys 20`

A fit passes if every R-hat of the compared quantities is below 1.01; of one above it
`bd.diagnose(post)` must say so, in a finding about R-hat that is a warning (up to 1.05) or bad. All
keys of a problem run in one process, with a compilation cache of their own. Each result is appended
to `--out` as a line of JSON, and what is there already, from this machine and the code as it
stands, is not run again. A table goes into docs/measurements/benchmarks.md. Exits with 1 if a fit failed in
silence.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from .. import ROOT
from ..pages import table, write_section
from ..rows import age, keep, lacking, latest, of_here, to_show
from .suite.cases import ours

NAME = "tests.studies.benchmarks.keys"
PROBLEMS = (
    "lynx_hare",
    "fitzhugh_nagumo",
    "sir",
    "stiff",
    "hybrid",
    "pk",
    "pk_population",
    "theophylline_closed",
)
GOOD = 1.01
TASK = ("problem", "key")
JUDGED = ("R-hat of science parameters", "R-hat of trajectories")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__.split("\n")[0])
    parser.add_argument("--problems", default=",".join(PROBLEMS), help="names, separated by commas")
    parser.add_argument("--keys", type=int, default=20, help="random keys 0, 1, …")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_suffix(".jsonl"), help="results"
    )
    parser.add_argument("--table", action="store_true", help="only rewrite the table")
    parser.add_argument("--here", action="store_true", help="run the problems in this process")
    return parser.parse_args()


def code(problem: str, key: int) -> str:
    """The fingerprint of what makes a fit."""
    return ours(problem)


def fit(problem: str, key: int) -> dict:
    """One fit, its worst figures and what the diagnosis says of it."""
    import bayes_dasl as bd

    from .suite import engines
    from .suite.cases import load

    case = load(problem)
    began = time.perf_counter()
    post = bd.fit(case.model, case.data, bd.NUTS(), progress=False, key=key)
    seconds = time.perf_counter() - began
    figures = engines.worst(case.ours(post))
    diagnosis = bd.diagnose(post)
    named = [f.level for f in diagnosis.findings if f.subject in JUDGED and f.level != "good"]
    return {
        "problem": problem,
        "key": key,
        "seconds": seconds,
        "divergences": int(post["sample_stats"]["diverging"].sum()),
        "level": diagnosis.level,
        "verdict": diagnosis.verdict,
        "told": named[0] if named else "",
        **figures,
    }


def run_here(problem: str, options: argparse.Namespace) -> None:
    """The keys that the results lack."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".benchmarks" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    asked = [(problem, key) for key in range(options.keys)]
    for task in lacking(of_here(options.out), TASK, asked, code):
        result = fit(*task)
        jax.clear_caches()  # or every fit's programs stay in memory
        print(keep(options.out, result, code(*task)), flush=True)


def summary(results: list[dict], problems: list[str]) -> tuple[list[list[str]], int]:
    """One line a problem, and how many fits failed in silence."""
    lines = [
        [
            "problem",
            "keys",
            "R-hat < 1.01",
            "above, a warning",
            "above, judged bad",
            "highest R-hat",
            "lowest bulk ESS",
            "divergences",
        ]
    ]
    silent = 0
    for problem in problems:
        fits = [r for r in results if r["problem"] == problem]
        if not fits:
            continue
        passed = sum(r["rhat"] < GOOD for r in fits)
        warned, bad = (
            sum(r["rhat"] >= GOOD and r["told"] == level for r in fits)
            for level in ("warning", "bad")
        )
        silent += len(fits) - passed - warned - bad
        worst, ess = max(r["rhat"] for r in fits), min(r["bulk_ess"] for r in fits)
        diverging = sum(r["divergences"] for r in fits)
        counts = [str(n) for n in (len(fits), passed, warned, bad)]
        lines.append([f"`{problem}`", *counts, f"{worst:.3f}", f"{ess:.0f}", str(diverging)])
    return lines, silent


def main() -> None:
    options = arguments()
    problems = options.problems.split(",")
    for problem in () if options.table else problems:
        if options.here:
            run_here(problem, options)
        else:
            command = [
                sys.executable,
                "-m",
                NAME,
                "--here",
                "--problems",
                problem,
                "--keys",
                str(options.keys),
            ]
            subprocess.run([*command, "--out", str(options.out)], cwd=ROOT, check=True)
    if not options.here:
        results = latest(to_show(options.out, ("problem",)), TASK)
        lines, silent = summary(results, list(PROBLEMS))
        said = f"{silent} fits failed in silence. {age(results, TASK, code)}"
        write_section(
            ROOT / "docs" / "measurements" / "benchmarks.md", "keys", f"{table(lines)}\n\n{said}"
        )
        print(said)
        sys.exit(1 if silent else 0)


if __name__ == "__main__":
    main()
