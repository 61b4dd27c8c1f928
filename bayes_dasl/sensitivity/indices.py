"""Global sensitivity of a forecast or derived quantity to the parameters, by SALib."""

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

# The smallest number of samples of a design, and of posterior draws. The number of permuted columns
# that estimate the index of an irrelevant parameter.
_FEWEST, _FEWEST_DRAWS, _SHUFFLES = 16, 200, 20
# Grid levels of the method of Morris, over this range of quantiles.
_LEVELS, _MIDDLE = 4, (0.025, 0.975)
# A quantity varies if its range is more than this share of its size.
_VARIES = 1e-12

type Indices = dict[str, np.ndarray]


class _Design(NamedTuple):
    """The draws at which a model is solved, and the function that computes indices.

    Args:
        labels: the names of the indices.
        draws: draws by path. Consecutive draws belong to one sample.
        unknowns: the names of the parameters.
        solves: the number of solves per sample.
        fewest: the smallest number of samples without a failed solve.
        indices: a function that computes the indices by name. Its arguments are a quantity
            `(sample, solve)` without failed samples, and a mask `(sample,)` of the samples that did
            not fail.
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
    r"""Global sensitivity of a forecast or derived quantity over the prior or posterior.

    Parameters are independent under the prior, so the variance of a quantity $q$ can be divided
    among them. There are two methods:

    - `"sobol"`. The first-order index `first` is
      $\mathrm{Var}(\mathrm{E}[q \mid \theta_i]) / \mathrm{Var}(q)$, the share of variance that
      knowledge of $\theta_i$ removes. The total index `total` is
      $\mathrm{E}[\mathrm{Var}(q \mid \theta_{-i})] / \mathrm{Var}(q)$, the share that is left if
      all other parameters are known. Their difference is due to interactions.
    - `"morris"` needs fewer solves. It makes steps of one parameter at a time, over the central
      95 % of its prior, from many starting points. `mu_star` is the mean absolute change of $q$,
      `mu` the mean change, and `sigma` the standard deviation of the change.

    Parameters are correlated under the posterior, so the variance is no sum of shares. The method
    `"pawn"` uses the posterior draws. It divides the draws into tenths by their value of
    $\theta_i$, and compares the distribution of $q$ in each tenth with that in all draws. The
    distance is from 0 to 1; `mean` and `most` are its mean and maximum over tenths. For comparison,
    `chance` is the `mean` of an irrelevant parameter. `first` is the first-order index as above.
    The sensitivity to $\theta_i$ may be due to a correlated parameter.

    Args:
        model: the model.
        post: the result of `fit`, or None for the prior.
        function: the quantity, as for `evaluate`; by default the predictions at `at`.
        at: times, or a dataset with times and forcings, as for `evaluate`.
        method: "sobol" (default) or "morris" for the prior, "pawn" for the posterior.
        samples: the size of the design. "sobol" takes `samples · (unknowns + 2)` solves, and
            "morris" `samples · (unknowns + 1)`. For a posterior, the largest number of draws that
            are used. A power of two suits "sobol".
        key: the seed of the design and of the errors.

    Returns:
        A dataset with each quantity over `index`, `unknown` and its own axes. The values of `index`
        are the names above; an index `…_error` is half of a 95 % interval. For the prior, a vector
        is one unknown. A parameter and those that its prior depends on are also one unknown. For a
        posterior, each scalar is one unknown; network weights are left out, since single weights
        have no meaning. Indices are NaN for a constant quantity; `mu` and `sigma` are also NaN for
        unknowns with several scalars. The attribute `lost` counts samples with a failed solve,
        which are left out.

    Source: Saltelli et al. (2010); Morris (1991); Pianosi & Wagener (2018); computed by SALib
    (Iwanaga et al. 2022).

    Raises:
        ModelError: if SALib is missing, the model has no random leaf, there are too few samples
            (200 for a posterior), the key is no whole number, or a prior has no quantiles for
            "morris".
        MismatchError: if the method does not suit the prior or the posterior, there is no quantity,
            or the posterior is of another model.
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
    quantity = function or (lambda _, predicted: predicted)
    found = of_draws(model, post, design.draws, quantity, at)
    return _index_table(design, found).assign_attrs(method=method)


def _index_table(design: _Design, found: xr.Dataset) -> xr.Dataset:
    """Return the indices of all elements of all quantities, as a dataset.

    Args:
        design: the design.
        found: the quantities at all draws of the design.
    """
    # 1. Quantities as `(sample, solve, …)`, and the samples in which no solve failed.
    by_sample = {
        str(name): v.values.reshape(-1, design.solves, *v.shape[1:])
        for name, v in found.data_vars.items()
    }
    sound = np.all(
        [np.isfinite(v).reshape(len(v), -1).all(axis=1) for v in by_sample.values()], axis=0
    )
    if sound.sum() < design.fewest:
        raise ModelError(
            f"{design.fewest} samples are needed, and {sound.sum()} of {sound.size} had no solve "
            "that failed: take "
            "more, or look at bd.check(model, …)"
        )
    if taken := {"index", "unknown"} & {*map(str, found.coords), *map(str, found.dims)}:
        raise ModelError(
            f"the quantity runs along '{taken.pop()}', as what this returns does: give that "
            "another name"
        )
    # 2. Compute the indices of each scalar, and restore the shape of its quantity.
    variables = {}
    for name, values in by_sample.items():
        scalars = np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0)
        every = [_indices_of_scalar(design, scalar, sound) for scalar in scalars]
        stacked = np.stack(
            [[indices[label] for label in design.labels] for indices in every], axis=-1
        )
        dims = ("index", "unknown", *found[name].dims[1:])
        shaped = stacked.reshape(*stacked.shape[:2], *values.shape[2:])
        variables[name] = (dims, shaped, found[name].attrs)
    coords = {str(c): found[c] for c in found.coords}
    coords |= {"index": [*design.labels], "unknown": design.unknowns}
    return xr.Dataset(variables, coords, {"lost": int((~sound).sum())})


