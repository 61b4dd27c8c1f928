"""The seven systems: data, the science that is tried on them, and the term that it lacks where it
is wrong.

The truth is the science itself, or the science with one more term. The test rows lie outside the
training data: at later times, most of them at states or inputs that were not seen.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.layers import AbstractLayer

from ..mixing.case import log_normal, normal, observed

type Field = Callable[..., Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class System:
    """One data set, and the three layers that are fitted to it.

    The first `known` rows are fitted. `truth` is the science with the missing term known (the
    science itself where that is right); its other numbers have the priors of the science.
    """

    data: xr.Dataset
    known: int
    science: AbstractLayer
    truth: AbstractLayer
    hybrid: AbstractLayer
    noise: Any

    @property
    def train(self) -> xr.Dataset:
        return self.data.isel({_index(self.data): slice(0, self.known)})

    @property
    def test(self) -> xr.Dataset:
        return self.data.isel({_index(self.data): slice(self.known, None)})


class Plus(bd.Module):
    """A vector field and a term that is added to it."""

    science: Any
    term: Field = eqx.field(static=True)

    def __call__(self, t, y, u):
        added = self.term(t, y, u)
        return {name: rate + added.get(name, 0.0) for name, rate in self.science(t, y, u).items()}


class Gompertz(bd.Module):
    rate: bd.Scalar
    capacity: bd.Scalar

    def __call__(self, t, y, u):
        volume = y["volume"]
        return {"volume": self.rate * volume * jnp.log(self.capacity / volume)}


def gompertz(seed: int, right: bool, build: Any) -> System:
    """A tumour that grows by Gompertz's law; immune cells kill a part that is large while it is
    small.
    """
    return _trajectory(
        seed, 1, right, build, Gompertz(0.15, 10.0), Gompertz(bd.between(0.03, 0.6), bd.between(3.0, 40.0)),
        lambda t, y, u: {"volume": -0.15 * y["volume"] / (1 + y["volume"])},
        _at(np.linspace(0.0, 30.0, 41)), 21, {"volume": 0.2}, {"volume": dist.LogNormal(np.log(0.2), 0.5)},
        log_normal(0.06), bd.LogNormalNoise(dist.LogNormal(np.log(0.06), 0.7)), relative=True,
    )  # fmt: skip


class Monod(bd.Module):
    fastest: bd.Scalar
    half: bd.Scalar

    def __call__(self, t, y, u):
        food = jnp.maximum(y["food"], 0.0)
        grown = self.fastest * food / (self.half + food) * y["cells"]
        return {"food": -2.0 * grown, "cells": grown}


def _inhibited(t, y, u):
    """The difference that Haldane's inhibition makes to growth by Monod's law."""
    food = jnp.maximum(y["food"], 0.0)
    less = (
        0.8 * food / (1.5 + food) * y["cells"]
        - 0.8 * food / (1.5 + food + food**2 / 4.0) * y["cells"]
    )
    return {"food": 2.0 * less, "cells": -less}


def haldane(seed: int, right: bool, build: Any) -> System:
    """A batch of cells that much food inhibits (Haldane); the science has Monod's law."""
    return _trajectory(
        seed, 2, right, build, Monod(0.8, 1.5), Monod(bd.between(0.2, 2.0), bd.between(0.3, 6.0)), _inhibited,
        _at(np.linspace(0.0, 8.0 if right else 16.0, 41)), 24, {"food": 10.0, "cells": 0.2},
        {"food": dist.LogNormal(np.log(10.0), 0.1), "cells": dist.LogNormal(np.log(0.2), 0.5)},
        normal(0.1), bd.NormalNoise(dist.LogNormal(np.log(0.1), 0.7)), relative=True,
    )  # fmt: skip


class Tanks(bd.Module):
    """Water runs out of one tank into another, and out of that, by Torricelli's law."""

    upper_hole: bd.Scalar
    lower_hole: bd.Scalar

    def __call__(self, t, y, u):
        upper = self.upper_hole * jnp.sqrt(jnp.maximum(y["upper"], 1e-3))
        lower = self.lower_hole * jnp.sqrt(jnp.maximum(y["lower"], 1e-3))
        return {"upper": u["inflow"] - upper, "lower": upper - lower}


