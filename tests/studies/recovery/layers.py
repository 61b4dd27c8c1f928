"""Every kind of scientific layer, with parameters that it must recover."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from case_studies.lynx_hare import LotkaVolterra

from .case import Case

SCALE = dist.LogNormal(-2.5, 1.0)


def axis(low, high, number, index="time", **forcings):
    values = np.linspace(low, high, number)
    return xr.Dataset({name: (index, f(values)) for name, f in forcings.items()}, {index: values})


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


def non_stiff():
    priors = [
        bd.between(0.2, 1.5),
        bd.between(0.005, 0.1),
        bd.between(0.2, 1.5),
        bd.between(0.005, 0.1),
    ]
    values = [0.55, 0.028, 0.8, 0.024]

    def layer(p, hare, lynx):
        return bd.ODE(LotkaVolterra(*p), {"hare": hare, "lynx": lynx}, observe=_logs)

    names = ("birth", "predation", "death", "growth")
    return Case(
        "ODE, non-stiff", "layer",
        bd.Model(layer(priors, dist.LogNormal(3.4, 0.5), dist.LogNormal(1.4, 0.5)), bd.NormalNoise(SCALE)),
        layer(values, 34.0, 5.9), axis(0, 20, 21), {"log_hare": 0.2, "log_lynx": 0.2},
        {f"layer.vector_field.{n}": v for n, v in zip(names, values, strict=True)},
    )  # fmt: skip


def _logs(t, y, u):
    return {f"log_{name}": jnp.log(jnp.maximum(value, 1e-6)) for name, value in y.items()}


class Robertson(bd.Module):
    """A stiff chain of reactions, in logarithms of its rates."""

    slow: bd.Scalar
    fast: bd.Scalar

    def __call__(self, t, y, u):
        a, b = y["a"], y["b"]
        c = 1 - a - b
        first, third = 10.0**self.slow * a, 1e4 * b * c
        second = 10.0**self.fast * b**2
        return {"a": -first + third, "b": first - third - second}


def stiff():
    def layer(slow, fast):
        return bd.ODE(
            Robertson(slow, fast), {"a": 1.0, "b": 0.0}, observe=lambda t, y, u: {"a": y["a"], "b": 1e4 * y["b"]},
            solver="rodas5p", rtol=1e-6, atol=1e-10,
        )  # fmt: skip

    return Case(
        "ODE, stiff", "layer",
        bd.Model(layer(dist.Normal(-1.5, 0.5), dist.Normal(7.5, 0.5)), bd.NormalNoise(SCALE)),
        layer(-1.4, 7.48), axis(1, 100, 20), {"a": 0.01, "b": 0.01},
        {"layer.vector_field.slow": -1.4, "layer.vector_field.fast": 7.48},
    )  # fmt: skip


class Compartment(bd.Module):
    absorption: bd.Scalar
    clearance: bd.Scalar

    def __call__(self, t, y, u):
        taken = self.absorption * y["gut"]
        return {"gut": -taken, "blood": taken - self.clearance * y["blood"]}


def doses():
    def layer(absorption, clearance, amount):
        return bd.ODE(
            Compartment(absorption, clearance), {"gut": 0.0, "blood": 0.0},
            observe=lambda t, y, u: {"blood": y["blood"]},
            jumps=(bd.Jump(0.0, {"gut": 10.0}), bd.Jump(jnp.array([8.0, 16.0]), {"gut": amount})),
        )  # fmt: skip

    return Case(
        "ODE with jumps", "layer",
        bd.Model(layer(bd.between(0.3, 3), bd.between(0.05, 0.8), bd.between(1, 30)), bd.NormalNoise(SCALE)),
        layer(1.1, 0.25, 6.0), axis(0, 24, 25), {"blood": 0.3},
        {"layer.vector_field.absorption": 1.1, "layer.vector_field.clearance": 0.25, "layer.jumps.1.change.gut": 6.0},
    )  # fmt: skip


class Driven(bd.Module):
    gain: bd.Scalar
    loss: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.gain * u["rain"] - self.loss * y["y"]}


def driven():
    def layer(gain, loss):
        return bd.ODE(
            Driven(gain, loss), {"y": 1.0}, forcings=("rain",), interpolation={"rain": "step"}
        )

    return Case(
        "ODE with a step forcing", "layer",
        bd.Model(layer(bd.between(0.1, 3), bd.between(0.05, 1)), bd.NormalNoise(SCALE)),
        layer(0.8, 0.3), axis(0, 20, 21, rain=lambda t: np.where(np.sin(1.3 * t) > 0.2, 1.0, 0.0)), {"y": 0.1},
        {"layer.vector_field.gain": 0.8, "layer.vector_field.loss": 0.3},
    )  # fmt: skip


class Chemostat(bd.Module):
    growth: bd.Scalar
    half: bd.Scalar

    def __call__(self, t, y, u):
        uptake = self.growth * y["food"] / (self.half + y["food"])
        return {
            "cells": y["cells"] * (uptake - u["dilution"]),
            "food": u["dilution"] * (5.0 - y["food"]) - uptake * y["cells"],
        }


def steady_state():
    def layer(growth, half):
        return bd.SteadyState(
            Chemostat(growth, half),
            {"cells": 4.0, "food": 1.0},
            forcings=("dilution",),
            index="sample",
        )

    return Case(
        "SteadyState", "layer",
        bd.Model(layer(bd.between(0.7, 3), bd.between(0.1, 2)), bd.NormalNoise(SCALE)),
        layer(1.0, 0.5), axis(0, 14, 15, index="sample", dilution=lambda s: 0.1 + 0.04 * s),
        {"cells": 0.1, "food": 0.1}, {"layer.vector_field.growth": 1.0, "layer.vector_field.half": 0.5},
    )  # fmt: skip


def shooting():
    def layer(values, segments):
        ode = bd.ODE(LotkaVolterra(*values), {"hare": 34.0, "lynx": 5.9}, observe=_logs)
        return bd.equations.MultipleShooting(
            ode, (7.0, 14.0), segments, gap={"hare": 0.3, "lynx": 0.2}
        )

    values = (0.55, 0.028, 0.8, 0.024)
    truth = bd.ODE(LotkaVolterra(*values), {"hare": 34.0, "lynx": 5.9}, observe=_logs)
    priors = (
        bd.between(0.2, 1.5),
        bd.between(0.005, 0.1),
        bd.between(0.2, 1.5),
        bd.between(0.005, 0.1),
    )
    segments = {name: dist.LogNormal(jnp.full(2, 3.0), 1.0) for name in ("hare", "lynx")}
    return Case(
        "MultipleShooting", "layer", bd.Model(layer(priors, segments), bd.NormalNoise(SCALE)), truth,
        axis(0, 20, 21), {"log_hare": 0.2, "log_lynx": 0.2},
        {f"layer.ode.vector_field.{n}": v for n, v in
         zip(("birth", "predation", "death", "growth"), values, strict=True)},
    )  # fmt: skip


class Pull(bd.Module):
    rate: bd.Scalar
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"x": self.rate * (self.level - y["x"])}


class StochasticCase(Case):
    """Data whose path is drawn anew for each replicate."""

    def data(self, replicate):
        rng = np.random.default_rng([replicate, 17])
        times = self.template["time"].values
        x, path = 3.0, [3.0]
        for step in np.diff(times):
            kept = np.exp(-0.7 * step)
            x = 1.0 + (x - 1.0) * kept + 0.4 * np.sqrt((1 - kept**2) / 1.4) * rng.normal()
            path.append(x)
        return self.template.assign(x=("time", np.array(path) + 0.1 * rng.normal(size=times.size)))


def stochastic(filtering):
    drift = Pull(bd.between(0.1, 3), dist.Normal(0.0, 2.0))
    diffusion, template = {"x": bd.between(0.05, 2)}, axis(0, 15, 31)
    if filtering:
        layer = bd.filtering.Kalman(drift, diffusion, {"x": 3.0}, {})
    else:
        layer = bd.equations.SDE(drift, diffusion, {"x": 3.0}, grid=(0.0, 15.0, 60))
    return StochasticCase(
        "SDE, Kalman filter" if filtering else "SDE, latent path", "layer",
        bd.Model(layer, bd.NormalNoise(0.1)), layer, template, {"x": 0.1},
        {"layer.drift.rate": 0.7, "layer.drift.level": 1.0, "layer.diffusion.x": 0.4},
    )  # fmt: skip


class Virial(bd.Module):
    """A square-well second virial coefficient, by quadrature."""

    size: bd.Scalar
    depth: bd.Scalar

    def __call__(self, t, y, u):
        attraction = lambda r: (jnp.exp(self.depth / t) - 1) * r**2  # noqa: E731
        well = bd.equations.integrate(attraction, self.size, 1.5 * self.size)
        return {"b": 2 * jnp.pi * (self.size**3 / 3 - well)}


def algebraic():
    layer = lambda size, depth: bd.Algebraic(Virial(size, depth), index="temperature")  # noqa: E731
    return Case(
        "Algebraic, with quadrature", "layer",
        bd.Model(layer(bd.between(0.3, 3), bd.between(0.3, 5)), bd.NormalNoise(SCALE)),
        layer(1.0, 1.2), axis(0.6, 6, 20, index="temperature"), {"b": 0.2},
        {"layer.function.size": 1.0, "layer.function.depth": 1.2},
    )  # fmt: skip


class Equilibrium(bd.Module):
    """How much of a dimer is bound, by its dissociation constant."""

    dissociation: bd.Scalar
    total: bd.Scalar

    def __call__(self, t, y, u):
        free = y["free"]
        return {"free": free + 2 * free**2 / self.dissociation - self.total * u["dilution"]}


def implicit():
    def layer(dissociation, total):
        return bd.Implicit(
            Equilibrium(dissociation, total), {"free": 0.5}, forcings=("dilution",), index="sample"
        )

    return Case(
        "Implicit", "layer", bd.Model(layer(bd.between(0.05, 3), bd.between(0.5, 8)), bd.NormalNoise(SCALE)),
        layer(0.4, 2.0), axis(0, 14, 15, index="sample", dilution=lambda s: 0.1 + 0.3 * s), {"free": 0.03},
        {"layer.equations.dissociation": 0.4, "layer.equations.total": 2.0},
    )  # fmt: skip


class Slab(bd.Module):
    modulus: bd.Scalar

    def __call__(self, x, y, u):
        return {"c": y["slope"], "slope": self.modulus**2 * y["c"]}


class Ends(bd.Module):
    surface: bd.Scalar

    def __call__(self, left, right, u):
        return {"centre": left["slope"], "surface": right["c"] - self.surface}


def boundary_value():
    def layer(modulus, surface):
        return bd.equations.BoundaryValue(
            Slab(modulus), Ends(surface), {"c": 0.5, "slope": 0.5}, lambda x, y, u: {"c": y["c"]}, domain=(0.0, 1.0),
            nodes=21,
        )  # fmt: skip

    return Case(
        "BoundaryValue", "layer", bd.Model(layer(bd.between(0.3, 6), bd.between(0.3, 3)), bd.NormalNoise(SCALE)),
        layer(2.0, 1.0), axis(0, 1, 16, index="x"), {"c": 0.03},
        {"layer.vector_field.modulus": 2.0, "layer.boundary.surface": 1.0},
    )  # fmt: skip


def heat():
    grid, template = (
        bd.pde.Grid(x=(0.0, 1.0, 16)),
        axis(0.05, 0.5, 8).assign_coords(x=np.linspace(0.1, 0.9, 5)),
    )

    def layer(diffusion, source, flux):
        field = bd.pde.FiniteVolume(
            grid, diffusion=diffusion, reaction={"heat": source},
            boundary={"x_low": bd.pde.Dirichlet(0.0), "x_high": bd.pde.Neumann(flux)},
        )  # fmt: skip
        return bd.pde.PDE(field, {"heat": 0.0}, start=0.0, rtol=1e-5, atol=1e-5)

    return Case(
        "PDE, finite volume (source, boundary flux)", "layer",
        bd.Model(layer(bd.between(0.2, 3), bd.between(0.2, 10), dist.Normal(0.0, 2.0)), bd.NormalNoise(SCALE)),
        layer(0.8, 2.0, -0.6), template, {"heat": 0.01},
        {"layer.vector_field.diffusion": 0.8, "layer.vector_field.reaction.heat": 2.0,
         "layer.vector_field.boundary.x_high.gradient": -0.6},
    )  # fmt: skip


class Burgers(bd.Module):
    speed: bd.Scalar

    def __call__(self, t, y, u):
        return {"u": self.speed * y["u"] ** 2 / 2}


def burgers():
    grid = bd.pde.Grid(x=(0.0, 2 * np.pi, 32))
    template = axis(0.1, 1.0, 6).assign_coords(x=np.linspace(0.5, 6.0, 8))

    def layer(speed, viscosity):
        field = bd.pde.Spectral(grid, diffusion=viscosity, flux=Burgers(speed))
        return bd.pde.PDE(
            field, {"u": lambda t, y, u: jnp.sin(u["x"])}, start=0.0, rtol=1e-5, atol=1e-5
        )

    return Case(
        "PDE, pseudo-spectral (Burgers)", "layer",
        bd.Model(layer(bd.between(0.2, 3), bd.between(0.03, 1)), bd.NormalNoise(SCALE)),
        layer(1.0, 0.2), template, {"u": 0.03},
        {"layer.vector_field.flux.speed": 1.0, "layer.vector_field.diffusion": 0.2},
    )  # fmt: skip


class Binding(bd.Module):
    """A ligand that leaves as far as it is free; how much is free is a law."""

    loss: bd.Scalar
    affinity: bd.Scalar

    def __call__(self, t, y, u):
        bound = 2.0 * y["free"] / (self.affinity + y["free"])
        return {"total": -self.loss * y["free"], "free": y["free"] + bound - y["total"]}


def algebraic_states():
    def layer(loss, affinity):
        return bd.ODE(
            Binding(loss, affinity), {"total": 5.0, "free": 4.0}, algebraic="free", solver="rodas5p", max_steps=256,
        )  # fmt: skip

    return Case(
        "ODE with an algebraic state (DAE)", "layer",
        bd.Model(layer(bd.between(0.05, 1.0), bd.between(0.1, 3.0)), bd.NormalNoise(0.1)),
        layer(0.3, 0.6), axis(0, 12, 16), {"total": 0.1, "free": 0.1},
        {"layer.vector_field.loss": 0.3, "layer.vector_field.affinity": 0.6},
    )  # fmt: skip


class Delayed(bd.Module):
    """Logistic growth that crowding slows down after a time."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.rate * y["y"] * (1 - u["past"])}


