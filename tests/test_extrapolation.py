"""The verdict on a forecast that asks an unknown function for inputs at which no data told it."""

import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError, ModelError
from bayes_dasl.plots import plot_function
from bayes_dasl.prediction import Pusher, watched
from bayes_dasl.prediction.function_inputs import function_inputs
from bayes_dasl.priors import draw_prior
from bayes_dasl.verdict.extrapolation import leaving
from bayes_dasl.weighting import BayesFactors, judge_mixture

DOSES = np.r_[np.linspace(0.0, 3.0, 12), np.linspace(3.0, 6.0, 8)]
KNOWN = 12


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


class Line(bd.Module):
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.slope * jnp.asarray(u["dose"])}


class Response(bd.Module):
    slope: bd.Scalar
    factor: bd.Basis

    def __call__(self, t, y, u):
        return {"y": self.slope * u["dose"] * self.factor(t, y, u)["factor"]}


def data(seed=0, level=1.0):
    noise = np.random.default_rng(seed).normal(0, 0.1, DOSES.size)
    variables = {"y": ("time", level * DOSES + noise), "dose": ("time", DOSES)}
    return xr.Dataset(variables, {"time": np.arange(float(DOSES.size))})


def model(scale):
    """A response to a dose whose unknown factor is near one, as near as the scale says."""
    factor = bd.Basis(bd.bases.BSpline(0.0, 6.0, 4), "dose", "factor", scale=scale, level=1.0)
    return bd.Model(
        bd.Algebraic(Response(dist.Normal(1.0, 0.2), factor), forcings="dose"), bd.NormalNoise(0.1)
    )


MODEL = model(0.1)


@pytest.fixture(scope="module")
def fitted():
    return bd.fit(MODEL, data().isel(time=slice(0, KNOWN)), Sifting(), progress=False)


@pytest.fixture(scope="module")
def ahead(fitted):
    return bd.forecast(MODEL, fitted, data())


def said(verdict):
    return [f for f in verdict.findings if f.subject == "extrapolation of function.factor"]


def test_rows_that_leave_the_training_range_are_counted(fitted, ahead):
    (left,) = leaving(fitted, ahead)
    # The range is 0 to 3, a twentieth of it wider: of the eight doses ahead the first is 3.
    assert left.outside.tolist() == [False] + 7 * [True]
    (finding,) = said(bd.diagnose(fitted, ahead))
    assert (finding.level, finding.aspect) == ("warning", "model")
    assert finding.message.startswith(
        "in 7 of 8 rows ahead (88%) the forecast leaves the range of dose (0 to 3)"
    )
    assert "nothing has checked it there" in finding.message
    assert "extrapolation of function.factor" in bd.diagnose(fitted, ahead).verdict


def test_held_out_data_there_check_it(fitted, ahead):
    (finding,) = said(bd.diagnose(fitted, ahead, data(level=3.0)))
    assert (
        finding.level == "warning"
        and "there the 90 % intervals hold 0 of 7 values" in finding.message
    )


@pytest.mark.parametrize(("scale", "level"), [(0.1, "inconclusive"), (1e-4, "good")])
def test_data_check_no_more_than_they_could_have_refuted(scale, level):
    """Errors of a function that nobody knows there are nearly one error; seven of the noise alone
    are seven.
    """
    known = data().isel(time=slice(0, KNOWN))
    post = bd.fit(model(scale), known, Sifting(), progress=False)
    (finding,) = said(bd.diagnose(post, bd.forecast(model(scale), post, data()), data()))
    assert finding.level == level, finding
    assert "hold 7 of 7 values" in finding.message and bool(finding.remedy) == (level != "good")


def test_few_values_inside_do_not_lift_the_warning_even_if_they_may_be_one_error(fitted, ahead):
    (finding,) = said(bd.diagnose(fitted, ahead, data(level=1.08)))
    assert (
        finding.level == "warning"
        and "hold 0 of 7 values (0%), worth about 1 independent ones" in finding.message
    )


def test_held_out_data_elsewhere_check_nothing_there(fitted, ahead):
    near = data().isel(time=slice(0, KNOWN + 1))
    (finding,) = said(bd.diagnose(fitted, ahead, near))
    assert finding.level == "warning" and "nothing has checked it there" in finding.message


def test_another_table_with_the_labels_of_fitted_rows_is_ahead(fitted):
    """Its rows were taken for fitted ones, so that nothing was said."""
    doses = np.linspace(5.0, 6.0, KNOWN)
    other = xr.Dataset(
        {"y": ("time", doses), "dose": ("time", doses)}, {"time": np.arange(float(KNOWN))}
    )
    (finding,) = said(bd.diagnose(fitted, bd.forecast(MODEL, fitted, other)))
    assert finding.level == "warning" and finding.message.startswith(
        "in 12 of 12 rows ahead (100%)"
    )


def test_a_forecast_within_the_range_is_not_named(fitted):
    inside = data().isel(time=slice(0, KNOWN + 1))
    assert not said(bd.diagnose(fitted, bd.forecast(MODEL, fitted, inside)))


