"""Tempered particles against closed forms and quadrature: draws, evidence, the weights of two
modes.
"""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from curves import Curve
from known_problems import Conjugate, Known, correlated
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm
from seldom import seldom

import bayes_dasl as bd
from bayes_dasl.engines import SMC
from bayes_dasl.engines.smc import tempering as _tempering
from bayes_dasl.engines.smc.modes import modes_among
from bayes_dasl.engines.smc.smc import effective_share
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import Journal, ProgressBar

CONJUGATE = Conjugate(
    y=[1.0, -0.5, 2.0], prior_mean=[0.0, 0.5, 1.0], prior_covariance=correlated(3, 0.9), noise=0.3
)


def run(problem, engine, *, key=0, journal=None):
    return engine.run(
        problem, key=jax.random.key(key), journal=journal or Journal(), bar=ProgressBar(False)
    )


def over_runs(values):
    """Mean over independent runs and its standard error; `values` is `(run, …)`."""
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


ENGINES = {moves: SMC(particles=500, runs=8, moves=moves) for moves in ("walk", "hamiltonian")}


@pytest.fixture(scope="module")
def conjugate(tmp_path_factory):
    """Particles of the conjugate posterior and the folder of their journal, by how they move."""

    @functools.cache
    def drawn(moves):
        folder = tmp_path_factory.mktemp(moves) / "run"
        return run(CONJUGATE.problem, ENGINES[moves], journal=Journal(folder)), folder

    return drawn


@pytest.mark.thorough("hamiltonian")
@pytest.mark.parametrize("moves", ENGINES)
def test_a_conjugate_posterior_and_its_evidence(moves, conjugate):
    samples, _ = conjugate(moves)
    assert samples.positions.shape == (8, 500, 3)
    mean, error = over_runs(samples.positions.mean(1))
    assert (abs(mean - CONJUGATE.mean) < 4 * error).all()
    sd, error = over_runs(samples.positions.std(1))
    assert (abs(sd - CONJUGATE.sd) < 4 * error).all()
    assert (abs(sd - 1.2 * CONJUGATE.sd) > 4 * error).all()
    evidence, error = samples.facts["log_evidence"], samples.facts["log_evidence_se"]
    assert abs(evidence - CONJUGATE.log_evidence) < 4 * error < 0.5
    other = Conjugate([1.0, -0.5, 2.0], [0.0, 0.5, 1.0], correlated(3, 0.9), noise=0.3 * 1.2)
    assert abs(evidence - other.log_evidence) > 4 * error
    lp = jax.vmap(jax.vmap(CONJUGATE.problem.log_density))(samples.positions)
    np.testing.assert_allclose(samples.stats["lp"], lp, rtol=1e-9)
    assert samples.facts["effective_share"] > 0.7


def two_modes():
    """y = a² + noise, with an asymmetric prior of a: weights of the signs and log evidence by
    quadrature.
    """

    def density(a):
        return norm(0.5, 1.0).pdf(a) * norm(a**2, 0.2).pdf([2.0, 2.2, 1.9]).prod()

    below, above = (
        quad(density, *sorted((0.0, side)), points=[side / 3])[0] for side in (-4.5, 4.5)
    )
    return above / (above + below), np.log(above + below)


@pytest.mark.thorough
@pytest.mark.parametrize("moves", seldom(["walk", "hamiltonian"], "hamiltonian"))
def test_two_modes_get_their_weights(moves):
    y = jnp.array([2.0, 2.2, 1.9])
    problem = Known(lambda a: jax.scipy.stats.norm.logpdf(y, a[0] ** 2, 0.2).sum(), [0.5], [[1.0]])
    samples = run(problem, SMC(particles=500, runs=8, moves=moves))
    exact, log_evidence = two_modes()
    assert 0.6 < exact < 0.9
    weight, error = over_runs((samples.positions[..., 0] > 0).mean(1))
    assert abs(weight - exact) < 4 * error < 0.1
    assert abs(weight - 0.5) > 4 * error
    assert abs(samples.facts["log_evidence"] - log_evidence) < 4 * samples.facts["log_evidence_se"]
    above = int(samples.modes.positions[:, 0].argmax())
    assert abs(samples.modes.weights[above] - exact) < 4 * samples.modes.weight_errors[above]
    # Particles stay in their modes, which is no fault of the moves.
    assert samples.facts["effective_share"] > 0.5 and samples.facts["modes"] == 2
    assert not [f for f in samples.findings if f.subject == "moves of the particles"]


