"""Populations: one layer for each member, with numbers that differ between them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import posterior
from jax.extend.core import jaxprs_in_params
from numpyro.handlers import substitute
from numpyro.infer.util import log_density

import bayes_dasl as bd
from bayes_dasl.errors import DataError, MismatchError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.plots.population import _corrected
from bayes_dasl.populations import buckets
from bayes_dasl.prediction import names, signature as signature_of
from bayes_dasl.random import paths, realise
from bayes_dasl.verdict.chain_convergence import quantities

SUBJECTS, TIMES = np.array([1.0, 3.0, 7.0]), np.array([0.5, 1.0, 2.0, 4.0])


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


class Fall(bd.Module):
    """The same in closed form, which compiles faster."""

    rate: bd.Scalar
    start: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.start * jnp.exp(-self.rate * t)}


def layer(rate, start=4.0):
    return bd.Algebraic(Fall(rate, start))


def typical():
    return bd.population(dist.LogNormal(-1.0, 0.5), dist.HalfNormal(0.5))


def model(rate=None, start=4.0, members=SUBJECTS):
    return bd.Model(
        bd.Each(layer(typical() if rate is None else rate, start), members), bd.NormalNoise(0.1)
    )


def data(rates=(0.2, 0.4, 0.8), start=4.0):
    values = start * np.exp(-np.outer(TIMES, rates))
    values[2, 1] = np.nan
    return xr.Dataset({"y": (("time", "subject"), values)}, {"time": TIMES, "subject": SUBJECTS})


def seen_apart():
    """Of each subject there is one time at which it alone was not seen."""
    values = data()["y"].fillna(4 * np.exp(-0.8)).values
    values[[1, 2, 3], [0, 1, 2]] = np.nan
    return data().assign(y=(("time", "subject"), values))


def equations(jaxpr):
    """All of a program, those inside of others too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def at_all_times(problem, data):
    """The problem with solves of every member to all times of the data."""
    observed = {
        name: jnp.asarray(data[name].transpose("time", ..., "subject").values)
        for name in problem.observed
    }
    return dataclasses.replace(
        problem, inputs=problem.model.inputs(data), observed=observed, own_rows=None
    )


