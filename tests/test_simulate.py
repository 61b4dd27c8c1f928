"""Simulated data: from the right start, at the right places, with their true values beside them."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import at_times, levels_model, posterior
from test_population import SUBJECTS, TIMES, Decay, data as of_members, model as population

import bayes_dasl as bd
from bayes_dasl.errors import DataError, MismatchError, ModelError
from bayes_dasl.inference import pose

LATE = xr.Dataset(coords={"time": [7.0, 8.0]})


def decay(rate=0.3, **more):
    return bd.ODE(Decay(rate), {"y": 2.0}, **more)


def heat():
    law = bd.pde.FiniteVolume(bd.pde.Grid(x=(0.0, 1.0, 8)), 0.1, boundary=bd.pde.Flux(0.0))
    return bd.pde.PDE(law, {"c": lambda t, y, u: u["x"]}, start=0.0)


class TestInputs:
    def test_a_layer_says_when_it_starts(self):
        layer = decay(start=0.0)
        np.testing.assert_allclose(
            layer(bd.inputs(LATE, layer)).values["y"], 2 * np.exp(-0.3 * LATE["time"]), rtol=1e-5
        )

    def test_without_it_another_start_is_refused(self):
        with pytest.raises(
            ModelError,
            match=r"ODE starts at 0.0, but these inputs at the first time, 7: make .* layer",
        ):
            decay(start=0.0)(bd.inputs(LATE))
        assert float(decay(start=7.0)(bd.inputs(LATE)).values["y"][0]) == 2.0
        assert np.isfinite(decay(start=0.0)(bd.inputs(LATE, start=0.0)).values["y"]).all()

    @pytest.mark.parametrize(
        "layer",
        [
            pytest.param(
                lambda: bd.Difference(lambda t, y, u: y, {"y": 1.0}, start=0.0), id="difference"
            ),
            pytest.param(
                lambda: bd.equations.DDE(Decay(0.3), {"y": 1.0}, {"past": ("y", 1.0)}, start=0.0),
                id="delay",
            ),
            pytest.param(
                lambda: bd.equations.MultipleShooting(
                    decay(start=0.0), [7.5], {"y": jnp.ones(1)}, 0.1
                ),
                id="shooting",
            ),
        ],
    )
    def test_other_layers_refuse_it_too(self, layer):
        with pytest.raises(
            ModelError, match=r"starts at 0\.0, but these inputs at the first time, 7"
        ):
            layer()(bd.inputs(LATE))

    def test_a_field_has_its_places(self):
        data, layer = LATE.assign_coords(x=[0.3, 0.6, 0.9]), heat()
        assert layer(bd.inputs(data, layer)).values["c"].shape == (2, 3)
        with pytest.raises(
            ModelError, match="predicts over 'x', but these inputs do not have its places"
        ):
            layer(bd.inputs(data, start=0.0))
        assert layer(bd.inputs(LATE, start=0.0)).values["c"].shape == (2, 8)

    def test_a_forcing_is_interpolated_as_the_layer_says(self):
        data = xr.Dataset({"u": ("time", [0.0, 1.0, 0.0])}, {"time": [0.0, 1.0, 2.0]})
        rises = lambda t, y, u: {"y": u["u"]}  # noqa: E731
        layer = bd.ODE(rises, {"y": 0.0}, forcings=("u",), interpolation={"u": "step"})
        np.testing.assert_allclose(
            layer(bd.inputs(data, layer)).values["y"], [0.0, 0.0, 1.0], atol=1e-5
        )
        with pytest.raises(
            ModelError, match="reads the forcing 'u' as 'step', but these inputs have it linear"
        ):
            layer(bd.inputs(data))

    def test_nothing_is_said_twice(self, unchecked):
        with pytest.raises(
            DataError, match="the layer says its forcings and places: leave them out"
        ):
            bd.inputs(LATE, decay(), forcings=["u"], places=["x"])
        with pytest.raises(DataError, match="layer is a layer such as bd"):
            bd.inputs(LATE, "decay")


def line(noise):
    return bd.Model(
        bd.ODE(Decay(dist.LogNormal(-1.0, 0.3)), {"y": dist.Normal(2.0, 0.1)}, start=0.0), noise
    )


class TestSimulate:
    def test_true_values_are_those_given_and_stand_beside(self):
        """An epidemic was once shifted by a week: the solve starts at 0,
        where the data begin at 7.
        """
        found = bd.simulate(
            line(bd.NormalNoise(0.01)), LATE, {"rate": 0.3, "initial.y": 2.0}, key=1
        )
        np.testing.assert_allclose(found["true_y"], 2 * np.exp(-0.3 * LATE["time"]), rtol=1e-5)
        assert 0 < abs(found["y"] - found["true_y"]).max() < 0.05
        assert (
            float(found["true_rate"]) == 0.3
            and found["true_rate"].attrs["path"] == "layer.vector_field.rate"
        )
        assert found["time"].equals(LATE["time"])

    def test_what_is_not_given_is_a_draw_of_the_prior(self):
        model = line(bd.NormalNoise(0.1))
        drawn = [
            float(bd.simulate(model, LATE, {"initial.y": 2.0}, key=k)["true_rate"])
            for k in (1, 2, 1)
        ]
        assert drawn[0] == drawn[2] != drawn[1]

    def test_noise_has_its_size_and_gaps_stay(self):
        model, template = (
            levels_model(2000, bd.NormalNoise(0.5)),
            at_times(np.where(np.arange(2000) % 4, 1.0, np.nan)),
        )
        found = bd.simulate(model, template, {"level": np.zeros(2000)}, key=3)
        left = (found["y"] - found["true_y"]).values
        assert np.isnan(left).sum() == 500 and np.isfinite(found["true_y"]).all()
        assert np.nanstd(left) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(2 * 1500))
        assert np.isfinite(
            bd.simulate(model, template, {"level": np.zeros(2000)}, missing=False)["y"]
        ).all()

    def test_correlated_residuals_hold_together(self):
        model, template = (
            levels_model(4000, bd.filtering.CorrelatedNoise(bd.filtering.AR1(1.0, 0.8))),
            at_times(np.zeros(4000)),
        )
        found = bd.simulate(model, template, {"level": np.zeros(4000)}, key=3)["y"].values
        assert np.corrcoef(found[1:], found[:-1])[0, 1] == pytest.approx(
            0.8, abs=4 * 0.6 / np.sqrt(4000)
        )

    def test_a_posterior_gives_one_of_its_draws(self):
        model, data = levels_model(3, bd.NormalNoise(0.1)), at_times([0.0, 1.0, 2.0])
        levels = np.arange(24.0).reshape(2, 4, 3)
        post = posterior(model, data, {"layer.function.level": levels})
        found = [
            tuple(bd.simulate(model, data, post, key=k)["true_level"].values) for k in range(6)
        ]
        assert {*found} <= {tuple(row) for row in levels.reshape(-1, 3)} and len({*found}) > 1

    def test_members_and_their_gaps(self):
        """Members are drawn given what is known of the population."""
        known = {"rate.center": 0.5, "rate.spread": 1e-9}
        found = bd.simulate(population(), of_members(), known, key=2)
        assert found["y"].dims == ("time", "subject") and bool(found["y"].isnull()[2, 1])
        expected = np.broadcast_to(4 * np.exp(-0.5 * TIMES)[:, None], (4, 3))
        np.testing.assert_allclose(found["true_y"], expected, rtol=1e-6)
        np.testing.assert_array_equal(found["subject"], SUBJECTS)
        assert np.isfinite(
            pose(population(), found).log_density(jnp.zeros(5))
        )  # can be fitted as it is

    def test_what_would_be_censored_is_at_the_limit(self):
        model, template = (
            levels_model(400, bd.noise.Censored(bd.NormalNoise(1.0), below=0.0)),
            at_times(np.zeros(400)),
        )
        found = bd.simulate(model, template, {"level": np.zeros(400)}, key=1)["y"].values
        assert found.min() == 0.0 and (found == 0.0).mean() == pytest.approx(0.5, abs=4 * 0.5 / 20)
        model = levels_model(3, bd.noise.Censored(bd.NormalNoise(1.0)))
        found = bd.simulate(
            model, at_times(np.ones(3)).assign(y_censored=("time", [0, 1, -1])), key=1
        )
        assert not found["y_censored"].any()

    @pytest.mark.parametrize(
        ("values", "error", "message"),
        [
            pytest.param(
                {"speed": 1.0}, MismatchError, "no unknown 'speed'; it has", id="another name"
            ),
            pytest.param(
                {"rate": [1.0, 2.0]},
                MismatchError,
                r"shape \(2,\), but the model's has \(\)",
                id="a shape",
            ),
            pytest.param(
                {"rate": "fast"},
                MismatchError,
                "must be a number or an array of numbers",
                id="a word",
            ),
            pytest.param(
                {"rate": np.nan}, ModelError, "the solver fails for these values", id="no solution"
            ),
        ],
    )
    def test_what_cannot_be_simulated(self, values, error, message):
        with pytest.raises(error, match=message):
            bd.simulate(line(bd.NormalNoise(0.1)), LATE, values)

    def test_a_layer_that_goes_by_steps(self):
        """It must know its times while the program is traced."""
        halved = bd.Difference(
            lambda t, y, u: {"y": 0.5 * y["y"] + u["rain"]}, {"y": 8.0}, forcings=("rain",)
        )
        template = xr.Dataset({"rain": ("time", np.ones(4))}, {"time": np.arange(4.0)})
        found = bd.simulate(bd.Model(halved, bd.NormalNoise(0.1)), template, key=1)
        np.testing.assert_allclose(found["true_y"], [8.0, 5.0, 3.5, 2.75])

    def test_a_filter_has_no_path(self):
        layer = bd.filtering.Kalman(
            Decay(dist.LogNormal(-1.0, 0.3)), {"y": 0.1}, {"y": 1.0}, {"y": 1.0}
        )
        with pytest.raises(ModelError, match="Kalman has the states integrated out"):
            bd.simulate(bd.Model(layer, bd.NormalNoise(0.1)), LATE)
