"""The log likelihood of each datum at values, against SciPy and against what a fit keeps."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.stats import norm
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError, ModelError

TIMES = np.arange(5.0)


class Line(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


class Broken(Line):
    def __call__(self, t, y, u):
        return {"y": jnp.where(self.slope > 0, jnp.nan, self.level) + 0.0 * t}


def line(law=Line):
    return bd.Model(
        bd.Algebraic(law(dist.Normal(0.0, 2.0), dist.Normal(0.0, 1.0))),
        bd.NormalNoise(dist.HalfNormal(1.0)),
    )


DATA = xr.Dataset({"y": ("time", [1.0, 1.4, np.nan, 3.1, 2.9])}, {"time": TIMES})
VALUES = {"level": 1.0, "slope": 0.5, "scale": 0.3}


def test_it_is_that_of_scipy_at_values_of_each_name():
    found = bd.scores.log_likelihood(line(), DATA, VALUES)
    np.testing.assert_allclose(
        found["y"], norm(1.0 + 0.5 * TIMES, 0.3).logpdf(DATA["y"]), rtol=1e-12
    )
    assert (
        found["y"].dims == ("time",) and np.isnan(found["y"][2]) and (found["time"] == TIMES).all()
    )


def test_draws_come_first():
    draws = VALUES | {"slope": np.array([0.5, 0.7])}
    with pytest.raises(ModelError, match="draws of the same number of each"):
        bd.scores.log_likelihood(line(), DATA, draws)
    draws = {name: np.broadcast_to(value, 2) for name, value in draws.items()}
    found = bd.scores.log_likelihood(line(), DATA, draws)["y"]
    assert found.dims == ("draw", "time")
    for slope, each in zip([0.5, 0.7], found, strict=True):
        np.testing.assert_allclose(
            each, norm(1.0 + slope * TIMES, 0.3).logpdf(DATA["y"]), rtol=1e-12
        )


def test_of_a_posterior_it_is_what_the_fit_keeps():
    post = bd.fit(line(), DATA, Sifting(draws=20), progress=False)
    found = bd.scores.log_likelihood(line(), DATA, post)["y"]
    assert found.dims == ("chain", "draw", "time")
    seen = DATA["y"].notnull().values
    np.testing.assert_allclose(
        found.values[..., seen], post["log_likelihood"]["y"].values, atol=1e-8
    )


def test_members_at_their_own_times_are_over_the_dimensions_of_the_data():
    rng = np.random.default_rng(0)
    y = np.where(rng.uniform(size=(5, 3)) < 0.4, np.nan, rng.normal(size=(5, 3)))
    data = xr.Dataset({"y": (("time", "subject"), y)}, {"time": TIMES, "subject": ["a", "b", "c"]})
    level = bd.varying(bd.dependent(dist.Normal, bd.shared(dist.Normal(0.0, 1.0), "center"), 1.0))
    law = bd.Algebraic(Line(level, 0.5))
    model = bd.Model(bd.Each(law, data["subject"].values), bd.NormalNoise(0.3))
    levels = np.array([0.1, -0.2, 0.7])
    values = {"center": 0.0, "level": levels}
    found = bd.scores.log_likelihood(model, data, values)["y"]
    assert found.dims == ("time", "subject")
    np.testing.assert_allclose(
        found, norm(levels + 0.5 * TIMES[:, None], 0.3).logpdf(y), rtol=1e-12
    )


def test_where_the_solver_fails_data_are_impossible():
    found = bd.scores.log_likelihood(line(Broken), DATA, VALUES)["y"].values
    assert np.isnan(found[2]) and (found[[0, 1, 3, 4]] == -np.inf).all()


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        (
            VALUES | {"slop": 1.0},
            MismatchError,
            "'slop' is no unknown parameter of the model; these are level, slope, sc",
        ),
        ({"level": 1.0}, ModelError, "values are missing of slope, scale"),
        (
            VALUES | {"level": np.ones((2, 3))},
            ModelError,
            r"'level' has the shape \(2, 3\), but must have \(\)",
        ),
        ([1.0], ModelError, "must be a dict by name or what bd.fit returned, not list"),
    ],
)
def test_bad_values_are_refused(unchecked, values, error, said):
    with pytest.raises(error, match=said):
        bd.scores.log_likelihood(line(), DATA, values)
