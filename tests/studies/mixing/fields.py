"""Unknown functions in fields: a flux at the end of a rod, a reaction in a front, a mixing length
across a channel.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from .case import Case, Unknown, along, normal, predicted, real_file, sampled, simulated

ROD = bd.pde.Grid(x=(0.0, 1.0, 20))
STRIP = bd.pde.Grid(x=(0.0, 1.0, 20))
CHANNELS = ("550", "950", "2000")  # Reynolds numbers of the first data sets
HIGHEST = 0.85  # of the channel's half-width, up to which there are data


def rod(diffusion, flux) -> bd.pde.PDE:
    boundary = {"x_low": bd.pde.Flux(flux), "x_high": bd.pde.Dirichlet(0.0)}
    law = bd.pde.FiniteVolume(ROD, diffusion, boundary=boundary)
    return bd.pde.PDE(
        law, {"heat": 0.0}, solver=bd.pde.Chebyshev(8), start=0.0, rtol=1e-4, atol=1e-5
    )


def heat(seed: int) -> Case:
    """A rod that is heated at one end by nobody knows how much; six sensors at twenty times."""
    rng = np.random.default_rng([seed, 5])
    priors = {"diffusion": bd.between(0.08, 0.4)}
    family = bd.bases.HilbertGP(0.0, 1.15, 14, amplitude=dist.HalfNormal(0.7))
    flux = bd.Basis(family, "t", "flux", level=-1.0)
    times = np.linspace(0.05, 1.0, 20)
    template = xr.Dataset(coords={"time": times, "x": np.linspace(0.05, 0.8, 6)})
    scale = dist.LogNormal(np.log(0.02), 0.3)
    data, truth = simulated(rod, priors, {"flux": flux}, template, normal(sampled(scale, rng)), rng)
    model = bd.Model(rod(**priors, flux=flux), bd.NormalNoise(scale))
    unknown = {"flux": Unknown(_of_end, ("flux",), *along("t", times))}
    return Case("heat", seed, model, data, unknown, _diffusion, truth)


def _of_end(layer):
    return layer.vector_field.boundary["x_low"].value


def _diffusion(layer) -> dict:
    return {"diffusion": layer.vector_field.diffusion}


class Front(bd.Module):
    """Logistic growth, and an unknown rate of growth beside."""

    growth: bd.Scalar
    extra: bd.Basis

    def __call__(self, t, y, u):
        return {"c": y["c"] * (self.growth * (1 - y["c"]) + self.extra(t, y, u)["rate"])}


def front(diffusion, growth, extra) -> bd.pde.PDE:
    boundary = {"x_low": bd.pde.Neumann(0.0), "x_high": bd.pde.Neumann(0.0)}
    law = bd.pde.FiniteVolume(STRIP, diffusion, reaction=Front(growth, extra), boundary=boundary)
    begin = lambda t, y, u: 0.9 * jnp.exp(-(((u["x"] - 0.2) / 0.15) ** 2))  # noqa: E731
    return bd.pde.PDE(
        law, {"c": begin}, solver=bd.pde.Chebyshev(5), start=0.0, rtol=3e-4, atol=3e-5
    )


def pde_closure(seed: int) -> Case:
    """A concentration that spreads and grows by a law of which only the logistic part is known."""
    rng = np.random.default_rng([seed, 6])
    priors = {"diffusion": bd.between(0.005, 0.05), "growth": bd.between(0.7, 2.0)}
    extra = bd.Basis(bd.bases.HilbertGP(-0.2, 1.8, 12, amplitude=dist.HalfNormal(0.4)), "c", "rate")
    template = xr.Dataset(
        coords={"time": np.linspace(0.2, 2.0, 10), "x": np.linspace(0.05, 0.95, 10)}
    )
    scale = dist.LogNormal(np.log(0.02), 0.3)
    data, truth = simulated(
        front, priors, {"extra": extra}, template, normal(sampled(scale, rng)), rng
    )
    model = bd.Model(front(**priors, extra=extra), bd.NormalNoise(scale))
    places = along("c", predicted(truth, template)["c"], lowest=0.0)
    unknown = {"rate": Unknown(lambda layer: layer.vector_field.reaction.extra, ("rate",), *places)}
    return Case("pde_closure", seed, model, data, unknown, _of_front, truth)


def _of_front(layer) -> dict:
    return {"diffusion": layer.vector_field.diffusion, "growth": layer.vector_field.reaction.growth}


class MixingLength(bd.Module):
    r"""Mean velocity across a turbulent channel in wall units: van Driest's mixing length times an
    unknown factor.

    $(1 + \ell^2 |U'|) U' = 1 - y/h, \quad \ell = \kappa y (1 - e^{-y/A}) e^{f(y/h)}$
    """

    karman: bd.Scalar
    damping: bd.Scalar
    factor: bd.Basis
    reynolds: float = eqx.field(static=True)

    def slope(self, y):
        factor = self.factor(0.0, {}, {"height": y / self.reynolds})["factor"]
        length = self.karman * y * (1 - jnp.exp(-y / self.damping)) * factor
        stress = 1 - y / self.reynolds
        return 2 * stress / (1 + jnp.sqrt(1 + 4 * length**2 * stress))

    def __call__(self, t, y, u):
        # By the logarithm of 1 + y, along which the profile is smooth.
        return {
            "velocity": bd.equations.integrate(
                lambda s: self.slope(jnp.expm1(s)) * jnp.exp(s), 0.0, jnp.log1p(t), nodes=24
            )
        }


def channel(seed: int) -> Case:
    """Seeds 0 to 2: velocities of direct numerical simulations at three Reynolds numbers, to within
    0.1.
    """
    rng = np.random.default_rng([seed, 7])
    real = seed < len(CHANNELS)
    reynolds = float(CHANNELS[seed]) if real else 950.0

    def layer(karman, damping, factor):
        return bd.Algebraic(MixingLength(karman, damping, factor, reynolds), index="y_plus")

    priors = {"karman": bd.between(0.35, 0.47), "damping": bd.between(18.0, 35.0)}
    family = bd.bases.HilbertGP(0.0, 0.95, 16, amplitude=dist.HalfNormal(0.3))
    factor = bd.Basis(family, "height", "factor", positive=True)
    model = bd.Model(layer(**priors, factor=factor), bd.NormalNoise(0.1))
    if real:
        data, truth = measured_channel(CHANNELS[seed], reynolds), None
    else:
        heights = np.geomspace(1.0, HIGHEST * reynolds, 60)
        template = xr.Dataset(coords={"y_plus": heights})
        data, truth = simulated(layer, priors, {"factor": factor}, template, normal(0.1), rng)
    places = along("height", (0.02, HIGHEST), lowest=0.0)
    unknown = {"factor": Unknown(lambda layer: layer.function.factor, ("factor",), *places)}
    return Case("channel", seed, model, data, unknown, _wall, truth)


def _wall(layer) -> dict:
    return {"karman": layer.function.karman, "damping": layer.function.damping}


def measured_channel(name: str, reynolds: float) -> xr.Dataset:
    """Some sixty heights of a profile of Hoyas & Jiménez."""
    table = np.loadtxt(real_file(f"fluid/HJ_Re{name}.prof"), comments="%")
    height, y_plus, velocity = table[:, 0], table[:, 1], table[:, 2]
    inside = np.flatnonzero((y_plus >= 1.0) & (height <= HIGHEST))
    chosen = inside[np.unique(np.linspace(0, len(inside) - 1, 60).round().astype(int))]
    return xr.Dataset(
        {"velocity": ("y_plus", velocity[chosen])}, {"y_plus": height[chosen] * reynolds}
    )
