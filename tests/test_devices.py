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
from jax.experimental.compilation_cache import compilation_cache
from known_problems import Known

import bayes_dasl as bd
from bayes_dasl._jax import devices as _devices
from bayes_dasl.errors import MismatchError, ModelError
from bayes_dasl.inference import Journal, device as _device

# A small fit, and one of other data if so asked, and what JAX did for each; without a solver it
# compiles quickly.
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

rate = dist.LogNormal(-1.0, 0.5)
layer = Level(rate) if "no solver" in sys.argv else bd.ODE(Decay(rate), {"y": 1.0})
names = {"hits": "cache_hits", "misses": "cache_misses"}
for seen in ([1.0, 0.6, 0.4], [1.1, 0.5, 0.45])[: 2 if "other data" in sys.argv else 1]:
    events.clear()
    data = xr.Dataset({"y": ("time", seen)}, {"time": [0.0, 1.0, 2.0]})
    post = bd.fit(bd.Model(layer, bd.NormalNoise(0.1)), data, bd.NUTS(chains=1, warmup=50, draws=1))
    counts = {name: events.count(f"/jax/compilation_cache/{event}") for name, event in names.items()}
    print(json.dumps(counts | {"folder": jax.config.jax_compilation_cache_dir, "device": post.attrs["device"]}))
"""


@pytest.fixture
def run(tmp_path):
    """Python in a process of its own, at home in `tmp_path`; returns what it prints, and what it
    complains of.
    """
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
        done = subprocess.run(
            command, cwd=root, env=clean | variables, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr.strip()

    return run


def assert_programs_are_kept(run, tmp_path, *said):
    """The first in the user's cache folder, the second by its name. Kept are also those that
    compile in no time.
    """
    every = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    first = json.loads(run(FIT, *said, **every)[0])
    folder = Path(first["folder"])
    assert folder.is_relative_to(tmp_path)
    assert folder.parts[-2:] == ("bayes_dasl", "jax")
    kept = sorted(path.name for path in folder.iterdir())
    assert first["misses"] > 10
    shown, _ = run(FIT, *said, "other data", **every, BAYES_DASL_CACHE=str(folder.parent))
    second, other = map(json.loads, shown.splitlines())
    assert second["folder"] == first["folder"]
    assert second["misses"] == 0
    assert second["hits"] >= first["misses"]
    # Of the same model with other data only those are new that hold them: compiled ahead, to ask
    # for their memory.
    assert other["misses"] <= 3
    assert len({path.name for path in folder.iterdir()} - set(kept)) <= 2 * other["misses"]


@pytest.mark.slow
def test_other_processes_read_the_programs_of_the_first_whatever_the_data(run, tmp_path):
    assert_programs_are_kept(run, tmp_path, "no solver")


@pytest.mark.slow
def test_other_processes_read_the_programs_of_the_first_with_a_solver_too(run, tmp_path):
    assert_programs_are_kept(run, tmp_path)


@pytest.mark.thorough
def test_a_cache_folder_that_cannot_be_made_disturbs_nobody(run, tmp_path):
    (tmp_path / "file").touch()
    found, complaints = run(FIT, "no solver", BAYES_DASL_CACHE=str(tmp_path / "file"))
    found = json.loads(found)
    assert (found["folder"], found["hits"], found["misses"]) == (None, 0, 0)
    assert complaints == ""
    assert found["device"] == "cpu: the only kind of device here"


@pytest.fixture
def where(monkeypatch, tmp_path):
    """Where programs are kept under these variables, if JAX has been told `before` to keep them
    there.
    """
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    configured = jax.config.jax_compilation_cache_dir

    def where(before=None, said=None, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        jax.config.update("jax_compilation_cache_dir", before)
        monkeypatch.setattr(_devices, "_choices", _devices._Choices())
        bd.configure(**said or {})
        return jax.config.jax_compilation_cache_dir

    yield where
    jax.config.update("jax_compilation_cache_dir", configured)
    compilation_cache.reset_cache()


def test_the_cache_can_be_chosen_and_switched_off(where, tmp_path):
    assert where(BAYES_DASL_CACHE=str(tmp_path)) == str(tmp_path / "jax")
    assert where("mine") == "mine"
    assert where(BAYES_DASL_CACHE="Off") is None
    assert _devices.cache_folder() is None
    assert where(BAYES_DASL_CACHE=str(tmp_path), JAX_COMPILATION_CACHE_DIR="") is None
    # What is said outright is heard first.
    assert where("theirs", {"cache": tmp_path / "mine"}) == str(tmp_path / "mine" / "jax")
    assert where("theirs", {"cache": False}) == "theirs"
    assert _devices.cache_folder() is None


def test_the_cache_can_be_chosen_anew_and_given_up(where, tmp_path):
    assert where(BAYES_DASL_CACHE=str(tmp_path)) == str(tmp_path / "jax")
    bd.configure(cache=tmp_path / "other")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "other" / "jax")
    bd.configure(cache=False)
    assert jax.config.jax_compilation_cache_dir is None


def test_of_a_cache_beyond_its_bound_what_was_not_used_for_longest_goes(where, tmp_path):
    (tmp_path / "jax").mkdir()
    for age, name in enumerate("abcd"):
        (tmp_path / "jax" / name).write_bytes(bytes(100))
        os.utime(tmp_path / "jax" / name, (1e9 - age, 1e9 - age))

    def left(most):
        return sorted(
            p.name for p in Path(where(said={"cache": tmp_path, "cache_bytes": most})).iterdir()
        )

    assert left(400) == ["a", "b", "c", "d"]
    assert left(250) == ["a", "b"]
    assert left(0) == []


def test_numbers_that_make_no_sense_are_refused():
    for wrong in ({"cores": 0}, {"cache_bytes": -1}):
        with pytest.raises(ModelError, match="cores at least 1, not"):
            bd.configure(**wrong)


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
    monkeypatch.setattr(
        _device, "_gradients_a_second", lambda _, *what: asked.append(what) or rates[what[1]]
    )
    assert (
        computed_on("auto", 7)
        == "cpu: gradients a second for a batch of 7: 1500 on gpu, 20000 on cpu"
    )
    assert asked == [(7, "gpu"), (7, "cpu")]
    assert computed_on("cpu") == "cpu: as asked"
    assert len(asked) == 2


def test_gradients_are_counted():
    assert 10 < _device._gradients_a_second(PROBLEM, 2, "cpu") < 1e8


@pytest.mark.parametrize("device", ["gpu", "tpu", "CPU", ""])
def test_a_device_that_is_not_here_is_refused(only_a_cpu, device):
    with pytest.raises(
        ModelError, match=f"there is no device '{device}': give 'auto' or one of cpu"
    ) as caught:
        _device.check_device(device)
    assert ("bayes-dasl[cuda12] or bayes-dasl[cuda13]" in str(caught.value)) == (device == "gpu")
    _device.check_device("auto")
    _device.check_device("cpu")


SHARDED = """
import jax, numpy as np
import bayes_dasl as bd
from bayes_dasl.inference import sharding

bd.configure()
print(jax.config.jax_compilation_cache_dir)

def one(item, factor):
    return {"y": factor * item["x"], "bits": jax.random.bits(item["key"])}

def check(count, **settings):
    over = sharding.Sharded(one, count, **settings)
    items = {"x": np.arange(float(count)), "key": jax.random.split(jax.random.key(0), count)}
    for factor in (2.0, 3.0):
        out = over(items, np.asarray(factor))
        np.testing.assert_array_equal(out["y"], factor * np.arange(count))
        np.testing.assert_array_equal(out["bits"], jax.vmap(jax.random.bits)(items["key"]))
    return str(over)

for cores in (1, 2, 4):
    bd.configure(cores=cores)
    print(*[check(count) for count in (1, 2, 3, 4, 7)], sep=", ")

# Accelerators are not at hand: several devices of the CPU stand in for them.
sharding.Sharded.on_cpu = property(lambda self: False)
for batched in (True, False):
    print(*[check(count, batched=batched) for count in (1, 2, 3, 7)], sep=", ")
"""


@pytest.mark.thorough
def test_items_are_shared_out_among_as_many_threads_or_devices_as_help(run, tmp_path):
    """Also a number that they do not divide; each item is its own, whatever stands beside it.

    A cache of JAX that the user has chosen is used.
    """
    threads = [
        "1 × cpu, 1 × cpu, 1 × cpu, 1 × cpu, 1 × cpu",
        "1 × cpu, 2 × cpu, 2 × cpu, 2 × cpu, 2 × cpu",
        "1 × cpu, 2 × cpu, 3 × cpu, 4 × cpu, 4 × cpu",
    ]
    shown, complaints = run(
        SHARDED, JAX_NUM_CPU_DEVICES="3", JAX_COMPILATION_CACHE_DIR=f"{tmp_path}/mine"
    )
    assert complaints == ""
    assert not list(tmp_path.rglob("bayes_dasl"))
    assert shown.splitlines() == [
        f"{tmp_path}/mine",
        *threads,
        *["1 × cpu, 2 × cpu, 3 × cpu, 3 × cpu"] * 2,
    ]


def test_a_run_goes_on_where_it_was_begun(tmp_path, monkeypatch):
    problem = Known(lambda x: -0.5 * x[0] ** 2, [0.0], [[1.0]])
    with _device.computing_on("auto", problem, 4, Journal(tmp_path)) as first:
        assert first == "cpu: the only kind of device here"
    monkeypatch.setattr(_device, "kinds", lambda: ["gpu", "cpu"])
    with _device.computing_on("auto", problem, 4, Journal(tmp_path)) as again:
        assert again == first
    with (
        pytest.raises(
            MismatchError, match="computed on cpu: resume it there, not with device='gpu'"
        ),
        _device.computing_on("gpu", problem, 4, Journal(tmp_path)),
    ):
        pass


def test_a_default_device_may_be_a_word():
    with jax.default_device("cpu"):
        assert _devices.computing_devices() == jax.devices("cpu")


def test_a_run_that_goes_on_with_other_devices_says_what_that_means(tmp_path, monkeypatch):
    with _device.computing_on("auto", PROBLEM, 4, Journal(tmp_path)):
        pass
    monkeypatch.setattr(_device, "shards_of", lambda kind: 64)
    with (
        pytest.warns(
            UserWarning, match=r"begun on \d+ cpu devices and here are 64: .* to rounding only"
        ),
        _device.computing_on("auto", PROBLEM, 4, Journal(tmp_path)),
    ):
        pass
