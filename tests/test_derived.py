"""Derived quantities: functions of the model over all draws, and outputs that nobody observes."""

from html import unescape

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl import plots
from bayes_dasl.errors import DataError, MismatchError, ModelError
from tests import trees
from tests.sifting import Sifting

TIMES = np.arange(0.0, 6.0)


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"x": -self.rate * y["x"]}

    def seen(self, t, y, u):
        return {"x": y["x"], "flux": self.rate * y["x"]}


MODEL = bd.Model(
    bd.ODE(
        Decay(dist.LogNormal(-1.0, 0.5)), {"x": 4.0}, Decay.seen, start=0.0, units={"flux": "g/h"}
    ),
    {"x": bd.NormalNoise(0.1)},
)
DATA = xr.Dataset(
    {"x": ("time", 4 * np.exp(-0.4 * TIMES))}, {"time": ("time", TIMES, {"units": "h"})}
)


@pytest.fixture(scope="module")
def post():
    return bd.fit(MODEL, DATA, Sifting(), progress=False)


def of_members(names, seed=0):
    """A number, a number of each member and a series of each, by hand."""
    rng, times = np.random.default_rng(seed), np.linspace(0.0, 24.0, 5)
    rate = rng.lognormal(-1.5, 0.3, (2, 20, len(names)))
    return xr.Dataset(
        {
            "conc": (
                ("chain", "draw", "time", "subject"),
                np.exp(-rate[:, :, None] * times[:, None]),
                {"units": "mg/L"},
            ),
            "half_life": (("chain", "draw", "subject"), np.log(2.0) / rate, {"units": "h"}),
            "rate": (("chain", "draw"), rate[..., 0], {"units": "1/h"}),
        },
        {"time": ("time", times, {"units": "h"}), "subject": names},
    )


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
            MODEL,
            post,
            lambda m: {"line": m.layer.vector_field.rate * jnp.asarray(grid)},
            coords={"dose": grid},
        )
        assert found["line"].dims == ("chain", "draw", "dose")
        np.testing.assert_allclose(found["line"], post["posterior"]["rate"] * found["dose"])

    @pytest.mark.thorough
    def test_of_what_the_layer_predicts(self, post):
        def flux(model, values):
            return {
                "flux": model.layer.vector_field.rate * values["x"],
                "total": jnp.sum(values["flux"]),
            }

        found = bd.evaluate(MODEL, post, flux, np.arange(0.0, 9.0))
        fc = bd.forecast(MODEL, post, np.arange(0.0, 9.0))
        assert (
            found["flux"].dims == ("chain", "draw", "time") and found["time"].attrs["units"] == "h"
        )
        np.testing.assert_allclose(found["flux"], fc["unobserved"]["flux"], rtol=1e-9)
        np.testing.assert_allclose(found["total"], fc["unobserved"]["flux"].sum("time"), rtol=1e-9)

    @pytest.mark.thorough
    def test_failed_solves_are_nan(self, post):
        few = bd.Model(
            bd.ODE(MODEL.layer.vector_field, {"x": 4.0}, Decay.seen, start=0.0, max_steps=1),
            MODEL.noise,
        )
        found = bd.evaluate(few, post, lambda m, values: {"x": values["x"]}, TIMES)
        assert np.isnan(found["x"]).all()

    @pytest.mark.thorough
    def test_axes_that_could_be_two_things_are_refused(self, post):
        with pytest.raises(
            ModelError, match="an axis of 'value' has 6 numbers, as have time and dose"
        ):
            bd.evaluate(MODEL, post, lambda m, values: values["x"], TIMES, coords={"dose": TIMES})
        alone = bd.evaluate(MODEL, post, lambda m: m.layer.vector_field.rate * jnp.ones(3))
        assert alone["value"].dims == ("chain", "draw", "value_dim_0")

    @pytest.mark.thorough
    def test_a_series_before_a_fit(self):
        found = bd.evaluate(
            MODEL,
            None,
            lambda m, values: {"x": values["x"], "rate": m.layer.vector_field.rate},
            DATA,
        )
        assert found["x"].dims == ("chain", "draw", "time") and found["time"].attrs["units"] == "h"
        np.testing.assert_allclose(
            found["x"], 4 * np.exp(-found["rate"] * found["time"]), rtol=1e-5, atol=1e-5
        )

    def test_refusals(self, post):
        with pytest.raises(MismatchError, match="group must be one of"):
            bd.evaluate(MODEL, post, half_life, group="predictions")
        with pytest.raises(
            MismatchError, match="without a fit times alone do not say where the model starts"
        ):
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
        other = bd.Model(
            bd.Algebraic(lambda t, y, u: {"x": t}), bd.NormalNoise(dist.HalfNormal(1.0))
        )
        with pytest.raises(MismatchError, match="belongs to another model"):
            bd.evaluate(other, post, half_life)


