"""Many short chains against a conjugate model, and what they say when they cannot be trusted."""

import inspect
import shutil

import arviz_stats as azs
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from blackjax import mclmc_find_L_and_step_size
from curves import Curve
from problems import POSTERIORDB_NAMES, posteriordb_lynx_hare
from scipy import stats
from seldom import seldom

import bayes_dasl as bd
from bayes_dasl.engines import ManyChain
from bayes_dasl.engines.many_chain import many_chain as many_chain, methods as _many_chain_methods
from bayes_dasl.engines.many_chain.batches import CHUNK, BatchedChains
from bayes_dasl.engines.many_chain.many_chain import ENERGY_VARIANCE
from bayes_dasl.inference import Journal, ProgressBar, pose
from bayes_dasl.layers import Prediction

METHODS = ("chees", "meads", "mclmc", "unadjusted_mclmc")
SMALL = {"chains": 64, "warmup": 48, "draws": 48, "superchains": 8}
NOISE, PRIOR = 0.5, 3.0


class Line(Curve):
    """y = level + slope · t: no solver, so that compilation is short."""

    level: bd.Scalar
    slope: bd.Scalar

    def y(self, times):
        return self.level + self.slope * times


class Square(Line):
    """y = level²: two modes of the same height."""

    def y(self, times):
        return self.level**2 + 0.0 * times


class Cut(Line):
    """The solver fails for a level below two."""

    def __call__(self, inputs):
        prediction = super().__call__(inputs)
        return Prediction(prediction.values, self.level > 2.0, prediction.stats)


def series(values):
    return xr.Dataset(
        {"y": ("time", np.asarray(values, float))}, {"time": np.arange(float(len(values)))}
    )


DATA = series(2.0 - 0.3 * np.arange(10.0) + NOISE * np.random.default_rng(0).normal(size=10))
NORMAL = dist.Normal(0.0, PRIOR)
MODEL = bd.Model(Line(NORMAL, dist.Normal(0.0, PRIOR)), bd.NormalNoise(scale=NOISE))


def closed_form(noise=NOISE):
    """Mean and standard deviation of level and slope."""
    design = np.stack([np.ones(10), DATA["time"].values], axis=1)
    covariance = np.linalg.inv(design.T @ design / noise**2 + np.eye(2) / PRIOR**2)
    return covariance @ design.T @ DATA["y"].values / noise**2, np.sqrt(np.diag(covariance))


def run(engine, model=MODEL, data=DATA, key=0, journal=None):
    with ProgressBar(False) as bar:
        return engine.run(
            pose(model, data), key=jax.random.key(key), journal=journal or Journal(), bar=bar
        )


@pytest.fixture(scope="module", params=METHODS)
def samples(request):
    return request.param, run(ManyChain(request.param, **SMALL))


def agreement(positions, mean, sd):
    """The largest deviations of mean and log sd, in Monte-Carlo standard errors."""
    draws = xr.Dataset(
        {str(i): (("chain", "draw"), positions[..., i]) for i in range(positions.shape[-1])}
    )
    error = np.array([float(v) for v in azs.mcse(draws).data_vars.values()])
    ess = np.array([float(v) for v in azs.ess(draws, method="sd").data_vars.values()])
    shift = (positions.mean((0, 1)) - mean) / error
    return abs(shift).max(), (abs(np.log(positions.std((0, 1)) / sd)) * np.sqrt(2 * ess)).max()


@pytest.mark.thorough("chees", "mclmc", "unadjusted_mclmc")
def test_each_method_draws_the_conjugate_posterior(samples):
    _, result = samples
    mean, sd = closed_form()
    assert max(agreement(result.positions, mean, sd)) < 4
    # Noise 1.2 times as large, or a mean off by a fifth of a standard deviation, would be seen.
    assert agreement(result.positions, *closed_form(1.2 * NOISE))[1] > 4
    assert agreement(result.positions, mean + 0.2 * sd, sd)[0] > 4


@pytest.mark.thorough("chees", "mclmc", "unadjusted_mclmc")
def test_a_run_is_healthy_and_says_what_it_cost(samples):
    method, result = samples
    assert result.positions.shape == (64, 48, 2)
    assert all(values.shape == (64, 48) for values in result.stats.values())
    assert result.facts["nested_rhat"] < 1.01
    assert result.stats["n_steps"].max() <= ManyChain().max_steps
    assert not result.stats["diverging"].any()
    assert len(np.unique(result.stats["step_size"])) == 1
    drawn = result.stats["n_steps"].sum() * (2 if "mclmc" in method else 1)
    assert drawn < result.facts["gradients"] < 10 * drawn
    assert ("energy_variance_per_dimension" in result.facts) == (method == "unadjusted_mclmc")
    if method != "unadjusted_mclmc":
        assert 0.6 < result.stats["acceptance_rate"].mean() < 0.99
    if method == "chees":
        kinetic = (
            result.stats["energy"][:, 1:] + result.stats["lp"][:, :-1]
        )  # exponential with mean 1 in 2 dimensions
        assert abs(kinetic.mean() - 1) < 4 / np.sqrt(kinetic.size)


