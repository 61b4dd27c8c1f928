"""Closures with a standard deviation: what the unscented transform says agrees with Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.filtering.unscented import sigma_points
from bayes_dasl.inference import pose
from bayes_dasl.inference.reparametrisations.reference import references_of

TIMES = np.linspace(0.0, 4.0, 9)
GIVEN = bd.inputs(xr.Dataset(coords={"time": TIMES}))


def spring(t, y, u):
    return {"place": y["speed"], "speed": -2.0 * y["place"]}


def friction(t, y, u):
    return {"speed": -0.3 * y["speed"], "place": 0.0 * y["speed"]}


def uncertain(scales) -> bd.filtering.Unscented:
    field = bd.Residual(spring, bd.filtering.VarianceHead(friction, scales))
    return bd.filtering.Unscented(bd.ODE(field, {"place": 1.0, "speed": 0.0}, rtol=1e-8, atol=1e-8))


@pytest.mark.thorough("5")
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_sigma_points_have_the_moments_of_standard_normal_numbers(number):
    points, weights = sigma_points(number)
    assert points.shape == (2 * number + 1, number)
    assert float(weights.sum()) == pytest.approx(1.0) and float(weights.min()) >= 0
    np.testing.assert_allclose(weights @ points, 0.0, atol=1e-12)
    np.testing.assert_allclose((points.T * weights) @ points, np.eye(number), atol=1e-12)
    np.testing.assert_allclose(weights @ points**3, 0.0, atol=1e-12)


@pytest.mark.thorough
def test_a_linear_field_is_exact():
    """Where the state is linear in the deviates,
    its variance is the sum of squares of its slopes.
    """
    layer = uncertain({"speed": 0.2, "place": 0.1})

    def along(deviates):
        values = layer.deviating(deviates)(GIVEN).values
        return values, values

    found, (slopes, central) = jax.jit(
        lambda d: (layer(GIVEN), jax.jacrev(along, has_aux=True)(d))
    )(jnp.zeros(2))
    for name in ("place", "speed"):
        np.testing.assert_allclose(found.values[name], central[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            found.variances[name], (slopes[name] ** 2).sum(-1), rtol=1e-4, atol=1e-8
        )


@pytest.mark.slow
def test_scales_that_vary_agree_with_monte_carlo():
    head = lambda t, y, u: {"log_scale": -0.5 * y["place"] ** 2}  # noqa: E731
    layer = uncertain({"speed": bd.noise.VaryingScale(0.3, head), "place": 0.1})
    found = jax.jit(lambda: layer(GIVEN))()
    deviates = jax.random.normal(jax.random.key(0), (4000, 2))
    drawn = jax.jit(jax.vmap(lambda d: layer.deviating(d)(GIVEN).values))(deviates)
    for name in ("place", "speed"):
        mean, variance = np.asarray(drawn[name]).mean(0), np.asarray(drawn[name]).var(0)
        error = np.sqrt(variance / len(deviates))
        assert np.all(np.abs(found.values[name] - mean) < 4 * error + 1e-6)
        # The variance of a variance from 4000 draws is 2 / 4000 of its square.
        np.testing.assert_allclose(
            found.variances[name][1:], variance[1:], rtol=4 * np.sqrt(2 / 4000)
        )


@pytest.mark.slow
def test_it_is_the_mean_of_the_layer_where_nothing_deviates():
    layer = uncertain({"speed": 1e-9})
    found, plain = jax.jit(lambda: (layer(GIVEN), layer.layer(GIVEN)))()
    np.testing.assert_allclose(found.values["place"], plain.values["place"], rtol=1e-6)
    assert float(found.variances["place"].max()) < 1e-12


class Fading(bd.Module):
    def __call__(self, t, y, u):
        return {"x": -0.5 * y["x"]}


class Nothing(bd.Module):
    def __call__(self, t, y, u):
        return {"x": 0.0 * y["x"]}


def fading(scale, first, noise) -> bd.Model:
    """Decay whose rate of change deviates."""
    field = bd.Residual(Fading(), bd.filtering.VarianceHead(Nothing(), {"x": scale}))
    return bd.Model(bd.filtering.Unscented(bd.ODE(field, {"x": first})), noise)


@pytest.mark.slow
def test_data_see_both_variances():
    realised = fading(0.2, jnp.asarray(3.0), bd.NormalNoise(0.05))
    rng = np.random.default_rng(0)
    deviates = jnp.asarray(rng.normal(size=(4000, 1)))
    each = jax.vmap(lambda d: realised.layer.deviating(d)(GIVEN).values["x"])
    prediction, drawn = jax.jit(lambda d: (realised.predict(GIVEN), each(d)))(deviates)
    drawn, error = np.asarray(drawn), 0.05 * rng.normal(size=drawn.shape)
    for noise, data in (
        (bd.NormalNoise(0.05), drawn + error),
        (bd.LogNormalNoise(0.05), drawn * np.exp(error)),
    ):
        found = bd.Model(realised.layer, noise).conditional(prediction, GIVEN)["x"]
        np.testing.assert_allclose(
            found.mean, data.mean(0), atol=5 * float(data.std(0).max()) / np.sqrt(4000)
        )
        np.testing.assert_allclose(found.variance, data.var(0), rtol=0.12)


@pytest.mark.thorough
def test_trajectories_that_scatter_have_its_variance():
    rng, times = np.random.default_rng(1), np.linspace(0.0, 3.0, 7)
    scatter = 0.4 * rng.normal(size=40)
    series = (
        np.exp(-0.5 * times)
        + scatter[:, None] * 2 * (1 - np.exp(-0.5 * times))
        + 0.02 * rng.normal(size=(40, 7))
    )
    layer, inputs = (
        fading(0.4, 1.0, bd.NormalNoise(0.02)).layer,
        bd.inputs(xr.Dataset(coords={"time": times})),
    )
    found = jax.jit(lambda: layer(inputs))()
    np.testing.assert_allclose(
        found.variances["x"][2:] + 0.02**2, series.var(0)[2:], rtol=3 * np.sqrt(2 / 40)
    )


def fading_data():
    rng = np.random.default_rng(2)
    data = xr.Dataset(
        {"x": ("time", np.exp(-0.5 * TIMES) + 0.1 * rng.normal(size=9))}, {"time": TIMES}
    )
    return fading(dist.HalfNormal(0.5), dist.Normal(1.0, 0.2), bd.NormalNoise(0.02)), data


def assert_aleatoric(model, post):
    parts = bd.decompose(bd.forecast(model, post, TIMES))
    assert float(parts["aleatoric"].sel(time=4.0).squeeze()) > 2 * 0.02**2


@pytest.mark.slow
def test_its_variance_counts_as_aleatoric():
    model, data = fading_data()
    assert_aleatoric(model, bd.fit(model, data, Sifting(), key=0, progress=False))
    assert references_of(pose(model, data)) is None


@pytest.mark.slow
def test_nuts_fits_it():
    model, data = fading_data()
    post = bd.fit(model, data, bd.NUTS(chains=2, warmup=200, draws=200), key=0, progress=False)
    assert_aleatoric(model, post)
    assert post.attrs["sampled_in"] == "plain coordinates"


def test_refusals():
    ode = bd.ODE(spring, {"place": 1.0, "speed": 0.0})
    with pytest.raises(ModelError, match="VarianceHead inside"):
        bd.filtering.Unscented(ode)
    with pytest.raises(ModelError, match="dict of standard deviations"):
        bd.filtering.VarianceHead(friction, {})
    with pytest.raises(ModelError, match="mean must be a function"):
        bd.filtering.VarianceHead(dist.Normal(0.0, 1.0), {"speed": 1.0})
    with pytest.raises(ModelError, match="scale of 'height'"):
        jax.eval_shape(lambda: uncertain({"height": 1.0})(GIVEN))
    with pytest.raises(ModelError, match="put the hybrid inside"):
        jax.eval_shape(
            lambda: bd.Residual(uncertain({"speed": 1.0}), lambda t, y, u: {"place": 0.0})(GIVEN)
        )
    with pytest.raises(ModelError, match="needs bd"):
        model = bd.Model(uncertain({"speed": 1.0}), bd.StudentTNoise(1.0))
        jax.eval_shape(lambda: model.conditional(model.predict(GIVEN), GIVEN))
