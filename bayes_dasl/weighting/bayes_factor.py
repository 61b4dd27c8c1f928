"""Bayes factors of models over a nested science model, by Savage–Dickey or bridge sampling."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from jaxtyping import Float

from .._findings import Finding, model_finding
from .._jax.tree import parts_inside
from .._statistics.convergence import thinned
from .._statistics.describe_distributions import describe_distribution
from ..errors import MismatchError
from ..inference import pose
from ..layers import ProcessNoise
from ..model import Model
from ..networks import Network
from ..prediction.datatree import names
from ..prediction.identity import check_same_posterior
from ..prediction.posterior import are_chains, draws_of, fitted_data, fitted_observables
from ..prediction.predictive import push
from ..random import Dependent, RandomLeaf, is_random, paths, shape_of
from ..scores.draws_at_data import by_chain
from .bridge import LogMean
from .factor_table import BayesFactors
from .marginal_likelihood import log_evidence

_PRIOR_DRAWS = 100_000
# The width of the kernel, in units of Silverman's width.
_NARROW = 0.9
# The error in nats from which a Bayes factor is called rough.
_UNCERTAIN = 0.5
# Two sizes at which the prior density must be equal, to have a limit at zero.
_TINY = (1e-200, 1e-300)
# With fewer posterior or prior draws near zero, bridge sampling is used instead.
_FEWEST = 10
_LEAST = 1e-150
# Batches of each chain, for the error.
_BATCHES = 5
# Draws at which models must agree, and the allowed relative difference of log likelihoods.
_PROBES, _APART = 3, 0.01
# A larger log Bayes factor is printed as a power.
_LARGE = 10.0
# Nats up to which data say little: "not worth more than a bare mention" (Kass & Raftery).
_TELLING = 1.0


def bayes_factors(
    models: Mapping[str, Model],
    posts: Mapping[str, xr.DataTree],
    *,
    prior: Mapping[str, float] | None = None,
) -> BayesFactors:
    r"""Weight a science model and its extensions by their evidence.

    An extension adds a part with a random size $s$ to the science model: a `Network` with a random
    scale, as in `corrected`, or a `ProcessNoise`. With all sizes zero it is the science model. So
    its Bayes factor over the science model is the Savage–Dickey ratio

    $\log B = \log \frac{p(s = 0)}{p(s = 0 \mid y)}$,

    where $y$ are the data. Prior and posterior density are estimated with the same kernel. If fewer
    than ten draws are near zero, the evidence of both models comes from bridge sampling. This takes
    two evaluations of the density for each draw of both models. A few log likelihoods verify that
    the models agree at $s = 0$.

    If the science is right, a mixture with these `weights` forecasts nearly as well as the science.
    If the science is wrong, it forecasts as well as the extension. If all models are wrong, the
    weights favour the best fit to all data, not the best forecast: for forecasts see `compare`.

    Args:
        models: the models by name. One of them is the science, which has no added part.
        posts: the result of `fit` for each model, with the same data.
        prior: prior probabilities of the models, which are divided by their sum. By default one
            half for the science, and one half shared evenly by the others.

    Returns:
        A table with a row for each model, which `print` shows with its findings.

    Raises:
        MismatchError: if models differ at size zero; if a size is known, or its prior has no finite
            density at zero; if posteriors are of other models or data, or have no chains; if prior
            probabilities are invalid, or draws are too few for an evidence.

    Source: Dickey (1971); Verdinelli & Wasserman (1995), Computing Bayes factors using a
    generalization of the Savage–Dickey density ratio; Gronau et al. (2017), A tutorial on bridge
    sampling.
    """
    # 1. Check that models are nested, and posteriors are theirs.
    base = check_nested(models)
    _refuse_other_posteriors(models, posts)
    shares = _prior_shares(models, base, prior)
    _refuse_unlike(models, posts, base)
    # 2. Posterior probabilities: p(M | y) ∝ B p(M).
    rows = _ratios(models, posts, base)
    logs = np.array([np.log(shares[name]) + row.value for name, row in rows.items()])
    weights = np.exp(logs - logs.max())
    columns = {
        "log_bayes_factor": [row.value for row in rows.values()],
        "error": [row.error for row in rows.values()],
        "by_bridge": [row.by_bridge for row in rows.values()],
        "weight": weights / weights.sum(),
        "prior": [shares[name] for name in rows],
    }
    table = pd.DataFrame(columns, index=pd.Index([*models], name="model"))
    return BayesFactors(table, tuple(_factor_findings(base, rows)), base)


@dataclass(frozen=True)
class _Ratio:
    """A log Bayes factor over the science model.

    Args:
        value: the log Bayes factor, in nats.
        error: its Monte-Carlo standard error.
        by_bridge: whether it comes from bridge sampling.
    """

    value: float
    error: float
    by_bridge: bool = False


def _added(model: Model) -> dict[str, Any]:
    """Return the networks and process noises of a model, by path."""
    return dict(parts_inside(model, lambda node: isinstance(node, (Network, ProcessNoise))))


def _sizes(model: Model) -> dict[str, RandomLeaf]:
    """Return the random sizes of all networks and process noises in a model, by path.

    Raises:
        MismatchError: if a size is known, depends on others, or has no finite density at zero.
    """
    found: dict[str, RandomLeaf] = {}
    for part, node in _added(model).items():
        scales = jax.tree.leaves(node.scale, is_leaf=is_random)
        if not all(map(is_random, scales)):
            raise MismatchError(
                f"the size of '{part}' is known, and so it cannot be zero: give its scale a prior"
            )
        for path, leaf in paths(model).items():
            if not _lies_in(leaf, f"{part}.scale"):
                continue
            if isinstance(leaf.distribution, Dependent) or not _dense_at_zero(leaf.distribution):
                raise MismatchError(
                    f"the prior of '{path}' has no finite density at zero by itself, as HalfNormal "
                    "has: where it rules "
                    "out that nothing is added, there is nothing to compare"
                )
            found[path] = leaf
        if any(isinstance(scale, Dependent) for scale in scales):
            raise MismatchError(
                f"a size of '{part}' is worked out of other numbers: give it a prior of its own"
            )
    return found


def _dense_at_zero(prior: dist.Distribution) -> bool:
    """Whether a density has a positive, finite limit at zero, from its values at two tiny sizes."""
    # Values outside of the support give warnings.
    with warnings.catch_warnings(action="ignore"):
        near, nearer = (np.asarray(prior.log_prob(np.full(shape_of(prior), at))) for at in _TINY)
    return bool(np.isfinite(nearer).all() and np.allclose(near, nearer))


def _lies_in(leaf: RandomLeaf, part: str) -> bool:
    """Whether a random leaf lies in the part of a model with the given path.

    A shared leaf lies in several places; one of them is enough.
    """
    return any(place == part or place.startswith(f"{part}.") for place in leaf.places)


def check_nested(models: Mapping[str, Model]) -> str:
    """Check that one model, the science, is nested in all others.

    Returns:
        The name of the science.

    Raises:
        MismatchError: if there are fewer than two models, or no model is nested in all others.
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        raise MismatchError(
            "bayes_factors takes a dict of two models or more, by name, and one of their posteriors"
        )
    bare = [name for name, model in models.items() if not _added(model)]
    if len(bare) != 1:
        raise MismatchError(
            "one model is to be the science that the others add a network or process noise to; of "
            "these "
            f"{' and '.join(bare) or 'none'} would be that. bd.compare takes any models"
        )
    base = models[bare[0]]
    for name, model in models.items():
        # This call only checks the sizes.
        _sizes(model)
        left, own = _others(model), _others(base)
        if left != own or {*model.observables} != {*base.observables}:
            differing = [place for place, _ in (left - own) + (own - left)]
            raise MismatchError(
                f"'{name}' is not '{bare[0]}' where what is added to it is zero: they differ in "
                f"{', '.join(sorted({*differing})) or 'what is observed'}; bd.compare takes any "
                "models"
            )
    return bare[0]


