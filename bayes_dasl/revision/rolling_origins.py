"""Leave-future-out: a model forecasts the end of its own data from several origins, as it will be asked to."""

import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from .._jax.keys import as_key, printable
from .._statistics.bridge import bridged, log_mean
from .._statistics.importance import as_rows, largest_pareto_k, total_log_likelihood, weigh
from ..data.datasets import checked_index, fingerprint, observations, place_of, units_of
from ..data.dates import told
from ..errors import DataError, Interrupted
from ..inference import NUTS, AbstractEngine, fit
from ..judgement.held_out_errors import HELD_OUT, along_origins, held_out_errors
from ..judgement.scores import score_each
from ..model import Model, check_data
from ..prediction.forecasts import forecast, is_series
from ..prediction.posterior import draws_of, signature
from ..prediction.predictive import push
from .updates import update

_SHARE = 3  # the last third of the data is forecast


class Window(NamedTuple):
    """What is forecast from one origin.

    Args:
        known: how many rows of the data are known there.
        end: how many rows there are up to the last one that is forecast.
        times: those ahead at which anything was observed.
    """

    known: int
    end: int
    times: np.ndarray


class Known(NamedTuple):
    """What is known at an origin.

    Args:
        rows: how many of the data.
        draws: of the posterior, by path.
        start: of the model.
        fit: of which fit the draws are, themselves or by weights.
    """

    rows: int
    draws: dict[str, np.ndarray]
    start: float
    fit: int


