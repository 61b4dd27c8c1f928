"""Every adaptive mechanism and every hybrid architecture, with parameters that it must recover."""

import copy

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import bayes_dasl as bd

from .case import Case
from .layers import SCALE, Decay, axis


class Logistic(bd.Module):
    growth: bd.Scalar
    capacity: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.growth * y["y"] * (1 - y["y"] / self.capacity)}


def bounded():
    layer = lambda growth, capacity: bd.ODE(Logistic(growth, capacity), {"y": 0.3})  # noqa: E731
    return Case(
        "between, and a bounded distribution", "mechanism",
        bd.Model(layer(bd.between(0.2, 4), dist.Uniform(1.0, 5.0)), bd.NormalNoise(SCALE)),
        layer(1.1, 2.5), axis(0, 8, 25), {"y": 0.05},
        {"layer.vector_field.growth": 1.1, "layer.vector_field.capacity": 2.5},
    )  # fmt: skip


class Harvested(bd.Module):
    """Decay at a known form, plus an unknown input that depends on time."""

    rate: bd.Scalar
    source: bd.Basis

    def __call__(self, t, y, u):
        return {
            "y": self.source(t, y, u)["source"] - self.rate * y["y"],
            "z": 0.5 * y["y"] - self.rate * y["z"],
        }


class Known(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {
            "y": jnp.exp(-((t - 4) ** 2) / 2) - self.rate * y["y"],
            "z": 0.5 * y["y"] - self.rate * y["z"],
        }


def basis():
    source = bd.Basis(bd.bases.BSpline(0.0, 10.0, 8), "t", "source")
    start = {"y": 1.0, "z": 0.0}
    return Case(
        "Basis, an unknown input over time", "mechanism",
        bd.Model(bd.ODE(Harvested(bd.between(0.1, 2), source), start), bd.NormalNoise(SCALE)),
        bd.ODE(Known(0.6), start), axis(0, 10, 31), {"y": 0.02, "z": 0.02},
        {"layer.vector_field.rate": 0.6},
    )  # fmt: skip


class Slow(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"x": 1.0 - self.rate * y["x"] + u["fast"]}


class Fast(bd.Module):
    def __call__(self, t, y, u):
        return {"z": u["slow"] - y["z"]}


def coupling():
    def layer(rate, strength, timescale):
        field = bd.multiscale.Coupling(
            {"slow": Slow(rate), "fast": Fast()},
            (bd.multiscale.Link("slow.x", "fast.slow"), bd.multiscale.Link("fast.z", "slow.fast", strength)),
            states={"slow": ("x",), "fast": ("z",)}, timescales={"fast": timescale},
        )  # fmt: skip
        return bd.ODE(field, {"x": 0.0, "z": 2.0})

    return Case(
        "Coupling of two time scales", "mechanism",
        bd.Model(layer(bd.between(0.2, 3), dist.Normal(0.0, 1.0), bd.between(0.02, 0.5)), bd.NormalNoise(SCALE)),
        layer(0.8, -0.5, 0.1), axis(0, 6, 41), {"x": 0.05, "z": 0.05},
        {"layer.vector_field.parts.slow.rate": 0.8, "layer.vector_field.links.1.strength": -0.5,
         "layer.vector_field.timescales.fast": 0.1},
    )  # fmt: skip


def layer_coupling():
    class Driven(bd.Module):
        gain: bd.Scalar

        def __call__(self, t, y, u):
            return {"z": u["coarse"] - self.gain * y["z"]}

    def layer(rate, gain, strength):
        return bd.multiscale.LayerCoupling(
            {"coarse": bd.ODE(Decay(rate), {"y": 2.0}), "fine": bd.ODE(Driven(gain), {"z": 0.0}, forcings=("coarse",))},
            (bd.multiscale.Link("coarse.y", "fine.coarse", strength),), points=65,
        )  # fmt: skip

    return Case(
        "LayerCoupling, coarse drives fine", "mechanism",
        bd.Model(layer(bd.between(0.1, 2), bd.between(0.2, 5), dist.Normal(0.0, 2.0)), bd.NormalNoise(SCALE)),
        layer(0.4, 1.2, 0.7), axis(0, 6, 25), {"y": 0.03, "z": 0.03},
        {"layer.layers.coarse.vector_field.rate": 0.4, "layer.layers.fine.vector_field.gain": 1.2,
         "layer.links.0.strength": 0.7},
    )  # fmt: skip


class FewCostly(Case):
    """Costly data are few."""

    def data(self, replicate):
        data = super().data(replicate)
        few = np.arange(data.sizes["time"]) % 6 == 0
        return data.assign(costly=data["costly"].where(few))


class Line(bd.Module):
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"costly": self.slope * t}


def fidelity():
    def layer(rate, ratio, slope):
        return bd.multiscale.MultiFidelity(
            bd.ODE(Decay(rate), {"y": 2.0}), {"costly": "y"}, ratio, Line(slope)
        )

    return FewCostly(
        "MultiFidelity", "mechanism",
        bd.Model(layer(bd.between(0.1, 2), dist.Normal(1.0, 1.0), dist.Normal(0.0, 1.0)), bd.NormalNoise(SCALE)),
        layer(0.5, 1.4, 0.1), axis(0, 5, 31), {"y": 0.05, "costly": 0.05},
        {"layer.low.vector_field.rate": 0.5, "layer.ratio": 1.4, "layer.discrepancy.slope": 0.1},
    )  # fmt: skip


