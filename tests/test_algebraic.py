"""Closed forms over rows: values, gradients, failure, and a fit whose posterior is known."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl import Algebraic
from bayes_dasl.equations import integrate_between
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.random import paths

ALGEBRA = 10 * np.sqrt(np.finfo(float).eps)
TEMPERATURES = np.array([280.0, 300.0, 330.0, 400.0])
STRENGTHS = np.array([0.1, 3.0, 0.7, 2.0])


def given(**forcings):
    data = xr.Dataset(
        {name: ("temperature", v) for name, v in forcings.items()}, {"temperature": TEMPERATURES}
    )
    return bd.inputs(data, forcings=list(forcings), index="temperature")


class Arrhenius(bd.Module):
    factor: bd.Scalar = bd.field(units="1/s")
    energy: bd.Scalar = bd.field(units="kJ/mol")

    def __call__(self, t, y, u):
        rate = self.factor * jnp.exp(-self.energy / (8.314e-3 * t))
        return {"rate": u["strength"] * rate, "doubled": 2 * rate}


def arrhenius(p):
    return Algebraic(Arrhenius(p[0], p[1]), forcings=["strength"], index="temperature")


class TestValues:
    inputs = given(strength=STRENGTHS)
    p = jnp.asarray([2.0, 5.0])

    def test_closed_form(self):
        prediction = eqx.filter_jit(arrhenius(self.p))(self.inputs)
        rate = 2.0 * np.exp(-5.0 / (8.314e-3 * TEMPERATURES))
        assert bool(prediction.ok)
        np.testing.assert_allclose(prediction.values["rate"], STRENGTHS * rate, rtol=1e-14)
        np.testing.assert_allclose(prediction.values["doubled"], 2 * rate, rtol=1e-14)

    @pytest.mark.thorough
    def test_gradients(self):
        def loss(p):
            return jnp.sum(jnp.sin(arrhenius(p)(self.inputs).values["rate"]))

        exact = jax.grad(
            lambda p: jnp.sum(
                jnp.sin(STRENGTHS * p[0] * jnp.exp(-p[1] / (8.314e-3 * TEMPERATURES)))
            )
        )
        batch = jnp.stack([self.p, 1.1 * self.p])
        for mode in (jax.grad, jax.jacfwd):
            slopes = jax.jit(jax.vmap(mode(loss)))(batch)
            np.testing.assert_allclose(slopes, jax.jit(jax.vmap(exact))(batch), rtol=ALGEBRA)

    @pytest.mark.parametrize("factor", [2.0, jnp.asarray(2.0), dist.LogNormal(0.0, 1.0)])
    def test_outputs(self, factor):
        assert set(arrhenius((factor, 5.0)).outputs) == {"rate", "doubled"}

    def test_index_is_read_by_the_model(self):
        assert arrhenius((1.0, 2.0)).index == "temperature"
        assert Algebraic(Arrhenius(1.0, 2.0)).index == "time"

    def test_units(self):
        layer = arrhenius((dist.LogNormal(0.0, 1.0), 5.0))
        assert {p: leaf.units for p, leaf in paths(layer).items()} == {"function.factor": "1/s"}


class TestFailure:
    """The root of a row that is negative: its derivative is infinite at zero, and NaN below."""

    inputs = given(level=np.array([1.0, 2.0, 0.5, 4.0]))

    def density(self, p):
        def root(t, y, u):
            return {"z": jnp.sqrt(u["level"] - p)}

        prediction = Algebraic(root, forcings=("level",), index="temperature")(self.inputs)
        return jnp.where(prediction.ok, jnp.sum(prediction.values["z"]), -jnp.inf), prediction

    @pytest.mark.thorough
    def test_is_flagged_and_finite(self):
        ps = jnp.asarray([0.1, 0.7, 0.4])
        for mode in (jax.grad, jax.jacfwd):
            slopes, prediction = jax.jit(jax.vmap(mode(self.density, has_aux=True)))(ps)
            assert prediction.ok.tolist() == [True, False, True]
            assert np.isfinite(prediction.values["z"]).all()
            levels = np.array([1.0, 2.0, 0.5, 4.0])
            expected = [
                -np.sum(0.5 / np.sqrt(levels - p)) if p < 0.5 else 0.0 for p in np.asarray(ps)
            ]
            np.testing.assert_allclose(slopes, expected, rtol=1e-12)


class TestModel:
    """A straight line in a forcing with known noise and a normal prior on its slope: the posterior
    is normal.
    """

    temperature = np.linspace(0.0, 1.0, 12)
    data = xr.Dataset(
        {
            "dose": ("temperature", np.linspace(-1.0, 2.0, 12) ** 2),
            "response": (
                "temperature",
                0.5 + 1.5 * np.linspace(-1.0, 2.0, 12) ** 2 + 0.2 * np.sin(7 * np.arange(12)),
            ),
        },
        {"temperature": temperature},
    )

    @staticmethod
    def model():
        class Line(bd.Module):
            slope: bd.Scalar

            def __call__(self, t, y, u):
                return {"response": 0.5 + self.slope * u["dose"]}

        layer = Algebraic(Line(dist.Normal(0.0, 2.0)), forcings=["dose"], index="temperature")
        return bd.Model(layer, noise=bd.NormalNoise(scale=0.3))

    def exact(self):
        dose, response = self.data["dose"].values, self.data["response"].values - 0.5
        precision = np.sum(dose**2) / 0.3**2 + 1 / 2.0**2
        return np.sum(dose * response) / 0.3**2 / precision, precision**-0.5

    @pytest.mark.thorough
    def test_log_density(self):
        problem, at = pose(self.model(), self.data), jnp.asarray([-1.0, 1.0, 3.0])
        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(problem.log_density)))(at[:, None])
        mean, sd = self.exact()
        assert np.isfinite(values).all()
        np.testing.assert_allclose(gradients[:, 0], (mean - at) / sd**2, rtol=ALGEBRA)

    @pytest.mark.slow
    def test_fit(self):
        draws = bd.fit(self.model(), self.data, bd.NUTS(chains=2, warmup=100, draws=300), key=0)
        slope = draws["posterior"]["slope"].values.ravel()
        mean, sd = self.exact()
        # 600 draws of NUTS on a normal are worth at least 150 independent ones.
        assert abs(slope.mean() - mean) < 4 * sd / np.sqrt(150)
        assert slope.std() == pytest.approx(sd, rel=4 / np.sqrt(2 * 150))

    def test_data_without_the_index(self):
        with pytest.raises(DataError, match="data need a 1-D coordinate 'temperature'"):
            pose(self.model(), self.data.rename(temperature="time"))


@pytest.mark.thorough
def test_an_integral_as_a_closed_form():
    """The second virial coefficient of a square well, fitted in its depth."""

    class Virial(bd.Module):
        depth: bd.Scalar

        def __call__(self, t, y, u):
            def integrand(r):
                return 3 * jnp.where(r < 1, 1.0, -jnp.expm1(self.depth / t)) * r**2

            return {"virial": integrate_between(integrand, (0.0, 1.0, 1.5), nodes=2)}

    temperature = np.array([1.0, 2.0, 5.0])
    exact = 1 - (1.5**3 - 1) * np.expm1(0.8 / temperature)
    data = xr.Dataset({"virial": ("temperature", exact)}, {"temperature": temperature})
    layer = Algebraic(Virial(dist.LogNormal(0.0, 1.0)), index="temperature")
    problem = pose(bd.Model(layer, noise=bd.NormalNoise(scale=0.1)), data)

    def density(log_depth):
        residual = 1 - (1.5**3 - 1) * jnp.expm1(jnp.exp(log_depth) / temperature) - exact
        return -0.5 * jnp.sum((residual / 0.1) ** 2) - 0.5 * log_depth**2

    slope, exact_slope = jax.jit(jax.grad(problem.log_density)), jax.jit(jax.grad(density))
    for at in (math.log(0.8), 0.3):
        ours = slope(jnp.asarray([at]))
        assert float(ours[0]) == pytest.approx(float(exact_slope(at)), rel=ALGEBRA, abs=ALGEBRA)


@pytest.mark.usefixtures("unchecked")
class TestRefusals:
    def test_no_function(self):
        with pytest.raises(ModelError, match=r"function must be callable as f\(t, y, u\), not 3"):
            Algebraic(3)

    def test_no_dict(self):
        with pytest.raises(ModelError, match="the function must return a dict of named values"):
            Algebraic(lambda t, y, u: t, index="temperature")(given())

    def test_not_a_number_at_each_row(self):
        layer = Algebraic(lambda t, y, u: {"z": jnp.stack([t, t])}, index="temperature")
        data = xr.Dataset({"z": ("temperature", TEMPERATURES)}, {"temperature": TEMPERATURES})
        with pytest.raises(ModelError, match=r"'z' the shape \(4, 2\)"):
            pose(bd.Model(layer, noise=bd.NormalNoise(scale=dist.LogNormal(0.0, 1.0))), data)


def test_a_formula_along_a_place_in_km_forecasts_to_both_sides():
    x = np.linspace(1.0, 2.0, 6)
    data = xr.Dataset({"y": ("x", 2.0 * x)}, {"x": ("x", x, {"units": "km"})})

    class Through(bd.Module):
        slope: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": self.slope * t}

    layer = bd.Algebraic(Through(dist.Normal(2.0, 1.0)), index="x", units={"x": "km"})
    model = bd.Model(layer, bd.NormalNoise(0.1))
    post = bd.fit(model, data, bd.Joint(starts=1, descent=bd.Descent(steps=300)), progress=False)
    fc = bd.forecast(model, post, np.array([-1.0, 0.5, 3.0]))
    np.testing.assert_allclose(fc["conditional_mean"]["y"].squeeze(), [-2.0, 1.0, 6.0], rtol=0.02)
