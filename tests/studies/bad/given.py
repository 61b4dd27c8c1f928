"""A good model, data and posterior, of which each case spoils something."""

from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.prediction.datatree import draws_dataset
from bayes_dasl.prediction.posterior import signature
from bayes_dasl.random import paths

ENGINE = bd.NUTS(chains=1, warmup=25, draws=8)
TIMES = np.arange(6.0)


class Decay(bd.Module):
    r"""$\dot y = -k\,y$."""

    rate: bd.Scalar = bd.field(units="1/h")

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


class Decayed(bd.Module):
    r"""$y = 2\,e^{-k t}$."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": 2.0 * jnp.exp(-self.rate * t)}


def rate() -> dist.Distribution:
    return dist.LogNormal(-1.0, 0.5)


def model(
    field: Any = None, noise: Any = None, initial: Any = None, of: Any = bd.ODE, **options: Any
) -> bd.Model:
    field = Decay(rate()) if field is None else field
    layer = of(field, initial={"y": 2.0} if initial is None else initial, **options)
    return bd.Model(layer, bd.NormalNoise(0.1) if noise is None else noise)


def closed(prior: Any = None, noise: Any = None, **options: Any) -> bd.Model:
    """The same in closed form, quick to compile."""
    layer = bd.Algebraic(Decayed(rate() if prior is None else prior), **options)
    return bd.Model(layer, bd.NormalNoise(0.1) if noise is None else noise)


def data(times: Any = TIMES, **variables: Any) -> xr.Dataset:
    times = np.asarray(times)
    numbers = np.arange(times.size) if times.dtype.kind not in "iuf" else times.astype(float)
    found = xr.Dataset(
        {"y": ("time", 2.0 * np.exp(-0.4 * numbers)), "u": ("time", np.ones(times.size))}
    )
    found = found.assign_coords(time=times)
    found["y"].attrs["units"] = "mg/L"
    return found.assign({name: ("time", np.asarray(values)) for name, values in variables.items()})


def fit(of: bd.Model | None = None, to: Any = None, engine: Any = ENGINE, **options: Any) -> Any:
    return bd.fit(
        model() if of is None else of,
        data() if to is None else to,
        engine,
        progress=False,
        **options,
    )


def posterior(of: bd.Model, to: xr.Dataset | None = None, spread: float = 0.02) -> xr.DataTree:
    """What `bd.fit` would return of a model with a rate alone, as far as a forecast looks at it."""
    to = data() if to is None else to
    known = to[list(of.layer.forcings)]
    known.attrs["start"] = float(to["time"][0])
    drawn = 0.4 + spread * np.random.default_rng(0).normal(size=(2, 50))
    draws = {path: drawn for path in paths(of)}
    groups = {
        "posterior": draws_dataset(of, draws),
        "observed_data": to[["y"]].astype(float),
        "constant_data": known,
    }
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["signature"] = signature(of)
    return tree


@cache
def fitted() -> xr.DataTree:
    return posterior(closed())


@cache
def forecast() -> xr.DataTree:
    return bd.forecast(closed(), fitted(), data())


def spoilt(group: str, some: Any = slice(None), value: float = np.inf) -> xr.DataTree:
    """The forecast with a number that is not finite in some draws of each of its two chains."""
    tree = forecast().copy(deep=True)
    changed = tree[group].to_dataset().copy(deep=True)
    changed["y"].values[:, some, 2] = value
    tree[group] = xr.DataTree(changed)
    return tree


def later(first: float = 6.0, number: int = 3) -> xr.Dataset:
    return data(first + np.arange(number))
