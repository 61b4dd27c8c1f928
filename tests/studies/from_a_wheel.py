"""What a user does with an installed wheel, in an empty folder, with a dated table: each command
must exit with 0.

Run: `uv run python -m tests.studies.from_a_wheel`. It builds the wheel and installs it into an
environment of its own, which borrows its dependencies from this one. It checks and runs a study
with `bd.corrected`, does many fits on two workers, and takes in three days, with a forecast after
each.
"""

import resource
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from . import ROOT

KNOWN, DAYS = 120, 3
STUDY = '''"""A river by a linear store."""

import numpyro.distributions as dist

import bayes_dasl as bd

SPLIT = "2020-04-09"


class Store(bd.Module):
    drain: bd.Scalar

    def __call__(self, t, y, u):
        return {"store": u["rain"] - self.drain * y["store"]}

    def flow(self, t, y, u):
        return {"flow": self.drain * y["store"]}


def load():
    names = {"Flow": "flow", "Rain": "rain"}
    return bd.from_table("river.csv", "Flow", time="Datum", forcings="Rain", date_format="%d.%m.%Y", names=names)


def science():
    start = {"store": dist.LogNormal(3.0, 0.3)}
    return bd.ODE(Store(bd.between(0.03, 0.4)), start, Store.flow, forcings="rain", rtol=1e-4, atol=1e-4)


def model(layer):
    return bd.Model(layer, bd.LogNormalNoise(dist.LogNormal(-2.0, 0.7)))


def study():
    train, _ = bd.split(load(), time=SPLIT)
    hybrid = model(bd.corrected(science(), train, "store"))
    engine = bd.NUTS(chains=2, warmup=100, draws=100, map_starts=4)
    return bd.Study("river", hybrid, load(), SPLIT, {"science": model(science())}, engine, "hybrid")


def tasks(quick):
    return [{"seed": seed} for seed in range(2 if quick else 4)]


def row(seed):
    train, test = bd.split(load(), time=SPLIT)
    engine = bd.NUTS(chains=2, warmup=60, draws=60, map_starts=2)
    return bd.many.measure(model(science()), train, {"ahead": test}, engine, key=seed)
'''
COMMAND = "from bayes_dasl.cli import app\n\nif __name__ == '__main__':\n    app()\n"


def write_tables(folder: Path) -> None:
    """A river whose store loses more the fuller it is: the table of a study, rows of three days,
    and rain ahead.
    """
    rng, number = np.random.default_rng(0), KNOWN + 10
    rain, store, flow = rng.gamma(0.5, 4.0, number), 20.0, []
    for fallen in rain:
        flow.append(0.1 * store + 0.002 * store**2)
        store += fallen - flow[-1]
    seen = np.round(np.asarray(flow) * np.exp(0.1 * rng.normal(size=number)), 3)
    days = pd.date_range("2020-01-01", periods=number)
    table = pd.DataFrame(
        {"Datum": days.strftime("%d.%m.%Y"), "Rain (mm)": rain.round(2), "Flow (mm)": seen}
    )
    table.iloc[:KNOWN].to_csv(folder / "river.csv", index=False)
    dated = table.assign(Datum=days.strftime("%Y-%m-%d"))
    for day in range(DAYS):
        dated.iloc[[KNOWN + day]].to_csv(folder / f"day{day}.csv", index=False)
        ahead = dated.iloc[KNOWN + day + 1 : KNOWN + day + 8]
        ahead[["Datum", "Rain (mm)"]].to_csv(folder / f"ahead{day}.csv", index=False)


def install(folder: Path) -> Path:
    """An environment with the wheel, and Python in it."""
    subprocess.run(
        ["uv", "build", "--wheel", "--quiet", "--out-dir", str(folder / "dist"), str(ROOT)],
        check=True,
    )
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True
    )
    packages = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with zipfile.ZipFile(next((folder / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(packages)
    return folder / "venv" / "bin" / "python"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, work = Path(name), Path(name) / "empty"
        work.mkdir()
        python = install(folder)
        write_tables(work)
        (work / "my_study.py").write_text(STUDY)
        (work / "command.py").write_text(COMMAND)
        daily: list[list[str]] = []
        for day in range(DAYS):
            daily.append(["update", "runs/river", f"day{day}.csv"])
            daily.append(["forecast", "runs/river", "--forcing", f"ahead{day}.csv"])
        many = ["study", "my_study.py", "--quick", "--workers", "2"]
        for command in (["run", "my_study.py"], many, *daily):
            before = _seconds()
            done = subprocess.run(
                [str(python), "command.py", *command], cwd=work, capture_output=True, text=True
            )
            print(
                f"exit code {done.returncode}, {_seconds() - before:.0f} CPU s: "
                f"{' '.join(command)}",
                flush=True,
            )
            if done.returncode:
                raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
