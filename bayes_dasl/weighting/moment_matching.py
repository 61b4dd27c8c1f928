"""Moment matching: moves draws to the posterior without some data, for reliable weights."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from .._statistics.importance import Weights, weigh

# The largest number of maps, as in the R package loo. Usually fewer than five are needed.
_MOST_MAPS = 30
# Draws for each dimension, for a covariance.
_FEWEST_A_DIMENSION = 10

type Draws = Float[np.ndarray, "draw dimension"]
type Densities = Float[np.ndarray, " draw"]
type Affine = tuple[Float[np.ndarray, "dimension dimension"], Float[np.ndarray, " dimension"]]
r"""The matrix $A$ and the offset $b$ of $x \mapsto A x + b$."""


def left_out(
    draws: Draws,
    log_likelihood: Densities,
    log_rest: Callable[[Draws], Densities],
    log_likelihood_at: Callable[[Draws], Densities],
) -> tuple[float, float]:
    r"""Compute the log predictive density of some of the fitted data, given the rest of the data.

    1. Compute the importance weights $p(x \mid \text{rest}) / p(x \mid \text{all})$ of the draws x.
    2. Find an affine map that moves the draws to their weighted mean; it may also match their
    standard deviations, or their covariance. Keep the map if the $\hat k$ of the weights falls.
    Repeat; T is the composition of all maps.
    3. Move half of the draws by T, and call all draws z then. Weight them by $p(z \mid \text{rest})
    / g(z)$ with the mixture $g(z) = [p(z \mid \text{all}) + p(T^{-1} z \mid \text{all}) / |\det T|]
    / 2$. Unmoved draws cover the numerator of the predictive density, and moved draws its
    denominator.

    Args:
        draws: unconstrained posterior draws given all data.
        log_likelihood: the log likelihood of the data to leave out, at these draws.
        log_rest: a function of draws: the log posterior density given the rest of the data, up to a
            constant.
        log_likelihood_at: a function of draws: the log likelihood of the data to leave out.

    Returns:
        The log predictive density, and the $\hat k$ of its weights.

    Source: Paananen, Piironen, Bürkner & Vehtari (2021), Implicitly adaptive importance sampling.
    """
    # 1. and 2. Weights p(rest) / p(all) = 1 / likelihood, and the affine map T.
    rest = log_rest(draws)
    with np.errstate(invalid="ignore"):
        first = weigh(-log_likelihood, draws)
        matrix, offset = _matched(draws, rest + log_likelihood, log_rest, first)
        # 3. Every second draw is moved; its counterpart is moved back.
        moved = np.arange(len(draws)) % 2 == 1
        there = draws @ matrix.T + offset
        back = np.linalg.solve(matrix, (draws - offset).T).T
        other = np.where(moved[:, None], there, back)
        other_rest = log_rest(other)
        other_likelihood = log_likelihood_at(other)
        as_they_are = rest + log_likelihood
        through_map = other_rest + other_likelihood
        # log 2 g(z); z is T x for moved draws, and T⁻¹ z is then x.
        log_det = np.linalg.slogdet(matrix)[1]
        mixture = np.where(
            moved,
            np.logaddexp(through_map, as_they_are - log_det),
            np.logaddexp(as_they_are, through_map - log_det),
        )
        weights = weigh(
            np.where(moved, other_rest, rest) - mixture, np.where(moved[:, None], other, draws)
        )
    # 4. log Σ w p(y | z).
    likelihood = np.where(moved, other_likelihood, log_likelihood)[weights.first]
    with np.errstate(divide="ignore"):
        return float(np.logaddexp.reduce(likelihood + np.log(weights.values))), weights.pareto_k


def _matched(
    draws: Draws, log_density: Densities, log_rest: Callable[[Draws], Densities], weights: Weights
) -> Affine:
    """Return the affine map that moves draws towards the posterior given the rest of the data.

    Args:
        draws: posterior draws given all data.
        log_density: their log density given all data.
        log_rest: as for `left_out`.
        weights: importance weights of the draws for the rest of the data.
    """
    matrix = np.eye(draws.shape[1])
    offset = np.zeros(draws.shape[1])
    for _ in range(_MOST_MAPS):
        # Take the simplest map that lowers the k-hat, until none does.
        for scale, shift in _maps(draws @ matrix.T + offset, weights):
            to = scale @ matrix, scale @ offset + shift
            moved = draws @ to[0].T + to[1]
            # The Jacobian of an affine map is constant, so the weights do not need it.
            found = weigh(log_rest(moved) - log_density, moved)
            if found.pareto_k < weights.pareto_k:
                (matrix, offset), weights = to, found
                break
        else:
            break
    return matrix, offset


def _maps(draws: Draws, weights: Weights) -> Iterator[Affine]:
    """Yield affine maps that move draws to their weighted moments.

    The first map matches the mean, the second also standard deviations, and the third, if there are
    enough draws, also the covariance.

    Args:
        draws: the draws.
        weights: their importance weights.
    """
    some = draws[weights.first]
    mean = draws.mean(axis=0)
    dimension = draws.shape[1]
    weighted = weights.values @ some
    apart = some - weighted

    def around(matrix):
        return matrix, weighted - matrix @ mean

    yield around(np.eye(dimension))
    yield around(np.diag(np.sqrt(weights.values @ apart**2 / draws.var(axis=0))))
    if len(draws) >= _FEWEST_A_DIMENSION * dimension:
        try:
            new = np.linalg.cholesky((weights.values[:, None] * apart).T @ apart)
            old = np.linalg.cholesky(np.cov(draws.T, ddof=0).reshape(dimension, dimension))
        except np.linalg.LinAlgError:
            # The covariance is singular if hardly any draw has weight.
            return
        yield around(new @ np.linalg.inv(old))
