"""NUTS against known posteriors: published reference draws, a conjugate model, NumPyro on the same
model.
"""

from typing import Any

import arviz_stats as azs
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from curves import Curve
from known_problems import Known
from numpyro.distributions.transforms import biject_to
from numpyro.infer import MCMC, Predictive
from problems import POSTERIORDB_NAMES, posteriordb_lynx_hare

import bayes_dasl as bd
from bayes_dasl.errors import DataError
from bayes_dasl.inference import ProgressBar, gradient as _gradient, pose, starts as _start
from bayes_dasl.inference.gradient import traced_once
from bayes_dasl.inference.nuts import nuts as nuts
from bayes_dasl.inference.nuts.pathfinder import Pathfinder
from bayes_dasl.inference.sites import bijector
from bayes_dasl.layers import Prediction
from bayes_dasl.prediction import draws_of, names


class Level(Curve):
    """y(t) = level."""

    level: bd.Scalar

    def y(self, times):
        return self.level + 0.0 * times


class Slope(Curve):
    """y(t) = slope · t."""

    slope: bd.Scalar

    def y(self, times):
        return self.slope * times


class Parabola(Curve):
    """y(t) = root² · t: two modes of the same height."""

    root: bd.Scalar

    def y(self, times):
        return self.root**2 * times


class Exponential(Curve):
    """Decay in closed form."""

    rate: bd.Scalar
    first: bd.Scalar

    def y(self, times):
        return self.first * jnp.exp(-self.rate * times)


class Decay(bd.Module):
    """The same, to be solved."""

    rate: bd.Scalar = bd.field(units="1/h")

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


def series(values, times=None):
    times = np.arange(float(len(values))) if times is None else times
    return xr.Dataset({"y": ("time", np.asarray(values, float))}, {"time": times})


@pytest.mark.slow
def test_reference_posterior(shared_file):
    reference = pd.read_csv(
        shared_file("reference/lotka_volterra_posteriordb_summary.csv"), index_col="parameter"
    )
    model, data = posteriordb_lynx_hare()
    draws = bd.fit(model, data, bd.NUTS(chains=4, draws=1000), key=3)["posterior"].to_dataset()
    for theirs, ours in POSTERIORDB_NAMES.items():
        mean, sd = reference.loc[theirs, ["mean", "sd"]]
        assert abs(float(draws[ours].mean()) - mean) < 0.1 * sd
        assert 0.93 < float(draws[ours].std()) / sd < 1.07
    assert max(float(v) for v in azs.rhat(draws).data_vars.values()) < 1.01
    assert min(float(v) for v in azs.ess(draws).data_vars.values()) >= 2000


RATE, FIRST = bd.between(0.1, 3.0), bd.between(1.0, 20.0)
NOISE = bd.NormalNoise(scale=dist.HalfNormal(1.0))


@pytest.fixture(scope="module")
def decay():
    rng = np.random.default_rng(1)
    times = np.linspace(0.0, 3.0, 8)
    return bd.Model(Exponential(RATE, FIRST), NOISE), series(
        5.0 * np.exp(-0.7 * times) + 0.2 * rng.normal(size=8), times
    )


@pytest.fixture(scope="module")
def solved():
    """Decay through a solver, with units, a truncated prior of the rate and known noise."""
    times = np.linspace(0.0, 3.0, 21)
    data = series(
        5.0 * np.exp(-0.7 * times) + 0.2 * np.random.default_rng(2).normal(size=21), times
    )
    data["time"].attrs["units"], data["y"].attrs["units"] = "h", "mg"
    rate = dist.TruncatedNormal(1.0, 0.5, low=0.0)
    model = bd.Model(
        bd.ODE(Decay(rate), {"y": FIRST}, units={"y": "mg"}), bd.NormalNoise(scale=0.2)
    )
    return model, data, bd.fit(model, data, bd.NUTS(chains=4, draws=1000), key=3)


