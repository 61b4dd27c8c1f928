"""What every layer is and returns, what may be part of one, and what a layer says without its
solves.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._jax.tree import dotted, frozen
from ..data.layer_inputs import Inputs, OwnRows
from ..random import Module, Values, VectorField

type States = dict[str, Array]
"""States of one trajectory by name, `(time, …)`."""
type StatedFunction = tuple[str, VectorField, Mapping[str, Any]]
"""Name of a function in messages, the function, and the states whose rates it returns."""


class Prediction(eqx.Module):
    """Named arrays, the solver's health and its work.

    Args:
        values: what is predicted, `(time, …)` by name, in the units of the outputs; finite even
            where the solver failed, so that gradients stay finite too: they mean nothing there.
        ok: whether the solver succeeded.
        stats: the work that it took, such as `steps`, by name.
        mismatches: standardised numbers of any shape by name: the layer wants each of them to be a
            draw of the standard normal, as the gap between two segments of a trajectory divided by
            the gap that is allowed.
        variances: those of the values given the parameters, `(time, …)` by name, in the square of
            their units, where a layer has integrated over a path that it does not know.
        before: the values at the times of `inputs.past`, where noise looks back at them.
        end: the states at the last time, from which `from_end` goes on.
    """

    values: dict[str, Float[Array, "time ..."]]
    ok: Bool[Array, ""]
    stats: dict[str, Int[Array, ""]] = eqx.field(default_factory=dict)
    mismatches: dict[str, Float[Array, "..."]] = eqx.field(default_factory=dict)
    variances: dict[str, Float[Array, "time ..."]] = eqx.field(default_factory=dict)
    before: dict[str, Float[Array, "past ..."]] = eqx.field(default_factory=dict)
    end: dict[str, Float[Array, "..."]] = eqx.field(default_factory=dict)

    @property
    def log_factor(self) -> Float[Array, ""]:
        """What the mismatches add to the log density."""
        return -0.5 * sum((jnp.sum(jnp.square(v)) for v in self.mismatches.values()), jnp.zeros(()))


class AbstractLayer(Module):
    """A differentiable scientific model: `layer(inputs) -> Prediction`.

    `forcings` names the data variables that drive it; `units` are those of outputs and forcings,
    where known. `interpolation` says which forcings are not linear between their data, `index` is
    the coordinate that the data run along, and `dims` are the dimensions beyond it of the outputs
    that have any.
    """

    forcings: eqx.AbstractVar[tuple[str, ...]]
    units: eqx.AbstractVar[Mapping[str, str]]

    @property
    def interpolation(self) -> Mapping[str, str]:
        return {}

    @property
    def index(self) -> str:
        return "time"

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {}

    @property
    def _stated_functions(self) -> list[StatedFunction]:
        return []

    @property
    def states(self) -> int:
        """How many numbers its solvers carry along; 0 if there is no solver."""
        return 0

    @property
    def trajectories(self) -> "list[AbstractTrajectory] | None":
        """The initial value problems that are all it solves, each for itself; none if it solves
        anything else.

        Where there is a list, states can be given in place of solves, as the coordinates of hybrids
        do.
        """
        return None

    @property
    def _begins(self) -> bool:
        return hasattr(self, "start")

    @property
    def pointwise(self) -> bool:
        """Whether what it predicts at one time does not depend on which others it is asked for."""
        return False

    @property
    def _goes_on(self) -> bool:
        return False

    def _from_end(self, states: Values) -> "AbstractLayer":
        raise NotImplementedError(f"{type(self).__name__} does not go on from the end of a solve")

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the values that the layer predicts."""

    @abstractmethod
    def __call__(self, inputs: Inputs) -> Prediction:
        """Predict at `inputs.times`.

        Args:
            inputs: the start, the times, the forcings and the places, as `Model.inputs` makes them.
        """


# The model asks layers of any type by these functions; authors of layers need none of them.


def begins(layer: AbstractLayer) -> bool:
    """Whether a layer has a start, before which it predicts nothing."""
    return layer._begins


def goes_on(layer: AbstractLayer) -> bool:
    """Whether the states at the `end` of a prediction, and later forcings, determine the future."""
    return layer._goes_on


def from_end(layer: AbstractLayer, states: Values) -> AbstractLayer:
    """A layer that `goes_on`, with other initial states.

    Args:
        layer: the layer.
        states: the states at the new start, by name.

    Returns:
        the layer that starts at these states.
    """
    return layer._from_end(states)


def stated_functions(layer: AbstractLayer) -> list[StatedFunction]:
    """Functions `(t, y, u)` of a layer whose units can be checked.

    Returns:
        for each its name in messages, the function, and the states whose rates it returns (none if
        it returns outputs).
    """
    return layer._stated_functions


