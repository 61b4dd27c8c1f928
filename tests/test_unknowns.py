"""Numbers that are shared, that depend on other numbers,
and observe as a method of the equations.
"""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.handlers import seed, trace
from scipy import stats

import bayes_dasl as bd
from bayes_dasl._statistics import describe_distribution
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose
from bayes_dasl.prediction import names
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths, realise, sample

ROOT = Path(__file__).parents[1]
TIMES = np.arange(1.0, 7.0)


class Bucket(bd.Module):
    """A store that drains into a stream."""

    lag: bd.Scalar

    def __call__(self, t, y, u):
        return {"store": -y["store"] / self.lag}

    def flow(self, t, y, u):
        return {"Q": y["store"] / self.lag}


class Pair(bd.Module):
    left: Any
    right: Any


class Line(bd.Module):
    slope: bd.Scalar
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


def bucket(lag, **more):
    layer = bd.ODE(Bucket(lag), {"store": 10.0}, start=0.0, **({"observe": Bucket.flow} | more))
    return bd.Model(layer, bd.NormalNoise(0.1))


def flows(lag=3.0):
    return xr.Dataset({"Q": ("time", 10 * np.exp(-TIMES / lag) / lag)}, {"time": TIMES})


class TestShared:
    def test_is_drawn_once_and_stands_everywhere(self):
        rate = bd.shared(dist.LogNormal(0.0, 1.0), "rate")
        tree = Pair(rate, Pair(rate, dist.Normal(0.0, 1.0)))
        assert list(paths(tree)) == ["rate", "right.right"]
        assert paths(tree)["rate"].places == ("left", "right.left")
        with trace() as sites, seed(rng_seed=0):
            drawn = sample(tree)
        assert list(sites) == ["rate", "right.right"]
        assert drawn.left == drawn.right.left == sites["rate"]["value"]
        assert list(draw_prior(tree, 3, key=jax.random.key(0))) == ["rate", "right.right"]

    def test_a_module_is_shared_with_all_of_its_numbers(self):
        network = bd.shared(bd.Network.mlp(("x",), ("y",), width=3, scale=1.0), "closure")
        tree = Pair(network, network)
        assert all(path.startswith("closure.") for path in paths(tree))
        assert paths(tree).keys() == {
            f"closure.{path}" for path in paths(bd.Network.mlp(("x",), ("y",), width=3))
        }
        drawn = realise(tree, {path: jnp.ones(leaf.shape) for path, leaf in paths(tree).items()})
        assert eqx.tree_equal(drawn.left, drawn.right)

    def test_survives_tree_at_jit_and_vmap(self):
        rate = bd.shared(dist.LogNormal(0.0, 1.0), "rate")
        tree = eqx.tree_at(lambda t: t.right.right, Pair(rate, Pair(rate, 1.0)), 2.0)
        assert list(paths(tree)) == ["rate"]
        both = jax.jit(lambda tree, r: jax.vmap(lambda r: realise(tree, {"rate": r}).right.left)(r))
        np.testing.assert_array_equal(both(tree, jnp.arange(3.0)), [0.0, 1.0, 2.0])
        half_known = eqx.tree_at(lambda t: t.left, tree, 1.0)
        assert paths(half_known)["rate"].places == ("right.left",)

    @pytest.mark.parametrize("name", ["", "two words", "a.b", "1st"])
    def test_refuses_what_is_no_name(self, name):
        with pytest.raises(ModelError, match="shared needs a name"):
            bd.shared(dist.Normal(0.0, 1.0), name)

    def test_refuses_what_is_known(self):
        with pytest.raises(ModelError, match="is unknown"):
            bd.shared(1.0, "rate")

    def test_two_unknowns_of_one_name_are_refused(self):
        a, b = (bd.shared(dist.LogNormal(m, 1.0), "rate") for m in (0.0, 1.0))
        with pytest.raises(ModelError, match="'rate' is the name of two unknown numbers"):
            bd.Model(bd.Algebraic(Line(a, b)), bd.NormalNoise(1.0))

    def test_equal_priors_of_one_name_are_one_number(self):
        a, b = (bd.shared(dist.LogNormal(0.0, 1.0), "rate") for _ in range(2))
        model = bd.Model(bd.Algebraic(Line(a, b)), bd.NormalNoise(1.0))
        assert list(paths(model)) == ["rate"]

    def test_a_name_of_an_observable_is_refused(self):
        with pytest.raises(ModelError, match="cannot be called 'y'"):
            bd.Model(
                bd.Algebraic(Line(bd.shared(dist.Normal(0.0, 1.0), "y"), 0.0)), bd.NormalNoise(1.0)
            )

    def test_one_object_without_it_is_refused_with_the_way_that_works(self):
        prior = dist.Normal(0.0, 1.0)
        with pytest.raises(ModelError, match=r"bd\.shared"):
            bd.Model(bd.Algebraic(Line(prior, prior)), bd.NormalNoise(1.0))
        with pytest.raises(
            ModelError, match=r"'rate' and 'layer.function.level'|'layer.function.level' and 'rate'"
        ):
            bd.Model(bd.Algebraic(Line(bd.shared(prior, "rate"), prior)), bd.NormalNoise(1.0))


