"""Competitors: what a hybrid is compared with."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import small_study
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths, realise

TIMES = np.arange(20.0)
SERIES = ("mlp", "transformer", "gaussian_process", "neural_ode", "pinn")


class Bucket(bd.Module):
    """A level that rain fills and that runs out; what is observed hangs on a number of its own."""

    rate: bd.Scalar
    gauge: bd.Scalar

    def __call__(self, t, y, u):
        return {"level": u["rain"] - self.rate * y["level"]}

    def observe(self, t, y, u):
        return {"height": self.gauge * y["level"]}


def bucket(initial=None, noise=None, **more) -> bd.Model:
    equations = Bucket(bd.between(0.1, 0.9), dist.LogNormal(0.0, 0.1))
    layer = bd.ODE(
        equations,
        {"level": initial or dist.Normal(1.0, 0.5)},
        Bucket.observe,
        forcings="rain",
        **more,
    )
    return bd.Model(layer, noise or bd.NormalNoise(dist.LogNormal(-2.0, 0.5)))


def rainy(**more) -> xr.Dataset:
    rain = np.where(TIMES % 5 == 2, 2.0, 0.1)
    level = [1.0]
    for fallen in rain[:-1]:
        level.append(0.7 * level[-1] + fallen)
    columns = {"rain": rain, "height": np.asarray(level)} | more
    return xr.Dataset({name: ("time", values) for name, values in columns.items()}, {"time": TIMES})


def predicted(model: bd.Model, data: xr.Dataset, key: int = 0):
    drawn = draw_prior(model, 1, key=jax.random.key(key))
    realised = realise(model, {path: values[0] for path, values in drawn.items()})
    return realised.layer(model.inputs(data))


def test_science_that_is_fixed_has_the_medians_of_its_priors_and_all_else_stays_unknown():
    closure = bd.Network.mlp({"level": (2.0, 1.0)}, ("level",), 0.1)
    model = bucket()
    hybrid = eqx.tree_at(
        lambda m: m.layer.vector_field, model, bd.Residual(model.layer.vector_field, closure)
    )
    hybrid = eqx.tree_at(lambda m: m.layer.observe, hybrid, lambda t, y, u: {"height": y["level"]})
    found = bd.baselines.fixed(hybrid)
    assert found.layer.vector_field.science.rate == pytest.approx(
        0.3, rel=0.05
    )  # the middle of 0.1 to 0.9
    assert {leaf.group for path, leaf in paths(found).items() if "vector_field" in path} == {
        "network"
    }
    assert {"layer.initial.level", "noise.scale"} <= {*paths(found)}


def test_of_numbers_that_are_worked_out_those_of_the_science_are_fixed():
    half = bd.shared(dist.LogNormal(-1.0, 0.1), "half")
    equations = Bucket(2 * half, dist.LogNormal(0.0, 0.1))
    model = bucket(initial=bd.dependent(jnp.exp, dist.Normal(0.0, 0.5)))
    model = eqx.tree_at(lambda m: m.layer.vector_field, model, equations)
    found = bd.baselines.fixed(model)
    assert float(found.layer.vector_field.rate) == pytest.approx(2 * np.exp(-1.0), rel=0.02)
    assert len([path for path in paths(found) if "initial" in path]) == 1


def test_where_science_has_no_unknown_numbers_there_is_nothing_to_fix():
    known = eqx.tree_at(lambda m: m.layer.vector_field, bucket(), Bucket(0.3, 1.0))
    with pytest.raises(ModelError, match="nothing to fix"):
        bd.baselines.fixed(known)


@pytest.mark.thorough("transformer", "gaussian_process", "neural_ode", "pinn")
@pytest.mark.parametrize("name", SERIES)
def test_a_rival_predicts_the_same_observables_from_the_same_forcings(name):
    data = rainy()
    competitor = bd.baselines.named(bucket(), data, name)[name]
    found = predicted(competitor, data)
    assert (
        bool(found.ok)
        and {*found.values} == {"height"}
        and found.values["height"].shape == TIMES.shape
    )
    assert np.isfinite(found.values["height"]).all() and competitor.layer.forcings == ("rain",)
    assert any(leaf.group == "network" for leaf in paths(competitor).values())
    assert ("layer.ode.vector_field.rate" in paths(competitor)) == (
        name == "pinn"
    )  # that one solves for science
    beside = [path for path in paths(competitor) if path.endswith("equations.gauge")]
    assert len(beside) == (name == "neural_ode")  # which is observed by a method of the equations


@pytest.mark.thorough("neural_ode", "pinn")
@pytest.mark.parametrize("name", ["mlp", "neural_ode", "pinn"])
def test_what_is_positive_stays_so(name):
    positive = bucket(dist.LogNormal(0.0, 0.5), bd.LogNormalNoise(0.1))
    competitor = bd.baselines.named(positive, rainy(), name)[name]
    assert all((predicted(competitor, rainy(), key).values["height"] > 0).all() for key in range(3))


def test_of_counts_among_trials_a_share_is_predicted():
    counts = bucket(noise=bd.noise.BinomialNoise(20))
    competitor = bd.baselines.mlp(counts, rainy(height=np.full(20, 5.0)))
    share = predicted(competitor, rainy()).values["height"]
    assert ((share > 0) & (share < 1)).all()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["mlp", "pinn"])
def test_dates_are_counted_as_the_layer_does(name):
    dated = rainy().assign_coords(time=np.datetime64("2001-01-01") + TIMES.astype("m8[D]"))
    competitor = bd.baselines.named(bucket(units={"time": "days since 2001-01-01"}), dated, name)[
        name
    ]
    network = competitor.layer.network if name == "pinn" else competitor.layer.function.function
    assert network.inputs["t"][0] == pytest.approx(9.5)


@pytest.mark.thorough
def test_a_transformer_looks_at_the_forcings_before_and_at_none_after():
    competitor = bd.baselines.transformer(bucket(), rainy(), window=4)
    at = lambda rain: predicted(competitor, rainy(rain=rain)).values["height"]  # noqa: E731
    usual, changed = rainy()["rain"].values, rainy()["rain"].values.copy()
    changed[10] += 3.0
    moved = np.abs(np.asarray(at(changed) - at(usual))) > 1e-12
    assert np.flatnonzero(moved).tolist() == [10, 11, 12, 13]


@pytest.mark.thorough
def test_a_transformer_says_the_same_at_a_time_whatever_others_are_asked_for():
    competitor = bd.baselines.transformer(bucket(), rainy(), window=4)
    every = predicted(competitor, rainy()).values["height"]
    realised = realise(
        competitor, {p: v[0] for p, v in draw_prior(competitor, 1, key=jax.random.key(0)).items()}
    )
    inputs = competitor.inputs(rainy())
    few = realised.layer(eqx.tree_at(lambda i: i.times, inputs, inputs.times[::7]))
    np.testing.assert_allclose(few.values["height"], every[::7])


def test_a_transformer_needs_a_series():
    rows = bd.Model(bd.Algebraic(lambda t, y, u: {"y": t}, index="sample"), bd.NormalNoise(0.1))
    with pytest.raises(ModelError, match="needs a series"):
        bd.baselines.transformer(rows, xr.Dataset({"y": ("sample", TIMES)}, {"sample": TIMES}))


def test_what_breaks_the_equation_is_measured_in_the_rates_that_it_allows():
    """A network of no weights stands still, where the equation says that the level runs out."""
    with pytest.raises(ModelError, match="at least one point"):
        bd.baselines.pinn(bucket(), rainy(), points=0)
    competitor = bd.baselines.pinn(bucket(), rainy(), points=8, tolerance=0.1)
    drawn = draw_prior(competitor, 1, key=jax.random.key(0))
    still = {path: jnp.zeros_like(v[0]) if "network" in path else v[0] for path, v in drawn.items()}
    layer, inputs = realise(competitor, still).layer, competitor.inputs(rainy())
    found = layer(inputs)
    level, rate = still["layer.ode.initial.level"], still["layer.ode.vector_field.rate"]
    rain = np.interp(np.linspace(0.0, 19.0, 8), TIMES, rainy()["rain"].values)
    expected = -(rain - rate * level) / layer.allowed["level"]
    np.testing.assert_allclose(found.constraint_residuals["equation of level"], expected, rtol=1e-6)
    np.testing.assert_allclose(
        found.values["height"], still["layer.ode.vector_field.gauge"] * level
    )


@pytest.mark.thorough
def test_a_pinn_finds_the_rate_and_the_course_of_a_decay():
    data = small_study.load()
    competitor = bd.baselines.pinn(small_study.model(), data, points=24, width=8)
    engine = bd.DeepEnsemble(
        members=4, descent=bd.Descent(steps=3000, patience=None), bootstrap=False
    )
    post = bd.fit(competitor, data, engine, key=0, progress=False)
    assert float(post["posterior"]["rate"].median()) == pytest.approx(0.3, abs=0.03)
    held = bd.forecast(competitor, post, data, key=0)["predictions"]["y"].median(("chain", "draw"))
    assert np.abs(held.values - 10.0 * np.exp(-0.3 * data["time"].values)).max() < 0.5


def test_a_number_of_a_row_is_no_input():
    rows = bd.Model(
        bd.Algebraic(lambda t, y, u: {"y": u["speed"]}, index="row", forcings="speed"),
        bd.NormalNoise(0.1),
    )
    data = xr.Dataset({"y": ("row", TIMES), "speed": ("row", TIMES**2)}, {"row": TIMES})
    assert [*bd.baselines.mlp(rows, data).layer.function.function.inputs] == ["speed"]
    assert [*bd.baselines.gaussian_process(rows, data).layer.function.function.parts["y"]] == [
        "speed"
    ]
    depths = data.assign_coords(row=("row", TIMES, {"units": "m"}))
    assert [
        *bd.baselines.mlp(rows, depths.isel(row=slice(5, None))).layer.function.function.inputs
    ] == [
        "t",
        "speed",
    ]
    places = data.assign_coords(
        row=np.sqrt(TIMES)
    )  # that these are numbers of rows nobody would say
    assert [*bd.baselines.mlp(rows, places).layer.function.function.inputs] == [
        "t",
        "speed",
    ]


def test_equations_with_jumps_are_nothing_for_rivals_that_know_rates_alone():
    jumping = bd.ODE(
        lambda t, y, u: {"y": -y["y"]}, {"y": dist.Normal(1.0, 0.1)}, jumps=bd.Jump(2.0, {"y": 1.0})
    )
    model = bd.Model(jumping, bd.NormalNoise(0.1))
    for make in (bd.baselines.neural_ode, bd.baselines.pinn):
        with pytest.raises(ModelError, match="without jumps"):
            make(model, xr.Dataset({"y": ("time", TIMES)}, {"time": TIMES}))


def test_what_cannot_be_made_is_said():
    with pytest.raises(ModelError, match="no baseline called 'mpl'"):
        bd.baselines.named(bucket(), rainy(), "mpl")
    with pytest.raises(DataError, match="'height' has no value"):
        bd.baselines.mlp(bucket(), rainy(height=np.full(20, np.nan)))


@pytest.fixture(scope="module")
def several():
    """Buckets of three places, which differ by how fast they run out, and one of which was not
    always looked at.
    """
    heights = np.stack([rainy()["height"].values * factor for factor in (0.5, 1.0, 3.0)], axis=1)
    heights[4:9, 1] = np.nan
    columns = {"rain": ("time", rainy()["rain"].values), "height": (("time", "place"), heights)}
    data = xr.Dataset(columns, {"time": TIMES, "place": ["a", "b", "c"]})
    rate = bd.population(bd.between(0.1, 0.9), dist.HalfNormal(0.5))
    equations = Bucket(rate, dist.LogNormal(0.0, 0.1))
    layer = bd.ODE(equations, {"level": dist.Normal(1.0, 0.5)}, Bucket.observe, forcings="rain")
    noise = bd.NormalNoise(dist.LogNormal(-2.0, 0.5))
    return bd.Model(bd.Each(layer, data["place"].values, "place"), noise), data


class TestOfAPopulation:
    @pytest.mark.thorough("mlp")
    @pytest.mark.parametrize("name", ["mlp", "gaussian_process"])
    def test_members_are_told_apart(self, several, name):
        model, data = several
        competitor = bd.baselines.named(model, data, name)[name]
        found = predicted(competitor, data).values["height"]
        assert found.shape == (20, 3) and bool(jnp.isfinite(found).all())
        apart = found - found.mean(axis=1, keepdims=True)
        assert float(jnp.abs(apart).min(axis=0).max()) > 1e-3
        assert (float(jnp.ptp(apart, axis=0).max()) < 1e-9) == (
            name == "gaussian_process"
        )  # a level is all it has

    def test_noise_that_differs_between_members_still_does(self, several):
        model, data = several
        own = bd.Model(model.layer, bd.NormalNoise(bd.varying(dist.HalfNormal(0.3))))
        assert own.varied_noise and bd.baselines.mlp(own, data).varied_noise == own.varied_noise

    def test_science_may_be_fixed_for_all(self, several):
        assert not any("rate" in path for path in paths(bd.baselines.fixed(several[0])))

    def test_others_say_which_there_are(self, several):
        with pytest.raises(
            ModelError,
            match="place; of a population there are 'fixed', 'mlp' and 'gaussian_process'",
        ):
            bd.baselines.named(*several, "transformer")

    @pytest.mark.thorough
    def test_a_network_learns_what_members_are_like(self, several):
        """Its errors are a small part of what places differ by."""
        model, data = several
        data = data.assign(height=np.exp(-data["time"] / 10) * data["height"].mean("time"))
        competitor = bd.baselines.named(model, data, "mlp")["mlp"]
        post = bd.fit(
            competitor,
            data,
            bd.DeepEnsemble(members=2, descent=bd.Descent(steps=1000)),
            progress=False,
        )
        table = bd.score(bd.forecast(competitor, post, data), data)
        assert table.loc["height", "rmse"] < 0.3 * float(data["height"].mean("time").std())
