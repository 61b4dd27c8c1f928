"""The check of the solver: a closed-form decay, solved well, coarsely, and far too coarsely."""

import dataclasses
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optimistix
import pytest
import xarray as xr
from curves import Curve
from scipy.stats import norm

import bayes_dasl as bd
from bayes_dasl._statistics import Weights
from bayes_dasl.errors import MismatchError, ModelError
from bayes_dasl.inference import AbstractEngine, Samples, pose
from bayes_dasl.layers import AbstractLayer
from bayes_dasl.updating import check_solver, tightened
from bayes_dasl.updating.solver_check import _largest_rhat, _largest_shift

TIMES = np.linspace(0.0, 3.0, 8)
CHAINS, DRAWS = 4, 500


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


@dataclasses.dataclass(frozen=True)
class Quadrature(AbstractEngine):
    """Independent draws of a single random number: its posterior on two grids, the second where the
    first is high.
    """

    draws: int = DRAWS

    def run(self, problem, *, key, journal, bar):
        density = jax.jit(jax.vmap(problem.log_density))
        grid = jnp.linspace(-3.0, 2.0, 2001)[:, None]
        likely = np.asarray(grid)[np.asarray(density(grid)) > density(grid).max() - 40]
        grid = jnp.linspace(likely.min() - 0.0025, likely.max() + 0.0025, 2001)[:, None]
        mass = np.exp(np.asarray(density(grid)) - density(grid).max())
        below = (np.cumsum(mass) - mass / 2) / mass.sum()
        uniform = np.asarray(jax.random.uniform(key, (CHAINS, self.draws)))
        positions = np.interp(uniform, below, np.asarray(grid[:, 0]))[..., None]
        lp = np.asarray(jax.vmap(density)(jnp.asarray(positions)))
        return Samples(positions, {"lp": lp, "energy": -lp, "diverging": lp > 0})


def model(tolerance=1e-6):
    layer = bd.ODE(Decay(rate=bd.between(0.1, 3.0)), {"y": 5.0}, rtol=tolerance, atol=tolerance)
    return bd.Model(layer, bd.NormalNoise(0.01))


class Decayed(bd.Module):
    """The same in closed form, as a solver would have it whose rate is off by a fifth of its
    tolerance.
    """

    rate: bd.Scalar
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)

    def __call__(self, t, y, u):
        return {"y": 5.0 * jnp.exp(-self.rate * (1.0 + self.rtol / 5) * t)}


def loose(tolerance):
    return bd.Model(
        bd.Algebraic(Decayed(bd.between(0.1, 3.0), tolerance, tolerance)), bd.NormalNoise(0.01)
    )


def data(noise=0.01):
    scatter = noise * np.random.default_rng(1).normal(size=8)
    return xr.Dataset({"y": ("time", 5.0 * np.exp(-0.7 * TIMES) + scatter)}, {"time": TIMES})


def truth():
    """Mean and standard deviation of the posterior, with the solution in closed form."""
    rate = np.linspace(0.5, 0.9, 40001)
    prior = np.asarray(bd.between(0.1, 3.0).log_prob(rate))
    error = (data()["y"].values[:, None] - 5.0 * np.exp(-rate * TIMES[:, None])) / 0.01
    density = prior - 0.5 * (error**2).sum(axis=0)
    weights = np.exp(density - density.max())
    weights /= weights.sum()
    mean = weights @ rate
    return mean, np.sqrt(weights @ (rate - mean) ** 2)


@pytest.fixture(scope="module")
def coarse():
    post = bd.fit(loose(1e-2), data(), Quadrature(), key=1)
    mean, sd = truth()
    # The solver's error moves the posterior by more than a Monte-Carlo error: else there were
    # nothing to find.
    assert abs(float(post["posterior"]["rate"].mean()) - mean) > 8 * sd / np.sqrt(CHAINS * DRAWS)
    return post


