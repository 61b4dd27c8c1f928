"""The narrow waist: a model and data become one flat, unconstrained log density.

Every engine uses this and nothing else of the model: the log density and its terms, prior draws in
the same space, the way back to named values, subsets of the data, and what kind of solver there is.
Of what makes draws only `coordinates` and `linearisation` look at the model, the inputs and the
data inside; what is said of draws, before a fit and after it, pushes them through these.
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

_WIDTH_DRAWS, _CENTRAL = 500, (0.15866, 0.84134)
_INDEX = "the index itself"

type Priors = Mapping[str, Float[Array, ""]]
"""What the priors say, by group of random leaves."""

type Weights = Mapping[str, Float[Array | np.ndarray, "time ..."]]
"""How often each datum of an observable counts."""

type LogDensity = Callable[[Float[Array, " dimension"]], Float[Array, ""]]
type ValueAndGradient = Callable[
    [Float[Array, " dimension"]], tuple[Float[Array, ""], Float[Array, " dimension"]]
]


class Terms(NamedTuple):
    """Their sum is the log density; −inf, all of them, where the solver fails.

    Args:
        data: the log likelihood.
        science: the prior of what has a meaning, latent states included, with what soft constraints
            and mismatches say and log |det J| of the unconstrained space.
        network: the prior of what is learned, with that log |det J|.
    """

    data: Float[Array, ""]
    science: Float[Array, ""]
    network: Float[Array, ""]


class Problem(eqx.Module):
    """The posterior of a model given data, as a function of one flat vector of length `dimension`;
    `pose` makes it.

    Args:
        model: the model.
        inputs: what drives its layer: start, times, forcings, places.
        observed: the data of each observable, `(time, …)`, NaN where missing. Of a population of
            which each member is solved at its own times these, and what is read of each datum, are
            `(row, …, member)`.
        own_rows: which rows of the data those of each member then are.
        sites: where each random leaf lies in the vector, and how it gets there, by path.
        dimension: the length of the vector.
    """

    model: Any  # a `Model`, of which no engine knows anything
    inputs: Inputs
    observed: dict[str, Float[Array, "time ..."]]
    sites: Sites
    dimension: int = eqx.field(static=True)
    own_rows: OwnRows | None = None

    def log_density(self, position: Float[Array, " dimension"]) -> Float[Array, ""]:
        """Log density in the unconstrained space, up to a constant; −inf where the solver fails.

        Args:
            position: where, in the unconstrained space, `(dimension,)`.
        """
        values, log_dets = constrained(self.sites, position)
        log_joint, _ = log_density(
            substitute(self.model, data=values), (self.inputs, self.observed), {}, {}
        )
        value = log_joint + sum(log_dets.values(), jnp.zeros(()))
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def log_prior(self, position: Float[Array, " dimension"]) -> Float[Array, ""]:
        """Log density of the prior alone in the unconstrained space; no solver runs.

        Args:
            position: where, in the unconstrained space, `(dimension,)`.
        """
        values, log_dets = constrained(self.sites, position)
        return sum(
            log_priors_of(self.model, values).values(), sum(log_dets.values(), jnp.zeros(()))
        )

    def log_priors(self, position: Float[Array, " dimension"]) -> Priors:
        """The log priors of a position by group, with the volume of the way to the unconstrained
        space.

        Args:
            position: where, in the unconstrained space, `(dimension,)`.
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
        """The log density by its terms.

        Args:
            position: where, in the unconstrained space.
            weights: how often each datum counts; once unless given.
            priors: stand in for those of the model.
            data_at: the position that the data see, where it is not that of the priors.
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
        usable = prediction.ok & jnp.isfinite(sum(found, jnp.zeros(())))
        return Terms(*(jnp.where(usable, value, -jnp.inf) for value in found))

    def constrain(self, position: Float[Array, " dimension"]) -> dict[str, Array]:
        """Named values (path → array) from a flat position.

        Args:
            position: where, in the unconstrained space, `(dimension,)`.
        """
        return constrained(self.sites, position)[0]

    def unconstrain(self, values: dict[str, Array]) -> Float[Array, " dimension"]:
        """The flat position of named values.

        Args:
            values: those of every random leaf, by path.
        """
        return unconstrained(self.sites, values)

    def prior(self, draws: int, *, key: Array) -> Float[Array, "draws dimension"]:
        """Independent prior draws in the unconstrained space; no solver runs.

        Args:
            draws: how many.
            key: a JAX random key.
        """
        return jax.jit(jax.vmap(lambda values: unconstrained(self.sites, values)))(
            draw_prior(self.model, draws, key=key)
        )

    def prior_widths(self) -> Float[np.ndarray, " dimension"]:
        """How wide the prior is in the unconstrained space: half of its central 68 %, a normal's
        standard deviation.

        One where there is no such number, as of a gamma distribution of which half of the draws are
        zero in floats.
        """
        return self.prior_normal()[1]

    def prior_normal(
        self,
    ) -> tuple[Float[np.ndarray, " dimension"], Float[np.ndarray, " dimension"]]:
        """Means and standard deviations of normals that are close to the prior: its medians, and
        `prior_widths`.
        """
        draws = self.prior(_WIDTH_DRAWS, key=jax.random.key(0))
        with np.errstate(invalid="ignore"):
            low, middle, high = np.quantile(draws, (_CENTRAL[0], 0.5, _CENTRAL[1]), axis=0)
            widths = (high - low) / 2
        return np.where(np.isfinite(middle), middle, 0.0), np.where(
            np.isfinite(widths) & (widths > 0), widths, 1.0
        )

    def fingerprint(self, *, needed: bool = False) -> str:
        """SHA-256 of the posterior, the same in every process; empty where the model cannot be told
        from others.

        Args:
            needed: whether it is refused to be empty.

        Raises:
            ModelError: where it is `needed`, and the model calls Python with something that cannot
                be read.
        """
        try:
            return posterior_fingerprint(self.model, self.inputs, self.observed)
        except UnreadableError:
            if needed:
                raise
            return ""

    def without_data(self) -> "Problem":
        """The problem with zeros for data, which no other data of the same shape can be told by."""
        return dataclasses.replace(self, observed=jax.tree.map(jnp.zeros_like, self.observed))

    @property
    def times(self) -> int:
        """At how many times there are data; of members with their own the most that one has."""
        return len(self.inputs.times)

    @property
    def data(self) -> int:
        """How many data there are, without those that are missing."""
        return sum(int(np.sum(~np.isnan(np.asarray(v)))) for v in self.observed.values())

    @property
    def constraints(self) -> tuple[str, ...]:
        """The soft constraints of the model by name: each may be a law of the whole series."""
        return tuple(self.model.constraints)

    def weights(self, of_times: Float[np.ndarray, "... time"] | None = None) -> dict[str, Any]:
        """How often each datum counts, over the dimensions of its observable.

        Args:
            of_times: how often the data of each time count, `(…, time)`; once unless given.
        """
        of_times = np.ones(self.times) if of_times is None else of_times

        def over(values: Array) -> np.ndarray:
            each = of_times.reshape(*of_times.shape, *[1] * (values.ndim - 1))
            return np.broadcast_to(each, (*of_times.shape[:-1], *values.shape)).astype(float)

        return {name: over(values) for name, values in self.observed.items()}

    def rows(self, index: Int[Array, " row"]) -> "Problem":
        """The problem at some of its times, in their order.

        Args:
            index: whole numbers, `(row,)`, that say which times.
        """
        past = self.inputs.past
        past = None if past is None else dataclasses.replace(past, same=False)
        read = {name: values[index] for name, values in self.inputs.per_datum.items()}
        inputs = dataclasses.replace(
            self.inputs, times=self.inputs.times[index], past=past, per_datum=read
        )
        observed = {name: values[index] for name, values in self.observed.items()}
        return dataclasses.replace(self, inputs=inputs, observed=observed, own_rows=None)

    def split(self, held_out: Bool[np.ndarray, " time"]) -> "tuple[Problem, Problem]":
        """The problem in which the data at some times are missing, and the one in which all others
        are.

        What is predicted in the latter is predicted from all data that were before.

        Args:
            held_out: which times, `(time,)`.
        """
        training, judged = self._seeing(~held_out), self._seeing(held_out)
        past = self.inputs.past
        return training, judged if past is None else judged._with_inputs(past=past)

    def _seeing(self, at: np.ndarray) -> "Problem":
        def some(values: Mapping[str, Array]) -> dict[str, Array]:
            return {
                n: jnp.where(at.reshape(-1, *[1] * (v.ndim - 1)), v, jnp.nan)
                for n, v in values.items()
            }

        past = self.inputs.past
        seen = dataclasses.replace(self, observed=some(self.observed))
        return (
            seen
            if past is None
            else seen._with_inputs(past=dataclasses.replace(past, values=some(past.values)))
        )

    def _with_inputs(self, **inputs: Any) -> "Problem":
        return dataclasses.replace(self, inputs=dataclasses.replace(self.inputs, **inputs))

    @property
    def movable(self) -> dict[str, Array]:
        """Inputs that can be moved a little: values of forcings that run straight or in steps
        between them.

        Of a layer that solves nothing and has no forcings it is the index. Of a solver the times
        cannot change places.
        """
        values = {n: getattr(force, "values", None) for n, force in self.inputs.forcings.items()}
        values = {n: v for n, v in values.items() if v is not None}
        return values if values or self.states() else {_INDEX: self.inputs.times}

    def moved_to(self, values: Mapping[str, Array]) -> "Problem":
        """The problem with other values of some of its movable inputs.

        Args:
            values: those of movable inputs, by name.
        """
        forcings = {
            name: dataclasses.replace(force, values=values[name]) if name in values else force
            for name, force in self.inputs.forcings.items()
        }
        return self._with_inputs(forcings=forcings, times=values.get(_INDEX, self.inputs.times))

    def adjoints(self) -> list[diffrax.AbstractAdjoint]:
        """How the solvers of the model are differentiated, in reverse mode."""
        kind = diffrax.AbstractAdjoint
        return [
            a
            for a in jax.tree.leaves(self.model, is_leaf=lambda a: isinstance(a, kind))
            if isinstance(a, kind)
        ]

    def forward(self) -> "Problem":
        """The problem with solvers that forward mode goes through."""
        return dataclasses.replace(self, model=with_adjoint(self.model, diffrax.ForwardMode()))

    def reversible(self) -> "Problem":
        """The problem with solvers that reverse mode goes through, where they were given forward
        mode only.
        """
        reverse = diffrax.RecursiveCheckpointAdjoint()
        return dataclasses.replace(
            self, model=with_adjoint(self.model, reverse, diffrax.ForwardMode)
        )

    def states(self) -> int:
        """How many numbers the solvers of the model carry along, all of them together."""
        return self.model.layer.states

    def of_groups(self, *groups: str) -> tuple[int, ...]:
        """The coordinates of some groups of random leaves.

        Args:
            groups: some of "science", "latent" and "network".
        """
        leaves = paths(self.model)
        spans = [
            (site.start, site.size)
            for path, site in self.sites.items()
            if leaves[path].group in groups
        ]
        return tuple(i for start, size in spans for i in range(start, start + size))

    def labels(self) -> list[str]:
        """A name for each coordinate, to say where something went wrong."""
        return labels(self.sites)


def log_priors_of(model: Any, values: Mapping[str, Array]) -> dict[str, Float[Array, ""]]:
    """The log prior density of each random leaf at its own value, by path."""
    return {
        path: jnp.sum(leaf.given(values).log_prob(values[path]))
        for path, leaf in paths(model).items()
    }
