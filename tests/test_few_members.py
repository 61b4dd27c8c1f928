"""Forecasts of few members: calibrated if members are, however few; the parts of the variance stay
those of members.
"""

import numpy as np
import pytest
import xarray as xr
from by_hand import at_times, levels_model, posterior
from scipy import stats
from test_log_score import BinomialNoise, MixedNoise

import bayes_dasl as bd
from bayes_dasl import diagnose
from bayes_dasl.prediction import spread_factors

REPLICATES = 2500  # times, each with levels of its own
ERROR = np.sqrt(0.9 * 0.1 / REPLICATES)


def perfect(members: int, epistemic: float, *, times: int = REPLICATES, chains: bool = False):
    """A forecast of members that are draws from where the truth is one, too; the variance of a
    datum is one.
    """
    rng = np.random.default_rng(members)
    levels = np.sqrt(epistemic) * rng.normal(size=(members + 1, times))
    truth = at_times(levels[-1] + np.sqrt(1 - epistemic) * rng.normal(size=times))
    model = levels_model(times, bd.NormalNoise(float(np.sqrt(1 - epistemic))))
    post = posterior(model, truth, {"layer.function.level": levels[None, :-1]}, chains=chains)
    return model, post, bd.forecast(model, post, truth), truth


@pytest.mark.thorough("5-0.0", "20-0.0", "20-0.5")
@pytest.mark.parametrize("epistemic", [0.0, 0.5])
@pytest.mark.parametrize("members", [5, pytest.param(10, marks=pytest.mark.slow), 20])
def test_intervals_of_perfect_members_hold_what_they_say(members, epistemic):
    _, _, fc, truth = perfect(members, epistemic)
    assert fc["predictions"].sizes["draw"] == 1000
    table = bd.score(fc, truth)
    assert 0.88 - 2 * ERROR < table.loc["y", "coverage_90"] < 0.92 + 2 * ERROR
    if epistemic == 0.0:
        assert abs(table.loc["y", "coverage_90"] - 0.9) < 4 * ERROR
        assert abs(table.loc["y", "coverage_50"] - 0.5) < 4 * np.sqrt(0.25 / REPLICATES)
        assert stats.kstest(bd.scores.pit(fc, truth)["y"].values, "uniform").pvalue > 1e-3


@pytest.mark.thorough
def test_one_draw_of_each_member_would_hold_far_less():
    _, _, fc, truth = perfect(5, 0.5, chains=True)
    assert fc["predictions"].sizes["draw"] == 5
    assert bd.score(fc, truth).loc["y", "coverage_90"] < 0.7


@pytest.mark.thorough
def test_parts_of_the_variance_are_those_of_the_members():
    """Repeating a member teaches nothing of where the members are."""
    _, post, fc, _ = perfect(6, 0.5, times=3)
    assert fc["conditional_mean"].sizes["draw"] == fc["posterior"].sizes["draw"] == 6
    parts = bd.decompose(fc)
    levels = post["posterior"]["level"].values[0]
    _, _, chains, _ = perfect(6, 0.5, times=3, chains=True)
    xr.testing.assert_identical(parts, bd.decompose(chains))
    np.testing.assert_allclose(fc["conditional_mean"]["y"].values[0], levels)
    np.testing.assert_allclose(parts["aleatoric"], 0.5)


@pytest.mark.thorough
def test_the_log_score_of_members_is_that_of_what_was_drawn():
    """As a kernel density of very many of its draws says, roughly."""
    _, _, fc, truth = perfect(5, 0.5, times=400)
    exact = bd.score(fc, truth)
    by_hand = xr.DataTree.from_dict({"predictions": fc["predictions"].to_dataset()})
    assert exact.attrs["log_score"] == {"y": "exact"}
    assert exact.loc["y", "log_score"] == pytest.approx(
        bd.score(by_hand, truth).loc["y", "log_score"], abs=0.05
    )


