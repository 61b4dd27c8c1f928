"""Whether a model fits: its residuals, data that it has not seen, its prior, and what forecasts better than it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr

from .._findings import Finding, Level, borne_out, leaves_unshown
from .._statistics.convergence import thinned
from ..data.censoring import alike, completed
from ..data.datasets import index_of
from ..errors import MismatchError
from ..prediction.conditional import conditional
from ..prediction.posterior import fitted_observables, with_what_is_censored
from .baselines import baseline_at, baselines
from .ensemble_scores import covered, lower_by, mean_crps
from .matching import Ensembles, fitted_between, held_out, in_units_of_forecast, matched, merged, shared
from .residuals import ABSURD, DOUBTFUL, NUMBER, residual_findings, share_beyond

_DRAWS = 1000  # replicates of the data
_FEWEST = 8  # values of an observable that are looked at
_BEATEN, _CLEARLY = 0.02, 0.002  # how often its own replicates are forecast worse, beside a baseline
_LEAD = 0.05  # of a score, from which on another forecast is better
_REPLICATES = 500  # of held-out data
_VALUES = 400  # held-out values at which forecasts are compared
_WIDER = 0.1  # how often data of draws twice as wide would be held as well


def adequacy_findings(
    post: xr.DataTree,
    fc: xr.DataTree | None,
    test: xr.Dataset | None,
    rivals: Mapping[str, xr.DataTree],
) -> Iterator[Finding]:
    r"""Findings on the model rather than on its sampling, as far as a forecast and data allow.

    A statistic of the data is compared with that of replicates which the model draws itself, so that it is known how
    often a sound model does worse. On training data it is one of the residuals about the mean of all draws; of
    replicates, of $z = (y_\theta - \mu_\theta) / \sigma_\theta$, which no fit has made smaller.

    Source: Gelman, Meng & Stern (1996), Posterior predictive assessment; Evans & Moshonov (2006) for the prior.
    """
    yield from _prior_findings(post)
    if fc is not None:
        yield from forecast_findings(post, fc, test, rivals)


def forecast_findings(
    post: xr.DataTree, fc: xr.DataTree, test: xr.Dataset | None, rivals: Mapping[str, xr.DataTree]
) -> Iterator[Finding]:
    """Findings on a forecast, whatever it was made from, at the times of the data of a fit and beyond them."""
    train = fitted_observables(post)
    yield from _training_findings(fc, with_what_is_censored(post))
    if test is not None:
        test = in_units_of_forecast(fc, test)
        yield from _held_out_findings(fc, train, held_out(train, test, fitted_between(fc)), rivals)


def crps_apart(post: xr.DataTree, fc: xr.DataTree, other: xr.DataTree, test: xr.Dataset) -> tuple[float, float, int]:
    """By which share of its mean the CRPS of one forecast of held-out data lies above that of another.

    Returns: the share, its standard error if values were independent, and of how many values; NaN where neither
    forecasts any.
    """
    train, test = fitted_observables(post), in_units_of_forecast(fc, test)
    unseen = held_out(train, test, fitted_between(fc))
    try:
        theirs, both = matched(other, unseen)
        ours = matched(fc, both)[0]
    except MismatchError:
        return np.nan, np.nan, 0
    lead = np.concatenate([_leads(pair, theirs[n][0], replicates=0)[0] for n, pair in ours.items()])
    return (float(lead.mean()), _standard_error(lead), lead.size) if lead.size else (np.nan, np.nan, 0)


def _prior_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Parameters that the data take to where the prior never is."""
    if "prior" not in post.children:
        return
    prior = post["prior"].to_dataset()
    for name, variable in post["posterior"].to_dataset().data_vars.items():
        if name not in prior or variable.attrs.get("group", "science") != "science":
            continue
        before = prior[name].transpose("chain", "draw", ...).values.reshape(prior[name].sizes["draw"], -1)
        middle = np.median(variable.transpose("chain", "draw", ...).values.reshape(-1, before.shape[1]), axis=0)
        low, half, high = np.quantile(before, [0.25, 0.5, 0.75], axis=0)
        # Beyond all draws and four normal standard deviations; of a prior without spread nothing can be said.
        away = np.abs(middle - half) / np.where(high > low, (high - low) / 1.35, np.inf)
        beyond = ((middle > before.max(axis=0)) | (middle < before.min(axis=0))) & (away > 4)
        for i in np.flatnonzero(beyond)[:1]:
            yield _finding(
                "bad", f"prior of {name}",
                f"the posterior lies around {middle[i]:.3g}, {away[i]:.0f} standard deviations from the middle of its "
                f"prior, {half[i]:.3g}",
                "the prior and the data contradict each other: look for an error in units or data, or widen the prior",
            )  # fmt: skip


