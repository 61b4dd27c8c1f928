"""Take new observations into draws: by importance weights, or by a new fit if weights are not
reliable.
"""

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Shaped

from .._findings import EVIDENCE, Finding, from_json, to_json
from .._jax.keys import as_key, printable
from .._statistics.importance import (
    as_rows,
    earlier_log_weights,
    resample_groups,
    resample_stats,
    stored_log_likelihood,
    weigh,
)
from ..data.datasets import checked_index, fingerprint, observations, occurrence, series
from ..data.dates import are_dates, dates, numbers, told
from ..errors import DataError
from ..fitting.groups import data_groups
from ..inference import Problem, pose
from ..layers.layer import AbstractFilter
from ..model import Model
from ..prediction.datatree import end_group, mismatch_group, said_of_data, with_log_factor
from ..prediction.future_forcings import refuse_a_gap
from ..prediction.identity import check_same_posterior
from ..prediction.posterior import draws_of, ends_of, fitted_observables, in_units_of_fit
from ..prediction.predictive import Pushed, push

_SUBJECT = "update"

type Refit = Callable[[xr.Dataset, Float[np.ndarray, "draws dimension"]], xr.DataTree]
"""A fit to all data, given these and the old unconstrained draws, near which it may start."""


def taken_in(
    model: Model, post: xr.DataTree, new_data: xr.Dataset, refit: Refit, *, key: int | Array
) -> xr.DataTree:
    """The result of `update`; `refit` is used if weights are not reliable.

    Raises:
        as `update`.
    """
    began = time.perf_counter()
    check_same_posterior(model, post)
    joined = _joined(model, post, new_data)
    problem, draws = pose(model, joined), draws_of(model, post)
    before = stored_log_likelihood(post)
    key_predict = jax.random.fold_in(as_key(key), 1)
    pushed = _gone_on(model, post, joined, draws, key=key_predict)
    if pushed is None:
        pushed = push(model, problem.inputs, draws, observed=problem.observed, key=key_predict)
    log_weights = pushed.log_weight(problem.observed) - before
    weights = weigh(log_weights, as_rows(draws), earlier_log_weights(post))
    if weights.may_replace(len(log_weights)):
        taken = weights.resample(len(log_weights), key=as_key(key))
        groups = _resampled(post, problem, pushed, log_weights, taken, joined)
        tree = xr.DataTree.from_dict(
            groups | data_groups(model, joined, float(problem.inputs.start))
        )
        tree.attrs = _attributes(post, problem, joined)
        tree.attrs |= {"updated_by": "importance weights"}
    else:
        tree = refit(joined, np.asarray(jax.jit(jax.vmap(problem.unconstrain))(draws)))
        tree.attrs["updated_by"] = "refit"
    tree.attrs |= {"update_pareto_k": weights.pareto_k, "effective_draws": weights.effective}
    tree.attrs |= {"updates": int(post.attrs.get("updates", 0)) + 1, "update_key": printable(key)}
    tree.attrs["findings"] = to_json((*from_json(tree.attrs.get("findings", "[]")), _finding(tree)))
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
    """Predictions of all data, with a solve from the end of the old data on; None if the model does
    not allow it.

    Only new rows are solved. An update with as many new rows as an earlier one needs no
    compilation.
    """
    held, old = ends_of(post), fitted_observables(post)
    number = old.sizes[model.index]
    reaches_back = (
        model.looks_back or isinstance(model.layer, AbstractFilter) or not model.layer.goes_on
    )
    if held is None or reaches_back or model.constraints:
        return None
    if not np.array_equal(joined[model.index].values[:number], old[model.index].values):
        return None  # some new rows lie between the old ones
    if any(_gained(joined[name][:number], old[name]) for name in model.observables):
        return None
    time, states = held
    rows = joined.isel({model.index: slice(number - 1, None)})
    observed = {n: np.array(observations(rows, n, dims=model.dims(n))) for n in model.observables}
    for values in observed.values():
        values[0] = np.nan  # known before
    seen = {name: jnp.asarray(values) for name, values in observed.items()}
    part = push(model, model.inputs(rows, start=time), draws, observed=seen, ends=states, key=key)
    return dataclasses.replace(
        part,
        log_likelihood=_after(post, "log_likelihood", old, part.log_likelihood),
        predictions=_after(post, "posterior_predictive", old, part.predictions),
        mean=_after(post, "conditional_mean", old, part.mean),
    )


