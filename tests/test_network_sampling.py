"""NUTS for networks inside solvers: the same posterior as in the weights themselves, in better coordinates."""

import diffrax
import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from arviz_stats.base.array import array_stats

import bayes_dasl as bd
from bayes_dasl.inference.coordinates.gradient_matching import _is_positive
from bayes_dasl.inference.coordinates.reference import matched_start, references_of
from bayes_dasl.inference.gradient import traced_once
from bayes_dasl.inference.problem import pose
from bayes_dasl.inference.starts import Optimiser
from bayes_dasl.layers import with_adjoint
from bayes_dasl.prediction.posterior import draws_of
from bayes_dasl.random import realise


@pytest.fixture(scope="module")
def conditional():
    return bd.fit(small.model(), small.data(), bd.NUTS(draws=600), key=0)


@pytest.fixture(scope="module")
def plain():
    return bd.fit(small.model(), small.data(), bd.NUTS(draws=600, coordinates="plain"), key=1)


def functions(post):
    """What can be compared: the parameters, the trajectories and the vector field, `(chain, draw, quantity)`.

    The group `vector_field` is that at the mean states of a run itself: of two runs it would be compared at two places.
    """
    science = [post["posterior"][name].values[..., None] for name in ("rate", "initial.y", "scale")]
    model = small.model()
    states = jnp.asarray(2.0 / (1 + 0.6 * small.TIMES))

    def rates(draw):
        return realise(model, draw).layer.vector_field(0.0, {"y": states}, {})["y"]

    field = np.asarray(jax.vmap(rates)(draws_of(model, post)))
    trajectories = post["conditional_mean"]["y"].values
    return np.concatenate([*science, trajectories, field.reshape(trajectories.shape)], axis=-1)


def test_conditional_coordinates_are_chosen_where_a_network_sits_in_a_solver(conditional, plain):
    assert conditional.attrs["sampled_in"] == "conditional coordinates"
    assert plain.attrs["sampled_in"] == "plain coordinates"


def test_both_coordinates_give_the_same_posterior(conditional, plain):
    """Means and standard deviations agree within four Monte-Carlo errors, whose sizes both runs say."""
    found = {}
    for name, post in (("conditional", conditional), ("plain", plain)):
        values = functions(post)
        centred = (values - values.mean((0, 1))) ** 2
        found[name] = [
            (v.mean((0, 1)), v.std((0, 1)) / np.sqrt(array_stats.ess(v, chain_axis=0, draw_axis=1, method="mean")))
            for v in (values, centred)
        ]
    for (one, one_error), (other, other_error) in zip(*found.values(), strict=True):
        assert (np.abs(one - other) < 4 * np.hypot(one_error, other_error)).all()


def test_functions_mix(conditional):
    values = functions(conditional)
    assert np.max(array_stats.rhat(values, chain_axis=0, draw_axis=1)) < 1.02
    assert np.min(array_stats.ess(values, chain_axis=0, draw_axis=1)) > 400
    verdict = str(bd.diagnose(conditional))
    assert "R-hat of vector field" in verdict
    assert "weights" not in verdict


def test_log_densities_are_those_of_the_weights(conditional):
    problem = pose(small.model(), small.data())
    posterior = {v.attrs["path"]: v.values for v in conditional["posterior"].data_vars.values()}
    for chain, draw in ((0, 0), (3, 599)):
        x = problem.unconstrain({path: jnp.asarray(values[chain, draw]) for path, values in posterior.items()})
        lp = float(conditional["sample_stats"]["lp"][chain, draw])
        assert float(problem.log_density(x)) == pytest.approx(lp, abs=1e-6)


