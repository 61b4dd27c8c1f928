"""Bayes factors of what is added to a science, against evidence that is known,
and what is refused.
"""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import posterior
from scipy.stats import halfnorm

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError
from bayes_dasl.random import paths
from bayes_dasl.weighting.bayes_factor import model_log_evidence

TIMES, NOISE = np.arange(1.0, 9.0), bd.NormalNoise(0.5)


def still(t, y, u):
    return {"y": 0.0 * y["y"]}


def science(noise=0.5):
    return bd.Model(bd.ODE(still, {"y": dist.Normal(0.0, 1.0)}, start=0.0), bd.NormalNoise(noise))


def noisy(scale=None):
    noise = bd.layers.ProcessNoise(
        {"y": dist.HalfNormal(0.5) if scale is None else scale}, (0.0, 8.0, 8)
    )
    layer = bd.ODE(still, {"y": dist.Normal(0.0, 1.0)}, start=0.0, process_noise=noise)
    return bd.Model(layer, bd.NormalNoise(0.5))


def hybrid(scale=None):
    network = bd.Network.mlp(
        ("y",), ("y",), dist.HalfNormal(0.1) if scale is None else scale, width=2, depth=1
    )
    layer = bd.ODE(bd.Residual(still, network), {"y": dist.Normal(0.0, 1.0)}, start=0.0)
    return bd.Model(layer, bd.NormalNoise(0.5))


def pair(scale=None):
    """Two states, of which both or none have noise."""
    noise = None if scale is None else bd.layers.ProcessNoise(scale, (0.0, 8.0, 8))
    at_rest = lambda t, y, u: {name: 0.0 * value for name, value in y.items()}  # noqa: E731
    layer = bd.ODE(
        at_rest, {name: dist.Normal(0.0, 1.0) for name in "ab"}, start=0.0, process_noise=noise
    )
    return bd.Model(layer, NOISE)


def walked(step, seed=0):
    """Data of a random walk of so large steps."""
    rng = np.random.default_rng(seed)
    y = (
        rng.normal()
        + np.cumsum(step * rng.normal(size=TIMES.size))
        + 0.5 * rng.normal(size=TIMES.size)
    )
    return xr.Dataset({"y": ("time", y)}, {"time": TIMES})


def evidence(y, step):
    """The density of the data, of a random walk of so large steps."""
    after = np.minimum.outer(TIMES, TIMES)
    cov = 1.0 + step**2 * after + 0.25 * np.eye(TIMES.size)
    return np.exp(-0.5 * (y @ np.linalg.solve(cov, y) + np.linalg.slogdet(2 * np.pi * cov)[1]))


def with_sizes(model, data, of=None, number=2000):
    """As from a fit whose draws are of these sizes, or of those of each state, and one half for all
    else.
    """
    draws = {path: np.full((4, number, *leaf.shape), 0.5) for path, leaf in paths(model).items()}
    for path in draws:
        if of is not None and path.endswith(("scale.y", "scale.a", "scale.b", "closure.scale")):
            draws[path] = of[path[-1]] if isinstance(of, dict) else of
    return posterior(model, data, draws)


def of_walks(walks, prior=None, shape=(4, 400)):
    """Draws of the posterior of the start, of the size of the steps and of the steps, of each walk;
    its log evidence.

    By name of the state; without a prior of the size there are no steps.
    """
    draws, total, rng = {}, 0.0, np.random.default_rng(0)
    for name, y in walks.items():
        grid = np.linspace(1e-4, 8.0, 8001) if prior else np.zeros(1)
        weights = np.array([evidence(y, s) for s in grid]) * (prior.pdf(grid) if prior else 1.0)
        total += np.log(weights.sum() * (grid[1] - grid[0] if prior else 1.0))
        sizes = rng.choice(grid, shape, p=weights / weights.sum())
        columns = np.tril(np.ones((TIMES.size, TIMES.size)))
        found = np.empty((*shape, 1 + TIMES.size))
        for at in np.ndindex(shape):
            design = np.column_stack([np.ones(TIMES.size), sizes[at] * columns])
            precision = np.eye(1 + TIMES.size) + design.T @ design / 0.25
            off = np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=1 + TIMES.size))
            found[at] = np.linalg.solve(precision, design.T @ y / 0.25) + off
        draws[f"layer.initial.{name}"] = found[..., 0]
        if prior:
            draws |= {
                f"layer.process_noise.scale.{name}": sizes,
                f"layer.process_noise.path.{name}": found[..., 1:],
            }
    return draws, total