@pytest.mark.thorough("chees", "mclmc", "unadjusted_mclmc")
def test_the_log_density_is_that_of_the_position(samples):
    _, result = samples
    density = pose(MODEL, DATA).log_density
    for chain, draw in ((0, 0), (17, 30), (63, 47)):
        assert float(density(jnp.asarray(result.positions[chain, draw]))) == pytest.approx(
            result.stats["lp"][chain, draw]
        )


@pytest.mark.thorough("chees", "mclmc", "unadjusted_mclmc")
def test_unadjusted_chains_say_how_large_their_energy_error_is(samples):
    method, result = samples
    if method == "unadjusted_mclmc":
        assert (
            0
            < result.facts["energy_variance_per_dimension"]
            < ENERGY_VARIANCE
            == result.facts["energy_variance_bound"]
        )


def test_the_bound_of_the_energy_variance_is_that_of_the_source():
    """BlackJAX tunes its unadjusted chains to the value of Robnik et al. (2023)."""
    (wanted,) = (
        p
        for n, p in inspect.signature(mclmc_find_L_and_step_size).parameters.items()
        if "energy_var" in n
    )
    assert wanted.default == ENERGY_VARIANCE


@pytest.mark.thorough("0")
@pytest.mark.parametrize("tries", [0, 5])
def test_a_step_size_that_is_too_large_is_found_and_reduced(monkeypatch, tries):
    """Tuning gone wrong: half of the posterior's width in a step."""

    def too_large(self, tuning, seen):
        log = jnp.full_like(tuning.log_step_size, jnp.log(1.5))
        return _many_chain_methods.EnergyTuning(log, log)

    monkeypatch.setattr(_many_chain_methods.UnadjustedMCLMC, "adapt", too_large)
    monkeypatch.setattr(many_chain, "_ENERGY_TRIES", tries)
    result = run(ManyChain("unadjusted_mclmc", **SMALL))
    trusted = result.facts["energy_variance_per_dimension"] <= ENERGY_VARIANCE
    assert trusted == (tries > 0)


@pytest.mark.thorough
@pytest.mark.parametrize("method", seldom(METHODS, "meads", "mclmc", "unadjusted_mclmc"))
def test_failing_solves_are_rejected_or_counted_as_energy_errors(method):
    """Where the solver fails there is no posterior: the level is a truncated normal, the slope
    follows it.
    """
    model = bd.Model(Cut(NORMAL, dist.Normal(0.0, PRIOR)), bd.NormalNoise(scale=NOISE))
    result = run(ManyChain(method, **SMALL), model)
    assert (result.positions[..., 0] > 2.0).all()
    assert result.stats["solver_failure"].any()
    if method == "unadjusted_mclmc":
        # An error of one in at least one step of each draw that met a failing solve.
        least = result.stats["solver_failure"].sum() / result.stats["n_steps"].sum()
        assert result.facts["energy_variance_per_dimension"] >= least
        return
    mean, sd = closed_form()
    level = stats.truncnorm((2.0 - mean[0]) / sd[0], np.inf, mean[0], sd[0])
    assert max(agreement(result.positions[..., :1], level.mean(), level.std())) < 4
    assert agreement(result.positions[..., :1], mean[0], level.std())[0] > 4  # not cut


@pytest.mark.thorough
def test_a_draw_takes_no_more_steps_than_allowed():
    """A posterior far from its Laplace approximation would have longer trajectories."""
    result = run(ManyChain("chees", max_steps=2, **SMALL))
    assert set(np.unique(result.stats["n_steps"])) <= {1, 2}


@pytest.mark.thorough
def test_superchains_begin_each_at_one_point(monkeypatch):
    begun = []
    begin = BatchedChains.begin
    monkeypatch.setattr(
        BatchedChains,
        "begin",
        lambda self, *where, key: (begun.append(where), begin(self, *where, key=key)),
    )
    result = run(ManyChain("mclmc", **SMALL))
    position, value, gradient = begun[0]
    for array in (position.reshape(8, 8, 2), value.reshape(8, 8, 1), gradient.reshape(8, 8, 2)):
        assert (array == array[:, :1]).all()
    assert len(np.unique(position, axis=0)) == 8
    apart = result.positions[:, 0].reshape(8, 8, 2)
    assert (np.ptp(apart, axis=1) > 0).all()  # each chain goes its own way


