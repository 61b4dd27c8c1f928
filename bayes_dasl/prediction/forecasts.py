"""`forecast`: the posterior predictive at any times."""

import dataclasses
import datetime
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Shaped

from .._jax.keys import as_key, printable
from .._statistics.convergence import thinned
from ..data.datasets import checked_index, checked_times
from ..data.dates import are_dates, dates, in_words
from ..data.layer_inputs import Inputs, Past
from ..errors import DataError
from ..layers.layer import AbstractFilter, AbstractPopulation, begins, goes_on
from ..model import Model, check_shapes, is_series
from ..random import paths
from .conditional import noise_group
from .datatree import by_chain, constraint_residual_group, over_data, pushed_draws, with_coordinates
from .exchange import exchangeable, exchanged, parts_of
from .few_members import repeated, repetitions
from .function_inputs import FUNCTION_ROWS, function_inputs
from .future_forcings import (
    fitted_span,
    known_forcings,
    members_of,
    paired,
    refuse_a_gap,
    refuse_unknown_past,
)
from .identity import OWN, model_of
from .new_members import as_unseen
from .on_demand import on_demand
from .output import Rows, blank, new_file
from .posterior import check_belongs, draws_of, ends_of, fitted_observables, in_units_of_fit
from .predictive import Pusher
from .vector_fields import rates_along_paths, watched

type Asked = (
    xr.Dataset | xr.DataArray | pd.DatetimeIndex | Shaped[np.ndarray, " time"] | Sequence[float]
)
"""Times and forcings of a prediction, or its times alone."""