def mixed(dimension, share, distance, seed=0):
    """Normal particles `(run, particle, dimension)`, a share of which is elsewhere along the first
    coordinate.
    """
    rng = np.random.default_rng(seed)
    position = rng.normal(size=(4, 500, dimension))
    position[..., 0] += distance * (rng.uniform(size=(4, 500)) < share)
    return position


@pytest.mark.parametrize("dimension", [1, 3, 30])
def test_modes_are_found_among_particles(dimension):
    position = mixed(dimension, 0.3, 12.0)
    modes, number = modes_among(
        position, -np.minimum(position[..., 0] ** 2, 1 + (position[..., 0] - 12) ** 2)
    )
    np.testing.assert_array_equal(number, position[..., 0] > 6)
    shares = (position[..., 0] > 6).mean(axis=1)
    np.testing.assert_allclose(modes.weights, [1 - shares.mean(), shares.mean()])
    np.testing.assert_allclose(modes.weight_errors, shares.std(ddof=1) / 2)
    np.testing.assert_allclose(modes.positions[:, 0], [0.0, 12.0], atol=0.1)
    assert modes.log_densities[0] > modes.log_densities[1]


def test_modes_that_no_coordinate_parts_are_found():
    """Two rings, one inside the other."""
    rng = np.random.default_rng(0)
    angle, inner = rng.uniform(0, 2 * np.pi, (4, 500)), rng.uniform(size=(4, 500)) < 0.4
    radius = np.where(inner, 1.0, 3.0) + 0.05 * rng.normal(size=(4, 500))
    modes, number = modes_among(
        np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1), -radius
    )
    np.testing.assert_array_equal(number, inner)
    assert modes.weights[1] == pytest.approx(inner.mean())


@pytest.mark.parametrize(
    "position",
    [
        *(mixed(dimension, 0.0, 0.0, seed) for dimension in (1, 8) for seed in range(5)),
        mixed(2, 0.002, 50.0),  # outliers
        np.exp(3 * mixed(2, 0.0, 0.0)),
        np.repeat(
            mixed(3, 0.0, 0.0)[:, :50], 10, axis=1
        ),  # particles that were resampled and not moved
    ],
)
def test_one_mode_is_not_parted(position):
    modes, number = modes_among(position, -(position**2).sum(-1))
    assert not number.any()
    np.testing.assert_array_equal(modes.weights, [1.0])


@pytest.mark.parametrize(("modes", "stuck"), [(1, 0), (2, 0), (2, 1)])
def test_particles_that_hardly_move_within_a_mode_are_told(modes, stuck):
    """Four copies each, redrawn in their mode or moved by a tenth of its standard deviation: in all
    modes, or in one.

    That one is a hundredth as wide as the other, and holds a quarter of the particles: all together
    hide it.
    """
    rng, scales = np.random.default_rng(1), np.array([1.0, 0.01])
    number = (rng.uniform(size=(4, 125)) < 0.25).astype(int) * (modes - 1)
    number = np.repeat(number, 4, axis=1)
    copies = np.repeat(rng.normal(size=(4, 125, 2)), 4, axis=1) + 0.1 * rng.normal(size=(4, 500, 2))
    redrawn = rng.normal(size=(4, 500, 2))

    def told(standard):
        return effective_share(
            30.0 * number[..., None] + scales[number][..., None] * standard, number
        )

    assert told(redrawn) > 0.7
    assert told(np.where((number == stuck)[..., None], copies, redrawn)) < 0.35


