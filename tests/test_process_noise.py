"""Noise on the states of an ODE: what it adds is a Brownian motion, and it is told from noise of
the observation.
"""

import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from by_hand import posterior

import bayes_dasl as bd

GRID = (0.0, 4.0, 8)
Z = np.random.default_rng(3).normal(size=8)


def still(t, y, u):
    return {"y": 0.0 * y["y"]}


def pull(t, y, u):
    return {"y": -0.5 * y["y"]}


def total(t, y, u):
    return {"sum": y["y"].sum()}


def noisy(scale=0.4, field=still, start=1.0, grid=GRID, **options):
    return bd.ODE(
        field,
        {"y": start},
        start=0.0,
        process_noise=bd.layers.ProcessNoise({"y": scale}, grid, **options),
    )


def solved(layer, times):
    return np.asarray(layer(bd.inputs(xr.Dataset(coords={"time": times}), start=0.0)).values["y"])


def brownian(times):
    """What the increments add up to, linear within a step."""
    return np.interp(
        times, np.linspace(0.0, 4.0, 9), 0.4 * np.sqrt(0.5) * np.concatenate([[0.0], np.cumsum(Z)])
    )


TIMES = np.array([0.2, 0.5, 1.0, 1.75, 3.0, 4.0])


@pytest.mark.parametrize(("relative", "added"), [(False, lambda w: 1.0 + w), (True, np.exp)])
def test_increments_add_up_to_a_brownian_motion(relative, added):
    layer = noisy(relative=relative, path={"y": jnp.asarray(Z)})
    np.testing.assert_allclose(solved(layer, TIMES), added(brownian(TIMES)), rtol=1e-5)


@pytest.mark.parametrize("grid", [(0.1, 12.3, 37), (11323.0, 11700.0, 131), (1900.0, 1921.0, 63)])
def test_no_step_of_the_solver_straddles_an_edge(grid):
    """Edges that are no round numbers: the path is met to the tolerance, with hardly more steps
    than the grid has.
    """
    start, end, steps = grid
    z = np.random.default_rng(0).normal(size=steps)
    noise = bd.layers.ProcessNoise({"y": 0.4}, grid, path={"y": jnp.asarray(z)})
    layer = bd.ODE(still, {"y": 1.0}, start=start, process_noise=noise)
    edges = np.linspace(start, end, steps + 1)
    found = layer(bd.inputs(xr.Dataset(coords={"time": edges[1:]}), start=start))
    walk = 1.0 + 0.4 * np.sqrt((end - start) / steps) * np.cumsum(z)
    np.testing.assert_allclose(found.values["y"], walk, atol=1e-8)
    assert int(found.stats["steps"]) < 1.5 * steps


@pytest.mark.thorough
def test_a_solve_beyond_the_grid_fails_where_nobody_can_refuse_it():
    noise = bd.layers.ProcessNoise({"y": 0.4}, GRID, path={"y": jnp.asarray(Z)})
    inside, beyond = (
        bd.equations.MultipleShooting(
            bd.ODE(still, {"y": 1.0}, process_noise=noise), (2.0,), {"y": jnp.ones(1)}, gap=0.1
        )(bd.inputs(xr.Dataset(coords={"time": times}), start=0.0))
        for times in (np.array([1.0, 3.0]), np.array([1.0, 6.0]))
    )
    assert bool(inside.ok) and not bool(beyond.ok)


@pytest.mark.thorough
def test_steady_states_of_doses_know_no_noise():
    table = pd.DataFrame({"time": [0.0], "amt": [10.0], "ss": [1], "ii": [2.0], "evid": [1]})
    noise = bd.layers.ProcessNoise({"y": 1.0}, GRID, path={"y": jnp.full(8, 3.0)})
    layer = bd.ODE(
        pull, {"y": 0.0}, doses=bd.dosing.doses(table, "y"), start=0.0, process_noise=noise
    )
    assert solved(layer, np.array([0.0, 1.0]))[0] == pytest.approx(
        10 / (1 - np.exp(-1.0)), rel=1e-4
    )


def test_it_is_added_to_the_equation():
    layer = noisy(field=pull, path={"y": jnp.ones(8)})
    kick = 0.4 / np.sqrt(0.5)
    expected = kick / 0.5 + (1.0 - kick / 0.5) * np.exp(-0.5 * TIMES)
    np.testing.assert_allclose(solved(layer, TIMES), expected, rtol=1e-5)


def test_a_forecast_spreads_with_the_horizon():
    model = bd.Model(noisy(grid=(0.0, 10.0, 10)), bd.NormalNoise(0.1))
    rng, draws = np.random.default_rng(0), 2000
    path = np.concatenate([np.zeros((1, draws, 2)), rng.normal(size=(1, draws, 8))], axis=2)
    data = xr.Dataset({"y": ("time", [1.0, 1.0])}, {"time": [1.0, 2.0]})
    post = posterior(model, data, {"layer.process_noise.path.y": path})
    fc = bd.forecast(model, post, np.array([2.0, 3.0, 6.0, 10.0]))
    variance = fc["predictions"]["y"].var(("chain", "draw")).values
    np.testing.assert_allclose(
        variance, 0.01 + 0.16 * np.array([0.0, 1.0, 4.0, 8.0]), rtol=4 * np.sqrt(2 / draws)
    )


