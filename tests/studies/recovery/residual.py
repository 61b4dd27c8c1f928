"""Lotka–Volterra whose predators also interfere with each other,
which the science does not know.
"""

from functools import cache

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from case_studies.lynx_hare import LotkaVolterra

from .case import Case
from .layers import SCALE, axis

NAMES = ("birth", "predation", "death", "growth")
TRUE = (1.0, 0.5, 0.8, 0.4)
INTERFERENCE = 0.12
START = {"hare": 3.0, "lynx": 1.5}


class Interfering(bd.Module):
    """The truth: Lotka–Volterra less a rate that grows as the square of the predators."""

    known: LotkaVolterra

    def __call__(self, t, y, u):
        rates = self.known(t, y, u)
        return rates | {"lynx": rates["lynx"] - INTERFERENCE * y["lynx"] ** 2}


def truth() -> bd.ODE:
    return bd.ODE(Interfering(LotkaVolterra(*TRUE)), START)


@cache
def points() -> xr.Dataset:
    """Where the residual is to be orthogonal: along the true trajectory."""
    template = axis(0, 12, 41)
    return template.assign(
        {n: ("time", np.asarray(v)) for n, v in truth()(bd.inputs(template)).values.items()}
    )


def projected() -> dict[str, float]:
    """The parameters with which the science alone comes closest to the true rates at the points."""
    at = points()
    hare, lynx = at["hare"].values, at["lynx"].values
    by_hare, by_lynx = 1 / hare.std(), 1 / lynx.std()
    rates = Interfering(LotkaVolterra(*TRUE))(0.0, {"hare": hare, "lynx": lynx}, {})
    prey = np.linalg.lstsq(
        np.stack([hare, -hare * lynx], 1) * by_hare, rates["hare"] * by_hare, rcond=None
    )[0]
    predator = np.linalg.lstsq(
        np.stack([-lynx, hare * lynx], 1) * by_lynx, rates["lynx"] * by_lynx, rcond=None
    )[0]
    return dict(zip(NAMES, (*prey, *predator), strict=True))


def model(orthogonal: bool, relative: bool = False) -> bd.Model:
    """Science and a network for what it misses, projected or not."""
    science = LotkaVolterra(*(bd.between(0.1, 3.0) for _ in NAMES))
    network = bd.Network(
        eqx.nn.MLP(2, 2, 3, 1, jax.nn.tanh, key=jax.random.key(0)),
        bd.standardise(points(), "hare", "lynx"),
        ("hare", "lynx"),
        scale=0.15,
    )
    field = bd.Residual(science, network, relative, orthogonal=points() if orthogonal else None)
    initial = {name: dist.LogNormal(np.log(value), 0.3) for name, value in START.items()}
    return bd.Model(bd.ODE(field, initial, rtol=1e-5, atol=1e-5), bd.NormalNoise(SCALE))


def case() -> Case:
    judged = {f"layer.vector_field.science.{name}": value for name, value in projected().items()}
    template = axis(0, 12, 41)
    noise = {"hare": 0.05, "lynx": 0.05}
    return Case(
        "Residual, orthogonal", "architecture", model(True), truth(), template, noise, judged
    )
