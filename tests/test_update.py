"""Updates against a conjugate normal model: by weights, by a new fit, step by step; and data that
are refused.
"""

import dataclasses

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from curves import Curve

import bayes_dasl as bd
from bayes_dasl import update
from bayes_dasl.errors import DataError, MismatchError, ModelError, ReadError
from bayes_dasl.inference import AbstractEngine, Samples
from bayes_dasl.prediction import draws_dataset, signature
from bayes_dasl.updating.taking_in import _joined_data
from bayes_dasl.verdict import Finding

CHAINS, DRAWS = 4, 1000
PRIOR_SD, NOISE = 3.0, 0.5


class Level(Curve):
    """A state that does not move."""

    level: bd.Scalar

    def y(self, times):
        return self.level + 0.0 * times


@dataclasses.dataclass(frozen=True)
class Exact(AbstractEngine):
    """Independent draws of the conjugate posterior of whatever data the problem holds."""

    draws: int = DRAWS

    def run(self, problem, *, key, journal, bar):
        mean, sd = truth(np.asarray(problem.observed["y"]))
        z = np.asarray(jax.random.normal(key, (CHAINS, self.draws)))
        lp = np.asarray(
            jax.jit(jax.vmap(jax.vmap(problem.log_density)))((mean + sd * z)[..., None])
        )
        stats = {"lp": lp, "energy": -lp, "diverging": np.zeros(z.shape, bool)}
        findings = tuple(
            Finding("good", subject, "said by the engine") for subject in ("own", "log evidence")
        )
        return Samples((mean + sd * z)[..., None], stats, {"log_evidence": -1.0}, findings)


def truth(y):
    """Mean and standard deviation of the level, in closed form."""
    seen = y[~np.isnan(y)]
    precision = PRIOR_SD**-2 + len(seen) / NOISE**2
    return seen.sum() / NOISE**2 / precision, precision**-0.5


def model():
    return bd.Model(Level(dist.Normal(0.0, PRIOR_SD)), bd.NormalNoise(scale=NOISE))


def series(values, first=0):
    times = first + np.arange(float(len(values)))
    return xr.Dataset({"y": ("time", np.asarray(values, float), {"units": "m"})}, {"time": times})


OLD = 2.0 + NOISE * np.random.default_rng(0).normal(size=12)


@pytest.fixture(scope="module")
def post():
    return bd.fit(model(), series(OLD), Exact(), key=1)


def assert_draws(updated, y, effective=None):
    """Mean and standard deviation of the draws are those in closed form, within 4 Monte-Carlo
    errors.
    """
    mean, sd = truth(np.asarray(y))
    draws = updated["posterior"]["level"]
    assert draws.shape == (CHAINS, DRAWS)
    effective = effective or updated.attrs["effective_draws"]
    assert abs(float(draws.mean()) - mean) < 4 * sd / np.sqrt(effective)
    assert abs(float(draws.std()) / sd - 1) < 4 / np.sqrt(2 * effective)


def said_of(post, subject):
    """The findings about a subject, as text."""
    return [str(finding) for finding in bd.diagnose(post).findings if finding.subject == subject]


def test_a_few_data_are_taken_in_by_weights(post):
    new = np.array([2.3, 1.4])
    before = post.copy(deep=True)
    updated = update(model(), post, series(new, 12), engine=Exact(), key=2)
    xr.testing.assert_identical(post, before)
    everything = np.concatenate([OLD, new])
    assert updated.attrs["updated_by"] == "importance weights"
    assert updated.attrs["update_pareto_k"] < 0.7
    assert 400 < updated.attrs["effective_draws"] < CHAINS * DRAWS
    assert_draws(updated, everything)
    k, effective = updated.attrs["update_pareto_k"], updated.attrs["effective_draws"]
    taken = f"importance weights: PSIS k-hat {k:.2f}, {effective:.0f} effective draws"
    assert said_of(updated, "update") == [f"[good] update: new data were taken in by {taken}"]
    # What the engine said still stands, but the evidence is that of fewer data.
    assert said_of(updated, "own") == said_of(post, "own") == ["[good] own: said by the engine"]
    assert len(said_of(post, "log evidence")) == 1 and said_of(updated, "log evidence") == []
    # The old posterior is elsewhere: the test sees whether the data were taken in.
    with pytest.raises(AssertionError):
        assert_draws(updated, OLD)


