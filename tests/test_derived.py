"""Derived quantities: functions of the model over all draws, and outputs that nobody observes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl import plots
from bayes_dasl.errors import DataError, MismatchError, ModelError
from tests.sifting import Sifting

TIMES = np.arange(0.0, 6.0)


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"x": -self.rate * y["x"]}

    def seen(self, t, y, u):
        return {"x": y["x"], "flux": self.rate * y["x"]}


MODEL = bd.Model(
    bd.ODE(Decay(dist.LogNormal(-1.0, 0.5)), {"x": 4.0}, Decay.seen, start=0.0, units={"flux": "g/h"}),
    {"x": bd.NormalNoise(0.1)},
)
DATA = xr.Dataset({"x": ("time", 4 * np.exp(-0.4 * TIMES))}, {"time": ("time", TIMES, {"units": "h"})})


@pytest.fixture(scope="module")
def post():
    return bd.fit(MODEL, DATA, Sifting(), progress=False)


def half_life(model):
    return jnp.log(2.0) / model.layer.vector_field.rate


class TestEvaluate:
    def test_a_number_of_every_draw(self, post):
        found = bd.evaluate(MODEL, post, half_life)
        assert found["half_life"].dims == ("chain", "draw")
        np.testing.assert_allclose(found["half_life"], np.log(2.0) / post["posterior"]["rate"])
        prior = bd.evaluate(MODEL, post, half_life, group="prior")
        np.testing.assert_allclose(prior["half_life"], np.log(2.0) / post["prior"]["rate"])
        assert (found.attrs["group"], prior.attrs["group"]) == ("posterior", "prior")

    def test_of_the_prior_without_a_fit(self):
        found = bd.evaluate(MODEL, None, half_life)
        assert found["half_life"].shape == (1, 1000)

    def test_along_a_coordinate(self, post):
        grid = np.linspace(0.0, 1.0, 7)
        found = bd.evaluate(
            MODEL, post, lambda m: {"line": m.layer.vector_field.rate * jnp.asarray(grid)}, coords={"dose": grid}
        )
        assert found["line"].dims == ("chain", "draw", "dose")
        np.testing.assert_allclose(found["line"], post["posterior"]["rate"] * found["dose"])

    @pytest.mark.thorough
    def test_of_what_the_layer_predicts(self, post):
        def flux(model, values):
            return {"flux": model.layer.vector_field.rate * values["x"], "total": jnp.sum(values["flux"])}

        found = bd.evaluate(MODEL, post, flux, np.arange(0.0, 9.0))
        fc = bd.forecast(MODEL, post, np.arange(0.0, 9.0))
        assert found["flux"].dims == ("chain", "draw", "time") and found["time"].attrs["units"] == "h"
        np.testing.assert_allclose(found["flux"], fc["unobserved"]["flux"], rtol=1e-9)
        np.testing.assert_allclose(found["total"], fc["unobserved"]["flux"].sum("time"), rtol=1e-9)

    @pytest.mark.thorough
    def test_failed_solves_are_nan(self, post):
        few = bd.Model(bd.ODE(MODEL.layer.vector_field, {"x": 4.0}, Decay.seen, start=0.0, max_steps=1), MODEL.noise)
        found = bd.evaluate(few, post, lambda m, values: {"x": values["x"]}, TIMES)
        assert np.isnan(found["x"]).all()

    @pytest.mark.thorough
    def test_axes_that_could_be_two_things_are_refused(self, post):
        with pytest.raises(ModelError, match="an axis of 'value' has 6 numbers, as have time and dose"):
            bd.evaluate(MODEL, post, lambda m, values: values["x"], TIMES, coords={"dose": TIMES})
        alone = bd.evaluate(MODEL, post, lambda m: m.layer.vector_field.rate * jnp.ones(3))
        assert alone["value"].dims == ("chain", "draw", "value_dim_0")

    @pytest.mark.thorough
    def test_a_series_before_a_fit(self):
        found = bd.evaluate(MODEL, None, lambda m, values: {"x": values["x"], "rate": m.layer.vector_field.rate}, DATA)
        assert found["x"].dims == ("chain", "draw", "time") and found["time"].attrs["units"] == "h"
        np.testing.assert_allclose(found["x"], 4 * np.exp(-found["rate"] * found["time"]), rtol=1e-5, atol=1e-5)

    def test_refusals(self, post):
        with pytest.raises(MismatchError, match="group must be one of"):
            bd.evaluate(MODEL, post, half_life, group="predictions")
        with pytest.raises(MismatchError, match="without a fit times alone do not say where the model starts"):
            bd.evaluate(MODEL, None, lambda m, values: values["x"], TIMES)
        with pytest.raises(ModelError, match="cannot be worked out of the model: AttributeError"):
            bd.evaluate(MODEL, post, lambda m: m.layer.nothing)
        with pytest.raises(ModelError, match=r"must take \(model\), or be given times by at="):
            bd.evaluate(MODEL, post, lambda m, values: values["x"])
        with pytest.raises(ModelError, match=r"must take \(model, values\), since `at` is given"):
            bd.evaluate(MODEL, post, half_life, TIMES)
        with pytest.raises(ModelError, match=r"write it with jax\.numpy"):
            bd.evaluate(MODEL, post, lambda m: float(m.layer.vector_field.rate))
        with pytest.raises(ModelError, match="coords gives 'dose' 3 values, but no axis"):
            bd.evaluate(MODEL, post, half_life, coords={"dose": np.arange(3.0)})
        with pytest.raises(DataError, match="cannot go back"):
            bd.evaluate(MODEL, post, lambda m, values: values["x"], np.array([-1.0, 0.0]))
        other = bd.Model(bd.Algebraic(lambda t, y, u: {"x": t}), bd.NormalNoise(dist.HalfNormal(1.0)))
        with pytest.raises(MismatchError, match="belongs to another model"):
            bd.evaluate(other, post, half_life)


class TestUnobserved:
    @pytest.mark.thorough
    def test_stays_in_forecasts_and_files_with_its_units(self, post, tmp_path):
        fc = bd.forecast(MODEL, post, TIMES)
        flux = fc["unobserved"]["flux"]
        assert list(fc["unobserved"].data_vars) == ["flux"] and flux.attrs["units"] == "g/h"
        np.testing.assert_allclose(
            flux, post["posterior"]["rate"] * fc["conditional_mean"]["x"].transpose("chain", "draw", "time"), rtol=1e-5
        )
        filed = bd.forecast(MODEL, post, TIMES, path=tmp_path / "fc.nc")
        np.testing.assert_array_equal(filed["unobserved"]["flux"], flux)

    @pytest.mark.thorough
    def test_is_not_there_where_all_is_observed(self, post):
        model = bd.Model(MODEL.layer, bd.NormalNoise(0.1))
        data = DATA.assign(flux=DATA["x"] * 0.4)
        found = bd.forecast(model, bd.fit(model, data, Sifting(), progress=False), TIMES)
        assert "unobserved" not in found.children


class TestFigures:
    def test_numbers_are_densities_and_series_bands(self, post):
        both = lambda m: {"half_life": half_life(m), "curve": jnp.exp(-m.layer.vector_field.rate * jnp.arange(4.0))}  # noqa: E731
        coords = {"day": np.arange(4.0)}
        found, prior = bd.evaluate(MODEL, post, both, coords=coords), bd.evaluate(MODEL, None, both, coords=coords)
        figure = plots.plot_derived(found, prior)
        panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
        assert panels.keys() == {"half_life", "curve"}
        bands = panels["curve"]
        median = next(line for line in bands.lines if line.get_label() == "median").get_ydata()
        np.testing.assert_allclose(median, found["curve"].median(("chain", "draw")))
        assert bands.get_xlabel() == "day"
        labels = {text.get_text() for text in figure.legends[0].get_texts()}
        assert labels == {"prior", "prior, 90 % band", "posterior", "90 % band", "50 % band", "median"}
        alone = plots.plot_derived(prior[["half_life"]]).legends[0].get_texts()
        assert [text.get_text() for text in alone] == ["prior"]
        series = plots.plot_derived(prior[["curve"]]).legends[0].get_texts()
        assert {text.get_text() for text in series} == {
            f"{n} of the prior" for n in ("median", "50 % band", "90 % band")
        }

    def test_members_have_intervals(self, post):
        three = lambda m: {"dose": m.layer.vector_field.rate * jnp.arange(1.0, 4.0)}  # noqa: E731
        found = bd.evaluate(MODEL, post, three, coords={"child": ["Ann", "Bo", "Cy"]})
        (ax,) = plots.plot_derived(found, bd.evaluate(MODEL, None, three, coords={"child": ["Ann", "Bo", "Cy"]})).axes
        assert [text.get_text() for text in ax.get_xticklabels()] == ["Ann", "Bo", "Cy"]
        low, high = found["dose"].quantile((0.05, 0.95), ("chain", "draw"))
        bars = next(bars for bars in ax.containers if bars.get_label() == "90 % band")
        np.testing.assert_allclose([bar.get_y() for bar in bars], low)
        np.testing.assert_allclose([bar.get_y() + bar.get_height() for bar in bars], high)
        (unnamed,) = plots.plot_derived(bd.evaluate(MODEL, post, three)).axes
        assert [text.get_text() for text in unnamed.get_xticklabels()] == ["0", "1", "2"]

    def test_refusals(self, post):
        with pytest.raises(MismatchError, match="choose a part of it"):
            plots.plot_derived(bd.evaluate(MODEL, post, lambda m: m.layer.vector_field.rate * jnp.ones((2, 3))))
        with pytest.raises(MismatchError, match="nothing to draw"):
            plots.plot_derived(xr.Dataset())

    @pytest.mark.thorough
    def test_on_the_page(self, post):
        fc = bd.forecast(MODEL, post, TIMES)
        page = bd.report(post, fc, derived=bd.evaluate(MODEL, post, half_life)).html
        assert 'id="derived"' in page and "Posterior of half_life" in page and "Posterior of flux" in page


def test_a_basis_is_drawn_over_its_range():
    class Growth(bd.Module):
        rate: bd.Basis

        def __call__(self, t, y, u):
            return {"x": self.rate(t, y, u)["r"] * y["x"]}

    basis = bd.Basis(bd.bases.BSpline(0.0, 5.0, 6), "x", "r")
    model = bd.Model(bd.ODE(Growth(basis), {"x": 1.0}), bd.NormalNoise(0.1))
    figure = plots.plot_function(model)
    grid = figure.axes[0].lines[0].get_xdata()
    assert (grid[0], grid[-1]) == (0.0, 5.0)
    assert jax.tree.leaves(basis)
