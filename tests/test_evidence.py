"""Bayes factors of what is added to a science, against evidence that is known, and what is refused."""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import posterior
from scipy.integrate import quad
from scipy.stats import halfnorm, norm

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError
from bayes_dasl.random import paths

TIMES = np.arange(1.0, 9.0)


def still(t, y, u):
    return {"y": 0.0 * y["y"]}


def science(noise=0.5):
    return bd.Model(bd.ODE(still, {"y": dist.Normal(0.0, 1.0)}, start=0.0), bd.NormalNoise(noise))


def noisy(scale=None):
    noise = bd.ProcessNoise({"y": dist.HalfNormal(0.5) if scale is None else scale}, (0.0, 8.0, 8))
    layer = bd.ODE(still, {"y": dist.Normal(0.0, 1.0)}, start=0.0, process_noise=noise)
    return bd.Model(layer, bd.NormalNoise(0.5))


def hybrid(scale=None):
    network = bd.Network.mlp(("y",), ("y",), dist.HalfNormal(0.1) if scale is None else scale, width=2, depth=1)
    layer = bd.ODE(bd.Residual(still, network), {"y": dist.Normal(0.0, 1.0)}, start=0.0)
    return bd.Model(layer, bd.NormalNoise(0.5))


def walked(step, seed=0):
    """Data of a random walk of so large steps."""
    rng = np.random.default_rng(seed)
    y = rng.normal() + np.cumsum(step * rng.normal(size=TIMES.size)) + 0.5 * rng.normal(size=TIMES.size)
    return xr.Dataset({"y": ("time", y)}, {"time": TIMES})


def evidence(y, step):
    """The density of the data, of a random walk of so large steps."""
    after = np.minimum.outer(TIMES, TIMES)
    cov = 1.0 + step**2 * after + 0.25 * np.eye(TIMES.size)
    return np.exp(-0.5 * (y @ np.linalg.solve(cov, y) + np.linalg.slogdet(2 * np.pi * cov)[1]))


def with_sizes(model, data, of=None):
    """As from a fit whose draws are of these sizes, and zero for all else."""
    draws = {path: np.zeros((4, 2000, *leaf.shape)) for path, leaf in paths(model).items()}
    for path in draws:
        if path.endswith(("scale.y", "closure.scale")):
            draws[path] = of
    tree = posterior(model, data, draws)
    tree.attrs["data_sha256"] = "these"
    return tree


@pytest.mark.parametrize(("step", "seed"), [(0.0, 0), (0.3, 1), (1.0, 2)])
def test_it_is_the_ratio_of_the_evidences(step, seed):
    data = walked(step, seed)
    y = data["y"].values
    prior = halfnorm(scale=0.5)
    whole = quad(lambda s: evidence(y, s) * prior.pdf(s), 0, 5, limit=200)[0]
    grid = np.linspace(0, 5, 20_001)
    weights = np.array([evidence(y, s) for s in grid]) * prior.pdf(grid)
    drawn = np.random.default_rng(0).choice(grid, (4, 2000), p=weights / weights.sum())
    models = {"science": science(), "noisy": noisy()}
    posts = {"science": with_sizes(models["science"], data), "noisy": with_sizes(models["noisy"], data, of=drawn)}
    found = bd.bayes_factors(models, posts)
    exact = np.log(whole / evidence(y, 0.0))
    row = found.table.loc["noisy"]
    if "at least" in str(found):
        assert row["log_bayes_factor"] < exact
    else:
        assert row["log_bayes_factor"] == pytest.approx(exact, abs=max(3 * row["error"], 0.1)) and row["error"] < 0.5
    assert found.weights["noisy"] == pytest.approx(1 / (1 + np.exp(-row["log_bayes_factor"])))
    thrice = bd.bayes_factors(models, posts, prior={"noisy": 3, "science": 1})
    assert thrice.weights["noisy"] == pytest.approx(3 / (3 + np.exp(-row["log_bayes_factor"])))


