"""Populations, tables, doses, dates, forcings and noise of several kinds in one model."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from by_hand import posterior

import bayes_dasl as bd
from bayes_dasl.errors import DataError, MismatchError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.model import check_data
from bayes_dasl.prediction import with_what_is_censored
from bayes_dasl.reports._figures import forecast_cards
from bayes_dasl.scores.matching import fitted_between
from bayes_dasl.verdict.adequacy import _training_findings

NAMES, TIMES = ["Ann", "Bo", "Cy"], np.arange(1.0, 6.0)
DATES = pd.date_range("2001-01-01", periods=5)


class Line(bd.Module):
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.slope * t + u.get("x", 0.0)}


def each(noise, members=NAMES, slope=None, **options):
    slope = bd.varying(bd.between(1.0, 4.0)) if slope is None else slope
    return bd.Model(bd.Each(bd.Algebraic(Line(slope), **options), members), noise)


def lines(times=TIMES, members=NAMES, **more):
    values = np.random.default_rng(0).uniform(1.0, 3.0, (len(times), len(members)))
    return xr.Dataset(
        {"y": (("time", "subject"), values), **more}, {"time": times, "subject": members}
    )


def fitted(model, data):
    slopes = np.random.default_rng(1).uniform(1.0, 2.0, (2, 40, len(NAMES)))
    return posterior(model, data, {"layer.layer.function.slope": slopes})


class Around(bd.noise.AbstractNoise):
    noise: bd.noise.AbstractNoise

    def __call__(self, prediction):
        return self.noise(prediction)


class TestNoise:
    def test_residuals_that_hang_together_do_not_stand_inside_of_a_noise_that_takes_them_for_independent(
        self,
    ):
        with pytest.raises(
            ModelError, match="Around cannot be around CorrelatedLogNoise: it judges"
        ):
            Around(bd.filtering.CorrelatedLogNoise(bd.filtering.AR1(0.5, 0.5)))

    def test_what_is_censored_is_said_outside(self):
        with pytest.raises(
            ModelError,
            match=r"HurdleNoise cannot be around Censored: put bd\.noise\.Censored around",
        ):
            bd.noise.HurdleNoise(bd.noise.Censored(bd.LogNormalNoise(0.5), below=0.1), 0.3)

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        "process",
        [
            bd.filtering.AR1,
            pytest.param(bd.filtering.OrnsteinUhlenbeck, marks=pytest.mark.slow),
            pytest.param(bd.filtering.Matern32, marks=pytest.mark.slow),
            pytest.param(
                lambda scale, other: bd.filtering.RandomWalk(scale, start=0.0),
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_a_process_of_each_member_with_numbers_of_its_own(self, process):
        scales, others, data = np.array([0.3, 0.6, 0.9]), np.array([0.2, 0.3, 0.5]), lines()
        together = each(
            bd.filtering.CorrelatedNoise(process(bd.varying(scales), bd.varying(others)), 0.2)
        )
        alone = [
            each(bd.filtering.CorrelatedNoise(process(s, o), 0.2), [name])
            for s, o, name in zip(scales, others, NAMES, strict=True)
        ]
        data = data.isel(subject=[2, 0, 1])  # in another order than in the model

        def said(model, data):
            problem = pose(model, data)
            return float(problem.terms(jnp.zeros(problem.dimension)).data)

        assert said(together, data) == pytest.approx(
            sum(said(m, data.sel(subject=[n])) for m, n in zip(alone, NAMES, strict=True)), rel=1e-9
        )

    def test_what_is_missing_of_a_datum_is_told_by_date_and_name(self):
        errors = np.full((5, 3), 0.1)
        errors[1, 2] = np.nan
        data = lines(DATES, y_error=(("time", "subject"), errors))
        with pytest.raises(DataError, match="'y_error' is missing at time 2001-01-02, subject Cy"):
            pose(each(bd.NormalNoise(known_error="y_error")), data)

    def test_several_rows_at_one_date(self):
        model = bd.Model(
            bd.Algebraic(Line(bd.between(1.0, 4.0))),
            bd.filtering.CorrelatedNoise(bd.filtering.AR1(0.5, 0.5)),
        )
        with pytest.raises(
            DataError, match="time 2001-01-02 has several rows, but CorrelatedNoise"
        ):
            model.reader.past(lines(DATES[[0, 1, 1, 2, 3]]).isel(subject=0, drop=True))

    def test_where_a_walk_begins_on_dates_must_be_said(self):
        noise = bd.filtering.CorrelatedNoise(bd.filtering.RandomWalk(0.1, start=0.0), 0.1)
        with pytest.raises(
            ModelError, match="the time of a RandomWalk is a number: say what it counts"
        ):
            check_data(each(noise), lines(DATES))
        check_data(each(noise, units={"time": "days since 2001-01-01"}), lines(DATES))


SLOPE = bd.between(1.0, 4.0)


class TestTables:
    ROWS = "id,time,amt,conc\nBo,0,100,.\nBo,2,.,3\nAnn,0,200,.\nAnn,1,.,5\nAnn,2,.,4\n"

    @pytest.fixture
    def path(self, tmp_path):
        (tmp_path / "study.csv").write_text(self.ROWS)
        return tmp_path / "study.csv"

    @staticmethod
    def layer(given):
        return bd.dosing.Compartments(
            bd.population(dist.LogNormal(0.0, 1.0), 0.3), 10.0, doses=given
        )

    @pytest.mark.thorough
    def test_names_stay_names(self, path):
        data, given = (
            bd.from_table(path, "conc", subject="id"),
            bd.dosing.doses(path, into="central", subject="id"),
        )
        assert data["subject"].values.tolist() == list(given.members) == ["Ann", "Bo"]
        model = bd.Model(bd.Each(self.layer(given), given.members), bd.NormalNoise(0.5))
        swapped = data.isel(subject=[1, 0])
        one, other = pose(model, data), pose(model, swapped)
        at = jnp.asarray([0.3, -0.2, 0.4])
        assert one.log_density(at) == pytest.approx(float(other.log_density(at)))

    def test_a_description_names_members_once_and_not_all_of_many(self, path):
        given = bd.dosing.doses(path, into="central", subject="id")
        told = str(
            bd.describe(bd.Model(bd.Each(self.layer(given), given.members), bd.NormalNoise(0.5)))
        )
        assert told.count("Ann, Bo") == 1 and "varied" not in told
        many = str(
            bd.describe(bd.Each(bd.Algebraic(Line(bd.varying(SLOPE))), np.arange(1.0, 101.0)))
        )
        assert "members=(1, 2, 3, 4, 5, 6, …, 100), 100 of them" in many

    @pytest.mark.parametrize("members", [["Bo", "Ann"], ["Ann", "Di"], ["Ann"], [1.0, 2.0]])
    def test_doses_of_other_members_are_refused(self, path, members):
        given = bd.dosing.doses(path, into="central", subject="id")
        with pytest.raises(
            ModelError, match=r"the members are not those of the doses, in their order"
        ):
            bd.Each(self.layer(given), members)

    def test_doses_of_nobody_are_those_of_each(self, path):
        path.write_text("time,amt\n0,100\n")
        given = bd.dosing.doses(path, into="central")
        assert (
            bd.Each(self.layer(given), ["Ann", "Bo"]).members == ("Ann", "Bo")
            and given.members == ()
        )

    @pytest.mark.thorough
    def test_on_dates_it_must_be_said_since_when_doses_count(self, path):
        path.write_text("time,amt\n0,100\n")
        data = xr.Dataset({"conc": ("time", np.linspace(3.0, 1.0, 5))}, {"time": DATES})
        given = bd.dosing.doses(path, into="central")
        for units, start in (
            ({}, None),
            ({}, "2001-01-01"),
            ({"time": "days since 2001-01-01"}, "2001-01-01"),
        ):
            ode = bd.ODE(
                Decay(SLOPE), {"central": 0.0}, Decay.conc, doses=given, units=units, start=start
            )
            closed = bd.dosing.Compartments(SLOPE, 10.0, doses=given, units=units)
            for layer in (ode, closed):
                model = bd.Model(layer, bd.NormalNoise(0.1))
                if units:
                    check_data(model, data)
                else:
                    with pytest.raises(
                        ModelError, match="the time of doses is a number: say what it counts"
                    ):
                        check_data(model, data)

    def test_doses_before_the_start_of_a_solve_are_not_lost_in_silence(self, path):
        """As where a forecast under other doses starts where the fit did, or a layer at a date."""
        path.write_text("time,amt\n0,100\n")
        units = {"time": "days since 2001-01-01"}
        ode = bd.ODE(
            Decay(SLOPE), {"central": 0.0}, Decay.conc, doses=bd.dosing.doses(path, into="central"), units=units,
            start="2001-01-02",
        )  # fmt: skip
        data = xr.Dataset({"conc": ("time", np.linspace(3.0, 1.0, 4))}, {"time": DATES[1:]})
        with pytest.raises(
            ModelError, match="the table of doses begins at 0, before the solve does at 1"
        ):
            check_data(bd.Model(ode, bd.NormalNoise(0.1)), data)

    @pytest.mark.thorough
    def test_formulas_and_compartments_are_worked_out_at_own_times_too(self, path):
        data = bd.from_table(path, "conc", subject="id")  # Bo has no value at the first time
        given = bd.dosing.doses(path, into="central", subject="id")
        formula = bd.Algebraic(Line(bd.varying(SLOPE)))
        layers = {"conc": self.layer(given), "y": formula}
        for name, layer in layers.items():
            model = bd.Model(bd.Each(layer, given.members), bd.NormalNoise(0.5))
            values = np.array([[5.0, np.nan], [np.nan, 3.0]])
            problem = pose(
                model, data.rename(conc=name).assign({name: (("time", "subject"), values)})
            )
            np.testing.assert_array_equal(problem.inputs.times, [[1.0, 2.0]])
            at = jnp.full(problem.dimension, 0.3)
            everywhere = dataclasses.replace(
                problem,
                inputs=model.inputs(data),
                observed={name: jnp.asarray(values)},
                own_rows=None,
            )
            assert problem.log_density(at) == pytest.approx(
                float(everywhere.log_density(at)), rel=1e-9
            )
        moved = problem.moved_to({name: problem.inputs.times + 1.0 for name in problem.movable})
        assert moved.log_density(at) != problem.log_density(at)


class Decay(bd.Module):
    clearance: bd.Scalar

    def __call__(self, t, y, u):
        return {"central": -self.clearance * y["central"] / 10.0}

    def conc(self, t, y, u):
        return {"conc": y["central"] / 10.0}


class TestForecasts:
    NOISE = bd.NormalNoise(0.1)

    @pytest.mark.thorough
    def test_names_through_a_file_and_back(self, tmp_path):
        data = lines()
        model = each(self.NOISE)
        bd.save(fitted(model, data), tmp_path / "post.nc")
        post = bd.load(tmp_path / "post.nc")
        others = each(self.NOISE, ["Di", "Cy"])
        bd.save(bd.forecast(others, post, TIMES), tmp_path / "fc.nc")
        fc = bd.load(tmp_path / "fc.nc")
        seen, then = (tree["posterior"]["slope"].sel(subject="Cy") for tree in (fc, post))
        np.testing.assert_array_equal(seen, then)
        with pytest.raises(MismatchError, match="forecast at other places 'subject'"):
            bd.score(fc, data)

    @pytest.mark.thorough
    def test_scores_are_of_the_members_that_are_forecast(self):
        data = lines()
        model, asked = each(self.NOISE), ["Cy", "Ann"]
        fc = bd.forecast(
            model, fitted(model, data), xr.Dataset(coords={"time": TIMES, "subject": asked})
        )
        pd.testing.assert_frame_equal(bd.score(fc, data), bd.score(fc, data.sel(subject=asked)))
        assert bd.scores.pit(fc, data)["y"]["subject"].values.tolist() == asked

    @pytest.mark.thorough
    def test_forcings_that_become_those_of_each_member(self):
        """The span that was fitted ends where the forcing of one that the fit has seen is
        another.
        """
        data = lines(x=("time", TIMES))
        model = each(self.NOISE, forcings="x")
        post = fitted(model, data)
        own = xr.DataArray(TIMES[:, None] * np.ones(3), dims=("time", "subject"))
        asked = xr.Dataset({"x": own}, {"time": TIMES, "subject": NAMES})
        assert fitted_between(bd.forecast(model, post, asked)) == (1.0, 5.0)
        asked["x"][3, 1] += 1.0
        fc = bd.forecast(model, post, asked)
        assert fitted_between(fc) == (1.0, 3.0)
        slopes = post["posterior"]["slope"].values
        expected = slopes[..., None, :] * TIMES[:, None] + asked["x"].values
        np.testing.assert_allclose(fc["conditional_mean"]["y"], expected)

    def test_a_new_member_under_forcings_of_its_own_leaves_what_was_fitted_of_others(self):
        own = (("time", "subject"), TIMES[:, None] * np.ones(3))
        data = lines(x=own)
        post = fitted(each(self.NOISE, forcings="x"), data)
        others = ["Cy", "Di"]
        x = np.stack([TIMES, 3 * TIMES], axis=1)
        asked = xr.Dataset({"x": (("time", "subject"), x)}, {"time": TIMES, "subject": others})
        model = each(self.NOISE, others, forcings="x")
        fc = bd.forecast(model, post, asked)
        assert fitted_between(fc) == (1.0, 5.0)
        with pytest.raises(
            DataError, match=r"forcing 'x' of subject Di, which the fit has not seen, .* from 1 on"
        ):
            bd.forecast(model, post, asked.isel(time=slice(3, None)))

    def test_an_update_tells_the_time_at_which_a_forcing_of_a_member_is_missing(self):
        own = (("time", "subject"), TIMES[:, None] * np.ones(3))
        data = lines(x=own)
        model = each(self.NOISE, forcings="x")
        later = data.assign_coords(time=TIMES + 5.0)
        with pytest.raises(DataError, match="forcing 'x' is missing at the new time 7"):
            bd.update(
                model, fitted(model, data), later.assign(x=later["x"].where(later["x"] != 2.0))
            )

    def test_neighbours_of_residuals_are_those_of_one_member(self):
        """Residuals that follow each other in time, and lie on both sides at each time."""
        rng = np.random.default_rng(2)
        times, members = np.arange(1.0, 41.0), [*NAMES, "Di"]
        draws = np.full((2, 200, 4), 1.5) + 1e-3 * rng.normal(size=(2, 200, 4))
        slow = np.sign(np.sin(times / 4.0))[:, None] * np.array([1.0, -1.0, 1.0, -1.0])
        values = 1.5 * times[:, None] + 0.1 * slow
        data = xr.Dataset({"y": (("time", "subject"), values)}, {"time": times, "subject": members})
        model = each(self.NOISE, members)
        post = posterior(model, data, {"layer.layer.function.slope": draws})
        found = _training_findings(bd.forecast(model, post, times), with_what_is_censored(post))
        assert any(f.subject == "order of residuals of y" for f in found)

    def test_a_visual_check_of_data_that_are_censored(self):
        """What is below the limit is drawn as it would be reported, and so is what the model draws
        there.
        """
        data = lines()
        model = each(bd.noise.Censored(bd.NormalNoise(1.0), below=2.5))
        seen = data.assign(y=data["y"].clip(min=2.5))
        ax = bd.plots.plot_vpc(model, fitted(model, seen), seen, "y", bins=2).axes[0]
        assert min(band.get_paths()[0].vertices[:, 1].min() for band in ax.collections) >= 2.5

    def test_shrinkage_is_of_the_members_of_the_fit(self):
        slope = lambda: bd.population(dist.LogNormal(0.5, 0.5), 0.3)  # noqa: E731
        model, path = each(self.NOISE, slope=slope()), "layer.layer.function.slope"
        draws = np.random.default_rng(1).uniform(1.0, 2.0, (2, 40, 3))
        post = posterior(model, lines(), {f"{path}.center": draws.mean(-1), path: draws})
        assert np.isfinite(bd.sensitivity.shrinkage(model, post)["slope"])
        with pytest.raises(MismatchError, match="give the model of the fit"):
            bd.sensitivity.shrinkage(each(self.NOISE, ["Di", *NAMES], slope()), post)

    def test_what_is_worked_out_has_the_members_as_a_dimension(self):
        model, slope = each(self.NOISE), lambda m, *values: {"slope": m.layer.layer.function.slope}
        post = fitted(model, lines())
        found = bd.evaluate(model, post, lambda m, values: slope(m) | values, at=TIMES)
        assert found["slope"].dims == ("chain", "draw", "subject") and found["y"].dims[2:] == (
            "time",
            "subject",
        )
        np.testing.assert_array_equal(
            found["slope"].sel(subject="Bo"), post["posterior"]["slope"].sel(subject="Bo")
        )
        named = bd.evaluate(model, post, slope, coords={"who": NAMES})
        assert named["slope"].dims == ("chain", "draw", "who")
        with pytest.raises(
            ModelError, match="3 numbers, as have time and subject"
        ):  # not taken for times
            bd.evaluate(model, post, slope, at=TIMES[:3])
        others = bd.evaluate(
            model,
            post,
            slope,
            at=xr.Dataset(coords={"time": TIMES, "subject": ["Cy", "Bo", "Ann"]}),
        )
        assert others["slope"].dims == ("chain", "draw", "slope_dim_0")

    def test_figures_of_a_series_refuse_members(self):
        """More members than times: their draws would be taken for those of times."""
        model, data = each(self.NOISE), lines()
        fc = bd.forecast(model, fitted(model, data), TIMES[:2])
        for draw in (
            lambda: bd.plots.plot_forecast(fc, data, None, "y"),
            lambda: bd.plots.plot_scenarios({"now": fc}, data, "y"),
            lambda: bd.plots.plot_decomposition(bd.decompose(fc), "y"),
        ):
            with pytest.raises(
                MismatchError, match="'y' lies along time and subject, but this draws a series"
            ):
                draw()
        one = fc.sel(subject="Bo")
        assert bd.plots.plot_forecast(one, data.sel(subject="Bo"), None, "y")
        assert forecast_cards(
            one, data.sel(subject="Bo"), None, ["y"]
        )  # and so does a report of one

    @pytest.mark.thorough
    def test_figures_tell_censored_data_from_those_that_were_seen(self):
        codes = np.zeros((5, 3))
        codes[1, 0], codes[2, 0] = 1.0, -1.0
        data = lines(y_censored=(("time", "subject"), codes))
        model = each(bd.noise.Censored(self.NOISE))
        post = fitted(model, data)
        fc = bd.forecast(model, post, TIMES)
        ax = bd.plots.plot_members(fc, with_what_is_censored(post), None, "y").axes[0]
        drawn = {
            line.get_marker(): line.get_xdata().tolist()
            for line in ax.lines
            if "data" in line.get_label()
        }
        assert drawn == {"o": [1.0, 4.0, 5.0], "v": [2.0], "^": [3.0]}
        limited = each(bd.noise.Censored(self.NOISE, below=2.0))
        fc = bd.forecast(limited, fitted(limited, data[["y"]]), TIMES)
        ax = bd.plots.plot_forecast(
            fc.sel(subject="Bo"), data[["y"]].sel(subject="Bo"), None, "y"
        ).axes[0]
        (below,) = (line for line in ax.lines if line.get_marker() == "v")
        assert len(below.get_xdata()) == int((data["y"].sel(subject="Bo") <= 2.0).sum())
