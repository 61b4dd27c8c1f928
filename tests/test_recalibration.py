"""Recalibrated forecasts: what their intervals hold over replicates, what they say of themselves,
what is refused.
"""

import numpy as np
import pytest
import trees
import xarray as xr
from scipy.optimize import isotonic_regression
from scipy.stats import norm

import bayes_dasl as bd
from bayes_dasl import plots
from bayes_dasl.errors import DataError, MismatchError
from bayes_dasl.recalibration.conformal import next_quantiles
from bayes_dasl.scores.held_out_errors import HELD_OUT, along_origins, held_out_errors

DRAWS = 400


def forecast(draws, index="depth", at=None, *, dims=(), coords=None, **attributes):
    """By hand, of draws `(draw, row, …)` by observable."""
    rows = len(next(iter(draws.values()))[0])
    at = np.arange(float(rows)) if at is None else at
    variables = {
        name: (("chain", "draw", index, *dims), values[None]) for name, values in draws.items()
    }
    tree = xr.DataTree.from_dict(
        {"predictions": xr.Dataset(variables, {index: at, **(coords or {})})}
    )
    tree.attrs = attributes
    return tree


def normal(mean, sd, rng, draws=DRAWS):
    return mean + sd * rng.normal(size=(draws, *np.shape(mean)))


def rows_of(rng, number, replicates, *, shift=0.0, factor=1.0):
    """Rows of many replicates, each an observable: a forecast of as many to come, and one of those
    held out.
    """
    names = [f"y{i}" for i in range(replicates)]
    mean, sd = (
        rng.normal(size=(2, replicates, number)),
        np.exp(rng.normal(size=(2, replicates, number))),
    )
    came = mean + sd * rng.normal(size=mean.shape)
    said = [
        forecast(
            {
                n: normal(m + shift * s, factor * s, rng)
                for n, m, s in zip(names, means, sds, strict=True)
            }
        )
        for means, sds in zip(mean, sd, strict=True)
    ]
    data = [
        xr.Dataset(
            {n: ("depth", y) for n, y in zip(names, values, strict=True)},
            {"depth": np.arange(float(number))},
        )
        for values in came
    ]
    return said[0], (said[1], data[1]), data[0]


def held(fc, data, level=0.9):
    """The share of values in the central interval, of each observable."""
    found = []
    for name, variable in fc["predictions"].data_vars.items():
        low, high = np.quantile(variable.values[0], [(1 - level) / 2, (1 + level) / 2], axis=0)
        found.append(np.mean((low <= data[name].values) & (data[name].values <= high)))
    return np.array(found)


