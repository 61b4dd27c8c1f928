"""NUTS for networks inside solvers: the same posterior as in the weights themselves, in better
coordinates.
"""

import dataclasses
import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from arviz_stats.base.array import array_stats

import bayes_dasl as bd
from bayes_dasl.inference import Journal, ProgressBar, pose
from bayes_dasl.inference.descent import members
from bayes_dasl.inference.nuts import nuts as sampler
from bayes_dasl.inference.reparametrisations.gradient_matching import Matching
from bayes_dasl.inference.reparametrisations.reference import (
    has_reference,
    matched_start,
    references_of,
)
from bayes_dasl.inference.reparametrisations.reparametrisation import Identity
from bayes_dasl.inference.starts import Optimiser
from bayes_dasl.layers import with_adjoint
from bayes_dasl.prediction import draws_of
from bayes_dasl.random import realise

# Of two chains the fewest effective draws are about the 200 that are asked for below.
SAMPLER = bd.NUTS(draws=300, map_starts=8, gradient="reverse")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tmp_path_factory.mktemp("conditional") / "run"


@pytest.fixture(scope="module")
def conditional(checkpoint):
    return bd.fit(small.stepped(), small.data(), SAMPLER, checkpoint=checkpoint, key=0)


@pytest.fixture(scope="module")
def plain():
    return bd.fit(
        small.stepped(), small.data(), dataclasses.replace(SAMPLER, reparametrisation="none"), key=1
    )


@eqx.filter_jit
def rates(model, draws):
    """The vector field at the same states for all draws."""
    states = jnp.asarray(2.0 / (1 + 0.6 * small.TIMES))
    return jax.vmap(
        lambda draw: realise(model, draw).layer.vector_field(0.0, {"y": states}, {})["y"]
    )(draws)


def functions(post):
    """What can be compared: the parameters, the trajectories and the vector field,
    `(chain, draw, quantity)`.

    The group `vector_field` is that at the mean states of a run itself: of two runs it would be
    compared at two places.
    """
    science = [post["posterior"][name].values[..., None] for name in ("rate", "initial.y", "scale")]
    model, trajectories = small.stepped(), post["conditional_mean"]["y"].values
    field = np.asarray(rates(model, draws_of(model, post)))
    return np.concatenate([*science, trajectories, field.reshape(trajectories.shape)], axis=-1)


def test_conditional_coordinates_are_chosen_where_a_network_sits_in_a_solver(conditional):
    assert conditional.attrs["sampled_in"] == "conditional coordinates"


@pytest.mark.slow
def test_both_coordinates_give_the_same_posterior(conditional, plain):
    """Means and standard deviations agree within four Monte-Carlo errors, whose sizes both runs
    say.
    """
    assert plain.attrs["sampled_in"] == "plain coordinates"
    found = {}
    for name, post in (("conditional", conditional), ("plain", plain)):
        values = functions(post)
        centred = (values - values.mean((0, 1))) ** 2
        found[name] = [
            (
                v.mean((0, 1)),
                v.std((0, 1))
                / np.sqrt(array_stats.ess(v, chain_axis=0, draw_axis=1, method="mean")),
            )
            for v in (values, centred)
        ]
    for (one, one_error), (other, other_error) in zip(*found.values(), strict=True):
        assert (np.abs(one - other) < 4 * np.hypot(one_error, other_error)).all()


def test_functions_mix(conditional):
    values = functions(conditional)
    assert np.max(array_stats.rhat(values, chain_axis=0, draw_axis=1)) < 1.02
    assert np.min(array_stats.ess(values, chain_axis=0, draw_axis=1)) > 200
    verdict = str(bd.diagnose(conditional))
    assert "R-hat of vector field" in verdict
    assert "weights" not in verdict