def _gained(now: xr.DataArray, before: xr.DataArray) -> bool:
    return bool((now.notnull().values & before.isnull().values).any())


def _after(
    post: xr.DataTree, group: str, old: xr.Dataset, new: Mapping[str, np.ndarray]
) -> dict[str, Float[np.ndarray, "draw time ..."]]:
    """The rows of a posterior followed by new ones, without the first of these, which repeats the
    last old row.
    """
    held = post[group].to_dataset().reset_coords()
    return {
        name: np.concatenate([_at_all_rows(held[name], old[name]), v[:, 1:]], axis=1)
        for name, v in new.items()
    }


def _at_all_rows(held: xr.DataArray, data: xr.DataArray) -> Float[np.ndarray, "draw time ..."]:
    """Draws at all rows, with NaN at missing data that they leave out."""
    ordered = held.transpose("chain", "draw", ...).values
    flat = ordered.reshape(-1, *ordered.shape[2:])
    if flat.shape[1:] == data.shape:
        return flat
    whole = np.full((len(flat), *data.shape), np.nan)
    whole[:, data.notnull().values] = flat
    return whole


def _finding(tree: xr.DataTree) -> Finding:
    weights = (
        f"PSIS k-hat {tree.attrs['update_pareto_k']:.2f}, {tree.attrs['effective_draws']:.0f} "
        "effective draws"
    )
    how = f"{tree.attrs['updated_by']}: {weights}"
    if tree.attrs["updated_by"] == "refit":
        how = f"a refit, since weights of the old draws would not do ({weights})"
    return Finding("good", _SUBJECT, f"new data were taken in by {how}")


def _joined(model: Model, post: xr.DataTree, new_data: xr.Dataset) -> xr.Dataset:
    """The data of the fit and the new data together, at all of their times."""
    observed, known = fitted_observables(post), post["constant_data"].to_dataset()
    index = model.index
    new_data = in_units_of_fit(model, post, new_data)
    start, new_times = float(known.attrs["start"]), checked_index(new_data, index)
    if model.layer.begins and float(numbers(new_times[0], model.index_units)) < start:
        began = told(dates(start, new_times, model.index_units) if are_dates(new_times) else start)
        raise DataError(
            f"new data cannot lie before the start of the model: {told(new_times[0])} < {began}"
        )
    if model.layer.forcings:
        in_numbers = lambda times: np.asarray(numbers(times, model.index_units), float)  # noqa: E731
        refuse_a_gap(model, in_numbers(known[index].values), in_numbers(new_times), new_times)
    times = _rows(observed[index].values, new_times)
    places = {str(n): observed[n] for name in model.observables for n in model.dims(name)[1:]}
    _refuse_other_places(places, new_data)
    columns, gained = {}, 0
    for name in (*model.observables, *model.layer.forcings):
        before = (observed if name in observed else known)[name]
        now = _new_values(model, new_data, before, name, times)
        held = _on(times, before[index].values, before.values)
        if name in model.observables:
            _refuse_again(name, times, held, now)
            gained += int((~np.isnan(now)).sum())
        else:
            _refuse_other(name, times, held, now)
        columns[name] = (before.dims, np.where(np.isnan(held), now, held), before.attrs)
    if not gained:
        raise DataError(
            f"the new data hold no value of {', '.join(model.observables)}: there is nothing to "
            "update by"
        )
    columns |= _beside(model, observed, known, new_data, times)
    return xr.Dataset(columns, {index: (index, times, observed[index].attrs), **places})


def _beside(
    model: Model, observed: xr.Dataset, known: xr.Dataset, new_data: xr.Dataset, times: np.ndarray
) -> dict[str, Any]:
    """Variables that the noise reads for each datum, taken from the data that hold the datum."""
    columns = {}
    for observable, name in ((o, n) for o in model.observables for n in model.reads(o)):
        like, dims = observed[observable], model.dims(observable)
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
    for name, known in places.items():
        if not (name in new_data.coords and np.array_equal(new_data[name].values, known.values)):
            raise DataError(
                f"the new data must lie at the places '{name}' of the fit: put NaN where nothing "
                "was seen"
            )


