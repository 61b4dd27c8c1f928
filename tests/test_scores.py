"""Scores against closed forms, their invariances, and calibration that a wrong spread breaks."""

import functools

import numpy as np
import pandas as pd
import pytest
import scoringrules
import xarray as xr
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from trees import TEST_TIMES, make_data, make_fc

from bayes_dasl.errors import BayesDaslError, DataError, MismatchError
from bayes_dasl.scores import pit, score
from bayes_dasl.scores.ensemble_scores import COLUMNS, score_ensemble
from bayes_dasl.scores.matching import held_out

finite = st.floats(-1e3, 1e3, allow_subnormal=False)


def forecast_of(draws, time=None):
    """A forecast of the observable y from draws (draw, time), in one chain."""
    time = np.arange(float(draws.shape[1])) if time is None else time
    predictions = xr.Dataset({"y": (("chain", "draw", "time"), draws[None])}, {"time": time})
    return xr.DataTree.from_dict({"predictions": predictions})


def data_of(observed, time=None):
    time = np.arange(float(len(observed))) if time is None else time
    return xr.Dataset({"y": ("time", observed)}, {"time": time})


DRAWS, TIMES, LOCATION, SCALE = 4000, 200, 3.0, 2.0


@functools.cache
def gaussian_scores(factor):
    """Observations, and the scores of a Gaussian ensemble whose spread is off by a factor."""
    observed = np.linspace(-1.0, 7.0, TIMES)
    noise = np.random.default_rng(1).normal(size=(DRAWS, TIMES))
    return observed, score_ensemble(LOCATION + factor * SCALE * noise, observed)


class TestClosedForms:
    """Gaussian ensembles, for which the scores are known."""

    def crps_error(self, factor):
        observed, scores = gaussian_scores(factor)
        exact = np.mean(scoringrules.crps_normal(observed, LOCATION, SCALE))
        # E|x - y| has at most the standard deviation of x; four standard errors of the mean.
        return abs(scores["crps"] - exact) / (4 * SCALE / np.sqrt(DRAWS * TIMES))

    @pytest.mark.thorough
    def test_crps(self):
        assert self.crps_error(1.0) < 1
        assert self.crps_error(1.2) > 1

    def log_score_error(self, factor):
        observed, scores = gaussian_scores(factor)
        # The kernel density estimates the density convolved with the kernel.
        width = 1.06 * DRAWS**-0.2
        smooth = SCALE * np.sqrt(1 + width**2)
        exact = np.asarray(scoringrules.logs_normal(observed, LOCATION, smooth))
        # Relative variance of a Gaussian kernel density, at each time: 1 / (2 sqrt(pi) m h f).
        density = stats.norm.pdf(observed, LOCATION, SCALE)
        variance = 1 / (2 * np.sqrt(np.pi) * DRAWS * width * SCALE * density)
        tolerance = 4 * np.sqrt(variance.mean() / TIMES) + variance.mean()
        return abs(scores["log_score"] - exact.mean()) / tolerance

    @pytest.mark.thorough
    def test_log_score(self):
        assert self.log_score_error(1.0) < 1
        assert self.log_score_error(1.2) > 1

    def test_interval_score(self):
        observed, scores = gaussian_scores(1.0)
        half = SCALE * stats.norm.ppf(0.95)
        low, high = LOCATION - half, LOCATION + half
        exact = scoringrules.interval_score(observed, low, high, 0.1)
        # A quantile's standard error, weighted by at most 2 / alpha = 20.
        density = stats.norm.pdf(stats.norm.ppf(0.95)) / SCALE
        error = np.sqrt(0.05 * 0.95 / DRAWS) / density
        assert abs(scores["interval_score_90"] - np.mean(exact)) < 4 * 20 * error / np.sqrt(TIMES)


@pytest.mark.thorough("1.2-False", "0.8333333333333334-False")
@pytest.mark.parametrize(("factor", "calibrated"), [(1.0, True), (1.2, False), (1 / 1.2, False)])
def test_coverage_is_nominal_only_for_the_right_spread(factor, calibrated):
    rng = np.random.default_rng(2)
    n_times, n_draws = 2500, 400
    scores = score_ensemble(factor * rng.normal(size=(n_draws, n_times)), rng.normal(size=n_times))
    within = []
    for level in (50, 80, 90, 95):
        nominal = level / 100
        # Binomial error over the times, and the bias of two quantiles from n draws.
        tolerance = 4 * np.sqrt(nominal * (1 - nominal) / n_times) + 2 / n_draws
        within.append(abs(scores[f"coverage_{level}"] - nominal) < tolerance)
    assert all(within) == calibrated


