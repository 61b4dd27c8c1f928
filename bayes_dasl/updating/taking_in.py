"""Update of posterior draws by importance weights, or by a new fit if these are unreliable."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Shaped

from .._findings import Finding, add_finding
from .._jax.keys import as_key
from .._statistics.importance import (
    as_rows,
    earlier_log_weights,
    stored_log_likelihood,
    weigh,
)
from ..data.datasets import checked_index, observations, occurrence, series
from ..data.dates import are_dates, dates, in_words, numbers
from ..errors import DataError
from ..fitting.groups import data_groups
from ..inference import Problem, pose
from ..layers.layer import AbstractFilter, begins, goes_on
from ..model import Model
from ..prediction.datatree import end_group
from ..prediction.future_forcings import refuse_a_gap
from ..prediction.identity import check_same_posterior
from ..prediction.posterior import draws_of, ends_of, fitted_observables, in_units_of_fit
from ..prediction.predictive import Pushed, push
from .revised import UPDATE, kept_attributes, resampled_groups, update_attributes

type Refit = Callable[[xr.Dataset, Float[np.ndarray, "draws dimension"]], xr.DataTree]
"""A fit to all data, given these and the old unconstrained draws, near which it may start."""


def taken_in(
    model: Model, post: xr.DataTree, new_data: xr.Dataset, refit: Refit, *, key: int | Array
) -> xr.DataTree:
    r"""Update a posterior by importance weights, or by `refit` if they are not reliable.

    $w(\theta) = p(y_{all} \mid \theta) / p(y_{old} \mid \theta)$ for a draw θ, all data and the old
    data

    Args:
        model: the model of the fit.
        post: the old posterior.
        new_data: the new observations.
        refit: a function of all data and of the old unconstrained draws. It fits the model to all
            data.
        key: random seed.

    Returns:
        The updated posterior, as from `update`.
    """
    began = time.perf_counter()
    check_same_posterior(model, post)
    # 1. Predict all data. If the model can continue from the old rows, solve the new rows only.
    joined = _joined_data(model, post, new_data)
    problem = pose(model, joined)
    draws = draws_of(model, post)
    before = stored_log_likelihood(post)
    key_predict = jax.random.fold_in(as_key(key), 1)
    pushed = _gone_on(model, post, joined, draws, key=key_predict)
    if pushed is None:
        pushed = push(model, problem.inputs, draws, observed=problem.observed, key=key_predict)
    # 2. Weights. The Pareto k-hat also covers the weights of earlier updates.
    log_weights = pushed.log_weight(problem.observed) - before
    weights = weigh(log_weights, as_rows(draws), earlier_log_weights(post))
    # 3. Resample the draws, or fit again.
    if weights.may_replace(len(log_weights)):
        taken = weights.resample(len(log_weights), key=as_key(key))
        groups = _updated_groups(post, problem, pushed, log_weights, taken, joined)
        groups |= data_groups(model, joined, float(problem.inputs.start))
        tree = xr.DataTree.from_dict(groups)
        tree.attrs, by = kept_attributes(post, problem, joined), "importance weights"
    else:
        tree = refit(joined, np.asarray(jax.jit(jax.vmap(problem.unconstrain))(draws)))
        by = "refit"
    tree.attrs |= update_attributes(post, by, weights.pareto_k, weights.effective, key=key)
    add_finding(tree, _update_finding(tree))
    tree.attrs["update_time_s"] = time.perf_counter() - began
    return tree


def _gone_on(
    model: Model,
    post: xr.DataTree,
    joined: xr.Dataset,
    draws: Mapping[str, np.ndarray],
    *,
    key: Array,
) -> Pushed | None:
    """Predict all data by a solve of the new rows alone, from the states at the last old row.

    An update with as many new rows as an earlier update needs no compilation.

    Args:
        model: the model of the fit.
        post: the old posterior.
        joined: the old and new data.
        draws: the draws of the old posterior, by path.
        key: random seed of simulated data.

    Returns:
        The predictions of all rows. None if this is impossible: if the layer cannot continue from
        its last states, the layer or the noise conditions on earlier data, there are constraints,
        or new rows lie between old rows or add data to them.
    """
    held, old = ends_of(post), fitted_observables(post)
    number = old.sizes[model.index]
    sequential = model.reader.looks_back or isinstance(model.layer, AbstractFilter)
    reaches_back = sequential or not goes_on(model.layer)
    if held is None or reaches_back or model.constraints:
        return None
    if not np.array_equal(joined[model.index].values[:number], old[model.index].values):
        # Some new rows lie between old ones.
        return None
    if any(_gained(joined[name][:number], old[name]) for name in model.observables):
        return None
    # Solve from the states at the last old row over the new rows.
    time, states = held
    rows = joined.isel({model.index: slice(number - 1, None)})
    observed = {n: np.array(observations(rows, n, dims=model.dims(n))) for n in model.observables}
    for values in observed.values():
        # The first row repeats the last old one.
        values[0] = np.nan
    seen = {name: jnp.asarray(values) for name, values in observed.items()}
    inputs = model.inputs(rows, start=time)
    part = push(model, inputs, draws, observed=seen, ends=states, key=key)
    return dataclasses.replace(
        part,
        log_likelihood=_after(post, "log_likelihood", old, part.log_likelihood),
        predictions=_after(post, "posterior_predictive", old, part.predictions),
        mean=_after(post, "conditional_mean", old, part.mean),
    )


def _gained(now: xr.DataArray, before: xr.DataArray) -> bool:
    """Whether `now` has a value where `before` has none."""
    return bool((now.notnull().values & before.isnull().values).any())


def _after(
    post: xr.DataTree, group: str, old: xr.Dataset, new: Mapping[str, np.ndarray]
) -> dict[str, Float[np.ndarray, "draw time ..."]]:
    """Join the old rows of a group of the posterior with predictions of the new rows.

    Args:
        post: the old posterior.
        group: the name of the group.
        old: the data of the fit.
        new: the predictions by name. Their first row repeats the last old row and is dropped.

    Returns:
        Draws over all rows, by name.
    """
    held = post[group].to_dataset().reset_coords()
    return {
        name: np.concatenate([_at_all_rows(held[name], old[name]), v[:, 1:]], axis=1)
        for name, v in new.items()
    }


def _at_all_rows(held: xr.DataArray, data: xr.DataArray) -> Float[np.ndarray, "draw time ..."]:
    """Return draws at all rows of the data, with NaN where the group leaves out missing data.

    Args:
        held: the draws, at all data or only at data that are not missing.
        data: the data.
    """
    ordered = held.transpose("chain", "draw", ...).values
    flat = ordered.reshape(-1, *ordered.shape[2:])
    if flat.shape[1:] == data.shape:
        return flat
    whole = np.full((len(flat), *data.shape), np.nan)
    whole[:, data.notnull().values] = flat
    return whole


def _update_finding(tree: xr.DataTree) -> Finding:
    """Return the finding that says how new data were used."""
    weights = (
        f"PSIS k-hat {tree.attrs['update_pareto_k']:.2f}, {tree.attrs['effective_draws']:.0f} "
        "effective draws"
    )
    how = f"{tree.attrs['updated_by']}: {weights}"
    if tree.attrs["updated_by"] == "refit":
        how = f"a refit, since weights of the old draws would not do ({weights})"
    return Finding("good", UPDATE, f"new data were taken in by {how}")


def _joined_data(model: Model, post: xr.DataTree, new_data: xr.Dataset) -> xr.Dataset:
    """Return the data of the fit and the new data together, at all of their times.

    Raises:
        DataError: if the new data do not suit the data of the fit.
    """
    # 1. Check times and places of the new data.
    observed = fitted_observables(post)
    known = post["constant_data"].to_dataset()
    index = model.index
    new_data = in_units_of_fit(model, post, new_data)
    start = float(known.attrs["start"])
    new_times = checked_index(new_data, index)
    if begins(model.layer) and float(numbers(new_times[0], model.reader.index_units)) < start:
        units = model.reader.index_units
        began = in_words(dates(start, new_times, units) if are_dates(new_times) else start)
        raise DataError(
            f"new data cannot lie before the start of the model: {in_words(new_times[0])} < {began}"
        )
    if model.layer.forcings:
        in_numbers = lambda times: np.asarray(numbers(times, model.reader.index_units), float)  # noqa: E731
        refuse_a_gap(model, in_numbers(known[index].values), in_numbers(new_times), new_times)
    times = _joined_times(observed[index].values, new_times)
    places = {str(n): observed[n] for name in model.observables for n in model.dims(name)[1:]}
    _refuse_other_places(places, new_data)
    # 2. Each variable at all times. Refuse data that occur twice, and forcings that change.
    columns, gained = {}, 0
    for name in (*model.observables, *model.layer.forcings):
        before = (observed if name in observed else known)[name]
        now = _new_values(model, new_data, before, name, times)
        held = _on(times, before[index].values, before.values)
        if name in model.observables:
            _refuse_again(name, times, held, now)
            gained += int((~np.isnan(now)).sum())
        else:
            _refuse_changed(name, times, held, now)
        columns[name] = (before.dims, np.where(np.isnan(held), now, held), before.attrs)
    if not gained:
        raise DataError(
            f"the new data hold no value of {', '.join(model.observables)}: there is nothing to "
            "update by"
        )
    # 3. Variables that the noise reads.
    columns |= _beside(model, observed, known, new_data, times)
    return xr.Dataset(columns, {index: (index, times, observed[index].attrs), **places})


def _beside(
    model: Model, observed: xr.Dataset, known: xr.Dataset, new_data: xr.Dataset, times: np.ndarray
) -> dict[str, Any]:
    """Return the variables that the noise uses for each datum, such as known errors.

    Each value is taken from the dataset that has the datum.

    Args:
        model: the model.
        observed: the observations of the fit.
        known: the other variables of the fit.
        new_data: the new data.
        times: all times.

    Returns:
        A tuple (dimensions, values, attributes) for each variable, by name.
    """
    columns = {}
    for observable, name in ((o, n) for o in model.observables for n in model.reader.reads(o)):
        like = observed[observable]
        dims = model.dims(observable)
        in_fit, in_new = (
            _on(times, data[dims[0]].values, series(data, name, "variable", dims))
            if name in data
            else np.full((len(times), *like.shape[1:]), np.nan)
            for data in (known, new_data)
        )
        if name in known or name in new_data:
            seen = ~np.isnan(_on(times, like[dims[0]].values, like.values))
            attributes = (known if name in known else new_data)[name].attrs
            columns[name] = (dims, np.where(seen | np.isnan(in_new), in_fit, in_new), attributes)
    return columns


def _refuse_other_places(places: dict[str, xr.DataArray], new_data: xr.Dataset) -> None:
    """Raise a DataError if the new data have other places than the data of the fit."""
    for name, known in places.items():
        if not (name in new_data.coords and np.array_equal(new_data[name].values, known.values)):
            raise DataError(
                f"the new data must lie at the places '{name}' of the fit: put NaN where nothing "
                "was seen"
            )


def _new_values(
    model: Model, new_data: xr.Dataset, before: xr.DataArray, name: str, times: np.ndarray
) -> Float[np.ndarray, "time ..."]:
    """Return the new values of a variable at all times; NaN where there are none.

    `before` is the variable in the data of the fit.
    """
    dims = tuple(map(str, before.dims))
    if name not in new_data:
        return np.full((len(times), *before.shape[1:]), np.nan)
    role = "observable" if name in model.observables else "forcing"
    return _on(times, checked_index(new_data, dims[0]), series(new_data, name, role, dims))


def _joined_times(before: np.ndarray, now: np.ndarray) -> Shaped[np.ndarray, " time"]:
    """Return all times of both arrays, sorted; each occurs as often as in the array with more."""
    once = np.unique(np.concatenate([before, now]))
    often = [
        np.searchsorted(rows, once, "right") - np.searchsorted(rows, once) for rows in (before, now)
    ]
    # Replicates of one time have as many rows as the larger of both.
    return np.repeat(once, np.maximum(*often))


def _on(times: np.ndarray, own: np.ndarray, values: np.ndarray) -> Float[np.ndarray, "time ..."]:
    """Place values at their times among all times, with replicates in order; NaN elsewhere.

    Args:
        times: all times.
        own: the times of the values.
        values: the values.
    """
    whole = np.full((len(times), *values.shape[1:]), np.nan)
    whole[np.searchsorted(times, own) + occurrence(own)] = values
    return whole


def _refuse_again(name: str, times: np.ndarray, held: np.ndarray, now: np.ndarray) -> None:
    """Raise a DataError for a datum that both the fit and the new data have.

    `held` are the values of the fit and `now` the new values, both at all times.
    """
    for at in map(tuple, np.argwhere(~np.isnan(held) & ~np.isnan(now))[:1]):
        raise DataError(
            f"the posterior knows '{name}' at time {in_words(times[at[0]])} already ({held[at]:g}; "
            "the "
            "new data say "
            f"{now[at]:g}): a "
            "datum must not count twice, so leave it out of the new data"
        )


def _refuse_changed(name: str, times: np.ndarray, held: np.ndarray, now: np.ndarray) -> None:
    """Raise a DataError for a forcing that is missing at a time, or that differs from the fit.

    `held` are the values of the fit and `now` the new values, both at all times.
    """
    unknown_before, unknown = np.isnan(held), np.isnan(now)
    for at in np.argwhere(unknown_before & unknown)[:1]:
        raise DataError(f"forcing '{name}' is missing at the new time {in_words(times[at[0]])}")
    changed = (held != now) & ~unknown_before & ~unknown
    for at in map(tuple, np.argwhere(changed)[:1]):
        raise DataError(
            f"forcing '{name}' at time {in_words(times[at[0]])} was {held[at]:g} in the fit and is "
            f"{now[at]:g} in the new "
            "data: an update adds observations; to change what is known, fit again"
        )


def _updated_groups(
    post: xr.DataTree,
    problem: Problem,
    pushed: Pushed,
    log_weights: np.ndarray,
    taken: np.ndarray,
    joined: xr.Dataset,
) -> dict[str, xr.Dataset]:
    """Return the groups with resampled posterior draws; groups of prior draws are unchanged.

    Args:
        post: the old posterior.
        problem: the new posterior density.
        pushed: the predictions of all old draws.
        log_weights: the log weight of each old draw.
        taken: the indices of the resampled draws.
        joined: all data.
    """
    # The prior predictive group is dropped, since it belongs to the data of the fit alone.
    kept = ("prior", "sample_stats_prior")
    groups = {name: post[name].to_dataset() for name in kept if name in post.children}
    groups |= resampled_groups(post, problem, pushed, log_weights, taken, joined)
    ends = {name: v[taken] for name, v in pushed.end.items()}
    return groups | end_group(ends, post, float(np.max(np.asarray(problem.inputs.times))))
