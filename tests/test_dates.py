"""Dates along the index: exact numbers inside a model, dates in all that comes out of it."""

import dataclasses
import datetime
from fractions import Fraction

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings, strategies as st
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.data.datasets import fingerprint
from bayes_dasl.data.dates import as_date, counted_in, dates, in_words, numbers
from bayes_dasl.errors import DataError, MismatchError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.plots import plot_decomposition, plot_derived, plot_field, plot_forecast
from bayes_dasl.scores.baselines import baselines
from bayes_dasl.study import (
    forecast_times,
    future_forcings,
    future_times,
    new_observations,
    new_rows,
)

DAYS = np.arange("2001-01-01", "2001-01-31", dtype="datetime64[D]").astype("datetime64[ns]")


class Bucket(bd.Module):
    """A store that rain fills and that drains by a share a day; `t` is told as it is."""

    share: bd.Scalar

    def __call__(self, t, y, u):
        return {"store": (1 - self.share) * y["store"] + u["rain"]}

    def flow(self, t, y, u):
        return {"flow": self.share * y["store"], "day": t}


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"flow": -self.rate * y["flow"]}


def bucket(share=0.3, **more):
    return bd.Difference(Bucket(share), {"store": 10.0}, Bucket.flow, forcings="rain", **more)


def model(layer=None):
    return bd.Model(
        bucket(bd.between(0.1, 0.6)) if layer is None else layer, {"flow": bd.NormalNoise(0.2)}
    )


def data(times=DAYS):
    rng = np.random.default_rng(0)
    rain, store, flow = rng.gamma(0.5, 4.0, len(times)), 10.0, []
    for fallen in rain:
        flow.append(0.3 * store)
        store = 0.7 * store + fallen
    flow = np.array(flow) + 0.2 * rng.normal(size=len(times))
    return xr.Dataset({"rain": ("time", rain), "flow": ("time", flow)}, {"time": times})


def in_days(found):
    """The same data with numbers: days since 2001."""
    days = (found["time"] - np.datetime64("2001-01-01")) / np.timedelta64(1, "D")
    return found.assign_coords(time=("time", days.values, {"units": "day"}))


@pytest.fixture(scope="module")
def fitted():
    train, test = bd.split(data(), time="2001-01-20")
    return train, test, bd.fit(model(), train, Sifting(), progress=False)


@pytest.fixture(scope="module")
def forecast(fitted):
    return bd.forecast(model(), fitted[2], data())


class TestNumbers:
    @pytest.mark.thorough
    @given(
        st.integers(-(2**61), 2**61),
        st.sampled_from(["ns", "us", "s"]),
        st.sampled_from(["s", "h", "day", "year"]),
    )
    @settings(max_examples=200, deadline=None)
    def test_are_exact_to_the_last_digit(self, ticks, step, unit):
        """Against fractions of whole numbers: two roundings,
        of the part of a unit and of the sum.
        """
        ticks = ticks if step == "ns" else ticks // 10**9 if step == "us" else ticks // 10**12
        per = {"ns": 10**9, "us": 10**6, "s": 1}[step]
        seconds = {"s": 1, "h": 3600, "day": 86400, "year": 31557600}[unit]
        origin = int((np.datetime64("1999-12-31T07:30", "s") - np.datetime64(0, "s")).astype(int))
        found = numbers(np.array([np.datetime64(ticks, step)]), f"{unit} since 1999-12-31T07:30")[0]
        exact = Fraction(ticks - origin * per, per * seconds)
        assert abs(Fraction(float(found)) - exact) <= Fraction(
            float(np.spacing(abs(found)))
        ) + Fraction(1, 2**53)

    def test_do_not_lose_what_floats_since_1970_would(self):
        times = np.datetime64("2024-05-01T00:00", "ns") + np.arange(5) * np.timedelta64(100, "ns")
        found = numbers(times, "s since 2024-05-01")
        np.testing.assert_array_equal(found, np.arange(5) * 100 / 1e9)

    def test_are_days_since_1970_unless_said(self):
        np.testing.assert_array_equal(numbers(DAYS), np.arange(11323.0, 11353.0))
        assert counted_in("") == "day since 1970-01-01" and counted_in("h") == "h since 1970-01-01"

    @pytest.mark.parametrize("step", ["s", "ms", "us", "ns"])
    def test_and_back(self, step):
        times = np.array(["2001-02-03T04:05:06", "1903-01-01"], f"datetime64[{step}]")
        for units in ("", "h", "years since 2000-01-01"):
            np.testing.assert_array_equal(dates(numbers(times, units), times, units), times)

    @pytest.mark.parametrize(
        ("units", "said"),
        [
            ("mg", "'mg' is no unit in which dates"),
            ("days since then", "names no date"),
            ("h since NaT", "no date"),
        ],
    )
    def test_refuse_what_is_no_unit_of_time(self, units, said):
        with pytest.raises(ModelError, match=said):
            counted_in(units)

    @pytest.mark.parametrize(
        "date",
        ["2001-06-30", "2001-06-30T00:00", datetime.date(2001, 6, 30), np.datetime64("2001-06-30"),
         pd.Timestamp("2001-06-30T02:00+02:00")],
        ids=str,
    )  # fmt: skip
    def test_dates_of_many_kinds(self, date):
        assert (
            as_date(date) == np.datetime64("2001-06-30") and in_words(as_date(date)) == "2001-06-30"
        )

    @pytest.mark.parametrize("date", ["now", "today", "10/11/2001", "noon", 2001, None], ids=str)
    def test_refuse_what_is_no_date(self, date):
        with pytest.raises((ValueError, TypeError)):
            as_date(date)


