"""Coordinates in which the last layers of networks are nearly normal: the posterior stays what it
is.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import pose
from bayes_dasl.inference.gradient import traced_once
from bayes_dasl.inference.reparametrisations import (
    gradient_matching as _matching,
    reference as _reference,
)
from bayes_dasl.inference.reparametrisations.conditional import LinearModel, last_layer
from bayes_dasl.layers import AbstractTrajectory, Prediction
from bayes_dasl.layers.layer import at_states, named_trajectories, trajectories


@pytest.fixture(scope="module")
def posed():
    problem = pose(small.stepped(), small.data())
    linear = LinearModel(problem, *last_layer(problem))
    references = _reference.References(linear)
    x = np.asarray(problem.prior(40, key=jax.random.key(1)))
    matched = _matching.Matching(problem).optimise(x)
    frame = references.restored(references.from_draws(matched[:8]))
    return problem, references, frame, matched


@pytest.mark.thorough
def test_a_position_comes_back_from_its_coordinates(posed):
    _, _, frame, x = posed
    there_and_back = jax.vmap(lambda x: (xi := frame.inverse(x), frame.forward(xi)[0]))
    xi, back = jax.jit(there_and_back)(jnp.asarray(x))
    np.testing.assert_allclose(back, x, atol=1e-9)
    assert np.abs(np.asarray(xi) - x).max() > 0.1  # they are no longer the same


@pytest.mark.thorough
def test_the_log_volume_is_that_of_the_jacobian(posed):
    _, _, frame, x = posed
    volumes = jax.jit(
        jax.vmap(lambda xi: (frame.forward(xi)[1], jax.jacfwd(lambda q: frame.forward(q)[0])(xi)))
    )
    said, jacobians = volumes(jnp.asarray(x[:4]))
    np.testing.assert_allclose(said, np.linalg.slogdet(jacobians)[1], atol=1e-9)


@pytest.mark.slow
def test_gradients_change_with_the_frame_as_the_density_does(posed):
    problem, references, frame, x = posed
    _, log_density = traced_once(problem)
    other = references.restored(references.from_draws(x[8:20]))
    xi = jnp.asarray(x[:3])
    of = jax.jit(
        jax.vmap(jax.value_and_grad(lambda q, frame: frame.log_density(log_density, q)), (0, None))
    )
    lp, slope = of(xi, frame)
    moved, new_lp, new_slope = _frame.entered(
        other, *_frame.left(frame, *map(np.asarray, (xi, lp, slope)))
    )
    expected = of(jnp.asarray(moved), other)
    np.testing.assert_allclose(new_lp, expected[0], rtol=1e-8)
    np.testing.assert_allclose(
        new_slope, expected[1], rtol=1e-5, atol=1e-5 * np.abs(expected[1]).max()
    )


@pytest.mark.thorough
def test_predictions_without_a_solve_are_right_to_first_order(posed):
    problem, _, frame, x = posed
    linear, at = frame.linear, jnp.asarray(x[0])
    away = jax.random.normal(jax.random.key(2), at.shape)

    # The reference itself is the path of the position.
    references = _reference.References(linear)
    own = references.restored(references.from_draws(np.asarray(at)[None]))

    @jax.jit
    def error(size):
        """Of the first order, and the change itself."""
        realised = linear.realised(at + size * away)
        values, changes = linear.predicted(realised, own.paths)
        true = realised.predict(problem.inputs).values["y"]
        return jnp.abs(values["y"] + changes["y"] - true).max(), jnp.abs(changes["y"]).max()

    (wide, change), (narrow, _) = error(0.1), error(0.05)
    assert wide < 0.2 * change
    assert narrow < 0.35 * wide  # a quarter, if what is left out is of second order


@pytest.mark.thorough
def test_where_data_are_linear_in_the_weights_their_coordinates_are_standard_normal():
    """A network without a solve: nothing but the slack is left out."""
    net = bd.Network(eqx.nn.MLP(1, 1, 4, 1, jnp.tanh, key=jax.random.key(0)), ("x",), ("y",))
    model = bd.Model(bd.Algebraic(net, forcings=("x",)), bd.NormalNoise(0.1))
    x = np.linspace(-2, 2, 20)
    y = np.sin(x) + 0.1 * np.random.default_rng(0).normal(size=20)
    problem = pose(
        model, xr.Dataset({"x": ("time", x), "y": ("time", y)}, coords={"time": np.arange(20.0)})
    )
    last = last_layer(problem)
    references = _reference.References(LinearModel(problem, *last))
    frame = references.restored(
        references.from_draws(np.asarray(problem.prior(8, key=jax.random.key(0))))
    )
    exact = eqx.tree_at(lambda f: f.slack, frame, jax.tree.map(jnp.zeros_like, frame.slack))
    _, log_density = traced_once(problem)
    xi, at = problem.prior(3, key=jax.random.key(1)), references.linear.weights
    slopes = jax.jit(jax.vmap(jax.grad(lambda q: exact.log_density(log_density, q))))(xi)
    np.testing.assert_allclose(slopes[:, at], -xi[:, at], atol=1e-6)


def deep(**options):
    """A network of two hidden layers, of seven each, in a formula."""
    net = bd.Network(
        eqx.nn.MLP(1, 1, 7, 2, jnp.tanh, key=jax.random.key(0)), ("x",), ("y",), **options
    )
    model = bd.Model(bd.Algebraic(net, forcings=("x",)), bd.NormalNoise(dist.LogNormal(-2.0, 0.5)))
    x = np.linspace(-2, 2, 20)
    return pose(
        model, xr.Dataset({"x": ("time", x), "y": ("time", x)}, coords={"time": np.arange(20.0)})
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options", [{"scale": dist.HalfNormal(1.0)}, {"prior": bd.networks.sparse(2.0)}]
)
def test_slopes_by_last_weights_are_those_through_the_whole_position(options, monkeypatch):
    problem = deep(**options)
    references = _reference.references_of(problem)
    x = np.asarray(problem.prior(4, key=jax.random.key(0)))
    frame = references.restored(references.from_draws(x))
    found = frame.normal(jnp.asarray(x[0]))
    whole = lambda self, x, weights: self.realised(x.at[self.weights].set(weights))  # noqa: E731
    monkeypatch.setattr(LinearModel, "reweighted", whole)
    for one, other in zip(found, frame.normal(jnp.asarray(x[0])), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.thorough
def test_slopes_by_last_weights_pass_through_no_hidden_layer():
    """Else each of these weights costs as much as the whole network."""
    problem = deep()
    references = _reference.references_of(problem)
    told = str(
        jax.make_jaxpr(references.linear.moments)(references.like, jnp.zeros(problem.dimension))
    )
    assert (
        "[7,7]" in told and "[8,1,7]" in told
    )  # a hidden layer; slopes by 8 weights of the last one
    assert "[8,7,7]" not in told


@pytest.mark.thorough
def test_last_layers_are_found_where_the_output_is_linear_in_them():
    problem = pose(small.model(), small.data())
    last = last_layer(problem)
    names = [problem.labels()[i] for i in last.indices]
    path = "layer.vector_field.closure.module.layers.1"
    assert names == [f"{path}.weight[{i}]" for i in range(3)] + [f"{path}.bias"]
    np.testing.assert_allclose(last.sd, [3**-0.5] * 3 + [1.0])
    bent = small.network(final_activation=jnp.tanh)
    assert last_layer(pose(small.model(bent), small.data())).indices == ()
    known = eqx.tree_at(lambda n: n.module.layers[1].bias, small.network(), jnp.zeros(1))
    assert len(last_layer(pose(small.model(known), small.data())).indices) == 3
    positive = eqx.tree_at(
        lambda n: n.module.layers[1].weight,
        small.network(),
        dist.HalfNormal(1.0).expand((1, 3)).to_event(2),
    )
    assert len(last_layer(pose(small.model(positive), small.data())).indices) == 1


@pytest.mark.thorough
def test_a_noise_head_is_no_part_of_the_frame():
    head = small.network(("log_scale",))
    noise = bd.NormalNoise(bd.noise.VaryingScale(dist.LogNormal(-3.0, 0.5), head))
    problem = pose(small.model(noise=noise), small.data())
    assert all("noise" not in problem.labels()[i] for i in last_layer(problem).indices)


def test_which_layers_can_be_given_their_states():
    layer = small.model().layer
    assert layer.trajectories == [layer]
    assert bd.Residual(layer, small.network()).trajectories == [layer]
    knots = dist.Normal(0.0, 1.0).expand((1,)).to_event(1)
    shooting = bd.equations.MultipleShooting(
        bd.ODE(small.Decay(0.5), {"y": 1.0}), (1.0,), {"y": knots}, 0.1
    )
    assert shooting.trajectories is None
    assert bd.Residual(shooting, small.network()).trajectories is None


def test_given_the_states_nothing_is_solved():
    layer = small.model().layer
    realised = bd.ODE(small.Decay(0.5), {"y": 2.0})
    model = bd.Model(realised, bd.NormalNoise(dist.HalfNormal(1.0)))
    assert len(trajectories(layer)) == 1
    states = {"y": jnp.arange(3.0)}
    inputs = bd.inputs(xr.Dataset(coords={"time": [0.0, 1.0, 2.0]}))
    prediction = at_states(model, [states]).layer(inputs)
    np.testing.assert_array_equal(prediction.values["y"], states["y"])
    assert int(prediction.stats["steps"]) == 0


class Halved(bd.ODE):
    """An ODE of one's own, whose clock runs at half the speed."""

    def solve(self, inputs, initial):
        return super().solve(dataclasses.replace(inputs, times=inputs.times / 2), initial)


