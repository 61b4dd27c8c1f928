"""Draws that are left out: the solver failed, or a prediction is not finite."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import xarray as xr

from .._findings import FAILURES, Finding, counted, for_a_failing_solve
from .draws_at_data import by_chain
from .matching import check_forecast, repeats

# Up to this share of failed draws, the other draws may represent the whole distribution.
FEW = 0.05
# Share of failed draws that needs no warning: leaving them out changes no probability by more.
SELDOM = 0.01
# Share of transitions with a failed solve that needs no warning: the Monte-Carlo error of a
# probability is far larger, 0.8 % for 4000 independent draws.
HARDLY = 0.001


def finite_findings(post: xr.DataTree, fc: xr.DataTree | None) -> Iterator[Finding]:
    """Yield findings on draws whose solve succeeded but whose predictions are not finite.

    Args:
        post: the posterior.
        fc: a forecast; None to look at the posterior alone.
    """
    yield from _overflow_findings(_not_finite(post, "conditional_mean"), _solved(post), "posterior")
    if fc is not None:
        odd = _not_finite(fc, "predictions")
        for name, found in _not_finite(fc, "conditional_mean").items():
            odd[name] = odd.get(name, False) | found
        yield from _overflow_findings(odd, _solved(fc), "forecast")


def usable_draws(fc: xr.DataTree) -> np.ndarray:
    """Flag the posterior draws of a forecast that were solved and have finite predictions.

    Returns:
        Flags `(chain, draw)`.
    """
    sizes = fc["predictions"].dataset.sizes
    lost = np.zeros((sizes["chain"], sizes["draw"] // repeats(fc)), bool)
    lost = np.any([lost, *_not_finite(fc, "predictions").values()], axis=0)
    solved = _solved(fc)
    return ~lost if solved is None else ~lost & solved


def usable(fc: xr.DataTree) -> np.ndarray:
    """Flag the predictive draws whose solve succeeded and whose values are all finite.

    If a posterior draw has several predictive draws, all have the same flag.

    Returns:
        Flags `(draw,)`, all chains one after the other.

    Raises:
        MismatchError: if `fc` is no forecast.
    """
    check_forecast(fc, "predictions")
    return np.repeat(usable_draws(fc), repeats(fc), axis=1).ravel()


def _not_finite(tree: xr.DataTree, group: str) -> dict[str, np.ndarray]:
    """Flag the posterior draws with a value that is not finite, in one group of a tree.

    Returns:
        Flags `(chain, draw)` by observable; none if the tree lacks the group.
    """
    each = repeats(tree) if group == "predictions" else 1
    variables = tree[group].to_dataset().data_vars if group in tree.children else {}
    found = {}
    for name, variable in variables.items():
        odd = ~np.isfinite(by_chain(variable)).all(axis=2)
        # Several predictive draws of one posterior draw lie one after the other.
        by_draw = odd.reshape(len(odd), odd.shape[1] // each, each)
        found[str(name)] = by_draw.any(axis=2)
    return found


def _flags_of_draws(tree: xr.DataTree | None, group: str, name: str) -> np.ndarray | None:
    """Return a variable as flags of draws `(chain, draw)`; None if the tree lacks it.

    Args:
        tree: a posterior or forecast.
        group: the group with the variable.
        name: the variable.
    """
    if tree is None or group not in tree.children or name not in tree[group].data_vars:
        return None
    return tree[group][name].transpose("chain", "draw").values.astype(bool)


def _solved(tree: xr.DataTree) -> np.ndarray | None:
    """Return flags `(chain, draw)` of the draws whose solve succeeded; None if unknown."""
    solved = _flags_of_draws(tree, "sample_stats_predictions", "ok")
    failed = _flags_of_draws(tree, "sample_stats", "solver_failure")
    return ~failed if solved is None and failed is not None else solved


def _overflow_findings(
    odd: dict[str, np.ndarray], solved: np.ndarray | None, draws: str
) -> Iterator[Finding]:
    """Yield a finding for each observable with draws that were solved but are not finite.

    Args:
        odd: flags `(chain, draw)` of draws that are not finite, by observable.
        solved: flags of draws whose solve succeeded; None if unknown.
        draws: the kind of draws, "posterior" or "forecast".
    """
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
    """Yield findings on solver failures in prior draws, posterior draws and the forecast."""
    prior = _flags_of_draws(post, "sample_stats_prior", "ok")
    posterior = _flags_of_draws(post, "sample_stats", "solver_failure")
    forecast = _flags_of_draws(fc, "sample_stats_predictions", "ok")
    # Posteriors of old versions do not say which settings their layer has: name all of them.
    solver = for_a_failing_solve(
        json.loads(post.attrs.get("solver_settings", '["max_steps", "rtol", "solver"]'))
    )
    failed_in = "the solver failed in "
    if prior is not None:
        # A wide prior may fail often while the posterior is sound, so this is never bad.
        yield counted(
            FAILURES,
            ~prior,
            "prior draws",
            seldom=SELDOM,
            remedy="narrow the priors that give trajectories nobody believes in; else " + solver,
            lead=failed_in,
            group="sample_stats_prior",
        )
    if posterior is not None:
        # All posterior draws are solved: the sampler rejects a proposal whose solve fails, which
        # leaves the posterior exact.
        yield counted(
            FAILURES,
            posterior,
            "posterior draws",
            seldom=HARDLY,
            remedy="the draws are valid: the posterior reaches to where the solver fails. If it "
            f"should not, narrow the priors; else {solver}",
            lead="a failing solve cut short ",
            met=" met",
            group="sample_stats",
        )
    if forecast is not None:
        yield counted(
            FAILURES,
            ~forecast,
            "forecast draws",
            seldom=SELDOM,
            often=FEW,
            remedy="the failed draws are left out, so the forecast is conditional on success: "
            + solver,
            lead=failed_in,
            group="sample_stats_predictions",
        )


def usable_predictions(fc: xr.DataTree) -> xr.Dataset:
    """Return the predictions in the usable draws, with all chains in one dimension `sample`.

    Returns:
        A dataset over `sample` and the dimensions of the data.

    Raises:
        MismatchError: if `fc` is no forecast.
    """
    kept = usable(fc)
    held = fc["predictions"].to_dataset().drop_vars(["chain", "draw"], errors="ignore")
    return held.stack(sample=("chain", "draw"), create_index=False).isel(
        sample=np.flatnonzero(kept)
    )