class Warming(bd.Module):
    low: bd.Scalar
    trend: bd.Scalar

    def __call__(self, t, y, u):
        return self.low + self.trend * t


def boundary():
    grid, template = (
        bd.pde.Grid(x=(0.0, 1.0, 12)),
        axis(0.0, 2.0, 9).assign_coords(x=np.linspace(0.15, 0.85, 4)),
    )

    def layer(diffusion, low, trend, start):
        field = bd.pde.FiniteVolume(
            grid,
            diffusion=diffusion,
            boundary={
                "x_low": bd.pde.Dirichlet(Warming(low, trend)),
                "x_high": bd.pde.Neumann(0.0),
            },
        )
        return bd.pde.PDE(field, {"heat": start}, start=0.0, rtol=1e-5, atol=1e-5)

    return Case(
        "boundary over time and initial state learned", "mechanism",
        bd.Model(
            layer(bd.between(0.05, 2), dist.Normal(0.0, 1.0), dist.Normal(0.0, 1.0), dist.Normal(0.0, 1.0)),
            bd.NormalNoise(SCALE),
        ),
        layer(0.3, 0.5, 0.4, -0.3), template, {"heat": 0.02},
        {"layer.vector_field.diffusion": 0.3, "layer.vector_field.boundary.x_low.value.low": 0.5,
         "layer.vector_field.boundary.x_low.value.trend": 0.4, "layer.initial.heat": -0.3},
    )  # fmt: skip


def mlp(inputs, outputs):
    return eqx.nn.MLP(inputs, outputs, 3, 1, jax.nn.tanh, key=jax.random.key(0))


class Quadratic(bd.Module):
    """A sensor that is not linear, as the truth has it."""

    def __call__(self, t, y, u):
        return {"seen": y["y"] - 0.1 * y["y"] ** 2, "y": y["y"]}


class SensorNet(bd.Module):
    network: bd.Network

    def __call__(self, t, y, u):
        return {"seen": y["y"] + self.network(t, y, u)["seen"], "y": y["y"]}


def series():
    network = bd.Network(mlp(1, 1), {"y": (1.0, 0.5)}, ("seen",), scale=0.2)
    layer = lambda rate, sensor: bd.Series(bd.ODE(Decay(rate), {"y": 2.0}), sensor)  # noqa: E731
    return Case(
        "Series, a decay behind a sensor", "architecture",
        bd.Model(
            layer(bd.between(0.1, 2), SensorNet(network)),
            {name: bd.NormalNoise(copy.copy(SCALE)) for name in ("seen", "y")},
        ),
        layer(0.6, Quadratic()), axis(0, 5, 26), {"seen": 0.02, "y": 0.05},
        {"layer.science.vector_field.rate": 0.6},
    )  # fmt: skip


class Constant(bd.Module):
    value: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.value}


def parallel():
    def layer(rate, value, weights):
        return bd.Parallel(
            {"decay": bd.ODE(Decay(rate), {"y": 2.0}), "level": Constant(value)}, weights
        )

    return Case(
        "Parallel, learned shares", "architecture",
        bd.Model(layer(bd.between(0.1, 2), 1.0, dist.Dirichlet(jnp.ones(2))), bd.NormalNoise(SCALE)),
        layer(0.6, 1.0, jnp.array([0.7, 0.3])), axis(0, 5, 26), {"y": 0.03},
        {"layer.models.decay.vector_field.rate": 0.6},
    )  # fmt: skip


class Predation(bd.Module):
    def __call__(self, t, y, u):
        met = 0.9 * y["prey"] * y["predator"]
        return {"prey": -met, "predator": 0.8 * met}


def hierarchical():
    network = bd.Network(
        mlp(2, 1), {"slow.y": (1.0, 0.5), "fast.y": (0.5, 0.5)}, ("sum",), scale=0.1
    )

    class Mixed(bd.Module):
        share: bd.Scalar
        network: object

        def __call__(self, t, y, u):
            extra = self.network(t, y, u)["sum"] if self.network is not None else 0.0
            both = self.share * y["slow.y"] + (1 - self.share) * y["fast.y"] + extra
            return {"sum": both, "slow": y["slow.y"], "fast": y["fast.y"]}

    def layer(slow, fast, share, network):
        return bd.Hierarchical(
            {"slow": bd.ODE(Decay(slow), {"y": 2.0}), "fast": bd.ODE(Decay(fast), {"y": 1.0})},
            Mixed(share, network),
        )

    return Case(
        "Hierarchical, two layers under a network", "architecture",
        bd.Model(
            layer(bd.between(0.05, 1), bd.between(0.3, 5), 0.4, network),
            {name: bd.NormalNoise(copy.copy(SCALE)) for name in ("sum", "slow", "fast")},
        ),
        layer(0.2, 1.5, 0.4, None), axis(0, 5, 26), {"sum": 0.02, "slow": 0.05, "fast": 0.05},
        {"layer.sciences.slow.vector_field.rate": 0.2, "layer.sciences.fast.vector_field.rate": 1.5},
    )  # fmt: skip


STRUCTURES = (
    bounded(), basis(), coupling(), layer_coupling(), fidelity(), boundary(), series(), parallel(), hierarchical(),
)  # fmt: skip