class TestDependent:
    def test_is_drawn_after_what_it_depends_on(self):
        tree = Pair(bd.dependent(dist.LogNormal, dist.Normal(0.0, 1.0), 0.3), 1.0)
        assert list(paths(tree)) == ["left.loc", "left"]
        with trace() as sites, seed(rng_seed=0):
            drawn = sample(tree)
        assert drawn.left == sites["left"]["value"]
        assert sites["left"]["fn"].loc == sites["left.loc"]["value"]

    @pytest.mark.thorough
    def test_prior_draws_have_the_moments_of_the_hierarchy(self):
        inner = bd.dependent(dist.Normal, dist.Normal(1.0, 2.0), 1.0)
        tree = Pair(bd.dependent(dist.Normal, inner, scale=2.0), 1.0)
        drawn = draw_prior(tree, 4000, key=jax.random.key(1))
        assert list(drawn) == ["left.loc.loc", "left.loc", "left"]
        assert stats.kstest(np.asarray(drawn["left"]), stats.norm(1.0, 3.0).cdf).pvalue > 1e-3
        assert np.corrcoef(drawn["left"], drawn["left.loc"])[0, 1] == pytest.approx(
            np.sqrt(5) / 3, abs=0.03
        )

    def test_elements_of_a_vector(self):
        both = bd.shared(dist.Normal(0.0, 1.0).expand((2,)).to_event(1), "both")
        tree = Pair(both[0], both[1])
        assert realise(tree, {"both": jnp.asarray([1.0, 2.0])}) == Pair(
            jnp.asarray(1.0), jnp.asarray(2.0)
        )
        assert describe_distribution(both[1]) == "getitem(both, 1)"
        with pytest.raises(TypeError, match="not iterable"):
            list(both)

    def test_what_a_function_makes_is_named(self):
        leaf = bd.dependent(
            lambda m: dist.LogNormal(m, 0.3).expand((2,)).to_event(1), dist.Normal(0.0, 1.0)
        )
        assert describe_distribution(leaf) == "LogNormal given Normal(0, 1)"

    @pytest.mark.thorough
    def test_arguments_keep_their_order(self):
        leaf = bd.dependent(dist.Beta, dist.LogNormal(3.0, 1e-3), dist.LogNormal(0.0, 1e-3))
        assert list(paths(Pair(leaf, 1.0))) == [
            "left.concentration1",
            "left.concentration0",
            "left",
        ]
        expected = np.exp(3.0) / (np.exp(3.0) + 1)
        for one in (leaf, jax.tree.map(lambda x: x, leaf)):
            assert one.example().concentration1 == one.example().concentration0
            assert np.mean(one.sample(jax.random.key(0), (4000,))) == pytest.approx(
                expected, abs=0.01
            )
            drawn = draw_prior(Pair(one, 1.0), 4000, key=jax.random.key(0))
            assert np.mean(drawn["left"]) == pytest.approx(expected, abs=0.01)

    @pytest.mark.thorough
    def test_own_draws_are_those_of_the_hierarchy(self):
        leaf = bd.dependent(dist.Normal, dist.Normal(1.0, 2.0), 1.0)
        assert (
            stats.kstest(
                np.asarray(leaf.sample(jax.random.key(0), (4000,))), stats.norm(1.0, 5.0**0.5).cdf
            ).pvalue
            > 1e-3
        )

    def test_arithmetic(self):
        f, k = bd.shared(dist.Uniform(0.0, 1.0), "f"), bd.shared(dist.LogNormal(0.0, 1.0), "k")
        for leaf, said, value in (
            (2 * k, "2 * k", 6.0),
            (1 - f, "1 - f", 0.75),
            (20_010.0 - k, "20010 - k", 20_007.0),
            (k / f, "k / f", 12.0),
            (-(k**2) + f, "-(k ** 2) + f", -8.75),
            (np.float64(2.0) * k, "2 * k", 6.0),
            (jnp.asarray(2.0) - k, "2 - k", -1.0),
            (bd.dependent(jnp.log, k), "log(k)", np.log(3.0)),
            (bd.dependent(lambda k: k + 1, k), "a function(k)", 4.0),
        ):
            tree = Pair(leaf, f)
            assert set(paths(tree)) <= {"f", "k"}
            assert realise(
                tree, {"f": jnp.asarray(0.25), "k": jnp.asarray(3.0)}
            ).left == pytest.approx(value)
            assert describe_distribution(leaf) == said

    def test_units_groups_and_names(self):
        class Rates(bd.Module):
            rate: bd.Scalar = bd.field(units="1/h")

        leaf = bd.dependent(dist.LogNormal, dist.Normal(0.0, 1.0), dist.HalfNormal(1.0))
        found = paths(Rates(leaf))
        assert [(x.path, x.units) for x in found.values()] == [
            ("rate.loc", ""),
            ("rate.scale", ""),
            ("rate", "1/h"),
        ]
        model = bd.Model(bd.Algebraic(Line(leaf, 0.0)), bd.NormalNoise(dist.HalfNormal(1.0)))
        assert list(names(model).values()) == ["slope.loc", "slope.scale", "slope", "scale"]

    def test_what_depends_on_a_network(self):
        network = bd.Network.mlp(("weight",), ("clearance",), width=3, scale=1.0)

        def prior(network, scale):
            return dist.LogNormal(
                network(0.0, {}, {"weight": jnp.asarray(0.5)})["clearance"], scale
            )

        found = paths(Pair(bd.dependent(prior, network, dist.HalfNormal(1.0)), 1.0))
        assert {leaf.group for path, leaf in found.items() if path.startswith("left.network.")} == {
            "network"
        }
        assert found["left"].group == "science"

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: bd.dependent(dist.Normal, 0.0, 1.0),
                "nothing that this Normal depends on is unknown",
            ),
            (
                lambda: bd.dependent(dist.Normal, dist.Normal(0.0, 1.0), wide=1.0),
                "Normal cannot be worked out",
            ),
            (
                lambda: bd.dependent(dist.Uniform, 0.0, dist.HalfNormal(1.0)),
                "bounds of this Uniform depend",
            ),
            (
                lambda: bd.shared(2 * bd.shared(dist.HalfNormal(1.0), "k"), "twice"),
                "worked out of other numbers",
            ),
        ],
    )
    def test_refuses(self, make, message):
        with pytest.raises(ModelError, match=message):
            make()

    @pytest.mark.parametrize(
        ("family", "arguments"),
        [
            (dist.Poisson, (dist.HalfNormal(1.0),)),
            (dist.Delta, (dist.HalfNormal(1.0),)),
        ],
    )
    def test_no_priors_of_a_number_are_refused_by_the_model(self, family, arguments):
        with pytest.raises(ModelError, match=r"layer\.function\.slope"):
            bd.Model(bd.Algebraic(Line(bd.dependent(family, *arguments), 0.0)), bd.NormalNoise(1.0))