@pytest.mark.thorough
def test_the_result_is_like_that_of_a_fit(post):
    new = series([2.3, 1.4], 12)
    updated = update(model(), post, new, key=2)
    whole = bd.fit(model(), series(np.append(OLD, [2.3, 1.4])), Exact(), key=2)
    assert set(updated.children) == set(whole.children)
    for name in ("data_sha256", "posterior_sha256", "signature", "draws_requested", "interrupted"):
        assert updated.attrs[name] == whole.attrs[name]
    for group in ("observed_data", "constant_data", "prior"):
        assert updated[group].to_dataset().sizes == whole[group].to_dataset().sizes
    xr.testing.assert_identical(
        updated["observed_data"].to_dataset(), whole["observed_data"].to_dataset()
    )
    for group in ("posterior", "log_likelihood", "conditional_mean"):
        for name, variable in whole[group].to_dataset().data_vars.items():
            assert updated[group][name].dims == variable.dims
            assert updated[group][name].attrs == variable.attrs
    level = updated["posterior"]["level"].values
    likelihood = dist.Normal(level[..., None], NOISE).log_prob(np.append(OLD, [2.3, 1.4]))
    np.testing.assert_allclose(updated["log_likelihood"]["y"], likelihood, rtol=1e-6)
    prior = dist.Normal(0.0, PRIOR_SD).log_prob(level)
    np.testing.assert_allclose(
        updated["sample_stats"]["lp"], prior + likelihood.sum(axis=-1), rtol=1e-6
    )
    assert set(updated["sample_stats"].data_vars) == {"lp", "log_weight", "diverging"}
    assert "log_evidence" not in updated.attrs
    bd.forecast(model(), updated, np.linspace(0.0, 20.0, 5))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "new",
    [
        pytest.param(np.array([12.0]), id="surprising"),
        pytest.param(np.full(2000, 2.1), id="many", marks=pytest.mark.slow),
    ],
)
def test_what_weights_cannot_carry_is_fitted_anew(post, new):
    updated = update(model(), post, series(new, 12), engine=Exact(), key=2)
    assert updated.attrs["updated_by"] == "refit"
    assert (
        updated.attrs["update_pareto_k"] >= 0.7
        or updated.attrs["effective_draws"] < 0.1 * CHAINS * DRAWS
    )
    everything = np.concatenate([OLD, new])
    [said] = said_of(updated, "update")
    assert said.startswith(
        "[good] update: new data were taken in by a refit, since weights of the old draws would not"
    )
    weights = updated.attrs["update_pareto_k"], updated.attrs["effective_draws"]
    assert said.endswith("(PSIS k-hat {:.2f}, {:.0f} effective draws)".format(*weights))
    assert_draws(updated, everything, effective=CHAINS * DRAWS)
    assert updated["observed_data"].sizes["time"] == len(everything)


@pytest.mark.thorough
def test_datum_by_datum_ends_in_the_same_posterior(post):
    new = [1.6, 2.9, 1.9, 1.5]
    updated, ways = post, []
    for i, value in enumerate(new):
        updated = update(model(), updated, series([value], 12 + i), engine=Exact(), key=10 + i)
        ways.append(updated.attrs["updated_by"])
    assert ways == ["importance weights"] * 4
    assert updated.attrs["updates"] == 4
    assert len(said_of(updated, "update")) == len(said_of(updated, "own")) == 1
    # Each resampling adds an error of its own to those of the distinct draws that are left.
    assert_draws(updated, np.append(OLD, new), effective=updated.attrs["effective_draws"] / 2)


def test_resampling_does_not_go_on_for_ever(post):
    """Few distinct draws, each with a weight like the others': k-hat alone would never see it."""
    worn = post.copy(deep=True)
    values = worn["posterior"]["level"].values
    worn["posterior"]["level"].values[:] = np.repeat(values[:, :25], 40, axis=1)
    likelihood = worn["log_likelihood"]["y"].values
    worn["log_likelihood"]["y"].values[:] = np.repeat(likelihood[:, :25], 40, axis=1)
    updated = update(model(), worn, series([2.0], 12), engine=Exact())
    assert updated.attrs["effective_draws"] < 101
    assert updated.attrs["updated_by"] == "refit"