def by_quadrature(data, rate):
    """Mean and standard deviation of the rate and the first value: sums over a grid of their
    logarithms.
    """
    axes = [np.linspace(np.log(low), np.log(high), 301) for low, high in ((0.4, 1.2), (3.5, 7.0))]
    k, first = (np.exp(a) for a in np.meshgrid(*axes, indexing="ij"))
    predicted = first[..., None] * np.exp(-k[..., None] * data["time"].values)
    density = -0.5 * (((data["y"].values - predicted) / 0.2) ** 2).sum(-1) + np.log(k * first)
    density += np.asarray(rate.log_prob(k) + FIRST.log_prob(first))
    weight = np.exp(density - density.max())
    assert all(np.take(weight, edge, axis).max() < 1e-6 for axis in range(2) for edge in (0, -1))
    weight /= weight.sum()
    means = [(weight * x).sum() for x in (k, first)]
    sds = [np.sqrt((weight * (x - m) ** 2).sum()) for x, m in zip((k, first), means, strict=True)]
    return dict(zip(("rate", "initial.y"), zip(means, sds, strict=True), strict=True))


@pytest.mark.thorough
def test_a_posterior_through_a_solver_is_that_by_quadrature(solved):
    model, data, post = solved
    draws = post["posterior"].to_dataset()
    for name, (mean, sd) in by_quadrature(data, model.layer.vector_field.rate).items():
        ours = draws[[name]]
        error, ess = (float(v[name]) for v in (azs.mcse(ours), azs.ess(ours, method="sd")))
        assert abs(float(ours[name].mean()) - mean) < 4 * error
        assert abs(np.log(float(ours[name].std()) / sd)) < 4 / np.sqrt(2 * ess)
    assert max(float(v) for v in azs.rhat(draws).data_vars.values()) < 1.01
    assert min(float(v) for v in azs.ess(draws).data_vars.values()) >= 2000


@pytest.mark.thorough
def test_a_run_is_healthy_and_says_what_made_it(solved):
    _, data, post = solved
    stats = post["sample_stats"]
    assert int(stats["diverging"].sum()) == 0
    assert int(stats["solver_failure"].sum()) == 0
    assert 0.6 < float(stats["acceptance_rate"].mean()) < 0.97
    assert len(np.unique(stats["step_size"])) == 1
    for attribute in (
        "key",
        "engine",
        "data_sha256",
        "version_jax",
        "wall_time_s",
        "created",
        "signature",
    ):
        assert attribute in post.attrs
    assert post["posterior"]["rate"].attrs == {
        "path": "layer.vector_field.rate",
        "group": "science",
        "units": "1/h",
        "prior": "Normal(1, 0.5), > 0",
    }
    assert post["observed_data"]["y"].attrs["units"] == data["y"].attrs["units"]


@pytest.mark.thorough
def test_the_groups_are_arviz_groups(solved):
    _, _, post = solved
    loo = azs.loo(post, var_name="y")
    assert np.isfinite(loo.elpd)
    assert azs.summary(post).shape[0] == 2
    assert set(post.children) >= {
        "posterior", "sample_stats", "log_likelihood", "prior", "sample_stats_prior", "observed_data", "constant_data",
    }  # fmt: skip