def are_nested(models: Mapping[str, Model]) -> bool:
    """Whether `check_nested` accepts the models, so that evidence can weight them.

    It compares priors and observables; posteriors are not needed.

    Returns:
        True if one model is nested in all others.
    """
    try:
        check_nested(models)
    except MismatchError:
        return False
    return True


def _others(model: Model) -> Counter[tuple[str, str]]:
    """Count the random leaves outside networks and process noises, by last name and prior."""
    return Counter(_leaf_kind(leaf) for leaf in _outside(model).values())


def _outside(model: Model) -> dict[str, RandomLeaf]:
    """Return all random leaves outside networks and process noises, by path."""
    parts = [*_added(model)]
    return {
        path: leaf
        for path, leaf in paths(model).items()
        if not any(_lies_in(leaf, part) for part in parts)
    }


def _leaf_kind(leaf: RandomLeaf) -> tuple[str, str]:
    """Return last name and prior of a random leaf, by which leaves of two models correspond."""
    return leaf.path.rsplit(".", 1)[-1], describe_distribution(leaf.distribution)


def _refuse_other_posteriors(models: Mapping[str, Model], posts: Mapping[str, xr.DataTree]) -> None:
    """Check that there is a posterior with chains for each model, and that all have the same data.

    Raises:
        MismatchError: if a posterior does not suit its model, or the data differ.
    """
    if {*models} != {*posts}:
        raise MismatchError(
            f"give a posterior of each model: {', '.join(models)}, not {', '.join(posts)}"
        )
    for name, model in models.items():
        check_same_posterior(model, posts[name])
        if not are_chains(posts[name]):
            raise MismatchError(
                f"the draws of '{name}' are not those of chains: fit it with bd.NUTS, or take "
                "bd.weighting.model_weights"
            )
    observed = [fitted_observables(post) for post in posts.values()]
    if not all(one.equals(observed[0][[*one]]) for one in observed):
        raise MismatchError("the models were fitted to other data than each other")


