"""The groups of a posterior: what its draws and prior draws say of the data, and where they come
from.
"""

import datetime
import json
import platform
import warnings
from collections.abc import Callable, Mapping

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array

from .._findings import Finding, lost_look
from .._statistics.convergence import thinned
from ..data.datasets import fingerprint
from ..data.dates import counted_in, has_dates
from ..inference.engine import Modes, Samples
from ..inference.problem import Problem
from ..layers import solver_settings
from ..model import Model
from ..prediction.datatree import (
    by_chain,
    draws_dataset,
    end_group,
    known_bounds,
    log_prior_group,
    mismatch_group,
    plain_attributes,
    prior_predictive,
    said_of_data,
    shortest_lengths,
    where_seen,
    with_coordinates,
    with_log_factor,
)
from ..prediction.function_inputs import FUNCTION_ROWS, function_inputs
from ..prediction.identity import made_with
from ..prediction.posterior import COUNTS_IN, signature
from ..prediction.predictive import Draws, Pusher, Watched
from ..prediction.vector_fields import rates_along_paths, watched
from ..unknown_functions.lookup import function_names

PRIOR_DRAWS = 500


def looked_at[T](subject: str, look: Callable[[], T], told: list[Finding]) -> T | None:
    """What a look at the draws finds; nothing where it raises, which is told then: draws are worth
    more than that.
    """
    try:
        return look()
    except Exception as error:
        told.append(lost_look(subject, error))
        warnings.warn(f"{subject} {told[-1].message}", stacklevel=2)
        return None


def _stats(samples: Samples) -> xr.Dataset:
    return with_coordinates(
        xr.Dataset({name: (("chain", "draw"), v) for name, v in samples.stats.items()})
    )


def predictive_groups(
    problem: Problem,
    data: xr.Dataset,
    draws: Draws,
    log_prior: Mapping[str, np.ndarray],
    prior: Draws,
    samples: Samples,
    told: list[Finding],
    *,
    key: Array,
) -> dict[str, xr.Dataset]:
    """Posterior draws and what they say of the data, and how prior draws fare in the solver: pushed
    in one go.

    What cannot be looked at is added to what is `told`.
    """
    model = problem.model
    both = {
        path: np.concatenate([prior[path], v.reshape(-1, *v.shape[2:])])
        for path, v in draws.items()
    }
    flat = {path: v.reshape(-1, *v.shape[2:]) for path, v in draws.items()}
    along = watched(model, problem.inputs, len(next(iter(flat.values()))), after=PRIOR_DRAWS)
    pusher = Pusher(model, problem.inputs, both, observed=problem.observed, key=key, watched=along)
    pushed = pusher.whole(without=("variance", "noise"))
    health = {"ok": pushed.ok[None, :PRIOR_DRAWS], "steps": pushed.steps[None, :PRIOR_DRAWS]}
    stats = xr.Dataset({name: (("chain", "draw"), v) for name, v in health.items()})

    groups = {"posterior": draws_dataset(model, draws)}
    groups["sample_stats"] = with_log_factor(_stats(samples), pushed.log_factor[PRIOR_DRAWS:])

    groups |= mismatch_group({name: v[PRIOR_DRAWS:] for name, v in pushed.mismatch.items()}, groups)
    end = {name: v[PRIOR_DRAWS:] for name, v in pushed.end.items()}
    groups |= end_group(end, groups, float(np.max(np.asarray(problem.inputs.times))))
    if along is not None:
        states = pusher.watched_states
        look = lambda: rates_along_paths(model, problem.inputs, flat, along.times, states)  # noqa: E731
        if (rates := looked_at("vector field", look, told)) is not None:
            rates = rates.assign_coords(
                {model.index: data[model.index].isel({model.index: along.times})}
            )
            groups |= {"vector_field": by_chain(rates, groups)}
    asked = looked_at(
        "inputs of functions", lambda: _fitted_inputs(problem, data, along, pusher), told
    )
    groups |= {} if asked is None else {"function_inputs": asked}
    return groups | {
        **said_of_data(
            pushed, slice(PRIOR_DRAWS, None), groups, ordered(model, data), problem.own_rows
        ),
        "prior": (before := draws_dataset(model, {path: v[None] for path, v in prior.items()})),
        **prior_predictive(pushed, PRIOR_DRAWS, before, ordered(model, data), problem.own_rows),
        "sample_stats_prior": with_coordinates(stats),
        "log_prior": log_prior_group(model, log_prior),
    }


