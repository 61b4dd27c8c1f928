"""Figures of networks as functions and of training."""

import io

import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl import plots
from bayes_dasl.errors import MismatchError, ModelError
from bayes_dasl.networks import network as networks

TIMES = np.linspace(0.0, 3.0, 10)
DATA = xr.Dataset(
    {"x": ("time", np.exp(-TIMES), {"units": "g"})}, {"time": ("time", TIMES, {"units": "h"})}
)


def model(networks: int = 1, units: str = "g") -> bd.Model:
    one = bd.Network.mlp({"x": (0.5, 0.2), "t": (1.5, 1.0)}, ("x",), 0.5, width=3, depth=1)
    field = bd.Residual(lambda t, y, u: {"x": 0.0 * y["x"]}, one)
    if networks == 2:
        field = bd.Residual(field, bd.Network.mlp({"x": (0.5, 0.2)}, ("x",), 0.5, width=3, depth=1))
    return bd.Model(
        small.Stepped(field, {"x": dist.Normal(1.0, 0.1)}, units={"x": units}), bd.NormalNoise(0.05)
    )


@pytest.fixture(scope="module")
def joint():
    return bd.fit(
        model(),
        DATA,
        bd.Joint(starts=2, descent=bd.Descent(steps=200, reparametrisation="none")),
        key=0,
    )


@pytest.mark.thorough
def test_the_prior_of_the_function_before_there_are_data():
    figure = plots.plot_function(model())
    assert [ax.get_xlabel() for ax in figure.axes] == ["x (g)", "t"]
    assert {ax.get_title(loc="left") for ax in figure.axes} == {"x"}
    grid = figure.axes[0].lines[0].get_xdata()
    np.testing.assert_allclose([grid[0], grid[-1]], [0.0, 1.0], atol=1e-12)


@pytest.mark.thorough
def test_the_prior_drawn_is_that_of_the_network():
    """Its 90 % band at the middle is that of the network's own draws."""
    figure = plots.plot_function(model())
    network = networks.networks(model())[0][1]
    draws = bd.priors.draw_prior(network, 400, key=jax.random.key(1))
    said = jax.vmap(lambda d: bd.random.realise(network, d)(1.5, {"x": jnp.asarray(0.5)}, {})["x"])(
        draws
    )
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    middle = band[np.abs(band[:, 0] - 0.5) < 1e-9][:, 1]
    np.testing.assert_allclose(
        [middle.min(), middle.max()], np.quantile(said, [0.05, 0.95]), rtol=0.3
    )


def test_the_posterior_lies_on_its_prior(joint):
    figure = plots.plot_function(model(), joint)
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["prior, 90 %", "prior draws", "posterior, 90 %", "posterior median", "data"]


def test_units_are_those_of_the_data_where_the_model_says_none(joint):
    assert [ax.get_xlabel() for ax in plots.plot_function(model(units=""), joint).axes] == [
        "x (g)",
        "t (h)",
    ]


def test_all_of_the_posterior_is_seen_wherever_it_lies(joint):
    """Limits hold what is drawn of the posterior; of a prior beside it that is much wider only a
    part.
    """
    elsewhere, bias = joint.copy(deep=True), "layers.1.bias"
    elsewhere["posterior"][bias].values[...] += 100.0
    prior = [ax.get_ylim() for ax in plots.plot_function(model()).axes]
    for post in (joint, elsewhere):
        for ax in plots.plot_function(model(), post).axes:
            low, high = ax.get_ylim()
            median = next(
                line for line in ax.lines if line.get_label() == "posterior median"
            ).get_ydata()
            assert low < median.min() and median.max() < high
    narrow = joint.copy(deep=True)
    for name in ("layers.1.weight", bias):
        narrow["posterior"][name].values[...] *= 1e-3
    for ax, (low, high) in zip(plots.plot_function(model(), narrow).axes, prior, strict=True):
        assert low < ax.get_ylim()[0] < ax.get_ylim()[1] < high
        assert np.diff(ax.get_ylim()) < 0.1 * (high - low)


