"""Stan by pystan 3.10, in an environment of its own below `.benchmarks/stan`, which is made on
first use.

A program is compiled once for each problem, with nothing cached, and timed; the figure is kept
beside it and counts as the compilation of every fit of that problem: remove
`.benchmarks/stan/programs` to have it measured anew. httpstan keeps fits too: they are removed
before each fit.
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ... import ROOT
from .cases import Case

HERE = Path(__file__).resolve().parent
FOLDER = ROOT / ".benchmarks" / "stan"
PACKAGES = ("pystan==3.10.*", "numpy")


def environment() -> Path:
    """The interpreter of Stan's environment."""
    python = FOLDER / "environment" / "bin" / "python"
    done = FOLDER / "environment" / "done"
    if not done.exists():
        # The same Python as ours: pystan's wheels cover 3.10 to 3.13.
        subprocess.run(
            ["uv", "venv", "--clear", "--python", sys.executable, python.parents[1]], check=True
        )
        subprocess.run(["uv", "pip", "install", "--python", python, *PACKAGES], check=True)
        done.touch()
    return python


def build(case: Case) -> dict[str, float]:
    """Seconds, and those of the processor, that the C++ build of this program took, built now if it
    was not before.
    """
    kept = _cache(case) / "build.json"
    if not kept.exists():
        shutil.rmtree(_cache(case), ignore_errors=True)
        kept.parent.mkdir(parents=True)
        answer = _run(case, {"action": "build"})
        kept.write_text(json.dumps(answer))
    return json.loads(kept.read_text())


def sample(case: Case, key: int, options: dict) -> tuple[dict, dict]:
    """Draws `(chain, draw, …)` and figures of one fit; call `build` before."""
    for fits in _cache(case).glob("httpstan/**/fits"):
        shutil.rmtree(fits)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "draws.npz")
        job = {
            "action": "sample",
            "seed": key + 1,
            "names": case.compared,
            "draws": file,
            "options": options,
        }
        figures = _run(case, job)
        with np.load(file) as arrays:
            return dict(arrays), figures


def density(case: Case, points: list[dict]) -> list[float]:
    """Stan's log density, with the Jacobian, at points that name every parameter."""
    build(case)
    return _run(case, {"action": "density", "points": points})["values"]


def _cache(case: Case) -> Path:
    return FOLDER / "programs" / hashlib.sha256(case.stan_code.encode()).hexdigest()[:16]


def _run(case: Case, job: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
        job |= {"code": case.stan_code, "data": dict(case.stan_data), "answer": str(answer)}
        question.write_text(json.dumps(job))
        known = os.environ | {"XDG_CACHE_HOME": str(_cache(case))}
        command = [environment(), HERE / "stan_worker.py", question]
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        done = subprocess.run(command, capture_output=True, text=True, env=known)
        if done.returncode:
            raise RuntimeError(
                f"Stan failed on {case.name}: {done.stderr[-2000:]}{done.stdout[-500:]}"
            )
        # The worker's chains are processes, which count once they have ended.
        used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
        return json.loads(answer.read_text()) | {"processor": used}
