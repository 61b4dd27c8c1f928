"""Smoothed importance weights against ArviZ's, what they are of draws that stand twice, and when
they are trusted.
"""

from itertools import pairwise

import jax
import numpy as np
import pytest
from arviz_stats.base.array import array_stats

from bayes_dasl._statistics import jittered_constants, largest_pareto_k, weigh


def test_weights_are_those_of_arviz_and_draws_keep_their_order():
    rng = np.random.default_rng(0)
    log_weights, draws = rng.normal(size=2000), rng.normal(size=(2000, 2))
    weights = weigh(log_weights, draws)
    smoothed, shape = array_stats.psislw(-log_weights)
    assert weights.pareto_k == pytest.approx(float(shape))
    np.testing.assert_allclose(weights.values, np.exp(smoothed))
    index = weights.resample(1000, key=jax.random.key(0))
    assert all(a <= b for a, b in pairwise(index))
    counts = np.bincount(index, minlength=2000)
    assert (np.abs(counts - 1000 * weights.values) < 1).all()
    # Copies of a draw are one draw with more weight.
    copies = 1 + np.arange(2000) % 3
    copied = weigh(np.repeat(log_weights, copies), np.repeat(draws, copies, axis=0))
    assert copied.pareto_k == pytest.approx(float(shape))
    np.testing.assert_allclose(
        copied.values, copies * np.exp(smoothed) / (copies * np.exp(smoothed)).sum()
    )
    np.testing.assert_array_equal(copied.first, np.cumsum(copies) - copies)


@pytest.mark.parametrize(
    ("log_weights", "pareto_k"),
    [
        (np.zeros(100), 0.0),
        (1e-4 * np.random.default_rng(0).standard_t(1.0, 100), 0.0),
        (np.full(100, -np.inf), np.inf),
        (np.full(100, np.nan), np.inf),
        (np.arange(10.0), np.inf),
        (np.where(np.arange(100) < 97, -np.inf, np.arange(100.0)), np.inf),
        (np.where(np.arange(100) < 20, -np.inf, 0.0), np.inf),
    ],
)
def test_weights_that_have_no_tail(log_weights, pareto_k):
    weights = weigh(log_weights, np.arange(float(len(log_weights)))[:, None])
    assert weights.pareto_k == pareto_k
    assert weights.values.sum() == pytest.approx(1.0)
    assert weights.values[np.isneginf(log_weights)].sum() == pytest.approx(
        float(np.isneginf(log_weights).all())
    )


def test_draws_that_stand_twice_do_not_look_like_a_tail():
    """A chain that rejects leaves a draw twice: of mild, bounded weights k-hat stays small."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=3900)
    x = np.insert(x, 39 * np.arange(100), x[39 * np.arange(100)])
    log_weights = -0.1 * (x - 1.0) ** 2
    weights = weigh(log_weights, x[:, None])
    alone = array_stats.psislw(-np.unique(log_weights))[1]
    assert weights.pareto_k < 0.5
    assert abs(weights.pareto_k - alone) < 0.3
    # A draw that stands twice has twice the weight.
    mean, seen = weights.values @ x[weights.first], np.exp(log_weights)
    assert mean == pytest.approx(seen @ x / seen.sum(), abs=1e-3)


def test_many_small_steps_are_judged_together():
    """Each step is harmless, all of them are not: the earlier weights count in k-hat, but not in
    the weights.
    """
    rng = np.random.default_rng(6)
    x, step = rng.normal(size=(4000, 1)), 0.2 * rng.normal(size=4000)
    heavy = rng.exponential(1.5, size=4000)
    alone, together = weigh(step, x), weigh(step, x, heavy)
    assert alone.trusted
    assert together.pareto_k > 1 and not together.trusted
    np.testing.assert_array_equal(alone.values, together.values)


def test_fewer_draws_must_have_a_thinner_tail():
    """The bound of Vehtari et al. (2024): min(1 - 1 / log10(S), 0.7)."""
    assert largest_pareto_k(200) == pytest.approx(0.565, abs=1e-3)
    assert largest_pareto_k(4000) == 0.7


def test_log_densities_that_differ_or_are_infinite_stay():
    densities = np.random.default_rng(0).normal(size=(50, 3))
    assert jittered_constants(densities) is densities
    densities[:, 1], densities[:, 2] = -2.0, -np.inf
    apart = jittered_constants(densities)
    np.testing.assert_array_equal(apart[:, [0, 2]], densities[:, [0, 2]])
    assert len(np.unique(apart[:, 1])) == 50
    np.testing.assert_allclose(apart[:, 1], -2.0, atol=1e-9)
