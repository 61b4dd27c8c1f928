"""The posterior predictive at any times."""

import dataclasses
import datetime
import math
import os
import time
from collections.abc import Iterable, Mapping
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
from ..data.dates import are_dates, dates, told
from ..data.layer_inputs import Inputs, Past
from ..errors import DataError
from ..layers.layer import AbstractFilter, AbstractPopulation, begins, goes_on
from ..model import Model, check_shapes, is_series
from ..random import paths
from .conditional import noise_group
from .datatree import by_chain, mismatch_group, over_data, pushed_draws, with_coordinates
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

type Asked = xr.Dataset | xr.DataArray | pd.DatetimeIndex | Shaped[np.ndarray, " time"]
"""Times and forcings, or times alone."""


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
    """Push every posterior draw through the model, to the times of `at`.

    The solve starts where that of the fit did: the times may be past or future ones, from there on.
    Draws go through in
    chunks: memory is bounded whatever their number, but for what is returned. With `path` that is
        in the file too, as
    `save` would write it, and what is returned reads from there: `decompose`, `decompose_entropy`,
    `score` and `pit` do so block by block.

    A posterior of fewer than a thousand members, or other draws that are no chains, has several
    predictive draws of each, about a thousand in all (of large fields at least a hundred), so that
    intervals know the noise. They are a little wider than the members: another member may lie
    further out than so few have shown (docs/uncertainty.md). These are in memory all at once before
    they are in a file.

    Args:
        model: the model of the fit.
        post: what `fit` returned.
        at: a dataset (its times, forcings and what the noise reads of each datum are used, never
            its observations) or, for a model that needs no more, an array of times, in the units of
            the index, or of dates. Forcings may have the dimension `member`, those of an ensemble:
            draws are paired with its members in turn. A dict of these by name, scenarios, is
            forecast one by one, with the same noise.
        what_if: whether the model may be another than that of the fit, with the same random leaves:
            what would be under another known number, equation, noise or solver. The attributes
            `model` and `what_if`, the verdict and the report then say so.
        new_members: whether random effects are drawn anew for all members of a population, and
            groups of them: members with the same doses, covariates and times, of which nothing was
            observed.
        path: a file for a forecast that is too large for memory; in memory unless given.
        key: a whole number or a JAX random key, for the observation noise.

    Returns:
        A DataTree with the groups `predictions` (draws of each datum: one for each posterior draw,
        or several of each member, one after the other), `noise` (the parameters of the distribution
        that each of these was drawn from), `conditional_mean` and `conditional_variance` (of a
        datum given the draw), `sample_stats_predictions` (`ok`, `steps`), `unobserved` (outputs of
        the layer that no datum observes, without noise), `mismatch` (of the constraints, at the
        forecast's times), `vector_field` as `fit` has it, along the forecast, and `posterior`, the
        draws that were pushed. A draw whose solve fails is NaN and counted in `ok`. `noise` has no
        parameters of a noise of one's own that is a mixture of NumPyro's distributions, or a
        transform. Of a model with science and network, from 100 draws on, also `exchanged_mean`:
        the conditional mean where one group of leaves was `kept` and all others were those of
        another draw, for up to 4000 draws, from which `decompose` splits the epistemic variance.
        These solves wait until the group is looked at or saved; with `path` they are made at once.

    Of an ensemble of forcings, `forcing_member` in `sample_stats_predictions` says which one a draw
    had; there is neither `vector_field` nor `exchanged_mean` then. Of scenarios, a dict of such
    trees.

    Raises:
        MismatchError: for a posterior of another model: another equation, prior, noise, known
            number or solver setting, unless `what_if`, or other random leaves.
        DataError: for bad times or forcings, or where the noise reads of each datum what is not
            there.
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
    check_belongs(model, post)
    data = _asked(model, post, at)
    members = members_of(model, data)
    whose = model_of(model, post, what_if=what_if)
    post = as_unseen(post, paths(model)) if new_members else post
    inputs = _inputs(model, post, members[0])
    if whose["model"] != OWN:
        check_shapes(model, inputs)  # those of the fitted model were checked by the fit
    draws = draws_of(model, post)
    repeats = repetitions(post, _size(model, inputs))
    number = len(next(iter(draws.values())))
    drives = (
        None
        if len(members) == 1
        else paired([_inputs(model, post, member) for member in members], number)
    )
    seen_along = watched(model, inputs, number) if drives is None else None
    whole = {"key": as_key(key), "repeats": repeats}
    begun = (
        None
        if path is not None or drives is not None
        else _from_end(model, post, inputs, str(whose["model"]))
    )
    at_once, ends = (inputs, None) if begun is None else begun
    pusher = Pusher(model, at_once, draws, **whole, watched=seen_along, drives=drives, ends=ends)
    arrays = _arrays(pusher, repeats, in_memory=path is None)
    groups = _by_draw(model, post, data, pusher, arrays)
    kept = parts_of(model)
    index = exchangeable(model, draws) if drives is None else np.zeros(0, int)
    others = (
        {"exchanged_mean": _exchanged_group(post, data, pusher, index, kept)} if index.size else {}
    )
    attributes = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "key": printable(key),
        **fitted_span(model, post, members),
        "series": int(is_series(model, data)),
        "signature": post.attrs["signature"],
        "posterior_sha256": post.attrs.get("posterior_sha256", ""),
        **whose,
        **({"members": model.layer.dim} if isinstance(model.layer, AbstractPopulation) else {}),
    }

    def rest(health: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
        found = health
        if drives is not None:
            stats = health["sample_stats_predictions"]
            member = (("chain", "draw"), drives.of_draw.reshape(stats["ok"].shape))
            found = found | {"sample_stats_predictions": stats.assign(forcing_member=member)}
        if seen_along is not None:
            rates = rates_along_paths(
                model, at_once, draws, seen_along.times, pusher.watched_states
            )
            rates = rates.assign_coords(
                {model.index: data[model.index].isel({model.index: seen_along.times})}
            )
            found = found | {"vector_field": by_chain(rates, post)}
        if drives is None:
            along, states = (
                (seen_along.times, pusher.watched_states)
                if seen_along is not None
                else (None, None)
            )
            rows = thinned(inputs.times.size, FUNCTION_ROWS) if along is None else along
            asked = function_inputs(model, inputs, data[model.index], rows, states)
            found = found if asked is None else found | {"function_inputs": asked}
        spent = {"wall_time_s": time.perf_counter() - began}
        return found | {
            "posterior": pushed_draws(model, post, draws),
            "/": xr.Dataset(attrs=attributes | spent),
        }

    def fill(into: Rows) -> dict[str, xr.Dataset]:
        return _fill(into, pusher, post, repeats, jax.random.fold_in(as_key(key), 1))

    def exchange(into: Mapping[str, Any]) -> None:
        if not index.size:
            return
        # Exchanged draws have no states of their own at the end of the fit: they are solved from
        # the start.
        from_start = pusher if ends is None else Pusher(model, inputs, draws, **whole)
        for rows, part in from_start(exchanged(model, draws, index)):
            for name, value in part.mean.items():
                into[name][rows] = value

    def exchanged_means() -> dict[str, np.ndarray]:
        found = _blank(pusher.shapes.mean, len(kept) * index.size, in_memory=True)
        exchange(found)
        return found

    if path is None:
        others = {name: on_demand(group, exchanged_means) for name, group in others.items()}
        return xr.DataTree.from_dict(groups | others | rest(fill(arrays)))
    with new_file(path, groups | others) as file:
        with file.rows() as rows:
            health = fill(rows)
            exchange(rows.get("exchanged_mean", {}))
        for name, group in rest(health).items():
            file.append(name, group)
    return xr.open_datatree(path, engine="h5netcdf")


def _from_end(
    model: Model, post: xr.DataTree, inputs: Inputs, whose: str
) -> tuple[Inputs, dict[str, np.ndarray]] | None:
    """Inputs from the last time of the fit on, and the states there; none where all must be solved
    from the start.

    A model other than that of the fit has other states there, and noise that looks back reads
    earlier predictions.
    """
    held = ends_of(post)
    if held is None or whose != OWN or model.reader.looks_back or not goes_on(model.layer):
        return None
    time, states = held
    if float(inputs.times[0]) < time:
        return None
    forcings = {name: force.since(time) for name, force in inputs.forcings.items()}
    return dataclasses.replace(
        inputs, start=jnp.asarray(time, inputs.times.dtype), forcings=forcings
    ), states


def inputs_at(model: Model, post: xr.DataTree, at: Asked) -> tuple[Inputs, xr.DataArray]:
    """The inputs of a model's layer at times that one may ask for, from where the fit started, and
    these times.

    Raises:
        MismatchError: for a posterior of another model.
        DataError: for bad times or forcings.
    """
    check_belongs(model, post)
    data = _asked(model, post, at)
    return _driven(model, post, data), data[model.index]


def _asked(model: Model, post: xr.DataTree, at: Asked) -> xr.Dataset:
    """Times and forcings that are asked for, in the units of the fit, without observations."""
    data = _as_dataset(model, at, post)
    seen = [name for name in model.observables if name in data and name not in model.layer.forcings]
    return in_units_of_fit(model, post, data.drop_vars(seen))


def _arrays(pusher: Pusher, repeats: int, *, in_memory: bool) -> dict[str, dict[str, np.ndarray]]:
    """Arrays `(draw, …)` by group and variable, for what is pushed."""
    drawn = pusher.draws * repeats
    shapes = {
        "predictions": (drawn, pusher.shapes.mean),
        "noise": (drawn, _flat(pusher.shapes.noise)),
        "conditional_mean": (pusher.draws, pusher.shapes.mean),
        "conditional_variance": (pusher.draws, pusher.shapes.variance),
        "unobserved": (pusher.draws, pusher.shapes.unobserved),
    }
    return {
        group: _blank(of_one, draws, in_memory=in_memory)
        for group, (draws, of_one) in shapes.items()
    }


def _blank(of_one: Mapping[str, Any], draws: int, *, in_memory: bool) -> dict[str, np.ndarray]:
    return {
        name: blank((draws, *one.shape), one.dtype, in_memory=in_memory)
        for name, one in of_one.items()
    }


def _flat(noise: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of all observables by their names in the group `noise`."""
    return {
        f"{name}.{parameter}": value
        for name, own in noise.items()
        for parameter, value in own.items()
    }


