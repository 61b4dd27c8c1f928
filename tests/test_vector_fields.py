"""The rates by which draws of a network are compared: at states where the draws, and forecasts,
go.
"""

import dataclasses

import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import AbstractEngine, Samples
from bayes_dasl.prediction import Pusher, push, rates_along_paths, watched
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise

DRAWS = 20


@dataclasses.dataclass(frozen=True)
class OfThePrior(AbstractEngine):
    """Prior draws in the place of those of the posterior."""

    draws: int = 10

    def run(self, problem, *, key, journal, bar):
        drawn = np.asarray(problem.prior(2 * self.draws, key=key)).reshape(2, self.draws, -1)
        return Samples(drawn, {"lp": np.zeros((2, self.draws))})


def rates_of(model, inputs, draws):
    along = watched(model, inputs, DRAWS)
    assert along is not None
    pusher = Pusher(model, inputs, draws, watched=along)
    pusher.whole()
    return rates_along_paths(model, inputs, draws, along.times, pusher.watched_states)


@pytest.fixture(scope="module")
def pushed():
    model = small.stepped()
    draws = {
        path: np.asarray(v) for path, v in draw_prior(model, DRAWS, key=jax.random.key(0)).items()
    }
    inputs = model.inputs(small.data())
    return model, inputs, draws, rates_of(model, inputs, draws)


@pytest.mark.thorough
def test_every_draw_is_asked_at_the_mean_and_along_paths_of_single_draws(pushed):
    model, inputs, draws, found = pushed
    assert dict(found.sizes) == {"draw": DRAWS, "path": 5, "time": small.TIMES.size}

    def of(i):
        return realise(
            model, {path: jnp.asarray(values[i]) for path, values in draws.items()}
        ).layer

    paths = np.stack(
        [np.asarray(ode.solve(inputs, ode.begin(inputs))[0]["y"]) for ode in map(of, range(DRAWS))]
    )
    whose = np.linspace(0, DRAWS - 1, 4).astype(int)
    for number, path in enumerate([paths.mean(axis=0), *paths[whose]]):
        for draw in (0, 7):
            expected = np.asarray(
                of(draw).rates_along(inputs, inputs.times, {"y": jnp.asarray(path)})["y"]
            )
            np.testing.assert_allclose(
                found["y"].sel(path=number).isel(draw=draw), expected, rtol=1e-9, atol=1e-12
            )


@pytest.mark.thorough
def test_of_a_long_series_fifty_times_are_asked(pushed):
    model, _, draws, _ = pushed
    times = xr.Dataset(coords={"time": np.linspace(0.0, 4.0, 173)})
    found = rates_of(model, model.inputs(times), draws)
    assert found.sizes["time"] == 50
    assert (float(found["time"][0]), float(found["time"][-1])) == (0.0, 4.0)


@pytest.mark.thorough
def test_what_is_watched_is_pushed_like_any_other(pushed):
    """A failed solve too."""
    model, inputs, draws, _ = pushed
    broken = {path: values.copy() for path, values in draws.items()}
    next(iter(broken.values()))[3] = np.nan
    pusher = Pusher(model, inputs, broken, watched=watched(model, inputs, DRAWS))
    found, plain = pusher.whole(), push(model, inputs, broken)
    assert (np.flatnonzero(~found.ok) == 3).all() and not found.ok[3]
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    [states] = pusher.watched_states
    np.testing.assert_array_equal(np.isfinite(states["y"]).all(axis=1), found.ok)


@pytest.mark.thorough
def test_a_forecast_holds_the_rates_along_its_own_times(monkeypatch):
    """Chains may say the same where the data were, and not of where the forecast goes."""
    model, data = small.stepped(), small.data()
    post = bd.fit(model, data, OfThePrior(), key=0, progress=False)
    traced, solve = [], small.Stepped.solve
    monkeypatch.setattr(small.Stepped, "solve", lambda *a: traced.append("solve") or solve(*a))
    fc = bd.forecast(model, post, np.linspace(0.0, 9.0, 10))
    assert len(traced) == 2  # for the model's identity, and in the program that pushes draws
    field = fc["vector_field"].to_dataset()
    assert dict(field.sizes) == {"chain": 2, "draw": 10, "path": 5, "time": 10}
    assert any(
        "vector field along the forecast" in f.subject for f in bd.diagnose(post, fc).findings
    )


def test_without_a_network_there_is_nothing_to_compare():
    model = bd.Model(
        small.Stepped(small.Decay(bd.between(0.2, 2.0)), {"y": 2.0}), bd.NormalNoise(0.1)
    )
    assert watched(model, model.inputs(small.data()), 3) is None