def _training_findings(fc: xr.DataTree, train: xr.Dataset) -> Iterator[Finding]:
    found = _with_moments(fc, train)
    looked_at = NUMBER * len(found)
    sound, number, left_out = True, 0, 0
    for name, (drawn, observed, mean, variance) in found.items():
        seen = np.isfinite(observed)
        ok = np.isfinite(drawn).all(axis=1) & np.isfinite(mean).all(axis=1)
        ok &= (np.isfinite(variance) & (variance > 0)).all(axis=1)
        if seen.sum() < _FEWEST:
            continue
        if not ok.any():
            yield _finding(
                "warning", f"residuals of {name}", "not looked at: no draw of the forecast has a finite variance",
                "noise without a variance, such as bd.StudentTNoise with df below 2, cannot be judged by residuals",
            )  # fmt: skip
            continue
        left_out = max(left_out, int((~ok).sum()))
        number += int(seen.sum())
        some = np.flatnonzero(ok)[thinned(int(ok.sum()), _DRAWS)]
        drawn, mean, variance = (each[some][:, seen] for each in (drawn, mean, variance))
        for finding in residual_findings(name, drawn, observed[seen], mean, np.sqrt(variance), looked_at):
            sound = False
            yield finding
    if sound and number:
        without = f", without {left_out} draws that have no finite mean and variance" if left_out else ""
        message = f"the residuals of {number} values are like those that the model draws{without}"
        yield _finding("good", "training data", message)


