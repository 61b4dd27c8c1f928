"""Censored data: distribution functions far out, log densities by hand, forecasts, scores,
residuals, bad codes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats
from scipy.special import logsumexp
from test_per_datum import ENGINE, model

import bayes_dasl as bd
from bayes_dasl.data.censoring import alike, completed, with_bounds
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.model import check_data

TIMES = np.arange(6.0)
VALUES = np.array([2.0, 0.5, 0.5, 5.0, 1.0, np.nan])
CODES = np.array([0, 1, 1, -1, -1, 0])
LIMITS = np.array([np.nan, np.nan, 0.1, np.nan, 3.0, np.nan])
DATA = xr.Dataset(
    {"y": ("time", VALUES), "y_censored": ("time", CODES), "y_limit": ("time", LIMITS)},
    {"time": TIMES},
)


def by_hand(law, low_is_inside=False):
    """The log density of the six data above by SciPy."""
    low = 1.0 if low_is_inside else 0.0
    density = law.logpmf(2.0) if low_is_inside else law.logpdf(2.0)
    return [
        density,
        law.logcdf(0.5),
        np.log(law.cdf(0.5) - law.cdf(0.1)) if not low_is_inside else np.nan,
        law.logsf(5.0 - low),
        np.log(law.cdf(3.0) - law.cdf(1.0 - low)),
    ]


@pytest.mark.thorough("noise0-law0", "noise2-law2", "noise3-law3")
@pytest.mark.parametrize(
    ("noise", "law"),
    [
        (bd.NormalNoise(0.8), stats.norm(1, 0.8)),
        (bd.LogNormalNoise(0.6), stats.lognorm(0.6)),
        (bd.StudentTNoise(0.5, 3.0), stats.t(3, 1, 0.5)),
        (bd.CombinedNoise(0.3, 0.4), stats.norm(1, 0.5)),
    ],
)
def test_log_density_by_codes(noise, law):
    problem = pose(model(bd.noise.Censored(noise), dist.LogNormal(0.0, 1.0)), DATA)
    value, slope = jax.value_and_grad(lambda x: problem.terms(x).data)(jnp.zeros(1))
    assert float(value) == pytest.approx(sum(by_hand(law)), rel=1e-9)
    assert np.isfinite(slope).all()
    assert float(
        problem.log_density(jnp.zeros(1)) - problem.log_prior(jnp.zeros(1))
    ) == pytest.approx(float(value))


@pytest.mark.thorough
def test_log_density_of_counts_has_its_bounds_inside():
    counts = DATA.isel(time=[0, 1, 3, 4]).assign(y=("time", [2.0, 1.0, 5.0, 1.0]))
    problem, law = (
        pose(model(bd.noise.Censored(bd.PoissonNoise()), dist.LogNormal(0.0, 1.0)), counts),
        stats.poisson(1.0),
    )
    wanted = law.logpmf(2) + law.logcdf(1) + law.logsf(4) + np.log(law.pmf([1, 2, 3]).sum())
    assert float(problem.terms(jnp.zeros(1)).data) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.thorough
def test_log_density_by_limits_of_all_data():
    data = xr.Dataset({"y": ("time", [0.2, 0.5, 1.0, 4.0, 7.0])}, {"time": TIMES[:5]})
    problem = pose(model(bd.noise.Censored(bd.NormalNoise(0.8), below=0.5, above=4.0)), data)
    law = stats.norm(0.0, 0.8)
    wanted = 2 * law.logcdf(0.5) + law.logpdf(1.0) + 2 * law.logsf(4.0)
    assert float(problem.terms(jnp.zeros(1)).data) == pytest.approx(wanted, rel=1e-9)


CENSORED = model(
    bd.noise.Censored(bd.LogNormalNoise(dist.HalfNormal(1.0))), dist.LogNormal(0.0, 1.0)
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.drop_vars("y_censored"),
            "reads 'y_censored' of each datum, which is not in the data",
        ),
        (
            lambda d: d.assign(y_censored=d["y_censored"] * 2),
            r"'y_censored' is 2 at time 1 \(row 1\).*at least -1, at",
        ),
        (
            lambda d: d.assign(y_censored=d["y_censored"].where(d["time"] != 2)),
            r"'y_censored' is missing at time 2",
        ),
        (
            lambda d: d.assign(y_limit=d["y_limit"] * 0 + 2.0),
            "'y' is 0.5 at time 2, which Censored rules out: .*lower",
        ),
        (
            lambda d: d.assign(y_limit=d["y_limit"] * np.inf),
            r"'y_limit' is inf at time 2 .*must be finite",
        ),
        (
            lambda d: d.assign(y=-d["y"]),
            "'y' is -2 at time 0, which Censored rules out: its data are greater than 0",
        ),
    ],
)
def test_codes_and_limits_that_cannot_be_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        check_data(CENSORED, change(DATA))


def test_data_that_are_censored_are_not_taken_as_seen():
    for noise in (bd.LogNormalNoise(0.3), bd.noise.Censored(bd.LogNormalNoise(0.3), below=0.5)):
        with pytest.raises(
            DataError,
            match=r"'y_censored' says that values of 'y' are censored, but the noise takes",
        ):
            check_data(model(noise, dist.LogNormal(0.0, 1.0)), DATA)
    check_data(
        model(bd.LogNormalNoise(0.3), dist.LogNormal(0.0, 1.0)),
        DATA.assign(y_censored=0 * DATA["y_censored"]),
    )


class Odd(bd.noise.AbstractNoise):
    def __call__(self, prediction):
        return dist.BetaBinomial(2.0 + 0 * prediction, 2.0, 9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bd.noise.Censored(0.1), "Censored is around a noise"),
        (
            lambda: bd.noise.Censored(bd.noise.Censored(bd.PoissonNoise())),
            "Censored is around a noise",
        ),
        (
            lambda: bd.noise.Censored(bd.PoissonNoise(), below=3.0, above=2.0),
            "limits of censored data must be numbers",
        ),
        (
            lambda: bd.noise.Censored(bd.PoissonNoise(), below="low"),
            "limits of censored data must be numbers",
        ),
        (
            lambda: check_data(model(bd.noise.Censored(Odd(), below=1.0)), DATA[["y"]]),
            "Odd cannot be censored",
        ),
    ],
)
def test_what_cannot_be_censored(unchecked, build, message):
    with pytest.raises(ModelError, match=message):
        build()


def test_leaves_and_units_lie_within():
    told = str(bd.describe(CENSORED))
    assert "Censored" in told and "variable={observable}_censored" in told
    layer = bd.Algebraic(CENSORED.layer.function, units={"y": "mg/L"})
    own = bd.Model(layer, bd.noise.Censored(bd.NormalNoise(dist.HalfNormal(1.0))))
    assert own.__leaf_units__(("noise", "noise", "scale")) == "mg/L"
    in_grams = DATA.assign(y_limit=(DATA["y_limit"] / 1000).assign_attrs(units="g/L"))
    assert float(own.in_own_units(in_grams)["y_limit"][4]) == pytest.approx(3.0)


@pytest.fixture(scope="module")
def fitted():
    """Normal values of level 1 and scale 1 of which those below 1 are censored, and their fit."""
    true = np.random.default_rng(5).normal(1.0, 1.0, 60)
    seen = true > 1.0
    data = xr.Dataset(
        {"y": ("time", np.where(seen, true, 1.0)), "y_censored": ("time", np.where(seen, 0, 1))},
        {"time": np.arange(60.0)},
    )
    own = model(bd.noise.Censored(bd.NormalNoise(1.0)))
    return own, data, bd.fit(own, bd.split(data, time=39)[0], ENGINE, progress=False)


@pytest.mark.thorough
def test_the_posterior_is_that_of_a_grid(fitted):
    _, data, post = fitted
    train = bd.split(data, time=39)[0]
    level = np.linspace(-2, 3, 4001)[:, None]
    left, y = train["y_censored"].values == 1, train["y"].values
    log = stats.norm(0, 3).logpdf(level[:, 0])
    log += np.where(left, stats.norm(level, 1).logcdf(y), stats.norm(level, 1).logpdf(y)).sum(
        axis=1
    )
    weights = np.exp(log - log.max())
    mean = (weights @ level[:, 0]) / weights.sum()
    draws = post["posterior"]["level"].values
    assert abs(draws.mean() - mean) < 4 * draws.std() / np.sqrt(150)
    # Taken as seen, the level would be far off.
    assert abs(y.mean() - mean) > 2 * draws.std()


@pytest.mark.thorough
def test_forecasts_are_of_the_values_themselves_and_scores_of_what_is_known(fitted):
    own, data, post = fitted
    test = bd.split(data, time=39)[1]
    for at in (data, data["time"].values):  # a forecast need not know what will be censored
        fc = bd.forecast(own, post, at)
        np.testing.assert_allclose(
            fc["conditional_mean"]["y"][..., 0], post["posterior"]["level"], rtol=1e-12
        )
        assert float((fc["predictions"]["y"] < 1.0).mean()) > 0.3
        assert dict(fc["noise"]["y.loc"].attrs)["distribution"] == "Normal"
        levels = post["posterior"]["level"].values.reshape(-1, 1)
        y, left = test["y"].values, test["y_censored"].values == 1
        log = np.where(left, stats.norm(levels, 1).logcdf(y), stats.norm(levels, 1).logpdf(y))
        wanted = np.mean(np.log(len(levels)) - logsumexp(log, axis=0))
        table = bd.score(fc, test)
        assert table.loc["y", "log_score"] == pytest.approx(wanted, rel=1e-9)
        draws = np.maximum(
            fc["predictions"]["y"].values.reshape(-1, 60)[:, 40:], 1.0
        )  # what would be reported
        distance = (
            np.abs(draws - y).mean(0)
            - 0.5 * np.abs(draws[:, None] - draws[None]).mean((0, 1)) * 600 / 599
        )
        assert table.loc["y", "crps"] == pytest.approx(distance.mean(), rel=1e-9)
    transform = bd.scores.pit(fc, data)["y"].values
    assert stats.kstest(transform, "uniform").pvalue > 0.01
    assert (transform[data["y_censored"].values == 1] < 0.75).all()


@pytest.mark.thorough
def test_residuals_and_held_out_data_are_those_of_a_sound_model(fitted):
    own, data, post = fitted
    found = bd.diagnose(post, bd.forecast(own, post, data), bd.split(data, time=39)[1])
    assert {f.subject: f.level for f in found.findings if f.aspect == "model"} == {
        "training data": "good", "held-out data": "good",
    }  # fmt: skip
    assert bd.check(own, data).level == "good"
    report = bd.report(post, bd.forecast(own, post, data), bd.split(data, time=39)[1])
    assert "held-out data" in str(report)


@pytest.mark.thorough
def test_new_data_bring_their_own_codes(fitted):
    own, data, post = fitted
    updated = bd.update(own, post, bd.split(data, time=39)[1], engine=ENGINE, progress=False)
    np.testing.assert_array_equal(updated["constant_data"]["y_censored"], data["y_censored"])


def test_bounds_draws_that_cannot_be_told_apart_and_completed_data():
    observed = with_bounds(DATA["y"], DATA, {})
    np.testing.assert_array_equal(observed["y_low"], [2.0, -np.inf, 0.1, 5.0, 1.0, np.nan])
    np.testing.assert_array_equal(observed["y_high"], [2.0, 0.5, 0.5, np.inf, 3.0, np.nan])
    np.testing.assert_array_equal(observed["y_least"], [0.5, 0.5, 0.5, 0.5, 0.5, -np.inf])
    np.testing.assert_array_equal(observed["y_most"], [5.0, 5.0, 5.0, 5.0, 5.0, 5.0])
    draws = np.array(
        [[1.0, 0.3, 0.2, 6.0, 2.0, 9.0], [7.0, 0.7, 0.05, 4.0, 3.5, 3.0], [np.nan] * 6]
    )
    np.testing.assert_allclose(
        alike(draws, observed),
        [[1.0, 0.5, 0.5, 5.0, 1.0, 5.0], [5.0, 0.7, 0.5, 4.0, 1.5, 3.0], [np.nan] * 6],
    )
    np.testing.assert_array_equal(completed(draws, observed), [2.0, 0.3, 0.2, 6.0, 2.0, np.nan])
    limits = with_bounds(DATA["y"], DATA[["y"]], {"censored_below": 0.5, "censored_above": 5.0})
    np.testing.assert_array_equal(limits["y_low"], [2.0, -np.inf, -np.inf, 5.0, 1.0, np.nan])
    assert "y_low" not in with_bounds(DATA["y"], DATA[["y"]], {}).coords
