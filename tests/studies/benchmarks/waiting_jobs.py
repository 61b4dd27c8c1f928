"""Jobs whose CPU seconds `waiting` measures, from the import to the report.

Each job returns a model, training data and all data. Jobs use only names that the commits to be
compared have in common, and data that they simulate or that stand beside the package.
"""

import json
import resource
import sys
import tempfile
from pathlib import Path

import arviz as az
import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr

COMPILED = "/jax/core/compile/backend_compile_duration"
EXAMPLES = Path(__file__).parents[3] / "bayes_dasl" / "data" / "examples"


def cpu() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def lotka_volterra(bd):
    class LotkaVolterra(bd.Module):
        birth: bd.Scalar
        predation: bd.Scalar
        death: bd.Scalar
        growth: bd.Scalar

        def __call__(self, t, y, u):
            hare, lynx = y["hare"], y["lynx"]
            return {
                "hare": hare * (self.birth - self.predation * lynx),
                "lynx": lynx * (self.growth * hare - self.death),
            }

    return LotkaVolterra(
        birth=bd.between(0.2, 1.5), predation=bd.between(0.005, 0.1),
        death=bd.between(0.2, 1.5), growth=bd.between(0.005, 0.1),
    )  # fmt: skip


def pelts(bd, field):
    from case_studies.lynx_hare import load

    data = load()
    initial = {"hare": dist.LogNormal(3.4, 0.5), "lynx": dist.LogNormal(1.6, 0.5)}
    model = bd.Model(bd.ODE(field, initial), bd.LogNormalNoise(dist.LogNormal(-1.0, 1.0)))
    return model, bd.split(data, time=1912)[0], data


def science(bd):
    """Lotka–Volterra, 13 years of lynx and hare."""
    return pelts(bd, lotka_volterra(bd))


def network(bd):
    """The same, with a network of 22 weights that multiplies the growth rates."""

    class Corrected(bd.Module):
        science: bd.Module
        factor: bd.Network

        def __call__(self, t, y, u):
            scaled = {"hare": y["hare"] / 30.0, "lynx": y["lynx"] / 20.0}
            factor = self.factor(t, scaled, u)
            rates = self.science(t, y, u)
            return {name: rates[name] + y[name] * factor[name] for name in rates}

    both = ("hare", "lynx")
    factor = bd.Network.mlp(both, both, dist.HalfNormal(0.3), width=4, depth=1)
    return pelts(bd, Corrected(lotka_volterra(bd), factor))


def tank(bd):
    """The hybrid of the README: 28 hours of a tank, corrected."""

    class Tank(bd.Module):
        outflow: bd.Scalar

        def __call__(self, t, y, u):
            return {"level": u["inflow"] - self.outflow * y["level"]}

    table = pd.read_csv(EXAMPLES / "tank.csv")
    data = bd.from_table(table, time="time", value="level", forcings="inflow")
    train, _ = bd.split(data, time=28)
    hybrid = bd.corrected(Tank(outflow=bd.between(0.05, 1.0)), train, "level")
    initial = {"level": dist.LogNormal(-0.7, 0.5)}
    layer = bd.ODE(hybrid, initial, forcings=("inflow",))
    return bd.Model(layer, bd.LogNormalNoise(dist.LogNormal(-3.0, 1.0))), train, data


def lake(bd):
    """Three years of a lake's daily temperature with the air above it."""

    class Lake(bd.Module):
        exchange: bd.Scalar

        def __call__(self, t, y, u):
            return {"water": self.exchange * (u["air"] - y["water"])}

    rng = np.random.default_rng(0)
    days = np.arange(3 * 365.0)
    weather = np.zeros(days.size)
    for i in range(1, days.size):
        weather[i] = 0.8 * weather[i - 1] + rng.normal(0, 2.0)
    air = 10 - 9 * np.cos(2 * np.pi * days / 365) + weather
    water = np.empty(days.size)
    water[0] = 5.0
    # The truth mixes less heat where the lake is cold.
    for i in range(1, days.size):
        rate = 0.02 + 0.04 / (1 + np.exp(-(water[i - 1] - 10) / 2))
        water[i] = water[i - 1] + rate * (air[i - 1] - water[i - 1])
    seen = water + rng.normal(0, 0.3, days.size)
    data = xr.Dataset({"water": ("time", seen), "air": ("time", air)}, {"time": days})
    train, _ = bd.split(data, time=730)
    field = Lake(bd.between(0.005, 0.2))
    layer = bd.ODE(field, {"water": dist.Normal(5.0, 2.0)}, forcings=("air",))
    return bd.Model(layer, bd.NormalNoise(dist.LogNormal(-1.0, 1.0))), train, data