@pytest.mark.thorough
def test_the_decomposition_names_its_part():
    """The start is known to 0.3, and what the path adds is independent of it: both parts have
    closed forms.
    """
    model = bd.Model(noisy(grid=(0.0, 10.0, 10), start=dist.Normal(1.0, 1.0)), bd.NormalNoise(0.1))
    rng, draws = np.random.default_rng(0), 4000
    path = np.concatenate([np.zeros((1, draws, 2)), rng.normal(size=(1, draws, 8))], axis=2)
    data = xr.Dataset({"y": ("time", [1.0, 1.0])}, {"time": [1.0, 2.0]})
    start = 1.0 + 0.3 * rng.normal(size=(1, draws))
    post = posterior(model, data, {"layer.process_noise.path.y": path, "layer.initial.y": start})
    decomposition = bd.decompose(bd.forecast(model, post, np.array([2.0, 3.0, 6.0, 10.0])))
    parts = decomposition.sel(observable="y")
    process = 0.16 * np.array([0.0, 1.0, 4.0, 8.0])
    error = 4 * np.sqrt(2 / draws) * (0.09 + process)
    assert np.all(np.abs(parts["process"] - process) < error)
    assert np.all(np.abs(parts["epistemic"] - 0.09 - process) < error)
    np.testing.assert_allclose(parts["aleatoric"], 0.01, rtol=1e-6)
    figure = bd.plots.plot_decomposition(decomposition, "y")
    assert {"process", "parameters"} <= {text.get_text() for text in figure.legends[0].get_texts()}


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: noisy(dist.Normal(0.0, 1.0)), "the scale of the process noise of 'y' must be "
            "positive"),
        (lambda: bd.layers.ProcessNoise({}, GRID), "takes a scale for each state"),
        (lambda: noisy(grid=(4.0, 0.0, 8)), r"grid must be numbers \(start, end, steps\)"),
        (lambda: noisy(path={"y": jnp.ones(3)}), "8 increments for each of y"),
        (lambda: bd.ODE(still, {"x": 1.0}, process_noise=noisy().process_noise), "names 'y', but "
            "the states are x"),
        (lambda: bd.ODE(still, {"y": jnp.ones(2)}, total, process_noise=noisy().process_noise), "'y' has the shape"),
        (lambda: bd.ODE(still, {"y": 1.0}, process_noise=0.1), "must be a bd.layers.ProcessNoise"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(build, said):
    with pytest.raises(bd.BayesDaslError, match=said):
        build()


def test_times_beyond_the_grid_are_refused():
    with pytest.raises(
        bd.BayesDaslError, match="time 5 lies beyond the grid of the process noise, which ends at 4"
    ):
        solved(noisy(path={"y": jnp.asarray(Z)}), np.array([1.0, 5.0]))


def test_a_forecast_beyond_the_grid_is_refused():
    """Its times are known, so that no draw need fail for it:
    a NaN at each time would not say why.
    """
    model = bd.Model(noisy(), bd.NormalNoise(0.5))
    data = xr.Dataset({"y": ("time", [1.0, 1.1, 0.9])}, {"time": [1.0, 2.0, 3.0]})
    post = posterior(model, data, {"layer.process_noise.path.y": np.zeros((1, 2, GRID[2]))})
    for ask in (
        bd.forecast,
        lambda *given: bd.evaluate(*given[:2], lambda m, values: values, at=given[2]),
    ):
        with pytest.raises(
            bd.BayesDaslError,
            match="time 5 lies beyond the grid of the process noise, which ends at 4",
        ):
            ask(model, post, np.array([1.0, 4.0, 5.0]))


@pytest.mark.thorough
def test_the_posterior_is_that_of_a_filter():
    """Of a linear equation the path can be integrated out: science, noise and forecast are those of
    `Kalman`.
    """
    rng, times, y = np.random.default_rng(1), np.arange(1.0, 12.1, 1.0), 2.0
    path = []
    for _ in times:
        for _ in range(100):
            y += 0.01 * (1.0 - 0.8 * y) + 0.4 * 0.1 * rng.normal()
        path.append(y)
    data = xr.Dataset(
        {"y": ("time", np.array(path) + 0.1 * rng.normal(size=times.size))}, {"time": times}
    )

    class Relax(bd.Module):
        rate: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": 1.0 - self.rate * y["y"]}

    relax, scale = Relax(dist.LogNormal(0.0, 0.5)), dist.HalfNormal(0.5)
    noise = bd.layers.ProcessNoise({"y": scale}, (0.0, 15.0, 15))
    by_path = bd.Model(
        bd.ODE(relax, {"y": 2.0}, start=0.0, process_noise=noise, rtol=1e-5, atol=1e-5),
        bd.NormalNoise(0.1),
    )
    by_filter = bd.Model(
        bd.filtering.Kalman(relax, {"y": scale}, {"y": 2.0}, {}, start=0.0), bd.NormalNoise(0.1)
    )
    engine = bd.NUTS(chains=2, draws=400, map_starts=4)
    posts = [bd.fit(model, data, engine, key=0, progress=False) for model in (by_path, by_filter)]
    assert posts[0].attrs["sampled_in"] == "linearised coordinates"
    for pair in (("rate", "rate"), ("scale.y", "diffusion.y")):
        found = [post["posterior"][name] for post, name in zip(posts, pair, strict=True)]
        means, errors = [float(v.mean()) for v in found], [float(az.mcse(v)) for v in found]
        # A kick that is spread over a step leaves out a part (rate h)² / 12 of a continuous one,
        # here 3 %.
        assert abs(means[0] - means[1]) < 4 * np.hypot(*errors) + 0.03 * abs(means[1])
        assert float(az.rhat(found[0])) < 1.02
    ahead = [
        bd.forecast(m, p, np.array([13.0, 15.0]), key=1)
        for m, p in zip((by_path, by_filter), posts, strict=True)
    ]
    sds = [fc["predictions"]["y"].std(("chain", "draw")).values for fc in ahead]
    np.testing.assert_allclose(sds[0], sds[1], rtol=0.1)
