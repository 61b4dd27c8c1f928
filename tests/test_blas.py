"""Each matrix is factorised by one thread while a fit lasts, and by as many as before after it."""

import numpy as np
import pytest
import scipy.linalg
import threadpoolctl

from bayes_dasl._jax import one_thread_a_factor


def threads() -> list[int]:
    return [
        pool["num_threads"]
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]


@pytest.fixture(autouse=True)
def several(monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    scipy.linalg.cholesky(np.eye(2))
    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        yield


def test_one_while_it_lasts_and_as_many_as_before_after_it():
    with pytest.raises(KeyboardInterrupt), one_thread_a_factor():
        assert set(threads()) == {1}
        raise KeyboardInterrupt
    assert set(threads()) == {2}


def test_what_the_user_chose_stays(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with one_thread_a_factor():
        assert set(threads()) == {2}
