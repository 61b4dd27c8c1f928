"""Rows that have the same time are replicates: data like any other wherever rows are independent
given the states.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer.util import log_density
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.data.datasets import fingerprint
from bayes_dasl.errors import DataError
from bayes_dasl.inference import pose
from bayes_dasl.inference.reparametrisations.gradient_matching import Matching
from bayes_dasl.scores.baselines import climatology, persistence
from bayes_dasl.scores.matching import held_out, matched
from bayes_dasl.scores.scores import score_baselines
from bayes_dasl.updating.taking_in import _joined_data
from tests.studies.bad.given import closed, data, model, posterior

TIMES = np.array([0.0, 1.0, 1.0, 2.0, 4.0, 4.0, 4.0])
ONCE = np.array([0.0, 1.0, 2.0, 4.0])


def scattered(times=TIMES, key=0):
    """Data whose replicates differ."""
    found = data(times)
    return found.assign(y=found["y"] + 0.1 * np.random.default_rng(key).normal(size=len(times)))


def density(of, given):
    problem = pose(of, given)
    return float(
        log_density(of, (problem.inputs, problem.observed), {}, {"layer.vector_field.rate": 0.4})[0]
    )


@pytest.mark.thorough
def test_each_counts_in_the_likelihood_of_an_ode():
    """The density of all rows is that of each one alone, but that the prior counts once."""
    of, whole = model(forcings=("u",)), scattered()
    prior = float(dist.LogNormal(-1.0, 0.5).log_prob(0.4))
    y = 2.0 * np.exp(-0.4 * TIMES)
    expected = prior + dist.Normal(y, 0.1).log_prob(whole["y"].values).sum()
    assert density(of, whole) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("kind", ["linear", "step", "cubic"])
def test_a_forcing_runs_through_each_time_once(kind):
    forced = bd.inputs(
        data(TIMES).assign(u=("time", TIMES**2)), forcings=["u"], interpolation={"u": kind}
    )
    plain = bd.inputs(
        data(ONCE).assign(u=("time", ONCE**2)), forcings=["u"], interpolation={"u": kind}
    )
    np.testing.assert_array_equal(forced.times, TIMES)
    for t in (0.5, 1.0, 3.0, 4.0):
        assert float(forced.forcings["u"](jnp.asarray(t))) == float(
            plain.forcings["u"](jnp.asarray(t))
        )


def test_what_differs_between_replicates_is_an_observation():
    assert list(bd.inputs(scattered()).forcings) == ["u"]
    with pytest.raises(DataError, match="forcing 'y' has two values at time 1"):
        bd.inputs(scattered(), forcings=["y"])


def test_they_stay_together_in_a_split():
    train, test = bd.split(scattered(), time=1.0)
    assert train["time"].values.tolist() == [0.0, 1.0, 1.0] and test["time"].values.tolist() == [
        2.0,
        4.0,
        4.0,
        4.0,
    ]


def test_other_replicates_are_other_data():
    assert fingerprint(scattered()) != fingerprint(scattered(key=1))


def test_starts_of_segments_are_at_their_mean():
    whole = scattered()
    prior = bd.equations.segment_states(whole, ("y",), (1.0, 4.0), 1.0)["y"]
    mean = whole["y"].groupby("time").mean()
    np.testing.assert_allclose(prior.loc, mean.sel(time=[1.0, 4.0]))


@pytest.mark.thorough
def test_paths_that_start_a_hybrid_go_through_their_mean():
    """A smoothing spline takes no two values at one time."""
    off = np.tile([0.1, -0.1], 6)
    pairs = data(np.repeat(np.arange(6.0), 2))
    paths = [
        Matching(pose(model(), given))._paths[0]
        for given in (pairs.assign(y=pairs["y"] + off), data())
    ]
    np.testing.assert_allclose(paths[0].first["y"], paths[1].first["y"], rtol=1e-9)


@pytest.fixture(scope="module")
def judged():
    """A posterior of the first rows, and its forecast of all."""
    whole = scattered()
    train, test = bd.split(whole, time=2.0)
    post = posterior(closed(), train)
    return post, bd.forecast(closed(), post, whole), train, test, whole


@pytest.mark.thorough
def test_a_forecast_has_a_row_for_each(judged):
    _, fc, *_ = judged
    np.testing.assert_array_equal(fc["predictions"]["time"], TIMES)
    drawn = fc["predictions"]["y"].values.reshape(-1, TIMES.size)
    mean = fc["conditional_mean"]["y"].values.reshape(-1, TIMES.size)
    np.testing.assert_array_equal(mean[:, 4], mean[:, 5])
    assert (drawn[:, 4] != drawn[:, 5]).all()  # the noise of each is its own


def test_each_is_scored_against_a_row_of_its_own(judged):
    _, fc, _, _, whole = judged
    ensembles, common = matched(fc, whole)
    draws, observed = ensembles["y"]
    np.testing.assert_array_equal(draws, fc["predictions"]["y"].values.reshape(-1, TIMES.size))
    np.testing.assert_array_equal(observed, whole["y"])
    assert common.sizes["time"] == TIMES.size
    assert bd.scores.pit(fc, whole)["y"].shape == (TIMES.size,)


@pytest.mark.thorough
def test_a_forecast_of_each_time_once_serves_all(judged):
    post, *_, whole = judged
    fc = bd.forecast(closed(), post, ONCE)
    draws, observed = matched(fc, whole)[0]["y"]
    assert observed.size == TIMES.size
    np.testing.assert_array_equal(draws[:, 5], draws[:, 6])
    back = matched(bd.forecast(closed(), post, whole), whole.isel(time=[0, 1, 3, 4]))[0]["y"]
    assert back[1].size == ONCE.size


def test_what_was_fitted_is_known_by_time(judged):
    _, _, train, _, whole = judged
    left = held_out(train, whole, (0.0, 2.0))
    np.testing.assert_array_equal(left["y"].isnull(), TIMES <= 2.0)


@pytest.mark.thorough
def test_a_verdict_and_a_report(judged):
    post, fc, _, test, _ = judged
    assert "held-out data" in str(bd.diagnose(post, fc, test))
    html = bd.report(post, fc, test).html
    assert "3 held-out values" in html and "3 values fitted" not in html


def test_figures_draw_each_time_once(judged):
    _, fc, train, test, _ = judged
    figure = bd.plots.plot_forecast(fc, train, test, "y")
    medians = next(line for line in figure.axes[0].lines if line.get_label() == "median")
    np.testing.assert_array_equal(medians.get_xdata(), ONCE)
    bd.plots.plot_decomposition(bd.decompose(fc), "y")
    plt.close("all")


def test_climatology_knows_all_of_them():
    members = climatology(scattered()[["y"]], [5.0])
    np.testing.assert_array_equal(np.sort(members["y"].values[:, 0]), np.sort(scattered()["y"]))


def test_persistence_goes_on_from_each_replicate_of_the_last_time():
    """Without changes between times the members are the replicates, plus the differences of rows
    two apart.
    """
    train = xr.Dataset({"y": ("time", [1.0, 1.0, 3.0, 5.0])}, {"time": [0.0, 1.0, 2.0, 2.0]})
    members = persistence(train, [3.0])["y"].values[:, 0]
    # Leads of one: from 0 to 1, from 1 to each of the last rows; the five nearest are all pairs but
    # one.
    assert set(members) <= {a + c for a in (3.0, 5.0) for c in (0.0, 2.0, 4.0)}
    assert members.min() < 5.0 < members.max()


def test_persistence_of_one_time_repeats_its_replicates():
    train = xr.Dataset({"y": ("time", [1.0, 2.0])}, {"time": [1.0, 1.0]})
    np.testing.assert_array_equal(persistence(train, [3.0])["y"].values[:, 0], [1.0, 2.0])


def test_baselines_are_scored_on_each(judged):
    _, _, train, test, _ = judged
    tables = score_baselines(train[["y"]], test[["y"]])
    assert tables["persistence"].loc["y", "n"] == tables["climatology"].loc["y", "n"] == 3


def test_an_update_keeps_them(judged):
    """Rows of the fit and new ones, each as often as it was there."""
    post, *_ = judged
    joined = _joined_data(closed(), post, scattered([3.0, 3.0]))
    np.testing.assert_array_equal(joined["time"], [0.0, 1.0, 1.0, 2.0, 3.0, 3.0])
    assert not joined["y"].isnull().any()
    np.testing.assert_array_equal(joined["y"][:4], post["observed_data"]["y"])
    with pytest.raises(DataError, match="the posterior knows 'y' at time 1 already"):
        _joined_data(closed(), post, scattered([1.0]))


@pytest.mark.thorough
def test_a_check_counts_them():
    assert "7 times from 0 to 4, 3 of them replicates" in str(
        bd.check(closed(), scattered()).findings[0]
    )


@pytest.mark.thorough
def test_from_a_fit_to_an_update(tmp_path):
    """All verbs on one set of data with replicates."""
    engine = Sifting(draws=40)
    post = bd.fit(closed(), scattered(), engine, progress=False)
    assert post["log_likelihood"]["y"].shape == (2, 40, TIMES.size)
    post = bd.load(bd.save(post, tmp_path / "post.nc"))
    new = scattered([4.5, 5.0, 5.0], key=2)
    updated = bd.update(closed(), post, new, engine=engine, progress=False)
    assert updated["observed_data"].sizes["time"] == 10
    assert updated["log_likelihood"]["y"].notnull().all()
    fc = bd.forecast(closed(), updated, scattered([5.0, 6.0, 6.0], key=3))
    assert (fc.attrs["train_start"], fc.attrs["train_end"]) == (0.0, 5.0)
    assert np.isfinite(fc["predictions"]["y"]).all()
