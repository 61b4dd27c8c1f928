"""How many dimensions a figure shows: those of a number, of a series, or of a series of each
member.
"""

from __future__ import annotations

import xarray as xr


def can_be_drawn(variable: xr.DataArray, members: str) -> bool:
    """Whether `plot_derived` draws it: a number, a series, or a series of each member."""
    return len(beside(variable)) < 2 or series_of_members(variable, members) is not None


def series_of_members(variable: xr.DataArray, members: str) -> str | None:
    """The dimension whose members have a panel each: of members, or the only one without numbers;
    None of others.
    """
    dims = beside(variable)
    if len(dims) != 2:
        return None
    named = [dim for dim in dims if not has_numbers(variable, dim)]
    return members if members in dims else named[0] if len(named) == 1 else None


def beside(variable: xr.DataArray) -> list[str]:
    """Its dimensions without those of the draws."""
    return [str(dim) for dim in variable.dims if dim not in ("chain", "draw")]


def has_numbers(variable: xr.DataArray, dim: str) -> bool:
    """Whether there are numbers or dates along a dimension, so that a line may join what lies
    beside one another.
    """
    return dim in variable.coords and variable[dim].dtype.kind in "iufM"
