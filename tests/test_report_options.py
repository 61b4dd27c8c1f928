"""What is asked for of a report: quantiles, exceedance, return levels, metrics, a closer look, methods."""

import re
from html import unescape

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import trees
import xarray as xr
from scipy.stats import norm

import bayes_dasl as bd
from bayes_dasl import plots
from bayes_dasl.errors import DataError, MismatchError


def forecast_of(values, time=None, **attrs) -> xr.DataTree:
    """A forecast of one observable y from draws `(draw, time)`."""
    time = np.arange(values.shape[1], dtype=float) if time is None else time
    predictions = xr.Dataset({"y": (("chain", "draw", "time"), values[None])}, {"time": time})
    predictions["y"].attrs["units"] = "m"
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), "predictions": predictions})


NORMAL = np.random.default_rng(0).normal(size=(4000, 6))


class TestQuantiles:
    def test_are_those_of_the_draws_of_each_time(self):
        table = bd.quantiles(forecast_of(NORMAL), [0.1, 0.9])
        assert [*table.columns] == ["time", "observable", "units", "mean", "sd", "q0.1", "q0.9"]
        np.testing.assert_array_equal(table["time"], np.arange(6))
        np.testing.assert_allclose(table["q0.9"], np.quantile(NORMAL, 0.9, axis=0))
        np.testing.assert_allclose(table["sd"], NORMAL.std(axis=0))
        assert set(table["units"]) == {"m"}

    def test_places_have_columns_and_failed_draws_do_not_count(self):
        values = np.random.default_rng(1).normal(size=(1, 50, 3, 2))
        values[0, 7, 1] = np.nan
        dims = ("chain", "draw", "time", "x")
        held = xr.Dataset({"y": (dims, values)}, {"time": np.arange(3.0), "x": [10.0, 20.0]})
        table = bd.quantiles(xr.DataTree.from_dict({"predictions": held}), [0.5])
        assert [*zip(table["time"], table["x"], strict=True)][:3] == [(0.0, 10.0), (0.0, 20.0), (1.0, 10.0)]
        kept = np.delete(values[0], 7, axis=0)
        np.testing.assert_allclose(table["q0.5"], np.median(kept, axis=0).ravel())

    def test_dates_stay_dates(self, tmp_path):
        time = np.array(["2001-01-01", "2001-01-02"], "M8[ns]")
        bd.quantiles(forecast_of(NORMAL[:, :2], time)).to_csv(tmp_path / "q.csv", index=False)
        assert (tmp_path / "q.csv").read_text().split("\n")[2].startswith("2001-01-02,y,m,")

    @pytest.mark.parametrize("levels", [[], [0.0], [1.2]])
    def test_levels_are_shares(self, levels):
        with pytest.raises(DataError, match="between 0 and 1"):
            bd.quantiles(forecast_of(NORMAL), levels)

    def test_what_is_no_forecast(self):
        with pytest.raises(MismatchError, match="no forecast"):
            bd.quantiles(xr.DataTree())


class TestExceedance:
    def test_of_independent_normals(self):
        found = bd.exceedance(forecast_of(NORMAL), "y", 1.0)
        p = norm.sf(1.0)
        np.testing.assert_allclose(found["at"], p, atol=4 * np.sqrt(p * (1 - p) / 4000))
        assert float(found["ever"]) == pytest.approx(1 - (1 - p) ** 6, abs=0.03)
        assert float(found["times"]) == pytest.approx(6 * p, abs=0.06)

    def test_below_and_during(self):
        found = bd.exceedance(forecast_of(NORMAL), "y", -1.0, below=True, during=(2, 3))
        assert found.sizes["time"] == 2 and found.attrs["direction"] == "below"
        assert float(found["ever"]) == np.mean((NORMAL[:, 2:4] < -1).any(axis=1))

    def test_draws_that_failed_do_not_count(self):
        values = NORMAL[:100].copy()
        values[:50] = np.nan
        found = bd.exceedance(forecast_of(values), "y", 0.0)
        np.testing.assert_allclose(found["at"], (values[50:] > 0).mean(axis=0))
        assert float(found["ever"]) == np.mean((values[50:] > 0).any(axis=1))

    def test_dates(self):
        time = np.array([f"2001-01-0{i + 1}" for i in range(6)], "M8[ns]")
        found = bd.exceedance(forecast_of(NORMAL, time), "y", 0.0, during=("2001-01-02", "2001-01-03"))
        assert found.sizes["time"] == 2

    @pytest.mark.parametrize(
        ("name", "options", "error", "said"),
        [
            ("z", {}, MismatchError, "no observable 'z'; it has y"),
            ("y", {"during": (10, 12)}, DataError, "nothing is forecast during"),
            ("y", {"during": "soon"}, DataError, "first and the last time, numbers as in time"),
        ],
    )
    def test_refused(self, name, options, error, said):
        with pytest.raises(error, match=said):
            bd.exceedance(forecast_of(NORMAL), name, 0.0, **options)


