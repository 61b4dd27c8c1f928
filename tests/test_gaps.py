"""Gaps of forcings are filled by a stated rule, and functions of the calendar are those of the
calendar.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose

NAN = np.nan


def rainy(values, times=None):
    times = np.arange(float(len(values))) if times is None else times
    return xr.Dataset(
        {"rain": ("time", np.array(values, float)), "flow": ("time", np.ones(len(values)))},
        {"time": times},
    )


class TestRules:
    @pytest.mark.parametrize(
        ("rule", "expected"),
        [("interpolate", [1, 2, 3, 4]), ("last", [1, 1, 1, 4]), (0.5, [1, 0.5, 0.5, 4])],
    )
    def test_fill_what_is_missing_alone(self, rule, expected):
        found = bd.data.fill_gaps(rainy([1, NAN, NAN, 4]), rain=rule)
        assert found["rain"].values.tolist() == expected
        by = "0.5" if rule == 0.5 else rule
        assert found["rain"].attrs["filled"] == f"2 of 4 values filled by {by}, at most 2 in a row"

    def test_a_line_between_dates_knows_how_far_they_are(self):
        dates = np.array(["2001-01-01", "2001-01-02", "2001-01-05"], "datetime64[ns]")
        assert bd.data.fill_gaps(rainy([0, NAN, 4], dates), rain="interpolate")[
            "rain"
        ].values.tolist() == [0, 1, 4]

    @pytest.mark.parametrize("numbers", [False, True])
    def test_a_climatology_is_the_mean_of_the_season_over_all_years(self, numbers):
        dates = pd.date_range("2001-01-01", "2003-12-31").values
        wave = (
            10
            + np.cos(2 * np.pi * np.arange(len(dates)) / 365.2425)
            + np.repeat([0.0, 1.0, 2.0], 365)
        )
        values = np.where(
            np.arange(len(dates)) // 365 == 2,
            np.where(np.arange(len(dates)) < 800, NAN, wave),
            wave,
        )
        times = np.arange(float(len(dates))) if numbers else dates
        data = rainy(values, times)
        data["time"].attrs = {"units": "day"} if numbers else {}
        found = bd.data.fill_gaps(data, rain="climatology")["rain"].values
        near = np.abs((np.arange(len(dates)) - 740 + 182.6) % 365.2425 - 182.6) <= 15.5
        assert found[740] == pytest.approx(np.nanmean(values[near]), rel=1e-3)
        np.testing.assert_array_equal(found[:730], values[:730])

    def test_nothing_is_said_where_nothing_is_missing(self):
        data = rainy([1, 2, 3])
        xr.testing.assert_identical(bd.data.fill_gaps(data, rain="last"), data)

    @pytest.mark.parametrize(
        ("values", "rules", "said"),
        [
            (
                [NAN, 1, 2],
                {"rain": "last"},
                "'rain' is missing at time 0, of which 'last' knows nothing",
            ),
            (
                [1, 2, NAN],
                {"rain": "interpolate"},
                "'rain' is missing at time 2, of which 'interpolate' knows",
            ),
            (
                [1, NAN, 2],
                {"rain": "spline"},
                "by one of interpolate, last, climatology or by a number, not by 'spline'",
            ),
            ([1, NAN, 2], {"snow": "last"}, "there is no 'snow' to fill; the data hold rain, flow"),
            ([1, NAN, 2], {"rain": "climatology"}, "a climatology needs dates, or time.attrs"),
            ([NAN, NAN], {"rain": "last"}, "has no value at all"),
        ],
    )
    def test_refuse(self, values, rules, said):
        with pytest.raises(DataError, match=said):
            bd.data.fill_gaps(rainy(values), **rules)


class Bucket(bd.Module):
    share: bd.Scalar

    def __call__(self, t, y, u):
        return {"store": (1 - self.share) * y["store"] + u["rain"]}

    def flow(self, t, y, u):
        return {"flow": self.share * y["store"]}


def model():
    layer = bd.Difference(
        Bucket(bd.between(0.1, 0.6)), {"store": 3.0}, Bucket.flow, forcings="rain"
    )
    return bd.Model(layer, bd.NormalNoise(1.0))


class TestSaid:
    def test_the_error_names_the_way(self):
        with pytest.raises(
            DataError,
            match=r"fill the gap first, as by bd.data.fill_gaps\(data, rain='interpolate'\)",
        ):
            pose(model(), rainy([1, NAN, 3]))

    def test_check_says_what_was_filled(self):
        data = bd.data.fill_gaps(rainy([1, 2, 3, 4, NAN, 6]), rain="interpolate")
        (found,) = [f for f in bd.check(model(), data).findings if f.subject == "forcing rain"]
        assert (
            found.level == "warning"
            and found.message == "1 of 6 values filled by interpolate, at most 1 in a row"
        )

    @pytest.mark.parametrize(("low", "asked"), [(-9999.0, True), (-99.0, True), (-3.0, False)])
    def test_check_asks_after_codes_for_missing_values(self, low, asked):
        data = rainy([1, 2, low, 4, 5, 6])
        found = [
            f for f in bd.check(model(), data).findings if f.subject == "missing values of rain"
        ]
        assert len(found) == asked
        for one in found:
            assert one.level == "warning" and one.message.startswith(f"1 of 6 are {low:g}, ")
            assert f"missing={low:g}" in one.remedy

    def test_check_says_that_rows_were_left_out(self):
        """Not a number that is missing, which is refused, but a row: rain that fell then would be
        forgotten.
        """
        data = rainy([1, 2, 3, 4, 50, 6, 7, 8], pd.date_range("2001-01-01", periods=8)).isel(
            time=[0, 1, 2, 3, 6, 7]
        )
        said = [f.message for f in bd.check(model(), data).findings if f.subject == "forcing rain"]
        assert said == [
            "2 rows of a regular series are left out, the most between 2001-01-04 and 2001-01-07: "
            "there the model "
            "takes what the rows around them say"
        ]

    def test_an_observable_is_not_filled(self):
        data = rainy([1, 2, 3])
        data["flow"][1] = NAN
        with pytest.raises(DataError, match="'flow' is an observable: leave its gaps as NaN"):
            pose(model(), bd.data.fill_gaps(data, flow="last"))


class TestPhase:
    DATES = pd.date_range("1895-01-01", "2105-01-01", freq="97h", unit="us")

    @pytest.mark.parametrize("units", ["", "h since 2001-03-01", "week since 1999-12-31T12:00"])
    def test_is_that_of_the_calendar(self, units):
        from bayes_dasl.data.dates import numbers

        t = jnp.asarray(numbers(self.DATES.values, units))
        day = (self.DATES - self.DATES.normalize()) / pd.Timedelta(days=1)
        length = np.where(self.DATES.is_leap_year, 366, 365)
        expected = {"day": day, "week": (self.DATES.day_of_week + day) / 7,
                    "year": (self.DATES.day_of_year - 1 + day) / length}  # fmt: skip
        for of, exact in expected.items():
            found = jax.jit(lambda t, of=of: bd.layers.phase(t, of, units))(t)
            apart = np.abs((np.asarray(found) - np.asarray(exact) + 0.5) % 1 - 0.5)
            assert apart.max() < 1e-8, of

    @pytest.mark.thorough
    def test_has_a_gradient(self):
        assert jax.grad(lambda t: bd.layers.phase(t, "year"))(11400.3) == pytest.approx(1 / 365)

    def test_refuses(self):
        with pytest.raises(
            ModelError, match="a phase is of a 'year', a 'week' or a 'day', not of 'month'"
        ):
            bd.layers.phase(0.0, "month")
        with pytest.raises(ModelError, match="is no unit in which dates can be counted"):
            bd.layers.phase(0.0, "day", "kg")
