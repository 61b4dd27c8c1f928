"""Ours, NumPyro, BlackJAX and Stan side by side on the same posteriors, on one machine in one run.

Run:
`uv
run python -m tests.studies.benchmarks.suite --problems lynx_hare,sir --engines ours,stan --keys 5
--limit 240`

Each fit runs in a process of its own, without a compilation cache, the engines by turns, with every
engine's defaults. A fit over the limit (seconds, compilation included) is stopped; once most keys
of an engine are stopped its median is settled, and the others are not run. Each result is appended
to `--out` as a line of JSON, and what is there already, from this machine and, of ours, from the
code as it stands, is not run again: interrupt and go on as you like. At the end, or with `--table`
alone, the tables in the suite's section of docs/measurements/benchmarks.md are rewritten (not with `--draws`).
`--check` runs no fit but shows that all engines have the same posterior.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from ... import ROOT
from ...rows import Row, keep, latest, of_here, to_show
from .cases import ours

NAME = "tests.studies.benchmarks.suite"
PROBLEMS = (
    "lynx_hare",
    "fitzhugh_nagumo",
    "sir",
    "stiff",
    "hybrid",
    "pk",
    "theophylline",
    "theophylline_closed",
)
ENGINES = ("ours", "numpyro", "blackjax", "stan")
TASK = ("problem", "engine", "key")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__.split("\n")[0])
    parser.add_argument("--problems", default=",".join(PROBLEMS), help="names, separated by commas")
    parser.add_argument("--engines", default=",".join(ENGINES), help="names, separated by commas")
    parser.add_argument(
        "--keys", type=int, default=5, help="random keys 0, 1, … for each problem and engine"
    )
    parser.add_argument("--limit", type=float, default=240.0, help="seconds that a fit may take")
    parser.add_argument(
        "--draws", type=int, help="warm-up and draws of every engine, only to try the suite out"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "suite.jsonl", help="results"
    )
    parser.add_argument(
        "--docs",
        type=Path,
        default=ROOT / "docs" / "measurements" / "benchmarks.md",
        help="file with the tables",
    )
    parser.add_argument("--table", action="store_true", help="only rewrite the tables")
    parser.add_argument("--check", action="store_true", help="only compare the log densities")
    parser.add_argument(
        "--fit", nargs=3, metavar=("PROBLEM", "ENGINE", "KEY"), help="one fit, in this process"
    )
    return parser.parse_args()


def is_current(row: Row) -> bool:
    """Whether a fit is a peer's, or of our code as it stands."""
    return row["engine"] != "ours" or row.get("code") == ours(row["problem"])


def fit(problem: str, engine: str, key: int, draws: int | None) -> dict:
    """One fit in this process."""
    if engine in ("numpyro", "blackjax"):
        # The gradient of an implicit solver raises where its Jacobian is not finite, whatever
        # `throw` says: a NaN instead rejects the draw. This is what one sets by hand; ours has to
        # cope as it is.
        os.environ["EQX_ON_ERROR"] = "nan"
    if engine == "numpyro":
        import numpyro

        numpyro.set_host_device_count(2)
    from . import engines
    from .cases import load

    return engines.judge(engines.ENGINES[engine](load(problem), key, draws))


def measure(problem: str, engine: str, key: int, limit: float, draws: int | None) -> dict:
    """One fit in a process of its own, which is stopped at the limit with all its children."""
    if engine == "stan":
        try:
            limit = limit - _stan_build(problem)
        except RuntimeError as error:
            return {"error": str(error)[-1000:]}
    command = [sys.executable, "-W", "ignore", "-m", NAME, "--fit", problem, engine, str(key)]
    command += [] if draws is None else ["--draws", str(draws)]
    environment = {name: v for name, v in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["BAYES_DASL_CACHE"] = "off"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True, **pipes)
    try:
        out, err = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"stopped": True}
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode:
        return {"error": err.strip()[-1000:]}
    return json.loads(out.strip().splitlines()[-1])


def _stan_build(problem: str) -> float:
    from . import stan_engine
    from .cases import load

    return stan_engine.build(load(problem))["seconds"]


def run(options: argparse.Namespace, problems: list[str], engines: list[str]) -> None:
    """Every fit that the results lack; one that failed, or was stopped at a lower limit, is tried
    again.
    """
    done = {
        (r["problem"], r["engine"], r["key"])
        for r in of_here(options.out)
        if is_current(r)
        and "error" not in r
        and not (r.get("stopped") and r["limit"] < options.limit)
    }
    for key, problem, engine in itertools.product(range(options.keys), problems, engines):
        if (problem, engine, key) in done or _settled(options, problem, engine):
            continue
        result = {"problem": problem, "engine": engine, "key": key, "limit": options.limit}
        result |= measure(problem, engine, key, options.limit, options.draws)
        keep(options.out, result, ours(problem) if engine == "ours" else None)
        print(
            {name: v for name, v in result.items() if name not in ("mean", "sd", "mcse")},
            flush=True,
        )


def _settled(options: argparse.Namespace, problem: str, engine: str) -> bool:
    """Whether most keys were stopped at the limit: the median is no effective draw, whatever the
    others do.
    """
    of_both = [
        r
        for r in of_here(options.out)
        if (r["problem"], r["engine"]) == (problem, engine) and is_current(r)
    ]
    fits = {r["key"]: r for r in of_both}
    return (
        sum(bool(r.get("stopped")) and r["limit"] >= options.limit for r in fits.values())
        > options.keys / 2
    )


def chosen(text: str, known: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise SystemExit(f"unknown name {name!r}; there are {', '.join(known)}")
    return names


def main() -> None:
    options = arguments()
    if options.fit:
        problem, engine, key = options.fit
        print(json.dumps(fit(problem, engine, int(key), options.draws)))
        return
    problems, engines = chosen(options.problems, PROBLEMS), chosen(options.engines, ENGINES)
    if options.check:
        from .check import check

        sys.exit(0 if all([check(name) for name in problems]) else 1)
    if not options.table:
        run(options, problems, engines)
    if options.table or options.draws is None:
        from ...pages import write_section
        from . import tables

        write_section(
            options.docs, "suite", tables.section(latest(to_show(options.out, ("problem",)), TASK))
        )


if __name__ == "__main__":
    main()
