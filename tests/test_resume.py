"""Fits that go on where they were: the draws of a run that was killed are those of one that was
not, bit for bit.
"""

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from curves import Curve
from seldom import seldom
from test_cli import LIMIT, ROOT, START, TESTS, assert_one_line, invoke

import bayes_dasl as bd
from bayes_dasl import load
from bayes_dasl.errors import MismatchError, ReadError, WriteError
from bayes_dasl.fitting import fit as fit_module
from bayes_dasl.inference import AbstractEngine, Journal, ProgressBar, Samples
from bayes_dasl.inference.engine import Settings, restored
from bayes_dasl.inference.nuts import nuts as nuts
from bayes_dasl.study import Run, fits

KEY = 5
TIMED = {
    "created",
    "sampling_time_s",
    "wall_time_s",
    "start_time_s",
    "warmup_time_s",
    "draws_time_s",
}


class Square(Curve):
    """y = level²: two modes, and no solver, so that compilation is short."""

    level: bd.Scalar

    def y(self, times):
        return self.level**2 + 0.0 * times


def model(sd=3.0):
    return bd.Model(Square(dist.Normal(0.0, sd)), bd.NormalNoise(scale=dist.LogNormal(-1.0, 0.5)))


SEEN = xr.Dataset(
    {"y": ("time", 2.0 + 0.5 * np.random.default_rng(0).normal(size=9))}, {"time": np.arange(9.0)}
)
DATA = SEEN.isel(time=slice(8))
ENGINES = {
    "nuts": bd.NUTS(chains=2, warmup=100, draws=60),
    "nuts that ends its warm-up": bd.NUTS(chains=2, draws=30),
    "unadjusted": bd.engines.ManyChain(
        "unadjusted_mclmc", chains=8, warmup=48, draws=20, superchains=4
    ),
    "smc": bd.engines.SMC(particles=50, runs=2),
    "svi": bd.engines.SVI(steps=600, draws=25),
}
SELDOM = "nuts that ends its warm-up", "unadjusted"
LEFT = {name: (0.5, 1.0) for name in ENGINES} | {"nuts": (0.0, 0.1, 0.3, 0.6, 0.9, 1.0)}


@functools.cache
def whole(name):
    """A fit without checkpoint: what every other must agree with."""
    return bd.fit(model(), DATA, ENGINES[name], key=KEY)


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory):
    """The checkpoint that a fit by an engine has left, and the fit; neither is to be changed."""

    @functools.cache
    def fitted(name):
        folder = tmp_path_factory.mktemp("checkpoint") / "of it"
        return folder, bd.fit(model(), DATA, ENGINES[name], checkpoint=folder, key=KEY)

    return fitted


def steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.step"))


def times_written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in steps(folder)}


def copied(folder: Path, to: Path, kept: int) -> Path:
    """A copy of a checkpoint that holds its first steps only."""
    shutil.copytree(folder, to)
    for path in steps(to)[kept:]:
        path.unlink()
    return to


def assert_same(post: xr.DataTree, expected: xr.DataTree) -> None:
    """Every number of every group, to the last bit, and every attribute but times."""
    assert post.groups == expected.groups
    for group in expected.groups:
        ours, theirs = (tree[group].to_dataset(inherit=False) for tree in (post, expected))
        assert set(ours.variables) == set(theirs.variables)
        assert ours.attrs.keys() == theirs.attrs.keys()
        for name in theirs.variables:
            a, b = np.asarray(ours[name]), np.asarray(theirs[name])
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), (
                f"{group}/{name}"
            )
            assert ours[name].attrs == theirs[name].attrs
    untimed = [{k: v for k, v in tree.attrs.items() if k not in TIMED} for tree in (post, expected)]
    assert untimed[0] == untimed[1]


# ---- in one process


@pytest.mark.thorough
@pytest.mark.parametrize("name", seldom(ENGINES, *SELDOM))
def test_a_checkpoint_changes_nothing(name, checkpoint_of):
    folder, post = checkpoint_of(name)
    assert len(steps(folder)) >= 4
    assert "modes" in post.children
    assert_same(post, whole(name))


