"""Inputs moved a little in the direction that makes the data least likely."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._errors import ModelError
from ...data.datasets import Inputs
from ...layers._prediction import frozen
from ..problem import Problem

type Movable = dict[str, Array]

_INDEX = "the index itself"


class Adversary:
    """Moves forcings, or the index where there are none, by a share of the range of each (fast gradient sign).

    Raises: ModelError for a model that reads neither: of a solver the times cannot change their places.
    Source: Goodfellow, Shlens & Szegedy (2015).
    """

    def __init__(self, problem: Problem, share: float):
        values = _movable(problem.inputs)
        if not values and problem.model.layer.states == 0:
            values = {_INDEX: problem.inputs.times}
        if not values:
            raise ModelError(
                "adversarial needs inputs that can be moved: forcings (linear or step), or the index of a layer that "
                "solves nothing; this model has neither"
            )
        self._by = {name: share * float(np.ptp(np.asarray(v))) for name, v in values.items()}

    def moved(self, given: Inputs, log_likelihood: Callable[[Inputs], Array]) -> Inputs:
        """The inputs at which the data are less likely; no gradient flows through the move."""
        now = {name: given.times if name == _INDEX else _movable(given)[name] for name in self._by}
        slopes = jax.grad(lambda values: log_likelihood(_placed(given, values)))(frozen(now))
        away = {n: v - self._by[n] * jnp.sign(jnp.nan_to_num(slopes[n])) for n, v in now.items()}
        return _placed(given, frozen(away))


def _movable(given: Inputs) -> Movable:
    """The values of forcings that run straight, or in steps, between them."""
    return {name: force.values for name, force in given.forcings.items() if hasattr(force, "values")}  # type: ignore


def _placed(given: Inputs, values: Movable) -> Inputs:
    forcings = {
        name: dataclasses.replace(force, values=values[name]) if name in values else force
        for name, force in given.forcings.items()
    }
    return dataclasses.replace(given, forcings=forcings, times=values.get(_INDEX, given.times))
