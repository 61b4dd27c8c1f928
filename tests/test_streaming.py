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
from by_hand import at_times, levels_model, posterior
from test_log_score import BinomialNoise, MixedNoise

import bayes_dasl as bd
from bayes_dasl._statistics import blocks as _blocks
from bayes_dasl._statistics.blocks import blocks
from bayes_dasl.errors import ReadError, WriteError
from bayes_dasl.prediction import predictive as _predictive
from tests.studies import ROOT
from tests.studies.benchmarks.memory import posed

GIB = 1024  # in MiB


@pytest.fixture(scope="module")
def whole():
    model, post, data = posed(times=90, draws=280)
    return model, post, data, bd.forecast(model, post, data, key=3)


@pytest.mark.thorough
def test_in_a_file_it_is_what_it_is_in_memory(whole, tmp_path, monkeypatch):
    model, post, data, fc = whole
    monkeypatch.setattr(
        _predictive, "_LARGEST_CHUNK", 50
    )  # a chunk of 50 crosses the ends of chains of 70
    path = tmp_path / "new" / "forecast.nc"
    filed = bd.forecast(model, post, data, path=path, key=3)
    assert set(filed.children) == set(fc.children)
    for group in fc.children:
        xr.testing.assert_allclose(filed[group].to_dataset(), fc[group].to_dataset(), rtol=1e-9)
        for name, variable in fc[group].data_vars.items():
            assert filed[group][name].attrs == variable.attrs
    assert {**filed.attrs, "created": "", "wall_time_s": 0} == {
        **fc.attrs,
        "created": "",
        "wall_time_s": 0,
    }
    xr.testing.assert_identical(
        bd.load(path)["predictions"].to_dataset(), filed["predictions"].to_dataset()
    )
    assert [file.name for file in path.parent.iterdir()] == ["forecast.nc"]


@pytest.mark.thorough
def test_read_block_by_block_it_says_the_same(whole, tmp_path, monkeypatch):
    model, post, data, fc = whole
    scores, transform, parts = bd.score(fc, data), bd.scores.pit(fc, data), bd.decompose(fc)
    filed = bd.forecast(model, post, data, path=tmp_path / "forecast.nc", key=3)
    monkeypatch.setattr(_blocks, "_VALUES", 280 * 7)
    xr.testing.assert_allclose(bd.decompose(filed), parts)
    xr.testing.assert_allclose(bd.scores.pit(filed, data), transform)
    np.testing.assert_allclose(bd.score(filed, data), scores)
    few = data.isel(time=[1, 2, 50])
    np.testing.assert_allclose(bd.score(filed, few), bd.score(fc, few))


@pytest.mark.thorough
@pytest.mark.parametrize("chains", [True, False])
@pytest.mark.parametrize("noise", [bd.NormalNoise(0.5), BinomialNoise(5), MixedNoise()])
def test_the_noise_and_repeated_members_are_in_the_file_too(noise, chains, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    truth, levels = at_times(rng.integers(1, 5, 6)), rng.uniform(1.0, 4.0, (1, 7, 6))
    model = levels_model(6, noise)
    post = posterior(model, truth, {"layer.function.level": levels}, chains=chains)
    fc = bd.forecast(model, post, truth)
    monkeypatch.setattr(_predictive, "_LARGEST_CHUNK", 3)
    filed = bd.forecast(model, post, truth, path=tmp_path / "forecast.nc")
    assert filed["predictions"].sizes["draw"] == (7 if chains else 1001)
    monkeypatch.setattr(_blocks, "_VALUES", 2 * filed["predictions"].sizes["draw"])
    assert filed["noise"].data_vars.keys() == fc["noise"].data_vars.keys()
    for name, parameter in fc["noise"].data_vars.items():
        xr.testing.assert_allclose(filed["noise"][name], parameter)
        assert filed["noise"][name].dtype == parameter.dtype
    xr.testing.assert_allclose(filed["predictions"].to_dataset(), fc["predictions"].to_dataset())
    table = bd.score(filed, truth)
    np.testing.assert_allclose(table, bd.score(fc, truth))
    assert table.attrs == bd.score(fc, truth).attrs


def test_whether_numbers_are_whole_is_asked_of_all_blocks(monkeypatch):
    """Draws alone have a kernel density unless all of them and the data are whole numbers."""
    values = np.random.default_rng(2).poisson(3.0, (1, 50, 8)).astype(float)
    values[..., 7] += 0.5
    truth, whole = at_times(np.full(8, 3.0)), at_times(np.full(7, 3.0))
    fc = xr.DataTree.from_dict(
        {"predictions": xr.Dataset({"y": (("chain", "draw", "time"), values)}, truth.coords)}
    )
    told, of_counts = bd.score(fc, truth), bd.score(fc, whole)
    monkeypatch.setattr(_blocks, "_VALUES", 100)
    np.testing.assert_allclose(bd.score(fc, truth), told)
    assert np.isfinite(told.loc["y", "log_score"]) and np.isnan(
        bd.score(fc, whole).loc["y", "log_score"]
    )
    assert bd.score(fc, whole).attrs == of_counts.attrs


@pytest.mark.thorough
def test_a_bit_that_has_changed_in_the_file_is_seen(whole, tmp_path):
    model, post, data, _ = whole
    path = tmp_path / "forecast.nc"
    bd.forecast(model, post, data, path=path).close()
    written = bytearray(path.read_bytes())
    written[len(written) // 2] ^= 4
    path.write_bytes(written)
    with pytest.raises(ReadError, match="its checksum is another than when it was written"):
        bd.load(path)


def test_blocks_make_up_the_whole_in_its_order():
    values = np.arange(5 * 4 * 3).reshape(5, 4, 3)
    for most in (1, 2, 3, 7, 12, 24, 100):
        parts = [values[tuple(at.values())] for at in blocks({"a": 5, "b": 4, "c": 3}, most)]
        assert max(part.size for part in parts) <= most
        assert np.concatenate([part.ravel() for part in parts]).tolist() == values.ravel().tolist()


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_no_step_holds_all_draws(tmp_path, monkeypatch):
    """Not even those of one group: the same in large is a slow test."""
    model, post, data = posed(times=3000, draws=400)
    monkeypatch.setattr(_predictive, "_LARGEST_CHUNK", 32)
    monkeypatch.setattr(_blocks, "_VALUES", 2**16)
    one_group = 8 * 3000 * 400
    fc, peak = traced_peak(lambda: bd.forecast(model, post, data, path=tmp_path / "forecast.nc"))
    assert peak < one_group
    for step in (bd.decompose, lambda fc: bd.score(fc, data), lambda fc: bd.scores.pit(fc, data)):
        assert traced_peak(lambda step=step: step(fc))[1] < one_group


def measured(*options):
    command = [sys.executable, "-m", "tests.studies.benchmarks.memory", *options]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert "onstant folding" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_long_forecast_takes_less_than_a_gibibyte_of_memory():
    found = measured("--times", "20000", "--draws", "4000")
    assert found["output"] > 2.3 * GIB
    assert max(found[step] for step in ("forecast", "decompose", "score", "pit")) < GIB


@pytest.mark.slow
def test_in_memory_a_long_forecast_takes_less_than_a_gibibyte_more_than_itself():
    found = measured("--times", "20000", "--draws", "4000", "--in-memory")
    assert found["forecast"] < found["output"] + GIB
