"""Priors of weights: their spread, by hand and in limits, and how many weights a horseshoe lets
through.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from adaptive_checks import EXACT, check_gradients, over_prior, realised

from bayes_dasl.errors import ModelError
from bayes_dasl.random import paths
from bayes_dasl.unknown_functions.bases import Horseshoe, NormalShrinkage, RandomWalk

DRAWS = 20_000


def error_of_variance(draws):
    """Four Monte-Carlo standard errors of the variance of each column."""
    return 4 * np.std((draws - draws.mean(0)) ** 2, axis=0) / np.sqrt(len(draws))


class TestNormalShrinkage:
    def test_spread(self):
        weights = over_prior(NormalShrinkage(3, 0.7), lambda w: w(), DRAWS)
        error = error_of_variance(weights)
        assert (np.abs(weights.var(0) - 0.7**2) < error).all()
        assert (np.abs(weights.var(0) - (1.2 * 0.7) ** 2) > error).all()

    def test_the_scale_is_unknown_and_shared(self):
        leaves = paths(NormalShrinkage(3))
        assert {path: leaf.shape for path, leaf in leaves.items()} == {"z": (3,), "scale": ()}
        assert isinstance(leaves["scale"].distribution, dist.HalfNormal)
        weights = over_prior(NormalShrinkage(2), lambda w: w(), DRAWS) ** 2
        # Squares of scale z with scale half-normal: E s² = 1, and E s⁴ = 3 ties them, with
        # covariance 3 − 1.
        assert np.cov(weights.T)[0, 1] == pytest.approx(
            2.0, abs=4 * np.std(weights.prod(1)) / np.sqrt(DRAWS)
        )


class TestHorseshoe:
    @pytest.mark.thorough
    def test_by_hand(self):
        weights = realised(Horseshoe(5, few=2))
        z, local, tau, slab = (
            np.asarray(v) for v in (weights.z, weights.local, weights.shrinkage, weights.slab)
        )
        tilde = np.sqrt(slab * local**2 / (slab + tau**2 * local**2))
        np.testing.assert_allclose(weights(), z * tau * tilde, rtol=EXACT)

    def test_a_large_weight_is_of_the_slab(self):
        weights = over_prior(Horseshoe(3, 1, shrinkage=1e8, slab=0.25), lambda w: w(), DRAWS)
        error = error_of_variance(weights)
        assert (np.abs(weights.var(0) - 0.25) < error).all()

    def test_few_weights_are_not_shrunk(self):
        """E Σ (1 − κ) = few for data of unit precision, κ = 1 / (1 + τ² λ²) (Piironen & Vehtari
        2017).
        """
        few, size = 3.0, 20
        prior = Horseshoe(size, few)
        tau = prior.shrinkage.scale
        local = over_prior(prior, lambda w: w.local, DRAWS)
        kept = np.sum(1 - 1 / (1 + (tau * local) ** 2), axis=1)
        assert abs(kept.mean() - few) < 4 * kept.std() / np.sqrt(DRAWS)

    @pytest.mark.thorough
    def test_large_weights_are_student(self):
        """Half of a Student-t with 4 degrees of freedom lies within 0.7407."""
        weights = over_prior(Horseshoe(1 + 1, 1, shrinkage=1e8), lambda w: w()[0], DRAWS)
        assert np.mean(np.abs(weights) < 0.740697) == pytest.approx(
            0.5, abs=4 * 0.5 / np.sqrt(DRAWS)
        )

    @pytest.mark.parametrize("few", [0, 3, -1])
    def test_few_of_how_many(self, few):
        with pytest.raises(ModelError, match="between 0 and the number of weights"):
            Horseshoe(3, few)


class TestRandomWalk:
    def test_is_centred_with_independent_steps(self):
        weights = over_prior(RandomWalk(12, 0.7), lambda w: w(), DRAWS)
        np.testing.assert_allclose(weights.sum(1), 0, atol=EXACT)
        steps = np.diff(weights, axis=1)
        correlation = np.corrcoef(steps.T) - np.eye(11)
        assert np.abs(correlation).max() < 4 / np.sqrt(DRAWS)
        assert np.ptp(steps.var(0)) < 2 * error_of_variance(steps).max()
        mean = weights.var(0).mean()
        assert mean == pytest.approx(0.49, abs=error_of_variance(weights).mean())

    @pytest.mark.parametrize("size", [0, 1])
    def test_needs_two(self, size):
        with pytest.raises(ModelError, match="at least 2 weights"):
            RandomWalk(size)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [NormalShrinkage, Horseshoe, RandomWalk])
def test_gradients(kind):
    # A width that leaves positive numbers positive: the prior is drawn, not its logarithm.
    check_gradients(kind(4), lambda w: w(), width=1e-3, solved=False)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_sizes(unchecked, size):
    with pytest.raises(ModelError, match="whole number"):
        NormalShrinkage(size)


@pytest.mark.thorough
@pytest.mark.parametrize("shrinkage", [0.0, 1e100])
def test_gradients_at_extremes_are_finite(shrinkage):
    weights = realised(Horseshoe(3, slab=1.0, shrinkage=1.0))
    total = lambda tau: jnp.sum(eqx.tree_at(lambda w: w.shrinkage, weights, tau)())  # noqa: E731
    assert jnp.isfinite(jax.grad(total)(shrinkage))