class TestReturnLevels:
    def test_of_the_highest_of_independent_normals(self):
        """A block of three exceeds x with probability 1 − Φ(x)³."""
        table = bd.return_levels(forecast_of(NORMAL), "y", [2, 10, 1e5], block=3.0)
        np.testing.assert_allclose(table["level"][:2], norm.ppf((1 - 1 / np.array([2, 10])) ** (1 / 3)), atol=0.06)
        assert table["blocks"].tolist() == [4000, 800, 0] and np.isnan(table["level"].iloc[2])

    def test_blocks_of_dates_are_those_of_the_calendar(self):
        time = pd.date_range("2001-11-01", periods=6, freq="MS").values
        table = bd.return_levels(forecast_of(NORMAL, time), "y", [2], block="year")
        highest = np.concatenate([NORMAL[:, :2].max(axis=1), NORMAL[:, 2:].max(axis=1)])
        assert table["level"].iloc[0] == pytest.approx(np.median(highest))

    @pytest.mark.parametrize(
        ("periods", "block", "said"),
        [([1.0], None, "above 1"), ([2], "year", "positive number of units of 'time'"), ([2], 0.0, "positive number")],
    )
    def test_refused(self, periods, block, said):
        with pytest.raises(DataError, match=said):
            bd.return_levels(forecast_of(NORMAL), "y", periods, block=block)


class TestMetrics:
    X, Y = np.array([1.0, 2.0, 4.0, 3.0]), np.array([1.5, 2.0, 3.0, 3.5])

    def test_of_what_is_perfect_and_of_the_mean(self):
        assert bd.metrics.nse(self.Y, self.Y) == 1 and bd.metrics.kge(self.Y, self.Y) == pytest.approx(1)
        assert bd.metrics.nse(np.full(4, self.Y.mean()), self.Y) == 0
        assert np.isnan(bd.metrics.kge(np.full(4, 2.0), self.Y))
        nearly = self.Y.mean() + 1e-6 * np.array([1.0, -1.0, -1.0, 1.0])  # uncorrelated with the data
        assert bd.metrics.kge(nearly, self.Y) == pytest.approx(1 - np.sqrt(2), abs=1e-5)

    def test_by_hand(self):
        assert bd.metrics.nse(self.X, self.Y) == pytest.approx(1 - 1.5 / 2.5)
        r = np.corrcoef(self.X, self.Y)[0, 1]
        apart = (r - 1, self.X.std() / self.Y.std() - 1, self.X.mean() / self.Y.mean() - 1)
        assert bd.metrics.kge(self.X, self.Y) == pytest.approx(1 - np.sqrt(np.sum(np.square(apart))))
        assert bd.metrics.bias(self.X, self.Y) == 0.0

    def test_of_a_forecast_they_look_at_its_mean_where_there_are_data(self, unchecked):
        data = xr.Dataset({"y": ("time", [0.1, np.nan, 0.3, 0.0, 0.2, 9.0])}, {"time": [0.0, 1.0, 2.0, 3.0, 4.0, 77.0]})
        found = bd.metrics.measured_by(forecast_of(NORMAL), data, {"bias": bd.metrics.bias})
        there = [0, 2, 3, 4]
        assert found.loc["y", "n"] == 4
        assert found.loc["y", "bias"] == pytest.approx(NORMAL.mean(axis=0)[there].mean() - 0.15)
        with pytest.raises(MismatchError, match="functions by name"):
            bd.metrics.measured_by(forecast_of(NORMAL), data, {"bias": 3})  # pyright: ignore


class TestFan:
    def test_bands_hold_what_they_say_within_the_window(self):
        figure = plots.plot_fan(forecast_of(NORMAL, train_start=0.0, train_end=2.0), None, None, "y", (1, 4))
        ax = figure.axes[0]
        assert ax.lines[0].get_xdata().tolist() == [1.0, 2.0, 3.0, 4.0]
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == ["95 %", "90 %", "80 %", "60 %", "40 %", "20 %", "median"]
        widest = ax.collections[1].get_paths()[0].vertices
        at_one = widest[np.isclose(widest[:, 0], 1.0), 1]
        np.testing.assert_allclose(sorted({*at_one}), np.quantile(NORMAL[:, 1], [0.025, 0.975]), rtol=1e-6)

    def test_by_itself_it_looks_as_far_back_as_ahead(self):
        fc = forecast_of(np.random.default_rng(0).normal(size=(50, 20)), train_start=0.0, train_end=15.0)
        assert plots.plot_fan(fc, None, None, "y").axes[0].lines[0].get_xdata().tolist() == [*np.arange(11.0, 20.0)]

    def test_refused(self):
        with pytest.raises(MismatchError, match="nothing is forecast in the window"):
            plots.plot_fan(forecast_of(NORMAL), None, None, "y", (50, 60))
        with pytest.raises(MismatchError, match="a first and a last time, numbers"):
            plots.plot_fan(forecast_of(NORMAL), None, None, "y", ("2001-01-01", "2001-02-01"))
        with pytest.raises(MismatchError, match="rows in any order"):
            plots.plot_fan(forecast_of(NORMAL, series=0), None, None, "y")