def assert_numpyro_agrees(model, data, post):
    """`model` under numpyro.infer.MCMC and Predictive gives the same posterior within Monte-Carlo
    error.
    """
    # From a good start: NumPyro's own start lets a chain get stuck now and then.
    draw = {path: values[:2] for path, values in draws_of(model, post).items()}
    kernel = numpyro.infer.NUTS(model, dense_mass=True)
    mcmc = MCMC(
        kernel,
        num_warmup=300,
        num_samples=700,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    z = jax.vmap(lambda d: numpyro.infer.util.unconstrain_fn(model, (data,), {}, d))(draw)
    mcmc.run(jax.random.key(0), data, init_params=z)
    theirs = mcmc.get_samples(group_by_chain=True)
    ours = post["posterior"].to_dataset()
    for path, name in names(model).items():
        a, b = ours[name], xr.DataArray(np.asarray(theirs[path]), dims=("chain", "draw"))
        error = np.hypot(*(float(azs.mcse(v.to_dataset(name="x"))["x"]) for v in (a, b)))
        assert abs(float(a.mean()) - float(b.mean())) < 4 * error
        # The log of a standard deviation has an error of about 1/sqrt(2 ESS), more for heavy tails.
        least = min(float(azs.ess(v.to_dataset(name="x"), method="sd")["x"]) for v in (a, b))
        assert abs(np.log(float(a.std()) / float(b.std()))) < 4 * 1.5 / np.sqrt(2 * least)
    predictive = Predictive(model, {p: np.asarray(v).reshape(-1) for p, v in theirs.items()})
    drawn = predictive(jax.random.key(1), model.inputs(data))
    forecast = bd.forecast(model, post, data)
    for name in model.observables:
        a, b = (
            np.asarray(drawn[name]),
            forecast["predictions"][name].values.reshape(-1, data.sizes["time"]),
        )
        error = np.hypot(a.std(0) / np.sqrt(300), b.std(0) / np.sqrt(1000))
        assert (abs(a.mean(0) - b.mean(0)) < 4 * error).all()


@pytest.mark.slow
def test_numpyro_runs_the_model_itself(decay, usual):
    assert_numpyro_agrees(*decay, usual)


@pytest.mark.slow
def test_numpyro_runs_a_model_with_a_solver():
    model, data = posteriordb_lynx_hare()
    assert_numpyro_agrees(model, data, bd.fit(model, data, bd.NUTS(chains=4, draws=1000), key=3))


def test_conjugate_posterior():
    """A constant seen with known noise: the posterior is normal, in closed form."""
    rng = np.random.default_rng(0)
    y = 2.0 + 0.5 * rng.normal(size=12)
    y[3] = np.nan
    model = bd.Model(Level(dist.Normal(0.0, 3.0)), bd.NormalNoise(scale=0.5))
    post = bd.fit(model, series(y), bd.NUTS(chains=4, warmup=200, draws=1000), key=1)
    seen = y[~np.isnan(y)]
    precision = 1 / 3.0**2 + len(seen) / 0.5**2
    mean, sd = seen.sum() / 0.5**2 / precision, precision**-0.5
    draws = post["posterior"]["level"]
    error = float(azs.mcse(draws.to_dataset(name="x"))["x"])
    ess = float(azs.ess(draws.to_dataset(name="x"), method="sd")["x"])
    assert abs(float(draws.mean()) - mean) < 4 * error
    assert abs(float(draws.std()) / sd - 1) < 4 / np.sqrt(2 * ess)
    # Were the missing datum counted, or noise 1.2 times as large, the test would see it.
    assert abs(float(draws.std()) / (1.2 * sd) - 1) > 4 / np.sqrt(2 * ess)


SHORT = bd.NUTS(chains=2, warmup=50, draws=180)


@pytest.fixture(scope="module")
def decay_fit(decay):
    model, data = decay
    return bd.fit(model, data, SHORT, key=5)


@pytest.fixture(scope="module")
def usual(decay):
    """Enough draws to compare others with."""
    model, data = decay
    return bd.fit(model, data, bd.NUTS(chains=2, warmup=300, draws=1000), key=1)


@pytest.mark.slow
def test_the_same_key_gives_the_same_draws(decay, decay_fit):
    model, data = decay
    again = bd.fit(model, data, SHORT, key=jax.random.key(5))
    xr.testing.assert_identical(
        decay_fit["posterior"].to_dataset(), again["posterior"].to_dataset()
    )
    assert decay_fit["posterior"].sizes["draw"] == 180  # not a whole number of segments
    other = bd.fit(model, data, SHORT, key=6)
    assert not np.array_equal(decay_fit["posterior"]["rate"], other["posterior"]["rate"])


def test_the_flat_density_is_the_models_own(decay):
    model, data = decay
    problem = pose(model, data)
    x = np.asarray(problem.prior(5, key=jax.random.key(0)))
    value_and_gradient, log_density = traced_once(problem)
    for position in jnp.asarray(x):
        values = problem.constrain(position)
        joint, _ = numpyro.infer.util.log_density(model, (data,), {}, values)
        # All three are positive: the unconstrained coordinate is the log.
        assert float(log_density(position)) == pytest.approx(
            float(joint + position.sum()), rel=1e-9
        )
        np.testing.assert_allclose(problem.unconstrain(values), position, rtol=1e-9)
    _, gradient = value_and_gradient(jnp.asarray(x[0]))
    step = 1e-5 * np.eye(3)
    central = [(float(log_density(x[0] + s)) - float(log_density(x[0] - s))) / 2e-5 for s in step]
    np.testing.assert_allclose(gradient, central, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jax.grad(log_density)(jnp.asarray(x[0])), gradient)


@pytest.mark.thorough
def test_starts_find_the_mode_and_its_curvature(decay):
    model, data = decay
    problem = pose(model, data)
    value_and_gradient, _ = traced_once(problem)
    optimiser = _start.Optimiser(value_and_gradient)
    start = _start.find_start(problem, optimiser, key=jax.random.key(0))
    assert np.abs(value_and_gradient(jnp.asarray(start.modes[0]))[1]).max() < 1e-2
    position = _start.first_positions(start, optimiser, 4, key=jax.random.key(1))
    assert np.isfinite(optimiser.evaluate(position)[0]).all()
    curvature = -np.asarray(
        jax.jit(jax.hessian(problem_density(model, data)))(jnp.asarray(start.modes[0]))
    )
    np.testing.assert_allclose(
        start.precisions[0], curvature, rtol=0.02, atol=0.02 * np.abs(curvature).max()
    )


@pytest.mark.thorough("2-None", "3-None", "3-near1")
@pytest.mark.parametrize("near", [None, np.zeros((5, 3))])
@pytest.mark.parametrize("climbs", [2, 3])
def test_few_climbs_find_a_single_mode_too(decay, climbs, near):
    problem = pose(*decay)
    optimiser = _start.Optimiser(traced_once(problem)[0], climbs)
    start = _start.modes_among(
        optimiser, *_start.multi_start(problem, optimiser, near=near, key=jax.random.key(0))
    )
    assert np.abs(traced_once(problem)[0](jnp.asarray(start.modes[0]))[1]).max() < 1e-2
    assert start.tried == (4 * climbs if near is None else 2 * (2 * climbs))
    assert optimiser.steps < 500 * climbs


def problem_density(model, data):
    """The log density of the decay in closed form, in log coordinates (order of the tree: rate, y,
    scale).
    """
    times, y = jnp.asarray(data["time"].values), jnp.asarray(data["y"].values)
    rate, initial = model.layer.rate, model.layer.first

    def density(x):
        k, y0, scale = jnp.exp(x)
        likelihood = dist.Normal(y0 * jnp.exp(-k * times), scale).log_prob(y).sum()
        prior = rate.log_prob(k) + initial.log_prob(y0) + dist.HalfNormal(1.0).log_prob(scale)
        return likelihood + prior + x.sum()

    return density


@pytest.mark.thorough
def test_two_modes_are_both_started_from():
    """y = a² · t + noise with a of either sign: two modes of the same height."""
    model = bd.Model(Parabola(dist.Normal(0.0, 2.0)), bd.NormalNoise(scale=0.1))
    problem = pose(model, series(2.25 * np.arange(6.0)))
    value_and_gradient, _ = traced_once(problem)
    start = _start.find_start(problem, _start.Optimiser(value_and_gradient), key=jax.random.key(0))
    assert sorted(np.round(start.modes[:, 0], 1)) == [-1.5, 1.5]


def test_large_data_that_no_fill_value_explains_are_no_fault():
    """Numbers of molecules: a few are many orders of magnitude smaller, as by a decay, and none
    stands alone.
    """
    from bayes_dasl.model import check_data

    model = bd.Model(Parabola(dist.Normal(0.0, 2.0)), bd.LogNormalNoise(0.1))
    check_data(model, series(6e23 * 10.0 ** -np.arange(6.0)))
    check_data(model, series(np.array([1e16, 1e16, 1e16, 1e16, 1e16, 1e16])))


@pytest.mark.parametrize("size", [1e20, 1e32])
def test_modes_are_found_where_rounding_hides_how_high_they_are(size):
    """All that is taken off the highest is lost: it is one of the modes all the same."""
    heights, x = np.array([-size, -2 * size]), np.zeros((2, 1))
    unused: Any = object.__new__(_start.Optimiser)
    found = _start.modes_among(unused, x, heights, 2, 0, lambda _, at: np.eye(1))
    np.testing.assert_array_equal(found.log_densities, heights[:1])
    lost = _start.modes_among(unused, x, heights, 2, 0, lambda _, at: np.full((1, 1), np.nan))
    assert len(lost.modes) == 1


def test_data_far_from_all_predictions_are_refused_and_not_climbed_blindly():
    class Flat(_start.Optimiser):
        """A density that is the same everywhere."""

        def __init__(self, height):
            self.height = height

        def objective(self, x):
            return self.height * np.ones(len(x))

    with pytest.raises(
        DataError, match=r"log density is -1e\+30 at best, where rounding alone is .*fill value"
    ):
        _start.best_first(Flat(-1e30), np.zeros((2, 1)))
    assert _start.best_first(Flat(-1e9), np.zeros((2, 1)))[1].tolist() == [-1e9, -1e9]


@pytest.mark.parametrize(
    "engine",
    [bd.engines.SMC(particles=16), bd.engines.Laplace()],
    ids=lambda engine: type(engine).__name__,
)
def test_other_engines_refuse_such_data_too(engine):
    model = bd.Model(Parabola(dist.Normal(0.0, 2.0)), bd.NormalNoise(scale=0.1))
    with pytest.raises(DataError, match="too far from all that the model predicts"):
        bd.fit(model, series(-1e15 * np.arange(6.0)), engine, progress=False)


@pytest.mark.slow
def test_pathfinder_gives_points_near_the_mode(decay):
    model, data = decay
    problem = pose(model, data)
    value_and_gradient, log_density = traced_once(problem)
    optimiser = _start.Optimiser(value_and_gradient)
    climb = Pathfinder(log_density, key=jax.random.key(2)).optimise
    highest = _start.find_start(problem, optimiser, key=jax.random.key(0)).log_densities[0]
    start = _start.modes_among(
        optimiser, *_start.multi_start(problem, optimiser, ascent=climb, key=jax.random.key(0))
    )
    before = optimiser.evaluate(np.asarray(problem.prior(32, key=jax.random.key(3))))[0]
    assert np.median(before) < highest - 10  # so that what follows says something
    assert highest - 0.5 < start.log_densities[0] <= highest + 1e-6
    post = bd.fit(model, data, bd.NUTS(chains=2, warmup=100, draws=100, start="pathfinder"))
    assert post.attrs["modes"] == 1
    assert post["posterior"]["rate"].notnull().all()


@pytest.mark.slow
def test_chains_that_begin_at_members_of_an_ensemble(decay, usual):
    model, data = decay
    post = bd.fit(
        model,
        data,
        bd.NUTS(
            chains=2,
            warmup=100,
            draws=450,
            start=bd.DeepEnsemble(
                members=2,
                anchored=False,
                bootstrap=False,
                descent=bd.Descent(steps=2000, patience=None),
            ),
        ),
        key=0,
    )
    assert post.attrs["starts"] == 2 and post.attrs["modes"] == 1
    found, wanted = post["posterior"]["rate"], usual["posterior"]["rate"]
    assert abs(float(found.mean() - wanted.mean())) < 0.25 * float(wanted.std())
    assert float(found.std()) == pytest.approx(float(wanted.std()), rel=0.25)


@pytest.mark.slow
def test_members_of_an_ensemble_end_in_several_modes():
    model = bd.Model(Parabola(dist.Normal(0.0, 2.0)), bd.NormalNoise(scale=0.1))
    engine = bd.NUTS(
        chains=6,
        warmup=50,
        draws=50,
        start=bd.DeepEnsemble(
            members=6,
            anchored=False,
            bootstrap=False,
            descent=bd.Descent(steps=2000, patience=None),
        ),
    )
    post = bd.fit(model, series(2.25 * np.arange(6.0)), engine, key=0)
    assert set(np.round(post["posterior"]["root"].mean("draw").values, 1)) == {-1.5, 1.5}


class Failing(Exponential):
    """A solver that never succeeds."""

    def __call__(self, inputs):
        prediction = super().__call__(inputs)
        return Prediction(prediction.values, jnp.asarray(False), prediction.stats)


def test_nothing_finite_is_said_before_sampling():
    model = bd.Model(Failing(RATE, 1.0), bd.NormalNoise(scale=0.1))
    with pytest.raises(bd.BayesDaslError, match=r"none of 128 prior draws .* run bd\.check"):
        bd.fit(model, series([1.0, 0.5, 0.2], np.array([0.0, 5.0, 10.0])))


@pytest.mark.thorough
def test_a_warm_up_lasts_until_the_chains_agree(solved, decay_fit):
    _, _, post = solved
    assert post.attrs["warmup_settled"] == 1
    assert 100 <= post.attrs["warmup_draws"] <= 500
    assert decay_fit.attrs["warmup_draws"] == 50  # as asked for


@pytest.mark.slow
def test_forward_and_reverse_mode_give_the_same_gradient(solved):
    model, data, post = solved
    problem = pose(model, data)
    assert _gradient.choose(problem, "auto") == post.attrs["gradient"] == "forward"
    position = problem.prior(1, key=jax.random.key(2))[0]
    (a, slope), (b, other) = (
        traced_once(problem, how)[0](position) for how in ("forward", "reverse")
    )
    assert float(a) == pytest.approx(float(b), rel=1e-12)
    np.testing.assert_allclose(slope, other, rtol=1e-8)


@pytest.mark.slow
def test_more_than_64_dimensions_sample_with_a_diagonal_metric():
    """Seventy offsets of one state, seen together: known closed form for each."""
    rng = np.random.default_rng(2)
    prior = dist.Normal(jnp.zeros(70), 1.0).to_event(1)

    class Still(eqx.Module):
        def __call__(self, t, y, u):
            return {"many": 0.0 * y["many"]}

    def observe(t, y, u):
        return {f"s{i:02d}": y["many"][i] for i in range(70)}

    model = bd.Model(bd.ODE(Still(), {"many": prior}, observe=observe), bd.NormalNoise(scale=1.0))
    data = xr.Dataset(
        {f"s{i:02d}": ("time", rng.normal(size=2)) for i in range(70)}, {"time": [0.0, 1.0]}
    )
    post = bd.fit(model, data, bd.NUTS(chains=2, warmup=100, draws=200), key=0)
    means = post["posterior"]["many"].mean(("chain", "draw")).values
    exact = np.array([data[f"s{i:02d}"].values.sum() / 3 for i in range(70)])
    z = (means - exact) / (3**-0.5 / np.sqrt(400))
    assert 0.4 < z.std() < 1.6


@pytest.mark.thorough
def test_interrupted_sampling_keeps_the_draws_so_far(decay, decay_fit, monkeypatch):
    """Bit for bit those of the uninterrupted fit, which drew all of them in one segment."""
    model, data = decay
    monkeypatch.setattr(nuts, "_LONGEST_PAUSE", 0.0)  # segments of 25 draws
    advance = ProgressBar.advance
    calls = []

    def stop_after_six(self, done, note=""):
        calls.append(done)
        if len(calls) == 8:  # two segments of warm-up, six of sampling
            raise KeyboardInterrupt
        advance(self, done, note)

    monkeypatch.setattr(ProgressBar, "advance", stop_after_six)
    with pytest.warns(UserWarning, match="stopped early: 150 of 180 draws of each chain are kept"):
        part = bd.fit(model, data, SHORT, key=5)
    assert part.attrs["interrupted"] == 1
    assert part["posterior"].sizes["draw"] == 150
    np.testing.assert_array_equal(
        part["posterior"]["rate"], decay_fit["posterior"]["rate"][:, :150]
    )


@pytest.mark.thorough
def test_an_interruption_before_the_first_draw_is_passed_on(decay, monkeypatch):
    model, data = decay

    def stop(self, done, note=""):
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "advance", stop)
    with pytest.raises(KeyboardInterrupt):
        bd.fit(model, data, SHORT, key=5)


