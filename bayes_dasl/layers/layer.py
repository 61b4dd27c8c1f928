"""The interface of layers: `AbstractLayer`, its `Prediction`, and layers that contain a layer."""

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
"""States of one trajectory by name, each of shape `(time, …)`."""
type StatedFunction = tuple[str, VectorField, Mapping[str, Any]]
"""A function with known units: its name in messages, the function, and the states whose rates it
returns (an empty dict if it returns outputs)."""


class Prediction(eqx.Module):
    """The result of a layer: predicted values, and whether its solver succeeded.

    Args:
        values: predictions, `(time, …)` by name, in the units of the outputs. If the solver failed,
            they are arbitrary finite numbers, so that gradients stay finite.
        ok: whether the solver succeeded.
        stats: counts of the solver's work by name, such as `steps`.
        constraint_residuals: numbers of any shape by name that should be zero, such as a gap
            between two segments divided by the allowed gap. The likelihood treats each number as a
            standard normal variable.
        variances: variances of the values given the parameters, `(time, …)` by name, in squared
            units. Only layers that integrate over an unknown path of the states have variances.
        before: the values at the times of `inputs.past`, `(past, …)` by name. Only noise that
            depends on earlier data needs them.
        end: the states at the last time by name. `from_end` continues a solve from them.
    """

    values: dict[str, Float[Array, "time ..."]]
    ok: Bool[Array, ""]
    stats: dict[str, Int[Array, ""]] = eqx.field(default_factory=dict)
    constraint_residuals: dict[str, Float[Array, "..."]] = eqx.field(default_factory=dict)
    variances: dict[str, Float[Array, "time ..."]] = eqx.field(default_factory=dict)
    before: dict[str, Float[Array, "past ..."]] = eqx.field(default_factory=dict)
    end: dict[str, Float[Array, "..."]] = eqx.field(default_factory=dict)

    @property
    def log_factor(self) -> Float[Array, ""]:
        """The log density -½ Σ r² of all constraint residuals r, without its constant."""
        return -0.5 * sum(
            (jnp.sum(jnp.square(v)) for v in self.constraint_residuals.values()), jnp.zeros(())
        )


