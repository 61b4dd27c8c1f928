"""Parameters that data know only in combination, or not at all, by draws from posteriors in closed
form.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bayes_dasl.verdict.posterior_findings import posterior_findings

DRAWS, PRIOR_DRAWS, PROPOSALS = 4000, 500, 400_000
UNIT = {"lower": 0.0, "upper": 1.0}


def log_normal(sd):
    return stats.lognorm(sd)


def known(value, mean, sd):
    return stats.norm(mean, sd).logpdf(value)


def variables(values, group="science"):
    """Draws `(draw, …)` as a dataset of one chain."""
    dims = {
        n: ("chain", "draw", *(f"{n}_dim_{i}" for i in range(np.ndim(v) - 1)))
        for n, v in values.items()
    }
    return xr.Dataset(
        {n: (dims[n], np.asarray(v)[None], {"group": group}) for n, v in values.items()}
    )


def findings(draws, prior, bounds=None, group="science"):
    tree = xr.DataTree.from_dict(
        {"posterior": variables(draws, group), "prior": variables(prior, group)}
    )
    tree.attrs["bounds"] = json.dumps(bounds or {})
    return list(posterior_findings(tree, agreed=True))


def said(priors, log_likelihood, bounds=None):
    """What is said of a posterior that prior draws make, resampled by their likelihood."""
    rng = np.random.default_rng(0)
    proposed = {name: prior.rvs(size=PROPOSALS, random_state=rng) for name, prior in priors.items()}
    weight = log_likelihood(SimpleNamespace(**proposed))
    weight = np.exp(weight - weight.max())
    assert weight.sum() ** 2 / (weight**2).sum() > 1000
    kept = rng.choice(PROPOSALS, DRAWS, p=weight / weight.sum())
    before = {name: prior.rvs(size=PRIOR_DRAWS, random_state=rng) for name, prior in priors.items()}
    return findings({name: values[kept] for name, values in proposed.items()}, before, bounds)


COMBINED = {
    "a product": (
        {"k1": log_normal(1.0), "k2": log_normal(1.0)},
        lambda x: known(np.log(x.k1 * x.k2), 0.0, 0.02),
        "k1 and k2",
        "k1 · k2 is known to within 2 %, k1 / k2 is not: the posterior is as wide as the prior",
    ),
    "a product under half-Cauchy priors": (
        {"k1": stats.halfcauchy(), "k2": stats.halfcauchy()},
        lambda x: known(np.log(x.k1 * x.k2), 0.0, 0.02),
        "k1 and k2",
        "k1 · k2 is known to within 2 %, k1 / k2 is not",
    ),
    "a product under normal priors that reach below zero": (
        {"k1": stats.norm(1.0, 0.5), "k2": stats.norm(1.0, 0.5)},
        lambda x: known(x.k1 * x.k2, 0.6, 0.01),
        "k1 and k2",
        "k1 · k2 is known to within 1.7 %, k1 / k2 is not",
    ),
    "a power": (
        {"k1": log_normal(1.0), "k2": log_normal(1.0)},
        lambda x: known(np.log(x.k1 * x.k2**2), 0.0, 0.04),
        "k1 and k2",
        "k1^0.5 · k2 is known to within 2 %, k1^0.5 / k2 is not",
    ),
    "a sum of positive parameters": (
        {"k1": stats.expon(), "k2": stats.expon()},
        lambda x: known(x.k1 + x.k2, 1.0, 0.02),
        "k1 and k2",
        "k1 + k2 is known to within 0.02, k1 − k2 is not",
    ),
    "a difference": (
        {"a": stats.norm(), "b": stats.norm()},
        lambda x: known(x.a - x.b, 0.3, 0.02),
        "a and b",
        "a − b is known to within 0.02, a + b is not",
    ),
    "three factors": (
        {"k1": log_normal(1.0), "k2": log_normal(1.0), "k3": log_normal(1.0)},
        lambda x: known(np.log(x.k1 * x.k2 / x.k3), 0.0, 0.02),
        "k1, k2 and k3",
        "only k1 · k2 / k3 is known, to within 2 %: along other combinations of them the posterior "
        "is as wide",
    ),
    "two products of three factors": (
        {"k1": log_normal(1.0), "k2": log_normal(1.0), "k3": log_normal(1.0)},
        lambda x: known(np.log(x.k1 * x.k2), 0.0, 0.1) + known(np.log(x.k2 * x.k3), 0.0, 0.1),
        "k1, k2 and k3",
        "the data tie them to each other, but do not identify",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", COMBINED)
def test_a_combination_that_alone_is_known_is_named(case):
    priors, log_likelihood, subject, words = COMBINED[case]
    (finding,) = said(priors, log_likelihood)
    assert finding.level == "warning" and finding.subject == f"identifiability of {subject}"
    assert words in finding.message
    first = next(iter(priors))
    assert f"bd.sensitivity.profile_likelihood(model, data, '{first}', post=post)" in finding.remedy
    assert "bd.sensitivity.fisher_information(model, data, post)" in finding.remedy


def test_a_combination_that_is_known_exactly_has_a_number():
    """Rounding left its variance below zero, so that it was known "to within a factor of nan"."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        z, prior = rng.normal(size=1000), np.exp(rng.normal(size=(2, 500)))
        (finding,) = findings(
            {"a": np.exp(z), "b": np.exp(-z)}, dict(zip("ab", prior, strict=True))
        )
        assert "nan" not in finding.message, finding