def _refuse_unlike(
    models: Mapping[str, Model], posts: Mapping[str, xr.DataTree], base: str
) -> None:
    """Check that the models agree with the science if all sizes are zero.

    Their log likelihoods are compared at a few draws.

    Args:
        models: models by name.
        posts: posteriors by name.
        base: name of the science.

    Raises:
        MismatchError: if a model differs.
    """
    # 1. A few draws of the science.
    drawn = {name: draws_of(model, posts[name]) for name, model in models.items()}
    fewest = min((len(values) for found in drawn.values() for values in found.values()), default=0)
    some = thinned(fewest, _PROBES) if fewest else np.zeros(1, int)
    known = {path: values[some] for path, values in drawn[base].items()}
    wanted = _log_likelihoods(models[base], posts[base], known)
    for name in (name for name in models if name != base):
        own = {path: values[some] for path, values in drawn[name].items()}
        # 2. The other model with sizes of zero and the parameters of the science.
        own |= {path: np.zeros_like(own[path]) for path in _sizes(models[name])}
        # Leaves of the same kind correspond in their order.
        ours: dict[tuple[str, str], list[str]] = {}
        for path, leaf in _outside(models[base]).items():
            ours.setdefault(_leaf_kind(leaf), []).append(path)
        own |= {
            path: known[ours[_leaf_kind(leaf)].pop(0)]
            for path, leaf in _outside(models[name]).items()
        }
        # 3. The log likelihoods must agree.
        apart = np.abs(_log_likelihoods(models[name], posts[name], own) - wanted)
        if (apart > _APART * (1 + np.abs(wanted))).any():
            raise MismatchError(
                f"'{name}' is not '{base}' where what is added to it is zero: there the log "
                "likelihood differs by "
                f"{apart.max():.3g}; bd.compare takes any models"
            )


