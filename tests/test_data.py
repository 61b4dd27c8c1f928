"""Data are checked, split, interpolated and fingerprinted."""

import jax
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

import bayes_dasl as bd
from bayes_dasl.data.datasets import checked_times, fingerprint, in_units, observations
from bayes_dasl.errors import DataError

EXACT = 10 * np.sqrt(np.finfo(float).eps)
numbers = st.floats(-1e3, 1e3, allow_subnormal=False)
gaps = st.lists(st.floats(1e-2, 10.0), min_size=1, max_size=9)


def series(time, **variables):
    return xr.Dataset({name: ("time", v) for name, v in variables.items()}, {"time": time})


@st.composite
def datasets(draw):
    time = draw(numbers) + np.cumsum([0.0, *draw(gaps)])
    values = draw(arrays(float, (2, time.size), elements=numbers))
    return series(time, y=values[0], u=values[1])


class TestInputs:
    @pytest.mark.thorough
    @given(datasets(), st.floats(0, 1))
    @settings(max_examples=30, deadline=None)
    def test_forcings_are_interpolated_linearly(self, data, share):
        given_ = bd.inputs(data, forcings=["u"])
        time = data["time"].values
        at = time[0] + share * (time[-1] - time[0])
        expected = np.interp(at, time, data["u"].values)
        np.testing.assert_allclose(
            given_.forcings["u"](jax.numpy.asarray(at)), expected, rtol=EXACT, atol=1e3 * EXACT
        )
        assert list(given_.forcings) == ["u"]

    @pytest.mark.thorough
    @given(datasets(), st.floats(0, 10))
    @settings(max_examples=30, deadline=None)
    def test_start_and_times(self, data, earlier):
        first = float(data["time"][0])
        assert float(bd.inputs(data).start) == first
        assert float(bd.inputs(data, start=first - earlier).start) == first - earlier
        np.testing.assert_array_equal(bd.inputs(data).times, data["time"])

    def test_a_forcing_between_its_knots(self):
        force = bd.inputs(series([0.0, 2.0], u=[1.0, 5.0])).forcings["u"]
        np.testing.assert_allclose(
            jax.vmap(force)(jax.numpy.asarray([-1.0, 0.0, 0.5, 2.0, 3.0])), [1, 1, 2, 5, 5]
        )

    def test_every_complete_series_drives_unless_named(self):
        data = series([0, 1], u=[1, 2], gap=[1.0, np.nan], text=["a", "b"]).assign(scalar=1.0)
        assert list(bd.inputs(data).forcings) == ["u"]
        assert list(bd.inputs(data, forcings=[]).forcings) == []

    def test_refuses_a_start_after_the_first_time(self):
        with pytest.raises(
            DataError, match=r"time\[0\]=1 lies before the start of the model at 1.5"
        ):
            bd.inputs(series([1.0, 2.0]), start=1.5)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("rain", "forcing 'rain' is not in the data; they hold gap, text, u"),
            ("gap", "forcing 'gap' is missing or not finite at time 1: fill the gap first"),
            ("text", "forcing 'text' must hold numbers"),
        ],
    )
    def test_refuses_a_bad_forcing(self, name, message):
        data = series([0.0, 1.0], u=[1.0, 2.0], gap=[1.0, np.nan], text=["a", "b"])
        with pytest.raises(DataError, match=message):
            bd.inputs(data, forcings=[name])


class TestTimes:
    @pytest.mark.parametrize(
        ("time", "message"),
        [
            (
                [0.0, 2.0, 1.0],
                r"time must increase: time\[2\]=1.0 is not after time\[1\]=2.0; sort "
                r".*sortby\('time'\)",
            ),
            ([0.0, np.nan, 1.0], r"time\[1\] is not finite"),
            ([], "no time at all"),
            (np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]"), "convert dates first"),
        ],
    )
    def test_refuses(self, time, message):
        with pytest.raises(DataError, match=message):
            checked_times(series(np.asarray(time)))

    def test_refuses_data_without_time(self):
        with pytest.raises(
            DataError, match="need a 1-D coordinate 'time'; their coordinates are day"
        ):
            checked_times(xr.Dataset({}, {"day": [1, 2]}))

    @pytest.mark.parametrize("turned", [lambda d: d, lambda d: d.reset_coords("time")])
    def test_says_how_a_time_along_another_dimension_becomes_the_index(self, turned):
        data = turned(xr.Dataset({"y": ("row", [3.0, 4.0])}, {"time": ("row", [0.0, 1.0])}))
        with pytest.raises(
            DataError, match=r"theirs lies along 'row': .*data.swap_dims\(\{'row': 'time'\}\)"
        ):
            checked_times(data)
        assert checked_times(data.swap_dims({"row": "time"}).set_coords("time")).tolist() == [
            0.0,
            1.0,
        ]

    def test_whole_numbers_become_float(self):
        assert checked_times(series([1, 2])).dtype == np.float64


