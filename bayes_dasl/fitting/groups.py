"""The groups and attributes of a fitted DataTree: draws, predictions, data and provenance."""

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

# Number of prior draws in the prior groups.
PRIOR_DRAWS = 500


def looked_at[T](subject: str, look: Callable[[], T], findings: list[Finding]) -> T | None:
    """Call a function, and turn an error into a warning and a finding.

    An error in an analysis of the draws must not discard the draws.

    Args:
        subject: the name of the analysis, for the warning and the finding.
        look: the function, without arguments.
        findings: a list to which the finding is appended.

    Returns:
        The return value of `look`, or None if it raises.
    """
    try:
        return look()
    except Exception as error:
        findings.append(lost_look(subject, error))
        warnings.warn(f"{subject} {findings[-1].message}", stacklevel=2)
        return None


def without_chains(draws: Draws) -> Draws:
    """Merge chains and draws into one axis: `(chain, draw, …)` becomes `(chain · draw, …)`.

    Args:
        draws: arrays by path.
    """
    return {path: v.reshape(-1, *v.shape[2:]) for path, v in draws.items()}


def _stats_dataset(stats: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Return statistics of draws as a dataset with the dimensions `chain` and `draw`."""
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
    """Predict the data for posterior and prior draws.

    Args:
        problem: the posterior.
        data: the data.
        draws: posterior draws `(chain, draw, …)` by path.
        log_prior: log prior `(chain, draw)` of each random leaf, by path.
        prior: prior draws `(draw, …)` by path.
        samples: the result of the engine, for the statistics of its draws.
        findings: a list to which failed analyses are appended.
        key: random seed of the observation noise.

    Returns:
        Datasets by name of the group: `posterior`, `prior`, their statistics, their predictions,
        and optional groups such as `vector_field`.
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

    # 4. Predictions of the data by posterior draws, and prior draws with their predictions.
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
    """Return the inputs of unknown functions at times with at least one datum.

    Args:
        problem: the posterior.
        data: the data.
        along: the draws and times at which `pusher` stored states, or None if it stored none.
        pusher: the program that made the predictions.

    Returns:
        A dataset over the index, or None if no input is known.
    """
    model = problem.model
    index = problem.model.index
    seen = [
        data[n].notnull().any([d for d in data[n].dims if d != index]).values
        for n in model.observables
    ]
    observed = np.any(seen, axis=0)
    # If states were stored for the vector field, use the same times here.
    if along is None:
        rows = thinned(observed.size, FUNCTION_ROWS)
        states = None
    else:
        rows = along.times
        states = pusher.watched_states
    found = function_inputs(model, problem.inputs, data[index], rows, states)
    return found if found is None else found.isel({index: observed[rows]})


def modes_group(problem: Problem, modes: Modes | None) -> dict[str, xr.Dataset]:
    """Return the group `modes`, or an empty dict without modes.

    The variable `lp` is the log density of the unconstrained parameters. With weights,
    `mode_weight` and `mode_weight_se` are posterior probabilities and their standard errors.

    Args:
        problem: the posterior.
        modes: the modes in the unconstrained space, best first.
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
    """Return the group `training` of a gradient descent, or an empty dict without curves.

    It has the loss and its terms by member and step. The variable `held_out` is the loss that
    selects the best position. It is evaluated every 50 steps, along the dimension `look`.

    Args:
        curves: `(member, step)` by name, and `held_out` as `(member, look)`.
    """
    if curves is None:
        return {}
    # The loss has a value per step, and `held_out` one per window of steps.
    steps = curves["loss"].shape[1]
    looks = curves["held_out"].shape[1]
    dims = {name: "look" if name == "held_out" else "step" for name in curves}
    dataset = xr.Dataset(
        {name: (("member", dims[name]), values) for name, values in curves.items()}
    )
    at = {"step": np.arange(1, steps + 1), "look": np.arange(1, looks + 1) * (steps // looks)}
    return {"training": dataset.assign_coords(at)}


def data_groups(model: Model, data: xr.Dataset, start: float) -> dict[str, xr.Dataset]:
    """Return the groups of the data: `observed_data`, `constant_data` and maybe `fitted_data`.

    `observed_data` has the observables without missing values. `constant_data` has the forcings and
    the variables that the noise reads. If data are missing, `fitted_data` has the observables with
    their gaps.

    Args:
        model: the model.
        data: the data.
        start: the start time of the layer, which becomes an attribute.
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
    """Return the observables of a dataset, with dimensions in the order of the model."""
    return xr.Dataset({name: data[name].transpose(*model.dims(name)) for name in model.observables})


def provenance(model: Model, data: xr.Dataset) -> dict[str, str]:
    """Return attributes of a fit by name: creation time, versions, model and hash of the data."""
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