@pytest.mark.thorough(
    "nuts-0.0",
    "nuts-0.1",
    "nuts-0.3",
    "nuts-0.9",
    "nuts-1.0",
    "smc-0.5",
    "smc-1.0",
    "svi-0.5",
    "svi-1.0",
)
@pytest.mark.parametrize(
    ("name", "share"),
    [
        pytest.param(name, share, marks=pytest.mark.slow if name in SELDOM else ())
        for name, shares in LEFT.items()
        for share in shares
    ],
)
def test_resume_gives_the_draws_of_an_uninterrupted_fit(name, share, checkpoint_of, tmp_path):
    folder, _ = checkpoint_of(name)
    kept = round(share * len(steps(folder)))
    left = copied(folder, tmp_path / "left", kept)
    before = times_written(left)
    assert_same(bd.resume(model(), DATA, left), whole(name))
    assert len(before) == kept
    assert times_written(left).items() >= before.items()
    assert [path.name for path in steps(left)] == [path.name for path in steps(folder)]


@pytest.mark.thorough
@pytest.mark.parametrize("torn", [2, 4, -1])
def test_a_torn_step_is_computed_again(torn, checkpoint_of, tmp_path):
    folder, _ = checkpoint_of("nuts")
    left = copied(folder, tmp_path / "left", len(steps(folder)))
    path = steps(left)[torn]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=rf"{path.name} is torn: going on from the step before it"):
        post = bd.resume(model(), DATA, left)
    assert_same(post, whole("nuts"))


@pytest.mark.thorough("in the warm-up")
@pytest.mark.parametrize("advances", [3, 6], ids=["in the warm-up", "while sampling"])
def test_a_fit_stopped_by_ctrl_c_goes_on(advances, tmp_path, monkeypatch):
    """Four advances are of the warm-up."""
    advance, calls = ProgressBar.advance, []

    def stop(self, done, note=""):
        calls.append(done)
        if len(calls) == advances:
            raise KeyboardInterrupt
        advance(self, done, note)

    with monkeypatch.context() as patched:
        patched.setattr(ProgressBar, "advance", stop)
        patched.setattr(nuts, "_LONGEST_PAUSE", 0.0)  # segments of 25 draws
        if advances <= 4:
            with pytest.raises(KeyboardInterrupt):
                bd.fit(model(), DATA, ENGINES["nuts"], checkpoint=tmp_path, key=KEY)
        else:
            with pytest.warns(UserWarning, match="stopped early"):
                post = bd.fit(model(), DATA, ENGINES["nuts"], checkpoint=tmp_path, key=KEY)
            assert post.attrs["interrupted"] == 1
            assert 0 < post["posterior"].sizes["draw"] < 60
    assert_same(bd.resume(model(), DATA, tmp_path), whole("nuts"))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["smc", "svi"])
def test_a_fit_stopped_before_its_draws_says_what_became_of_its_steps(
    name, checkpoint_of, tmp_path, monkeypatch
):
    """These engines draw at the end: there is nothing to return before it, and a checkpoint goes
    on.
    """

    def stop(*_):
        raise KeyboardInterrupt

    left = copied(checkpoint_of(name)[0], tmp_path / "left", 2)
    with monkeypatch.context() as patched:
        patched.setattr(ProgressBar, "advance", stop)
        with pytest.raises(
            KeyboardInterrupt, match=r"^stopped before there were draws; no checkpoint was given"
        ):
            bd.fit(model(), DATA, ENGINES[name], key=KEY)
        with pytest.raises(
            KeyboardInterrupt, match=r"the steps so far are kept in .*left: the same call goes on"
        ):
            bd.fit(model(), DATA, ENGINES[name], checkpoint=left, key=KEY)
    assert len(steps(left)) > 2
    assert_same(bd.fit(model(), DATA, ENGINES[name], checkpoint=left, key=KEY), whole(name))


@pytest.mark.thorough
def test_a_second_fit_in_a_folder_is_refused_while_the_first_is_at_work(tmp_path, monkeypatch):
    run, refused = FromThePrior.run, []

    def again():
        return bd.fit(model(), DATA, FromThePrior(), checkpoint=tmp_path, key=KEY)

    def run_while_another_begins(self, problem, **how):
        with ThreadPoolExecutor(1) as other:
            refused.append(other.submit(again).exception())
        return run(self, problem, **how)

    with monkeypatch.context() as patched:
        patched.setattr(FromThePrior, "run", run_while_another_begins)
        post = again()
    assert isinstance(refused[0], WriteError)
    assert str(refused[0]).startswith(f"another process is at work in {tmp_path}: ")
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "000001.step", "000002.step"}
    assert_same(again(), post)


