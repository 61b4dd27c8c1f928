"""How many threads factorise one matrix."""

import contextlib
import importlib
import os
from collections.abc import Iterator

import threadpoolctl

_CHOSEN = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def one_thread_a_factor() -> Iterator[None]:
    """While it lasts each matrix is factorised by one thread, unless the user has said by how many.

    On a CPU the linear algebra of JAX is that of SciPy's BLAS, which spreads even a matrix of fifty
    rows over all cores. These are at work on other chains already, and threads that wait for each
    other by spinning cost more than the work that they share: ten times as much, measured on two
    cores with something else beside.
    """
    if any(name in os.environ for name in _CHOSEN):
        yield
        return
    # JAX loads it with its first factor, after which it is too late here.
    importlib.import_module("scipy.linalg")
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield
