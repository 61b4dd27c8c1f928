"""The ladder of cheap checks, and priors of which a tenth blows the solver up."""

import dataclasses
from typing import Any

import diffrax
import jax.numpy as jnp
import networks_in_solvers
import numpy as np
import numpyro.distributions as dist
import pytest
import small_study
import xarray as xr
from arviz_stats.base.array import array_stats
from scipy.stats import norm

import bayes_dasl as bd
from bayes_dasl.checking import checks
from bayes_dasl.inference import AbstractEngine, Cost, pose
from bayes_dasl.prediction import Pushed

SIGMA = 0.1
LOCATION, SPREAD = -0.64, 0.64 / norm.ppf(0.9)  # of log k: a tenth of the prior lies above k = 1
HORIZON = 1.2


class BlowUp(bd.Module):
    r"""$\dot y = k\,y^2,\; y(0) = 1$, so that $y = 1 / (1 - k t)$ leaves the finite numbers at
    $t = 1 / k$.
    """

    k: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.k * y["y"] ** 2}


def blow_up(k=None, **ode) -> bd.Model:
    """Observed as $1 / y = 1 - k t$, which the data can follow right up to the blow-up."""
    k = dist.LogNormal(LOCATION, SPREAD) if k is None else k
    layer = bd.ODE(BlowUp(k), {"y": 1.0}, lambda t, y, u: {"z": 1.0 / y["y"]}, max_steps=256, **ode)
    return bd.Model(layer, bd.NormalNoise(SIGMA))


class Line(bd.Module):
    """What is observed of it, in closed form: $1 - k t$ up to the blow-up, and no number from there
    on.
    """

    k: bd.Scalar

    def __call__(self, t, y, u):
        left = 1.0 - self.k * t
        return {"z": jnp.where(left > 0, left, jnp.nan)}


def cut_off(k=None) -> bd.Model:
    """The same failures without a solver, quick to compile."""
    k = dist.LogNormal(LOCATION, SPREAD) if k is None else k
    return bd.Model(bd.Algebraic(Line(k)), bd.NormalNoise(SIGMA))


def benign() -> xr.Dataset:
    """Data of k = 0.85, which blows up only after their last time, 1."""
    times = np.linspace(0.0, 1.0, 6)
    noise = SIGMA * np.random.default_rng(5).normal(size=6)
    return xr.Dataset({"z": ("time", 1.0 - 0.85 * times + noise)}, {"time": times})


@pytest.fixture(scope="module")
def fitted():
    model, data = cut_off(), benign()
    checked = bd.check(blow_up(), data, key=1)
    post = bd.fit(model, data, bd.NUTS(chains=2, warmup=150, draws=400), key=2)
    return checked, post, bd.forecast(model, post, np.linspace(0.0, HORIZON, 7))


@pytest.mark.thorough
def test_failures_of_the_prior_are_counted(fitted):
    _, post, _ = fitted
    ok, k = post["sample_stats_prior"]["ok"].values, post["prior"]["k"].values
    np.testing.assert_array_equal(ok, k < 1.0)
    failed = 1.0 - ok.mean()
    assert abs(failed - 0.1) < 4 * np.sqrt(0.1 * 0.9 / ok.size)


@pytest.mark.thorough
def test_failures_of_the_posterior_are_counted(fitted):
    """Trajectories that run into the blow-up are flagged and rejected: no draw lies beyond it."""
    _, post, _ = fitted
    failure = post["sample_stats"]["solver_failure"]
    assert failure.dtype == bool
    assert 0 < int(failure.sum()) < failure.size / 2
    assert float(post["posterior"]["k"].max()) < 1.0
    assert np.isfinite(post["log_likelihood"]["z"]).all()


@pytest.mark.thorough
def test_rejected_draws_do_not_bias_the_posterior(fitted):
    r"""The posterior is prior × likelihood on k < 1, cut off there: its mean by quadrature."""
    _, post, _ = fitted
    data, k = benign(), np.linspace(1e-4, 1.0, 20_001)[:-1]
    likelihood = norm.logpdf(data["z"].values[:, None], 1.0 - np.outer(data["time"], k), SIGMA).sum(
        0
    )
    log_density = likelihood + norm.logpdf(np.log(k), LOCATION, SPREAD) - np.log(k)
    weight = np.exp(log_density - log_density.max())
    mean = (weight * k).sum() / weight.sum()
    sd = np.sqrt((weight * (k - mean) ** 2).sum() / weight.sum())
    draws = post["posterior"]["k"].values
    ess = float(array_stats.ess(draws, chain_axis=0, draw_axis=1, method="mean"))
    assert abs(draws.mean() - mean) < 4 * sd / np.sqrt(ess)
    beyond = (np.exp(norm.logpdf(np.log(1.0), LOCATION, SPREAD)) * weight[-1]) > 0
    assert beyond, "the data must leave mass at the blow-up, or the test shows nothing"


