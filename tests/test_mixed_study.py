"""Studies that mix their models: from where they look ahead, what heads scores and report, and what
costs no fit.
"""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import at_times, levels_model, posterior
from small_study import Decay
from test_compare import result
from test_evidence import NOISE, noisy, science, walked, with_sizes

import bayes_dasl as bd
from bayes_dasl import load, save
from bayes_dasl.errors import DataError, Interrupted, MismatchError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.reports import Report
from bayes_dasl.reports._page import _of_weights
from bayes_dasl.study import Run, Task, science_of, studies as bundle
from bayes_dasl.weighting import judged_mixtures
from bayes_dasl.weighting.equal_weights import equal_weights
from bayes_dasl.weighting.windows import side_by_side, sparing

TRAIN, TEST, KEY = 8, 4, 3
TEMPLATE = Path(bd.__file__).parent / "reports" / "template.html"
TRUTH = np.arange(TRAIN + TEST) % 3.0
DATA = at_times(TRUTH)


def of(scale):
    return levels_model(TRAIN + TEST, bd.NormalNoise(scale))


STUDY = bd.Study("levels", of(0.5), DATA, TRAIN - 1.0, competitors={"far": of(0.6)}, label="near")
AWAY = {"near": 0.0, "far": 1.5}
DENSITIES = {"near": [0.0, 0.0], "far": [-3.0, -2.0]}