def two_tanks(seed: int, right: bool, build: Any) -> System:
    """Two tanks; water seeps from the upper one, the more the higher it stands, and more flows in
    ahead.
    """
    times = np.linspace(0.0, 40.0, 61)
    inflow = 1.0 + 0.5 * np.sin(2 * np.pi * times / 12.0) + 0.5 * (times > 24.0)
    return _trajectory(
        seed, 3, right, build, Tanks(0.7, 0.8), Tanks(bd.between(0.2, 2.5), bd.between(0.2, 2.5)),
        lambda t, y, u: {"upper": -0.08 * y["upper"] ** 2}, _at(times).assign(inflow=("time", inflow)), 36,
        {"upper": 2.0, "lower": 1.5}, {"upper": dist.Normal(2.0, 0.3), "lower": dist.Normal(1.5, 0.3)},
        normal(0.05), bd.NormalNoise(dist.LogNormal(np.log(0.05), 0.7)), forcings="inflow",
    )  # fmt: skip


class Logistic(bd.Module):
    rate: bd.Scalar
    room: bd.Scalar

    def __call__(self, t, y, u):
        return {"number": self.rate * y["number"] * (1 - y["number"] / self.room)}


def allee(seed: int, right: bool, build: Any) -> System:
    """Animals that hardly find a mate while they are few (Allee);
    the science is logistic growth.
    """
    without = lambda n: 0.8 * n * (1 - n / 10.0)  # noqa: E731
    return _trajectory(
        seed, 4, right, build, Logistic(0.8, 10.0), Logistic(bd.between(0.1, 2.0), bd.between(4.0, 40.0)),
        lambda t, y, u: {"number": -without(y["number"]) * 2.0 / (2.0 + y["number"])},
        _at(np.linspace(0.0, 12.0 if right else 20.0, 41)), 18 if right else 24, {"number": 0.4},
        {"number": dist.LogNormal(np.log(0.4), 0.5)},
        log_normal(0.06), bd.LogNormalNoise(dist.LogNormal(np.log(0.06), 0.7)), relative=True,
    )  # fmt: skip


class Exchanger(bd.Module):
    """Hot water that flows past cold water: one temperature for each side, in degrees above the
    room's.
    """

    exchange: bd.Scalar
    hot_flow: bd.Scalar
    cold_flow: float = 0.6

    def __call__(self, t, y, u):
        passed = self.exchange * (y["hot"] - y["cold"])
        return {
            "hot": self.hot_flow * (u["inlet"] - y["hot"]) - passed,
            "cold": -self.cold_flow * y["cold"] + passed,
        }


def heat_exchanger(seed: int, right: bool, build: Any) -> System:
    """A heat exchanger whose hot side also radiates to the room; the inlet is hotter ahead."""
    times = np.linspace(0.0, 30.0, 61)
    inlet = 40.0 + 10.0 * np.sin(2 * np.pi * times / 8.0) + 15.0 * (times > 18.0)
    return _trajectory(
        seed, 5, right, build, Exchanger(0.4, 0.8), Exchanger(bd.between(0.1, 1.5), bd.between(0.2, 3.0)),
        lambda t, y, u: {"hot": -0.0003 * jnp.maximum(y["hot"], 0.0) ** 3},
        _at(times).assign(inlet=("time", inlet)), 36, {"hot": 25.0, "cold": 8.0},
        {"hot": dist.Normal(25.0, 3.0), "cold": dist.Normal(8.0, 3.0)},
        normal(0.5), bd.NormalNoise(dist.LogNormal(np.log(0.5), 0.7)), forcings="inlet",
    )  # fmt: skip


class Spring(bd.Module):
    stiffness: bd.Scalar
    friction: bd.Scalar

    def __call__(self, t, y, u):
        return {
            "place": y["speed"],
            "speed": -self.stiffness * y["place"] - self.friction * y["speed"],
        }


