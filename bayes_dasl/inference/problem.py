"""The narrow waist: a model and data become one flat, unconstrained log density.

Every engine uses this and nothing else of the model: the log density, prior draws in the same space, the way back to
named values, and what kind of solver there is.
"""

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from numpyro.distributions.transforms import Transform
from numpyro.handlers import substitute
from numpyro.infer.util import log_density

from .._jax.trace import constants, traced
from ..data.datasets import Inputs
from ..layers import with_adjoint
from ..model import Model, Observed, check_data
from ..random import draw_prior, paths
from .bijector import bijector

_WIDTH_DRAWS, _CENTRAL = 500, (0.15866, 0.84134)


class _Site(eqx.Module):
    """Where one random leaf lies in the flat vector, and how it gets there."""

    start: int
    shape: tuple[int, ...]
    bijector: Transform

    @property
    def size(self) -> int:
        """Unconstrained numbers: a point of the simplex of three has two."""
        return math.prod(self.bijector.inverse_shape(self.shape))


class Problem(eqx.Module):
    """The posterior of a model given data, as a function of one flat vector of length `dimension`.

    The sites lie in the order of the vector; JAX would sort a plain dictionary whenever a tree is mapped.
    """

    model: Model
    inputs: Inputs
    observed: Observed
    sites: OrderedDict[str, _Site]
    dimension: int = eqx.field(static=True)

    def log_density(self, position: Float[Array, " dimension"]) -> Float[Array, ""]:
        """Log density in the unconstrained space, up to a constant; −inf where the solver fails."""
        values, log_jacobian = self.constrain_with_volume(position)
        log_joint, _ = log_density(substitute(self.model, data=values), (self.inputs, self.observed), {}, {})
        value = log_joint + log_jacobian
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def log_prior(self, position: Float[Array, " dimension"]) -> Float[Array, ""]:
        """Log density of the prior alone in the unconstrained space; no solver runs."""
        values, log_jacobian = self.constrain_with_volume(position)
        leaves = paths(self.model)
        terms = [jnp.sum(leaf.distribution.log_prob(values[path])) for path, leaf in leaves.items()]
        return sum(terms, log_jacobian)

    def constrain(self, position: Float[Array, " dimension"]) -> dict[str, Array]:
        """Named values (path → array) from a flat position."""
        return self.constrain_with_volume(position)[0]

    def constrain_with_volume(self, position: Array) -> tuple[dict[str, Array], Array]:
        """Named values, and the log of the volume that the way there stretches."""
        values, log_jacobian = {}, jnp.zeros(())
        for path, site in self.sites.items():
            flat = position[site.start : site.start + site.size]
            x = flat.reshape(site.bijector.inverse_shape(site.shape))
            values[path] = site.bijector(x)
            log_jacobian += jnp.sum(site.bijector.log_abs_det_jacobian(x, values[path]))
        return values, log_jacobian

    def unconstrain(self, values: dict[str, Array]) -> Float[Array, " dimension"]:
        """The flat position of named values."""
        parts = [jnp.ravel(site.bijector.inv(values[path])) for path, site in self.sites.items()]
        return jnp.concatenate(parts)

    def prior(self, draws: int, *, key: Array) -> Float[Array, "draws dimension"]:
        """Independent prior draws in the unconstrained space; no solver runs."""
        return jax.jit(jax.vmap(self.unconstrain))(draw_prior(self.model, draws, key=key))

    def prior_spread(self) -> Float[np.ndarray, " dimension"]:
        """How wide the prior is in the unconstrained space: half of its central 68 %, a normal's standard deviation.

        One where there is no such number, as of a gamma distribution of which half of the draws are zero in floats.
        """
        draws = self.prior(_WIDTH_DRAWS, key=jax.random.key(0))
        with np.errstate(invalid="ignore"):
            low, high = np.quantile(draws, _CENTRAL, axis=0)
            widths = (high - low) / 2
        return np.where(np.isfinite(widths) & (widths > 0), widths, 1.0)

    def fingerprint(self) -> str:
        """SHA-256 of the traced log density: it changes with any equation, prior, solver setting or datum.

        It cannot see inside a function that JAX calls back in Python, and may change with the versions of libraries.
        """
        closed = jax.make_jaxpr(self.log_density)(jnp.zeros(self.dimension))
        digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr)).encode())
        for constant in map(np.asarray, constants(closed)):
            digest.update(f"{constant.dtype}{constant.shape}".encode() + np.ascontiguousarray(constant).tobytes())
        return digest.hexdigest()

    def adjoints(self) -> list[diffrax.AbstractAdjoint]:
        """How the solvers of the model are differentiated, in reverse mode."""
        kind = diffrax.AbstractAdjoint
        return [a for a in jax.tree.leaves(self, is_leaf=lambda a: isinstance(a, kind)) if isinstance(a, kind)]

    def states(self) -> int:
        """How many numbers the solvers of the model carry along, all of them together."""
        return self.model.layer.states

    def of_groups(self, *groups: str) -> tuple[int, ...]:
        """The coordinates of some groups of random leaves."""
        leaves = paths(self.model)
        spans = [(site.start, site.size) for path, site in self.sites.items() if leaves[path].group in groups]
        return tuple(i for start, size in spans for i in range(start, start + size))

    def labels(self) -> list[str]:
        """A name for each coordinate, to say where something went wrong."""
        return [
            path if site.size == 1 else f"{path}[{i}]" for path, site in self.sites.items() for i in range(site.size)
        ]