@pytest.mark.thorough
def test_a_missing_datum_arrives():
    y = OLD.copy()
    y[3] = np.nan
    post = bd.fit(model(), series(y), Exact(), key=4)
    updated = update(model(), post, series([OLD[3]], 3), engine=Exact())
    assert updated.attrs["updated_by"] == "importance weights"
    np.testing.assert_array_equal(updated["observed_data"]["y"], OLD)
    assert_draws(updated, OLD)
    assert updated["posterior"].sizes == post["posterior"].sizes


def test_another_model_and_no_engine_are_refused(post, unchecked):
    other = bd.Model(Level(0.0), bd.NormalNoise(scale=dist.HalfNormal(NOISE)))
    with pytest.raises(MismatchError, match=r"belongs to another model: .*scale"):
        update(other, post, series([1.0], 12))
    with pytest.raises(ModelError, match="engine must be an engine such as"):
        update(model(), post, series([1.0], 12), engine=Exact)
    bare = xr.DataTree.from_dict(
        {n: g.to_dataset() for n, g in post.children.items() if n != "log_likelihood"}
    )
    bare.attrs = post.attrs
    with pytest.raises(MismatchError, match="no group 'log_likelihood'"):
        update(model(), bare, series([1.0], 12))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            series([1.0, 2.0], 11),
            r"the posterior knows 'y' at time 11 already \(\S+; the new data say 1\)",
        ),
        (series([np.nan], 12), "the new data hold no value of y: there is nothing to update by"),
        (xr.Dataset(coords={"time": [12.0]}), "the new data hold no value of y"),
        (series([np.inf], 12), "observable 'y' is infinite at time 12"),
        (
            series([1.0], 12).assign(y=("time", [1.0], {"units": "kg"})),
            "'y' is in 'kg' but the model works in 'm'",
        ),
        (series([1.0], 12).expand_dims("site"), "observable 'y' must have the one dimension time"),
        (xr.Dataset({"y": 1.0}), "coordinate 'time'"),
    ],
)
def test_new_data_that_make_no_sense(post, new, message):
    with pytest.raises(DataError, match=message):
        update(model(), post, new)


def test_data_before_those_of_the_fit_are_taken_in_where_nothing_begins_there(post, monkeypatch):
    updated = update(model(), post, series([2.3], -1))
    assert_draws(updated, [2.3, *OLD])
    assert (
        float(updated["observed_data"]["time"][0])
        == updated["constant_data"].attrs["start"]
        == -1.0
    )
    monkeypatch.setattr(Level, "_begins", True)
    with pytest.raises(
        DataError, match="new data cannot lie before the start of the model: -1 < 0"
    ):
        update(model(), post, series([1.0], -1))