@given(arrays(float, (7, 3), elements=finite), arrays(float, 3, elements=finite))
@settings(deadline=None, max_examples=60)
def test_errors_and_fair_crps_follow_their_definitions(draws, observed):
    scores = score_ensemble(draws, observed)
    squared = np.mean((draws.mean(axis=0) - observed) ** 2)
    spread = np.abs(draws[:, None] - draws[None]).sum(axis=(0, 1)) / (7 * 6)
    crps = np.mean(np.abs(draws - observed).mean(axis=0) - spread / 2)
    assert scores["mse"] == pytest.approx(squared)
    assert scores["rmse"] == pytest.approx(np.sqrt(squared))
    assert scores["mae"] == pytest.approx(np.abs(np.median(draws, axis=0) - observed).mean())
    assert scores["crps"] == pytest.approx(crps, abs=1e-9)
    assert scores["coverage_50"] <= scores["coverage_80"] <= scores["coverage_95"]


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100.0), st.floats(-100.0, 100.0))
@settings(deadline=None, max_examples=40)
def test_scores_follow_a_change_of_units(seed, factor, shift):
    rng = np.random.default_rng(seed)
    draws, observed = rng.normal(size=(50, 4)), rng.normal(size=4)
    before = score_ensemble(draws, observed)
    after = score_ensemble(factor * draws + shift, factor * observed + shift)
    assert after["mse"] == pytest.approx(factor**2 * before["mse"], rel=1e-6)
    for name in ("rmse", "mae", "crps", "interval_score_90"):
        assert after[name] == pytest.approx(factor * before[name], rel=1e-6, abs=1e-9)
    assert after["log_score"] == pytest.approx(before["log_score"] + np.log(factor), abs=1e-6)


def test_missing_observations_and_failed_draws_leave_no_trace():
    rng = np.random.default_rng(3)
    draws, observed = rng.normal(size=(40, 5)), rng.normal(size=5)
    expected = score_ensemble(np.delete(draws, 2, axis=1), np.delete(observed, 2))
    observed[2] = np.nan
    failed = np.insert(draws, [0, 17, 40], np.nan, axis=0)
    failed[0] = np.inf
    scores = score_ensemble(failed, observed)
    assert scores == pytest.approx(expected)
    assert scores["n"] == 4


def test_each_time_uses_the_draws_it_has():
    rng = np.random.default_rng(4)
    draws, observed = rng.normal(size=(40, 2)), rng.normal(size=2)
    draws[30:, 1] = np.nan
    parts = [
        score_ensemble(draws[:, :1], observed[:1]),
        score_ensemble(draws[:30, 1:], observed[1:]),
    ]
    crps = np.mean([part["crps"] for part in parts])
    assert score_ensemble(draws, observed)["crps"] == pytest.approx(crps)


@pytest.mark.parametrize(
    ("draws", "observed", "n"),
    [
        (np.full((5, 3), np.nan), np.zeros(3), 3),
        (np.empty((0, 3)), np.zeros(3), 3),
        (np.zeros((5, 3)), np.full(3, np.nan), 0),
    ],
)
def test_without_draws_or_data_every_score_is_nan(draws, observed, n):
    scores = score_ensemble(draws, observed)
    assert scores.pop("n") == n
    assert np.isnan(list(scores.values())).all()


def test_equal_draws_have_a_crps_and_no_log_score():
    scores = score_ensemble(np.ones((6, 2)), np.array([1.0, 3.0]))
    assert scores["crps"] == 1.0
    assert np.isnan(scores["log_score"])


def test_one_draw_is_scored_by_its_distance():
    scores = score_ensemble(np.array([[1.0, 1.0]]), np.array([1.0, 3.0]))
    assert scores["crps"] == scores["mae"] == 1.0


