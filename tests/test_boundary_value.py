"""Boundary-value problems against closed forms and SciPy: order, branches, gradients, failure and a
fit.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from grids import checked_moments
from scipy.integrate import solve_bvp
from scipy.linalg import expm
from scipy.optimize import brentq

import bayes_dasl as bd
from bayes_dasl.equations import BoundaryValue
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose

ALGEBRA = 10 * np.sqrt(np.finfo(float).eps)
ROUNDING = 1e-12
GRADIENT = 1e-6
PLACES = np.array([0.0, 0.13, 0.5, 0.77, 1.0])


def given(places=PLACES, **forcings):
    data = xr.Dataset(
        {name: ("x", v) for name, v in forcings.items()}, {"x": np.asarray(places, float)}
    )
    return bd.inputs(data, forcings=list(forcings), index="x")


@eqx.filter_jit
def solve(layer, inputs):
    return layer(inputs)


class Catalyst(bd.Module):
    """Diffusion and first-order reaction in a slab: c'' = φ² c."""

    thiele: bd.Scalar

    def __call__(self, x, y, u):
        return {"c": y["slope"], "slope": self.thiele**2 * y["c"]}


class Slab(bd.Module):
    """Nothing flows through the middle at 0; the concentration at the surface is given."""

    surface: bd.Scalar = 1.0

    def __call__(self, left, right, u):
        return {"middle": left["slope"], "surface": right["c"] - self.surface}


def slab(p, **options):
    options = {"domain": (0, 1)} | options
    return BoundaryValue(Catalyst(p[0]), Slab(p[1]), {"c": 1.0, "slope": 0.0}, **options)


def concentration(p, x):
    return p[1] * jnp.cosh(p[0] * x) / jnp.cosh(p[0])


class TestSlab:
    p = jnp.asarray([3.0, 1.4])

    # At a node, and a third of the way between two nodes for each number of them.
    @pytest.mark.thorough
    @pytest.mark.parametrize("place", [pytest.param(0.5, marks=pytest.mark.slow), 1 / 3])
    def test_order_four(self, place):
        errors = []
        for nodes in (11, 21, 41):
            prediction = solve(slab(self.p, nodes=nodes), given([place]))
            assert bool(prediction.ok)
            errors.append(float(abs(prediction.values["c"][0] - concentration(self.p, place))))
        orders = np.log2(np.array(errors[:-1]) / errors[1:])
        np.testing.assert_allclose(orders, 4, atol=0.1)

    @pytest.mark.thorough
    def test_a_linear_problem_needs_one_step_and_one_to_confirm_it(self):
        assert solve(slab(self.p), given()).stats["steps"] == 2

    @pytest.mark.slow
    def test_gradients(self):
        inputs = given()

        def loss(p):
            return jnp.sum(jnp.sin(slab(p, nodes=61)(inputs).values["c"]))

        exact = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(concentration(p, PLACES)))))(self.p)
        steps = 1e-5 * jnp.diag(self.p)
        points = jnp.concatenate(
            [jnp.stack([self.p, 0.9 * self.p]), self.p + steps, self.p - steps]
        )
        values, reverse = jax.jit(jax.vmap(jax.value_and_grad(loss)))(points)
        central = (values[2:4] - values[4:]) / (2e-5 * self.p)
        for slopes in (reverse[0], jax.jit(jax.jacfwd(loss))(self.p)):
            np.testing.assert_allclose(slopes, central, rtol=GRADIENT)
            # 61 nodes: 4.5e-6 at 11 of them, and 6⁴ times less.
            np.testing.assert_allclose(slopes, exact, rtol=1e-6)

    def test_tolerances_are_found(self):
        model = bd.Model(slab((dist.LogNormal(0.0, 1.0), 1.0)), noise=bd.NormalNoise(scale=0.1))
        assert bd.updating.tightened(model, 100.0).layer.rtol == pytest.approx(1e-10)

    def test_outputs(self):
        assert set(slab((dist.LogNormal(0.0, 1.0), 1.0)).outputs) == {"c", "slope"}
        effective = lambda x, y, u: {"rate": y["c"] ** 2}  # noqa: E731
        assert slab((1.0, 1.0), observe=effective).outputs == ("rate",)
        assert slab((1.0, 1.0), nodes=10).states == 20


class Bratu(bd.Module):
    """y'' + λ eʸ = 0, y(0) = y(1) = 0: two solutions for 0 < λ < 3.51, and none beyond."""

    strength: bd.Scalar

    def __call__(self, x, y, u):
        return {"y": y["slope"], "slope": -self.strength * jnp.exp(y["y"])}


def zero_at_both_ends(left, right, u):
    return {"left": left["y"], "right": right["y"]}


def bratu(p, guess, **options):
    return BoundaryValue(Bratu(p), zero_at_both_ends, guess, domain=(0.0, 1.0), **options)


class Hump(bd.Module):
    height: Any

    def __call__(self, x, y, u):
        return {"y": 4 * self.height * x * (1 - x), "slope": 4 * self.height * (1 - 2 * x)}


class TestBratu:
    @staticmethod
    def exact(low, high):
        theta = brentq(lambda theta: theta - np.sqrt(2) * np.cosh(theta / 4), low, high, xtol=1e-14)
        return 2 * np.log(np.cosh(theta / 4) / np.cosh((PLACES - 0.5) * theta / 2))

    @pytest.mark.thorough
    @pytest.mark.parametrize(("height", "bracket"), [(0.0, (1.0, 3.0)), (4.0, (5.0, 20.0))])
    def test_the_guess_selects_the_branch(self, height, bracket):
        prediction = solve(bratu(1.0, Hump(jnp.asarray(height)), nodes=101), given())
        assert bool(prediction.ok)
        np.testing.assert_allclose(prediction.values["y"], self.exact(*bracket), atol=1e-5)

    @pytest.mark.parametrize("mode", [jax.grad, pytest.param(jax.jacfwd, marks=pytest.mark.slow)])
    def test_no_solution(self, mode):
        def density(p):
            prediction = bratu(p, {"y": 0.0, "slope": 0.0})(given())
            return jnp.where(prediction.ok, jnp.sum(prediction.values["y"]), -jnp.inf), prediction

        slopes, prediction = jax.jit(jax.vmap(mode(density, has_aux=True)))(
            jnp.asarray([1.0, 4.0, 2.0])
        )
        assert prediction.ok.tolist() == [True, False, True]
        assert all(np.isfinite(v).all() for v in prediction.values.values())
        assert slopes[1] == 0.0
        assert 0 < slopes[0] < slopes[2]


@pytest.mark.slow
def test_troesch_against_scipy():
    """y'' = n sinh(n y), y(0) = 0, y(1) = 1: a boundary layer at the right."""
    n = 3.0

    def field(x, y, u):
        return {"y": y["slope"], "slope": n * jnp.sinh(n * y["y"])}

    def ends(left, right, u):
        return {"left": left["y"], "right": right["y"] - 1}

    def reference():
        rates = lambda x, y: np.stack([y[1], n * np.sinh(n * y[0])])  # noqa: E731
        start = np.stack([np.linspace(0, 1, 20), np.ones(20)])
        found = solve_bvp(
            rates,
            lambda a, b: np.array([a[0], b[0] - 1]),
            np.linspace(0, 1, 20),
            start,
            tol=1e-10,
            max_nodes=10**5,
        )
        assert found.success
        return found.sol(PLACES)[0]

    layers = [
        BoundaryValue(field, ends, lambda x, y, u: {"y": x, "slope": 1.0}, domain=(0, 1), nodes=k)
        for k in (51, 101)
    ]
    coarse, fine = (solve(layer, given()).values["y"] for layer in layers)
    np.testing.assert_allclose(fine, reference(), atol=1e-6)
    # Richardson: what doubling the nodes changes is 15 times the error that is left.
    assert np.max(np.abs(fine - reference())) < np.max(np.abs(coarse - fine)) / 8


@pytest.mark.thorough
def test_forcings_inside_and_at_both_ends():
    """y' = u with u linear: the method is exact for a parabola."""
    layer = BoundaryValue(
        lambda x, y, u: {"y": u["slope"] + 0 * y["y"]},
        lambda left, right, u: {"sum": left["y"] + right["y"] - 2 * u["slope"][0] - u["slope"][1]},
        {"y": 0.0},
        domain=(0, 2),
        forcings=["slope"],
        observe=lambda x, y, u: {"z": y["y"] + u["slope"] + x},
        nodes=7,
    )
    places = np.array([0.0, 0.3, 1.1, 2.0])
    prediction = solve(layer, given(places, slope=3 + 2 * places))
    # y = 3 x + x² + c with 10 + 2 c = 2 * 3 + 7.
    np.testing.assert_allclose(
        prediction.values["z"], 3 * places + places**2 + 1.5 + 3 + 3 * places, rtol=ROUNDING
    )


