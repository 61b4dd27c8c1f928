"""Forcings of times to come: ensembles of them, and those that a forecast lacks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..data.dates import are_dates, dates, told, told_of
from ..data.layer_inputs import Inputs
from ..errors import DataError
from ..model import Model
from .predictive import Drives

MEMBER = "member"
"""The dimension of an ensemble of forcings."""


def members_of(model: Model, data: xr.Dataset) -> list[xr.Dataset]:
    """The data with each member of an ensemble of forcings; as they are where there is none."""
    ours = getattr(model.layer, "dim", None) != MEMBER  # the members of a population may be called so too
    if not ours or not any(MEMBER in data[name].dims for name in model.layer.forcings if name in data):
        return [data]
    return [data.isel({MEMBER: number}, drop=True) for number in range(data.sizes[MEMBER])]


def paired(members: Sequence[Inputs], draws: int) -> Drives:
    """The forcings of all members of an ensemble, each of which drives as many draws as any other.

    Raises: DataError for more members than draws.
    """
    if len(members) > draws:
        raise DataError(f"{len(members)} members of the forcings are more than the {draws} draws: take fewer of them")
    driving = [(member.forcings, member.own_forcings) for member in members]
    return Drives(jax.tree.map(lambda *leaves: jnp.stack(leaves), *driving), np.arange(draws) % len(members))


def refuse_a_gap(model: Model, known: np.ndarray, times: np.ndarray, asked: np.ndarray) -> None:
    """Refuse a time between the fit and later rows of which the forcings are not known: they would run straight there.

    Raises: DataError where that is longer than twice any step of either.
    """
    after = times > known[-1]
    steps = np.concatenate([np.diff(known), np.diff(times[after])])
    if not model.layer.begins or not after.any() or not steps.size:
        return
    first = int(np.argmax(after))
    if times[first] - known[-1] > 2 * steps.max():
        end = told(dates(known[-1], asked, model.index_units) if are_dates(asked) else known[-1])
        raise DataError(
            f"forcings are known up to {end} and from {told(asked[first])} on: give the rows "
            "between too, as by xr.concat([test, later], 'time')"
        )


def refuse_unknown_past(model: Model, before: xr.Dataset) -> None:
    """Refuse members that the fit has not seen where their own forcings are not known from its start on.

    Raises: DataError.
    """
    for name, variable in before.data_vars.items():
        for dim in (dim for dim in variable.dims if dim != model.index):
            for member in before[dim].values[variable.isnull().any(model.index).values][:1]:
                begin = told_of(before[model.index], float(before[model.index].values[0]))
                raise DataError(
                    f"forcing '{name}' of {dim} {told(member)}, which the fit has not seen, is not known at its times: "
                    f"ask for the rows from {begin} on too"
                )


def known_forcings(model: Model, post: xr.DataTree, data: xr.Dataset) -> xr.Dataset:
    """The forcings of the fit; those that differ between members for those that are asked for, NaN of new ones."""
    known = post["constant_data"].to_dataset()[list(model.layer.forcings)]
    own = [dim for dim in known.dims if dim != model.index]
    return known.reindex({dim: data[dim].values for dim in own}).reset_coords(drop=True)