class TestUnobserved:
    @pytest.mark.thorough
    def test_stays_in_forecasts_and_files_with_its_units(self, post, tmp_path):
        fc = bd.forecast(MODEL, post, TIMES)
        flux = fc["unobserved"]["flux"]
        assert list(fc["unobserved"].data_vars) == ["flux"] and flux.attrs["units"] == "g/h"
        np.testing.assert_allclose(
            flux,
            post["posterior"]["rate"]
            * fc["conditional_mean"]["x"].transpose("chain", "draw", "time"),
            rtol=1e-5,
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
        def both(m):
            return {
                "half_life": half_life(m),
                "curve": jnp.exp(-m.layer.vector_field.rate * jnp.arange(4.0)),
            }

        coords = {"day": np.arange(4.0)}
        found, prior = (
            bd.evaluate(MODEL, post, both, coords=coords),
            bd.evaluate(MODEL, None, both, coords=coords),
        )
        figure = plots.plot_derived(found, prior)
        panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
        assert panels.keys() == {"half_life", "curve"}
        bands = panels["curve"]
        median = next(line for line in bands.lines if line.get_label() == "median").get_ydata()
        np.testing.assert_allclose(median, found["curve"].median(("chain", "draw")))
        assert bands.get_xlabel() == "day"
        labels = {text.get_text() for text in figure.legends[0].get_texts()}
        assert labels == {
            "prior",
            "prior, 90 % band",
            "posterior",
            "90 % band",
            "50 % band",
            "median",
        }
        alone = plots.plot_derived(prior[["half_life"]]).legends[0].get_texts()
        assert [text.get_text() for text in alone] == ["prior"]
        series = plots.plot_derived(prior[["curve"]]).legends[0].get_texts()
        assert {text.get_text() for text in series} == {
            f"{n} of the prior" for n in ("median", "50 % band", "90 % band")
        }

    def test_members_have_intervals(self, post):
        three = lambda m: {"dose": m.layer.vector_field.rate * jnp.arange(1.0, 4.0)}  # noqa: E731
        found = bd.evaluate(MODEL, post, three, coords={"child": ["Ann", "Bo", "Cy"]})
        (ax,) = plots.plot_derived(
            found, bd.evaluate(MODEL, None, three, coords={"child": ["Ann", "Bo", "Cy"]})
        ).axes
        assert [text.get_text() for text in ax.get_xticklabels()] == ["Ann", "Bo", "Cy"]
        low, high = found["dose"].quantile((0.05, 0.95), ("chain", "draw"))
        bars = next(bars for bars in ax.containers if bars.get_label() == "90 % band")
        np.testing.assert_allclose([bar.get_y() for bar in bars], low)
        np.testing.assert_allclose([bar.get_y() + bar.get_height() for bar in bars], high)
        (unnamed,) = plots.plot_derived(bd.evaluate(MODEL, post, three)).axes
        assert [text.get_text() for text in unnamed.get_xticklabels()] == ["0", "1", "2"]

    @pytest.mark.parametrize(
        "names", [np.arange(1.0, 31.0), [f"Ann {i}" for i in range(30)]], ids=["numbers", "names"]
    )
    def test_series_of_members_have_a_panel_each(self, names):
        found, prior = of_members(names), of_members(names[1:], seed=1)
        figure = plots.plot_derived(found[["conc"]], prior)
        shown = [ax for ax in figure.axes if ax.get_visible()]
        chosen = found["subject"].values[np.linspace(0, 29, 12).round().astype(int)]
        titles = [
            name if isinstance(name, str) else f"subject {name:g}" for name in chosen.tolist()
        ]
        assert [ax.get_title(loc="left") for ax in shown] == titles
        for ax, member in zip(shown, chosen, strict=True):
            median, low = (
                found["conc"].sel(subject=member).quantile((0.5, 0.05), ("chain", "draw")).values
            )
            lines = {line.get_label(): line.get_ydata() for line in ax.lines}
            np.testing.assert_allclose(lines["median"], median)
            band = next(part for part in ax.collections if part.get_label() == "90 % band")
            assert band.get_datalim(ax.transData).y0 == pytest.approx(low.min())
            assert ("prior" in lines) == (member in prior["subject"])
        (place,) = figure.subfigs
        assert (place.get_supxlabel(), place.get_supylabel()) == ("time (h)", "mg/L")
        assert place.get_suptitle() == "conc, 12 of 30, evenly chosen"
        assert sum(ax.get_visible() for ax in plots.plot_derived(found[["conc"]], most=5).axes) == 5

    def test_numbers_of_members_have_intervals_also_where_members_are_numbers(self):
        found = of_members(np.arange(1.0, 5.0))
        (ax,) = plots.plot_derived(found[["half_life"]]).axes
        assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "3", "4"]
        assert ax.get_xlabel() == "subject" and ax.get_ylabel() == "h"
        median = next(line for line in ax.lines if line.get_label() == "median")
        np.testing.assert_allclose(median.get_ydata(), found["half_life"].median(("chain", "draw")))
        assert median.get_linestyle() == "None"
        other = found[["half_life"]].rename(subject="who")
        bars = [
            len(plots.plot_derived(other, members=members).axes[0].containers)
            for members in ("who", "subject")
        ]
        assert bars == [2, 0]

    def test_many_names_are_upright_below_the_whole_width(self):
        found = of_members([f"patient number {i}" for i in range(40)])
        (ax,) = plots.plot_derived(found[["half_life"]]).axes
        labels = ax.get_xticklabels()
        assert len(labels) == 20 and {text.get_rotation() for text in labels} == {90.0}

    def test_all_kinds_in_one_figure(self):
        figure = plots.plot_derived(of_members(["Ann", "Bo", "Cy"]))
        titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_visible()]
        assert titles == ["half_life", "rate", "Ann", "Bo", "Cy"]
        assert [place.get_suptitle() for place in figure.subfigs] == ["", "conc"]
        labels = {text.get_text() for text in figure.legends[0].get_texts()}
        assert labels == {"posterior", "median", "50 % band", "90 % band"}

    def test_draws_of_members_that_are_not_finite_are_left_out(self):
        found = of_members(np.arange(1.0, 4.0))
        found["conc"][0, :3, :, 1] = np.nan
        found["conc"][:, :, :, 2] = np.nan
        figure = plots.plot_derived(found[["conc"]])
        median = next(line for line in figure.axes[1].lines if line.get_label() == "median")
        expected = found["conc"].sel(subject=2.0).median(("chain", "draw"))
        np.testing.assert_allclose(median.get_ydata(), expected)
        assert [text.get_text() for text in figure.axes[2].texts] == ["no draw\nis finite"]
        assert (
            figure.subfigs[0]
            .get_suptitle()
            .endswith("up to 40 draws of a panel, which are not finite, are left out")
        )

    def test_members_along_names_or_along_nothing(self):
        values = {
            "c": (("chain", "draw", "organ", "subject"), np.ones((1, 9, 2, 3)) * np.arange(3))
        }
        figure = plots.plot_derived(
            xr.Dataset(values, {"organ": ["gut", "liver"], "subject": np.arange(3)})
        )
        assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["gut", "liver"]
        unnamed = xr.Dataset(
            {"c": (("chain", "draw", "day", "c_dim_1"), np.ones((1, 9, 4, 3)))},
            {"day": np.arange(4)},
        )
        titles = [ax.get_title(loc="left") for ax in plots.plot_derived(unnamed).axes]
        assert titles == ["c_dim_1 0", "c_dim_1 1", "c_dim_1 2"]

    def test_refusals(self, post):
        with pytest.raises(MismatchError, match="choose a part of it"):
            plots.plot_derived(
                bd.evaluate(MODEL, post, lambda m: m.layer.vector_field.rate * jnp.ones((2, 3)))
            )
        with pytest.raises(MismatchError, match="nothing to draw"):
            plots.plot_derived(xr.Dataset())
        with pytest.raises(
            MismatchError, match=r"runs along chain, draw, time, who.*members='who'"
        ):
            plots.plot_derived(of_members(np.arange(1.0, 4.0)).rename(subject="who"))

    def test_the_page_draws_series_of_members_and_names_what_it_does_not_draw(self, undrawn):
        fc, found = trees.make_fc(), of_members(np.arange(1.0, 31.0)).rename(subject="child")
        field = xr.DataArray(np.ones((2, 20, 5, 4)), dims=("chain", "draw", "time", "depth"))
        field = field.assign_coords(time=found["time"], depth=np.arange(4.0))
        fc.attrs["members"], fc["unobserved"] = (
            "child",
            xr.DataTree(found[["conc"]].assign(heat=field)),
        )
        many = found[["half_life"]].assign({f"q{i}": found["rate"] for i in range(13)})
        page = unescape(
            bd.report(trees.make_post(), fc, derived=many.assign(deep=field * found["rate"])).html
        )
        assert page.count('id="figure-unobserved-conc"') == page.count('id="figure-derived"') == 1
        assert "Without noise: conc, a panel for each child, over all draws." in page
        assert (
            "heat is not drawn, since it has 2 dimensions beside chain and draw, time and depth: "
            "it is "
            "fc['unobserved']['heat'], of which bd.plots.plot_derived draws a part, such as "
            ".isel(depth=0)."
        ) in page
        assert "deep is not drawn" in page and "it is derived['deep']" in page
        assert "room for 12 of them: derived['q11'] and derived['q12']." in page

    def test_the_page_names_what_it_does_not_draw_where_it_draws_nothing(self, undrawn):
        field = xr.Dataset(
            {"heat": (("chain", "draw", "time", "x", "z"), np.ones((2, 20, 5, 4, 3)))}
        )
        page = unescape(bd.report(trees.make_post(), trees.make_fc(), derived=field).html)
        assert 'id="derived"' in page and 'id="figure-derived' not in page
        assert "3 dimensions beside chain and draw, time, x and z: it is derived['heat']" in page
        assert "such as .isel(x=0, z=0)." in page

    @pytest.mark.thorough
    def test_on_the_page(self, post):
        fc = bd.forecast(MODEL, post, TIMES)
        page = bd.report(post, fc, derived=bd.evaluate(MODEL, post, half_life)).html
        assert (
            'id="derived"' in page
            and "Posterior of half_life" in page
            and "Posterior of flux" in page
        )


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
