"""Mixtures of forecasts of several models."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int

from ..data.censoring import ABOVE, BELOW
from ..data.dates import as_attribute
from ..errors import MismatchError
from ..prediction.datatree import with_coordinates
from ..scores.draws_at_data import merged
from ..scores.matching import check_forecast, fitted_between

_MOMENTS = ("conditional_mean", "conditional_variance")
_CHAINS = ("chain", "draw")
_DRAWN = ("predictions", *_MOMENTS)


def mixture(forecasts: Mapping[str, xr.DataTree], weights: Mapping[str, float]) -> xr.DataTree:
    r"""Mix forecasts of several models: $p(y) = \sum_k w_k\, p_k(y)$.

    Here $p_k$ is the forecast of model k and $w_k$ its weight. Each forecast contributes evenly
    spaced draws in proportion to its weight; nothing is random. Draws keep their dependence over
    times and observables, and draws with a failed solve are left out. `decompose` counts
    differences between models as epistemic. A forecast may have several predictive draws for each
    parameter vector, as from `bd.DeepEnsemble`. Then it contributes predictive draws, each with the
    moments of its parameter vector.

    Args:
        forecasts: the result of `forecast` for each model, by name, at the same times.
        weights: weights by name, such as `compare(…).weights`, which are divided by their sum.

    Returns:
        A tree as from `forecast`, of one chain. Its groups are `predictions`, `conditional_mean`,
        `conditional_variance`, `noise`, `sample_stats_predictions` and `unobserved`, as far as all
        forecasts have them. `model_of_draw` in `sample_stats_predictions` is the index of the model
        of each draw. The noise of an observable is kept if it has the same distribution in all
        models. Otherwise `score` uses a kernel density of the draws, and says so. Groups of a
        single model, such as `posterior` or `vector_field`, are left out: `diagnose` and `report`
        take a mixture as a competitor. The attribute `mixture` has the weights.

    Raises:
        MismatchError: if some are no forecasts; if they differ in times, observables, places, units
            or scenarios; if one is a what-if or has no finite draw; or if weights are invalid.

    Example:
        ```python
        forecasts = {name: bd.forecast(model, posts[name], test) for name, model in models.items()}
        mixed = bd.mixture(forecasts, {"science": 0.6, "hybrid": 0.4})
        print(bd.score(mixed, test))
        ```
    """
    # 1. Forecasts that can be mixed, and their weights.
    shares = _normalised_weights(forecasts, weights)
    first = next(iter(forecasts.values()))
    for name, fc in forecasts.items():
        check_forecast(fc, *_DRAWN)
        if fc.attrs.get("what_if", 0):
            raise MismatchError(
                f"'{name}' is a what-if, by no model that was fitted: mix forecasts of fitted "
                "models"
            )
        if fc.attrs.get("scenario") != first.attrs.get("scenario"):
            raise MismatchError(
                f"'{name}' is of another scenario than others: mix forecasts of the same one"
            )
        _refuse_unlike_forecast(
            name, first["predictions"].to_dataset(), fc["predictions"].to_dataset()
        )
    # 2. The number of draws from each, by its weight.
    sizes = [fc["predictions"].sizes for fc in forecasts.values()]
    draws = max(size["chain"] * size["draw"] for size in sizes)
    # Rounding the cumulative sum keeps the total.
    numbers = np.diff(np.round(np.cumsum([*shares.values()]) * draws).astype(int), prepend=0)
    whole = [_usable_draws(name, fc) for name, fc in forecasts.items()]
    drawn = [size["draw"] for size in sizes]
    # 3. Groups that all forecasts have.
    groups = {}
    for group in (*_DRAWN, "noise", "sample_stats_predictions", "unobserved"):
        if all(group in fc.children for fc in forecasts.values()):
            held = [fc[group].to_dataset() for fc in forecasts.values()]
            names = [name for name in held[0] if all(name in each for each in held)]
            names = _same_noise(held) if group == "noise" else names
            groups[group] = _pooled_draws([each[names] for each in held], whole, numbers, drawn)
    of_draw = ("chain", "draw"), np.repeat(np.arange(len(shares)), numbers)[None]
    stats = groups.get("sample_stats_predictions", xr.Dataset())
    groups["sample_stats_predictions"] = stats.assign(model_of_draw=of_draw)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "mixture": json.dumps({name: round(share, 6) for name, share in shares.items()}),
        **_fitted_span(forecasts),
        **{
            name: first.attrs[name]
            for name in ("members", "scenario", "series")
            if name in first.attrs
        },
    }
    return tree


def _normalised_weights(
    forecasts: Mapping[str, xr.DataTree], weights: Mapping[str, float]
) -> dict[str, float]:
    """Return the weights in the order of the forecasts, with a sum of one.

    Raises:
        MismatchError: if names differ, or weights are negative, not finite or all zero.
    """
    if not isinstance(forecasts, Mapping) or not forecasts or {*forecasts} != {*weights}:
        named = ", ".join(map(str, weights)), ", ".join(map(str, forecasts)) or "nothing"
        raise MismatchError(
            f"a mixture needs a weight for each forecast: there are {named[0]} and {named[1]}"
        )
    found = np.array([weights[name] for name in forecasts], float)
    if not (np.isfinite(found).all() and (found >= 0).all() and found.sum() > 0):
        raise MismatchError(
            f"weights are numbers from 0 on, of which one is positive, not {dict(weights)}"
        )
    return dict(zip(map(str, forecasts), map(float, found / found.sum()), strict=True))


def _refuse_unlike_forecast(name: str, one: xr.Dataset, other: xr.Dataset) -> None:
    """Check that two forecasts can be mixed.

    Args:
        name: name of the second forecast.
        one: predictions of the first forecast.
        other: predictions of the second forecast.

    Raises:
        MismatchError: if observables, times, places, units or limits of censoring differ.
    """
    if {*one.data_vars} != {*other.data_vars}:
        raise MismatchError(
            f"'{name}' forecasts {', '.join(map(str, other))}, others {', '.join(map(str, one))}"
        )
    for observable, variable in one.data_vars.items():
        theirs = other[observable]
        dims, ours = (
            tuple(d for d in v.dims if d not in ("chain", "draw")) for v in (theirs, variable)
        )
        if dims != ours or not all(np.array_equal(one[dim], other[dim]) for dim in dims):
            raise MismatchError(
                f"'{name}' forecasts '{observable}' at other times or places: forecast at the same"
            )
        for what in ("units", BELOW, ABOVE):
            kept, own = (v.attrs.get(what, "none") for v in (variable, theirs))
            if kept != own:
                raise MismatchError(
                    f"'{name}' forecasts '{observable}' with {what} {own}, others with {kept}"
                )


def _same_noise(held: Sequence[xr.Dataset]) -> list[str]:
    """Return the noise parameters of observables with the same noise distribution in all forecasts.

    Args:
        held: the group `noise` of each forecast.

    Returns:
        Names of variables of the group.
    """

    def distributions(group: xr.Dataset) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for name, variable in group.data_vars.items():
            of_observable = found.setdefault(variable.attrs["observable"], {})
            of_observable[str(name)] = variable.attrs["distribution"]
        return found

    first, *others = map(distributions, held)
    same = [own for o, own in first.items() if all(other.get(o) == own for other in others)]
    return [name for own in same for name in own]


def _usable_draws(name: str, fc: xr.DataTree) -> Int[np.ndarray, " draw"]:
    """Return the indices of draws without a failed solve, over all chains.

    A draw is usable if its predictions are finite wherever any draw is finite.

    Args:
        name: name of the forecast.
        fc: the forecast.

    Raises:
        MismatchError: if no draw is usable.
    """
    found: Any = True
    for variable in fc["predictions"].to_dataset().data_vars.values():
        flat = np.isfinite(merged(variable))
        found &= flat[:, flat.any(axis=0)].all(axis=1) & flat.any(axis=1)
    if not np.any(found):
        raise MismatchError(
            f"the solver fails in all draws of '{name}': leave it out of the mixture"
        )
    return np.flatnonzero(found)


def _pooled_draws(
    held: Sequence[xr.Dataset],
    whole: Sequence[Int[np.ndarray, " _"]],
    numbers: Int[np.ndarray, " forecast"],
    predictive: Sequence[int],
) -> xr.Dataset:
    """Join evenly spaced draws of several forecasts as one chain.

    Attributes are kept if all forecasts have them with the same value.

    Args:
        held: the same group of each forecast.
        whole: indices of the usable predictive draws of each forecast.
        numbers: number of draws to take from each forecast.
        predictive: number of predictive draws per chain of each forecast. A group may have one draw
            for several adjacent predictive draws.
    """
    # 1. Predictive draws for each draw of the group, and the predictive draws that are taken.
    variables = {}
    repeated = [
        n // group.sizes["draw"] if group.data_vars else 1
        for n, group in zip(predictive, held, strict=True)
    ]
    # From the middle of equal parts: repetitions of a member lie in the order of their spread.
    taken = [
        i[((np.arange(n) + 0.5) * len(i) / max(n, 1)).astype(int)]
        for i, n in zip(whole, numbers, strict=True)
    ]
    # 2. Bring the variables of all forecasts to the same dimensions, and take their draws.
    for name in held[0].data_vars:
        each = [group[name] for group in held]
        sizes = {dim: v.sizes[dim] for v in each for dim in v.dims if dim not in _CHAINS}
        alike = [v.expand_dims({d: n for d, n in sizes.items() if d not in v.dims}) for v in each]
        flat = [v.transpose(*_CHAINS, *sizes).values.reshape(-1, *sizes.values()) for v in alike]
        drawn = [v[rows // each] for v, rows, each in zip(flat, taken, repeated, strict=True)]
        variables[name] = (
            (*_CHAINS, *sizes),
            np.concatenate(drawn)[None],
            _agreed([v.attrs for v in each]),
        )
    coords = held[0].drop_dims(_CHAINS, errors="ignore").coords
    return with_coordinates(xr.Dataset(variables, coords))


def _agreed(attributes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the attributes that are the same in all of the given dicts."""
    first, *others = attributes
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }


def _fitted_span(forecasts: Mapping[str, xr.DataTree]) -> dict[str, float | str]:
    """Return first and last time of the fitted data of all models together.

    Returns:
        The attributes `train_start` and `train_end`, as far as they are known.
    """
    starts, ends = zip(*map(fitted_between, forecasts.values()), strict=True)
    found = {}
    for name, values, pick in (("train_start", starts, min), ("train_end", ends, max)):
        known = [value for value in values if value is not None]
        if known:
            found[name] = as_attribute(np.asarray(pick(known)))
    return found
