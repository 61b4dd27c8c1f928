"""Profile likelihoods: how likely data are for each value of one number, with the best values of
all others.
"""

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

_STARTS, _POINTS, _HALVINGS = 8, 21, 7
_TOLERANCE, _STEPS = 1e-6, 500
_WIDEST = 60.0  # widths of the prior from its middle, on the real line


def profile_likelihood(
    model: Model,
    data: xr.Dataset,
    name: str,
    values: Float[np.ndarray, " value"] | None = None,
    *,
    post: xr.DataTree | None = None,
    level: float = 0.95,
) -> xr.Dataset:
    r"""How likely data are for each value of one unknown number, with the most likely values of all
    others.

    No prior counts. Where the profile stays within $\chi^2_1 / 2$ of its maximum to an end of the
    values, the data do not bound the number there.

    Args:
        model: the model.
        data: the data.
        name: of a number, as it is called in results.
        values: for which, in increasing order; 21 over the central 99 % of its prior unless given.
            The most likely one is added, and some where the interval ends.
        post: what `fit` returned, whose mean is a start, too.
        level: of the interval.

    Returns:
        Over `value` the profile `log_likelihood`, in nats below its maximum, which may lie outside
        of the values, and under their own names the most likely values of all other numbers. The
        attributes `low` and `high` are the ends of the interval, NaN where it has none among the
        values or a solver fails before it ends; `best` is the most likely value, `failed` of how
        many values no solve succeeded.

    Source: Raue et al. (2009).

    Raises:
        MismatchError: for a name that is no unknown number.
        ModelError: for values that make no sense, where the solver fails everywhere, and as
            `fisher_information`.
        DataError: for bad data.
    """
    from scipy.stats import chi2  # a second of every import

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
    place = labels.index(name)
    shown = jax.jit(jax.vmap(lambda x: _numbers(problem, x)))
    grid = _grid(problem, place, values)
    begins = [place_of(problem, model, None)[None], problem.prior(_STARTS, key=jax.random.key(0))]
    begins += [] if post is None else [place_of(problem, model, post)[None]]
    profile = _Profile(problem, place, grid)
    profile.climb(np.asarray(jnp.concatenate(begins)))
    profile.peak()
    if not np.isfinite(profile.best).any():
        raise ModelError("the solver fails for all of the values: look at bd.check(model, data)")
    allowed = float(chi2.ppf(level, 1)) / 2
    ends = [profile.end(side, allowed) for side in (-1, 1)]
    found, fall = np.asarray(shown(jnp.asarray(profile.positions))), profile.fall
    own = found[:, place]
    variables: dict[str, Any] = {"log_likelihood": ("value", fall)}
    variables |= {label: ("value", found[:, i]) for i, label in enumerate(labels) if i != place}
    at_ends = [np.nan if end is None else float(np.interp(end, profile.grid, own)) for end in ends]
    order = np.argsort(own)  # a number may fall along the real line
    best = np.asarray(shown(jnp.asarray(profile.top[None])))[0, place]
    failed = int((~np.isfinite(fall)).sum())
    attributes = {"name": name, "level": level, "best": float(best), "failed": failed}
    low, high = (
        sorted(at_ends) if np.isfinite(at_ends).all() else at_ends[:: 1 if own[0] < own[-1] else -1]
    )
    return xr.Dataset(variables, {"value": own}, attributes | {"low": low, "high": high}).isel(
        value=order
    )


def _numbers(problem: Problem, x: Array) -> Float[Array, " number"]:
    """The values of all numbers at a position."""
    return jnp.concatenate([jnp.ravel(value) for value in problem.constrain(x).values()])


def _grid(problem: Problem, place: int, values: Any) -> np.ndarray:
    """The values of a number, on the real line."""
    middles, widths = problem.prior_normal()
    middle, width = float(middles[place]), float(widths[place])
    if values is None:
        return middle + width * np.linspace(-1, 1, _POINTS) * ndtri(0.995)
    asked = np.asarray(values, float)
    if asked.ndim != 1 or len(asked) < 2 or not np.all(np.diff(asked) > 0):
        raise ModelError("values must be two or more, in increasing order")
    at = jnp.asarray(middles)
    value = jax.jit(jax.vmap(lambda x: _numbers(problem, at.at[place].set(x))[place]))
    found = np.asarray([_inverse(value, each, middle, width) for each in asked])
    return np.sort(found)