class Decay(bd.Module):
    """Falls as it is seen to fall."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {name: -self.rate * value for name, value in y.items()}


@pytest.fixture(scope="module")
def page():
    options = bd.ReportOptions(
        window=(1910, 1918), thresholds={"hare": [30, 60.0], "lynx": 20.0}, below=["lynx"],
        return_periods={"hare": [2, 5]}, block=1.0, metrics={"NSE": bd.metrics.nse}, source="The company's books",
        licence="CC0-1.0",
    )  # fmt: skip
    given = trees.make_post(), trees.make_fc(), trees.make_data()[1]
    found = bd.report(*given, name="hybrid", rivals={"science": trees.make_fc(seed=5)}, options=options)
    return unescape(re.sub(r"data:image[^\"]*", "", found.html))


class TestPage:
    def test_shows_what_was_asked_for(self, page):
        for name in ("fan-hare", "fan-lynx", "exceedance-hare", "exceedance-lynx", "return-hare"):
            assert page.count(f'id="figure-{name}"') == 1, name
        assert "above 30.0 thousand pelts: " in page and "below 20.0 thousand pelts: " in page
        assert "The highest value of a block exceeds " in page
        table = page.partition("Of the predictive mean")[2].partition("</table>")[0]
        nse = bd.metrics.measured_by(trees.make_fc(), trees.make_data()[1], {"NSE": bd.metrics.nse}).loc["hare", "NSE"]
        assert f"{nse:.3f}" in table and "science" in table

    def test_tells_how_it_was_made(self, page):
        methods = page.partition('id="methods"')[2]
        assert "Source: The company's books. Licence: CC0-1.0." in methods
        assert "Fitted to 13 values of hare" in methods and "posterior predictive" in methods

    def test_of_a_model_equations_and_priors_are_told(self):
        from bayes_dasl.reports._methods import methods

        states = {"hare": dist.LogNormal(3.0, 1.0), "lynx": dist.LogNormal(3.0, 1.0)}
        model = bd.Model(bd.ODE(Decay(bd.between(0.1, 1.0)), states), bd.LogNormalNoise(0.2))
        found = methods(
            model, bd.describe(model), trees.make_post(), trees.make_fc(), trees.make_data()[0], bd.ReportOptions()
        )
        assert found["equations"] == [("Decay", "Falls as it is seen to fall.")]
        assert found["said"]["Model"].startswith(
            "ODE with 3 unknown numbers; the data scatter about it by LogNormalNoise"
        )
        assert "rate ~ " in found["tree"] and found["said"]["Data"].endswith("Their source was not told.")

    def test_without_wishes_it_has_none_of_it(self, undrawn):
        given = trees.make_post(), trees.make_fc(), trees.make_data()[1]
        html = bd.report(*given, name="hybrid").html
        assert "figure-exceedance" not in html and "Of the predictive mean" not in html and "figure-fan" not in html

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"thresholds": {"wolf": 3.0}}, "thresholds names wolf, but the forecast has hare and lynx"),
            ({"return_periods": {"wolf": [3.0]}}, "return_periods names wolf"),
        ],
    )
    def test_an_observable_that_is_not_forecast(self, options, said):
        with pytest.raises(MismatchError, match=said):
            bd.report(trees.make_post(), trees.make_fc(), options=bd.ReportOptions(**options))

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"window": True}, "a first and a last time, or False"),
            ({"window": (1,)}, "a first and a last time, or False"),
            ({"thresholds": 3.0}, "thresholds is a dict by name"),
            ({"metrics": {"NSE": 3}}, "functions by name"),
            ({"below": "hare", "thresholds": {"hare": 1.0}}, r"such as \['hare'\]"),
            ({"below": ["hare"]}, "of which there are no thresholds"),
        ],
    )
    def test_options_that_are_none(self, options, said, unchecked):
        with pytest.raises(DataError, match=said):
            bd.ReportOptions(**options)

    def test_what_data_tell_of_their_source_is_told(self):
        data = xr.Dataset(attrs={"source": "a book", "license": "CC0"})
        found = bd.ReportOptions(licence="CC-BY-4.0").told_of(data)
        assert (found.source, found.licence) == ("a book", "CC-BY-4.0")