def test_factors_under_uniform_priors_are_not_told_to_widen_them():
    """Both factors pile up at zero: a wider prior would tell neither of them."""
    priors = {"k1": stats.uniform(0, 1), "k2": stats.uniform(0, 1)}
    (finding,) = said(priors, lambda x: known(x.k1 * x.k2, 0.003, 0.0003), {"k1": UNIT, "k2": UNIT})
    assert "k1 · k2 is known" in finding.message and "widen" not in finding.remedy


SOUND = {
    "a line": (
        {"a": stats.norm(0, 2), "b": stats.norm(0, 1)},
        lambda x: sum(known(x.a + x.b * t, 1 + t / 2, 0.5) for t in np.linspace(3, 6, 8)),
    ),
    "one about which nothing is said": (
        {"k": log_normal(1.0), "nuisance": log_normal(0.2)},
        lambda x: known(np.log(x.k), 0.0, 0.05),
    ),
    "a factor that the prior knows": (
        {"k1": log_normal(0.1), "k2": log_normal(1.0)},
        lambda x: known(np.log(x.k1 * x.k2), 0.0, 0.02),
    ),
    "two rates that can change places": (
        {"k1": log_normal(1.0), "k2": log_normal(1.0)},
        lambda x: known(np.log(x.k1 * x.k2), 0.0, 0.06) + known(x.k1 + x.k2, 2.5, 0.06),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SOUND)
def test_sound_posteriors_are_left_alone(case):
    assert said(*SOUND[case]) == []


def test_parameters_that_their_prior_ties_are_left_alone():
    """Shares that sum to one, and a number whose prior depends on another."""
    rng = np.random.default_rng(0)
    prior, draws = rng.dirichlet([1, 1, 1], PRIOR_DRAWS), rng.dirichlet([1, 1, 1], DRAWS)
    assert findings({"share": draws}, {"share": prior}) == []
    prior, draws = (
        {"a": a, "b": a + 0.1 * rng.normal(size=n)}
        for n in (500, DRAWS)
        for a in [rng.normal(size=n)]
    )
    assert findings(draws, prior) == []


def test_weights_of_networks_and_random_effects_are_left_out():
    rng = np.random.default_rng(0)

    def pair(size):
        first = rng.normal(size=size)
        return {"a": first, "b": 1e-3 * rng.normal(size=size) - first}

    draws, prior = pair(DRAWS), {name: rng.normal(size=PRIOR_DRAWS) for name in "ab"}
    assert findings(draws, prior)
    assert findings(draws, prior, group="network") == findings(draws, prior, group="latent") == []
    of_members = [variables({n: v[:, None] for n, v in group.items()}) for group in (draws, prior)]
    renamed = [group.rename({f"{n}_dim_0": "subject" for n in "ab"}) for group in of_members]
    tree = xr.DataTree.from_dict(dict(zip(("posterior", "prior"), renamed, strict=True)))
    assert list(posterior_findings(tree, agreed=True)) == []


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        (
            lambda k: 0.0 * k,
            "the data say nothing about k: its posterior is its prior, level from 0.001 to 1000",
        ),
        (
            lambda k: k / (k + 0.05),
            "the data set no upper limit: the posterior is level up to the bound of 1000",
        ),
        (
            lambda k: 1.0 + 30.0 * k,
            "the data set no lower limit: the posterior is level down to the bound of 0.001",
        ),
    ],
)
def test_a_parameter_that_only_its_bound_ends_is_not_identified(mean, message):
    """As fast steps of a pathway under log-uniform priors, among many parameters with bounds that
    are told.
    """
    priors = {"k": stats.loguniform(1e-3, 1e3)} | {f"p{i}": stats.uniform(0, 1) for i in range(8)}
    bounds = {name: UNIT for name in priors} | {"k": {"lower": 1e-3, "upper": 1e3}}

    def log_likelihood(x):
        target = float(mean(np.array(1e3 if "upper" in message else 1e-3)))
        return known(mean(x.k), target, 0.3)

    found = {f.subject: f for f in said(priors, log_likelihood, bounds)}
    assert found["identifiability of k"].message.startswith(message)
    assert "widen" not in found["identifiability of k"].remedy