class AbstractTrajectory(AbstractLayer):
    """A layer that solves one initial value problem by itself, so that its states can be given
    instead.

    Its prediction is `predict(inputs, *solve(inputs, begin(inputs)))`.
    """

    vector_field: eqx.AbstractVar[VectorField]
    initial: eqx.AbstractVar[dict[str, Any]]
    observe: eqx.AbstractVar[Callable[..., Values] | None]

    @property
    def trajectories(self) -> "list[AbstractTrajectory] | None":
        return [self]

    @abstractmethod
    def begin(self, inputs: Inputs) -> dict[str, Any]:
        """The states at the start.

        Args:
            inputs: start, times and forcings.
        """

    @abstractmethod
    def solve(self, inputs: Inputs, initial: dict[str, Any]) -> tuple[dict[str, Any], Any, Any]:
        """The states at all times from those at the start, whether the solve succeeded, and its
        steps.

        Args:
            inputs: start, times and forcings.
            initial: the states at the start, by name.
        """

    @abstractmethod
    def predict(self, inputs: Inputs, states: dict[str, Any], ok: Any, steps: Any) -> Prediction:
        """What is observed of the states at all times.

        Args:
            inputs: start, times and forcings.
            states: those at all times, `(time, …)` by name.
            ok: whether the solve succeeded.
            steps: how many steps it took.
        """

    @abstractmethod
    def rates_along(self, inputs: Inputs, times: Any, states: Values) -> dict[str, Any]:
        """What the vector field says at some times and states, `(time, …)` each.

        Args:
            inputs: start, times and forcings.
            times: `(time,)`, in the units of time of the data.
            states: those at these times, by name.
        """


def start_of(layer: Any) -> Any:
    """When the solve of a layer starts: as it says, else at the first time of its doses; none where
    neither is said.
    """
    start = getattr(layer, "start", None)
    return getattr(getattr(layer, "doses", None), "start", None) if start is None else start


class AroundLayer(AbstractLayer):
    """A layer around another one: what drives it is what drives that."""

    layer: eqx.AbstractVar[AbstractLayer]

    @property
    def forcings(self) -> tuple[str, ...]:  # pyright: ignore
        return self.layer.forcings

    @property
    def units(self) -> Mapping[str, str]:  # pyright: ignore
        return self.layer.units

    @property
    def interpolation(self) -> Mapping[str, str]:
        return self.layer.interpolation

    @property
    def index(self) -> str:
        return self.layer.index

    @property
    def start(self) -> float | datetime | None:
        return start_of(self.layer)

    @property
    def _begins(self) -> bool:
        return begins(self.layer)


class AbstractPopulation(AroundLayer):
    """A layer for each member of a population, such as `bd.Each`; `dim` is the dimension that they
    form.
    """

    members: eqx.AbstractVar[tuple[Any, ...]]
    dim: eqx.AbstractVar[str]

    @abstractmethod
    def over_members(self, tree: Any) -> tuple[Any, tuple[str, ...]]:
        """A tree with a number of each member wherever one is varying, and the paths at which it
        is.

        Args:
            tree: a layer, or noise.
        """

    @abstractmethod
    def positions(self, names: Any) -> Int[np.ndarray, " member"]:
        """Which of the members some are.

        Args:
            names: what they are called, `(member,)`.

        Raises:
            DataError: for one that is no member.
        """

    @abstractmethod
    def own_rows(self, observed: Mapping[str, Array]) -> OwnRows | None:
        """Where each member was observed; none where its layer looks at all times, or all were at
        all of them.

        Args:
            observed: the data by name, `(time, …, member)`, NaN where missing.
        """


def of_members(tree: Any, varied: Sequence[str], at: Any) -> Any:
    """A tree with the numbers of some members at the paths that vary.

    Args:
        tree: a layer, or noise, with numbers in place of what is unknown.
        varied: the paths, as `AbstractPopulation.over_members` found them.
        at: which members, a position or several.
    """

    def chosen(path, leaf):
        return jnp.asarray(leaf)[at] if dotted(path) in varied else leaf

    return jtu.tree_map_with_path(chosen, tree)


class AroundTrajectory(AbstractLayer):
    """A layer around one trajectory: what drives it and what it predicts are those of the
    trajectory.
    """

    ode: eqx.AbstractVar[AbstractTrajectory]

    @property
    def forcings(self) -> tuple[str, ...]:  # pyright: ignore
        return self.ode.forcings

    @property
    def units(self) -> Mapping[str, str]:  # pyright: ignore
        return self.ode.units

    @property
    def interpolation(self) -> Mapping[str, str]:
        return self.ode.interpolation

    @property
    def start(self) -> float | datetime | None:
        return start_of(self.ode)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.ode.outputs


class AtStates(AroundTrajectory):
    """A trajectory whose states at the times of the data are known, with the success and the steps
    of their solve.
    """

    ode: AbstractTrajectory
    known: States
    ok: Any
    steps: Any

    def __init__(self, ode: AbstractTrajectory, known: States, ok: Any = True, steps: Any = 0):
        self.ode, self.known, self.ok, self.steps = ode, known, ok, jnp.asarray(steps)

    def __call__(self, inputs: Inputs) -> Prediction:
        return self.ode.predict(inputs, self.known, self.ok, self.steps)


