"""Concentrations under a limit of quantification: taken as seen or left out they bias a clearance,
censored not.

One compartment, a bolus and a clearance, sampled until most values lie under the limit.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.optimize import minimize

import bayes_dasl as bd
from bayes_dasl.inference import pose

DOSE, VOLUME, CLEARANCE, LIMIT, SCALE = 100.0, 20.0, 5.0, 0.5, 0.8
TIMES = np.repeat([1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 24.0], 4)


class Elimination(bd.Module):
    """The concentration after a bolus, in mg/L."""

    volume: bd.Scalar = bd.field(units="L")
    clearance: bd.Scalar = bd.field(units="L/h")

    def __call__(self, t, y, u):
        return {"level": DOSE / self.volume * jnp.exp(-self.clearance / self.volume * t)}


def simulated(seed):
    """Data with what is under the limit at the limit, and which these are."""
    true = DOSE / VOLUME * np.exp(-CLEARANCE / VOLUME * TIMES)
    level = true * np.exp(SCALE * np.random.default_rng(seed).normal(size=TIMES.size))
    under = level < LIMIT
    return xr.Dataset(
        {
            "level": ("time", np.where(under, LIMIT, level)),
            "level_censored": ("time", under.astype(int)),
        },
        {"time": TIMES},
    )


def model(noise):
    equation = Elimination(dist.LogNormal(3.0, 2.0), dist.LogNormal(1.0, 2.0))
    return bd.Model(bd.Algebraic(equation), noise)


def most_likely(noise, data):
    """The clearance at the posterior mode,
    and about its standard deviation by the curvature there.
    """
    problem = pose(model(noise), data)
    downhill = jax.jit(jax.value_and_grad(lambda x: -problem.log_density(x)))
    found = minimize(downhill, np.zeros(problem.dimension), jac=True)
    at = float(problem.constrain(jnp.asarray(found.x))["layer.function.clearance"])
    first = problem.sites["layer.function.clearance"].start
    return at, at * float(np.sqrt(found.hess_inv[first, first]))


def three_ways(seed):
    """The clearance from censored values, from the limit in their place, and without them."""
    data, noise = simulated(seed), bd.LogNormalNoise(dist.HalfNormal(1.0))
    seen = data.drop_vars("level_censored")
    return (
        most_likely(bd.noise.Censored(noise), data),
        most_likely(noise, seen),
        most_likely(noise, seen.where(data["level_censored"] == 0)),
    )


@pytest.mark.thorough
def test_censoring_ignored_biases_the_clearance_and_ours_recovers_it():
    (ours, sd), (at_limit, _), (left_out, _) = three_ways(0)
    assert abs(ours - CLEARANCE) < 2 * sd
    assert at_limit < 0.8 * CLEARANCE
    assert left_out < ours


@pytest.mark.slow
def test_so_over_replicates():
    """Of forty data sets the mean is right to its error, and intervals of two standard deviations
    hold the truth.
    """
    found = np.array([three_ways(seed) for seed in range(40)])
    ours, at_limit, left_out = found[..., 0].T
    error = ours.std(ddof=1) / np.sqrt(len(ours))
    assert abs(ours.mean() - CLEARANCE) < 3 * error
    assert np.mean(np.abs(ours - CLEARANCE) < 2 * found[:, 0, 1]) > 0.8
    assert at_limit.mean() < 0.8 * CLEARANCE
    assert left_out.mean() < 0.8 * CLEARANCE
