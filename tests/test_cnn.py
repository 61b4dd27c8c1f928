"""The convolutional competitor of partial differential equations: what it reads and keeps, and that it
learns a field.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.pde import Flux, Grid, Periodic
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths, realise

CELLS, SPEED, DIFFUSION = 16, 0.5, 0.003
LINE = Grid(x=(0.0, 1.0, CELLS))
TIMES = np.linspace(0.1, 1.0, 10)
PLANE = Grid(x=(0.0, 1.0, 6), depth=(0.0, 8.0, 5))


def pulse(at: float) -> np.ndarray:
    away = (LINE.centres("x") - at + 0.5) % 1 - 0.5
    return np.exp(-(away**2) / (2 * 0.1**2))


def carried(start: np.ndarray) -> np.ndarray:
    """Advection and diffusion of a periodic field, in closed form."""
    k = 2 * np.pi * np.fft.rfftfreq(CELLS, 1 / CELLS)
    each = [np.exp(-(1j * SPEED * k + DIFFUSION * k**2) * t) for t in TIMES]
    return np.stack([np.fft.irfft(np.fft.rfft(start) * factor, CELLS) for factor in each])


def science(**more) -> bd.Model:
    law = bd.pde.FiniteVolume(
        LINE, bd.between(0.001, 0.01), bd.between(0.1, 1.0), boundary=Periodic(), limiter="upwind"
    )
    options = {"rtol": 1e-4, "atol": 1e-4, "max_steps": 300, "start": 0.0} | more
    layer = bd.pde.PDE(law, {"c": pulse(0.3)}, **options)
    return bd.Model(layer, bd.NormalNoise(dist.LogNormal(-3.0, 0.5)))


def seen() -> xr.Dataset:
    noise = 0.02 * np.random.default_rng(0).normal(size=(10, CELLS))
    return xr.Dataset(
        {"c": (("time", "x"), carried(pulse(0.3)) + noise)}, {"time": TIMES, "x": LINE.centres("x")}
    )


def channel(boundary=None, observe=None, **more) -> bd.Model:
    """Two fields between walls, periodic along one axis, of which one is warmed by a forcing."""
    law = bd.pde.FiniteVolume(
        PLANE,
        dist.LogNormal(-3.0, 0.1),
        reaction=lambda t, y, u: {"heat": u["sun"], "salt": -0.1 * y["salt"]},
        boundary=boundary or {"x": Periodic(), "depth": Flux(0.0)},
    )
    layer = bd.pde.PDE(
        law,
        {"heat": 0.0, "salt": dist.LogNormal(0.0, 0.1)},
        observe,
        forcings="sun",
        rtol=1e-3,
        atol=1e-3,
        **more,
    )
    return bd.Model(layer, bd.NormalNoise(0.1))


def warmed(**more) -> xr.Dataset:
    values = np.random.default_rng(0).normal(3.0, 2.0, (4, 6, 5))
    fields = {name: (("time", "x", "depth"), values) for name in ("heat", "salt")}
    places = {name: PLANE.centres(name) for name in PLANE.names}
    return xr.Dataset(
        fields | {"sun": ("time", [1.0, 3.0, 1.0, 3.0])} | more, {"time": np.arange(4.0), **places}
    )


@pytest.fixture(scope="module")
def line() -> bd.Model:
    return bd.baselines.named(science(), seen(), "cnn")["cnn"]


@pytest.fixture(scope="module")
def between_walls() -> bd.Model:
    return bd.baselines.cnn(channel(), warmed())


def drawn(model: bd.Model) -> bd.Model:
    return realise(
        model,
        {path: values[0] for path, values in draw_prior(model, 1, key=jax.random.key(1)).items()},
    )


def test_weights_take_the_place_of_the_law_and_all_else_stays(line):
    found = drawn(line)
    groups = {path: leaf.group for path, leaf in paths(line).items()}
    assert groups.pop("noise.scale") == "science"
    assert {*groups.values()} == {"network"} and len(groups) == 5  # of three layers
    assert sum(int(np.prod(leaf.shape)) for path, leaf in paths(line).items()) == 32 + 200 + 24 + 1
    at = np.array([0.2, 0.55])
    prediction = eqx.filter_jit(found.layer)(
        found.inputs(seen().isel(x=[0, 1]).assign_coords(x=at))
    )
    assert bool(prediction.ok) and prediction.values["c"].shape == (10, 2)
    assert np.isfinite(prediction.values["c"]).all()


def test_on_a_periodic_grid_a_field_that_begins_elsewhere_takes_the_same_course_there(line):
    found, inputs = drawn(line), line.inputs(seen())
    begun = lambda start: eqx.tree_at(lambda layer: layer.initial["c"], found.layer, start)  # noqa: E731
    course = jax.jit(lambda start: begun(start)(inputs).values["c"])
    first = course(jnp.asarray(pulse(0.3)))
    assert np.abs(first[-1] - pulse(0.3)).max() > 0.05  # it moves
    np.testing.assert_allclose(
        course(jnp.roll(pulse(0.3), 5)), jnp.roll(first, 5, axis=1), atol=1e-12
    )


@pytest.mark.thorough("between_walls-modes1")
@pytest.mark.parametrize(
    ("name", "modes"), [("line", ["wrap"]), ("between_walls", ["wrap", "edge"])]
)
def test_the_network_is_that_of_equinox(name, modes, request):
    field = drawn(request.getfixturevalue(name)).layer.vector_field
    first = x = jax.random.normal(jax.random.key(3), (len(field.inputs), *field.grid.shape))
    for i, layer in enumerate(field.network.layers):
        x = jnp.tanh(x) if i else x
        for axis, mode in enumerate(modes, start=1):
            x = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)], mode=mode)
        x = layer(x)
    np.testing.assert_allclose(field.network(first), x, rtol=1e-10, atol=1e-12)


def test_coordinates_are_read_across_walls_alone_and_forcings_everywhere(between_walls):
    field = drawn(between_walls).layer.vector_field
    assert [*field.inputs] == ["heat", "salt", "sun", "depth"]
    assert field.inputs["depth"] == (4.0, 2.0) and field.inputs["sun"] == (2.0, 1.0)
    assert field.inputs["heat"] == pytest.approx(
        (3.0, 2.0), rel=0.3
    )  # as was seen, not as the science has it
    salt = jax.random.normal(jax.random.key(2), PLANE.shape)

    def rates(salt, sun=1.0):
        return field(0.0, {"heat": jnp.ones(PLANE.shape), "salt": salt}, {"sun": jnp.asarray(sun)})

    plain = rates(salt)
    assert {name: rate.shape for name, rate in plain.items()} == {"heat": (6, 5), "salt": (6, 5)}
    for name, rate in plain.items():
        np.testing.assert_allclose(
            rates(jnp.roll(salt, 2, axis=0))[name], jnp.roll(rate, 2, axis=0), atol=1e-12
        )
        assert (
            np.abs(rates(jnp.roll(salt, 2, axis=1))[name] - jnp.roll(rate, 2, axis=1)).max() > 1e-3
        )
        assert np.abs(rates(salt, 2.0)[name] - rate).max() > 1e-3


def test_rates_are_measured_in_those_of_the_science_and_bounded(between_walls):
    field = drawn(between_walls).layer.vector_field
    # Between closed walls the sun alone warms, everywhere alike; salt goes at a tenth of what is
    # left of about 1.
    assert field.units["heat"] == pytest.approx(np.sqrt(5.0))
    assert 0.05 < field.units["salt"] < 0.15
    huge = field(
        0.0, dict.fromkeys(("heat", "salt"), jnp.full(PLANE.shape, 1e9)), {"sun": jnp.ones(())}
    )
    last = field.network.layers[-1]
    most = jnp.sum(jnp.abs(last.weight), axis=(1, 2, 3))
    for i, name in enumerate(field.units):
        assert np.abs(huge[name]).max() <= field.units[name] * most[i] * (1 + 1e-12)


def test_data_in_other_units_are_converted():
    stated = channel(units={"heat": "m", "sun": "m"})
    kilo = lambda dims, values: (dims, values / 1000, {"units": "km"})  # noqa: E731
    plain = warmed()
    given = warmed(
        heat=kilo(("time", "x", "depth"), plain["heat"].values),
        sun=kilo("time", plain["sun"].values),
    )
    field = bd.baselines.cnn(stated, given).layer.vector_field
    assert field.inputs["heat"] == pytest.approx(
        (float(plain["heat"].mean()), float(plain["heat"].std()))
    )
    assert field.units["heat"] == pytest.approx(np.sqrt(5.0))


@pytest.mark.thorough
def test_what_leaves_through_a_side_is_observed_as_before():
    sides = {"x": Periodic(), "depth_low": Flux(0.0), "depth_high": Flux(0.2)}
    leaving = channel(sides, lambda t, y, u: {"loss": u["heat_outflow_depth_high"]})
    data = xr.Dataset(
        {"loss": ("time", np.ones(4)), "sun": warmed()["sun"]}, {"time": np.arange(4.0)}
    )
    competitor = bd.baselines.cnn(leaving, data)
    assert competitor.layer.vector_field.inputs["heat"][1] > 0  # of the science, for nobody saw it
    warm = {"heat": jnp.ones(PLANE.shape), "salt": jnp.ones(PLANE.shape)}
    flows = drawn(competitor).layer.vector_field.outflow(0.0, warm, {"sun": jnp.ones(())})
    assert competitor.layer.outputs == ("loss",) and float(
        flows["heat_outflow_depth_high"]
    ) == pytest.approx(0.2)


def test_a_solve_that_fails_is_a_value(line):
    short = dataclasses.replace(drawn(line).layer, max_steps=1)
    prediction = eqx.filter_jit(short)(line.inputs(seen()))
    assert not bool(prediction.ok) and np.isfinite(prediction.values["c"]).all()


@pytest.mark.thorough
def test_an_ensemble_learns_how_a_field_is_carried_wherever_it_begins(line):
    engine = bd.DeepEnsemble(
        members=2, bootstrap=False, descent=bd.Descent(steps=400, patience=None)
    )
    post = bd.fit(line, seen(), engine, key=0, progress=False)
    elsewhere = eqx.tree_at(lambda m: m.layer.initial["c"], line, pulse(0.7))
    for at, asked in {0.3: line, 0.7: elsewhere}.items():
        draws = bd.forecast(asked, post, seen(), what_if=asked is not line, key=0)["predictions"][
            "c"
        ]
        error = lambda said, at=at: np.sqrt(np.mean((said - carried(pulse(at))) ** 2))  # noqa: E731
        assert error(draws.mean(("chain", "draw")).values) < 0.25 * error(
            pulse(at)
        )  # that of a field that stays


def test_fixed_science_of_a_field_has_the_medians_of_its_priors():
    found = bd.baselines.named(science(), seen(), "fixed")["fixed"]
    assert [*paths(found)] == ["noise.scale"]
    assert found.layer.vector_field.diffusion == pytest.approx(np.sqrt(0.001 * 0.01), rel=0.05)


def test_what_cannot_be_made_is_said():
    for name in ("mlp", "transformer", "gaussian_process", "neural_ode", "pinn"):
        with pytest.raises(
            ModelError,
            match=r"dimensions x; of the fields of a bd\.pde\.PDE there are 'cnn' and 'fixed'",
        ):
            bd.baselines.named(science(), seen(), name)
    series = bd.ODE(lambda t, y, u: {"c": -y["c"]}, {"c": dist.Normal(1.0, 0.1)})
    members = bd.Each(
        bd.ODE(series.vector_field, {"c": bd.varying(dist.Normal(1.0, 0.1))}), members=[1, 2]
    )
    for layer in (series, members):
        with pytest.raises(
            ModelError,
            match=f"a CNN takes the place of a bd.pde.PDE, not of this {type(layer).__name__}",
        ):
            bd.baselines.cnn(bd.Model(layer, bd.NormalNoise(0.1)), seen())
    with pytest.raises(ModelError, match="the kernel odd"):
        bd.baselines.cnn(science(), seen(), kernel=4)
    with pytest.raises(ModelError, match="through none of 8 prior draws"):
        bd.baselines.cnn(science(max_steps=1), seen())
    still = bd.pde.PDE(bd.pde.FiniteVolume(LINE, 0.1, boundary=Flux(0.0)), {"c": 1.0})
    with pytest.raises(ModelError, match="the rate of 'c' is 0 under the prior"):
        bd.baselines.cnn(bd.Model(still, bd.NormalNoise(dist.HalfNormal(0.1))), seen())
