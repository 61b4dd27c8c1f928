"""What ahead of a series each way of forecasting it says, and how good that is."""

import hashlib
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.study.mixing import origins_of
from bayes_dasl.weighting.windows import sparing

from ..mixing import case
from ..provenance import fingerprint, meaning
from . import attainable, series
from .attainable import covers_itself
from .series import RIGHT, WRONG, Series

ENGINE = bd.NUTS(draws=500, map_starts=8)  # a science of few numbers has one mode, or two
MOST_STEPS = 30  # of the noise on states
ORIGINS = 4  # as in a study
SERIES = {**RIGHT, **WRONG}
OURS = "chosen"


@cache
def code(name: str, method: str) -> str:
    """The fingerprint of what makes the forecasts of a method, and of the files that say what the
    series are.
    """
    modules = [series, sys.modules[__name__], case, *([attainable] if method == OURS else [])]
    files = [Path(str(module.__file__)) for module in modules]
    said = "\n".join(meaning(file.read_text(encoding="utf-8")) for file in files)
    posed = SERIES[name](0)
    models, verbs = {}, [bd.forecast, bd.score, bd.fit]
    if method == OURS:
        models = members(posed)
        verbs += [
            ENGINE,
            origins_of,
            sparing,
            bd.weighting.model_weights,
            bd.weighting.leave_future_out,
            bd.mixture,
        ]
    return (
        f"{fingerprint(*verbs, *models.values())}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"
    )


def members(posed: Series) -> dict[str, bd.Model]:
    """The models that are mixed: the science, with a small correction, and with noise on its
    states.
    """
    options = {"relative": posed.relative}
    model = lambda layer: bd.Model(layer, posed.noise)  # noqa: E731
    times = posed.data["time"].values
    begin = float(times[0]) if posed.layer.start is None else float(posed.layer.start)  # pyright: ignore
    steps = min(round((times[-1] - begin) / float(np.median(np.diff(times)))), MOST_STEPS)
    noise = bd.layers.ProcessNoise(
        {name: dist.HalfNormal(scale) for name, scale in posed.noisy.items()},
        (begin, float(times[-1]), steps),
        relative=posed.relative,
    )
    noisy = eqx.tree_at(
        lambda layer: layer.process_noise, posed.layer, noise, is_leaf=lambda x: x is None
    )
    return {
        "science": model(posed.layer),
        "hybrid": model(bd.corrected(posed.layer, posed.train, *posed.corrected, **options)),
        "noisy": model(noisy),
    }


def chosen(posed: Series, seed: int) -> dict[str, Any]:
    """The members and their mixture by how much the data ask for what is added to the science."""
    models, forecasts, posts, found = members(posed), {}, {}, {}
    for name, model in models.items():
        began = time.perf_counter()
        posts[name] = bd.fit(model, posed.train, ENGINE, key=seed, progress=False)
        forecasts[name] = bd.forecast(model, posts[name], posed.data, key=seed)
        seconds = {"fit_s": round(time.perf_counter() - began)}
        found[name] = (
            scores(forecasts[name], posed.test)
            | seconds
            | {"verdict": bd.diagnose(posts[name]).level}
        )
    weighed, why = weigh(posed, models, posts, seed)
    mixed = bd.mixture(forecasts, weighed.weights)
    found["mixture"] = scores(mixed, posed.test) | {
        "cover_90_by_itself": covers_itself(mixed, posed.test)
    }
    weights = {name: round(weight, 3) for name, weight in weighed.weights.items()}
    if why:
        return {"members": found, "weights": weights, "by_forecasts": why}
    logs = {
        name: round(float(value), 2) for name, value in weighed.table["log_bayes_factor"].items()
    }
    return {"members": found, "weights": weights, "log_bayes_factors": logs}


def weigh(
    posed: Series, models: dict[str, bd.Model], posts: dict[str, Any], seed: int
) -> tuple[Any, str]:
    """What weighs the members, as in a run: evidence, or what each forecasts of the training data,
    and why that.
    """

    def past() -> dict[str, xr.DataTree]:
        origins = origins_of(models["science"], posed.train, posed.test, ORIGINS, None)
        ahead = {
            "origins": origins.at,
            "horizon": origins.horizon,
            "engine": sparing(ENGINE),
            "key": seed,
        }
        return {
            name: bd.weighting.leave_future_out(
                model, posed.train, post=posts[name], progress=False, **ahead
            )  # pyright: ignore
            for name, model in models.items()
        }

    found = bd.weighting.model_weights(models, posts, past=past)
    return found, "" if found.weighed_by == "evidence" else found.why or "the models are not nested"


def scores(forecast: xr.DataTree, test: xr.Dataset) -> dict[str, Any]:
    """CRPS of each observable, mean log score, and coverage over all that lies ahead."""
    table = bd.score(forecast, test)
    each = table.drop(index="all", errors="ignore")
    held = np.average(each["coverage_90"], weights=each["n"])
    crps = {str(name): float(f"{value:.5g}") for name, value in each["crps"].items()}
    return {
        "crps": crps,
        "log_score": round(float(each["log_score"].mean()), 4),
        "cover_90": round(float(held), 4),
    }