class Forced(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": u["u"] - self.rate * y["y"], "z": u["u"]}


def forced():
    layer = bd.ODE(
        Forced(rate=bd.between(0.1, 1.0)), {"y": 0.0, "z": 0.0}, forcings=("u",), units={"u": "W"}
    )
    return bd.Model(layer, bd.NormalNoise(0.1))


def forced_post():
    """The groups that say what data a posterior knows: two observables, one of which has gaps."""
    times = {"time": ("time", [0.0, 1.0, 2.0], {"units": "h"})}
    observed = xr.Dataset(
        {"y": ("time", [0.0, 1.0, 2.0]), "z": ("time", [0.0, np.nan, 1.0])}, times
    )
    known = xr.Dataset({"u": ("time", [1.0, 1.0, 2.0], {"units": "W"})}, times, {"start": 0.0})
    draws = draws_dataset(forced(), {"layer.vector_field.rate": np.ones((1, 4))})
    groups = {"posterior": draws, "observed_data": observed, "constant_data": known}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["signature"] = signature(forced())
    return tree


def test_data_are_joined_on_all_times():
    new = xr.Dataset(
        {
            "z": ("time", [0.5, np.nan, 3.0]),
            "u": ("time", [np.nan, 4.0, 5.0]),
            "w": ("time", [0.0, 0.0, 0.0]),
        },
        {"time": [1.0, 1.5, 3.0]},
    )
    joined = _joined_data(forced(), forced_post(), new)
    np.testing.assert_array_equal(joined["time"], [0.0, 1.0, 1.5, 2.0, 3.0])
    np.testing.assert_array_equal(joined["y"], [0.0, 1.0, np.nan, 2.0, np.nan])
    np.testing.assert_array_equal(joined["z"], [0.0, 0.5, np.nan, 1.0, 3.0])
    np.testing.assert_array_equal(joined["u"], [1.0, 1.0, 4.0, 2.0, 5.0])
    assert joined["time"].attrs == {"units": "h"}
    assert joined["u"].attrs == {"units": "W"}
    assert set(joined.data_vars) == {"y", "z", "u"}


@pytest.mark.parametrize(
    ("u", "message"),
    [
        (None, "forcing 'u' is missing at the new time 3"),
        ([1.0, np.nan], "forcing 'u' is missing at the new time 3"),
        ([1.5, 2.0], r"forcing 'u' at time 1 was 1 in the fit and is 1\.5 in the new data"),
        (("s", [1.0, 2.0]), "'u' is in 's' but the model works in 'W'"),
    ],
)
def test_forcings_must_be_known_and_the_same(u, message):
    new = xr.Dataset({"z": ("time", [0.5, 3.0])}, {"time": [1.0, 3.0]})
    if u is not None:
        units, values = u if isinstance(u, tuple) else ("W", u)
        new["u"] = ("time", values, {"units": units})
    with pytest.raises(DataError, match=message):
        update(forced(), forced_post(), new)


@pytest.mark.thorough
def test_a_resampled_posterior_carries_its_weights(post):
    updated = update(model(), post, series([2.3], 12), engine=Exact(), key=2)
    level = updated["posterior"]["level"].values
    first = dist.Normal(level, NOISE).log_prob(2.3)
    np.testing.assert_allclose(updated["sample_stats"]["log_weight"], first, rtol=1e-6)
    again = update(model(), updated, series([1.7], 13), engine=Exact(), key=3)
    level = again["posterior"]["level"].values
    both = sum(dist.Normal(level, NOISE).log_prob(y) for y in (2.3, 1.7))
    np.testing.assert_allclose(again["sample_stats"]["log_weight"], both, rtol=1e-6)


def test_the_same_leaves_with_another_prior_are_another_model(post):
    """Weights by the likelihood alone would keep the old prior, and nobody would know."""
    other = bd.Model(Level(dist.Normal(0.0, 0.1)), bd.NormalNoise(scale=NOISE))
    with pytest.raises(MismatchError, match="another model with the same random leaves"):
        update(other, post, series([2.3], 12))
    # Of other versions of the libraries the traces cannot be compared.
    older = post.copy()
    older.attrs["version_jax"] = "0.4.0"
    assert update(other, older, series([2.3], 12)).attrs["updated_by"] == "importance weights"


@pytest.mark.thorough
def test_a_refit_by_nuts_begins_near_the_draws_and_can_be_resumed(post, tmp_path):
    new = series(np.full(300, 2.6), 12)
    engine = bd.NUTS(chains=2, warmup=150, draws=400)
    updated = update(model(), post, new, engine=engine, checkpoint=tmp_path, key=2)
    assert updated.attrs["updated_by"] == "refit"
    mean, sd = truth(np.append(OLD, np.full(300, 2.6)))
    draws = updated["posterior"]["level"]
    assert abs(float(draws.mean()) - mean) < 4 * sd / np.sqrt(200)
    assert abs(float(draws.std()) / sd - 1) < 4 / np.sqrt(400)
    assert (
        updated.attrs["warmup_steps"] < 10 * 200
    )  # a metric from a collapsed sample made each draw take 76
    kept = sorted(path.name for path in tmp_path.glob("*.step"))
    assert len(kept) > 10
    for path in kept[-3:]:
        (tmp_path / path).unlink()
    with pytest.raises(ReadError, match=r"made by bd\.update: call it again"):
        bd.resume(model(), series(np.append(OLD, np.full(300, 2.6))), tmp_path)
    again = update(model(), post, new, engine=engine, checkpoint=tmp_path, key=2)
    np.testing.assert_array_equal(draws, again["posterior"]["level"])
