"""Whether a model fits: its residuals, data that it has not seen, its prior, and what forecasts better than it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import xarray as xr

from .._findings import Finding, Level
from .._statistics.thinning import thinned
from ..data.datasets import index_of
from ..errors import MismatchError
from .baselines import baselines
from .scores import Ensembles, fitted_between, held_out, matched

_DRAWS = 1000  # replicates of the data
_FEWEST = 8  # values of an observable that are looked at
_DOUBTFUL, _ABSURD = 0.01, 0.001  # how often a sound model does worse, over all that is looked at
_STRONG = 0.3  # correlation of neighbours from which a model is said to miss something
_BEATEN, _CLEARLY = 0.02, 0.002  # how often its own replicates are forecast worse, beside a baseline
_LEAD = 0.05  # of a score, from which on another forecast is better
_REPLICATES = 500  # of held-out data
_VALUES = 400  # held-out values at which forecasts are compared


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
    if fc is None:
        return
    train = post["observed_data"].to_dataset()
    yield from _training_findings(fc, train)
    if test is None:
        return
    yield from _held_out_findings(fc, train, held_out(train, test, fitted_between(fc)), rivals)


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
    try:
        found = {group: matched(_as_predictions(fc, group), train)[0] for group in _GROUPS}
    except MismatchError:  # the forecast says nothing of the times that were fitted
        return
    looked_at = len(_STATISTICS) * len(found["predictions"])
    sound, number = True, 0
    for name, (drawn, observed) in found["predictions"].items():
        mean, variance = (found[group][name][0] for group in _GROUPS[1:])
        seen = np.isfinite(observed)
        ok = np.isfinite(drawn).all(axis=1) & np.isfinite(mean).all(axis=1) & (variance > 0).all(axis=1)
        if seen.sum() < _FEWEST or not ok.any():
            continue
        number += int(seen.sum())
        some = np.flatnonzero(ok)[thinned(int(ok.sum()), _DRAWS)]
        centre, spread = mean[some][:, seen], np.sqrt(variance[some][:, seen])
        own = (observed[seen] - centre.mean(axis=0)) / np.sqrt((spread**2).mean(axis=0))
        made = (drawn[some][:, seen] - centre) / spread
        for finding in _residuals(name, own, made, looked_at):
            sound = False
            yield finding
    if sound and number:
        yield _finding("good", "training data", f"the residuals of {number} values are like those that the model draws")


def _residuals(name: str, own: np.ndarray, made: np.ndarray, looked_at: int) -> Iterator[Finding]:
    """What is unusual about residuals `(value,)`, beside those `(draw, value)` that the model draws."""
    for subject, (statistic, told, remedy) in _STATISTICS.items():
        value, theirs = float(statistic(own[None])[0]), statistic(made)
        # A fit makes residuals smaller and neighbours alternate, so only the other side says something.
        worse = max(float(np.mean(theirs >= value)), 0.1 / len(theirs)) * looked_at
        if worse >= _DOUBTFUL:
            continue
        strong = worse < _ABSURD and (subject != "order" or value >= _STRONG)
        yield _finding(
            "bad" if strong else "warning", f"{subject} of residuals of {name}",
            told.format(abs(value), abs(float(np.median(theirs)))), remedy,
        )  # fmt: skip


def _size(z: np.ndarray) -> np.ndarray:
    return np.sqrt((z**2).mean(axis=1))


def _order(z: np.ndarray) -> np.ndarray:
    """The correlation of neighbours, about zero: residuals that all lie on one side are correlated too."""
    return (z[:, 1:] * z[:, :-1]).sum(axis=1) / np.maximum((z**2).sum(axis=1), 1e-300)


def _tails(z: np.ndarray) -> np.ndarray:
    """Geary's ratio, with a minus: 0.80 of normal residuals, less where some are far larger than the others."""
    return -np.abs(z).mean(axis=1) / np.maximum(_size(z), 1e-300)


def _skewness(z: np.ndarray) -> np.ndarray:
    centred = z - z.mean(axis=1, keepdims=True)
    spread = np.maximum(np.sqrt((centred**2).mean(axis=1)), 1e-300)
    return np.abs((centred**3).mean(axis=1) / spread**3)


_MISSING = "the model misses something that the data follow: a term, a forcing, or noise that is correlated"
_STATISTICS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str, str]] = {
    "size": (
        _size,
        "they are {0:.2g} times as large as the noise is said to be, where {1:.2g} are usual",
        "let the scale of the noise be unknown, or look for what the model misses",
    ),
    "order": (_order, "neighbours have a correlation of {0:.2f}, where {1:.2f} is usual", _MISSING),
    "tails": (
        _tails,
        "their mean size is {0:.2f} of their root mean square, where {1:.2f} is usual",
        "some data lie far out: look at them, or take bd.StudentTNoise",
    ),
    "symmetry": (
        _skewness,
        "their skewness is {0:.2f}, where {1:.2f} is usual",
        "some data lie out on one side: look at them, or take a noise that is not symmetric, such as bd.LogNormalNoise",
    ),
}
_GROUPS = ("predictions", "conditional_mean", "conditional_variance")