class TestData:
    def test_split(self):
        train, test = bd.split(data(), time="2001-01-10")
        assert train["time"].values[-1] == np.datetime64("2001-01-10") and train.sizes["time"] == 10
        assert test["time"].values[0] == np.datetime64("2001-01-11")
        for date in (datetime.date(2001, 1, 10), np.datetime64("2001-01-10T12:00")):
            xr.testing.assert_identical(bd.split(data(), time=date)[0], train)

    def test_refuses_another_kind_of_place(self):
        with pytest.raises(
            DataError, match="'time' holds dates, so give one, such as '2001-06-30', not 10"
        ):
            bd.split(data(), time=10)
        with pytest.raises(DataError, match="a number of 'time' is needed, not '2001-01-10'"):
            bd.split(in_days(data()), time="2001-01-10")
        with pytest.raises(
            DataError, match="leaves one side empty: the data run from 2001-01-01 to 2001-01-30"
        ):
            bd.split(data(), time="2002-01-01")

    def test_fingerprints_do_not_hang_on_how_finely_dates_are_kept(self):
        finer = data(DAYS.astype("datetime64[s]"))
        assert (
            fingerprint(finer)
            == fingerprint(data())
            != fingerprint(data(DAYS + np.timedelta64(1, "D")))
        )
        assert pose(model(), finer).fingerprint() == pose(model(), data()).fingerprint()

    @pytest.mark.parametrize(
        ("times", "said"),
        [
            (
                DAYS[::-1],
                r"must increase: time\[1\]=2001-01-29.* is not after time\[0\]=2001-01-30.*; sort",
            ),
            (
                np.where(np.arange(30) == 3, np.datetime64("NaT", "ns"), DAYS),
                r"time\[3\] is no date",
            ),
            (DAYS - DAYS[0], "time must be numbers .* divide it by a unit of time"),
            (DAYS.astype(str), "time must be numbers .* make dates by pandas.to_datetime"),
            (
                DAYS + np.timedelta64(1, "h"),
                "the dates of time are not whole days, so say in which unit",
            ),
            (
                np.arange(30).astype("datetime64[Y]").astype("datetime64[s]"),
                "lie a month or more apart, so say",
            ),
        ],
        ids=["falling", "missing", "durations", "text", "hours", "years"],
    )
    def test_refuses_dates_that_are_none_or_leave_the_unit_open(self, times, said):
        with pytest.raises(DataError, match=said):
            pose(model(), data(times))

    def test_refuses_steps_that_numbers_cannot_tell_apart(self):
        times = DAYS[0] + np.arange(30) * np.timedelta64(100, "us")
        layer = bucket(bd.between(0.1, 0.6), length=1e-4, units={"time": "s"})
        with pytest.raises(
            DataError,
            match=r"lost in numbers that count s since 1970.*units={'time': 's since 2001-01",
        ):
            pose(model(layer), data(times))
        pose(
            model(bucket(bd.between(0.1, 0.6), length=1e-4, units={"time": "s since 2001-01-01"})),
            data(times),
        )