@pytest.mark.slow
def test_chains_that_do_not_mix_have_a_large_nested_rhat():
    """Two modes: each superchain keeps to its own."""
    model = bd.Model(Square(dist.Normal(0.0, 2.0), 0.0), bd.NormalNoise(scale=0.1))
    result = run(ManyChain("chees", **SMALL), model, series(np.full(6, 2.25)))
    assert sorted(np.round(result.modes.positions[:, 0], 1)) == [-1.5, 1.5]
    assert result.facts["nested_rhat"] > 1.5
    negative = (result.positions[..., 0] < 0).mean(axis=1)
    assert set(np.round(negative)) == {0.0, 1.0}


@pytest.mark.thorough
@pytest.mark.parametrize("method", seldom(["chees", "meads"], "meads"))
def test_a_run_goes_on_from_its_journal(method, tmp_path, monkeypatch):
    engine = ManyChain(method, **SMALL)
    whole = run(engine, journal=Journal(tmp_path / "run", {}))
    steps = sorted((tmp_path / "run").glob("*.step"))
    assert len(steps) == 1 + 48 // CHUNK + 48 // CHUNK  # starts, warm-up, draws
    monkeypatch.setattr(
        many_chain, "find_start", lambda *a, **k: pytest.fail("the starts were found before")
    )
    for kept in (2, 5, 7):
        shutil.copytree(tmp_path / "run", tmp_path / str(kept))
        for path in steps[kept:]:
            (tmp_path / str(kept) / path.name).unlink()
        again = run(engine, journal=Journal(tmp_path / str(kept), {}))
        np.testing.assert_array_equal(again.positions, whole.positions)
        assert again.facts == whole.facts
        for name, values in whole.stats.items():
            np.testing.assert_array_equal(again.stats[name], values)


def test_interrupted_sampling_keeps_the_draws_so_far(monkeypatch):
    advance, calls = ProgressBar.advance, []

    def stop(self, done, note=""):
        calls.append(done)
        if len(calls) == 5:  # three segments of warm-up, two of sampling
            raise KeyboardInterrupt
        advance(self, done, note)

    monkeypatch.setattr(ProgressBar, "advance", stop)
    part = run(ManyChain("mclmc", **SMALL))
    assert part.interrupted
    assert part.positions.shape == (64, 2 * CHUNK, 2)


@pytest.mark.thorough
def test_fit_with_many_chains():
    post = bd.fit(MODEL, DATA, ManyChain("mclmc", **SMALL), key=2)
    assert dict(post["posterior"].sizes) == {"chain": 64, "draw": 48}
    assert post.attrs["nested_rhat"] < 1.01
    assert post.attrs["superchains"] == 8
    assert {"lp", "acceptance_rate", "n_steps", "diverging", "step_size"} <= set(
        post["sample_stats"].data_vars
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "nuts"}, r"method='nuts'.*the methods are chees, meads"),
        ({"chains": 0}, "chains must be a whole number, at least 4"),
        ({"draws": 3}, "draws must be a whole number, at least 4"),
        ({"warmup": 10}, "warmup must be a whole number, at least 48"),
        ({"superchains": 1}, "superchains must be a whole number, at least 2"),
        ({"max_steps": True}, "max_steps must be a whole number"),
        ({"chains": 100}, "100 chains do not make 16 superchains of equal size: take chains=112"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(bd.BayesDaslError, match=message):
        ManyChain(**wrong)


@pytest.mark.parametrize("method", ["mclmc", "unadjusted_mclmc"])
def test_microcanonical_chains_need_two_dimensions(method):
    with pytest.raises(
        bd.BayesDaslError, match="at least 2 dimensions, not 1: take method='chees'"
    ):
        run(ManyChain(method), bd.Model(Line(NORMAL, 0.0), bd.NormalNoise(scale=NOISE)))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_reference_posterior(method, shared_file):
    reference = pd.read_csv(
        shared_file("reference/lotka_volterra_posteriordb_summary.csv"), index_col="parameter"
    )
    model, data = posteriordb_lynx_hare()
    post = bd.fit(model, data, ManyChain(method), key=3)
    draws = post["posterior"].to_dataset()
    for theirs, ours in POSTERIORDB_NAMES.items():
        mean, sd = reference.loc[theirs, ["mean", "sd"]]
        assert abs(float(draws[ours].mean()) - mean) < 0.1 * sd
        assert 0.93 < float(draws[ours].std()) / sd < 1.07
    assert post.attrs["nested_rhat"] < 1.01
