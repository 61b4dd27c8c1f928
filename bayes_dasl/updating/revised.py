"""Groups and attributes of a revised posterior."""

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
    """Groups of resampled posterior draws, with the predictions of a new solve of all draws.

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
    """Attributes of the old posterior that stay valid, and hashes of the new data and posterior.

    Returns:
        Attributes by name.
    """
    # The evidence was for fewer data, and the weights of the last update include earlier ones.
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
    """Attributes that describe an update.

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
