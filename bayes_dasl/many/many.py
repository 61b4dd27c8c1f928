"""Many tasks, such as fits of several models to several data sets, run by Dask workers."""

import contextlib
import hashlib
import inspect
import itertools
import json
import operator
import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
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
"""Prefix of the module names of study files outside of any package."""

type Task = Mapping[str, Any]
type _Done = tuple[dict[str, Any], float]
"""The result of a task, and its duration in seconds."""

_IN_FLIGHT = 4  # tasks submitted at a time for each thread of a worker
# Share of its memory above which a worker drops compiled programs, some 50 MB per fit.
_FULL = 1 / 3
_OURS = {"task", "code", "seconds", "failed"}
_INFINITE = ("inf", "-inf")


def combinations(**values: Iterable[Any]) -> list[dict[str, Any]]:
    """Return all combinations: `combinations(model=["a", "b"], seed=range(5))` are ten tasks.

    Args:
        values: the values of each argument.

    Returns:
        One dict of arguments per combination.
    """
    chosen = itertools.product(*values.values())
    return [dict(zip(values, combination, strict=True)) for combination in chosen]


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
    """Do many tasks, each of which returns one row of a table, and save each row at once.

    A task is skipped if the file already has its row from the same code. Failed tasks are done
    again. If the run is stopped or killed, only the tasks that were running are lost.

    Args:
        do: a function that does a task, given its arguments by keyword:
            `do(model="hybrid", seed=3)`. It must be defined in a module, or in the script that
            runs. It returns a dict of JSON values, NumPy numbers and arrays. Its keys must differ
            from the arguments and from "task", "code", "seconds" and "failed".
        tasks: the arguments of each task, such as `combinations(model=[…], seed=range(5))`.
        rows: the file of the rows, with one line of JSON per row. Its folder is locked during the
            run.
        scheduler: the address of a Dask scheduler, or a `distributed.Client`. None starts processes
            on this machine.
        workers: number of processes on this machine, which share its cores. None starts one per
            core. With 0 the tasks run one after the other in this process, without Dask.
        retries: how often a task that raised an error is tried again. If a worker dies, another
            worker takes over its task.
        code: a name for the version of the code that makes the rows. None takes a hash of the
            package's version and of the file that defines `do`. Files that this file imports are
            not part of the hash.
        say: a function that is called with each line of progress.

    Returns:
        The rows of these tasks in order. The columns are the arguments, the results of `do`,
        `seconds`, `code`, and `failed`, which is the error message of a failed task.

    Raises:
        ModelError: if Dask is missing; if a scheduler does not answer or is given with workers; if
            a task occurs twice or JSON cannot represent its arguments; if `code` is None and `do`
            is no function of a file or depends on more than its arguments; if workers would need a
            class of a notebook; if a script calls `run_many` without `if __name__ == "__main__":`.
        WriteError: if the file cannot be written, or another process writes to it.
        ReadError: if the file cannot be read.

    Example:
        ```python
        def row(seed):
            return {"mean": float(np.random.default_rng(seed).normal())}

        tasks = [{"seed": 0}, {"seed": 1}]
        rows = bd.many.run_many(row, tasks, folder / "rows.jsonl", workers=0, code="1")
        ```
    """
    # 1. Refuse bad arguments before any work.
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
    keys = [_task_key(task) for task in tasks]
    if len(set(keys)) < len(keys):
        twice = next(task for task, key in zip(tasks, keys, strict=True) if keys.count(key) > 1)
        raise ModelError(f"a task occurs twice: {twice}")
    code = _code_of_function(do) if code is None else code
    with alone_in(rows.parent):
        # 2. Find the tasks that are left. An empty line shows now that the file can be written.
        _append(rows, "")
        saved = _saved_rows(rows, code)
        left = [task for task, key in zip(tasks, keys, strict=True) if key not in saved]
        number, failed = len(tasks) - len(left), 0
        say(f"{number} of {len(tasks)} tasks are done")
        # 3. Do them, and save each row as soon as it comes.
        if workers == 0:
            done = _one_by_one(do, left, retries)
        else:
            done = _over_workers(do, left, scheduler, workers, retries)
        with contextlib.closing(done):
            for task, found in done:
                row = _row_of_task(task, found, code)
                _append(rows, json.dumps(row) + "\n")
                saved[_task_key(task)] = row
                number += 1
                failed += "failed" in row
                lost = f", {failed} failed" if failed else ""
                say(f"{number} of {len(tasks)} tasks are done{lost}")
    return _rows_as_table(saved[key] for key in keys)


