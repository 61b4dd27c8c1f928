"""The implicit layer against closed forms, NumPy and SciPy: roots, branches, gradients, failure and
a fit.
"""

from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from grids import checked_moments
from scipy.optimize import brentq
from scipy.special import lambertw

import bayes_dasl as bd
from bayes_dasl import Implicit
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose
from bayes_dasl.random import paths

# Newton's method is of order two: a root is exact to rounding whatever the tolerance, and so are
# its derivatives.
ALGEBRA = 10 * np.sqrt(np.finfo(float).eps)
EXACT = 1e-12
GRADIENT = 1e-6


def given(values, index="sample", **forcings):
    data = xr.Dataset(
        {name: (index, v) for name, v in forcings.items()}, {index: np.asarray(values, float)}
    )
    return bd.inputs(data, forcings=list(forcings), index=index)


@eqx.filter_jit
def solve(layer, inputs):
    return layer(inputs)


@cache
def compiled(loss, mode=jax.value_and_grad):
    """`loss(p, inputs)`, which has a prediction beside it, with its slopes: one program for all
    numbers.
    """
    return jax.jit(jax.vmap(mode(loss, has_aux=True), (0, None)))


def check_gradients(loss, p, inputs, exact=None, forward=False):
    """Reverse mode, and forward mode if asked for, in a batch, against central differences and a
    closed form.

    Returns the prediction at p.
    """
    p = jnp.asarray(p, float)
    steps = 1e-5 * jnp.diag(p)
    points = jnp.concatenate([p[None], p + steps, p - steps])
    (values, predictions), slopes = compiled(loss)(points, inputs)
    central = (values[1 : p.size + 1] - values[p.size + 1 :]) / (2e-5 * p)
    found = [slopes[0]]
    if forward:
        found.append(compiled(loss, jax.jacfwd)(jnp.stack([1.03 * p, p]), inputs)[0][1])
    for slope in found:
        np.testing.assert_allclose(slope, central, rtol=GRADIENT)
        if exact is not None:
            np.testing.assert_allclose(slope, exact, rtol=ALGEBRA)
    return jax.tree.map(lambda x: x[0], predictions)


class VanDerWaals(bd.Module):
    """Volume from pressure: J, mol and K."""

    a: bd.Scalar = bd.field(units="Pa m6/mol2")
    b: bd.Scalar = bd.field(units="m3/mol")

    def __call__(self, t, y, u):
        v = y["volume"]
        return {"volume": (u["pressure"] + self.a / v**2) * (v - self.b) - 8.314 * t}


def vapour_or_liquid(p):
    """The guess says which."""
    guess = lambda t, y, u: {"volume": u["start"]}  # noqa: E731
    return Implicit(
        VanDerWaals(p[0], p[1]), guess, forcings=["pressure", "start"], index="temperature"
    )


def logarithm_of_volumes(p, inputs):
    prediction = vapour_or_liquid(p)(inputs)
    return jnp.sum(jnp.log(prediction.values["volume"])), prediction


class TestVanDerWaals:
    temperatures = np.array([250.0, 280.0, 300.0, 350.0])
    pressures = np.array([1e6, 4.5e6, 8e6, 2e7])
    p = np.array([0.364, 4.27e-5])

    def inputs(self, start):
        return given(self.temperatures, "temperature", pressure=self.pressures, start=start)

    def roots(self):
        a, b = self.p
        for t, pressure in zip(self.temperatures, self.pressures, strict=True):
            every = np.roots([pressure, -(pressure * b + 8.314 * t), a, -a * b])
            yield np.sort(every[abs(every.imag) < 1e-12].real)

    @pytest.mark.thorough
    def test_the_vapour_and_the_liquid_and_their_gradients(self):
        roots = list(self.roots())
        assert [r.size for r in roots] == [3, 3, 1, 1]
        a, b = self.p
        # The ideal gas leads to the vapour, a volume near b to the liquid.
        for start, which in (
            (8.314 * self.temperatures / self.pressures, -1),
            (np.full(4, 1.05 * b), 0),
        ):
            v = np.array([r[which] for r in roots])
            slope = self.pressures + a / v**2 - 2 * a / v**3 * (v - b)
            by_a, by_b = -(v - b) / v**2 / slope, (self.pressures + a / v**2) / slope
            exact = [np.sum(by_a / v), np.sum(by_b / v)]
            prediction = check_gradients(logarithm_of_volumes, self.p, self.inputs(start), exact)
            assert bool(prediction.ok)
            np.testing.assert_allclose(prediction.values["volume"], v, rtol=1e-9)

    def test_units(self):
        layer = vapour_or_liquid((dist.LogNormal(-1.0, 0.1), 4.27e-5))
        assert {path: leaf.units for path, leaf in paths(layer).items()} == {
            "equations.a": "Pa m6/mol2"
        }