@pytest.mark.parametrize(
    ("low", "high", "limit"),
    [(1.0, 1e3, "95 % of it lies above 1.39"), (1e-3, 1.0, "95 % of it lies below 0.7")],
)
def test_the_limit_that_the_data_set_is_told(low, high, limit):
    rng = np.random.default_rng(0)
    draws = {"k": stats.loguniform(low, high).rvs(size=DRAWS, random_state=rng)}
    prior = {"k": stats.loguniform(1e-3, 1e3).rvs(size=PRIOR_DRAWS, random_state=rng)}
    (finding,) = findings(draws, prior, {"k": {"lower": 1e-3, "upper": 1e3}})
    assert limit in finding.message  # exactly 10^0.15 = 1.41 and 10^-0.15 = 0.71


@pytest.mark.parametrize("draws", [stats.norm(0.5, 0.15), stats.uniform(0.6, 0.4)])
def test_a_parameter_that_the_data_bound_is_identified(draws):
    """In the middle of its prior's range, or level over less than half of it: there the prior is
    little wider.
    """
    rng = np.random.default_rng(0)
    drawn = {"k": np.clip(draws.rvs(size=DRAWS, random_state=rng), 0.001, 0.999)}
    assert findings(drawn, {"k": rng.uniform(size=PRIOR_DRAWS)}, {"k": UNIT}) == []


@pytest.mark.parametrize(("mean", "sd"), [(0.4, 0.3), (0.35, 0.25)])
def test_a_hump_that_is_lower_at_the_bound_is_not_level_there(mean, sd):
    """Nine tenths of the draws reach over two thirds of the prior's range, but the bound has 0.4 of
    the density.
    """
    law, rng = stats.truncnorm(-mean / sd, (1 - mean) / sd, mean, sd), np.random.default_rng(0)
    assert law.ppf(0.9) > 0.65 and law.pdf(0.0) / law.pdf(mean) == pytest.approx(0.4, abs=0.03)
    drawn = {"k": law.rvs(size=DRAWS, random_state=rng)}
    assert findings(drawn, {"k": rng.uniform(size=PRIOR_DRAWS)}, {"k": UNIT}) == []


def test_a_truncated_informative_prior_is_no_fault():
    rng = np.random.default_rng(0)
    prior, draws = (
        {"k": stats.truncnorm.rvs(-2, 2, 0.5, 0.25, size=n, random_state=rng)} for n in (500, DRAWS)
    )
    assert findings(draws, prior, {"k": UNIT}) == []