class Mixed(Curve):
    """The weighted mean of three constants."""

    weights: Any

    def y(self, times):
        return self.weights @ jnp.array([1.0, 2.0, 4.0]) + 0.0 * times


@pytest.mark.thorough("True")
@pytest.mark.parametrize("first", [True, False])
def test_a_leaf_on_a_simplex_has_one_coordinate_less(first):
    """Dirichlet weights of three constants: the flat density is the model's own,
    with the Jacobian.
    """

    weights = dist.Dirichlet(jnp.array([1.0, 2.0, 3.0]))
    scale = dist.LogNormal(0.0, 1.0) if first else 0.5
    model = bd.Model(Mixed(weights), bd.NormalNoise(scale=scale))
    problem = pose(model, series([1.5, 2.5]))
    assert problem.dimension == (3 if first else 2) == len(problem.labels())
    position = jnp.asarray([0.3, -0.4, 0.2])[: problem.dimension]
    values = problem.constrain(position)
    joint, _ = numpyro.infer.util.log_density(model, (series([1.5, 2.5]),), {}, values)
    stick = biject_to(dist.constraints.simplex)
    jacobian = stick.log_abs_det_jacobian(position[:2], values["layer.weights"])
    jacobian += position[2] if first else 0.0
    assert float(problem.log_density(position)) == pytest.approx(float(joint + jacobian), rel=1e-9)


