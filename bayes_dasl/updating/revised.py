"""Groups and attributes of an updated posterior."""

import datetime
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Array

from .._findings import EVIDENCE, kept_findings, to_json
from .._jax.keys import printable
from .._statistics.importance import resample_groups, resample_stats
from ..data.datasets import fingerprint
from ..inference import Problem
from ..prediction.datatree import constraint_residual_group, said_of_data, with_log_factor
from ..prediction.predictive import Pushed

UPDATE = "update"
"""The subject of the finding on an update."""


def resampled_groups(
    post: xr.DataTree,
    problem: Problem,
    pushed: Pushed,
    log_weights: np.ndarray,
    taken: np.ndarray,
    data: xr.Dataset,
) -> dict[str, xr.Dataset]:
    """Return groups of resampled posterior draws, with predictions from a new solve.

    Args:
        post: the old posterior.
        problem: the new posterior density.
        pushed: the predictions of all old draws in the new solve.
        log_weights: the log weight of each old draw.
        taken: the indices of the resampled draws among the old draws.
        data: the data of the new posterior.

    Returns:
        Groups by name.
    """
    groups = resample_groups(post, taken)
    if "sample_stats" in post.children:
        stats = resample_stats(post["sample_stats"].to_dataset(), log_weights, taken)
        groups["sample_stats"] = with_log_factor(stats, pushed.log_factor[taken])
    groups |= said_of_data(pushed, taken, post, data, problem.own_rows)
    return groups | constraint_residual_group(
        {n: v[taken] for n, v in pushed.constraint_residual.items()}, post
    )


def kept_attributes(post: xr.DataTree, problem: Problem, data: xr.Dataset) -> dict[str, Any]:
    """Return old attributes that stay valid, with hashes of the new data and posterior.

    Args:
        post: the old posterior.
        problem: the new posterior density.
        data: the data of the new posterior.

    Returns:
        Attributes by name.
    """
    # Drop the evidence, which was for fewer data, and the finding on the last update.
    said = [f for f in kept_findings(post) if f.subject not in (EVIDENCE, UPDATE)]
    kept = {
        str(name): value
        for name, value in post.attrs.items()
        if not str(name).startswith("log_evidence")
    }
    return kept | {
        "findings": to_json(said),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data_sha256": fingerprint(data),
        "posterior_sha256": problem.fingerprint(),
    }


def update_attributes(
    post: xr.DataTree, by: str, pareto_k: float, effective: float, *, key: int | Array
) -> dict[str, Any]:
    """Return attributes that describe an update.

    Args:
        post: the old posterior.
        by: the method, "importance weights" or "refit".
        pareto_k: the Pareto k-hat of the weights.
        effective: the effective sample size of the weights.
        key: the random seed.

    Returns:
        Attributes by name.
    """
    return {
        "updated_by": by,
        "update_pareto_k": pareto_k,
        "effective_draws": effective,
        "updates": int(post.attrs.get("updates", 0)) + 1,
        "update_key": printable(key),
    }
