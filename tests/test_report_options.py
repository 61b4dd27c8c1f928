"""What is asked for of a report: quantiles, exceedance, return levels, metrics, a closer look,
methods.
"""

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
from bayes_dasl.extremes.levels import blocks_of, likely
from bayes_dasl.reports import _tables


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
        assert [*zip(table["time"], table["x"], strict=True)][:3] == [
            (0.0, 10.0),
            (0.0, 20.0),
            (1.0, 10.0),
        ]
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
        found = bd.extremes.exceedance(forecast_of(NORMAL), "y", 1.0)
        p = norm.sf(1.0)
        np.testing.assert_allclose(found["at"], p, atol=4 * np.sqrt(p * (1 - p) / 4000))
        assert float(found["ever"]) == pytest.approx(1 - (1 - p) ** 6, abs=0.03)
        assert float(found["times"]) == pytest.approx(6 * p, abs=0.06)

    def test_below_and_during(self):
        found = bd.extremes.exceedance(forecast_of(NORMAL), "y", -1.0, below=True, during=(2, 3))
        assert found.sizes["time"] == 2 and found.attrs["direction"] == "below"
        assert float(found["ever"]) == np.mean((NORMAL[:, 2:4] < -1).any(axis=1))

    def test_draws_that_failed_do_not_count(self):
        values = NORMAL[:100].copy()
        values[:50] = np.nan
        found = bd.extremes.exceedance(forecast_of(values), "y", 0.0)
        np.testing.assert_allclose(found["at"], (values[50:] > 0).mean(axis=0))
        assert float(found["ever"]) == np.mean((values[50:] > 0).any(axis=1))

    def test_dates(self):
        time = np.array([f"2001-01-0{i + 1}" for i in range(6)], "M8[ns]")
        found = bd.extremes.exceedance(
            forecast_of(NORMAL, time), "y", 0.0, during=("2001-01-02", "2001-01-03")
        )
        assert found.sizes["time"] == 2

    @pytest.mark.parametrize(
        ("name", "options", "error", "said"),
        [
            ("z", {}, MismatchError, "no observable 'z'; it has y"),
            ("y", {"during": (10, 12)}, DataError, "nothing is forecast during"),
            (
                "y",
                {"during": "soon"},
                DataError,
                "a first and a last time, numbers as the forecast has",
            ),
        ],
    )
    def test_refused(self, name, options, error, said):
        with pytest.raises(error, match=said):
            bd.extremes.exceedance(forecast_of(NORMAL), name, 0.0, **options)


class TestForecastPeriod:
    """Of a fit and its forecast: what was fitted is no event to come."""

    @staticmethod
    def fitted_between(start, end):
        fc = forecast_of(NORMAL)
        fc.attrs |= {"train_start": float(start), "train_end": float(end)}
        return fc

    @pytest.mark.parametrize(
        ("start", "end", "used", "period", "left_out"),
        [
            pytest.param(0, 3, [4, 5], "from 4 to 5", "4 times from 0 to 3", id="after"),
            pytest.param(1, 3, [4, 5], "from 4 to 5", "4 times from 0 to 3", id="both sides"),
            pytest.param(2, 9, [0, 1], "from 0 to 1", "4 times from 2 to 5", id="before"),
            pytest.param(0, 9, [0, 1, 2, 3, 4, 5], "from 0 to 5", "", id="nothing new"),
        ],
    )
    def test_is_the_default_and_is_told(self, start, end, used, period, left_out):
        fc = self.fitted_between(start, end)
        found, table = bd.extremes.exceedance(fc, "y", 1.0), bd.extremes.return_levels(fc, "y", [2])
        assert found["at"]["time"].values.tolist() == used
        assert float(found["ever"]) == pytest.approx((NORMAL[:, used].max(axis=1) > 1.0).mean())
        assert table["level"].iloc[0] == pytest.approx(np.median(NORMAL[:, used].max(axis=1)))
        for attributes in (found.attrs, table.attrs):
            assert (attributes["period"], attributes["left_out"]) == (period, left_out)
        assert bd.extremes.exceedance(fc, "y", 1.0, during=(0, 5))["at"].size == 6


