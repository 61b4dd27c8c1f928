"""Concentrations under a limit of quantification: taken as seen or left out they bias a clearance, censored they do not.

One compartment, a bolus and a clearance, sampled until most values lie under the limit.
"""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd

DOSE, VOLUME, CLEARANCE, LIMIT = 100.0, 20.0, 5.0, 0.25
TIMES = np.repeat([1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0], 3)
SCALE = 0.3
ENGINE = bd.NUTS(chains=2, warmup=100, draws=200, climbs=4)


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
        {"level": ("time", np.where(under, LIMIT, level)), "level_censored": ("time", under.astype(int))},
        {"time": TIMES},
    )


def clearance(noise, data):
    """Posterior mean and standard deviation."""
    equation = Elimination(dist.LogNormal(3.0, 0.5), dist.LogNormal(1.6, 0.7))
    draws = bd.fit(bd.Model(bd.Algebraic(equation), noise), data, ENGINE, progress=False)["posterior"]["clearance"]
    return float(draws.mean()), float(draws.std())


def three_ways(seed):
    """The clearance from censored values, from the limit in their place, and without them."""
    data, noise = simulated(seed), bd.LogNormalNoise(dist.HalfNormal(0.5))
    seen = data.drop_vars("level_censored")
    return (
        clearance(bd.Censored(noise), data),
        clearance(noise, seen),
        clearance(noise, seen.where(data["level_censored"] == 0)),
    )


def test_censoring_ignored_biases_the_clearance_and_ours_recovers_it():
    (ours, sd), (at_limit, _), (left_out, _) = three_ways(0)
    assert abs(ours - CLEARANCE) < 2 * sd and sd < 0.1 * CLEARANCE
    assert at_limit < 0.8 * CLEARANCE
    assert left_out < ours


@pytest.mark.slow
def test_so_over_replicates():
    """Twelve data sets: the mean is right to its error, and nine of ten standard intervals hold the truth or more."""
    found = np.array([three_ways(seed) for seed in range(12)])
    ours, at_limit, left_out = found[..., 0].T
    error = ours.std(ddof=1) / np.sqrt(len(ours))
    assert abs(ours.mean() - CLEARANCE) < 3 * error
    assert np.mean(np.abs(ours - CLEARANCE) < 2 * found[:, 0, 1]) > 0.75
    assert at_limit.mean() < 0.8 * CLEARANCE
    assert left_out.mean() < ours.mean() - 2 * error