def _by_draw(
    model: Model, post: xr.DataTree, data: xr.Dataset, pusher: Pusher, arrays: Rows
) -> dict[str, xr.Dataset]:
    """Groups that show these arrays."""
    observed = fitted_observables(post)
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
        groups["unobserved"] = over_data(
            arrays["unobserved"], post, _like_outputs(model, arrays["unobserved"]), data
        )
    noise = {
        n: {p: arrays["noise"][f"{n}.{p}"] for p in own} for n, own in pusher.shapes.noise.items()
    }
    groups["noise"] = noise_group(pusher.shapes.families, noise, groups["predictions"])
    return groups


def _like_outputs(model: Model, names: Iterable[str]) -> xr.Dataset:
    """Data as there would be of outputs that nobody observed."""
    dims = {name: model.dims(name) for name in names}
    units = {name: model.layer.units.get(name, "") for name in names}
    return xr.Dataset(
        {
            n: (own, np.zeros((1,) * len(own)), {"units": units[n]} if units[n] else {})
            for n, own in dims.items()
        }
    )


def _exchanged_group(
    post: xr.DataTree, data: xr.Dataset, pusher: Pusher, index: np.ndarray, kept: tuple[str, ...]
) -> xr.Dataset:
    """The group of exchanged draws without its numbers."""
    arrays = _blank(pusher.shapes.mean, len(kept) * len(index), in_memory=False)
    each = over_data(arrays, post, fitted_observables(post), data, chains=len(kept))
    return each.rename(chain="kept", draw="exchange").assign_coords(kept=list(kept), exchange=index)