class TestCoverage:
    """Of n exchangeable errors an interval holds the next with the level that it has, on average
    over replicates.
    """

    @pytest.mark.parametrize("by_sides", [False, True])
    @pytest.mark.parametrize("number", [19, 40, 60])
    def test_of_one_more_error(self, number, by_sides):
        """To four standard errors, of skewed errors; between order statistics an interval is a
        little too wide.
        """
        errors = np.random.default_rng(number).gamma(2.0, size=(2000, number + 1)) - 1.5
        levels = np.array([0.05, 0.95])
        ends = np.array(
            [
                next_quantiles(e[1:], np.ones(number), levels, number, by_sides=by_sides)
                for e in errors
            ]
        )
        share = np.mean((ends[:, 0] <= errors[:, 0]) & (errors[:, 0] <= ends[:, 1]))
        error = 4 * np.sqrt(0.9 * 0.1 / 2000)
        assert 0.9 - error < share < 0.9 + error + 0.5 / number * (number != 19)

    @pytest.mark.parametrize(
        "number, wrong, method, width",
        [
            (9, {"factor": 0.5}, "conformal", (1.5, 3.5)),
            (60, {"factor": 0.5, "shift": 1.0}, "conformal", (1.8, 2.5)),
            (60, {"factor": 2.0}, "isotonic", (0.4, 0.6)),
        ],
    )
    def test_of_rows(self, number, wrong, method, width):
        """Within four standard errors of a mean over replicates, of which each has its own held-out
        rows.
        """
        fc, past, came = rows_of(np.random.default_rng(number), number, 25, **wrong)
        new = bd.recalibration.recalibrate(fc, past, method=method)
        shares = held(new, came)
        assert abs(shares.mean() - 0.9) < 4 * shares.std(ddof=1) / np.sqrt(len(shares)) < 0.15
        assert abs(held(fc, came).mean() - 0.9) > 0.07  # the model's own do not
        assert width[0] < float(new["recalibration"]["width_ratio"].mean()) < width[1]

    def test_a_bias_is_taken_off_where_each_side_is_told(self):
        fc, past, _ = rows_of(np.random.default_rng(3), 60, 1, shift=1.0)
        few = past[0], past[1].isel(depth=slice(0, 30))
        widths = [
            float(bd.recalibration.recalibrate(fc, p)["recalibration"]["width_ratio"].mean())
            for p in (few, past)
        ]
        assert widths[0] > 1.2 > widths[1]

    def test_of_a_series_each_lead_has_its_own(self):
        """A spread that is four times too wide one time ahead and four times too narrow at the
        next.
        """
        rng, factors, replicates, origins = np.random.default_rng(5), np.array([4.0, 0.25]), 20, 20
        came = rng.normal(size=(replicates, 2 * origins + 3))
        said = lambda origin: series_forecast(origin, np.zeros((replicates, 2)), factors, rng)  # noqa: E731
        fc, data = said(2 * origins), series_data(came)
        new = bd.recalibration.recalibrate(fc, [(said(2 * i), data) for i in range(origins)])
        ends = np.array(
            [
                np.quantile(v.values[0], (0.05, 0.95), axis=0)
                for v in new["predictions"].data_vars.values()
            ]
        )
        # Of an interval whose ends are known: what standard normal data it holds, on average over
        # replicates.
        shares = (norm.cdf(ends[:, 1]) - norm.cdf(ends[:, 0])).mean(axis=0)
        assert (abs(shares - 0.9) < 4 * np.sqrt(0.9 * 0.1 / origins / replicates)).all()
        ratio = new["recalibration"]["width_ratio"].mean("observable").values
        np.testing.assert_allclose(ratio, 1 / factors, rtol=0.2)


def series_forecast(origin, mean, sd, rng, draws=DRAWS, **attributes):
    """From an origin, of series `(observable, lead)`."""
    at = origin + 1.0 + np.arange(mean.shape[1])
    return forecast(
        {f"y{i}": normal(m, sd, rng, draws) for i, m in enumerate(mean)},
        "time",
        at,
        train_end=float(origin),
        **attributes,
    )


def series_data(came):
    return xr.Dataset(
        {f"y{i}": ("time", y) for i, y in enumerate(came)},
        {"time": np.arange(float(came.shape[1]))},
    )


def a_series(origins=12, apart=2, leads=2, sd=0.5, seed=0, observables=1):
    """A forecast, and forecasts from earlier origins with the data."""
    rng, last = np.random.default_rng(seed), (origins - 1) * apart + leads
    data = series_data(rng.normal(size=(observables, last + leads + 1)))

    def said(origin):
        return series_forecast(origin, np.zeros((observables, leads)), np.full(leads, sd), rng)

    return said(last), [(said(last - leads - apart * i), data) for i in range(origins)][::-1], data


def as_rolling_origins(pairs, horizon):
    """As `leave_future_out` keeps it."""
    origins = np.array([fc.attrs["train_end"] for fc, _ in pairs])
    times = np.add.outer(origins, np.arange(1.0, horizon + 1))
    errors = [held_out_errors(fc, data, at) for (fc, data), at in zip(pairs, times, strict=True)]
    names = list(errors[0]["observable"].values)
    root = xr.Dataset(
        coords={"origin": origins, "observable": names, "time": (("origin", "lead"), times)}
    )
    return xr.DataTree.from_dict({"/": root, HELD_OUT: along_origins(errors)})