class TestReturnLevels:
    def test_of_the_highest_of_independent_normals(self):
        """A block of three exceeds x with probability 1 − Φ(x)³."""
        table = bd.extremes.return_levels(forecast_of(NORMAL), "y", [2, 10, 1e5], block=3.0)
        np.testing.assert_allclose(
            table["level"][:2], norm.ppf((1 - 1 / np.array([2, 10])) ** (1 / 3)), atol=0.06
        )
        assert table["blocks"].tolist() == [4000, 800, 0] and np.isnan(table["level"].iloc[2])
        few = bd.extremes.return_levels(
            forecast_of(NORMAL), "y", [800, 900], block=3.0
        )  # of 8000 blocks
        assert few["blocks"].tolist() == [10, 8] and np.isfinite(few["level"]).tolist() == [
            True,
            False,
        ]

    def test_blocks_of_dates_are_those_of_the_calendar_that_the_times_fill(self):
        time = pd.date_range("2001-11-01", periods=400, freq="D").values
        draws = np.random.default_rng(1).normal(size=(200, 400))
        month = bd.extremes.return_levels(
            forecast_of(draws, time), "y", [2], block="month", during=("2001-11-20", "2002-02-03")
        )
        inside = (time >= np.datetime64("2001-12-01")) & (time < np.datetime64("2002-02-01"))
        assert inside.sum() == 62
        highest = [draws[:, inside][:, :31].max(axis=1), draws[:, inside][:, 31:].max(axis=1)]
        assert month["level"].iloc[0] == pytest.approx(np.median(np.concatenate(highest)))
        assert month.attrs["block"] == "one month" and month["blocks"].iloc[0] == 200
        assert "14 times of blocks that are not whole" in month.attrs["left_out"]

    @pytest.mark.parametrize(
        ("first", "freq", "number", "block", "filled"),
        [
            ("2001-01-01", "YS", 24, "year", 24), ("2000-12-31", "YE", 8, "year", 8),
            ("2001-06-01", "12MS", 5, "year", 5),
            ("2001-01-01", "QS", 4, "year", 1), ("2001-01-31", "ME", 12, "year", 1), ("2001-02-28", "ME", 9, "year", 0),
            ("2001-01-01", "MS", 3, "month", 3), ("2001-01-02", "D", 14, "week", 1),
            ("2001-01-01", "D", 30, "month", 0), ("2001-01-01", "30D", 12, "year", 0),
            ("2001-01-01", "h", 24, "day", 1),
        ],
    )  # fmt: skip
    def test_years_and_months_of_any_length_are_filled(self, first, freq, number, block, filled):
        time = pd.date_range(first, periods=number, freq=freq)
        index = xr.DataArray(time.values, dims="time", name="time")
        if not filled:
            with pytest.raises(DataError, match="fill no block"):
                blocks_of(index, block)
        else:
            blocks, _ = blocks_of(index, block)
            assert len(set(blocks[blocks >= 0])) == filled

    def test_a_block_that_the_times_do_not_fill_does_not_count(self):
        with pytest.warns(
            UserWarning,
            match="leave out 2 times of blocks that are not whole .from 4 to 5.: forecast",
        ):
            table = bd.extremes.return_levels(forecast_of(NORMAL), "y", [2], block=4)
        assert table["level"].iloc[0] == pytest.approx(np.median(NORMAL[:, :4].max(axis=1)))
        with pytest.raises(DataError, match="fill no block of 40"):
            bd.extremes.return_levels(forecast_of(NORMAL), "y", [2], block=40)

    @pytest.mark.parametrize(
        ("periods", "block", "said"),
        [
            ([1.0], None, "above 1"), (["a"], None, "above 1"), ([], None, "give the numbers of "
                "blocks"),
            ([2], "year", "a block is a number of units of 'time'"), ([2], 0.0, "positive number"),
            ([2], "century", "positive number, or of dates 'year'"), ([2], "2D", "positive number"),
        ],
    )  # fmt: skip
    def test_refused(self, periods, block, said, unchecked):
        with pytest.raises(DataError, match=said):
            bd.extremes.return_levels(forecast_of(NORMAL), "y", periods, block=block)

    def test_365_days_fill_a_year(self):
        draws = np.random.default_rng(1).normal(size=(20, 365))
        assert (
            bd.extremes.return_levels(forecast_of(draws), "y", [2], block=365.25)["blocks"].iloc[0]
            == 10
        )

    def test_rows_in_any_order_have_none(self):
        with pytest.raises(MismatchError, match="rows in any order"):
            bd.extremes.return_levels(forecast_of(NORMAL, series=0), "y", [2])