class RungeKutta(AbstractTrajectory):
    """A trajectory of one's own: classical steps between the times of the data, by no solver of the
    package.
    """

    vector_field: bd.Residual
    initial: dict
    observe: None = None
    forcings = ()
    units = {}  # noqa: RUF012

    @property
    def outputs(self):
        return tuple(self.initial)

    @property
    def states(self):
        return len(self.initial)

    def __call__(self, inputs):
        return self.predict(inputs, *self.solve(inputs, self.begin(inputs)))

    def begin(self, inputs):
        return {name: jnp.asarray(value, float) for name, value in self.initial.items()}

    def solve(self, inputs, initial):
        def step(y, span):
            return (
                after := small.runge_kutta(lambda t, y: self.vector_field(t, y, {}), *span, y)
            ), after

        spans = jnp.concatenate([inputs.start[None], inputs.times[:-1]]), inputs.times
        return (
            jax.lax.scan(step, initial, spans)[1],
            jnp.asarray(True),
            jnp.asarray(inputs.times.size),
        )

    def predict(self, inputs, states, ok, steps):
        return Prediction(dict(states), jnp.asarray(ok), {"steps": steps})

    def rates_along(self, inputs, times, states):
        return jax.vmap(lambda t, y: dict(self.vector_field(t, y, {})))(times, states)