@pytest.mark.slow
def test_a_good_solver_passes():
    post = bd.fit(model(), data(), Quadrature(), key=1)
    checked = check_solver(model(), post)
    found = checked["solver_check"].attrs
    assert found["pareto_k"] < 0.7
    assert found["largest_shift_sd"] < 0.05
    assert found["failures"] == 0
    assert (found["rtol"], found["atol"]) == pytest.approx((1e-8, 1e-8))
    mean, sd = truth()
    assert abs(float(post["posterior"]["rate"].mean()) - mean) < 4 * sd / np.sqrt(CHAINS * DRAWS)


@pytest.mark.thorough
def test_draws_that_were_resampled_before_say_nothing_against_the_solver():
    """Resampled again, by a correction, they are judged by both weights: those of before have a
    k-hat of 0.6.
    """
    post = bd.fit(loose(1e-6), data(), Quadrature(), key=1)
    before = -0.6 * np.log(np.random.default_rng(0).uniform(size=(CHAINS, DRAWS)))
    post["sample_stats"] = xr.DataTree(
        post["sample_stats"].to_dataset().assign(log_weight=(("chain", "draw"), before))
    )
    assert check_solver(loose(1e-6), post)["solver_check"].attrs["pareto_k"] < 0.1
    assert (
        0.45 < check_solver(loose(1e-6), post, correct=True)["solver_check"].attrs["pareto_k"] < 0.7
    )


def test_a_coarse_solver_is_seen(coarse):
    before = coarse.copy(deep=True)
    checked = check_solver(loose(1e-2), coarse, draws=150)
    found = checked["solver_check"].attrs
    mean, sd = truth()
    off = abs(float(coarse["posterior"]["rate"].mean()) - mean) / sd
    # A mean of 150 weighted draws against one of the same draws unweighted: their scatter is common
    # to both.
    assert abs(found["largest_shift_sd"] - off) < 4 * off / np.sqrt(150) + 4 / np.sqrt(
        CHAINS * DRAWS
    )
    assert found["parameter"] == "rate"
    assert found["draws"] == checked["solver_check"].sizes["check_draw"] == 150
    assert set(np.unique(checked["solver_check"]["chain"])) == set(range(CHAINS))
    at = checked["solver_check"].to_dataset().isel(check_draw=77)
    one = {"chain": int(at["chain"]), "draw": int(at["draw"])}
    densities = [
        pose(m, data()).log_density(jnp.log(coarse["posterior"]["rate"].sel(one).values)[None])
        for m in (loose(1e-4), loose(1e-2))
    ]
    assert float(at["log_weight"]) == pytest.approx(
        float(densities[0] - densities[1]), rel=1e-6, abs=1e-6
    )
    for group in coarse.children:
        xr.testing.assert_identical(checked[group].to_dataset(), coarse[group].to_dataset())
    xr.testing.assert_identical(before, coarse)
    assert "solver_check" not in coarse.children


@pytest.mark.thorough
def test_a_failing_solve_is_counted_and_has_no_weight(coarse, tmp_path):
    broken = coarse.copy(deep=True)
    broken["posterior"]["rate"][0, 0] = -1e30
    checked = check_solver(loose(1e-2), broken, draws=30)
    assert checked["solver_check"].attrs["failures"] == 1
    assert np.isneginf(checked["solver_check"]["log_weight"][0])
    assert np.isfinite(checked["solver_check"]["log_weight"][1:]).all()
    loaded = bd.load(bd.save(checked, tmp_path / "posterior.nc"))
    xr.testing.assert_identical(
        loaded["solver_check"].to_dataset(), checked["solver_check"].to_dataset()
    )