class AbstractLayer(Module):
    """A differentiable scientific model: `layer(inputs)` returns a `Prediction`.

    Attributes:
        forcings: the names of the data variables that drive the layer.
        units: the known units of outputs and forcings, by name.
        interpolation: "step" or "cubic" by forcing; other forcings are linear between their data.
        index: the name of the coordinate along which the data lie, such as `time`.
        dims: the dimensions of each output besides the index, by output.
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
        """The number of state variables that are solved for; 0 for a layer without a solver."""
        return 0

    @property
    def trajectories(self) -> "list[AbstractTrajectory] | None":
        """The initial value problems that this layer solves independently of each other.

        None if the layer also solves something else. If there is a list, given states can replace
        the solves, as in a reparametrisation of hybrids.
        """
        return None

    @property
    def _begins(self) -> bool:
        """Implements `begins`."""
        return hasattr(self, "start")

    @property
    def pointwise(self) -> bool:
        """Whether the prediction at a time does not depend on which other times are requested."""
        return False

    @property
    def _goes_on(self) -> bool:
        """Implements `goes_on`."""
        return False

    def _from_end(self, states: Values) -> "AbstractLayer":
        """Implements `from_end`."""
        raise NotImplementedError

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """The names of the predicted values."""

    @abstractmethod
    def __call__(self, inputs: Inputs) -> Prediction:
        """Predict at `inputs.times`.

        Args:
            inputs: the start, times, forcings and other coordinates, as `Model.inputs` makes them.

        Returns:
            The prediction; its `ok` is False if a solve failed.
        """


# The package uses these functions on layers of any type. Authors of layers need none of them.


def begins(layer: AbstractLayer) -> bool:
    """Whether a layer has a start time, before which it cannot predict."""
    return layer._begins


def goes_on(layer: AbstractLayer) -> bool:
    """Whether a solve can be continued by `from_end`.

    It can if the states `Prediction.end` and later forcings determine all later predictions.
    """
    return layer._goes_on


def from_end(layer: AbstractLayer, states: Values) -> AbstractLayer:
    """Return a copy of a layer with other initial states.

    Args:
        layer: a layer for which `goes_on` is true.
        states: the states at the new start, by name.

    Returns:
        The layer that starts from these states.
    """
    return layer._from_end(states)


def stated_functions(layer: AbstractLayer) -> list[StatedFunction]:
    """List the functions `(t, y, u)` of a layer whose units can be checked.

    Returns:
        For each function a tuple: its name in messages, the function, and the states whose rates
        it returns. The states are empty if the function returns outputs.
    """
    return layer._stated_functions


class AbstractTrajectory(AbstractLayer):
    """A layer that solves one initial value problem.

    Its prediction is `predict(inputs, *solve(inputs, begin(inputs)))`. So `predict` can also get
    states that are known without a solve.

    Fields: `vector_field`, the function `(t, y, u)` of the rates; `initial`, the initial states by
    name; `observe`, the function `(t, y, u)` of the predicted values, or None for the states.
    """

    vector_field: eqx.AbstractVar[VectorField]
    initial: eqx.AbstractVar[dict[str, Any]]
    observe: eqx.AbstractVar[Callable[..., Values] | None]

    @property
    def trajectories(self) -> "list[AbstractTrajectory] | None":
        return [self]

    @property
    def _smooth(self) -> bool:
        """Implements `is_smooth`."""
        return False

    @abstractmethod
    def begin(self, inputs: Inputs) -> dict[str, Any]:
        """Return the initial states.

        Args:
            inputs: the start, times and forcings.

        Returns:
            The states at the start, by name.
        """

    @abstractmethod
    def solve(self, inputs: Inputs, initial: dict[str, Any]) -> tuple[dict[str, Any], Any, Any]:
        """Solve the initial value problem.

        Args:
            inputs: the start, times and forcings.
            initial: the states at the start, by name.

        Returns:
            The states `(time, …)` by name, whether the solve succeeded, and its number of steps.
        """

    @abstractmethod
    def predict(self, inputs: Inputs, states: dict[str, Any], ok: Any, steps: Any) -> Prediction:
        """Return the prediction of this layer, given its states.

        Args:
            inputs: the start, times and forcings.
            states: the states at all times, `(time, …)` by name.
            ok: whether the solve succeeded.
            steps: the number of steps of the solve.

        Returns:
            The prediction, as a call of the layer returns it.
        """

    @abstractmethod
    def rates_along(self, inputs: Inputs, times: Any, states: Values) -> dict[str, Any]:
        """Evaluate the vector field at given times and states.

        Args:
            inputs: the start and the forcings.
            times: `(time,)`, in the units of time of the data.
            states: the states at these times, `(time, …)` by name.

        Returns:
            The rates, `(time, …)` by name.
        """


def is_smooth(layer: Any) -> bool:
    """Whether a layer is a trajectory whose states change only by its vector field.

    So it has no jumps, events or process noise. The derivatives of the states with respect to
    parameters can then be solved together with the states, which is faster.
    """
    return isinstance(layer, AbstractTrajectory) and layer._smooth


def start_of(layer: Any) -> Any:
    """Return the start time of a layer, else the first time of its doses, else None."""
    start = getattr(layer, "start", None)
    return getattr(getattr(layer, "doses", None), "start", None) if start is None else start


class _Around(AbstractLayer):
    """A layer that takes forcings, units, interpolation and start from the layer inside it."""

    @property
    @abstractmethod
    def _inner(self) -> AbstractLayer:
        """The layer inside this one."""

    @property
    def forcings(self) -> tuple[str, ...]:  # pyright: ignore
        return self._inner.forcings

    @property
    def units(self) -> Mapping[str, str]:  # pyright: ignore
        return self._inner.units

    @property
    def interpolation(self) -> Mapping[str, str]:
        return self._inner.interpolation

    @property
    def start(self) -> float | datetime | None:
        return start_of(self._inner)


class AroundLayer(_Around):
    """A layer that contains one `layer` and has its forcings, units, index and start."""

    layer: eqx.AbstractVar[AbstractLayer]

    @property
    def _inner(self) -> AbstractLayer:
        return self.layer

    @property
    def index(self) -> str:
        return self.layer.index

    @property
    def _begins(self) -> bool:
        return begins(self.layer)


class AbstractPopulation(AroundLayer):
    """A layer that predicts for all groups of a population, such as `bd.Each`.

    The code calls the groups members. Fields: `members`, their names in order; `dim`, the name of
    their dimension in data and results.
    """

    members: eqx.AbstractVar[tuple[Any, ...]]
    dim: eqx.AbstractVar[str]

    @abstractmethod
    def over_members(self, tree: Any) -> tuple[Any, tuple[str, ...]]:
        """Expand varying parameters to arrays with one value for each member.

        Args:
            tree: the layer of one member, or a noise.

        Returns:
            The tree with these arrays, and the dotted paths of the arrays.
        """

    @abstractmethod
    def positions(self, names: Any) -> Int[np.ndarray, " member"]:
        """Return the positions of some members in `members`.

        Args:
            names: the names of the members, `(member,)`.

        Returns:
            The position of each, from 0.

        Raises:
            DataError: if a name is no member.
        """

    @abstractmethod
    def own_rows(self, observed: Mapping[str, Array]) -> OwnRows | None:
        """Return the rows of the data at which each member was observed.

        Args:
            observed: the data by name, `(time, …, member)`, NaN where missing.

        Returns:
            The rows, or None if each member must be solved at all times.
        """


def of_members(tree: Any, varied: Sequence[str], at: Any) -> Any:
    """Select the parameters of some members of a population.

    Args:
        tree: a layer or a noise, with numbers in place of random leaves.
        varied: the dotted paths of arrays over members, from `AbstractPopulation.over_members`.
        at: the position of one member, or an array of positions.

    Returns:
        The tree with the values of these members at the varied paths.
    """

    def chosen(path, leaf):
        return jnp.asarray(leaf)[at] if dotted(path) in varied else leaf

    return jtu.tree_map_with_path(chosen, tree)


class AroundTrajectory(_Around):
    """A layer that contains one trajectory, `ode`, and has its forcings, units, start, outputs."""

    ode: eqx.AbstractVar[AbstractTrajectory]

    @property
    def _inner(self) -> AbstractLayer:
        return self.ode

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.ode.outputs


class AtStates(AroundTrajectory):
    """A trajectory whose states at the times of the data are given, so that no solve is needed.

    Args:
        ode: the trajectory.
        known: its states, `(time, …)` by name.
        ok: whether the solve that gave the states succeeded.
        steps: the number of steps of that solve.
    """

    ode: AbstractTrajectory
    known: States
    ok: Any
    steps: Any

    def __init__(self, ode: AbstractTrajectory, known: States, ok: Any = True, steps: Any = 0):
        self.ode = ode
        self.known = known
        self.ok = ok
        self.steps = jnp.asarray(steps)

    def __call__(self, inputs: Inputs) -> Prediction:
        return self.ode.predict(inputs, self.known, self.ok, self.steps)


def _is_trajectory(node: Any) -> bool:
    return isinstance(node, AbstractTrajectory)


def named_trajectories(tree: Any) -> list[tuple[str, AbstractTrajectory]]:
    """Return the dotted path and the object of each trajectory in a tree, in the tree's order."""
    found = jtu.tree_flatten_with_path(tree, is_leaf=_is_trajectory)[0]
    return [(dotted(path), node) for path, node in found if _is_trajectory(node)]