class Colebrook(bd.Module):
    """Turbulent friction: x = 1/√f, where f is the friction factor."""

    roughness: bd.Scalar

    def __call__(self, t, y, u):
        x = y["x"]
        return {"x": x + 2 * jnp.log10(self.roughness / 3.7 + 2.51 * x / u["reynolds"])}


def friction(t, y, u):
    return {"friction": y["x"] ** -2}


@pytest.mark.slow
def test_colebrook():
    reynolds, roughness = np.array([5e3, 1e5, 1e7]), 1e-3
    inputs = given(range(3), reynolds=reynolds)

    def layer(p):
        return Implicit(
            Colebrook(p[0]), {"x": 7.0}, friction, forcings=["reynolds"], index="sample"
        )

    assert layer([dist.LogNormal(-7.0, 1.0)]).outputs == ("friction",)
    # x = −c ln(k + x / s) has the closed form x = c W(s / c · exp(s k / c)) − s k.
    c, s = 2 / np.log(10), reynolds / 2.51
    sk = s * roughness / 3.7
    log = np.log(s / c) + sk / c
    w = np.array(
        [brentq(lambda w, z=z: w + np.log(w) - z, 1e-3, 1e6, xtol=1e-14, rtol=1e-14) for z in log]
    )
    np.testing.assert_allclose(w[:2], lambertw(np.exp(log[:2])).real, rtol=1e-12)
    # Where s k is large, it cancels: c (W - log) = −c ln W.
    x = -c * (np.log(w) - np.log(s / c))
    argument = roughness / 3.7 + 2.51 * x / reynolds
    by_roughness = -c / 3.7 / argument / (1 + c * 2.51 / reynolds / argument)

    def loss(p, inputs):
        prediction = layer(p)(inputs)
        return jnp.sum(prediction.values["friction"]), prediction

    prediction = check_gradients(loss, [roughness], inputs, [np.sum(-2 * x**-3.0 * by_roughness)])
    assert bool(prediction.ok)
    np.testing.assert_allclose(prediction.values["friction"], x**-2.0, rtol=1e-10)


class Binding(bd.Module):
    """Free ligand and receptor that bind to a complex; totals are known."""

    affinity: bd.Scalar

    def __call__(self, t, y, u):
        bound = self.affinity * y["ligand"] * y["receptor"]
        # Of another order than the unknowns, and scales that lie far apart.
        return {
            "receptor": 1e6 * (y["receptor"] + bound - u["receptors"]),
            "ligand": 1e-6 * (y["ligand"] + bound - t),
        }