class Linear(bd.Module):
    matrix: Any

    def __call__(self, x, y, u):
        return {"v": self.matrix @ y["v"]}


@pytest.mark.thorough
def test_arrays():
    """Three coupled numbers, two of them known at the left and one at the right."""
    matrix = np.array([[0.2, 1.0, 0.0], [-1.0, 0.1, 0.5], [0.3, 0.0, -0.7]])

    def ends(left, right, u):
        return {"left": left["v"][:2] - jnp.asarray([1.0, 0.5]), "right": right["v"][2] - 2}

    through = expm(matrix)
    last = (2 - through[2, :2] @ [1.0, 0.5]) / through[2, 2]
    exact = [expm(matrix * x) @ [1.0, 0.5, last] for x in PLACES]
    observe = lambda x, y, u: {"total": y["v"].sum(), "third": y["v"][2]}  # noqa: E731
    layer = BoundaryValue(
        Linear(matrix), ends, {"v": np.zeros(3)}, observe, domain=(0, 1), nodes=41
    )
    values = solve(layer, given()).values
    np.testing.assert_allclose(values["total"], np.sum(exact, axis=1), atol=1e-7)
    np.testing.assert_allclose(values["third"], np.array(exact)[:, 2], atol=1e-7)


class TestFit:
    places, noise = np.linspace(0.0, 1.0, 15), 0.03

    def data(self):
        c = np.asarray(concentration([2.0, 1.0], self.places))
        seen = c + self.noise * np.random.default_rng(1).normal(size=c.size)
        return xr.Dataset({"c": ("x", seen)}, {"x": self.places})

    def model(self):
        layer = slab((dist.Uniform(0.5, 5.0), 1.0), nodes=11)
        return bd.Model(layer, noise={"c": bd.NormalNoise(scale=self.noise)})

    def sd(self):
        sensitivity = jax.jacfwd(lambda thiele: concentration([thiele, 1.0], self.places))(2.0)
        return self.noise / float(jnp.sqrt(jnp.sum(sensitivity**2)))

    @pytest.mark.slow
    def test_log_density(self):
        """Its gradient, and the posterior that it says: there is one unknown number, so a grid will
        do.
        """
        sd = self.sd()
        thiele = np.linspace(2 - 8 * sd, 2 + 8 * sd, 200)
        mean, spread = checked_moments(pose(self.model(), self.data()), thiele, -0.4, rel=GRADIENT)
        assert abs(mean - 2.0) < 4 * sd
        # The curvature changes by as much as 2 sd do.
        assert spread == pytest.approx(sd, rel=0.1)

    @pytest.mark.slow
    def test_nuts_recovers_the_thiele_modulus(self):
        sd = self.sd()
        draws = bd.fit(self.model(), self.data(), bd.NUTS(chains=2, warmup=100, draws=200), key=0)
        found = draws["posterior"]["thiele"].values
        assert abs(found.mean() - 2.0) < 4 * sd
        # 400 draws of NUTS are worth at least 100 independent ones; the curvature changes by as
        # much as 2 sd do.
        assert found.std() == pytest.approx(sd, rel=4 / np.sqrt(200))


