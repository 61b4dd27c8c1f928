"""Shared and dependent numbers with every engine, in updates and files, and shared networks in
conditional coordinates.

Of a hierarchy of lines the posterior is known: a sum over a grid, given whose two numbers all
others are normal.
"""

import dataclasses
from typing import Any

import arviz_stats as azs
import equinox as eqx
import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats
from scipy.optimize import minimize
from scipy.special import ndtri, softmax
from seldom import seldom

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError
from bayes_dasl.inference import AbstractEngine, Samples, pose
from bayes_dasl.inference.gradient import traced_once
from bayes_dasl.inference.reparametrisations.reference import references_of
from bayes_dasl.random import paths

LINES = ("a", "b", "c")
ALL = ["levels.middle", "levels.spread", "levels", "slope.loc", "slope"]


class Lines(bd.Module):
    """Lines of one slope, whose levels are alike."""

    levels: Any
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {name: self.levels[i] + self.slope * t for i, name in enumerate(LINES)}


def around(middle, spread):
    return dist.Normal(middle, spread).expand((3,)).to_event(1)


def lines(noise=lambda slope: slope):
    """The slope, whose prior depends on another number, is the scale of the noise of each line as
    well.
    """
    slope = bd.shared(bd.dependent(dist.LogNormal, dist.Normal(0.0, 0.5), 0.3), "slope")
    levels = bd.dependent(around, dist.Normal(0.0, 2.0), dist.LogNormal(-0.5, 0.4))
    return bd.Model(
        bd.Algebraic(Lines(levels, slope)), {name: bd.NormalNoise(noise(slope)) for name in LINES}
    )


def seen(times, seed=0, above=0.0):
    times, noise = (
        np.asarray(times, float),
        np.random.default_rng(seed).normal(size=(3, len(times))),
    )
    y = np.array([[0.3], [1.2], [2.0]]) + 0.5 * (times + noise) + above
    return xr.Dataset(
        {name: ("time", values) for name, values in zip(LINES, y, strict=True)}, {"time": times}
    )


DATA = seen(np.arange(5.0))


@dataclasses.dataclass(frozen=True)
class Grid:
    """The posterior of the lines: weights of pairs of a slope and a spread, and of each pair the
    normal of the rest.
    """

    slope: np.ndarray
    spread: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray

    LOC = 0.5**2 / (0.5**2 + 0.3**2), 0.5**2 * 0.3**2 / (0.5**2 + 0.3**2)
    """Of the location given the slope: the mean as a share of the slope's logarithm, and the
    variance.
    """

    @property
    def moments(self):
        """Mean and variance of each number by name."""
        share, variance = self.LOC
        given = {
            "slope": (self.slope, 0.0),
            "slope.loc": (share * np.log(self.slope), variance),
            "levels.spread": (self.spread, 0.0),
            "levels.middle": (self.mean[:, 3], self.covariance[:, 3, 3]),
            "levels": (self.mean[:, :3], np.einsum("gii->gi", self.covariance)[:, :3]),
        }
        means = {name: self.weight @ mean for name, (mean, _) in given.items()}
        seconds = {
            name: self.weight @ (variance + mean**2) for name, (mean, variance) in given.items()
        }
        return {name: (means[name], seconds[name] - means[name] ** 2) for name in given}

    def draws(self, number, rng):
        at = rng.choice(self.weight.size, size=number, p=self.weight)
        away = np.linalg.cholesky(self.covariance[at]) @ rng.normal(size=(number, 4, 1))
        rest = self.mean[at] + away[..., 0]
        share, variance = self.LOC
        loc = share * np.log(self.slope[at]) + np.sqrt(variance) * rng.normal(size=number)
        prefix = "layer.function.levels"
        values = {"slope": self.slope[at], "slope.loc": loc, f"{prefix}.spread": self.spread[at]}
        return values | {f"{prefix}.middle": rest[:, 3], prefix: rest[:, :3]}


