"""Names of the scalar elements of a variable of draws."""

import itertools
from collections.abc import Hashable, Iterable

import numpy as np
import xarray as xr

from ..data.datasets import DATUM
from ..data.dates import in_words


def element_names(name: str, variable: xr.DataArray) -> list[str]:
    """Return names of all elements of a variable, such as `rate[0]`, or `flow at time 3`.

    Args:
        name: the variable.
        variable: its draws, `(chain, draw, …)`.

    Returns:
        One name for each element.
    """
    inner = variable.dims[2:]
    if inner == (f"{name}_{DATUM}",):
        # Further coordinates along the same dimension identify the datum.
        held = {
            str(c).removeprefix(f"{name}_"): v.values
            for c, v in variable.coords.items()
            if v.dims == inner and c != inner[0]
        }
        return [_at_place(name, held, place) for place in zip(*held.values(), strict=True)]
    if inner and all(dim in variable.coords for dim in inner):
        places = itertools.product(*(variable[dim].values for dim in inner))
        return [_at_place(name, inner, place) for place in places]
    indices = np.ndindex(variable.shape[2:])
    return [f"{name}[{', '.join(map(str, i))}]" if i else name for i in indices]


def _at_place(name: str, dims: Iterable[Hashable], place: Iterable[object]) -> str:
    """Return a name such as `flow at time 3`, from the coordinates of one element."""
    return f"{name} at {', '.join(f'{d} {in_words(v)}' for d, v in zip(dims, place, strict=True))}"


def is_common(variable: xr.DataArray) -> bool:
    """Return whether a variable is a scientific parameter that all groups of a population share.

    Returns:
        False for random effects, and for parameters that are not scientific.
    """
    science = variable.attrs.get("group", "science") == "science"
    return science and all(
        str(dim).startswith(f"{variable.name}_dim_") for dim in variable.dims[2:]
    )


def read_more(label: str) -> str:
    """Return a hint at functions that analyse the identifiability of a parameter.

    Returns:
        A clause for a remedy.
    """
    return (
        "bd.sensitivity.fisher_information(model, data, post) shows all combinations, "
        f"bd.sensitivity.profile_likelihood(model, data, '{label}', post=post) one "
        "parameter"
    )