def _log_likelihoods(
    model: Model, post: xr.DataTree, draws: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the log likelihood of each draw; zero where the solver fails."""
    problem = pose(model, fitted_data(post))
    pushed = push(model, problem.inputs, draws, observed=problem.observed)
    return np.where(pushed.ok, np.asarray(pushed.log_weight(problem.observed)), 0.0)


def _prior_shares(
    models: Mapping[str, Model], base: str, prior: Mapping[str, float] | None
) -> dict[str, float]:
    """Return the prior probabilities of the models, with a sum of one.

    Args:
        models: models by name.
        base: name of the science.
        prior: positive numbers by name; None for one half for the science.

    Raises:
        MismatchError: if the prior has other names, or numbers that are not positive.
    """
    if prior is None:
        return {name: 0.5 if name == base else 0.5 / (len(models) - 1) for name in models}
    if not isinstance(prior, Mapping):
        raise MismatchError(
            f"the prior is a dict of a probability for each of {', '.join(models)}, not {prior!r}"
        )
    found = np.array([float(prior.get(name, np.nan)) for name in models])
    if {*prior} != {*models} or not (np.isfinite(found).all() and (found > 0).all()):
        raise MismatchError(
            f"the prior has a positive number for each of {', '.join(models)}, not {dict(prior)}"
        )
    return dict(zip(models, map(float, found / found.sum()), strict=True))


def _ratios(
    models: Mapping[str, Model], posts: Mapping[str, xr.DataTree], base: str
) -> dict[str, _Ratio]:
    """Return log Bayes factors over the science by name of the model.

    Bridge sampling replaces Savage–Dickey ratios of models with few draws near zero.

    Raises:
        MismatchError: if bridge sampling has too few draws.
    """
    # 1. Savage–Dickey ratios.
    rows = {name: _ratio(models[name], posts[name]) for name in models if name != base}
    # 2. Evidences of the other models, and of the science if there are any.
    far = [name for name, row in rows.items() if row is None]
    needed = [base, *far] if far else []
    evidences = {name: model_log_evidence(models[name], posts[name]) for name in needed}
    if lost := [name for name, found in evidences.items() if not np.isfinite(found).all()]:
        raise MismatchError(
            f"draws do not tell the evidence of {' and '.join(lost)}: take more of each chain, or "
            "weigh models by "
            "bd.weighting.model_weights, which then compares past forecasts"
        )
    for name in far:
        (value, error), (science, its_error) = evidences[name], evidences[base]
        rows[name] = _Ratio(value - science, float(np.hypot(error, its_error)), by_bridge=True)
    known = {name: row for name, row in rows.items() if row is not None}
    return {name: known.get(name, _Ratio(0.0, 0.0)) for name in models}


def model_log_evidence(model: Model, post: xr.DataTree) -> LogMean:
    """Compute the log evidence of a model by bridge sampling.

    Returns:
        The log evidence and its standard error; NaN if draws are too few.
    """
    problem = pose(model, fitted_data(post))
    sizes = post["posterior"].sizes
    positions = jax.jit(jax.vmap(problem.unconstrain))(
        jax.tree.map(jnp.asarray, draws_of(model, post))
    )
    return log_evidence(
        problem.log_density,
        np.asarray(positions).reshape(sizes["chain"], sizes["draw"], problem.dimension),
    )


def _ratio(model: Model, post: xr.DataTree) -> _Ratio | None:
    """Return the Savage–Dickey ratio log p(s = 0) - log p(s = 0 | y) for all sizes s and data y.

    None is returned if few draws of prior or posterior are near zero.
    """
    # 1. Posterior and prior draws of all sizes.
    short, sizes, columns, before = names(model), _sizes(model), [], []
    keys = jax.random.split(jax.random.key(0), len(sizes))
    for key, (path, leaf) in zip(keys, sizes.items(), strict=True):
        columns.append(by_chain(post["posterior"].to_dataset()[short[path]]))
        drawn = np.asarray(leaf.distribution.sample(key, (_PRIOR_DRAWS,)))
        before.append(drawn.reshape(_PRIOR_DRAWS, -1))
    values = np.concatenate(columns, axis=-1)
    prior = np.concatenate(before, axis=-1)
    if not np.isfinite(values).all():
        raise MismatchError(f"draws of {', '.join(short[path] for path in sizes)} are not finite")
    # 2. Kernel density estimates at zero.
    widths = _widths(values)
    near = _kernel(values / widths).prod(axis=-1)
    beside = _kernel(prior / widths)
    if near.sum() < min(_FEWEST, near.size / 2) or (beside.sum(axis=0) < _FEWEST).any():
        return None
    # 3. Their ratio, with an error by batches of chains and by prior draws.
    expected = beside.mean(axis=0).prod()
    each = near.shape[1] // _BATCHES
    parts = near.ravel()
    if each:
        parts = near[:, : each * _BATCHES].reshape(-1, each).mean(axis=1)
    error = parts.std(ddof=1) / np.sqrt(len(parts)) / near.mean()
    rough = beside.std(axis=0, ddof=1) / np.sqrt(_PRIOR_DRAWS) / beside.mean(axis=0)
    error = np.linalg.norm([error, *rough])
    return _Ratio(float(np.log(max(expected, _LEAST)) - np.log(near.mean())), float(error))


def _widths(values: Float[np.ndarray, "chain draw size"]) -> Float[np.ndarray, " size"]:
    r"""Return kernel widths of sizes by Silverman's rule.

    $h = 0.9\, \mathrm{sd}\, n^{-1 / (d + 4)}$ for $n$ draws of $d$ sizes with the standard
    deviation sd.
    """
    number = values.shape[0] * values.shape[1]
    size = values.shape[-1]
    deviation = values.reshape(number, size).std(axis=0)
    # Draws that hardly move would give no width at all.
    spread = np.maximum(deviation, np.abs(values).max(axis=(0, 1)) / number)
    return _NARROW * np.maximum(spread, _LEAST) * number ** (-1 / (size + 4))


def _kernel(x: np.ndarray) -> np.ndarray:
    """Return a normal kernel around zero, with height one, at `x` in units of its width."""
    return np.exp(-0.5 * x**2)


def _factor_findings(base: str, rows: Mapping[str, _Ratio]) -> Iterator[Finding]:
    for name, row in rows.items():
        if name == base:
            continue
        subject, size = f"{name} over {base}", abs(row.value)
        times = f"{np.exp(size):.3g} times" if size < _LARGE else f"e^{size:.0f} times"
        said = f"the data tell little: a Bayes factor of {np.exp(row.value):.2g}"
        if size > _TELLING:
            which = "with" if row.value > 0 else "without"
            said = f"the data are {times} as probable {which} what it adds"
        yield model_finding("good", subject, said)
        if not row.error <= _UNCERTAIN:
            yield Finding(
                "warning",
                subject,
                f"its Bayes factor is known to a factor of {np.exp(row.error):.2g} only",
                "take more draws, and see the verdict on its sampling",
            )