def held_rows(tasks: Iterable[Task], rows: Path, code: str) -> pd.DataFrame:
    """Return the saved rows of some tasks, in the order of the tasks.

    Args:
        tasks: the arguments of each task.
        rows: the file of the rows.
        code: as for `run_many`, but not None.

    Returns:
        One line per task whose row is in the file.
    """
    saved = _saved_rows(rows, code)
    return _rows_as_table(saved[key] for key in map(_task_key, tasks) if key in saved)


def _rows_as_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return saved rows as a table, with the arguments of the task as the first columns."""
    lines = []
    for row in rows:
        others = {name: value for name, value in row.items() if name != "task"}
        lines.append(_from_json(row["task"] | others))
    return pd.DataFrame(lines)


def _row_of_task(task: Task, found: _Done | BaseException, code: str) -> dict[str, Any]:
    """Return the row of a task for the file.

    The row has an error message as `failed` if the task raised, if JSON cannot represent its
    result, or if the result uses a reserved name.

    Args:
        task: the arguments.
        found: the result of the task with its duration in seconds, or the error that it raised.
        code: the version of the code, as for `run_many`.
    """
    ours = {"task": _to_json(task), "code": code}
    if isinstance(found, BaseException):
        return {"failed": f"{type(found).__name__}: {found}"} | ours
    said, seconds = found
    if taken := {*_OURS, *task} & {*said}:
        why = f"a row may not say '{taken.pop()}' itself, which is told beside it"
        return {"failed": why} | ours
    try:
        row = _to_json(said) | {"seconds": seconds} | ours
        json.dumps(row)
    except TypeError as error:
        return {"failed": f"its row must hold numbers, texts and lists of them: {error}"} | ours
    return row


def _task_key(task: Task) -> str:
    """Return the arguments of a task as JSON text that does not depend on their order.

    Raises:
        ModelError: if JSON cannot represent the arguments.
    """
    try:
        return json.dumps(_to_json(task), sort_keys=True)
    except TypeError as error:
        raise ModelError(
            f"the arguments of a task must be numbers, texts and lists of them: {error}"
        ) from error


def _to_json(value: Any) -> Any:
    """Convert a value for JSON: NaN to None, infinity to text, NumPy values to Python values."""
    if isinstance(value, Mapping):
        return {str(name): _to_json(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return _to_json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_to_json(each) for each in value]
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            return None
        return float(value) if np.isfinite(value) else str(float(value))
    return value


def _from_json(value: Any) -> Any:
    """Undo `_to_json` for infinities, which may be log scores: convert text to numbers."""
    if isinstance(value, Mapping):
        return {name: _from_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_from_json(each) for each in value]
    return float(value) if value in _INFINITE else value


def _code_of_function(do: Callable[..., Any]) -> str:
    """Return a hash of the package's version, the file that defines a function, and its name.

    Raises:
        ModelError: if the function is not defined in a file, or depends on more than its arguments.
    """
    try:
        source = Path(inspect.getfile(do)).read_bytes() + getattr(do, "__qualname__", "").encode()
    except (OSError, TypeError):  # a function of a notebook, or not written in Python
        source = b""
    if not source or not inspect.isfunction(do) or do.__closure__:
        raise ModelError(
            "do must be a function of a file that hangs on its arguments alone; else name it by "
            "code="
        )
    return hashlib.sha256(version("bayes_dasl").encode() + source).hexdigest()[:12]


def _saved_rows(path: Path, code: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a file by `_task_key`.

    Damaged lines, failed tasks, and rows of other code are left out.

    Raises:
        ReadError: if the file cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"cannot read {path} as rows: {error}") from error
    for line in lines:
        # A kill may have left half a line.
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
            row = json.loads(line)
            if row["code"] == code and "failed" not in row:
                found[_task_key(row["task"])] = row
    return found


def _append(path: Path, line: str) -> None:
    """Append a line to a file, and wait until it is on disk.

    An empty line changes nothing, but tests whether the file can be written.

    Raises:
        WriteError: if the file cannot be written.
    """
    try:
        with path.open("a+b") as file:
            # A kill may have left half a line: begin a new one.
            if line and file.tell() and not _ends_with_newline(path):
                line = "\n" + line
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def _ends_with_newline(path: Path) -> bool:
    """Whether the last line of a file is complete; the file must not be empty."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _timed(do: Callable[..., Any]) -> Callable[[Task], _Done]:
    """Return a function that does a task and measures its duration.

    It returns the result and the seconds. It is pickled by value for the workers, so that they
    import only what the task needs.
    """

    def timed(task):
        import time

        began = time.perf_counter()
        return dict(do(**task)), round(time.perf_counter() - began, 3)

    return timed


