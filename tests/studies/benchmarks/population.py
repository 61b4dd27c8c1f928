"""What a population costs as it grows: 10, 100, 1000 subjects of ten times each, on common times or
each on its own.

Run: `uv run python -m tests.studies.benchmarks.population`; `--only 1000` for a size, `--table`
writes what is held.

A drug is absorbed and eliminated; clearance and volume differ between subjects. Each case has a
process of its own, whose highest memory is told. Its gradient is that of the log density at prior
draws, one after another, the fastest of several laps; the fit is a short one by NUTS with one chain
and at most 31 gradients a draw, which compiles, climbs to a mode, takes the curvature there and
draws; then all draws are forecast to twenty common times.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd

import bayes_dasl as bd
from bayes_dasl.inference import pose
from bayes_dasl.inference.gradient import choose, traced_once

from .. import ROOT
from ..pages import table, write_section
from ..provenance import fingerprint
from ..rows import held, keep, lacking, latest
from ..timing import lap_times, printed

ROWS = Path(__file__).with_suffix(".jsonl")
TASK = ("subjects", "times", "layer")
SUBJECTS, LAYERS, TIMES = (10, 100, 1000), ("closed form", "solved"), ("common", "own")
PROTOCOL = np.array([0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 12.0, 24.0])
DOSE = 320.0
LAPS, POSITIONS = 3, 4
WARMUP, DRAWS, DEPTH = 25, 25, 5


class Oral(bd.Module):
    absorption: bd.Scalar
    clearance: bd.Scalar
    volume: bd.Scalar

    def __call__(self, t, y, u):
        taken = self.absorption * y["depot"]
        return {"depot": -taken, "central": taken - self.clearance / self.volume * y["central"]}

    def concentration(self, t, y, u):
        return {"conc": y["central"] / self.volume}


def records(subjects: int, times: str) -> pd.DataFrame:
    """A table as of a trial: a dose and ten measurements of each subject."""
    rng = np.random.default_rng(subjects)
    absorption, spread = 1.2, 0.3
    clearance, volume = (
        typical * np.exp(spread * rng.normal(size=(subjects, 1))) for typical in (3.0, 30.0)
    )
    late = 0.0 if times == "common" else 0.1
    at = PROTOCOL * np.exp(late * rng.normal(size=(subjects, 10)))
    out = clearance / volume
    conc = (
        DOSE
        * absorption
        / (volume * (absorption - out))
        * (np.exp(-out * at) - np.exp(-absorption * at))
    )
    conc = conc * np.exp(0.15 * rng.normal(size=conc.shape))
    who = np.repeat(np.arange(subjects), 10)
    seen = pd.DataFrame(
        {"id": who, "time": np.sort(at, axis=1).ravel(), "conc": conc.ravel(), "evid": 0}
    )
    given = pd.DataFrame({"id": np.arange(subjects), "time": 0.0, "amt": DOSE, "evid": 1})
    return pd.concat([given, seen]).sort_values(["id", "time"]).reset_index(drop=True)


def model_of(doses, layer: str) -> bd.Model:
    numbers = {
        "absorption": bd.between(0.3, 4.0),
        "clearance": bd.population(bd.between(1.0, 10.0), dist.HalfNormal(0.5)),
        "volume": bd.population(bd.between(10.0, 100.0), dist.HalfNormal(0.5)),
    }
    if layer == "closed form":
        one = bd.dosing.Compartments(**numbers, doses=doses)
    else:
        one = bd.ODE(
            Oral(**numbers), {"depot": 0.0, "central": 0.0}, Oral.concentration, doses=doses
        )
    return bd.Model(bd.Each(one, doses.members), {"conc": bd.LogNormalNoise(bd.between(0.05, 0.5))})


def peak() -> int:
    """In MB; Linux counts in KiB, macOS in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6)


