"""Forecasts and updates that go on from the states at the end of a fit, beside those that solve
from its start.
"""

import logging

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.prediction import forecasts
from bayes_dasl.updating import taking_in

DAYS = np.datetime64("2001-01-01") + np.arange(40)
FITTED = 25


class Pond(bd.Module):
    """A store that loses a share each day."""

    share: bd.Scalar

    def __call__(self, t, y, u):
        return {"water": y["water"] * (1 - self.share) + u["rain"]}

    def seen(self, t, y, u):
        return {"level": y["water"], "flow": self.share * y["water"]}


class Drain(Pond):
    """The same as a rate."""

    def __call__(self, t, y, u):
        return {"water": u["rain"] - self.share * y["water"]}


def model(kind):
    layer, equation = (bd.Difference, Pond) if kind == "difference" else (bd.ODE, Drain)
    start = {"water": dist.LogNormal(2.3, 0.3)}
    return bd.Model(
        layer(equation(bd.between(0.05, 0.4)), start, equation.seen, forcings="rain"),
        {"level": bd.NormalNoise(3.0), "flow": bd.NormalNoise(0.8)},
    )


def series():
    """Data with gaps: of the level before and after the end of the fit,
    of the flow after it alone.
    """
    rng = np.random.default_rng(0)
    rain = rng.gamma(0.5, 2.0, DAYS.size)
    level, flow = 8.0 + rng.normal(size=DAYS.size), 1.5 + 0.3 * rng.normal(size=DAYS.size)
    level[[3, 17, 27]], flow[28] = np.nan, np.nan
    columns = {"level": level, "flow": flow, "rain": rain}
    return xr.Dataset({name: ("time", values) for name, values in columns.items()}, {"time": DAYS})


DATA = series()
OLD, NEW = DATA.isel(time=slice(0, FITTED)), DATA.isel(time=slice(FITTED, FITTED + 3))


@pytest.fixture(scope="module", params=["difference", "ode"])
def fitted(request):
    made = model(request.param)
    return made, bd.fit(made, OLD, Sifting(draws=100))


def from_the_start(monkeypatch):
    monkeypatch.setattr(forecasts, "ends_of", lambda post: None)
    monkeypatch.setattr(taking_in, "ends_of", lambda post: None)


def assert_alike(one: xr.DataTree, other: xr.DataTree, but: tuple[str, ...] = ()):
    assert {*one.children} == {*other.children}
    for name in {*one.children} - {*but}:
        # A solver that starts anew chooses other steps.
        xr.testing.assert_allclose(
            one[name].to_dataset(), other[name].to_dataset(), rtol=2e-5, atol=2e-5
        )


@pytest.mark.thorough("ode-24", "ode-25")
@pytest.mark.parametrize("first", [FITTED - 1, FITTED])
def test_a_forecast_from_the_end_is_that_from_the_start(fitted, monkeypatch, first):
    made, post = fitted
    later = DATA.isel(time=slice(first, None))[["rain"]]
    short = bd.forecast(made, post, later)
    from_the_start(monkeypatch)
    long = bd.forecast(made, post, later)
    assert_alike(short, long, ("sample_stats_predictions",))
    steps = [fc["sample_stats_predictions"]["steps"].values.max() for fc in (short, long)]
    assert steps[0] + 15 <= steps[1]


@pytest.mark.thorough("ode")
def test_a_what_if_is_solved_from_the_start(fitted):
    made, post = fitted
    other = bd.Model(made.layer, {"level": bd.NormalNoise(1.0), "flow": bd.NormalNoise(0.5)})
    fc = bd.forecast(other, post, NEW[["rain"]], what_if=True)
    assert fc["sample_stats_predictions"]["steps"].values.min() >= FITTED


@pytest.mark.thorough("ode")
def test_an_update_from_the_end_is_that_from_the_start(fitted, monkeypatch):
    made, post = fitted
    short = bd.update(made, post, NEW, key=1)
    from_the_start(monkeypatch)
    long = bd.update(made, post, NEW, key=1)
    assert short.attrs["updated_by"] == long.attrs["updated_by"] == "importance weights"
    assert short.attrs["effective_draws"] == pytest.approx(long.attrs["effective_draws"], rel=1e-4)
    assert short.attrs["posterior_sha256"] == long.attrs["posterior_sha256"]
    # Predictive draws of the old rows are those of the fit there, and new ones here.
    assert_alike(short, long, ("posterior_predictive",))
    one, other = (tree["posterior_predictive"].to_dataset() for tree in (short, long))
    assert one.sizes == other.sizes
    old = post["posterior_predictive"].to_dataset()["flow"].values
    assert np.isin(one["flow"].values[..., : old.shape[-1]], old).all()


def test_a_second_day_compiles_no_program(caplog):
    made = model("difference")
    post = bd.fit(made, OLD, Sifting(draws=100))
    caplog.set_level(logging.DEBUG, logger="jax._src.compiler")
    compiled = []
    for day in range(FITTED, FITTED + 3):
        caplog.clear()
        post = bd.update(made, post, DATA.isel(time=[day]), key=1)
        bd.forecast(made, post, DATA.isel(time=slice(day + 1, day + 6))[["rain"]])
        compiled.append(
            [said for said in caplog.messages if "CACHE MISS" in said and "'jit_stage'" not in said]
        )
    # JAX copies each array to its device by a program "stage" for its length, which computes
    # nothing.
    assert compiled[1:] == [[], []]
    assert any("jit_stage" in said for said in caplog.messages)  # the log is heard
