"""Systems of which a part is wholly unknown: on these the uncertainty of networks inside solvers is
judged.
"""

import dataclasses
from collections.abc import Callable
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import AbstractEngine
from bayes_dasl.prediction.posterior import draws_of
from bayes_dasl.random import realise

from ..provenance import fingerprint

NOISE = 0.05
_UNCERTAIN = 0.1  # of the scale of a network: about how far a variance head may reach
_NEAR = 0.35  # standard deviations of the data


@dataclasses.dataclass(frozen=True)
class Problem:
    """A hybrid, data that `truth` made, and the states of which a network corrects the rate."""

    name: str
    model: bd.Model
    data: xr.Dataset
    truth: bd.Module
    corrected: tuple[str, ...]
    relative: bool = False

    per_axis: int = 16

    def points(self, wider: float = 0.0) -> tuple[dict[str, jax.Array], np.ndarray]:
        """A grid over the box of the data, `wider` by a share on each side, and which of it lies
        near the data.
        """
        names = [str(name) for name in self.data.data_vars]
        seen = np.stack([self.data[name].values for name in names], 1)
        low, high = seen.min(0), seen.max(0)
        margin = wider * (high - low)
        low = np.maximum(low - margin, 0.5 * low) if self.relative else low - margin
        axes = [np.linspace(a, b, self.per_axis) for a, b in zip(low, high + margin, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(names))
        apart = np.sqrt((((grid[:, None] - seen[None]) / seen.std(0)) ** 2).sum(-1)).min(1)
        return {name: jnp.asarray(grid[:, i]) for i, name in enumerate(names)}, apart < _NEAR

    def rates(self, field: Callable, points: dict[str, jax.Array]) -> jax.Array:
        """The rates of the corrected states at points, one state after the other."""
        found = jax.vmap(lambda y: dict(field(0.0, y, {})))(points)
        return jnp.concatenate([found[name] for name in self.corrected])

    def drawn_rates(self, post: xr.DataTree, points: dict[str, jax.Array]) -> np.ndarray:
        """The same of each draw of a posterior, and of what variance heads leave open:
        `(chain, draw, rate)`.
        """
        sizes = post["posterior"].sizes
        flat = {path: jnp.asarray(values) for path, values in draws_of(self.model, post).items()}

        def one(given):
            draw, key = given
            layer = realise(self.model, draw).layer
            if not isinstance(layer, bd.filtering.Unscented):
                return self.rates(layer.vector_field, points)
            errors = lambda ode: ode.vector_field.closure.deviates  # noqa: E731
            drawn = eqx.tree_at(
                errors, layer.layer, replace_fn=lambda zero: jax.random.normal(key, zero.shape)
            )
            return self.rates(drawn.vector_field, points)

        keys = jax.random.split(jax.random.key(0), sizes["chain"] * sizes["draw"])
        found = jax.jit(lambda d: jax.lax.map(one, d, batch_size=64))((flat, keys))
        return np.asarray(found).reshape(sizes["chain"], sizes["draw"], -1)

    def with_variance_heads(self) -> "Problem":
        """The same with a standard deviation of what the network says, a network too, as in
        DiffHybrid-UQ.
        """
        closure = self.model.layer.vector_field.closure
        head = bd.Network.mlp(closure.inputs, ("log_scale",), 0.5, width=4, depth=1)
        scales = {
            name: bd.noise.VaryingScale(
                dist.HalfNormal(_UNCERTAIN * float(jnp.exp(closure.scale.loc))), head
            )
            for name in self.corrected
        }
        at = eqx.tree_at(
            lambda ode: ode.vector_field.closure,
            self.model.layer,
            bd.filtering.VarianceHead(closure, scales),
        )
        return dataclasses.replace(
            self, model=bd.Model(bd.filtering.Unscented(at), self.model.noise)
        )


class Linear(bd.Module):
    """What is known of the predators and their prey: rates of growth and death per head."""

    birth: bd.Scalar
    death: bd.Scalar

    def __call__(self, t, y, u):
        return {"prey": self.birth * y["prey"], "predator": -self.death * y["predator"]}


class LotkaVolterra(bd.Module):
    def __call__(self, t, y, u):
        prey, predator = y["prey"], y["predator"]
        return {
            "prey": 1.3 * prey - 0.9 * prey * predator,
            "predator": 0.8 * prey * predator - 1.8 * predator,
        }


class Spring(bd.Module):
    """What is known of an oscillator: the spring, not the friction."""

    stiffness: bd.Scalar

    def __call__(self, t, y, u):
        return {"place": y["speed"], "speed": -self.stiffness * y["place"]}


class Damped(bd.Module):
    def __call__(self, t, y, u):
        friction = 0.2 * y["speed"] + 0.25 * y["speed"] * jnp.abs(y["speed"])
        return {"place": y["speed"], "speed": -2.0 * y["place"] - friction}


class Convection(bd.Module):
    """What is known of Lorenz's equations: all but how z slows y."""

    sigma: bd.Scalar
    rho: bd.Scalar
    beta: bd.Scalar

    def __call__(self, t, s, u):
        x, y, z = s["x"], s["y"], s["z"]
        return {"x": self.sigma * (y - x), "y": self.rho * x - y, "z": x * y - self.beta * z}


class Lorenz(bd.Module):
    def __call__(self, t, s, u):
        x, y, z = s["x"], s["y"], s["z"]
        return {"x": 10.0 * (y - x), "y": x * (28.0 - z) - y, "z": x * y - 8 / 3 * z}


def _network(
    data: xr.Dataset, outputs: tuple[str, ...], width: int, depth: int, scale
) -> bd.Network:
    inputs = tuple(map(str, data.data_vars))
    mlp = eqx.nn.MLP(len(inputs), len(outputs), width, depth, jnp.tanh, key=jax.random.key(0))
    return bd.Network(mlp, bd.standardise(data, *inputs), outputs, scale=scale)


def _clean(truth: bd.Module, start: dict[str, float], times: np.ndarray) -> dict[str, np.ndarray]:
    solved = bd.ODE(truth, start, rtol=1e-9, atol=1e-9)(
        bd.inputs(xr.Dataset(coords={"time": times}))
    )
    return {name: np.asarray(values) for name, values in solved.values.items()}


def lotka_volterra(seed: int, width: int = 8, depth: int = 2) -> Problem:
    """31 times with 5 % noise; the rates per head are known but for the interaction."""
    start, times = {"prey": 0.44249296, "predator": 4.6280594}, np.linspace(0.0, 6.0, 31)
    rng = np.random.default_rng(seed)
    noisy = {
        n: v * np.exp(NOISE * rng.standard_normal(31))
        for n, v in _clean(LotkaVolterra(), start, times).items()
    }
    data = xr.Dataset(
        {name: ("time", values) for name, values in noisy.items()}, coords={"time": times}
    )
    science = Linear(dist.LogNormal(np.log(1.3), 0.2), dist.LogNormal(np.log(1.8), 0.2))
    network = _network(data, ("prey", "predator"), width, depth, dist.LogNormal(np.log(2.0), 0.5))
    initial = {name: dist.LogNormal(np.log(value), 0.2) for name, value in start.items()}
    layer = bd.ODE(bd.Residual(science, network, relative=True), initial)
    model = bd.Model(layer, bd.LogNormalNoise(dist.LogNormal(np.log(0.1), 1.0)))
    return Problem(
        "Lotka–Volterra", model, data, LotkaVolterra(), ("prey", "predator"), relative=True
    )


def oscillator(seed: int, width: int = 8, depth: int = 2) -> Problem:
    """41 times with noise of 0.05; the friction is unknown."""
    start, times = {"place": 2.0, "speed": 0.0}, np.linspace(0.0, 8.0, 41)
    rng = np.random.default_rng(seed)
    noisy = {
        n: v + NOISE * rng.standard_normal(41) for n, v in _clean(Damped(), start, times).items()
    }
    data = xr.Dataset(
        {name: ("time", values) for name, values in noisy.items()}, coords={"time": times}
    )
    network = _network(data, ("speed",), width, depth, dist.LogNormal(np.log(2.0), 0.5))
    initial = {name: dist.Normal(value, 0.2) for name, value in start.items()}
    layer = bd.ODE(bd.Residual(Spring(dist.LogNormal(np.log(2.0), 0.2)), network), initial)
    model = bd.Model(layer, bd.NormalNoise(dist.LogNormal(np.log(0.1), 1.0)))
    return Problem("damped oscillator", model, data, Damped(), ("speed",))


def lorenz(seed: int, width: int = 8, depth: int = 2) -> Problem:
    """61 times of three units with noise of 0.5; of the rate of y the term −xz is unknown."""
    start, times = {"x": 1.0, "y": 0.0, "z": 15.0}, np.linspace(0.0, 3.0, 61)
    rng = np.random.default_rng(seed)
    noisy = {
        n: v + 0.5 * rng.standard_normal(61) for n, v in _clean(Lorenz(), start, times).items()
    }
    data = xr.Dataset(
        {name: ("time", values) for name, values in noisy.items()}, coords={"time": times}
    )
    science = Convection(*(dist.LogNormal(np.log(value), 0.2) for value in (10.0, 28.0, 8 / 3)))
    network = _network(data, ("y",), width, depth, dist.LogNormal(np.log(200.0), 0.5))
    initial = {name: dist.Normal(value, 1.0) for name, value in start.items()}
    layer = bd.ODE(bd.Residual(science, network), initial)
    model = bd.Model(layer, bd.NormalNoise(dist.LogNormal(np.log(1.0), 1.0)))
    return Problem("Lorenz", model, data, Lorenz(), ("y",), per_axis=10)


@cache
def code(name: str, engine: AbstractEngine, *parts: object) -> str:
    """The fingerprint of what makes a posterior of a problem, on any data: its model, and further
    parts.
    """
    return fingerprint(bd.fit, engine, PROBLEMS[name](0).model, *parts)


PROBLEMS = {"lotka_volterra": lotka_volterra, "oscillator": oscillator, "lorenz": lorenz}