def _work_of(do: Callable[..., Any], share: int | None) -> Callable[[Task], _Done]:
    """Return a function that does a task in a worker, and then frees memory.

    Args:
        do: the function that does the task.
        share: number of cores to which each worker is restricted; None does not restrict it.
    """
    timed = _timed(do)

    def work(task):
        import os
        import sys

        import psutil
        from distributed import get_worker

        # 1. Restrict each worker to separate cores, so that their threads do not compete.
        worker: Any = get_worker()
        if share is not None:
            every = sorted(os.sched_getaffinity(os.getppid()))
            first = int(worker.name) * share % len(every)
            os.sched_setaffinity(0, every[first : first + share])
        try:
            return timed(task)
        finally:
            # 2. Return freed memory to the system, since it would be counted as used below.
            hand_back()
            limit = worker.memory_manager.memory_limit
            jax = sys.modules.get("jax")
            # 3. Drop compiled programs if memory fills, unless other threads use them.
            alone = worker.nanny is not None and worker.state.nthreads == 1
            if jax and alone and limit and psutil.Process().memory_info().rss > _FULL * limit:
                jax.clear_caches()
                hand_back()

    def hand_back():
        import contextlib
        import ctypes
        import gc
        import sys

        gc.collect()
        # GNU's C library keeps free memory, some 60 MB more with each fit; others lack the call.
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL("libc.so.6").malloc_trim(0)

    return work