@pytest.mark.thorough
def test_fit_goes_on_like_resume(checkpoint_of, tmp_path):
    folder, _ = checkpoint_of("svi")
    left = copied(folder, tmp_path / "left", 3)
    before = times_written(left)
    assert_same(bd.fit(model(), DATA, ENGINES["svi"], checkpoint=left, key=KEY), whole("svi"))
    assert times_written(left).items() >= before.items()


@pytest.mark.thorough
def test_a_jax_key_survives(tmp_path):
    key = jax.random.fold_in(jax.random.key(2**40 + 1), 3)
    post = bd.fit(model(), DATA, ENGINES["smc"], checkpoint=tmp_path, key=key)
    steps(tmp_path)[-1].unlink()
    again = bd.resume(model(), DATA, tmp_path)
    assert_same(again, post)
    assert not np.array_equal(post["posterior"]["level"], whole("smc")["posterior"]["level"])


# ---- what cannot be resumed


@pytest.mark.parametrize(
    ("changed", "data"),
    [
        (model(sd=2.0), DATA),
        (model(), DATA.assign(y=DATA["y"] + 1e-12)),
        (model(), DATA.isel(time=slice(7))),
        (bd.Model(model().layer, bd.NormalNoise(scale=0.5)), DATA),
    ],
    ids=["prior", "datum", "fewer data", "noise"],
)
def test_another_model_or_other_data_are_refused(changed, data, checkpoint_of):
    folder, _ = checkpoint_of("nuts")
    before = times_written(folder)
    with pytest.raises(
        MismatchError, match=r"of it belongs to another run \(posterior_sha256 .* instead of .*\)"
    ):
        bd.resume(changed, data, folder)
    assert times_written(folder) == before


@pytest.mark.parametrize(
    ("engine", "key", "what"),
    [
        (bd.NUTS(chains=2, warmup=100, draws=61), KEY, "engine .*60.*61"),
        (ENGINES["nuts"], 6, "key 5 instead of 6"),
    ],
)
def test_fit_refuses_the_checkpoint_of_another_engine_or_key(engine, key, what, checkpoint_of):
    folder, _ = checkpoint_of("nuts")
    with pytest.raises(
        MismatchError, match=rf"of it belongs to another run \({what}.*\): choose another folder"
    ):
        bd.fit(model(), DATA, engine, checkpoint=folder, key=key)


def test_there_is_nothing_to_resume(tmp_path):
    with pytest.raises(
        ReadError, match=r"holds no checkpoint: it has no run\.json; make one with bd\.fit"
    ):
        bd.resume(model(), DATA, tmp_path)
    (tmp_path / "run.json").write_text('{"engine": "NUTS(cha')
    with pytest.raises(ReadError, match=r"run\.json is torn"):
        bd.resume(model(), DATA, tmp_path)


