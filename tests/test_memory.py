"""Memory: control groups read from files, and draws pushed in chunks that the compiled program's
needs decide.
"""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl._jax import memory as _memory
from bayes_dasl.prediction import predictive as _predictive, push
from bayes_dasl.priors import draw_prior

GIB = 2**30


def write(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "proc" / "self")
    return tmp_path


def test_memory_at_hand_is_some_of_what_there_is():
    assert 0 < _memory.available() <= _memory._available_memory()
    assert _memory._available_memory() > 2**24


def test_the_machine_says_what_is_free(root):
    (root / "proc" / "meminfo").write_text(
        "MemTotal:  100 kB\nMemFree:  10 kB\nMemAvailable:  60 kB\n"
    )
    assert _memory._available_memory(root) == 60 * 1024


def test_groups_of_version_two(root):
    (root / "proc" / "self" / "cgroup").write_text("0::/batch/job\n")
    top = root / "sys" / "fs" / "cgroup"
    stat = "anon 1\ninactive_file 50\nactive_file 7\n"
    write(top / "batch", memory__max="1000\n", memory__current="400\n", memory__stat=stat)
    write(top / "batch" / "job", memory__max="max\n", memory__current="300\n", memory__stat=stat)
    # The job itself has no limit, and the top of the tree holds no such files: its parent's limit
    # counts.
    assert _memory._left_by_groups(root) == [1000 - 400 + 50]


def test_groups_of_version_one_seen_from_inside_a_container(root):
    (root / "proc" / "self" / "cgroup").write_text("7:cpu:/\n4:memory:/docker/0123\n0::/\n")
    top = root / "sys" / "fs" / "cgroup" / "memory"
    files = {"memory__limit_in_bytes": "900\n", "memory__usage_in_bytes": "200\n"}
    write(top, **files, memory__stat="inactive_file 1\ntotal_inactive_file 30\n")
    assert _memory._left_by_groups(root) == [900 - 200 + 30]


def test_no_groups(root):
    assert _memory._left_by_groups(root) == []
    assert _memory._left_by_groups(root / "elsewhere") == []
    assert _memory._available_memory(root / "elsewhere") > 2**24  # a system without /proc


def test_the_least_counts(monkeypatch):
    monkeypatch.setattr(_memory, "_available_memory", lambda: 4 * GIB)
    monkeypatch.setattr(_memory, "_left_by_groups", lambda: [3 * GIB, 2 * GIB])
    assert _memory.available() == 2 * GIB
    monkeypatch.setattr(_memory, "_left_by_groups", lambda: [-5])
    assert _memory.available() == 0


def test_an_accelerator_says_what_it_has_left(monkeypatch):
    monkeypatch.setattr(
        _memory, "_available_memory", lambda: 10 * GIB
    )  # that of the machine may change from one look to the next
    stats = {"bytes_limit": 80 * GIB, "bytes_in_use": 20 * GIB}
    assert _memory._at_hand(SimpleNamespace(platform="gpu", memory_stats=lambda: stats)) == 60 * GIB
    silent = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    assert 0 < _memory._at_hand(silent) <= 10 * GIB


class Field(bd.Module):
    """Many states that decay side by side; one number of them is seen."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"field": -self.rate * y["field"]}


class Mean(bd.Module):
    def __call__(self, t, y, u):
        return {"mean": jnp.mean(y["field"])}


STATES, TIMES, DRAWS = 3000, np.linspace(0.0, 2.0, 6), 40


@pytest.fixture(scope="module")
def field():
    start = np.linspace(0.5, 1.5, STATES)
    model = bd.Model(
        bd.ODE(Field(rate=bd.between(0.2, 2.0)), {"field": start}, Mean()), bd.NormalNoise(0.1)
    )
    given = model.inputs(xr.Dataset(coords={"time": TIMES}))
    draws = {
        path: np.asarray(v) for path, v in draw_prior(model, DRAWS, key=jax.random.key(0)).items()
    }
    return model, given, draws


def chunks_of(monkeypatch, field, available):
    """What is pushed with so much memory at hand, the size of a chunk,
    and what its program needs.
    """
    model, given, draws = field
    used = []
    compiled = _predictive._compiled
    monkeypatch.setattr(_predictive, "_compiled", lambda *a: used.append(compiled(*a)) or used[-1])
    monkeypatch.setattr(_memory, "available", lambda: available)
    observed = {"mean": jnp.ones(len(TIMES))}
    pushed = push(model, given, draws, observed=observed, key=jax.random.key(1))
    [(program, chunk)] = used
    return pushed, chunk, _memory.needed(program)


@pytest.mark.slow
def test_a_large_state_is_pushed_in_small_chunks(field, monkeypatch):
    with monkeypatch.context() as patch:
        whole, chunk, needs = chunks_of(patch, field, 100 * GIB)
    assert chunk == DRAWS
    # The states at all times are held for each draw, though a single number of them comes out.
    assert needs > 8 * DRAWS * STATES * len(TIMES)
    with monkeypatch.context() as patch:
        parts, chunk, smaller = chunks_of(patch, field, needs)  # a quarter of it is for a chunk
    assert 2 <= chunk <= DRAWS // 4
    assert smaller <= needs / 4
    truth = np.exp(-field[2]["layer.vector_field.rate"][:, None] * TIMES)
    np.testing.assert_allclose(whole.mean["mean"], truth, rtol=1e-4)
    for one, other in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.slow
def test_with_no_memory_at_hand_draws_go_one_by_one(field, monkeypatch):
    model, given, draws = field
    few = model, given, {path: values[:3] for path, values in draws.items()}
    pushed, chunk, _ = chunks_of(monkeypatch, few, 0)
    assert chunk == 1
    assert pushed.mean["mean"].shape == (3, len(TIMES))


class Watched(bd.Module):
    """A vector field with a check that calls back into Python."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        state = eqx.error_if(y["y"], y["y"] > 1e6, "the state is absurd")
        return {"y": -self.rate * state}


@pytest.mark.thorough
def test_the_program_is_kept_on_disk():
    """Conftest names a folder for JAX's cache;
    a program with a callback would never be kept there.
    """
    model = bd.Model(
        bd.ODE(Watched(rate=bd.between(0.2, 2.0)), {"y": dist.Normal(1.0, 0.1)}),
        bd.NormalNoise(0.1),
    )
    given = model.inputs(xr.Dataset(coords={"time": TIMES}))
    draws = {path: np.asarray(v) for path, v in draw_prior(model, 3, key=jax.random.key(0)).items()}
    push(model, given, draws)
    events = []
    listen = lambda event, **facts: events.append(event)  # noqa: E731
    jax.monitoring.register_event_listener(listen)
    try:
        push(model, given, draws)
    finally:
        jax.monitoring.unregister_event_listener(listen)
    assert events.count("/jax/compilation_cache/cache_hits") == 1
