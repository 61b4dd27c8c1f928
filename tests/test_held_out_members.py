"""A study of which some members are held out: fitted to the others,
forecast and scored for these.
"""

import json

import numpy as np
import numpyro.distributions as dist
import pytest
import quick_study
import xarray as xr
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.data.datasets import split_members
from bayes_dasl.errors import DataError
from bayes_dasl.scores.baselines import climatology
from bayes_dasl.scores.scores import score_baselines

TIMES, MEMBERS = np.arange(6.0), [1.0, 2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def data():
    rates = np.array([0.25, 0.3, 0.35, 0.3])
    noise = 0.3 * np.random.default_rng(0).normal(size=(6, 4))
    values = 10.0 * np.exp(-np.outer(TIMES, rates)) + noise
    units = {"units": "mg/L"}
    return xr.Dataset(
        {"y": (("time", "subject"), values, units)}, {"time": ("time", TIMES), "subject": MEMBERS}
    )


@pytest.fixture
def study(data):
    one = bd.Algebraic(
        quick_study.Decayed(bd.population(bd.between(0.2, 0.5), 0.15), 10.0), units={"y": "mg/L"}
    )
    model = bd.Model(bd.Each(one, MEMBERS), bd.NormalNoise(dist.LogNormal(-1.0, 0.5)))
    return bd.Study(
        "members", model, data, {"subject": [4]}, engine=Sifting(draws=100, proposals=40_000)
    )


@pytest.mark.thorough
def test_a_run_scores_the_members_that_the_fit_has_not_seen(study, data, undrawn, tmp_path):
    assert (
        study.train["y"].sel(subject=4.0).isnull().all()
        and study.test["y"].sel(subject=[1.0, 2.0, 3.0]).isnull().all()
    )
    run = study.run(tmp_path / "run", progress=False)
    found = json.loads((run.folder / "scores.json").read_text())
    assert found["split"] == {"subject": [4]}
    assert (
        found["scores"]["model"]["y"]["n"] == 6
        and found["scores"]["model"]["y"]["coverage_90"] >= 0.5
    )
    assert found["baselines"]["climatology"]["y"]["crps"] > found["scores"]["model"]["y"]["crps"]
    assert (run.folder / "report.html").is_file()
    rates = run.fitted()["model"]["posterior"]["rate"]
    assert (
        rates.sel(subject=4.0).std() > rates.sel(subject=1.0).std()
    )  # of the new one the data say nothing


def test_what_is_no_member_is_refused(data):
    for members, match in (
        ({"subject": [5]}, "subject 5 is held out, but the data have none of it"),
        ({"mouse": [1]}, "held out of 'mouse', but the data have time, subject"),
        ({"subject": MEMBERS}, "leaves one side empty"),
        ({"subject": []}, "leaves one side empty"),
        ({"subject": [1], "time": [0]}, "along one dimension"),
    ):
        with pytest.raises(DataError, match=match):
            split_members(data, members, ("y",))


def test_the_climatology_of_a_new_member_is_that_of_all_others(data):
    train, test = split_members(data, {"subject": [4]}, ("y",))
    known = train["y"].sel(subject=[1.0, 2.0, 3.0]).values
    drawn = climatology(train, TIMES)["y"]
    assert drawn.dims == ("draw", "time", "subject") and drawn.sizes["draw"] == 6
    np.testing.assert_allclose(
        drawn.sel(subject=4.0)[:, 0], np.quantile(known, (np.arange(6) + 0.5) / 6)
    )
    alone = score_baselines(train.sel(subject=[1.0, 2.0, 3.0]), test.sel(subject=[4.0]))[
        "climatology"
    ]
    assert alone.loc["y", "crps"] == pytest.approx(
        score_baselines(train, test)["climatology"].loc["y", "crps"]
    )
