"""One BLAS thread for each matrix factorisation."""

import contextlib
import importlib
import os
from collections.abc import Iterator

import threadpoolctl

_CHOSEN = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def one_thread_a_factor() -> Iterator[None]:
    """Limit BLAS to one thread inside the block, unless an environment variable sets a number.

    On a CPU JAX calls SciPy's BLAS, which spreads even a matrix of fifty rows over all cores. The
    cores already run other chains, and threads that wait for each other by spinning cost more than
    the shared work. On two busy cores the factor was ten.
    """
    if any(name in os.environ for name in _CHOSEN):
        yield
        return
    # The limit reaches only libraries that are loaded. JAX loads BLAS with its first factorisation.
    importlib.import_module("scipy.linalg")
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield
