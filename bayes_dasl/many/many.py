"""Many tasks, such as fits of several models to several data sets, over the workers of a Dask
cluster.
"""

import contextlib
import hashlib
import inspect
import itertools
import json
import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import equinox as eqx
import numpy as np
import pandas as pd

from .._jax.devices import cores
from .._runs.lock import alone_in
from ..errors import ModelError, ReadError, WriteError

ALONE = "bayes_dasl_study_"
"""How the name of a module begins that is a study file of no package."""

type Task = Mapping[str, Any]
type _Done = tuple[dict[str, Any], float]
"""What a task returned, and its seconds."""

_IN_FLIGHT = 4  # tasks that wait for each thread of a worker
_FULL = (
    1 / 3
    # Share of its memory above which a worker forgets the programs that it compiled, some 50 MB for
    # each fit.
)
_OURS = {"task", "code", "seconds", "failed"}
_INFINITE = ("inf", "-inf")


def combinations(**values: Iterable[Any]) -> list[dict[str, Any]]:
    """All combinations: `combinations(model=["science", "hybrid"], seed=range(5))` are ten tasks.

    Args:
        values: those of each argument.
    """
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def run_many(
    do: Callable[..., Mapping[str, Any]],
    tasks: Iterable[Task],
    rows: str | Path,
    *,
    scheduler: Any = None,
    workers: int | None = None,
    retries: int = 2,
    code: str | None = None,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Do many tasks, each of which gives a row of a table, and keep each row as soon as it is
    there.

    A task whose row is in the file is not done again, unless the row is of other code, or of a task
    that failed. What is running when it is stopped, or killed, is lost; nothing else is.

    Args:
        do: a function of a module, or of the script that runs, that takes a task by name,
            `do(model="hybrid", seed=3)`. It returns a dict of what JSON can hold, and of NumPy's
            numbers and arrays. No name in it or of an argument is "task", "code", "seconds" or
            "failed", and none in it that of an argument.
        tasks: the arguments of each, such as `combinations(model=[…], seed=range(5))`.
        rows: the file that holds the rows, a line of JSON for each, in a folder of its own.
        scheduler: the address of a Dask scheduler or a `distributed.Client`; unless given,
            processes of this machine.
        workers: how many processes of this machine, among which its cores are shared out; as many
            as there are cores unless given. With 0 the tasks run one after the other in this
            process, without Dask.
        retries: how often a task that raised is done again; one whose worker died goes to another.
        code: names the code that makes the rows; a hash of the version of the package and of the
            file of `do` unless given. Files that this imports do not count.
        say: a function of one text that is called with how far it is.

    Returns:
        The rows of these tasks, in their order: the arguments, what `do` returned, `seconds`,
        `code`, and `failed` with the error of a task that failed.

    Raises:
        ModelError: without Dask, for a scheduler together with workers, or one that does not
            answer, for tasks that occur twice or whose arguments JSON cannot hold, without `code`
            for what is no function of a file, or hangs on more than its arguments, for a class of a
            notebook, which workers cannot be sent, and for a script without a guard.
        WriteError: where the file cannot be written, or another process writes to it.
        ReadError: where it cannot be read.

    Example:
        ```python
        def row(seed):
            return {"mean": float(np.random.default_rng(seed).normal())}

        tasks = [{"seed": 0}, {"seed": 1}]
        rows = bd.many.run_many(row, tasks, folder / "rows.jsonl", workers=0, code="1")
        ```
    """
    _refuse_while_run_on_a_worker(do)
    tasks, rows = [dict(task) for task in tasks], Path(rows)
    if taken := _OURS & {name for task in tasks for name in task}:
        raise ModelError(
            f"an argument is called '{taken.pop()}', as a column of every row is: call it another "
            "name"
        )
    if retries < 0 or (workers is not None and workers < 0):
        raise ModelError(
            f"retries and workers are whole numbers from 0 on, not {retries} and {workers}"
        )
    if scheduler is not None and workers is not None:
        raise ModelError("a scheduler has the workers that it has: leave out workers, or scheduler")
    keys = [_key(task) for task in tasks]
    if len(set(keys)) < len(keys):
        twice = next(task for task, key in zip(tasks, keys, strict=True) if keys.count(key) > 1)
        raise ModelError(f"a task occurs twice: {twice}")
    code = _code_of(do) if code is None else code
    with alone_in(rows.parent):
        _append(rows, "")
        held = _held(rows, code)
        left = [task for task, key in zip(tasks, keys, strict=True) if key not in held]
        say(f"{len(tasks) - len(left)} of {len(tasks)} tasks are done")
        done = (
            _one_by_one(do, left, retries)
            if workers == 0
            else _over_workers(do, left, scheduler, workers, retries)
        )
        number, failed = len(tasks) - len(left), 0
        with contextlib.closing(done):  # pyright: ignore
            for task, found in done:
                row = _row(task, found, code)
                _append(rows, json.dumps(row) + "\n")
                held[_key(task)] = row
                number, failed = number + 1, failed + ("failed" in row)
                say(
                    f"{number} of {len(tasks)} tasks are done"
                    + (f", {failed} failed" if failed else "")
                )
    return _table(held[key] for key in keys)


def held_rows(tasks: Iterable[Task], rows: Path, code: str) -> pd.DataFrame:
    """The rows of some tasks that a file holds, in their order.

    Args:
        tasks: the arguments of each.
        rows: the file.
        code: as for `run_many`.
    """
    held = _held(rows, code)
    return _table(held[key] for key in map(_key, tasks) if key in held)


def _table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [_numbers(row["task"] | {k: v for k, v in row.items() if k != "task"}) for row in rows]
    )


def _row(task: Task, found: _Done | BaseException, code: str) -> dict[str, Any]:
    """What is kept of a task; that it failed where it raised, or returned what no row can hold."""
    ours = {"task": _plain(task), "code": code}
    if isinstance(found, BaseException):
        return {"failed": f"{type(found).__name__}: {found}"} | ours
    said, seconds = found
    if taken := {*_OURS, *task} & {*said}:
        return {
            "failed": f"a row may not say '{taken.pop()}' itself, which is told beside it"
        } | ours
    try:
        row = _plain(said) | {"seconds": seconds} | ours
        json.dumps(row)
    except TypeError as error:
        return {"failed": f"its row must hold numbers, texts and lists of them: {error}"} | ours
    return row


def _key(task: Task) -> str:
    try:
        return json.dumps(_plain(task), sort_keys=True)
    except TypeError as error:
        raise ModelError(
            f"the arguments of a task must be numbers, texts and lists of them: {error}"
        ) from error


def _plain(value: Any) -> Any:
    """As JSON has it: what is no number becomes nothing."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if isinstance(value, (float, np.floating)):
        return (
            None if np.isnan(value) else float(value) if np.isfinite(value) else str(float(value))
        )
    return value


def _numbers(value: Any) -> Any:
    """What JSON had to write as texts: infinities, such as the log score of what was ruled out."""
    if isinstance(value, Mapping):
        return {name: _numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return float(value) if value in _INFINITE else value


def _code_of(do: Callable[..., Any]) -> str:
    """A hash of the version of the package and of the file of a function, and of its name.

    Raises:
        ModelError: for what has no file, or hangs on more than its arguments.
    """
    try:
        source = Path(inspect.getfile(do)).read_bytes() + getattr(do, "__qualname__", "").encode()
    except (OSError, TypeError):  # of a notebook, or what is no function of Python's
        source = b""
    if not source or not inspect.isfunction(do) or do.__closure__:
        raise ModelError(
            "do must be a function of a file that hangs on its arguments alone; else name it by "
            "code="
        )
    return hashlib.sha256(version("bayes_dasl").encode() + source).hexdigest()[:12]


def _held(path: Path, code: str) -> dict[str, dict[str, Any]]:
    """The rows that stand, by task; not one that a kill tore.

    Raises:
        ReadError: if so.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"cannot read {path} as rows: {error}") from error
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
            row = json.loads(line)
            if row["code"] == code and "failed" not in row:
                found[_key(row["task"])] = row
    return found


def _append(path: Path, line: str) -> None:
    """Write a line on disk; without any, make sure before all work that lines can be written.

    Raises:
        WriteError: if so.
    """
    try:
        with path.open("a+b") as file:
            if line and file.tell() and not _ends_a_line(path):
                line = "\n" + line
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _timed(do: Callable[..., Any]) -> Callable[[Task], _Done]:
    """What is done of a task; it goes to workers by value, who import only what the task needs."""

    def timed(task):
        import time

        began = time.perf_counter()
        return dict(do(**task)), round(time.perf_counter() - began, 3)

    return timed


def _work_of(do: Callable[..., Any], share: int | None) -> Callable[[Task], _Done]:
    """The same in a worker, on so many cores; it clears away what the task left, programs too where
    memory fills.
    """
    timed = _timed(do)

    def work(task):
        import os
        import sys

        import psutil
        from distributed import get_worker

        worker: Any = get_worker()
        if share is not None:
            every = sorted(os.sched_getaffinity(os.getppid()))
            first = int(worker.name) * share % len(every)
            os.sched_setaffinity(0, every[first : first + share])
        try:
            return timed(task)
        finally:
            # First: what is free counts as used, and programs would be forgotten too soon.
            hand_back()
            limit, jax = worker.memory_manager.memory_limit, sys.modules.get("jax")
            alone = (
                worker.nanny is not None and worker.state.nthreads == 1
            )  # else others use these programs
            if jax and alone and limit and psutil.Process().memory_info().rss > _FULL * limit:
                jax.clear_caches()
                hand_back()

    def hand_back():
        import contextlib
        import ctypes
        import gc
        import sys

        gc.collect()
        if (
            sys.platform == "linux"
        ):  # what is free there stays with the process, some 60 MB more with each fit
            with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
                ctypes.CDLL("libc.so.6").malloc_trim(0)

    return work


def _carried(do: Callable[..., Any]) -> Callable[..., Any]:
    """A function that workers get by its file, where they could not import that by its name; others
    as they are.

    Its file goes along as text, which a worker runs once as a module. By value its classes would be
    made anew without what makes them modules of Equinox, which then refuse their own fields.
    """
    name, qualified = do.__module__, getattr(do, "__qualname__", "")
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if name != "__main__" and not name.startswith(ALONE):
        return do
    if path is None:
        _refuse_modules_of_equinox(module)
        return do
    with contextlib.suppress(AttributeError):
        if operator.attrgetter(qualified)(module) is do:
            alone = name if name.startswith(ALONE) else f"{ALONE}{Path(path).stem}"
            return _by_file(
                alone, str(Path(path).resolve()), Path(path).read_text(encoding="utf-8"), qualified
            )
    return do


def _by_file(name: str, path: str, text: str, qualified: str) -> Callable[..., Any]:
    """Call a function of a module that is run from its text; it goes to workers by value, as
    `_timed` does.
    """

    def carried(**task):
        import operator
        import sys
        import threading
        import types

        shared: Any = vars(threading)
        with shared.setdefault(
            "_bayes_dasl_files", threading.RLock()
        ):  # threads of a worker run it once
            module = sys.modules.get(name)
            if (
                getattr(module, "__text__", None) != text
            ):  # a worker may have it from before an edit
                module = types.ModuleType(name)
                vars(module).update(__file__=path, __text__=text)
                sys.modules[name] = module  # dataclasses look their module up
                try:
                    exec(compile(text, path, "exec"), vars(module))
                except BaseException:
                    del sys.modules[name]
                    raise
        return operator.attrgetter(qualified)(module)(**task)

    return carried


def _refuse_modules_of_equinox(module: ModuleType | None) -> None:
    """Raise ModelError for a notebook that defines one, since it has no file to send."""
    for name, held in vars(module).items() if module is not None else ():
        if (
            isinstance(held, type)
            and issubclass(held, eqx.Module)
            and held.__module__ == "__main__"
        ):
            raise ModelError(
                f"workers cannot be sent the class '{name}' of a notebook: write it and the "
                "function into a file and "
                "import them, or say workers=0"
            )


def _refuse_while_run_on_a_worker(do: Callable[..., Any]) -> None:
    """Raise ModelError where a worker that runs a file comes upon its own call of `run_many`."""
    if hasattr(sys.modules.get(do.__module__), "__text__"):
        raise ModelError(
            "workers run this file, too: put its call of run_many under if __name__ == '__main__':"
        )


def _one_by_one(
    do: Callable[..., Any], tasks: Sequence[Task], retries: int
) -> Iterator[tuple[Task, _Done | BaseException]]:
    work = _timed(do)
    for task in tasks:
        for _ in range(retries + 1):
            try:
                found: _Done | BaseException = work(task)
                break
            except KeyboardInterrupt:  # also what says what was kept, which is an exception beside
                raise
            except Exception as error:  # whatever a task may raise is told in its row
                found = error
        yield task, found


def _over_workers(
    do: Callable[..., Any], tasks: Sequence[Task], scheduler: Any, workers: int | None, retries: int
) -> Iterator[tuple[Task, _Done | BaseException]]:
    if not tasks:
        return
    try:
        import dask
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise ModelError(
            "workers need Dask: pip install 'bayes-dasl[distributed]', or say workers=0"
        ) from error
    number = min(workers or cores(), len(tasks))
    share = max(cores() // number, 1) if scheduler is None and sys.platform == "linux" else None
    work = _work_of(_carried(do), share)
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            # No dashboard, and a port that no other study of this machine listens at.
            free: dict[str, Any] = {
                "dashboard_address": None,
                "scheduler_kwargs": {"dashboard_address": ":0"},
            }
            # Dask gives a worker that uses most of its memory no more tasks, for ever: what fits
            # leave is not freed.
            with dask.config.set({"distributed.worker.memory.pause": False}):
                cluster = LocalCluster(n_workers=number, threads_per_worker=1, **free)
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        else:
            try:
                client = (
                    stack.enter_context(Client(scheduler))
                    if isinstance(scheduler, str)
                    else scheduler
                )
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"no scheduler answers at {scheduler}, such as tcp://host:8786: {error}"
                ) from error
        waiting, of, ended = iter(tasks), {}, as_completed([])

        def fill():
            """As many as the workers that there are now can have."""
            threads = sum(
                worker["nthreads"]
                for worker in client.scheduler_info(n_workers=-1)["workers"].values()
            )
            for task in itertools.islice(
                waiting, max(_IN_FLIGHT * max(threads, number) - len(of), 0)
            ):
                future = client.submit(work, task, pure=False, retries=retries)
                of[future] = task
                ended.add(future)

        fill()
        try:
            for future in ended:
                if future.cancelled():
                    raise ModelError(
                        "the scheduler was lost: rows so far are kept, and the same call goes on"
                    )
                yield of.pop(future), future.exception() or future.result()
                fill()
        finally:
            client.cancel([*of])