def _indices_of_scalar(
    design: _Design, values: Float[np.ndarray, "sample solve"], sound: np.ndarray
) -> Indices:
    """Return the indices of one scalar quantity by name; NaN if the quantity is constant.

    `sound` is the mask of the samples without a failed solve.
    """
    kept = values[sound]
    # SALib would divide by a variance of zero.
    if np.ptp(kept) <= _VARIES * np.max(np.abs(kept)):
        return dict.fromkeys(design.labels, np.full(len(design.unknowns), np.nan))
    return design.indices(kept, sound)


def _sobol(model: Model, samples: int, key: int) -> _Design:
    """Return the pick-freeze design of Sobol' indices (Saltelli et al. 2010)."""
    analyse = _salib("analyze.sobol").analyze
    unknowns = unknowns_of(model)
    # Two independent sets of prior draws, from the two halves of one Sobol sequence.
    number = sum(unknowns.sizes)
    points = uniform(samples, 2 * number, key=key)
    keys = jax.random.split(jax.random.key(key))
    first, second = (
        prior_at(unknowns, points[:, i * number : (i + 1) * number], key=keys[i]) for i in range(2)
    )
    problem = {"num_vars": len(unknowns.of), "names": [*unknowns.of]}

    theirs = {"first": "S1", "first_error": "S1_conf", "total": "ST", "total_error": "ST_conf"}

    def indices(values, _):
        found = analyse(
            problem, values.ravel(), calc_second_order=False, seed=np.random.default_rng(key)
        )
        return {ours: found[name] for ours, name in theirs.items()}

    draws = exchanged(unknowns, first, second)
    solves = len(unknowns.of) + 2
    return _Design(tuple(theirs), draws, [*unknowns.of], solves, _FEWEST, indices)


def _morris(model: Model, samples: int, key: int) -> _Design:
    """Return the design of elementary effects: one parameter moves in each step (Morris 1991)."""
    analyse = _salib("analyze.morris").analyze
    unknowns = unknowns_of(model)
    number = sum(unknowns.sizes)
    solves = len(unknowns.of) + 1
    problem = {
        "num_vars": number,
        "names": [*map(str, range(number))],
        "bounds": [_MIDDLE] * number,
        "groups": unknowns.numbers(),
    }
    points = _salib("sample.morris").sample(problem, samples, num_levels=_LEVELS, seed=key)
    order = [*dict.fromkeys(problem["groups"])]
    theirs = {"mu_star": "mu_star", "mu_star_error": "mu_star_conf", "mu": "mu", "sigma": "sigma"}

    def indices(values, sound):
        kept = points.reshape(samples, solves, number)[sound].reshape(-1, number)
        found = analyse(problem, kept, values.ravel(), num_levels=_LEVELS, seed=key)
        # SALib may order the groups differently, and masks unknown values.
        pick = [[*found["names"]].index(name) for name in order]
        result = {
            ours: np.ma.filled(np.ma.asarray(found[name], float), np.nan)[pick]
            for ours, name in theirs.items()
        }
        # The scalars of a group step up or down independently, so the sign has no meaning.
        alone = np.asarray([problem["groups"].count(name) == 1 for name in order])
        return result | {name: np.where(alone, result[name], np.nan) for name in ("mu", "sigma")}

    draws = prior_at(unknowns, points, key=jax.random.key(key), strict=True)
    return _Design(tuple(theirs), draws, order, solves, _FEWEST, indices)


def _pawn(model: Model, post: xr.DataTree, samples: int, key: int) -> _Design:
    """Return the design for PAWN (Pianosi & Wagener 2018) and first-order indices.

    Its draws are evenly spaced posterior draws.
    """
    analyse = _salib("analyze.pawn").analyze
    by_order = _salib("analyze.rbd_fast").analyze
    # 1. Evenly spaced draws.
    draws, short = draws_of(model, post), names(model)
    total = len(next(iter(draws.values())))
    kept = np.unique(np.linspace(0, total - 1, min(samples, total)).astype(int))
    if len(kept) < _FEWEST_DRAWS:
        raise ModelError(f"of a posterior {_FEWEST_DRAWS} draws are needed, not {len(kept)}")
    draws = {path: values[kept] for path, values in draws.items()}
    # 2. One column for each scalar parameter, without network weights.
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
    # 3. Random permutations, which are irrelevant to any quantity.
    rng = np.random.default_rng(key)
    shuffled = np.stack(
        [rng.permutation(len(kept)).astype(float) for _ in range(_SHUFFLES)], axis=1
    )

    def problem(labels):
        return {"num_vars": len(labels), "names": labels, "bounds": [(0.0, 1.0)] * len(labels)}

    real = problem([*each])
    chance = problem([*map(str, range(_SHUFFLES))])

    def indices(values, sound):
        values = values.ravel()
        found = analyse(real, columns[sound], values)
        first = by_order(real, columns[sound], values, seed=key)
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
    """Import a module of SALib, which is an optional dependency.

    Raises:
        ModelError: if SALib is not installed.
    """
    try:
        return importlib.import_module(f"SALib.{module}")
    except ImportError as error:
        raise ModelError(
            "sensitivity needs SALib: pip install 'bayes-dasl[sensitivity]'"
        ) from error
