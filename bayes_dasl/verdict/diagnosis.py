"""The diagnosis of a fit: findings with reasons and remedies, and a verdict."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from .._findings import (
    Diagnosis,
    Finding,
    counted,
    is_lost_look,
    kept_findings,
    model_finding,
    unshown_spread,
)
from ..errors import MismatchError
from ..prediction.posterior import are_chains
from ..scores.failures import HARDLY, failure_findings, finite_findings
from ..scores.matching import check_forecast, check_same
from .adequacy import adequacy_findings, borne_out_by
from .chain_convergence import (
    Words,
    agreed,
    chain_findings,
    energy_findings,
    mixing_findings,
    quantities,
    variables,
)
from .posterior_findings import posterior_findings, unseen_functions

# Target acceptance rates that a remedy proposes: the first one above the rate of the fit.
_ACCEPTANCE = (0.95, 0.99)


def diagnose(
    post: xr.DataTree,
    fc: xr.DataTree | None = None,
    test: xr.Dataset | None = None,
    *,
    competitors: Mapping[str, xr.DataTree] | None = None,
) -> Diagnosis:
    """Judge whether the sampling of a fit can be trusted, and whether the model fits.

    **Sampling** is tested by R-hat, effective sample sizes, energy, divergences and failures. The
    tested quantities are science parameters, trajectories (conditional means at the training times)
    and the vector field of a network, also along the forecast. Weights of networks are not tested,
    since several sets of weights give the same function. Of more than 200 points, 200 evenly spaced
    ones are tested. For more than ten quantities, the bounds allow for the maximum of so many.
    Draws that are not finite are left out and counted. For draws that are no chains, such as an
    ensemble, the findings come from their engine; held-out data may confirm their spread.

    **The model** is tested as far as a forecast and data allow:

    - training data, by residuals compared with simulated ones: their size, serial correlation,
    tails,
      skewness, and growth with the prediction; in a population also by differences of scale between
      groups;
    - held-out data, by coverage, by CRPS, and by whether climatology, persistence or a competing
      model forecasts better. Data that could hardly have shown a fault are "inconclusive". If the
      forecast is for other data whose index has the same values as fitted rows, they count as held
      out;
    - the prior, by how far the posterior lies from it. Hyperparameters are tested in place of
    random
      effects.

    Args:
        post: the result of `fit`.
        fc: a forecast made from it, at the times of the fitted and the held-out data.
        test: held-out data; fitted values in it are ignored.
        competitors: forecasts of other models by name, which may be recalibrated.

    Returns:
        The findings, and a verdict that `print` shows.

    Raises:
        MismatchError: if `post` is no posterior, or `fc` is no forecast or was made from another
            posterior. Also if the data have other inputs than the fit at the same values of the
            index.

    Source: Vehtari et al. (2021), Rank-normalization, folding, and localization.

    Example:
        ```python
        post = bd.fit(model, train)
        verdict = bd.diagnose(post, bd.forecast(model, post, data), test)
        print(verdict)
        assert verdict.level in ("good", "inconclusive")
        ```
    """
    _check_diagnosed(post, fc, competitors)
    _check_made_from(post, fc)
    said = borne_out_by(post, fc, test, _engine_findings(post))
    # Draws that are no chains have no R-hat: only their engine can assess them.
    judged = quantities(post, fc) if are_chains(post) else ()
    of_draws = posterior_findings(post, agreed=all(map(agreed, judged)))
    if are_chains(post):
        of_chains = mixing_findings(judged, int(post.attrs.get("superchains", 0)), Words.of(post))
        found = [
            *_run_findings(post),
            *said,
            *of_draws,
            *of_chains,
            *chain_findings(post, judged),
            *energy_findings(post),
            *_divergence_findings(post),
        ]
    else:
        found = [*said, *of_draws]
    found += [*failure_findings(post, fc), *finite_findings(post, fc), *_what_if_findings(fc)]
    found += adequacy_findings(post, fc, test, competitors or {})
    return Diagnosis(tuple(found), unseen_functions(post))


def _check_diagnosed(post: Any, fc: Any, competitors: Any) -> None:
    """Raise MismatchError unless the arguments of `diagnose` have the right types and groups."""
    if not isinstance(post, xr.DataTree) or "posterior" not in post.children:
        raise MismatchError(
            "this is no posterior: it has no group 'posterior'; give the result of bd.fit"
        )
    if not isinstance(competitors, Mapping | None):
        raise MismatchError(
            f"competitors must be a dict of forecasts by name, not {type(competitors).__name__}"
        )
    if fc is not None:
        check_forecast(fc, "predictions", "conditional_mean", "conditional_variance")
    for competitor in (competitors or {}).values():
        check_forecast(competitor, "predictions")
    if fc is not None and competitors:
        check_same(
            fc["predictions"].data_vars,
            {name: fc["predictions"].data_vars for name, fc in competitors.items()},
        )


def _check_made_from(post: xr.DataTree, fc: xr.DataTree | None) -> None:
    """Raise MismatchError for a forecast from another model, other data, or other draws."""
    if fc is not None and "mixture" in fc.attrs:
        raise MismatchError(
            "a mixture is of several posteriors, not of this one: give it as one of the competitors"
        )
    of, ours = (
        "" if tree is None else tree.attrs.get("posterior_sha256", "") for tree in (fc, post)
    )
    if of and ours and of != ours:
        raise MismatchError(
            "this forecast was made from a posterior of another model or other data: forecast anew"
        )
    if fc is None or not of or "posterior" not in fc.children:  # made by hand
        return
    # The same model and data may have several posteriors, by different engines and random seeds.
    for name, pushed in fc["posterior"].to_dataset().items():
        if name in post["posterior"]:
            pushed, drawn = xr.align(
                pushed, post["posterior"].to_dataset()[name], join="inner"
            )  # one of them may be thinned
            if not np.array_equal(
                pushed.values, drawn.transpose(*pushed.dims).values, equal_nan=True
            ):
                raise MismatchError(
                    "this forecast was made from other draws than those of this posterior, as "
                    "those of another engine "
                    "or key: forecast anew"
                )


def _what_if_findings(fc: xr.DataTree | None) -> Iterator[Finding]:
    """Yield a warning if the forecast was made with another model than the fitted one."""
    if fc is not None and fc.attrs.get("what_if", 0):
        message = "the forecast is of another model than the fitted one, by draws of the latter"
        remedy = "read it as what would be; to judge the model itself, fit it"
        yield model_finding("warning", "what if", message, remedy)


def _engine_findings(post: xr.DataTree) -> tuple[Finding, ...]:
    """Return the findings of the engine on its run.

    If there are none and the draws are no chains, a warning says that the engine reports nothing.
    """
    said = kept_findings(post)
    if are_chains(post) or not all(map(is_lost_look, said)):
        return said
    return unshown_spread("the engine says nothing of its draws"), *said


def _run_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield findings on an interrupted run, and on a single chain."""
    sizes = post["posterior"].sizes
    chains = sizes.get("chain", 1)
    draws = sizes.get("draw", 0)
    if post.attrs.get("interrupted", 0):
        requested = post.attrs.get("draws_requested", "the requested")
        yield Finding(
            "warning",
            "interrupted run",
            f"stopped after {draws} of {requested} draws in each chain",
            "fit again for the rest of the draws, or go on with those there are",
        )
    one = Words.of(post).one
    if chains == 1:
        yield Finding(
            "warning",
            f"single {one}",
            f"with one {one} nothing shows whether others would end elsewhere; its halves are "
            "compared instead",
            f"take four {one}s",
        )


def _divergence_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield the finding on the number of divergences; none if the engine counts none."""
    stats = dict(variables(post, "sample_stats"))
    diverging = stats.get("diverging")
    cut_short = stats.get("solver_failure")
    if diverging is None:
        return
    if cut_short is not None:
        # A trajectory that meets a failing solve diverges too: it counts as a failure instead.
        diverging = diverging & ~cut_short
    asked = re.search(r"target_acceptance=([0-9.]+)", str(post.attrs.get("engine", "")))
    higher = next((rate for rate in _ACCEPTANCE if rate > float(asked[1] if asked else 0)), None)
    raised = "" if higher is None else f"raise the target acceptance rate ({higher}), or "
    yield counted(
        "divergences",
        diverging.values,
        "draws",
        seldom=HARDLY,
        often=0.01,
        remedy=f"{raised}tighten the prior where the draws diverge",
    )