def solved(times, y):
    """The posterior given data `(line, time)`."""
    logs = np.linspace(-2.5, 1.5, 161), np.linspace(-2.5, 1.5, 121)
    log_slope, log_spread = (g.ravel() for g in np.meshgrid(*logs, indexing="ij"))
    slope, spread, number = np.exp(log_slope), np.exp(log_spread), times.size
    above = y - slope[:, None, None] * times
    middle = above.mean(-1)
    within = ((above - middle[..., None]) ** 2).sum((1, 2))
    prior = np.full((slope.size, 4, 4), 2.0**2)  # of the levels and what they lie around
    prior[:, range(3), range(3)] += spread[:, None] ** 2
    of_means = prior[:, :3, :3] + np.eye(3) * slope[:, None, None] ** 2 / number
    gain = prior[:, :, :3] @ np.linalg.inv(of_means)
    mean = np.einsum("gij,gj->gi", gain, middle)
    log_weight = (
        -0.5 * within / slope**2
        - 3 * (number - 1) * log_slope
        - 0.5 * np.linalg.slogdet(of_means)[1]
    )
    log_weight -= 0.5 * np.einsum(
        "gi,gi->g", middle, np.linalg.solve(of_means, middle[..., None])[..., 0]
    )
    log_weight += stats.norm(0.0, np.hypot(0.5, 0.3)).logpdf(log_slope) + stats.norm(
        -0.5, 0.4
    ).logpdf(log_spread)
    weight = softmax(log_weight)
    of_pairs = weight.reshape(161, 121)
    assert (
        max(edge.sum() for edge in (of_pairs[0], of_pairs[-1], of_pairs[:, 0], of_pairs[:, -1]))
        < 1e-6
    )
    return Grid(slope, spread, weight, mean, prior - gain @ prior[:, :3, :])


def posterior(data):
    return solved(data["time"].values, np.stack([data[name].values for name in LINES]))


TRUTH = posterior(DATA)


@dataclasses.dataclass(frozen=True)
class Exact(AbstractEngine):
    """Independent draws from the grid, of whatever data the problem holds."""

    draws: int = 1000

    def run(self, problem, *, key, journal, bar):
        y = np.stack([np.asarray(problem.observed[name]) for name in LINES])
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        values = solved(np.asarray(problem.inputs.times), y).draws(self.draws, rng)
        x = np.asarray(jax.jit(jax.vmap(problem.unconstrain))(values))
        lp = np.asarray(jax.jit(jax.vmap(problem.log_density))(x))
        return Samples(x[None], {"lp": lp[None]}, markov=False)


def values_of(post):
    return {str(name): v.values for name, v in post["posterior"].data_vars.items()}


def log_density(values, data):
    """That of the model, each number measured from its location in scales, and a positive one by
    its logarithm.
    """
    slope, levels, loc = (values[name] for name in ("slope", "levels", "slope.loc"))
    middle, spread = values["levels.middle"], values["levels.spread"]
    found = stats.norm(0.0, 0.5).logpdf(loc) + stats.norm.logpdf((np.log(slope) - loc) / 0.3)
    found += stats.norm(0.0, 2.0).logpdf(middle) + stats.norm(-0.5, 0.4).logpdf(np.log(spread))
    found += stats.norm.logpdf((levels - middle[..., None]) / spread[..., None]).sum(-1)
    for i, name in enumerate(LINES):
        mean = levels[..., i, None] + slope[..., None] * data["time"].values
        found += stats.norm(mean, slope[..., None]).logpdf(data[name].values).sum(-1)
    return found


def assert_one_number(model, post, data):
    """One number stands in the lines, in their noise, in the density of each draw and in the
    forecast.
    """
    assert list(post["posterior"].data_vars) == ALL
    values = values_of(post)
    assert all(np.isfinite(v).all() for v in values.values())
    assert (values["slope"] > 0).all() and (values["levels.spread"] > 0).all()
    places = bd.evaluate(
        model,
        post,
        lambda m: {"line": m.layer.function.slope} | {n: m.noise[n].scale for n in LINES},
    )
    for place in places.data_vars.values():
        np.testing.assert_array_equal(place, values["slope"])
    np.testing.assert_allclose(post["sample_stats"]["lp"], log_density(values, data), rtol=1e-9)
    fc = bd.forecast(model, post, times := np.arange(8.0), key=1)
    for i, name in enumerate(LINES):
        mean = values["levels"][..., i, None] + values["slope"][..., None] * times
        np.testing.assert_allclose(fc["conditional_mean"][name], mean, rtol=1e-9)
        variance = np.broadcast_to(values["slope"][..., None] ** 2, mean.shape)
        np.testing.assert_allclose(fc["conditional_variance"][name], variance, rtol=1e-9)
        assert np.isfinite(fc["predictions"][name]).all()


