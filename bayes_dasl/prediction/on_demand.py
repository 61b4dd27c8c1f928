"""Lazy arrays of a forecast, computed at first access since few users need them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing


def on_demand(like: xr.Dataset, made: Callable[[], dict[str, np.ndarray]]) -> xr.Dataset:
    """Return a dataset whose variables are computed together, at first access to any of them.

    A copy, a pickle or a file of the dataset holds the values.

    Args:
        like: a dataset with shapes, labels and attributes; its values are not used.
        made: a function that computes all variables, by name; the size of each must fit.

    Returns:
        The lazy dataset.
    """
    once = _ComputedOnce(made)
    variables = {}
    for name, variable in like.items():
        array = _OnDemandArray(variable.shape, variable.dtype, once, str(name))
        lazy = indexing.MemoryCachedArray(indexing.LazilyIndexedArray(array))
        variables[name] = variable.dims, lazy, variable.attrs
    return like.assign(variables)


class _ComputedOnce:
    """A function that is called once, and then dropped to free the memory that it holds."""

    def __init__(self, function: Callable[[], dict[str, np.ndarray]]):
        self._function: Callable[[], dict[str, np.ndarray]] | None = function
        self._found: dict[str, np.ndarray] = {}

    def __call__(self) -> dict[str, np.ndarray]:
        if self._function is not None:
            self._found = self._function()
            self._function = None
        return self._found


class _OnDemandArray(BackendArray):
    """One variable as xarray's lazy indexing needs it."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, once: _ComputedOnce, name: str):
        self.shape, self.dtype = shape, dtype
        self._once, self._name = once, name

    def _values(self) -> np.ndarray:
        return self._once()[self._name].reshape(self.shape)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        basic = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(
            key, self.shape, basic, lambda key: self._values()[key]
        )

    # A pickle holds the values, since the function may not be picklable.
    def __reduce__(self) -> tuple[Any, ...]:
        return indexing.as_indexable, (self._values(),)