@pytest.mark.thorough
def test_weights_correct_a_coarse_solver(coarse):
    coarse = coarse.copy(deep=True)
    coarse["vector_field"] = xr.DataTree(-5.0 * coarse["posterior"].to_dataset())
    before = coarse.copy(deep=True)
    corrected = check_solver(loose(1e-2), coarse, correct=True, key=3)
    xr.testing.assert_identical(before, coarse)
    mean, sd = truth()
    draws, effective = corrected["posterior"]["rate"], corrected.attrs["effective_draws"]
    assert draws.shape == (CHAINS, DRAWS)
    assert 100 < effective < CHAINS * DRAWS
    # The tight solver, 1e-4, has an error of its own, far below a Monte-Carlo error.
    assert abs(float(draws.mean()) - mean) < 4 * sd / np.sqrt(effective)
    assert abs(float(draws.std()) / sd - 1) < 4 / np.sqrt(2 * effective)
    assert corrected.attrs["corrected_by"] == "importance weights"
    tight = pose(loose(1e-4), data())
    assert corrected.attrs["posterior_sha256"] != coarse.attrs["posterior_sha256"]
    density = jax.vmap(tight.log_density)(jnp.log(draws.values[0, :20, None]))
    np.testing.assert_allclose(corrected["sample_stats"]["lp"][0, :20], density, rtol=1e-6)
    assert "energy" not in corrected["sample_stats"]
    np.testing.assert_array_equal(corrected["vector_field"]["rate"], -5.0 * draws)
    exact = 5.0 * np.exp(-draws.values[..., None] * TIMES)
    np.testing.assert_allclose(corrected["conditional_mean"]["y"], exact, atol=2e-3)
    likelihood = dist.Normal(corrected["conditional_mean"]["y"].values, 0.01).log_prob(
        data()["y"].values
    )
    np.testing.assert_allclose(corrected["log_likelihood"]["y"], likelihood, rtol=1e-9)


@pytest.mark.slow
def test_weights_correct_a_coarse_solver_of_an_equation():
    """The error is that of tsit5 itself, which moves the posterior by more than a Monte-Carlo
    error.
    """
    post, (mean, sd) = bd.fit(model(1e-2), data(), Quadrature(), key=1), truth()
    assert abs(float(post["posterior"]["rate"].mean()) - mean) > 8 * sd / np.sqrt(CHAINS * DRAWS)
    corrected = check_solver(model(1e-2), post, correct=True, key=3)
    draws, effective = corrected["posterior"]["rate"], corrected.attrs["effective_draws"]
    assert abs(float(draws.mean()) - mean) < 4 * sd / np.sqrt(effective)
    exact = 5.0 * np.exp(-draws.values[..., None] * TIMES)
    np.testing.assert_allclose(corrected["conditional_mean"]["y"], exact, atol=2e-3)


@pytest.mark.thorough
def test_far_too_coarse_a_solver_is_not_corrected():
    far = with_noise(loose(1e-1), 1e-4)
    post = bd.fit(far, data(1e-4), Quadrature(), key=1)
    with pytest.raises(
        ModelError,
        match=r"too coarse to be corrected by weights: their k-hat is \S+, which must be",
    ):
        check_solver(far, post, correct=True)


def in_order(values, order):
    """Draws of all chains, put into another order."""
    return values.reshape(-1, *values.shape[2:])[order].reshape(values.shape)


@pytest.mark.thorough
def test_chains_that_disagree_are_not_corrected(coarse):
    """The same draws, but each chain has a quarter of the posterior."""
    apart, order = coarse.copy(), np.argsort(coarse["posterior"]["rate"].values, axis=None)
    for name in ("posterior", "sample_stats", "log_likelihood"):
        apart[name] = xr.DataTree(
            coarse[name].to_dataset().map(lambda v: v.copy(data=in_order(v.values, order)))
        )
    halves = "or the halves of its only one"
    words = (
        rf"chains of this posterior, {halves}, disagree \(R-hat \d\.\d+\), which no weights can "
        r"mend"
    )
    with pytest.raises(ModelError, match=words):
        check_solver(loose(1e-2), apart, correct=True)
    assert "solver_check" in check_solver(loose(1e-2), apart).children


@pytest.mark.thorough
def test_a_parameter_that_never_moves_says_nothing_of_agreement(coarse):
    """As the corner of a Cholesky factor; R-hat is not defined there."""
    still, apart = coarse.copy(), coarse.copy()
    rate = coarse["posterior"]["rate"]
    still["posterior"] = xr.DataTree(
        coarse["posterior"].to_dataset().assign(corner=xr.ones_like(rate))
    )
    assert _largest_rhat(still) == _largest_rhat(coarse) < 1.1
    moved = rate + xr.DataArray(np.arange(rate.sizes["chain"]), dims="chain")
    apart["posterior"] = xr.DataTree(still["posterior"].to_dataset().assign(rate=moved))
    assert _largest_rhat(apart) > 1.1


