"""The journal of steps: what is read back is what was kept, torn files are dropped by name, other
runs refused.
"""

import builtins
import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bayes_dasl._runs import Journal, ProgressBar, files as _files, read_identity
from bayes_dasl.errors import MismatchError, ReadError, WriteError

ROOT = Path(__file__).resolve().parents[1]
IDENTITY = {"posterior_sha256": "ab12", "engine": "NUTS(chains=2)", "key": 3}
NAMES = ("modes", "warm-up", "draws")

RNG = np.random.default_rng(0)
EVERYTHING = {
    "float64": RNG.normal(size=(3, 4, 2)),
    "float32": RNG.normal(size=5).astype(np.float32),
    "int64": np.arange(-3, 3),
    "uint32": np.asarray([0, 2**32 - 1], np.uint32),
    "bool": np.asarray([True, False]),
    "text": np.asarray("reverse"),
    "nothing": np.zeros((0, 3)),
    "0-d float": np.asarray(1 / 3),
    "0-d int": np.asarray(7),
    "0-d bool": np.asarray(False),
    "special": np.asarray([np.nan, np.inf, -np.inf, -0.0, 5e-324]),
    "state/tuning log": RNG.normal(size=(2, 3)).T,
    "every other": np.arange(10.0)[::2],
}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert type(found[name]) is np.ndarray
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        assert found[name].tobytes() == values.tobytes(), name


def arrays(number):
    return {"x": np.random.default_rng(number).normal(size=(2, 25)), "number": np.asarray(number)}


def take(folder, identity=IDENTITY, names=NAMES):
    """Every step, and the numbers of those that had to be computed."""
    journal, computed, found = Journal(folder, identity), [], []

    def work(number):
        computed.append(number)
        return arrays(number)

    for number, name in enumerate(names, start=1):
        found.append(journal.step(name, lambda number=number: work(number)))
    return found, computed


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of three steps."""
    take(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def step_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.step"


def never():
    pytest.fail("a step was computed that the folder holds")


# ---- what was kept


def test_a_step_is_read_back_bit_for_bit(tmp_path):
    assert_same(Journal(tmp_path, IDENTITY).step("all", lambda: EVERYTHING), EVERYTHING)
    assert_same(Journal(tmp_path, IDENTITY).step("all", never), EVERYTHING)


def test_a_step_without_arrays_is_kept_too(tmp_path):
    assert Journal(tmp_path).step("none", dict) == {}
    assert Journal(tmp_path).step("none", never) == {}


def test_objects_are_never_pickled(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        Journal(tmp_path).step("objects", lambda: {"x": np.asarray([{}], object)})
    assert not step_file(tmp_path, 1).exists()
    assert_same(Journal(tmp_path).step("objects", lambda: arrays(1)), arrays(1))


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        found, computed = take(None)
        assert computed == [1, 2, 3]
        assert_same(found[2], arrays(3))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_read_and_the_rest_computed(folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    found, computed = take(folder, names=(*NAMES, "more"))
    assert computed == [4]
    for number, step in enumerate(found, start=1):
        assert_same(step, arrays(number))
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_steps_after_a_gap_are_computed_anew(folder, gone):
    step_file(folder, gone).unlink()
    found, computed = take(folder)
    assert computed == list(range(gone, 4))
    for number, step in enumerate(found, start=1):
        assert_same(step, arrays(number))


def test_a_failure_leaves_the_steps_before_it(tmp_path):
    journal = Journal(tmp_path, IDENTITY)
    journal.step("modes", lambda: arrays(1))
    with pytest.raises(KeyboardInterrupt):
        journal.step("warm-up", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert take(tmp_path)[1] == [2, 3]


# ---- torn files


def assert_dropped(folder, torn):
    """The torn step is named in one warning; it and those after it are computed anew, and are whole
    then.
    """
    with pytest.warns(UserWarning) as caught:
        found, computed = take(folder)
    said = [str(warning.message) for warning in caught]
    assert said == [
        f"the checkpoint {step_file(folder, torn)} is torn: going on from the step before it"
    ]
    assert computed == list(range(torn, 4))
    for number, step in enumerate(found, start=1):
        assert_same(step, arrays(number))
    assert take(folder)[1] == []


@pytest.mark.parametrize("torn", [1, 2, 3])
@pytest.mark.parametrize("left", [0, 1, 18, 60, 200, 0.5, -1])
def test_a_file_cut_short_is_dropped_with_those_after_it(folder, torn, left):
    whole = step_file(folder, torn).read_bytes()
    step_file(folder, torn).write_bytes(
        whole[: int(left * len(whole)) if isinstance(left, float) else left]
    )
    assert_dropped(folder, torn)


def test_a_file_with_more_than_was_written_is_dropped(folder):
    with step_file(folder, 2).open("ab") as file:
        file.write(b"\0")
    assert_dropped(folder, 2)


def flipped(whole: bytes, bit: int) -> bytes:
    content = bytearray(whole)
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


@pytest.mark.parametrize("where", [0.02, 0.2, 0.5, 0.99])
def test_a_file_with_a_flipped_bit_is_dropped_with_those_after_it(folder, where):
    whole = step_file(folder, 2).read_bytes()
    step_file(folder, 2).write_bytes(flipped(whole, int(where * 8 * len(whole))))
    assert_dropped(folder, 2)


def test_a_flipped_bit_is_seen_wherever_it_is(folder):
    """One in each byte of what stands before the arrays, and in every seventh of the rest."""
    path, journal = step_file(folder, 3), Journal(folder, IDENTITY)
    whole = path.read_bytes()
    head = whole.index(b"PK")
    for bit in (*range(0, 8 * head, 9), *range(8 * head, 8 * len(whole), 57)):
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(ReadError, match=r"000003\.step is torn"):
            journal._read(path, "draws")
    path.write_bytes(whole)
    assert_same(journal._read(path, "draws"), arrays(3))


def test_an_interrupted_write_does_no_harm_and_leaves_nothing(folder):
    """A process killed while it writes leaves its temporary file, of a step or of the note."""
    whole = sorted(folder.iterdir())
    for name in (
        ".000002.step.k3x_9q.partial",
        ".000004.step.abcd.partial",
        ".run.json.x1.partial",
    ):
        (folder / name).write_bytes(b"half")
    assert take(folder)[1] == []
    assert sorted(folder.iterdir()) == whole
    step_file(folder, 2).unlink()
    found, computed = take(folder)
    assert computed == [2, 3]
    assert_same(found[2], arrays(3))


def test_a_write_interrupted_before_the_note_was_there_does_no_harm(tmp_path):
    (tmp_path / ".run.json.x1.partial").write_bytes(b'{"engi')
    (tmp_path / ".lock").touch()
    assert take(tmp_path)[1] == [1, 2, 3]
    assert not (tmp_path / ".run.json.x1.partial").exists()
    assert take(tmp_path)[1] == []


def test_a_removal_interrupted_after_the_note_was_gone_does_no_harm(folder):
    for path in (folder / "run.json", step_file(folder, 1)):
        path.unlink()
    assert take(folder)[1] == [1, 2, 3]


KILLED = """
import os, signal
from bayes_dasl._runs import files
from bayes_dasl._runs.journal import Journal
import numpy as np

def torn(path):
    os.truncate(path, path.stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)

