"""Networks of Flax and Haiku inside a model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose

nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")
hk = pytest.importorskip("haiku", reason="Haiku is not installed")

INPUTS = {"place": (0.0, 1.0), "speed": (0.0, 2.0)}


class Perceptron(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(2, 5, rngs=rngs), nnx.Linear(5, 1, rngs=rngs)
        self.drop = nnx.Dropout(0.1, deterministic=True, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(jnp.tanh(self.hidden(x))))


def flax():
    module = Perceptron(nnx.Rngs(0))
    return bd.networks.from_flax(module), module


def haiku(transform=hk.transform):
    transformed = transform(lambda x: hk.nets.MLP([5, 1], activation=jnp.tanh)(x))
    params = transformed.init(jax.random.key(0), jnp.ones(2))
    return bd.networks.from_haiku(transformed, params), lambda x: transformed.apply(params, None, x)


@pytest.mark.thorough
@pytest.mark.parametrize("make", [flax, haiku])
def test_it_says_what_the_network_says(make):
    adapted, original = make()
    x = jnp.asarray([0.3, -1.2])
    np.testing.assert_allclose(adapted(x), original(x), rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(adapted))(jnp.stack([x, -x]))[1], original(-x), rtol=1e-5
    )


@pytest.mark.thorough("flax-module.arrays.hidden.kernel")
@pytest.mark.parametrize(
    ("make", "kernel"),
    [(flax, "module.arrays.hidden.kernel"), (haiku, "module.arrays.mlp.linear_0.w")],
)
def test_its_arrays_are_random_with_the_fan_in_of_their_layer(make, kernel):
    network = bd.Network(make()[0], INPUTS, ("speed",))
    found = bd.random.paths(network)
    assert found[kernel].shape == (5, 2)
    np.testing.assert_allclose(found[kernel].distribution.variance, 1 / 2)
    assert len(found) == 4 and {leaf.group for leaf in found.values()} == {"network"}


def test_the_same_weights_say_the_same_as_in_equinox():
    mlp = eqx.nn.MLP(2, 1, 5, 1, jnp.tanh, key=jax.random.key(1))
    adapted = flax()[0]
    first, last = mlp.layers
    arrays = {
        "hidden.kernel": first.weight,
        "hidden.bias": first.bias,
        "out.kernel": last.weight,
        "out.bias": last.bias,
    }
    moved = eqx.tree_at(lambda a: a.arrays, adapted, arrays)
    x = jnp.asarray([0.3, -1.2])
    np.testing.assert_allclose(moved(x), mlp(x), rtol=1e-6)


TIMES = np.linspace(0.0, 3.0, 12)
DATA = xr.Dataset({"speed": ("time", np.exp(-0.7 * TIMES))}, {"time": TIMES})


def in_a_solver(make):
    network = bd.Network(make()[0], {"speed": (0.5, 0.3), "t": (1.5, 1.0)}, ("speed",), scale=0.5)
    layer = bd.ODE(
        bd.Residual(lambda t, y, u: {"speed": 0.0 * y["speed"]}, network),
        {"speed": dist.Normal(1.0, 0.1)},
    )
    return bd.Model(layer, bd.NormalNoise(0.05))


@pytest.mark.slow
@pytest.mark.parametrize("make", [flax, haiku])
def test_its_gradient_goes_through_a_solver(make):
    problem = pose(in_a_solver(make), DATA)
    of = jax.jit(jax.value_and_grad(problem.log_density))
    x = 0.3 * np.random.default_rng(0).normal(size=problem.dimension)
    direction, step = np.random.default_rng(1).normal(size=problem.dimension), 1e-5
    slope = (of(x + step * direction)[0] - of(x - step * direction)[0]) / (2 * step)
    gradient = np.asarray(of(x)[1])
    assert (gradient != 0).all()
    assert float(gradient @ direction) == pytest.approx(float(slope), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("make", [flax, haiku])
def test_it_is_fitted_inside_a_solver(make):
    model = in_a_solver(make)
    post = bd.fit(
        model,
        DATA,
        bd.DeepEnsemble(members=3, descent=bd.Descent(steps=200)),
        key=0,
        progress=False,
    )
    mean = bd.forecast(model, post, TIMES)["conditional_mean"]["speed"].mean(("chain", "draw"))
    assert float(np.abs(mean - DATA["speed"]).max()) < 0.15


def test_some_of_its_layers_may_stay_known():
    network = bd.Network(flax()[0], INPUTS, ("speed",), random=("arrays.out",))
    assert set(bd.random.paths(network)) == {"module.arrays.out.kernel", "module.arrays.out.bias"}


def test_refusals():
    class Normalised(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(2, rngs=rngs)

        def __call__(self, x):
            return self.norm(x)

    with pytest.raises(ModelError, match="batch normalisation"):
        bd.networks.from_flax(Normalised(nnx.Rngs(0)))
    with pytest.raises(ModelError, match=r"takes a flax\.nnx\.Module"):
        bd.networks.from_flax(jnp.tanh)
    with pytest.raises(ModelError, match="without state"):
        haiku(hk.transform_with_state)
    with pytest.raises(ModelError, match="takes what"):
        bd.networks.from_haiku(jnp.tanh, {})