class TestFlatDensity:
    """In the unconstrained space numbers are in units of what they depend on; the density is that
    of the model.
    """

    families = (
        lambda m, s: bd.dependent(dist.Normal, m, s),
        lambda m, s: bd.dependent(dist.LogNormal, m, s),
        lambda m, s: bd.dependent(dist.StudentT, 4.0, m, s),
        lambda m, s: bd.dependent(dist.Gamma, 2.0, s),
        lambda m, s: bd.dependent(dist.HalfNormal, s),
        lambda m, s: bd.dependent(lambda m, s: dist.Normal(m, s).expand((1,)).to_event(1), m, s),
        lambda m, s: bd.dependent(
            lambda m, s: dist.MultivariateNormal(jnp.full(2, m), s * jnp.eye(2)), m, s
        ),
        lambda m, s: bd.dependent(lambda s: dist.Beta(1 + s, 2.0), s),
    )

    @pytest.mark.thorough(
        "<lambda>1", "<lambda>2", "<lambda>3", "<lambda>4", "<lambda>5", "<lambda>6", "<lambda>7"
    )
    @pytest.mark.parametrize("family", families)
    def test_has_the_volume_of_the_way_there(self, family):
        class Anything(bd.Module):
            number: Any

            def __call__(self, t, y, u):
                return {"y": jnp.sum(self.number) + t}

        leaf = family(dist.Normal(1.0, 2.0), dist.LogNormal(0.0, 0.5))
        model = bd.Model(bd.Algebraic(Anything(leaf)), bd.NormalNoise(1.0))
        problem = pose(model, xr.Dataset({"y": ("time", TIMES)}, {"time": TIMES}))
        x = 0.3 * jax.random.normal(jax.random.key(0), (problem.dimension,))
        values = problem.constrain(x)
        np.testing.assert_allclose(problem.unconstrain(values), x, atol=1e-6)

        def free(x):
            from numpyro.distributions import biject_to

            return jnp.concatenate(
                [
                    jnp.ravel(biject_to(leaf.distribution.support).inv(problem.constrain(x)[path]))
                    for path, leaf in paths(model).items()
                ]
            )

        # The density of values, with the volume by NumPyro's bijectors and by the Jacobian of the
        # way to their space.
        log_joint, _ = numpyro.infer.util.log_density(
            numpyro.handlers.substitute(model, data=values),
            (problem.inputs, problem.observed),
            {},
            {},
        )
        volume = jnp.linalg.slogdet(jax.jacobian(free)(x))[1]
        for path, leaf in paths(model).items():
            way = numpyro.distributions.biject_to(leaf.distribution.support)
            at = way.inv(values[path])
            volume += jnp.sum(way.log_abs_det_jacobian(at, values[path]))
        assert problem.log_density(x) == pytest.approx(float(log_joint + volume), rel=1e-6)
        terms = problem.terms(x)
        assert sum(terms) == pytest.approx(float(problem.log_density(x)), rel=1e-9)

    @pytest.mark.thorough
    def test_numbers_that_scale_others_are_no_funnel(self):
        leaf = bd.dependent(dist.Normal, 0.0, dist.HalfNormal(1.0))
        model = bd.Model(bd.Algebraic(Line(leaf, 0.0)), bd.NormalNoise(1e3))
        problem = pose(model, xr.Dataset({"y": ("time", TIMES)}, {"time": TIMES}))
        prior = problem.prior(2000, key=jax.random.key(0))
        assert stats.kstest(np.asarray(prior[:, 1]), stats.norm.cdf).pvalue > 1e-3
        assert abs(np.corrcoef(prior[:, 0], np.abs(prior[:, 1]))[0, 1]) < 0.08


