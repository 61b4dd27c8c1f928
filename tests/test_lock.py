"""One process at a time writes to a folder, and a lock goes with the process that held it."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from bayes_dasl._runs import alone_in
from bayes_dasl.errors import WriteError

ROOT = Path(__file__).resolve().parents[1]
HOLDS = """
import sys, time
from bayes_dasl._runs.lock import alone_in
with alone_in(sys.argv[1]):
    print("alone", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process at work in a folder, and the folder."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout.readline() == "alone\n"
        yield process, folder
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_until_the_first_has_ended(holder):
    process, folder = holder
    refusal = (
        r"another process is at work in .*run: wait until it has ended, or choose another folder"
    )
    with pytest.raises(WriteError, match=refusal), alone_in(folder):
        pytest.fail("two at once")
    process.kill()
    process.wait()
    with alone_in(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert list(folder.iterdir()) == []


def test_blocks_of_one_thread_may_lie_in_each_other_and_another_thread_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused = []

    def enter():
        try:
            with alone_in(tmp_path):
                pass
        except WriteError as error:
            refused.append(str(error))

    with alone_in(tmp_path):
        with alone_in("."):
            pass
        thread = Thread(target=enter)
        thread.start()
        thread.join()
        assert os.listdir(tmp_path) == [".lock"]
    assert len(refused) == 1
    enter()
    assert len(refused) == 1
    assert os.listdir(tmp_path) == []


def test_a_failure_inside_lets_go(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), alone_in(tmp_path):
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_there_is_nothing_to_share():
    with alone_in(None), alone_in(None):
        pass


def test_a_folder_that_is_none_or_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with (
        pytest.raises(WriteError, match=r"cannot write .*taken: it is a file, not a folder"),
        alone_in(tmp_path / "taken"),
    ):
        pass
    with (
        pytest.raises(WriteError, match=r"cannot write .*deeper: Not a directory"),
        alone_in(tmp_path / "taken/deeper"),
    ):
        pass
    if Path("/proc/self").is_dir():
        with pytest.raises(WriteError, match=r"cannot write /proc/run: "), alone_in("/proc/run"):
            pass
