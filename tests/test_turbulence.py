"""Turbulence on few cells: what is cut from the fine grid, how errors grow, and what each closure
predicts.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths, realise
from case_studies import turbulence
from case_studies.turbulence import FITTED, Flow, Growth


@pytest.fixture
def small(monkeypatch):
    for name, value in {"FINE": 32, "COARSE": 16, "SPIN_UP": 1.0, "UNTIL": 2.0}.items():
        monkeypatch.setattr(turbulence, name, value)
    turbulence.solved.cache_clear()
    yield
    turbulence.solved.cache_clear()


def test_an_error_grows_as_an_exponential_until_it_is_as_large_as_it_may_be():
    size = lambda t: jnp.exp(Growth(0.3, 0.05, 4.0)(t, {}, {})["error"])  # noqa: E731
    assert size(0.0) == pytest.approx(0.05)
    assert float(jax.grad(lambda t: jnp.log(size(t)))(0.0)) == pytest.approx(0.95 * 0.3 * 4.0)
    assert size(100.0) == pytest.approx(1.0)


@pytest.mark.thorough
def test_a_flow_is_cut_to_what_the_coarse_grid_transports(small):
    flow = Flow()
    whole = turbulence.solved(flow)
    assert whole.sizes == {"time": 9, "x": 16, "y": 16}
    spectrum = np.abs(np.fft.fft2(whole["vorticity"].values[-1]))
    waves = np.abs(np.fft.fftfreq(16, 1 / 16))
    beyond = (waves[:, None] > 16 / 3) | (waves > 16 / 3)
    assert spectrum[beyond].max() < 1e-9 * spectrum.max()
    seen = turbulence.observed(flow)
    assert seen.sizes == {"time": 4, "x": 8, "y": 8}
    noise = seen["vorticity"] - whole["vorticity"].sel(time=seen["time"], x=seen["x"], y=seen["y"])
    assert 0.07 < float(noise.std()) < 0.13


@pytest.mark.thorough("no closure", "textbook", "Smagorinsky", "hybrid")
@pytest.mark.parametrize("closure", turbulence.CLOSURES)
def test_every_closure_predicts_the_flow_and_others(small, closure):
    every = turbulence.flows(0)
    found = {}
    for name in (FITTED, "another forcing"):
        made, data = turbulence.ahead(every[name], closure)["near"]
        drawn = draw_prior(made, 1, key=jax.random.key(0))
        realised = realise(made, {path: values[0] for path, values in drawn.items()})
        prediction = eqx.filter_jit(realised.layer)(made.inputs(data))
        assert bool(prediction.ok)
        found[name] = np.asarray(prediction.values["vorticity"])
        truth = data["vorticity"].values
        assert found[name].shape == truth.shape == (4, 16, 16)
        assert np.corrcoef(found[name].ravel(), truth.ravel())[0, 1] > 0.3
    eddy = turbulence.learned(realised)["eddy"]
    assert eddy.shape == (17,) and bool(
        jnp.all(eddy == 0 if closure == "no closure" else eddy >= 0)
    )


def test_the_textbook_closure_goes_with_the_strain_rate(small):
    made = turbulence.model(Flow(), "textbook")
    eddy = turbulence.learned(made)["eddy"]
    np.testing.assert_allclose(eddy, (0.17 * turbulence.WIDTH) ** 2 * turbulence.STRAINS)


@pytest.mark.thorough
def test_the_network_of_another_flow_is_that_of_the_fitted_one_from_another_start(small):
    every = turbulence.flows(0)
    rates = turbulence.network(every[FITTED])
    made, asked = (
        turbulence.ahead(every[name], turbulence.CNN, rates)["near"][0]
        for name in (FITTED, "another start")
    )
    assert [*paths(made)] == [
        *paths(asked)
    ] and "layer.vector_field.network.layers.0.weight" in paths(made)
    assert asked.layer.vector_field.inputs == made.layer.vector_field.inputs == rates.inputs
    start = turbulence.solved(every["another start"])["vorticity"].values[0]
    np.testing.assert_array_equal(asked.layer.initial["vorticity"], start)
    assert {task["closure"] for task in turbulence.tasks(quick=False)} == {
        *turbulence.CLOSURES,
        turbulence.CNN,
    }
    assert turbulence.CNN not in {task["closure"] for task in turbulence.tasks(quick=True)}
