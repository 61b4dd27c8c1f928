"""The metric of NUTS: a linear map, its inverse and transpose, and its estimate from draws and
gradients.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import Journal, ProgressBar, metric as _metric, pose
from bayes_dasl.inference.nuts.chains import Chains, Kernel, first_state
from bayes_dasl.inference.nuts.warmup import WarmUp
from bayes_dasl.inference.reparametrisations.reparametrisation import Identity
from bayes_dasl.inference.starts import laplace_metric


class Still(eqx.Module):
    def __call__(self, t, y, u):
        return {"many": 0.0 * y["many"]}


def posed(size):
    """A problem of so many unknown numbers."""
    state = {"many": dist.Normal(jnp.zeros(size), 1.0).to_event(1)}
    layer = bd.ODE(Still(), state, observe=lambda t, y, u: {"s": y["many"].sum()})
    data = xr.Dataset({"s": ("time", [0.0, 1.0])}, {"time": [0.0, 1.0]})
    return pose(bd.Model(layer, bd.NormalNoise(scale=1.0)), data)


def laplace(problem, precision):
    """The metric of a mode of a problem, as engines ask for it."""
    return laplace_metric(
        precision, problem.of_groups("science", "latent"), problem.of_groups("science")
    )


def covariance_of(rng, size):
    root = rng.normal(size=(size, size)) / np.sqrt(size) + np.diag(np.exp(rng.normal(size=size)))
    return root @ root.T


@pytest.fixture(params=["dense", "block and low rank", "low rank"])
def metric(request):
    rng = np.random.default_rng(3)
    block = {"dense": 7, "block and low rank": 3, "low rank": 0}[request.param]
    order = rng.permutation(7)
    vectors = np.linalg.qr(rng.normal(size=(7 - block, min(2, 7 - block))))[0]
    factor = np.linalg.cholesky(covariance_of(rng, block)) if block else np.zeros((0, 0))
    return _metric.Metric(
        tuple(map(int, order[:block])),
        tuple(map(int, order[block:])),
        jnp.asarray(factor),
        jnp.exp(rng.normal(size=7 - block)),
        jnp.asarray(vectors),
        jnp.exp(rng.normal(size=vectors.shape[1])),
    )


@pytest.mark.thorough("dense", "block and low rank")
def test_the_maps_are_inverse_and_transposed(metric):
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(2, 7)))
    np.testing.assert_allclose(metric.position(metric.whitened(x)), x, rtol=1e-10)
    np.testing.assert_allclose(metric.gradient(metric.whitened_gradient(x)), x, rtol=1e-10)
    # Aᵀ is the transpose of A: <A x, y> = <x, Aᵀ y>.
    assert float(metric.position(x) @ y) == pytest.approx(
        float(x @ metric.whitened_gradient(y)), rel=1e-10
    )


@pytest.mark.thorough("block and low rank")
def test_gradients_follow_the_chain_rule(metric):
    x = jnp.arange(1.0, 8.0)
    density = lambda x: -jnp.sum(jnp.cosh(x / 3))  # noqa: E731
    by_whitened = jax.grad(lambda z: density(metric.position(z)))(metric.whitened(x))
    np.testing.assert_allclose(
        metric.whitened_gradient(jax.grad(density)(x)), by_whitened, rtol=1e-9
    )


def dense(covariance):
    """The metric in which a normal of this covariance is a unit normal."""
    unit = laplace(posed(len(covariance)), np.eye(len(covariance)))
    return eqx.tree_at(lambda m: m.factor, unit, jnp.asarray(np.linalg.cholesky(covariance)))


@pytest.mark.thorough
def test_a_normal_is_whitened_from_few_draws():
    """Draws and gradients of a normal with 12 dimensions and scales from 1e-2 to 1e2; chains apart
    do not widen it.
    """
    rng = np.random.default_rng(1)
    covariance = covariance_of(rng, 12) * np.outer(s := np.logspace(-2, 2, 12), s)
    draws = rng.multivariate_normal(np.zeros(12), covariance, size=(4, 100), method="cholesky")
    gradients = -np.linalg.solve(covariance, draws[..., None])[..., 0]
    draws = draws + np.array([0.0, 50.0, -50.0, 9.0])[:, None, None]
    exact, start = dense(covariance), dense(np.diag(np.diag(covariance)))
    first = _metric.refine(start, draws, gradients)
    before, after = start.differs_from(exact), first.differs_from(exact)
    assert after < 1.5 < 50 < before
    # Refined again, as after each window of a warm-up, it leaves behind what was worth a few draws.
    # The covariance of as many draws alone would be far further off.
    sample = dense(
        np.cov(rng.multivariate_normal(np.zeros(12), covariance, size=400, method="cholesky").T)
    )
    assert (
        _metric.refine(first, draws, gradients).differs_from(exact)
        < 1.01
        < 1.2
        < sample.differs_from(exact)
    )


@pytest.mark.thorough
def test_the_laplace_metric_is_the_inverse_of_the_curvature():
    precision = np.linalg.inv(covariance_of(np.random.default_rng(2), 5))
    metric = laplace(posed(5), precision)
    columns = jax.vmap(metric.position)(jnp.eye(5))
    np.testing.assert_allclose(columns.T @ columns, np.linalg.inv(precision), rtol=1e-8)
    assert metric.differs_from(metric) == pytest.approx(1.0)


@pytest.mark.thorough
def test_directions_of_no_curvature_are_long_and_no_longer():
    metric = laplace(posed(4), np.diag([4.0, 0.0, -1.0, 1e-9]))
    np.testing.assert_allclose(np.diag(metric.factor), [0.5, 10.0, 1.0, 10.0])


@pytest.mark.slow
def test_many_dimensions_are_low_rank():
    """A strong correlation of two of 160 coordinates is found; of the science,
    128 are still dense.
    """
    rng = np.random.default_rng(4)
    covariance = np.diag(np.logspace(-1, 1, 160))
    covariance[0, 1] = covariance[1, 0] = 0.99 * np.sqrt(covariance[0, 0] * covariance[1, 1])
    draws = rng.multivariate_normal(np.zeros(160), covariance, size=(4, 100), method="cholesky")
    gradients = -np.linalg.solve(covariance, draws[..., None])[..., 0]
    start = laplace(posed(160), np.eye(160))
    assert start.rest == tuple(range(160))
    assert laplace(posed(128), np.eye(128)).rest == ()
    metric = _metric.refine(start, draws, gradients)
    spread = np.asarray(jax.vmap(metric.whitened)(draws.reshape(-1, 160)))
    assert abs(np.corrcoef(spread[:, 0], spread[:, 1])[0, 1]) < 0.2
    assert 0.5 < spread.std(0).min() < spread.std(0).max() < 2.0


@pytest.mark.thorough
@pytest.mark.parametrize("stiffest", [1e8, 1e16])
def test_a_mode_of_any_condition_has_a_metric(stiffest):
    """A datum of known noise beside a direction that only the prior constrains."""
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    curvature = np.array([stiffest, 1e2, 1.0, 1e-1])
    metric = laplace(posed(4), (rotation * curvature) @ rotation.T)
    factor = np.asarray(metric.factor)
    assert np.isfinite(factor).all() and (np.diag(factor) > 0).all()
    if stiffest < 1e10:  # beyond, the curvature itself is lost in rounding
        widths = np.linalg.svd(factor, compute_uv=False)
        np.testing.assert_allclose(widths, np.sqrt(1 / curvature[::-1]), rtol=1e-3)


@pytest.mark.parametrize("size", [1, 5])
def test_a_lower_factor_is_that_of_cholesky(size):
    root = np.random.default_rng(size).normal(size=(size, size + 2))
    np.testing.assert_allclose(
        _metric.lower_factor(root), np.linalg.cholesky(root @ root.T), rtol=1e-8
    )


@pytest.mark.thorough("40-41-0", "100-101-0", "127-128-0")
@pytest.mark.parametrize(
    ("knots", "dense", "rest"), [(40, 41, 0), (100, 101, 0), (127, 128, 0), (128, 1, 128)]
)
def test_latent_states_are_dense_while_they_are_few(knots, dense, rest):
    """Beside the initial value, one state of a single name at each knot."""
    ode = bd.ODE(lambda t, y, u: {"y": -y["y"]}, {"y": dist.Normal(1.0, 1.0)})
    times = np.arange(knots + 1.0)
    segments = {"y": dist.Normal(jnp.zeros(knots), 1.0)}
    layer = bd.equations.MultipleShooting(ode, times[1:], segments, 0.1)
    data = xr.Dataset({"y": ("time", np.ones(knots + 1))}, {"time": times})
    problem = pose(bd.Model(layer, bd.NormalNoise(1.0)), data)
    metric = laplace(problem, np.eye(problem.dimension))
    assert (len(metric.block), len(metric.rest)) == (dense, rest)


# ---- adaptation in the warm-up


def unit(size):
    """The metric that knows nothing: dense, of standard normals."""
    nothing = jnp.zeros(0)
    return _metric.Metric(
        tuple(range(size)), (), jnp.eye(size), nothing, jnp.zeros((0, 0)), nothing
    )


class DrawsOfANormal(Chains):
    """Chains that have no need of a sampler: independent draws, whatever the metric."""

    def __init__(self, sd):
        self._sd, self._rng = np.asarray(sd), np.random.default_rng(0)

    def chunk(self, state, begin, number, adapting, metric, frame):
        x = self._sd * self._rng.normal(size=(len(state["lp"]), number, self._sd.size))
        numbers = {
            "lp": -0.5 * ((x / self._sd) ** 2).sum(-1),
            "n_steps": np.ones(x.shape[:2]),
            "seconds": np.zeros(()),
        }
        return state, {"position": x, "gradient": -x / self._sd**2} | numbers


def test_the_warm_up_ends_in_the_metric_of_its_draws():
    sd = [0.01, 1.0, 30.0]
    place, number = np.zeros((4, 3)), np.zeros(4)
    warm_up = WarmUp(200, DrawsOfANormal(sd), Journal(), ProgressBar(False), (0, 1, 2))
    found = warm_up.run(first_state(place, number, place), unit(3), Identity())
    factor = np.asarray(found.metric.factor)
    np.testing.assert_allclose(np.sqrt(np.diag(factor @ factor.T)), sd, rtol=0.2)


class Unfitted:
    """Fits the identity, whatever the draws."""

    kind, evaluated_anew = "plain", False

    def __init__(self, ends_early):
        self.ends_early = ends_early

    like = Identity()

    def from_draws(self, positions, gradients):
        return {}

    def restored(self, arrays):
        return Identity()


@pytest.mark.parametrize(("ends_early", "wanted"), [(True, 250), (False, 450)])
def test_the_warm_up_ends_early_if_the_reparametrisation_may(ends_early, wanted):
    place = np.zeros((4, 3))
    unknown = (0, 1, 2), Unfitted(ends_early)
    warm_up = WarmUp(None, DrawsOfANormal(np.ones(3)), Journal(), ProgressBar(False), *unknown)
    found = warm_up.run(first_state(place, np.zeros(4), place), unit(3), Identity())
    assert (found.draws, found.settled) == (wanted, True)


def test_a_step_size_is_found_in_which_most_proposals_are_taken():
    """From a first step of fifty standard deviations, at which hardly any are."""
    sd, metric = 0.01, unit(2)
    kernel = Kernel(
        lambda x: -0.5 * jnp.sum((x / sd) ** 2), target_acceptance=0.8, max_tree_depth=6
    )
    chains = Chains(kernel, 2, metric, Identity(), 2, key=jax.random.key(0))
    try:
        state = first_state(np.zeros((2, 2)), np.zeros(2), np.zeros((2, 2)))
        state, adapting = chains.chunk(state, 0, 200, True, metric, Identity())
        _, drawn = chains.chunk(state, 200, 200, False, metric, Identity())
    finally:
        chains.close()
    assert (adapting["step_size"][:, 0] == 0.5).all()
    assert (np.ptp(drawn["step_size"], axis=1) == 0).all()
    assert ((drawn["step_size"] > 0.2 * sd) & (drawn["step_size"] < 2 * sd)).all()
    np.testing.assert_allclose(drawn["acceptance_rate"].mean(axis=1), 0.8, atol=0.15)