def _fitted_inputs(
    problem: Problem, data: xr.Dataset, along: Watched | None, pusher: Pusher
) -> xr.Dataset | None:
    """The inputs of unknown functions at rows of the data where something was observed."""
    model, index = problem.model, problem.model.index
    seen = [
        data[n].notnull().any([d for d in data[n].dims if d != index]).values
        for n in model.observables
    ]
    observed = np.any(seen, axis=0)
    rows, states = (
        (thinned(observed.size, FUNCTION_ROWS), None)
        if along is None
        else (along.times, pusher.watched_states)
    )
    found = function_inputs(model, problem.inputs, data[index], rows, states)
    return found if found is None else found.isel({index: observed[rows]})


def modes_group(problem: Problem, modes: Modes | None) -> dict[str, xr.Dataset]:
    """The modes by name, best first, with their log density in the unconstrained space, and their
    weights if known.
    """
    if modes is None:
        return {}
    values = jax.jit(jax.vmap(problem.constrain))(modes.positions)
    dataset = draws_dataset(
        problem.model, {path: np.asarray(v)[None] for path, v in values.items()}
    )
    dataset = dataset.isel(chain=0, drop=True).rename(draw="mode")
    dataset = dataset.assign(lp=("mode", modes.log_densities))
    if modes.weights is not None:
        dataset = dataset.assign(
            mode_weight=("mode", modes.weights), mode_weight_se=("mode", modes.weight_errors)
        )
    return {"modes": dataset}


def training_group(curves: dict[str, np.ndarray] | None) -> dict[str, xr.Dataset]:
    """What a descent went through: the loss and its terms, by member and step."""
    if curves is None:
        return {}
    steps, looks = curves["loss"].shape[1], curves["held_out"].shape[1]
    dims = {name: "look" if name == "held_out" else "step" for name in curves}
    dataset = xr.Dataset(
        {name: (("member", dims[name]), values) for name, values in curves.items()}
    )
    at = {"step": np.arange(1, steps + 1), "look": np.arange(1, looks + 1) * (steps // looks)}
    return {"training": dataset.assign_coords(at)}


def data_groups(model: Model, data: xr.Dataset, start: float) -> dict[str, xr.Dataset]:
    """Observables, forcings and what the noise reads; where something is missing, `fitted_data` has
    the gaps.
    """
    known = data[
        [*model.layer.forcings, *(name for name in model.reader.variables if name in data)]
    ]
    known.attrs = {"start": start}
    if has_dates(data, model.index):
        known.attrs[COUNTS_IN] = counted_in(model.reader.index_units)
    observed = ordered(model, data).astype(float)
    observed.attrs = {}
    for dataset in (known, observed):
        for variable in dataset.variables.values():
            variable.attrs = plain_attributes(variable.attrs)
    groups = {"observed_data": where_seen(observed, observed), "constant_data": known}
    return groups if groups["observed_data"] is observed else groups | {"fitted_data": observed}


def ordered(model: Model, data: xr.Dataset) -> xr.Dataset:
    """The observables of a dataset, their dimensions in the order of the model's."""
    return xr.Dataset({name: data[name].transpose(*model.dims(name)) for name in model.observables})


def provenance(model: Model, data: xr.Dataset) -> dict[str, str]:
    """When and by what a fit was made, and of which model and data."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    read = [name for name in model.reader.variables if name in data]
    return {
        "created": now,
        "inference_library": "bayes_dasl",
        "version_python": platform.python_version(),
        **made_with(),
        "data_sha256": fingerprint(
            data[[*dict.fromkeys((*model.observables, *model.layer.forcings, *read))]]
        ),
        "signature": signature(model),
        "bounds": known_bounds(model),
        "shortest_lengths": shortest_lengths(model),
        "solver_settings": json.dumps(solver_settings(model.layer)),
        "unknown_functions": json.dumps(function_names(model.layer)),
    }