@pytest.mark.parametrize(
    ("step", "seed", "by_bridge"),
    [
        pytest.param(0.0, 0, False, marks=pytest.mark.thorough),
        pytest.param(0.3, 1, False, marks=pytest.mark.thorough),
        (1.0, 2, True),
    ],
)
def test_it_is_the_ratio_of_the_evidences(step, seed, by_bridge):
    data, models = walked(step, seed), {"science": science(), "noisy": noisy()}
    draws, log_evidence = of_walks({"y": data["y"].values}, halfnorm(scale=0.5))
    at_rest, none = of_walks({"y": data["y"].values}, shape=(4, 400 if by_bridge else 1000))
    posts = {
        "science": posterior(models["science"], data, at_rest),
        "noisy": posterior(models["noisy"], data, draws),
    }
    found = bd.weighting.bayes_factors(models, posts)
    row = found.table.loc["noisy"]
    assert row["by_bridge"] == by_bridge
    wanted = pytest.approx(log_evidence - none, abs=max(3 * row["error"], 0.1))
    assert row["log_bayes_factor"] == wanted and row["error"] < 0.5
    assert found.weights["noisy"] == pytest.approx(1 / (1 + np.exp(-row["log_bayes_factor"])))
    thrice = bd.weighting.bayes_factors(models, posts, prior={"noisy": 3, "science": 1})
    assert thrice.weights["noisy"] == pytest.approx(3 / (3 + np.exp(-row["log_bayes_factor"])))


def test_half_of_the_probability_is_that_of_the_science():
    """Of models that data say nothing of: the posterior is the prior."""
    models = {"noisy": noisy(), "science": science(), "hybrid": hybrid()}
    rng = np.random.default_rng(1)
    drawn = {
        name: np.abs(size * rng.normal(size=(4, 2000)))
        for name, size in (("noisy", 0.5), ("hybrid", 0.1))
    }
    posts = {
        name: with_sizes(model, walked(0.0), of=drawn.get(name)) for name, model in models.items()
    }
    found = bd.weighting.bayes_factors(models, posts)
    assert [*found.weights] == [*models]
    np.testing.assert_allclose([*found.weights.values()], [0.25, 0.5, 0.25], atol=0.02)
    assert all("tell little" in finding.message for finding in found.findings)


@pytest.mark.thorough
def test_of_a_wide_prior_the_error_says_that_few_of_its_draws_are_near_zero():
    rng, said = np.random.default_rng(0), {}
    drawn = np.abs(0.02 * rng.normal(size=(4, 2000)))
    for width in (0.5, 10.0):
        models = {"science": science(), "noisy": noisy(dist.HalfNormal(width))}
        posts = {"science": with_sizes(models["science"], walked(0.0))}
        posts["noisy"] = with_sizes(models["noisy"], walked(0.0), of=drawn)
        said[width] = bd.weighting.bayes_factors(models, posts).table.loc["noisy"]
    less = said[0.5]["log_bayes_factor"] - said[10.0]["log_bayes_factor"]
    assert 2 * said[0.5]["error"] < said[10.0]["error"]
    assert less == pytest.approx(np.log(20.0), abs=3 * said[10.0]["error"])