class TestMetrics:
    X, Y = np.array([1.0, 2.0, 4.0, 3.0]), np.array([1.5, 2.0, 3.0, 3.5])

    def test_of_what_is_perfect_and_of_the_mean(self):
        assert bd.scores.metrics.nse(self.Y, self.Y) == 1 and bd.scores.metrics.kge(
            self.Y, self.Y
        ) == pytest.approx(1)
        assert bd.scores.metrics.nse(np.full(4, self.Y.mean()), self.Y) == pytest.approx(0)
        for same in (
            np.full(4, 2.0),
            np.full(4, 0.1) * 3,
        ):  # also where their mean is another number by rounding
            assert np.isnan(bd.scores.metrics.kge(same, self.Y)) and np.isnan(
                bd.scores.metrics.nse(self.Y, same)
            )
        nearly = self.Y.mean() + 1e-6 * np.array(
            [1.0, -1.0, -1.0, 1.0]
        )  # uncorrelated with the data
        assert bd.scores.metrics.kge(nearly, self.Y) == pytest.approx(1 - np.sqrt(2), abs=1e-5)

    def test_by_hand(self):
        assert bd.scores.metrics.nse(self.X, self.Y) == pytest.approx(1 - 1.5 / 2.5)
        r = np.corrcoef(self.X, self.Y)[0, 1]
        apart = (r - 1, self.X.std() / self.Y.std() - 1, self.X.mean() / self.Y.mean() - 1)
        assert bd.scores.metrics.kge(self.X, self.Y) == pytest.approx(
            1 - np.sqrt(np.sum(np.square(apart)))
        )
        assert bd.scores.metrics.bias(self.X, self.Y) == 0.0

    def test_of_a_forecast_they_look_at_its_mean_where_there_are_data(self, unchecked):
        data = xr.Dataset(
            {"y": ("time", [0.1, np.nan, 0.3, 0.0, 0.2, 9.0])},
            {"time": [0.0, 1.0, 2.0, 3.0, 4.0, 77.0]},
        )
        found = bd.scores.metrics.measured_by(
            forecast_of(NORMAL), data, {"bias": bd.scores.metrics.bias}
        )
        there = [0, 2, 3, 4]
        assert found.loc["y", "n"] == 4
        assert found.loc["y", "bias"] == pytest.approx(NORMAL.mean(axis=0)[there].mean() - 0.15)
        with pytest.raises(MismatchError, match="functions by name"):
            bd.scores.metrics.measured_by(forecast_of(NORMAL), data, {"bias": 3})  # pyright: ignore

    def test_what_is_censored_is_compared_as_scores_compare_it(self):
        draws = np.full((50, 3), 0.2) + 0.01 * NORMAL[:50, :3]
        data = xr.Dataset(
            {"y": ("time", [1.0, 1.0, 0.2]), "y_censored": ("time", [1, 1, 0])},
            {"time": [0.0, 1.0, 2.0]},
        )
        fc = forecast_of(draws)
        rmse = bd.scores.metrics.measured_by(
            fc, data, {"rmse": lambda x, y: np.sqrt(np.mean((x - y) ** 2))}
        )
        assert rmse.loc["y", "rmse"] == pytest.approx(bd.score(fc, data).loc["y", "rmse"])


