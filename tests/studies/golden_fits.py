"""Small fits that together reach every engine, every reparametrisation and most kinds of model.

This text is also run against other revisions of the package, so it imports nothing from beside it, and takes each
public name from whichever namespace has it. Gradients have a known mode: the automatic choice depends on a timing.
"""

import hashlib
import importlib
import pkgutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from arviz_stats.base.array import array_stats

import bayes_dasl

TIMES = np.linspace(0.0, 6.0, 13)
LOOSE = {"rtol": 1e-3, "atol": 1e-3, "max_steps": 128}  # of solvers: quick, and as good a witness
AHEAD = 4  # rows at the end that are forecast, not fitted
PARAMETERS = 10  # whose moments a row holds, at most


def _spaces() -> Iterator[Any]:
    yield bayes_dasl
    packages = pkgutil.walk_packages(bayes_dasl.__path__, f"{bayes_dasl.__name__}.")
    yield from (importlib.import_module(p.name) for p in packages if p.ispkg and "._" not in p.name)


class _Public:
    """The public names of the package, each from the first namespace that has it."""

    def __getattr__(self, name: str) -> Any:
        return next(getattr(space, name) for space in _spaces() if hasattr(space, name))


bd: Any = _Public()


class Decay(bd.Module):
    rate: Any

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


class Fall(bd.Module):
    """Decay in closed form."""

    rate: Any
    first: Any

    def __call__(self, t, y, u):
        return {"y": self.first * jnp.exp(-self.rate * t)}


class Line(bd.Module):
    slope: Any
    extra: Any

    def __call__(self, t, y, u):
        return {"y": self.slope * t + self.extra(t, y, u)["g"]}


class Curve(bd.Module):
    slope: Any
    fast: Any
    slow: Any

    def __call__(self, t, y, u):
        return {"y": self.slope * t + self.fast(t, y, u)["g"] + self.slow(t, y, u)["h"]}


class Bucket(bd.Module):
    share: Any

    def __call__(self, t, y, u):
        return {"store": (1 - self.share) * y["store"] + u["rain"]}

    def flow(self, t, y, u):
        return {"y": self.share * y["store"]}


class Relax(bd.Module):
    rate: Any

    def __call__(self, t, y, u):
        return {"y": 1.0 - self.rate * y["y"]}


class Chemostat(bd.Module):
    mu: Any
    half: Any

    def __call__(self, t, y, u):
        growth = self.mu * y["s"] / (self.half + y["s"]) * y["x"]
        return {"x": growth - u["d"] * y["x"], "s": u["d"] * (10.0 - y["s"]) - growth / 0.4}


class Hutchinson(bd.Module):
    rate: Any

    def __call__(self, t, y, u):
        return {"y": self.rate * y["y"] * (1 - u["past"])}


class Oral(bd.Module):
    ka: Any
    k: Any

    def __call__(self, t, y, u):
        return {"gut": -self.ka * y["gut"], "y": self.ka * y["gut"] - self.k * y["y"]}

    def seen(self, t, y, u):
        return {"y": y["y"]}


def series(values: Any, times: Any = TIMES, noise: float = 0.05) -> xr.Dataset:
    values = np.asarray(values, float)
    return xr.Dataset(
        {"y": ("time", values + noise * np.random.default_rng(0).normal(size=values.shape))},
        {"time": times},
    )


def slowing() -> xr.Dataset:
    """A decay that is slower where there is little left."""
    return series(2.0 / (1 + 0.6 * TIMES))


def positive(median: float) -> dist.Distribution:
    return dist.LogNormal(np.log(median), 0.3)


def noise() -> Any:
    return bd.NormalNoise(positive(0.05))


def nuts(**settings: Any) -> Any:
    short = {
        "chains": 2,
        "warmup": 75,
        "draws": 50,
        "map_starts": 4,
        "gradient": "reverse",
        "max_tree_depth": 4,
    }
    return bd.NUTS(**(short | settings))


def brief(steps: int = 200, **settings: Any) -> Any:
    return bd.Descent(steps=steps, **settings)


def censored():
    data = series(2.0 * np.exp(-0.5 * TIMES))
    low = data["y"].values < 0.2
    data = data.assign(y=data["y"].where(~low, 0.2), y_censored=("time", np.where(low, 1, 0)))
    model = bd.Model(bd.Algebraic(Fall(positive(0.6), positive(2.0))), bd.Censored(noise()))
    return model, data, nuts(chains=4)


def unknown_functions():
    """Linearised coordinates that follow the slopes of a formula, with unknown hyperparameters."""
    fast = bd.Basis(bd.BSpline(0.0, 6.0, 6), "t", "g")
    slow = bd.Basis(bd.HilbertGP(0.0, 6.0, 5, length=2.0, amplitude=positive(0.2)), "t", "h")
    return (
        bd.Model(bd.Algebraic(Curve(dist.Normal(0.0, 1.0), fast, slow)), noise()),
        _waves(),
        nuts(),
    )


