"""Noise models against scipy.stats: densities, moments, draws, and predictions that stray below zero."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import bayes_dasl as bd
from bayes_dasl._errors import ModelError
from bayes_dasl.random import paths

EXACT = 10 * np.sqrt(np.finfo(float).eps)
Z = jnp.asarray([0.7, 3.0, 12.0])

# A noise model, what SciPy calls it, and the same with a spread that is 1.2 times too wide.
CASES = {
    "normal": (bd.NormalNoise(0.5), lambda z: stats.norm(z, 0.5), bd.NormalNoise(0.6)),
    "lognormal": (bd.LogNormalNoise(0.4), lambda z: stats.lognorm(0.4, scale=z), bd.LogNormalNoise(0.48)),
    "student": (bd.StudentTNoise(0.5, 5.0), lambda z: stats.t(5, z, 0.5), bd.StudentTNoise(0.6, 5.0)),
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


@every_case
def test_log_density(noise, law, wider):
    for shift in (0.0, 1.0, 4.0):
        y = np.round(Z + shift) if noise.counts else Z + shift
        # JAX's betaln changes to a series that is good to 1e-6 only for counts of seven and more.
        exact = 1e-5 if isinstance(noise, bd.NegativeBinomialNoise) else EXACT
        np.testing.assert_allclose(noise(Z).log_prob(y), log_density(law(Z), y), rtol=EXACT, atol=exact)
        assert not np.allclose(wider(Z).log_prob(y), log_density(law(Z), y), rtol=1e-3)


@every_case
def test_moments(noise, law, wider):
    np.testing.assert_allclose(noise(Z).mean, law(Z).mean(), rtol=EXACT)
    np.testing.assert_allclose(noise(Z).variance, law(Z).var(), rtol=EXACT)
    assert np.all(np.asarray(wider(Z).variance) > 1.05 * law(Z).var())


@every_case
def test_draws(noise, law, wider):
    """Each draw's distribution function, made continuous for counts, is uniform."""
    draws, uniform = 4000, np.random.default_rng(0).uniform(size=(4000, 3))

    def p_value(model):
        y = np.asarray(model(Z).sample(jax.random.key(3), (draws,)))
        jump = law(Z).pmf(y) * uniform if noise.counts else 0.0
        return stats.kstest((law(Z).cdf(y) - jump).ravel(), "uniform").pvalue

    assert p_value(noise) > 1e-3
    assert p_value(wider) < 1e-3


@pytest.mark.parametrize("name", ["lognormal", *COUNTS])
@pytest.mark.parametrize("prediction", [0.0, -1e-9])
def test_a_prediction_a_hair_below_zero(name, prediction):
    noise = CASES[name][0]
    value, gradient = jax.value_and_grad(lambda z: noise(z).log_prob(2.0).sum())(jnp.asarray([prediction]))
    assert np.isfinite(value)
    assert np.isfinite(gradient)


def test_what_data_they_need():
    assert [name for name, case in CASES.items() if case[0].counts] == list(COUNTS)
    assert [name for name, case in CASES.items() if case[0].positive] == ["lognormal"]


def test_student_tends_to_normal():
    normal, student = (noise(Z).log_prob(Z + 1) for noise in (bd.NormalNoise(0.5), bd.StudentTNoise(0.5, 1e9)))
    np.testing.assert_allclose(student, normal, rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (bd.NormalNoise, "scale"),
        (bd.LogNormalNoise, "scale"),
        (bd.StudentTNoise, "scale"),
        (bd.NegativeBinomialNoise, "concentration"),
    ],
)
def test_its_parameter_may_be_random_but_is_one_number(unchecked, build, name):
    assert list(paths(build(dist.HalfNormal(1.0)))) == [name]
    with pytest.raises(ModelError, match=f"{build.__name__}.{name}"):
        build(jnp.ones(2))