def test_a_resumed_run_has_the_draws_of_a_whole_one(tmp_path):
    engine = bd.NUTS(chains=2, warmup=100, draws=50)
    whole = bd.fit(small.model(), small.data(), engine, checkpoint=tmp_path / "run", key=5)
    steps = sorted((tmp_path / "run").glob("*.step"))
    for path in steps[len(steps) // 2 :]:
        path.unlink()
    again = bd.fit(small.model(), small.data(), engine, checkpoint=tmp_path / "run", key=5)
    np.testing.assert_array_equal(functions(whole), functions(again))


def test_a_network_whose_last_layer_is_bent_is_sampled_in_its_weights():
    bent = small.model(small.network(final_activation=jax.nn.softplus))
    post = bd.fit(bent, small.data(), bd.NUTS(chains=2, warmup=100, draws=50), key=0)
    assert post.attrs["sampled_in"] == "plain coordinates"


def test_noise_heads_work_beside_a_network_in_the_solver():
    head = small.network(("log_scale",))
    noise = bd.NormalNoise(bd.VaryingScale(dist.LogNormal(-3.0, 0.5), head))
    post = bd.fit(small.model(noise=noise), small.data(), bd.NUTS(chains=2, warmup=150, draws=100), key=0)
    assert post.attrs["sampled_in"] == "conditional coordinates"
    assert np.isfinite(post["log_likelihood"]["y"].values).all()


def test_another_start_moves_in_the_weights():
    problem = pose(small.model(), small.data())
    assert bd.NUTS()._references(problem) is not None
    assert bd.NUTS(start=bd.DeepEnsemble())._references(problem) is None


def test_coordinates_are_part_of_what_a_run_is():
    """A checkpoint belongs to the engine of which these settings are stored."""
    assert bd.NUTS().stored() != bd.NUTS(coordinates="plain").stored()
    with pytest.raises(bd.BayesDaslError, match="coordinates must be one of auto, plain"):
        bd.NUTS(coordinates="weights")


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


def with_forcing():
    net = bd.Network.mlp(("y", "light"), ("y",), 0.5, width=3, depth=1)
    field = bd.Residual(small.Decay(RATE), net)
    return bd.ODE(
        field, {"y": START}, forcings=("light",), interpolation={"light": "step"}, jumps=bd.Jump(1.1, {"y": 0.2})
    )


VARIANTS = {
    "observed through a function": lambda: bd.ODE(
        bd.Residual(small.Decay(RATE), small.network()), {"y": START}, observe=lambda t, y, u: {"y": y["y"] ** 2 / 2}
    ),
    "a state that nobody sees": lambda: bd.ODE(
        bd.Residual(Pair(RATE), bd.Network.mlp(("a", "b"), ("b",), 0.3, width=3, depth=1)),
        {"a": START, "b": dist.HalfNormal(0.2)},
        observe=lambda t, y, u: {"y": y["a"]},
    ),
    "a network on the output": lambda: bd.Residual(bd.ODE(small.Decay(RATE), {"y": START}), small.network()),
    "two networks, in the field and on the output": lambda: bd.Residual(
        bd.ODE(bd.Residual(small.Decay(RATE), small.network()), {"y": START}), small.network(scale=0.1)
    ),
    "a state that is an array": lambda: bd.ODE(
        bd.Residual(Doubled(RATE), FromArray(small.network())),
        {"v": jnp.array([2.0, 1.0])},
        observe=lambda t, y, u: {"y": y["v"][0]},
    ),
    "forcings and jumps": with_forcing,
}


def varied(variant: str) -> bd.Model:
    return bd.Model(VARIANTS[variant](), bd.NormalNoise(dist.LogNormal(-3.0, 0.5)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_states_observables_and_places_of_a_network(variant):
    """Chains begin where the data are met to about their noise."""
    model = varied(variant)
    problem = pose(model, driven())
    references, (evaluate, _) = references_of(problem), traced_once(problem)
    assert references is not None
    found = matched_start(problem, references, Optimiser(evaluate, 8), None, chains=2, key=jax.random.key(0))
    best = realise(model, problem.constrain(jnp.asarray(found["modes"][0])))
    away = best.predict(problem.inputs).values["y"] - driven()["y"].values
    assert float(jnp.sqrt(jnp.mean(away**2))) < 2 * small.NOISE


def test_chains_move_where_there_are_several_networks():
    model = varied("two networks, in the field and on the output")
    post = bd.fit(model, driven(), bd.NUTS(chains=2, warmup=100, draws=25), key=0)
    assert post.attrs["sampled_in"] == "conditional coordinates"
    assert post["sample_stats"]["diverging"].values.mean() < 0.2
    assert np.ptp(post["sample_stats"]["lp"].values, axis=1).min() > 0
    away = post["conditional_mean"]["y"].mean(("chain", "draw")) - driven()["y"]
    assert float(np.sqrt((away**2).mean())) < 2 * small.NOISE


def test_two_times_are_too_few_for_a_path():
    post = bd.fit(small.model(), small.data().isel(time=[0, 7]), bd.NUTS(chains=2, warmup=50, draws=25), key=0)
    assert post.attrs["sampled_in"] == "plain coordinates"


def test_chains_from_an_ensemble_are_not_judged_by_weights():
    """Of a regression: weights never agree, and a warm-up that waited for them would last to its end."""
    x = np.linspace(-1.0, 1.0, 30)
    y = np.sin(2.5 * x) + 0.1 * np.random.default_rng(0).standard_normal(30)
    layer = bd.Algebraic(bd.Network.mlp({"t": (0.0, 0.6)}, ("y",), width=6, depth=1), index="x")
    model = bd.Model(layer, bd.NormalNoise(dist.LogNormal(-2.0, 1.0)))
    post = bd.fit(
        model,
        xr.Dataset({"y": ("x", y)}, {"x": x}),
        bd.NUTS(
            draws=200,
            start=bd.DeepEnsemble(
                members=4, anchored=False, bootstrap=False, descent=bd.Descent(steps=2000, patience=None)
            ),
        ),
        key=0,
    )
    assert post.attrs["sampled_in"] == "plain coordinates"
    assert post.attrs["warmup_settled"] == 1 and post.attrs["warmup_draws"] < 1000
    rhat = array_stats.rhat(post["conditional_mean"]["y"].values, chain_axis=0, draw_axis=1)
    assert np.median(rhat) < 1.1


def test_every_chain_has_a_start_of_its_own():
    """Where there are fewer climbs than chains too."""
    problem = pose(small.model(), small.data())
    references, (evaluate, _) = references_of(problem), traced_once(problem)
    assert references is not None
    found = matched_start(problem, references, Optimiser(evaluate, 2), None, chains=5, key=jax.random.key(0))
    assert len(np.unique(found["reached"], axis=0)) == 5
    assert np.isfinite([float(evaluate(x)[0]) for x in found["reached"]]).all()


def test_a_state_seen_below_zero_is_not_taken_to_be_positive():
    field = bd.Residual(lambda t, y, u: {"y": -y["y"]}, small.network())
    layer = bd.ODE(field, {"y": dist.LogNormal(0.0, 0.5)})
    data = small.data()
    for seen in (data, data - 1.0):
        problem = pose(bd.Model(layer, bd.NormalNoise(0.1)), seen)
        assert _is_positive(problem, layer, "y") == bool((seen["y"] > 0).all())


def test_a_solver_of_forward_mode_only_can_be_descended():
    model = small.model()
    forward = with_adjoint(model, diffrax.ForwardMode())
    engine = bd.Joint(starts=1, descent=bd.Descent(steps=50))
    one, other = (bd.fit(m, small.data(), engine, key=0)["training"]["loss"].values for m in (model, forward))
    np.testing.assert_allclose(one, other, rtol=1e-6)