def posts():
    """Draws around the truth, and around what is above it, as from a fit."""
    found = {}
    for name, model in STUDY.models.items():
        levels = (
            TRUTH
            + AWAY[name]
            + 0.1 * np.random.default_rng(len(name)).normal(size=(2, 100, TRAIN + TEST))
        )
        found[name] = posterior(model, STUDY.train, {"layer.function.level": levels})
        sha = pose(model, STUDY.train).fingerprint()
        found[name].attrs |= {
            "posterior_sha256": sha,
            "interrupted": 0,
            "engine": repr(STUDY.engine),
            "key": KEY,
        }
    return found


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run folder that holds what was fitted, and nothing else."""
    folder = tmp_path_factory.mktemp("levels") / "run"
    for name, post in posts().items():
        save(post, Run(STUDY, folder).path(name, "posterior.nc"))
    return folder


def looks(called):
    """In place of leave-future-out: densities that are given."""

    def leave_future_out(model, data, *, origins, horizon, engine, post, key, **_):
        name = next(n for n, m in STUDY.models.items() if m is model)
        called.append((name, origins, horizon))
        found = result(DENSITIES[name], first=origins[0] + 1, step=horizon, horizon=horizon)
        kept = {
            "posterior_sha256": post.attrs["posterior_sha256"],
            "engine": repr(engine),
            "key": key,
            "horizon": horizon,
        }
        found.attrs |= kept | {"wall_time_s": 0.0}
        return found

    return leave_future_out


@pytest.fixture
def run(fitted, tmp_path, monkeypatch):
    """A run folder, and a function that runs the study there, on what was fitted: what it said, and
    what looked ahead.

    The tests of the command line look at a page.
    """
    shutil.copytree(fitted, tmp_path / "run")
    called = []
    monkeypatch.setattr(bundle, "leave_future_out", looks(called))
    monkeypatch.setattr(bundle, "report", lambda *_, mixture, **__: Report(str(mixture)))

    def again(study=STUDY):
        said = []
        called.clear()
        study.run(tmp_path / "run", key=KEY, say=said.append)
        return said, list(called)

    return tmp_path / "run", again


def scores(folder):
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


# ---- from where


@pytest.mark.parametrize(
    ("train", "test", "most", "horizon", "origins", "ahead"),
    [
        pytest.param(13, 8, 4, None, [6, 9], 3, id="as long as leaves room for two"),
        pytest.param(40, 5, 4, None, [19, 24, 29, 34], 5, id="as long as the test data"),
        pytest.param(40, 5, 2, None, [29, 34], 5, id="no more than asked for"),
        pytest.param(13, 8, 4, 2, [6, 8, 10], 2, id="a horizon of one's own"),
        pytest.param(4, 1, 4, None, [1, 2], 1, id="the shortest of two"),
    ],
)
def test_windows_lie_side_by_side_up_to_the_end(train, test, most, horizon, origins, ahead):
    model = levels_model(train, bd.NormalNoise(1.0))
    found = side_by_side(model, at_times(np.zeros(train)), at_times(np.zeros(test)), most, horizon)
    assert found == (origins, ahead)


def test_without_test_data_windows_are_as_long_as_there_is_room_for():
    model = levels_model(13, bd.NormalNoise(1.0))
    nothing = at_times(np.full(4, np.nan))
    assert side_by_side(model, at_times(np.zeros(13)), nothing, 4, None) == ([6, 9], 3)


@pytest.mark.parametrize(("train", "horizon"), [(3, None), (13, 7)])
def test_a_series_may_be_too_short(train, horizon):
    model = levels_model(train, bd.NormalNoise(1.0))
    with pytest.raises(
        DataError, match=f"the {train} observed times of the training data are too few"
    ):
        side_by_side(model, at_times(np.zeros(train)), at_times(np.zeros(4)), 4, horizon)


def test_what_is_mixed_and_what_is_not():
    assert STUDY.mixes
    for change in ({"mix": False}, {"competitors": {}}):
        assert not dataclasses.replace(STUDY, **change).mixes
    depth = {
        "model": along_depth(0.5),
        "competitors": {"far": along_depth(0.6)},
        "data": DATA.rename(time="depth"),
    }
    assert not dataclasses.replace(STUDY, **depth).mixes


def along_depth(scale):
    layer = of(scale).layer
    return bd.Model(bd.Algebraic(layer.function, index="depth"), bd.NormalNoise(scale))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (
            {"origins": 0},
            DataError,
            "from 1 on, not 0 and None: for no mixture of forecasts say mix=False",
        ),
        ({"horizon": 0}, DataError, "from 1 on"),
        ({"horizon": 2.5}, DataError, "from 1 on"),
        ({"origins": [TRAIN + 1.0]}, DataError, "take other origins"),
        (
            {"competitors": {"Mixture": of(1.0)}},
            ModelError,
            "is kept for what a run|is the name of the mixture",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused_at_once(change, error, said, unchecked):
    with pytest.raises(error, match=said):
        dataclasses.replace(STUDY, **change)


@pytest.mark.parametrize(
    ("engine", "draws"),
    [
        (bd.NUTS(), 250),
        (bd.NUTS(draws=4000), 1000),
        (bd.NUTS(draws=100), 100),
        (bd.DeepEnsemble(members=5), 5),
    ],
)
def test_what_weighs_models_takes_fewer_draws(engine, draws):
    fewer = sparing(engine)
    assert fewer.draws == draws and type(fewer) is type(engine) and engine.draws >= draws


# ---- a run


@pytest.mark.thorough
def test_a_run_mixes_its_models(run):
    """The mixture heads scores and verdicts, by the weights of the comparison; each model stands
    beside it.
    """
    folder, again = run
    said, called = again()
    assert called == [("near", [3.0, 5.0], 2), ("far", [3.0, 5.0], 2)]
    assert said[-1] == "forecasts made and mixed"
    found = scores(folder)
    weights = bd.compare({name: result(density) for name, density in DENSITIES.items()}).weights
    assert found["mixture"]["weights"] == pytest.approx(weights) and weights["near"] > 0.5
    assert list(found["scores"]) == ["mixture", "near", "far"] == list(found["diagnosis"])
    assert (
        found["mixture"]["origins"],
        found["mixture"]["horizon"],
        found["mixture"]["windows"],
    ) == (2, 2, 2.0)
    drawn = load(folder / "mixture.nc")
    by_hand = bd.mixture(
        {n: load(Run(STUDY, folder).path(n, "forecast.nc")) for n in STUDY.models}, weights
    )
    xr.testing.assert_identical(
        drawn["predictions"].to_dataset(), by_hand["predictions"].to_dataset()
    )
    table = bd.score(drawn, STUDY.test)
    assert found["scores"]["mixture"]["y"]["crps"] == table.loc["y", "crps"]
    assert (
        (folder / "report.html")
        .read_text(encoding="utf-8")
        .startswith(found["mixture"]["words"][0])
    )
    assert Run(STUDY, folder).diagnose()["mixture"].to_dict() == found["diagnosis"]["mixture"]


@pytest.mark.thorough
def test_what_was_forecast_from_within_the_training_data_is_kept(run):
    folder, again = run
    again()
    before = scores(folder)
    said, called = again()
    assert called == [] and "near: forecasts from within the training data, kept" in said
    assert scores(folder) == before
    said, called = again(dataclasses.replace(STUDY, horizon=1))
    assert [name for name, *_ in called] == ["near", "far"]
    assert (folder / "origins.old-1.nc").is_file()
    said, called = again(dataclasses.replace(STUDY, mix=False))
    assert called == [] and said[-1] == "forecasts made"
    assert scores(folder)["mixture"] is None and not (folder / "mixture.nc").exists()


@pytest.mark.thorough
def test_a_run_that_is_stopped_between_two_models_goes_on(run, monkeypatch):
    folder, again = run
    whole = bundle.leave_future_out

    def stopped(model, *arguments, **settings):
        if model is STUDY.models["far"]:
            raise Interrupted("stopped at the origin 3: what is done is kept")
        return whole(model, *arguments, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(bundle, "leave_future_out", stopped)
        with pytest.raises(Interrupted, match="stopped at the origin"):
            again()
    assert (folder / "origins.nc").is_file() and not (folder / "far" / "origins.nc").exists()
    said = []
    Run(STUDY, folder).finish(say=said.append)
    assert (
        said[-1]
        == "the forecast is no mixture: far did not forecast the end of the training data yet: run "
        "the study again"
    )
    _, called = again()
    assert [name for name, *_ in called] == ["far"] and scores(folder)["mixture"]["weights"]


def test_a_model_that_fails_at_an_origin_costs_no_fit_and_no_report(run, monkeypatch):
    """A mixture of before is gone with the weights."""
    folder, again = run
    fits = {name: (folder / name).read_bytes() for name in ("posterior.nc", "far/posterior.nc")}

    def fails(*_, **__):
        raise RuntimeError("no finite density at 3")

    (folder / "mixture.nc").touch()
    monkeypatch.setattr(bundle, "leave_future_out", fails)
    said, _ = again()
    assert said[-1] == "the forecast is no mixture: no finite density at 3"
    found = scores(folder)
    assert found["mixture"] == {"why_not": "no finite density at 3"}
    assert list(found["scores"]) == ["near", "far"] == list(found["diagnosis"])
    assert not (folder / "mixture.nc").exists()
    assert (folder / "report.html").read_text(encoding="utf-8") == "None"
    assert fits == {name: (folder / name).read_bytes() for name in fits}


@pytest.mark.thorough
def test_a_series_that_is_too_short_is_mixed_by_equal_weights(run):
    """Unless its forecasts are asked for."""
    folder, again = run
    study = dataclasses.replace(STUDY, horizon=5)
    said, called = again(study)
    assert (
        called == []
        and "equal weights: there are no past forecasts, since the 8 observed times" in said[-2]
    )
    told = scores(folder)["mixture"]
    assert told["weighed_by"] == "equal" and told["weights"] == {"near": 0.5, "far": 0.5}
    assert "which are equal: there are no past forecasts" in told["words"][0]
    assert list(Run(study, folder).diagnose()) == ["mixture", "near", "far"]
    said, called = again(dataclasses.replace(study, mix="forecasts"))
    assert called == [] and said[-1].startswith("the forecast is no mixture: the 8 observed times")
    assert list(scores(folder)["scores"]) == ["near", "far"]


@pytest.mark.thorough
def test_steps_of_another_model_are_put_aside(run, monkeypatch):
    folder, again = run
    (folder / "origins").mkdir()
    (folder / "origins" / "run.json").write_text("{}")
    whole, tried = bundle.leave_future_out, []

    def refuses(model, *arguments, checkpoint, **settings):
        tried.append(checkpoint)
        if checkpoint.is_dir():
            raise bd.errors.MismatchError("the checkpoint belongs to another run")
        return whole(model, *arguments, **settings)

    monkeypatch.setattr(bundle, "leave_future_out", refuses)
    said, called = again()
    assert len(called) == 2 and tried[:2] == [folder / "origins"] * 2
    assert any(f"moved to {folder / 'origins.old-1'}" in text for text in said)


@pytest.mark.thorough
def test_forecasts_further_ahead_are_mixed_too(run):
    folder, again = run
    again()
    found = Run(STUDY, folder).forecast(np.arange(10.0))
    assert list(found) == ["mixture", "near", "far"]
    assert load(folder / "mixture.nc")["predictions"].sizes["time"] == 10


# ---- what is said


def test_the_science_of_a_hybrid_is_the_rival_with_its_unknown_numbers():
    science = Decay(bd.between(0.05, 1.0))
    closure = bd.Network.mlp({"y": (5.0, 3.0)}, ("y",), scale=0.1, width=2, depth=1)

    def model(field):
        return bd.Model(
            bd.ODE(field, {"y": dist.Normal(10.0, 1.0)}), bd.NormalNoise(bd.between(0.1, 1.0))
        )

    more = Decay(bd.between(0.05, 1.0), bd.between(0.1, 1.0))
    models = {
        "hybrid": model(bd.Residual(science, closure)),
        "more": model(more),
        "alone": model(science),
    }
    assert science_of("hybrid", models) == "alone"
    assert science_of("alone", models) is None
    assert science_of("hybrid", {name: models[name] for name in ("hybrid", "more")}) is None


@pytest.fixture(scope="module")
def forecasts():
    held = posts()
    return held, {
        name: bd.forecast(STUDY.models[name], post, DATA, key=1) for name, post in held.items()
    }


def judged(forecasts, densities, own, science, test=STUDY.test):
    held, made = forecasts
    comparison = bd.compare({name: result(density) for name, density in densities.items()})
    verdicts = {name: bd.diagnose(post) for name, post in held.items()}
    mixed = bd.mixture(made, comparison.weights)
    given = mixed, comparison, made, verdicts, held[own], test
    return bd.weighting.judge_mixture(*given, own=own, science=science)


LOST = np.array([-3.0, -2.5, -2.8, -3.1, -2.9, -3.2])


def test_the_words_say_which_model_forecasts_better(forecasts):
    """Held-out data lie where `near` says: it is clearly better there, whatever the weights say."""
    found = judged(forecasts, {"near": np.zeros(6), "far": LOST}, "far", "near")
    text = " ".join(found.words)
    assert (
        f"near ({found.comparison.weights['near']:.2f})" in found.words[0]
        and "from 6 origins" in found.words[0]
    )
    assert "Within the training data near forecast better than far: 2.92 nats in a window" in text
    assert "share nothing" not in text
    assert "So far forecast them worse than its science alone." in found.words
    assert (
        "So near forecast them better than its science alone."
        in judged(forecasts, {"near": np.zeros(6), "far": LOST}, "near", "far").words
    )
    made = forecasts[1]
    crps = {name: bd.score(fc, STUDY.test).loc["y", "crps"] for name, fc in made.items()}
    assert (
        f"the CRPS of near is {1 - crps['near'] / crps['far']:.0%} lower than that of far" in text
    )


def test_the_words_say_what_may_be_chance(forecasts):
    turns = {"near": [1.0, -1.0], "far": [0.0, 0.1]}
    text = " ".join(judged(forecasts, turns, "near", None).words)
    assert "count as 2 that share nothing: weights and standard errors are rough" in text
    assert (
        "Within the training data far is ahead of near, which may be chance" in text
        and "science" not in text
    )
    # Two values of which either model has one.
    test = at_times(np.where(np.arange(len(TRUTH)) == TRAIN, TRUTH, TRUTH + AWAY["far"])).isel(
        time=[TRAIN, TRAIN + 1]
    )
    text = " ".join(judged(forecasts, turns, "near", "far", test).words)
    assert "level" in text or "may be chance." in text.split("On the held-out data")[1]


def test_the_verdict_on_a_mixture_is_on_its_forecast_and_on_the_sampling_of_each_model(forecasts):
    held, _ = forecasts
    found = judged(forecasts, {"near": np.zeros(6), "far": LOST}, "near", None)
    subjects = {finding.subject: finding for finding in found.diagnosis.findings}
    for name, post in held.items():
        assert subjects[f"sampling of {name}"].level == bd.diagnose(post).sampling
    assert "The mixture" in found.diagnosis.verdict and "The model" not in found.diagnosis.verdict
    far = judged(forecasts, {"near": LOST, "far": np.zeros(6)}, "near", None)
    assert "near forecasts the held-out data better" in str(far.diagnosis)


# ---- science, and what is added to it


NESTED = bd.Study(
    "walk", noisy(), walked(1.0), 6.0, competitors={"science": science()}, label="noisy"
)


@pytest.mark.thorough
def test_a_science_and_what_is_added_to_it_are_weighed_by_evidence(tmp_path, monkeypatch):
    """From the fits that are there, unless forecasts are asked for."""
    called = []
    monkeypatch.setattr(bundle, "leave_future_out", lambda *_, **__: called.append(1))
    monkeypatch.setattr(bundle, "report", lambda *_, mixture, **__: Report(str(mixture)))
    folder, sizes = tmp_path / "run", np.abs(np.random.default_rng(0).normal(0.4, 0.3, (4, 50)))
    posts = {
        name: with_sizes(model, NESTED.train, of=sizes, number=50)
        for name, model in NESTED.models.items()
    }
    for name, post in posts.items():
        sha = pose(NESTED.models[name], NESTED.train).fingerprint()
        post.attrs |= {
            "posterior_sha256": sha,
            "interrupted": 0,
            "engine": repr(NESTED.engine),
            "key": KEY,
        }
        save(post, Run(NESTED, folder).path(name, "posterior.nc"))
    NESTED.run(folder, key=KEY)
    told, factors = scores(folder)["mixture"], bd.weighting.bayes_factors(NESTED.models, posts)
    assert (
        called == []
        and told["weighed_by"] == "evidence"
        and told["weights"] == pytest.approx(factors.weights)
    )
    assert (
        told["comparison"]["noisy"]["by_bridge"] is False
        and told["comparison"]["noisy"]["prior"] == 0.5
    )
    assert (
        told["words"][0].startswith("A mixture of noisy (")
        and "science lacks nothing was 0.5." in told["words"][0]
    )
    assert list(scores(folder)["scores"]) == ["mixture", "noisy", "science"]
    dataclasses.replace(NESTED, mix="forecasts", origins=[3.0, 4.0], horizon=1).run(folder, key=KEY)
    assert called and scores(folder)["mixture"].keys() == {"why_not"}


def test_a_page_has_what_the_weights_come_from():
    """All that its template names, whatever they come from."""
    of_forecasts = bd.compare({name: result(density) for name, density in DENSITIES.items()})
    sizes = np.abs(np.random.default_rng(0).normal(0.4, 0.3, (4, 50)))
    posts = {
        name: with_sizes(model, walked(1.0), of=sizes, number=50)
        for name, model in NESTED.models.items()
    }
    of_evidence = bd.weighting.bayes_factors(NESTED.models, posts)
    found = [
        _of_weights(of_forecasts),
        _of_weights(of_evidence),
        _of_weights(equal_weights("ab", "too short")),
    ]
    assert (
        [page["base"] for page in found] == ["", "science", ""]
        and found[0]["rows"]
        and not found[2]["rows"]
    )
    page = re.compile(r"mixture\.(\w+)").findall(TEMPLATE.read_text(encoding="utf-8"))
    assert {"base", "rows", "cards", "origins", "horizon"} <= {*page} and {
        "base",
        "rows",
        "cards",
    } <= {*found[1]}
    assert {"origins", "horizon"} <= {*found[0]}


@pytest.mark.thorough
def test_how_models_are_weighed_can_be_asked_for():
    rows = dataclasses.replace(NESTED, mix="evidence")
    assert rows.mixes
    sizes = np.abs(np.random.default_rng(0).normal(0.4, 0.3, (4, 50)))
    posts = {
        name: with_sizes(model, NESTED.train, of=sizes, number=50)
        for name, model in NESTED.models.items()
    }
    past = {name: result([0.0, 0.0]) for name in posts}
    assert bd.weighting.model_weights(NESTED.models, posts, past=past).weighed_by == "evidence"
    assert (
        bd.weighting.model_weights(NESTED.models, posts, by="forecasts", past=past).weighed_by
        == "forecasts"
    )
    with pytest.raises(
        ModelError, match="mix is True, False, 'evidence' or 'forecasts', not 'both'"
    ):
        dataclasses.replace(NESTED, mix="both")
    with pytest.raises(MismatchError, match="one model is to be the science"):
        dataclasses.replace(STUDY, mix="evidence")


def test_a_rival_that_is_not_fitted_yet_is_told(tmp_path):
    run, sizes = (
        Run(NESTED, tmp_path / "run"),
        np.abs(np.random.default_rng(0).normal(0.4, 0.3, (4, 50))),
    )
    save(
        with_sizes(NESTED.model, NESTED.train, of=sizes, number=50),
        run.path("noisy", "posterior.nc"),
    )
    assert run.weigh(key=KEY, progress=False, say=print) == "science is not fitted yet"


@pytest.mark.thorough
def test_models_that_only_look_nested_are_weighed_by_forecasts(tmp_path, monkeypatch):
    """They have the same names and priors, and other equations."""
    falls = bd.Model(
        bd.ODE(lambda t, y, u: {"y": -y["y"]}, {"y": dist.Normal(0.0, 1.0)}, start=0.0), NOISE
    )
    study = dataclasses.replace(NESTED, competitors={"falls": falls}, origins=[3.0, 4.0], horizon=1)
    looked, heard, folder = [], [], tmp_path / "run"
    monkeypatch.setattr(Task, "look_ahead", lambda task, *_: looked.append(task.name))
    sizes = np.abs(np.random.default_rng(0).normal(0.4, 0.3, (4, 50)))
    for name, model in study.models.items():
        save(
            with_sizes(model, study.train, of=sizes, number=50),
            Run(study, folder).path(name, "posterior.nc"),
        )
    said = Run(study, folder).weigh(key=KEY, progress=False, say=heard.append)
    assert looked == [
        "noisy",
        "falls",
    ] and "did not forecast the end of the training data yet" in str(said)
    assert (
        "weighed by forecasts: there is no evidence to weigh models by, since 'noisy' is not "
        "'falls'" in heard[0]
    )


@pytest.mark.parametrize(("share", "chance"), [(0.15, True), (0.25, False)])
def test_a_lead_of_two_standard_errors_is_no_chance(share, chance, monkeypatch, unchecked):
    monkeypatch.setattr(judged_mixtures, "crps_apart", lambda *_: (share, 0.1, 16))
    forecast = xr.DataTree.from_dict({"predictions": xr.Dataset({"flow": ("time", [1.0])})})
    (said, *_) = judged_mixtures._mixture_held_out(
        {"own": forecast, "other": forecast}, None, None, "own", None
    )
    assert ("which may be chance" in said) == chance
