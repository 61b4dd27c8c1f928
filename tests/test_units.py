"""Units: read, converted, and tried on the equations of a model."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.data import units as units_module
from bayes_dasl.data.units import agree, convert, parsed
from bayes_dasl.errors import DataError, MismatchError, ModelError
from bayes_dasl.model import check_data, check_units, unit_findings, units_unseen
from bayes_dasl.random import paths
from bayes_dasl.scores.matching import matched


class TestTexts:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("m3/s", "m^3/s"), ("m3/s", "m³ s⁻¹"), ("m3 s-1", "m**3/s"), ("1/day", "day^-1"), ("1/h", "1/hour"),
            ("mg/L", "mg / L"), ("mg/L", "g/m3"), ("kg m-3", "kg/m³"), ("boys", " boys"), ("1", "dimensionless"),
            ("1/(thousand pelts year)", "1/(thousand pelts · year)"), ("kW h", "3.6e6 J"), ("degC", "°C"),
        ],
    )  # fmt: skip
    def test_that_mean_the_same(self, one, other):
        assert agree(one, other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [("1/day", "1/hour"), ("mg/L", "Mg/L"), ("m", "m2"), ("boys", "girls"), ("degC", "K")],
    )
    def test_that_do_not(self, one, other):
        assert agree(one, other) is False

    def test_that_cannot_be_read(self):
        assert parsed("?? / !") is None
        assert agree("?? / !", "m") is None
        assert agree("?? / !", "??  / !")

    @pytest.mark.parametrize(
        ("have", "want", "expected"),
        [
            ("ug/L", "mg/L", 0.002),
            ("m3/s", "L/s", 2000.0),
            ("degC", "K", 275.15),
            ("thousand pelts", "thousand pelts", 2.0),
        ],
    )
    def test_convert(self, have, want, expected):
        assert convert(np.array([2.0]), have, want) == pytest.approx([expected])

    def test_do_not_convert_into_another_dimension(self):
        assert convert(np.ones(1), "mg/L", "mol/L") is None
        assert convert(np.ones(1), "boys", "girls") is None


def test_without_pint_texts_are_compared(monkeypatch):
    monkeypatch.setattr(units_module, "_registry", lambda: None)
    parsed.cache_clear()
    try:
        assert agree("mg / L", "mg  / L")
        assert agree("m3/s", "m^3/s") is None
        with pytest.raises(DataError, match="'y' is in 'm' but the model works in 'cm'"):
            model("1/hour", y="cm").in_own_units(data("hour", "m"))
        assert list(unit_findings(model("1/day"), data("hour"))) == []
        assert (
            "were not looked at" in (said := units_unseen(model("1/day"), data("hour")))
            and "[units]" in said
        )
        assert units_unseen(model(""), data("hour")) == ""
        check_units(model("1/day"), data("hour"))
    finally:
        parsed.cache_clear()


def decay(value, units):
    class Decay(bd.Module):
        rate: bd.Scalar = bd.field(units=units)

        def __call__(self, t, y, u):
            return {"y": -self.rate * y["y"]}

    return Decay(value)


def model(units, y="mg/L", layer_units=None, rate=None):
    rate = dist.LogNormal(-1.0, 0.5) if rate is None else rate
    stated = {"y": y} if layer_units is None else layer_units
    layer = bd.ODE(decay(rate, units), {"y": dist.LogNormal(1.0, 0.3)}, units=stated)
    return bd.Model(layer, bd.NormalNoise(0.1))


def data(time="hour", y="mg/L", scale=1.0):
    times = np.arange(6.0)
    held = xr.Dataset(
        {"y": ("time", scale * 3.0 * np.exp(-0.4 * times), {"units": y})}, {"time": times}
    )
    held["time"].attrs["units"] = time
    return held


class Inflow(bd.Module):
    """Flow into a lake of known volume,
    in which something is used up and grows by a law of Monod.
    """

    use: bd.Scalar = bd.field(units="1/day")
    growth: bd.Scalar = bd.field(units="mg/L/day")
    half: bd.Scalar = bd.field(units="mg/L")
    volume: bd.Scalar = bd.field(units="m3", default=5e3)
    seconds: bd.Scalar = bd.field(units="s/day", default=86400.0)

    def __call__(self, t, y, u):
        c, exchange = y["c"], self.seconds * u["flow"] / self.volume
        return {"c": exchange * (u["inlet"] - c) + self.growth * c / (self.half + c) - self.use * c}


def lake(flow="m^3/s", inlet="g/m3", kind=Inflow):
    times = np.arange(5.0)
    held = xr.Dataset(
        {name: ("time", np.linspace(0.5, 1.5, 5)) for name in ("c", "flow", "inlet")},
        {"time": times},
    )
    for name, units in {"time": "day", "c": "mg/L", "flow": flow, "inlet": inlet}.items():
        held[name].attrs["units"] = units
    science = kind(*(dist.LogNormal(0.0, 0.3) for _ in range(3)))
    layer = bd.ODE(science, {"c": 1.0}, forcings=("flow", "inlet"), units={"c": "mg/L"})
    return bd.Model(layer, bd.NormalNoise(0.1)), held


class TestEquations:
    @pytest.mark.thorough
    def test_a_rate_a_day_is_refused_against_hours(self):
        with pytest.raises(
            ModelError, match=r"rate 1/day.*time hour.*'y' comes out 24 times as large"
        ) as refused:
            bd.fit(model("1/day"), data("hour"))
        assert "hour/day" in str(refused.value)

    @pytest.mark.parametrize(
        ("units", "time"), [("1/day", "day"), ("1/h", "hour"), ("day^-1", "days since 2020-01-01")]
    )
    def test_that_hold(self, units, time):
        [said] = unit_findings(model(units), data(time))
        assert said.level == "good" and "holds" in said.message
        check_units(model(units), data(time))

    def test_units_of_states_and_hidden_numbers_need_not_be_known_for_the_time_to_be_wrong(self):
        class Logistic(bd.Module):
            rate: bd.Scalar = bd.field(units="1/day")
            capacity: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": self.rate * y["y"] * (1 - y["y"] / self.capacity - 0.1)}

        bare = data("hour").drop_attrs()
        layer = bd.ODE(Logistic(dist.LogNormal(0.0, 0.3), 9.0), {"y": 3.0})
        for time, level in (("hour", "bad"), ("day", "good")):
            bare["time"].attrs["units"] = time
            [said] = unit_findings(bd.Model(layer, bd.NormalNoise(0.1)), bare)
            assert said.level == level and "not checked" not in said.message

    @pytest.mark.parametrize("units", ["mg/L/hour", "1", "hour"])
    def test_a_wrong_dimension_is_a_finding_and_no_refusal(self, units):
        [said] = unit_findings(model(units), data("hour"))
        assert said.level == "warning" and "'y' is wrong in its dimension of" in said.message
        assert "bd.field(units=" in said.remedy
        check_units(model(units), data("hour"))

    def test_nothing_is_said_where_numbers_have_no_unit(self):
        assert list(unit_findings(model(""), data())) == []

    def test_what_is_silent_is_named(self):
        class Half(Inflow):
            half: bd.Scalar

        [said] = unit_findings(*lake(kind=Half))
        assert said.level == "good" and said.message.endswith(
            "no unit that can be read is stated for half"
        )

    def test_constants_with_units_and_units_of_one_system_in_other_words(self):
        [said] = unit_findings(*lake())
        assert (said.level, "holds" in said.message) == ("good", True)

    def test_a_forcing_in_other_units_than_the_equation(self):
        [said] = unit_findings(*lake(flow="L/s"))
        assert said.level == "bad" and "'c' comes out wrong" in said.message

    def test_a_number_inside_of_the_equation(self):
        class Fall(bd.Module):
            drag: bd.Scalar = bd.field(units="1/s")

            def __call__(self, t, y, u):
                return {"y": 9.81 - self.drag * y["y"]}

        class Named(Fall):
            gravity: bd.Scalar = bd.field(units="m/s^2", default=9.81)

            def __call__(self, t, y, u):
                return {"y": self.gravity - self.drag * y["y"]}

        for kind, level in ((Fall, "warning"), (Named, "good")):
            layer = bd.ODE(kind(dist.LogNormal(0.0, 0.3)), {"y": 0.0}, units={"y": "m/s"})
            [said] = unit_findings(bd.Model(layer, bd.NormalNoise(0.1)), data("s", "m/s"))
            assert said.level == level

    def test_degrees_and_percent_are_turned_by_the_formula(self):
        class Sun(bd.Module):
            height: bd.Scalar = bd.field(units="degree")
            share: bd.Scalar = bd.field(units="percent/h")

            def __call__(self, t, y, u):
                return {"y": -jnp.sin(jnp.deg2rad(self.height)) * self.share / 100.0 * y["y"]}

        layer = bd.ODE(Sun(dist.Uniform(20.0, 60.0), 5.0), {"y": 3.0}, units={"y": "mg/L"})
        [said] = unit_findings(bd.Model(layer, bd.NormalNoise(0.1)), data("hour"))
        assert said.level == "good"

    def test_of_a_science_with_a_correction_the_science(self):
        from case_studies import lynx_hare

        study = lynx_hare.study()
        for each in (study.model, *study.competitors.values()):
            [said] = unit_findings(each, study.data)
            assert said.level == "good" and "holds" in said.message
        study.data["time"].attrs["units"] = "month"
        [said] = unit_findings(study.model, study.data)
        assert said.level == "bad"

    def test_the_drift_of_a_stochastic_equation(self):
        class Decay(bd.Module):
            rate: bd.Scalar = bd.field(units="1/day")

            def __call__(self, t, y, u):
                return {"y": -self.rate * y["y"]}

        rate = dist.LogNormal(0.0, 0.3)
        several = {
            bd.filtering.Kalman: bd.filtering.Kalman(
                Decay(rate), {"y": 0.1}, {"y": 3.0}, {"y": 1.0}, units={"y": "mg/L"}
            ),
            bd.equations.SDE: bd.equations.SDE(
                Decay(rate), {"y": 0.1}, {"y": 3.0}, grid=(0.0, 9.0, 20), units={"y": "mg/L"}
            ),
        }
        for layer in several.values():
            levels = {}
            for time in ("day", "hour"):
                [said] = unit_findings(bd.Model(layer, bd.NormalNoise(0.1)), data(time))
                levels[time] = said.level
            assert levels == {"day": "good", "hour": "bad"}

    def test_what_is_not_tried_is_not_said_to_hold(self):
        class Decay(bd.Module):
            rate: bd.Scalar = bd.field(units="1/day")

            def __call__(self, t, y, u):
                return {"y": 1.0 - self.rate * y["y"]}

        layer = bd.SteadyState(Decay(dist.LogNormal(0.0, 0.3)), {"y": 1.0}, units={"y": "mg/L"})
        tried = bd.Model(layer, bd.NormalNoise(0.1)), data("hour")
        assert list(unit_findings(*tried)) == [] and "SteadyState are not tried" in units_unseen(
            *tried
        )
        assert units_unseen(model("1/day"), data("day")) == ""

    def test_a_formula(self):
        class Left(bd.Module):
            rate: bd.Scalar = bd.field(units="1/h")
            first: bd.Scalar = bd.field(units="mg/L")

            def __call__(self, t, y, u):
                return {"y": self.first * np.e ** (-self.rate * t)}

        formula = bd.Algebraic(Left(dist.LogNormal(-1.0, 0.3), 3.0), units={"y": "mg/L"})
        levels = {}
        for time in ("hour", "day", "m"):
            [said] = unit_findings(bd.Model(formula, bd.NormalNoise(0.1)), data(time))
            levels[time] = said.level
        assert levels == {"hour": "good", "day": "bad", "m": "warning"}


class TestNames:
    """Units may be stated of all that a layer has, whether or not it is an output."""

    STATE, RATE = {"y": 3.0}, dist.LogNormal(0.0, 0.3)

    @pytest.mark.thorough
    def test_of_states_that_are_observed_as_something_else(self):
        def halved(t, y, u):
            return {"z": y["y"] / 2}

        def falling(t, y, u):
            return {"y": -0.3 * y["y"]}

        def zero(t, y, u):
            return {"y": y["y"] - 3.0}

        units = {"y": "mg/L", "z": "mg/L", "time": "hour"}
        ode = bd.ODE(falling, self.STATE, observe=halved, units=units)
        grid = bd.pde.Grid(x=(0.0, 1.0, 8))
        field = bd.pde.Spectral(grid, diffusion={"y": 0.1})
        every = [
            ode,
            bd.SteadyState(zero, self.STATE, halved, units=units),
            bd.Implicit(zero, self.STATE, halved, units=units),
            bd.pde.PDE(
                field, self.STATE, lambda t, y, u: {"z": y["y"][0]}, units=units | {"x": "m"}
            ),
            bd.Series(ode, lambda t, y, u: {"w": 2 * y["z"]}),
            bd.equations.MultipleShooting(
                ode, (2.5,), {"y": dist.Normal(np.ones(1), 1.0)}, gap=0.1
            ),
        ]
        for layer in every:
            name = layer.outputs[0]
            held = data().rename(y=name)
            check_data(bd.Model(layer, {name: bd.NormalNoise(self.RATE)}), held)

    @pytest.mark.thorough
    def test_of_members(self):
        class Decay(bd.Module):
            rate: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": -self.rate * y["y"]}

            def halved(self, t, y, u):
                return {"z": y["y"] / 2}

        def of_two(**units):
            decay = Decay(bd.population(self.RATE, dist.HalfNormal(0.3)))
            ode = bd.ODE(decay, {"y": bd.varying([3.0, 2.0])}, observe=Decay.halved, units=units)
            return bd.Model(bd.Each(ode, ("a", "b")), bd.NormalNoise(0.1))

        held = data().rename(y="z").expand_dims(subject=["a", "b"])
        check_data(of_two(y="mg/L", z="mg/L", time="hour"), held)
        with pytest.raises(
            ModelError, match="units are given of 'Y', which ODE does not have: it has y, z, time"
        ):
            check_data(of_two(Y="mg/L"), held)


class TestData:
    @pytest.mark.thorough
    def test_are_converted_where_dimensions_agree(self):
        ours, theirs = data(), data(y="ug/L", scale=1000.0)
        np.testing.assert_allclose(
            check_data(model("1/h"), theirs)["y"], check_data(model("1/h"), ours)["y"]
        )

    @pytest.mark.thorough
    def test_a_fit_a_forecast_and_a_score_know_the_units(self):
        def straight(t, y, u):
            return {"y": 3.0 - 0.3 * t}

        formula = bd.Model(
            bd.Algebraic(straight, units={"y": "mg/L"}), bd.NormalNoise(dist.HalfNormal(1.0))
        )
        posts = [
            bd.fit(formula, held, Sifting(), key=1)
            for held in (data(), data(y="ug/L", scale=1000.0))
        ]
        assert posts[1]["observed_data"]["y"].attrs["units"] == "mg/L"
        np.testing.assert_allclose(*(post["posterior"]["scale"] for post in posts))
        fc = bd.forecast(formula, posts[1], data(y="ug/L", scale=1000.0))
        one, other = bd.score(fc, data()), bd.score(fc, data(y="ug/L", scale=1000.0))
        np.testing.assert_allclose(one.loc["y"], other.loc["y"])
        with pytest.raises(DataError, match="'y' is in 'kg' but"):
            bd.score(fc, data(y="kg"))
        with pytest.raises(DataError, match="'time' is in 'day' but"):
            bd.forecast(formula, posts[0], data(time="day"))
        competitor = bd.forecast(formula, posts[0], data())
        competitor["predictions"]["y"].attrs["units"] = "ug/L"
        with pytest.raises(
            MismatchError, match="'y' is forecast in 'ug/L' but the data are in 'mg/L'"
        ):
            matched(competitor, data())

    @pytest.mark.parametrize(
        "noise, found",
        [
            (lambda scale: bd.NormalNoise(scale), "mg/L"),
            (lambda scale: {"y": bd.StudentTNoise(scale)}, "mg/L"),
            (
                lambda scale: bd.NormalNoise(
                    bd.noise.VaryingScale(scale, lambda t, y, u: {"log": 0.0 * t})
                ),
                "mg/L",
            ),
            (lambda scale: bd.LogNormalNoise(scale), ""),
        ],
    )
    def test_the_scale_of_a_noise_has_those_of_its_data(self, noise, found):
        formula = bd.Algebraic(lambda t, y, u: {"y": t}, units={"y": "mg/L"})
        (leaf,) = paths(bd.Model(formula, noise(dist.LogNormal(0.0, 1.0)))).values()
        assert leaf.units == found

    def test_an_index_in_other_units_is_refused(self):
        with pytest.raises(DataError, match="'time' is in 'hour' but the model works in 'day'"):
            check_data(model("1/day", layer_units={"y": "mg/L", "time": "day"}), data("hour"))


@pytest.mark.thorough
def test_a_rate_a_day_against_hours_is_not_ready_to_fit():
    class CoolingADay(bd.Module):
        rate: bd.Scalar = bd.field(units="1/day")

        def __call__(self, t, y, u):
            return {"excess": -self.rate * y["excess"]}

    hours = np.arange(0.0, 6.0)
    data = xr.Dataset({"excess": ("time", 40.0 * np.exp(-0.3 * hours))}, {"time": hours})
    data["time"].attrs["units"] = "hour"
    layer = bd.ODE(CoolingADay(bd.between(0.05, 1.0)), {"excess": 40.0}, units={"excess": "K"})
    found = bd.check(bd.Model(layer, bd.NormalNoise(1.0)), data)
    assert found.verdict.startswith("Not ready to fit: units of equations")
    assert "the rate of change of 'excess' comes out 24 times as large as it is" in str(found)


class Cooling(bd.Module):
    r"""Newton's law, $\dot T = -k (T - T_0)$."""

    rate: bd.Scalar = bd.field(units="1/min")

    def __call__(self, t, y, u):
        return {"y": -self.rate * (y["y"] - u["room"])}