class TestEach:
    def test_members_have_numbers_of_their_own(self):
        found = paths(model())
        assert {path.rsplit("function.")[-1]: leaf.shape for path, leaf in found.items()} == {
            "rate.center": (),
            "rate.spread": (),
            "rate": (3,),
        }
        assert [*found.values()][-1].dims == {"subject": tuple(SUBJECTS)}

    @pytest.mark.thorough
    def test_predicts_each_as_alone(self):
        each = bd.Model(
            bd.Each(bd.ODE(Decay(typical()), {"y": 4.0}, start=0.0), SUBJECTS), bd.NormalNoise(0.1)
        )
        rates = jnp.asarray([0.2, 0.4, 0.8])
        values = {path: jnp.ones(leaf.shape) for path, leaf in paths(each).items()}
        values |= {path: rates for path, leaf in paths(each).items() if leaf.dims}
        found = jax.jit(lambda values: realise(each, values).predict(each.inputs(data())))(values)
        assert found.values["y"].shape == (4, 3)
        np.testing.assert_allclose(
            found.values["y"], 4 * np.exp(-np.outer(TIMES, rates)), rtol=1e-5
        )

    def test_the_density_is_that_of_the_hierarchy(self):
        problem = pose(model(), data())
        x = problem.prior(1, key=jax.random.key(0))[0]
        values = problem.constrain(x)
        center, spread, rate = values.values()
        log_joint = (
            dist.LogNormal(-1.0, 0.5).log_prob(center)
            + dist.HalfNormal(0.5).log_prob(spread)
            + dist.LogNormal(jnp.log(center), spread).log_prob(rate).sum()
        )
        predicted = 4 * jnp.exp(-jnp.outer(TIMES, rate))
        seen = np.isfinite(data()["y"].values)
        log_joint += dist.Normal(predicted[seen], 0.1).log_prob(data()["y"].values[seen]).sum()
        ours = log_density(
            substitute(problem.model, data=values),
            (problem.inputs, problem.observed),
            {},
            {},
        )[0]
        assert ours == pytest.approx(float(log_joint), rel=1e-4)

    def test_known_numbers_of_each_and_covariates(self):
        doses, weights = np.array([4.0, 8.0, 2.0]), np.array([0.0, 1.0, -1.0])
        slope = bd.shared(dist.Normal(0.0, 1.0), "slope")
        rate = bd.population(0.3, 0.1, effect=slope * bd.varying(weights))
        each = model(rate, bd.varying(doses))
        found = paths(each)
        assert list(found) == ["slope", "layer.layer.function.rate"]
        values = {"slope": jnp.asarray(0.5), "layer.layer.function.rate": jnp.full(3, 0.3)}
        predicted = realise(each, values).predict(each.inputs(data())).values["y"]
        np.testing.assert_allclose(predicted[0], doses * np.exp(-0.15), rtol=1e-5)
        given = found["layer.layer.function.rate"].given(values)
        np.testing.assert_allclose(given.loc, np.log(0.3) + 0.5 * weights)

    def test_one_number_of_each_in_several_places(self):
        """The start of each member is twice its rate."""
        rate = bd.shared(typical(), "rate")
        each = model(rate, 2 * rate)
        assert list(paths(each)) == ["rate.center", "rate.spread", "rate"]
        one = jnp.asarray(1.0)
        values = {"rate.center": one, "rate.spread": one, "rate": jnp.asarray([0.2, 0.4, 0.8])}
        predicted = realise(each, values).predict(each.inputs(data())).values["y"]
        np.testing.assert_allclose(
            predicted[0], 2 * values["rate"] * jnp.exp(-0.5 * values["rate"]), rtol=1e-5
        )

    @pytest.mark.thorough
    def test_numbers_that_are_correlated_between_members(self):
        spreads, factor = dist.HalfNormal(jnp.ones(2)).to_event(1), dist.LKJCholesky(2)
        drawn = bd.dependent(
            lambda s, c: dist.MultivariateNormal(jnp.zeros(2), scale_tril=s[:, None] * c),
            spreads,
            factor,
        )
        both = bd.shared(bd.varying(drawn), "both")
        each = model(bd.dependent(jnp.exp, both[0]), bd.dependent(jnp.exp, both[1]))
        found = paths(each)
        assert (found["both"].shape, found["both"].dims) == ((3, 2), {"subject": tuple(SUBJECTS)})
        values = {path: jnp.ones(leaf.shape) for path, leaf in found.items()}
        values |= {path: jnp.eye(2) for path in values if path.endswith(".c")}
        values["both"] = jnp.log(jnp.asarray([[0.1, 1.0], [0.2, 2.0], [0.3, 3.0]]))
        predicted = realise(each, values).predict(each.inputs(data())).values["y"]
        np.testing.assert_allclose(
            predicted[1], [np.exp(-0.1), 2 * np.exp(-0.2), 3 * np.exp(-0.3)], rtol=1e-6
        )
        assert pose(each, data()).sites["both"].standardised is not None

    def test_each_for_itself(self):
        found = paths(model(bd.varying(dist.LogNormal(-1.0, 0.5))))
        assert [leaf.shape for leaf in found.values()] == [(3,)]

    @pytest.mark.thorough
    def test_solves_look_at_own_times_only(self):
        """The log density is the same, as far as the solver is accurate, as with solves to all
        times.
        """
        values = data()["y"].values.copy()
        values[[0, 3], 0], values[1:, 2] = np.nan, np.nan
        gaps = data().assign(y=(("time", "subject"), values))
        ode = bd.Each(bd.ODE(Decay(typical()), {"y": 4.0}, start=0.0), SUBJECTS)
        problem = pose(bd.Model(ode, bd.NormalNoise(0.1)), gaps)
        np.testing.assert_array_equal(
            problem.inputs.times.T, [[1, 2, 2], [0.5, 1, 4], [0.5, 0.5, 0.5]]
        )
        at = jnp.asarray([0.1, -0.5, 0.3, 0.2, -1.0])
        everywhere = at_all_times(problem, gaps)
        own, all_times = (
            jax.jit(lambda x, p=p: p.log_density(x))(at) for p in (problem, everywhere)
        )
        assert own == pytest.approx(float(all_times), abs=1e-4)
        assert pose(bd.Model(ode, bd.NormalNoise(0.1)), data().fillna(1.0)).own_rows is None

    @pytest.mark.thorough
    def test_what_noise_looks_at_is_that_of_own_rows(self):
        """Times, forcings of all and of each, and what is known of each datum, where each member
        has its own rows.
        """

        def grown(t, y, u):
            return {"log": 0.1 * t + u["all"] * u["own"] + 0.2 * y["y"]}

        own = np.outer(TIMES, [0.1, 0.2, 0.3])
        data = seen_apart().assign(all=("time", TIMES / 4), own=(("time", "subject"), own))
        data = data.assign(y_error=(("time", "subject"), 0.1 + own))
        one = bd.Algebraic(Fall(typical(), 4.0), forcings=("all", "own"))
        noises = {
            "grown": bd.NormalNoise(
                bd.noise.VaryingScale(bd.population(0.1, dist.HalfNormal(0.3)), grown)
            ),
            "known": bd.NormalNoise(bd.noise.PerDatum("y_error")),
        }
        for name, noise in noises.items():
            problem = pose(bd.Model(bd.Each(one, SUBJECTS), noise), data)
            assert problem.inputs.times.shape == (3, 3), name
            at = jnp.linspace(-0.5, 0.5, problem.dimension)
            everywhere = at_all_times(problem, data).log_density(at)
            assert problem.log_density(at) == pytest.approx(float(everywhere), rel=1e-9), name

    @pytest.mark.thorough
    def test_no_array_of_a_fit_holds_all_times_of_all_members(self):
        """Forty members with a time of their own each: what is traced has forty numbers, not forty
        times forty.
        """
        members = np.arange(40.0)
        values = np.where(np.eye(40, dtype=bool), 1.0, np.nan)
        data = xr.Dataset(
            {"y": (("time", "subject"), values)}, {"time": members + 1.0, "subject": members}
        )
        problem = pose(model(bd.varying(dist.LogNormal(-1.0, 0.5)), members=members), data)
        traced = jax.make_jaxpr(jax.value_and_grad(problem.log_density))(jnp.zeros(40))
        sizes = [v.aval.size for e in equations(traced.jaxpr) for v in e.outvars]
        assert max(sizes) <= 2 * 40

    @pytest.mark.thorough
    def test_a_member_with_many_times_makes_no_others_dear(self):
        """One of sixty members is seen at all forty times, the others at one to three: same
        density, few numbers.
        """
        rng, members, times = np.random.default_rng(0), np.arange(60.0), np.arange(1.0, 41.0)
        seen = np.zeros((40, 60), bool)
        seen[:, 7] = True
        for member in set(range(60)) - {7}:
            seen[rng.choice(40, 1 + member % 3, replace=False), member] = True
        data = xr.Dataset(
            {"y": (("time", "subject"), np.where(seen, 1.0, np.nan))},
            {"time": times, "subject": members},
        )

        class Decay(bd.Module):
            rate: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": jnp.exp(-self.rate * t)}

        one = bd.Algebraic(Decay(bd.varying(dist.LogNormal(-1.0, 0.5))))
        problem = pose(bd.Model(bd.Each(one, members), bd.NormalNoise(0.1)), data)
        at = jnp.linspace(-1.0, 1.0, 60)
        everywhere = at_all_times(problem, data)
        for of in (lambda p: p.log_density, lambda p: jax.grad(p.log_density)):
            np.testing.assert_allclose(of(problem)(at), of(everywhere)(at), rtol=1e-9)
        solved = sum(len(some) * rows for some, rows in buckets(np.asarray(problem.inputs.times)))
        assert solved <= 1.3 * seen.sum()

    @pytest.mark.parametrize(
        "needs", [[5], [1, 1], [1, 2, 3, 4, 50], [7, 7, 6, 6, 1], [9] * 3 + [3] * 20]
    )
    def test_buckets_hold_each_member_once_and_waste_less_than_a_third(self, needs):
        rows = np.arange(max(needs))
        times = np.stack([np.minimum(rows, n - 1) for n in needs], axis=1).astype(float)
        found = buckets(times)
        assert sorted(np.concatenate([members for members, _ in found]).tolist()) == list(
            range(len(needs))
        )
        assert all(needs[m] <= most for members, most in found for m in members)
        assert sum(len(members) * most for members, most in found) <= 1.3 * sum(needs)

    def test_others_are_forecast_by_a_model_whose_unknowns_are_the_same_for_all(self):
        """Weights are known of each, the rate is that of all: no draw has the members as a
        dimension.
        """

        class Decay(bd.Module):
            rate: bd.Scalar
            weight: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": self.weight * jnp.exp(-self.rate * t)}

        def pooled(members, weights):
            one = bd.Algebraic(Decay(dist.LogNormal(-1.0, 0.5), bd.varying(np.asarray(weights))))
            return bd.Model(bd.Each(one, members), bd.NormalNoise(0.1))

        post = posterior(
            pooled(SUBJECTS, [1.0, 2.0, 3.0]),
            data(),
            {"layer.layer.function.rate": np.full((1, 5), 0.4)},
        )
        asked = xr.Dataset(coords={"time": TIMES, "subject": [9.0, 3.0]})
        fc = bd.forecast(pooled([9.0, 3.0], [4.0, 3.0]), post, asked)
        mean = fc["conditional_mean"]["y"].mean(("chain", "draw"))
        np.testing.assert_allclose(mean.sel(subject=9.0), 4.0 * np.exp(-0.4 * TIMES), rtol=1e-6)
        assert fc.attrs["model"].startswith("that of the fit for other members")

    def test_names(self):
        names = ["Ann", "Bo", "Cy"]
        each = model(members=names)
        named = data().assign_coords(subject=names)
        problem, other = pose(each, named), pose(model(), data())
        at = jnp.arange(5.0) / 5
        assert problem.log_density(at) == other.log_density(at)
        assert paths(each)["layer.layer.function.rate"].dims == {"subject": tuple(names)}
        with pytest.raises(DataError, match="subject Di is no member"):
            pose(each, data().assign_coords(subject=["Ann", "Bo", "Di"]))

    def test_forcings_of_each(self):
        class Pushed(bd.Module):
            rate: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": u["all"] + u["own"] * self.rate}

        each = bd.Model(
            bd.Each(bd.Algebraic(Pushed(typical()), forcings=("all", "own")), SUBJECTS),
            bd.NormalNoise(0.1),
        )
        own = np.outer(TIMES, [1.0, 2.0, 3.0])
        forced = data().assign(all=("time", TIMES), own=(("subject", "time"), own.T))
        values = {path: jnp.ones(leaf.shape) for path, leaf in paths(each).items()}
        predicted = realise(each, values).predict(each.inputs(forced)).values["y"]
        np.testing.assert_allclose(predicted, TIMES[:, None] + own)
        with pytest.raises(DataError, match=r"subject 1\.0: forcing 'own' is missing"):
            pose(each, forced.assign(own=forced["own"].where(forced["own"] != 2.0)))

    @pytest.mark.thorough
    def test_noise_of_each(self):
        noise = bd.NormalNoise(bd.population(dist.LogNormal(-1.0, 0.5), 0.3))
        each = bd.Model(bd.Each(layer(typical()), SUBJECTS), noise)
        leaf = paths(each)["noise.scale"]
        assert (leaf.shape, leaf.dims) == ((3,), {"subject": tuple(SUBJECTS)})
        values = {path: jnp.ones(leaf.shape) for path, leaf in paths(each).items()}
        realised = realise(each, values | {"noise.scale": jnp.asarray([0.1, 0.2, 0.3])})
        for asked, scales in (
            (data(), [0.1, 0.2, 0.3]),
            (data().sel(subject=[7.0, 1.0]), [0.3, 0.1]),
        ):
            inputs = each.inputs(asked)
            found = realised.conditional(realised.predict(inputs), inputs)["y"]
            np.testing.assert_allclose(jnp.broadcast_to(found.scale, found.loc.shape)[0], scales)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: bd.Each(layer(0.3), SUBJECTS), "nothing in the layer is varying"),
            (lambda: bd.Each(layer(typical()), [2.0, 2.0]), "members must be different"),
            (
                lambda: bd.Each(layer(typical()), np.zeros((2, 2))),
                "members must be numbers or names",
            ),
            (lambda: bd.Each(Decay(0.3), SUBJECTS), "takes a layer"),
            (
                lambda: bd.Each(layer(typical(), bd.varying(np.ones(4))), SUBJECTS),
                "3 members, but 4 known numbers",
            ),
            (
                lambda: bd.Model(layer(typical()), bd.NormalNoise(0.1)),
                r"wrap the layer .* in bd\.Each",
            ),
            (lambda: bd.varying(dist.Normal(jnp.zeros(3), 1.0)), "distribution of one member"),
            (lambda: bd.varying(0.3), "a distribution, or an array"),
        ],
    )
    def test_refusals(self, make, message):
        with pytest.raises(ModelError, match=message):
            make()