@pytest.mark.thorough
def test_a_failed_member_is_left_out_and_counted_once():
    model, post, _, truth = perfect(6, 0.5, times=50)
    post["posterior"]["level"].values[0, 2] = np.nan
    fc = bd.forecast(model, post, truth)
    drawn = fc["predictions"]["y"].values[0].reshape(6, -1, 50)
    assert list(np.isfinite(drawn).all(axis=(1, 2))) == [True, True, False, True, True, True]
    assert bd.score(fc, truth).attrs["failed_draws"] == 1
    rest = posterior(model, truth, {"layer.function.level": np.delete(post["posterior"]["level"].values, 2, axis=1)},
                     chains=False)  # fmt: skip
    spread = bd.forecast(model, rest, truth)["predictions"]["y"].std(["chain", "draw"])
    np.testing.assert_allclose(fc["predictions"]["y"].std(["chain", "draw"]), spread, rtol=0.15)


def test_residuals_of_repeated_members_are_those_of_the_noise():
    _, post, fc, truth = perfect(5, 0.5, times=60)
    centred = truth.assign(
        y=fc["conditional_mean"]["y"].mean(["chain", "draw"]) + np.sqrt(0.5) * noise_like(60)
    )
    post["observed_data"] = xr.DataTree(centred)
    said = [f for f in diagnose(post, fc).findings if f.aspect == "model"]
    assert [(f.level, f.subject) for f in said] == [("good", "training data")], said


def noise_like(times):
    return xr.DataArray(np.random.default_rng(4).normal(size=times), dims="time")


@pytest.mark.thorough
def test_one_member_has_the_spread_of_its_noise_alone():
    _, _, fc, _ = perfect(1, 0.5, times=50)
    spread = fc["predictions"]["y"].std(["chain", "draw"])
    np.testing.assert_allclose(spread, np.sqrt(0.5), rtol=4 / np.sqrt(2 * 1000))


@pytest.mark.parametrize("members", [5, 20])
def test_factors_are_those_of_another_member(members):
    """One more than so many normal members is Student's t with n - 1 degrees of freedom about their
    mean.
    """
    scatter = np.sqrt(
        (members - 1) / members
    )  # of members about their own mean, where that of all is 1
    made = spread_factors(members, 20_000) * scatter * np.random.default_rng(5).normal(size=20_000)
    quantiles = np.array([0.1, 0.25, 0.75, 0.9])
    exact = np.sqrt(1 + 1 / members) * stats.t.ppf(quantiles, members - 1)
    error = np.sqrt(quantiles * (1 - quantiles) / 20_000) / stats.t.pdf(exact, members - 1)
    assert (np.abs(np.quantile(made, quantiles) - exact) < 4 * error).all()


def test_a_single_member_and_very_many_are_left_where_they_are():
    assert (spread_factors(1, 4) == 1).all()
    np.testing.assert_allclose(spread_factors(10**6, 5), 1.0, atol=0.01)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("noise", "values"),
    [
        (bd.PoissonNoise(), [0.5, 4.0, 2.0, 40.0]),
        pytest.param(bd.NegativeBinomialNoise(2.0), [1.0, 4.0, 2.0, 9.0], marks=pytest.mark.slow),
        (bd.LogNormalNoise(0.3), [1.0, 4.0, 2.0, 9.0]),
        pytest.param(bd.StudentTNoise(0.3), [1.0, 4.0, 2.0, 9.0], marks=pytest.mark.slow),
        (BinomialNoise(9), [1.0, 4.0, 2.0, 4.9]),
        (MixedNoise(), [1.0, 4.0, 2.0, 9.0]),
    ],
)
def test_every_noise_can_be_repeated(noise, values):
    """Several draws a member, within the support; wider than the members where the location of the
    noise is known.
    """
    model, data = levels_model(3, noise), at_times(np.ones(3))
    levels = np.array(values)[None, :, None] * np.ones(3)
    fc = bd.forecast(
        model, posterior(model, data, {"layer.function.level": levels}, chains=False), data
    )
    drawn = fc["predictions"]["y"].values[0].reshape(4, 250, 3)
    assert bool(np.asarray(noise.support(drawn)).all())
    assert (drawn.std(axis=1) > 0).all()  # no draw is a copy
    order = np.argsort(values)
    assert (
        np.diff(np.median(drawn, axis=1)[order], axis=0) >= 0
    ).all()  # members stay in their order
