"""Distribution functions far out in both tails and over intervals, and their gradients, against
SciPy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from bayes_dasl._statistics import BoxCoxNormal, log_between, log_incomplete_beta, log_tails

LAWS = {
    "normal": (dist.Normal(1.0, 2.0), stats.norm(1, 2), np.linspace(-70, 70, 29)),
    "lognormal": (dist.LogNormal(1.0, 0.5), stats.lognorm(0.5, scale=np.e), np.geomspace(1e-8, 1e8, 33)),
    "student": (
        dist.StudentT(4.0, 1.0, 2.0), stats.t(4, 1, 2), np.concatenate([-np.geomspace(1e-3, 1e6, 9), [0, 1, 3, 1e5]]),
    ),
    "poisson": (dist.Poisson(50.0), stats.poisson(50), np.array([0, 1, 20, 49, 50, 51, 90, 200])),
    "negative binomial": (
        dist.NegativeBinomial2(50.0, 0.7), stats.nbinom(0.7, 0.7 / 50.7), np.array([0, 1, 20, 50, 400, 3000]),
    ),
    "binomial": (dist.BinomialProbs(0.3, 40), stats.binom(40, 0.3), np.array([-1, 0, 5, 12, 30, 39, 40])),
}  # fmt: skip


@pytest.mark.thorough("normal", "lognormal", "poisson")
@pytest.mark.parametrize(("law", "exact", "values"), LAWS.values(), ids=LAWS)
def test_distribution_functions_are_exact_in_both_tails(law, exact, values):
    up_to, beyond = log_tails(law, jnp.asarray(values, float))
    for found, log in ((up_to, exact.logcdf(values)), (beyond, exact.logsf(values))):
        np.testing.assert_allclose(found, log, rtol=1e-9, atol=1e-15)


@pytest.mark.thorough
def test_where_probabilities_underflow_their_logarithms_do_not():
    """Bounds of one term, since the others are smaller by factors of a thousand."""
    few, _ = log_tails(dist.Poisson(1e4), jnp.asarray(2.0))
    assert float(few) == pytest.approx(stats.poisson(1e4).logpmf(2), rel=1e-6)
    _, many = log_tails(dist.Poisson(1e-90), jnp.asarray(3.0))
    assert float(many) == pytest.approx(stats.poisson(1e-90).logpmf(4), rel=1e-9)
    few, _ = log_tails(dist.NegativeBinomial2(1e5, 1000.0), jnp.asarray(2.0))
    assert float(few) == pytest.approx(stats.nbinom(1000, 1000 / 101000).logpmf(2), rel=1e-3)


def difference(function, at, step=1e-5):
    return (function(at + step) - function(at - step)) / (2 * step)


@pytest.mark.thorough
def test_gradients_in_every_parameter():
    found = jax.grad(lambda k: log_tails(dist.NegativeBinomial2(50.0, k), jnp.asarray(20.0))[0])(
        2.0
    )
    assert float(found) == pytest.approx(
        difference(lambda k: stats.nbinom(k, k / (k + 50)).logcdf(20), 2.0), rel=1e-7
    )
    found = jax.grad(lambda k: log_tails(dist.StudentT(k, 0.0, 1.0), jnp.asarray(-3.0))[0])(5.0)
    assert float(found) == pytest.approx(difference(lambda k: stats.t(k).logcdf(-3), 5.0), rel=1e-7)
    a, b = jax.grad(lambda a, b: log_incomplete_beta(a, b, 0.3, 0.7)[1], argnums=(0, 1))(2.0, 3.0)
    assert float(a) == pytest.approx(
        difference(lambda a: stats.beta(a, 3).logsf(0.3), 2.0), rel=1e-7
    )
    assert float(b) == pytest.approx(
        difference(lambda b: stats.beta(2, b).logsf(0.3), 3.0), rel=1e-7
    )
    for centre in (-40.0, 0.0, 40.0):
        slope = jax.grad(
            lambda m: log_between(dist.Normal(m, 1.0), jnp.asarray(-1.0), jnp.asarray(2.0))
        )(centre)
        assert np.isfinite(slope)


@pytest.mark.thorough
def test_intervals():
    between = log_between(
        dist.Normal(0.0, 1.0),
        jnp.array([10.0, -jnp.inf, -1.0, -jnp.inf]),
        jnp.array([11.0, -3.0, jnp.inf, jnp.inf]),
    )
    np.testing.assert_allclose(
        between, [-53.23131022558313, stats.norm.logcdf(-3), stats.norm.logsf(-1), 0.0], rtol=1e-9
    )
    np.testing.assert_allclose(
        float(between[0]), np.log(stats.norm.sf(10) - stats.norm.sf(11)), rtol=1e-9
    )
    counts = log_between(dist.Poisson(4.0), jnp.array([0.0, 3.0, 5.0]), jnp.array([0.0, 3.0, 7.0]))
    exact = stats.poisson(4)
    np.testing.assert_allclose(
        counts, [exact.logpmf(0), exact.logpmf(3), np.log(exact.pmf([5, 6, 7]).sum())], rtol=1e-9
    )


@pytest.mark.thorough("1.0", "-1.9")
@pytest.mark.parametrize("loc", [1.0, -1.9, -5.3, -20.0])
def test_draws_and_moments_of_a_power_however_far_below_its_end(loc):
    """At a loc of −5.3 the end lies 10 standard deviations above the middle, at −20 it is 60."""
    law, draws = BoxCoxNormal(loc, 0.3, 0.5, 0.01), 20_000
    drawn = law.sample(jax.random.key(0), (draws,))
    assert (drawn > -0.01).all()
    assert stats.kstest(np.exp(law.log_tails(drawn)[1]), "uniform").pvalue > 1e-3
    assert abs(float(drawn.mean() - law.mean)) < 4.5 * float(jnp.sqrt(law.variance / draws))
    assert float(drawn.var()) == pytest.approx(float(law.variance), rel=0.2)
