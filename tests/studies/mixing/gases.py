"""Closed forms with an unknown part: argon's pair potential, and a table of rows with a wide
network.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from .case import Case, Unknown, along, around, normal, observed, real_file, simulated

VOLUME = 2 * np.pi * 0.602214  # cm³/mol for each Å³
QUANTUM = 0.1012  # K² Å², the first Wigner–Kirkwood term of argon: ħ² / (12 · reduced mass · Boltzmann's constant)
NEAREST, FAR = 1.8, 9.0  # Å; no pair comes nearer, and beyond the energy is small and smooth
COLDEST = 250.0


class PairPotential(bd.Module):
    """The second virial coefficient of Lennard-Jones atoms with an unknown energy beside, which
    fades beyond 7 Å.
    """

    depth: bd.Scalar = bd.field(units="K")
    size: bd.Scalar = bd.field(units="Å")
    extra: bd.Basis

    def energy(self, r):
        ratio = (self.size / r) ** 6
        fades = 1 / (1 + (r / 7.0) ** 12)
        return 4 * self.depth * (ratio**2 - ratio) + fades * self.extra(0.0, {}, {"r": r})["energy"]

    def __call__(self, t, y, u):
        def bound(r):
            energy, slope = jax.value_and_grad(self.energy)(r)
            boltzmann = jnp.exp(jnp.minimum(-energy / t, 60.0))
            return r**2 * (1 - boltzmann + QUANTUM / t**3 * boltzmann * slope**2)

        near = bd.equations.integrate(bound, NEAREST, FAR, nodes=8, panels=10)
        far = bd.equations.integrate(bound, FAR, math.inf, nodes=10, scale=FAR)
        return {"b": VOLUME * (NEAREST**3 / 3 + near + far)}


def gas(depth, size, extra) -> bd.Algebraic:
    return bd.Algebraic(
        PairPotential(depth, size, extra),
        index="temperature",
        units={"b": "cm^3/mol", "temperature": "K"},
    )


def argon(seed: int) -> Case:
    """Seed 0: what was measured of argon from 250 K on. Errors are known up to a factor."""
    rng = np.random.default_rng([seed, 1])
    priors = {
        "depth": dist.LogNormal(math.log(120.0), 0.3),
        "size": dist.LogNormal(math.log(3.4), 0.1),
    }
    family = bd.bases.HilbertGP(2.5, 7.5, 20, amplitude=dist.HalfNormal(30.0))
    extra = bd.Basis(family, "r", "energy")
    factor = dist.LogNormal(0.0, 0.5)
    model = bd.Model(
        gas(**priors, extra=extra),
        bd.NormalNoise(known_error=bd.noise.PerDatum("b_error", factor=factor)),
    )
    truth = None
    if seed == 0:
        data = measured_argon()
    else:
        temperatures = np.geomspace(COLDEST, 1200.0, 60)
        template = _virial_data(temperatures, b_error=np.ones(60))
        factor_of_noise = float(factor.sample(jax.random.key(seed)))
        data, truth = simulated(
            gas, priors, {"extra": extra}, template, normal(factor_of_noise), rng
        )
    places = along("r", (3.2, 6.0))
    unknown = {"energy": Unknown(lambda layer: layer.function.extra, ("energy",), *places)}
    return Case("argon", seed, model, data, unknown, _pair, truth)


def _pair(layer) -> dict:
    return {"depth": layer.function.depth, "size": layer.function.size}


def measured_argon() -> xr.Dataset:
    """Second virial coefficients of argon from 250 K on, with their errors."""
    table = np.loadtxt(real_file("molecular/virial_allAr.txt"))
    table = table[np.argsort(table[:, 0], kind="stable")]
    temperature, b, error = table[table[:, 0] >= COLDEST].T
    return _virial_data(temperature, b=b, b_error=error)


def _virial_data(temperatures, **values) -> xr.Dataset:
    data = xr.Dataset({n: ("temperature", v, {"units": "cm^3/mol"}) for n, v in values.items()})
    return data.assign_coords(temperature=("temperature", temperatures, {"units": "K"}))


INPUTS = ("speed", "angle", "roughness")


class PowerLaw(bd.Module):
    """The logarithm of a heat transfer that grows as a power of the speed."""

    level: bd.Scalar
    power: bd.Scalar

    def __call__(self, t, y, u):
        return {"log_transfer": self.level + self.power * jnp.log(u["speed"])}


class Turned(bd.Module):
    """What the power law does not know: how the angle and the roughness change it."""

    def __call__(self, t, y, u):
        given = {**u, **y}
        angle, rough, speed = given["angle"], given["roughness"], jnp.log(given["speed"])
        return {
            "log_transfer": 0.4 * jnp.sin(2.5 * angle) * rough
            + 0.3 * rough**2
            - 0.2 * speed * angle**2
        }


def rows(law, closure) -> bd.Algebraic:
    return bd.Algebraic(bd.Residual(law, closure), index="sample", forcings=INPUTS)


def wide(seed: int) -> Case:
    """A table of 120 rows, three columns and a network of 316 weights."""
    rng = np.random.default_rng([seed, 2])
    speed, angle, rough = (
        np.exp(rng.uniform(-1, 1, 120)),
        rng.uniform(-1, 1, 120),
        rng.uniform(0, 1, 120),
    )
    columns = dict(zip(INPUTS, (speed, angle, rough), strict=True))
    template = xr.Dataset(
        {n: ("sample", v) for n, v in columns.items()}, {"sample": np.arange(120.0)}
    )
    truth = rows(PowerLaw(1.0, 0.6), Turned())
    data = observed(truth, template, normal(0.05), rng)
    mlp = eqx.nn.MLP(3, 1, 15, 2, jnp.tanh, key=jax.random.key(0))
    scale = dist.LogNormal(math.log(0.3), 0.5)
    network = bd.Network(mlp, bd.standardise(data, *INPUTS), ("log_transfer",), scale=scale)
    law = PowerLaw(dist.Normal(1.0, 0.3), dist.Normal(0.6, 0.2))
    model = bd.Model(rows(law, network), bd.NormalNoise(dist.LogNormal(math.log(0.1), 0.5)))
    whole = Unknown(_of_inputs, ("log_transfer",), *around(columns))
    return Case("wide", seed, model, data, {"transfer": whole}, _law, truth)


def _of_inputs(layer):
    """The law with its correction, of which the inputs are no states."""
    return lambda t, y, u: layer.function(t, {}, y)


def _law(layer) -> dict:
    return {"level": layer.function.science.level, "power": layer.function.science.power}
