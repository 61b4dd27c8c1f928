"""The hybrid to begin with: a correction in units of the science, small unless data ask for more.
Beyond the data its uncertainty grows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise


class Spring(bd.Module):
    stiffness: bd.Scalar

    def __call__(self, t, y, u):
        return {"x": y["v"], "v": -self.stiffness * y["x"]}


class Growth(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"n": self.rate * y["n"] * (1 - y["n"] / u["room"])}


@pytest.fixture
def swing():
    times = np.linspace(0.0, 6.0, 31)
    return xr.Dataset(
        {"x": ("time", np.cos(2 * times)), "v": ("time", -2 * np.sin(2 * times))}, {"time": times}
    )


def test_units_are_the_sizes_of_the_rates_over_the_data(swing):
    closure = bd.corrected(Spring(4.0), swing, "x", "v").closure
    size = lambda values: np.sqrt(np.mean(values**2))  # noqa: E731
    np.testing.assert_allclose(
        closure.units, [size(swing["v"].values), size(4 * swing["x"].values)]
    )


def test_columns_that_nobody_reads_are_no_rows_with_gaps(swing):
    beside = swing.assign(nothing=np.nan * swing["x"], word=("time", np.array(["a"] * 31)))
    beside["place"] = ("subject", [1.0, 2.0])
    units = [
        bd.corrected(Spring(4.0), data, "x", "v", inputs=("t",)).closure.units
        for data in (swing, beside)
    ]
    assert units[0] == units[1]


def test_data_in_other_units_than_an_equation_are_converted(swing):
    for name, units in (("x", "m"), ("v", "m/s")):
        swing[name].attrs["units"] = units
    layer = bd.ODE(Spring(4.0), {"x": 1.0, "v": 0.0}, units={"x": "m", "v": "m/s"})
    held = swing.assign(x=(1e3 * swing["x"]).assign_attrs(units="mm"))
    found = [bd.corrected(layer, data, "v").vector_field.closure.units for data in (swing, held)]
    assert found[0] == pytest.approx(found[1])


def test_units_are_a_median_over_the_prior(swing):
    of_median = bd.corrected(Spring(4.0), swing, "v").closure.units[0]
    assert bd.corrected(Spring(bd.between(2.0, 8.0)), swing, "v").closure.units[0] == pytest.approx(
        of_median, rel=0.1
    )


def test_relative_units_are_per_unit_of_state():
    data = xr.Dataset(
        {"n": ("time", [1.0, 2.0, np.nan]), "room": ("time", [4.0, 4.0, 4.0])},
        {"time": [0.0, 1.0, 2.0]},
    )
    closure = bd.corrected(Growth(2.0), data, "n", relative=True).closure
    assert closure.units[0] == pytest.approx(np.sqrt(np.mean([1.5**2, 1.0**2])))


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_it_is_seldom_more_than_its_share_of_the_rates(swing, share):
    hybrid = bd.corrected(Spring(4.0), swing, "x", "v", share=share)
    points = {name: jnp.asarray(swing[name].values) for name in ("x", "v")}

    def shares(draw):
        found = jax.vmap(lambda y: realise(hybrid, draw).closure(0.0, y, {}))(points)
        return (
            jnp.stack([found[name] for name in ("x", "v")])
            / jnp.asarray(hybrid.closure.units)[:, None]
        )

    draws = draw_prior(hybrid, 2048, key=jax.random.key(1))
    above = float(np.mean(np.abs(np.asarray(jax.jit(jax.vmap(shares))(draws))) > share))
    assert 0.035 < above < 0.065


def test_it_depends_on_all_states_that_change(swing):
    assert [*bd.corrected(Spring(4.0), swing, "v").closure.inputs] == ["x", "v"]
    still = swing.assign(x=0.0 * swing["x"] + 1.0)
    assert [*bd.corrected(Spring(4.0), still, "v").closure.inputs] == ["v"]


def test_its_uncertainty_grows_beyond_the_data(swing):
    closure = bd.corrected(Spring(4.0), swing, "v").closure
    draws = draw_prior(closure, 500, key=jax.random.key(0))
    far = jnp.asarray([0.0, 1.0, 3.0, 10.0])
    at = lambda draw: realise(closure, draw)(0.0, {"x": 0.7 * far, "v": 1.4 * far}, {})["v"]  # noqa: E731
    spread = np.asarray(jax.jit(jax.vmap(at))(draws)).std(axis=0)
    assert (np.diff(spread) > 0).all() and spread[3] > 5 * spread[0]


@pytest.mark.thorough
def test_a_model_of_it_has_a_gradient_and_check_says_what_the_prior_means(swing):
    layer = bd.ODE(bd.corrected(Spring(bd.between(3.0, 5.0)), swing, "v"), {"x": 1.0, "v": 0.0})
    said = bd.check(bd.Model(layer, bd.NormalNoise(dist.HalfNormal(0.2))), swing)
    # The cost depends on how busy the machine is.
    assert {f.level for f in said.findings if f.subject != "cost"} == {"good"}, said
    (of_x,) = [f for f in said.findings if f.subject == "correction of x"]
    assert "under the prior it moves x by 0." in of_x.message


@pytest.mark.thorough
def test_a_correction_whose_prior_replaces_the_science_is_a_warning(swing):
    spring = Spring(bd.between(3.0, 5.0))
    layer = bd.ODE(bd.corrected(spring, swing, "v", share=50.0), {"x": 1.0, "v": 0.0})
    said = bd.check(bd.Model(layer, bd.NormalNoise(dist.HalfNormal(0.2))), swing)
    (of_x,) = [f for f in said.findings if f.subject == "correction of x"]
    assert of_x.level == "warning" and "smaller share=" in of_x.remedy


@pytest.mark.thorough
def test_nothing_is_said_of_a_model_without_correction(swing):
    said = bd.check(
        bd.Model(bd.ODE(Spring(4.0), {"x": 1.0, "v": 0.0}), bd.NormalNoise(dist.HalfNormal(0.2))),
        swing,
    )
    assert not [f for f in said.findings if f.subject.startswith("correction")]


def test_time_may_be_an_input(swing):
    assert bd.corrected(Spring(4.0), swing, "v", inputs=("t",)).closure.inputs[
        "t"
    ] == pytest.approx((3.0, 1.79), rel=0.01)


@pytest.mark.parametrize(
    ("outputs", "more", "error", "said"),
    [
        ((), {}, ModelError, "name the states"),
        (("a",), {}, ModelError, "'a' is to be corrected; the science has rates of x, v"),
        (("v",), {"share": 0.0}, ModelError, "share must be a positive number"),
        (("v",), {"share": np.inf}, ModelError, "share must be a positive number"),
        (("v",), {"share": "0.1"}, ModelError, "share must be a positive number"),
        ((["x", "v"],), {}, ModelError, "name the states"),
        (
            ("v",),
            {"inputs": "speed"},
            ModelError,
            r"inputs must be a tuple of names, such as \('speed',\)",
        ),
        (("x",), {"relative": True}, DataError, "'x' is 0 in the data"),
    ],
)
def test_bad_input_is_refused(swing, unchecked, outputs, more, error, said):
    at_zero = swing.assign(x=swing["x"] - swing["x"][0])
    with pytest.raises(error, match=said):
        bd.corrected(Spring(4.0), at_zero, *outputs, **more)


def test_a_whole_model_is_refused(swing, unchecked):
    model = bd.Model(bd.ODE(Spring(4.0), {"x": 1.0, "v": 0.0}), bd.NormalNoise(0.1))
    with pytest.raises(ModelError, match="a vector field or an ODE, not a Model: give its layer"):
        bd.corrected(model, swing, "v")


def test_what_the_data_lack_is_named(swing):
    with pytest.raises(DataError, match="'v', which the data lack"):
        bd.corrected(Spring(4.0), swing[["x"]], "x")


def test_a_rate_that_is_nothing_is_refused(swing):
    with pytest.raises(ModelError, match="rate of 'v' is 0 under the prior"):
        bd.corrected(Spring(0.0), swing, "v")


def test_units_of_outputs_must_be_positive():
    with pytest.raises(
        ModelError, match="unit of the network output 'a' must be a positive number, not 0"
    ):
        bd.Network.mlp(("x",), {"a": 0})


def test_states_that_nobody_observes_are_those_of_a_solve(swing):
    layer = bd.ODE(
        Spring(bd.between(3.0, 5.0)), {"x": 1.0, "v": 0.0}, lambda t, y, u: {"x": y["x"]}
    )
    hybrid = bd.corrected(layer, swing[["x"]], "v", inputs=("x", "v"))
    assert type(hybrid) is bd.ODE
    seen = bd.corrected(Spring(bd.between(3.0, 5.0)), swing, "v", inputs=("x", "v")).closure
    closure = hybrid.vector_field.closure
    assert closure.units[0] == pytest.approx(seen.units[0], rel=0.05)
    assert closure.inputs["v"][1] == pytest.approx(seen.inputs["v"][1], rel=0.05)