def by_effective_size(post, values):
    return np.asarray(azs.mcse(xr.Dataset({"x": (("chain", "draw"), values)}))["x"])


def by_groups(post, values):
    """Of sixteen groups of chains that are independent: of a t so many standard errors as are four
    of a normal.
    """
    means = values.reshape(16, -1).mean(1)
    wider = stats.t.ppf(stats.norm.cdf(4.0), 15) / 4
    return wider * means.std(ddof=1) / np.sqrt(16)


def by_weights(post, values):
    """Of draws that an update resampled."""
    return values.std() * np.sqrt(1 / post.attrs["effective_draws"] + 1 / values.size)


def assert_moments(post, truth, error=by_effective_size):
    """Means and variances are those of the grid within four Monte-Carlo errors."""
    for name, (mean, variance) in truth.moments.items():
        draws = post["posterior"][name].values
        for at in np.ndindex(np.shape(mean)):
            values = draws[:, :, *at]
            for found, expected in ((values, mean[at]), ((values - mean[at]) ** 2, variance[at])):
                assert abs(found.mean() - expected) < 4 * error(post, found), name


CHAINS = {"chains": 64, "warmup": 96, "draws": 16, "superchains": 16}
SAMPLERS = {
    "NUTS": (bd.NUTS(chains=4, draws=250, map_starts=2), by_effective_size),
    "SMC": (bd.engines.SMC(particles=100, runs=16), by_groups),
} | {
    method: (bd.engines.ManyChain(method, **CHAINS), by_groups)
    for method in ("chees", "meads", "mclmc", "unadjusted_mclmc")
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", seldom(SAMPLERS, "meads", "mclmc"))
def test_samplers_draw_the_posterior(name):
    engine, error = SAMPLERS[name]
    post = bd.fit(lines(), DATA, engine, key=0)
    assert_one_number(lines(), post, DATA)
    assert_moments(post, TRUTH, error)
    if name == "NUTS":
        assert post.attrs["sampled_in"] == "partly centred coordinates"
        # Given three more data the posterior is elsewhere, and the test sees it.
        with pytest.raises(AssertionError):
            assert_moments(post, posterior(both(DATA, LATER)), error)


SHORT = bd.Descent(steps=1500)
# Means may be so many standard deviations off: weights with a k-hat below 0.7 mend most of what a
# guide lacks, and the mode lies within one of the mean.
APPROXIMATE = {
    "SVI": (bd.engines.SVI(chains=1, draws=500), 0.25),
    "Laplace": (bd.engines.Laplace(draws=400, descent=SHORT), 1.0),
    "SWAG": (
        bd.engines.SWAG(members=3, draws=400, descent=bd.Descent(steps=600, patience=None)),
        1.0,
    ),
    "DeepEnsemble": (bd.DeepEnsemble(members=30, descent=bd.Descent(steps=600)), 1.0),
    "Joint": (bd.Joint(starts=2, descent=SHORT), 1.0),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", APPROXIMATE)
def test_other_engines_come_near_the_posterior(name):
    engine, most = APPROXIMATE[name]
    post = bd.fit(lines(), DATA, engine, key=0)
    assert_one_number(lines(), post, DATA)
    for number, (mean, variance) in TRUTH.moments.items():
        away = post["posterior"][number].mean(("chain", "draw")) - mean
        assert (np.abs(away) < most * np.sqrt(variance)).all(), number
    best, top = float(post["sample_stats"]["lp"].max()), highest()
    assert best < top + 1e-9
    if name in ("Laplace", "Joint"):
        mode = float(post["modes"]["lp"][0]) if name == "Laplace" else best
        assert mode == pytest.approx(top, abs=1e-3)  # nats: a twentieth of a standard deviation
    assert name != "SVI" or post.attrs["resampled"] == 1


def highest():
    """The highest log density, by SciPy, in coordinates like those of `log_density`."""

    def values(x):
        middle, spread, loc = x[0], np.exp(-0.5 + 0.4 * x[1]), x[2]
        numbers = middle, spread, middle + spread * x[4:], loc, np.exp(loc + 0.3 * x[3])
        return {name: np.asarray(number) for name, number in zip(ALL, numbers, strict=True)}

    return -minimize(lambda x: -log_density(values(x), DATA), np.zeros(7), tol=1e-10).fun


def both(one, other):
    return xr.concat([one, other], "time")


LATER, FAR = seen([5.0], seed=1), seen(np.arange(5.0, 9.0), seed=2, above=3.0)


@pytest.fixture(scope="module")
def exact():
    return bd.fit(lines(), DATA, Exact(), key=0)


@pytest.mark.thorough
def test_independent_draws_are_those_of_the_posterior(exact):
    """The reference agrees with itself by way of a fit."""
    assert_one_number(lines(), exact, DATA)
    assert_moments(exact, TRUTH)


@pytest.mark.thorough
def test_a_posterior_from_a_file_is_updated_by_weights(exact, tmp_path):
    back = bd.load(bd.save(exact, tmp_path / "post.nc"))
    xr.testing.assert_identical(back, exact)
    assert back["posterior"]["slope"].attrs["prior"] == "LogNormal(Normal(0, 0.5), 0.3)"
    updated = bd.update(lines(), back, LATER, engine=Exact(), key=1)
    assert updated.attrs["updated_by"] == "importance weights"
    assert_one_number(lines(), updated, both(DATA, LATER))
    assert_moments(updated, posterior(both(DATA, LATER)), by_weights)
    with pytest.raises(AssertionError):
        assert_moments(updated, TRUTH, by_weights)


@pytest.mark.thorough
def test_new_data_that_are_far_off_are_taken_in_by_a_refit(exact):
    """It begins at the draws there are, and so takes them back to where NUTS moves."""
    updated = bd.update(
        lines(), exact, FAR, engine=bd.NUTS(chains=4, draws=250, map_starts=2), key=1
    )
    assert updated.attrs["updated_by"] == "refit"
    assert_one_number(lines(), updated, both(DATA, FAR))
    assert_moments(updated, posterior(both(DATA, FAR)))


@pytest.mark.thorough
def test_a_number_that_stands_elsewhere_makes_another_model(exact):
    """The random leaves are the same: only the program tells them apart."""
    for other in (lines(lambda slope: 2 * slope), lines(lambda slope: 0.4)):
        assert paths(other).keys() == paths(lines()).keys()
        with pytest.raises(MismatchError, match="another model with the same random leaves"):
            bd.update(other, exact, LATER, engine=Exact())
    own = lines(lambda slope: dist.LogNormal(0.0, 0.5))
    with pytest.raises(MismatchError, match=r"only the model has noise\.a\.scale"):
        bd.update(own, exact, LATER, engine=Exact())


@pytest.mark.thorough
def test_a_run_that_was_stopped_goes_on_with_the_same_numbers(tmp_path):
    whole = bd.fit(lines(), DATA, bd.engines.SMC(particles=50, runs=2), checkpoint=tmp_path, key=0)
    for path in sorted(tmp_path.glob("*.step"))[2:]:
        path.unlink()
    again = bd.resume(lines(), DATA, tmp_path)
    xr.testing.assert_identical(again["posterior"].to_dataset(), whole["posterior"].to_dataset())


class Twice(bd.Module):
    """A network at the time and, in part, at the time mirrored."""

    once: bd.Network
    again: bd.Network
    share: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.once(t, y, u)["g"] - self.share * self.again(-t, y, u)["g"]}


def twice():
    """The scale of the network is in that of the noise; the share has bounds, and a prior that
    depends on a number.
    """
    grain = bd.shared(dist.LogNormal(-0.5, 0.3), "grain")
    network = bd.shared(bd.Network.mlp(("t",), ("g",), grain, width=3, depth=1), "shape")
    share = bd.dependent(dist.Beta, dist.LogNormal(0.7, 0.3), 2.0)
    return bd.Model(bd.Algebraic(Twice(network, network, share)), bd.NormalNoise(0.2 * grain))


PLACES = np.linspace(-2.0, 2.0, 10)
HEIGHTS = 0.3 + np.sin(PLACES) + 0.1 * np.random.default_rng(1).normal(size=10)
WAVE = xr.Dataset({"y": ("time", HEIGHTS)}, {"time": PLACES})


def by_hand(post):
    """The mean of each datum and the log density, of the numbers of a posterior alone."""
    values = values_of(post)
    names = (f"shape.module.layers.{i}.{part}" for i in (0, 1) for part in ("weight", "bias"))
    hidden, shifts, last, above = (values[name] for name in names)
    grain, share, concentration = (
        values[name] for name in ("grain", "share", "share.concentration1")
    )
    assert len(values) == 7 and ((share > 0) & (share < 1)).all()

    def network(t):
        units = np.tanh(hidden[..., 0, None] * t + shifts[..., None])
        return grain[..., None] * (np.einsum("cdh,cdht->cdt", last[:, :, 0], units) + above)

    mean = network(PLACES) - share[..., None] * network(-PLACES)
    found = stats.norm(mean, 0.2 * grain[..., None]).logpdf(WAVE["y"].values).sum(-1)
    found += stats.norm(-0.5, 0.3).logpdf(np.log(grain)) + stats.norm(0.7, 0.3).logpdf(
        np.log(concentration)
    )
    found += stats.beta(concentration, 2.0).logpdf(share) + stats.norm.logpdf(ndtri(share))
    for weights, sd in ((hidden, 1.0), (shifts, 1.0), (last, 3**-0.5), (above, 1.0)):
        found += stats.norm(0.0, sd).logpdf(weights).reshape(*weights.shape[:2], -1).sum(-1)
    return mean, found


SIDES = ("once", "again")
PLAIN = bd.Descent(steps=300, patience=None, reparametrisation="none")
OF_NETWORKS = {
    "MCDropout": bd.engines.MCDropout(rate=0.3, draws=300, starts=2, descent=PLAIN),
    "Laplace": bd.engines.Laplace("last", draws=100, starts=2, descent=PLAIN),
    "NUTS": bd.NUTS(chains=2, warmup=50, draws=25, map_starts=2),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", OF_NETWORKS)
def test_engines_of_networks_see_one_network_in_both_places(name):
    post = bd.fit(twice(), WAVE, OF_NETWORKS[name], key=0)
    mean, density = by_hand(post)
    np.testing.assert_allclose(post["conditional_mean"]["y"], mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(post["sample_stats"]["lp"], density, rtol=1e-9)
    last = bd.evaluate(
        twice(),
        post,
        lambda m: {n: getattr(m.layer.function, n).module.layers[1].weight for n in SIDES},
    )
    np.testing.assert_array_equal(last["once"], last["again"])
    assert name != "NUTS" or post.attrs["sampled_in"] == "conditional coordinates"
    moving = {n for n, v in values_of(post).items() if np.ptp(v, axis=1).max() > 0}
    if name == "Laplace":
        assert moving == {*values_of(post)} - {
            "shape.module.layers.0.weight",
            "shape.module.layers.0.bias",
        }
    if name == "MCDropout":
        assert moving == {"shape.module.layers.1.weight"}
        left_out = last["once"].values[0, :, 0] == 0
        # A mask of its own for each unit, whose share is that of 300 draws.
        assert (np.abs(left_out.mean(0) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 300)).all()
        assert (np.abs(np.corrcoef(left_out.T)[np.triu_indices(3, 1)]) < 4 / np.sqrt(300)).all()


def frame_at(references, x):
    return references.restored(references.from_draws(np.asarray(x)))


def assert_coordinates(frame, x):
    """They lead there and back, and stretch the volume by what automatic differentiation finds."""

    def one(x):
        xi = frame.inverse(x)
        return xi, *frame.forward(xi), jax.jacfwd(lambda q: frame.forward(q)[0])(xi)

    xi, back, said, jacobians = jax.jit(jax.vmap(one))(x)
    np.testing.assert_allclose(back, x, atol=1e-8)
    assert np.abs(xi - x).max() > 0.1  # they are others
    np.testing.assert_allclose(said, np.linalg.slogdet(jacobians)[1], atol=1e-8)


@pytest.mark.thorough
def test_given_all_else_the_weights_of_a_shared_network_are_normal_by_both_of_its_places():
    """Nothing is solved, and the data are linear in them: only the slack is left out."""
    problem = pose(twice(), WAVE)
    references = references_of(problem)
    x = problem.prior(8, key=jax.random.key(0))
    frame = frame_at(references, x)
    assert_coordinates(frame, x[:3])
    at = references.linear.weights
    last = [problem.labels()[i].removeprefix("shape.module.layers.1.") for i in at]
    assert last == ["weight[0]", "weight[1]", "weight[2]", "bias"]
    exact = eqx.tree_at(lambda f: f.slack, frame, jax.tree.map(jnp.zeros_like, frame.slack))
    log_density = traced_once(problem)[1]
    xi = problem.prior(3, key=jax.random.key(1))
    slopes = jax.jit(jax.vmap(jax.grad(lambda q: exact.log_density(log_density, q))))(xi)
    np.testing.assert_allclose(slopes[:, at], -xi[:, at], atol=1e-6)


class Pair(bd.Module):
    """Two species that decay, each with the same correction."""

    rate: bd.Scalar
    once: bd.Network
    again: bd.Network

    def __call__(self, t, y, u):
        first, second = self.once(t, {"y": y["a"]}, u)["y"], self.again(t, {"y": y["b"]}, u)["y"]
        return {"a": -self.rate * y["a"] + first, "b": -0.5 * self.rate * y["b"] - second}


class Chained(Pair):
    """The correction of the correction."""

    def __call__(self, t, y, u):
        again = self.again(t, self.once(t, {"y": y["a"]}, u), u)["y"]
        return {"a": -self.rate * y["a"] + again, "b": -self.rate * y["b"]}


def solved_pair(equations, kind):
    grain = bd.shared(dist.LogNormal(-1.0, 0.3), "grain")
    network = bd.shared(small.network(scale=grain), "closure")
    rate = bd.dependent(dist.LogNormal, dist.Normal(np.log(0.6), 0.3), 0.2)
    initial = {"a": dist.Normal(2.0, 0.2), "b": 1.0}
    layer = kind(equations(rate, network, network), initial, start=0.0, rtol=1e-3, atol=1e-4)
    return bd.Model(layer, bd.NormalNoise(0.1 * grain))


HOURS = np.linspace(0.0, 3.0, 7)
PAIR = xr.Dataset(
    {"a": ("time", 2 / (1 + 0.6 * HOURS)), "b": ("time", np.exp(-0.4 * HOURS))}, {"time": HOURS}
)


@pytest.mark.thorough
@pytest.mark.parametrize(("equations", "kind"), [(Pair, bd.ODE), (Chained, small.Stepped)])
def test_a_shared_network_in_an_ode_has_conditional_coordinates(equations, kind):
    problem = pose(solved_pair(equations, kind), PAIR)
    references = references_of(problem)
    linear = references.linear
    assert len(linear.weights) == 4
    x = np.asarray(problem.prior(6, key=jax.random.key(0)))
    assert_coordinates(frame_at(references, x), x[:3])
    # The reference of one position is its own path, about which predictions change as they do by
    # solving.
    own = frame_at(references, x[[0, 0]]).paths

    def without_a_solve(x):
        values, changes = linear.predicted(linear.realised(x), own)
        return {name: values[name] + changes[name] for name in values}

    def by_solving(x):
        return dict(linear.realised(x).predict(problem.inputs).values)

    slopes, expected = jax.jit(lambda x: [jax.jacrev(f)(x) for f in (without_a_solve, by_solving)])(
        x[0]
    )
    for name in PAIR:
        # Steps are coarse, and between them rates run as a spline.
        largest = np.abs(expected[name]).max(0)
        assert (np.abs(slopes[name] - expected[name]) < 0.05 * largest + 1e-3).all()
        # Each of the pair knows of one of the places.
        assert equations is Chained or largest[linear.weights].min() > 0.05
