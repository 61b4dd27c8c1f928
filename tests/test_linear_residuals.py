"""Residuals that are linear in numbers and functions: their slopes are those of the density, of
every kind of noise.
"""

import functools

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from test_kinds_of_noise import AMOUNTS, COUNTS, ERRORS, KINDS, TESTED, TIMES

import bayes_dasl as bd
from bayes_dasl.inference import pose
from bayes_dasl.inference.linear_residuals import Around

AT = np.array([0.2, 0.5])
CROSS = bd.filtering.CrossCorrelation(("land", "ocean"), 0.7)
NOISES = {
    "normal": (bd.NormalNoise(0.3), AMOUNTS),
    "Student's t": (bd.StudentTNoise(0.3), AMOUNTS),
    "log-normal": (bd.LogNormalNoise(0.3), AMOUNTS),
    "Poisson": (bd.PoissonNoise(), COUNTS),
    "negative binomial": (bd.NegativeBinomialNoise(3.0), COUNTS),
    "correlated": (
        bd.filtering.CorrelatedNoise(bd.filtering.OrnsteinUhlenbeck(0.3, 0.4), 0.1),
        AMOUNTS,
    ),
    "correlated logarithms": (
        bd.filtering.CorrelatedLogNoise(bd.filtering.AR1(0.3, 0.5), 0.1),
        AMOUNTS,
    ),
} | {name: (noise, values) for name, (noise, values, *_) in KINDS.items()}

SIMILAR = (*KINDS, "normal", "Poisson", "correlated logarithms")


class Line(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar
    names: tuple = ("y",)

    def __call__(self, t, y, u):
        return {name: self.level + (i + 1) * self.slope * t for i, name in enumerate(self.names)}


def model(noise, names=("y",), **options) -> bd.Model:
    line = Line(dist.Normal(0.5, 0.1), dist.Normal(0.0, 0.1), names)
    return bd.Model(bd.Algebraic(line), dict.fromkeys(names, noise), **options)


def data(**values) -> xr.Dataset:
    given = {"error": ERRORS, "tested": TESTED} | values
    return xr.Dataset(
        {name: ("time", v) for name, v in given.items()}, {"time": np.linspace(0.0, 1.0, TIMES)}
    )


def around(model: bd.Model, data: xr.Dataset, replicates: int = 1):
    problem = pose(model, data)
    linear, _ = Around(problem, lambda model, _: model, 0, AT).linear(
        AT, replicates, key=jax.random.key(0)
    )
    return linear, np.asarray(jax.grad(problem.log_density)(AT))


@functools.cache
def of_kind(name: str):
    noise, values = NOISES[name]
    return around(model(noise), data(y=values), replicates=4000)


class TestSlopes:
    @pytest.mark.parametrize("name", NOISES)
    @pytest.mark.thorough(*SIMILAR, "correlated", "negative binomial")
    def test_those_of_residuals_and_priors_are_those_of_the_log_density(self, name):
        linear, slopes = of_kind(name)
        np.testing.assert_allclose(linear.slopes.T @ linear.left + linear.pull, slopes, rtol=1e-6)

    @pytest.mark.parametrize("name", NOISES)
    @pytest.mark.thorough(*SIMILAR)
    def test_of_data_that_the_model_draws_nothing_is_left_on_average(self, name):
        linear, _ = of_kind(name)
        error = linear.noise.std(axis=0) / np.sqrt(len(linear.noise))
        assert np.all(np.abs(linear.noise.mean(axis=0)) < 4.5 * error)

    def test_a_gap_tells_nothing(self):
        values = np.where(np.arange(TIMES) == 2, np.nan, AMOUNTS)
        linear, slopes = around(model(bd.NormalNoise(0.3)), data(y=values))
        assert len(linear.left) == TIMES - 1
        np.testing.assert_allclose(linear.slopes.T @ linear.left + linear.pull, slopes, rtol=1e-6)

    @pytest.mark.thorough
    def test_noise_that_observables_share(self):
        of_both = model(
            bd.filtering.CorrelatedNoise(bd.filtering.White(0.3)),
            ("land", "ocean"),
            cross_correlation=CROSS,
        )
        linear, slopes = around(of_both, data(land=AMOUNTS, ocean=AMOUNTS[::-1].copy()))
        np.testing.assert_allclose(linear.slopes.T @ linear.left + linear.pull, slopes, rtol=1e-6)