class TestFan:
    def test_bands_hold_what_they_say_within_the_window(self):
        figure = plots.plot_fan(
            forecast_of(NORMAL, train_start=0.0, train_end=2.0), None, None, "y", (1, 4)
        )
        ax = figure.axes[0]
        assert ax.lines[0].get_xdata().tolist() == [1.0, 2.0, 3.0, 4.0]
        np.testing.assert_allclose(ax.lines[0].get_ydata(), np.median(NORMAL[:, 1:5], axis=0))
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == ["95 %", "90 %", "80 %", "60 %", "40 %", "20 %", "median"]
        widest = ax.collections[1].get_paths()[0].vertices
        at_one = widest[np.isclose(widest[:, 0], 1.0), 1]
        np.testing.assert_allclose(
            sorted({*at_one}), np.quantile(NORMAL[:, 1], [0.025, 0.975]), rtol=1e-6
        )

    def test_by_itself_it_looks_as_far_back_as_ahead(self):
        fc = forecast_of(
            np.random.default_rng(0).normal(size=(50, 20)), train_start=0.0, train_end=15.0
        )
        assert plots.plot_fan(fc, None, None, "y").axes[0].lines[0].get_xdata().tolist() == [
            *np.arange(11.0, 20.0)
        ]

    def test_nothing_but_the_window_is_drawn_wherever_the_fit_ended(self):
        time = pd.date_range("2001-01-01", periods=400, freq="D").values
        fc = forecast_of(
            np.random.default_rng(0).normal(size=(50, 400)), time, train_end="2001-02-01"
        )
        data = xr.Dataset({"y": ("time", np.zeros(20))}, {"time": time[:20]})
        figure = plots.plot_fan(fc, data, None, "y", ("2001-10-01", "2001-10-31"))
        low, high = figure.axes[0].get_xlim()
        assert high - low < 33
        assert "training data" not in [text.get_text() for text in figure.legends[0].get_texts()]

    def test_refused(self):
        with pytest.raises(DataError, match="fewer than two times are forecast in the window"):
            plots.plot_fan(forecast_of(NORMAL), None, None, "y", (50, 60))
        with pytest.raises(DataError, match="a first and a last time, numbers"):
            plots.plot_fan(forecast_of(NORMAL), None, None, "y", ("2001-01-01", "2001-02-01"))
        with pytest.raises(MismatchError, match="rows in any order"):
            plots.plot_fan(forecast_of(NORMAL, series=0), None, None, "y")


class TestEventFigures:
    def test_probabilities_are_drawn_as_they_are_and_rows_are_not_joined(self):
        found = bd.extremes.exceedance(forecast_of(NORMAL), "y", 1.0)
        line = plots.plot_exceedance(found, "m").axes[0].lines[0]
        np.testing.assert_array_equal(line.get_ydata(), found["at"])
        assert line.get_label() == f"above 1 m; at some time {100 * float(found['ever']):.0f} %"
        assert line.get_linestyle() == "-"
        rows = bd.extremes.exceedance(forecast_of(NORMAL, series=0), "y", 1.0)
        assert plots.plot_exceedance(rows).axes[0].lines[0].get_linestyle() == "None"

    def test_levels_are_drawn_by_how_seldom_they_are(self):
        table = bd.extremes.return_levels(forecast_of(NORMAL), "y", [50, 2, 1e6], block=3)
        ax = plots.plot_return_levels(table, "y", "m").axes[0]
        np.testing.assert_array_equal(
            ax.lines[0].get_xydata(), [(2, table["level"][2.0]), (50, table["level"][50.0])]
        )
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("return period (blocks of 3)", "y (m)")


