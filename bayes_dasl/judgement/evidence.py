"""Whether data ask for what is added to a science: Bayes factors of models that are it where a size is zero."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from jaxtyping import Float

from .._findings import Finding
from .._jax.tree import parts_inside
from .._statistics.describe_distributions import describe_distribution
from ..errors import MismatchError
from ..layers import ProcessNoise
from ..model import Model
from ..networks import Network
from ..prediction.posterior import check_belongs, names
from ..random import Dependent, RandomLeaf, paths, shape_of

_PRIOR_DRAWS = 100_000
_NARROW = 0.9  # times Silverman's width, of kernels
_UNCERTAIN = 0.5  # nats, from which on a Bayes factor is said to be rough
_TINY = (1e-200, 1e-300)
_FEWEST = 10  # draws that count as near zero, below which their share is a bound
_TELLING = 1.0  # nats, up to which data are said to tell little: Kass & Raftery's "not worth more than a bare mention"


@dataclass(frozen=True)
class BayesFactors:
    """How much more probable the data are under each of some models than under the one that is part of all others.

    Args:
        table: a row for each model, that one first. `log_bayes_factor` is the log of that ratio, in nats, and
            `error` its Monte-Carlo standard error; `weight` is the probability of the model given the data, of these
            models and under the `prior` probabilities.
        base: the name of that model.
        findings: what can be said of them.
    """

    table: pd.DataFrame
    base: str
    findings: tuple[Finding, ...]

    @property
    def weights(self) -> dict[str, float]:
        """By model, in the order in which they were given: for `bd.mixture`."""
        return {str(name): float(weight) for name, weight in zip(self.table.index, self.table["weight"], strict=True)}

    def __str__(self) -> str:
        return "\n".join([self.table.to_string(float_format="{:.3g}".format), *map(str, self.findings)])

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{html.escape(str(finding))}</li>" for finding in self.findings)
        return f"{self.table.to_html(float_format='{:.3g}'.format)}<ul>{said}</ul>"


def bayes_factors(
    models: Mapping[str, Model], posts: Mapping[str, xr.DataTree], *, prior: Mapping[str, float] | None = None
) -> BayesFactors:
    r"""Weigh a science and models that add something to it, by their evidence: from the fits that are there.

    What is added has a size with a prior: a `Network` with a scale that is a distribution, as of `corrected`, or a
    `ProcessNoise`. Where all sizes $s$ are zero such a model is the science, so that the Bayes factor between both is
    the Savage–Dickey ratio of how dense prior and posterior are there,

    $\log B = \log \frac{p(s = 0)}{p(s = 0 \mid y)}$,

    both by the same kernel, as wide as the posterior asks for. Where fewer than ten draws are near zero it is said to
    be a bound from below.

    Forecasts mixed by these `weights` do hardly worse than the science where it is right, since what is not asked for
    loses to it, and as well as what corrects it where it is wrong. That holds of models which are all wrong too, but
    then weights say which of them fits all of the data best, and not which forecasts best: see `compare` for that.

    Args:
        models: by name, one of which has nothing added to it.
        posts: what `fit` returned for each, of the same data.
        prior: probabilities of the models before the data, which are divided by their sum. Unless given, one half that
            nothing is lacking, and one half shared by the others evenly.

    Raises: MismatchError for models that are not the same one where sizes are zero, sizes whose prior has no finite
    density there, posteriors of other models, other data or without chains, or a prior that is none.
    Source: Dickey (1971); Verdinelli & Wasserman (1995), Computing Bayes factors using a generalization of the
    Savage–Dickey density ratio.
    """
    base = check_nested(models)
    _refuse_other(models, posts)
    shares = _shares(models, base, prior)
    rows = {name: _ratio(models[name], posts[name]) if name != base else _Ratio(0.0, 0.0, False) for name in models}
    logs = np.array([np.log(shares[name]) + row.value for name, row in rows.items()])
    weights = np.exp(logs - logs.max())
    columns = {
        "log_bayes_factor": [row.value for row in rows.values()],
        "error": [row.error for row in rows.values()],
        "weight": weights / weights.sum(),
        "prior": [shares[name] for name in rows],
    }
    table = pd.DataFrame(columns, index=pd.Index([*models], name="model"))
    return BayesFactors(table, base, tuple(_findings(base, rows)))


@dataclass(frozen=True)
class _Ratio:
    """A log Bayes factor, its error, and whether it is a bound from below."""

    value: float
    error: float
    bound: bool


def _added(model: Model) -> dict[str, Any]:
    """The parts of a model that have a size, by path."""
    return dict(parts_inside(model, lambda node: isinstance(node, (Network, ProcessNoise))))


def _sizes(model: Model) -> dict[str, RandomLeaf]:
    """The sizes of all that is added, by path.

    Raises: MismatchError for one that is known.
    """
    found: dict[str, RandomLeaf] = {}
    for part in _added(model):
        own = {path: leaf for path, leaf in paths(model).items() if _is_inside(leaf, f"{part}.scale")}
        if not own:
            raise MismatchError(f"the size of '{part}' is known, and so it cannot be zero: give its scale a prior")
        for path, leaf in own.items():
            if isinstance(leaf.distribution, Dependent) or not _dense_at_zero(leaf.distribution):
                raise MismatchError(
                    f"the prior of '{path}' has no finite density at zero by itself, as HalfNormal has: where it rules "
                    "out that nothing is added, there is nothing to compare"
                )
        found |= own
    return found


def _dense_at_zero(prior: dist.Distribution) -> bool:
    """Whether a density towards zero is level, and so neither nothing nor without bound."""
    near, nearer = (np.asarray(prior.log_prob(np.full(shape_of(prior), at))) for at in _TINY)
    return bool(np.isfinite(nearer).all() and np.allclose(near, nearer))


def _is_inside(leaf: RandomLeaf, part: str) -> bool:
    return any(place == part or place.startswith(f"{part}.") for place in leaf.places)


def check_nested(models: Mapping[str, Model]) -> str:
    """The name of the model that the others are where their sizes are zero.

    Raises: MismatchError if there is none.
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        raise MismatchError("bayes_factors takes a dict of two models or more, by name, and one of their posteriors")
    bare = [name for name, model in models.items() if not _added(model)]
    if len(bare) != 1:
        raise MismatchError(
            f"one model is to be the science that the others add a network or process noise to; of these "
            f"{' and '.join(bare) or 'none'} would be that. bd.compare takes any models"
        )
    base = models[bare[0]]
    for name, model in models.items():
        left, own = _others(model), _others(base)
        if left != own or {*model.observables} != {*base.observables}:
            differing = [place for place, _ in (left - own) + (own - left)]
            raise MismatchError(
                f"'{name}' is not '{bare[0]}' where what is added to it is zero: they differ in "
                f"{', '.join(sorted({*differing})) or 'what is observed'}; bd.compare takes any models"
            )
        _sizes(model)
    return bare[0]


