"""JAX as the package sets it up: where compiled programs are kept, and which device computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest
from known_problems import Known

from bayes_dasl._jax import devices as _devices
from bayes_dasl.errors import MismatchError, ModelError
from bayes_dasl.inference import Journal, device as _device

# A small fit, and what JAX did for it; without a solver it compiles quickly.
FIT = """
import json, sys
import jax
events = []
jax.monitoring.register_event_listener(lambda event, **facts: events.append(event))
import numpyro.distributions as dist
import xarray as xr
import bayes_dasl as bd
from bayes_dasl.layers import AbstractLayer, Prediction

class Decay(bd.Module):
    rate: bd.Scalar
    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}

class Level(AbstractLayer):
    level: bd.Scalar
    forcings, units, outputs = (), {}, ("y",)
    def __call__(self, inputs):
        y = self.level + 0.0 * inputs.times
        return Prediction({"y": y}, jax.numpy.asarray(True), {"steps": jax.numpy.asarray(0)})

seen = [1.1, 0.5, 0.45] if "other data" in sys.argv else [1.0, 0.6, 0.4]
data = xr.Dataset({"y": ("time", seen)}, {"time": [0.0, 1.0, 2.0]})
rate = dist.LogNormal(-1.0, 0.5)
layer = Level(rate) if "no solver" in sys.argv else bd.ODE(Decay(rate), {"y": 1.0})
post = bd.fit(bd.Model(layer, bd.NormalNoise(0.1)), data, bd.NUTS(chains=1, warmup=50, draws=1))
names = {"hits": "cache_hits", "misses": "cache_misses"}
counts = {name: events.count(f"/jax/compilation_cache/{event}") for name, event in names.items()}
print(json.dumps(counts | {"folder": jax.config.jax_compilation_cache_dir, "device": post.attrs["device"]}))
"""


@pytest.fixture
def run(tmp_path):
    """Python in a process of its own, at home in `tmp_path`; returns what it prints, and what it complains of."""
    chosen_here = ("JAX_", "XLA_", "XDG_CACHE", "BAYES_DASL_CACHE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(chosen_here)}
    # Matplotlib has a cache of its own, whose first use takes seconds and a line on stderr.
    clean |= {
        "JAX_PLATFORMS": "cpu",
        "HOME": str(tmp_path),
        "LOCALAPPDATA": str(tmp_path),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),
    }

    def run(code, *arguments, **variables):
        command = [sys.executable, "-c", code, *arguments]
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=root, env=clean | variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr.strip()

    return run


def test_a_second_process_reads_the_programs_of_the_first(run, tmp_path):
    """The first in the user's cache folder, the second by its name. Kept are also those that compile in no time."""
    every = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    first = json.loads(run(FIT, **every)[0])
    folder = Path(first["folder"])
    assert folder.is_relative_to(tmp_path)
    assert folder.parts[-2:] == ("bayes_dasl", "jax")
    kept = sorted(path.name for path in folder.iterdir())
    assert first["misses"] > 10
    second = json.loads(run(FIT, **every, BAYES_DASL_CACHE=str(folder.parent))[0])
    assert second["folder"] == first["folder"]
    assert sorted(path.name for path in folder.iterdir()) == kept
    assert second["misses"] == 0
    assert second["hits"] >= first["misses"]


def test_the_same_model_with_other_data_needs_few_new_programs(run):
    """Only those that are compiled ahead of time, to ask how much memory they need, hold their data."""
    every = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    first, second = (json.loads(run(FIT, *said, **every)[0]) for said in ((), ("other data",)))
    assert first["misses"] > 10
    assert second["misses"] <= 3


def test_a_cache_of_jax_that_the_user_has_chosen_is_used(run, tmp_path):
    where = "import bayes_dasl, jax; print(jax.config.jax_compilation_cache_dir)"
    assert run(where, JAX_COMPILATION_CACHE_DIR=f"{tmp_path}/mine") == (f"{tmp_path}/mine", "")
    assert not list(tmp_path.rglob("bayes_dasl"))


def test_a_cache_folder_that_cannot_be_made_disturbs_nobody(run, tmp_path):
    (tmp_path / "file").touch()
    found, complaints = run(FIT, "no solver", BAYES_DASL_CACHE=str(tmp_path / "file"))
    found = json.loads(found)
    assert (found["folder"], found["hits"], found["misses"]) == (None, 0, 0)
    assert complaints == ""
    assert found["device"] == "cpu: the only kind of device here"


