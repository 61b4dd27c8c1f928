"""Guides against posteriors in closed form; weights that tell a bad guide; runs that are taken up
again.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from curves import Curve
from known_problems import Conjugate, Known, banana, correlated
from scipy.stats import norm, truncnorm
from seldom import seldom

import bayes_dasl as bd
from bayes_dasl.engines import SVI
from bayes_dasl.engines.svi import svi as svi
from bayes_dasl.engines.svi.guides import GUIDES, build_family
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import Journal, ProgressBar
from bayes_dasl.inference.gradient import traced_once

CONJUGATE = Conjugate(
    y=[1.0, -0.5, 2.0], prior_mean=[0.0, 0.5, 1.0], prior_covariance=correlated(3, 0.4), noise=0.8
)


def run(problem, engine, *, key=0, journal=None):
    return engine.run(
        problem, key=jax.random.key(key), journal=journal or Journal(), bar=ProgressBar(False)
    )


def z_scores(samples, mean, sd):
    """Errors of the means and of the log standard deviations of normal draws, in Monte-Carlo
    standard errors.
    """
    flat = samples.positions.reshape(-1, samples.positions.shape[-1])
    # Resampling adds its own noise to that of the weighted proposals.
    relative = np.sqrt(1 / len(flat) + 1 / samples.facts["importance_ess"])
    return (flat.mean(0) - mean) / (sd * relative), np.log(flat.std(0) / sd) / (
        relative / np.sqrt(2)
    )


@pytest.mark.parametrize("guide", seldom(GUIDES, "mean_field", "full_rank", "low_rank", "flow"))
def test_every_guide_agrees_with_a_conjugate_posterior(guide):
    samples = run(CONJUGATE.problem, SVI(guide=guide, steps=1500))
    assert samples.positions.shape == (4, 1000, 3)
    facts = samples.facts
    assert facts["pareto_k"] < 0.7
    assert facts["resampled"] == facts["converged"] == 1
    of_mean, of_sd = z_scores(samples, CONJUGATE.mean, CONJUGATE.sd)
    assert abs(of_mean).max() < 4
    assert abs(of_sd).max() < 4
    assert abs(z_scores(samples, CONJUGATE.mean, 1.2 * CONJUGATE.sd)[1]).min() > 4
    assert abs(facts["log_evidence"] - CONJUGATE.log_evidence) < 4 * facts["log_evidence_se"] + 1e-6
    assert facts["elbo"] < CONJUGATE.log_evidence + 1e-6
    lp = jax.vmap(CONJUGATE.problem.log_density)(samples.positions.reshape(-1, 3))
    np.testing.assert_allclose(samples.stats["lp"].ravel(), lp)


@pytest.mark.thorough("low_rank")
@pytest.mark.parametrize("guide", ["full_rank", "low_rank"])
def test_a_fit_from_a_poor_start_becomes_the_normal_posterior(guide):
    """Without the help of weights: the gradient's noise vanishes as the guide comes close."""
    _, log_density = traced_once(CONJUGATE.problem)
    family = build_family(guide, np.sqrt(0.05) * np.eye(3), key=jax.random.key(0))
    ascent = svi._Ascent(family, log_density, 32, np.zeros(3))
    parameters, facts = SVI(guide=guide)._fit(
        ascent, jax.random.key(1), Journal(), ProgressBar(False)
    )
    assert facts["converged"] == 1
    fitted = family.posterior(parameters)
    covariance = family.scale @ np.asarray(fitted.covariance_matrix) @ family.scale.T
    # A rank of two and a diagonal hold any covariance of three.
    np.testing.assert_allclose(
        family.scale @ fitted.loc, CONJUGATE.mean, atol=0.03 * CONJUGATE.sd.max()
    )
    np.testing.assert_allclose(
        covariance, CONJUGATE.covariance, atol=0.03 * CONJUGATE.covariance.max()
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "problem",
    [
        Conjugate([0.0, 0.0], [0.0, 0.0], correlated(2, 0.995), noise=5.0).problem,
        pytest.param(Known(banana, [0.0, 0.0], np.diag([1.0, 9.0])), marks=pytest.mark.slow),
    ],
    ids=["correlated", "banana"],
)
def test_a_guide_too_narrow_is_told_by_its_weights(problem):
    facts = run(problem, SVI(guide="mean_field", steps=1500, draws=500)).facts
    assert facts["pareto_k"] > 0.7
    assert facts["resampled"] == 0
    assert "log_evidence" not in facts