def test_a_figure_of_the_function_marks_where_data_are(fitted):
    (ax,) = plot_function(MODEL, fitted).axes
    (ticks,) = [line for line in ax.lines if line.get_label() == "data"]
    np.testing.assert_allclose(ticks.get_xdata(), DOSES[:KNOWN])
    (prior,) = plot_function(MODEL).axes
    assert "data" not in [line.get_label() for line in prior.lines]


def response(m, u):
    """The law times its factor."""
    return {"response": m.layer.function(0.0, {}, u)["y"]}


def test_a_figure_of_a_derived_rate_is_that_of_its_draws(fitted):
    (ax,) = plot_function(MODEL, fitted, response, over={"dose": (1.0, 3.0)}).axes
    (median,) = [line for line in ax.lines if line.get_label() == "posterior median"]
    grid = jnp.asarray(median.get_xdata())
    assert (
        ax.get_title(loc="left") == "response"
        and ax.get_xlim() == (1.0, 3.0)
        and ax.get_xlabel() == "dose"
    )
    along = bd.evaluate(
        MODEL,
        fitted,
        lambda m: {"y": jax.vmap(lambda dose: response(m, {"dose": dose})["response"])(grid)},
    )
    np.testing.assert_allclose(median.get_ydata(), along["y"].median(("chain", "draw")), rtol=1e-6)
    (ticks,) = [line for line in ax.lines if line.get_label() == "data"]
    np.testing.assert_allclose(ticks.get_xdata(), DOSES[:KNOWN])
    # Without `over` it is drawn over the range of the unknown function's input.
    assert plot_function(MODEL, fitted, response).axes[0].get_xlim() == (0.0, 6.0)


def test_a_rate_of_a_model_without_unknown_functions():
    known = bd.Model(
        bd.Algebraic(Line(dist.Normal(1.0, 0.2)), forcings="dose"), bd.NormalNoise(0.1)
    )
    line = lambda m, u: {"y": m.layer.function.slope * u["dose"]}  # noqa: E731
    assert plot_function(known, None, line, over={"dose": (0.0, 2.0)}).axes[0].get_xlim() == (
        0.0,
        2.0,
    )
    with pytest.raises(ModelError, match="say over which inputs the rate is drawn"):
        plot_function(known, None, line)
    with pytest.raises(ModelError, match="a rate returns a dict of numbers"):
        plot_function(known, None, lambda m, u: u["dose"], over={"dose": (0.0, 2.0)})
    with pytest.raises(MismatchError, match=r"over\['dose'\] must be a range \(low, high\)"):
        plot_function(known, None, line, over={"dose": (2.0, 0.0)})


def test_an_unknown_function_is_drawn_over_another_range():
    assert plot_function(MODEL, over={"dose": (0.0, 9.0)}).axes[0].get_xlim() == (0.0, 9.0)
    with pytest.raises(MismatchError, match="no input 'y': its inputs are dose"):
        plot_function(MODEL, over={"y": (0.0, 1.0)})


def test_a_mixture_says_so_too(fitted, ahead):
    science = bd.Model(
        bd.Algebraic(Line(dist.Normal(1.0, 0.2)), forcings="dose"), bd.NormalNoise(0.1)
    )
    posts = {
        "science": bd.fit(science, data().isel(time=slice(0, KNOWN)), Sifting(), progress=False),
        "hybrid": fitted,
    }
    forecasts = {"science": bd.forecast(science, posts["science"], data()), "hybrid": ahead}
    verdicts = {name: bd.diagnose(posts[name], forecasts[name]) for name in posts}
    for weight, often in ((0.5, 1), (0.01, 0)):
        table = pd.DataFrame(
            {"weight": [1 - weight, weight], "prior": 0.5}, index=["science", "hybrid"]
        )
        weighed = BayesFactors(table, (), "science")
        mixed = bd.mixture(forecasts, weighed.weights)
        judged = judge_mixture(mixed, weighed, forecasts, verdicts, fitted, data(), own="hybrid")
        found = [
            f
            for f in judged.diagnosis.findings
            if f.subject == "hybrid: extrapolation of function.factor"
        ]
        assert len(found) == often


class TestStates:
    """Inputs that are states are those of the solves, at rows that are watched."""

    @pytest.fixture(scope="class")
    @staticmethod
    def asked():
        closure = bd.Network.mlp({"y": (1.0, 0.5)}, ("y",), 0.05, width=2, depth=1)
        model = bd.Model(
            small.Stepped(bd.Residual(Decay(bd.between(0.3, 0.6)), closure), {"y": 2.0}),
            bd.NormalNoise(0.1),
        )
        times = xr.Dataset(coords={"time": np.linspace(0.0, 4.0, 9)})
        inputs = model.reader.driven(times)
        draws = {
            path: np.asarray(v) for path, v in draw_prior(model, 20, key=jax.random.key(0)).items()
        }
        along = watched(model, inputs, 20)
        pusher = Pusher(model, inputs, draws, watched=along)
        mean = np.median(pusher.whole().mean["y"], axis=0)
        return function_inputs(
            model, inputs, times["time"], along.times, pusher.watched_states
        ), mean

    def test_they_are_medians_over_draws(self, asked):
        found, mean = asked
        (name,) = found.data_vars
        assert found[name].attrs == {"function": "vector_field.closure", "input": "y"}
        np.testing.assert_allclose(found[name], mean, rtol=1e-10)
