"""Nested R-hat of draws that are known, and what chance allows the worst of many quantities."""

import numpy as np
import pytest

from bayes_dasl._statistics import allowance, nested_rhat, rhat


def test_nested_rhat_of_known_draws():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(64, 20, 3))
    assert 1 <= nested_rhat(mixed, 8) < 1.01
    # Slow chains from dispersed points: random walks that hardly move.
    slow = 2 * rng.normal(size=(8, 1, 1)).repeat(8, axis=0) + 0.05 * rng.normal(
        size=(64, 20, 1)
    ).cumsum(axis=1)
    assert nested_rhat(np.dstack([mixed, slow]), 8) > 2
    # Superchains one standard deviation apart: the variance of all is about twice that within.
    apart = mixed + np.where(np.arange(64) // 8 % 2, 1.0, -1.0)[:, None, None]
    assert nested_rhat(apart, 8) == pytest.approx(np.sqrt(2), rel=0.1)
    assert nested_rhat(np.dstack([mixed, np.ones((64, 20))]), 8) == np.inf


def test_a_single_chain_is_judged_by_its_halves():
    """Halves a standard deviation apart: the variance of all is 5/4 of that within, as of two
    chains.
    """
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(1, 2000, 1))
    assert 1 <= rhat(draws)[0] < 1.01
    late = draws + np.where(np.arange(2000) < 1000, -0.5, 0.5)[None, :, None]
    assert rhat(late)[0] == pytest.approx(np.sqrt(5 / 4), rel=0.05)


def test_of_few_quantities_nothing_more_is_allowed():
    assert [allowance(number, 8) for number in (1, 2, 10)] == [1.0, 1.0, 1.0]
    assert 1.3 < allowance(200, 8) < 1.4 < allowance(1000, 8) < 1.6
