"""Forecasts under several forcings: scenarios by name, and an ensemble whose members are paired
with the draws.
"""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.errors import DataError, MismatchError
from bayes_dasl.plots import plot_decomposition, plot_scenarios
from bayes_dasl.scores.decomposition import variance_between

DAYS = np.arange("2001-01-01", "2001-01-16", dtype="datetime64[D]").astype("datetime64[ns]")


class Bucket(bd.Module):
    share: bd.Scalar

    def __call__(self, t, y, u):
        return {"store": (1 - self.share) * y["store"] + u["rain"]}

    def flow(self, t, y, u):
        return {"flow": self.share * y["store"], "store": y["store"]}


LAYER = bd.Difference(Bucket(dist.Uniform(0.2, 0.4)), {"store": 10.0}, Bucket.flow, forcings="rain")
MODEL = bd.Model(LAYER, {"flow": bd.NormalNoise(0.2)})
TRAIN = xr.Dataset(
    {"rain": ("time", np.ones(10)), "flow": ("time", 1.0 + 2.0 * 0.7 ** np.arange(10))},
    {"time": DAYS[:10]},
)
AHEAD = DAYS[10:]


def rain(values, members=False):
    dims = ("time", "member") if members else ("time",)
    return xr.Dataset({"rain": (dims, np.asarray(values, float))}, {"time": AHEAD})


@pytest.fixture(scope="module")
def post():
    return bd.fit(MODEL, TRAIN, Sifting(draws=60), progress=False)


@pytest.fixture(scope="module")
def amounts():
    return np.random.default_rng(0).gamma(1.0, 5.0, (5, 7))


@pytest.fixture(scope="module")
def ensemble(post, amounts):
    return bd.forecast(MODEL, post, rain(amounts, members=True))


def test_scenarios_are_forecast_by_name(post):
    both = bd.forecast(MODEL, post, {"dry": rain(np.zeros(5)), "wet": rain(np.full(5, 9.0))})
    assert list(both) == ["dry", "wet"] and both["wet"].attrs["scenario"] == "wet"
    alone = bd.forecast(MODEL, post, rain(np.full(5, 9.0)))
    np.testing.assert_array_equal(both["wet"]["predictions"]["flow"], alone["predictions"]["flow"])
    dry, wet = (both[name]["predictions"]["flow"].values for name in ("dry", "wet"))
    np.testing.assert_allclose(
        wet[..., 0], dry[..., 0], rtol=1e-12
    )  # under the rain before, with the same noise
    assert (wet[..., 2:] > dry[..., 2:]).all()
    figure = plot_scenarios(both, TRAIN, "flow")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["dry", "wet", "training data"]
    with pytest.raises(DataError, match="scenarios go to no file"):
        bd.forecast(MODEL, post, {"dry": rain(np.zeros(5))}, path="nowhere.nc")
    with pytest.raises(MismatchError, match="tells 1 to 6 forecasts apart, not 0"):
        plot_scenarios({}, TRAIN, "flow")


def test_each_draw_has_one_member(post, ensemble, amounts):
    """What a draw forecasts is what it does under its member alone."""
    member = ensemble["sample_stats_predictions"]["forcing_member"].values
    assert np.bincount(member.ravel(), minlength=7).tolist() == [18, 17, 17, 17, 17, 17, 17]
    for number in (0, 3):
        alone = bd.forecast(MODEL, post, rain(amounts[:, number]))
        for group, name in (
            ("conditional_mean", "flow"),
            ("unobserved", "store"),
            ("predictions", "flow"),
        ):
            ours, theirs = (fc[group][name].values[member == number] for fc in (ensemble, alone))
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert ensemble.attrs["train_end"] == "2001-01-10"