def network_in_an_ode():
    """Conditional coordinates."""
    network = bd.Network.mlp({"y": (1.0, 0.6)}, ("y",), 0.5, width=3, depth=1)
    layer = bd.ODE(
        bd.Residual(Decay(positive(0.6)), network), {"y": dist.Normal(2.0, 0.2)}, **LOOSE
    )
    return bd.Model(layer, noise()), slowing(), nuts()


def population():
    """Partly centred coordinates."""
    subjects = [1.0, 2.0, 3.0, 5.0]
    values = 4 * np.exp(-np.outer(TIMES, [0.2, 0.3, 0.5, 0.8]))
    values += 0.1 * np.random.default_rng(0).normal(size=values.shape)
    data = xr.Dataset({"y": (("time", "subject"), values)}, {"time": TIMES, "subject": subjects})
    rate = bd.population(positive(0.4), dist.HalfNormal(0.5))
    return (
        bd.Model(bd.Each(bd.Algebraic(Fall(rate, 4.0)), subjects), bd.NormalNoise(0.1)),
        data,
        nuts(),
    )


def population_in_plain_coordinates():
    model, data, _ = population()
    return model, data, nuts(reparametrisation="none", start="pathfinder")


def difference():
    rain, store, flow = np.random.default_rng(0).gamma(0.5, 4.0, 30), 10.0, []
    for amount in rain:
        flow.append(0.3 * store)
        store = 0.7 * store + amount
    days = np.arange(30.0)
    data = series(flow, days, 0.3).assign(rain=("time", rain))
    layer = bd.Difference(
        Bucket(dist.Beta(2.0, 2.0)), {"store": positive(10.0)}, Bucket.flow, forcings="rain"
    )
    correlated = bd.CorrelatedNoise(bd.AR1(positive(0.3), dist.Uniform(0.0, 1.0)))
    return bd.Model(layer, correlated), data, nuts()


def _relaxing() -> xr.Dataset:
    return series(1.0 + np.cumsum(np.random.default_rng(1).normal(size=TIMES.size)) / 8)


def process_noise():
    """Linearised coordinates of a path."""
    added = bd.ProcessNoise({"y": dist.HalfNormal(0.5)}, (0.0, 6.0, 6))
    layer = bd.ODE(Relax(positive(1.0)), {"y": 1.0}, start=0.0, process_noise=added, **LOOSE)
    return bd.Model(layer, bd.NormalNoise(0.1)), _relaxing(), nuts()


def kalman():
    layer = bd.Kalman(
        Relax(positive(1.0)),
        {"y": dist.HalfNormal(0.5)},
        {"y": 1.0},
        {"y": 0.1},
        start=0.0,
        **LOOSE,
    )
    return bd.Model(layer, bd.NormalNoise(0.1)), _relaxing(), nuts(gradient="forward")


def stochastic():
    layer = bd.SDE(Relax(positive(1.0)), {"y": dist.HalfNormal(0.5)}, {"y": 1.0}, (0.0, 6.0, 12))
    return (
        bd.Model(layer, noise()),
        _relaxing(),
        bd.SVI(guide="mean_field", steps=200, chains=2, draws=50, particles=4),
    )


def steady_state():
    dilution = np.linspace(0.1, 0.5, 12)
    s = 1.2 * dilution / (0.8 - dilution)
    given = {"d": ("reactor", dilution), "x": ("reactor", 0.4 * (10.0 - s)), "s": ("reactor", s)}
    data = xr.Dataset(given, {"reactor": np.arange(12.0)})
    layer = bd.SteadyState(
        Chemostat(positive(0.8), positive(1.2)),
        {"x": 0.1, "s": 9.0},
        forcings=("d",),
        index="reactor",
    )
    return bd.Model(layer, noise()), data, bd.SMC(particles=64, runs=2)


def heat():
    grid = bd.Grid(x=(0.0, 1.0, 8))
    places = grid.centres("x")
    values = np.exp(-0.3 * np.pi**2 * TIMES[:, None] / 10) * np.sin(np.pi * places)
    data = xr.Dataset({"c": (("time", "x"), values)}, {"time": TIMES / 10, "x": places})
    cells = bd.FiniteVolume(grid, positive(0.5), boundary=bd.Dirichlet(0.0))
    layer = bd.PDE(cells, {"c": np.sin(np.pi * places)}, **LOOSE)
    return bd.Model(layer, noise()), data, bd.SVI(steps=100, chains=2, draws=50, particles=2)


def delay():
    layer = bd.DDE(
        Hutchinson(positive(1.0)),
        {"y": 0.2},
        {"past": ("y", dist.Uniform(0.5, 2.0))},
        longest_step=0.25,
    )
    return (
        bd.Model(layer, noise()),
        series(1.0 / (1 + 4 * np.exp(-TIMES))),
        bd.SMC(particles=64, runs=2),
    )


