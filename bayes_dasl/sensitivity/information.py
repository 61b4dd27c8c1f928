"""What data can say of unknown numbers: Fisher information, directions that are not told,
profiles.
"""

import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array

from ..errors import ModelError
from ..inference import pose
from ..inference.linearisation import gauss_newton
from ..inference.problem import Problem
from ..layers.layer import AbstractPopulation
from ..model import Model
from ..prediction.datatree import names
from ..prediction.posterior import draws_of
from ..random import Dependent, paths

# Below this the data say less of a direction than the prior: its variance is more than half of the
# prior's.
_TOLD = 1.0
_LARGE, _MOST_NAMES = 0.3, 4
_AT_MEDIAN = (
    "at the median of the prior, perhaps far from where the data put the parameters: give what "
    "bd.fit returned"
)


@dataclass(frozen=True)
class Information:
    """What data say of unknown numbers, to first order at one place, in units of the prior's widths
    there.

    Args:
        matrix: the Fisher information, over `unknown` and `other`.
        directions: a row for each direction, the least told first. `told` is the information along
            it, `contraction` by which share its variance falls from prior to posterior,
            `t / (1 + t)`.
        loadings: of which unknowns a direction is made, `(direction, unknown)`, each of length one.
        sentences: the combinations that are not told, in words; before them a warning where no
            posterior was given.
    """

    matrix: xr.DataArray
    directions: pd.DataFrame
    loadings: xr.DataArray
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def fisher_information(
    model: Model, data: xr.Dataset, post: xr.DataTree | None = None
) -> Information:
    r"""What data say of each unknown number and of their combinations, and which combinations they
    do not tell.

    The information is $J^\top W J$: J are the slopes of predictions, and of the logarithms of their
    standard deviations, by the unknowns on the real line (of a positive number its logarithm), W
    what each datum tells of them. In units of the prior's widths one says as much as the prior;
    along a direction of $t$ the variance falls by the share $t / (1 + t)$ from prior to posterior.

    Args:
        model: the model.
        data: the data, of which only times, forcings and gaps count, and where noise reads what.
        post: what `fit` returned: the slopes are taken at its mean. Without it they are taken at
            the median of the prior, and a warning says so. There a combination may look untold that
            the data tell well where they put the parameters.

    Returns:
        The information, its directions, and in words those of which the data say less than the
        prior.

    Source: Gutenkunst et al. (2007), on sloppy models.

    Raises:
        DataError: for bad data, where the solver fails at that place, or for numbers whose prior
            depends on others, of members of a population, or that sum to one.
        ModelError: likewise.
        MismatchError: for a posterior of another model.
    """
    problem = pose(model, data)
    refuse_bound(problem, model)
    if post is None:
        warnings.warn(f"fisher_information without a posterior looks {_AT_MEDIAN}", stacklevel=2)
    at = place_of(problem, model, post)
    if not np.isfinite(float(jax.jit(lambda x: problem.log_density(x))(at))):
        raise ModelError(
            "the solver fails at the place where slopes are asked for: give a posterior"
        )
    unit = problem.prior_widths()
    prior = -np.asarray(jax.jit(jax.hessian(lambda x: problem.log_prior(x)))(at))
    matrix = (gauss_newton(problem, np.asarray(at)) - prior) * np.outer(unit, unit)
    matrix = (matrix + matrix.T) / 2
    told, loadings = np.linalg.eigh(matrix)
    told = np.maximum(told, 0.0)
    labels = numbers_of(problem, model)
    largest = np.abs(loadings).argmax(0)
    loadings = (loadings * np.sign(loadings[largest, np.arange(len(told))])).T
    return Information(
        xr.DataArray(matrix, {"unknown": labels, "other": labels}, name="information"),
        pd.DataFrame({"told": told, "contraction": told / (1 + told)}),
        xr.DataArray(
            loadings, {"direction": np.arange(len(told)), "unknown": labels}, name="loading"
        ),
        (
            *(() if post is not None else (f"looked {_AT_MEDIAN}",)),
            *_in_words(labels, told, loadings),
        ),
    )


def _in_words(labels: list[str], told: np.ndarray, loadings: np.ndarray) -> tuple[str, ...]:
    untold = [i for i in range(len(told)) if told[i] < _TOLD]
    if not untold:
        return (f"the data say more than the prior of all {len(told)} directions",)
    sentences = []
    for i in untold:
        large = [
            j
            for j in np.argsort(-np.abs(loadings[i]))
            if abs(loadings[i][j]) > _LARGE * abs(loadings[i]).max()
        ]
        up = [labels[j] for j in large[:_MOST_NAMES] if loadings[i][j] > 0]
        down = [labels[j] for j in large[:_MOST_NAMES] if loadings[i][j] < 0]
        rest = f" and {len(large) - _MOST_NAMES} more" if len(large) > _MOST_NAMES else ""
        what = (
            " and ".join(up) + (" up with " + " and ".join(down) + " down" if down else "") + rest
        )
        if not down and len(up) > 1:
            what = " and ".join(up) + " up together" + rest
        share = told[i] / (1 + told[i])
        sentences.append(
            f"not told by the data: {what} (of the prior's variance {1 - share:.0%} is left)"
        )
    return tuple(sentences)


def refuse_bound(problem: Problem, model: Model) -> None:
    """Refuse numbers that have no place of their own on the real line.

    Raises:
        ModelError: if so.
    """
    for path, leaf in paths(model).items():
        if (
            isinstance(leaf.distribution, Dependent)
            or leaf.dims
            or isinstance(model.layer, AbstractPopulation)
        ):
            raise ModelError(
                f"the prior of '{path}' depends on other unknown numbers, or differs between "
                "members: this is for "
                "numbers that have a prior of their own; bd.sensitivity.sensitivity takes any"
            )
        if problem.sites[path].size != np.prod(leaf.shape, dtype=int):
            raise ModelError(
                f"the numbers of '{path}' can move in fewer directions than they are: this is for "
                "others"
            )


def numbers_of(problem: Problem, model: Model) -> list[str]:
    """Each number of the flat vector as it is called in results."""
    short = names(model)
    return [
        short[path] if site.size == 1 else f"{short[path]}[{i}]"
        for path, site in problem.sites.items()
        for i in range(site.size)
    ]


def place_of(problem: Problem, model: Model, post: xr.DataTree | None) -> Array:
    """The mean of a posterior on the real line, or the median of the prior."""
    if post is None:
        return jnp.asarray(problem.prior_normal()[0])
    draws = {path: jnp.asarray(values) for path, values in draws_of(model, post).items()}
    return jnp.mean(jax.jit(jax.vmap(lambda v: problem.unconstrain(v)))(draws), axis=0)
