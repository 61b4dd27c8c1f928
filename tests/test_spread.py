"""Do engines that approximate say whether their draws spread as the posterior does? By posteriors
in closed form.
"""

import re

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats
from seldom import seldom
from test_adequacy import DRAWS, LINE, NOISE, TIMES, trees

import bayes_dasl as bd
from bayes_dasl._findings import to_json, unshown_spread
from bayes_dasl.engines import swag
from bayes_dasl.inference import Journal, ProgressBar, pose
from bayes_dasl.inference.descent.spread import spread_by_density, spread_of_normal


def normal(spread, dimension=3, shift=0.0, number=1251):
    """Draws of a normal `spread` times as wide as a standard normal posterior, with both log
    densities.
    """
    z = np.random.default_rng(0).normal(size=(number, dimension))
    x = shift + spread * z
    return x, -0.5 * (x**2).sum(axis=1) - 7.0, -0.5 * (z**2).sum(axis=1)


@pytest.mark.parametrize(
    ("spread", "shift", "level", "words"),
    [
        (
            1.0,
            0.0,
            "good",
            "standard deviations are 1.00 to 1.00 times the posterior's and means at most 0.00 of "
            "these",
        ),
        (1.1, 0.0, "good", "k-hat"),
        (0.8, 0.0, "warning", "0.8"),
        (1.0, 0.4, "warning", "0.4"),
        (2.0, 0.0, "bad", "times the posterior's and means"),
        (0.1, 0.0, "bad", "they spread about 0.098 times as far as the posterior"),
        (0.4, 0.0, "bad", "they spread about 0.39 times as far"),
    ],
)
def test_importance_weights_tell_how_far_a_normal_spreads(spread, shift, level, words):
    facts, finding = spread_of_normal(*normal(spread, shift=shift))
    assert (finding.subject, finding.level) == ("spread of the draws", level), finding
    assert words in finding.message
    assert bool(finding.remedy) == (level != "good")
    assert (facts["pareto_k"] < 0.68) == ("importance weights" in finding.message)


