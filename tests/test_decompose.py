"""The variance split against closed forms, its identity, and what failures leave of it."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import make_fc

from bayes_dasl.decompose import complete_block, crossed_variance, decompose, total_variance


def forecast_of(mean, variance, grid=None):
    """A forecast of the observable y in one chain, from moments (draw, time)."""
    dims = ("chain", "draw", "time")
    coords = {"time": np.arange(float(mean.shape[1]))}
    groups = {
        "conditional_mean": xr.Dataset({"y": (dims, mean[None])}, coords),
        "conditional_variance": xr.Dataset({"y": (dims, variance[None])}, coords),
    }
    if grid is not None:
        crossed = {"y": (("science_draw", "network_draw", "time"), grid)}
        groups["crossed_mean"] = xr.Dataset(crossed, coords)
    return xr.DataTree.from_dict(groups)


@given(
    st.integers(0, 2**32 - 1),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 1e3),
)
@settings(deadline=None, max_examples=100)
def test_total_is_aleatoric_plus_epistemic(seed, offset, between, within):
    rng = np.random.default_rng(seed)
    mean = offset + between * rng.normal(size=(50, 3))
    parts = total_variance(mean, within**2 * rng.gamma(2.0, size=(50, 3)))
    assert parts["total"] == pytest.approx(parts["aleatoric"] + parts["epistemic"], rel=1e-6)


def test_total_is_computed_on_its_own():
    # Were it the sum of the other two, a wrong epistemic part would go unseen.
    rng = np.random.default_rng(1)
    mean, variance = rng.normal(size=(400, 2)), rng.gamma(2.0, size=(400, 2))
    parts = total_variance(mean, variance)
    second_moment = (variance + mean**2).mean(axis=0)
    assert parts["total"] == pytest.approx(second_moment - mean.mean(axis=0) ** 2)
    sample_variance = mean.var(axis=0, ddof=1)
    assert parts["total"] != pytest.approx(parts["aleatoric"] + sample_variance, rel=1e-6)


def test_total_is_the_variance_of_the_predictions():
    fc = make_fc(draws=4000, network=False)
    parts = decompose(fc)
    for name in ("hare", "lynx"):
        predictions = fc["predictions"][name].values.reshape(-1, 21)
        ratio = predictions.var(axis=0) / parts["total"].sel(observable=name).values
        deviation = (predictions - predictions.mean(axis=0)) ** 2
        error = deviation.std(axis=0) / np.sqrt(len(predictions)) / deviation.mean(axis=0)
        assert (np.abs(ratio - 1) < 4 * error).all()
        assert (np.abs(1.2 * ratio - 1) > 4 * error).all()


def interacting_grid(rng, rows, columns, replicates):
    """A grid a s_i + b w_j + c s_i w_j (last axis: replicates), and its exact variances."""
    a, b, c = 1.5, -0.8, 0.6
    science_mean, science_sd, network_mean, network_sd = 0.5, 1.2, -1.0, 0.7
    s = rng.normal(science_mean, science_sd, (rows, 1, replicates))
    w = rng.normal(network_mean, network_sd, (1, columns, replicates))
    exact = {
        "science": ((a + c * network_mean) * science_sd) ** 2,
        "network": ((b + c * science_mean) * network_sd) ** 2,
        "interaction": (c * science_sd * network_sd) ** 2,
    }
    return a * s + b * w + c * s * w, exact


def standard_errors(estimate, exact):
    return (estimate.mean() - exact) / (estimate.std(ddof=1) / np.sqrt(estimate.size))


def test_the_split_is_unbiased_on_small_grids():
    grid, exact = interacting_grid(np.random.default_rng(2), 6, 5, 20_000)
    split = crossed_variance(grid)
    for part in ("science", "network"):
        assert abs(standard_errors(split[part], exact[part])) < 4
    # The plain variance of the row means also holds a share of the interaction.
    plain = grid.mean(axis=1).var(axis=0, ddof=1)
    assert standard_errors(plain, exact["science"]) > 4


def test_decompose_recovers_known_variances():
    rng = np.random.default_rng(3)
    replicates = 300
    grid, exact = interacting_grid(rng, 60, 60, replicates)
    # In an independent posterior each draw is a pair of its own.
    mean = interacting_grid(rng, 1, 1, 500 * replicates)[0].reshape(500, replicates)
    parts = decompose(forecast_of(mean, np.ones_like(mean), grid)).sel(observable="y")
    for part, variance in exact.items():
        assert abs(standard_errors(parts[part].values, variance)) < 4
    assert standard_errors(parts["science"].values, 1.2 * exact["science"]) < -4


def test_compensating_groups_have_a_negative_interaction():
    rng = np.random.default_rng(4)
    s = rng.normal(size=400)
    mean = np.zeros((400, 1))  # science s and network -s cancel in every posterior draw
    grid = s[:50, None, None] - s[None, :50, None]
    parts = decompose(forecast_of(mean, np.ones((400, 1)), grid)).sel(observable="y")
    variance = s[:50].var(ddof=1)
    assert parts["epistemic"].item() == 0.0
    assert parts["interaction"].item() == pytest.approx(-2 * variance)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 20.0), st.floats(-100.0, 100.0))
@settings(deadline=None, max_examples=40)
def test_the_split_scales_and_transposes(seed, factor, shift):
    grid = np.random.default_rng(seed).normal(size=(7, 5, 2))
    split = crossed_variance(grid)
    scaled = crossed_variance(factor * grid + shift)
    swapped = crossed_variance(grid.swapaxes(0, 1))
    for part, other in (("science", "network"), ("network", "science")):
        assert scaled[part] == pytest.approx(factor**2 * split[part], rel=1e-6, abs=1e-6)
        assert swapped[other] == pytest.approx(split[part])


def test_a_failed_row_is_dropped_and_not_the_columns():
    grid = np.random.default_rng(5).normal(size=(8, 8, 2))
    expected = np.delete(grid, [3], axis=0)
    grid[3, ::2, 1] = np.nan
    assert np.array_equal(complete_block(grid), expected)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=60)
def test_the_block_that_is_left_is_complete(seed, share):
    rng = np.random.default_rng(seed)
    grid = rng.normal(size=(9, 6, 2))
    grid[rng.uniform(size=(9, 6)) < share] = np.nan
    block = complete_block(grid)
    assert np.isfinite(block).all()
    assert np.isin(block, grid).all()


def test_failed_draws_are_left_out_and_counted():
    fc, whole = make_fc(failures=9, crossed_failures=3), make_fc()
    parts = decompose(fc)
    assert parts.attrs["failed_draws"] == 9
    assert parts.to_array().notnull().all()
    assert float((parts["science"] / decompose(whole)["science"]).min()) > 0.5


def test_without_a_network_there_is_no_split():
    parts = decompose(make_fc(network=False))
    assert set(parts.data_vars) == {"total", "aleatoric", "epistemic"}
    assert set(decompose(make_fc()).data_vars) > {"science", "network", "interaction"}


def test_labels_and_shapes():
    parts = decompose(make_fc())
    assert all(variable.dims == ("observable", "time") for variable in parts.data_vars.values())
    assert list(parts["observable"].values) == ["hare", "lynx"]
    assert set(parts["units"].values) == {"thousand pelts"}
    assert parts["time"].attrs["units"] == "year"


def test_a_forecast_that_failed_throughout_gives_nan():
    parts = decompose(make_fc(failures=800, crossed_failures=1600))
    assert parts.to_array().isnull().all()
    assert parts.attrs["failed_draws"] == 800


def test_an_infinite_observation_variance_stays_infinite_in_its_own_part():
    mean = np.random.default_rng(6).normal(size=(30, 2))
    variance = np.ones_like(mean)
    variance[:, 1] = np.inf
    parts = decompose(forecast_of(mean, variance)).sel(observable="y")
    assert np.isinf(parts["aleatoric"].values).tolist() == [False, True]
    assert np.isinf(parts["total"].values).tolist() == [False, True]
    assert np.isfinite(parts["epistemic"].values).all()
