"""The log density by its terms: what data, science and networks say of a position."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..data.datasets import Inputs
from ..model import Observed
from ..random import paths, realise
from .problem import Problem

type Priors = Mapping[str, Float[Array, ""]]
"""What the priors say, by group of random leaves."""

type Weights = Mapping[str, Float[Array, "time ..."]]
"""How often each datum of an observable counts."""


class Terms(NamedTuple):
    """Their sum is the log density; −inf, all of them, where the solver fails.

    `data` is the log likelihood, `science` the prior of what has a meaning, latent states included, with what soft
    constraints and mismatches say, and `network` the prior of what is learned; both with the volume of the way to the
    unconstrained space.
    """

    data: Float[Array, ""]
    science: Float[Array, ""]
    network: Float[Array, ""]


def terms(
    problem: Problem,
    position: Float[Array, " dimension"],
    given: Inputs,
    observed: Observed,
    weights: Weights,
    *,
    priors: Priors | None = None,
    data_at: Float[Array, " dimension"] | None = None,
) -> Terms:
    """The terms at a position, for inputs and data that may be some rows of the problem's own.

    `priors` stand in for those of the model. The data may see another position, `data_at`, than the priors.
    """
    priors = log_priors(problem, position) if priors is None else priors
    realised = realise(problem.model, problem.constrain(position if data_at is None else data_at))
    prediction = realised.predict(given)
    likelihood = jnp.zeros(())
    for name, noise in realised.conditional(prediction, given).items():
        seen = ~jnp.isnan(observed[name])
        each = noise.log_prob(jnp.where(seen, observed[name], 1.0))
        likelihood += jnp.sum(weights[name] * jnp.where(seen, each, 0.0))
    science = priors["science"] + priors["latent"] + prediction.log_factor
    found = Terms(likelihood, science, priors["network"])
    usable = prediction.ok & jnp.isfinite(sum(found, jnp.zeros(())))
    return Terms(*(jnp.where(usable, value, -jnp.inf) for value in found))


def log_priors(problem: Problem, position: Float[Array, " dimension"]) -> Priors:
    """The log priors of a position, with the volume of the way to the unconstrained space."""
    found = {"science": jnp.zeros(()), "latent": jnp.zeros(()), "network": jnp.zeros(())}
    values = problem.constrain(position)
    for path, leaf in paths(problem.model).items():
        site = problem.sites[path]
        x = position[site.start : site.start + site.size].reshape(site.bijector.inverse_shape(site.shape))
        volume = jnp.sum(site.bijector.log_abs_det_jacobian(x, values[path]))
        found[leaf.group] += jnp.sum(leaf.distribution.log_prob(values[path])) + volume
    return found


def rows(problem: Problem, index: Int[Array, " row"]) -> tuple[Inputs, Observed]:
    """Inputs and data at some of the times of a problem, in their order."""
    given = dataclasses.replace(problem.inputs, times=problem.inputs.times[index])
    return given, {name: values[index] for name, values in problem.observed.items()}