class TestChemicalEquilibrium:
    ligands, receptors = np.array([0.01, 0.5, 1.0, 30.0]), np.array([1.0, 1.0, 2.0, 1.0])
    inputs = given(ligands, "ligands", receptors=receptors)

    def layer(self, p):
        guess = lambda t, y, u: {"receptor": u["receptors"], "ligand": t}  # noqa: E731
        return Implicit(Binding(p[0]), guess, forcings=["receptors"], index="ligands")

    def exact(self, affinity):
        total = self.ligands + self.receptors + 1 / affinity
        bound = (
            2
            * self.ligands
            * self.receptors
            / (total + jnp.sqrt(total**2 - 4 * self.ligands * self.receptors))
        )
        return {"ligand": self.ligands - bound, "receptor": self.receptors - bound}

    @pytest.mark.thorough
    def test_closed_form_and_gradients(self):
        def loss(values):
            return jnp.sum(jnp.log(values["ligand"]) + jnp.sin(values["receptor"]))

        def ours(p, inputs):
            prediction = self.layer(p)(inputs)
            return loss(prediction.values), prediction

        exact = jax.jit(jax.grad(lambda k: loss(self.exact(k))))(40.0)
        prediction = check_gradients(ours, [40.0], self.inputs, [exact])
        assert bool(prediction.ok)
        assert set(prediction.values) == set(self.layer([40.0]).outputs) == {"ligand", "receptor"}
        for name, expected in self.exact(40.0).items():
            np.testing.assert_allclose(prediction.values[name], expected, rtol=1e-10)

    @pytest.mark.thorough
    def test_second_derivatives(self):
        def loss(values):
            return jnp.sum(values["ligand"] ** 2)

        ours = jax.jit(jax.hessian(lambda k: loss(self.layer([k])(self.inputs).values)))(40.0)
        exact = jax.jit(jax.hessian(lambda k: loss(self.exact(k))))(40.0)
        assert float(ours) == pytest.approx(float(exact), rel=ALGEBRA)


class Kepler(bd.Module):
    """The eccentric anomaly as a fixed point, by mean anomaly."""

    eccentricity: bd.Scalar

    def __call__(self, t, y, u):
        return {"anomaly": t + self.eccentricity * jnp.sin(y["anomaly"])}


def kepler(p, **options):
    return Implicit(
        Kepler(p[0]), lambda t, y, u: {"anomaly": t}, index="mean", kind="fixed_point", **options
    )


def cosines_by_newton(p, inputs):
    prediction = kepler(p)(inputs)
    return jnp.sum(jnp.cos(prediction.values["anomaly"])), prediction


def cosines_by_iteration(p, inputs):
    prediction = kepler(p, method="iteration")(inputs)
    return jnp.sum(jnp.cos(prediction.values["anomaly"])), prediction


class Towards(bd.Module):
    """A fixed point at 1."""

    factor: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": 1 + self.factor * (y["y"] - 1)}


class TestKepler:
    means = np.array([0.1, 1.0, 2.5, 4.0, 6.0])
    inputs = given(means, "mean")
    exact = np.array(
        [brentq(lambda x, m=m: x - 0.6 * np.sin(x) - m, 0, 7, xtol=1e-14) for m in means]
    )

    @pytest.mark.thorough("cosines_by_newton-True")
    @pytest.mark.parametrize(
        ("loss", "forward"), [(cosines_by_newton, True), (cosines_by_iteration, False)]
    )
    def test_values_and_gradients(self, loss, forward):
        by_eccentricity = np.sin(self.exact) / (1 - 0.6 * np.cos(self.exact))
        exact = [-np.sum(np.sin(self.exact) * by_eccentricity)]
        prediction = check_gradients(loss, [0.6], self.inputs, exact, forward)
        assert bool(prediction.ok)
        np.testing.assert_allclose(prediction.values["anomaly"], self.exact, rtol=EXACT)

    @pytest.mark.thorough
    def test_steps_are_those_of_the_slowest_row(self):
        def steps(loss, inputs):
            return compiled(loss)(jnp.full((3, 1), 0.6, float), inputs)[0][1].stats["steps"][0]

        newton = steps(cosines_by_newton, self.inputs)
        assert 3 <= newton < 10 < steps(cosines_by_iteration, self.inputs)
        # All rows are about the first of them.
        assert (
            steps(cosines_by_newton, given(self.means[0] + 1e-6 * np.arange(5), "mean")) <= newton
        )

    @pytest.mark.thorough
    @pytest.mark.parametrize("method", ["newton", "iteration"])
    def test_too_few_steps(self, method):
        prediction = solve(kepler([0.6], method=method, max_steps=2), self.inputs)
        assert not bool(prediction.ok)

    @pytest.mark.thorough
    def test_an_iteration_finds_only_what_attracts(self):
        for factor, ok in ((0.5, True), (3.0, False)):
            layer = Implicit(
                Towards(jnp.asarray(factor)), {"y": 1.1}, kind="fixed_point", method="iteration"
            )
            assert bool(solve(layer, given([0.0], "time")).ok) is ok

    def test_tolerances_are_found(self):
        model = bd.Model(kepler([dist.Uniform(0.0, 0.9)]), noise=bd.NormalNoise(scale=0.1))
        tight = bd.updating.tightened(model, 100.0).layer
        assert (tight.rtol, tight.max_steps) == (pytest.approx(1e-10), 640)