def _sendable(do: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that workers can run, also if it is defined in a script or a study file.

    Workers cannot import such a file by name. So the text of the file is sent, and each worker runs
    it once as a module. Pickling by value would not do: Equinox classes would be rebuilt without
    their metaclass, and refuse their own fields.
    """
    name, qualified = do.__module__, getattr(do, "__qualname__", "")
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if name != "__main__" and not name.startswith(ALONE):
        return do
    if path is None:
        _refuse_modules_of_equinox(module)
        return do
    # A function inside another, or one that was replaced, is not found by its name.
    with contextlib.suppress(AttributeError):
        if operator.attrgetter(qualified)(module) is do:
            file = Path(path).resolve()
            alone = name if name.startswith(ALONE) else f"{ALONE}{file.stem}"
            return _by_file(alone, str(file), file.read_text(encoding="utf-8"), qualified)
    return do


def _by_file(name: str, path: str, text: str, qualified: str) -> Callable[..., Any]:
    """Return a function that runs the text of a file once as a module, and calls a function of it.

    It is pickled by value, so its imports are inside its body.

    Args:
        name: name of the module in the worker.
        path: path of the file.
        text: text of the file.
        qualified: qualified name of the function in the module.
    """

    def call(**task):
        import operator
        import sys
        import threading
        import types

        shared: Any = vars(threading)
        # Threads of a worker must not run the text at the same time.
        with shared.setdefault("_bayes_dasl_files", threading.RLock()):
            module = sys.modules.get(name)
            # A worker may have the module from before an edit.
            if getattr(module, "__text__", None) != text:
                module = types.ModuleType(name)
                vars(module).update(__file__=path, __text__=text)
                # Dataclasses look up their module in `sys.modules`.
                sys.modules[name] = module
                try:
                    exec(compile(text, path, "exec"), vars(module))
                except BaseException:
                    del sys.modules[name]
                    raise
        return operator.attrgetter(qualified)(module)(**task)

    return call


def _refuse_modules_of_equinox(module: ModuleType | None) -> None:
    """Check that a notebook defines no Equinox module, which could not be sent to workers.

    Args:
        module: the module `__main__` of the notebook.

    Raises:
        ModelError: if it defines one.
    """
    for name, value in vars(module).items() if module is not None else ():
        is_module = isinstance(value, type) and issubclass(value, eqx.Module)
        if is_module and value.__module__ == "__main__":
            raise ModelError(
                f"workers cannot be sent the class '{name}' of a notebook: write it and the "
                "function into a file and import them, or say workers=0"
            )


def _refuse_while_run_on_a_worker(do: Callable[..., Any]) -> None:
    """Check that `run_many` is not called while a worker runs the file of a script.

    Raises:
        ModelError: if it is; the call in the script needs a guard.
    """
    if hasattr(sys.modules.get(do.__module__), "__text__"):
        raise ModelError(
            "workers run this file, too: put its call of run_many under if __name__ == '__main__':"
        )


def _one_by_one(
    do: Callable[..., Any], tasks: Sequence[Task], retries: int
) -> Generator[tuple[Task, _Done | BaseException]]:
    """Do the tasks in this process, and yield each task with its result or error."""
    work = _timed(do)
    for task in tasks:
        for _ in range(retries + 1):
            try:
                found: _Done | BaseException = work(task)
                break
            except KeyboardInterrupt:  # `Interrupted` is one too, though also an `Exception`
                raise
            except Exception as error:  # the error is saved in the row of the task
                found = error
        yield task, found


def _over_workers(
    do: Callable[..., Any], tasks: Sequence[Task], scheduler: Any, workers: int | None, retries: int
) -> Generator[tuple[Task, _Done | BaseException]]:
    """Do the tasks on Dask workers, and yield each task with its result or error when it ends.

    Args:
        do: the function that does a task.
        tasks: the arguments of each task.
        scheduler: as for `run_many`.
        workers: as for `run_many`.
        retries: as for `run_many`.

    Raises:
        ModelError: if Dask is missing, or a scheduler does not answer or is lost.
    """
    if not tasks:
        return
    try:
        import dask
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise ModelError(
            "workers need Dask: pip install 'bayes-dasl[distributed]', or say workers=0"
        ) from error
    # 1. Divide the cores among the workers; only Linux can restrict a process to some cores.
    number = min(workers or cores(), len(tasks))
    share = max(cores() // number, 1) if scheduler is None and sys.platform == "linux" else None
    work = _work_of(_sendable(do), share)
    with contextlib.ExitStack() as stack:
        # 2. Start a cluster, or connect to one.
        if scheduler is None:
            # Another study on this machine may use the default port of the dashboard.
            free: dict[str, Any] = {
                "dashboard_address": None,
                "scheduler_kwargs": {"dashboard_address": ":0"},
            }
            # A worker that is paused for its memory would stay paused, since fits keep memory.
            with dask.config.set({"distributed.worker.memory.pause": False}):
                cluster = LocalCluster(n_workers=number, threads_per_worker=1, **free)
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        else:
            try:
                # A client that cannot connect would stay Dask's default for later work.
                client = (
                    stack.enter_context(Client(scheduler, set_as_default=False))
                    if isinstance(scheduler, str)
                    else scheduler
                )
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"no scheduler answers at {scheduler}, such as tcp://host:8786: {error}"
                ) from error
        # 3. Submit a few tasks per thread, and a new one whenever one ends.
        waiting = iter(tasks)
        running: dict[Any, Task] = {}
        ended = as_completed([], loop=client.loop)

        def fill():
            """Submit as many tasks as the current workers can take."""
            known = client.scheduler_info(n_workers=-1)["workers"].values()
            threads = sum(worker["nthreads"] for worker in known)
            room = _IN_FLIGHT * max(threads, number) - len(running)
            for task in itertools.islice(waiting, max(room, 0)):
                future = client.submit(work, task, pure=False, retries=retries)
                running[future] = task
                ended.add(future)

        fill()
        try:
            for future in ended:
                if future.cancelled():
                    raise ModelError(
                        "the scheduler was lost: rows so far are kept, and the same call goes on"
                    )
                yield running.pop(future), future.exception() or future.result()
                fill()
        finally:
            client.cancel([*running])
