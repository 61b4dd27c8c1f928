"""Science plus a learned correction, by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl._errors import ModelError
from bayes_dasl.random import paths

Y = {"prey": jnp.asarray(2.0), "predator": jnp.asarray(0.5)}
U = {"light": jnp.asarray(3.0)}


def science(t, y, u):
    return {"prey": 1.1 * y["prey"], "predator": -0.4 * y["predator"] + t}


def closure(t, y, u):
    return {"prey": 0.25 * u["light"] - y["predator"]}


# The correction of prey is 0.25 · 3 − 0.5 = 0.25, for each unit of prey if it is relative.
@pytest.mark.parametrize(("relative", "prey"), [(False, 2.2 + 0.25), (True, 2.2 + 2.0 * 0.25)])
def test_correction(relative, prey):
    rates = bd.Residual(science, closure, relative=relative)(7.0, Y, U)
    assert rates == {"prey": pytest.approx(prey), "predator": pytest.approx(-0.2 + 7.0)}


def test_the_default_adds():
    assert bd.Residual(science, closure)(7.0, Y, U) == bd.Residual(science, closure, relative=False)(7.0, Y, U)


@pytest.mark.parametrize("relative", [False, True])
def test_a_correction_of_nothing_changes_nothing(relative):
    assert bd.Residual(science, lambda t, y, u: {}, relative=relative)(7.0, Y, U) == science(7.0, Y, U)


def test_the_rates_of_the_science_are_left_alone():
    rates = {"prey": jnp.asarray(1.0), "predator": jnp.asarray(2.0)}
    bd.Residual(lambda t, y, u: rates, closure)(0.0, Y, U)
    assert rates == {"prey": 1.0, "predator": 2.0}


def test_a_correction_of_an_unknown_state_is_refused():
    with pytest.raises(ModelError, match="the closure corrects 'wolf'; the science has prey, predator"):
        bd.Residual(science, lambda t, y, u: {"wolf": jnp.asarray(1.0)})(0.0, Y, U)


def test_only_the_closure_is_of_the_network():
    class Growth(bd.Module):
        rate: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": self.rate * y["y"]}

    net = eqx.nn.MLP(1, 1, 2, 1, key=jax.random.key(0))
    hybrid = bd.Residual(Growth(dist.Normal(0.0, 1.0)), bd.Network(net, ("y",), ("y",)))
    groups = {path: leaf.group for path, leaf in paths(hybrid).items()}
    assert groups.pop("science.rate") == "science"
    assert set(groups.values()) == {"network"}
    assert len(groups) == 4


def test_a_relative_correction_keeps_a_state_positive():
    """y' = y · (−5) decays to e⁻¹⁰, where the additive correction −5 crosses zero."""
    data = xr.Dataset(coords={"time": [0.0, 2.0]})

    def end(relative):
        field = bd.Residual(lambda t, y, u: {"y": jnp.zeros(())}, lambda t, y, u: {"y": -5.0}, relative=relative)
        layer = bd.ODE(field, {"y": 1.0}, rtol=1e-9, atol=1e-12)
        return float(layer(bd.inputs(data)).values["y"][-1])

    assert end(True) == pytest.approx(np.exp(-10.0), rel=1e-6)
    assert end(False) == pytest.approx(-9.0)