def leave_future_out(
    model: Model,
    data: xr.Dataset,
    *,
    origins: int | Sequence[Any] = 5,
    horizon: int | None = None,
    engine: AbstractEngine | None = None,
    progress: bool | None = None,
    device: str = "auto",
    key: int | Array = 0,
) -> xr.DataTree:
    r"""How well a model forecasts its own series: from several origins, the times ahead of each.

    The model is fitted to the data up to the first origin. At each later one the draws of the last fit are weighed by
    the likelihood of what came since then, as `update` does, and where the weights cannot be trusted ($\hat k$ from 0.7
    on, or worth less than a tenth of the draws) the model is fitted anew, from starts near these draws where the engine
    looks for any.

    `log_density` is $\log p(y_{o+1}, \dots, y_{o+h} \mid y_{\le o})$, the mean over draws of the joint density of all
    data ahead: of noise that looks back, and of a filter, each datum given those before it, also those ahead. What a
    draw says of the data ahead may differ so much between draws that their mean hangs on a few of them: then
    `density_pareto_k` is 0.7 or more. Where the model is fitted anew at the very end of the window, the density is
    bridged between the draws of both fits; elsewhere it is likely too low.

    Args:
        model: the model.
        data: a series, as for `fit`, with the forcings up to its end: those ahead are taken as known.
        origins: how many, which lie evenly over the last third of the times at which anything was observed; or the last
            time that is known at each, numbers or dates.
        horizon: how many of these times are forecast from each origin. Give as many as the forecast will be asked for:
            what forecasts best one time ahead may not do so ten ahead. Unless given, as many as leave no time to two
            origins.
        engine: what fits, `NUTS()` unless given.
        progress: whether a bar is shown; unless told, on a terminal.
        device: as for `fit`.
        key: a whole number or a JAX random key.

    Returns: a tree, for `compare`, `recalibrate`, `save` and `load`. By `origin`, the last time that is known there:
    `log_density`, in nats, of `number` data, from all draws but `failed_draws`; `density_error`, its standard error if
    the draws were independent; `density_pareto_k`, and `bridged` (1 where it was); how the draws were made: `refitted`
    (1 where the model was fitted, as at the first), `update_pareto_k` and `effective_draws` of the weights. By
    `origin`, `observable` and `lead`, from 1 on: `log_score` and `crps`, as `score` has them, each datum by itself,
    mean over replicates, places and members. `time` says when each lead is. The group `held_out` has the error of each
    datum, by which `recalibrate` makes another forecast of this model as wide as its past ones should have been.

    Raises: DataError for rows that are no series, or origins and horizons that the data do not have; Interrupted if the
    user stopped a fit; as `fit`.
    Source: Bürkner, Gabry & Vehtari (2020), Approximate leave-future-out cross-validation for Bayesian time series
    models.
    """
    began = time.perf_counter()
    engine = NUTS() if engine is None else engine
    check_data(model, data)
    data = model.in_own_units(data)
    windows, index = windows_of(model, data, origins, horizon), model.index
    keys = jax.random.split(as_key(key), (len(windows), 2))
    rows, errors, known, fits, since, fitted = [], [], [], 0, 0, None
    for window, (key_fit, key_forecast) in zip(windows, keys, strict=True):
        new = data.isel({index: slice(since, window.known)})
        if fitted is None:
            post = fit(model, new, engine, progress=progress, device=device, key=key_fit)
        else:
            post = update(model, fitted, new, engine=engine, progress=progress, device=device, key=key_fit)
        if post.attrs["interrupted"]:
            raise Interrupted(f"stopped at the origin {told(data[index].values[window.known - 1])}: nothing is kept")
        refitted = post.attrs.get("updated_by", "refit") == "refit"
        if refitted:
            fitted, since, fits = post, window.known, fits + 1
        ahead = data.isel({index: slice(window.known, window.end)})
        fc = forecast(model, post, ahead, key=key_forecast)
        weights = {name: post.attrs.get(name, np.nan) for name in ("update_pareto_k", "effective_draws")}
        rows.append(xr.Dataset({"refitted": int(refitted), **weights}).merge(_by_lead(model, fc, ahead, window)))
        errors.append(held_out_errors(fc, ahead, window.times))
        known.append(Known(window.known, draws_of(model, post), float(post["constant_data"].attrs["start"]), fits))
    joint = [_joint(model, data, at, window, known) for at, window in zip(known, windows, strict=True)]
    rows = [row.assign(density) for row, density in zip(rows, joint, strict=True)]
    found = xr.concat(rows, "origin").assign_coords(_coordinates(model, data, windows))
    found["log_density"].attrs = {"units": "nat"}
    found.attrs = {
        "horizon": len(windows[0].times),
        "index": model.index,
        "data_sha256": fingerprint(data[sorted(model.observables)].isel({model.index: slice(0, windows[-1].end)})),
        "signature": signature(model),
        "engine": repr(engine),
        "key": printable(key),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_time_s": time.perf_counter() - began,
    }
    return xr.DataTree.from_dict({"/": found, HELD_OUT: along_origins(errors)})


def windows_of(model: Model, data: xr.Dataset, origins: int | Sequence[Any], horizon: int | None) -> list[Window]:
    """What is forecast from each origin.

    Raises: DataError for rows that are no series, or what the data do not have.
    """
    index = model.index
    values = checked_index(data, index)
    if not is_series(model, data):
        raise DataError(
            f"rows along '{index}' have no future: leave-future-out is for series. Of rows in any order, leave out "
            "each in turn: ArviZ's loo and compare take what bd.fit returns"
        )
    seen = np.zeros(len(values), bool)
    for name in model.observables:
        there = data[name].notnull()
        seen |= there.any([dim for dim in there.dims if dim != index]).values
    times = np.unique(values[seen])
    known, horizon = _chosen(times, data, index, origins, horizon)
    rows = np.searchsorted(values, times, side="right")
    return [Window(int(rows[k - 1]), int(rows[k + horizon - 1]), times[k : k + horizon]) for k in known]