@pytest.mark.thorough
def test_failures_of_the_forecast_are_counted(fitted):
    _, post, fc = fitted
    ok, k = fc["sample_stats_predictions"]["ok"].values, post["posterior"]["k"].values
    np.testing.assert_array_equal(ok, k * HORIZON < 1.0)
    assert 0 < ok.sum() < ok.size
    for group in ("predictions", "conditional_mean", "conditional_variance"):
        np.testing.assert_array_equal(np.isfinite(fc[group]["z"].values).all(-1), ok)
        np.testing.assert_array_equal(np.isnan(fc[group]["z"].values).all(-1), ~ok)


@pytest.mark.thorough
def test_the_verdict_names_the_failures_of_each_group(fitted):
    _, post, fc = fitted
    verdict = bd.diagnose(post, fc).verdict
    assert "solver failures" in verdict
    cut_short = post["sample_stats"]["solver_failure"].values
    assert (
        f"a failing solve cut short {cut_short.sum()} of {cut_short.size} posterior draws"
        in verdict
    )
    assert "divergences" not in verdict  # a trajectory that meets a failing solve is counted once
    for failed, draws, group in (
        (~post["sample_stats_prior"]["ok"].values, "prior", "sample_stats_prior"),
        (~fc["sample_stats_predictions"]["ok"].values, "forecast", "sample_stats_predictions"),
    ):
        assert f"the solver failed in {failed.sum()} of {failed.size} {draws} draws" in verdict
        assert group in verdict


@pytest.mark.thorough
def test_check_counts_the_failures_and_says_go_on_with_care(fitted):
    checked, _, _ = fitted
    assert checked.level == "warning"
    assert checked.verdict == "Ready to fit, with care: see solver."
    [solver] = [f for f in checked.findings if f.subject == "solver"]
    failed, total = (int(word) for word in solver.message.split(" prior draws")[0].split(" of "))
    assert abs(failed / total - 0.1) < 4 * np.sqrt(0.1 * 0.9 / total)
    assert "failed in the solver" in solver.message
    assert "rejected and counted" in solver.remedy


class Both(bd.Module):
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return dict.fromkeys(("y", "scaled"), self.slope * t)


def test_a_prior_that_cannot_make_the_data_is_named(monkeypatch):
    """Of two observables the one that is off is blamed, by the draws that were solved."""
    data = small_study.load()
    data["scaled"] = 1000.0 * data["y"]
    layer = bd.Algebraic(Both(dist.Normal(0.0, 1.0)))
    rng = np.random.default_rng(0)
    draws = {name: data["y"].values + rng.normal(size=(200, 10)) for name in ("y", "scaled")}
    ok = np.arange(200) < 150
    draws["scaled"][~ok] = 1e6
    monkeypatch.setattr(
        checks, "push", lambda *_, **__: Pushed({}, {}, ok, np.ones(200, int), {}, draws)
    )
    found = {f.subject: f for f in bd.check(bd.Model(layer, bd.NormalNoise(1.0)), data).findings}
    good, bad = found["prior of y"], found["prior of scaled"]
    assert good.level == "good"
    assert good.message == "10 of 10 data lie within the prior's range"
    assert bad.level == "warning"
    assert bad.message == "10 of 10 data lie outside 99 % of the prior's draws"
    assert "check units" in bad.remedy


def test_a_model_that_always_fails_is_not_ready():
    found = bd.check(cut_off(dist.Uniform(2.0, 3.0)), benign())
    assert found.verdict == "Not ready to fit: solver, density."
    assert any("256 of 256 prior draws failed" in f.message for f in found.findings)


ENGINES = (
    bd.NUTS(chains=2, warmup=100, draws=50),
    bd.engines.ManyChain(chains=32),
    bd.engines.SVI(),
    bd.engines.SMC(particles=100),
    bd.Joint(),
    bd.DeepEnsemble(members=5),
    bd.engines.MCDropout(),
    bd.engines.SWAG(),
    bd.engines.Laplace(),
)


@pytest.fixture
def uncompiled(monkeypatch):
    """Prior draws that were all solved and gradients of one, by nothing that is compiled."""
    solved = {"z": np.ones((256, 6))}
    pushed = Pushed({}, {}, np.ones(256, bool), np.ones(256, int), {}, solved)
    monkeypatch.setattr(checks, "push", lambda *_, **__: pushed)
    monkeypatch.setattr(
        checks, "many_gradients", lambda _: lambda x: (np.zeros(len(x)), np.ones(x.shape))
    )


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
def test_the_cost_is_that_of_the_engine(engine, uncompiled):
    [cost] = [f for f in bd.check(cut_off(), benign(), engine).findings if f.subject == "cost"]
    assert f"one gradient at {engine.batch} positions takes" in cost.message
    assert repr(engine) in cost.message and "compilation included" in cost.message