@pytest.fixture
def where(monkeypatch, tmp_path):
    """Where programs are kept under these variables, if JAX has been told `before` to keep them there."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    configured = jax.config.jax_compilation_cache_dir

    def where(before=None, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        jax.config.update("jax_compilation_cache_dir", before)
        _devices._keep_compiled_programs()
        return jax.config.jax_compilation_cache_dir

    yield where
    jax.config.update("jax_compilation_cache_dir", configured)


def test_the_cache_can_be_chosen_and_switched_off(where, tmp_path):
    assert where(BAYES_DASL_CACHE=str(tmp_path)) == str(tmp_path / "jax")
    assert where("mine") == "mine"
    assert where(BAYES_DASL_CACHE="Off") is None
    assert _devices.cache_folder() is None
    assert where(BAYES_DASL_CACHE=str(tmp_path), JAX_COMPILATION_CACHE_DIR="") is None


def test_a_cache_folder_that_cannot_be_written_is_left_alone(where, monkeypatch, tmp_path):
    (tmp_path / "jax").touch()  # no folder
    assert where(BAYES_DASL_CACHE=str(tmp_path)) is None
    (tmp_path / "jax").unlink()
    assert where() == str(tmp_path / "jax")
    monkeypatch.setattr(os, "access", lambda path, how: how != os.W_OK)
    assert where() is None


PROBLEM = Known(lambda x: -(x**2).sum(), np.zeros(3), np.eye(3))


@pytest.fixture
def only_a_cpu(monkeypatch):
    monkeypatch.setattr(_device, "kinds", lambda: ["cpu"])


def computed_on(device, chains=4):
    with _device.computing_on(device, PROBLEM, chains, Journal()) as said:
        return said


def test_a_device_says_why_it_was_taken(only_a_cpu, monkeypatch):
    assert computed_on("cpu") == "cpu: as asked"
    assert computed_on("auto") == "cpu: the only kind of device here"
    rates, asked = {"gpu": 1500.0, "cpu": 2e4}, []
    monkeypatch.setattr(_device, "kinds", lambda: ["gpu", "cpu"])
    monkeypatch.setattr(_device, "_gradients_a_second", lambda _, *what: asked.append(what) or rates[what[1]])
    assert computed_on("auto", 7) == "cpu: gradients a second for a batch of 7: 1500 on gpu, 20000 on cpu"
    assert asked == [(7, "gpu"), (7, "cpu")]
    assert computed_on("cpu") == "cpu: as asked"
    assert len(asked) == 2


def test_gradients_are_counted():
    assert 10 < _device._gradients_a_second(PROBLEM, 2, "cpu") < 1e8


@pytest.mark.parametrize("device", ["gpu", "tpu", "CPU", ""])
def test_a_device_that_is_not_here_is_refused(only_a_cpu, device):
    with pytest.raises(ModelError, match=f"there is no device '{device}': give 'auto' or one of cpu") as caught:
        _device.check_device(device)
    assert ("bayes-dasl[cuda12] or bayes-dasl[cuda13]" in str(caught.value)) == (device == "gpu")
    _device.check_device("auto")
    _device.check_device("cpu")


SPREAD = """
import jax, numpy as np
import bayes_dasl
from bayes_dasl.inference.sharding import spread

def one(item, factor):
    return {"y": factor * item["x"], "bits": jax.random.bits(item["key"])}

for count in (1, 2, 3, 4, 7):
    over = spread(one, count, shared=1)
    items = {"x": np.arange(float(count)), "key": jax.random.split(jax.random.key(0), count)}
    out = jax.jit(over.function)(jax.device_put(items, over.sharding), 2.0)
    np.testing.assert_array_equal(out["y"], 2.0 * np.arange(count))
    np.testing.assert_array_equal(out["bits"], jax.vmap(jax.random.bits)(items["key"]))
    print(count, len(over.devices))
"""


def test_items_are_spread_over_as_many_devices_as_help(run):
    """Also a number that the devices do not divide; each item is its own, whatever stands beside it."""
    used, _ = run(SPREAD, JAX_NUM_CPU_DEVICES="2")
    assert used.splitlines() == ["1 1", "2 2", "3 2", "4 2", "7 2"]
    used, _ = run(SPREAD, JAX_NUM_CPU_DEVICES="4")
    assert used.splitlines() == ["1 1", "2 2", "3 3", "4 4", "7 4"]


def test_a_run_goes_on_where_it_was_begun(tmp_path, monkeypatch):
    problem = Known(lambda x: -0.5 * x[0] ** 2, [0.0], [[1.0]])
    with _device.computing_on("auto", problem, 4, Journal(tmp_path)) as first:
        assert first == "cpu: the only kind of device here"
    monkeypatch.setattr(_device, "kinds", lambda: ["gpu", "cpu"])
    with _device.computing_on("auto", problem, 4, Journal(tmp_path)) as again:
        assert again == first
    with (
        pytest.raises(MismatchError, match="computed on cpu: resume it there, not with device='gpu'"),
        _device.computing_on("gpu", problem, 4, Journal(tmp_path)),
    ):
        pass


def test_a_default_device_may_be_a_word():
    with jax.default_device("cpu"):
        assert _devices.computing_devices() == jax.devices("cpu")


def test_a_run_that_goes_on_with_other_devices_says_what_that_means(tmp_path, monkeypatch):
    with _device.computing_on("auto", PROBLEM, 4, Journal(tmp_path)):
        pass
    monkeypatch.setattr(_device, "_number", lambda kind: 64)
    with (
        pytest.warns(UserWarning, match=r"begun on \d+ cpu devices and here are 64: .* to rounding only"),
        _device.computing_on("auto", PROBLEM, 4, Journal(tmp_path)),
    ):
        pass
