"""ArviZ on a fit as it comes out: missing data, several observables, and data that a known state
predicts.
"""

import arviz_plots as azp
import arviz_stats as azs
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from scipy.stats import lognorm, norm
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl._statistics import stored_log_likelihood
from bayes_dasl.errors import ModelError
from bayes_dasl.prediction import fitted_observables

TIMES = np.arange(0.0, 12.0, 0.5)
NOISE = 0.4
ENGINE = bd.NUTS(chains=2, draws=250)
NAMES = ("parent", "daughter")
LOSS = dist.LogNormal(-2.0, 0.4)
PLOTS = (
    "plot_loo_pit",
    "plot_ppc_dist",
    "plot_ppc_pit",
    "plot_ppc_tstat",
    "plot_ppc_interval",
    "plot_prior_posterior",
)


class Decays(bd.Module):
    """Parent and daughter, from 10 mg of the parent at time 0, solved in closed form."""

    rate: bd.Scalar
    loss: bd.Scalar

    def __call__(self, t, y, u):
        parent, left = jnp.exp(-self.rate * t), jnp.exp(-self.loss * t)
        made = self.rate / (self.loss - self.rate) * (parent - left)
        return {"parent": 10.0 * parent, "daughter": 10.0 * made}


class Level(bd.Module):
    """The same at all times."""

    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + 0.0 * t}


def model(loss=LOSS):
    """The parent starts at what is known, and is seen with a noise that is known."""
    return bd.Model(
        bd.Algebraic(Decays(dist.LogNormal(-1.0, 0.3), loss)),
        {"parent": bd.NormalNoise(NOISE), "daughter": bd.NormalNoise(dist.LogNormal(-1.0, 0.3))},
    )


def load():
    """The parent lacks three values and the daughter two others."""
    rng = np.random.default_rng(3)
    parent = 10.0 * np.exp(-0.4 * TIMES)
    daughter = 0.4 * 10.0 / (0.15 - 0.4) * (np.exp(-0.4 * TIMES) - np.exp(-0.15 * TIMES))
    truth = dict(zip(NAMES, (parent, daughter), strict=True))
    values = {name: mean + NOISE * rng.normal(size=len(TIMES)) for name, mean in truth.items()}
    values["parent"][[2, 5, 11]] = np.nan
    values["daughter"][[5, 8]] = np.nan
    return xr.Dataset(
        {name: ("time", v, {"units": "mg"}) for name, v in values.items()}, {"time": TIMES}
    )


@pytest.fixture(scope="module")
def data():
    return load()


@pytest.fixture(scope="module")
def post(data):
    return bd.fit(model(), data, ENGINE, key=1)


def test_the_groups_hold_the_data_that_are_there(post, data):
    for name, number in (("parent", 21), ("daughter", 22)):
        along = f"{name}_datum"
        seen = data[name].dropna("time")
        observed = post["observed_data"][name]
        assert observed.dims == (along,) and observed.attrs["units"] == "mg"
        np.testing.assert_array_equal(observed, seen)
        np.testing.assert_array_equal(observed[f"{name}_time"], seen["time"])
        for group in ("posterior_predictive", "log_likelihood"):
            assert post[group][name].dims == ("chain", "draw", along)
            assert post[group][name].shape == (2, 250, number)
            assert np.isfinite(post[group][name]).all()
    xr.testing.assert_equal(fitted_observables(post), data)
    joint = post["log_likelihood"]["joint"]
    assert list(post["log_likelihood"].data_vars) == ["joint"]
    assert joint.dims == ("chain", "draw", "datum") and joint.shape == (2, 250, 43)
    first = joint[..., joint["datum_observable"].values == "parent"]
    np.testing.assert_array_equal(first, post["log_likelihood"]["parent"])
    np.testing.assert_array_equal(first["datum_time"], data["parent"].dropna("time")["time"])