@pytest.mark.thorough
def test_of_a_prior_far_wider_than_what_the_data_allow_the_evidence_is_worked_out():
    data, models = walked(0.0), {"science": science(), "noisy": noisy(dist.HalfNormal(500.0))}
    draws, log_evidence = of_walks({"y": data["y"].values}, halfnorm(scale=500.0))
    at_rest, none = of_walks({"y": data["y"].values})
    posts = {
        "science": posterior(models["science"], data, at_rest),
        "noisy": posterior(models["noisy"], data, draws),
    }
    row = bd.weighting.bayes_factors(models, posts).table.loc["noisy"]
    assert row["by_bridge"] and row["log_bayes_factor"] == pytest.approx(
        log_evidence - none, abs=0.5
    )


@pytest.mark.thorough
@pytest.mark.parametrize("width", [2.0, 50.0])
def test_several_sizes_far_from_zero_have_their_evidence_however_wide_their_priors(width):
    """The posterior of each is far from zero."""
    walks = {name: walked(2.0, seed)["y"].values for seed, name in enumerate("ab")}
    data = xr.Dataset({name: ("time", y) for name, y in walks.items()}, {"time": TIMES})
    models = {"science": pair(), "noisy": pair({name: dist.HalfNormal(width) for name in "ab"})}
    (draws, log_evidence), (at_rest, none) = of_walks(walks, halfnorm(scale=width)), of_walks(walks)
    posts = {
        "science": posterior(models["science"], data, at_rest),
        "noisy": posterior(models["noisy"], data, draws),
    }
    row = bd.weighting.bayes_factors(models, posts).table.loc["noisy"]
    assert row["by_bridge"] and log_evidence - none > 10
    assert (
        row["log_bayes_factor"] == pytest.approx(log_evidence - none, abs=0.2)
        and row["error"] < 0.3
    )


@pytest.mark.thorough
@pytest.mark.parametrize("at", [2.0, 0.3])
def test_draws_that_do_not_move_tell_no_evidence(at):
    """Also where their mean is another number by rounding."""
    models = {"science": science(), "noisy": noisy()}
    posts = {
        name: with_sizes(model, walked(1.0), of=np.full((4, 2000), at))
        for name, model in models.items()
    }
    with pytest.raises(
        MismatchError,
        match="do not tell the evidence of science and noisy: take more of each chain",
    ):
        bd.weighting.bayes_factors(models, posts)


@pytest.mark.parametrize("number", [2, 7, 30])
def test_few_draws_tell_no_evidence(number):
    """Fewer than one of four to compare, or worth less than they have numbers; nothing is warned
    of.
    """
    draws, _ = of_walks({"y": walked(2.0)["y"].values}, halfnorm(scale=0.5), (1, number))
    if number == 30:  # each thrice
        draws = {path: np.repeat(values[:, :10], 3, axis=1) for path, values in draws.items()}
    assert np.isnan(model_log_evidence(noisy(), posterior(noisy(), walked(2.0), draws))).all()


@pytest.mark.thorough
def test_draws_of_chains_count_as_what_they_are_worth():
    """Each draw of a walk four times: the same evidence,
    with the error of a quarter of the draws.
    """
    data = walked(1.0, 2)
    draws, exact = of_walks({"y": data["y"].values}, halfnorm(scale=0.5), (4, 200))
    again = {path: np.repeat(values, 4, axis=1) for path, values in draws.items()}
    once, often = (
        model_log_evidence(noisy(), posterior(noisy(), data, each)) for each in (draws, again)
    )
    assert once.value == pytest.approx(exact, abs=4 * once.error) and often.value == pytest.approx(
        exact, abs=0.3
    )
    assert 0.4 * once.error < often.error < 2.5 * once.error