class TestQuantiles:
    def test_are_those_of_n_plus_1(self):
        errors, levels = np.random.default_rng(0).normal(size=50), np.linspace(0.02, 0.98, 97)
        alike = np.ones(50)
        found = next_quantiles(errors, alike, levels, 50, by_sides=True)
        np.testing.assert_allclose(found, np.quantile(errors, levels, method="weibull"), rtol=1e-12)
        found = next_quantiles(errors, alike, np.array([0.05, 0.95]), 50, by_sides=False)
        size = np.quantile(np.abs(errors), 0.9, method="weibull")
        np.testing.assert_allclose(found, [-size, size], rtol=1e-12)

    def test_stay_where_nothing_more_is_known(self):
        errors = np.arange(1.0, 10.0)
        found = next_quantiles(
            errors, np.ones(9), np.array([0.0, 0.05, 0.5, 0.95, 1.0]), 9, by_sides=False
        )
        np.testing.assert_allclose(found, [-9, -9, 0, 9, 9], atol=1e-12)

    def test_old_errors_count_less(self):
        """Of errors of which each counts half as much as the one after it, the median is near the
        last.
        """
        weights = 0.5 ** np.arange(20)[::-1]
        found = next_quantiles(np.arange(20.0), weights, np.array([0.5]), 40, by_sides=True)
        assert 18 < found[0] < 19

    def test_the_distribution_of_the_pit_is_its_own_isotonic_regression(self):
        """Of levels against ranks that rise together, pooling changes nothing: so no pooling is
        done.
        """
        pit = np.sort(np.random.default_rng(1).uniform(size=30))
        levels = np.arange(1, 31) / 31
        np.testing.assert_allclose(isotonic_regression(levels).x, levels)
        np.testing.assert_allclose(
            next_quantiles(pit, np.ones(30), levels, 30, by_sides=True), pit, rtol=1e-12
        )


class TestErrors:
    def test_are_those_of_normal_forecasts_in_closed_form(self):
        rng = np.random.default_rng(0)
        mean, sd, number = rng.normal(size=9), np.exp(rng.normal(size=9)), 40_000
        y = mean + 2 * sd * rng.normal(size=9)
        fc = forecast({"y": normal(mean, sd, rng, number)})
        found = held_out_errors(fc, xr.Dataset({"y": ("depth", y)}, {"depth": np.arange(9.0)}))
        z, edge = (y - mean) / sd, norm.ppf(0.95)
        # A quantile of draws of level p has the standard error sqrt(p (1 - p) / n) / density.
        error = 4 * (np.sqrt(0.05 * 0.95 / number) / norm.pdf(edge) + 1.25 / np.sqrt(number))
        np.testing.assert_allclose(
            found["error"].values.ravel(), z / edge, atol=error * (1 + abs(z).max()) / edge
        )
        np.testing.assert_allclose(
            found["pit"].values.ravel(), norm.cdf(z), atol=4 * 0.5 / np.sqrt(number)
        )

    def test_each_side_is_measured_by_its_own_spread(self):
        """Three times as far above as below: an error of one is where the 90 % interval ends."""
        skew = np.concatenate([np.linspace(-1, 0, 501)[:-1], np.linspace(0, 3, 501)])[
            :, None
        ].repeat(2, 1)
        data = xr.Dataset({"y": ("depth", [-0.9, 2.7])}, {"depth": [0.0, 1.0]})
        np.testing.assert_allclose(
            held_out_errors(forecast({"y": skew}), data)["error"].values.ravel(), [-1, 1], rtol=0.01
        )

    @pytest.mark.filterwarnings("ignore:errors of")
    def test_windows_whose_errors_add_up_count_as_fewer(self):
        """Of random walks and of noise, from an origin each step,
        which one time ahead share none.
        """
        rng, origins, horizon, series = np.random.default_rng(2), 24, 8, 4
        noise = rng.normal(size=(series, origins + 2 * horizon))
        counts = {}
        for kind, y in {"noise": noise, "walk": np.cumsum(noise, axis=1)}.items():
            growth = np.sqrt(np.arange(1, horizon + 1) if kind == "walk" else np.ones(horizon))
            pairs = []
            for origin in range(origins):
                start = y[:, [origin]] if kind == "walk" else np.zeros((series, 1))
                said = series_forecast(origin, np.repeat(start, horizon, 1), growth, rng, draws=100)
                pairs.append((said, series_data(y)))
            fc = series_forecast(origins + horizon, np.zeros((series, horizon)), growth, rng)
            counts[kind] = (
                bd.recalibration.recalibrate(fc, pairs)["recalibration"]["effective"]
                .mean("observable")
                .values
            )
        assert counts["noise"][0] == counts["walk"][0] == origins
        assert counts["walk"][-1] < origins / 2 < counts["noise"][-1]

    def test_where_few_are_left_there_is_a_warning(self):
        """Of data so smooth that neighbouring windows have the same errors."""
        fc, past, data = a_series(origins=16, apart=1, leads=4)
        smooth = series_data(np.cumsum(np.sin(data["time"].values / 4))[None])
        with pytest.warns(
            UserWarning,
            match=r"4 times ahead are alike where windows overlap: 16 origins count as \d",
        ):
            bd.recalibration.recalibrate(fc, [(earlier, smooth) for earlier, _ in past])


