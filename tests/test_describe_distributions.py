"""What is read off a distribution: its words, and the bounds that somebody chose."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bayes_dasl._statistics import chosen_bounds, describe_distribution


@pytest.mark.parametrize(
    ("distribution", "text"),
    [
        (dist.LogNormal(-0.6, 0.512), "LogNormal(-0.6, 0.512)"),
        (dist.HalfNormal(2.0), "HalfNormal(2)"),
        (dist.Normal(0.0, 0.5).expand((2, 3)).to_event(2), "Normal(0, 0.5)"),
        (dist.Normal(jnp.asarray([0.0, 1.0]), 0.5), "Normal(0…1, 0.5)"),
        (dist.TruncatedNormal(1.0, 0.5, low=0.0), "Normal(1, 0.5), > 0"),
        (dist.TruncatedNormal(1.0, 0.5, high=2.0), "Normal(1, 0.5), < 2"),
        (dist.TruncatedNormal(1.0, 0.5, low=0.0, high=2.0), "Normal(1, 0.5), > 0 and < 2"),
        (dist.Uniform(0.0, 2.0), "Uniform(0, 2)"),
    ],
)
def test_a_prior_in_words(distribution, text):
    assert describe_distribution(distribution) == text


@pytest.mark.parametrize(
    ("prior", "bounds"),
    [
        (dist.Uniform(0.0, 5.0), {"lower": 0.0, "upper": 5.0}),
        (dist.Uniform(-1.0, 1.0).expand([3]).to_event(1), {"lower": -1.0, "upper": 1.0}),
        (dist.Uniform(0.0, np.array([1.0, 2.0])).to_event(1), {"lower": 0.0, "upper": [1.0, 2.0]}),
        (dist.TruncatedNormal(1.0, 1.0, low=0.5), {"lower": 0.5}),
        (dist.TruncatedNormal(1.0, 1.0, high=2.0), {"upper": 2.0}),
        (dist.TruncatedNormal(1.0, 1.0, low=0.0, high=2.0), {"lower": 0.0, "upper": 2.0}),
        (dist.TruncatedNormal(1.0, 1.0, low=0.0), {}),
        (dist.HalfNormal(1.0), {}),
        (dist.HalfCauchy(1.0), {}),
        (dist.LogNormal(0.0, 2.0), {}),
        (dist.Exponential(1.0), {}),
        (dist.Beta(2.0, 2.0), {}),
        (dist.Normal(0.0, 1.0), {}),
        (dist.Dirichlet(np.ones(3)), {}),
    ],
)
def test_a_support_is_no_bound_that_one_has_chosen(prior, bounds):
    assert chosen_bounds(prior) == bounds
