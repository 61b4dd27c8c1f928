"""The posterior predictive at any times."""

import dataclasses
import datetime
import time

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .._jax.keys import as_key, printable
from ..data.datasets import checked_times
from ..data.layer_inputs import Inputs
from ..errors import DataError
from ..model import Model, check_shapes
from .posterior import (
    check_belongs,
    draws_of,
    fitted_observables,
    in_units_of_fit,
    mismatch_group,
    over_data,
    with_coordinates,
)
from .predictive import push


def forecast(
    model: Model,
    post: xr.DataTree,
    at: xr.Dataset | xr.DataArray | Float[np.ndarray, " time"],
    *,
    key: int | Array = 0,
) -> xr.DataTree:
    """Push every posterior draw through the model, to the times of `at`.

    The solve starts where the fitted data started, so the times may be past or future ones. Draws go through in chunks:
    memory is bounded whatever their number.

    Args:
        model: the model of the fit.
        post: what `fit` returned.
        at: a dataset (its times and forcings are used, never its observations) or, for a model without forcings, an
            array of times, in the units of the index.
        key: a whole number or a JAX random key, for the observation noise.

    Returns a DataTree with the groups `predictions` (one draw of each datum for each posterior draw),
    `conditional_mean` and `conditional_variance` (of a datum given the draw), `sample_stats_predictions` (`ok`,
    `steps`), `mismatch` (of the constraints, at the forecast's times), and `posterior`, the draws that were pushed,
    from which `decompose` splits the epistemic variance. A draw whose solve fails is NaN and counted in `ok`.

    Raises: MismatchError for a posterior of another model; DataError for bad times or forcings.
    """
    began = time.perf_counter()
    check_belongs(model, post)
    data = _as_dataset(at, post, model.index)
    seen = [name for name in model.observables if name in data and name not in model.layer.forcings]
    data = in_units_of_fit(model, post, data.drop_vars(seen))
    inputs = _inputs(model, post, data)
    check_shapes(model, inputs)
    draws = draws_of(model, post)
    pushed = push(model, inputs, draws, key=as_key(key))
    shape = post["posterior"].sizes["chain"], post["posterior"].sizes["draw"]
    observed = fitted_observables(post)
    groups = {
        name: over_data(values, post, observed, data)
        for name, values in (
            ("predictions", pushed.predictions),
            ("conditional_mean", pushed.mean),
            ("conditional_variance", pushed.variance),
        )
    }
    for name, variable in groups["conditional_mean"].data_vars.items():
        noise = model.noise_of(str(name))
        variable.attrs |= {"noise": type(noise).__name__, "counts_by_moments": int(noise.counts_by_moments)}
    groups["conditional_variance"] = _squared_units(groups["conditional_variance"])
    health = {"ok": pushed.ok.reshape(shape), "steps": pushed.steps.reshape(shape)}
    stats = xr.Dataset({name: (("chain", "draw"), v) for name, v in health.items()})
    groups["sample_stats_predictions"] = with_coordinates(stats)
    groups["posterior"] = post["posterior"].to_dataset()
    groups |= mismatch_group(pushed.mismatch, post)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "key": printable(key),
        **_fitted_span(model, post, data),
        "signature": post.attrs["signature"],
        "wall_time_s": time.perf_counter() - began,
    }
    return tree


def _fitted_span(model: Model, post: xr.DataTree, data: xr.Dataset) -> dict[str, float]:
    """Between which times the data were fitted under the forcings of now: none where these differ from the first on."""
    observed, known = fitted_observables(post), post["constant_data"].to_dataset()
    seen = [observed[name].notnull().any([d for d in observed[name].dims if d != model.index]) for name in observed]
    times = observed[model.index].values[np.any([s.values for s in seen], axis=0)]
    both = np.intersect1d(known[model.index].values, data[model.index].values) if model.layer.forcings else ()
    for name in model.layer.forcings:
        then, now = (d[name].sel({model.index: both}).values for d in (known, data))
        changed = np.asarray(both)[~np.isclose(then, now, rtol=1e-9, atol=0.0)]
        times = times[times < changed[0]] if changed.size else times
    return {"train_start": float(times[0]), "train_end": float(times[-1])} if times.size else {}


def _as_dataset(at: xr.Dataset | xr.DataArray | np.ndarray, post: xr.DataTree, index: str) -> xr.Dataset:
    """What is asked for, at the places of the fitted data where it names none."""
    places = {n: c for n, c in fitted_observables(post).coords.items() if n != index and c.dims == (n,)}
    if isinstance(at, xr.Dataset):
        return at.assign_coords({n: c for n, c in places.items() if n not in at.coords})
    times = np.asarray(at)
    if times.ndim != 1:
        raise DataError(f"times must be a 1-D array or a dataset with a coordinate '{index}', not shape {times.shape}")
    # Numbers become floats; dates stay what they are, to be refused with the other times.
    return xr.Dataset(coords={index: times.astype(float) if times.dtype.kind in "iu" else times, **places})


def _inputs(model: Model, post: xr.DataTree, data: xr.Dataset) -> Inputs:
    """Inputs that start where the fitted data did, with the forcings of then and of now."""
    start, times = float(post["constant_data"].attrs["start"]), checked_times(data, model.index)
    if not model.layer.begins:
        start = min(start, float(times[0]))
    if times[0] < start:
        raise DataError(f"a forecast cannot go back before the start of the model: {times[0]:g} < {start:g}")
    past = model.past(fitted_observables(post))
    if not model.layer.forcings:
        return dataclasses.replace(model.inputs(data, start=start), past=past)
    for name in model.layer.forcings:
        if name not in data:
            raise DataError(f"forcing '{name}' is not in the data; a forecast needs it up to {times[-1]:g}")
    forcings = list(model.layer.forcings)
    index = model.index
    known = post["constant_data"].to_dataset()[forcings].reset_coords(drop=True)
    before = known.isel({index: ~np.isin(known[index], times)})
    both = xr.concat([before, data[forcings].reset_coords(drop=True)], index, data_vars="all").sortby(index)
    joined = model.inputs(both.assign_coords(data.coords.to_dataset().drop_vars(index).coords), start=start)
    return dataclasses.replace(joined, times=jnp.asarray(times), past=past)


def _squared_units(dataset: xr.Dataset) -> xr.Dataset:
    for variable in dataset.data_vars.values():
        if variable.attrs.get("units"):
            variable.attrs["units"] = f"({variable.attrs['units']})²"
    return dataset
