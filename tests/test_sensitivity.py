"""Which unknowns a quantity hangs on, against functions whose indices are known."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import posterior
from jaxtyping import Array

import bayes_dasl as bd
from bayes_dasl import plots
from bayes_dasl.errors import MismatchError, ModelError

NOISE = bd.NormalNoise(0.1)


def angle():
    return dist.Uniform(-np.pi, np.pi)


class Ishigami(bd.Module):
    r"""$\sin x_1 + 7 \sin^2 x_2 + 0.1 x_3^4 \sin x_1$; source: Ishigami & Homma (1990)."""

    one: bd.Scalar
    two: bd.Scalar
    three: bd.Scalar

    def __call__(self, t, y, u):
        return {
            "y": jnp.sin(self.one) * (1 + 0.1 * self.three**4)
            + 7 * jnp.sin(self.two) ** 2
            + 0.0 * t
        }


class Sum(bd.Module):
    first: bd.Scalar
    second: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": 3 * self.first + self.second + 0.0 * t}


class Weighed(bd.Module):
    shares: Array | dist.Distribution
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.shares[0] + self.rate * t}


def formula(law):
    return bd.Model(bd.Algebraic(law), NOISE)


def value(model):
    return {"q": model.layer.function(0.0, {}, {})["y"]}


def test_of_ishigami_to_two_per_cent():
    found = bd.sensitivity.sensitivity(
        formula(Ishigami(angle(), angle(), angle())), None, value, samples=4096
    )["q"]
    a, b = 7.0, 0.1
    variance = a**2 / 8 + b * np.pi**4 / 5 + b**2 * np.pi**8 / 18 + 0.5
    first = np.array([0.5 * (1 + b * np.pi**4 / 5) ** 2, a**2 / 8, 0.0]) / variance
    together = b**2 * np.pi**8 * (1 / 18 - 1 / 50) / variance
    np.testing.assert_allclose(found.sel(index="first"), first, atol=0.02)
    np.testing.assert_allclose(
        found.sel(index="total"), np.add(first, [together, 0.0, together]), atol=0.02
    )
    assert [*found["unknown"].values] == ["one", "two", "three"]
    figure = plots.plot_sensitivity(found.to_dataset().assign_attrs(method="sobol"))
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"alone", "with others"}


def test_steps_of_what_is_linear_are_the_same_everywhere():
    law = Sum(dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 4.0))
    found = bd.sensitivity.sensitivity(formula(law), None, value, method="morris", samples=16)["q"]
    np.testing.assert_allclose(found.sel(index="mu_star"), [3 * 0.95, 2 * 0.95], rtol=1e-6)
    np.testing.assert_allclose(found.sel(index="mu"), found.sel(index="mu_star"), rtol=1e-6)
    np.testing.assert_allclose(found.sel(index="sigma"), 0.0, atol=1e-6)


def test_errors_go_by_the_key_and_the_state_of_numpy_stays():
    law = Sum(dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 4.0))
    np.random.seed(5)
    expected = np.random.RandomState(5).uniform()
    one, again, other = (
        bd.sensitivity.sensitivity(formula(law), None, value, samples=16, key=key)["q"]
        for key in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one.sel(index="first_error"), other.sel(index="first_error"))
    assert np.random.uniform() == expected


def test_a_number_varies_with_what_its_prior_depends_on():
    scale = bd.shared(dist.HalfNormal(1.0), "scale")
    law = Sum(bd.dependent(dist.Normal, 0.0, scale), dist.Normal(0.0, 1.0))
    found = bd.sensitivity.sensitivity(formula(law), None, value, samples=4096)["q"]
    assert [*found["unknown"].values] == ["scale, first", "second"]
    np.testing.assert_allclose(found.sel(index="first"), [0.9, 0.1], atol=0.03)


def test_of_a_series_and_of_priors_without_quantiles():
    at = xr.Dataset({"y": ("time", np.zeros(3))}, {"time": [0.0, 1.0, 2.0]})
    model = formula(Weighed(dist.Dirichlet(jnp.ones(3)), dist.Normal(0.0, 0.5)))
    found = bd.sensitivity.sensitivity(model, None, at=at, samples=2048)
    share, rate = 2 / 9 / 4, 0.25 * at["time"].values ** 2
    np.testing.assert_allclose(
        found["y"].sel(index="first", unknown="rate"), rate / (rate + share), atol=0.05
    )
    np.testing.assert_allclose(
        found["y"].sel(index="total", unknown="shares"), share / (rate + share), atol=0.05
    )
    assert found["y"].dims == ("index", "unknown", "time") and found.attrs["lost"] == 0
    assert [line.get_label() for line in plots.plot_sensitivity(found).axes[0].lines] == [
        "shares",
        "rate",
    ]
    with pytest.raises(ModelError, match="Dirichlet, has no quantiles"):
        bd.sensitivity.sensitivity(model, None, at=at, method="morris", samples=16)


def test_of_a_posterior_whose_numbers_are_correlated():
    """What does nothing, but goes with what does, has the share of the variance that its
    correlation gives.
    """
    model = formula(Ishigami(*(dist.Normal(0.0, 1.0) for _ in range(3))))
    rng = np.random.default_rng(0)
    one, third = rng.normal(size=(2, 4, 1000))
    two = 0.8 * one + 0.6 * rng.normal(size=(4, 1000))
    data = xr.Dataset({"y": ("time", [0.0])}, {"time": [0.0]})
    post = posterior(
        model,
        data,
        {
            f"layer.function.{n}": v
            for n, v in zip(("one", "two", "three"), (one, two, third), strict=True)
        },
    )
    found = bd.sensitivity.sensitivity(
        model, post, lambda m: {"q": m.layer.function.one, "known": jnp.asarray(2.0)}, samples=2000
    )
    q = found["q"]
    np.testing.assert_allclose(q.sel(index="first"), [1.0, 0.64, 0.0], atol=0.06)
    mean, chance = q.sel(index="mean").values, float(q.sel(index="chance")[0])
    assert mean[0] > mean[1] > 3 * chance and mean[2] < 2 * chance
    assert np.isnan(found["known"]).all()
    figure = plots.plot_sensitivity(found)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["known", "q"]


def test_samples_whose_solve_failed_are_left_out_and_counted():
    def sometimes(model):
        return jnp.where(model.layer.function.first > 0.9, jnp.nan, model.layer.function.second)

    law = Sum(dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 1.0))
    found = bd.sensitivity.sensitivity(formula(law), None, sometimes, samples=512)
    assert 0.1 * 512 < found.attrs["lost"] < 0.3 * 512
    np.testing.assert_allclose(found["sometimes"].sel(index="first"), [0.0, 1.0], atol=0.1)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"method": "pawn"}, MismatchError, "'sobol' or 'morris' for the prior"),
        ({"samples": 3}, ModelError, "at least 16"),
        ({"key": -1}, ModelError, "key must be a whole number from 0 on"),
        ({"function": None}, MismatchError, "give a function of the model, or by at="),
        (
            {"function": lambda m: jnp.nan},
            ModelError,
            "16 samples are needed, and 0 of 16 had no solve",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(asked, error, said):
    model = formula(Sum(dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 1.0)))
    with pytest.raises(error, match=said):
        bd.sensitivity.sensitivity(model, None, **({"function": value, "samples": 16} | asked))


def test_a_model_of_known_numbers_is_refused():
    with pytest.raises(ModelError, match="nothing in the model is unknown"):
        bd.sensitivity.sensitivity(formula(Sum(1.0, 2.0)), None, value)