class TestFit:
    means = np.linspace(0.1, 6.0, 20)
    noise = 0.05

    def data(self):
        anomaly = np.array(
            [brentq(lambda x, m=m: x - 0.4 * np.sin(x) - m, 0, 7) for m in self.means]
        )
        seen = anomaly + self.noise * np.random.default_rng(0).normal(size=self.means.size)
        return anomaly, xr.Dataset({"anomaly": ("mean", seen)}, {"mean": self.means})

    def model(self):
        return bd.Model(kepler([dist.Uniform(0.0, 0.9)]), noise=bd.NormalNoise(scale=self.noise))

    def sd(self, anomaly):
        """By the information of the data: the prior is flat."""
        return self.noise / np.sqrt(np.sum((np.sin(anomaly) / (1 - 0.4 * np.cos(anomaly))) ** 2))

    @pytest.mark.slow
    def test_log_density(self):
        """Its gradient, and the posterior that it says: there is one unknown number, so a grid will
        do.
        """
        anomaly, data = self.data()
        sd = self.sd(anomaly)
        eccentricity = np.linspace(0.4 - 8 * sd, 0.4 + 8 * sd, 200)
        mean, spread = checked_moments(pose(self.model(), data), eccentricity, 0.3, rel=GRADIENT)
        assert abs(mean - 0.4) < 4 * sd
        assert spread == pytest.approx(sd, rel=0.05)

    @pytest.mark.slow
    def test_nuts_recovers_the_eccentricity(self):
        anomaly, data = self.data()
        sd = self.sd(anomaly)
        draws = bd.fit(self.model(), data, bd.NUTS(chains=2, warmup=100, draws=200), key=0)
        found = draws["posterior"]["eccentricity"].values
        assert abs(found.mean() - 0.4) < 4 * sd
        # 400 draws of NUTS are worth at least 100 independent ones.
        assert found.std() == pytest.approx(sd, rel=4 / np.sqrt(200))


class Periodic(bd.Module):
    """Roots wherever y − 3 t is a multiple of π."""

    shift: Any = 0.0

    def __call__(self, t, y, u):
        return {"y": jnp.sin(y["y"] - 3 * t - self.shift)}


@pytest.mark.thorough
def test_follow_keeps_to_its_branch():
    inputs = given(np.linspace(0.0, 3.0, 10))
    alone = solve(Implicit(Periodic(), {"y": 0.1}, index="sample"), inputs)
    assert bool(alone.ok)
    assert abs(alone.values["y"][-1] - 9.0) > 3

    def loss(p, inputs):
        prediction = Implicit(Periodic(p[0]), {"y": 0.1}, follow=True, index="sample")(inputs)
        return jnp.sum(prediction.values["y"] ** 2), prediction

    followed = check_gradients(loss, [0.2], inputs)
    np.testing.assert_allclose(
        followed.values["y"], 3 * np.linspace(0.0, 3.0, 10) + 0.2, atol=EXACT
    )


