"""Draws that are not finite are never left out without a word."""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.scores.failures import finite_findings, usable_draws
from tests.studies.bad.given import closed, data, fitted, forecast, spoilt


def said(findings):
    return [str(finding) for finding in findings]


@pytest.mark.thorough("inf-predictions")
@pytest.mark.parametrize("group", ["predictions", "conditional_mean"])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_forecast_that_overflows_is_told(group, value):
    [finding] = said(finite_findings(fitted(), spoilt(group, slice(0, 10), value)))
    assert finding.startswith(
        "[bad] finite y: 'y' is infinite or not a number in 20 of 100 forecast draws"
    )
    [finding] = said(finite_findings(fitted(), spoilt(group, slice(0, 1), value)))
    assert finding.startswith("[warning] finite y")
    assert said(finite_findings(fitted(), forecast())) == []


def test_one_finding_for_an_observable():
    tree = spoilt("predictions", slice(0, 10))
    tree["conditional_mean"] = spoilt("conditional_mean", slice(5, 15))["conditional_mean"]
    [finding] = said(finite_findings(fitted(), tree))
    assert "in 30 of 100 forecast draws" in finding


def test_draws_whose_solve_failed_are_counted_as_such():
    tree = spoilt("predictions", slice(0, 10), np.nan)
    ok = np.ones((2, 50), bool)
    ok[:, :10] = False
    tree["sample_stats_predictions"] = xr.DataTree(xr.Dataset({"ok": (("chain", "draw"), ok)}))
    assert said(finite_findings(fitted(), tree)) == []
    np.testing.assert_array_equal(usable_draws(tree), ok)


def test_trajectories_of_a_posterior():
    post = fitted().copy(deep=True)
    mean = forecast()["conditional_mean"].to_dataset().copy(deep=True)
    mean["y"].values[0, :5, 1] = np.inf
    post["conditional_mean"] = xr.DataTree(mean)
    [finding] = said(finite_findings(post, None))
    assert "in 5 of 100 posterior draws" in finding and finding.startswith("[warning]")
    assert "finite y" in str(bd.diagnose(post))


@pytest.mark.thorough
def test_scores_and_a_report_say_it():
    tree = spoilt("predictions", slice(0, 10))
    assert str(bd.score(tree, data())).endswith("left out: 20 draws that are not finite")
    assert "left out" not in str(bd.score(forecast(), data()))
    assert (
        "20 of 100 draws failed in the solver or are not finite"
        in bd.report(fitted(), tree, data()).html
    )


def test_a_figure_says_it():
    texts = [
        t.get_text()
        for t in bd.plots.plot_forecast(spoilt("predictions", [3]), None, None, "y").axes[0].texts
    ]
    assert "2 draws that are not finite are left out" in texts


def test_a_verdict_that_looked_at_no_residual_does_not_praise_them():
    tree = spoilt("conditional_variance", slice(None))
    findings = said(bd.diagnose(fitted(), tree, data()).findings)
    assert not [f for f in findings if "training data" in f]


@pytest.mark.thorough
def test_prior_draws_that_overflow_are_told_before_a_fit():
    found = bd.check(closed(noise=bd.LogNormalNoise(dist.HalfNormal(2000.0))), data())
    [finding] = [
        f
        for f in found.findings
        if f.subject == "prior of y" and "infinite or not a number" in f.message
    ]
    assert finding.level == "warning"


def test_laws_that_are_not_finite():
    values = np.array([[0.5, np.nan, 0.7, np.inf]])
    tree = xr.DataTree.from_dict(
        {"constraint_residual": xr.Dataset({"mass": (("chain", "draw"), values)})}
    )
    table = bd.scores.consistency(tree)
    assert table.attrs["failed_draws"] == 2 and "left out: 2 draws" in str(table)
