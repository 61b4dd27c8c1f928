"""Posteriors of shared, hierarchical and derived numbers are those of the same models written by
hand in NumPyro.
"""

from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer import MCMC, NUTS

import bayes_dasl as bd
from bayes_dasl.random import paths, realise

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def by_hand(model, draws=2000, chains=4):
    """Draws of a NumPyro model, `(chain, draw, …)` by site."""
    kernel = NUTS(model, target_accept_prob=0.95)
    mcmc = MCMC(
        kernel,
        num_warmup=1000,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(7))
    return {
        name: np.asarray(values) for name, values in mcmc.get_samples(group_by_chain=True).items()
    }


def summary(values):
    values = np.asarray(values).reshape(*values.shape[:2], -1)
    data = xr.Dataset({"x": (("chain", "draw", "i"), values)})
    errors = [np.asarray(az.mcse(data, method=method)["x"]) for method in ("mean", "sd")]
    return values.mean(axis=(0, 1)), values.std(axis=(0, 1)), *errors


def assert_the_same(ours, theirs):
    """Means and standard deviations agree within four Monte-Carlo errors."""
    mean, sd, mean_error, sd_error = summary(ours)
    other_mean, other_sd, other_mean_error, other_sd_error = summary(theirs)
    assert np.all(np.abs(mean - other_mean) < 4 * np.hypot(mean_error, other_mean_error))
    assert np.all(np.abs(sd - other_sd) < 4 * np.hypot(sd_error, other_sd_error))


class Schools(bd.Module):
    effect: Any

    def __call__(self, t, y, u):
        return {"gain": self.effect[t.astype(int)]}


def known_errors(t, y, u):
    return {"log": jnp.log(u["error"])}


def schools():
    centre, spread = (
        bd.shared(dist.Normal(0.0, 5.0), "centre"),
        bd.shared(dist.HalfCauchy(5.0), "spread"),
    )
    effects = bd.dependent(lambda m, s: dist.Normal(m, s).expand((8,)).to_event(1), centre, spread)
    layer = bd.Algebraic(Schools(effects), forcings=("error",), index="school")
    model = bd.Model(layer, bd.NormalNoise(bd.noise.VaryingScale(1.0, known_errors)))
    data = xr.Dataset(
        {"gain": ("school", EFFECTS), "error": ("school", ERRORS)}, {"school": np.arange(8.0)}
    )
    return model, data


def schools_by_hand():
    centre, spread = (
        numpyro.sample("centre", dist.Normal(0.0, 5.0)),
        numpyro.sample("spread", dist.HalfCauchy(5.0)),
    )
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand((8,)).to_event(1))
    effects = numpyro.deterministic("effects", centre + spread * z)
    numpyro.sample("y", dist.Normal(effects, ERRORS), obs=EFFECTS)


@pytest.mark.slow
def test_eight_schools():
    model, data = schools()
    post = bd.fit(model, data, bd.NUTS(draws=2000), progress=False)
    theirs = by_hand(schools_by_hand)
    for ours, name in (("centre", "centre"), ("spread", "spread"), ("effect", "effects")):
        assert_the_same(post["posterior"][ours].values, theirs[name])
    assert int(post["sample_stats"]["diverging"].sum()) < 8


class Crossed(bd.Module):
    """Radon-like: a level for each county, a slope for each year, and what both have in common."""

    level: Any
    slope: Any

    def __call__(self, t, y, u):
        county, year = u["county"].astype(int), u["year"].astype(int)
        return {"radon": self.level[county] + self.slope[year] * u["floor"]}


def crossed_data():
    rng = np.random.default_rng(3)
    county, year = np.repeat(np.arange(6), 15), np.tile(np.arange(5), 18)
    floor = rng.integers(2, size=90).astype(float)
    level, slope = 1.3 + 0.4 * rng.normal(size=6), -0.6 + 0.3 * rng.normal(size=5)
    radon = level[county] + slope[year] * floor + 0.5 * rng.normal(size=90)
    columns = {"radon": radon, "county": county, "year": year, "floor": floor}
    return xr.Dataset(
        {n: ("row", np.asarray(v, float)) for n, v in columns.items()}, {"row": np.arange(90.0)}
    )