class TestObservations:
    def test_keeps_what_is_missing(self):
        np.testing.assert_array_equal(
            observations(series([0, 1], y=[1.0, np.nan]), "y"), [1.0, np.nan]
        )

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([1.0, np.inf], "infinite at time 1; a missing value is NaN"),
            ([np.nan, np.nan], "no value at all"),
            (["a", "b"], "must hold numbers"),
        ],
    )
    def test_refuses(self, values, message):
        with pytest.raises(DataError, match=message):
            observations(series([0, 1], y=values), "y")

    def test_refuses_another_shape_or_name(self):
        data = xr.Dataset({"y": (("time", "site"), np.ones((2, 2)))}, {"time": [0, 1]})
        with pytest.raises(DataError, match="must have the one dimension time"):
            observations(data, "y")
        with pytest.raises(DataError, match="observable 'z' is not in the data; they hold y"):
            observations(data, "z")


class TestUnits:
    data = series([0, 1], y=[1.0, 2.0], bare=[1.0, 2.0])
    data["y"].attrs["units"] = "mg / L"

    @pytest.mark.parametrize(
        ("name", "units"), [("y", "mg  / L"), ("y", ""), ("bare", "kg"), ("absent", "kg")]
    )
    def test_pass(self, name, units):
        assert in_units(self.data, {name: units}) is self.data

    def test_refuses_other_units(self):
        for other in ("kg", "mol / L"):
            with pytest.raises(
                DataError, match=f"'y' is in 'mg / L' but the model works in '{other}'"
            ):
                in_units(self.data, {"y": other})

    def test_refuses_units_that_are_no_text(self):
        data = series([0, 1], y=[1.0, 2.0])
        data["y"].attrs["units"] = 3
        with pytest.raises(DataError, match="units of 'y' must be text"):
            in_units(data, {"y": ""})

    def test_converts_and_leaves_the_data_as_they_were(self):
        for other, factor in (
            ("g / L", 1e-3),
            ("Mg / L", 1e-9),
        ):  # milli and mega differ by their case alone
            found = in_units(self.data, {"y": other})["y"]
            np.testing.assert_allclose(found, factor * self.data["y"])
            assert found.attrs["units"] == other and self.data["y"].attrs["units"] == "mg / L"

    def test_refuses_to_convert_a_coordinate(self):
        data = self.data.assign_coords(time=("time", [0.0, 1.0], {"units": "h"}))
        with pytest.raises(DataError, match="'time' is in 'h' but the model works in 'day'"):
            in_units(data, {"time": "day"}, doubtful=True)

    def test_what_cannot_be_compared_may_pass(self):
        data = self.data.assign(y=self.data["y"].assign_attrs(units="?? !"))
        assert in_units(data, {"y": "mg"}, doubtful=True) is data
        with pytest.raises(DataError):
            in_units(data, {"y": "mg"})


class TestSplit:
    @given(datasets(), st.data())
    @settings(max_examples=50, deadline=None)
    def test_every_time_is_on_one_side(self, data, draw):
        times = data["time"].values
        at = draw.draw(st.sampled_from(times[:-1].tolist()))
        train, test = bd.split(data, time=at)
        assert train["time"].values[-1] == at
        assert test["time"].values[0] > at
        xr.testing.assert_identical(xr.concat([train, test], "time", data_vars="all"), data)

    @pytest.mark.parametrize("time", [-1.0, 1.0, 9.0, np.nan])
    def test_refuses_an_empty_side(self, time):
        with pytest.raises(DataError, match="leaves one side empty: the data run from 0 to 1"):
            bd.split(series([0.0, 1.0], y=[1.0, 2.0]), time=time)


class TestStandardise:
    def test_gives_mean_zero_and_width_one(self):
        y = np.array([1.0, 4.0, np.nan, 10.0])
        mean, width = bd.standardise(series(np.arange(4), y=y), "y")["y"]
        scaled = (y[[0, 1, 3]] - mean) / width
        np.testing.assert_allclose([scaled.mean(), (scaled**2).mean()], [0, 1], atol=EXACT)

    def test_of_a_constant(self):
        assert bd.standardise(series([0, 1], y=[3.0, 3.0]), "y") == {"y": (3.0, 1.0)}


class TestFingerprint:
    data = series([0.0, 1.0], a=[1.0, 2.0], b=[3.0, np.nan])

    def test_is_that_of_the_content(self):
        reordered = (
            self.data[["b", "a"]].assign_coords(time=[0, 1]).assign_attrs(source="elsewhere")
        )
        assert fingerprint(reordered) == fingerprint(self.data)

    @pytest.mark.parametrize(
        "other",
        [
            series([0.0, 1.5], a=[1.0, 2.0], b=[3.0, np.nan]),
            series([0.0, 1.0], a=[1.0, 2.5], b=[3.0, np.nan]),
            series([0.0, 1.0], a=[1.0, 2.0], b=[np.nan, 3.0]),
            series([0.0, 1.0], b=[1.0, 2.0], a=[3.0, np.nan]),
            series([0.0, 1.0], a=[1.0, 2.0]),
        ],
    )
    def test_sees_a_difference(self, other):
        assert fingerprint(other) != fingerprint(self.data)
