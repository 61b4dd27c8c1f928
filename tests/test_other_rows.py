"""Rows of another table that have the labels of fitted rows are not taken for these."""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import posterior

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError


class Line(bd.Module):
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.slope * u["x"]}


def table(x, seed, **errors):
    """Rows 0, 1, 2, … of y = 2 x with errors of 0.1."""
    x = np.asarray(x, float)
    y = 2.0 * x + 0.1 * np.random.default_rng(seed).normal(size=x.size)
    columns: dict[str, tuple] = {
        name: ("time", np.full(x.size, error)) for name, error in errors.items()
    }
    return xr.Dataset(
        {"x": ("time", x, {"units": "m"}), "y": ("time", y), **columns},
        {"time": np.arange(float(x.size))},
    )


MODEL = bd.Model(
    bd.Algebraic(Line(dist.Normal(0.0, 3.0)), forcings=("x",), units={"x": "m"}),
    bd.NormalNoise(0.1),
)
FITTED = table(np.linspace(0.0, 1.0, 20), 0)
OTHER = table(np.linspace(30.0, 40.0, 20), 1)


@pytest.fixture(scope="module")
def post():
    return told(MODEL, FITTED)


def told(model, data):
    """The posterior of the slope, which twenty data tell to 0.04."""
    return posterior(
        model,
        data,
        {"layer.function.slope": 2.0 + 0.04 * np.random.default_rng(2).normal(size=(2, 300))},
    )


def judged(post, fc, test=None):
    return {f.subject: f for f in bd.diagnose(post, fc, test).findings if f.aspect == "model"}


def test_another_table_counts_as_held_out(post):
    """Its forecast, of values near 70, was judged by the residuals of those that were fitted, near
    1.
    """
    found = judged(post, bd.forecast(MODEL, post, OTHER), OTHER)
    assert "20 values" in found["held-out data"].message and "training data" not in found
    assert not [s for s in found if "residuals" in s]


def test_the_fitted_table_is_still_judged_by_its_residuals(post):
    found = judged(post, bd.forecast(MODEL, post, FITTED), FITTED)
    assert set(found) == {"training data"}
    both = xr.concat([FITTED, OTHER.assign_coords(time=20.0 + OTHER["time"].values)], "time")
    assert {"training data", "held-out data"} <= set(
        judged(post, bd.forecast(MODEL, post, both), both)
    )


def test_data_of_other_rows_than_the_forecast_are_refused(post):
    fc = bd.forecast(MODEL, post, FITTED)
    with pytest.raises(
        MismatchError,
        match="another 'x' than the fit at time 0: they are other rows with the same labels",
    ):
        bd.diagnose(post, fc, OTHER)
    in_km = FITTED.assign(x=("time", FITTED["x"].values / 1000, {"units": "km"}))
    bd.diagnose(post, fc, in_km)  # the same rows in other units


def test_rows_whose_known_errors_differ_are_other_rows():
    model = bd.Model(
        MODEL.layer, bd.NormalNoise(known_error=bd.noise.PerDatum("error", otherwise=0.1))
    )
    data = table(np.linspace(0.0, 1.0, 20), 0, error=0.1)
    post = told(model, data)
    span = {"train_start": 0.0, "train_end": 19.0}
    for other, expected in (
        (data, span),
        (data.drop_vars("error"), span),
        (data.assign(error=3 * data["error"]), {}),
    ):
        held = bd.forecast(model, post, other).attrs
        assert {name: held[name] for name in span if name in held} == expected