def test_log_densities_are_those_of_the_weights(conditional):
    problem = pose(small.stepped(), small.data())
    posterior = {v.attrs["path"]: v.values for v in conditional["posterior"].data_vars.values()}
    some = (np.array([0, 3]), np.array([0, 299]))
    density = jax.jit(jax.vmap(lambda values: problem.log_density(problem.unconstrain(values))))
    found = density({path: jnp.asarray(values[some]) for path, values in posterior.items()})
    np.testing.assert_allclose(found, conditional["sample_stats"]["lp"].values[some], atol=1e-6)


@pytest.mark.thorough  # not slow: the first run must be compiled with the same options
def test_a_resumed_run_has_the_draws_of_a_whole_one(conditional, checkpoint):
    steps = sorted(checkpoint.glob("*.step"))
    for path in steps[-3:]:
        path.unlink()
    again = bd.fit(small.stepped(), small.data(), SAMPLER, checkpoint=checkpoint, key=0)
    np.testing.assert_array_equal(functions(conditional), functions(again))


@pytest.mark.thorough
def test_a_network_whose_last_layer_is_bent_is_sampled_in_its_weights():
    bent = small.model(small.network(final_activation=jax.nn.softplus))
    assert references_of(pose(bent, small.data())) is None


@pytest.mark.thorough
def test_two_times_are_too_few_for_a_path():
    two, three = (pose(small.model(), small.data().isel(time=rows)) for rows in ([0, 7], [0, 5, 7]))
    assert references_of(two) is None
    assert has_reference(three)


@pytest.mark.thorough
def test_other_coordinates_or_another_start_move_in_the_weights(monkeypatch):
    problem = pose(small.stepped(), small.data())

    class Asked(Exception):
        """Raised where conditional coordinates are asked for."""

    class Passed(Exception):
        """Raised by what comes next."""

    def raising(error):
        def stopped(*_):
            raise error

        return stopped

    monkeypatch.setattr(sampler, "references_of", raising(Asked))
    monkeypatch.setattr(sampler, "laplace_metric", raising(Passed))
    for engine, wanted in (
        (bd.NUTS(), Asked),
        (bd.NUTS(reparametrisation="none"), Passed),
        (bd.NUTS(start="pathfinder"), Passed),
        (bd.NUTS(start=bd.DeepEnsemble()), Passed),
    ):
        with pytest.raises(wanted):
            engine.run(problem, key=jax.random.key(0), journal=Journal(), bar=ProgressBar(False))


def kernel_of(engine, network, monkeypatch):
    """The kernel of an engine's chains for an ODE with a network, without a draw."""
    asked = []

    class Stop(Exception):
        """Raised in place of chains."""

    def chains(kernel, *_, **__):
        asked.append(kernel)
        raise Stop

    monkeypatch.setattr(sampler, "Chains", chains)
    closure = network(("y",), ("y",), dist.HalfNormal(0.3))
    problem = pose(small.stepped(closure), small.data())
    with pytest.raises(Stop):
        engine.run(problem, key=jax.random.key(0), journal=Journal(), bar=ProgressBar(False))
    return asked[0]


@pytest.mark.parametrize(
    ("network", "wanted"),
    [(bd.Network.fourier, 0.1), (bd.Network.mlp, 0.2)],
)
def test_random_inner_weights_need_more_cautious_draws(monkeypatch, network, wanted):
    assert kernel_of(SAMPLER, network, monkeypatch).cautious == wanted


@pytest.mark.parametrize(("depth", "wanted"), [(10, 7), (5, 5)])
def test_weights_that_are_sampled_directly_have_short_trajectories_too(monkeypatch, depth, wanted):
    engine = bd.NUTS(max_tree_depth=depth, reparametrisation="none")
    assert kernel_of(engine, bd.Network.mlp, monkeypatch).max_tree_depth == wanted


def test_coordinates_are_part_of_what_a_run_is():
    """A checkpoint belongs to the engine of which these settings are stored."""
    assert bd.NUTS().stored() != bd.NUTS(reparametrisation="none").stored()
    with pytest.raises(bd.BayesDaslError, match="reparametrisation must be one of auto, none"):
        bd.NUTS(reparametrisation="weights")