def test_mostly_equal_draws_still_have_a_log_score():
    draws = np.array([0.0] * 9 + [1.0])[:, None]
    width = 1.06 * draws.std() * 10**-0.2
    exact = -np.log(np.mean(stats.norm.pdf(0.2, draws, width)))
    assert score_ensemble(draws, np.array([0.2]))["log_score"] == pytest.approx(exact)


def test_log_score_is_finite_far_from_every_draw():
    draws = np.random.default_rng(5).normal(size=(500, 1))
    quartiles = np.quantile(draws, [0.25, 0.75])
    width = 1.06 * min(draws.std(), np.diff(quartiles)[0] / 1.34) * 500**-0.2
    exact = -np.logaddexp.reduce(stats.norm.logpdf(100.0, draws[:, 0], width)) + np.log(500)
    score_far = score_ensemble(draws, np.array([100.0]))["log_score"]
    assert score_far == pytest.approx(exact)
    assert score_far > 1000


def test_score_tabulates_observables_and_their_mean():
    _, test = make_data(missing=2)
    table = score(make_fc(failures=5), test)
    assert list(table.index) == ["hare", "lynx", "all"]
    assert sorted(table.columns) == sorted(COLUMNS)
    assert table.columns[0] == "crps"  # a narrow terminal shows the first columns only
    assert table.attrs["failed_draws"] == 5
    assert list(table["n"]) == [6, 6, 12]
    for column in COLUMNS[:-1]:
        assert table.loc["all", column] == pytest.approx(table[column].iloc[:2].mean())


def test_score_is_that_of_the_shared_times():
    fc = make_fc()
    train, test = make_data()
    longer = xr.concat([test, test.assign_coords(time=test["time"] + 100)], "time")
    assert score(fc, longer).equals(score(fc, test))
    assert not score(fc, train).equals(score(fc, test))
    rounded = test.assign_coords(time=test["time"] * (1 + 1e-13))
    assert score(fc, rounded).equals(score(fc, test))


@pytest.mark.parametrize("start", [0.0, 1.7e9])
def test_times_a_second_apart_are_not_shared(start):
    """Neither are those a tenth of the least gap apart, whatever the clock began with."""
    fc, (_, test) = make_fc(), make_data()
    shifted = lambda data, by: data.assign_coords(time=data["time"] - TEST_TIMES[0] + start + by)  # noqa: E731
    clock = xr.DataTree.from_dict({"predictions": shifted(fc["predictions"].to_dataset(), 0.0)})
    assert score(clock, shifted(test, 0.0)).equals(score(fc, test))
    for apart in (1e-3, 0.4):
        with pytest.raises(MismatchError, match="is in the forecast"):
            score(clock, shifted(test, apart))


def test_times_of_32_bits_are_those_of_64():
    times = np.arange(11) / 10
    predictions = xr.Dataset(
        {"y": (("chain", "draw", "time"), np.zeros((1, 20, 11)))}, {"time": times}
    )
    data = xr.Dataset({"y": ("time", np.zeros(11))}, {"time": times.astype(np.float32)})
    table = score(xr.DataTree.from_dict({"predictions": predictions}), data)
    assert table.loc["y", "n"] == 11 and table.attrs["times_left_out"] == 0
    later = xr.concat([data, data.assign_coords(time=data["time"] + 10)], "time")
    assert (
        score(xr.DataTree.from_dict({"predictions": predictions}), later).attrs["times_left_out"]
        == 11
    )


def test_every_column_is_printed():
    table = score(make_fc(), make_data()[1])
    assert isinstance(table, pd.DataFrame) and "..." not in repr(table)
    assert all(column in repr(table) for column in COLUMNS)
    assert max(map(len, repr(table).splitlines())) <= 100


def test_what_was_fitted_is_known_by_row():
    train = xr.Dataset({"y": ("time", [1.0, np.nan, 3.0])}, {"time": [0.0, 1.0, 2.0]})
    data = xr.Dataset({"y": ("time", [1.0, 2.0, 3.0, 4.0])}, {"time": [0.0, 1.0, 2.0, 3.0]})
    kept = held_out(train, data, (0.0, 2.0))["y"].values
    np.testing.assert_array_equal(kept, [np.nan, 2.0, np.nan, 4.0])
    np.testing.assert_array_equal(
        held_out(train, data, (0.0, 1.0))["y"].values, [np.nan, 2.0, 3.0, 4.0]
    )
    np.testing.assert_array_equal(held_out(train, data, (None, None))["y"].values, data["y"].values)


