"""Profile likelihoods: the likelihood over one parameter, maximised over all others."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import xarray as xr
from jaxtyping import Array, Float
from scipy.special import ndtri

from ..errors import MismatchError, ModelError
from ..inference import pose
from ..inference.problem import Problem
from ..model import Model
from .information import numbers_of, place_of, refuse_bound

# Number of prior draws as starts, of values of a default grid, and of bisections for each end of
# the interval.
_STARTS, _POINTS, _HALVINGS = 8, 21, 7
_TOLERANCE, _STEPS = 1e-6, 500
# A value is sought within this many prior widths of the median, on the unconstrained scale.
_WIDEST = 60.0


def profile_likelihood(
    model: Model,
    data: xr.Dataset,
    name: str,
    values: Float[np.ndarray, " value"] | None = None,
    *,
    post: xr.DataTree | None = None,
    level: float = 0.95,
) -> xr.Dataset:
    r"""The profile likelihood of a parameter: the likelihood maximised over all others.

    $\ell_p(v) = \max_{\theta:\, \theta_i = v} \log p(y \mid \theta)$

    Here v is a value of parameter i, θ all parameters and y the data. The prior is not used. The
    confidence interval consists of the values at which the profile is within half a quantile of
    $\chi^2_1$ of its maximum. If the profile stays within this distance up to an end of `values`,
    the data do not bound the parameter on that side.

    Args:
        model: the model.
        data: the data.
        name: the name of a scalar parameter in results.
        values: the values of the parameter, increasing; by default 21 over the central 99 % of its
            prior. The most likely value is added, and some values near the ends of the interval.
        post: the result of `fit`, whose mean is an additional start of the optimiser.
        level: the confidence level of the interval.

    Returns:
        A dataset over `value`. `log_likelihood` is the profile minus the maximum of the likelihood,
        in nats; the maximum may lie outside the values. The most likely values of all other
        parameters have their own names. The attributes `low` and `high` are the ends of the
        interval. An end is NaN if the interval does not end within the values, or if all solves
        fail before its end. `best` is the most likely value, and `failed` the number of values at
        which every solve failed.

    Source: Raue et al. (2009).

    Raises:
        MismatchError: if no scalar parameter has this name.
        ModelError: if the values do not increase or are impossible, the solver fails everywhere, or
            `fisher_information` would refuse the model.
        DataError: if the data do not suit the model.
    """
    # Importing SciPy's statistics takes a second, so only where it is needed.
    from scipy.stats import chi2

    problem = pose(model, data)
    refuse_bound(problem, model)
    labels = numbers_of(problem, model)
    if taken := {"value", "log_likelihood"} & {*labels}:
        raise ModelError(
            f"a number is called '{taken.pop()}', as a part of what this returns is: call it "
            "another name"
        )
    if labels.count(name) != 1:
        raise MismatchError(
            f"'{name}' is no unknown number of the model; its numbers are {', '.join(labels[:20])}"
        )
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1, not {level}")
    # 1. Maximise on a grid of the unconstrained parameter, and find the overall maximum.
    place = labels.index(name)
    shown = jax.jit(jax.vmap(lambda x: _flat_values(problem, x)))
    begins = [place_of(problem, model, None)[None], problem.prior(_STARTS, key=jax.random.key(0))]
    begins += [] if post is None else [place_of(problem, model, post)[None]]
    profile = _Profile(problem, place, _unconstrained_grid(problem, place, values))
    profile.climb(np.asarray(jnp.concatenate(begins)))
    profile.peak()
    if not np.isfinite(profile.best).any():
        raise ModelError("the solver fails for all of the values: look at bd.check(model, data)")
    # 2. Bisect for the ends of the interval, where the profile falls by χ²₁(level) / 2.
    allowed = float(chi2.ppf(level, 1)) / 2
    ends = [profile.end(side, allowed) for side in (-1, 1)]
    # 3. Back to named values.
    found = np.asarray(shown(jnp.asarray(profile.positions)))
    fall = profile.fall
    own = found[:, place]
    variables: dict[str, Any] = {"log_likelihood": ("value", fall)}
    variables |= {label: ("value", found[:, i]) for i, label in enumerate(labels) if i != place}
    low, high = [
        np.nan if end is None else float(np.interp(end, profile.grid, own)) for end in ends
    ]
    # A parameter may fall as its unconstrained value rises.
    if own[0] > own[-1]:
        low, high = high, low
    best = np.asarray(shown(jnp.asarray(profile.top[None])))[0, place]
    attributes = {
        "name": name,
        "level": level,
        "best": float(best),
        "failed": int((~np.isfinite(fall)).sum()),
        "low": low,
        "high": high,
    }
    return xr.Dataset(variables, {"value": own}, attributes).isel(value=np.argsort(own))


def _flat_values(problem: Problem, x: Array) -> Float[Array, " number"]:
    """Return all scalar parameters at an unconstrained position x, in one vector."""
    return jnp.concatenate([jnp.ravel(value) for value in problem.constrain(x).values()])


def _unconstrained_grid(problem: Problem, place: int, values: Any) -> np.ndarray:
    """Return the values of a parameter on the unconstrained scale, sorted.

    Args:
        problem: the posterior.
        place: the index of the parameter in the flat vector.
        values: the values of the parameter, or None for a default grid over its prior.
    """
    middles, widths = problem.prior_normal()
    middle = float(middles[place])
    width = float(widths[place])
    if values is None:
        return middle + width * np.linspace(-1, 1, _POINTS) * ndtri(0.995)
    asked = np.asarray(values, float)
    if asked.ndim != 1 or len(asked) < 2 or not np.all(np.diff(asked) > 0):
        raise ModelError("values must be two or more, in increasing order")
    at = jnp.asarray(middles)
    value = jax.jit(jax.vmap(lambda x: _flat_values(problem, at.at[place].set(x))[place]))
    return np.sort([_bisected_position(value, each, middle, width) for each in asked])


def _bisected_position(
    value_of: Callable[[Array], Array], value: float, middle: float, width: float
) -> float:
    """Return the unconstrained position at which a parameter has a value, by bisection.

    Args:
        value_of: a function from an array of unconstrained positions to values of the parameter.
        value: the value.
        middle: the prior median of the unconstrained parameter.
        width: the prior width of the unconstrained parameter.
    """
    low = middle - _WIDEST * width
    high = middle + _WIDEST * width
    first, last = np.asarray(value_of(jnp.asarray([low, high])))
    if not min(first, last) < value < max(first, last):
        raise ModelError(f"the prior does not allow the value {value}")
    for _ in range(60):
        half = (low + high) / 2
        above = float(value_of(jnp.asarray([half]))[0]) > value
        low, high = (low, half) if above == (last > first) else (half, high)
    return (low + high) / 2


class _Profile:
    """The highest log likelihood found so far at each point of a grid of one parameter.

    `best` is this log likelihood at each point, and `positions` the positions with these values.
    `highest` and `top` are the overall maximum and its position. `free` are the indices of all
    other parameters.

    Args:
        problem: the posterior.
        place: the index of the parameter in the flat vector.
        grid: the unconstrained values of the parameter, sorted.
    """

    def __init__(self, problem: Problem, place: int, grid: np.ndarray):
        self.place, self.grid = place, grid
        self.free = free = np.delete(np.arange(problem.dimension), place)
        self.best = np.full(len(grid), -np.inf)
        self.positions = np.zeros((len(grid), problem.dimension))
        self.positions[:, place] = grid
        self.highest, self.top = -np.inf, self.positions[0]
        solver = optx.BFGS(rtol=_TOLERANCE, atol=_TOLERANCE)

        # -log p(y | θ); infinite if the solver fails, so that the line search shortens its step.
        def loss(x: Array, _: Any = None) -> Array:
            log_likelihood = problem.terms(x).data
            return jnp.where(jnp.isfinite(log_likelihood), -log_likelihood, jnp.inf)

        def loss_at_value(y: Array, value: Array) -> Array:
            return loss(jnp.zeros(problem.dimension).at[free].set(y).at[place].set(value))

        # Minimise over all other parameters at a value; return the start if nothing is better.
        @jax.jit
        def lowest(value: Array, begin: Array) -> tuple[Array, Array]:
            before = loss_at_value(begin, value)
            if not len(free):
                return before, begin
            end = optx.minimise(
                loss_at_value, solver, begin, value, max_steps=_STEPS, throw=False
            ).value
            after = loss_at_value(end, value)
            return jnp.fmin(before, after), jnp.where(after < before, end, begin)

        def lowest_of_all(begin: Array) -> tuple[Array, Array]:
            end = optx.minimise(loss, solver, begin, max_steps=_STEPS, throw=False).value
            return loss(end), end

        self._lowest, self._lowest_of_all = lowest, jax.jit(lowest_of_all)

    @property
    def fall(self) -> np.ndarray:
        """The profile minus the overall maximum at each point; at most zero."""
        return self.best - max(self.best.max(), self.highest)

    def take(self, i: int, begin: Float[np.ndarray, " dimension"]) -> None:
        """Maximise at point i of the grid, starting from `begin`, and store an improvement."""
        value, found = self._lowest(jnp.asarray(self.grid[i]), jnp.asarray(begin[self.free]))
        if -float(value) > self.best[i]:
            self.best[i] = -float(value)
            self.positions[i, self.free] = np.asarray(found)

    def climb(self, begins: Float[np.ndarray, "start dimension"]) -> None:
        """Maximise along the whole grid by continuation from several starts."""
        # 1. Maximise from each start, at the grid point nearest to it.
        for begin in begins:
            self.take(int(np.argmin(np.abs(self.grid - begin[self.place]))), begin)
        # 2. From the best point outwards, start each point from its inner neighbour.
        start = int(np.argmax(self.best))
        outwards = [(i, i - 1) for i in range(start + 1, len(self.grid))]
        outwards += [(i, i + 1) for i in range(start - 1, -1, -1)]
        for i, near in outwards:
            self.take(i, self.positions[near])
        # 3. The same inwards: the maximum at an outer point may lead to a better one further in.
        for near, i in reversed(outwards):
            self.take(i, self.positions[near])

    def peak(self) -> None:
        """Find the overall maximum, and add its parameter value to the grid if it lies inside."""
        begin = self.positions[np.argmax(self.best)]
        value, found = self._lowest_of_all(jnp.asarray(begin))
        highest, top = -float(value), np.asarray(found)
        if not highest > self.best.max():
            self.highest, self.top = self.best.max(), begin
            return
        self.highest, self.top = highest, top
        own = top[self.place]
        if self.grid[0] < own < self.grid[-1]:
            at = int(np.searchsorted(self.grid, own))
            self._insert(at, own)
            self.best[at] = highest
            self.positions[at, self.free] = top[self.free]

    def end(self, side: int, allowed: float) -> float | None:
        """Return the grid value at which the profile has fallen by `allowed`.

        Args:
            side: 1 for values above the maximum, −1 for values below.
            allowed: the fall of the log likelihood, in nats.

        Returns:
            The unconstrained value of the parameter. It is None if the profile does not fall so far
            within the grid, the maximum lies outside the grid, or all solves fail before.
        """
        # 1. The first point beyond the end. A point with failed solves counts as beyond, too.
        best, fall = int(np.argmax(self.best)), self.fall
        beyond = np.flatnonzero(~(fall >= -allowed))
        beyond = beyond[beyond > best] if side > 0 else beyond[beyond < best][::-1]
        if fall[best] < -allowed or not len(beyond) or not np.isfinite(fall[beyond[0]]):
            return None
        # 2. Bisect between this point and its inner neighbour. Each midpoint is added to the grid.
        outer = int(beyond[0])
        inner = outer - side
        for _ in range(_HALVINGS):
            at = max(inner, outer)
            self._insert(at, (self.grid[inner] + self.grid[outer]) / 2)
            inner, outer = (at - 1, at + 1) if side > 0 else (at + 1, at - 1)
            self.take(at, self.positions[inner])
            if not np.isfinite(self.best[at]):
                return None
            inner, outer = (inner, at) if self.fall[at] < -allowed else (at, outer)
        return float(self.grid[inner] + self.grid[outer]) / 2

    def _insert(self, at: int, value: float) -> None:
        """Insert a value into the grid before point `at`, with no maximum found for it yet."""
        self.grid = np.insert(self.grid, at, value)
        self.best = np.insert(self.best, at, -np.inf)
        self.positions = np.insert(self.positions, at, 0.0, axis=0)
        self.positions[at, self.place] = value