class TestSearch:
    rows = given([1.0], "time")

    @pytest.mark.thorough
    def test_the_scale_of_the_equations_does_not_matter(self):
        def equations(t, y, u):
            return {"y": u["scale"] * (y["y"] ** 3 - 2)}

        scales = given([0.0, 1.0, 2.0], "time", scale=np.array([1e-15, 1.0, 1e15]))
        prediction = solve(Implicit(equations, {"y": 3.0}, forcings=["scale"]), scales)
        assert bool(prediction.ok)
        np.testing.assert_allclose(prediction.values["y"], 2 ** (1 / 3), rtol=EXACT)

    @pytest.mark.thorough
    def test_where_undamped_steps_diverge(self):
        def equations(t, y, u):
            return {"y": jnp.arctan(y["y"] - 1)}

        y = 5.0
        for _ in range(4):
            y = y - np.arctan(y - 1) * (1 + (y - 1) ** 2)
        assert abs(y) > 100
        prediction = solve(Implicit(equations, {"y": 5.0}), self.rows)
        assert bool(prediction.ok)
        assert float(prediction.values["y"][0]) == pytest.approx(1.0, rel=EXACT)

    @pytest.mark.thorough
    def test_steps_that_leave_the_domain_are_halved(self):
        prediction = solve(Implicit(lambda t, y, u: {"y": jnp.log(y["y"])}, {"y": 20.0}), self.rows)
        assert bool(prediction.ok)
        assert float(prediction.values["y"][0]) == pytest.approx(1.0, rel=EXACT)

    @pytest.mark.thorough
    def test_arrays(self):
        """Two coupled numbers in one unknown, reduced by observe."""
        matrix = jnp.asarray([[3.0, 1.0], [0.5, 2.0]])

        def equations(t, y, u):
            return {"v": matrix @ y["v"] + 0.1 * y["v"] ** 3 - jnp.stack([t, 2 * t])}

        layer = Implicit(
            equations, {"v": np.zeros(2)}, lambda t, y, u: {"sum": y["v"].sum(), "first": y["v"][0]}
        )
        assert set(layer.outputs) == {"first", "sum"}
        assert layer.states == 2
        values = solve(layer, given([0.0, 1.0, 5.0], "time")).values
        first, t = np.asarray(values["first"]), np.array([0.0, 1.0, 5.0])
        v = np.stack([first, values["sum"] - first])
        np.testing.assert_allclose(matrix @ v + 0.1 * v**3, np.stack([t, 2 * t]), atol=EXACT)


class TestFailure:
    """One row of one draw of three has no root."""

    inputs = given([0.0, 1.0], "time", level=np.array([1.0, 4.0]))
    ps = jnp.asarray([0.3, 2.0, 0.5])

    def density(self, p, equations, **options):
        layer = Implicit(equations(p), {"y": 1.5}, forcings=("level",), **options)
        prediction = layer(self.inputs)
        return jnp.where(prediction.ok, jnp.sum(prediction.values["y"]), -jnp.inf), prediction

    @staticmethod
    def no_root(p):
        return lambda t, y, u: {"y": y["y"] ** 2 - (u["level"] - p)}

    @staticmethod
    def not_a_number(p):
        return lambda t, y, u: {"y": y["y"] - jnp.sqrt(u["level"] - p)}

    @pytest.mark.thorough("no_root-False-jacfwd", "not_a_number-False-grad")
    @pytest.mark.parametrize(
        ("equations", "follow", "mode"),
        [
            (no_root, False, jax.jacfwd),
            (no_root, True, jax.grad),
            (not_a_number, False, jax.grad),
            *(
                pytest.param(equations, follow, mode, marks=pytest.mark.slow)
                for equations, follow, mode in (
                    (no_root, False, jax.grad),
                    (no_root, True, jax.jacfwd),
                    (not_a_number, False, jax.jacfwd),
                    (not_a_number, True, jax.grad),
                    (not_a_number, True, jax.jacfwd),
                )
            ),
        ],
    )
    def test_is_flagged_and_finite(self, equations, follow, mode):
        def density(p):
            return self.density(p, equations, follow=follow)

        slopes, prediction = jax.jit(jax.vmap(mode(density, has_aux=True)))(self.ps)
        assert prediction.ok.tolist() == [True, False, True]
        assert np.isfinite(prediction.values["y"]).all()
        assert float(slopes[1]) == 0.0
        exact = [-0.5 / np.sqrt(1 - p) - 0.5 / np.sqrt(4 - p) for p in (0.3, 0.5)]
        np.testing.assert_allclose(slopes[np.array([0, 2])], exact, rtol=ALGEBRA)

    @pytest.mark.slow
    def test_a_singular_jacobian_raises_nothing(self):
        """A fixed point that is neutral, found at once: Optimistix's own implicit gradient raises
        there.
        """

        def density(p):
            def equations(t, y, u):
                return {"y": y["y"] + p * y["y"] ** 2}

            layer = Implicit(
                equations,
                {"y": np.zeros(2)},
                lambda t, y, u: {"s": y["y"].sum()},
                kind="fixed_point",
                method="iteration",
            )
            prediction = layer(self.inputs)
            return jnp.where(prediction.ok, prediction.values["s"].sum(), -jnp.inf)

        value, slope = jax.jit(jax.value_and_grad(density))(1.0)
        assert (float(value), float(slope)) == (-np.inf, 0.0)
        assert float(jax.jit(jax.jacfwd(density))(1.0)) == 0.0

    @pytest.mark.thorough
    def test_an_observation_that_is_not_finite(self):
        def density(p):
            layer = Implicit(
                lambda t, y, u: {"y": y["y"] - p},
                {"y": 1.0},
                lambda t, y, u: {"z": jnp.sqrt(y["y"])},
            )
            prediction = layer(self.inputs)
            return jnp.where(
                prediction.ok, jnp.sum(prediction.values["z"]), -jnp.inf
            ), prediction.ok

        slopes, ok = jax.jit(jax.vmap(jax.grad(density, has_aux=True)))(jnp.asarray([4.0, -1.0]))
        assert ok.tolist() == [True, False]
        np.testing.assert_allclose(slopes, [0.5, 0.0], rtol=ALGEBRA)

    def test_the_guess_has_no_gradient(self):
        def value(p):
            layer = Implicit(lambda t, y, u: {"y": y["y"] ** 2 - 2}, lambda t, y, u: {"y": p + t})
            return jnp.sum(layer(self.inputs).values["y"])

        assert float(jax.jit(jax.grad(value))(1.0)) == 0.0