class TestModel:
    @pytest.mark.thorough
    def test_is_that_of_the_numbers_that_it_counts(self):
        """A unit and since when: the density, and the time that the equation sees, are those of
        numbers.
        """
        layer = bucket(bd.between(0.1, 0.6), units={"time": "days since 2001-01-01"})
        dated, plain = pose(model(layer), data()), pose(model(), in_days(data()))
        np.testing.assert_array_equal(dated.inputs.times, plain.inputs.times)
        at = plain.prior(3, key=jax.random.key(0))
        np.testing.assert_array_equal(
            jax.vmap(dated.log_density)(at), jax.vmap(plain.log_density)(at)
        )

    @pytest.mark.thorough
    @pytest.mark.parametrize("units", ["h", "h since 2001-01-01", "s since 2000-12-31"])
    def test_solves_as_well_long_after_1970(self, units):
        rate = 0.3 / (3600 if units.startswith("s ") else 1)
        decaying = bd.Model(
            bd.ODE(Decay(rate), {"flow": 8.0}, units={"time": units}), bd.NormalNoise(1.0)
        )
        minutes = np.array([0, 1, 7, 60, 600])
        times = DAYS[0] + minutes * np.timedelta64(1, "m")
        found = decaying.predict(decaying.inputs(xr.Dataset(coords={"time": times})))
        np.testing.assert_allclose(
            found.values["flow"], 8.0 * np.exp(-0.3 * minutes / 60), rtol=1e-5
        )

    @pytest.mark.thorough
    def test_a_filter_looks_back_at_dates(self):
        def filtered(**more):
            layer = bd.filtering.Kalman(
                Decay(bd.between(0.1, 1.0)), {"flow": 0.3}, {"flow": 3.0}, {"flow": 1.0}, **more
            )
            return bd.Model(layer, bd.NormalNoise(0.2))

        seen = data()[["flow"]].isel(time=[0, 1, 2, 4, 7])
        dated, plain = (
            pose(filtered(units={"time": "day since 2001-01-01"}), seen),
            pose(filtered(), in_days(seen)),
        )
        at = plain.prior(1, key=jax.random.key(0))[0]
        assert float(dated.log_density(at)) == float(plain.log_density(at))

    def test_counts_in_the_unit_of_its_rates(self):
        hours = data(DAYS[0] + np.arange(30) * np.timedelta64(30, "m"))
        found = model(bucket(length=0.5, units={"time": "h since 2001-01-01"})).inputs(hours)
        np.testing.assert_array_equal(found.times, np.arange(30) / 2)

    def test_means_the_same_whatever_date_is_first(self):
        some = data().isel(time=slice(5, None))
        np.testing.assert_array_equal(model().inputs(some).times, model().inputs(data()).times[5:])

    @pytest.mark.thorough
    def test_says_dates_of_what_it_refuses(self):
        early = bucket(bd.between(0.1, 0.6), start="2000-12-30")
        told = [
            f.message
            for f in bd.check(model(early), data()).findings
            if f.subject == "forcing rain"
        ]
        assert told == [
            "known from 2001-01-01 on; from the start of the solve at 2000-12-30 until then it is "
            "held constant"
        ]
        with pytest.raises(
            DataError,
            match=r"time\[0\]=2001-01-01 lies before the start of the model at 2001-01-05",
        ):
            pose(model(bucket(bd.between(0.1, 0.6), start="2001-01-05")), data())

    @pytest.mark.parametrize(
        "start", ["2000-12-30", datetime.datetime(2000, 12, 30), np.datetime64("2000-12-30")]
    )
    def test_starts_at_a_date(self, start):
        layer = bucket(bd.between(0.1, 0.6), start=start)
        assert float(pose(model(layer), data()).inputs.start) == 11321.0
        with pytest.raises(
            DataError, match="the layer starts at 2000-12-30, but time holds no dates"
        ):
            pose(model(layer), in_days(data()))

    def test_refuses_numbers_of_which_it_is_not_said_what_they_count(self):
        with pytest.raises(
            ModelError,
            match=r"start=0 is a number: say what it counts, by units={'time': 'day since 20",
        ):
            pose(model(bucket(bd.between(0.1, 0.6), start=0.0)), data())
        pose(
            model(bucket(bd.between(0.1, 0.6), start=0.0, units={"time": "day since 2001-01-01"})),
            data(),
        )

    @pytest.mark.thorough
    def test_refuses_a_jump_likewise(self):
        def dosed(**units):
            ode = bd.ODE(
                Decay(bd.between(0.1, 1.0)),
                {"flow": 1.0},
                jumps=bd.Jump(3.0, {"flow": 1.0}),
                units=units,
            )
            return bd.Model(ode, bd.NormalNoise(0.2))

        with pytest.raises(ModelError, match="the time of a Jump is a number: say what it counts"):
            pose(dosed(), data())
        pose(dosed(time="day since 2001-01-01"), data())

    def test_units_of_rates_are_compared_with_that_of_the_dates(self):
        class Hourly(bd.Module):
            rate: bd.Scalar = bd.field(units="1/h")

            def __call__(self, t, y, u):
                return {"flow": -self.rate * y["flow"]}

        decaying = bd.Model(
            bd.ODE(Hourly(bd.between(0.1, 1.0)), {"flow": 1.0}), bd.NormalNoise(0.2)
        )
        with pytest.raises(ModelError, match=r"comes out 0.04167 times as large"):
            bd.fit(decaying, data(), Sifting(), progress=False)