def _new_values(
    model: Model, new_data: xr.Dataset, before: xr.DataArray, name: str, times: np.ndarray
) -> Float[np.ndarray, "time ..."]:
    dims = tuple(map(str, before.dims))
    if name not in new_data:
        return np.full((len(times), *before.shape[1:]), np.nan)
    role = "observable" if name in model.observables else "forcing"
    return _on(times, checked_index(new_data, dims[0]), series(new_data, name, role, dims))


def _rows(before: np.ndarray, now: np.ndarray) -> Shaped[np.ndarray, " time"]:
    """All times of both, each as often as in the one with more rows there."""
    once = np.unique(np.concatenate([before, now]))
    often = [
        np.searchsorted(rows, once, "right") - np.searchsorted(rows, once) for rows in (before, now)
    ]
    return np.repeat(once, np.maximum(*often))


def _on(times: np.ndarray, own: np.ndarray, values: np.ndarray) -> Float[np.ndarray, "time ..."]:
    """Values placed at their times among others, replicates in order; NaN elsewhere."""
    whole = np.full((len(times), *values.shape[1:]), np.nan)
    whole[np.searchsorted(times, own) + occurrence(own)] = values
    return whole


def _refuse_again(name: str, times: np.ndarray, held: np.ndarray, now: np.ndarray) -> None:
    for at in map(tuple, np.argwhere(~np.isnan(held) & ~np.isnan(now))[:1]):
        raise DataError(
            f"the posterior knows '{name}' at time {told(times[at[0]])} already ({held[at]:g}; the "
            "new data say "
            f"{now[at]:g}): a "
            "datum must not count twice, so leave it out of the new data"
        )


def _refuse_other(name: str, times: np.ndarray, held: np.ndarray, now: np.ndarray) -> None:
    for at in map(tuple, np.argwhere(np.isnan(held) & np.isnan(now))[:1]):
        raise DataError(f"forcing '{name}' is missing at the new time {told(times[at[0]])}")
    for at in map(tuple, np.argwhere(~np.isnan(now) & (held != now) & ~np.isnan(held))[:1]):
        raise DataError(
            f"forcing '{name}' at time {told(times[at[0]])} was {held[at]:g} in the fit and is "
            f"{now[at]:g} in the new "
            "data: an update adds observations; to change what is known, fit again"
        )


def _resampled(
    post: xr.DataTree,
    problem: Problem,
    pushed: Pushed,
    log_weights: np.ndarray,
    taken: np.ndarray,
    joined: xr.Dataset,
) -> dict[str, xr.Dataset]:
    """The groups of posterior draws, resampled; groups of prior draws stay as they are."""
    kept = ("prior", "sample_stats_prior")  # prior predictive draws are of the data of the fit
    groups = {name: post[name].to_dataset() for name in kept if name in post.children}
    groups |= resample_groups(post, taken)
    if "sample_stats" in post.children:
        stats = resample_stats(post["sample_stats"].to_dataset(), log_weights, taken)
        groups["sample_stats"] = with_log_factor(stats, pushed.log_factor[taken])
    groups |= mismatch_group({name: v[taken] for name, v in pushed.mismatch.items()}, post)
    groups |= end_group(
        {n: v[taken] for n, v in pushed.end.items()},
        post,
        float(np.max(np.asarray(problem.inputs.times))),
    )
    return groups | said_of_data(pushed, taken, post, joined, problem.own_rows)


def _attributes(post: xr.DataTree, problem: Problem, joined: xr.Dataset) -> dict[str, Any]:
    # The evidence is that of fewer data, and of updates the last one is told, whose weights are
    # those of all.
    said = [
        f
        for f in from_json(post.attrs.get("findings", "[]"))
        if f.subject not in (EVIDENCE, _SUBJECT)
    ]
    kept = {
        str(name): value
        for name, value in post.attrs.items()
        if not str(name).startswith("log_evidence")
    }
    return kept | {
        "findings": to_json(said),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data_sha256": fingerprint(joined),
        "posterior_sha256": problem.fingerprint(),
    }