def _inverse(
    value_of: Callable[[Array], Array], value: float, middle: float, width: float
) -> float:
    """Where on the real line a number has a value, by halving: sites go there as a whole."""
    low, high = middle - _WIDEST * width, middle + _WIDEST * width
    first, last = np.asarray(value_of(jnp.asarray([low, high])))
    if not min(first, last) < value < max(first, last):
        raise ModelError(f"the prior does not allow the value {value}")
    for _ in range(60):
        half = (low + high) / 2
        above = float(value_of(jnp.asarray([half]))[0]) > value
        low, high = (low, half) if above == (last > first) else (half, high)
    return (low + high) / 2


class _Profile:
    """The highest log likelihood found so far at each place of a grid, and the position of it."""

    def __init__(self, problem: Problem, place: int, grid: np.ndarray):
        self.place, self.grid = place, grid
        self.free = free = np.delete(np.arange(problem.dimension), place)
        self.best = np.full(len(grid), -np.inf)
        self.positions = np.zeros((len(grid), problem.dimension))
        self.positions[:, place] = grid
        solver = optx.BFGS(rtol=_TOLERANCE, atol=_TOLERANCE)

        def lost_at(x: Array, _: Any = None) -> Array:
            log_likelihood = problem.terms(x).data
            return jnp.where(jnp.isfinite(log_likelihood), -log_likelihood, jnp.inf)

        def lost(y: Array, value: Array) -> Array:
            return lost_at(jnp.zeros(problem.dimension).at[free].set(y).at[place].set(value))

        @jax.jit
        def lowest(value: Array, begin: Array) -> tuple[Array, Array]:
            before = lost(begin, value)
            if not len(free):
                return before, begin
            end = optx.minimise(lost, solver, begin, value, max_steps=_STEPS, throw=False).value
            after = lost(end, value)
            return jnp.fmin(before, after), jnp.where(after < before, end, begin)

        def lowest_of_all(begin: Array) -> tuple[Array, Array]:
            end = optx.minimise(lost_at, solver, begin, max_steps=_STEPS, throw=False).value
            return lost_at(end), end

        self._lowest, self._lowest_of_all = lowest, jax.jit(lowest_of_all)
        self.highest, self.top = -np.inf, self.positions[0]

    @property
    def fall(self) -> np.ndarray:
        """By how much each lies below the maximum."""
        return self.best - max(self.best.max(), self.highest)

    def take(self, i: int, begin: Float[np.ndarray, " dimension"]) -> None:
        """Look from a position for what is more likely at a place of the grid."""
        value, found = self._lowest(jnp.asarray(self.grid[i]), jnp.asarray(begin[self.free]))
        if -float(value) > self.best[i]:
            self.best[i] = -float(value)
            self.positions[i, self.free] = np.asarray(found)

    def climb(self, begins: Float[np.ndarray, "start dimension"]) -> None:
        """From each start at the value that is nearest, and from the best of them outwards and
        back.
        """
        for begin in begins:
            self.take(int(np.argmin(np.abs(self.grid - begin[self.place]))), begin)
        start, last = int(np.argmax(self.best)), len(self.grid) - 1
        outwards = [(i, i - 1) for i in range(start + 1, last + 1)] + [
            (i, i + 1) for i in range(start - 1, -1, -1)
        ]
        for i, near in outwards:
            self.take(i, self.positions[near])
        # What is found on the way out may be better than where one came from.
        for i, near in [(j, i) for i, j in reversed(outwards)]:
            self.take(i, self.positions[near])

    def peak(self) -> None:
        """Look for the most likely value of all, and add it if it lies on the grid."""
        begin = self.positions[np.argmax(self.best)]
        value, found = self._lowest_of_all(jnp.asarray(begin))
        better = -float(value) > self.best.max()
        self.highest, self.top = (
            (-float(value), np.asarray(found)) if better else (self.best.max(), begin)
        )
        own = float(found[self.place])
        if better and self.grid[0] < own < self.grid[-1]:
            at = int(np.searchsorted(self.grid, own))
            self._insert(at, own)
            self.best[at], self.positions[at, self.free] = (
                -float(value),
                np.asarray(found)[self.free],
            )

    def end(self, side: int, allowed: float) -> float | None:
        """Where the profile falls below what is allowed on a side of its maximum; none where it
        does not.

        Nor where the maximum lies outside of the grid, or a solver fails before.
        """
        best, fall = int(np.argmax(self.best)), self.fall
        beyond = np.flatnonzero(~(fall >= -allowed))
        beyond = beyond[beyond > best] if side > 0 else beyond[beyond < best][::-1]
        if fall[best] < -allowed or not len(beyond) or not np.isfinite(fall[beyond[0]]):
            return None
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
        self.grid = np.insert(self.grid, at, value)
        self.best = np.insert(self.best, at, -np.inf)
        self.positions = np.insert(self.positions, at, 0.0, axis=0)
        self.positions[at, self.place] = value
