"""Numbers known of each datum: how they reach the noise, what is refused, and posteriors known in
closed form.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats
from scipy.special import logsumexp

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.model import check_data
from bayes_dasl.random import paths
from bayes_dasl.study import forecast_times

ENGINE = bd.NUTS(chains=2, warmup=100, draws=300, map_starts=4)
ERRORS = np.array([0.1, 0.2, 0.3, 0.4, 2.0] * 4)
SEEN = np.arange(20) != 3
VALUES = np.where(SEEN, 1 + ERRORS * np.random.default_rng(0).normal(size=20), np.nan)
DATA = xr.Dataset(
    {"y": ("time", VALUES, {"units": "m"}), "y_error": ("time", np.where(SEEN, ERRORS, np.nan))},
    {"time": np.arange(20.0)},
)


class Level(bd.Module):
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + 0.0 * t}


def model(noise, level=None):
    return bd.Model(bd.Algebraic(Level(dist.Normal(0.0, 3.0) if level is None else level)), noise)


KNOWN = model(bd.NormalNoise(known_error="y_error"))
FACTOR = dist.LogNormal(0.0, 0.5)


@pytest.mark.thorough(
    "noise0-<lambda>", "noise1-<lambda>", "noise2-<lambda>", "noise4-<lambda>", "noise5-<lambda>"
)
@pytest.mark.parametrize(
    ("noise", "law"),
    [
        (bd.NormalNoise(known_error="y_error"), lambda z, e: stats.norm(z, e)),
        (bd.NormalNoise(bd.noise.PerDatum("{observable}_error")), lambda z, e: stats.norm(z, e)),
        (bd.NormalNoise(0.3, known_error="y_error"), lambda z, e: stats.norm(z, np.hypot(0.3, e))),
        (
            bd.NormalNoise(known_error=bd.noise.PerDatum("y_error", factor=2.0)),
            lambda z, e: stats.norm(z, 2 * e),
        ),
        (
            bd.StudentTNoise(0.3, 5.0, known_error="y_error"),
            lambda z, e: stats.t(5, z, np.hypot(0.3, e)),
        ),
        (
            bd.LogNormalNoise(0.3, known_error="y_error"),
            lambda z, e: stats.lognorm(np.hypot(0.3, e), scale=z),
        ),
    ],
)
def test_log_density(noise, law):
    problem = pose(model(noise, dist.LogNormal(0.0, 1.0)), np.abs(DATA))
    found = problem.terms(jnp.zeros(1)).data
    assert float(found) == pytest.approx(
        law(1.0, ERRORS[SEEN]).logpdf(np.abs(VALUES[SEEN])).sum(), rel=1e-12
    )
    gradient = jax.grad(lambda x: problem.terms(x).data)(jnp.zeros(1))
    assert bool(jnp.isfinite(gradient).all())
    some = jnp.asarray([1, 3, 4])  # a missing one among them
    part = problem.rows(some).terms(jnp.zeros(1)).data
    assert float(part) == pytest.approx(
        law(1.0, ERRORS[[1, 4]]).logpdf(np.abs(VALUES[[1, 4]])).sum(), rel=1e-12
    )


def refused(change, message, error=DataError):
    with pytest.raises(error, match=message):
        check_data(KNOWN, change(DATA))


@pytest.mark.thorough
def test_what_is_wrong_with_it_is_said_with_its_row():
    refused(
        lambda d: d.drop_vars("y_error"),
        "the noise of 'y' reads 'y_error' of each datum, which is not in the data",
    )
    refused(
        lambda d: d.assign(y_error=d["y_error"].where(d["time"] != 5)),
        r"'y_error' is missing at time 5 \(row 5\), where 'y' was observed",
    )
    refused(
        lambda d: d.assign(y_error=-d["y_error"]),
        r"'y_error' is -0.1 at time 0 \(row 0\).*greater than 0",
    )
    refused(
        lambda d: d.assign(y_error=d["y_error"] * np.inf),
        "'y_error' is inf at time 0.* must be finite",
    )
    refused(
        lambda d: d.assign(y_error=("x", [1.0])), "'y_error' must have the one dimension time, not"
    )
    refused(lambda d: d.assign(y_error=d["y_error"].astype(str)), "'y_error' must hold numbers")
    kilograms = DATA["y_error"].assign_attrs(units="kg")
    refused(
        lambda d: d.assign(y_error=kilograms), "'y_error' is in 'kg' but the model works in 'm'"
    )


def test_an_error_of_nothing_is_one_only_beside_a_scale():
    exact = DATA.assign(y_error=0.0 * DATA["y_error"])
    refused(lambda d: exact, r"'y_error' is 0 at time 0")
    check_data(model(bd.NormalNoise(dist.HalfNormal(1.0), known_error="y_error")), exact)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: bd.NormalNoise(),
            "NormalNoise needs a scale, a known_error of each datum, or both",
        ),
        (lambda: bd.StudentTNoise(df=3.0), "StudentTNoise needs a scale"),
        (lambda: bd.NormalNoise(0.0, known_error="e"), "NormalNoise.scale must be positive"),
        (
            lambda: bd.NormalNoise(known_error=0.1),
            "known_error must be the name of a variable of the data, not 0.1",
        ),
        (lambda: bd.NormalNoise("e"), "NormalNoise.scale must be a number"),
        (
            lambda: bd.StudentTNoise(1.0, bd.noise.PerDatum("f")),
            "StudentTNoise.df must be a number",
        ),
        (lambda: bd.noise.PerDatum(""), "PerDatum takes the name of a variable"),
        (lambda: bd.noise.PerDatum("e", factor=-1.0), "PerDatum.factor must be positive"),
        (
            lambda: bd.Model(
                bd.filtering.Kalman(Still(), {"y": 0.1}, {"y": 0.0}, {"y": 1.0}),
                bd.NormalNoise(known_error="e"),
            ),
            "Kalman needs noise of one scale",
        ),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(unchecked, build, message):
    with pytest.raises(ModelError, match=message):
        build()


class Still(bd.Module):
    def __call__(self, t, y, u):
        return {"y": 0.0 * y["y"]}


def test_a_factor_on_the_errors_is_an_unknown_number_of_the_noise():
    noise = bd.NormalNoise(
        dist.HalfNormal(1.0), known_error=bd.noise.PerDatum("y_error", factor=FACTOR)
    )
    assert list(paths(model(noise))) == [
        "layer.function.level",
        "noise.scale",
        "noise.known_error.factor",
    ]
    assert "variable=y_error" in str(bd.describe(model(noise)))


@pytest.fixture(scope="module")
def post():
    return bd.fit(KNOWN, bd.split(in_centimetres(), time=12)[0], ENGINE, progress=False)


def in_centimetres():
    return DATA.assign(y_error=(DATA["y_error"] * 100).assign_attrs(units="cm"))


def exact(until):
    """Mean and standard deviation of a normal level under known errors."""
    seen = SEEN & (np.arange(20) <= until)
    weights = ERRORS[seen] ** -2
    precision = weights.sum() + 1 / 9
    return weights @ VALUES[seen] / precision, precision**-0.5


@pytest.mark.thorough
def test_the_posterior_is_that_of_known_errors_in_their_own_units(post):
    mean, sd = exact(12)
    level = post["posterior"]["level"].values
    assert abs(level.mean() - mean) < 4 * sd / np.sqrt(150)
    assert level.std() == pytest.approx(sd, rel=0.15)
    np.testing.assert_allclose(
        post["constant_data"]["y_error"], np.where(SEEN, ERRORS, np.nan)[:13]
    )


def test_a_forecast_needs_the_errors_of_what_it_forecasts(post):
    with pytest.raises(
        DataError, match=r"of data that are forecast it must be known too.*otherwise"
    ):
        bd.forecast(KNOWN, post, np.arange(20.0))
    with pytest.raises(DataError, match=r"'y_error' is missing at time 3 \(row 3\), but"):
        bd.forecast(KNOWN, post, in_centimetres())
    typical = model(bd.NormalNoise(known_error=bd.noise.PerDatum("y_error", otherwise=0.5)))
    fc = bd.forecast(typical, post, np.arange(20.0), what_if=True)
    np.testing.assert_allclose(fc["conditional_variance"]["y"], 0.25)
    fc = bd.forecast(typical, post, in_centimetres(), what_if=True)
    np.testing.assert_allclose(
        fc["conditional_variance"]["y"][0, 0], np.where(SEEN, ERRORS, 0.5) ** 2
    )


def test_the_log_score_is_exact_and_residuals_are_judged_by_their_own_errors(post):
    _, test = bd.split(in_centimetres(), time=12)
    fc = bd.forecast(KNOWN, post, in_centimetres().dropna("time"))
    levels = post["posterior"]["level"].values.reshape(-1, 1)
    log = stats.norm(levels, ERRORS[13:]).logpdf(VALUES[13:])
    by_hand = np.mean(np.log(levels.size) - logsumexp(log, axis=0))
    assert bd.score(fc, test).loc["y", "log_score"] == pytest.approx(by_hand, rel=1e-9)
    findings = bd.diagnose(post, fc, test).findings
    assert [f.level for f in findings if f.subject == "training data"] == ["good"]
    with pytest.raises(DataError, match="'y_error' is in"):
        bd.forecast(KNOWN, post, test.assign(y_error=test["y_error"].assign_attrs(units="kg")))


def test_new_data_bring_their_own_errors(post):
    new = bd.split(in_centimetres(), time=12)[1]
    updated = bd.update(KNOWN, post, new, engine=ENGINE, progress=False)
    np.testing.assert_allclose(updated["constant_data"]["y_error"], np.where(SEEN, ERRORS, np.nan))
    level, (mean, sd) = updated["posterior"]["level"].values, exact(20)
    assert abs(level.mean() - mean) < 4 * sd / np.sqrt(100)
    with pytest.raises(DataError, match=r"which is not in the data|is missing at time 13"):
        bd.update(KNOWN, post, new.drop_vars("y_error"), engine=ENGINE, progress=False)


def test_check_and_files_know_them(post, tmp_path):
    assert bd.check(KNOWN, in_centimetres()).level == "good"
    again = bd.load(bd.save(post, tmp_path / "post.nc"))
    assert (
        bd.forecast(KNOWN, again, in_centimetres().dropna("time"))["predictions"].sizes["time"]
        == 19
    )


class ShareNoise(bd.noise.AbstractNoise):
    """A noise of one's own with a number that may be known of each datum."""

    size: bd.Scalar | bd.noise.PerDatum
    positive = ("size",)
    support = dist.constraints.open_interval(0.0, 1.0)

    def __call__(self, prediction):
        return dist.Beta(self.size * prediction, self.size * (1 - prediction))


