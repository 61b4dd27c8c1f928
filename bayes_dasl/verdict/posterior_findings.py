"""Findings by groups of a posterior: modes, solver, confounding, bounds, constraints, functions."""

import itertools
import json
import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from .._findings import SOLVER_ACCURACY, Finding, grade, model_finding
from .._statistics.convergence import finite_draws, tail_index
from .._statistics.importance import largest_pareto_k
from ..scores.draws_at_data import by_chain
from .bounds import bound_findings
from .element_names import element_names
from .identifiability import ties

# Shift of a mean by a finer solver, in posterior standard deviations, from which a finding is a
# warning, and from which it is bad.
_SHIFT, _FAR = 0.05, 0.5
# Correlation of a parameter with the effect of an unknown function, and standard deviation of that
# effect in units of the parameter's posterior standard deviation. From both on, the prior rather
# than the data separates parameter and function.
_CONFOUNDED, _SHARE = 0.7, 0.3
# An approximation of a Gaussian process should represent lengths down to this quantile.
_TENTH = 0.1
# Two modes are merged if chains change between them at least this share of the number of times that
# independent draws would; no changes are needed below this expected number.
_TO_AND_FRO, _FEW_CHANGES = 0.1, 10.0
# A share below one of a thousand replicates is reported as "none".
_SELDOM = 1e-3
# Constraint residual from which a constraint is broken, in units of its tolerance.
_BROKEN = 2.0
# The tail index from which on there is no variance.
_NO_VARIANCE = 0.5
# Tails are not examined if all draws lie within this number of interquartile ranges of the median.
_FAR_OUT = 10.0
# A tail index is too large if it exceeds its limit by this number of standard errors. Normal, gamma
# and log-normal tails lie so far below the limit that no allowance for many parameters is needed.
_SURELY = 1.645
# A second parameter describes modes if it separates them by this number of standard deviations.
_APART = 4.0
# Largest standard error of good weights of modes.
_WEIGHED = 0.05
# From this ratio of posterior to prior width on, the data do not determine a parameter.
_UNSETTLED = 0.5
# The most chains that are listed by number.
_NAMED = 16


def posterior_findings(post: xr.DataTree, *, agreed: bool) -> Iterator[Finding]:
    """Yield findings from the groups of a posterior, for every engine.

    Args:
        post: the posterior.
        agreed: whether the chains agree about science parameters and trajectories.

    Yields:
        Findings on modes, the solver, identifiability, bounds, constraints, unknown functions and
        tails.
    """
    yield from _mode_findings(post, agreed)
    tied = list(ties(post))
    for check in (_solver_findings, _confounding_findings):
        yield from check(post)
    yield from (finding for _, finding in tied)
    yield from bound_findings(post, {label for labels, _ in tied for label in labels})
    for check in (_constraint_findings, _function_findings, _length_findings, _tail_findings):
        yield from check(post)


def unseen_functions(post: xr.DataTree) -> str:
    """Return a sentence which says that it was not tested whether unknown functions are too coarse.

    Returns:
        The sentence; "" if they were tested, or there are none.
    """
    names = json.loads(post.attrs.get("unknown_functions", "[]"))
    if not names or "function_check" in post.children:
        return ""
    return (
        f"Whether what is unknown of {', '.join(names)} is fine enough was not looked at: "
        "bd.updating.check_functions does."
    )


