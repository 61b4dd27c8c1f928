"""Long forecasts: in a file they are what they are in memory, and they take little of it."""

import json
import os
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl._statistics import blocks as _blocks
from bayes_dasl._statistics.blocks import blocks
from bayes_dasl.errors import WriteError
from bayes_dasl.prediction import predictive as _predictive
from tests.studies import ROOT
from tests.studies.benchmarks.memory import posed

GIB = 1024  # in MiB


@pytest.fixture(scope="module")
def whole():
    model, post, data = posed(times=90, draws=280)
    return model, post, data, bd.forecast(model, post, data, key=3)


def test_in_a_file_it_is_what_it_is_in_memory(whole, tmp_path, monkeypatch):
    model, post, data, fc = whole
    monkeypatch.setattr(_predictive, "_LARGEST_CHUNK", 50)  # a chunk of 50 crosses the ends of chains of 70
    path = tmp_path / "new" / "forecast.nc"
    filed = bd.forecast(model, post, data, path=path, key=3)
    assert set(filed.children) == set(fc.children)
    for group in fc.children:
        xr.testing.assert_allclose(filed[group].to_dataset(), fc[group].to_dataset(), rtol=1e-9)
        for name, variable in fc[group].data_vars.items():
            assert filed[group][name].attrs == variable.attrs
    assert {**filed.attrs, "created": "", "wall_time_s": 0} == {**fc.attrs, "created": "", "wall_time_s": 0}
    xr.testing.assert_identical(bd.load(path)["predictions"].to_dataset(), filed["predictions"].to_dataset())
    assert [file.name for file in path.parent.iterdir()] == ["forecast.nc"]


def test_read_block_by_block_it_says_the_same(whole, tmp_path, monkeypatch):
    model, post, data, fc = whole
    scores, transform, parts = bd.score(fc, data), bd.pit(fc, data), bd.decompose(fc)
    filed = bd.forecast(model, post, data, path=tmp_path / "forecast.nc", key=3)
    monkeypatch.setattr(_blocks, "_VALUES", 280 * 7)
    xr.testing.assert_allclose(bd.decompose(filed), parts)
    xr.testing.assert_allclose(bd.pit(filed, data), transform)
    np.testing.assert_allclose(bd.score(filed, data), scores)
    few = data.isel(time=[1, 2, 50])
    np.testing.assert_allclose(bd.score(filed, few), bd.score(fc, few))


def test_blocks_make_up_the_whole_in_its_order():
    values = np.arange(5 * 4 * 3).reshape(5, 4, 3)
    for most in (1, 2, 3, 7, 12, 24, 100):
        parts = [values[tuple(at.values())] for at in blocks({"a": 5, "b": 4, "c": 3}, most)]
        assert max(part.size for part in parts) <= most
        assert np.concatenate([part.ravel() for part in parts]).tolist() == values.ravel().tolist()


def test_a_disk_with_too_little_room_is_refused_first(whole, tmp_path, monkeypatch):
    model, post, data, _ = whole
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(WriteError, match="GiB are needed"):
        bd.forecast(model, post, data, path=tmp_path / "forecast.nc")
    assert not list(tmp_path.iterdir())


def traced_peak(step):
    tracemalloc.start()
    try:
        result = step()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_step_holds_all_draws(tmp_path, monkeypatch):
    """Not even those of one group: the same in large is a slow test."""
    model, post, data = posed(times=3000, draws=400)
    monkeypatch.setattr(_predictive, "_LARGEST_CHUNK", 32)
    monkeypatch.setattr(_blocks, "_VALUES", 2**16)
    one_group = 8 * 3000 * 400
    fc, peak = traced_peak(lambda: bd.forecast(model, post, data, path=tmp_path / "forecast.nc"))
    assert peak < one_group
    for step in (bd.decompose, lambda fc: bd.score(fc, data), lambda fc: bd.pit(fc, data)):
        assert traced_peak(lambda step=step: step(fc))[1] < one_group


def measured(*options):
    command = [sys.executable, "-m", "tests.studies.benchmarks.memory", *options]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "onstant folding" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_long_forecast_takes_less_than_a_gibibyte_of_memory():
    found = measured("--times", "20000", "--draws", "4000")
    assert found["output"] > 1.7 * GIB
    assert max(found[step] for step in ("forecast", "decompose", "score", "pit")) < GIB


@pytest.mark.slow
def test_in_memory_a_long_forecast_takes_less_than_a_gibibyte_more_than_itself():
    found = measured("--times", "20000", "--draws", "4000", "--in-memory")
    assert found["forecast"] < found["output"] + GIB