class TestForecast:
    @pytest.mark.thorough
    def test_has_dates_everywhere(self, fitted, forecast):
        _, _, post = fitted
        for group in (
            "observed_data",
            "conditional_mean",
            "posterior_predictive",
            "log_likelihood",
        ):
            assert post[group]["time"].dtype.kind == "M", group
        assert forecast["predictions"]["time"].values[-1] == np.datetime64("2001-01-30")
        assert (forecast.attrs["train_start"], forecast.attrs["train_end"]) == (
            "2001-01-01",
            "2001-01-20",
        )

    @pytest.mark.thorough
    def test_is_that_of_numbers(self, fitted, forecast):
        """The same model in days since 2001, on numbers: the same draws and scores, but for the
        last digits.
        """
        train, test, _ = fitted
        layer = bucket(bd.between(0.1, 0.6))
        plain = bd.fit(model(layer), in_days(train), Sifting(), progress=False)
        found = bd.forecast(model(layer), plain, in_days(data()))
        np.testing.assert_allclose(
            found["predictions"]["flow"], forecast["predictions"]["flow"], rtol=1e-9
        )
        ours, theirs = bd.score(forecast, test), bd.score(found, in_days(test))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        assert ours.attrs["times_left_out"] == 0
        assert bd.scores.pit(forecast, test)["time"].dtype.kind == "M"

    @pytest.mark.thorough
    def test_of_later_dates_alone_means_the_same(self, fitted, forecast):
        """Also from a file, which keeps dates."""
        _, test, post = fitted
        later = bd.forecast(model(), post, test)
        expected = forecast["conditional_mean"]["flow"].sel(time=test["time"])
        np.testing.assert_array_equal(later["conditional_mean"]["flow"], expected)

    @pytest.mark.thorough
    def test_from_a_file(self, fitted, forecast, tmp_path):
        loaded = bd.load(bd.save(fitted[2], tmp_path / "posterior.nc"))
        again = bd.load(bd.save(bd.forecast(model(), loaded, data()), tmp_path / "forecast.nc"))
        np.testing.assert_array_equal(again["predictions"]["flow"], forecast["predictions"]["flow"])
        assert again["predictions"]["time"].dtype.kind == "M"
        pd.testing.assert_frame_equal(bd.score(again, fitted[1]), bd.score(forecast, fitted[1]))

    @pytest.mark.thorough
    def test_refuses_numbers_and_another_count(self, fitted):
        _, test, post = fitted
        with pytest.raises(
            DataError, match="time holds numbers here, but dates in the data of the fit"
        ):
            bd.forecast(model(), post, in_days(test))
        other = model(bucket(bd.between(0.1, 0.6), units={"time": "h"}))
        with pytest.raises(
            MismatchError, match="counts dates in 'h since 1970-01-01', that of the fit did in 'day"
        ):
            bd.forecast(other, post, test, what_if=True)
        with pytest.raises(DataError, match="2000-01-01 < 2001-01-01"):
            bd.forecast(model(), post, data(DAYS - np.timedelta64(366, "D")))

    @pytest.mark.thorough
    def test_at_dates_of_an_index(self, fitted):
        still = bd.Model(
            bd.Algebraic(lambda t, y, u: {"flow": 0.0 * t}), bd.NormalNoise(bd.between(1, 5))
        )
        post = bd.fit(still, fitted[0][["flow"]], Sifting(), progress=False)
        found = bd.forecast(still, post, pd.date_range("2001-03-01", periods=4))
        assert found["predictions"]["time"].values[-1] == np.datetime64("2001-03-04")

    @pytest.mark.thorough
    def test_derived_quantities_and_updates_have_dates(self, fitted):
        post = fitted[2]
        found = bd.evaluate(
            model(), post, lambda m, values: {"double": 2 * values["flow"]}, at=data()
        )
        assert found["time"].values[3] == np.datetime64("2001-01-04")
        assert plot_derived(found).axes[0].get_xticklabels()[0].get_text().startswith("Jan")
        later = bd.update(model(), post, data().isel(time=slice(20, 22)))
        assert later["observed_data"]["time"].values[-1] == np.datetime64("2001-01-22")
        with pytest.raises(DataError, match="knows 'flow' at time 2001-01-20 already"):
            bd.update(model(), post, data().isel(time=slice(19, 22)))