@pytest.mark.usefixtures("unchecked")
class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"equations": 3}, r"equations must be callable as f\(t, y, u\), not 3"),
            ({"kind": "minimum"}, "kind must be 'root' or 'fixed_point', not 'minimum'"),
            (
                {"method": "bisection"},
                "method must be 'newton', or 'iteration' for a fixed point, not 'bisection'",
            ),
            ({"method": "iteration"}, "not 'iteration' for a root"),
            ({"rtol": 0.0}, "rtol and atol must be positive"),
            ({"max_steps": 0}, "max_steps at least 1"),
            ({"guess": {}}, "guess must be a dict that names every unknown"),
            ({"guess": 1.0}, "guess must be a dict that names every unknown"),
            (
                {"guess": {"y": np.ones(2)}},
                r"guess\['y'\] must be a number, not an array of shape \(2,\)",
            ),
            ({"guess": lambda t, y, u: {"y": jnp.ones(2)}}, r"guess\['y'\] must be a number"),
            ({"guess": lambda t, y, u: t}, "the guess must return a dict of named values"),
            ({"guess": {"y": dist.Normal(0.0, 1.0)}}, "nothing in it can be inferred"),
        ],
    )
    def test_when_built(self, options, message):
        options = {"equations": lambda t, y, u: {"y": y["y"]}, "guess": {"y": 1.0}} | options
        with pytest.raises(ModelError, match=message):
            Implicit(**options)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"z": 1.0}, "the equations return z but the unknowns are y"),
            ({"y": 1.0, "z": 1.0}, "the equations return y, z but the unknowns are y"),
            ({}, "the equations return nothing but the unknowns are y"),
            (
                {"y": np.ones(2)},
                r"the equations return 'y' with shape \(2,\), but its own shape is \(\)",
            ),
            (1.0, "the equations must return a dict of named values"),
        ],
    )
    @pytest.mark.parametrize("kind", ["root", "fixed_point"])
    def test_equations(self, values, message, kind):
        with pytest.raises(ModelError, match=message):
            Implicit(lambda t, y, u: values, {"y": 1.0}, kind=kind)(given([0.0], "time"))
