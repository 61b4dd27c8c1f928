"""Figures of networks as functions and of training."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl import plots
from bayes_dasl._errors import MismatchError, ModelError

TIMES = np.linspace(0.0, 3.0, 10)
DATA = xr.Dataset({"x": ("time", np.exp(-TIMES), {"units": "g"})}, {"time": TIMES})


def model(networks: int = 1) -> bd.Model:
    one = bd.Network.mlp({"x": (0.5, 0.2), "t": (1.5, 1.0)}, ("x",), 0.5, width=3, depth=1)
    field = bd.Residual(lambda t, y, u: {"x": 0.0 * y["x"]}, one)
    if networks == 2:
        field = bd.Residual(field, bd.Network.mlp({"x": (0.5, 0.2)}, ("x",), 0.5, width=3, depth=1))
    return bd.Model(bd.ODE(field, {"x": dist.Normal(1.0, 0.1)}, units={"x": "g"}), bd.NormalNoise(0.05))


@pytest.fixture(scope="module")
def joint():
    return bd.fit(model(), DATA, bd.Joint(steps=200, starts=2), key=0, progress=False)


def test_the_prior_of_the_function_before_there_are_data():
    figure = plots.plot_network(model())
    assert [ax.get_xlabel() for ax in figure.axes] == ["x (g)", "t"]
    assert {ax.get_title(loc="left") for ax in figure.axes} == {"x"}
    grid = figure.axes[0].lines[0].get_xdata()
    np.testing.assert_allclose([grid[0], grid[-1]], [0.0, 1.0], atol=1e-12)


def test_the_prior_drawn_is_that_of_the_network():
    """Its 90 % band at the middle is that of the network's own draws."""
    figure = plots.plot_network(model())
    network = bd.networks.networks(model())[0][1]
    draws = bd.random.draw_prior(network, 400, key=jax.random.key(1))
    said = jax.vmap(lambda d: bd.random.realise(network, d)(1.5, {"x": jnp.asarray(0.5)}, {})["x"])(draws)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    middle = band[np.abs(band[:, 0] - 0.5) < 1e-9][:, 1]
    np.testing.assert_allclose([middle.min(), middle.max()], np.quantile(said, [0.05, 0.95]), rtol=0.3)


def test_the_posterior_lies_on_its_prior(joint):
    figure = plots.plot_network(model(), joint)
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["prior, 90 %", "prior draws", "posterior, 90 %", "posterior median"]


def test_training_curves(joint):
    figure = plots.plot_training(joint)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0] == "loss (nats)" and set(titles[1:]) == {
        f"log density: {name} (nats)" for name in ("data", "science", "network")
    }
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), joint["training"]["loss"][0])


def test_refusals(joint):
    with pytest.raises(ModelError, match="several networks"):
        plots.plot_network(model(2))
    with pytest.raises(MismatchError, match="named 'lynx'"):
        plots.plot_network(model(2), network="lynx")
    assert len(plots.plot_network(model(2), network="science.closure").axes) >= 2
    with pytest.raises(MismatchError):
        plots.plot_network(model(2), joint, network="science.closure")
    layer = bd.ODE(lambda t, y, u: {"x": -y["x"]}, {"x": dist.Normal(1.0, 0.1)})
    known = bd.Model(layer, bd.NormalNoise(0.1))
    with pytest.raises(ModelError, match=r"no bd\.Network"):
        plots.plot_network(known)
    with pytest.raises(MismatchError, match="no training curves"):
        plots.plot_training(xr.DataTree())