def ticks(figure):
    figure.canvas.draw() if hasattr(figure.canvas, "draw") else None
    ax = figure.axes[-1]
    return [label.get_text() for label in ax.get_xticklabels()]


class TestSaid:
    @pytest.mark.thorough
    def test_figures_have_dates(self, fitted, forecast):
        train, test, _ = fitted
        figure = plot_forecast(forecast, train, test, "flow")
        low, high = figure.axes[0].get_xlim()
        assert low < 11323 and high > 11352, "days since 1970, as Matplotlib counts them"
        assert any(np.allclose(line.get_xdata(), 11342.0) for line in figure.axes[0].lines), (
            "the end of the fit"
        )
        assert any("Jan" in label or label == "15" for label in ticks(figure))
        parts = bd.decompose(forecast)
        assert any(
            "Jan" in label or label == "15"
            for label in ticks(plot_decomposition(parts, "flow", "2001-01-20"))
        )

    @pytest.mark.thorough
    def test_the_report_has_dates(self, fitted, forecast, undrawn):
        _, test, post = fitted
        page = bd.report(post, forecast, test).html
        assert (
            "fitted on 2001-01-01 to 2001-01-20" in page
            and "forecast over 2001-01-21 to 2001-01-30" in page
        )
        told = str(bd.diagnose(post, forecast, test))
        assert "held-out data" in told

    @pytest.mark.thorough
    def test_a_field_over_dates(self, forecast):
        tree = xr.DataTree.from_dict(
            {"predictions": xr.Dataset(
                {"heat": (("chain", "draw", "time", "x"), np.random.default_rng(0).normal(size=(1, 8, 3, 4)))},
                {"time": DAYS[:3], "x": np.arange(4.0)})}
        )  # fmt: skip
        tree.attrs["train_end"] = "2001-01-02"
        seen = xr.Dataset(
            {"heat": (("time", "x"), np.zeros((3, 4)))}, {"time": DAYS[:3], "x": np.arange(4.0)}
        )
        figure = plot_field(tree, seen, None, "heat")
        assert any(np.allclose(line.get_xdata(), 11324.0) for line in figure.axes[0].lines)

    def test_baselines_know_the_seasons_of_dates(self):
        times = np.arange("2001-01-01", "2004-01-01", dtype="datetime64[D]").astype(
            "datetime64[ns]"
        )
        wave = np.sin(2 * np.pi * np.arange(len(times)) / 365.2425)
        found = xr.Dataset({"y": ("time", wave)}, {"time": times})
        ahead = np.array(["2005-04-01", "2005-10-01"], "datetime64[ns]")
        plain = in_days(found)
        later = (ahead - np.datetime64("2001-01-01")) / np.timedelta64(1, "D")
        assert set(baselines(found)) == set(baselines(plain)) and len(baselines(found)) == 3
        for name, make in baselines(found).items():
            np.testing.assert_allclose(
                make(found, ahead)["y"], baselines(plain)[name](plain, later)["y"], rtol=1e-12
            )


