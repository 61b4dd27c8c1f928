"""What coefficients that a linear model lacks would add to its evidence, against SciPy's densities
and known truths.
"""

import numpy as np
import pytest
from scipy.stats import binom, multivariate_normal

from bayes_dasl._statistics import Lacking, Linear

DATA, UNKNOWN, MORE, REPLICATES = 40, 5, 12, 400
X = np.linspace(0.0, 1.0, DATA)
SLOPES = np.cos(np.pi * np.arange(UNKNOWN) * X[:, None])
ALONG = np.cos(np.pi * np.arange(MORE) * X[:, None])
PRIOR = np.diag(1.0 / np.linspace(0.5, 2.0, UNKNOWN))


def linear(left, seed=0, at=None, slopes=SLOPES):
    """Residuals around a position, which is 0 unless given: the mean of the prior."""
    at = np.zeros(UNKNOWN) if at is None else at
    noise = np.random.default_rng([seed, 1]).normal(size=(REPLICATES, DATA))
    return Linear(left - slopes @ at, slopes, -PRIOR @ at, PRIOR, noise)


def drawn(seed, more=0.0):
    rng = np.random.default_rng([seed, 2])
    unknown = np.linalg.solve(np.linalg.cholesky(PRIOR).T, rng.normal(size=UNKNOWN))
    return SLOPES @ unknown + more * ALONG @ rng.normal(size=MORE) + rng.normal(size=DATA)


def log_evidence(left, covariance, free):
    """With the size of the noise at its best, up to a constant."""
    size = left @ np.linalg.solve(covariance, left) / free
    density = multivariate_normal(np.zeros(DATA), size * covariance).logpdf(left)
    return density + 0.5 * (DATA - free) * np.log(size)  # the prior takes up so many data


@pytest.mark.parametrize("told", [1.0, 0.02])  # how much data tell of what is unknown
def test_the_gain_is_that_of_the_log_evidence(told):
    left, slopes = drawn(0, more=0.5), told * SLOPES
    outside = np.eye(DATA) + 100 * slopes @ np.linalg.solve(
        PRIOR, slopes.T
    )  # of a prior ten times as wide
    free = np.trace(np.linalg.inv(outside))
    assert (free < DATA - UNKNOWN + 0.1) == (told == 1.0)
    found = Lacking(linear(left, slopes=slopes)).gain(ALONG)
    ratios = np.geomspace(1e-4, 1e4, 161)
    every = [outside + ratio * ALONG @ ALONG.T for ratio in ratios]
    gains = [
        log_evidence(left, inside, free) - log_evidence(left, outside, free) for inside in every
    ]
    best = int(np.argmax(gains))
    assert found.gain == pytest.approx(gains[best], abs=0.05)  # but for the grid
    size = left @ np.linalg.solve(every[best], left) / free
    assert found.variance == pytest.approx(size * ratios[best], rel=0.5)
    both = np.concatenate([slopes, ALONG], axis=1)
    prior = np.concatenate([np.diag(PRIOR) / 100, np.full(MORE, size / found.variance)])
    mean = np.linalg.solve(both.T @ both + np.diag(prior), both.T @ left)
    np.testing.assert_allclose(found.coefficients, mean[UNKNOWN:], rtol=0.1, atol=0.05)


def test_neither_the_reference_nor_the_size_of_the_noise_matters():
    left = drawn(1, more=0.8)
    found = Lacking(linear(left)).gain(ALONG)
    elsewhere = Lacking(linear(left, at=np.full(UNKNOWN, 3.0))).gain(ALONG)
    assert elsewhere.gain == pytest.approx(found.gain, abs=1e-9)
    assert found.gain > 1
    assert Lacking(linear(3 * left)).gain(ALONG).gain == pytest.approx(found.gain, abs=1e-9)


@pytest.mark.thorough
def test_a_sound_model_gains_as_its_replicates_do():
    """Shares of data sets whose gain is among the largest tenth of that of replicates, and the
    largest twentieth.
    """
    several = 300
    chances = []
    for seed in range(several):
        found = Lacking(linear(drawn(seed), seed)).gain(ALONG)
        chances.append(np.mean(found.replicates >= found.gain))
    for share in (0.05, 0.1, 0.3):
        low, high = binom.interval(1 - 1e-4, several, share)
        assert low <= np.sum(np.array(chances) < share) <= high


def test_what_is_lacking_is_found():
    chances = [
        np.mean(
            (found := Lacking(linear(drawn(s, more=1.0), s)).gain(ALONG)).replicates >= found.gain
        )
        for s in range(20)
    ]
    assert np.mean(np.array(chances) < 0.01) >= 0.9


def test_beside_what_was_lacking_nothing_is_lacking():
    lacking = Lacking(linear(drawn(0, more=2.0)))
    found = lacking.gain(ALONG)
    again = lacking.with_them(ALONG, found.variance).gain(ALONG)
    assert found.gain > 5 and again.gain < 0.1
    assert np.mean(again.replicates >= again.gain) > 0.05


def test_what_the_data_do_not_see_gains_nothing():
    nothing = Lacking(linear(drawn(0))).gain(np.zeros((DATA, 3)))
    assert (nothing.gain, nothing.replicates.max()) == (0.0, 0.0)
    np.testing.assert_array_equal(nothing.coefficients, np.zeros(3))