def above(figure):
    """What stands above the panels of a figure."""
    return figure.get_suptitle() + "".join(
        legend.get_title().get_text() for legend in figure.legends
    )


def members(number):
    return {
        "dims": ("subject",),
        "coords": {"subject": np.arange(float(number))},
        "members": "subject",
        "series": 1,
    }


class TestForecast:
    def test_of_a_series_reaches_from_the_fit_to_the_longest_lead(self):
        fc, past, _ = a_series()
        new = bd.recalibration.recalibrate(fc, past)
        assert (
            new.attrs["recalibrated"] == "recalibrated by conformal prediction, 12 origins held out"
        )
        assert new["predictions"].attrs["recalibrated"] == new.attrs["recalibrated"]
        assert new.attrs["known_level"] == pytest.approx(12 / 13)
        assert "posterior" not in " ".join([*new.children, *map(str, new.attrs.values())])
        np.testing.assert_array_equal(new["recalibration"]["held_out"], [[12, 12]])
        whole = forecast({"y0": np.concatenate([np.zeros((DRAWS, 3)), fc["predictions"]["y0"].values[0]], 1)}, "time",
                         np.arange(22.0, 27.0), train_end=24.0)  # fmt: skip
        xr.testing.assert_equal(
            bd.recalibration.recalibrate(whole, past)["predictions"], new["predictions"]
        )
        between = forecast({"y0": np.array([[0.0], [1.0]])}, "time", [26.6], train_end=24.0)
        with pytest.raises(DataError, match="known up to 2 times ahead"):
            bd.recalibration.recalibrate(between, past)

    def test_the_past_may_be_pairs_or_what_leave_future_out_keeps(self):
        fc, past, _ = a_series(observables=2)
        rolling = as_rolling_origins(past, 2)
        for asked in ({}, {"half_life": 20.0}):
            new = [
                bd.recalibration.recalibrate(fc, given, **asked)
                for given in (past, past[::-1], rolling)
            ]
            for other in new[1:]:
                xr.testing.assert_equal(other["predictions"], new[0]["predictions"])
                xr.testing.assert_equal(other["recalibration"], new[0]["recalibration"])

    def test_draws_keep_their_ranks(self):
        fc, past, _ = a_series(leads=3)
        old, new = (
            tree["predictions"]["y0"].values[0]
            for tree in (fc, bd.recalibration.recalibrate(fc, past))
        )
        for lead in range(3):
            order = np.argsort(old[:, lead])
            assert (np.diff(new[order, lead]) >= 0).all()

    def test_isotonic_intervals_are_those_of_other_levels_of_the_draws(self):
        """Of a forecast four times too wide: where its own 90 % interval would be that of 32 %."""
        fc, past, _ = rows_of(np.random.default_rng(7), 200, 1, factor=4.0)
        new = bd.recalibration.recalibrate(fc, past, method="isotonic")
        level = norm.cdf(norm.ppf(0.95) / 4)
        old, new = (
            tree["predictions"]["y0"].quantile(q, ["chain", "draw"])
            for tree, q in ((fc, level), (new, 0.95))
        )
        spread = fc["predictions"]["y0"].std(["chain", "draw"])
        assert (
            abs(((new - old) / spread).mean())
            < 4 * np.sqrt(0.05 * 0.95 / 200) / norm.pdf(norm.ppf(0.95)) / 4
        )

    def test_dates(self):
        fc, past, _ = a_series()
        day = np.datetime64("2020-01-01")

        def dated(tree):
            whole = tree["predictions"].to_dataset()
            whole = whole.assign_coords(time=day + whole["time"].values.astype("m8[D]"))
            found = xr.DataTree.from_dict({"predictions": whole})
            found.attrs = {
                "train_end": str(day + np.timedelta64(int(tree.attrs["train_end"]), "D"))
            }
            return found

        data = past[0][1].assign_coords(time=day + past[0][1]["time"].values.astype("m8[D]"))
        new = bd.recalibration.recalibrate(
            dated(fc), [(dated(earlier), data) for earlier, _ in past]
        )
        assert new["predictions"]["time"].values[0] == np.datetime64("2020-01-26")
        numbers = bd.recalibration.recalibrate(fc, past)["predictions"]["y0"].values
        np.testing.assert_array_equal(new["predictions"]["y0"].values, numbers)

    def test_missing_data_are_left_out_and_counted(self):
        fc, past, data = a_series(origins=14, observables=2)
        data = data.copy(deep=True)
        data["y1"][::4] = np.nan  # of every second window one time
        data["y0"][[6]] = np.nan
        with pytest.raises(
            DataError, match=r"'y1' 2 times ahead is known from 9 origins on, but 7 are held out"
        ):
            bd.recalibration.recalibrate(fc, [(earlier, data) for earlier, _ in past])
        one = forecast(
            {"y0": fc["predictions"]["y0"].values[0]},
            "time",
            fc["predictions"]["time"].values,
            **fc.attrs,
        )
        new = bd.recalibration.recalibrate(one, [(earlier, data) for earlier, _ in past])
        assert new["recalibration"]["held_out"].values.tolist() == [[14, 13]]

    def test_failed_draws_stay_failed(self):
        fc, past, _ = a_series()
        fc["predictions"]["y0"][0, :10] = np.nan
        new = bd.recalibration.recalibrate(fc, past)["predictions"]["y0"].values[0]
        assert np.isnan(new[:10]).all() and np.isfinite(new[10:]).all()

    def test_members_that_were_held_out_are_witnesses(self):
        """Each of them once, however many times it was seen."""
        rng, subjects, times = np.random.default_rng(4), 40, np.arange(5.0)
        past = forecast(
            {"y": normal(np.zeros((5, subjects)), 0.5, rng)}, "time", times, **members(subjects)
        )
        fc = forecast({"y": normal(np.zeros((5, 300)), 0.5, rng)}, "time", times, **members(300))
        came = rng.normal(size=(5, subjects)) / np.sqrt(2) + rng.normal(size=subjects) / np.sqrt(2)
        came[:2, ::2] = np.nan  # half of them were first seen later
        data = xr.Dataset(
            {"y": (("time", "subject"), came)},
            {"time": times, "subject": np.arange(float(subjects))},
        )
        new = bd.recalibration.recalibrate(fc, (past, data))
        assert (
            new.attrs["recalibrated"].endswith("40 members held out")
            and new.attrs["members"] == "subject"
        )
        low, high = np.quantile(new["predictions"]["y"].values, (0.05, 0.95), axis=(0, 1))
        shares = norm.cdf(high) - norm.cdf(low)
        assert abs(shares.mean() - 0.9) < 4 * np.sqrt(0.9 * 0.1 / subjects)

    def test_places_of_a_field(self):
        rng, past = np.random.default_rng(6), []
        place = {"dims": ("x",), "coords": {"x": [0.0, 1.0, 2.0]}}
        y = rng.normal(size=(40, 3))
        data = xr.Dataset(
            {"y": (("time", "x"), y)}, {"time": np.arange(40.0), "x": [0.0, 1.0, 2.0]}
        )
        for origin in (*range(10, 36, 2), 37):
            at = origin + np.arange(1.0, 3.0)
            past.append(
                (
                    forecast(
                        {"y": normal(np.zeros((2, 3)), 0.4, rng)},
                        "time",
                        at,
                        train_end=float(origin),
                        **place,
                    ),
                    data,
                )
            )
        new = bd.recalibration.recalibrate(
            forecast(
                {"y": normal(np.zeros((2, 3)), 0.4, rng)},
                "time",
                [40.0, 41.0],
                train_end=39.0,
                **place,
            ),
            past,
        )
        assert new["predictions"]["y"].dims == ("chain", "draw", "time", "x")
        assert new["recalibration"]["held_out"].values.tolist() == [[14, 14]]
        np.testing.assert_allclose(new["recalibration"]["width_ratio"], 2.5, rtol=0.3)


