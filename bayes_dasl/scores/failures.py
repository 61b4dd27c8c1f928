"""Draws that are lost: the solver failed, or a prediction is infinite or no number. They are left
out, and told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import xarray as xr

from .._findings import FAILURES, Finding, Level, for_a_failing_solve
from .matching import check_forecast, repeats

FEW = 0.05  # a share of draws up to which the others may stand for those that are left out
SELDOM = 0.01
"""A share of lost draws that needs no warning: without them no probability changes by more than
that.
"""
HARDLY = 0.001
"""A share of transitions that may go wrong without a warning: the Monte-Carlo error of a
probability, 0.8 % of 4000 independent draws, is far larger."""


def finite_findings(post: xr.DataTree, fc: xr.DataTree | None) -> Iterator[Finding]:
    """Draws that were solved, but whose predictions overflow."""
    yield from _told(_not_finite(post, "conditional_mean"), _solved(post), "posterior")
    if fc is not None:
        odd = _not_finite(fc, "predictions")
        for name, found in _not_finite(fc, "conditional_mean").items():
            odd[name] = odd.get(name, False) | found
        yield from _told(odd, _solved(fc), "forecast")


def usable_draws(fc: xr.DataTree) -> np.ndarray:
    """Which draws of the posterior `(chain, draw)` were solved in a forecast and have finite
    predictions only.
    """
    sizes = fc["predictions"].dataset.sizes
    usable = np.ones((sizes["chain"], sizes["draw"] // repeats(fc)), bool)
    for found in _not_finite(fc, "predictions").values():
        usable &= ~found
    solved = _solved(fc)
    return usable if solved is None else usable & solved


def usable(fc: xr.DataTree) -> np.ndarray:
    """Which predictive draws, all chains one after the other, were solved and are finite
    throughout.

    Raises:
        MismatchError: for what is no forecast.
    """
    check_forecast(fc, "predictions")
    return np.repeat(usable_draws(fc), repeats(fc), axis=1).ravel()


def _not_finite(tree: xr.DataTree, group: str) -> dict[str, np.ndarray]:
    """By observable, which draws of the posterior `(chain, draw)` have a value that is infinite or
    no number.
    """
    each = repeats(tree) if group == "predictions" else 1
    variables = tree[group].to_dataset().data_vars if group in tree.children else {}
    values = {
        str(name): variable.transpose("chain", "draw", ...).values
        for name, variable in variables.items()
    }
    return {
        name: ~np.isfinite(v.reshape(len(v), v.shape[1] // each, -1)).all(axis=2)
        for name, v in values.items()
    }


def _flags(tree: xr.DataTree | None, group: str, name: str) -> np.ndarray | None:
    """A yes or no of each draw `(chain, draw)`, if there is one."""
    if tree is None or group not in tree.children or name not in tree[group].data_vars:
        return None
    return tree[group][name].transpose("chain", "draw").values.astype(bool)


def _solved(tree: xr.DataTree) -> np.ndarray | None:
    """Which draws are not counted as failures of the solver already."""
    solved, failed = (
        _flags(tree, "sample_stats_predictions", "ok"),
        _flags(tree, "sample_stats", "solver_failure"),
    )
    return ~failed if solved is None and failed is not None else solved


def _told(odd: dict[str, np.ndarray], solved: np.ndarray | None, draws: str) -> Iterator[Finding]:
    for name, every in odd.items():
        found = every if solved is None else every & solved
        if found.any():
            yield Finding(
                "bad" if found.mean() > FEW else "warning",
                f"finite {name}",
                f"'{name}' is infinite or not a number in {int(found.sum())} of {found.size} "
                f"{draws} draws, and these "
                "are left out",
                "look at these draws: the scale of the noise may be so large that the mean "
                "overflows, a sign that the "
                "model predicts nothing like the data, or an equation may divide by zero",
            )


def failure_findings(post: xr.DataTree, fc: xr.DataTree | None) -> Iterator[Finding]:
    """Count the solver failures of the prior draws, the posterior draws and the forecast."""
    prior = _flags(post, "sample_stats_prior", "ok")
    posterior = _flags(post, "sample_stats", "solver_failure")
    forecast = _flags(fc, "sample_stats_predictions", "ok")
    # A posterior that does not say what its layer has is of a version whose remedies named all of
    # it.
    solver = for_a_failing_solve(
        json.loads(post.attrs.get("solver_settings", '["max_steps", "rtol", "solver"]'))
    )
    if prior is not None:
        remedy = "narrow the priors that give trajectories nobody believes in; else " + solver
        yield _failures("prior", "sample_stats_prior", ~prior, remedy)
    if posterior is not None:
        yield _cut_short(posterior, solver)
    if forecast is not None:
        remedy = (
            "the failed draws are left out, so the forecast is conditional on success: " + solver
        )
        yield _failures("forecast", "sample_stats_predictions", ~forecast, remedy)


def _cut_short(failed: np.ndarray, solver: str) -> Finding:
    """Draws of the posterior are all solved; some transitions met a failing solve and turned back,
    exactly.
    """
    count, size = int(failed.sum()), failed.size
    if count == 0:
        return Finding("good", FAILURES, f"none met in {size} posterior draws (sample_stats)")
    message = (
        f"a failing solve cut short {count} of {size} posterior draws ({100 * count / size:.3g} %, "
        "sample_stats)"
    )
    if count <= HARDLY * size:
        return Finding("good", FAILURES, f"{message}: too few to matter")
    remedy = (
        "the draws are valid: the posterior reaches to where the solver fails. If it should not, "
        "narrow the priors"
    )
    return Finding("warning", FAILURES, message, f"{remedy}; else {solver}")


def _failures(draws: str, group: str, failed: np.ndarray, remedy: str) -> Finding:
    count, size = int(failed.sum()), failed.size
    if count == 0:
        return Finding("good", FAILURES, f"none in {size} {draws} draws ({group})")
    share = f"{100 * count / size:.3g} %"
    message = f"the solver failed in {count} of {size} {draws} draws ({share}, {group})"
    if count <= SELDOM * size:
        return Finding("good", FAILURES, f"{message}: too few to matter")
    # A wide prior may fail often and the posterior be sound; a forecast that fails often is
    # conditional on success.
    level: Level = "bad" if draws != "prior" and count > FEW * size else "warning"
    return Finding(level, FAILURES, message, remedy)


def usable_predictions(fc: xr.DataTree) -> xr.Dataset:
    """What a forecast predicts, in the draws that are usable throughout, all chains one after the
    other as `sample`.

    Raises:
        MismatchError: for what is no forecast.
    """
    kept = usable(fc)
    held = fc["predictions"].to_dataset().drop_vars(["chain", "draw"], errors="ignore")
    return held.stack(sample=("chain", "draw"), create_index=False).isel(
        sample=np.flatnonzero(kept)
    )
