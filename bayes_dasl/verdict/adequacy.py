"""Adequacy of a model: its residuals, held-out data, its prior, and better forecasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from .._findings import Finding, borne_out, leaves_unshown, model_finding
from .._statistics.convergence import thinned
from ..data.censoring import alike, completed
from ..data.datasets import FILLED, index_of
from ..data.gaps import filled_between
from ..errors import MismatchError
from ..prediction.conditional import conditional
from ..prediction.posterior import fitted_observables, known_inputs, with_what_is_censored
from ..scores.baselines import baseline_ensembles
from ..scores.draws_at_data import covered, finite, merged
from ..scores.matching import (
    fitted_between,
    fitted_rows,
    held_out,
    in_units_of_forecast,
    matched,
    refuse_other_rows,
    shared,
)
from .coverage import coverage_finding, finite_at, scorable
from .extrapolation import extrapolation_findings
from .leads import against_baseline, against_competitor, lead_of
from .outlying import outlying_findings
from .prior_findings import prior_findings
from .remedies import Noise
from .residuals import NUMBER, Members, residual_findings

# Draws that replicate the training data, and replicates of held-out data.
_DRAWS, _REPLICATES = 1000, 500
# The fewest values of an observable that are tested.
_FEWEST = 8
# Coverage confirms the spread of draws only if draws twice as wide would be covered as well with a
# probability below this one.
_WIDER = 0.1
# Groups of a forecast with the moments of each draw.
_MOMENTS = ("conditional_mean", "conditional_variance")


def adequacy_findings(
    post: xr.DataTree,
    fc: xr.DataTree | None,
    test: xr.Dataset | None,
    competitors: Mapping[str, xr.DataTree],
) -> Iterator[Finding]:
    r"""Return findings on the model rather than on its sampling, as a forecast and data allow.

    Each test compares a statistic of the data with the same statistic of replicates, which are
    simulated from the model. The share of replicates beyond the data is the probability that a
    sound model does worse. Residuals of training data are differences from the mean of all draws.
    Residuals of a replicate $y_\theta$ are $z = (y_\theta - \mu_\theta) / \sigma_\theta$, with the
    mean and standard deviation of its own draw $\theta$. No fit has reduced them.

    Args:
        post: the posterior.
        fc: a forecast from it, if there is one.
        test: the held-out data, if there are any.
        competitors: forecasts of other models, by name.

    Returns:
        Findings on the prior, on groups of a population, and on the forecast if there is one.

    Source: Gelman, Meng & Stern (1996), Posterior predictive assessment; Evans & Moshonov (2006)
    for the prior.
    """
    yield from prior_findings(post)
    yield from outlying_findings(post)
    if fc is not None:
        yield from forecast_findings(post, fc, test, competitors)


def forecast_findings(
    post: xr.DataTree,
    fc: xr.DataTree,
    test: xr.Dataset | None,
    competitors: Mapping[str, xr.DataTree],
) -> Iterator[Finding]:
    """Return findings on a forecast or mixture, at the times of fitted and held-out data.

    Args:
        post: the posterior.
        fc: the forecast, or a mixture of forecasts.
        test: the held-out data, if there are any.
        competitors: forecasts of other models, by name.

    Returns:
        Findings on residuals, held-out data and extrapolation.
    """
    train = fitted_observables(post)
    if (fitted := fitted_rows(with_what_is_censored(post), fitted_between(fc))) is not None:
        yield from _training_findings(fc, fitted, _filled_forcings(post))
    unseen = None
    if test is not None:
        test = in_units_of_forecast(fc, test)
        refuse_other_rows(known_inputs(post), test, fitted_between(fc))
        unseen = held_out(train, test, fitted_between(fc))
        yield from _held_out_findings(fc, train, unseen, competitors)
    yield from extrapolation_findings(post, fc, unseen)


def crps_apart(
    post: xr.DataTree, fc: xr.DataTree, other: xr.DataTree, test: xr.Dataset
) -> tuple[float, float, int]:
    """Return the difference between the CRPS of two forecasts, relative to the CRPS of the first.

    Args:
        post: the posterior of the first forecast.
        fc: the first forecast.
        other: the second forecast.
        test: the held-out data; fitted values in it are ignored.

    Returns:
        The difference, its standard error and the number of values. The difference is positive if
        the second forecast is better. The result is NaN, NaN and 0 if the forecasts share no value.
    """
    train, test = fitted_observables(post), in_units_of_forecast(fc, test)
    unseen = held_out(train, test, fitted_between(fc))
    try:
        theirs, both = matched(other, matched(fc, unseen)[1])
        ours = matched(fc, both)[0]
    except MismatchError:
        return np.nan, np.nan, 0
    return lead_of(ours, theirs, both)


def _filled_forcings(post: xr.DataTree) -> str:
    """Return the beginning of a remedy that names forcings with filled gaps; "" without any."""
    index = index_of(fitted_observables(post))
    known = known_inputs(post)
    said = []
    for name, forcing in known.data_vars.items():
        gaps = filled_between(forcing, *forcing[index].values[[0, -1]])
        number = "1 gap" if gaps == 1 else f"{gaps} gaps"
        if gaps:
            total = forcing.attrs[FILLED]
            said.append(f"{name} ({number} in the period of the fit; in all {total})")
    first = "first see whether filled values of a forcing explain it"
    return f"{first}: {', '.join(said)}. Else " if said else ""


def _training_findings(fc: xr.DataTree, train: xr.Dataset, filled: str = "") -> Iterator[Finding]:
    """Yield findings on the residuals of the fitted data.

    Args:
        fc: the forecast.
        train: the fitted data.
        filled: the beginning of each remedy, from `_filled_forcings`.
    """
    found = _with_moments(fc, train)
    population = "members" in fc.attrs
    looked_at = (NUMBER + population) * len(found)
    sound, number, left_out = True, 0, 0
    for name, (drawn, observed, mean, variance) in found.items():
        seen = np.isfinite(observed)
        # 1. Draws with finite moments, and data with noise: the variance of a datum may be zero, as
        # for a river that is dry in a drought.
        ok = finite(drawn) & finite(mean) & finite(variance) & (variance > 0).any(axis=1)
        seen &= (variance > 0)[ok].all(axis=0)
        if seen.sum() < _FEWEST:
            continue
        if not ok.any():
            yield model_finding(
                "warning",
                f"residuals of {name}",
                "not looked at: no draw of the forecast has a finite variance",
                "noise without a variance, such as bd.StudentTNoise with df below 2, cannot be "
                "judged by residuals",
            )
            continue
        # 2. Compare residuals of the data with those of a thousand draws.
        left_out = max(left_out, int((~ok).sum()))
        number += int(seen.sum())
        some = np.flatnonzero(ok)[thinned(int(ok.sum()), _DRAWS)]
        drawn, mean, variance = (each[some][:, seen] for each in (drawn, mean, variance))
        noise = Noise.of(fc, name, observed)
        members = _members_of_data(fc, name, seen) if population else None
        for finding in residual_findings(
            name, drawn, observed[seen], mean, np.sqrt(variance), looked_at, noise, members
        ):
            sound = False
            yield replace(finding, remedy=f"{filled}{finding.remedy}")
    if sound and number:
        lost = f", without {left_out} draws that have no finite mean and variance"
        without = lost if left_out else ""
        message = f"the residuals of {number} values are like those that the model draws{without}"
        yield model_finding("good", "training data", message)


def _members_of_data(fc: xr.DataTree, name: str, seen: np.ndarray) -> Members | None:
    """Return the groups of an observable's data; None if the observable has no groups.

    Args:
        fc: a forecast of a population.
        name: the observable.
        seen: whether to include each datum, in the order of `_with_moments`.
    """
    dim = str(fc.attrs["members"])
    predictions = fc["predictions"].to_dataset()
    if dim not in predictions[name].dims:
        return None
    like = predictions[name].isel({"chain": 0, "draw": 0, index_of(predictions): 0})
    labels = like[dim].values.tolist()
    which = xr.DataArray(np.arange(len(labels)), dims=dim).broadcast_like(like.drop_vars(dim))
    of = np.repeat(which.transpose(*like.dims).values.ravel(), seen.size // like.size)
    return Members(dim, tuple(map(str, labels)), of[seen])


def _with_moments(
    fc: xr.DataTree, data: xr.Dataset
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Return draws, observations, and the mean and variance of each draw, by observable.

    A censored datum is replaced by a random draw within its bounds. The dict is empty if the
    forecast has none of the times.

    Args:
        fc: the forecast.
        data: the data.

    Returns:
        Draws `(draw, datum)`, observations `(datum,)`, means `(draw, datum)` and variances
        `(draw, datum)`, by observable.
    """
    try:
        predictions, noise, common = shared(fc, data)
        moments = [shared(_as_predictions(fc, group), data)[0] for group in _MOMENTS]
    except MismatchError:
        return {}
    if "members" in fc.attrs:
        # Put the time last, so that neighbouring data belong to one group.
        last = ..., index_of(common)
        predictions, common, *moments = (
            each.transpose(*last) for each in (predictions, common, *moments)
        )
    found = {}
    for name, variable in predictions.data_vars.items():
        draws, mean, variance = map(merged, (variable, *(group[name] for group in moments)))
        observed = completed(draws, common[name])
        found[str(name)] = draws, observed, *_moments_of_draws(mean, variance, variable, noise)
    return found


