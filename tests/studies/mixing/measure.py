"""One fit of a problem by the default engine, and what is said of it."""

import hashlib
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats

import bayes_dasl as bd
from case_studies import lynx_hare

from ..provenance import fingerprint, meaning
from ..uncertainty import problems
from . import case
from .case import Case
from .problems import PROBLEMS

RHAT, ESS = 1.01, 400
LEVELS = (90, 95)
QUICK = bd.NUTS(chains=2, warmup=50, draws=50)
_SIMULATED = 3
"""A data set that needs no file."""


@cache
def code(name: str) -> str:
    """The fingerprint of what makes a posterior of a problem, and of the files that say what the
    problem is.
    """
    files = (sys.modules[PROBLEMS[name].__module__], case, problems, lynx_hare)
    said = "\n".join(
        meaning(Path(str(file.__file__)).read_text(encoding="utf-8")) for file in files
    )
    ours = fingerprint(bd.fit, bd.evaluate, bd.NUTS(), PROBLEMS[name](_SIMULATED).model)
    return f"{ours}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"


def fit(name: str, seed: int, engine: bd.NUTS) -> dict[str, Any]:
    """How long a fit took, how well its functions and science mixed, and where its bands hold the
    truth.
    """
    posed = PROBLEMS[name](seed)
    began = time.perf_counter()
    post = bd.fit(posed.model, posed.data, engine, key=seed, progress=False)
    seconds = time.perf_counter() - began
    probes = posed.drawn(post)
    diagnosis = bd.diagnose(post)
    return {
        "problem": name,
        "seed": seed,
        "real": posed.truth is None,
        "seconds": round(seconds),
        **cost(post),
        **mixed(probes),
        **covered(posed, probes),
        "verdict": diagnosis.level,
        "findings": [
            f"{f.level}, {f.subject}: {f.message}" for f in diagnosis.findings if f.level != "good"
        ],
    }


def cost(post: xr.DataTree) -> dict[str, Any]:
    """Seconds and gradients of the parts of a run, gradients of a draw, and divergences."""
    stats, attrs = post["sample_stats"], post.attrs
    steps = stats["n_steps"].values
    return {
        "parts_s": {
            part: round(float(attrs[f"{part}_time_s"])) for part in ("start", "warmup", "draws")
        },
        "gradients": int(attrs["start_steps"] + attrs["warmup_steps"] + steps.sum()),
        "warmup": int(attrs["warmup_draws"]),
        "leapfrogs": round(float(steps.mean()), 1),
        "divergences": int(stats["diverging"].values.sum()),
        "sampled_in": str(attrs.get("sampled_in", "")),
    }


def mixed(probes: dict[str, np.ndarray]) -> dict[str, Any]:
    """R-hat and bulk ESS over all probes; a probe that never moves is not good."""
    values = np.concatenate([v.reshape(*v.shape[:2], -1) for v in probes.values()], axis=-1)
    moves = np.ptp(values, axis=1).min(axis=0) > 0
    where = {"chain_axis": 0, "draw_axis": 1}
    with np.errstate(all="ignore"):
        rhat = np.where(moves, array_stats.rhat(values, **where), np.inf)
        ess = np.where(moves, array_stats.ess(values, method="bulk", **where), 0.0)
    names = [name for name, v in probes.items() for _ in range(int(np.prod(v.shape[2:])))]
    return {
        "good": round(float(np.mean((rhat < RHAT) & (ess >= ESS))), 4),
        "rhat": round(float(min(np.nan_to_num(rhat, nan=np.inf).max(), 1e9)), 4),
        "ess": [round(float(np.nan_to_num(ess).min())), round(float(np.nanmedian(ess)))],
        "worst": names[int(np.argmin(np.nan_to_num(ess)))],
    }


def covered(posed: Case, probes: dict[str, np.ndarray]) -> dict[str, float]:
    """The share of true values of unknown functions in central intervals,
    near the data and beyond.
    """
    true, found = posed.true(), {}
    for where in ("near", "beyond") if true else ():
        names = [name for name in true if name.endswith(where)]
        draws = np.concatenate(
            [probes[name].reshape(-1, true[name].size) for name in names], axis=1
        )
        truth = np.concatenate([true[name] for name in names])
        for level in LEVELS:
            low, high = np.quantile(draws, [0.5 - level / 200, 0.5 + level / 200], axis=0)
            found[f"{where}_{level}"] = round(float(np.mean((low <= truth) & (truth <= high))), 4)
    return found