@pytest.mark.thorough
@pytest.mark.parametrize(("most_moves", "sound"), [(2, False), (20, True)])
def test_a_narrow_mode_that_moves_do_not_fill_is_told(most_moves, sound):
    """Moves are fitted to both modes together: two of them leave copies in place."""
    means, scales = jnp.array([[-6.0, 0.0], [6.0, 3.0]]), jnp.array([0.6, 0.2])

    def two(x):
        each = jax.scipy.stats.norm.logpdf(x, means, scales[:, None]).sum(1)
        return jax.scipy.special.logsumexp(each)

    samples = run(
        Known(two, [0.0, 0.0], 36.0 * np.eye(2)),
        SMC(particles=500, runs=4, moves="walk", most_moves=most_moves),
    )
    narrow = samples.positions[..., 0] > 0
    if sound:
        assert abs(samples.positions[narrow].mean(0) - means[1]).max() < 4 * 0.2 / np.sqrt(
            narrow.sum() / 2
        )
    told = [f.message for f in samples.findings if f.subject == "moves of the particles"]
    assert bool(told) is not sound and all(
        "particles of a mode are worth only" in one for one in told
    )


@pytest.mark.thorough
def test_particles_where_the_solver_fails_have_no_weight():
    """A normal cut at 1: three of twenty live, and the evidence is their share."""

    def upper(x):
        return jnp.where(x[0] > 1.0, 0.0, -jnp.inf)

    samples = run(Known(upper, [0.0], [[1.0]]), SMC(particles=1000, runs=4))
    assert samples.positions.min() > 1.0
    assert (
        abs(samples.facts["log_evidence"] - norm.logsf(1.0)) < 4 * samples.facts["log_evidence_se"]
    )
    mean, error = over_runs(samples.positions[..., 0].mean(1))
    assert abs(mean - norm.pdf(1.0) / norm.sf(1.0)) < 4 * error


def test_too_few_live_particles_are_refused():
    nowhere = Known(lambda x: jnp.where(x[0] > 50.0, 0.0, -jnp.inf), [0.0], [[1.0]])
    with pytest.raises(ModelError, match=r"only 0 of 100 prior draws .* bd\.check"):
        run(nowhere, SMC(particles=100, runs=2))


def test_the_increment_meets_the_effective_sample_size():
    log_likelihood = -50.0 * jnp.asarray(np.random.default_rng(0).chisquare(3, size=1000))
    log_likelihood = log_likelihood.at[:200].set(-jnp.inf)
    increment = _tempering.next_increment(log_likelihood, 1.0, 0.5)
    weight = np.exp(np.asarray(increment * log_likelihood[200:]))
    assert weight.sum() ** 2 / (weight**2).sum() == pytest.approx(0.5 * 800, rel=1e-3)
    assert _tempering.next_increment(1e-3 * log_likelihood, 0.25, 0.5) == 0.25


@pytest.mark.thorough
def test_the_metric_is_the_weighted_covariance():
    rng = np.random.default_rng(0)
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    position = jnp.asarray(
        rng.multivariate_normal([3.0, -2.0], covariance, size=20_000, method="cholesky")
    )
    even = jnp.full(20_000, 1 / 20_000)
    np.testing.assert_allclose(_tempering.weighted_metric(position, even), covariance, rtol=0.05)
    # Weights that tilt a normal move it and leave its covariance.
    tilted = jax.nn.softmax(0.5 * position[:, 0])
    np.testing.assert_allclose(_tempering.weighted_metric(position, tilted), covariance, rtol=0.1)
    many = jnp.asarray(rng.normal(size=(100, 70)))
    assert _tempering.weighted_metric(many, jnp.full(100, 0.01)).shape == (70,)
    few = _tempering.weighted_metric(position[:2], jnp.array([0.5, 0.5]))
    assert np.linalg.eigvalsh(few).min() > 0