def _moments_of_draws(
    mean: np.ndarray, variance: np.ndarray, predictions: xr.DataArray, noise: xr.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and variance of a datum in each predictive draw, `(draw, datum)`.

    Args:
        mean: the means in each posterior draw, `(posterior draw, datum)`.
        variance: the variances in each posterior draw, `(posterior draw, datum)`.
        predictions: the predictive draws, which may be several for each posterior draw.
        noise: the parameters of their noise.
    """
    shape = (predictions.shape[0] * predictions.shape[1], *predictions.shape[2:])
    if len(mean) == shape[0]:
        return mean, variance
    kept = conditional(noise, predictions)
    if kept is None:
        number = shape[0] // len(mean)
        return np.repeat(mean, number, axis=0), np.repeat(variance, number, axis=0)
    moments = kept.distribution.mean, kept.distribution.variance
    mean, variance = (
        np.broadcast_to(np.asarray(moment), shape).reshape(shape[0], -1) for moment in moments
    )
    return mean, variance


def _held_out_findings(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset, competitors: Mapping[str, xr.DataTree]
) -> Iterator[Finding]:
    """Yield findings on held-out data: coverage, competitors and baselines.

    Args:
        fc: the forecast.
        train: the training data, for baselines.
        test: the held-out data.
        competitors: forecasts of other models, by name.
    """
    try:
        ensembles, common = matched(fc, test)
    except MismatchError:
        return
    # 1. Values and draws that can be scored.
    scored = {name: finite_at(draws, y) for name, (draws, y) in ensembles.items()}
    lost = [name for name, (draws, y) in scored.items() if y.size and not len(draws)]
    if lost:
        yield model_finding(
            "warning",
            "held-out data",
            f"no draw of the forecast of {', '.join(lost)} is finite there",
            "see why draws fail or overflow",
        )
    scored = scorable(scored)
    if not scored:
        return
    # 2. Overconfidence.
    yield coverage_finding(ensembles, scored, common)
    # 3. Competitors, at the times that both forecasts have.
    for name, competitor in competitors.items():
        theirs, both = matched(competitor, common)
        ours = matched(fc, both)[0]
        yield from against_competitor(name, {n: ours[n] for n in scored}, theirs, both)
    # 4. Climatology and persistence.
    own = {name: ensembles[name] for name in scored}
    for name, flat in baseline_ensembles(train[list(scored)], common[list(scored)]):
        other = {n: (alike(flat[n], common[n]), own[n][1]) for n in scored}
        yield from against_baseline(name, own, other, common)


def borne_out_by(
    post: xr.DataTree, fc: xr.DataTree | None, test: xr.Dataset | None, said: tuple[Finding, ...]
) -> tuple[Finding, ...]:
    """Revise an engine's doubt about the spread of its draws, if held-out data confirm the spread.

    Args:
        post: the posterior.
        fc: a forecast from it, if there is one.
        test: the held-out data, if there are any.
        said: the findings of the engine.

    Returns:
        The findings of the engine, revised or not.
    """
    if fc is None or test is None or not any(map(leaves_unshown, said)):
        return said
    shown = _spread_shown(
        fc, held_out(fitted_observables(post), in_units_of_forecast(fc, test), fitted_between(fc))
    )
    return tuple(borne_out(finding, shown) for finding in said) if shown else said


def _spread_shown(fc: xr.DataTree, unseen: xr.Dataset) -> str:
    """Return evidence in words that draws are wide enough; "" unless held-out data show it.

    The data show it if draws twice as wide would rarely be covered as well. If noise dominates a
    forecast, its coverage does not depend on the draws, and the data show nothing.

    Args:
        fc: the forecast.
        unseen: the held-out data.
    """
    try:
        predictions, noise, common = shared(fc, unseen)
        means = shared(_as_predictions(fc, "conditional_mean"), unseen)[0]
    except MismatchError:
        return ""
    inside, number, wide = 0, 0, np.zeros(_REPLICATES)
    for name, variable in predictions.data_vars.items():
        draws = merged(variable)
        observed = common[name].values.ravel()
        centre = _moments_of_draws(merged(means[name]), merged(means[name]), variable, noise)[0]
        seen = np.isfinite(observed)
        ok = finite(draws[:, seen]) & finite(centre[:, seen])
        if not seen.any() or ok.sum() < 2:
            continue
        # Replicates for draws that scatter twice as much: y_θ + (μ_θ - μ), in which the mean μ_θ of
        # each draw is twice as far from the mean μ of all draws.
        further = draws[ok] + centre[ok] - centre[ok].mean(axis=0)
        # Censor replicates like the data, so that coverage is counted as in the scores.
        draws, further = (alike(each, common[name])[:, seen] for each in (draws[ok], further))
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        inside += int(np.nansum(covered(draws, observed[seen], 90)))
        number += int(seen.sum())
        further = further[np.resize(thinned(len(further), _REPLICATES), _REPLICATES)]
        wide += ((low <= further) & (further <= high)).sum(axis=1)
    often = float(np.mean(wide >= inside))
    if not number or often >= _WIDER:
        return ""
    return (
        f"held-out data bear it out: the 90 % intervals hold {inside} of {number} values, which "
        "they would in "
        f"{often:.0%} of cases if the draws were to be twice as wide"
    )


def _as_predictions(fc: xr.DataTree, group: str) -> xr.DataTree:
    # Units are dropped, since a variance does not have the units of data.
    """Return a group of a forecast as a forecast whose `predictions` it is, without units."""
    return xr.DataTree.from_dict({"predictions": fc[group].to_dataset().drop_attrs()})