@pytest.mark.thorough("prior3")
@pytest.mark.parametrize(
    "prior",
    [dist.Uniform(2.0, 5.0), dist.TruncatedNormal(1.0, 0.5, low=0.0, high=1.5), dist.Beta(0.5, 2.0),
     dist.Uniform(-1.0, 1.0).expand([3]).to_event(1), dist.LogNormal(0.0, 1.0), dist.VonMises(0.0, 1.0)],
)  # fmt: skip
def test_values_keep_their_support_and_their_volume(prior):
    """There and back, the volume against a Jacobian by autodiff,
    and finite far out on both sides.
    """
    transform = bijector(prior.support)
    near = jnp.full(prior.event_shape, 0.3)
    there = transform(near)
    np.testing.assert_allclose(transform.inv(there), near, rtol=1e-9)
    jacobian = jax.jacfwd(lambda x: jnp.ravel(transform(x)))(near).reshape(near.size, near.size)
    volume = jnp.sum(transform.log_abs_det_jacobian(near, there))
    np.testing.assert_allclose(volume, np.linalg.slogdet(jacobian)[1], rtol=1e-9)
    for far in (-40.0, -9.0, 9.0, 40.0):
        value = transform(near + far)
        assert jnp.all(prior.support(value))
        assert jnp.isfinite(jnp.sum(prior.log_prob(value)))