def test_half_of_the_probability_is_that_of_the_science():
    """Of models that data say nothing of: the posterior is the prior."""
    models = {"noisy": noisy(), "science": science(), "hybrid": hybrid()}
    rng = np.random.default_rng(1)
    drawn = {name: np.abs(size * rng.normal(size=(4, 2000))) for name, size in (("noisy", 0.5), ("hybrid", 0.1))}
    posts = {name: with_sizes(model, walked(0.0), of=drawn.get(name)) for name, model in models.items()}
    found = bd.bayes_factors(models, posts)
    assert [*found.weights] == [*models]
    np.testing.assert_allclose([*found.weights.values()], [0.25, 0.5, 0.25], atol=0.02)
    assert all("tell little" in finding.message for finding in found.findings)


def test_where_no_draw_is_near_zero_there_is_a_bound():
    models = {"science": science(), "noisy": noisy()}
    posts = {
        "science": with_sizes(models["science"], walked(1.0)),
        "noisy": with_sizes(models["noisy"], walked(1.0), of=norm(2.0, 0.1).rvs((4, 2000), random_state=0)),
    }
    found = bd.bayes_factors(models, posts)
    assert 5 < found.table.loc["noisy", "log_bayes_factor"] < 10 and found.weights["noisy"] > 0.99
    assert "at least" in str(found)


class TestRefused:
    """What has no evidence to be compared by."""

    def said(self, models, match, posts=None, **options):
        data = walked(0.0)
        drawn = np.abs(np.random.default_rng(0).normal(size=(4, 2000)))
        if posts is None:
            posts = {name: with_sizes(model, data, of=drawn) for name, model in models.items()}
        with pytest.raises(MismatchError, match=match):
            bd.bayes_factors(models, posts, **options)

    def test_one_model(self):
        self.said({"science": science()}, "two models")

    def test_two_sciences_or_none(self):
        self.said({"one": science(), "other": science(0.4)}, "of these one and other would be that")
        self.said({"noisy": noisy(), "hybrid": hybrid()}, "of these none would be that")

    def test_a_size_that_is_known(self):
        self.said({"science": science(), "noisy": noisy(0.3)}, r"size of 'layer.process_noise' is known")

    def test_a_size_that_is_never_zero(self):
        never = dist.LogNormal(0.0, 0.5)
        self.said({"science": science(), "hybrid": hybrid(never)}, "no finite density at zero by itself, as HalfNormal")
        self.said({"science": science(), "noisy": noisy(dist.Gamma(0.5, 1.0))}, "no finite density at zero")

    def test_a_size_that_hangs_on_others(self):
        size = bd.dependent(dist.HalfNormal, dist.HalfNormal(1.0))
        self.said({"science": science(), "noisy": noisy(size)}, "differ in scale")

    def test_another_science(self):
        self.said({"science": science(dist.HalfNormal(1.0)), "noisy": noisy()}, "differ in scale")

    def test_posteriors_of_others(self):
        models = {"science": science(), "noisy": noisy()}
        self.said(models, "a posterior of each", posts={})
        self.said(models, "only the model has", posts=dict.fromkeys(models, with_sizes(science(), walked(0.0))))

    def test_other_data_and_no_chains(self):
        models = {"science": science(), "noisy": noisy()}
        drawn = np.abs(np.random.default_rng(0).normal(size=(4, 2000)))
        posts = {name: with_sizes(model, walked(0.0), of=drawn) for name, model in models.items()}
        posts["noisy"].attrs["data_sha256"] = "others"
        self.said(models, "other data", posts=posts)
        posts["noisy"].attrs |= {"data_sha256": "these", "markov": 0}
        self.said(models, "no draws of its posterior", posts=posts)

    @pytest.mark.parametrize("prior", [{"science": 1.0}, {"science": 0.0, "noisy": 1.0}, {"a": 1.0, "noisy": 1.0}])
    def test_a_prior_that_is_none(self, prior):
        self.said({"science": science(), "noisy": noisy()}, "positive number for each", prior=prior)
