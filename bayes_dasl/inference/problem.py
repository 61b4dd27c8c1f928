"""The posterior as a log density of one flat, unconstrained vector.

A `Problem` provides all that engines need. This is the log density and its terms, prior draws,
the transform to named values, subsets of the data, and the adjoints of the solvers.

Only reparametrisations, the Gauss–Newton matrix, checks before a fit and predictions after it
read the attribute `model` directly.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpyro.handlers import substitute
from numpyro.infer.util import log_density

from .._statistics.tails import masked_log_prob
from ..data.layer_inputs import Inputs, OwnRows
from ..errors import UnreadableError
from ..layers import with_adjoint
from ..model.fingerprint import posterior_fingerprint
from ..priors import draw_prior
from ..random import paths, realise
from .sites import Sites, constrained, labels, unconstrained

# Number of prior draws for the widths, and the quantiles of a normal at −1 and +1 sd.
_WIDTH_DRAWS, _CENTRAL = 500, (0.15866, 0.84134)
_INDEX = "the index itself"

type Priors = Mapping[str, Float[Array, ""]]
"""Log prior densities by group: "science", "latent" (latent states) and "network"."""

type Weights = Mapping[str, Float[Array | np.ndarray, "time ..."]]
"""How often each datum counts in the likelihood, as an array by observable."""

type LogDensity = Callable[[Float[Array, " dimension"]], Float[Array, ""]]
type ValueAndGradient = Callable[
    [Float[Array, " dimension"]], tuple[Float[Array, ""], Float[Array, " dimension"]]
]
type Evaluation = Callable[[Float[np.ndarray, "n dimension"]], tuple[np.ndarray, ...]]
"""Returns log densities `(n,)` and gradients `(n, dimension)` at any number of positions."""


class Terms(NamedTuple):
    """The log density in three terms; all are −inf if the solver fails.

    The Jacobian term log |det J| of the transform to the unconstrained space is in the log priors.

    Args:
        data: the log likelihood.
        science: the log prior of scientific parameters and latent states, plus the log density of
            soft constraints and constraint residuals.
        network: the log prior of network weights.
    """

    data: Float[Array, ""]
    science: Float[Array, ""]
    network: Float[Array, ""]


class Problem(eqx.Module):
    """The posterior of a model given data, as a function of one flat vector.

    `pose` builds it.

    Args:
        model: the model.
        inputs: inputs of the layer: start, times, forcings and coordinates such as places.
        observed: the data of each observable, `(time, …)`, NaN if missing. In a population whose
            subjects are solved at their own times they are `(row, …, subject)`.
        own_rows: the rows of the data at which each subject was observed, in such a population;
            else None.
        sites: indices of each random leaf in the flat vector, and its transform, by path.
        dimension: the length of the flat vector.
    """

    model: Any  # a `Model`; engines do not use its parts
    inputs: Inputs
    observed: dict[str, Float[Array, "time ..."]]
    sites: Sites
    dimension: int = eqx.field(static=True)
    own_rows: OwnRows | None = None

    def log_density(self, position: Float[Array, " dimension"]) -> Float[Array, ""]:
        """Return the log density of unconstrained parameters, up to a constant.

        It is −inf if the solver fails.

        Args:
            position: unconstrained parameters, `(dimension,)`.
        """
        values, log_dets = constrained(self.sites, position)
        given = substitute(self.model, data=values)
        log_joint, _ = log_density(given, (self.inputs, self.observed), {}, {})
        value = log_joint + sum(log_dets.values(), jnp.zeros(()))
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def log_prior(self, position: Float[Array, " dimension"]) -> Float[Array, ""]:
        """Return the log density of the prior alone, with log |det J|; no solver runs.

        Args:
            position: unconstrained parameters, `(dimension,)`.
        """
        values, log_dets = constrained(self.sites, position)
        log_det = sum(log_dets.values(), jnp.zeros(()))
        return sum(log_priors_of(self.model, values).values(), log_det)

    def log_priors(self, position: Float[Array, " dimension"]) -> Priors:
        """Return the log priors of science, latent states and network; no solver runs.

        Each includes log |det J| of the transform to the unconstrained space.

        Args:
            position: unconstrained parameters, `(dimension,)`.

        Returns:
            Log densities under the keys "science", "latent" and "network".
        """
        found = {"science": jnp.zeros(()), "latent": jnp.zeros(()), "network": jnp.zeros(())}
        values, log_dets = constrained(self.sites, position)
        of_leaves = log_priors_of(self.model, values)
        for path, leaf in paths(self.model).items():
            found[leaf.group] += of_leaves[path] + log_dets[path]
        return found

    def terms(
        self,
        position: Float[Array, " dimension"],
        weights: Weights | None = None,
        *,
        priors: Priors | None = None,
        data_at: Float[Array, " dimension"] | None = None,
    ) -> Terms:
        """Return the log density in three terms: data, science and network.

        Args:
            position: unconstrained parameters, `(dimension,)`.
            weights: how often each datum counts in the likelihood, by observable. By default once.
            priors: log priors by group that replace those of the model.
            data_at: unconstrained parameters at which the likelihood is evaluated. By default these
                are `position`.
        """
        priors = self.log_priors(position) if priors is None else priors
        weights = self.weights() if weights is None else weights
        realised = realise(self.model, self.constrain(position if data_at is None else data_at))
        prediction = realised.predict(self.inputs)
        likelihood = jnp.zeros(())
        for name, noise in realised.conditional(prediction, self.inputs).items():
            each = masked_log_prob(noise, self.observed[name])
            likelihood += jnp.sum(weights[name] * each)
        science = priors["science"] + priors["latent"] + prediction.log_factor
        found = Terms(likelihood, science, priors["network"])
        # A failing solve, or any term without a value, makes all terms −∞.
        usable = prediction.ok & jnp.isfinite(sum(found, jnp.zeros(())))
        return Terms(*(jnp.where(usable, value, -jnp.inf) for value in found))

    def constrain(self, position: Float[Array, " dimension"]) -> dict[str, Array]:
        """Return the values of all random leaves, by path, for unconstrained parameters.

        Args:
            position: unconstrained parameters, `(dimension,)`.
        """
        return constrained(self.sites, position)[0]

    def unconstrain(self, values: dict[str, Array]) -> Float[Array, " dimension"]:
        """Return the unconstrained parameters `(dimension,)` for values of the random leaves.

        Args:
            values: values of every random leaf, by path.
        """
        return unconstrained(self.sites, values)

    def prior(self, draws: int, *, key: Array) -> Float[Array, "draws dimension"]:
        """Return independent prior draws of unconstrained parameters, `(draw, dimension)`.

        No solver runs.

        Args:
            draws: the number of draws.
            key: a JAX random key.
        """
        flatten = jax.jit(jax.vmap(lambda values: unconstrained(self.sites, values)))
        return flatten(draw_prior(self.model, draws, key=key))

    def prior_widths(self) -> Float[np.ndarray, " dimension"]:
        """Return approximate prior standard deviations in the unconstrained space, `(dimension,)`.

        Each is half the width of the central 68 % interval of 500 prior draws. A width that is zero
        or infinite is replaced by 1. This occurs for a gamma prior with half of its draws rounded
        to zero.
        """
        return self.prior_normal()[1]

    def prior_normal(
        self,
    ) -> tuple[Float[np.ndarray, " dimension"], Float[np.ndarray, " dimension"]]:
        """Return medians and `prior_widths` of the prior: independent normals that approximate it.

        Both are `(dimension,)`, in the unconstrained space.
        """
        draws = self.prior(_WIDTH_DRAWS, key=jax.random.key(0))
        with np.errstate(invalid="ignore"):
            low, middle, high = np.quantile(draws, (_CENTRAL[0], 0.5, _CENTRAL[1]), axis=0)
            widths = (high - low) / 2
        usable = np.isfinite(widths) & (widths > 0)
        return np.where(np.isfinite(middle), middle, 0.0), np.where(usable, widths, 1.0)

    def fingerprint(self, *, needed: bool = False) -> str:
        """Return the SHA-256 of model, inputs and data, the same in every process.

        It is the empty text if the model calls Python objects whose contents cannot be read.

        Args:
            needed: whether to raise an error instead of returning the empty text.

        Raises:
            ModelError: if it is `needed`, and the model calls Python objects that cannot be read.
        """
        try:
            return posterior_fingerprint(self.model, self.inputs, self.observed)
        except UnreadableError:
            if needed:
                raise
            return ""

    def without_data(self) -> "Problem":
        """Return a copy with data zeroed, so that its hash depends on their shapes only."""
        return dataclasses.replace(self, observed=jax.tree.map(jnp.zeros_like, self.observed))

    @property
    def times(self) -> int:
        """Number of times with data; if each subject has its own times, the largest such number."""
        return len(self.inputs.times)

    @property
    def data(self) -> int:
        """Number of data that are not missing."""
        return sum(int(np.sum(~np.isnan(np.asarray(v)))) for v in self.observed.values())

    @property
    def constraints(self) -> tuple[str, ...]:
        """Names of the soft constraints; each may depend on predictions at all times."""
        return tuple(self.model.constraints)

    def weights(self, of_times: Float[np.ndarray, "... time"] | None = None) -> dict[str, Any]:
        """Return how often each datum counts in the likelihood, for `terms`.

        Args:
            of_times: how often the data of each time count, `(…, time)`. By default once.

        Returns:
            Arrays by observable, with the leading axes of `of_times` and then the shape of the
            data.
        """
        of_times = np.ones(self.times) if of_times is None else of_times

        def over(values: Array) -> np.ndarray:
            each = of_times.reshape(*of_times.shape, *[1] * (values.ndim - 1))
            return np.broadcast_to(each, (*of_times.shape[:-1], *values.shape)).astype(float)

        return {name: over(values) for name, values in self.observed.items()}

    def rows(self, index: Int[Array, " row"]) -> "Problem":
        """Return the problem with only some of its times, in the given order.

        Args:
            index: indices of the times, `(row,)`.
        """
        # `past` keeps all earlier data, so its rows no longer match those of `observed`.
        past = self.inputs.past
        past = None if past is None else dataclasses.replace(past, same=False)
        read = {name: values[index] for name, values in self.inputs.per_datum.items()}
        inputs = dataclasses.replace(
            self.inputs, times=self.inputs.times[index], past=past, per_datum=read
        )
        observed = {name: values[index] for name, values in self.observed.items()}
        return dataclasses.replace(self, inputs=inputs, observed=observed, own_rows=None)

    def split(self, held_out: Bool[np.ndarray, " time"]) -> "tuple[Problem, Problem]":
        """Split the data by time into training data and held-out data.

        In each part the data of the other one are set to NaN, so that shapes do not change.

        Args:
            held_out: which times are held out, `(time,)`.

        Returns:
            The problem with the training data, and the problem with the held-out data. In the
            second one, correlated noise and filters still condition on all earlier data.
        """
        training = self._seeing(~held_out)
        judged = self._seeing(held_out)
        past = self.inputs.past
        return training, judged if past is None else judged._with_inputs(past=past)

    def _seeing(self, at: np.ndarray) -> "Problem":
        """Return the problem with the data at all other times set to NaN.

        Args:
            at: which times keep their data, `(time,)`.
        """

        def some(values: Mapping[str, Array]) -> dict[str, Array]:
            return {
                n: jnp.where(at.reshape(-1, *[1] * (v.ndim - 1)), v, jnp.nan)
                for n, v in values.items()
            }

        past = self.inputs.past
        seen = dataclasses.replace(self, observed=some(self.observed))
        if past is None:
            return seen
        return seen._with_inputs(past=dataclasses.replace(past, values=some(past.values)))

    def _with_inputs(self, **inputs: Any) -> "Problem":
        """Return the problem with some fields of `inputs` replaced."""
        return dataclasses.replace(self, inputs=dataclasses.replace(self.inputs, **inputs))

    @property
    def movable(self) -> dict[str, Array]:
        """Inputs that can be perturbed continuously, by name.

        These are the values of linear or step forcings. A model with neither such forcings nor
        solver states has its index instead. The times of a solver are excluded, since they must
        stay ordered.
        """
        # Forcings that are functions have no values.
        values = {n: getattr(force, "values", None) for n, force in self.inputs.forcings.items()}
        values = {n: v for n, v in values.items() if v is not None}
        return values if values or self.states() else {_INDEX: self.inputs.times}

    def moved_to(self, values: Mapping[str, Array]) -> "Problem":
        """Return the problem with new values of some inputs.

        Args:
            values: new values by the names of `movable`; inputs that are not named keep theirs.
        """
        forcings = {
            name: dataclasses.replace(force, values=values[name]) if name in values else force
            for name, force in self.inputs.forcings.items()
        }
        return self._with_inputs(forcings=forcings, times=values.get(_INDEX, self.inputs.times))

    def adjoints(self) -> list[diffrax.AbstractAdjoint]:
        """Return the Diffrax adjoints of all solvers in the model."""
        is_adjoint = lambda node: isinstance(node, diffrax.AbstractAdjoint)  # noqa: E731
        return [*filter(is_adjoint, jax.tree.leaves(self.model, is_leaf=is_adjoint))]

    def forward(self) -> "Problem":
        """Return the problem with solvers that support forward-mode differentiation."""
        return dataclasses.replace(self, model=with_adjoint(self.model, diffrax.ForwardMode()))

    def reversible(self) -> "Problem":
        """Return the problem with solvers for reverse mode in place of those for forward mode.

        Solvers with another adjoint do not change.
        """
        reverse = diffrax.RecursiveCheckpointAdjoint()
        return dataclasses.replace(
            self, model=with_adjoint(self.model, reverse, diffrax.ForwardMode)
        )

    def states(self) -> int:
        """Return the number of states of all solvers in the model."""
        return self.model.layer.states

    def of_groups(self, *groups: str) -> tuple[int, ...]:
        """Return the indices in the flat vector of all random leaves of some groups.

        Args:
            groups: some of "science", "latent" and "network".
        """
        leaves = paths(self.model)
        indices: list[int] = []
        for path, site in self.sites.items():
            if leaves[path].group in groups:
                indices += range(site.start, site.start + site.size)
        return tuple(indices)

    def labels(self) -> list[str]:
        """Return a name for each unconstrained parameter, with an index in arrays: `path[0]`."""
        return labels(self.sites)


def log_priors_of(model: Any, values: Mapping[str, Array]) -> dict[str, Float[Array, ""]]:
    """Return the log prior density of each random leaf, by path, without Jacobian terms.

    Args:
        model: the model.
        values: constrained values of all random leaves, by path.
    """
    return {
        path: jnp.sum(leaf.given(values).log_prob(values[path]))
        for path, leaf in paths(model).items()
    }