def test_log_densities_are_those_by_scipy(post, data):
    draws, mean = post["posterior"], post["conditional_mean"]
    expected = 0.0
    for name, scale in (("parent", NOISE), ("daughter", draws["scale"])):
        each = xr.apply_ufunc(norm.logpdf, data[name], mean[name], scale)
        expected = expected + each.sum("time")  # what is missing is NaN, and left out
        seen = each.dropna("time").transpose("chain", "draw", "time")
        np.testing.assert_allclose(post["log_likelihood"][name], seen, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(stored_log_likelihood(post), expected.values.ravel(), rtol=1e-6)
    for name, (location, scale) in {
        "rate": (-1.0, 0.3),
        "loss": (-2.0, 0.4),
        "scale": (-1.0, 0.3),
    }.items():
        of_prior = lognorm.logpdf(draws[name], scale, scale=np.exp(location))
        np.testing.assert_allclose(post["log_prior"][name], of_prior, rtol=1e-6)


def test_predictive_draws_are_the_mean_with_its_noise(post, data):
    off = post["posterior_predictive"]["parent"].values - post["conditional_mean"]["parent"].sel(
        time=data["parent"].dropna("time")["time"]
    )
    number = off.size
    assert abs(float(off.mean())) < 4 * NOISE / np.sqrt(number)
    assert float(off.std()) == pytest.approx(NOISE, rel=4 / np.sqrt(2 * number))


def test_a_datum_that_a_known_state_predicts_is_alike_in_all_draws(post):
    first = post["log_likelihood"]["parent"].isel(parent_datum=0)
    assert float(first["parent_time"]) == 0.0
    assert 0 < np.ptp(first.values) < 2e-9


def test_loo_takes_all_data_or_an_observable(post):
    every = azs.loo(post, pointwise=True)
    assert every.n_data_points == 43
    parts = [azs.loo(post, var_name=name, pointwise=True) for name in NAMES]
    assert [part.n_data_points for part in parts] == [21, 22]
    assert every.elpd == pytest.approx(sum(part.elpd for part in parts))
    assert np.isfinite(every.elpd_i).all() and np.isfinite(every.pareto_k).all()
    # A datum that all draws predict alike is left out at no cost.
    known = norm.logpdf(float(post["observed_data"]["parent"][0]), 10.0, NOISE)
    assert float(parts[0].elpd_i[0]) == pytest.approx(known, abs=1e-6)


def test_compare_and_stack(post):
    competitor = post.copy(deep=True)
    competitor["log_likelihood"]["joint"].values[...] -= 0.1
    table = azs.compare({"fitted": post, "less likely": competitor})
    assert list(table.index) == ["fitted", "less likely"]
    assert np.isfinite(table[["elpd", "weight"]].astype(float)).all(axis=None)
    stacked = bd.weighting.stack(post, key=3)
    assert np.isfinite(stacked.attrs["stacking_pareto_k"])
    # Every group is resampled by the same draws.
    assert azs.loo(stacked).n_data_points == 43
    joint = stacked["log_likelihood"]["joint"]
    np.testing.assert_array_equal(
        joint[..., joint["datum_observable"].values == "daughter"],
        stacked["log_likelihood"]["daughter"],
    )
    of_prior = lognorm.logpdf(stacked["posterior"]["rate"], 0.3, scale=np.exp(-1.0))
    np.testing.assert_allclose(stacked["log_prior"]["rate"], of_prior, rtol=1e-6)


def test_psense(post):
    table = azs.psense_summary(post)
    assert set(table.index) == {"rate", "loss", "scale"}
    assert np.isfinite(table[["prior", "likelihood"]].astype(float)).all(axis=None)
    assert (table["likelihood"] > 0).all()
    one = azs.psense(post, group="prior", group_var_names=["rate"])
    assert float(one["rate"]) > float(one["scale"])


@pytest.mark.thorough
def test_flat_priors_are_not_refused_by_psense(data):
    flat = bd.fit(
        bd.Model(
            bd.Algebraic(lambda t, y, u: {"parent": 10.0 * np.e ** (-0.4 * t)}),
            bd.NormalNoise(dist.Uniform(0.1, 2.0)),
        ),
        data, Sifting(draws=250), key=1,
    )  # fmt: skip
    assert float(azs.psense(flat, group="prior")["scale"]) == pytest.approx(0.0, abs=1e-3)


def test_prior_predictive_draws_are_data_of_the_prior(post, data):
    """The parent starts at 10 mg whatever the rate: its first datum has the noise alone."""
    drawn = post["prior_predictive"]
    assert drawn["parent"].dims == ("chain", "draw", "parent_datum") and drawn.sizes["draw"] == 500
    first = drawn["parent"].isel(parent_datum=0).values
    assert first.mean() == pytest.approx(10.0, abs=4 * NOISE / np.sqrt(500))
    assert first.std() == pytest.approx(NOISE, rel=4 / np.sqrt(2 * 500))
    rate = post["prior"]["rate"].sel(draw=drawn["draw"]).values.ravel()
    last = drawn["parent"].sel(parent_datum=20)
    left = last.values.ravel() - 10.0 * np.exp(-rate * float(last["parent_time"]))
    assert left.std() == pytest.approx(NOISE, rel=4 / np.sqrt(2 * 500))


def test_a_copy_has_each_observable_as_a_variable(post):
    each = of_each(post)
    assert {*each["log_likelihood"].data_vars} == {*NAMES} and "joint" in post[
        "log_likelihood"
    ].data_vars
    for name in NAMES:
        assert azs.loo(each, var_name=name).elpd == pytest.approx(azs.loo(post, var_name=name).elpd)


def of_each(post):
    """As the docs say, since some functions of ArviZ do not look among the coordinates."""
    each, names = post.copy(), [*post["observed_data"]]
    each["log_likelihood"] = (
        post["log_likelihood"].to_dataset().reset_coords(names).drop_vars("joint")
    )
    return each


@pytest.mark.slow  # half a minute, to compile what ArviZ does
@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
def test_what_looks_for_each_observable_takes_a_copy(post):
    few = post.isel(draw=slice(0, 100))
    with pytest.raises(KeyError):
        azs.loo_metrics(few, var_name="daughter")
    each = of_each(few)
    assert azs.loo_metrics(each, var_name="daughter").mean == pytest.approx(NOISE, rel=0.5)
    assert azs.loo_r2(each, var_name="parent").mean > 0.5
    azp.plot_loo_interval(each, backend="matplotlib")
    plt.close("all")


def test_random_effects_are_no_priors():
    """Their density is part of the model: `psense` scales the priors of what members share."""
    levels = bd.population(center=dist.LogNormal(0.0, 0.5), spread=dist.HalfNormal(0.3))
    members = bd.Model(bd.Each(bd.Algebraic(Level(levels)), [1, 2, 3]), bd.NormalNoise(0.3))
    values = np.random.default_rng(1).normal(1.0, 0.3, (5, 3))
    data = xr.Dataset(
        {"y": (("time", "subject"), values)}, {"time": np.arange(5.0), "subject": [1, 2, 3]}
    )
    fit = bd.fit(members, data, Sifting(draws=200), progress=False, key=1)
    prior, drawn = fit["log_prior"], fit["posterior"]
    assert {*prior.data_vars} == {"level.center", "level.spread"} and "level" in prior.coords
    center, spread = (drawn[f"level.{name}"].values[..., None] for name in ("center", "spread"))
    of_each = lognorm.logpdf(drawn["level"], spread, scale=center)
    np.testing.assert_allclose(prior["level"], of_each.sum(axis=-1), rtol=1e-5)
    assert np.isfinite(
        azs.psense_summary(fit, var_names=["level.center"])["prior"].astype(float)
    ).all()
    again = bd.weighting.stack(fit, key=1)["log_prior"]
    assert "level" in again.coords and {*again.data_vars} == {*prior.data_vars}


@pytest.mark.parametrize("observable", NAMES)
def test_loo_pit(post, observable):
    found = azs.loo_pit(post, var_names=observable)
    ranks = found[observable].values
    assert ((ranks >= 0) & (ranks <= 1 + 1e-12)).all()
    assert (
        (ranks > 0) & (ranks < 1)
    ).mean() > 0.9  # few draws may all lie on one side of an outlier


@pytest.mark.thorough("plot_ppc_dist")
@pytest.mark.parametrize(
    "plot",
    [
        "plot_loo_pit",
        "plot_ppc_dist",
        "plot_ppc_pit",
        "plot_ppc_tstat",
        "plot_ppc_interval",
        "plot_prior_posterior",
    ],
)
def test_figures(post, plot):
    getattr(azp, plot)(post, backend="matplotlib")
    plt.close("all")


@pytest.mark.thorough
def test_a_file_holds_it_all(post, tmp_path):
    again = bd.load(bd.save(post, tmp_path / "post.nc"))
    assert list(again["log_likelihood"].data_vars) == ["joint"]
    assert azs.loo(again).elpd == pytest.approx(azs.loo(post).elpd)
    assert azs.loo(again, var_name="parent").elpd == pytest.approx(
        azs.loo(post, var_name="parent").elpd
    )


@pytest.mark.thorough
def test_an_update_has_the_groups_of_its_own_draws(post, data):
    new = xr.Dataset({"parent": ("time", [0.1]), "daughter": ("time", [2.5])}, {"time": [12.0]})
    updated = bd.update(model(), post, new, engine=ENGINE, key=4)
    assert updated.attrs["updated_by"] == "importance weights"
    assert azs.loo(updated).n_data_points == 45
    assert updated["posterior_predictive"]["daughter"].sizes["daughter_datum"] == 23
    assert (
        "prior" in updated.children and "prior_predictive" not in updated.children
    )  # that was of the first data
    of_prior = lognorm.logpdf(updated["posterior"]["rate"], 0.3, scale=np.exp(-1.0))
    np.testing.assert_allclose(updated["log_prior"]["rate"], of_prior, rtol=1e-6)
    each = norm.logpdf(0.1, updated["conditional_mean"]["parent"].sel(time=12.0), NOISE)
    np.testing.assert_allclose(updated["log_likelihood"]["parent"][..., -1], each, rtol=1e-5)


@pytest.mark.thorough
def test_a_forecast_reads_data_with_gaps(post, data):
    fc = bd.forecast(model(), post, data)
    assert fc.attrs["train_end"] == 11.5
    table = bd.score(fc, data)
    assert table["n"].to_dict() == {"parent": 21, "daughter": 22, "all": 43}


def test_a_chain_that_stands_still_can_be_stacked():
    rng = np.random.default_rng(0)
    mean = np.stack([0.1 * rng.normal(size=200), np.full(200, 3.0)])
    y = rng.normal(size=30)
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"mean": (("chain", "draw"), mean)}),
            "log_likelihood": xr.Dataset(
                {"y": (("chain", "draw", "time"), norm.logpdf(y, mean[..., None]))}
            ),
        }
    )
    assert np.mean(bd.weighting.stack(tree)["posterior"]["mean"].values < 1) > 0.95


@pytest.mark.parametrize("name", ["joint", "datum", "a_datum", "a_time"])
def test_names_that_results_need_are_refused_before_a_fit(name):
    data = xr.Dataset({n: ("time", np.ones(3)) for n in ("a", name)}, {"time": np.arange(3.0)})
    formula = bd.Algebraic(lambda t, y, u: {"a": t, name: t})
    with pytest.raises(ModelError, match=f"cannot have the name '{name}'"):
        bd.fit(bd.Model(formula, bd.NormalNoise(dist.HalfNormal(1.0))), data, ENGINE)