def _is_trajectory(node: Any) -> bool:
    return isinstance(node, AbstractTrajectory)


def named_trajectories(tree: Any) -> list[tuple[str, AbstractTrajectory]]:
    """The trajectories inside a tree by their dotted paths, in its order."""
    found = jtu.tree_flatten_with_path(tree, is_leaf=_is_trajectory)[0]
    return [(dotted(path), node) for path, node in found if _is_trajectory(node)]


def trajectories(tree: Any) -> list[AbstractTrajectory]:
    """The trajectories inside a tree, in its order."""
    return [trajectory for _, trajectory in named_trajectories(tree)]


def at_states(tree: Any, states: Sequence[States]) -> Any:
    """A tree with given states in place of the solves of its trajectories."""
    return at_solutions(tree, [(known,) for known in states])


def at_solutions(tree: Any, solutions: Sequence[tuple]) -> Any:
    """A tree with what `solve` returned in place of the solves of its trajectories."""
    left = list(solutions)
    return jax.tree.map(
        lambda node: AtStates(node, *left.pop(0)) if _is_trajectory(node) else node,
        tree,
        is_leaf=_is_trajectory,
    )


def with_adjoint(
    tree: Any,
    adjoint: diffrax.AbstractAdjoint,
    instead_of: type[diffrax.AbstractAdjoint] = diffrax.AbstractAdjoint,
) -> Any:
    """The tree with another adjoint in place of every one of a kind."""

    def is_adjoint(node):
        return isinstance(node, diffrax.AbstractAdjoint)

    return jax.tree.map(
        lambda node: adjoint if isinstance(node, instead_of) else node, tree, is_leaf=is_adjoint
    )


class AbstractFilter(AbstractLayer):
    """A layer that looks back at observations: `layer(inputs, variances)` with the variance of each
    one's noise.

    Its prediction at a time is what the observations before it (in `inputs.past`) say, so that the
    product of the densities of all observations is the likelihood with the unknown path integrated
    out.
    """

    @abstractmethod
    def __call__(self, inputs: Inputs, variances: Mapping[str, Any]) -> Prediction:
        """Predict at `inputs.times`, with the variance of each value before its observation.

        Args:
            inputs: start, times and forcings, and the observations before them in `inputs.past`.
            variances: the variance of the noise of each observable, in the square of its units.
        """


def finite(values: Any) -> Bool[Array, ""]:
    """Whether every number in a tree is finite."""
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(v)) for v in jax.tree.leaves(values)]))


def prediction(values: Any, ok: Any, stats: Any = None, **more: Any) -> Prediction:
    """A prediction whose values are 1 wherever the solve failed or left the finite numbers.

    Args:
        values: what is predicted, `(time, …)` by name.
        ok: whether the solve succeeded.
        stats: the work that it took, whole numbers by name; none unless given.
        more: `mismatches`, `variances` and `end` of the `Prediction`.
    """
    ok = jnp.asarray(ok) & finite(values)
    masked = jax.tree.map(lambda v: jnp.where(ok, v, 1.0), dict(values))
    return Prediction(masked, ok, {} if stats is None else stats, **more)


def shielded(
    function: Callable, fine: Callable[[Any], Any], *args: Any
) -> tuple[Any, Bool[Array, ""]]:
    """`function(*args)`, and whether that is `fine`; where it is not, no gradient flows through the
    function.

    Masking what it returns is not enough: where it is singular its derivative is infinite, and zero
    times that is NaN.
    """
    closed = eqx.filter_closure_convert(function, *args)
    ok = jnp.asarray(fine(frozen(closed)(*frozen(args))))
    through = jax.tree.map(
        lambda x: jnp.where(ok, x, frozen(x)) if eqx.is_inexact_array(x) else x, (closed, args)
    )
    return through[0](*through[1]), ok


def predict_rows(rows: Callable, times: Any, ok: Any, stats: Any = None, **more: Any) -> Prediction:
    """The prediction of a function of all rows; where it fails its gradient is zero, even if it is
    singular there.
    """
    values, ok = shielded(rows, lambda values: ok & finite(values), times)
    return prediction(values, ok, stats, **more)


def joined(parts: Mapping[str, Prediction], values: Mapping[str, Any], **more: Any) -> Prediction:
    """A prediction made of several: good only if all are,
    with the work and the mismatches of all.
    """
    ok = jnp.all(jnp.asarray([part.ok for part in parts.values()]))
    stats: dict[str, Any] = {}
    for part in parts.values():
        stats |= {name: stats.get(name, 0) + value for name, value in part.stats.items()}
    mismatches = {
        f"{owner}.{name}": v for owner, part in parts.items() for name, v in part.mismatches.items()
    }
    return prediction(values, ok, stats, mismatches=mismatches, **more)