def measured(subjects: int, times: str, layer: str, *, drawn: bool) -> dict:
    """All figures of one case, in this process."""
    rows, began = records(subjects, times), time.perf_counter()
    data = bd.from_table(rows, "conc", subject="id")
    model = model_of(bd.dosing.doses(rows, into="depot", subject="id"), layer)
    found: dict = {
        "all times": data.sizes["time"],
        "read_s": time.perf_counter() - began,
        "read_mb": peak(),
    }
    problem = pose(model, data)
    found["unknown"] = problem.dimension
    value_and_gradient, _ = traced_once(problem, choose(problem, "auto"))
    x = problem.prior(POSITIONS, key=jax.random.key(0))
    began = time.perf_counter()
    program = jax.jit(lambda x: jax.lax.map(value_and_gradient, x)).lower(x).compile()
    found["compile_s"] = time.perf_counter() - began
    found["gradient_s"] = min(lap_times(program, x, LAPS)) / POSITIONS
    found["gradient_mb"] = peak()
    if not drawn:
        return found
    began = time.perf_counter()
    engine = bd.NUTS(chains=1, warmup=WARMUP, draws=DRAWS, map_starts=2, max_tree_depth=DEPTH)
    post = bd.fit(model, data, engine, progress=False)
    found |= {"fit_s": time.perf_counter() - began, "start_s": post.attrs["start_time_s"]}
    found |= {"draw_s": post.attrs["draws_time_s"] / DRAWS, "fit_mb": peak()}
    found["gradients"] = float(post["sample_stats"]["n_steps"].mean())
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        bd.forecast(
            model, post, np.linspace(1.0, 48.0, 20), path=Path(folder) / "forecast.nc"
        ).close()
        found |= {"forecast_s": time.perf_counter() - began, "forecast_mb": peak()}
    return found


def code(subjects: int, times: str, layer: str) -> str:
    """The fingerprint of what makes a row."""
    rows = records(10, times)
    return fingerprint(
        bd.fit,
        bd.NUTS(),
        model_of(bd.dosing.doses(rows, into="depot", subject="id"), layer),
        records,
    )


def run(subjects: int, times: str, layer: str, *, drawn: bool) -> dict:
    """One case, in a process of its own."""
    call = f"measured({subjects}, {times!r}, {layer!r}, drawn={drawn})"
    job = f"import json; from {__spec__.name} import measured; print(json.dumps({call}))"
    return {"subjects": subjects, "times": times, "layer": layer, **json.loads(printed(job))}


def tables() -> str:
    lines = [[
        "layer", "times", "subjects", "times of all", "unknown numbers", "compile, s", "gradient, ms", "a subject, µs",
        "memory, MB", "fit, s", "of which start, s", "draw, ms", "gradients a draw", "memory, MB", "forecast, s",
        "memory, MB",
    ]]  # fmt: skip
    rows = {tuple(row[name] for name in TASK): row for row in latest(held(ROWS), TASK)}
    for layer in LAYERS:
        for times in TIMES:
            for row in (
                rows[size, times, layer] for size in SUBJECTS if (size, times, layer) in rows
            ):

                def told(name, scale=1, row=row):
                    return f"{scale * row[name]:.3g}" if name in row else "–"

                lines.append([
                    layer, times, row["subjects"], row["all times"], row["unknown"], told("compile_s"),
                    told("gradient_s", 1e3), f"{1e6 * row['gradient_s'] / row['subjects']:.3g}", row["gradient_mb"],
                    told("fit_s"), told("start_s"), told("draw_s", 1e3), told("gradients"), row.get("fit_mb", "–"),
                    told("forecast_s"), row.get("forecast_mb", "–"),
                ])  # fmt: skip
    return table(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        type=int,
        action="append",
        choices=SUBJECTS,
        help="so many subjects; may be repeated",
    )
    parser.add_argument(
        "--layer", action="append", choices=LAYERS, help="one of the layers; may be repeated"
    )
    parser.add_argument(
        "--times", action="append", choices=TIMES, help="common or own; may be repeated"
    )
    parser.add_argument(
        "--table", action="store_true", help="write the table of what is held, and measure nothing"
    )
    parser.add_argument("--gradients", action="store_true", help="no fit and no forecast")
    asked = parser.parse_args()
    cases = [
        (s, t, y)
        for y in asked.layer or LAYERS
        for s in asked.only or SUBJECTS
        for t in asked.times or TIMES
    ]
    for case in [] if asked.table else list(lacking(held(ROWS), TASK, cases, code)):
        print(keep(ROWS, run(*case, drawn=not asked.gradients), code(*case)), flush=True)
    write_section(ROOT / "docs" / "measurements" / "benchmarks.md", "population", tables())
    print(tables())


if __name__ == "__main__":
    main()