class Pair(bd.Module):
    """A reaction whose second species nobody sees."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"a": -self.rate * y["a"], "b": self.rate * y["a"] - 0.3 * y["b"]}


class Doubled(bd.Module):
    """A state that is an array."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"v": -self.rate * y["v"] * jnp.array([1.0, 2.0])}


class FromArray(bd.Module):
    closure: bd.Network

    def __call__(self, t, y, u):
        return {"v": y["v"] * self.closure(t, {"y": y["v"][0]}, u)["y"]}


RATE = dist.LogNormal(np.log(small.RATE), 0.3)
START = dist.Normal(2.0, 0.2)


def driven():
    """Data with a forcing that jumps."""
    return small.data().assign(light=("time", (small.TIMES > 2).astype(float)))


def with_forcing(kind=small.Stepped, **options):
    net = bd.Network.mlp(("y", "light"), ("y",), 0.5, width=3, depth=1)
    field = bd.Residual(small.Decay(RATE), net)
    return kind(
        field, {"y": START}, forcings=("light",), interpolation={"light": "step"}, **options
    )


def varying():
    """Noise whose scale is a network's."""
    return bd.NormalNoise(
        bd.noise.VaryingScale(dist.LogNormal(-3.0, 0.5), small.network(("log_scale",)))
    )


def two_networks():
    inside = small.Stepped(bd.Residual(small.Decay(RATE), small.network()), {"y": START})
    return bd.Residual(inside, small.network(scale=0.1))


VARIANTS = {
    "a state that nobody sees, and noise that varies": lambda: small.Stepped(
        bd.Residual(Pair(RATE), bd.Network.mlp(("a", "b"), ("b",), 0.3, width=3, depth=1)),
        {"a": START, "b": dist.HalfNormal(0.2)},
        observe=lambda t, y, u: {"y": y["a"]},
    ),
    "two networks, in the field and on the output": two_networks,
    "a state that is an array, observed through a function": lambda: small.Stepped(
        bd.Residual(Doubled(RATE), FromArray(small.network())),
        {"v": jnp.array([2.0, 1.0])},
        observe=lambda t, y, u: {"y": y["v"][0] ** 2 / 2},
    ),
    "forcings": with_forcing,
    "forcings and jumps, by a solver": lambda: with_forcing(bd.ODE, jumps=bd.Jump(1.1, {"y": 0.2})),
}


class Judge(Optimiser):
    """Says how high positions lie, which takes no gradient, and leaves them where they are."""

    def __init__(self, problem, climbs):
        self.count, self.reparametrisation, self._jittered = climbs, Identity(), ()
        self._values = jax.jit(jax.vmap(problem.log_density))

    def optimise(self, x):
        return x

    def evaluate(self, x):
        x, volumes = self.reparametrisation.forward_many(x)
        return np.asarray(self._values(x)) + volumes, np.zeros_like(x)


@pytest.mark.parametrize(
    ("variant", "climbs", "chains"),
    [
        pytest.param(
            "a state that nobody sees, and noise that varies", 8, 10, marks=pytest.mark.slow
        ),
        pytest.param("two networks, in the field and on the output", 8, 10, marks=pytest.mark.slow),
        pytest.param(
            "a state that is an array, observed through a function", 2, 5, marks=pytest.mark.slow
        ),
        pytest.param("forcings", 8, 10, marks=pytest.mark.slow),
        pytest.param("forcings and jumps, by a solver", 8, 10, marks=pytest.mark.slow),
    ],
)
def test_any_states_observables_and_places_of_a_network(variant, climbs, chains):
    """Chains begin where the data are met to about their noise, and can go from there to other last
    layers.

    Each has a start of its own, where there are fewer climbs than chains too.
    """
    noise = varying() if "noise" in variant else bd.NormalNoise(dist.LogNormal(-3.0, 0.5))
    model = bd.Model(VARIANTS[variant](), noise)
    problem = pose(model, driven())
    references, judge = references_of(problem), Judge(problem, climbs)
    assert references is not None
    found = matched_start(problem, references, judge, None, chains=chains, key=jax.random.key(0))
    assert len(np.unique(found["reached"], axis=0)) == chains
    assert np.isfinite(judge.evaluate(found["reached"])[0]).all()
    best = jnp.asarray(found["modes"][0])
    met = jax.jit(
        lambda x: realise(model, problem.constrain(x)).predict(problem.inputs).values["y"]
    )
    assert float(jnp.sqrt(jnp.mean((met(best) - driven()["y"].values) ** 2))) < 2 * small.NOISE
    # Weights drawn from a normal of so many dimensions are on average half as many nats less
    # likely.
    frame = references.restored(references.from_draws(found["reached"]))
    anew = references.drawn(frame, found["reached"], key=jax.random.key(1))
    lower = found["log_densities"][0] - judge.evaluate(anew)[0]
    assert np.median(lower) < 2 * len(references.linear.weights)


