"""Baselines: what they must repeat, and that they are calibrated where they should be."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings, strategies as st
from trees import make_data, make_fc

import bayes_dasl as bd
from bayes_dasl.errors import DataError, MismatchError
from bayes_dasl.scores import baseline_forecasts, pit, score
from bayes_dasl.scores.baselines import (
    BASELINES,
    _pairs_at_lead,
    baselines,
    climatology,
    persistence,
    seasonal_climatology,
)
from bayes_dasl.scores.ensemble_scores import score_ensemble
from bayes_dasl.scores.scores import score_baselines


def series(values, time=None):
    time = np.arange(float(len(values))) if time is None else time
    return xr.Dataset({"y": ("time", np.asarray(values, float))}, {"time": time})


def members(ensemble, column=0):
    values = ensemble["y"].values[:, column]
    return np.sort(values[np.isfinite(values)])


def test_climatology_repeats_the_observed_training_values():
    ensemble = climatology(series([3.0, np.nan, 1.0, 2.0]), [10.0, 20.0])
    assert ensemble["y"].dims == ("draw", "time")
    for column in range(2):
        assert list(members(ensemble, column)) == [1.0, 2.0, 3.0]


@given(st.floats(-5, 5), st.floats(-100, 100), st.floats(0.1, 30.0), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_persistence_continues_a_straight_line_at_any_lead_that_it_has_seen(
    slope, start, step, seed
):
    time = step * np.arange(12.0)
    lead = step * np.random.default_rng(seed).integers(1, 8)
    forecast = members(persistence(series(start + slope * time, time), [time[-1] + lead]))
    assert forecast == pytest.approx(start + slope * (time[-1] + lead), rel=1e-6, abs=1e-6)


def test_persistence_takes_the_changes_at_the_same_lead():
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 6.0, 10.0])
    ensemble = persistence(series(values), [8.0, 10.0])
    assert list(members(ensemble, 0)) == sorted(10 + np.diff(values))
    assert list(members(ensemble, 1)) == sorted(10 + values[3:] - values[:-3])


def test_persistence_starts_from_the_last_observed_value():
    ensemble = persistence(series([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, np.nan]), [8.0])
    assert members(ensemble) == pytest.approx(9.0)


def test_persistence_beyond_the_longest_lead_takes_the_five_nearest_pairs_and_ties():
    values = np.arange(6.0) ** 2
    forecast = members(persistence(series(values), [100.0]))
    changes = [25, 24, 16, 21, 15, 9]  # lead 5, leads 4, and all leads 3, which tie
    assert list(forecast) == sorted(25.0 + np.array(changes))


def test_persistence_before_the_data_goes_backwards():
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 6.0, 10.0])
    found = persistence(series(values), [-2.0])
    mirrored = persistence(series(values[::-1], -np.arange(8.0)[::-1]), [2.0])
    np.testing.assert_allclose(members(found), members(mirrored))


def test_persistence_between_the_data_begins_at_the_last_value_before():
    values = np.arange(8.0) ** 2
    found = persistence(series(values), [3.0, 3.5])
    assert list(members(found, 0)) == [9.0] * 5 or members(found, 0).min() == 9.0 + 1.0
    assert list(members(found, 1)) == sorted(9.0 + np.diff(values))


def test_persistence_of_years_of_days_takes_little_memory():
    """All pairs of them would take gigabytes."""
    rng = np.random.default_rng(0)
    train = series(rng.normal(size=1461).cumsum())
    tracemalloc.start()
    ensemble = persistence(train, 1461.0 + np.arange(200.0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * ensemble["y"].nbytes


@pytest.mark.parametrize("regular", [True, False])
def test_pairs_are_those_of_a_search_through_all(regular):
    rng = np.random.default_rng(1)
    seen = np.arange(40.0) if regular else np.sort(rng.uniform(0, 40, 40))
    earlier, later = np.triu_indices(40, 1)
    for lead in (0.3, 1.0, 7.0, 38.0, 100.0):
        distance = np.abs(seen[later] - seen[earlier] - lead)
        limit = max(np.sort(distance)[4], 0.5) * (1 + 1e-9)
        wanted = {(i, j) for i, j, d in zip(earlier, later, distance, strict=True) if d <= limit}
        assert (
            set(zip(*map(np.ndarray.tolist, _pairs_at_lead(seen, lead, 0.5)), strict=True))
            == wanted
        )


def test_few_values_give_what_there_is():
    single = series([np.nan, 2.0])
    assert list(members(persistence(single, [3.0]))) == [2.0]
    assert list(members(climatology(single, [3.0]))) == [2.0]
    nothing = series([np.nan, np.nan])
    assert members(persistence(nothing, [3.0])).size == members(climatology(nothing, [3.0])).size
    scores = score_baselines(nothing, series([1.0, 2.0], [2.0, 3.0]))
    assert np.isnan(scores["persistence"].loc["all", "crps"])


def coverage(baseline, make_series, n_train, replicates=300):
    rng = np.random.default_rng(8)
    covered = []
    for _ in range(replicates):
        values = make_series(rng.normal(size=n_train + 1))
        ensemble = baseline(series(values[:-1]), [float(n_train)])["y"].values
        covered.append(score_ensemble(ensemble, values[-1:])["coverage_80"])
    return np.mean(covered)


def restless(steps):
    """A random walk whose steps grow: past changes are too small for the future."""
    return np.cumsum(steps * np.linspace(0.2, 2.0, steps.size))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("baseline", "make_series", "other"),
    [
        pytest.param(climatology, np.array, np.cumsum, marks=pytest.mark.slow),
        (persistence, np.cumsum, restless),
    ],
)
def test_each_baseline_is_calibrated_for_its_own_world_only(baseline, make_series, other):
    # Central quantiles of n exchangeable members cover (n - 1) / (n + 1) of the nominal share.
    n = 30
    expected = 0.8 * (n - 1) / (n + 1)
    tolerance = 4 * np.sqrt(expected * (1 - expected) / 300)
    assert abs(coverage(baseline, make_series, n) - expected) < tolerance
    assert abs(coverage(baseline, other, n) - expected) > tolerance


def test_scores_have_the_columns_and_rows_of_score():
    train, test = make_data(missing=2)
    tables = score_baselines(train, test)
    expected = score(make_fc(), test)
    assert list(tables) == ["climatology", "persistence"]
    for table in tables.values():
        assert list(table.columns) == list(expected.columns)
        assert list(table.index) == list(expected.index)
        assert table.notna().all(axis=None)
        assert table["n"].equals(expected["n"])


def test_a_good_forecast_beats_the_baselines():
    train, test = make_data()
    crps = score(make_fc(), test).loc["all", "crps"]
    assert all(crps < table.loc["all", "crps"] for table in score_baselines(train, test).values())


def test_forcings_are_not_scored_when_observables_are_named():
    train, test = (part.assign(rain=part["hare"]) for part in make_data())
    table = score_baselines(train, test, observables=("hare", "lynx"))["climatology"]
    assert list(table.index) == ["hare", "lynx", "all"]


def test_errors_name_what_is_missing_and_where():
    train, test = make_data()
    with pytest.raises(MismatchError, match="test data lack the observables lynx; they hold hare"):
        score_baselines(train, test[["hare"]])
    with pytest.raises(MismatchError, match="training data lack the observables hares"):
        score_baselines(train, test, observables=["hares"])


def seasonal(years, units="day", step=1.0, seed=0):
    """Daily values of a yearly wave with noise, from the tenth day of some year on."""
    rng = np.random.default_rng(seed)
    time = 10.0 + np.arange(0.0, 365.2425 * years, step)
    values = 10 * np.sin(2 * np.pi * time / 365.2425) + rng.normal(size=time.size)
    data = series(values, time)
    data["time"].attrs["units"] = units
    return data


def test_a_seasonal_climatology_takes_the_season_of_all_years():
    train = seasonal(3.0)
    time = train["time"].values
    t = float(time[-1]) + 200.0
    found = members(seasonal_climatology(train, [t]))
    apart = np.abs((time - t + 182.62125) % 365.2425 - 182.62125)
    assert sorted(train["y"].values[apart <= 15.5]) == list(found)
    assert 3 * 30 <= found.size <= 3 * 32
    # Across the end of the year too, and for times before the data.
    around = members(seasonal_climatology(train, [0.0]))
    assert around.size >= 3 * 30
    assert abs(around.mean()) < 1.0


def test_a_season_without_values_takes_the_five_nearest():
    train = seasonal(3.0).isel(time=slice(0, 900, 60))
    assert members(seasonal_climatology(train, [2000.0])).size == 5


@pytest.mark.parametrize(
    ("units", "scale"),
    [("h", 24.0), ("seconds", 86400.0), ("days since 2001-01-01", 1.0), ("yr", 1 / 365.2425)],
)
def test_a_year_is_one_in_any_unit_of_time(units, scale):
    train = seasonal(2.0, units)
    expected = members(seasonal_climatology(seasonal(2.0), [800.3]))
    train = train.assign_coords(time=("time", train["time"].values * scale, train["time"].attrs))
    assert list(members(seasonal_climatology(train, [800.3 * scale]))) == list(expected)


def test_years_of_a_calendar_without_leap_days():
    train = seasonal(3.0)
    train["time"].attrs["calendar"] = "360_day"
    apart = np.abs((train["time"].values - 1500.0 + 180) % 360 - 180)
    assert (
        members(seasonal_climatology(train, [1500.0])).size
        == (apart <= 15.5 / 365.2425 * 360).sum()
    )


def test_only_data_with_seasons_have_a_seasonal_climatology():
    plain = ["climatology", "persistence"]
    assert list(baselines(seasonal(2.0))) == [*plain, "seasonal climatology"] == list(BASELINES)
    assert list(baselines(seasonal(1.5))) == plain
    assert list(baselines(seasonal(4.0, step=365.0))) == plain
    assert list(baselines(seasonal(2.0, units="m"))) == plain
    yearly, _ = make_data()
    assert yearly["time"].attrs["units"] == "year" and list(baselines(yearly)) == plain
    with pytest.raises(DataError, match="no unit of time"):
        seasonal_climatology(series([1.0, 2.0]), [3.0])


@pytest.mark.thorough
def test_where_there_are_seasons_it_is_the_one_to_beat():
    whole = seasonal(3.0)
    tables = score_baselines(whole.isel(time=slice(800)), whole.isel(time=slice(800, None)))
    assert list(tables) == list(BASELINES)
    best = min(tables, key=lambda name: tables[name].loc["all", "crps"])
    assert best == "seasonal climatology"


def cycle(years, noise=0.0):
    """Weekly values with one cycle a year, a trend of one a year, and white noise."""
    time = np.datetime64("2001-01-01") + 7 * np.arange(52 * years)
    days = 7 * np.arange(time.size)
    values = 5 * np.sin(2 * np.pi * days / 365.2425) + days / 365.2425
    values += noise * np.random.default_rng(0).normal(size=time.size)
    return xr.Dataset(
        {"y": ("time", values, {"units": "m"}), "rain": ("time", 0 * values)}, {"time": time}
    )


class TestPublic:
    def test_seasonal_naive_goes_on_from_the_same_day_of_the_years_before(self):
        train, test = bd.split(cycle(6), time="2004-12-31")
        found = baseline_forecasts(train, test, observables=["y"])
        mean = found["seasonal naive"]["predictions"]["y"].mean(("chain", "draw"))
        # The season is met within half a week, in which the cycle moves by 0.3.
        assert float(np.abs(mean - test["y"]).max()) < 0.35

    def test_scores_and_pits_take_them(self):
        train, test = bd.split(cycle(5, noise=0.5), time="2004-12-31")
        found = baseline_forecasts(train, test, observables=["y"])
        assert [*found] == ["climatology", "persistence", "seasonal climatology", "seasonal naive"]
        tables = {name: score(fc, test).loc["y"] for name, fc in found.items()}
        assert tables["seasonal naive"]["crps"] < 0.5 * tables["climatology"]["crps"]
        assert {row["n"] for row in tables.values()} == {test.sizes["time"]}
        assert float(pit(found["seasonal naive"], test)["y"].std()) == pytest.approx(
            12**-0.5, abs=0.1
        )

    def test_those_of_a_study_are_the_same(self):
        train, test = bd.split(cycle(4, noise=0.5)[["y"]], time="2003-12-31")
        own = score_baselines(train, test)
        for name, fc in baseline_forecasts(train, test).items():
            if name in own:  # up to the quantiles that stand for an ensemble of another size
                assert score(fc, test).loc["y", "crps"] == pytest.approx(
                    own[name].loc["y", "crps"], rel=0.02
                )

    def test_without_seasons_there_are_two(self):
        assert [*baseline_forecasts(series([1.0, 2.0, 3.0]), series([0.0], [4.0]))] == [
            "climatology",
            "persistence",
        ]

    def test_data_without_a_value(self):
        with pytest.raises(DataError, match="the training data hold no value of 'y'"):
            baseline_forecasts(series([np.nan, np.nan]), series([1.0]))

    def test_an_unknown_observable(self):
        with pytest.raises(
            MismatchError, match="the training data lack the observables flow; they hold y"
        ):
            baseline_forecasts(series([1.0, 2.0]), series([1.0]), observables=["flow"])