def costly(monkeypatch, seconds, engine, model):
    """The finding on the cost of an engine that is said to take so many seconds."""
    monkeypatch.setattr(type(engine), "cost", lambda self, problem: Cost(1, 1, 1))
    laps = iter([0.0, 0.0, 0.0, seconds, *[0.0] * 10])  # compiling takes the time
    monkeypatch.setattr(checks.time, "perf_counter", lambda: next(laps))
    [cost] = [f for f in bd.check(model, benign(), engine).findings if f.subject == "cost"]
    return cost


def test_a_fit_of_more_than_ten_minutes_is_no_green_tick(uncompiled, monkeypatch):
    engine = bd.NUTS(draws=1000)
    assert costly(monkeypatch, 590.0, engine, blow_up()).level == "good"
    cost = costly(monkeypatch, 610.0, engine, blow_up())
    assert cost.level == "warning" and cost.message.endswith(
        "610 s, compilation included: more than ten minutes"
    )
    for way in ("draws=250", "rtol=0.0001", "bd.checking.choose_solver", "bd.engines.SVI()"):
        assert way in cost.remedy


def test_a_shorter_fit_is_suggested_by_what_the_model_and_the_engine_have(uncompiled, monkeypatch):
    """A formula has no solver, and an engine that is cheap itself is not advised."""
    assert (
        costly(monkeypatch, 610.0, bd.engines.SVI(), cut_off()).remedy
        == "fit fewer data first, or let it run overnight"
    )


@dataclasses.dataclass(frozen=True)
class Own(AbstractEngine):
    """An engine of one's own: it need say no more than `draws`."""

    draws: int = 10

    def run(self, problem, *, key, journal, bar):
        raise NotImplementedError


def test_of_an_engine_of_ones_own_only_a_gradient_is_known(uncompiled):
    [cost] = [f for f in bd.check(cut_off(), benign(), Own()).findings if f.subject == "cost"]
    assert (
        cost.message.startswith("one gradient at 1 positions takes")
        and "should take" not in cost.message
    )


def gradients(problem, engine):
    """The least and the most that an engine takes at each position."""
    cost = engine.cost(problem)
    return cost.least, cost.most


@pytest.mark.thorough
def test_gradients_of_engines():
    """At each position: of a descent its steps, of NUTS the leapfrogs of its draws, more for
    networks in ODEs.
    """
    problem = pose(blow_up(), benign())
    assert gradients(
        problem, bd.engines.SWAG(collected=40, descent=bd.Descent(steps=3000, patience=None))
    ) == (
        5000,
        5000,
    )
    assert gradients(
        problem, bd.engines.MCDropout(descent=bd.Descent(steps=700, patience=None))
    ) == (700, 700)
    assert gradients(
        problem, bd.DeepEnsemble(members=5, descent=bd.Descent(steps=2000, patience=10))
    ) == (550, 2000)
    assert gradients(problem, bd.DeepEnsemble(adversarial=0.01, descent=bd.Descent(steps=200))) == (
        600,
        600,
    )
    chains = bd.NUTS(chains=4, warmup=100, draws=200, map_starts=2)
    least, most = gradients(problem, chains)
    assert (least, most) == (200 + 7 * 300, 200 + 31 * 300)
    inside = pose(networks_in_solvers.model(), networks_in_solvers.data())
    # One of the two starts is optimised again in the reparametrisation.
    assert gradients(inside, chains) == (300 + 127 * 300,) * 2
    for engine in (chains, bd.Joint()):
        assert engine.cost(inside).programs > engine.cost(problem).programs
    begun = dataclasses.replace(
        chains, start=bd.DeepEnsemble(descent=bd.Descent(steps=700, patience=None))
    )
    assert gradients(problem, begun) == (least + 700, most + 700)
    shallow = dataclasses.replace(chains, max_tree_depth=3)
    assert gradients(problem, shallow) == (200 + 7 * 300,) * 2
    assert gradients(inside, shallow) == (300 + 7 * 300,) * 2
    solved = networks_in_solvers.Decay(dist.LogNormal(-0.5, 0.3))
    beside = bd.Residual(bd.ODE(solved, {"y": 2.0}), networks_in_solvers.network())
    assert gradients(
        pose(bd.Model(beside, bd.NormalNoise(0.1)), networks_in_solvers.data()), chains
    ) == (least, most)