def _chosen(
    times: np.ndarray, data: xr.Dataset, index: str, origins: int | Sequence[Any], horizon: int | None
) -> tuple[np.ndarray, int]:
    """How many of the observed times are known at each origin, and how many are forecast."""
    number = len(times)
    if horizon is not None and not (isinstance(horizon, (int, np.integer)) and horizon > 0):
        raise DataError(f"horizon is how many times are forecast, a whole number from 1 on, not {horizon!r}")
    if isinstance(origins, (int, np.integer)):
        if not 0 < origins < number:
            raise DataError(f"there can be 1 to {number - 1} origins in {number} observed times, not {origins}")
        horizon = int(horizon or max(1, number // _SHARE // origins))
        first, last = number - max(number // _SHARE, horizon), number - horizon
        known = np.unique(np.round(np.linspace(first, last, min(int(origins), last - first + 1))).astype(int))
    else:
        asked = np.asarray([place_of(data, index, origin) for origin in origins])
        known = np.searchsorted(times, asked, side="right")
        if not len(known) or (np.diff(known) < 1).any():
            raise DataError("origins must rise, with data between each two of them")
        horizon = int(horizon or np.diff(known, append=number).min())
    if known[0] < 1 or known[-1] + max(horizon, 1) > number or horizon < 1:
        raise DataError(
            f"{horizon} observed times are to be forecast from each origin, but the data have {known[0]} before the "
            f"first one and {number - known[-1]} after the last one: take other origins, or another horizon"
        )
    return known, horizon


def _joint(model: Model, data: xr.Dataset, at: Known, window: Window, others: Sequence[Known]) -> dict[str, Any]:
    """The joint density of all data of a window, given those before it."""
    data = data.isel({model.index: slice(0, window.end)})
    inputs, observed = model.inputs(data, start=at.start), {}
    for name in model.observables:
        values = observations(data, name, dims=model.dims(name)).copy()
        values[: window.known] = np.nan
        observed[name] = jnp.asarray(values)

    def of_each(draws: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        pushed = push(model, inputs, draws, observed=observed)
        return total_log_likelihood(pushed.log_likelihood, observed), np.asarray(pushed.ok)

    each, ok = of_each(at.draws)
    found, pareto_k = log_mean(each[ok]), weigh(each[ok], as_rows(at.draws)[ok]).pareto_k if ok.any() else np.inf
    # Draws of another fit that know just these data, too; those of the same one would say nothing new.
    then = [other for other in others if other.rows == window.end and other.fit != at.fit]
    if then and ok.any() and pareto_k >= largest_pareto_k(len(each)):
        after, sound = of_each(then[0].draws)
        found = bridged(each[ok], after[sound]) if sound.any() else found
    else:
        then = []
    return {
        "log_density": found.value,
        "density_error": found.error,
        "density_pareto_k": pareto_k,
        "bridged": len(then),
        "number": int(sum((~np.isnan(np.asarray(y))).sum() for y in observed.values())),
        "failed_draws": int((~ok).sum()),
    }


def _by_lead(model: Model, fc: xr.DataTree, ahead: xr.Dataset, window: Window) -> xr.Dataset:
    """Scores of each observable at each lead, each datum by itself."""
    rows = checked_index(ahead, model.index)
    of_each = score_each(fc, ahead)
    found = {}
    for score, of_observables in of_each.items():
        means = np.full((len(model.observables), len(window.times)), np.nan)
        for i, name in enumerate(model.observables):
            values = of_observables[name].values
            for lead, when in enumerate(window.times):
                here = values[rows == when]
                if np.isfinite(here).any():
                    means[i, lead] = np.nanmean(here)
        found[score] = (("observable", "lead"), means)
    return xr.Dataset(found)


def _coordinates(model: Model, data: xr.Dataset, windows: Sequence[Window]) -> dict[str, Any]:
    index = data[model.index]
    attributes = {name: v for name, v in index.attrs.items() if name in ("units", "long_name")}
    units = units_of(data)
    return {
        "origin": ("origin", np.array([index.values[window.known - 1] for window in windows]), attributes),
        "observable": list(model.observables),
        "units": ("observable", [units[name] for name in model.observables]),
        "lead": np.arange(1, 1 + len(windows[0].times)),
        "time": (("origin", "lead"), np.stack([window.times for window in windows]), attributes),
    }
