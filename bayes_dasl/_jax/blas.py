"""Limit BLAS to one thread for each matrix factorisation."""

import contextlib
import importlib
import os
from collections.abc import Iterator

import threadpoolctl

_CHOSEN = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def one_thread_a_factor() -> Iterator[None]:
    """Limit BLAS to one thread inside the `with` block.

    An environment variable that sets the number of threads, such as `OMP_NUM_THREADS`, takes
    precedence.

    On a CPU, JAX calls SciPy's BLAS, which uses all cores even for a matrix of fifty rows. The
    cores already run other chains, and waiting for other threads costs more than sharing the work
    saves. On two busy cores one thread was ten times as fast.
    """
    if any(name in os.environ for name in _CHOSEN):
        yield
        return
    # The limit reaches only libraries that are loaded. JAX loads BLAS with its first factorisation.
    importlib.import_module("scipy.linalg")
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield
