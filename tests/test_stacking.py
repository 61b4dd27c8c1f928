"""Chains weighed by how well they predict."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

import bayes_dasl as bd


def apart(means, data, draws=400):
    """A posterior whose chains stay at different means of unit normal data."""
    rng = np.random.default_rng(1)
    mean = np.asarray(means)[:, None] + 0.1 * rng.normal(size=(len(means), draws))
    log_likelihood = norm.logpdf(data, mean[..., None])
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"mean": (("chain", "draw"), mean)}),
            "log_likelihood": xr.Dataset({"y": (("chain", "draw", "time"), log_likelihood)}),
            "observed_data": xr.Dataset({"y": ("time", data)}),
        }
    )


@pytest.fixture(scope="module")
def mixture():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=140), 6 + rng.normal(size=60)])


def test_weights_are_the_shares_of_what_the_chains_predict(mixture):
    """In the order of the chains, of which the best is not the first."""
    post = bd.weighting.stack(apart([6.0, 40.0, 0.0], mixture))
    weights = json.loads(post.attrs["stacking_weights"])
    np.testing.assert_allclose(weights, [0.3, 0.0, 0.7], atol=0.02)
    mean = post["posterior"]["mean"].values
    assert mean.shape == (3, 400)
    assert np.mean(mean < 3) == pytest.approx(weights[2], abs=0.01)
    assert ((mean < 3).mean(axis=1) > 0.6).all()  # every chain of the result is a mixture


@pytest.mark.thorough
def test_a_group_keeps_its_rows_together(mixture):
    before = apart([0.0, 6.0], mixture)
    post = bd.weighting.stack(before, key=3)
    again = norm.logpdf(mixture, post["posterior"]["mean"].values[..., None])
    np.testing.assert_allclose(post["log_likelihood"]["y"].values, again)
    xr.testing.assert_identical(
        post["observed_data"].to_dataset(), before["observed_data"].to_dataset()
    )


@pytest.mark.thorough
def test_the_verdict_says_that_it_is_no_posterior(mixture):
    verdict = bd.diagnose(bd.weighting.stack(apart([0.0, 6.0], mixture)))
    assert verdict.level == "warning"
    assert "no draws of the posterior" in str(verdict)
    assert "R-hat" not in str(verdict)


def test_what_cannot_be_stacked(mixture):
    with pytest.raises(bd.BayesDaslError, match="needs several"):
        bd.weighting.stack(apart([0.0], mixture))
    with pytest.raises(bd.BayesDaslError, match="log_likelihood"):
        bd.weighting.stack(
            xr.DataTree.from_dict(
                {"posterior": xr.Dataset({"a": (("chain", "draw"), np.zeros((2, 5)))})}
            )
        )
