"""Many chains and ensembles on a GPU against the same, and against NUTS, on the CPU of one machine.

Run: `uv run python -m tests.studies.benchmarks.gpu --out .benchmarks/gpu` on a machine with a GPU
and JAX's CUDA packages (`uv pip install "jax[cuda12]"`). Without a GPU it says so and measures the
CPU alone; `--quick` is a short trial.

For each problem (lynx–hare; 12 subjects, 43 parameters) and each number of chains: gradients and
solves a second of one batch, and effective draws a second of `ManyChain` (warm-up and draws,
compilation apart) against `NUTS` on the CPU. Every row is measured in a process of its own, on one
kind of device; one that takes longer than `--limit` seconds is stopped. Rows are kept as JSON as
they come, and in the end as a table in Markdown.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import ROOT

NAME = "tests.studies.benchmarks.gpu"
PROBLEMS = ("lynx_hare", "pk")
METHODS = ("chees", "meads", "mclmc", "unadjusted_mclmc")
SIZES = (64, 256, 1024, 4096, 8192)
LARGEST_ON_CPU = 1024
SHORTEST = 1.0

type Row = dict[str, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=NAME, description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / ".benchmarks" / "gpu",
        help="folder of gpu.json and gpu.md",
    )
    parser.add_argument("--quick", action="store_true", help="one problem, one method, 64 chains")
    parser.add_argument(
        "--limit",
        type=float,
        default=900.0,
        help="seconds that a row may take, compilation included",
    )
    parser.add_argument("--row", help="one row, in this process (JSON)")
    return parser.parse_args()


def plan(quick: bool, gpu: bool) -> Iterator[Row]:
    """What is measured, CPU and GPU by turns."""
    problems, methods, sizes = (
        (PROBLEMS[:1], METHODS[:1], SIZES[:1]) if quick else (PROBLEMS, METHODS, SIZES)
    )
    devices = ("gpu", "cpu") if gpu else ("cpu",)
    for problem in problems:
        yield {"what": "nuts", "problem": problem, "device": "cpu"}
        for size in sizes:
            for device in devices:
                if device == "cpu" and size > LARGEST_ON_CPU:
                    continue
                row = {"problem": problem, "device": device, "chains": size}
                yield {"what": "gradients"} | row
                yield {"what": "solves"} | row
                for method in methods:
                    yield {"what": "many", "method": method} | row


def measured(row: Row, limit: float, quick: bool) -> Row:
    """A row with its figures, from a process of its own."""
    seen = {"cpu": "cpu", "gpu": "cuda,cpu"}[row["device"]]
    command = [sys.executable, "-W", "ignore", "-m", NAME, "--row", json.dumps(row)] + [
        "--quick"
    ] * quick
    environment = os.environ | {"JAX_PLATFORMS": seen}
    try:
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return row | {"stopped after s": limit}
    if done.returncode:
        return row | {"error": done.stderr.strip()[-500:]}
    return row | json.loads(done.stdout.strip().splitlines()[-1])


def gpus() -> list[str]:
    """The GPUs that JAX sees, asked in another process: this one stays free of JAX."""
    ask = "import jax, json; print(json.dumps([d.device_kind for d in jax.devices('gpu')]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ask], capture_output=True, text=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else []


def posed(problem: str) -> tuple[Any, Any, Any]:
    """Model, data and posterior."""
    from bayes_dasl.inference import pose

    from .suite.cases import load

    case = load(problem)
    return case.model, case.data, pose(case.model, case.data)


def likely(problem: Any, size: int) -> Any:
    """Positions around the modes, as chains have them."""
    import jax

    from bayes_dasl.inference.gradient import traced_once
    from bayes_dasl.inference.starts import Optimiser, find_start, first_positions

    optimiser = Optimiser(traced_once(problem)[0])
    start = find_start(problem, optimiser, key=jax.random.key(0))
    few = first_positions(start, optimiser, min(size, 64), key=jax.random.key(1))
    return few[[i % len(few) for i in range(size)]]


def rate(run: Callable[[], Any], size: int) -> Row:
    """How many a second, over at least `SHORTEST` seconds; the compilation is timed apart."""
    import jax

    began = time.perf_counter()
    jax.block_until_ready(run())
    first, laps, began = time.perf_counter() - began, 0, time.perf_counter()
    while laps < 3 or time.perf_counter() - began < SHORTEST:
        jax.block_until_ready(run())
        laps += 1
    return {"per second": size * laps / (time.perf_counter() - began), "first call s": first}


def gradients(row: Row, quick: bool) -> Row:
    """Values and gradients of a batch of chains."""
    import jax
    import jax.numpy as jnp

    from bayes_dasl.inference.gradient import traced_once

    _, _, problem = posed(row["problem"])
    batch = jax.jit(jax.vmap(traced_once(problem)[0]))
    x = jnp.asarray(likely(problem, row["chains"]))
    return rate(lambda: batch(x), row["chains"])


def solves(row: Row, quick: bool) -> Row:
    """Members of an ensemble or a forecast: the layer alone."""
    import jax
    import jax.numpy as jnp

    from bayes_dasl.random import realise

    model, data, problem = posed(row["problem"])
    inputs = model.inputs(data)
    draws = jax.vmap(problem.constrain)(jnp.asarray(likely(problem, row["chains"])))
    members = jax.jit(jax.vmap(lambda draw: realise(model, draw).layer(inputs).values))
    return rate(lambda: members(draws), row["chains"])


def lowest_bulk_ess(post: Any) -> float:
    """The lowest bulk effective sample size over all numbers of the posterior."""
    import arviz_stats as azs

    return min(
        float(v.min())
        for v in azs.ess(post["posterior"].to_dataset(), method="bulk").data_vars.values()
    )


def many(row: Row, quick: bool) -> Row:
    """A fit by `ManyChain`; its time is that of the segments of warm-up and draws."""
    import bayes_dasl as bd
    from bayes_dasl.engines.many_chain.many_chain import ManyChain, population as _population

    spent, advance = [], _population.Population.advance

    def timed(self, *arguments):
        self._compiled.result()  # compilation is not sampling
        began = time.perf_counter()
        trace = advance(self, *arguments)
        spent.append(time.perf_counter() - began)
        return trace

    _population.Population.advance = timed
    model, data, _ = posed(row["problem"])
    short = {"warmup": 48, "draws": 16} if quick else {}
    post = bd.fit(
        model,
        data,
        ManyChain(row["method"], chains=row["chains"], **short),
        device=row["device"],
        key=0,
    )
    ess, seconds, count = lowest_bulk_ess(post), sum(spent), post.attrs["gradients"]
    return {
        "ESS": ess,
        "seconds": seconds,
        "ESS/s": ess / seconds,
        "per second": count / seconds,
        "gradients": count,
        "nested R-hat": post.attrs["nested_rhat"],
        "wall s": post.attrs["wall_time_s"],
        "devices": post.attrs["devices"],
    }


def nuts(row: Row, quick: bool) -> Row:
    """A fit by `NUTS` with its defaults; its time is that of warm-up and draws."""
    import bayes_dasl as bd

    model, data, _ = posed(row["problem"])
    post = bd.fit(model, data, bd.NUTS(draws=200) if quick else bd.NUTS(), device="cpu", key=0)
    ess, count = (
        lowest_bulk_ess(post),
        int(post["sample_stats"]["n_steps"].sum()) + post.attrs["warmup_steps"],
    )
    seconds = post.attrs["warmup_time_s"] + post.attrs["draws_time_s"]
    return {
        "chains": post["posterior"].sizes["chain"],
        "ESS": ess,
        "seconds": seconds,
        "ESS/s": ess / seconds,
        "per second": count / seconds,
        "gradients": count,
        "wall s": post.attrs["wall_time_s"],
        "devices": post.attrs["devices"],
    }


MEASURES = {"gradients": gradients, "solves": solves, "many": many, "nuts": nuts}


def write(out: Path, rows: list[Row], machine: Row) -> str:
    """The rows as JSON and as a table in Markdown, which is returned."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += [
        "| " + " | ".join(_printed(row.get(name, "")) for name in columns) + " |" for row in rows
    ]
    known = ", ".join(f"{name} {value}" for name, value in machine.items())
    table = "\n".join(lines)
    (out / "gpu.md").write_text(f"# Throughput\n\n{known}\n\n{table}\n")
    return table


def _printed(value: Any) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else str(value).replace("\n", " ").replace("|", "/")
    )


def main() -> None:
    options = arguments()
    if options.row:
        row = json.loads(options.row)
        print(json.dumps(MEASURES[row["what"]](row, options.quick)))
        return
    found = gpus()
    if not found:
        print(
            "JAX sees no GPU here (uv pip install 'jax[cuda12]' on a machine with one): measuring "
            "the CPU alone"
        )
    machine = {
        "GPUs": ", ".join(found) or "none",
        "CPU cores": os.cpu_count(),
        "platform": platform.platform(),
    }
    rows, table = [], ""
    for row in plan(options.quick, bool(found)):
        rows.append(measured(row, options.limit, options.quick))
        print(rows[-1], file=sys.stderr, flush=True)
        table = write(options.out, rows, machine)
    print(table)


if __name__ == "__main__":
    main()
