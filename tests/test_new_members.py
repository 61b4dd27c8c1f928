"""New members of a population, taken in without a fit of the others: against the normal hierarchy
in closed form.
"""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.stats import multivariate_normal

import bayes_dasl as bd
from bayes_dasl.errors import DataError, MismatchError, ModelError

SPREAD, NOISE, WIDE = 1.0, 0.5, 3.0
OLD, NEW = ["a", "b", "c", "d"], ["e", "f"]
CHAINS, DRAWS = 4, 1000


class Flat(bd.Module):
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + 0.0 * t}


def model(members, noise=NOISE):
    center = bd.shared(dist.Normal(0.0, WIDE), "center")
    level = bd.varying(bd.dependent(dist.Normal, center, SPREAD))
    return bd.Model(bd.Each(bd.Algebraic(Flat(level)), members), bd.NormalNoise(noise))


def series(members, means, seed=0):
    rng = np.random.default_rng(seed)
    values = np.asarray(means) + NOISE * rng.normal(size=(5, len(members)))
    return xr.Dataset(
        {"y": (("time", "subject"), values)}, {"time": np.arange(5.0), "subject": members}
    )


def exact(data, noise=NOISE):
    """Mean and covariance of the centre and of all levels, given their data."""
    number = data.sizes["subject"]
    prior = np.full((number + 1, number + 1), WIDE**2)
    prior[1:, 1:] += SPREAD**2 * np.eye(number)
    precision = np.linalg.inv(prior)
    precision[1:, 1:] += np.diag(data["y"].notnull().sum("time").values / noise**2)
    covariance = np.linalg.inv(precision)
    return covariance @ np.concatenate([[0.0], data["y"].sum("time").values / noise**2]), covariance


LEVELS = [0.5, 1.5, 2.5, 1.0]


@pytest.fixture(scope="module")
def fitted():
    return drawn(series(OLD, LEVELS))


def drawn(data, noise=NOISE):
    """The posterior of the members that were fitted,
    drawn from the closed form in place of a fit.
    """
    post = bd.fit(model(OLD, noise), data, bd.NUTS(chains=2, warmup=100, draws=20), progress=False)
    mean, covariance = exact(data, noise)
    drawn = np.random.default_rng(5).multivariate_normal(mean, covariance, (CHAINS, DRAWS))
    held = post["posterior"].to_dataset()
    center, level = held["center"], held["level"]
    at = {"chain": np.arange(CHAINS), "draw": np.arange(DRAWS)}
    drawn = xr.Dataset(
        {
            "center": (center.dims, drawn[..., 0], center.attrs),
            "level": (level.dims, drawn[..., 1:], level.attrs),
        },
        {"subject": OLD, **at},
    )
    groups = {name: post[name].to_dataset() for name in ("observed_data", "constant_data")}
    tree = xr.DataTree.from_dict({"posterior": drawn, **groups})
    tree.attrs = post.attrs
    return tree


def test_new_members_have_the_posterior_of_a_fit_of_all(fitted):
    """One member near the population, one far from it, which moves the centre."""
    new = series(NEW, [1.0, 4.5], seed=1)
    post = bd.update(model(NEW), fitted, new, key=2)
    mean, covariance = exact(xr.concat([series(OLD, LEVELS), new], "subject"))
    sd = np.sqrt(np.diag(covariance))
    effective = post.attrs["effective_draws"]
    found = np.stack(
        [post["posterior"]["center"], *post["posterior"]["level"].transpose("subject", ...)]
    )
    for i, at in enumerate((0, 5, 6)):
        assert abs(found[i].mean() - mean[at]) < 4 * sd[at] / np.sqrt(effective)
        assert abs(found[i].std() / sd[at] - 1) < 4 / np.sqrt(2 * effective)
    expected = covariance[5, 0] / sd[5] / sd[0]
    assert abs(np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] - expected) < 4 / np.sqrt(
        effective
    )
    assert post["log_likelihood"]["y"].shape == (CHAINS, DRAWS, 5, 2)
    fc = bd.forecast(model(NEW), post, np.arange(5.0, 8.0))
    assert fc.attrs["what_if"] == 0 and fc["predictions"]["y"].sizes["subject"] == 2


def test_they_learn_on_by_weights_and_never_by_a_refit(fitted):
    new = series(NEW, [1.0, 4.5], seed=1)
    post = bd.update(model(NEW), fitted, new.isel(time=slice(0, 3)), key=2)
    whole = bd.update(model(NEW), post, new.isel(time=slice(3, 5)), key=3)
    mean, covariance = exact(xr.concat([series(OLD, LEVELS), new], "subject"))
    level, effective = whole["posterior"]["level"], whole.attrs["effective_draws"]
    for at, member in ((5, "e"), (6, "f")):
        drawn = level.sel(subject=member)
        assert abs(float(drawn.mean()) - mean[at]) < 6 * np.sqrt(covariance[at, at] / effective)
    far = new.isel(time=slice(3, 5)) + 20.0
    with pytest.raises(
        DataError, match="of subject e, f, given the fit of others, and weights cannot take in"
    ):
        bd.update(model(NEW), post, far, key=3)


