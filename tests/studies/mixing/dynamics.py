"""States whose rates hold something unknown: predators and prey, an oscillator, a noisy path, a
reservoir.
"""

import jax
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from case_studies import lynx_hare as pelts

from ..uncertainty import problems
from .case import (
    Case,
    Unknown,
    along,
    around,
    drawn_function,
    log_normal,
    normal,
    observed,
    predicted,
    sampled,
    simulated,
)


class Saturated(bd.Module):
    """Predators that cannot eat more than so much: what Lotka and Volterra leave out."""

    def __call__(self, t, y, u):
        hare, lynx = y["hare"], y["lynx"]
        met = hare * lynx / (1 + hare / 300.0)
        return {"hare": 0.55 * hare - 0.033 * met, "lynx": 0.03 * met - 0.8 * lynx}


def lynx_hare(seed: int) -> Case:
    """The hybrid of the case study; seed 0: the pelts of 1900–1912. A probe is a rate of the vector
    field.
    """
    study = pelts.study()
    data, truth = study.train, None
    if seed:
        truth = bd.ODE(Saturated(), {"hare": 30.0, "lynx": 5.0})
        template = study.train.drop_vars(["hare", "lynx"])
        data = observed(truth, template, log_normal(0.15), np.random.default_rng([seed, 8]))
        for name in ("hare", "lynx"):
            data[name].attrs["units"] = pelts.PELTS
    cloud = study.train if truth is None else predicted(truth, template)
    places = around({name: np.asarray(cloud[name]) for name in ("hare", "lynx")})
    rates = Unknown(lambda layer: layer.vector_field, ("hare", "lynx"), *places)
    return Case("lynx_hare", seed, study.model, data, {"rates": rates}, _pelts, truth)


def _pelts(layer) -> dict:
    science = layer.vector_field.science
    return {name: getattr(science, name) for name in ("birth", "predation", "death", "growth")}


def _shown(problem: problems.Problem, seed: int, name: str, numbers: tuple[str, ...]) -> Case:
    """A problem of the studies of uncertainty: its probes are rates of the states that a network
    corrects.
    """
    start = {state: float(values.values[0]) for state, values in problem.data.items()}
    places = around({str(name): values.values for name, values in problem.data.items()})
    rates = Unknown(lambda layer: layer.vector_field, problem.corrected, *places)

    def science(layer):
        return {number: getattr(layer.vector_field.science, number) for number in numbers}

    truth = bd.ODE(problem.truth, start)
    return Case(name, seed, problem.model, problem.data, {"rates": rates}, science, truth)


def lotka_volterra(seed: int) -> Case:
    """How predators and prey meet is unknown: a network of 114 weights."""
    return _shown(problems.lotka_volterra(seed), seed, "lotka_volterra", ("birth", "death"))


def oscillator(seed: int) -> Case:
    """The friction is unknown: a network of 105 weights."""
    return _shown(problems.oscillator(seed), seed, "oscillator", ("stiffness",))


class Drift(bd.Module):
    """A pull to the middle, and an unknown drift beside it."""

    rate: bd.Scalar
    extra: bd.Basis

    def __call__(self, t, y, u):
        return {"x": -self.rate * y["x"] + self.extra(t, y, u)["drift"]}


def kalman(seed: int) -> Case:
    """A noisy path, seen 120 times with an error of 0.05, whose drift is unknown; it is integrated
    out by a filter.
    """
    rng = np.random.default_rng([seed, 9])
    rate, noise = bd.between(0.3, 1.0), dist.LogNormal(np.log(0.6), 0.2)
    extra = bd.Basis(
        bd.bases.HilbertGP(-3.5, 3.5, 10, amplitude=dist.HalfNormal(0.7)), "x", "drift"
    )
    truth = bd.filtering.Kalman(
        Drift(sampled(rate, rng), drawn_function(extra, rng)),
        {"x": sampled(noise, rng)},
        {"x": 0.0},
        {},
    )
    times, path = _path(truth, rng)
    seen = path + 0.05 * rng.normal(size=path.size)
    data = xr.Dataset({"x": ("time", seen)}, {"time": times})
    layer = bd.filtering.Kalman(
        Drift(rate, extra), {"x": noise}, {"x": 0.0}, {}, start=0.0, rtol=1e-3, atol=1e-4
    )
    unknown = {"drift": Unknown(lambda layer: layer.drift.extra, ("drift",), *along("x", path))}
    return Case(
        "kalman", seed, bd.Model(layer, bd.NormalNoise(0.05)), data, unknown, _of_path, truth
    )


def _path(
    truth: bd.filtering.Kalman,
    rng: np.random.Generator,
    number: int = 120,
    step: float = 0.15,
    parts: int = 20,
):
    """A path by Euler and Maruyama's method, at times a step apart."""
    increments = rng.normal(size=(number, parts)) * truth.diffusion["x"] * np.sqrt(step / parts)

    def onward(x, kick):
        x = x + truth.drift(0.0, {"x": x}, {})["x"] * step / parts + kick
        return x, x

    path = jax.lax.scan(onward, 0.0, increments.ravel())[1]
    return step * np.arange(1, number + 1), np.asarray(path)[parts - 1 :: parts]


def _of_path(layer) -> dict:
    return {"rate": layer.drift.rate, "noise": layer.diffusion["x"]}


class Reservoir(bd.Module):
    """A store with an unknown inflow over time and an unknown outflow by its level."""

    rate: bd.Scalar
    inflow: bd.Basis
    outflow: bd.Basis

    def leaves(self, t, y, u):
        return self.rate * y["level"] + self.outflow(t, y, u)["extra"]

    def __call__(self, t, y, u):
        return {"level": self.inflow(t, y, u)["inflow"] - self.leaves(t, y, u)}

    def seen(self, t, y, u):
        return {"level": y["level"], "flow": self.leaves(t, y, u)}


def reservoir(rate, start, inflow, outflow) -> bd.ODE:
    return bd.ODE(
        Reservoir(rate, inflow, outflow),
        {"level": start},
        Reservoir.seen,
        start=0.0,
        rtol=1e-5,
        atol=1e-5,
    )


def two_functions(seed: int) -> Case:
    """Two unknown functions, each with a length and an amplitude: level and outflow of a store at
    40 times.
    """
    rng = np.random.default_rng([seed, 10])
    priors = {"rate": bd.between(0.3, 0.8), "start": bd.between(3.0, 6.0)}
    bases = {
        "inflow": bd.Basis(
            bd.bases.HilbertGP(0.0, 22.5, 16, amplitude=dist.HalfNormal(0.7)),
            "t",
            "inflow",
            level=2.0,
        ),
        "outflow": bd.Basis(
            bd.bases.HilbertGP(-2.0, 10.0, 10, amplitude=dist.HalfNormal(0.4)), "level", "extra"
        ),
    }
    times = np.linspace(0.5, 20.0, 40)
    template, scale = xr.Dataset(coords={"time": times}), dist.LogNormal(np.log(0.08), 0.3)
    data, truth = simulated(reservoir, priors, bases, template, normal(sampled(scale, rng)), rng)
    model = bd.Model(reservoir(**priors, **bases), bd.NormalNoise(scale))
    levels = predicted(truth, template)["level"]
    unknown = {
        "inflow": Unknown(lambda layer: layer.vector_field.inflow, ("inflow",), *along("t", times)),
        "outflow": Unknown(
            lambda layer: layer.vector_field.outflow, ("extra",), *along("level", levels)
        ),
    }
    return Case("two_functions", seed, model, data, unknown, _store, truth)


def _store(layer) -> dict:
    return {"rate": layer.vector_field.rate}