class TestObserveAsAMethod:
    @pytest.mark.thorough
    def test_is_called_on_the_realised_equations(self):
        model = bucket(dist.LogNormal(1.0, 0.5))
        assert list(paths(model)) == ["layer.vector_field.lag"]
        found = realise(model, {"layer.vector_field.lag": jnp.asarray(3.0)}).predict(
            model.inputs(flows())
        )
        np.testing.assert_allclose(found.values["Q"], flows()["Q"], rtol=1e-4)

    @pytest.mark.thorough
    def test_of_a_part_of_a_hybrid(self):
        closure = bd.Network.mlp(("store",), ("store",), width=3, scale=0.1)
        field = bd.Residual(Bucket(dist.LogNormal(1.0, 0.5)), closure)
        model = bd.Model(
            bd.ODE(field, {"store": 10.0}, Bucket.flow, start=0.0), bd.NormalNoise(0.1)
        )
        assert model.observables == ("Q",)
        pose(model, flows())

    def test_a_method_of_an_object_with_its_own_unknowns_is_refused(self):
        equations = Bucket(dist.LogNormal(1.0, 0.5))
        with pytest.raises(ModelError, match=r"write Bucket\.flow"):
            bucket(equations.lag, observe=equations.flow)


def decay(t, y, u):
    return {"y": -y["y"]}


