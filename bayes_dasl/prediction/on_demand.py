"""Arrays of a forecast that few look at: computed when someone first does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing


def on_demand(like: xr.Dataset, made: Callable[[], dict[str, np.ndarray]]) -> xr.Dataset:
    """A dataset whose variables are computed, all together and once, when the first of them is
    looked at.

    A copy, a pickle or a file of it holds the numbers themselves.

    Args:
        like: a dataset that says shapes, labels and attributes; its numbers mean nothing.
        made: the numbers of each variable, in any shape of that size, by its name.
    """
    once = _Once(made)
    return like.assign(
        {
            name: (v.dims, indexing.MemoryCachedArray(_lazy(str(name), v, once)), v.attrs)
            for name, v in like.items()
        }
    )


def _lazy(name: str, like: xr.DataArray, once: "_Once") -> indexing.LazilyIndexedArray:
    return indexing.LazilyIndexedArray(
        _OnDemand(like.shape, like.dtype, lambda: once()[name].reshape(like.shape))
    )


class _Once:
    """A function of no arguments that is called once; it is then forgotten, and what it held is
    free.
    """

    def __init__(self, function: Callable[[], dict[str, np.ndarray]]):
        self._function: Callable[[], dict[str, np.ndarray]] | None = function
        self._found: dict[str, np.ndarray] = {}

    def __call__(self) -> dict[str, np.ndarray]:
        if self._function is not None:
            self._found, self._function = self._function(), None
        return self._found


class _OnDemand(BackendArray):
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, values: Callable[[], np.ndarray]):
        self.shape, self.dtype, self._values = shape, dtype, values

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        basic = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(
            key, self.shape, basic, lambda key: self._values()[key]
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return indexing.as_indexable, (self._values(),)