def fisher(bd):
    """Fisher–KPP: a density that spreads, with an unknown growth law; 100 data."""
    import jax.numpy as jnp

    class Growth(bd.Module):
        rate: bd.Scalar
        law: bd.Basis

        def __call__(self, t, y, u):
            n = y["density"]
            return {"density": self.rate * n * (1 - n) + self.law(t, y, u)["growth"]}

    places = 10

    def observed(t, y, u):
        each = y["density"].reshape(places, -1).mean(1)
        return {f"at_{i}": each[i] for i in range(places)}

    def layer(growth, diffusion):
        grid = bd.pde.Grid(x=(0.0, 10.0, 20))
        law = bd.pde.FiniteVolume(
            grid,
            diffusion,
            reaction=growth,
            boundary={"x_low": bd.pde.Flux(0.0), "x_high": bd.pde.Flux(0.0)},
        )
        start = 0.8 * jnp.exp(-((jnp.linspace(0.25, 9.75, 20) - 1.0) ** 2))
        return bd.pde.PDE(law, {"density": start}, observed, start=0.0, max_steps=500)

    # The truth has an Allee effect: no growth at low densities.
    def truth(t, y, u):
        n = y["density"]
        return {"density": 2.0 * n * (1 - n) * (n + 0.1)}

    times = np.linspace(0.5, 5.0, 10)
    blank = xr.Dataset(
        {f"at_{i}": ("time", np.zeros(times.size)) for i in range(places)}, {"time": times}
    )
    from bayes_dasl.inference import pose

    exact = bd.Model(layer(truth, 0.3), bd.NormalNoise(dist.HalfNormal(1.0)))
    values = exact.predict(pose(exact, blank).inputs).values
    rng = np.random.default_rng(1)
    data = blank.copy()
    for name, value in values.items():
        data[name] = ("time", np.asarray(value) + rng.normal(0, 0.03, times.size))
    process = bd.bases.HilbertGP(0.0, 1.2, 8, amplitude=dist.HalfNormal(0.3))
    growth = Growth(dist.LogNormal(0.0, 0.7), bd.Basis(process, "density", "growth"))
    model = bd.Model(layer(growth, dist.LogNormal(-1.0, 0.7)), bd.NormalNoise(dist.HalfNormal(0.2)))
    return model, bd.split(data, time=4)[0], data


def steady(bd):
    """A chemostat at rest with a network of width 6 as a factor of growth; 40 data."""

    class Chemostat(bd.Module):
        largest: bd.Scalar
        factor: bd.Network

        def __call__(self, t, y, u):
            food = y["food"]
            uptake = self.largest * food / (1.0 + food) * 2.0 ** self.factor(t, y, u)["factor"]
            return {"food": u["inflow"] * (10.0 - food) - uptake}

    rng = np.random.default_rng(2)
    inflow = np.sort(rng.uniform(0.05, 1.0, 40))
    # The truth inhibits uptake by much food: inflow (10 − S) = 2 S / (1 + S + S² / 8).
    grid = np.linspace(0.01, 9.99, 4000)
    rest = inflow[:, None] * (10 - grid) - 2 * grid / (1 + grid + grid**2 / 8)
    food = grid[np.argmax(rest < 0, axis=1)]
    data = xr.Dataset(
        {"food": ("row", food * np.exp(rng.normal(0, 0.05, 40))), "inflow": ("row", inflow)},
        {"row": np.arange(40.0)},
    )
    factor = bd.Network.mlp({"food": (0.0, 10.0)}, ("factor",), width=6, depth=1)
    layer = bd.SteadyState(
        Chemostat(dist.LogNormal(0.5, 0.5), factor), {"food": 1.0}, forcings="inflow", index="row"
    )
    return bd.Model(layer, bd.LogNormalNoise(dist.LogNormal(-2.0, 1.0))), data, data


JOBS = {job.__name__: job for job in (science, network, tank, lake, fisher, steady)}
# The settings of NUTS, if they are not the defaults. The README's example keeps 500 draws.
SETTINGS = {"tank": {"draws": 500}}


def run(name: str) -> dict[str, float]:
    """Return CPU seconds by phase, the number of compiled programs, and the largest R-hat."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: event == COMPILED and compiled.append(seconds)
    )
    found: dict[str, float] = {}
    since = 0.0

    def done(phase: str) -> None:
        nonlocal since
        now = cpu()
        found[phase] = now - since
        since = now

    import bayes_dasl as bd

    model, train, data = JOBS[name](bd)
    done("import and model")
    str(bd.check(model, train))
    done("check")
    post = bd.fit(model, train, bd.NUTS(**SETTINGS.get(name, {})), key=0, progress=False)
    done("fit")
    forecast = bd.forecast(model, post, data)
    done("forecast")
    str(bd.diagnose(post, forecast, data))
    with tempfile.TemporaryDirectory() as folder:
        bd.report(post, forecast, data, model=model).save(Path(folder) / "report.html")
    done("report")
    draws = post["posterior"].dataset
    # The weights of unknown functions are judged by the log density alone.
    numbers = draws[[n for n, v in draws.items() if v.ndim == 2]]
    found["R-hat"] = max(float(v) for v in az.rhat(numbers).values())
    found["divergences"] = float(post["sample_stats"]["diverging"].mean())
    found["programs"] = len(compiled)
    found["total"] = cpu()
    return found


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
