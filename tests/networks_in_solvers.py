"""A small hybrid whose ODE holds a network, for the tests of engines."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

TIMES = np.linspace(0.0, 4.0, 15)
RATE, NOISE = 0.6, 0.04


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


def model(closure: bd.Network | None = None, noise=None) -> bd.Model:
    """Decay and what a network adds to its rate."""
    field = bd.Residual(Decay(dist.LogNormal(np.log(RATE), 0.3)), closure or network())
    layer = bd.ODE(field, {"y": dist.Normal(2.0, 0.2)})
    return bd.Model(layer, noise or bd.NormalNoise(dist.LogNormal(-3.0, 0.5)))