def test_modes_that_the_guide_does_not_reach_are_counted():
    """Of two modes far apart it covers one; two places that its draws lie around are its own, tops
    or not.
    """
    proposals = {
        "position": np.random.default_rng(0).normal(size=(4000, 2)),
        "log_weight": np.zeros(4000),
    }
    far, near = np.array([[0.0, 0.0], [9.0, 0.0]]), np.array([[0.0, 0.0], [3.2, 0.0]])
    for modes, missed in ((far, 1), (near, 0), (far[:1], 0)):
        found = {"modes": modes, "precisions": np.tile(np.eye(2), (len(modes), 1, 1))}
        assert svi._missed(proposals, found) == missed


@pytest.mark.thorough
def test_draws_stay_where_the_solver_succeeds():
    """A sixth of a normal fails: the rest is a truncated normal, of which the guide covers the
    whole.
    """

    def below_one(x):
        return jnp.where(x[0] < 1.0, 0.0, -jnp.inf)

    samples = run(Known(below_one, [0.0], [[1.0]]), SVI(guide="full_rank", steps=1500))
    facts = samples.facts
    assert np.isfinite(facts["elbo"])
    assert facts["proposals_failed"] > 0
    assert np.isfinite(samples.stats["lp"]).all()
    assert samples.positions.max() < 1.0
    assert facts["resampled"] == 1
    exact = truncnorm(-np.inf, 1.0)
    error = exact.std() * np.sqrt(1 / 4000 + 1 / facts["importance_ess"])
    assert abs(samples.positions.mean() - exact.mean()) < 4 * error
    assert abs(facts["log_evidence"] - np.log(norm.cdf(1.0))) < 4 * facts["log_evidence_se"]


@pytest.mark.thorough
def test_a_run_taken_up_again_gives_the_same_draws(tmp_path):
    engine = SVI(guide="low_rank", steps=600, draws=100)
    whole = run(CONJUGATE.problem, engine, journal=Journal(tmp_path))
    steps = sorted(tmp_path.glob("*.step"))
    assert len(steps) >= 4
    for path in steps[len(steps) // 2 :]:
        path.unlink()
    again = run(CONJUGATE.problem, engine, journal=Journal(tmp_path))
    np.testing.assert_array_equal(whole.positions, again.positions)
    assert whole.facts == again.facts
    other = run(CONJUGATE.problem, engine, key=1)
    assert not np.array_equal(whole.positions, other.positions)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"guide": "normal"}, "laplace, mean_field, low_rank, full_rank, flow"),
        ({"steps": 10}, "steps must be a whole number, at least 100"),
        ({"draws": 0}, "draws must be a whole number, at least 1"),
        ({"chains": 0}, "chains must be a whole number, at least 1"),
        ({"particles": 1}, "particles must be a whole number, at least 2"),
        ({"learning_rate": 1.5}, "learning_rate must lie between 0 and 1"),
    ],
)
def test_bad_arguments_are_refused(bad, words):
    with pytest.raises(ModelError, match=words):
        SVI(**bad)


def test_a_flow_of_one_dimension_is_refused():
    with pytest.raises(ModelError, match="two dimensions or more"):
        run(Known(lambda x: 0.0, [0.0], [[1.0]]), SVI(guide="flow"))


class Level(Curve):
    """A state that does not move."""

    level: bd.Scalar

    def y(self, times):
        return self.level + 0.0 * times


@pytest.mark.thorough
def test_a_constant_state_seen_with_known_noise():
    """Through the model and the DataTree."""
    y = 2.0 + 0.5 * np.random.default_rng(0).normal(size=12)
    data = xr.Dataset({"y": ("time", y)}, {"time": np.arange(12.0)})
    model = bd.Model(Level(dist.Normal(0.0, 3.0)), bd.NormalNoise(scale=0.5))
    post = bd.fit(model, data, SVI(steps=400), key=1)
    precision = 1 / 3.0**2 + 12 / 0.5**2
    draws = post["posterior"]["level"]
    assert abs(float(draws.mean()) - y.sum() / 0.5**2 / precision) < 4 * np.sqrt(
        2 / 4000 / precision
    )
    assert abs(float(draws.std()) * np.sqrt(precision) - 1) < 4 / np.sqrt(4000)
    assert post.attrs["pareto_k"] < 0.7


def test_a_step_at_which_everything_fails_is_no_plateau():
    before, after = np.full(100, -3.0), np.full(100, -2.5)
    after[7] = -np.inf
    assert svi._rises(before, after)
    assert not svi._rises(after, after)
    assert svi._rises(before, np.full(100, -np.inf))
