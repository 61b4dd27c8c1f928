"""Runs inside Stan's own environment, which has pystan and NumPy and nothing of ours.

`python stan_worker.py JOB.json`, where the job names an action (`build`, `sample` or `density`),
the program, its data, a seed and the file for the answer. See `stan_engine.py`, which writes jobs
and reads answers.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import numpy as np
import stan

# httpstan gives Stan's compiler a second and pystan a build five minutes: both may take longer
# where others share the machine.
_run = subprocess.run
subprocess.run = lambda *arguments, timeout=None, **options: _run(*arguments, **options)
aiohttp.client.DEFAULT_TIMEOUT = aiohttp.ClientTimeout(total=None)


def build(job: dict) -> dict:
    """Translate and compile the program; the caller makes sure that no compiled one is there."""
    began = time.perf_counter()
    stan.build(job["code"], data=job["data"])
    return {"seconds": time.perf_counter() - began}


def sample(job: dict) -> dict:
    """Stan's defaults, 1000 + 1000 draws of 4 chains in processes of their own; the warm-up is kept
    to be counted.
    """
    model = stan.build(job["code"], data=job["data"], random_seed=job["seed"])
    began = time.perf_counter()
    fit = model.sample(num_chains=4, save_warmup=True, **job["options"])
    seconds = time.perf_counter() - began
    draws = {name: _by_chain(fit, name)[:, fit.num_warmup :] for name in job["names"]}
    leapfrogs, divergent = _by_chain(fit, "n_leapfrog__"), _by_chain(fit, "divergent__")
    np.savez(job["draws"], **draws)
    return {
        "seconds": seconds,
        "leapfrogs": int(leapfrogs[:, fit.num_warmup :].sum()),
        "warmup_leapfrogs": int(leapfrogs[:, : fit.num_warmup].sum()),
        "divergences": int(divergent[:, fit.num_warmup :].sum()),
        "memory_kb": max(
            resource.getrusage(w).ru_maxrss
            for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ),
    }


def _by_chain(fit, name: str) -> np.ndarray:
    """`(chain, draw, …)` from pystan's `(…, draw · chain)`, with one row for a scalar."""
    values = fit[name].reshape(*fit[name].shape[:-1], -1, fit.num_chains)
    scalar = name.endswith("__") or not fit.dims[fit.param_names.index(name)]
    return np.moveaxis(values[0] if scalar else values, (-1, -2), (0, 1))


def density(job: dict) -> dict:
    """Log density, with the Jacobian, at named points."""
    model = stan.build(job["code"], data=job["data"])
    values = [model.log_prob(model.unconstrain_pars(point)) for point in job["points"]]
    return {"values": values}


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    answer = {"build": build, "sample": sample, "density": density}[job["action"]](job)
    Path(job["answer"]).write_text(json.dumps(answer))