def trajectories(tree: Any) -> list[AbstractTrajectory]:
    """Return the trajectories in a tree, in the tree's order."""
    return [trajectory for _, trajectory in named_trajectories(tree)]


def at_states(tree: Any, states: Sequence[States]) -> Any:
    """Replace the solves of all trajectories in a tree by given states.

    Args:
        tree: a layer or model.
        states: the states of each trajectory, in the order of `trajectories(tree)`.
    """
    return at_solutions(tree, [(known,) for known in states])


def at_solutions(tree: Any, solutions: Sequence[tuple]) -> Any:
    """Replace the solves of all trajectories in a tree by earlier solutions.

    Args:
        tree: a layer or model.
        solutions: for each trajectory, in the order of `trajectories(tree)`, a tuple (states, ok,
            steps) as `solve` returns it. Only the states are required.
    """
    # `jax.tree.map` visits trajectories in the order of `trajectories(tree)`.
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
    """Replace the adjoints in a tree, that is, the methods by which Diffrax differentiates solves.

    Args:
        tree: a layer or model.
        adjoint: the new adjoint.
        instead_of: the type of the adjoints that are replaced; by default all adjoints.

    Returns:
        The tree with the new adjoint.
    """

    def is_adjoint(node):
        return isinstance(node, diffrax.AbstractAdjoint)

    return jax.tree.map(
        lambda node: adjoint if isinstance(node, instead_of) else node, tree, is_leaf=is_adjoint
    )


