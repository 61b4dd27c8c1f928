"""The groups of a posterior DataTree: draws, predictions, data and provenance."""

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
    constraint_residual_group,
    draws_dataset,
    end_group,
    known_bounds,
    log_prior_group,
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

# Draws of the prior groups.
PRIOR_DRAWS = 500


def looked_at[T](subject: str, look: Callable[[], T], findings: list[Finding]) -> T | None:
    """Return the result of a look at the draws, or nothing if it raises.

    An error becomes a warning and a finding, since it must not cost the draws.
    """
    try:
        return look()
    except Exception as error:
        findings.append(lost_look(subject, error))
        warnings.warn(f"{subject} {findings[-1].message}", stacklevel=2)
        return None


def without_chains(draws: Draws) -> Draws:
    """Return draws `(draw, …)` from draws `(chain, draw, …)`."""
    return {path: v.reshape(-1, *v.shape[2:]) for path, v in draws.items()}


def _stats_dataset(stats: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Return statistics `(chain, draw)` as a dataset."""
    dataset = xr.Dataset({name: (("chain", "draw"), values) for name, values in stats.items()})
    return with_coordinates(dataset)


def predictive_groups(
    problem: Problem,
    data: xr.Dataset,
    draws: Draws,
    log_prior: Mapping[str, np.ndarray],
    prior: Draws,
    samples: Samples,
    findings: list[Finding],
    *,
    key: Array,
) -> dict[str, xr.Dataset]:
    """Return posterior and prior draws with their predictions of the data.

    Args:
        problem: the posterior.
        data: the data.
        draws: posterior draws `(chain, draw, …)` by path.
        log_prior: log prior of each draw by path.
        prior: prior draws `(draw, …)` by path.
        samples: the engine's draws, for their statistics.
        findings: a list to which failures are appended.
        key: random seed of the observation noise.
    """
    model = problem.model
    observed = ordered(model, data)
    # 1. One program predicts for prior and posterior draws together.
    flat = without_chains(draws)
    both = {path: np.concatenate([prior[path], values]) for path, values in flat.items()}
    along = watched(model, problem.inputs, len(next(iter(flat.values()))), after=PRIOR_DRAWS)
    pusher = Pusher(model, problem.inputs, both, observed=problem.observed, key=key, watched=along)
    pushed = pusher.whole(without=("variance", "noise"))

    # 2. Posterior draws: statistics, constraint residuals and the last states.
    stats = _stats_dataset(samples.stats)
    groups = {
        "posterior": draws_dataset(model, draws),
        "sample_stats": with_log_factor(stats, pushed.log_factor[PRIOR_DRAWS:]),
    }
    groups |= constraint_residual_group(
        {name: v[PRIOR_DRAWS:] for name, v in pushed.constraint_residual.items()}, groups
    )
    end = {name: v[PRIOR_DRAWS:] for name, v in pushed.end.items()}
    groups |= end_group(end, groups, float(np.max(np.asarray(problem.inputs.times))))

    # 3. Learned vector fields, and the inputs of unknown functions.
    if along is not None:
        states = pusher.watched_states
        look = lambda: rates_along_paths(model, problem.inputs, flat, along.times, states)  # noqa: E731
        if (rates := looked_at("vector field", look, findings)) is not None:
            times = data[model.index].isel({model.index: along.times})
            rates = rates.assign_coords({model.index: times})
            groups |= {"vector_field": by_chain(rates, groups)}
    inputs = looked_at(
        "inputs of functions", lambda: _fitted_inputs(problem, data, along, pusher), findings
    )
    groups |= {} if inputs is None else {"function_inputs": inputs}

    # 4. Predictions of the data, and the prior draws with theirs.
    before = draws_dataset(model, {path: v[None] for path, v in prior.items()})
    health = {"ok": pushed.ok[None, :PRIOR_DRAWS], "steps": pushed.steps[None, :PRIOR_DRAWS]}
    return groups | {
        **said_of_data(pushed, slice(PRIOR_DRAWS, None), groups, observed, problem.own_rows),
        "prior": before,
        **prior_predictive(pushed, PRIOR_DRAWS, before, observed, problem.own_rows),
        "sample_stats_prior": _stats_dataset(health),
        "log_prior": log_prior_group(model, log_prior),
    }


def _fitted_inputs(
    problem: Problem, data: xr.Dataset, along: Watched | None, pusher: Pusher
) -> xr.Dataset | None:
    """Return the inputs of unknown functions at times with at least one datum."""
    model = problem.model
    index = problem.model.index
    seen = [
        data[n].notnull().any([d for d in data[n].dims if d != index]).values
        for n in model.observables
    ]
    observed = np.any(seen, axis=0)
    # Where states were kept for the vector field, the same times serve here.
    if along is None:
        rows = thinned(observed.size, FUNCTION_ROWS)
        states = None
    else:
        rows = along.times
        states = pusher.watched_states
    found = function_inputs(model, problem.inputs, data[index], rows, states)
    return found if found is None else found.isel({index: observed[rows]})


def modes_group(problem: Problem, modes: Modes | None) -> dict[str, xr.Dataset]:
    """Return the modes, best first, with their log density and their weights if known.

    The log density is the one of unconstrained parameters.
    """
    if modes is None:
        return {}
    values = jax.jit(jax.vmap(problem.constrain))(modes.positions)
    # A dataset of draws in one chain, whose draws are the modes.
    one_chain = {path: np.asarray(v)[None] for path, v in values.items()}
    dataset = draws_dataset(problem.model, one_chain)
    dataset = dataset.isel(chain=0, drop=True).rename(draw="mode")
    dataset = dataset.assign(lp=("mode", modes.log_densities))
    if modes.weights is not None:
        dataset = dataset.assign(
            mode_weight=("mode", modes.weights), mode_weight_se=("mode", modes.weight_errors)
        )
    return {"modes": dataset}


def training_group(curves: dict[str, np.ndarray] | None) -> dict[str, xr.Dataset]:
    """Return the loss of a gradient descent and its terms, by member and step."""
    if curves is None:
        return {}
    # The loss has a value per step, the judged loss one per window.
    steps = curves["loss"].shape[1]
    looks = curves["held_out"].shape[1]
    dims = {name: "look" if name == "held_out" else "step" for name in curves}
    dataset = xr.Dataset(
        {name: (("member", dims[name]), values) for name, values in curves.items()}
    )
    at = {"step": np.arange(1, steps + 1), "look": np.arange(1, looks + 1) * (steps // looks)}
    return {"training": dataset.assign_coords(at)}


def data_groups(model: Model, data: xr.Dataset, start: float) -> dict[str, xr.Dataset]:
    """Return observables, forcings and the data that noise reads.

    If data are missing, `fitted_data` has the observables with their gaps.
    """
    known = data[
        [*model.layer.forcings, *(name for name in model.reader.variables if name in data)]
    ]
    known.attrs = {"start": start}
    if has_dates(data, model.index):
        known.attrs[COUNTS_IN] = counted_in(model.reader.index_units)
    observed = ordered(model, data).astype(float)
    observed.attrs = {}
    # Attributes must be plain values, or NetCDF cannot hold them.
    for dataset in (known, observed):
        for variable in dataset.variables.values():
            variable.attrs = plain_attributes(variable.attrs)
    groups = {"observed_data": where_seen(observed, observed), "constant_data": known}
    return groups if groups["observed_data"] is observed else groups | {"fitted_data": observed}


def ordered(model: Model, data: xr.Dataset) -> xr.Dataset:
    """Return the observables of a dataset, with dimensions in the model's order."""
    return xr.Dataset({name: data[name].transpose(*model.dims(name)) for name in model.observables})


def provenance(model: Model, data: xr.Dataset) -> dict[str, str]:
    """Return the attributes of a fit on its time, versions, model and data."""
    read = [name for name in model.reader.variables if name in data]
    used = dict.fromkeys((*model.observables, *model.layer.forcings, *read))
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "inference_library": "bayes_dasl",
        "version_python": platform.python_version(),
        **made_with(),
        "data_sha256": fingerprint(data[[*used]]),
        "signature": signature(model),
        "bounds": known_bounds(model),
        "shortest_lengths": shortest_lengths(model),
        "solver_settings": json.dumps(solver_settings(model.layer)),
        "unknown_functions": json.dumps(function_names(model.layer)),
    }
