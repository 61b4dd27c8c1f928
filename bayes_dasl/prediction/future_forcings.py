"""Forcings of a forecast: ensembles, gaps, and changes since the fit."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..data.dates import are_dates, as_attribute, dates, in_words, index_in_words, numbers
from ..data.forcings import interpolated
from ..data.layer_inputs import Inputs
from ..errors import DataError
from ..layers.layer import begins
from ..model import Model
from .posterior import fitted_observables, known_inputs
from .predictive import Drives

MEMBER = "member"
"""The dimension of an ensemble of forcings."""


def members_of(model: Model, data: xr.Dataset) -> list[xr.Dataset]:
    """Return the data for each member of an ensemble of forcings.

    Args:
        model: the model.
        data: a dataset, whose forcings may have the dimension `member`.

    Returns:
        A dataset for each member; without an ensemble, a list with the data alone.
    """
    forcings = [data[name] for name in model.layer.forcings if name in data]
    # The groups of a population may have a dimension of this name, too.
    of_groups = getattr(model.layer, "dim", None) == MEMBER
    if of_groups or not any(MEMBER in forcing.dims for forcing in forcings):
        return [data]
    return [data.isel({MEMBER: number}, drop=True) for number in range(data.sizes[MEMBER])]


def paired(members: Sequence[Inputs], draws: int) -> Drives:
    """Pair draws with the members of an ensemble of forcings in turn.

    Args:
        members: the inputs with the forcings of each member.
        draws: the number of draws.

    Returns:
        The forcings of all members, and the member of each draw.

    Raises:
        DataError: for more members than draws.
    """
    if len(members) > draws:
        raise DataError(
            f"{len(members)} members of the forcings are more than the {draws} draws: take fewer "
            "of them"
        )
    driving = [(member.forcings, member.own_forcings) for member in members]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *driving)
    return Drives(stacked, np.arange(draws) % len(members))


def refuse_a_gap(model: Model, known: np.ndarray, times: np.ndarray, asked: np.ndarray) -> None:
    """Refuse a gap in forcings after the fit, over which they would be interpolated.

    Args:
        model: the model.
        known: the times of the fit, as numbers.
        times: the times of the forecast, as numbers.
        asked: the times of the forecast, as numbers or dates, for the message.

    Raises:
        DataError: if the gap is longer than twice the largest step of the fit and of later rows.
    """
    after = times > known[-1]
    steps = np.concatenate([np.diff(known), np.diff(times[after])])
    if not begins(model.layer) or not after.any() or not steps.size:
        return
    first = int(np.argmax(after))
    if times[first] - known[-1] > 2 * steps.max():
        end = in_words(
            dates(known[-1], asked, model.reader.index_units) if are_dates(asked) else known[-1]
        )
        raise DataError(
            f"forcings are known up to {end} and from {in_words(asked[first])} on: give the rows "
            "between too, as by xr.concat([test, later], 'time')"
        )


def refuse_unknown_past(model: Model, before: xr.Dataset) -> None:
    """Refuse new groups of a population whose own forcings are not known from the start on.

    Args:
        model: the model.
        before: the forcings of the fit at times that the forecast does not have, NaN for new
            groups.

    Raises:
        DataError: if a forcing of a group without data in the fit is missing at one of these times.
    """
    for name, variable in before.data_vars.items():
        for dim in (dim for dim in variable.dims if dim != model.index):
            for member in before[dim].values[variable.isnull().any(model.index).values][:1]:
                begin = index_in_words(before[model.index], float(before[model.index].values[0]))
                raise DataError(
                    f"forcing '{name}' of {dim} {in_words(member)}, which the fit has not seen, is "
                    "not "
                    "known at its times: "
                    f"ask for the rows from {begin} on too"
                )


def known_forcings(model: Model, post: xr.DataTree, data: xr.Dataset) -> xr.Dataset:
    """Return the forcings of the fit, for the groups of a population that the data have.

    Args:
        model: the model.
        post: the posterior.
        data: a dataset with these groups.

    Returns:
        A dataset; NaN for groups without data in the fit.
    """
    known = post["constant_data"].to_dataset()[list(model.layer.forcings)]
    own = [dim for dim in known.dims if dim != model.index]
    return known.reindex({dim: data[dim].values for dim in own}).reset_coords(drop=True)


def fitted_span(
    model: Model, post: xr.DataTree, members: list[xr.Dataset]
) -> dict[str, float | str]:
    """Return the first and the last fitted time before any input differs between fit and forecast.

    Inputs are forcings, and variables that the noise reads for each datum.

    Args:
        model: the model.
        post: the posterior.
        members: the inputs of the forecast, for each member of an ensemble.

    Returns:
        The attributes `train_start` and `train_end`. The dict is empty if the inputs of fit and
        forecast differ from the first row on.
    """
    observed = fitted_observables(post)
    index = model.index
    known = known_forcings(model, post, members[0])
    read = known_inputs(post)
    # 1. Times with any data.
    seen = []
    for variable in observed.values():
        others = [dim for dim in variable.dims if dim != index]
        seen.append(variable.notnull().any(others).values)
    times = observed[index].values[np.any(seen, axis=0)]
    # 2. Times at which an input has changed.
    every = [
        _changed_times(model, known, data, name)
        for name, data in itertools.product(model.layer.forcings, members)
    ]
    for name in model.reader.variables:
        if name in read and name in members[0]:
            every.append(_changed_at_rows(read[name], members[0][name], index)[0])
    # 3. The fit tells about times before the first change.
    for changed in every:
        times = times[times < changed.min()] if changed.size else times
    if not times.size:
        return {}
    return {"train_start": as_attribute(times[0]), "train_end": as_attribute(times[-1])}


def _changed_times(model: Model, known: xr.Dataset, data: xr.Dataset, forcing: str) -> np.ndarray:
    """Return the times at which a forcing of the forecast differs from the fit.

    Times of the forecast that lie between rows of the fit are compared with the interpolated
    forcing.

    Args:
        model: the model.
        known: the forcings of the fit.
        data: the forcings of the forecast.
        forcing: the name of the forcing.
    """
    index = model.index
    changed, both, then, now = _changed_at_rows(known[forcing], data[forcing], index)
    knots, times = (np.unique(d[forcing][index].values) for d in (known, data))
    new = np.flatnonzero(~np.isin(times, both) & (times <= knots[-1]))
    # Without a start the rows are independent of each other.
    if not new.size or not begins(model.layer):
        return changed
    # The forcing of the fit at new times, by its interpolation.
    kind = model.layer.interpolation.get(forcing, "linear")
    knots, between = (numbers(places, model.reader.index_units) for places in (knots, times[new]))
    was = [jax.vmap(interpolated(knots, values, kind))(jnp.asarray(between)) for values in then.T]
    rounding = 1e-12 * np.abs(then).max(initial=0.0)
    before = np.reshape(was, (-1, new.size)).T
    alike = np.isclose(before, now[new], rtol=1e-9, atol=rounding)
    return np.concatenate([changed, times[new][~alike.all(1)]])


def _changed_at_rows(
    then: xr.DataArray, now: xr.DataArray, index: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compare an input of the fit with the same input of the forecast at shared rows.

    Where the forecast has no value, such as the error of a datum, the input counts as unchanged.

    Args:
        then: the input in the fit.
        now: the input in the forecast.
        index: the name of the index.

    Returns:
        The shared rows at which the input has changed, all shared rows, and the input in fit and
        forecast, `(time, group)` each.
    """
    then, now = (values.drop_duplicates(index) for values in (then, now))
    knots = then[index].values
    times = now[index].values
    before, after = _matrices(then, now, index)
    both, at, again = np.intersect1d(knots, times, return_indices=True)
    now_known = after[again]
    alike = np.isclose(before[at], now_known, rtol=1e-9, atol=0.0) | np.isnan(now_known)
    return both[~alike.all(1)], both, before, after


def _matrices(then: xr.DataArray, now: xr.DataArray, index: str) -> tuple[np.ndarray, np.ndarray]:
    """Return an input in the fit and in the forecast as arrays `(time, group)`.

    An input without groups is repeated if the other one has groups. Groups without data in the fit
    are left out.
    """

    def flat(one, other):
        whole = one.broadcast_like(other.isel({index: 0}, drop=True)).transpose(index, ...)
        return whole.values.reshape(len(one[index]), -1)

    before = flat(then, now)
    after = flat(now, then)
    seen = np.isfinite(before).all(0)
    return before[:, seen], after[:, seen]
