"""Whether a fit can be trusted: a verdict with reasons, and a remedy for each fault."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from .._findings import FAILURES, Diagnosis, Finding, Level, from_json, grade, nested_finding
from .._statistics.convergence import (
    allowance,
    effective_sizes,
    finite_draws,
    moving_quantities,
    nested_rhat,
    rhat,
)
from .._statistics.thinning import thinned
from ..errors import MismatchError
from .adequacy import adequacy_findings, borne_out_by
from .finite import FEW, finite_findings
from .posterior_findings import posterior_findings
from .scores import check_forecast

MOST_COLUMNS = 200  # points of trajectories, and of vector fields, that are looked at
_PASSABLE_RHAT = 1.05
_SUBJECTS = {"conditional_mean": "trajectories", "vector_field": "vector field"}
_AHEAD = "vector field along the forecast"
FEWEST_DRAWS = 8  # halves of four draws are the least that R-hat takes
SPEED_UP = "run longer, or give the parameters that move together a stronger prior"


def diagnose(
    post: xr.DataTree,
    fc: xr.DataTree | None = None,
    test: xr.Dataset | None = None,
    *,
    rivals: Mapping[str, xr.DataTree] | None = None,
) -> Diagnosis:
    """Judge a fit and the forecast made from it: can the sampling be trusted, and does the model fit?

    The sampling is judged by mixing, energy, divergences and failures. The model is judged as far as a forecast and
    data allow: at the times that were fitted its residuals are compared with those that it draws itself (their size,
    order, tails, symmetry, and evenness: whether they grow or shrink with what is predicted); held-out data by the
    coverage of its intervals, by how far out they lie, and by whether climatology, persistence or a rival forecasts
    better; its prior by where the data take the parameters.

    Convergence is judged on the science parameters, on the trajectories (the conditional means at the training times)
    and, where a network is part of it, on the vector field (at states along these and along the forecast); never on the
    weights of a network, of which several sets say the same. Of more than 200 points 200 evenly spaced ones are looked
    at, and the bounds of R-hat and effective sample sizes allow for the worst of more than ten. Draws that are not
    finite are left out and counted. Members of an ensemble and other draws that are no chains are judged by how they
    were made, which the engine itself says; where it cannot say whether they spread as the posterior does, held-out
    data may.

    Args:
        post: what `fit` returned.
        fc: a forecast made from it, at the times of the data that were fitted and of those that were not.
        test: data that the fit has not seen; what was fitted is left out of it.
        rivals: forecasts of other models by name.

    Raises: MismatchError for what is no posterior or no forecast, or a forecast that was made from another posterior.
    Source: Vehtari et al. (2021), Rank-normalization, folding, and localization.
    """
    _check_arguments(post, fc, rivals)
    _check_made_from(post, fc)
    said = borne_out_by(post, fc, test, from_json(post.attrs.get("findings", "[]")))
    fits = (*_what_if_findings(fc), *adequacy_findings(post, fc, test, rivals or {}))
    if not are_chains(post):
        failed = (*_failure_findings(post, fc), *finite_findings(post, fc))
        return Diagnosis((*said, *posterior_findings(post, agreed=True), *failed, *fits))
    science = _columns(post, "posterior", "science")
    # Where only the noise is unknown, the trajectories rightly never move.
    trajectories = _columns(post, "conditional_mean") if _layer_is_inferred(post) else _none("trajectories")
    judged = (science, trajectories, _columns(post, "vector_field"), *_columns_ahead(fc))
    return Diagnosis(
        (
            *_run_findings(post),
            *said,
            *posterior_findings(post, agreed=all(map(_agreed, judged))),
            *_mixing_findings(judged, int(post.attrs.get("superchains", 0))),
            *_chain_findings(post, judged),
            *_energy_findings(post),
            *_divergence_findings(post),
            *_failure_findings(post, fc),
            *finite_findings(post, fc),
            *fits,
        )
    )


def _check_arguments(post: object, fc: object, rivals: object) -> None:
    if not isinstance(post, xr.DataTree) or "posterior" not in post.children:
        raise MismatchError("this is no posterior: it has no group 'posterior'; give the result of bd.fit")
    if not isinstance(rivals, Mapping | None):
        raise MismatchError(f"rivals must be a dict of forecasts by name, not {type(rivals).__name__}")
    for forecast in (*([] if fc is None else [fc]), *(rivals or {}).values()):
        check_forecast(forecast, "predictions", "conditional_mean", "conditional_variance")


def _check_made_from(post: xr.DataTree, fc: xr.DataTree | None) -> None:
    """Raises: MismatchError for a forecast from a posterior of another model or other data."""
    of, ours = ("" if tree is None else tree.attrs.get("posterior_sha256", "") for tree in (fc, post))
    if of and ours and of != ours:
        raise MismatchError("this forecast was made from a posterior of another model or other data: forecast anew")


def _what_if_findings(fc: xr.DataTree | None) -> Iterator[Finding]:
    if fc is not None and fc.attrs.get("what_if", 0):
        message = "the forecast is of another model than the fitted one, by draws of the latter"
        remedy = "read it as what would be; to judge the model itself, fit it"
        yield Finding("warning", "what if", message, remedy, aspect="model")


def are_chains(post: xr.DataTree) -> bool:
    """Whether the draws are those of chains, rather than members, masks or a point."""
    return bool(post.attrs.get("markov", 1))


def _layer_is_inferred(post: xr.DataTree) -> bool:
    found = [variable for group in ("posterior", "latent") for _, variable in _variables(post, group)]
    return any(not str(variable.attrs.get("path", "")).startswith("noise.") for variable in found)


class _Columns(NamedTuple):
    """Named scalar quantities: `values` is `(chain, draw, quantity)`, all finite."""

    subject: str
    names: list[str]
    values: np.ndarray
    left_out: int

    @property
    def moving(self) -> np.ndarray:
        return moving_quantities(self.values)


def _columns_ahead(fc: xr.DataTree | None) -> list[_Columns]:
    """The vector field where the forecast goes."""
    return [] if fc is None else [_columns(fc, "vector_field")._replace(subject=_AHEAD)]


def _none(subject: str) -> _Columns:
    return _Columns(subject, [], np.empty((0, 0, 0)), 0)


def _agreed(columns: _Columns) -> bool:
    """Whether chains drew the same distribution, good or not."""
    if not columns.names:
        return True
    if columns.values.shape[1] < FEWEST_DRAWS:
        return False
    return bool((rhat(columns.values[..., columns.moving]) < _PASSABLE_RHAT).all())


def _columns(post: xr.DataTree, group: str, kind: str = "") -> _Columns:
    """Collect the quantities of a group; in `posterior`, those of a kind."""
    subject = "science parameters" if kind else _SUBJECTS[group]
    names, blocks = [], []
    for name, variable in _variables(post, group):
        if not kind or variable.attrs.get("group", "science") == kind:
            values = variable.transpose("chain", "draw", ...)
            names += _element_names(name, values)
            blocks.append(values.values.reshape(*values.shape[:2], -1))
    if not blocks:
        return _none(subject)
    values = np.concatenate(blocks, axis=2).astype(float)
    if not kind and len(names) > MOST_COLUMNS:
        chosen = thinned(len(names), MOST_COLUMNS)
        names, values = [names[i] for i in chosen], values[..., chosen]
    return _Columns(subject, names, *finite_draws(values))


def _variables(post: xr.DataTree, group: str) -> Iterator[tuple[str, xr.DataArray]]:
    if group in post.children:
        for name, variable in post[group].to_dataset().data_vars.items():
            yield str(name), variable


def _element_names(name: str, variable: xr.DataArray) -> list[str]:
    inner = variable.dims[2:]
    if inner and all(dim in variable.coords for dim in inner):
        places = itertools.product(*(variable[dim].values for dim in inner))
        return [f"{name} at {', '.join(f'{d} {v:g}' for d, v in zip(inner, at, strict=True))}" for at in places]
    indices = np.ndindex(variable.shape[2:])
    return [f"{name}[{', '.join(map(str, i))}]" if i else name for i in indices]


def _run_findings(post: xr.DataTree) -> Iterator[Finding]:
    sizes = post["posterior"].sizes
    chains, draws = sizes.get("chain", 1), sizes.get("draw", 0)
    if post.attrs.get("interrupted", 0):
        requested = post.attrs.get("draws_requested", "the requested")
        yield Finding(
            "warning",
            "interrupted run",
            f"stopped after {draws} of {requested} draws in each chain",
            "fit again for the rest of the draws, or go on with those there are",
        )
    if chains == 1:
        yield Finding(
            "warning",
            "single chain",
            "with one chain nothing shows whether others would end elsewhere; its halves are compared instead",
            "run four chains",
        )


def _mixing_findings(judged: Iterable[_Columns], superchains: int) -> Iterator[Finding]:
    for columns in judged:
        yield from _mixing(columns, superchains)


def _mixing(columns: _Columns, superchains: int) -> Iterator[Finding]:
    """R-hat and effective sample size of a set of quantities; nothing for an empty set.

    Of many short chains R-hat is above one whatever they do: there it is the nested one, of `superchains`, which for
    the parameters themselves the run has found already.
    """
    subject, values, moving = columns.subject, columns.values, columns.moving
    if not columns.names:
        return
    if columns.left_out and subject != "trajectories":  # of which each observable is told apart
        yield Finding(
            "bad",
            subject,
            f"{columns.left_out} draws are not finite, and left out",
            "look at the priors: a number that overflows points to one that is far too wide",
        )
    if values.shape[1] < FEWEST_DRAWS:
        yield Finding(
            "bad",
            f"mixing of {subject}",
            f"{values.shape[1]} usable draws in each chain are too few to judge convergence",
            f"draw at least {FEWEST_DRAWS}, better 1000, in each chain",
        )
        return
    fixed = [name for name, moves in zip(columns.names, moving, strict=True) if not moves]
    # A known initial value is a trajectory point that rightly never moves.
    if fixed and (subject == "science parameters" or not moving.any()):
        yield Finding(
            "bad",
            f"mixing of {subject}",
            f"{_listed(fixed)} never moved: every draw is the same",
            "start again with another key; if it stays, check the prior and the gradient",
        )
    if moving.any():
        names = [name for name, moves in zip(columns.names, moving, strict=True) if moves]
        found = rhat(values[..., moving])
        allowed = allowance(len(names), max(2 * len(values), 4))
        if not superchains:
            yield _rhat_finding(subject, names, found, allowed)
        elif subject != "science parameters":
            nested = nested_rhat(values[..., moving], superchains)
            yield nested_finding(nested, f" of {subject}", allowance(len(names), superchains))
        apart = bool(found.max() > _PASSABLE_RHAT)
        yield _ess_finding(subject, names, values[..., moving], allowed, apart=apart)


def _rhat_finding(subject: str, names: list[str], found: np.ndarray, allowed: float) -> Finding:
    worst, most = int(found.argmax()), 1 + 0.01 * allowed
    level = grade(-found[worst], good=-most, warning=-_PASSABLE_RHAT)
    of = f" for {len(names)} of them" if allowed > 1 else ""
    message = f"highest {found[worst]:.3f} ({names[worst]}), good below {most:.4g}{of}"
    remedies = {
        "science parameters": SPEED_UP,
        "trajectories": "run longer; if chains stay apart for good, more chains and a tighter prior",
        "vector field": "draw more; if chains stay apart, a smaller network or a smaller scale of its prior",
    }
    remedies[_AHEAD] = remedies["vector field"]
    return Finding(level, f"R-hat of {subject}", message, "" if level == "good" else remedies[subject])


def _ess_finding(subject: str, names: list[str], values: np.ndarray, allowed: float, *, apart: bool) -> Finding:
    chains, draws = values.shape[:2]
    bulk, tail = effective_sizes(values)
    low = min(bulk.min(), tail.min())
    wanted = 100.0 * min(chains, 4) / allowed
    level = grade(low, good=wanted, warning=wanted / 2)
    message = (
        f"lowest bulk {bulk.min():.0f} ({names[int(bulk.argmin())]}) and tail {tail.min():.0f} "
        f"({names[int(tail.argmin())]}) of {chains * draws} draws, good from {wanted:.0f}"
    )
    # Chains that disagree are not cured by length; else, what brings the worst one to the mark.
    needed = int(np.ceil(draws * wanted / max(low, 1.0) / 100)) * 100
    longer = f"draw about {needed} in each chain, or find what makes the chains slow"
    remedy = "see why the chains disagree first (R-hat)" if apart else longer
    return Finding(level, f"effective sample size of {subject}", message, "" if level == "good" else remedy)


def _chain_findings(post: xr.DataTree, groups: Iterable[_Columns]) -> Iterator[Finding]:
    """Name the chains that sit, or stand still, apart from the others."""
    blocks = [columns.values for columns in groups if columns.names]
    for name, variable in _variables(post, "sample_stats"):
        if name == "lp":
            lp = variable.transpose("chain", "draw").values.astype(float)
            blocks.append(finite_draws(lp[..., None])[0])
    apart = np.any([_apart(block) for block in blocks if block.shape[1] >= FEWEST_DRAWS], axis=0)
    stuck = post["posterior"].to_dataset()["chain"].values[np.flatnonzero(apart)]
    if stuck.size == 0:
        return
    chains = ("chain " if stuck.size == 1 else "chains ") + ", ".join(map(str, stuck))
    where = "away from the others" if 2 * stuck.size < apart.size else "in different places"
    yield Finding(
        "bad",
        "stuck chain" if stuck.size == 1 else "stuck chains",
        f"{chains} sit{'s' if stuck.size == 1 else ''} {where}",
        "run again with more starts or another key; if it comes back, the posterior has several "
        "modes: tighten the prior, or report them",
    )


def _apart(values: np.ndarray) -> np.ndarray:
    r"""Flag chains whose median is a spread away from the others' in a quantity that mixes badly.

    $|\mathrm{median}_c - \mathrm{median}_{c'}\,\mathrm{median}_{c'}| > s$, with $s$ the median
    standard deviation within a chain; a chain that moves less than a tenth of $s$ stands still.
    """
    chains = values.shape[0]
    # Poor mixing is asked for first: over few draws, good chains differ by chance.
    mixed_badly = rhat(values) > _PASSABLE_RHAT
    if chains == 1 or not mixed_badly.any():
        return np.zeros(chains, bool)
    medians, spreads = np.median(values, axis=1), values.std(axis=1)
    spread = np.median(spreads, axis=0)
    away = np.abs(medians - np.median(medians, axis=0)) > spread
    still = spreads < 0.1 * spread
    return ((away | still) & mixed_badly).any(axis=1)


def _energy_findings(post: xr.DataTree) -> Iterator[Finding]:
    from arviz_stats.base.array import array_stats

    energy = dict(_variables(post, "sample_stats")).get("energy")
    if energy is None:
        return
    values, _ = finite_draws(energy.transpose("chain", "draw").values.astype(float)[..., None])
    values = values[..., 0]
    if values.shape[1] < FEWEST_DRAWS or np.any(np.ptp(values, axis=1) == 0):
        return
    bfmi = np.array(list(array_stats.bfmi(values, chain_axis=0, draw_axis=1)), float)
    chain = energy["chain"].values[bfmi.argmin()]
    level = grade(float(bfmi.min()), good=0.3, warning=0.2)
    message = f"lowest {bfmi.min():.2f} (chain {chain}), good from 0.3"
    remedy = "the tails are explored slowly: use a tighter or non-centred prior"
    yield Finding(level, "BFMI", message, "" if level == "good" else remedy)


def _divergence_findings(post: xr.DataTree) -> Iterator[Finding]:
    stats = dict(_variables(post, "sample_stats"))
    diverging, cut_short = stats.get("diverging"), stats.get("solver_failure")
    if diverging is None:
        return
    if cut_short is not None:  # a trajectory that meets a failing solve diverges too: it is counted there
        diverging = diverging & ~cut_short
    count, size = int(diverging.sum()), diverging.size
    if count == 0:
        yield Finding("good", "divergences", f"none in {size} draws")
        return
    yield Finding(
        "bad" if count > 0.01 * size else "warning",
        "divergences",
        f"{count} of {size} draws ({100 * count / size:.3g} %)",
        "raise the target acceptance rate (0.95), or tighten the prior where the draws diverge",
    )


def _failure_findings(post: xr.DataTree, fc: xr.DataTree | None) -> Iterator[Finding]:
    """Count the solver failures of the prior draws, the posterior draws and the forecast."""
    prior = dict(_variables(post, "sample_stats_prior")).get("ok")
    posterior = dict(_variables(post, "sample_stats")).get("solver_failure")
    forecast = None if fc is None else dict(_variables(fc, "sample_stats_predictions")).get("ok")
    solver = "raise the solver's max_steps, loosen its tolerances or use a stiff solver"
    if prior is not None:
        remedy = "narrow the priors that give trajectories nobody believes in; else " + solver
        yield _failures("prior", "sample_stats_prior", ~prior.values.astype(bool), remedy)
    if posterior is not None:
        yield _cut_short(posterior.values.astype(bool), solver)
    if forecast is not None:
        remedy = "the failed draws are left out, so the forecast is conditional on success: " + solver
        yield _failures("forecast", "sample_stats_predictions", ~forecast.values.astype(bool), remedy)


def _cut_short(failed: np.ndarray, solver: str) -> Finding:
    """Draws of the posterior are all solved; some transitions met a failing solve and turned back, exactly."""
    count, size = int(failed.sum()), failed.size
    if count == 0:
        return Finding("good", FAILURES, f"none met in {size} posterior draws (sample_stats)")
    message = f"a failing solve cut short {count} of {size} posterior draws ({100 * count / size:.3g} %, sample_stats)"
    remedy = "the draws are valid: the posterior reaches to where the solver fails. If it should not, narrow the priors"
    return Finding("warning", FAILURES, message, f"{remedy}; else {solver}")


def _failures(draws: str, group: str, failed: np.ndarray, remedy: str) -> Finding:
    count, size = int(failed.sum()), failed.size
    if count == 0:
        return Finding("good", FAILURES, f"none in {size} {draws} draws ({group})")
    # A wide prior may fail often and the posterior be sound; a forecast that fails often is conditional on success.
    level: Level = "bad" if draws != "prior" and count > FEW * size else "warning"
    share = f"{100 * count / size:.3g} %"
    message = f"the solver failed in {count} of {size} {draws} draws ({share}, {group})"
    return Finding(level, FAILURES, message, remedy)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
