"""How well science, true model, hybrid and their mixture forecast a system outside the training
data.
"""

import hashlib
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import xarray as xr

import bayes_dasl as bd

from ..mixing import case
from ..provenance import fingerprint, meaning
from . import systems
from .systems import SYSTEMS

ENGINE = bd.NUTS(draws=250)
PAST = bd.NUTS(draws=125, chains=2)
"""For forecasts within the training data, where no evidence weighs."""
RESULTS = Path(__file__).with_name("new_systems.jsonl")
MEMBERS = ("science", "truth", "hybrid", "mixture")


def factor(train: xr.Dataset, name: str, output: str) -> bd.Basis:
    """An unknown positive factor of one forcing, by the defaults of `HilbertGP`."""
    family = bd.bases.HilbertGP.over(train, name, 0.5)
    return bd.Basis(family, name, output, positive=True)


DEFAULTS = SimpleNamespace(corrected=bd.corrected, factor=factor)
"""What makes the hybrids: the defaults of the package."""


@cache
def code(name: str, science: str) -> str:
    """The fingerprint of the code that makes a row."""
    files = [Path(str(module.__file__)) for module in (systems, case)] + [Path(__file__)]
    said = "\n".join(meaning(file.read_text(encoding="utf-8")) for file in files)
    posed = SYSTEMS[name](0, science == "right", DEFAULTS)
    verbs = (
        bd.fit,
        bd.forecast,
        bd.score,
        bd.diagnose,
        bd.weighting.bayes_factors,
        bd.mixture,
        bd.corrected,
        ENGINE,
    )
    return f"{fingerprint(*verbs, posed.hybrid)}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"


def measured(
    name: str, science: str, seed: int, build: Any = DEFAULTS, engine: Any = ENGINE
) -> dict[str, Any]:
    """A row of the table."""
    began = time.process_time()
    posed = SYSTEMS[name](seed, science == "right", build)
    layers = {"science": posed.science, "truth": posed.truth, "hybrid": posed.hybrid}
    if science == "right":
        del layers["truth"]
    models = {member: bd.Model(layer, posed.noise) for member, layer in layers.items()}
    posts, forecasts, found = {}, {}, {}
    for member, model in models.items():
        at = time.process_time()
        posts[member] = bd.fit(model, posed.train, engine, key=seed, progress=False)
        forecasts[member] = bd.forecast(model, posts[member], posed.data, key=seed)
        found[member] = scores(forecasts[member], posed.test) | {
            "cpu_s": round(time.process_time() - at)
        }
    found.setdefault("truth", found["science"])
    pair = ("science", "hybrid")
    weights, weighed_by = weigh({m: models[m] for m in pair}, {m: posts[m] for m in pair})
    found["mixture"] = scores(bd.mixture({m: forecasts[m] for m in pair}, weights), posed.test)
    said = {
        "without_test": judged(posts["hybrid"], forecasts["hybrid"], None),
        "with_test": judged(posts["hybrid"], forecasts["hybrid"], posed.test),
    }
    row = {"system": name, "science": science, "seed": seed, "members": found, "verdict": said}
    weights = {member: round(float(weight), 3) for member, weight in weights.items()}
    return row | {
        "weights": weights,
        "weighed_by": weighed_by,
        "cpu_s": round(time.process_time() - began),
    }


def weigh(
    models: dict[str, bd.Model], posts: dict[str, xr.DataTree]
) -> tuple[dict[str, float], str]:
    """The weights of science and hybrid, and by what: evidence, past forecasts, or nothing."""
    found = bd.weighting.model_weights(models, posts, engine=PAST)
    return dict(found.weights), found.weighed_by


def scores(forecast: xr.DataTree, test: xr.Dataset) -> dict[str, Any]:
    """CRPS of each observable, coverage of 90 % intervals over all values, and their number."""
    each = bd.score(forecast, test).drop(index="all", errors="ignore")
    held = float((each["coverage_90"] * each["n"]).sum() / each["n"].sum())
    crps = {str(name): float(f"{value:.5g}") for name, value in each["crps"].items()}
    return {"crps": crps, "cover_90": round(held, 4), "n": int(each["n"].sum())}


def judged(post: xr.DataTree, forecast: xr.DataTree, test: xr.Dataset | None) -> dict[str, Any]:
    """The level of a verdict, and what it does not call good."""
    verdict = bd.diagnose(post, forecast, test)
    worse = [
        f"{finding.level} {finding.subject}"
        for finding in verdict.findings
        if finding.level != "good"
    ]
    return {"level": verdict.level, "findings": worse}
