"""The log score against exact mixtures by SciPy, in memory and from a file; what draws alone can
say.
"""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import at_times, levels_model, posterior
from numpyro.distributions import constraints
from scipy import stats
from test_scores import data_of, forecast_of

import bayes_dasl as bd
from bayes_dasl.prediction import noise_group
from bayes_dasl.prediction.conditional import conditional
from bayes_dasl.scores.ensemble_scores import score_ensemble

TIMES, CHAINS, DRAWS = 7, 2, 30
ALGEBRA = 10 * np.sqrt(np.finfo(float).eps)
RNG = np.random.default_rng(0)
LEVEL = RNG.uniform(0.5, 4.0, size=(CHAINS, DRAWS, TIMES))
SCALE = RNG.uniform(0.3, 1.0, size=(CHAINS, DRAWS))


class BinomialNoise(bd.noise.AbstractNoise):
    """A noise of one's own: so many of `total` trials succeed."""

    total: int

    def __call__(self, prediction):
        return dist.Binomial(self.total, probs=jnp.clip(prediction / 5, 1e-9, 1 - 1e-9))

    @property
    def support(self):
        return constraints.integer_interval(0, self.total)


class MixedNoise(bd.noise.AbstractNoise):
    """A noise that NumPyro makes of several distributions, so that its parameters do not say what
    it is.
    """

    def __call__(self, prediction):
        shape = jnp.array([2.0, 8.0])
        return dist.MixtureSameFamily(
            dist.Categorical(jnp.full(2, 0.5)), dist.Gamma(shape, shape / prediction[..., None])
        )

    @property
    def support(self):
        return constraints.positive


def growing(t, y, u):
    return {"h": 0.1 * t}


Z, S = LEVEL, SCALE[..., None]
T = np.arange(float(TIMES))
NOISES = {  # the noise, what its random leaf is called, data, and SciPy's density of these by draw and time
    "normal": (bd.NormalNoise, "scale", lambda y: stats.norm.pdf(y, Z, S)),
    "log-normal": (bd.LogNormalNoise, "scale", lambda y: stats.lognorm.pdf(y, S, scale=Z)),
    "Student t": (lambda s: bd.StudentTNoise(s, df=2.5), "scale", lambda y: stats.t.pdf(y, 2.5, Z, S)),
    "varying": (
        lambda s: bd.NormalNoise(bd.noise.VaryingScale(s, growing)), "scale.typical",
        lambda y: stats.norm.pdf(y, Z, S * np.exp(0.1 * T)),
    ),
    "Poisson": (lambda s: bd.PoissonNoise(), None, lambda y: stats.poisson.pmf(y, Z)),
    "negative binomial": (
        bd.NegativeBinomialNoise, "concentration", lambda y: stats.nbinom.pmf(y, S, S / (S + Z)),
    ),
    "binomial": (lambda s: BinomialNoise(9), None, lambda y: stats.binom.pmf(y, 9, Z / 5)),
}  # fmt: skip
COUNTS = {"Poisson", "negative binomial", "binomial"}


def forecast_with(noise, leaf, observed, *, level=LEVEL):
    model = levels_model(TIMES, noise(dist.LogNormal(0.0, 1.0)))
    draws = {"layer.function.level": level} | ({f"noise.{leaf}": SCALE} if leaf else {})
    data = at_times(observed)
    return bd.forecast(model, posterior(model, data, draws), data), data


@pytest.mark.thorough(
    "log-normal", "Student t", "varying", "Poisson", "negative binomial", "binomial"
)
@pytest.mark.parametrize("name", NOISES)
def test_the_log_score_is_that_of_the_exact_mixture(name, tmp_path):
    noise, leaf, density = NOISES[name]
    observed = np.array([0.0, 1.0, 2.0, 3.0, 9.0, 1.0, np.nan])  # of counts; 9 lies in the tail
    observed = observed if name in COUNTS else observed + 0.37
    fc, data = forecast_with(noise, leaf, observed)
    exact = -np.log(density(observed).mean(axis=(0, 1)))[:-1].mean()
    table = bd.score(fc, data)
    assert table.loc["y", "log_score"] == pytest.approx(exact, rel=ALGEBRA)
    assert table.attrs["log_score"] == {"y": "exact"}
    assert bd.score(bd.load(bd.save(fc, tmp_path / "fc.nc")), data).equals(table)