def alone(post):
    """The posterior as that of members that have nothing in common."""
    held = post["posterior"].to_dataset()[["rate"]]
    signature = bd.Model(
        bd.Each(layer(bd.varying(dist.LogNormal(-1.0, 0.5))), SUBJECTS), bd.NormalNoise(0.1)
    )
    return xr.DataTree.from_dict(
        {
            "posterior": held.assign(
                rate=held["rate"].assign_attrs(path=next(iter(paths(signature))))
            ),
            "observed_data": post["observed_data"].to_dataset(),
            "constant_data": post["constant_data"].to_dataset(),
            "/": xr.Dataset(attrs={"signature": signature_of(signature)}),
        }
    )


@pytest.fixture(scope="module")
def post():
    return bd.fit(model(), seen_apart(), bd.NUTS(chains=2, draws=300), progress=False)


class TestFit:
    def test_draws_have_the_dimension_of_the_members(self, post):
        assert post["posterior"]["rate"].dims == ("chain", "draw", "subject")
        np.testing.assert_array_equal(post["posterior"]["subject"], SUBJECTS)
        np.testing.assert_allclose(
            post["posterior"]["rate"].mean(("chain", "draw")), [0.2, 0.4, 0.8], rtol=0.1
        )

    def test_what_draws_say_of_each_datum(self, post):
        """Mean and log likelihood at each member's own times, and predictions scattered as the
        noise is.
        """
        seen, rate = seen_apart()["y"], post["posterior"]["rate"]
        time, member = np.nonzero(seen.notnull().values)
        mean = 4 * np.exp(-rate.values[..., member] * TIMES[time])
        groups = {
            name: post[name]["y"]
            for name in ("conditional_mean", "log_likelihood", "posterior_predictive")
        }
        for name, group in groups.items():
            assert group.dims == ("chain", "draw", "y_datum"), name
            np.testing.assert_array_equal(group["y_time"], TIMES[time])
            np.testing.assert_array_equal(group["y_subject"], SUBJECTS[member])
        np.testing.assert_allclose(groups["conditional_mean"], mean, rtol=1e-6)
        datum = seen.values[time, member]
        expected = dist.Normal(mean, 0.1).log_prob(datum)
        np.testing.assert_allclose(groups["log_likelihood"], expected, rtol=1e-5, atol=1e-5)
        z = (groups["posterior_predictive"].values - mean) / 0.1
        assert abs(z.mean()) < 4 / np.sqrt(z.size) and abs(z.std() - 1) < 4 / np.sqrt(2 * z.size)
        trajectories = quantities(post, None)[1]
        assert trajectories.names[:2] == ["y at time 0.5, subject 1", "y at time 0.5, subject 3"]

    @pytest.mark.thorough
    def test_forecast_of_all_and_of_some(self, post):
        fc = bd.forecast(model(), post, np.arange(1.0, 9.0))
        assert fc["predictions"]["y"].dims == ("chain", "draw", "time", "subject")
        some = bd.forecast(
            model(), post, xr.Dataset(coords={"time": np.arange(1.0, 9.0), "subject": [7.0]})
        )
        np.testing.assert_allclose(
            some["conditional_mean"]["y"][..., 0],
            fc["conditional_mean"]["y"].sel(subject=7.0),
            rtol=1e-6,
        )
        with pytest.raises(DataError, match=r"subject 5\.0 is no member .* among the members"):
            bd.forecast(
                model(), post, xr.Dataset(coords={"time": np.arange(1.0, 9.0), "subject": [5.0]})
            )

    def test_members_that_the_fit_has_not_seen(self, post):
        """One that is new is drawn from the population, one that was seen keeps its draws."""
        others = model(members=[7.0, 8.0])
        fc = bd.forecast(others, post, TIMES)
        assert "other members" in fc.attrs["model"]
        rate, held = fc["posterior"]["rate"], post["posterior"]
        np.testing.assert_array_equal(rate.sel(subject=7.0), held["rate"].sel(subject=7.0))
        z = (np.log(rate.sel(subject=8.0)) - np.log(held["rate.center"])) / held["rate.spread"]
        assert abs(float(z.mean())) < 0.2 and 0.85 < float(z.std()) < 1.15
        seen, new = (fc["conditional_mean"]["y"].sel(subject=s) for s in (7.0, 8.0))
        for found, own in ((new, rate.sel(subject=8.0)), (seen, held["rate"].sel(subject=7.0))):
            np.testing.assert_allclose(found, 4 * np.exp(-own.values[..., None] * TIMES), rtol=1e-5)
        again = bd.evaluate(
            others,
            post,
            lambda m: {"rate": m.layer.layer.function.rate},
            coords={"who": np.array([7.0, 8.0])},
        )
        np.testing.assert_allclose(again["rate"].sel(who=8.0), rate.sel(subject=8.0))

    def test_shrinkage(self, post):
        """What the data fix is not drawn to the middle: 1 − the spread of the mean of z."""
        found = bd.sensitivity.shrinkage(model(), post)
        draws = post["posterior"]
        z = (np.log(draws["rate"]) - np.log(draws["rate.center"])) / draws["rate.spread"]
        assert float(found["rate"]) == pytest.approx(
            1 - float(z.mean(("chain", "draw")).std(ddof=1)), rel=1e-6
        )
        with pytest.raises(ModelError, match="nothing differs between members"):
            bd.sensitivity.shrinkage(model(bd.varying(dist.LogNormal(-1.0, 0.5))), alone(post))

    def test_a_figure_of_each(self, post):
        fc = bd.forecast(model(), post, np.arange(1.0, 9.0))
        fig = bd.plots.plot_members(fc, data(), None, "y")
        shown = [ax for ax in fig.axes if ax.get_visible()]
        assert [ax.get_title(loc="left") for ax in shown] == ["subject 1", "subject 3", "subject 7"]
        for ax, subject in zip(shown, SUBJECTS, strict=True):
            (median,) = (line for line in ax.lines if line.get_label() == "median")
            own = fc["predictions"]["y"].sel(subject=subject)
            np.testing.assert_allclose(median.get_ydata(), own.median(("chain", "draw")))
            (dots,) = (line for line in ax.lines if line.get_label() == "training data")
            assert len(dots.get_ydata()) == int(data()["y"].sel(subject=subject).notnull().sum())
        assert (
            sum(ax.get_visible() for ax in bd.plots.plot_members(fc, None, None, "y", most=2).axes)
            == 2
        )

    @pytest.mark.thorough
    def test_a_visual_predictive_check(self, post):
        ax = bd.plots.plot_vpc(model(), post, data(), "y", bins=4).axes[0]
        (middle,) = (line for line in ax.lines if line.get_label() == "50 % of the data")
        np.testing.assert_allclose(middle.get_xdata(), TIMES)
        np.testing.assert_allclose(middle.get_ydata(), data()["y"].median("subject"))
        with pytest.raises(MismatchError, match="'y' has no value in the data"):
            bd.plots.plot_vpc(model(), post, data() * np.nan, "y")

    def test_a_visual_predictive_check_is_of_new_members(self, post):
        """Of the fitted ones each band is narrower: their data told what each of them is."""

        def widths(**options):
            fig = bd.plots.plot_vpc(model(), post, data(), "y", bins=4, **options)
            outlines = [band.get_paths()[0].vertices.T for band in fig.axes[0].collections]
            areas = [abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) for x, y in outlines]
            return np.array(areas), fig.legends[0].get_title().get_text()

        (anew, unsaid), (fitted, said) = widths(), widths(new_members=False)
        assert (anew > fitted).all()
        assert not unsaid and "conditional on the fitted members" in said

    def test_prediction_correction_removes_what_differs_by_design(self):
        """Twice the start for the third member: corrected,
        its data lie among those of the others.
        """
        expected = np.array([1.0, 1.0, 2.0, 3.0, 3.0, 6.0])
        part_of = np.array([0, 0, 0, 1, 1, 1])
        np.testing.assert_allclose(
            _corrected(1.1 * expected, expected, part_of), [1.1, 1.1, 1.1, 3.3, 3.3, 3.3]
        )
        moved = expected - 2.0  # as of a quantity that changes sign
        np.testing.assert_allclose(
            _corrected(moved + 0.1, moved, part_of), [-0.9, -0.9, -0.9, 1.1, 1.1, 1.1]
        )

    @pytest.mark.thorough
    def test_a_corrected_check_has_its_label(self, post):
        fig = bd.plots.plot_vpc(model(), post, data(), "y", bins=4, corrected=True)
        assert fig.axes[0].get_ylabel().endswith("prediction-corrected")

    @pytest.mark.thorough
    def test_a_visual_predictive_check_of_censored_data(self, post):
        """New data are what would be reported, so that a low quantile of theirs is no lower than
        the limit.
        """
        limit = 0.5
        given = (
            data()
            .assign(y_censored=(data()["y"] < limit).astype(float))
            .assign(y=data()["y"].clip(min=limit))
        )
        drawn = [bd.plots.plot_vpc(model(), post, seen, "y").axes[0] for seen in (given, data())]
        censored, whole = (
            min(b.get_paths()[0].vertices[:, 1].min() for b in ax.collections) for ax in drawn
        )
        assert whole < limit <= censored
        marked = [
            sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "v")
            for ax in drawn
        ]
        assert marked == [int(given["y_censored"].sum()), 0]

    @pytest.mark.thorough
    def test_the_page(self, post):
        fc = bd.forecast(model(), post, np.arange(1.0, 9.0))
        assert "rate[3.0]" in bd.report(post, fc).html