files._reach_the_disk = torn
Journal("FOLDER", {"key": 3}).step("draws", lambda: {"x": np.zeros(100)})
"""


@pytest.mark.thorough
def test_what_a_process_killed_while_it_writes_leaves_goes_at_the_next_start(tmp_path):
    Journal(tmp_path, {"key": 3})
    killed = [sys.executable, "-c", KILLED.replace("FOLDER", str(tmp_path))]
    done = subprocess.run(
        killed, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    [left] = tmp_path.glob(".*")
    assert left.name.startswith(".000001.step.")
    Journal(tmp_path, {"key": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_step_that_cannot_be_read_is_computed_again(folder, monkeypatch):
    read = Path.read_bytes

    def broken(path):
        if path.name == "000002.step":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.warns(
        UserWarning,
        match=r"000002\.step cannot be read \(Input/output error\): going on from the step",
    ):
        found, computed = take(folder)
    assert computed == [2, 3]
    assert_same(found[1], arrays(2))


def test_files_of_somebody_else_beside_the_steps_are_left_alone(folder):
    (folder / "notes.step").write_text("mine")
    step_file(folder, 2).unlink()
    assert take(folder)[1] == [2, 3]
    assert (folder / "notes.step").read_text() == "mine"


# ---- another run


@pytest.mark.parametrize(
    "changed", [{"engine": "NUTS(chains=4)"}, {"key": 4}, {"posterior_sha256": "cd", "key": "3"}]
)
def test_the_note_of_another_run_is_refused_by_what_differs(folder, changed):
    before = sorted(folder.iterdir())
    with pytest.raises(MismatchError) as caught:
        Journal(folder, IDENTITY | changed)
    told = "; ".join(
        f"{name} {IDENTITY[name]!r} instead of {value!r}" for name, value in changed.items()
    )
    assert f"the checkpoint {folder} belongs to another run ({told})" in str(caught.value)
    assert sorted(folder.iterdir()) == before


def test_a_note_that_lacks_something_is_of_another_run(folder):
    (folder / "run.json").write_text(json.dumps({"engine": IDENTITY["engine"], "key": 3}))
    with pytest.raises(MismatchError, match=r"\(posterior_sha256 None instead of 'ab12'\)"):
        Journal(folder, IDENTITY)


def test_a_step_of_another_run_is_refused(folder, tmp_path):
    take(tmp_path / "other", IDENTITY | {"key": 4})
    shutil.copy(step_file(tmp_path / "other", 2), folder)
    before = step_file(folder, 2).read_bytes()
    with pytest.raises(
        MismatchError,
        match=r"000002\.step is the step 'warm-up' of another run, not 'warm-up' of this",
    ):
        take(folder)
    assert step_file(folder, 2).read_bytes() == before
    assert step_file(folder, 3).exists()


def test_a_step_of_another_name_is_refused(folder):
    with pytest.raises(
        MismatchError,
        match=r"000002\.step is the step 'warm-up' of another run, not 'windows' of this",
    ):
        take(folder, names=("modes", "windows", "draws"))


def test_a_step_in_the_place_of_another_is_refused(folder):
    shutil.copy(step_file(folder, 2), step_file(folder, 3))
    with pytest.raises(
        MismatchError,
        match=r"000003\.step is the step 'warm-up' of another run, not 'draws' of this",
    ):
        take(folder)


# ---- something else than a run


@pytest.mark.parametrize(
    "name", ["thesis.tex", "000001.step.txt", ".hidden", "run.json.bak", "data/000001.step"]
)
def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        ReadError,
        match=r"is not empty and holds no checkpoint: it has no run\.json; choose another",
    ):
        Journal(tmp_path, IDENTITY)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_an_empty_folder_is_taken(tmp_path):
    assert take(tmp_path)[1] == [1, 2, 3]


def test_a_file_for_a_folder_is_refused(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(
        WriteError, match=r"cannot write .*taken/run\.json: .*taken is a file, not a folder"
    ):
        Journal(tmp_path / "taken", IDENTITY)
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="there is no /proc, a folder that nobody can write"
)
def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(WriteError, match=r"cannot write /proc/checkpoint/run\.json"):
        Journal("/proc/checkpoint", IDENTITY)


def test_a_step_that_cannot_be_written_is_named(folder):
    shutil.rmtree(folder)
    journal = Journal(folder, IDENTITY)
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    with pytest.raises(WriteError, match=r"cannot write .*000001\.step: .*checkpoint is a file"):
        journal.step("modes", lambda: arrays(1))


def test_a_step_that_does_not_reach_the_disk_is_not_there(folder, monkeypatch):
    step_file(folder, 3).unlink()

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(_files, "_reach_the_disk", full)
        with pytest.raises(
            WriteError,
            match=r"cannot write .*000003\.step: No space left on device.*the 2 steps before",
        ):
            take(folder)
    assert {path.name for path in folder.iterdir()} == {"run.json", "000001.step", "000002.step"}
    assert take(folder)[1] == [3]


# ---- the note


def test_the_note_says_what_the_run_is(folder):
    assert read_identity(folder) == read_identity(str(folder)) == IDENTITY


@pytest.mark.parametrize("where", ["", "absent"])
def test_a_missing_note_is_named_with_how_to_make_one(tmp_path, where):
    with pytest.raises(
        ReadError,
        match=r"holds no checkpoint: it has no run\.json; make one with bd\.fit\(…, check",
    ):
        read_identity(tmp_path / where)


@pytest.mark.parametrize("content", [b"", b'{"engine": "NU', b"\xff\xfe", b"nothing"])
def test_a_torn_note_is_named(folder, content):
    (folder / "run.json").write_bytes(content)
    for read in (read_identity, lambda folder: Journal(folder, IDENTITY)):
        with pytest.raises(ReadError, match=r"run\.json is torn or not one of ours: "):
            read(folder)
    assert step_file(folder, 3).exists()


@pytest.mark.parametrize("content", ["[]", "3", "null", '"NUTS()"'])
def test_a_note_of_something_else_is_named(folder, content):
    (folder / "run.json").write_text(content)
    with pytest.raises(ReadError, match=r"run\.json is not one of ours"):
        read_identity(folder)


def test_a_bar_that_is_asked_for_writes_lines_where_there_is_no_terminal(capsys):
    with ProgressBar(True) as bar:
        bar.start("sampling", 40)
        for _ in range(20):
            bar.advance(2, "R-hat 1.01")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sampling:")]
    assert (
        lines[0] == "sampling: 4 of 40, R-hat 1.01"
        and lines[-1] == "sampling: 40 of 40, R-hat 1.01"
    )
    assert len(lines) == 10
    with ProgressBar(None) as bar:
        bar.start("sampling", 40)
        bar.advance(40)
    assert capsys.readouterr().err == ""


class ZMQInteractiveShell:
    """By this name of its shell Rich knows a notebook, too."""


def test_a_notebook_shows_one_line_that_is_written_again(capsys, monkeypatch):
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    with ProgressBar() as bar:
        bar.start("finding modes", 1)
        bar.start("sampling", 400)
        for _ in range(4):
            bar.advance(100, "3 divergences")
    written = capsys.readouterr().err
    assert written.endswith("\n") and written.count("\n") == 1
    first, *shown = written.strip("\r").split("\r")
    assert first.split()[:3] == ["finding", "modes", "0/1"]
    assert [line.split("/400")[0].split()[-1] for line in shown] == [
        "0",
        "100",
        "200",
        "300",
        "400",
    ]
    assert [line.count("━") for line in shown] == [0, 10, 20, 30, 40]
    # A shorter line must cover the one before.
    assert len({len(line.rstrip("\n")) for line in (first, *shown)}) == 1
    assert all("3 divergences" in line for line in shown[1:])
    with ProgressBar(False) as bar:
        bar.start("sampling", 400)
        bar.advance(100)
    assert capsys.readouterr().err == ""


def test_a_notebook_hears_of_each_hundredth_only(capsys, monkeypatch):
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    with ProgressBar() as bar:
        bar.start("descending", 10_000)
        for _ in range(10_000):
            bar.advance(1)
    assert 90 <= capsys.readouterr().err.count("\r") <= 101