class TestSupport:
    def test_positive_data_stay_positive(self):
        fc, past, _ = a_series(origins=12)
        draws = np.exp(fc["predictions"]["y0"].values)
        parameters = {
            "y0.loc": (
                ("chain", "draw"),
                np.zeros((1, DRAWS)),
                {"observable": "y0", "parameter": "loc"},
            )
        }
        parameters["y0.scale"] = (
            ("chain", "draw"),
            np.ones((1, DRAWS)),
            {"observable": "y0", "parameter": "scale"},
        )
        positive = forecast({"y0": draws[0]}, "time", fc["predictions"]["time"].values, **fc.attrs)
        assert (
            float(bd.recalibration.recalibrate(positive, past)["predictions"]["y0"].min()) < 0
        )  # nothing says that they are
        noise = xr.Dataset(parameters)
        for variable in noise.data_vars.values():
            variable.attrs["distribution"] = "LogNormal"
        positive["noise"] = xr.DataTree(noise)
        assert float(bd.recalibration.recalibrate(positive, past)["predictions"]["y0"].min()) == 0

    def test_counts_stay_whole(self):
        rng, rate = np.random.default_rng(0), 4.0

        def counts(rows, r):
            return {f"y{i}": rng.poisson(r, (DRAWS, rows)).astype(float) for i in range(8)}

        data = xr.Dataset(
            {n: ("depth", rng.poisson(3 * rate, 30)) for n in counts(1, 1)},
            {"depth": np.arange(30.0)},
        )
        fc, past = forecast(counts(30, rate)), (forecast(counts(30, rate)), data)
        came = xr.Dataset(
            {n: ("depth", rng.poisson(3 * rate, 30)) for n in data}, {"depth": np.arange(30.0)}
        )
        new = bd.recalibration.recalibrate(fc, past)
        values = new["predictions"].to_dataset().to_array().values
        np.testing.assert_array_equal(values, np.round(values))
        assert (
            held(new, came).mean()
            > 0.9 - 4 * np.sqrt(0.9 * 0.1 / 240)
            > held(fc, came).mean() + 0.3
        )

    def test_bounds_of_counts_are_those_of_errors_rounded_outward(self):
        rng = np.random.default_rng(1)
        fc, past = (forecast({"y": rng.poisson(5.0, (DRAWS, 30)).astype(float)}) for _ in range(2))
        data = xr.Dataset({"y": ("depth", rng.poisson(9.0, 30))}, {"depth": np.arange(30.0)})
        sizes = np.abs(held_out_errors(past, data)["error"].values.ravel())
        draws = np.sort(
            bd.recalibration.recalibrate(fc, (past, data))["predictions"]["y"].values[0], axis=0
        )
        low, middle, high = np.quantile(fc["predictions"]["y"].values[0], (0.05, 0.5, 0.95), axis=0)
        for rank in (340, 380):
            size = np.quantile(sizes, 2 * rank / (DRAWS - 1) - 1, method="weibull")
            np.testing.assert_array_equal(draws[rank], np.ceil(middle + size * (high - middle)))
            np.testing.assert_array_equal(
                draws[DRAWS - 1 - rank], np.floor(middle - size * (middle - low))
            )

    def test_where_a_forecast_has_no_spread_nothing_is_said(self):
        fc, (past, data), _ = rows_of(np.random.default_rng(0), 20, 1)
        past["predictions"]["y0"][..., 3] = 0.5
        with pytest.raises(DataError, match="no spread on that side"):
            bd.recalibration.recalibrate(fc, (past, data))