@pytest.mark.thorough
def test_the_halves_of_a_single_chain_are_compared(coarse):
    first = coarse["posterior"].to_dataset().isel(chain=[0])
    ordered = first.isel(draw=np.argsort(first["rate"].values[0]))
    assert _largest_rhat(xr.DataTree.from_dict({"posterior": first})) < 1.1
    assert _largest_rhat(xr.DataTree.from_dict({"posterior": ordered})) > 1.1


def with_noise(whole, scale):
    return bd.Model(whole.layer, bd.NormalNoise(scale))


class Both(AbstractLayer):
    """Two layers in one, with a root finder beside them."""

    layers: list
    finder: optimistix.Newton
    forcings = ()
    units = {}  # noqa: RUF012

    @property
    def outputs(self):
        return ("y",)

    def __call__(self, inputs):
        return self.layers[0](inputs)


def test_every_tolerance_is_tightened_however_deep():
    inner = bd.ODE(
        Decay(rate=dist.LogNormal(0.0, 1.0)), {"y": 1.0}, rtol=1e-3, atol=1e-5, max_steps=7
    )
    stiff = bd.ODE(Decay(rate=1.0), {"y": dist.Normal(0.0, 1.0)}, rtol=1e-12, solver="kvaerno5")
    before = bd.Model(
        Both([inner, stiff], optimistix.Newton(rtol=1e-4, atol=1e-7)), bd.NormalNoise(1.0)
    )
    after = tightened(before, 100.0)
    first, second = after.layer.layers
    assert (first.rtol, first.atol, first.max_steps) == pytest.approx((1e-5, 1e-7, 70))
    assert second.rtol == 1e-13  # not finer than rounding
    assert second.atol == pytest.approx(1e-8)
    assert (after.layer.finder.rtol, after.layer.finder.atol) == pytest.approx((1e-6, 1e-9))
    assert (inner.rtol, inner.max_steps) == (1e-3, 7)
    assert first.vector_field.rate is inner.vector_field.rate
    assert tightened(inner, 100.0).rtol == pytest.approx(1e-5)


class Line(Curve):
    slope: bd.Scalar

    def y(self, times):
        return self.slope * times


@pytest.mark.thorough
def test_what_cannot_be_checked_is_refused(coarse):
    with pytest.raises(ModelError, match="nothing in the model has tolerances"):
        tightened(bd.Model(Line(slope=dist.Normal(0.0, 1.0)), bd.NormalNoise(1.0)))
    with pytest.raises(MismatchError, match="belongs to another model"):
        check_solver(bd.Model(Line(slope=dist.Normal(0.0, 1.0)), bd.NormalNoise(1.0)), coarse)
    for wrong in ({"draws": 0}, {"factor": 1.0}, {"factor": np.inf}):
        with pytest.raises(ModelError, match="draws must be at least 25 and factor more than 1"):
            check_solver(loose(1e-2), coarse, **wrong)


def test_a_standard_deviation_that_changes_is_a_shift_too(unchecked):
    """Weights that leave the mean where it is, and narrow the draws by half."""
    draws = np.linspace(-3.0, 3.0, 601)
    values = norm(scale=1.0).pdf(draws)
    weights = Weights(np.arange(draws.size), values / values.sum(), 0.0)
    post = xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"rate": (("chain", "draw"), draws[None])})}
    )
    found = _largest_shift(post, SimpleNamespace(index=np.arange(draws.size), weights=weights))
    narrowed = np.sqrt(np.sum(weights.values * draws**2))
    assert (
        found["largest_shift_sd"] == pytest.approx(1 - narrowed / draws.std())
        and found["parameter"] == "rate"
    )
    assert found["largest_shift_sd"] > 0.4