def residual():
    return bd.Residual(small.Decay(dist.LogNormal(np.log(small.RATE), 0.3)), small.network())


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [pytest.param(Halved, marks=pytest.mark.slow), RungeKutta])
def test_a_trajectory_of_ones_own_has_these_coordinates(kind):
    """Found by what it is, not by its class: alone, and inside a hybrid."""
    layer = kind(residual(), {"y": dist.Normal(2.0, 0.2)})
    assert layer.trajectories == [layer]
    hybrid = bd.Residual(layer, small.network(scale=0.1))
    [(path, found)] = named_trajectories(hybrid)
    assert path and found is layer
    model = bd.Model(layer, bd.NormalNoise(dist.LogNormal(-3.0, 0.5)))
    problem = pose(model, small.data())
    references = _reference.references_of(problem)
    assert references is not None
    x = _matching.Matching(problem).optimise(np.asarray(problem.prior(4, key=jax.random.key(1))))
    frame = references.restored(references.from_draws(x[:1]))
    realised = references.linear.realised(jnp.asarray(x[0]))
    values, changes = references.linear.predicted(realised, frame.paths)
    np.testing.assert_allclose(
        values["y"] + changes["y"], realised.predict(problem.inputs).values["y"], atol=1e-4
    )
    states = {"y": jnp.arange(15.0)}
    np.testing.assert_array_equal(
        at_states(realised, [states]).layer(problem.inputs).values["y"], states["y"]
    )


@pytest.mark.thorough
def test_a_layer_that_says_that_it_solves_more_has_no_such_coordinates():
    class Secretive(bd.ODE):
        @property
        def trajectories(self):
            return None

    layer = Secretive(residual(), {"y": dist.Normal(2.0, 0.2)})
    assert (
        _reference.references_of(pose(bd.Model(layer, bd.NormalNoise(0.1)), small.data())) is None
    )


@pytest.mark.thorough
def test_matched_fields_agree_with_the_data_before_any_solve(posed):
    problem, _, _, matched = posed
    value = jax.jit(jax.vmap(problem.log_density))
    before, after = (
        np.asarray(value(x)) for x in (problem.prior(40, key=jax.random.key(1)), matched)
    )
    assert np.median(after) > 0
    assert np.median(after) > np.median(before) + 20
    assert np.isfinite(after).mean() > 0.9