def _fill(
    into: Rows, pusher: Pusher, post: xr.DataTree, repeats: int, key: Array
) -> dict[str, xr.Dataset]:
    """Fill groups by rows, and say how the solver fared and by how much constraints are broken."""
    small: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []
    # Few members are moved apart from their mean, for which all are needed at once.
    for rows, part in pusher() if repeats == 1 else [(slice(0, pusher.draws), pusher.whole())]:
        predictions, noise = (
            (part.predictions, part.noise) if repeats == 1 else repeated(part, repeats, key=key)
        )
        drawn = slice(rows.start * repeats, rows.stop * repeats)
        for group, at, values in (
            ("predictions", drawn, predictions),
            ("noise", drawn, _flat(noise)),
            ("conditional_mean", rows, part.mean),
            ("conditional_variance", rows, part.variance),
            ("unobserved", rows, part.unobserved),
        ):
            for name, value in values.items():
                into[group][name][at] = value
        small.append((part.ok, part.steps, part.mismatch))
    ok, steps, mismatch = jax.tree.map(lambda *a: np.concatenate(a), *small)
    shape = post["posterior"].sizes["chain"], post["posterior"].sizes["draw"]
    health = {"ok": ok.reshape(shape), "steps": steps.reshape(shape)}
    stats = xr.Dataset({name: (("chain", "draw"), v) for name, v in health.items()})
    return {"sample_stats_predictions": with_coordinates(stats), **mismatch_group(mismatch, post)}