def line(function=Line, noise=None):
    return bd.Model(bd.Algebraic(function), bd.NormalNoise(1.0) if noise is None else noise)


def ode(field=decay, start=1.0, noise=None, **more):
    return bd.Model(
        bd.ODE(field, {"y": start}, start=0.0, **more),
        bd.NormalNoise(1.0) if noise is None else noise,
    )


class Scaled(bd.Module):
    """Any function of the time as a vector field."""

    inner: Any

    def __call__(self, t, y, u):
        return {"y": sum(self.inner(t, y, u).values()) - y["y"]}


class Held(bd.Module):
    """Numbers in a dict, a list and a tuple."""

    numbers: dict

    def __call__(self, t, y, u):
        return {"y": self.numbers["list"][0] + self.numbers["tuple"][1] * t}


class Square(bd.Module):
    number: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": y["y"] ** 2 - self.number - t}


def network(scale):
    return bd.Network.mlp(("t",), ("g",), scale, width=2, depth=1)


def diffusing(source, boundary):
    grid = bd.pde.Grid(x=(0.0, 1.0, 8))
    ends = {"x_low": bd.pde.Dirichlet(boundary), "x_high": bd.pde.Dirichlet(0.0)}
    layer = bd.pde.PDE(
        bd.pde.FiniteVolume(grid, diffusion=source, boundary=ends),
        {"y": 1.0},
        lambda t, y, u: {"y": jnp.mean(y["y"])},
        start=0.0,
    )
    return bd.Model(layer, bd.NormalNoise(1.0))


def coupled(strength, timescale):
    parts = {"a": lambda t, y, u: {"y": -y["y"] + u["z"]}, "b": lambda t, y, u: {"z": -y["z"]}}
    field = bd.multiscale.Coupling(
        parts,
        bd.multiscale.Link("b.z", "a.z", strength),
        {"a": ("y",), "b": ("z",)},
        {"b": timescale},
    )
    layer = bd.ODE(field, {"y": 1.0, "z": 1.0}, lambda t, y, u: {"y": y["y"]}, start=0.0)
    return bd.Model(layer, bd.NormalNoise(1.0))


