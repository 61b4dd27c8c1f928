"""Forecasts: closed forms, chunks, forcings of then and of now, and files that lose nothing."""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import posterior
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.prediction import predictive as _predictive


class Forced(bd.Module):
    r"""$\dot y = a u(t) - k y$."""

    gain: bd.Scalar
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.gain * u["u"] - self.rate * y["y"]}


@pytest.fixture(scope="module")
def forced():
    rng = np.random.default_rng(0)
    times = np.linspace(0.0, 6.0, 13)
    data = xr.Dataset({"u": ("time", np.sin(times)), "y": ("time", np.zeros(13))}, {"time": times})
    data["y"].attrs["units"] = "K"
    data["y"].values = 1.0 + 0.3 * np.sin(times) + 0.05 * rng.normal(size=13)
    model = bd.Model(
        bd.ODE(
            Forced(gain=bd.between(0.1, 2.0), rate=bd.between(0.05, 2.0)),
            {"y": dist.Normal(1.0, 0.2)},
            forcings=("u",),
        ),
        bd.NormalNoise(scale=dist.HalfNormal(0.2)),
    )
    train, _ = bd.split(data, time=4.0)
    post = bd.fit(model, train, Sifting(draws=200), key=0)
    return model, data, post


@pytest.fixture(scope="module")
def whole(forced):
    """Its forecast at all times of the data."""
    model, data, post = forced
    return bd.forecast(model, post, data)


@pytest.mark.thorough
def test_a_saved_fit_gives_identical_forecasts(forced, whole, tmp_path):
    model, data, post = forced
    loaded = bd.load(bd.save(post, tmp_path / "posterior.nc"))
    assert loaded.attrs == post.attrs
    for group in post.children:
        xr.testing.assert_identical(loaded[group].to_dataset(), post[group].to_dataset())
    again = bd.forecast(model, loaded, data)
    for group in whole.children:
        xr.testing.assert_identical(whole[group].to_dataset(), again[group].to_dataset())
    saved = bd.load(bd.save(whole, tmp_path / "forecast.nc"))
    xr.testing.assert_identical(
        saved["predictions"].to_dataset(), whole["predictions"].to_dataset()
    )


@pytest.mark.thorough
def test_moments_are_those_of_the_predictions(forced, whole):
    (_, _, post), fc = forced, whole
    scale = post["posterior"]["scale"]
    np.testing.assert_allclose(fc["conditional_variance"]["y"][..., 0], scale**2)
    assert fc["predictions"]["y"].attrs["units"] == "K"
    assert fc["conditional_variance"]["y"].attrs["units"] == "(K)²"
    surprise = (fc["predictions"]["y"] - fc["conditional_mean"]["y"]) / np.sqrt(
        fc["conditional_variance"]["y"]
    )
    assert abs(float(surprise.mean())) < 4 / np.sqrt(surprise.size)
    assert abs(float(surprise.std()) - 1) < 4 / np.sqrt(2 * surprise.size)
    assert fc["sample_stats_predictions"]["ok"].values.all()
    inside = post["conditional_mean"]["y"].values
    # Both solves end a step at each kink of the interpolated forcing, so they agree.
    np.testing.assert_allclose(
        fc["conditional_mean"]["y"].values[..., : inside.shape[-1]], inside, rtol=1e-6
    )


@pytest.mark.thorough
def test_the_forecast_carries_on_from_the_start_of_the_fit(forced, whole):
    """Asked for the future alone, with forcings of the future alone, the answer is the same."""
    model, data, post = forced
    _, test = bd.split(data, time=4.0)
    future = bd.forecast(model, post, test)
    later = whole["conditional_mean"]["y"].sel(time=test["time"])
    np.testing.assert_allclose(future["conditional_mean"]["y"], later, rtol=1e-6)
    assert (future.attrs["train_start"], future.attrs["train_end"]) == (0.0, 4.0)


@pytest.mark.thorough
def test_under_other_forcings_nothing_was_fitted(forced):
    """From where they differ on."""
    model, data, post = forced
    changed = data.assign(u=data["u"].where(data["time"] < 2.2, 0.3))
    assert bd.forecast(model, post, changed).attrs["train_end"] == 2.0
    assert "train_end" not in bd.forecast(model, post, data.assign(u=data["u"] + 1.0)).attrs


@pytest.mark.thorough
def test_a_forcing_that_differs_only_between_the_data_of_the_fit_is_another(forced):
    model, data, post = forced
    when = float(data["time"][5] + data["time"][6]) / 2
    between = data.interp(time=[when]).assign(y=("time", [np.nan]))
    for added, end in ((0.0, 4.0), (1.0, float(data["time"][5]))):
        denser = xr.concat([data, between.assign(u=between["u"] + added)], "time").sortby("time")
        assert bd.forecast(model, post, denser).attrs["train_end"] == end


@pytest.mark.thorough
def test_chunks_change_nothing(forced, whole, monkeypatch):
    model, data, post = forced
    monkeypatch.setattr(_predictive, "_LARGEST_CHUNK", 150)  # 400 draws: the last chunk is padded
    parts = bd.forecast(model, post, data)
    for group in ("predictions", "conditional_mean", "conditional_variance"):
        np.testing.assert_allclose(parts[group]["y"], whole[group]["y"], rtol=1e-9)


class Proportional(bd.Module):
    gain: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.gain * u["u"]}


def test_observations_later_than_the_fit_are_never_used():
    """With them, without them, and with others a forecast is the same to the last digit."""
    times = np.arange(6.0)
    data = xr.Dataset({"u": ("time", np.sin(times)), "y": ("time", np.cos(times))}, {"time": times})
    model = bd.Model(
        bd.Algebraic(Proportional(dist.Normal(0, 1)), forcings=("u",)), bd.NormalNoise(0.1)
    )
    gains = np.random.default_rng(0).normal(size=(2, 50))
    post = posterior(model, bd.split(data, time=2.0)[0], {"layer.function.gain": gains})
    others = data[["u"]], data.assign(y=data["y"].where(data["time"] <= 2.0, 1000.0))
    seen, *found = (
        bd.forecast(model, post, known)["predictions"].to_dataset() for known in (data, *others)
    )
    for other in found:
        xr.testing.assert_identical(seen, other)
    assert seen["y"].shape == (2, 50, 6)


@pytest.mark.thorough
def test_observations_are_never_used(forced, whole):
    model, data, post = forced
    blind = bd.forecast(model, post, data[["u"]])
    xr.testing.assert_identical(
        blind["predictions"].to_dataset(), whole["predictions"].to_dataset()
    )


@pytest.mark.thorough
def test_a_forcing_must_be_known_ahead(forced):
    model, data, post = forced
    with pytest.raises(
        ValueError, match="forcing 'u' is not in the data; a forecast needs it up to 6"
    ):
        bd.forecast(model, post, data[["y"]])


@pytest.mark.thorough
def test_scores_and_parts_of_a_real_forecast(forced, whole):
    _, test = bd.split(forced[1], time=4.0)
    table = bd.score(whole, test)
    assert table.loc["all", "n"] == test.sizes["time"]
    assert 0 < table.loc["y", "crps"] < 1
    parts = bd.decompose(whole)
    np.testing.assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"], rtol=1e-6)
    assert "network" not in parts


@pytest.mark.thorough
def test_coordinates_besides_time_do_no_harm(forced, whole):
    model, data, post = forced
    season = data.assign_coords(season=("time", ["dry", "wet"] * 6 + ["dry"]))
    labelled = bd.forecast(model, post, season)
    np.testing.assert_array_equal(whole["predictions"]["y"], labelled["predictions"]["y"])