def _size(model: Model, inputs: Inputs) -> int:
    """How many numbers one draw of all observables has."""
    places = [
        [inputs.coordinates[place].size for place in model.dims(name)[1:]]
        for name in model.observables
    ]
    return inputs.times.size * sum(map(math.prod, places))


def _as_dataset(model: Model, at: Asked, post: xr.DataTree) -> xr.Dataset:
    """What is asked for, at the places of the fitted data where it names none, or for all members
    of a population.
    """
    index, layer = model.index, model.layer
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
    return xr.Dataset(
        coords={index: (index, times, fitted_observables(post)[index].attrs), **places}
    )


def _inputs(model: Model, post: xr.DataTree, data: xr.Dataset) -> Inputs:
    """Inputs of a model, what its noise reads of each datum among them."""
    return dataclasses.replace(_driven(model, post, data), per_datum=model.reader.per_datum(data))


def _driven(model: Model, post: xr.DataTree, data: xr.Dataset) -> Inputs:
    """Inputs that start where the fitted data did, with the forcings of then and of now."""
    asked, data = checked_index(data, model.index), model.in_numbers(data)
    start, times = float(post["constant_data"].attrs["start"]), checked_times(data, model.index)
    if not begins(model.layer):
        start = min(start, float(times[0]))
    if times[0] < start:
        began = told(dates(start, asked, model.reader.index_units) if are_dates(asked) else start)
        raise DataError(
            f"a forecast cannot go back before the start of the model: {told(asked[0])} < {began}"
        )
    past = _past(model, post, data)
    if not model.layer.forcings:
        return dataclasses.replace(model.reader.driven(data, start=start), past=past)
    for name in model.layer.forcings:
        if name not in data:
            raise DataError(
                f"forcing '{name}' is not in the data; a forecast needs it up to {told(asked[-1])}"
            )
    forcings = list(model.layer.forcings)
    index = model.index
    known = model.in_numbers(known_forcings(model, post, data))
    refuse_a_gap(model, known[index].values, times, asked)
    before = known.isel({index: ~np.isin(known[index], times)})
    refuse_unknown_past(model, before)
    both = xr.concat(
        [before, data[forcings].reset_coords(drop=True)], index, data_vars="all"
    ).sortby(index)
    joined = model.reader.driven(
        both.assign_coords(data.coords.to_dataset().drop_vars(index).coords), start=start
    )
    return dataclasses.replace(joined, times=jnp.asarray(times), past=past)


def _past(model: Model, post: xr.DataTree, data: xr.Dataset) -> Past | None:
    """What the model looks back at, at the places that are asked for: NaN at those that were not
    observed.
    """
    fitted = fitted_observables(post)
    if not any(
        bool(values.notnull().any()) for values in fitted.data_vars.values()
    ):  # of new members
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
    dims = {name: model.dims(name) for name in past.values}
    dims |= {read: model.dims(name) for name in past.values for read in model.reader.reads(name)}
    every = past.values | past.per_datum
    arrays = xr.Dataset({n: (dims[n], np.asarray(v)) for n, v in every.items()}, coords=places)
    there = arrays.reindex({name: data[name] for name in places})
    values, read = (
        {n: jnp.asarray(there[n].values) for n in own} for own in (past.values, past.per_datum)
    )
    return dataclasses.replace(past, values=values, per_datum=read)


def _squared_units(dataset: xr.Dataset) -> xr.Dataset:
    for variable in dataset.data_vars.values():
        if variable.attrs.get("units"):
            variable.attrs["units"] = f"({variable.attrs['units']})²"
    return dataset