def delayed():
    def layer(rate, delay):
        return bd.equations.DDE(Delayed(rate), {"y": 0.2}, {"past": ("y", delay)}, longest_step=0.1)

    return Case(
        "DDE, an unknown delay", "layer",
        bd.Model(layer(bd.between(0.3, 2.0), dist.Uniform(0.3, 3.0)), bd.NormalNoise(0.1)),
        layer(1.0, 1.3), axis(0, 12, 25), {"y": 0.1},
        {"layer.vector_field.rate": 1.0, "layer.delays.past": 1.3},
    )  # fmt: skip


class Falling(bd.Module):
    gravity: bd.Scalar

    def __call__(self, t, y, u):
        return {"height": y["speed"], "speed": -self.gravity}


class Bouncing(bd.Module):
    share: bd.Scalar

    def __call__(self, t, y, u):
        return {"height": jnp.zeros(()), "speed": -self.share * y["speed"]}


def bouncing():
    def layer(gravity, share):
        event = bd.Event(lambda t, y, u: y["height"], Bouncing(share), most=8)
        return bd.ODE(
            Falling(gravity), {"height": 1.0, "speed": 0.0}, observe=lambda t, y, u: {"height": y["height"]},
            events=event, max_steps=256,
        )  # fmt: skip

    return Case(
        "ODE with events (a ball that bounces)", "layer",
        bd.Model(layer(dist.LogNormal(np.log(9.8), 0.05), dist.Uniform(0.6, 0.95)), bd.NormalNoise(0.05)),
        layer(9.81, 0.8), axis(0.0, 1.5, 31), {"height": 0.05},
        {"layer.vector_field.gravity": 9.81, "layer.events.0.change.share": 0.8},
    )  # fmt: skip


LAYERS = (
    non_stiff(), stiff(), doses(), driven(), steady_state(), shooting(), stochastic(False), stochastic(True),
    algebraic(), implicit(), boundary_value(), heat(), burgers(),
    algebraic_states(), delayed(), bouncing(),
)  # fmt: skip