def spring(seed: int, right: bool, build: Any) -> System:
    """A damped spring that is stiffer the further it is pulled (Duffing); the science is Hooke's
    law.
    """
    return _trajectory(
        seed, 6, right, build, Spring(1.0, 0.06), Spring(bd.between(0.3, 4.0), bd.between(0.01, 0.4)),
        lambda t, y, u: {"speed": -0.4 * y["place"] ** 3}, _at(np.linspace(0.0, 20.0, 81)), 48,
        {"place": 1.5, "speed": 0.0}, {"place": dist.Normal(1.5, 0.2), "speed": dist.Normal(0.0, 0.2)},
        normal(0.05), bd.NormalNoise(dist.LogNormal(np.log(0.05), 0.7)), corrected=("speed",),
    )  # fmt: skip


class Steady(bd.Module):
    """Food and cells of a chemostat at rest, in which an inhibitor slows down growth by an unknown
    factor.
    """

    fastest: bd.Scalar
    half: bd.Scalar
    factor: Any
    fed: float = 10.0

    def __call__(self, t, y, u):
        fastest = self.fastest * self.factor(t, y, u)["factor"]
        # Cells that grow more slowly than they are washed out leave the food as it is fed.
        spare = jnp.maximum(fastest - u["dilution"], self.half * u["dilution"] / self.fed)
        food = self.half * u["dilution"] / spare
        return {"food": food, "cells": 0.5 * (self.fed - food)}


class Inhibition(bd.Module):
    """1 where it is not there."""

    strength: float

    def __call__(self, t, y, u):
        return {"factor": 1 / (1 + (self.strength * u["inhibitor"]) ** 1.5)}


def chemostat(seed: int, right: bool, build: Any) -> System:
    """Chemostats at rest with ever more of an inhibitor, whose effect is unknown; the science has
    none.
    """
    rng = np.random.default_rng([seed, 7])
    number, known = 50, 32
    inhibitor = np.linspace(0.0, 5.0, number)
    dilution = rng.uniform(0.1, 0.3, number)
    template = xr.Dataset(
        {"inhibitor": ("experiment", inhibitor), "dilution": ("experiment", dilution)},
        {"experiment": np.arange(float(number))},
    )
    options = {"forcings": ("inhibitor", "dilution"), "index": "experiment"}
    known_factor, one = Inhibition(0.0 if right else 0.25), Inhibition(0.0)
    layer = lambda fastest, half, factor: bd.Algebraic(Steady(fastest, half, factor), **options)  # noqa: E731
    data = observed(layer(1.0, 0.8, known_factor), template, log_normal(0.08), rng)
    unknown = lambda factor: layer(bd.between(0.3, 3.0), bd.between(0.1, 4.0), factor)  # noqa: E731
    noise = {
        name: bd.LogNormalNoise(dist.LogNormal(np.log(0.08), 0.7)) for name in ("food", "cells")
    }
    hybrid = unknown(build.factor(data.isel(experiment=slice(0, known)), "inhibitor", "factor"))
    return System(data, known, unknown(one), unknown(known_factor), hybrid, noise)


def _trajectory(
    seed: int,
    number: int,
    right: bool,
    build: Any,
    truth: Any,
    science: Any,
    lacks: Field,
    template: xr.Dataset,
    known: int,
    start: Mapping[str, float],
    initial: Mapping[str, Any],
    noise: Any,
    noise_model: Any,
    *,
    forcings: Any = (),
    relative: bool = False,
    corrected: tuple[str, ...] = (),
) -> System:
    """A system that is followed over time; all of its rates are corrected unless some are named."""
    rng = np.random.default_rng([seed, number])
    term = (lambda t, y, u: {}) if right else lacks
    ode = lambda field, begin: bd.ODE(field, begin, forcings=forcings, rtol=1e-5, atol=1e-5)  # noqa: E731
    data = observed(ode(Plus(truth, term), dict(start)), template, noise, rng)
    layer = ode(science, dict(initial))
    hybrid = build.corrected(
        layer, data.isel(time=slice(0, known)), *(corrected or start), relative=relative
    )
    return System(data, known, layer, ode(Plus(science, term), dict(initial)), hybrid, noise_model)


def _at(times: np.ndarray) -> xr.Dataset:
    return xr.Dataset(coords={"time": times})


def _index(data: xr.Dataset) -> str:
    return str(next(iter(data.dims)))


SYSTEMS = {
    f.__name__: f for f in (gompertz, haldane, two_tanks, allee, heat_exchanger, spring, chemostat)
}
