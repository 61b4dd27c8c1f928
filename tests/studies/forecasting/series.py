"""The series: data, the science that is tried on them, and whether that is right.

Of those that are simulated the truth is the science, or the science with what it lacks; whether a
science of real data counts as right was said before any forecast was looked at.
"""

import csv
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from case_studies import lynx_hare

from ..mixing.case import observed, real_file

type Field = Callable[..., Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Series:
    """One data set; the first `known` rows are fitted, the others forecast.

    `corrected` are the states whose rates may be off, and `noisy` the spread of the noise on
    states, per square root of time, of which a half-normal prior has that scale; both are per unit
    of state if `relative`.
    """

    data: xr.Dataset
    known: int
    layer: bd.ODE
    noise: Any
    corrected: tuple[str, ...]
    noisy: Mapping[str, float]
    relative: bool = False

    @property
    def train(self) -> xr.Dataset:
        return self.data.isel(time=slice(0, self.known))

    @property
    def test(self) -> xr.Dataset:
        return self.data.isel(time=slice(self.known, None))


class Predation(bd.Module):
    birth: bd.Scalar
    predation: bd.Scalar
    death: bd.Scalar
    growth: bd.Scalar

    def __call__(self, t, y, u):
        hare, lynx = y["hare"], y["lynx"]
        return {
            "hare": hare * (self.birth - self.predation * lynx),
            "lynx": lynx * (self.growth * hare - self.death),
        }


def _predation(seed: int, lacks: Field) -> Series:
    rng = np.random.default_rng([seed, 1])
    times = np.arange(0.0, 41.0)
    truth = lambda t, y, u: _plus(Predation(0.55, 0.027, 0.8, 0.025)(t, y, u), lacks(t, y, u))  # noqa: E731
    data = observed(bd.ODE(truth, {"hare": 30.0, "lynx": 6.0}), _at(times), _log_normal(0.12), rng)
    science = Predation(
        bd.between(0.2, 1.5), bd.between(0.005, 0.1), bd.between(0.2, 1.5), bd.between(0.005, 0.1)
    )
    return _of_animals(science, data, 26)


def _of_animals(science: Predation, data: xr.Dataset, known: int) -> Series:
    initial = {"hare": dist.LogNormal(np.log(30.0), 0.5), "lynx": dist.LogNormal(np.log(5.0), 0.5)}
    noise = {name: bd.LogNormalNoise(dist.LogNormal(-1.0, 1.0)) for name in initial}
    layer = bd.ODE(science, initial, rtol=1e-5, atol=1e-5)
    return Series(
        data, known, layer, noise, ("hare", "lynx"), dict.fromkeys(initial, 0.1), relative=True
    )


def predation(seed: int) -> Series:
    """Lotka–Volterra, as it is."""
    return _predation(seed, lambda t, y, u: {})


def predation_crowded(seed: int) -> Series:
    """The prey has a carrying capacity, of which the science knows nothing."""
    return _predation(seed, lambda t, y, u: {"hare": -0.55 * y["hare"] ** 2 / 150.0})


def predation_sated(seed: int) -> Series:
    """Predators that have eaten enough hunt no more."""
    eaten = lambda y: y["hare"] * y["lynx"] * y["hare"] / (y["hare"] + 80.0)  # noqa: E731
    return _predation(seed, lambda t, y, u: {"hare": 0.027 * eaten(y), "lynx": -0.025 * eaten(y)})


def lynx_and_hare(seed: int) -> Series:
    """Pelts of 1900 to 1920, the last eight years ahead; Lotka–Volterra."""
    science = Predation(
        bd.between(0.2, 1.5), bd.between(0.005, 0.1), bd.between(0.2, 1.5), bd.between(0.005, 0.1)
    )
    return _of_animals(science, lynx_hare.load(), 13)


class Pendulum(bd.Module):
    stiffness: bd.Scalar
    friction: bd.Scalar

    def __call__(self, t, y, u):
        return {
            "angle": y["speed"],
            "speed": -self.stiffness * jnp.sin(y["angle"]) - self.friction * y["speed"],
        }


def _pendulum(seed: int, lacks: Field) -> Series:
    rng = np.random.default_rng([seed, 2])
    times = np.linspace(0.0, 15.0, 61)
    truth = lambda t, y, u: _plus(Pendulum(2.0, 0.05)(t, y, u), lacks(t, y, u))  # noqa: E731
    data = observed(bd.ODE(truth, {"angle": 1.6, "speed": 0.0}), _at(times), _normal(0.05), rng)
    science = Pendulum(bd.between(1.0, 4.0), bd.between(0.01, 0.3))
    initial = {"angle": dist.Normal(1.5, 0.3), "speed": dist.Normal(0.0, 0.3)}
    layer = bd.ODE(science, initial, rtol=1e-5, atol=1e-5)
    noise = bd.NormalNoise(dist.LogNormal(np.log(0.05), 0.7))
    return Series(data, 36, layer, noise, ("speed",), {"speed": 0.1})


def pendulum(seed: int) -> Series:
    """A damped pendulum, as it is."""
    return _pendulum(seed, lambda t, y, u: {})


def pendulum_dragged(seed: int) -> Series:
    """Air resists by the square of the speed."""
    return _pendulum(seed, lambda t, y, u: {"speed": -0.25 * y["speed"] * jnp.abs(y["speed"])})


class Relaxation(bd.Module):
    """A nerve that fires again and again (FitzHugh and Nagumo)."""

    a: bd.Scalar
    b: bd.Scalar
    c: bd.Scalar

    def __call__(self, t, y, u):
        v, r = y["voltage"], y["recovery"]
        return {
            "voltage": self.c * (v - v**3 / 3 + r),
            "recovery": -(v - self.a + self.b * r) / self.c,
        }


def relaxation(seed: int) -> Series:
    """A nerve that fires again and again, as it is."""
    rng = np.random.default_rng([seed, 8])
    times = np.linspace(0.0, 20.0, 61)
    initial = {"voltage": -1.0, "recovery": 1.0}
    data = observed(bd.ODE(Relaxation(0.2, 0.2, 3.0), initial), _at(times), _normal(0.25), rng)
    unknown = {name: dist.Normal(value, 0.3) for name, value in initial.items()}
    science = Relaxation(bd.between(0.05, 0.8), bd.between(0.05, 0.8), bd.between(1.5, 5.0))
    layer = bd.ODE(science, unknown, rtol=1e-5, atol=1e-5)
    noise = bd.NormalNoise(dist.LogNormal(np.log(0.25), 0.7))
    return Series(data, 37, layer, noise, ("voltage", "recovery"), dict.fromkeys(initial, 0.1))


class Growth(bd.Module):
    rate: bd.Scalar
    room: bd.Scalar

    def __call__(self, t, y, u):
        return {"size": self.rate * y["size"] * (1 - y["size"] / self.room)}


def _growth(seed: int, shape: float) -> Series:
    rng = np.random.default_rng([seed, 3])
    times = np.linspace(0.0, 20.0, 41)
    fastest = 0.5 if shape == 1.0 else 1.0
    truth = lambda t, y, u: {"size": fastest * y["size"] * (1 - (y["size"] / 10.0) ** shape)}  # noqa: E731
    data = observed(bd.ODE(truth, {"size": 0.3}), _at(times), _log_normal(0.06), rng)
    science = Growth(bd.between(0.1, 1.5), bd.between(4.0, 40.0))
    layer = bd.ODE(science, {"size": dist.LogNormal(np.log(0.3), 0.5)}, rtol=1e-5, atol=1e-5)
    noise = bd.LogNormalNoise(dist.LogNormal(np.log(0.06), 0.7))
    return Series(data, 17, layer, noise, ("size",), {"size": 0.1}, relative=True)


def growth(seed: int) -> Series:
    """Logistic growth, as it is."""
    return _growth(seed, 1.0)


def growth_skewed(seed: int) -> Series:
    """Growth by Richards's law, of which the logistic one is a case; it slows down early."""
    return _growth(seed, 0.2)


class Epidemic(bd.Module):
    contact: bd.Scalar
    recovery: bd.Scalar

    def __call__(self, t, y, u):
        new = self.contact * y["healthy"] * y["ill"]
        return {"healthy": -new, "ill": new - self.recovery * y["ill"]}


def _epidemic(data: xr.Dataset, known: int, people: float, noise: Any) -> Series:
    science = Epidemic(bd.between(0.5, 4.0), bd.between(0.2, 1.0))
    initial = {"healthy": 1.0, "ill": dist.LogNormal(np.log(3.0 / people), 1.0)}
    layer = bd.ODE(
        science, initial, lambda t, y, u: {"ill": people * y["ill"]}, rtol=1e-6, atol=1e-8
    )
    return Series(data, known, layer, noise, ("ill",), {"ill": 0.1}, relative=True)


def _outbreak(seed: int, lacks: Field) -> Series:
    rng = np.random.default_rng([seed, 4])
    times = np.arange(0.0, 20.0)
    truth = lambda t, y, u: _plus(Epidemic(1.5, 0.5)(t, y, u), lacks(t, y, u))  # noqa: E731
    layer = bd.ODE(
        truth, {"healthy": 1.0, "ill": 0.003}, lambda t, y, u: {"ill": 1000.0 * y["ill"]}
    )
    counts = lambda rng, values: rng.poisson(values).astype(float)  # noqa: E731
    data = observed(layer, _at(times), counts, rng)
    return _epidemic(data, 10, 1000.0, bd.NegativeBinomialNoise(dist.LogNormal(np.log(50.0), 1.0)))


def outbreak(seed: int) -> Series:
    """An epidemic, as it is, when it has just passed its peak."""
    return _outbreak(seed, lambda t, y, u: {})


def outbreak_wary(seed: int) -> Series:
    """People keep apart while many are ill."""
    kept = lambda y: 1.5 * y["healthy"] * y["ill"] * (1 - 1 / (1 + 6.0 * y["ill"]))  # noqa: E731
    return _outbreak(seed, lambda t, y, u: {"healthy": kept(y), "ill": -kept(y)})


def influenza(seed: int) -> Series:
    """Boys in bed in a boarding school of 763, 1978, of fourteen days eight known; SIR."""
    rows = _rows("epidemiology/influenza_england_1978_school.csv")
    ill = np.asarray([float(row["in_bed"]) for row in rows])
    data = xr.Dataset({"ill": ("time", ill)}, {"time": np.arange(float(ill.size))})
    return _epidemic(data, 8, 763.0, bd.NegativeBinomialNoise(dist.LogNormal(np.log(20.0), 1.0)))


class Cooling(bd.Module):
    rate: bd.Scalar
    heating: bd.Scalar

    def __call__(self, t, y, u):
        return {"warmth": -self.rate * y["warmth"] + self.heating * u["power"]}


def _cooling(seed: int, lacks: Field) -> Series:
    rng = np.random.default_rng([seed, 5])
    times = np.linspace(0.0, 30.0, 61)
    power = ("time", 1.0 + np.sin(2 * np.pi * times / 6.0) + (times > 18.0))
    truth = lambda t, y, u: _plus(Cooling(0.4, 8.0)(t, y, u), lacks(t, y, u))  # noqa: E731
    template = _at(times).assign(power=power)
    data = observed(bd.ODE(truth, {"warmth": 5.0}, forcings="power"), template, _normal(0.5), rng)
    layer = bd.ODE(
        Cooling(bd.between(0.1, 1.5), bd.between(2.0, 20.0)), {"warmth": dist.Normal(5.0, 2.0)}, forcings="power",
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    noise = bd.NormalNoise(dist.LogNormal(np.log(0.5), 0.7))
    return Series(data, 36, layer, noise, ("warmth",), {"warmth": 0.5})


def cooling(seed: int) -> Series:
    """A heated body that loses what it has in proportion, as it is;
    twice as much power at the end.
    """
    return _cooling(seed, lambda t, y, u: {})


def cooling_radiant(seed: int) -> Series:
    """It also radiates, the more the warmer it is."""
    return _cooling(seed, lambda t, y, u: {"warmth": -0.0008 * jnp.maximum(y["warmth"], 0.0) ** 3})


class Decay(bd.Module):
    """One store that empties in proportion."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"level": -self.rate * y["level"]}


class TwoStores(bd.Module):
    """Two stores, of which the second one is slow."""

    out: bd.Scalar
    there: bd.Scalar
    back: bd.Scalar

    def __call__(self, t, y, u):
        moves = self.there * y["level"] - self.back * y["deep"]
        return {"level": -self.out * y["level"] - moves, "deep": moves}


def _stores(seed: int, right: bool) -> Series:
    rng = np.random.default_rng([seed, 6])
    times = np.linspace(0.25, 12.0, 32)
    truth = bd.ODE(TwoStores(0.4, 0.4, 0.25), {"level": 10.0, "deep": 0.0}, start=0.0)
    data = observed(truth, _at(times), _log_normal(0.06), rng).drop_vars("deep")
    science = (
        TwoStores(bd.between(0.1, 1.5), bd.between(0.1, 1.5), bd.between(0.05, 0.8)) if right
        else Decay(bd.between(0.1, 1.5))
    )  # fmt: skip
    initial = {"level": dist.LogNormal(np.log(10.0), 0.3)} | ({"deep": 0.0} if right else {})
    see = lambda t, y, u: {"level": y["level"]}  # noqa: E731
    layer = bd.ODE(science, initial, see, start=0.0, rtol=1e-5, atol=1e-5)
    noise = bd.LogNormalNoise(dist.LogNormal(np.log(0.06), 0.7))
    return Series(data, 18, layer, noise, ("level",), {"level": 0.1}, relative=True)


def stores(seed: int) -> Series:
    """Two stores, of which one is seen, as they are."""
    return _stores(seed, right=True)


def stores_one(seed: int) -> Series:
    """Two stores that are taken for one."""
    return _stores(seed, right=False)


class Chemostat(bd.Module):
    """Cells that grow on what flows in (Monod)."""

    fastest: bd.Scalar
    half: bd.Scalar
    dilution: float = 0.3

    def __call__(self, t, y, u):
        food = jnp.maximum(y["food"], 0.0)
        eaten = self.fastest * food / (self.half + food) * y["cells"]
        return {
            "food": self.dilution * (10.0 - food) - 2.0 * eaten,
            "cells": eaten - self.dilution * y["cells"],
        }


class Fed(bd.Module):
    """The same, fed more and less."""

    science: Chemostat

    def __call__(self, t, y, u):
        rates = self.science(t, y, u)
        return rates | {"food": rates["food"] + 3.0 * (u["feed"] - 1.0)}


def _chemostat(seed: int, lacks: Field) -> Series:
    rng = np.random.default_rng([seed, 7])
    times = np.linspace(0.5, 40.0, 60)
    feed = ("time", 1.0 + 0.8 * np.sin(2 * np.pi * times / 11.0))
    truth = lambda t, y, u: _plus(Fed(Chemostat(1.0, 1.5))(t, y, u), lacks(t, y, u))  # noqa: E731
    initial = {"food": 5.0, "cells": 0.5}
    template = _at(times).assign(feed=feed)
    data = observed(
        bd.ODE(truth, initial, forcings="feed", start=0.0), template, _log_normal(0.08), rng
    )
    unknown = {"food": dist.LogNormal(np.log(5.0), 0.3), "cells": dist.LogNormal(np.log(0.5), 0.3)}
    science = Fed(Chemostat(bd.between(0.3, 3.0), bd.between(0.3, 8.0)))
    layer = bd.ODE(science, unknown, forcings="feed", start=0.0, rtol=1e-5, atol=1e-5)
    noise = {name: bd.LogNormalNoise(dist.LogNormal(np.log(0.08), 0.7)) for name in unknown}
    return Series(
        data, 36, layer, noise, ("food", "cells"), {"food": 0.1, "cells": 0.1}, relative=True
    )


def chemostat(seed: int) -> Series:
    """Cells in a chemostat, as they are."""
    return _chemostat(seed, lambda t, y, u: {})


def chemostat_poisoned(seed: int) -> Series:
    """Much food inhibits growth (Haldane)."""

    def lost(y):
        food, cells = y["food"], y["cells"]
        return food / (1.5 + food) * cells - food / (1.5 + food + food**2 / 3.0) * cells

    return _chemostat(seed, lambda t, y, u: {"food": 2.0 * lost(y), "cells": -lost(y)})


class Absorption(bd.Module):
    absorption: bd.Scalar
    clearance: bd.Scalar

    def __call__(self, t, y, u):
        taken = self.absorption * y["gut"]
        return {"gut": -taken, "blood": taken - self.clearance * y["blood"]}


def theophylline(seed: int) -> Series:
    """Concentrations in the blood of subject 1 + seed, of ten the last four ahead;
    one compartment.
    """
    rows = [
        row
        for row in _rows("pk/theo_sd.csv")
        if int(row["ID"]) == 1 + seed and float(row["TIME"]) > 0
    ]
    values = np.asarray([float(row["DV"]) for row in rows])
    data = xr.Dataset({"blood": ("time", values)}, {"time": [float(row["TIME"]) for row in rows]})
    science = Absorption(bd.between(0.3, 5.0), bd.between(0.03, 0.3))
    initial = {"gut": dist.LogNormal(np.log(10.0), 0.4), "blood": 0.0}
    see = lambda t, y, u: {"blood": y["blood"]}  # noqa: E731
    layer = bd.ODE(science, initial, see, start=0.0, rtol=1e-5, atol=1e-6)
    noise = bd.NormalNoise(dist.LogNormal(np.log(0.4), 0.7))
    return Series(data, len(rows) - 4, layer, noise, ("blood",), {"blood": 0.3})


def soil(seed: int) -> Series:
    """Carbon dioxide from an incubated soil, the first 150 of 588 days known; two stores that do
    not exchange.
    """
    rows = _rows("soil/sidb_Haddix2011_timeSeries.csv")
    name = ("C_SasNG_25", "C_NDakNG_25", "C_ColoNG_25")[seed]
    values = np.asarray([float(row[name] or "nan") for row in rows])
    data = xr.Dataset({"given": ("time", values)}, {"time": [float(row["time"]) for row in rows]})
    data = data.isel(time=~np.isnan(values))
    initial = {"quick": dist.LogNormal(np.log(10.0), 1.0), "slow": dist.LogNormal(np.log(5.0), 1.0)}
    see = lambda t, y, u: {"given": y["quick"] + y["slow"]}  # noqa: E731
    science = TwoDecays(bd.between(0.005, 0.2), bd.between(0.00003, 0.005))
    layer = bd.ODE(science, initial, see, start=0.0, rtol=1e-5, atol=1e-6)
    noise = bd.LogNormalNoise(dist.LogNormal(np.log(0.1), 0.7))
    known = int((data["time"] <= 200.0).sum())
    return Series(data, known, layer, noise, ("slow",), {"slow": 0.02}, relative=True)


class TwoDecays(bd.Module):
    fast: bd.Scalar
    slow: bd.Scalar

    def __call__(self, t, y, u):
        return {"quick": -self.fast * y["quick"], "slow": -self.slow * y["slow"]}


class TwoLayers(bd.Module):
    """A warming world of a surface and a deep ocean, after a jump of the forcing."""

    surface: bd.Scalar
    deep_heat: bd.Scalar
    feedback: bd.Scalar
    exchange: bd.Scalar
    forcing: bd.Scalar

    def __call__(self, t, y, u):
        down = self.exchange * (y["warm"] - y["deep"])
        return {
            "warm": (self.forcing - self.feedback * y["warm"] - down) / self.surface,
            "deep": down / self.deep_heat,
        }


class OneLayer(bd.Module):
    """The same without a deep ocean."""

    surface: bd.Scalar
    feedback: bd.Scalar
    forcing: bd.Scalar

    def __call__(self, t, y, u):
        return {"warm": (self.forcing - self.feedback * y["warm"]) / self.surface}


_CLIMATES = ("CESM2", "GFDL-CM4", "MRI-ESM2-0")


def _warming(seed: int, science: Any, initial: dict[str, float]) -> Series:
    rows = _rows("climate/cmip6_tas_abrupt-4xCO2_14models.csv")
    values = np.asarray([float(row[_CLIMATES[seed]]) for row in rows])
    # Means of three years.
    values = values[: len(values) // 3 * 3].reshape(-1, 3).mean(1)
    data = xr.Dataset({"warm": ("time", values)}, {"time": 1.5 + 3.0 * np.arange(values.size)})
    see = lambda t, y, u: {"warm": y["warm"]}  # noqa: E731
    layer = bd.ODE(science, initial, see, start=0.0, rtol=1e-5, atol=1e-5)
    noise = bd.NormalNoise(dist.LogNormal(np.log(0.1), 0.7))
    return Series(data, 20, layer, noise, ("warm",), {"warm": 0.05})


def warming(seed: int) -> Series:
    """Surface air after an abrupt fourfold of carbon dioxide in a climate model, 60 of 150 years
    known; two layers.
    """
    science = TwoLayers(
        bd.between(4.0, 12.0),
        bd.between(40.0, 200.0),
        bd.between(0.5, 2.0),
        bd.between(0.3, 1.2),
        bd.between(5.0, 9.5),
    )
    return _warming(seed, science, {"warm": 0.0, "deep": 0.0})


def warming_shallow(seed: int) -> Series:
    """The same, with no deep ocean in the science."""
    return _warming(
        seed,
        OneLayer(bd.between(4.0, 60.0), bd.between(0.5, 2.0), bd.between(5.0, 9.5)),
        {"warm": 0.0},
    )


class Exponential(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"volume": self.rate * y["volume"]}


def tumour(seed: int) -> Series:
    """Volumes of a mouse's tumour, of which the last third lie ahead; exponential growth."""
    rows = [
        row
        for row in _rows("pk/chi_lxf_control_growth.csv")
        if row["Observable"] == "Tumour volume"
    ]
    seen = Counter(row["ID"] for row in rows)
    mice = sorted(seen, key=lambda mouse: (-seen[mouse], mouse))
    own = sorted(
        (float(row["Time"]), float(row["Value"])) for row in rows if row["ID"] == mice[seed]
    )
    data = xr.Dataset({"volume": ("time", [v for _, v in own])}, {"time": [t for t, _ in own]})
    first = own[0][1]
    layer = bd.ODE(
        Exponential(bd.between(0.02, 0.5)), {"volume": dist.LogNormal(np.log(first), 0.3)}
    )
    noise = bd.LogNormalNoise(dist.LogNormal(np.log(0.1), 0.7))
    known = len(own) - len(own) // 3
    return Series(data, known, layer, noise, ("volume",), {"volume": 0.1}, relative=True)


def rotifers(seed: int) -> Series:
    """Algae and rotifers in a chemostat, once a day; Lotka–Volterra, which knows no limits."""
    rows = np.loadtxt(real_file("ecology/CollocInfer_ChemoData.csv"), delimiter=",", comments="#")
    names = ("hare", "lynx")  # what is eaten, and what eats
    columns = {name: ("time", rows[:, i]) for i, name in enumerate(names)}
    data = xr.Dataset(columns, {"time": np.arange(float(len(rows)))}).isel(
        time=slice(20 * seed, 20 * seed + 45)
    )
    data = data.assign_coords(time=np.arange(45.0))
    start = {name: float(data[name].values[:3].mean()) for name in names}
    science = Predation(
        bd.between(0.1, 2.0), bd.between(0.02, 2.0), bd.between(0.1, 2.0), bd.between(0.003, 0.2)
    )
    initial = {name: dist.LogNormal(np.log(start[name]), 0.5) for name in names}
    noise = {name: bd.LogNormalNoise(dist.LogNormal(-1.0, 1.0)) for name in names}
    layer = bd.ODE(science, initial, rtol=1e-5, atol=1e-5)
    return Series(data, 28, layer, noise, names, dict.fromkeys(names, 0.1), relative=True)


def _at(times: np.ndarray) -> xr.Dataset:
    return xr.Dataset(coords={"time": times})


def _plus(rates: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value + more.get(name, 0.0) for name, value in rates.items()}


def _normal(scale: float):
    return lambda rng, values: values + scale * rng.normal(size=values.shape)


def _log_normal(scale: float):
    return lambda rng, values: values * np.exp(scale * rng.normal(size=values.shape))


def _rows(name: str) -> list[dict[str, str]]:
    with open(real_file(name), encoding="utf-8") as file:
        return list(csv.DictReader(file))


RIGHT = {
    f.__name__: f
    for f in (
        *(predation, pendulum, relaxation, growth, outbreak, cooling, stores, chemostat),
        *(theophylline, soil, warming, influenza),
    )
}
WRONG = {
    f.__name__: f
    for f in (
        *(
            predation_crowded,
            predation_sated,
            pendulum_dragged,
            growth_skewed,
            outbreak_wary,
            cooling_radiant,
        ),
        *(stores_one, chemostat_poisoned, lynx_and_hare, warming_shallow, tumour, rotifers),
    )
}
REAL = (
    "theophylline",
    "soil",
    "warming",
    "influenza",
    "lynx_and_hare",
    "warming_shallow",
    "tumour",
    "rotifers",
)
