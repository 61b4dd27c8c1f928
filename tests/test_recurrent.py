"""Recurrent networks: the cells of Equinox, step by step, as the equations of a `Difference`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.networks import Recurrent
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths, realise

RNG = np.random.default_rng(0)
DAYS = np.arange(0.0, 12.0)
WEATHER = xr.Dataset(
    {name: ("time", RNG.normal(size=DAYS.size)) for name in ("rain", "warmth")}, {"time": DAYS}
)
CELLS = {"LSTM": eqx.nn.LSTMCell, "GRU": eqx.nn.GRUCell}
INPUTS = {"rain": (1.0, 2.0), "warmth": (0.0, 0.5)}


def network(kind="LSTM", outputs=("flow", "level"), scale=3.0, width=4, **more):
    cell = CELLS[kind](2, width, key=jax.random.key(0))
    return Recurrent(cell, INPUTS, outputs, scale, **more)


def layer(net):
    return bd.Difference(net, net.initial, Recurrent.read, forcings=("rain", "warmth"))


def drawn(net, key=1):
    return {path: value[0] for path, value in draw_prior(net, 1, key=jax.random.key(key)).items()}


@pytest.mark.thorough("LSTM")
@pytest.mark.parametrize("kind", CELLS)
def test_equals_the_cell_step_by_step(kind):
    net = network(kind, activation=jax.nn.softplus)
    values = drawn(net)
    model = bd.Model(layer(net), bd.NormalNoise(1.0))
    found = realise(model, {f"layer.step.{path}": value for path, value in values.items()}).predict(
        model.inputs(WEATHER)
    )

    by_hand = realise(net, values)
    state = (jnp.zeros(4), jnp.zeros(4)) if kind == "LSTM" else jnp.zeros(4)
    for day in range(DAYS.size):
        u = jnp.array(
            [(WEATHER["rain"].values[day] - 1.0) / 2.0, WEATHER["warmth"].values[day] / 0.5]
        )
        state = by_hand.cell(u, state)
        hidden = state[0] if kind == "LSTM" else state
        want = 3.0 * np.log1p(np.exp(by_hand.readout.weight @ hidden + by_hand.readout.bias))
        np.testing.assert_allclose(
            [found.values[name][day] for name in ("flow", "level")], want, rtol=1e-10
        )


def test_its_arrays_are_the_random_leaves():
    leaves = paths(network("GRU", scale=dist.LogNormal(0.0, 1.0)))
    assert list(leaves) == [
        *(f"cell.{name}" for name in ("weight_ih", "weight_hh", "bias", "bias_n")),
        *("readout.weight", "readout.bias", "scale"),
    ]
    assert {leaf.group for leaf in leaves.values()} == {"network"}
    assert leaves["readout.weight"].shape == (2, 4)


def test_the_prior_of_its_weights_is_by_fan_in():
    """Of a cell of 64 units: recurrent weights have a variance of 1/64, those of two inputs one of
    1/2.
    """
    draws = draw_prior(network(width=64), 50, key=jax.random.key(2))
    assert np.var(draws["cell.weight_hh"]) == pytest.approx(1 / 64, rel=0.02)
    assert np.var(draws["cell.weight_ih"]) == pytest.approx(1 / 2, rel=0.05)
    assert np.var(draws["readout.weight"]) == pytest.approx(1 / 64, rel=0.1)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: Recurrent(eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0)), INPUTS, ("flow",)),
            r"LSTMCell or an eqx\.nn",
        ),
        (
            lambda: Recurrent(eqx.nn.GRUCell(3, 4, key=jax.random.key(0)), INPUTS, ("flow",)),
            "takes 3 inputs, but 2 are",
        ),
        (lambda: network(outputs="flow"), "tuples of names"),
        (lambda: network(outputs=()), "no output"),
        (lambda: network(outputs=("flow", "flow")), "two outputs have one name"),
        (lambda: network(scale=0.0), r"Recurrent\.scale"),
        (lambda: network(activation=None), "activation"),
        (
            lambda: network(prior=lambda name, value: dist.Normal(0.0, 1.0)),
            "must be a distribution of shape",
        ),
    ],
    ids=["cell", "inputs", "text", "outputs", "twice", "scale", "activation", "prior"],
)
def test_refuses(make, match, unchecked):
    with pytest.raises(ModelError, match=match):
        make()


def test_an_input_that_nothing_drives_is_named():
    net = network()
    with pytest.raises(ModelError, match="network input warmth is none of t, rain"):
        bd.Model(
            bd.Difference(net, net.initial, Recurrent.read, forcings=("rain",)), bd.NormalNoise(1.0)
        )


class Memoryless(bd.Module):
    """A network of today's rain alone."""

    network: bd.Network

    def __call__(self, t, y, u):
        return y

    def flow(self, t, y, u):
        return self.network(t, {}, u)


@pytest.mark.thorough
def test_it_learns_what_a_store_remembers():
    """Half of a store drains each day: what a network without a memory cannot say of the flow, this
    one learns.
    """
    days = np.arange(0.0, 240.0)
    rain = np.random.default_rng(1).gamma(0.5, 2.0, days.size)
    store = [0.0]
    for fell in rain[:-1]:
        store.append(0.5 * store[-1] + fell)
    flow = 0.5 * np.array(store)
    seen = xr.Dataset(
        {"rain": ("time", rain), "flow": ("time", flow + RNG.normal(0.0, 0.1, days.size))},
        {"time": days},
    )
    train, test = seen.isel(time=slice(None, 160)), seen.isel(time=slice(160, None))
    engine = bd.DeepEnsemble(members=2, bootstrap=False, descent=bd.Descent(steps=600))

    def error(step, initial, observe):
        model = bd.Model(
            bd.Difference(step, initial, observe, forcings="rain"),
            bd.NormalNoise(dist.HalfNormal(1.0)),
        )
        post = bd.fit(model, train, engine, key=0, progress=False)
        mean = bd.forecast(model, post, seen, key=0)["predictions"]["flow"].mean(("chain", "draw"))
        return float(np.sqrt(((mean - flow).sel(time=test["time"]) ** 2).mean()))

    inputs = bd.standardise(train, "rain")
    net = Recurrent(eqx.nn.LSTMCell(1, 6, key=jax.random.key(0)), inputs, ("flow",), scale=2.0)
    forgets = Memoryless(bd.Network.mlp(inputs, ("flow",), scale=2.0, width=6))
    without = error(forgets, {"none": 0.0}, Memoryless.flow)
    assert error(net, net.initial, Recurrent.read) < 0.4 * without
