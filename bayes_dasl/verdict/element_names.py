"""The single numbers that a variable of draws holds: their names, draws and kind."""

import itertools
import math

import numpy as np
import xarray as xr

from ..data.datasets import DATUM
from ..data.dates import told


def element_names(name: str, variable: xr.DataArray) -> list[str]:
    """The names of all elements of a variable `(chain, draw, …)`, such as `rate[0]`, or
    `flow at time 3`.
    """
    inner = variable.dims[2:]
    if inner == (f"{name}_{DATUM}",):  # which datum that is, the coordinates beside it say
        beside = {
            str(c): v.values
            for c, v in variable.coords.items()
            if v.dims == inner and c != inner[0]
        }
        told_of = {c.removeprefix(f"{name}_"): values for c, values in beside.items()}
        rows = zip(*told_of.values(), strict=True)
        return [
            f"{name} at {', '.join(f'{d} {told(v)}' for d, v in zip(told_of, at, strict=True))}"
            for at in rows
        ]
    if inner and all(dim in variable.coords for dim in inner):
        places = itertools.product(*(variable[dim].values for dim in inner))
        return [
            f"{name} at {', '.join(f'{d} {told(v)}' for d, v in zip(inner, at, strict=True))}"
            for at in places
        ]
    indices = np.ndindex(variable.shape[2:])
    return [f"{name}[{', '.join(map(str, i))}]" if i else name for i in indices]


def is_common(variable: xr.DataArray) -> bool:
    """Whether a variable is science and no member of a population has it for its own."""
    science = variable.attrs.get("group", "science") == "science"
    return science and all(
        str(dim).startswith(f"{variable.name}_dim_") for dim in variable.dims[2:]
    )


def rows_of(variable: xr.DataArray) -> np.ndarray:
    """Draws of all chains, one row of numbers each."""
    ordered = variable.transpose("chain", "draw", ...)
    return ordered.values.reshape(
        ordered.sizes["chain"] * ordered.sizes["draw"], math.prod(ordered.shape[2:])
    )


def read_more(label: str) -> str:
    """Which functions say more of the identifiability of a parameter."""
    return (
        "bd.sensitivity.fisher_information(model, data, post) shows all combinations, "
        f"bd.sensitivity.profile_likelihood(model, data, '{label}', post=post) one "
        "parameter"
    )