class Arrhenius(bd.Module):
    """A rate that rises with a temperature in °C: of the number 273.15 in the code no unit can be
    stated.
    """

    first: bd.Scalar = bd.field(units="mg/L/min", default=2.0)
    energy: bd.Scalar = bd.field(units="kJ/mol", default=50.0)
    gas: bd.Scalar = bd.field(units="kJ/mol/K", default=8.314e-3)

    def __call__(self, t, y, u):
        return {"y": self.first * jnp.exp(-self.energy / (self.gas * (u["room"] + 273.15)))}


class WithZero(Arrhenius):
    zero: bd.Scalar = bd.field(units="K", default=273.15)

    def __call__(self, t, y, u):
        return {"y": self.first * jnp.exp(-self.energy / (self.gas * (u["room"] + self.zero)))}


class WithoutZero(Arrhenius):
    def __call__(self, t, y, u):
        return {"y": self.first * jnp.exp(-self.energy / (self.gas * u["room"]))}


class InCelsius(bd.Module):
    rate: bd.Scalar = bd.field(units="degC/min", default=0.1)

    def __call__(self, t, y, u):
        return {"y": u["room"] + self.rate * t}


class TestTemperatures:
    """Degrees on a scale with an offset are looked at as differences, and as what lies above
    absolute zero.
    """

    def said(self, science, y, room, time="min", kind=bd.ODE):
        start = () if kind is bd.Algebraic else ({"y": 80.0},)
        held = data(time, y, scale=20.0).assign(
            room=("time", np.linspace(18.0, 22.0, 6), {"units": room})
        )
        layer = kind(science, *start, forcings="room", units={"y": y})
        [found] = unit_findings(bd.Model(layer, bd.NormalNoise(0.1)), held)
        return found

    @pytest.mark.parametrize(
        ("time", "level"), [("min", "good"), ("hour", "bad"), ("m", "warning")]
    )
    def test_differences_of_degrees(self, time, level):
        found = self.said(Cooling(dist.LogNormal(-1.0, 0.3)), "degC", "°C", time)
        assert found.level == level and "not checked" not in found.message

    @pytest.mark.parametrize("room", ["degC", "celsius", "degF"])
    def test_scales_in_a_mixture(self, room):
        found = self.said(Cooling(0.1), "degC", room)
        assert (found.level == "good") == (room != "degF") and "not checked" not in found.message

    @pytest.mark.parametrize(
        ("kind", "sure"), [(Arrhenius, True), (WithZero, False), (WithoutZero, False)]
    )
    def test_an_absolute_temperature(self, kind, sure):
        """Whether a number with a unit is the zero of the scale, or one is left out, no change of
        units tells.
        """
        found = self.said(kind(dist.LogNormal(0.0, 0.3)), "mg/L", "degC")
        assert found.level == "good" and "holds" in found.message
        assert ("if numbers on a scale with an offset are differences" in found.message) != sure
        assert self.said(kind(dist.LogNormal(0.0, 0.3)), "mg/L", "degC", "hour").level == "bad"

    def test_another_zero_is_seen(self):
        class Wrong(Arrhenius):
            def __call__(self, t, y, u):
                return {"y": self.first * jnp.exp(-self.energy / (self.gas * (u["room"] + 100.0)))}

        found = self.said(Wrong(dist.LogNormal(0.0, 0.3)), "mg/L", "degC")
        assert found.level == "warning" and "temperature" in found.message

    def test_a_result_on_such_a_scale(self):
        assert self.said(InCelsius(), "degC", "degC", kind=bd.Algebraic).level == "good"
        assert self.said(InCelsius(), "degC", "degC", "hour", kind=bd.Algebraic).level == "bad"

    @pytest.mark.parametrize(
        "text", ["degC", "degF", "°C", "degC/min", "1/degC", "W/degC", "degC day", "K"]
    )
    def test_they_have_a_size_as_differences(self, text):
        assert parsed(text).scale > 0

    def test_a_logarithmic_scale_has_none(self):
        assert parsed("dBm").scale is None