def _others(model: Model) -> Counter[tuple[str, str]]:
    """Last names and priors of all random leaves that are not part of what is added."""
    outside = [leaf for leaf in paths(model).values() if not any(_is_inside(leaf, part) for part in _added(model))]
    return Counter((leaf.path.rsplit(".", 1)[-1], describe_distribution(leaf.distribution)) for leaf in outside)


def _refuse_other(models: Mapping[str, Model], posts: Mapping[str, xr.DataTree]) -> None:
    """Raises: MismatchError for posteriors that are not those of the models, or of other data."""
    if {*models} != {*posts}:
        raise MismatchError(f"give a posterior of each model: {', '.join(models)}, not {', '.join(posts)}")
    for name, model in models.items():
        check_belongs(model, posts[name])
        if not posts[name].attrs.get("markov", 1):
            raise MismatchError(f"the draws of '{name}' are no draws of its posterior: fit it with bd.NUTS")
    hashes = {post.attrs.get("data_sha256") for post in posts.values()}
    if len(hashes) > 1:
        raise MismatchError("the models were fitted to other data than each other")


def _shares(models: Mapping[str, Model], base: str, prior: Mapping[str, float] | None) -> dict[str, float]:
    if prior is None:
        return {name: 0.5 if name == base else 0.5 / (len(models) - 1) for name in models}
    found = np.array([float(prior.get(name, np.nan)) for name in models])
    if {*prior} != {*models} or not (np.isfinite(found).all() and (found > 0).all()):
        raise MismatchError(f"the prior has a positive number for each of {', '.join(models)}, not {dict(prior)}")
    return dict(zip(models, map(float, found / found.sum()), strict=True))


def _ratio(model: Model, post: xr.DataTree) -> _Ratio:
    """The Savage–Dickey ratio of all sizes at zero."""
    short, columns, before = names(model), [], []
    keys = jax.random.split(jax.random.key(0), max(len(sizes := _sizes(model)), 1))
    for key, (path, leaf) in zip(keys, sizes.items(), strict=True):
        drawn = np.asarray(post["posterior"].to_dataset()[short[path]].values)
        columns.append(drawn.reshape(*drawn.shape[:2], -1))
        before.append(np.asarray(leaf.distribution.sample(key, (_PRIOR_DRAWS,))).reshape(_PRIOR_DRAWS, -1))
    values, prior = np.concatenate(columns, axis=-1), np.concatenate(before, axis=-1)
    widths = _widths(values)
    near = _kernel(values / widths).prod(axis=-1)
    expected = _kernel(prior / widths).mean(axis=0).prod()
    of_chains = near.mean(axis=1)
    found, least = of_chains.mean(), 1 / near.size
    error = of_chains.std(ddof=1) / np.sqrt(len(of_chains)) / max(found, least) if len(of_chains) > 1 else np.nan
    return _Ratio(float(np.log(expected) - np.log(max(found, least))), float(error), bool(found < _FEWEST * least))


def _widths(values: Float[np.ndarray, "chain draw size"]) -> Float[np.ndarray, " size"]:
    """Of a kernel for draws of several sizes, as Silverman has it."""
    number, size = values.shape[0] * values.shape[1], values.shape[-1]
    spread = np.maximum(values.reshape(number, size).std(axis=0), np.finfo(float).tiny)
    return _NARROW * spread * number ** (-1 / (size + 4))


def _kernel(x: np.ndarray) -> np.ndarray:
    """A normal kernel at zero, of height one."""
    return np.exp(-0.5 * x**2)


def _findings(base: str, rows: Mapping[str, _Ratio]) -> Iterator[Finding]:
    for name, row in rows.items():
        if name == base:
            continue
        subject, times = f"{name} over {base}", f"{np.exp(abs(row.value)):.3g} times"
        if row.value > _TELLING:
            least = "at least " if row.bound else ""
            yield Finding("good", subject, f"the data are {least}{times} as probable with what it adds", aspect="model")
        elif row.value < -_TELLING:
            yield Finding("good", subject, f"the data are {times} as probable without what it adds", aspect="model")
        else:
            said = f"the data tell little: a Bayes factor of {np.exp(row.value):.2g}"
            yield Finding("good", subject, said, aspect="model")
        if not row.bound and not row.error <= _UNCERTAIN:
            yield Finding(
                "warning", subject, f"its Bayes factor is known to a factor of {np.exp(row.error):.2g} only",
                "take more draws, and see the verdict on its sampling",
            )  # fmt: skip
