"""Stacking of chains that do not mix, weighted by their predictions."""

import json
import warnings
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .._findings import Finding, add_finding
from .._jax.keys import as_key, printable
from .._statistics.importance import jittered_constants, resample_draws
from ..errors import MismatchError
from ..scores.draws_at_data import by_chain


def stack(post: xr.DataTree, *, key: int | Array = 0) -> xr.DataTree:
    r"""Combine chains by stacking: the weights maximise the leave-one-out score of their mixture.

    $\max_w \sum_i \log \sum_c w_c\, p_c(y_i \mid y_{-i}), \quad w_c \ge 0, \ \sum_c w_c = 1$

    Here $p_c(y_i \mid y_{-i})$ is the density of datum $i$ given all other data, from the draws of
    chain $c$. It comes from Pareto-smoothed leave-one-out cross-validation. Use stacking if chains
    stay in different modes, as those of a network may. The number of chains in a mode then says
    nothing about its posterior mass.

    Stacked draws are a mixture for prediction, not posterior draws: the attribute `draws_are` and
    the verdict say so. Each chain contributes evenly spaced draws in proportion to its weight. The
    draws are in random order, so chains of the result have no meaning.

    Args:
        post: the result of `fit`, with two chains or more.
        key: a whole number or a JAX random key, for the order of the draws.

    Returns:
        A tree like `post` with the stacked draws. The attribute `stacking_weights` has the weights
        of the chains. `stacking_pareto_k` is the largest k-hat of a datum in any chain with a
        weight above 0.01; below 0.7 it is good.

    Raises:
        MismatchError: if the posterior has a single chain, or no log likelihood.

    Source: Yao, Vehtari & Gelman (2022), Stacking for non-mixing Bayesian computations; loo and
    weights by ArviZ.
    """
    if "log_likelihood" not in post.children or "posterior" not in post.children:
        raise MismatchError(
            "stacking needs a posterior with its group log_likelihood, as bd.fit returns it"
        )
    chains, draws = (post["posterior"].sizes[dim] for dim in ("chain", "draw"))
    if chains < 2:
        raise MismatchError("one chain is all there is: stacking needs several")
    # 1. Weights of chains.
    weights, pareto_k = _chain_weights(
        np.concatenate([by_chain(v) for v in post["log_likelihood"].data_vars.values()], axis=2)
    )
    # 2. Evenly spaced draws of each chain by its weight, in random order.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(as_key(key))).ravel())
    ends = np.round(np.cumsum(weights) * chains * draws).astype(int)
    shares = np.diff(ends, prepend=0)
    index = [c * draws + np.arange(n) * draws // n for c, n in enumerate(shares) if n]
    taken = rng.permutation(np.concatenate(index))
    groups = {
        name: _resampled_group(group.to_dataset(), taken, draws)
        for name, group in post.children.items()
    }
    # The group `modes` describes chains, which no longer exist.
    groups.pop("modes", None)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = post.attrs | {
        "draws_are": "stacked chains",
        "markov": 0,
        "stacking_weights": json.dumps([round(float(w), 4) for w in weights]),
        "stacking_pareto_k": pareto_k,
        "stacking_key": printable(key),
    }
    add_finding(tree, _stacking_finding(weights))
    return tree


def _stacking_finding(weights: Float[np.ndarray, " chain"]) -> Finding:
    shares = ", ".join(f"{w:.2g}" for w in weights)
    return Finding(
        "warning",
        "stacked chains",
        f"chains are weighed by how well they predict ({shares}): a mixture, no draws of the "
        "posterior",
        "read forecasts, not parameters; a stronger prior may make the chains agree",
    )


def _chain_weights(
    log_likelihood: Float[np.ndarray, "chain draw datum"],
) -> tuple[Float[np.ndarray, " chain"], float]:
    """Return stacking weights, and the largest k-hat in chains with a weight above 0.01."""
    # ArviZ takes a second to load.
    import arviz_stats

    # ArviZ stacks models: each chain is a model here.
    trees = {
        str(chain): xr.DataTree.from_dict(
            {
                "log_likelihood": xr.Dataset(
                    {"y": (("chain", "draw", "datum"), jittered_constants(values)[None])}
                ),
                "posterior": xr.Dataset({"y": (("chain", "draw"), np.zeros((1, len(values))))}),
            }
        )
        for chain, values in enumerate(log_likelihood)
    }
    # A high k-hat does not matter for a chain without weight; `stack` reports the others.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        left_out: Any = {
            name: arviz_stats.loo(tree, pointwise=True) for name, tree in trees.items()
        }
        found = arviz_stats.compare(left_out)
    weights = np.array([float(found.loc[name, "weight"]) for name in trees]).clip(min=0)
    weights /= weights.sum()
    highest = [
        float(left_out[name].pareto_k.max())
        for name, weight in zip(trees, weights, strict=True)
        if weight > 0.01
    ]
    return weights, max(highest)


def _resampled_group(group: xr.Dataset, taken: np.ndarray, draws: int) -> xr.Dataset:
    """Select draws of a group of a posterior.

    A group without draws is returned unchanged.

    Args:
        group: the group.
        taken: indices of the draws, where chains follow one another.
        draws: number of draws of each chain.
    """
    of_draws = (
        group.sizes.get("draw") == draws and len(taken) == group.sizes.get("chain", 0) * draws
    )
    return resample_draws(group, taken) if of_draws else group