@pytest.mark.parametrize("rounded", [np.float32, lambda times: np.nextafter(times, 9.0)])
def test_what_was_fitted_is_known_up_to_the_rounding_of_times(rounded):
    times = np.array([0.1, 0.7, 1.1])
    train = xr.Dataset({"y": ("time", [1.0, np.nan, 3.0])}, {"time": times})
    data = xr.Dataset(
        {"y": ("time", [1.0, 2.0, 3.0, 4.0])}, {"time": rounded(np.append(times, 1.2))}
    )
    np.testing.assert_array_equal(
        held_out(train, data, (0.1, 1.1))["y"].values, [np.nan, 2.0, np.nan, 4.0]
    )


def test_swapped_observables_score_worse():
    _, test = make_data()
    fc = make_fc()
    swapped = test.rename(hare="lynx", lynx="hare")
    assert score(fc, swapped).loc["all", "crps"] > 1.5 * score(fc, test).loc["all", "crps"]


def test_an_observable_without_data_does_not_count():
    _, test = make_data()
    test["lynx"] = test["lynx"] * np.nan
    table = score(make_fc(), test)
    assert table.loc["lynx", "n"] == 0
    assert np.isnan(table.loc["lynx", "crps"])
    assert table.loc["all"].equals(table.loc["hare"].rename("all"))


def test_a_forecast_that_failed_throughout_is_scored_as_nan():
    _, test = make_data()
    table = score(make_fc(failures=800), test)
    assert table.attrs["failed_draws"] == 800
    assert table["crps"].isna().all()
    assert pit(make_fc(failures=800), test)["hare"].isnull().all()


@pytest.mark.parametrize("function", [score, pit])
def test_data_that_are_infinite_are_not_missing(function):
    _, test = make_data()
    with pytest.raises(DataError, match="'hare' is infinite; a missing value is NaN"):
        function(
            make_fc(), test.assign(hare=test["hare"].where(test["time"] > test["time"][0], np.inf))
        )


@pytest.mark.parametrize("function", [score, pit])
def test_errors_name_what_is_missing_and_what_exists(function):
    _, test = make_data()
    with pytest.raises(MismatchError, match=r"lack the observables lynx .* hold hare"):
        function(make_fc(), test[["hare"]])
    later = test.assign_coords(time=test["time"] + 100)
    with pytest.raises(MismatchError, match=r"no time of the data .*2013.* forecast .*1900"):
        function(make_fc(), later)
    assert issubclass(MismatchError, (BayesDaslError, ValueError))


def uniformity(draws, observed):
    values = pit(forecast_of(draws), data_of(observed))["y"].values
    return stats.kstest(values, "uniform").pvalue


@pytest.mark.parametrize(("factor", "calibrated"), [(1.0, True), (1.2, False)])
def test_pit_is_uniform_only_for_a_calibrated_forecast(factor, calibrated):
    rng = np.random.default_rng(6)
    draws, observed = factor * rng.normal(size=(200, 3000)), rng.normal(size=3000)
    assert (uniformity(draws, observed) > 1e-3) == calibrated


@pytest.mark.parametrize(("rate", "calibrated"), [(0.7, True), (0.9, False)])
def test_pit_of_counts_is_uniform_only_for_a_calibrated_forecast(rate, calibrated):
    rng = np.random.default_rng(7)
    draws = rng.poisson(rate, size=(200, 3000)).astype(float)
    assert (uniformity(draws, rng.poisson(0.7, size=3000).astype(float)) > 1e-3) == calibrated


def test_pit_is_uniform_however_few_the_draws():
    rng = np.random.default_rng(9)
    for n_draws in (1, 3):
        assert uniformity(rng.normal(size=(n_draws, 3000)), rng.normal(size=3000)) > 1e-3


def test_pit_is_reproducible_and_nan_where_missing():
    train, test = make_data(missing=2)
    values = pit(make_fc(), test)
    assert values.identical(pit(make_fc(), test))
    assert list(values["hare"].isnull().values) == [True] * 2 + [False] * 6
    assert values.max().to_array().max() <= 1
    assert values["time"].attrs["units"] == "year"
    assert pit(make_fc(), train).sizes["time"] == 13
