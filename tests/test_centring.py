"""Numbers whose priors depend on others are centred as far as the data say what they are."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import pose
from bayes_dasl.inference.coordinates.centring import centring_of

GROUPS = "abcdef"
TRUE = np.array([-3.0, -1.0, 0.0, 0.5, 1.5, 4.0])


class Levels(bd.Module):
    level: jax.Array

    def __call__(self, t, y, u):
        return {name: self.level[i] for i, name in enumerate(GROUPS)}


class Lines(bd.Module):
    line: jax.Array

    def __call__(self, t, y, u):
        return {name: self.line[i, 0] + t * self.line[i, 1] for i, name in enumerate(GROUPS)}


def levels(noise, rows=4):
    middle, spread = bd.shared(dist.Normal(0.0, 5.0), "middle"), bd.shared(dist.HalfNormal(5.0), "spread")
    level = bd.dependent(lambda m, s: dist.Normal(m, s).expand([len(GROUPS)]).to_event(1), middle, spread)
    data = xr.Dataset({n: ("time", np.full(rows, v)) for n, v in zip(GROUPS, TRUE, strict=True)}, {"time": range(rows)})
    return bd.Model(bd.Algebraic(Levels(level)), bd.NormalNoise(noise)), data


def lines():
    """Level and slope of each group are correlated."""
    spreads = bd.shared(dist.HalfNormal(jnp.ones(2)).to_event(1), "spreads")
    factor = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    line = bd.dependent(
        lambda s: dist.MultivariateNormal(jnp.zeros(2), scale_tril=s[:, None] * factor).expand([6]).to_event(1), spreads
    )
    model, data = levels(0.3)
    return bd.Model(bd.Algebraic(Lines(line)), model.noise), data


def curves(number=12):
    """Vectors longer than those that are centred together, with a scalar location."""
    scale = bd.shared(dist.HalfNormal(1.0), "size")
    factor = jnp.linalg.cholesky(jnp.exp(-jnp.abs(jnp.arange(number)[:, None] - jnp.arange(number)) / 3.0))
    curve = bd.dependent(lambda s: dist.MultivariateNormal(scale_tril=s * factor).expand([6]).to_event(1), scale)

    class Curves(bd.Module):
        curve: jax.Array

        def __call__(self, t, y, u):
            return {name: self.curve[i].sum() for i, name in enumerate(GROUPS)}

    model, data = levels(0.3)
    return bd.Model(bd.Algebraic(Curves(curve)), model.noise), data


def slopes(problem, x):
    return np.asarray(jax.jit(jax.vmap(jax.grad(lambda x: problem.log_density(x))))(x))


def pairs(noise=0.2):
    """Two numbers of each member, of which data know the sum of the logarithms well and their difference badly.

    The first differs between members, the second does not.
    """

    class Pair(bd.Module):
        first: bd.Scalar
        second: bd.Scalar

        def __call__(self, t, y, u):
            both, apart = jnp.log(self.first) + jnp.log(self.second), jnp.log(self.first) - jnp.log(self.second)
            return {"y": jnp.where(t < 4, both, 0.1 * apart)}

    number = lambda: bd.population(bd.between(0.5, 2.0), dist.HalfNormal(0.5))  # noqa: E731
    layer = bd.Each(bd.Algebraic(Pair(number(), number())), list(GROUPS))
    first = np.linspace(-1.0, 1.0, len(GROUPS))
    values = np.where(np.arange(8)[:, None] < 4, first, 0.1 * first)
    coords = {"time": np.arange(8.0), "subject": list(GROUPS)}
    return bd.Model(layer, bd.NormalNoise(noise)), xr.Dataset({"y": (("time", "subject"), values)}, coords)


class TestFrame:
    @pytest.mark.parametrize(
        "make", [lambda: levels(0.1), lines, curves, pairs], ids=["numbers", "vectors", "long", "members"]
    )
    def test_there_and_back(self, make):
        problem = pose(*make())
        centring = centring_of(problem)
        x = problem.prior(40, key=jax.random.key(0))
        arrays = centring.frame(np.asarray(x), slopes(problem, x))
        assert (arrays["precision 0"] > 0).sum() >= 4
        frame = centring.restored(arrays)
        position, volume = frame.position(x[0])
        np.testing.assert_allclose(frame.coordinates(position), x[0], atol=1e-9)
        stretched = np.linalg.slogdet(jax.jit(jax.jacfwd(lambda xi: frame.position(xi)[0]))(x[0]))[1]
        np.testing.assert_allclose(volume, stretched, rtol=1e-9)

    def test_before_any_draw_they_are_standardised(self):
        centring = centring_of(pose(*levels(0.1)))
        x = jnp.arange(8.0)
        np.testing.assert_array_equal(centring.like.position(x)[0], x)

    def test_what_data_say_is_the_precision_of_their_mean(self):
        """Four data of each group, with a standard deviation of 0.5: the level is known to ± 0.25."""
        problem = pose(*levels(0.5))
        centre = {"middle": jnp.asarray(0.0), "spread": jnp.asarray(2.0)}
        level = np.random.default_rng(0).normal(TRUE, 0.25, (50, len(GROUPS)))
        draws = [centre | {"layer.function.level": jnp.asarray(row)} for row in level]
        x = jnp.stack([problem.unconstrain(values) for values in draws])
        found = centring_of(problem).frame(np.asarray(x), slopes(problem, x))
        np.testing.assert_allclose(found["precision 0"], np.full((1, 1, 6), 16.0), rtol=1e-6)
        np.testing.assert_allclose(found["weighted 0"], 16.0 * TRUE[None], atol=1e-5)

    def test_what_data_say_of_the_numbers_of_a_member_together(self):
        """Four data of their sum and four of a tenth of their difference, each with a standard deviation of 0.2."""
        problem = pose(*pairs())
        x = jnp.asarray(np.random.default_rng(0).normal(0.0, 0.3, (20_000, problem.dimension)))
        found = centring_of(problem).frame(np.asarray(x), slopes(problem, x))
        of_sum, of_difference = 4 / 0.2**2, 4 * 0.1**2 / 0.2**2
        exact = [[of_sum + of_difference, of_sum - of_difference], [of_sum - of_difference, of_sum + of_difference]]
        np.testing.assert_allclose(found["precision 0"], np.repeat(np.array(exact)[..., None], 6, axis=2), rtol=0.01)

    def test_none_where_no_prior_depends_on_others(self):
        model = bd.Model(bd.Algebraic(Levels(dist.Normal(0, 1).expand([6]).to_event(1))), bd.NormalNoise(0.1))
        assert centring_of(pose(model, levels(0.1)[1])) is None


@pytest.mark.slow
def test_chains_take_shorter_ways():
    """Levels that data fix, and levels that they hardly see: both are easy in the same coordinates."""
    model, data = levels(0.05)
    engines = [bd.NUTS(chains=2, draws=200, coordinates=kind) for kind in ("auto", "plain")]
    auto, plain = (bd.fit(model, data, engine, progress=False) for engine in engines)
    assert auto.attrs["sampled_in"] == "partly centred coordinates"
    steps = [float(post["sample_stats"]["n_steps"].mean()) for post in (auto, plain)]
    assert steps[0] < 0.6 * steps[1], steps
    for name in ("middle", "spread"):
        ours, other = (post["posterior"][name] for post in (auto, plain))
        assert abs(float(ours.mean() - other.mean())) < 0.6 * float(other.std())


def test_the_spread_of_one_of_two_numbers_that_data_tell_together():
    """As that one shrinks the other has to make up for it: centred one by one they make a funnel."""
    model, data = pairs(0.05)
    post = bd.fit(model, data, bd.NUTS(chains=2, draws=300), progress=False)
    draws = post["posterior"].to_dataset()
    lowest = min(float(az.ess(draws[name])) for name in draws.data_vars if str(name).endswith("spread"))
    assert lowest > 150, lowest