@pytest.mark.thorough
def test_a_noise_of_ones_own_may_read_numbers_of_each_datum():
    sizes = np.linspace(2.0, 40.0, 20)
    data = DATA.assign(
        y=("time", np.where(SEEN, np.linspace(0.1, 0.9, 20), np.nan)), size=("time", sizes)
    )
    problem = pose(model(ShareNoise(bd.noise.PerDatum("size")), dist.Beta(1.0, 1.0)), data)
    wanted = stats.beta(sizes / 2, sizes / 2).logpdf(data["y"].values)
    assert float(problem.terms(jnp.zeros(1)).data) == pytest.approx(np.nansum(wanted), rel=1e-9)
    with pytest.raises(DataError, match=r"'size' is -2 at time 0 \(row 0\)"):
        check_data(
            model(ShareNoise(bd.noise.PerDatum("size")), dist.Beta(1.0, 1.0)),
            data.assign(size=-data["size"]),
        )
    with pytest.raises(ModelError, match=r"ShareNoise.size must be a number"):
        ShareNoise(jnp.ones(2))
    in_hurdle = bd.noise.HurdleNoise(ShareNoise(bd.noise.PerDatum("size")), dist.Beta(1.0, 1.0))
    assert pose(
        model(in_hurdle, dist.Beta(1.0, 1.0)),
        data.assign(y=data["y"].where(data["time"] != 4, 0.0)),
    )


def test_a_study_forecasts_where_the_data_say_what_the_noise_reads():
    whole = DATA.dropna("time")
    study = bd.Study("levels", KNOWN, whole, split=12.0, engine=ENGINE)
    study.refuse_bad_input()
    assert forecast_times(study)["time"].equals(whole["time"])
    exact = dataclasses.replace(study, model=model(bd.NormalNoise(0.3)))
    assert forecast_times(exact).sizes["time"] > whole.sizes["time"]