def test_where_weights_are_no_use_and_draws_not_plainly_narrow_nothing_is_shown():
    """In many dimensions the weights of a good normal fail too."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1251, 200)) * rng.uniform(0.7, 1.4, 200)
    facts, finding = spread_of_normal(
        x, -0.5 * (x**2).sum(axis=1), stats.norm.logpdf(rng.normal(size=x.shape)).sum(1)
    )
    assert facts["pareto_k"] > 0.7
    assert finding.level == "warning" and finding.message.startswith(
        "nothing shows that it is right: PSIS k-hat "
    )
    assert "held-out data" in finding.remedy


def test_draws_where_the_solver_fails_do_not_count():
    x, posterior, normal_density = normal(1.0)
    posterior[::3] = -np.inf
    _, finding = spread_of_normal(x, posterior, normal_density)
    assert finding.level == "good"


@pytest.mark.parametrize("dimension", [2, 20, 300])
@pytest.mark.parametrize("number", [10, 20, 1000])
def test_members_of_a_posterior_are_never_called_narrow_and_those_of_a_tenth_are(dimension, number):
    rng = np.random.default_rng(1)
    for _ in range(200):
        exact = -0.5 * rng.chisquare(dimension, number)
        assert spread_by_density(exact, dimension, "").level == "warning"
        assert spread_by_density(0.1**2 * exact, dimension, "").level == "bad"


def test_the_density_of_swag_is_that_of_its_normal():
    rng = np.random.default_rng(0)
    places = rng.normal(size=(40, 3)) @ np.array(
        [[1.0, 0.8, 0.0], [0.0, 0.5, -0.4], [0.0, 0.0, 2.0]]
    )
    away = places - places.mean(axis=0)
    covariance = (np.diag(places.var(axis=0)) + away[-20:].T @ away[-20:] / 19) / 2
    x = rng.normal(size=(50, 3))
    expected = stats.multivariate_normal(places.mean(axis=0), covariance).logpdf(x)
    found = swag._swag_log_density(x, places)
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-9, atol=1e-9)


class Line(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


@pytest.fixture(scope="module")
def line():
    y = LINE @ [1.0, 1.0] + NOISE * np.random.default_rng(0).normal(size=TIMES.size)
    model = bd.Model(
        bd.Algebraic(Line(dist.Normal(0, 2), dist.Normal(0, 1))), bd.NormalNoise(NOISE)
    )
    return model, xr.Dataset({"y": ("time", y)}, {"time": TIMES})


SHORT = bd.Descent(steps=600, patience=None)
ENGINES = {
    "Laplace": (bd.engines.Laplace(starts=1, descent=SHORT), "good", "importance weights"),
    "SWAG": (
        bd.engines.SWAG(members=2, collected=10, learning_rate=1e-4, descent=SHORT),
        "bad",
        "they spread about 0.",
    ),
    "anchored": (
        bd.DeepEnsemble(10, bootstrap=False, descent=SHORT),
        "bad",
        "leave out what the noise leaves open",
    ),
    "both": (bd.DeepEnsemble(10, descent=SHORT), "warning", "nothing shows that it is right"),
}


@pytest.mark.thorough("Laplace", "anchored")
@pytest.mark.parametrize("name", seldom(ENGINES, "both"))
def test_engines_say_how_their_draws_spread_on_a_conjugate_line(line, name):
    engine, level, words = ENGINES[name]
    found = engine.run(
        pose(*line), key=jax.random.key(0), journal=Journal(), bar=ProgressBar(False)
    ).findings
    [finding] = [f for f in found if f.subject == "spread of the draws"]
    assert finding.level == level, finding
    assert words in finding.message


def forecast(rng, spread, noise):
    """A line whose draws spread so many times as far as the posterior, and data that it has not
    seen.
    """
    x = LINE[TIMES <= 4.0]
    covariance = np.linalg.inv(np.diag([0.25, 1.0]) + x.T @ x / noise**2)
    truth = rng.normal(size=2) * [2.0, 1.0]
    y = LINE @ truth + noise * rng.normal(size=TIMES.size)
    mean = covariance @ x.T @ y[TIMES <= 4.0] / noise**2
    drawn = mean + spread * rng.multivariate_normal(np.zeros(2), covariance, DRAWS)
    post, fc, test = trees(
        y, drawn @ LINE.T, np.full(DRAWS, noise), drawn, rng.normal(size=(500, 2)) * [2.0, 1.0], rng
    )
    post.attrs |= {"markov": 0, "findings": to_json([unshown_spread("one cannot say")])}
    return post, fc, test


def spread_finding(diagnosis):
    [finding] = [f for f in diagnosis.findings if f.subject == "spread of the draws"]
    return finding


@pytest.mark.thorough
def test_held_out_data_show_a_spread_only_where_they_could_refute_it():
    """Where noise is most of the forecast, they hold as many whatever the draws do."""
    post, fc, test = forecast(np.random.default_rng(0), 1.0, NOISE)
    assert spread_finding(bd.diagnose(post)).level == "warning"
    assert spread_finding(bd.diagnose(post, fc, test)).level == "warning"
    rng = np.random.default_rng(1)
    shown = [wander(rng, 1.0) for _ in range(20)]
    assert sum(level == "good" for level in shown) >= 15, shown
    narrow = [wander(rng, 0.3) for _ in range(20)]
    assert "good" not in narrow, narrow


def test_the_verdict_counts_held_out_values_once(monkeypatch):
    """Half of the values are zeros that are censored, all of which an interval that ends at zero
    holds.
    """
    monkeypatch.setattr("bayes_dasl.verdict.adequacy._WIDER", 2.0)  # whatever they show is told
    post, fc, test = wandering(np.random.default_rng(1), 1.0)
    fc["predictions"] = (
        fc["predictions"]
        .to_dataset()
        .assign(y=fc["predictions"]["y"].assign_attrs(censored_below=0.0))
    )
    test["y"] = test["y"].clip(min=0.0)
    found = {f.subject: f.message for f in bd.diagnose(post, fc, test).findings}
    count = re.compile(r"hold (\d+) of (\d+) values")
    counts = {
        count.search(found[subject]).groups()
        for subject in ("held-out data", "spread of the draws")
    }
    unseen = test.isel(time=TIMES > 4.0)
    scored = bd.score(fc, unseen).loc["y"]
    assert counts == {(str(round(scored["coverage_90"] * scored["n"])), "15")}


def wander(rng, spread):
    """Whether held-out data show draws to spread so far."""
    return spread_finding(bd.diagnose(*wandering(rng, spread))).level


def wandering(rng, spread):
    """Values of which the data know nothing, with hardly any noise: held out, they tell how wide
    draws ought to be.
    """
    values = rng.normal(size=TIMES.size)
    drawn = spread * rng.normal(size=(DRAWS, TIMES.size))
    post, fc, test = trees(
        values, drawn, np.full(DRAWS, 0.01), drawn[:, :2], rng.normal(size=(500, 2)), rng
    )
    post.attrs |= {"markov": 0, "findings": to_json([unshown_spread("one cannot say")])}
    return post, fc, test


def test_a_spread_that_is_known_to_be_wrong_is_not_shown_right():
    rng = np.random.default_rng(2)
    post, fc, test = forecast(rng, 1.0, NOISE)
    post.attrs["findings"] = to_json([spread_of_normal(*normal(0.8))[1]])
    assert spread_finding(bd.diagnose(post, fc, test)).level == "warning"