@pytest.mark.slow
def test_a_bound_that_the_posterior_leans_on():
    """y = a · t + noise with a beyond its upper bound: the tail of the unconstrained a is a
    normal's.
    """
    model = bd.Model(Slope(dist.Uniform(0.0, 1.0)), bd.NormalNoise(scale=1.0))
    data = series(1.1 * np.arange(6.0))
    post = bd.fit(model, data, bd.NUTS(draws=1000), key=0)
    ess = float(azs.ess(post["posterior"].to_dataset()[["slope"]], method="bulk")["slope"])
    assert ess > 400
    # The curvature of a logistic tail would vanish.
    tail = jax.vmap(pose(model, data).log_density)(jnp.array([[4.0], [6.0], [8.0]]))
    assert float(tail[0] - 2 * tail[1] + tail[2]) / 4 < -0.9
    x = np.linspace(0.0, 1.0, 10_001)
    density = np.exp(-0.5 * ((data["y"].values - x[:, None] * np.arange(6.0)) ** 2).sum(1))
    mean = float((x * density).sum() / density.sum())
    draws = post["posterior"]["slope"]
    assert abs(float(draws.mean()) - mean) < 4 * float(draws.std()) / np.sqrt(ess)


@pytest.mark.thorough
def test_the_fingerprint_changes_with_the_model_and_the_data(decay):
    model, data = decay
    same = pose(model, data).fingerprint()
    assert pose(model, data).fingerprint() == same
    stricter = eqx.tree_at(lambda m: m.noise, model, bd.NormalNoise(scale=dist.HalfNormal(1.001)))
    for other, its_data in ((stricter, data), (model, data + 0.1)):
        assert pose(other, its_data).fingerprint() != same
    rough, fine = (
        bd.Model(bd.ODE(Decay(RATE), {"y": FIRST}, rtol=rtol), NOISE) for rtol in (1e-6, 1e-7)
    )
    assert pose(rough, data).fingerprint() != pose(fine, data).fingerprint()