def vector(number):
    return lambda m, s: dist.Normal(m, s).expand((number,)).to_event(1)


def crossed():
    level = bd.dependent(vector(6), dist.Normal(0.0, 2.0), dist.HalfNormal(1.0))
    slope = bd.dependent(vector(5), dist.Normal(0.0, 2.0), dist.HalfNormal(1.0))
    layer = bd.Algebraic(Crossed(level, slope), forcings=("county", "year", "floor"), index="row")
    return bd.Model(layer, bd.NormalNoise(dist.HalfNormal(1.0)))


def crossed_by_hand():
    data = crossed_data()
    county, year = data["county"].values.astype(int), data["year"].values.astype(int)
    found = {}
    for name, number in (("level", 6), ("slope", 5)):
        m = numpyro.sample(f"{name}.m", dist.Normal(0.0, 2.0))
        s = numpyro.sample(f"{name}.s", dist.HalfNormal(1.0))
        z = numpyro.sample(f"{name}.z", dist.Normal(0.0, 1.0).expand((number,)).to_event(1))
        found[name] = numpyro.deterministic(name, m + s * z)
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    mean = found["level"][county] + found["slope"][year] * data["floor"].values
    numpyro.sample("y", dist.Normal(mean, scale), obs=data["radon"].values)


@pytest.mark.slow
def test_crossed_effects():
    post = bd.fit(crossed(), crossed_data(), bd.NUTS(draws=2000), progress=False)
    theirs = by_hand(crossed_by_hand)
    for name in ("level.m", "level.s", "level", "slope.m", "slope.s", "slope", "scale"):
        assert_the_same(post["posterior"][name].values, theirs[name])


class Bucket(bd.Module):
    lag: bd.Scalar

    def __call__(self, t, y, u):
        return {"store": -y["store"] / self.lag}

    def flow(self, t, y, u):
        return {"Q": y["store"] / self.lag, "half_life": jnp.log(2.0) * self.lag}


TIMES = np.arange(1.0, 9.0)
FLOWS = 10 * np.exp(-TIMES / 3.0) / 3.0 + 0.05 * np.random.default_rng(1).normal(size=8)


def shared_bucket():
    """The lag stands in the equation, in what is observed, and, halved, in the noise."""
    lag = bd.shared(dist.LogNormal(1.0, 0.5), "lag")
    layer = bd.ODE(Bucket(lag), {"store": 10.0}, Bucket.flow, start=0.0)
    return bd.Model(layer, {"Q": bd.NormalNoise(0.02 * lag)})


def bucket_by_hand():
    lag = numpyro.sample("lag", dist.LogNormal(1.0, 0.5))
    numpyro.sample("y", dist.Normal(10 * jnp.exp(-TIMES / lag) / lag, 0.02 * lag), obs=FLOWS)


@pytest.mark.thorough
def test_one_number_in_equation_observation_and_noise():
    data = xr.Dataset({"Q": ("time", FLOWS)}, {"time": TIMES})
    model = shared_bucket()
    post = bd.fit(model, data, bd.NUTS(draws=2000), progress=False)
    assert_the_same(post["posterior"]["lag"].values, by_hand(bucket_by_hand)["lag"])
    half_life = bd.evaluate(
        model, post, lambda m: {"half_life": jnp.log(2.0) * m.layer.vector_field.lag}
    )
    np.testing.assert_allclose(half_life["half_life"], np.log(2.0) * post["posterior"]["lag"])
    fc = bd.forecast(model, post, np.arange(1.0, 13.0))
    np.testing.assert_allclose(
        fc["unobserved"]["half_life"][..., 0], half_life["half_life"], rtol=1e-6
    )


class Sum(bd.Module):
    """What a network says at two inputs, which are of one shape."""

    first: Any
    second: Any

    def __call__(self, t, y, u):
        once, again = self.first(t, y, u)["g"], self.second(t, y, {"x": -u["x"]})["g"]
        return {"y": once - 0.5 * again}


