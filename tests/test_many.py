"""Many tasks: nothing is lost, nothing done twice."""

import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import dask
import numpy as np
import pytest
from tasks_of_many import (
    arrays,
    compiles,
    fails,
    hoards,
    killed_once,
    odd,
    says_its_argument,
    slowly,
    square,
    stopped,
)

from bayes_dasl.errors import Interrupted, ModelError, ReadError, WriteError
from bayes_dasl.many import ALONE, combinations, many, run_many

quiet = {"say": lambda text: None}


def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    rows = tmp_path / "rows.jsonl"
    said, tasks = [], combinations(number=range(8), folder=[str(tmp_path)])
    table = run_many(killed_once, tasks, rows, workers=2, say=said.append)
    assert [*table["square"]] == [n**2 for n in range(8)]
    assert len(rows.read_text().splitlines()) == 8 and (tmp_path / "died").exists()
    assert said[0] == "0 of 8 tasks are done" and said[-1] == "8 of 8 tasks are done"
    assert set(table["cores"]) == {max(len(os.sched_getaffinity(0)) // 2, 1)}
    assert os.getpid() not in set(table["process"])


def test_a_worker_that_uses_most_of_its_memory_goes_on(tmp_path, monkeypatch):
    """Dask would pause it, for ever."""
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 1_200_000_000)
    tasks, rows = combinations(number=range(4)), tmp_path / "rows.jsonl"
    found = []
    work = threading.Thread(
        target=lambda: found.append(run_many(hoards, tasks, rows, workers=1, **quiet)), daemon=True
    )
    work.start()
    work.join(60.0)
    [table] = found
    assert [*table["square"]] == [0, 1, 4, 9] and table["process"].nunique() == 1


@pytest.mark.parametrize(("full", "programs"), [(0.0, [0, 0, 0]), (1.0, [0, 1, 1])])
def test_a_worker_whose_memory_fills_forgets_its_programs(tmp_path, monkeypatch, full, programs):
    """Else a long study has tens of megabytes of them for each fit."""
    monkeypatch.setattr("bayes_dasl.many.many._FULL", full)
    table = run_many(
        compiles, combinations(number=range(3)), tmp_path / "rows.jsonl", workers=1, **quiet
    )
    assert (
        table["process"].nunique() == 1 and [*table.sort_values("number")["programs"]] == programs
    )


def test_what_is_done_is_not_done_again(tmp_path):
    rows, ran = (
        tmp_path / "rows.jsonl",
        lambda: [len(p.read_text()) for p in sorted(tmp_path.glob("ran *"))],
    )
    tasks = combinations(number=range(4), folder=[str(tmp_path)])
    run_many(square, tasks[:2], rows, workers=0, **quiet)
    with rows.open("a") as file:
        file.write('{"task": {"number": 2')  # as a kill would leave it
    table = run_many(square, tasks, rows, workers=0, **quiet)
    assert ran() == [1, 1, 1, 1] and [*table["square"]] == [0, 1, 4, 9]
    assert len([line for line in rows.read_text().splitlines() if line.endswith("}")]) == 4
    run_many(square, tasks, rows, workers=0, code="another", **quiet)
    assert ran() == [2, 2, 2, 2]


def test_a_task_that_fails_is_a_row_and_done_again_next_time(tmp_path):
    tasks = combinations(number=range(3))
    for _ in range(2):
        table = run_many(fails, tasks, tmp_path / "rows.jsonl", workers=0, retries=0, **quiet)
    assert [*table["failed"].dropna()] == ["ValueError: one is odd"] and [
        *table["square"].dropna()
    ] == [0, 4]
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["task"]["number"] for line in lines] == [0, 1, 2, 1]
    assert lines[0]["none"] is None


def test_a_row_that_json_cannot_hold_is_a_failure_and_no_end(tmp_path):
    table = run_many(
        odd, combinations(number=range(3)), tmp_path / "rows.jsonl", workers=0, retries=0, **quiet
    )
    assert (
        "must hold numbers" in table["failed"][0] and "may not say 'failed'" in table["failed"][1]
    )
    assert table["square"][2] == 4


def test_arrays_and_infinities_are_kept(tmp_path):
    tasks, rows = combinations(number=[3]), tmp_path / "rows.jsonl"
    for _ in range(2):  # as it is done, and as it is read
        table = run_many(arrays, tasks, rows, workers=0, **quiet)
        assert table["square"][0] == 9 and table["least"][0] == -np.inf
        assert table["log_score"][0][:2] == [np.inf, 1.0] and table["log_score"][0][2] is None
    json.loads(rows.read_text(), parse_constant=pytest.fail)


def test_a_row_that_says_its_own_argument_is_a_failure(tmp_path):
    table = run_many(
        says_its_argument, [{"number": 3}], tmp_path / "rows.jsonl", workers=0, **quiet
    )
    assert table["number"][0] == 3 and "may not say 'number' itself" in table["failed"][0]


