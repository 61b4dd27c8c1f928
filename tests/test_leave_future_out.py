"""Rolling origins against Gaussian models, of which every conditional density is known; refits;
what is refused.
"""

import dataclasses

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import scoringrules
import xarray as xr
from curves import Curve
from scipy.stats import multivariate_normal, norm

import bayes_dasl as bd
from bayes_dasl.errors import DataError, Interrupted, MismatchError
from bayes_dasl.inference import AbstractEngine, Samples
from bayes_dasl.weighting import weights_by_future_left_out
from bayes_dasl.weighting.bridge import bridged, log_mean

CHAINS, DRAWS = 4, 1000
PRIOR_SD, SCALE, CORRELATION = 1.0, 0.5, 0.7


class Trend(Curve):
    """A line through the origin."""

    slope: bd.Scalar

    def y(self, times):
        return self.slope * times


def design(times):
    return np.asarray(times) / 10


class Slow(Trend):
    def y(self, times):
        return self.slope * times / 10


def covariance(times, kind):
    """That of the noise."""
    apart = np.abs(np.subtract.outer(times, times))
    return SCALE**2 * (CORRELATION**apart if kind == "correlated" else np.eye(len(times)))


def posterior(times, y, kind):
    """Mean and standard deviation of the slope, in closed form."""
    seen = ~np.isnan(y)
    x, sigma = design(times)[seen], covariance(times[seen], kind)
    precision = PRIOR_SD**-2 + x @ np.linalg.solve(sigma, x)
    return x @ np.linalg.solve(sigma, y[seen]) / precision, precision**-0.5


HORIZON, ORIGINS = 4, (18, 22)


def rows(y, origin):
    """The data that are known at an origin, and the first ones after it."""
    seen = np.flatnonzero(~np.isnan(y))
    return seen[seen <= origin], seen[seen > origin][:HORIZON]


def ahead(times, y, origin, kind):
    """Mean and covariance of the data ahead, given those that are known."""
    whole = PRIOR_SD**2 * np.outer(design(times), design(times)) + covariance(times, kind)
    a, b = rows(y, origin)
    gain = np.linalg.solve(whole[np.ix_(a, a)], whole[np.ix_(a, b)]).T
    return gain @ y[a], whole[np.ix_(b, b)] - gain @ whole[np.ix_(a, b)]


@dataclasses.dataclass(frozen=True)
class Exact(AbstractEngine):
    """Independent draws of the posterior in closed form; counts the fits."""

    kind: str = "white"
    draws: int = DRAWS
    in_units: float = 1.0
    fits: list = dataclasses.field(default_factory=list, compare=False)
    rows: list = dataclasses.field(default_factory=list, compare=False)

    def stored(self):
        return {"class": "Exact", "kind": self.kind}

    def run(self, problem, *, key, journal, bar):
        times, y = np.asarray(problem.inputs.times), np.asarray(problem.observed["y"])
        self.fits.append(1 + int(np.flatnonzero(~np.isnan(y)).max()))
        self.rows.append(len(times))
        mean, sd = (self.in_units * each for each in posterior(times, y / self.in_units, self.kind))
        position = (mean + sd * np.asarray(jax.random.normal(key, (CHAINS, self.draws))))[..., None]
        lp = np.asarray(jax.jit(jax.vmap(jax.vmap(problem.log_density)))(position))
        return Samples(position, {"lp": lp, "diverging": np.zeros(lp.shape, bool)})


def model(kind):
    noise = (
        bd.NormalNoise(SCALE)
        if kind == "white"
        else bd.filtering.CorrelatedNoise(bd.filtering.AR1(SCALE, CORRELATION))
    )
    return bd.Model(Slow(dist.Normal(0.0, PRIOR_SD)), noise)


def simulated(kind, number=30, seed=0):
    times = np.arange(float(number))
    y = 0.8 * design(times) + np.random.default_rng(seed).multivariate_normal(
        np.zeros(number), covariance(times, kind)
    )
    return xr.Dataset(
        {"y": ("time", y, {"units": "m"})}, {"time": ("time", times, {"units": "day"})}
    )