def trained(looks: int = 4, **curves) -> xr.DataTree:
    """Curves of two members over 50 steps a look, judged by their loss unless said otherwise."""
    step = np.arange(50 * looks + 1)
    loss = 100.0 * np.exp(-step / 50) + np.array([[3.0], [5.0]])
    terms = {
        "loss": loss[:, :-1],
        "data": -loss[:, :-1],
        "science": np.zeros_like(loss[:, :-1]),
    } | curves
    held_out = terms.pop("held_out", loss[:, 50::50])
    variables = {name: (("member", "step"), values) for name, values in terms.items()}
    coords = {"step": step[1:], "look": step[50::50]}
    return xr.DataTree.from_dict(
        {"training": xr.Dataset(variables | {"held_out": (("member", "look"), held_out)}, coords)}
    )


@pytest.mark.thorough
@pytest.mark.parametrize("failing", [slice(100, 103), slice(None)])
def test_steps_whose_solve_failed_are_gaps(failing):
    post = trained()
    training = post["training"]
    for name in ("loss", "data", "science"):
        training[name].values[:, failing] = np.inf if name == "loss" else -np.inf
    figure = plots.plot_training(post)
    figure.savefig(io.BytesIO(), format="svg")
    for ax, name in zip(figure.axes, ("loss", "data", "science"), strict=False):
        for line, values in zip(ax.lines, training[name].values, strict=True):
            np.testing.assert_array_equal(np.isnan(line.get_ydata()), ~np.isfinite(values))
        assert np.isfinite(ax.get_ylim()).all()
        settled = training[name].values[:, 10:]
        if np.isfinite(settled).any():
            seen = settled[np.isfinite(settled)]
            assert ax.get_ylim()[0] < seen.min() and seen.max() < ax.get_ylim()[1]


def test_what_members_were_judged_by_is_seen():
    """In a panel of its own, all of it, unless it is the loss."""
    titles = lambda figure: [ax.get_title(loc="left") for ax in figure.axes]  # noqa: E731
    assert "as judged (nats)" not in titles(plots.plot_training(trained()))
    held_out = np.array([[900.0, 500.0, 400.0, np.inf], [800.0, 600.0, np.nan, np.nan]])
    figure = plots.plot_training(trained(held_out=held_out))
    panel = figure.axes[titles(figure).index("as judged (nats)")]
    assert panel.get_ylim()[0] < 400.0 and panel.get_ylim()[1] > 900.0
    np.testing.assert_array_equal(panel.lines[0].get_xdata(), [50, 100, 150, 200])
    loss = figure.axes[titles(figure).index("loss (nats)")]
    assert loss.get_ylim()[1] < 150.0


def test_training_curves(joint):
    figure = plots.plot_training(joint)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0] == "loss (nats)" and set(
        titles[1:]
    ) == {  # nothing was held out: it was judged by the loss
        f"log density: {name} (nats)" for name in ("data", "science", "network")
    }
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), joint["training"]["loss"][0])


def test_refusals(joint):
    with pytest.raises(ModelError, match="several functions"):
        plots.plot_function(model(2))
    with pytest.raises(MismatchError, match="named 'lynx'"):
        plots.plot_function(model(2), function="lynx")
    assert len(plots.plot_function(model(2), function="science.closure").axes) >= 2
    with pytest.raises(MismatchError):
        plots.plot_function(model(2), joint, function="science.closure")
    layer = bd.ODE(lambda t, y, u: {"x": -y["x"]}, {"x": dist.Normal(1.0, 0.1)})
    known = bd.Model(layer, bd.NormalNoise(0.1))
    with pytest.raises(ModelError, match="no unknown function"):
        plots.plot_function(known)
    with pytest.raises(MismatchError, match="no training curves"):
        plots.plot_training(xr.DataTree())


def test_a_report_that_knows_the_model_draws_its_functions(joint, undrawn):
    page = bd.report(joint, bd.forecast(model(), joint, DATA), model=model()).html
    assert 'id="functions"' in page and "Prior and posterior of the unknown function" in page