class TestLabels:
    @pytest.fixture(scope="class")
    @staticmethod
    def new():
        fc, past, _ = a_series()
        return bd.recalibration.recalibrate(fc, past), series_data(
            np.random.default_rng(1).normal(size=(1, 27))
        )

    def test_scores_say_what_it_is_and_what_is_not_known(self, new):
        table = bd.score(*new)
        assert np.isnan(table["coverage_95"]).all() and np.isfinite(table["coverage_90"]).all()
        assert (
            "recalibrated by conformal prediction, 12 origins held out: no posterior predictive"
            in repr(table)
        )
        assert bd.scores.pit(*new).attrs["recalibrated"] == new[0].attrs["recalibrated"]

    @pytest.mark.parametrize(
        "verb",
        [
            bd.decompose, bd.sensitivity.decompose_entropy, bd.scores.consistency,
            lambda fc: bd.diagnose(trees.make_post(), fc),
            lambda fc: bd.report(trees.make_post(), fc),
            lambda fc: bd.mixture({"one": fc}, {"one": 1.0}),
            lambda fc: bd.recalibration.recalibrate(fc, a_series()[1]),
        ],
    )  # fmt: skip
    def test_what_is_of_the_model_is_refused(self, new, verb):
        with pytest.raises(
            MismatchError,
            match=r"this forecast is recalibrated by conformal prediction.*model's own",
        ):
            verb(new[0])

    def test_saved_and_loaded_it_is_the_same(self, new, tmp_path):
        again = bd.load(bd.save(new[0], tmp_path / "new.nc"))
        assert again.attrs["recalibrated"] == new[0].attrs["recalibrated"]
        xr.testing.assert_identical(
            again["predictions"].to_dataset(), new[0]["predictions"].to_dataset()
        )

    @pytest.mark.parametrize(
        "draw",
        [
            lambda fc, data: plots.plot_forecast(fc, data, None, "y0"),
            lambda fc, data: plots.plot_scenarios({"new": fc}, data, "y0"),
            lambda fc, data: plots.plot_pit(bd.scores.pit(fc, data)),
            lambda fc, data: plots.plot_coverage(bd.score(fc, data)),
        ],
    )
    def test_figures_say_it(self, new, draw):
        assert "recalibrated by conformal prediction, 12 origins held out" in above(draw(*new))

    def test_figures_of_members_and_fields_say_it(self):
        rng, attributes = (
            np.random.default_rng(0),
            {"recalibrated": "recalibrated so", "members": "x"},
        )
        many = {"dims": ("x",), "coords": {"x": np.arange(30.0)}}
        fc = forecast({"y": rng.normal(size=(50, 4, 30))}, "time", **many, **attributes)
        data = fc["predictions"].to_dataset().isel(chain=0, draw=0)
        for figure in (
            plots.plot_members(fc, data, None, "y"),
            plots.plot_field(fc, data, None, "y"),
        ):
            assert "recalibrated so" in above(figure)
        assert "12 of 30" in above(plots.plot_members(fc, data, None, "y"))