@pytest.fixture(
    scope="module", params=["white", pytest.param("correlated", marks=pytest.mark.thorough)]
)
def run(request, tmp_path_factory):
    """Of a series in which one datum is missing ahead, and one that is known before.

    The process is killed in the midst of the second origin, and the same call goes on where it was.
    """
    kind, folder = request.param, tmp_path_factory.mktemp("kept") / "kept"
    data = simulated(kind)
    data["y"][[5, 26]] = np.nan
    engine, forecast, forecasts = Exact(kind), weights_by_future_left_out.forecast, []
    asked = {
        "origins": ORIGINS,
        "horizon": HORIZON,
        "engine": engine,
        "key": 3,
        "checkpoint": folder,
    }

    def killed_at_the_second(*arguments, **settings):
        forecasts.append(settings)
        if len(forecasts) == 2:
            raise KeyboardInterrupt
        return forecast(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(weights_by_future_left_out, "forecast", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            bd.weighting.leave_future_out(model(kind), data, **asked)
        left = {path.name for path in folder.iterdir()}
        found = bd.weighting.leave_future_out(model(kind), data, **asked)
    assert left == {"run.json", "000001.step"} and len(forecasts) == 3
    return kind, data, engine, found, asked


def test_joint_densities_are_those_in_closed_form(run):
    """Within 4 Monte-Carlo errors of a mean over draws,
    by as many draws as the weights are worth.
    """
    kind, data, engine, found, _ = run
    assert engine.fits == [19]
    times, y = data["time"].values, data["y"].values
    for origin in ORIGINS:
        at = found.sel(origin=origin)
        truth = multivariate_normal(*ahead(times, y, origin, kind)).logpdf(y[rows(y, origin)[1]])
        effective = float(at["effective_draws"].fillna(CHAINS * DRAWS))
        error = relative_spread(times, y, origin, kind) / np.sqrt(effective)
        assert abs(float(at["log_density"]) - truth) < 4 * error < 0.1
        assert int(at["number"]) == HORIZON
        assert float(at["density_pareto_k"]) < 0.7
    assert list(found["refitted"].values) == [1, 0]


def relative_spread(times, y, origin, kind):
    """The standard deviation over the posterior of the density of the data ahead, in units of its
    mean.
    """
    (a, b), sigma = rows(y, origin), covariance(times, kind)
    mean, sd = posterior(times[: origin + 1], y[: origin + 1], kind)
    slopes = mean + sd * np.random.default_rng(1).normal(size=2000)
    gain = np.linalg.solve(sigma[np.ix_(a, a)], sigma[np.ix_(a, b)]).T
    left = sigma[np.ix_(b, b)] - gain @ sigma[np.ix_(a, b)]
    residuals = y - slopes[:, None] * design(times)
    density = multivariate_normal(np.zeros(len(b)), left).pdf(
        residuals[:, b] - residuals[:, a] @ gain.T
    )
    return density.std() / density.mean()


def test_scores_of_each_lead_are_those_in_closed_form(run):
    """Of a forecast of n draws; the log score is of a mean of densities, which is the smoother of
    the two.
    """
    kind, data, _, found, _ = run
    times, y = data["time"].values, data["y"].values
    for origin in ORIGINS:
        mean, cov = ahead(times, y, origin, kind)
        sd, seen = np.sqrt(np.diag(cov)), y[rows(y, origin)[1]]
        at = found.sel(origin=origin, observable="y")
        np.testing.assert_array_equal(at["time"], times[rows(y, origin)[1]])
        error = 4 / np.sqrt(float(at["effective_draws"].fillna(CHAINS * DRAWS)))
        np.testing.assert_allclose(at["log_score"], -norm(mean, sd).logpdf(seen), atol=error)
        # The CRPS of draws varies no more than a mean distance, of which the standard deviation is
        # at most theirs.
        np.testing.assert_allclose(
            at["crps"], scoringrules.crps_normal(seen, mean, sd), atol=error * sd.max()
        )
    assert found["units"].sel(observable="y") == "m"


@pytest.mark.thorough
def test_the_model_is_fitted_anew_where_weights_cannot_be_trusted():
    """At one datum that the draws before it rule out."""
    data = simulated("white")
    data["y"][22] -= 12.0
    engine = Exact()
    found = bd.weighting.leave_future_out(
        model("white"), data, origins=[19, 20, 23, 24], horizon=2, engine=engine, key=1
    )
    assert list(found["refitted"].values) == [1, 0, 1, 0]
    assert engine.fits == [20, 24]
    assert len({*engine.rows}) == 1, "fits of one shape share their compiled programs"
    np.testing.assert_array_equal(np.isnan(found["update_pareto_k"]), [True, False, False, False])
    bad = (found["update_pareto_k"].values >= 0.7) | (
        found["effective_draws"].values < 0.1 * CHAINS * DRAWS
    )
    np.testing.assert_array_equal(bad[1:], found["refitted"].values[1:] == 1)


@pytest.mark.thorough
def test_origins_lie_evenly_over_the_last_third():
    found = bd.weighting.leave_future_out(model("white"), simulated("white"), engine=Exact(), key=1)
    assert found.attrs["horizon"] == 2
    np.testing.assert_array_equal(found["origin"], [19, 21, 23, 25, 27])
    np.testing.assert_array_equal(found["time"][-1], [28, 29])
    assert found["origin"].attrs["units"] == "day"


def test_errors_that_recalibration_learns_from_are_those_in_closed_form(run):
    """Of quantiles of draws of level p,
    whose standard error is that of p over the density there.
    """
    kind, data, _, found, _ = run
    times, y = data["time"].values, data["y"].values
    for number, origin in enumerate(ORIGINS):
        mean, cov = ahead(times, y, origin, kind)
        z = (y[rows(y, origin)[1]] - mean) / np.sqrt(np.diag(cov))
        at = found["held_out"].to_dataset().isel(origin=number, observable=0, member=0, value=0)
        edge, error = (
            norm.ppf(0.95),
            4 / np.sqrt(float(found["effective_draws"].fillna(CHAINS * DRAWS)[number])),
        )
        atol = error * (1.25 + abs(z) * np.sqrt(0.05 * 0.95) / norm.pdf(edge)) / edge
        assert (abs(at["error"] - z / edge) < atol).all()
        np.testing.assert_allclose(at["pit"], norm.cdf(z), atol=error / 2)
    fc = xr.DataTree.from_dict(
        {"predictions": xr.Dataset({"y": (("chain", "draw", "time"), np.zeros((1, 2, 1)))})}
    )
    fc["predictions"].coords["time"] = [30.0]
    fc.attrs = {"train_end": 29.0, "signature": found.attrs["signature"]}
    with pytest.raises(DataError, match="known from 9 origins on, but 2 are held out"):
        bd.recalibration.recalibrate(fc, found)


@pytest.mark.thorough
def test_a_call_that_was_killed_has_the_numbers_of_one_that_was_not(run):
    kind, data, _, found, asked = run
    whole = bd.weighting.leave_future_out(
        model(kind), data, **{name: v for name, v in asked.items() if name != "checkpoint"}
    )
    xr.testing.assert_identical(found.to_dataset().drop_attrs(), whole.to_dataset().drop_attrs())


def test_a_checkpoint_of_something_else_is_refused(run):
    kind, data, engine, _, asked = run
    before = list(engine.fits)
    others = {
        "key": {"key": 4},
        "windows": {"horizon": 3},
        "posterior_sha256": {},
        "engine": {"engine": bd.NUTS()},
    }
    for what, other in others.items():
        with pytest.raises(MismatchError, match=f"belongs to another run .*{what}"):
            bd.weighting.leave_future_out(
                model(kind), data if other else data + 0.1, **asked | other
            )
    assert engine.fits == before


@pytest.mark.thorough
def test_models_of_other_units_are_compared_in_those_of_the_data(run):
    """The same model in centimetres, of data in metres: equal but for rounding."""
    kind, data, _, whole, _ = run

    class InCentimetres(Slow):
        units = {"y": "cm"}  # noqa: RUF012

    noise = (
        bd.NormalNoise(100 * SCALE)
        if kind == "white"
        else bd.filtering.CorrelatedNoise(bd.filtering.AR1(100 * SCALE, CORRELATION))
    )
    other = bd.Model(InCentimetres(dist.Normal(0.0, 100 * PRIOR_SD)), noise)
    engine = Exact(kind, in_units=100.0)
    found = bd.weighting.leave_future_out(
        other, data, origins=ORIGINS, horizon=HORIZON, engine=engine, key=3
    )
    assert found["units"].values.tolist() == ["m"]
    for name in ("log_density", "log_score", "crps", "density_error"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-7)
    comparison = bd.compare({"metres": whole, "centimetres": found})
    assert comparison.weights["metres"] == pytest.approx(0.5, abs=1e-6)


def test_a_result_is_saved_and_loaded(run, tmp_path):
    *_, found, _ = run
    again = bd.load(bd.save(found, tmp_path / "future.nc"))
    xr.testing.assert_identical(again, found)


@pytest.mark.parametrize(
    "asked, said",
    [
        pytest.param({"origins": 30}, "1 to 29 origins", id="too many origins"),
        pytest.param({"horizon": 0}, "whole number from 1 on", id="no horizon"),
        pytest.param({"horizon": 30}, "0 before the first", id="nothing before"),
        pytest.param({"origins": [20, 28], "horizon": 3}, "1 after the last", id="too far"),
        pytest.param({"origins": [20, 20.5]}, "must rise", id="no data between"),
        pytest.param({"origins": []}, "must rise", id="none"),
    ],
)
def test_what_the_data_do_not_have_is_refused(asked, said):
    engine = Exact()
    with pytest.raises(DataError, match=said):
        bd.weighting.leave_future_out(model("white"), simulated("white"), engine=engine, **asked)
    assert not engine.fits


def test_an_observable_that_begins_after_the_first_origin_is_named():
    engine, data = Exact(), simulated("white")
    times = data["time"].values
    late = data.assign(y=data["y"].where(data["time"] >= times[20]))
    seen = late.assign(z=data["y"])
    two = bd.Model(
        bd.Algebraic(lambda t, y, u: {"y": 0.0 * t, "z": 0.0 * t}), bd.NormalNoise(bd.between(1, 2))
    )
    with pytest.raises(
        DataError, match=r"nothing was observed of 'y' up to the first origin.*take later origins"
    ):
        bd.weighting.leave_future_out(two, seen, engine=engine, origins=[times[19]], horizon=2)
    assert not engine.fits


def test_rows_in_any_order_are_refused():
    class Line(bd.Module):
        slope: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": self.slope * t}

    along = bd.Model(bd.Algebraic(Line(dist.Normal(0.0, 1.0)), index="depth"), bd.NormalNoise(1.0))
    with pytest.raises(DataError, match="no future"):
        bd.weighting.leave_future_out(
            along, simulated("white").rename(time="depth"), engine=Exact()
        )


class Line(bd.Module):
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.slope * t / 10}


@dataclasses.dataclass(frozen=True)
class Stopped(Exact):
    """Ends as after Ctrl-C."""

    def run(self, problem, *, key, journal, bar):
        return dataclasses.replace(
            super().run(problem, key=key, journal=journal, bar=bar), interrupted=True
        )


def test_a_fit_that_the_user_stopped_ends_all():
    with (
        pytest.warns(UserWarning, match="stopped early"),
        pytest.raises(Interrupted, match="at the origin 20"),
    ):
        bd.weighting.leave_future_out(
            model("white"), simulated("white"), origins=[20, 24], engine=Stopped()
        )


@dataclasses.dataclass(frozen=True)
class ExactOfEach(AbstractEngine):
    """As `Exact`, for members that know nothing of each other and have all data."""

    y: np.ndarray
    draws: int = DRAWS

    def run(self, problem, *, key, journal, bar):
        known = int(np.sum(~np.isnan(np.asarray(problem.observed["y"])))) // self.y.shape[1]
        times = np.arange(float(known))
        found = [posterior(times, column[:known], "white") for column in self.y.T]
        mean, sd = np.array(found).T
        slopes = mean + sd * np.asarray(jax.random.normal(key, (CHAINS, self.draws, len(mean))))
        position = np.asarray(
            jax.vmap(jax.vmap(problem.unconstrain))({"layer.layer.function.slope": slopes})
        )
        return Samples(
            position,
            {"lp": np.zeros(position.shape[:2]), "diverging": np.zeros(position.shape[:2], bool)},
        )


@pytest.mark.thorough
def test_members_of_a_population_are_forecast_together():
    """The joint density of all members is the product of theirs, where they know nothing of each
    other.
    """
    members = [simulated("white", 14, seed)["y"].values for seed in (1, 2)]
    y = np.stack(members, axis=1)
    data = xr.Dataset(
        {"y": (("time", "subject"), y)}, {"time": np.arange(14.0), "subject": [1.0, 2.0]}
    )
    each = bd.Each(bd.Algebraic(Line(bd.varying(dist.Normal(0.0, PRIOR_SD)))), members=[1.0, 2.0])
    of_members = bd.Model(each, bd.NormalNoise(SCALE))
    found = bd.weighting.leave_future_out(
        of_members, data, origins=[7, 9], horizon=HORIZON, engine=ExactOfEach(y), key=5
    )
    times = np.arange(14.0)
    for origin in (7, 9):
        at = found.sel(origin=origin)
        effective = float(at["effective_draws"].fillna(CHAINS * DRAWS))
        truth, spread = 0.0, 0.0
        for column in members:
            truth += multivariate_normal(*ahead(times, column, origin, "white")).logpdf(
                column[rows(column, origin)[1]]
            )
            spread += relative_spread(times, column, origin, "white") ** 2
        error = np.sqrt(((1 + spread / 2) ** 2 - 1) / effective)
        assert abs(float(at["log_density"]) - truth) < 4 * error < 0.2
        assert int(at["number"]) == 2 * HORIZON
    assert found["crps"].dims == ("origin", "observable", "lead")


@pytest.mark.thorough
def test_densities_that_hang_on_few_draws_are_bridged_between_two_fits():
    """Data ahead that only few draws foresee, over windows that lie side by side; after the last
    one by all data.
    """
    data = simulated("white", 28)
    data["y"][20:] += 0.9 * design(data["time"].values[20:])
    data["y"][24:] -= 1.2 * design(data["time"].values[24:])
    post = bd.fit(model("white"), data, Exact(), key=7)
    asked = {"origins": [19, 23], "horizon": HORIZON, "engine": Exact(), "key": 2}
    found = bd.weighting.leave_future_out(model("white"), data, post=post, **asked)
    assert list(found["bridged"].values) == [1, 1] and list(found["refitted"].values) == [1, 1]
    assert (found["density_pareto_k"] >= 0.7).all() and (found["draws"] == CHAINS * DRAWS).all()
    times, y = data["time"].values, data["y"].values
    for i, origin in enumerate((19, 23)):
        truth = multivariate_normal(*ahead(times, y, origin, "white")).logpdf(y[rows(y, origin)[1]])
        assert (
            abs(float(found["log_density"][i]) - truth) < 4 * float(found["density_error"][i]) < 1.0
        )
    with pytest.raises(MismatchError, match="given all of these data"):
        bd.weighting.leave_future_out(model("white"), data + 0.1, post=post, **asked)


def standardised_errors(away, mean_of, pairs=200, draws=500, width=0.5):
    """By how many of its errors a mean is off, of a normal likelihood under a standard normal
    prior.
    """
    truth = norm(away, np.hypot(1.0, width)).logpdf(0.0) + np.log(width * np.sqrt(2 * np.pi))
    after, found = (away / (1 + width**2), width / np.hypot(1.0, width)), []
    for seed in range(pairs):
        rng = np.random.default_rng(seed)
        thetas = rng.normal(size=draws), rng.normal(*after, size=draws // 4)
        found.append(mean_of(*(-0.5 * ((theta - away) / width) ** 2 for theta in thetas)))
    return np.array([(each.value - truth) / each.error for each in found])


@pytest.mark.thorough("bridged-3.0")
@pytest.mark.parametrize(
    "mean_of, away", [(lambda before, after: log_mean(before), 1.0), (bridged, 1.0), (bridged, 3.0)]
)
def test_a_mean_likelihood_has_the_error_that_it_says(mean_of, away):
    """z² is 1 on average, to 4 of its standard errors; farther away a plain mean is off by more
    than it says.
    """
    assert abs(np.mean(np.square(standardised_errors(away, mean_of))) - 1) < 4 * np.sqrt(2 / 200)
