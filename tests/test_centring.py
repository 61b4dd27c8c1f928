"""Numbers whose priors depend on others are centred as far as the data say what they are."""

from types import SimpleNamespace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import AbstractEngine, pose
from bayes_dasl.inference.gradient import traced_once
from bayes_dasl.inference.reparametrisations import centring as centring_module
from bayes_dasl.inference.reparametrisations.centring import centring_of
from bayes_dasl.inference.reparametrisations.local_start import local_start
from bayes_dasl.inference.starts import Optimiser, multi_start

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
    middle, spread = (
        bd.shared(dist.Normal(0.0, 5.0), "middle"),
        bd.shared(dist.HalfNormal(5.0), "spread"),
    )
    level = bd.dependent(
        lambda m, s: dist.Normal(m, s).expand([len(GROUPS)]).to_event(1), middle, spread
    )
    data = xr.Dataset(
        {n: ("time", np.full(rows, v)) for n, v in zip(GROUPS, TRUE, strict=True)},
        {"time": range(rows)},
    )
    return bd.Model(bd.Algebraic(Levels(level)), bd.NormalNoise(noise)), data


def lines():
    """Level and slope of each group are correlated."""
    spreads = bd.shared(dist.HalfNormal(jnp.ones(2)).to_event(1), "spreads")
    factor = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    line = bd.dependent(
        lambda s: (
            dist.MultivariateNormal(jnp.zeros(2), scale_tril=s[:, None] * factor)
            .expand([6])
            .to_event(1)
        ),
        spreads,
    )
    model, data = levels(0.3)
    return bd.Model(bd.Algebraic(Lines(line)), model.noise), data


def curves(number=12):
    """Vectors longer than those that are centred together, with a scalar location."""
    scale = bd.shared(dist.HalfNormal(1.0), "size")
    factor = jnp.linalg.cholesky(
        jnp.exp(-jnp.abs(jnp.arange(number)[:, None] - jnp.arange(number)) / 3.0)
    )
    curve = bd.dependent(
        lambda s: dist.MultivariateNormal(scale_tril=s * factor).expand([6]).to_event(1), scale
    )

    class Curves(bd.Module):
        curve: jax.Array

        def __call__(self, t, y, u):
            return {name: self.curve[i].sum() for i, name in enumerate(GROUPS)}

    model, data = levels(0.3)
    return bd.Model(bd.Algebraic(Curves(curve)), model.noise), data


def slopes(problem, x):
    return np.asarray(jax.jit(jax.vmap(jax.grad(lambda x: problem.log_density(x))))(x))


def pairs(noise=0.2):
    """Two numbers of each member, of which data know the sum of the logarithms well and their
    difference badly.

    The first differs between members, the second does not.
    """

    class Pair(bd.Module):
        first: bd.Scalar
        second: bd.Scalar

        def __call__(self, t, y, u):
            both, apart = (
                jnp.log(self.first) + jnp.log(self.second),
                jnp.log(self.first) - jnp.log(self.second),
            )
            return {"y": jnp.where(t < 4, both, 0.1 * apart)}

    number = lambda: bd.population(bd.between(0.5, 2.0), dist.HalfNormal(0.5))  # noqa: E731
    layer = bd.Each(bd.Algebraic(Pair(number(), number())), list(GROUPS))
    first = np.linspace(-1.0, 1.0, len(GROUPS))
    values = np.where(np.arange(8)[:, None] < 4, first, 0.1 * first)
    coords = {"time": np.arange(8.0), "subject": list(GROUPS)}
    return bd.Model(layer, bd.NormalNoise(noise)), xr.Dataset(
        {"y": (("time", "subject"), values)}, coords
    )