class TestRefused:
    @pytest.mark.parametrize(
        "change, error, said",
        [
            (lambda fc, past: (fc, past[:8]), DataError, "from 9 origins on, but 8 are held out: "
                "take more origins"),
            (lambda fc, past: (fc, []), MismatchError, "past is what bd.weighting.leave_future_out "
                "returned"),
            (lambda fc, past: (fc, xr.DataTree()), MismatchError, "past is what "
                "bd.weighting.leave_future_out returned"),
            (lambda fc, past: (fc, past[0]), MismatchError, "one witness"),
            (lambda fc, past: (fc, [past[0], *past]), MismatchError, "from the same origin"),
            (lambda fc, past: (with_attributes(fc, what_if=1), past), MismatchError, "what-if"),
            (lambda fc, past: (with_attributes(fc, train_end=20.0), past), MismatchError, "learn "
                "from the data"),
            (lambda fc, past: (with_attributes(fc, train_end=99.0), past), DataError, "after the "
                "end of its fit"),
            (lambda fc, past: (forecast({"z": np.zeros((2, 1))}, "time", [25.0], train_end=24.0), past), MismatchError,
             "nothing was held out of the observables z"),
            (lambda fc, past: (with_attributes(fc, signature="1"), of(past, signature="2")), MismatchError,
             "another model"),
            (lambda fc, past: (with_attributes(fc, mixture="{}"), of(past, signature="2")), MismatchError,
             "mixture has"),
            (lambda fc, past: (fc, of(past, mixture="{}")), MismatchError, "by a mixture"),
            (lambda fc, past: (fc, of(past, what_if=1)), MismatchError, "as a what-if"),
            (lambda fc, past: (fc, of(past, recalibrated="recalibrated")), MismatchError, "the "
                "model's own"),
        ],
    )  # fmt: skip
    def test_what_tells_nothing(self, change, error, said):
        fc, past, _ = a_series()
        with pytest.raises(error, match=said):
            bd.recalibration.recalibrate(*change(fc, past))

    def test_old_origins_that_count_as_too_few(self):
        fc, past, _ = a_series()
        with pytest.raises(DataError, match=r"12 are held out, which count as 4\.\d+ by their age"):
            bd.recalibration.recalibrate(fc, past, half_life=1.5)

    def test_the_last_origins_count_most_if_asked(self):
        """Of errors that grow threefold half-way."""
        fc, past, data = a_series(origins=40)
        grown = data * np.where(data["time"] > 40, 3.0, 1.0)
        pairs = [(earlier, grown) for earlier, _ in past]
        alike, last = (
            bd.recalibration.recalibrate(fc, pairs),
            bd.recalibration.recalibrate(fc, pairs, half_life=6.0),
        )
        assert last.attrs["half_life"] == 6.0
        assert (
            last["recalibration"]["width_ratio"] > 1.1 * alike["recalibration"]["width_ratio"]
        ).all()

    def test_arguments(self):
        fc, past, _ = rows_of(np.random.default_rng(0), 20, 1)
        with pytest.raises(MismatchError, match="conformal, isotonic, not 'isotone'"):
            bd.recalibration.recalibrate(fc, past, method="isotone")
        with pytest.raises(
            DataError, match="half_life is a positive number of origins of a series, not 5"
        ):
            bd.recalibration.recalibrate(fc, past, half_life=5.0)

    def test_censored_data(self):
        fc, (past, data), _ = rows_of(np.random.default_rng(0), 20, 1)
        data = data.assign(y0_censored=("depth", np.arange(20) == 3))
        with pytest.raises(DataError, match="'y0' are censored"):
            bd.recalibration.recalibrate(fc, (past, data.astype(float)))

    def test_isotonic_does_not_go_beyond_the_draws(self):
        fc, past, _ = rows_of(np.random.default_rng(0), 30, 1, factor=0.2)
        with pytest.raises(DataError, match="beyond all draws"):
            bd.recalibration.recalibrate(fc, past, method="isotonic")

    def test_posteriors_of_other_data(self):
        fc, (past, data), _ = rows_of(np.random.default_rng(0), 20, 1)
        with pytest.raises(MismatchError, match="fits to other data"):
            bd.recalibration.recalibrate(
                with_attributes(fc, posterior_sha256="a"),
                (with_attributes(past, posterior_sha256="b"), data),
            )


def with_attributes(tree, **attributes):
    found = tree.copy()
    found.attrs = tree.attrs | attributes
    return found


def of(past, **attributes):
    return [(with_attributes(fc, **attributes), data) for fc, data in past]
