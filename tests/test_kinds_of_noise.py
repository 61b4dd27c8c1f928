"""Every kind of noise, from its description to a report: densities, moments, draws and scores
against SciPy.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import levels_model, posterior
from scipy import integrate, stats
from seldom import seldom
from test_per_datum import ENGINE, Level

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.model import check_data
from bayes_dasl.random import paths

TIMES, DRAWS = 6, 400
Z = np.random.default_rng(0).uniform(0.3, 0.8, size=(1, DRAWS, TIMES))
TESTED = np.array([20.0, 5.0, 30.0, 12.0, 1.0, 8.0])
ERRORS = np.linspace(0.1, 0.6, TIMES)
AMOUNTS = np.array([0.5, 0.37, 0.9, 2.0, 0.11, 0.6])
COUNTS = np.array([0.0, 1.0, 3.0, 2.0, 0.0, 6.0])
FEW = np.array([11.0, 0.0, 30.0, 7.0, 1.0, 4.0])


def box_cox(y, z, scale, power, shift):
    """By hand: a normal density on the transformed scale, cut off at its end, times the slope of
    the transform.
    """
    there = lambda v: ((v + shift) ** power - 1) / power  # noqa: E731
    kept = stats.norm.sf((-1 / power - there(z)) / scale)
    return stats.norm.pdf(there(y), there(z), scale) * (y + shift) ** (power - 1) / kept


def inflated(y, law, share):
    return share * (y == 0) + (1 - share) * law.pmf(y)


def hurdle(y, positive, share):
    return np.where(y == 0, share, (1 - share) * positive)


# A noise, data, their density by draw and time, and what a datum can be at most.
KINDS = {
    "combined": (bd.CombinedNoise(0.1, 0.3), AMOUNTS, lambda y, z: stats.norm.pdf(y, z, np.hypot(0.1, 0.3 * z))),
    "known errors": (
        bd.StudentTNoise(0.2, 5.0, known_error="error"), AMOUNTS,
        lambda y, z: stats.t.pdf(y, 5, z, np.hypot(0.2, ERRORS)),
    ),
    "log(y + c)": (
        bd.noise.BoxCoxNoise(0.4, power=0.0, shift=0.2), AMOUNTS, lambda y, z: stats.lognorm.pdf(y, 0.4, -0.2, z + 0.2),
    ),
    "root": (bd.noise.BoxCoxNoise(0.6, power=0.5), AMOUNTS, lambda y, z: box_cox(y, z, 0.6, 0.5, 0.0)),
    "power": (bd.noise.BoxCoxNoise(0.3, power=0.3, shift=0.1), AMOUNTS, lambda y, z: box_cox(y, z, 0.3, 0.3, 0.1)),
    "binomial": (bd.noise.BinomialNoise(30), FEW, lambda y, z: stats.binom.pmf(y, 30, z)),
    "binomial of each": (bd.noise.BinomialNoise("tested"), FEW, lambda y, z: stats.binom.pmf(y, TESTED, z)),
    "beta-binomial": (
        bd.noise.BetaBinomialNoise("tested", 4.0), FEW, lambda y, z: stats.betabinom.pmf(y, TESTED, 4 * z, 4 * (1 - z)),
    ),
    "zero-inflated": (
        bd.noise.ZeroInflatedNoise(bd.NegativeBinomialNoise(2.0), 0.3), COUNTS,
        lambda y, z: inflated(y, stats.nbinom(2, 2 / (2 + z)), 0.3),
    ),
    "hurdle of counts": (
        bd.noise.HurdleNoise(bd.PoissonNoise(), 0.3), COUNTS,
        lambda y, z: hurdle(y, stats.poisson.pmf(y, z) / -np.expm1(-z), 0.3),
    ),
    "hurdle of amounts": (
        bd.noise.HurdleNoise(bd.LogNormalNoise(0.5), 0.3), AMOUNTS * (AMOUNTS > 0.4),
        lambda y, z: hurdle(y, stats.lognorm.pdf(np.maximum(y, 1e-9), 0.5, scale=z), 0.3),
    ),
    "censored": (
        bd.noise.Censored(bd.noise.BoxCoxNoise(0.4, 0.0, 0.2), below=0.4), AMOUNTS,
        lambda y, z: np.where(
            y > 0.4, stats.lognorm.pdf(y, 0.4, -0.2, z + 0.2), stats.lognorm.cdf(0.4, 0.4, -0.2, z + 0.2)
        ),
    ),
    "censored hurdle": (
        bd.noise.Censored(bd.noise.HurdleNoise(bd.PoissonNoise(), 0.3), above=2.0), COUNTS,
        lambda y, z: np.where(
            y < 2, hurdle(y, stats.poisson.pmf(y, z) / -np.expm1(-z), 0.3),
            0.7 * stats.poisson.sf(1, z) / -np.expm1(-z),
        ),
    ),
}  # fmt: skip
DEAR = (
    "combined",
    "known errors",
    "log(y + c)",
    "root",
    "power",
    "beta-binomial",
    "hurdle of counts",
    "hurdle of amounts",
)
every_kind = pytest.mark.parametrize("name", KINDS)


@functools.cache
def made(name):
    """Model, data, a posterior of given levels, and a forecast of it."""
    noise, values, _ = KINDS[name]
    columns = {"y": ("time", values), "tested": ("time", TESTED), "error": ("time", ERRORS)}
    data = xr.Dataset(columns, {"time": np.arange(float(TIMES))})
    model = levels_model(TIMES, noise)
    post = posterior(model, data, {"layer.function.level": Z})
    return model, data, post, bd.forecast(model, post, data, key=1)


@pytest.mark.thorough("censored hurdle", "zero-inflated", "censored")
@every_kind
def test_log_density_and_gradient(name):
    noise, values, density = KINDS[name]
    columns = {"y": ("time", values), "tested": ("time", TESTED), "error": ("time", ERRORS)}
    problem = pose(
        levels_model(TIMES, noise), xr.Dataset(columns, {"time": np.arange(float(TIMES))})
    )
    value, slope = jax.value_and_grad(lambda x: problem.terms(x).data)(jnp.asarray(Z[0, 0]))
    assert float(value) == pytest.approx(np.log(density(values, Z[0, 0])).sum(), rel=1e-6)
    assert np.isfinite(slope).all()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    seldom(KINDS, "zero-inflated", "beta-binomial", "hurdle of amounts", "censored", "power"),
)
def test_forecast_scores_and_checks(name):
    model, data, post, fc = made(name)
    _, values, density = KINDS[name]
    assert type(model.noise).__name__ in str(bd.describe(model))
    table = bd.score(fc, data)
    assert table.attrs["log_score"] == {"y": "exact"}
    assert table.loc["y", "log_score"] == pytest.approx(
        -np.log(density(values, Z).mean(axis=(0, 1))).mean(), rel=1e-6
    )
    assert np.isfinite(table.loc["y"].to_numpy(float)).all()
    assert bd.scores.pit(fc, data)["y"].notnull().all()
    drawn, mean, variance = (
        fc[group]["y"].values[0]
        for group in ("predictions", "conditional_mean", "conditional_variance")
    )
    error = np.sqrt(np.mean(variance, axis=0) / DRAWS)
    assert (np.abs(np.mean(drawn - mean, axis=0)) < 4.5 * error).all()
    assert np.mean((drawn - mean) ** 2 / variance) == pytest.approx(1.0, abs=0.25)
    assert bool(np.asarray(model.reader.filled("y", model.inputs(data)).support(drawn)).all())
    assert not [f for f in bd.diagnose(post, fc, data).findings if "not looked at" in f.message]


@pytest.mark.thorough(*DEAR, "binomial", "censored hurdle", "censored")
@every_kind
def test_moments_are_those_of_the_density(name):
    fc, (noise, _, density) = made(name)[3], KINDS[name]
    if "censored" in name:
        return  # moments are those of the values themselves, as of the noise inside
    z = Z[0, 0]
    if noise.support.is_discrete:
        grid = np.arange(400.0)[:, None]
        weights = density(grid, z)
        mean = (weights * grid).sum(0)
        variance = (weights * grid**2).sum(0) - mean**2
    else:
        low = -0.2 if noise.support is not dist.constraints.real else -30.0
        start, points = max(low, -getattr(noise, "shift", 30.0)) + 1e-9, [0.01, 0.3, 1.0, 3.0]

        def moment(power, i):
            at = lambda y: y**power * np.broadcast_to(density(np.asarray(y), z), TIMES)[i]  # noqa: E731
            return integrate.quad(at, start, 40.0, points=points, limit=400)[0]

        mean = np.array([moment(1, i) for i in range(TIMES)])
        variance = np.array([moment(2, i) for i in range(TIMES)]) - mean**2
    np.testing.assert_allclose(fc["conditional_mean"]["y"].values[0, 0], mean, rtol=1e-5)
    np.testing.assert_allclose(fc["conditional_variance"]["y"].values[0, 0], variance, rtol=1e-3)


@pytest.mark.thorough(*DEAR, "zero-inflated", "censored")
@every_kind
def test_parameters_may_be_unknown(name, unchecked):
    noises = {
        "combined": lambda u: bd.CombinedNoise(u(), u()),
        "known errors": lambda u: bd.StudentTNoise(
            u(), u(), known_error=bd.noise.PerDatum("error", factor=u())
        ),
        "log(y + c)": lambda u: bd.noise.BoxCoxNoise(u(), 0.0, 0.2),
        "root": lambda u: bd.noise.BoxCoxNoise(u(), 0.5),
        "power": lambda u: bd.noise.BoxCoxNoise(u(), u()),
        "binomial": None,
        "binomial of each": None,
        "beta-binomial": lambda u: bd.noise.BetaBinomialNoise("tested", u()),
        "zero-inflated": lambda u: bd.noise.ZeroInflatedNoise(bd.NegativeBinomialNoise(u()), u()),
        "hurdle of counts": lambda u: bd.noise.HurdleNoise(bd.PoissonNoise(), u()),
        "hurdle of amounts": lambda u: bd.noise.HurdleNoise(bd.LogNormalNoise(u()), u()),
        "censored": lambda u: bd.noise.Censored(bd.noise.BoxCoxNoise(u(), u(), 0.2), below=0.4),
        "censored hurdle": lambda u: bd.noise.Censored(
            bd.noise.HurdleNoise(bd.PoissonNoise(), u()), above=2.0
        ),
    }
    if noises[name] is None:
        return
    noise = noises[name](lambda: dist.Uniform(0.2, 0.9))
    shared = bd.shared(dist.Uniform(0.2, 0.9), "both")
    of_both = noises[name](lambda: shared)
    assert len(paths(noise)) >= 1 and list(paths(of_both)) == ["both"]
    values = KINDS[name][1]
    columns = {"y": ("time", values), "tested": ("time", TESTED), "error": ("time", ERRORS)}
    problem = pose(
        levels_model(TIMES, noise), xr.Dataset(columns, {"time": np.arange(float(TIMES))})
    )
    at = jnp.full(problem.dimension, 0.4)
    slope = jax.grad(lambda x: problem.terms(x).data)(at)
    assert np.isfinite(slope).all()
    own = [site.start for path, site in problem.sites.items() if path.startswith("noise")]
    assert own and (np.asarray(slope)[own] != 0).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bd.noise.BoxCoxNoise(0.3, -0.5), "BoxCoxNoise.power must not be negative"),
        (
            lambda: bd.noise.BoxCoxNoise(0.3, dist.Normal(0.0, 1.0)),
            r"BoxCoxNoise.power must not be negative, as in Normal\(0, 1\)",
        ),
        (
            lambda: bd.noise.BoxCoxNoise(0.3, 0.5, dist.HalfNormal(1.0)),
            "BoxCoxNoise.shift must be a known number",
        ),
        (lambda: bd.noise.BoxCoxNoise(0.0, 0.5), "BoxCoxNoise.scale must be positive"),
        (lambda: bd.noise.BinomialNoise(2.5), "BinomialNoise.trials must be a whole number"),
        (
            lambda: bd.noise.BinomialNoise(dist.Poisson(3.0)),
            "BinomialNoise.trials must be a whole number",
        ),
        (
            lambda: bd.noise.BetaBinomialNoise(5, -1.0),
            "BetaBinomialNoise.concentration must be positive",
        ),
        (
            lambda: bd.noise.ZeroInflatedNoise(bd.LogNormalNoise(0.1), 0.3),
            "around a noise of counts, not LogNormalNoise",
        ),
        (
            lambda: bd.noise.ZeroInflatedNoise(bd.PoissonNoise(), 1.0),
            "zeros must be a share between 0 and 1",
        ),
        (
            lambda: bd.noise.HurdleNoise(bd.PoissonNoise(), dist.HalfNormal(1.0)),
            "zeros must be a share between 0 and 1",
        ),
        (
            lambda: bd.noise.HurdleNoise(bd.NormalNoise(0.1), 0.3),
            "HurdleNoise is around a noise of positive data",
        ),
        (lambda: bd.noise.HurdleNoise(0.1, 0.3), "HurdleNoise is around a noise such as"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(unchecked, build, message):
    with pytest.raises(ModelError, match=message):
        build()


@pytest.mark.parametrize(
    ("noise", "values", "message"),
    [
        (
            bd.noise.BinomialNoise("tested"),
            FEW + 1,
            r"'y' is 31 at time 2, which BinomialNoise rules out: .*, at most 30$",
        ),
        (
            bd.noise.BinomialNoise(30),
            FEW + 1,
            r"'y' is 31 at time 2, which BinomialNoise rules out: .*, at most 30$",
        ),
        (
            bd.noise.BinomialNoise("asked"),
            FEW,
            "'y' reads 'asked' of each datum, which is not in the data",
        ),
        (
            bd.noise.BinomialNoise("error"),
            FEW,
            r"'error' is 0.1 at time 0 \(row 0\).* whole numbers, at least 0",
        ),
        (
            bd.noise.HurdleNoise(bd.LogNormalNoise(0.3), 0.3),
            AMOUNTS - 0.4,
            "'y' is -0.03 at time 1.*: its data are at least 0$",
        ),
        (
            bd.noise.BoxCoxNoise(0.3, 0.0, 0.1),
            AMOUNTS - 0.6,
            r"'y' is -0.23 at time 1.*: its data are greater than -0.1$",
        ),
        (
            bd.noise.ZeroInflatedNoise(bd.PoissonNoise(), 0.3),
            AMOUNTS,
            r"'y' is 0.5 at time 0.*whole numbers, at least 0$",
        ),
    ],
)
def test_data_that_cannot_be_are_refused(noise, values, message):
    columns = {"y": ("time", values), "tested": ("time", TESTED), "error": ("time", ERRORS)}
    with pytest.raises(DataError, match=message):
        check_data(
            levels_model(TIMES, noise), xr.Dataset(columns, {"time": np.arange(float(TIMES))})
        )


@pytest.mark.thorough
def test_noises_of_the_same_data_compare_by_their_log_scores():
    """Data that are log-normal: the transform that made them has the best log score, in the units
    of the data.
    """
    y = np.exp(0.8 * np.random.default_rng(3).normal(size=400))
    z = jnp.ones(400)
    scores = {
        p: -float(bd.noise.BoxCoxNoise(0.8, p)(z).log_prob(y).mean()) for p in (0.0, 0.5, 1.0)
    }
    assert min(scores, key=scores.__getitem__) == 0.0
    assert scores[0.0] == pytest.approx(-stats.lognorm(0.8).logpdf(y).mean())


@pytest.mark.thorough
def test_a_fit_of_rain_that_is_often_zero_from_check_to_report():
    rng = np.random.default_rng(2)
    wet = rng.uniform(size=60) > 0.4
    data = xr.Dataset(
        {"y": ("time", wet * np.exp(0.5 * rng.normal(size=60)))}, {"time": np.arange(60.0)}
    )
    noise = bd.noise.HurdleNoise(bd.LogNormalNoise(dist.HalfNormal(1.0)), dist.Beta(1.0, 1.0))
    model = bd.Model(bd.Algebraic(Level(dist.LogNormal(0.0, 1.0))), noise)
    assert bd.check(model, data).level == "good"
    train, test = bd.split(data, time=44)
    post = bd.fit(model, train, ENGINE, progress=False)
    dry = (train["y"] == 0).sum().item()
    assert float(post["posterior"]["zeros"].mean()) == pytest.approx((1 + dry) / (2 + 45), abs=0.03)
    fc = bd.forecast(model, post, data)
    report = bd.report(post, fc, test)
    assert bd.score(fc, test).attrs["log_score"] == {"y": "exact"}
    assert "HurdleNoise" in str(bd.describe(model)) and report is not None