@pytest.mark.thorough
def test_a_run_taken_up_again_gives_the_same_particles(conjugate, tmp_path):
    whole, folder = conjugate("hamiltonian")
    left = shutil.copytree(folder, tmp_path / "left")
    steps = sorted(left.glob("*.step"))
    assert len(steps) >= 4
    for path in steps[len(steps) // 2 :]:
        path.unlink()
    again = run(CONJUGATE.problem, ENGINES["hamiltonian"], journal=Journal(left))
    np.testing.assert_array_equal(whole.positions, again.positions)
    assert whole.facts == again.facts
    assert not np.array_equal(
        whole.positions, run(CONJUGATE.problem, ENGINES["hamiltonian"], key=1).positions
    )


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"particles": 5}, "particles must be a whole number, at least 10"),
        ({"runs": 0}, "runs must be a whole number, at least 1"),
        ({"moves": "nuts"}, "moves must be one of auto, walk, hamiltonian"),
        ({"most_moves": 1}, "most_moves must be a whole number, at least 2"),
        ({"target_ess": 1.0}, "target_ess must lie between 0 and 1"),
    ],
)
def test_bad_arguments_are_refused(bad, words):
    with pytest.raises(ModelError, match=words):
        SMC(**bad)


class Level(Curve):
    """A state that does not move."""

    level: bd.Scalar

    def y(self, times):
        return self.level + 0.0 * times


@pytest.mark.slow
def test_a_constant_state_seen_with_known_noise():
    """Through the model and the DataTree."""
    y = 2.0 + 0.5 * np.random.default_rng(0).normal(size=12)
    data = xr.Dataset({"y": ("time", y)}, {"time": np.arange(12.0)})
    model = bd.Model(Level(dist.Normal(0.0, 3.0)), bd.NormalNoise(scale=0.5))
    post = bd.fit(model, data, SMC(particles=200, runs=6), key=1)
    precision = 1 / 3.0**2 + 12 / 0.5**2
    draws = post["posterior"]["level"].values
    mean, error = over_runs(draws.mean(1))
    assert abs(mean - y.sum() / 0.5**2 / precision) < 4 * error
    sd, error = over_runs(draws.std(1))
    assert abs(sd - precision**-0.5) < 4 * error
    marginal = multivariate_normal(np.zeros(12), 0.5**2 * np.eye(12) + 3.0**2).logpdf(y)
    assert abs(post.attrs["log_evidence"] - marginal) < 4 * post.attrs["log_evidence_se"]


@pytest.mark.slow
def test_log_likelihoods_over_many_powers_of_ten():
    """The first increment of the temperature is far below what halving from one can reach."""
    # A normal prior, and a likelihood so narrow that prior draws see a log likelihood of -1e40 and
    # more.
    known = Known(
        lambda x: -0.5 * jnp.sum((x - 1.0) ** 2) * jnp.exp(100.0 * jnp.tanh(jnp.abs(x[0] - 1.0))),
        [0.0],
        [[1.0]],
    )
    samples = run(known, SMC(particles=200, runs=2))
    x = samples.positions
    assert np.isfinite(x).all() and np.isfinite(samples.facts["log_evidence"])
    grid = jnp.linspace(0.0, 2.0, 20001)
    lp = np.asarray(jax.vmap(known.log_density)(grid[:, None]))
    mass = np.exp(lp - lp.max()) / np.exp(lp - lp.max()).sum()
    mean = mass @ np.asarray(grid)
    sd = np.sqrt(mass @ (np.asarray(grid) - mean) ** 2)
    assert abs(x.mean() - mean) < 4 * sd / np.sqrt(100)
    assert abs(x.std() / sd - 1) < 0.3