class TestRefused:
    """What has no evidence to be compared by."""

    def said(self, models, match, posts=None, **options):
        data = walked(0.0)
        drawn = np.abs(np.random.default_rng(0).normal(size=(4, 2000)))
        if posts is None:
            posts = {name: with_sizes(model, data, of=drawn) for name, model in models.items()}
        with pytest.raises(MismatchError, match=match):
            bd.weighting.bayes_factors(models, posts, **options)

    def test_one_model(self):
        self.said({"science": science()}, "two models")

    def test_two_sciences_or_none(self):
        self.said({"one": science(), "other": science(0.4)}, "of these one and other would be that")
        self.said({"noisy": noisy(), "hybrid": hybrid()}, "of these none would be that")

    def test_a_size_that_is_known(self):
        self.said(
            {"science": science(), "noisy": noisy(0.3)}, r"size of 'layer.process_noise' is known"
        )

    def test_a_size_that_is_never_zero(self):
        never = dist.LogNormal(0.0, 0.5)
        self.said(
            {"science": science(), "hybrid": hybrid(never)},
            "no finite density at zero by itself, as HalfNormal",
        )
        self.said(
            {"science": science(), "noisy": noisy(dist.Gamma(0.5, 1.0))},
            "no finite density at zero",
        )

    def test_a_size_that_hangs_on_others(self):
        size = bd.dependent(dist.HalfNormal, dist.HalfNormal(1.0))
        self.said(
            {"science": science(), "noisy": noisy(size)}, "no finite density at zero by itself"
        )

    def test_another_science(self):
        self.said({"science": science(dist.HalfNormal(1.0)), "noisy": noisy()}, "differ in scale")

    def test_posteriors_of_others(self):
        models = {"science": science(), "noisy": noisy()}
        self.said(models, "a posterior of each", posts={})
        self.said(
            models,
            "only the model has",
            posts=dict.fromkeys(models, with_sizes(science(), walked(0.0))),
        )

    def test_other_data_and_no_chains(self):
        models = {"science": science(), "noisy": noisy()}
        drawn = np.abs(np.random.default_rng(0).normal(size=(4, 2000)))
        posts = {name: with_sizes(model, walked(0.0), of=drawn) for name, model in models.items()}
        other = posts | {"noisy": with_sizes(models["noisy"], walked(0.0, seed=1), of=drawn)}
        self.said(models, "other data", posts=other)
        posts["noisy"].attrs["markov"] = 0
        self.said(models, "not those of chains", posts=posts)

    @pytest.mark.thorough
    def test_other_equations_or_known_numbers(self):
        """They have the same unknown numbers with the same priors."""
        falls = bd.Model(
            bd.ODE(lambda t, y, u: {"y": -y["y"]}, {"y": dist.Normal(0.0, 1.0)}, start=0.0), NOISE
        )
        self.said({"falls": falls, "noisy": noisy()}, "there the log likelihood differs by")
        self.said({"louder": science(0.9), "noisy": noisy()}, "there the log likelihood differs by")

    def test_sizes_that_are_known_in_part_or_worked_out(self):
        shared = bd.shared(dist.HalfNormal(1.0), "s")
        self.said(
            {"science": pair(), "noisy": pair({"a": dist.HalfNormal(0.5), "b": 0.3})},
            "is known",
            posts={},
        )
        self.said(
            {"science": pair(), "noisy": pair({"a": shared, "b": shared + 0.1})},
            "worked out",
            posts={},
        )

    @pytest.mark.thorough
    def test_draws_that_are_not_finite(self):
        broken = np.abs(np.random.default_rng(0).normal(size=(4, 2000)))
        broken[0, 3] = np.nan
        models = {"science": science(), "noisy": noisy()}
        posts = {name: with_sizes(model, walked(0.0), of=broken) for name, model in models.items()}
        self.said(models, "not finite", posts=posts)

    @pytest.mark.parametrize(
        "prior", [{"science": 1.0}, {"science": 0.0, "noisy": 1.0}, {"a": 1.0, "noisy": 1.0}]
    )
    def test_a_prior_that_is_none(self, prior):
        self.said(
            {"science": science(), "noisy": noisy()}, "for each of science, noisy", prior=prior
        )