class Hooke(bd.Module):
    stiffness: bd.Scalar

    def __call__(self, t, y, u):
        return {"place": y["speed"], "speed": -self.stiffness * y["place"] - 0.06 * y["speed"]}


@pytest.mark.slow
def test_a_large_correction_is_found_that_noise_could_stand_for():
    """A spring that is stiffer the further it is pulled: a small correction with much noise is a
    worse mode.
    """
    times = np.linspace(0.0, 12.0, 49)

    def stiffer(t, y):
        return {
            "place": y["speed"],
            "speed": -y["place"] - 0.06 * y["speed"] - 0.4 * y["place"] ** 3,
        }

    path = [{"place": 1.5, "speed": 0.0}]
    for begin, end in itertools.pairwise(times):
        path.append(small.runge_kutta(stiffer, begin, end, path[-1]))
    noise = 0.05 * np.random.default_rng(0).normal(size=(2, times.size))
    seen = {
        name: ("time", [state[name] for state in path] + noise[i]) for i, name in enumerate(path[0])
    }
    data = xr.Dataset(seen, {"time": times})
    begun = {"place": dist.Normal(1.5, 0.2), "speed": dist.Normal(0.0, 0.2)}
    layer = bd.corrected(small.Stepped(Hooke(bd.between(0.3, 4.0)), begun), data, "speed")
    problem = pose(bd.Model(layer, bd.NormalNoise(dist.LogNormal(np.log(0.05), 0.7))), data)
    optimiser = Optimiser(jax.value_and_grad(problem.log_density), 8)
    found = matched_start(
        problem, references_of(problem), optimiser, None, chains=4, key=jax.random.key(0)
    )
    reached = [problem.constrain(jnp.asarray(x)) for x in found["reached"]]
    assert min(float(values["layer.vector_field.closure.scale"]) for values in reached) > 0.5
    assert max(float(values["noise.scale"]) for values in reached) < 0.07


@pytest.mark.thorough
def test_a_network_on_the_output_alone_has_these_coordinates():
    layer = bd.Residual(small.Stepped(small.Decay(RATE), {"y": START}), small.network())
    assert references_of(pose(bd.Model(layer, bd.NormalNoise(0.05)), small.data())) is not None


@pytest.mark.slow
def test_chains_move_where_there_are_several_networks():
    model = bd.Model(two_networks(), bd.NormalNoise(dist.LogNormal(-3.0, 0.5)))
    post = bd.fit(model, driven(), bd.NUTS(chains=2, warmup=100, draws=25), key=0)
    assert post.attrs["sampled_in"] == "conditional coordinates"
    assert post["sample_stats"]["diverging"].values.mean() < 0.2
    assert np.ptp(post["sample_stats"]["lp"].values, axis=1).min() > 0
    away = post["conditional_mean"]["y"].mean(("chain", "draw")) - driven()["y"]
    assert float(np.sqrt((away**2).mean())) < 2 * small.NOISE