# Each place that docs/how-to/priors.md names, in its order, and a model with an unknown there.
PLACES = {
    "a parameter": lambda q: line(Line(q, 0.0)),
    "an item of a dict, list or tuple": lambda q: line(Held({"list": [q], "tuple": (0.0, 1.0)})),
    "a parameter of an implicit equation": lambda q: bd.Model(
        bd.Implicit(Square(q), {"y": 2.0}), bd.NormalNoise(1.0)
    ),
    "the diffusion of an SDE": lambda q: bd.Model(
        bd.equations.SDE(decay, {"y": q}, {"y": 1.0}, (0.0, 6.0, 12)), bd.NormalNoise(1.0)
    ),
    "an initial state": lambda q: ode(start=q),
    "its standard deviation in a filter": lambda q: bd.Model(
        bd.filtering.Kalman(decay, {"y": 0.1}, {"y": 1.0}, {"y": q}), bd.NormalNoise(1.0)
    ),
    "the amount of a jump": lambda q: ode(jumps=bd.Jump(2.5, {"y": q})),
    "the time of a jump": lambda q: ode(jumps=bd.Jump(q, {"y": 1.0})),
    "the scale": lambda q: ode(noise=bd.NormalNoise(q)),
    "the degrees of freedom": lambda q: ode(noise=bd.StudentTNoise(q, 1.0)),
    "the typical scale of a `VaryingScale`": lambda q: ode(
        noise=bd.NormalNoise(bd.noise.VaryingScale(q, lambda t, y, u: {"h": 0.1 * t}))
    ),
    "the scale of a network": lambda q: ode(Scaled(network(q))),
    "level and scale of a `Basis`": lambda q: ode(
        Scaled(bd.Basis(bd.bases.BSpline(0.0, 6.0, 5), "t", "g", scale=q))
    ),
    "the length of a Gaussian process": lambda q: ode(
        Scaled(bd.Basis(bd.bases.HilbertGP(0.0, 6.0, 5, length=q), "t", "g"))
    ),
    "the strength of a link": lambda q: coupled(q, 1.0),
    "the time scale of a part": lambda q: coupled(1.0, q),
    "a coefficient": lambda q: diffusing(q, 0.0),
    "a boundary value": lambda q: diffusing(0.1, q),
}

UNKNOWNS = {
    "a distribution": lambda: dist.LogNormal(0.5, 0.3),
    "shared": lambda: bd.shared(dist.LogNormal(0.5, 0.3), "q"),
    "dependent": lambda: bd.dependent(dist.LogNormal, dist.Normal(0.5, 0.1), 0.3),
    "worked out": lambda: 0.5 * bd.shared(dist.LogNormal(0.5, 0.3), "q"),
}


# Others are tried with the slow tests: each compiles a solve.
USUAL = ("a parameter", "an initial state", "the scale")


class TestWhere:
    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("place", "unknown"),
        [
            pytest.param(
                place,
                unknown,
                marks=[] if at in USUAL and kind == "worked out" else pytest.mark.slow,
                id=f"{at}-{kind}",
            )
            for at, place in PLACES.items()
            for kind, unknown in UNKNOWNS.items()
        ],
    )
    def test_an_unknown_number_may_stand(self, place, unknown):
        model = place(unknown())
        known = place(1.5)
        assert len(paths(model)) > len(paths(known))
        data = xr.Dataset({"y": ("time", np.linspace(1.0, 2.0, 6))}, {"time": TIMES})
        problem = pose(model, data)
        position = problem.prior(4, key=jax.random.key(0))
        value, gradient = jax.jit(jax.vmap(jax.value_and_grad(problem.log_density)))(position)
        assert np.isfinite(value).all() and np.isfinite(gradient).all()
        # The data depend on it, and so on what it depends on.
        of_data = jax.grad(lambda x: problem.terms(x).data)(position[0])
        own = [path for path in paths(model) if path not in paths(known)]
        site = problem.sites[own[-1]]
        assert np.abs(of_data[site.start : site.start + site.size]).max() > 0

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda q: bd.Implicit(Square(1.0), {"y": q}), "nothing in it can be inferred"),
            (lambda q: bd.SteadyState(decay, {"y": q}), "it must be a number"),
            (lambda q: bd.ODE(decay, {"y": 1.0}, start=q), "start must be a known number"),
        ],
    )
    @pytest.mark.parametrize("unknown", UNKNOWNS.values(), ids=UNKNOWNS)
    def test_where_it_may_not_that_is_said(self, make, message, unknown):
        with pytest.raises(ModelError, match=message):
            make(unknown())

    def test_the_docs_name_each_place(self):
        page = (ROOT / "docs" / "how-to" / "priors.md").read_text(encoding="utf-8")
        table = page.split("## Where a prior may stand")[1].split("\n## ")[0]
        rows = [line.strip("| ") for line in table.splitlines() if line.startswith("|")][2:]
        cells = [row.partition("|")[2].strip() for row in rows]
        assert [place for cell in cells for place in cell.split("; ")] == [*PLACES]