class Decay(bd.Module):
    """Falls as it is seen to fall."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {name: -self.rate * value for name, value in y.items()}


class Faster(Decay):
    """The same, faster."""


class Held(bd.Module):
    r"""Has a potential $V < \lambda$."""

    potential: "Well"

    def __call__(self, t, y, u):
        return {"y": self.potential.slope(y["y"])}


class Well(bd.Module):
    """Is not called itself."""

    depth: bd.Scalar

    def slope(self, x):
        return -self.depth * x


class Louder(bd.NormalNoise):
    """Noise that is loud."""


@pytest.fixture(scope="module")
def page():
    options = bd.ReportOptions(
        window=(1910, 1918), thresholds={"hare": [30, 60.0], "lynx": 20.0}, below=["lynx"],
        return_periods={"hare": [2, 5, 1e9]}, block=1.0, metrics={"NSE": bd.scores.metrics.nse}, source="The company's books",
        licence="CC0-1.0",
    )  # fmt: skip
    given = trees.make_post(), trees.make_fc(), trees.make_data()[1]
    found = bd.report(
        *given, name="hybrid", competitors={"science": trees.make_fc(seed=5)}, options=options
    )
    return unescape(re.sub(r"data:image[^\"]*", "", found.html))


class TestPage:
    def test_shows_what_was_asked_for(self, page):
        for name in ("fan-hare", "fan-lynx", "exceedance-hare", "exceedance-lynx", "return-hare"):
            assert page.count(f'id="figure-{name}"') == 1, name
        ahead = {"during": (1913, 1920)}
        over = [
            100 * float(bd.extremes.exceedance(trees.make_fc(), "hare", at, **ahead)["ever"])
            for at in (30, 60)
        ]
        each = (
            f"above 30 thousand pelts: {over[0]:.0f} %; above 60 thousand pelts: {over[1]:.0f} %."
        )
        assert f"from 1913 to 1920: {each}" in page and over[1] < 90
        assert "below 20 thousand pelts: " in page
        level = bd.extremes.return_levels(trees.make_fc(), "hare", [2], block=1.0, **ahead)[
            "level"
        ].iloc[0]
        assert (
            f"Where a block is 1 year, from 1913 to 1920: its highest value exceeds {level:.1f} "
            "once in 2;" in page
        )
        assert "Too few blocks among all draws reach that of 1e+09." in page
        table = page.partition("Of the predictive mean")[2].partition("</table>")[0]
        nse = bd.scores.metrics.measured_by(
            trees.make_fc(), trees.make_data()[1], {"NSE": bd.scores.metrics.nse}
        ).loc["hare", "NSE"]
        assert f"{nse:.3f}" in table and "science" in table

    def test_tells_how_it_was_made(self, page):
        methods = page.partition('id="methods"')[2]
        assert "Source: The company's books. Licence: CC0-1.0." in methods
        for sentence in (
            "The model was fitted to 13 values of hare and 13 values of lynx. The forecast was "
            "evaluated on 16 further values, which the fit had not seen.",
            "The posterior was sampled by NUTS, in 4 chains of 200 draws each.",
            "Of 800 transitions, 0 diverged.",
            "The forecast consists of 800 draws of the posterior predictive distribution",
            "and compared with science, climatology and persistence.",
        ):
            assert sentence in methods

    def test_of_a_model_equations_and_priors_are_told(self):
        from bayes_dasl.reports._methods import methods

        states = {"hare": dist.LogNormal(3.0, 1.0), "lynx": dist.LogNormal(3.0, 1.0)}
        model = bd.Model(bd.ODE(Decay(bd.between(0.1, 1.0)), states), bd.LogNormalNoise(0.2))
        found = methods(
            model,
            bd.describe(model),
            trees.make_post(),
            trees.make_fc(),
            trees.make_data()[0],
            bd.ReportOptions(),
            _tables.summaries(trees.make_post()),
        )
        assert found["equations"] == [("Decay", "Falls as it is seen to fall.")]
        assert found["said"]["Model"].startswith(
            "The model is of type ODE and has 3 inferred parameters, of which 22 belong to "
            "unknown functions. The observation model is log normal noise."
        )
        assert "rate ~ " in found["tree"] and found["said"]["Data"].endswith(
            "The source of the data was not stated."
        )
        assert ("solver", "Tsit5") in dict(found["settings"])["layer: ODE"]

    def test_settings_are_arguments_by_name_inner_calls_too(self):
        from bayes_dasl.reports._methods import _arguments

        call = (
            "DeepEnsemble(members=20, anchored=True, over={'a': (1, 2)}, f=<function f at 0x7f>, "
            "descent=Descent(steps=5000, minibatch=None, reparametrisation='auto'))"
        )
        assert list(_arguments(call)) == [
            ("members", "20"),
            ("anchored", "yes"),
            ("over", "{'a': (1, 2)}"),
            ("f", "<function f at 0x7f>"),
            ("descent: steps", "5000"),
            ("descent: minibatch", "not set"),
            ("descent: reparametrisation", "auto"),
        ]

    def test_functions_partials_noise_and_bases_are_equations_and_libraries_are_none(self):
        from functools import partial

        from bayes_dasl.reports._methods import equations

        def growth(rate, t, y, u):
            return {"y": rate * y["y"]}

        # fmt: off
        def priced(t, y, u):
            return {'$y$': y['y']}
        # fmt: on

        exec(
            compile("def made(t, y, u):\n    return {'y': y['y']}", "nowhere", "exec"),
            space := {"__name__": None},
        )
        for field, name, words in (
            (
                partial(growth, 0.3),
                "growth",
                'def growth(rate, t, y, u):\n    return {"y": rate * y["y"]}',
            ),
            (priced, "priced", "def priced(t, y, u):\n    return {'$y$': y['y']}"),
            (space["made"], "made", "written where no source is kept"),
        ):
            found = dict(equations(bd.Model(bd.ODE(field, {"y": 1.0}), Louder(0.1))))
            assert found[name] == words and found["Louder"] == "Noise that is loud."
        network = bd.Network.mlp(("y",), ("y",), 0.5, width=3, depth=1)
        stiff = bd.ODE(
            bd.Residual(Faster(bd.between(0.1, 1.0)), network), {"y": 1.0}, solver="kvaerno5"
        )
        assert [name for name, _ in equations(bd.Model(stiff, bd.NormalNoise(0.1)))] == [
            "Decay",
            "Faster",
        ]

    def test_parts_that_are_not_called_are_told_and_formulas_are_formulas(self):
        from bayes_dasl.reports._methods import equations

        found = dict(equations(bd.Model(bd.ODE(Held(Well(2.0)), {"y": 1.0}), bd.NormalNoise(0.1))))
        assert [*found] == ["Held", "Well"] and found["Well"] == "Is not called itself."
        assert (
            found["Held"].startswith("Has a potential <")
            and "&lt;" in found["Held"]
            and "$" not in found["Held"]
        )

    def test_what_is_no_series_is_named_in_place_of_a_figure(self):
        from bayes_dasl.reports import _events

        held = xr.Dataset(
            {"y": (("chain", "draw", "time", "x"), np.zeros((1, 20, 3, 2)))},
            {"time": np.arange(3.0)},
        )
        fc, options = (
            xr.DataTree.from_dict({"predictions": held}),
            bd.ReportOptions(thresholds={"y": 1.0}, window=(0, 1)),
        )
        assert (
            _events.event_cards(fc, options)
            == _events.window_cards(fc, held, None, ["y"], options)
            == []
        )
        (said,) = _events.not_drawn(fc, options)
        assert said.startswith("Not drawn, since y is no series: thresholds and a window.")

    def test_a_closer_look_is_drawn_of_a_small_part_alone(self, undrawn):
        from bayes_dasl.reports import _events

        values = np.random.default_rng(0).normal(size=(20, 40))
        data = xr.Dataset({"y": ("time", [0.0])}, {"time": [38.0]})
        names = [forecast_of(values, train_start=0.0, train_end=end) for end in (10.0, 35.0, 39.0)]
        found = [
            len(_events.window_cards(fc, data, None, ["y"], bd.ReportOptions())) for fc in names
        ]
        assert found == [0, 1, 0]
        seldom = forecast_of(
            values[:, :3], np.array([0.0, 50.0, 100.0]), train_start=0.0, train_end=90.0
        )
        alone = forecast_of(values[:, :1], np.array([100.0]), train_start=0.0, train_end=90.0)
        for fc in (seldom, alone):  # one time lies there
            assert _events.window_cards(fc, data, None, ["y"], bd.ReportOptions()) == []

    def test_what_is_rare_is_not_never(self):
        assert [likely(p) for p in (0.0, 0.003, 0.2, 0.996, 1.0)] == [
            "0 %",
            "under 1 %",
            "20 %",
            "over 99 %",
            "100 %",
        ]

    def test_where_no_level_is_known_it_says_so(self, undrawn):
        from bayes_dasl.reports import _events

        (drawn,) = _events.event_cards(
            forecast_of(NORMAL[:50]), bd.ReportOptions(return_periods={"y": [100, 100.0]})
        )
        assert drawn.caption.endswith(
            "0 to 5: no level is told. Too few blocks among all draws reach that of 100."
        )

    def test_without_wishes_it_has_none_of_it(self, undrawn):
        given = trees.make_post(), trees.make_fc(), trees.make_data()[1]
        html = bd.report(*given, name="hybrid").html
        assert (
            "figure-exceedance" not in html
            and "Of the predictive mean" not in html
            and "figure-fan" not in html
        )

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (
                {"thresholds": {"wolf": 3.0}},
                "thresholds names wolf, but the forecast has hare, lynx",
            ),
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
            ({"window": {1, 2}}, "a first and a last time, or False"),
            ({"window": 0}, "a first and a last time, or False"),
            ({"window": (3, 2)}, "lies before the last"),
            ({"window": ("soon", "later")}, "a first and a last time, or False"),
            ({"thresholds": {"hare": []}}, "one to 6 thresholds of 'hare', not 0"),
            ({"thresholds": {"hare": range(7)}}, "one to 6 thresholds of 'hare', not 7"),
            ({"thresholds": {"hare": "30"}}, "a level is a number"),
            ({"thresholds": {"hare": np.nan}}, "a level is a number"),
            ({"return_periods": {"hare": [0.5]}}, "above 1"),
            ({"block": "century"}, "'year', 'month', 'week', 'day'"),
            ({"window": (1,)}, "a first and a last time, or False"),
            ({"thresholds": 3.0}, "thresholds is a dict by name"),
            ({"metrics": {"NSE": 3}}, "functions by name"),
            ({"below": "hare", "thresholds": {"hare": 1.0}}, r"such as \['hare'\]"),
            ({"below": ["hare"]}, "of which there are no thresholds"),
            (
                {"below": True, "thresholds": {"hare": 1.0}},
                "a list of observables, such as .* not True",
            ),
            ({"thresholds": {"hare": [[1.0, 2.0], 3.0]}}, "a level is a number"),
            ({"window": [[1, 2], 3]}, "a first and a last time, or False"),
        ],
    )
    def test_options_that_are_none(self, options, said, unchecked):
        with pytest.raises(DataError, match=said):
            bd.ReportOptions(**options)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (
                {"window": ("2001-01-01", "2002-01-01")},
                "'time' holds numbers, so a window is two numbers",
            ),
            ({"return_periods": {"y": [2]}, "block": "year"}, "so a block is a number of units"),
            ({"return_periods": {"y": [2]}, "block": 4}, "fill no block of 4"),
            ({"window": (2, 9)}, "fewer than two times are forecast in the window"),
        ],
    )
    def test_what_no_forecast_along_these_times_could_show(self, options, said):
        time = xr.DataArray(np.arange(3.0), dims="time", name="time")
        with pytest.raises(DataError, match=said):
            bd.ReportOptions(**options).check(["y"], time)

    def test_numbers_of_arrays_will_do(self):
        options = bd.ReportOptions(
            thresholds={"y": np.array(3.0)}, return_periods={"y": xr.DataArray(5.0)}
        )
        assert options.levels("y") == [3.0] and options.periods("y") == [5.0]

    def test_arrays_and_dates_will_do(self):
        options = bd.ReportOptions(
            window=pd.DatetimeIndex(["2001-01-01", "2002-01-01"]),
            thresholds={"y": np.array([1.0, 2.0])},
        )
        time = xr.DataArray(
            np.array(["2001-01-01", "2001-06-01"], "M8[ns]"), dims="time", name="time"
        )
        options.check(["y"], time)
        assert options.levels("y") == [1.0, 2.0]

    @pytest.mark.thorough
    def test_a_window_may_be_an_array(self, undrawn):
        options = bd.ReportOptions(window=np.array([1910.0, 1918.0]))
        page = bd.report(
            trees.make_post(), trees.make_fc(), trees.make_data()[1], options=options
        ).html
        assert "From 1910 to 1918, in bands" in page

    def test_what_data_tell_of_their_source_is_told(self):
        data = xr.Dataset(attrs={"source": "a book", "license": "CC0"})
        found = bd.ReportOptions(licence="CC-BY-4.0").with_origin_of(data)
        assert (found.source, found.licence) == ("a book", "CC-BY-4.0")