def _with_moments(
    fc: xr.DataTree, data: xr.Dataset
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """By observable its draws, observations, and the mean and variance that each draw was drawn from.

    A draw stands for a censored datum. Nothing where the forecast says nothing of these times.
    Shapes: all `(draw, datum)`, but for observed `(datum,)`.
    """
    try:
        predictions, noise, common = shared(fc, data)
        moments = [shared(_as_predictions(fc, group), data)[0] for group in _MOMENTS]
    except MismatchError:
        return {}
    if "members" in fc.attrs:  # neighbours are those of one member
        last = ..., index_of(common)
        predictions, common, *moments = (each.transpose(*last) for each in (predictions, common, *moments))
    found = {}
    for name, variable in predictions.data_vars.items():
        draws, mean, variance = map(merged, (variable, *(group[name] for group in moments)))
        observed = completed(draws, common[name])
        found[str(name)] = draws, observed, *_of_each(mean, variance, variable, noise)
    return found


def _of_each(
    mean: np.ndarray, variance: np.ndarray, predictions: xr.DataArray, noise: xr.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """The moments that each predictive draw was drawn from, `(draw, datum)`, also where members are repeated."""
    shape = (predictions.shape[0] * predictions.shape[1], *predictions.shape[2:])
    if len(mean) == shape[0]:
        return mean, variance
    kept = conditional(noise, predictions)
    if kept is None:
        return np.repeat(mean, shape[0] // len(mean), axis=0), np.repeat(variance, shape[0] // len(mean), axis=0)
    given = kept.distribution
    mean, variance = (np.broadcast_to(np.asarray(m), shape).reshape(shape[0], -1) for m in (given.mean, given.variance))
    return mean, variance


_MOMENTS = ("conditional_mean", "conditional_variance")


def _held_out_findings(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset, rivals: Mapping[str, xr.DataTree]
) -> Iterator[Finding]:
    try:
        ensembles, common = matched(fc, test)
    except MismatchError:
        return
    scored = {name: _pair(draws, y) for name, (draws, y) in ensembles.items()}
    lost = [name for name, (draws, y) in scored.items() if y.size and not len(draws)]
    if lost:
        yield _finding(
            "warning", "held-out data", f"no draw of the forecast of {', '.join(lost)} is finite there",
            "see why draws fail or overflow",
        )  # fmt: skip
    scored = {name: pair for name, pair in scored.items() if pair[0].shape[0] > 1 and pair[1].size}
    if not scored:
        return
    own = {name: ensembles[name] for name in scored}
    yield _coverage(own, scored)
    for name, rival in rivals.items():
        theirs, both = matched(rival, common)
        ours = matched(fc, both)[0]  # at the times that both forecast
        yield from _against_rival(name, {n: ours[n] for n in scored}, theirs)
    for name, make in baselines(train[list(scored)]).items():
        members = baseline_at(make, train[list(scored)], common[list(scored)])
        flat = {n: members[n].values.reshape(members.sizes["draw"], -1) for n in scored}
        other = {n: (alike(flat[n], common[n]), own[n][1]) for n in scored}
        yield from _against_baseline(name, own, other)


def borne_out_by(
    post: xr.DataTree, fc: xr.DataTree | None, test: xr.Dataset | None, said: tuple[Finding, ...]
) -> tuple[Finding, ...]:
    """What an engine said: that nothing shows its draws to be wide enough holds no more if held-out data show it."""
    if fc is None or test is None or not any(map(leaves_unshown, said)):
        return said
    shown = _spread_shown(fc, held_out(fitted_observables(post), in_units_of_forecast(fc, test), fitted_between(fc)))
    return tuple(borne_out(finding, shown) for finding in said) if shown else said


def _spread_shown(fc: xr.DataTree, unseen: xr.Dataset) -> str:
    """What shows draws to spread as far as they ought to; nothing unless data that they have not seen do.

    They do if so many of them lie within the intervals as would hardly do so were the draws to be twice as wide: where
    noise is most of a forecast its coverage says nothing of how wide its draws are.
    """
    inside, number, wide = 0, 0, np.zeros(_REPLICATES)
    for draws, observed, centre, _ in _with_moments(fc, unseen).values():
        seen = np.isfinite(observed)
        ok = np.isfinite(draws[:, seen]).all(axis=1) & np.isfinite(centre[:, seen]).all(axis=1)
        if not seen.any() or ok.sum() < 2:
            continue
        draws, centre, observed = draws[ok][:, seen], centre[ok][:, seen], observed[seen]
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        inside += int(((low <= observed) & (observed <= high)).sum())
        number += observed.size
        further = (draws + centre - centre.mean(axis=0))[np.resize(thinned(len(draws), _REPLICATES), _REPLICATES)]
        wide += ((low <= further) & (further <= high)).sum(axis=1)
    often = float(np.mean(wide >= inside))
    if not number or often >= _WIDER:
        return ""
    return (
        f"held-out data bear it out: the 90 % intervals hold {inside} of {number} values, which they would in "
        f"{often:.0%} of cases if the draws were to be twice as wide"
    )


def _pair(draws: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finite draws at the values that were observed."""
    seen = np.isfinite(observed)
    ok = np.isfinite(draws[:, seen]).all(axis=1)
    some = np.flatnonzero(ok)[thinned(int(ok.sum()), 4 * _DRAWS)]
    return draws[some][:, seen], observed[seen]


def _coverage(own: Ensembles, scored: Ensembles) -> Finding:
    """How many held-out values the 90 % intervals hold, and how far out they lie, beside data that a forecast draws.

    Errors of a forecast may be all but one: then a tenth of sound ones hold nothing, and only how far out says more.
    """
    held = np.concatenate([covered(draws, observed, 90) for draws, observed in own.values()])
    inside, number = int(np.nansum(held)), int(np.isfinite(held).sum())
    replicates = np.zeros(min(len(draws) for draws, _ in scored.values()))
    for draws, _ in scored.values():
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        # Draws of a forecast hold together over time as the truth does, so they say how far a share may stray.
        replicates += ((low <= draws) & (draws <= high)).sum(axis=1)[: len(replicates)]
    distance, usual = _distance(scored)
    fewer, further = share_beyond(-replicates, -inside), share_beyond(usual, distance)
    error = np.sqrt(0.9 * 0.1 / number)
    message = f"the 90 % intervals hold {inside} of {number} values ({inside / number:.0%}, binomial error {error:.0%})"
    worse = 2 * min(fewer, further)
    if worse >= DOUBTFUL:
        if inside < 0.9 * number - 2 * error * number:
            # A share that looks too small must not pass for good without a reason.
            message += f"; errors hold together, and of the data that it draws itself {fewer:.1%} do no better"
        return _finding("good", "held-out data", message)
    level: Level = "bad" if worse < ABSURD or inside < number / 2 else "warning"
    remedy = "the forecast is too sure of itself: look for what the model misses, or for what it takes as known"
    often, of = (fewer, replicates) if fewer <= further else (further, usual)
    if of is usual:
        message += f"; their CRPS is {distance:.2g} times what it expects of itself"
    share = "none" if often < 1 / of.size else f"{often:.1%}"
    message += f"; of the data that it draws itself {share} do no better"
    return _finding(level, "held-out data", message, remedy)


def _distance(scored: Ensembles) -> tuple[float, np.ndarray]:
    """The CRPS of data in units of that which the forecast expects of itself, on average; and of replicates."""
    blocks = []
    for draws, observed in scored.values():
        some, made = thinned(observed.size, _VALUES), draws[thinned(len(draws), _REPLICATES)]
        each = np.concatenate([observed[None, some], made[:, some]])
        crps = np.stack([_crps_at(d, y) for d, y in zip(draws[:, some].T, each.T, strict=True)], axis=1)
        blocks.append(crps / np.maximum(crps[1:].mean(axis=0), 1e-300))
    shortest = min(map(len, blocks))
    means = np.concatenate([block[:shortest] for block in blocks], axis=1).mean(axis=1)
    return float(means[0]), means[1:]


def _against_rival(name: str, own: Ensembles, other: Ensembles) -> Iterator[Finding]:
    lead = np.concatenate([_leads(own[n], other[n][0])[0] for n in own])
    if not lead.size:
        return
    mean = float(lead.mean())
    if mean > max(_LEAD, _standard_error(lead)):
        yield _better(name, "warning", lead, own, other)
    else:
        yield _finding("good", f"against {name}", "its forecast of held-out data is not better than this one")


def _against_baseline(name: str, own: Ensembles, other: Ensembles) -> Iterator[Finding]:
    """A baseline wins by chance, too: how often it would over replicates of the held-out data says how odd that is."""
    found = [_leads(own[n], other[n][0]) for n in own]
    lead = np.concatenate([observed for observed, _ in found])
    if not lead.size:
        return
    number = min(len(replicates) for _, replicates in found)
    replicates = np.concatenate([r[:number] for _, r in found], axis=1).mean(axis=1)
    mean = float(lead.mean())
    usual = share_beyond(replicates, mean)
    if mean > _LEAD and usual < _BEATEN:
        yield _better(name, "bad" if usual < _CLEARLY else "warning", lead, own, other)


def _standard_error(lead: np.ndarray) -> float:
    return float(lead.std(ddof=1) / np.sqrt(lead.size)) if lead.size > 1 else np.inf


def _better(name: str, level: Level, lead: np.ndarray, own: Ensembles, other: Ensembles) -> Finding:
    """Of many values only some say how sure this is; how much better the other is, all of them, as in the scores."""
    ours, theirs = (np.array([mean_crps(*e[n]) for n in own]) for e in (own, other))
    lower = lower_by(ours, theirs, _numbers(own))
    among = int(_numbers(own).sum())
    of = f"{among} values" if lead.size == among else f"{lead.size} of {among} values"
    several = ", on average over the observables" if len(own) > 1 else ""
    return _finding(
        level, f"against {name}",
        f"{name} forecasts the held-out data better: its CRPS is {lower:.0%} lower{several} (standard error "
        f"{_standard_error(lead):.0%}, of {of})",
        f"prefer {name}, or find what makes this forecast worse: a correction that the data do not bear out, or an "
        "equation that does not hold ahead",
    )  # fmt: skip


def _numbers(ensembles: Ensembles) -> np.ndarray:
    return np.array([np.isfinite(observed).sum() for _, observed in ensembles.values()])


def _leads(
    own: tuple[np.ndarray, np.ndarray], other: np.ndarray, replicates: int = _REPLICATES
) -> tuple[np.ndarray, np.ndarray]:
    """By how much another forecast has the lower CRPS at each value, in units of our mean one; and for replicates.

    Shapes: `(value,)` and `(replicate, value)`.
    """
    draws, observed = own
    seen = np.flatnonzero(np.isfinite(observed) & np.isfinite(draws).any(axis=0) & np.isfinite(other).any(axis=0))
    seen = seen[thinned(seen.size, _VALUES)] if seen.size else seen
    whole = draws[np.isfinite(draws[:, seen]).all(axis=1)][:, seen]
    if not seen.size or len(whole) < 2:
        return np.zeros(0), np.zeros((replicates, 0))
    made = whole[thinned(len(whole), replicates)]
    each = np.concatenate([observed[None, seen], made])
    ours = np.stack([_crps_at(column, y) for column, y in zip(whole.T, each.T, strict=True)], axis=1)
    theirs = np.stack([_crps_at(d[np.isfinite(d)], y) for d, y in zip(other[:, seen].T, each.T, strict=True)], axis=1)
    lead = (ours - theirs) / np.maximum(ours.mean(axis=1, keepdims=True), 1e-300)
    return lead[0], lead[1:]


def _crps_at(draws: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The fair CRPS of one forecast at many values: the mean distance to a draw, less half of that between draws."""
    ordered, m = np.sort(draws), len(draws)
    total = np.concatenate([[0.0], np.cumsum(ordered)])
    below = np.searchsorted(ordered, y)
    distance = (y * (2 * below - m) + total[-1] - 2 * total[below]) / m
    between = 2 * np.sum(ordered * (2 * np.arange(m) - m + 1)) / (m * max(m - 1, 1))
    return distance - between / 2


def _as_predictions(fc: xr.DataTree, group: str) -> xr.DataTree:
    # Without units: those of a variance are no units of data.
    return xr.DataTree.from_dict({"predictions": fc[group].to_dataset().drop_attrs()})


def _finding(level: Level, subject: str, message: str, remedy: str = "") -> Finding:
    return Finding(level, subject, message, remedy, aspect="model")