def doses():
    given = bd.doses(
        pd.DataFrame({"time": [0.0, 3.0], "amt": [4.0, 2.0], "cmt": [1, 1], "evid": [1, 1]}),
        ("gut", "y"),
    )
    empty = {"gut": 0.0, "y": 0.0}
    layer = bd.ODE(
        Oral(positive(1.3), positive(0.3)), empty, Oral.seen, doses=given, start=0.0, **LOOSE
    )
    once = lambda t: np.where(t > 0, 1.3 * (np.exp(-0.3 * t) - np.exp(-1.3 * t)), 0.0)  # noqa: E731
    data = series(4 * once(TIMES) + 2 * once(TIMES - 3.0))
    return (
        bd.Model(layer, noise()),
        data,
        bd.ManyChain(chains=16, warmup=48, draws=24, superchains=4, max_steps=8),
    )


def corrected():
    data = slowing()
    field = bd.corrected(Decay(positive(0.6)), data, "y", relative=True, size=6)
    model = bd.Model(bd.ODE(field, {"y": dist.Normal(2.0, 0.2)}, **LOOSE), noise())
    return model, data, bd.Joint(starts=2, descent=brief(reparametrisation="none"))


def _formula() -> Any:
    """A line and a network of time beside it."""
    network = bd.Network.mlp({"t": (3.0, 2.0)}, ("g",), positive(0.5), width=4, depth=1)
    return bd.Model(bd.Algebraic(Line(dist.Normal(0.0, 1.0), network)), noise())


def _waves() -> xr.Dataset:
    return series(0.4 * TIMES + np.sin(TIMES))


def ensemble():
    return (
        _formula(),
        _waves(),
        bd.DeepEnsemble(members=6, descent=brief(held_out=0.2, minibatch=8)),
    )


def dropout():
    return _formula(), _waves(), bd.MCDropout(draws=100, starts=2, descent=brief(patience=None))


def averaged():
    return (
        _formula(),
        _waves(),
        bd.SWAG(members=2, draws=100, collected=5, descent=brief(patience=None)),
    )


def laplace():
    return _formula(), _waves(), bd.Laplace(draws=100, starts=2, descent=brief(patience=None))


ALL: tuple[Callable[[], tuple[Any, xr.Dataset, Any]], ...] = (
    censored,
    unknown_functions,
    network_in_an_ode,
    population,
    population_in_plain_coordinates,
    difference,
    process_noise,
    kalman,
    stochastic,
    steady_state,
    heat,
    delay,
    doses,
    corrected,
    ensemble,
    dropout,
    averaged,
    laplace,
)
FITS = {fit.__name__: fit for fit in ALL}


def digest(*groups: Any) -> str:
    """A hash of the bits of all variables, in the order of their names."""
    found = hashlib.sha256()
    for group in groups:
        for name in sorted(map(str, group.data_vars)):
            found.update(np.ascontiguousarray(group[name].values, dtype=float).tobytes())
    return found.hexdigest()


def numbers(values: Any) -> list[float]:
    return [float(f"{value:.12g}") for value in np.asarray(values, float).ravel()]


def moments(draws: np.ndarray) -> list[float]:
    """Mean and standard deviation of `(chain, draw)`, each followed by its Monte-Carlo error."""
    square = (draws - draws.mean()) ** 2
    sizes: list[Any] = [
        array_stats.ess(v, chain_axis=0, draw_axis=1, method="mean") for v in (draws, square)
    ]
    sd = draws.std()
    return numbers(
        [draws.mean(), sd / sizes[0] ** 0.5, sd, square.std() / sizes[1] ** 0.5 / 2 / sd]
    )


def first_parameters(posterior: Any) -> dict[str, list[float]]:
    """The moments of the first element of the first parameters, science before network."""
    of = lambda name: (posterior[name].attrs.get("group") != "science", name)  # noqa: E731
    names = sorted(map(str, posterior.data_vars), key=of)[:PARAMETERS]
    firsts = {
        name: posterior[name].values.reshape(*posterior[name].shape[:2], -1)[..., 0]
        for name in names
    }
    return {name: moments(draws) for name, draws in firsts.items()}


def row(name: str) -> dict[str, Any]:
    """What one fit, its forecast, verdict, scores and decomposition are."""
    model, data, engine = FITS[name]()
    index = "time" if "time" in data.dims else "reactor"
    train, test = data.isel({index: slice(None, -AHEAD)}), data.isel({index: slice(-AHEAD, None)})
    post = bd.fit(model, train, engine, key=0, progress=False)
    fc = bd.forecast(model, post, data, key=1)
    parts = bd.decompose(fc)
    return {
        "fit": name,
        "draws": digest(post["posterior"]),
        "predictions": digest(*(fc[group] for group in ("predictions", "conditional_mean"))),
        "findings": [[f.level, f.subject] for f in bd.diagnose(post, fc, test).findings],
        "scores": numbers(bd.score(fc, test).select_dtypes("number")),
        "parts": {
            str(k): numbers(v.mean())
            for k, v in sorted(parts.data_vars.items())
            if v.dtype == float
        },
        "moments": first_parameters(post["posterior"]),
        "sampled_in": str(post.attrs.get("sampled_in", "")),
    }


def rows(names: Iterable[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        began = time.perf_counter()
        yield row(name)
        print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