@overload
def forecast(
    model: Model,
    post: xr.DataTree,
    at: Asked,
    *,
    what_if: bool = False,
    new_members: bool = False,
    path: str | os.PathLike | None = None,
    key: int | Array = 0,
) -> xr.DataTree: ...
@overload
def forecast(
    model: Model,
    post: xr.DataTree,
    at: dict[str, Asked],
    *,
    what_if: bool = False,
    new_members: bool = False,
    key: int | Array = 0,
) -> dict[str, xr.DataTree]: ...
def forecast(
    model: Model,
    post: xr.DataTree,
    at: Asked | dict[str, Asked],
    *,
    what_if: bool = False,
    new_members: bool = False,
    path: str | os.PathLike | None = None,
    key: int | Array = 0,
) -> xr.DataTree | dict[str, xr.DataTree]:
    """Forecast with every posterior draw, at the times of `at`: the posterior predictive.

    The solve starts where the fit started, so that times may be past or future. Draws are computed
    in chunks, so that memory holds little beside the forecast itself. With `path` the forecast is
    written to a file as `save` writes it. Then `decompose`, `decompose_entropy`, `score` and `pit`
    read it block by block.

    For an ensemble, or other draws that are not chains, each member has several predictive draws.
    There are about a thousand in all, or at least a hundred for large fields, so that intervals
    include the noise. They scatter a little more than the members, since few members do not show
    the extremes (docs/measurements/uncertainty.md). They are all in memory before they are written.

    Args:
        model: the model of the fit.
        post: the result of `fit`.
        at: a dataset with times, forcings and the variables that the noise reads. Observations in
            it are not used. A model without inputs may take an array of times or dates. Forcings
            may have the dimension `member` of an ensemble; draws then take the members in turn. A
            dict of scenarios by name is forecast one by one, with the same noise.
        what_if: whether the model may differ from the fitted one in known numbers, equations, noise
            or solver, with the same random leaves. The attributes `model` and `what_if`, the
            verdict and the report then say so.
        new_members: whether random effects are drawn anew for all groups of a population, as for
            new groups with the same doses, covariates and times.
        path: a file for a forecast that is too large for memory; in memory unless given.
        key: a whole number or a JAX random key, for the observation noise.

    Returns:
        A DataTree, or a dict of DataTrees for scenarios, with the groups:

        - `predictions`: draws of each datum, one for each posterior draw or several for each member
        - `noise`: the parameters of the distribution of each datum; none for a user's own noise
          that is a mixture or a transform
        - `conditional_mean`, `conditional_variance`: mean and variance of a datum given the draw
        - `sample_stats_predictions`: `ok` and `steps` of each solve, and `forcing_member` with an
          ensemble of forcings; a draw whose solve failed is NaN
        - `unobserved`: outputs of the layer that are not observed, without noise
        - `constraint_residual`: constraint residuals, at the times of the forecast
        - `vector_field`: as in `fit`, along the forecast; not with an ensemble of forcings
        - `function_inputs`: the inputs of unknown functions, to detect extrapolation; not with an
          ensemble of forcings
        - `posterior`: the draws that were used
        - `exchanged_mean`: the conditional mean of up to 4000 draws in which one group of leaves
          was `kept` and all others were exchanged. `decompose` splits the epistemic variance by it.
          It needs a model with science and network, or process noise, 100 draws, and no ensemble of
          forcings. It is computed at first access or by `save`; with `path` at once.

    Raises:
        MismatchError: for a posterior of another model: other random leaves, or without `what_if`
            another equation, prior, noise, known number or solver setting.
        DataError: for bad times or forcings, or if a variable that the noise reads is missing.
        WriteError: if the file cannot be written.

    Example:
        ```python
        fc = bd.forecast(model, post, np.linspace(0.0, 20.0, 41))
        low, high = fc["predictions"]["y"].quantile([0.05, 0.95], ("chain", "draw"))
        ```
    """
    if isinstance(at, dict):
        if path is not None:
            raise DataError("scenarios go to no file: save each of them by bd.save")
        scenarios = {
            name: forecast(model, post, each, what_if=what_if, new_members=new_members, key=key)
            for name, each in at.items()
        }
        for name, found in scenarios.items():
            found.attrs["scenario"] = name
        return scenarios
    began = time.perf_counter()
    # 1. Times, forcings and the posterior that belong to the model.
    check_belongs(model, post)
    data = _asked_data(model, post, at)
    members = members_of(model, data)
    whose = model_of(model, post, what_if=what_if)
    post = as_unseen(post, paths(model)) if new_members else post
    inputs = _inputs_with_noise(model, post, members[0])
    if whose["model"] != OWN:
        # The fit has checked the shapes of its own model.
        check_shapes(model, inputs)
    draws = draws_of(model, post)
    repeats = repetitions(post, _numbers_of_draw(model, inputs))
    number = len(next(iter(draws.values())))
    # 2. An ensemble of forcings; without one, the states to keep, and the end of the fit.
    drives, seen_along, begun = None, None, None
    if len(members) > 1:
        each = [_inputs_with_noise(model, post, member) for member in members]
        drives = paired(each, number)
    else:
        seen_along = watched(model, inputs, number)
        if path is None:
            begun = _from_end(model, post, inputs, str(whose["model"]))
    at_once, ends = (inputs, None) if begun is None else begun
    # 3. The program, and empty groups for its results.
    whole = {"key": as_key(key), "repeats": repeats}
    pusher = Pusher(model, at_once, draws, **whole, watched=seen_along, drives=drives, ends=ends)
    arrays = _empty_arrays(pusher, repeats, in_memory=path is None)
    groups = _groups_by_draw(model, post, data, pusher, arrays)
    kept = parts_of(model)
    index = exchangeable(model, draws) if drives is None else np.zeros(0, int)
    others = {}
    if index.size:
        others["exchanged_mean"] = _exchanged_group(post, data, pusher, index, kept)
    attributes = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "key": printable(key),
        **fitted_span(model, post, members),
        "series": int(is_series(model, data)),
        "signature": post.attrs["signature"],
        "posterior_sha256": post.attrs.get("posterior_sha256", ""),
        **whose,
    }
    if isinstance(model.layer, AbstractPopulation):
        attributes["members"] = model.layer.dim

    def fill(into: Rows) -> dict[str, xr.Dataset]:
        return _fill_groups(into, pusher, post, repeats, jax.random.fold_in(as_key(key), 1))

    def exchange(into: Mapping[str, Any]) -> None:
        # Exchanged draws have no states at the end of the fit: solve them from the start.
        from_start = pusher if ends is None else Pusher(model, inputs, draws, **whole)
        for rows, part in from_start(exchanged(model, draws, index)):
            for name, value in part.mean.items():
                into[name][rows] = value

    def exchanged_means() -> dict[str, np.ndarray]:
        found = _blank_arrays(pusher.shapes.mean, len(kept) * index.size, in_memory=True)
        exchange(found)
        return found

    # Groups that can be written only when all draws are known.
    def rest(found: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
        rows = thinned(inputs.times.size, FUNCTION_ROWS)
        states = None
        if drives is not None:
            stats = found["sample_stats_predictions"]
            member = (("chain", "draw"), drives.of_draw.reshape(stats["ok"].shape))
            found = found | {"sample_stats_predictions": stats.assign(forcing_member=member)}
        if seen_along is not None:
            rows = seen_along.times
            states = pusher.watched_states
            rates = rates_along_paths(model, at_once, draws, rows, states)
            own_times = data[model.index].isel({model.index: rows})
            rates = rates.assign_coords({model.index: own_times})
            found = found | {"vector_field": by_chain(rates, post)}
        if drives is None:
            asked = function_inputs(model, inputs, data[model.index], rows, states)
            found = found if asked is None else found | {"function_inputs": asked}
        spent = {"wall_time_s": time.perf_counter() - began}
        return found | {
            "posterior": pushed_draws(model, post, draws),
            "/": xr.Dataset(attrs=attributes | spent),
        }

    # 4. Fill the groups in memory, or in a file.
    if path is None:
        others = {name: on_demand(group, exchanged_means) for name, group in others.items()}
        return xr.DataTree.from_dict(groups | others | rest(fill(arrays)))
    with new_file(path, groups | others) as file:
        with file.rows() as rows:
            health = fill(rows)
            if index.size:
                exchange(rows["exchanged_mean"])
        for name, group in rest(health).items():
            file.append(name, group)
    return xr.open_datatree(path, engine="h5netcdf")


def _from_end(
    model: Model, post: xr.DataTree, inputs: Inputs, whose: str
) -> tuple[Inputs, dict[str, np.ndarray]] | None:
    """Return inputs that start at the end of the fit, and the states at that time.

    The result is None if the forecast must be solved from the start. This is so for another model
    than the fitted one, whose states differ, and for correlated noise, which reads earlier
    predictions.

    Args:
        model: the model.
        post: the posterior.
        inputs: the inputs from the start of the fit on.
        whose: the attribute `model` from `model_of`.
    """
    held = ends_of(post)
    # In each of these cases the forecast is solved from the start.
    if held is None or whose != OWN or model.reader.looks_back or not goes_on(model.layer):
        return None
    time, states = held
    if float(inputs.times[0]) < time:
        return None
    forcings = {name: force.since(time) for name, force in inputs.forcings.items()}
    start = jnp.asarray(time, inputs.times.dtype)
    return dataclasses.replace(inputs, start=start, forcings=forcings), states


def inputs_at(model: Model, post: xr.DataTree, at: Asked) -> tuple[Inputs, xr.DataArray]:
    """Return the inputs of a layer for a prediction, from the start of the fit on.

    Args:
        model: the model.
        post: the posterior.
        at: times, or a dataset with times and forcings, as for `forecast`.

    Returns:
        The inputs, and the coordinate of their times.

    Raises:
        MismatchError: for a posterior of another model.
        DataError: for bad times or forcings.
    """
    check_belongs(model, post)
    data = _asked_data(model, post, at)
    return _driven_from_fit(model, post, data), data[model.index]


def _asked_data(model: Model, post: xr.DataTree, at: Asked) -> xr.Dataset:
    """Return times and forcings of a prediction, in the units of the fit, without observations."""
    data = _with_places(model, at, post)
    seen = [name for name in model.observables if name in data and name not in model.layer.forcings]
    return in_units_of_fit(model, post, data.drop_vars(seen))


def _empty_arrays(
    pusher: Pusher, repeats: int, *, in_memory: bool
) -> dict[str, dict[str, np.ndarray]]:
    """Allocate arrays `(draw, …)` for predictions, by group and variable.

    Args:
        pusher: the program that predicts, which knows the shapes.
        repeats: the number of predictive draws for each posterior draw.
        in_memory: whether the arrays take memory; otherwise they only have shapes.
    """
    drawn = pusher.draws * repeats
    shapes = {
        "predictions": (drawn, pusher.shapes.mean),
        "noise": (drawn, _noise_by_name(pusher.shapes.noise)),
        "conditional_mean": (pusher.draws, pusher.shapes.mean),
        "conditional_variance": (pusher.draws, pusher.shapes.variance),
        "unobserved": (pusher.draws, pusher.shapes.unobserved),
    }
    return {
        group: _blank_arrays(of_one, draws, in_memory=in_memory)
        for group, (draws, of_one) in shapes.items()
    }


def _blank_arrays(
    of_one: Mapping[str, Any], draws: int, *, in_memory: bool
) -> dict[str, np.ndarray]:
    """Allocate arrays for `draws` draws, by the shapes of one draw."""
    return {
        name: blank((draws, *one.shape), one.dtype, in_memory=in_memory)
        for name, one in of_one.items()
    }


def _noise_by_name(noise: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the noise parameters of all observables, by their names in the group `noise`."""
    return {
        f"{name}.{parameter}": value
        for name, own in noise.items()
        for parameter, value in own.items()
    }


def _groups_by_draw(
    model: Model, post: xr.DataTree, data: xr.Dataset, pusher: Pusher, arrays: Rows
) -> dict[str, xr.Dataset]:
    """Return datasets around the arrays of predictions, with the attributes of each observable.

    Args:
        model: the model.
        post: the posterior.
        data: times and places of the prediction.
        pusher: the program that predicts.
        arrays: the arrays, by group and variable.
    """
    observed = fitted_observables(post)
    # Attributes describe the noise for functions that read the forecast later.
    whole = ("predictions", "conditional_mean", "conditional_variance")
    groups = {name: over_data(arrays[name], post, observed, data) for name in whole}
    for name, variable in groups["conditional_mean"].data_vars.items():
        kind = model.noise_of(str(name))
        variable.attrs |= {
            "noise": type(kind).__name__,
            "counts_by_moments": int(kind.counts_by_moments),
            "correlated": int(kind.looks_back),
            "varies": int(kind.varies),
            "filtered": int(isinstance(model.layer, AbstractFilter)),
        }
    for name, variable in groups["predictions"].data_vars.items():
        variable.attrs |= model.noise_of(str(name)).limits
    groups["conditional_variance"] = _squared_units(groups["conditional_variance"])
    if arrays["unobserved"]:
        outputs = arrays["unobserved"]
        groups["unobserved"] = over_data(outputs, post, _like_outputs(model, outputs), data)
    noise = {
        name: {parameter: arrays["noise"][f"{name}.{parameter}"] for parameter in own}
        for name, own in pusher.shapes.noise.items()
    }
    groups["noise"] = noise_group(pusher.shapes.families, noise, groups["predictions"])
    return groups


def _like_outputs(model: Model, names: Iterable[str]) -> xr.Dataset:
    """Return placeholder data with the dimensions and units of outputs that are not observed."""
    found = {}
    for name in names:
        dims = model.dims(name)
        units = model.layer.units.get(name, "")
        attributes = {"units": units} if units else {}
        found[name] = dims, np.zeros((1,) * len(dims)), attributes
    return xr.Dataset(found)


def _exchanged_group(
    post: xr.DataTree, data: xr.Dataset, pusher: Pusher, index: np.ndarray, kept: tuple[str, ...]
) -> xr.Dataset:
    """Return the group `exchanged_mean` without its values.

    Args:
        post: the posterior.
        data: times and places of the prediction.
        pusher: the program that predicts.
        index: the indices of the draws that are exchanged.
        kept: the parts of the variance for which groups of leaves are kept.
    """
    arrays = _blank_arrays(pusher.shapes.mean, len(kept) * len(index), in_memory=False)
    each = over_data(arrays, post, fitted_observables(post), data, chains=len(kept))
    return each.rename(chain="kept", draw="exchange").assign_coords(kept=list(kept), exchange=index)


def _fill_groups(
    into: Rows, pusher: Pusher, post: xr.DataTree, repeats: int, key: Array
) -> dict[str, xr.Dataset]:
    """Predict, and write the predictions into groups row by row.

    Args:
        into: arrays or variables of a file, by group and observable.
        pusher: the program that predicts.
        post: the posterior.
        repeats: the number of predictive draws for each posterior draw.
        key: the random seed of repeated predictive draws.

    Returns:
        The groups with solver statistics and with constraint residuals, by name.
    """
    small: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []
    # Repetitions move members away from their mean, for which all members must be known.
    chunks = pusher() if repeats == 1 else [(slice(0, pusher.draws), pusher.whole())]
    for rows, part in chunks:
        predictions = part.predictions
        noise = part.noise
        if repeats > 1:
            predictions, noise = repeated(part, repeats, key=key)
        drawn = slice(rows.start * repeats, rows.stop * repeats)
        for group, at, values in (
            ("predictions", drawn, predictions),
            ("noise", drawn, _noise_by_name(noise)),
            ("conditional_mean", rows, part.mean),
            ("conditional_variance", rows, part.variance),
            ("unobserved", rows, part.unobserved),
        ):
            for name, value in values.items():
                into[group][name][at] = value
        small.append((part.ok, part.steps, part.constraint_residual))
    ok, steps, constraint_residual = jax.tree.map(lambda *a: np.concatenate(a), *small)
    shape = post["posterior"].sizes["chain"], post["posterior"].sizes["draw"]
    health = {"ok": ok.reshape(shape), "steps": steps.reshape(shape)}
    stats = xr.Dataset({name: (("chain", "draw"), v) for name, v in health.items()})
    return {
        "sample_stats_predictions": with_coordinates(stats),
        **constraint_residual_group(constraint_residual, post),
    }


def _numbers_of_draw(model: Model, inputs: Inputs) -> int:
    """Return the number of values in one predictive draw of all observables."""
    places = 0
    for name in model.observables:
        places += math.prod(inputs.coordinates[place].size for place in model.dims(name)[1:])
    return inputs.times.size * places


def _with_places(model: Model, at: Asked, post: xr.DataTree) -> xr.Dataset:
    """Return times as a dataset, by default at the places of the fit or for all groups."""
    index = model.index
    layer = model.layer
    places: dict[Any, Any] = {
        n: c for n, c in fitted_observables(post).coords.items() if n != index and c.dims == (n,)
    }
    if isinstance(layer, AbstractPopulation):
        places[layer.dim] = (layer.dim, np.asarray(layer.members), places[layer.dim].attrs)
    if isinstance(at, xr.Dataset):
        return at.assign_coords({n: c for n, c in places.items() if n not in at.coords})
    times = np.asarray(at)
    if times.ndim != 1:
        raise DataError(
            f"times must be a 1-D array or a dataset with a coordinate '{index}', not shape "
            f"{times.shape}"
        )
    # Numbers become floats; dates stay what they are.
    times = times.astype(float) if times.dtype.kind in "iu" else times
    attributes = fitted_observables(post)[index].attrs
    return xr.Dataset(coords={index: (index, times, attributes), **places})


def _inputs_with_noise(model: Model, post: xr.DataTree, data: xr.Dataset) -> Inputs:
    """Return inputs of a model, with the variables that its noise reads for each datum."""
    inputs = _driven_from_fit(model, post, data)
    return dataclasses.replace(inputs, per_datum=model.reader.per_datum(data))


def _driven_from_fit(model: Model, post: xr.DataTree, data: xr.Dataset) -> Inputs:
    """Return inputs that start with the fit, with the forcings of both fit and prediction.

    Args:
        model: the model.
        post: the posterior.
        data: times and forcings of the prediction.

    Raises:
        DataError: if times lie before the start, or forcings are missing.
    """
    # 1. Times, none of which is before the start.
    index = model.index
    asked = checked_index(data, index)
    data = model.in_numbers(data)
    start = float(post["constant_data"].attrs["start"])
    times = checked_times(data, index)
    if not begins(model.layer):
        start = min(start, float(times[0]))
    if times[0] < start:
        began = in_words(
            dates(start, asked, model.reader.index_units) if are_dates(asked) else start
        )
        raise DataError(
            f"a forecast cannot go back before the start of the model: {in_words(asked[0])} < "
            f"{began}"
        )
    past = _past_of_fit(model, post, data)
    forcings = list(model.layer.forcings)
    if not forcings:
        return dataclasses.replace(model.reader.driven(data, start=start), past=past)
    # 2. Forcings of the fit, at times that the prediction does not have.
    for name in forcings:
        if name not in data:
            raise DataError(
                f"forcing '{name}' is not in the data; a forecast needs it up to "
                f"{in_words(asked[-1])}"
            )
    known = model.in_numbers(known_forcings(model, post, data))
    refuse_a_gap(model, known[index].values, times, asked)
    before = known.isel({index: ~np.isin(known[index], times)})
    refuse_unknown_past(model, before)
    # 3. Both together; the solve reports values at the requested times only.
    after = data[forcings].reset_coords(drop=True)
    both = xr.concat([before, after], index, data_vars="all").sortby(index)
    places = data.coords.to_dataset().drop_vars(index).coords
    joined = model.reader.driven(both.assign_coords(places), start=start)
    return dataclasses.replace(joined, times=jnp.asarray(times), past=past)


def _past_of_fit(model: Model, post: xr.DataTree, data: xr.Dataset) -> Past | None:
    """Return the fitted data that correlated noise is conditioned on, at the requested places.

    New places have NaN. The result is None if the noise needs no past, or the groups have none.
    """
    fitted = fitted_observables(post)
    # New groups have no past.
    if not any(bool(values.notnull().any()) for values in fitted.data_vars.values()):
        return None
    for name in model.reader.variables:
        if name in post["constant_data"]:
            fitted = fitted.assign({name: post["constant_data"][name]})
    past = model.reader.past(fitted)
    places = {
        name: c for name, c in fitted.coords.items() if name != model.index and c.dims == (name,)
    }
    if past is None or all(np.array_equal(known, data[name]) for name, known in places.items()):
        return past
    # The prediction has other places than the fit.
    dims = {name: model.dims(name) for name in past.values}
    dims |= {read: model.dims(name) for name in past.values for read in model.reader.reads(name)}
    every = past.values | past.per_datum
    variables = {name: (dims[name], np.asarray(v)) for name, v in every.items()}
    arrays = xr.Dataset(variables, coords=places)
    there = arrays.reindex({name: data[name] for name in places})
    found = {name: jnp.asarray(there[name].values) for name in every}
    values = {name: found[name] for name in past.values}
    read = {name: found[name] for name in past.per_datum}
    return dataclasses.replace(past, values=values, per_datum=read)


def _squared_units(dataset: xr.Dataset) -> xr.Dataset:
    """Change the units of all variables to units of variances, such as (m)²."""
    for variable in dataset.data_vars.values():
        if variable.attrs.get("units"):
            variable.attrs["units"] = f"({variable.attrs['units']})²"
    return dataset