class AbstractFilter(AbstractLayer):
    """A filter, which predicts each observation from all earlier observations.

    It is called as `layer(inputs, variances)`. The earlier observations are in `inputs.past`. The
    product of the predictive densities is the likelihood, with the unknown states integrated out.
    """

    @abstractmethod
    def __call__(self, inputs: Inputs, variances: Mapping[str, Any]) -> Prediction:
        """Predict mean and variance at `inputs.times` from earlier observations.

        Args:
            inputs: the start, times and forcings, and the earlier observations in `inputs.past`.
            variances: the variance of the observation noise by observable, in squared units.

        Returns:
            The prediction, with the predictive means as `values` and their `variances`.
        """


def finite(values: Any) -> Bool[Array, ""]:
    """Whether every number in a tree is finite."""
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(v)) for v in jax.tree.leaves(values)]))


def prediction(values: Any, ok: Any, stats: Any = None, **more: Any) -> Prediction:
    """Build a `Prediction`, in which all values are 1 if the prediction failed.

    Args:
        values: predictions, `(time, …)` by name.
        ok: whether the solve succeeded.
        stats: counts of the solver's work by name; empty by default.
        more: other fields of the `Prediction`, such as `constraint_residuals`.

    Returns:
        The prediction. Its `ok` is False if the solve failed or any value is not finite.
    """
    # A failed draw is rejected, but its gradient must stay finite: hence a constant in its place.
    ok = jnp.asarray(ok) & finite(values)
    masked = jax.tree.map(lambda v: jnp.where(ok, v, 1.0), dict(values))
    return Prediction(masked, ok, {} if stats is None else stats, **more)


def shielded(
    function: Callable, fine: Callable[[Any], Any], *args: Any
) -> tuple[Any, Bool[Array, ""]]:
    """Evaluate a function, with a zero gradient if its result is invalid.

    Masking the result afterwards is not enough. At a singularity the derivative is infinite, and
    zero times infinity is NaN.

    Args:
        function: the function.
        fine: a function of the result that says whether it is valid.
        args: the arguments of the function.

    Returns:
        The result, and whether it is valid.
    """
    closed = eqx.filter_closure_convert(function, *args)
    # 1. Evaluate without a gradient, to learn whether the result is valid.
    ok = jnp.asarray(fine(frozen(closed)(*frozen(args))))
    # 2. If it is invalid, cut the gradient of the arguments; evaluate again.
    through = jax.tree.map(
        lambda x: jnp.where(ok, x, frozen(x)) if eqx.is_inexact_array(x) else x, (closed, args)
    )
    return through[0](*through[1]), ok


def predict_rows(rows: Callable, times: Any, ok: Any, stats: Any = None, **more: Any) -> Prediction:
    """Build a `Prediction` from a function of the times, with a zero gradient if it fails.

    Args:
        rows: a function of the times that returns predictions, `(time, …)` by name.
        times: the times, or the index at all rows.
        ok: whether the solve succeeded.
        stats: counts of the solver's work by name; empty by default.
        more: other fields of the `Prediction`.

    Returns:
        The prediction. Its `ok` is False if the solve failed or any value is not finite.
    """
    values, ok = shielded(rows, lambda values: ok & finite(values), times)
    return prediction(values, ok, stats, **more)


def joined(parts: Mapping[str, Prediction], values: Mapping[str, Any], **more: Any) -> Prediction:
    """Join the predictions of several layers into one.

    Args:
        parts: the prediction of each layer, by the name of the layer.
        values: the values of the joint prediction, `(time, …)` by name.
        more: other fields of the joint `Prediction`, such as `variances`.

    Returns:
        The joint prediction. It is `ok` if all parts are. Counts of work are summed. The constraint
        residuals are those of all parts, named `layer.residual`.
    """
    ok = jnp.all(jnp.asarray([part.ok for part in parts.values()]))
    # Counts of work with the same name, such as steps, add up.
    stats: dict[str, Any] = {}
    for part in parts.values():
        stats |= {name: stats.get(name, 0) + value for name, value in part.stats.items()}
    constraint_residuals = {
        f"{owner}.{name}": v
        for owner, part in parts.items()
        for name, v in part.constraint_residuals.items()
    }
    return prediction(values, ok, stats, constraint_residuals=constraint_residuals, **more)