def sparse(members=8):
    """Level and slope of each member, by as many data: the density is highest where there is no
    noise at all.
    """

    class Line(bd.Module):
        level: bd.Scalar
        slope: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": self.level + self.slope * t}

    rng, names = np.random.default_rng(0), [f"s{i}" for i in range(members)]
    number = lambda low, high: bd.population(bd.between(low, high), dist.HalfNormal(0.5))  # noqa: E731
    model = bd.Model(
        bd.Each(bd.Algebraic(Line(number(1.0, 9.0), number(0.3, 3.0))), names),
        bd.NormalNoise(dist.LogNormal(jnp.log(0.3), 1.0)),
    )
    values = rng.normal(3.0 * np.exp(0.3 * rng.normal(size=members)) + np.arange(2.0)[:, None], 0.5)
    return model, xr.Dataset(
        {"y": (("time", "subject"), values)}, {"time": np.arange(2.0), "subject": names}
    )


def optimised(problem, centring, map_starts=8):
    return Optimiser(traced_once(problem)[0], climbs, centring.like, centring.dependent)


def begun(problem, centring, optimiser):
    x, _, *counted = multi_start(problem, optimiser, key=jax.random.key(0))
    return local_start(centring, optimiser, x, *counted)


class TestStart:
    @pytest.mark.thorough
    @pytest.mark.parametrize(
        "make", [lambda: levels(0.1), lines, pairs], ids=["numbers", "vectors", "members"]
    )
    def test_what_the_curvature_says_is_what_many_draws_say(self, make):
        problem = pose(*make())
        centring = centring_of(problem)
        x = np.asarray(problem.prior(4000, key=jax.random.key(0)))
        by_draws = centring.from_draws(x, slopes(problem, x))
        found = centring.around(x[0], lambda x: slopes(problem, x))
        for name, wanted in by_draws.items():
            np.testing.assert_allclose(
                found[name], wanted, rtol=0.02, atol=0.02 * np.abs(wanted).max()
            )

    @pytest.mark.thorough("<lambda>")
    @pytest.mark.parametrize(
        "prior", [dist.HalfNormal, lambda scale: dist.StudentT(3.0, 0.0, scale)]
    )
    def test_no_part_of_a_prior_is_taken_for_data(self, prior):
        """Of the first level there are no data, of the second there are."""

        class Seen(bd.Module):
            level: jax.Array

            def __call__(self, t, y, u):
                return {"y": self.level[1]}

        scale = bd.shared(dist.LogNormal(0.0, 0.5), "scale")
        level = bd.dependent(lambda s: prior(s * jnp.ones(2)).to_event(1), scale)
        model = bd.Model(bd.Algebraic(Seen(level)), bd.NormalNoise(0.5))
        problem = pose(model, xr.Dataset({"y": ("time", np.ones(3))}, {"time": range(3)}))
        for x in np.asarray(problem.prior(5, key=jax.random.key(0))):
            told = (
                centring_of(problem).around(x, lambda x: slopes(problem, x))["precision 0"].ravel()
            )
            assert told[0] < 1e-3 * told[1] + 1e-5, told

    @pytest.mark.parametrize(("members", "number"), [(2, 1), (3, 1), (2, 2), (5, 2)])
    def test_members_that_do_not_go_apart_are_nudged_one_by_one(self, members, number):
        rng, size = np.random.default_rng(0), members * number + 3
        root, places = (
            rng.normal(size=(size, size)),
            rng.permutation(size)[: members * number].reshape(members, number),
        )
        precision, asked = root @ root.T, []

        def gradients(x):
            asked.append(len(x) // 2)
            return -x @ precision

        found = centring_module._curvature_by_group(gradients, np.zeros(size), places)
        np.testing.assert_allclose(found, [precision[np.ix_(of, of)] for of in places])
        assert asked == [number + 1, members * number]
        for i, j in zip(
            *np.nonzero(np.arange(members)[:, None] != np.arange(members)), strict=True
        ):
            precision[np.ix_(places[i], places[j])] = 0.0
        asked.clear()
        found = centring_module._curvature_by_group(gradients, np.zeros(size), places)
        np.testing.assert_allclose(found, [precision[np.ix_(of, of)] for of in places])
        assert asked == [number + 1]

    @pytest.mark.thorough
    def test_noise_does_not_vanish_where_members_have_as_many_numbers_as_data(self):
        """The noise is 0.5; at the highest density it is below a twentieth of that."""
        problem = pose(*sparse())
        centring = centring_of(problem)
        noise = lambda x: float(problem.constrain(jnp.asarray(x))["noise.scale"])  # noqa: E731
        plain = Optimiser(traced_once(problem)[0], 8)
        assert noise(multi_start(problem, plain, key=jax.random.key(0))[0][0]) < 0.025
        optimiser = optimised(problem, centring)
        start, inside, arrays = begun(problem, centring, optimiser)
        assert 0.2 < noise(start.modes[0]) < 1.2
        # The same place in both coordinates.
        position, volume = centring.restored(arrays).position(jnp.asarray(inside.modes[0]))
        np.testing.assert_allclose(position, start.modes[0], atol=1e-9)
        np.testing.assert_allclose(
            inside.log_densities[0] - volume, problem.log_density(position), rtol=1e-6
        )

    @pytest.mark.thorough
    def test_all_climbs_to_one_place_are_one_mode(self):
        problem = pose(*levels(1.0))
        centring = centring_of(problem)
        optimiser = optimised(problem, centring, map_starts=8)
        _, inside, _ = begun(problem, centring, optimiser)
        assert len(inside.modes) == 1
        noise = np.random.default_rng(0).normal(0.0, 0.3, (8, problem.dimension))
        ends = optimiser.optimise(inside.modes + noise)
        assert np.ptp(ends, axis=0).max() < 0.02, ends

    @pytest.mark.thorough
    def test_chains_that_begin_at_draws_of_another_engine_begin_there(self):
        problem = pose(*levels(0.5))
        given = np.asarray(problem.prior(6, key=jax.random.key(3)))

        class Given(AbstractEngine):
            def run(self, problem, *, key, journal, bar):
                return SimpleNamespace(positions=given[None])

        engine = bd.NUTS(chains=2, map_starts=4, start=Given())
        centring = centring_of(problem)
        optimiser = optimised(problem, centring, map_starts=4)
        key = jax.random.key(0)
        found = engine._local(problem, optimiser, None, given, key, key, centring)
        assert len(found["modes"]) == 1
        frame = centring.restored(found)
        for xi, x in zip(found["position"], given, strict=False):
            np.testing.assert_allclose(frame.forward(jnp.asarray(xi))[0], x, atol=1e-8)

    @pytest.mark.thorough
    def test_it_takes_as_many_gradients_for_many_members_as_for_few(self):
        counts: list[int] = []
        for members in (4, 12):
            problem = pose(*sparse(members))
            centring = centring_of(problem)
            optimiser = optimised(problem, centring, map_starts=2)
            x, _, *counted = multi_start(problem, optimiser, key=jax.random.key(0))
            before = optimiser.steps
            local_start(centring, optimiser, x, *counted)
            counts.append(optimiser.steps - before)
        assert counts[0] == counts[1]


class TestFrame:
    @pytest.mark.thorough("vectors", "long", "members")
    @pytest.mark.parametrize(
        "make",
        [lambda: levels(0.1), lines, curves, pairs],
        ids=["numbers", "vectors", "long", "members"],
    )
    def test_there_and_back(self, make):
        problem = pose(*make())
        centring = centring_of(problem)
        x = problem.prior(40, key=jax.random.key(0))
        arrays = centring.from_draws(np.asarray(x), slopes(problem, x))
        assert (arrays["precision 0"] > 0).sum() >= 4
        frame = centring.restored(arrays)
        position, volume = frame.forward(x[0])
        np.testing.assert_allclose(frame.inverse(position), x[0], atol=1e-9)
        stretched = np.linalg.slogdet(jax.jit(jax.jacfwd(lambda xi: frame.forward(xi)[0]))(x[0]))[1]
        np.testing.assert_allclose(volume, stretched, rtol=1e-9)

    def test_before_any_draw_they_are_standardised(self):
        centring = centring_of(pose(*levels(0.1)))
        x = jnp.arange(8.0)
        np.testing.assert_array_equal(centring.like.forward(x)[0], x)

    @pytest.mark.thorough
    def test_what_data_say_is_the_precision_of_their_mean(self):
        """Four data of each group, with a standard deviation of 0.5:
        the level is known to ± 0.25.
        """
        problem = pose(*levels(0.5))
        centre = {"middle": jnp.asarray(0.0), "spread": jnp.asarray(2.0)}
        level = np.random.default_rng(0).normal(TRUE, 0.25, (50, len(GROUPS)))
        draws = [centre | {"layer.function.level": jnp.asarray(row)} for row in level]
        x = jnp.stack([problem.unconstrain(values) for values in draws])
        found = centring_of(problem).from_draws(np.asarray(x), slopes(problem, x))
        np.testing.assert_allclose(found["precision 0"], np.full((1, 1, 6), 16.0), rtol=1e-6)
        np.testing.assert_allclose(found["weighted 0"], 16.0 * TRUE[None], atol=1e-5)

    @pytest.mark.thorough
    def test_what_data_say_of_the_numbers_of_a_member_together(self):
        """Four data of their sum and four of a tenth of their difference, each with a standard
        deviation of 0.2.
        """
        problem = pose(*pairs())
        x = jnp.asarray(np.random.default_rng(0).normal(0.0, 0.3, (20_000, problem.dimension)))
        found = centring_of(problem).from_draws(np.asarray(x), slopes(problem, x))
        of_sum, of_difference = 4 / 0.2**2, 4 * 0.1**2 / 0.2**2
        exact = [
            [of_sum + of_difference, of_sum - of_difference],
            [of_sum - of_difference, of_sum + of_difference],
        ]
        np.testing.assert_allclose(
            found["precision 0"], np.repeat(np.array(exact)[..., None], 6, axis=2), rtol=0.01
        )

    def test_none_where_no_prior_depends_on_others(self):
        model = bd.Model(
            bd.Algebraic(Levels(dist.Normal(0, 1).expand([6]).to_event(1))), bd.NormalNoise(0.1)
        )
        assert centring_of(pose(model, levels(0.1)[1])) is None


@pytest.mark.slow
def test_chains_take_shorter_ways():
    """Levels that data fix, and levels that they hardly see:
    both are easy in the same coordinates.
    """
    model, data = levels(0.05)
    engines = [bd.NUTS(chains=2, draws=200, reparametrisation=kind) for kind in ("auto", "none")]
    auto, plain = (bd.fit(model, data, engine, progress=False) for engine in engines)
    assert auto.attrs["sampled_in"] == "partly centred coordinates"
    steps = [float(post["sample_stats"]["n_steps"].mean()) for post in (auto, plain)]
    assert steps[0] < 0.6 * steps[1], steps
    for name in ("middle", "spread"):
        ours, other = (post["posterior"][name] for post in (auto, plain))
        assert abs(float(ours.mean() - other.mean())) < 0.6 * float(other.std())


@pytest.mark.thorough
def test_the_spread_of_one_of_two_numbers_that_data_tell_together():
    """As that one shrinks the other has to make up for it:
    centred one by one they make a funnel.
    """
    model, data = pairs(0.05)
    post = bd.fit(model, data, bd.NUTS(chains=2, draws=300), progress=False)
    draws = post["posterior"].to_dataset()
    lowest = min(
        float(az.ess(draws[name])) for name in draws.data_vars if str(name).endswith("spread")
    )
    assert lowest > 150, lowest