def test_what_cannot_be_taken_in_is_refused(fitted):
    with pytest.raises(DataError, match="fit all members together"):
        bd.update(model(["e"]), fitted, series(["e"], [60.0]), key=2)
    with pytest.raises(MismatchError, match="has not seen subject e: give a model of these alone"):
        bd.update(model([*OLD, "e"]), fitted, series(["e"], [1.0]), key=2)


def test_each_member_is_left_out_as_in_closed_form(fitted):
    """The density of each member's data given those of all others."""
    data = series(OLD, LEVELS)
    found = bd.weighting.loo_members(model(OLD), fitted, copies=2000)
    np.testing.assert_allclose(found.elpd_i, left_out_exactly(data), atol=0.15)
    assert (found.pareto_k < 0.7).all()


def left_out_exactly(data, noise=NOISE):
    """The log density of each member's data given those of all others."""
    number, times = data.sizes["subject"], data.sizes["time"]
    owner = np.repeat(np.arange(number), times)
    y = data["y"].transpose("subject", "time").values.ravel()
    joint = WIDE**2 + SPREAD**2 * (owner[:, None] == owner) + noise**2 * np.eye(y.size)
    whole = multivariate_normal(cov=joint).logpdf(y)
    given = [
        multivariate_normal(cov=joint[np.ix_(rest, rest)]).logpdf(y[rest])
        for rest in (owner != np.arange(number)[:, None])
    ]
    return whole - np.array(given)


# Vague data, so that candidates from the population meet those of a member that lies far from it.
VAGUE = 3.0


@pytest.mark.thorough
def test_an_outlying_member_is_left_out_by_moment_matching():
    """It moves the centre further than importance weights alone can take back."""
    data = series(OLD, [0.5, -0.5, 0.0, 14.0]).isel(time=[0])
    post = drawn(data, VAGUE)
    found = bd.weighting.loo_members(model(OLD, VAGUE), post, copies=300)
    assert found.influence_pareto_k[3] > 0.7 > found.pareto_k.max()
    exact_elpd = left_out_exactly(data, VAGUE)
    np.testing.assert_allclose(found.elpd_i, exact_elpd, atol=0.1)
    assert found.elpd == pytest.approx(exact_elpd.sum(), abs=0.2) and not found.warning


@pytest.mark.thorough
def test_a_member_is_left_out_of_a_group_that_the_others_inform():
    """The number of its site stays as its neighbours there make it."""
    members, sites = np.array([*"abcdef"]), np.array([*"uuuvvv"])
    center = bd.shared(dist.Normal(1.0, 2.0), "center")
    of_site = bd.varying(bd.dependent(dist.Normal, center, 1.0), by={"site": sites})
    level = bd.varying(bd.dependent(dist.Normal, of_site, 0.7))
    grouped = bd.Model(bd.Each(bd.Algebraic(Flat(level)), members), bd.NormalNoise(1.0))
    y = np.array([0.5, 1.0, 1.5, 3.0, 3.5, 9.0])
    data = xr.Dataset({"y": (("time", "subject"), y[None])}, {"time": [0.0], "subject": members})
    post = bd.fit(grouped, data, bd.NUTS(chains=4, warmup=300, draws=500), progress=False)
    found = bd.weighting.loo_members(grouped, post, copies=500)
    joint = 4.0 + 1.0 * (sites[:, None] == sites) + (0.7**2 + 1.0) * np.eye(6)
    whole = multivariate_normal(np.ones(6), joint).logpdf(y)
    for m, rest in enumerate(~np.eye(6, dtype=bool)):
        of_rest = multivariate_normal(np.ones(5), joint[np.ix_(rest, rest)]).logpdf(y[rest])
        assert float(found.elpd_i[m]) == pytest.approx(whole - of_rest, abs=0.15)


def test_only_members_of_a_population_are_left_out(fitted):
    with pytest.raises(ModelError, match="members are left out of a population"):
        bd.weighting.loo_members(bd.Model(bd.Algebraic(Flat(1.0)), bd.NormalNoise(NOISE)), fitted)


@pytest.mark.parametrize("copies", [0, 1.5])
def test_copies_are_a_whole_number(fitted, copies, unchecked):
    with pytest.raises(ModelError, match="copies must be a whole number of at least 1"):
        bd.weighting.loo_members(model(OLD), fitted, copies=copies)