def test_a_fit_does_not_write_into_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ReadError, match="is not empty and holds no checkpoint"):
        bd.fit(model(), DATA, ENGINES["smc"], checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@dataclasses.dataclass(frozen=True)
class Times(Settings):
    """Settings that somebody else has written."""

    factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class FromThePrior(AbstractEngine):
    """An engine that somebody else has written."""

    draws: int = 10
    times: Times = Times()

    def run(self, problem, *, key, journal, bar):
        positions = journal.step(
            "prior", lambda: {"x": np.asarray(problem.prior(2 * self.draws, key=key))}
        )["x"]
        stats = {"lp": np.zeros((2, self.draws))}
        return Samples(self.times.factor * positions.reshape(2, self.draws, -1), stats)


NUTS = "bayes_dasl.inference.nuts.nuts.NUTS"
KEPT = [
    *ENGINES.values(),
    bd.DeepEnsemble(
        members=3, adversarial=0.01, descent=bd.Descent(steps=150, held_out=0.2, minibatch=4)
    ),
    bd.NUTS(
        start=bd.DeepEnsemble(members=3, descent=bd.Descent(steps=100, patience=None)), map_starts=8
    ),
    bd.NUTS(start="pathfinder", reparametrisation="none"),
    bd.Joint(descent=bd.Descent(science_rate=np.float64(0.02))),
    bd.engines.MCDropout(),
    bd.engines.SWAG(descent=bd.Descent(steps=700)),
    bd.engines.Laplace("last", descent=bd.Descent(reparametrisation="none")),
    FromThePrior(times=Times(2.0)),
]


@pytest.mark.parametrize("engine", KEPT, ids=repr)
def test_engines_and_the_settings_in_them_are_restored_equal(engine):
    again = restored(json.loads(json.dumps(engine.stored())))
    assert again == engine
    assert repr(again) == repr(engine)
    changes = {"draws": 7, "particles": 60, "descent": bd.Descent(50)}
    other = dataclasses.replace(
        engine, **{name: v for name, v in changes.items() if name in vars(engine)}
    )
    assert restored(json.loads(json.dumps(other.stored()))) == other != engine


@pytest.mark.slow
def test_a_run_whose_engine_holds_another_engine_is_resumed(tmp_path):
    engine = bd.NUTS(
        chains=2,
        warmup=50,
        draws=20,
        start=bd.DeepEnsemble(members=2, descent=bd.Descent(steps=100)),
    )
    post = bd.fit(model(), DATA, engine, checkpoint=tmp_path, key=KEY)
    for path in steps(tmp_path)[-2:]:
        path.unlink()
    assert_same(bd.resume(model(), DATA, tmp_path), post)
    other = dataclasses.replace(
        engine, start=bd.DeepEnsemble(members=2, descent=bd.Descent(steps=150))
    )
    with pytest.raises(MismatchError, match="belongs to another run"):
        bd.fit(model(), DATA, other, checkpoint=tmp_path, key=KEY)


@pytest.mark.thorough
def test_the_engine_of_a_third_party_is_resumed_where_it_is_defined(tmp_path):
    post = bd.fit(model(), DATA, FromThePrior(times=Times(2.0)), checkpoint=tmp_path, key=KEY)
    before = times_written(tmp_path)
    assert_same(bd.resume(model(), DATA, tmp_path), post)
    assert times_written(tmp_path) == before
    steps(tmp_path)[-1].unlink()
    assert_same(bd.resume(model(), DATA, tmp_path), post)
    assert post.attrs["engine"] == repr(FromThePrior(times=Times(2.0)))


@pytest.mark.thorough
def test_the_engine_of_a_third_party_is_refused_with_advice_where_it_is_not_defined(tmp_path):
    post = bd.fit(model(), DATA, FromThePrior(), checkpoint=tmp_path, key=KEY)
    note, before = (tmp_path / "run.json").read_text(), times_written(tmp_path)
    (tmp_path / "run.json").write_text(
        note.replace(f"{__name__}.FromThePrior", "elsewhere.FromThePrior")
    )
    with pytest.raises(ReadError) as caught:
        bd.resume(model(), DATA, tmp_path)
    assert str(caught.value) == (
        "the checkpoint was made by elsewhere.FromThePrior, which is not defined here: call bd.fit "
        "with the same "
        "engine, key and checkpoint instead"
    )
    (tmp_path / "run.json").write_text(note)
    assert_same(bd.fit(model(), DATA, FromThePrior(), checkpoint=tmp_path, key=KEY), post)
    assert times_written(tmp_path) == before


@pytest.mark.parametrize(
    "engine",
    [
        "NUTS",
        "bd.NUTS()",
        "exit()",
        "",
        "3",
        "[]",
        "{}",
        '{"class": "NUTS"}',
        '{"class": 3}',
        '{"class": "builtins.exit"}',
        f'{{"class": "{NUTS}"',
        f'{{"class": "{NUTS}", "steps": 3}}',
        f'{{"class": "{NUTS}", "draws": 0}}',
        f'{{"class": "{NUTS}", "draws": "f()"}}',
        f'{{"class": "{NUTS}", "start": {{"class": "os.system"}}}}',
        f'{{"class": "{NUTS}", "start": {{}}}}',
        '{"class": "bayes_dasl.inference.engine.AbstractEngine"}',
        '{"class": "bayes_dasl.inference.descent.ensemble.DeepEnsemble", "descent": 100}',
    ],
)
def test_a_note_whose_engine_cannot_be_read_is_refused(engine, tmp_path):
    Journal(tmp_path, {"engine": engine, "key": 1})
    with pytest.raises(ReadError, match="the checkpoint was made by"):
        bd.resume(model(), DATA, tmp_path)


@pytest.mark.parametrize(
    "note", [{}, {"key": "none"}, {"key": "[-1, 2]"}, {"key": "[1]"}, {"key": "[1, 2, 3, 4]"}]
)
def test_a_note_whose_key_cannot_be_read_is_refused(note, tmp_path):
    """Four numbers are a key of another kind, and do not say which."""
    (tmp_path / "run.json").write_text(
        json.dumps({"engine": json.dumps(bd.engines.SMC().stored())} | note)
    )
    with pytest.raises(ReadError, match="the checkpoint was made with"):
        bd.resume(model(), DATA, tmp_path)


# ---- studies


def small_run(folder, sd=3.0):
    study = bd.Study(
        name="square", model=model(sd), data=SEEN, split=7.0, engine=ENGINES["nuts"], label="square"
    )
    return Run(study, folder)


@pytest.mark.thorough
def test_a_study_puts_the_steps_of_an_older_model_aside(tmp_path, monkeypatch):
    said = []
    with monkeypatch.context() as patched:
        patched.setattr(fits, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            small_run(tmp_path).fit("square", key=KEY, progress=False, say=said.append)
    assert len(steps(tmp_path / "checkpoint")) > 4
    small_run(tmp_path, sd=2.0).fit("square", key=KEY, progress=False, say=said.append)
    aside = tmp_path / "checkpoint.old-1"
    assert said[1] == (
        f"square: {tmp_path / 'checkpoint'} belongs to another version of the model or the "
        f"libraries: moved to {aside}"
    )
    assert said[2].startswith("square: fitting by NUTS(")
    assert len(steps(aside)) > 4
    study = small_run(tmp_path, sd=2.0).study
    assert_same(
        load(tmp_path / "posterior.nc"), bd.fit(study.model, study.train, study.engine, key=KEY)
    )
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.thorough
def test_a_solver_that_cannot_be_checked_costs_no_fit(tmp_path, monkeypatch):
    said = []

    def broken(*_):
        raise MemoryError("too fine")

    monkeypatch.setattr(
        fits, "checks_after_fit", lambda model: {"solver_check": ("solver", broken)}
    )
    small_run(tmp_path).fit("square", key=KEY, progress=False, say=said.append)
    assert "square: the solver could not be checked: too fine" in said
    fitted = load(tmp_path / "posterior.nc")
    assert "solver_check" not in fitted.children
    found = xr.DataTree(xr.Dataset(attrs={"pareto_k": 0.0}))
    sound = lambda model, post: post.assign({"solver_check": found})  # noqa: E731
    monkeypatch.setattr(fits, "checks_after_fit", lambda model: {"solver_check": ("solver", sound)})
    monkeypatch.setattr(
        fits, "diagnose", lambda post: bd.diagnose(post.drop_nodes("solver_check", errors="ignore"))
    )
    small_run(tmp_path).fit("square", key=KEY, progress=False, say=said.append)
    assert said[-1] == "square: already fitted, kept"
    checked = load(tmp_path / "posterior.nc")
    assert_same(checked.drop_nodes("solver_check"), fitted)
    assert "solver_check" in checked.children


def test_numbers_of_numpy_are_plain_in_the_note_of_a_checkpoint():
    engine = bd.NUTS(chains=1, warmup=50, draws=10, target_acceptance=np.float64(0.9))
    assert "target_acceptance=0.9," in repr(engine)
    assert type(engine.stored()["target_acceptance"]) is float
    rate = bd.Joint(descent=bd.Descent(science_rate=np.float64(0.02))).stored()["descent"][
        "science_rate"
    ]
    assert (type(rate), rate) == (float, 0.02)


@pytest.mark.thorough
def test_other_versions_are_named(tmp_path, monkeypatch):
    engine = FromThePrior()
    bd.fit(model(), DATA, engine, checkpoint=tmp_path, key=KEY)
    now = fit_module.versions()
    monkeypatch.setattr(fit_module, "versions", lambda: now | {"blackjax": "99.0"})
    with pytest.raises(MismatchError, match=r"versions 'bayes_dasl .*instead of .*blackjax 99\.0"):
        bd.fit(model(), DATA, engine, checkpoint=tmp_path, key=KEY)


def test_a_study_does_not_delete_what_is_not_its_own(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "thesis.tex").write_text("mine")
    with pytest.raises(ReadError, match="checkpoint is not empty and holds no checkpoint"):
        small_run(tmp_path).fit("square", key=KEY, progress=False, say=lambda text: None)
    assert (tmp_path / "checkpoint" / "thesis.tex").read_text() == "mine"


# ---- kill -9


def start(programs: Path, *arguments: object, **environment: str) -> subprocess.Popen:
    """`bayes-dasl` in a process of its own; it draws in segments of 25, so that there are many
    moments to kill it.
    """
    short = "from bayes_dasl.inference.nuts import sampler; sampler._LONGEST_PAUSE = 0.0\n"
    search = os.pathsep.join([str(ROOT), str(TESTS)])
    told = {
        "PYTHONPATH": search,
        "JAX_COMPILATION_CACHE_DIR": str(programs),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", short + START, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | told | environment,
    )  # fmt: skip


def kill_after(process: subprocess.Popen, folder: Path, count: int, pause: float) -> None:
    """Kill it some time after there are so many steps."""
    end = time.monotonic() + LIMIT
    try:
        while not folder.is_dir() or len(steps(folder)) < count:
            assert time.monotonic() < end
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.001)
        time.sleep(pause)
    finally:
        process.kill()
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said


WARM, ALL = 3 + 20, 3 + 20 + 100  # steps when the warm-up is over, and in the end
SOURCE = """
import os, shutil, signal
import numpy as np
import numpyro.distributions as dist
import xarray as xr
import bayes_dasl as bd
from curves import Curve

if "DIES_BEFORE_CLEANING" in os.environ:
    shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)

class Square(Curve):
    level: bd.Scalar

    def y(self, times):
        return self.level**2 + 0.0 * times

def study():
    model = bd.Model(Square(dist.Normal(0.0, 3.0)), bd.NormalNoise(scale=dist.LogNormal(-1.0, 0.5)))
    y = 2.0 + 0.5 * np.random.default_rng(0).normal(size=9)
    data = xr.Dataset({"y": ("time", y)}, {"time": np.arange(9.0)})
    engine = bd.NUTS(chains=2, warmup=500, draws=2500)
    return bd.Study(name="square", label="square", model=model, data=data, split=7.0, engine=engine)
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The study file, a run that nobody killed, and the programs that the processes of its study
    share.
    """
    folder = tmp_path_factory.mktemp("killed")
    study, whole, programs = folder / "square_study.py", folder / "whole", folder / "programs"
    study.write_text(SOURCE)
    result = invoke("run", study, "--out", whole, "--key", KEY)
    assert result.exit_code == 0, result.output
    # JAX does not write its cache atomically: no process that is killed may write to the one of all
    # tests.
    shutil.copytree(os.environ["JAX_COMPILATION_CACHE_DIR"], programs, copy_function=os.symlink)
    return study, whole, programs


def assert_same_run(run: Path, whole: Path) -> None:
    """The posterior, the forecast and the scores of a run that was killed are those of one that was
    not.
    """
    post = load(run / "posterior.nc")
    assert {"posterior", "sample_stats", "log_likelihood", "prior", "modes"} <= set(post.children)
    assert post["posterior"].sizes["draw"] == 2500
    assert_same(post, load(whole / "posterior.nc"))
    assert_same(load(run / "forecast.nc"), load(whole / "forecast.nc"))
    assert (run / "scores.json").read_text() == (whole / "scores.json").read_text()
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.slow
def test_a_run_killed_while_sampling_and_again_before_its_end_keeps_what_it_has(
    uninterrupted, tmp_path, monkeypatch
):
    """The second time between the posterior and the end, so that nothing is left to be fitted."""
    study, whole, programs = uninterrupted
    run = tmp_path / "run"
    kill_after(
        start(programs, "run", study, "--out", run, "--key", KEY),
        run / "checkpoint",
        WARM + 30,
        0.003,
    )
    before = times_written(run / "checkpoint")
    assert WARM + 30 <= len(before) < ALL
    assert not (run / "posterior.nc").exists()
    process = start(programs, "resume", run, "--trust", DIES_BEFORE_CLEANING="1")
    said, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGKILL, errors
    assert "square: going on with NUTS(" in said
    assert {path.name for path in run.iterdir()} == {
        "study.json",
        "posterior.nc",
        "checkpoint",
        ".lock",
    }
    assert len(steps(run / "checkpoint")) == ALL
    assert times_written(run / "checkpoint").items() >= before.items()
    posterior = (run / "posterior.nc").read_bytes()
    monkeypatch.setattr(fits, "fit", lambda *_, **__: pytest.fail("fitted again"))
    result = invoke("resume", run, "--trust")
    assert result.exit_code == 0, result.output
    assert "square: already fitted, kept" in result.stdout
    assert (run / "posterior.nc").read_bytes() == posterior
    assert_same_run(run, whole)


@pytest.mark.slow
def test_a_run_killed_five_times_has_the_posterior_of_one_that_was_not(uninterrupted, tmp_path):
    study, whole, programs = uninterrupted
    run, moments = tmp_path / "run", np.random.default_rng(9)
    kill_after(
        start(programs, "run", study, "--out", run, "--key", KEY),
        run / "checkpoint",
        0,
        moments.uniform(0, 1),
    )
    # Twice in the warm-up and twice while sampling; so many steps come after the last that it is
    # not missed.
    for count in np.sort([*moments.integers(2, WARM, 2), *moments.integers(WARM, ALL - 40, 2)]):
        before = times_written(run / "checkpoint")
        least = min(max(count, len(before) + 1), ALL)
        kill_after(
            start(programs, "resume", run, "--trust"),
            run / "checkpoint",
            least,
            moments.uniform(0, 0.01),
        )
        after = times_written(run / "checkpoint")
        assert least <= len(after) <= ALL
        assert after.items() >= before.items()
        assert not (run / "posterior.nc").exists()
    result = invoke("resume", run, "--trust")
    assert result.exit_code == 0, result.output
    assert "square: going on with NUTS(" in result.stdout
    assert_same_run(run, whole)


# ---- folders that are no run


NO_RUN = r"is no run folder: it has no study\.json; make one with 'bayes-dasl run'"
NOTE = {"study": "decay", "key": 3, "source": str(TESTS / "small_study.py")}


def test_resume_of_no_run_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    Journal(tmp_path / "checkpoint", {"engine": "NUTS()", "key": 3})
    for name in ("absent", "file", "empty", "checkpoint"):
        assert_one_line(invoke("resume", tmp_path / name), NO_RUN)
    assert not (tmp_path / "absent").exists()
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("", r"study\.json is torn or not one of ours"),
        ('{"study": "dec', r"study\.json is torn or not one of ours"),
        ("[]", r"study\.json is not one of ours: it names no study and key"),
        (json.dumps({"key": 3}), r"study\.json is not one of ours: it names no study and key"),
        (json.dumps({name: NOTE[name] for name in ("study", "source")}), "it names no study and "
            "key"),
        (json.dumps(NOTE | {"key": "three"}), "it names no study and key"),
        (json.dumps(NOTE | {"source": ""}), r"was made in Python, from no study file: use "
            r"bd\.Study\.run there"),
        (json.dumps(NOTE | {"source": "/absent/study.py"}), r"no such file: /absent/study\.py"),
        (json.dumps(NOTE | {"source": "lynx"}), "there is no study 'lynx'; known are"),
        (json.dumps(NOTE | {"engine": "SMC()"}), r"holds another run \(engine SMC\(\).*\): choose "
            r"another folder"),
    ],
)  # fmt: skip
def test_resume_of_a_note_that_is_wrong_is_one_line(tmp_path, note, message):
    (tmp_path / "study.json").write_text(note)
    assert_one_line(invoke("resume", tmp_path), message)
    assert (tmp_path / "study.json").read_text() == note
    assert len(list(tmp_path.iterdir())) == 1
