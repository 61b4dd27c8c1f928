"""Noise models against scipy.stats: densities, moments, draws, and predictions that stray below
zero.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.model import check_data
from bayes_dasl.noise import AbstractNoise
from bayes_dasl.random import paths

EXACT = 10 * np.sqrt(np.finfo(float).eps)
Z = jnp.asarray([0.7, 3.0, 12.0])

# A noise model, what SciPy calls it, and the same with a spread that is 1.2 times too wide.
CASES = {
    "normal": (bd.NormalNoise(0.5), lambda z: stats.norm(z, 0.5), bd.NormalNoise(0.6)),
    "combined": (
        bd.CombinedNoise(0.3, 0.2),
        lambda z: stats.norm(z, np.sqrt(0.09 + 0.04 * z**2)),
        bd.CombinedNoise(0.36, 0.24),
    ),
    "proportional": (
        bd.CombinedNoise(None, 0.2),
        lambda z: stats.norm(z, 0.2 * z),
        bd.CombinedNoise(None, 0.24),
    ),
    "lognormal": (
        bd.LogNormalNoise(0.4),
        lambda z: stats.lognorm(0.4, scale=z),
        bd.LogNormalNoise(0.48),
    ),
    "student": (
        bd.StudentTNoise(0.5, 5.0),
        lambda z: stats.t(5, z, 0.5),
        bd.StudentTNoise(0.6, 5.0),
    ),
    "poisson": (bd.PoissonNoise(), stats.poisson, bd.NegativeBinomialNoise(2.0)),
    "negative binomial": (
        bd.NegativeBinomialNoise(2.5),
        lambda z: stats.nbinom(2.5, 2.5 / (2.5 + z)),
        bd.NegativeBinomialNoise(2.0),
    ),
}
every_case = pytest.mark.parametrize(("noise", "law", "wider"), CASES.values(), ids=CASES)
COUNTS = ("poisson", "negative binomial")


def log_density(law, y):
    return law.logpmf(y) if hasattr(law.dist, "pmf") else law.logpdf(y)


@pytest.mark.thorough("poisson", "negative binomial")
@every_case
def test_log_density(noise, law, wider):
    for shift in (0.0, 1.0, 4.0):
        y = np.round(Z + shift) if noise.support.is_discrete else Z + shift
        # JAX's betaln changes to a series that is good to 1e-6 only for counts of seven and more.
        exact = 1e-5 if isinstance(noise, bd.NegativeBinomialNoise) else EXACT
        np.testing.assert_allclose(
            noise(Z).log_prob(y), log_density(law(Z), y), rtol=EXACT, atol=exact
        )
        assert not np.allclose(wider(Z).log_prob(y), log_density(law(Z), y), rtol=1e-3)


@every_case
def test_moments(noise, law, wider):
    np.testing.assert_allclose(noise(Z).mean, law(Z).mean(), rtol=EXACT)
    np.testing.assert_allclose(noise(Z).variance, law(Z).var(), rtol=EXACT)
    assert np.all(np.asarray(wider(Z).variance) > 1.05 * law(Z).var())


@pytest.mark.thorough("student", "poisson", "negative binomial")
@every_case
def test_draws(noise, law, wider):
    """Each draw's distribution function, made continuous for counts, is uniform."""
    draws, uniform = 4000, np.random.default_rng(0).uniform(size=(4000, 3))

    def p_value(model):
        y = np.asarray(model(Z).sample(jax.random.key(3), (draws,)))
        jump = law(Z).pmf(y) * uniform if noise.support.is_discrete else 0.0
        return stats.kstest((law(Z).cdf(y) - jump).ravel(), "uniform").pvalue

    assert p_value(noise) > 1e-3
    assert p_value(wider) < 1e-3


@pytest.mark.thorough(
    "0.0-lognormal",
    "0.0-poisson",
    "0.0-negative binomial",
    "-1e-09-lognormal",
    "-1e-09-negative binomial",
)
@pytest.mark.parametrize("name", ["lognormal", *COUNTS])
@pytest.mark.parametrize("prediction", [0.0, -1e-9])
def test_a_prediction_a_hair_below_zero(name, prediction):
    noise = CASES[name][0]
    value, gradient = jax.value_and_grad(lambda z: noise(z).log_prob(2.0).sum())(
        jnp.asarray([prediction])
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient)


@every_case
def test_data_may_lie_where_the_law_says(noise, law, wider):
    low, _ = law(1.0).support()
    assert noise.support.is_discrete == hasattr(law(1.0).dist, "pmf")
    for y in (-2.0, -1.0, 0.0, 0.5, 1.0, 7.0):
        whole = y == round(y) or not noise.support.is_discrete
        inside = y >= low if noise.support.is_discrete else y > low
        assert bool(noise.support(y)) == (inside and whole)
    assert (low == -np.inf) == (noise.support is bd.NormalNoise(1.0).support)