def _mode_findings(post: xr.DataTree, agreed: bool) -> Iterator[Finding]:
    """Yield a finding on several modes: their positions, and their weights or the chains in them.

    Args:
        post: the posterior.
        agreed: whether the chains agree about science parameters and trajectories.
    """
    stats = post["sample_stats"].to_dataset() if "sample_stats" in post.children else xr.Dataset()
    if "mode" not in stats or "modes" not in post.children:
        return
    modes = post["modes"].to_dataset()
    nearest = stats["mode"].transpose("chain", "draw").values
    if "mode_weight" in modes:
        yield _weighed_modes(post, modes, nearest)
        return
    # 1. Merge modes between which all chains move freely.
    same = _same_modes(nearest, modes["lp"].values)
    found = np.unique(same)
    if found.size == 1:
        return
    # 2. Describe the modes with and without draws.
    nearest = same[nearest]
    visited = np.unique(nearest)
    empty = np.setdiff1d(found, nearest)
    where = _mode_labels(post, modes, nearest, found)
    described = "; ".join(f"{where[m]} ({_mode_share(modes, nearest, int(m))})" for m in visited)
    if empty.size:
        places = "; ".join(f"{where[m]} (log density {modes.lp[m]:.4g})" for m in empty)
        described += f"; without draws: {places}"
    # 3. Chains that stay apart are harmless only if the modes agree.
    moved = (nearest != nearest[:, :1]).any(axis=1).all()
    of = f" of {found.size}" if empty.size else ""
    stay = f"chains stay in {visited.size}{of} modes"
    if visited.size == 1:
        message = f"{found.size} modes were started from; all draws are near one"
    elif moved:
        message = f"every chain moves between {visited.size}{of} modes"
    elif agreed:
        message = f"{stay} that say the same of the science and the trajectories"
    else:
        message = f"{stay}, so that their weights mean nothing"
    yield Finding(
        "good" if visited.size == 1 or moved or agreed else "bad",
        "modes",
        f"{message}: {described}",
        "weigh the modes with bd.engines.SMC(), or rule out with the prior what is not believed",
    )


def _weighed_modes(post: xr.DataTree, modes: xr.Dataset, nearest: np.ndarray) -> Finding:
    """Return the finding on modes whose weights an engine has estimated.

    Its level depends on the standard errors of the weights.

    Args:
        post: the posterior.
        modes: the group `modes`.
        nearest: the mode nearest to each draw, `(chain, draw)`.
    """
    where = _mode_labels(post, modes, nearest, np.arange(modes.sizes["mode"]))
    weights = modes["mode_weight"].values
    errors = modes["mode_weight_se"].values
    known = np.isfinite(errors).all()
    each = [
        f"{place} (weight {weight:.1%}{f' ± {error:.1%}' if known else ''}, log density {top:.4g})"
        for place, weight, error, top in zip(
            where.values(), weights, errors, modes["lp"].values, strict=True
        )
    ]
    message = f"{len(each)} modes hold draws: {'; '.join(each)}"
    if not known:
        return Finding(
            "warning", "modes", message, "take several runs for standard errors of the weights"
        )
    return Finding(
        grade(-float(errors.max()), good=-_WEIGHED, warning=-3 * _WEIGHED),
        "modes",
        message,
        "take more particles or runs: each run has to find every mode by itself",
    )


def _same_modes(nearest: np.ndarray, log_densities: np.ndarray) -> np.ndarray:
    """Merge modes between which all chains move freely.

    Two modes are merged if chains change between them at least a tenth as often as independent
    draws would.

    Args:
        nearest: the mode nearest to each draw, `(chain, draw)`.
        log_densities: the log density of each mode.

    Returns:
        For each mode, the mode with the highest log density among those merged with it.
    """
    same = np.arange(len(log_densities))
    for i, j in itertools.combinations(np.unique(nearest), 2):
        in_one, in_other = nearest == i, nearest == j
        left = in_one[:, :-1] & in_other[:, 1:]
        entered = in_one[:, 1:] & in_other[:, :-1]
        changes = (left | entered).sum(axis=1)
        usual = 2 * in_one.mean() * in_other.mean() * (nearest.shape[1] - 1)
        # The absence of changes says nothing if few are expected.
        every = (changes >= _TO_AND_FRO * usual).all() or usual < _FEW_CHANGES
        if every and changes.sum() >= _TO_AND_FRO * usual * len(nearest):
            pair = same[[i, j]]
            same[np.isin(same, pair)] = max(pair, key=lambda mode: log_densities[mode])
    return same