def test_their_uncertainty_is_told_apart(ensemble):
    """Without rain to come nobody knows the flow: of the last day most of the variance is that of
    the members.
    """
    parts = bd.decompose(ensemble).sel(observable="flow")
    np.testing.assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"], rtol=1e-9)
    assert abs(float(parts["forcing"][0])) < 0.05 * float(parts["epistemic"][0]) + 1e-9, (
        "yesterday's rain is known"
    )
    assert 0.8 < float(parts["forcing"][-1] / parts["epistemic"][-1]) < 1.05
    assert "network" not in parts
    figure = plot_decomposition(bd.decompose(ensemble), "flow", ensemble.attrs["train_end"])
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {
        "aleatoric",
        "forcing",
        "parameters",
    }


def test_the_report_says_what_the_forcings_leave_open(post, ensemble, undrawn):
    assert "which member of the forcings comes true" in bd.report(post, ensemble).html


@pytest.mark.thorough
def test_variance_between_groups_is_unbiased():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(6), 4)
    found = [
        variance_between(
            (2.0 * rng.normal(size=6)[group] + 3.0 * rng.normal(size=24))[:, None], group
        )[0]
        for _ in range(4000)
    ]
    assert np.mean(found) == pytest.approx(4.0, abs=4 * np.std(found) / np.sqrt(len(found)))
    assert np.isnan(variance_between(np.ones((3, 1)), np.arange(3))[0])


def test_an_ensemble_in_a_file_and_its_scores(post, ensemble, amounts, tmp_path):
    written = bd.forecast(MODEL, post, rain(amounts, members=True), path=tmp_path / "fc.nc")
    np.testing.assert_array_equal(written["predictions"]["flow"], ensemble["predictions"]["flow"])
    assert "forcing_member" in written["sample_stats_predictions"]
    seen = xr.Dataset({"flow": ("time", np.full(5, 2.0))}, {"time": AHEAD})
    assert bd.score(ensemble, seen).loc["flow", "n"] == 5
    written.close()


def test_refuses_a_gap_between_the_fit_and_the_forecast(post):
    """Where rain would run straight from the last day of the fit to the first of the forecast."""
    for rows, fine in ((slice(0, None), True), (slice(1, None), True), (slice(2, None), False)):
        at = rain(np.zeros(5)).isel(time=rows)
        if fine:
            bd.forecast(MODEL, post, at)
        else:
            with pytest.raises(
                DataError, match=r"known up to 2001-01-10 and from 2001-01-13 on.*rows between"
            ):
                bd.forecast(MODEL, post, at)
    whole = xr.concat([TRAIN[["rain"]], rain(np.zeros(5)).isel(time=[4])], "time")
    with pytest.raises(DataError, match="rows between too"):
        bd.forecast(MODEL, post, whole)


def test_refuses_more_members_than_draws(post):
    with pytest.raises(DataError, match="121 members of the forcings are more than the 120 draws"):
        bd.forecast(MODEL, post, rain(np.zeros((5, 121)), members=True))


@pytest.mark.thorough
def test_an_ensemble_for_each_member_of_a_population(amounts):
    """Rain that differs between sites, in several futures:
    each draw has one future of all sites.
    """
    step = bd.Difference(
        Bucket(bd.varying(np.array([0.2, 0.3]))),
        {"store": 10.0},
        Bucket.flow,
        forcings="rain",
        start="2001-01-01",
    )
    model = bd.Model(
        bd.Each(step, ["hill", "plain"], dim="site"), {"flow": bd.NormalNoise(bd.between(0.1, 2.0))}
    )
    both = TRAIN.expand_dims(site=["hill", "plain"], axis=1)
    post = bd.fit(model, both, Sifting(draws=20), progress=False)
    ahead = xr.concat([rain(amounts, members=True), rain(2.0 * amounts, members=True)], "site")
    ahead = ahead.assign_coords(site=["hill", "plain"]).transpose("time", "site", "member")
    fc = bd.forecast(model, post, ahead)
    member = fc["sample_stats_predictions"]["forcing_member"].values
    alone = bd.forecast(model, post, ahead.isel(member=3))
    ours, theirs = (found["conditional_mean"]["flow"].values[member == 3] for found in (fc, alone))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