COUNTED = "rules out: its data are whole numbers, at least 0$"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "poisson",
            [0.5, np.nan, 1.0],
            rf"'y' is 0\.5 at time 0, which PoissonNoise {COUNTED}",
        ),
        (
            "poisson",
            [np.nan, 2.0, -1.0],
            rf"'y' is -1 at time 4, which PoissonNoise {COUNTED}",
        ),
        (
            "negative binomial",
            [3.0, 2.5, 1.0],
            rf"'y' is 2\.5 at time 2, which NegativeBinomialNoise {COUNTED}",
        ),
        (
            "lognormal",
            [0.5, 0.0, -1.0],
            "'y' is 0 at time 2, which LogNormalNoise rules .* are greater than 0$",
        ),
        ("poisson", [0.0, np.nan, 3.0], ""),
        ("negative binomial", [0.0, np.nan, 3.0], ""),
        ("lognormal", [0.5, np.nan, 3.0], ""),
        ("normal", [-0.5, np.nan, 0.0], ""),
        ("student", [-0.5, np.nan, 0.0], ""),
    ],
)
def test_data_that_a_noise_rules_out_are_refused(name, values, message):
    model = bd.Model(bd.Algebraic(Level(dist.LogNormal(0.0, 1.0))), CASES[name][0])
    data = xr.Dataset({"y": ("time", values)}, {"time": [0.0, 2.0, 4.0]})
    if message:
        with pytest.raises(DataError, match=message):
            check_data(model, data)
    else:
        np.testing.assert_array_equal(check_data(model, data)["y"], values)


class Level(bd.Module):
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + 0.0 * t}


class Share(AbstractNoise):
    """A noise model of one's own: shares of a whole, the surer the larger `size`."""

    size: float = 20.0

    @property
    def support(self):
        return dist.constraints.unit_interval

    def __call__(self, prediction):
        share = jnp.clip(prediction, 1e-6, 1 - 1e-6)
        return dist.Beta(self.size * share, self.size * (1 - share))


def test_a_noise_of_ones_own_says_where_its_data_may_lie():
    model = bd.Model(bd.Algebraic(Level(dist.Beta(2.0, 2.0))), Share())
    data = xr.Dataset({"y": ("time", [0.2, 0.4])}, {"time": [0.0, 1.0]})
    np.testing.assert_array_equal(check_data(model, data)["y"], [0.2, 0.4])
    with pytest.raises(
        DataError,
        match=r"'y' is 1\.4 at time 1, which Share rules out: its data are at least 0, at most 1$",
    ):
        check_data(model, data + xr.DataArray([0.0, 1.0], dims="time"))


def test_student_tends_to_normal():
    normal, student = (
        noise(Z).log_prob(Z + 1) for noise in (bd.NormalNoise(0.5), bd.StudentTNoise(0.5, 1e9))
    )
    np.testing.assert_allclose(student, normal, rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (bd.NormalNoise, "scale"),
        (bd.LogNormalNoise, "scale"),
        (bd.StudentTNoise, "scale"),
        (bd.NegativeBinomialNoise, "concentration"),
        (lambda a: bd.CombinedNoise(a, 0.1), "additive"),
        (lambda b: bd.CombinedNoise(None, b), "proportional"),
    ],
)
def test_its_parameter_may_be_random_but_is_one_number(unchecked, build, name):
    assert list(paths(build(dist.HalfNormal(1.0)))) == [name]
    for wrong in (jnp.ones(2), -1.0):
        with pytest.raises(ModelError, match=f"{type(build(1.0)).__name__}.{name}"):
            build(wrong)


def test_proportional_noise_around_a_prediction_that_is_uncertain_itself():
    """By hand: the variance of y = z + e, with the mean square of z in that of e."""
    around = bd.CombinedNoise(0.3, 0.2).around(Z, jnp.full(3, 0.5))
    np.testing.assert_allclose(around.variance, 0.5 + 0.09 + 0.04 * (Z**2 + 0.5), rtol=EXACT)
    np.testing.assert_allclose(
        bd.CombinedNoise(0.3, 0.2).spread(Z), np.sqrt(0.09 + 0.04 * Z**2), rtol=EXACT
    )


def test_proportional_noise_where_nothing_is_predicted():
    log, slope = jax.value_and_grad(lambda z: bd.CombinedNoise(None, 0.2)(z).log_prob(2.0).sum())(
        jnp.zeros(1)
    )
    assert np.isfinite(log) and np.isfinite(slope).all()
