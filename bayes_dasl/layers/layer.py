"""The interface of layers: `AbstractLayer`, its `Prediction`, and layers around other layers."""

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
    """Predicted values, whether the solver succeeded, and its work.

    Args:
        values: predictions, `(time, …)` by name, in the units of the outputs. They are finite even
            where the solver failed, so that gradients stay finite; there they mean nothing.
        ok: whether the solver succeeded.
        stats: counts of the solver's work by name, such as `steps`.
        constraint_residuals: numbers of any shape by name that should be zero. Each number is
            standard normal in the likelihood, such as a gap between two segments divided by the
            allowed gap.
        variances: variances of the values given the parameters, `(time, …)` by name, in squared
            units. Only a layer that integrates over an unknown path has them.
        before: the values at the times of `inputs.past`, for noise that looks back.
        end: the states at the last time, from which `from_end` continues.
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
        """Log density of the constraint residuals, up to a constant: -½ Σ r²."""
        return -0.5 * sum(
            (jnp.sum(jnp.square(v)) for v in self.constraint_residuals.values()), jnp.zeros(())
        )


class AbstractLayer(Module):
    """A differentiable scientific model: `layer(inputs) -> Prediction`.

    `forcings` names the data variables that drive it. `units` holds known units of outputs and
    forcings by name. `interpolation` names the forcings that are not linear between their data.
    `index` is the coordinate of the data. `dims` are the further dimensions of outputs by name.
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
        """Number of state variables of its solvers; 0 if there is no solver."""
        return 0

    @property
    def trajectories(self) -> "list[AbstractTrajectory] | None":
        """Its independent initial value problems; none if it also solves anything else.

        If there is a list, states can replace the solves, as the reparametrisation of hybrids does.
        """
        return None

    @property
    def _begins(self) -> bool:
        return hasattr(self, "start")

    @property
    def pointwise(self) -> bool:
        """Whether a prediction at one time is independent of the other requested times."""
        return False

    @property
    def _goes_on(self) -> bool:
        return False

    def _from_end(self, states: Values) -> "AbstractLayer":
        raise NotImplementedError

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the predicted values."""

    @abstractmethod
    def __call__(self, inputs: Inputs) -> Prediction:
        """Predict at `inputs.times`.

        Args:
            inputs: the start, times, forcings and places, as `Model.inputs` makes them.

        Returns:
            Values at these times, with `ok=False` if the solve failed.
        """


# The package asks layers of any type by these functions; authors of layers need none of them.


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
    """A layer that solves one initial value problem, whose states can replace the solve.

    Its prediction is `predict(inputs, *solve(inputs, begin(inputs)))`.
    """

    vector_field: eqx.AbstractVar[VectorField]
    initial: eqx.AbstractVar[dict[str, Any]]
    observe: eqx.AbstractVar[Callable[..., Values] | None]

    @property
    def trajectories(self) -> "list[AbstractTrajectory] | None":
        return [self]

    @property
    def _smooth(self) -> bool:
        return False

    @abstractmethod
    def begin(self, inputs: Inputs) -> dict[str, Any]:
        """Initial states.

        Args:
            inputs: start, times and forcings.

        Returns:
            The states at the start, by name.
        """

    @abstractmethod
    def solve(self, inputs: Inputs, initial: dict[str, Any]) -> tuple[dict[str, Any], Any, Any]:
        """Solve from the initial states.

        Args:
            inputs: start, times and forcings.
            initial: the states at the start, by name.

        Returns:
            The states `(time, …)` by name, whether the solve succeeded, and its number of steps.
        """

    @abstractmethod
    def predict(self, inputs: Inputs, states: dict[str, Any], ok: Any, steps: Any) -> Prediction:
        """Observed values of solved states.

        Args:
            inputs: start, times and forcings.
            states: the states at all times, `(time, …)` by name.
            ok: whether the solve succeeded.
            steps: number of steps.

        Returns:
            The prediction, as if the layer had been called.
        """

    @abstractmethod
    def rates_along(self, inputs: Inputs, times: Any, states: Values) -> dict[str, Any]:
        """Rates of the vector field along a path.

        Args:
            inputs: start, times and forcings.
            times: `(time,)`, in the units of time of the data.
            states: the states at these times, by name.

        Returns:
            The rates, `(time, …)` by name.
        """


def is_smooth(layer: Any) -> bool:
    """Whether a layer is a trajectory whose states move by the rates of its vector field alone.

    The derivatives of its states can then be solved for along with them, which is faster.
    """
    return isinstance(layer, AbstractTrajectory) and layer._smooth


def start_of(layer: Any) -> Any:
    """Start time of a layer: its own, or the first time of its doses, or none."""
    start = getattr(layer, "start", None)
    return getattr(getattr(layer, "doses", None), "start", None) if start is None else start


class _Around(AbstractLayer):
    """A layer with the forcings, units, interpolation and start of an inner one."""

    @property
    @abstractmethod
    def _inner(self) -> AbstractLayer:
        """The layer inside."""

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
    """A layer around another one, with the same forcings, units, index and start."""

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
    """One layer for all members of a population, such as `bd.Each`; `dim` is their dimension."""

    members: eqx.AbstractVar[tuple[Any, ...]]
    dim: eqx.AbstractVar[str]

    @abstractmethod
    def over_members(self, tree: Any) -> tuple[Any, tuple[str, ...]]:
        """Expand varying parameters to one value for each member.

        Args:
            tree: a layer, or noise.

        Returns:
            The tree with arrays over members, and the dotted paths of these arrays.
        """

    @abstractmethod
    def positions(self, names: Any) -> Int[np.ndarray, " member"]:
        """Indices of members by name.

        Args:
            names: names of members, `(member,)`.

        Returns:
            The place of each in `members`.

        Raises:
            DataError: for a name that is no member.
        """

    @abstractmethod
    def own_rows(self, observed: Mapping[str, Array]) -> OwnRows | None:
        """Rows at which each member was observed.

        Args:
            observed: the data by name, `(time, …, member)`, NaN where missing.

        Returns:
            None if every member is solved at all times.
        """


def of_members(tree: Any, varied: Sequence[str], at: Any) -> Any:
    """Select members of a population in a tree with drawn parameters.

    Args:
        tree: a layer, or noise, with numbers in place of random leaves.
        varied: the paths, as `AbstractPopulation.over_members` found them.
        at: the index of a member, or several.

    Returns:
        The tree with the parameters of these members at the paths that vary.
    """

    def chosen(path, leaf):
        return jnp.asarray(leaf)[at] if dotted(path) in varied else leaf

    return jtu.tree_map_with_path(chosen, tree)


class AroundTrajectory(_Around):
    """A layer around one trajectory, with its forcings, units, start and outputs."""

    ode: eqx.AbstractVar[AbstractTrajectory]

    @property
    def _inner(self) -> AbstractLayer:
        return self.ode

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.ode.outputs


class AtStates(AroundTrajectory):
    """A trajectory with given states at the times of the data, which need no solve."""

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
    """Dotted paths and trajectories inside a tree, in its order."""
    found = jtu.tree_flatten_with_path(tree, is_leaf=_is_trajectory)[0]
    return [(dotted(path), node) for path, node in found if _is_trajectory(node)]


def trajectories(tree: Any) -> list[AbstractTrajectory]:
    """The trajectories inside a tree, in its order."""
    return [trajectory for _, trajectory in named_trajectories(tree)]


def at_states(tree: Any, states: Sequence[States]) -> Any:
    """Replace the solves of all trajectories in a tree by given states."""
    return at_solutions(tree, [(known,) for known in states])


def at_solutions(tree: Any, solutions: Sequence[tuple]) -> Any:
    """Replace the solves of all trajectories in a tree by earlier results of `solve`."""
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
    """Replace the adjoints of a kind in a tree.

    Args:
        tree: a layer or model.
        adjoint: the new adjoint, which says how Diffrax differentiates solves.
        instead_of: the type of the adjoints that are replaced; every adjoint unless given.

    Returns:
        The tree with the new adjoint.
    """

    def is_adjoint(node):
        return isinstance(node, diffrax.AbstractAdjoint)

    return jax.tree.map(
        lambda node: adjoint if isinstance(node, instead_of) else node, tree, is_leaf=is_adjoint
    )


class AbstractFilter(AbstractLayer):
    """A filter: `layer(inputs, variances)` predicts each observation from the earlier ones.

    The earlier observations are in `inputs.past`. The product of the predictive densities is the
    likelihood, with the unknown path integrated out.
    """

    @abstractmethod
    def __call__(self, inputs: Inputs, variances: Mapping[str, Any]) -> Prediction:
        """Predict mean and variance at `inputs.times` from earlier observations.

        Args:
            inputs: start, times, forcings, and the earlier observations in `inputs.past`.
            variances: the variance of the noise of each observable, in squared units.

        Returns:
            The predictive means, with `variances`.
        """


def finite(values: Any) -> Bool[Array, ""]:
    """Whether every number in a tree is finite."""
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(v)) for v in jax.tree.leaves(values)]))


def prediction(values: Any, ok: Any, stats: Any = None, **more: Any) -> Prediction:
    """Make a `Prediction` whose values are 1 if the solve failed or any value is not finite.

    Args:
        values: predictions, `(time, …)` by name.
        ok: whether the solve succeeded.
        stats: counts of work by name; none unless given.
        more: `constraint_residuals`, `variances` and `end` of the `Prediction`.

    Returns:
        The prediction; `ok` is also false if a value is not finite.
    """
    # A failed draw is rejected, but its gradient must stay finite: hence a constant in its place.
    ok = jnp.asarray(ok) & finite(values)
    masked = jax.tree.map(lambda v: jnp.where(ok, v, 1.0), dict(values))
    return Prediction(masked, ok, {} if stats is None else stats, **more)


def shielded(
    function: Callable, fine: Callable[[Any], Any], *args: Any
) -> tuple[Any, Bool[Array, ""]]:
    """`function(*args)` without a gradient where the result is not `fine`.

    Masking the result is not enough: where the function is singular its derivative is infinite, and
    zero times infinity is NaN.

    Returns:
        The result, and whether it is fine.
    """
    closed = eqx.filter_closure_convert(function, *args)
    # 1. Evaluate without a gradient, to learn whether the result is fine.
    ok = jnp.asarray(fine(frozen(closed)(*frozen(args))))
    # 2. Cut the gradient of the arguments where it is not, and evaluate again.
    through = jax.tree.map(
        lambda x: jnp.where(ok, x, frozen(x)) if eqx.is_inexact_array(x) else x, (closed, args)
    )
    return through[0](*through[1]), ok


def predict_rows(rows: Callable, times: Any, ok: Any, stats: Any = None, **more: Any) -> Prediction:
    """Prediction by a function of all rows, with a zero gradient where it is not finite."""
    values, ok = shielded(rows, lambda values: ok & finite(values), times)
    return prediction(values, ok, stats, **more)


def joined(parts: Mapping[str, Prediction], values: Mapping[str, Any], **more: Any) -> Prediction:
    """Join the predictions of several layers: `ok` if all are, work summed, residuals of all.

    Args:
        parts: predictions by the name of the layer.
        values: the joint values by name.
        more: `variances` and `end` of the `Prediction`.

    Returns:
        The joint prediction; constraint residuals are named `layer.residual`.
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