class TestTheMissingFactor:
    """A wrong dimension is told with the factor that the equation lacks."""

    def dosed(self, volume, units):
        class Dosed(bd.Module):
            dose: bd.Scalar = bd.field(units="mg", default=100.0)
            volume: Any = bd.field(units=units, default=1.0)
            rate: bd.Scalar = bd.field(units="1/hour", default=0.3)

            def __call__(self, t, y, u):
                return {"y": self.dose / self.volume * jnp.exp(-self.rate * t)}

        layer = bd.Algebraic(Dosed(volume=volume), units={"y": "mg/L"})
        [found] = unit_findings(bd.Model(layer, bd.NormalNoise(0.1)), data("hour"))
        return found

    @pytest.mark.parametrize("volume", [32, 32.0])
    def test_a_plain_number_as_volume_is_named(self, volume):
        found = self.dosed(volume, "")
        assert found.level == "good" and found.message.endswith(
            "no unit that can be read is stated for volume"
        )

    def test_a_volume_inside_of_the_equation(self):
        class Dosed(bd.Module):
            dose: bd.Scalar = bd.field(units="mg", default=100.0)

            def __call__(self, t, y, u):
                return {"y": self.dose / 32.0 + 0.0 * t}

        layer = bd.Algebraic(Dosed(), units={"y": "mg/L"})
        [found] = unit_findings(bd.Model(layer, bd.NormalNoise(0.1)), data("hour"))
        assert (
            found.level == "warning"
            and "dimension of length: it lacks a factor in length^-3, such as one over a volume"
            in found.message
        )
        assert (
            "a plain number" in found.remedy
            and "volume: float = bd.field(units='L'" in found.remedy
        )