def alone(model: bd.Model, engine: Any, posed: Series, seed: int) -> dict[str, Any]:
    """One model with one engine."""
    began = time.perf_counter()
    post = bd.fit(model, posed.train, engine, key=seed, progress=False)
    found = scores(bd.forecast(model, post, posed.data, key=seed), posed.test)
    return {"members": {"it": found | {"fit_s": round(time.perf_counter() - began)}}}


def ensemble(posed: Series, seed: int) -> dict[str, Any]:
    """A plain deep ensemble of the hybrid: starts alone tell its members apart."""
    return alone(
        members(posed)["hybrid"],
        bd.DeepEnsemble(members=10, anchored=False, bootstrap=False),
        posed,
        seed,
    )


def diffhybrid(posed: Series, seed: int) -> dict[str, Any]:
    """DiffHybrid-UQ: a network that says how uncertain its output is, and SWAG around a few
    members.
    """
    layer = bd.corrected(posed.layer, posed.train, *posed.corrected, relative=posed.relative)
    closure: Any = layer.vector_field.closure  # pyright: ignore
    head = bd.Network.mlp(closure.inputs, ("log_scale",), 0.5, width=4, depth=1)
    units = dict(zip(closure.outputs, closure.units, strict=True))
    scales = {
        name: bd.noise.VaryingScale(dist.HalfNormal(0.05 * unit), head)
        for name, unit in units.items()
    }
    at = eqx.tree_at(
        lambda ode: ode.vector_field.closure, layer, bd.filtering.VarianceHead(closure, scales)
    )
    engine = bd.engines.SWAG(members=3, descent=bd.Descent(steps=500, patience=None))
    return alone(bd.Model(bd.filtering.Unscented(at), posed.noise), engine, posed, seed)


def process(posed: Series, seed: int) -> dict[str, Any]:
    """A Gaussian process over time for each observable, without science; of logarithms where noise
    is relative.
    """
    times = posed.data["time"].values
    begin, end = float(times[0]), float(times[-1])
    names = (
        list(posed.noise)
        if isinstance(posed.noise, dict)
        else [str(n) for n in posed.layer.outputs]
    )
    parts = {}
    for name in names:
        seen = posed.train[name].values
        known = np.log(np.maximum(seen, 1e-3 * np.nanmax(seen))) if posed.relative else seen
        spread = float(np.nanstd(known)) or 1.0
        lengths = bd.between(2 * float(np.median(np.diff(times))), (end - begin) / 2)
        family = bd.bases.HilbertGP(
            begin, end, 30, length=lengths, amplitude=dist.HalfNormal(2 * spread)
        )
        parts[name] = bd.Basis(
            family, "t", name, level=dist.Normal(float(np.nanmean(known)), spread)
        )
    layer = bd.Algebraic(_Processes(parts, posed.relative))
    return alone(bd.Model(layer, posed.noise), ENGINE, posed, seed)


class _Processes(bd.Module):
    parts: dict
    logarithms: bool = eqx.field(static=True)

    def __call__(self, t, y, u):
        found = {name: part(t, y, u)[name] for name, part in self.parts.items()}
        return {name: jnp.exp(value) for name, value in found.items()} if self.logarithms else found


def neural_ode(posed: Series, seed: int) -> dict[str, Any]:
    """A network for all rates, by an anchored and bootstrapped ensemble."""
    states = {name: value for name, value in posed.layer.initial.items()}
    hybrid = bd.corrected(
        posed.layer, posed.train, *posed.corrected, inputs=tuple(states), relative=posed.relative
    )
    closure: Any = hybrid.vector_field.closure  # pyright: ignore
    unit = float(np.median(closure.units))
    inputs = dict(closure.inputs) | {
        name: _of_forcing(posed, name) for name in posed.layer.forcings
    }
    network = bd.Network.mlp(inputs, dict.fromkeys(states, unit), 1.0, width=8, depth=1)
    field = _Rates(network, posed.relative)
    layer = eqx.tree_at(lambda ode: ode.vector_field, posed.layer, field)
    return alone(bd.Model(layer, posed.noise), bd.DeepEnsemble(members=10), posed, seed)


def _of_forcing(posed: Series, name: str) -> tuple[float, float]:
    return bd.standardise(posed.train, name)[name]


class _Rates(bd.Module):
    network: bd.Network
    relative: bool = eqx.field(static=True)

    def __call__(self, t, y, u):
        found = self.network(t, y, u)
        return {name: value * y[name] if self.relative else value for name, value in found.items()}


METHODS = {
    OURS: chosen,
    "ensemble": ensemble,
    "diffhybrid": diffhybrid,
    "process": process,
    "neural_ode": neural_ode,
}


def measured(name: str, seed: int, method: str) -> dict[str, Any]:
    """A row of the table."""
    began = time.perf_counter()
    row = {"series": name, "seed": seed, "method": method} | METHODS[method](
        SERIES[name](seed), seed
    )
    return row | {"seconds": round(time.perf_counter() - began)}
