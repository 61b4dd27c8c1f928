"""Blocks of large arrays of draws, so that memory stays bounded."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

# Values of one array in memory at once: 16 MiB.
_VALUES = 2**21
_DRAWS = ("chain", "draw", "exchange")


def blocks(sizes: Mapping[str, int], most: int) -> Iterator[dict[str, slice]]:
    """Split an array into blocks of at most `most` values.

    Args:
        sizes: the size of each dimension, by name.
        most: the largest number of values of a block.

    Yields:
        The slice of each dimension, by name. The blocks cover the array, in its order.
    """
    # Fill blocks from the last dimension on, since its values lie next to each other.
    parts, inside = [], 1
    for size in reversed(list(sizes.values())):
        step = max(1, min(size, most // max(1, inside)))
        inside *= size
        starts = range(0, size, step)
        parts.append([slice(at, min(at + step, size)) for at in starts])
    for block in itertools.product(*reversed(parts)):
        yield dict(zip(sizes, block, strict=True))


def blocks_of(
    draws: xr.DataArray, sizes: Mapping[str, int] | None = None
) -> Iterator[dict[str, slice]]:
    """Return blocks of an array that each hold all draws, for `draws_at`.

    Args:
        draws: the array.
        sizes: dimensions and sizes to split instead of those of the array.

    Returns:
        The blocks, see `blocks`.
    """
    own = {str(dim): size for dim, size in draws.sizes.items() if dim not in _DRAWS}
    number = math.prod(size for dim, size in draws.sizes.items() if dim in _DRAWS)
    return blocks(own if sizes is None else sizes, max(1, _VALUES // max(1, number)))


def draws_at(draws: xr.DataArray, at: Mapping[str, Any]) -> np.ndarray:
    """Load the draws of a block, all chains one after the other.

    Args:
        draws: the array.
        at: a block from `blocks_of`.

    Returns:
        The draws `(draw, datum)`.
    """
    over = [dim for dim in _DRAWS if dim in draws.dims]
    values = draws.isel(at).compute().transpose(*over, *at).values
    number = math.prod(values.shape[: len(over)])
    return values.reshape(number, math.prod(values.shape[len(over) :]))