def _held_out_findings(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset, rivals: Mapping[str, xr.DataTree]
) -> Iterator[Finding]:
    try:
        ensembles, common = matched(fc, test)
    except MismatchError:
        return
    scored = {name: _pair(draws, y) for name, (draws, y) in ensembles.items()}
    scored = {name: pair for name, pair in scored.items() if pair[0].shape[0] > 1 and pair[1].size}
    if not scored:
        return
    yield _coverage(scored)
    own = {name: ensembles[name] for name in scored}
    for name, rival in rivals.items():
        yield from _against_rival(name, own, matched(rival, test)[0])
    index = index_of(common)
    for name, make in baselines(train[list(scored)]).items():
        members = make(train[list(scored)], common[index].values)
        other = {n: (members[n].values.reshape(members.sizes["draw"], -1), own[n][1]) for n in scored}
        yield from _against_baseline(name, own, other)


def _pair(draws: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finite draws at the values that were observed."""
    seen = np.isfinite(observed)
    ok = np.isfinite(draws[:, seen]).all(axis=1)
    some = np.flatnonzero(ok)[thinned(int(ok.sum()), 4 * _DRAWS)]
    return draws[some][:, seen], observed[seen]


def _coverage(scored: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Finding:
    """How many held-out values the 90 % intervals hold, beside how many of them a sound forecast leaves out."""
    inside, number, replicates = 0, 0, np.zeros(min(len(draws) for draws, _ in scored.values()))
    for draws, observed in scored.values():
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        inside += int(((low <= observed) & (observed <= high)).sum())
        number += observed.size
        # Draws of a forecast hold together over time as the truth does, so they say how far a share may stray.
        replicates += ((low <= draws) & (draws <= high)).sum(axis=1)[: len(replicates)]
    worse = max(float(np.mean(replicates <= inside)), 0.1 / len(replicates))
    error = np.sqrt(0.9 * 0.1 / number)
    message = f"the 90 % intervals hold {inside} of {number} values ({inside / number:.0%}, binomial error {error:.0%})"
    if worse >= _DOUBTFUL:
        return _finding("good", "held-out data", message)
    level: Level = "bad" if worse < _ABSURD or inside < number / 2 else "warning"
    remedy = "the forecast is too sure of itself: look for what the model misses, or for what it takes as known"
    share = "none" if worse < 1 / len(replicates) else f"{worse:.1%}"
    return _finding(level, "held-out data", f"{message}; of the data that it draws itself {share} do worse", remedy)


def _against_rival(name: str, own: Ensembles, other: Ensembles) -> Iterator[Finding]:
    lead = np.concatenate([*(_leads(own[n], other[n][0])[0] for n in own if n in other), np.zeros(0)])
    if not lead.size:
        return
    mean = float(lead.mean())
    if mean > max(_LEAD, _standard_error(lead)):
        yield _better(name, "warning", lead)
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
    usual = max(float(np.mean(replicates >= mean)), 0.1 / number)
    if mean > _LEAD and usual < _BEATEN:
        yield _better(name, "bad" if usual < _CLEARLY else "warning", lead)


def _standard_error(lead: np.ndarray) -> float:
    return float(lead.std(ddof=1) / np.sqrt(lead.size)) if lead.size > 1 else np.inf


def _better(name: str, level: Level, lead: np.ndarray) -> Finding:
    return _finding(
        level, f"against {name}",
        f"{name} forecasts the held-out data better: its CRPS is {lead.mean():.0%} lower (standard error "
        f"{_standard_error(lead):.0%}, of {lead.size} values)",
        f"prefer {name}, or find what makes this forecast worse: a correction that the data do not bear out, or an "
        "equation that does not hold ahead",
    )  # fmt: skip


def _leads(own: tuple[np.ndarray, np.ndarray], other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much another forecast has the lower CRPS at each value, in units of our mean one; and for replicates.

    Shapes: `(value,)` and `(replicate, value)`.
    """
    draws, observed = own
    seen = np.flatnonzero(np.isfinite(observed) & np.isfinite(draws).any(axis=0) & np.isfinite(other).any(axis=0))
    seen = seen[thinned(seen.size, _VALUES)] if seen.size else seen
    whole = draws[np.isfinite(draws[:, seen]).all(axis=1)][:, seen]
    if len(whole) < 2:
        return np.zeros(0), np.zeros((_REPLICATES, 0))
    made = whole[thinned(len(whole), _REPLICATES)]
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
    return xr.DataTree.from_dict({"predictions": fc[group].to_dataset()})


def _finding(level: Level, subject: str, message: str, remedy: str = "") -> Finding:
    return Finding(level, subject, message, remedy, aspect="model")