@pytest.mark.thorough
def test_members_of_a_population_have_dates_too():
    each = bd.Each(
        bucket(bd.varying(np.array([0.2, 0.5])), start="2001-01-01"), ["hill", "plain"], dim="site"
    )
    both = bd.Model(each, {"flow": bd.NormalNoise(bd.between(0.1, 1.0))})
    flow = np.stack([data()["flow"].values] * 2, axis=1)
    seen = data().assign(flow=(("time", "site"), flow)).assign_coords(site=["hill", "plain"])
    post = bd.fit(both, seen, Sifting(draws=20), progress=False)
    fc = bd.forecast(both, post, seen)
    assert fc["predictions"]["flow"].sel(site="hill")["time"].values[-1] == np.datetime64(
        "2001-01-30"
    )
    for figure in (
        bd.plots.plot_members(fc, seen, None, "flow"),
        bd.plots.plot_vpc(both, post, seen, "flow"),
    ):
        low, high = figure.axes[0].get_xlim()
        assert low < 11323 and high > 11352


class TestStudy:
    study = bd.Study("flow", model(), data(), split="2001-01-20", engine=Sifting())

    @pytest.mark.thorough
    def test_runs_and_forecasts_with_a_file_of_forcings(self, tmp_path, undrawn):
        said = []
        run = self.study.run(tmp_path / "run", say=said.append)
        assert '"split": "2001-01-20"' in (run.folder / "scores.json").read_text()
        self.study.run(tmp_path / "run", say=said.append)
        assert "model: already fitted, kept" in said
        ahead = pd.DataFrame(
            {"rain": 1.0, "note": "dry"}, index=pd.date_range("2001-01-29", periods=6, name="time")
        )
        ahead.to_csv(tmp_path / "future.csv")
        at = future_forcings(self.study, tmp_path / "future.csv", "2001-02-02")
        found = run.forecast(at)["model"]["predictions"]
        assert found["time"].values[-1] == np.datetime64("2001-02-02") and found.sizes["time"] == 33

    def test_forcings_of_a_file_are_converted_to_the_units_of_the_data(self, tmp_path):
        study = dataclasses.replace(self.study, data=self.study.data.copy())
        study.data["rain"].attrs["units"] = "m"
        ahead = xr.Dataset(
            {"rain": ("time", [5.0, 5.0])}, {"time": pd.date_range("2001-01-29", periods=2)}
        )
        ahead["rain"].attrs["units"] = "mm"
        ahead.to_netcdf(tmp_path / "future.nc", engine="h5netcdf")
        found = future_forcings(study, tmp_path / "future.nc")["rain"]
        assert found.attrs["units"] == "m"
        np.testing.assert_allclose(found.values[-2:], 0.005)

    def test_a_table_has_the_columns_of_the_one_that_the_data_come_from(self, tmp_path):
        days = pd.date_range("2001-01-01", periods=30)
        table = pd.DataFrame({"Day": days, "Rain today (mm)": 1.0, "Gauge": 2.0})
        columns = {
            "time": "Day",
            "forcings": "Rain today",
            "names": {"Rain today": "rain", "Gauge": "flow"},
        }
        study = dataclasses.replace(self.study, data=bd.from_table(table, "Gauge", **columns))
        path = tmp_path / "future.csv"
        later = table.assign(
            Day=days + pd.Timedelta(days=28), Gauge=[5.0, np.nan, 6.0, 7.0] + 26 * [np.nan]
        )
        later.rename(columns={"Rain today (mm)": "Rain today (cm)"}).to_csv(path, index=False)
        found = future_forcings(study, path)["rain"]
        assert found["time"].values[-1] == days[-1].to_numpy() + np.timedelta64(28, "D")
        np.testing.assert_allclose(found.values, [1.0] * 28 + [10.0] * 30)
        assert new_observations(study, path) == 2  # the data have the first two days
        later[["Day", "Rain today (mm)"]].assign(rain=9.0).to_csv(path, index=False)
        assert new_observations(study, path) == 0
        assert (
            future_forcings(study, path)["rain"].values[-1] == 1.0
        )  # as the table of the data meant it
        later.rename(columns={"Day": "When"}).to_csv(path, index=False)
        with pytest.raises(
            DataError, match=r"has no 'time' \(or 'Day'\); it holds When, Rain today"
        ):
            future_forcings(study, path)

    @pytest.mark.parametrize(
        ("form", "date_format"),
        [("%d.%m.%Y", "%d.%m.%Y"), ("%Y-%m-%d", "%d.%m.%Y"), ("%Y%m%d", "%Y%m%d")],
    )
    def test_dates_of_a_file_are_written_as_those_of_the_table(self, tmp_path, form, date_format):
        """Or in ISO 8601, whatever the table has."""
        days = pd.date_range("2001-01-01", periods=32)
        table = pd.DataFrame({"time": days.strftime(date_format), "rain": 1.0, "flow": 2.0})
        data = bd.from_table(
            table[:30], "flow", forcings="rain", date_format=date_format, missing=-9.0
        )
        study = dataclasses.replace(self.study, data=data)
        table.assign(time=days.strftime(form), flow=[2.0] * 31 + [-9.0])[28:].to_csv(
            tmp_path / "new.csv", index=False
        )
        np.testing.assert_array_equal(future_forcings(study, tmp_path / "new.csv")["time"], days)
        assert new_observations(study, tmp_path / "new.csv") == 1
        np.testing.assert_array_equal(
            new_rows(study, tmp_path / "new.csv")["flow"], [2.0] * 31 + [np.nan]
        )

    def test_a_file_whose_dates_are_written_otherwise_is_refused(self, tmp_path):
        (tmp_path / "new.csv").write_text("time,rain\n13.01.2001,1\n")
        with pytest.raises(
            DataError,
            match=r"new\.csv: 'time' is '13\.01\.2001' in line 2.*date_format='%d\.%m\.%Y'",
        ):
            future_forcings(self.study, tmp_path / "new.csv")

    def test_observations_that_an_update_took_in_are_not_new(self, tmp_path):
        pd.DataFrame({"time": ["2001-02-01", "2001-02-02"], "rain": 1.0, "flow": 2.0}).to_csv(
            tmp_path / "new.csv"
        )
        fitted = xr.Dataset({"flow": ("time", [2.0])}, {"time": np.array(["2001-02-01"], "M8[ns]")})
        assert new_observations(self.study, tmp_path / "new.csv") == 2
        assert new_observations(self.study, tmp_path / "new.csv", fitted) == 1

    def test_future_times(self):
        still = bd.Model(
            bd.Algebraic(lambda t, y, u: {"flow": 0.0 * t}), bd.NormalNoise(bd.between(1, 5))
        )
        study = dataclasses.replace(self.study, model=still)
        found = future_times(study, "2001-02-03", 2.0)
        assert (
            found[-1] == np.datetime64("2001-02-02")
            and set(DAYS) <= set(found)
            and len(found) == 32
        )
        between = forecast_times(study)["time"].values
        assert set(DAYS) <= set(between) and between[1] == np.datetime64("2001-01-01T08:00")
        with pytest.raises(DataError, match="until must lie after 2001-01-01"):
            future_times(study, "2000-01-01", 1.0)