def _mode_labels(
    post: xr.DataTree, modes: xr.Dataset, nearest: np.ndarray, shown: np.ndarray
) -> dict[int, str]:
    """Return a label of each mode, such as `birth = 0.54`.

    It has the one or two parameters that separate the modes best, by the distance of modes in units
    of the standard deviation within modes.

    Args:
        post: the posterior.
        modes: the group `modes`.
        nearest: the mode of each draw, `(chain, draw)`.
        shown: the modes that need a label.
    """
    held, names, tops, within = post["posterior"].to_dataset(), [], [], []
    for name, variable in modes.data_vars.items():
        if variable.attrs.get("group") == "science" and name in held:
            draws = by_chain(held[name])
            names += element_names(str(name), held[name])
            tops.append(variable.transpose("mode", ...).values.reshape(modes.sizes["mode"], -1))
            spreads = [draws[nearest == m].std(axis=0) for m in np.unique(nearest)]
            within.append(np.mean(spreads, axis=0))
    if not names:
        return {int(m): f"mode {m}" for m in shown}
    top = np.concatenate(tops, axis=1)
    apart = np.ptp(top[shown], axis=0) / np.maximum(np.concatenate(within), 1e-300)
    best = [i for i in np.argsort(-apart)[:2] if apart[i] >= min(_APART, apart.max())]
    return {int(m): ", ".join(f"{names[i]} = {top[m, i]:.3g}" for i in best) for m in shown}


def _mode_share(modes: xr.Dataset, nearest: np.ndarray, number: int) -> str:
    """Return the log density of a mode and its chains, as in `log density -132.6, chains 0, 2`.

    Args:
        modes: the group `modes`.
        nearest: the mode of each draw, `(chain, draw)`.
        number: the mode.
    """
    chains = np.flatnonzero((nearest == number).mean(axis=1) > 0.5)
    share = f"{(nearest == number).mean():.0%} of the draws"
    held = f"chains {', '.join(map(str, chains))}" if 0 < chains.size <= _NAMED else share
    return f"log density {float(modes['lp'][number]):.4g}, {held}"


