"""Whether a fit can be trusted: a verdict with reasons, and a remedy for each fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from .._findings import Diagnosis, Finding, from_json, is_lost_look, unshown_spread
from ..errors import MismatchError
from ..prediction.posterior import are_chains
from ..scores.failures import HARDLY, failure_findings, finite_findings
from ..scores.matching import check_forecast, check_same
from .adequacy import adequacy_findings, borne_out_by
from .mixing import (
    Words,
    agreed,
    chain_findings,
    energy_findings,
    mixing_findings,
    quantities,
    variables,
)
from .posterior_findings import posterior_findings, unseen_functions


def diagnose(
    post: xr.DataTree,
    fc: xr.DataTree | None = None,
    test: xr.Dataset | None = None,
    *,
    rivals: Mapping[str, xr.DataTree] | None = None,
) -> Diagnosis:
    """Judge a fit and the forecast made from it: can the sampling be trusted, and does the model
    fit?

    The sampling is judged by mixing, energy, divergences and failures. The model is judged as far
    as a forecast and data allow: at the times that were fitted its residuals are compared with
    those that it draws itself (their size, order, tails, symmetry, and evenness: whether they grow
    or shrink with what is predicted; in a population whether their scale differs between members);
    held-out data by the coverage of its intervals (all in all and by size of forecast), by how far
    out they lie, and by whether climatology, persistence or a rival forecasts better; its prior by
    where the data take the parameters. Members that are drawn given hyperparameters are judged by
    these. Held-out data that could hardly have shown a fault are "inconclusive". Rows of another
    table that only have the labels of fitted rows count as held out.

    Convergence is judged on the science parameters, on the trajectories (the conditional means at
    the training times) and, where a network is part of it, on the vector field (at states along
    these and along the forecast); never on the weights of a network, of which several sets say the
    same. Of more than 200 points 200 evenly spaced ones are looked at, and the bounds of R-hat and
    effective sample sizes allow for the worst of more than ten. Draws that are not finite are left
    out and counted. Members of an ensemble and other draws that are no chains are judged by how
    they were made, which the engine itself says; where it cannot say whether they spread as the
    posterior does, held-out data may.

    Args:
        post: what `fit` returned.
        fc: a forecast made from it, at the times of the data that were fitted and of those that
            were not.
        test: data that the fit has not seen; what was fitted is left out of it.
        rivals: forecasts of other models by name, recalibrated ones among them.

    Raises:
        MismatchError: for what is no posterior or no forecast, a forecast that was made from
            another posterior, or data that have other inputs than the fit at the same labels where
            the forecast has those of the fit.

    Source: Vehtari et al. (2021), Rank-normalization, folding, and localization.
    """
    _check_arguments(post, fc, rivals)
    _check_made_from(post, fc)
    said = borne_out_by(post, fc, test, _said(post))
    fits = (*_what_if_findings(fc), *adequacy_findings(post, fc, test, rivals or {}))
    if not are_chains(post):
        failed = (*failure_findings(post, fc), *finite_findings(post, fc))
        return Diagnosis(
            (*said, *posterior_findings(post, agreed=True), *failed, *fits), unseen_functions(post)
        )
    judged = quantities(post, fc)
    return Diagnosis(
        (
            *_run_findings(post),
            *said,
            *posterior_findings(post, agreed=all(map(agreed, judged))),
            *mixing_findings(judged, int(post.attrs.get("superchains", 0)), Words.of(post)),
            *chain_findings(post, judged),
            *energy_findings(post),
            *_divergence_findings(post),
            *failure_findings(post, fc),
            *finite_findings(post, fc),
            *fits,
        ),
        unseen_functions(post),
    )


def _check_arguments(post: Any, fc: Any, rivals: Any) -> None:
    if not isinstance(post, xr.DataTree) or "posterior" not in post.children:
        raise MismatchError(
            "this is no posterior: it has no group 'posterior'; give the result of bd.fit"
        )
    if not isinstance(rivals, Mapping | None):
        raise MismatchError(
            f"rivals must be a dict of forecasts by name, not {type(rivals).__name__}"
        )
    if fc is not None:
        check_forecast(fc, "predictions", "conditional_mean", "conditional_variance")
    for rival in (rivals or {}).values():
        check_forecast(rival, "predictions")
    if fc is not None and rivals:
        check_same(
            fc["predictions"].data_vars,
            {name: fc["predictions"].data_vars for name, fc in rivals.items()},
        )


def _check_made_from(post: xr.DataTree, fc: xr.DataTree | None) -> None:
    """Raise MismatchError for a forecast from a posterior of another model or other data, or from
    other draws.
    """
    if fc is not None and "mixture" in fc.attrs:
        raise MismatchError(
            "a mixture is of several posteriors, not of this one: give it as one of the rivals"
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
    # Of one model and data there may be several posteriors, by other engines and keys.
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
    if fc is not None and fc.attrs.get("what_if", 0):
        message = "the forecast is of another model than the fitted one, by draws of the latter"
        remedy = "read it as what would be; to judge the model itself, fit it"
        yield Finding("warning", "what if", message, remedy, aspect="model")


def _said(post: xr.DataTree) -> tuple[Finding, ...]:
    """What the engine says of its run; of draws that are no chains somebody must say whether they
    are right.
    """
    said = from_json(post.attrs.get("findings", "[]"))
    if are_chains(post) or not all(map(is_lost_look, said)):
        return said
    return unshown_spread("the engine says nothing of its draws"), *said


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
    stats = dict(variables(post, "sample_stats"))
    diverging, cut_short = stats.get("diverging"), stats.get("solver_failure")
    if diverging is None:
        return
    if (
        cut_short is not None
    ):  # a trajectory that meets a failing solve diverges too: it is counted there
        diverging = diverging & ~cut_short
    count, size = int(diverging.sum()), diverging.size
    if count == 0:
        yield Finding("good", "divergences", f"none in {size} draws")
        return
    message = f"{count} of {size} draws ({100 * count / size:.3g} %)"
    if count <= HARDLY * size:
        yield Finding("good", "divergences", f"{message}: too few to matter")
        return
    yield Finding(
        "bad" if count > 0.01 * size else "warning",
        "divergences",
        message,
        "raise the target acceptance rate (0.95), or tighten the prior where the draws diverge",
    )
