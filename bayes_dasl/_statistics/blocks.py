"""Draws of many times block by block, so that memory stays bounded whatever their number."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

_VALUES = 2**21
"""Of one array in memory at once: 16 MiB."""
_DRAWS = ("chain", "draw", "exchange")


def blocks(sizes: Mapping[str, int], most: int) -> Iterator[dict[str, slice]]:
    """Parts of an array by dimension, of at most `most` values each and in its order, that make up
    the whole.
    """
    names, steps, inside = list(sizes), {}, 1
    for name in reversed(names):
        steps[name] = max(1, min(sizes[name], most // max(1, inside)))
        inside *= sizes[name]
    counts = [math.ceil(sizes[name] / steps[name]) for name in names]
    for number in range(math.prod(counts)):
        part = {}
        for name, count in zip(reversed(names), reversed(counts), strict=True):
            number, at = divmod(number, count)
            part[name] = slice(at * steps[name], min((at + 1) * steps[name], sizes[name]))
        yield {name: part[name] for name in names}


def blocks_of(
    draws: xr.DataArray, sizes: Mapping[str, int] | None = None
) -> Iterator[dict[str, slice]]:
    """Parts with all draws in each, for `draws_at`;
    `sizes` are other ones than those of the array.
    """
    own = {str(dim): draws.sizes[dim] for dim in draws.dims if dim not in _DRAWS}
    number = math.prod(draws.sizes[dim] for dim in draws.dims if dim in _DRAWS)
    return blocks(own if sizes is None else sizes, max(1, _VALUES // max(1, number)))


def draws_at(draws: xr.DataArray, at: Mapping[str, Any]) -> np.ndarray:
    """Draws of a part `(draw, datum)`, all chains one after the other; from the file where they lie
    in one.
    """
    over = [dim for dim in _DRAWS if dim in draws.dims]
    values = draws.isel(at).compute().transpose(*over, *at).values
    return values.reshape(
        math.prod(values.shape[: len(over)]), math.prod(values.shape[len(over) :])
    )