def _solver_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield a finding on how far a finer solver moves the posterior (Timonen et al. 2023)."""
    if "solver_check" not in post.children:
        return
    found = post["solver_check"].attrs
    k = float(found["pareto_k"])
    shift = float(found["largest_shift_sd"])
    factor = f"{found['factor']:g}"
    draws = int(found["draws"])
    failures = int(found["failures"])
    moved = f"at most {shift:.2g} sd ({found['parameter']}), PSIS k-hat {k:.2f}"
    if int(found.get("corrected", 0)):
        worth = float(found["effective_draws"])
        yield Finding(
            "good",
            SOLVER_ACCURACY,
            f"{factor} times finer tolerances moved the posterior by {moved}; it was corrected by "
            f"weights worth {worth:.0f} of {draws} draws",
        )
        return
    bound = largest_pareto_k(draws)
    message = (
        f"at {factor} times finer tolerances the posterior moves by {moved}; "
        f"good below {_SHIFT:g} sd and {bound:.2f}"
    )
    if failures:
        message += f"; the finer solve failed in {failures} of {draws} draws"
    level, remedy = "good", ""
    if k >= bound or shift >= _FAR:
        level = "bad"
        remedy = (
            "fit again with tighter rtol and atol, before all else: a coarse solver makes a rough "
            "posterior, in which chains stick"
        )
    elif shift >= _SHIFT or failures:
        level = "warning"
        remedy = "bd.updating.check_solver(model, post, correct=True), or tighter tolerances"
    yield Finding(level, SOLVER_ACCURACY, message, remedy)


def _confounding_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield a finding on non-identifiability of a parameter and an unknown function (Plumlee 2017).

    Parameters and corrections of sound hybrids correlate, too. This is a fault only if the
    posterior of the parameter is nearly as wide as its prior.
    """
    if "confounding" not in post.children or not post["confounding"].attrs["draws"]:
        return
    found = post["confounding"].to_dataset()
    correlation = found["correlation"].values
    share = found["shift_sd"].values
    strong = (np.abs(correlation) >= _CONFOUNDED) & (share >= _SHARE)
    worst = int(np.abs(np.where(strong.any() & ~strong, 0.0, correlation)).argmax())
    said = ", ".join(
        f"{found['parameter'].values[i]} {correlation[i]:+.2f}"
        for i in np.flatnonzero(strong)
        if i != worst
    )
    of = found.attrs.get("of", "correction")
    could = f"the parameters could do {found.attrs['explained']:.0%} of what the {of} does"
    if not share.any():
        # Parameters of one value correlate with nothing.
        yield Finding("good", "confounding", could)
        return
    message = (
        f"the {of} moves most with {found['parameter'].values[worst]} (correlation "
        f"{correlation[worst]:+.2f}"
        f"{'; also ' + said if said else ''}); {could}"
    )
    remedy = (
        "Residual(…, orthogonal=data), a smaller scale of the closure, or a stronger prior of the "
        "parameter"
    )
    if of != "correction":
        remedy = (
            "say what it is at one place, such as 1 where it is a factor, or give the parameter a "
            "stronger prior"
        )
    open_ones = [
        name
        for name in found["parameter"].values[strong]
        if _width_left(post, str(name)) >= _UNSETTLED
    ]
    if strong.any() and not open_ones:
        message += (
            "; the data settle these parameters all the same: their posteriors are much narrower "
            "than their priors"
        )
    yield Finding("warning" if open_ones else "good", "confounding", message, remedy)


def _width_left(post: xr.DataTree, name: str) -> float:
    """Return the posterior width of a scalar parameter divided by its prior width.

    The result is 1 if a width is unknown.
    """
    if "prior" not in post.children or any(
        name not in post[group] for group in ("posterior", "prior")
    ):
        return 1.0
    held, before = (post[group].to_dataset()[name] for group in ("posterior", "prior"))
    draws = held.values.ravel()
    prior = before.values.ravel()
    if held.ndim > 2 or not (np.isfinite(draws).all() and np.isfinite(prior).all()):
        return 1.0
    if min(draws.min(), prior.min()) > 0:
        draws, prior = np.log(draws), np.log(prior)
    widths = [np.ptp(np.quantile(values, (0.16, 0.84))) for values in (draws, prior)]
    return float(widths[0] / widths[1]) if widths[1] > 0 else 1.0