class Oral(bd.Module):
    """One compartment with first-order absorption, by logarithms of elimination, absorption and
    clearance.
    """

    absorption: bd.Scalar
    elimination: bd.Scalar
    clearance: bd.Scalar

    def __call__(self, t, y, u):
        taken = self.absorption * y["gut"]
        return {"gut": -taken, "blood": taken - self.elimination * y["blood"]}

    def concentration(self, t, y, u):
        return {"conc": y["blood"] * self.elimination / self.clearance}


def theophylline(path):
    rows = np.genfromtxt(path, delimiter=",", names=True)
    dosed, seen = rows[rows["AMT"] > 0], rows[rows["EVID"] == 0]
    # Amounts of this table are milligrams; nlme's are milligrams per kilogram.
    doses = dosed["AMT"] / dosed["WT"]
    times = np.unique(seen["TIME"])
    conc = np.full((len(times), len(dosed)), np.nan)
    for row in seen:
        conc[np.searchsorted(times, row["TIME"]), np.flatnonzero(dosed["ID"] == row["ID"])[0]] = (
            row["DV"]
        )
    data = xr.Dataset(
        {"conc": (("time", "subject"), conc)}, {"time": times, "subject": dosed["ID"]}
    )
    return data, doses


@pytest.mark.slow
def test_theophylline_is_that_of_nlme(shared_file):
    """nlme (Pinheiro & Bates 2000, p. 364): log ke −2.43, log ka 0.45, log Cl −3.21, within two
    standard errors.
    """
    data, doses = theophylline(shared_file("data/pk/theo_sd.csv"))
    field = Oral(
        bd.population(dist.LogNormal(0.5, 1.0), dist.HalfNormal(1.0)),
        bd.shared(bd.population(dist.LogNormal(-2.5, 1.0), dist.HalfNormal(0.5)), "elimination"),
        bd.population(dist.LogNormal(-3.0, 1.0), dist.HalfNormal(0.5)),
    )
    one = bd.ODE(field, {"gut": bd.varying(doses), "blood": 0.0}, Oral.concentration, start=0.0)
    model = bd.Model(bd.Each(one, data["subject"].values), bd.NormalNoise(dist.HalfNormal(2.0)))
    post = bd.fit(model, data, bd.NUTS(chains=2, draws=500), progress=False)
    for name, mean, error in (
        ("elimination", -2.43, 0.064),
        ("absorption", 0.45, 0.20),
        ("clearance", -3.21, 0.082),
    ):
        found = float(np.log(post["posterior"][f"{name}.center"]).mean())
        assert abs(found - mean) < 2 * error, (name, found)


