"""Correlated noise against dense normal distributions: density, forecasts and the paths that are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer.util import log_density

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose

TIMES = np.array([0.5, 1.0, 1.2, 2.0, 3.5, 3.6, 5.0, 7.0, 7.25, 9.0])
LATER = np.array([9.5, 10.0, 12.0, 20.0])
SCALE, TIME = 0.7, 2.5


class Line(bd.Module):
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level * (1.0 + 0.3 * jnp.sin(t))}


def line(times):
    return 2.0 * (1.0 + 0.3 * np.sin(times))


def _lags(a, b):
    return np.abs(a[:, None] - b[None])


def _walk(a, b):
    return SCALE**2 * np.minimum(a[:, None], b[None])


def _matern(a, b):
    x = np.sqrt(3.0) * _lags(a, b) / TIME
    return SCALE**2 * (1 + x) * np.exp(-x)


def _decays(a, b):
    return SCALE**2 * np.exp(-_lags(a, b) / TIME)


PROCESSES = {
    "AR1": (bd.AR1(SCALE, np.exp(-0.5 / TIME), step=0.5), _decays),
    "OrnsteinUhlenbeck": (bd.OrnsteinUhlenbeck(SCALE, TIME), _decays),
    "Matern32": (bd.Matern32(SCALE, TIME), _matern),
    "RandomWalk": (bd.RandomWalk(SCALE, start=0.0), _walk),
}
CASES = [(name, white) for name in PROCESSES for white in (0.0, 0.4) if white or name != "RandomWalk"]


def _model(noise):
    return bd.Model(bd.Algebraic(Line(bd.between(1.0, 4.0))), noise)


def _data(log=False, missing=(3, 7)):
    rng = np.random.default_rng(0)
    residual = np.cumsum(rng.normal(size=TIMES.size)) * 0.4
    values = line(TIMES) * np.exp(residual) if log else line(TIMES) + residual
    values[list(missing)] = np.nan
    return xr.Dataset({"y": ("time", values)}, {"time": TIMES})


def _residuals(data, log):
    values = data["y"].values
    return np.log(values / line(TIMES)) if log else values - line(TIMES)


def _conditional(model, inputs):
    realised = _at_truth(model)
    return realised.conditional(realised.predict(inputs), inputs)["y"]


def _at_truth(model):
    return bd.Model(bd.Algebraic(Line(2.0)), model.noise)


def _noise(name, white, log=False):
    return (bd.CorrelatedLogNoise if log else bd.CorrelatedNoise)(PROCESSES[name][0], white)


@pytest.mark.parametrize("log", [False, True], ids=["data", "log"])
@pytest.mark.parametrize(("name", "white"), CASES)
class TestDensity:
    def test_is_that_of_the_dense_normal(self, name, white, log):
        data = _data(log)
        model = _model(_noise(name, white, log))
        found, _ = log_density(_conditioned(model, 2.0), (data,), {}, {})
        seen = np.isfinite(data["y"].values)
        residuals, times = _residuals(data, log)[seen], TIMES[seen]
        covariance = PROCESSES[name][1](times, times) + white**2 * np.eye(times.size)
        exact = dist.MultivariateNormal(np.zeros(times.size), covariance).log_prob(residuals)
        exact -= np.log(data["y"].values[seen]).sum() if log else 0.0
        np.testing.assert_allclose(found, exact, rtol=1e-9)

    def test_forecasts_are_conditioned_on_the_residuals(self, name, white, log):
        data = _data(log)
        model = _model(_noise(name, white, log))
        inputs = _ahead(model, data)
        given = _conditional(model, inputs)
        mean, covariance = _dense(name, white, data, log)
        loc, scale = given.alone.loc, given.alone.scale
        place = np.log(line(LATER)) if log else line(LATER)
        np.testing.assert_allclose(loc, place + mean, rtol=1e-9)
        np.testing.assert_allclose(scale, np.sqrt(np.diag(covariance)), rtol=1e-8)
        drawn = np.asarray(given.sample(jax.random.key(1), (40_000,)))
        drawn = (np.log(drawn) if log else drawn) - place
        # Four standard errors of a covariance: the fourth moments of a normal give them.
        error = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / 40_000)
        assert np.all(np.abs(np.cov(drawn.T) - covariance) < 4.5 * error)


def _conditioned(model, level):
    from numpyro.handlers import block, condition

    path = "layer.function.level"
    return block(condition(model, {path: jnp.asarray(level)}), hide=[path])


def _ahead(model, data):
    inputs = model.inputs(data)
    import dataclasses

    past = dataclasses.replace(inputs.past, same=False)
    return dataclasses.replace(inputs, times=jnp.asarray(LATER), past=past)


def _dense(name, white, data, log):
    seen = np.isfinite(data["y"].values)
    times, residuals = TIMES[seen], _residuals(data, log)[seen]
    covariance = PROCESSES[name][1]
    known = covariance(times, times) + white**2 * np.eye(times.size)
    across = covariance(LATER, times)
    mean = across @ np.linalg.solve(known, residuals)
    left = covariance(LATER, LATER) - across @ np.linalg.solve(known, across.T) + white**2 * np.eye(LATER.size)
    return mean, left