@pytest.mark.slow
def test_noise_heads_work_beside_a_network_in_the_solver():
    """The one fit here that goes through a solver whose steps are not known beforehand."""
    post = bd.fit(
        small.model(noise=varying()), small.data(), bd.NUTS(chains=2, warmup=150, draws=100), key=0
    )
    assert post.attrs["sampled_in"] == "conditional coordinates"
    assert np.isfinite(post["log_likelihood"]["y"].values).all()


@pytest.mark.slow
def test_chains_from_an_ensemble_are_not_judged_by_weights():
    """Of a regression: weights never agree, and a warm-up that waited for them would last to its
    end.
    """
    x = np.linspace(-1.0, 1.0, 30)
    y = np.sin(2.5 * x) + 0.1 * np.random.default_rng(0).standard_normal(30)
    layer = bd.Algebraic(bd.Network.mlp({"t": (0.0, 0.6)}, ("y",), width=6, depth=1), index="x")
    model = bd.Model(layer, bd.NormalNoise(dist.LogNormal(-2.0, 1.0)))
    problem = pose(model, xr.Dataset({"y": ("x", y)}, {"x": x}))
    descent = bd.Descent(steps=2000, patience=None)
    engine = bd.NUTS(
        draws=200,
        start=bd.DeepEnsemble(members=4, anchored=False, bootstrap=False, descent=descent),
    )
    found = engine.run(
        problem,
        key=jax.random.split(jax.random.key(0))[0],
        journal=Journal(),
        bar=ProgressBar(False),
    )
    assert found.facts["sampled_in"] == "plain coordinates"
    assert found.facts["warmup_settled"] == 1 and found.facts["warmup_draws"] < 1000
    mean = jax.jit(
        jax.vmap(
            jax.vmap(
                lambda x: realise(model, problem.constrain(x)).predict(problem.inputs).values["y"]
            )
        )
    )
    rhat = array_stats.rhat(np.asarray(mean(found.positions)), chain_axis=0, draw_axis=1)
    assert np.median(rhat) < 1.1


@pytest.mark.thorough
def test_a_state_seen_below_zero_is_not_taken_to_be_positive():
    field = bd.Residual(lambda t, y, u: {"y": -y["y"]}, small.network())
    layer = bd.ODE(field, {"y": dist.LogNormal(0.0, 0.5)})
    data = small.data()
    for seen in (data, data - 1.0):
        problem = pose(bd.Model(layer, bd.NormalNoise(0.1)), seen)
        assert Matching(problem)._paths[0].positive["y"] == bool((seen["y"] > 0).all())


class Descending(Exception):
    """Raised in place of a descent."""


@pytest.mark.slow
def test_a_solver_of_forward_mode_only_can_be_descended(monkeypatch):
    """Whoever takes gradients of many numbers gets solvers that reverse mode goes through."""
    problem = pose(with_adjoint(small.model(), diffrax.ForwardMode()), small.data())
    references = references_of(problem)
    assert references is not None
    given = [dataclasses.replace(problem, model=references.linear.model)]

    def descend(problem, *args, **options):
        given.append(problem)
        raise Descending

    monkeypatch.setattr(members, "descend", descend)
    x = np.zeros((1, problem.dimension))
    with pytest.raises(Descending):
        members.descended(
            problem,
            1,
            bd.Descent(),
            key=jax.random.key(0),
            journal=Journal(),
            bar=ProgressBar(False),
            begin_at=x,
        )
    for reached in given:
        assert not any(isinstance(how, diffrax.ForwardMode) for how in reached.adjoints())
    jax.eval_shape(jax.grad(given[1].log_density), x[0])


@pytest.mark.slow
def test_a_descent_is_the_same_whatever_adjoint_was_given():
    model = small.model()
    forward = with_adjoint(model, diffrax.ForwardMode())
    engine = bd.Joint(starts=1, descent=bd.Descent(steps=50))
    one, other = (
        bd.fit(m, small.data(), engine, key=0)["training"]["loss"].values for m in (model, forward)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)
