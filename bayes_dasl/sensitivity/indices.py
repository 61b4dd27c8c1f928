"""Which unknowns a forecast, or any derived quantity, hangs on: global sensitivity, by SALib."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

from .._jax.keys import whole_number
from ..errors import MismatchError, ModelError
from ..model import Model
from ..prediction.datatree import names
from ..prediction.evaluation import of_draws
from ..prediction.forecasts import Asked
from ..prediction.posterior import draws_of
from ..random import paths
from .designs import Draws, exchanged, prior_at, uniform, unknowns_of

_FEWEST, _FEWEST_DRAWS, _SHUFFLES = 16, 200, 20
_LEVELS, _MIDDLE = 4, (0.025, 0.975)

type Indices = dict[str, np.ndarray]


class _Design(NamedTuple):
    """Draws, the names of what varies in them, how many solves make a sample, and what is said of
    `(sample, solve)`.
    """

    labels: tuple[str, ...]
    draws: Draws
    unknowns: list[str]
    solves: int
    fewest: int
    indices: Callable[[np.ndarray, np.ndarray], Indices]


def sensitivity(
    model: Model,
    post: xr.DataTree | None,
    function: Callable[..., Any] | None = None,
    at: Asked | None = None,
    *,
    method: str | None = None,
    samples: int = 1024,
    key: int = 0,
) -> xr.Dataset:
    r"""Which unknown numbers a forecast, or any derived quantity, hangs on over all of their prior
    or posterior.

    Under the prior unknowns are independent, and the variance of a quantity $q$ is shared out among
    them. `"sobol"`: $\mathrm{Var}(\mathrm{E}[q \mid \theta_i]) / \mathrm{Var}(q)$ is what is gone
    once $\theta_i$ is known (`first`),
    $\mathrm{E}[\mathrm{Var}(q \mid \theta_{-i})] / \mathrm{Var}(q)$ what is left once all others
    are (`total`); the difference is what it does together with others. `"morris"` takes fewer
    solves: the mean size of the change of $q$ over the central 95 % of an unknown, by steps from
        many places (`mu_star`; `mu` with its sign), and how much these differ from place to place
        (`sigma`).

    Under the posterior unknowns are correlated, and variance is no sum of shares. `"pawn"` takes
    the draws as they
    are: how far the distribution of $q$ is from its own where $\theta_i$ is in one tenth of its
        draws, from 0 to 1, in
    the mean of tenths and at most (`mean`, `most`), beside what a number that has nothing to do
    with it would have (`chance`), and `first` as above. What they say of $\theta_i$ may be due to
    an unknown that goes with it.

    Args:
        model: the model.
        post: what `fit` returned, or None for the prior.
        function: the quantity, as for `evaluate`; without it what the model predicts at `at`.
        at: times, or a dataset with times and forcings, as for `evaluate`.
        method: "sobol" or "morris" of the prior, "pawn" of the posterior; the first of them unless
            given.
        samples: of the design, so that there are `samples · (unknowns + 2)` solves for "sobol", and
            `samples · (unknowns + 1)` for "morris"; of a posterior so many draws at most. A power
            of two suits "sobol".
        key: of the design and of the errors.

    Returns:
        Each quantity over `index` (the names above; an `…_error` is half of a 95 % interval),
        `unknown` and its own axes. Of the prior the numbers of a vector are one unknown, as are a
        number and those that its prior depends on; of a posterior each number is one, and weights
        of networks, of which none means anything alone, are left out. NaN where a quantity does not
        vary, and for `mu` and `sigma` of several numbers at once. The attribute `lost` is how many
        samples had a solve that failed: they are left out, so that what is said is of the others
        alone.

    Source: Saltelli et al. (2010); Morris (1991); Pianosi & Wagener (2018); worked out by SALib
    (Iwanaga et al. 2022).

    Raises:
        ModelError: without SALib, where nothing is unknown, for too few samples (of a posterior
            200), for a key that is none, or where "morris" meets a prior without quantiles.
        MismatchError: for a method that is not for the prior or for the posterior, without a
            quantity, or for a posterior of another model.
    """
    known = ("sobol", "morris") if post is None else ("pawn",)
    method = known[0] if method is None else method
    if method not in known:
        where = (
            "prior, whose unknowns are independent"
            if post is None
            else "posterior, whose unknowns are correlated"
        )
        raise MismatchError(
            f"method must be {' or '.join(map(repr, known))} for the {where}, not {method!r}"
        )
    if function is None and at is None:
        raise MismatchError("give a function of the model, or by at= the times of what it predicts")
    if isinstance(samples, bool) or not isinstance(samples, (int, np.integer)) or samples < _FEWEST:
        raise ModelError(f"samples must be a whole number of at least {_FEWEST}, not {samples!r}")
    samples = int(samples)
    if (key := whole_number(key)) < 0:
        raise ModelError(f"key must be a whole number from 0 on, not {key}")
    if post is None:
        design = {"sobol": _sobol, "morris": _morris}[method](model, samples, key)
    else:
        design = _pawn(model, post, samples, key)
    found = of_draws(model, post, design.draws, _predicted if function is None else function, at)
    return _told(design, found).assign_attrs(method=method)


def _predicted(_: Model, predicted: dict[str, Any]) -> dict[str, Any]:
    """All that a model predicts."""
    return predicted


def _told(design: _Design, found: xr.Dataset) -> xr.Dataset:
    """The indices of every number of every quantity."""
    parted = {
        str(name): v.values.reshape(-1, design.solves, *v.shape[1:])
        for name, v in found.data_vars.items()
    }
    sound = np.all(
        [np.isfinite(v).all(axis=tuple(range(1, v.ndim))) for v in parted.values()], axis=0
    )
    if sound.sum() < design.fewest:
        raise ModelError(
            f"{design.fewest} samples are needed, and {sound.sum()} of {sound.size} had no solve "
            "that failed: take "
            "more, or look at bd.check(model, …)"
        )
    if taken := {"index", "unknown"} & {
        *map(str, found.coords),
        *(str(d) for v in found.values() for d in v.dims),
    }:
        raise ModelError(
            f"the quantity runs along '{taken.pop()}', as what this returns does: give that "
            "another name"
        )
    told = {}
    for name, values in parted.items():
        each = values.reshape(*values.shape[:2], -1)
        every = [_of_number(design, each[..., i], sound) for i in range(each.shape[-1])]
        stacked = np.stack(
            [[indices[label] for label in design.labels] for indices in every], axis=-1
        )
        dims = ("index", "unknown", *found[name].dims[1:])
        told[name] = (
            dims,
            stacked.reshape(*stacked.shape[:2], *values.shape[2:]),
            found[name].attrs,
        )
    coords = {str(c): found[c] for c in found.coords} | {
        "index": [*design.labels],
        "unknown": design.unknowns,
    }
    return xr.Dataset(told, coords, {"lost": int((~sound).sum())})


def _of_number(
    design: _Design, values: Float[np.ndarray, "sample solve"], sound: np.ndarray
) -> Indices:
    """What is said of one number; not a number where it does not vary."""
    kept = values[sound]
    size = np.max(np.abs(kept))
    if np.ptp(kept) <= 1e-12 * size:  # SALib would divide by nothing
        return dict.fromkeys(design.labels, np.full(len(design.unknowns), np.nan))
    return design.indices(kept, sound)


def _sobol(model: Model, samples: int, key: int) -> _Design:
    analyse, unknowns = _salib("analyze.sobol").analyze, unknowns_of(model)
    number = sum(unknowns.sizes)
    points = uniform(samples, 2 * number, key=key)
    keys = jax.random.split(jax.random.key(key))
    first, second = (
        prior_at(unknowns, points[:, i * number : (i + 1) * number], key=keys[i]) for i in range(2)
    )
    problem = {"num_vars": len(unknowns.of), "names": [*unknowns.of]}

    def indices(values, _):
        found = analyse(
            problem, values.ravel(), calc_second_order=False, seed=np.random.default_rng(key)
        )
        return {"first": found["S1"], "first_error": found["S1_conf"],
                "total": found["ST"], "total_error": found["ST_conf"]}  # fmt: skip

    labels = "first", "first_error", "total", "total_error"
    return _Design(
        labels,
        exchanged(unknowns, first, second),
        [*unknowns.of],
        len(unknowns.of) + 2,
        _FEWEST,
        indices,
    )


def _morris(model: Model, samples: int, key: int) -> _Design:
    analyse, unknowns = _salib("analyze.morris").analyze, unknowns_of(model)
    number, solves = sum(unknowns.sizes), len(unknowns.of) + 1
    problem = {
        "num_vars": number,
        "names": [f"{i}" for i in range(number)],
        "bounds": [_MIDDLE] * number,
        "groups": unknowns.numbers(),
    }
    points = _salib("sample.morris").sample(problem, samples, num_levels=_LEVELS, seed=key)
    order = [*dict.fromkeys(problem["groups"])]

    def indices(values, sound):
        kept = points.reshape(samples, solves, number)[sound].reshape(-1, number)
        found = analyse(problem, kept, values.ravel(), num_levels=_LEVELS, seed=key)
        pick = [[*found["names"]].index(name) for name in order]
        each = {"mu_star": "mu_star", "mu_star_error": "mu_star_conf", "mu": "mu", "sigma": "sigma"}
        told = {
            ours: np.ma.filled(np.ma.asarray(found[theirs], float), np.nan)[pick]
            for ours, theirs in each.items()
        }
        # The numbers of a group step up or down each for itself.
        alone = np.asarray([problem["groups"].count(name) == 1 for name in order])
        return told | {name: np.where(alone, told[name], np.nan) for name in ("mu", "sigma")}

    draws = prior_at(unknowns, points, key=jax.random.key(key), strict=True)
    return _Design(
        ("mu_star", "mu_star_error", "mu", "sigma"), draws, order, solves, _FEWEST, indices
    )


def _pawn(model: Model, post: xr.DataTree, samples: int, key: int) -> _Design:
    analyse, by_order = _salib("analyze.pawn").analyze, _salib("analyze.rbd_fast").analyze
    draws, short = draws_of(model, post), names(model)
    total = len(next(iter(draws.values())))
    kept = np.unique(np.linspace(0, total - 1, min(samples, total)).astype(int))
    if len(kept) < _FEWEST_DRAWS:
        raise ModelError(f"of a posterior {_FEWEST_DRAWS} draws are needed, not {len(kept)}")
    draws = {path: values[kept] for path, values in draws.items()}
    each = {}
    for path, leaf in paths(model).items():
        if leaf.group != "network":
            flat = draws[path].reshape(len(kept), -1)
            each |= {
                short[path] + (f"[{i}]" if leaf.shape else ""): flat[:, i]
                for i in range(flat.shape[1])
            }
    if not each:
        raise ModelError(
            "all that is unknown are weights of networks, of which none means anything alone"
        )
    columns = np.stack([*each.values()], axis=1)
    rng = np.random.default_rng(key)
    shuffled = np.stack(
        [rng.permutation(len(kept)).astype(float) for _ in range(_SHUFFLES)], axis=1
    )
    problem = {"num_vars": len(each), "names": [*each], "bounds": [(0.0, 1.0)] * len(each)}
    chance = {
        "num_vars": _SHUFFLES,
        "names": [f"{i}" for i in range(_SHUFFLES)],
        "bounds": [(0.0, 1.0)] * _SHUFFLES,
    }

    def indices(values, sound):
        values = values.ravel()
        found = analyse(problem, columns[sound], values)
        first = by_order(problem, columns[sound], values, seed=key)
        by_chance = analyse(chance, shuffled[sound], values)["mean"]
        return {
            "mean": np.asarray(found["mean"]),
            "most": np.asarray(found["maximum"]),
            "chance": np.full(len(each), float(np.mean(by_chance))),
            "first": np.asarray(first["S1"]),
            "first_error": np.asarray(first["S1_conf"]),
        }

    labels = "mean", "most", "chance", "first", "first_error"
    return _Design(labels, draws, [*each], 1, _FEWEST_DRAWS, indices)


def _salib(module: str) -> ModuleType:
    """A module of SALib, which comes with an extra.

    Raises:
        ModelError: without it.
    """
    try:
        return importlib.import_module(f"SALib.{module}")
    except ImportError as error:
        raise ModelError(
            "sensitivity needs SALib: pip install 'bayes-dasl[sensitivity]'"
        ) from error
