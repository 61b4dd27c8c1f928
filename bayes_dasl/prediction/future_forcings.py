"""Forcings of times to come: ensembles of them, those that a forecast lacks, and those that the fit
knew otherwise.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..data.dates import are_dates, as_attribute, dates, numbers, told, told_of
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
    """The data with each member of an ensemble of forcings; as they are where there is none."""
    ours = (
        getattr(model.layer, "dim", None) != MEMBER
    )  # the members of a population may be called so too
    if not ours or not any(
        MEMBER in data[name].dims for name in model.layer.forcings if name in data
    ):
        return [data]
    return [data.isel({MEMBER: number}, drop=True) for number in range(data.sizes[MEMBER])]


def paired(members: Sequence[Inputs], draws: int) -> Drives:
    """The forcings of all members of an ensemble, each of which drives as many draws as any other.

    Raises:
        DataError: for more members than draws.
    """
    if len(members) > draws:
        raise DataError(
            f"{len(members)} members of the forcings are more than the {draws} draws: take fewer "
            "of them"
        )
    driving = [(member.forcings, member.own_forcings) for member in members]
    return Drives(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *driving), np.arange(draws) % len(members)
    )


def refuse_a_gap(model: Model, known: np.ndarray, times: np.ndarray, asked: np.ndarray) -> None:
    """Refuse a time between the fit and later rows of which the forcings are not known: they would
    run straight there.

    Raises:
        DataError: where that is longer than twice any step of either.
    """
    after = times > known[-1]
    steps = np.concatenate([np.diff(known), np.diff(times[after])])
    if not begins(model.layer) or not after.any() or not steps.size:
        return
    first = int(np.argmax(after))
    if times[first] - known[-1] > 2 * steps.max():
        end = told(
            dates(known[-1], asked, model.reader.index_units) if are_dates(asked) else known[-1]
        )
        raise DataError(
            f"forcings are known up to {end} and from {told(asked[first])} on: give the rows "
            "between too, as by xr.concat([test, later], 'time')"
        )


def refuse_unknown_past(model: Model, before: xr.Dataset) -> None:
    """Refuse members that the fit has not seen where their own forcings are not known from its
    start on.

    Raises:
        DataError: if so.
    """
    for name, variable in before.data_vars.items():
        for dim in (dim for dim in variable.dims if dim != model.index):
            for member in before[dim].values[variable.isnull().any(model.index).values][:1]:
                begin = told_of(before[model.index], float(before[model.index].values[0]))
                raise DataError(
                    f"forcing '{name}' of {dim} {told(member)}, which the fit has not seen, is not "
                    "known at its times: "
                    f"ask for the rows from {begin} on too"
                )


def known_forcings(model: Model, post: xr.DataTree, data: xr.Dataset) -> xr.Dataset:
    """The forcings of the fit; those that differ between members for those that are asked for, NaN
    of new ones.
    """
    known = post["constant_data"].to_dataset()[list(model.layer.forcings)]
    own = [dim for dim in known.dims if dim != model.index]
    return known.reindex({dim: data[dim].values for dim in own}).reset_coords(drop=True)


def fitted_span(
    model: Model, post: xr.DataTree, members: list[xr.Dataset]
) -> dict[str, float | str]:
    """Between which times the data were fitted under the inputs of now: none where these differ
    from the first on.

    Inputs are forcings, and what the noise reads of each datum.
    """
    observed, known, index = (
        fitted_observables(post),
        known_forcings(model, post, members[0]),
        model.index,
    )
    seen = [
        observed[name].notnull().any([d for d in observed[name].dims if d != index])
        for name in observed
    ]
    times = observed[index].values[np.any([s.values for s in seen], axis=0)]
    read = [
        name for name in model.reader.variables if name in known_inputs(post) and name in members[0]
    ]
    every = [
        _changed(model, known, data, name)
        for name, data in itertools.product(model.layer.forcings, members)
    ]
    every += [
        _changed_at_rows(known_inputs(post)[name], members[0][name], index)[0] for name in read
    ]
    for changed in every:
        times = times[times < changed.min()] if changed.size else times
    return (
        {"train_start": as_attribute(times[0]), "train_end": as_attribute(times[-1])}
        if times.size
        else {}
    )


def _changed(model: Model, known: xr.Dataset, data: xr.Dataset, forcing: str) -> np.ndarray:
    """Times at which a forcing is not what it was in the fit, also at new ones between those of the
    fit.
    """
    index = model.index
    changed, both, then, now = _changed_at_rows(known[forcing], data[forcing], index)
    knots, times = (np.unique(d[forcing][index].values) for d in (known, data))
    new = np.flatnonzero(~np.isin(times, both) & (times <= knots[-1]))
    if not new.size or not begins(model.layer):  # where rows know nothing of each other
        return changed
    kind = model.layer.interpolation.get(forcing, "linear")
    knots, between = (numbers(places, model.reader.index_units) for places in (knots, times[new]))
    was = [jax.vmap(interpolated(knots, values, kind))(jnp.asarray(between)) for values in then.T]
    rounding = 1e-12 * np.abs(then).max(initial=0.0)
    alike = np.isclose(np.reshape(was, (-1, new.size)).T, now[new], rtol=1e-9, atol=rounding)
    return np.concatenate([changed, times[new][~alike.all(1)]])


def _changed_at_rows(
    then: xr.DataArray, now: xr.DataArray, index: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the fit at which an input is another now, all rows of both, and the input then and
    now by `_of_each`.

    What is not known now, such as the error of a datum, is no other.
    """
    then, now = (values.drop_duplicates(index) for values in (then, now))
    knots, times = then[index].values, now[index].values
    before, after = _of_each(then, now, index)
    both, at, again = np.intersect1d(knots, times, return_indices=True)
    alike = np.isclose(before[at], after[again], rtol=1e-9, atol=0.0) | np.isnan(after[again])
    return both[~alike.all(1)], both, before, after


def _of_each(then: xr.DataArray, now: xr.DataArray, index: str) -> tuple[np.ndarray, np.ndarray]:
    """A forcing in the fit and now, `(time, member)`, where either may be the same for all members.

    Of members that the fit has not seen there is nothing: nothing was fitted of them.
    """
    both = (then, now), (now, then)
    before, after = (
        one.broadcast_like(other.isel({index: 0}, drop=True))
        .transpose(index, ...)
        .values.reshape(len(one[index]), -1)
        for one, other in both
    )
    seen = np.isfinite(before).all(0)
    return before[:, seen], after[:, seen]
