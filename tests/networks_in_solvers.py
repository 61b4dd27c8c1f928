"""A small hybrid whose ODE holds a network, for the tests of engines."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

TIMES = np.linspace(0.0, 4.0, 15)
RATE, NOISE = 0.6, 0.04


def runge_kutta(field: Callable, begin: Any, end: Any, y: dict) -> dict:
    """The states after one classical step; `field(t, y)` returns their rates."""

    def moved(rates, by):
        return {name: value + by * rates[name] for name, value in y.items()}

    half = (end - begin) / 2
    a = field(begin, y)
    b = field(begin + half, moved(a, half))
    c = field(begin + half, moved(b, half))
    d = field(end, moved(c, 2 * half))
    return moved(
        {name: (a[name] + 2 * b[name] + 2 * c[name] + d[name]) / 6 for name in y}, 2 * half
    )


class Stepped(bd.ODE):
    """An ODE solved by one classical step between two data: its gradient compiles in a tenth of the
    time of others.
    """

    def solve(self, inputs, initial):
        def field(t, y):
            return self.vector_field(
                t, y, {name: inputs.forcings[name](t) for name in self.forcings}
            )

        def step(y, span):
            return (after := runge_kutta(field, *span, y)), after

        spans = jnp.concatenate([inputs.start[None], inputs.times[:-1]]), inputs.times
        return (
            jax.lax.scan(step, initial, spans)[1],
            jnp.asarray(True),
            jnp.asarray(inputs.times.size),
        )


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


def data(seed: int = 0, noise: float = NOISE) -> xr.Dataset:
    """A decay that is slower where there is little left."""
    y = 2.0 / (1 + 0.6 * TIMES)
    noisy = y + noise * np.random.default_rng(seed).standard_normal(TIMES.size)
    return xr.Dataset({"y": ("time", noisy)}, coords={"time": TIMES})


def network(outputs: tuple[str, ...] = ("y",), scale=0.5, depth: int = 1, **mlp) -> bd.Network:
    module = eqx.nn.MLP(1, len(outputs), 3, depth, jnp.tanh, key=jax.random.key(0), **mlp)
    return bd.Network(module, {"y": (1.0, 0.6)}, outputs, scale)


def model(closure: bd.Network | None = None, noise=None, kind: type[bd.ODE] = bd.ODE) -> bd.Model:
    """Decay and what a network adds to its rate."""
    field = bd.Residual(Decay(dist.LogNormal(np.log(RATE), 0.3)), closure or network())
    layer = kind(field, {"y": dist.Normal(2.0, 0.2)})
    return bd.Model(layer, noise or bd.NormalNoise(dist.LogNormal(-3.0, 0.5)))


def stepped(closure: bd.Network | None = None, noise=None) -> bd.Model:
    """The same model, solved by steps of known length, where the claim is not about the solver."""
    return model(closure, noise, Stepped)