class TestOutsideTheDomain:
    def test_is_refused(self):
        with pytest.raises(
            DataError, match=r"x 1\.2 lies outside the domain of the model, which is from 0 to 1"
        ):
            slab((1.0, 1.0))(given([0.0, 1.2, 1.4]))

    def test_is_refused_before_a_fit(self):
        data = xr.Dataset({"c": ("x", [1.0, 1.0])}, {"x": [-0.5, 0.5]})
        model = bd.Model(
            slab((dist.Uniform(0.5, 5.0), 1.0)), noise={"c": bd.NormalNoise(scale=0.1)}
        )
        with pytest.raises(DataError, match=r"x -0\.5 lies outside the domain"):
            pose(model, data)

    @pytest.mark.thorough
    def test_is_flagged_where_places_are_traced(self):
        assert not bool(solve(slab((1.0, 1.0)), given([0.0, 1.2])).ok)


@pytest.mark.usefixtures("unchecked")
class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"vector_field": None}, "vector_field must be a function, not None"),
            ({"boundary": 1.0}, r"boundary must be a function, not 1\.0"),
            ({"domain": (1.0, 0.0)}, "domain must be two finite numbers"),
            ({"domain": (0.0, np.inf)}, "domain must be two finite numbers"),
            ({"domain": (0.0, 0.5, 1.0)}, "domain must be two finite numbers"),
            ({"nodes": 2}, "nodes must be a whole number of at least 3, not 2"),
            ({"nodes": 9.5}, "nodes must be a whole number of at least 3"),
            ({"atol": 0.0}, "rtol and atol must be positive"),
            ({"guess": {}}, "guess must be a dict"),
            ({"guess": {"c": np.ones(2), "slope": 0.0}}, r"guess\['c'\] must be a number"),
            (
                {"guess": {"c": dist.Normal(0.0, 1.0), "slope": 0.0}},
                "nothing in it can be inferred",
            ),
        ],
    )
    def test_when_built(self, options, message):
        valid = {
            "vector_field": Catalyst(1.0),
            "boundary": Slab(),
            "guess": {"c": 1.0, "slope": 0.0},
            "domain": (0.0, 1.0),
        }
        with pytest.raises(ModelError, match=message):
            BoundaryValue(**(valid | options))

    @pytest.mark.parametrize(
        ("rates", "message"),
        [
            ({"c": 1.0}, "the vector field returns derivatives of c but the states are c, slope"),
            (
                {"c": 1.0, "slope": 1.0, "z": 1.0},
                "derivatives of c, slope, z but the states are c, slope",
            ),
            (
                {"c": np.ones(2), "slope": 1.0},
                r"derivatives of 'c' with shape \(2,\), but its own shape is \(\)",
            ),
        ],
    )
    def test_rates(self, rates, message):
        layer = BoundaryValue(
            lambda x, y, u: rates, Slab(), {"c": 1.0, "slope": 0.0}, domain=(0, 1)
        )
        with pytest.raises(ModelError, match=message):
            layer(given())

    @pytest.mark.parametrize("ends", [{"left": 1.0}, {"left": 1.0, "right": 1.0, "more": 1.0}, {}])
    def test_conditions(self, ends):
        layer = BoundaryValue(
            Catalyst(1.0), lambda *_: ends, {"c": 1.0, "slope": 0.0}, domain=(0, 1)
        )
        with pytest.raises(
            ModelError, match=f"the boundary returns {len(ends)} residuals but there are 2 states"
        ):
            layer(given())

    def test_conditions_that_contradict(self):
        """Two values for one end, and none for the other: the system is singular."""

        def ends(left, right, u):
            return {"one": left["c"], "other": left["c"] - 1}

        prediction = solve(
            BoundaryValue(Catalyst(1.0), ends, {"c": 1.0, "slope": 0.0}, domain=(0, 1)), given()
        )
        assert not bool(prediction.ok)