class Cooling(bd.Module):
    """Decay whose rate rises with time, so that it matters what `t` counts."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"flow": -self.rate * (1 + 0.1 * (t % 7)) * y["flow"]}


SINCE = {"time": "day since 2001-01-01"}


def flows(times=DAYS):
    return xr.Dataset({"flow": ("time", 9 * np.exp(-0.1 * np.arange(len(times))))}, {"time": times})


def since_1970():
    return flows(numbers(DAYS))


class TestPartsThatAreMadeFromData:
    """A dataset with dates does wherever the same one with numbers does,
    and makes the same part.
    """

    @pytest.mark.parametrize("inputs", [(), ("t",), ("flow", "t")])
    def test_a_correction_of_a_vector_field(self, inputs):
        dated, plain = (
            bd.corrected(Cooling(0.1), d, "flow", inputs=inputs).closure
            for d in (flows(), since_1970())
        )
        assert dated.units == plain.units and dated.inputs == plain.inputs

    @pytest.mark.parametrize("start", [None, "2000-12-30"])
    def test_a_correction_of_a_layer_counts_as_the_layer_does(self, start):
        """Also where it must solve for a state that the data lack, from a date on."""

        def closure(held, **more):
            layer = bd.ODE(Cooling(bd.between(0.05, 0.2)), {"flow": 9.0}, **more)
            return bd.corrected(
                layer, held.rename(flow="seen"), "flow", inputs=("flow", "t")
            ).vector_field.closure

        dated = closure(flows(), units=SINCE, start=start)
        plain = closure(in_days(flows()), start=None if start is None else -2.0)
        assert dated.units == plain.units and dated.inputs == plain.inputs

    def test_a_correction_says_where_the_unit_is_open(self):
        hours = flows(DAYS[0] + np.arange(6) * np.timedelta64(1, "h"))
        with pytest.raises(DataError, match="say in which unit of time"):
            bd.corrected(Cooling(0.1), hours, "flow")
        layer = bd.ODE(Cooling(0.1), {"flow": 9.0}, units={"time": "h"})
        assert bd.corrected(layer, hours, "flow").vector_field.closure.units[0] > 0

    @pytest.mark.parametrize("start", [None, "2001-01-01"])
    def test_a_rival_that_learns_the_rates(self, start):
        layer = bd.ODE(Cooling(bd.between(0.05, 0.2)), {"flow": 9.0}, units=SINCE, start=start)
        competitor = bd.baselines.neural_ode(bd.Model(layer, bd.NormalNoise(0.2)), flows())
        assert competitor.layer.vector_field.network.units[0] > 0

    def test_a_gaussian_process_over_time(self):
        dated, plain = (bd.bases.HilbertGP.over(d, "t", 1.0) for d in (flows(), since_1970()))
        assert (dated.low, dated.high) == (plain.low, plain.high)

    @pytest.mark.parametrize("name", ["t", "time"])
    def test_standardised_times(self, name):
        dated, plain = (bd.standardise(d, name, "flow") for d in (flows(), since_1970()))
        assert dated == plain and dated[name] == (np.mean(numbers(DAYS)), np.std(numbers(DAYS)))

    def test_an_orthogonal_residual(self):
        net = bd.Network.mlp({"flow": (5.0, 2.0)}, {"flow": 0.1}, 1.0, width=2)
        dated, plain = (
            bd.Residual(Cooling(bd.between(0.05, 0.2)), net, orthogonal=d).orthogonal
            for d in (flows(), since_1970())
        )
        for name in ("time", "flow"):
            np.testing.assert_array_equal(dated.points[name], plain.points[name])
        layer = bd.ODE(
            Cooling(bd.between(0.05, 0.2)), {"flow": 9.0}, units=SINCE, start="2000-12-31"
        )
        inputs = bd.Residual(layer, net, orthogonal=flows()).orthogonal.inputs
        np.testing.assert_array_equal(inputs.times, np.arange(30.0))
        assert float(inputs.start) == -1.0

    def test_inputs_of_a_layer_alone(self):
        found = bd.inputs(data(), start="2000-12-30", units=SINCE["time"])
        np.testing.assert_array_equal(found.times, np.arange(30.0))
        assert float(found.start) == -2.0
        np.testing.assert_array_equal(bd.inputs(data()).times, numbers(DAYS))

    def test_segments(self):
        knots = (0.0, 9.5, 20.0)
        dated = bd.equations.segment_states(flows(), ("flow",), knots, 1.0, units=SINCE["time"])
        plain = bd.equations.segment_states(in_days(flows()), ("flow",), knots, 1.0)
        np.testing.assert_array_equal(dated["flow"].loc, plain["flow"].loc)
        with pytest.raises(DataError, match=r"knots are numbers: .* units='day since 2001-01-01'"):
            bd.equations.segment_states(flows(), ("flow",), knots, 1.0)
