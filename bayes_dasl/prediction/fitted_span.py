"""Between which times data were fitted under the forcings of a forecast."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..data.dates import as_attribute, numbers
from ..data.forcings import interpolated
from ..model import Model
from .future_forcings import known_forcings
from .posterior import fitted_observables, known_inputs


def fitted_span(model: Model, post: xr.DataTree, members: list[xr.Dataset]) -> dict[str, float | str]:
    """Between which times the data were fitted under the inputs of now: none where these differ from the first on.

    Inputs are forcings, and what the noise reads of each datum.
    """
    observed, known, index = fitted_observables(post), known_forcings(model, post, members[0]), model.index
    seen = [observed[name].notnull().any([d for d in observed[name].dims if d != index]) for name in observed]
    times = observed[index].values[np.any([s.values for s in seen], axis=0)]
    read = [name for name in model.read if name in known_inputs(post) and name in members[0]]
    every = [_changed(model, known, data, name) for name, data in itertools.product(model.layer.forcings, members)]
    every += [_changed_at_rows(known_inputs(post)[name], members[0][name], index)[0] for name in read]
    for changed in every:
        times = times[times < changed.min()] if changed.size else times
    return {"train_start": as_attribute(times[0]), "train_end": as_attribute(times[-1])} if times.size else {}


def _changed(model: Model, known: xr.Dataset, data: xr.Dataset, forcing: str) -> np.ndarray:
    """Times at which a forcing is not what it was in the fit, also at new ones between those of the fit."""
    index = model.index
    changed, both, then, now = _changed_at_rows(known[forcing], data[forcing], index)
    knots, times = (np.unique(d[forcing][index].values) for d in (known, data))
    new = np.flatnonzero(~np.isin(times, both) & (times <= knots[-1]))
    if not new.size or not model.layer.begins:  # where rows know nothing of each other
        return changed
    kind = model.layer.interpolation.get(forcing, "linear")
    knots, between = (numbers(places, model.index_units) for places in (knots, times[new]))
    was = [jax.vmap(interpolated(knots, values, kind))(jnp.asarray(between)) for values in then.T]
    rounding = 1e-12 * np.abs(then).max(initial=0.0)
    alike = np.isclose(np.reshape(was, (-1, new.size)).T, now[new], rtol=1e-9, atol=rounding)
    return np.concatenate([changed, times[new][~alike.all(1)]])


def _changed_at_rows(
    then: xr.DataArray, now: xr.DataArray, index: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the fit at which an input is another now, all rows of both, and the input then and now by `_of_each`.

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
        one.broadcast_like(other.isel({index: 0}, drop=True)).transpose(index, ...).values.reshape(len(one[index]), -1)
        for one, other in both
    )
    seen = np.isfinite(before).all(0)
    return before[:, seen], after[:, seen]