def network_data():
    rng = np.random.default_rng(5)
    x = np.linspace(-2.0, 2.0, 25)
    return xr.Dataset(
        {"x": ("row", x), "y": ("row", np.sin(x) + 0.1 * rng.normal(size=25))},
        {"row": np.arange(25.0)},
    )


def one_network():
    network = bd.Network.mlp(("x",), ("g",), width=4, scale=dist.HalfNormal(1.0))
    network = bd.shared(network, "shape")
    layer = bd.Algebraic(Sum(network, network), forcings=("x",), index="row")
    return bd.Model(layer, bd.NormalNoise(dist.HalfNormal(1.0)))


@pytest.mark.slow
def test_one_network_in_two_places():
    model, data = one_network(), network_data()
    post = bd.fit(model, data, bd.NUTS(draws=2000), progress=False)
    x, y = data["x"].values, data["y"].values
    leaves = {path: leaf for path, leaf in paths(model).items() if path.startswith("shape.")}

    def hand():
        drawn = {path: numpyro.sample(path, leaf.distribution) for path, leaf in leaves.items()}
        network = realise(model.layer.function, drawn).first
        g = jax.vmap(lambda x: network(0.0, {}, {"x": x})["g"])
        mean = numpyro.deterministic("mean", g(x) - 0.5 * g(-x))
        numpyro.sample(
            "obs", dist.Normal(mean, numpyro.sample("noise", dist.HalfNormal(1.0))), obs=y
        )

    theirs = by_hand(hand)
    assert_the_same(post["posterior"]["scale"].values, theirs["noise"])
    assert_the_same(post["conditional_mean"]["y"].values, theirs["mean"])


class Decay(bd.Module):
    rate: Any

    def __call__(self, t, y, u):
        return {name: -self.rate[int(name[1:])] * value for name, value in y.items()}


def deep():
    """Three rates around a rate that lies around another,
    and their common half-life in the noise.
    """
    top = bd.dependent(dist.Normal, dist.Normal(-1.0, 0.5), dist.HalfNormal(0.5))
    top = bd.shared(top, "log_rate")
    rates = bd.dependent(
        lambda m, s: dist.LogNormal(m, s).expand((3,)).to_event(1), top, dist.HalfNormal(0.5)
    )
    layer = bd.ODE(Decay(rates), {f"y{i}": 5.0 for i in range(3)}, start=0.0)
    return bd.Model(layer, bd.NormalNoise(0.2))


def deep_data():
    rng = np.random.default_rng(2)
    series = {
        f"y{i}": 5 * np.exp(-k * TIMES) + 0.2 * rng.normal(size=8)
        for i, k in enumerate((0.3, 0.4, 0.6))
    }
    return xr.Dataset({n: ("time", v) for n, v in series.items()}, {"time": TIMES})


@pytest.mark.slow
def test_a_hierarchy_of_a_hierarchy():
    post = bd.fit(deep(), deep_data(), bd.NUTS(draws=2000), progress=False)
    data = deep_data()

    def hand():
        m, s = (
            numpyro.sample("m", dist.Normal(-1.0, 0.5)),
            numpyro.sample("s", dist.HalfNormal(0.5)),
        )
        top = numpyro.deterministic("top", m + s * numpyro.sample("z", dist.Normal(0.0, 1.0)))
        spread = numpyro.sample("spread", dist.HalfNormal(0.5))
        z = numpyro.sample("zs", dist.Normal(0.0, 1.0).expand((3,)).to_event(1))
        rate = numpyro.deterministic("rate", jnp.exp(top + spread * z))
        for i in range(3):
            numpyro.sample(
                f"y{i}", dist.Normal(5 * jnp.exp(-rate[i] * TIMES), 0.2), obs=data[f"y{i}"].values
            )

    theirs = by_hand(hand)
    for ours, name in (
        ("rate", "rate"),
        ("log_rate", "top"),
        ("log_rate.loc", "m"),
        ("log_rate.scale", "s"),
    ):
        assert_the_same(post["posterior"][ours].values, theirs[name])