def test_a_forecast_of_new_members_knows_no_data_of_the_fitted_ones():
    """Their rates lie around the center of each draw; residuals that hold together go on from
    nothing.
    """
    noise = bd.filtering.CorrelatedNoise(bd.filtering.AR1(0.1, 0.9))
    each = bd.Model(bd.Each(layer(typical()), SUBJECTS), noise)
    rates = np.tile([0.2, 0.4, 0.8], (1, 400, 1))
    draws = {
        "rate": rates,
        "rate.center": np.full((1, 400), 0.4),
        "rate.spread": np.full((1, 400), 0.01),
    }
    by_path = {path: draws[name] for path, name in names(each).items()}
    post = posterior(each, data() * 0.0 + 9.0, {**by_path})
    fc = bd.forecast(each, post, TIMES + 0.1, new_members=True, what_if=True)
    expected = np.broadcast_to(4 * np.exp(-0.4 * (TIMES + 0.1))[:, None], (4, 3))
    spread = 0.1 + 0.01 * 4  # of the noise, and 1 % of the rate
    found = fc["predictions"]["y"].mean(("chain", "draw"))
    np.testing.assert_allclose(found, expected, atol=4 * spread / np.sqrt(400))
    assert (
        list(fc["predictions"]["subject"].values) == list(SUBJECTS) and "train_end" not in fc.attrs
    )