def pose(model: Model, data: xr.Dataset) -> Problem:
    """Check the data and flatten the model's random leaves.

    Raises: DataError or ModelError, before anything is compiled.
    """
    observed = check_data(model, data)
    sites, start = OrderedDict(), 0
    for path, leaf in paths(model).items():
        sites[path] = _Site(start, leaf.shape, bijector(leaf.distribution.support))
        start += sites[path].size
    return Problem(model, model.inputs(data), observed, sites, start)


type LogDensity = Callable[[Float[Array, " dimension"]], Float[Array, ""]]
type ValueAndGradient = Callable[[Float[Array, " dimension"]], tuple[Float[Array, ""], Float[Array, " dimension"]]]


def traced_once(problem: Problem, strategy: str = "reverse") -> tuple[ValueAndGradient, LogDensity]:
    """Value and gradient of the log density, and the log density itself, from one shared trace.

    Tracing a solver takes about as long as compiling it, so every program of an engine is built from these
    two. They are closed: unlike the solver itself they can be used inside `shard_map` (diffrax#765).
    """
    both = _forward(problem) if strategy == "forward" else jax.value_and_grad(problem.log_density)
    evaluate = jax.jit(traced(both, jnp.zeros(problem.dimension)))

    def value_and_gradient(position):
        value, gradient = evaluate(position)
        # A vector field that turns NaN (the root of a negative state) has a NaN gradient: the draw is lost anyway.
        return value, jnp.where(jnp.isfinite(value), gradient, 0.0)

    @jax.custom_vjp
    def log_density_of(position):
        return value_and_gradient(position)[0]

    log_density_of.defvjp(value_and_gradient, lambda gradient, scale: (scale * gradient,))
    return value_and_gradient, log_density_of


def reversible(problem: Problem) -> Problem:
    """The problem with solvers that reverse mode goes through, where they were given forward mode only."""
    return with_adjoint(problem, diffrax.RecursiveCheckpointAdjoint(), diffrax.ForwardMode)


def _forward(problem: Problem) -> ValueAndGradient:
    """One solve that carries the sensitivities to every unknown number along."""
    forward = with_adjoint(problem, diffrax.ForwardMode())

    def value_and_gradient(position):
        along = lambda direction: jax.jvp(forward.log_density, (position,), (direction,))  # noqa: E731
        return jax.vmap(along, out_axes=(None, 0))(jnp.eye(position.size))

    return value_and_gradient
