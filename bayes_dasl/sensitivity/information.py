"""Fisher information of data on parameters, and unidentified combinations of parameters."""

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

# Below this information, the data say less about a direction than the prior: more than half of the
# prior variance is left.
_IDENTIFIED = 1.0
# A parameter is named if its loading exceeds this share of the largest one. At most so many are
# named.
_LARGE, _MOST_NAMES = 0.3, 4
_AT_MEDIAN = (
    "at the median of the prior, perhaps far from where the data put the parameters: give what "
    "bd.fit returned"
)


@dataclass(frozen=True)
class Information:
    """Fisher information on parameters at one point, in units of the prior widths at this point.

    Args:
        matrix: the Fisher information matrix, with dimensions `unknown` and `other`.
        directions: a table with one row for each eigenvector, the least informed first.
            `information` is the eigenvalue t. `contraction` is t / (1 + t), the share of the prior
            variance that the data remove.
        loadings: the unit eigenvectors, `(direction, unknown)`.
        sentences: the combinations that are not identified, in words. A warning comes first if no
            posterior was given.
    """

    matrix: xr.DataArray
    directions: pd.DataFrame
    loadings: xr.DataArray
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    __repr__ = __str__


def fisher_information(
    model: Model, data: xr.Dataset, post: xr.DataTree | None = None
) -> Information:
    r"""Fisher information of data on parameters, and the combinations that they do not identify.

    $I = J^\top W J$

    J is the Jacobian of predictions, and of the logarithms of their standard deviations, by the
    unconstrained parameters (for a positive parameter, its logarithm). W holds the information of
    each datum. I is expressed in units of the prior widths, so that an information of one equals
    that of the prior. Along an eigenvector with eigenvalue t, the data remove the share
    $t / (1 + t)$ of the prior variance.

    Args:
        model: the model.
        data: the data. The values of observables do not matter, only times, forcings, missing
            values and variables that the noise uses.
        post: the result of `fit`, at whose mean the Jacobian is taken. By default it is taken at
            the median of the prior, with a warning: combinations that are unidentified at the
            median may be identified near the posterior.

    Returns:
        The information matrix, its eigenvectors, and sentences on those with less information than
        the prior.

    Source: Gutenkunst et al. (2007), on sloppy models.

    Raises:
        DataError: if the data do not suit the model.
        ModelError: if the solver fails at the point, a prior depends on other parameters, the layer
            is a population, or elements of a parameter sum to one.
        MismatchError: if the posterior is of another model.
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
    # 1. Information in units of prior widths. The Gauss-Newton matrix includes the curvature of the
    #    prior, which is subtracted.
    unit = problem.prior_widths()
    prior = -np.asarray(jax.jit(jax.hessian(lambda x: problem.log_prior(x)))(at))
    matrix = (gauss_newton(problem, np.asarray(at)) - prior) * np.outer(unit, unit)
    matrix = (matrix + matrix.T) / 2
    # 2. I vᵢ = tᵢ vᵢ. Rounding may leave an eigenvalue a little below zero.
    eigenvalues, vectors = np.linalg.eigh(matrix)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    # 3. Signs such that the largest loading of each eigenvector is positive.
    labels = numbers_of(problem, model)
    numbers = np.arange(len(eigenvalues))
    largest = np.abs(vectors).argmax(0)
    loadings = (vectors * np.sign(vectors[largest, numbers])).T
    sentences = _unidentified_in_words(labels, eigenvalues, loadings)
    if post is None:
        sentences = [f"looked {_AT_MEDIAN}", *sentences]
    return Information(
        xr.DataArray(matrix, {"unknown": labels, "other": labels}, name="information"),
        pd.DataFrame({"information": eigenvalues, "contraction": eigenvalues / (1 + eigenvalues)}),
        xr.DataArray(loadings, {"direction": numbers, "unknown": labels}, name="loading"),
        tuple(sentences),
    )


def _unidentified_in_words(
    labels: list[str], eigenvalues: np.ndarray, loadings: np.ndarray
) -> list[str]:
    """Return a sentence on each eigenvector with less information than the prior.

    If there is none, return one sentence that says so.

    Args:
        labels: the names of the parameters.
        eigenvalues: the eigenvalues, increasing.
        loadings: the eigenvectors, one row each.
    """
    if (eigenvalues >= _IDENTIFIED).all():
        return [f"the data say more than the prior of all {len(eigenvalues)} directions"]
    sentences = []
    for i in np.flatnonzero(eigenvalues < _IDENTIFIED):
        # Parameters with the largest loadings, separated by sign.
        order = np.argsort(-np.abs(loadings[i]))
        large = order[np.abs(loadings[i][order]) > _LARGE * abs(loadings[i]).max()]
        named = large[:_MOST_NAMES]
        up = " and ".join(labels[j] for j in named if loadings[i][j] > 0)
        down = " and ".join(labels[j] for j in named if loadings[i][j] < 0)
        rest = f" and {len(large) - _MOST_NAMES} more" if len(large) > _MOST_NAMES else ""
        together = " up together" if len(named) > 1 else ""
        what = up + (f" up with {down} down" if down else together) + rest
        left = 1 - eigenvalues[i] / (1 + eigenvalues[i])
        sentences.append(
            f"not informed by the data: {what} (of the prior's variance {left:.0%} is left)"
        )
    return sentences


def refuse_bound(problem: Problem, model: Model) -> None:
    """Refuse parameters that cannot vary independently on the unconstrained scale.

    Args:
        problem: the posterior.
        model: the model.

    Raises:
        ModelError: if a prior depends on other parameters, the layer is a population, or a
            parameter has fewer unconstrained dimensions than elements.
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
    """Return the names of the elements of the flat parameter vector, as in results.

    Args:
        problem: the posterior.
        model: the model.

    Returns:
        One name for each element, such as `rate` or `rate[0]`.
    """
    short = names(model)
    return [
        short[path] if site.size == 1 else f"{short[path]}[{i}]"
        for path, site in problem.sites.items()
        for i in range(site.size)
    ]


def place_of(problem: Problem, model: Model, post: xr.DataTree | None) -> Array:
    """Return the unconstrained posterior mean, or the prior median without a posterior.

    Args:
        problem: the posterior density.
        model: the model.
        post: the result of `fit`, or None.

    Returns:
        A position `(dimension,)`.
    """
    if post is None:
        return jnp.asarray(problem.prior_normal()[0])
    draws = {path: jnp.asarray(values) for path, values in draws_of(model, post).items()}
    return jnp.mean(jax.jit(jax.vmap(lambda v: problem.unconstrain(v)))(draws), axis=0)