def test_a_task_that_is_stopped_ends_the_run_and_has_no_row(tmp_path):
    with pytest.raises(Interrupted):
        run_many(stopped, [{"number": 3}], tmp_path / "rows.jsonl", workers=0, **quiet)
    assert (tmp_path / "rows.jsonl").read_text() == ""


@pytest.mark.parametrize(("write", "error"), [(None, WriteError), (b"\xff\xfe", ReadError)])
def test_a_file_that_cannot_be_used_is_told_before_any_task(tmp_path, write, error):
    rows = tmp_path / "rows.jsonl"
    rows.mkdir() if write is None else rows.write_bytes(write)
    with pytest.raises(error, match="cannot"):
        run_many(square, [{"number": 1, "folder": str(tmp_path)}], rows, workers=0, **quiet)
    assert not (tmp_path / "ran 1").exists()


def test_a_scheduler_has_its_own_workers_and_must_answer(tmp_path):
    with pytest.raises(ModelError, match="leave out workers, or scheduler"):
        run_many(
            square,
            [{"number": 1}],
            tmp_path / "rows.jsonl",
            scheduler="tcp://here:1",
            workers=2,
            **quiet,
        )
    with pytest.raises(ModelError, match="no scheduler answers at here"):
        run_many(square, [{"number": 1}], tmp_path / "rows.jsonl", scheduler="here", **quiet)
    # Later work in this process does not go to the scheduler that did not answer.
    assert dask.config.get("scheduler", None) is None


CLUSTER = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    time.sleep(120)
"""


@pytest.mark.thorough
def test_a_scheduler_that_is_lost_ends_the_run_and_loses_no_row(tmp_path):
    path = {"PYTHONPATH": str(Path(__file__).parent)}  # its worker imports the tasks
    command = [sys.executable, "-c", CLUSTER]
    tasks, rows = combinations(number=range(50)), tmp_path / "rows.jsonl"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | path
    ) as cluster:

        def say(text):
            if text.startswith("1 of"):
                cluster.kill()

        try:
            address = cluster.stdout.readline().strip()
            with pytest.raises(ModelError, match="the scheduler was lost: rows so far are kept"):
                run_many(slowly, tasks, rows, scheduler=address, say=say)
        finally:
            cluster.kill()
    done = len(rows.read_text().splitlines())
    assert 1 <= done < 50
    said = []
    run_many(slowly, tasks[:2], rows, workers=0, say=said.append)
    assert said[0].startswith(f"{min(done, 2)} of 2 tasks")


@pytest.mark.thorough
def test_a_script_that_defines_a_module_of_equinox_does_its_tasks_over_workers(tmp_path):
    """By value its classes would refuse their own fields."""
    script = Path(__file__).with_name("many_study.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "rows.jsonl"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[0, 0, 1, 1]", (
        done.stdout + done.stderr
    )


def test_a_file_that_was_edited_is_run_anew_and_one_that_fails_leaves_no_module(monkeypatch):
    name = f"{ALONE}edited"
    monkeypatch.delitem(sys.modules, name, raising=False)
    text = "kept = []\ndef row(n):\n    kept.append(n)\n    return {'kept': len(kept)}\n"
    first = many._by_file(name, "edited.py", text, "row")
    assert [first(n=3)["kept"], first(n=4)["kept"]] == [1, 2]
    assert many._by_file(name, "edited.py", text + "\n", "row")(n=5)["kept"] == 1
    with pytest.raises(ZeroDivisionError):
        many._by_file(name, "edited.py", "1 / 0\n", "row")(n=6)
    assert name not in sys.modules


def test_a_script_without_a_guard_does_not_start_workers_from_workers():
    text = (
        "import bayes_dasl as bd\ndef row(n):\n    return {}\nbd.many.run_many(row, [{'n': 1}], 'rows', "
        "workers=0)\n"
    )
    with pytest.raises(ModelError, match="under if __name__ == '__main__'"):
        many._by_file(f"{ALONE}unguarded", "unguarded.py", text, "row")(n=1)


def test_a_module_of_equinox_in_a_notebook_is_refused(tmp_path, monkeypatch):
    notebook = ModuleType("__main__")
    exec(
        "import bayes_dasl as bd\nclass Law(bd.Module):\n    k: float\ndef row(n):\n    return "
        "{}\n",
        vars(notebook),
    )
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    with pytest.raises(ModelError, match="the class 'Law' of a notebook"):
        run_many(notebook.row, [{"n": 1}], tmp_path / "rows.jsonl", workers=1, code="x", **quiet)


@pytest.mark.parametrize("do", [functools.partial(square, folder=""), len])
def test_what_hangs_on_more_than_its_arguments_needs_a_name(tmp_path, do):
    with pytest.raises(ModelError, match="name it by code="):
        run_many(do, [{"number": 1}], tmp_path / "rows.jsonl", workers=0, **quiet)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([{"number": 1}] * 2, "occurs twice"),
        ([{"number": Path}], "must be"),
        ([{"code": 1}], "a column of every row"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(tmp_path, tasks, said):
    with pytest.raises(ModelError, match=said):
        run_many(square, tasks, tmp_path / "rows.jsonl", workers=0, **quiet)
