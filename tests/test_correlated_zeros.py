"""Correlated residuals with zeros, censored data and Box–Cox scales, against dense normal
distributions.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro.handlers import block, condition
from numpyro.infer.util import log_density
from scipy import stats
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl._statistics import RectifiedBoxCoxNormal, truncated_moments
from bayes_dasl.errors import ModelError
from bayes_dasl.filtering import filter as filtered
from bayes_dasl.inference import pose
from bayes_dasl.noise.sequential import Seen, on_link

TIMES = np.arange(9.0)
LEVEL, SCALE, PHI = 1.0, 0.8, 0.9
POWER, SHIFT = 0.5, 0.04
ZERO = (SHIFT**POWER - 1) / POWER
AR1 = bd.filtering.AR1(SCALE, PHI)


class Level(bd.Module):
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + 0.0 * t}


def model(noise):
    return bd.Model(bd.Algebraic(Level(bd.between(0.2, 4.0))), noise)


def transformed(y):
    return ((y + SHIFT) ** POWER - 1) / POWER


@eqx.filter_jit
def judged(noise, y):
    """The log density of data about the true level."""
    times, level = jnp.arange(float(y.size)), jnp.full(y.size, LEVEL)
    found = noise.given(level, times, noise.before(times, y, level, same=True)).log_prob(
        jnp.nan_to_num(y, nan=1.0)
    )
    return jnp.where(jnp.isnan(y), 0.0, found).sum()


def likelihood(noise, data):
    return float(judged(noise, jnp.asarray(data["y"].values)))


def by_the_model(noise, data):
    path = "layer.function.level"
    at_truth = block(condition(model(noise), {path: jnp.asarray(LEVEL)}), hide=[path])
    return float(log_density(at_truth, (data,), {}, {})[0])


def dense(values, bounds, middle, phi=PHI, scale=SCALE, white=0.0):
    """The log density of AR(1) normal numbers about a middle, of which some are known to lie below
    their bounds.
    """
    times = np.arange(values.size)
    covariance = scale**2 * phi ** np.abs(times[:, None] - times) + white**2 * np.eye(values.size)
    kept, censored = np.isfinite(values) & np.isnan(bounds), np.isfinite(bounds)
    known = covariance[np.ix_(kept, kept)]
    log = stats.multivariate_normal(np.zeros(kept.sum()), known).logpdf(values[kept] - middle)
    if censored.any():
        gain = np.linalg.solve(known, covariance[np.ix_(kept, censored)]).T
        mean = middle + gain @ (values[kept] - middle)
        left = covariance[np.ix_(censored, censored)] - gain @ covariance[np.ix_(kept, censored)]
        law = stats.multivariate_normal(
            mean, left, allow_singular=True, abseps=1e-8, maxpts=200_000
        )
        log += np.log(law.cdf(bounds[censored], rng=np.random.default_rng(0)))
    return log


def flows(seed, phi=PHI, level=LEVEL):
    """Nine flows of the process itself about a small level, some of them zero."""
    rng, x = np.random.default_rng(seed), np.zeros(9)
    x[0] = rng.normal()
    for day in range(1, 9):
        x[day] = phi * x[day - 1] + np.sqrt(1 - phi**2) * rng.normal()
    latent = transformed(level) + SCALE * x
    y = np.where(latent > ZERO, (1 + POWER * np.maximum(latent, ZERO)) ** (1 / POWER) - SHIFT, 0.0)
    return xr.Dataset({"y": ("time", y)}, {"time": TIMES})


def exact(data, **process):
    y = data["y"].values
    bounds = np.where(y == 0, ZERO, np.nan)
    return (
        dense(transformed(y), bounds, transformed(LEVEL), **process)
        + (POWER - 1) * np.log(y[y > 0] + SHIFT).sum()
    )


SEEDS = [seed for seed in range(60) if 0 < (flows(seed, level=0.2)["y"] == 0).sum() < 7][:6]


@pytest.mark.parametrize("white", [0.0, 0.3])
def test_log_density_is_nearly_that_of_the_dense_normal(white):
    """Moment matching is ten times nearer to the exact density than zeros left out or taken as
    measured.
    """
    noise = bd.filtering.CorrelatedBoxCoxNoise(AR1, white, power=POWER, shift=SHIFT)
    plain = bd.filtering.CorrelatedNoise(AR1, white)
    errors = []
    for seed in SEEDS:
        data = flows(seed, level=0.2)
        y = data["y"]
        wanted = exact(data, white=white)
        volume = (POWER - 1) * np.log(y.values[y.values > 0] + SHIFT).sum()
        # On the transformed scale an error of the prediction is one of the data.
        on_scale = data.assign(y=transformed(y) + LEVEL - transformed(LEVEL))
        left_out = likelihood(plain, on_scale.where(y > 0)) + volume
        measured = likelihood(plain, on_scale) + volume
        errors.append(
            [abs(found - wanted) for found in (likelihood(noise, data), left_out, measured)]
        )
    matched, left_out, measured = np.mean(errors, axis=0)
    assert matched < 0.1 * min(left_out, measured)


def test_log_density_is_exact_without_zeros_and_without_memory():
    full = flows(1, level=4.0)
    assert (full["y"] > 0).all()
    noise = bd.filtering.CorrelatedBoxCoxNoise(AR1, power=POWER, shift=SHIFT)
    assert likelihood(noise, full) == pytest.approx(exact(full), rel=1e-9)
    some = flows(SEEDS[0], level=0.2)
    noise = bd.filtering.CorrelatedBoxCoxNoise(bd.filtering.White(SCALE), power=POWER, shift=SHIFT)
    assert likelihood(noise, some) == pytest.approx(exact(some, phi=1e-30), rel=1e-5)


@pytest.mark.parametrize(
    ("low", "high"),
    [(-np.inf, 0.3), (-1.0, 0.5), (2.0, np.inf), (-np.inf, -15.0), (4.0, 4.001), (-9.0, 12.0)],
)
def test_moments_of_a_truncated_normal(low, high):
    mean, variance = truncated_moments(jnp.asarray(low), jnp.asarray(high))
    wanted = stats.truncnorm(low, high).stats("mv")
    if low == 4.0:  # nearly uniform: SciPy's variance loses its digits
        wanted = wanted[0], 0.001**2 / 12
    np.testing.assert_allclose(
        (mean, variance), wanted, rtol=1e-4
    )  # of differences of nearly equal numbers


def test_the_rectified_law_is_one():
    law = RectifiedBoxCoxNormal(-0.9, SCALE, POWER, SHIFT)
    grid = np.linspace(1e-9, 40.0, 400_001)
    density = np.exp(law.log_prob(jnp.asarray(grid)))
    zero = float(jnp.exp(law.log_prob(0.0)))
    assert zero == pytest.approx(stats.norm.cdf((ZERO + 0.9) / SCALE))
    moments = [np.trapezoid(density * grid**n, grid) for n in (0, 1, 2)]
    assert zero + moments[0] == pytest.approx(1.0, abs=1e-6)
    assert float(law.mean) == pytest.approx(moments[1], rel=1e-5)
    assert float(law.variance) == pytest.approx(moments[2] - moments[1] ** 2, rel=1e-5)
    draws = np.asarray(law.sample(jax.random.key(0), (40_000,)))
    assert draws.min() == 0.0
    assert abs((draws == 0).mean() - zero) < 4 * np.sqrt(zero * (1 - zero) / 40_000)
    level = np.array([0.3, 0.6, 0.99])
    np.testing.assert_allclose(law.cdf(law.icdf(level)), np.maximum(level, zero), rtol=1e-9)
    np.testing.assert_allclose(jnp.exp(law.log_tails(jnp.asarray(0.5))[0]), law.cdf(0.5), rtol=1e-9)


def concentrations(seed=3):
    """Concentrations with AR(1) residuals on the log scale, of which those below 0.7 are reported
    as 0.7.
    """
    rng, x = np.random.default_rng(seed), np.zeros(9)
    x[0] = rng.normal()
    for day in range(1, 9):
        x[day] = PHI * x[day - 1] + np.sqrt(1 - PHI**2) * rng.normal()
    return np.maximum(np.exp(SCALE * x), 0.7)


class TestCensored:
    DATA = xr.Dataset({"y": ("time", concentrations())}, {"time": TIMES})
    NOISE = bd.filtering.CorrelatedLogNoise(AR1)

    def exact(self):
        y = self.DATA["y"].values
        bounds = np.where(y <= 0.7, np.log(0.7), np.nan)
        assert 2 <= np.isfinite(bounds).sum() <= 6
        return dense(np.log(y), bounds, np.log(LEVEL)) - np.log(y[y > 0.7]).sum()

    def test_log_density_by_a_limit_and_by_codes(self):
        by_limit = likelihood(bd.noise.Censored(self.NOISE, below=0.7), self.DATA)
        as_seen = likelihood(self.NOISE, self.DATA)
        assert abs(by_limit - self.exact()) < 0.1 * abs(as_seen - self.exact())
        code = (self.DATA["y"] <= 0.7).astype(int)
        by_codes = by_the_model(bd.noise.Censored(self.NOISE), self.DATA.assign(y_censored=code))
        assert by_codes == pytest.approx(by_limit)

    def test_an_interval_and_an_upper_limit(self):
        """Independent residuals are judged alone: their density is exact."""
        data = xr.Dataset(
            {
                "y": ("time", [2.0, 1.0, 3.0]),
                "y_censored": ("time", [0, 1, -1]),
                "y_limit": ("time", [np.nan, 0.4, np.nan]),
            },
            {"time": TIMES[:3]},
        )
        law = stats.lognorm(SCALE)
        wanted = law.logpdf(2.0) + np.log(law.cdf(1.0) - law.cdf(0.4)) + law.logsf(3.0)
        noise = bd.noise.Censored(bd.filtering.CorrelatedLogNoise(bd.filtering.White(SCALE)))
        assert by_the_model(noise, data) == pytest.approx(wanted, rel=1e-9)

    def test_gradients_are_finite(self):
        @jax.jit
        @jax.grad
        def slopes(at):
            scale, correlation, white = at
            noise = bd.noise.Censored(
                bd.filtering.CorrelatedLogNoise(bd.filtering.AR1(scale, correlation), white),
                below=0.7,
            )
            return judged(noise, jnp.asarray(self.DATA["y"].values).at[4].set(jnp.nan))

        for at in ([0.8, 0.9, 0.3], [1e-3, 0.5, 1e-3], [50.0, 0.999, 1e-6]):
            assert np.isfinite(slopes(jnp.asarray(at))).all()

    def test_a_forecast_goes_on_from_what_is_censored(self):
        """The codes are those of the fitted data: future ones are not asked for. After low values a
        low one follows.
        """
        values, codes = [1.4, 1.6, 1.5, 1.3, 1.2, 1.0, 0.7, 0.7, 0.7], [0] * 6 + [1] * 3
        data = xr.Dataset({"y": ("time", values), "y_censored": ("time", codes)}, {"time": TIMES})
        noise = bd.noise.Censored(self.NOISE)
        post = bd.fit(model(noise), data, Sifting(), progress=False)
        fc = bd.forecast(model(noise), post, xr.Dataset(coords={"time": [9.0]}))["predictions"]["y"]
        assert float(fc.median()) < 0.7 < float(post["posterior"]["level"].median())


class TestHurdle:
    def test_a_zero_says_nothing_of_the_residuals(self):
        data = xr.Dataset({"y": ("time", [1.2, 0.0, 1.5, 0.0, 0.0, 0.8])}, {"time": TIMES[:6]})
        found = likelihood(bd.noise.HurdleNoise(bd.filtering.CorrelatedLogNoise(AR1), 0.4), data)
        amounts = likelihood(bd.filtering.CorrelatedLogNoise(AR1), data.where(data["y"] > 0))
        assert found == pytest.approx(amounts + 3 * np.log(0.4) + 3 * np.log(0.6), rel=1e-9)

    def test_draws_hold_together_beside_their_zeros(self):
        noise = bd.noise.HurdleNoise(bd.filtering.CorrelatedLogNoise(AR1), 0.4)
        law = noise.given(jnp.ones(3), jnp.arange(3.0), None)
        draws = np.asarray(law.sample(jax.random.key(0), (20_000,)))
        assert abs((draws == 0).mean() - 0.4) < 4 * np.sqrt(0.24 / 60_000)
        both = (draws[:, 0] > 0) & (draws[:, 1] > 0)
        correlation = np.corrcoef(np.log(draws[both][:, :2]).T)[0, 1]
        assert abs(correlation - PHI) < 4 * (1 - PHI**2) / np.sqrt(both.sum())

    def test_amounts_with_zeros_of_their_own_are_refused(self):
        with pytest.raises(ModelError, match="CorrelatedBoxCoxNoise has zeros itself"):
            bd.noise.HurdleNoise(bd.filtering.CorrelatedBoxCoxNoise(AR1, power=0.5), 0.3)


class TestPaths:
    NOISE = bd.filtering.CorrelatedBoxCoxNoise(AR1, power=POWER, shift=SHIFT)

    def test_draws_are_those_of_the_dense_normal_given_the_zeros(self):
        """Three days after a run of zeros: shares of zeros, of pairs of them, and medians, by
        drawing and keeping.
        """
        data = xr.Dataset({"y": ("time", [1.0, 0.3, 0.0, 0.0])}, {"time": TIMES[:4]})
        later = np.array([4.0, 5.0, 8.0])
        seen = self.NOISE.before(
            jnp.asarray(TIMES[:4]), jnp.asarray(data["y"].values), jnp.full(4, LEVEL), same=False
        )
        law = self.NOISE.given(jnp.full(3, LEVEL), jnp.asarray(later), seen)
        found = np.asarray(law.sample(jax.random.key(0), (40_000,)))
        rng, x = np.random.default_rng(0), np.zeros((1_000_000, 9))
        x[:, 1] = transformed(0.3) - transformed(LEVEL)
        for day in range(2, 9):
            x[:, day] = PHI * x[:, day - 1] + SCALE * np.sqrt(1 - PHI**2) * rng.normal(size=len(x))
        latent = transformed(LEVEL) + x
        kept = latent[(latent[:, 2:4] <= ZERO).all(axis=1)][:, [4, 5, 8]]
        assert len(kept) > 2000 and found.min() == 0.0
        error = 4 * np.sqrt(0.25 / len(kept) + 0.25 / len(found))
        # Moment matching moves a probability by up to two hundredths here.
        for days in ([0], [1], [2], [0, 1], [1, 2]):
            zeros = (
                (found[:, days] == 0).all(axis=1).mean(),
                (kept[:, days] <= ZERO).all(axis=1).mean(),
            )
            assert abs(zeros[0] - zeros[1]) < error + 0.02

    def test_predictions_below_zero_say_how_dry_it_is(self):
        zeros = jnp.exp(
            self.NOISE.given(jnp.asarray([0.0, -0.1, -0.3]), jnp.arange(3.0), None).alone.log_prob(
                0.0
            )
        )
        slope = SHIFT ** (POWER - 1)
        np.testing.assert_allclose(
            zeros, stats.norm.cdf(slope * np.array([0.0, 0.1, 0.3]) / SCALE), rtol=1e-9
        )

    @pytest.mark.thorough("hurdle")
    @pytest.mark.parametrize(
        "noise",
        [NOISE, bd.noise.HurdleNoise(bd.filtering.CorrelatedLogNoise(AR1), 0.4)],
        ids=["tobit", "hurdle"],
    )
    def test_forecasts_scores_and_members(self, noise):
        """Draws have exact zeros, the log score of a zero is that of its probability, and PITs are
        spread within it.
        """
        data = flows(SEEDS[0], level=0.2)
        own = model(noise)
        post = bd.fit(own, data, Sifting(), progress=False)
        later = xr.Dataset({"y": ("time", np.zeros(30))}, {"time": 9.0 + np.arange(30)})
        fc = bd.forecast(own, post, later[["time"]])
        draws = fc["predictions"]["y"]
        assert float(draws.min()) == 0.0
        zeros = (draws == 0).mean(("chain", "draw")).clip(1 / draws[..., 0].size)
        score = bd.score(fc, later).loc["y", "log_score"]
        assert score == pytest.approx(float(-np.log(zeros).mean()), abs=0.1)
        pits = bd.scores.pit(fc, later)["y"]
        assert (pits <= zeros + 0.05).all()
        problem = pose(own, data)
        found = on_link(_given(problem))
        assert all(np.isfinite(part).all() for part in found)


def _given(problem):
    from bayes_dasl.random import realise

    realised = realise(problem.model, problem.constrain(jnp.zeros(problem.dimension)))
    return realised.conditional(realised.predict(problem.inputs), problem.inputs)["y"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: bd.filtering.CorrelatedBoxCoxNoise(AR1, power=-0.5),
            "CorrelatedBoxCoxNoise.power must not be negative",
        ),
        (
            lambda: bd.filtering.CorrelatedBoxCoxNoise(AR1, power=0.0),
            "needs a shift above 0 beside a power of 0",
        ),
        (
            lambda: bd.filtering.CorrelatedBoxCoxNoise(AR1, power=0.5, shift=-1.0),
            "shift must be a known number",
        ),
        (
            lambda: bd.filtering.CorrelatedBoxCoxNoise(
                bd.filtering.RandomWalk(1.0, 0.0), power=0.5
            ),
            "give white noise beside it",
        ),
    ],
)
def test_what_cannot_be(make, told):
    with pytest.raises(ModelError, match=told):
        make()


def test_a_censored_residual_leaves_the_moments_of_a_truncated_normal():
    """Of a state (r, s) with correlation, given r < 0.3: by the law of total covariance."""
    covariance = np.array([[1.0, 0.6], [0.6, 2.0]])
    ahead = filtered.Belief(jnp.zeros(()), jnp.zeros(2), jnp.asarray(covariance))
    seen = Seen(jnp.asarray(0.0), jnp.asarray(True), (jnp.asarray(-jnp.inf), jnp.asarray(0.3)))
    after = filtered._conditioned(ahead, 0, seen, jnp.asarray(1.0))
    mean, variance = stats.truncnorm(-np.inf, 0.3).stats()
    gain = covariance[:, 0]
    np.testing.assert_allclose(after.mean, gain * mean, rtol=1e-5)
    np.testing.assert_allclose(
        after.covariance, covariance - np.outer(gain, gain) * (1.0 - variance), rtol=1e-5
    )