@pytest.mark.thorough
@pytest.mark.parametrize("engine", [bd.NUTS(gradient="reverse"), bd.Joint()])
def test_a_gradient_that_the_solver_cannot_give_is_named(engine, uncompiled):
    found = bd.check(blow_up(adjoint=diffrax.ForwardMode()), benign(), engine)
    assert found.verdict == "Not ready to fit: gradient."
    assert "only forward mode works" in str(found)


def test_a_gradient_that_is_not_finite_is_named():
    """The root of a square has a value at 0 and no gradient."""

    class Root(bd.Module):
        k: bd.Scalar

        def __call__(self, t, y, u):
            return {"z": (0.0 * self.k) ** 0.5 + 1.0}

    found = bd.check(
        bd.Model(bd.Algebraic(Root(dist.LogNormal(-2.0, 0.1))), bd.NormalNoise(1.0)), benign()
    )
    [gradient] = [f for f in found.findings if f.level == "bad"]
    assert "64 of 64 gradients are not finite, first in layer.function.k" in gradient.message


@pytest.mark.thorough
def test_a_number_that_no_datum_depends_on_is_named():
    class Spare(bd.Module):
        k: bd.Scalar
        spare: bd.Scalar
        table: Any

        def __call__(self, t, y, u):
            return {"z": 1.0 - self.k * t + self.table[0]}

    numbers = dist.Normal(0.0, 1.0), dist.HalfNormal(1.0), dist.Normal(np.zeros(3), 1.0).to_event(1)
    found = bd.check(
        bd.Model(bd.Algebraic(Spare(*numbers)), bd.NormalNoise(dist.HalfNormal(1.0))), benign()
    )
    [warned] = [f for f in found.findings if f.level != "good"]
    assert warned.message.startswith("no datum depends on layer.function.spare: ")
    assert found.verdict == "Ready to fit, with care: see unknown numbers."


@pytest.mark.usefixtures("unchecked")
def test_nothing_is_raised_whatever_is_wrong(monkeypatch):
    """An error of a user's own, in a rung that is not the first, is told beside those that were
    climbed.
    """

    def fail(*args, **options):
        raise RuntimeError("a table that the equation reads is gone")

    monkeypatch.setattr(checks, "push", fail)
    found = bd.check(cut_off(), benign())
    assert found.level == "bad" and [f.level for f in found.findings] == ["good", "bad"]
    assert "RuntimeError: a table that the equation reads is gone" in str(found)
    for bad in (
        bd.check(cut_off(), benign(), key=1.5),
        bd.check(cut_off(), benign(), bd.NUTS),
        bd.check(1, 2),
    ):
        assert bad.level == "bad"


@pytest.mark.parametrize(
    ("failed", "level"), [(0, "good"), (2, "good"), (3, "warning"), (128, "bad")]
)
def test_a_prior_draw_in_a_hundred_may_fail(failed, level):
    """Of 256 draws: without two of them no probability changes by a hundredth."""
    [finding] = checks._solver(
        blow_up(), Pushed({}, {}, np.arange(256) >= failed, np.full(256, 9), {}, {})
    )
    assert finding.level == level and bool(finding.remedy) == (level != "good")
    assert ("all 256" if failed == 0 else f"{failed} of 256 prior draws failed") in finding.message


class Two(bd.Module):
    """Two outputs, driven by two forcings."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"a": self.rate * u["rain"], "b": self.rate * u["sun"]}


def test_all_problems_are_reported_at_once():
    """Each bad variable is named, not only the first."""
    layer = bd.Algebraic(Two(bd.between(0.1, 1.0)), forcings=("rain", "sun"))
    model = bd.Model(layer, bd.LogNormalNoise(bd.between(0.1, 1.0)))
    ones = np.ones(3)
    good = {"a": ("time", ones), "b": ("time", ones), "rain": ("time", ones), "sun": ("time", ones)}
    data = xr.Dataset(good, {"time": [0.0, 1.0, 2.0]})
    gap = ("time", [1.0, np.nan, 1.0])

    def said(data):
        return [finding.message for finding in bd.check(model, data).findings]

    bad = [*said(data.assign(a=-data["a"], b=("time", [1.0, 0.0, 1.0]), rain=gap, sun=gap))]
    for words in ("'a' is -1", "'b' is 0", "'rain' is missing", "'sun' is missing"):
        assert sum(words in message for message in bad) == 1, bad
    assert len(bad) == 4
    absent = said(data.drop_vars(["a", "sun"]))
    assert len(absent) == 2
    assert "observable 'a' is not in the data" in absent[0]
    assert absent[1] == "'sun' is not in the data"