def _constraint_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield a finding on the constraint residuals of the posterior, for each constraint."""
    for name, variable in (
        post["constraint_residual"].data_vars.items()
        if "constraint_residual" in post.children
        else ()
    ):
        subject = f"constraint {name}"
        residuals = variable.values[np.isfinite(variable.values)]
        if not residuals.size:
            remedy = "look at what the law divides by"
            yield Finding("bad", subject, "not finite in any draw", remedy)
            continue
        typical = float(np.median(residuals))
        lost = variable.size - residuals.size
        without = f", {lost} that are not finite left out" if lost else ""
        yield Finding(
            "good" if typical < _BROKEN else "warning",
            subject,
            f"broken by {typical:.2g} times what is tolerated (root mean square, median of the "
            f"draws{without})",
            "the data and the law disagree: look for what the law leaves out, or tolerate more",
        )


def _function_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield the findings of `bd.updating.check_functions` on too coarse unknown functions."""
    if "function_check" not in post.children:
        return
    found = post["function_check"].to_dataset()
    if not found.attrs["settled"]:
        yield model_finding(
            "warning",
            "unknown functions",
            "not judged: steps from the likeliest draw came to no best position, beside which to "
            "try finer ones",
            "see what is said of the sampling: the draws may lie far from where the posterior is",
        )
        return
    coarse = found.isel(function=np.flatnonzero(found["coarse"].values))
    for name in coarse["function"].values:
        row = {key: v.item() for key, v in coarse.sel(function=name).data_vars.items()}
        often = "none" if row["chance"] < _SELDOM else f"{row['chance']:.1%}"
        near = "" if math.isnan(row["near"]) else f", most near {row['input']} = {row['near']:.3g}"
        yield model_finding(
            "warning",
            f"unknown function {name}",
            f"too coarse: {row['finer']} beside it takes up what residuals hold{near}; that raises "
            "the log evidence by "
            f"{row['gain']:.3g}, as much as in {often} of data sets that the model itself draws",
            f"let it be as fine as that, or finer; else the data hang on {row['input']} in another "
            "way too",
        )
    if coarse.sizes["function"]:
        return
    which = ", ".join(map(str, found["function"].values))
    most = float(found["gain"].max())
    message = (
        f"finer ones beside {which} raise the log evidence by {most:.2g} at most, as by chance"
    )
    if (correlation := float(found.attrs.get("correlation", 0.0))) > 0:
        independent = float(found["gain_if_independent"].max())
        yield model_finding(
            "warning",
            "unknown functions",
            f"residuals are serially correlated (about {correlation:g} from one datum to the "
            "next); beside such noise "
            f"{message}; beside independent noise it would be {independent:.3g}",
            "let the noise be correlated (bd.filtering.CorrelatedNoise), then fit and check again; "
            "if a finer function is more "
            "plausible, more data tell the two apart",
        )
        return
    yield model_finding("good", "unknown functions", message)


def _length_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield findings on length scales that are too short for the number of basis functions.

    Source: Riutort-Mayol et al. (2023).
    """
    held = post["posterior"].to_dataset()
    for name, (shortest, size) in json.loads(post.attrs.get("shortest_lengths", "{}")).items():
        draws = held[name].values[np.isfinite(held[name].values)] if name in held else np.zeros(0)
        if draws.size and (below := float(np.mean(draws < shortest))) > 0.5:
            needed = math.ceil(size * shortest / np.quantile(draws, _TENTH))
            yield model_finding(
                "warning",
                f"shortness of {name}",
                f"{below:.0%} of the draws lie below {shortest:.3g}, the shortest that {size} "
                "functions represent",
                f"give the process a size of {needed}, and a prior that allows such lengths",
            )


def _tail_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield a finding on parameters whose posterior has no finite variance, by their tail index."""
    heavy = {}
    for name, variable in post["posterior"].to_dataset().data_vars.items():
        # Weights of networks and latent states are not reported one by one.
        if variable.attrs.get("group", "science") in ("network", "latent"):
            continue
        values, _ = finite_draws(by_chain(variable).astype(float))
        if not values.size:
            continue
        low, half, high = np.quantile(values, [0.25, 0.5, 0.75], axis=(0, 1))
        # The fit of a tail takes milliseconds: do it only if some draws are far out.
        far = np.abs(values - half).max(axis=(0, 1)) > _FAR_OUT * (high - low)
        for i in np.flatnonzero(far):
            k, error = tail_index(values[..., i])
            if k > _NO_VARIANCE + _SURELY * error:
                heavy[str(name)] = max(k, heavy.get(str(name), 0.0))
    if heavy:
        worst = sorted(heavy, key=lambda name: -heavy[name])
        said = ", ".join(f"{name} (k-hat {heavy[name]:.2f})" for name in worst[:3])
        more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
        yield Finding(
            "warning",
            "heavy tails",
            f"{said}{more}: draws with a k-hat above {_NO_VARIANCE} have no variance that more "
            "draws would settle",
            "read medians and quantiles, not means and standard deviations; take a prior with "
            "lighter tails where such "
            "values are not meant to be possible",
        )
