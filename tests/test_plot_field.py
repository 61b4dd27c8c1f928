"""Maps of fields show the quantiles of the draws, the data where they lie, and how far the two are
apart.
"""

import numpy as np
import pytest
import xarray as xr

from bayes_dasl import plots

TIMES, X, Y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.5, 1.5, 2.5]), np.array([10.0, 20.0])
SHIFTS = np.linspace(-2.0, 2.0, 21)


def truth(times, x, y=None):
    values = times[:, None] + 10 * x
    return values if y is None else values[..., None] - y


def forecast(*places):
    """Draws that are the truth and a shift of their own, one of them failed; fitted up to 1."""
    names = dict(zip("xy", places, strict=False))
    clean = truth(TIMES, *places)
    draws = clean + SHIFTS.reshape(1, -1, *[1] * clean.ndim)
    draws = np.concatenate([draws, np.full_like(draws[:, :1], np.nan)], axis=1)
    attrs = {"units": "K", "long_name": "heat"}
    field = xr.DataArray(draws, dims=("chain", "draw", "time", *names), attrs=attrs)
    tree = xr.DataTree.from_dict(
        {"predictions": xr.Dataset({"heat": field}, {"time": TIMES, **names})}
    )
    tree.attrs["train_end"] = 1.0
    return tree


def data(times, off, *places):
    names = dict(zip("xy", places, strict=False))
    return xr.Dataset(
        {"heat": (("time", *names), truth(times, *places) + off)}, {"time": times, **names}
    )


def by_title(fig):
    return {ax.get_title("left"): ax for ax in fig.axes if ax.get_title("left")}


def mapped(ax, which=0):
    """The values that a map shows, by time and place."""
    return np.asarray(ax.collections[which].get_array()).T


def test_over_one_coordinate():
    train, test = data(TIMES[:2], 0.0, X[1:]), data(TIMES[2:], 3.0, X[1:])
    found = by_title(plots.plot_field(forecast(X), train, test, "heat"))
    assert list(found) == ["data", "median", "median less data", "width of the 90 % interval"]
    np.testing.assert_allclose(mapped(found["median"]), truth(TIMES, X), atol=1e-12)
    np.testing.assert_allclose(mapped(found["width of the 90 % interval"]), 3.6)
    expected = np.array([[0.0, 0.0], [0.0, 0.0], [-3.0, -3.0], [-3.0, -3.0]])
    np.testing.assert_allclose(mapped(found["median less data"]), expected, atol=1e-12)
    assert found["median less data"].collections[0].get_clim() == (-3.0, 3.0)
    assert all(list(ax.lines[0].get_xdata()) == [1.0, 1.0] for ax in found.values())


def test_data_at_other_places_are_maps_of_their_own():
    train, test = data(TIMES[:2], 0.0, X[:1]), data(TIMES[2:], 0.0, X[1:])
    found = by_title(plots.plot_field(forecast(X), train, test, "heat"))
    assert [mapped(found["data"], i).shape for i in (0, 1)] == [(2, 1), (2, 2)]


def test_without_data_only_the_forecast_is_shown():
    found = by_title(plots.plot_field(forecast(X), None, None, "heat"))
    assert list(found) == ["median", "width of the 90 % interval"]


def test_over_two_coordinates():
    """Times that have data are shown, and those of the fit say so."""
    train, test = data(TIMES[1:2], 0.0, X, Y), data(TIMES[3:], 1.0, X, Y)
    fig = plots.plot_field(forecast(X, Y), train, test, "heat")
    assert list(by_title(fig)) == ["time 1, fitted", "time 3"]
    rows = [ax for ax in fig.axes if ax.collections and ax.get_aspect() == 1.0]
    assert len(rows) == 8
    np.testing.assert_allclose(mapped(rows[3]), truth(TIMES[3:], X, Y)[0], atol=1e-12)
    np.testing.assert_allclose(mapped(rows[5]), -1.0)
    np.testing.assert_allclose(mapped(rows[7]), 3.6)


@pytest.mark.parametrize("places", [(X,), (X, Y)])
def test_a_forecast_that_failed_says_so(places):
    failed = forecast(*places)
    failed["predictions"]["heat"].values[:] = np.nan
    fig = plots.plot_field(failed, None, None, "heat")
    assert "every draw of this forecast failed" in fig.axes[0].texts[0].get_text()