@pytest.mark.thorough
def test_counts_that_are_nearly_always_zero_score_by_their_mass():
    rate = np.full(LEVEL.shape, 0.001)
    fc, data = forecast_with(lambda s: bd.PoissonNoise(), None, np.zeros(TIMES), level=rate)
    assert bd.score(fc, data).loc["y", "log_score"] == pytest.approx(0.001)  # −log e^(−0.001)


@pytest.mark.thorough
def test_what_a_noise_rules_out_scores_infinity():
    fc, data = forecast_with(bd.LogNormalNoise, "scale", np.full(TIMES, -1.0))
    assert bd.score(fc, data).loc["y", "log_score"] == np.inf
    fc, data = forecast_with(lambda s: bd.PoissonNoise(), None, np.full(TIMES, 0.5))
    assert bd.score(fc, data).loc["y", "log_score"] == np.inf


@pytest.mark.thorough
def test_failed_draws_do_not_count():
    level = LEVEL.copy()
    level[0, :10] = np.nan  # a row that is not finite fails
    fc, data = forecast_with(bd.NormalNoise, "scale", np.ones(TIMES), level=level)
    kept = np.isfinite(level).all(axis=2)
    exact = -np.log(stats.norm.pdf(1.0, level[kept], SCALE[kept][:, None]).mean(axis=0)).mean()
    table = bd.score(fc, data)
    assert table.loc["y", "log_score"] == pytest.approx(exact, rel=1e-10)
    assert table.attrs["failed_draws"] == 10


@pytest.mark.thorough
def test_a_noise_that_cannot_be_made_anew_is_scored_by_its_draws_and_that_is_said():
    fc, data = forecast_with(lambda s: MixedNoise(), None, np.full(TIMES, 2.3))
    table = bd.score(fc, data)
    draws = fc["predictions"]["y"].values.reshape(-1, TIMES)
    assert table.loc["y", "log_score"] == score_ensemble(draws, data["y"].values)["log_score"]
    assert "log_score of y: a kernel estimate from the draws" in repr(table)


def test_draws_of_whole_numbers_give_no_mass_and_that_is_said():
    rng = np.random.default_rng(1)
    draws, observed = rng.poisson(2.0, (200, 9)).astype(float), rng.poisson(2.0, 9).astype(float)
    table = bd.score(forecast_of(draws), data_of(observed))
    assert np.isnan(table.loc["y", "log_score"]) and np.isfinite(table.loc["y", "crps"])
    assert "log_score of y: not known: of whole numbers draws alone give no mass" in repr(table)


def test_the_mean_over_observables_is_not_known_where_one_is_not():
    rng = np.random.default_rng(2)
    values = {
        "counts": rng.poisson(2.0, (1, 200, 9)).astype(float),
        "level": rng.normal(size=(1, 200, 9)),
    }
    dims, time = ("chain", "draw", "time"), {"time": np.arange(9.0)}
    fc = xr.DataTree.from_dict(
        {"predictions": xr.Dataset({n: (dims, v) for n, v in values.items()}, time)}
    )
    data = xr.Dataset({n: ("time", v[0, 0]) for n, v in values.items()}, time)
    table = bd.score(fc, data)
    assert np.isfinite(table.loc["level", "log_score"]) and np.isnan(table.loc["all", "log_score"])
    assert np.isfinite(table.loc["all", "crps"])


def test_parameters_come_back_over_the_places_of_a_field():
    dims, shape = ("chain", "draw", "time", "x"), (2, 5, 3, 4)
    like = xr.Dataset({"heat": (dims, np.zeros(shape))}, {"x": np.arange(4.0)})
    rng = np.random.default_rng(3)
    noise = {"heat": {"loc": rng.normal(size=(10, 3, 4)), "scale": rng.uniform(size=(10, 1, 1))}}
    group = noise_group((("heat", "Normal"),), noise, like)
    assert group["heat.scale"].dims == ("chain", "draw")
    kept = conditional(group, like["heat"])
    assert kept is not None and kept.family == "Normal"
    for name, values in noise["heat"].items():
        np.testing.assert_array_equal(kept.parameters[name], values)