@pytest.mark.thorough
def test_names_and_attributes_that_netcdf_cannot_hold_cost_no_draws(decay, tmp_path):
    model, data = decay
    odd = data.assign_attrs(made=None)
    odd["y"].attrs = {"calibrated": True, "note": None, "units": "mg"}
    post = bd.fit(model, odd, SHORT, key=5)
    assert (
        bd.load(bd.save(post, tmp_path / "post.nc"))["observed_data"]["y"].attrs["note"] == "None"
    )
    layer = bd.ODE(Decay(RATE), {"y": FIRST}, observe=lambda t, y, u: {"a/b": y["y"]})
    with pytest.raises(bd.BayesDaslError, match="'a/b' has a slash"):
        bd.fit(bd.Model(layer, model.noise), data.rename(y="a/b"))


@pytest.mark.thorough
def test_a_wide_mode_below_a_narrow_one_is_kept():
    """Half of the posterior lies in a mode whose peak is 12 nats lower."""
    narrow, apart = 0.3, 6.0

    def log_likelihood(x):
        wide = -0.5 * jnp.sum((x / 1.0) ** 2)
        other = -0.5 * jnp.sum(((x - apart) / narrow) ** 2) - 10 * jnp.log(narrow)
        return jnp.logaddexp(wide, other) + 0.5 * jnp.sum((x / 10.0) ** 2)

    problem = Known(log_likelihood, np.full(10, 0.0), 100.0 * np.eye(10))
    value_and_gradient, _ = traced_once(problem)
    optimiser = _start.Optimiser(value_and_gradient)
    near = np.concatenate([np.zeros((20, 10)), np.full((20, 10), apart)]) + 0.1
    start = _start.modes_among(
        optimiser, *_start.multi_start(problem, optimiser, near=near, key=jax.random.key(0))
    )
    assert start.log_densities.max() - start.log_densities.min() == pytest.approx(
        10 * np.log(1 / narrow), abs=0.1
    )
    assert sorted(np.round(start.modes.mean(1), 1)) == [0.0, apart]
    position = _start.first_positions(start, optimiser, 8, key=jax.random.key(1))
    number = _start.nearest_mode(position[None], start.modes, start.precisions)[0]
    assert list(number) == [0, 1] * 4
    # Every chain begins as far from its mode as that mode is wide.
    for mode, precision in zip(start.modes, start.precisions, strict=True):
        away = position[number == list(map(tuple, start.modes)).index(tuple(mode))] - mode
        assert 0.5 < np.sqrt((away @ precision * away).sum(1).mean() / 10) < 1.5


@pytest.mark.thorough
def test_no_chain_begins_on_a_cliff():
    """In a bent valley draws of the normal at the mode lie up the walls, millions of nats lower."""

    def log_likelihood(x):
        return -0.5 * jnp.sum(((x[1:] - x[0] ** 2) / 1e-3) ** 2)

    problem = Known(log_likelihood, np.zeros(5), np.eye(5))
    optimiser = _start.Optimiser(traced_once(problem)[0])
    mode, precision = np.zeros(5), np.diag([1.0, 1e6, 1e6, 1e6, 1e6])
    start = _start.Start(mode[None], optimiser.evaluate(mode[None])[0], precision[None], 1, 0)
    position = _start.first_positions(start, optimiser, 8, key=jax.random.key(0))
    assert (optimiser.evaluate(position)[0] > start.log_densities - 20).all()
    assert (position != mode).all()
    assert len(np.unique(position[:, 0])) == 8
