"""`choose_solver`: choose between a non-stiff and a stiff solver by measurement."""

import copy
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array

from .._jax.devices import keep_programs
from .._jax.keys import as_key
from ..errors import ModelError
from ..inference import pose
from ..inference.gradient import choose, seconds_a_gradient
from ..layers import ODE
from ..layers.ode import find_solver
from ..model import Model
from ..prediction.predictive import push
from ..priors import draw_prior

_SOLVERS = ("tsit5", "rodas5p")
_DRAWS = 32


@dataclass(frozen=True)
class SolverChoice:
    """A model with its best solver; `print(choice)` shows the measurements.

    Args:
        model: the model, with the chosen solver in every ODE.
        solver: the name of the solver, "tsit5" or "rodas5p".
        reason: the measurements in words.
    """

    model: Model
    solver: str
    reason: str

    def __str__(self) -> str:
        return self.reason

    __repr__ = __str__


@dataclass(frozen=True)
class _Trial:
    """The measurements of one solver at prior draws.

    Args:
        solver: the name of the solver.
        model: the model with this solver.
        solved: the number of draws for which the solver succeeded.
        draws: the number of draws.
        steps: the median number of steps.
        seconds: the time of one gradient.
    """

    solver: str
    model: Model
    solved: int
    draws: int
    steps: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.solver} solved {self.solved} of {self.draws} prior draws, in {self.steps} "
            f"steps at the median and {1e3 * self.seconds:.2g} ms a gradient"
        )


def choose_solver(model: Model, data: xr.Dataset, *, key: int | Array = 0) -> SolverChoice:
    """Choose between `tsit5`, for non-stiff equations, and `rodas5p`, for stiff ones.

    Both solvers are tried on some prior draws. The chosen one fails for fewer draws. If both fail
    equally often, the one with the faster gradient is chosen. Time depends on the machine, so write
    the chosen solver into the model: `solver="rodas5p"`.

    Args:
        model: a model with an ODE.
        data: the data of the model, as for `fit`.
        key: a whole number or a JAX random key, for the prior draws.

    Returns:
        The model with the chosen solver in every ODE, and the reason.

    Raises:
        ModelError: if the model has no ODE, or cannot be fitted.
        DataError: if the data cannot be fitted.
    """
    if not isinstance(model, Model):
        raise ModelError(f"model must be a bd.Model, not {type(model).__name__}")
    if not any(isinstance(node, ODE) for node in jax.tree.leaves(model, is_leaf=_is_ode)):
        raise ModelError("the model has no ODE, so there is no solver to choose")
    keep_programs()
    trials = [
        _try(with_solver(model, solver), solver, data, key=as_key(key)) for solver in _SOLVERS
    ]
    best, other = sorted(trials, key=lambda trial: (-trial.solved, trial.seconds))
    return SolverChoice(best.model, best.solver, f"{best}; {other}: {_why(best, other)}")


def _why(best: _Trial, other: _Trial) -> str:
    """Return in words why one solver is better than the other."""
    if best.solved == 0:
        return f"neither will do, {best.solver} fails in less time"
    if best.solved > other.solved:
        return f"{best.solver} fails less often"
    return f"{best.solver} is cheaper"


def _try(model: Model, solver: str, data: xr.Dataset, *, key: Array) -> _Trial:
    """Measure a solver: solve prior draws, then time the gradient.

    `model` has the solver already; `solver` is only its name.
    """
    problem = pose(model, data)
    draws = {path: np.asarray(v) for path, v in draw_prior(model, _DRAWS, key=key).items()}
    pushed = push(model, problem.inputs, draws)
    seconds = seconds_a_gradient(problem, choose(problem, "auto"), _DRAWS, key=key)
    return _Trial(
        solver, model, int(pushed.ok.sum()), _DRAWS, int(np.median(pushed.steps)), seconds
    )


def _is_ode(node: Any) -> bool:
    return isinstance(node, ODE)


def with_solver(model: Any, solver: str) -> Any:
    """Return a model with another solver in all of its ODEs."""

    def swap(node):
        if not _is_ode(node):
            return node
        node = copy.copy(node)
        # The constructor is not used: a subclass of ODE may take other arguments than its fields.
        object.__setattr__(node, "solver", find_solver(solver))
        return node

    return jax.tree.map(swap, model, is_leaf=_is_ode)
